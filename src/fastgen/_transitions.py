"""The M-step of a Markov chain: start and transition probabilities under constraints.

Maximises sum_ij (n_ij + pseudo_ij) log a_ij over the rows of a stochastic matrix, where entries may be impossible,
fixed, or tied to each other, or where the start is the stationary distribution of the chain.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgen._missing import Index
from fastgen._validation import Array


def stationary_distribution(A: Array) -> Array:
    """pi = pi A, by elimination without subtractions (Grassmann, Taksar & Heyman 1985): relative precision in all.

    Raises
    ------
    ValueError
        The chain has more than one.
    """
    from scipy.sparse.csgraph import connected_components

    number, classes = connected_components(A > 0, directed=True, connection="strong")
    closed = [c for c in range(number) if not A[np.ix_(classes == c, classes != c)].any()]
    if len(closed) != 1:
        raise ValueError("the chain has no unique stationary distribution: its states fall apart into closed classes")
    inside = np.flatnonzero(classes == closed[0])
    pi = np.zeros(len(A))
    pi[inside] = _eliminated(A[np.ix_(inside, inside)])
    return pi


def _eliminated(A: Array) -> Array:
    """The stationary distribution of a chain in which each state reaches all others."""
    for k in range(len(A) - 1, 0, -1):
        A[:k, k] /= A[k, :k].sum()
        A[:k, :k] += A[:k, k, None] * A[k, :k]
    pi = np.ones(len(A))
    for k in range(1, len(A)):
        pi[k] = pi[:k] @ A[:k, k]
    return np.asarray(pi / pi.sum())


def maximise_rows(counts: Array, old: Array, fixed: Array | None = None, ties: Index | None = None) -> Array:
    """Rows p that maximise sum counts log p.

    counts, old : (R, K)
        Rows without counts stay as they were. Entries that may not be must be 0 in both.
    fixed : (R, K), optional
        Values of entries that stay, NaN for the others.
    ties : (R, K) of int, optional
        Free entries with the same number >= 0 have the same value.
    """
    p = old.copy()
    free = np.isnan(fixed) if fixed is not None else np.ones(counts.shape, bool)
    if fixed is not None:  # they may be others than those of the old rows
        mass_left = np.maximum(0.0, 1.0 - np.nansum(fixed, axis=1, keepdims=True))
        had = np.where(free, old, 0.0).sum(axis=1, keepdims=True)
        p = np.where(free, np.divide(old * mass_left, had, out=np.zeros_like(p), where=had > 0), fixed)
    free &= (old > 0) | (counts > 0)
    mass = 1.0 if fixed is None else np.maximum(0.0, 1.0 - np.nansum(fixed, axis=1, keepdims=True))
    if ties is not None and ((ties >= 0) & free).any():
        return _maximise_tied(counts, p, free, np.broadcast_to(mass, (len(p), 1))[:, 0], ties)
    total = np.where(free, counts, 0.0).sum(axis=1, keepdims=True)
    some = total > 0
    values = np.divide(counts * mass, total, out=np.zeros_like(p), where=some)
    return np.where(free & some, values, p)


def _maximise_tied(counts: Array, p: Array, free: Array, mass: Array, ties: Index) -> Array:
    """With Lagrange multipliers: theta_g = N_g / sum_r lambda_r m_rg, where group g has m_rg entries in row r.

    The multipliers minimise the convex sum_r mass_r lambda_r - sum_g N_g log sum_r m_rg lambda_r: Newton's method.
    """
    R, K = p.shape
    number = np.where(ties >= 0, ties + R * K, np.arange(R * K).reshape(R, K))
    groups, group = np.unique(number[free], return_inverse=True)
    rows = np.nonzero(free)[0]
    m = np.zeros((R, len(groups)))
    np.add.at(m, (rows, group), 1.0)
    N = np.bincount(group, counts[free], len(groups))
    used = m[:, N > 0].sum(axis=1) > 0  # the others keep what they have
    if not used.all():
        keep = ~used & free.any(axis=1)
        touched = m[keep].sum(axis=0) > 0
        if (m[used][:, touched] > 0).any():
            raise ValueError("tied transitions leave no probability for a row that has no other transition")
    m_used, N_used = m[used][:, N > 0], N[N > 0]
    multiplier = np.maximum((m_used * (N_used / m_used.sum(axis=0))).sum(axis=1), 1e-300) / mass[used]

    def value(multiplier: Array) -> float:
        sums = multiplier @ m_used
        return float(mass[used] @ multiplier - N_used @ np.log(sums)) if sums.min() > 0 else np.inf

    best = value(multiplier)
    for _ in range(100):
        sums = multiplier @ m_used
        gradient = mass[used] - m_used @ (N_used / sums)
        if np.abs(gradient).max() < 1e-14:
            break
        curvature = (m_used * (N_used / sums**2)) @ m_used.T
        step = np.linalg.lstsq(curvature, gradient, rcond=1e-13)[0]
        scale = 1.0
        while scale > 1e-12:
            candidate = multiplier - scale * step
            now = value(candidate)
            if now <= best:
                break
            scale /= 2
        else:
            break
        multiplier, best = candidate, now
    theta = np.zeros(len(groups))
    theta[N > 0] = N_used / (multiplier @ m_used)
    result = p.copy()
    result[free] = np.where(used[rows], theta[group], p[free])
    return result


@dataclass(frozen=True)
class ChainStep:
    """The constraints of a fit, and its M-step."""

    start_mask: NDArray[np.bool_]
    """(K,)"""
    mask: NDArray[np.bool_]
    """(K, K)"""
    start_pseudo: Array
    pseudo: Array
    start_fixed: Array | None = None
    fixed: Array | None = None
    start_ties: Index | None = None
    ties: Index | None = None
    stationary: bool = False

    def maximise(self, start: Array, transitions: Array, old_start: Array, old: Array) -> tuple[Array, Array]:
        """Start and transition probabilities for expected counts."""
        counts = np.where(self.mask, transitions + self.pseudo, 0.0)
        first = np.where(self.start_mask, start + self.start_pseudo, 0.0)
        if self.stationary:
            A = self._maximise_stationary(first, counts, old)
            return stationary_distribution(A), A
        new = maximise_rows(
            first[None],
            old_start[None],
            None if self.start_fixed is None else self.start_fixed[None],
            None if self.start_ties is None else self.start_ties[None],
        )[0]
        return new, maximise_rows(counts, old, self.fixed, self.ties)

    def penalty(self, start: Array, A: Array) -> float:
        """Logarithm of the prior that the pseudo-counts stand for."""
        total = 0.0
        for pseudo, p, fixed in ((self.start_pseudo, start, self.start_fixed), (self.pseudo, A, self.fixed)):
            some = pseudo > 0
            if fixed is not None:
                some = some & np.isnan(fixed)
            if some.any():
                with np.errstate(divide="ignore"):
                    total += float(pseudo[some] @ np.log(p[some]))
        return total

    def _maximise_stationary(self, first: Array, counts: Array, old: Array) -> Array:
        """Also sum_j first_j log pi_j, where pi is the stationary distribution.

        d pi = pi dA Z, Z = (I - A + 1 pi)^-1 (Schweitzer 1968). Free logits, by L-BFGS; never worse than ``old``.
        """
        from scipy.optimize import minimize

        K = len(old)
        rows, columns = np.nonzero(self.mask & ((old > 0) | (counts > 0)))
        scale = max(1.0, float(counts.sum()))

        def matrix(logits: Array) -> Array:
            A = np.full((K, K), -np.inf)
            A[rows, columns] = logits
            A = np.exp(A - A.max(axis=1, keepdims=True))
            return np.asarray(A / A.sum(axis=1, keepdims=True))

        def negative(logits: Array) -> tuple[float, Array]:
            A = matrix(logits)
            try:
                pi = stationary_distribution(A)
            except ValueError:
                return np.inf, np.zeros(len(rows))
            p = np.maximum(A[rows, columns], 1e-300)
            n = counts[rows, columns]
            used = first > 0
            value = float(n @ np.log(p) + first[used] @ np.log(np.maximum(pi[used], 1e-300)))
            Z = np.linalg.inv(np.eye(K) - A + pi)
            pull = Z @ np.divide(first, pi, out=np.zeros(K), where=pi > 0)
            along = pi[rows] * pull[columns]  # of the start; that of the counts is n / p
            gradient = np.zeros((K, K))
            gradient[rows, columns] = n + p * along
            gradient -= A * gradient.sum(axis=1, keepdims=True)
            return -value / scale, -gradient[rows, columns] / scale

        def logits_of(A: Array) -> Array:
            return np.asarray(np.log(np.maximum(A[rows, columns], 1e-300)))

        starts = [logits_of(old), logits_of(maximise_rows(counts, old))]
        begin = min(starts, key=lambda logits: negative(logits)[0])
        found: Any = minimize(negative, begin, jac=True, method="L-BFGS-B", options={"maxiter": 200, "gtol": 1e-12})
        return matrix(found.x if negative(found.x)[0] <= negative(starts[0])[0] else starts[0])
