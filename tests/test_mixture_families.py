"""Mixtures of families other than Gaussians, and mixtures as the densities of classes."""

import math
import pickle

import numpy as np
import pytest
from scipy import stats

from fastgen import GaussianMixture, GenerativeClassifier, Mixture, _mixture_em, families

# Earthquakes of magnitude 7 or more, 1900-2006 (Zucchini & MacDonald, Hidden Markov Models for Time Series, table 1.1).
_COUNTS = """
13 14 8 10 16 26 32 27 18 32 36 24 22 23 22 18 25 21 21 14 8 11 14 23 18 17 19 20 22 19 13 26 13 14 22 24 21
22 26 21 23 24 27 41 31 27 35 26 28 36 39 21 17 22 17 19 15 34 10 15 22 18 15 20 15 22 19 16 30 27 29 23 20 16
21 21 25 16 18 15 18 14 10 15 8 15 6 11 8 7 18 16 13 12 13 20 15 16 12 18 15 16 13 15 16 11 11
"""
EARTHQUAKES = np.array(_COUNTS.split(), dtype=float)[:, None]


def fitted(family, X, K=2, **options):
    return Mixture(family, K, **({"random_state": 0, "tol": 1e-12, "max_iter": 20_000} | options)).fit(X)


def test_earthquakes():
    """Zucchini & MacDonald, table 1.2: -log L, weights and rates."""
    assert len(EARTHQUAKES) == 107
    one = fitted(families.Poisson(), EARTHQUAKES, 1)
    assert one.lower_bound_ * 107 == pytest.approx(-391.9189, abs=5e-5)
    two = fitted(families.Poisson(), EARTHQUAKES)
    assert two.lower_bound_ * 107 == pytest.approx(-360.3690, abs=5e-5)
    order = np.argsort(two.family_.parameters["rates"].ravel())
    np.testing.assert_allclose(two.weights_[order], [0.676, 0.324], atol=5e-4)
    np.testing.assert_allclose(two.family_.parameters["rates"].ravel()[order], [15.777, 26.840], atol=5e-4)
    # K - 1 weights and K rates: see the book for AIC and BIC of K = 2
    assert two.aic(EARTHQUAKES) == pytest.approx(2 * 360.3690 + 2 * 3, abs=2e-4)
    assert two.bic(EARTHQUAKES) == pytest.approx(2 * 360.3690 + math.log(107) * 3, abs=2e-4)


def test_poisson_scores_against_scipy():
    model = fitted(families.Poisson(), EARTHQUAKES)
    rates = model.family_.parameters["rates"].ravel()
    joint = stats.poisson.logpmf(EARTHQUAKES, rates) + np.log(model.weights_)
    expected = np.logaddexp(joint[:, 0], joint[:, 1])
    np.testing.assert_allclose(model.log_prob(EARTHQUAKES), expected, rtol=1e-12)
    np.testing.assert_allclose(model.predict_proba(EARTHQUAKES), np.exp(joint - expected[:, None]), atol=1e-13)
    np.testing.assert_array_equal(model.predict(EARTHQUAKES), joint.argmax(axis=1))
    assert model.score(EARTHQUAKES) == pytest.approx(model.lower_bound_, rel=1e-12)


def latent_classes(n, seed=0):
    rng = np.random.default_rng(seed)
    tables = np.array(
        [[[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [[0.1, 0.2, 0.7], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]]]
    )
    z = (rng.random(n) < 0.4).astype(int)
    X = np.array([[rng.choice(3, p=tables[k, j]) for j in range(3)] for k in z], float)
    return X, z, tables


def test_latent_class_analysis_recovers_the_tables():
    X, z, tables = latent_classes(4000)
    model = fitted(families.Categorical(), X, n_init=3)
    order = np.argsort(model.weights_)[::-1]
    np.testing.assert_allclose(model.weights_[order], [0.6, 0.4], atol=0.04)
    np.testing.assert_allclose(model.family_.parameters["probabilities"][order], tables, atol=0.06)
    assert (model.predict(X) == order[z]).mean() > 0.9


def test_missing_cells_of_categories_are_marginalised():
    X, _, _ = latent_classes(500)
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    X[0] = np.nan
    model = fitted(families.Categorical(pseudo_count=0.1), X, tol=1e-9)
    assert model.log_prob(X)[0] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(model.predict_proba(X)[0], model.weights_, atol=1e-12)
    two = model.marginal([0, 2])
    row = np.array([[1.0, np.nan, 2.0]])
    np.testing.assert_allclose(two.log_prob(row[:, [0, 2]]), model.log_prob(row), rtol=1e-12)
    complete = model.impute(X)
    assert not np.isnan(complete).any()
    np.testing.assert_array_equal(complete[~np.isnan(X)], X[~np.isnan(X)])


@pytest.mark.parametrize("seed", range(6))
def test_mixed_columns(seed):
    rng = np.random.default_rng(seed)
    z = rng.integers(2, size=800)
    X = np.column_stack(
        [
            rng.normal(3.0 * z, 1.0),
            rng.normal(-2.0 * z, 0.5),
            rng.poisson(np.where(z, 9.0, 2.0)),
            (rng.random(800) < np.where(z, 0.9, 0.2)).astype(float),
            rng.integers(0, 2, 800) + z,
        ]
    )
    X[rng.random(X.shape) < 0.1] = np.nan
    family = families.Product(
        [
            (families.Gaussian(), [0, 1]),
            (families.Poisson(), [2]),
            (families.Bernoulli(), [3]),
            (families.Categorical(), [4]),
        ]
    )
    model = fitted(family, X, tol=1e-9)
    assert np.diff(model.history_).min() > -1e-10
    agreement = (model.predict(X) == z).mean()
    assert max(agreement, 1 - agreement) > 0.97
    drawn, components = model.sample(4000, random_state=1)
    assert set(np.unique(components)) == {0, 1}
    np.testing.assert_allclose(drawn.mean(axis=0), np.nanmean(X, axis=0), atol=0.4)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.log_prob(X), model.log_prob(X))


def test_student_t_is_robust_and_recovers_its_parameters():
    rng = np.random.default_rng(0)
    parts = [stats.multivariate_t([0, 0], np.eye(2), 3, seed=1).rvs(3000)]
    parts.append(stats.multivariate_t([8, 8], [[1, 0.5], [0.5, 1]], 20, seed=2).rvs(1000))
    X = rng.permutation(np.concatenate(parts))
    model = fitted(families.StudentT(), X, tol=1e-10)
    assert np.diff(model.history_).min() > -1e-10
    order = np.argsort(model.weights_)[::-1]
    parameters = model.family_.parameters
    np.testing.assert_allclose(parameters["means"][order], [[0, 0], [8, 8]], atol=0.15)
    assert parameters["dfs"][order[0]] == pytest.approx(3, rel=0.2)
    assert model.n_iter_ < 100
    X[0] = 1e6  # one gross error moves a Gaussian, but not this
    robust = fitted(families.StudentT(), X, init_params="random_from_data", n_init=3, tol=1e-6)
    assert np.abs(robust.family_.parameters["means"]).max() < 9


def test_gaussian_family_gives_what_gaussian_mixture_gives():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(200, 2)), rng.normal(size=(100, 2)) + 4])
    general = Mixture(families.Gaussian(reg_covar=1e-6), 2, tol=1e-3, max_iter=100, random_state=0).fit(X)
    special = GaussianMixture(2, random_state=0).fit(X)
    np.testing.assert_array_equal(general.family_.means, special.family_.means)
    np.testing.assert_array_equal(general.history_, special.history_)


def test_row_that_no_component_can_have_made():
    X = np.array([[0.0], [1.0], [0.0], [5.0]])
    model = Mixture(families.Categorical(6), 1, random_state=0).fit(X[:3])
    assert model.log_prob(X)[3] == -np.inf
    assert np.isnan(model.predict_proba(X)[3]).all()
    assert model.predict(X)[3] == 0
    with pytest.raises(ValueError, match="row 3 has probability 0"):
        Mixture(families.Categorical(6), 1, random_state=0, warm_start=True).fit(X[:3]).set_params(max_iter=3).fit(X)


def test_family_is_checked():
    with pytest.raises(TypeError, match="family must be one of"):
        Mixture("poisson", 2).fit(EARTHQUAKES)
    with pytest.raises(ValueError, match="row 0, column 0"):
        Mixture(families.Poisson(), 2).fit(-EARTHQUAKES)


@pytest.mark.parametrize(("family", "bad"), [(families.Multinomial(), np.nan), (families.Poisson(), -1.0)])
def test_bad_values_name_their_row(family, bad, monkeypatch):
    """Not their place in a cluster, in a sample of the rows, or in a block."""
    X = np.random.default_rng(0).poisson([2.0, 9.0], (60, 2)).astype(float)
    X[37, 0] = bad
    for data in (X, [X[:30], X[30:]]):
        with pytest.raises(ValueError, match="row 37"):
            Mixture(family, 3, random_state=0).fit(data)
    monkeypatch.setattr(_mixture_em, "_START_ROWS", 50)
    X[[37, 38, 39], 0] = bad
    with pytest.raises(ValueError, match="row 37"):
        Mixture(family, 3, random_state=0).fit(X)


def test_online_em_of_counts_and_where_it_cannot_be():
    model = Mixture(families.Poisson(), 2, random_state=0)
    for _ in range(5):
        model.partial_fit(EARTHQUAKES)
    assert model.score(EARTHQUAKES) * 107 == pytest.approx(-360.3690, abs=1e-2)
    with pytest.raises(TypeError, match="use fit"):
        Mixture(families.StudentT(), 1).partial_fit(EARTHQUAKES).partial_fit(EARTHQUAKES)


def test_mixtures_as_densities_of_classes():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=600)
    X = rng.normal(size=(600, 2)) + 4.0 * np.where(y[:, None], rng.integers(2, size=(600, 1)) * 2 - 1, 0)
    one = GenerativeClassifier().fit(X, y).score(X, y)
    model = GenerativeClassifier(GaussianMixture(2, random_state=0)).fit(X, y)
    assert model.score(X, y) > max(one, 0.97)
    drawn, _ = model.sample(10, random_state=0)
    assert drawn.shape == (10, 2)
