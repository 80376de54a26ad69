"""Markov chain Monte Carlo over discrete states: Gibbs sampling, clusters, and how far to trust the draws.

Energies are in units of kT: p(x) is proportional to exp(-energy(x)).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from math import exp, expm1
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from fastgen._parallel import Body, check_n_threads, get_num_threads, run_chunks
from fastgen._validation import Array, as_floats, as_generator, check_number
from fastgen.graphical._factors import FactorGraph

__all__ = [
    "Chains",
    "GridChain",
    "effective_sample_size",
    "gibbs",
    "ising_gibbs",
    "potts_gibbs",
    "r_hat",
    "swendsen_wang",
]

_ISING_NS = 0.25  # for each site and sweep
_BAND_WORDS = 256  # of one colour; each band of a lattice has generators of its own
_CALL_NS = 5e7  # between looks at signals
_SEARCH_STEPS = 20_000
_SEARCH_AT_A_TIME = 5_000
_MOST_RANGE = 600.0  # products of factors that have such logarithms at most are in the range of float64


def _kernels() -> Any:
    return import_module("fastgen._kernels.jit.sampling")


def _generators(rng: np.random.Generator, *shape: int) -> NDArray[np.uint64]:
    """States of generators: two words each, which are not both zero. ``shape`` ends with the number of lanes."""
    return np.asarray(rng.integers(1, 2**64, (*shape[:-1], 2, shape[-1]), np.uint64))


def _seeds(rng: np.random.Generator, n: int) -> list[np.random.SeedSequence]:
    """Of n generators that do not depend on how many there are."""
    return np.random.SeedSequence(int(rng.integers(0, 2**63))).spawn(n)


def _as_starts(start: ArrayLike, n_chains: int, V: int) -> NDArray[Any]:
    """States to start from: (V,), or (n_chains, V)."""
    given = np.asarray(start)
    if given.dtype.kind not in "iu" or given.shape not in ((V,), (n_chains, V)):
        raise ValueError(
            f"start must be integers of shape ({V},) or ({n_chains}, {V}), got {given.dtype} {given.shape}"
        )
    return given


def _threshold(p: float, q: float) -> int:
    """Return p as a multiple of 2^-64; q = 1 - p. To a relative error of 2^-53 on both sides, or 2^-64."""
    return min(2**64 - 1, round(p * 2**64) if p < 0.5 else 2**64 - round(q * 2**64))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + exp(-x)) if x > -700 else 0.0


# ---- diagnostics -----------------------------------------------------------------------------------------------------


def _as_draws(draws: ArrayLike) -> Array:
    array = np.asarray(as_floats(draws, "draws"), np.float64)
    if array.ndim < 2:
        raise ValueError(f"draws must have shape (chains, n, ...), got {array.shape}")
    if array.shape[0] < 1 or array.shape[1] < 4:
        raise ValueError(f"draws must have at least one chain and 4 draws of each, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("draws must be finite, but holds NaN or infinity")
    return array


def _halves(draws: Array) -> Array:
    """Each chain as two; of an odd number of draws the middle one is left out."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _ranked(draws: Array) -> Array:
    """Normal scores of the ranks over all chains (Vehtari et al. 2021, eq. 14)."""
    from scipy.stats import rankdata  # slow to import

    n = draws.shape[0] * draws.shape[1]
    ranks = rankdata(draws.reshape(n, -1), axis=0).reshape(draws.shape)
    return np.asarray(ndtri((ranks - 0.375) / (n + 0.25)))


def _plain_r_hat(split: Array) -> Array:
    n = split.shape[1]
    within = split.var(axis=1, ddof=1).mean(axis=0)
    between = split.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((n - 1) / n + between / within))


def r_hat(draws: ArrayLike, *, rank_normalized: bool = False) -> Any:
    """Split R-hat: how much wider all chains together are than each half of a chain. 1 if they agree.

    Parameters
    ----------
    draws : array (chains, n, ...)
        At least 4 draws of each chain. Further axes are variables.
    rank_normalized : bool
        Take the larger one of the R-hat of the draws' normal scores, and of those of their distances from the median:
        for distributions with heavy tails, and chains that differ in their spread alone.

    Returns
    -------
    float, or array of the shape of further axes
        NaN where all draws are the same, infinity where chains are constant but differ.

    Raises
    ------
    ValueError
        Fewer axes or draws, NaN or infinity.

    Notes
    -----
    Gelman et al., Bayesian Data Analysis (3rd ed. 2013), eq. 11.4; Vehtari et al. 2021 (doi:10.1214/20-BA1221).
    O(chains n), or O(chains n log n) with ranks.

    >>> bool(r_hat(np.random.default_rng(0).standard_normal((4, 1000))) < 1.01)
    True
    """
    array = _as_draws(draws)
    if not rank_normalized:
        return _plain_r_hat(_halves(array))[()]
    split = _halves(array)
    folded = np.abs(split - np.median(split, axis=(0, 1)))
    return np.fmax(_plain_r_hat(_ranked(split)), _plain_r_hat(_ranked(folded)))[()]


def effective_sample_size(draws: ArrayLike) -> Any:
    """How many independent draws would tell the mean as well as these do.

    Parameters
    ----------
    draws : array (chains, n, ...)
        At least 4 draws of each chain. Further axes are variables.

    Returns
    -------
    float, or array of the shape of further axes
        At most chains n log10(chains n). NaN where all draws are the same.

    Raises
    ------
    ValueError
        Fewer axes or draws, NaN or infinity.

    Notes
    -----
    Vehtari et al. 2021 (doi:10.1214/20-BA1221), section 3.2: autocorrelations of the halves of the chains, combined and
    summed up to the end of Geyer's initial monotone sequence. O(chains n log n).
    """
    split = _halves(_as_draws(draws))
    m, n = split.shape[:2]
    flat = split.reshape(m, n, -1)
    found = np.empty(flat.shape[2])
    step = max(1, (1 << 22) // (m * n))
    for start in range(0, len(found), step):
        found[start : start + step] = _effective(flat[:, :, start : start + step])
    return found.reshape(split.shape[2:])[()]


def _effective(split: Array) -> Array:
    m, n = split.shape[:2]
    centred = split - split.mean(axis=1, keepdims=True)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=1)[:, :n].mean(axis=0) / n
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + split.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1 - (within - covariance * n / (n - 1)) / total
    rho[0] = 1
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, -1).sum(axis=1)
    ended = np.logical_or.accumulate(~(pairs > 0), axis=0)
    time = 2 * np.where(ended, 0, np.minimum.accumulate(pairs, axis=0)).sum(axis=0) - 1
    draws = m * n
    found = draws / np.maximum(time, 1 / np.log10(draws))
    return np.where(total > 0, found, np.nan)


@dataclass(frozen=True, eq=False)
class Chains:
    """Draws of discrete variables from several chains.

    Attributes
    ----------
    samples : integer array (chains, n, V)
        States.
    cardinalities : tuple of int
        The number of states of each variable; for Ising spins 2, though the states are -1 and 1.
    observed : bool array (V,)
        Which variables never moved because they were given.
    energy : array (chains, n) or None
        In units of kT, where the sampler knows it.
    n_clusters : integer array (chains, n) or None
        The number of clusters of `swendsen_wang`.
    """

    samples: NDArray[Any]
    cardinalities: tuple[int, ...]
    observed: NDArray[np.bool_]
    energy: Array | None = None
    n_clusters: NDArray[np.int64] | None = None

    @cached_property
    def marginals(self) -> list[Array]:
        """The share of each state among all draws, for each variable."""
        first, step = (-1, 2) if self.samples.dtype == np.int8 else (0, 1)
        most = max(self.cardinalities, default=0)
        shares = [(self.samples == first + step * k).mean(axis=(0, 1)) for k in range(most)]
        table = np.array(shares).reshape(most, -1).T
        return [row[:cardinality] for row, cardinality in zip(table, self.cardinalities, strict=True)]

    @cached_property
    def _diagnostics(self) -> tuple[Array, Array]:
        V = self.samples.shape[2]
        worst, least = np.full(V, np.nan), np.full(V, np.nan)
        step = max(1, (1 << 22) // max(1, self.samples[:, :, 0].size))
        for start in range(0, V, step):
            block = slice(start, start + step)
            x = self.samples[:, :, block]
            most = max(self.cardinalities[block])
            for state in [1] if most <= 2 else range(most):  # indicators: codes are names, not numbers
                hit = (x == state).astype(np.float64)
                worst[block] = np.fmax(worst[block], r_hat(hit))
                least[block] = np.fmin(least[block], effective_sample_size(hit))
        return worst, least

    @property
    def r_hat(self) -> Array:
        """Split R-hat of each variable, (V,): the largest over the indicators of its states. NaN if it never moved."""
        return self._diagnostics[0]

    @property
    def effective_sample_size(self) -> Array:
        """Effective sample size of each variable, (V,): the least over the indicators of its states."""
        return self._diagnostics[1]

    @property
    def converged(self) -> bool:
        """Whether nothing speaks against it: all R-hat below 1.01, effective sample sizes of at least 100 per chain.

        A hint and no proof: what no chain has visited leaves no trace. Variables that stayed in one state in all draws
        are not taken into account.
        """
        if self.samples.shape[1] < 4 or not self.samples.size:
            return False
        moved = ~np.isnan(self.r_hat)
        least = self.effective_sample_size[moved]
        return bool((self.r_hat[moved] < 1.01).all() and (least >= 100 * len(self.samples)).all())


# ---- grids -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class GridChain:
    """A chain over the states of a grid.

    Attributes
    ----------
    state : integer array (rows, columns)
        After the last sweep: int8 spins -1 and 1, or the states of a Potts model. What a next call may start from.
    energy : array (n_sweeps,)
        After each sweep, in units of kT.
    magnetisation : integer array (n_sweeps,) or None
        The sum of all spins after each sweep; None for a Potts model.
    samples : integer array (n_sweeps // thin, rows, columns) or None
        After every ``thin``-th sweep.
    """

    state: NDArray[Any]
    energy: Array
    magnetisation: NDArray[np.int64] | None = None
    samples: NDArray[Any] | None = None


def _grid_start(
    lattice: Any, states: tuple[int, ...], dtype: Any, rng: np.random.Generator, periodic: bool
) -> NDArray[Any]:
    """The given states, or random ones for a given shape."""
    array = np.asarray(lattice)
    if array.ndim == 1 and array.shape == (2,) and array.dtype.kind in "iu":
        shape = int(array[0]), int(array[1])
        if min(shape) < 1:
            raise ValueError(f"lattice must have at least one row and one column, got shape {shape}")
        start = rng.integers(0, len(states), shape, np.int64 if len(states) > 256 else np.uint8).astype(dtype)
        if states[0] < 0:
            start = 2 * start - 1
    elif array.ndim == 2 and array.dtype.kind in "iu":
        if array.size and (array.min() < states[0] or array.max() > states[-1] or (states[0] < 0 and not array.all())):
            shown = "-1 and 1" if states[0] < 0 else f"0 to {states[-1]}"
            raise ValueError(f"lattice must hold states {shown}, got values from {array.min()} to {array.max()}")
        start = array.astype(dtype)
    else:
        raise ValueError(
            "lattice must be a shape (rows, columns) or a 2-D array of integer states, "
            f"got {array.dtype} of shape {array.shape}"
        )
    if start.size == 0:
        raise ValueError(f"lattice must have at least one row and one column, got shape {start.shape}")
    if periodic and min(start.shape) < 3:
        raise ValueError(f"a periodic lattice needs at least 3 rows and columns, got {start.shape}: use periodic=False")
    return np.asarray(start)


def _broadcast(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    array = np.asarray(as_floats(value, name), np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")
    if array.shape == (2,) and len(shape) == 3 and shape[0] == 2:
        array = array[:, None, None]
    try:
        return np.array(np.broadcast_to(array, shape))
    except ValueError as error:
        raise ValueError(f"{name} must be a number or have shape {shape}, got {array.shape}") from error


def _grid_edges(shape: tuple[int, int], coupling: Array, periodic: bool) -> tuple[NDArray[np.intp], Array]:
    """Edges (m, 2) and their couplings: of each site with the one below, then with the one on its right."""
    site = np.arange(shape[0] * shape[1]).reshape(shape)
    edges, weights = [], []
    for axis in range(2):
        kept = (slice(None),) * axis + (slice(None if periodic else -1),)
        edges.append(np.stack([site[kept].ravel(), np.roll(site, -1, axis)[kept].ravel()], axis=1))
        weights.append(coupling[axis][kept].ravel())
    return np.concatenate(edges), np.concatenate(weights)


def _adjacency(edges: NDArray[Any], weights: Array, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    both, twice = np.concatenate([edges, edges[:, ::-1]]), np.concatenate([weights, weights])
    order = np.argsort(both[:, 0], kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=n))])
    return first.astype(np.int64), both[order, 1].astype(np.int64), twice[order]


def _check_sweeps(n_sweeps: object, burn_in: object, thin: object) -> tuple[int, int, int]:
    check_number(n_sweeps, "n_sweeps", Integral, 0)
    check_number(burn_in, "burn_in", Integral, 0)
    if thin is not None:
        check_number(thin, "thin", Integral, 1)
    return int(n_sweeps), int(burn_in), int(thin or 0)  # type: ignore[call-overload]


Advance = Callable[[int, int | None], None]
"""Make so many sweeps, and record them from this one on (None: not at all)."""


def _run(advance: Advance, n_sweeps: int, burn_in: int, thin: int, keep: Callable[[int], None]) -> None:
    if burn_in:
        advance(burn_in, None)
    step = thin or n_sweeps
    for done in range(0, n_sweeps, step or 1):
        number = min(step, n_sweeps - done)
        advance(number, done)
        if thin and number == thin:
            keep(done // thin)


def _parts(n: int, record: int | None, sweep_ns: float, *arrays: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
    """Pieces of records of n sweeps, each for one call of a kernel."""
    if record is None:
        into = [np.empty(n, array.dtype) for array in arrays]
    else:
        into = [array[record : record + n] for array in arrays]
    step = max(1, int(_CALL_NS / sweep_ns))
    for begin in range(0, n, step):
        yield [array[begin : begin + step] for array in into]


def _general_grid(
    start: NDArray[Any],
    coupling: Array,
    field: Array,
    periodic: bool,
    rng: np.random.Generator,
    sweeps: tuple[int, int, int],
) -> tuple[NDArray[Any], Array, NDArray[np.int64], NDArray[Any]]:
    """Site by site, for any couplings. Returns the last state, minus the exponents, counts of ones, states kept."""
    kernels = _kernels()
    n_sweeps, _, thin = sweeps
    edges, weights = _grid_edges(start.shape, coupling, periodic)
    first, neighbour, weight = _adjacency(edges, weights, start.size)
    x = start.ravel().astype(np.int64)
    G = _generators(rng, 1)
    energy, ones = np.empty(n_sweeps), np.empty(n_sweeps, np.int64)
    logits = np.empty(field.shape[1])
    samples = np.empty((n_sweeps // thin if thin else 0, start.size), start.dtype)

    def advance(n: int, record: int | None) -> None:
        for part in _parts(n, record, 50.0 * x.size, energy, ones):
            kernels.potts_sweeps(first, neighbour, weight, field, x, G, logits, *part)

    def keep(number: int) -> None:
        samples[number] = x

    _run(advance, *sweeps, keep)
    return x.reshape(start.shape).astype(start.dtype), energy, ones, samples.reshape(-1, *start.shape)


def ising_gibbs(
    lattice: ArrayLike,
    coupling: ArrayLike,
    field: ArrayLike = 0.0,
    n_sweeps: int = 1000,
    *,
    burn_in: int = 0,
    thin: int | None = None,
    periodic: bool = True,
    random_state: Any = None,
    n_threads: int | None = None,
) -> GridChain:
    """Gibbs sampling of Ising spins on a square lattice: p(s) ~ exp(sum_edges J s_i s_j + sum_i h_i s_i), s = -1, 1.

    Parameters
    ----------
    lattice : (rows, columns), or integer array (rows, columns)
        A shape, to start from random spins; or the spins to start from. Not modified.
    coupling : float, or array (2,) or (2, rows, columns)
        J, in units of kT: one for all edges, one for the vertical and one for the horizontal ones, or that of each site
        with the one below and the one on its right (beyond the border of a lattice that is not periodic: not used).
    field : float or array (rows, columns)
        h, in units of kT.
    n_sweeps : int
        Each visits all sites.
    burn_in : int
        Sweeps before those, which leave no record.
    thin : int, optional
        Keep the spins after every so many sweeps.
    periodic : bool
        Whether the lattice is a torus (of at least 3 rows and columns), or ends at its border.
    random_state : None, int, numpy.random.Generator or RandomState
    n_threads : int, optional
        The result does not depend on it.

    Returns
    -------
    GridChain

    Raises
    ------
    ValueError
        Other shapes or values; NaN or infinity.

    Notes
    -----
    With one coupling and one field, on a lattice with a checkerboard (free borders, or even numbers of rows and
    columns), the spins are bits, and 64 of them are drawn with each operation: random words are compared with the
    probabilities bit by bit, until the comparison is decided. Probabilities are right to 2^-53, the random numbers
    those of xoroshiro128++. That is fastest where the number of columns is a multiple of 128. Other models are drawn
    site by site, which takes some two hundred times as long.

    >>> chain = ising_gibbs((64, 64), 0.3, n_sweeps=100, random_state=0)
    >>> chain.state.shape, chain.energy.shape
    ((64, 64), (100,))
    """
    sweeps = n_sweeps, burn_in, thin_ = _check_sweeps(n_sweeps, burn_in, thin)
    if n_threads is not None:
        n_threads = check_n_threads(n_threads)
    rng = as_generator(random_state)
    periodic = bool(periodic)
    start = _grid_start(lattice, (-1, 1), np.int8, rng, periodic)
    rows, columns = start.shape
    J = _broadcast(coupling, "coupling", () if np.ndim(coupling) == 0 else (2, rows, columns))
    h = _broadcast(field, "field", () if np.ndim(field) == 0 else (rows, columns))
    if J.ndim == 0 and h.ndim == 0 and not (periodic and (rows % 2 or columns % 2)):
        bits = _Bits(start, float(J), float(h), periodic, rng, n_threads)
        return bits.run(n_sweeps, burn_in, thin_)
    J = np.broadcast_to(J, (2, rows, columns))
    h = np.broadcast_to(h, (rows, columns))
    outer = np.stack([-h.ravel(), h.ravel()], axis=1)
    up = (start > 0).astype(np.int8)
    state, energy, ones, samples = _general_grid(up, 2 * J, outer, periodic, rng, sweeps)
    shift = _grid_edges((rows, columns), J, periodic)[1].sum()  # J s s' = 2 J [s = s'] - J
    return GridChain(2 * state - 1, energy + shift, 2 * ones - start.size, 2 * samples - 1 if thin else None)


class _Bits:
    """A lattice of spins as bits: see the kernels."""

    def __init__(
        self,
        start: NDArray[np.int8],
        J: float,
        h: float,
        periodic: bool,
        rng: np.random.Generator,
        n_threads: int | None,
    ) -> None:
        kernels = _kernels()
        rows, columns = self.shape = start.shape
        self.J, self.h, self.periodic, self.n_threads = J, h, periodic, n_threads
        words = -(-((columns + 1) // 2) // 64)
        padded = np.zeros((2, rows, 64 * words), np.uint8)
        for colour, i in np.ndindex(2, 2):
            part = start[i::2, (i + colour) % 2 :: 2] > 0
            padded[colour, i::2, : part.shape[1]] = part
        self.planes = np.packbits(padded, axis=2, bitorder="little").view("<u8").astype(np.uint64)
        n_bands = -(-rows // -(-_BAND_WORDS // words))
        self.bands = np.arange(n_bands + 1) * -(-_BAND_WORDS // words)
        self.bands[-1] = rows
        self.G = _generators(rng, n_bands, kernels.LANES)
        # table[n, k]: threshold of "up" if k of n neighbours are
        table = [
            [_threshold(_sigmoid(x), _sigmoid(-x)) for x in (2 * (J * (2 * k - n) + h) for k in range(5))]
            for n in range(5)
        ]
        self.edge = np.array(table, np.uint64)
        a, b, c, d, e = table[4]
        terms = np.array([a, a ^ b, a ^ c, a ^ b ^ c ^ d, a ^ e], np.uint64)
        bit = terms >> np.arange(64, dtype=np.uint64)[::-1, None] & np.uint64(1)
        self.masks = np.uint64(0) - bit

    def advance(self, counts: NDArray[np.int64]) -> None:
        """Make len(counts) sweeps; counts (n, 2) is filled, (n, 0) is not."""
        kernels = _kernels()
        sites = self.shape[0] * self.shape[1]
        fixed = self.shape[1], self.periodic, self.masks, self.edge
        threads = self.n_threads or (get_num_threads() if sites * _ISING_NS / 2 > 4e5 else 1)
        if threads == 1:
            work = np.empty(kernels.WORK, np.uint64)
            step = max(1, int(_CALL_NS / (sites * _ISING_NS)))
            for begin in range(0, len(counts), step):
                part = counts[begin : begin + step]
                kernels.ising_sweeps(self.planes, self.bands, *fixed, self.G, work, part)
            return
        task = 0  # a colour to draw, or 2: count

        def make_body() -> Body:
            work = np.empty(kernels.WORK, np.uint64)

            def body(begin: int, end: int) -> None:
                if task < 2:
                    kernels.ising_bands(self.planes, task, self.bands, begin, end, *fixed, self.G, work)
                else:
                    rows = int(self.bands[begin]), int(self.bands[end])
                    found.append(kernels.ising_counts(self.planes, *rows, self.shape[1], self.periodic))

            return body

        for sweep in range(len(counts)):
            found: list[tuple[int, int]] = []
            for task in range(3 if counts.shape[1] else 2):  # noqa: B007 - body reads it
                run_chunks(make_body, len(self.G), 1, sites * _ISING_NS / 2, self.n_threads)
            if found:
                counts[sweep] = np.sum(found, axis=0)

    def spins(self) -> NDArray[np.int8]:
        """The lattice."""
        out = np.empty(self.shape, np.int8)
        bytes_ = np.ascontiguousarray(self.planes.astype("<u8")).view(np.uint8)
        bits = np.unpackbits(bytes_, axis=2, bitorder="little").view(np.int8)
        for colour, i in np.ndindex(2, 2):
            part = out[i::2, (i + colour) % 2 :: 2]
            part[:] = bits[colour, i::2, : part.shape[1]]
        return 2 * out - 1

    def run(self, n_sweeps: int, burn_in: int, thin: int) -> GridChain:
        """All sweeps."""
        rows, columns = self.shape
        samples = np.empty((n_sweeps // thin if thin else 0, rows, columns), np.int8)
        counts = np.empty((n_sweeps, 2), np.int64)

        def advance(n: int, record: int | None) -> None:
            self.advance(np.empty((n, 0), np.int64) if record is None else counts[record : record + n])

        def keep(number: int) -> None:
            samples[number] = self.spins()

        _run(advance, n_sweeps, burn_in, thin, keep)
        edges = 2 * rows * columns - (0 if self.periodic else rows + columns)
        magnetisation = 2 * counts[:, 0] - rows * columns
        energy = -self.J * (edges - 2 * counts[:, 1]) - self.h * magnetisation
        return GridChain(self.spins(), energy, magnetisation, samples if thin else None)


def potts_gibbs(
    lattice: ArrayLike,
    coupling: ArrayLike,
    n_states: int,
    field: ArrayLike = 0.0,
    n_sweeps: int = 1000,
    *,
    burn_in: int = 0,
    thin: int | None = None,
    periodic: bool = True,
    random_state: Any = None,
) -> GridChain:
    """Gibbs sampling of a Potts model on a square lattice: p(x) ~ exp(sum_edges J [x_i = x_j] + sum_i h_i(x_i)).

    Parameters
    ----------
    lattice : (rows, columns), or integer array (rows, columns)
        A shape, to start from random states; or the states 0 to n_states - 1 to start from. Not modified.
    coupling : float, or array (2,) or (2, rows, columns)
        J, in units of kT, as in `ising_gibbs`.
    n_states : int
    field : float, or array (n_states,) or (rows, columns, n_states)
        h(k), in units of kT.
    n_sweeps, burn_in, thin, periodic, random_state
        As in `ising_gibbs`.

    Returns
    -------
    GridChain

    Raises
    ------
    ValueError
        Other shapes or values; NaN or infinity.
    """
    sweeps = _check_sweeps(n_sweeps, burn_in, thin)
    check_number(n_states, "n_states", Integral, 2)
    rng = as_generator(random_state)
    dtype = np.min_scalar_type(n_states - 1)
    start = _grid_start(lattice, tuple(range(n_states)), dtype, rng, bool(periodic))
    J = _broadcast(coupling, "coupling", (2, *start.shape))
    h = _broadcast(field, "field", (*start.shape, n_states)).reshape(-1, n_states)
    state, energy, _, samples = _general_grid(start, J, h, bool(periodic), rng, sweeps)
    return GridChain(state, energy, None, samples if thin else None)


# ---- clusters --------------------------------------------------------------------------------------------------------


def swendsen_wang(
    edges: ArrayLike,
    n_nodes: int,
    coupling: ArrayLike,
    n_states: int | None = None,
    field: ArrayLike | None = None,
    n_sweeps: int = 1000,
    *,
    burn_in: int = 0,
    thin: int = 1,
    n_chains: int = 1,
    start: ArrayLike | None = None,
    random_state: Any = None,
    n_threads: int | None = None,
) -> Chains:
    """Swendsen and Wang's cluster sampling of Ising and Potts models on any graph: whole clusters change at once.

    Parameters
    ----------
    edges : integer array (m, 2)
        Pairs of different nodes. Couplings of edges that occur several times add up.
    n_nodes : int
    coupling : float or array (m,)
        J, not negative, in units of kT.
    n_states : int, optional
        Default: Ising spins -1 and 1, with p(s) ~ exp(sum_edges J s_i s_j + sum_i h_i s_i). Otherwise a Potts model
        with states 0 to n_states - 1 and p(x) ~ exp(sum_edges J [x_i = x_j] + sum_i h_i(x_i)).
    field : float or array, optional
        h: (n_nodes,) for spins; (n_states,) or (n_nodes, n_states) for states. A strong one that works against the
        couplings makes mixing slow.
    n_sweeps, burn_in : int
    thin : int
        Keep every so many sweeps.
    n_chains : int
        Each has a generator of its own; chain c is the same for any number of chains.
    start : integer array (n_nodes,) or (n_chains, n_nodes), optional
        Default: random states.
    random_state : None, int, numpy.random.Generator or RandomState
    n_threads : int, optional
        For the chains. The result does not depend on it.

    Returns
    -------
    Chains
        With ``energy`` and ``n_clusters`` of the sweeps that are kept.

    Raises
    ------
    ValueError
        Other shapes or values, a negative coupling, NaN or infinity.

    Notes
    -----
    Swendsen and Wang 1987 (doi:10.1103/PhysRevLett.58.86), Edwards and Sokal 1988. Each sweep is O(m + n_nodes).
    """
    n_sweeps, burn_in, thin = _check_sweeps(n_sweeps, burn_in, thin)
    for number, name, least in ((n_nodes, "n_nodes", 1), (n_chains, "n_chains", 1)):
        check_number(number, name, Integral, least)
    if n_states is not None:
        check_number(n_states, "n_states", Integral, 2)
    if thin == 0:
        raise ValueError("thin must be an integer of at least 1")
    kernels = _kernels()
    rng = as_generator(random_state)
    pairs = np.asarray(edges)
    if pairs.size == 0:
        pairs = np.empty((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(f"edges must be integers of shape (m, 2), got {pairs.dtype} {pairs.shape}")
    pairs = np.array(pairs, np.int64)
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= n_nodes):
        raise ValueError(f"edges must join nodes 0 to {n_nodes - 1}, got {pairs.min()} to {pairs.max()}")
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError(f"edge {int((pairs[:, 0] == pairs[:, 1]).argmax())} joins a node with itself")
    J = _broadcast(coupling, "coupling", (len(pairs),))
    if len(J) and J.min() < 0:
        raise ValueError(f"coupling must not be negative, got {J.min()}: clusters need ferromagnets; gibbs does not")
    q, spins = n_states or 2, n_states is None
    weight = 2 * J if spins else J
    h = np.empty((0, q))
    if field is not None:
        h = _broadcast(field, "field", (n_nodes,) if spins else (n_nodes, q))
        h = np.stack([-h, h], axis=1) if spins else h
    values, where = np.unique(weight, return_inverse=True)
    bond = np.array([_threshold(-expm1(-w), exp(-w)) for w in values] or [0], np.uint64)[where]
    dtype = np.dtype(np.int8) if spins else np.min_scalar_type(q - 1)
    x = np.empty((n_chains, n_nodes), np.int64)
    generators = [np.random.default_rng(seed) for seed in _seeds(rng, n_chains)]
    if start is None:
        for c in range(n_chains):
            x[c] = generators[c].integers(0, q, n_nodes)
    else:
        given = _as_starts(start, n_chains, n_nodes)
        if not np.isin(given, (-1, 1) if spins else np.arange(q)).all():
            raise ValueError(f"start must hold {'-1 and 1' if spins else f'states 0 to {q - 1}'}")
        x[:] = (given + 1) // 2 if spins else given
    samples = np.empty((n_chains, n_sweeps // thin, n_nodes), dtype)
    energy, clusters = np.empty((n_chains, n_sweeps)), np.empty((n_chains, n_sweeps), np.int64)

    def make_body() -> Body:
        parent, sums = np.empty(n_nodes, np.int64), np.empty(h.shape)

        def body(begin: int, end: int) -> None:
            for c in range(begin, end):
                G = _generators(generators[c], 1)

                def advance(n: int, record: int | None, c: int = c, G: Any = G) -> None:
                    for part in _parts(n, record, sweep_ns, energy[c], clusters[c]):
                        kernels.cluster_sweeps(pairs, weight, bond, h, x[c], parent, sums, G, *part)

                def keep(number: int, c: int = c) -> None:
                    samples[c, number] = x[c] if not spins else 2 * x[c] - 1

                _run(advance, n_sweeps, burn_in, thin, keep)

        return body

    sweep_ns = 10.0 * (len(pairs) + n_nodes)
    run_chunks(make_body, n_chains, 1, sweep_ns * n_chains * (n_sweeps + burn_in), n_threads)
    kept = slice(thin - 1, None, thin)
    if spins:
        energy += J.sum()
    return Chains(samples, (q,) * n_nodes, np.zeros(n_nodes, bool), energy[:, kept], clusters[:, kept])


# ---- factor graphs ---------------------------------------------------------------------------------------------------


def _sliced(graph: FactorGraph, evidence: Any) -> tuple[NDArray[np.int64], list[tuple[tuple[int, ...], Array]]]:
    """Codes, -1 where a variable is not observed, and the factors of those variables."""
    V = graph.n_variables
    codes = np.full(V, -1, np.int64)
    if isinstance(evidence, Mapping):
        for variable, state in evidence.items():
            if not isinstance(variable, (int, np.integer)) or not 0 <= variable < V:
                raise ValueError(f"evidence names variable {variable!r}, but they are numbered from 0 to {V - 1}")
            if not isinstance(state, (int, np.integer)) or isinstance(state, bool):
                raise ValueError(f"evidence must hold states as integers, got {state!r} for variable {variable}")
            codes[int(variable)] = int(state)
    elif evidence is not None:
        given = np.asarray(evidence)
        if given.shape != (V,) or given.dtype.kind not in "iu":
            raise ValueError(f"evidence must be integers of shape ({V},), got {given.dtype} {given.shape}")
        codes[:] = given
    for variable in np.flatnonzero((codes < -1) | (codes >= np.array(graph.cardinalities))):
        raise ValueError(
            f"evidence holds {codes[variable]} for variable {variable}, whose states are 0 to "
            f"{graph.cardinalities[variable] - 1} (-1: not observed)"
        )
    factors = []
    for factor in graph.factors:
        table = factor.table[tuple(slice(None) if codes[v] < 0 else int(codes[v]) for v in factor.scope)]
        scope = tuple(v for v in factor.scope if codes[v] < 0)
        if not table.any():
            raise ValueError(
                f"the evidence is impossible: the factor of scope {factor.scope} is zero for all that is left"
            )
        if scope:
            factors.append((scope, table))
    return codes, factors


def _colours(n: int, factors: list[tuple[tuple[int, ...], Array]]) -> NDArray[np.int64]:
    """Greedy colouring of the Markov graph, variables with many neighbours first (Welsh and Powell 1967)."""
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for scope, _ in factors:
        for v in scope:
            neighbours[v].update(scope)
    colours = np.full(n, -1)
    for v in sorted(range(n), key=lambda v: (-len(neighbours[v]), v)):
        taken = {int(colours[u]) for u in neighbours[v]}
        colours[v] = next(colour for colour in range(n) if colour not in taken)
    return colours


class _Program:
    """What `gibbs_sweeps` reads: groups of variables of one colour whose factors have the same shapes."""

    def __init__(
        self, cardinalities: tuple[int, ...], free: list[int], factors: list[tuple[tuple[int, ...], Array]]
    ) -> None:
        of: dict[int, list[tuple[tuple[int, ...], Array, int]]] = {v: [] for v in free}
        ranges = {}
        for scope, table in factors:
            exponents = np.log(table[table > 0])
            ranges[id(table)] = float(exponents.max() - exponents.min())
            for axis, v in enumerate(scope):
                of[v].append((scope, table, axis))
        colours = _colours(len(cardinalities), factors)
        self.tables: list[Array] = []
        self._places: dict[Any, int] = {}
        self._size = 0
        members: dict[Any, list[int]] = {}
        slots: dict[int, list[tuple[int, list[int], tuple[int, ...]]]] = {}
        for v in free:
            own = sorted(of[v], key=lambda part: (part[1].shape, part[2]))
            logs = sum(ranges[id(table)] for _, table, _ in own) > _MOST_RANGE
            slots[v] = [self._slot(*part, logs) for part in own]
            shapes = tuple(strides for _, _, strides in slots[v])
            members.setdefault((int(colours[v]), cardinalities[v], shapes, logs), []).append(v)
        self.groups = sorted(members.items(), key=lambda item: (item[0][0], item[1][0]))
        self.order = [v for _, group in self.groups for v in group]
        self.slots = slots
        self.n_colours = int(colours.max()) + 1 if len(colours) else 0
        self.table = np.concatenate(self.tables) if self.tables else np.empty(0)
        if len(self.table) >= 1 << 31:
            raise ValueError(f"the tables have {len(self.table)} entries: at most 2**31 - 1 can be addressed")

    def _slot(
        self, scope: tuple[int, ...], table: Array, axis: int, logs: bool
    ) -> tuple[int, list[int], tuple[int, ...]]:
        """First entry of a table with its axis last and largest values 1; the other variables; their strides."""
        turned = np.ascontiguousarray(table.transpose(*(i for i in range(table.ndim) if i != axis), axis))
        key = logs, turned.shape, turned.tobytes() if turned.size <= 4096 else (id(table), axis)
        if key not in self._places:
            top = turned.max(axis=-1, keepdims=True)
            with np.errstate(divide="ignore"):
                entries = np.log(turned) if logs else np.divide(turned, top, out=np.zeros_like(turned), where=top > 0)
            self.tables.append(entries.ravel())
            self._places[key] = self._size
            self._size += turned.size
        strides = tuple(stride // 8 for stride in turned.strides[:-1])
        return self._places[key], [v for i, v in enumerate(scope) if i != axis], strides

    def arrays(self, chains: int) -> tuple[Any, ...]:
        """Groups, slots and index for so many chains at once."""
        cell = {v: place * chains for place, v in enumerate(self.order)}
        lane = np.arange(chains)
        groups: list[tuple[int, ...]] = []
        slots: list[tuple[int, int]] = []
        index: list[NDArray[Any]] = []
        size = 0
        for (_, states, shapes, logs), group in self.groups:
            first = len(slots)
            for number, strides in enumerate(shapes):
                slots.append((size, len(strides)))
                index.append(np.repeat([self.slots[v][number][0] for v in group], chains))
                for other, stride in enumerate(strides):
                    cells = np.array([cell[self.slots[v][number][1][other]] for v in group])
                    index += [np.array([stride]), (cells[:, None] + lane).ravel()]
                size += len(group) * chains * (1 + len(strides)) + len(strides)
            groups.append((cell[group[0]], len(group) * chains, states, first, len(slots), logs))
        flat = np.concatenate(index).astype(np.int32) if index else np.empty(0, np.int32)
        return np.array(groups, np.int64).reshape(-1, 6), np.array(slots, np.int64).reshape(-1, 2), flat


class NothingFoundError(ValueError):
    """A search for states of positive probability gave up: there may be some."""


class Search:
    """Finds states that no factor forbids: depth first, with what each choice rules out struck out at once.

    Parameters
    ----------
    cardinality : int array (n,)
    first, variable, stride, offset : int arrays
        The factors that have zeros, as `fastgen._kernels.jit.markov` describes them.
    allowed : bool array
        Which entries of their tables are not zero.
    """

    def __init__(
        self,
        cardinality: NDArray[Any],
        first: NDArray[Any],
        variable: NDArray[Any],
        stride: NDArray[Any],
        offset: NDArray[Any],
        allowed: NDArray[np.bool_],
    ) -> None:
        slot = np.argsort(variable, kind="stable")
        degree = np.bincount(variable, minlength=len(cardinality))
        own = np.concatenate([[0], np.cumsum(degree)])
        owner = np.repeat(np.arange(len(offset)), np.diff(first))
        parts = cardinality, first, variable, stride, offset
        integers: list[NDArray[np.int64]] = [np.ascontiguousarray(part, np.int64) for part in parts]
        self._hard = *integers, np.ascontiguousarray(allowed), *(part.astype(np.int64) for part in (own, slot, owner))
        self.base = np.concatenate([[0], np.cumsum(integers[0])])
        self._order = np.argsort(-degree, kind="stable")[: np.count_nonzero(degree)]
        widths = np.add.reduceat(integers[0][variable], first[:-1]) if len(offset) else np.zeros(1, np.int64)
        self._sizes = int(widths.max(initial=1)), int(np.diff(first).max(initial=1))

    @classmethod
    def of_factors(cls, cardinalities: tuple[int, ...], factors: list[tuple[tuple[int, ...], Array]]) -> "Search":
        """For factors (scope, table) in C order."""
        hard = [(scope, np.ascontiguousarray(table > 0)) for scope, table in factors if not (table > 0).all()]
        sizes = np.array([table.size for _, table in hard], np.int64)
        return cls(
            np.array(cardinalities, np.int64),
            np.cumsum([0, *(len(scope) for scope, _ in hard)]),
            np.array([v for scope, _ in hard for v in scope], np.int64),
            np.array([step for _, table in hard for step in table.strides], np.int64),
            np.cumsum(sizes) - sizes,
            np.concatenate([np.zeros(0, bool), *(table.ravel() for _, table in hard)]),
        )

    def state(self, score: Array, possible: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Return the states of all variables, those with high scores as far as it can be.

        Parameters
        ----------
        score : array (states of all variables,)
        possible : bool array, optional
            Which states may be taken; all by default.

        Raises
        ------
        ValueError
            If there are no such states.
        NothingFoundError
            If none were found.
        """
        hard, base, order = self._hard, self.base, self._order
        sizes = np.asarray(hard[0], np.int64)
        n, F = len(sizes), len(hard[4])
        left = np.ones(int(base[-1]), np.bool_) if possible is None else np.array(possible, np.bool_)
        most, found = _SEARCH_STEPS + 20 * n, 1
        if F:
            work = (
                np.zeros(3, np.int64),
                np.zeros(n, np.int64),
                np.full((2, int(sizes.max()) + 1), -1),
                np.zeros((2, n), np.int64),
                np.zeros((len(left) + 1, 2), np.int64),
                np.zeros((n + 1, 3), np.int64),
                np.zeros(F, np.int64),
                np.zeros(F, np.bool_),
                np.zeros(self._sizes[0], np.bool_),
                np.zeros(self._sizes[1], np.int64),
            )
            for until in range(_SEARCH_AT_A_TIME, most + _SEARCH_AT_A_TIME, _SEARCH_AT_A_TIME):
                found = _kernels().search(hard, base, score, left, order, min(until, most), *work)
                if found:
                    break
        if not found:
            raise NothingFoundError(f"no state of positive probability was found in {most} steps: pass one as start")
        if not n:
            return np.zeros(0, np.int64)
        score = np.where(left, score, -np.inf)
        top = np.maximum.reduceat(score, base[:-1])
        if found < 0 or (top == -np.inf).any():
            raise ValueError("all states that agree with the evidence have probability zero")
        best = np.flatnonzero(score == np.repeat(top, sizes))
        owner = np.searchsorted(base, best, "right") - 1
        _, place = np.unique(owner, return_index=True)
        return np.asarray(best[place] - base[:-1], np.int64)


def gibbs(
    graph: FactorGraph,
    n_samples: int,
    evidence: Any = None,
    *,
    n_chains: int = 4,
    burn_in: int | None = None,
    thin: int = 1,
    start: ArrayLike | None = None,
    random_state: Any = None,
    n_threads: int | None = None,
) -> Chains:
    """Gibbs sampling in any product of factors: each variable in turn is drawn given all others.

    Parameters
    ----------
    graph : FactorGraph
    n_samples : int
        For each chain.
    evidence : integer array (V,) or mapping, optional
        The states of some variables: -1 where a variable is not observed, or a mapping of variables to states.
    n_chains : int
    burn_in : int, optional
        Sweeps before the first sample. Default: as many as the samples take, ``n_samples * thin``.
    thin : int
        Sweeps for each sample.
    start : integer array (V,) or (n_chains, V), optional
        States of positive probability. Default: random ones, different for each chain; where tables hold zeros they are
        found by a search, which may give up.
    random_state : None, int, numpy.random.Generator or RandomState
    n_threads : int, optional
        For the chains. The result does not depend on it.

    Returns
    -------
    Chains
        With ``marginals``, ``r_hat``, ``effective_sample_size`` and ``converged``.

    Raises
    ------
    ValueError
        Evidence, or all states, have probability zero; no start was found; ``start`` has probability zero; other shapes
        or values.

    Notes
    -----
    Where tables hold zeros, chains may not get from some states to others by changing one variable at a time; draws are
    then of a part of the distribution. An R-hat far from 1 shows that if the chains started in different parts, and
    nothing does if not.

    Variables are visited colour by colour of a greedy colouring of the Markov graph; those with tables of the same
    shapes, in all chains of a block, are drawn together. A sweep costs, for each variable, its number of states times
    its number of factors. Where products of factors could leave the range of numbers, their logarithms are added.
    """
    check_number(n_samples, "n_samples", Integral, 1)
    check_number(n_chains, "n_chains", Integral, 1)
    check_number(thin, "thin", Integral, 1)
    burn_in = n_samples * thin if burn_in is None else burn_in
    check_number(burn_in, "burn_in", Integral, 0)
    kernels = _kernels()
    rng = as_generator(random_state)
    cardinalities, V = graph.cardinalities, graph.n_variables
    codes, factors = _sliced(graph, evidence)
    free = np.flatnonzero(codes < 0).tolist()
    program = _Program(cardinalities, free, factors)
    samples = np.empty((n_chains, n_samples, V), np.min_scalar_type(max(cardinalities, default=1) - 1))
    samples[:] = np.maximum(codes, 0)
    if start is None:
        search = Search.of_factors(cardinalities, factors)
        x = np.array([search.state(rng.random(search.base[-1])) for _ in range(n_chains)]).reshape(n_chains, V)
    else:
        x = _checked_start(start, n_chains, codes, cardinalities, factors)

    # so many chains at once that groups fill vectors: this depends on the model alone
    size = max(1, min(kernels.TILE, -(-kernels.TILE * program.n_colours // max(1, len(free)))))
    blocks = -(-n_chains // size)
    seeds = _seeds(rng, blocks)
    most = max((cardinalities[v] for v in free), default=1)
    columns = np.array(program.order, np.int64)
    sweep_ns = 4.0 * sum(cardinalities[v] * (2 + len(program.slots[v])) for v in free) + 100

    def make_body() -> Body:
        p, work = np.empty((most, kernels.TILE)), np.empty((2, kernels.TILE))
        places = np.empty((2, kernels.TILE), np.int32)

        def body(begin: int, end: int) -> None:
            for block in range(begin, end):
                part = slice(block * size, min(n_chains, (block + 1) * size))
                chains = part.stop - part.start
                G = _generators(np.random.default_rng(seeds[block]), kernels.TILE)
                cells = np.ascontiguousarray(x[part, columns].T).astype(np.int32).ravel()
                arrays = *program.arrays(chains), program.table, cells, G, p, work, places
                step = max(1, int(_CALL_NS / (sweep_ns * chains)))
                for done in range(0, burn_in, step):
                    n = min(step, burn_in - done)
                    kernels.gibbs_sweeps(*arrays, n, n + 1, 0, columns, samples[part])
                rows = max(1, step // thin)
                for done in range(0, n_samples, rows):
                    n = min(rows, n_samples - done) * thin
                    kernels.gibbs_sweeps(*arrays, n, thin, done, columns, samples[part])

        return body

    if free:
        run_chunks(make_body, blocks, 1, sweep_ns * n_chains * (burn_in + n_samples * thin), n_threads)
    return Chains(samples, cardinalities, codes >= 0)


def _checked_start(
    start: ArrayLike,
    n_chains: int,
    codes: NDArray[np.int64],
    cardinalities: tuple[int, ...],
    factors: list[tuple[tuple[int, ...], Array]],
) -> NDArray[np.int64]:
    V = len(cardinalities)
    x = np.array(np.broadcast_to(_as_starts(start, n_chains, V), (n_chains, V)), np.int64)
    bad = np.argwhere((x < 0) | (x >= np.array(cardinalities)) | ((codes >= 0) & (x != codes)))
    if len(bad):
        chain, v = bad[0]
        expected = f"states 0 to {cardinalities[v] - 1}" if codes[v] < 0 else f"the evidence, {codes[v]}"
        raise ValueError(f"start holds {x[chain, v]} for variable {v}: expected {expected}")
    for scope, table in factors:
        zero = table[tuple(x[:, v] for v in scope)] <= 0
        if zero.any():
            raise ValueError(f"start of chain {int(zero.argmax())} is impossible: the factor of {scope} is zero there")
    return x
