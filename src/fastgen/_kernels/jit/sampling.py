"""Markov chains over discrete states. Numba: the caller allocates, nothing is checked twice.

Random numbers are those of xoroshiro128++ (Blackman and Vigna 2021, doi:10.1145/3460772), in vectors of independent
generators: the state of generator l is G[0, l], G[1, l].

A lattice of Ising spins is two planes of bits, one for each colour of its checkerboard: bit m of row i of plane c is
the spin in column 2 m + (i + c) % 2. Above, below and beside a site with that bit are bits m of the other plane, and
bit m - 1 or m + 1, by the parity of i + c.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

jit: Callable[[Any], Any] = numba.njit(nogil=True, cache=True, error_model="numpy")

LANES = 16  # words of spins that are drawn together
B0, B1, B2, B01, OPEN, NEW, G0, G1 = (LANES * i for i in range(8))  # where they lie in the work space
WORK = 8 * LANES
ONES = np.uint64(2**64 - 1)
ONE = np.uint64(1)
ZERO = np.uint64(0)


@jit
def draw_words(work, masks):  # type: ignore[no-untyped-def]
    """work[NEW:] <- bits that are 1 with a probability by the sums of their neighbours: B0, B1, B2 and B01 = B0 & B1.

    Random words are compared with thresholds bit by bit, from the highest, until all bits have differed from their
    threshold's; masks (64, 5): for each bit, the algebraic normal form of the threshold's bit.
    """
    for i in range(LANES):
        work[OPEN + i] = ONES
        work[NEW + i] = ZERO
    for k in range(64):
        m, m0, m1, m01, m2 = masks[k, 0], masks[k, 1], masks[k, 2], masks[k, 3], masks[k, 4]
        for i in range(LANES):
            s0, s1 = work[G0 + i], work[G1 + i]
            r = s0 + s1
            r = ((r << 17) | (r >> 47)) + s0
            s1 ^= s0
            work[G0 + i] = ((s0 << 49) | (s0 >> 15)) ^ s1 ^ (s1 << 21)
            work[G1 + i] = (s1 << 28) | (s1 >> 36)
            t = m ^ (work[B0 + i] & m0) ^ (work[B1 + i] & m1) ^ (work[B01 + i] & m01) ^ (work[B2 + i] & m2)
            differ = work[OPEN + i] & (r ^ t)
            work[NEW + i] |= differ & t
            work[OPEN + i] ^= differ
        if k >= 9:
            left = ZERO
            for i in range(LANES):
                left |= work[OPEN + i]
            if left == ZERO:
                break


@jit
def beside(x, w, odd, H, periodic):  # type: ignore[no-untyped-def]
    """Word w of a row of the other plane, moved by one bit: the neighbours that have not the same bit."""
    last = numba.uint64((H - 1) & 63)
    if odd:
        y = x[w] >> ONE
        if w < len(x) - 1:
            return y | (x[w + 1] << 63)
        y &= ~(ONE << last)
        return y | ((x[0] & ONE) << last) if periodic else y
    y = x[w] << ONE
    if w > 0:
        return y | (x[w - 1] >> 63)
    return y | ((x[len(x) - 1] >> last) & ONE) if periodic else y


@jit
def ising_band(planes, colour, first, last, cols, periodic, masks, edge, G, work):  # type: ignore[no-untyped-def]
    """Draw the sites of one colour in rows first to last, given all others. G: (2, LANES). edge: (5, 5), see below."""
    own, other = planes[colour].reshape(-1), planes[1 - colour]
    rows, words = other.shape
    H = (cols + 1) // 2
    for i in range(LANES):
        work[G0 + i], work[G1 + i] = G[0, i], G[1, i]
    place, filled = first * words, 0
    for i in range(first, last):
        up, row, down = other[i - 1 if i else rows - 1], other[i], other[i + 1 if i + 1 < rows else 0]
        odd = (i + colour) & 1
        for w in range(words):
            a, b, c, d = up[w], down[w], row[w], beside(row, w, odd, H, periodic)
            pair = a ^ b
            one = pair ^ c
            carry = (a & b) | (pair & c)
            second = one & d
            work[B0 + filled] = one ^ d
            work[B1 + filled] = carry ^ second
            work[B2 + filled] = carry & second
            work[B01 + filled] = (one ^ d) & (carry ^ second)
            filled += 1
            if filled == LANES:
                draw_words(work, masks)
                for k in range(LANES):
                    own[place + k] = work[NEW + k]
                place += LANES
                filled = 0
    if filled:
        draw_words(work, masks)
        for k in range(filled):
            own[place + k] = work[NEW + k]
    for i in range(LANES):
        G[0, i], G[1, i] = work[G0 + i], work[G1 + i]
    if not periodic:
        for i in range(first, last):
            begin = (i + colour) & 1
            if i == 0 or i == rows - 1:
                for j in range(begin, cols, 2):
                    ising_edge(planes, colour, i, j, cols, edge, G)
                continue
            if begin == 0:
                ising_edge(planes, colour, i, 0, cols, edge, G)
            if (cols - 1) & 1 == begin and cols > 1:
                ising_edge(planes, colour, i, cols - 1, cols, edge, G)


@jit
def ising_bands(planes, colour, bands, begin, end, cols, periodic, masks, edge, G, work):  # type: ignore[no-untyped-def]
    """Draw the sites of one colour in some bands: rows bands[b] to bands[b + 1], with generators G[b]."""
    for b in range(begin, end):
        ising_band(planes, colour, bands[b], bands[b + 1], cols, periodic, masks, edge, G[b], work)


@jit
def ising_edge(planes, colour, i, j, cols, edge, G):  # type: ignore[no-untyped-def]
    """Draw one site that may lack neighbours. edge[n, k]: the threshold if k of n neighbours are up."""
    rows = planes.shape[1]
    n = k = 0
    for di, dj in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        y, x = i + di, j + dj
        if 0 <= y < rows and 0 <= x < cols:
            m = x >> 1
            n += 1
            k += numba.int64((planes[1 - colour, y, m >> 6] >> numba.uint64(m & 63)) & ONE)
    m = j >> 1
    bit = ONE << numba.uint64(m & 63)
    word = planes[colour, i, m >> 6] & ~bit
    planes[colour, i, m >> 6] = word | bit if random_word(G, 0) < edge[n, k] else word


@jit
def random_word(G, i):  # type: ignore[no-untyped-def]
    """64 random bits of generator i."""
    s0, s1 = G[0, i], G[1, i]
    r = s0 + s1
    s1 ^= s0
    G[0, i] = ((s0 << 49) | (s0 >> 15)) ^ s1 ^ (s1 << 21)
    G[1, i] = (s1 << 28) | (s1 >> 36)
    return ((r << 17) | (r >> 47)) + s0


@jit
def count_bits(x):  # type: ignore[no-untyped-def]
    """Return the number of ones in a word."""
    x -= (x >> ONE) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> 2) & np.uint64(0x3333333333333333))
    x = (x + (x >> 4)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return numba.int64((x * np.uint64(0x0101010101010101)) >> 56)


@jit
def low_bits(n):  # type: ignore[no-untyped-def]
    """Return a word whose lowest n bits are ones, for any n."""
    return ONES if n >= 64 else (ONE << numba.uint64(n)) - ONE if n > 0 else ZERO


@jit
def ising_counts(planes, first, last, cols, periodic):  # type: ignore[no-untyped-def]
    """Return how many spins of rows first to last are up, and how many edges of colour 0 lead to unequal spins."""
    _, rows, words = planes.shape
    H = (cols + 1) // 2
    up = different = 0
    for i in range(first, last):
        for colour in range(2):
            odd = (i + colour) & 1
            sites, others = (cols - odd + 1) // 2, (cols + odd) // 2
            for w in range(words):
                valid = low_bits(sites - 64 * w)
                x = planes[colour, i, w] & valid
                up += count_bits(x)
                if colour:
                    continue
                row = planes[1, i]
                aside = valid & low_bits(others - 64 * w)
                different += count_bits((x ^ row[w]) & aside)
                if i > 0 or periodic:
                    different += count_bits((x ^ planes[1, i - 1 if i else rows - 1, w]) & valid)
                if i + 1 < rows or periodic:
                    different += count_bits((x ^ planes[1, i + 1 if i + 1 < rows else 0, w]) & valid)
                if not periodic:
                    valid &= low_bits(others - 1 - 64 * w) if odd else ONES if w else ~ONE
                different += count_bits((x ^ beside(row, w, odd, H, periodic)) & valid)
    return up, different


@jit
def ising_sweeps(planes, bands, cols, periodic, masks, edge, G, work, counts):  # type: ignore[no-untyped-def]
    """len(counts) sweeps on one thread. counts (n, 2) <- what `ising_counts` returns after each; (n, 0): nothing."""
    for sweep in range(len(counts)):
        for colour in range(2):
            ising_bands(planes, colour, bands, 0, len(G), cols, periodic, masks, edge, G, work)
        if counts.shape[1]:
            counts[sweep, 0], counts[sweep, 1] = ising_counts(planes, 0, planes.shape[1], cols, periodic)


@jit
def random_unit(G, i):  # type: ignore[no-untyped-def]
    """Return a multiple of 2^-53 in [0, 1), of generator i."""
    return numba.float64(numba.int64(random_word(G, i) >> 11)) * 2.0**-53


@jit
def draw_softmax(logits, G, i):  # type: ignore[no-untyped-def]
    """Return k with a probability proportional to exp(logits[k]); logits may be overwritten."""
    if len(logits) == 2:
        return numba.int64(random_unit(G, i) < 1.0 / (1.0 + np.exp(logits[0] - logits[1])))
    top = logits.max()
    total = 0.0
    for k in range(len(logits)):
        total += np.exp(logits[k] - top)
        logits[k] = total
    u = random_unit(G, i) * total
    state = 0
    for k in range(len(logits) - 1):
        state += u >= logits[k]
    return state


@jit
def potts_sweeps(first, neighbour, weight, field, x, G, logits, energy, ones):  # type: ignore[no-untyped-def]
    """len(energy) sweeps, site by site, under p(x) ~ exp(sum_edges weight [x_i = x_j] + sum_i field[i, x_i]).

    Site i has the neighbours neighbour[first[i] : first[i + 1]]. energy <- minus that exponent, and ones <- the
    number of sites in state 1, after each sweep.
    """
    n, q = field.shape
    for sweep in range(len(energy)):
        for i in range(n):
            for k in range(q):
                logits[k] = field[i, k]
            for e in range(first[i], first[i + 1]):
                logits[x[neighbour[e]]] += weight[e]
            x[i] = draw_softmax(logits, G, 0)
        total = 0.0
        for i in range(n):
            for e in range(first[i], first[i + 1]):
                if x[i] == x[neighbour[e]]:
                    total -= 0.5 * weight[e]
            total -= field[i, x[i]]
        energy[sweep], ones[sweep] = total, (x == 1).sum()


@jit
def root_of(parent, i):  # type: ignore[no-untyped-def]
    """Return the root of node i; paths are halved on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def cluster_sweeps(edges, weight, bond, field, x, parent, sums, G, energy, clusters):  # type: ignore[no-untyped-def]
    """len(energy) sweeps of Swendsen and Wang, for the model of `potts_sweeps`.

    bond (m,): thresholds of the probabilities 1 - exp(-weight). field, sums: (n, q), or (0, q) without a field.
    """
    n, q = len(x), field.shape[1]
    for sweep in range(len(energy)):
        for i in range(n):
            parent[i] = i
        for e in range(len(edges)):
            i, j = edges[e, 0], edges[e, 1]
            if x[i] == x[j] and random_word(G, 0) < bond[e]:
                i, j = root_of(parent, i), root_of(parent, j)
                parent[max(i, j)] = min(i, j)
        if len(field):
            sums[:] = 0.0
        for i in range(n):
            parent[i] = parent[parent[i]]  # of a lower node, which is done
            for k in range(q if len(field) else 0):
                sums[parent[i], k] += field[i, k]
        number = 0
        for i in range(n):
            if parent[i] == i:
                number += 1
                x[i] = draw_softmax(sums[i], G, 0) if len(field) else numba.int64(random_unit(G, 0) * q)
            else:
                x[i] = x[parent[i]]
        total = 0.0
        for e in range(len(edges)):
            if x[edges[e, 0]] == x[edges[e, 1]]:
                total -= weight[e]
        for i in range(len(field)):
            total -= field[i, x[i]]
        energy[sweep], clusters[sweep] = total, number


TILE = 64  # variables that are drawn together


@jit
def fill_units(G, u):  # type: ignore[no-untyped-def]
    """u (TILE,) <- uniform numbers in [0, 1), one of each generator."""
    for i in range(TILE):
        s0, s1 = G[0, i], G[1, i]
        r = s0 + s1
        r = ((r << 17) | (r >> 47)) + s0
        s1 ^= s0
        G[0, i] = ((s0 << 49) | (s0 >> 15)) ^ s1 ^ (s1 << 21)
        G[1, i] = (s1 << 28) | (s1 >> 36)
        u[i] = numba.float64(numba.int64(r >> 11)) * 2.0**-53


@jit
def gibbs_sweeps(groups, slots, index, table, x, G, p, work, places, sweeps, thin, row, columns, out):  # type: ignore[no-untyped-def]
    """Draw all variables in turn, group by group, in several chains; out[:, row:, columns] <- every thin-th sweep.

    x: states, chains innermost. A group (first cell, lanes, states, first slot, last slot, logs) is of variables that
    are not neighbours and have tables of the same shapes (or of their logarithms), one for each slot, own states
    innermost. A slot (start, n) stands for index[start:]: for each lane the first entry of its table; then n times a
    stride and, for each lane, the cell of the variable that it goes with. p (K, TILE), work (2, TILE), places (2, TILE)
    int32. The state at the start must be possible.
    """
    u, total = work[0], work[1]
    place, state = places[0], places[1]
    chains = len(out)
    for sweep in range(sweeps):
        used = TILE
        for g in range(len(groups)):
            cell, lanes, K, begin, end, logs = groups[g]
            for top in range(0, lanes, TILE):
                size = min(TILE, lanes - top)
                if used + size > TILE:
                    fill_units(G, u)
                    used = 0
                for k in range(K):
                    p[k, :size] = 0.0 if logs else 1.0
                for s in range(begin, end):
                    at = slots[s, 0]
                    for i in range(size):
                        place[i] = index[at + top + i]
                    at += lanes
                    for _ in range(slots[s, 1]):
                        stride = index[at]
                        at += 1
                        for i in range(size):
                            place[i] += stride * x[numba.uint32(index[at + top + i])]
                        at += lanes
                    for k in range(K):
                        if logs:
                            for i in range(size):
                                p[k, i] += table[numba.uint32(place[i] + k)]
                        else:
                            for i in range(size):
                                p[k, i] *= table[numba.uint32(place[i] + k)]
                if logs:
                    for i in range(size):
                        highest = -np.inf
                        for k in range(K):
                            highest = max(highest, p[k, i])
                        for k in range(K):
                            p[k, i] = np.exp(p[k, i] - highest)
                total[:size] = 0.0
                for k in range(K):
                    for i in range(size):
                        total[i] += p[k, i]
                        p[k, i] = total[i]
                for i in range(size):
                    total[i] *= u[used + i]
                    state[i] = 0
                used += size
                for k in range(K - 1):
                    for i in range(size):
                        state[i] += total[i] >= p[k, i]
                for i in range(size):
                    x[cell + top + i] = state[i]
        if (sweep + 1) % thin == 0:
            for v in range(len(columns)):
                for c in range(chains):
                    out[c, row, columns[v]] = x[v * chains + c]
            row += 1


@jit
def _to_bucket(v, was, now, ends, links):  # type: ignore[no-untyped-def]
    """Move a variable from one list of variables with so many states left to another; below 2 there is none.

    To the end of a list where states are struck out, so that choices go out from the first one like a wave, which
    leaves no pockets; to the beginning where that is undone. ends (2, states): the first and the last variable of each
    list, or -1. links (2, n): the variables before and after.
    """
    if was >= 2:
        for side in range(2):
            one, other = links[side, v], links[1 - side, v]
            if one >= 0:
                links[1 - side, one] = other
            else:
                ends[side, was] = other
    if now >= 2:
        side = 0 if now > was > 0 else 1
        one = ends[side, now]
        links[side, v], links[1 - side, v] = -1, one
        if one >= 0:
            links[side, one] = v
        else:
            ends[1 - side, now] = v
        ends[side, now] = v


@jit
def _revise(f, hard, left, base, seen, digits):  # type: ignore[no-untyped-def]
    """seen <- for each variable of factor f, behind one another, which of its states are in a possible combination."""
    cardinality, first, variable, stride, offset, allowed = hard[0], hard[1], hard[2], hard[3], hard[4], hard[5]
    begin, end = first[f], first[f + 1]
    missing = 0  # states that are left, but not seen yet
    place = offset[f]
    cells = 0
    for s in range(begin, end):
        v = variable[s]
        digits[s - begin] = -1
        for k in range(cardinality[v]):
            seen[cells + k] = False
            if left[base[v] + k]:
                missing += 1
                if digits[s - begin] < 0:
                    digits[s - begin] = k
        cells += cardinality[v]
        place += stride[s] * digits[s - begin]
    while missing:
        if allowed[place]:
            cells = 0
            for s in range(begin, end):
                k = digits[s - begin]
                missing -= not seen[cells + k]
                seen[cells + k] = True
                cells += cardinality[variable[s]]
        s = end - 1  # the next combination of states that are left, the last variable fastest
        while s >= begin:
            v, k = variable[s], digits[s - begin] + 1
            while k < cardinality[v] and not left[base[v] + k]:
                k += 1
            if k < cardinality[v]:
                place += stride[s] * (k - digits[s - begin])
                digits[s - begin] = k
                break
            k = 0
            while not left[base[v] + k]:
                k += 1
            place += stride[s] * (k - digits[s - begin])
            digits[s - begin] = k
            s -= 1
        if s < begin:
            break


@jit
def search(hard, base, score, left, order, until, at, count, ends, links, trail, stack, queue, waits, seen, digits):  # type: ignore[no-untyped-def]
    """Find states that no factor forbids: depth first, the variable with the fewest states left next.

    hard: cardinality (n,); first, variable, stride, offset as in `fastgen._kernels.jit.markov`; allowed: which entries
    of the tables are not 0; own, slot, owner. The states of variable v are base[v] : base[v + 1]; left: which of them
    are possible, in the end one of each variable of a factor; the ones with the highest score are tried first. order:
    the variables of factors; equals are taken in it. After each choice, states without a possible combination in some
    factor are struck out, until nothing changes.

    Work space: at (3,), zeros: where it is; count (n,); ends (2, most states + 1), all -1; links (2, n); trail (states
    of all variables, 2); stack (n, 3); queue, waits (factors); seen, digits: for the states and the variables of one
    factor. Returns 1 if states were found, -1 if there are none, and 0 after `until` choices: to be called again, with
    all as it was and a larger number.
    """
    cardinality, first, variable = hard[0], hard[1], hard[2]
    own, slot, owner = hard[6], hard[7], hard[8]
    F = len(first) - 1
    struck, depth, steps = at
    start = size = 0
    if steps == 0:
        for v in order:
            count[v] = 0
            for k in range(cardinality[v]):
                count[v] += left[base[v] + k]
            if count[v] == 0:
                return -1
            _to_bucket(v, 0, count[v], ends, links)
        size = F
        for f in range(F):
            queue[f], waits[f] = f, True
    while True:
        failed = False
        while size and not failed:
            f = queue[start]
            start = (start + 1) % F
            size -= 1
            waits[f] = False
            _revise(f, hard, left, base, seen, digits)
            cells = 0
            for s in range(first[f], first[f + 1]):
                v = variable[s]
                lost = False
                for k in range(cardinality[v]):
                    if left[base[v] + k] and not seen[cells + k]:
                        left[base[v] + k] = False
                        trail[struck, 0], trail[struck, 1] = v, k
                        struck += 1
                        _to_bucket(v, count[v], count[v] - 1, ends, links)
                        count[v] -= 1
                        lost = True
                cells += cardinality[v]
                failed = failed or count[v] == 0
                if lost:
                    for i in range(own[v], own[v + 1]):
                        g = owner[slot[i]]
                        if g != f and not waits[g]:
                            queue[(start + size) % F], waits[g] = g, True
                            size += 1
        if failed:
            while size:
                waits[queue[start]] = False
                start = (start + 1) % F
                size -= 1
            if depth == 0:
                return -1
            depth -= 1
            v, k = stack[depth, 0], stack[depth, 1]
            while struck > stack[depth, 2]:
                struck -= 1
                u = trail[struck, 0]
                left[base[u] + trail[struck, 1]] = True
                _to_bucket(u, count[u], count[u] + 1, ends, links)
                count[u] += 1
            # what was chosen is out, as far as the choices before go
            left[base[v] + k] = False
            trail[struck, 0], trail[struck, 1] = v, k
            struck += 1
            _to_bucket(v, count[v], count[v] - 1, ends, links)
            count[v] -= 1
        else:
            low = 2
            while low < ends.shape[1] and ends[0, low] < 0:
                low += 1
            if low == ends.shape[1]:
                return 1
            if steps == until:
                at[0], at[1], at[2] = struck, depth, steps
                return 0
            steps += 1
            v = ends[0, low]
            best = -1
            for k in range(cardinality[v]):
                if left[base[v] + k] and (best < 0 or score[base[v] + k] > score[base[v] + best]):
                    best = k
            stack[depth, 0], stack[depth, 1], stack[depth, 2] = v, best, struck
            depth += 1
            for k in range(cardinality[v]):
                if left[base[v] + k] and k != best:
                    left[base[v] + k] = False
                    trail[struck, 0], trail[struck, 1] = v, k
                    struck += 1
            _to_bucket(v, count[v], 1, ends, links)
            count[v] = 1
        for i in range(own[v], own[v + 1]):
            g = owner[slot[i]]
            if not waits[g]:
                queue[(start + size) % F], waits[g] = g, True
                size += 1


@jit
def exp_tile(x, y, power):  # type: ignore[no-untyped-def]
    """y <- exp(x), to 3e-16 between -708 and 708, and constant beyond. All are of length TILE; power is int64."""
    scale = power.view(np.float64)
    for i in range(TILE):
        z = min(max(x[i], -708.0), 708.0)
        k = np.floor(z * 1.4426950408889634 + 0.5)
        r = (z - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
        p = r * (1 / 479001600.0) + 1 / 39916800.0  # Taylor
        p = ((p * r + 1 / 3628800.0) * r + 1 / 362880.0) * r + 1 / 40320.0
        p = ((p * r + 1 / 5040.0) * r + 1 / 720.0) * r + 1 / 120.0
        y[i] = ((((p * r + 1 / 24.0) * r + 1 / 6.0) * r + 0.5) * r + 1.0) * r + 1.0
        power[i] = (numba.int64(k) + 1023) << 52
    for i in range(TILE):
        y[i] *= scale[i]


@jit
def sigmoid_draw(a, drawn, G, work, power):  # type: ignore[no-untyped-def]
    """a (n,) <- 1 / (1 + exp(-a)); drawn (n,) <- 1.0 with that probability, else 0.0, unless it is empty.

    work (2, TILE); power (TILE,) int64.
    """
    x, y = work[0], work[1]
    for top in range(0, len(a), TILE):
        size = min(TILE, len(a) - top)
        for i in range(size):
            x[i] = -a[top + i]
        exp_tile(x, y, power)
        for i in range(size):
            a[top + i] = 1.0 / (1.0 + y[i])
        if len(drawn):
            fill_units(G, x)
            for i in range(size):
                drawn[top + i] = 1.0 if x[i] < a[top + i] else 0.0


@jit
def softplus_sum(a, b, sign, work, power):  # type: ignore[no-untyped-def]
    """Return sum_j log(1 + exp(a_j + sign b_j)): one logarithm of a product for each tile."""
    x, y = work[0], work[1]
    total = 0.0
    for top in range(0, len(a), TILE):
        size = min(TILE, len(a) - top)
        for i in range(size):
            z = a[top + i] + sign * b[top + i]
            total += max(z, 0.0)
            x[i] = -abs(z)
        exp_tile(x, y, power)
        product = 1.0
        for i in range(size):
            product *= 1.0 + y[i]
        total += np.log(product)
    return total


@jit
def softplus_sums(a, out, work, power):  # type: ignore[no-untyped-def]
    """out (n,) <- sums over the rows of a (n, m)."""
    for r in range(len(a)):
        out[r] = softplus_sum(a[r], a[r], 0.0, work, power)


@jit
def log_pseudo_likelihood(V, a, W, b, out, work, power):  # type: ignore[no-untyped-def]
    """out (n,) <- sum_i log p(v_i | all others) of a restricted Boltzmann machine.

    V (n, d): 0 to 1. a (n, m): inputs of the hidden units. W (d, m); b (d,).
    """
    for r in range(len(V)):
        here = softplus_sum(a[r], a[r], 0.0, work, power)
        total = 0.0
        for i in range(len(b)):
            sign = 1.0 - 2.0 * V[r, i]  # to the opposite: 1 - v
            rise = softplus_sum(a[r], W[i], sign, work, power) - here + sign * b[i]
            total -= max(rise, 0.0) + np.log1p(np.exp(-abs(rise)))
        out[r] = total
