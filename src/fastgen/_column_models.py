"""Columns of one kind in a Naive Bayes model: their statistics, the fit, the term of log p(x | y), draws.

A *kind* (`GaussianKind`, ...) holds what the user chose. It takes data to statistics that add up, and these to a
*model* (`GaussianModel`, ...), the parameters of C classes. Kinds, statistics and models are values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from typing import Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from fastgen._missing import Index
from fastgen._naive_bayes import (
    MOST_CATEGORIES,
    UNSEEN,
    BinaryTerm,
    Check,
    GaussianTerm,
    LinearTerm,
    PoissonTerm,
    TableTerm,
    Term,
    category_counts,
    class_moments,
    class_sums,
    observed_sums,
)
from fastgen._parallel import run_chunks
from fastgen._validation import BLOCK_ROWS, Array
from fastgen.errors import SingularCovarianceError, UnobservedColumnError

Matrix = Any
"""A dense (n, d) array, or a SciPy CSR matrix."""

Codes = NDArray[np.intp]
"""Class of each row, as a position."""

_EPS = float(np.finfo(np.float64).eps)


# ---- statistics ------------------------------------------------------------------------------------------------------


class _Stacked:
    """Records of arrays whose first axis is that of the classes."""

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Those of several sets of classes, as one."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cast(Any, cls))))


@dataclass(frozen=True, eq=False)
class Moments(_Stacked):
    """Moments of C classes, about their own means."""

    weight: Array
    """(C,) of the rows"""
    count: Array
    """(C, m), weight of the observed cells"""
    mean: Array
    """(C, m), 0 where nothing is observed"""
    scatter: Array
    """(C, m), sum w (x - mean)^2"""

    def __add__(self, other: Self) -> Self:
        count = self.count + other.count
        share = other.count / np.where(count > 0, count, 1.0)
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter + shift**2 * self.count * share
        return type(self)(self.weight + other.weight, count, self.mean + shift * share, scatter)

    def pooled(self) -> Self:
        """Those of all classes together, C = 1."""
        return reduce(
            add, (type(self)(*(getattr(self, f)[c : c + 1] for f in self.__dataclass_fields__)) for c in self._seen())
        )

    def _seen(self) -> Sequence[int]:
        return np.flatnonzero(self.weight > 0).tolist() or [0]


@dataclass(frozen=True, eq=False)
class Sums(_Stacked):
    """Weighted sums of C classes."""

    weight: Array
    """(C,) of the rows"""
    count: Array
    """(C, m), weight of the observed cells"""
    total: Array
    """(C, m), sum w x over the observed cells"""

    def __add__(self, other: Self) -> Self:
        return type(self)(self.weight + other.weight, self.count + other.count, self.total + other.total)


@dataclass(frozen=True, eq=False)
class Tables:
    """Weights of the categories of each column in C classes."""

    weight: Array
    """(C,) of the rows"""
    counts: tuple[Array, ...]
    """(C, M_j) each"""

    def __add__(self, other: Self) -> Self:
        """Categories that one of them does not know have weight 0 there."""
        pairs = zip(self.counts, other.counts, strict=True)
        sizes = [max(a.shape[1], b.shape[1]) for a, b in pairs]
        mine, others = self.padded(sizes).counts, other.padded(sizes).counts
        return type(self)(self.weight + other.weight, tuple(map(add, mine, others)))

    def padded(self, sizes: Sequence[int]) -> Self:
        """With at least this many categories."""
        counts = tuple(
            a if a.shape[1] >= M else np.pad(a, [(0, 0), (0, M - a.shape[1])])
            for a, M in zip(self.counts, sizes, strict=True)
        )
        return replace(self, counts=counts)

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Those of several sets of classes, as one."""
        sizes = [max(c.shape[1] for c in counts) for counts in zip(*(part.counts for part in parts), strict=True)]
        counts = zip(*(part.padded(sizes).counts for part in parts), strict=True)
        return cls(np.concatenate([part.weight for part in parts]), tuple(map(np.concatenate, counts)))


# ---- models ----------------------------------------------------------------------------------------------------------


class Model(Protocol):
    """Parameters of columns of one kind in C classes."""

    @property
    def columns(self) -> Index | None:
        """Which columns of X, None for all."""
        ...

    def terms(self) -> list[Term]:
        """log p(x | y)."""
        ...

    def e_step_terms(self) -> list[Term]:
        """What the E-step takes for log p(x | y), so that the objective of EM cannot fall."""
        ...

    def penalty(self) -> float:
        """What the fit maximises beyond the log-likelihood: log-density of the conjugate prior, up to a constant."""
        ...

    def draw(self, codes: Codes, rng: np.random.Generator) -> Array:
        """One row of the class of each code, (n, m)."""
        ...


@dataclass(frozen=True, eq=False)
class GaussianModel:
    """Independent Gaussians."""

    columns: Index | None
    means: Array
    """(C, m)"""
    variances: Array
    """(C, m), with epsilon"""
    epsilon: float | Array = 0.0

    def terms(self) -> list[Term]:
        """log p(x | y)."""
        return [GaussianTerm(self.columns, self.means, self.variances)]

    def e_step_terms(self) -> list[Term]:
        """E log N(x + noise), where the noise has variance epsilon.

        Its maximum is at variance + epsilon, which is what the fit takes.
        """
        less = -0.5 * self.epsilon / self.variances
        return [*self.terms(), BinaryTerm(self.columns, less, less, 0.0)]  # of the observed cells

    def penalty(self) -> float:
        """None: see `e_step_terms`."""
        return 0.0

    def draw(self, codes: Codes, rng: np.random.Generator) -> Array:
        """One row of the class of each code, (n, m)."""
        return rng.normal(self.means[codes], np.sqrt(self.variances[codes]))


@dataclass(frozen=True, eq=False)
class MultinomialModel:
    """The columns are counts of words, all drawn from one distribution."""

    columns: Index | None
    log_p: Array
    """(C, m)"""
    alpha: Any = 0.0
    lengths: Array | None = None
    """(C,): how many words a draw has"""

    def terms(self) -> list[Term]:
        """log p(x | y) of the words in the order in which they stand: without the multinomial coefficient."""
        return [LinearTerm(self.columns, self.log_p, None)]

    e_step_terms = terms

    def penalty(self) -> float:
        """Dirichlet prior."""
        return _penalty(self.alpha, self.log_p)

    def draw(self, codes: Codes, rng: np.random.Generator) -> Array:
        """One row of the class of each code, (n, m)."""
        p = np.exp(self.log_p)
        p /= p.sum(axis=1, keepdims=True)
        assert self.lengths is not None
        lengths = np.rint(self.lengths).astype(np.int64)
        result = np.empty((len(codes), p.shape[1]))
        for c in np.unique(codes):
            rows = np.flatnonzero(codes == c)
            result[rows] = rng.multinomial(lengths[c], p[c], size=len(rows))
        return result


@dataclass(frozen=True, eq=False)
class BernoulliModel:
    """Independent events: a value above the threshold."""

    columns: Index | None
    log_p: Array
    """(C, m)"""
    log_q: Array
    """(C, m)"""
    threshold: float = 0.0
    alpha: Any = 0.0

    def terms(self) -> list[Term]:
        """log p(x | y)."""
        return [BinaryTerm(self.columns, self.log_p, self.log_q, self.threshold)]

    e_step_terms = terms

    def penalty(self) -> float:
        """Beta prior."""
        return _penalty(self.alpha, self.log_p) + _penalty(self.alpha, self.log_q)

    def draw(self, codes: Codes, rng: np.random.Generator) -> Array:
        """One row of the class of each code: threshold + 1 for an event, 0 for none."""
        p = np.exp(self.log_p)[codes]
        return np.where(rng.random(p.shape) < p, self.threshold + 1.0, 0.0)


@dataclass(frozen=True, eq=False)
class PoissonModel:
    """Independent counts."""

    columns: Index | None
    rates: Array
    """(C, m)"""
    alpha: float = 0.0
    centre: Array | None = None
    """(m,)"""

    def terms(self) -> list[Term]:
        """log p(x | y)."""
        return [PoissonTerm(self.columns, self.rates)]

    e_step_terms = terms

    def penalty(self) -> float:
        """Gamma prior: alpha more observations of the value ``centre``."""
        if self.alpha == 0:
            return 0.0
        assert self.centre is not None
        return float(self.alpha * (self.centre * np.log(self.rates) - self.rates).sum())

    def draw(self, codes: Codes, rng: np.random.Generator) -> Array:
        """One row of the class of each code, (n, m)."""
        return rng.poisson(self.rates[codes]).astype(np.float64)


@dataclass(frozen=True, eq=False)
class CategoricalModel:
    """Independent categories, of each column its own."""

    columns: Index | None
    log_p: tuple[Array, ...]
    """(C, M_j) each"""
    unseen: tuple[Array, ...] | None
    """(C,) each: of a category that is not among them; None if that is an error"""
    alpha: float = 0.0

    def terms(self) -> list[Term]:
        """log p(x | y)."""
        tables = tuple(np.ascontiguousarray(table.T) for table in self.log_p)
        return [TableTerm(self.columns, tables, self.unseen)]

    e_step_terms = terms

    def penalty(self) -> float:
        """Dirichlet prior."""
        return sum(_penalty(self.alpha, table) for table in self.log_p)

    def draw(self, codes: Codes, rng: np.random.Generator) -> Array:
        """One row of the class of each code: codes of categories, (n, m)."""
        result = np.empty((len(codes), len(self.log_p)))
        for j, table in enumerate(self.log_p):
            if not table.shape[1]:  # nothing is known about this column
                result[:, j] = np.nan
                continue
            edges = np.exp(table).cumsum(axis=1)
            u = rng.random(len(codes)) * edges[codes, -1]
            for c in np.unique(codes):
                rows = codes == c
                result[rows, j] = np.searchsorted(edges[c, :-1], u[rows], side="right")
        return result


# ---- kinds -----------------------------------------------------------------------------------------------------------


class Kind(Protocol):
    """How columns of one kind are fitted."""

    @property
    def columns(self) -> Index | None:
        """Which columns of X, None for all."""
        ...

    def statistics(self, X: Matrix, codes: Codes, weights: Array | None, C: int, check: Check) -> Any:
        """What of the data the fit needs."""
        ...

    def maximise(self, statistics: Any) -> Any:
        """The model of these statistics."""
        ...


@dataclass(frozen=True)
class GaussianKind:
    """Mean and variance of the observed cells; epsilon is added to each variance.

    A column that a class with weight has never shown gets the moments of all classes together, or else those of
    ``others``; one that nobody has shown gets NaN.
    """

    columns: Index | None = None
    epsilon: float | Array = 0.0
    """For each column, or for all"""
    others: Moments | None = None
    """Of all rows, C = 1"""

    def statistics(self, X: Matrix, codes: Codes, weights: Array | None, C: int, check: Check) -> Moments:
        """What of the data the fit needs."""
        return Moments(*class_moments(select(X, self.columns), codes, weights, C, check=check))

    def maximise(self, statistics: Moments) -> GaussianModel:
        """The model of these statistics."""
        known = statistics.count > 0
        means = statistics.mean
        variances = np.where(known, statistics.scatter / np.where(known, statistics.count, 1.0), 0.0)
        unknown = ~known & (statistics.weight > 0)[:, None]
        if unknown.any():
            pooled = statistics.pooled()
            for moments in (pooled, pooled if self.others is None else self.others):
                seen = unknown & (moments.count > 0)
                means = np.where(seen, moments.mean, means)
                variances = np.where(seen, moments.scatter / np.where(moments.count > 0, moments.count, 1), variances)
                unknown &= ~seen
            means = np.where(unknown, np.nan, means)
            variances = np.where(unknown, np.nan, variances)
        return GaussianModel(self.columns, means, variances + self.epsilon, self.epsilon)


@dataclass(frozen=True)
class MultinomialKind:
    """Shares of the words, with alpha more of each."""

    columns: Index | None = None
    alpha: Any = 1.0

    def statistics(self, X: Matrix, codes: Codes, weights: Array | None, C: int, check: Check) -> Sums:
        """What of the data the fit needs."""
        X = select(X, self.columns)
        weight, total, met = class_sums(X, codes, weights, C)
        if met:
            check(X, met)
        return Sums(weight, np.broadcast_to(weight[:, None], total.shape), total)

    def maximise(self, statistics: Sums) -> MultinomialModel:
        """The model of these statistics."""
        weight = np.where(statistics.weight > 0, statistics.weight, 1.0)
        lengths = statistics.total.sum(axis=1) / weight
        return MultinomialModel(self.columns, log_shares(statistics.total, self.alpha), self.alpha, lengths)


@dataclass(frozen=True)
class BernoulliKind:
    """Shares of the cells above the threshold among the observed ones, with alpha more above and alpha more below."""

    columns: Index | None = None
    threshold: float = 0.0
    alpha: Any = 1.0

    def statistics(self, X: Matrix, codes: Codes, weights: Array | None, C: int, check: Check) -> Sums:
        """What of the data the fit needs."""
        X = select(X, self.columns)
        weight, total, met = class_sums(X, codes, weights, C, self.threshold)
        count = np.broadcast_to(weight[:, None], total.shape)
        if met:
            check(X, met)
            count = _observed(X, codes, weights, weight)
        return Sums(weight, count, total)

    def maximise(self, statistics: Sums) -> BernoulliModel:
        """The model of these statistics."""
        rest = statistics.count - statistics.total
        rest[rest <= 4 * _EPS * statistics.weight[:, None]] = 0.0  # weights, added up in another order
        none = statistics.count + 2 * np.asarray(self.alpha) == 0
        with np.errstate(divide="ignore"):
            log_all = np.log(np.where(none, 1.0, statistics.count + np.asarray(self.alpha) * 2))
            log_p = np.where(none, -np.log(2), np.log(statistics.total + self.alpha) - log_all)
            log_q = np.where(none, -np.log(2), np.log(rest + self.alpha) - log_all)
        return BernoulliModel(self.columns, log_p, log_q, self.threshold, self.alpha)


@dataclass(frozen=True)
class PoissonKind:
    """Means of the observed counts, with alpha more observations of the column's mean over all classes.

    That mean is itself taken with alpha more observations of 1, so that no rate is 0 if alpha is not.
    """

    columns: Index | None = None
    alpha: float = 1.0
    rows: Sums | None = None
    """Of all rows, C = 1: EM starts from some, but the prior is that of all from the start"""

    def statistics(self, X: Matrix, codes: Codes, weights: Array | None, C: int, check: Check) -> Sums:
        """What of the data the fit needs."""
        moments = Moments(*class_moments(select(X, self.columns), codes, weights, C, check=check))
        return Sums(moments.weight, moments.count, moments.mean * moments.count)

    def maximise(self, statistics: Sums) -> PoissonModel:
        """The model of these statistics."""
        centre = self._centre(statistics)
        own = statistics.count + self.alpha
        rates = (statistics.total + self.alpha * centre) / np.where(own > 0, own, 1.0)
        prior = centre if self.rows is None else self._centre(self.rows)
        return PoissonModel(self.columns, np.where(own > 0, rates, centre), self.alpha, prior)

    def _centre(self, statistics: Sums) -> Array:
        count = statistics.count.sum(axis=0) + self.alpha
        if count.all():
            return cast(Array, (statistics.total.sum(axis=0) + self.alpha) / count)
        if self.rows is not None and statistics is not self.rows:
            return self._centre(self.rows)
        j = int(count.argmin())
        column = j if self.columns is None else int(self.columns[j])
        raise UnobservedColumnError(
            0, f"column {column} has no observed value", "the data", "Leave the column out, or use alpha > 0."
        )


@dataclass(frozen=True)
class CategoricalKind:
    """Shares of the categories among the observed cells, with alpha more of each.

    A category that is not among them has the share of one that was never seen; without smoothing it is an error.
    """

    columns: Index | None = None
    alpha: float = 1.0
    sizes: tuple[int, ...] | None = None
    """Least number of categories of each column"""

    def statistics(self, X: Matrix, codes: Codes, weights: Array | None, C: int, check: Check) -> Tables:
        """What of the data the fit needs."""
        X = select(X, self.columns)
        sizes = self._at_least(n_categories(X[:BLOCK_ROWS]))
        weight, counts, met = category_counts(X, codes, weights, C, sizes.tolist())
        if met:
            check(X, met)
            if met & UNSEEN:  # later rows hold larger codes
                sizes = self._at_least(n_categories(X))
                weight, counts, _ = category_counts(X, codes, weights, C, sizes.tolist())
        return Tables(weight, counts)

    def _at_least(self, found: NDArray[np.int64]) -> NDArray[np.int64]:
        return found if self.sizes is None else np.maximum(found, self.sizes)

    def maximise(self, statistics: Tables) -> CategoricalModel:
        """The model of these statistics."""
        tables = tuple(log_shares(count, self.alpha) for count in statistics.counts)
        unseen = None
        if self.alpha > 0:
            totals = [(count + self.alpha).sum(axis=1) for count in statistics.counts]
            unseen = tuple(np.log(self.alpha) - np.log(np.where(t > 0, t, self.alpha)) for t in totals)
        return CategoricalModel(self.columns, tables, unseen, self.alpha)


# ---- parts -----------------------------------------------------------------------------------------------------------


def select(X: Matrix, columns: Index | None) -> Matrix:
    """Some columns."""
    return X if columns is None else X[:, columns]


def is_sparse(X: Matrix) -> bool:
    """Whether X is a CSR matrix."""
    return hasattr(X, "indptr")


def log_shares(counts: Array, alpha: Any) -> Array:
    """log of each row's shares, with alpha more of each entry; equal shares (the limit for alpha -> 0) of nothing.

    By columns, as sparse rows are scored; in blocks, for there may be millions.
    """
    C, d = counts.shape
    alphas = np.broadcast_to(np.asarray(alpha, np.float64), (d,))
    total = np.array([(row + alphas).sum() for row in counts])
    by_column = np.empty((d, C))
    with np.errstate(divide="ignore"):
        log_total = np.log(total)

    def body(first: int, stop: int) -> None:
        for j in range(first, stop, BLOCK_ROWS):
            end = min(stop, j + BLOCK_ROWS)
            block = by_column[j:end]
            np.add(counts[:, j:end].T, alphas[j:end, None], out=block)
            with np.errstate(divide="ignore", invalid="ignore"):
                np.log(block, out=block)
                block -= log_total

    run_chunks(lambda: body, d, 64, 4.0 * C * d)
    by_column[:, total == 0] = -np.log(max(1, d))
    return by_column.T


def n_categories(X: Matrix) -> NDArray[np.int64]:
    """Largest code of each column plus 1; 0 where nothing is observed. Infinity is left to others to find."""
    result = np.zeros(X.shape[1], np.int64)
    for start in range(0, len(X), BLOCK_ROWS):
        largest = np.fmax.reduce(X[start : start + BLOCK_ROWS], axis=0)
        if largest.dtype.kind == "f":
            largest = np.where(np.isfinite(largest), largest, -1.0)
        if np.any(largest >= MOST_CATEGORIES):
            j = int(largest.argmax())
            raise ValueError(
                f"column {j} holds the category {largest[j]}: codes are to be below 2**31; number the categories "
                "0, 1, 2, ..."
            )
        np.maximum(result, largest.astype(np.int64) + 1, out=result)
    return result


def check_variances(model: GaussianModel, log_prior: Array, classes: NDArray[Any], weight: Array) -> GaussianModel:
    """Refuse variances of 0 or NaN in classes that are possible; in others they do not matter and become 1."""
    zero = ~(model.variances > 0)
    if not zero.any():
        return model
    unknown = np.isnan(model.variances).any(axis=0)
    if unknown.any():
        j = int(unknown.argmax())
        column = j if model.columns is None else int(model.columns[j])
        raise UnobservedColumnError(0, f"column {column} has no observed value", "the data", "Leave the column out.")
    wrong = zero & (log_prior > -np.inf)[:, None]
    if wrong.any():
        c, j = np.argwhere(wrong)[0].tolist()
        column = j if model.columns is None else int(model.columns[j])
        raise SingularCovarianceError(
            c, f"the variance of column {column} is 0", "", "Increase var_smoothing, or leave the column out."
        ).of(f"class {classes[c]!s}", int(weight[c]))
    return replace(model, variances=np.where(zero, 1.0, model.variances))


def _penalty(alpha: Any, log_p: Array) -> float:
    """sum alpha log p, where 0 times -inf is 0."""
    weights = np.broadcast_to(alpha, log_p.shape)
    return float((weights[weights > 0] * log_p[weights > 0]).sum())


def _observed(X: Matrix, codes: Codes, weights: Array | None, weight: Array) -> Array:
    """Weight (C, m) of the cells that are not NaN, where the rows of the classes weigh `weight`."""
    C = len(weight)
    if not is_sparse(X):
        return observed_sums(X, codes, weights, C)
    missing = np.isnan(X.data)
    where = type(X)((missing.astype(np.float64), X.indices, X.indptr), shape=X.shape)
    return weight[:, None] - class_sums(where, codes, weights, C)[1]
