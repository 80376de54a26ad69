"""Draws of complete rows from a discrete network. Numba: the caller allocates, nothing is checked twice.

A network is flat: node i has the parents parent[first[i] : first[i + 1]] with the strides of their states in its table,
which begins at offset[i]; its own state has stride 1. All numbers are integers: 32 random bits for each draw, so
probabilities are right to 2^-32, and what is impossible is never drawn.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

ROWS = 128
LANES = ROWS // 2  # each random number serves two rows


@jit
def draw(order, first, parent, stride, cardinality, offset, table, lanes, tile, work, random, out):  # type: ignore[no-untyped-def]
    """out (rows, V) <- draws, parents before children, by Walker's alias method.

    table: (threshold << 32) + alias of each entry. lanes: (4, LANES), states of xoshiro256++ (Blackman and Vigna 2021).
    tile: (V, ROWS) int32; work: (ROWS,) int32; random: (LANES,) uint64.
    """
    u32, u64 = np.uint32, np.uint64
    low = u64(0xFFFFFFFF)
    n = len(out)
    for top in range(0, n, ROWS):
        for i in order:
            size, own = u64(cardinality[i]), tile[i]
            work[:] = offset[i]
            for k in range(first[i], first[i + 1]):
                states, step = tile[parent[k]], stride[k]
                for r in range(ROWS):
                    work[r] += step * states[r]
            s0, s1, s2, s3 = lanes[0], lanes[1], lanes[2], lanes[3]
            for lane in range(LANES):
                a, b, c, d = s0[lane], s1[lane], s2[lane], s3[lane]
                total = a + d
                random[lane] = ((total << u64(23)) | (total >> u64(41))) + a
                shifted = b << u64(17)
                c ^= a
                d ^= b
                s1[lane] = b ^ c
                s0[lane] = a ^ d
                s2[lane] = c ^ shifted
                s3[lane] = (d << u64(45)) | (d >> u64(19))
            for half in range(2):  # bucket and position in it, as one number of fixed point
                begin = half * LANES
                mine, place = own[begin : begin + LANES], work[begin : begin + LANES]
                for r in range(LANES):
                    bits = random[r]
                    scaled = (bits & low) * size
                    bucket = scaled >> u64(32)
                    entry = table[u32(place[r] + np.int32(bucket))]
                    mine[r] = np.int32(bucket if (scaled & low) < (entry >> u64(32)) else entry & low)
                    random[r] = bits >> u64(32)
        rows = min(ROWS, n - top)
        for r in range(rows):
            for i in range(len(order)):
                out[top + r, i] = tile[i, r]


@jit
def alias_tables(p, size, table, threshold, alias, small, large):  # type: ignore[no-untyped-def]
    """Walker's tables (Vose 1991) of distributions that lie one after the other, of `size` states each.

    threshold, alias, small, large: work space of `size` entries.
    """
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
            threshold[k] = share
            alias[k] = best
            if share < 1.0:
                small[few] = k
                few += 1
            else:
                large[many] = k
                many += 1
        while few and many:
            few -= 1
            under, over = small[few], large[many - 1]
            alias[under] = over
            threshold[over] -= 1.0 - threshold[under]
            if threshold[over] < 1.0:
                many -= 1
                small[few] = over
                few += 1
        # what rounding leaves over has probability 1 for itself, but what is impossible stays so
        for k in range(many):
            alias[large[k]] = large[k]
        for k in range(few):
            if p[begin + small[k]] > 0.0:
                alias[small[k]] = small[k]
        for k in range(size):
            share = min(np.ceil(threshold[k] * 4294967296.0), 4294967295.0)  # what is possible can be drawn
            table[begin + k] = (np.uint64(share) << np.uint64(32)) + np.uint64(alias[k])
