"""Baseline, AVX2 (v3) and AVX-512 (v4) builds of each kernel: the same answers, and none slower than a lesser one.

Each variant lives in a process of its own (isa_worker.py) and times one kernel when asked, on one thread, so that the
variants take turns.
"""

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import isa_worker
import numpy as np
import pytest

from fastgen import _kernels
from fastgen._kernels._cpu import isa_level

VARIANTS = [
    name
    for name, level in sorted(_kernels._LEVELS.items(), key=lambda item: item[1])
    if isa_level() >= level and find_spec(f"fastgen._kernels._{name}._simd")
]
WORKER = Path(isa_worker.__file__)


class Worker:
    """A process in which one variant is in use."""

    def __init__(self, isa, scale):
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(scale)],
            env={**os.environ, "FASTGEN_ISA": isa},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, command, name):
        """The reply to a command: see isa_worker.py."""
        self.process.stdin.write(f"{command} {name}\n".encode())
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def close(self):
        """End of input ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def workers(quick):
    found = {isa: Worker(isa, 1 if quick else 10) for isa in VARIANTS}
    yield found
    for worker in found.values():
        worker.close()


@pytest.mark.parametrize("name", isa_worker.NAMES)
def test_variants(workers, name, table, quick):
    answers = {isa: worker.ask("answer", name) for isa, worker in workers.items()}
    for isa in VARIANTS[1:]:
        np.testing.assert_allclose(answers[isa], answers["baseline"], rtol=1e-12, atol=1e-12)
    if {"v3", "v4"} <= answers.keys():
        np.testing.assert_array_equal(answers["v3"].view(np.uint64), answers["v4"].view(np.uint64))

    best = dict.fromkeys(VARIANTS, np.inf)  # interference only ever adds: the best of the rounds says most
    for rounds in (3,) if quick else (15, 30, 60):
        for _ in range(rounds):
            for isa, worker in workers.items():
                best[isa] = min(best[isa], 1e3 * worker.ask("time", name))
        slower = {
            f"{high} than {low}": f"{best[high] / best[low]:.2f} times"
            for i, low in enumerate(VARIANTS)
            for high in VARIANTS[i + 1 :]
            if best[high] > 1.1 * best[low]
        }
        if not slower:
            break
    cells = [f"{best[isa]:.2f}" if isa in best else "" for isa in ("baseline", "v3", "v4")]
    for low, high in (("baseline", "v3"), ("v3", "v4")):
        cells.append(f"{best[low] / best[high]:.2f}" if high in best else "")
    headers = ["one thread, best of rounds", "baseline ms", "v3 ms", "v4 ms", "v3 faster by", "v4 faster by"]
    table("Instruction sets: v3 (AVX2) against baseline, v4 (AVX-512) against v3", headers, [name, *cells])
    assert quick or not slower
