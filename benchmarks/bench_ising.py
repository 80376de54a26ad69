"""Gibbs sampling of Ising spins against Numba and NumPy, on one thread; a restricted Boltzmann machine against sklearn.

Answers of samplers are means: energies per site after some sweeps, within five standard errors or more.
"""

import time

import numpy as np
import pytest
from numba import njit
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM
from versus import Side

import fastgen
from fastgen.graphical._sampling import ising_gibbs
from fastgen.graphical.boltzmann import RestrictedBoltzmannMachine

J, SWEEPS = 0.4, 50


@njit(error_model="numpy")
def plain(s, J, sweeps, seed):
    np.random.seed(seed)  # noqa: NPY002 - Numba's
    L = len(s)
    for _ in range(sweeps):
        for colour in range(2):
            for i in range(L):
                up, down = s[(i - 1) % L], s[(i + 1) % L]
                for j in range((i + colour) % 2, L, 2):
                    total = up[j] + down[j] + s[i, (j - 1) % L] + s[i, (j + 1) % L]
                    p = 1 / (1 + np.exp(-2 * J * total))
                    s[i, j] = 1 if np.random.random() < p else -1  # noqa: NPY002
    return s


@njit(error_model="numpy")
def with_xorshift(s, thresholds, sweeps, seed):
    """Own generator, and thresholds instead of exponentials."""
    x, L = np.uint64(seed), len(s)
    for _ in range(sweeps):
        for colour in range(2):
            for i in range(L):
                up, down, row = s[i - 1 if i else L - 1], s[i + 1 if i + 1 < L else 0], s[i]
                for j in range((i + colour) & 1, L, 2):
                    total = up[j] + down[j] + row[j - 1 if j else L - 1] + row[j + 1 if j + 1 < L else 0]
                    x ^= x << np.uint64(13)
                    x ^= x >> np.uint64(7)
                    x ^= x << np.uint64(17)
                    row[j] = 1 if (x >> np.uint64(32)) < thresholds[(total + 4) >> 1] else -1
    return s


def by_numpy(s, J, sweeps, seed):
    rng = np.random.default_rng(seed)
    L = len(s)
    colours = [np.indices((L, L)).sum(0) % 2 == colour for colour in range(2)]
    table = expit(2 * J * np.arange(-4, 5)).astype(np.float32)
    for _ in range(sweeps):
        for mask in colours:
            total = np.roll(s, 1, 0) + np.roll(s, -1, 0) + np.roll(s, 1, 1) + np.roll(s, -1, 1)
            new = np.where(rng.random((L, L), np.float32) < table[total + 4], np.int8(1), np.int8(-1))
            s = np.where(mask, new, s)
    return s


def energy(s):
    s = s.astype(np.int64)
    return -(s * (np.roll(s, 1, 0) + np.roll(s, 1, 1))).mean()


def test_ising(versus, quick):
    L, few = 512, SWEEPS // 10
    start = np.where(np.random.default_rng(0).random((L, L)) < 0.5, 1, -1).astype(np.int8)
    thresholds = (expit(2 * J * np.arange(-4.0, 5, 2)) * 2**32).astype(np.uint64)
    with fastgen.num_threads(1):
        versus(
            f"ising_gibbs, {L} x {L}, {SWEEPS} sweeps",
            Side(lambda: ising_gibbs(start, J, n_sweeps=SWEEPS, random_state=0).state, energy),
            {
                "Numba": Side(lambda: plain(start.copy(), J, SWEEPS, 1), energy),
                "Numba, own xorshift": Side(lambda: with_xorshift(start.copy(), thresholds, SWEEPS, 88172645), energy),
                "NumPy": Side(
                    lambda: by_numpy(start, J, few, 3),
                    energy,
                    part=few / SWEEPS,
                    counterpart=lambda: ising_gibbs(start, J, n_sweeps=few, random_state=4).state,
                ),
            },
            rtol=0,
            atol=0.02,
            threads=1,
            targets=None if quick else {("Numba, own xorshift",): 3},
        )


@pytest.mark.parametrize("L", [128, 512, 4096])
def test_ns_per_site(table, quick, L):
    """Of the fastest of some calls; energy and magnetisation are recorded after each sweep."""
    sweeps = 2 if quick else max(40, (1 << 26) // L**2)  # of one call, which packs and unpacks the spins
    times = []
    with fastgen.num_threads(1):
        state = ising_gibbs((L, L), J, n_sweeps=2, random_state=0).state
        for seed in range(3 if quick or L > 1000 else 15):
            start = time.perf_counter()
            ising_gibbs(state, J, n_sweeps=sweeps, random_state=seed)
            times.append(1e9 * (time.perf_counter() - start) / (sweeps * L**2))
    head = ["lattice", "ns per site", "target"]
    table("Ising, Gibbs sampling, one thread", head, [f"{L} x {L}", f"{min(times):.3f}", "1.2"])


def test_restricted_boltzmann_machine(versus, quick):
    """Ten passes over binary digits, 256 hidden units; answers are not compared, they are random."""
    X = (load_digits().data > 7.5).astype(np.float64)
    ours = RestrictedBoltzmannMachine(256, learning_rate=0.05, random_state=0)
    theirs = BernoulliRBM(256, learning_rate=0.05, random_state=0)
    versus(
        "RestrictedBoltzmannMachine.fit, digits, 256 hidden units",
        Side(lambda: ours.fit(X), lambda model: model.components_.shape),
        {"scikit-learn": Side(lambda: theirs.fit(X), lambda model: model.components_.shape)},
        targets=None if quick else {("scikit-learn",): 1.5},
    )
