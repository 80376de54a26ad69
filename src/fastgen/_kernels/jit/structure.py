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
# A graph is sets of bits: the tuple `graph` holds (parents, children, descendants, degree), three sets (V, words) for
# each variable, and the number of its parents (V,). `rules`: (allowed, required, most): sets of what may be, or must
# be, among the parents of each, of which there may be no more than `most`.
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
def find_descendants(graph, waiting, order):  # type: ignore[no-untyped-def]
    """descendants[x] <- the set of x's descendants. Returns whether there is no cycle."""
    parents, children, descendants, _ = graph
    V, words = descendants.shape
    known = 0
    for x in range(V):
        waiting[x] = 0
        for word in range(words):
            descendants[x, word] = left = children[x, word]
            while left:
                waiting[x] += 1
                left &= left - numba.uint64(1)
        if waiting[x] == 0:
            order[known] = x
            known += 1
    done = 0
    while done < known:
        y = order[done]
        done += 1
        for word in range(words):
            left = parents[y, word]
            while left:
                x = (word << 6) + _lowest(left)
                left &= left - numba.uint64(1)
                for w in range(words):
                    descendants[x, w] |= descendants[y, w]
                waiting[x] -= 1
                if waiting[x] == 0:
                    order[known] = x
                    known += 1
    return known == V


@jit
def _legal(kind, x, y, graph, rules):  # type: ignore[no-untyped-def]
    """Whether the arc x -> y may be added, deleted or reversed."""
    parents, _, descendants, degree = graph
    allowed, required, most = rules
    if kind == ADD:
        return degree[y] < most and _has(allowed, y, x) and not _has(parents, y, x) and not _has(descendants, y, x)
    if not _has(parents, y, x) or _has(required, y, x):
        return False
    return kind == DELETE or _may_turn(x, y, parents, descendants, degree, allowed, most)


@jit
def _may_turn(x, y, parents, descendants, degree, allowed, most):  # type: ignore[no-untyped-def]
    if not _has(allowed, x, y) or degree[x] >= most:
        return False
    others = False  # a way from x to another parent of y would close a cycle
    for word in range(parents.shape[1]):
        others |= parents[y, word] & descendants[x, word] != 0
    return not others


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
            find_descendants(graph, waiting, order)
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
        if _has(allowed, y, x) and not _has(sets, slot, x):
            top[slot] = max(top[slot], changes[x])


@jit
def _best_move(graph, rules, row, store, keys, name, seen, n_visited, margin):  # type: ignore[no-untyped-def]
    """The legal move of largest gain that leads to no graph in `seen`: (gain, kind, x, y); kind -1: there is none.

    Of moves that are equal but for `margin`, which is for rounding, the first in the order (kind, y, x) is taken.
    """
    best = -math.inf
    for kind in (REVERSE, DELETE, ADD):  # what is quick to see first: then few additions are worth a look
        best = _first_above(kind, best, graph, rules, row, store, keys, name, seen, n_visited, False)[0]
    for kind in (ADD, DELETE, REVERSE):
        found = _first_above(kind, best - margin, graph, rules, row, store, keys, name, seen, n_visited, True)
        if found[1] >= 0:
            return found
    return -math.inf, -1, -1, -1


@jit
def _first_above(kind, least, graph, rules, row, store, keys, name, seen, n_visited, any_will_do):  # type: ignore[no-untyped-def]
    """The first move of a kind that gains more than `least`, or the one that gains most, in the order (y, x)."""
    parents, _, descendants, degree = graph
    allowed, required, most = rules
    change, top = store[4], store[5]
    V, words = parents.shape
    found = (least, -1, -1, -1)
    for y in range(V):
        own = row[y]
        if kind == ADD and (degree[y] >= most or not top[own] > found[0]):
            continue
        for word in range(words):
            if kind == ADD:
                left = allowed[y, word] & ~parents[y, word] & ~descendants[y, word]
            else:
                left = parents[y, word] & ~required[y, word]
            while left:
                x = (word << 6) + _lowest(left)
                left &= left - numba.uint64(1)
                value = change[own, x]
                if kind == REVERSE:
                    value += change[row[x], y]
                if not value > found[0]:
                    continue
                after = name ^ keys[y, x]
                if kind == REVERSE:
                    if not _may_turn(x, y, parents, descendants, degree, allowed, most):
                        continue
                    after ^= keys[x, y]
                if not _among(after, seen, n_visited):
                    found = (value, kind, x, y)
                    if any_will_do:
                        return found
    return found


@jit
def _among(name, seen, n_visited):  # type: ignore[no-untyped-def]
    visited, marks = seen
    if marks[name & numba.uint64(len(marks) - 1)] == 0:
        return False
    taken = False
    for i in range(n_visited):
        taken |= visited[i] == name
    return taken


@jit
def walk(graph, rules, row, store, keys, seen, max_iter, margin, progress, best, best_parents, waiting, order):  # type: ignore[no-untyped-def]
    """Make the best move again and again; return -1 at the end, or a variable whose family is not in the store.

    row[y]: the slot of y's family, -1 if it is to be looked up. seen: (names of the last graphs, which are not to be
    visited again, as many as moves in a row may fail to beat the best graph; how many of them have which last bits). A
    graph's name is the exclusive or of its arcs' keys. progress: (moves, those since the best graph, whether a move
    waits for its score); best[0]: the best score, NaN at the start.
    """
    parents = graph[0]
    visited, marks = seen
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
        value, kind, x, y = _best_move(graph, rules, row, store, keys, name, seen, min(progress[0], tabu), margin)
        if kind < 0 or (tabu == 0 and value <= margin):
            return -1
        if tabu:
            last = numba.uint64(len(marks) - 1)
            at = progress[0] % tabu
            if progress[0] >= tabu:
                marks[visited[at] & last] -= 1
            visited[at] = name
            marks[name & last] += 1
        _make(kind, x, y, graph, row)
        find_descendants(graph, waiting, order)
        name ^= keys[y, x]
        if kind == REVERSE:
            name ^= keys[x, y]
        progress[0] += 1
        progress[2] = 1
