"""Naive Bayes as an expert writes it in NumPy (blocks, matrix products) and Numba (fused loops on threads).

Fair, because all is done that these allow: quadratic forms are expanded into matrix products (which costs digits that
fastgen keeps), Numba's loops run along contiguous rows of tables with the classes innermost, and nothing is checked.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit, prange

BLOCK = 4096
OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"nsz", "arcp", "contract", "reassoc"}}


def over_rows(work: Any, n: int, threads: int) -> list[Any]:
    """work(first, stop) for all blocks of rows."""
    starts = range(0, n, BLOCK)
    if threads == 1:
        return [work(i, min(n, i + BLOCK)) for i in starts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda i: work(i, min(n, i + BLOCK)), starts))


def finish(joint: Any, what: str) -> Any:
    """The best class, or the probabilities, in place."""
    if what == "predict":
        return joint.argmax(axis=1)
    joint -= joint.max(axis=1, keepdims=True)
    np.exp(joint, out=joint)
    joint /= joint.sum(axis=1, keepdims=True)
    return joint


def gaussian(X: Any, means: Any, variances: Any, log_prior: Any, what: str, threads: int) -> Any:
    """With -1/2 (x - mean)^2 / variance expanded into products of matrices."""
    precisions = 1 / variances
    constant = log_prior - 0.5 * (np.log(variances) + means**2 * precisions).sum(axis=1)
    linear, square = np.ascontiguousarray((means * precisions).T), np.ascontiguousarray(-0.5 * precisions.T)

    def work(i: int, j: int) -> Any:
        x = X[i:j]
        return finish(x @ linear + (x * x) @ square + constant, what)

    return np.concatenate(over_rows(work, len(X), threads))


def gaussian_fit(X: Any, y: Any, C: int, threads: int) -> tuple[Any, Any]:
    """Means and variances of classes, about the mean of the first rows."""
    about = X[:1000].mean(axis=0)

    def work(i: int, j: int) -> Any:
        one_hot = np.zeros((j - i, C))
        one_hot[np.arange(j - i), y[i:j]] = 1.0
        z = X[i:j] - about
        return one_hot.sum(axis=0), one_hot.T @ z, one_hot.T @ (z * z)

    weight, first, second = (np.sum(parts, axis=0) for parts in zip(*over_rows(work, len(X), threads), strict=True))
    mean = first / weight[:, None]
    return mean + about, second / weight[:, None] - mean**2


def linear(X: Any, weights: Any, constant: Any, threads: int, threshold: float | None = None) -> Any:
    """The best class under x w + constant; of x > threshold, if there is one."""

    def work(i: int, j: int) -> Any:
        x = X[i:j] if threshold is None else (X[i:j] > threshold).astype(np.float64)
        return (x @ weights.T + constant).argmax(axis=1)

    return np.concatenate(over_rows(work, X.shape[0], threads))


def sums(X: Any, y: Any, C: int, threads: int, threshold: float | None = None) -> Any:
    """Of the rows of each class."""

    def work(i: int, j: int) -> Any:
        one_hot = np.zeros((C, j - i))
        one_hot[y[i:j], np.arange(j - i)] = 1.0
        return one_hot @ (X[i:j] if threshold is None else (X[i:j] > threshold).astype(np.float64))

    return np.sum(over_rows(work, len(X), threads), axis=0)


def sparse_sums(X: Any, y: Any, C: int) -> Any:
    """As a product with the sparse matrix of classes."""
    from scipy.sparse import csr_matrix

    one_hot = csr_matrix((np.ones(len(y)), (y, np.arange(len(y)))), shape=(C, len(y)))
    return (one_hot @ X).toarray()


@njit(parallel=True, **OPTIONS)
def sparse_predict(data, indices, indptr, table, constant):
    """table (columns, C)."""
    n, C = len(indptr) - 1, table.shape[1]
    out = np.empty(n, np.intp)
    for i in prange(n):
        joint = constant.copy()
        for k in range(indptr[i], indptr[i + 1]):
            row, value = table[indices[k]], data[k]
            for c in range(C):
                joint[c] += value * row[c]
        out[i] = joint.argmax()
    return out


@njit(parallel=True, **OPTIONS)
def table_predict(X, tables, constant):
    """tables (columns, categories, C)."""
    n, d = X.shape
    C = tables.shape[2]
    out = np.empty(n, np.intp)
    for i in prange(n):
        joint = constant.copy()
        for j in range(d):
            row = tables[j, X[i, j]]
            for c in range(C):
                joint[c] += row[c]
        out[i] = joint.argmax()
    return out


@njit(parallel=True, **OPTIONS)
def category_counts(X, y, C, M, parts):
    """(columns, C, M)."""
    n, d = X.shape
    counts = np.zeros((parts, d, C, M))
    for part in prange(parts):
        for i in range(part * n // parts, (part + 1) * n // parts):
            c = y[i]
            for j in range(d):
                counts[part, j, c, X[i, j]] += 1.0
    return counts.sum(axis=0)
