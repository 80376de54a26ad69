"""Gaussian densities, their fits and the generative classifier, against NumPy, SciPy and scikit-learn.

Every side allocates its own result, unless the workload is compared with the machine's limits.
"""

import os
import statistics
import subprocess
import sys
import tracemalloc

import numpy as np
import numpy_reference
import pytest
import scipy.special
import scipy.stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from versus import Side, numpy_sides

import fastgen
from fastgen import Gaussian, GenerativeClassifier
from fastgen.kernels import gaussian_log_density, logsumexp, precision_cholesky, softmax

FACTS = ("Beside speed", ["", "measured", "limit"])


def shape(*sizes):
    return " x ".join(f"{n:.0e}".replace("e+0", "e") if n >= 1000 else str(n) for n in sizes)


def gaussians(d, K, covariance_type="full", seed=0):
    """Means (K, d) and covariances, moderately correlated."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((K, d))
    A = rng.standard_normal((K, d, d))
    full = A @ A.mT / d + 0.5 * np.eye(d)
    variances = rng.uniform(0.5, 2.0, (K, d))
    return means, {"full": full, "tied": full[0], "diag": variances, "spherical": variances[:, 0]}[covariance_type]


def data(n, d, seed=1):
    return np.random.default_rng(seed).standard_normal((n, d))


# ---- Log-density


@pytest.mark.parametrize("d", [2, 10, 64])
def test_log_density(versus, size, d):
    X = data(size(1_000_000), d)
    (mean,), (covariance,) = gaussians(d, 1)
    threads = fastgen.get_num_threads()
    versus(
        f"log-density, full, {shape(*X.shape)}",
        Side(lambda: gaussian_log_density(X, mean, covariance)),
        {
            **numpy_sides(
                lambda **options: numpy_reference.gaussian_log_density(X, mean[None], covariance[None], **options),
                threads=threads,
            ),
            "SciPy": Side(lambda: scipy.stats.multivariate_normal(mean, covariance).logpdf(X)),
        },
        n=len(X),
        d=d,
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("d", [2, 10, 64])
def test_log_density_out_given(versus, size, d, threads):
    X = data(size(1_000_000), d)
    (mean,), (covariance,) = gaussians(d, 1)
    out, numpy_out = np.zeros(len(X)), np.zeros((len(X), 1))
    versus(
        f"log-density, full, {shape(*X.shape)}, out given",
        Side(lambda: gaussian_log_density(X, mean, covariance, out=out)),
        {
            **numpy_sides(
                lambda **options: numpy_reference.gaussian_log_density(
                    X, mean[None], covariance[None], out=numpy_out, **options
                ),
                threads=threads,
            ),
        },
        threads=threads,
        n_bytes=X.nbytes + out.nbytes,
        # multiply-adds of the triangle and of the squares are two operations each, subtracting the mean is one
        n_flops=len(X) * (d * (d + 1) + d + 2 * d),
        n=len(X),
        d=d,
    )


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_log_density_of_components(versus, size, covariance_type):
    d = K = 16
    X = data(size(200_000), d)
    means, covariances = gaussians(d, K, covariance_type)
    versus(
        f"log-density, {covariance_type}, {shape(*X.shape)}, K = {K}",
        Side(lambda: gaussian_log_density(X, means, covariances, covariance_type), np.ravel),
        {
            **numpy_sides(
                lambda **options: numpy_reference.gaussian_log_density(
                    X, means, covariances, covariance_type, **options
                ),
                threads=fastgen.get_num_threads(),
            ),
        },
        n=len(X),
        d=d,
        K=K,
    )


def test_log_density_float32(versus, size):
    d = K = 16
    X = data(size(200_000), d).astype(np.float32)
    means, covariances = gaussians(d, K)
    versus(
        f"log-density, full, {shape(*X.shape)}, K = {K}, float32",
        Side(lambda: gaussian_log_density(X, means, covariances), np.ravel),
        {
            **numpy_sides(
                lambda **options: numpy_reference.gaussian_log_density(X, means, covariances, **options),
                threads=fastgen.get_num_threads(),
                dtypes=(np.float32, np.float64),
            ),
        },
        rtol=1e-5,  # float32 arithmetic
        n=len(X),
        d=d,
        K=K,
    )


def test_log_density_by_column(versus, size):
    d = 10
    X = np.asfortranarray(data(size(1_000_000), d))
    (mean,), (covariance,) = gaussians(d, 1)
    versus(
        f"log-density, full, {shape(*X.shape)}, F order",
        Side(lambda: gaussian_log_density(X, mean, covariance)),
        {
            **numpy_sides(
                lambda **options: numpy_reference.gaussian_log_density(X, mean[None], covariance[None], **options),
                threads=fastgen.get_num_threads(),
            ),
            "SciPy": Side(lambda: scipy.stats.multivariate_normal(mean, covariance).logpdf(X)),
        },
        n=len(X),
        d=d,
    )


@pytest.mark.parametrize("n", [1, 100])
@pytest.mark.parametrize("layer", ["kernel", "estimator"])
def test_small_batch(versus, n, layer):
    """What one call costs; everything that does not depend on X is known beforehand."""
    d = 10
    X = data(n, d)
    (mean,), (covariance,) = gaussians(d, 1)
    factor = precision_cholesky(covariance, "tied")
    density = Gaussian.from_parameters(mean, covariance)
    frozen = scipy.stats.multivariate_normal(mean, covariance)
    score = numpy_reference.gaussian_scorer(mean, covariance)
    name, ours = {
        "kernel": ("log-density", lambda: gaussian_log_density(X, mean, None, precisions_cholesky=factor)),
        "estimator": ("Gaussian.log_prob", lambda: density.log_prob(X)),
    }[layer]
    versus(
        f"{name}, one call, {shape(*X.shape)}",
        Side(ours, np.ravel),
        {"NumPy": Side(lambda: score(X)), "SciPy": Side(lambda: frozen.logpdf(X), np.ravel)},
        threads=1,
        calls=1000,
        n=n,
        d=d,
    )


# ---- Rows of log-probabilities


@pytest.mark.parametrize("name", ["logsumexp", "softmax"])
def test_rows(versus, size, name):
    a = 10 * data(size(1_000_000), 8)
    ours = {"logsumexp": logsumexp, "softmax": softmax}[name]
    theirs = getattr(scipy.special, name)
    versus(
        f"{name}, {shape(*a.shape)}",
        Side(lambda: ours(a), np.ravel),
        {
            **numpy_sides(
                lambda **options: numpy_reference.logsumexp(a, softmax=name == "softmax", **options),
                threads=fastgen.get_num_threads(),
            ),
            "SciPy": Side(lambda: theirs(a, axis=1), np.ravel),
        },
        n=len(a),
        K=a.shape[1],
    )


# ---- Fits


@pytest.mark.parametrize(("n", "d"), [(1_000_000, 10), (200_000, 64)])
def test_fit(versus, size, n, d):
    X = data(size(n), d)
    versus(
        f"Gaussian.fit, full, {shape(*X.shape)}",
        Side(lambda: Gaussian().fit(X), lambda fit: (fit.mean_, fit.covariance_)),
        {
            **numpy_sides(
                lambda **options: numpy_reference.gaussian_fit(X, **options),
                threads=fastgen.get_num_threads(),
                answer=tuple,
            ),
            "scikit-learn": Side(
                lambda: EmpiricalCovariance(store_precision=False).fit(X),
                lambda fit: (fit.location_, fit.covariance_),
            ),
        },
        n=len(X),
        d=d,
    )


@pytest.mark.parametrize(("n", "d"), [(1_000_000, 10), (200_000, 64)])
def test_fit_one_thread(versus, size, n, d):
    X = data(size(n), d)
    versus(
        f"Gaussian.fit, full, {shape(*X.shape)}",
        Side(lambda: Gaussian().fit(X), lambda fit: (fit.mean_, fit.covariance_)),
        {
            **numpy_sides(lambda **options: numpy_reference.gaussian_fit(X, **options), threads=1, answer=tuple),
        },
        threads=1,
        n_bytes=X.nbytes,
        n_flops=len(X) * (d * (d + 1) + d + d),  # half of the products; sum, and subtract the mean
        n=len(X),
        d=d,
    )


def test_fit_missing(versus, size):
    d = 8
    rng = np.random.default_rng(2)
    X = data(size(50_000), d) @ rng.standard_normal((d, d))
    X[rng.random(X.shape) < 0.1] = np.nan
    fit = Gaussian().fit(X)
    versus(
        f"Gaussian.fit, full, {shape(*X.shape)}, 10 % missing, {fit.n_iter_} iterations",
        Side(lambda: Gaussian().fit(X), lambda fit: (fit.mean_, fit.covariance_, fit.history_)),
        {"NumPy": Side(lambda: numpy_reference.missing_em(X, fit.n_iter_), lambda r: (r[0], r[1], np.array(r[2])))},
        atol=1e-10,
        n=len(X),
        d=d,
        n_iter=fit.n_iter_,
    )


# ---- Classifier


def classes(n):
    d, K = 20, 10
    rng = np.random.default_rng(3)
    y = rng.integers(0, K, n)
    X = rng.standard_normal((n, d)) * rng.uniform(0.5, 2.0, (K, d))[y] + rng.standard_normal((K, d))[y]
    return X, y


def quadratic_discriminant():
    """scikit-learn's with maximum likelihood covariances (its other solver divides by n - 1), or None before 1.8."""
    has_solver = "solver" in QuadraticDiscriminantAnalysis().get_params()
    return QuadraticDiscriminantAnalysis(solver="eigen", store_covariance=True) if has_solver else None


def test_classifier_fit(versus, size):
    X, y = classes(size(100_000))
    rivals = {
        **numpy_sides(
            lambda **options: numpy_reference.GenerativeClassifier().fit(X, y, **options),
            threads=fastgen.get_num_threads(),
            answer=lambda fit: (fit.means, fit.covariances),
        )
    }
    if quadratic_discriminant() is not None:
        rivals["scikit-learn"] = Side(
            lambda: quadratic_discriminant().fit(X, y), lambda fit: (fit.means_, np.stack(fit.covariance_))
        )
    versus(
        f"GenerativeClassifier.fit, {shape(*X.shape)}, 10 classes",
        Side(lambda: GenerativeClassifier().fit(X, y), lambda fit: (fit.family_.means, fit.family_.covariances)),
        rivals,
        n=len(X),
        d=X.shape[1],
        K=10,
    )


def test_classifier_predict(versus, size):
    X, y = classes(size(100_000))
    classifier = GenerativeClassifier().fit(X, y)
    expert = numpy_reference.GenerativeClassifier().fit(X, y)
    rivals = {**numpy_sides(lambda **o: expert.predict_proba(X, **o), threads=fastgen.get_num_threads())}
    peer = quadratic_discriminant()
    if peer is not None:
        peer.fit(X, y)
        rivals["scikit-learn"] = Side(lambda: peer.predict_proba(X), np.ravel)
    versus(
        f"GenerativeClassifier.predict_proba, {shape(*X.shape)}, 10 classes",
        Side(lambda: classifier.predict_proba(X), np.ravel),
        rivals,
        atol=1e-11,
        n=len(X),
        d=X.shape[1],
        K=10,
    )


# ---- Import and memory


def python(code):
    """Run code in a fresh interpreter and return what it prints, as a number."""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(run.stdout)


def test_import(table, quick):
    code = """
import numpy, time
start = time.perf_counter()
import fastgen
print(1e3 * (time.perf_counter() - start))
"""
    milliseconds = statistics.median(python(code) for _ in range(3 if quick else 9))
    table(*FACTS, ["import fastgen, when NumPy is loaded", f"{milliseconds:.1f} ms", "15 ms"])
    assert quick or milliseconds < 15


def test_memory_traced(table):
    X = data(1_000_000, 10)
    (mean,), (covariance,) = gaussians(10, 1)
    out = np.zeros(len(X))
    gaussian_log_density(X, mean, covariance, out=out)
    tracemalloc.start()
    try:
        gaussian_log_density(X, mean, covariance, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    mebibytes = peak / 2**20
    table(*FACTS, ["log-density, 1e6 x 10: memory beyond X and result, traced", f"{mebibytes:.3f} MiB", "4 MiB"])
    assert mebibytes < 4


@pytest.mark.skipif(os.name != "posix", reason="needs getrusage")
def test_memory_resident(table):
    code = """
import resource, sys
import numpy as np
from fastgen.kernels import gaussian_log_density
X, out = np.empty((1_000_000, 10)), np.zeros(1_000_000)
rng = np.random.default_rng(0)
rng.standard_normal(out=X)
gaussian_log_density(X[:100_000], np.zeros(10), np.eye(10), out=out[:100_000])  # starts the threads
out.fill(0.0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
gaussian_log_density(X, np.zeros(10), np.eye(10), out=out)
print((peak() - before) / 2**20)
"""
    mebibytes = python(code)
    table(*FACTS, ["log-density, 1e6 x 10: memory beyond X and result, resident", f"{mebibytes:.3f} MiB", "4 MiB"])
    assert mebibytes < 4
