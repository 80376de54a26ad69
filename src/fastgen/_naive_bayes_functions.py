"""Naive Bayes for `fastgen.kernels`: scores of classes and sums over their rows, checked once."""

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen import _naive_bayes as nb
from fastgen._missing import Index
from fastgen._naive_bayes import BinaryTerm, GaussianTerm, LinearTerm, PoissonTerm, TableTerm, Term, as_matrix
from fastgen._validation import Array, as_floats, as_out, as_parameters, as_weights, check_choice, refuse_infinity

_WHAT = ("joint", "predict", "proba", "log_proba", "log_prob")
_MOST_TERMS = 4


class ClassMoments(NamedTuple):
    """Moments of the rows of C classes; of the cells that are not NaN."""

    weight: Array
    """(C,), of the rows"""
    cells: Array
    """(C, d), weight of the observed cells"""
    mean: Array
    """(C, d), 0 where there is none"""
    scatter: Array
    """(C, d), sum w (x - mean)^2"""


def naive_bayes_log_joint(
    X: Any,
    terms: Term | list[Term] | tuple[Term, ...],
    log_prior: ArrayLike | None = None,
    *,
    what: str = "joint",
    out: Array | None = None,
    n_threads: int | None = None,
) -> NDArray[Any]:
    """log p(x, y) of rows with C classes, or what Bayes' rule makes of it, in one walk over the rows.

    log p(x, y = c) = log_prior[c] + sum over terms of log p(x of its columns | c).

    Parameters
    ----------
    X : array or CSR matrix (n, d)
        Floats, integers or truth values with any strides, not copied. CSR: for one `LinearTerm` or `BinaryTerm` of all
        columns.
    terms : term or sequence of at most 4
        `GaussianTerm(columns, means, variances)`, `PoissonTerm(columns, rates)`,
        `BinaryTerm(columns, log_p, log_q, threshold)`, `TableTerm(columns, tables, unseen)`,
        `LinearTerm(columns, weights, constant)`; ``columns`` is an array of their m columns, or None for all.
        Parameters are (C, m); ``tables`` are m arrays (categories, C). Whether the values of a `PoissonTerm` are 0, 1,
        2, ... is not looked at.
    log_prior : array (C,), optional
        Default: 0.
    what : {"joint", "predict", "proba", "log_proba", "log_prob"}
        log p(x, y), (n, C); the best class as a number, (n,), of equals the first; p(y | x) or its logarithm, (n, C);
        log p(x), (n,).
    out : float64 array, optional
        Where to write the result; not for "predict".
    n_threads : int, optional

    Returns
    -------
    array
        NaN in X is missing and marginalised; posteriors are NaN where no class is possible.

    Raises
    ------
    ValueError
        Shapes that do not agree, infinity in X, a category from the end of its table on if ``unseen`` is None, indices
        of a CSR matrix that are no columns, sparse X with a threshold below 0.
    TypeError
        Complex numbers, long doubles, text; sparse X with other terms.

    Notes
    -----
    O(n m C): 2 fused multiply-adds for each row, Gaussian column and class, 1 for linear and binary ones, 1 permutation
    of 8 for tables of up to 16 categories (AVX-512).

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.kernels import GaussianTerm, naive_bayes_log_joint
    >>> term = GaussianTerm(None, np.array([[0.0], [3.0]]), np.ones((2, 1)))
    >>> naive_bayes_log_joint([[0.5], [2.0]], term, what="predict")
    array([0, 1])
    """
    matrix = as_matrix(X)
    given = list(terms) if isinstance(terms, (list, tuple)) else [terms]
    if not 1 <= len(given) <= _MOST_TERMS:
        raise ValueError(f"terms must be 1 to {_MOST_TERMS}, got {len(given)}")
    C = _classes(given[0])
    checked = [_check(term, matrix, C) for term in given]
    prior = np.zeros(C) if log_prior is None else np.asarray(log_prior, np.float64)
    if prior.shape != (C,) or np.isnan(prior).any() or not prior.max() < np.inf:
        raise ValueError(f"log_prior must be ({C},) logarithms, got {log_prior!r}")
    check_choice(what, "what", _WHAT)
    n = matrix.shape[0]
    if out is not None:
        if what == "predict":
            raise ValueError("out is for floats: predict returns a new array of integers")
        values = matrix.data if hasattr(matrix, "indptr") else matrix
        out = cast(Array, as_out(out, (n,) if what == "log_prob" else (n, C), np.dtype(np.float64), values))
    if hasattr(matrix, "indptr") and isinstance(checked[0], BinaryTerm):
        matrix = _events(matrix, checked[0].threshold)
    return nb.score(matrix, checked, prior, what, n_threads, _refuse_infinity, out)


def _classes(term: Any) -> int:
    if not isinstance(term, (GaussianTerm, LinearTerm, BinaryTerm, TableTerm, PoissonTerm)):
        raise TypeError(f"terms must be GaussianTerm, PoissonTerm, BinaryTerm, TableTerm or LinearTerm, got {term!r}")
    if isinstance(term, TableTerm):
        return int(np.shape(term.tables[0])[-1]) if len(term.tables) and np.ndim(term.tables[0]) == 2 else 0
    first = next(value for name, value in vars(term).items() if name != "columns")
    return int(np.shape(first)[0]) if np.ndim(first) else 0


def _check(term: Term, X: Any, C: int) -> Term:
    """The term with parameters as arrays of the right shapes."""
    if _classes(term) != C or C == 0:
        raise ValueError(f"terms must be for the same number of classes, at least 1, got {_classes(term)} and {C}")
    d = X.shape[1]
    columns = None
    if term.columns is not None:
        columns = np.asarray(term.columns)
        if (
            columns.ndim != 1
            or not len(columns)
            or columns.dtype.kind not in "iu"
            or not 0 <= columns.min() <= columns.max() < d
        ):
            raise ValueError(f"columns must be numbers from 0 to {d - 1}, got {term.columns!r}")
        columns = columns.astype(np.intp)
    if hasattr(X, "indptr") and (columns is not None or not isinstance(term, (LinearTerm, BinaryTerm))):
        raise TypeError("sparse X is for a LinearTerm or BinaryTerm of all columns")
    shape = (C, d if columns is None else len(columns))
    if isinstance(term, GaussianTerm):
        variances = as_parameters(term.variances, "variances", shape)
        if not variances.min() > 0:
            raise ValueError("variances must be positive")
        return GaussianTerm(columns, as_parameters(term.means, "means", shape), variances)
    if isinstance(term, PoissonTerm):
        rates = as_parameters(term.rates, "rates", shape)
        if rates.min() < 0:
            raise ValueError("rates must not be negative")
        return PoissonTerm(columns, rates)
    if isinstance(term, BinaryTerm):
        return BinaryTerm(
            columns, _logs(term.log_p, "log_p", shape), _logs(term.log_q, "log_q", shape), float(term.threshold)
        )
    if isinstance(term, LinearTerm):
        constant = None if term.constant is None else _logs(term.constant, "constant", (C,))
        return LinearTerm(columns, _logs(term.weights, "weights", shape), constant)
    if len(term.tables) != shape[1]:
        raise ValueError(f"tables must be {shape[1]}, one for each column, got {len(term.tables)}")
    tables = tuple(_logs(table, "tables", (*np.shape(table)[:1], C)) for table in term.tables)
    unseen = None if term.unseen is None else tuple(_logs(value, "unseen", (C,)) for value in term.unseen)
    if unseen is not None and len(unseen) != len(tables):
        raise ValueError(f"unseen must be {len(tables)} arrays, one for each column, got {len(unseen)}")
    return TableTerm(columns, tables, unseen)


def _events(X: Any, threshold: float) -> Any:
    """A sparse X whose entries are compared with a threshold: duplicates have been added up."""
    if threshold < 0:
        raise ValueError(f"threshold must not be negative for sparse X, whose other cells are 0; got {threshold}")
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def _logs(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    array = np.asarray(as_floats(value, name), np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} must not hold NaN")
    return array


def _refuse_infinity(X: Any, _met: int) -> None:
    values = X.data[:, None] if hasattr(X, "indptr") else X
    if values.dtype.kind == "f":
        refuse_infinity(values)


def _codes(y: ArrayLike, n: int, n_classes: int) -> Index:
    codes = np.asarray(y)
    if codes.shape != (n,) or codes.dtype.kind not in "iu":
        raise ValueError(f"y must be ({n},) integers, the classes' numbers, got {codes.dtype} {codes.shape}")
    if isinstance(n_classes, bool) or not hasattr(n_classes, "__index__") or n_classes < 1:
        raise ValueError(f"n_classes must be an integer of at least 1, got {n_classes!r}")
    if not 0 <= codes.min() <= codes.max() < n_classes:
        raise ValueError(f"y must be from 0 to n_classes - 1 = {n_classes - 1}, got {codes.min()} to {codes.max()}")
    return np.ascontiguousarray(codes, np.intp)


def class_moments(
    X: ArrayLike,
    y: ArrayLike,
    n_classes: int,
    *,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> ClassMoments:
    """Weight, mean and scatter of the rows of each class, in one walk; right at any offset.

    Parameters
    ----------
    X : array (n, d)
        Not copied. NaN is missing.
    y : integer array (n,)
        The classes, numbered from 0.
    n_classes : int
    sample_weight : array (n,), optional
    n_threads : int, optional

    Returns
    -------
    ClassMoments
        The same bits for any number of threads.

    Raises
    ------
    ValueError
        Infinity, shapes that do not agree, classes that are not from 0 to ``n_classes - 1``.
    TypeError
        Sparse X, complex numbers, long doubles, text.

    Notes
    -----
    O(n d), one walk over the rows. Moments of blocks are taken about one of their rows, so that an offset costs no
    digits; where that row lies far from the others, all is done once more about the means. Blocks are merged as in T.
    F. Chan, G. H. Golub, R. J. LeVeque (1983), Algorithms for computing the sample variance, The American Statistician
    37.
    """
    matrix = _dense(X)
    codes, weights = _codes(y, len(matrix), n_classes), as_weights(sample_weight, len(matrix))
    return ClassMoments(*nb.class_moments(matrix, codes, weights, int(n_classes), n_threads, _refuse_infinity))


def class_sums(
    X: Any,
    y: ArrayLike,
    n_classes: int,
    *,
    threshold: float | None = None,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> tuple[Array, Array]:
    """Weight and sums of the rows of each class, or how many of their values are above a threshold.

    Parameters
    ----------
    X : array or CSR matrix (n, d)
        Not copied.
    y : integer array (n,)
        The classes, numbered from 0.
    n_classes : int
    threshold : float, optional
        Each value above it counts as 1, others as 0. Not negative for CSR, where duplicate entries add up first.
    sample_weight : array (n,), optional
    n_threads : int, optional

    Returns
    -------
    weight : array (n_classes,)
    sums : array (n_classes, d)
        The same bits for any number of threads.

    Raises
    ------
    ValueError
        NaN or infinity, shapes that do not agree, classes that are not from 0 to ``n_classes - 1``, indices of a CSR
        matrix that are no columns, sparse X with a threshold below 0.
    TypeError
        Complex numbers, long doubles, text.

    Notes
    -----
    O(n d), or O(entries) for CSR, in one walk over the rows.
    """
    matrix = as_matrix(X)
    n = matrix.shape[0]
    codes, weights = _codes(y, n, n_classes), as_weights(sample_weight, n)
    if hasattr(matrix, "indptr") and threshold is not None:
        matrix = _events(matrix, threshold)
    total, sums, met = nb.class_sums(matrix, codes, weights, int(n_classes), threshold, n_threads)
    if met & nb.NOT_FINITE:
        values = matrix.data if hasattr(matrix, "indptr") else matrix
        if not np.isfinite(values).all():
            raise ValueError("X contains NaN or infinity")
    return total, sums


def category_counts(
    X: ArrayLike,
    y: ArrayLike,
    n_classes: int,
    sizes: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
) -> tuple[Array, tuple[Array, ...]]:
    """Weight of each class, and of each category in each column and class.

    Parameters
    ----------
    X : array (n, d)
        Codes 0, ..., sizes[j] - 1, of any integer type or floats; NaN and -1 are missing. Not copied.
    y : integer array (n,)
        The classes, numbered from 0.
    n_classes : int
    sizes : int or integer array (d,)
        How many categories each column has.
    sample_weight : array (n,), optional
    n_threads : int, optional

    Returns
    -------
    weight : array (n_classes,)
    counts : tuple of d arrays (n_classes, sizes[j])
        The same bits for any number of threads.

    Raises
    ------
    ValueError
        A code from ``sizes[j]`` on, shapes that do not agree, classes that are not from 0 to ``n_classes - 1``, tables
        of more than 2**48 cells.
    TypeError
        Sparse X, complex numbers, long doubles, text.

    Notes
    -----
    O(n d) in one walk over the rows; without weights, and if tables for pairs of columns fit the L2 cache, with an
    increment for two columns.
    """
    matrix = _dense(X)
    n, d = matrix.shape
    codes, weights = _codes(y, n, n_classes), as_weights(sample_weight, n)
    widths = np.asarray(sizes)
    if widths.dtype.kind not in "iu" or widths.shape not in ((), (d,)) or widths.min() < 0:
        raise ValueError(f"sizes must be one or {d} numbers of categories, got {sizes!r}")
    widths = np.broadcast_to(widths, d)
    total, counts, met = nb.category_counts(matrix, codes, weights, int(n_classes), widths.tolist(), n_threads)
    if met & nb.UNSEEN:
        row, column = np.argwhere(matrix >= widths)[0].tolist()
        raise ValueError(
            f"row {row} holds category {matrix[row, column]} in column {column}, which has {widths[column]}"
        )
    return total, counts


def _dense(X: Any) -> NDArray[Any]:
    matrix = as_matrix(X)
    if hasattr(matrix, "indptr"):
        raise TypeError("X must be a dense array")
    return cast(NDArray[Any], matrix)
