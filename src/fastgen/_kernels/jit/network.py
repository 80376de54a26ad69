"""Rows of a discrete network: their probabilities, and draws. Numba: the caller allocates, nothing is checked twice.

A network is flat: node i has the parents parent[first[i] : first[i + 1]] with the strides of their states in its table,
which begins at offset[i]; its own state has stride 1. Rows are taken ROWS at a time, column by column.
"""

from collections.abc import Callable
from typing import Any

import numba

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ROWS = 128


@jit
def log_prob(X, first, parent, stride, cardinality, offset, table, tile, place, start, stop, out):  # type: ignore[no-untyped-def]
    """out[start:stop] <- log p(x) of these rows. tile: (V, ROWS) int32; place: (ROWS,) int32.

    Returns the first row with a code that is no state, or -1.
    """
    V = len(cardinality)
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        for r in range(rows):
            for i in range(V):
                code = X[top + r, i]
                if code < 0 or code >= cardinality[i]:
                    return top + r
                tile[i, r] = code
        total = out[top : top + rows]
        total[:] = 0.0
        for i in range(V):
            for r in range(rows):
                place[r] = offset[i] + tile[i, r]
            for k in range(first[i], first[i + 1]):
                states, step = tile[parent[k]], stride[k]
                for r in range(rows):
                    place[r] += step * states[r]
            for r in range(rows):
                total[r] += table[numba.uint32(place[r])]
    return -1


@jit
def draw(order, first, parent, stride, cardinality, offset, threshold, alias, uniform, tile, work, out):  # type: ignore[no-untyped-def]
    """out (rows, V) <- draws, parents before children, by Walker's alias method. uniform: (V, rows), in [0, 1).

    tile: (V, ROWS) int32; work: (2, ROWS) int32 and float64.
    """
    n = len(out)
    (place, other), (rest, limit) = work
    for top in range(0, n, ROWS):
        rows = min(ROWS, n - top)
        for i in order:
            size, own = cardinality[i], tile[i]
            for r in range(rows):
                place[r] = offset[i]
            for k in range(first[i], first[i + 1]):
                states, step = tile[parent[k]], stride[k]
                for r in range(rows):
                    place[r] += step * states[r]
            for r in range(rows):
                scaled = uniform[i, top + r] * size
                own[r] = numba.int32(scaled)
                rest[r] = scaled - own[r]
                place[r] += own[r]
            for r in range(rows):
                limit[r] = threshold[numba.uint32(place[r])]  # unsigned: no check for indices from the end
                other[r] = alias[numba.uint32(place[r])]
            for r in range(rows):  # a loop of its own: as a branch it would be guessed wrong half of the time
                own[r] = own[r] if rest[r] < limit[r] else other[r]
        for r in range(rows):
            for i in range(len(order)):
                out[top + r, i] = tile[i, r]


@jit
def alias_tables(p, size, threshold, alias, small, large):  # type: ignore[no-untyped-def]
    """Walker's tables (Vose 1991) of distributions that lie one after the other, of `size` states each."""
    for begin in range(0, len(p), size):
        total = 0.0
        best = 0
        for k in range(size):
            total += p[begin + k]
            if p[begin + k] > p[begin + best]:
                best = k
        few = many = 0
        for k in range(size):
            share = p[begin + k] * (size / total)
            threshold[begin + k] = share
            alias[begin + k] = best
            if share < 1.0:
                small[few] = k
                few += 1
            else:
                large[many] = k
                many += 1
        while few and many:
            few -= 1
            low, high = small[few], large[many - 1]
            alias[begin + low] = high
            threshold[begin + high] -= 1.0 - threshold[begin + low]
            if threshold[begin + high] < 1.0:
                many -= 1
                small[few] = high
                few += 1
        # What rounding leaves over has probability 1 for itself, but what is impossible stays so.
        for k in range(many):
            threshold[begin + large[k]] = 1.0
        for k in range(few):
            if p[begin + small[k]] > 0.0:
                threshold[begin + small[k]] = 1.0
