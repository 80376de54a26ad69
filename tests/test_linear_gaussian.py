"""Linear-Gaussian networks against the joint Gaussian, least squares and textbook numbers."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastgen import Gaussian
from fastgen.graphical import NetworkError
from fastgen.graphical.linear_gaussian import LinearGaussianNetwork

nan = np.nan
FALSE_ALARMS = 1e-4  # for each statistical test

# Koller and Friedman, example 7.3: X1 -> X2 -> X3
CHAIN = {("x1", "x2"): 0.5, ("x2", "x3"): -1.0}
INTERCEPTS = {"x1": 1.0, "x2": -3.5, "x3": 1.0}
VARIANCES = {"x1": 4.0, "x2": 4.0, "x3": 3.0}


@parametrize_with_checks([LinearGaussianNetwork(), LinearGaussianNetwork(reg_covar=1e-3)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def random_network(seed, d=6, density=0.5):
    """A random network whose columns are in no topological order, and its joint moments by another way."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(d)
    W = np.zeros((d, d))
    for k in range(d):
        for j in order[:k]:
            if rng.random() < density:
                W[order[k], j] = rng.normal()
    b, v = rng.normal(size=d), rng.uniform(0.2, 2, d)
    model = LinearGaussianNetwork.from_parameters({(int(j), int(i)): W[i, j] for i, j in np.argwhere(W)}, b, v)
    A = np.linalg.inv(np.eye(d) - W)
    return model, A @ b, A @ np.diag(v) @ A.T


def holes(X, share, seed=0):
    """Some cells missing, with a pattern of its own in nearly every row."""
    Y = np.array(X)
    Y[np.random.default_rng(seed).random(Y.shape) < share] = nan
    return Y


def conditional(mean, covariance, observed, values):
    rest = np.setdiff1d(np.arange(len(mean)), observed)
    K = covariance[np.ix_(rest, observed)] @ np.linalg.inv(covariance[np.ix_(observed, observed)])
    inner = covariance[np.ix_(rest, rest)] - K @ covariance[np.ix_(observed, rest)]
    return rest, mean[rest] + K @ (values - mean[observed]), inner


def check_draws(X, mean, covariance):
    """Three chi-square tests: the mean, the scale, and the correlations of what must be independent."""
    n, d = X.shape
    Z = np.linalg.solve(np.linalg.cholesky(covariance), (X - mean).T)
    assert stats.chi2.sf(n * (Z.mean(axis=1) ** 2).sum(), d) > FALSE_ALARMS
    p = stats.chi2.sf((Z**2).sum(), n * d)
    assert FALSE_ALARMS / 2 < p < 1 - FALSE_ALARMS / 2
    correlations = np.corrcoef(Z)[np.triu_indices(d, 1)] if d > 1 else np.zeros(0)
    assert stats.chi2.sf(n * (correlations**2).sum(), max(1, len(correlations))) > FALSE_ALARMS


# ---- parameters ----------------------------------------------------------------------------------------------------


def test_textbook():
    model = LinearGaussianNetwork.from_parameters(CHAIN, INTERCEPTS, VARIANCES)
    np.testing.assert_allclose(model.mean_, [1, -3, 4])
    np.testing.assert_allclose(model.covariance_, [[4, 2, -2], [2, 5, -5], [-2, -5, 8]])
    printed = [[0.3125, -0.125, 0], [-0.125, 0.5833, 0.3333], [0, 0.3333, 0.3333]]
    np.testing.assert_allclose(model.precision_, printed, atol=5e-5)
    assert model.edges_ == [("x1", "x2"), ("x2", "x3")]
    assert model.coefficients_ == CHAIN
    assert model.d_separated("x1", "x3", ["x2"])
    assert not model.d_separated("x1", "x3")
    assert model.markov_blanket("x2") == ["x1", "x3"]
    assert model.n_parameters_ == 8


@pytest.mark.parametrize("seed", range(6))
def test_joint_moments(seed):
    model, mean, covariance = random_network(seed)
    np.testing.assert_allclose(model.mean_, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.covariance_, covariance, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(model.precision_ @ covariance, np.eye(6), atol=1e-9)
    joint = model.gaussian()
    assert isinstance(joint, Gaussian)
    np.testing.assert_allclose(joint.covariance_, covariance, rtol=1e-11, atol=1e-11)
    again = LinearGaussianNetwork.from_parameters(model.coefficients_, model.intercepts_, model.variances_)
    np.testing.assert_array_equal(again.covariance_, model.covariance_)


@pytest.mark.parametrize("seed", range(4))
def test_log_prob(seed):
    model, mean, covariance = random_network(seed)
    X = np.random.default_rng(seed).normal(size=(50, 6)) * 2
    expected = stats.multivariate_normal(mean, covariance).logpdf(X)
    np.testing.assert_allclose(model.log_prob(X), expected, rtol=1e-10)
    np.testing.assert_array_equal(model.score_samples(X), model.log_prob(X))
    assert model.score(X) == pytest.approx(expected.mean())
    assert model.aic(X) == pytest.approx(-2 * expected.sum() + 2 * model.n_parameters_)
    assert model.bic(X) == pytest.approx(-2 * expected.sum() + np.log(50) * model.n_parameters_)
    single = model.log_prob(X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_missing_cells_are_marginalised(seed):
    model, mean, covariance = random_network(seed)
    X = holes(model.sample(60, seed), 0.4, seed)
    X[0] = nan
    log_prob, filled = model.log_prob(X), model.impute(X)
    for row, value, full in zip(X, log_prob, filled, strict=True):
        o = np.flatnonzero(~np.isnan(row))
        expected = stats.multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(row[o]) if len(o) else 0.0
        assert value == pytest.approx(expected, rel=1e-10, abs=1e-12)
        rest, centre, _ = conditional(mean, covariance, o, row[o])
        np.testing.assert_allclose(full[rest], centre, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(full[o], row[o])
    np.testing.assert_array_equal(model.predict(X), filled)
    np.testing.assert_array_equal(model.predict(X, targets=[3, 0]), filled[:, [3, 0]])


@pytest.mark.parametrize("seed", range(4))
def test_condition_and_marginal(seed):
    model, mean, covariance = random_network(seed)
    rest, centre, inner = conditional(mean, covariance, [4, 1], [0.5, -2.0])
    given = model.condition({4: 0.5, 1: -2.0})
    np.testing.assert_allclose(given.mean_, centre, rtol=1e-9)
    np.testing.assert_allclose(given.covariance_, inner, rtol=1e-9, atol=1e-9)
    some_mean, some = model.moments([rest[2], rest[0]], {4: 0.5, 1: -2.0})
    np.testing.assert_allclose(some_mean, centre[[2, 0]], rtol=1e-9)
    np.testing.assert_allclose(some, inner[np.ix_([2, 0], [2, 0])], rtol=1e-9, atol=1e-9)
    part = model.marginal([5, 2])
    np.testing.assert_allclose(part.mean_, mean[[5, 2]])
    np.testing.assert_allclose(part.covariance_, covariance[np.ix_([5, 2], [5, 2])], rtol=1e-10)


def test_results_have_names():
    model = LinearGaussianNetwork.from_parameters(CHAIN, INTERCEPTS, VARIANCES)
    assert model.condition({"x2": 0.0}).feature_names_in_.tolist() == ["x1", "x3"]
    assert model.marginal("x3").feature_names_in_.tolist() == ["x3"]
    assert model.marginal(["x3", "x1"]).feature_names_in_.tolist() == ["x3", "x1"]
    frame = pd.DataFrame([[1.0, 2.0, nan]], columns=["x3", "x1", "x2"])
    np.testing.assert_array_equal(model.log_prob(frame), model.log_prob([[2.0, nan, 1.0]]))
    np.testing.assert_array_equal(model.log_prob(pl.from_pandas(frame)), model.log_prob([[2.0, nan, 1.0]]))
    with pytest.raises(ValueError, match="columns"):
        model.log_prob(frame[["x1", "x2"]])


def test_separation_is_independence():
    """With coefficients that are no accident, two variables are independent given others where the graph says so."""
    rng = np.random.default_rng(0)
    counts = [0, 0]
    for seed in range(60):
        model = random_network(seed, 6, 0.35)[0]
        x, y, *others = rng.permutation(6).tolist()
        given = others[: rng.integers(0, 4)]
        C = model.moments([x, y], dict.fromkeys(given, 0.0))[1]
        separated = model.d_separated(x, y, given)
        counts[separated] += 1
        assert (abs(C[0, 1]) < 1e-12 * np.sqrt(C[0, 0] * C[1, 1])) == separated
    assert min(counts) > 10


def test_names_that_are_numbers_in_another_order():
    """Variable 1 comes first: it is not taken for the one in place 1."""
    model = LinearGaussianNetwork.from_parameters({(1, 0): 2.0}, {1: 5.0, 0: 0.0}, {1: 4.0, 0: 1.0}, names=(1, 0))
    assert model.marginal(1).mean_ == 5.0
    np.testing.assert_array_equal(model.marginal([0, 1]).mean_, [10.0, 5.0])
    np.testing.assert_array_equal(model.gaussian().mean_, model.mean_)


def test_arcs_from_an_iterator_last(rng):
    X = rng.normal(size=(20, 2))
    model = LinearGaussianNetwork(zip([0], [1], strict=True))
    assert model.fit(X).edges_ == model.fit(X).edges_ == [(0, 1)]
    assert clone(model).fit(X).edges_ == [(0, 1)]
    model.set_params(edges=iter([(0, 1)]))
    with pytest.raises(ValueError, match="edges is an iterator"):
        model.fit(X)
    assert model.edges_ == [(0, 1)]


def test_plot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    model = LinearGaussianNetwork.from_parameters(CHAIN, INTERCEPTS, VARIANCES)
    ax = model.plot(layout="layers", labels={(0, 1): 0.5})
    assert [t.get_text() for t in ax.texts if t.get_text()] == ["x1", "x2", "x3", "0.5"]
    ax.figure.canvas.draw()


# ---- draws ---------------------------------------------------------------------------------------------------------


def test_draws():
    model, mean, covariance = random_network(1)
    check_draws(model.sample(30_000, 7), mean, covariance)
    rest, centre, inner = conditional(mean, covariance, [0, 3], [1.0, -3.0])
    X = model.sample(30_000, 8, evidence={0: 1.0, 3: -3.0})
    np.testing.assert_array_equal(X[:, [0, 3]], [[1.0, -3.0]] * 30_000)
    check_draws(X[:, rest], centre, inner)
    row = np.array([1.0, nan, nan, -3.0, nan, nan])
    check_draws(model.impute(np.tile(row, (30_000, 1)), "sample", 9)[:, rest], centre, inner)
    assert np.array_equal(model.sample(5, 3), model.sample(5, np.random.default_rng(3)))
    assert model.sample(2, np.random.RandomState(0)).shape == (2, 6)
    assert model.sample(0).shape == (0, 6)
    np.testing.assert_array_equal(model.sample(3, evidence=dict(enumerate(mean))), [mean] * 3)


# ---- fit -----------------------------------------------------------------------------------------------------------


def least_squares(X, parents, weights=None):
    """Coefficients and variances, by an orthogonal decomposition of centred data."""
    w = np.ones(len(X)) if weights is None else weights
    C = (X - np.average(X, axis=0, weights=w)) * np.sqrt(w)[:, None]
    slopes, variances = [], []
    for i, some in enumerate(parents):
        s = np.linalg.lstsq(C[:, list(some)], C[:, i])[0] if some else np.zeros(0)
        slopes.append(s)
        variances.append(((C[:, i] - C[:, list(some)] @ s) ** 2).sum() / w.sum())
    return slopes, np.array(variances)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_is_least_squares(seed, weighted):
    model, _, _ = random_network(seed)
    X = model.sample(300, seed)
    weights = np.random.default_rng(seed).integers(0, 4, 300).astype(float) if weighted else None
    fitted = LinearGaussianNetwork(model.edges_).fit(X, sample_weight=weights)
    slopes, variances = least_squares(X, fitted.parents_, weights)
    np.testing.assert_allclose(list(fitted.coefficients_.values()), np.concatenate(slopes), rtol=1e-10)
    np.testing.assert_allclose(fitted.variances_, variances, rtol=1e-10)
    np.testing.assert_allclose(fitted.mean_, np.average(X, axis=0, weights=weights), rtol=1e-10)
    assert fitted.stop_reason_ == "closed form"
    assert fitted.history_.size == 0
    if weighted:
        doubled = LinearGaussianNetwork(model.edges_).fit(np.repeat(X, weights.astype(int), axis=0))
        np.testing.assert_allclose(doubled.covariance_, fitted.covariance_, rtol=1e-10)


def test_fit_recovers():
    model, _, covariance = random_network(3)
    fitted = LinearGaussianNetwork(model.edges_).fit(model.sample(200_000, 0))
    true, found = np.array(list(model.coefficients_.values())), np.array(list(fitted.coefficients_.values()))
    np.testing.assert_allclose(found, true, atol=0.03)
    np.testing.assert_allclose(fitted.covariance_, covariance, rtol=0.05, atol=0.1)


def test_full_graph_is_a_gaussian():
    X = random_network(0)[0].sample(100, 0)
    fitted = LinearGaussianNetwork([(i, j) for j in range(6) for i in range(j)]).fit(X)
    gaussian = Gaussian().fit(X)
    np.testing.assert_allclose(fitted.covariance_, gaussian.covariance_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fitted.log_prob(X), gaussian.log_prob(X), rtol=1e-9)


def test_no_edges():
    X = np.random.default_rng(0).normal(size=(40, 3)) * [1, 10, 100]
    fitted = LinearGaussianNetwork().fit(X)
    np.testing.assert_allclose(fitted.covariance_, np.diag(X.var(axis=0)), rtol=1e-12)
    assert fitted.edges_ == []
    assert fitted.coefficients_ == {}
    one = LinearGaussianNetwork([]).fit(X[:, :1])
    np.testing.assert_allclose(one.log_prob(X[:, :1]), stats.norm(X[:, 0].mean(), X[:, 0].std()).logpdf(X[:, 0]))
    assert one.sample(3, 0).shape == (3, 1)


EDGES = [(2, 0), (0, 1), (2, 1), (1, 3)]


def grid_data(n=500):
    """Multiples of 2^-10, so that shifts are exact."""
    rng = np.random.default_rng(0)
    c = rng.normal(size=n)
    a = c + rng.normal(size=n)
    b = a - 2 * c + 0.1 * rng.normal(size=n)
    return np.round(1024 * np.column_stack([a, b, c, b + rng.normal(size=n)])) / 1024


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_invariances(missing):
    X = holes(grid_data(), missing)
    model = LinearGaussianNetwork(EDGES, tol=1e-13).fit(X)
    found = np.array(list(model.coefficients_.values()))
    shift = np.array([2.0**27, -(2.0**27), 2.0**26, 0])
    moved = LinearGaussianNetwork(EDGES, tol=1e-13).fit(X + shift)
    tight, loose = (1e-11, 1e-11) if not missing else (1e-6, 1e-6)  # EM stops by the gain
    np.testing.assert_allclose(list(moved.coefficients_.values()), found, rtol=tight)
    np.testing.assert_allclose(moved.variances_, model.variances_, rtol=tight)
    np.testing.assert_allclose(moved.mean_ - shift, model.mean_, atol=3e-8)  # an ulp of 2^27
    np.testing.assert_allclose(moved.log_prob(X + shift), model.log_prob(X), rtol=1e-5, atol=1e-6)
    scale = np.array([1e-6, 1e6, 1.0, 1e3])
    scaled = LinearGaussianNetwork(EDGES, tol=1e-13).fit(X * scale)
    np.testing.assert_allclose(
        [w * scale[p] / scale[c] for (p, c), w in scaled.coefficients_.items()], found, rtol=loose
    )
    np.testing.assert_allclose(scaled.variances_ / scale**2, model.variances_, rtol=loose)
    columns = np.array([3, 1, 0, 2])  # new column k is old column columns[k]
    place = np.argsort(columns)
    other = LinearGaussianNetwork([(int(place[p]), int(place[c])) for p, c in EDGES], tol=1e-13).fit(X[:, columns])
    np.testing.assert_allclose(other.covariance_[np.ix_(place, place)], model.covariance_, rtol=loose, atol=loose)


def test_nearly_collinear_parents():
    """Corrected by residuals: the normal equations alone lose four more digits here."""
    rng = np.random.default_rng(1)
    n = 400
    a = rng.normal(size=n)
    b = a + 1e-6 * rng.normal(size=n)
    X = np.column_stack([a, b, a + b + 0.1 * rng.normal(size=n)])
    fitted = LinearGaussianNetwork([(0, 1), (0, 2), (1, 2)]).fit(X)
    slopes, variances = least_squares(X, fitted.parents_)
    np.testing.assert_allclose(list(fitted.coefficients_.values()), np.concatenate(slopes), rtol=1e-8)
    np.testing.assert_allclose(fitted.variances_, variances, rtol=1e-8)
    C = X - X.mean(axis=0)
    normal = np.linalg.solve(C[:, :2].T @ C[:, :2], C[:, :2].T @ C[:, 2])
    assert np.abs(normal / slopes[2] - 1).max() > 1e-7


def test_small_residuals():
    """A residual variance of 1e-20 of the variance is found where the cross-products have lost it."""
    rng = np.random.default_rng(2)
    a = np.round(rng.normal(size=300) * 2**20) / 2**20
    e = np.round(rng.normal(size=300) * 2**10) / 2**44
    fitted = LinearGaussianNetwork([(0, 1)]).fit(np.column_stack([a, 2 * a + e]))
    slope = np.cov(a, e)[0, 1] / np.var(a, ddof=1)
    assert fitted.variances_[1] == pytest.approx(np.var(e - slope * a), rel=1e-3)
    assert fitted.variances_[1] < 1e-19


# ---- missing values ------------------------------------------------------------------------------------------------


def test_em_of_a_full_graph_is_that_of_a_gaussian():
    X = holes(random_network(0)[0].sample(200, 0), 0.25)
    fitted = LinearGaussianNetwork([(i, j) for j in range(6) for i in range(j)], tol=1e-12).fit(X)
    gaussian = Gaussian(tol=1e-12).fit(X)
    np.testing.assert_allclose(fitted.mean_, gaussian.mean_, atol=1e-4)
    np.testing.assert_allclose(fitted.covariance_, gaussian.covariance_, atol=1e-3)
    assert fitted.history_[-1] == pytest.approx(gaussian.history_[-1], abs=1e-9)


@pytest.mark.parametrize("reg_covar", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_em(reg_covar, weighted):
    truth = random_network(2)[0]
    X = holes(truth.sample(150, 1), 0.3)
    X[3] = nan
    weights = np.random.default_rng(0).integers(0, 3, 150).astype(float) if weighted else None
    model = LinearGaussianNetwork(truth.edges_, reg_covar=reg_covar, tol=1e-13).fit(X, sample_weight=weights)
    assert model.stop_reason_ == "converged"
    assert np.diff(model.history_).min() > -1e-12

    w = np.ones(150) if weights is None else weights
    share = 1 - w[3] / w.sum()

    def objective(m):
        return m.score(X, sample_weight=weights) - 0.5 * share * reg_covar * (1 / m.variances_).sum()

    best = objective(model)
    assert model.history_[-1] == pytest.approx(best, abs=1e-9)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2):  # no point near it is better
        for _ in range(20):
            w = {arc: v + size * rng.normal() for arc, v in model.coefficients_.items()}
            b, v = (p * (1 + size * rng.normal(size=6)) for p in (model.intercepts_, model.variances_))
            assert objective(LinearGaussianNetwork.from_parameters(w, b, v)) < best
    if weighted:
        repeated = LinearGaussianNetwork(truth.edges_, reg_covar=reg_covar, tol=1e-13)
        repeated.fit(np.repeat(X, weights.astype(int), axis=0))
        np.testing.assert_allclose(repeated.covariance_, model.covariance_, rtol=1e-5, atol=1e-5)


def test_em_of_complete_data_is_the_closed_form():
    X = grid_data()
    padded = np.concatenate([X, np.full((7, 4), nan)])  # rows that say nothing
    closed, em = LinearGaussianNetwork(EDGES).fit(X), LinearGaussianNetwork(EDGES, tol=1e-14).fit(padded)
    assert em.history_.size > 1
    np.testing.assert_allclose(em.covariance_, closed.covariance_, rtol=1e-7)
    np.testing.assert_allclose(em.mean_, closed.mean_, rtol=1e-7)


def test_em_must_converge():
    with pytest.warns(UserWarning, match="did not converge"):
        LinearGaussianNetwork(EDGES, max_iter=1).fit(holes(grid_data(), 0.3))


def test_float32_and_layouts():
    X = grid_data()
    model = LinearGaussianNetwork(EDGES).fit(X)
    frozen = X.copy()
    frozen.flags.writeable = False
    for data in (frozen, np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X[::-1][::-1], X.tolist()):
        np.testing.assert_array_equal(LinearGaussianNetwork(EDGES).fit(data).covariance_, model.covariance_)
        np.testing.assert_array_equal(model.log_prob(data), model.log_prob(X))
    np.testing.assert_array_equal(LinearGaussianNetwork(np.array(EDGES)).fit(X).covariance_, model.covariance_)
    single = LinearGaussianNetwork(EDGES).fit(X.astype(np.float32))
    np.testing.assert_allclose(single.covariance_, model.covariance_, rtol=1e-6)
    assert model.impute(holes(X, 0.1).astype(np.float32)).dtype == np.float32


def test_data_frames():
    X = grid_data()
    edges = [("c", "a"), ("a", "b"), ("c", "b"), ("b", "d")]
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = LinearGaussianNetwork(edges).fit(frame)
    plain = LinearGaussianNetwork(EDGES).fit(X)
    assert model.names_ == tuple("abcd")
    assert set(model.edges_) == set(edges)
    np.testing.assert_array_equal(model.covariance_, plain.covariance_)
    np.testing.assert_array_equal(
        LinearGaussianNetwork(edges).fit(pl.from_pandas(frame)).covariance_, plain.covariance_
    )
    np.testing.assert_array_equal(LinearGaussianNetwork(edges, names="abcd").fit(X).covariance_, plain.covariance_)
    np.testing.assert_array_equal(LinearGaussianNetwork(EDGES).fit(frame).covariance_, plain.covariance_)
    assert model.condition({"c": 1.0}).feature_names_in_.tolist() == ["a", "b", "d"]
    np.testing.assert_array_equal(model.log_prob(frame), plain.log_prob(X))
    with pytest.raises(ValueError, match="names are"):
        LinearGaussianNetwork(edges, names="abdc").fit(frame)
    with pytest.raises(ValueError, match="4 different"):
        LinearGaussianNetwork(names="abc").fit(X)


def test_pickle_and_clone():
    X = holes(grid_data(), 0.1)
    model = LinearGaussianNetwork(EDGES).fit(X)
    model.log_prob(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.log_prob(X), model.log_prob(X))
    model.edges = EDGES[:1]
    model.fit(X)  # nothing of the fit before is left
    assert model.edges_ == [(2, 0)]
    np.testing.assert_array_equal(model.log_prob(X), clone(model).fit(X).log_prob(X))


# ---- deterministic variables ---------------------------------------------------------------------------------------


@pytest.fixture
def sums():
    """c = a + b exactly; d is c with noise."""
    return LinearGaussianNetwork.from_parameters(
        {("a", "c"): 1.0, ("b", "c"): 1.0, ("c", "d"): 2.0},
        {"a": 1.0, "b": 0.0, "c": 10.0, "d": 0.0},
        {"a": 1.0, "b": 4.0, "c": 0.0, "d": 1.0},
    )


def test_deterministic_variables(sums):
    X = sums.sample(1000, 0)
    np.testing.assert_allclose(X[:, 0] + X[:, 1] + 10, X[:, 2], rtol=1e-12)
    mean, covariance = sums.moments(None, {"c": 16.0})
    np.testing.assert_allclose(mean, [2.0, 4.0, 32.0])  # the surplus of 5, shared as the variances are
    np.testing.assert_allclose(covariance, [[0.8, -0.8, 0], [-0.8, 0.8, 0], [0, 0, 1]], atol=1e-12)
    mean, covariance = sums.moments(["c"], {"a": 1.0, "b": 2.0})
    np.testing.assert_allclose(mean, [13.0])
    np.testing.assert_allclose(covariance, [[0.0]], atol=1e-12)
    mean, _ = sums.moments(["d"], {"a": 1.0, "b": 2.0, "c": 13.0})
    np.testing.assert_allclose(mean, [26.0])
    filled = sums.impute([[1.0, nan, 13.0, nan], [nan, 0.5, nan, 3.0]])
    np.testing.assert_allclose(filled[0], [1, 2, 13, 26])
    assert filled[1, 2] == pytest.approx(filled[1, 0] + 10.5)
    drawn = sums.sample(200, 1, evidence={"c": 16.0})
    np.testing.assert_allclose(drawn[:, 0] + drawn[:, 1], 6.0)
    np.testing.assert_allclose(drawn[:, 2], 16.0)
    np.testing.assert_allclose(sums.marginal(["a", "d"]).covariance_, [[1, 2], [2, 21]])
    np.testing.assert_allclose(sums.condition({"a": 1.0, "b": 2.0, "c": 13.0}).mean_, [26.0])


def test_deterministic_variables_have_no_density(sums):
    calls = [
        lambda: sums.log_prob(np.zeros((1, 4))),
        lambda: sums.aic(np.zeros((1, 4))),
        lambda: sums.precision_,
        lambda: sums.gaussian(),
        lambda: sums.marginal(["a", "b", "c"]),
        lambda: sums.condition({"c": 1.0}),
    ]
    for call in calls:
        with pytest.raises(NetworkError, match="deterministic"):
            call()
    for call in (
        lambda: sums.moments(["d"], {"a": 1.0, "b": 2.0, "c": 13.1}),
        lambda: sums.sample(1, evidence={"a": 1.0, "b": 2.0, "c": 13.1}),
        lambda: sums.impute([[1.0, 2.0, 13.1, nan]]),
    ):
        with pytest.raises(ValueError, match="impossible"):
            call()


def test_constants():
    model = LinearGaussianNetwork.from_parameters({(0, 1): 1.0}, [5.0, 0.0], [0.0, 1.0])
    np.testing.assert_allclose(model.moments([1], {0: 5.0})[0], [5.0])
    with pytest.raises(ValueError, match="impossible"):
        model.moments([1], {0: 6.0})


def test_fit_refuses_deterministic_variables():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2)) + 1e6
    X = np.column_stack([X, X @ [1.0, -3.0]])
    edges = [("a", "c"), ("b", "c")]
    with pytest.raises(NetworkError, match=r"'c' follows exactly from its parents \['a', 'b'\]"):
        LinearGaussianNetwork(edges, names="abc").fit(X)
    with pytest.raises(NetworkError, match="'c' follows exactly"):
        LinearGaussianNetwork(edges, names="abc").fit(np.r_[X, np.full((1, 3), nan)])
    LinearGaussianNetwork(edges, names="abc").fit(X + 1e-6 * rng.normal(size=X.shape))
    kept = LinearGaussianNetwork(edges, names="abc", reg_covar=1e-6).fit(X)
    assert kept.variances_[2] == pytest.approx(1e-6)
    assert kept.coefficients_["b", "c"] == pytest.approx(-3)
    X[:, 1] = 7.0
    with pytest.raises(NetworkError, match="'b' is constant"):
        LinearGaussianNetwork(names="abc").fit(X)
    with pytest.raises(NetworkError, match="2 rows"):
        LinearGaussianNetwork([(0, 1)]).fit(rng.normal(size=(2, 2)))
    with pytest.raises(NetworkError, match="1 sample"):
        LinearGaussianNetwork().fit([[1.0, 2.0]])


def test_fit_refuses_dependent_parents():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30))
    with pytest.raises(NetworkError, match=r"parents of 'd' are linearly dependent.*'c' follows from"):
        LinearGaussianNetwork([("a", "d"), ("b", "d"), ("c", "d")], names="abcd").fit(
            np.column_stack([a, b, a - b, rng.normal(size=30)])
        )
    with pytest.raises(NetworkError, match="'a' is constant"):
        LinearGaussianNetwork([("a", "b")], names="ab", reg_covar=1.0).fit(np.column_stack([np.full(30, 1e8), b]))
    with pytest.raises(NetworkError, match="linearly dependent"):
        LinearGaussianNetwork([(0, 3), (1, 3), (2, 3)], reg_covar=1.0).fit(rng.normal(size=(3, 4)))


# ---- errors --------------------------------------------------------------------------------------------------------


def test_wrong_graphs():
    X = grid_data(20)
    for edges, text in [
        ([(0, 1), (1, 2), (2, 0)], "cycle: 0 -> 1 -> 2 -> 0"),
        ([(0, 0)], "cycle"),
        ([(0, 1), (0, 1)], "twice"),
        ([("a", 1)], "no variable 'a'"),
        ([(0, 4)], "no variable 4"),
        ([(0, True)], "no variable True"),
        ([(0, 1, 2)], "pairs"),
        ([3], "pairs"),
    ]:
        with pytest.raises(NetworkError, match=text):
            LinearGaussianNetwork(edges).fit(X)


def test_wrong_data():
    X = grid_data(20)
    model = LinearGaussianNetwork(EDGES).fit(X)
    before = dict(model.__dict__)
    bad = X.copy()
    bad[3, 2] = np.inf
    for call in (model.fit, model.log_prob, model.impute):
        with pytest.raises(ValueError, match=r"infinity .*row 3, column 2"):
            call(bad)
    assert model.__dict__.keys() - {"_family"} == before.keys()
    empty = X.copy()
    empty[:, 1] = nan
    with pytest.raises(ValueError, match="column 1 has no observed value"):
        LinearGaussianNetwork().fit(empty)
    for weights in ([1.0], np.full(20, -1.0), np.zeros(20)):
        with pytest.raises(ValueError, match="sample_weight"):
            LinearGaussianNetwork().fit(X, sample_weight=weights)
    with pytest.raises(ValueError, match="reg_covar"):
        LinearGaussianNetwork(reg_covar=-1).fit(X)
    with pytest.raises(ValueError, match="overflow"):
        LinearGaussianNetwork().fit(X * 1e200)
    with pytest.raises(ValueError, match="features"):
        model.log_prob(X[:, :2])


def test_wrong_questions():
    model = LinearGaussianNetwork.from_parameters(CHAIN, INTERCEPTS, VARIANCES)
    for call, text in [
        (lambda: model.condition({"x9": 1.0}), "no variable 'x9'"),
        (lambda: model.condition({"x1": nan}), "finite"),
        (lambda: model.condition({"x1": [1.0, 2.0]}), "shape"),
        (lambda: model.condition({"x1": 1.0, "x2": 1.0, "x3": 0.0}), "no variable is left"),
        (lambda: model.condition({"x1": 1.0, 0: 1.0}), "distinct"),
        (lambda: model.marginal([]), "no variable is left"),
        (lambda: model.marginal([True, False, True]), "no variable True"),
        (lambda: model.moments(["x1"], {"x1": 0.0}), "asked for and given"),
        (lambda: model.impute([[0.0, 0.0, 0.0]], "mode"), "method"),
    ]:
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(ValueError, match="at least one"):
        LinearGaussianNetwork.from_parameters({}, {}, {})
    for changed, text in [
        ({"variances": {"x1": 1.0}}, "no variable 'x2'|intercepts must be given"),
        ({"variances": VARIANCES | {"x2": -1.0}}, "negative.*'x2'"),
        ({"variances": VARIANCES | {"x2": np.inf}}, "finite"),
        ({"intercepts": [0.0, 1.0]}, "shape"),
        ({"coefficients": {("x1", "x2"): nan}}, "finite"),
        ({"coefficients": {("x1", "x2"): 1.0, ("x2", "x1"): 1.0}}, "cycle"),
        ({"names": ["x1", "x1", "x3"]}, "distinct|must be given"),
        ({"coefficients": {("x1", "x2"): 1e200}}, "overflow"),
    ]:
        parameters = {"coefficients": CHAIN, "intercepts": INTERCEPTS, "variances": VARIANCES} | changed
        with pytest.raises(ValueError, match=text):
            LinearGaussianNetwork.from_parameters(**parameters)


def test_import_is_light():
    code = "import sys, fastgen.graphical.linear_gaussian; assert not {'numba', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
