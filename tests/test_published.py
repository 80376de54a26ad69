"""Figures that others have published or computed, to all their digits: Old Faithful and iris."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

from fastgen import Gaussian, GaussianMixture

# Log-likelihoods and BIC as mclust 6 (R) defines them, 2 log L - df log n; from EM run to convergence.
TIGHT = {"reg_covar": 0.0, "tol": 1e-12, "max_iter": 5000, "random_state": 0}


@pytest.fixture(scope="module")
def old_faithful():
    path = Path(__file__).parent / "data" / "old_faithful.csv"
    return np.loadtxt(path, delimiter=",", skiprows=3)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)[0]


@pytest.mark.parametrize(
    ("kind", "expected"), [("spherical", -2003.952037), ("diag", -1516.705827), ("full", -1289.796745)]
)
def test_old_faithful_one_gaussian(old_faithful, kind, expected):
    assert old_faithful.shape == (272, 2)
    assert Gaussian(kind).fit(old_faithful).log_prob(old_faithful).sum() == pytest.approx(expected, abs=6e-7)
    mixture = GaussianMixture(1, covariance_type=kind, **TIGHT).fit(old_faithful)
    assert mixture.lower_bound_ * 272 == pytest.approx(expected, abs=6e-7)


def test_old_faithful_two_components(old_faithful):
    """mclust's VVV, K = 2."""
    model = GaussianMixture(2, **TIGHT).fit(old_faithful)
    assert model.score(old_faithful) * 272 == pytest.approx(-1130.263960, abs=6e-7)
    assert model.bic(old_faithful) == pytest.approx(2322.1917, abs=6e-5)


def test_old_faithful_three_tied_components(old_faithful):
    """mclust's EEE, K = 3: the model that BIC chooses there."""
    model = GaussianMixture(3, covariance_type="tied", n_init=5, **TIGHT).fit(old_faithful)
    assert model.score(old_faithful) * 272 == pytest.approx(-1126.315928, abs=6e-7)


@pytest.mark.parametrize(
    ("kind", "expected"), [("spherical", -889.516131), ("diag", -741.017535), ("full", -379.914630)]
)
def test_iris_one_gaussian(iris, kind, expected):
    model = GaussianMixture(1, covariance_type=kind, **TIGHT).fit(iris)
    assert model.lower_bound_ * 150 == pytest.approx(expected, abs=6e-7)


def test_iris_two_components(iris):
    model = GaussianMixture(2, **TIGHT).fit(iris)
    assert model.score(iris) * 150 == pytest.approx(-214.354704, abs=6e-7)
    assert model.bic(iris) == pytest.approx(574.0178, abs=6e-5)


def test_iris_three_components(iris):
    """23 of 25 starts by k-means are said to end at the best optimum; ours are other starts, and most must."""
    model = GaussianMixture(3, n_init=25, **(TIGHT | {"tol": 1e-10})).fit(iris)
    best, count = model.optima_[0]
    assert best * 150 == pytest.approx(-180.185477, abs=6e-7)
    assert count >= 20
