"""fastgen.kernels: Gaussian log-densities against the textbook, in every layout, dtype and numerical corner."""

import tracemalloc
import warnings

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import gaussian as oracle
from scipy import stats

from fastgen.errors import SingularCovarianceError
from fastgen.kernels import gaussian_log_density, logsumexp, precision_cholesky, softmax

TYPES = ("full", "tied", "diag", "spherical")
EPS = np.finfo(np.float64).eps
nan, inf = np.nan, np.inf


def with_holes(rng, X, share=0.3):
    X = X.copy()
    X[rng.random(X.shape) < share] = nan
    return X


# ---- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [*range(1, 18), 33, 64, 100])
@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_against_textbook(rng, covariance_type, K, d):
    means, covariances = oracle.random_parameters(rng, covariance_type, K, d)
    X = 2 * rng.standard_normal((37, d))
    expected = oracle.log_density(X, means, covariances, covariance_type)
    # Condition numbers are below 100; sums of d squares: rounding is a small multiple of d * cond * eps.
    np.testing.assert_allclose(gaussian_log_density(X, means, covariances, covariance_type), expected, rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 8, 9, 17, 33])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_missing_values_are_marginalised(rng, covariance_type, d):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, d)
    X = with_holes(rng, rng.standard_normal((67, d)))
    X[5] = nan
    X[6] = 1.0
    expected = oracle.log_density(X, means, covariances, covariance_type)
    got = gaussian_log_density(X, means, covariances, covariance_type)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    assert np.array_equal(got[5], np.zeros(3))  # nothing observed: log 1


@pytest.mark.parametrize("d", [1, 3, 10])
def test_against_scipy(rng, d):
    mean, covariance = rng.standard_normal(d), oracle.random_covariance(rng, d)
    X = rng.standard_normal((50, d))
    expected = stats.multivariate_normal(mean, covariance).logpdf(X)
    np.testing.assert_allclose(gaussian_log_density(X, mean, covariance), expected, rtol=1e-12)


def test_standard_normal_at_zero():
    # -log(2 pi) / 2 per feature, mpmath
    for d in (1, 2, 5, 50):
        for covariance_type, covariances in zip(
            TYPES, (np.eye(d)[None], np.eye(d), np.ones((1, d)), np.ones(1)), strict=True
        ):
            got = gaussian_log_density(np.zeros((1, d)), np.zeros((1, d)), covariances, covariance_type)
            assert got[0, 0] == pytest.approx(-0.9189385332046727 * d, rel=4 * EPS)


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 63, 64, 65, 1000])
@pytest.mark.parametrize("d", [1, 2, 4, 6])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_any_number_of_rows(rng, covariance_type, d, n):
    """Each row has the bits that it has alone: full tiles, part tiles, and one component written straight to out."""
    for K in (1, 3):
        means, covariances = oracle.random_parameters(rng, covariance_type, K, d)
        X = rng.standard_normal((n, d))
        got = gaussian_log_density(X, means, covariances, covariance_type)
        assert got.shape == (n, K)
        for i in {0, n // 2, n - 1}:
            assert np.array_equal(got[i], gaussian_log_density(X[i : i + 1], means, covariances, covariance_type)[0])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_gaussian_without_the_component_axis(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 1, 3)
    X = with_holes(rng, rng.standard_normal((40, 3)))
    expected = gaussian_log_density(X, means, covariances, covariance_type)
    single = covariances if covariance_type == "tied" else covariances[0]
    got = gaussian_log_density(X, means[0], single, covariance_type)
    assert got.shape == (40,)
    assert np.array_equal(got, expected[:, 0])
    out = np.empty(40)
    assert gaussian_log_density(X, means[0], single, covariance_type, out=out) is out
    assert np.array_equal(out, got)


# ---- what X may be -----------------------------------------------------------------------------------------------


def layouts(X):
    n, d = X.shape
    wide = np.full((3 * n, 2 * d), 77, X.dtype)
    wide[::3, ::2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    record = np.zeros(n, np.dtype([("a", "u1"), ("x", X.dtype, (d,))]))  # strides that are not a multiple of 8
    record["x"] = X
    return {
        "F": np.asfortranarray(X),
        "strided": wide[::3, ::2],
        "row slices": wide[::3, ::2].copy()[:, :],
        "negative rows": X[::-1].copy()[::-1],
        "negative columns": X[:, ::-1].copy()[:, ::-1],
        "negative F": np.asfortranarray(X[::-1, ::-1])[::-1, ::-1],
        "read-only": read_only,
        "byte-swapped": X.astype(X.dtype.newbyteorder()),
        "packed record": record["x"],
        "object": X.astype(object),
        "list": X.tolist(),
        "pandas": pd.DataFrame(X),
        "memoryview": memoryview(np.ascontiguousarray(X)),
    }


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_every_layout_gives_the_same_bits(rng, covariance_type, d):
    for K in (1, 2):
        means, covariances = oracle.random_parameters(rng, covariance_type, K, d)
        for X in (rng.standard_normal((70, d)), with_holes(rng, rng.standard_normal((70, d)))):
            expected = gaussian_log_density(X, means, covariances, covariance_type)
            for name, layout in layouts(X).items():
                got = gaussian_log_density(layout, means, covariances, covariance_type)
                assert np.array_equal(got, expected), name
                assert got.dtype == np.float64


@pytest.mark.parametrize("covariance_type", TYPES)
def test_repeated_rows_and_columns_by_zero_strides(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 5)
    for X in (np.broadcast_to(rng.standard_normal(5), (70, 5)), np.broadcast_to(rng.standard_normal((70, 1)), (70, 5))):
        expected = gaussian_log_density(X.copy(), means, covariances, covariance_type)
        assert np.array_equal(gaussian_log_density(X, means, covariances, covariance_type), expected)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", ">i8", "u8", "?"])
def test_integers_and_booleans_become_float64(rng, dtype):
    X = rng.integers(0, 2, (40, 3)).astype(dtype)
    means, covariances = oracle.random_parameters(rng, "full", 2, 3)
    got = gaussian_log_density(X, means, covariances)
    assert got.dtype == np.float64
    assert np.array_equal(got, gaussian_log_density(X.astype(float), means, covariances))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("d", [1, 2, 3, 5, 9])
def test_float32_is_computed_in_float64_and_rounded_once(rng, covariance_type, d):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, d)
    for X in (rng.standard_normal((70, d)), with_holes(rng, rng.standard_normal((70, d)))):
        single = X.astype(np.float32)
        double = gaussian_log_density(single.astype(np.float64), means, covariances, covariance_type)
        got = gaussian_log_density(single, means, covariances, covariance_type)
        assert got.dtype == np.float32
        assert np.array_equal(got, double.astype(np.float32))
        for name in ("F", "strided", "negative F", "byte-swapped", "packed record"):
            assert np.array_equal(
                gaussian_log_density(layouts(single)[name], means, covariances, covariance_type), got
            ), name
        out = np.empty((70, 3))
        gaussian_log_density(single, means, covariances, covariance_type, out=out)
        assert np.array_equal(out, double)


def test_float16_becomes_float32(rng):
    X = rng.standard_normal((40, 3)).astype(np.float16)
    means, covariances = oracle.random_parameters(rng, "full", 2, 3)
    got = gaussian_log_density(X, means, covariances)
    assert got.dtype == np.float32
    assert np.array_equal(got, gaussian_log_density(X.astype(np.float32), means, covariances))


def test_parameters_of_any_layout_and_dtype(rng):
    means, covariances = oracle.random_parameters(rng, "full", 2, 3)
    X = rng.standard_normal((10, 3))
    expected = gaussian_log_density(X, means, covariances)
    swapped = covariances.astype(">f8").transpose(0, 2, 1)
    assert np.array_equal(gaussian_log_density(X, means.tolist(), swapped), expected)
    assert np.array_equal(gaussian_log_density(X, np.asfortranarray(means), covariances.tolist()), expected)
    assert np.array_equal(
        gaussian_log_density(X, [0, 1, 2], np.eye(3, dtype=int)), gaussian_log_density(X, [0.0, 1.0, 2.0], np.eye(3))
    )


def test_nothing_that_comes_in_is_modified(rng):
    for covariance_type in TYPES:
        means, covariances = oracle.random_parameters(rng, covariance_type, 2, 4)
        X = with_holes(rng, rng.standard_normal((70, 4)))
        factors = precision_cholesky(covariances, covariance_type)
        given = (X, means, covariances, factors)
        before = [array.copy() for array in given]
        gaussian_log_density(X, means, covariances, covariance_type)
        gaussian_log_density(X, means, None, covariance_type, precisions_cholesky=factors)
        for array, copy in zip(given, before, strict=True):
            assert np.array_equal(array, copy, equal_nan=True)


# ---- out ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_out_of_every_legal_kind(rng, covariance_type, K, missing):
    means, covariances = oracle.random_parameters(rng, covariance_type, K, 4)
    X = rng.standard_normal((70, 4))
    X = with_holes(rng, X) if missing else X
    expected = gaussian_log_density(X, means, covariances, covariance_type)
    wide = np.full((140, 2 * K), 5.0)
    for out in (
        np.full((70, K), nan),
        np.full((K, 70), nan).T,
        wide[::2, ::2],
        np.full((70, K), nan)[::-1],
        np.full((70, K), nan)[::-1, ::-1],
    ):
        assert gaussian_log_density(X, means, covariances, covariance_type, out=out, n_threads=2) is out
        assert np.array_equal(out, expected)
    assert (wide[1::2] == 5).all()
    assert (wide[:, 1::2] == 5).all()
    single = np.full((K, 70), nan, np.float32).T
    gaussian_log_density(X.astype(np.float32), means, covariances, covariance_type, out=single)
    assert np.array_equal(single, gaussian_log_density(X.astype(np.float32), means, covariances, covariance_type))


def frozen(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "out",
    [
        np.empty((10, 3)),
        np.empty((2, 10)),
        np.empty(20),
        np.empty((10, 2, 1)),
        np.empty((10, 2), np.float32),  # would lose digits of float64 data
        np.empty((10, 2), np.longdouble),
        np.empty((10, 2), complex),
        np.empty((10, 2), int),
        np.empty((10, 2), object),
        np.empty((10, 2), ">f8"),
        frozen(np.empty((10, 2))),
        np.zeros(161, np.uint8)[1:].view(np.float64).reshape(10, 2),
        [[0.0, 0.0]] * 10,
        pd.DataFrame(np.empty((10, 2))),
        0.0,
    ],
    ids=lambda out: f"{type(out).__name__}-{getattr(out, 'dtype', '')}-{getattr(out, 'shape', '')}",
)
def test_out_of_an_illegal_kind(rng, out):
    with pytest.raises(ValueError, match=r"^out "):
        gaussian_log_density(rng.standard_normal((10, 3)), np.zeros((2, 3)), np.ones((2, 3)), "diag", out=out)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("hole", [False, True])
def test_out_that_overlaps_x_is_right_or_refused(rng, covariance_type, hole):
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 4)
    X = rng.standard_normal((96, 4))
    if hole:
        X[3, 0] = X[40, 2] = nan
    expected = gaussian_log_density(X, means, covariances, covariance_type)
    for take in (slice(None), slice(None, None, -1)):
        data = X.copy()
        out = data[take, :2]
        try:
            gaussian_log_density(data, means, covariances, covariance_type, out=out)
        except ValueError:
            continue
        np.testing.assert_array_equal(out, expected)


# ---- invariances -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 4, 6, 11])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_shift_by_1e8_changes_no_bit(rng, covariance_type, d, missing):
    """Data and means are whole numbers: the shift is exact, and so is the difference that the kernel forms."""
    _, covariances = oracle.random_parameters(rng, covariance_type, 4, d)
    means = rng.integers(-5, 5, (4, d)).astype(float)
    X = rng.integers(-20, 20, (65, d)).astype(float)
    X = with_holes(rng, X) if missing else X
    expected = gaussian_log_density(X, means, covariances, covariance_type)
    assert np.array_equal(gaussian_log_density(X + 1e8, means + 1e8, covariances, covariance_type), expected)


@pytest.mark.parametrize("scale", [1e-6, 1e6, 2.0**-100, 2.0**200])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_scale_adds_d_log_scale(rng, covariance_type, scale):
    d = 6
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, d)
    X = with_holes(rng, rng.standard_normal((65, d)), 0.1)
    observed = (~np.isnan(X)).sum(axis=1, keepdims=True)
    expected = gaussian_log_density(X, means, covariances, covariance_type) - observed * np.log(scale)
    got = gaussian_log_density(X * scale, means * scale, covariances * scale**2, covariance_type)
    # Rounding of the scaled values, times condition numbers below 100.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * max(1, abs(d * np.log(scale))))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_do_not_influence_each_other(rng, covariance_type):
    """Permuted rows, a subset of rows: the same bits."""
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, 7)
    for X in (rng.standard_normal((101, 7)), with_holes(rng, rng.standard_normal((101, 7)))):
        whole = gaussian_log_density(X, means, covariances, covariance_type)
        for rows in (rng.permutation(101), np.arange(13, 80), np.array([100]), np.flatnonzero(rng.random(101) < 0.3)):
            got = gaussian_log_density(X[rows], means, covariances, covariance_type)
            assert np.array_equal(got, whole[rows])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_permuted_columns(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, 9)
    X = with_holes(rng, rng.standard_normal((50, 9)), 0.1)
    order = rng.permutation(9)
    permuted = {
        "full": lambda c: c[:, order][:, :, order],
        "tied": lambda c: c[order][:, order],
        "diag": lambda c: c[:, order],
        "spherical": lambda c: c,
    }[covariance_type](covariances)
    np.testing.assert_allclose(
        gaussian_log_density(X[:, order], means[:, order], permuted, covariance_type),
        gaussian_log_density(X, means, covariances, covariance_type),
        rtol=1e-12,  # another order of summation, condition numbers below 100
    )


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_threads_change_no_bit(rng, covariance_type, missing):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, 5)
    X = rng.standard_normal((3001, 5))
    X = with_holes(rng, X, 0.02) if missing else X
    one = gaussian_log_density(X, means, covariances, covariance_type, n_threads=1)
    for n_threads in (2, 7, None):
        got = gaussian_log_density(X, means, covariances, covariance_type, n_threads=n_threads)
        assert np.array_equal(got, one)


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, "2", True])
def test_bad_n_threads(n_threads):
    with pytest.raises(ValueError, match="n_threads must be a positive integer"):
        gaussian_log_density(np.zeros((3, 1)), [0.0], [[1.0]], n_threads=n_threads)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double has no more digits than double here")
def test_float32_with_an_offset_of_1e3_against_extended_precision(rng):
    d = 5
    covariance = oracle.random_covariance(rng, d)
    mean = 1e3 + rng.standard_normal(d)
    X = (mean + rng.standard_normal((200, d))).astype(np.float32)
    exact = oracle.log_density_longdouble(X, mean, covariance)
    got = gaussian_log_density(X, mean, covariance)
    # float64 within; one rounding to float32 at the end: half an ulp
    np.testing.assert_allclose(got, exact.astype(float), rtol=0.5001 * np.finfo(np.float32).eps)
    out = np.empty(200)
    gaussian_log_density(X, mean, covariance, out=out)
    np.testing.assert_allclose(out, exact.astype(float), rtol=1e-13)


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9])
def test_tied_components_far_apart(rng, distance):
    """The difference of whitened numbers would lose distance * eps: they must be as exact as full covariances."""
    d, K = 4, 3
    covariance = oracle.random_covariance(rng, d)
    means = distance * np.arange(K)[:, None] * np.ones(d)
    X = means[rng.integers(K, size=100)] + rng.standard_normal((100, d))
    tied = gaussian_log_density(X, means, covariance, "tied")
    full = gaussian_log_density(X, means, np.stack([covariance] * K), "full")
    # Below the limit at which the kernel changes its way (4096 sd) whitened numbers of that size are subtracted:
    # z has an absolute error of 4096 eps, z^2 of a few times that.
    np.testing.assert_allclose(tied, full, rtol=1e-11 if distance < 4096 else 1e-14)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("size", [1e200, 1e-200, 1e300, 1e-300])
def test_extreme_data_far_from_the_mean(covariance_type, size):
    """A quadratic form beyond the largest double is a density of 0: -inf, never NaN; tiny data are at the mean."""
    covariances = {"full": [np.eye(5) + 0.5], "tied": np.eye(5) + 0.5, "diag": np.ones((1, 5)), "spherical": [1.0]}
    X = np.full((40, 5), size)
    X[1::2] *= -1
    X[2, 3] = nan
    got = gaussian_log_density(X, np.zeros((1, 5)), covariances[covariance_type], covariance_type)
    at_mean = gaussian_log_density(0 * X, np.zeros((1, 5)), covariances[covariance_type], covariance_type)
    assert np.array_equal(got, np.full((40, 1), -inf) if size > 1 else at_mean)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("variance", [1e-300, 1e-307, 1e300, 1e307])
def test_extreme_variances(rng, covariance_type, variance):
    """Within the range of doubles units do not matter: 30 standard deviations off is -450 per column in any."""
    d = 3
    covariances = {
        "full": variance * np.eye(d)[None],
        "tied": variance * np.eye(d),
        "diag": np.full((1, d), variance),
        "spherical": np.full(1, variance),
    }[covariance_type]
    X = np.array([0.0, 1.0, 30.0])[:, None] * np.sqrt(variance) * np.ones(d)
    expected = -0.5 * d * (np.log(2 * np.pi) + np.log(variance) + np.array([0.0, 1.0, 900.0]))
    got = gaussian_log_density(X, np.zeros((1, d)), covariances, covariance_type)[:, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-13)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_overflow_within_a_correlated_quadratic_form_is_density_zero(covariance_type):
    """inf - inf must not turn a density of 0 into NaN."""
    covariance = 1e-240 * np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    X = np.array([[1e200, 1e200, 1e200]])
    covariances = covariance[None] if covariance_type == "full" else covariance
    assert gaussian_log_density(X, np.zeros((1, 3)), covariances, covariance_type)[0, 0] == -inf


@pytest.mark.parametrize("covariance_type", TYPES)
def test_means_at_the_edge_of_the_range(covariance_type):
    """The mean of the means overflows; nothing may be said about it, and the component that is near has its density."""
    means = np.full((3, 2), 1.5e308)
    unit = {
        "full": np.stack([np.eye(2)] * 3),
        "tied": np.eye(2),
        "diag": np.ones((3, 2)),
        "spherical": [1.0] * 3,
    }
    got = gaussian_log_density(means, means, unit[covariance_type], covariance_type)
    np.testing.assert_allclose(got, np.full((3, 3), -np.log(2 * np.pi)), rtol=4 * EPS)


# ---- missing values and infinity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
def test_column_never_observed_and_rows_never_observed(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 3)
    X = rng.standard_normal((40, 3))
    X[:, 1] = nan
    expected = oracle.log_density(X, means, covariances, covariance_type)
    np.testing.assert_allclose(gaussian_log_density(X, means, covariances, covariance_type), expected, rtol=1e-12)
    X[:] = nan
    assert not gaussian_log_density(X, means, covariances, covariance_type).any()
    unit = {"full": [[[1.0]]], "tied": [[1.0]], "diag": [[1.0]], "spherical": [1.0]}[covariance_type]
    one_column = gaussian_log_density([[nan], [0.0]], [[0.0]], unit, covariance_type)
    assert one_column[0, 0] == 0


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_beside_missing_values_keep_their_bits(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 6)
    X = rng.standard_normal((70, 6))
    complete = gaussian_log_density(X, means, covariances, covariance_type)
    X[::7, 2] = nan
    rest = np.arange(70) % 7 != 0
    got = gaussian_log_density(X, means, covariances, covariance_type)
    # DIAG with missing values takes another path, which adds up in another order.
    if covariance_type in ("full", "tied"):
        assert np.array_equal(got[rest], complete[rest])
    else:
        np.testing.assert_allclose(got[rest], complete[rest], rtol=20 * EPS)


def test_more_than_64_columns_of_patterns(rng):
    d = 70
    means, covariances = oracle.random_parameters(rng, "full", 1, d)
    X = rng.standard_normal((20, d))
    X[np.arange(20), np.arange(20) + 50] = nan
    X[0, :69] = nan
    np.testing.assert_allclose(
        gaussian_log_density(X, means, covariances), oracle.log_density(X, means, covariances), rtol=1e-12
    )


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("value", [inf, -inf])
@pytest.mark.parametrize("beside_nan", [False, True])
def test_infinity_is_an_error_that_says_where(rng, covariance_type, value, beside_nan):
    means, covariances = oracle.random_parameters(rng, covariance_type, 2, 5)
    X = rng.standard_normal((5000, 5))
    X[4321, 2] = value
    if beside_nan:
        X[::10, 1] = nan
    for data in (X, X.astype(np.float32), np.asfortranarray(X)):
        with pytest.raises(ValueError, match=r"X contains infinity \(at row 4321, column 2\)"):
            gaussian_log_density(data, means, covariances, covariance_type)


# ---- parameters that are wrong -----------------------------------------------------------------------------------


def test_not_positive_definite_is_named():
    good, indefinite = np.eye(2), np.array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(SingularCovarianceError, match=r"covariances\[1\] is not positive definite: column 1") as caught:
        gaussian_log_density(np.zeros((1, 2)), np.zeros((2, 2)), [good, indefinite])
    assert caught.value.component == 1
    assert isinstance(caught.value, ValueError)
    with pytest.raises(SingularCovarianceError, match="the variance of column 1 is -3"):
        precision_cholesky([np.diag([1.0, -3.0])])
    with pytest.raises(SingularCovarianceError, match=r"covariances\[2\].*the variance of column 1 is 0"):
        precision_cholesky([[1.0, 1.0], [1.0, 2.0], [3.0, 0.0]], "diag")
    with pytest.raises(SingularCovarianceError, match=r"covariances\[0\].*the variance is -1"):
        precision_cholesky([-1.0], "spherical")


@pytest.mark.parametrize("units", [1.0, 1e-12, 1e12])
def test_duplicated_column_is_singular_in_any_units(rng, units):
    X = rng.standard_normal((100, 4))
    X = np.c_[X, units * X[:, 1]]
    with pytest.raises(SingularCovarianceError, match="column 4 is, up to rounding, a linear combination"):
        precision_cholesky(np.cov(X.T), "tied")


def test_units_do_not_make_a_covariance_singular(rng):
    scale = np.array([1e-9, 1.0, 1e9])
    covariance = oracle.random_covariance(rng, 3)
    U = precision_cholesky(covariance * scale * scale[:, None], "tied")
    np.testing.assert_allclose(U, precision_cholesky(covariance, "tied") / scale[:, None], rtol=1e-13, atol=1e-30)


def test_asymmetric():
    covariance = np.eye(3)
    covariance[0, 2] = 1e-3
    with pytest.raises(ValueError, match="covariances is not symmetric"):
        precision_cholesky(covariance, "tied")
    with pytest.raises(ValueError, match=r"covariances\[0\] is not symmetric"):
        gaussian_log_density(np.zeros((1, 3)), np.zeros((1, 3)), covariance[None])
    covariance[0, 2] = 1e-10  # what rounding may leave
    precision_cholesky(covariance, "tied")


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 20, 64])
def test_precision_cholesky_is_a_factor_of_the_inverse(rng, d):
    covariances = oracle.random_covariance(rng, d, 2)
    U = precision_cholesky(covariances)
    assert not np.tril(U, -1).any()
    assert (U.diagonal(axis1=1, axis2=2) > 0).all()
    np.testing.assert_allclose(U @ U.mT, np.linalg.inv(covariances), rtol=1e-10, atol=1e-12)
    assert np.array_equal(precision_cholesky(covariances[0], "tied"), U[0])
    assert np.array_equal(precision_cholesky([[4.0, 0.25]], "diag"), [[0.5, 2.0]])
    assert np.array_equal(precision_cholesky([4.0, 0.25], "spherical"), [0.5, 2.0])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_precisions_cholesky_saves_the_factor(rng, covariance_type):
    means, covariances = oracle.random_parameters(rng, covariance_type, 3, 4)
    X = with_holes(rng, rng.standard_normal((50, 4)))
    factors = precision_cholesky(covariances, covariance_type)
    got = gaussian_log_density(X, means, None, covariance_type, precisions_cholesky=factors)
    assert np.array_equal(got, gaussian_log_density(X, means, covariances, covariance_type))


@pytest.mark.parametrize(
    ("covariance_type", "factors", "message"),
    [
        ("full", [[[1.0, 0.0], [0.5, 1.0]]], "upper triangular"),
        ("tied", [[1.0, 0.0], [1e-300, 1.0]], "upper triangular"),
        ("full", [[[1.0, 0.5], [0.0, -1.0]]], "positive diagonal"),
        ("tied", [[0.0, 0.5], [0.0, 1.0]], "positive diagonal"),
        ("diag", [[1.0, -1.0]], "positive"),
        ("spherical", [0.0], "positive"),
        ("full", [[[1.0, nan], [0.0, 1.0]]], "finite"),
        ("spherical", [inf], "finite"),
    ],
)
def test_wrong_precisions_cholesky(covariance_type, factors, message):
    with pytest.raises(ValueError, match=f"precisions_cholesky must .*{message}"):
        gaussian_log_density(np.zeros((2, 2)), np.zeros((1, 2)), None, covariance_type, precisions_cholesky=factors)


@pytest.mark.parametrize(
    ("means", "covariances", "covariance_type", "message"),
    [
        (np.zeros((2, 4)), np.ones((2, 3)), "diag", "means must have shape"),
        (np.zeros((0, 3)), np.ones((0, 3)), "diag", "means must have shape"),
        (np.zeros((1, 2, 3)), np.ones((2, 3)), "diag", "means must have shape"),
        (0.0, np.ones((2, 3)), "diag", "means must have shape"),
        (np.zeros((2, 3)), np.ones(3), "diag", "covariances must have shape"),
        (np.zeros((2, 3)), np.ones((1, 3)), "diag", "covariances must have shape"),
        (np.zeros((2, 3)), np.ones((2, 3)), "full", "covariances must have shape"),
        (np.zeros((2, 3)), np.eye(3)[None], "tied", "covariances must have shape"),
        (np.zeros((2, 3)), np.ones(3), "spherical", "covariances must have shape"),
        (np.zeros(3), np.ones(1), "spherical", "covariances must have shape"),
        (np.zeros((2, 3)), None, "full", "give covariances or precisions_cholesky"),
        (np.zeros((2, 3)), np.full((2, 3), nan), "diag", "covariances must be finite"),
        (np.full((2, 3), nan), np.ones((2, 3)), "diag", "means must be finite"),
        (np.full((2, 3), inf), np.ones((2, 3)), "diag", "means must be finite"),
        (np.zeros((2, 3)), np.ones((2, 3)), "diagonal", "covariance_type must be one of"),
        (np.zeros((2, 3)), np.ones((2, 3)), None, "covariance_type must be one of"),
        (np.zeros((2, 3)), np.ones((2, 3)), ["diag"], "covariance_type must be one of"),
    ],
)
def test_wrong_parameters(means, covariances, covariance_type, message):
    with pytest.raises(ValueError, match=message):
        gaussian_log_density(np.zeros((5, 3)), means, covariances, covariance_type)


@pytest.mark.parametrize(
    "X", [np.zeros((0, 2)), np.zeros((2, 0)), np.zeros(2), 1.0, np.zeros((1, 1, 2)), [[1, 2], [3]]]
)
def test_wrong_shape_of_x(X):
    with pytest.raises(ValueError, match=r"^X must"):
        gaussian_log_density(X, [0.0, 0.0], [1.0, 1.0], "diag")


@pytest.mark.parametrize(
    "X", [np.zeros((2, 2), complex), np.zeros((2, 2), "U3"), np.zeros((2, 2), "S1"), np.zeros((2, 2), "m8[s]")]
)
def test_dtypes_that_are_not_real_numbers(X):
    with pytest.raises(TypeError, match="X must hold real numbers, got dtype"):
        gaussian_log_density(X, [0.0, 0.0], [1.0, 1.0], "diag")


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double here")
def test_long_double_is_refused():
    with pytest.raises(TypeError, match="convert it to float64 first"):
        gaussian_log_density(np.zeros((2, 2), np.longdouble), [0.0, 0.0], [1.0, 1.0], "diag")


@pytest.mark.parametrize(
    "value", ["three", {}, None, 1j, 10**400, [1]], ids=["text", "dict", "None", "complex", "huge", "list"]
)
def test_objects_that_are_not_numbers(value):
    """Anything float() does not take is a ValueError or TypeError; None is a missing value, as in pandas."""
    X = np.empty((1, 2), object)
    X[0] = [0.0, 0.0]
    X[0, 1] = value
    if value is None:
        assert gaussian_log_density(X, [0.0, 0.0], [1.0, 1.0], "diag")[0] == pytest.approx(-0.9189385332046727)
    else:
        with pytest.raises((ValueError, TypeError), match="X must"):
            gaussian_log_density(X, [0.0, 0.0], [1.0, 1.0], "diag")


def test_masked_cells_do_not_pass_for_values():
    """A mask says that what lies beneath is no value: NaN or an error, not the value."""
    X = np.ma.masked_array([[0.0, 1e6]], mask=[[False, True]])
    try:
        got = gaussian_log_density(X, [0.0, 0.0], [1.0, 1.0], "diag")
    except (ValueError, TypeError):
        return
    assert got[0] == pytest.approx(-0.9189385332046727)


def test_pandas_missing_values_are_missing_or_refused():
    frame = pd.DataFrame({"a": pd.array([0.0, None], dtype="Float64"), "b": [0.0, 0.0]})
    try:
        got = gaussian_log_density(frame, [0.0, 0.0], [1.0, 1.0], "diag")
    except ValueError:  # refused: pandas.NA is not a number
        return
    np.testing.assert_allclose(got, [-2 * 0.9189385332046727, -0.9189385332046727])


# ---- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_memory_beyond_input_and_output_is_bounded(rng, covariance_type, dtype):
    n, d = 1_000_000, 4
    means, covariances = oracle.random_parameters(rng, covariance_type, 1, d)
    X = rng.standard_normal((n, d), dtype)
    out = np.empty((n, 1))
    tracemalloc.start()
    try:
        gaussian_log_density(X, means, covariances, covariance_type, out=out, n_threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("function", [logsumexp, softmax])
def test_memory_of_reductions_is_bounded(rng, function):
    a = rng.standard_normal((500_000, 4))
    out = np.empty(500_000) if function is logsumexp else a
    tracemalloc.start()
    try:
        function(a, out=out, n_threads=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


# ---- garbage -----------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, nan, inf, -inf, 1e308, -1e308, 1e-308, 5e-324, 1e200, 1e8]), st.floats(-5, 5)
)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
arrays = st.one_of(
    shapes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=numbers)),
    hnp.arrays(st.sampled_from(["f4", "f2", "i4", "u1", "?", "c16", "g", "U2", "S3", "M8[s]", "m8[s]", ">f8"]), shapes),
    st.recursive(st.none() | numbers | st.text(max_size=2) | st.integers() | st.just(1j), st.lists, max_leaves=6),
)
outs = st.one_of(st.none(), st.none(), st.none(), arrays)
threads = st.sampled_from([None, None, 1, 2, 0, -3, 2.5, "1"])


def attempt(function, *args, **kwargs):
    """The result, or None where a ValueError or TypeError was raised: any other exception, or a warning, fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=np.exceptions.ComplexWarning)
        try:
            return function(*args, **kwargs)
        except (ValueError, TypeError):
            return None


@settings(max_examples=300)
@given(arrays, outs, threads)
def test_fuzz_reductions(a, out, n_threads):
    with np.errstate(all="ignore"):
        for function in (logsumexp, softmax):
            result = attempt(function, a, out=out, n_threads=n_threads)
            if result is not None:
                array = np.asarray(a, np.float64)
                m = array.max(axis=1, keepdims=True)
                m = np.where(np.isfinite(m), m, 0)
                exponential = np.exp(array - m)
                total = exponential.sum(axis=1, keepdims=True)
                expected = (m + np.log(total))[:, 0] if function is logsumexp else exponential / total
                assert result.shape == expected.shape
                np.testing.assert_allclose(result, expected, rtol=1e-6 if result.dtype != float else 1e-12, atol=1e-300)


@settings(max_examples=400)
@given(arrays, arrays, arrays, st.sampled_from([*TYPES, *TYPES, "x", None, 3]), outs, threads, st.booleans())
def test_fuzz_gaussian_log_density(X, means, covariances, covariance_type, out, n_threads, factors):
    given = {"covariances": None, "precisions_cholesky": covariances} if factors else {"covariances": covariances}
    attempt(gaussian_log_density, X, means, covariance_type=covariance_type, out=out, n_threads=n_threads, **given)


@settings(max_examples=300)
@given(arrays, st.sampled_from([*TYPES, "x", None]))
def test_fuzz_precision_cholesky(covariances, covariance_type):
    result = attempt(precision_cholesky, covariances, covariance_type)
    if result is not None:
        assert result.shape == np.shape(covariances)
        assert np.isfinite(result).all()


@st.composite
def problems(draw):
    """Shapes that fit, values that may not."""
    covariance_type = draw(st.sampled_from(TYPES))
    n, K, d = draw(st.integers(1, 70)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    elements = draw(
        st.sampled_from(
            [
                st.floats(-5, 5, width=32),
                st.floats(-5, 5, width=32) | st.just(nan),
                st.floats(width=32, allow_infinity=False),
                st.floats(width=32),
            ]
        )
    )
    X = draw(hnp.arrays(dtype, (n, d), elements=elements, fill=st.floats(-5, 5, width=32)))
    X = X[:: draw(st.sampled_from([1, -1, 2])), :: draw(st.sampled_from([1, -1]))]
    means = draw(hnp.arrays(np.float64, (K, d), elements=st.floats(-1e3, 1e3)))
    seed = draw(st.integers(0, 1000))
    _, covariances = oracle.random_parameters(np.random.default_rng(seed), covariance_type, K, d)
    return X, means, covariances * draw(st.sampled_from([1.0, 1e-9, 1e9])), covariance_type


@settings(max_examples=300)
@given(problems(), st.sampled_from([None, 1, 2, 5]))
def test_fuzz_is_right_or_refused(problem, n_threads):
    X, means, covariances, covariance_type = problem
    result = attempt(gaussian_log_density, X, means, covariances, covariance_type, n_threads=n_threads)
    if np.isinf(X).any():
        assert result is None
        return
    with np.errstate(over="ignore"):
        expected = oracle.log_density(X, means, covariances, covariance_type)
        if result.dtype == np.float32:
            expected = expected.astype(np.float32)
    # z = x - mean cancels nothing that was not lost in X; condition numbers are below 1000.
    np.testing.assert_allclose(result, expected, rtol=1e-6 if result.dtype == np.float32 else 1e-11, atol=1e-11)
