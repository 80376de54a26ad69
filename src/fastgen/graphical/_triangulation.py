"""From the scopes of factors to the order in which tables are multiplied and variables summed out.

`eliminate` finds an elimination order: vertices that need no new edge first, then the best of several greedy runs.
Its cliques are the nodes of a junction tree, whose size is what the literature reports (`Elimination.width`,
`Elimination.states`). `contract` turns it into a binary tree of products of two tables, each followed by the sum over
the variables that occur in no other table. So the table of a clique with several neighbours is never written down
whole: only what is sent to the next one is, and what two of its inputs have in common.

The order that is found is not always the best one: to find that is NP-hard. The same graph gives the same order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import inf, log2, prod
from typing import Any

import numpy as np

__all__ = ["Contraction", "Cost", "Elimination", "contract", "eliminate"]

_ROUNDS = 24  # runs of each rule at most
_RUN_NS = 250.0, 1.5  # a run of a rule: for each vertex, and for each pair
_QUERY_NS = 2.0  # for each entry of the tables
_PATIENCE_NS = 2e5, 4e8  # so long the search may take in any case, and at most, if the tables are large


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
    """A binary tree over tables; the leaves come first, children before parents.

    Attributes
    ----------
    scopes : list of tuple of int
        The variables of each table, in the order of its axes.
    children : list of tuple of int
        The two tables that are multiplied; (-1, -1) for a leaf; (i, -1) where variables of one table are summed out.
    summed : list of tuple of int
        The variables summed over, in the order of the axes.
    static : list of bool
        Which tables do not depend on the evidence.
    work : list of int
        The number of multiplications for each table.
    root : int
        A table without variables.
    """

    scopes: list[tuple[int, ...]]
    children: list[tuple[int, int]]
    summed: list[tuple[int, ...]]
    static: list[bool]
    work: list[int]
    root: int


def _kernels() -> Any:
    return import_module("fastgen._kernels.jit.junction_tree")


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
    n = len(variables)
    if n == 0:
        return Elimination((), -1, 0)
    numbers = {variable: number for number, variable in enumerate(variables)}
    kept = {frozenset(numbers[variable] for variable in scope if variable in numbers) for scope in scopes}
    lists = sorted(sorted(scope) for scope in kept if len(scope) > 1)
    pointers = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(scope) for scope in lists], out=pointers[1:])
    members = np.array([vertex for scope in lists for vertex in scope], np.int64)
    sizes = np.array([log2(cardinalities[variable]) for variable in variables])
    best = inf
    kept_order = np.arange(n)
    round_ns = 3 * n * (_RUN_NS[0] + _RUN_NS[1] * n)
    for number in range(_ROUNDS):
        if number * round_ns > min(max(_PATIENCE_NS[0], best * _QUERY_NS), _PATIENCE_NS[1]):
            break
        for rule in range(3):
            order = np.empty(n, np.int64)
            total = _kernels().greedy_order(n, pointers, members, sizes, rule, number, best, order)
            if total < best:
                best, kept_order = total, order
    width, states = _maximal(kept_order, [cardinalities[variable] for variable in variables], lists)
    return Elimination(tuple(variables[int(vertex)] for vertex in kept_order), width, states)


def _maximal(order: Any, sizes: list[int], lists: list[list[int]]) -> tuple[int, int]:
    """Width, and states of the cliques that are in no other."""
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
    states = 0
    for place in range(n):
        if maximal[place]:
            states += prod(sizes[order[other]] for other in (place, *later[place]))
    return max(map(len, later)), states


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
    position = {variable: place for place, variable in enumerate(order)}  # what stays longest runs fastest
    sets = [frozenset(scope) for scope in leaves]
    tree = Contraction(
        [tuple(sorted(scope, key=position.__getitem__)) for scope in leaves],
        [(-1, -1)] * len(leaves),
        [()] * len(leaves),
        list(static),
        [0] * len(leaves),
        0,
    )
    holders: dict[int, set[int]] = {variable: set() for variable in order}
    for leaf, scope in enumerate(sets):
        for variable in scope:
            holders[variable].add(leaf)

    def size(scope: Iterable[int]) -> int:
        entries = 1
        for variable in scope:
            entries *= cardinalities[variable]
        return entries

    def merge(left: int, right: int) -> int:
        pair = 2 if right >= 0 else 1
        union = sets[left] | sets[right] if right >= 0 else sets[left]
        node = len(sets)
        private = set()
        for variable in union:
            held = holders[variable]
            held.discard(left)
            held.discard(right)
            if not held:
                private.add(variable)
            held.add(node)
        for variable in private:
            holders[variable].clear()
        scope = union - private
        sets.append(scope)
        tree.scopes.append(tuple(sorted(scope, key=position.__getitem__)))
        tree.children.append((left, right))
        tree.summed.append(tuple(sorted(private, key=position.__getitem__)))
        tree.static.append(tree.static[left] and (pair == 1 or tree.static[right]))
        tree.work.append(size(union))
        return node

    def price(left: int, right: int) -> tuple[int, int, int]:
        union = size(sets[left] | sets[right])
        # the product of constants is made only once, but what it is multiplied with grows
        return union // 8 if tree.static[left] and tree.static[right] else union, left, right

    for variable in order:
        bucket = sorted(holders[variable])
        if len(bucket) == 1:
            merge(bucket[0], -1)
            continue
        while len(bucket) > 1:
            if len(bucket) > 8:
                bucket.sort(key=lambda node: (size(sets[node]), node))
                few = bucket[:8]
            else:
                few = bucket
            if len(few) > 2:
                few = list(min(price(a, b) for i, a in enumerate(few) for b in few[i + 1 :])[1:])
            left, right = few
            bucket.remove(left)
            bucket.remove(right)
            bucket.append(merge(left, right))
    loose = [node for node, scope in enumerate(sets) if not scope]
    used = {child for pair in tree.children for child in pair}
    scalars = sorted((node for node in loose if node not in used), key=lambda node: (not tree.static[node], node))
    root = scalars[0]
    for other in scalars[1:]:
        root = merge(root, other)
    return Contraction(tree.scopes, tree.children, tree.summed, tree.static, tree.work, root)
