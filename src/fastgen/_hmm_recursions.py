"""The recursions of hidden Markov models over sequences: which kernel runs where, on which threads.

Kernels of ``_kernels/hmm.h`` give the same results in two ways, and in two kinds of numbers:

- *lanes*: 8 pieces of sequences side by side in the lanes of vectors, groups of 8 on threads. Long sequences are cut; a
  piece then starts a warm-up before its first step, from anywhere, and goes on for one beyond its last. That both have
  forgotten where they started is checked at each cut, to rounding. A probe finds how long they must be; where no length
  will do, sequences are not cut.
- *rows*: one sequence after the other, states along the vectors, for what would leave lanes empty.
- *narrow* numbers are scaled likelihoods. *Wide* ones have exponents of their own, for where those would underflow:
  transitions that are (almost) impossible, together with strong evidence.

With `Layout.blocks`, sequences that are not cut are held in blocks between checkpoints. What runs depends on the data
and the parameters, never on the number of threads.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from fastgen._kernels import _hmm
from fastgen._missing import Index
from fastgen._parallel import Body, run_chunks
from fastgen._validation import Array, Data, as_floats, as_out, as_weights

T = TypeVar("T")
_LANES = _hmm.LANES
_KIND = ("narrow", "wide")
_WARM = 64  # steps: the shortest warm-up
_BLOCK = 1024  # steps: the shortest block with checkpoints
_CONVERGED = 1e-13
_CONVERGED_PATH = 1e-13
_FILTERED = -640.0  # logarithm of what is still a number of full precision
_UNLIKE = 1e-7  # a mismatch that twice the warm-up should mend
_STEP_NS = 1.0  # of one state: a guess, decides only about threads


class Chain:
    """Start and transition probabilities, as the kernels read them."""

    def __init__(self, startprob: Array, transmat: Array) -> None:
        self.startprob = startprob
        self.transmat = transmat
        self.K = len(startprob)

    def __reduce__(self) -> tuple[type["Chain"], tuple[Array, Array]]:
        return Chain, (self.startprob, self.transmat)

    @cached_property
    def safe(self) -> bool:
        """Whether scaled recursions cannot lose a state that matters later."""
        return bool(self.transmat.min() >= _hmm.SAFE)

    @cached_property
    def lanes(self) -> tuple[Array, Array, Array]:
        """Start, A and A^T, padded for lanes."""
        step = _hmm.states(self.K)
        A = _padded(self.transmat, step, step)
        return _padded(self.startprob[None], 1, step)[0], A, np.ascontiguousarray(A.T)

    @cached_property
    def links(self) -> _hmm.Links | None:
        """Possible transitions, for lanes of wide numbers; None if some are too improbable for these."""
        possible = self.transmat > 0
        if self.transmat[possible].min() < _hmm.SAFE:
            return None
        lists: list[Any] = []
        for A in (self.transmat.T, self.transmat):
            state, neighbour = np.nonzero(A)
            lists += [np.searchsorted(state, np.arange(self.K + 1)), neighbour.copy(), A[state, neighbour]]
        return _hmm.Links(*lists)

    @cached_property
    def rows(self) -> tuple[Array, Array, Array]:
        """Start (P,), A and A^T (K, P)."""
        P = -(-self.K // 8) * 8
        start = _padded(self.startprob[None], 1, P)[0]
        return start, _padded(self.transmat, self.K, P), _padded(self.transmat.T, self.K, P)

    @cached_property
    def wide(self) -> tuple[Array, Array, Array, Array, Array, Array]:
        """The same as mantissas and exponents."""
        start, A, AT = map(_mantissa_exponent, self.rows)
        return *start, *A, *AT

    @cached_property
    def logs(self) -> tuple[Array, Array]:
        """Logarithms of start and A; -inf for 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.startprob), np.log(self.transmat)

    @cached_property
    def log_rows(self) -> tuple[Array, Array]:
        """The same, padded with -inf to (P,) and (K, P)."""
        P = -(-self.K // 8) * 8
        start, A = self.logs
        return _padded(start[None], 1, P, -np.inf)[0], _padded(A, self.K, P, -np.inf)


def _padded(array: Array, rows: int, columns: int, value: float = 0.0) -> Array:
    out = np.full((rows, columns), value)
    out[: array.shape[0], : array.shape[1]] = array
    return out


def _mantissa_exponent(array: Array) -> tuple[Array, Array]:
    """x = m 2^e, m in [1, 2), or 0."""
    mantissa, exponent = np.frexp(array)
    zero = mantissa == 0
    return np.ascontiguousarray(2 * mantissa), np.where(zero, -(2.0**1000), exponent - 1.0)


@dataclass(frozen=True)
class Plan:
    """Which pieces of sequences run in which lane."""

    schedule: _hmm.Schedule
    groups: int
    tiles: int
    sequence: Index
    """(pieces,) the sequence of each"""
    order: Index
    """Pieces in the order of the data."""
    joints: tuple[Index, Index]
    """Lanes that are cut from one sequence: the lane before and the lane behind each cut."""

    @property
    def pieces(self) -> int:
        """How many."""
        return len(self.sequence)

    @property
    def n_lanes(self) -> int:
        """With the empty ones."""
        return self.groups * _LANES


def _plan(offsets: Index, selected: Index, target: int, warm: int, cut: bool, weights: Array | None) -> "Plan | None":
    """Lay out sequences in lanes of about ``target`` steps; None if lanes would mostly be empty."""
    lengths = offsets[selected + 1] - offsets[selected]
    ends = np.cumsum(lengths)
    n = int(ends[-1])
    lanes = _LANES * max(1, round(n / (target * _LANES)))
    if cut:  # a warm-up must not cost more than a part of the work
        lanes = min(lanes, max(_LANES, n // (4 * warm) // _LANES * _LANES))
        cut = n // lanes >= 4 * warm
    ideal = np.arange(1, lanes) * n // lanes
    starts = ends - lengths
    nearest = starts[np.minimum(np.searchsorted(starts, ideal), len(starts) - 1)]
    below = starts[np.maximum(np.searchsorted(starts, ideal, side="right") - 1, 0)]
    snapped = np.where(np.abs(nearest - ideal) < np.abs(below - ideal), nearest, below)
    if cut:
        snapped = np.where(np.abs(snapped - ideal) <= n // lanes // 8, snapped, ideal)
    cuts = _distinct(np.concatenate([[0], snapped]))
    if len(cuts) < _LANES // 2:
        return None
    begin = _distinct(np.sort(np.concatenate([cuts, starts]), kind="stable")) if cut else starts
    length = np.diff(begin, append=n)
    sequence = np.searchsorted(ends, begin, side="right")
    lane = np.searchsorted(cuts, begin, side="right") - 1
    opens = np.diff(lane, prepend=-1) > 0
    before = begin - starts[sequence]
    after = ends[sequence] - begin - length
    sizes = np.diff(cuts, append=n)
    ranks = np.empty(len(cuts), np.intp)
    ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(cuts))
    into = np.argsort(ranks[lane], kind="stable")  # pieces in the order of their lanes
    groups = -(-len(cuts) // _LANES)
    counts = np.zeros(groups * _LANES, np.intp)
    counts[ranks] = np.bincount(lane)
    first = np.flatnonzero(opens & (before > 0))  # pieces that go on where the lane before ended
    kind = np.where(before == 0, _hmm.BEGINS, 0) | np.where(after == 0, _hmm.ENDS, 0)
    row = offsets[selected][sequence] + before
    order = np.empty(len(into), np.intp)
    order[into] = np.arange(len(into))
    schedule = _hmm.Schedule(
        np.concatenate([[0], np.cumsum(counts)]),
        np.ascontiguousarray(row[into]),
        np.ascontiguousarray(length[into]),
        np.ascontiguousarray(before[into]),
        np.ascontiguousarray(after[into]),
        kind[into].astype(np.int32),
        None if weights is None else np.ascontiguousarray(weights[selected][sequence][into]),
    )
    tiles = int(sizes.max()) // _hmm.STEPS + 2
    joints = ranks[lane[first] - 1], ranks[lane[first]]
    return Plan(schedule, groups, tiles, selected[sequence][into], order, joints)


def _parts(lengths: Index, most: int) -> list[int]:
    """Edges of at most so many parts of the sequences, of about the same number of steps."""
    ends = np.cumsum(lengths)
    wanted = np.searchsorted(ends, np.arange(1, most) * ends[-1] // most)
    return [0, *(int(i) for i in np.unique(wanted[(wanted > 0) & (wanted < len(ends))])), len(ends)]


def _distinct(numbers: Index) -> Index:
    """Without repetitions, of sorted numbers."""
    return numbers[np.diff(numbers, prepend=-1) > 0]


class Layout:
    """Sequences that lie one after the other in n rows, and what was found out about them: good for many passes."""

    def __init__(self, offsets: Index, weights: Array | None = None, *, blocks: bool = False) -> None:
        self.offsets = offsets
        """(S + 1,)"""
        self.weights = weights
        """(S,) or None"""
        self.blocks = blocks
        """Whether memory matters: long sequences that are not cut go forward twice, and O(sqrt(n) K) is kept."""
        self.origin = 0, 0
        """Row and sequence that the first are called in errors."""
        self.warm: dict[str, int] = {}
        """Steps of a warm-up for each kind of recursion; 0: chains forget too slowly."""
        self.wide: set[int] = set()
        """Sequences that underflowed."""
        self.alone: set[int] = set()
        """Sequences that are not possible, or not even numbers, and are looked at one by one."""
        self._plans: dict[Hashable, Plan | None] = {}
        self._buffers: dict[Hashable, Array] = {}

    @property
    def n_sequences(self) -> int:
        """S."""
        return len(self.offsets) - 1

    def plan(self, selected: Index, target: int, warm: int) -> Plan | None:
        """See `_plan`."""
        key = target, warm, hash(selected.tobytes())
        if len(self._plans) > 8:  # sequences that underflow change from pass to pass
            self._plans.clear()
        if key not in self._plans:
            self._plans[key] = _plan(self.offsets, selected, target, warm or _WARM, warm > 0, self.weights)
        return self._plans[key]

    def buffer(self, key: Hashable, size: int) -> Array:
        """Memory with whatever is left in it: new memory costs more than the work on it."""
        key = threading.get_ident(), key
        found = self._buffers.get(key)
        if found is None or len(found) < size:
            found = self._buffers[key] = np.zeros(size)
        return found[:size]


@dataclass
class Moments:
    """What the kernel sums up of Gaussian data, about the points ``about`` (K, d)."""

    about: Array
    full: bool
    weight: Array
    first: Array
    second: Array
    count: Array

    def __iadd__(self, other: "Moments") -> "Moments":
        self.weight += other.weight
        self.first += other.first
        self.second += other.second
        self.count += other.count
        return self

    def clear(self) -> None:
        """Back to 0."""
        for array in (self.weight, self.first, self.second, self.count):
            array[...] = 0.0


Reduce = Callable[[int, int, Array], Any]
"""Gets the first row, the end and the posterior of some rows, and returns what is wanted of it."""


class _Gathered:
    """Posteriors of rows that follow each other, until there are enough to reduce."""

    def __init__(self, reduce: Reduce, K: int) -> None:
        self.reduce = reduce
        self.posterior = np.empty((_BLOCK, K))
        self.first = self.filled = 0
        self.results: list[Any] = []

    def room(self, row: int, n: int) -> Array:
        """For those of n rows from ``row`` on; `keep` them."""
        if row != self.first + self.filled or self.filled + n > len(self.posterior):
            self.flush()
            self.first = row
            if n > len(self.posterior):
                self.posterior = np.empty((n, self.posterior.shape[1]))
        return self.posterior[self.filled : self.filled + n]

    def keep(self, n: int) -> None:
        """The room was filled."""
        self.filled += n

    def flush(self) -> None:
        """Reduce what is there."""
        if self.filled:
            self.results.append(self.reduce(self.first, self.first + self.filled, self.posterior[: self.filled]))
        self.first += self.filled
        self.filled = 0


@dataclass
class Outcome:
    """What a pass forward and backward found."""

    log_likelihoods: Array
    start: Array
    transitions: Array
    moments: Moments | None
    rest: list[Any]
    """What ``reduce`` returned, in the order of the data."""


class Recursions:
    """The recursions for one set of parameters over one layout."""

    def __init__(
        self,
        emissions: _hmm.Emissions,
        chain: Chain,
        layout: Layout,
        step_ns: float = 2.0,
        n_threads: int | None = None,
    ) -> None:
        self.emissions = emissions
        self.chain = chain
        self.layout = layout
        self.n_threads = n_threads
        K = chain.K
        self.step_ns = K * (step_ns + K / 4.0)
        lengths = np.diff(layout.offsets)
        self.nonempty = np.flatnonzero(lengths)

    # Lanes ------------------------------------------------------------------------------------------------------------

    def _passes(self) -> list[tuple[bool, bool, Index]]:
        """Whether in wide numbers, whether in lanes, and which sequences that suits."""
        layout, chain = self.layout, self.chain
        alone = np.array(sorted(layout.alone), np.intp)
        rest = _without(self.nonempty, alone)
        wide = np.array(sorted(layout.wide - layout.alone), np.intp) if chain.safe else rest
        return [(False, True, _without(rest, wide)), (True, chain.links is not None, wide), (True, False, alone)]

    def _target(self, keep: bool, warm: int) -> int:
        """Steps of a lane: what is kept of a group should stay in the caches, but warm-ups be a small part."""
        if not keep:
            return max(16 * warm, 4096)
        return max(8 * warm, 256, 8192 // self.chain.K)

    def _find_warm(self, selected: Index, kind: str) -> int:
        """The length of warm-ups: where the state after it does not depend on its start, at 8 places."""
        layout, wide = self.layout, kind == "wide"
        if kind in layout.warm:
            return layout.warm[kind]
        layout.warm[kind] = _WARM
        lengths = layout.offsets[selected + 1] - layout.offsets[selected]
        long = selected[lengths >= 16 * _WARM]
        n = int(lengths.sum())
        if not len(long) or n < 4 * _LANES * _WARM:
            return _WARM
        ends = np.cumsum(layout.offsets[long + 1] - layout.offsets[long])
        places = (np.arange(1, _LANES + 1) * ends[-1]) // (_LANES + 1)
        which = long[np.searchsorted(ends, places, side="right")]
        row = (
            layout.offsets[which]
            + (layout.offsets[which + 1] - layout.offsets[which])
            - (ends[np.searchsorted(ends, places, side="right")] - places)
        )
        before = row - layout.offsets[which]
        ones = np.ones(_LANES, np.intp)
        schedule = _hmm.Schedule(
            np.arange(_LANES + 1), row, ones, before, 0 * ones, np.full(_LANES, _hmm.ENDS, np.int32)
        )
        start, A, _ = self.chain.lanes
        K, links = self.chain.K, self.chain.links if wide else None
        states: list[Array] = []
        warm = _WARM // 2
        work = np.zeros(_hmm.work_size(self.emissions, K, wide, 1, False, False, False))
        while True:
            warmed, unused = np.empty((2, _LANES, 2 * K if wide else K))
            _hmm.score(
                self.emissions, K, start, A, links, schedule, 0, 1, warm, np.empty((_LANES, 2)), warmed, unused, work
            )
            states.append(warmed)
            if len(states) > 1 and _mismatch(states[-2], states[-1], wide) <= _CONVERGED / 10:
                layout.warm[kind] = warm  # twice what was enough
                break
            if 4 * _LANES * warm > n:
                layout.warm[kind] = 0
                break
            warm *= 2
        return layout.warm[kind]

    def _run_groups(self, plan: Plan, body: Callable[[int, int, int], None], parts: int | None = None) -> None:
        """Call body(part, first group, end) for fixed parts of the groups, on threads."""
        parts = plan.groups if parts is None else min(parts, plan.groups)
        edges = np.arange(parts + 1) * plan.groups // parts

        def run(part: int) -> None:
            body(part, int(edges[part]), int(edges[part + 1]))

        self._on_threads(parts, run, plan.groups * plan.tiles * _hmm.STEPS * _LANES)

    def _in_lanes(
        self, selected: Index, kind: str, keep: bool, run: Callable[[Plan, int], tuple[Array, float, T]]
    ) -> tuple[Plan, Array, T] | None:
        """Lay out, run, check the cuts, and again until they hold. The logs of the pieces and what else run returned.

        None: they do not suit lanes.
        """
        n = int((self.layout.offsets[selected + 1] - self.layout.offsets[selected]).sum())
        while True:
            warm = self._find_warm(selected, kind)
            plan = self.layout.plan(selected, self._target(keep, warm), warm)
            if plan is None:
                return None
            logs, mismatch, found = run(plan, warm)
            if mismatch <= _CONVERGED:
                return plan, logs, found
            # What is left of the start falls geometrically.
            factor = 2
            while factor < 64 and min(mismatch, 1.0) ** factor > _CONVERGED / 10:
                factor *= 2
            self.layout.warm[kind] = warm * factor if 4 * _LANES * warm * factor <= n and factor < 64 else 0

    def _by_sequence(self, plan: Plan, logs: Array, out: Array) -> Index:
        """Add the logs of the pieces up into those of their sequences; returns the sequences that are not finite."""
        ordered = logs[plan.order]
        sequence = plan.sequence[plan.order]
        first = np.flatnonzero(np.diff(sequence, prepend=-1))
        total = np.add.reduceat(ordered.sum(axis=1, dtype=np.longdouble), first).astype(np.float64)
        out[sequence[first]] = total
        return sequence[first][~np.isfinite(total)]

    # Results ----------------------------------------------------------------------------------------------------------

    def log_likelihoods(self) -> Array:
        """log p of each sequence, (S,); -inf if it is impossible."""
        out = np.zeros(self.layout.n_sequences)
        start, A, _ = self.chain.lanes
        K = self.chain.K

        def in_lanes(plan: Plan, warm: int, wide: bool) -> tuple[Array, float, None]:
            logs = np.zeros((plan.pieces, 2))
            warmed, end = np.zeros((2, plan.n_lanes, 2 * K if wide else K))
            links = self.chain.links if wide else None

            def body(_: int, first: int, stop: int) -> None:
                work = self.layout.buffer("score", _hmm.work_size(self.emissions, K, wide, 1, False, False, False))
                _hmm.score(
                    self.emissions, K, start, A, links, plan.schedule, first, stop, warm, logs, warmed, end, work
                )

            self._run_groups(plan, body)
            before, behind = plan.joints
            return logs, _mismatch(warmed[behind], end[before], wide), None

        left = self.nonempty[:0]
        for wide, lanes, suited in self._passes():
            sequences, found = np.union1d(suited, left), None
            if lanes and len(sequences):
                found = self._in_lanes(sequences, _KIND[wide], False, partial(in_lanes, wide=wide))
            if found is None:
                left, _ = self._one_by_one(wide, sequences, out)
            else:
                left = self._by_sequence(*found[:2], out)
        return out

    def forward_backward(
        self,
        posterior: Array | None = None,
        *,
        transitions: bool = False,
        moments: Moments | None = None,
        reduce: Reduce | None = None,
    ) -> Outcome:
        """Everything else: fills ``posterior`` (n, K), if given, and ``moments``.

        Without ``posterior``, what is not in ``moments`` is given to ``reduce``.

        Raises
        ------
        ValueError
            A sequence that has weight is impossible; the step is named.
        """
        layout, K = self.layout, self.chain.K
        out = Outcome(np.zeros(layout.n_sequences), np.zeros(K), np.zeros((K, K)), moments, [])
        if moments is not None:
            moments.clear()
        left = impossible = self.nonempty[:0]
        for wide, lanes, suited in self._passes():
            sequences, found = np.union1d(suited, left), None
            if lanes and len(sequences):
                found = self._in_lanes(
                    sequences, _KIND[wide], True, partial(self._e_step, wide, posterior, transitions, moments)
                )
            if found is None:
                left, impossible = self._one_by_one(
                    wide, sequences, out.log_likelihoods, out, posterior, transitions, reduce
                )
                continue
            plan, logs, sums = found
            left = self._by_sequence(plan, logs, out.log_likelihoods)
            if len(left):  # their part in the sums is of no use: do without them
                (layout.alone if wide else layout.wide).update(int(sequence) for sequence in left)
                return self.forward_backward(posterior, transitions=transitions, moments=moments, reduce=reduce)
            out.start += sums.start
            out.transitions += sums.transitions
            if moments is not None and sums.moments is not None:
                moments += sums.moments
        for sequence, step in zip(left, impossible, strict=True):
            first, stop = layout.offsets[sequence : sequence + 2]
            if step >= 0 and (layout.weights is None or layout.weights[sequence] > 0):
                row, s = layout.origin[0] + first + step, layout.origin[1] + sequence
                raise ValueError(f"row {row} is impossible: no state can be at that step of sequence {s}")
            if posterior is not None:
                posterior[first:stop] = 0.0
        return out

    def _e_step(
        self, wide: bool, posterior: Array | None, transitions: bool, moments: Moments | None, plan: Plan, warm: int
    ) -> tuple[Array, float, Outcome]:
        """The pieces of a plan forward and backward; of the outcome, the sums."""
        K = self.chain.K
        start, A, AT = self.chain.lanes
        links = self.chain.links if wide else None
        logs = np.zeros((plan.pieces, 2))
        warm_a, end_a, warm_w, end_w = np.zeros((4, plan.n_lanes, 2 * K if wide else K))
        parts = min(plan.groups, 32)
        firsts, counts = np.zeros((parts, K)), np.zeros((parts, K, K))
        sums: dict[str, Any] = {}
        if moments is not None:
            d = moments.about.shape[1]
            size = d * d if moments.full else d
            about = _padded(moments.about, K, -(-d // 8) * 8 | 8)  # row_step in gaussian.h
            sums = {
                "weight": np.zeros((parts, K)),
                "moment1": np.zeros((parts, K, d)),
                "moment2": np.zeros((parts, K, size)),
                "count": np.zeros((parts, K, d)),
            }

        def body(part: int, first: int, stop: int) -> None:
            size = _hmm.work_size(self.emissions, K, wide, plan.tiles, True, transitions, moments is not None)
            work = self.layout.buffer("e_step", size)
            more = {name: array[part] for name, array in sums.items()}
            if more:
                more["about"] = about
            _hmm.e_step(
                self.emissions,
                K,
                start,
                A,
                AT,
                links,
                plan.schedule,
                first,
                stop,
                warm,
                plan.tiles,
                logs,
                warm_a,
                end_a,
                warm_w,
                end_w,
                work,
                posterior,
                firsts[part] if transitions else None,
                counts[part] if transitions else None,
                **more,
            )

        self._run_groups(plan, body, parts)
        xi = counts.sum(axis=0) * (1.0 if wide else self.chain.transmat)
        of_data = None
        if moments is not None:
            totals = {name: array.sum(axis=0) for name, array in sums.items()}
            second = totals["moment2"].reshape(moments.second.shape)
            of_data = Moments(moments.about, moments.full, totals["weight"], totals["moment1"], second, totals["count"])
        before, behind = plan.joints
        mismatch = max(_mismatch(warm_a[behind], end_a[before], wide), _mismatch(warm_w[before], end_w[behind], wide))
        return logs, mismatch, Outcome(logs, firsts.sum(axis=0), xi, of_data, [])

    # One sequence at a time -------------------------------------------------------------------------------------------

    def _on_threads(self, parts: int, run: Callable[[int], None], steps: float) -> None:
        """Call run(part) for each, which take so many steps of the usual length in all."""

        def make_body() -> Body:
            def body(first: int, last: int) -> None:
                for part in range(first, last):
                    run(part)

            return body

        run_chunks(make_body, parts, 1, steps * self.step_ns, self.n_threads)

    def _each(self, sequences: Index, run: Callable[[int, int, int, int], None], factor: float) -> None:
        """Call run(number, sequence, first row, length) for each, on threads."""
        offsets = self.layout.offsets
        lengths = offsets[sequences + 1] - offsets[sequences]

        def one(i: int) -> None:
            s = int(sequences[i])
            run(i, s, int(offsets[s]), int(lengths[i]))

        self._on_threads(len(sequences), one, factor * float(lengths.sum()))

    def _run_kernel(
        self, wide: bool, row: int, n: int, weight: float, logs: Array, posterior: Array | None = None,
        first: Array | None = None, counts: Array | None = None, *, filtered: bool = False,
        a_in: Array | None = None, a_out: Array | None = None, w_in: Array | None = None, w_out: Array | None = None
    ) -> int:  # fmt: skip
        """n steps from ``row`` on; the first impossible one, if the kernel is wide, or -1."""
        emissions, at = self._emissions_of(row, n, wide)
        keep = not filtered and (posterior is not None or counts is not None)
        work = self.layout.buffer("rows", _hmm.sequence_size(emissions, self.chain.K, n, keep, wide))
        joints = a_in, a_out, w_in, w_out
        if wide:
            return _hmm.wide_sequence(
                emissions, *self.chain.wide, at, n, weight, logs, work, posterior, first, counts, filtered, *joints
            )
        start, A, AT = self.chain.rows
        _hmm.sequence(emissions, start, A, AT, at, n, weight, logs, work, posterior, first, counts, filtered, *joints)
        return -1

    def _in_blocks(
        self, wide: bool, row: int, n: int, weight: float, logs: Array, first: Array | None, counts: Array | None,
        gathered: "_Gathered | None"
    ) -> int:  # fmt: skip
        """A sequence of n steps, forward in blocks whose ends are kept, and then block by block backward.

        Returns the first impossible step or -1.
        """
        size = max(_BLOCK, -(-int(n**0.5) // 32) * 32)  # whole tiles, so that sums are those of the whole sequence
        blocks = [(at, min(size, n - at)) for at in range(0, n, size)]
        ends = np.zeros((len(blocks) + 1, 2 * self.chain.rows[1].shape[1] + 2))
        for i, (at, here) in enumerate(blocks):
            impossible = self._run_kernel(
                wide, row + at, here, weight, logs, a_in=ends[i] if i else None, a_out=ends[i + 1]
            )
            if impossible >= 0:
                return at + impossible
        if gathered is None or not np.isfinite(logs).all():
            return -1
        behind: Array | None = None
        for i, (at, here) in reversed(list(enumerate(blocks))):
            w = np.zeros(ends.shape[1])
            rows = gathered.room(row + at, here)
            self._run_kernel(
                wide, row + at, here, weight, np.zeros(2), rows, first, counts,
                a_in=ends[i] if i else None, w_in=behind, w_out=w,
            )  # fmt: skip
            gathered.keep(here)
            gathered.flush()
            behind = w
        return -1

    def _one_by_one(
        self,
        wide: bool,
        sequences: Index,
        log_likelihoods: Array,
        out: Outcome | None = None,
        posterior: Array | None = None,
        transitions: bool = False,
        reduce: Reduce | None = None,
    ) -> tuple[Index, Index]:
        """Sequence by sequence, states along the vectors; out None: only log-likelihoods, which are set.

        Returns the sequences that are not finite, and of each the first impossible step or -1.
        """
        if not len(sequences):
            return sequences, sequences
        if wide:
            self._look_closer()
        offsets, K = self.layout.offsets, self.chain.K
        P = self.chain.rows[1].shape[1]
        logs, impossible = np.zeros((len(sequences), 2)), np.full(len(sequences), -1)
        lengths = offsets[sequences + 1] - offsets[sequences]
        edges = _parts(lengths, 32)
        parts = len(edges) - 1
        sums = transitions and out is not None
        firsts, counts = np.zeros((parts, K)), np.zeros((parts, K, P))
        reduced: list[list[Any]] = [[] for _ in range(parts)]

        def run(part: int) -> None:
            first, count = (firsts[part], counts[part]) if sums else (None, None)
            gathered = _Gathered(reduce, K) if reduce is not None else None
            for i in range(edges[part], edges[part + 1]):
                s = int(sequences[i])
                row, n = int(offsets[s]), int(lengths[i])
                weight = 1.0 if self.layout.weights is None else float(self.layout.weights[s])
                if self.layout.blocks and n > _BLOCK and posterior is None:
                    if gathered is not None:
                        gathered.flush()
                    impossible[i] = self._in_blocks(wide, row, n, weight, logs[i], first, count, gathered)
                    continue
                rows = posterior[row : row + n] if posterior is not None else None
                if gathered is not None:
                    rows = gathered.room(row, n)
                impossible[i] = self._run_kernel(wide, row, n, weight, logs[i], rows, first, count)
                if gathered is not None and np.isfinite(logs[i]).all():
                    gathered.keep(n)
            if gathered is not None:
                gathered.flush()
                reduced[part] = gathered.results

        self._on_threads(parts, run, float(lengths.sum()) * (10.0 if wide else 2.0))
        unknown = np.isnan(logs[:, 0])
        if wide and unknown.any():
            s = self.layout.origin[1] + sequences[unknown.argmax()]
            raise ValueError(f"sequence {s} has a step at which a log-density is NaN or infinite")
        log_likelihoods[sequences] = np.where(np.isneginf(logs[:, 0]), -np.inf, logs.sum(axis=1))
        if out is not None:
            out.start = out.start + firsts.sum(axis=0)
            out.transitions = out.transitions + counts.sum(axis=0)[:, :K] * (1.0 if wide else self.chain.transmat)
            out.rest += [part for of_part in reduced for part in of_part]
        bad = ~np.isfinite(log_likelihoods[sequences])
        return sequences[bad], impossible[bad]

    def _emissions_of(self, row: int, n: int, wide: bool) -> tuple[_hmm.Emissions, int]:
        """Emissions of n steps, in which they begin at the row that is returned; wide: safe to take logarithms of."""
        return self.emissions, row

    def _look_closer(self) -> None:
        """A log-likelihood is not finite: raise what must be raised if it is NaN."""

    def filtered(self, out: Array) -> Array:
        """log p(sequence), (S,); out (n, K) <- log p(z_t | x_1, ..., x_t), not finite from an impossible step on."""
        offsets = self.layout.offsets
        log_likelihoods = np.zeros(self.layout.n_sequences)

        def run(i: int, s: int, row: int, n: int) -> None:
            logs, part = np.zeros(2), out[row : row + n]
            wide = not self.chain.safe
            if not wide:
                self._run_kernel(False, row, n, 1.0, logs, part, filtered=True)
                # A state that is lost in the filter may still be the only one that the next step allows.
                wide = not np.isfinite(logs).all() or not part.min() > _FILTERED
            if wide:
                self._look_closer()
                self._run_kernel(True, row, n, 1.0, logs, part, filtered=True)
            log_likelihoods[s] = logs[0] if np.isneginf(logs[0]) else logs.sum()

        self._each(np.flatnonzero(np.diff(offsets)), run, 2.0)
        return log_likelihoods

    # Viterbi ----------------------------------------------------------------------------------------------------------

    def viterbi(self, path: Index) -> Array:
        """log p(path, data) of the most probable paths, (S,), which are put into ``path`` (n,).

        -inf, and -1 in the path, for sequences that are impossible.
        """
        layout, K = self.layout, self.chain.K
        out = np.zeros(layout.n_sequences)
        start, log_A = self.chain.logs
        bad = False

        def run(plan: Plan, warm: int) -> tuple[Array, float, None]:
            nonlocal bad
            logs = np.zeros((plan.pieces, 2))
            warmed, end = np.zeros((2, plan.n_lanes, K))
            entry, exits = np.zeros((2, plan.n_lanes), np.intp)

            def body(_: int, first: int, stop: int) -> None:
                nonlocal bad
                work = layout.buffer("viterbi", _hmm.viterbi_size(self.emissions, K, plan.tiles, warm))
                if _hmm.viterbi(
                    self.emissions,
                    start,
                    log_A,
                    plan.schedule,
                    first,
                    stop,
                    warm,
                    plan.tiles,
                    logs,
                    path,
                    warmed,
                    end,
                    entry,
                    exits,
                    work,
                ):
                    bad = True

            self._run_groups(plan, body)
            before, behind = plan.joints
            same = bool((exits[before] == entry[behind]).all())
            return logs, _mismatch_of_paths(warmed[behind], end[before]) if same else _UNLIKE, None

        if len(self.nonempty):
            # Where A has zeros, the probe's filter may never forget, but paths may still meet.
            kind = _KIND[False] if self.chain.safe else "paths"
            if not self.chain.safe:
                layout.warm.setdefault(kind, 4 * _WARM)
            found = self._in_lanes(self.nonempty, kind, True, run)
            if found is not None:
                plan, logs, _ = found
                with np.errstate(invalid="ignore"):
                    low = np.where(np.isfinite(logs[:, 0]), logs[:, 1], 0.0)
                self._by_sequence(plan, np.stack([logs[:, 0], low], axis=1), out)
            else:
                bad = self._viterbi_rows(path, out)
            if bad:
                self._look_closer()
        for sequence in np.flatnonzero(np.isneginf(out)):
            path[layout.offsets[sequence] : layout.offsets[sequence + 1]] = -1
        return out

    def _viterbi_rows(self, path: Index, out: Array) -> bool:
        start, log_A = self.chain.log_rows
        K, P = log_A.shape
        logs = np.zeros((len(self.nonempty), 2))
        found = np.zeros(len(self.nonempty), bool)

        def run(i: int, s: int, row: int, n: int) -> None:
            back = np.empty(n * P * (1 if K <= 256 else 2), np.uint8)
            work = self.layout.buffer("viterbi rows", _hmm.sequence_size(self.emissions, K, n, False, False))
            part = path[row : row + n]
            found[i] = _hmm.viterbi_rows(self.emissions, start, log_A, row, n, logs[i], part, back, work)

        self._each(self.nonempty, run, 2.0)
        out[self.nonempty] = np.where(np.isneginf(logs[:, 0]), -np.inf, logs.sum(axis=1))
        return bool(found.any())


def _mismatch(a: Array, b: Array, wide: bool = False) -> float:
    """The largest relative difference of states; what is not finite is dealt with elsewhere."""
    if wide:  # (lanes, 2 K): sums of mantissas are 1, or there is none
        (a, a_exponent), (b, b_exponent) = (np.split(state, 2, axis=1) for state in (a, b))
        a = a * np.exp2(np.clip(a_exponent - b_exponent, -100.0, 100.0))
    off = np.maximum(np.abs(a - b) - 1e-300, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = off / b
    return float(np.max(relative, initial=0.0, where=~np.isnan(relative)))


def _without(sequences: Index, others: Index) -> Index:
    return np.setdiff1d(sequences, others, assume_unique=True) if len(others) else sequences


def _mismatch_of_paths(a: Array, b: Array) -> float:
    """Of the logarithms of states."""
    with np.errstate(invalid="ignore"):
        off = (np.abs(a - b) > _CONVERGED_PATH * (1 + np.abs(b))) | (np.isinf(a) != np.isinf(b))
    return _UNLIKE if off.any() else 0.0


# Public functions ---------------------------------------------------------------------------------------------------


class ForwardBackward(NamedTuple):
    """What `forward_backward` returns."""

    log_likelihoods: Array
    """(S,) log p(sequence), in nats"""
    posteriors: Array
    """(n, K) p(state at this step | its sequence)"""


class Viterbi(NamedTuple):
    """What `viterbi` returns."""

    log_probs: Array
    """(S,) log p(path, sequence), in nats"""
    paths: Index
    """(n,) states; -1 where the sequence is impossible"""


class ExpectedTransitions(NamedTuple):
    """What `expected_transitions` returns."""

    log_likelihoods: Array
    """(S,) log p(sequence), in nats"""
    start: Array
    """(K,) expected number of sequences that start in each state"""
    transitions: Array
    """(K, K) expected number of transitions from state i to state j"""
    posteriors: Array
    """(n, K) p(state at this step | its sequence), times the weight of the sequence"""


def as_offsets(lengths: ArrayLike | None, n: int) -> Index:
    """Where sequences begin, and n, (S + 1,), of their lengths."""
    if lengths is None:
        return np.array([0, n], np.intp)
    array = np.asarray(lengths)
    if array.size == 0:
        array = array.astype(np.intp)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"lengths must be a list of integers, got {lengths!r:.80}")
    if array.size and array.min() < 0:
        raise ValueError(f"lengths must not be negative, got {array.min()} at {array.argmin()}")
    if (array.size and array.max() > n) or array.sum() != n:
        raise ValueError(f"lengths add up to {array.sum()}, but there are {n} rows")
    return np.concatenate([[0], np.cumsum(array, dtype=np.intp)]).astype(np.intp)


def as_chain(startprob: ArrayLike, transmat: ArrayLike) -> Chain:
    """Check the probabilities of a chain: not negative, rows that add up to 1."""
    start = np.array(as_floats(startprob, "startprob"), np.float64)
    A = np.array(as_floats(transmat, "transmat"), np.float64, order="C")
    if start.ndim != 1 or not len(start):
        raise ValueError(f"startprob must have shape (K,), got {start.shape}")
    if A.shape != (len(start), len(start)):
        raise ValueError(f"transmat must have shape ({len(start)}, {len(start)}), got {A.shape}")
    for name, array in (("startprob", start[None]), ("transmat", A)):
        if not np.isfinite(array).all() or array.min() < 0:
            raise ValueError(f"{name} must hold probabilities, but has {array[~(array >= 0)].ravel()[:1]}")
        off = np.abs(array.sum(axis=1) - 1)
        if off.max() > 1e-6:
            where = "" if name == "startprob" else f" row {off.argmax()} of"
            raise ValueError(f"{where} {name} must add up to 1, got {array[off.argmax()].sum()}".strip())
    return Chain(start, A)


def _as_emissions(log_likelihoods: ArrayLike, K: int, log: bool) -> Data:
    data = as_floats(log_likelihoods, "log_likelihoods" if log else "likelihoods")
    if data.ndim != 2 or data.shape[1] != K:
        raise ValueError(f"log_likelihoods must have shape (n, {K}), got {data.shape}")
    return data


def refuse_likelihoods(data: Data, log: bool) -> None:
    """Raise ValueError for NaN, +inf, or a negative likelihood."""
    bad = np.isnan(data) | (np.isposinf(data))
    if not log:
        bad |= data < 0
    if bad.any():
        row, column = np.argwhere(bad)[0]
        kind = "log-likelihood" if log else "likelihood"
        raise ValueError(f"the {kind} of state {column} at row {row} is {data[row, column]}")


class _Given(Recursions):
    """Recursions over an array of likelihoods."""

    def __init__(
        self, likelihoods: ArrayLike, startprob: ArrayLike, transmat: ArrayLike, lengths: ArrayLike | None,
        weights: ArrayLike | None, log: bool, n_threads: int | None
    ) -> None:  # fmt: skip
        chain = as_chain(startprob, transmat)
        self.data = _as_emissions(likelihoods, chain.K, log)
        self.log = log
        if not log and self.data.size and not self.data.min() >= 0:
            refuse_likelihoods(self.data, log)
        offsets = as_offsets(lengths, len(self.data))
        S = len(offsets) - 1
        checked = None if weights is None or not S else as_weights(weights, S, "weights")
        given = (self.data, startprob, transmat, lengths, weights)
        self.inputs = [array for array in given if isinstance(array, np.ndarray)]
        data = self.data if len(self.data) else np.ones((1, chain.K))
        kind = _hmm.LOGS if log else _hmm.LIKELIHOODS
        super().__init__(_hmm.Emissions(kind, data, chain.K), chain, Layout(offsets, checked), 2.0, n_threads)

    def posteriors(self, out: Array | None, *, transitions: bool) -> tuple[Outcome, Array]:
        """The outcome, and the posteriors in ``out`` or a new array."""
        result = cast(Array, as_out(out, (len(self.data), self.chain.K), np.dtype(np.float64), *self.inputs))
        target = result if result.flags.c_contiguous else np.empty(result.shape)
        found = self.forward_backward(target if len(target) else None, transitions=transitions)
        if target is not result:
            result[...] = target
        return found, result

    def _look_closer(self) -> None:
        refuse_likelihoods(self.data, self.log)

    def _emissions_of(self, row: int, n: int, wide: bool) -> tuple[_hmm.Emissions, int]:
        if self.log or not wide:
            return self.emissions, row
        with np.errstate(divide="ignore"):
            return _hmm.Emissions(_hmm.LOGS, np.log(self.data[row : row + n].astype(np.float64)), self.chain.K), 0


def log_likelihood(
    log_likelihoods: ArrayLike,
    startprob: ArrayLike,
    transmat: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    log: bool = True,
    out: Array | None = None,
    n_threads: int | None = None,
) -> Array:
    """log p(sequence) under a hidden Markov model, for emissions that are given.

    The scaled forward recursion (Rabiner 1989, sec. V.A), in memory that does not depend on n.

    Parameters
    ----------
    log_likelihoods : array (n, K)
        log p(x_t | state); -inf: impossible. With ``log=False`` p(x_t | state) itself. float32 or float64, any layout.
    startprob : array (K,)
    transmat : array (K, K)
        Rows add up to 1. Zeros are exact.
    lengths : array (S,) of int, optional
        Of the sequences, which lie one after the other in the rows. Default: one sequence.
    log : bool, default=True
    out : array (S,), optional
    n_threads : int, optional
        Default: see `fastgen.get_num_threads`. The result does not depend on it.

    Returns
    -------
    array (S,), in nats
        -inf for an impossible sequence, 0 for an empty one.

    Raises
    ------
    ValueError
        Shapes that do not match, probabilities that do not add up to 1, NaN or +inf.

    Notes
    -----
    O(n K^2).

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.kernels import log_likelihood
    >>> b = np.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]])  # umbrella on two days, none on the third
    >>> log_likelihood(b, [0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], log=False).round(4)
    array([-2.1166])
    """
    given = _Given(log_likelihoods, startprob, transmat, lengths, None, log, n_threads)
    result = cast(Array, as_out(out, (given.layout.n_sequences,), np.dtype(np.float64), *given.inputs))
    result[...] = given.log_likelihoods()
    return result


def forward_backward(
    log_likelihoods: ArrayLike,
    startprob: ArrayLike,
    transmat: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    log: bool = True,
    out: Array | None = None,
    n_threads: int | None = None,
) -> ForwardBackward:
    """Posteriors of the states at each step, by the forward-backward algorithm.

    Parameters
    ----------
    log_likelihoods, startprob, transmat, lengths, log, n_threads : see `log_likelihood`
    out : array (n, K), optional
        For the posteriors.

    Returns
    -------
    ForwardBackward
        ``log_likelihoods`` (S,) and ``posteriors`` (n, K).

    Raises
    ------
    ValueError
        As `log_likelihood`; and for a sequence that is impossible: the first row where no state can be is named.

    Notes
    -----
    O(n K^2).
    """
    given = _Given(log_likelihoods, startprob, transmat, lengths, None, log, n_threads)
    found, result = given.posteriors(out, transitions=False)
    return ForwardBackward(found.log_likelihoods, result)


def expected_transitions(
    log_likelihoods: ArrayLike,
    startprob: ArrayLike,
    transmat: ArrayLike,
    lengths: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    log: bool = True,
    out: Array | None = None,
    n_threads: int | None = None,
) -> ExpectedTransitions:
    """The E-step of Baum-Welch for emissions that are given: expected starts, transitions, and posteriors.

    Parameters
    ----------
    log_likelihoods, startprob, transmat, lengths, log, n_threads : see `log_likelihood`
    weights : array (S,), optional
        A weight of 2 is the same as the sequence twice.
    out : array (n, K), optional
        For the posteriors.

    Returns
    -------
    ExpectedTransitions
        ``log_likelihoods`` (S,), not weighted; ``start`` (K,), ``transitions`` (K, K), ``posteriors`` (n, K), weighted.

    Raises
    ------
    ValueError
        As `forward_backward`, but a sequence of weight 0 may be impossible: it counts for nothing.

    Notes
    -----
    O(n K^2). Nothing of size n x K x K exists.
    """
    given = _Given(log_likelihoods, startprob, transmat, lengths, weights, log, n_threads)
    found, result = given.posteriors(out, transitions=True)
    return ExpectedTransitions(found.log_likelihoods, found.start, found.transitions, result)


def viterbi(
    log_likelihoods: ArrayLike,
    startprob: ArrayLike,
    transmat: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    log: bool = True,
    out: Index | None = None,
    n_threads: int | None = None,
) -> Viterbi:
    """The most probable path of states of each sequence (Viterbi 1967).

    Parameters
    ----------
    log_likelihoods, startprob, transmat, lengths, log, n_threads : see `log_likelihood`
    out : integer array (n,), optional
        For the paths; of dtype `numpy.intp`.

    Returns
    -------
    Viterbi
        ``log_probs`` (S,) of path and sequence together, and ``paths`` (n,). -inf and -1 for an impossible sequence.

    Raises
    ------
    ValueError
        As `log_likelihood`.

    Notes
    -----
    O(n K^2). Where several paths are equally probable to rounding, which one is returned is not specified.
    """
    given = _Given(log_likelihoods, startprob, transmat, lengths, None, log, n_threads)
    result: Any = as_out(out, (len(given.data),), np.dtype(np.intp), *given.inputs)
    if not log:
        with np.errstate(divide="ignore"):
            logs = np.log(given.data.astype(np.float64))
        given = _Given(logs, startprob, transmat, lengths, None, True, n_threads)
    target = result if result.flags.c_contiguous else np.empty(result.shape, np.intp)
    log_probs = given.viterbi(target)
    if target is not result:
        result[...] = target
    return Viterbi(log_probs, result)
