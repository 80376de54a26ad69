"""Complete rows of a discrete network: their probabilities. Numba: the caller allocates, nothing is checked twice.

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
