"""`fastgen.HMM`: published figures, EM under every constraint, inference against all paths, scikit-learn."""

import contextlib
import copy
import logging
import math
import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
import sklearn
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal
from oracle import hmm as oracle
from scipy import stats
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastgen import HMM, _hmm_em, _mixture_em
from fastgen._transitions import stationary_distribution
from fastgen.families import (
    Bernoulli,
    Categorical,
    Custom,
    Gaussian,
    Multinomial,
    Parameter,
    Poisson,
    Product,
    StudentT,
)

nan, inf = np.nan, np.inf

# Earthquakes of magnitude 7 or more, 1900-2006 (Zucchini & MacDonald, Hidden Markov Models for Time Series, table 1.1).
_COUNTS = """
13 14 8 10 16 26 32 27 18 32 36 24 22 23 22 18 25 21 21 14 8 11 14 23 18 17 19 20 22 19 13 26 13 14 22 24 21
22 26 21 23 24 27 41 31 27 35 26 28 36 39 21 17 22 17 19 15 34 10 15 22 18 15 20 15 22 19 16 30 27 29 23 20 16
21 21 25 16 18 15 18 14 10 15 8 15 6 11 8 7 18 16 13 12 13 20 15 16 12 18 15 16 13 15 16 11 11
"""
EARTHQUAKES = np.array(_COUNTS.split(), dtype=float)[:, None]

START = np.array([0.5, 0.3, 0.2])
A = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])
HOLES = np.array([[0.6, 0.4, 0.0], [0.0, 0.5, 0.5], [0.7, 0.0, 0.3]])


@njit
def laplace(x, loc, scale):
    if math.isnan(x[0]):
        return 0.0
    return -abs(x[0] - loc) / scale - math.log(2 * scale)


def draw_laplace(n, rng, loc, scale):
    return rng.laplace(loc, scale, n)


def laplaces(**values):
    return Custom(
        laplace,
        {"loc": Parameter(), "scale": Parameter(bounds=(1e-3, inf))},
        handles_missing=True,
        sample=draw_laplace,
        values=values or None,
    )


MEANS = np.array([[0.0, 0.0], [3.0, 1.0], [-1.0, 4.0]])
COVARIANCES = np.array([[[1.0, 0.3], [0.3, 1.0]], [[1.5, -0.5], [-0.5, 0.8]], [[0.7, 0.0], [0.0, 2.0]]])
TABLE = np.array([[[0.7, 0.2, 0.1, 0.0]], [[0.1, 0.6, 0.2, 0.1]], [[0.2, 0.0, 0.3, 0.5]]])
# Three states of each family: parameters, and the family without them.
FAMILIES = {
    "full": (Gaussian(means=MEANS, covariances=COVARIANCES), Gaussian()),
    "tied": (Gaussian("tied", means=MEANS, covariances=COVARIANCES[0]), Gaussian("tied")),
    "diag": (Gaussian("diag", means=MEANS, covariances=np.ones((3, 2))), Gaussian("diag")),
    "spherical": (Gaussian("spherical", means=MEANS, covariances=np.ones(3)), Gaussian("spherical")),
    "floor": (Gaussian("diag", means=MEANS, covariances=np.ones((3, 2))), Gaussian("diag", floor=[0.9, 0.9])),
    "student": (StudentT(means=MEANS, scales=COVARIANCES, dfs=[3.0, 5.0, 20.0]), StudentT()),
    "poisson": (Poisson(rates=[[1.0, 9.0], [6.0, 2.0], [14.0, 14.0]]), Poisson()),
    "bernoulli": (
        Bernoulli(probabilities=[[0.9, 0.8, 0.1], [0.2, 0.5, 0.9], [0.4, 0.1, 0.2]]),
        Bernoulli(pseudo_count=0.5),
    ),
    "categorical": (Categorical(probabilities=TABLE), Categorical(n_categories=4, pseudo_count=0.2)),
    "categories": (Categorical(probabilities=np.repeat(TABLE, 2, axis=1)), Categorical(n_categories=4)),
    "multinomial": (
        Multinomial(n_trials=12, probabilities=[[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]]),
        Multinomial(n_trials=12),
    ),
    "product": (
        Product([(Gaussian(means=MEANS, covariances=COVARIANCES), [0, 2]), (Poisson(rates=[[1.0], [5], [9]]), [1])]),
        Product([(Gaussian(), [0, 2]), (Poisson(), [1])]),
    ),
    "custom": (laplaces(loc=[-3.0, 0.0, 4.0], scale=[0.5, 1.0, 2.0]), laplaces()),
}
COMPLETE = {"multinomial"}  # refuses NaN
families = pytest.mark.parametrize("name", FAMILIES)


def model_of(name, A=A, start=START):
    return HMM.from_parameters(start, A, FAMILIES[name][0])


def data_of(name, n=400, seed=0, missing=0.0, lengths=None):
    """Draws of the model, some cells and some whole rows missing."""
    rng = np.random.default_rng(seed)
    model = model_of(name)
    X = np.concatenate([model.sample(T, rng)[0] for T in (lengths or [n])])
    if missing and name not in COMPLETE:
        X[rng.random(X.shape) < missing] = nan
        X[rng.random(len(X)) < missing / 3] = nan
    return X


def likelihoods(model, X):
    return model.family_.log_density(np.ascontiguousarray(X, np.float64))


def unchecked(model, *args, **kwargs):
    """Fit without the warning that EM did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*args, **kwargs)


def steps(name, most):
    """How many iterations: few where each is a numerical optimisation."""
    return min(most, 2) if name == "custom" else most


def given(family, start, transmat, X, **options):
    """A model with these parameters and constraints that only a fit sets."""
    K = len(start)
    return HMM(family, K, startprob_init=start, transmat_init=transmat, max_iter=0, **options).fit(X)


# ---- published ------------------------------------------------------------------------------------------------------


def earthquakes(**options):
    return HMM(
        Poisson(rates=[[10.0], [30.0]]),
        2,
        transmat_init=[[0.9, 0.1], [0.1, 0.9]],
        **({"tol": 1e-13, "max_iter": 5000} | options),
    )


def test_earthquakes_em_trace():
    """Zucchini & MacDonald (2nd ed.), table 4.1: -log L at iterations 0, 1, 2, 30, and the parameters after 1."""
    assert len(EARTHQUAKES) == 107
    model = unchecked(earthquakes(startprob_init=[0.5, 0.5], tol=0, max_iter=30), EARTHQUAKES)
    trace = -107 * model.history_
    assert_allclose(trace[[0, 1, 2]], [413.27542, 343.76023, 343.13618], atol=5.01e-6)
    assert trace[30] == pytest.approx(341.87871, abs=5.01e-6)
    one = unchecked(earthquakes(startprob_init=[0.5, 0.5], max_iter=1), EARTHQUAKES)
    assert one.transmat_[0, 1] == pytest.approx(0.138816, abs=5.01e-7)
    assert one.transmat_[1, 0] == pytest.approx(0.11622, abs=5.01e-6)
    assert_allclose(one.family_.rates.ravel(), [13.742, 24.169], atol=5.01e-4)


def test_earthquakes_two_states():
    """The same: 341.8787; five free parameters in BIC 707.1216 (2 rates, 2 transitions, 1 start)."""
    model = HMM(Poisson(), 2, tol=1e-13, random_state=0).fit(EARTHQUAKES)
    assert -107 * model.lower_bound_ == pytest.approx(341.8787, abs=5.01e-5)
    assert model.log_prob(EARTHQUAKES)[0] == pytest.approx(107 * model.lower_bound_, rel=1e-12)
    assert model.n_parameters_ == 5
    assert model.bic(EARTHQUAKES) == pytest.approx(707.1216, abs=1.01e-4)
    assert model.aic(EARTHQUAKES) == pytest.approx(2 * 341.8787 + 2 * 5, abs=1.01e-4)
    assert sorted(model.startprob_) == pytest.approx([0, 1], abs=1e-6)  # the book: delta = (1, 0)


def test_earthquakes_stationary():
    """Zucchini & MacDonald, sec. 3.5: direct maximisation, -log L 342.3183, rates 15.472 and 26.125."""
    model = earthquakes(stationary_start=True).fit(EARTHQUAKES)
    assert -107 * model.lower_bound_ == pytest.approx(342.3183, abs=5.01e-5)
    assert_allclose(model.family_.rates.ravel(), [15.472, 26.125], atol=5.01e-4)
    assert_allclose(model.startprob_ @ model.transmat_, model.startprob_, rtol=1e-13)
    assert model.n_parameters_ == 4
    assert np.diff(model.history_).min() > -1e-12


@pytest.mark.parametrize("K", [2, 3])
def test_stationary_start_against_direct_optimisation(K):
    """By SciPy: logits and logarithms of rates, numerical gradients, from EM's own optimum without stationarity."""
    start = HMM(Poisson(), K, tol=1e-6, random_state=0).fit(EARTHQUAKES)

    def parts(theta):
        logits = np.c_[np.zeros(K), theta[K:].reshape(K, K - 1)]
        chain = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.exp(theta[:K]), chain / chain.sum(axis=1, keepdims=True)

    def negative(theta):
        rates, chain = parts(theta)
        system = np.vstack([np.eye(K) - chain.T, np.ones(K)])
        pi = np.maximum(np.linalg.lstsq(system, np.r_[np.zeros(K), 1.0], rcond=None)[0], 1e-300)
        b = stats.poisson.logpmf(EARTHQUAKES, rates)
        alpha, total = pi, 0.0
        for row in np.exp(b):
            alpha = alpha * row
            total += math.log(alpha.sum())
            alpha = alpha / alpha.sum() @ chain
        return -total

    logs = np.log(np.maximum(start.transmat_, 1e-4))
    theta = np.r_[np.log(start.family_.rates.ravel()), (logs[:, 1:] - logs[:, :1]).ravel()]
    theirs = minimize(negative, theta, method="BFGS", options={"gtol": 1e-6}).fun
    model = HMM(
        start.family_, K, transmat_init=np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True),
        stationary_start=True, tol=1e-12, max_iter=5000,
    ).fit(EARTHQUAKES)  # fmt: skip
    assert -107 * model.lower_bound_ <= theirs + 1e-6
    assert np.diff(model.history_).min() > -1e-12


UMBRELLA = HMM.from_parameters([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], Bernoulli(probabilities=[[0.9], [0.2]]))
UMBRELLAS = np.array([[1.0], [1.0], [0.0], [1.0], [1.0]])


def test_umbrella():
    """Russell & Norvig, *Artificial Intelligence*, the umbrella world: p(rain) after each day; smoothed day 1: 0.883.

    The five filtered values are those of en.wikipedia.org/wiki/Forward-backward_algorithm, and so are the smoothed.
    """
    expected = [0.8182, 0.8834, 0.1907, 0.7308, 0.8673]
    assert_allclose(UMBRELLA.filter_proba(UMBRELLAS)[:, 0], expected, atol=5.01e-5)
    now = UMBRELLA.filter()
    assert_allclose([now.update(x)[0] for x in UMBRELLAS], expected, atol=5.01e-5)
    assert_allclose(UMBRELLA.predict_proba(UMBRELLAS)[:, 0], [0.8673, 0.8204, 0.3075, 0.8204, 0.8673], atol=5.01e-5)
    assert UMBRELLA.filter_proba(UMBRELLAS, lag=1)[0, 0] == pytest.approx(0.883, abs=5e-4)
    assert UMBRELLA.predict(UMBRELLAS).tolist() == [0, 0, 1, 0, 0]  # Russell & Norvig, fig. 15.5


def test_healthy_or_fever():
    """en.wikipedia.org/wiki/Viterbi_algorithm: normal, cold, dizzy -> healthy, healthy, fever with 0.01512."""
    doctor = HMM.from_parameters(
        [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]], Categorical(probabilities=[[[0.5, 0.4, 0.1]], [[0.1, 0.3, 0.6]]])
    )
    found = doctor.decode([[0.0], [1.0], [2.0]])
    assert found.path.tolist() == [0, 0, 1]
    assert found.log_prob[0] == pytest.approx(math.log(0.01512), rel=1e-12)


def test_ice_cream():
    """Jurafsky & Martin, *Speech and Language Processing*, appendix A: p(3 1 3) = .028562, p(3 1 3, hot hot cold).

    Hot, cold with start (.8, .2), transitions (.6, .4), (.5, .5), ice creams 1, 2, 3: (.2, .4, .4), (.5, .4, .1). The
    joint probability is the book's sum of products: .8 .4 .6 .2 .4 .1.
    """
    model = HMM.from_parameters(
        [0.8, 0.2], [[0.6, 0.4], [0.5, 0.5]], Categorical(probabilities=[[[0.2, 0.4, 0.4]], [[0.5, 0.4, 0.1]]])
    )
    X = np.array([[2.0], [0.0], [2.0]])
    # alpha_1 = (.32, .02), alpha_2 = (.32 .6 + .02 .5, .32 .4 + .02 .5) (.2, .5) = (.0404, .069), as in fig. A.5
    alpha = np.array([0.0404, 0.069])
    assert_allclose(model.filter_proba(X)[1], alpha / alpha.sum(), rtol=1e-12)
    last = (alpha @ [[0.6, 0.4], [0.5, 0.5]]) * [0.4, 0.1]
    assert model.log_prob(X)[0] == pytest.approx(math.log(last.sum()), rel=1e-12)
    every = model.k_best(X, 8)
    path = next(p for p, row in zip(every.log_prob, every.path, strict=True) if row.tolist() == [0, 0, 1])
    assert path == pytest.approx(math.log(0.8 * 0.4 * 0.6 * 0.2 * 0.4 * 0.1), rel=1e-12)


# ---- inference, against all paths -----------------------------------------------------------------------------------


CHAINS = {"dense": (START, A), "holes": (np.array([0.9, 0.1, 0.0]), HOLES)}
cases = pytest.mark.parametrize(("name", "chain"), [(n, c) for n in FAMILIES for c in CHAINS])


def small(name, chain, T=5, seed=3):
    """A model, a sequence that is possible, with missing cells, and the log-densities of its states."""
    start, transmat = CHAINS[chain]
    model = model_of(name, transmat, start)
    X, _ = model.sample(T, seed)
    if name not in COMPLETE:
        X[1, 0] = nan
        X[3] = nan
    return model, X, likelihoods(model, X)


@cases
def test_inference_against_all_paths(name, chain):
    model, X, b = small(name, chain)
    every = oracle.Paths(b, *CHAINS[chain])
    assert model.log_prob(X)[0] == pytest.approx(float(every.log_p), rel=1e-12)
    assert model.score(X) == pytest.approx(float(every.log_p) / len(X), rel=1e-12)
    assert_allclose(model.predict_proba(X), every.posterior(), atol=1e-13)
    assert_array_equal(model.posterior(X), model.predict_proba(X))
    log_prob, path = model.decode(X)
    assert log_prob[0] == pytest.approx(float(every.logs.max()), rel=1e-12)
    assert oracle.path_log_prob(b, *CHAINS[chain], path) == pytest.approx(float(every.logs.max()), rel=1e-12)
    assert_array_equal(model.predict(X), path)


@cases
def test_filters_against_all_paths(name, chain):
    """p(z_t | x_1, ..., x_t+lag): paths of the sequence that ends there."""
    model, X, b = small(name, chain)
    T = len(X)
    for lag in range(T + 3):
        expected = [oracle.Paths(b[: t + lag + 1], *CHAINS[chain]).posterior()[t] for t in range(T)]
        assert_allclose(model.filter_proba(X, lag=lag), expected, atol=1e-13)
    assert_allclose(model.filter_proba(X, lag=T - 1), model.predict_proba(X), atol=1e-13)


def test_fixed_lag_of_several_sequences():
    """Sequences of lengths 3, 0, 1, 5: as each alone; a lag beyond the end of one does not reach into the next."""
    model = model_of("full")
    X = data_of("full", 9)
    parts = np.split(X, [3, 3, 4])
    for lag in range(8):
        together = model.filter_proba(X, lengths=[3, 0, 1, 5], lag=lag)
        alone = np.concatenate([model.filter_proba(part, lag=lag) for part in parts if len(part)])
        assert_allclose(together, alone, atol=1e-15)


@cases
def test_k_best_gives_all_paths_in_order(name, chain):
    """All 3^4 paths, and beyond them -inf and -1; as well as those that are impossible."""
    model, X, b = small(name, chain, T=4)
    every = oracle.Paths(b, *CHAINS[chain])
    log_prob, paths = model.k_best(X, 90)
    possible = int((every.logs > -inf).sum())
    assert possible == 81 if (chain, name) in {("dense", "full"), ("dense", "poisson")} else 0 < possible <= 81
    assert_allclose(log_prob[:possible], np.sort(every.logs)[::-1][:possible].astype(float), rtol=1e-12)
    assert (log_prob[possible:] == -inf).all()
    assert (paths[possible:] == -1).all()
    assert len({tuple(path) for path in paths[:possible]}) == possible
    for value, path in zip(log_prob[:possible], paths[:possible], strict=True):
        assert oracle.path_log_prob(b, *CHAINS[chain], path) == pytest.approx(value, rel=1e-12)
    assert_allclose(log_prob[0], model.decode(X).log_prob[0], rtol=1e-14)
    few = model.k_best(X, 5)
    assert_array_equal(few.log_prob, log_prob[:5])


def test_k_best_of_paths_that_are_equally_probable():
    model = HMM.from_parameters([0.5, 0.5], np.full((2, 2), 0.5), Bernoulli(probabilities=[[0.5], [0.5]]))
    log_prob, paths = model.k_best(np.zeros((4, 1)), 17)
    assert_allclose(log_prob[:16], -8 * math.log(2), rtol=1e-14)
    assert len({tuple(path) for path in paths[:16]}) == 16
    assert log_prob[16] == -inf
    assert paths[16].tolist() == [-1] * 4


def test_k_best_of_nothing_possible():
    model = HMM.from_parameters([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], Bernoulli(probabilities=[[0.0], [1.0]]))
    log_prob, paths = model.k_best([[0.0], [1.0]], 2)
    assert (log_prob == -inf).all()
    assert (paths == -1).all()
    log_prob, paths = model.decode([[0.0], [1.0]])
    assert log_prob.tolist() == [-inf]
    assert paths.tolist() == [-1, -1]
    assert model.log_prob([[0.0], [1.0]]).tolist() == [-inf]


def test_k_best_with_labels():
    model, X, b = small("full", "dense", T=4)
    labels = np.array([-1, 2, -1, 0])
    every = oracle.Paths(b, START, A)
    kept = (every.paths[:, 1] == 2) & (every.paths[:, 3] == 0)
    log_prob, paths = model.k_best(X, 10, labels=labels)
    assert_allclose(log_prob[:9], np.sort(every.logs[kept])[::-1].astype(float), rtol=1e-12)
    assert (paths[:9, [1, 3]] == [2, 0]).all()
    assert log_prob[9] == -inf


def test_inference_with_labels_against_all_paths():
    model, X, b = small("poisson", "holes")
    labels = np.array([-1, 1, -1, -1, 0])
    every = oracle.Paths(b, *CHAINS["holes"])
    kept = (every.paths[:, 1] == 1) & (every.paths[:, 4] == 0)
    logs = np.where(kept, every.logs, -inf)
    weight = np.exp(logs - logs.max())
    expected = np.stack([[weight[every.paths[:, t] == k].sum() for k in range(3)] for t in range(5)]) / weight.sum()
    posterior = model.predict_proba(X, labels=labels)
    assert_allclose(posterior, expected.astype(float), atol=1e-13)
    assert_array_equal(posterior[[1, 4]], [[0, 1, 0], [1, 0, 0]])
    found = model.decode(X, labels=labels)
    assert found.log_prob[0] == pytest.approx(float(logs.max()), rel=1e-12)
    assert_array_equal(found.path, every.paths[logs.argmax()])


@cases
def test_next_step_against_the_chain_rule(name, chain):
    """log p(x_T+1 | x) = log p(x, x_T+1) - log p(x); further steps: NaN in between."""
    model, X, _ = small(name, chain)
    after, _ = model.sample(2, 11)
    forecast = model.predict_next(X, 2)
    assert forecast.states.shape == (1, 2, 3)
    filtered = model.filter_proba(X)[-1]
    for step in (1, 2):
        transmat = CHAINS[chain][1]
        assert_allclose(forecast.states[0, step - 1], filtered @ np.linalg.matrix_power(transmat, step), atol=1e-13)
        density = forecast.density(step=step)
        if name in COMPLETE and step > 1:
            continue
        for x in after:
            gap = np.full((step - 1, X.shape[1]), nan)
            expected = model.log_prob(np.concatenate([X, gap, x[None]]))[0] - model.log_prob(X)[0]
            assert density.log_prob(x[None])[0] == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_forecasts_of_several_sequences():
    """An empty one: the start."""
    model = model_of("full")
    X = data_of("full", 7)
    states = model.predict_next(X, 3, lengths=[4, 0, 3]).states
    assert_allclose(states[0], model.predict_next(X[:4], 3).states[0], atol=1e-15)
    assert_allclose(states[1], [START, START @ A, START @ A @ A], rtol=1e-14)
    assert_allclose(states[2], model.predict_next(X[4:], 3).states[0], atol=1e-15)
    far = model.predict_next(X, 200).states[0, -1]
    assert_allclose(far, model.stationary_distribution_, rtol=1e-12)


@pytest.mark.parametrize("chain", CHAINS)
def test_sampled_paths_have_the_posterior_frequencies(chain):
    """Of 20,000 paths: chi-square, in its central 99.98 %; impossible paths never."""
    model, X, b = small("poisson", chain, T=4)
    every = oracle.Paths(b, *CHAINS[chain])
    p = every.probabilities()
    n = 20_000
    paths = model.sample_paths(X, n, 0)
    assert paths.shape == (n, 4)
    counts = np.bincount(np.ravel_multi_index(tuple(paths.T), (3,) * 4), minlength=81)
    assert counts[p == 0].sum() == 0
    large = n * p >= 5
    observed = np.r_[counts[large], counts[~large].sum()]
    expected = np.r_[p[large], p[~large].sum()] * n
    some = expected > 0
    assert 1e-4 < stats.chisquare(observed[some], expected[some] / expected.sum() * n).pvalue < 1 - 1e-4


def test_sampled_paths_of_several_sequences_labels_and_seeds():
    model = model_of("full")
    X = data_of("full", 10)
    labels = np.full(10, -1)
    labels[[2, 7]] = [1, 0]
    paths = model.sample_paths(X, 2000, 5, lengths=[4, 0, 6], labels=labels)
    assert (paths[:, [2, 7]] == [1, 0]).all()
    posterior = model.predict_proba(X, lengths=[4, 0, 6], labels=labels)
    frequencies = np.stack([(paths == k).mean(axis=0) for k in range(3)], axis=1)
    assert_allclose(frequencies, posterior, atol=4.5 * 0.5 / 2000**0.5)  # 4.5 standard errors
    assert_array_equal(paths, model.sample_paths(X, 2000, np.random.default_rng(5), lengths=[4, 0, 6], labels=labels))
    assert not np.array_equal(paths, model.sample_paths(X, 2000, 6, lengths=[4, 0, 6], labels=labels))


@cases
def test_filter_is_filter_proba(name, chain):
    model, X, _ = small(name, chain, T=7)
    now = model.filter()
    assert_array_equal(now.probabilities, CHAINS[chain][0])
    filtered = model.filter_proba(X)
    for t, x in enumerate(X):
        assert_allclose(now.update(x), filtered[t], atol=1e-13)
        assert now.n_steps == t + 1
        assert now.log_likelihood == pytest.approx(model.log_prob(X[: t + 1])[0], rel=1e-12, abs=1e-12)
        assert_array_equal(now.probabilities, now.predict(0))
    transmat = CHAINS[chain][1]
    assert_allclose(now.predict(), filtered[-1] @ transmat, atol=1e-13)
    assert_allclose(now.predict(3), filtered[-1] @ transmat @ transmat @ transmat, atol=1e-13)
    now.reset()
    assert (now.n_steps, now.log_likelihood) == (0, 0.0)
    assert_array_equal(now.predict(1), CHAINS[chain][0])
    assert_allclose(now.predict(2), CHAINS[chain][0] @ transmat, atol=1e-15)


def test_filter_refuses_an_impossible_step_and_stays():
    family = Categorical(probabilities=[[[0.5, 0.5, 0.0]], [[0.5, 0.5, 0.0]]])
    now = HMM.from_parameters([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], family).filter()
    now.update([0.0])
    before = now.probabilities.copy(), now.log_likelihood
    with pytest.raises(ValueError, match="step 1 is impossible in every state"):
        now.update([2.0])
    with pytest.raises(ValueError, match="features"):
        now.update([0.0, 1.0])
    with pytest.raises(ValueError):
        now.update(0.0)
    assert_array_equal(now.probabilities, before[0])
    assert (now.log_likelihood, now.n_steps) == (before[1], 1)
    assert_allclose(now.update([1.0]), now.probabilities)


def test_filter_refuses_infinity():
    now = model_of("full").filter()
    with pytest.raises(ValueError, match="infinity"):
        now.update([inf, 0.0])


def test_filter_does_not_share_the_models_start():
    model = model_of("full")
    now = model.filter()
    with contextlib.suppress(ValueError):  # read-only would do
        now.probabilities[0] = 0.0
    assert_array_equal(model.filter().probabilities, START)


def test_filter_keeps_states_that_are_very_improbable():
    """log p = -log 2 - 4 log sqrt(2 pi) - 100^2 / 2 of state 1, though after the first step p(state 1) = e^-5000."""
    family = Gaussian(means=[[0.0], [100.0]], covariances=np.ones((2, 1, 1)))
    model = HMM.from_parameters([0.5, 0.5], np.eye(2), family)
    X = np.array([[0.0], [100.0], [100.0], [100.0]])
    now = model.filter()
    with np.errstate(divide="ignore"):
        for x in X:
            now.update(x)
    assert now.log_likelihood == pytest.approx(model.log_prob(X)[0], rel=1e-12)
    assert_allclose(now.probabilities, [0, 1])


@pytest.mark.parametrize("name", ["predict_proba", "filter_proba", "predict_next", "sample_paths"])
def test_impossible_sequences_name_the_row(name):
    family = Bernoulli(probabilities=[[0.0], [1.0]])
    model = HMM.from_parameters([1.0, 0.0], np.eye(2), family)
    X = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert_array_equal(model.log_prob(X, lengths=[2, 2]), [0, -inf])
    assert model.predict(X, lengths=[2, 2]).tolist() == [0, 0, -1, -1]
    with pytest.raises(ValueError, match="row 3"):
        getattr(model, name)(X, lengths=[2, 2])


# ---- simulation -----------------------------------------------------------------------------------------------------


def test_simulated_transitions_have_their_frequencies():
    """Chi-square tests of each row, and of each state's emissions; fixed seed."""
    model = model_of("poisson", HOLES, CHAINS["holes"][0])
    X, states = model.sample(30_000, 1)
    counts = np.zeros((3, 3))
    np.add.at(counts, (states[:-1], states[1:]), 1)
    assert (counts[HOLES == 0] == 0).all()
    for i in range(3):
        some = HOLES[i] > 0
        assert stats.chisquare(counts[i, some], HOLES[i, some] * counts[i].sum()).pvalue > 1e-4
        rates = model.family_.rates[i]
        n = (states == i).sum()
        assert_allclose(X[states == i].mean(axis=0), rates, atol=4.5 * (rates.max() / n) ** 0.5)


def test_simulated_starts_have_their_frequencies():
    model = model_of("poisson", HOLES, CHAINS["holes"][0])
    rng = np.random.default_rng(0)
    first = np.bincount([model.sample(1, rng)[1][0] for _ in range(3000)], minlength=3)
    assert first[2] == 0
    assert stats.binomtest(int(first[1]), 3000, 0.1).pvalue > 1e-4
    assert [model.sample(2, seed, first_state=2)[1][0] for seed in range(5)] == [2] * 5


def test_simulations_repeat():
    model = model_of("full")
    for seed in (3, np.random.default_rng(3)):
        X, states = model.sample(20, seed)
        Y, same = model.sample(20, 3)
        assert_array_equal(X, Y)
        assert_array_equal(states, same)
    model.random_state = 3
    assert_array_equal(model.sample(20)[0], X)
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(0)


@pytest.mark.parametrize("name", ["full", "diag", "student", "poisson", "categories", "multinomial", "product"])
def test_simulate_and_recover(name):
    """Transitions within 4.5 standard errors of 8,000 steps and a little for states that must be guessed."""
    truth = HMM.from_parameters(START, [[0.9, 0.07, 0.03], [0.05, 0.9, 0.05], [0.1, 0.05, 0.85]], FAMILIES[name][0])
    X, states = truth.sample(8000, 0)
    # The start by clusters gives some codes probability 0, which EM alone cannot leave
    family = Categorical(4, pseudo_count=1e-3) if name == "categories" else FAMILIES[name][1]
    model = HMM(family, 3, n_init=2, random_state=0).fit(X)
    assert model.log_prob(X)[0] > truth.log_prob(X)[0] - 1e-6
    table = np.zeros((3, 3))
    np.add.at(table, (states, model.predict(X)), 1)
    order = table.argmax(axis=1)
    assert sorted(order) == [0, 1, 2]
    assert table.max(axis=1).sum() > 0.8 * 8000
    assert_allclose(model.transmat_[np.ix_(order, order)], truth.transmat_, atol=0.04)


# ---- EM -------------------------------------------------------------------------------------------------------------


def log_prior(model, total):
    """Of the family and of the chain, from the definitions."""
    step = model._chain_step()
    value = model.family_.penalty(model.statistics_.components)
    for pseudo, p in ((step.start_pseudo, model.startprob_), (step.pseudo, model.transmat_)):
        some = pseudo > 0
        value += float(pseudo[some] @ np.log(p[some]))
    return value / total


@families
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_objective_climbs_and_is_that_of_the_parameters(name, missing):
    lengths = [200, 1, 60, 0, 139]
    X = data_of(name, missing=missing, lengths=[T for T in lengths if T])
    before = X.copy()
    if name in COMPLETE and missing:
        pytest.skip("refuses NaN")
    options = {"start_pseudo_count": 0.5, "transition_pseudo_count": [[1, 0.5, 0.2]] * 3, "max_iter": steps(name, 60)}
    model = unchecked(HMM(FAMILIES[name][1], 3, random_state=0, **options), X, lengths=lengths)
    assert model.stop_reason_ in ("converged", "max_iter")
    assert len(model.history_) == model.n_iter_ + 1 > 2
    assert np.diff(model.history_).min() > -1e-11 * max(1, abs(model.history_[-1]))
    assert model.history_[-1] > model.history_[0] + 1e-4
    expected = model.score(X, lengths=lengths) + log_prior(model, 400)
    assert model.history_[-1] == pytest.approx(expected, rel=1e-11)
    assert model.lower_bound_ == model.history_[-1]
    assert model.statistics_.log_likelihood == pytest.approx(model.log_prob(X, lengths=lengths).sum(), rel=1e-11)
    assert_array_equal(X, before)
    for array in (model.startprob_, model.transmat_):
        assert_allclose(array.sum(axis=-1), 1, rtol=1e-13)
        assert not array.flags.writeable


@families
def test_m_step_of_the_chain_against_the_definition(name):
    """One iteration from given parameters: expected counts by the oracle, plus pseudo-counts."""
    lengths = [30, 1, 0, 9]
    X = data_of(name, lengths=[30, 1, 9], missing=0.1)
    family = FAMILIES[name][0]
    model = HMM(
        family, 3, startprob_init=START, transmat_init=A, start_pseudo_count=[0.1, 0.2, 0.3],
        transition_pseudo_count=0.7, max_iter=1,
    )  # fmt: skip
    model = unchecked(model, X, lengths=lengths)
    expected = oracle.expected(family.log_density(X), START, A, lengths)
    start = expected.start + np.array([0.1, 0.2, 0.3])
    counts = expected.transitions + 0.7
    assert_allclose(model.startprob_, (start / start.sum()).astype(float), rtol=1e-11)
    assert_allclose(model.transmat_, (counts / counts.sum(axis=1, keepdims=True)).astype(float), rtol=1e-11)
    assert model.history_[0] == pytest.approx(
        float(expected.log_likelihoods.sum() + (np.array([0.1, 0.2, 0.3]) @ np.log(START)) + 0.7 * np.log(A).sum()
              + family.penalty(family.statistics(X, expected.posteriors.astype(float)))) / 40,
        rel=1e-11,
    )  # fmt: skip


@families
def test_missing_steps_are_marginalised(name):
    """A gap of two steps: the same as A^3 between its neighbours."""
    if name in COMPLETE:
        pytest.skip("refuses NaN")
    model = model_of(name)
    X = data_of(name, 6)
    gap = np.full((2, X.shape[1]), nan)
    broken = np.concatenate([X[:3], gap, X[3:]])
    b = likelihoods(model, X)
    alpha = START * np.exp(b[0])
    for t in range(1, 6):
        alpha = alpha @ (np.linalg.matrix_power(A, 3) if t == 3 else A) * np.exp(b[t])
    assert model.log_prob(broken)[0] == pytest.approx(math.log(alpha.sum()), rel=1e-12)


@families
def test_forms_of_several_sequences(name):
    """Lengths, groups, a list, a tuple: the same bits; weights: sequences repeated."""
    X = data_of(name, lengths=[120, 1, 79], missing=0.1)
    options = {"startprob_init": START, "transmat_init": A, "max_iter": steps(name, 5)}
    family = FAMILIES[name][0]
    parts = np.split(X, [120, 121])
    groups = np.repeat(["b", "a", "c"], [120, 1, 79])
    fits = [
        unchecked(HMM(family, 3, **options), X, lengths=[120, 1, 79]),
        unchecked(HMM(family, 3, **options), X, groups=groups),
        unchecked(HMM(family, 3, **options), parts),
        unchecked(HMM(family, 3, **options), tuple(parts)),
    ]
    for other in fits[1:]:
        assert_array_equal(other.history_, fits[0].history_)
        assert_array_equal(other.transmat_, fits[0].transmat_)
    first = fits[0]
    expected = first.log_prob(X, lengths=[120, 1, 79])
    for use in ({"X": X, "groups": groups}, {"X": parts}):
        assert_array_equal(first.log_prob(**use), expected)
        assert_array_equal(first.predict(**use), first.predict(X, lengths=[120, 1, 79]))
        assert_array_equal(first.predict_proba(**use), first.predict_proba(X, lengths=[120, 1, 79]))
    for s, part in enumerate(parts):
        assert first.log_prob(part)[0] == pytest.approx(expected[s], rel=1e-12)
    weighted = unchecked(HMM(family, 3, **options), parts, sample_weight=[2, 3, 1])
    repeated = unchecked(HMM(family, 3, **options), [parts[i] for i in (0, 0, 1, 1, 1, 2)])
    rounding = 1e-11 if name != "custom" else 1e-4  # numerical optimisation, which ends a little elsewhere
    assert_allclose(weighted.history_, repeated.history_, rtol=rounding)
    assert_allclose(weighted.transmat_, repeated.transmat_, atol=100 * rounding)
    assert_allclose(weighted.startprob_, repeated.startprob_, atol=100 * rounding)


def test_a_group_that_comes_again_is_a_new_sequence():
    model = model_of("full")
    X = data_of("full", 6)
    assert_array_equal(model.log_prob(X, groups=[1, 1, 2, 2, 1, 1]), model.log_prob(X, lengths=[2, 2, 2]))


def test_float32_and_layouts():
    X = data_of("full", 300)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=300).fit(X)
    expected = model.log_prob(X)
    assert_array_equal(model.log_prob(np.asfortranarray(X)), expected)
    assert_array_equal(model.log_prob(np.repeat(X, 2, axis=0)[::2]), expected)
    single = X.astype(np.float32)
    assert_allclose(model.log_prob(single), model.log_prob(single.astype(np.float64)), rtol=1e-12)
    assert_allclose(model.log_prob(X.tolist()), expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["full", "diag", "student"])
def test_offsets_change_nothing(name):
    """2^26 added to the data moves the means, and nothing else."""
    X = data_of(name, 500)
    X = np.round(X * 2**10) / 2**10  # so that the sums are exact
    one = unchecked(HMM(FAMILIES[name][1], 3, random_state=0, max_iter=20), X)
    two = unchecked(HMM(FAMILIES[name][1], 3, random_state=0, max_iter=20), X + 2.0**26)
    assert_allclose(two.history_, one.history_, rtol=1e-9)
    assert_allclose(two.transmat_, one.transmat_, atol=1e-6)


# ---- constraints of the chain ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["full", "poisson", "categorical", "student"])
def test_left_right(name):
    """Sequences that run through the states: exactly 0 below and two above the diagonal, start in state 0."""
    rng = np.random.default_rng(0)
    truth = HMM.from_parameters([1.0, 0, 0], [[0.9, 0.1, 0], [0, 0.9, 0.1], [0, 0, 1.0]], FAMILIES[name][0])
    parts = [truth.sample(60, rng)[0] for _ in range(8)]
    model = HMM(FAMILIES[name][0], 3, transition_mask="left-right").fit(parts)
    closed = ~(np.eye(3, dtype=bool) | np.eye(3, k=1, dtype=bool))
    assert_array_equal(model.transmat_[closed], 0.0)
    assert_array_equal(model.startprob_, [1, 0, 0])
    assert model.transmat_[2, 2] == 1.0
    assert np.diff(model.history_).min() > -1e-11
    assert (np.diff(np.split(model.predict(parts), 8)) >= 0).all()
    assert model.n_parameters_ - model.family_.n_parameters == 2
    assert_allclose(np.diag(model.transmat_)[:2], 0.9, atol=0.08)


def test_cyclic():
    truth = HMM.from_parameters(
        np.eye(4)[0], 0.8 * np.eye(4) + 0.2 * np.roll(np.eye(4), 1, axis=1), Poisson(rates=[[1.0], [8], [30], [70]])
    )
    X, states = truth.sample(1500, 0)
    model = HMM(truth.family_, 4, transition_mask="cyclic", transition_pseudo_count=1.0).fit(X)
    mask = np.eye(4, dtype=bool) | np.roll(np.eye(4, dtype=bool), 1, axis=1)
    assert_array_equal(model.transmat_[~mask], 0.0)
    assert (model.transmat_[mask] > 0).all()
    assert_allclose(model.transmat_, truth.transmat_, atol=0.05)
    assert (model.predict(X) == states).mean() > 0.99
    assert model.n_parameters_ == 4 + 4 + 3
    alone = HMM(Poisson(), 1, transition_mask="cyclic").fit(X)
    assert_array_equal(alone.transmat_, [[1.0]])


def test_masks_stay_exactly_zero():
    mask = HOLES > 0
    X = data_of("full", 400)
    model = unchecked(
        HMM(Gaussian(), 3, transition_mask=mask, start_mask=[1, 0, 1], transition_pseudo_count=2.0,
            start_pseudo_count=1.0, random_state=0, max_iter=50), X,
    )  # fmt: skip
    assert_array_equal(model.transmat_[~mask], 0.0)
    assert (model.transmat_[mask] > 0).all()
    assert model.startprob_[1] == 0.0
    assert np.diff(model.history_).min() > -1e-11
    assert model.n_parameters_ == model.family_.n_parameters + 1 + 3
    labels = np.full(400, -1)
    labels[0] = 1
    with pytest.raises(ValueError, match="row 0"):
        HMM(model.family_, 3, start_mask=[1, 0, 1]).fit(X, labels=labels)
    labels[0], labels[7], labels[8] = -1, 0, 2
    with pytest.raises(ValueError, match="row 8"):
        HMM(model.family_, 3, transition_mask=mask).fit(X, labels=labels)


def test_zeros_of_the_start_stay_zeros():
    X = data_of("full", 400)
    model = unchecked(HMM(FAMILIES["full"][0], 3, transmat_init=HOLES, startprob_init=[0.5, 0.5, 0], max_iter=30), X)
    assert_array_equal(model.transmat_[HOLES == 0], 0.0)
    assert model.startprob_[2] == 0.0


def test_zeros_of_the_start_are_no_room_for_pseudo_counts():
    X = data_of("full", 400)
    options = {"transmat_init": HOLES, "startprob_init": [0.5, 0.5, 0], "max_iter": 30}
    model = HMM(FAMILIES["full"][0], 3, transition_pseudo_count=1.0, start_pseudo_count=1.0, **options)
    unchecked(model, X)
    assert_array_equal(model.transmat_[HOLES == 0], 0.0)
    assert model.startprob_[2] == 0.0
    assert np.isfinite(model.history_).all()
    assert model.n_parameters_ == model.family_.n_parameters + 1 + (HOLES > 0).sum() - 3


def test_a_start_without_room_for_what_is_not_fixed():
    fixed = np.full((2, 2), nan)
    fixed[0, 0] = 0.4
    model = HMM(Poisson(), 2, transmat_init=np.eye(2), transmat_fixed=fixed)
    with pytest.raises(ValueError, match="transmat_init is 0 wherever the fixed values"):
        model.fit(data_of("poisson", 50)[:, :1])


def test_fixed_transitions():
    fixed = np.full((3, 3), nan)
    fixed[0, 1], fixed[2] = 0.3, [0.25, 0.25, 0.5]
    X = data_of("full", 600)
    model = unchecked(
        HMM(Gaussian(), 3, transmat_fixed=fixed, startprob_fixed=[nan, 0.5, nan], random_state=0, max_iter=100), X
    )
    assert model.transmat_[0, 1] == 0.3
    assert_array_equal(model.transmat_[2], fixed[2])
    assert model.startprob_[1] == 0.5
    assert_allclose(model.transmat_.sum(axis=1), 1, rtol=1e-14)
    assert np.diff(model.history_).min() > -1e-12
    assert model.n_parameters_ == model.family_.n_parameters + 1 + 1 + 2
    # the M-step at the returned parameters: what is free has the shares of the expected counts
    counts = model.statistics_.transitions[0, [0, 2]]
    one = HMM(model.family_, 3, startprob_init=model.startprob_, transmat_init=model.transmat_, max_iter=1)
    one = unchecked(one.set_params(transmat_fixed=fixed, startprob_fixed=[nan, 0.5, nan]), X)
    assert_allclose(one.transmat_[0, [0, 2]], 0.7 * counts / counts.sum(), rtol=1e-10)


def test_everything_fixed_but_the_emissions():
    X = data_of("poisson", 300)
    model = HMM(Poisson(), 3, transmat_fixed=A, startprob_fixed=START, random_state=0).fit(X)
    assert_array_equal(model.transmat_, A)
    assert_array_equal(model.startprob_, START)
    assert model.n_parameters_ == 6


def test_a_fixed_zero_and_pseudo_counts():
    """The prior of an entry that is not fitted is a constant, and not -inf."""
    fixed = [[nan, nan, 0.0], [nan] * 3, [nan] * 3]
    X = data_of("poisson", 300)
    model = HMM(FAMILIES["poisson"][0], 3, transmat_fixed=fixed, transition_pseudo_count=1.0, max_iter=300)
    unchecked(model, X)
    assert model.transmat_[0, 2] == 0.0
    assert np.isfinite(model.history_).all()
    assert model.converged_


def test_tied_transitions():
    """Equal stays in all states, equal leaves in the first two; against SciPy's direct optimisation of log p."""
    ties = np.array([[0, 1, 1], [1, 0, 1], [-1, -1, 0]])
    X = data_of("poisson", 300)
    family = FAMILIES["poisson"][0]
    model = HMM(Poisson(), 3, transmat_ties=ties, tol=1e-12, random_state=0, max_iter=3000)
    model.set_params(family=family).fit(X)
    for number in (0, 1):
        assert np.ptp(model.transmat_[ties == number]) < 1e-14
    assert_allclose(model.transmat_.sum(axis=1), 1, rtol=1e-12)
    assert np.diff(model.history_).min() > -1e-12
    assert model.n_parameters_ == 6 + 2 + 2  # rates; start; stay, and where state 2 goes

    def negative(theta):
        stay, split = theta
        leave = (1 - stay) / 2
        chain = [[stay, leave, leave], [leave, stay, leave], [(1 - stay) * split, (1 - stay) * (1 - split), stay]]
        return -HMM.from_parameters(model.startprob_, chain, model.family_).log_prob(X)[0]

    theirs = minimize(negative, [0.5, 0.5], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
    assert_allclose([model.transmat_[0, 0], model.transmat_[2, 0] / (1 - model.transmat_[2, 2])], theirs.x, atol=2e-5)
    assert model.log_prob(X)[0] >= -theirs.fun - 1e-7


def test_tied_start():
    """Of many sequences: states 0 and 2 start equally often."""
    parts = [model_of("poisson").sample(5, seed)[0] for seed in range(60)]
    model = HMM(FAMILIES["poisson"][0], 3, startprob_ties=[0, -1, 0]).fit(parts)
    assert model.startprob_[0] == pytest.approx(model.startprob_[2], rel=1e-14)
    free = HMM(FAMILIES["poisson"][0], 3).fit(parts)
    assert model.lower_bound_ < free.lower_bound_
    assert model.n_parameters_ == free.n_parameters_ - 1


def test_given_start_is_the_start():
    X = data_of("full", 100)
    model = given(FAMILIES["full"][0], START, A, X)
    assert_allclose(model.startprob_, START, rtol=3e-16)
    assert_allclose(model.transmat_, A, rtol=3e-16)
    assert model.n_iter_ == 0
    assert len(model.history_) == 1
    assert not model.converged_
    assert model.score(X) == pytest.approx(model_of("full").score(X), rel=1e-14)


@families
def test_stationary_start_of_every_family(name):
    X = data_of(name, lengths=[20] * 15)
    model = unchecked(HMM(FAMILIES[name][1], 3, stationary_start=True, random_state=0, max_iter=steps(name, 40)), X,
                      lengths=[20] * 15)  # fmt: skip
    assert_allclose(model.startprob_, stationary_distribution(model.transmat_), rtol=1e-12)
    assert_allclose(model.stationary_distribution_, model.startprob_, rtol=1e-12)
    assert np.diff(model.history_).min() > -1e-11 * max(1, abs(model.history_[-1]))


# ---- constraints of the emissions -----------------------------------------------------------------------------------


@families
def test_tied_emissions_are_those_of_an_untied_model(name):
    """States 0 and 2 share a component; components are numbered by tie, then by state."""
    two = FAMILIES[name][0].select([0, 1])
    X = data_of(name, 40)
    transmat = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])
    model = given(two, START, transmat, X, emission_ties=[0, -1, 0])
    same = HMM.from_parameters(START, transmat, FAMILIES[name][0].select([0, 1, 0]))
    assert_allclose(model.log_prob(X), same.log_prob(X), rtol=1e-13)
    assert_allclose(model.predict_proba(X), same.predict_proba(X), atol=1e-13)
    assert_allclose(model.decode(X).log_prob, same.decode(X).log_prob, rtol=1e-13)
    assert_allclose(model.k_best(X[:5], 4).log_prob, same.k_best(X[:5], 4).log_prob, rtol=1e-13)
    assert_allclose(model.filter_proba(X, lag=2), same.filter_proba(X, lag=2), atol=1e-13)
    forecast, its = model.predict_next(X), same.predict_next(X)
    assert_allclose(forecast.states, its.states, atol=1e-13)
    assert_allclose(forecast.density().log_prob(X[:3]), its.density().log_prob(X[:3]), rtol=1e-12)
    now, other = model.filter(), same.filter()
    for x in X[:5]:
        assert_allclose(now.update(x), other.update(x), atol=1e-13)
    assert_array_equal(model.sample(7, 0)[1], same.sample(7, 0)[1])
    assert model.n_parameters_ == two.n_parameters + 2 + 6
    assert model.state_components_.tolist() == [0, 1, 0]
    assert same.state_components_.tolist() == [0, 1, 2]


@families
def test_tied_emissions_climb(name):
    X = data_of(name, 300, missing=0.1)
    model = unchecked(HMM(FAMILIES[name][1], 3, emission_ties=[3, 3, 1], random_state=0, max_iter=steps(name, 30)), X)
    assert model.family_.n_components == 2
    assert np.diff(model.history_).min() > -1e-11 * max(1, abs(model.history_[-1]))
    assert model.history_[-1] == pytest.approx(model.score(X) + log_prior(model, 300), rel=1e-11)


@families
def test_fixed_emissions(name):
    fixed = FAMILIES[name][0].select([1])
    X = data_of(name, 300, missing=0.1)
    model = unchecked(HMM(FAMILIES[name][1], 3, emission_fixed={1: fixed}, random_state=0, max_iter=steps(name, 30)), X)
    assert model.family_.n_components == 2
    assert np.diff(model.history_).min() > -1e-11 * max(1, abs(model.history_[-1]))
    # the same as a model in which it stands in the middle
    b = np.insert(model.family_.log_density(X), [1], fixed.log_density(X), axis=1)
    expected = oracle.log_likelihood(b, model.startprob_, model.transmat_, [300])
    assert_allclose(model.log_prob(X), expected.astype(float), rtol=1e-11)
    drawn, states = model.sample(3000, 0)
    same = fixed.sample(np.zeros((states == 1).sum(), np.intp), np.random.default_rng(0))
    if (states == 1).sum() > 100:
        spread = same.std(axis=0) / (states == 1).sum() ** 0.5
        assert (np.abs(drawn[states == 1].mean(axis=0) - same.mean(axis=0)) < 7 * spread + 1e-9).all()
    with pytest.raises(NotImplementedError, match="emission_fixed"):
        model.predict_next(X).density()
    assert model.filter().update(X[0]) == pytest.approx(model.filter_proba(X[:1])[0], abs=1e-13)


def test_emissions_fixed_in_any_order():
    family = FAMILIES["full"][0]
    X = data_of("full", 50)
    model = given(family.select([1]), START, A, X, emission_fixed={2: family.select([2]), 0: family.select([0])})
    assert model.state_components_.tolist() == [-1, 0, -1]
    assert_allclose(model.log_prob(X), model_of("full").log_prob(X), rtol=1e-13)
    assert_allclose(model.sample(9, 0)[1], model_of("full").sample(9, 0)[1])


# ---- labels ---------------------------------------------------------------------------------------------------------


def test_all_states_known():
    """Closed form in one iteration: counts, and the means and covariances of the rows of each state."""
    parts = [model_of("full").sample(T, T) for T in (150, 40, 1)]
    X, states = np.concatenate([x for x, _ in parts]), np.concatenate([z for _, z in parts])
    model = unchecked(HMM(Gaussian(), 3, random_state=0, max_iter=1), [x for x, _ in parts],
                      labels=[z for _, z in parts])  # fmt: skip
    counts, first = np.zeros((3, 3)), np.zeros(3)
    for _, z in parts:
        first[z[0]] += 1
        for i, j in pairwise(z):
            counts[i, j] += 1
    assert_allclose(model.transmat_, counts / counts.sum(axis=1, keepdims=True), rtol=1e-12)
    assert_allclose(model.startprob_, first / 3, rtol=1e-13)
    for k in range(3):
        assert_allclose(model.family_.means[k], X[states == k].mean(axis=0), rtol=1e-11)
        assert_allclose(model.family_.covariances[k], np.cov(X[states == k].T, bias=True), rtol=1e-10)
    again = HMM(Gaussian(), 3, random_state=0).fit(X, lengths=[150, 40, 1], labels=states)
    assert again.n_iter_ <= 3
    assert_allclose(again.history_[1:], model.history_[1], rtol=1e-13)


@pytest.mark.parametrize("name", ["full", "diag", "poisson", "categorical", "custom"])
def test_some_states_known(name):
    X, states = model_of(name).sample(600, 0)
    labels = np.where(np.arange(600) % 5 == 0, states, -1)
    model = unchecked(HMM(FAMILIES[name][1], 3, random_state=0, max_iter=steps(name, 60)), X, labels=labels)
    assert np.diff(model.history_).min() > -1e-11 * max(1, abs(model.history_[-1]))
    posterior = model.predict_proba(X, labels=labels)
    known = labels >= 0
    assert_allclose(posterior[known], np.eye(3)[labels[known]], rtol=3e-16)
    assert_array_equal(model.predict(X, labels=labels)[known], labels[known])
    # states are those of the labels, not any permutation
    free = model.predict(X)
    assert (free == states).mean() > 0.5
    b = model.family_.log_density(X)
    b[known] = np.where(np.eye(3, dtype=bool)[labels[known]], b[known], -inf)
    expected = oracle.log_likelihood(b, model.startprob_, model.transmat_, [600])[0]
    assert model.history_[-1] * 600 == pytest.approx(float(expected) + 600 * log_prior(model, 600), rel=1e-11)


def test_one_row_of_each_state_known():
    X, states = model_of("full").sample(600, 0)
    labels = np.full(600, -1)
    for k in range(3):
        labels[np.flatnonzero(states == k)[4]] = k
    model = HMM(Gaussian(), 3, random_state=0).fit(X, labels=labels)
    assert (model.predict(X) == states).mean() > 0.8


@pytest.mark.parametrize("state", [0, 1])
def test_states_known_of_one_state_only(state):
    """The states of the start follow the labels: one was given, and it has the label's number."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (100, 2)), rng.normal(8, 1, (100, 2))])
    labels = np.full(200, -1)
    labels[10:30] = state
    model = HMM(Gaussian(), 2, random_state=0).fit(X, labels=labels)
    assert_allclose(model.family_.means[state], X[:100].mean(axis=0), atol=0.1)
    assert_allclose(model.family_.means[1 - state], X[100:].mean(axis=0), atol=0.1)


def test_labels_beat_clusters_where_states_differ_in_variance():
    """Clusters know means; calm and wild rows have the same one."""
    rng = np.random.default_rng(0)
    states = np.repeat([0, 1, 0, 1], 100)
    X = rng.normal(size=(400, 1)) * np.where(states, 6.0, 1.0)[:, None]
    labels = np.full(400, -1)
    labels[:10], labels[100:110] = 0, 1
    for init_params in ("kmeans", "random"):
        model = HMM(Gaussian(), 2, init_params=init_params, random_state=0, tol=1e-5).fit(X, labels=labels)
        assert (model.predict(X) == states).mean() > 0.95


def test_labels_of_tied_states():
    """What is known of one of the states that share a component is known of the component."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(mean, 1, (100, 1)) for mean in (0, 8, 0)])
    for known in range(3):
        labels = np.full(300, -1)
        labels[100 * known : 100 * known + 20] = known
        model = HMM(Gaussian(), 3, emission_ties=[5, -1, 5], transition_mask="left-right", random_state=0)
        model = unchecked(model.set_params(max_iter=5), X, labels=labels)
        assert_allclose(model.family_.means[model.state_components_, 0], [0, 8, 0], atol=0.5)


def test_labels_of_parts():
    """An empty one, as an empty list, has no dtype of its own."""
    X = data_of("full", 60)
    labels = [0] * 10 + [-1] * 50
    model = unchecked(HMM(Gaussian(), 3, random_state=0, max_iter=3), [X, X[:0]], labels=[labels, []])
    assert_array_equal(model.transmat_, unchecked(clone(model), X, labels=labels).transmat_)
    with pytest.raises(ValueError, match="labels must be as long as their sequences"):
        model.predict([X[:30], X[30:]], labels=[labels[:20], labels[20:]])


# ---- runs of EM -----------------------------------------------------------------------------------------------------


def test_a_start_rules_nothing_out():
    """A cluster lacks some categories, but its state may emit them."""
    X = np.repeat([0.0, 1.0, 2.0, 3.0], 25)[:, None]
    for family in (Categorical(), Poisson()):
        model = HMM(family, 2, random_state=0, max_iter=0).fit(X)
        assert np.isfinite(model.family_.log_density(X)).all()


def test_a_start_from_a_sample(monkeypatch):
    """Rows are drawn where there are many; those with labels are among them, and errors name rows of X."""
    monkeypatch.setattr(_mixture_em, "_START_ROWS", 50)
    X, states = model_of("poisson").sample(600, 0)
    labels = np.full(600, -1)
    labels[[np.flatnonzero(states == k)[7] for k in range(3)]] = range(3)
    model = HMM(Poisson(), 3, random_state=0).fit(X, labels=labels)
    assert (model.predict(X) == states).mean() > 0.8
    assert (HMM(Poisson(), 3, random_state=0).fit(X, labels=states).predict(X) == states).mean() > 0.8
    X[[100, 101, 300]] = -1.0
    with pytest.raises(ValueError, match="row 100"):
        HMM(Poisson(), 3, random_state=0, init_params="random").fit(X)


def test_several_starts():
    X = data_of("poisson", 200)
    model = HMM(Poisson(), 3, n_init=6, init_params="random_from_data", random_state=0).fit(X)
    assert sum(count for _, count in model.optima_) == 6
    values = [value for value, _ in model.optima_]
    assert values == sorted(values, reverse=True)
    assert model.lower_bound_ == values[0]
    one = HMM(Poisson(), 3, n_init=1, init_params="random_from_data", random_state=0).fit(X)
    assert one.lower_bound_ <= model.lower_bound_
    assert_array_equal(
        HMM(Poisson(), 3, n_init=6, init_params="random_from_data", random_state=0).fit(X).transmat_, model.transmat_
    )


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data"])
def test_every_start_climbs(init):
    X = data_of("full", 300, missing=0.1)
    model = unchecked(HMM(Gaussian("diag"), 3, init_params=init, random_state=0, max_iter=100), X)
    assert np.diff(model.history_).min() > -1e-12
    assert model.lower_bound_ > HMM(Gaussian("diag"), 1).fit(X).lower_bound_


def test_warm_start_goes_on():
    X = data_of("full", 400)
    whole = unchecked(HMM(Gaussian(), 3, random_state=0, tol=0, max_iter=12), X)
    parts = HMM(Gaussian(), 3, random_state=0, tol=0, max_iter=5, warm_start=True)
    unchecked(parts, X)
    first = parts.history_
    unchecked(parts.set_params(max_iter=7), X)
    assert_allclose(np.r_[first, parts.history_[1:]], whole.history_, rtol=1e-13)
    assert_allclose(parts.transmat_, whole.transmat_, rtol=1e-11)
    cold = unchecked(parts.set_params(warm_start=False, max_iter=5), X)
    assert_array_equal(cold.history_, first)
    with pytest.raises(ValueError, match="warm_start needs"):
        parts.set_params(warm_start=True, n_components=2).fit(X)


def test_warm_start_of_a_list():
    parts = np.split(data_of("full", 400), 4)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=500, warm_start=True).fit(parts)
    assert model.fit(parts).n_iter_ <= 2


def test_warm_start_takes_new_constraints():
    X = data_of("full", 400)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=500, warm_start=True).fit(X)
    fixed = np.full((3, 3), nan)
    fixed[0, 0] = 0.5
    unchecked(model.set_params(transmat_fixed=fixed, max_iter=5), X)
    assert_allclose(model.transmat_.sum(axis=1), 1, rtol=1e-12)
    assert model.transmat_[0, 0] == 0.5


def test_warm_start_takes_a_new_mask():
    X = data_of("full", 400)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=500, warm_start=True).fit(X)
    means = model.family_.means
    model.set_params(transition_mask="cyclic", start_mask=[1, 1, 0], max_iter=0).fit(X)
    mask = np.eye(3, dtype=bool) | np.roll(np.eye(3, dtype=bool), 1, axis=1)
    assert_array_equal(model.transmat_ > 0, mask)
    assert_allclose(model.transmat_.sum(axis=1), 1, rtol=1e-12)
    assert model.startprob_[2] == 0
    assert_array_equal(model.family_.means, means)
    model.set_params(max_iter=500).fit(X)
    assert model.stop_reason_ == "converged"
    assert np.diff(model.history_).min() > -1e-10


def test_warm_start_takes_new_ties():
    X = data_of("full", 400)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=500, warm_start=True).fit(X)
    ties = np.where(np.eye(3, dtype=bool), 0, -1)
    model.set_params(transmat_ties=ties).fit(X)
    assert_allclose(np.diag(model.transmat_), model.transmat_[0, 0], rtol=1e-14)
    assert model.stop_reason_ == "converged"
    with pytest.raises(ValueError, match="warm_start needs the emission_ties"):
        model.set_params(emission_ties=[0, 0, -1]).fit(X)


def test_warm_start_where_it_was_stays_there():
    X = data_of("full", 400)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=20, tol=0, warm_start=True)
    unchecked(model, X)
    last = model.lower_bound_
    model.set_params(max_iter=0).fit(X)
    assert model.history_[0] == pytest.approx(last, rel=1e-13)


def test_reseeded_states_obey_the_mask():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(5, 1, (60, 2)), rng.normal(0, 1, (60, 2))])
    far = Gaussian(means=[[2.5, 2.5], [1e3, 1e3]], covariances=[9 * np.eye(2)] * 2)
    for ties in (None, [0, 1, 0]):
        family = far if ties else Gaussian(means=[*far.means, [2.5, 2.5]], covariances=[9 * np.eye(2)] * 3)
        model = HMM(family, 3, transition_mask="left-right", emission_ties=ties, max_iter=300).fit(X)
        assert_array_equal(np.tril(model.transmat_, -1), 0.0)
        assert model.transmat_[0, 2] == 0.0
        assert 1 in model.predict(X)


def test_reseeded_states_are_visited():
    """A state too far away to be ever visited gets rows, and then explains them."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(5, 1, (60, 2))])
    far = Gaussian(means=[[2.5, 2.5], [1e3, 1e3]], covariances=[9 * np.eye(2)] * 2)
    model = HMM(far, 2, transmat_init=np.full((2, 2), 0.5), startprob_init=[0.5, 0.5]).fit(X)
    assert np.bincount(model.predict(X), minlength=2).min() > 0
    assert model.lower_bound_ > HMM(Gaussian(), 1).fit(X).lower_bound_ + 0.1


def test_without_reseeding_em_ends_there():
    X = data_of("full", 100)
    far = Gaussian(means=[[0.0, 0.0], [1e4, 1e4]], covariances=[9 * np.eye(2)] * 2)
    model = HMM(far, 2, reseed=False)
    with pytest.warns(ConvergenceWarning, match="component 1 has no weight"):
        model.fit(X)
    assert model.stop_reason_ == "degenerate"
    assert model.n_iter_ == 0
    assert_array_equal(model.family_.means, far.means)


def test_collapse_ends_em_and_keeps_what_there_was():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 1))
    X[30:34] = 7.25  # four equal values: variance 0
    start = Gaussian(means=[[0.0], [7.25]], covariances=[[[1.0]], [[0.1]]])
    model = HMM(start, 2)
    with pytest.warns(ConvergenceWarning, match="not positive definite.*are kept"):
        model.fit(X)
    assert model.stop_reason_ == "degenerate"
    assert not model.converged_
    assert model.score(X) == pytest.approx(model.lower_bound_, rel=1e-12)
    fine = HMM(Gaussian(floor=[0.01], means=start.means, covariances=start.covariances), 2).fit(X)
    assert fine.converged_
    assert np.diff(fine.history_).min() > -1e-12


def test_em_that_does_not_converge_says_so():
    X = data_of("full", 300)
    with pytest.warns(ConvergenceWarning, match="did not converge in 2 iterations"):
        model = HMM(Gaussian(), 3, max_iter=2, tol=0, random_state=0).fit(X)
    assert (model.stop_reason_, model.n_iter_, model.converged_) == ("max_iter", 2, False)


def interrupting(monkeypatch, at):
    """Ctrl-C in the E-step of this number, from 1 on."""
    e_step, calls = _hmm_em.HiddenMarkov.e_step, []

    def interrupted(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == at:
            raise KeyboardInterrupt
        return e_step(self, *args, **kwargs)

    monkeypatch.setattr(_hmm_em.HiddenMarkov, "e_step", interrupted)
    return calls


def test_an_interrupt_keeps_the_parameters(monkeypatch):
    X = data_of("full", 200)
    two = unchecked(HMM(Gaussian(), 3, random_state=0, tol=0, max_iter=2), X)
    calls = interrupting(monkeypatch, 4)
    model = HMM(Gaussian(), 3, random_state=0, n_init=5, tol=0)
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 iterations"):
        model.fit(X)
    assert len(calls) == 4  # no other start
    assert model.stop_reason_ == "interrupted"
    assert_array_equal(model.transmat_, two.transmat_)
    assert_array_equal(model.history_, two.history_)


def test_an_interrupt_of_the_first_step_leaves_the_model_as_it_was(monkeypatch):
    X = data_of("full", 200)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=400).fit(X)
    before = dict(vars(model))
    interrupting(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"X": np.full((20, 2), inf)}, "infinity"),
        ({"lengths": [3, 4]}, "lengths add up"),
        ({"sample_weight": [1, 2]}, "sample_weight"),
        ({"labels": np.zeros(3, int)}, "labels must be"),
    ],
)
def test_a_fit_that_fails_changes_nothing(bad, message):
    X = data_of("full", 200)
    model = HMM(Gaussian(), 3, random_state=0, max_iter=400).fit(X)
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.fit(**({"X": X} | bad))
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    new = HMM(Gaussian(), 3)
    with pytest.raises(ValueError, match=message):
        new.fit(**({"X": X} | bad))
    assert not hasattr(new, "n_features_in_")
    with pytest.raises(NotFittedError):
        new.predict(X)


def test_arguments_are_not_modified():
    X, states = model_of("full").sample(200, 0)
    X[3, 0] = nan
    fixed = np.full((3, 3), nan)
    fixed[0, 0] = 0.6
    arrays = {
        "transition_mask": HOLES > 0,
        "transmat_fixed": np.where(HOLES > 0, fixed, 0.0),
        "transition_pseudo_count": np.ones((3, 3)),
        "start_pseudo_count": np.ones(3),
        "startprob_init": START.copy(),
        "transmat_init": HOLES.copy(),
        "emission_ties": np.array([-1, -1, -1]),
        "startprob_ties": np.array([0, 0, -1]),
    }
    inputs = {"X": X, "labels": np.where(states == 0, -1, -1), "lengths": np.array([150, 50]),
              "sample_weight": np.array([1.0, 2.0])}  # fmt: skip
    before = copy.deepcopy((arrays, inputs))
    for array in (*arrays.values(), *inputs.values()):
        array.flags.writeable = False
    unchecked(HMM(Gaussian(), 3, random_state=0, max_iter=5, **arrays), **inputs)
    for now, then in zip((arrays, inputs), before, strict=True):
        for name in now:
            assert_array_equal(now[name], then[name])


def test_progress_is_logged(caplog):
    X = data_of("full", 200)
    with caplog.at_level(logging.INFO, logger="fastgen"):
        HMM(Gaussian(), 3, random_state=0, n_init=2, max_iter=400, verbose=2, verbose_interval=5).fit(X)
    text = caplog.text
    assert "start 1 of 2" in text
    assert "start 2 of 2" in text
    assert "iteration 5: objective" in text
    assert "iteration 6" not in text
    assert text.count("converged after") == 2
    with caplog.at_level(logging.INFO, logger="fastgen"):
        HMM(Gaussian(), 3, random_state=0, max_iter=0, verbose=1).fit(X)
    assert "max_iter after 0 iterations" in caplog.text


# ---- the estimator --------------------------------------------------------------------------------------------------


@families
def test_clone_pickle_and_copies(name):
    X = data_of(name, 150)
    if name == "custom":
        pytest.skip("compiled functions of a test module that is imported by path cannot be pickled")
    model = unchecked(HMM(FAMILIES[name][1], 3, transition_mask=np.ones((3, 3), bool), random_state=0, max_iter=5), X)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert_array_equal(again.log_prob(X), model.log_prob(X))
        assert_array_equal(again.predict(X), model.predict(X))
        assert not again.transmat_.flags.writeable
        assert not again.startprob_.flags.writeable
        assert again.n_parameters_ == model.n_parameters_
    new = clone(model)
    assert not hasattr(new, "transmat_")
    unchecked(new, X)
    assert_array_equal(new.transmat_, model.transmat_)
    with pytest.raises(ValueError, match="read-only"):
        model.transmat_[0, 0] = 1


def test_copies_of_constrained_models():
    X = data_of("full", 150)
    family = FAMILIES["full"][0]
    model = given(family.select([0, 1]), START, A, X, emission_fixed={1: family.select([2])})
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.log_prob(X), model.log_prob(X))
    now = model.filter()
    now.update(X[0])
    other = pickle.loads(pickle.dumps(now))
    assert_array_equal(other.update(X[1]), now.update(X[1]))


def test_unfitted_models_say_so():
    X = data_of("full", 10)
    for name in ("log_prob", "predict_proba", "decode", "predict", "filter_proba", "predict_next", "sample_paths"):
        with pytest.raises(NotFittedError):
            getattr(HMM(), name)(X)
    for name in ("filter", "sample"):
        with pytest.raises(NotFittedError):
            getattr(HMM(), name)()
    with pytest.raises(NotFittedError):
        HMM().k_best(X, 2)


@pytest.mark.parametrize("name", ["score", "bic"])
def test_unfitted_models_have_no_score(name):
    with pytest.raises(NotFittedError):
        getattr(HMM(), name)(data_of("full", 10))


def test_data_frames():
    pd = pytest.importorskip("pandas")
    pl = pytest.importorskip("polars")
    X = data_of("full", 150)
    plain = unchecked(HMM(Gaussian(), 3, random_state=0, max_iter=20), X)
    frame = pd.DataFrame(X, columns=["a", "b"])
    for data in (frame, pl.DataFrame(frame.to_dict("list"))):
        model = unchecked(HMM(Gaussian(), 3, random_state=0, max_iter=20), data)
        assert model.feature_names_in_.tolist() == ["a", "b"]
        assert_allclose(model.transmat_, plain.transmat_, rtol=1e-12)
        assert_array_equal(model.predict(data), plain.predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    groups = pd.Series(np.repeat([0, 1], [100, 50]), index=np.arange(150)[::-1])
    with_groups = unchecked(HMM(Gaussian(), 3, random_state=0, max_iter=5), frame, groups=groups)
    with_lengths = unchecked(HMM(Gaussian(), 3, random_state=0, max_iter=5), frame, lengths=[100, 50])
    assert_array_equal(with_groups.transmat_, with_lengths.transmat_)


def test_masked_arrays_are_missing_values():
    X = data_of("full", 100)
    hidden = np.zeros(X.shape, bool)
    hidden[3:6] = True
    model = model_of("full")
    expected = np.where(hidden, nan, X)
    assert_array_equal(model.log_prob(np.ma.masked_array(X, hidden)), model.log_prob(expected))


def test_criteria():
    """From the definitions, with all sequences."""
    X = data_of("full", 100)
    model = model_of("full")
    total = model.log_prob(X, lengths=[60, 40]).sum()
    assert model.n_parameters_ == 2 + 6 + 3 * (2 + 3)
    assert model.aic(X, lengths=[60, 40]) == pytest.approx(-2 * total + 2 * 23, rel=1e-13)
    assert model.bic(X, lengths=[60, 40]) == pytest.approx(-2 * total + math.log(100) * 23, rel=1e-13)


# ---- scikit-learn ---------------------------------------------------------------------------------------------------


def panel(n_groups=12, T=40):
    rng = np.random.default_rng(0)
    truth = HMM.from_parameters(
        [0.5, 0.5], [[0.95, 0.05], [0.1, 0.9]], Gaussian(means=[[0.0, 0], [3, 3]], covariances=[np.eye(2)] * 2)
    )
    X = np.concatenate([truth.sample(T, rng)[0] for _ in range(n_groups)])
    return 10 * X + 5, np.repeat(np.arange(n_groups), T)


def test_pipeline():
    X, _ = panel()
    pipeline = make_pipeline(StandardScaler(), HMM(Gaussian(), 2, random_state=0)).fit(X)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    alone = HMM(Gaussian(), 2, random_state=0).fit(z)
    assert_allclose(pipeline.score(X), alone.score(z), rtol=1e-10)
    assert_array_equal(pipeline.predict(X), alone.predict(z))
    assert pipeline.predict_proba(X).shape == (len(X), 2)


def test_cross_validation_with_groups():
    """Every fold is fitted and scored as sequences: against a loop that is written out."""
    X, groups = panel()
    with sklearn.config_context(enable_metadata_routing=True):
        model = HMM(Gaussian(), 2, random_state=0).set_fit_request(groups=True).set_score_request(groups=True)
        scores = cross_val_score(model, X, cv=GroupKFold(4), params={"groups": groups})
    expected = []
    for train, test in GroupKFold(4).split(X, groups=groups):
        one = HMM(Gaussian(), 2, random_state=0).fit(X[train], lengths=[40] * 9)
        expected.append(one.log_prob(X[test], lengths=[40] * 3).sum() / 120)
    assert_allclose(scores, expected, rtol=1e-13)


def test_grid_search_in_a_pipeline():
    X, groups = panel()
    with sklearn.config_context(enable_metadata_routing=True):
        model = HMM(Gaussian(), 1, random_state=0, max_iter=300)
        model.set_fit_request(groups=True).set_score_request(groups=True)
        search = GridSearchCV(
            make_pipeline(StandardScaler(), model), {"hmm__n_components": [1, 2]}, cv=GroupKFold(3), error_score="raise"
        ).fit(X, groups=groups)
    assert search.best_params_ == {"hmm__n_components": 2}
    best = search.best_estimator_["hmm"]
    assert np.diff(search.cv_results_["mean_test_score"])[0] > 0.2
    z = StandardScaler().fit_transform(X)
    same = HMM(Gaussian(), 2, random_state=0, max_iter=300).fit(z, groups=groups)
    assert_allclose(best.transmat_, same.transmat_, rtol=1e-12)


def test_grid_search():
    X, groups = panel()
    with sklearn.config_context(enable_metadata_routing=True):
        model = HMM(Gaussian(), 1, random_state=0, max_iter=300)
        model.set_fit_request(groups=True).set_score_request(groups=True)
        search = GridSearchCV(model, {"n_components": [1, 2]}, cv=GroupKFold(3), error_score="raise")
        search.fit(X, groups=groups)
    assert search.best_params_ == {"n_components": 2}
    assert np.diff(search.cv_results_["mean_test_score"])[0] > 0.2
    same = HMM(Gaussian(), 2, random_state=0, max_iter=300).fit(X, groups=groups)
    assert_array_equal(search.best_estimator_.transmat_, same.transmat_)


def test_random_search():
    X, _ = panel()
    search = RandomizedSearchCV(
        HMM(Poisson(), random_state=0, max_iter=500),
        {"n_components": [1, 2, 3], "family": [Gaussian("diag"), Gaussian("spherical")]},
        n_iter=4,
        cv=KFold(3),
        random_state=0,
        error_score="raise",
    ).fit(X)
    assert search.best_params_["n_components"] > 1
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_settings_survive_cloning_and_printing():
    model = HMM(Poisson(), 2, transmat_init=np.eye(2), emission_fixed={1: Poisson(rates=[[2.0]])})
    again = clone(model)
    assert_array_equal(again.transmat_init, np.eye(2))
    assert again.emission_fixed[1].rates == 2.0
    assert "n_components=2" in repr(model)
    assert model.get_params()["n_components"] == 2


WEIGHTS = "sample_weight is of sequences, not of rows"


def checks_that_must_fail(estimator):
    return {
        "check_all_zero_sample_weights_error": WEIGHTS,
        "check_sample_weights_shape": WEIGHTS,
        "check_sample_weights_not_overwritten": WEIGHTS,
        "check_sample_weights_pandas_series": WEIGHTS,
        "check_sample_weights_not_an_array": WEIGHTS,
        "check_sample_weights_list": WEIGHTS,
        "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
    }


@parametrize_with_checks(
    [HMM(), HMM(Gaussian("diag", 1e-3), 2), HMM(StudentT("diag", 1e-3), 2)],
    expected_failed_checks=checks_that_must_fail,
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components must be an integer of at least 1"),
        ({"n_components": 1.5}, "n_components"),
        ({"tol": -1}, "tol"),
        ({"tol": nan}, "tol"),
        ({"max_iter": -1}, "max_iter"),
        ({"n_init": 0}, "n_init"),
        ({"verbose_interval": 0}, "verbose_interval"),
        ({"init_params": "kmean"}, "init_params must be one of"),
        ({"transition_mask": "left"}, "transition_mask must be one of 'left-right', 'cyclic'"),
        ({"transition_mask": np.ones((2, 2))}, r"transition_mask must be booleans of shape \(3, 3\)"),
        ({"transition_mask": np.full((3, 3), 0.5)}, "transition_mask must be booleans"),
        ({"transition_mask": np.zeros((3, 3))}, "each state needs a transition"),
        ({"start_mask": [1, 1]}, r"start_mask must be booleans of shape \(3,\)"),
        ({"start_mask": [0, 0, 0]}, "the start a state"),
        ({"startprob_init": [0.5, 0.5]}, "startprob_init must hold"),
        ({"startprob_init": [0.5, 0.5, 0.5]}, "startprob_init must have rows that add up to 1"),
        ({"startprob_init": [1.5, -0.5, 0]}, "startprob_init must hold"),
        ({"startprob_init": [nan, 0.5, 0.5]}, "startprob_init must hold"),
        ({"startprob_init": [0.5, 0.5, 0], "start_mask": [1, 0, 1]}, "startprob_init is not 0 where the mask"),
        ({"transmat_init": np.full((2, 2), 0.5)}, "transmat_init must hold"),
        ({"transmat_init": np.full((3, 3), 0.5)}, "transmat_init must have rows that add up to 1"),
        ({"transmat_init": np.full((3, 3), 1 / 3), "transition_mask": "cyclic"}, "transmat_init is not 0"),
        ({"startprob_fixed": [nan, nan]}, "startprob_fixed must have shape"),
        ({"startprob_fixed": [0.5, 0.6, nan]}, "startprob_fixed must add up to 1"),
        ({"startprob_fixed": [0.5, 0.4, 0.0]}, "startprob_fixed must add up to 1"),
        ({"transmat_fixed": np.full((2, 2), nan)}, "transmat_fixed must have shape"),
        ({"transmat_fixed": [[1.5, nan, nan]] * 3}, "transmat_fixed must add up to 1"),
        ({"transmat_fixed": [[-0.5, nan, nan]] * 3}, "transmat_fixed must hold probabilities"),
        ({"transmat_fixed": [[inf, nan, nan]] * 3}, "transmat_fixed must hold probabilities"),
        ({"transmat_fixed": np.full((3, 3), 1 / 3), "transition_mask": "cyclic"}, "0 where the mask allows nothing"),
        ({"startprob_ties": [0, 1]}, "startprob_ties must be integers of shape"),
        ({"transmat_ties": np.zeros((3, 3))}, "transmat_ties must be integers of shape"),
        ({"emission_ties": [0, 0]}, "emission_ties must be integers of shape"),
        ({"emission_ties": [0.0, 0, 0]}, "emission_ties must be integers"),
        ({"emission_fixed": {3: Gaussian(means=[[0, 0]], covariances=[np.eye(2)])}}, "must have states 0, ..., 2"),
        ({"emission_fixed": {0: Gaussian()}}, "one component"),
        ({"emission_fixed": {0: FAMILIES["full"][0]}}, "one component"),
        ({"emission_fixed": dict.fromkeys(range(3), FAMILIES["full"][0].select([0]))}, "leaves no emission to fit"),
        (
            {"emission_fixed": {0: FAMILIES["full"][0].select([0])}, "emission_ties": [0, 0, -1]},
            "both tied and fixed",
        ),
        ({"start_pseudo_count": -1}, "start_pseudo_count must be finite and not negative"),
        ({"start_pseudo_count": [1, 1]}, "start_pseudo_count must be a number, or have shape"),
        ({"transition_pseudo_count": nan}, "transition_pseudo_count must be finite"),
        ({"transition_pseudo_count": [1, 1]}, "transition_pseudo_count must be a number, or have shape"),
        ({"stationary_start": True, "startprob_init": START}, "stationary_start leaves nothing"),
        ({"stationary_start": True, "start_mask": [1, 1, 0]}, "stationary_start leaves nothing"),
        ({"stationary_start": True, "transmat_ties": np.zeros((3, 3), int)}, "stationary_start leaves nothing"),
        ({"stationary_start": True, "transmat_fixed": np.full((3, 3), nan)}, "stationary_start leaves nothing"),
        ({"family": FAMILIES["full"][0].select([0, 1])}, "family has 2 components, but 3 are needed"),
        ({"family": FAMILIES["full"][0], "emission_ties": [0, 0, 1]}, "family has 3 components, but 2 are needed"),
    ],
)
def test_bad_settings(options, message):
    X = data_of("full", 60)
    with pytest.raises(ValueError, match=message):
        HMM(**({"n_components": 3, "random_state": 0} | options)).fit(X)


@pytest.mark.parametrize(("family", "bad"), [(Multinomial(), nan), (Poisson(), -1.0)])
def test_bad_values_name_their_row(family, bad):
    X = data_of("multinomial", 60)
    X[37, 0] = bad
    with pytest.raises(ValueError, match="row 37"):
        HMM(family, 3, random_state=0).fit(X)


def test_what_is_no_family():
    for family in ("gaussian", Gaussian, 3):
        with pytest.raises(TypeError, match="family must be one of"):
            HMM(family).fit(np.zeros((5, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": [10, 11]}, "lengths add up to 21, but there are 20 rows"),
        ({"lengths": [10.0, 10.0]}, "lengths must be a list of integers"),
        ({"lengths": [-1, 21]}, "lengths must not be negative"),
        ({"lengths": []}, "lengths add up to 0"),
        ({"lengths": [[20]]}, "lengths must be a list"),
        ({"groups": [0] * 19}, r"groups must have shape \(20,\)"),
        ({"groups": [0] * 20, "lengths": [20]}, "lengths or groups, not both"),
        ({"labels": [0] * 19}, "labels must be 20 integers"),
        ({"labels": [0.0] * 20}, "labels must be 20 integers"),
        ({"labels": [2] * 20}, "labels must be states 0, ..., 1, or -1"),
        ({"labels": [-2] * 20}, "labels must be states 0, ..., 1, or -1"),
    ],
)
def test_bad_arguments(arguments, message):
    X = data_of("poisson", 20)
    with pytest.raises(ValueError, match=message):
        HMM(Poisson(), 2, random_state=0).fit(X, **arguments)
    model = HMM.from_parameters([0.5, 0.5], np.full((2, 2), 0.5), FAMILIES["poisson"][0].select([0, 1]))
    with pytest.raises(ValueError, match=message):
        model.decode(X, **arguments)


def test_bad_lists():
    X = data_of("poisson", 20)
    with pytest.raises(ValueError, match="minimum of 2"):
        HMM(Poisson()).fit([])
    with pytest.raises(ValueError, match="minimum of 2"):
        HMM(Poisson()).fit([X[:0]])
    with pytest.raises(ValueError, match="different numbers of columns"):
        HMM(Poisson()).fit([X, X[:, :1]])
    for extra in ({"lengths": [10, 10]}, {"groups": [0] * 20}):
        with pytest.raises(ValueError, match="has its own lengths"):
            HMM(Poisson()).fit([X[:10], X[10:]], **extra)
    model = model_of("poisson")
    with pytest.raises(ValueError, match="features"):
        model.predict([X[:, :1]])
    assert model.predict_proba([X[:0], X[:2]]).shape == (2, 3)


@pytest.mark.parametrize("name", ["full", "diag", "poisson", "categories"])
def test_nothing_but_empty_sequences(name):
    model = model_of(name)
    X = data_of(name, 3)
    assert model.log_prob([]).shape == (0,)
    assert model.log_prob([X[:0], X[:0]]).tolist() == [0.0, 0.0]
    assert model.predict([X[:0]]).shape == (0,)
    assert model.predict_proba([X[:0]]).shape == (0, 3)
    assert_array_equal(model.predict_next([X[:0]]).states, [[START]])


def test_bad_data():
    X = data_of("full", 20)
    X[7, 1] = inf
    model = model_of("full")
    for use in (HMM(Gaussian(), 2, random_state=0).fit, model.log_prob, model.predict_proba, model.predict,
                model.filter_proba, model.predict_next, model.sample_paths, lambda X: model.k_best(X, 2)):  # fmt: skip
        with pytest.raises(ValueError, match=r"infinity.*row 7"):
            use(X)
    with pytest.raises(ValueError, match="minimum of 2"):
        HMM().fit(X[:1])
    with pytest.raises(ValueError, match="there are 3 states, but only 2 steps"):
        HMM(n_components=3).fit(X[:2])
    with pytest.raises(ValueError, match="row 0, column 0"):
        HMM(Poisson()).fit(np.full((5, 1), -1.0))
    for use in (model.log_prob, model.predict, model.filter_proba):
        with pytest.raises(ValueError, match="features"):
            use(X[:, :1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.5], np.full((3, 3), 1 / 3)), "transmat must have shape"),
        (([0.5, 0.6], np.full((2, 2), 0.5)), "startprob must add up to 1"),
        (([0.5, 0.5], [[0.5, 0.6], [0.5, 0.5]]), "row 0 of transmat must add up to 1"),
        (([1.5, -0.5], np.full((2, 2), 0.5)), "startprob must hold probabilities"),
        (([[0.5, 0.5]], np.full((2, 2), 0.5)), "startprob must have shape"),
        (([1.0], [[1.0]]), "family must have the parameters of 1 components"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        HMM.from_parameters(*arguments, Poisson(rates=[[1.0], [2.0]]))
    with pytest.raises(ValueError, match="family must have the parameters of 2"):
        HMM.from_parameters([0.5, 0.5], np.full((2, 2), 0.5), Poisson())


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_bad_numbers(bad):
    model, X = model_of("poisson"), data_of("poisson", 5)
    for use in (lambda: model.k_best(X, bad), lambda: model.sample_paths(X, bad), lambda: model.predict_next(X, bad),
                lambda: model.sample(bad)):  # fmt: skip
        with pytest.raises(ValueError, match="must be an integer of at least 1"):
            use()
    if bad != 0:
        with pytest.raises(ValueError, match="lag must be an integer of at least 0"):
            model.filter_proba(X, lag=bad)


def test_k_best_is_of_one_sequence():
    X = data_of("poisson", 6)
    with pytest.raises(ValueError, match="one sequence"):
        model_of("poisson").k_best([X[:3], X[3:]], 2)


@pytest.mark.parametrize("step", [0, 3])
def test_steps_that_were_not_forecast(step):
    forecast = model_of("poisson").predict_next(data_of("poisson", 6), 2)
    with pytest.raises(ValueError, match="step"):
        forecast.density(step=step)


@pytest.mark.parametrize("state", [-1, 3])
def test_a_first_state_that_is_none(state):
    with pytest.raises(ValueError, match="first_state"):
        model_of("poisson").sample(3, 0, first_state=state)


# ---- small and odd --------------------------------------------------------------------------------------------------


@families
def test_one_state_is_one_density(name):
    """K = 1: the family's own maximum likelihood, in one iteration where it has a closed form."""
    X = data_of(name, 100)
    model = unchecked(HMM(FAMILIES[name][1], 1, random_state=0, max_iter=200), X)
    assert_array_equal(model.transmat_, [[1.0]])
    assert_array_equal(model.startprob_, [1.0])
    assert model.log_prob(X)[0] == pytest.approx(model.family_.log_density(X).sum(), rel=1e-12)
    assert (model.predict(X) == 0).all()
    assert_array_equal(model.predict_proba(X), np.ones((100, 1)))
    assert_array_equal(model.sample_paths(X, 2), np.zeros((2, 100)))
    assert model.k_best(X, 2).log_prob[1] == -inf
    if name not in ("student", "custom"):
        direct = FAMILIES[name][1].maximise(FAMILIES[name][1].statistics(X))
        assert_allclose(model.family_.log_density(X), direct.log_density(X), rtol=1e-12)


@families
def test_sequences_of_one_step(name):
    """A mixture: p(x) = sum start_k p(x | k); transitions stay as they were."""
    X = data_of(name, 60)
    model = unchecked(HMM(FAMILIES[name][0], 3, startprob_init=START, transmat_init=A, max_iter=3), X, lengths=[1] * 60)
    assert_allclose(model.transmat_, A, rtol=1e-15)
    b = model.family_.log_density(X) + np.log(model.startprob_)
    assert_allclose(model.log_prob(X, lengths=[1] * 60), np.logaddexp.reduce(b, axis=1), rtol=1e-11)
    one = model_of(name)
    assert_allclose(one.log_prob(X[:1])[0], np.log(np.exp(likelihoods(one, X[:1])[0]) @ START), rtol=1e-12)
    assert_array_equal(one.predict(X[:1]), (likelihoods(one, X[:1]) + np.log(START)).argmax(axis=1))
    assert one.k_best(X[:1], 4).path.shape == (4, 1)


def test_empty_sequences_change_nothing():
    X = data_of("full", 100)
    one = unchecked(HMM(Gaussian(), 2, random_state=0, max_iter=5), X, lengths=[50, 50])
    two = unchecked(HMM(Gaussian(), 2, random_state=0, max_iter=5), X, lengths=[0, 50, 0, 50, 0])
    assert_array_equal(one.history_, two.history_)
    assert_array_equal(one.transmat_, two.transmat_)
    assert_array_equal(one.log_prob(X, lengths=[0, 50, 50]), np.r_[0.0, one.log_prob(X, lengths=[50, 50])])
    assert one.score(X, lengths=[0, 50, 50]) == one.score(X, lengths=[50, 50])


def test_long_sequences_do_not_underflow():
    """Of 10^5 steps with log p far below the smallest double: against the oracle, in logs."""
    model = model_of("full")
    X, _ = model.sample(20_000, 0)
    expected = oracle.log_likelihood(likelihoods(model, X), START, A, [20_000])[0]
    assert model.log_prob(X)[0] == pytest.approx(float(expected), rel=1e-12)
    assert expected < -40_000


def test_a_sequence_of_no_weight_may_be_impossible():
    family = Bernoulli(probabilities=[[0.3], [0.0]])
    X = np.array([[0.0], [0.0], [0.0], [1.0]])
    options = {"startprob_init": [1.0, 0.0], "transmat_init": [[0.0, 1.0], [0.0, 1.0]], "max_iter": 0}
    model = HMM(family, 2, **options).fit(X, lengths=[2, 2], sample_weight=[1.0, 0.0])
    assert model.history_[0] == pytest.approx(math.log(0.7) / 2)


@pytest.mark.parametrize("name", ["diag", "poisson"])
def test_a_sequence_of_no_weight_counts_for_nothing(name):
    """Though it is impossible: state 1 has no way back."""
    truth = model_of(name)
    X, _ = truth.sample(100, 0)
    more = np.full((5, X.shape[1]), nan)
    labels = np.full(105, -1)
    labels[100:102] = 1, 0
    options = {"startprob_init": [0.5, 0.5, 0], "transmat_init": [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]]}
    model = HMM(truth.family_, 3, max_iter=5, tol=0, **options)
    alone = unchecked(clone(model), X, labels=labels[:100])
    both = unchecked(model, np.concatenate([X, more]), lengths=[100, 5], sample_weight=[1, 0], labels=labels)
    assert_allclose(both.history_, alone.history_, rtol=1e-13)
    assert_allclose(both.transmat_, alone.transmat_, rtol=1e-11)
    with pytest.raises(ValueError, match="row 101 is impossible"):
        unchecked(model, np.concatenate([X, more]), lengths=[100, 5], labels=labels)
    with pytest.raises(ValueError, match="minimum of 2"):
        model.fit(X[:6], lengths=[1, 5], sample_weight=[1, 0])
    family = Bernoulli(probabilities=[[0.0], [0.0]])
    certain = HMM.from_parameters([0.5, 0.5], np.full((2, 2), 0.5), family)
    assert certain.score([[0.0], [1.0]], lengths=[1, 1], sample_weight=[1, 0]) == pytest.approx(0)
    assert certain.score([[0.0], [1.0]], lengths=[1, 1]) == -inf


def test_the_stationary_distribution():
    model = model_of("full")
    pi = model.stationary_distribution_
    assert_allclose(pi @ A, pi, rtol=1e-14)
    assert_allclose(np.linalg.matrix_power(A, 200)[0], pi, rtol=1e-12)
    two = HMM.from_parameters([0.5, 0.5], np.eye(2), Poisson(rates=[[1.0], [2.0]]))
    with pytest.raises(ValueError, match="no unique stationary distribution"):
        two.stationary_distribution_  # noqa: B018


def test_more_paths_than_there_are():
    model = model_of("diag")
    X, _ = model.sample(4, 0)
    some, all_paths = model.k_best(X, 5), model.k_best(X, 3_000_000)
    np.testing.assert_array_equal(all_paths.log_prob[:5], some.log_prob)
    count = model.n_components**4
    assert len({tuple(path) for path in all_paths.path[:count]}) == count
    assert np.isneginf(all_paths.log_prob[count:]).all()
    assert (all_paths.path[count:] == -1).all()
    assert sum(np.exp(all_paths.log_prob[:count])) == pytest.approx(np.exp(model.log_prob(X)[0]), rel=1e-12)


@njit
def sometimes_nan(x, mean):
    return np.nan if x[0] == 7.0 else -0.5 * (x[0] - mean) ** 2


@pytest.mark.parametrize("transmat", [[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.0, 1.0]]])
def test_a_density_that_is_not_a_number(transmat):
    family = Custom(sometimes_nan, {"mean": Parameter()}, values={"mean": [0.0, 1.0]})
    model = HMM.from_parameters([0.5, 0.5], transmat, family)
    X = np.zeros((90, 1))
    X[41] = 7.0
    for method in (model.log_prob, model.predict_proba, model.decode):
        with pytest.raises(ValueError, match="nan for row 41"):
            method(X)
