"""Multivariate t by the book: one row at a time, explicit inverses and determinants.

References: Kotz & Nadarajah, *Multivariate t Distributions and Their Applications* (2004), eq. 1.1 (density), sec. 1.10
(marginal), 1.11 (conditional); Liu & Rubin, Statistica Sinica 5 (1995) (EM, also for missing values); Liu, Rubin & Wu,
Biometrika 85 (1998) (PX-EM).
"""

from math import lgamma, log, log1p, pi

import numpy as np
from scipy.special import digamma

from oracle.gaussian import conditional as regression
from oracle.gaussian import matrices


def distance_of_row(x, mean, scale):
    """(x_o - mu_o)^T S_oo^-1 (x_o - mu_o), and the number of observed columns."""
    o = ~np.isnan(x)
    z = x[o] - mean[o]
    return z @ np.linalg.solve(scale[np.ix_(o, o)], z), int(o.sum())


def log_density_of_row(x, mean, scale, nu):
    """log p(x_o): a marginal has the same nu."""
    o = ~np.isnan(x)
    if not o.any():
        return 0.0
    delta, d = distance_of_row(x, mean, scale)
    _, log_det = np.linalg.slogdet(scale[np.ix_(o, o)])
    return lgamma((nu + d) / 2) - lgamma(nu / 2) - d / 2 * log(nu * pi) - log_det / 2 - (nu + d) / 2 * log1p(delta / nu)


def log_density(X, means, scales, dfs, covariance_type="full"):
    """(n, K)."""
    K, d = np.shape(means)
    S = matrices(scales, covariance_type, K, d)
    return np.array([[log_density_of_row(x, means[k], S[k], dfs[k]) for k in range(K)] for x in np.asarray(X, float)])


def e_step(X, weights, mean, scale, nu):
    """Of one component: sum r, sum r u, mean and scatter under r u, sum r E[log u]; missing cells filled in.

    E[u x_m x_m^T | x_o] = u m m^T + C, with the conditional mean m and scale C.
    """
    filled, u, log_u, extra = X.copy(), np.zeros(len(X)), np.zeros(len(X)), np.zeros(scale.shape)
    r = np.where(np.isnan(X).all(axis=1), 0.0, weights)
    for i, x in enumerate(X):
        if r[i] == 0:
            filled[i] = 0.0
            continue
        delta, o = distance_of_row(x, mean, scale)
        u[i] = (nu + o) / (nu + delta)
        log_u[i] = digamma((nu + o) / 2) - log((nu + delta) / 2)
        m = np.isnan(x)
        if m.any():
            filled[i, m], residual = regression(mean, scale, x)
            extra[np.ix_(m, m)] += r[i] * residual
    w = r * u
    centre = w @ filled / w.sum()
    scatter = ((filled - centre).T * w) @ (filled - centre) + extra
    return r.sum(), w.sum(), centre, scatter, r @ log_u


def conditional(mean, scale, nu, x):
    """Location, scale and degrees of freedom of the missing (NaN) part of x given the observed one."""
    location, residual = regression(mean, scale, x)
    delta, o = distance_of_row(x, mean, scale)
    return location, residual * (nu + delta) / (nu + o), nu + o
