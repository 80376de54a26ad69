"""Gaussian Markov random fields against the dense Gaussian and scikit-learn's graphical lasso."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.covariance import GraphicalLasso, GraphicalLassoCV
from sklearn.datasets import make_sparse_spd_matrix
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastgen import Gaussian
from fastgen.errors import SingularCovarianceError
from fastgen.graphical.gaussian_markov import GaussianMarkovRandomField

nan = np.nan
FALSE_ALARMS = 1e-4  # for each statistical test


@parametrize_with_checks([GaussianMarkovRandomField(), GaussianMarkovRandomField(0.01, standardize=False)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def grid(m, n, extra=0.1):
    """Precision of a grid: the Laplacian, and something on the diagonal."""
    path = [
        sparse.diags_array([-np.ones(k - 1), np.r_[1.0, np.full(k - 2, 2.0), 1.0], -np.ones(k - 1)], offsets=[-1, 0, 1])
        for k in (m, n)
    ]
    laplacian = sparse.kron(path[0], sparse.eye_array(n)) + sparse.kron(sparse.eye_array(m), path[1])
    return sparse.csc_array(laplacian + extra * sparse.eye_array(m * n))


def random_precision(seed, d=12, density=0.25):
    rng = np.random.default_rng(seed)
    A = np.where(rng.random((d, d)) < density, rng.normal(size=(d, d)), 0)
    A = np.tril(A, -1) + np.diag(rng.uniform(0.5, 2, d))
    scale = 10.0 ** rng.uniform(-3, 3, d)
    return (A @ A.T) * scale * scale[:, None]


@pytest.fixture(params=["random", "random sparse", "grid", "star", "one", "diagonal", "dense", "parts"])
def field(request):
    """A field and its dense moments."""
    rng = np.random.default_rng(5)
    star = np.eye(30) * 2
    star[0, 1:] = star[1:, 0] = 0.25
    star[0, 0] = 3
    Q = {
        "random": random_precision(0),
        "random sparse": sparse.csr_matrix(random_precision(1, 25, 0.05)),
        "grid": grid(6, 5),
        "star": star,
        "one": np.array([[4.0]]),
        "diagonal": np.diag([1.0, 2.0, 3.0]),
        "dense": np.linalg.inv(np.cov(rng.normal(size=(7, 40)))),
        "parts": sparse.block_diag([grid(3, 3), random_precision(2, 4)]).tocoo(),
    }[request.param]
    mean = rng.normal(size=Q.shape[0])
    dense = Q.toarray() if sparse.issparse(Q) else Q
    return GaussianMarkovRandomField.from_precision(Q, mean), mean, np.linalg.inv(dense), dense


def relative(covariance):
    """Tolerances in units of the standard deviations."""
    sd = np.sqrt(covariance.diagonal())
    return sd * sd[:, None]


def test_parameters(field):
    model, mean, covariance, Q = field
    np.testing.assert_array_equal(model.mean_, mean)
    np.testing.assert_allclose(model.precision_.toarray(), Q, rtol=1e-12)
    np.testing.assert_allclose(model.covariance_ / relative(covariance), covariance / relative(covariance), atol=1e-9)
    np.testing.assert_allclose(model.marginal_variances(), covariance.diagonal(), rtol=1e-9)
    assert model.edges_ == [(i, j) for i, j in np.argwhere(np.triu(Q, 1)).tolist()]
    partial = model.partial_correlations_.toarray()
    sd = np.sqrt(Q.diagonal())
    np.testing.assert_allclose(partial, -(Q / sd / sd[:, None] - np.eye(len(Q))), atol=1e-12)
    assert model.n_parameters_ == 2 * len(Q) + len(model.edges_)


def test_log_prob(field):
    model, mean, covariance, _ = field
    sd = np.sqrt(covariance.diagonal())
    X = mean + sd * np.random.default_rng(0).normal(size=(20, len(mean)))
    scaled = stats.multivariate_normal(np.zeros(len(sd)), covariance / relative(covariance), allow_singular=True)
    expected = scaled.logpdf((X - mean) / sd) - np.log(sd).sum()
    np.testing.assert_allclose(model.log_prob(X), expected, rtol=1e-9)
    single = model.log_prob(X.astype(np.float32))
    assert single.dtype == np.float32
    assert model.score(X) == pytest.approx(expected.mean())
    assert model.bic(X) == pytest.approx(-2 * expected.sum() + np.log(20) * model.n_parameters_)


def test_missing_cells_are_marginalised(field):
    model, mean, covariance, _ = field
    rng = np.random.default_rng(0)
    X = model.sample(15, 0)
    X[rng.random(X.shape) < 0.5] = nan
    X[0], X[1] = nan, mean
    log_prob, filled = model.log_prob(X), model.impute(X)
    sd = np.sqrt(covariance.diagonal())
    C = covariance / relative(covariance)
    for row, value, full in zip(X, log_prob, filled, strict=True):
        o, m = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        z = (row[o] - mean[o]) / sd[o]
        half = np.linalg.solve(np.linalg.cholesky(C[np.ix_(o, o)]), z)
        logs = np.log(np.linalg.cholesky(C[np.ix_(o, o)]).diagonal()).sum() + np.log(sd[o]).sum()
        assert value == pytest.approx(-0.5 * half @ half - logs - 0.5 * len(o) * np.log(2 * np.pi), rel=1e-8, abs=1e-9)
        centre = C[np.ix_(m, o)] @ np.linalg.solve(C[np.ix_(o, o)], z)
        np.testing.assert_allclose((full[m] - mean[m]) / sd[m], centre, atol=1e-7)
        np.testing.assert_array_equal(full[o], row[o])
    np.testing.assert_array_equal(model.predict(X, [0]), filled[:, [0]])


def test_condition_and_marginal(field):
    model, mean, covariance, Q = field
    d = len(mean)
    if d == 1:
        with pytest.raises(ValueError, match="no variable is left"):
            model.condition({0: 1.0})
        return
    given = {1: mean[1] + 0.5 * np.sqrt(covariance[1, 1])}
    rest = np.setdiff1d(np.arange(d), [1])
    model_given = model.condition(given)
    assert isinstance(model_given, GaussianMarkovRandomField)
    assert model_given.names_ == tuple(rest.tolist())
    expected = mean[rest] + covariance[rest, 1] / covariance[1, 1] * (given[1] - mean[1])
    sd = np.sqrt(covariance.diagonal()[rest])
    np.testing.assert_allclose((model_given.mean_ - expected) / sd, 0, atol=1e-9)
    np.testing.assert_allclose(model_given.precision_.toarray(), Q[np.ix_(rest, rest)], rtol=1e-12)
    again = model_given.condition({0: 0.0}) if d > 2 else None
    if again is not None:  # names stay those of the whole
        both = model.condition({0: 0.0} | given)
        np.testing.assert_allclose((again.mean_ - both.mean_) / sd[1:], 0, atol=1e-8)
        assert again.names_ == both.names_ == tuple(range(2, d))
    part = model.marginal([d - 1, 0])
    chosen = np.ix_([d - 1, 0], [d - 1, 0])
    np.testing.assert_allclose(
        part.covariance_ / relative(covariance)[chosen], (covariance / relative(covariance))[chosen], atol=1e-9
    )


def test_draws():
    model = GaussianMarkovRandomField.from_precision(grid(4, 3), np.arange(12.0))
    Q, n = model.precision_.toarray(), 20_000

    def check(X, mean, precision):
        Z = np.linalg.cholesky(precision).T @ (X - mean).T
        d = len(mean)
        assert stats.chi2.sf(n * (Z.mean(axis=1) ** 2).sum(), d) > FALSE_ALARMS
        p = stats.chi2.sf((Z**2).sum(), n * d)
        assert FALSE_ALARMS / 2 < p < 1 - FALSE_ALARMS / 2
        r = np.corrcoef(Z)[np.triu_indices(d, 1)]
        assert stats.chi2.sf(n * (r**2).sum(), len(r)) > FALSE_ALARMS

    check(model.sample(n, 0), model.mean_, Q)
    X = model.sample(n, 1, evidence={3: 10.0, 7: -5.0})
    np.testing.assert_array_equal(X[:, [3, 7]], [[10.0, -5.0]] * n)
    rest = np.setdiff1d(np.arange(12), [3, 7])
    given = model.condition({3: 10.0, 7: -5.0})
    check(X[:, rest], given.mean_, Q[np.ix_(rest, rest)])
    row = np.full(12, nan)
    row[[3, 7]] = 10.0, -5.0
    check(model.impute(np.tile(row, (n, 1)), "sample", 2)[:, rest], given.mean_, Q[np.ix_(rest, rest)])
    np.testing.assert_array_equal(model.sample(3, 5), model.sample(3, np.random.default_rng(5)))
    assert model.sample(0).shape == (0, 12)
    np.testing.assert_array_equal(model.sample(2, evidence=dict(enumerate(range(12)))), [np.arange(12.0)] * 2)


def test_graph():
    model = GaussianMarkovRandomField.from_precision(grid(2, 3), names="abcdef")  # abc / def
    assert model.edges_ == [("a", "b"), ("a", "d"), ("b", "c"), ("b", "e"), ("c", "f"), ("d", "e"), ("e", "f")]
    assert model.markov_blanket("b") == ["a", "c", "e"]
    assert model.separated("a", "c", ["b", "e"])
    assert not model.separated("a", ["c", "f"], ["b"])
    assert model.separated(["a", "d"], ["c", "f"], ["b", "e"])
    with pytest.raises(ValueError, match="disjoint"):
        model.separated("a", "b", "a")
    assert model.condition({"b": 1.0, "e": 0.0}).edges_ == [("a", "d"), ("c", "f")]
    assert len(model.plot(layout="layers").texts) == 6  # and no arrows
    assert model.marginal(["f", "a"]).feature_names_in_.tolist() == ["f", "a"]


def test_large_grid():
    m, n = 200, 200
    model = GaussianMarkovRandomField.from_precision(grid(m, n))
    # the discrete cosine transform diagonalises the Laplacian of a grid
    values = [2 - 2 * np.cos(np.pi * np.arange(k) / k) for k in (m, n)]
    spectrum = values[0][:, None] + values[1] + 0.1
    at_mean = 0.5 * np.log(spectrum).sum() - 0.5 * m * n * np.log(2 * np.pi)
    assert model.log_prob(np.zeros((1, m * n)))[0] == pytest.approx(at_mean, rel=1e-12)
    basis = [
        np.cos(np.pi * np.outer(np.arange(k) + 0.5, np.arange(k)) / k) * np.sqrt(np.where(np.arange(k), 2, 1) / k)
        for k in (m, n)
    ]
    variances = basis[0] ** 2 @ (1 / spectrum) @ (basis[1] ** 2).T
    np.testing.assert_allclose(model.marginal_variances(), variances.ravel(), rtol=1e-11)
    wave = (basis[0][:, 3][:, None] * basis[1][:, 5]).ravel()
    expected = at_mean - 0.5 * 49 * spectrum[3, 5]
    assert model.log_prob(7 * wave[None])[0] == pytest.approx(expected, rel=1e-12)
    X = model.sample(20, 0)
    q = np.einsum("ij,ij->", X, (model.precision_ @ X.T).T)
    p = stats.chi2.sf(q, 20 * m * n)
    assert FALSE_ALARMS / 2 < p < 1 - FALSE_ALARMS / 2
    with pytest.raises(ValueError, match="at most 5000"):
        _ = model.covariance_


def test_hard_fields():
    tiny = GaussianMarkovRandomField.from_precision(grid(10, 10, 1e-9))  # nearly an intrinsic field
    assert tiny.marginal_variances().mean() == pytest.approx(1e9 / 100, rel=1e-6)
    far = 1e3 + np.zeros((1, 100))
    base = tiny.log_prob(np.zeros((1, 100)))[0]
    assert tiny.log_prob(far)[0] - base == pytest.approx(-0.5 * 1e-9 * 1e6 * 100, rel=1e-5)
    moved = GaussianMarkovRandomField.from_precision(grid(5, 5), np.full(25, 2.0**30))
    X = np.round(1024 * moved.sample(4, 0)) / 1024
    same = GaussianMarkovRandomField.from_precision(grid(5, 5))
    np.testing.assert_array_equal(moved.log_prob(X), same.log_prob(X - 2.0**30))


def test_not_positive_definite():
    for Q in (
        grid(8, 8, 0.0),  # intrinsic
        grid(8, 8, -0.01),
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        np.diag([1.0, 0.0]),
        -np.eye(2),
        np.ones((3, 3)),
        np.diag([1.0, 1e-200, -1e-300]),
    ):
        with pytest.raises(SingularCovarianceError, match="precision is not positive definite"):
            GaussianMarkovRandomField.from_precision(Q)
    GaussianMarkovRandomField.from_precision(np.diag([1e-200, 1e200]))


def test_wrong_parameters():
    for Q, text in [
        (np.ones(3), "shape"),
        (np.ones((2, 3)), "shape"),
        (np.empty((0, 0)), "shape"),
        ([[1.0, 0.5], [0.4, 1.0]], "symmetric"),
        ([[1.0, nan], [nan, 1.0]], "finite"),
        (sparse.csr_array([[np.inf]]), "finite"),
    ]:
        with pytest.raises(ValueError, match=text):
            GaussianMarkovRandomField.from_precision(Q)
    with pytest.raises(TypeError, match="real"):
        GaussianMarkovRandomField.from_precision(sparse.eye_array(2, dtype=complex))
    for options, text in [
        ({"names": "a"}, "names must be 2"),
        ({"names": "aa"}, "names must be 2"),
        ({"mean": [1.0]}, "mean must have shape"),
        ({"mean": [1.0, nan]}, "finite"),
    ]:
        with pytest.raises(ValueError, match=text):
            GaussianMarkovRandomField.from_precision(np.eye(2), **options)
    model = GaussianMarkovRandomField.from_precision(np.eye(2), names="ab")
    for call, text in [
        (lambda: model.condition({"c": 1.0}), "no variable 'c'"),
        (lambda: model.condition({"a": nan}), "finite"),
        (lambda: model.log_prob([[1.0, np.inf]]), "infinity"),
        (lambda: model.impute([[1.0, np.inf]]), "infinity"),
        (lambda: model.log_prob([[1.0]]), "features"),
        (lambda: model.marginal([]), "no variable is left"),
    ]:
        with pytest.raises(ValueError, match=text):
            call()


def test_inputs_are_not_changed():
    Q = grid(3, 3)
    for given in (Q, Q.tocsr(), Q.tocoo(), Q.toarray(), sparse.csr_matrix(Q), np.asfortranarray(Q.toarray())):
        before = given.copy()
        if not sparse.issparse(given):
            given.flags.writeable = False
        model = GaussianMarkovRandomField.from_precision(given)
        model.marginal_variances()
        np.testing.assert_array_equal(
            given.toarray() if sparse.issparse(given) else given,
            before.toarray() if sparse.issparse(before) else before,
        )
        np.testing.assert_array_equal(model.precision_.toarray(), Q.toarray())
    doubled = sparse.coo_array((np.r_[0.5, 0.5, 1.0], (np.r_[0, 0, 1], np.r_[0, 0, 1])))
    np.testing.assert_array_equal(GaussianMarkovRandomField.from_precision(doubled).precision_.toarray(), np.eye(2))
    integers = GaussianMarkovRandomField.from_precision(np.array([[2, 1], [1, 2]]))
    np.testing.assert_allclose(integers.covariance_, np.array([[2, -1], [-1, 2]]) / 3)


# ---- fit -----------------------------------------------------------------------------------------------------------


def sparse_data(n=300, d=8, seed=0):
    Q = make_sparse_spd_matrix(d, alpha=0.8, smallest_coef=0.3, largest_coef=0.7, random_state=seed)
    return np.random.default_rng(seed).multivariate_normal(np.zeros(d), np.linalg.inv(Q), n), Q


def test_fit_is_graphical_lasso():
    X, _ = sparse_data()
    for alpha in (0.01, 0.1, 0.3):
        model = GaussianMarkovRandomField(alpha, standardize=False).fit(X)
        peer = GraphicalLasso(alpha).fit(X)
        np.testing.assert_allclose(model.precision_.toarray(), peer.precision_, atol=1e-3)
        np.testing.assert_allclose(model.mean_, peer.location_, atol=1e-12)
        assert model.alpha_ == alpha
        Z = (X - X.mean(axis=0)) / X.std(axis=0)
        model, peer = GaussianMarkovRandomField(alpha).fit(X), GraphicalLasso(alpha).fit(Z)
        sd = X.std(axis=0)
        np.testing.assert_allclose(model.precision_.toarray() * sd * sd[:, None], peer.precision_, atol=1e-3)
    assert len(model.edges_) < 28


def test_fit_by_cross_validation():
    X, _ = sparse_data()
    model = GaussianMarkovRandomField("cv", standardize=False).fit(X)
    peer = GraphicalLassoCV().fit(X)
    assert model.alpha_ == pytest.approx(peer.alpha_)
    np.testing.assert_allclose(model.precision_.toarray(), peer.precision_, atol=2e-2)
    assert GaussianMarkovRandomField(None, standardize=False).fit(X).alpha_ == model.alpha_
    for options in ({"sample_weight": np.ones(300)}, {}):
        bad = X.copy()
        bad[0, 0] = X[0, 0] if options else nan
        with pytest.raises(ValueError, match="cross-validation"):
            GaussianMarkovRandomField("cv").fit(bad, **options)


def test_no_penalty_is_maximum_likelihood():
    X, _ = sparse_data()
    model, gaussian = GaussianMarkovRandomField(0.0).fit(X), Gaussian().fit(X)
    np.testing.assert_allclose(model.covariance_, gaussian.covariance_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.log_prob(X), gaussian.log_prob(X), rtol=1e-8)


def test_fit_finds_the_graph():
    X, Q = sparse_data(5000)
    model = GaussianMarkovRandomField(0.05).fit(X)
    truth = np.triu(Q, 1) != 0
    found = np.abs(np.triu(model.partial_correlations_.toarray(), 1))
    assert found[truth].min() > 2 * found[~truth].max()


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.02])
@pytest.mark.parametrize(("n", "d"), [(300, 8), (15, 30)])
def test_optimality(n, d, alpha):
    """Covariance less sample covariance: alpha times the sign of a precision that is not 0, at most alpha elsewhere.

    Scikit-learn's graphical lasso fails, or stops early, for some of these.
    """
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, d)) @ np.where(rng.random((d, d)) < 0.3, 1.0, 0.1)
    model = GaussianMarkovRandomField(alpha, tol=1e-7, standardize=False).fit(X / X.std(axis=0))
    S = np.corrcoef(X.T)
    Q, surplus = model.precision_.toarray(), np.linalg.inv(model.precision_.toarray()) - S
    np.testing.assert_allclose(surplus.diagonal(), 0, atol=1e-4)
    off = ~np.eye(d, dtype=bool)
    assert np.abs(surplus[off]).max() < alpha + 1e-4
    active = off & (np.abs(Q) > 1e-3)
    np.testing.assert_allclose(surplus[active], alpha * np.sign(Q[active]), atol=1e-4)


def test_fit_invariances():
    X, _ = sparse_data()
    X = np.round(X * 1024) / 1024
    model = GaussianMarkovRandomField(0.1, tol=1e-9).fit(X)
    moved = GaussianMarkovRandomField(0.1, tol=1e-9).fit(X + 2.0**27)
    np.testing.assert_allclose(moved.precision_.toarray(), model.precision_.toarray(), rtol=1e-8, atol=1e-8)
    scale = 10.0 ** np.arange(-4, 4)
    scaled = GaussianMarkovRandomField(0.1, tol=1e-9).fit(X * scale)
    np.testing.assert_allclose(
        scaled.precision_.toarray() * scale * scale[:, None], model.precision_.toarray(), rtol=1e-6, atol=1e-6
    )
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = GaussianMarkovRandomField(0.1, tol=1e-9).fit(X, sample_weight=weights)
    repeated = GaussianMarkovRandomField(0.1, tol=1e-9).fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.precision_.toarray(), repeated.precision_.toarray(), rtol=1e-6, atol=1e-6)
    single = GaussianMarkovRandomField(0.1).fit(X.astype(np.float32))
    np.testing.assert_allclose(single.precision_.toarray(), model.precision_.toarray(), atol=1e-2)


def test_missing_values():
    X, _ = sparse_data(400, 5)
    full = GaussianMarkovRandomField(0.1, tol=1e-8).fit(X)
    em = GaussianMarkovRandomField(0.1, tol=1e-8, max_iter=1000).fit(np.r_[X, np.full((3, 5), nan)])
    np.testing.assert_allclose(em.precision_.toarray(), full.precision_.toarray(), atol=1e-3)
    Y = X.copy()
    Y[np.random.default_rng(0).random(X.shape) < 0.2] = nan
    model = GaussianMarkovRandomField(0.1, tol=1e-7, max_iter=1000).fit(Y)
    assert np.diff(model.history_).min() > -1e-6
    assert model.stop_reason_ == "converged"
    plain = GaussianMarkovRandomField(0.0, tol=1e-9, max_iter=1000).fit(Y)
    gaussian = Gaussian(tol=1e-9).fit(Y)
    np.testing.assert_allclose(plain.covariance_, gaussian.covariance_, atol=1e-3)
    assert plain.score(Y) == pytest.approx(gaussian.score(Y), abs=1e-6)

    def objective(m, sd):
        P = m.precision_.toarray() * sd * sd[:, None]
        return m.score(Y) - 0.05 * (np.abs(P).sum() - np.abs(P.diagonal()).sum())

    sd = np.nanstd(Y, axis=0)
    assert model.history_[-1] - np.log(sd) @ (~np.isnan(Y)).mean(axis=0) == pytest.approx(
        objective(model, sd), abs=1e-6
    )
    for other in (full, plain, GaussianMarkovRandomField(0.1).fit(model.impute(Y))):
        assert objective(other, sd) < objective(model, sd)


def test_data_frames_and_pickle():
    X, _ = sparse_data(100, 4)
    frame = pd.DataFrame(X, columns=list("abcd"))
    model, plain = GaussianMarkovRandomField().fit(frame), GaussianMarkovRandomField().fit(X)
    assert model.names_ == tuple("abcd")
    np.testing.assert_array_equal(model.log_prob(frame), plain.log_prob(X))
    given = model.condition({"b": 0.0})
    assert given.feature_names_in_.tolist() == ["a", "c", "d"]
    np.testing.assert_array_equal(
        given.log_prob(frame[["a", "c", "d"]]), plain.condition({1: 0.0}).log_prob(X[:, [0, 2, 3]])
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.log_prob(frame), model.log_prob(frame))
    np.testing.assert_array_equal(again.sample(3, 0), model.sample(3, 0))
    model.alpha = 0.3
    model.marginal_variances()
    fresh = GaussianMarkovRandomField(0.3).fit(frame)
    np.testing.assert_array_equal(model.fit(frame).marginal_variances(), fresh.marginal_variances())
    one = GaussianMarkovRandomField().fit(X[:, :1])
    np.testing.assert_allclose(one.log_prob(X[:, :1]), stats.norm(X[:, 0].mean(), X[:, 0].std()).logpdf(X[:, 0]))


def test_fit_errors():
    X, _ = sparse_data(50, 4)
    bad = X.copy()
    bad[2, 1] = np.inf
    constant = X.copy()
    constant[:, 3] = 5.0
    missing = X.copy()
    missing[:, 2] = nan
    for model, data, text in [
        (GaussianMarkovRandomField(), bad, "infinity"),
        (GaussianMarkovRandomField(), constant, "column 3 is constant"),
        (GaussianMarkovRandomField(), missing, "column 2 has no observed"),
        (GaussianMarkovRandomField(), X[:1], "1 sample"),
        (GaussianMarkovRandomField(-1.0), X, "alpha"),
        (GaussianMarkovRandomField("best"), X, "alpha"),
        (GaussianMarkovRandomField(tol=-1), X, "tol"),
        (GaussianMarkovRandomField(0.0), np.c_[X, X[:, 0]], "positive definite"),
    ]:
        with pytest.raises(ValueError, match=text):
            model.fit(data)
        assert not hasattr(model, "names_")
    model = GaussianMarkovRandomField().fit(X)
    before = model.log_prob(X)
    with pytest.raises(ValueError, match="infinity"):
        model.fit(bad)
    np.testing.assert_array_equal(model.log_prob(X), before)
