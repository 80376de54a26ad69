"""Questions to a directed acyclic graph alone: what can tell about what.

A graph is given by the parents of each node, a sequence of sequences of numbers from 0. All is linear in the number of
nodes and arcs unless it says otherwise. That there is no cycle is checked by `topological_order` alone.
"""

import heapq
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from fastgen.graphical._factors import NetworkError

__all__ = [
    "ancestors",
    "children",
    "d_connected",
    "d_separated",
    "descendants",
    "markov_blanket",
    "moral_graph",
    "topological_order",
]

Parents = Sequence[Sequence[int]]


def children(parents: Parents) -> list[list[int]]:
    """The children of each node, ascending."""
    found: list[list[int]] = [[] for _ in parents]
    for child, its_parents in enumerate(parents):
        for parent in its_parents:
            found[parent].append(child)
    return found


def topological_order(parents: Parents, names: Sequence[Any] | None = None) -> tuple[int, ...]:
    """The nodes, parents before children; among those that may come next, the one with the lowest number.

    Parameters
    ----------
    parents : sequence of sequences of int
    names : sequence, optional
        Of the nodes, for the error.

    Raises
    ------
    NetworkError
        There is a cycle: the error names it.

    Notes
    -----
    O((nodes + arcs) log nodes).
    """
    below, waiting = children(parents), [len(some) for some in parents]
    ready = [node for node, count in enumerate(waiting) if not count]
    order = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for child in below[node]:
            waiting[child] -= 1
            if not waiting[child]:
                heapq.heappush(ready, child)
    if len(order) == len(parents):
        return tuple(order)
    node = next(node for node, count in enumerate(waiting) if count)  # whoever still waits has a parent that does
    walk: dict[int, None] = {}
    while node not in walk:
        walk[node] = None
        node = next(parent for parent in parents[node] if waiting[parent])
    path = list(walk)
    cycle = path[: path.index(node) - 1 if path.index(node) else None : -1]
    lowest = cycle.index(min(cycle))
    cycle = [*cycle[lowest:], *cycle[: lowest + 1]]
    shown = [repr(i if names is None else names[i]) for i in cycle]
    raise NetworkError("there is a cycle: " + " -> ".join(shown), cycle[0])


def ancestors(parents: Parents, nodes: Iterable[int]) -> set[int]:
    """The nodes from which a directed path leads to one of ``nodes``, and these themselves."""
    found = set(nodes)
    waiting = list(found)
    while waiting:
        for node in parents[waiting.pop()]:
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def descendants(parents: Parents, nodes: Iterable[int]) -> set[int]:
    """The nodes to which a directed path leads from one of ``nodes``, and these themselves."""
    return ancestors(children(parents), nodes)


def d_connected(parents: Parents, x: Iterable[int], given: Iterable[int] = ()) -> set[int]:
    """The nodes that ``x`` may tell about once ``given`` is known; those of ``x`` and ``given`` are not among them.

    A path is walked from ``x``: against an arc (`up`) or along it. It passes an unknown node unless both its arcs meet
    there, and a node where they meet if that, or a descendant of it, is known.

    Parameters
    ----------
    parents : sequence of sequences of int
    x, given : iterables of int
        Disjoint.

    Returns
    -------
    set of int

    References
    ----------
    D. Koller, N. Friedman, Probabilistic Graphical Models, 2009, algorithm 3.1; R. Shachter, Bayes-Ball, UAI 1998.
    """
    start, known = set(x), set(given)
    if start & known:
        raise ValueError(f"x and given must be disjoint, but both hold {sorted(start & known)}")
    below, opened = children(parents), ancestors(parents, known)
    visited: set[tuple[int, bool]] = set()
    waiting = [(node, True) for node in start]
    while waiting:
        step = waiting.pop()
        if step in visited:
            continue
        visited.add(step)
        node, up = step
        if node not in known:
            waiting += [(child, False) for child in below[node]]
        if node not in known if up else node in opened:
            waiting += [(parent, True) for parent in parents[node]]
    return {node for node, _ in visited} - start - known


def d_separated(parents: Parents, x: Iterable[int], y: Iterable[int], given: Iterable[int] = ()) -> bool:
    """Whether the arcs alone make ``x`` and ``y`` independent given others.

    Parameters
    ----------
    parents : sequence of sequences of int
    x, y, given : iterables of int
        Disjoint.
    """
    first, second, known = set(x), set(y), set(given)
    if second & (first | known):
        raise ValueError(f"x, y and given must be disjoint, but two of them hold {sorted(second & (first | known))}")
    return second.isdisjoint(d_connected(parents, first, known))


def markov_blanket(parents: Parents, node: int) -> set[int]:
    """Parents, children, and other parents of these: given them, nothing else tells about the node."""
    below = [child for child, its_parents in enumerate(parents) if node in its_parents]
    return {*parents[node], *below, *(other for child in below for other in parents[child])} - {node}


def moral_graph(parents: Parents) -> list[tuple[int, int]]:
    """The edges (i < j), ascending, between nodes that share a factor: parent and child, parents of one child."""
    families = [{child, *its_parents} for child, its_parents in enumerate(parents)]
    return sorted({pair for family in families for pair in combinations(sorted(family), 2)})
