"""The Gaussian density: fit, missing values, marginals and conditionals, and what scikit-learn asks of an estimator."""

import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import gaussian as oracle
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastgen
from fastgen import Gaussian
from fastgen.errors import SingularCovarianceError

TYPES = ("full", "tied", "diag", "spherical")
nan = np.nan


def checks_on_singular_data(estimator):
    """Checks whose data have no maximum likelihood estimate: the right answer is SingularCovarianceError."""
    if estimator.reg_covar or estimator.covariance_type in ("diag", "spherical"):
        return {}
    return {"check_sample_weight_equivalence_on_dense_data": "15 samples of 30 features have a singular covariance"}


@parametrize_with_checks(
    [Gaussian(kind, reg_covar=reg_covar) for kind in TYPES for reg_covar in (0.0, 1e-3)],
    expected_failed_checks=checks_on_singular_data,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def correlated(rng, n, d):
    return rng.standard_normal((n, d)) @ np.linalg.cholesky(oracle.random_covariance(rng, d)).T + rng.uniform(-3, 3, d)


def with_holes(rng, X, share):
    X = X.copy()
    X[rng.random(X.shape) < share] = nan
    X[np.isnan(X).all(axis=1), 0] = 0.0
    return X


def state(estimator):
    """All attributes, statistics and families taken apart, to be compared."""
    return pickle.dumps(estimator)


# ---- fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("covariance_type", "log_likelihood"),
    # REFERENCE: "One Gaussian spherical/diagonal/full" of iris, as mclust's EII, EEI, EEE with one component
    [("spherical", -889.516131), ("diag", -741.017535), ("full", -379.914630), ("tied", -379.914630)],
)
def test_published_log_likelihoods_of_iris(iris, covariance_type, log_likelihood):
    X, _ = iris
    g = Gaussian(covariance_type).fit(X)
    assert g.log_prob(X).sum() == pytest.approx(log_likelihood, abs=5.1e-7)
    assert g.score(X) == pytest.approx(log_likelihood / 150, abs=5.1e-7 / 150)
    # 4 means; 10, 4, 1 covariances
    p = {"spherical": 5, "diag": 8, "full": 14, "tied": 14}[covariance_type]
    assert g.aic(X) == pytest.approx(-2 * log_likelihood + 2 * p, abs=1.1e-6)
    assert g.bic(X) == pytest.approx(-2 * log_likelihood + p * np.log(150), abs=1.1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_fit_against_textbook(rng, covariance_type):
    X, weights = correlated(rng, 500, 4), rng.uniform(size=500)
    for w, reg_covar in ((None, 0.0), (weights, 0.0), (weights, 0.125)):
        g = Gaussian(covariance_type, reg_covar=reg_covar).fit(X, sample_weight=w)
        mean, covariance = oracle.fit(X, w, covariance_type, reg_covar)
        np.testing.assert_allclose(g.mean_, mean, rtol=1e-12)
        np.testing.assert_allclose(g.covariance_, covariance, rtol=1e-12, atol=1e-13)
        assert isinstance(g.covariance_, float) == (covariance_type == "spherical")
        assert g.stop_reason_ == "closed form"
        assert g.n_iter_ == 1
        assert len(g.history_) == 0
        np.testing.assert_allclose(
            g.log_prob(X),
            oracle.log_density(
                X, mean[None], covariance if covariance_type == "tied" else np.array([covariance]), covariance_type
            )[:, 0],
            rtol=1e-12,
        )


def test_score_with_weights(rng):
    X, weights = correlated(rng, 50, 2), rng.uniform(size=50)
    g = Gaussian().fit(X)
    assert g.score(X, sample_weight=weights) == pytest.approx(weights @ g.log_prob(X) / weights.sum(), rel=1e-13)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_equivariance(rng, covariance_type):
    X = rng.integers(-50, 50, (300, 3)).astype(float)
    g = Gaussian(covariance_type).fit(X)
    shifted = Gaussian(covariance_type).fit(X + 1e8)
    np.testing.assert_allclose(shifted.mean_ - 1e8, g.mean_, atol=1.5e-8)  # one ulp of 1e8
    np.testing.assert_allclose(shifted.covariance_, g.covariance_, rtol=1e-12, atol=1e-12)
    scaled = Gaussian(covariance_type).fit(X * 1e-6)
    np.testing.assert_allclose(scaled.covariance_, np.asarray(g.covariance_) * 1e-12, rtol=1e-12, atol=1e-24)
    np.testing.assert_allclose(scaled.log_prob(X * 1e-6), g.log_prob(X) + 3 * np.log(1e6), rtol=1e-12)
    order = [2, 0, 1]
    permuted = Gaussian(covariance_type).fit(X[rng.permutation(300)][:, order])
    np.testing.assert_allclose(permuted.mean_, g.mean_[order], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(permuted.log_prob(X[:, order]), g.log_prob(X), rtol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_threads_change_no_bit(rng, covariance_type, missing):
    X = with_holes(rng, correlated(rng, 6000, 3), missing)
    fitted = []
    for n_threads in (1, 2, 7):
        with fastgen.num_threads(n_threads):
            g = Gaussian(covariance_type, tol=1e-6).fit(X)
            fitted.append((g.mean_, np.asarray(g.covariance_), g.history_, g.log_prob(X)))
    for other in fitted[1:]:
        for one, two in zip(fitted[0], other, strict=True):
            assert np.array_equal(one, two)


def test_float32(rng):
    X = (1e3 + correlated(rng, 1000, 3)).astype(np.float32)
    g = Gaussian().fit(X)
    exact = Gaussian().fit(X.astype(np.float64))
    assert g.mean_.dtype == g.covariance_.dtype == np.float64
    assert np.array_equal(g.covariance_, exact.covariance_)
    log_prob = g.log_prob(X)
    assert log_prob.dtype == np.float32
    assert np.array_equal(log_prob, exact.log_prob(X.astype(np.float64)).astype(np.float32))
    X[0, 0] = nan
    assert g.impute(X).dtype == np.float32


@pytest.mark.parametrize("covariance_type", TYPES)
def test_input_is_not_modified_and_may_be_read_only(rng, covariance_type):
    X = with_holes(rng, correlated(rng, 100, 3), 0.1)
    weights = rng.uniform(size=100)
    X.flags.writeable = weights.flags.writeable = False
    copy = X.copy()
    g = Gaussian(covariance_type).fit(X, sample_weight=weights)
    g.partial_fit(X, sample_weight=weights)
    filled = g.impute(X)
    assert filled.flags.writeable
    assert not np.isnan(filled).any()
    g.log_prob(X)
    assert np.array_equal(X, copy, equal_nan=True)


# ---- missing values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("weighted", [False, True])
def test_em_takes_the_steps_of_the_textbook(rng, covariance_type, weighted):
    X = with_holes(rng, correlated(rng, 80, 3), 0.3)
    X[5] = nan  # says nothing
    weights = rng.uniform(size=80) if weighted else np.ones(80)
    for max_iter in (1, 2, 7):
        g = Gaussian(covariance_type, tol=0, max_iter=max_iter)
        with pytest.warns(ConvergenceWarning, match=f"did not converge in {max_iter} iterations"):
            g.fit(X, sample_weight=weights if weighted else None)
        # The start is the first M-step of the textbook, from the means and variances of the observed cells.
        mean, covariance, history = oracle.em(X, max_iter + 1, weights)
        np.testing.assert_allclose(g.mean_, mean, rtol=1e-11)
        np.testing.assert_allclose(g.covariance_, covariance, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(g.history_ * weights.sum(), history[1:], rtol=1e-12)
        assert g.n_iter_ == max_iter
        assert g.stop_reason_ == "max_iter"


@settings(max_examples=40)
@given(st.integers(6, 60), st.integers(2, 4), st.floats(0.02, 0.5), st.integers(0, 10**6), st.sampled_from([0.0, 0.1]))
def test_history_never_falls(n, d, share, seed, reg_covar):
    rng = np.random.default_rng(seed)
    X = with_holes(rng, correlated(rng, n, d), share)
    X[: d + 2] = rng.standard_normal((d + 2, d))  # enough complete rows for a covariance
    g = Gaussian(reg_covar=reg_covar, tol=1e-7).fit(X)
    if np.isnan(X).any():
        assert g.stop_reason_ == "converged"
        steps = np.diff(g.history_)
        assert (steps >= -1e-10 * np.maximum(1, np.abs(g.history_[:-1]))).all()  # rounding, as _em.py states it
        penalty = 0.5 * reg_covar * np.trace(np.linalg.inv(g.covariance_))
        assert g.history_[-1] == pytest.approx(g.score(X) - penalty, rel=1e-10, abs=1e-10)  # of what is returned


@pytest.mark.parametrize("reg_covar", [0.0, 0.2])
def test_the_fit_is_stationary(rng, reg_covar):
    """The gradient of the observed-data log-likelihood (and penalty), by central differences of the oracle, is 0."""
    X = with_holes(rng, correlated(rng, 60, 3), 0.25)
    g = Gaussian(tol=0, reg_covar=reg_covar).fit(X)

    def objective(mean, covariance):
        log_likelihood = oracle.log_density(X, mean[None], covariance[None]).mean()
        return log_likelihood - 0.5 * reg_covar * np.trace(np.linalg.inv(covariance))

    h = 1e-4  # error of the differences: h^2 and eps / h, both about 1e-8 or less
    for i in range(3):
        step = h * np.eye(3)[i]
        slope = (objective(g.mean_ + step, g.covariance_) - objective(g.mean_ - step, g.covariance_)) / (2 * h)
        assert abs(slope) < 1e-6
        for j in range(i + 1):
            step = np.zeros((3, 3))
            step[i, j] = step[j, i] = h
            up, down = objective(g.mean_, g.covariance_ + step), objective(g.mean_, g.covariance_ - step)
            assert abs(up - down) / (2 * h) < 1e-6


def test_monotone_pattern_has_a_closed_form(rng):
    """Little & Rubin (2002), sec. 7.2 (Anderson 1957): the first columns always observed, the others in r rows.

    The likelihood factors into that of x_1 (all rows) and the regression of x_2 on x_1 (the complete rows).
    """
    X, r = correlated(rng, 200, 4), 120
    X[r:, 2:] = nan
    mean_1 = X[:, :2].mean(axis=0)
    S_11 = np.cov(X[:, :2].T, ddof=0)
    complete = X[:r]
    centred = complete - complete.mean(axis=0)
    B, *_ = np.linalg.lstsq(centred[:, :2], centred[:, 2:], rcond=None)
    residual = centred[:, 2:] - centred[:, :2] @ B
    mean_2 = complete[:, 2:].mean(axis=0) + (mean_1 - complete[:, :2].mean(axis=0)) @ B
    S_22 = residual.T @ residual / r + B.T @ S_11 @ B
    g = Gaussian(tol=0).fit(X)
    # The likelihood is flat at its top: EM finds it to rounding, the parameters to the root of that.
    np.testing.assert_allclose(g.mean_, np.r_[mean_1, mean_2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(g.covariance_, np.block([[S_11, S_11 @ B], [B.T @ S_11, S_22]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_without_any_value_say_nothing(rng, covariance_type):
    X = with_holes(rng, correlated(rng, 100, 3), 0.1)
    g = Gaussian(covariance_type, tol=0).fit(X)
    more = Gaussian(covariance_type, tol=0).fit(np.r_[X[:40], np.full((30, 3), nan), X[40:]])
    np.testing.assert_allclose(more.mean_, g.mean_, rtol=0, atol=1e-6)  # other blocks, another order of summation
    np.testing.assert_allclose(more.covariance_, g.covariance_, rtol=0, atol=1e-6)
    only = np.r_[correlated(rng, 100, 3), np.full((30, 3), nan)]
    one, two = Gaussian(covariance_type).fit(only), Gaussian(covariance_type).fit(only[:100])
    np.testing.assert_allclose(one.mean_, two.mean_, rtol=1e-13)
    assert one.stop_reason_ == "closed form"
    assert not one.log_prob(only)[100:].any()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_column_without_any_value_is_an_error(rng, covariance_type):
    X = correlated(rng, 20, 3)
    X[:, 2] = nan
    with pytest.raises(ValueError, match="column 2 has no observed value"):
        Gaussian(covariance_type).fit(X)
    with pytest.raises(ValueError, match="has no observed value"):
        Gaussian(covariance_type).fit(np.full((5, 2), nan))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_weights_of_rows_with_missing_values_are_repetitions(rng, covariance_type):
    X = with_holes(rng, correlated(rng, 60, 3), 0.2)
    counts = rng.integers(1, 4, 60)
    one = Gaussian(covariance_type, tol=0).fit(X, sample_weight=counts)
    two = Gaussian(covariance_type, tol=0).fit(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(one.mean_, two.mean_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one.covariance_, two.covariance_, rtol=0, atol=1e-6)


# ---- partial_fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_partial_fit_is_fit(rng, covariance_type):
    X, weights = correlated(rng, 1000, 3) + np.linspace(0, 9, 1000)[:, None], rng.uniform(size=1000)
    whole = Gaussian(covariance_type, reg_covar=0.1).fit(X, sample_weight=weights)
    g = Gaussian(covariance_type, reg_covar=0.1)
    for start in range(0, 1000, 130):
        part = slice(start, start + 130)
        assert g.partial_fit(X[part], sample_weight=weights[part]) is g
    np.testing.assert_allclose(g.mean_, whole.mean_, rtol=1e-12)
    np.testing.assert_allclose(g.covariance_, whole.covariance_, rtol=1e-12, atol=1e-13)
    g.fit(X[:100])  # begins anew
    assert np.array_equal(g.mean_, Gaussian(covariance_type, reg_covar=0.1).fit(X[:100]).mean_)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_partial_fit_with_missing_values_of_independent_columns(rng, covariance_type):
    X = with_holes(rng, correlated(rng, 300, 3), 0.3)
    whole = Gaussian(covariance_type).fit(X)
    g = Gaussian(covariance_type).partial_fit(X[:100]).partial_fit(X[100:])
    np.testing.assert_allclose(g.mean_, whole.mean_, rtol=1e-12)
    np.testing.assert_allclose(g.covariance_, whole.covariance_, rtol=1e-12)


def test_partial_fit_fills_missing_values_with_what_it_knows(rng):
    X = correlated(rng, 400, 3)
    g = Gaussian().fit(X[:200])
    block = with_holes(rng, X[200:], 0.2)
    filled, extra = block.copy(), np.zeros((3, 3))
    for i, x in enumerate(block):
        m = np.isnan(x)
        if m.any():
            filled[i, m], residual = oracle.conditional(g.mean_, g.covariance_, x)
            extra[np.ix_(m, m)] += residual
    both = np.r_[X[:200], filled]
    mean, covariance = oracle.fit(both)
    g.partial_fit(block)
    np.testing.assert_allclose(g.mean_, mean, rtol=1e-12)
    np.testing.assert_allclose(g.covariance_, covariance + extra / 400, rtol=1e-12, atol=1e-13)


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.array([[0.0, 1.0], [1.0, np.inf], [2.0, 3.0]]), r"infinity \(at row 1, column 1\)"),
        (
            np.zeros((5, 2)),
            r"covariance of the data \(5 samples\) is not positive definite: the variance of column 0 is 0",
        ),
        (np.zeros((1, 2)), r"the covariance of the data \(1 sample\) is not positive definite"),
        (np.repeat(np.arange(6.0)[:, None], 2, axis=1), "column 1 is, up to rounding, a linear combination"),
        (np.zeros((3, 2), complex), "Complex data"),
        (np.full((3, 2), nan), "no observed value"),
    ],
)
def test_a_failed_fit_leaves_no_trace(rng, data, message):
    g = Gaussian().fit(correlated(rng, 50, 3))
    before, attributes = state(g), dict(vars(g))
    for method in (g.fit, g.partial_fit):
        with pytest.raises(ValueError, match=message if method == g.fit else None):
            method(data)
        assert state(g) == before
        assert vars(g).keys() == attributes.keys()
        assert all(vars(g)[name] is value for name, value in attributes.items())
    fresh = Gaussian()
    with pytest.raises(ValueError, match=message):
        fresh.fit(data)
    assert vars(fresh) == vars(Gaussian())


def test_singular_covariances_name_the_remedy():
    with pytest.raises(SingularCovarianceError, match=r"Increase reg_covar, use more samples, or a simpler cov"):
        Gaussian().fit(np.eye(3)[:2])
    Gaussian(reg_covar=1e-6).fit(np.eye(3)[:2])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"covariance_type": "fool"}, "covariance_type must be one of 'full', 'tied', 'diag', 'spherical'; got 'fool'"),
        ({"reg_covar": -1.0}, "reg_covar must be a finite number"),
        ({"reg_covar": nan}, "reg_covar must be a finite number"),
    ],
)
def test_wrong_parameters(parameters, message):
    g = Gaussian(**parameters)  # scikit-learn: checked in fit, not before
    with pytest.raises(ValueError, match=re.escape(message)):
        g.fit(np.eye(3))


@pytest.mark.parametrize(
    "parameters",
    [
        {"tol": nan, "max_iter": 20},
        {"tol": -1.0, "max_iter": 20},
        {"tol": "x"},
        {"max_iter": 0},
        {"max_iter": -3},
        {"max_iter": 2.5},
    ],
)
def test_wrong_parameters_of_em(rng, parameters):
    X = with_holes(rng, correlated(rng, 30, 2), 0.2)
    with pytest.raises((ValueError, TypeError), match=next(iter(parameters))):
        Gaussian(**parameters).fit(X)


@pytest.mark.parametrize("weights", [np.ones(4), -np.ones(5), np.full(5, nan), np.zeros(5), np.ones((5, 1)), "abc"])
def test_wrong_weights(rng, weights):
    with pytest.raises((ValueError, TypeError), match="sample_weight must"):
        Gaussian("diag").fit(rng.standard_normal((5, 2)), sample_weight=weights)


def test_not_fitted():
    g = Gaussian()
    for call in (
        lambda: g.log_prob([[0.0]]),
        lambda: g.sample(),
        lambda: g.marginal([0]),
        lambda: g.condition({0: 1.0}),
        lambda: g.impute([[0.0]]),
        lambda: g.entropy(),
        lambda: g.aic([[0.0]]),
        lambda: g.score([[0.0]]),
    ):
        with pytest.raises(NotFittedError):
            call()


# ---- parameters, samples -----------------------------------------------------------------------------------------


def test_from_parameters(rng):
    mean, covariance = rng.standard_normal(3), oracle.random_covariance(rng, 3)
    X = rng.standard_normal((10, 3))
    cases = [("full", covariance), ("tied", covariance), ("diag", np.array([1.0, 2.0, 3.0])), ("spherical", 2.5)]
    for kind, value in cases:
        g = Gaussian.from_parameters(mean, value, None if kind != "tied" else "tied")
        assert g.covariance_type == kind
        assert np.array_equal(g.mean_, mean)
        assert np.array_equal(g.covariance_, value)
        matrix = value if np.ndim(value) == 2 else np.diag(np.broadcast_to(value, 3))
        np.testing.assert_allclose(g.log_prob(X), stats.multivariate_normal(mean, matrix).logpdf(X), rtol=1e-12)
        assert g.entropy() == pytest.approx(stats.multivariate_normal(mean, matrix).entropy(), rel=1e-13)
        assert g.n_features_in_ == 3


def test_from_parameters_keeps_no_view_of_them(rng):
    mean, covariance = np.zeros(2), np.eye(2)
    g = Gaussian.from_parameters(mean, covariance)
    before = g.log_prob([[0.5, 0.5]])
    mean += 100
    covariance *= 9
    assert np.array_equal(g.log_prob([[0.5, 0.5]]), before)


@pytest.mark.parametrize(
    ("mean", "covariance", "kind"),
    [
        ([0.0, 0.0], np.eye(3), None),
        ([0.0, 0.0], [1.0, 2.0, 3.0], None),
        ([], [], None),
        ([[0.0], [1.0]], [[1.0]], None),
        ([0.0], np.ones((1, 1, 1)), None),
        ([0.0, 0.0], np.eye(2), "diag"),
        ([0.0, 0.0], 1.0, "full"),
        ([0.0, 0.0], -1.0, None),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], None),
        ([0.0, nan], np.eye(2), None),
        ([0.0, 0.0], np.eye(2), "oval"),
    ],
)
def test_wrong_from_parameters(mean, covariance, kind):
    with pytest.raises(ValueError, match=r"mean|covariance"):
        Gaussian.from_parameters(mean, covariance, kind)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_have_the_moments_of_the_density(rng, covariance_type):
    """False alarms: 3 + 6 numbers beyond 6 standard errors, less than 1e-7 in all; the seed is fixed."""
    g = Gaussian(covariance_type).fit(correlated(rng, 100, 3))
    n = 40_000
    X = g.sample(n, random_state=11)
    sigma = oracle.matrices(
        np.array(g.covariance_)[None] if covariance_type != "tied" else g.covariance_, covariance_type, 1, 3
    )[0]
    sd = np.sqrt(np.diag(sigma))
    assert (np.abs(X.mean(axis=0) - g.mean_) < 6 * sd / np.sqrt(n)).all()
    error = np.sqrt((np.outer(sd, sd) ** 2 + sigma**2) / n)  # Anderson (2003), sec. 3.4
    assert (np.abs(np.cov(X.T, ddof=0) - sigma) < 6 * error).all()


def test_random_states(rng):
    g = Gaussian().fit(correlated(rng, 100, 3))
    assert np.array_equal(g.sample(5, random_state=3), g.sample(5, random_state=np.random.default_rng(3)))
    assert g.sample().shape == (1, 3)
    assert g.sample(0).shape == (0, 3)
    legacy = np.random.RandomState(4)
    first, second = g.sample(5, random_state=legacy), g.sample(5, random_state=legacy)
    assert not np.array_equal(first, second)  # the stream goes on
    assert np.array_equal(g.sample(5, random_state=np.random.RandomState(4)), first)
    for bad in (-1, 2.5, "3"):
        with pytest.raises((ValueError, TypeError)):
            g.sample(bad)
    with pytest.raises((ValueError, TypeError)):
        g.sample(3, random_state="seed")


# ---- marginal, condition, impute ---------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_marginal(rng, covariance_type):
    X = correlated(rng, 200, 4)
    g = Gaussian(covariance_type).fit(X)
    whole = {
        "list": [3, 1],
        "negative": [-1, -3],
        "array": np.array([3, 1]),
        "generator": (c for c in (3, 1)),
        "slice": slice(3, None, -2),
    }
    only = X.copy()
    only[:, [0, 2]] = nan
    for name, columns in whole.items():
        m = g.marginal(columns)
        assert m.covariance_type == covariance_type
        np.testing.assert_allclose(m.log_prob(X[:, [3, 1]]), g.log_prob(only), rtol=1e-12, err_msg=name)
        assert np.array_equal(m.mean_, g.mean_[[3, 1]])
    mask = np.array([False, True, False, True])
    for columns in (mask, mask.tolist(), slice(1, None, 2)):
        assert np.array_equal(g.marginal(columns).mean_, g.mean_[[1, 3]])
    assert g.marginal(2).n_features_in_ == 1
    assert np.array_equal(g.marginal(slice(None)).log_prob(X), g.log_prob(X))


@pytest.mark.parametrize(
    "columns", [[], [4], [-5], [0, 0], [0, -4], ["a"], "a", [0.0], 1.5, [True, False], [None], [[0]], slice(0, 0), {}]
)
def test_bad_columns(rng, columns):
    g = Gaussian().fit(correlated(rng, 50, 4))
    with pytest.raises((ValueError, TypeError)):
        g.marginal(columns)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_condition_by_the_book(rng, covariance_type):
    """Bishop (2006), eq. 2.81, 2.82."""
    g = Gaussian(covariance_type).fit(correlated(rng, 200, 4))
    sigma = oracle.matrices(
        np.array(g.covariance_)[None] if covariance_type != "tied" else g.covariance_, covariance_type, 1, 4
    )[0]
    mean, covariance = oracle.conditional(g.mean_, sigma, np.array([0.5, nan, -1.0, nan]))
    for given_values in (
        {0: 0.5, 2: -1.0},
        {2: -1.0, 0: 0.5},
        {-4: 0.5, -2: -1},
        {np.int64(0): np.float32(0.5), 2: -1},
    ):
        c = g.condition(given_values)
        np.testing.assert_allclose(c.mean_, mean, rtol=1e-12)
        got = oracle.matrices(
            np.array(c.covariance_)[None] if covariance_type != "tied" else c.covariance_, covariance_type, 1, 2
        )[0]
        np.testing.assert_allclose(got, covariance, rtol=1e-12, atol=1e-13)
    same = g.condition({})
    np.testing.assert_allclose(same.mean_, g.mean_, rtol=1e-15)
    np.testing.assert_allclose(same.covariance_, g.covariance_, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "values",
    [
        {0: nan},
        {0: np.inf},
        {9: 1.0},
        {0: 1.0, 1: 1.0, 2: 1.0},
        {0: 1.0, -3: 1.0},
        {0: "x"},
        {0: None},
        {0: [1.0, 2.0]},
    ],
)
def test_bad_conditions(rng, values):
    g = Gaussian().fit(correlated(rng, 50, 3))
    with pytest.raises((ValueError, TypeError)):
        g.condition(values)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_impute_by_the_book(rng, covariance_type):
    g = Gaussian(covariance_type).fit(correlated(rng, 200, 4))
    X = with_holes(rng, correlated(rng, 50, 4), 0.4)
    X[3] = nan
    sigma = oracle.matrices(
        np.array(g.covariance_)[None] if covariance_type != "tied" else g.covariance_, covariance_type, 1, 4
    )[0]
    filled = g.impute(X)
    for x, row in zip(X, filled, strict=True):
        m = np.isnan(x)
        assert np.array_equal(row[~m], x[~m])
        np.testing.assert_allclose(row[m], oracle.conditional(g.mean_, sigma, x)[0], rtol=1e-11, atol=1e-13)
    complete = correlated(rng, 5, 4)
    again = g.impute(complete)
    assert np.array_equal(again, complete)
    assert not np.shares_memory(again, complete)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_imputed_draws_have_the_conditional_moments(rng, covariance_type):
    """False alarms: 2 + 3 numbers beyond 6 standard errors, less than 1e-7 in all; the seed is fixed."""
    g = Gaussian(covariance_type).fit(correlated(rng, 200, 3))
    x = np.array([nan, 0.3, nan])
    n = 40_000
    draws = g.impute(np.tile(x, (n, 1)), method="sample", random_state=5)[:, [0, 2]]
    sigma = oracle.matrices(np.array(g.covariance_)[None], covariance_type, 1, 3)[0]
    mean, covariance = oracle.conditional(g.mean_, sigma, x)
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - mean) < 6 * sd / np.sqrt(n)).all()
    error = np.sqrt((np.outer(sd, sd) ** 2 + covariance**2) / n)
    assert (np.abs(np.cov(draws.T, ddof=0) - covariance) < 6 * error).all()
    X = np.tile(x, (3, 1))
    assert np.array_equal(g.impute(X, "sample", random_state=1), g.impute(X, "sample", random_state=1))
    with pytest.raises(ValueError, match="method must be one of 'mean', 'sample'"):
        g.impute(X, "median")
    with pytest.raises(ValueError, match="infinity"):
        g.impute([[np.inf, nan, 0.0]])


def test_imputation_by_draws_of_columns_of_any_unit(rng):
    """What is nearly determined by the observed columns, and tiny, is still drawn."""
    z = rng.standard_normal((500, 2))
    X = np.c_[z[:, 0], 1e-9 * z[:, 1], z[:, 0] + 1e-5 * rng.standard_normal(500)]
    g = Gaussian().fit(X)
    draws = g.impute(np.array([[0.1, nan, nan]] * 100), "sample", random_state=0)
    assert np.isfinite(draws).all()
    assert len(np.unique(draws[:, 2])) == 100


# ---- scikit-learn, pandas, polars --------------------------------------------------------------------------------


def test_clone_pickle_repr_and_parameters(rng):
    g = Gaussian("diag", reg_covar=0.5, tol=1e-3, max_iter=7)
    assert repr(g) == "Gaussian(covariance_type='diag', max_iter=7, reg_covar=0.5, tol=0.001)"
    assert clone(g).get_params() == g.get_params()
    X = with_holes(rng, correlated(rng, 100, 3), 0.1)
    for kind in TYPES:
        fitted = Gaussian(kind).fit(X)
        again = pickle.loads(pickle.dumps(fitted))
        assert np.array_equal(again.log_prob(X), fitted.log_prob(X))
        again.partial_fit(X)
        fitted.partial_fit(X)
        assert np.array_equal(again.mean_, fitted.mean_)
        assert not hasattr(clone(fitted), "mean_")
    assert g.set_params(covariance_type="full").covariance_type == "full"
    with pytest.raises(ValueError, match="Invalid parameter"):
        g.set_params(covariance="full")


@pytest.mark.parametrize("fitted_type", TYPES)
@pytest.mark.parametrize("new_type", TYPES)
def test_parameters_set_after_the_fit_wait_for_the_next(rng, fitted_type, new_type):
    """scikit-learn: methods other than fit depend on fitted attributes."""
    X = correlated(rng, 50, 3)
    g, changed = Gaussian(fitted_type).fit(X), Gaussian(fitted_type).fit(X)
    changed.set_params(covariance_type=new_type)
    assert np.array_equal(changed.log_prob(X), g.log_prob(X))
    assert changed.entropy() == pytest.approx(g.entropy(), rel=1e-14)
    np.testing.assert_allclose(
        changed.marginal([0, 2]).log_prob(X[:, [0, 2]]), g.marginal([0, 2]).log_prob(X[:, [0, 2]])
    )
    np.testing.assert_allclose(changed.condition({1: 0.0}).covariance_, g.condition({1: 0.0}).covariance_)


def test_pipeline_and_grid_search(iris):
    X, _ = iris
    pipeline = make_pipeline(StandardScaler(), Gaussian())
    grid = {"gaussian__reg_covar": [0.0, 1e-3, 1e3], "gaussian__covariance_type": ["full", "diag"]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(X)
    assert search.best_params_["gaussian__reg_covar"] < 1e3  # a flat density predicts held-out data worse
    alone = GridSearchCV(pipeline, grid, cv=3).fit(X)
    assert np.array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_and_feature_names(rng, library):
    X = correlated(rng, 60, 3)
    names = ["a", "b", "c"]
    frame = pd.DataFrame(X, columns=names) if library == "pandas" else pl.DataFrame(X, schema=names)
    g = Gaussian().fit(frame)
    assert g.feature_names_in_.tolist() == names
    plain = Gaussian().fit(X)
    assert np.array_equal(g.log_prob(frame), plain.log_prob(X))
    assert np.array_equal(g.partial_fit(frame).mean_, plain.partial_fit(X).mean_)
    m = g.marginal(["c", "a"])
    assert m.feature_names_in_.tolist() == ["c", "a"]
    assert np.array_equal(m.mean_, g.mean_[[2, 0]])
    assert np.array_equal(m.log_prob(frame[["c", "a"]]), plain.marginal([2, 0]).log_prob(X[:, [2, 0]]))
    c = g.condition({"b": 0.25})
    assert c.feature_names_in_.tolist() == ["a", "c"]
    assert np.array_equal(c.mean_, plain.condition({1: 0.25}).mean_)
    with pytest.raises(ValueError, match=r"there is no feature 'd'; the model has \['a', 'b', 'c'\]"):
        g.marginal(["d"])
    with pytest.raises(ValueError, match="distinct"):
        g.condition({"a": 1.0, 0: 1.0})
    with pytest.raises(ValueError, match="feature names should match"):
        g.log_prob(frame[["b", "a", "c"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        g.log_prob(X)


def test_missing_values_of_pandas(rng):
    X = with_holes(rng, correlated(rng, 60, 3), 0.2)
    frame = pd.DataFrame(X, columns=list("abc"))
    expected = Gaussian().fit(X).mean_
    assert np.array_equal(Gaussian().fit(frame).mean_, expected)
    assert np.array_equal(Gaussian().fit(frame.astype("Float64")).mean_, expected)  # pandas.NA


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here")
def test_dtypes_that_would_lose_digits_are_refused():
    with pytest.raises(TypeError, match="convert it to float64 first"):
        Gaussian().fit(np.eye(3, dtype=np.longdouble))
    g = Gaussian.from_parameters([0.0, 0.0], 1.0)
    with pytest.raises(TypeError, match="convert it to float64 first"):
        g.log_prob(np.zeros((2, 2), np.longdouble))


# ---- what the covariance of a sample cannot be -------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 5, 8, 16, 64])
def test_as_many_samples_as_columns_are_too_few(d):
    """Rank d - 1: rounding may hide it from a Cholesky factor, the number of samples does not."""
    for seed in range(20):
        X = np.random.default_rng(seed).normal(size=(d, d))
        with pytest.raises(SingularCovarianceError, match=f"{d} columns need more than {d} samples"):
            Gaussian().fit(X)
        with pytest.raises(SingularCovarianceError):
            Gaussian().fit(X + 1e8)
    Gaussian(reg_covar=1e-3).fit(X)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_constant_column_with_weights_is_constant(covariance_type):
    """The weighted mean of equal numbers is one of them only up to rounding."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        X = np.full((1000, 1), rng.normal())
        with pytest.raises(SingularCovarianceError):
            Gaussian(covariance_type).fit(X, sample_weight=rng.random(1000))


def test_what_passes_a_fit_is_not_singular_later():
    """Almost collinear columns: no marginal, conditional or missing value of an accepted density is refused."""
    accepted = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(50, 3))
        X = np.column_stack([X, X[:, 0] + X[:, 1] + 10.0 ** rng.uniform(-9, -6) * rng.normal(size=50)])
        try:
            g = Gaussian().fit(X)
        except SingularCovarianceError:
            continue
        accepted += 1
        for columns in ([3, 2, 1, 0], [3, 0, 1], [2, 0]):
            g.marginal(columns)
        g.condition({0: 1.0, 3: 2.0})
        X[0, 0] = X[1, 1] = X[2, 3] = np.nan
        assert np.isfinite(g.log_prob(X)).all()
    assert accepted > 50


def test_partial_fit_says_that_the_covariance_type_has_changed(rng):
    g = Gaussian().fit(rng.normal(size=(20, 2)))
    g.set_params(covariance_type="diag")
    with pytest.raises(ValueError, match="covariance_type has changed since the last fit"):
        g.partial_fit(rng.normal(size=(20, 2)))


def test_overflow_is_named():
    X = np.random.default_rng(0).normal(size=(20, 2))
    for covariance_type in TYPES:
        with pytest.raises(ValueError, match="scale the data"), np.errstate(over="ignore", invalid="ignore"):
            Gaussian(covariance_type).fit(X * 1e200)


def test_incomplete_rows_without_weight_are_not_counted_twice(rng):
    """Six complete rows with weight are enough for two columns, whatever else has no weight."""
    X = rng.normal(size=(20, 2))
    X[6:, 0] = np.nan
    weights = (np.arange(20) < 6).astype(float)
    g = Gaussian().fit(X, sample_weight=weights)
    assert g.statistics_.rows.tolist() == [6]
    np.testing.assert_allclose(g.covariance_, np.cov(X[:6].T, ddof=0), rtol=1e-12)
