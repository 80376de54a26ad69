"""Markov chains over discrete states, against enumeration, exact solutions and the definitions of the diagnostics.

Statistical tests have fixed seeds; LEVEL is how often each would fail for another seed though all is right. Published
networks are looked for as in test_graphical_formats.py.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import ellipk

from fastgen._kernels.jit import sampling as kernels
from fastgen.graphical import formats
from fastgen.graphical._engine import Engine
from fastgen.graphical._factors import FactorGraph
from fastgen.graphical._sampling import (
    Chains,
    NothingFoundError,
    Search,
    _threshold,
    effective_sample_size,
    gibbs,
    ising_gibbs,
    potts_gibbs,
    r_hat,
    swendsen_wang,
)

LEVEL = 1e-4
Z = stats.norm.isf(LEVEL / 2)
MASK = 2**64 - 1


def chi_square(counts, p):
    """Assert that these counts are of this distribution; rare classes are taken together."""
    counts, p = np.asarray(counts).ravel(), np.asarray(p).ravel()
    assert not counts[p == 0].any()
    order = np.argsort(p)
    expected = counts.sum() * p[order]
    rare = max(1, int(np.searchsorted(np.cumsum(expected), 10)) + 1)
    f = np.r_[counts[order[:rare]].sum(), counts[order[rare:]]]
    e = np.r_[expected[:rare].sum(), expected[rare:]]
    assert stats.chisquare(f, e * f.sum() / e.sum()).pvalue > LEVEL


def codes_of(states, bases):
    return np.ravel_multi_index(tuple(np.moveaxis(states.reshape(-1, len(bases)), 1, 0)), bases)


def grid_states(shape, q):
    n = shape[0] * shape[1]
    return np.stack(np.unravel_index(np.arange(q**n), (q,) * n), axis=1).reshape(-1, *shape)


def grid_sums(values, periodic, weight=(1.0, 1.0)):
    """Sums over vertical and horizontal edges of weight * values of both ends, for (..., rows, columns)."""
    total = 0.0
    for axis, w in zip((-2, -1), weight, strict=True):
        product = values * np.roll(values, -1, axis) * w
        if not periodic:
            product = product.take(range(values.shape[axis] - 1), axis)
        total = total + product.sum((-2, -1))
    return total


# ---- random numbers --------------------------------------------------------------------------------------------------


def xoroshiro(s0, s1):
    """Blackman and Vigna's xoroshiro128++, on Python's integers."""

    def rotl(x, k):
        return (x << k | x >> (64 - k)) & MASK

    result = (rotl((s0 + s1) & MASK, 17) + s0) & MASK
    s1 ^= s0
    return result, rotl(s0, 49) ^ s1 ^ (s1 << 21 & MASK), rotl(s1, 28)


def test_generator_is_the_published_one():
    G = np.array([[1] * kernels.TILE, [2] * kernels.TILE], np.uint64)
    u, s = np.empty(kernels.TILE), (1, 2)
    # the author's C program, seeded with 1 and 2
    first = [393217, 669327710093319, 1732421326133921491]
    for k in range(20):
        word, *s = xoroshiro(*s)
        assert k >= 3 or word == first[k]
        kernels.fill_units(G, u)
        assert (u == (word >> 11) * 2.0**-53).all()
    assert int(kernels.random_word(G, 5)) == xoroshiro(*s)[0]


def test_bits_are_uniform_and_lanes_independent():
    """64 bits of 64 generators: 2 * 64 + 64 * 63 / 2 * 2 comparisons, so each is made at LEVEL / 5000."""
    rng = np.random.default_rng(0)
    G = rng.integers(1, 2**64, (2, 64), np.uint64)
    words = np.array([[kernels.random_word(G, lane) for lane in range(64)] for _ in range(2000)], np.uint64)
    bits = (words[..., None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).astype(np.float64) * 2 - 1
    limit = stats.norm.isf(LEVEL / 5000 / 2)
    n = bits[..., 0].size
    assert np.abs(bits.sum((0, 1)) / np.sqrt(n)).max() < limit  # each bit
    assert np.abs((bits[1:] * bits[:-1]).sum((0, 1)) / np.sqrt(n)).max() < limit  # and its successor in time
    for bit in (0, 31, 63):
        lanes = bits[:, :, bit].T @ bits[:, :, bit] / np.sqrt(len(bits))
        assert np.abs(lanes[np.triu_indices(64, 1)]).max() < limit


@pytest.mark.parametrize("p", [0.0, 1e-18, 0.3, 0.5, 1 - 1e-15, 1.0])
def test_threshold(p):
    q = 1e-15 if p == 1 - 1e-15 else 1 - p
    assert abs(_threshold(p, q) - p * 2**64) <= max(1, 2.0**11)
    assert abs((2**64 - _threshold(p, q)) - q * 2**64) <= 1 + q * 2**12


def test_words_are_random_numbers_below_thresholds():
    """Bit by bit: the comparison of 64-bit numbers with the threshold of each site's sum of neighbours."""
    rng = np.random.default_rng(1)
    L = kernels.LANES
    table = [int(x) for x in rng.integers(0, 2**64, 5, np.uint64)]
    table[4] = MASK
    normal = [table[0], table[0] ^ table[1], table[0] ^ table[2], 0, table[0] ^ table[4]]
    normal[3] = table[0] ^ table[1] ^ table[2] ^ table[3]
    masks = np.array([[MASK * (x >> (63 - k) & 1) for x in normal] for k in range(64)], np.uint64)
    sums = rng.integers(0, 5, (L, 64))
    work = np.zeros(kernels.WORK, np.uint64)
    words = lambda bits: (bits.astype(np.uint64) << np.arange(64, dtype=np.uint64)).sum(axis=1)  # noqa: E731
    for place, bits in (
        (kernels.B0, sums & 1), (kernels.B1, sums >> 1 & 1), (kernels.B2, sums >> 2), (kernels.B01, sums == 3)
    ):  # fmt: skip
        work[place : place + L] = words(np.asarray(bits))
    G = rng.integers(1, 2**64, (2, L), np.uint64)
    work[kernels.G0 : kernels.G0 + L], work[kernels.G1 : kernels.G1 + L] = G
    kernels.draw_words(work, masks)
    for lane in range(L):
        s, numbers = (int(G[0, lane]), int(G[1, lane])), [0] * 64
        for _ in range(64):
            word, *s = xoroshiro(*s)
            numbers = [2 * number + (word >> i & 1) for i, number in enumerate(numbers)]
        expected = sum((numbers[i] < table[sums[lane, i]]) << i for i in range(64))
        assert int(work[kernels.NEW + lane]) == expected


# ---- Ising -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "periodic", "J", "h"),
    [
        ((4, 4), True, 0.3, 0.1),
        ((4, 4), True, -0.4, 0.0),
        ((3, 3), True, 0.3, 0.1),  # no checkerboard
        ((3, 5), False, 0.4, -0.2),
        ((1, 7), False, 0.8, 0.2),
        ((6, 2), False, 0.5, 0.0),
        ((1, 1), False, 0.5, 0.3),
    ],
)
def test_ising_against_enumeration(shape, periodic, J, h):
    states = 2 * grid_states(shape, 2) - 1
    M = states.sum((1, 2))
    energy = -J * grid_sums(states, periodic) - h * M
    p = np.exp(-energy)
    chain = ising_gibbs(shape, J, h, 400_000, burn_in=100, periodic=periodic, random_state=2)
    classes, code = np.unique(np.round(np.stack([energy, M]), 9), axis=1, return_inverse=True)
    kept = slice(None, None, 20)  # then almost independent
    seen = np.round(np.stack([chain.energy[kept], chain.magnetisation[kept]]), 9)
    found = np.array([(seen == column[:, None]).all(axis=0).sum() for column in classes.T])
    assert found.sum() == seen.shape[1]
    chi_square(found, np.bincount(code, p) / p.sum())


@pytest.mark.parametrize("periodic", [True, False])
def test_stationary_distribution_stays(periodic):
    """States drawn from the model, one sweep: they are still of the model, each by itself, and independent."""
    shape, J, h = (4, 4), 0.35, 0.15
    states = 2 * grid_states(shape, 2) - 1
    p = np.exp(J * grid_sums(states, periodic) + h * states.sum((1, 2)))
    p /= p.sum()
    rng = np.random.default_rng(3)
    M = np.zeros(17)
    corner = np.zeros(16)
    for start in rng.choice(len(p), 3000, p=p):
        state = ising_gibbs(states[start], J, h, 1, periodic=periodic, random_state=rng).state
        M[(state.sum() + 16) // 2] += 1
        corner[codes_of((state[:2, -2:] + 1) // 2, (2,) * 4)] += 1
    chi_square(M, np.bincount((states.sum((1, 2)) + 16) // 2, p))
    chi_square(corner, np.bincount(codes_of((states[:, :2, -2:] + 1) // 2, (2,) * 4), p))


@pytest.mark.parametrize(
    ("shape", "periodic"),
    [((5, 7), False), ((1, 5), False), ((3, 1), False), ((5, 130), False), ((7, 129), False), ((2, 256), False),
     ((4, 6), True), ((6, 130), True), ((4, 128), True), ((140, 256), True), ((5, 6), True)],
)  # fmt: skip
def test_records_are_those_of_the_states(shape, periodic):
    chain = ising_gibbs(shape, 0.3, 0.1, n_sweeps=7, periodic=periodic, thin=3, random_state=4)
    assert chain.samples.shape == (2, *shape)
    assert chain.samples.dtype == chain.state.dtype == np.int8
    for k, state in ((2, chain.samples[0]), (5, chain.samples[1]), (6, chain.state)):
        s = state.astype(int)
        assert set(np.unique(s)) <= {-1, 1}
        assert chain.magnetisation[k] == s.sum()
        np.testing.assert_allclose(chain.energy[k], -0.3 * grid_sums(s, periodic) - 0.1 * s.sum(), rtol=1e-12)


def test_start_is_kept_and_not_modified():
    """With a coupling that is too strong for chance, each site keeps the majority; the zeroth sweep changes nothing."""
    start = np.where(np.random.default_rng(5).random((30, 70)) < 0.5, 1, -1)
    start.flags.writeable = False
    chain = ising_gibbs(start[::1, ::1], 0.2, n_sweeps=0)
    assert (chain.state == start).all()
    assert chain.energy.shape == (0,)
    assert (ising_gibbs(np.ones((8, 256), int), 30.0, n_sweeps=5, random_state=0).state == 1).all()
    checkered = np.indices((8, 66)).sum(0) % 2 * 2 - 1
    for periodic in (True, False):
        chain = ising_gibbs(checkered, -30.0, n_sweeps=5, periodic=periodic, random_state=0)
        assert (chain.state == checkered).all()
    assert (ising_gibbs((5, 9), 0.1, 500.0, n_sweeps=1, periodic=False).state == 1).all()
    np.testing.assert_array_equal(
        ising_gibbs(start[:, ::2], 0.2, n_sweeps=3, periodic=False, random_state=0).state,
        ising_gibbs(start[:, ::2].copy(), 0.2, n_sweeps=3, periodic=False, random_state=0).state,
    )


def onsager_energy(J):
    k = 2 * np.sinh(2 * J) / np.cosh(2 * J) ** 2
    return -J / np.tanh(2 * J) * (1 + 2 / np.pi * (2 * np.tanh(2 * J) ** 2 - 1) * ellipk(k**2))


@pytest.mark.parametrize("J", [0.2, 0.35, 0.42, 0.5])
def test_onsager(J):
    """Energy per site of the infinite lattice (Onsager 1944), magnetisation below the critical temperature (Yang)."""
    L = 512
    start = np.ones((L, L), int) if J > 0.44 else (L, L)
    chain = ising_gibbs(start, J, n_sweeps=2000, burn_in=1000, random_state=6)

    def check(draws, expected):
        error = draws.std() / np.sqrt(effective_sample_size(draws[None]))
        assert error < 1e-3
        assert abs(draws.mean() - expected) < Z * error

    check(chain.energy / L**2, onsager_energy(J))
    if J > 0.44:
        check(chain.magnetisation / L**2, (1 - np.sinh(2 * J) ** -4) ** (1 / 8))


def test_ising_threads_and_seeds():
    kwargs = {"coupling": 0.4, "field": 0.05, "n_sweeps": 4, "random_state": 7}
    for shape, periodic in (((300, 512), True), ((301, 200), False)):
        chains = [ising_gibbs(shape, n_threads=threads, periodic=periodic, **kwargs) for threads in (None, 1, 2, 7)]
        for other in chains[1:]:
            assert (other.state == chains[0].state).all()
            assert (other.energy == chains[0].energy).all()
    assert (ising_gibbs(shape, **{**kwargs, "random_state": 8}, periodic=False).state != chains[0].state).any()
    rng = np.random.default_rng(7)
    again = ising_gibbs(shape, **{**kwargs, "random_state": rng}, periodic=False)
    assert (again.state == chains[0].state).all()
    assert (ising_gibbs(shape, **{**kwargs, "random_state": rng}, periodic=False).state != again.state).any()


def test_ising_any_couplings():
    """Per-edge couplings and fields, over all states of a 3 x 3 torus."""
    rng = np.random.default_rng(8)
    J, h = rng.normal(0, 0.5, (2, 3, 3)), rng.normal(0, 0.5, (3, 3))
    states = 2 * grid_states((3, 3), 2) - 1
    energy = -grid_sums(states, True, J) - (h * states).sum((1, 2))
    chain = ising_gibbs((3, 3), J, h, 100_000, thin=10, random_state=9)
    p = np.exp(-energy)
    code = codes_of((chain.samples + 1) // 2, (2,) * 9)
    np.testing.assert_allclose(chain.energy[9::10], energy[code], rtol=1e-9, atol=1e-9)
    assert (chain.magnetisation[9::10] == chain.samples.sum((1, 2))).all()
    chi_square(np.bincount(code, minlength=512), p / p.sum())


def test_ising_general_path_agrees_with_bits():
    """The same model through both: means over long chains. Two comparisons, each at LEVEL."""
    chains = [
        ising_gibbs((8, 8), J, 0.05, 20_000, burn_in=100, random_state=10) for J in (0.3, np.full((2, 8, 8), 0.3))
    ]
    for name in ("energy", "magnetisation"):
        draws = [getattr(chain, name).astype(float) for chain in chains]
        error = np.sqrt(sum(d.var() / effective_sample_size(d[None]) for d in draws))
        assert abs(draws[0].mean() - draws[1].mean()) < Z * error


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"lattice": (4, 0)}, "at least one row"),
        ({"lattice": np.ones((0, 3), int)}, "at least one row"),
        ({"lattice": (4, 4, 4)}, "lattice must be a shape"),
        ({"lattice": (4.0, 4.0)}, "lattice must be a shape"),
        ({"lattice": np.zeros((4, 4), int)}, "must hold states -1 and 1"),
        ({"lattice": np.ones((4, 4))}, "lattice must be a shape"),
        ({"lattice": (2, 4)}, "at least 3 rows"),
        ({"coupling": np.nan}, "coupling must be finite"),
        ({"coupling": np.inf}, "coupling must be finite"),
        ({"coupling": np.ones(3)}, "coupling must be a number or have shape"),
        ({"field": np.ones((4, 5))}, "field must be a number or have shape"),
        ({"n_sweeps": -1}, "n_sweeps"),
        ({"n_sweeps": 1.5}, "n_sweeps"),
        ({"burn_in": -1}, "burn_in"),
        ({"thin": 0}, "thin"),
        ({"n_threads": 0}, "n_threads"),
    ],
)
def test_ising_refuses(kwargs, match):
    with pytest.raises(ValueError, match=match):
        ising_gibbs(**{"lattice": (4, 4), "coupling": 0.1, **kwargs})


def test_potts_against_enumeration():
    rng = np.random.default_rng(11)
    shape, q = (2, 3), 3
    J, h = rng.normal(0, 0.7, (2, *shape)), rng.normal(0, 0.5, (*shape, q))
    states = grid_states(shape, q)
    energy = -sum(grid_sums((states == k).astype(float), False, J) for k in range(q))
    energy -= np.take_along_axis(np.broadcast_to(h, (len(states), *h.shape)), states[..., None], 3).sum((1, 2, 3))
    chain = potts_gibbs(shape, J, q, h, 200_000, thin=10, periodic=False, random_state=12)
    assert chain.magnetisation is None
    assert chain.samples.dtype == np.uint8
    code = codes_of(chain.samples, (q,) * 6)
    np.testing.assert_allclose(chain.energy[9::10], energy[code], rtol=1e-9, atol=1e-9)
    p = np.exp(-energy)
    chi_square(np.bincount(code, minlength=q**6), p / p.sum())
    with pytest.raises(ValueError, match="states 0 to 2"):
        potts_gibbs(np.full((3, 3), 3), 1.0, 3)
    with pytest.raises(ValueError, match="n_states"):
        potts_gibbs((3, 3), 1.0, 1)


# ---- clusters --------------------------------------------------------------------------------------------------------

EDGES = np.array([(2, 3), (1, 2), (0, 1), (3, 0), (0, 2), (4, 1), (4, 1)])  # in this order trees grow deep


def graph_energy(states, J, h, q):
    """Of all states (n, nodes); h (nodes, q)."""
    same = states[:, EDGES[:, 0]] == states[:, EDGES[:, 1]]
    if q is None:
        return -(np.where(same, 1, -1) * J).sum(1) - (h * (2 * states - 1)).sum(1)
    return -(same * J).sum(1) - h[np.arange(states.shape[1]), states].sum(1)


@pytest.mark.parametrize(("q", "with_field"), [(None, False), (None, True), (2, True), (3, False), (4, True)])
def test_swendsen_wang_against_enumeration(q, with_field):
    rng = np.random.default_rng(13)
    J = rng.random(len(EDGES))
    J[3] = 0
    h = rng.normal(0, 0.6, (6,) if q is None else (6, q)) * with_field  # node 5 has no edge
    k = q or 2
    states = np.stack(np.unravel_index(np.arange(k**6), (k,) * 6), axis=1)
    energy = graph_energy(states, J, h, q)
    chains = swendsen_wang(
        EDGES, 6, J, q, h if with_field else None, 60_000, burn_in=50, thin=6, n_chains=2, random_state=14
    )
    assert chains.samples.shape == (2, 10_000, 6)
    assert chains.energy.shape == chains.n_clusters.shape == (2, 10_000)
    assert chains.n_clusters.min() >= 2
    assert chains.n_clusters.max() <= 6
    code = codes_of(chains.samples if q else (chains.samples + 1) // 2, (k,) * 6)
    np.testing.assert_allclose(chains.energy.ravel(), energy[code], rtol=1e-9, atol=1e-9)
    p = np.exp(-energy)
    chi_square(np.bincount(code, minlength=k**6), p / p.sum())


def kaufman_energy(L, K, step=1e-5):
    """Exact mean energy of the L x L torus (Kaufman 1949, eq. 48), in units of kT."""

    def log_z(K):
        r = np.arange(L)
        ch = np.cosh(2 * K) / np.tanh(2 * K)
        odd = np.arccosh(ch - np.cos((2 * r + 1) * np.pi / L))
        even = np.arccosh(ch - np.cos(2 * r * np.pi / L))
        even[0] = 2 * K + np.log(np.tanh(K))
        terms, signs = [], []
        for gamma in (odd, even):
            x = L * gamma / 2
            for sign in (1, -1):
                terms.append((np.abs(x) + np.log1p(sign * np.exp(-2 * np.abs(x)) + 0.0)).sum())
                signs.append(np.prod(np.sign(x)) if sign < 0 else 1.0)
        top = max(terms)
        return L * L / 2 * np.log(2 * np.sinh(2 * K)) + top + np.log(np.dot(signs, np.exp(np.array(terms) - top)) / 2)

    return -K * (log_z(K + step) - log_z(K - step)) / (2 * step)


def torus(L):
    site = np.arange(L * L).reshape(L, L)
    return np.concatenate([np.stack([site, np.roll(site, -1, axis)], 2).reshape(-1, 2) for axis in (0, 1)])


def test_exact_solution_is_right():
    states = 2 * grid_states((4, 4), 2) - 1
    E = -0.44 * grid_sums(states, True)
    np.testing.assert_allclose(kaufman_energy(4, 0.44), np.average(E, weights=np.exp(-E)), rtol=1e-7)


def test_critical_behaviour():
    """At the critical point: the exact energy of a 32 x 32 torus from both samplers; clusters forget much sooner."""
    L, K = 32, np.log(1 + np.sqrt(2)) / 2
    clusters = swendsen_wang(torus(L), L * L, K, n_sweeps=3000, burn_in=100, n_chains=2, thin=1, random_state=15)
    single = ising_gibbs((L, L), K, n_sweeps=100_000, burn_in=1000, random_state=16)
    exact = kaufman_energy(L, K)
    for draws in (clusters.energy, single.energy[None]):
        error = draws.std() / np.sqrt(effective_sample_size(draws))
        assert abs(draws.mean() - exact) < Z * error
        assert error < 0.01 * abs(exact)
    magnetic = np.abs(clusters.samples.sum(2, dtype=float)), np.abs(single.magnetisation.astype(float))[None]
    share = [effective_sample_size(draws) / draws.size for draws in magnetic]
    assert share[0] > 20 * share[1]


def test_swendsen_wang_threads_seeds_and_start():
    kwargs = {"edges": torus(8), "n_nodes": 64, "coupling": 0.4, "n_sweeps": 20}
    chains = [swendsen_wang(**kwargs, n_chains=3, random_state=17, n_threads=threads) for threads in (1, 2)]
    assert (chains[0].samples == chains[1].samples).all()
    alone = swendsen_wang(**kwargs, n_chains=1, random_state=17)
    assert (alone.samples[0] == chains[0].samples[0]).all()
    assert (chains[0].samples[1] != chains[0].samples[0]).any()
    frozen = swendsen_wang(torus(8), 64, 40.0, 5, n_sweeps=3, start=np.full(64, 2), random_state=0)
    assert (np.ptp(frozen.samples, axis=2) == 0).all()
    assert (frozen.n_clusters == 1).all()
    free = swendsen_wang(np.empty((0, 2), int), 3, 1.0, n_sweeps=5)
    assert (free.n_clusters == 3).all()
    assert swendsen_wang(**kwargs | {"n_sweeps": 7}, thin=3).energy.shape == (1, 2)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"coupling": -0.1}, "must not be negative"),
        ({"coupling": np.nan}, "finite"),
        ({"coupling": np.ones(3)}, "coupling must be a number or have shape"),
        ({"edges": [(0, 3)]}, "nodes 0 to 2"),
        ({"edges": [(-1, 0)]}, "nodes 0 to 2"),
        ({"edges": [(1, 1)]}, "joins a node with itself"),
        ({"edges": [(0.0, 1.0)]}, "edges must be integers"),
        ({"edges": [0, 1]}, "edges must be integers"),
        ({"n_states": 1}, "n_states"),
        ({"field": np.ones(2)}, "field"),
        ({"start": np.zeros(3, int)}, "-1 and 1"),
        ({"start": np.ones(4, int)}, "start must be integers of shape"),
        ({"n_chains": 0}, "n_chains"),
        ({"thin": 0}, "thin"),
        ({"thin": None}, "thin"),
        ({"n_nodes": 0}, "n_nodes"),
    ],
)
def test_swendsen_wang_refuses(kwargs, match):
    with pytest.raises(ValueError, match=match):
        swendsen_wang(**{"edges": [(0, 1), (1, 2)], "n_nodes": 3, "coupling": 0.1, **kwargs})


# ---- diagnostics -----------------------------------------------------------------------------------------------------


def slow_r_hat(draws):
    """Gelman et al. 2013, eqs. 11.1 to 11.4, on halves."""
    n = draws.shape[1] // 2
    halves = [half for chain in draws for half in (chain[:n], chain[-n:])]
    m = len(halves)
    means = [sum(half) / n for half in halves]
    B = n / (m - 1) * sum((mean - sum(means) / m) ** 2 for mean in means)
    W = sum(sum((x - mean) ** 2 for x in half) / (n - 1) for half, mean in zip(halves, means, strict=True)) / m
    return np.sqrt(((n - 1) / n * W + B / n) / W)


def slow_ess(draws):
    """Vehtari et al. 2021, eqs. 10 to 13, term by term; Geyer's initial monotone sequence."""
    n = draws.shape[1] // 2
    halves = np.array([half for chain in draws for half in (chain[:n], chain[-n:])])
    m = len(halves)
    s2 = halves.var(axis=1, ddof=1)
    W = s2.mean()
    var_plus = (n - 1) / n * W + halves.mean(axis=1).var(ddof=1)
    centred = halves - halves.mean(axis=1, keepdims=True)

    def rho(t):
        # autocorrelations with the divisor n; times s2 as eq. 10 has it, s2 with the divisor n - 1
        c = [(x[: n - t] * x[t:]).sum() / (x * x).sum() for x in centred]
        return 1 - (W - np.mean(s2 * c)) / var_plus

    total, last, t = 0.0, np.inf, 0
    while t + 1 < n:
        pair = (1.0 if t == 0 else rho(t)) + rho(t + 1)
        if not pair > 0:
            break
        last = min(last, pair)
        total += last
        t += 2
    return m * n / max(2 * total - 1, 1 / np.log10(m * n))


def autoregressive(rng, phi, chains, n):
    x = rng.standard_normal((chains, n))
    x[:, 0] /= np.sqrt(1 - phi**2)
    for t in range(1, n):
        x[:, t] += phi * x[:, t - 1]
    return x


@pytest.mark.parametrize("n", [4, 5, 50, 201])
def test_diagnostics_by_definition(n):
    rng = np.random.default_rng(18)
    for phi in (-0.5, 0.0, 0.8):
        draws = autoregressive(rng, phi, 3, n) + rng.standard_normal((3, 1)) * 0.3
        np.testing.assert_allclose(r_hat(draws), slow_r_hat(draws), rtol=1e-12)
        np.testing.assert_allclose(effective_sample_size(draws), slow_ess(draws), rtol=1e-9)
    many = rng.standard_normal((3, n, 2, 5))
    for function in (r_hat, effective_sample_size, lambda x: r_hat(x, rank_normalized=True)):
        table = function(many)
        assert table.shape == (2, 5)
        np.testing.assert_allclose(table[1, 3], function(many[:, :, 1, 3]), rtol=1e-9)
        np.testing.assert_allclose(function(1e8 + 3 * many[:, :, 0, 0]), function(many[:, :, 0, 0]), rtol=1e-5)


@pytest.mark.parametrize("phi", [-0.3, 0.0, 0.5, 0.9])
def test_effective_sample_size_of_ar1(phi):
    """n (1 - phi) / (1 + phi); the estimate has an error of a few per cent for chains of this length."""
    draws = autoregressive(np.random.default_rng(19), phi, 4, 50_000)
    expected = draws.size * (1 - phi) / (1 + phi)
    np.testing.assert_allclose(effective_sample_size(draws), expected, rtol=0.06)
    assert abs(r_hat(draws) - 1) < 1e-3


def test_r_hat_of_chains_that_disagree():
    """Means 0 and d, variance 1: R-hat^2 = 1 + var of the half-chains' means = 1 + d^2 / 3 for long chains."""
    rng = np.random.default_rng(20)
    draws = rng.standard_normal((2, 100_000)) + np.array([[0.0], [3.0]])
    np.testing.assert_allclose(r_hat(draws), np.sqrt(1 + 9 / 3), rtol=0.01)
    scales = rng.standard_normal((4, 2000)) * np.array([[1], [1], [1], [3.0]])
    assert r_hat(scales) < 1.02
    assert r_hat(scales, rank_normalized=True) > 1.1
    cauchy = rng.standard_cauchy((4, 1000))
    assert r_hat(cauchy, rank_normalized=True) < 1.01
    assert np.isnan(r_hat(np.ones((2, 10))))
    assert np.isnan(effective_sample_size(np.ones((2, 10))))
    assert r_hat(np.array([[0.0] * 8, [1.0] * 8])) == np.inf
    for bad in (np.ones(8), np.ones((2, 3)), np.full((2, 8), np.nan), np.full((2, 8), np.inf)):
        with pytest.raises(ValueError, match="draws"):
            r_hat(bad)


# ---- factor graphs ---------------------------------------------------------------------------------------------------


def random_graph(rng, cardinalities, scopes):
    return FactorGraph.of(cardinalities, [(s, 0.2 + rng.random([cardinalities[v] for v in s])) for s in scopes])


def joint(graph):
    """p(x) of all states."""
    names = list(range(graph.n_variables))
    parts = [part for factor in graph.factors for part in (factor.table, list(factor.scope))]
    parts += [part for v, k in enumerate(graph.cardinalities) for part in (np.ones(k), [v])]
    table = np.einsum(*parts, names)
    return table / table.sum()


SCOPES = [(0,), (1, 0), (3, 1, 2), (2, 4), (4, 0), (3,), (3, 4), (4, 0)]


def test_gibbs_against_enumeration():
    rng = np.random.default_rng(21)
    graph = random_graph(rng, [2, 3, 2, 4, 2, 3], SCOPES)  # variable 5 is in no factor
    result = gibbs(graph, 4000, n_chains=70, thin=8, burn_in=100, random_state=22)
    assert result.samples.shape == (70, 4000, 6)
    p = joint(graph)
    chi_square(np.bincount(codes_of(result.samples, p.shape), minlength=p.size), p)
    for v, marginal in enumerate(result.marginals):
        np.testing.assert_allclose(marginal, p.sum(tuple(u for u in range(6) if u != v)), atol=0.01)
    assert result.converged
    assert result.r_hat.shape == result.effective_sample_size.shape == (6,)
    first = (result.samples[:, :, 1] == 0).astype(float)
    assert result.r_hat[1] >= r_hat(first)
    assert result.effective_sample_size[1] <= effective_sample_size(first)


def test_one_sweep_is_the_product_of_conditionals():
    """From one fixed state, 20,000 chains of one sweep: variable by variable, in an order that colours give."""
    rng = np.random.default_rng(23)
    graph = random_graph(rng, [2, 3, 2], [(0, 1), (1, 2)])
    p = joint(graph)
    result = gibbs(graph, 1, n_chains=20_000, burn_in=0, start=np.array([1, 2, 0]), random_state=24)
    # variable 1 has the most neighbours and comes first; 0 and 2 have the other colour
    given = p[1, :, 0] / p[1, :, 0].sum()
    expected = given[None, :, None] * (p.sum(2) / p.sum((0, 2)))[:, :, None] * (p.sum(0) / p.sum((0, 2))[:, None])
    chi_square(np.bincount(codes_of(result.samples, p.shape), minlength=p.size), expected)


def test_gibbs_against_engine():
    """A directed network without zeros, with and without evidence; 2 x 8 marginals, each at LEVEL."""
    rng = np.random.default_rng(25)
    k = [2] * 8
    parents = {2: (0,), 3: (1,), 4: (1,), 5: (2, 3), 6: (5,), 7: (5, 4)}  # the arcs of asia
    scopes = [(*parents.get(v, ()), v) for v in range(8)]
    graph = FactorGraph.of(k, [(s, rng.dirichlet([2, 2], [2] * (len(s) - 1))) for s in scopes])
    evidence = np.array([-1, -1, -1, -1, -1, -1, 1, 0])
    for given in (None, evidence):
        result = gibbs(graph, 5000, given, n_chains=8, random_state=26)
        exact = Engine(graph).marginals(given)[0]
        for v in range(8):
            if given is not None and given[v] >= 0:
                assert (result.samples[:, :, v] == given[v]).all()
                assert np.isnan(result.r_hat[v])
                continue
            share, p = result.marginals[v][1], exact[v][0, 1]
            assert abs(share - p) < Z * np.sqrt(p * (1 - p) / result.effective_sample_size[v])
        assert result.converged
    as_mapping = gibbs(graph, 5000, {6: 1, np.int64(7): 0}, n_chains=8, random_state=26)
    assert (as_mapping.samples == result.samples).all()


@pytest.mark.parametrize("name", ["cancer", "earthquake", "survey", "sachs"])
def test_gibbs_on_published_networks(name):
    """All states of all variables, altogether at LEVEL: networks without zeros, marginals by the engine."""
    folder = Path(os.environ.get("FASTGEN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "bif"
    if not folder.is_dir():
        pytest.skip(f"no published networks in {folder}; FASTGEN_TEST_DATA names another folder")
    graph = formats.read_bif(folder / f"{name}.bif.gz").factor_graph()
    result = gibbs(graph, 20_000, n_chains=8, random_state=36)
    limit = stats.norm.isf(LEVEL / sum(graph.cardinalities) / 2)
    for v, exact in enumerate(Engine(graph).marginals()[0]):
        for state, p in enumerate(exact[0]):
            ess = effective_sample_size((result.samples[:, :, v] == state).astype(float))
            assert abs(result.marginals[v][state] - p) < limit * np.sqrt(p * (1 - p) / ess)
    assert np.nanmax(result.r_hat) < 1.01


def test_gibbs_on_a_grid_is_the_ising_model():
    """Variables of one colour in one group: the mean energy of a 12 x 12 torus, exactly known, at LEVEL."""
    L, K = 12, 0.4
    edges = torus(L)
    table = np.exp(K * np.array([[1, -1], [-1, 1.0]]))
    graph = FactorGraph.of([2] * L * L, [(tuple(edge), table) for edge in edges])
    result = gibbs(graph, 4000, n_chains=3, burn_in=200, random_state=27)
    s = 2.0 * result.samples - 1
    energy = -K * (s[:, :, edges[:, 0]] * s[:, :, edges[:, 1]]).sum(2)
    error = energy.std() / np.sqrt(effective_sample_size(energy))
    assert abs(energy.mean() - kaufman_energy(L, K)) < Z * error
    assert error < 0.5


def test_gibbs_of_large_ratios():
    """Products of tables that are out of range one by one."""
    small = np.array([1e-200, 1.0])
    graph = FactorGraph.of([2], [([0], small)] * 3 + [([0], small[::-1])] * 3 + [([0], [0.25, 0.75])])
    share = gibbs(graph, 20_000, random_state=28, n_chains=1).marginals[0][0]
    assert abs(share - 0.25) < Z * np.sqrt(0.25 * 0.75 / 20_000)
    tiny = FactorGraph.of([3], [([0], np.array([1e-320, 2e-320, 1e-320]))])
    assert abs(gibbs(tiny, 20_000, random_state=29, n_chains=1).marginals[0][1] - 0.5) < Z * np.sqrt(0.25 / 20_000)


def test_hard_zeros():
    """Proper 3-colourings of a cycle with a chord: starts are found, impossible states never visited."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3)]
    differ = 1.0 - np.eye(3)
    graph = FactorGraph.of([3] * 6, [(edge, differ) for edge in edges])
    result = gibbs(graph, 30_000, n_chains=64, thin=10, random_state=30, burn_in=50)
    for a, b in edges:
        assert (result.samples[:, :, a] != result.samples[:, :, b]).all()
    p = joint(graph)
    chi_square(np.bincount(codes_of(result.samples[:, ::10], p.shape), minlength=p.size), p)
    result = gibbs(graph, 10, {0: 1, 1: 2}, random_state=31)
    assert (result.samples[:, :, :2] == [1, 2]).all()
    complete = [(a, b) for a in range(4) for b in range(a)]
    with pytest.raises(ValueError, match="probability zero"):
        gibbs(FactorGraph.of([3] * 4, [(edge, differ) for edge in complete]), 10)
    with pytest.raises(ValueError, match="evidence is impossible"):
        gibbs(graph, 10, {0: 1, 1: 1})
    with pytest.raises(ValueError, match="start of chain 0 is impossible"):
        gibbs(graph, 10, start=np.zeros(6, int))


@pytest.mark.parametrize("seed", range(60))
def test_search_finds_states_if_there_are_any(seed):
    """Random constraints of 1 to 3 variables, about half of them contradictory, against all states."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    sizes = tuple(rng.integers(1, 5, n).tolist())
    factors = []
    for _ in range(int(rng.integers(0, 9))):
        scope = tuple(rng.permutation(n)[: rng.integers(1, 4)].tolist())
        factors.append((scope, (rng.random([sizes[v] for v in scope]) < 0.45).astype(float)))
    base = np.concatenate([[0], np.cumsum(sizes)])
    possible = rng.random(base[-1]) < 0.95
    X = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    good = possible[base[:-1] + X].all(axis=1)
    for scope, table in factors:
        good &= table[tuple(X[:, v] for v in scope)] > 0
    search = Search.of_factors(sizes, factors)
    score, before = rng.random(base[-1]), possible.copy()
    if not good.any():
        with pytest.raises(ValueError, match="probability zero"):
            search.state(score, possible)
    else:
        kinds = set(map(tuple, X[good].tolist()))
        drawn = {tuple(search.state(rng.random(base[-1]), possible).tolist()) for _ in range(200)}
        assert drawn <= kinds
        assert len(drawn) > 1 or len(kinds) == 1
        assert tuple(search.state(score, possible).tolist()) == tuple(search.state(score, possible).tolist())
    assert (possible == before).all()


def test_search_takes_what_scores_highest():
    differ = 1.0 - np.eye(3)
    search = Search.of_factors((3, 3, 2), [((0, 1), differ)])
    score = np.array([0.1, 0.9, 0.5, 0.1, 0.8, 0.7, 0.2, 0.3])
    np.testing.assert_array_equal(search.state(score), [1, 2, 1])
    np.testing.assert_array_equal(search.state(score, np.array([1, 0, 1, 1, 1, 1, 1, 0], bool)), [2, 1, 0])
    np.testing.assert_array_equal(Search.of_factors((), []).state(np.zeros(0)), [])


def test_search_of_large_graphs():
    """Colourings of a grid and of a random graph; a chain of equal states is settled by the first."""
    site = np.arange(300 * 300).reshape(300, 300)
    edges = [
        (a, b)
        for one, other in ((site[1:], site[:-1]), (site[:, 1:], site[:, :-1]))
        for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    ]
    rng = np.random.default_rng(0)
    far = np.sort(rng.integers(0, 3000, (6000, 2)), axis=1)
    far = far[far[:, 0] < far[:, 1]].tolist()
    for K, n, pairs in ((3, site.size, edges), (2, site.size, edges), (5, 3000, far)):
        differ = 1.0 - np.eye(K)
        x = Search.of_factors((K,) * n, [(tuple(pair), differ) for pair in pairs]).state(rng.random(n * K))
        ends = np.array(pairs)
        assert (x[ends[:, 0]] != x[ends[:, 1]]).all()
    chain = Search.of_factors((4,) * 500, [((v, v + 1), np.eye(4)) for v in range(499)])
    assert len(set(chain.state(rng.random(2000)).tolist())) == 1


def test_search_gives_up():
    """Pigeons: 12 in 11 holes, which such a search would not be done with in years."""
    differ = 1.0 - np.eye(11)
    pigeons = [((a, b), differ) for a in range(12) for b in range(a)]
    with pytest.raises(NothingFoundError, match="pass one as start"):
        Search.of_factors((11,) * 12, pigeons).state(np.zeros(132))


def test_chains_that_cannot_move_show():
    """x = y, which single changes cannot leave: constant chains, which differ."""
    graph = FactorGraph.of([2, 2], [([0, 1], np.eye(2))])
    result = gibbs(graph, 100, n_chains=8, random_state=0)
    assert (result.samples[:, :, 0] == result.samples[:, :, 1]).all()
    assert (result.r_hat == np.inf).all()
    assert not result.converged


def test_gibbs_threads_and_seeds():
    rng = np.random.default_rng(32)
    graph = random_graph(rng, [2, 3, 2, 4, 2, 3], SCOPES)
    results = [gibbs(graph, 50, n_chains=150, random_state=33, n_threads=threads) for threads in (1, 2, 5)]
    for other in results[1:]:
        assert (other.samples == results[0].samples).all()
    assert (gibbs(graph, 50, n_chains=150, random_state=34).samples != results[0].samples).any()
    thinned = gibbs(graph, 10, n_chains=3, burn_in=0, thin=5, random_state=35)
    every = gibbs(graph, 50, n_chains=3, burn_in=0, random_state=35)
    assert (thinned.samples == every.samples[:, 4::5]).all()
    later = gibbs(graph, 20, n_chains=3, burn_in=30, random_state=35)
    assert (later.samples == every.samples[:, 30:]).all()


def test_gibbs_of_little():
    assert gibbs(FactorGraph.of([], []), 3).samples.shape == (4, 3, 0)
    assert (gibbs(FactorGraph.of([1], []), 3).samples == 0).all()
    assert not gibbs(FactorGraph.of([2], []), 3).converged
    wide = gibbs(FactorGraph.of([300], [([0], np.arange(300.0))]), 2000, n_chains=2, random_state=0)
    assert wide.samples.dtype == np.uint16
    assert wide.samples.min() > 0
    observed = gibbs(FactorGraph.of([2, 2], [([0, 1], np.ones((2, 2)))]), 5, [1, 0])
    assert (observed.samples == [1, 0]).all()
    assert isinstance(observed, Chains)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"n_chains": 0}, "n_chains"),
        ({"thin": 0}, "thin"),
        ({"burn_in": -1}, "burn_in"),
        ({"evidence": [0]}, "evidence must be integers of shape"),
        ({"evidence": [0.0, 1.0]}, "evidence must be integers of shape"),
        ({"evidence": [2, -1]}, "evidence holds 2 for variable 0"),
        ({"evidence": [-2, 0]}, "evidence holds -2"),
        ({"evidence": {3: 0}}, "numbered from 0 to 1"),
        ({"evidence": {"a": 0}}, "numbered from 0 to 1"),
        ({"evidence": {0: True}}, "states as integers"),
        ({"start": [0]}, "start must be integers of shape"),
        ({"start": [0, 5]}, "start holds 5 for variable 1"),
        ({"start": [0, 0], "evidence": [1, -1]}, "expected the evidence"),
    ],
)
def test_gibbs_refuses(kwargs, match):
    graph = FactorGraph.of([2, 2], [([0, 1], [[1, 2], [2, 1.0]])])
    with pytest.raises(ValueError, match=match):
        gibbs(graph, **{"n_samples": 10, **kwargs})
