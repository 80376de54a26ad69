"""Errors, not times: against 50-digit arithmetic on the same numbers, where data is hard.

Truth takes data and parameters as they are stored, so what is measured is the arithmetic alone.
"""

import numpy as np
import numpy_reference
import pytest
import scipy.stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.mixture import GaussianMixture

from fastgen import Gaussian
from fastgen.kernels import gaussian_log_density

mpmath = pytest.importorskip("mpmath")

N, D = 5000, 4
CASES = {
    "as it is": (0.0, 1.0, np.float64),
    "shifted by 1e8": (1e8, 1.0, np.float64),
    "scaled by 1e-6": (0.0, 1e-6, np.float64),
    "float32, shifted by 1e3": (1e3, 1.0, np.float32),
}


@pytest.fixture(params=CASES)
def case(request):
    """Name, data, and a mean and covariance near it."""
    shift, scale, dtype = CASES[request.param]
    rng = np.random.default_rng(0)
    A = rng.standard_normal((D, D))
    covariance = (A @ A.T / D + 0.1 * np.eye(D)) * scale**2
    X = rng.multivariate_normal(np.zeros(D), covariance, N) + shift
    return request.param, X.astype(dtype), np.full(D, shift) + 0.1 * scale, covariance


def exact(array):
    return mpmath.matrix(array.tolist())


def true_log_density(X, mean, covariance):
    with mpmath.workdps(50):
        L = mpmath.cholesky(exact(covariance))
        constant = -D * mpmath.log(2 * mpmath.pi) / 2 - sum(mpmath.log(L[j, j]) for j in range(D))
        result = []
        for x in X.tolist():
            z = []
            for i in range(D):
                z.append((x[i] - mpmath.mpf(mean[i]) - sum(L[i, j] * z[j] for j in range(i))) / L[i, i])
            result.append(constant - sum(v * v for v in z) / 2)
        return result


def true_fit(X):
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(v) for v in row] for row in X.tolist()]
        mean = [mpmath.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
        z = [[v - m for v, m in zip(row, mean, strict=True)] for row in rows]
        covariance = [[mpmath.fsum(row[i] * row[j] for row in z) / len(rows) for j in range(D)] for i in range(D)]
        return mean, covariance


def largest_error(result, truth, unit=1):
    """Largest |result - truth| / unit, over all elements."""
    with mpmath.workdps(50):
        pairs = zip(np.ravel(result).tolist(), truth, strict=True)
        return float(max(abs(mpmath.mpf(value) - exact_value) for value, exact_value in pairs) / unit)


def mixture(mean, covariance):
    """scikit-learn's only Gaussian density: a mixture of one component with these parameters."""
    model = GaussianMixture(1)
    model.means_, model.covariances_, model.weights_ = mean[None], covariance[None], np.ones(1)
    model.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(covariance)).T[None]
    return model


def test_log_density(case, table):
    name, X, mean, covariance = case
    truth = true_log_density(X, mean, covariance)
    results = {
        "fastgen": gaussian_log_density(X, mean, covariance),
        "NumPy": numpy_reference.gaussian_log_density(X, mean[None], covariance[None]),
        "SciPy": scipy.stats.multivariate_normal(mean, covariance).logpdf(X),
        "scikit-learn": mixture(mean, covariance).score_samples(X),
    }
    errors = {side: largest_error(result, truth) for side, result in results.items()}
    title = "Largest error of the log-density, in nats"
    table(title, ["data", *errors], [name, *(f"{error:.1e}" for error in errors.values())])
    assert errors["fastgen"] < 64 * np.finfo(X.dtype).eps * max(1.0, max(abs(float(value)) for value in truth))


def test_fit(case, table):
    """The smallest standard deviation is the unit of the mean, and variances that of the covariances."""
    name, X, _, _ = case
    true_mean, true_covariance = true_fit(X)
    variances = [true_covariance[j][j] for j in range(D)]
    fits = {"fastgen": Gaussian().fit(X), "scikit-learn": EmpiricalCovariance(store_precision=False).fit(X)}
    results = {
        "fastgen": (fits["fastgen"].mean_, fits["fastgen"].covariance_),
        "NumPy": numpy_reference.gaussian_fit(X),
        "np.cov": (X.mean(axis=0), np.cov(X, rowvar=False, ddof=0)),
        "scikit-learn": (fits["scikit-learn"].location_, fits["scikit-learn"].covariance_),
    }
    flat = [value for row in true_covariance for value in row]
    unit = min(variances)
    errors = {
        side: (
            largest_error(mean, true_mean, mpmath.sqrt(unit)),
            largest_error(covariance, flat, unit),
        )
        for side, (mean, covariance) in results.items()
    }
    for i, what in enumerate(("mean (in standard deviations)", "covariance (relative to the smallest variance)")):
        row = [name, *(f"{error[i]:.1e}" for error in errors.values())]
        table(f"Largest error of the fitted {what}", ["data", *errors], row)
    assert errors["fastgen"][1] < 64 * np.finfo(np.float64).eps
