"""Complete rows of a discrete network: their probabilities. Numba: the caller allocates, nothing is checked twice.

Tables of logarithms are those of groups of families, laid out as in `families`. Rows are taken ROWS at a time, column
by column.
"""

from collections.abc import Callable
from typing import Any

import numba

from fastgen._kernels.jit.columns import load
from fastgen._kernels.jit.families import places

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ROWS = 128


@jit
def log_prob(X, first, member, stride, cardinality, offset, table, in_bytes, tile, place, start, stop, out):  # type: ignore[no-untyped-def]
    """out[start:stop] <- log p(x) of these rows. tile: (V, ROWS), see `columns.load`; place: (ROWS,) int32.

    Returns the first row with a code that is no state, or -1.
    """
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        wrong = load(X, cardinality, top, rows, in_bytes, tile, 0)
        if wrong >= 0:
            return wrong
        total = out[top : top + rows]
        total[:] = 0.0
        for g in range(len(offset)):
            places(g, first, member, stride, offset, tile, place)
            for r in range(rows):
                total[r] += table[numba.uint32(place[r])]
    return -1
