"""Hidden Markov models by the book: the recursions step by step, in logs, with long doubles; or every path.

References: Rabiner, "A tutorial on hidden Markov models and selected applications in speech recognition", Proc. IEEE 77
(1989), sec. III (forward, backward, Viterbi, xi); Bishop, *Pattern Recognition and Machine Learning* (2006), sec. 13.2.

Logs of states are kept relative to the largest of their step, so that digits are not lost to the evidence so far. The
recursions take any number of chains side by side: b (T, ..., K), log_start (..., K), log_A (..., K, K).
"""

from itertools import product
from typing import NamedTuple

import mpmath
import numpy as np

LOWEST = np.finfo(np.longdouble).min  # what is subtracted where all is -inf
TINY = np.finfo(np.longdouble).tiny  # what is possible has at least this probability: only what is not is 0


class Expected(NamedTuple):
    """Of all sequences: log p (S,), E[first states], E[transitions], p(z_t | x) times weights, p(z_t | x)."""

    log_likelihoods: np.ndarray
    start: np.ndarray
    transitions: np.ndarray
    posteriors: np.ndarray


def log(p):
    """Log as a long double, -inf of 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(p, np.longdouble))


def log_sum_exp(a, axis):
    """Log of the sum of exponentials; -inf where all are."""
    top = np.maximum(a.max(axis=axis, keepdims=True), LOWEST)
    with np.errstate(divide="ignore"):
        return np.squeeze(top, axis) + np.log(np.exp(a - top).sum(axis=axis))


def softmax(a, axis):
    """Exponentials divided by their sum; 0 only where a is -inf."""
    e = np.maximum(np.exp(a - np.maximum(a.max(axis=axis, keepdims=True), LOWEST)), TINY * (a > -np.inf))
    return e / e.sum(axis=axis, keepdims=True)


def forward(b, log_start, log_A):
    """log p(x_1..t, z_t) minus its largest of each step, (T, ..., K), and log p(x), (...)."""
    a = np.empty(b.shape, np.longdouble)
    shift = np.zeros(b.shape[:-1], np.longdouble)
    current = log_start + b[0]
    for t in range(len(b)):
        if t:
            current = log_sum_exp(current[..., :, None] + log_A, -2) + b[t]
        shift[t] = current.max(axis=-1)
        current = a[t] = current - np.maximum(shift[t], LOWEST)[..., None]
    return a, shift.sum(axis=0) + log_sum_exp(a[-1], -1)


def backward(b, log_A):
    """log p(x_t+1..T | z_t) minus its largest of each step, (T, ..., K)."""
    beta = np.zeros(b.shape, np.longdouble)
    for t in range(len(b) - 2, -1, -1):
        current = log_sum_exp(log_A + (b[t + 1] + beta[t + 1])[..., None, :], -1)
        beta[t] = current - np.maximum(current.max(axis=-1, keepdims=True), LOWEST)
    return beta


def pairs(a, beta, b, log_A):
    """sum_t p(z_t, z_t+1 | x), (..., K, K)."""
    total = np.zeros(np.broadcast_shapes(log_A.shape, (*b.shape[1:], b.shape[-1])), np.longdouble)
    step = max(1, 500_000 // total.size)
    for t in range(0, len(b) - 1, step):
        here = slice(t, min(t + step, len(b) - 1))
        after = slice(here.start + 1, here.stop + 1)
        joint = a[here, ..., :, None] + log_A + (b[after] + beta[after])[..., None, :]
        flat = softmax(joint.reshape(*joint.shape[:-2], -1), -1)
        total += flat.sum(axis=0).reshape(total.shape)
    return total


def recursions(b, log_start, log_A):
    """log p(x), p(z_t | x), sum_t p(z_t, z_t+1 | x) of chains side by side that are possible."""
    a, log_p = forward(b, log_start, log_A)
    beta = backward(b, log_A)
    return log_p, softmax(a + beta, -1), pairs(a, beta, b, log_A)


def by_length(lengths):
    """(indices of sequences, (T, S') rows) of those sequences that have the same length T > 0."""
    lengths = np.asarray(lengths, np.intp)
    first = np.cumsum(lengths) - lengths
    for T in np.unique(lengths[lengths > 0]):
        index = np.flatnonzero(lengths == T)
        yield index, first[index] + np.arange(T)[:, None]


def log_likelihood(b, start, A, lengths):
    """log p of each sequence, (S,)."""
    result = np.zeros(len(lengths), np.longdouble)
    b = np.asarray(b, np.longdouble)
    for index, rows in by_length(lengths):
        result[index] = forward(b[rows], log(start), log(A))[1]
    return result


def expected(b, start, A, lengths, weights=None):
    """All expectations, for sequences that are possible."""
    b = np.asarray(b, np.longdouble)
    K = b.shape[1]
    w = np.ones(len(lengths)) if weights is None else np.asarray(weights, np.float64)
    log_p, first = np.zeros(len(lengths), np.longdouble), np.zeros(K, np.longdouble)
    transitions, posteriors = np.zeros((K, K), np.longdouble), np.zeros(b.shape, np.longdouble)
    for index, rows in by_length(lengths):
        log_p[index], posterior, xi = recursions(b[rows], log(start), log(A))
        posteriors[rows] = posterior * w[index, None]
        first += posterior[0].T @ w[index]
        transitions += (w[index, None, None] * xi).sum(axis=0)
    return Expected(log_p, first, transitions, posteriors)


def best(b, log_start, log_A):
    """max over paths of log p(x, path), (...)."""
    current = log_start + b[0]
    total = np.zeros(b.shape[1:-1], np.longdouble)
    for t in range(len(b)):
        if t:
            current = (current[..., :, None] + log_A).max(axis=-2) + b[t]
        top = current.max(axis=-1)
        total += top
        current = current - np.maximum(top, LOWEST)[..., None]
    return total


def viterbi(b, start, A, lengths):
    """max over paths of log p(x, path) of each sequence, (S,)."""
    b = np.asarray(b, np.longdouble)
    result = np.zeros(len(lengths), np.longdouble)
    for index, rows in by_length(lengths):
        result[index] = best(b[rows], log(start), log(A))
    return result


def path_log_prob(b, start, A, path):
    """log p(x, path) of one sequence."""
    if len(path) == 0:
        return np.longdouble(0)
    b = np.asarray(b, np.longdouble)
    return log(start)[path[0]] + b[np.arange(len(b)), path].sum() + log(A)[path[:-1], path[1:]].sum()


def impossible_row(b, start, A, lengths):
    """First row at which the sequence is impossible, of each sequence, or -1: by reachability alone."""
    may, step = np.asarray(b) > -np.inf, np.asarray(A) > 0
    result = np.full(len(lengths), -1)
    row = 0
    for s, T in enumerate(lengths):
        reached = np.asarray(start) > 0
        for t in range(row, row + T):
            reached = (reached if t == row else step[reached].any(axis=0)) & may[t]
            if not reached.any():
                result[s] = t
                break
        row += T
    return result


def every_path(likelihoods, start, A):
    """Of one sequence, from the definition: log p(x), p(z_t | x), sum_t p(z_t, z_t+1 | x), max log p(x, path).

    With 60 digits; ``likelihoods`` may be mpmath numbers. None if the sequence is impossible.
    """
    with mpmath.workdps(60):
        T, K = len(likelihoods), len(start)
        b = [[mpmath.mpf(value) for value in row] for row in likelihoods]
        first, step = [mpmath.mpf(float(p)) for p in start], [[mpmath.mpf(float(p)) for p in row] for row in A]
        total, largest = mpmath.mpf(0), mpmath.mpf(0)
        gamma = [[mpmath.mpf(0)] * K for _ in range(T)]
        xi = [[mpmath.mpf(0)] * K for _ in range(K)]
        for path in product(range(K), repeat=T):
            p = first[path[0]] * b[0][path[0]]
            for t in range(1, T):
                p *= step[path[t - 1]][path[t]] * b[t][path[t]]
            if p == 0:
                continue
            total += p
            largest = max(largest, p)
            for t in range(T):
                gamma[t][path[t]] += p
                if t:
                    xi[path[t - 1]][path[t]] += p
        if total == 0:
            return None
        least = mpmath.mpf(5e-324)  # of what is possible: only what is not becomes 0
        posterior, transitions = (
            np.array([[float(max(p / total, least)) if p else 0.0 for p in row] for row in table])
            for table in (gamma, xi)
        )
        return float(mpmath.log(total)), posterior, transitions, float(mpmath.log(largest))


def exponentials(b):
    """exp(b) with 60 digits and any exponent."""
    with mpmath.workdps(60):
        return [[mpmath.exp(float(value)) if value > -np.inf else mpmath.mpf(0) for value in row] for row in b]


class Paths:
    """All K^T paths of one sequence, in lexicographic order."""

    def __init__(self, b, start, A):
        T, K = np.shape(b)
        self.K = K
        self.paths = np.indices((K,) * T).reshape(T, -1).T
        self.logs = np.array([path_log_prob(b, start, A, path) for path in self.paths])  # log p(x, path)
        self.log_p = log_sum_exp(self.logs, 0)  # log p(x)

    def probabilities(self):
        """p(path | x), (K^T,)."""
        return np.exp(self.logs - self.log_p).astype(np.float64)

    def posterior(self):
        """p(z_t | x), (T, K)."""
        p = self.probabilities()
        return np.array([np.bincount(states, p, self.K) for states in self.paths.T])
