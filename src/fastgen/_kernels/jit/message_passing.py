"""Messages between variables and factors. Numba: the caller allocates, nothing is checked twice.

The sockets of factor f are first[f] to first[f + 1]: socket e joins it with variable[e]. Its table, in
which the last variable runs fastest, begins at offset[f] and has size[f] entries. A message lies at place[e], one
number for each state, and its largest entry is 1: to_factor (from the variable) and to_variable.
"""

import heapq
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")


@jit
def from_factor(  # type: ignore[no-untyped-def]
    f, first, variable, cardinality, offset, size, table, place, to_factor, maximum, digits, before, out
):
    """out <- all messages of factor f, at their places less that of the first. digits, before: (arity,)."""
    begin, end = first[f], first[f + 1]
    arity = end - begin
    if arity == 0:
        return
    base = place[begin]
    out[: place[end - 1] + cardinality[variable[end - 1]] - base] = 0.0
    digits[:arity] = 0
    for entry in range(offset[f], offset[f] + size[f]):
        value = table[entry]
        if value > 0.0:
            product = 1.0
            for k in range(arity):
                before[k] = product
                product *= to_factor[place[begin + k] + digits[k]]
            product = value
            for k in range(arity - 1, -1, -1):
                at = place[begin + k] + digits[k] - base
                message = product * before[k]
                if maximum:
                    out[at] = max(out[at], message)
                else:
                    out[at] += message
                product *= to_factor[place[begin + k] + digits[k]]
        for k in range(arity - 1, -1, -1):  # the last variable runs fastest
            digits[k] += 1
            if digits[k] < cardinality[variable[begin + k]]:
                break
            digits[k] = 0


@jit
def from_variable(v, sockets, starts, cardinality, place, to_variable, before, to_factor):  # type: ignore[no-untyped-def]
    """to_factor <- all messages of variable v: the product of what the other factors say. Returns whether one is 0."""
    begin, end = starts[v], starts[v + 1]
    K = cardinality[v]
    for s in range(K):
        product = 1.0
        for k in range(begin, end):
            before[k - begin] = product
            product *= to_variable[place[sockets[k]] + s]
        product = 1.0
        for k in range(end - 1, begin - 1, -1):
            to_factor[place[sockets[k]] + s] = product * before[k - begin]
            product *= to_variable[place[sockets[k]] + s]
    dead = False
    for k in range(begin, end):
        dead |= _normalise(to_factor, place[sockets[k]], K)
    return dead


@jit
def _normalise(messages, begin, K):  # type: ignore[no-untyped-def]
    largest = 0.0
    for s in range(begin, begin + K):
        largest = max(largest, messages[s])
    if largest <= 0.0:
        return True
    scale = 1.0 / largest
    for s in range(begin, begin + K):
        messages[s] *= scale
    return False


@jit
def blend(begin, K, new, shift, damping, messages):  # type: ignore[no-untyped-def]
    """messages[begin:] <- new (at begin - shift), scaled and damped. Returns the largest change, -1 if all are 0."""
    if _normalise(new, begin - shift, K):
        return -1.0
    change = 0.0
    for s in range(begin, begin + K):
        value = (1.0 - damping) * new[s - shift] + damping * messages[s]
        change = max(change, abs(value - messages[s]))
        messages[s] = value
    return change


@jit
def flood(  # type: ignore[no-untyped-def]
    start, stop, first, variable, cardinality, offset, size, table, place, to_factor, maximum, damping,
    digits, before, out, to_variable,
):  # fmt: skip
    """to_variable <- messages of the factors start to stop. Returns the largest change, -1 if a message is 0."""
    change = 0.0
    for f in range(start, stop):
        from_factor(
            f, first, variable, cardinality, offset, size, table, place, to_factor, maximum, digits, before, out
        )
        shift = place[first[f]]
        for e in range(first[f], first[f + 1]):
            found = blend(place[e], cardinality[variable[e]], out, shift, damping, to_variable)
            if found < 0.0:
                return -1.0
            change = max(change, found)
    return change


@jit
def all_variables(start, stop, sockets, starts, cardinality, place, to_variable, before, to_factor):  # type: ignore[no-untyped-def]
    """to_factor <- messages of the variables start to stop. Returns whether one is 0."""
    dead = False
    for v in range(start, stop):
        dead |= from_variable(v, sockets, starts, cardinality, place, to_variable, before, to_factor)
    return dead


@jit
def mean_field_sweep(  # type: ignore[no-untyped-def]
    order, sockets, starts, factor_of, first, variable, cardinality, offset, size, log_table, place_of, q, digits, work
):
    """q <- one sweep of coordinate ascent: q_v ~ exp sum over its factors of E log table. work: (largest K,).

    place_of[v]: where q of v begins. Returns the largest change.
    """
    change = 0.0
    for v in order:
        K = cardinality[v]
        work[:K] = 0.0
        for k in range(starts[v], starts[v + 1]):
            mine = sockets[k]
            f = factor_of[mine]
            begin, arity = first[f], first[f + 1] - first[f]
            digits[:arity] = 0
            for entry in range(offset[f], offset[f] + size[f]):
                weight = 1.0
                for j in range(arity):
                    if begin + j != mine:
                        weight *= q[place_of[variable[begin + j]] + digits[j]]
                if weight > 0.0:  # 0 log 0 = 0
                    work[digits[mine - begin]] += weight * log_table[entry]
                for j in range(arity - 1, -1, -1):
                    digits[j] += 1
                    if digits[j] < cardinality[variable[begin + j]]:
                        break
                    digits[j] = 0
        top = -math.inf
        for s in range(K):
            top = max(top, work[s])
        if top == -math.inf:
            continue
        total = 0.0
        for s in range(K):
            work[s] = math.exp(work[s] - top)
            total += work[s]
        for s in range(K):
            value = work[s] / total
            change = max(change, abs(value - q[place_of[v] + s]))
            q[place_of[v] + s] = value
    return change


@jit
def energy_terms(first, variable, cardinality, offset, size, log_table, place_of, q, digits):  # type: ignore[no-untyped-def]
    """Sum over factors of E_q log table; -inf if q gives weight to an entry that is 0."""
    total = 0.0
    for f in range(len(offset)):
        begin, arity = first[f], first[f + 1] - first[f]
        digits[:arity] = 0
        for entry in range(offset[f], offset[f] + size[f]):
            weight = 1.0
            for j in range(arity):
                weight *= q[place_of[variable[begin + j]] + digits[j]]
            if weight > 0.0:
                total += weight * log_table[entry]
            for j in range(arity - 1, -1, -1):
                digits[j] += 1
                if digits[j] < cardinality[variable[begin + j]]:
                    break
                digits[j] = 0
    return total


@jit
def trw_s_pass(  # type: ignore[no-untyped-def]
    order,
    rank,
    starts,
    neighbour,
    edge,
    flipped,
    cardinality,
    unary,
    unary_at,
    pair,
    pair_at,
    share,
    message,
    message_at,
    forward,
    theta,
    states,
):
    """One pass of sequential tree-reweighted message passing (Kolmogorov 2006, figure 3) over energies.

    Nodes in `order`; messages from each node go to the neighbours that come later (forward) or earlier in it.
    message_at[k]: of the message along slot k, into the slot's owner. Returns the lower bound's terms of this pass;
    states: greedy, given the neighbours that come earlier (forward passes).
    """
    bound = 0.0
    n = len(order)
    for step in range(n):
        v = order[step] if forward else order[n - 1 - step]
        K = cardinality[v]
        for s in range(K):
            theta[s] = unary[unary_at[v] + s]
        for k in range(starts[v], starts[v + 1]):
            for s in range(K):
                theta[s] += message[message_at[k] + s]
        if forward:
            best, at = math.inf, 0
            for s in range(K):
                value = unary[unary_at[v] + s]
                for k in range(starts[v], starts[v + 1]):
                    u = neighbour[k]
                    if rank[u] < rank[v]:
                        value += _pair(pair, pair_at[edge[k]], flipped[k], s, states[u], K, cardinality[u])
                    else:
                        value += message[message_at[k] + s]
                if value < best:
                    best, at = value, s
            states[v] = at
        low = math.inf
        for s in range(K):
            low = min(low, theta[s])
        bound += low
        for s in range(K):
            theta[s] -= low
        for k in range(starts[v], starts[v + 1]):
            u = neighbour[k]
            if (rank[u] > rank[v]) != forward:
                continue
            other = message_at[_slot(starts, neighbour, edge, u, edge[k])]
            low = math.inf
            for t in range(cardinality[u]):
                best = math.inf
                for s in range(K):
                    value = share[v] * theta[s] - message[message_at[k] + s]
                    value += _pair(pair, pair_at[edge[k]], flipped[k], s, t, K, cardinality[u])
                    best = min(best, value)
                message[other + t] = best
                low = min(low, best)
            for t in range(cardinality[u]):
                message[other + t] -= low
            bound += low
    return bound


@jit
def _pair(pair, at, flipped, s, t, K, L):  # type: ignore[no-untyped-def]
    return pair[at + t * K + s] if flipped else pair[at + s * L + t]


@jit
def _slot(starts, neighbour, edge, u, e):  # type: ignore[no-untyped-def]
    for k in range(starts[u], starts[u + 1]):
        if edge[k] == e:
            return k
    return -1


@jit
def sequential(  # type: ignore[no-untyped-def]
    first, variable, cardinality, offset, size, table, place, sockets, starts, maximum, damping, digits,
    before, out, to_factor, to_variable,
):  # fmt: skip
    """One sweep over the factors, each with the latest messages. Returns the largest change, -1 if a message is 0."""
    change = 0.0
    for f in range(len(offset)):
        for e in range(first[f], first[f + 1]):
            if from_variable(variable[e], sockets, starts, cardinality, place, to_variable, before, to_factor):
                return -1.0
        found = flood(
            f, f + 1, first, variable, cardinality, offset, size, table, place, to_factor, maximum, damping,
            digits, before, out, to_variable,
        )  # fmt: skip
        if found < 0.0:
            return -1.0
        change = max(change, found)
    return change


@jit
def residual(  # type: ignore[no-untyped-def]
    first, variable, cardinality, offset, size, table, place, sockets, starts, factor_of, maximum, damping,
    digits, before, out, to_factor, to_variable, most, tol,
):  # fmt: skip
    """Update the factor whose messages would change most (Elidan, McGraw, Koller 2006) until none would by `tol`.

    Returns the number of updates and the largest change that is left, -1 if a message is 0.
    """
    n = len(offset)
    pending = np.zeros(n)
    heap = [(0.0, -1)]
    heap.pop()
    for v in range(len(cardinality)):
        if from_variable(v, sockets, starts, cardinality, place, to_variable, before, to_factor):
            return 0, -1.0
    for f in range(n):
        pending[f] = _pending(
            f, first, variable, cardinality, offset, size, table, place, to_factor, maximum, digits, before,
            out, to_variable,
        )  # fmt: skip
        if pending[f] < 0.0:
            return 0, -1.0
        if pending[f] > tol:
            heapq.heappush(heap, (-pending[f], f))
    updates = 0
    while len(heap) > 0 and updates < most:
        value, f = heapq.heappop(heap)
        if -value != pending[f]:
            continue  # an older entry
        updates += 1
        found = flood(
            f, f + 1, first, variable, cardinality, offset, size, table, place, to_factor, maximum, damping,
            digits, before, out, to_variable,
        )  # fmt: skip
        if found < 0.0:
            return updates, -1.0
        pending[f] = found * damping / (1.0 - damping)  # what damping held back
        if pending[f] > tol:
            heapq.heappush(heap, (-pending[f], f))
        for e in range(first[f], first[f + 1]):
            v = variable[e]
            if from_variable(v, sockets, starts, cardinality, place, to_variable, before, to_factor):
                return updates, -1.0
            for k in range(starts[v], starts[v + 1]):
                g = factor_of[sockets[k]]
                if g != f:
                    pending[g] = _pending(
                        g, first, variable, cardinality, offset, size, table, place, to_factor, maximum, digits,
                        before, out, to_variable,
                    )  # fmt: skip
                    if pending[g] < 0.0:
                        return updates, -1.0
                    if pending[g] > tol:
                        heapq.heappush(heap, (-pending[g], g))
    left = 0.0
    for value in pending:
        left = max(left, value)
    return updates, left


@jit
def _pending(  # type: ignore[no-untyped-def]
    f, first, variable, cardinality, offset, size, table, place, to_factor, maximum, digits, before, out,
    to_variable,
):  # fmt: skip
    """How much the messages of factor f would change; -1 if one would be 0."""
    from_factor(f, first, variable, cardinality, offset, size, table, place, to_factor, maximum, digits, before, out)
    change, shift = 0.0, place[first[f]]
    for e in range(first[f], first[f + 1]):
        if _normalise(out, place[e] - shift, cardinality[variable[e]]):
            return -1.0
        for s in range(place[e], place[e] + cardinality[variable[e]]):
            change = max(change, abs(out[s - shift] - to_variable[s]))
    return change


@jit
def bethe(  # type: ignore[no-untyped-def]
    first, variable, cardinality, offset, size, table, place, sockets, starts, digits, before, out, to_factor,
    to_variable,
):  # fmt: skip
    """Bethe's approximation of log Z: sums of log Z over factors and variables, less those over sockets."""
    total = 0.0
    for f in range(len(offset)):
        from_factor(f, first, variable, cardinality, offset, size, table, place, to_factor, False, digits, before, out)
        begin = place[first[f]]
        z = 0.0
        for s in range(cardinality[variable[first[f]]]):
            z += out[s] * to_factor[begin + s]
        total += math.log(z)
    for v in range(len(cardinality)):
        z = 0.0
        for s in range(cardinality[v]):
            product = 1.0
            for k in range(starts[v], starts[v + 1]):
                product *= to_variable[place[sockets[k]] + s]
            z += product
        total += math.log(z)
    for e in range(len(place)):
        z = 0.0
        for s in range(place[e], place[e] + cardinality[variable[e]]):
            z += to_factor[s] * to_variable[s]
        total -= math.log(z)
    return total
