"""Contingency tables of groups of variables. Numba: the caller allocates, nothing is checked twice.

Group g has the variables member[first[g] : first[g + 1]], whose states have the strides of the same numbers in its
table, which begins at offset[g]. Rows are taken ROWS at a time, column by column.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fastgen._kernels.jit.columns import load

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ROWS = 256


@jit
def places(g, first, member, stride, offset, tile, place):  # type: ignore[no-untyped-def]
    """place[r] <- where the states of group g lie in its table."""
    begin = offset[g]
    for r in range(len(place)):
        place[r] = begin
    for k in range(first[g], first[g + 1]):
        states, step = tile[member[k]], stride[k]
        for r in range(len(place)):
            place[r] += step * states[r]


@jit
def count(X, first, member, stride, cardinality, offset, start, stop, in_bytes, tile, place, counts):  # type: ignore[no-untyped-def]
    """counts (copies, entries) += rows start to stop. tile: (V, ROWS), see `columns.load`; place: (ROWS,) int32.

    Neighbouring rows are counted in different copies: they often are alike, and an increment must wait for the one
    before it in the same place. Returns the first row with a code that is no state, or -1.
    """
    copies = np.uint32(len(counts))
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = load(X, cardinality, top, rows, in_bytes, tile, 0)
        if wrong >= 0:
            return wrong
        for g in range(len(offset)):
            places(g, first, member, stride, offset, tile, place)
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
def weigh(X, weights, first, member, stride, cardinality, offset, start, stop, in_bytes, tile, place, sums):  # type: ignore[no-untyped-def]
    """sums (entries,) += weights of the rows start to stop; else as `count`."""
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = load(X, cardinality, top, rows, in_bytes, tile, 0)
        if wrong >= 0:
            return wrong
        for g in range(len(offset)):
            places(g, first, member, stride, offset, tile, place)
            for r in range(rows):
                sums[np.uint32(place[r])] += weights[top + r]
    return -1
