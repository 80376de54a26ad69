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

FEW = 8  # states: for so many, it is quicker to compare all rows with each than to set one bit after the other
WORDS = 256  # of a bit set at a time: what one variable is counted against stays in L1


def _popcount(typing_context: Any, word: Any) -> Any:
    return types.uint64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


population: Any = intrinsic(_popcount)
"""The number of bits that are set: the processor's instruction, or what LLVM has in its place."""


@jit
def pack(columns, first, cardinality, start, stop, bits):  # type: ignore[no-untyped-def]
    """bits[first[i] + s] <- the set of rows in which variable i is in state s, for start <= i < stop. bits: zeros."""
    n = columns.shape[1]
    one = numba.uint64(1)
    for i in range(start, stop):
        codes, base, done = columns[i], first[i], 0
        if cardinality[i] <= FEW:
            done = n >> 6 << 6
            for w in range(n >> 6):
                part = codes[w << 6 : (w + 1) << 6]
                for state in range(cardinality[i]):
                    word = numba.uint64(0)
                    for r in range(64):
                        word |= numba.uint64(part[r] == state) << numba.uint64(r)
                    bits[base + state, w] = word
        for r in range(done, n):
            bits[base + codes[r], r >> 6] |= one << numba.uint64(r & 63)


@jit
def count_bits(cells, bits, first, cardinality, variables, start, stop, columns, out):  # type: ignore[no-untyped-def]
    """out[c, state of variable i] <- |cells[c] & bits[state]|, for the variables i = variables[start:stop].

    The last state of each gets what the others leave over. out[:, -1]: the sizes of the cells, a column of its own.
    columns: work space, one number for each state.
    """
    n_cells, W = cells.shape
    many = 0
    for v in range(start, stop):
        i = variables[v]
        for column in range(first[i], first[i] + cardinality[i] - 1):
            columns[many] = column
            many += 1
        out[:, first[i] : first[i] + cardinality[i]] = 0.0
    for top in range(0, W, WORDS):
        bottom = min(top + WORDS, W)
        c = 0
        while c + 4 <= n_cells:  # four cells by two states at a time: six loads for eight counts
            one, two = cells[c, top:bottom], cells[c + 1, top:bottom]
            three, four = cells[c + 2, top:bottom], cells[c + 3, top:bottom]
            k = 0
            while k + 2 <= many:
                mine, other = bits[columns[k], top:bottom], bits[columns[k + 1], top:bottom]
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = numba.uint64(0)
                for w in range(len(mine)):
                    a0 += population(one[w] & mine[w])
                    a1 += population(two[w] & mine[w])
                    a2 += population(three[w] & mine[w])
                    a3 += population(four[w] & mine[w])
                    b0 += population(one[w] & other[w])
                    b1 += population(two[w] & other[w])
                    b2 += population(three[w] & other[w])
                    b3 += population(four[w] & other[w])
                out[c, columns[k]] += a0
                out[c + 1, columns[k]] += a1
                out[c + 2, columns[k]] += a2
                out[c + 3, columns[k]] += a3
                out[c, columns[k + 1]] += b0
                out[c + 1, columns[k + 1]] += b1
                out[c + 2, columns[k + 1]] += b2
                out[c + 3, columns[k + 1]] += b3
                k += 2
            while k < many:
                mine = bits[columns[k], top:bottom]
                a0 = a1 = a2 = a3 = numba.uint64(0)
                for w in range(len(mine)):
                    a0 += population(one[w] & mine[w])
                    a1 += population(two[w] & mine[w])
                    a2 += population(three[w] & mine[w])
                    a3 += population(four[w] & mine[w])
                out[c, columns[k]] += a0
                out[c + 1, columns[k]] += a1
                out[c + 2, columns[k]] += a2
                out[c + 3, columns[k]] += a3
                k += 1
            c += 4
        while c < n_cells:
            one = cells[c, top:bottom]
            for k in range(many):
                mine = bits[columns[k], top:bottom]
                a0 = numba.uint64(0)
                for w in range(len(mine)):
                    a0 += population(one[w] & mine[w])
                out[c, columns[k]] += a0
            c += 1
    for v in range(start, stop):
        low = first[variables[v]]
        high = low + cardinality[variables[v]] - 1
        for c in range(n_cells):
            rest = out[c, -1]
            for column in range(low, high):
                rest -= out[c, column]
            out[c, high] = rest


@jit
def split_bits(variables, bits, first, cardinality, cells, sizes, other, other_sizes, group):  # type: ignore[no-untyped-def]
    """cells <- the rows grouped by the states of some variables, without groups that are empty; sizes: their rows.

    Returns how many there are, and how many groups there were before the last variable split them: the cells of group
    j are group[j] to group[j + 1]. other, other_sizes: work space as large as the cells.
    """
    W = bits.shape[1]
    last = len(variables) - 1
    source, source_sizes, target, target_sizes = cells, sizes, other, other_sizes
    if last % 2 == 0:  # so that the last split arrives in `cells`
        source, source_sizes, target, target_sizes = target, target_sizes, source, source_sizes
    made = groups = 1
    for level in range(last + 1):
        i = variables[level]
        groups, made = made, 0
        for c in range(groups):
            if level == last:
                group[c] = made
            left = source_sizes[c] if level else 1
            for state in range(first[i], first[i] + cardinality[i]):
                if left == 0:
                    break
                mine, states, new = source[c], bits[state], target[made]
                size = numba.uint64(0)
                if level == 0:
                    for w in range(W):
                        new[w] = states[w]
                        size += population(states[w])
                else:
                    for w in range(W):
                        word = mine[w] & states[w]
                        new[w] = word
                        size += population(word)
                    left -= size
                if size:
                    target_sizes[made] = size
                    made += 1
        source, source_sizes, target, target_sizes = target, target_sizes, source, source_sizes
    group[groups] = made
    return made, groups


@jit
def count_rows(cell, columns, first, cardinality, weights, weighted, variables, out):  # type: ignore[no-untyped-def]
    """out[c, state of variable i] <- the rows (or weights) of cell c in this state, for the variables i."""
    for i in variables:
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
