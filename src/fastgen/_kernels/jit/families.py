"""Contingency tables of the families of a network. Numba: the caller allocates, nothing is checked twice.

The layout of networks is that of `network`. Rows are taken ROWS at a time, column by column.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ROWS = 256


@jit
def _load(X, cardinality, top, rows, tile):  # type: ignore[no-untyped-def]
    """tile[i, r] <- X[top + r, i]. Returns the first row with a code that is no state, or -1."""
    for r in range(rows):
        for i in range(len(cardinality)):
            code = X[top + r, i]
            if code < 0 or code >= cardinality[i]:
                return top + r
            tile[i, r] = code
    return -1


@jit
def _places(i, first, parent, stride, offset, tile, place):  # type: ignore[no-untyped-def]
    """place[r] <- where the states of family i lie in its table."""
    own, begin = tile[i], offset[i]
    for r in range(ROWS):
        place[r] = begin + own[r]
    for k in range(first[i], first[i + 1]):
        states, step = tile[parent[k]], stride[k]
        for r in range(ROWS):
            place[r] += step * states[r]


@jit
def count(X, first, parent, stride, cardinality, offset, start, stop, tile, place, counts):  # type: ignore[no-untyped-def]
    """counts (copies, entries) += rows start to stop. tile: (V, ROWS) int32; place: (ROWS,) int32.

    Neighbouring rows are counted in different copies: they often are alike, and an increment must wait for the one
    before it in the same place. Returns the first row with a code that is no state, or -1.
    """
    copies = np.uint32(len(counts))
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = _load(X, cardinality, top, rows, tile)
        if wrong >= 0:
            return wrong
        for i in range(len(cardinality)):
            _places(i, first, parent, stride, offset, tile, place)
            if copies == 4:
                a, b, c, d = counts[0], counts[1], counts[2], counts[3]
                whole = rows // 4 * 4
                for r in range(0, whole, 4):
                    a[np.uint32(place[r])] += 1
                    b[np.uint32(place[r + 1])] += 1
                    c[np.uint32(place[r + 2])] += 1
                    d[np.uint32(place[r + 3])] += 1
                for r in range(whole, rows):
                    a[np.uint32(place[r])] += 1
            else:
                a = counts[0]
                for r in range(rows):
                    a[np.uint32(place[r])] += 1
    return -1


@jit
def weigh(X, weights, first, parent, stride, cardinality, offset, start, stop, tile, place, sums):  # type: ignore[no-untyped-def]
    """sums (entries,) += weights of the rows start to stop; else as `count`."""
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = _load(X, cardinality, top, rows, tile)
        if wrong >= 0:
            return wrong
        for i in range(len(cardinality)):
            _places(i, first, parent, stride, offset, tile, place)
            for r in range(rows):
                sums[np.uint32(place[r])] += weights[top + r]
    return -1
