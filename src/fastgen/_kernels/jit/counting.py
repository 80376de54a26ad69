"""Counts of discrete data. Numba: the caller allocates, nothing is checked twice.

Rows are grouped in *cells* (those that agree in some variables). A matrix of counts has one row for each cell and one
column for each state of each variable: that of state s of variable i is first[i] + s. Rows without weights are counted
by the population of bits, 64 rows to a word; others one after the other, in their order. A column is filled by one
thread, so the bits do not depend on how many there are.
"""

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

WORDS = 256  # of a bit set at a time: what one variable is counted against stays in L1


def _popcount(typing_context: Any, word: Any) -> Any:
    return types.uint64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


_population: Any = intrinsic(_popcount)
"""The number of bits that are set: the processor's instruction, or what LLVM has in its place."""


@jit
def pack(columns, first, start, stop, bits):  # type: ignore[no-untyped-def]
    """bits[first[i] + s] <- the set of rows in which variable i is in state s, for start <= i < stop."""
    n = columns.shape[1]
    one = numba.uint64(1)
    for i in range(start, stop):
        codes, base = columns[i], first[i]
        for r in range(n):
            bits[base + codes[r], r >> 6] |= one << numba.uint64(r & 63)


@jit
def load(X, cardinality, start, stop, columns):  # type: ignore[no-untyped-def]
    """columns[i, r] <- X[r, i]. Returns the first row with a code that is no state, or -1."""
    V = len(cardinality)
    for top in range(start, stop, 64):
        bottom = min(top + 64, stop)
        wrong = 0
        for i in range(V):
            last = cardinality[i] - 1
            for r in range(top, bottom):
                code = X[r, i]
                wrong |= (code < 0) | (code > last)
                columns[i, r] = code
        if wrong:
            for r in range(top, bottom):
                for i in range(V):
                    if X[r, i] < 0 or X[r, i] >= cardinality[i]:
                        return r
    return -1


@jit
def count_bits(cells, bits, first, cardinality, start, stop, out):  # type: ignore[no-untyped-def]
    """out[c, state of variable i] <- |cells[c] & bits[state]|, for the variables start <= i < stop.

    The last state of each gets what the others leave over. out[:, -1]: the sizes of the cells, a column of its own.
    """
    n_cells, W = cells.shape
    for i in range(start, stop):
        low, high = first[i], first[i] + cardinality[i] - 1
        out[:, low:high] = 0.0
        for top in range(0, W, WORDS):
            bottom = min(top + WORDS, W)
            for column in range(low, high):
                mine = bits[column, top:bottom]
                c = 0
                while c + 4 <= n_cells:  # four at a time: each word of `mine` is fetched once for them
                    one, two = cells[c, top:bottom], cells[c + 1, top:bottom]
                    three, four = cells[c + 2, top:bottom], cells[c + 3, top:bottom]
                    a = b = d = e = numba.uint64(0)
                    for w in range(len(mine)):
                        a += _population(one[w] & mine[w])
                        b += _population(two[w] & mine[w])
                        d += _population(three[w] & mine[w])
                        e += _population(four[w] & mine[w])
                    out[c, column] += a
                    out[c + 1, column] += b
                    out[c + 2, column] += d
                    out[c + 3, column] += e
                    c += 4
                while c < n_cells:
                    one = cells[c, top:bottom]
                    a = numba.uint64(0)
                    for w in range(len(mine)):
                        a += _population(one[w] & mine[w])
                    out[c, column] += a
                    c += 1
        for c in range(n_cells):
            rest = out[c, -1]
            for column in range(low, high):
                rest -= out[c, column]
            out[c, high] = rest


@jit
def split_bits(cells, sizes, bits, out, out_sizes, children):  # type: ignore[no-untyped-def]
    """out <- the cells split by a variable, whose states are `bits`; without those that are empty.

    Returns how many there are; out_sizes: their rows; children[c]: into how many cell c falls.
    """
    n_cells, W = cells.shape
    made = 0
    for c in range(n_cells):
        left = sizes[c]
        began = made
        for state in range(len(bits)):
            if left == 0:
                break
            mine, states, target = cells[c], bits[state], out[made]
            size = numba.uint64(0)
            for w in range(W):
                word = mine[w] & states[w]
                target[w] = word
                size += _population(word)
            if size:
                out_sizes[made] = size
                left -= size
                made += 1
        children[c] = made - began
    return made


@jit
def count_rows(cell, columns, first, cardinality, weights, weighted, start, stop, out):  # type: ignore[no-untyped-def]
    """out[c, state of variable i] <- the rows (or weights) of cell c in this state, for start <= i < stop."""
    for i in range(start, stop):
        low = first[i]
        out[:, low : low + cardinality[i]] = 0.0
        codes = columns[i]
        if weighted:
            for r in range(len(cell)):
                out[numba.uint64(cell[r]), numba.uint64(low + codes[r])] += weights[r]
        else:
            for r in range(len(cell)):
                out[numba.uint64(cell[r]), numba.uint64(low + codes[r])] += 1.0


@jit
def split_rows(cell, codes, cardinality, out, seen):  # type: ignore[no-untyped-def]
    """out[r] <- the number of r's cell when the cells are split by a variable, without those that are empty.

    seen: zeros, one for each cell and state; becomes the numbers of the new cells, counted from 1. Returns how many.
    """
    for r in range(len(cell)):
        place = numba.uint64(cell[r] * cardinality + codes[r])
        out[r] = place
        seen[place] = 1
    made = 0
    for place in range(len(seen)):
        if seen[place]:
            made += 1
            seen[place] = made
    for r in range(len(cell)):
        out[r] = seen[numba.uint64(out[r])] - 1
    return made


@jit
def cell_sizes(cell, weights, weighted, out):  # type: ignore[no-untyped-def]
    """out[c] += the rows (or weights) of cell c."""
    for r in range(len(cell)):
        out[numba.uint64(cell[r])] += weights[r] if weighted else 1.0
