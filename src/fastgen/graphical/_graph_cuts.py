"""Minimum cuts: the exact most probable states of binary models that are submodular, and alpha-expansion on them.

Energies are minus log-potentials; +inf marks what is impossible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from fastgen._validation import Array

__all__ = ["Cut", "Expansion", "alpha_expansion", "graph_cut", "minimum_cut"]

Index = NDArray[np.intp]
Codes = NDArray[np.int32]
Flags = NDArray[np.bool_]

_BITS = 29  # capacities of scipy's maximum flow are int32, and two opposite ones are added
_MAX_ROUNDS = 12
_SLACK = 1e-12  # how far, of the energies involved, rounding may push an edge beyond submodular


@dataclass(frozen=True)
class Cut:
    """States of least energy of a binary model.

    Attributes
    ----------
    states : int array (n,)
    gap : float
        How far their energy may be from the least: 0, or the rounding of the capacities' sums.
    """

    states: Codes
    gap: float


@dataclass(frozen=True)
class Expansion:
    """The result of alpha-expansion.

    Attributes
    ----------
    states : int array (n,)
    energies : tuple of float
        At the start, and after each expansion that lowered it.
    n_cycles : int
    converged : bool
        Whether no expansion of any label lowers the energy further.
    """

    states: Codes
    energies: tuple[float, ...]
    n_cycles: int
    converged: bool


def minimum_cut(
    source: Array, sink: Array, edges: NDArray[Any], forward: Array, backward: Array
) -> tuple[Flags, float]:
    """Split nodes into those with the source and those with the sink, so that the capacity between them is least.

    SciPy's maximum flow (Dinic) takes integers. Capacities are therefore multiplied by a power of two and rounded down,
    which makes each flow one that is possible. Nodes that the flow leaves no doubt about are merged with the source or
    the sink; what is left of the other capacities is scaled up and solved again, until nothing is open, or the cut is
    as small as the flow is large, up to the rounding of float64. The range of the capacities does not matter.

    Parameters
    ----------
    source, sink : arrays (n,)
        Capacities of source -> node and node -> sink, not negative; inf is allowed here and below.
    edges : int array (m, 2)
    forward, backward : arrays (m,)
        Capacities of edges[:, 0] -> edges[:, 1] and back.

    Returns
    -------
    with_source : bool array (n,)
    gap : float
        Capacity of the cut less the flow: at most so much might be saved.

    Raises
    ------
    OverflowError
        If the sum of the finite capacities is infinite.
    """
    n = len(source)
    tails, heads = edges[:, 0], edges[:, 1]
    with np.errstate(over="ignore"):
        finite = [np.where(np.isinf(part), 0.0, part) for part in (source, sink, forward, backward)]
        plenty = 2.0 * sum(float(part.sum()) for part in finite) + 1.0
    if not np.isfinite(plenty):
        raise OverflowError("the sum of the energies is infinite: divide them by some number")
    forward, backward = (np.where(np.isinf(part), plenty, part) for part in (forward, backward))
    # no more can flow through a node than its other arcs let through, so that evidence does not coarsen the scale
    around = np.bincount(tails, forward + backward, n) + np.bincount(heads, forward + backward, n)
    least = max((float(part.max(initial=0.0)) for part in finite), default=0.0) or 1.0
    limits = [np.minimum(plenty, 2.0 * (around + other) + least) for other in (finite[1], finite[0])]
    source, sink = (np.where(np.isinf(part), limit, part) for part, limit in zip((source, sink), limits, strict=True))
    through = np.minimum(source, sink)
    source, sink = source - through, sink - through

    begin = np.concatenate([np.full(n, n), np.arange(n), tails, heads])
    end = np.concatenate([np.arange(n), np.full(n, n + 1), heads, tails])
    residual = csr_array((np.concatenate([source, sink, forward, backward]), (begin, end)), (n + 2, n + 2))
    tolerance = np.finfo(np.float64).eps * float(np.minimum(source.sum(), sink.sum()))
    answer = np.zeros(n, np.bool_)
    open_nodes = np.arange(n)  # the others are decided, and merged with the source or the sink: the last two nodes
    cut = np.arange(n + 2) == n
    gap = _capacity(residual, cut)
    for _ in range(_MAX_ROUNDS):
        if gap <= tolerance:
            break
        k = len(open_nodes)
        top = min(2.0 * gap, float(residual.data.max()))  # what is larger is never full
        _, exponent = np.frexp(top)
        scaled = np.ldexp(np.minimum(residual.data, top), _BITS - exponent)
        whole = csr_array((scaled.astype(np.int32), residual.indices, residual.indptr), residual.shape)
        flow = maximum_flow(whole, k, k + 1).flow
        left = whole - flow
        left.data = np.maximum(left.data, 0)
        found = _reached(left, k)
        residual = csr_array(residual - flow.astype(np.float64) * float(np.ldexp(1.0, exponent - _BITS)))
        gap, best = _capacity(residual, cut), _capacity(residual, found)
        if best < gap:
            cut, gap = found, best
        elif not flow.data.any():
            break
        answer[open_nodes] = cut[:k]
        # an arc that could take more than what may be left to flow is in no minimum cut: it joins its ends
        strong = csr_array((np.where(residual.data > gap, 1, 0), residual.indices, residual.indptr), residual.shape)
        before, after = _reached(strong, k), _reached(csr_array(strong.T), k + 1)
        undecided = ~(before | after)
        answer[open_nodes[before[:k]]] = True
        answer[open_nodes[after[:k]]] = False
        open_nodes = open_nodes[undecided[:k]]
        number = np.where(before, len(open_nodes), len(open_nodes) + 1)
        number[undecided] = np.arange(len(open_nodes))
        begin, end = np.repeat(number, np.diff(residual.indptr)), number[residual.indices]
        inner = (begin < len(open_nodes)) & (end != len(open_nodes))
        inner |= (begin == len(open_nodes)) & (end < len(open_nodes))
        shape = len(open_nodes) + 2, len(open_nodes) + 2
        cut = np.concatenate([cut[:k][undecided[:k]], [True, False]])
        residual = csr_array((residual.data[inner], (begin[inner], end[inner])), shape)
        gap = _capacity(residual, cut)
    return answer, gap


def _capacity(graph: Any, with_source: Flags) -> float:
    """What leaves a set of nodes."""
    leaving = np.repeat(with_source, np.diff(graph.indptr)) & ~with_source[graph.indices]
    return float(graph.data[leaving].sum())


def _reached(graph: Any, start: int) -> Flags:
    """Which nodes can be reached along arcs that are not 0."""
    graph = csr_array(graph, copy=True)  # others may have its indices, too
    graph.eliminate_zeros()
    found = np.zeros(graph.shape[0], np.bool_)
    found[cast(Any, breadth_first_order)(graph, start, return_predecessors=False)] = True
    return found


def graph_cut(unary: Array, edges: NDArray[Any], tables: Array) -> Cut:
    """Find states that minimise ``sum_i unary[i, x_i] + sum_e tables[e, x_i, x_j]``, exactly.

    Parameters
    ----------
    unary : array (n, 2)
        Energies; +inf forbids a state.
    edges : int array (m, 2)
    tables : array (m or 1, 2, 2)
        Energies of the edges; +inf forbids a pair.

    Returns
    -------
    Cut

    Raises
    ------
    ValueError
        If an edge is not submodular, E(0, 1) + E(1, 0) >= E(0, 0) + E(1, 1), which is named; if no states are possible.

    References
    ----------
    V. Kolmogorov, R. Zabih, What energy functions can be minimized via graph cuts?, PAMI 26(2), 2004, section 4.
    """
    tables = np.array(np.broadcast_to(tables, (len(edges), 2, 2)))
    cost = np.array(unary)
    i, j = edges[:, 0], edges[:, 1]
    if np.isinf(tables).any():
        _move_to_nodes(tables, edges, cost)
    # E(x, y) = E(0, 0) + first x + second y + forward (1 - x) y + backward x (1 - y)
    e00, e01, e10, e11 = tables.reshape(-1, 4).T
    with np.errstate(invalid="ignore"):
        first = np.where(e10 < np.inf, e10 - e00, np.where(e01 < np.inf, e11 - e01, e11 - e00))
        second = e11 - e00 - first
        forward, backward = e01 - e00 - second, np.where(e10 < np.inf, 0.0, np.inf)
        forward[(e01 < np.inf) & (e10 == np.inf)] = 0.0
        slack = np.where(forward < 0, _SLACK * np.abs(tables).sum(axis=(1, 2)), 0.0)
        wrong = np.flatnonzero(~((forward >= -slack) & (e00 < np.inf) & (e11 < np.inf)))
    if len(wrong):
        e = int(wrong[0])
        raise ValueError(
            f"edge {e}, ({i[e]}, {j[e]}), is not submodular: its energies {tables[e].tolist()} must have "
            "E(0, 1) + E(1, 0) >= E(0, 0) + E(1, 1), as those of neighbours that prefer equal states"
        )
    forward = np.maximum(forward, 0.0)
    cost[:, 1] += np.bincount(i, first, len(cost)) + np.bincount(j, second, len(cost))
    none = np.isinf(cost).all(axis=1)
    if none.any():
        raise ValueError(f"no states are possible: node {int(np.flatnonzero(none)[0])} has none left")
    least = cost.min(axis=1, keepdims=True)
    with_source, gap = minimum_cut(cost[:, 1] - least[:, 0], cost[:, 0] - least[:, 0], edges, forward, backward)
    return Cut(np.where(with_source, 0, 1).astype(np.int32), gap)


def _move_to_nodes(tables: Array, edges: NDArray[Any], cost: Array) -> None:
    """Where a whole row or column is +inf, forbid that state in ``cost`` instead, and let its entries cost nothing."""
    for axis in (0, 1, 0, 1):  # again: what is left of a column may be a whole row
        rows = tables if axis == 0 else tables.transpose(0, 2, 1)
        for state in (0, 1):
            gone = np.isinf(rows[:, state]).all(axis=1)
            cost[edges[gone, axis], state] = np.inf
            rows[gone, state] = rows[gone, 1 - state]
            gone &= np.isinf(rows[:, state]).all(axis=1)
            cost[edges[gone, axis], 1 - state] = np.inf
            rows[gone] = 0.0


def alpha_expansion(
    unary: Array,
    edges: NDArray[Any],
    table: Callable[[NDArray[Any], NDArray[Any]], Array],
    energy: Callable[[Codes], float],
    start: Codes,
    max_cycles: int = 100,
) -> Expansion:
    """Lower an energy of many labels by expansions: in each, every node keeps its label or takes alpha, optimally.

    Parameters
    ----------
    unary : array (n, K)
        Energies of the labels.
    edges : int array (m, 2)
    table : callable
        From labels (m,) of the first and of the second nodes to the energies (m,) of all edges.
    energy : callable
        From labels (n,) to their energy: a move is taken only if this falls.
    start : int array (n,)
    max_cycles : int
        The most rounds over all labels.

    Returns
    -------
    Expansion
        For the Potts model, at most twice the least energy if unary energies are not negative.

    Raises
    ------
    ValueError
        If an expansion is not submodular: the tables are no metric.

    References
    ----------
    Y. Boykov, O. Veksler, R. Zabih, Fast approximate energy minimization via graph cuts, PAMI 23(11), 2001.
    """
    n, K = unary.shape
    states = start.astype(np.int32)
    energies = [energy(states)]
    i, j = edges[:, 0], edges[:, 1]
    nodes = np.arange(n)
    idle = 0  # expansions in a row that changed nothing
    for cycle in range(max_cycles):
        for alpha in range(K):
            if idle >= K:
                return Expansion(states, tuple(energies), cycle + 1, True)
            own = states != alpha  # the others have nothing to decide
            if not own.any():
                idle += 1
                continue
            number = np.cumsum(own) - 1
            first, second = states[i], states[j]
            alphas = np.full(len(edges), alpha, np.int32)
            pairs = np.stack(
                [table(first, second), table(first, alphas), table(alphas, second), table(alphas, alphas)], axis=1
            ).reshape(-1, 2, 2)
            cost = np.stack([unary[nodes, states], unary[:, alpha]], axis=1)
            left, right = own[i], own[j]
            only = left & ~right
            np.add.at(cost, i[only], pairs[only][:, :, 1])
            only = right & ~left
            np.add.at(cost, j[only], pairs[only][:, 1, :])
            free = left & right
            try:
                cut = graph_cut(cost[own], number[edges[free]], pairs[free])
            except ValueError as error:
                raise ValueError(
                    f"the expansion of label {alpha} failed: alpha-expansion needs tables with "
                    f"E(a, b) + E(b, c) >= E(a, c) + E(b, b), a metric (in numbers among the other nodes, {error})"
                ) from error
            moved = np.array(states)
            moved[own] = np.where(cut.states == 1, alpha, states[own])
            value = energy(moved)
            if value < energies[-1]:
                states, idle = moved, 0
                energies.append(value)
            else:
                idle += 1
    return Expansion(states, tuple(energies), max_cycles, idle >= K)
