"""From the scopes of factors to the order in which tables are multiplied and variables summed out.

`eliminate` finds an elimination order: vertices that need no new edge first, then the best of several greedy runs.
Its cliques are the nodes of a junction tree, whose size is what the literature reports (`Elimination.width`,
`Elimination.states`). `contract` turns it into a binary tree of products of two tables, each followed by the sum over
the variables that occur in no other table. So the table of a clique with several neighbours is never written down
whole: only what is sent to the next one is, and what two of its inputs have in common.

The order that is found is not always the best one: to find that is NP-hard. The same graph gives the same order.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import pairwise
from math import inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Contraction", "Cost", "Elimination", "Scopes", "contract", "eliminate", "elimination"]

Integers = NDArray[np.int64]

_HOPELESS = (1, 100.0), (4, 8.0), (24, inf)  # after so many rounds, what is so many times above a limit is given up
_RUN_NS = 250.0, 1.0, 500.0  # a run of a rule: each vertex that needs new edges, each pair of them, each variable
_QUERY_NS = 4.0  # for each entry of the tables
_PATIENCE_NS = 2e5, 4e8  # so long the search may take in any case, and at most, if the tables are large
_EXACT = 2.0**53  # floats count exactly up to here


@dataclass(frozen=True)
class Cost:
    """What exact inference costs, known before any of it is done.

    Attributes
    ----------
    width : int
        Variables in the largest clique, less one.
    states : int
        Entries that the tables of all (maximal) cliques would have.
    bytes : int
        Memory for one row of evidence: the tables that are really made.
    operations : int
        Multiplications and additions for one row of evidence.
    preparation : int
        Multiplications and additions that are the same for all evidence, and done once.
    """

    width: int
    states: int
    bytes: int
    operations: int
    preparation: int


@dataclass(frozen=True, eq=False)
class Elimination:
    """An order in which variables are eliminated.

    Attributes
    ----------
    order : tuple of int
    width : int
        Variables in the largest clique, less one; -1 if there are none.
    states : int
        Entries in the tables of all maximal cliques.
    """

    order: tuple[int, ...]
    width: int
    states: int


@dataclass(frozen=True, eq=False)
class Contraction:
    """A binary tree over tables; the leaves come first, children before parents, the root last.

    Attributes
    ----------
    arrays : tuple
        As `fastgen._kernels.jit.compilation.contract_tree` returns it.
    """

    arrays: Any

    @cached_property
    def scopes(self) -> list[tuple[int, ...]]:
        """The variables of each table, in the order of its axes."""
        return _lists(*self.arrays[:2])

    @cached_property
    def summed(self) -> list[tuple[int, ...]]:
        """The variables summed over, in the order of the axes."""
        return _lists(*self.arrays[2:4])

    @cached_property
    def children(self) -> list[tuple[int, int]]:
        """The two tables that are multiplied; (-1, -1) for a leaf; (i, -1) where variables of one are summed out."""
        return list(zip(self.arrays[4].tolist(), self.arrays[5].tolist(), strict=True))

    @cached_property
    def static(self) -> list[bool]:
        """Which tables do not depend on the evidence."""
        return self.arrays[6].tolist()  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return len(self.arrays[4])

    @property
    def root(self) -> int:
        """A table without variables."""
        return len(self) - 1


def _lists(pointers: Integers, members: Integers) -> list[tuple[int, ...]]:
    flat, bounds = members.tolist(), pointers.tolist()
    return [tuple(flat[first:last]) for first, last in pairwise(bounds)]


class Scopes:
    """Lists of variables as two arrays, and what is known of the variables.

    Attributes
    ----------
    pointers, members : int arrays
    sizes : int array
        The number of states of each variable; `as_floats`, `log_sizes` are the same.
    """

    def __init__(self, cardinalities: Sequence[int], scopes: Sequence[Sequence[int]]) -> None:
        self.cardinalities = cardinalities
        self.pointers = np.zeros(len(scopes) + 1, np.int64)
        np.cumsum([len(scope) for scope in scopes], out=self.pointers[1:])
        self.members = np.array([variable for scope in scopes for variable in scope], np.int64)
        self.sizes = np.array(cardinalities, np.int64)
        self.as_floats = self.sizes.astype(np.float64)
        self.log_sizes = np.log2(self.as_floats)


def _kernels() -> Any:
    return import_module("fastgen._kernels.jit.compilation")


def eliminate(cardinalities: Sequence[int], scopes: Iterable[Iterable[int]], variables: Sequence[int]) -> Elimination:
    """Return the best elimination order that a few greedy runs find.

    Parameters
    ----------
    cardinalities : sequence of int
        The number of states of all variables.
    scopes : iterable of iterables of int
        Variables that occur together; those that are not in ``variables`` do not count.
    variables : sequence of int
        What is to be eliminated.
    """
    given = Scopes(cardinalities, [list(scope) for scope in scopes])
    return elimination(given, np.arange(len(given.pointers) - 1), np.array(variables, np.int64))


def elimination(
    given: Scopes,
    kept: Integers,
    free: Integers,
    rounds: int | None = None,
    excess: Callable[[Integers, float], float] | None = None,
) -> Elimination:
    """Return the best elimination order that a few greedy runs find.

    Parameters
    ----------
    given : Scopes
    kept : int array
        The scopes that count.
    free : int array
        The variables to be eliminated; others do not count.
    rounds : int, optional
        Runs of each rule; by default as many as the size of the tables is worth.
    excess : function, optional
        Of an order and the states of its cliques: how many times what it needs is above a limit. Far above it, no
        better order is looked for. Not asked if ``rounds`` is given.
    """
    n = len(free)
    if n == 0:
        return Elimination((), -1, 0)
    kernels = _kernels()
    pointers, members = kernels.interactions(given.pointers, given.members, kept, free, len(given.sizes))
    first, total, core = kernels.prepare(n, pointers, members, given.log_sizes[free])
    order = np.empty(n, np.int64)
    order[: len(first)] = first
    if m := n - len(first):
        gone = np.ones(len(given.sizes), np.bool_)
        gone[free] = False
        leaves = kernels.leaves_of(given.pointers, given.members, kept, gone, free, free)
        tables = given.as_floats, *leaves[:3]
        run_ns = m * (_RUN_NS[0] + _RUN_NS[1] * m) + _RUN_NS[2] * n
        patience = _QUERY_NS, run_ns, *_PATIENCE_NS
        rules = np.ones(3, np.bool_)
        known, done = (inf, inf), 0
        steps: tuple[tuple[int, float], ...] = _HOPELESS
        if rounds is not None:
            patience, steps = (0.0, 0.0, inf, inf), ((rounds, inf),)
        for until, hopeless in steps:
            known = kernels.search(core, total, done, until, known, patience, rules, free, tables, order)
            done = until
            if excess is not None and hopeless < inf and excess(free[order], known[0]) > hopeless:
                break
    largest, states = kernels.clique_sizes(n, pointers, members, given.as_floats[free], order)
    if states > _EXACT:
        sizes = [given.cardinalities[variable] for variable in free]
        states = _maximal(order.tolist(), sizes, _lists(pointers, members))
    return Elimination(tuple(free[order].tolist()), int(largest) - 1, int(states))


def _maximal(order: list[int], sizes: list[int], lists: list[tuple[int, ...]]) -> int:
    """The states of the cliques that are in no other: what `clique_sizes` returns, without rounding."""
    n = len(order)
    position = [0] * n
    for place, vertex in enumerate(order):
        position[vertex] = place
    later: list[set[int]] = [set() for _ in range(n)]  # of each position, the neighbours eliminated after it
    for scope in lists:
        places = sorted(position[vertex] for vertex in scope)
        for i, place in enumerate(places):
            later[place].update(places[i + 1 :])
    maximal = [True] * n
    first = [-1] * n
    for place, others in enumerate(later):
        if others:
            first[place] = parent = min(others)
            later[parent].update(others)
            later[parent].discard(parent)
    for place, parent in enumerate(first):  # the clique of the first of them is within this one, or has a vertex more
        if parent >= 0 and len(later[parent]) == len(later[place]) - 1:
            maximal[parent] = False
    return sum(prod(sizes[order[other]] for other in (i, *later[i])) for i in range(n) if maximal[i])


def contract(
    cardinalities: Sequence[int], leaves: Sequence[Sequence[int]], static: Sequence[bool], order: Sequence[int]
) -> Contraction:
    """Return a tree of products of two tables at a time that sums the variables out in this order, or sooner.

    Parameters
    ----------
    cardinalities : sequence of int
        The number of states of all variables.
    leaves : sequence of sequences of int
        The scopes of the tables; each variable of ``order`` in one at least.
    static : sequence of bool
        Which of them are the same for all evidence: the products of these are made once.
    order : sequence of int
        All variables that occur.
    """
    given = Scopes(cardinalities, leaves)
    flags, places = np.array(static, np.bool_), np.array(order, np.int64)
    return Contraction(_kernels().contract_tree(given.as_floats, given.pointers, given.members, flags, places))
