"""Scores and sums of Naive Bayes against SciPy and NumPy: every kind of term, type, layout and shape."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse
from scipy.special import logsumexp
from scipy.stats import norm, poisson

from fastgen import _naive_bayes as nb
from fastgen._bayes import classes_of
from fastgen._naive_bayes import BinaryTerm, GaussianTerm, LinearTerm, PoissonTerm, TableTerm

nan, inf = np.nan, np.inf
WHAT = ("joint", "predict", "proba", "log_proba", "log_prob")
SHAPES = [(1, 1, 1), (31, 3, 2), (33, 2, 10), (200, 5, 3), (65, 64, 8), (70, 65, 9), (40, 130, 33), (5, 4, 100)]
FLOATS, INTEGERS = ("f8", "f4"), ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def wanted(joint, prior, what):
    if what == "joint":
        return joint
    if what == "predict":
        best = joint.argmax(axis=1)
        return np.where(np.isneginf(joint.max(axis=1)), prior.argmax(), best)
    total = logsumexp(joint, axis=1, keepdims=True)
    if what == "log_prob":
        return total[:, 0]
    with np.errstate(invalid="ignore"):
        return joint - total if what == "log_proba" else np.exp(joint - total)


def check(rng, X, terms, expected, rtol=1e-12):
    C = expected.shape[1]
    prior = np.log(rng.dirichlet(np.ones(C)))
    for what in WHAT:
        one, two, seven = (nb.score(X, terms, prior, what, threads) for threads in (1, 2, 7))
        np.testing.assert_allclose(one, wanted(expected + prior, prior, what), rtol=rtol, atol=1e-12, err_msg=what)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, seven)


def data(rng, dtype, n, d):
    return rng.normal(0, 2, (n, d)).astype(dtype) if dtype in FLOATS else rng.poisson(3, (n, d)).astype(dtype)


def parameters(rng, C, d):
    return rng.normal(size=(C, d)), rng.uniform(0.5, 2, (C, d))


def gaussian(X, means, variances):
    return np.nansum(norm.logpdf(X.astype(float)[:, None], means, np.sqrt(variances)), axis=2)


def binary(X, log_p, log_q, threshold):
    X = X.astype(float)[:, None]
    return np.where(np.isnan(X), 0.0, np.where(threshold < X, log_p, log_q)).sum(axis=2)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize(("n", "d", "C"), SHAPES)
def test_dense_terms(rng, dtype, n, d, C):
    X, (means, variances) = data(rng, dtype, n, d), parameters(rng, C, d)
    log_p, log_q = np.log(variances / 3), np.log1p(-variances / 3)
    check(rng, X, [GaussianTerm(None, means, variances)], gaussian(X, means, variances))
    check(rng, X, [BinaryTerm(None, log_p, log_q, 0.5)], binary(X, log_p, log_q, 0.5))
    check(rng, X, [LinearTerm(None, means, variances[:, 0])], X.astype(float) @ means.T + variances[:, 0])
    if dtype in INTEGERS:
        expected = poisson.logpmf(X.astype(float)[:, None], variances).sum(axis=2)
        check(rng, X, [PoissonTerm(None, variances)], expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("n", "d", "C"), SHAPES)
def test_missing_values(rng, dtype, n, d, C):
    X, (means, variances) = data(rng, dtype, n, d), parameters(rng, C, d)
    X[rng.random(X.shape) < 0.3] = nan
    log_p, log_q = np.log(variances / 3), np.log1p(-variances / 3)
    check(rng, X, [GaussianTerm(None, means, variances)], gaussian(X, means, variances))
    check(rng, X, [BinaryTerm(None, log_p, log_q, 0.5)], binary(X, log_p, log_q, 0.5))
    counts = np.round(np.abs(X))
    expected = np.nansum(poisson.logpmf(counts.astype(float)[:, None], variances), axis=2)
    check(rng, counts, [PoissonTerm(None, variances)], expected)
    codes = np.minimum(counts, 4)
    tables = tuple(rng.normal(size=(5, C)) for _ in range(d))
    parts = [
        np.where(np.isnan(c)[:, None], 0.0, t[np.nan_to_num(c).astype(int)])
        for c, t in zip(codes.T, tables, strict=True)
    ]
    check(rng, codes, [TableTerm(None, tables, None)], sum(parts))


def near_ties(rng, terms, prior, n, d, C, spread):
    """Rows whose two best classes are between 0 and some nats apart: close to borders, found by bisection."""
    low, high = spread * rng.standard_normal((2, n, d))
    labels = nb.score(low, terms, prior, "joint").argmax(axis=1)
    other = nb.score(high, terms, prior, "joint").argmax(axis=1) != labels
    low, high, labels = low[other], high[other], labels[other]
    near, far = np.zeros(len(low)), np.ones(len(low))
    for _ in range(60):
        middle = (near + far) / 2
        same = nb.score(low + middle[:, None] * (high - low), terms, prior, "joint").argmax(axis=1) == labels
        near, far = np.where(same, middle, near), np.where(same, far, middle)
    steps = near * (1 + 10.0 ** rng.uniform(-17, -1, near.shape) * rng.choice([-1, 1], near.shape))
    return low + steps[:, None] * (high - low)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("d", "C"), [(1, 2), (3, 5), (8, 10), (31, 7), (64, 3), (65, 10), (150, 40)])
@pytest.mark.parametrize("apart", [1e-7, 1e-3, 0.5, 30.0, 1e4])
def test_predictions_are_those_of_the_joint_however_close(rng, dtype, d, C, apart):
    """Most rows are decided in single precision: none may be decided wrongly."""
    means = apart * rng.standard_normal((C, d))
    variances = np.exp(min(apart, 1.0) * rng.standard_normal((C, d)))
    prior = min(apart, 1.0) * rng.standard_normal(C)
    terms = [GaussianTerm(None, means, variances)]
    X = near_ties(rng, terms, prior, 2000, d, C, max(1.0, apart)).astype(dtype)
    assert len(X) > 50
    joint = nb.score(X, terms, prior, "joint")
    np.testing.assert_array_equal(nb.score(X, terms, prior, "predict"), joint.argmax(axis=1))


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e-12, 1e-3, 1e3, 1e12, 1e20, 1e150])
@pytest.mark.parametrize("shift", [0.0, 1e3, 1e8])
def test_predictions_in_any_units(rng, scale, shift):
    n, d, C = 500, 9, 4
    means, variances = rng.standard_normal((C, d)), np.exp(rng.standard_normal((C, d)))
    terms = [GaussianTerm(None, scale * (means + shift), scale**2 * variances)]
    X = scale * (rng.standard_normal((n, d)) + shift)
    prior = np.log(rng.dirichlet(np.ones(C)))
    joint = nb.score(X, terms, prior, "joint")
    assert np.isfinite(joint).all()
    np.testing.assert_array_equal(nb.score(X, terms, prior, "predict"), joint.argmax(axis=1))


def test_predictions_of_equal_and_of_impossible_classes(rng):
    """Of equals the first; what single precision cannot tell, or cannot hold, is done in double precision."""
    means, variances = rng.standard_normal((6, 12)), np.exp(rng.standard_normal((6, 12)))
    means[4], variances[4] = means[1], variances[1]
    X = 3 * rng.standard_normal((999, 12))
    X[::100] *= 1e30
    with np.errstate(divide="ignore"):
        prior = np.log([0.2, 0.3, 0.0, 0.1, 0.3, 0.1])
    terms = [GaussianTerm(None, means, variances)]
    found = nb.score(X, terms, prior, "predict")
    np.testing.assert_array_equal(found, nb.score(X, terms, prior, "joint").argmax(axis=1))
    assert np.isin([0, 1, 3, 5], found).all()
    assert not np.isin([2, 4], found).any()
    X[7, 3] = nan
    np.testing.assert_array_equal(
        nb.score(X, terms, prior, "predict"), nb.score(X, terms, prior, "joint").argmax(axis=1)
    )


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(("n", "d", "C"), SHAPES)
def test_tables(rng, dtype, n, d, C):
    X = data(rng, dtype, n, d)
    tables = tuple(rng.normal(size=(int(size), C)) for size in X.max(axis=0) + 1)
    check(rng, X, [TableTerm(None, tables, None)], sum(t[c] for c, t in zip(X.T.astype(int), tables, strict=True)))
    fewer, unseen = tuple(t[: max(1, len(t) - 2)] for t in tables), tuple(rng.normal(size=C) for _ in tables)
    parts = [
        np.where((c < len(t))[:, None], t[np.minimum(c, len(t) - 1)], u)
        for c, t, u in zip(X.T.astype(int), fewer, unseen, strict=True)
    ]
    check(rng, X, [TableTerm(None, fewer, unseen)], sum(parts))
    if dtype.startswith("i"):
        X[0] = -1
        expected = sum(t[c] for c, t in zip(X.T.astype(int), tables, strict=True))
        expected[0] = 0.0
        check(rng, X, [TableTerm(None, tables, None)], expected)


def test_an_unseen_category_is_named(rng):
    X = rng.integers(0, 4, (100, 3))
    X[57, 2] = 4
    with pytest.raises(ValueError, match="row 57 holds category 4 in column 2, which has 0 to 3"):
        nb.score(X, [TableTerm(None, (np.zeros((4, 2)),) * 3, None)], np.zeros(2), "predict")


@pytest.mark.parametrize("wide", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("n", "d", "C"), SHAPES)
def test_sparse_rows(rng, wide, dtype, n, d, C):
    X = sparse.random(n, d, 0.4, format="csr", random_state=1, dtype=dtype)
    order = np.concatenate([rng.permutation(np.arange(i, j)) for i, j in pairwise(X.indptr)]).astype(int)
    X.data, X.indices = X.data[order], X.indices[order].astype(wide)  # indices are not sorted
    X.indptr = X.indptr.astype(wide)
    weights, variances = parameters(rng, C, d)
    log_p, log_q = np.log(variances / 3), np.log1p(-variances / 3)
    check(rng, X, [LinearTerm(None, weights, None)], X.toarray().astype(float) @ weights.T)
    check(rng, X, [BinaryTerm(None, log_p, log_q, 0.5)], binary(X.toarray(), log_p, log_q, 0.5))


def test_terms_for_columns_of_any_layout(rng):
    X = rng.normal(size=(60, 8))
    means, variances = parameters(rng, 3, 8)
    log_p, log_q = np.log(variances / 3), np.log1p(-variances / 3)
    some, others = np.array([6, 1]), np.array([0, 2, 7])
    terms = [
        GaussianTerm(some, means[:, some], variances[:, some]),
        BinaryTerm(others, log_p[:, others], log_q[:, others], 0.1),
    ]
    expected = gaussian(X[:, some], means[:, some], variances[:, some])
    expected = expected + binary(X[:, others], log_p[:, others], log_q[:, others], 0.1)
    spread = np.zeros((120, 24))
    spread[::2, ::3] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    for layout in (X, np.asfortranarray(X), spread[::2, ::3], X[::-1].copy()[::-1], read_only):
        check(rng, layout, terms, expected)


def test_infinite_weights(rng):
    X = np.array([[0, 2, 1], [1, 0, 0], [0, 0, 3.0]])
    weights = np.array([[-inf, -1.0, -2.0], [-1.0, -inf, -0.5]])
    expected = np.array([[-4, -inf], [-inf, -1], [-6, -1.5]])
    check(rng, X, [LinearTerm(None, weights, None)], expected)
    check(rng, sparse.csr_matrix(X), [LinearTerm(None, weights, None)], expected)
    check(rng, X, [PoissonTerm(None, np.array([[0.0, 1, 1], [1, 0, 2.0]]))],
          poisson.logpmf(X[:, None], [[0.0, 1, 1], [1, 0, 2.0]]).sum(axis=2))  # fmt: skip
    log_p, log_q = np.log([[0.5, 0.25, 1.0], [0.5, 0.5, 0.5]]), np.array([np.log([0.5, 0.75, 1]), np.log([0.5] * 3)])
    log_q[0, 2] = -inf  # column 2 is always there in class 0
    for layout in (X, sparse.csr_matrix(X)):
        check(rng, layout, [BinaryTerm(None, log_p, log_q, 0.5)], binary(X, log_p, log_q, 0.5))


@pytest.mark.parametrize("dtype", [*FLOATS, "i2", "u1", "i8"])
@pytest.mark.parametrize(("n", "d", "C"), [*SHAPES, (9000, 3, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_classes(rng, dtype, n, d, C, weighted):
    X, codes = data(rng, dtype, n, d), rng.integers(0, C, n)
    weights = rng.uniform(0.5, 2, n) if weighted else None
    w = np.ones(n) if weights is None else weights
    S = sparse.csr_matrix(X.astype("f8"))
    one_hot = np.zeros((C, n))
    one_hot[codes, np.arange(n)] = w
    for threshold in (None, 0.5):
        Z = X.astype(float) if threshold is None else (threshold < X) * 1.0
        for array in (X, S):
            results = [nb.class_sums(array, codes, weights, C, threshold, threads) for threads in (1, 2, 7)]
            np.testing.assert_allclose(results[0][0], one_hot.sum(axis=1), rtol=1e-13)
            np.testing.assert_allclose(results[0][1], one_hot @ Z, rtol=1e-12, atol=1e-12)
            for result in results[1:]:
                np.testing.assert_array_equal(result[1], results[0][1])
    if dtype not in FLOATS:
        sizes = [int(size) for size in X.max(axis=0) + 1]
        results = [nb.category_counts(X, codes, weights, C, sizes, threads) for threads in (1, 2, 7)]
        weight, counts, met = results[0]
        assert met == 0
        np.testing.assert_allclose(weight, one_hot.sum(axis=1), rtol=1e-13)
        for result in results[1:]:
            for one, other in zip(counts, result[1], strict=True):
                np.testing.assert_array_equal(one, other)
        for column, counted, size in zip(X.T, counts, sizes, strict=True):
            expected = [np.bincount(column[codes == c], w[codes == c], size) for c in range(C)]
            np.testing.assert_allclose(counted, expected, rtol=1e-13)


@pytest.mark.parametrize("shares", [(1.0,), (0.97, 0.0, 0.03), (0.3, 0.5, 0.1, 0.1), tuple([0.001] * 1000)])
def test_sums_of_sparse_classes_of_any_size(rng, shares):
    """Large classes are cut, small ones go together."""
    n, C = 12_000, len(shares)
    X, codes = sparse.random(n, 30, 0.2, format="csr", random_state=2), rng.choice(C, n, p=shares)
    results = [nb.class_sums(X, codes, None, C, n_threads=threads) for threads in (1, 2, 7)]
    one_hot = sparse.csr_matrix((np.ones(n), (codes, np.arange(n))), shape=(C, n))
    np.testing.assert_array_equal(results[0][0], np.bincount(codes, minlength=C))
    np.testing.assert_allclose(results[0][1], (one_hot @ X).toarray(), rtol=1e-12)
    for result in results[1:]:
        np.testing.assert_array_equal(result[1], results[0][1])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("C", [1, 3, 20, 40, 70])
@pytest.mark.parametrize("d", [5, 64, 150])
def test_rows_of_zeros_have_the_same_bits_among_others(rng, dtype, C, d):
    """Zeros are left out where they are many, in tiles of 32 rows; whether they are depends on the other rows."""
    rows = (rng.poisson(0.1, (32, d)) * rng.normal(1, 0.1, (32, d))).astype(dtype)
    full = rng.normal(1, 0.1, (31, d)).astype(dtype)
    weights = rng.normal(size=(C, d))
    for term in (
        LinearTerm(None, weights, None),
        BinaryTerm(None, -np.abs(weights), -np.abs(weights[::-1]) - 0.1, 0.5),
    ):
        together = nb.score(rows, [term], np.zeros(C), "joint")
        for i in range(32):
            mixed = nb.score(np.concatenate([full[: 7 + i % 3], rows[i : i + 1], full]), [term], np.zeros(C), "joint")
            np.testing.assert_array_equal(mixed[7 + i % 3], together[i])
    linear = LinearTerm(None, weights, None)
    rows[3, d // 2] = inf
    assert not np.isfinite(nb.score(rows, [linear], np.zeros(C), "joint")[3]).any()
    rows[3, d // 2] = nan
    found = nb.score(rows, [linear], np.zeros(C), "joint")
    rows[3, d // 2] = 0.0
    np.testing.assert_allclose(found, nb.score(rows, [linear], np.zeros(C), "joint"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["i8", "i4", "i2", "u1", "i1"])
@pytest.mark.parametrize("sizes", [(16,) * 20, (3, 4, 2, 4, 1), (1, 1), (5, 2, 7), (17, 2), (2,) * 6])
@pytest.mark.parametrize("layout", ["rows", "columns of a wider array", "by columns", "reversed"])
def test_counts_of_many_rows(rng, dtype, sizes, layout):
    """Pairs of columns are counted at a time; codes beyond are found all the same, and left out."""
    n, C, d = 60_000, 5, len(sizes)
    codes = rng.integers(0, C, n)
    X = np.stack([rng.integers(0, size, n) for size in sizes], axis=1).astype(dtype)
    odd = rng.integers(0, n, (4, d))
    for j, size in enumerate(sizes):
        X[odd[0, j], j] = size  # within the bits of a code, or not
        X[odd[1, j], j] = 120
        if X.dtype.kind == "i":
            X[odd[2, j], j] = -1
            X[odd[3, j], j] = np.iinfo(dtype).min
    if layout == "columns of a wider array":
        X = np.concatenate([X, X, X], axis=1)[:, d : 2 * d]
    elif layout == "by columns":
        X = np.asfortranarray(X)
    elif layout == "reversed":
        X = np.ascontiguousarray(X[::-1])[::-1]
    expected = []
    for j, size in enumerate(sizes):
        known = (X[:, j] >= 0) & (X[:, j] < size)
        expected.append(np.bincount(codes[known] * size + X[known, j], minlength=C * size).reshape(C, size))
    found = [nb.category_counts(X, codes, None, C, sizes, threads) for threads in (1, 2, 7)]
    for weight, counts, met in found:
        np.testing.assert_array_equal(weight, np.bincount(codes))
        for mine, theirs in zip(counts, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert met == (nb.UNSEEN | nb.NEGATIVE if X.dtype.kind == "i" else nb.UNSEEN)
    clean = np.minimum(np.maximum(X, 0), np.array(sizes, dtype) - 1)
    assert nb.category_counts(clean, codes, None, C, sizes)[2] == 0


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
@pytest.mark.parametrize("C", [1, 3, 10, 33])
@pytest.mark.parametrize("sizes", [(8, 1, 2), (16, 9), (17,), (3, 100, 16, 17) * 20, (2,) * 70])
def test_tables_of_few_and_of_many_categories(rng, dtype, C, sizes):
    X = np.stack([rng.integers(0, size, 100) for size in sizes], axis=1).astype(dtype)
    tables = tuple(rng.normal(size=(size, C)) for size in sizes)
    expected = sum(t[c] for c, t in zip(X.T.astype(int), tables, strict=True))
    check(rng, X, [TableTerm(None, tables, None)], expected)
    X[40, 0], unseen = 127, tuple(rng.normal(size=C) for _ in sizes)  # rows of its tile take another way
    found = nb.score(X, [TableTerm(None, tables, unseen)], np.zeros(C), "joint")
    others = np.delete(np.arange(100), 40)
    alone = nb.score(X[others], [TableTerm(None, tables, unseen)], np.zeros(C), "joint")
    np.testing.assert_array_equal(found[others], alone)
    rest = sum(t[c] for c, t in zip(X[40:41, 1:].T.astype(int), tables[1:], strict=True)) if len(sizes) > 1 else 0.0
    np.testing.assert_allclose(found[40], np.ravel(unseen[0] + rest), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "sums", "counts"),
    [(-2, nb.NEGATIVE, nb.NEGATIVE), (50, 0, nb.UNSEEN),
     (nan, nb.NOT_FINITE, nb.NEGATIVE), (inf, nb.NOT_FINITE, nb.UNSEEN)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "i8"])
def test_what_was_met_is_reported(rng, value, sums, counts, dtype):
    if dtype.startswith("i") and not np.isfinite(value):
        return
    X, codes = rng.integers(0, 4, (3000, 9)).astype(dtype), rng.integers(0, 400, 3000)
    codes[:3] = 399
    for row, column in ((0, 0), (2999, 8), (1500, 4)):
        Z = X.copy()
        Z[row, column] = value
        for C, groups in ((400, codes), (3, codes % 3)):
            for array in (Z, np.asfortranarray(Z), sparse.csr_matrix(Z.astype("f8"))):
                for threshold in (None, 1.0):
                    assert nb.class_sums(array, groups, None, C, threshold)[2] == sums
                    assert nb.class_sums(sparse.csr_matrix(X.astype("f8")), groups, None, C, threshold)[2] == 0
            assert nb.category_counts(Z, groups, None, C, [4] * 9)[2] == counts
            assert nb.category_counts(X, groups, None, C, [4] * 9)[2] == 0


@pytest.mark.parametrize("shift", [0.0, 1e8])
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize(("n", "d", "C"), [*SHAPES, (9000, 3, 4)])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_classes(rng, n, d, C, missing, shift, weighted):
    X, codes = np.round(rng.normal(size=(n, d)) * 1024) / 1024, rng.integers(0, C, n)
    weights = rng.uniform(0.5, 2, n) if weighted else None
    w = np.ones(n) if weights is None else weights
    X[rng.random(X.shape) < missing] = nan
    results = [nb.class_moments(X + shift, codes, weights, C, threads) for threads in (1, 2, 7)]
    weight, count, mean, scatter = results[0]
    np.testing.assert_allclose(weight, np.bincount(codes, w, C), rtol=1e-13)
    for c in range(C):
        Z, W = X[codes == c], w[codes == c][:, None] * ~np.isnan(X[codes == c])
        np.testing.assert_allclose(count[c], W.sum(axis=0), rtol=1e-13)
        total = np.maximum(W.sum(axis=0), 1e-300)
        center = np.nansum(W * Z, axis=0) / total
        np.testing.assert_allclose(mean[c] - shift * (count[c] > 0), center, rtol=0, atol=1e-13 + 3e-16 * shift)
        np.testing.assert_allclose(scatter[c], np.nansum(W * (Z - center) ** 2, axis=0), rtol=1e-12, atol=1e-13)
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_classes_of_integers(rng, dtype):
    low = 0 if dtype.startswith("u") else -100
    for labels in (
        rng.integers(low, 100, 5000),
        rng.choice([low, 7, 100], 3),
        np.array([low, np.iinfo(dtype).max], dtype),
    ):
        labels = labels.astype(dtype)
        classes, codes = classes_of(labels)
        expected, inverse = np.unique(labels, return_inverse=True)
        assert classes.dtype == labels.dtype
        np.testing.assert_array_equal(classes, expected)
        np.testing.assert_array_equal(codes, inverse)
