"""Us against the others, in one run: all sides give the same answer, then take turns.

One machine is never the same twice, and seldom the same for a minute. So each round times every rival once, then
fastgen once, and medians are compared. Before each measurement there is a pause, for OpenBLAS's threads keep spinning
for some 25 ms after a call and would slow down whatever runs next; then one call that does not count.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy_reference import BLOCKS
from threadpoolctl import ThreadpoolController

import fastgen
from fastgen import _kernels

PAUSE_S = 0.06
BUDGET_S = 3.0
"""For the rounds of one benchmark; there are 3 to 25 of them."""


@dataclass(frozen=True)
class Side:
    """One way to do the job."""

    call: Callable[[], Any]
    """Does it, and returns the result."""
    answer: Callable[[Any], Any] = lambda result: result
    """Array, or tuple of arrays, of the result: these are compared."""
    blas_threads: int | None = None
    """Default: as BLAS likes."""
    how: str = ""
    """What distinguishes it from others of the same name."""
    part: float = 1.0
    """How much of the work it does, where all of it would take minutes: its time counts in proportion."""
    counterpart: Callable[[], Any] | None = None
    """Our result for that part, to be compared with."""


@cache
def _threadpools() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - loads its own BLAS, so that it is found

    return ThreadpoolController()


def _time(side: Side, calls: int, pause: float) -> tuple[float, Any]:
    """Seconds of one call, and the result of the last."""
    limited = side.blas_threads is not None
    with _threadpools().limit(limits=side.blas_threads, user_api="blas") if limited else nullcontext():
        time.sleep(pause)
        if pause:  # caches, clock and memory as in a program that goes on doing this
            side.call()
        start = time.perf_counter()
        for _ in range(calls - 1):
            side.call()
        result = side.call()
        return (time.perf_counter() - start) / calls, result


def numpy_sides(
    call: Callable[..., Any], *, threads: int, answer: Callable[[Any], Any] = np.ravel, dtypes: Sequence[Any] = (None,)
) -> dict[str, list[Side]]:
    """Sides for all block sizes and layouts of a function from `numpy_reference`.

    "NumPy" has the threads of its BLAS; "NumPy + pool" runs blocks on as many threads, each with a BLAS of one thread.
    """
    sides: dict[str, list[Side]] = {}
    for block, by_feature, workers, dtype in product(BLOCKS, (False, True), sorted({1, threads}), dtypes):
        options = {"block": block, "by_feature": by_feature, "threads": workers}
        how = f"blocks of {block} {'by feature' if by_feature else 'by sample'}"
        if dtype is not None:
            options["dtype"] = dtype
            how += f", {np.dtype(dtype)}"
        side = Side(lambda options=options: call(**options), answer, threads if workers == 1 else 1, how)
        sides.setdefault("NumPy" if workers == 1 else "NumPy + pool", []).append(side)
    return sides


def _assert_same(ours: Any, theirs: Any, rtol: float, atol: float, name: str) -> None:
    if not isinstance(ours, tuple):
        ours, theirs = (ours,), (theirs,)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, mine, rtol=rtol, atol=atol, err_msg=f"{name} and fastgen disagree")


class Versus:
    """The fixture ``versus``: call it once, with everything that is to take turns."""

    def __init__(self, benchmark: Any, quick: bool, limits: dict[str, float] | None, rows: list[dict[str, Any]]):
        self.benchmark = benchmark
        self.quick = quick
        self.limits = limits
        self.rows = rows
        self.pause = 0.0 if quick else PAUSE_S

    def __call__(
        self,
        workload: str,
        ours: Side,
        rivals: dict[str, Side | Sequence[Side]],
        *,
        rtol: float = 1e-10,
        atol: float = 1e-12,
        threads: int | None = None,
        calls: int = 1,
        n_bytes: float = 0.0,
        n_flops: float = 0.0,
        targets: dict[tuple[str, ...], float] | None = None,
        scaled: dict[str, tuple[str, float]] | None = None,
        **parameters: Any,
    ) -> dict[str, Any] | None:
        """Assert that all sides agree, then time them in turns, and record medians; return the record.

        Parameters
        ----------
        workload : str
            What is done, in a few words.
        ours : Side
        rivals : dict
            By name. Of several sides, the fastest of a trial competes.
        rtol, atol : float
            How closely the answers agree.
        threads : int, optional
            Of ours. Default: `fastgen.get_num_threads`.
        calls : int
            Calls in one measurement, for what takes microseconds.
        n_bytes, n_flops : float
            Least memory traffic and arithmetic of one call, to be compared with the limits of one thread.
        targets : dict, optional
            How many times our time the fastest of these rivals should take.
        scaled : dict, optional
            Rivals that are not here: which rival's time tells theirs, and how many times as long they took elsewhere.
        **parameters
            For the record.
        """
        threads = threads or fastgen.get_num_threads()
        if self.quick:
            calls = max(1, calls // 10)
        with fastgen.num_threads(threads):
            cycle, result = _time(ours, calls, self.pause)
            answer = ours.answer(result)
            chosen: dict[str, Side] = {}
            for name, candidates in rivals.items():
                sides = [candidates] if isinstance(candidates, Side) else candidates
                seconds, chosen[name] = self._fastest(name, sides, ours, answer, calls, rtol, atol)
                cycle += seconds
            cycle = (calls + 1) * cycle + (1 + len(rivals)) * self.pause
            times = self._take_turns(ours, chosen, calls, 3 if self.quick else min(25, max(3, int(BUDGET_S / cycle))))
        if self.benchmark.disabled:
            return None
        ms = {name: 1e3 * statistics.median(measured) / calls for name, measured in times.items()}
        ms |= {name: ms[name] / side.part for name, side in chosen.items() if side.part != 1.0}
        ms |= {f"{name}, scaled": factor * ms[base] for name, (base, factor) in (scaled or {}).items()}
        row: dict[str, Any] = {
            "workload": workload,
            "parameters": parameters,
            "threads": threads,
            "isa": _kernels.isa,
            "rounds": len(times["fastgen"]),
            "calls": calls,
            "ms": ms,
            "ratio": {name: ms[name] / ms["fastgen"] for name in ms if name != "fastgen"},
            "how": {name: side.how for name, side in chosen.items() if side.how},
        }
        if targets:
            ratios = row["ratio"]
            row["targets"] = [
                {"rivals": names, "wanted": wanted, "measured": min(ratios[name] for name in names if name in ratios)}
                for names, wanted in targets.items()
            ]
        if self.limits and threads == 1 and (n_bytes or n_flops):
            bounds = {
                "memory": 1e-6 * n_bytes / self.limits["read_gbs"],
                "fma": 1e-6 * n_flops / self.limits["fma_gflops"],
            }
            kind = max(bounds, key=lambda name: bounds[name])
            best = 1e3 * min(times["fastgen"]) / calls
            row |= {
                "bound": kind,
                "bound_ms": bounds[kind],
                "times_bound": ms["fastgen"] / bounds[kind],
                "best_times_bound": best / bounds[kind],
            }
        self.benchmark.extra_info.update(row)
        self.rows.append(row)
        return row

    def _fastest(
        self, name: str, sides: Sequence[Side], ours: Side, answer: Any, calls: int, rtol: float, atol: float
    ) -> tuple[float, Side]:
        """Check the answer of each; after this first run, one more of the best three decides."""
        trials = []
        for i, side in enumerate(sides):
            seconds, result = _time(side, calls, self.pause)
            expected = answer if side.counterpart is None else ours.answer(side.counterpart())
            _assert_same(expected, side.answer(result), rtol, atol, f"{name} {side.how}".strip())
            trials.append((seconds, i))
        if len(sides) > 1 and not self.quick:
            trials = [(min(seconds, _time(sides[i], calls, self.pause)[0]), i) for seconds, i in sorted(trials)[:3]]
        seconds, i = min(trials)
        return seconds, sides[i]

    def _take_turns(self, ours: Side, rivals: dict[str, Side], calls: int, rounds: int) -> dict[str, list[float]]:
        """Seconds of each round."""
        times: dict[str, list[float]] = {name: [] for name in rivals}

        def rivals_turn() -> None:
            for name, rival in rivals.items():
                times[name].append(calls * _time(rival, calls, self.pause)[0])
            time.sleep(self.pause)
            if self.pause:
                ours.call()  # uncounted, as for the others

        def our_turn() -> None:
            for _ in range(calls):
                ours.call()

        gc.collect()
        gc.disable()
        try:
            self.benchmark.pedantic(our_turn, setup=rivals_turn, rounds=rounds)
        finally:
            gc.enable()
        return {"fastgen": [] if self.benchmark.disabled else self.benchmark.stats.stats.data, **times}
