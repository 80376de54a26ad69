"""A product of families over disjoint groups of columns: mixed types.

p(x | k) = prod_i p_i(x[columns_i] | k)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._missing import Index
from fastgen._parallel import Body, run_chunks
from fastgen._validation import BLOCK_ROWS, Array, Data, as_data, refuse_infinity
from fastgen.errors import ComponentError
from fastgen.families._base import Family
from fastgen.families._independent import CellError, check_weights, draw_components
from fastgen.families.gaussian import _indices
from fastgen.kernels import density_out

_CELL_NS = 5.0


@dataclass(frozen=True, eq=False)
class ProductStatistics:
    """Statistics of the parts."""

    weight: Array
    """(K,) total weight of the rows"""
    parts: tuple[Any, ...]

    @property
    def complete(self) -> bool:
        """Whether those of all parts are."""
        return all(part.complete for part in self.parts)

    def __add__(self, other: "ProductStatistics") -> "ProductStatistics":
        if not isinstance(other, ProductStatistics):
            return NotImplemented
        if len(self.parts) != len(other.parts) or self.weight.shape != other.weight.shape:
            raise ValueError("statistics of different products cannot be merged")
        parts = tuple(mine + its for mine, its in zip(self.parts, other.parts, strict=True))
        return ProductStatistics(self.weight + other.weight, parts)

    def __mul__(self, factor: float) -> "ProductStatistics":
        """The statistics of the same data with all weights multiplied."""
        return ProductStatistics(self.weight * factor, tuple(part * factor for part in self.parts))

    @classmethod
    def stack(cls, parts: "Sequence[ProductStatistics]") -> "ProductStatistics":
        """Statistics of several families' components, as those of one family."""
        groups = zip(*(part.parts for part in parts), strict=True)
        return cls(
            np.concatenate([part.weight for part in parts]),
            tuple(type(group[0]).stack(group) for group in groups),
        )


@dataclass(frozen=True, eq=False)
class CompletePart:
    """Data of a part whose statistics follow from it alone."""

    X: Data
    weights: Array | None
    statistics: Any


class Product:
    """Families side by side: each component is independent between the groups of columns.

    Parameters
    ----------
    parts : list of (family, columns)
        Families of the same number of components, or all without parameters; columns are lists of integers that cover
        0, ..., d - 1, each once. A family may be a `Product` itself.

    Notes
    -----
    Groups of equally spaced columns (``[0, 1, 2]``) are read in place; others are copied: in blocks, but for the
    statistics as a whole.

    Examples
    --------
    >>> from fastgen import families
    >>> family = families.Product([(families.Gaussian("diag"), [0, 2]), (families.Poisson(), [1])])
    >>> fitted = family.maximise(family.statistics([[0.0, 3.0, 1.0], [2.0, 5.0, 4.0]]))
    >>> fitted.families[1].rates
    array([[4.]])
    """

    def __init__(self, parts: Iterable[tuple[Family, Sequence[int] | Index]]) -> None:
        pairs: list[Any] = []
        pair: Any
        for pair in parts:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"parts must be pairs (family, columns), got {pair!r}")
            pairs.append(pair)
        if not pairs:
            raise ValueError("a product needs at least one part")
        for family, _ in pairs:
            if not all(hasattr(type(family), name) for name in ("log_density", "statistics", "maximise", "sample")):
                raise TypeError(f"parts must begin with a family, got {family!r}")
        total = sum(np.size(columns) for _, columns in pairs)
        groups = [_indices(columns, "columns", total) for _, columns in pairs] if total else []
        if not total or not all(map(len, groups)) or len(np.unique(np.concatenate(groups))) < total:
            listed = [np.asarray(columns).tolist() for _, columns in pairs]
            raise ValueError(f"columns must cover 0, 1, 2, ..., each once and some in each part, got {listed}")
        known = [family for family, _ in pairs if hasattr(family, "n_components")]
        if known and (len(known) < len(pairs) or len({family.n_components for family in known}) > 1):
            raise ValueError("the families must have the same number of components, or all of them no parameters")
        for i, family in enumerate(known):
            if family.n_features != len(groups[i]):
                raise ValueError(f"part {i} has {family.n_features} features, but {len(groups[i])} columns")
        self._families = tuple(family for family, _ in pairs)
        self._columns = tuple(groups)
        self._freeze()

    def _freeze(self) -> None:
        for columns in self._columns:
            columns.flags.writeable = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickling and copying forget it

    def __repr__(self) -> str:
        parts = ", ".join(f"({family!r}, {columns.tolist()})" for family, columns in self._pairs())
        return f"families.Product([{parts}])"

    def _pairs(self) -> "Iterator[tuple[Family, Index]]":
        return zip(self._families, self._columns, strict=True)

    def _like(self, families: Iterable[Family]) -> Self:
        return type(self)(list(zip(families, self._columns, strict=True)))

    @property
    def families(self) -> tuple[Family, ...]:
        """The family of each part."""
        return self._families

    @property
    def columns(self) -> tuple[Index, ...]:
        """The columns of each part."""
        return self._columns

    @property
    def n_components(self) -> int:
        """K."""
        return int(self._families[0].n_components)

    @property
    def n_features(self) -> int:
        """d; known without parameters."""
        return sum(map(len, self._columns))

    @property
    def n_parameters(self) -> int:
        """Free parameters of all parts."""
        return sum(family.n_parameters for family in self._families)

    @property
    def parameters(self) -> dict[str, Array]:
        """Parameters of all parts: ``"0.means"``, ``"0.covariances"``, ``"1.rates"``, ..."""
        return {
            f"{i}.{name}": array for i, family in enumerate(self._families) for name, array in family.parameters.items()
        }

    def log_density(self, X: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
        """Log-density of each sample under each component, the sum over the parts; of its observed part.

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
            float32 for float32 X, summed in float64.
        """
        data = as_data(X, n_features=self.n_features)
        n, d = data.shape
        K = self.n_components
        result = density_out(out, (n, K), data)

        def make_body() -> Body:
            work = np.empty((2, min(n, BLOCK_ROWS), K))

            def body(first: int, last: int) -> None:
                for start in range(first, last, BLOCK_ROWS):
                    stop = min(start + BLOCK_ROWS, last)
                    total, part = work[:, : stop - start]
                    total[:] = 0.0
                    for family, columns in self._pairs():
                        with _named(data, columns, start):
                            family.log_density(_take(data[start:stop], columns), out=part, n_threads=1)
                        total += part
                    result[start:stop] = total

            return body

        run_chunks(make_body, n, BLOCK_ROWS, n * d * (_CELL_NS + K), n_threads)
        return result

    def statistics(
        self, X: ArrayLike, weights: ArrayLike | None = None, *, n_threads: int | None = None
    ) -> ProductStatistics:
        """Sufficient statistics of a block of data: those of each part.

        Parameters
        ----------
        X : array (n, d)
        weights : array (n, K), or (n,) for one component, optional
            Default: one component, all ones.
        n_threads : int, optional
            The result does not depend on it.

        Returns
        -------
        ProductStatistics
        """
        known = hasattr(self, "n_components")
        data = as_data(X, n_features=self.n_features)
        checked = check_weights(weights, len(data), self.n_components if known else None)
        # (n,) is one component, whatever the number of components
        given = checked if checked is None or np.ndim(cast(Any, weights)) == 2 else checked[:, 0]
        parts = []
        for family, columns in self._pairs():
            with _named(data, columns):
                parts.append(family.statistics(_take(data, columns), given, n_threads=n_threads))
        return ProductStatistics(_weight(len(data), checked), tuple(parts))

    @property
    def accelerated(self) -> bool:
        """Whether `maximise` may overshoot, because that of a part may."""
        return any(getattr(family, "accelerated", False) for family in self._families)

    def maximise(self, statistics: ProductStatistics, *, cautious: bool = False) -> Self:
        """The estimates of the parts.

        Parameters
        ----------
        statistics : ProductStatistics
            As `statistics` returns them.
        cautious : bool
            Take steps that cannot make the objective fall, where a part offers faster ones.

        Returns
        -------
        Product

        Raises
        ------
        fastgen.errors.ComponentError
            As the parts raise it; columns are counted as columns of the product.
        """
        self._check(statistics)
        fitted = []
        for (family, columns), part in zip(self._pairs(), statistics.parts, strict=True):
            with _named(None, columns):
                careful = {"cautious": True} if cautious and getattr(family, "accelerated", False) else {}
                fitted.append(family.maximise(part, **careful))
        return self._like(fitted)

    def _check(self, statistics: Any) -> None:
        if not isinstance(statistics, ProductStatistics) or len(statistics.parts) != len(self._families):
            raise TypeError(f"ProductStatistics of {len(self._families)} parts are needed, got {type(statistics)}")

    def penalty(self, statistics: ProductStatistics) -> float:
        """The sum of those of the parts."""
        self._check(statistics)
        return float(sum(family.penalty(part) for family, part in zip(self._families, statistics.parts, strict=True)))

    def observe(self, X: Data, weights: Array | None = None) -> list[Any]:
        """What EM needs of data with missing values, whatever the parameters: see `expect`.

        Parameters
        ----------
        X : array (n, d)
        weights : array (n,), optional

        Returns
        -------
        list
            The weight, then what each part observes.
        """
        data = as_data(X, n_features=self.n_features)
        checked = check_weights(weights, len(data), None)
        observed: list[Any] = [_weight(len(data), checked)]
        for family, columns in self._pairs():
            part = _take(data, columns)
            with _named(data, columns):
                statistics = family.statistics(part, weights)
                if statistics.complete:
                    observed.append(CompletePart(part, weights, statistics))
                else:
                    observed.append(cast(Any, family).observe(part, weights))
        return observed

    def expect(self, observed: Sequence[Any]) -> tuple[float, ProductStatistics]:
        """E-step for missing values: log-likelihood of the observed cells, and expected statistics.

        Parameters
        ----------
        observed : list
            As `observe` returns it. The family must have one component.

        Returns
        -------
        log_likelihood : float
            In nats, weighted.
        statistics : ProductStatistics
        """
        weight, *rest = observed
        log_likelihood, parts = 0.0, []
        for family, part in zip(self._families, rest, strict=True):
            if isinstance(part, CompletePart):
                density = family.log_density(part.X, out=np.empty((len(part.X), 1)))[:, 0]
                if part.weights is not None:
                    density = np.multiply(density, part.weights, where=part.weights > 0, out=np.zeros(len(density)))
                value, statistics = float(density.sum()), part.statistics
            else:
                value, statistics = cast(Any, family).expect(part)
            log_likelihood += value
            parts.append(statistics)
        return log_likelihood, ProductStatistics(weight, tuple(parts))

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation from each of the components that are listed.

        Parameters
        ----------
        components : integer array (n,)
        rng : numpy.random.Generator

        Returns
        -------
        array (n, d)
        """
        components = _indices(components, "components", self.n_components)
        result = np.empty((len(components), self.n_features))
        for family, columns in self._pairs():
            result[:, columns] = family.sample(components, rng)
        return result

    def select(self, components: Sequence[int]) -> Self:
        """The family of some of the components."""
        return self._like(family.select(components) for family in self._families)

    def marginal(self, columns: Sequence[int] | Index) -> Self:
        """The family of some of the columns, in this order; parts without any of them are left out."""
        chosen = _indices(columns, "columns", self.n_features)
        if not len(chosen):
            raise ValueError("no column is left")
        parts: list[tuple[Family, Index]] = []
        for family, own in self._pairs():
            places = np.flatnonzero(np.isin(chosen, own))
            if len(places):
                parts.append((family.marginal(_positions(chosen[places], own)), places))
        return type(self)(parts)

    def condition(self, given: Mapping[int, float]) -> Self:
        """The family of the other columns, given values of some: p(rest | given, component)."""
        observed = _indices(sorted(given), "columns", self.n_features)
        rest = np.setdiff1d(np.arange(self.n_features), observed)
        if not len(rest):
            raise ValueError("no column is left: at least one must not be given")
        parts: list[tuple[Family, Index]] = []
        for family, own in self._pairs():
            known = {i: given[int(column)] for i, column in enumerate(own) if column in given}
            if len(known) < len(own):
                left = own[~np.isin(own, observed)]
                parts.append((family.condition(known) if known else family, np.searchsorted(rest, left)))
        return type(self)(parts)

    def impute(self, X: Data, posterior: Array | None = None, rng: np.random.Generator | None = None) -> Data:
        """A copy of X with missing cells filled in, each as its part does it.

        Parameters
        ----------
        X : array (n, d)
        posterior : array (n, K), optional
            p(k | observed part of each sample). Default: the family has one component.
        rng : numpy.random.Generator, optional
            Draw with it: a component for each row, the same for all parts, then the cells from it.

        Returns
        -------
        array (n, d)
        """
        if posterior is None and self.n_components > 1:
            raise ValueError(f"{self.n_components} components need a posterior")
        result = X.copy()
        if posterior is not None and rng is not None:
            posterior = np.eye(self.n_components)[draw_components(posterior.astype(np.float64), rng)]
        for family, columns in self._pairs():
            result[:, columns] = family.impute(_take(X, columns), posterior, rng)
        return result


def _weight(n: int, weights: Array | None) -> Array:
    return np.array([float(n)]) if weights is None else weights.sum(axis=0)


def _positions(columns: Index, own: Index) -> Index:
    """Where each of the columns stands in a part."""
    order = np.argsort(own)
    return order[np.searchsorted(own, columns, sorter=order)]


def _take(X: Data, columns: Index) -> Data:
    """Some columns: a view if they are equally spaced, otherwise a copy."""
    steps = np.unique(np.diff(columns))
    if len(steps) == 0:
        return X[:, columns[0] : columns[0] + 1]
    if len(steps) == 1 and steps[0] > 0:
        return X[:, columns[0] : columns[-1] + 1 : steps[0]]
    return X.take(columns, axis=1)


@contextmanager
def _named(X: Data | None, columns: Index, first_row: int = 0) -> Iterator[None]:
    """Count rows and columns in the errors of a part as those of the product."""
    try:
        yield
    except CellError as error:
        column = int(columns[error.column])
        raise CellError(error.row + first_row, column, error.value, error.reason) from None
    except ComponentError as error:
        error.reason = f"{error.reason} (counted among columns {columns.tolist()})"
        raise
    except ValueError:
        if X is not None:
            refuse_infinity(X)
        raise
