"""Weight, mean and scatter of Gaussian components: the records, and how they are merged and made.

Merged by the exact shift formula (Chan, Golub & LeVeque 1983), so an offset of the data costs no accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgen._kernels import _gaussian
from fastgen._missing import Index, incomplete_rows
from fastgen._parallel import Body, run_chunks, segments
from fastgen._validation import Array, Data


@dataclass(frozen=True, eq=False)
class FullStatistics:
    """Weight, mean and centred scatter sum w (x - mean)(x - mean)^T of K components."""

    weight: Array
    """(K,)"""
    rows: Array
    """(K,) how many rows these are: d columns need more than d"""
    mean: Array
    """(K, d); 0 where the weight is 0."""
    mean_rest: Array
    """(K, d): what rounding left of the mean, so that merging many blocks far from 0 does not add it up."""
    scatter: Array
    """(K, d, d); or (1, d, d), pooled: the sum over the components"""
    complete: bool = True
    """Whether they follow from the data alone, without parameters that filled in missing values."""

    def __add__(self, other: "FullStatistics") -> "FullStatistics":
        if not isinstance(other, FullStatistics):
            return NotImplemented
        weight = self.weight[:, None]
        share, delta, mean, rest = merge(weight, other.weight[:, None], self, other)
        between = (weight * share * delta)[:, :, None] * delta[:, None, :]
        parts = [self.scatter, other.scatter, between]
        if len(self.scatter) != len(other.scatter) or len(self.scatter) < len(between):
            parts = [part.sum(axis=0, keepdims=True) for part in parts]
        scatter = parts[0] + parts[1] + parts[2]
        return FullStatistics(
            self.weight + other.weight,
            self.rows + other.rows,
            mean,
            rest,
            scatter,
            self.complete and other.complete,
        )

    def __mul__(self, factor: float) -> "FullStatistics":
        """The statistics of the same data with all weights multiplied."""
        return replace(self, weight=self.weight * factor, scatter=self.scatter * factor)

    @classmethod
    def stack(cls, parts: "Sequence[FullStatistics]") -> "FullStatistics":
        """Statistics of several families' components, as those of one family."""
        return cls(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.mean for part in parts]),
            np.concatenate([part.mean_rest for part in parts]),
            np.concatenate([part.scatter for part in parts]),
            all(part.complete for part in parts),
        )


@dataclass(frozen=True, eq=False)
class DiagonalStatistics:
    """The same column by column: each counts what is observed of it."""

    weight: Array
    """(K,) total weight of the rows"""
    count: Array
    """(K, d) total weight of the rows in which the column is observed"""
    mean: Array
    """(K, d)"""
    mean_rest: Array
    """(K, d): what rounding left of the mean"""
    scatter: Array
    """(K, d): sum w (x - mean)^2"""

    complete = True

    def __add__(self, other: "DiagonalStatistics") -> "DiagonalStatistics":
        if not isinstance(other, DiagonalStatistics):
            return NotImplemented
        share, delta, mean, rest = merge(self.count, other.count, self, other)
        scatter = self.scatter + other.scatter + self.count * share * delta * delta
        return DiagonalStatistics(self.weight + other.weight, self.count + other.count, mean, rest, scatter)

    def __mul__(self, factor: float) -> "DiagonalStatistics":
        """The statistics of the same data with all weights multiplied."""
        return replace(self, weight=self.weight * factor, count=self.count * factor, scatter=self.scatter * factor)

    @classmethod
    def stack(cls, parts: "Sequence[DiagonalStatistics]") -> "DiagonalStatistics":
        """Statistics of several families' components, as those of one family."""
        return cls(
            np.concatenate([part.weight for part in parts]),
            np.concatenate([part.count for part in parts]),
            np.concatenate([part.mean for part in parts]),
            np.concatenate([part.mean_rest for part in parts]),
            np.concatenate([part.scatter for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class ObservedPart:
    """Moments of the observed columns of all rows that miss the same columns."""

    columns: Index
    """(d,): the observed columns, then the missing ones"""
    n_rows: float
    weight: float
    mean: Array
    """(o,) of the observed columns"""
    mean_rest: Array
    """(o,) what rounding left of it"""
    root: Array
    """The scatter (o, o); or, if it is `thin`, the rows less their mean, times the root of their weights."""
    thin: bool = False

    @classmethod
    def of(cls, columns: Index, statistics: FullStatistics) -> "ObservedPart":
        """From the statistics of the observed columns."""
        mean, rest, scatter = statistics.mean[0], statistics.mean_rest[0], statistics.scatter[0]
        return cls(columns, float(statistics.rows[0]), float(statistics.weight[0]), mean, rest, scatter)

    @property
    def scatter(self) -> Array:
        """(o, o) sum w (x - mean)(x - mean)^T."""
        return self.root.T @ self.root if self.thin else self.root


AnyStatistics = FullStatistics | DiagonalStatistics


def merge(
    weight: Array, other_weight: Array, one: AnyStatistics, other: AnyStatistics
) -> tuple[Array, Array, Array, Array]:
    """The other's share in the total weight, the way from one mean to the other's, the merged mean and its rest."""
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"statistics of shapes {one.mean.shape} and {other.mean.shape} cannot be merged")
    total = weight + other_weight
    share = np.divide(other_weight, total, out=np.zeros_like(total), where=total > 0)
    delta = (other.mean - one.mean) + (other.mean_rest - one.mean_rest)
    mean, lost = two_sum(one.mean, delta * share)
    mean, rest = two_sum(mean, one.mean_rest + lost)
    fresh = weight == 0  # from 0 to a large mean, the rest would be lost
    return share, delta, np.where(fresh, other.mean, mean), np.where(fresh, other.mean_rest, rest)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Sum, and what rounding loses of it (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def moments(X: Data, weights: Array | None, full: bool, n_threads: int | None) -> tuple[AnyStatistics, int]:
    """Statistics of one component, and what the kernel found: rows left out (full), columns with inf (otherwise)."""
    n, d = X.shape
    kernel: Any = _gaussian.moments_f32 if X.dtype == np.float32 else _gaussian.moments_f64
    size = d if full else 1
    row_ns = d * (0.5 * size + 2) / 6
    cuts = segments(n, _gaussian.BLOCK, 8 * d * (size + 3), row_ns)
    counts = np.zeros((len(cuts), 1 if full else d))
    means = np.zeros((len(cuts), 2, d))
    scatters = np.zeros((len(cuts), size, d))
    found = np.zeros(len(cuts), np.intp)

    def make_body() -> Body:
        work = np.empty(_gaussian.moment_work_size(d, full))

        def body(first: int, last: int) -> None:
            for i in range(first, last):
                start, stop = cuts[i]
                part = None if weights is None else weights[start:stop]
                found[i] = kernel(full, X[start:stop], part, counts[i], means[i], scatters[i], work)

        return body

    run_chunks(make_body, len(cuts), 1, n * row_ns, n_threads)
    total: Any = None
    for count, mean, scatter in zip(counts, means, scatters, strict=True):
        centre, rest = two_sum(mean[:1], mean[1:])
        if full:
            symmetric = scatter + np.triu(scatter, 1).T
            part: Any = FullStatistics(count, np.zeros(1), centre, rest, symmetric[None])
        else:
            part = DiagonalStatistics(np.zeros(1), count[None], centre, rest, scatter)
        total = part if total is None else total + part
    if full:
        used = n - found.sum()
        if weights is not None:
            used = np.count_nonzero(weights)
            if found.any():
                used -= np.count_nonzero(weights[incomplete_rows(X)])
        total = replace(total, rows=np.array([float(used)]))
    else:
        total = replace(total, weight=np.array([float(n) if weights is None else weights.sum()]))
    return total, int(found.sum())
