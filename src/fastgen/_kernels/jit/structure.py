"""Scores, tests and moves for learning the structure of networks. Numba: nothing is checked twice.

Cells and counts are those of `counting`. The cells of a family are those of its parents split by the child: those with
the same states of the parents follow each other, group[j] to group[j + 1].
"""

import math
from collections.abc import Callable
from typing import Any

import numba

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ADD, DELETE, REVERSE = 0, 1, 2


@jit
def _x_log_x(x):  # type: ignore[no-untyped-def]
    return x * math.log(x) if x > 0.0 else 0.0


@jit
def score_family(sizes, group, states, configurations, dirichlet, parameter):  # type: ignore[no-untyped-def]
    """The score of a family from the sizes of its cells.

    dirichlet: log p(data) if every cell has the prior count `parameter`; else the log-likelihood less `parameter` for
    each free parameter.
    """
    total = 0.0
    if dirichlet:
        own = math.lgamma(parameter)
        whole = math.lgamma(parameter * states)
        for j in range(len(group) - 1):
            size = 0.0
            for c in range(group[j], group[j + 1]):
                size += sizes[c]
                total += math.lgamma(sizes[c] + parameter) - own
            total += whole - math.lgamma(size + parameter * states)
        return total
    for j in range(len(group) - 1):
        size = 0.0
        for c in range(group[j], group[j + 1]):
            size += sizes[c]
            total += _x_log_x(sizes[c])
        total -= _x_log_x(size)
    return total - parameter * (states - 1) * configurations


@jit
def score_additions(counts, group, first, cardinality, states, configurations, dirichlet, parameter, start, stop, out):  # type: ignore[no-untyped-def]
    """out[i] <- the score of the family with variable i as one more parent, for start <= i < stop.

    parameter: as in `score_family`, but for the Dirichlet prior divided by the states of i if it is negative: minus the
    prior count of a cell without i.
    """
    for i in range(start, stop):
        more = configurations * cardinality[i]
        prior = -parameter / cardinality[i] if dirichlet and parameter < 0.0 else parameter
        total = own = whole = 0.0
        if dirichlet:
            own = math.lgamma(prior)
            whole = math.lgamma(prior * states)
        for j in range(len(group) - 1):
            for column in range(first[i], first[i] + cardinality[i]):
                size = 0.0
                for c in range(group[j], group[j + 1]):
                    count = counts[c, column]
                    if count > 0.0:
                        size += count
                        if dirichlet:
                            total += math.lgamma(count + prior) - own
                        else:
                            total += count * math.log(count)
                if size > 0.0:
                    if dirichlet:
                        total += whole - math.lgamma(size + prior * states)
                    else:
                        total -= size * math.log(size)
        out[i] = total if dirichlet else total - prior * (states - 1) * more


@jit
def pair_information(counts, first, cardinality, out):  # type: ignore[no-untyped-def]
    """out[i, k] += sum N(a, b) log(N(a, b) N / (N(a) N(b))) over the states of i and k, from counts of all pairs."""
    V = len(cardinality)
    total = 0.0
    for a in range(cardinality[0]):
        total += counts[first[0] + a, first[0] + a]
    if total <= 0.0:
        return
    for i in range(V):
        for k in range(i):
            information = 0.0
            for a in range(first[i], first[i] + cardinality[i]):
                for b in range(first[k], first[k] + cardinality[k]):
                    count = counts[a, b]
                    if count > 0.0:
                        information += count * math.log(count / counts[a, a] * (total / counts[b, b]))
            out[i, k] += information
            out[k, i] += information


@jit
def independence(counts, group, first, cardinality, variables, pearson, statistic, freedom):  # type: ignore[no-untyped-def]
    """Tests of a variable, by which each group of cells is split, against others given the group.

    statistic: sum (O - E)^2 / E (Pearson) or 2 sum O log(O / E); freedom: (rows - 1) (columns - 1) summed over the
    groups, without rows and columns that are empty there.
    """
    for k in range(len(variables)):
        i = variables[k]
        total = degrees = 0.0
        for j in range(len(group) - 1):
            size = 0.0
            for c in range(group[j], group[j + 1]):
                for column in range(first[i], first[i] + cardinality[i]):
                    size += counts[c, column]
            rows = columns = 0
            for column in range(first[i], first[i] + cardinality[i]):
                here = 0.0
                for c in range(group[j], group[j + 1]):
                    here += counts[c, column]
                if here <= 0.0:
                    continue
                columns += 1
                rows = 0
                for c in range(group[j], group[j + 1]):
                    row = 0.0
                    for other in range(first[i], first[i] + cardinality[i]):
                        row += counts[c, other]
                    if row <= 0.0:
                        continue
                    rows += 1
                    expected, observed = row * here / size, counts[c, column]
                    if pearson:
                        total += (observed - expected) * (observed - expected) / expected
                    elif observed > 0.0:
                        total += 2.0 * observed * math.log(observed / expected)
            if columns:
                degrees += (rows - 1) * (columns - 1)
        statistic[k] = total
        freedom[k] = degrees


@jit
def find_ancestors(has, ancestors, waiting, order):  # type: ignore[no-untyped-def]
    """ancestors[y] <- the set of y's ancestors, one bit for each, where has[y, x] says that x is a parent of y.

    Returns whether there is no cycle.
    """
    V = len(has)
    known = 0
    for y in range(V):
        waiting[y] = 0
        for x in range(V):
            waiting[y] += has[y, x]
        if waiting[y] == 0:
            order[known] = y
            known += 1
    ancestors[:] = 0
    done = 0
    while done < known:
        x = order[done]
        done += 1
        for y in range(V):
            if has[y, x]:
                for w in range(ancestors.shape[1]):
                    ancestors[y, w] |= ancestors[x, w]
                ancestors[y, x >> 6] |= numba.uint64(1) << numba.uint64(x & 63)
                waiting[y] -= 1
                if waiting[y] == 0:
                    order[known] = y
                    known += 1
    return known == V


@jit
def _is_ancestor(ancestors, x, y):  # type: ignore[no-untyped-def]
    return (ancestors[y, x >> 6] >> numba.uint64(x & 63)) & numba.uint64(1) != 0


@jit
def legal(kind, x, y, has, ancestors, allowed, required, degree, most):  # type: ignore[no-untyped-def]
    """Whether the arc x -> y may be added, deleted or reversed."""
    if kind == ADD:
        return (
            x != y
            and not has[y, x]
            and not has[x, y]
            and allowed[y, x]
            and degree[y] < most
            and not _is_ancestor(ancestors, y, x)
        )
    if not has[y, x] or required[y, x]:
        return False
    if kind == DELETE:
        return True
    if not allowed[x, y] or degree[x] >= most:
        return False
    another = False  # way from x to y: that would close a cycle
    for z in range(len(has)):
        another |= z != x and has[y, z] and _is_ancestor(ancestors, x, z)
    return not another


@jit
def best_move(has, ancestors, allowed, required, degree, most, gain, loss, keys, graph, visited, margin):  # type: ignore[no-untyped-def]
    """The legal move of largest gain that leads to no graph in `visited`: (gain, kind, x, y); kind -1: there is none.

    gain[y, x], loss[y, x]: what adding or deleting x -> y does to y's score. Of moves that are equal but for `margin`,
    which is for rounding, the first in the order (kind, y, x) is taken.
    """
    V = len(has)
    best = -math.inf
    found = (-math.inf, -1, -1, -1)
    for kind in range(3):
        for y in range(V):
            for x in range(V):
                if kind == ADD:
                    value = gain[y, x]
                else:
                    if not has[y, x]:
                        continue
                    value = loss[y, x]
                    if kind == REVERSE:
                        value += gain[x, y]
                if not value > best + margin or not legal(kind, x, y, has, ancestors, allowed, required, degree, most):
                    continue
                after = graph
                if kind != ADD:
                    after ^= keys[y, x]
                if kind != DELETE:
                    after ^= keys[y, x] if kind == ADD else keys[x, y]
                taken = False
                for other in visited:
                    taken |= other == after
                if not taken:
                    best = value
                    found = (value, kind, x, y)
    return found
