"""The functions for Naive Bayes in `fastgen.kernels`, as other libraries call them."""

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import norm

from fastgen import kernels
from fastgen.kernels import (
    BinaryTerm,
    GaussianTerm,
    LinearTerm,
    PoissonTerm,
    TableTerm,
    category_counts,
    class_moments,
    class_sums,
    naive_bayes_log_joint,
)

nan, inf = np.nan, np.inf
ONES = np.ones((2, 3))


def test_columns_of_different_kinds(rng):
    X = np.column_stack([rng.normal(size=50), rng.integers(0, 3, 50), rng.integers(0, 2, 50)])
    X[rng.random(X.shape) < 0.2] = nan
    tables, log_p = (np.log(rng.dirichlet(np.ones(3), 2).T),), np.log(rng.uniform(0.1, 0.9, (2, 1)))
    log_q, prior = np.log1p(-np.exp(log_p)), np.log([0.3, 0.7])
    terms = [
        GaussianTerm([0], [[0], [1]], [[1], [2]]),
        TableTerm([1], tables, None),
        BinaryTerm([2], log_p, log_q, 0.5),
    ]
    parts = np.stack(
        [
            norm.logpdf(X[:, :1], [0, 1], np.sqrt([1, 2])),
            tables[0][np.nan_to_num(X[:, 1]).astype(int)],
            np.where(X[:, 2:] > 0.5, log_p.T, log_q.T),
        ]
    )
    expected = np.where(np.isnan(X.T)[:, :, None], 0, parts).sum(axis=0) + prior
    joint = naive_bayes_log_joint(X, terms, prior)
    np.testing.assert_allclose(joint, expected, rtol=1e-12)
    out = np.full((50, 4), 7.0)
    assert naive_bayes_log_joint(X, terms, prior, what="proba", out=out[:, 1:3]).base is not None
    np.testing.assert_allclose(out[:, 1:3], np.exp(joint - np.logaddexp(*joint.T)[:, None]), rtol=1e-12)
    np.testing.assert_array_equal(out[:, [0, 3]], 7)
    np.testing.assert_array_equal(naive_bayes_log_joint(X, terms, prior, what="predict"), joint.argmax(axis=1))


@pytest.mark.parametrize("dtype", [bool, ">i4", ">f8", np.float16, np.uint8, object])
def test_types_that_kernels_do_not_read(rng, dtype):
    X, y = rng.integers(0, 2, (40, 3)), rng.integers(0, 2, 40)
    Z, term = X.astype(dtype), LinearTerm(None, rng.normal(size=(2, 3)), [1.0, -inf])
    np.testing.assert_array_equal(naive_bayes_log_joint(Z, term), naive_bayes_log_joint(X, term))
    for mine, theirs in zip(class_sums(Z, y, 2), class_sums(X, y, 2), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(class_moments(Z, y, 2).scatter, class_moments(X, y, 2).scatter)
    for mine, theirs in zip(category_counts(Z, y, 2, 2)[1], category_counts(X, y, 2, 2)[1], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_sparse_rows_of_any_format(rng):
    X, y = rng.poisson(0.3, (60, 9)), rng.integers(0, 4, 60)
    term = LinearTerm(None, rng.normal(size=(4, 9)), None)
    for S in (sparse.csr_array(X), sparse.csc_matrix(X), sparse.coo_array(X)):
        np.testing.assert_allclose(
            naive_bayes_log_joint(S, term), naive_bayes_log_joint(X, term), rtol=1e-12, atol=1e-14
        )
        np.testing.assert_array_equal(class_sums(S, y, 4)[1], class_sums(X, y, 4)[1])
        np.testing.assert_array_equal(class_sums(S, y, 4, threshold=1)[1], class_sums(X > 1, y, 4)[1])


def test_missing_values_of_sums(rng):
    X, y = np.array([[1.0, nan], [3.0, 4.0]]), [1, 1]
    moments = class_moments(X, y, 3, sample_weight=[1, 2])
    np.testing.assert_array_equal(moments.weight, [0, 3, 0])
    np.testing.assert_array_equal(moments.cells, [[0, 0], [3, 2], [0, 0]])
    np.testing.assert_allclose(moments.mean[1], [7 / 3, 4])
    np.testing.assert_allclose(moments.scatter[1], [8 / 3, 0], atol=1e-15)
    weight, counts = category_counts([[0, nan], [2, 1]], y, 2, [3, 2])
    np.testing.assert_array_equal(weight, [0, 2])
    np.testing.assert_array_equal(counts[0], [[0, 0, 0], [1, 0, 1]])
    np.testing.assert_array_equal(counts[1], [[0, 0], [0, 1]])


GOOD = GaussianTerm(None, ONES, ONES)


@pytest.mark.parametrize(
    ("terms", "prior", "match"),
    [
        ([], None, "1 to 4"),
        ([GOOD] * 5, None, "1 to 4"),
        (GaussianTerm(None, ONES, 0 * ONES), None, "positive"),
        (GaussianTerm(None, ONES, ONES[:, :2]), None, "variances"),
        (GaussianTerm(None, nan * ONES, ONES), None, "finite"),
        ([GOOD, LinearTerm(None, np.ones((3, 3)), None)], None, "same number of classes"),
        (GaussianTerm([0, 1, 3], ONES, ONES), None, "from 0 to 2"),
        (GaussianTerm([0.0, 1.0, 2.0], ONES, ONES), None, "columns"),
        (PoissonTerm(None, -ONES), None, "rates"),
        (LinearTerm(None, nan * ONES, None), None, "NaN"),
        (LinearTerm(None, ONES, [1.0]), None, "constant"),
        (TableTerm(None, (np.zeros((2, 2)),), None), None, "one for each"),
        (TableTerm(None, (np.zeros((2, 2)),) * 3, (np.zeros(2),)), None, "unseen"),
        (TableTerm(None, (), None), None, "number of classes"),
        (GOOD, [0.0], "log_prior"),
        (GOOD, [0.0, nan], "log_prior"),
    ],
)
def test_parameters_that_do_not_fit(terms, prior, match):
    with pytest.raises(ValueError, match=match):
        naive_bayes_log_joint(np.zeros((4, 3)), terms, prior)


def test_what_is_refused(rng):
    X, y = rng.normal(size=(4, 3)), [0, 1, 1, 0]
    with pytest.raises(TypeError, match="terms must be"):
        naive_bayes_log_joint(X, "gaussian")
    with pytest.raises(TypeError, match="sparse"):
        naive_bayes_log_joint(sparse.csr_array(X), GOOD)
    with pytest.raises(TypeError, match="dense"):
        class_moments(sparse.csr_array(X), y, 2)
    with pytest.raises(ValueError, match="predict"):
        naive_bayes_log_joint(X, GOOD, what="predict", out=np.empty((4, 2)))
    with pytest.raises(ValueError, match="what"):
        naive_bayes_log_joint(X, GOOD, what="argmax")
    for bad in (X[0], X[:0], X[:, :0]):
        with pytest.raises(ValueError, match="shape"):
            naive_bayes_log_joint(bad, GOOD)
    X[2, 1] = inf
    for call in (
        lambda: naive_bayes_log_joint(X, GOOD),
        lambda: class_moments(X, y, 2),
        lambda: class_sums(X, y, 2),
        lambda: class_sums(np.where(np.isinf(X), nan, X), y, 2),
    ):
        with pytest.raises(ValueError, match="infinity"):
            call()
    for labels, C in (([0, 1, 2, 0], 2), ([0, -1, 0, 0], 2), ([0, 1], 2), ([0.0, 1, 0, 0], 2), (y, 0), (y, True)):
        for function in (class_moments, class_sums):
            with pytest.raises(ValueError, match=r"y must be|n_classes"):
                function(np.zeros((4, 3)), labels, C)
        with pytest.raises(ValueError, match=r"y must be|n_classes"):
            category_counts(np.zeros((4, 3)), labels, C, 2)
    with pytest.raises(ValueError, match="row 1 holds category 5 in column 2, which has 3"):
        category_counts([[0, 0, 0], [0, 0, 5]], [0, 1], 2, 3)
    with pytest.raises(ValueError, match="sizes"):
        category_counts([[0, 0, 0]], [0], 1, [1, 2])


def test_nothing_is_missing_from_the_list():
    assert {"naive_bayes_log_joint", "class_sums", "class_moments", "category_counts"} <= set(kernels.__all__)
