"""One instruction-set variant at work: reads commands from stdin, writes pickled replies to stdout.

``time NAME``: seconds of one run on one thread. ``answer NAME``: its result. FASTGEN_ISA chooses the variant; the
argument is the size of the data, in parts of which ten make the full size.
"""

import pickle
import sys
import time
from functools import cache, partial

import numpy as np

from fastgen import families
from fastgen._kernels import _simd
from fastgen.kernels import gaussian_log_density, logsumexp, mixture_e_step

NAMES = (
    *(f"log-density, full, d = {d}" for d in (2, 4, 10, 64)),
    *(f"log-density, {kind}, d = 16, K = 16" for kind in ("full", "tied", "diag", "spherical")),
    "logsumexp, K = 8",
    "exp",
    *(f"moments, {kind}, d = {d}" for kind in ("full", "diag") for d in (10, 64)),
    *(f"mixture E-step, full, d = {d}, K = 8" for d in (4, 16, 64, 128)),
    *(f"mixture E-step, {kind}, d = 16, K = 16" for kind in ("tied", "diag")),
)


def _gaussians(d, K, kind, rng):
    A = rng.standard_normal((K, d, d))
    full = A @ A.mT / d + 0.5 * np.eye(d)
    variances = rng.uniform(0.5, 2.0, (K, d))
    covariances = {"full": full, "tied": full[0], "diag": variances, "spherical": variances[:, 0]}[kind]
    return rng.standard_normal((K, d)), covariances


def _density(X, K, kind, rng):
    means, covariances = _gaussians(X.shape[1], K, kind, rng)
    out = np.zeros((len(X), K))
    return partial(gaussian_log_density, X, means, covariances, kind, out=out, n_threads=1)


def _exp(x):
    out = np.zeros_like(x)

    def run():
        _simd.exp(x, out)
        return out

    return run


def _moments(X, kind):
    def run():
        statistics = families.Gaussian(kind).statistics(X, n_threads=1)
        return np.concatenate([statistics.mean.ravel(), statistics.scatter.ravel()])

    return run


def _e_step(X, K, kind, rng):
    parameters = _gaussians(X.shape[1], K, kind, rng)

    def run():
        found = mixture_e_step(X, np.full(K, 1 / K), *parameters, kind, n_threads=1)
        sums = found.components
        mean = [[found.log_likelihood], sums.weight, sums.scatter.ravel()]
        return np.concatenate([np.concatenate(mean) / len(X), sums.mean.ravel()])

    return run


@cache
def workload(name: str, scale: int):
    """The job of this name, ready to be run; ``scale``: how many tenths of the full size."""
    rng = np.random.default_rng(0)
    what, *details = name.split(", ")
    numbers = {key: int(value) for key, value in (part.split(" = ") for part in details if " = " in part)}
    d, K = numbers.get("d", 1), numbers.get("K", 1)
    if what == "exp":
        return _exp(rng.uniform(-30.0, 5.0, 100_000 * scale))
    if what == "logsumexp":
        a = 10 * rng.standard_normal((20_000 * scale, K))
        return partial(logsumexp, a, out=np.zeros(len(a)), n_threads=1)
    if what == "mixture E-step":
        n = {4: 5000, 16: 2000, 64: 500, 128: 200}[d] * scale
        return _e_step(rng.standard_normal((n, d)), K, details[0], rng)
    X = rng.standard_normal(((50_000 if d < 10 else 20_000 if d == 10 else 5_000) * scale, d))
    if what == "moments":
        return _moments(X, details[0])
    return _density(X, K, details[0], rng)


def main() -> None:
    """Obey until the input ends."""
    scale = int(sys.argv[1])
    for line in sys.stdin:
        command, _, name = line.strip().partition(" ")
        run = workload(name, scale)
        reply = run()
        if command == "time":
            start = time.perf_counter()
            run()
            reply = time.perf_counter() - start
        pickle.dump(reply, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
