"""What this machine can do at most: arithmetic of one thread, and reading from memory.

A few loops in C, compiled here and now for this very processor. Without a C compiler there are no limits to
compare with.
"""

import ctypes
import shutil
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np

SOURCE = r"""
#include <stddef.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
typedef double vec __attribute__((vector_size(BYTES), aligned(8)));
enum { LANES = BYTES / 8, CHAINS = 12 };  /* more chains than latency x units, fewer than 16 registers */

/* Twelve independent chains of fused multiply-adds. Returns how many floating point operations that was. */
double fma_loop(ptrdiff_t rounds, double *sink) {
    vec a[CHAINS], x, y;
    for (int i = 0; i < LANES; i++) { x[i] = 0.999999; y[i] = 1e-6 * i; }
    for (int c = 0; c < CHAINS; c++) a[c] = y + c;
    for (ptrdiff_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) a[c] = a[c] * x + y;
    }
    double sum = 0.0;
    for (int c = 0; c < CHAINS; c++)
        for (int i = 0; i < LANES; i++) sum += a[c][i];
    *sink = sum;
    return 2.0 * CHAINS * LANES * (double)rounds;
}

/* The sum of n doubles (a multiple of 8 * LANES). */
double read_loop(const double *data, ptrdiff_t n) {
    vec s[8];
    for (int c = 0; c < 8; c++) s[c] = (vec){0};
    for (ptrdiff_t i = 0; i < n; i += 8 * LANES) {
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++) s[c] += *(const vec *)(data + i + c * LANES);
    }
    double sum = 0.0;
    for (int c = 0; c < 8; c++)
        for (int i = 0; i < LANES; i++) sum += s[c][i];
    return sum;
}
"""


@cache
def _compiled():
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, library = Path(folder, "limits.c"), Path(folder, "limits.so")
        source.write_text(SOURCE, encoding="ascii")
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True)
            loaded = ctypes.CDLL(str(library))
        except (OSError, subprocess.CalledProcessError):
            return None
    loaded.fma_loop.restype = loaded.read_loop.restype = ctypes.c_double
    loaded.fma_loop.argtypes = [ctypes.c_ssize_t, ctypes.c_void_p]
    loaded.read_loop.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
    return loaded


def _best(work, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def fma_rate(rounds: int = 500_000) -> float | None:
    """Billions of floating point operations per second in fused multiply-adds of one thread, this very moment."""
    library = _compiled()
    if library is None:
        return None
    sink = ctypes.c_double()
    start = time.perf_counter()
    operations = library.fma_loop(rounds, ctypes.byref(sink))
    return 1e-9 * operations / (time.perf_counter() - start)


def _read_bandwidth(library, data, threads, repeats):
    part = len(data) // threads
    barrier = threading.Barrier(threads + 1)

    def read(i):
        for _ in range(repeats):
            barrier.wait()
            library.read_loop(data[i * part :].ctypes.data, part)
            barrier.wait()

    readers = [threading.Thread(target=read, args=(i,)) for i in range(threads)]
    for reader in readers:
        reader.start()

    def all_together():
        barrier.wait()
        barrier.wait()

    best = _best(all_together, repeats)
    for reader in readers:
        reader.join()
    return data.nbytes / best / 1e9


def measure(repeats: int = 10, megabytes: int = 256) -> dict[str, float] | None:
    """Limits of this machine, each the best of ``repeats`` attempts; None without a working C compiler.

    Returns
    -------
    dict or None
        ``fma_gflops``: fused multiply-adds of one thread, float64, counted as two operations each.
        ``read_gbs``, ``read_gbs_2``: reading from memory, with one and two threads.
    """
    library = _compiled()
    if library is None:
        return None
    data = np.ones(megabytes * 2**20 // 8)
    return {
        "fma_gflops": max(fma_rate() for _ in range(repeats + 1)),
        "read_gbs": _read_bandwidth(library, data, 1, repeats),
        "read_gbs_2": _read_bandwidth(library, data, 2, repeats),
    }


if __name__ == "__main__":
    print(measure())
