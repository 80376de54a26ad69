"""Mixtures of Gaussians: the E-step and the scores, by the fused kernels (``_kernels/mixture.h``).

The kernels leave out rows with missing values; these come on top, from the moments of what they observe: row by row
through the marginal densities (full, tied), or with a weight of their own for each column (diag, spherical).

Tied covariance: the pooled scatter within the components is the total scatter, which does not depend on the
parameters, less the scatter between the components' means. Only where that would cancel too many digits (means very
far apart, compared with the covariance) the kernel sums up the scatter of each component.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastgen._kernels import _gaussian, _mixture
from fastgen._missing import Index, incomplete_rows, patterns
from fastgen._parallel import Body, run_chunks, segments
from fastgen._validation import BLOCK_ROWS, Array, Data, refuse_infinity
from fastgen.errors import SingularCovarianceError
from fastgen.families._moments import AnyStatistics, DiagonalStatistics, FullStatistics, moments, two_sum
from fastgen.kernels import LOG_2PI, GaussianFactors, prepare_gaussians

_FMAS_PER_NS = 15.0  # a guess: decides how rows are cut
_SEGMENT_NS = 50e6  # about the longest time before an interrupt is seen
_CANCELLED = 4096.0  # total over within scatter, beyond which the difference is not taken
_FAR = 1e3  # standard deviations from a mean to the next, beyond which the moments are taken again


@dataclass
class Sums:
    """What the kernel sums up about the points ``about`` (K, d)."""

    log_likelihood: float
    weight: Array
    first: Array
    second: Array
    """(K, d, d) full, (K, d) diag and spherical; tied: of no meaning"""
    count: Array
    """(K, d) weight of the rows in which the column is observed"""

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.log_likelihood + other.log_likelihood,
            self.weight + other.weight,
            self.first + other.first,
            self.second + other.second,
            self.count + other.count,
        )


class Prepared:
    """Data for many E-steps: what does not depend on the parameters is looked for once, when it is needed."""

    def __init__(self, X: Data, weights: Array | None) -> None:
        self.X = X
        self.weights = weights
        self._buffers: dict[Hashable, Array] = {}

    def buffer(self, key: Hashable, size: int) -> Array:
        """Zeros at first, later whatever is left in them: memory that is new costs more than the work on it."""
        found = self._buffers.get(key)
        if found is None or len(found) < size:
            found = self._buffers[key] = np.zeros(size)
        return found[:size]

    @cached_property
    def n_rows(self) -> float:
        """How many rows have weight."""
        return float(len(self.X) if self.weights is None else np.count_nonzero(self.weights))

    @cached_property
    def total(self) -> FullStatistics:
        """Weight, mean and scatter of the complete rows."""
        return cast(FullStatistics, moments(self.X, self.weights, True, None)[0])

    @cached_property
    def incomplete(self) -> Index:
        """Numbers of the rows with missing values; an infinity is an error."""
        refuse_infinity(self.X)
        rows = incomplete_rows(self.X)
        return rows if self.weights is None else rows[self.weights[rows] > 0]

    @cached_property
    def incomplete_part(self) -> "Prepared":
        """A copy of these rows."""
        rows = self.incomplete
        return Prepared(self.X[rows], np.ones(len(rows)) if self.weights is None else self.weights[rows])

    @cached_property
    def pieces(self) -> "_Pieces":
        """These rows, by the pattern of their missing columns."""
        part = self.incomplete_part
        return _Pieces.of(part.X, cast(Array, part.weights))


@dataclass
class _Pieces:
    """Rows that miss the same columns, in pieces, as `_mixture.incomplete_e_step` reads them."""

    columns: Index
    observed: Index
    rows: Index
    values: Index
    x: Array
    weights: Array

    @classmethod
    def of(cls, X: Data, weights: Array) -> "_Pieces":
        d = X.shape[1]
        columns, observed, rows, values, x, w = [], [], [0], [0], [], []
        for group, seen in patterns(X, np.arange(len(X))):
            order = np.concatenate([seen, np.setdiff1d(np.arange(d), seen, assume_unique=True)])
            for start in range(0, len(group), _mixture.MISSING_PIECE):
                piece = group[start : start + _mixture.MISSING_PIECE]
                columns.append(order)
                observed.append(len(seen))
                rows.append(rows[-1] + len(piece))
                values.append(values[-1] + len(piece) * len(seen))
                x.append(X[np.ix_(piece, seen)].astype(np.float64).ravel())
                w.append(weights[piece])
        # One value more than there are: the kernel gets an address even if nothing was observed.
        flat = np.concatenate([*x, np.zeros(1)])
        as_index = [np.array(list_, np.intp) for list_ in (columns, observed, rows, values)]
        return cls(as_index[0], as_index[1], as_index[2], as_index[3], flat, np.concatenate(w))


def _row_ns(kind: int, d: int, K: int) -> float:
    quadratic = d * (d + 1) if kind == _gaussian.FULL else 0
    return (K * (quadratic + 5 * d + 25) + d * d) / _FMAS_PER_NS


def _sums(
    prepared: GaussianFactors, data: Prepared, log_weights: Array, about: Array, n_threads: int | None
) -> tuple[Sums, int]:
    """The kernel over all rows, and what it found."""
    X, weights = data.X, data.weights
    kind, means, factors, log_norm, centre, _ = prepared
    n, d = X.shape
    K = len(means)
    row_ns = _row_ns(kind, d, K)
    full = kind == _gaussian.FULL
    size = d * d if full else d
    padded = np.zeros((K, -(-d // 8) * 8 | 8))  # row_step in gaussian.h
    padded[:, :d] = about
    step = max(_mixture.BATCH, ceil(64 * _SEGMENT_NS / row_ns))
    total: Sums | None = None
    found = 0
    for begin in range(0, n, step):
        rows = X[begin : begin + step]
        w = None if weights is None else weights[begin : begin + step]
        cuts = segments(len(rows), _mixture.BATCH, 8 * K * (size + 2 * d + 2), row_ns)
        parts = (
            np.empty((len(cuts), 1)),
            np.empty((len(cuts), K)),
            np.empty((len(cuts), K, d)),
            data.buffer(("second", kind), len(cuts) * K * size).reshape(len(cuts), K, size),
            np.zeros((len(cuts), K, d)),
        )
        flags = np.zeros(len(cuts), np.intp)

        def make_body(
            rows: Data = rows,
            w: Array | None = w,
            cuts: list[tuple[int, int]] = cuts,
            parts: tuple[Array, Array, Array, Array, Array] = parts,
            flags: NDArray[np.intp] = flags,
        ) -> Body:
            work = data.buffer((threading.get_ident(), kind), _mixture.work_size(kind, d, K, True))
            log_likelihood, weight, first, second, count = parts

            def body(first_cut: int, last_cut: int) -> None:
                for i in range(first_cut, last_cut):
                    start, stop = cuts[i]
                    flags[i] = _mixture.e_step(
                        kind,
                        rows[start:stop],
                        None if w is None else w[start:stop],
                        means,
                        factors,
                        log_norm,
                        centre,
                        log_weights,
                        padded,
                        log_likelihood[i],
                        weight[i],
                        first[i],
                        second[i],
                        count[i],
                        work,
                    )

            return body

        run_chunks(make_body, len(cuts), 1, len(rows) * row_ns, n_threads)
        sums = [part[0].copy() if len(cuts) == 1 else part.sum(axis=0) for part in parts]
        part = Sums(float(sums[0][0]), sums[1], sums[2], sums[3], sums[4])
        total = part if total is None else total + part
        found |= int(np.bitwise_or.reduce(flags))
    assert total is not None  # X has rows
    if kind != _gaussian.DIAG_MISSING:
        total.count = np.repeat(total.weight[:, None], d, axis=1)
    if full:
        total.second = total.second.reshape(K, d, d)
        _mixture.mirror(total.second)
    return total, found


def e_step(
    family: Any, data: Prepared, log_weights: Array, *, n_threads: int | None = None
) -> tuple[float, AnyStatistics]:
    """Log-likelihood and statistics: see `fastgen.kernels.mixture_e_step`."""
    found = 0

    def sums_about(prepared: GaussianFactors, about: Array) -> Sums:
        nonlocal found
        sums, found = _sums(prepared, data, log_weights, about, n_threads)
        if found & _mixture.IMPOSSIBLE:
            _name_impossible(family, data, log_weights)
        return sums

    statistics, log_likelihood = statistics_from(family, data, sums_about)
    if found & _mixture.NOT_A_NUMBER and len(data.incomplete):
        rest = _missing_full if family.covariance_type in ("full", "tied") else _missing_diagonal
        more, its_statistics = rest(family, data, log_weights, n_threads)
        log_likelihood += more
        statistics = statistics + its_statistics
    return log_likelihood, statistics


def statistics_from(
    family: Any, data: Prepared, sums_about: Callable[[GaussianFactors, Array], Sums]
) -> tuple[Any, float]:
    """Statistics of complete rows, from sums about any points, and the log-likelihood that came with the sums."""
    kind = family.covariance_type
    prepared = family._prepared
    if kind == "tied":
        if prepared.kind != _gaussian.FULL:
            about, sums = _near_sums(family, prepared, data, sums_about)
            statistics = _tied_statistics(family, data, about, sums)
            if statistics is not None:
                return statistics, sums.log_likelihood
        # Too much would cancel, or the kernel must run with one covariance for each.
        separate = prepare_gaussians(family.means, _repeated(family), "full")
        about, sums = _near_sums(family, separate, data, sums_about)
        return _pooled(_full_statistics(about, sums, data.n_rows)), sums.log_likelihood
    about, sums = _near_sums(family, prepared, data, sums_about)
    make = _full_statistics if kind == "full" else diagonal_statistics
    return make(about, sums, data.n_rows), sums.log_likelihood


def _near_sums(
    family: Any, prepared: GaussianFactors, data: Prepared, sums_about: Callable[[GaussianFactors, Array], Sums]
) -> tuple[Array, Sums]:
    """The sums about points that are near the new means, and these points."""
    about = family.means
    sums = sums_about(prepared, about)
    if _too_far(about, sums, data.total if prepared.kind == _gaussian.TIED else None):
        about = about + _shift(sums)
        sums = sums_about(prepared, about)
    return about, sums


def _shift(sums: Sums) -> Array:
    """From `about` to the means."""
    return np.asarray(np.divide(sums.first, sums.count, out=np.zeros_like(sums.first), where=sums.count > 0))


def _too_far(about: Array, sums: Sums, total: FullStatistics | None) -> bool:
    """Whether a mean moved so far that the moments about the old one lose digits.

    Compared with the component's scatter, or ``total``, that of all the data, where it is not known.
    """
    weight = sums.weight[:, None]
    shift = _shift(sums)
    squares = weight * shift**2
    moved = np.abs(shift) > 1e-9 * np.abs(about)
    if total is not None:
        scatter = total.scatter[0].diagonal()
    else:
        second = sums.second if sums.second.ndim == 2 else sums.second.diagonal(axis1=1, axis2=2)
        scatter = second - squares
    return bool((moved & (squares / _FAR**2 > scatter)).any())


def _full_statistics(about: Array, sums: Sums, n_rows: float) -> FullStatistics:
    shift = _shift(sums)
    mean, rest = two_sum(about, shift)
    empty = (sums.weight == 0)[:, None]
    scatter = sums.second - (sums.weight[:, None] * shift)[:, :, None] * shift[:, None, :]
    rows = np.full(len(mean), n_rows)
    return FullStatistics(sums.weight, rows, np.where(empty, 0.0, mean), np.where(empty, 0.0, rest), scatter)


def diagonal_statistics(about: Array, sums: Sums, n_rows: float) -> DiagonalStatistics:
    shift = _shift(sums)
    mean, rest = two_sum(about, shift)
    empty = sums.count == 0
    scatter = np.maximum(sums.second - sums.count * shift**2, 0.0)
    return DiagonalStatistics(sums.weight, sums.count, np.where(empty, 0.0, mean), np.where(empty, 0.0, rest), scatter)


def _pooled(statistics: FullStatistics) -> FullStatistics:
    scatter = statistics.scatter.sum(axis=0, keepdims=True)
    return FullStatistics(
        statistics.weight, statistics.rows, statistics.mean, statistics.mean_rest, scatter, statistics.complete
    )


def _repeated(family: Any) -> Array:
    factors = family.precisions_cholesky
    return np.ascontiguousarray(np.broadcast_to(factors, (family.n_components, *factors.shape)))


def _tied_statistics(family: Any, data: Prepared, about: Array, sums: Sums) -> FullStatistics | None:
    """Pooled scatter as the difference of total and between; None if too much of it cancels."""
    total = data.total
    shift = _shift(sums)
    mean, rest = two_sum(about, shift)
    delta = (mean - total.mean) + (rest - total.mean_rest)
    scatter = total.scatter - (delta.T * sums.weight) @ delta
    U = family.precisions_cholesky
    within, all_ = (np.einsum("ij,ik,kj->j", U, S, U) for S in (scatter[0], total.scatter[0]))
    if (all_ > _CANCELLED * within).any():
        return None
    empty = (sums.weight == 0)[:, None]
    rows = np.full(len(mean), data.n_rows)
    return FullStatistics(sums.weight, rows, np.where(empty, 0.0, mean), np.where(empty, 0.0, rest), scatter)


def missing_diagonal_factors(family: Any) -> GaussianFactors:
    """Diagonal or spherical Gaussians as the kernels read them where values may be missing."""
    factors = family.precisions_cholesky
    if factors.ndim == 1:
        factors = np.ascontiguousarray(np.broadcast_to(factors[:, None], family.means.shape))
    prepared: GaussianFactors = family._prepared
    return prepared._replace(kind=_gaussian.DIAG_MISSING, factors=factors, log_norm=LOG_2PI - 2 * np.log(factors))


def _missing_diagonal(
    family: Any, data: Prepared, log_weights: Array, n_threads: int | None
) -> tuple[float, DiagonalStatistics]:
    sums, found = _sums(missing_diagonal_factors(family), data.incomplete_part, log_weights, family.means, n_threads)
    if found:  # NaN is nothing that it leaves out
        _name_impossible(family, data, log_weights)
    return sums.log_likelihood, diagonal_statistics(family.means, sums, 0.0)


def _missing_full(
    family: Any, data: Prepared, log_weights: Array, n_threads: int | None
) -> tuple[float, FullStatistics]:
    pieces = data.pieces
    K, d = family.means.shape
    covariances = np.ascontiguousarray(np.broadcast_to(family.covariances, (K, d, d)))
    row_ns = K * (2.0 * d**3 + 100)
    cuts = segments(len(pieces.observed), 1, 8 * K * d * (d + 2), row_ns)
    log_likelihood, weight = np.zeros((len(cuts), 1)), np.zeros((len(cuts), K))
    first, second = np.zeros((len(cuts), K, d)), np.zeros((len(cuts), K, d, d))
    found = np.zeros(len(cuts), np.intp)

    def make_body() -> Body:
        work = np.empty(_mixture.incomplete_work_size(d, K))

        def body(first_cut: int, last_cut: int) -> None:
            for i in range(first_cut, last_cut):
                start, stop = cuts[i]
                found[i] = _mixture.incomplete_e_step(
                    pieces.columns[start:stop],
                    pieces.observed[start:stop],
                    pieces.rows[start : stop + 1],
                    pieces.values[start : stop + 1],
                    pieces.x,
                    pieces.weights,
                    family.means,
                    covariances,
                    log_weights,
                    log_likelihood[i],
                    weight[i],
                    first[i],
                    second[i],
                    work,
                )

        return body

    run_chunks(make_body, len(cuts), 1, len(pieces.observed) * row_ns, n_threads)
    if found.min() < 0:
        k = int(-1 - found.min())
        raise SingularCovarianceError(k, "it is singular", f"a marginal of covariances[{k}]", "Increase reg_covar.")
    if found.any():
        _name_impossible(family, data, log_weights)
    total = weight.sum(axis=0)
    count = np.repeat(total[:, None], d, axis=1)
    sums = Sums(float(log_likelihood.sum()), total, first.sum(axis=0), second.sum(axis=0), count)
    statistics = _full_statistics(family.means, sums, 0.0)
    statistics = FullStatistics(
        statistics.weight, statistics.rows, statistics.mean, statistics.mean_rest, statistics.scatter, complete=False
    )
    return sums.log_likelihood, _pooled(statistics) if family.covariance_type == "tied" else statistics


def _name_impossible(family: Any, data: Prepared, log_weights: Array) -> None:
    for start in range(0, len(data.X), BLOCK_ROWS):
        log_p = log_prob(family, data.X[start : start + BLOCK_ROWS], log_weights)
        impossible = np.flatnonzero(log_p == -np.inf)
        if data.weights is not None:
            impossible = impossible[data.weights[start + impossible] > 0]
        if len(impossible):
            break
    where = f"row {start + impossible[0]}" if len(impossible) else "a row"
    raise ValueError(
        f"{where} is so far from every component that its density is 0 in double precision: is it an error in the "
        "data? Other starting parameters may help"
    )


Kernel = Callable[..., int]


def _score(kernel: Kernel, family: Any, X: Data, log_weights: Array, out: NDArray[Any], n_threads: int | None) -> bool:
    """Fill ``out`` by a kernel of `_mixture`; return whether a row needs another look."""
    kind, means, factors, log_norm, centre, _ = family._prepared
    n, d = X.shape
    K = len(means)
    bad = False

    def make_body() -> Body:
        work = np.empty(_mixture.work_size(kind, d, K, False))

        def body(start: int, stop: int) -> None:
            nonlocal bad
            if kernel(kind, X[start:stop], means, factors, log_norm, centre, log_weights, out[start:stop], work):
                bad = True

        return body

    run_chunks(make_body, n, _gaussian.TILE, n * _row_ns(kind, d, K), n_threads)
    return bad


def _joint_rows(family: Any, X: Data, log_weights: Array) -> tuple[Index, Array]:
    """The rows with missing values, and log p(x_o, k) of each."""
    refuse_infinity(X)
    rows = incomplete_rows(X)
    if not len(rows):
        return rows, np.empty((0, len(log_weights)))
    joint = np.empty((len(rows), len(log_weights)))
    family.log_density(X[rows], out=joint)
    return rows, joint + log_weights


def log_prob(family: Any, X: Data, log_weights: Array, n_threads: int | None = None) -> Data:
    """log p(x) of each row, (n,)."""
    out = np.empty(len(X), X.dtype)
    if _score(_mixture.log_prob, family, X, log_weights, out, n_threads):
        rows, joint = _joint_rows(family, X, log_weights)
        out[np.isnan(out)] = -np.inf
        if len(rows):
            top = joint.max(axis=1)
            top[top == -np.inf] = 0.0
            with np.errstate(divide="ignore"):
                out[rows] = top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
    return out


def posterior(family: Any, X: Data, log_weights: Array, n_threads: int | None = None) -> Data:
    """p(k | x) of each row, (n, K); NaN where no component gives it any density."""
    out = np.empty((len(X), len(log_weights)), X.dtype)
    if _score(_mixture.posterior, family, X, log_weights, out, n_threads):
        rows, joint = _joint_rows(family, X, log_weights)
        if len(rows):
            with np.errstate(invalid="ignore"):
                p = np.exp(joint - joint.max(axis=1, keepdims=True))
            out[rows] = p / p.sum(axis=1, keepdims=True)
    return out


def predict(family: Any, X: Data, log_weights: Array, n_threads: int | None = None) -> Index:
    """The most probable component of each row, (n,); by weight where no component gives it any density."""
    out = np.empty(len(X), np.intp)
    if _score(_mixture.predict, family, X, log_weights, out, n_threads):
        rows, joint = _joint_rows(family, X, log_weights)
        out[rows] = joint.argmax(axis=1)
        impossible = np.flatnonzero(log_prob(family, X, log_weights, n_threads) == -np.inf)
        out[impossible] = log_weights.argmax()
    return out
