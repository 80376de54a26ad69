"""The fused E-step and the scores of mixtures of Gaussians, against the textbook, and what must not change them."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import em as oracle

from fastgen import GaussianMixture, families
from fastgen._mixture_em import Mixture
from fastgen.kernels import mixture_e_step, precision_cholesky

TYPES = ("full", "tied", "diag", "spherical")
# Around the edges of what the kernels do: d <= 4 in registers, blocks of 4 columns, lanes up to 112, then rows.
FEATURES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17)
ROWS = (1, 2, 31, 32, 33, 63, 64, 65, 127, 129, 255, 256, 257, 300)


def example(n, d, K, kind, seed=0, *, missing=0.0, dtype=np.float64, spread=2.0):
    """Data and parameters that fit them roughly."""
    rng = np.random.default_rng(seed)
    means = spread * rng.standard_normal((K, d))
    X = (rng.standard_normal((n, d)) + means[rng.integers(K, size=n)]).astype(dtype)
    if missing:
        X[rng.random(X.shape) < missing] = np.nan
    A = rng.standard_normal((K, d, d))
    full = A @ A.mT / d + np.eye(d)
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": rng.uniform(0.5, 2.0, (K, d)),
        "spherical": rng.uniform(0.5, 2.0, K),
    }[kind]
    weights = rng.dirichlet(np.full(K, 3.0))
    return X, (weights, means, covariances)


def check(statistics, X, sample_weight, parameters, kind, rtol=1e-10):
    """Compare with the textbook."""
    log_likelihood, weight, mean, scatter = oracle.e_step(X, sample_weight, *parameters, kind)
    got = statistics.components
    n = len(X) if sample_weight is None else sample_weight.sum()
    np.testing.assert_allclose(statistics.log_likelihood, log_likelihood, rtol=rtol)
    if kind in ("diag", "spherical"):
        r = oracle.posterior(oracle.joint(X, *parameters, kind))
        count, mean, scatter = oracle.columns(X, r if sample_weight is None else r * sample_weight[:, None])
        np.testing.assert_allclose(got.count, count, atol=rtol * n)
        mean = np.where(got.count > 0, mean, 0.0)
    np.testing.assert_allclose(got.weight, weight, atol=rtol * n)
    # A component that has next to no weight has next to no digits either: its share in the whole is compared.
    np.testing.assert_allclose(got.mean * weight[:, None], mean * weight[:, None], atol=rtol * n)
    if kind == "tied":
        scatter = scatter.sum(axis=0, keepdims=True)
    np.testing.assert_allclose(got.scatter, scatter, atol=rtol * n)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("K", [1, 2, 5])
def test_statistics_are_those_of_the_textbook(kind, d, K):
    X, parameters = example(150, d, K, kind)
    check(mixture_e_step(X, *parameters, kind), X, None, parameters, kind)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("d", [3, 6])
def test_any_number_of_rows(kind, n, d):
    X, parameters = example(n, d, 3, kind, seed=n)
    w = np.random.default_rng(n).uniform(0.0, 2.0, n)
    check(mixture_e_step(X, *parameters, kind, sample_weight=w), X, w, parameters, kind)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("d", [33, 66, 112, 113, 129])
def test_many_features(kind, d):
    """Beyond 112 features the second moments run along the rows."""
    X, parameters = example(140, d, 2, kind, spread=0.3)
    statistics = mixture_e_step(X, *parameters, kind)
    r = oracle.posterior(oracle.joint(X, *parameters, kind))
    np.testing.assert_allclose(statistics.components.weight, r.sum(axis=0), atol=1e-10)
    mean = (r.T @ X) / r.sum(axis=0)[:, None]
    np.testing.assert_allclose(statistics.components.mean, mean, atol=1e-10)
    centred = X - mean[:, None]
    scatter = np.einsum("nk,kni,knj->kij", r, centred, centred)
    if kind in ("diag", "spherical"):
        scatter = scatter.diagonal(axis1=1, axis2=2)
    elif kind == "tied":
        scatter = scatter.sum(axis=0, keepdims=True)
    np.testing.assert_allclose(statistics.components.scatter, scatter, atol=1e-9)


@pytest.mark.parametrize("K", [60, 300])
def test_many_components(K):
    """The sums of K components in lanes do not fit the caches: along the rows again."""
    X, parameters = example(400, 40, K, "full", spread=0.3)
    r = oracle.posterior(oracle.joint(X, *parameters, "full"))
    statistics = mixture_e_step(X, *parameters, "full")
    mean = (r.T @ X) / r.sum(axis=0)[:, None]
    for k in (0, K - 1):
        centred = X - mean[k]
        np.testing.assert_allclose(statistics.components.scatter[k], (centred.T * r[:, k]) @ centred, atol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("d", [1, 2, 5, 9])
def test_missing_values(kind, d):
    X, parameters = example(120, d, 3, kind, missing=0.3)
    X[:3] = np.nan  # nothing observed at all
    w = np.random.default_rng(1).uniform(0.0, 2.0, len(X))
    w[5:9] = 0.0
    check(mixture_e_step(X, *parameters, kind, sample_weight=w), X, w, parameters, kind)


def test_more_rows_of_a_pattern_than_a_piece():
    X, parameters = example(500, 3, 2, "full")
    X[:300, 1] = np.nan
    check(mixture_e_step(X, *parameters, "full"), X, None, parameters, "full")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_scores(kind, missing):
    X, parameters = example(333, 5, 4, kind, missing=missing)
    weights, means, covariances = parameters
    mixture = Mixture(weights, families.Gaussian(kind, means=means, covariances=covariances))
    joint = oracle.joint(X, *parameters, kind)
    np.testing.assert_allclose(mixture.log_prob(X), oracle.log_prob(joint), rtol=1e-12)
    np.testing.assert_allclose(mixture.posterior(X), oracle.posterior(joint), atol=1e-13)
    np.testing.assert_array_equal(mixture.predict(X), joint.argmax(axis=1))


def test_scores_where_no_component_gives_any_density():
    mixture = Mixture(np.array([0.2, 0.8]), families.Gaussian("diag", means=[[0.0], [1.0]], covariances=[[1.0], [1.0]]))
    X = np.array([[0.0], [1e200], [-1e300]])
    np.testing.assert_array_equal(np.isneginf(mixture.log_prob(X)), [False, True, True])
    np.testing.assert_array_equal(np.isnan(mixture.posterior(X)).all(axis=1), [False, True, True])
    np.testing.assert_array_equal(mixture.predict(X)[1:], [1, 1])  # by weight
    with pytest.raises(ValueError, match="row 1 is so far from every component"):
        mixture_e_step(X, [0.2, 0.8], [[0.0], [1.0]], [[1.0], [1.0]], "diag")
    statistics = mixture_e_step(X, [0.2, 0.8], [[0.0], [1.0]], [[1.0], [1.0]], "diag", sample_weight=[1.0, 0.0, 0.0])
    assert statistics.weight == 1.0


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_em_takes_the_steps_of_the_textbook(kind, missing):
    X, start = example(90, 3, 2, kind, missing=missing)
    (weights, means, covariances), history = oracle.em(X, None, start, kind, 5)
    fit = GaussianMixture(
        2,
        covariance_type=kind,
        reg_covar=0.0,
        tol=0.0,
        max_iter=5,
        weights_init=start[0],
        means_init=start[1],
        covariances_init=start[2],
    )
    with pytest.warns(UserWarning, match="did not converge"):
        fit.fit(X)
    np.testing.assert_allclose(fit.history_, history, rtol=1e-10)
    np.testing.assert_allclose(fit.weights_, weights, rtol=1e-10)
    np.testing.assert_allclose(fit.means_, means, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(fit.covariances_, covariances, rtol=1e-9, atol=1e-10)


# What must not matter ------------------------------------------------------------------------------------------------


def same(one, two, rtol=1e-10):
    np.testing.assert_allclose(one.log_likelihood, two.log_likelihood, rtol=rtol)
    n = two.weight
    for name in ("weight", "mean", "scatter"):
        a, b = getattr(one.components, name), getattr(two.components, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * n)


def identical(one, two):
    assert one.log_likelihood == two.log_likelihood
    for name in ("weight", "mean", "mean_rest", "scatter"):
        np.testing.assert_array_equal(getattr(one.components, name), getattr(two.components, name))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_the_same_bits_for_any_number_of_threads(kind, missing):
    X, parameters = example(30_000, 6, 4, kind, missing=missing)
    one = mixture_e_step(X, *parameters, kind, n_threads=1)
    for n_threads in (2, 7):
        identical(mixture_e_step(X, *parameters, kind, n_threads=n_threads), one)


@pytest.mark.parametrize("kind", TYPES)
def test_layout_and_dtype(kind):
    X, parameters = example(200, 5, 3, kind)
    X = X.astype(np.float32).astype(np.float64)
    expected = mixture_e_step(X, *parameters, kind)
    wide = np.full((400, 11), np.inf)
    wide[::2, 1:11:2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    for other in (np.asfortranarray(X), wide[::2, 1:11:2], X[::-1].copy()[::-1], read_only):
        before = other.copy()
        identical(mixture_e_step(other, *parameters, kind), expected)
        np.testing.assert_array_equal(other, before)
    identical(mixture_e_step(X.astype(np.float32), *parameters, kind), expected)  # widened, never rounded again


@pytest.mark.parametrize("kind", TYPES)
def test_integer_weights_are_copies_of_rows(kind):
    X, parameters = example(200, 4, 3, kind, missing=0.1)
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    same(
        mixture_e_step(X, *parameters, kind, sample_weight=counts.astype(float)),
        mixture_e_step(np.repeat(X, counts, axis=0), *parameters, kind),
    )


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=25)
@given(st.integers(1, 199), st.integers(0, 1000))
def test_blocks_add_up(kind, cut, seed):
    X, parameters = example(200, 4, 3, kind, seed=seed, missing=0.05 * (seed % 2))
    whole = mixture_e_step(X, *parameters, kind)
    parts = [mixture_e_step(block, *parameters, kind) for block in (X[:cut], X[cut:])]
    same(pickle.loads(pickle.dumps(parts[0])) + parts[1], whole)
    same(whole * 3.0, mixture_e_step(np.tile(X, (3, 1)), *parameters, kind))


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_order_of_rows_columns_and_components(kind, seed):
    X, (weights, means, covariances) = example(150, 4, 3, kind, seed=seed)
    rng = np.random.default_rng(seed)
    rows, columns, components = (rng.permutation(size) for size in (150, 4, 3))
    whole = mixture_e_step(X, weights, means, covariances, kind)
    same(mixture_e_step(X[rows], weights, means, covariances, kind), whole)
    moved = families.Gaussian(kind, means=means, covariances=covariances).marginal(columns).select(components)
    other = mixture_e_step(X[:, columns], weights[components], moved.means, moved.covariances, kind)
    np.testing.assert_allclose(other.log_likelihood, whole.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(other.components.mean, whole.components.mean[components][:, columns], atol=1e-10)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_an_offset_costs_no_digits(kind, missing):
    """Data whose sum with 1e8 is exact: only the means may change."""
    X, (weights, means, covariances) = example(300, 3, 3, kind, missing=missing)
    X = np.round(X * 2**20) / 2**20
    means = np.round(means * 2**20) / 2**20
    near = mixture_e_step(X, weights, means, covariances, kind)
    far = mixture_e_step(X + 2.0**27, weights, means + 2.0**27, covariances, kind)
    np.testing.assert_allclose(far.log_likelihood, near.log_likelihood, rtol=1e-13)
    np.testing.assert_allclose(far.components.scatter, near.components.scatter, rtol=1e-11, atol=1e-11)
    centre = (far.components.mean - 2.0**27) + far.components.mean_rest
    np.testing.assert_allclose(centre, near.components.mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("scale", [2.0**-20, 2.0**-300, 2.0**300])
def test_scale(kind, scale):
    X, (weights, means, covariances) = example(300, 3, 3, kind)
    one = mixture_e_step(X, weights, means, covariances, kind)
    other = mixture_e_step(X * scale, weights, means * scale, covariances * scale**2, kind)
    np.testing.assert_allclose(other.components.mean / scale, one.components.mean, rtol=1e-12)
    np.testing.assert_allclose(other.components.scatter / scale / scale, one.components.scatter, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", TYPES)
def test_means_that_are_far_from_the_data(kind):
    """The second moments are taken again about the new means: nothing cancels."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 3)) + 1e8
    shape = {"full": np.eye(3)[None], "tied": np.eye(3), "diag": np.ones((1, 3)), "spherical": np.ones(1)}[kind]
    statistics = mixture_e_step(X, [1.0], np.zeros((1, 3)), shape * 1e12, kind)
    centred = X - X.mean(axis=0)
    expected = centred.T @ centred
    scatter = statistics.components.scatter[0]
    np.testing.assert_allclose(scatter, expected if scatter.ndim == 2 else expected.diagonal(), rtol=1e-9, atol=1e-9)


def test_tied_covariance_that_is_small_beside_the_distances():
    """Total less between would lose ten digits here; the scatter within is summed up instead."""
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [1e5, 2e5], [-3e5, 1e5]])
    z = rng.integers(3, size=600)
    X = means[z] + rng.standard_normal((600, 2))
    statistics = mixture_e_step(X, np.full(3, 1 / 3), means, np.eye(2), "tied")
    scatter = sum((X[z == k] - X[z == k].mean(axis=0)).T @ (X[z == k] - X[z == k].mean(axis=0)) for k in range(3))
    np.testing.assert_allclose(statistics.components.scatter[0], scatter, rtol=1e-9, atol=1e-7)


def test_factors_instead_of_covariances():
    X, (weights, means, covariances) = example(100, 3, 2, "full")
    factors = precision_cholesky(covariances)
    identical(
        mixture_e_step(X, weights, means, None, precisions_cholesky=factors),
        mixture_e_step(X, weights, means, covariances),
    )


def test_memory():
    """Nothing of the size of n x K, or of X."""
    X, parameters = example(200_000, 8, 16, "full")
    mixture_e_step(X[:100], *parameters)
    tracemalloc.start()
    mixture_e_step(X, *parameters, n_threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20  # n x K doubles are 26 MB


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"X": [[np.inf, 0.0]]}, ValueError, "row 0, column 0"),
        ({"X": np.zeros((0, 2))}, ValueError, "at least one sample"),
        ({"X": np.zeros((3, 3))}, ValueError, "means must have shape"),
        ({"X": np.zeros((3, 2), complex)}, TypeError, "real numbers"),
        ({"weights": [0.5, 0.6]}, ValueError, "add up to 1"),
        ({"weights": [-0.5, 1.5]}, ValueError, "add up to 1"),
        ({"weights": [1.0]}, ValueError, "weights must have shape"),
        ({"means": [[0.0, np.nan], [0.0, 0.0]]}, ValueError, "finite"),
        ({"covariances": np.zeros((2, 2, 2))}, ValueError, "not positive definite"),
        ({"covariances": np.ones((2, 2))}, ValueError, "shape"),
        ({"covariances": None}, ValueError, "give covariances"),
        ({"covariance_type": "round"}, ValueError, "covariance_type must be one of"),
        ({"sample_weight": [1.0]}, ValueError, "sample_weight must have shape"),
        ({"sample_weight": [1.0, -1.0, 1.0]}, ValueError, "not negative"),
        ({"n_threads": 0}, ValueError, "n_threads"),
    ],
)
def test_what_is_refused(change, error, match):
    arguments = {
        "X": np.arange(6.0).reshape(3, 2),
        "weights": [0.5, 0.5],
        "means": np.zeros((2, 2)),
        "covariances": np.stack([np.eye(2)] * 2),
    }
    with pytest.raises(error, match=match):
        mixture_e_step(**(arguments | change))
