"""Markov random fields: undirected models of discrete variables, from a few factors to grids of a million nodes."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import product
from math import prod
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.exceptions import ConvergenceWarning

from fastgen._parallel import Body, run_chunks, segments
from fastgen._validation import Array, as_floats, as_generator, as_weights, check_choice, check_number
from fastgen.graphical._engine import Cost, Engine, EngineLimitError, _distinct
from fastgen.graphical._factors import DiscreteNetwork, Factor, FactorGraph
from fastgen.graphical._graph_cuts import alpha_expansion, graph_cut

if TYPE_CHECKING:
    from fastgen.graphical.bayesian_network import Query
    from fastgen.graphical.formats._text import Source, Target

__all__ = ["Assignment", "Marginals", "MarkovRandomField", "UnnormalisedWarning"]

Codes = NDArray[np.int32]
Flat = tuple[Any, ...]
Result = TypeVar("Result")

_MARGINALS = "auto", "exact", "loopy", "mean_field", "gibbs"
_MAPS = "auto", "exact", "max_product", "icm", "trw_s", "graph_cut", "alpha_expansion"
_SAMPLERS = "auto", "exact", "gibbs", "swendsen_wang"
_FITS = "likelihood", "pseudo_likelihood", "contrastive_divergence", "persistent_contrastive_divergence"
_AUTO_OPTIONS = {
    "graph_cut": (),
    "exact": (),
    "alpha_expansion": ("start", "max_cycles"),
    "trw_s": ("max_iter", "tol"),
    "icm": ("start", "n_starts", "max_sweeps", "random_state"),
}
"""What `MarkovRandomField.map` tries by itself, and the options of each."""
_LOOPY_OPTIONS = "damping", "schedule", "max_iter", "tol", "n_threads"
_MOST_CODE = 2**31 - 1
_ROOM = 1 << 31  # bytes that any method may take for the states of the variables
_AUTO_VARIABLES = 2000
"""Models with more variables, unless they are forests, are not given to the engine by themselves: even a forecast
would take seconds."""
_ISING = np.array([[1.0, -1.0], [-1.0, 1.0]])
_IMPOSSIBLE = "a row of X has probability 0 whatever the parameters: it meets a potential that is 0"
_LEAST_GRADIENT = 1e-7  # below it, the objective no longer tells steps apart
_MOST_LOG = 500.0  # of a factor that is a constant
_NS = 4.0  # for each slot of a factor that is looked up


def _kernels() -> Any:
    return import_module("fastgen._kernels.jit.markov")


def _sampling() -> Any:
    return import_module("fastgen.graphical._sampling")


class UnnormalisedWarning(UserWarning):
    """What is returned are no log-probabilities: log Z was not subtracted."""


@dataclass(frozen=True, eq=False)
class Marginals:
    """Marginal distributions, and how they were found."""

    marginals: Array
    """(V, K), or (n, V, K) for n rows of evidence: the distribution of each variable; 0 beyond its last state. NaN
    where the evidence is impossible."""
    log_partition: Any
    """Float, or (n,): the log of the sum of the potential over all states that agree with the evidence. An
    approximation, or NaN, if the marginals are not exact; a lower bound from mean field."""
    method: str
    exact: bool
    converged: bool
    details: Any = None
    """Result of an approximate method, one for each row if there are several."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """States of low energy, and how they were found."""

    states: NDArray[np.int64]
    """(V,), or (n, V) for n rows of evidence."""
    energy: Any
    """Float, or (n,): minus the unnormalised log-probability."""
    method: str
    exact: bool
    """Whether the energy is the least, to rounding."""
    lower_bound: Any
    """Float, or (n,): no states have a lower energy; -inf where nothing is known."""
    converged: bool
    """Whether the method came to an end by itself; of max-product also, whether each variable had one best state."""
    details: Any = None
    """Result of the method, one for each row if there are several."""
    polished: Any = False
    """Bool, or (n,): whether iterated conditional modes improved on the states that the method had found."""


@dataclass(frozen=True, eq=False)
class _Pairs:
    """log p(x) = sum_i unary[i, x_i] + sum_e weights[e] tables[e or 0, x_i, x_j] + constant."""

    unary: Array
    edges: NDArray[np.int64]
    tables: Array
    weights: Array

    def __post_init__(self) -> None:
        for array in (self.unary, self.edges, self.tables, self.weights):
            array.flags.writeable = False

    def values(self, first: NDArray[Any], second: NDArray[Any]) -> Array:
        """Log-potentials of all edges for the states of their ends."""
        which = 0 if len(self.tables) == 1 else np.arange(len(self.edges))
        return cast(Array, self.tables[which, first, second] * self.weights)

    def all_tables(self) -> Array:
        """(m, K, K), or (1, K, K) if they are equal."""
        if not len(self.edges):
            return self.tables[:0]
        if (self.weights == self.weights[0]).all():
            return self.tables * self.weights[0] if self.weights[0] != 1 else self.tables
        return self.tables * self.weights[:, None, None]


@dataclass(frozen=True, eq=False)
class _Parameters:
    """What a fit may change: the logarithms of all tables are ``base + design @ theta``."""

    flat: Flat
    base: Array
    design: csr_array

    @cached_property
    def uses(self) -> Array:
        """How many factors each parameter is in."""
        starts, factors = np.unique(self.flat[4], return_counts=True)
        of_entry = factors[np.searchsorted(starts, np.arange(len(self.base)), "right") - 1].astype(np.float64)
        pattern = abs(self.design).T
        return np.asarray((pattern @ of_entry) / (pattern @ np.ones(len(of_entry))), np.float64)

    def tables(self, theta: Array) -> Array:
        return np.asarray(self.base + self.design @ theta, np.float64)

    def with_tables(self, theta: Array) -> Flat:
        return (*self.flat[:6], self.tables(theta), *self.flat[7:])


class MarkovRandomField:
    """A model of discrete variables by potentials: ``p(x) = 1/Z prod_f f(x[scope of f])``.

    Other ways to make one: `from_pairwise`, `ising`, `potts`, `grid`, `from_factor_graph`, `read`. States are numbered
    from 0; in data, what is -1, NaN or masked is missing, and summed over.

    Parameters
    ----------
    factors : iterable of Factor or (scope, table)
        Tables are finite and not negative (potentials, not their logarithms), with one axis for each variable.
    cardinalities : iterable of int
        The number of states of each variable.
    limit : int, default=2**31
        The most memory, in bytes, that exact inference may take.

    Attributes
    ----------
    cardinalities : tuple of int
    edges : int array (m, 2) or None
        Of a pairwise model.
    shape : tuple of int or None
        Of a grid, whose nodes are numbered in C order.
    graph : FactorGraph
        Made on first use, which takes some microseconds for each factor. In a model with logarithms as potentials
        each table is divided by its largest entry.
    engine : Engine
        Exact inference.
    n_iter_, converged_, objective_
        Of the last `fit`; contrastive divergence has no objective (NaN), and cannot tell whether it converged (None).

    Notes
    -----
    What is exact says so in its result. ``method="auto"`` is exact where the forecast of the engine is within `limit`
    (models of more than 2000 variables that are not forests are not even forecast), and for the most probable states
    of binary submodular models of any size, by a minimum cut.

    To make a model takes time and memory of the order of its tables. Costs of methods are given for F factors whose
    scopes have S variables altogether; "exact" ones take what `engine`.forecast() tells, at worst exponential in the
    number of variables, and `EngineLimitError` says so before it is spent.

    References
    ----------
    D. Koller, N. Friedman, Probabilistic Graphical Models, 2009, chapters 4, 11 to 13, 20.

    Examples
    --------
    >>> from fastgen.graphical import MarkovRandomField
    >>> model = MarkovRandomField.grid((3, 3), coupling=0.5, field=0.1)
    >>> model.map().states
    array([1, 1, 1, 1, 1, 1, 1, 1, 1])
    >>> round(model.log_partition_function(), 6)
    8.090679
    """

    def __init__(
        self,
        factors: Iterable[Factor | tuple[Iterable[int], ArrayLike]],
        cardinalities: Iterable[int],
        *,
        limit: int = 1 << 31,
    ) -> None:
        graph = FactorGraph.of(cardinalities, factors)
        self._set("factors", graph.cardinalities, limit)
        self.__dict__["graph"] = graph

    def _set(
        self,
        kind: str,
        cardinalities: tuple[int, ...],
        limit: int,
        pairs: _Pairs | None = None,
        parameters: tuple[Array, Array] | None = None,
        shape: tuple[int, ...] | None = None,
        lattice: bool | None = None,
    ) -> None:
        check_number(limit, "limit", Integral, 1)
        self._kind, self.cardinalities, self.limit = kind, cardinalities, limit
        self._pairs, self._given, self.shape = pairs, parameters, shape
        self._lattice = lattice  # of a square lattice, whether it is periodic

    @classmethod
    def _of_pairs(cls, kind: str, pairs: _Pairs, limit: int, **rest: Any) -> Self:
        model = cls.__new__(cls)
        n, K = pairs.unary.shape
        model._set(kind, (K,) * n, limit, pairs, **rest)
        return model

    # ---- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pairwise(cls, unary: ArrayLike, edges: ArrayLike, pairwise: ArrayLike, *, limit: int = 1 << 31) -> Self:
        """Return the model ``log p(x) = sum_i unary[i, x_i] + sum_e pairwise[e, x_i, x_j] + constant``.

        Parameters
        ----------
        unary : array (n, K)
            Log-potentials of the nodes' states; -inf forbids a state.
        edges : int array (m, 2)
            Pairs (i, j) of different nodes, in any order; several for the same nodes add up.
        pairwise : array (K, K) or (m, K, K)
            Log-potentials of the states of i and j, the same for all edges, or for each; -inf forbids a pair.
        limit : int

        Returns
        -------
        MarkovRandomField
            O(n K + m K^2), or O(n K + m + K^2) with one table for all edges.

        Raises
        ------
        ValueError
            NaN or +inf, another shape, or an edge between nodes that are not there, or from a node to itself.
        """
        potentials = _as_logs(unary, "unary")
        if potentials.ndim != 2 or 0 in potentials.shape:
            raise ValueError(f"unary must have shape (n, K) with n, K >= 1, got {potentials.shape}")
        n, K = potentials.shape
        ends = _as_edges(edges, n)
        tables = _as_logs(pairwise, "pairwise")
        if tables.shape not in ((K, K), (len(ends), K, K)):
            raise ValueError(f"pairwise must have shape ({K}, {K}) or ({len(ends)}, {K}, {K}), got {tables.shape}")
        if tables.ndim == 2:
            tables = tables[None]
        return cls._of_pairs("pairwise", _Pairs(potentials, ends, tables, np.ones(len(ends))), limit)

    @classmethod
    def ising(
        cls,
        edges: ArrayLike,
        coupling: ArrayLike = 1.0,
        field: ArrayLike = 0.0,
        *,
        n_nodes: int | None = None,
        limit: int = 1 << 31,
    ) -> Self:
        """Return the Ising model ``log p(s) = sum_e coupling[e] s_i s_j + sum_i field[i] s_i + constant``.

        The spins s = -1, +1 are the states 0, 1.

        Parameters
        ----------
        edges : int array (m, 2), or tuple of 2 or 3 int
            The edges, or the shape of a grid (see `grid`).
        coupling : float or array (m,)
            One number for all edges, or one for each. A fit learns as many.
        field : float or array (n,)
            The same for nodes.
        n_nodes : int, optional
            The number of nodes; by default the length of `field`, or what the edges need.
        limit : int

        Returns
        -------
        MarkovRandomField
            O(n + m).
        """
        if isinstance(edges, tuple) and len(edges) in (2, 3) and all(isinstance(size, Integral) for size in edges):
            return cls.grid(cast(Any, edges), coupling=coupling, field=field, limit=limit)
        fields, n, ends = _fields(edges, field, n_nodes, 0)
        return cls._ising(ends, n, coupling, fields, limit)

    @classmethod
    def _ising(
        cls, ends: NDArray[np.int64], n: int, coupling: ArrayLike, field: Array, limit: int, **rest: Any
    ) -> Self:
        couplings = _as_parameter(coupling, "coupling", (), (len(ends),))
        fields = _as_parameter(field, "field", (), (n,))
        unary = np.broadcast_to(fields, (n,))[:, None] * np.array([-1.0, 1.0])
        pairs = _Pairs(unary, ends, _ISING[None], np.array(np.broadcast_to(couplings, len(ends))))
        return cls._of_pairs("ising", pairs, limit, parameters=(couplings, fields), **rest)

    @classmethod
    def potts(
        cls,
        edges: ArrayLike,
        n_states: int,
        coupling: ArrayLike = 1.0,
        field: ArrayLike | None = None,
        *,
        n_nodes: int | None = None,
        limit: int = 1 << 31,
    ) -> Self:
        """Return the Potts model ``log p(x) = sum_e coupling[e] [x_i = x_j] + sum_i field[i, x_i] + constant``.

        Parameters
        ----------
        edges : int array (m, 2), or tuple of 2 or 3 int
            The edges, or the shape of a grid (see `grid`).
        n_states : int
        coupling : float or array (m,)
            One number for all edges, or one for each. A fit learns as many.
        field : array (n_states,) or (n, n_states), optional
            The same for all nodes, or for each; 0 by default.
        n_nodes : int, optional
            The number of nodes; by default the length of `field`, or what the edges need.
        limit : int

        Returns
        -------
        MarkovRandomField
            O(n n_states + n_states^2 + m).
        """
        check_number(n_states, "n_states", Integral, 1)
        if isinstance(edges, tuple) and len(edges) in (2, 3) and all(isinstance(size, Integral) for size in edges):
            return cls.grid(cast(Any, edges), n_states, coupling=coupling, field=field, limit=limit)
        fields, n, ends = _fields(edges, np.zeros(n_states) if field is None else field, n_nodes, 1)
        return cls._potts(ends, n, n_states, coupling, fields, limit)

    @classmethod
    def _potts(
        cls, ends: NDArray[np.int64], n: int, K: int, coupling: ArrayLike, field: Array, limit: int, **rest: Any
    ) -> Self:
        couplings = _as_parameter(coupling, "coupling", (), (len(ends),))
        fields = _as_parameter(field, "field", (K,), (n, K))
        unary = np.array(np.broadcast_to(fields, (n, K)))
        pairs = _Pairs(unary, ends, np.eye(K)[None], np.array(np.broadcast_to(couplings, len(ends))))
        return cls._of_pairs("potts", pairs, limit, parameters=(couplings, fields), **rest)

    @classmethod
    def grid(
        cls,
        shape: Sequence[int],
        n_states: int | None = None,
        *,
        coupling: ArrayLike = 1.0,
        field: ArrayLike | None = None,
        periodic: bool = False,
        connectivity: int | None = None,
        limit: int = 1 << 31,
    ) -> Self:
        """Return an Ising model (``n_states`` is None) or Potts model on a grid.

        Parameters
        ----------
        shape : 2 or 3 int
        n_states : int, optional
            Of the Potts model.
        coupling : float, array (m,), or sequence of floats
            For all edges; for each, in the order of `edges`; or one for each direction (a step along axis 0, 1, 2;
            the diagonals (1, -1) and (1, 1)), which a fit takes as one for each edge.
        field : float or array
            Of the Ising model: a number, or an array of the grid's shape. Of the Potts model: (n_states,) or
            (..., n_states) with the grid's shape before.
        periodic : bool
            Whether opposite sides are neighbours (axes of length 1 and 2 have no further edge).
        connectivity : 4 or 8 (2-D), 6 (3-D), optional
            Neighbours of an inner node; 8 are those with a common corner.
        limit : int

        Returns
        -------
        MarkovRandomField
            O(n n_states + n_states^2) for n nodes.
        """
        sizes = tuple(shape)
        ends, direction = _grid_edges(sizes, periodic, connectivity)
        n = prod(sizes)
        lattice = bool(periodic) if len(sizes) == 2 and connectivity != 8 else None
        couplings = as_floats(coupling, "coupling")
        if couplings.ndim == 1 and len(couplings) != len(ends) and len(couplings) == direction.max(initial=-1) + 1:
            coupling = couplings[direction]
        if n_states is None:
            fields = as_floats(0.0 if field is None else field, "field")
            fields = fields.ravel() if fields.shape == sizes else fields
            return cls._ising(ends, n, coupling, np.asarray(fields, np.float64), limit, shape=sizes, lattice=lattice)
        check_number(n_states, "n_states", Integral, 1)
        fields = as_floats(np.zeros(n_states) if field is None else field, "field")
        fields = fields.reshape(n, n_states) if fields.shape == (*sizes, n_states) else fields
        return cls._potts(
            ends, n, n_states, coupling, np.asarray(fields, np.float64), limit, shape=sizes, lattice=lattice
        )

    @classmethod
    def from_factor_graph(cls, model: FactorGraph | DiscreteNetwork, *, limit: int = 1 << 31) -> Self:
        """Return the model of a factor graph, or of a directed network: what `fastgen.graphical.formats` reads.

        Parameters
        ----------
        model : FactorGraph or DiscreteNetwork
            A network becomes the product of its tables: Z is 1, and the variables are numbered as its nodes are.
        limit : int

        Returns
        -------
        MarkovRandomField
            Factors are shared, not copied: O(F).
        """
        if isinstance(model, DiscreteNetwork):
            model = model.factor_graph()
        if not isinstance(model, FactorGraph):
            raise TypeError(f"model must be a FactorGraph or a DiscreteNetwork, got {type(model).__name__}")
        return cls(model.factors, model.cardinalities, limit=limit)

    @classmethod
    def read(cls, source: "Source", *, limit: int = 1 << 31) -> Self:
        """Read a UAI file, MARKOV or BAYES; see `fastgen.graphical.formats.read_uai`.

        Parameters
        ----------
        source : path-like or stream
        limit : int

        Returns
        -------
        MarkovRandomField
            Linear in the size of the file.

        Raises
        ------
        FormatError
            If the file is malformed.
        """
        from fastgen.graphical.formats import read_uai

        return cls.from_factor_graph(read_uai(source), limit=limit)

    def write(self, target: "Target") -> None:
        """Write a UAI file of `graph`.

        Parameters
        ----------
        target : path-like or text stream
            Compressed if it is a path that ends in ``.gz``.

        Notes
        -----
        What the tables of `graph` were divided by is written as factors without variables, so that Z stays what it
        is. Linear in the size of the tables.

        Raises
        ------
        ValueError
            If log-potentials of a table differ by more than the range of float64 (745).
        """
        from fastgen.graphical.formats import write_uai

        graph, shift = self._graph_and_shift
        parts = int(np.ceil(abs(shift) / _MOST_LOG))
        constant = Factor((), np.array(np.exp(shift / max(parts, 1))))
        write_uai(FactorGraph(graph.cardinalities, (*graph.factors, *[constant] * parts)), target)

    def __repr__(self) -> str:
        what = f"{len(self._pairs.edges)} edges" if self._pairs is not None else f"{len(self.graph.factors)} factors"
        return f"<{type(self).__name__}: {self._kind}, {self.n_variables} variables, {what}>"

    # ---- what it consists of ---------------------------------------------------------------------------------------

    @property
    def n_variables(self) -> int:
        """The number of variables."""
        return len(self.cardinalities)

    @property
    def edges(self) -> NDArray[np.int64] | None:
        """Of a pairwise model, (m, 2)."""
        return None if self._pairs is None else self._pairs.edges

    @property
    def unary(self) -> Array | None:
        """Log-potentials of the nodes of a pairwise model, (n, K)."""
        return None if self._pairs is None else self._pairs.unary

    @property
    def pairwise(self) -> Array | None:
        """Log-potentials of the edges of a pairwise model: (m, K, K), or (1, K, K) if they are all equal."""
        return None if self._pairs is None else self._pairs.all_tables()

    @property
    def coupling(self) -> Array | None:
        """Of an Ising or Potts model, as it was given or learned: (), or (m,)."""
        return None if self._given is None else self._given[0]

    @property
    def field(self) -> Array | None:
        """Of an Ising or Potts model, as it was given or learned: (), (n,), (K,) or (n, K)."""
        return None if self._given is None else self._given[1]

    @cached_property
    def graph(self) -> FactorGraph:
        """The factors: those of nodes, in their order, then those of edges."""
        return self._graph_and_shift[0]

    @cached_property
    def _graph_and_shift(self) -> tuple[FactorGraph, float]:
        """The graph, and the log of what its tables were divided by."""
        if self._pairs is None:
            return self.graph, 0.0
        return _graph_of(self.cardinalities, self._flat)

    @cached_property
    def engine(self) -> Engine:
        """Exact inference in `graph`."""
        return Engine(self.graph, limit=self.limit)

    @cached_property
    def _flat(self) -> Flat:
        """The arrays that kernels read."""
        if (pairs := self._pairs) is not None:
            n, K = pairs.unary.shape
            table = np.concatenate([pairs.unary.ravel(), pairs.tables.ravel()])
            return _flat_pairs(n, K, pairs.edges, n, len(pairs.tables), pairs.weights, table)
        factors = self.graph.factors
        sizes = np.array([factor.table.size for factor in factors], np.int64)
        with np.errstate(divide="ignore"):
            logs = [np.log(factor.table).ravel() for factor in factors]
        first = np.cumsum([0, *(len(factor.scope) for factor in factors)])
        variable = np.array([v for factor in factors for v in factor.scope], np.int64)
        stride = np.array([step // 8 for factor in factors for step in factor.table.strides], np.int64)
        table = np.concatenate([np.zeros(0), *logs])
        return _flat(self.cardinalities, first, variable, stride, np.cumsum(sizes) - sizes, np.ones(len(sizes)), table)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for name in ("_graph_and_shift", "engine", "_flat", "_search", *(["graph"] if self._pairs is not None else [])):
            state.pop(name, None)
        return state

    # ---- probabilities ---------------------------------------------------------------------------------------------

    def _codes(self, X: Any, name: str = "X", missing: bool = False) -> Codes:
        """States as int32 (n, V), -1 where they are missing."""
        if isinstance(X, np.ma.MaskedArray):
            X = np.where(np.ma.getmaskarray(X), np.int64(-1), X.data)
        array = np.asarray(X)
        if array.dtype.kind not in "iub":
            floats = as_floats(X, name)
            if np.isinf(floats).any():
                raise ValueError(f"{name} contains infinity; NaN or -1 stands for a missing value")
            array = np.where(np.isnan(floats), -1.0, floats)
            if (array != np.floor(array)).any():
                value = float(array[array != np.floor(array)][0])
                raise ValueError(f"{name} must hold states, numbered from 0, got {value!r}")
        V = self.n_variables
        if array.ndim != 2 or array.shape[1] != V:
            raise ValueError(f"{name} must have shape (n, {V}), got {array.shape}")
        wrong = (array >= np.array(self.cardinalities)) | (array < (-1 if missing else 0))
        if wrong.any():
            row, variable = map(int, np.argwhere(wrong)[0])
            got = f"{array[row, variable]} in row {row}"
            if array[row, variable] == -1:
                raise ValueError(f"{name} must be complete here, but variable {variable} is missing in row {row}")
            raise ValueError(
                f"{name} must hold states from 0 to {self.cardinalities[variable] - 1} of variable {variable}, "
                f"got {got}"
            )
        if array.size and max(self.cardinalities) > _MOST_CODE and array.max() > _MOST_CODE:
            raise ValueError(f"{name} must hold states below 2**31, got {array.max()}")
        return np.ascontiguousarray(array, np.int32)

    def energy(self, X: ArrayLike) -> Array:
        """Return minus the sum of all log-potentials, for each row.

        Parameters
        ----------
        X : int array (n, V)
            States, none missing.

        Returns
        -------
        array (n,)
            +inf for what is impossible. O(n S).
        """
        return 0.0 - self.unnormalised_log_prob(X)  # not -0.0

    def unnormalised_log_prob(self, X: ArrayLike) -> Array:
        """Return log p(x) + log Z of complete rows: the sum of all log-potentials.

        Parameters
        ----------
        X : int array (n, V)
            States, none missing.

        Returns
        -------
        array (n,)
            -inf for what is impossible. O(n S).
        """
        return self._log_potential(self._codes(X))

    def _log_potential(self, codes: Codes) -> Array:
        flat = self._flat
        out = np.empty(len(codes))

        def make_body() -> Body:
            return lambda start, stop: _kernels().log_potential(codes, flat, start, stop, out)

        run_chunks(make_body, len(codes), 1, _NS * len(codes) * len(flat[2]))
        return out

    def log_partition_function(self) -> float:
        """Return log Z, exactly.

        Returns
        -------
        float
            -inf if no states are possible. The cost is `engine`.forecast(targets=()), once: it is kept.

        Raises
        ------
        EngineLimitError
            If that would cost too much; ``marginals(method=...).log_partition`` has approximations.
        """
        return self._log_z

    @cached_property
    def _log_z(self) -> float:
        found = self._exactly("the partition function", lambda engine: engine.log_evidence())
        return float(found[0]) + self._graph_and_shift[1]

    def _exactly(self, what: str, run: Callable[[Engine], Result]) -> Result:
        """Ask the engine; its refusal says what can be done instead."""
        try:
            return run(self.engine)
        except EngineLimitError as error:
            raise EngineLimitError(
                f"{what} of a model of {self.n_variables} variables cannot be had exactly: {error}. "
                "unnormalised_log_prob(X), log_prob(X, normalised='auto'), energy(X) and the approximations of "
                "marginals, map and sample can",
                error.cost,
            ) from error

    def log_prob(self, X: ArrayLike, *, normalised: bool | str = True) -> Array:
        """Return log p(x) of each row, summed over the states of what is missing.

        Parameters
        ----------
        X : int array (n, V)
            -1, NaN or masked where a value is missing.
        normalised : True, False or "auto"
            Whether log Z is subtracted. False leaves that out, which costs nothing for complete rows: differences
            between rows are right. ``"auto"`` leaves it out where log Z would cost too much, with an
            `UnnormalisedWarning`; by default that is an error.

        Returns
        -------
        array (n,)
            Of all rows the same kind. O(n S) for complete rows, and once for log Z as in `log_partition_function`;
            for others ``engine.forecast(columns, ())`` for each different row.

        Raises
        ------
        EngineLimitError
            If the partition function would cost too much, or the sum over what is missing.
        ValueError
            If no states are possible.

        Warns
        -----
        UnnormalisedWarning
            With ``normalised="auto"``, if these are no log-probabilities.
        """
        if normalised not in (True, False, "auto"):
            raise ValueError(f"normalised must be True, False or 'auto', got {normalised!r}")
        codes = self._codes(X, missing=True)
        log_z = self._log_z_or_none(normalised) if normalised else 0.0
        if log_z == -np.inf:
            raise ValueError("no states are possible: the potentials of all are 0")
        complete = (codes >= 0).all(axis=1)
        out = np.empty(len(codes))
        out[complete] = self._log_potential(codes[complete])
        if not complete.all():
            rest = codes[~complete]
            log_evidence = self._exactly("the evidence's probability", lambda engine: engine.log_evidence(rest))
            out[~complete] = log_evidence + self._graph_and_shift[1]
        if log_z is None:
            warnings.warn(
                f"log Z of a model of {self.n_variables} variables would cost too much, and was not subtracted: these "
                "are no log-probabilities, but differ from them by one constant",
                UnnormalisedWarning,
                stacklevel=2,
            )
            return out
        return out - log_z

    def _log_z_or_none(self, normalised: bool | str) -> float | None:
        """Log Z; with "auto", None if that would cost too much."""
        if normalised != "auto":
            return self._log_z
        try:
            known = "_log_z" in self.__dict__ or self._may_be_exact(np.full((1, self.n_variables), -1, np.int32))
            return self._log_z if known else None
        except EngineLimitError:
            return None

    # ---- inference -------------------------------------------------------------------------------------------------

    def _evidence(self, evidence: Any) -> tuple[Codes, bool]:
        """Rows, and whether only one was given, without an axis for rows."""
        if evidence is None:
            return np.full((1, self.n_variables), -1, np.int32), True
        if isinstance(evidence, Mapping):
            row = np.full((1, self.n_variables), -1, np.int64)
            for variable, state in evidence.items():
                if isinstance(state, bool) or not isinstance(state, Integral):
                    raise ValueError(f"evidence must hold states as integers, got {state!r} for variable {variable!r}")
                row[0, self._number(variable, "evidence")] = int(state)
            return self._codes(row, "evidence", True), True
        one = np.ndim(evidence) == 1
        return self._codes(_as_row(evidence) if one else evidence, "evidence", True), one

    def _number(self, variable: Any, name: str) -> int:
        """The number of a variable, checked."""
        known = isinstance(variable, (int, np.integer)) and not isinstance(variable, bool)
        if not known or not 0 <= variable < self.n_variables:
            raise ValueError(f"{name} must be of variables 0 to {self.n_variables - 1}, got variable {variable!r}")
        return int(variable)

    def _likelihoods(self, soft: Any, n: int) -> dict[int, Array]:
        """Soft evidence by variable: (1 or n, states)."""
        if soft is None:
            return {}
        if not isinstance(soft, Mapping):
            raise TypeError(f"soft must be a mapping from variables to likelihoods, got {type(soft).__name__}")
        found = {}
        for variable, likelihood in soft.items():
            v = self._number(variable, "soft")
            name, size = f"soft[{v}]", self.cardinalities[v]
            array = np.asarray(as_floats(likelihood, name), np.float64)
            if array.shape not in ((size,), (n, size)):
                raise ValueError(f"{name} must have shape ({size},) or ({n}, {size}), got {array.shape}")
            if not (np.isfinite(array).all() and (array >= 0).all()):
                raise ValueError(f"{name} must be finite and not negative")
            found[v] = np.atleast_2d(array)
        return found

    def _with_soft(self, likelihoods: dict[int, Array], row: int = 0) -> "MarkovRandomField":
        """The model times what one row of soft evidence says."""
        if not likelihoods:
            return self
        rows = {v: array[min(row, len(array) - 1)] for v, array in likelihoods.items()}
        if (pairs := self._pairs) is None:
            seen = tuple(Factor((v,), likelihood) for v, likelihood in rows.items())
            return MarkovRandomField((*self.graph.factors, *seen), self.cardinalities, limit=self.limit)
        unary = pairs.unary.copy()
        with np.errstate(divide="ignore"):
            for v, likelihood in rows.items():
                unary[v] += np.log(likelihood)
        return MarkovRandomField._of_pairs(
            "pairwise", _Pairs(unary, pairs.edges, pairs.tables, pairs.weights), self.limit
        )

    def _check_room(self, what: str, numbers: int) -> None:
        """Refuse what needs so many numbers for the states of variables.

        `limit` is for exact inference: others may take what is the default. Tables of pairwise models are of that size
        themselves.
        """
        most = max(self.limit, _ROOM)
        if self._pairs is None and 8 * numbers > most:
            states = max(self.cardinalities)
            raise EngineLimitError(
                f"{what} would need {8 * numbers:.3g} bytes, above {most:.3g}: "
                f"variable {self.cardinalities.index(states)} has {states} states",
                Cost(0, sum(self.cardinalities), 8 * numbers, numbers, 0),
            )

    def _may_be_exact(self, codes: Codes) -> bool:
        """Whether to ask the engine: whether the model is small, but for what is observed, or a forest."""
        if self._pairs is None or (codes < 0).sum(axis=1).max(initial=0) <= _AUTO_VARIABLES:
            return True
        n, edges = self.n_variables, self._pairs.edges
        links = csr_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), (n, n))
        return len(edges) <= n - int(cast(Any, connected_components)(links, directed=False, return_labels=False))

    def marginals(
        self, evidence: Any = None, method: str = "auto", *, soft: Mapping[int, ArrayLike] | None = None, **options: Any
    ) -> Marginals:
        """Return the distribution of each variable given the evidence.

        Parameters
        ----------
        evidence : int array (V,) or (n, V), or mapping, optional
            Observed states, -1, NaN or masked where nothing is known; or the states of some variables.
        method : {"auto", "exact", "loopy", "mean_field", "gibbs"}
            ``"auto"`` is exact where that is possible, else loopy belief propagation.
        soft : mapping, optional
            From variables to the likelihood of what was seen in each of their states: (K,), or (n, K) for each row. A
            further factor, as far as this call goes.
        **options
            Of the approximate method: see `belief_propagation`, `mean_field`, `gibbs`; ``"auto"`` has those of
            `belief_propagation`. Gibbs sampling of pairwise models of more than 2000 variables has ``n_samples`` (of
            each chain, 1000), ``n_chains`` (4), ``burn_in`` (200), ``start`` (V,), ``random_state``, and does not tell
            whether it converged.

        Returns
        -------
        Marginals
            Exact: the cost is `engine`.forecast(columns) for each different row. Loopy: for each row and sweep O(sum
            over factors of arity times entries); mean field and Gibbs sampling: about O(K S) for each sweep.

        Raises
        ------
        EngineLimitError
            From ``"exact"``, if it would cost too much; from all methods, if one row of results would need more than
            2 GB and `limit`.
        TypeError
            An option that the method does not have.
        ValueError
            From an approximate method, if the evidence is impossible as far as it can tell.
        """
        check_choice(method, "method", _MARGINALS)
        codes, one = self._evidence(evidence)
        likelihoods = self._likelihoods(soft, len(codes))
        self._check_room("marginals", self.n_variables * max(self.cardinalities, default=0))
        if method == "auto":
            if unknown := set(options).difference(_LOOPY_OPTIONS):
                raise TypeError(f"method='auto' has the options {_LOOPY_OPTIONS}, got {sorted(unknown)}")
            try:
                if self._may_be_exact(codes):
                    return self._exact_marginals(codes, one, likelihoods)
            except EngineLimitError:
                pass
            method = "loopy"
        if method == "exact":
            if options:
                raise TypeError(f"method='exact' has no options, got {list(options)}")
            return self._exact_marginals(codes, one, likelihoods)
        models = [self._with_soft(likelihoods, r) for r in range(len(codes))]
        if method == "gibbs" and self._pairs is not None and self.n_variables > _AUTO_VARIABLES:
            shares = np.array([model._gibbs_shares(row, **options) for model, row in zip(models, codes, strict=True)])
            shares = shares.reshape(len(codes), self.n_variables, -1)
            unknown_z = np.full(len(codes), np.nan)
            return Marginals(shares[0] if one else shares, np.nan if one else unknown_z, method, False, False)
        name = {"loopy": "belief_propagation"}.get(method, method)
        pairs = [model._approximate(name, row, **options) for model, row in zip(models, codes, strict=True)]
        results, shifts = tuple(pair[0] for pair in pairs), np.array([pair[1] for pair in pairs])
        tables = [np.array([result.marginals[v] for result in results]) for v in range(self.n_variables)]
        padded = self._padded(tables, len(codes))
        field = {"loopy": "log_z", "mean_field": "elbo"}.get(method, "")
        log_z = np.array([float(getattr(result, field, np.nan)) for result in results]) + shifts
        exact = all(bool(getattr(result, "exact", False)) for result in results)
        converged = all(bool(getattr(result, "converged", True)) for result in results)
        if one:
            return Marginals(padded[0], float(log_z[0]), method, exact, converged, results[0])
        return Marginals(padded, log_z, method, exact, converged, results)

    def _exact_marginals(self, codes: Codes, one: bool, likelihoods: dict[int, Array]) -> Marginals:
        tables, log_z = self._exactly("marginals", lambda engine: engine.marginals(codes, likelihoods or None))
        log_z = log_z + self._graph_and_shift[1]
        padded = self._padded(tables, len(codes))
        return Marginals(padded[0] if one else padded, float(log_z[0]) if one else log_z, "exact", True, True)

    def query(
        self,
        targets: Iterable[int] | int,
        evidence: Any = None,
        *,
        soft: Mapping[int, ArrayLike] | None = None,
    ) -> "Query":
        """Return the joint distribution of some variables given the evidence, exactly.

        Parameters
        ----------
        targets : int or iterable of int
            Variables, each once.
        evidence : int array (V,), or mapping, optional
            One row: see `marginals`.
        soft : mapping, optional
            From variables to likelihoods (K,).

        Returns
        -------
        Query
            With ``probabilities``, one axis for each target, and ``log_evidence``, log P(evidence): NaN where log Z
            would cost too much. Cost: `engine`.forecast() of the last target's marginal, once for each combination of
            states of the others, and once for log Z.

        Raises
        ------
        EngineLimitError
            If the table, or exact inference, would be too large.
        ValueError
            If the evidence is impossible.

        Examples
        --------
        >>> model = MarkovRandomField.ising([[0, 1], [1, 2]], 1.0)
        >>> model.query([0, 2], {1: 1}).probabilities.round(3)
        array([[0.014, 0.105],
               [0.105, 0.776]])
        """
        from fastgen.graphical.bayesian_network import Query

        codes, one = self._evidence(evidence)
        if not one:
            raise ValueError(f"evidence must be one row of shape ({self.n_variables},), got {codes.shape}")
        likelihoods = self._likelihoods(soft, 1)
        given = [targets] if isinstance(targets, Integral) else list(cast(Iterable[int], targets))
        chosen = [self._number(target, "targets") for target in given]
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"targets must be variables, each once, got {given}")
        # the last target given all states of the others: p(a, b) = p(a) p(b | a)
        *others, last = chosen
        shape = tuple(self.cardinalities[v] for v in others)
        n_rows, size = prod(shape), self.cardinalities[last]
        need = n_rows * (24 * size + 8 * self.n_variables)
        if need > self.limit:
            raise EngineLimitError(
                f"the joint distribution of {len(chosen)} variables has {n_rows * size:.3g} states: it would need "
                f"{need:.3g} bytes, above limit={self.limit:.3g}; ask for fewer variables at once, or raise limit",
                Cost(len(chosen) - 1, n_rows * size, need, n_rows, 0),
            )
        seen = {*others, *np.flatnonzero(codes[0] >= 0).tolist()}
        operations = n_rows * self._exactly("a joint distribution", lambda e: e.forecast(seen, [last]).operations)
        if operations > self.engine.operation_limit:
            raise EngineLimitError(
                f"the joint distribution of {len(chosen)} variables would need {operations:.3g} multiplications, above "
                f"operation_limit={self.engine.operation_limit:.3g}; ask for fewer variables at once",
                Cost(len(chosen) - 1, n_rows * size, need, operations, 0),
            )
        rows = np.repeat(codes, n_rows, axis=0)
        possible = np.ones(n_rows, bool)
        for v, states in zip(others, np.indices(shape).reshape(len(others), n_rows), strict=True):
            possible &= (codes[0, v] < 0) | (codes[0, v] == states)
            rows[:, v] = states
        rows = rows[possible]
        (table,), logs = self._exactly(
            "a joint distribution", lambda engine: engine.marginals(rows, likelihoods or None, [last])
        )
        peak = float(logs.max(initial=-np.inf))
        if peak == -np.inf:
            raise ValueError("the evidence is impossible: no states agree with it")
        weights = np.exp(logs - peak)
        joint = np.zeros((n_rows, size))
        met = weights > 0
        joint[np.flatnonzero(possible)[met]] = weights[met, None] * table[met]
        log_z = self._log_z_or_none("auto")
        log_evidence = np.nan if log_z is None else peak + float(np.log(weights.sum())) - log_z
        return Query(
            tuple(chosen),
            tuple(tuple(range(self.cardinalities[v])) for v in chosen),
            (joint / weights.sum()).reshape(*shape, size),
            log_evidence + self._graph_and_shift[1],
            "exact",
            True,
        )

    def _gibbs_shares(
        self,
        row: Codes,
        n_samples: int = 1000,
        n_chains: int = 4,
        burn_in: int = 200,
        start: ArrayLike | None = None,
        random_state: Any = None,
    ) -> Array:
        """The share of each state among the draws, (V, K)."""
        for value, what, least in ((n_samples, "n_samples", 1), (n_chains, "n_chains", 1), (burn_in, "burn_in", 0)):
            check_number(value, what, Integral, least)
        counts = np.zeros((self.n_variables, self.cardinalities[0]))
        for states in self._gibbs(n_samples, n_chains, burn_in, 1, row, start, as_generator(random_state)):
            for chain in states:
                counts[np.arange(len(counts)), chain] += 1
        return counts / (n_samples * n_chains)

    def _padded(self, tables: Sequence[Array], n: int) -> Array:
        out = np.zeros((n, self.n_variables, max(self.cardinalities, default=0)))
        for v, table in enumerate(tables):
            out[:, v, : self.cardinalities[v]] = table
        return out

    def _approximate(self, name: str, row: Codes, **options: Any) -> tuple[Any, float]:
        """The result, and the log of what potentials were divided by before."""
        if name == "belief_propagation" and options.get("schedule", "flooding") == "flooding":
            found = self._propagate(row, **{key: value for key, value in options.items() if key != "schedule"})
            if found is not None:
                return found, 0.0
        home = "_sampling" if name in ("gibbs", "swendsen_wang") else "_message_passing"
        run = getattr(import_module(f"fastgen.graphical.{home}"), name)
        evidence = row.astype(np.int64) if (row >= 0).any() else None
        if name == "gibbs":
            return run(self.graph, options.pop("n_samples", 10_000), evidence, **options), self._graph_and_shift[1]
        return run(self.graph, evidence, **options), self._graph_and_shift[1]

    def _propagate(self, row: Codes, **options: Any) -> Any:
        """Belief propagation without a factor graph, if the model is pairwise and its nodes are alike."""
        if self._pairs is None:
            return None
        from fastgen.graphical._message_passing import pairwise_belief_propagation

        unary = self._pairs.unary.copy()
        seen = np.flatnonzero(row >= 0)
        kept = unary[seen, row[seen]]
        unary[seen] = -np.inf
        unary[seen, row[seen]] = kept
        return pairwise_belief_propagation(unary, self._pairs.edges, self._pairs.all_tables(), **options)

    def map(
        self, evidence: Any = None, method: str = "auto", *, soft: Mapping[int, ArrayLike] | None = None, **options: Any
    ) -> Assignment:
        """Return the most probable states of all variables given the evidence, or states of low energy.

        Parameters
        ----------
        evidence : int array (V,) or (n, V), or mapping, optional
            See `marginals`.
        method : {"auto", "exact", "graph_cut", "alpha_expansion", "trw_s", "max_product", "icm"}
            ``"graph_cut"`` (exact) and ``"alpha_expansion"`` (submodular moves: twice the least energy at most for
            Potts models without negative energies) are for pairwise models, the first for binary submodular ones.
            ``"icm"`` is iterated conditional modes: fast, and a local optimum. ``"max_product"`` ends with that, from
            the states that belief propagation tells; `Assignment.polished` says whether it improved on them.
            ``"auto"``: a graph cut if the model is binary and submodular, exact if the engine can, else
            alpha-expansion if it applies, else TRW-S. Where factors have zeros or more than two variables, which that
            does not take: the best of iterated conditional modes from several starts, one of which is found by a
            search for states that are possible; the result's method is ``"icm"`` then, and its details name the start.
        soft : mapping, optional
            From variables to likelihoods (K,), see `marginals`; energies are less their logarithms.
        **options
            ``"icm"``: ``start`` (V,), ``n_starts`` (further ones are random), ``max_sweeps``, ``random_state``.
            ``"alpha_expansion"``: ``start`` (V,), ``max_cycles``. ``"trw_s"``, ``"max_product"``: see `trw_s` and
            `belief_propagation`. ``"auto"``: those of all that it may choose, each for whatever takes it.

        Returns
        -------
        Assignment
            For each row: exact, as `engine`.forecast(columns) tells at most; a minimum cut, in practice about linear
            in the number of edges; alpha-expansion, K cuts in a cycle; TRW-S and max-product, O(sum over factors of
            arity times entries) in a sweep; iterated conditional modes, O(K S) in a sweep.

        Raises
        ------
        ValueError
            If the method does not apply to the model (which edge is not submodular is named), or the evidence is
            impossible as far as the method can tell.
        EngineLimitError
            From ``"exact"``, if it would cost too much; from all methods, if the states of one variable are too many.
        TypeError
            An option that the method does not have.
        """
        check_choice(method, "method", _MAPS)
        codes, one = self._evidence(evidence)
        if likelihoods := self._likelihoods(soft, 1):
            return self._with_soft(likelihoods).map(codes[0] if one else codes, method, **options)
        self._check_room("the most probable states", sum(self.cardinalities))
        if method == "auto":
            return self._map_auto(codes, one, options)
        run = getattr(self, f"_map_{method}")
        return self._assignment(method, codes, one, [run(row, **options) for row in codes])

    def _assignment(self, method: str, codes: Codes, one: bool, parts: list[tuple[Any, ...]]) -> Assignment:
        """The result for rows: states, bound (None: their energy), convergence, details, whether polished."""
        states = np.array([part[0] for part in parts], np.int64).reshape(codes.shape)
        energy = 0.0 - self._log_potential(states.astype(np.int32))
        if (impossible := energy == np.inf).any() and method in ("exact", "graph_cut"):
            row = int(np.flatnonzero(impossible)[0])
            raise ValueError(f"the evidence in row {row} is impossible: no states agree with it")
        bound = np.array([part[1] if part[1] is not None else value for part, value in zip(parts, energy, strict=True)])
        if method == "graph_cut":
            bound = energy - bound  # it gave the gap
        bound = np.minimum(bound, energy)
        finite = np.isfinite(energy)
        slack = 1e-9 * np.maximum(1.0, np.abs(np.where(finite, energy, 0.0)))
        exact = bool((finite & (bound >= energy - slack)).all())
        converged, details = all(part[2] for part in parts), [part[3] for part in parts]
        polished = np.array([len(part) > 4 and part[4] for part in parts], np.bool_)
        if one:
            return Assignment(
                states[0], float(energy[0]), method, exact, float(bound[0]), converged, details[0], bool(polished[0])
            )
        return Assignment(states, energy, method, exact, bound, converged, tuple(details), polished)

    def _map_auto(self, codes: Codes, one: bool, options: dict[str, Any]) -> Assignment:
        evidence = codes[0] if one else codes
        known = {name for names in _AUTO_OPTIONS.values() for name in names}
        if unknown := set(options) - known:
            raise TypeError(f"method='auto' has the options {sorted(known)}, got {sorted(unknown)}")
        for method in ("graph_cut", "exact", "alpha_expansion", "trw_s"):
            if method == "exact":
                applies = self._may_be_exact(codes)
            elif method == "trw_s":
                applies = self._has_no_zeros(codes)
            else:
                applies = self._pairs is not None and (method != "graph_cut" or self._pairs.unary.shape[1] == 2)
            own = {name: value for name, value in options.items() if name in _AUTO_OPTIONS[method]}
            try:
                if applies:
                    found = self.map(evidence, method, **own)
                    if np.all(np.isfinite(found.energy)):
                        return found
            except EngineLimitError:
                continue
            except ValueError as error:
                if "submodular" not in str(error) and "the expansion of label" not in str(error):
                    raise
        own = {name: value for name, value in options.items() if name in _AUTO_OPTIONS["icm"]}
        return self._assignment("icm", codes, one, [self._map_best_icm(r, row, own) for r, row in enumerate(codes)])

    def _has_no_zeros(self, codes: Codes) -> bool:
        """Whether TRW-S applies: factors of two variables at most, without zeros, but for what is observed."""
        flat = self._flat
        arity = np.diff(flat[1])
        zeros = _with_zeros(flat)
        for row in codes:
            free = np.bincount(flat[9], row[flat[2]] < 0, len(arity))
            if ((free > 2) | (zeros & (free > 0) & (free == arity))).any():
                return False
            for f in np.flatnonzero(zeros & (free > 0) & (free < arity)):
                factor = self.graph.factors[int(f)]
                if not factor.table[tuple(slice(None) if row[v] < 0 else int(row[v]) for v in factor.scope)].all():
                    return False
        return True

    def _map_best_icm(self, r: int, row: Codes, options: dict[str, Any]) -> tuple[Any, ...]:
        """Iterated conditional modes from several starts: which was the best is told by its name."""
        score = self._unary_scores(row)
        best, least = self._map_icm(row, **options), np.inf
        trials: list[tuple[str, tuple[Any, ...] | None]] = [("start" if "start" in options else "nodes", best)]
        try:
            start = self._search.state(*score)
            trials.append(("search", self._map_icm(row, start, max_sweeps=options.get("max_sweeps", 1000))))
        except _sampling().NothingFoundError:
            trials.append(("search", None))
        except ValueError as error:
            raise ValueError(f"the evidence in row {r} is impossible: {error}") from error
        try:
            found = self._map_max_product(row)[0]
            trials.append(("max_product", self._map_icm(row, found, max_sweeps=options.get("max_sweeps", 1000))))
        except ValueError:  # zeros may make messages contradict each other
            pass
        name = ""
        for trial, part in trials:
            if part is not None and (energy := -float(self._log_potential(part[0][None].astype(np.int32))[0])) < least:
                best, least, name = part, energy, trial
        if least == np.inf:
            raise ValueError(
                f"no states were found that agree with the evidence in row {r}: there may be some; pass them as start"
            )
        return best[0], -np.inf, best[2], f"start: {name}"

    @cached_property
    def _search(self) -> Any:
        """For states that all factors allow."""
        flat = self._flat
        cardinality, first, variable, stride, offset = flat[:5]
        arity = np.diff(first)
        hard = np.flatnonzero(_with_zeros(flat))
        # nodes are looked after by the states that may be taken, which evidence restricts, too
        if self._pairs is not None:
            hard = hard[hard >= self.n_variables]
        own = np.concatenate([[0], np.cumsum(arity[hard])])
        slots = np.repeat(first[hard] - own[:-1], arity[hard]) + np.arange(own[-1])
        return _sampling().Search(
            cardinality,
            own,
            variable[slots],
            stride[slots],
            offset[hard],
            flat[6] > -np.inf,
        )

    def _unary_scores(self, row: Codes) -> tuple[Array, NDArray[np.bool_]]:
        """What factors of one variable say of the states of all, behind one another; which may be taken."""
        flat = self._flat
        sizes = flat[0]
        base = np.concatenate([[0], np.cumsum(sizes)])
        if self._pairs is not None:
            score = self._pairs.unary.ravel().copy()
        else:
            score = np.zeros(int(base[-1]))
            for factor in self.graph.factors:
                if len(factor.scope) == 1:
                    (v,) = factor.scope
                    with np.errstate(divide="ignore"):
                        score[base[v] : base[v + 1]] += np.log(factor.table)
        possible = score > -np.inf
        seen = np.flatnonzero(row >= 0)
        kept = base[seen] + row[seen]
        allowed = possible[kept]
        possible &= np.repeat(row < 0, sizes)
        possible[kept] = allowed
        return np.where(possible, score, 0.0), possible

    def _map_exact(self, row: Codes) -> tuple[Any, ...]:
        states, _ = self._exactly("the most probable states", lambda engine: engine.mpe(row))
        if (states < 0).any():
            raise ValueError("the evidence is impossible: no states agree with it")
        return states[0], None, True, None

    def _map_max_product(self, row: Codes, **options: Any) -> tuple[Any, ...]:
        result, _ = self._approximate("belief_propagation", row, maximum=True, **options)
        # where a variable has two best states, those of all may not go together
        unique = all(len(table) < 2 or np.partition(table, -2)[-2] < 1 - 1e-4 for table in result.marginals)
        told = np.array(result.states, np.int32)
        states = self._map_icm(row, told)[0]
        before, after = self._log_potential(np.array([told, states]))
        if after == -np.inf:
            with suppress(ValueError):  # there may be none
                _, possible = self._unary_scores(row)
                start = self._search.state(np.concatenate(result.marginals), possible)
                states = self._map_icm(row, start)[0]
                after = self._log_potential(states[None])[0]
        if not after > before:  # rounding may make a move look like one upwards
            states = told
        bound = None if result.exact and unique else -np.inf
        return states, bound, bool(result.converged and unique), result, bool(after > before)

    def _map_trw_s(self, row: Codes, **options: Any) -> tuple[Any, ...]:
        result, shift = self._approximate("trw_s", row, **options)
        return result.states, result.lower_bound - shift, bool(result.converged), result

    def _need_pairs(self, method: str) -> _Pairs:
        if self._pairs is None:
            raise ValueError(
                f"method={method!r} needs a pairwise model: make it with from_pairwise, ising, potts, grid"
            )
        return self._pairs

    def _clamped(self, row: Codes) -> Array:
        """Energies of the nodes, with those of states that are ruled out by evidence +inf."""
        assert self._pairs is not None
        unary = -self._pairs.unary
        seen = np.flatnonzero(row >= 0)
        kept = unary[seen, row[seen]]
        unary[seen] = np.inf
        unary[seen, row[seen]] = kept
        return unary

    def _map_graph_cut(self, row: Codes) -> tuple[Any, ...]:
        pairs = self._need_pairs("graph_cut")
        if pairs.unary.shape[1] != 2:
            raise ValueError(f"method='graph_cut' needs 2 states, got {pairs.unary.shape[1]}: use 'alpha_expansion'")
        cut = graph_cut(self._clamped(row), pairs.edges, -pairs.all_tables())
        return cut.states, cut.gap, True, cut

    def _map_alpha_expansion(
        self, row: Codes, start: ArrayLike | None = None, max_cycles: int = 100
    ) -> tuple[Any, ...]:
        pairs = self._need_pairs("alpha_expansion")
        check_number(max_cycles, "max_cycles", Integral, 1)
        unary = self._clamped(row)
        states = np.argmin(unary, axis=1).astype(np.int32) if start is None else self._start(start, row)
        result = alpha_expansion(
            unary,
            pairs.edges,
            lambda first, second: -pairs.values(first, second),
            lambda states: -float(self._log_potential(states[None])[0]),
            states,
            max_cycles,
        )
        return result.states, -np.inf, result.converged, result

    def _start(self, start: ArrayLike, row: Codes) -> Codes:
        return np.where(row >= 0, row, self._codes(_as_row(start), "start")[0]).astype(np.int32)

    def _map_icm(
        self,
        row: Codes,
        start: ArrayLike | None = None,
        n_starts: int = 1,
        max_sweeps: int = 1000,
        random_state: Any = None,
    ) -> tuple[Any, ...]:
        check_number(n_starts, "n_starts", Integral, 1)
        check_number(max_sweeps, "max_sweeps", Integral, 1)
        rng = as_generator(random_state)
        flat = self._flat
        work = _workspace(flat)
        free = np.flatnonzero(row < 0)
        best: tuple[float, Codes, int] | None = None
        for attempt in range(n_starts):
            if attempt:
                guess: Any = rng.integers(0, self.cardinalities)
            elif start is not None:
                guess = start
            elif self._pairs is not None:
                guess = self._pairs.unary.argmax(axis=1)
            else:
                guess = np.zeros(self.n_variables, np.int32)
            states = self._start(guess, row)
            sweeps = _kernels().icm(states, free, max_sweeps, flat, *work)
            energy = -float(self._log_potential(states[None])[0])
            if best is None or energy < best[0]:
                best = energy, states, sweeps
        assert best is not None
        return best[1], -np.inf, best[2] <= max_sweeps, None

    def sample(
        self,
        n: int,
        random_state: Any = None,
        method: str = "auto",
        evidence: Any = None,
        *,
        soft: Mapping[int, ArrayLike] | None = None,
        start: ArrayLike | None = None,
        n_chains: int = 4,
        burn_in: int = 200,
        thin: int = 1,
    ) -> NDArray[np.int64]:
        """Draw states of all variables.

        Parameters
        ----------
        n : int
        random_state : None, int, Generator or RandomState
        method : {"auto", "exact", "gibbs", "swendsen_wang"}
            ``"auto"`` is exact (independent draws) where the engine allows, and Gibbs sampling otherwise.
        evidence : int array (V,), or mapping, optional
            See `marginals`.
        soft : mapping, optional
            From variables to likelihoods (K,), see `marginals`.
        start : int array (V,), optional
            Of Gibbs sampling: states that are possible. By default random ones; where factors have zeros, they are
            found by a search.
        n_chains, burn_in, thin : int, optional
            Of the others: chains that share the draws (1 for grids), sweeps before their first draw, sweeps for each
            further one; 4, 200 and 1 by default. Draws of a chain follow one another and are correlated; `gibbs`,
            `ising_gibbs` and `swendsen_wang` tell how much.

        Returns
        -------
        int array (n, V)
            Exact: once the cost of `engine`.forecast(columns), then O(V) for each draw, about. Gibbs sampling: O(K S)
            for each sweep of a chain; Swendsen-Wang: O(V K + m).

        Raises
        ------
        ValueError
            From ``"swendsen_wang"``, if this is no Ising or Potts model, a coupling is negative, or there is evidence;
            if the evidence is impossible, or no possible start was found.
        EngineLimitError
            From ``"exact"``, if it would cost too much; from all methods, if the states of one variable are too many.
        """
        check_choice(method, "method", _SAMPLERS)
        check_number(n, "n", Integral, 0)
        codes, one = self._evidence(evidence)
        if not one:
            raise ValueError(f"evidence must be one row of shape ({self.n_variables},), got {codes.shape}")
        for value, name, least in ((n_chains, "n_chains", 1), (burn_in, "burn_in", 0), (thin, "thin", 1)):
            check_number(value, name, Integral, least)
        if start is not None:
            if method in ("exact", "swendsen_wang"):
                raise TypeError(f"method={method!r} has no start")
            start = self._start(start, codes[0])
        likelihoods = self._likelihoods(soft, 1)
        if method in ("auto", "exact") and (method == "exact" or self._may_be_exact(codes)):
            try:
                return self._exactly(
                    "samples", lambda engine: engine.sample(n, codes[0], random_state, likelihoods or None)
                )
            except EngineLimitError:
                if method == "exact":
                    raise
        if likelihoods and method != "swendsen_wang":
            return self._with_soft(likelihoods).sample(
                n, random_state, "gibbs", codes[0], start=start, n_chains=n_chains, burn_in=burn_in, thin=thin
            )
        self._check_room("samples", 64 * max(self.cardinalities, default=0))  # so many variables are drawn together
        free, V = bool((codes < 0).all()), self.n_variables
        rng = as_generator(random_state)
        sampling = _sampling()
        each = -(-n // n_chains)
        sweeps = {"n_sweeps": each * thin, "burn_in": burn_in, "thin": thin, "random_state": rng}
        if not n:
            return np.zeros((0, V), np.int64)
        if method == "swendsen_wang":
            if self._given is None or not free or likelihoods:
                raise ValueError("method='swendsen_wang' needs an Ising or Potts model, and no evidence")
            pairs = self._need_pairs(method)
            q, field = (None, pairs.unary[:, 1]) if self._kind == "ising" else (self.cardinalities[0], pairs.unary)
            chains = sampling.swendsen_wang(pairs.edges, V, pairs.weights, q, field, n_chains=n_chains, **sweeps)
            return _as_states(chains.samples, n, V, q is None)
        if free and start is None and self._lattice is not None and (not self._lattice or min(self.shape or ()) > 2):
            chain = self._lattice_chain(sampling, {**sweeps, "n_sweeps": n * thin})
            return _as_states(chain.samples, n, V, self._kind == "ising")
        if self._pairs is not None and self.n_variables > _AUTO_VARIABLES:
            draws = np.empty((n_chains, each, V), np.int64)
            for k, states in enumerate(self._gibbs(each, n_chains, burn_in, thin, codes[0], start, rng)):
                draws[:, k] = states
            return _as_states(draws, n, V, False)
        chains = sampling.gibbs(
            self.graph, each, codes[0], n_chains=n_chains, burn_in=burn_in, thin=thin, start=start, random_state=rng
        )
        return _as_states(chains.samples, n, V, False)

    def _lattice_chain(self, sampling: Any, sweeps: dict[str, Any]) -> Any:
        """Gibbs sampling of a square lattice."""
        assert self._pairs is not None
        assert self._given is not None
        assert self.shape is not None
        pairs, (coupling, field) = self._pairs, self._given
        J: Any = coupling
        if coupling.ndim:
            _, direction = _grid_edges(self.shape, bool(self._lattice), None)
            J = np.zeros((2, self.n_variables))
            J[direction, pairs.edges[:, 0]] = pairs.weights
            J = J.reshape(2, *self.shape)
        if self._kind == "ising":
            h = field if field.ndim == 0 else field.reshape(self.shape)
            return sampling.ising_gibbs(self.shape, J, h, periodic=self._lattice, **sweeps)
        h = field if field.ndim == 1 else field.reshape(*self.shape, -1)
        return sampling.potts_gibbs(self.shape, J, self.cardinalities[0], h, periodic=self._lattice, **sweeps)

    def _gibbs(
        self,
        n: int,
        n_chains: int,
        burn_in: int,
        thin: int,
        row: Codes,
        start: ArrayLike | None,
        rng: np.random.Generator,
    ) -> Iterator[Codes]:
        """n times the states of all chains: Gibbs sampling of a large pairwise model, without its factor graph."""
        unary = -self._clamped(row)
        table = np.concatenate([unary.ravel(), self._flat[6][unary.size :]])
        model = (*self._flat[:6], table, *self._flat[7:])
        if start is not None:
            states = np.repeat(self._start(start, row)[None], n_chains, axis=0)
            if self._log_potential(states[:1])[0] == -np.inf:
                raise ValueError("start is impossible: it meets a potential that is 0, or evidence that is impossible")
        else:  # where no pair is forbidden, the search has nothing to do but take what scores highest
            possible = (unary > -np.inf).ravel()
            scores = (rng.gumbel(size=unary.size) for _ in range(n_chains))
            states = np.array([self._search.state(score, possible) for score in scores]).astype(np.int32)
        for sweep in range(1 - burn_in, n * thin + 1):
            uniforms = rng.random(states.shape)
            _sweep(states, uniforms, model, "the evidence is impossible")
            if sweep > 0 and sweep % thin == 0:
                yield states

    # ---- learning --------------------------------------------------------------------------------------------------

    @cached_property
    def _parameters(self) -> _Parameters:
        """What a fit may change."""
        if self._pairs is None:
            return _free_tables(self._flat)
        pairs = self._pairs
        n, K = pairs.unary.shape
        m = len(pairs.edges)
        if self._given is None:
            table = np.concatenate([pairs.unary.ravel(), pairs.tables.ravel()])
            return _free_tables(_flat_pairs(n, K, pairs.edges, n, len(pairs.tables), np.ones(m), table))
        couplings, fields = self._given
        P = max(1, couplings.size) if couplings.ndim else 1
        U = 1 if fields.ndim == (self._kind == "potts") else n
        size = U * K + P * K * K
        flat = _flat_pairs(n, K, pairs.edges, U, P, np.ones(m), np.zeros(size))
        if self._kind == "ising":  # columns: couplings, then fields
            of_field = np.arange(U)[:, None].repeat(2, axis=1).ravel() + couplings.size
            field_values = np.tile([-1.0, 1.0], U)
        else:
            of_field, field_values = np.arange(U * K) + couplings.size, np.ones(U * K)
        pattern = np.argwhere(pairs.tables[0]) @ np.array([K, 1])
        rows = (np.arange(couplings.size)[:, None] * K * K + pattern).ravel() + U * K
        values = np.tile(pairs.tables[0].ravel()[pattern], couplings.size)
        columns = np.repeat(np.arange(couplings.size), len(pattern))
        entries = np.concatenate([rows, np.arange(U * K)]), np.concatenate([columns, of_field])
        design = csr_array((np.concatenate([values, field_values]), entries), (size, couplings.size + fields.size))
        return _Parameters(flat, np.zeros(size), design)

    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        method: str = "likelihood",
        *,
        l2: float = 0.0,
        max_iter: int = 1000,
        tol: float = 1e-6,
        n_sweeps: int = 1,
        n_chains: int = 500,
        learning_rate: float = 0.2,
        random_state: Any = None,
    ) -> Self:
        """Learn the logarithms of the potentials, which are the model's natural parameters, from zero.

        What is learned: couplings and fields of Ising and Potts models, as many as were given (a single number is
        shared by all edges or nodes); otherwise every entry of every table. Zeros of tables stay zeros.

        Parameters
        ----------
        X : int array (n, V)
            -1 or NaN where a value is missing, for ``"likelihood"`` only.
        y : ignored
        sample_weight : array (n,), optional
        method : {"likelihood", "pseudo_likelihood", "contrastive_divergence", "persistent_contrastive_divergence"}
            Exact maximum likelihood needs the engine for each step; the objective is concave if nothing is missing,
            and at the optimum expected counts are those of the data. Pseudo-likelihood (Besag 1975), the mean of
            ``sum_i log p(x_i | rest)``, is concave and consistent at any width. Both by L-BFGS. Contrastive divergence
            (Hinton 2002) starts chains at the data, the persistent kind (Tieleman 2008) goes on with its own; the
            parameters are the mean over the second half of the steps.
        l2 : float
            Penalty ``l2 / 2 |theta|^2``, beside the mean over rows.
        max_iter : int
            Steps.
        tol : float
            L-BFGS stops when no component of the gradient of the mean over rows, divided by the number of factors
            that share the parameter, is larger; rounding may stop it before if that is below 1e-7.
        n_sweeps, n_chains, learning_rate
            Contrastive divergence: Gibbs sweeps in a step; chains, or rows in a step; the first step over the
            gradient, divided as above: it falls as ``1 / sqrt(1 + step / 100)``.
        random_state : None, int, Generator or RandomState

        Returns
        -------
        self
            Exact likelihood: for each step, twice the cost of `engine`.forecast() at most for complete data, and once
            more for each different row with missing values. Pseudo-likelihood: O(n K S) for n different rows and a
            step. Contrastive divergence: O(n_chains n_sweeps K S).

        Raises
        ------
        EngineLimitError
            From ``"likelihood"``, if exact inference would cost too much.
        ValueError
            If the data have probability 0 for any parameters.
        """
        check_choice(method, "method", _FITS)
        for value, name, kind, least in (
            (l2, "l2", Real, 0),
            (tol, "tol", Real, 0),
            (learning_rate, "learning_rate", Real, 0),
            (max_iter, "max_iter", Integral, 1),
            (n_sweeps, "n_sweeps", Integral, 1),
            (n_chains, "n_chains", Integral, 1),
        ):
            check_number(value, name, kind, least)
        codes = self._codes(X, missing=method == "likelihood")
        if not codes.size:
            raise ValueError(f"X must have at least one row and one column, got shape {codes.shape}")
        weights = as_weights(sample_weight, len(codes))
        weights = np.ones(len(codes)) if weights is None else weights
        weights = weights / weights.sum()
        if method.endswith("divergence"):
            chains = codes if method[0] == "c" else None
            theta, outcome = self._diverge(
                codes, weights, chains, l2, max_iter, n_sweeps, n_chains, learning_rate, as_generator(random_state)
            )
        else:
            if (distinct := _distinct(codes)) is not None:
                kept, kind_of = distinct
                codes, weights = codes[kept], np.bincount(kind_of, weights).astype(np.float64)
            codes, weights = codes[weights > 0], weights[weights > 0]
            objective = self._likelihood(codes, weights) if method[0] == "l" else self._pseudo(codes, weights)
            theta, outcome = _maximise(objective, self._parameters, l2, max_iter, tol)
        self._learned(theta)
        self.n_iter_, self.converged_, self.objective_ = outcome
        return self

    def _learned(self, theta: Array) -> None:
        """Take over parameters."""
        new: MarkovRandomField
        if self._given is not None:
            assert self._pairs is not None
            couplings, fields = self._given
            learned = theta[: couplings.size].reshape(couplings.shape), theta[couplings.size :].reshape(fields.shape)
            make: Any = self._ising
            args: tuple[Any, ...] = self._pairs.edges, self.n_variables
            if self._kind == "potts":
                make, args = self._potts, (*args, self.cardinalities[0])
            new = make(*args, *learned, self.limit, shape=self.shape, lattice=self._lattice)
        else:
            tables = self._parameters.tables(theta)
            if self._pairs is not None:
                n, K = self._pairs.unary.shape
                unary, rest = tables[: n * K].reshape(n, K), tables[n * K :].reshape(-1, K, K)
                pairs = _Pairs(unary, self._pairs.edges, rest, self._pairs.weights)
                new = self._of_pairs(self._kind, pairs, self.limit)
            else:
                offset = self._flat[4].tolist()
                factors = []
                for factor, start in zip(self.graph.factors, offset, strict=True):
                    logs = tables[start : start + factor.table.size].reshape(factor.table.shape)
                    top = logs.max(initial=-np.inf)
                    factors.append((factor.scope, np.exp(logs - (top if top > -np.inf else 0.0))))
                new = type(self)(factors, self.cardinalities, limit=self.limit)
        self.__dict__ = new.__dict__

    def _data_counts(self, codes: Codes, weights: Array) -> Array:
        flat = self._parameters.flat
        counts = np.zeros(len(flat[6]))
        _kernels().count(codes, weights, flat, counts)
        if counts[self._parameters.base == -np.inf].any():
            raise ValueError(_IMPOSSIBLE)
        return counts

    def _likelihood(self, codes: Codes, weights: Array) -> Callable[[Array], tuple[float, Array]]:
        """Mean log-likelihood and its gradient by the tables' logarithms."""
        parameters, cardinalities = self._parameters, self.cardinalities
        complete = not (codes < 0).any()
        counts = self._data_counts(codes, weights) if complete else np.zeros(0)
        first, _ = _graph_of(cardinalities, parameters.flat)
        engine = Engine(first, limit=self.limit)
        try:
            engine.expected_counts()
        except EngineLimitError as error:
            raise EngineLimitError(f"{error}; or fit with method='pseudo_likelihood'", error.cost) from error
        offset = parameters.flat[4]
        sizes = np.array([factor.table.size for factor in first.factors], np.int64)
        entries = np.repeat(offset - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        size = len(parameters.base)

        def gathered(tables: list[Array]) -> Array:
            values = np.concatenate([np.zeros(0), *(t.ravel() for t in tables)])
            return np.bincount(entries, values, size).astype(np.float64)

        def objective(logs: Array) -> tuple[float, Array]:
            graph, shift = _graph_of(cardinalities, (*parameters.flat[:6], logs, *parameters.flat[7:]))
            current = engine.with_tables(graph)
            expected, log_z = current.expected_counts()
            if complete:
                value = _dot(counts, logs) - float(log_z[0]) - shift
                return value, counts - gathered(expected)
            seen, log_evidence = current.expected_counts(codes, weights)
            return float(weights @ log_evidence) - float(log_z[0]), gathered(seen) - gathered(expected)

        return objective

    def _pseudo(self, codes: Codes, weights: Array) -> Callable[[Array], tuple[float, Array]]:
        """Mean log-pseudo-likelihood and its gradient by the tables' logarithms."""
        flat = self._parameters.flat
        size = len(flat[6])
        cuts = segments(len(codes), 1, size * 8, 4 * _NS * len(flat[2]))

        def objective(logs: Array) -> tuple[float, Array]:
            model = (*flat[:6], logs, *flat[7:])
            gradients, values = np.zeros((len(cuts), size)), np.zeros(len(cuts))

            def make_body() -> Body:
                work = _workspace(flat)

                def body(start: int, stop: int) -> None:
                    for segment in range(start, stop):
                        values[segment] = _kernels().pseudo_likelihood(
                            codes, weights, model, *cuts[segment], gradients[segment], *work
                        )

                return body

            run_chunks(make_body, len(cuts), 1, 4 * _NS * len(codes) * len(flat[2]))
            return float(values.sum()), gradients.sum(axis=0)

        return objective

    def _diverge(
        self,
        codes: Codes,
        weights: Array,
        chains: Codes | None,
        l2: float,
        max_iter: int,
        n_sweeps: int,
        n_chains: int,
        learning_rate: float,
        rng: np.random.Generator,
    ) -> tuple[Array, tuple[int, bool | None, float]]:
        """(Persistent) contrastive divergence; ``chains`` are the data that each step starts from, or None."""
        parameters = self._parameters
        design = parameters.design
        theta = np.zeros(design.shape[1])
        mean, n_mean = np.zeros_like(theta), 0
        even = np.full(n_chains, 1.0 / n_chains)
        data = self._data_counts(codes, weights)
        states = codes[rng.choice(len(codes), n_chains, p=weights)]
        for step in range(max_iter):
            if chains is not None:
                states = chains[rng.choice(len(codes), n_chains, p=weights)]
                data = self._data_counts(states, even)
            model = parameters.with_tables(theta)
            for _ in range(n_sweeps):
                _sweep(states, rng.random(states.shape), model, _IMPOSSIBLE)
            gradient = design.T @ (data - self._data_counts(states, even)) - l2 * theta
            theta = theta + learning_rate / np.sqrt(1 + step / 100) * gradient / parameters.uses
            if 2 * step >= max_iter - 1:
                mean += theta
                n_mean += 1
        return mean / n_mean, (max_iter, None, np.nan)


# ---- arrays --------------------------------------------------------------------------------------------------------


def _as_logs(value: ArrayLike, name: str) -> Array:
    """Log-potentials: a copy, -inf is allowed."""
    array = np.array(as_floats(value, name), np.float64, order="C")
    if np.isnan(array).any() or (array == np.inf).any():
        raise ValueError(f"{name} must hold log-potentials: finite, or -inf for what is impossible; got NaN or +inf")
    return array


def _as_row(values: Any) -> Any:
    """The same with an axis for rows; a mask is kept."""
    return (values if isinstance(values, np.ma.MaskedArray) else np.asarray(values))[None]


def _as_parameter(value: ArrayLike, name: str, *shapes: tuple[int, ...]) -> Array:
    array = np.array(as_floats(value, name), np.float64, order="C")
    if array.shape not in shapes:
        raise ValueError(f"{name} must have shape {' or '.join(map(str, shapes))}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")
    array.flags.writeable = False
    return array


def _as_edges(edges: ArrayLike, n: int | None) -> NDArray[np.int64]:
    array = np.asarray(edges)
    if not array.size:
        array = np.zeros((0, 2), np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"edges must be integers, got dtype {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"edges must have shape (m, 2), got {array.shape}")
    wrong = array[:, 0] == array[:, 1]
    wrong |= (array < 0).any(axis=1)
    if n is not None:
        wrong |= (array >= n).any(axis=1)
    if wrong.any():
        e = int(np.flatnonzero(wrong)[0])
        known = "" if n is None else f" from 0 to {n - 1}"
        raise ValueError(f"edge {e} must join two different nodes{known}, got {array[e].tolist()}")
    return np.array(array, np.int64)


def _fields(
    edges: ArrayLike, field: ArrayLike, n_nodes: int | None, least: int
) -> tuple[Array, int, NDArray[np.int64]]:
    """The field, the number of nodes, and the edges; fields of ``least`` axes are shared by all nodes."""
    fields = np.asarray(as_floats(field, "field"), np.float64)
    if n_nodes is not None:
        check_number(n_nodes, "n_nodes", Integral, 1)
    n = n_nodes if n_nodes is not None else len(fields) if fields.ndim > least else None
    ends = _as_edges(edges, n)
    if n is None:
        if not len(ends):
            raise ValueError("n_nodes must be given: there are no edges to tell the number of nodes")
        n = int(ends.max()) + 1
    return fields, n, ends


def _grid_edges(
    shape: tuple[int, ...], periodic: bool, connectivity: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges of a grid, and the number of the direction of each."""
    if len(shape) not in (2, 3):
        raise ValueError(f"shape must have 2 or 3 sizes, got {shape}")
    for size in shape:
        check_number(size, "each size of shape", Integral, 1)
    allowed = (4, 8) if len(shape) == 2 else (6,)
    if (connectivity or allowed[0]) not in allowed:
        raise ValueError(f"connectivity must be one of {allowed} for {len(shape)} axes, got {connectivity!r}")
    steps = [step for step in product((0, 1), *[(-1, 0, 1)] * (len(shape) - 1)) if step > (0,) * len(shape)]
    if connectivity != 8:
        steps = [step for step in steps if sum(map(abs, step)) == 1]
    steps.sort(key=lambda step: (sum(map(abs, step)), [-abs(s) for s in step], step))
    numbers = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    parts, direction = [], []
    for k, step in enumerate(steps):
        if periodic:
            tails, heads = numbers, np.roll(numbers, [-s for s in step], range(len(shape)))
        else:
            tails = numbers[tuple(slice(max(0, -s), size - max(0, s)) for s, size in zip(step, shape, strict=True))]
            heads = numbers[tuple(slice(max(0, s), size - max(0, -s)) for s, size in zip(step, shape, strict=True))]
        part = np.stack([tails.ravel(), heads.ravel()], axis=1)
        parts.append(part)
        direction.append(np.full(len(part), k))
    edges, directions = np.concatenate(parts), np.concatenate(direction)
    if periodic and min(shape) <= 2:  # steps around short axes come back, or meet others
        low, high = edges.min(axis=1), edges.max(axis=1)
        _, first = np.unique(low * len(numbers.ravel()) + high, return_index=True)
        kept = np.sort(first)
        kept = kept[low[kept] < high[kept]]
        edges, directions = edges[kept], directions[kept]
    return edges, directions


def _flat(
    cardinalities: ArrayLike,
    first: NDArray[Any],
    variable: NDArray[Any],
    stride: NDArray[Any],
    offset: NDArray[Any],
    weight: Array,
    table: Array,
) -> Flat:
    """What `fastgen._kernels.jit.markov` calls a model."""
    slot = np.argsort(variable, kind="stable")
    own = np.concatenate([[0], np.cumsum(np.bincount(variable, minlength=np.size(cardinalities)))])
    owner = np.repeat(np.arange(len(offset)), np.diff(first))
    integers = (np.ascontiguousarray(part, np.int64) for part in (cardinalities, first, variable, stride, offset))
    return *integers, weight, table, own.astype(np.int64), slot.astype(np.int64), owner.astype(np.int64)


def _workspace(flat: Flat) -> tuple[Any, ...]:
    """Of the kernels: two for the states of a variable, one for its factors."""
    K = int(flat[0].max(initial=1))
    return np.empty(K), np.empty(K, np.int64), np.empty(int(np.diff(flat[7]).max(initial=1)), np.int64)


def _flat_pairs(n: int, K: int, edges: NDArray[Any], n_unary: int, n_tables: int, weights: Array, table: Array) -> Flat:
    """The same for nodes, then edges, that have tables of their own or share the only one."""
    m = len(edges)
    first = np.concatenate([np.arange(n), n + 2 * np.arange(m + 1)])
    variable = np.concatenate([np.arange(n), edges.ravel()])
    stride = np.concatenate([np.ones(n, np.int64), np.tile([K, 1], m)])
    unary = np.arange(n) * (K if n_unary == n else 0)
    pairs = n_unary * K + np.arange(m) * (K * K if n_tables == m else 0)
    weight = np.concatenate([np.ones(n), weights])
    return _flat(np.full(n, K), first, variable, stride, np.concatenate([unary, pairs]), weight, table)


def _sizes(flat: Flat) -> NDArray[np.int64]:
    """The number of entries of each factor's table."""
    sizes = np.ones(len(flat[4]), np.int64)
    np.multiply.at(sizes, flat[9], flat[0][flat[2]])
    return sizes


def _with_zeros(flat: Flat) -> NDArray[np.bool_]:
    """Which factors forbid something."""
    before = np.concatenate([[0], np.cumsum(flat[6] == -np.inf)])
    return np.asarray(before[flat[4] + _sizes(flat)] > before[flat[4]])


def _graph_of(cardinalities: tuple[int, ...], flat: Flat) -> tuple[FactorGraph, float]:
    """The factor graph of a flat model, each table divided by its largest entry, and the log of all that."""
    first, variable, offset, weight, table = flat[1], flat[2], flat[4], flat[5], flat[6]
    scopes, bounds = variable.tolist(), first.tolist()
    sizes = _sizes(flat)
    order = np.lexsort((weight, offset))  # tables that are shared are made once
    fresh = (np.diff(offset[order], prepend=-1) != 0) | (np.diff(weight[order], prepend=np.nan) != 0)
    which = np.empty(len(offset), np.int64)
    which[order] = np.cumsum(fresh) - 1
    kinds = order[fresh]
    made: list[Any] = [None] * len(kinds)
    tops = np.zeros(len(kinds))
    for size in np.unique(sizes):
        own = np.flatnonzero(sizes[kinds] == size)
        logs = table[offset[kinds[own], None] + np.arange(size)] * weight[kinds[own], None]
        top = logs.max(axis=1, keepdims=True)
        top[top == -np.inf] = 0.0
        values = np.exp(logs - top)
        if (lost := ((values == 0) & (logs > -np.inf)).any(axis=1)).any():
            f, e = int(kinds[own[lost][0]]), int(np.flatnonzero(lost)[0])
            spread = float(top[e, 0] - logs[e][logs[e] > -np.inf].min())
            raise ValueError(
                f"the log-potentials of variables {tuple(scopes[bounds[f] : bounds[f + 1]])} differ by {spread:.4g}, "
                "more than the range of float64 (745): use -inf for what is impossible"
            )
        values.flags.writeable = False
        tops[own] = top[:, 0]
        for kind, f, values_of in zip(own.tolist(), kinds[own].tolist(), values, strict=True):
            made[kind] = values_of.reshape([cardinalities[v] for v in scopes[bounds[f] : bounds[f + 1]]])
    factors = []
    for f, kind in enumerate(which.tolist()):
        factor = Factor.__new__(Factor)  # checked already: this is several times as fast
        factor.__dict__.update(scope=tuple(scopes[bounds[f] : bounds[f + 1]]), table=made[kind])
        factors.append(factor)
    graph = FactorGraph.__new__(FactorGraph)
    graph.__dict__.update(cardinalities=cardinalities, factors=tuple(factors))
    return graph, float(tops[which].sum())


def _free_tables(flat: Flat) -> _Parameters:
    """Each entry a parameter, but zeros."""
    table = flat[6]
    free = np.flatnonzero(table > -np.inf)
    base = np.where(table > -np.inf, 0.0, -np.inf)
    design = csr_array((np.ones(len(free)), (free, np.arange(len(free)))), (len(table), len(free)))
    return _Parameters((*flat[:6], base, *flat[7:]), base, design)


def _dot(counts: Array, logs: Array) -> float:
    """0 times -inf is 0 here."""
    met = counts > 0
    return float(counts[met] @ logs[met])


def _maximise(
    objective: Callable[[Array], tuple[float, Array]], parameters: _Parameters, l2: float, max_iter: int, tol: float
) -> tuple[Array, tuple[int, bool, float]]:
    """L-BFGS; parameters, and what is to be reported."""
    design = parameters.design

    def loss(scaled: Array) -> tuple[float, Array]:
        theta = scaled / scale
        value, gradient = objective(parameters.tables(theta))
        if not np.isfinite(value):
            raise ValueError(_IMPOSSIBLE)
        return 0.5 * l2 * float(theta @ theta) - value, (l2 * theta - design.T @ gradient) / scale

    scale = np.sqrt(parameters.uses)  # parameters that many factors share have large second derivatives
    start = np.zeros(design.shape[1])
    if not len(start):
        return start, (0, True, -loss(start)[0])
    options = {"maxiter": max_iter, "maxfun": 4 * max_iter, "gtol": tol * scale.min(), "ftol": 0.0, "maxcor": 20}
    result = cast(Any, minimize)(loss, start, jac=True, method="L-BFGS-B", options=options)
    steepest = float(np.abs(result.jac / scale).max())
    converged = steepest <= max(tol, _LEAST_GRADIENT)
    if not converged:
        warnings.warn(
            f"the fit stopped after {result.nit} steps with a gradient of {steepest:.3g}, above tol={tol}: increase "
            "max_iter, tol or l2 (without l2 there is no optimum if the data leave out states)",
            ConvergenceWarning,
            stacklevel=3,
        )
    return np.asarray(result.x / scale, np.float64), (int(result.nit), converged, -float(result.fun))


def _as_states(samples: NDArray[Any], n: int, V: int, spins: bool) -> NDArray[np.int64]:
    """The first n draws of chains, as rows of codes."""
    states = samples.reshape(-1, V)[:n].astype(np.int64)
    return (states + 1) // 2 if spins else states


def _sweep(states: Codes, uniforms: Array, model: Flat, trouble: str) -> None:
    """One Gibbs sweep over each row, in place."""
    stuck: list[int] = []

    def make_body() -> Body:
        work = _workspace(model)

        def body(start: int, stop: int) -> None:
            if not _kernels().sweep(states, uniforms, model, start, stop, *work):
                stuck.append(start)

        return body

    run_chunks(make_body, len(states), 1, 3 * _NS * len(states) * len(model[2]))
    if stuck:
        raise ValueError(trouble)
