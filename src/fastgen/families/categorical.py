"""Categorical distributions of independent columns of codes 0, 1, ..., C - 1.

log p(x | k) = sum_j log p_kj[x_j]. Each row names one entry of a table for each column: a sparse matrix of ones, whose
product with the table is the log-density, and whose transpose times the weights are the statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._missing import Index
from fastgen._validation import BLOCK_ROWS, Array, Data, check_number
from fastgen.families._independent import Independent, as_component_parameters, check_statistics
from fastgen.families.gaussian import _indices

_MOST_INFERRED = 1 << 20
"""Codes above this are no codes, unless ``n_categories`` says so."""


@dataclass(frozen=True, eq=False)
class CategoricalStatistics:
    """Weights of the categories of each column.

    When merged, each column has as many categories as the one that has more.
    """

    weight: Array
    """(K,) total weight of the rows"""
    counts: Array
    """(K, d, C); 0 from the column's own number of categories on"""
    n_categories: Index
    """(d,)"""
    complete: bool = field(default=True, init=False)

    def __add__(self, other: "CategoricalStatistics") -> "CategoricalStatistics":
        if not isinstance(other, CategoricalStatistics):
            return NotImplemented
        if self.counts.shape[:2] != other.counts.shape[:2]:
            raise ValueError(
                f"statistics of shapes {self.counts.shape[:2]} and {other.counts.shape[:2]} cannot be merged"
            )
        sizes = np.maximum(self.n_categories, other.n_categories)
        counts = _padded(self.counts, sizes.max()) + _padded(other.counts, sizes.max())
        return CategoricalStatistics(self.weight + other.weight, counts, sizes)

    def __mul__(self, factor: float) -> "CategoricalStatistics":
        """The statistics of the same data with all weights multiplied."""
        return CategoricalStatistics(self.weight * factor, self.counts * factor, self.n_categories)

    @classmethod
    def stack(cls, parts: "Sequence[CategoricalStatistics]") -> "CategoricalStatistics":
        """Statistics of several families' components, as those of one family."""
        sizes = np.maximum.reduce([part.n_categories for part in parts])
        counts = np.concatenate([_padded(part.counts, sizes.max()) for part in parts])
        return cls(np.concatenate([part.weight for part in parts]), counts, sizes)

    @property
    def count(self) -> Array:
        """(K, d) total weight of the rows in which the column is observed."""
        return np.asarray(self.counts.sum(axis=2))


def _padded(counts: Array, size: int) -> Array:
    """With zeros for further categories."""
    more = int(size) - counts.shape[2]
    return np.pad(counts, [(0, 0), (0, 0), (0, more)]) if more else counts


class Categorical(Independent):
    """K times d independent categorical distributions: the family for columns of codes 0, 1, ..., C - 1.

    Missing values (NaN) do not count; `impute` puts the most probable code in their place (the smallest of several), or
    a draw.

    Parameters
    ----------
    n_categories : int or list of d ints, optional
        Of all columns, or of each. Default: those of ``probabilities``, and those that the fit finds: the largest code
        plus 1.
    pseudo_count : float, not negative
        Added to each category of each column in the fit (a symmetric Dirichlet prior with parameter
        1 + ``pseudo_count``): it then maximises the log-likelihood plus ``pseudo_count * sum(log p)``.
    probabilities : array (K, d, C), optional
        Each (k, j) adds up to 1. Columns with fewer than C categories end with zeros. A probability of exactly 0 is
        legal: it rules a category out.

    Notes
    -----
    A code that was never seen in the fit has probability 0.

    Examples
    --------
    >>> from fastgen.families import Categorical
    >>> family = Categorical()
    >>> family.maximise(family.statistics([[0.0, 2.0], [1.0, 2.0]])).probabilities
    array([[[0.5, 0.5, 0. ],
            [0. , 0. , 1. ]]])
    """

    _name = "probabilities"
    _cell_ns = 8.0

    def __init__(
        self,
        n_categories: int | Sequence[int] | None = None,
        pseudo_count: float = 0.0,
        *,
        probabilities: ArrayLike | None = None,
    ) -> None:
        check_number(pseudo_count, "pseudo_count", Real, 0)
        self.n_categories = _as_sizes(n_categories)
        self.pseudo_count = float(pseudo_count)
        self._sizes: Index | None = None
        if probabilities is not None:
            array = as_component_parameters(probabilities, "probabilities", 3, 1)
            if np.abs(array.sum(axis=2) - 1).max() > 1e-8:
                raise ValueError("probabilities must add up to 1 over the last axis")
            sizes = self._fixed_sizes(array.shape[1])
            if sizes is None:
                sizes = np.full(array.shape[1], array.shape[2])
            if sizes.max() != array.shape[2]:
                raise ValueError(f"probabilities must have {sizes.max()} categories, got shape {array.shape}")
            if (array * (np.arange(array.shape[2]) >= sizes[:, None])).any():
                raise ValueError("probabilities must be 0 beyond the n_categories of a column")
            self._set_sizes(array, sizes)

    def _set_sizes(self, probabilities: Array, sizes: Index) -> Self:
        self._sizes = sizes
        return self._set(probabilities)

    def _fixed_sizes(self, d: int) -> Index | None:
        """What ``n_categories`` says of d columns."""
        if self.n_categories is None:
            return None
        if isinstance(self.n_categories, tuple) and len(self.n_categories) != d:
            raise ValueError(f"n_categories lists {len(self.n_categories)} columns, but there are {d}")
        return np.array(np.broadcast_to(self.n_categories, d), dtype=np.intp)

    def _empty(self) -> Self:
        return type(self)(self.n_categories, self.pseudo_count)

    def _options(self) -> str:
        sizes = list(self.n_categories) if isinstance(self.n_categories, tuple) else self.n_categories
        return f"n_categories={sizes}, pseudo_count={self.pseudo_count:g}"

    def _legal(self, column: int) -> str:
        limit = self._limit(True)
        most = int(np.broadcast_to(limit, column + 1)[column] if np.ndim(limit) == 0 else np.asarray(limit)[column])
        if self.n_categories is None:
            return f"codes of categories are 0, 1, 2, ... (up to {most - 1} unless n_categories says more)"
        return f"codes of categories are integers from 0 to {most - 1}"

    def _limit(self, fitting: bool) -> float | Array:
        if not fitting:
            return np.inf
        if self.n_categories is None:
            return float(_MOST_INFERRED)
        return np.asarray(self.n_categories, dtype=np.float64)

    @property
    def probabilities(self) -> Array:
        """Probabilities, (K, d, C)."""
        return self._given()

    @property
    def sizes(self) -> Index:
        """Number of categories of each column, (d,)."""
        self._given()
        assert self._sizes is not None
        return self._sizes

    @property
    def n_parameters(self) -> int:
        """Free parameters: one less than categories, for each column and component."""
        return int(self.n_components * (self.sizes - 1).sum())

    def _plan(self, X: Data) -> Index:
        """The number of categories of each column."""
        sizes = self._fixed_sizes(X.shape[1])
        if sizes is not None:
            return sizes
        most = np.zeros(X.shape[1]) if self._parameters is None else self.sizes - 1.0
        for start in range(0, len(X), BLOCK_ROWS):
            most = np.fmax(most, np.fmax.reduce(X[start : start + BLOCK_ROWS]))
        # What is not legal is refused when the rows are counted.
        return np.where(most < _MOST_INFERRED, most + 1, 1).astype(np.intp)

    def _prepare(self) -> Array:
        """Rows of the table: the categories of the first column, of the second, ...; missing; unknown."""
        with np.errstate(divide="ignore"):
            columns = [np.log(self.probabilities[:, j, :size]).T for j, size in enumerate(self.sizes)]
        K = self.n_components
        return np.concatenate([*columns, np.zeros((1, K)), np.full((1, K), -np.inf)])

    def _block_log_density(self, values: Array, observed: Array | None) -> Array:
        from scipy.sparse import csr_array

        table = self._prepared
        entries = _entries(values, observed, self.sizes)
        m, d = entries.shape
        ones = csr_array((np.ones(entries.size), entries.ravel(), _row_starts(m, d)), shape=(m, len(table)))
        return np.asarray(ones @ table)

    def _segment(self, X: Data, weights: Array | None, start: int, stop: int, plan: Index) -> CategoricalStatistics:
        from scipy.sparse import csr_array

        K, entries_in_table = 1 if weights is None else weights.shape[1], int(plan.sum()) + 2
        weight, table = np.zeros(K), np.zeros((entries_in_table, K))
        for block, values, observed in self._blocks(X, start, stop, K, fitting=True):
            entries = _entries(values, observed, plan)
            m, d = entries.shape
            if weights is None:
                weight += m
                table[:, 0] += np.bincount(entries.ravel(), minlength=entries_in_table)
            else:
                weight += weights[block].sum(axis=0)
                ones = csr_array((np.ones(entries.size), entries.ravel(), _row_starts(m, d)), (m, entries_in_table))
                table += np.asarray(ones.T @ weights[block])
        counts = np.zeros((K, len(plan), plan.max()))
        first = 0
        for j, size in enumerate(plan):
            counts[:, j, :size] = table[first : first + size].T
            first += size
        return CategoricalStatistics(weight, counts, plan)

    def maximise(self, statistics: CategoricalStatistics) -> Self:
        """The estimate (counts + pseudo_count) / (their sum).

        Parameters
        ----------
        statistics : CategoricalStatistics
            As `statistics` returns them.

        Returns
        -------
        Categorical

        Raises
        ------
        fastgen.errors.EmptyComponentError
            A component has no weight.
        fastgen.errors.UnobservedColumnError
            A column has no observed value in a component.
        """
        check_statistics(statistics, CategoricalStatistics)
        seen = statistics.n_categories
        sizes = self._fixed_sizes(len(seen))
        if sizes is None:
            sizes = seen.copy()
        if (seen > sizes).any():
            j = int((seen > sizes).argmax())
            raise ValueError(f"column {j} has {sizes[j]} categories, but its statistics have {seen[j]}")
        counts = _padded(statistics.counts, sizes.max())
        counts = counts + self.pseudo_count * (np.arange(counts.shape[2]) < sizes[:, None])
        return self._empty()._set_sizes(counts / counts.sum(axis=2, keepdims=True), sizes)

    def penalty(self, statistics: CategoricalStatistics) -> float:
        """``pseudo_count * log p``, summed over components, columns and categories."""
        if not self.pseudo_count:
            return 0.0
        table = self._prepared[:-2]
        return float(self.pseudo_count * table.sum())

    def _take(self, components: Index | slice, columns: Index | slice) -> Self:
        sizes = self.sizes[columns]
        option = self.n_categories
        if isinstance(option, tuple):
            option = tuple(np.array(option)[columns].tolist())
        family = type(self)(None, self.pseudo_count)
        family.n_categories = option
        probabilities = self.probabilities[components][:, columns, : sizes.max(initial=0)]
        return family._set_sizes(probabilities.copy(), sizes.copy())

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation from each of the components that are listed.

        Parameters
        ----------
        components : integer array (n,)
        rng : numpy.random.Generator

        Returns
        -------
        array (n, d)
            Codes, as float64.
        """
        components = _indices(components, "components", self.n_components)
        u = rng.random((len(components), self.n_features))
        result = np.empty_like(u)
        edges = self.probabilities.cumsum(axis=2)
        edges /= edges[:, :, -1:]
        for k in np.unique(components):
            rows = np.flatnonzero(components == k)
            for j in range(self.n_features):
                result[rows, j] = np.searchsorted(edges[k, j], u[rows, j], side="right")
        return result

    def _most_likely(self, posterior: Array) -> Array:
        columns = [(posterior @ self.probabilities[:, j]).argmax(axis=1) for j in range(self.n_features)]
        return np.stack(columns, axis=1).astype(np.float64)


def _as_sizes(n_categories: Any) -> int | tuple[int, ...] | None:
    """Return the option as it is kept."""
    if n_categories is None:
        return None
    if np.ndim(n_categories) == 0:
        check_number(n_categories, "n_categories", Integral, 1)
        return int(n_categories)
    sizes = tuple(n_categories)
    if not sizes:
        raise ValueError("n_categories must list at least one column")
    for size in sizes:
        check_number(size, "n_categories", Integral, 1)
    return tuple(int(size) for size in sizes)


def _entries(values: Array, observed: Array | None, sizes: Index) -> NDArray[np.int32]:
    """Entry of the table that each cell names."""
    first = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    limit = sizes.astype(np.float64)
    entries = np.minimum(values, limit).astype(np.int32)
    entries += first.astype(np.int32)
    if values.max() >= sizes.min():
        entries[values >= limit] = total + 1
    if observed is not None:
        entries[observed == 0] = total
    return entries


def _row_starts(m: int, d: int) -> NDArray[np.int32]:
    return np.arange(0, m * d + 1, d, dtype=np.int32)
