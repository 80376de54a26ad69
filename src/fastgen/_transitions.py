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
        Rows without counts stay as they were, as far as the constraints allow. Entries that may not be must be 0 in
        both.
    fixed : (R, K), optional
        Values of entries that stay, NaN for the others.
    ties : (R, K) of int, optional
        Free entries with the same number >= 0 have the same value.

    Raises
    ------
    ValueError
        No rows have these fixed and tied entries and add up to 1.
    """
    free = (old > 0) | (counts > 0)
    mass, kept = np.ones((len(old), 1)), old
    if fixed is not None:  # they may be others than those of the old rows
        free &= np.isnan(fixed)
        mass = 1.0 - np.nansum(fixed, axis=1, keepdims=True)
        mass[mass < 1e-14] = 0.0  # they take all, but for rounding
        had = np.where(free, old, 0.0).sum(axis=1, keepdims=True)
        kept = np.divide(old * mass, had, out=np.zeros_like(old), where=had > 0)
        kept = np.where(free, kept, np.nan_to_num(fixed))
    total = np.where(free, counts, 0.0).sum(axis=1, keepdims=True)
    some = total > 0
    p = np.where(free & some, np.divide(counts * mass, total, out=np.zeros_like(old), where=some), kept)
    if ties is not None:
        tied = (free & (ties >= 0)).any(axis=1)
        if tied.any():
            p[tied] = _maximise_tied(counts[tied], kept[tied], free[tied], mass[tied, 0], ties[tied])
    return p


def _maximise_tied(counts: Array, p: Array, free: NDArray[np.bool_], mass: Array, ties: Index) -> Array:
    """Maximise sum_g N_g log theta_g where each row sums up, M theta = mass, and theta >= 0.

    Group g has M_rg entries in row r. Optimal are theta, s >= 0 with s = M^T multipliers and theta_g s_g = N_g: where
    N_g is 0, one of the two is. Newton's method on these products from a point inside, a primal-dual interior-point
    method (Jansen, Roos, Terlaky & Vial 1996). ``p`` decides what the counts leave open, as counts of next to nothing.
    """
    R, K = p.shape
    number = np.where(ties >= 0, ties + R * K, np.arange(R * K).reshape(R, K))
    groups, group = np.unique(number[free], return_inverse=True)
    M = np.zeros((R, len(groups)))
    np.add.at(M, (np.nonzero(free)[0], group), 1.0)
    N, had = np.bincount(group, counts[free]), np.bincount(group, p[free])
    inside = _inside(M, mass, had / M.sum(axis=0))
    able = inside > 0
    rows = M[:, able].any(axis=1)
    M, b, x, N = M[np.ix_(rows, able)], mass[rows], inside[able], N[able] / (N[able].sum() or 1.0)
    goal = N + 1e-36 * np.maximum(had[able], 1e-30)
    s = np.maximum(M @ (N / M.sum(axis=0)), 1e-3) / b @ M
    for _ in range(200):
        # Steps dx = root u and ds = (q - u) / root, where M dx = b - M x, and s stays among the M^T multipliers
        root, q = np.sqrt(x / s), (goal - x * s) / np.sqrt(x * s)
        u = q + _least(M * root, b - M @ (x + root * q))
        dx, ds = root * u, (q - u) / root
        share = 0.9 / max((-dx / x).max(initial=0.9), (-ds / s).max(initial=0.9))
        x, s = x + share * dx, s + share * ds
        if share == 1.0 and (np.abs(x * s - goal) <= 1e-12 * goal).all():
            break
    x += x * _least(M * x, b - M @ x)
    x[(N == 0) & (x < 1e-17)] = 0.0
    theta = np.zeros(len(groups))
    theta[able] = x
    result = p.copy()
    result[free] = theta[group]
    return result


def _least(A: Array, b: Array) -> Array:
    """The shortest x with A x = b. Rows of A are scaled, so that only those that depend on others count as such."""
    scale = np.sqrt((A**2).sum(axis=1))
    return np.asarray(np.linalg.lstsq(A / scale[:, None], b / scale, rcond=None)[0])


def _inside(M: Array, mass: Array, guess: Array) -> Array:
    """A solution of M theta = mass, theta >= 0, with as few zeros as there can be: ``guess``, if it is one.

    One linear programme (Freund, Roundy & Todd 1985): theta = (t + more) / scale, where t <= 1 is 0 or 1.
    """
    if guess.min() > 1e-100 and np.abs(M @ guess - mass).max() < 1e-9:
        return guess
    from scipy.optimize import linprog

    R, G = M.shape
    found = linprog(
        np.repeat([-1.0, 0.0], [G, G + 1]),
        A_eq=np.hstack([M, M, -mass[:, None]]),
        b_eq=np.zeros(R),
        bounds=[(0, 1)] * G + [(0, None)] * G + [(1, None)],
    )
    if found.x is None:
        raise ValueError(
            "no probabilities are tied like this and add up to 1 in each row, given the fixed values and the mask: "
            "remove some of the ties, or leave an entry of each row free"
        )
    t, more, scale = found.x[:G], found.x[G:-1], found.x[-1]
    return np.where(t > 0.5, (t + more) / scale, 0.0)


@dataclass(frozen=True)
class ChainStep:
    """The constraints of a fit, and its M-step."""

    start_mask: NDArray[np.bool_]
    """(K,) what is not always 0"""
    mask: NDArray[np.bool_]
    """(K, K) what is not always 0"""
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
        return self._rows(first, counts, old_start, old)

    def project(self, start: Array, A: Array) -> tuple[Array, Array]:
        """What comes closest to these probabilities, or to the shares of these counts, under the constraints.

        Rows that have nothing where something may be are uniform.
        """
        start, A = np.where(self.start_mask, start, 0.0), np.where(self.mask, A, 0.0)
        uniform = self.mask / self.mask.sum(axis=1, keepdims=True)
        start, A = self._rows(start, A, self.start_mask / self.start_mask.sum(), uniform)
        return (stationary_distribution(A) if self.stationary else start), A

    def _rows(self, first: Array, counts: Array, old_start: Array, old: Array) -> tuple[Array, Array]:
        start_fixed = None if self.start_fixed is None else self.start_fixed[None]
        start_ties = None if self.start_ties is None else self.start_ties[None]
        start = maximise_rows(first[None], old_start[None], start_fixed, start_ties)[0]
        return start, maximise_rows(counts, old, self.fixed, self.ties)

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
        options: Any = {"maxiter": 200, "gtol": 1e-12, "ftol": 1e-15}
        found: Any = minimize(negative, begin, jac=True, method="L-BFGS-B", options=options)
        return matrix(found.x if negative(found.x)[0] <= negative(starts[0])[0] else starts[0])
