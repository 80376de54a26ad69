"""Numba kernels that turn the scopes of factors into what `junction_tree` runs.

`prepare` and `search` find an order in which variables are eliminated, `contract_tree` the tree of products of two
tables that it gives, `schedule` what of it is needed and what that costs, `lay_out` where each table lies, and
`assemble` the records of contractions and their tables of offsets. Lists of lists are two arrays: members, and where
each list begins.
"""

import math
from typing import Any

import numpy as np

from fastgen._kernels.jit.junction_tree import (
    CELLS,
    IN_LANES,
    K_LANES,
    K_RUNS,
    OP_COLUMNS,
    Z_RUNS,
    Z_TILES,
    fill_offsets,
    intrinsic,
    ir,
    jit,
    types,
)

__all__ = [
    "assemble", "clique_sizes", "contract_tree", "descent", "fill_constants", "greedy_order", "interactions", "lay_out",
    "leaves_of", "prepare", "schedule", "search", "unfolding",
]  # fmt: skip

INNER = 4096  # entries of an inner table of offsets
BEHIND = 64.0  # a rule that does so much worse than another is not tried again
CLOSE = 1.1  # orders with so many times as many states may need less work


# ---- elimination orders ----------------------------------------------------------------------------------------------


def _bit_intrinsic(name: str) -> Any:
    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.ctpop(args[0]) if name == "ctpop" else b.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    def count(typingctx: Any, word: Any) -> tuple[Any, Any]:
        return types.uint64(types.uint64), codegen

    return intrinsic(count)


_popcount = _bit_intrinsic("ctpop")
_trailing_zeros = _bit_intrinsic("cttz")
_ONE = np.uint64(1)
_ZERO = np.uint64(0)


@jit
def _members(word_row: Any, out: Any) -> int:
    count = 0
    for w in range(len(word_row)):
        word = word_row[w]
        while word != _ZERO:
            out[count] = 64 * w + np.int64(_trailing_zeros(word))
            count += 1
            word &= word - _ONE
    return count


@jit
def _common(one: Any, other: Any, weight: Any) -> float:
    """The sum of the weights of the members of both."""
    total = 0.0
    for w in range(len(one)):
        word = one[w] & other[w]
        while word != _ZERO:
            total += weight[64 * w + np.int64(_trailing_zeros(word))]
            word &= word - _ONE
    return total


@jit
def _without(one: Any, other: Any) -> int:
    """The number of members of one that the other does not have."""
    count = 0
    for w in range(len(one)):
        count += int(_popcount(one[w] & ~other[w]))
    return count


@jit
def prepare(n: int, pointers: Any, members_of: Any, log_sizes: Any) -> Any:
    """Eliminate the vertices that need no new edge, smallest cliques first, and count what the rules need of the rest.

    Returns
    -------
    order : int array
        The vertices eliminated.
    total : float
        The states of their cliques.
    core : tuple
        The others; their adjacency as bits, log2 sizes, sum of the sizes of the clique of each, edges that eliminating
        it would add, and the weight of these.
    """
    n_words = max(1, (n + 63) // 64)
    adjacency = np.zeros((n, n_words), np.uint64)
    for s in range(len(pointers) - 1):
        for i in range(pointers[s], pointers[s + 1]):
            for j in range(pointers[s], pointers[s + 1]):
                a, b = members_of[i], members_of[j]
                if a != b:
                    adjacency[a, b >> 6] |= _ONE << np.uint64(b & 63)
    neighbours = np.empty(n, np.int64)
    bag = np.empty(n)
    fill = np.zeros(n, np.int64)
    weighted = np.zeros(n)
    waiting = np.empty(n, np.int64)  # no new edges needed
    n_waiting = 0
    for v in range(n):
        count = _members(adjacency[v], neighbours)
        bag[v] = log_sizes[v]
        for i in range(count):
            bag[v] += log_sizes[neighbours[i]]
        for i in range(count):
            a = neighbours[i]
            fill[v] += _without(adjacency[v], adjacency[a]) - 1
            rest = bag[v] - log_sizes[v] - log_sizes[a] - _common(adjacency[v], adjacency[a], log_sizes)
            weighted[v] += 0.5 * log_sizes[a] * rest
        fill[v] >>= 1
        if fill[v] == 0:
            waiting[n_waiting] = v
            n_waiting += 1
    order = np.empty(n, np.int64)
    left = np.ones(n, np.bool_)
    total = 0.0
    done = 0
    while n_waiting > 0:
        place = 0
        for i in range(1, n_waiting):
            a, b = waiting[i], waiting[place]
            if bag[a] < bag[b] or (bag[a] == bag[b] and a < b):
                place = i
        chosen = waiting[place]
        n_waiting -= 1
        waiting[place] = waiting[n_waiting]
        order[done] = chosen
        done += 1
        left[chosen] = False
        total += 2.0 ** min(bag[chosen], 1000.0)
        own = adjacency[chosen]
        count = _members(own, neighbours)
        for i in range(count):
            a = neighbours[i]
            simple = fill[a] == 0
            _leave(chosen, a, own, adjacency, log_sizes, bag, fill, weighted)
            if fill[a] == 0 and not simple:
                waiting[n_waiting] = a
                n_waiting += 1
    m = n - done
    core = np.empty(m, np.int64)
    number = np.full(n, -1)
    at = 0
    for v in range(n):
        if left[v]:
            core[at] = v
            number[v] = at
            at += 1
    small = np.zeros((m, max(1, (m + 63) // 64)), np.uint64)
    for i in range(m):
        count = _members(adjacency[core[i]], neighbours)
        for j in range(count):
            b = number[neighbours[j]]
            small[i, b >> 6] |= _ONE << np.uint64(b & 63)
    return order[:done], total, (core, small, log_sizes[core], bag[core], fill[core], weighted[core])


@jit
def _leave(v: int, a: int, own: Any, adjacency: Any, log_sizes: Any, bag: Any, fill: Any, weighted: Any) -> None:
    """Take the vertex v, with neighbours `own`, from those of a: what they would have added is not needed any more."""
    adjacency[a, v >> 6] &= ~(_ONE << np.uint64(v & 63))
    bag[a] -= log_sizes[v]
    fill[a] -= _without(adjacency[a], own)
    rest = bag[a] - log_sizes[a] - _common(adjacency[a], own, log_sizes)
    weighted[a] -= log_sizes[v] * rest


@jit
def _greedy(core: Any, start: float, rule: int, seed: int, bound: float, order: Any) -> float:
    _, known, log_sizes, known_bag, known_fill, known_weighted = core
    adjacency, bag, fill, weighted = known.copy(), known_bag.copy(), known_fill.copy(), known_weighted.copy()
    n, n_words = adjacency.shape
    by_weight = rule == 2
    neighbours, affected = np.empty(n, np.int64), np.empty(n, np.int64)
    touched = np.empty(n_words, np.uint64)
    alive = np.arange(n)
    n_alive = n
    scores = np.empty(n)  # inf: eliminated
    for v in range(n):
        scores[v] = _score(v, rule, bag, fill, weighted)
    state = np.uint64(seed * 2 + 1) * np.uint64(0x9E3779B97F4A7C15)
    total = start
    for step in range(n):
        chosen = -1
        best = np.inf
        second = np.inf
        if 8 * (n - step) < 7 * n_alive:  # not each time: that would cost as much as looking at them
            n_alive = 0
            for v in alive:
                if scores[v] < np.inf:
                    alive[n_alive] = v
                    n_alive += 1
            alive = alive[:n_alive]
        close = np.inf
        for v in alive:
            score = scores[v]
            if not score < close:
                continue
            if seed == 0:
                tie = bag[v]
            else:
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                tie = float(state >> np.uint64(11))
            if score < best - 1e-9 or tie < second:
                chosen, best, second = v, score, tie
                close = best + 1e-9
        count = _members(adjacency[chosen], neighbours)
        order[step] = chosen
        total += 2.0 ** min(bag[chosen], 1000.0)
        if total > bound:
            return np.inf
        scores[chosen] = np.inf
        own = adjacency[chosen]
        for i in range(count):
            _leave(chosen, neighbours[i], own, adjacency, log_sizes, bag, fill, weighted)
        if fill[chosen] > 0:
            for w in range(n_words):
                touched[w] = _ZERO
            for i in range(count):
                a = neighbours[i]
                one = adjacency[a]
                for j in range(i + 1, count):
                    b = neighbours[j]
                    if one[b >> 6] & (_ONE << np.uint64(b & 63)):
                        continue
                    other = adjacency[b]
                    weight = log_sizes[a] * log_sizes[b]
                    shared = 0.0
                    only_a = only_b = 0
                    for w in range(n_words):  # those that see both ends have one edge less to add
                        word = one[w] & other[w]
                        only_a += int(_popcount(one[w] ^ word))
                        only_b += int(_popcount(other[w] ^ word))
                        touched[w] |= word
                        while word != _ZERO:
                            both = 64 * w + np.int64(_trailing_zeros(word))
                            word &= word - _ONE
                            fill[both] -= 1
                            if by_weight:
                                weighted[both] -= weight
                                shared += log_sizes[both]
                    fill[a] += only_a
                    fill[b] += only_b
                    if by_weight:
                        weighted[a] += log_sizes[b] * (bag[a] - log_sizes[a] - shared)
                        weighted[b] += log_sizes[a] * (bag[b] - log_sizes[b] - shared)
                    one[b >> 6] |= _ONE << np.uint64(b & 63)
                    other[a >> 6] |= _ONE << np.uint64(a & 63)
                    bag[a] += log_sizes[b]
                    bag[b] += log_sizes[a]
            for i in range(_members(touched, affected)):
                scores[affected[i]] = _score(affected[i], rule, bag, fill, weighted)
        for i in range(count):
            scores[neighbours[i]] = _score(neighbours[i], rule, bag, fill, weighted)
    return total


@jit
def _score(v: int, rule: int, bag: Any, fill: Any, weighted: Any) -> float:
    if fill[v] == 0:
        return -1.0
    if rule == 0:
        return float(fill[v])
    return float(bag[v]) if rule == 1 else float(weighted[v])


@jit
def greedy_order(
    n: int, pointers: Any, members_of: Any, log_sizes: Any, rule: int, seed: int, bound: float, order: Any
) -> float:
    """Eliminate all n vertices, each time the one that a rule finds cheapest; return the number of clique states.

    Vertices that need no new edge go first. Rules: 0, fewest new edges; 1, smallest clique; 2, least sum over new
    edges of the product of their ends' log2 sizes; ties by the size of the clique (seed 0) or at random. Gives up
    (inf) above `bound`.
    """
    first, start, core = prepare(n, pointers, members_of, log_sizes)
    done = len(first)
    order[:done] = first
    total: float = _greedy(core, start, rule, seed, bound, order[done:])
    if total < np.inf:
        for i in range(done, n):
            order[i] = core[0][order[i]]
    return total


@jit
def clique_sizes(n: int, pointers: Any, members_of: Any, sizes: Any, order: Any) -> Any:
    """Return the size of the largest clique of an elimination order, and the states of all that are in no other."""
    n_words = max(1, (n + 63) // 64)
    position = np.empty(n, np.int64)
    for i in range(n):
        position[order[i]] = i
    later = np.zeros((n, n_words), np.uint64)  # of each position, the neighbours eliminated after it
    for s in range(len(pointers) - 1):
        for i in range(pointers[s], pointers[s + 1]):
            for j in range(pointers[s], pointers[s + 1]):
                a, b = position[members_of[i]], position[members_of[j]]
                if a < b:
                    later[a, b >> 6] |= _ONE << np.uint64(b & 63)
    count = np.zeros(n, np.int64)
    parent = np.full(n, -1)
    states = np.empty(n)
    for i in range(n):
        states[i] = sizes[order[i]]
        for w in range(i >> 6, n_words):
            word = later[i, w]
            if word != _ZERO and parent[i] < 0:
                parent[i] = 64 * w + np.int64(_trailing_zeros(word))
            count[i] += int(_popcount(word))
            while word != _ZERO:
                states[i] *= sizes[order[64 * w + np.int64(_trailing_zeros(word))]]
                word &= word - _ONE
        if parent[i] >= 0:
            p = parent[i]
            for w in range(n_words):
                later[p, w] |= later[i, w]
            later[p, p >> 6] &= ~(_ONE << np.uint64(p & 63))
    largest = 0
    total = 0.0
    maximal = np.ones(n, np.bool_)
    for i in range(n):  # the clique of the first of the later ones is within this one, or has a vertex more
        largest = max(largest, count[i] + 1)
        if parent[i] >= 0 and count[parent[i]] == count[i] - 1:
            maximal[parent[i]] = False
    for i in range(n):
        if maximal[i]:
            total += states[i]
    return largest, total


@jit
def interactions(pointers: Any, members_of: Any, kept: Any, free: Any, n_variables: int) -> Any:
    """The scopes of the factors that are kept, free variables only, by their place among these."""
    number = np.full(n_variables, -1)
    for i in range(len(free)):
        number[free[i]] = i
    new_pointers = np.zeros(len(kept) + 1, np.int64)
    new_members = np.empty(len(members_of), np.int64)
    at = 0
    for i in range(len(kept)):
        f = kept[i]
        for j in range(pointers[f], pointers[f + 1]):
            if number[members_of[j]] >= 0:
                new_members[at] = number[members_of[j]]
                at += 1
        new_pointers[i + 1] = at
    return new_pointers, new_members[:at]


# ---- the tree --------------------------------------------------------------------------------------------------------


@jit
def leaves_of(pointers: Any, members_of: Any, kept: Any, gone: Any, indicated: Any, free: Any) -> Any:
    """The scopes of the tables that are multiplied: kept factors without what is gone, indicators, ones for the rest.

    Returns
    -------
    leaf_pointers, leaf_members : int arrays
    static : bool array
        Which do not depend on the evidence.
    ones : int array
        Variables that nothing else has.
    """
    n_variables = len(gone)
    bound = len(members_of) + 2 * n_variables
    leaf_pointers = np.zeros(len(kept) + 2 * n_variables + 2, np.int64)
    leaf_members = np.empty(bound, np.int64)
    static = np.ones(len(kept) + 2 * n_variables + 2, np.bool_)
    seen = np.zeros(n_variables, np.bool_)
    n = at = 0
    for f in kept:
        for i in range(pointers[f], pointers[f + 1]):
            v = members_of[i]
            if gone[v]:
                static[n] = False
            else:
                leaf_members[at] = v
                at += 1
                seen[v] = True
        n += 1
        leaf_pointers[n] = at
    for v in indicated:
        leaf_members[at] = v
        at += 1
        seen[v] = True
        static[n] = False
        n += 1
        leaf_pointers[n] = at
    ones = np.empty(len(free), np.int64)
    n_ones = 0
    for v in free:
        if not seen[v]:
            ones[n_ones] = v
            n_ones += 1
            leaf_members[at] = v
            at += 1
            n += 1
            leaf_pointers[n] = at
    if n == 0:
        n = 1
    return leaf_pointers[: n + 1], leaf_members[:at], static[:n], ones[:n_ones]


@jit
def _union(pointers: Any, pool: Any, left: int, right: int, position: Any, out: Any) -> int:
    """The members of two lists that are sorted by position, each once, in the same order."""
    i, i_end = pointers[left], pointers[left + 1]
    j, j_end = 0, 0
    if right >= 0:
        j, j_end = pointers[right], pointers[right + 1]
    count = 0
    while i < i_end or j < j_end:
        if j >= j_end:
            out[count] = pool[i]
            i += 1
        elif i >= i_end or position[pool[j]] < position[pool[i]]:
            out[count] = pool[j]
            j += 1
        else:
            out[count] = pool[i]
            if pool[j] == pool[i]:
                j += 1
            i += 1
        count += 1
    return count


@jit
def _union_size(pointers: Any, pool: Any, left: int, right: int, position: Any, sizes: Any) -> float:
    """The product of the sizes of `_union`."""
    i, i_end = pointers[left], pointers[left + 1]
    j, j_end = pointers[right], pointers[right + 1]
    total = 1.0
    while i < i_end or j < j_end:
        if j >= j_end:
            total *= sizes[pool[i]]
            i += 1
        elif i >= i_end or position[pool[j]] < position[pool[i]]:
            total *= sizes[pool[j]]
            j += 1
        else:
            total *= sizes[pool[i]]
            if pool[j] == pool[i]:
                j += 1
            i += 1
    return total


@jit
def _longer(array: Any, length: int) -> Any:
    if len(array) >= length:
        return array
    more = np.empty(2 * length, np.int64)
    more[: len(array)] = array
    return more


@jit
def contract_tree(sizes: Any, leaf_pointers: Any, leaf_members: Any, static_leaves: Any, order: Any) -> Any:
    """Build the tree of `fastgen.graphical._triangulation.contract`.

    Sizes are floats: exact to 2^53.

    Returns
    -------
    pointers, scopes : int arrays
        The variables of each table.
    summed_pointers, summed : int arrays
    left, right : int arrays
        Children, -1 where there is none.
    static : bool array
    work, entries : float arrays
        Multiplications for each table, and its size. The root is the last.
    """
    n_variables = len(sizes)
    n_leaves = len(static_leaves)
    most = 3 * n_leaves + n_variables + 2
    position = np.zeros(n_variables, np.int64)
    for i in range(len(order)):
        position[order[i]] = i
    pointers = np.zeros(most + 1, np.int64)
    summed_pointers = np.zeros(most + 1, np.int64)
    left = np.full(most, -1)
    right = np.full(most, -1)
    static = np.zeros(most, np.bool_)
    dead = np.zeros(most, np.bool_)
    work = np.zeros(most)
    entries = np.ones(most)
    pool = np.empty(4 * len(leaf_members) + 64, np.int64)
    following = np.empty(len(pool), np.int64)  # tables of a variable: a list through the pool
    owner = np.empty(len(pool), np.int64)
    head = np.full(n_variables, -1)
    held = np.zeros(n_variables, np.int64)
    summed = np.empty(n_variables + 1, np.int64)
    union = np.empty(n_variables + 1, np.int64)
    n = n_leaves
    at = 0
    for leaf in range(n_leaves):  # insertion sort by position: scopes are short
        start = at
        for i in range(leaf_pointers[leaf], leaf_pointers[leaf + 1]):
            v = leaf_members[i]
            j = at
            while j > start and position[pool[j - 1]] > position[v]:
                pool[j] = pool[j - 1]
                j -= 1
            pool[j] = v
            at += 1
            entries[leaf] *= sizes[v]
        for i in range(start, at):
            v = pool[i]
            following[i] = head[v]
            owner[i] = leaf
            head[v] = i
            held[v] += 1
        pointers[leaf + 1] = at
        static[leaf] = static_leaves[leaf]
    n_summed = 0
    bucket = np.empty(most, np.int64)
    for step in range(len(order) + 1):
        k = 0
        if step < len(order):
            entry = head[order[step]]
            while entry >= 0:
                if not dead[owner[entry]]:
                    bucket[k] = owner[entry]
                    k += 1
                entry = following[entry]
            for i in range(k // 2):  # the latest came first
                bucket[i], bucket[k - 1 - i] = bucket[k - 1 - i], bucket[i]
        else:  # what is left has no variables: constants first
            for constant in range(2):
                for node in range(n):
                    if not dead[node] and static[node] == (constant == 0):
                        bucket[k] = node
                        k += 1
        alone = k == 1 and step < len(order)
        while k > 1 or alone:
            a, b = bucket[0], -1
            if step == len(order):
                b = bucket[1]
            elif not alone:
                few = k
                if k > 8:
                    few = 8
                    for i in range(1, k):
                        node = bucket[i]
                        j = i
                        while j > 0 and (
                            entries[bucket[j - 1]] > entries[node]
                            or (entries[bucket[j - 1]] == entries[node] and bucket[j - 1] > node)
                        ):
                            bucket[j] = bucket[j - 1]
                            j -= 1
                        bucket[j] = node
                cheapest = np.inf
                b = bucket[1]
                if few > 2:
                    for i in range(few):
                        for j in range(i + 1, few):
                            one, other = bucket[i], bucket[j]
                            price = _union_size(pointers, pool, one, other, position, sizes)
                            # the product of constants is made only once, but what it is multiplied with grows
                            if static[one] and static[other]:
                                price = math.floor(price / 8)
                            tie = one < a or (one == a and other < b)
                            if price < cheapest or (price == cheapest and tie):
                                cheapest, a, b = price, one, other
            # the product of a and b, summed over what no other table has
            count = _union(pointers, pool, a, b, position, union)
            pool = _longer(pool, at + count)
            following = _longer(following, len(pool))
            owner = _longer(owner, len(pool))
            for i in range(pointers[a], pointers[a + 1]):
                held[pool[i]] -= 1
            dead[a] = True
            static[n] = static[a]
            if b >= 0:
                for i in range(pointers[b], pointers[b + 1]):
                    held[pool[i]] -= 1
                dead[b] = True
                static[n] = static[a] and static[b]
            whole = 1.0
            for i in range(count):
                v = union[i]
                whole *= sizes[v]
                if held[v] == 0:
                    summed[n_summed] = v
                    n_summed += 1
                else:
                    held[v] += 1
                    pool[at] = v
                    owner[at] = n
                    following[at] = head[v]
                    head[v] = at
                    at += 1
                    entries[n] *= sizes[v]
            work[n] = whole
            left[n], right[n] = a, b
            pointers[n + 1] = at
            summed_pointers[n + 1] = n_summed
            place = 0
            for i in range(k):
                if bucket[i] != a and bucket[i] != b:
                    bucket[place] = bucket[i]
                    place += 1
            if step == len(order):  # one scalar after another
                for i in range(place, 0, -1):
                    bucket[i] = bucket[i - 1]
                bucket[0] = n
            else:
                bucket[place] = n
            k = place + 1
            n += 1
            alone = False
    return (
        pointers[: n + 1],
        pool[:at],
        summed_pointers[: n + 1],
        summed[:n_summed],
        left[:n],
        right[:n],
        static[:n],
        work[:n],
        entries[:n],
    )


@jit
def _work_of(tree: Any) -> float:
    """The multiplications up, and down to what is not constant; those among constants count for a quarter."""
    _, _, _, _, left, right, static, work, _ = tree
    total = 0.0
    for node in range(len(left)):
        if left[node] >= 0:
            if static[node]:
                total += 0.25 * work[node]
            else:
                times = 2 - int(static[left[node]])
                if right[node] >= 0 and not static[right[node]]:
                    times += 1
                total += times * work[node]
    return total


@jit
def search(
    core: Any, start: float, first: int, last: int, known: Any, patience: Any, rules: Any, free: Any, tables: Any,
    order: Any,
) -> Any:  # fmt: skip
    """Run rules with each of the seeds [first, last); `order` takes the best order, if better than what is known.

    Of orders whose cliques have about as few states, that is best whose tree (`contract_tree`) needs least work; what
    is done for all evidence at once counts less.

    Parameters
    ----------
    core, start
        See `prepare`.
    known : (float, float)
        States of the cliques and work of what was found before.
    patience : tuple of float
        What an entry of a table costs later, what a run costs, in the same unit, the cost up to which rounds are made
        in any case (if there are as many as a thousandth of that in states), and that up to which they are made at
        most.
    rules : bool array
        Which are used; those that do far worse than the others with seed 0 are taken out.
    free : int array
        The variables.
    tables : tuple
        Sizes, leaves: see `contract_tree`.
    order : int array
        Places in `free`, those that are eliminated before the core first.

    Returns
    -------
    known : (float, float)
    """
    per_state, per_run, least, most = patience
    sizes, leaf_pointers, leaf_members, static_leaves = tables
    fewest, least_work = known
    m, n = len(core[0]), len(order)
    found = np.empty(m, np.int64)
    trial = order.copy()
    totals = np.full(3, np.inf)
    if first == 0:
        same = True
        for size in core[2]:
            same = same and size == core[2][0]
        rules[2] = not same  # otherwise it does what the first one does
    for seed in range(first, last):
        n_rules = 0
        for rule in range(3):
            n_rules += int(rules[rule])
        if seed * per_run * n_rules > min(max(min(least, 1000.0 * fewest), fewest * per_state), most):
            break
        for rule in range(3):
            if not rules[rule]:
                continue
            totals[rule] = _greedy(core, start, rule, seed, (BEHIND if seed == 0 else CLOSE) * fewest, found)
            seen = (rule > 0 and totals[rule] == totals[0]) or (rule > 1 and totals[rule] == totals[1])
            if totals[rule] <= CLOSE * fewest and not seen:  # most likely the same order, otherwise
                fewest = min(fewest, totals[rule])
                for i in range(m):
                    trial[n - m + i] = core[0][found[i]]
                tree = contract_tree(sizes, leaf_pointers, leaf_members, static_leaves, free[trial])
                work = _work_of(tree)
                if work < least_work:
                    least_work = work
                    order[:] = trial
        if seed == 0:
            for rule in range(3):
                rules[rule] = totals[rule] <= BEHIND * fewest
    return fewest, least_work


@jit
def schedule(tree: Any, n_factors: int, indicated: Any, targets: Any, gone: Any, counts: bool) -> Any:
    """Decide which adjoints are needed, where the marginals come from, and what all that costs.

    Returns
    -------
    needed : bool array
    parent : int array
    source : int array
        For each target, the table it comes from: that of its indicator, or the smallest that has it, the nearest to
        the root; -1 where it is gone.
    operations, preparation, constants, cells : float
    """
    pointers, scopes, _, _, left, right, static, work, entries = tree
    n = len(left)
    n_variables = len(gone)
    needed = np.zeros(n, np.bool_)
    parent = np.full(n, -1)
    for node in range(n):
        if left[node] >= 0:
            parent[left[node]] = node
        if right[node] >= 0:
            parent[right[node]] = node
    at = np.full(n_variables, -1)
    for i in range(len(indicated)):
        at[indicated[i]] = n_factors + i
    wanted = np.zeros(n_variables, np.bool_)
    for v in targets:
        wanted[v] = at[v] < 0 and not gone[v]
    for node in range(n):
        for i in range(pointers[node], pointers[node + 1]):
            v = scopes[i]
            if wanted[v] and (at[v] < 0 or entries[node] <= entries[at[v]]):
                at[v] = node
    source = np.empty(len(targets), np.int64)
    for i in range(len(targets)):
        source[i] = -1 if gone[targets[i]] else at[targets[i]]
        if source[i] >= 0:
            needed[source[i]] = True
    for node in range(n):
        if counts:
            first = static[node] and (parent[node] < 0 or not static[parent[node]])
            if first or (node < n_factors and not static[node]):
                needed[node] = True
        if needed[node] and parent[node] >= 0:
            needed[parent[node]] = True
    operations = preparation = constants = cells = 0.0
    for node in range(n):
        room = 8.0 * math.ceil(entries[node] / 8.0)
        children = 0
        if left[node] >= 0 and needed[left[node]]:
            children += 1
        if right[node] >= 0 and needed[right[node]]:
            children += 1
        if static[node]:
            preparation += work[node]
            constants += room
        else:
            operations += work[node]
            cells += room
        if needed[node]:
            operations += work[node] * children
            cells += room
    for origin in source:
        if origin >= 0:
            operations += entries[origin]
    return needed, parent, source, operations, preparation, constants, cells


# ---- the program -----------------------------------------------------------------------------------------------------

# Columns of a contraction before it is assembled. Kinds: to a product from its children; to the adjoint of a child from
# that of the product; to a marginal. `OTHER`: the child, or the variable. A scope is that of a table.
KIND, NODE, OTHER, X_BASE, X_FIXED, X_SCOPE, Y_BASE, Y_FIXED, Y_SCOPE, Z_BASE = range(10)
CALL_COLUMNS = 10
UP, DOWN, OUT = range(3)


@jit
def _call(calls: Any, at: int, kind: int, node: int, other: int, x: Any, y: Any, z: int) -> int:
    calls[at, 0], calls[at, 1], calls[at, 2] = kind, node, other
    calls[at, 3], calls[at, 4], calls[at, 5] = x
    calls[at, 6], calls[at, 7], calls[at, 8] = y
    calls[at, 9] = z
    return at + 1


@jit
def lay_out(
    tree: Any, needed: Any, source: Any, sizes: Any, pointers_of: Any, members_of: Any, kept: Any, gone: Any,
    indicated: Any, targets: Any,
) -> Any:  # fmt: skip
    """Give each table a place: among the constants, where a one comes first, or in the arena.

    Returns
    -------
    base, adjoint : int arrays
        First cells; -1 where there is no adjoint.
    factor_start : int array
        Of each factor that is kept.
    fixed, up, down : int arrays
        Contractions (`assemble`): among constants, and in both directions.
    lambdas, loads, load_variables, outputs, root : int arrays
        See `junction_tree.infer_rows`.
    loading : int array
        The tables that are slices.
    axes, bounds : int arrays
        Tables of offsets for the loads; see `junction_tree.fill_offsets`.
    n_offsets, n_constants, n_cells : int
    """
    pointers, scopes, _, _, left, right, static, _, entries = tree
    n = len(left)
    n_factors = len(kept)
    base = np.empty(n, np.int64)
    adjoint = np.full(n, -1)
    factor_start = np.empty(n_factors, np.int64)
    loading = np.empty(n_factors, np.int64)
    loads = np.empty((n_factors, 6), np.int64)
    load_variables = np.empty((len(members_of), 2), np.int64)
    axes = np.empty((len(members_of), 3), np.int64)
    bounds = np.empty((n_factors, 3), np.int64)
    own = np.zeros(len(sizes), np.int64)
    constants = 8
    cells = n_loads = n_given = n_axes = n_offsets = 0
    for node in range(n):
        size = int(entries[node])
        room = (size + 7) // 8 * 8
        slices = node < n_factors and not static[node]
        if node < n_factors:
            factor_start[node] = constants
        if slices:
            f = kept[node]
            step = 1
            for i in range(pointers_of[f + 1] - 1, pointers_of[f] - 1, -1):
                own[members_of[i]] = step
                step *= sizes[members_of[i]]
            first = n_given
            for i in range(pointers_of[f], pointers_of[f + 1]):
                v = members_of[i]
                if gone[v]:
                    load_variables[n_given, 0], load_variables[n_given, 1] = v, own[v]
                    n_given += 1
            loads[n_loads, 0], loads[n_loads, 1], loads[n_loads, 2] = cells, size, n_offsets
            loads[n_loads, 3], loads[n_loads, 4], loads[n_loads, 5] = constants, first, n_given
            bounds[n_loads, 0], bounds[n_loads, 2] = n_axes, n_offsets
            for i in range(pointers[node], pointers[node + 1]):
                v = scopes[i]
                axes[n_axes, 0], axes[n_axes, 1], axes[n_axes, 2] = sizes[v], own[v], 0
                n_axes += 1
            bounds[n_loads, 1] = n_axes
            loading[n_loads] = node
            n_loads += 1
            n_offsets += 2 * size
            constants += (step + 7) // 8 * 8
        if static[node]:
            base[node] = constants
            constants += room
        else:
            base[node] = cells
            cells += room
    for node in range(n):
        if needed[node] or node == n - 1:
            adjoint[node] = cells
            cells += int(entries[node] + 7) // 8 * 8
    fixed = np.empty((n, CALL_COLUMNS), np.int64)
    up = np.empty((n, CALL_COLUMNS), np.int64)
    down = np.empty((2 * n + len(targets), CALL_COLUMNS), np.int64)
    n_fixed = n_up = n_down = 0
    one = (0, 1, -1)
    for node in range(n):
        a, b = left[node], right[node]
        if a >= 0:
            x = (base[a], int(static[a]), a)
            y = (base[b], int(static[b]), b) if b >= 0 else one
            if static[node]:
                n_fixed = _call(fixed, n_fixed, UP, node, -1, x, y, base[node])
            else:
                n_up = _call(up, n_up, UP, node, -1, x, y, base[node])
    for node in range(n - 1, -1, -1):
        if left[node] >= 0 and needed[node]:
            for side in range(2):
                child, sibling = left[node], right[node]
                if side == 1:
                    child, sibling = sibling, child
                if child >= 0 and needed[child]:
                    y = (base[sibling], int(static[sibling]), sibling) if sibling >= 0 else one
                    n_down = _call(down, n_down, DOWN, node, child, (adjoint[node], 0, node), y, adjoint[child])
    outputs = np.empty((len(targets), 4), np.int64)
    column = 0
    for i in range(len(targets)):
        v, node = targets[i], source[i]
        outputs[i, 0], outputs[i, 1], outputs[i, 2], outputs[i, 3] = -1, sizes[v], column, v
        column += sizes[v]
        if node >= 0:
            outputs[i, 0] = cells
            x = (base[node], int(static[node]), node)
            n_down = _call(down, n_down, OUT, node, v, x, (adjoint[node], 0, node), cells)
            cells += (sizes[v] + 7) // 8 * 8
    starts = np.zeros(len(sizes) + 1, np.int64)
    for v in range(len(sizes)):
        starts[v + 1] = starts[v] + sizes[v]
    lambdas = np.empty((len(indicated), 4), np.int64)
    for i in range(len(indicated)):
        v = indicated[i]
        lambdas[i, 0], lambdas[i, 1], lambdas[i, 2], lambdas[i, 3] = v, base[n_factors + i], sizes[v], starts[v]
    root = np.array([base[n - 1], int(static[n - 1]), adjoint[n - 1]])
    return (
        base,
        adjoint,
        factor_start,
        (fixed[:n_fixed], up[:n_up], down[:n_down]),
        (lambdas, loads[:n_loads], load_variables[:n_given], outputs, root),
        loading[:n_loads],
        (axes[:n_axes], bounds[:n_loads], n_offsets),
        constants,
        cells,
    )


@jit
def unfolding(tree: Any, base: Any) -> Any:
    """The adjoints of what is done once: contractions, and the product of each.

    Derivatives and constants lie at the same places of different arrays: the kernel tells them by the flags.
    """
    _, _, _, _, left, right, static, _, _ = tree
    n = len(left)
    calls = np.empty((2 * n, CALL_COLUMNS), np.int64)
    at = 0
    for node in range(n - 1, -1, -1):
        if left[node] >= 0 and static[node]:
            for side in range(2):
                child, sibling = left[node], right[node]
                if side == 1:
                    child, sibling = sibling, child
                if child >= 0:
                    y = (base[sibling], 1, sibling) if sibling >= 0 else (0, 1, -1)
                    at = _call(calls, at, DOWN, node, child, (base[node], 0, node), y, base[child])
    return calls[:at]


@jit
def _set_steps(pointers: Any, scopes: Any, node: int, sizes: Any, steps: Any) -> None:
    step = 1
    for i in range(pointers[node + 1] - 1, pointers[node] - 1, -1):
        steps[scopes[i]] = step
        step *= sizes[scopes[i]]


@jit
def _clear_steps(pointers: Any, scopes: Any, node: int, steps: Any) -> None:
    for i in range(pointers[node], pointers[node + 1]):
        steps[scopes[i]] = 0


@jit
def _append_axis(axes: Any, first: int, n: int, size: int, a: int, b: int) -> int:
    """Add an axis (size, step in X, step in Y); one that lies behind the last in both tables is made one with it."""
    if size == 1:
        return n
    if n > first and axes[n - 1, 1] == a * size and axes[n - 1, 2] == b * size:
        n -= 1
        size *= axes[n, 0]
    axes[n, 0], axes[n, 1], axes[n, 2] = size, a, b
    return n + 1


@jit
def _entries(axes: Any, first: int, last: int) -> int:
    entries = 1
    for i in range(first, last):
        entries *= axes[i, 0]
    return entries


@jit
def assemble(calls: Any, tree: Any, sizes: Any, lanes: bool, maximum: bool, known: Any) -> Any:
    """Return the records of contractions ``Z[z] = sum over k of X * Y``, and all tables of offsets.

    Terms are added up in the same order in both forms: what is run along in one row decides. Known: axes, bounds and
    number of the offsets that come first.
    """
    pointers, scopes, summed_pointers, summed, _, _, _, _, _ = tree
    first_axes, first_bounds, following = known
    n_axes, n_bounds = len(first_axes), len(first_bounds)
    room = n_axes
    for c in range(len(calls)):
        node = calls[c, NODE]
        room += pointers[node + 1] - pointers[node] + summed_pointers[node + 1] - summed_pointers[node] + 1
    axes = np.empty((room, 3), np.int64)
    axes[:n_axes] = first_axes
    bounds = np.empty((n_bounds + 4 * len(calls), 3), np.int64)
    bounds[:n_bounds] = first_bounds
    records = np.zeros((len(calls), OP_COLUMNS), np.int64)
    x_steps, y_steps = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    inside = np.full(len(sizes), -1)
    for c in range(len(calls)):
        call = calls[c]
        kind, node, other = call[KIND], call[NODE], call[OTHER]
        _set_steps(pointers, scopes, call[X_SCOPE], sizes, x_steps)
        if call[Y_SCOPE] >= 0:
            _set_steps(pointers, scopes, call[Y_SCOPE], sizes, y_steps)
        z_first = n_axes
        if kind == OUT:
            n_axes = _append_axis(axes, z_first, n_axes, sizes[other], x_steps[other], y_steps[other])
            inside[other] = c
        else:
            table = other if kind == DOWN else node
            for i in range(pointers[table], pointers[table + 1]):
                v = scopes[i]
                inside[v] = c
                n_axes = _append_axis(axes, z_first, n_axes, sizes[v], x_steps[v], y_steps[v])
        k_first = n_axes
        for i in range(pointers[node], pointers[node + 1]):
            v = scopes[i]
            if inside[v] != c:
                n_axes = _append_axis(axes, k_first, n_axes, sizes[v], x_steps[v], y_steps[v])
        if kind != OUT:
            for i in range(summed_pointers[node], summed_pointers[node + 1]):
                v = summed[i]
                if inside[v] != c:
                    n_axes = _append_axis(axes, k_first, n_axes, sizes[v], x_steps[v], y_steps[v])
        _clear_steps(pointers, scopes, call[X_SCOPE], x_steps)
        if call[Y_SCOPE] >= 0:
            _clear_steps(pointers, scopes, call[Y_SCOPE], y_steps)
        n_z = _entries(axes, z_first, k_first)
        z_run = k_run = 1
        k_axis = -1
        if k_first > z_first and max(axes[k_first - 1, 1], axes[k_first - 1, 2]) == 1:
            z_run = axes[k_first - 1, 0]
        for i in range(k_first, n_axes):
            size, a, b = axes[i]
            if a <= 1 and b <= 1 and size > k_run:
                k_run, k_axis = size, i
        mode, run, x_run, y_run = CELLS, 1, 0, 0
        if z_run > 1 and (maximum or z_run >= min(8, k_run)):
            mode = Z_RUNS if maximum or z_run > 16 else Z_TILES
            run, x_run, y_run = axes[k_first - 1]
        elif k_run > 1 and not maximum:
            mode = K_RUNS
            run, x_run, y_run = axes[k_axis]
            n_axes -= 1
            for i in range(k_axis, n_axes):
                axes[i] = axes[i + 1]
        z_last = k_first - 1 if mode != CELLS and mode != K_RUNS and not lanes else k_first
        # what is the same for all rows comes first, and what is no vector
        x, y, x_fixed, y_fixed = call[X_BASE], call[Y_BASE], call[X_FIXED], call[Y_FIXED]
        if (lanes and y_fixed == 1) or (not lanes and y_run < x_run):
            x, y, x_fixed, y_fixed, x_run, y_run = y, x, y_fixed, x_fixed, y_run, x_run
            for i in range(z_first, n_axes):
                axes[i, 1], axes[i, 2] = axes[i, 2], axes[i, 1]
        if lanes:
            mode = K_LANES if mode == K_RUNS else IN_LANES
        record = records[c]
        record[0], record[1], record[2], record[3], record[4] = mode, x, x_fixed, y, y_fixed
        record[5], record[6], record[7] = call[Z_BASE], n_z, following
        n_k = _entries(axes, k_first, n_axes)
        n_lo = _entries(axes, z_first, z_last)
        z_cut, k_cut = z_first, k_first
        if lanes:
            record[8], record[9], record[10], record[11], record[12] = x_run, y_run, run, 1, n_k
        else:  # outer and inner axes: the inner ones have few entries
            if n_lo > INNER or n_k > INNER:
                z_cut, k_cut = z_last, n_axes
                n_lo = n_k = 1
                while z_cut > z_first and n_lo * axes[z_cut - 1, 0] <= INNER:
                    z_cut -= 1
                    n_lo *= axes[z_cut, 0]
                while k_cut > k_first and n_k * axes[k_cut - 1, 0] <= INNER:
                    k_cut -= 1
                    n_k *= axes[k_cut, 0]
            n_hi, n_kh = _entries(axes, z_first, z_cut), _entries(axes, k_first, k_cut)
            record[8], record[9], record[10], record[11], record[12] = n_hi, n_lo, run, n_kh, n_k
            record[13] = x_run + y_run
        for part in range(1 if lanes else 0, 4):
            first, last = z_first, z_cut
            if part == 1:
                first, last = z_cut, z_last
            elif part == 2:
                if lanes:
                    continue
                first, last = k_first, k_cut
            elif part == 3:
                first, last = k_cut, n_axes
            bounds[n_bounds, 0], bounds[n_bounds, 1], bounds[n_bounds, 2] = first, last, following
            following += 2 * _entries(axes, first, last)
            n_bounds += 1
    if following > 2147483647:
        raise OverflowError("the tables of offsets have more than 2^31 entries")
    index = np.empty(following, np.int32)
    fill_offsets(axes, bounds[:n_bounds], index)
    return records, index


@jit
def descent(tree: Any, base: Any, sizes: Any) -> Any:
    """How the variables that were summed over get their states, from the root down.

    Returns
    -------
    steps, scopes, offsets : int arrays
        See `junction_tree.infer_rows`.
    """
    pointers, scopes, summed_pointers, summed, left, right, static, _, _ = tree
    n = len(left)
    records = np.empty((n, 12), np.int64)
    room = 0
    for node in range(n):
        room += 2 * (pointers[node + 1] - pointers[node]) + summed_pointers[node + 1] - summed_pointers[node]
    spans = np.empty((room, 3), np.int64)
    axes = np.empty((len(summed), 3), np.int64)
    bounds = np.empty((n, 3), np.int64)
    steps = np.zeros(len(sizes), np.int64)
    inside = np.full(len(sizes), -1)
    n_records = n_spans = n_axes = following = 0
    for node in range(n - 1, -1, -1):
        first, last = summed_pointers[node], summed_pointers[node + 1]
        if left[node] < 0 or first == last:
            continue
        record = records[n_records]
        for i in range(pointers[node], pointers[node + 1]):
            inside[scopes[i]] = node
        axes_first = n_axes
        for i in range(first, last):
            if sizes[summed[i]] > 1:
                axes[n_axes, 0], axes[n_axes, 1], axes[n_axes, 2] = sizes[summed[i]], 0, 0
                n_axes += 1
        for side in range(2):
            table = left[node] if side == 0 else right[node]
            record[4 * side], record[4 * side + 1], record[4 * side + 2] = 0, 1, n_spans
            if table >= 0:
                record[4 * side], record[4 * side + 1] = base[table], int(static[table])
                _set_steps(pointers, scopes, table, sizes, steps)
                for i in range(pointers[table], pointers[table + 1]):
                    v = scopes[i]
                    if inside[v] == node:
                        spans[n_spans, 0], spans[n_spans, 1], spans[n_spans, 2] = v, steps[v], 0
                        n_spans += 1
                axis = axes_first
                for i in range(first, last):
                    if sizes[summed[i]] > 1:
                        axes[axis, 1 + side] = steps[summed[i]]
                        axis += 1
                _clear_steps(pointers, scopes, table, steps)
            record[4 * side + 3] = n_spans
        n_k = _entries(axes, axes_first, n_axes)
        record[8], record[9], record[10] = following, n_k, n_spans
        bounds[n_records, 0], bounds[n_records, 1], bounds[n_records, 2] = axes_first, n_axes, following
        following += 2 * n_k
        step = 1
        for i in range(last - 1, first - 1, -1):
            v = summed[i]
            spans[n_spans, 0], spans[n_spans, 1], spans[n_spans, 2] = v, step, sizes[v]
            step *= sizes[v]
            n_spans += 1
        record[11] = n_spans
        n_records += 1
    if following > 2147483647:
        raise OverflowError("the tables of offsets have more than 2^31 entries")
    index = np.empty(following, np.int32)
    fill_offsets(axes[:n_axes], bounds[:n_records], index)
    return records[:n_records], spans[:n_spans], index


@jit
def fill_constants(
    tables: Any, table_pointers: Any, pointers_of: Any, members_of: Any, kept: Any, tree: Any, sizes: Any, starts: Any,
    logs: bool, constants: Any,
) -> Any:  # fmt: skip
    """Write the tables of factors among the constants, the largest entry of each in [1/2, 1), or their logarithms.

    Axes are in the order of the tree, but those of slices in their own.

    Returns
    -------
    taken : int
        The sum of the exponents taken out.
    spread, widest : float
        The log2 of 1 over the least positive entry: of all tables together, and the most of one.
    """
    pointers, scopes, _, _, _, _, static, _, _ = tree
    taken = 0
    spread = widest = 0.0
    steps = np.zeros(len(sizes), np.int64)
    longest = 1
    for f in kept:
        longest = max(longest, pointers_of[f + 1] - pointers_of[f])
    at, step_of, size_of = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    for leaf in range(len(kept)):
        f = kept[leaf]
        table = tables[table_pointers[f] : table_pointers[f + 1]]
        peak, least = 0.0, np.inf
        for value in table:
            peak = max(peak, value)
            if value > 0.0:
                least = min(least, value)
        _, exponent = math.frexp(peak)
        taken += exponent
        if peak > 0.0:
            spread += exponent - math.log2(least)
            widest = max(widest, exponent - math.log2(least))
        # 2^1074 is no number; what is made larger is exact in two steps
        half = exponent // 2 if exponent < -1000 else 0
        one, two = math.ldexp(1.0, half - exponent), math.ldexp(1.0, -half)
        n_axes = pointers_of[f + 1] - pointers_of[f]
        place = constants[starts[leaf] : starts[leaf] + len(table)]
        same = True
        if static[leaf]:
            _set_steps(pointers, scopes, leaf, sizes, steps)
            for i in range(n_axes):
                v = members_of[pointers_of[f] + i]
                step_of[i], size_of[i], at[i] = steps[v], sizes[v], 0
                same = same and scopes[pointers[leaf] + i] == v
        if same or n_axes < 2:
            for cell in range(len(table)):
                place[cell] = _log(table[cell]) if logs else table[cell] * one * two
            continue
        to = 0
        inner, inner_step = size_of[n_axes - 1], step_of[n_axes - 1]
        for first in range(0, len(table), inner):
            for i in range(inner):
                value = table[first + i]
                place[to + i * inner_step] = _log(value) if logs else value * one * two
            axis = n_axes - 2
            while axis >= 0:
                at[axis] += 1
                to += step_of[axis]
                if at[axis] < size_of[axis]:
                    break
                to -= at[axis] * step_of[axis]
                at[axis] = 0
                axis -= 1
    return taken, spread, widest


@jit
def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -np.inf
