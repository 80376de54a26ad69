"""What families of discrete, independent columns share.

p(x | k) = prod_j p(x_j | k): a missing value leaves its factor out, a marginal is the family of some of the columns,
and a conditional is a marginal. Data is looked at in blocks of rows, so temporaries are O(block (d + K)).

Matrix products are kept below the size at which BLAS would wake threads of its own, which go on spinning. Those whose
rows are results have a fixed size: the last bits that BLAS gives to a row then do not depend on what stands beside it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from operator import add
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._missing import Index, incomplete_rows
from fastgen._parallel import run_chunks, segments
from fastgen._validation import BLOCK_ROWS, Array, Data, as_data, as_floats, as_parameters, as_weights, refuse_infinity
from fastgen.errors import EmptyComponentError
from fastgen.families.gaussian import _indices, _refuse_unobserved
from fastgen.kernels import density_out

_SERIAL_PRODUCT = 1 << 18
"""Multiplications that OpenBLAS does in the calling thread."""
_PRODUCT_ROWS = 64
"""Rows of a product whose rows are results."""


class CellError(ValueError):
    """A cell of X has a value that the family gives no meaning to.

    Attributes
    ----------
    row, column : int
    value : float
    reason : str
    """

    def __init__(self, row: int, column: int, value: float, reason: str) -> None:
        super().__init__(row, column, value, reason)
        self.row, self.column, self.value, self.reason = row, column, value, reason

    def __str__(self) -> str:
        return f"X has {self.value:g} at row {self.row}, column {self.column}: {self.reason}; NaN is a missing value"


class _Illegal(Exception):
    """Somewhere in a block; where, is found out once all threads have stopped."""


def check_weights(weights: ArrayLike | None, n: int, n_components: int | None) -> Array | None:
    """Return weights as (n, K), or None; ``n_components`` is the K that (n, K) must have."""
    if weights is None:
        return None
    array = as_floats(weights, "weights")
    if array.ndim != 2:
        return cast(Array, as_weights(array, n, "weights"))[:, None]
    if n_components is not None and array.shape[1] != n_components:
        raise ValueError(f"weights must have {n_components} columns, got shape {array.shape}")
    if len(array) != n or not array.size:
        raise ValueError(f"weights must have shape (n, K), here ({n}, K), got {array.shape}")
    if not np.isfinite(array).all() or array.min() < 0:
        raise ValueError("weights must be finite and not negative")
    return np.asarray(array, dtype=np.float64)


def draw_components(posterior: Array, rng: np.random.Generator) -> Index:
    """A component for each row of ``posterior`` (n, K)."""
    edges = posterior.cumsum(axis=1)
    u = rng.random((len(edges), 1)) * edges[:, -1:]
    return cast(Index, np.minimum((edges <= u).sum(axis=1), edges.shape[1] - 1))


class Independent(ABC):
    """K components whose columns are independent and take the values 0, 1, 2, ...; missing where NaN."""

    _name: ClassVar[str]
    """What the parameters are called."""
    _cell_ns: ClassVar[float] = 3.0
    """Rough cost of a cell."""
    _parameters: Array | None = None

    # ---- what each family brings -------------------------------------------------------------------------------------

    @abstractmethod
    def _empty(self) -> Self:
        """The family without parameters."""

    @abstractmethod
    def _options(self) -> str:
        """How these are told in `repr`."""

    @abstractmethod
    def _block_log_density(self, values: Array, observed: Array | None) -> Array:
        """(m, K) of a block that `_blocks` yields."""

    @abstractmethod
    def _segment(self, X: Data, weights: Array | None, start: int, stop: int, plan: Any) -> Any:
        """Statistics of some rows."""

    @abstractmethod
    def maximise(self, statistics: Any) -> Self:
        """The parameters that maximise the expected log-likelihood."""

    @abstractmethod
    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation of each of the components that are listed."""

    @abstractmethod
    def _most_likely(self, posterior: Array) -> Array:
        """What stands in for missing values under these probabilities (m, K) of the components: (m, d)."""

    @abstractmethod
    def _prepare(self) -> Any:
        """The parameters as `_block_log_density` wants them."""

    @abstractmethod
    def _legal(self, column: int) -> str:
        """Which values are legal, for messages."""

    def _limit(self, fitting: bool) -> float | Array:
        """What all values of the columns must be below."""
        return np.inf

    def _plan(self, X: Data) -> Any:
        """What `_segment` needs to know of all rows."""
        return None

    # ---- parameters --------------------------------------------------------------------------------------------------

    def _set(self, parameters: Array) -> Self:
        """Take checked parameters, and make them constant."""
        self._parameters = parameters
        return self._freeze()

    def _freeze(self) -> Self:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_prepared"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickling and copying forget it

    def __repr__(self) -> str:
        parts = [self._options()] if self._options() else []
        if self._parameters is not None:
            parts.append(f"{self._parameters.shape[0]} components, {self._parameters.shape[1]} features")
        return f"families.{type(self).__name__}({', '.join(parts)})"

    def _given(self) -> Array:
        """The parameters, (K, d) or (K, d, C)."""
        if self._parameters is None:
            raise AttributeError(f"this family has no parameters yet: give it {self._name}, or fit it")
        return self._parameters

    @property
    def n_components(self) -> int:
        """K."""
        return len(self._given())

    @property
    def n_features(self) -> int:
        """d."""
        return int(self._given().shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters."""
        return int(self._given().size)

    @property
    def parameters(self) -> dict[str, Array]:
        """The parameters, by name."""
        return {self._name: self._given()}

    def penalty(self, statistics: Any) -> float:
        """What the fit maximises beyond the log-likelihood."""
        return 0.0

    # ---- data --------------------------------------------------------------------------------------------------------

    def _blocks(
        self, X: Data, start: int, stop: int, n_components: int, *, fitting: bool
    ) -> Iterator[tuple[slice, Array, Array | None]]:
        """Which rows; their values, 0 where missing; 1 where observed and 0 where not, or None if all are."""
        rows, limit = block_rows(X.shape[1], n_components), self._limit(fitting)
        for first in range(start, stop, rows):
            block = slice(first, min(first + rows, stop))
            yield block, *_checked(X[block], limit)

    def _refuse(self, X: Data, *, fitting: bool) -> None:
        """Say which cell is not legal."""
        refuse_infinity(X)
        limit = self._limit(fitting)
        for start in range(0, len(X), BLOCK_ROWS):
            values = X[start : start + BLOCK_ROWS].astype(np.float64)
            whole = (values >= 0) & (np.floor(values) == values)
            found = np.argwhere(~(whole & (values < limit)) & ~np.isnan(values))
            if len(found):
                row, column = found[0].tolist()
                raise CellError(start + row, column, float(values[row, column]), self._legal(column))
        raise AssertionError("an illegal value was seen")

    def log_density(self, X: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
        """Log-probability of each sample under each component; of its observed part where cells are NaN.

        Parameters
        ----------
        X : array (n, d)
        out : array (n, K), optional
            float64, or of X's dtype.
        n_threads : int, optional
            The result does not depend on it.

        Returns
        -------
        array (n, K), in nats
            -inf where a component rules a value out. float32 for float32 X, computed in float64. O(n d K).

        Raises
        ------
        ValueError
            An infinity, or a value that is not legal: the message names the cell.
        """
        data = as_data(X, n_features=self.n_features)
        n, d = data.shape
        result = density_out(out, (n, self.n_components), data)
        rows = block_rows(d, self.n_components)

        def body(first: int, last: int) -> None:
            with np.errstate(all="ignore"):
                for block, values, observed in self._blocks(data, first, last, self.n_components, fitting=False):
                    result[block] = self._block_log_density(values, observed)

        self._prepared  # noqa: B018 - not in several threads
        try:
            run_chunks(lambda: body, n, rows, n * d * self._cell_ns, n_threads)
        except _Illegal:
            self._refuse(data, fitting=False)
        return result

    @cached_property
    def _prepared(self) -> Any:
        return self._prepare()

    def statistics(self, X: ArrayLike, weights: ArrayLike | None = None, *, n_threads: int | None = None) -> Any:
        """Sufficient statistics of a block of data; the family needs no parameters for it.

        Parameters
        ----------
        X : array (n, d)
            Missing cells (NaN) do not count.
        weights : array (n, K), or (n,) for one component, optional
            Default: one component, all ones.
        n_threads : int, optional
            The result does not depend on it.

        Returns
        -------
        statistics
            Of the parameters' size. O(n d K).

        Raises
        ------
        ValueError
            An infinity, or a value that is not legal: the message names the cell.
        """
        known = self._parameters is not None
        data = as_data(X, n_features=self.n_features if known else None)
        n, d = data.shape
        checked = check_weights(weights, n, self.n_components if known else None)
        K = 1 if checked is None else checked.shape[1]
        try:
            plan = self._plan(data)
            size = d if plan is None else int(plan.sum())
            cuts = segments(n, block_rows(d, K), 8 * K * (2 * size + 1), d * self._cell_ns)
            parts: list[Any] = [None] * len(cuts)

            def body(first: int, last: int) -> None:
                with np.errstate(all="ignore"):
                    for i in range(first, last):
                        parts[i] = self._segment(data, checked, *cuts[i], plan)

            run_chunks(lambda: body, len(cuts), 1, n * d * self._cell_ns, n_threads)
        except _Illegal:
            self._refuse(data, fitting=True)
        with np.errstate(over="ignore"):
            return reduce(add, parts)

    def impute(self, X: Data, posterior: Array | None = None, rng: np.random.Generator | None = None) -> Data:
        """A copy of X with missing cells filled in; see the class for what takes their place.

        Parameters
        ----------
        X : array (n, d)
        posterior : array (n, K), optional
            p(k | observed part of each sample). Default: the family has one component.
        rng : numpy.random.Generator, optional
            Draw with it: a component for each row, then the cells from it.

        Returns
        -------
        array (n, d)
        """
        if posterior is None and self.n_components > 1:
            raise ValueError(f"{self.n_components} components need a posterior")
        result = X.copy()
        missing_somewhere = incomplete_rows(X)
        for start in range(0, len(missing_somewhere), BLOCK_ROWS):
            rows = missing_somewhere[start : start + BLOCK_ROWS]
            block = result[rows]
            p = np.ones((len(rows), 1)) if posterior is None else posterior[rows].astype(np.float64)
            filled = self._most_likely(p) if rng is None else self.sample(draw_components(p, rng), rng)
            result[rows] = np.where(np.isnan(block), filled, block)
        return result

    # ---- parts of the family -----------------------------------------------------------------------------------------

    def _take(self, components: Index | slice, columns: Index | slice) -> Self:
        return self._empty()._set(self._given()[components][:, columns].copy())

    def select(self, components: Sequence[int]) -> Self:
        """The family of some of the components."""
        return self._take(_indices(components, "components", self.n_components), slice(None))

    def marginal(self, columns: Sequence[int] | Index) -> Self:
        """The family of some of the columns."""
        return self._take(slice(None), _indices(columns, "columns", self.n_features))

    def condition(self, given: Mapping[int, float]) -> Self:
        """The family of the other columns, given values of some: their marginal, as columns are independent."""
        observed = _indices(sorted(given), "columns", self.n_features)
        return self.marginal(np.setdiff1d(np.arange(self.n_features), observed))


# ---- families whose log-probability is linear in x, but for a term without parameters --------------------------------


@dataclass(frozen=True, eq=False)
class ColumnStatistics:
    """Arrays of K components that add up."""

    weight: Array
    """(K,) total weight of the rows"""

    complete = True

    def __add__(self, other: Self) -> Self:
        if type(other) is not type(self):
            return NotImplemented
        mine, others = self._arrays(), other._arrays()
        if mine[-1].shape != others[-1].shape:
            raise ValueError(f"statistics of shapes {mine[-1].shape} and {others[-1].shape} cannot be merged")
        return type(self)(*map(add, mine, others))

    def __mul__(self, factor: float) -> Self:
        """The statistics of the same data with all weights multiplied."""
        return type(self)(*(array * factor for array in self._arrays()))

    def _arrays(self) -> list[Array]:
        return [getattr(self, field.name) for field in fields(self)]

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """Statistics of several families' components, as those of one family."""
        return cls(*map(np.concatenate, zip(*(part._arrays() for part in parts), strict=True)))


@dataclass(frozen=True, eq=False)
class Terms:
    """log p(x | k) = base(x) + sum_j constant_jk + (x_j - centre_j) slope_jk, or -inf."""

    centre: Array | None
    """(d,)"""
    slope: Array
    """(d, K)"""
    constant: Array
    """(d, K)"""
    no_zero: Array | None
    """(d, K): 1 where a value of 0 has no probability"""
    no_more: Array | None
    """(d, K): 1 where a value above 0 has no probability"""


class Linear(Independent):
    """A family with `Terms`."""

    @abstractmethod
    def _prepare(self) -> Terms: ...

    def _add_base(self, result: Array, values: Array, observed: Array | None) -> None:
        """Add what does not depend on the component."""

    def _block_log_density(self, values: Array, observed: Array | None) -> Array:
        terms: Terms = self._prepared
        x = values
        if terms.centre is not None:
            x = values - terms.centre
            if observed is not None:
                x *= observed
        result = row_product(x, terms.slope)
        result += row_product(np.ones((1, len(x.T))) if observed is None else observed, terms.constant)
        self._add_base(result, values, observed)
        result[np.isnan(result)] = -np.inf  # beyond the largest double
        if terms.no_more is not None:
            result[product((values > 0).astype(np.float64), terms.no_more) > 0] = -np.inf
        if terms.no_zero is not None:
            zero = (values == 0).astype(np.float64)
            result[product(zero if observed is None else zero * observed, terms.no_zero) > 0] = -np.inf
        return result


def any_or_none(where: NDArray[np.bool_]) -> Array | None:
    """As (d, K) numbers, if there are any."""
    return np.ascontiguousarray(where.T, dtype=np.float64) if where.any() else None


def block_rows(d: int, n_components: int) -> int:
    """Rows at a time: a power of 2, and so few that products are done by the calling thread."""
    most = max(16, min(BLOCK_ROWS, _SERIAL_PRODUCT // max(1, d * n_components)))
    return 1 << (most.bit_length() - 1)


def product(a: Array, b: Array) -> Array:
    """a @ b; with vectors, which BLAS would give to several threads sooner, without it."""
    if 1 in (len(a), b.shape[1]):
        return cast(Array, np.einsum("ij,jk->ik", a, b))
    return a @ b


def row_product(a: Array, b: Array) -> Array:
    """(m, d) @ (d, K), C-contiguous; each row of the result depends on its row of ``a`` alone, to the bit."""
    (m, d), K = a.shape, b.shape[1]
    if K == 1:
        return product(a, b)
    rows = min(_PRODUCT_ROWS, block_rows(d, K))
    if m % rows:
        a = np.concatenate([a, np.zeros((-m % rows, d))])
    return (a.reshape(-1, rows, d) @ b).reshape(-1, K)[:m]


def _checked(block: Data, limit: float | Array) -> tuple[Array, Array | None]:
    """Values, and where they are observed; all whole, not negative and below the limit."""
    values = block.astype(np.float64, order="C")
    observed: Array | None = None
    low, high = values.min(), values.max()
    if np.isnan(low):
        missing = np.isnan(values)
        values[missing] = 0.0
        observed = (~missing).astype(np.float64)
        low, high = values.min(), values.max()
    below = bool(np.all(high < limit)) or bool((values < limit).all())
    if low < 0 or not below or not (np.floor(values) == values).all():
        raise _Illegal
    return values, observed


def as_component_parameters(value: ArrayLike, name: str, ndim: int, most: float = np.inf) -> Array:
    """Return a copy of parameters (K, d) or (K, d, C), none of them empty, from 0 to ``most``."""
    array = as_floats(value, name)
    if array.ndim != ndim or 0 in array.shape:
        raise ValueError(f"{name} must have shape {'(K, d)' if ndim == 2 else '(K, d, C)'}, got {array.shape}")
    parameters = as_parameters(array, name, array.shape).copy()
    if parameters.min() < 0 or parameters.max() > most:
        raise ValueError(f"{name} must {'not be negative' if most == np.inf else f'be between 0 and {most:g}'}")
    return parameters


def check_statistics(statistics: Any, expected: type[Any]) -> None:
    """Raise an error unless each component has weight, and a value observed of each column."""
    if not isinstance(statistics, expected):
        raise TypeError(f"{expected.__name__} are needed, got {type(statistics)}")
    if statistics.weight.min() <= 0:
        raise EmptyComponentError(int(statistics.weight.argmin()))
    count: Array = statistics.count
    if not np.isfinite(count).all():
        raise ValueError("the sums of the data overflow: scale the weights")
    _refuse_unobserved(count)
