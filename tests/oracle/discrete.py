"""Discrete distributions by the book: one cell at a time.

References: Johnson, Kemp & Kotz, *Univariate Discrete Distributions* (2005), ch. 3, 4; Bishop, *Pattern Recognition and
Machine Learning* (2006), sec. 2.1, 2.2 (maximum likelihood, Beta and Dirichlet priors), 9.3.3 (mixtures of Bernoullis).
"""

import math

import mpmath
import numpy as np


def log(p):
    """log p with log 0 = -inf."""
    return math.log(p) if p > 0 else -math.inf


def poisson_cell(x, rate):
    """log rate^x exp(-rate) / x!; 0^0 = 1. In 50 digits: for large x the terms are large and cancel."""
    if rate == 0:
        return 0.0 if x == 0 else -math.inf
    with mpmath.workdps(50):
        x, rate = mpmath.mpf(float(x)), mpmath.mpf(float(rate))
        return float(x * mpmath.log(rate) - rate - mpmath.loggamma(x + 1))


def bernoulli_cell(x, p):
    """log p or log(1 - p)."""
    if x == 1:
        return log(p)
    return math.log1p(-p) if p < 1 else -math.inf


def categorical_cell(x, p):
    """Log of the probability of the code x; of codes that there are not: -inf."""
    return log(p[int(x)]) if x < len(p) else -math.inf


CELLS = {"Poisson": poisson_cell, "Bernoulli": bernoulli_cell, "Categorical": categorical_cell}


def log_density(X, parameters, family):
    """(n, K): the sum over the columns that are observed."""
    X = np.asarray(X, np.float64)
    K, d = parameters.shape[:2]
    result = np.zeros((len(X), K))
    for i, row in enumerate(X):
        for k in range(K):
            cells = [CELLS[family](row[j], parameters[k, j]) for j in range(d) if not np.isnan(row[j])]
            result[i, k] = -math.inf if -math.inf in cells else math.fsum(cells)
    return result


def fit(X, weights, family, n_categories=None, pseudo_count=0.0):
    """Maximum of log-likelihood plus log-prior, column by column: (K, d), or (K, d, C) of categories."""
    X = np.asarray(X, np.float64)
    n, d = X.shape
    weights = np.ones((n, 1)) if weights is None else np.asarray(weights, np.float64).reshape(n, -1)
    K = weights.shape[1]
    sizes = n_categories if family == "Categorical" else [2] * d
    result = np.zeros((K, d, max(sizes)) if family == "Categorical" else (K, d))
    for k in range(K):
        for j in range(d):
            seen = [(X[i, j], weights[i, k]) for i in range(n) if not np.isnan(X[i, j])]
            total = math.fsum(w for _, w in seen)
            if family == "Poisson":
                result[k, j] = math.fsum(w * x for x, w in seen) / total
            elif family == "Bernoulli":
                ones = math.fsum(w for x, w in seen if x == 1)
                result[k, j] = (ones + pseudo_count) / (total + 2 * pseudo_count)
            else:
                for c in range(sizes[j]):
                    count = math.fsum(w for x, w in seen if x == c)
                    result[k, j, c] = (count + pseudo_count) / (total + sizes[j] * pseudo_count)
    return result
