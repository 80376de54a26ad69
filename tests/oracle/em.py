"""A mixture of Gaussians by the book: one row at a time, with missing values.

References: Bishop, *Pattern Recognition and Machine Learning* (2006), sec. 9.2.2; Ghahramani & Jordan, *Supervised
learning from incomplete data via an EM approach* (1994), eq. 6 to 8, for missing values.
"""

import numpy as np

from oracle.gaussian import log_density_of_row, matrices


def joint(X, weights, means, covariances, covariance_type):
    """log p(x_i, k), of the observed part of each row: (n, K)."""
    K, d = means.shape
    sigma = matrices(covariances, covariance_type, K, d)
    with np.errstate(divide="ignore"):
        return np.array([[np.log(weights[k]) + log_density_of_row(x, means[k], sigma[k]) for k in range(K)] for x in X])


def log_prob(joint):
    """log p(x_i)."""
    top = joint.max(axis=1)
    return top + np.log(np.exp(joint - top[:, None]).sum(axis=1))


def posterior(joint):
    """p(k | x_i)."""
    return np.exp(joint - log_prob(joint)[:, None])


def e_step(X, sample_weight, weights, means, covariances, covariance_type):
    """Log-likelihood, and for each component sum r, E[x] and sum r E[(x - mean)(x - mean)^T]."""
    X = np.asarray(X, np.float64)
    n, d = X.shape
    K = len(means)
    sigma = matrices(covariances, covariance_type, K, d)
    log_joint = joint(X, weights, means, covariances, covariance_type)
    w = np.ones(n) if sample_weight is None else sample_weight
    r = posterior(log_joint) * w[:, None]
    filled, residual = np.empty((K, n, d)), np.zeros((K, n, d, d))
    for k in range(K):
        for i, x in enumerate(X):
            o, m = np.flatnonzero(~np.isnan(x)), np.flatnonzero(np.isnan(x))
            filled[k, i] = np.where(np.isnan(x), means[k], x)
            if not len(m):
                continue
            B = np.zeros((len(m), len(o)))
            if len(o):
                B = np.linalg.solve(sigma[k][np.ix_(o, o)], sigma[k][np.ix_(o, m)]).T
                filled[k, i, m] = means[k][m] + B @ (x[o] - means[k][o])
            residual[k, i][np.ix_(m, m)] = sigma[k][np.ix_(m, m)] - B @ sigma[k][np.ix_(o, m)]
    weight = r.sum(axis=0)
    mean = np.array([r[:, k] @ filled[k] / weight[k] for k in range(K)])
    scatter = np.zeros((K, d, d))
    for k in range(K):
        for i in range(n):
            z = filled[k, i] - mean[k]
            scatter[k] += r[i, k] * (np.outer(z, z) + residual[k, i])
    return float(w @ log_prob(log_joint)), weight, mean, scatter


def columns(X, r):
    """Weight, mean and scatter of what is observed of each column, for diagonal and spherical covariances: (K, d)."""
    X = np.asarray(X, np.float64)
    seen = ~np.isnan(X)
    K, d = r.shape[1], X.shape[1]
    count, mean, scatter = np.zeros((K, d)), np.zeros((K, d)), np.zeros((K, d))
    for k in range(K):
        for j in range(d):
            w, x = r[seen[:, j], k], X[seen[:, j], j]
            count[k, j] = w.sum()
            if count[k, j] > 0:
                mean[k, j] = w @ x / count[k, j]
                scatter[k, j] = w @ (x - mean[k, j]) ** 2
    return count, mean, scatter


def m_step(weight, mean, scatter, covariance_type, counts=None):
    """Weights, means, covariances of maximum likelihood."""
    if covariance_type == "full":
        covariances = scatter / weight[:, None, None]
    elif covariance_type == "tied":
        covariances = scatter.sum(axis=0) / weight.sum()
    elif covariance_type == "diag":
        covariances = scatter / counts
    else:
        covariances = scatter.sum(axis=1) / counts.sum(axis=1)
    return weight / weight.sum(), mean, covariances


def em(X, sample_weight, parameters, covariance_type, n_iter):
    """Parameters and mean log-likelihood of the start and after each iteration."""
    total = len(X) if sample_weight is None else sample_weight.sum()
    history = []
    for iteration in range(n_iter + 1):
        log_likelihood, weight, mean, scatter = e_step(X, sample_weight, *parameters, covariance_type)
        history.append(log_likelihood / total)
        if iteration == n_iter:
            return parameters, history
        counts = None
        if covariance_type in ("diag", "spherical"):
            r = posterior(joint(X, *parameters, covariance_type))
            counts, mean, scatter = columns(X, r if sample_weight is None else r * sample_weight[:, None])
        parameters = m_step(weight, mean, scatter, covariance_type, counts)
    raise AssertionError
