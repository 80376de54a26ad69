"""Hidden Markov models as an expert writes them in Numba and, over many sequences of one length, in NumPy.

Fair, because all is done that these allow without intrinsics:

- One pass forward and one backward, emissions computed on the way. Probabilities are scaled: each step's emissions by
  their largest, the forward variables by their sum. So there are K exponentials in a step, not K^2, and logarithms of
  products of many scales.
- Inner loops run along contiguous rows (of the transition matrix or its transpose), so that the compiler vectorises
  them; it may reorder sums, but not assume that there are no infinities.
- Backwards, what normalises a posterior also scales: nothing but alpha and the emissions is kept, alpha in the output.
- Many sequences are shared out among threads. One sequence has one thread: what would share it out is ours.
- NumPy takes many sequences together, step by step, in blocks of sequences and layouts that the benchmarks try.

Correct to rounding, but nothing is checked, and no transition or emission may be so improbable as to underflow.
"""

from functools import cached_property
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from numpy_reference import LOG_2PI, over_blocks

COVARS_PRIOR = 1e-2
"""As hmmlearn has it: added to the sum of squares, and nothing to the weight."""

OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"nsz", "arcp", "contract", "reassoc"}}
SMALL = 1e-100


class Model:
    """A hidden Markov model; emissions are Gaussian (means, covars, both (K, d)) or categorical (emissionprob)."""

    def __init__(self, startprob: Any, transmat: Any, **emissions: Any) -> None:
        self.startprob = startprob
        self.transmat = transmat
        self.emissions = emissions
        """What hmmlearn has as attributes, without the underscore."""
        self.transposed = np.ascontiguousarray(transmat.T)

    @cached_property
    def gaussian(self) -> Any:
        """log p(x | k) = constant[k] - sum_j half[j, k] (x_j - mean[j, k])^2; None if emissions are categorical."""
        if "means" not in self.emissions:
            return None
        means, covars = self.emissions["means"], self.emissions["covars"]
        constant = -0.5 * (LOG_2PI + np.log(covars)).sum(axis=1)
        return constant, np.ascontiguousarray(means.T), np.ascontiguousarray(0.5 / covars.T)

    @cached_property
    def table(self) -> Any:
        """p(symbol | k) as (symbols, K); a placeholder if emissions are Gaussian."""
        probabilities = np.empty((0, 0)) if self.gaussian else self.emissions["emissionprob"]
        return np.ascontiguousarray(probabilities.T)


@njit(**OPTIONS)
def _chain(uniform, cumulative):
    states = np.empty(len(uniform), np.intp)
    state = 0
    for t in range(len(uniform)):
        state = min(np.searchsorted(cumulative[state], uniform[t]), len(cumulative) - 1)
        states[t] = state
    return states


def problem(n, K, *, d=4, symbols=None, stay=0.95, seed=0):
    """Model and n steps of data from it: states stay with probability 0.95; means N(0, 2^2), variances about 1."""
    rng = np.random.default_rng(seed)
    others = rng.uniform(0.5, 1.5, (K, K))
    np.fill_diagonal(others, 0.0)
    transmat = stay * np.eye(K) + (1 - stay) * others / others.sum(axis=1, keepdims=True)
    startprob = rng.dirichlet(np.full(K, 5.0))
    if symbols is None:
        means, covars = 2.0 * rng.standard_normal((K, d)), rng.uniform(0.7, 1.4, (K, d))
        model = Model(startprob, transmat, means=means, covars=covars)
    else:
        model = Model(startprob, transmat, emissionprob=rng.dirichlet(np.full(symbols, 0.5), K) * 0.99 + 0.01 / symbols)
    states = _chain(rng.random(n), transmat.cumsum(axis=1))
    if symbols is None:
        X = rng.standard_normal((n, d))
        X *= np.sqrt(covars)[states]
        X += means[states]
    else:
        cumulative = model.emissions["emissionprob"].cumsum(axis=1)
        uniform = rng.random(n)
        X = np.empty((n, 1), np.int64)
        for k in range(K):
            X[states == k, 0] = np.searchsorted(cumulative[k], uniform[states == k])
        np.minimum(X, symbols - 1, out=X)
    return model, X


# ---- Numba


@njit(**OPTIONS)
def _forward(X, startprob, A, gaussian, table, alpha, b, keep):
    """log p(X). Rows of alpha and b are steps; without ``keep``, one of b will do, and none of alpha."""
    K = len(A)
    p, q = startprob.copy(), np.empty(K)  # indices into these, no slices: a slice in each step costs 10 to 20 ns
    log_likelihood, product = 0.0, 1.0
    for t in range(len(X)):
        e = t if keep else 0
        if gaussian is None:  # then Numba does not compile the other branch
            symbol = int(X[t, 0])
            for k in range(K):
                b[e, k] = table[symbol, k]
        else:
            constant, mean, half = gaussian
            for k in range(K):
                b[e, k] = constant[k]
            for j in range(X.shape[1]):
                x = X[t, j]
                for k in range(K):
                    z = x - mean[j, k]
                    b[e, k] -= half[j, k] * (z * z)
            most = b[e, 0]
            for k in range(1, K):
                most = b[e, k] if b[e, k] > most else most
            log_likelihood += most
            for k in range(K):
                b[e, k] = np.exp(b[e, k] - most)
        for k in range(K):
            q[k] = 0.0 if t > 0 else p[k]
        if t > 0:
            for i in range(K):
                for k in range(K):
                    q[k] += p[i] * A[i, k]
        scale = 0.0
        for k in range(K):
            q[k] *= b[e, k]
            scale += q[k]
        inverse = 1.0 / scale
        for k in range(K):
            p[k] = q[k] * inverse
        if keep:
            for k in range(K):
                alpha[t, k] = p[k]
        product *= scale
        if product < SMALL:
            log_likelihood += np.log(product)
            product = 1.0
    return log_likelihood + np.log(product)


@njit(**OPTIONS)
def _backward(X, At, mean, alpha, b, beta, u, start, transitions, weight, first, second):
    """alpha becomes the posterior; what an M-step needs is added to the last arguments, unless ``mean`` is None."""
    T, K = len(X), len(At)
    for t in range(T - 1, -1, -1):
        for k in range(K):
            beta[k] = 0.0 if t < T - 1 else 1.0
        if t < T - 1:
            for i in range(K):
                p = u[i]
                for k in range(K):
                    beta[k] += p * At[i, k]
        total = 0.0
        for k in range(K):
            total += alpha[t, k] * beta[k]
        inverse = 1.0 / total
        if mean is not None and t < T - 1:
            for i in range(K):
                p = inverse * alpha[t, i]
                for k in range(K):
                    transitions[i, k] += p * u[k]
        for k in range(K):
            beta[k] *= inverse
            alpha[t, k] *= beta[k]
            u[k] = beta[k] * b[t, k]
        if mean is not None:
            for k in range(K):
                weight[k] += alpha[t, k]
            for j in range(X.shape[1]):
                x = X[t, j]
                for k in range(K):
                    z = x - mean[j, k]
                    first[j, k] += alpha[t, k] * z
                    second[j, k] += alpha[t, k] * (z * z)
    if mean is not None:
        start += alpha[0]


@njit(parallel=True, **OPTIONS)
def _score(X, ends, parts, startprob, A, gaussian, table):
    log_likelihood = np.zeros(parts)
    S, K = len(ends) - 1, len(A)
    for part in prange(parts):
        none, b = np.empty((0, K)), np.empty((1, K))
        for s in range(part * S // parts, (part + 1) * S // parts):
            rows = X[ends[s] : ends[s + 1]]
            log_likelihood[part] += _forward(rows, startprob, A, gaussian, table, none, b, False)
    return log_likelihood.sum()


@njit(parallel=True, **OPTIONS)
def _posteriors(X, ends, parts, startprob, A, At, gaussian, table):
    log_likelihood = np.zeros(parts)
    S, K = len(ends) - 1, len(A)
    longest = np.diff(ends).max()
    out = np.empty((len(X), K))
    for part in prange(parts):
        b, beta, u = np.empty((longest, K)), np.empty(K), np.empty(K)
        for s in range(part * S // parts, (part + 1) * S // parts):
            rows, alpha = X[ends[s] : ends[s + 1]], out[ends[s] : ends[s + 1]]
            log_likelihood[part] += _forward(rows, startprob, A, gaussian, table, alpha, b, True)
            _backward(rows, At, None, alpha, b, beta, u, None, None, None, None, None)
    return log_likelihood.sum(), out


@njit(parallel=True, **OPTIONS)
def _e_step(X, ends, parts, startprob, A, At, gaussian, table):
    S, K = len(ends) - 1, len(A)
    longest, d = np.diff(ends).max(), X.shape[1]
    start, transitions = np.zeros((parts, K)), np.zeros((parts, K, K))
    weight, first, second = np.zeros((parts, K)), np.zeros((parts, d, K)), np.zeros((parts, d, K))
    for part in prange(parts):
        alpha, b, beta, u = np.empty((longest, K)), np.empty((longest, K)), np.empty(K), np.empty(K)
        sums = start[part], transitions[part], weight[part], first[part], second[part]
        mean = gaussian[1]
        for s in range(part * S // parts, (part + 1) * S // parts):
            rows = X[ends[s] : ends[s + 1]]
            _forward(rows, startprob, A, gaussian, table, alpha, b, True)
            _backward(rows, At, mean, alpha, b, beta, u, *sums)
    return start.sum(axis=0), A * transitions.sum(axis=0), weight.sum(axis=0), first.sum(axis=0), second.sum(axis=0)


@njit(**OPTIONS)
def _viterbi(X, log_startprob, log_A, gaussian):
    constant, mean, half = gaussian
    T, K = len(X), len(log_A)
    came_from = np.empty((T, K), np.uint8)
    delta, best, value = log_startprob.copy(), np.zeros(K, np.int64), np.empty(K)
    for t in range(T):
        if t > 0:
            for k in range(K):
                best[k] = 0
                value[k] = delta[0] + log_A[0, k]
            for i in range(1, K):
                p = delta[i]
                for k in range(K):
                    candidate = p + log_A[i, k]
                    best[k] = i if candidate > value[k] else best[k]
                    value[k] = candidate if candidate > value[k] else value[k]
            for k in range(K):
                came_from[t, k] = best[k]
                delta[k] = value[k]
        for k in range(K):
            delta[k] += constant[k]
        for j in range(X.shape[1]):
            x = X[t, j]
            for k in range(K):
                z = x - mean[j, k]
                delta[k] -= half[j, k] * (z * z)
    path = np.empty(T, np.intp)
    path[-1] = np.argmax(delta)
    for t in range(T - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return delta.max(), path


def _shared_out(X, lengths, threads):
    """Where sequences begin and end, and in how many parts to deal with them."""
    lengths = [len(X)] if lengths is None else lengths
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return np.concatenate([[0], np.cumsum(lengths)]), min(len(lengths), 8 * threads)


def score(X, lengths, model, threads):
    """log p(X)."""
    return _score(X, *_shared_out(X, lengths, threads), model.startprob, model.transmat, model.gaussian, model.table)


def posteriors(X, lengths, model, threads):
    """log p(X), and p(state | X) for each step."""
    parts = _shared_out(X, lengths, threads)
    return _posteriors(X, *parts, model.startprob, model.transmat, model.transposed, model.gaussian, model.table)


def viterbi(X, lengths, model, threads):
    """log p(X, path) of the most probable path, and the path, of one sequence."""
    return _viterbi(X, np.log(model.startprob), np.log(model.transmat), model.gaussian)


def _m_step(start, transitions, weight, first, second, centre):
    """As hmmlearn: first and second moments are about a centre, for each state."""
    delta = first / weight[:, None]
    covars = (COVARS_PRIOR + second - weight[:, None] * delta**2) / weight[:, None]
    return start / start.sum(), transitions / transitions.sum(axis=1, keepdims=True), centre + delta, covars


def baum_welch(X, lengths, model, threads):
    """One iteration: start and transition probabilities, means, covars."""
    parts = _shared_out(X, lengths, threads)
    start, transitions, weight, first, second = _e_step(
        X, *parts, model.startprob, model.transmat, model.transposed, model.gaussian, model.table
    )
    return _m_step(start, transitions, weight, first.T, second.T, model.emissions["means"])


# ---- NumPy


def _batched(X, S, model, learn, block, by_feature, threads):
    """All sequences of a block of them step by step."""
    (n, d), K, A = X.shape, len(model.transmat), model.transmat
    L = n // S
    constant, mean, half = model.gaussian
    centre = model.emissions["means"].mean(axis=0)
    shifted = mean - centre[:, None]
    coefficients = np.vstack([constant - (half * shifted**2).sum(axis=0), 2.0 * half * shifted, -half]).T.copy()
    out = None if learn else np.empty((S, L, K))
    parts = []

    def make_body():
        size = min(block, S)
        f_buffer, b_buffer, a_buffer = (np.empty(L * size * width) for width in (2 * d + 1, K, K))
        part = [0.0, np.zeros(K), np.zeros((K, K)), np.zeros((K, 2 * d + 1))]
        parts.append(part)

        def body(first, last):
            m = last - first

            def view(buffer, width):
                flat = buffer[: L * m * width]
                return flat.reshape(L, width, m) if by_feature else flat.reshape(L, m, width).transpose(0, 2, 1)

            features, b, alpha = view(f_buffer, 2 * d + 1), view(b_buffer, K), view(a_buffer, K)
            features[:, 0] = 1.0
            centred = features[:, 1 : d + 1]
            np.subtract(X.reshape(S, L, d)[first:last].transpose(1, 2, 0), centre[:, None], out=centred)
            np.multiply(centred, centred, out=features[:, d + 1 :])
            np.matmul(coefficients, features, out=b)
            largest = b.max(axis=1, keepdims=True)
            np.subtract(b, largest, out=b)
            np.exp(b, out=b)
            scales = np.empty((L, m))
            for t in range(L):
                a = alpha[t]
                if t == 0:
                    a[:] = model.startprob[:, None]
                else:
                    np.matmul(model.transposed, alpha[t - 1], out=a)
                np.multiply(a, b[t], out=a)
                np.add.reduce(a, axis=0, out=scales[t])
                np.divide(a, scales[t], out=a)
            part[0] += np.log(scales).sum() + largest.sum()
            beta, u = np.ones_like(alpha[0]), np.empty_like(alpha[0])
            for t in range(L - 1, -1, -1):
                if t < L - 1:
                    np.multiply(b[t + 1], beta, out=u)
                    np.matmul(A, u, out=beta)
                    total = np.einsum("km,km->m", alpha[t], beta)
                    np.divide(beta, total, out=beta)
                    if learn:
                        part[2] += alpha[t] @ np.divide(u, total, out=u).T
                np.multiply(alpha[t], beta, out=alpha[t])
            if learn:
                part[1] += alpha[0].sum(axis=1)
                part[3] += np.matmul(alpha, features.mT).sum(axis=0)
            else:
                out[first:last] = alpha.transpose(2, 0, 1)

        return body

    over_blocks(make_body, S, block, threads)
    log_likelihood, start, transitions, moments = (sum(values) for values in zip(*parts, strict=True))
    if not learn:
        return log_likelihood, out.reshape(n, K)
    return _m_step(start, A * transitions, moments[:, 0], moments[:, 1 : d + 1], moments[:, d + 1 :], centre)


def numpy_posteriors(X, S, model, *, block, by_feature, threads):
    """`posteriors` of S sequences of equal length."""
    return _batched(X, S, model, False, block, by_feature, threads)


def numpy_baum_welch(X, S, model, *, block, by_feature, threads):
    """`baum_welch` of S sequences of equal length."""
    return _batched(X, S, model, True, block, by_feature, threads)
