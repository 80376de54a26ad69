"""Posterior of one variable of a network given all others. Numba: the caller allocates, nothing is checked twice.

Rows are taken ROWS at a time, column by column. Family f has the terms first[f] to first[f + 1]: the variable
member[k], a number among the columns that are needed, has stride[k] in its table of logarithms, which begins at
offset[f] and in which the variable that is asked for has stride own[f].
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ROWS = 256


@jit
def posterior(  # type: ignore[no-untyped-def]
    X, column, cardinality, first, member, stride, own, offset, logs, C, start, stop, tile, place, score, proba, best
):
    """proba[start:stop] (n, C) <- posteriors, NaN if no state is possible; best[start:stop] <- the likeliest, or -1.

    Either may be empty. tile: (columns, ROWS) int32; place: (ROWS,) int32; score: (C + 2, ROWS). Returns the first row
    with a code that is no state, or -1.
    """
    top_score, total = score[C], score[C + 1]
    for top in range(start, stop, ROWS):
        rows = min(ROWS, stop - top)
        for r in range(rows):
            for k in range(len(column)):
                code = X[top + r, column[k]]
                if code < 0 or code >= cardinality[k]:
                    return top + r
                tile[k, r] = code
        score[:C] = 0.0
        for f in range(len(offset)):
            place[:] = offset[f]
            for k in range(first[f], first[f + 1]):
                states, step = tile[member[k]], stride[k]
                for r in range(ROWS):
                    place[r] += step * states[r]
            for c in range(C):
                mine = score[c]
                for r in range(ROWS):
                    mine[r] += logs[np.uint32(place[r])]
                for r in range(ROWS):
                    place[r] += own[f]
        top_score[:] = -np.inf
        for c in range(C):
            mine = score[c]
            for r in range(ROWS):
                top_score[r] = max(top_score[r], mine[r])
        if len(best):
            for r in range(rows):
                state = -1
                for c in range(C - 1, -1, -1):
                    if score[c, r] == top_score[r] and top_score[r] > -np.inf:
                        state = c
                best[top + r] = state
        if len(proba):
            total[:] = 0.0
            for c in range(C):
                mine = score[c]
                for r in range(rows):
                    mine[r] = math.exp(mine[r] - top_score[r])
                    total[r] += mine[r]
            for r in range(rows):
                total[r] = 1.0 / total[r]
            for r in range(rows):
                for c in range(C):
                    proba[top + r, c] = score[c, r] * total[r]
    return -1
