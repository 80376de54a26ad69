"""A family of the user's own: a log-density of one row, compiled by Numba, and how its parameters are found.

Fit. One of three ways:

- ``fit``: the user's weighted maximum likelihood, given rows and weights.
- ``statistics`` and ``maximise``: sufficient statistics as a flat array that adds up over rows, and the parameters that
  follow from them. Then a fit keeps nothing of the data: what exponential families should use.
- neither: the weighted log-likelihood is climbed numerically (BFGS; Nocedal & Wright, *Numerical Optimization*, 2006,
  ch. 6) in coordinates without bounds, from the current parameters. The best point that was seen is returned, never one
  worse than the start: so EM becomes generalised EM, which is monotone too (Dempster, Laird & Rubin 1977).
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from numbers import Integral
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._parallel import Body, run_chunks
from fastgen._validation import (
    BLOCK_ROWS,
    Array,
    Data,
    as_data,
    as_floats,
    as_parameters,
    check_number,
    refuse_infinity,
)
from fastgen.errors import EmptyComponentError
from fastgen.families._independent import check_weights
from fastgen.families.gaussian import _indices
from fastgen.kernels import density_out

Values = tuple[Array, ...]
"""Parameters of one component, in the order in which they were declared."""

_ROW_NS = 50.0  # a guess: decides only when to use threads
_FARTHEST = 690.0  # exp of it is finite
_WORST = 1e9  # stands for a density of 0: finite, so that differences are
_INSIDE = 1e-3  # of the interval, or of 1: where optimisation begins if the start lies on a bound


@dataclass(frozen=True)
class Parameter:
    """What a parameter of a `Custom` family may be.

    Parameters
    ----------
    shape : tuple of int
        Of one component's value; () is a number.
    bounds : (float, float)
        Least and greatest value of each element. Bounds are included in what is accepted; the optimiser stays inside.
    periodic : bool
        The bounds are the same point, as for an angle: values are wrapped into [low, high).
    start : array of ``shape``, or a number for all elements, optional
        Where numeric optimisation begins if the family has no parameters. Default: the middle of the bounds; 1 from the
        only one; 0 if there is none. From a bound, it begins a little inside.

    Raises
    ------
    ValueError
        The bounds are no interval, or the start lies outside.
    """

    shape: tuple[int, ...] = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)
    periodic: bool = False
    start: Any = None

    def __post_init__(self) -> None:
        shape: Any = self.shape
        if not isinstance(shape, tuple) or not all(isinstance(n, Integral) and cast(int, n) > 0 for n in shape):
            raise ValueError(f"shape must be a tuple of positive integers, got {self.shape!r}")
        low, high = self.bounds
        if not low < high:
            raise ValueError(f"bounds must be (low, high) with low < high, got {self.bounds!r}")
        if self.periodic and not high - low < math.inf:
            raise ValueError(f"a periodic parameter needs finite bounds, got {self.bounds!r}")
        if self.start is not None:
            self.check(self.first(), "start")

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def first(self) -> Array:
        """Where optimisation begins."""
        low, high = self.bounds
        if self.start is not None:
            value = self.start
        elif math.isfinite(low) and math.isfinite(high):
            value = 0.5 * low + 0.5 * high
        elif math.isfinite(low):
            value = low + 1.0
        else:
            value = high - 1.0 if math.isfinite(high) else 0.0
        array = np.asarray(value, dtype=np.float64)
        return np.array(np.broadcast_to(array, self.shape) if array.ndim == 0 else array)

    def check(self, value: ArrayLike, name: str, K: int | None = None) -> Array:
        """Return a value (of K components) as a new array, if it is what was declared; wrapped if periodic."""
        shape = self.shape if K is None else (K, *self.shape)
        array = as_parameters(np.asarray(as_floats(value, name), dtype=np.float64), name, shape).copy()
        low, high = self.bounds
        if self.periodic:
            return self._wrap(array)
        if (array < low).any() or (array > high).any():
            raise ValueError(f"{name} must be within [{low:g}, {high:g}], got {array}")
        return array

    def _wrap(self, array: Array) -> Array:
        low, high = self.bounds
        wrapped = np.asarray(low + np.mod(array - low, high - low))
        return np.where(wrapped < high, wrapped, low)

    @property
    def is_transformed(self) -> bool:
        """Whether `to_free` takes logarithms."""
        return not self.periodic and self.bounds != (-math.inf, math.inf)

    def to_free(self, value: Array) -> Array:
        """Coordinates without bounds, (size,)."""
        low, high = self.bounds
        flat = value.ravel()
        if not self.is_transformed:
            return flat
        nearest = _INSIDE * min(1.0, high - low)
        above, below = (np.where(distance > 0, distance, nearest) for distance in (flat - low, high - flat))
        return np.asarray((np.log(above) if low > -math.inf else 0) - (np.log(below) if high < math.inf else 0))

    def from_free(self, free: Array) -> Array:
        """What `to_free` returned, as a value."""
        low, high = self.bounds
        if self.periodic:
            value = self._wrap(free)
        elif not self.is_transformed:
            value = free
        else:
            size = np.exp(np.clip(free, -_FARTHEST, _FARTHEST))
            if high == math.inf:
                value = low + size
            elif low == -math.inf:
                value = high - 1 / size
            else:
                value = np.clip(low + (high - low) * (size / (1 + size)), low, high)
        return np.reshape(value, self.shape)


@dataclass(frozen=True, eq=False)
class DataStatistics:
    """The data itself, for K components: all that a family without sufficient statistics can keep.

    Memory: O(n (d + K)), and merging saves nothing. The rows are shared by the components.
    """

    weight: Array
    """(K,) total weight"""
    blocks: tuple[tuple[tuple[Array, Array], ...], ...]
    """For each component, blocks of rows (n, d) and their weights (n,)"""

    complete = True

    def __add__(self, other: "DataStatistics") -> "DataStatistics":
        if not isinstance(other, DataStatistics):
            return NotImplemented
        if len(self.weight) != len(other.weight):
            raise ValueError(f"statistics of {len(self.weight)} and {len(other.weight)} components cannot be merged")
        blocks = tuple(one + two for one, two in zip(self.blocks, other.blocks, strict=True))
        return DataStatistics(self.weight + other.weight, blocks)

    def __mul__(self, factor: float) -> "DataStatistics":
        """The statistics of the same data with all weights multiplied."""
        blocks = tuple(tuple((X, w * factor) for X, w in component) for component in self.blocks)
        return DataStatistics(self.weight * factor, blocks)

    @classmethod
    def stack(cls, parts: "Sequence[DataStatistics]") -> "DataStatistics":
        """Statistics of several families' components, as those of one family."""
        blocks = tuple(component for part in parts for component in part.blocks)
        return cls(np.concatenate([part.weight for part in parts]), blocks)


@dataclass(frozen=True, eq=False)
class SumStatistics:
    """Sufficient statistics of K components, as the user's function returns them."""

    weight: Array
    """(K,) total weight"""
    values: Array
    """(K, m)"""

    complete = True

    def __add__(self, other: "SumStatistics") -> "SumStatistics":
        if not isinstance(other, SumStatistics):
            return NotImplemented
        if self.values.shape != other.values.shape:
            raise ValueError(f"statistics of shapes {self.values.shape} and {other.values.shape} cannot be merged")
        return SumStatistics(self.weight + other.weight, self.values + other.values)

    def __mul__(self, factor: float) -> "SumStatistics":
        """The statistics of the same data with all weights multiplied."""
        return SumStatistics(self.weight * factor, self.values * factor)

    @classmethod
    def stack(cls, parts: "Sequence[SumStatistics]") -> "SumStatistics":
        """Statistics of several families' components, as those of one family."""
        return cls(np.concatenate([part.weight for part in parts]), np.concatenate([part.values for part in parts]))


class Custom:
    """K components of a user's own family.

    Parameters
    ----------
    log_density : function (x, *parameters of one component) -> float
        Log-density in nats of one row x, a float64 array (d,). Parameters come in the order in which they are declared:
        numbers as floats, others as float64 arrays. Decorated with ``numba.njit`` it runs compiled, without the
        interpreter's lock and on all threads, after a compilation of some tenths of a second for each process; a plain
        function works too, about a hundred times slower. -inf is a row that cannot be; NaN and +inf are errors.
    parameters : mapping of str to Parameter
    n_features : int
        d.
    fit : function (X, weights) -> parameters of one component, optional
        Weighted maximum likelihood. X (n, d) and weights (n,) are float64 and read-only. Parameters are returned as a
        mapping, as a sequence in the order of their declaration, or, if there is one alone, as its value. The fit of a
        mixture is monotone as far as this maximises.
    statistics : function (X, weights) -> array (m,), optional
        Sufficient statistics of one component, which add up over rows. Together with ``maximise``.
    maximise : function (statistics) -> parameters of one component, optional
    sample : function (n, rng, *parameters of one component) -> array (n, d), optional
    handles_missing : bool
        ``log_density`` (and ``fit`` or ``statistics``) know what to do with NaN. Otherwise NaN in X is an error.
    max_steps : int
        Of the numeric optimisation, in one call of `maximise`.
    values : mapping of str to array (K, *shape), optional
        The parameters.

    Raises
    ------
    ValueError
        Values that are not what was declared, or ways of fitting that exclude each other.

    Notes
    -----
    Results are the same bits for any number of threads. The family can be pickled if its functions can: those of a
    module, compiled or not.

    Examples
    --------
    Directions of the wind, which blows from two sides, as a mixture of von Mises distributions: the density is all that
    is needed.

    >>> import math
    >>> import numpy as np
    >>> from numba import njit
    >>> from fastgen.families import Custom, Parameter
    >>> from fastgen.kernels import softmax

    >>> @njit
    ... def von_mises(x, loc, kappa):
    ...     bessel = term = 1.0  # I_0(kappa): https://dlmf.nist.gov/10.25.E2
    ...     for k in range(1, 1000):
    ...         term *= (kappa / (2 * k)) ** 2
    ...         bessel += term
    ...         if term < 1e-17 * bessel:
    ...             break
    ...     return kappa * math.cos(x[0] - loc) - math.log(2 * math.pi * bessel)

    >>> parameters = {
    ...     "loc": Parameter(bounds=(-math.pi, math.pi), periodic=True),
    ...     "kappa": Parameter(bounds=(0, math.inf)),
    ... }
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.vonmises(-2, 4, 600), rng.vonmises(1, 8, 400)])[:, None]

    EM from a rough guess which directions belong together:

    >>> def em(family, n_iter=30):
    ...     posterior = np.eye(2)[(X[:, 0] > 0).astype(int)]
    ...     for _ in range(n_iter):
    ...         family = family.maximise(family.statistics(X, posterior))
    ...         posterior = softmax(family.log_density(X) + np.log(posterior.mean(axis=0)))
    ...     return family

    >>> fitted = em(Custom(von_mises, parameters))
    >>> fitted.parameters["loc"].round(1)
    array([-2.,  1.])

    It is an exponential family: with its sufficient statistics the fit is exact, quicker, and keeps no data.

    >>> from scipy.optimize import brentq
    >>> from scipy.special import i0e, i1e

    >>> def statistics(X, weights):
    ...     return np.array([weights @ np.cos(X[:, 0]), weights @ np.sin(X[:, 0]), weights.sum()])

    >>> def maximise(sums):
    ...     cosine, sine, weight = sums
    ...     length = math.hypot(cosine, sine) / weight
    ...     kappa = brentq(lambda kappa: i1e(kappa) / i0e(kappa) - length, 0, 500)
    ...     return {"loc": math.atan2(sine, cosine), "kappa": kappa}

    >>> exact = em(Custom(von_mises, parameters, statistics=statistics, maximise=maximise))
    >>> bool(np.allclose(exact.parameters["kappa"], fitted.parameters["kappa"], rtol=1e-4))
    True
    """

    def __init__(
        self,
        log_density: Callable[..., float],
        parameters: Mapping[str, Parameter],
        n_features: int = 1,
        *,
        fit: Callable[[Array, Array], Any] | None = None,
        statistics: Callable[[Array, Array], ArrayLike] | None = None,
        maximise: Callable[[Array], Any] | None = None,
        sample: Callable[..., ArrayLike] | None = None,
        handles_missing: bool = False,
        max_steps: int = 100,
        values: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        if not callable(log_density):
            raise TypeError(f"log_density must be a function, got {log_density!r}")
        for name, parameter in parameters.items():
            if not isinstance(parameter, Parameter):
                raise TypeError(f"{name} must be declared by a Parameter, got {parameter!r}")
        if not parameters:
            raise ValueError("declare at least one parameter")
        check_number(n_features, "n_features", Integral, 1)
        check_number(max_steps, "max_steps", Integral, 1)
        if (statistics is None) != (maximise is None):
            raise ValueError("give both statistics and maximise, or neither")
        if fit is not None and statistics is not None:
            raise ValueError("give fit, or statistics and maximise, not all of them")
        self._density = log_density
        self._declared = dict(parameters)
        self._d = int(n_features)
        self._fit_rows = fit
        self._sum_rows = statistics
        self._maximise_sums = maximise
        self._draw = sample
        self.handles_missing = bool(handles_missing)
        self.max_steps = int(max_steps)
        self._values: Values | None = None
        if values is not None:
            if set(values) != set(self._declared):
                raise ValueError(f"values must be given for {list(self._declared)}, got {list(values)}")
            K = len(np.atleast_1d(as_floats(values[next(iter(self._declared))], next(iter(self._declared)))))
            if K == 0:
                raise ValueError("values must have at least one component")
            self._values = tuple(self._declared[name].check(values[name], name, K) for name in self._declared)
            self._freeze()

    def _with(self, values: Values) -> Self:
        """The same family with other (checked) parameters."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._values = values
        return other._freeze()

    def _freeze(self) -> Self:
        for array in self._values or ():
            array.flags.writeable = False
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickling and copying forget it

    def __repr__(self) -> str:
        name = getattr(self._density, "__name__", repr(self._density))
        size = "" if self._values is None else f", {self.n_components} components"
        return f"families.Custom({name}{size}, {self._d} features)"

    def _known(self) -> Values:
        if self._values is None:
            raise AttributeError("this family has no parameters yet: give it values, or fit it")
        return self._values

    @property
    def n_components(self) -> int:
        """K."""
        return len(self._known()[0])

    @property
    def n_features(self) -> int:
        """d; known before there are parameters."""
        return self._d

    @property
    def n_parameters(self) -> int:
        """Free parameters: all elements of all that were declared."""
        return self.n_components * sum(parameter.size for parameter in self._declared.values())

    @property
    def parameters(self) -> dict[str, Array]:
        """The parameters by name, each (K, *shape)."""
        return dict(zip(self._declared, self._known(), strict=True))

    # ---- densities ---------------------------------------------------------------------------------------------------

    def log_density(self, X: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
        """Log-density of each row under each component.

        Parameters
        ----------
        X : array (n, d)
        out : array (n, K), optional
            Of X's dtype or float64.
        n_threads : int, optional
            The result does not depend on it. A function that is not compiled runs on one.

        Returns
        -------
        array (n, K), in nats
            float32 if X is float32 (computed in float64 and rounded once), else float64.

        Raises
        ------
        ValueError
            X holds infinity (or NaN, unless ``handles_missing``), or a log-density is NaN or +inf.

        Notes
        -----
        O(n K) calls of the user's function. Memory beyond the result: 4096 rows for each thread.
        """
        data = self._as_data(X)
        values = self._known()
        K = self.n_components
        result = density_out(out, (len(data), K), data)
        components = [_arguments(values, k) for k in range(K)]
        bad: list[tuple[int, int, float]] = []

        def block(rows: slice, part: Array) -> None:
            for k, arguments in enumerate(components):
                density = self._rows(part, arguments)
                wrong = np.flatnonzero(~(density < np.inf))
                if len(wrong):
                    bad.append((rows.start + int(wrong[0]), k, float(density[wrong[0]])))
                result[rows, k] = density

        self._each_block(block, data, K, n_threads)
        if bad:
            row, k, value = min(bad)
            given = ", ".join(f"{name} = {array[k]}" for name, array in self.parameters.items())
            raise ValueError(f"log_density returned {value} for row {row} of X under component {k} ({given})")
        return result

    def _as_data(self, X: ArrayLike) -> Data:
        data = as_data(X, n_features=self._d)
        refuse_infinity(data)
        if not self.handles_missing:
            for start in range(0, len(data), BLOCK_ROWS):
                found = np.argwhere(np.isnan(data[start : start + BLOCK_ROWS]))
                if len(found):
                    row, column = found[0]
                    raise ValueError(
                        f"Input X contains NaN (at row {start + row}, column {column}), which the family does not know "
                        "as a missing value: write a log_density that does, and say handles_missing=True"
                    )
        return data

    def _rows(self, X: Array, arguments: tuple[Any, ...]) -> Array:
        """Log-density of rows of a block of our own, under the parameters of one component."""
        out = np.empty(len(X))
        if is_compiled(self._density):
            compiled_rows(self._density)(X, out, arguments)
        else:
            for i, x in enumerate(X):
                out[i] = self._density(x, *arguments)
        return out

    def _each_block(self, block: Callable[[slice, Array], None], X: Data, K: int, n_threads: int | None) -> None:
        """Call ``block(rows, copy of them)`` for fixed blocks of rows, whatever the number of threads."""
        n = len(X)

        def body(start: int, stop: int) -> None:
            for first in range(start, stop, BLOCK_ROWS):
                rows = slice(first, min(first + BLOCK_ROWS, stop))
                block(rows, np.array(X[rows], dtype=np.float64, order="C"))  # a copy: the user's function may write

        def make_body() -> Body:
            return body

        run_chunks(make_body, n, BLOCK_ROWS, n * K * _ROW_NS, n_threads if is_compiled(self._density) else 1)

    # ---- fit ---------------------------------------------------------------------------------------------------------

    def statistics(
        self, X: ArrayLike, weights: ArrayLike | None = None, *, n_threads: int | None = None
    ) -> DataStatistics | SumStatistics:
        """What a fit needs of a block of data.

        Parameters
        ----------
        X : array (n, d)
        weights : array (n, K), or (n,) for one component, optional
            Default: one component, all ones.
        n_threads : int, optional
            Not used.

        Returns
        -------
        SumStatistics
            If the family has ``statistics``.
        DataStatistics
            Otherwise: a copy of the data and the weights.
        """
        data = np.array(self._as_data(X), dtype=np.float64, order="C")
        data.flags.writeable = False
        checked = check_weights(weights, len(data), None if self._values is None else self.n_components)
        w = np.ones((1, len(data))) if checked is None else np.array(checked.T, order="C")
        if self._values is not None and len(w) != self.n_components:
            raise ValueError(f"weights must have {self.n_components} columns, one for each component")
        w.flags.writeable = False
        total = w.sum(axis=1)
        if self._sum_rows is None:
            return DataStatistics(total, tuple(((data, row),) for row in w))
        sums = [np.array(as_floats(self._sum_rows(data, row), "what statistics returns"), np.float64) for row in w]
        for k, one in enumerate(sums):
            if one.ndim != 1 or one.shape != sums[0].shape or not np.isfinite(one).all():
                raise ValueError(f"statistics must return a finite array (m,), got {one} for component {k}")
        return SumStatistics(total, np.stack(sums))

    def maximise(self, statistics: DataStatistics | SumStatistics) -> Self:
        """The parameters that maximise the weighted log-likelihood, or raise it: see the head of this module.

        Parameters
        ----------
        statistics : DataStatistics or SumStatistics
            As `statistics` returns them.

        Returns
        -------
        Custom

        Raises
        ------
        fastgen.errors.EmptyComponentError
            A component has no weight.
        ValueError
            The user's function returned what was not declared, or numeric optimisation starts where the density is 0.
        """
        expected: type[Any] = DataStatistics if self._sum_rows is None else SumStatistics
        if not isinstance(statistics, expected):
            raise TypeError(f"this family needs {expected.__name__}, got {type(statistics)}")
        if statistics.weight.min() <= 0:
            raise EmptyComponentError(int(statistics.weight.argmin()))
        K = len(statistics.weight)
        if self._values is not None and self.n_components != K:
            raise ValueError(f"statistics of {K} components, but the family has {self.n_components}")
        fitted = []
        for k in range(K):
            if isinstance(statistics, SumStatistics):
                returned = cast(Any, self._maximise_sums)(statistics.values[k].copy())
                fitted.append(self._declared_values(returned, "maximise", k))
            elif self._fit_rows is not None:
                X, w = (_joined([block[i] for block in statistics.blocks[k]]) for i in range(2))
                fitted.append(self._declared_values(self._fit_rows(X, w), "fit", k))
            else:
                fitted.append(self._climb(statistics.blocks[k], float(statistics.weight[k]), k))
        return self._with(tuple(np.stack(arrays) for arrays in zip(*fitted, strict=True)))

    def _declared_values(self, returned: Any, function: str, component: int) -> Values:
        """Parameters of one component from what a function of the user returned."""
        names = list(self._declared)
        if isinstance(returned, Mapping):
            if set(returned) != set(names):
                raise ValueError(f"{function} must return values for {names}, got {list(returned)}")
            returned = [returned[name] for name in names]
        elif len(names) == 1 and not (isinstance(returned, tuple) and len(returned) == 1):
            returned = [returned]
        elif not isinstance(returned, Sequence | np.ndarray) or len(returned) != len(names):
            raise ValueError(f"{function} must return values for {names}, got {returned!r}")
        return tuple(
            self._declared[name].check(value, f"{name}, as {function} returned it for component {component},")
            for name, value in zip(names, returned, strict=True)
        )

    def _mean_log_density(self, blocks: Sequence[tuple[Array, Array]], weight: float, values: Values) -> float:
        """Weighted mean; -inf where the density is 0, or is none."""
        arguments = tuple(float(value) if value.ndim == 0 else value.copy() for value in values)
        total = 0.0
        for X, w in blocks:
            sums = np.zeros(-(-len(X) // BLOCK_ROWS))

            def block(rows: slice, part: Array, w: Array = w, sums: Array = sums) -> None:
                density = self._rows(part, arguments)
                counted = w[rows] > 0
                sums[rows.start // BLOCK_ROWS] = (density[counted] * w[rows][counted]).sum()

            self._each_block(block, X, 1, None)
            total += float(sums.sum())
        return total / weight if math.isfinite(total) else -math.inf

    def _climb(self, blocks: Sequence[tuple[Array, Array]], weight: float, component: int) -> Values:
        """Parameters of one component that are better than the current ones, or these: BFGS in free coordinates."""
        declared = list(self._declared.values())
        if self._values is None:
            start: Values = tuple(parameter.first() for parameter in declared)
        else:
            start = tuple(value[component] for value in self._values)
        cuts = np.cumsum([parameter.size for parameter in declared])[:-1]

        def value_at(free: Array) -> tuple[float, Values]:
            parts = zip(declared, np.split(free, cuts), strict=True)
            values = tuple(parameter.from_free(part) for parameter, part in parts)
            return self._mean_log_density(blocks, weight, values), values

        level = self._mean_log_density(blocks, weight, start)
        if level == -math.inf:
            given = ", ".join(f"{name} = {value}" for name, value in zip(self._declared, start, strict=True))
            raise ValueError(
                f"the log-likelihood of component {component} is not finite where optimisation starts ({given}): "
                "give each Parameter a start where all rows are possible"
            )
        bounded = np.concatenate([np.full(parameter.size, parameter.is_transformed) for parameter in declared])
        origin = np.concatenate([p.to_free(value) for p, value in zip(declared, start, strict=True)])
        better = climb(value_at, origin, (level, start), bounded, self.max_steps)
        return cast(Values, better)

    def penalty(self, statistics: DataStatistics | SumStatistics) -> float:
        """0: the fit maximises the log-likelihood."""
        return 0.0

    # ---- samples and parts -------------------------------------------------------------------------------------------

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation of each of the components that are listed.

        Parameters
        ----------
        components : integer array (n,)
        rng : numpy.random.Generator

        Returns
        -------
        array (n, d)

        Raises
        ------
        NotImplementedError
            The family was made without ``sample``.
        """
        components = _indices(components, "components", self.n_components)
        if self._draw is None:
            raise NotImplementedError("this family was made without a function that draws samples: give it sample=")
        result = np.empty((len(components), self._d))
        for k in np.unique(components):
            rows = np.flatnonzero(components == k)
            drawn = as_floats(self._draw(len(rows), rng, *_arguments(self._known(), int(k))), "what sample returns")
            if drawn.shape != (len(rows), self._d) and (self._d != 1 or drawn.shape != (len(rows),)):
                raise ValueError(f"sample must return an array of shape {(len(rows), self._d)}, got {drawn.shape}")
            result[rows] = drawn.reshape(len(rows), self._d)
        return result

    def select(self, components: Sequence[int]) -> Self:
        """The family of some of the components."""
        chosen = _indices(components, "components", self.n_components)
        return self._with(tuple(array[chosen] for array in self._known()))

    def marginal(self, columns: Any) -> Self:
        """The family itself, if it is asked for all columns; of others nothing is known (`NotImplementedError`)."""
        if not np.array_equal(_indices(columns, "columns", self._d), np.arange(self._d)):
            raise NotImplementedError("the marginals of a custom family are not known")
        return self._with(self._known())

    def condition(self, given: Mapping[int, float]) -> Self:
        """The family itself, if nothing is given; otherwise a `NotImplementedError`."""
        if len(given):
            raise NotImplementedError("the conditional distributions of a custom family are not known")
        return self._with(self._known())

    def impute(self, X: Data, posterior: Array | None = None, rng: np.random.Generator | None = None) -> Data:
        """A copy of X, if nothing is missing; otherwise a `NotImplementedError`."""
        if np.isnan(X).any():
            raise NotImplementedError("the conditional distributions of a custom family are not known")
        return X.copy()


def climb(
    value_at: Callable[[Array], tuple[float, Any]],
    origin: Array,
    start: tuple[float, Any],
    bounded: NDArray[np.bool_],
    max_steps: int,
) -> Any:
    """What belongs to the greatest value that was found by BFGS, not smaller than that of the start.

    Coordinates are scaled so that a unit step bends the value by about 0.01: then differences are taken over sensible
    distances, wherever the data lies and whatever its units. Where the scales turn out to be wrong, or the end is far
    from the start, it begins again with new ones.

    Parameters
    ----------
    value_at : coordinates -> (value, anything); -inf where there is no value
    origin : array (m,)
    start : value and anything of the origin, or of a point that it stands for
    bounded : array (m,), which coordinates are logarithms: in these a round goes by a factor of at most exp(5), since
        far out they lose their effect
    max_steps : of BFGS, in all rounds
    """
    minimize = import_module("scipy.optimize").minimize
    best, found = start
    place = origin

    for _ in range(20):
        level, centre, scale = best, place, np.ones(len(origin))

        def loss(step: Array, level: float = level, centre: Array = centre, scale: Array = scale) -> float:
            nonlocal best, found, place
            move = scale * step
            if (np.abs(move[bounded]) > 5).any():
                return _WORST
            value, what = value_at(centre + move)
            if value > best:
                best, found, place = value, what, centre + move
            return min(level - value, _WORST)

        for j in range(len(origin)):
            unit = np.zeros(len(origin))
            unit[j] = 1.0
            grown = shrunk = False
            for _ in range(40):
                bend = abs(loss(unit) + loss(-unit))
                grow, shrink = bend < 2e-3 and not shrunk, bend > 0.2 and not grown
                if not (grow or shrink):
                    break
                grown, shrunk = grown or grow, shrunk or shrink
                scale[j] *= 4.0 if grow else 0.25
            else:
                scale[j] = 1.0  # it makes no difference
        options = {"gtol": 1e-8, "maxiter": max_steps}
        with np.errstate(all="ignore"):
            result = minimize(loss, np.zeros(len(origin)), method="BFGS", jac="3-point", options=options)
        max_steps -= result.nit
        gain = best - level
        if max_steps <= 0 or gain <= 1e-9 or (result.success and gain <= 1e-3):
            break
    return found


def is_compiled(function: Any) -> bool:
    """Whether Numba made it; Numba is then imported already."""
    numba = sys.modules.get("numba")
    return numba is not None and isinstance(function, cast(Any, numba).core.dispatcher.Dispatcher)


@lru_cache(maxsize=128)
def compiled_rows(function: Any) -> Callable[[Array, Array, tuple[Any, ...]], None]:
    """A compiled loop over rows: (X, out, parameters of one component)."""

    def rows(X: Array, out: Array, parameters: tuple[Any, ...]) -> None:
        for i in range(X.shape[0]):
            out[i] = function(X[i], *parameters)

    numba: Any = import_module("numba")
    loop: Callable[[Array, Array, tuple[Any, ...]], None] = numba.njit(nogil=True, error_model="numpy")(rows)
    return loop


def _arguments(values: Values, component: int) -> tuple[Any, ...]:
    """What the user's function takes: floats and arrays, which it may write into."""
    own = [value[component] for value in values]
    return tuple(float(value) if np.ndim(value) == 0 else np.array(value, order="C") for value in own)


def _joined(arrays: list[Array]) -> Array:
    if len(arrays) == 1:
        return arrays[0]
    whole = np.concatenate(arrays)
    whole.flags.writeable = False
    return whole
