"""Scores, tests and moves for learning the structure of networks. Numba: nothing is checked twice.

Cells and counts are those of `counting`. The cells of a family are those of its parents split by the child: those with
the same states of the parents follow each other, group[j] to group[j + 1].
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ADD, DELETE, REVERSE = 0, 1, 2


def _count_zeros(typing_context: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], context.get_constant(types.boolean, True))

    return types.int64(types.uint64), code


_lowest: Any = intrinsic(_count_zeros)
"""The number of the lowest bit that is set, of a word that is not 0."""


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
def score_pairs(counts, first, cardinality, dirichlet, parameters, out):  # type: ignore[no-untyped-def]
    """out[y] <- `score_additions` of each y without parents, from the counts of all pairs of states."""
    V = len(cardinality)
    group = np.zeros(2, np.int64)
    for y in range(V):
        states = cardinality[y]
        group[1] = states
        own = counts[first[y] : first[y] + states]
        score_additions(own, group, first, cardinality, states, 1.0, dirichlet, parameters[y], 0, V, out[y])


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


# ---- moves -----------------------------------------------------------------------------------------------------------
#
# A graph is two sets of bits for each variable: parents[y], children[x]. The tuple `graph` holds (parents, children,
# ancestors, degree): sets (V, words), and the number of parents (V,). `rules`: (allowed, required, most), where
# allowed[y, x] and required[y, x] are about the arc x -> y, and no variable may have more than `most` parents.
#
# The tuple `store` remembers families: (place, which, members, own, change, top). Slot s holds the family of variable
# which[s] with the parents members[s], its score own[s], and change[s, x], by which the score changes when x is added
# to the parents or taken from them; top[s] is the largest of those that add. place: a hash table of slots, -1: free.


@jit
def _has(sets, y, x):  # type: ignore[no-untyped-def]
    return (sets[y, x >> 6] >> numba.uint64(x & 63)) & numba.uint64(1) != 0


@jit
def _toggle(sets, y, x):  # type: ignore[no-untyped-def]
    sets[y, x >> 6] ^= numba.uint64(1) << numba.uint64(x & 63)


@jit
def find_ancestors(graph, waiting, order):  # type: ignore[no-untyped-def]
    """ancestors[y] <- the set of y's ancestors. Returns whether there is no cycle."""
    _, children, ancestors, degree = graph
    V, words = ancestors.shape
    known = 0
    for y in range(V):
        waiting[y] = degree[y]
        if degree[y] == 0:
            order[known] = y
            known += 1
    ancestors[:] = 0
    done = 0
    while done < known:
        x = order[done]
        done += 1
        for word in range(words):
            left = children[x, word]
            while left:
                y = (word << 6) + _lowest(left)
                left &= left - numba.uint64(1)
                for w in range(words):
                    ancestors[y, w] |= ancestors[x, w]
                ancestors[y, x >> 6] |= numba.uint64(1) << numba.uint64(x & 63)
                waiting[y] -= 1
                if waiting[y] == 0:
                    order[known] = y
                    known += 1
    return known == V


@jit
def _legal(kind, x, y, graph, rules):  # type: ignore[no-untyped-def]
    """Whether the arc x -> y may be added, deleted or reversed."""
    parents, _, ancestors, degree = graph
    allowed, required, most = rules
    if kind == ADD:
        return (
            x != y
            and not _has(parents, y, x)
            and allowed[y, x]
            and degree[y] < most
            and not _has(ancestors, x, y)
        )
    if not _has(parents, y, x) or required[y, x]:
        return False
    if kind == DELETE:
        return True
    if not allowed[x, y] or degree[x] >= most:
        return False
    for word in range(parents.shape[1]):  # another way from x to y would close a cycle
        left = parents[y, word]
        while left:
            z = (word << 6) + _lowest(left)
            left &= left - numba.uint64(1)
            if z != x and _has(ancestors, z, x):
                return False
    return True


@jit
def _make(kind, x, y, graph, row):  # type: ignore[no-untyped-def]
    parents, children, _, degree = graph
    _toggle(parents, y, x)
    _toggle(children, x, y)
    degree[y] += 1 if kind == ADD else -1
    row[y] = -1
    if kind == REVERSE:
        _toggle(parents, x, y)
        _toggle(children, y, x)
        degree[x] += 1
        row[x] = -1


@jit
def disturb(moves, graph, rules, row, waiting, order):  # type: ignore[no-untyped-def]
    """Make the first of the moves (kind, x, y) that is legal, if any is."""
    for i in range(len(moves)):
        kind, x, y = moves[i]
        if _legal(kind, x, y, graph, rules):
            _make(kind, x, y, graph, row)
            find_ancestors(graph, waiting, order)
            return


@jit
def _find(y, members, store):  # type: ignore[no-untyped-def]
    """The slot of a family, or -1; and where it would go in the hash table."""
    place, which, sets = store[0], store[1], store[2]
    last = numba.uint64(len(place) - 1)
    at = numba.uint64(y + 1) * numba.uint64(0x9E3779B97F4A7C15)
    for word in members:
        at = (at ^ word) * numba.uint64(0xD6E8FEB86659FD93)
        at ^= at >> numba.uint64(32)
    at &= last
    while place[at] >= 0:
        slot = place[at]
        same = which[slot] == y
        for w in range(len(members)):
            same &= sets[slot, w] == members[w]
        if same:
            return slot, at
        at = (at + numba.uint64(1)) & last
    return -1, at


@jit
def find(y, members, store):  # type: ignore[no-untyped-def]
    """The slot of a family, or -1."""
    return _find(y, members, store)[0]


@jit
def known_scores(y, members, store, changes):  # type: ignore[no-untyped-def]
    """changes[x] <- the score of y without its parent x, for all parents; returns the score with all: NaN if unknown.

    A family's score is known if it, or it without one of its parents, is in the store. `members` is used as work space.
    """
    for word in range(len(members)):
        left = members[word]
        while left:
            bit = left & (~left + numba.uint64(1))
            left ^= bit
            members[word] ^= bit
            changes[(word << 6) + _lowest(bit)] = _known_score(y, members, store)
            members[word] ^= bit
    return _known_score(y, members, store)


@jit
def _known_score(y, members, store):  # type: ignore[no-untyped-def]
    own, change = store[3], store[4]
    slot = _find(y, members, store)[0]
    if slot >= 0:
        return own[slot]
    for word in range(len(members)):
        left = members[word]
        while left:
            bit = left & (~left + numba.uint64(1))
            left ^= bit
            members[word] ^= bit
            slot = _find(y, members, store)[0]
            members[word] ^= bit
            if slot >= 0 and change[slot, (word << 6) + _lowest(bit)] > -math.inf:
                return own[slot] + change[slot, (word << 6) + _lowest(bit)]
    return math.nan


@jit
def remember(slot, y, members, score, changes, allowed, store):  # type: ignore[no-untyped-def]
    """Put a family into a slot that is free."""
    place, which, sets, own, change, top = store
    place[_find(y, members, store)[1]] = slot
    which[slot] = y
    sets[slot] = members
    own[slot] = score
    top[slot] = -math.inf
    for x in range(len(changes)):
        change[slot, x] = changes[x]
        if allowed[y, x] and x != y and not _has(sets, slot, x):
            top[slot] = max(top[slot], changes[x])


@jit
def _best_move(graph, rules, row, store, keys, name, visited, n_visited, margin):  # type: ignore[no-untyped-def]
    """The legal move of largest gain that leads to no graph in `visited`: (gain, kind, x, y); kind -1: there is none.

    Of moves that are equal but for `margin`, which is for rounding, the first in the order (kind, y, x) is taken.
    """
    parents = graph[0]
    change, top = store[4], store[5]
    V, words = parents.shape
    best = -math.inf
    found = (-math.inf, -1, -1, -1)
    for y in range(V):
        if not top[row[y]] > best + margin:
            continue
        for x in range(V):
            value = change[row[y], x]
            if value > best + margin and _legal(ADD, x, y, graph, rules):
                if not _among(name ^ keys[y, x], visited, n_visited):
                    best = value
                    found = (value, ADD, x, y)
    for kind in (DELETE, REVERSE):
        for y in range(V):
            for word in range(words):
                left = parents[y, word]
                while left:
                    x = (word << 6) + _lowest(left)
                    left &= left - numba.uint64(1)
                    value = change[row[y], x]
                    after = name ^ keys[y, x]
                    if kind == REVERSE:
                        value += change[row[x], y]
                        after ^= keys[x, y]
                    if value > best + margin and _legal(kind, x, y, graph, rules):
                        if not _among(after, visited, n_visited):
                            best = value
                            found = (value, kind, x, y)
    return found


@jit
def _among(name, visited, n_visited):  # type: ignore[no-untyped-def]
    taken = False
    for i in range(n_visited):
        taken |= visited[i] == name
    return taken


@jit
def walk(graph, rules, row, store, keys, visited, max_iter, margin, progress, best, best_parents, waiting, order):  # type: ignore[no-untyped-def]
    """Make the best move again and again; return -1 at the end, or a variable whose family is not in the store.

    row[y]: the slot of y's family, -1 if it is to be looked up. visited: names of the last graphs, which are not to be
    visited again; it is as long as the number of moves in a row that may fail to beat the best graph. A graph's name is
    the exclusive or of its arcs' keys. progress: (moves, those since the best graph, whether a move waits for its
    score); best[0]: the best score, NaN at the start.
    """
    parents = graph[0]
    V = len(row)
    tabu = len(visited)
    name = numba.uint64(0)
    for y in range(V):
        for x in range(V):
            if _has(parents, y, x):
                name ^= keys[y, x]
    while True:
        score = 0.0
        for y in range(V):
            if row[y] < 0:
                row[y] = _find(y, parents[y], store)[0]
                if row[y] < 0:
                    return y
            score += store[3][row[y]]
        if not score <= best[0] + margin:
            best[0] = score
            best_parents[:] = parents
            progress[1] = 0
        elif progress[2]:
            progress[1] += 1
        progress[2] = 0
        if progress[0] == max_iter or progress[1] > tabu:
            return -1
        value, kind, x, y = _best_move(
            graph, rules, row, store, keys, name, visited, min(progress[0], tabu), margin
        )
        if kind < 0 or (tabu == 0 and value <= margin):
            return -1
        if tabu:
            visited[progress[0] % tabu] = name
        _make(kind, x, y, graph, row)
        find_ancestors(graph, waiting, order)
        name ^= keys[y, x]
        if kind == REVERSE:
            name ^= keys[x, y]
        progress[0] += 1
        progress[2] = 1
