"""Scores of classes under terms that add up, and the sums over the rows of classes that fits need.

log p(x, y = c) = log p(c) + sum over terms: one walk over the rows (``_kernels/naive_bayes.h``), into whatever is
wanted of the joint. X is a dense array of floats or integers, with any strides, or (`LinearTerm`, `BinaryTerm`, alone)
a sparse one in compressed rows; it is checked by the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from math import ceil, prod
from operator import or_
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastgen._kernels import _naive_bayes as kernel
from fastgen._missing import Index
from fastgen._parallel import Body, run_chunks, segments
from fastgen._validation import BLOCK_ROWS, Array, as_floats

_TYPES = {np.dtype(name): i for i, name in enumerate(["f8", "f4", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])}
_INFINITE = 1e290  # a weight of infinity: 0 times it is 0
_UNIT = 32
MOST_CATEGORIES = 2**31
_DENSE = 4 << 20  # bytes of sparse rows that are made dense at a time
_CANCELLED = 1e6  # how many times their variance the square of the rows' mean may be, about what they are summed
_LANES = 16  # most categories of columns that are looked up in registers
_FIRST_CACHE = 16 << 10
_SECOND_CACHE = 256 << 10
_PAIRED = [np.dtype(name) for name in ("i8", "i4", "i1", "u1")]
NOT_FINITE, NEGATIVE, UNSEEN, BROKEN = kernel.NOT_FINITE, kernel.NEGATIVE, kernel.UNSEEN, kernel.BROKEN

Check = Callable[[Any, int], None]
"""Is given X and what a kernel has met that may be an error (NOT_FINITE, NEGATIVE, UNSEEN), to look closer."""


def as_matrix(X: Any) -> Any:
    """X as a kernel reads it: (n, d) of one of its types, or CSR of floats; copied only if it must be."""
    if hasattr(X, "tocsr"):
        X = X if X.format == "csr" else X.tocsr()
        _check_csr(X)
        if X.dtype not in (np.float64, np.float32):
            X = type(X)((as_floats(X.data, "X"), X.indices, X.indptr), shape=X.shape)
        parts: tuple[Any, ...] = (X.data, X.indices, X.indptr)
        if not all(part.flags.c_contiguous and part.dtype.isnative for part in parts):  # of a view, as .real gives
            parts = tuple(np.ascontiguousarray(part, part.dtype.newbyteorder("=")) for part in parts)
            X = type(X)(parts, shape=X.shape)
    else:
        array = np.asarray(X)
        X = array if array.dtype.kind in "iub" and not np.ma.isMaskedArray(X) else as_floats(X, "X")
        if X.dtype.kind == "b":
            X = X.view(np.uint8)
        if not (X.dtype.isnative and X.flags.aligned):
            X = X.astype(X.dtype.newbyteorder("="))
    if len(X.shape) != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape (n_samples, n_features), at least one of each, got {X.shape}")
    return X


def _check_csr(X: Any) -> None:
    """Refuse row pointers that do not fit the entries; kernels see to the indices, which are many more."""
    n, entries = X.shape[0], min(len(X.data), len(X.indices))
    ends = X.indptr
    whole = all(part.dtype.kind == "i" and part.itemsize in (4, 8) for part in (X.indices, ends))
    if not whole or ends.shape != (n + 1,) or ends[0] != 0 or ends[-1] > entries or (np.diff(ends) < 0).any():
        raise ValueError(
            f"X is no valid CSR matrix: indptr must hold {n + 1} integers that rise from 0 to at most {entries}, and "
            "indices integers, both of 32 or 64 bits"
        )


def _refuse_broken(met: int) -> None:
    if met & BROKEN:
        raise ValueError("X is no valid CSR matrix: its indices must be columns from 0 to n_features - 1")


def _any_nan(X: Any) -> bool:
    """Without a mask of all cells."""
    return any(bool(np.isnan(X[i : i + BLOCK_ROWS]).any()) for i in range(0, len(X), BLOCK_ROWS))


def _allow(X: Any, met: int) -> None:
    """The caller has looked through X already."""


_WHAT = {
    "joint": kernel.JOINT,
    "predict": kernel.PREDICT,
    "proba": kernel.PROBA,
    "log_proba": kernel.LOG_PROBA,
    "log_prob": kernel.LOG_PROB,
}


@dataclass(frozen=True)
class GaussianTerm:
    """sum_j log N(x_j; means[c, j], variances[c, j]); NaN is missing."""

    columns: Index | None
    """Of X; None: all"""
    means: Array
    """(C, m)"""
    variances: Array
    """(C, m), positive"""

    def terms(self, X: Any) -> tuple[list[kernel.Term], Array]:
        """As the kernel takes them, and a constant for each class."""
        norm = np.log(2 * np.pi * self.variances)
        term = _dense(kernel.GAUSSIAN, X, self.columns, a=self.means, b=1 / np.sqrt(self.variances), norm=norm)
        return [term], -0.5 * norm.sum(axis=1)


def _screen(term: GaussianTerm, constants: Array) -> kernel.Screen | None:
    """The term in single precision, with a bound on its errors that tells where it decides as double precision does.

    With q = 1 / deviation, t_j = q (x_j - mean_j) and p_j = q (centre_j - mean_j) the kernel sums up
    E = 2 (max k - k_c) + sum_j t_j^2. Three roundings by u = 2^-24 (four without FMA) lead to t: its error
    is at most 4 u (|t| + |p|), that of the sum of t^2 at most 8 u (sum t^2 + |t| |p|), where |t| |p| is at most half of
    t^2 + p^2. The summation adds 2 (d + 1) u E. So |error| <= a E + c, and the best class is the best in spite of
    all errors if E (1 + a) + c < E' (1 - a) - c, where E' is the second. (Higham, *Accuracy and Stability of Numerical
    Algorithms*, 2nd ed., ch. 3.) A quarter is added for what is quadratic in u, and for double precision's own errors.
    """
    C, d = term.means.shape
    u = 2.0**-24
    with np.errstate(all="ignore"):
        q = 1 / np.sqrt(term.variances)
        centre = term.means.mean(axis=0)
        p = q * (centre - term.means)
        k = 2.0 * (constants.max() - constants)
        a = 1.25 * u * (2 * d + 32)
        c = 1.25 * u * 4.0 * float((p * p).sum(axis=1).max())
        c += 2.0**-45 * (1.0 + float(np.abs(constants[np.isfinite(constants)]).max(initial=0.0)))
        safe = d <= 1 << 16 and c < 1e6 and bool(q.min() > 1e-15) and bool(q.max() < 1e15)  # in single precision
    if C == 1 or not safe:
        return None
    k = np.minimum(k, 1e30)  # of impossible classes
    q_, p_, k_ = (np.ascontiguousarray(x, np.float32) for x in (q, p, k))
    return kernel.Screen(centre, q_, p_, k_, (1 + a) / (1 - a) * (1 + u), 2 * c / (1 - a) * (1 + u))


@dataclass(frozen=True)
class LinearTerm:
    """sum_j x_j weights[c, j] + constant[c]; x_j is not negative where weights are infinite, and 0 times them is 0."""

    columns: Index | None
    weights: Array
    """(C, m)"""
    constant: Array | None
    """(C,)"""

    def terms(self, X: Any) -> tuple[list[kernel.Term], Array]:
        """As the kernel takes them, and a constant for each class."""
        constant = np.zeros(len(self.weights)) if self.constant is None else self.constant
        infinite = np.isinf(self.weights)
        if not infinite.any():
            return [self._product(X, self.weights)], constant
        always = np.where(infinite, np.sign(self.weights) * _INFINITE, 0.0)  # times 0 it is 0, else infinite
        return [self._product(X, np.where(infinite, 0.0, self.weights)), self._product(X, always, 0.0)], constant

    def _product(self, X: Any, weights: Array, threshold: float | None = None) -> kernel.Term:
        if hasattr(X, "indptr"):
            return _sparse(X, weights, threshold)
        if threshold is None:
            return _dense(kernel.LINEAR, X, self.columns, a=weights, by_column=_padded(weights.T))
        return _dense(
            kernel.BINARY, X, self.columns, a=weights, b=np.zeros_like(weights), threshold=threshold, binary=True,
            by_column=_padded(weights.T),
        )  # fmt: skip


@dataclass(frozen=True)
class BinaryTerm:
    """sum_j (log_p if x_j > threshold else log_q)[c, j]; NaN is missing."""

    columns: Index | None
    log_p: Array
    """(C, m)"""
    log_q: Array
    """(C, m)"""
    threshold: float

    @cached_property
    def ratio(self) -> Array:
        """What an event adds; by columns, as sparse rows are scored."""
        with np.errstate(invalid="ignore"):
            return np.subtract(self.log_p, self.log_q, order="F")

    def terms(self, X: Any) -> tuple[list[kernel.Term], Array]:
        """As the kernel takes them, and a constant for each class."""
        ratio = self.ratio
        if hasattr(X, "indptr"):
            return [_sparse(X, ratio, self.threshold)], self.log_q.sum(axis=1)
        finite = bool(np.isfinite(ratio).all())
        a, constant = (ratio, self.log_q.sum(axis=1)) if finite else (self.log_p, np.zeros(len(ratio)))
        term = _dense(
            kernel.BINARY, X, self.columns, a=a, b=self.log_q, threshold=self.threshold, binary=finite,
            by_column=_padded(a.T) if finite else None,
        )  # fmt: skip
        return [term], constant


@dataclass(frozen=True)
class TableTerm:
    """sum_j tables[j][x_j, c] of codes 0, 1, ...; -1 and NaN are missing."""

    columns: Index | None
    tables: tuple[Array, ...]
    """(M_j, C) each"""
    unseen: tuple[Array, ...] | None
    """(C,) each, for codes from M_j on; None: these are an error"""

    def terms(self, X: Any) -> tuple[list[kernel.Term], Array]:
        """As the kernel takes them, and a constant for each class."""
        sizes = np.array([len(table) for table in self.tables], np.intp)
        few = sizes <= _LANES
        C = self.tables[0].shape[1]
        return [self._term(X, np.flatnonzero(of)) for of in (few, ~few) if of.any()], np.zeros(C)

    def _term(self, X: Any, which: Index) -> kernel.Term:
        C = self.tables[0].shape[1]
        rows: list[Array] = []
        for j in which:
            unseen = np.full(C, np.nan) if self.unseen is None else self.unseen[j]
            rows += [self.tables[j], unseen[None], np.zeros((1, C))]
        sizes = np.array([len(self.tables[j]) for j in which], np.intp)
        first = (np.cumsum(sizes + 2) - sizes - 2).astype(np.intp)
        lanes = 8 if sizes.max() <= 8 else _LANES
        by_column = None
        if sizes.max() <= lanes:
            by_column = np.zeros((len(which) * C, lanes))
            for i, j in enumerate(which):
                by_column[i * C : (i + 1) * C, : sizes[i]] = self.tables[j].T
        return _dense(
            kernel.TABLE, X, which if self.columns is None else self.columns[which], a=_padded(np.concatenate(rows)),
            sizes=sizes, first=first, by_column=by_column,
        )  # fmt: skip


@dataclass(frozen=True)
class PoissonTerm:
    """sum_j x_j log(rates) - rates - log x_j!; NaN is missing."""

    columns: Index | None
    rates: Array
    """(C, m)"""

    def terms(self, X: Any) -> tuple[list[kernel.Term], Array]:
        """As the kernel takes them, and a constant for each class."""
        with np.errstate(divide="ignore"):
            weights = np.maximum(np.log(self.rates), -_INFINITE)
        return [_dense(kernel.LINEAR, X, self.columns, a=weights, b=-self.rates)], -self.rates.sum(axis=1)


Term = GaussianTerm | LinearTerm | BinaryTerm | TableTerm | PoissonTerm


def _padded(table: Array) -> Array:
    """Rows of a multiple of 8 numbers."""
    n, C = table.shape
    padded = np.zeros((n, C + -C % 8))
    padded[:, :C] = table
    return padded


def _offsets(X: Any, columns: Index | None) -> Index:
    return np.ascontiguousarray((np.arange(X.shape[1]) if columns is None else columns) * X.strides[1], np.intp)


def _dense(
    kind: int, X: Any, columns: Index | None, *, a: Array | None = None, b: Array | None = None,
    norm: Array | None = None, threshold: float = 0.0, binary: bool = False, sizes: Index | None = None,
    first: Index | None = None, by_column: Array | None = None
) -> kernel.Term:  # fmt: skip
    a, b, norm = (None if x is None else np.ascontiguousarray(x, np.float64) for x in (a, b, norm))
    return kernel.Term(
        kind, _TYPES[X.dtype], X, _offsets(X, columns), a, b, norm, _as(X, threshold), binary, sizes, first,
        by_column=by_column,
    )  # fmt: skip


def _as(X: Any, threshold: float | None) -> float:
    """The threshold as NumPy compares it with X: 0.1 in float32 is not above 0.1."""
    return float(np.float32(threshold or 0.0)) if X.dtype == np.float32 else threshold or 0.0


def _sparse(X: Any, weights: Array, threshold: float | None = None) -> kernel.Term:
    binary = threshold is not None
    return kernel.Term(
        kernel.SPARSE, _TYPES[X.data.dtype], X.data, a=np.ascontiguousarray(weights.T, np.float64),
        threshold=_as(X, threshold), binary=binary, indices=X.indices, indptr=X.indptr, columns=X.shape[1],
    )  # fmt: skip


def score(
    X: Any, terms: Sequence[Term], log_prior: Array, what: str, n_threads: int | None = None, check: Check = _allow,
    out: Array | None = None,
) -> NDArray[Any]:  # fmt: skip
    """What is wanted of log p(x, y) for each row.

    Parameters
    ----------
    X : array or CSR matrix (n, d)
    terms : sequence of terms
    log_prior : array (C,)
    what : {"joint", "predict", "proba", "log_proba", "log_prob"}
        log p(x, y), (n, C); the best class, (n,), of equals the first, and where none is possible that of the best
        prior; p(y | x) or its logarithm, (n, C); log p(x), (n,).
    n_threads : int, optional
    check : callable, optional
        Is called if there may be values that the model does not take.
    out : array, optional
        Where to write; not for "predict".
    """
    n, C = X.shape[0], len(log_prior)
    for term in terms:
        _check_shapes(term, C, X.shape[1])
    if out is not None and not out.flags.c_contiguous:
        out[...] = score(X, terms, log_prior, what, n_threads, check)
        return out
    if hasattr(X, "indptr") and not all(
        np.isfinite(term.ratio).all() for term in terms if isinstance(term, BinaryTerm)
    ):
        check(X, NOT_FINITE)  # differences of infinities are no weights
        return _score_as_dense(X, terms, log_prior, what, n_threads, out)
    constants = np.array(log_prior, np.float64)
    parts: list[kernel.Term] = []
    for term in terms:
        made, constant = term.terms(X)
        parts += made
        constants = constants + constant
    labels = np.empty(n, np.intp) if what == "predict" else None
    if labels is None and out is None:
        out = np.empty(n if what == "log_prob" else (n, C))
    flat = None if out is None else out.reshape(-1)
    width = C if out is not None and out.ndim == 2 else 1
    fallback = int(np.argmax(log_prior))
    met = 0
    infinite = any(not np.isfinite(values).all() for term in terms for values in _weights(term))

    screen = None
    if what == "predict" and len(terms) == 1 and isinstance(terms[0], GaussianTerm):
        screen = _screen(terms[0], constants)

    lock = Lock()

    def make_body(missing: bool) -> Callable[[], Body]:
        def make() -> Body:
            work = np.empty(kernel.work_size(C))

            def body(first: int, stop: int) -> None:
                nonlocal met
                here = None if flat is None else flat[first * width : stop * width]
                there = None if labels is None else labels[first:stop]
                found = kernel.score(
                    parts, constants, infinite, _WHAT[what], first, stop, missing, fallback, here, there, work, screen
                )
                if found & ~met:  # several threads only ever set bits
                    with lock:
                        met |= found

            return body

        return make

    cost = n * C * X.shape[1] * 0.1
    run_chunks(lambda: make_body(False)(), n, _UNIT, cost, n_threads)
    if met:
        _refuse_broken(met)
        check(X, met)
        if hasattr(X, "indptr"):
            if _any_nan(X.data):
                return _score_as_dense(X, terms, log_prior, what, n_threads, out)
        else:
            for term in terms:
                if isinstance(term, TableTerm) and term.unseen is None:
                    _refuse_unseen(X, term)
            if met & NOT_FINITE and X.dtype.kind == "f" and _any_nan(X):
                run_chunks(lambda: make_body(True)(), n, _UNIT, cost, n_threads)
    if out is not None:
        for term in terms:
            if isinstance(term, PoissonTerm) and what in ("joint", "log_prob"):
                factorials = _log_factorials(X, term.columns)
                out -= factorials if what == "log_prob" else factorials[:, None]
        return out
    return cast(Index, labels)


def _score_as_dense(
    X: Any, terms: Sequence[Term], log_prior: Array, what: str, n_threads: int | None, out: Array | None
) -> NDArray[Any]:
    """In blocks."""
    rows = max(1, _DENSE // (8 * X.shape[1]))
    n, C = X.shape[0], len(log_prior)
    result: NDArray[Any] = np.empty(n, np.intp) if what == "predict" else np.empty(n if what == "log_prob" else (n, C))
    if out is not None:
        result = out
    for i in range(0, n, rows):
        result[i : i + rows] = score(X[i : i + rows].toarray(), terms, log_prior, what, n_threads)
    return result


def _check_shapes(term: Term, C: int, d: int) -> None:
    """Fitted attributes may have been replaced: a kernel would read beyond them."""
    m = d if term.columns is None else len(term.columns)
    if isinstance(term, TableTerm):
        fits = len(term.tables) == m and all(table.ndim == 2 and table.shape[1] == C for table in term.tables)
    else:
        parameters = [value for name, value in vars(term).items() if name not in ("columns", "threshold", "constant")]
        fits = all(value.shape == (C, m) for value in parameters)
    if not fits:
        raise ValueError(f"the parameters must be of {C} classes and {m} columns")


def _weights(term: Term) -> tuple[Array, ...]:
    """What may be infinite of terms that multiply."""
    if isinstance(term, LinearTerm):
        return (term.weights,)
    if isinstance(term, PoissonTerm):
        with np.errstate(divide="ignore"):
            return (np.log(term.rates),)
    return ()


def _refuse_unseen(X: Any, term: TableTerm) -> None:
    for j, column in enumerate(np.arange(X.shape[1]) if term.columns is None else term.columns):
        above = X[:, column] >= len(term.tables[j])
        if above.any():
            row = int(above.argmax())
            last = len(term.tables[j]) - 1
            raise ValueError(f"row {row} holds category {X[row, column]} in column {column}, which has 0 to {last}")


def _log_factorials(X: Any, columns: Index | None) -> Array:
    """sum_j log x_j! of each row."""
    from scipy.special import gammaln

    out = np.empty(len(X))
    for i in range(0, len(X), BLOCK_ROWS):
        counts = X[i : i + BLOCK_ROWS] if columns is None else X[i : i + BLOCK_ROWS, columns]
        out[i : i + BLOCK_ROWS] = np.nansum(gammaln(counts.astype(np.float64, order="C") + 1.0), axis=1)
    return out


def _summed(
    n: int,
    record: int,
    row_ns: float,
    make: Callable[[], Any],
    add: Callable[[Any, int, int], object],
    n_threads: int | None,
) -> list[Any]:
    """The records of fixed segments of the rows, each filled by add(record, first, stop)."""
    cuts = segments(n, _UNIT, record, row_ns)
    records = [make() for _ in cuts]

    def make_body() -> Body:
        def body(first: int, last: int) -> None:
            for i in range(first, last):
                add(records[i], *cuts[i])

        return body

    run_chunks(make_body, len(cuts), 1, n * row_ns, n_threads)
    return records


def class_moments(
    X: Any, codes: Index, weights: Array | None, C: int, n_threads: int | None = None, check: Check = _allow
) -> tuple[Array, Array, Array, Array]:
    """Weight (C,), and of the cells that are there count (C, d), mean (C, d) and scatter about it (C, d)."""
    n, d = X.shape
    term = _dense(kernel.GAUSSIAN, X, None)

    lost = False

    def totals(missing: bool, given: Array | None = None) -> tuple[Array, Array, Array, Array]:
        nonlocal lost
        lost = False

        def add(record: tuple[Array, ...], first: int, stop: int) -> None:
            kernel.moments(term, missing, given is not None, codes, weights, first, stop, *record)

        def make() -> tuple[Array, ...]:
            total, about, *others = np.zeros(C), *np.zeros((4, C, d))
            return total, about if given is None else given.copy(), *others

        weight, count, mean, scatter = np.zeros(C), *np.zeros((3, C, d))
        for part, about, counted, first, second in _summed(n, 32 * C * d, 2.0 * d, make, add, n_threads):
            here = counted if missing else np.broadcast_to(part[:, None], (C, d))
            some = here > 0
            shift = np.divide(first, here, out=np.zeros((C, d)), where=some)
            spread = second - shift * first
            lost |= bool((shift * first > _CANCELLED * spread).any())
            total = count + here
            share = np.divide(here, total, out=np.zeros((C, d)), where=total > 0)
            delta = np.where(some, about + shift - mean, 0.0)
            scatter += spread + count * share * delta * delta
            mean += share * delta
            count = total
            weight += part
        return weight, count, mean, scatter

    with np.errstate(invalid="ignore", over="ignore"):
        found = totals(False)
        missing = not (np.isfinite(found[2]).all() and np.isfinite(found[3]).all())
        if missing:
            check(X, NOT_FINITE)
            found = totals(True)
        if lost and np.isfinite(found[2]).all():  # the first row lay far from the others: about the means, then
            found = totals(missing, found[2])
    return found


def class_sums(
    X: Any, codes: Index, weights: Array | None, C: int, threshold: float | None = None, n_threads: int | None = None
) -> tuple[Array, Array, int]:
    """Weight (C,), sums (C, d) of X, or of X > threshold, and what X holds: NOT_FINITE, NEGATIVE."""
    if hasattr(X, "indptr"):
        return _sparse_sums(X, codes, weights, C, threshold, n_threads)
    which = kernel.VALUES if threshold is None else kernel.ABOVE
    return _dense_sums(X, codes, weights, C, which, threshold or 0.0, n_threads)


def observed_sums(X: Any, codes: Index, weights: Array | None, C: int) -> Array:
    """Weight (C, d) of the cells of a dense X that are not NaN; of the same rounding as `class_sums`."""
    return _dense_sums(X, codes, weights, C, kernel.OBSERVED, 0.0, None)[1]


def _dense_sums(
    X: Any, codes: Index, weights: Array | None, C: int, which: int, threshold: float, n_threads: int | None
) -> tuple[Array, Array, int]:
    n, d = X.shape
    term = _dense(kernel.LINEAR, X, None, threshold=threshold)
    grouped = 8 * C * d > _FIRST_CACHE
    met = [0]

    def make() -> tuple[Array, Array]:
        return np.zeros(C), np.zeros((C, d))

    def add(record: tuple[Array, Array], first: int, stop: int) -> None:
        waiting = np.zeros((C, kernel.GROUP + 1), np.intp) if grouped else None
        met.append(kernel.sums(term, which, codes, weights, first, stop, waiting, *record))

    records = _summed(n, 3 * 8 * C * d, 1.0 * d, make, add, n_threads)  # few: they are not small
    total, sums = records[0]
    for weight, part in records[1:]:
        total += weight
        sums += part
    return total, sums, _union(met)


def _sparse_sums(
    X: Any, codes: Index, weights: Array | None, C: int, threshold: float | None, n_threads: int | None
) -> tuple[Array, Array, int]:
    """Class by class: their sums stay in the cache, and nobody else adds to them."""
    n, d = X.shape
    term = kernel.Term(
        kernel.SPARSE, _TYPES[X.data.dtype], X.data, threshold=_as(X, threshold), indices=X.indices, indptr=X.indptr,
        columns=d,
    )  # fmt: skip
    rows = np.argsort(codes.astype(np.uint16) if C <= 1 << 16 else codes, kind="stable").astype(np.intp)
    ends = np.cumsum(np.bincount(codes, minlength=C)).tolist()
    most = max(1024, ceil(n / 8))
    pieces: list[tuple[int, int, int, bool]] = []  # rows first..stop-1 from class c on; whether they are c's first
    first, lowest = 0, 0
    for c, (begin, end) in enumerate(pairwise([0, *ends])):
        if end - first > most:  # small classes go together
            if begin > first:
                pieces.append((first, begin, lowest, True))
            pieces += [(start, min(end, start + most), c, start == begin) for start in range(begin, end, most)]
            first, lowest = end, c + 1
    if first < n:
        pieces.append((first, n, lowest, True))
    total, sums = np.zeros(C), np.zeros((C, d))
    more: dict[int, tuple[Array, Array]] = {
        i: (np.zeros(1), np.zeros((1, d))) for i, piece in enumerate(pieces) if not piece[3]
    }
    met = [0]

    def make_body() -> Body:
        def body(first: int, last: int) -> None:
            for i in range(first, last):
                start, stop, lowest, _ = pieces[i]
                record = more.get(i, (total[lowest:], sums[lowest:]))
                met.append(
                    kernel.sparse_sums(term, threshold is not None, rows, codes, weights, start, stop, lowest, *record)
                )

        return body

    run_chunks(make_body, len(pieces), 1, 10.0 * n + 2.0 * X.nnz, n_threads)
    _refuse_broken(_union(met))
    for i, (weight, part) in more.items():
        total[pieces[i][2]] += weight[0]
        sums[pieces[i][2]] += part[0]
    return total, sums, _union(met)


def _union(flags: Sequence[int]) -> int:
    return reduce(or_, flags, 0)


def category_counts(
    X: Any, codes: Index, weights: Array | None, C: int, sizes: Sequence[int], n_threads: int | None = None
) -> tuple[Array, tuple[Array, ...], int]:
    """Weight (C,), for each column (C, M_j) weights of codes 0, ..., M_j - 1, and what X holds beyond.

    That is NEGATIVE (missing values too) or UNSEEN; it is left out.
    """
    n, d = X.shape
    if max(sizes, default=0) >= MOST_CATEGORIES or (sum(sizes) + 2 * d) * C >= 1 << 48:
        raise ValueError(f"tables of {C} classes and up to {max(sizes)} categories are too large to be counted")
    widths = np.array(sizes, np.intp)
    first = np.concatenate([[0], np.cumsum(widths + 2)]) * C
    begin = np.ascontiguousarray(first[:-1] + np.arange(C)[:, None] * (widths + 2), np.intp)
    term = _dense(kernel.TABLE, X, None, sizes=widths, first=np.ascontiguousarray(first[:-1], np.intp))
    met = [0]
    if weights is None and n < 1 << 32:
        summed = _whole_counts(X, term, begin, codes, widths, first, n_threads, met)
    else:
        weights = np.ones(n) if weights is None else weights

        def add(record: Array, start: int, stop: int) -> None:
            met.append(kernel.counts(term, begin, codes, weights, start, stop, None, record))

        records = _summed(n, 8 * int(first[-1]), 1.0 * d, lambda: np.zeros(first[-1]), add, n_threads)
        summed = reduce(np.add, records)
    blocks = [block.reshape(C, -1) for block in np.split(summed, first[1:-1])]
    return blocks[0].sum(axis=1), tuple(block[:, :-2] for block in blocks), _union(met)


def _whole_counts(
    X: Any, term: kernel.Term, begin: Index, codes: Index, widths: Index, first: Index, n_threads: int | None,
    met: list[int],
) -> Array:  # fmt: skip
    """Numbers of rows are exact: each thread has tables of its own, small ones for pairs of columns."""
    (n, d), C = X.shape, len(begin)
    bits = int(widths.max() - 1).bit_length()
    shape = C, (d + 1) // 2, 1 << bits, 1 << bits
    size = prod(shape)
    beside = X.dtype in _PAIRED and X.strides[1] == X.itemsize
    by_pairs = beside and d > 1 and 4 * size <= _SECOND_CACHE and size < n
    tables: list[tuple[NDArray[np.uint32], NDArray[np.uint32]]] = []

    def make_body() -> Body:
        whole, joint = np.zeros(first[-1], np.uint32), np.zeros(size if by_pairs else 0, np.uint32)
        tables.append((whole, joint))

        def body(start: int, stop: int) -> None:
            if by_pairs:
                met.append(kernel.pairs(term, begin, codes, start, stop, bits, joint, whole))
            else:
                met.append(kernel.counts(term, begin, codes, None, start, stop, whole, None))

        return body

    run_chunks(make_body, n, _UNIT, 1.0 * n * d, n_threads)
    summed = reduce(np.add, [whole for whole, _ in tables], np.zeros(first[-1]))
    if by_pairs:
        joint = reduce(np.add, [joint for _, joint in tables], np.zeros(size)).reshape(shape)
        sides = joint.sum(axis=3), joint.sum(axis=2)  # of even columns, and of odd ones
        for j, width in enumerate(widths.tolist()):
            block, counts = summed[first[j] : first[j + 1]].reshape(C, -1), sides[j % 2][:, j // 2]
            block[:, :width] += counts[:, :width]
            unseen = counts[:, width:].sum(axis=1)
            block[:, width] += unseen
            if unseen.any():
                met.append(UNSEEN)
    return summed
