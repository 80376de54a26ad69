"""Gaussians by the book: one row at a time, explicit inverses and determinants.

References: Bishop, *Pattern Recognition and Machine Learning* (2006), sec. 2.3 (marginal, conditional, maximum
likelihood); Little & Rubin, *Statistical Analysis with Missing Data* (2002), sec. 11.2 (EM for missing values).
"""

import numpy as np


def matrices(covariances, covariance_type, K, d):
    """Covariances of any type as K matrices (d, d)."""
    covariances = np.asarray(covariances)
    if covariance_type == "full":
        return [covariances[k] for k in range(K)]
    if covariance_type == "tied":
        return [covariances for _ in range(K)]
    if covariance_type == "diag":
        return [np.diag(covariances[k]) for k in range(K)]
    return [covariances[k] * np.eye(d) for k in range(K)]


def log_density_of_row(x, mean, covariance):
    """log N(x_o; mu_o, Sigma_oo) of the observed part x_o of one row."""
    o = ~np.isnan(x)
    if not o.any():
        return 0.0
    z = x[o] - mean[o]
    part = covariance[np.ix_(o, o)]
    _, log_det = np.linalg.slogdet(part)
    return -0.5 * (o.sum() * np.log(2 * np.pi) + log_det + z @ np.linalg.solve(part, z))


def log_density(X, means, covariances, covariance_type="full"):
    """(n, K)."""
    X, means = np.asarray(X, np.float64), np.asarray(means, np.float64)
    K, d = means.shape
    sigma = matrices(covariances, covariance_type, K, d)
    return np.array([[log_density_of_row(x, means[k], sigma[k]) for k in range(K)] for x in X])


def log_density_longdouble(X, mean, covariance):
    """log N(x; mean, covariance) without missing values, in extended precision: Cholesky and substitution by loops."""
    X, mean, covariance = (np.asarray(a, np.longdouble) for a in (X, mean, covariance))
    d = len(mean)
    L = np.zeros((d, d), np.longdouble)
    for i in range(d):
        for j in range(i + 1):
            rest = covariance[i, j] - (L[i, :j] * L[j, :j]).sum()
            L[i, j] = np.sqrt(rest) if i == j else rest / L[j, j]
    y = np.zeros(X.shape, np.longdouble)
    for i in range(d):
        y[:, i] = (X[:, i] - mean[i] - (y[:, :i] * L[i, :i]).sum(axis=1)) / L[i, i]
    two_pi = 2 * np.longdouble("3.14159265358979323846264338327950288")
    return -(d * np.log(two_pi)) / 2 - np.log(L.diagonal()).sum() - (y * y).sum(axis=1) / 2


def fit(X, weights=None, covariance_type="full", reg_covar=0.0):
    """Weighted maximum likelihood of one Gaussian, values complete; sums in extended precision."""
    X = np.asarray(X, np.longdouble)
    n, d = X.shape
    w = np.ones(n, np.longdouble) if weights is None else np.asarray(weights, np.longdouble)
    mean = (w[:, None] * X).sum(axis=0) / w.sum()
    scatter = np.zeros((d, d), np.longdouble)
    for i in range(n):
        scatter += w[i] * np.outer(X[i] - mean, X[i] - mean)
    covariance = scatter / w.sum()
    return mean.astype(float), _of_type(covariance, covariance_type).astype(float) + _ridge(
        reg_covar, covariance_type, d
    )


def _of_type(covariance, covariance_type):
    if covariance_type in ("full", "tied"):
        return covariance
    return covariance.diagonal() if covariance_type == "diag" else covariance.diagonal().mean()


def _ridge(reg_covar, covariance_type, d):
    return reg_covar * (np.eye(d) if covariance_type in ("full", "tied") else 1.0)


def fit_columns(X, covariance_type, weights=None):
    """Diagonal or spherical maximum likelihood with values missing: each column by its observed cells."""
    n, d = X.shape
    w = np.ones(n) if weights is None else np.asarray(weights)
    mean, squares, count = np.zeros(d), np.zeros(d), np.zeros(d)
    for j in range(d):
        o = ~np.isnan(X[:, j])
        count[j] = w[o].sum()
        mean[j] = (w[o] * X[o, j]).sum() / count[j]
        squares[j] = (w[o] * (X[o, j] - mean[j]) ** 2).sum()
    return mean, squares / count if covariance_type == "diag" else squares.sum() / count.sum()


def conditional(mean, covariance, x):
    """Mean and covariance of the missing (NaN) part of x given the observed one (Bishop, eq. 2.81, 2.82)."""
    m, o = np.isnan(x), ~np.isnan(x)
    B = covariance[np.ix_(m, o)] @ np.linalg.inv(covariance[np.ix_(o, o)])
    return mean[m] + B @ (x[o] - mean[o]), covariance[np.ix_(m, m)] - B @ covariance[np.ix_(o, m)]


def em(X, n_iter, weights=None):
    """EM of one full Gaussian with values missing, from the means and variances of the observed cells.

    Returns mean, covariance and the observed-data log-likelihood of the start and after each iteration. Rows
    without an observed cell do not count.
    """
    X = np.asarray(X, np.float64)
    w = np.ones(len(X)) if weights is None else np.asarray(weights, np.float64)
    keep = ~np.isnan(X).all(axis=1)
    X, w = X[keep], w[keep]
    d = X.shape[1]
    mean, variances = fit_columns(X, "diag", w)
    covariance = np.diag(variances)
    history = [w @ log_density(X, mean[None], covariance[None])[:, 0]]
    for _ in range(n_iter):
        filled, extra = X.copy(), np.zeros((d, d))
        for i, x in enumerate(X):
            m = np.isnan(x)
            if m.any():
                filled[i, m], residual = conditional(mean, covariance, x)
                extra[np.ix_(m, m)] += w[i] * residual
        mean = w @ filled / w.sum()
        centred = filled - mean
        covariance = ((w[:, None] * centred).T @ centred + extra) / w.sum()
        history.append(w @ log_density(X, mean[None], covariance[None])[:, 0])
    return mean, covariance, np.array(history)


def posterior(joint):
    """Bayes' rule: p(y | x) from log p(x, y), row by row."""
    result = np.zeros(joint.shape)
    for i, row in enumerate(np.asarray(joint, np.longdouble)):
        p = np.exp(row - row.max())
        result[i] = p / p.sum()
    return result


def random_covariance(rng, d, K=None):
    """Well-conditioned covariance matrices: (d, d), or (K, d, d)."""
    count = 1 if K is None else K
    A = rng.standard_normal((count, d, d + 3))
    covariance = A @ A.transpose(0, 2, 1) / (d + 3) + 0.3 * np.eye(d)
    return covariance[0] if K is None else covariance


def random_parameters(rng, covariance_type, K, d):
    """Means and covariances of K Gaussians."""
    means = rng.standard_normal((K, d))
    if covariance_type == "full":
        return means, random_covariance(rng, d, K)
    if covariance_type == "tied":
        return means, random_covariance(rng, d)
    return means, rng.uniform(0.3, 3.0, (K, d) if covariance_type == "diag" else K)
