"""Mixtures of Gaussians by the book: EM row by row.

References: Bishop, *Pattern Recognition and Machine Learning* (2006), sec. 9.2 (EM), 2.3.1 (conditionals); Ghahramani &
Jordan, "Supervised learning from incomplete data via an EM approach" (1994) (missing values).
"""

from dataclasses import dataclass

import numpy as np

from oracle import gaussian


@dataclass
class Statistics:
    """Expected sums: of each component, or (scatter, tied) of all."""

    log_likelihood: float
    weight: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray


def joint(X, weights, means, covariances, covariance_type):
    """log p(x_o, k), (n, K), of the observed part of each row."""
    with np.errstate(divide="ignore"):
        return gaussian.log_density(X, means, covariances, covariance_type) + np.log(weights)


def log_prob(X, *parameters):
    """log p(x_o), (n,)."""
    rows = joint(X, *parameters).astype(np.longdouble)
    return np.array([row.max() + np.log(np.exp(row - row.max()).sum()) for row in rows], np.float64)


def posterior(X, *parameters):
    """p(k | x_o), (n, K)."""
    return gaussian.posterior(joint(X, *parameters))


def e_step(X, weights, means, covariances, covariance_type, sample_weight=None):
    """Statistics under the posterior.

    Full and tied: a missing part counts as its conditional mean, and its conditional covariance comes on top. Diagonal
    and spherical: each column sums what is observed of it.
    """
    X, means = np.asarray(X, np.float64), np.asarray(means, np.float64)
    (n, d), K = X.shape, len(means)
    w = np.ones(n) if sample_weight is None else np.asarray(sample_weight, np.float64)
    parameters = weights, means, covariances, covariance_type
    log_p = log_prob(X, *parameters)
    r = w[:, None] * posterior(X, *parameters)
    r[w == 0] = 0.0
    log_likelihood = float(sum(w[i] * log_p[i] for i in range(n) if w[i] > 0))
    if covariance_type in ("full", "tied"):
        sigma = gaussian.matrices(covariances, covariance_type, K, d)
        mean, scatter = np.zeros((K, d)), np.zeros((K, d, d))
        for k in range(K):
            filled, extra = X.copy(), np.zeros((d, d))
            for i in range(n):
                m = np.isnan(X[i])
                if m.any():
                    filled[i, m], residual = gaussian.conditional(means[k], sigma[k], X[i])
                    extra[np.ix_(m, m)] += r[i, k] * residual
            if r[:, k].sum() > 0:
                mean[k] = means[k] + r[:, k] @ (filled - means[k]) / r[:, k].sum()
            centred = filled - mean[k]
            scatter[k] = (r[:, k, None] * centred).T @ centred + extra
        if covariance_type == "tied":
            scatter = scatter.sum(axis=0, keepdims=True)
        return Statistics(log_likelihood, r.sum(axis=0), np.repeat(r.sum(axis=0)[:, None], d, 1), mean, scatter)
    mean, scatter, count = np.zeros((K, d)), np.zeros((K, d)), np.zeros((K, d))
    for k in range(K):
        for j in range(d):
            o = ~np.isnan(X[:, j])
            count[k, j] = r[o, k].sum()
            if count[k, j] > 0:
                mean[k, j] = means[k, j] + r[o, k] @ (X[o, j] - means[k, j]) / count[k, j]
            scatter[k, j] = r[o, k] @ (X[o, j] - mean[k, j]) ** 2
    return Statistics(log_likelihood, r.sum(axis=0), count, mean, scatter)


def m_step(s, covariance_type, reg_covar=0.0):
    """Weights, means, covariances."""
    d = s.mean.shape[1]
    if covariance_type == "full":
        covariances = s.scatter / s.weight[:, None, None] + reg_covar * np.eye(d)
    elif covariance_type == "tied":
        covariances = s.scatter[0] / s.weight.sum() + reg_covar * np.eye(d)
    elif covariance_type == "diag":
        covariances = s.scatter / s.count + reg_covar
    else:
        covariances = s.scatter.sum(axis=1) / s.count.sum(axis=1) + reg_covar
    return s.weight / s.weight.sum(), s.mean, covariances


def em(X, start, covariance_type, n_iter, sample_weight=None, reg_covar=0.0):
    """Parameters after so many iterations, and the mean log-likelihood of the start and after each of them."""
    parameters = start
    total = len(X) if sample_weight is None else np.sum(sample_weight)
    history = []
    for _ in range(n_iter):
        s = e_step(X, *parameters, covariance_type, sample_weight)
        history.append(s.log_likelihood / total)
        parameters = m_step(s, covariance_type, reg_covar)
    history.append(e_step(X, *parameters, covariance_type, sample_weight).log_likelihood / total)
    return parameters, np.array(history)


def condition(weights, means, covariances, covariance_type, x):
    """The mixture of the columns that are NaN in x, given the others: weights, means, covariances of all components."""
    K, d = np.shape(means)
    sigma = gaussian.matrices(covariances, covariance_type, K, d)
    parts = [gaussian.conditional(means[k], sigma[k], x) for k in range(K)]
    p = posterior(x[None], weights, means, covariances, covariance_type)[0]
    return p, np.array([mean for mean, _ in parts]), np.array([covariance for _, covariance in parts])


def moments(weights, means, covariances):
    """Mean and covariance of a mixture: law of total expectation and covariance."""
    mean = sum(p * m for p, m in zip(weights, means, strict=True))
    covariance = sum(
        p * (S + np.outer(m - mean, m - mean)) for p, m, S in zip(weights, means, covariances, strict=True)
    )
    return mean, covariance
