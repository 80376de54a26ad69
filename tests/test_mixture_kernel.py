"""The fused E-step and the scores of Gaussian mixtures, against the textbook."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import gaussian as gaussian_oracle
from oracle import mixture as oracle
from threadpoolctl import threadpool_limits

import fastgen
from fastgen import _mixture_em
from fastgen._mixture_em import MixtureStatistics
from fastgen.errors import SingularCovarianceError
from fastgen.families import Gaussian
from fastgen.kernels import mixture_e_step, precision_cholesky

TYPES = ("full", "tied", "diag", "spherical")
nan, inf = np.nan, np.inf


def parameters(rng, covariance_type, K, d):
    """Weights, means, covariances, type."""
    means, covariances = gaussian_oracle.random_parameters(rng, covariance_type, K, d)
    return rng.dirichlet(np.full(K, 5.0)), means, covariances, covariance_type


def draw(rng, n, d):
    """Data where the components overlap: all responsibilities count."""
    return 1.5 * rng.standard_normal((n, d)) + rng.uniform(-1, 1, d)


def with_holes(rng, X, share):
    """Cells missing at random; rows without any value and rows with a single one among them."""
    X = X.copy()
    X[rng.random(X.shape) < share] = nan
    X[::13] = nan
    for i in range(5, len(X), 13):
        X[i, np.arange(X.shape[1]) != i % X.shape[1]] = nan
    return X


def assert_statistics(statistics, expected, rtol=1e-10):
    """Relative to the largest element of each: what cancels may do so to any extent."""
    assert statistics.log_likelihood == pytest.approx(expected.log_likelihood, rel=rtol, abs=rtol)
    s = statistics.components
    assert type(statistics.log_likelihood) is float
    assert statistics.weight == pytest.approx(expected.weight.sum(), rel=rtol)
    for name in ("weight", "mean", "scatter"):
        want = getattr(expected, name)
        assert getattr(s, name).shape == want.shape, name
        np.testing.assert_allclose(getattr(s, name), want, rtol=0, atol=rtol * max(1, np.abs(want).max()), err_msg=name)
    if hasattr(s, "count"):
        np.testing.assert_allclose(s.count, expected.count, rtol=rtol, atol=rtol)


def assert_scores(X, theta, rtol=1e-10):
    """log p(x), posterior and label of each row."""
    weights, means, covariances, kind = theta
    mixture = _mixture_em.Mixture(np.asarray(weights), Gaussian(kind, means=means, covariances=covariances))
    log_prob, posterior = oracle.log_prob(X, *theta), oracle.posterior(X, *theta)
    np.testing.assert_allclose(mixture.log_prob(X), log_prob, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(mixture.posterior(X), posterior, rtol=0, atol=rtol)
    labels = mixture.predict(X)
    assert labels.dtype == np.intp
    np.testing.assert_allclose(posterior[np.arange(len(X)), labels], posterior.max(axis=1), rtol=rtol)


def arrays(statistics):
    """All numbers of statistics, by name."""
    found = {name: a for name, a in vars(statistics.components).items() if isinstance(a, np.ndarray)}
    return found | {"log_likelihood": np.array(statistics.log_likelihood)}


def assert_same_bits(one, other):
    for name, value in arrays(one).items():
        assert np.array_equal(value, arrays(other)[name]), name


# ---- every size --------------------------------------------------------------------------------------------------

DIMENSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 33, 65)
EDGES = (1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513)
"""Around a vector, a tile and the batches of two and of eight tiles."""


@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_every_number_of_features(rng, covariance_type, d, K):
    theta = parameters(rng, covariance_type, K, d)
    n = {1: 97, 2: 65, 5: 33}[K] + d % 3
    X = draw(rng, n, d)
    assert_statistics(mixture_e_step(X, *theta), oracle.e_step(X, *theta))
    assert_scores(X, theta)


@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_every_number_of_rows(rng, covariance_type, n):
    for d in (3, 6):
        theta = parameters(rng, covariance_type, 2, d)
        X = draw(rng, n, d)
        assert_statistics(mixture_e_step(X, *theta), oracle.e_step(X, *theta))
        assert_scores(X, theta)


@pytest.mark.parametrize(("n", "d", "K"), [(65, 112, 2), (65, 113, 2), (33, 65, 62), (65, 65, 63), (70, 120, 1)])
def test_sums_along_the_features(rng, n, d, K):
    """Many features (d > 112), or many components of many (K d^2 > 2^18): the kernel adds up row by row."""
    theta = parameters(rng, "full", K, d)
    X = draw(rng, n, d)
    weights = rng.uniform(size=n)
    with threadpool_limits(1):  # the oracle's many small systems: threads of BLAS would wait for each other
        expected = oracle.e_step(X, *theta, weights)
    assert_statistics(mixture_e_step(X, *theta, sample_weight=weights), expected)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_many_components(rng, covariance_type):
    theta = parameters(rng, covariance_type, 200, 3)
    X = draw(rng, 33, 3)
    assert_statistics(mixture_e_step(X, *theta), oracle.e_step(X, *theta))
    assert_scores(X, theta)


# ---- weights, missing values, layouts ------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_weights_of_samples(rng, covariance_type, missing):
    theta = parameters(rng, covariance_type, 3, 4)
    X = draw(rng, 150, 4)
    if missing:
        X = with_holes(rng, X, missing)
    weights = rng.uniform(0, 3, 150) * (rng.random(150) < 0.7)
    assert_statistics(mixture_e_step(X, *theta, sample_weight=weights), oracle.e_step(X, *theta, weights))
    counts = rng.integers(0, 3, 150)
    repeated = mixture_e_step(np.repeat(X, counts, axis=0), *theta)
    statistics = mixture_e_step(X, *theta, sample_weight=counts)
    count = repeated.components.count if hasattr(repeated.components, "count") else None
    assert_statistics(
        statistics,
        oracle.Statistics(
            repeated.log_likelihood,
            *(repeated.components.weight, count, repeated.components.mean, repeated.components.scatter),
        ),
        1e-12,
    )


@pytest.mark.parametrize(("d", "K"), [(1, 2), (2, 1), (3, 5), (5, 2), (8, 3), (9, 2), (17, 2), (33, 1)])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_missing_values(rng, covariance_type, d, K):
    theta = parameters(rng, covariance_type, K, d)
    X = with_holes(rng, draw(rng, 67, d), 0.3)
    assert np.isnan(X).all(axis=1).any()
    assert ((~np.isnan(X)).sum(axis=1) == 1).any()
    assert_statistics(mixture_e_step(X, *theta), oracle.e_step(X, *theta))
    assert_scores(X, theta)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("n", [1, 32, 100])
def test_nothing_is_observed(rng, covariance_type, n):
    """Such rows say nothing: the responsibilities are the weights, and the moments those of the model."""
    theta = parameters(rng, covariance_type, 3, 2)
    X = np.full((n, 2), nan)
    statistics = mixture_e_step(X, *theta)
    assert_statistics(statistics, oracle.e_step(X, *theta))
    assert statistics.log_likelihood == pytest.approx(0, abs=n * 4e-16)
    np.testing.assert_allclose(statistics.components.weight, n * theta[0], rtol=1e-14)
    assert_scores(X, theta)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_single_missing_cell_anywhere(rng, covariance_type):
    """In each place of a tile, next to rows that are complete."""
    theta = parameters(rng, covariance_type, 2, 3)
    for i in (0, 1, 7, 8, 30, 31, 32, 63, 64):
        X = draw(rng, 65, 3)
        X[i, i % 3] = nan
        assert_statistics(mixture_e_step(X, *theta), oracle.e_step(X, *theta))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_float32_is_widened(rng, covariance_type, missing):
    """The statistics are those of the same numbers in float64, to the bit."""
    theta = parameters(rng, covariance_type, 3, 5)
    X = draw(rng, 200, 5).astype(np.float32)
    if missing:
        X = with_holes(rng, X, 0.2)
    exact = mixture_e_step(X.astype(np.float64), *theta)
    assert_same_bits(mixture_e_step(X, *theta), exact)
    mixture = _mixture_em.Mixture(theta[0], Gaussian(covariance_type, means=theta[1], covariances=theta[2]))
    for score in (mixture.log_prob, mixture.posterior):
        assert score(X).dtype == np.float32
        np.testing.assert_allclose(score(X), score(X.astype(np.float64)), rtol=6e-8, atol=1e-37)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_layouts_change_no_bit(rng, covariance_type, missing):
    theta = parameters(rng, covariance_type, 3, 5)
    X = draw(rng, 131, 5)
    if missing:
        X = with_holes(rng, X, 0.2)
    expected = mixture_e_step(X, *theta)
    wide = np.empty((131 * 3, 5 * 2))
    wide[::3, ::2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"x" + X.tobytes(), np.uint8)[1:].view(np.float64).reshape(X.shape)
    assert not unaligned.flags.aligned
    views = {
        "Fortran": np.asfortranarray(X),
        "strided": wide[::3, ::2],
        "backwards": X[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "unaligned": unaligned,
        "other byte order": X.astype(">f8"),
        "list": X.tolist(),
    }
    before = {name: np.array(view) for name, view in views.items()}
    mixture = _mixture_em.Mixture(theta[0], Gaussian(covariance_type, means=theta[1], covariances=theta[2]))
    for name, view in views.items():
        assert_same_bits(mixture_e_step(view, *theta), expected)
        assert np.array_equal(np.array(view), before[name], equal_nan=True), name
        if name in ("Fortran", "strided", "backwards", "read-only"):
            assert np.array_equal(mixture.posterior(view), mixture.posterior(X)), name


@pytest.mark.parametrize("covariance_type", TYPES)
def test_parameters_may_be_factors(rng, covariance_type):
    weights, means, covariances, kind = parameters(rng, covariance_type, 3, 4)
    X = draw(rng, 50, 4)
    factors = precision_cholesky(covariances, kind)
    one = mixture_e_step(X, weights, means, None, kind, precisions_cholesky=factors)
    assert_statistics(one, oracle.e_step(X, weights, means, covariances, kind))


# ---- threads, blocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_threads_change_no_bit(rng, covariance_type, missing):
    theta = parameters(rng, covariance_type, 4, 6)
    X = draw(rng, 40_000, 6)
    if missing:
        X[rng.random(40_000) < 0.05, 2] = nan
    weights = rng.uniform(size=40_000)
    one = mixture_e_step(X, *theta, sample_weight=weights, n_threads=1)
    for n_threads in (2, 7):
        assert_same_bits(mixture_e_step(X, *theta, sample_weight=weights, n_threads=n_threads), one)
    mixture = _mixture_em.Mixture(theta[0], Gaussian(covariance_type, means=theta[1], covariances=theta[2]))
    for score in (mixture.log_prob, mixture.posterior, mixture.predict):
        results = []
        for n_threads in (1, 2, 7):
            with fastgen.num_threads(n_threads):
                results.append(score(X))
        assert np.array_equal(results[0], results[1])
        assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_segments_add_up_to_what_matrix_products_give(rng, covariance_type):
    """So many rows that the sums are cut into segments: against NumPy on whole arrays."""
    n, d, K = 30_011, 3, 3
    weights, means, covariances, kind = theta = parameters(rng, covariance_type, K, d)
    X = draw(rng, n, d)
    r = _mixture_em.Mixture(weights, Gaussian(kind, means=means, covariances=covariances)).posterior(X)
    np.testing.assert_allclose(r[-1], oracle.posterior(X[-1:], *theta)[0], rtol=1e-11)
    s = mixture_e_step(X, *theta).components
    np.testing.assert_allclose(s.weight, r.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(s.mean, r.T @ X / r.sum(axis=0)[:, None], rtol=1e-11)
    scatter = np.array([(r[:, k, None] * (X - s.mean[k])).T @ (X - s.mean[k]) for k in range(K)])
    if covariance_type == "tied":
        scatter = scatter.sum(axis=0, keepdims=True)
    elif covariance_type != "full":
        scatter = scatter.diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(s.scatter, scatter, rtol=0, atol=1e-11 * np.abs(scatter).max())


@settings(max_examples=60)
@given(
    covariance_type=st.sampled_from(TYPES),
    cuts=st.lists(st.integers(1, 199), max_size=4, unique=True),
    missing=st.booleans(),
    weighted=st.booleans(),
    offset=st.sampled_from([0.0, 1e8]),
    seed=st.integers(0, 2**32 - 1),
)
def test_statistics_of_blocks_add_up(covariance_type, cuts, missing, weighted, offset, seed):
    rng = np.random.default_rng(seed)
    weights, means, covariances, kind = parameters(rng, covariance_type, 3, 3)
    X = draw(rng, 200, 3)
    if missing:
        X = with_holes(rng, X, 0.2)
    X, means = X + offset, means + offset
    w = rng.uniform(0.1, 2, 200) if weighted else None
    whole = mixture_e_step(X, weights, means, covariances, kind, sample_weight=w)
    blocks = np.split(np.arange(200), sorted(cuts))
    parts = [
        mixture_e_step(X[rows], weights, means, covariances, kind, sample_weight=None if w is None else w[rows])
        for rows in blocks
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    s, t = whole.components, total.components
    assert total.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(t.weight, s.weight, rtol=1e-12)
    np.testing.assert_allclose(t.mean, s.mean, rtol=1e-15 if offset else 1e-11, atol=1e-12)
    np.testing.assert_allclose(t.scatter, s.scatter, rtol=0, atol=1e-12 * np.abs(s.scatter).max())


@pytest.mark.parametrize("covariance_type", TYPES)
def test_statistics_are_values(rng, covariance_type):
    theta = parameters(rng, covariance_type, 2, 3)
    s = mixture_e_step(draw(rng, 40, 3), *theta)
    again = pickle.loads(pickle.dumps(s))
    assert isinstance(again, MixtureStatistics)
    assert_same_bits(again, s)
    twice = s + again
    assert twice.log_likelihood == 2 * s.log_likelihood
    assert len(pickle.dumps(s)) < 2000
    double = s * 2.0
    np.testing.assert_allclose(double.components.scatter, twice.components.scatter, rtol=1e-14)
    np.testing.assert_allclose(double.components.mean, twice.components.mean, rtol=1e-14)
    with pytest.raises(TypeError):
        s + 1
    with pytest.raises(ValueError, match="cannot be merged"):
        s + mixture_e_step(np.zeros((1, 1)), [1.0], [[0.0]], [1.0], "spherical") if covariance_type in (
            "diag",
            "spherical",
        ) else s + mixture_e_step(np.zeros((1, 1)), [1.0], [[0.0]], [[[1.0]]])


# ---- numerics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_an_offset_of_the_data_changes_only_the_means(rng, covariance_type):
    """Data on a grid, so that 1e8 is added without rounding: all else must agree to rounding."""
    weights, means, covariances, kind = parameters(rng, covariance_type, 3, 4)
    grid = 2.0**20
    X, means = (np.round(a * grid) / grid for a in (draw(rng, 300, 4), means))
    here = mixture_e_step(X, weights, means, covariances, kind)
    there = mixture_e_step(X + 1e8, weights, means + 1e8, covariances, kind)
    assert there.log_likelihood == pytest.approx(here.log_likelihood, rel=1e-13)
    np.testing.assert_allclose(there.components.weight, here.components.weight, rtol=1e-12)
    mean = (there.components.mean - 1e8) + there.components.mean_rest
    np.testing.assert_allclose(mean, here.components.mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(
        there.components.scatter, here.components.scatter, rtol=0, atol=1e-12 * np.abs(here.components.scatter).max()
    )


@pytest.mark.parametrize("scale", [1e-6, 1e-150, 1e6, 1e150])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_units_of_the_data(rng, covariance_type, scale):
    """By a power of two: the same but for exponents; covariances scale with its square."""
    weights, means, covariances, kind = parameters(rng, covariance_type, 3, 4)
    X = draw(rng, 100, 4)
    scale = 2.0 ** np.round(np.log2(scale))
    here = mixture_e_step(X, weights, means, covariances, kind)
    there = mixture_e_step(X * scale, weights, means * scale, covariances * scale**2, kind)
    assert there.log_likelihood + 400 * np.log(scale) == pytest.approx(here.log_likelihood, rel=1e-12)
    np.testing.assert_allclose(there.components.weight, here.components.weight, rtol=1e-11)
    np.testing.assert_allclose(there.components.mean / scale, here.components.mean, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(there.components.scatter / scale**2, here.components.scatter, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("far", [1e4, 1e8, 1e12])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_means_far_from_the_data(rng, covariance_type, far):
    """So far that moments about the parameters' means would lose all digits."""
    weights, means, covariances, kind = parameters(rng, covariance_type, 1, 3)
    X = draw(rng, 100, 3)
    s = mixture_e_step(X, weights, means + far, covariances, kind).components
    np.testing.assert_allclose(s.mean[0], X.mean(axis=0), rtol=1e-11, atol=1e-13)
    expected = np.cov(X.T, ddof=0) * 100
    expected = expected.diagonal() if covariance_type in ("diag", "spherical") else expected
    np.testing.assert_allclose(s.scatter[0], expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("covariance_type", TYPES)
def test_means_far_apart(rng, covariance_type):
    """Clusters 1e6 standard deviations apart: what is pooled must not be the difference of large numbers."""
    centres = np.array([[-1e6, 2e6, 0], [3e6, 1e6, (1e6).__float__()]])
    labels = np.arange(200) % 2
    X = centres[labels] + rng.standard_normal((200, 3))
    covariances = {
        "full": np.stack([np.eye(3)] * 2),
        "tied": np.eye(3),
        "diag": np.ones((2, 3)),
        "spherical": np.ones(2),
    }[covariance_type]
    s = mixture_e_step(X, [0.5, 0.5], centres, covariances, covariance_type).components
    expected = np.array([np.cov(X[labels == k].T, ddof=0) * 100 for k in range(2)])
    if covariance_type == "tied":
        expected = expected.sum(axis=0, keepdims=True)
    elif covariance_type != "full":
        expected = expected.diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(s.weight, [100, 100], rtol=1e-14)
    np.testing.assert_allclose(s.scatter, expected, rtol=0, atol=1e-9 * 100)


def test_columns_of_very_different_units(rng):
    """Standard deviations from 1e-5 to 1e5, correlated."""
    scale = 10.0 ** np.arange(-5, 6, 2)
    for kind in TYPES[:3]:
        weights, means, covariances, _ = parameters(rng, kind, 3, 6)
        X = draw(rng, 80, 6)
        here = mixture_e_step(X, weights, means, covariances, kind)
        square = scale**2 if kind == "diag" else scale[:, None] * scale
        there = mixture_e_step(X * scale, weights, means * scale, covariances * square, kind)
        np.testing.assert_allclose(there.components.weight, here.components.weight, rtol=1e-10)
        np.testing.assert_allclose(there.components.scatter / square, here.components.scatter, rtol=1e-9, atol=1e-9)


def test_components_without_weight(rng):
    """Probability 0: no responsibility, and no NaN from the logarithm."""
    for kind in TYPES:
        _, means, covariances, _ = parameters(rng, kind, 3, 2)
        weights = np.array([0.25, 0.0, 0.75])
        for X in (draw(rng, 40, 2), with_holes(rng, draw(rng, 40, 2), 0.2)):
            theta = weights, means, covariances, kind
            s = mixture_e_step(X, *theta)
            assert s.components.weight[1] == 0
            assert (s.components.mean[1] == 0).all()
            assert_statistics(s, oracle.e_step(X, *theta))
            assert_scores(X, theta)


def test_responsibilities_that_underflow(rng):
    """A component 1e3 standard deviations away gets exactly nothing, and disturbs nothing."""
    X = rng.standard_normal((50, 2))
    for kind in TYPES:
        covariances = {"full": np.stack([np.eye(2)] * 2), "tied": np.eye(2), "diag": np.ones((2, 2))}.get(
            kind, np.ones(2)
        )
        s = mixture_e_step(X, [0.5, 0.5], [[0, 0], [1e3, 1e3]], covariances, kind)
        assert s.components.weight.tolist() == [50, 0]
        one = gaussian_oracle.log_density(X, [[0, 0]], np.eye(2), "tied").sum() + 50 * np.log(0.5)
        assert s.log_likelihood == pytest.approx(one, rel=1e-13)


# ---- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_that_no_component_can_have_made(rng, covariance_type):
    """Their density is 0 even in logarithms; the E-step says which, the scores say what is so."""
    theta = parameters(rng, covariance_type, 2, 2)
    X = draw(rng, 70, 2)
    X[43] = 1e200
    X[50, 0] = nan
    with pytest.raises(ValueError, match="row 43 is so far from every component"):
        mixture_e_step(X, *theta)
    weights = np.ones(70)
    weights[43] = 0
    expected = oracle.e_step(np.delete(X, 43, 0), *theta)
    assert_statistics(mixture_e_step(X, *theta, sample_weight=weights), expected)
    mixture = _mixture_em.Mixture(theta[0], Gaussian(covariance_type, means=theta[1], covariances=theta[2]))
    assert mixture.log_prob(X)[43] == -inf
    assert np.isnan(mixture.posterior(X)[43]).all()
    assert np.isfinite(np.delete(mixture.posterior(X), 43, 0)).all()
    assert mixture.predict(X)[43] == theta[0].argmax()
    X[50, 1] = 1e200  # incomplete and impossible
    X[43] = 0
    with pytest.raises(ValueError, match="row 50 is so far from every component"):
        mixture_e_step(X, *theta)
    assert mixture.log_prob(X)[50] == -inf
    assert mixture.predict(X)[50] == theta[0].argmax()


@pytest.mark.parametrize("value", [inf, -inf])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_infinity_is_named(rng, covariance_type, value):
    theta = parameters(rng, covariance_type, 2, 3)
    mixture = _mixture_em.Mixture(theta[0], Gaussian(covariance_type, means=theta[1], covariances=theta[2]))
    for holes in (False, True):
        X = draw(rng, 100, 3)
        if holes:
            X[::3, 0] = nan
        X[77, 1] = value
        for f in (lambda X: mixture_e_step(X, *theta), mixture.log_prob, mixture.posterior, mixture.predict):
            with pytest.raises(ValueError, match=r"Input X contains infinity \(at row 77, column 1\)"):
                f(X)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": [1.0, 2.0]}, "X must have shape"),
        ({"X": np.zeros((0, 2))}, "at least one sample"),
        ({"X": np.zeros((3, 4))}, r"means must have shape \(K, 4\)"),
        ({"X": [["a", "b"]]}, "X must hold"),
        ({"weights": [0.5, 0.4]}, "probabilities that add up to 1"),
        ({"weights": [1.5, -0.5]}, "probabilities that add up to 1"),
        ({"weights": [1.0]}, r"weights must have shape \(2,\)"),
        ({"weights": [nan, 1.0]}, "weights must be finite"),
        ({"means": [[0.0], [1.0]]}, r"means must have shape \(K, 2\)"),
        ({"means": [[0.0, nan], [1.0, 1.0]]}, "means must be finite"),
        ({"covariances": np.eye(2)}, r"covariances must have shape \(2, 2, 2\)"),
        ({"covariances": None}, "give covariances or precisions_cholesky"),
        ({"covariance_type": "banana"}, "covariance_type must be one of"),
        ({"sample_weight": [1.0]}, r"sample_weight must have shape \(3,\)"),
        ({"sample_weight": [1.0, -1.0, 1.0]}, "not negative"),
        ({"sample_weight": [0.0, 0.0, 0.0]}, "all zero"),
        ({"n_threads": 0}, "n_threads must be a positive integer"),
        ({"precisions_cholesky": np.ones((2, 2, 2))}, "upper triangular"),
        ({"precisions_cholesky": -np.stack([np.eye(2)] * 2)}, "positive diagonal"),
    ],
)
def test_wrong_arguments(changes, message):
    given = {
        "X": np.ones((3, 2)),
        "weights": [0.5, 0.5],
        "means": np.arange(4.0).reshape(2, 2),
        "covariances": np.stack([np.eye(2)] * 2),
    }
    with pytest.raises((ValueError, TypeError), match=message):
        mixture_e_step(**given | changes)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_singular_covariances(covariance_type):
    covariances = {
        "full": [np.eye(2), np.ones((2, 2))],
        "tied": np.ones((2, 2)),
        "diag": [[1.0, 1.0], [1.0, 0.0]],
        "spherical": [1.0, 0.0],
    }[covariance_type]
    with pytest.raises(SingularCovarianceError, match="not positive definite"):
        mixture_e_step(np.zeros((3, 2)), [0.5, 0.5], np.zeros((2, 2)), covariances, covariance_type)


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_memory_does_not_grow_with_the_number_of_rows(rng, covariance_type, order):
    """n x K numbers would be 10 MB, n numbers 0.8 MB."""
    K, d, n = 13, 4, 100_000
    theta = parameters(rng, covariance_type, K, d)
    X = np.asarray(draw(rng, n, d), order=order)
    mixture_e_step(X[:100], *theta)  # imports
    tracemalloc.start()
    mixture_e_step(X, *theta)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5e6


def test_memory_of_scores_is_that_of_their_results(rng):
    theta = parameters(rng, "full", 13, 4)
    X = draw(rng, 100_000, 4)
    mixture = _mixture_em.Mixture(theta[0], Gaussian(means=theta[1], covariances=theta[2]))
    mixture.posterior(X[:100])
    for score, size in ((mixture.log_prob, 0.8e6), (mixture.posterior, 10.4e6), (mixture.predict, 0.8e6)):
        tracemalloc.start()
        score(X)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < size + 0.5e6
