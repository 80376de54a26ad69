"""exp, log, log-sum-exp and softmax: accuracy, special values, vector tails, layouts."""

import mpmath
import numpy as np
import pytest
from scipy import special

from fastgen._kernels import _simd
from fastgen.kernels import logsumexp, softmax

inf, nan = np.inf, np.nan
EPS = np.finfo(np.float64).eps
LONG = np.finfo(np.longdouble).eps < 1e-18
"""Whether long double has the digits to judge a double by."""


def apply(kernel, x):
    out = np.full(len(x), 12345.0)
    kernel(np.ascontiguousarray(x, np.float64), out)
    return out


def ulps(got, exact):
    """Distance from a long double, in units in the last place of the result."""
    return np.abs(got.astype(np.longdouble) - exact) / np.spacing(np.abs(exact).astype(np.float64))


# ---- exp and log -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not LONG, reason="long double has no more digits than double here")
@pytest.mark.parametrize(("low", "high"), [(-708, 709.7), (-40, 0), (-1, 1), (-1e-3, 1e-3), (-1e-300, 1e-300)])
def test_exp_is_within_1_3_ulp(rng, low, high):
    x = rng.uniform(low, high, 200_000)
    assert ulps(apply(_simd.exp, x), np.exp(x.astype(np.longdouble))).max() <= 1.3  # stated in simd.h


@pytest.mark.skipif(not LONG, reason="long double has no more digits than double here")
@pytest.mark.parametrize(("low", "high"), [(-1074, 1024), (-30, 30), (-1, 1), (-1e-6, 1e-6)])
def test_log_is_within_1_ulp(rng, low, high):
    x = np.exp2(rng.uniform(low, high, 200_000))
    x = x[(x > 0) & (x < inf)]
    assert ulps(apply(_simd.log, x), np.log(x.astype(np.longdouble))).max() <= 1.0  # stated in simd.h


def test_exp_and_log_against_mpmath(rng):
    """mpmath needs no long double: the same bounds on fewer points."""
    mpmath.mp.prec = 200
    x = np.r_[rng.uniform(-708, 709.7, 300), rng.uniform(-1, 1, 300), np.log(2) * (np.arange(-40, 40) + 0.5)]
    for got, value in zip(apply(_simd.exp, x), x, strict=True):
        exact = mpmath.exp(mpmath.mpf(float(value)))
        assert abs(mpmath.mpf(float(got)) - exact) <= 1.3 * np.spacing(float(exact))
    x = np.r_[np.exp2(rng.uniform(-1074, 1023, 300)), rng.uniform(0.5, 2, 300), np.nextafter(1, [0, 2])]
    for got, value in zip(apply(_simd.log, x), x, strict=True):
        exact = mpmath.log(mpmath.mpf(float(value)))
        assert abs(mpmath.mpf(float(got)) - exact) <= np.spacing(abs(float(exact)))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (nan, nan),
        (inf, inf),
        (-inf, 0.0),
        (0.0, 1.0),
        (-0.0, 1.0),
        (5e-324, 1.0),
        (-5e-324, 1.0),
        (709.782712893384, 1.797693134862273e308),  # mpmath: the largest double that exp maps below infinity
        (709.7827128933841, inf),  # the next one
        (710.0, inf),
        (1e308, inf),
        (-708.0000000000001, 0.0),  # under -708 results are flushed
        (-1e308, 0.0),
    ],
)
def test_exp_of_special_values(x, expected):
    for n in range(1, 18):  # whole vectors, and the tail
        np.testing.assert_allclose(apply(_simd.exp, [x] * n), [expected] * n, rtol=2 * EPS, atol=0)


def test_exp_keeps_its_accuracy_down_to_where_it_flushes():
    assert apply(_simd.exp, [-708.0])[0] == pytest.approx(3.307553003638408e-308, rel=2 * EPS, abs=0)  # mpmath


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (nan, nan),
        (inf, inf),
        (-inf, nan),
        (0.0, -inf),
        (-0.0, -inf),
        (-1.0, nan),
        (-5e-324, nan),
        (1.0, 0.0),
        (5e-324, -744.4400719213812),  # -1074 log 2, mpmath
        (2.2250738585072014e-308, -708.3964185322641),  # -1022 log 2, mpmath
        (2.225073858507201e-308, -708.3964185322641),  # the largest subnormal
        (1.7976931348623157e308, 709.782712893384),  # the largest double, mpmath
    ],
)
def test_log_of_special_values(x, expected):
    for n in range(1, 18):
        np.testing.assert_allclose(apply(_simd.log, [x] * n), [expected] * n, rtol=EPS, atol=0)


@pytest.mark.parametrize("kernel", [_simd.exp, _simd.log], ids=["exp", "log"])
def test_every_length_gives_the_same_bits_and_stays_within_its_array(rng, kernel):
    x = rng.uniform(0.01, 5, 40)
    whole = apply(kernel, x)
    for n in range(41):
        out = np.full(48, 7.0)
        kernel(x[:n], out[:n])
        assert np.array_equal(out[:n], whole[:n])
        assert (out[n:] == 7.0).all()


def test_special_values_do_not_touch_their_neighbours(rng):
    x = rng.uniform(-5, 5, 64)
    alone = apply(_simd.exp, x)
    for special_value in (nan, inf, -inf, 1e300):
        mixed = x.copy()
        mixed[::3] = special_value
        rest = np.arange(64) % 3 != 0
        assert np.array_equal(apply(_simd.exp, mixed)[rest], alone[rest])


# ---- logsumexp and softmax ---------------------------------------------------------------------------------------


def exact_logsumexp(a):
    a = np.asarray(a, np.longdouble)
    m = a.max(axis=1, keepdims=True)
    return m[:, 0] + np.log(np.exp(a - m).sum(axis=1))


@pytest.mark.parametrize("K", [1, 2, 3, 4, 7, 8, 9, 33, 1000])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_logsumexp_and_softmax_against_scipy(rng, n, K):
    a = rng.normal(scale=20, size=(n, K)) - 500
    # 4 ulp, "of the exact value of the largest term plus log(sum)": log(sum) <= log K does not cancel here.
    np.testing.assert_allclose(logsumexp(a), special.logsumexp(a, axis=1), rtol=4 * EPS, atol=0)
    p = softmax(a)
    # p > exp(-708): relative error is that of a - lse, rounded, i.e. the rounding of arguments up to ~200.
    np.testing.assert_allclose(p, special.softmax(a, axis=1), rtol=300 * EPS, atol=0)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=(K + 4) * EPS)


@pytest.mark.skipif(not LONG, reason="long double has no more digits than double here")
@pytest.mark.parametrize("K", [2, 50, 5000])
def test_logsumexp_is_within_4_ulp(rng, K):
    a = rng.uniform(1, 30, (300, K))
    assert ulps(logsumexp(a), exact_logsumexp(a)).max() <= 4  # the docstring


def test_rows_without_a_posterior():
    a = np.array([[-inf, -inf, -inf], [-inf, 0.0, -inf], [nan, 0.0, 1.0], [0.0, 1.0, nan], [nan, inf, -inf]])
    np.testing.assert_array_equal(logsumexp(a), [-inf, 0.0, nan, nan, nan])
    np.testing.assert_array_equal(softmax(a), [[nan] * 3, [0, 1, 0], [nan] * 3, [nan] * 3, [nan] * 3])


def test_plus_infinity():
    assert np.array_equal(logsumexp([[inf, 0.0], [inf, inf], [inf, -inf]]), [inf, inf, inf])
    p = softmax([[inf, 0.0]])
    assert np.isnan(p[0, 0])  # inf / inf
    assert p[0, 1] == 0.0


def test_one_column():
    a = np.array([[-1e308], [-3.5], [0.0], [1e308], [-inf]])
    assert np.array_equal(logsumexp(a), a[:, 0])
    np.testing.assert_array_equal(softmax(a)[:, 0], [1, 1, 1, 1, nan])


def test_extreme_differences_neither_overflow_nor_underflow():
    a = np.array([[-1e308, 1e308], [1e5, 1e5], [-1e5, -1e5]])
    np.testing.assert_allclose(logsumexp(a), [1e308, 1e5 + np.log(2), -1e5 + np.log(2)], rtol=EPS)
    np.testing.assert_array_equal(softmax(a), [[0, 1], [0.5, 0.5], [0.5, 0.5]])


def layouts(a):
    n, K = a.shape
    wide = np.full((2 * n, 3 * K), nan, a.dtype)
    wide[::2, ::3] = a
    read_only = a.copy()
    read_only.flags.writeable = False
    padded = np.zeros(a.nbytes + 1, np.uint8)
    unaligned = padded[1:].view(a.dtype).reshape(n, K)
    unaligned[...] = a
    return {
        "C": a,
        "F": np.asfortranarray(a),
        "strided": wide[::2, ::3],
        "negative": a[::-1, ::-1].copy()[::-1, ::-1],
        "transposed": a.T.copy().T,
        "read-only": read_only,
        "swapped": a.astype(a.dtype.newbyteorder()),
        "unaligned": unaligned,
        "list": a.tolist(),
    }


@pytest.mark.parametrize("n_threads", [1, 2, 7])
@pytest.mark.parametrize("function", [logsumexp, softmax])
def test_layouts_give_the_same_bits(rng, function, n_threads):
    a = rng.normal(size=(101, 5))
    expected = function(a)
    for name, layout in layouts(a).items():
        assert np.array_equal(function(layout, n_threads=n_threads), expected), name


@pytest.mark.parametrize("function", [logsumexp, softmax])
def test_float32_is_computed_in_float64_and_rounded_once(rng, function):
    a = rng.normal(scale=10, size=(77, 6)).astype(np.float32)
    result = function(a)
    assert result.dtype == np.float32
    assert np.array_equal(result, function(a.astype(np.float64)).astype(np.float32))
    for name, layout in layouts(a).items():
        if name != "list":
            assert np.array_equal(function(layout), result), name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_out(rng, dtype):
    a = rng.normal(size=(70, 3)).astype(dtype)
    lse, p = logsumexp(a), softmax(a)
    out = np.full(70, nan, dtype)
    assert logsumexp(a, out=out) is out
    assert np.array_equal(out, lse)
    wide = np.full((140, 6), 5.0, dtype)
    for target in (
        np.empty((70, 3), dtype),
        np.empty((3, 70), dtype).T,
        wide[::2, ::2],
        np.empty((70, 3), dtype)[::-1],
    ):
        assert softmax(a, out=target) is target
        assert np.array_equal(target, p)
    assert (wide[1::2] == 5).all()
    assert (wide[:, 1::2] == 5).all()
    for own in (a.copy(), np.asfortranarray(a)):
        assert softmax(own, out=own, n_threads=2) is own
        assert np.array_equal(own, p)


@pytest.mark.parametrize("overlap", ["reversed rows", "reversed columns", "shifted rows", "transposed"])
def test_softmax_into_an_overlapping_out_is_right_or_refused(rng, overlap):
    store = rng.normal(size=(96, 95))
    a, out = {
        "reversed rows": (store, store[::-1]),
        "reversed columns": (store, store[:, ::-1]),
        "shifted rows": (store[:-1], store[1:]),
        "transposed": (store[:95], store[:95].T),
    }[overlap]
    expected = softmax(a.copy())
    try:
        softmax(a, out=out)
    except ValueError:
        return
    assert np.array_equal(out, expected)


def test_logsumexp_into_its_own_input_is_right_or_refused(rng):
    store = rng.normal(size=200)
    a, out = store[:198].reshape(66, 3), store[:66]
    expected = logsumexp(a.copy())
    try:
        logsumexp(a, out=out)
    except ValueError:
        return
    assert np.array_equal(out, expected)


def read_only(*shape):
    array = np.empty(shape)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("function", "out"),
    [
        (logsumexp, np.empty(5)),
        (logsumexp, np.empty((4, 1))),
        (logsumexp, np.empty(4, np.float32)),
        (logsumexp, np.empty(4, ">f8")),
        (logsumexp, np.empty(8)[::2]),
        (logsumexp, [0.0] * 4),
        (logsumexp, read_only(4)),
        (softmax, np.empty((4, 2))),
        (softmax, np.empty((3, 4))),
        (softmax, np.empty((4, 3), np.float32)),
        (softmax, np.empty((4, 3), complex)),
        (softmax, read_only(4, 3)),
        (softmax, np.zeros(97, np.uint8)[1:].view(np.float64).reshape(4, 3)),
        (softmax, "out"),
    ],
    ids=repr,
)
def test_wrong_out(function, out):
    with pytest.raises(ValueError, match="out "):
        function(np.zeros((4, 3)), out=out)


@pytest.mark.parametrize("function", [logsumexp, softmax])
@pytest.mark.parametrize("a", [[], [[]], np.zeros((0, 3)), np.zeros((3, 0)), 1.0, np.zeros(3), np.zeros((2, 2, 2))])
def test_wrong_shape(function, a):
    with pytest.raises(ValueError, match=r"^a must"):
        function(a)


@pytest.mark.parametrize("function", [logsumexp, softmax])
def test_wrong_dtype(function):
    for a in (np.zeros((2, 2), complex), np.array([["a"]]), np.zeros((2, 2), "M8[s]")):
        with pytest.raises(TypeError, match=r"^a must hold real numbers"):
            function(a)


@pytest.mark.parametrize("function", [logsumexp, softmax])
def test_input_is_not_modified(rng, function):
    a = rng.normal(size=(50, 4))
    before = a.copy()
    function(a)
    assert np.array_equal(a, before)
