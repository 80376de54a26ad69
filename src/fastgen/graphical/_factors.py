"""Models over discrete variables as values: factors, factor graphs, directed networks.

Variables are numbered from 0, and so are the states of each. A table is a float64 array in C order with one axis for
each variable of its scope, in the order of the scope; the last variable runs fastest. All is checked once, when it is
made, and never changes: tables are read-only, and copied unless they were so before.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastgen._validation import Array, as_floats

__all__ = ["SUM_TOLERANCE", "DiscreteNetwork", "Factor", "FactorGraph", "NetworkError"]

SUM_TOLERANCE = 0.01
"""How far from 1 a conditional distribution of a `DiscreteNetwork` may sum."""

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, halves of surrogate pairs


class NetworkError(ValueError):
    """A directed model that is none.

    Attributes
    ----------
    node : int or None
        The node that is at fault.
    configuration : tuple of int or None
        The states of its parents for which it is.
    """

    def __init__(self, text: str, node: int | None = None, configuration: tuple[int, ...] | None = None) -> None:
        super().__init__(text)
        self.node = node
        self.configuration = configuration

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.node, self.configuration)


@dataclass(frozen=True, eq=False)
class Factor:
    """A function of some variables that is nowhere negative.

    Parameters
    ----------
    scope : tuple of int
        The variables, each once, in the order of the table's axes. None at all makes a constant.
    table : float64 array
        Finite and not negative. A read-only array in C order is kept, anything else copied.

    Raises
    ------
    ValueError
        If a variable is negative or repeated, the number of axes is another, or an entry is negative, NaN or infinite.
    """

    scope: tuple[int, ...]
    table: Array

    def __post_init__(self) -> None:
        scope = _as_indices(self.scope, "scope")
        if scope and min(scope) < 0:
            raise ValueError(f"scope {scope} has a negative variable: they are numbered from 0")
        if len(set(scope)) < len(scope):
            repeated = next(variable for variable in scope if scope.count(variable) > 1)
            raise ValueError(f"scope {scope} repeats variable {repeated}")
        table = _as_table(self.table, f"the table of scope {scope}")
        if table.ndim != len(scope):
            raise ValueError(
                f"a table of scope {scope} must have one axis for each of the {len(scope)} variables, "
                f"got shape {table.shape}"
            )
        _check_entries(table, f"the table of scope {scope}")
        object.__setattr__(self, "scope", scope)
        object.__setattr__(self, "table", table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Factor):
            return NotImplemented
        return self.scope == other.scope and np.array_equal(self.table, other.table)

    def __hash__(self) -> int:
        return hash((self.scope, self.table.shape))

    def __reduce__(self) -> Any:  # through the constructor: pickles forget that arrays are read-only
        return type(self), (self.scope, self.table)


@dataclass(frozen=True)
class FactorGraph:
    """A product of factors: p(x) is proportional to ``prod_f f(x[f.scope])``. A Markov random field.

    Parameters
    ----------
    cardinalities : tuple of int
        The number of states of each variable, at least 1.
    factors : tuple of Factor
        Several may have the same scope; a variable may be in none.

    Raises
    ------
    ValueError
        If a cardinality is below 1, a scope has a variable that is not there, or a table has another shape than the
        cardinalities of its scope.
    """

    cardinalities: tuple[int, ...]
    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        cardinalities = _as_indices(self.cardinalities, "cardinalities")
        factors = tuple(self.factors)
        for variable, cardinality in enumerate(cardinalities):
            if cardinality < 1:
                raise ValueError(f"variable {variable} must have at least one state, got cardinality {cardinality}")
        for number, factor in enumerate(factors):
            if not isinstance(factor, Factor):
                raise TypeError(
                    f"factor {number} must be a Factor, got {type(factor).__name__}; FactorGraph.of takes pairs"
                )
            if factor.scope and max(factor.scope) >= len(cardinalities):
                raise ValueError(
                    f"factor {number} has scope {factor.scope}, but there are {len(cardinalities)} variables"
                )
            shape = tuple(cardinalities[variable] for variable in factor.scope)
            if factor.table.shape != shape:
                raise ValueError(
                    f"factor {number} of scope {factor.scope} must have a table of shape {shape}, "
                    f"got {factor.table.shape}"
                )
        object.__setattr__(self, "cardinalities", cardinalities)
        object.__setattr__(self, "factors", factors)

    @classmethod
    def of(cls, cardinalities: Iterable[int], factors: Iterable[Factor | tuple[Iterable[int], ArrayLike]]) -> Self:
        """Return the graph of these factors, or pairs of a scope and a table.

        >>> FactorGraph.of([2, 3], [([0], [1, 2]), ([1, 0], np.ones((3, 2)))]).n_variables
        2
        """
        made = [
            factor if isinstance(factor, Factor) else Factor(tuple(factor[0]), np.asarray(factor[1]))
            for factor in factors
        ]
        return cls(tuple(cardinalities), tuple(made))

    @property
    def n_variables(self) -> int:
        """The number of variables."""
        return len(self.cardinalities)


@dataclass(frozen=True, eq=False)
class DiscreteNetwork:
    """A directed model over named variables: ``p(x) = prod_i p(x_i | x_parents(i))``. A Bayesian network.

    Each conditional distribution must sum to 1 within ``SUM_TOLERANCE`` = 0.01, which is what three numbers printed as
    0.33 need, and is kept as it is given. A row that sums to 1 + e adds about e to the log-likelihood of each sample
    that meets it; p(x) sums to 1 only to about as much for each node; and p(evidence) depends, as little, on whether
    unobserved nodes without observed descendants are summed over or left out. In the bnlearn repository e is 3e-7 at
    most, and published results are those of the numbers as printed. `normalised` removes the error.

    Parameters
    ----------
    names : tuple of str
        The nodes, all different.
    states : tuple of tuple of str
        The states of each node, different within a node, at least one.
    parents : tuple of tuple of int
        The parents of each node, as indices into ``names``.
    tables : tuple of float64 arrays
        For each node ``p(own state | states of the parents)``, of shape (cardinalities of the parents ..., own
        cardinality).

    Raises
    ------
    NetworkError
        A ``ValueError`` that says which node is at fault: a cycle, a name twice, a parent that does not exist, a table
        of another shape, entries that are negative, NaN or infinite, or sum to something else than 1.
    """

    names: tuple[str, ...]
    states: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]
    tables: tuple[Array, ...]

    def __post_init__(self) -> None:
        names = tuple(self.names)
        n = len(names)
        for name in ("states", "parents", "tables"):
            if len(getattr(self, name)) != n:
                raise NetworkError(
                    f"{name} must have one entry for each of the {n} names, got {len(getattr(self, name))}"
                )
        seen: set[str] = set()
        for node, name in enumerate(names):
            check_name(name, node)
            if name in seen:
                raise NetworkError(f"there are two nodes called {name!r}", node)
            seen.add(name)
        states = tuple(tuple(labels) for labels in self.states)
        for node, labels in enumerate(states):
            check_states(labels, names[node], node)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "states", states)
        object.__setattr__(self, "parents", tuple(self._check_parents(node) for node in range(n)))
        _ = self.order  # finds cycles
        object.__setattr__(self, "tables", tuple(self._check_table(node) for node in range(n)))

    @classmethod
    def of(
        cls,
        states: Mapping[str, Iterable[str]],
        tables: Mapping[str, ArrayLike],
        parents: Mapping[str, Iterable[str]] | None = None,
    ) -> Self:
        """Return the network with these states, tables and parents by name; nodes without an entry have no parents.

        >>> network = DiscreteNetwork.of(
        ...     {"rain": ["no", "yes"], "wet": ["no", "yes"]},
        ...     {"rain": [0.8, 0.2], "wet": [[0.9, 0.1], [0.2, 0.8]]},
        ...     {"wet": ["rain"]},
        ... )
        >>> network.arcs
        ((0, 1),)
        """
        parents = parents or {}
        numbers = {name: node for node, name in enumerate(states)}
        for what, names in (("tables", tables), ("parents", parents)):
            for name in names:
                if name not in numbers:
                    raise NetworkError(f"{what} names {name!r}, which is no node: states lists them")
        for node, name in enumerate(states):
            if name not in tables:
                raise NetworkError(f"tables has no entry for node {name!r}", node)
            for parent in parents.get(name, ()):
                if parent not in numbers:
                    raise NetworkError(f"node {name!r} has a parent {parent!r}, which is no node", node)
        return cls(
            tuple(states),
            tuple(tuple(labels) for labels in states.values()),
            tuple(tuple(numbers[parent] for parent in parents.get(name, ())) for name in states),
            tuple(np.asarray(tables[name]) for name in states),
        )

    def _check_parents(self, node: int) -> tuple[int, ...]:
        name = self.names[node]
        parents = _as_indices(self.parents[node], f"the parents of node {name!r}")
        for parent in parents:
            if not 0 <= parent < len(self.names):
                raise NetworkError(f"node {name!r} has parent {parent}, but there are {len(self.names)} nodes", node)
        if len(set(parents)) < len(parents):
            repeated = next(parent for parent in parents if parents.count(parent) > 1)
            raise NetworkError(f"node {name!r} has parent {self.names[repeated]!r} twice", node)
        return parents

    def _check_table(self, node: int) -> Array:
        name = self.names[node]
        shape = tuple(len(self.states[other]) for other in (*self.parents[node], node))
        try:
            table = _as_table(self.tables[node], f"the table of node {name!r}")
        except (TypeError, ValueError) as error:
            raise NetworkError(str(error), node) from error
        if table.shape != shape:
            raise NetworkError(
                f"the table of node {name!r} must have shape {shape}, (states of the parents ..., own states), "
                f"got {table.shape}",
                node,
            )
        try:
            _check_entries(table, f"the table of node {name!r}")
        except ValueError as error:
            with np.errstate(invalid="ignore"):
                bad = ~((table >= 0) & (table < np.inf))
            raise NetworkError(str(error), node, tuple(map(int, np.argwhere(bad)[0][:-1]))) from error
        with np.errstate(over="ignore"):
            sums = table.sum(axis=-1)
        off = np.abs(sums - 1) > SUM_TOLERANCE + 1e-9  # 0.33 + 0.33 + 0.33 passes in spite of rounding
        if off.any():
            worst = tuple(map(int, np.argwhere(off)[0]))
            given = self.describe(node, worst)
            raise NetworkError(
                f"the probabilities of {name!r}{given and ' given ' + given} sum to {float(sums[worst])!r}, "
                f"not to 1 within {SUM_TOLERANCE}",
                node,
                worst,
            )
        return table

    def describe(self, node: int, configuration: Sequence[int]) -> str:
        """Return the states of a node's parents in words: ``"a='yes', b='low'"``."""
        pairs = zip(self.parents[node], configuration, strict=True)
        return ", ".join(f"{self.names[parent]}={self.states[parent][state]!r}" for parent, state in pairs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DiscreteNetwork):
            return NotImplemented
        mine, theirs = ((network.names, network.states, network.parents) for network in (self, other))
        return mine == theirs and all(map(np.array_equal, self.tables, other.tables))

    def __hash__(self) -> int:
        return hash((self.names, self.states, self.parents))

    def __reduce__(self) -> Any:
        return type(self), (self.names, self.states, self.parents, self.tables)

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """The number of states of each node."""
        return tuple(map(len, self.states))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The nodes, parents before children; among those that could be next, the lowest first."""
        from fastgen.graphical._separation import topological_order

        return topological_order(self.parents, self.names)

    @cached_property
    def arcs(self) -> tuple[tuple[int, int], ...]:
        """The arcs (parent, child), by child, then in the order of its parents."""
        return tuple((parent, child) for child, parents in enumerate(self.parents) for parent in parents)

    @property
    def n_parameters(self) -> int:
        """The number of free parameters: one less than the states for each configuration of the parents."""
        return sum(table.size // table.shape[-1] * (table.shape[-1] - 1) for table in self.tables)

    def factor_graph(self) -> FactorGraph:
        """Return the factors, in the order of the nodes: that of node i has scope ``(*parents[i], i)``."""
        factors = (
            Factor((*parents, node), table)
            for node, (parents, table) in enumerate(zip(self.parents, self.tables, strict=True))
        )
        return FactorGraph(self.cardinalities, tuple(factors))

    def normalised(self) -> Self:
        """Return the network with each conditional distribution divided by its sum.

        A row of k entries that sums to 1 to k rounding errors stays as it is: to normalise twice changes nothing.
        """
        tables = []
        for table in self.tables:
            sums = table.sum(axis=-1, keepdims=True)
            exact = np.abs(sums - 1) <= table.shape[-1] * np.finfo(np.float64).eps
            tables.append(table if exact.all() else table / np.where(exact, 1, sums))
        return replace(self, tables=tuple(tables))


def _as_indices(values: Iterable[int], name: str) -> tuple[int, ...]:
    try:
        return tuple(map(index, values))
    except TypeError as error:
        raise TypeError(f"{name} must be integers, got {values!r}") from error


def _as_table(value: ArrayLike, name: str) -> Array:
    """A float64 array in C order that nobody can write to."""
    array = np.asarray(as_floats(value, name), np.float64)
    if array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")
        array.flags.writeable = False
    return array


def _check_entries(table: Array, name: str) -> None:
    with np.errstate(invalid="ignore"):
        good = (table >= 0) & (table < np.inf)
    if not good.all():
        where = tuple(map(int, np.argwhere(~good)[0]))
        raise ValueError(f"{name} must be finite and not negative, got {float(table[where])!r} at {where}")


def has_control_characters(text: str) -> bool:
    """Whether the text has characters that no name may have."""
    return _UNFIT.search(text) is not None


def check_name(name: object, node: int, what: str = "the name of a node") -> None:
    """Raise `NetworkError` unless this can be a name."""
    if not isinstance(name, str) or not name or has_control_characters(name):
        raise NetworkError(f"{what} must be text that is not empty and has no control characters, got {name!r}", node)


def check_states(labels: Sequence[str], name: str, node: int) -> None:
    """Raise `NetworkError` unless these can be the states of this node."""
    if not labels:
        raise NetworkError(f"node {name!r} must have at least one state", node)
    for label in labels:
        check_name(label, node, f"a state of node {name!r}")
    if len(set(labels)) < len(labels):
        count = Counter(labels)
        repeated = next(label for label in labels if count[label] > 1)
        raise NetworkError(f"node {name!r} has two states called {repeated!r}", node)
