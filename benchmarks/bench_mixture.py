"""Mixtures of Gaussians: EM, scores, whole fits, memory, and the limits of the machine.

An iteration is the E-step and the M-step, with all that the next E-step needs, from the same parameters on every side.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
import numpy_reference
import pytest
from bench_gaussian import data, gaussians, shape
from sklearn.mixture import GaussianMixture as Sklearn
from versus import Side, numpy_sides

import fastgen
from fastgen import GaussianMixture, families

REG_COVAR = 1e-6
ELSEWHERE = {
    ("full", 200_000, 16, 16): {"JAX": 183 / 508, "pomegranate": 924 / 508},
    ("full", 1_000_000, 4, 8): {"JAX": 238 / 667, "pomegranate": 521 / 667},
    ("full", 50_000, 128, 8): {"JAX": 419 / 679, "pomegranate": 1490 / 679},
    ("diag", 1_000_000, 32, 32): {"JAX": 446 / 929},
    ("tied", 200_000, 16, 16): {"JAX": 71.5 / 233},
    ("diag", 200_000, 16, 16): {"JAX": 43.1 / 94.3, "pomegranate": 584 / 94.3},
    ("spherical", 200_000, 16, 16): {"JAX": 42.2 / 95.4},
}
"""Time of one iteration over scikit-learn's: JAX 0.10, pomegranate 1.1.2 (torch 2.13), scikit-learn 1.9.1, in float64
and with 2 threads, on 2 cores of AMD Zen 5 with OpenBLAS kernels for Haswell. Another processor has other ratios."""


def problem(kind, n, d, K):
    """Data of K components that overlap, and parameters near them: weights, means, covariances."""
    means, covariances = gaussians(d, K, kind)
    rng = np.random.default_rng(2)
    X = data(n, d)
    X += means[rng.integers(0, K, n)]
    weights = rng.uniform(0.5, 1.5, K)
    return X, weights / weights.sum(), means + 0.2 * rng.standard_normal((K, d)), covariances


def our_iteration(X, weights, means, covariances, kind):
    """What the estimator does in each iteration."""
    family = families.Gaussian(kind, REG_COVAR).with_parameters(means, covariances)
    prepared, log_weights = family.prepare(X), np.log(weights)

    def iteration():
        log_likelihood, sums = family.e_step(prepared, log_weights)
        new = family.maximise(sums)
        new._prepared  # noqa: B018 - parameters as the next E-step reads them
        return log_likelihood, sums.weight / sums.weight.sum(), new.means, new.covariances

    return iteration


def sklearn_model(weights, means, covariances, kind):
    """scikit-learn's mixture with these parameters."""
    model = Sklearn(len(weights), covariance_type=kind, reg_covar=REG_COVAR)
    factors = fastgen.kernels.precision_cholesky(covariances, kind)
    model._set_parameters((weights, means, covariances, factors))
    model.n_features_in_ = means.shape[1]
    return model


def sklearn_iteration(X, *parameters):
    def iteration():
        model = sklearn_model(*parameters)
        mean_log_likelihood, log_resp = model._e_step(X)
        model._m_step(X, log_resp)
        return mean_log_likelihood * len(X), model.weights_, model.means_, model.covariances_

    return iteration


NUMPY = ("NumPy", "NumPy + pool", "JAX, scaled", "pomegranate, scaled")


@pytest.mark.parametrize(
    ("kind", "n", "d", "K", "over_sklearn", "over_others"),
    [
        ("full", 200_000, 16, 16, 18, 7),
        ("full", 1_000_000, 4, 8, 18, 4.5),
        ("full", 50_000, 128, 8, 7, 3.5),
        ("diag", 1_000_000, 32, 32, 12, 6),
        ("tied", 200_000, 16, 16, 20, 6),
        ("diag", 200_000, 16, 16, 12, 5),
        ("spherical", 200_000, 16, 16, 12, 5),
    ],
)
def test_iteration(versus, size, quick, kind, n, d, K, over_sklearn, over_others):
    X, *parameters = problem(kind, size(n), d, K)
    total = numpy_reference.gaussian_fit(X) if kind == "tied" else None
    threads = fastgen.get_num_threads()

    def numpy(expanded):
        def call(**options):
            return numpy_reference.mixture_em_step(
                X, *parameters, kind, reg_covar=REG_COVAR, expanded=expanded, total=total, **options
            )

        return numpy_sides(call, threads=threads, answer=tuple)

    rivals = numpy(kind != "full")
    if kind == "full" and d <= 16:
        rivals["NumPy, expanded"] = [side for sides in numpy(True).values() for side in sides]
    rivals["scikit-learn"] = Side(sklearn_iteration(X, *parameters, kind))
    versus(
        f"EM iteration, {kind}, {shape(*X.shape)}, K = {K}",
        Side(our_iteration(X, *parameters, kind)),
        rivals,
        rtol=1e-10,
        atol=1e-11,
        targets=None if quick else {("scikit-learn",): over_sklearn, NUMPY: over_others},
        scaled=None if quick else {name: ("scikit-learn", factor) for name, factor in ELSEWHERE[kind, n, d, K].items()},
        covariance_type=kind,
        n=len(X),
        d=d,
        K=K,
    )


@pytest.mark.parametrize("method", ["score_samples", "predict"])
def test_scores(versus, size, quick, method):
    d = K = 16
    X, *parameters = problem("full", size(200_000), d, K)
    theirs = sklearn_model(*parameters, "full")
    ours = GaussianMixture(K)
    ours.weights_, ours.means_, ours.precisions_cholesky_ = parameters[0], parameters[1], theirs.precisions_cholesky_
    versus(
        f"GaussianMixture.{method}, full, {shape(*X.shape)}, K = {K}",
        Side(lambda: getattr(ours, method)(X)),
        {"scikit-learn": Side(lambda: getattr(theirs, method)(X))},
        targets=None if quick else {("scikit-learn",): 15},
        n=len(X),
        d=d,
        K=K,
    )


@pytest.mark.parametrize(("name", "spread"), [("well separated", 6.0), ("overlapping", 1.0)])
def test_fit(versus, size, quick, name, spread):
    """Defaults, k-means included."""
    d = K = 10
    rng = np.random.default_rng(3)
    X = data(size(100_000), d) * rng.uniform(0.5, 1.5, d)
    X += spread * rng.standard_normal((K, d))[rng.integers(0, K, len(X))]

    def score(model):
        return np.array(model.score(X))

    ours, theirs = (model(K, random_state=0).fit(X) for model in (GaussianMixture, Sklearn))
    assert ours.converged_
    assert theirs.converged_
    assert score(ours) >= score(theirs) - 1e-9
    counts = f"{ours.n_iter_} iterations (scikit-learn {theirs.n_iter_})"
    versus(
        f"GaussianMixture.fit, full, {shape(*X.shape)}, K = {K}, {name}, {counts}",
        Side(lambda: GaussianMixture(K, random_state=0).fit(X), score),
        {"scikit-learn": Side(lambda: Sklearn(K, random_state=0).fit(X), score)},
        rtol=0,
        atol=1e-9,
        targets=None if quick else {("scikit-learn",): 5},
        n=len(X),
        d=d,
        K=K,
    )


# ---- Memory

MEMORY = ("Mixtures: memory of a fit beyond the data, MiB", ["", "fastgen", "scikit-learn", "ratio", "target"])
MEASURE = r"""
import gc, json, sys, threading, time, tracemalloc, warnings
import numpy as np

def resident():  # anonymous: of files that are mapped nothing counts
    pages = open("/proc/self/statm", "rb").read().split()
    return (int(pages[1]) - int(pages[2])) * 4096

class Resident(threading.Thread):
    # The largest number of bytes that are resident while the block runs, beyond those before it.
    def __enter__(self):
        gc.collect()
        self.before = self.most = resident()
        self.over = threading.Event()
        self.start()
        return self
    def run(self):
        while not self.over.wait(0.001):
            self.most = max(self.most, resident())
    def __exit__(self, *error):
        self.over.set()
        self.join()
        self.bytes = self.most - self.before

warnings.simplefilter("ignore")
options = json.loads(sys.argv[1])
n, d, K, module = (options[name] for name in ("n", "d", "K", "module"))
if module == "fastgen":
    from fastgen import GaussianMixture
else:
    from sklearn.mixture import GaussianMixture
rng = np.random.default_rng(0)
means = rng.standard_normal((K, d))
precisions = {"diag": np.ones((K, d)), "full": np.tile(np.eye(d), (K, 1, 1))}[options["covariance_type"]]
model = GaussianMixture(K, covariance_type=options["covariance_type"], max_iter=options["max_iter"], tol=0.0,
                        weights_init=np.full(K, 1 / K), means_init=means, precisions_init=precisions)
if options["file"]:
    X = np.memmap(options["file"], np.float64, "r", shape=(n, d))
else:
    X = np.empty((n, d))
    rng.standard_normal(out=X)
tracemalloc.start()
with Resident() as most:
    start = time.perf_counter()
    model.fit(X)
    seconds = time.perf_counter() - start
traced = tracemalloc.get_traced_memory()[1]
json.dump({"resident": most.bytes / 2**20, "traced": traced / 2**20, "seconds": seconds,
           "n_iter": model.n_iter_, "means": model.means_.tolist()}, sys.stdout)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def measured_fit(module, n, d, K, covariance_type, max_iter, file=None):
    """What MEASURE says, in a fresh interpreter."""
    options = {"module": module, "n": n, "d": d, "K": K, "covariance_type": covariance_type, "max_iter": max_iter}
    command = [sys.executable, "-c", MEASURE, json.dumps({**options, "file": file})]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@linux
def test_memory(table, size, quick):
    n, d, K, max_iter = size(1_000_000), 32, 32, 3
    ours, theirs = (measured_fit(module, n, d, K, "diag", max_iter) for module in ("fastgen", "scikit-learn"))
    np.testing.assert_allclose(ours["means"], theirs["means"], rtol=1e-9, atol=1e-10)
    for key, what in (("resident", "resident"), ("traced", "traced (tracemalloc)")):
        row = [f"{ours[key]:.2f}", f"{theirs[key]:.0f}", f"{theirs[key] / max(ours[key], 1e-3):.0f}"]
        title = f"diag, {shape(n, d)}, K = {K}, {max_iter} iterations: {what}"
        table(*MEMORY, [title, *row, "< 16" if quick else "< 16, ratio > 50"])
    for key in ("resident", "traced"):
        assert ours[key] < 16
        assert quick or theirs[key] > 50 * ours[key]


@linux
def test_memory_mapped(table, quick):
    """Data that need not fit into memory."""
    if quick:
        pytest.skip("writes 1.3 GB")
    n, d, K, max_iter, block = 20_000_000, 8, 8, 3, 500_000
    rng = np.random.default_rng(4)
    rows = np.empty((block, d))
    centres = 2 * rng.standard_normal((K, d))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        with path.open("wb") as file:
            for _ in range(n // block):
                rng.standard_normal(out=rows)
                rows += centres[rng.integers(0, K, block)]
                rows.tofile(file)
        found = measured_fit("fastgen", n, d, K, "full", max_iter, str(path))
    per_iteration = found["seconds"] / (found["n_iter"] + 1)  # the likelihood of the start takes one more
    title = f"memmap, full, {shape(n, d)}, K = {K}, {found['n_iter']} iterations of {per_iteration:.2f} s: resident"
    table(*MEMORY, [title, f"{found['resident']:.2f}", "", "", "< 64"])
    assert found["resident"] < 64


# ---- Arithmetic


@pytest.mark.parametrize(("n", "d", "K", "target"), [(50_000, 128, 8, 0.55), (200_000, 16, 16, 0.45)])
def test_fraction_of_peak(table, size, quick, n, d, K, target):
    """Density and moments need n K d (d + 1) multiply-adds: half of each symmetric or triangular product."""
    X, *parameters = problem("full", size(n), d, K)
    if machine.fma_rate() is None:
        pytest.skip("needs a C compiler")
    model = sklearn_model(*parameters, "full")
    assert np.exp(model._e_step(X[:1000])[1]).min() > 0  # else rows could be left out
    iteration = our_iteration(X, *parameters, "full")
    gflop = 1e-9 * len(X) * K * d * (d + 1) * 2
    rates, peaks = [], []
    with fastgen.num_threads(1):
        iteration()
        for _ in range(3 if quick else 15):
            peaks.append(machine.fma_rate())
            start = time.perf_counter()
            iteration()
            rates.append(gflop / (time.perf_counter() - start))
    fraction = statistics.median(rates) / statistics.median(peaks)
    row = [f"{statistics.median(rates):.1f}", f"{statistics.median(peaks):.1f}", f"{fraction:.2f}"]
    table(
        "Mixtures: arithmetic of an EM iteration, one thread",
        ["", "GFLOP/s", "machine", "fraction", "best rounds", "target"],
        [f"full, {shape(len(X), d)}, K = {K}", *row, f"{max(rates) / max(peaks):.2f}", target],
    )


GRIDS = {
    "n": [(n, 8, 8) for n in (20_000, 40_000, 80_000, 160_000, 320_000)],
    "d": [(10_000, d, 8) for d in (8, 16, 32, 64)],
    "K": [(10_000, 8, K) for K in (8, 16, 32, 64, 128)],
}


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_exponents(table, quick, kind):
    """How the time of the E-step grows; per sample and component there is more to do than d^2 or d, if d is small."""
    cells = []
    for name, grid in GRIDS.items():
        runs = []
        for n, d, K in grid[:3] if quick else grid:
            X, weights, means, covariances = problem(kind, n // 10 if quick else n, d, K)
            family = families.Gaussian(kind).with_parameters(means, covariances)
            prepared, log_weights = family.prepare(X), np.log(weights)
            runs.append((family, prepared, log_weights))
        times = [[] for _ in runs]
        for _ in range(2 if quick else 10):
            for taken, (family, prepared, log_weights) in zip(times, runs, strict=True):
                family.e_step(prepared, log_weights, n_threads=1)
                start = time.perf_counter()
                family.e_step(prepared, log_weights, n_threads=1)
                taken.append(time.perf_counter() - start)
        sizes = [point["ndK".index(name)] for point in grid[: len(runs)]]
        best = [min(taken) for taken in times]  # interference only ever adds
        slope = np.polyfit(np.log(sizes), np.log(best), 1)[0]
        cells.append(f"{slope:.2f}")
        assert quick or name == "d" or slope < 1.15
    expected = "1, 2, 1" if kind == "full" else "1, 1, 1"
    table(
        "Mixtures: the E-step's time grows with n, d, K to the power of ... (one thread)",
        ["", "n", "d", "K", "at most about"],
        [kind, *cells, expected],
    )
