"""The Student t family: densities, statistics, EM and its acceleration, K components at once."""

import pickle

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import gaussian as gaussian_oracle
from oracle import student_t as oracle
from scipy import optimize, stats

from fastgen._em import fit_labelled
from fastgen.errors import ComponentError, EmptyComponentError, SingularCovarianceError, UnobservedColumnError
from fastgen.families import Family, Gaussian, StudentT
from fastgen.families.student_t import (
    MAX_DF,
    MIN_DF,
    StudentTStatistics,
    inverse_log_minus_digamma,
    log_minus_digamma,
    log_normaliser,
)
from fastgen.kernels import logsumexp, softmax

TYPES = ("full", "tied", "diag", "spherical")
nan = np.nan


def draw(rng, n, d, nu):
    """A spherical t around 0."""
    return rng.standard_normal((n, d)) / np.sqrt(rng.chisquare(nu, n) / nu)[:, None]


def random_family(rng, covariance_type, K, d, dfs=None, reg_covar=0.0, df=None):
    means, scales = gaussian_oracle.random_parameters(rng, covariance_type, K, d)
    if dfs is None:
        dfs = rng.uniform(0.5, 12, K) if df is None else np.full(K, df)
    return StudentT(covariance_type, reg_covar, df, means=means, scales=scales, dfs=dfs)


def oracle_density(family, X):
    return oracle.log_density(X, family.means, family.scales, family.dfs, family.covariance_type)


def flat(statistics):
    """All arrays, by name."""
    arrays = {name: value for name, value in vars(statistics).items() if isinstance(value, np.ndarray)}
    arrays |= {f"moments.{name}": v for name, v in vars(statistics.moments).items() if isinstance(v, np.ndarray)}
    return arrays


def assert_same_bits(one, other):
    for name, value in flat(one).items():
        assert np.array_equal(value, flat(other)[name], equal_nan=True), name


def assert_close(one, other, rtol=1e-11, apart_from=()):
    """Relative to the largest element: what cancels may do so to any extent."""
    for name, value in flat(one).items():
        if name in apart_from or name.endswith("mean_rest"):
            continue
        expected = flat(other)[name]
        atol = rtol * max(1.0, np.abs(np.nan_to_num(expected)).max())
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol, err_msg=name)


def mixture_step(X, log_weights, family):
    """Log-likelihood per row, posterior, and statistics."""
    joint = family.log_density(X) + log_weights
    return logsumexp(joint).mean(), family.statistics(X, softmax(joint))


def fit_mixture(X, family, posterior, *, tol=1e-9, max_iter=300):
    """EM from a posterior: the family, its history, and how often the cautious step was needed."""
    statistics = family.statistics(X, posterior)
    family = family.maximise(statistics)
    log_weights = np.log(statistics.weight / statistics.weight.sum())
    value, statistics = mixture_step(X, log_weights, family)
    history, falls = [value], 0
    for _ in range(max_iter):
        log_weights = np.log(statistics.weight / statistics.weight.sum())
        candidate = family.maximise(statistics)
        value, its_statistics = mixture_step(X, log_weights, candidate)
        if value < history[-1] - 1e-10 * max(1.0, abs(history[-1])):
            falls += 1
            candidate = family.maximise(statistics, cautious=True)
            value, its_statistics = mixture_step(X, log_weights, candidate)
        family, statistics = candidate, its_statistics
        history.append(value)
        if history[-1] - history[-2] <= tol:
            break
    return family, np.array(history), falls


def fit_one(X, family=None, weights=None, **arguments):
    posterior = np.ones(len(X)) if weights is None else weights
    return fit_mixture(X, family or StudentT(), posterior[:, None], **arguments)


def test_is_a_family():
    assert isinstance(StudentT(means=[[0.0]], scales=[[[1.0]]], dfs=[3.0]), Family)


# ---- densities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("d", [1, 2, 5, 8])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_log_density_against_textbook(rng, covariance_type, d, missing):
    family = random_family(rng, covariance_type, 3, d)
    X = 3 * rng.standard_normal((60, d))
    X[rng.random(X.shape) < missing] = nan
    np.testing.assert_allclose(family.log_density(X), oracle_density(family, X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nu", [0.3, 1.0, 4.5, 80.0])
def test_log_density_against_scipy(rng, nu):
    family = random_family(rng, "full", 2, 4, dfs=[nu, nu])
    X = 5 * rng.standard_normal((50, 4))
    for k in range(2):
        expected = stats.multivariate_t(family.means[k], family.scales[k], nu).logpdf(X)
        np.testing.assert_allclose(family.log_density(X)[:, k], expected, rtol=1e-10)


@pytest.mark.parametrize("d", [1, 2, 3, 8])
@pytest.mark.parametrize("nu", [0.05, 0.1, 1.0, 30.0, 1e4, 1e6, 1e12])
def test_normaliser_and_its_derivatives(d, nu):
    """A difference of log-gammas, as it is usually computed, would be wrong by 1e-9 at nu = 1e6."""
    with mpmath.workdps(60):

        def exact(w):
            return (
                mpmath.loggamma((1 / w + d) / 2) - mpmath.loggamma(1 / w / 2) - mpmath.mpf(d) / 2 * mpmath.log(0.5 / w)
            )

        w = mpmath.mpf(1 / nu)
        expected = [exact(w), mpmath.diff(exact, w), mpmath.diff(exact, w, 2)]
    for got, value in zip(log_normaliser(np.array([1 / nu]), d), expected, strict=True):
        assert got[0] == pytest.approx(float(value), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("x", [0.05, 0.5, 3.0, 50.0, 1e5])
def test_digamma_and_its_inverse(x):
    with mpmath.workdps(40):
        expected = float(mpmath.log(x) - mpmath.digamma(x))
    got = log_minus_digamma(np.array([x]))
    assert got[0] == pytest.approx(expected, rel=1e-14)
    assert inverse_log_minus_digamma(got)[0] == pytest.approx(x, rel=1e-12)


def test_many_degrees_of_freedom_are_a_gaussian(rng):
    means, scales = gaussian_oracle.random_parameters(rng, "full", 1, 3)
    X = rng.standard_normal((40, 3))
    for nu in (1e12, 1e300):
        family = StudentT(df=nu, means=means, scales=scales)
        np.testing.assert_allclose(
            family.log_density(X), Gaussian(means=means, covariances=scales).log_density(X), rtol=1e-9
        )
        family.maximise(family.statistics(X))


def test_float32_and_out(rng):
    family = random_family(rng, "full", 2, 3)
    X = rng.standard_normal((100, 3)).astype(np.float32)
    X[3, 1] = nan
    got = family.log_density(X)
    assert got.dtype == np.float32
    wide = np.empty((100, 2))
    assert family.log_density(X, out=wide) is wide
    assert np.array_equal(wide.astype(np.float32), got)
    np.testing.assert_allclose(wide, family.log_density(X.astype(np.float64)), rtol=1e-14)
    np.testing.assert_allclose(wide, oracle_density(family, X), rtol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_threads_change_no_bit(rng, covariance_type, missing):
    family = random_family(rng, covariance_type, 2, 3)
    X, weights = rng.standard_normal((20_001, 3)), rng.uniform(size=(20_001, 2))
    X[rng.random(X.shape) < missing] = nan
    density, sums = family.log_density(X, n_threads=1), family.statistics(X, weights, n_threads=1)
    for n_threads in (2, 7):
        assert np.array_equal(family.log_density(X, n_threads=n_threads), density)
        assert_same_bits(family.statistics(X, weights, n_threads=n_threads), sums)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_far_rows(rng, covariance_type):
    """Up to the range of doubles; a row without weight may hold anything."""
    family = random_family(rng, covariance_type, 2, 3)
    X = rng.standard_normal((30, 3))
    expected = family.statistics(X[1:], np.ones((29, 2)))
    weights = np.ones((30, 2))
    weights[0] = 0
    for far in (1e30, 1e150, 1e200):
        X[0] = far
        if far < 1e154:
            np.testing.assert_allclose(family.log_density(X)[:1], oracle_density(family, X[:1]), rtol=1e-12)
        else:
            assert (family.log_density(X)[0] == -np.inf).all()
        assert_close(family.statistics(X, weights), expected)
        with np.errstate(all="raise"):
            family.statistics(X, np.ones((30, 2)))


# ---- statistics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.35])
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_e_step_by_the_book(rng, covariance_type, missing):
    family = random_family(rng, covariance_type, 2, 4)
    X, weights = 2 * rng.standard_normal((60, 4)), rng.uniform(size=(60, 2))
    X[rng.random(X.shape) < missing] = nan
    if missing:
        X[3] = nan
    got = family.statistics(X, weights)
    for k in range(2):
        N, U, mean, scatter, log_u = oracle.e_step(
            X, weights[:, k], family.means[k], family.scale_matrix(k), family.dfs[k]
        )
        assert got.weight[k] == pytest.approx(N, rel=1e-13)
        assert got.moments.weight[k] == pytest.approx(U, rel=1e-12)
        assert got.log_u[k] == pytest.approx(log_u, rel=1e-11, abs=1e-11)
        np.testing.assert_allclose(got.moments.mean[k], mean, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(got.moments.scatter[k], scatter, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_e_step_by_the_book_column_by_column(rng, covariance_type):
    """A missing cell adds nothing: neither to sums under r u, nor to those under r."""
    family = random_family(rng, covariance_type, 2, 3)
    X, weights = 2 * rng.standard_normal((50, 3)), rng.uniform(size=(50, 2))
    X[rng.random(X.shape) < 0.3] = nan
    got = family.statistics(X, weights)
    for k in range(2):
        u = np.zeros(50)
        for i, x in enumerate(X):
            delta, o = oracle.distance_of_row(x, family.means[k], family.scale_matrix(k))
            u[i] = (family.dfs[k] + o) / (family.dfs[k] + delta) if o else 0.0
        for j in range(3):
            o = ~np.isnan(X[:, j])
            w = (weights[:, k] * u)[o]
            mean = w @ X[o, j] / w.sum()
            assert got.cells[k, j] == pytest.approx(weights[o, k].sum(), rel=1e-13)
            assert got.moments.count[k, j] == pytest.approx(w.sum(), rel=1e-12)
            assert got.moments.mean[k, j] == pytest.approx(mean, rel=1e-12)
            assert got.moments.scatter[k, j] == pytest.approx(w @ (X[o, j] - mean) ** 2, rel=1e-11)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("nu", [0.2, 2.0, 40.0, 3000.0])
def test_derivatives_with_respect_to_the_degrees_of_freedom(rng, nu, missing):
    """Score and curvature against differences of the log-likelihood as a function of 1 / nu."""
    family = random_family(rng, "full", 1, 3, dfs=[nu])
    X, weights = draw(rng, 80, 3, 2.0), rng.uniform(size=80)
    X[rng.random(X.shape) < missing] = nan
    got = family.statistics(X, weights)
    w, h = 1 / nu, 1e-3 / nu

    def total(inverse):
        other = StudentT(means=family.means, scales=family.scales, dfs=[1 / inverse])
        return weights @ other.log_density(X)[:, 0]

    values = [total(w + i * h) for i in (-2, -1, 0, 1, 2)]
    first = np.dot([1, -8, 0, 8, -1], values) / (12 * h)
    second = np.dot([-1, 16, -30, 16, -1], values) / (12 * h * h)
    error = 1e-14 * np.abs(values[2]) / h
    assert got.score[0] == pytest.approx(first, rel=1e-6, abs=10 * error)
    assert got.curvature[0] == pytest.approx(second, rel=1e-4, abs=100 * error / h)
    assert family.expect(family.observe(X, weights))[0] == pytest.approx(values[2], rel=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_weights_are_repetitions_and_order_does_not_matter(rng, covariance_type, known, missing):
    family = random_family(rng, covariance_type, 1, 3) if known else StudentT(covariance_type)
    X, counts = rng.standard_normal((200, 3)) + 5, rng.integers(0, 4, 200)
    X[rng.random(X.shape) < missing] = nan
    sums = family.statistics(X, counts)
    assert_close(sums, family.statistics(np.repeat(X, counts, axis=0)), apart_from=["moments.rows"])
    order = rng.permutation(200)
    assert_close(sums, family.statistics(X[order], counts[order]))
    assert_close(family.statistics(X, np.ones(200)), family.statistics(X))


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_blocks_merge_to_the_whole(rng, covariance_type, missing):
    family = random_family(rng, covariance_type, 2, 3)
    X = rng.standard_normal((600, 3)) + np.linspace(0, 5, 600)[:, None]
    X[rng.random(X.shape) < missing] = nan
    weights = rng.uniform(size=(600, 2))
    weights[100:200] = 0
    parts = [family.statistics(X[i : i + 100], weights[i : i + 100]) for i in range(0, 600, 100)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert_close(total, family.statistics(X, weights))
    assert_close(sum(parts[-2::-1], parts[-1]), total)
    assert_same_bits(pickle.loads(pickle.dumps(total)), total)
    stacked = StudentTStatistics.stack([family.select([k]).statistics(X, weights[:, k]) for k in range(2)])
    assert_close(stacked, family.statistics(X, weights))


def test_statistics_under_different_parameters_do_not_merge(rng):
    X = rng.standard_normal((20, 2))
    one = StudentT().statistics(X)
    other = StudentT().maximise(one).statistics(X)
    with pytest.raises(ValueError, match="different parameters"):
        one + other
    for wrong in (1, None, Gaussian().statistics(X)):
        with pytest.raises(TypeError):
            one + wrong


def test_without_parameters_u_is_one(rng):
    X, weights = rng.standard_normal((50, 3)), rng.uniform(size=(50, 2))
    for kind in TYPES:
        started = StudentT(kind).maximise(StudentT(kind).statistics(X, weights))
        gaussian = Gaussian(kind).maximise(Gaussian(kind).statistics(X, weights))
        assert np.array_equal(started.means, gaussian.means)
        np.testing.assert_allclose(started.scales, gaussian.covariances, rtol=1e-14)
        assert (started.dfs == 30).all()
        fixed = StudentT(kind, df=4)
        assert (fixed.maximise(fixed.statistics(X, weights)).dfs == 4).all()


def test_layouts_and_float32_give_the_same(rng):
    X, weights = rng.standard_normal((300, 3)).astype(np.float32), rng.uniform(size=(300, 2))
    wide = np.zeros((600, 6), np.float32)
    wide[::2, ::2] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    family = random_family(rng, "full", 2, 3)
    expected = family.statistics(X.astype(np.float64), weights)
    for layout in (X, np.asfortranarray(X), wide[::2, ::2], frozen):
        copy = layout.copy()
        assert_same_bits(family.statistics(layout, np.asfortranarray(weights)), expected)
        assert np.array_equal(layout, copy)


# ---- the fit -------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(TYPES),
    st.sampled_from([0.3, 1.0, 3.0, 20.0, 1e9]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 10**6),
)
@settings(max_examples=25)
def test_the_objective_of_a_mixture_never_falls(d, K, kind, nu, missing, seed):
    rng = np.random.default_rng(seed)
    X = draw(rng, 40 * K, d, nu) + 3 * rng.integers(K, size=(40 * K, 1))
    X[rng.random(X.shape) < missing] = nan
    try:
        family, history, _ = fit_mixture(X, StudentT(kind), rng.dirichlet(np.ones(K), len(X)), max_iter=25)
    except ComponentError:
        return  # a likelihood without bound, or a component that lost all rows in which a column is observed
    spread = [np.linalg.eigvalsh(family.scale_matrix(k)) for k in range(K)]
    if min(values[0] / values[-1] for values in spread) > 1e-9:  # or on its way to a singular one, by rounding
        assert (np.diff(history) >= -1e-10 * np.maximum(1, np.abs(history[:-1]))).all()
    assert ((family.dfs >= MIN_DF) & (family.dfs <= MAX_DF)).all()


@given(
    st.integers(1, 4),
    st.sampled_from(TYPES),
    st.sampled_from([None, 0.1, 2.5]),
    st.sampled_from([0.0, 1e-6, 0.5, 100.0]),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 10**6),
)
@settings(max_examples=60)
def test_the_cautious_step_never_lowers_the_objective(d, kind, df, reg_covar, missing, seed):
    """From any parameters, with reg_covar too, whose penalty belongs to fixed weights: two labelled groups."""
    rng = np.random.default_rng(seed)
    K, X = 2, draw(rng, 60, d, rng.choice([0.3, 1.0, 5.0, 1e9]))
    X[rng.random(X.shape) < missing] = nan
    weights = rng.uniform(size=(60, K))
    weights[np.isnan(X).all(axis=1)] = 0
    dfs = np.exp(rng.uniform(np.log(MIN_DF), np.log(MAX_DF), K))
    family = random_family(rng, kind, K, d, dfs if df is None else None, reg_covar, df)

    def objective(family):
        return (weights * family.log_density(X)).sum() + family.penalty(family.statistics(X, weights))

    before = objective(family)
    for _ in range(5):
        family = family.maximise(family.statistics(X, weights), cautious=True)
        after = objective(family)
        assert after >= before - 1e-10 * max(1.0, abs(before))
        before = after


def test_the_cautious_step_is_px_em(rng):
    """Liu, Rubin & Wu 1998: scale over sum r u; nu where the expanded model's log-likelihood is greatest."""
    family = random_family(rng, "full", 1, 3, dfs=[4.0])
    X, weights = draw(rng, 100, 3, 2.0), rng.uniform(size=100)
    N, U, mean, scatter, log_u = oracle.e_step(X, weights, family.means[0], family.scales[0], 4.0)
    got = family.maximise(family.statistics(X, weights[:, None]), cautious=True)
    np.testing.assert_allclose(got.means[0], mean, rtol=1e-12)
    np.testing.assert_allclose(got.scales[0], scatter / U, rtol=1e-11)

    def expected(nu):
        alpha = U / N
        return N * stats.gamma.logpdf(1, nu / 2, scale=2 / nu) - nu / 2 * (N * np.log(alpha) - log_u + U / alpha - N)

    best = optimize.minimize_scalar(lambda nu: -expected(nu), bounds=(0.1, 50), options={"xatol": 1e-9})
    assert got.dfs[0] == pytest.approx(best.x, rel=1e-5)


@pytest.mark.parametrize("reg_covar", [0.0, 0.4])
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_fit_beats_its_neighbours(rng, covariance_type, missing, reg_covar):
    X = draw(rng, 150, 2, 3.0) @ np.array([[1.0, 0.5], [0.0, 2.0]])
    X[rng.random(X.shape) < missing] = nan
    X = X[~np.isnan(X).all(axis=1)]
    fit = fit_labelled(StudentT(covariance_type, reg_covar), X, None, [slice(None)], tol=1e-15, max_iter=500)
    assert fit.stop_reason in ("converged", "decreased")  # by rounding
    best = fit.parameters

    def objective(family):
        return family.log_density(X).sum() + family.penalty(fit.statistics)

    top = objective(best)
    for _ in range(40):
        step = 1e-3 * rng.standard_normal(best.scales.shape)
        if covariance_type in ("full", "tied"):
            step = step + np.swapaxes(step, -1, -2)
        near = StudentT(
            covariance_type,
            reg_covar,
            means=best.means + 1e-3 * rng.standard_normal(best.means.shape),
            scales=best.scales + step,
            dfs=best.dfs * np.exp(1e-2 * rng.standard_normal()),
        )
        assert objective(near) < top


@pytest.mark.parametrize("nu", [0.7, 3.0, 12.0])
def test_known_parameters_are_recovered(rng, nu):
    """Within 5 standard errors, from differences of the log-likelihood in nu (mu and S held: they matter little)."""
    d, n = 2, 20_000
    root = np.array([[1.0, 0.0], [0.6, 0.5]])
    X = draw(rng, n, d, nu) @ root.T + [3.0, -1.0]
    family, history, _ = fit_one(X)
    assert len(history) < 40
    sd = np.sqrt(np.diag(root @ root.T))
    assert (np.abs(family.means[0] - [3, -1]) < 5 * sd * np.sqrt((nu + d + 2) / (nu + d) / n)).all()
    np.testing.assert_allclose(family.scales[0], root @ root.T, atol=0.06)
    assert family.dfs[0] == pytest.approx(nu, rel=0.12)


def test_one_column_against_scipy(rng):
    X = 2 * draw(rng, 400, 1, 3.0) + 7
    family, _, _ = fit_one(X, tol=1e-14, max_iter=2000)
    nu, loc, scale = stats.t.fit(X[:, 0], 3, loc=7, scale=2)
    assert family.log_density(X).sum() >= stats.t.logpdf(X[:, 0], nu, loc, scale).sum() - 1e-9
    assert family.dfs[0] == pytest.approx(nu, rel=1e-3)
    assert family.means[0, 0] == pytest.approx(loc, abs=1e-3)
    assert np.sqrt(family.scales[0, 0, 0]) == pytest.approx(scale, rel=1e-3)


def test_a_mixture_is_recovered(rng):
    X = np.concatenate([draw(rng, 3000, 2, 3.0), draw(rng, 6000, 2, 20.0) + 8])
    posterior = np.repeat(np.eye(2), [3000, 6000], axis=0) * 0.8 + 0.1
    family, history, falls = fit_mixture(X, StudentT(), posterior)
    assert len(history) < 60
    assert falls == 0
    np.testing.assert_allclose(family.means, [[0, 0], [8, 8]], atol=0.12)
    assert family.dfs[0] == pytest.approx(3, rel=0.15)
    assert 14 < family.dfs[1] < 32


def test_acceleration_pays(rng):
    """Many degrees of freedom: EM creeps."""
    X = draw(rng, 3000, 2, 10.0)
    _, quick, _ = fit_one(X, tol=1e-10)
    family = StudentT()
    family = family.maximise(family.statistics(X))
    for _ in range(len(quick) - 1):
        family = family.maximise(family.statistics(X), cautious=True)
    assert len(quick) < 40
    assert quick[-1] - family.log_density(X).mean() > 1e-5


@pytest.mark.parametrize(("n", "d"), [(15, 4), (30, 16), (60, 40)])
def test_where_acceleration_overshoots_the_cautious_step_helps(n, d):
    """Few rows, many columns: then scale and degrees of freedom depend on each other."""
    falls = 0
    for seed in range(10):
        _, history, fallen = fit_one(draw(np.random.default_rng(seed), n, d, 3.0), max_iter=60)
        assert (np.diff(history) >= -1e-10 * np.maximum(1, np.abs(history[:-1]))).all()
        falls += fallen
    assert falls


def test_gaussian_data_stops_at_the_upper_end(rng):
    X = rng.uniform(-1, 1, (500, 3))  # even lighter tails
    family, history, _ = fit_one(X)
    assert family.dfs[0] == MAX_DF
    assert len(history) < 15
    gaussian = Gaussian().maximise(Gaussian().statistics(X))
    np.testing.assert_allclose(family.means, gaussian.means, atol=1e-5)
    np.testing.assert_allclose(family.scales, gaussian.covariances, rtol=1e-4, atol=1e-6)


def test_outliers_hardly_move_it(rng):
    X = rng.standard_normal((300, 2))
    X[:15] += 1e6
    family, _, _ = fit_one(X)
    assert np.abs(family.means).max() < 0.2
    assert np.abs(family.scales[0] - np.eye(2)).max() < 0.6
    assert Gaussian().maximise(Gaussian().statistics(X)).means.min() > 1e4


@pytest.mark.parametrize("covariance_type", TYPES)
def test_shift_and_scale(rng, covariance_type):
    """Whole numbers, so that the shift is exact; means are then doubles near 1e8, half an ulp is 7.5e-9."""
    X = np.round(8 * draw(rng, 500, 3, 3.0))
    family, history, _ = fit_one(X, StudentT(covariance_type), max_iter=15)
    shifted, shifted_history, _ = fit_one(X + 1e8, StudentT(covariance_type), max_iter=15)
    np.testing.assert_allclose(shifted_history, history, rtol=1e-9)
    np.testing.assert_allclose(shifted.means - 1e8, family.means, atol=5e-8)
    np.testing.assert_allclose(shifted.scales, family.scales, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(shifted.dfs, family.dfs, rtol=1e-7)
    for scale in (1e-6, 2.0**100):
        scaled, _, _ = fit_one(X * scale, StudentT(covariance_type), max_iter=15)
        np.testing.assert_allclose(scaled.means / scale, family.means, rtol=1e-9)
        np.testing.assert_allclose(scaled.scales / scale**2, family.scales, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(scaled.dfs, family.dfs, rtol=1e-9)


def test_labelled_fits_go_through_em(rng):
    """Its statistics are never complete: a closed form would be wrong."""
    X = np.concatenate([draw(rng, 400, 2, 2.0), draw(rng, 400, 2, 5.0) + 3])
    X[rng.random(X.shape) < 0.1] = nan
    fit = fit_labelled(StudentT(), X, None, [np.arange(400), np.arange(400, 800)], tol=1e-10, max_iter=200)
    assert fit.stop_reason == "converged"
    for k in range(2):
        alone, _, _ = fit_one(X[400 * k : 400 * (k + 1)], tol=1e-13)
        np.testing.assert_allclose(fit.parameters.dfs[k], alone.dfs[0], rtol=1e-3)
        np.testing.assert_allclose(fit.parameters.means[k], alone.means[0], atol=1e-4)


def test_fixed_degrees_of_freedom_are_not_accelerated(rng):
    assert StudentT().accelerated
    assert not StudentT(df=3).accelerated
    X = draw(rng, 100, 2, 3.0)
    family = random_family(rng, "full", 1, 2, df=3)
    sums = family.statistics(X)
    assert np.array_equal(family.maximise(sums).scales, family.maximise(sums, cautious=True).scales)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_number_of_parameters(rng, covariance_type):
    expected = 12 + {"full": 30, "tied": 10, "diag": 12, "spherical": 3}[covariance_type]
    assert random_family(rng, covariance_type, 3, 4).n_parameters == expected + 3
    assert random_family(rng, covariance_type, 3, 4, df=5).n_parameters == expected


# ---- samples and parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples(rng, covariance_type):
    """Squared distances over d have an F distribution; the seed is fixed. Tests at 1e-6."""
    family = random_family(rng, covariance_type, 2, 3)
    components = rng.integers(2, size=6000)
    X = family.sample(components, rng)
    for k in range(2):
        part = X[components == k]
        distances = [oracle.distance_of_row(x, family.means[k], family.scale_matrix(k))[0] / 3 for x in part]
        assert stats.kstest(distances, stats.f(3, family.dfs[k]).cdf).pvalue > 1e-6
        sd = np.sqrt(np.diag(family.scale_matrix(k)))
        for j in range(3):
            marginal = stats.t(family.dfs[k], family.means[k, j], sd[j])
            assert stats.kstest(part[:, j], marginal.cdf).pvalue > 1e-6
        # all directions alike: E[u z z^T] would be, but u is not seen; signs of products are enough
        whitened = np.linalg.solve(np.linalg.cholesky(family.scale_matrix(k)), (part - family.means[k]).T)
        assert abs(np.sign(whitened[0] * whitened[1]).mean()) < 5 / np.sqrt(len(part))
    again = [family.sample([0, 1, 1], np.random.default_rng(3)) for _ in range(2)]
    assert np.array_equal(*again)
    assert family.sample([], rng).shape == (0, 3)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_marginal_and_condition(rng, covariance_type):
    family = random_family(rng, covariance_type, 2, 4)
    X = 3 * rng.standard_normal((8, 4))
    whole = oracle_density(family, X)
    marginal = family.marginal(np.array([3, 1]))
    for x, expected in zip(X, whole, strict=True):  # p(x) = p(x_1, x_3) p(x_0, x_2 | x_1, x_3)
        conditional = family.condition({1: x[1], 3: x[3]})
        parts = conditional.log_density(x[None, [0, 2]]) + marginal.log_density(x[None, [3, 1]])
        np.testing.assert_allclose(parts[0], expected, rtol=1e-12)
        np.testing.assert_allclose(conditional.dfs, family.dfs + 2)
    assert conditional.covariance_type == ("full" if covariance_type == "tied" else covariance_type)
    fixed = random_family(rng, covariance_type, 1, 3, df=4).condition({0: 1.0})
    assert (fixed.df, fixed.dfs[0]) == (5, 5)
    np.testing.assert_array_equal(family.condition({}).log_density(X), family.marginal(range(4)).log_density(X))
    with pytest.raises(ValueError, match="given values must be finite"):
        family.condition({0: nan})
    with pytest.raises(ValueError, match="columns must be a list"):
        family.condition({4: 0.0})


@pytest.mark.parametrize("covariance_type", TYPES)
def test_impute(rng, covariance_type):
    family = random_family(rng, covariance_type, 2, 3)
    X = rng.standard_normal((40, 3))
    X[rng.random(X.shape) < 0.3] = nan
    X[0] = nan
    kept = X.copy()
    posterior = rng.dirichlet([1, 1], 40)
    got = family.impute(X, posterior)
    assert np.array_equal(X, kept, equal_nan=True)
    for i, x in enumerate(X):
        m = np.isnan(x)
        assert np.array_equal(got[i, ~m], x[~m])
        if m.any():
            parts = [oracle.conditional(family.means[k], family.scale_matrix(k), 3.0, x)[0] for k in range(2)]
            np.testing.assert_allclose(got[i, m], posterior[i] @ parts, rtol=1e-11, atol=1e-13)


def test_drawn_values_have_the_conditional_distribution(rng):
    family = random_family(rng, "full", 1, 3)
    X = np.tile([nan, 2.0, -1.5], (4000, 1))
    drawn = family.impute(X, None, rng)[:, 0]
    location, scale, nu = oracle.conditional(family.means[0], family.scales[0], family.dfs[0], X[0])
    assert stats.kstest(drawn, stats.t(nu, location[0], np.sqrt(scale[0, 0])).cdf).pvalue > 1e-6


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_family_is_a_value(rng, covariance_type):
    means, scales = gaussian_oracle.random_parameters(rng, covariance_type, 3, 2)
    dfs, X = np.array([1.0, 2.0, 3.0]), rng.standard_normal((20, 2))
    family = StudentT(covariance_type, 0.25, means=means, scales=scales, dfs=dfs)
    before = family.log_density(X)
    chosen = family.select([2, 0])
    for array in (means, scales, dfs):
        array *= 3
    assert np.array_equal(family.log_density(X), before)
    np.testing.assert_allclose(chosen.log_density(X), before[:, [2, 0]], rtol=1e-13)
    again = pickle.loads(pickle.dumps(family))
    assert np.array_equal(again.log_density(X), before)
    assert repr(again) == f"families.StudentT({covariance_type!r}, reg_covar=0.25, 3 components, 2 features)"
    for one in (family, again, chosen, family.marginal([1])):
        assert list(one.parameters) == ["means", "scales", "dfs"]
        for array in one.parameters.values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


# ---- errors --------------------------------------------------------------------------------------------------------


def test_without_parameters():
    family = StudentT("tied", 0.5, 4)
    assert repr(family) == "families.StudentT('tied', reg_covar=0.5, df=4)"
    for name in ("means", "scales", "dfs", "n_components", "n_features", "n_parameters", "parameters"):
        with pytest.raises(AttributeError, match="no parameters yet"):
            getattr(family, name)
    for call in (lambda: family.log_density([[0.0]]), lambda: family.marginal([0]), lambda: family.sample([0], None)):
        with pytest.raises(AttributeError, match="no parameters yet"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"covariance_type": "round"}, "covariance_type must be one of"),
        ({"reg_covar": -1e-9}, "reg_covar must be a finite number"),
        ({"df": 0}, "df must be positive"),
        ({"df": -1.0}, "df must be a finite number"),
        ({"df": np.inf}, "df must be a finite number"),
        ({"means": [[0.0]]}, "give means, scales and dfs"),
        ({"means": [[0.0]], "scales": [[[1.0]]]}, "give means, scales and dfs"),
        ({"dfs": [1.0]}, "give means, scales and dfs"),
        ({"means": [0.0], "scales": [[[1.0]]], "dfs": [1.0]}, "means must have shape"),
        ({"means": [[0.0]], "scales": [[1.0]], "dfs": [1.0]}, "scales must have shape"),
        ({"means": [[0.0]], "scales": [[[1.0]]], "dfs": [1.0, 2.0]}, "dfs must have shape"),
        ({"means": [[0.0]], "scales": [[[1.0]]], "dfs": [0.0]}, "dfs must be positive"),
        ({"means": [[nan]], "scales": [[[1.0]]], "dfs": [1.0]}, "means must be finite"),
        ({"means": [[0.0]], "scales": [[[1.0]]], "dfs": [2.0], "df": 1.0}, "dfs must all be df = 1.0"),
        ({"means": [[0.0]], "scales": [[[0.0]]], "dfs": [1.0]}, r"scales\[0\] is not positive definite"),
        ({"means": [[0.0, 0.0]], "scales": [[[1.0, 2.0], [2.0, 1.0]]], "df": 1.0}, "not positive definite"),
    ],
)
def test_wrong_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        StudentT(**arguments)


def test_wrong_data_and_weights(rng):
    family = random_family(rng, "full", 2, 3)
    X = rng.standard_normal((20, 3))
    for weights in (None, np.ones(20), np.ones((20, 3)), -np.ones((20, 2)), np.full((20, 2), nan), np.ones((19, 2))):
        with pytest.raises(ValueError, match="weights must"):
            family.statistics(X, weights)
    for call in (family.log_density, lambda x: family.statistics(x, np.ones((len(x), 2))), StudentT().statistics):
        bad = X.copy()
        bad[7, 1] = np.inf
        with pytest.raises(ValueError, match=r"X contains infinity \(at row 7, column 1\)"):
            call(bad)
    with pytest.raises(ValueError, match="X has 2 features, but 3 were expected"):
        family.log_density(X[:, :2])
    with pytest.raises(TypeError, match="full scales need"):
        family.maximise(StudentT("diag").statistics(X))
    with pytest.raises(TypeError, match="full scales need"):
        family.maximise(Gaussian().statistics(X))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_component_without_weight_or_spread_is_named(rng, covariance_type):
    X, weights = rng.standard_normal((50, 2)), np.ones((50, 3))
    weights[:, 1] = 0
    known = random_family(rng, covariance_type, 3, 2)
    for family in (StudentT(covariance_type), known):
        with pytest.raises(EmptyComponentError, match="component 1 has no weight"):
            family.maximise(family.statistics(X, weights))
    X[3, 1] = nan
    with pytest.raises(EmptyComponentError, match="component 1 has no weight"):
        StudentT(covariance_type).maximise(StudentT(covariance_type).statistics(X, weights))
    X[3, 1] = 0
    if covariance_type == "tied":
        return
    weights[:, 1] = np.arange(50) == 0
    with pytest.raises(SingularCovarianceError, match=r"scales\[1\].*Increase reg_covar") as caught:
        known.maximise(known.statistics(X, weights))
    assert caught.value.component == 1
    family = StudentT(covariance_type, 1e-3)
    family.maximise(family.statistics(X, weights))  # the remedy


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_column_never_observed_is_an_error(rng, covariance_type):
    X, weights = rng.standard_normal((20, 3)), np.ones((20, 2))
    X[:10, 1] = nan
    weights[10:, 1] = 0
    known = random_family(rng, covariance_type, 2, 3)
    for family in (StudentT(covariance_type), known):
        with pytest.raises(UnobservedColumnError, match="column 1 has no observed value in component 1"):
            family.maximise(family.statistics(X, weights))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_without_any_observed_cell_do_not_count(rng, covariance_type):
    X, weights = rng.standard_normal((30, 3)), rng.uniform(size=(30, 2))
    X[::5] = nan
    keep = ~np.isnan(X).all(axis=1)
    for family in (StudentT(covariance_type), random_family(rng, covariance_type, 2, 3)):
        assert_close(family.statistics(X, weights), family.statistics(X[keep], weights[keep]))
