"""What mixtures of every family share: data in blocks, the E-step, starts, components that lost their weight.

A mixture is p(x) = sum_k weight_k p(x | k), with the components of one family. A family may bring an E-step of its own
(`FusedFamily`); for all others the blocks go through log-densities, responsibilities and statistics.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, cast

import numpy as np

from fastgen._em import labelled_statistics
from fastgen._missing import Index
from fastgen._validation import Array, Data, as_weights, refuse_infinity
from fastgen.kernels import logsumexp, softmax

_ROWS = 16_384  # at a time, where responsibilities are in memory
_START_ROWS = 100_000  # k-means sees at most as many rows


@dataclass(frozen=True)
class MixtureStatistics:
    """What an E-step returns: small, picklable, and ``a + b`` is that of both blocks of data."""

    log_likelihood: float
    """sum_i w_i log p(x_i), in nats."""
    components: Any
    """Statistics of the components, each sample weighted by its responsibilities."""

    @property
    def weight(self) -> float:
        """Total weight of the samples."""
        return float(self.components.weight.sum())

    def __add__(self, other: "MixtureStatistics") -> "MixtureStatistics":
        if not isinstance(other, MixtureStatistics):
            return NotImplemented
        return MixtureStatistics(self.log_likelihood + other.log_likelihood, self.components + other.components)

    def __mul__(self, factor: float) -> "MixtureStatistics":
        """The statistics of the same data with all weights multiplied."""
        return MixtureStatistics(self.log_likelihood * factor, self.components * factor)


@dataclass(frozen=True)
class Mixture:
    """The parameters of a mixture."""

    weights: Array
    """(K,), they add up to 1"""
    family: Any

    @cached_property
    def log_weights(self) -> Array:
        """Logarithms of the weights; -inf for a component that has none."""
        with np.errstate(divide="ignore"):
            return cast(Array, np.log(self.weights))

    def joint(self, X: Data) -> Array:
        """log p(x, k), (n, K)."""
        joint = np.empty((len(X), len(self.weights)))
        self.family.log_density(X, out=joint)
        joint += self.log_weights
        return joint

    def log_prob(self, X: Data) -> Data:
        """log p(x), (n,)."""
        if hasattr(self.family, "mixture_log_prob"):
            return cast(Data, self.family.mixture_log_prob(X, self.log_weights))
        return cast(Data, self._by_blocks(X, (), lambda block: logsumexp(self.joint(block)), X.dtype))

    def posterior(self, X: Data) -> Data:
        """p(k | x), (n, K)."""
        if hasattr(self.family, "mixture_posterior"):
            return cast(Data, self.family.mixture_posterior(X, self.log_weights))
        return cast(Data, self._by_blocks(X, (len(self.weights),), lambda block: softmax(self.joint(block)), X.dtype))

    def predict(self, X: Data) -> Index:
        """The most probable component, (n,); by weight where no component gives the row any density."""
        if hasattr(self.family, "mixture_predict"):
            labels: Index = self.family.mixture_predict(X, self.log_weights)
            return labels

        def best(block: Data) -> Index:
            joint = self.joint(block)
            labels: Index = joint.argmax(axis=1)
            labels[joint.max(axis=1) == -np.inf] = self.weights.argmax()
            return labels

        result: Index = self._by_blocks(X, (), best, np.dtype(np.intp))
        return result

    def _by_blocks(self, X: Data, shape: tuple[int, ...], f: Callable[[Data], Any], dtype: np.dtype[Any]) -> Any:
        out = np.empty((len(X), *shape), dtype)
        for start in range(0, len(X), _ROWS):
            out[start : start + _ROWS] = f(X[start : start + _ROWS])
        return out

    def e_step(
        self, X: Data, weights: Array | None, prepared: Any = None, n_threads: int | None = None
    ) -> MixtureStatistics:
        """Log-likelihood and statistics of a block; ``prepared``: what a fused family made of it earlier."""
        if hasattr(self.family, "e_step"):
            if prepared is None:
                prepared = self.family.prepare(X, weights)
            return MixtureStatistics(*self.family.e_step(prepared, self.log_weights, n_threads=n_threads))
        refuse_infinity(X)
        total: MixtureStatistics | None = None
        for start in range(0, len(X), _ROWS):
            block = X[start : start + _ROWS]
            joint = self.joint(block)
            log_p = logsumexp(joint)
            w = None if weights is None else weights[start : start + _ROWS]
            impossible = np.flatnonzero((log_p == -np.inf) & (True if w is None else w > 0))
            if len(impossible):
                raise ValueError(f"row {start + impossible[0]} has probability 0 under every component")
            resp = softmax(joint, out=joint)
            if w is not None:
                resp[w == 0] = 0.0
                resp *= w[:, None]
                log_p = np.where(w > 0, log_p, 0.0) * w
            part = MixtureStatistics(float(log_p.sum()), self.family.statistics(block, resp))
            total = part if total is None else total + part
        return cast(MixtureStatistics, total)


class Source:
    """The data of a fit: one array, or blocks that are read anew in each pass."""

    def __init__(self, blocks: Iterable[Any], weights: Array | None, check: Callable[[Any], Data]) -> None:
        self.blocks = blocks
        self.weights = weights
        self._check = check
        self._prepared: Any = None

    @classmethod
    def of_array(cls, X: Data, weights: Array | None) -> Self:
        """One array, which has been checked."""
        return cls([X], weights, lambda block: block)

    def __iter__(self) -> Iterator[tuple[Data, Array | None]]:
        start = 0
        for block in self.blocks:
            data = self._check(block)
            weights = None if self.weights is None else self.weights[start : start + len(data)]
            start += len(data)
            yield data, weights
        if self.weights is not None and start != len(self.weights):
            raise ValueError(f"sample_weight has {len(self.weights)} values, but the blocks hold {start} samples")

    @cached_property
    def size(self) -> tuple[int, float]:
        """Number of rows and total weight."""
        n, weight = 0, 0.0
        for X, w in self:
            n += len(X)
            weight += len(X) if w is None else float(w.sum())
        if n == 0:
            raise ValueError("there are no blocks: X must be iterable more than once, a generator is not")
        return n, weight

    def e_step(self, mixture: Mixture) -> MixtureStatistics:
        """Log-likelihood and statistics of all data."""
        single = isinstance(self.blocks, list) and len(self.blocks) == 1
        total: MixtureStatistics | None = None
        for X, w in self:
            if single and self._prepared is None and hasattr(mixture.family, "prepare"):
                self._prepared = mixture.family.prepare(X, w)
            part = mixture.e_step(X, w, self._prepared)
            total = part if total is None else total + part
        return cast(MixtureStatistics, total)

    def sample(self, size: int, random_state: Any) -> tuple[Data, Array | None]:
        """At most so many rows, drawn without replacement, in their order; all of one array are not copied."""
        n, _ = self.size
        if n <= size:
            parts = list(self)
            if len(parts) == 1:
                return parts[0]
            weights = None if self.weights is None else self.weights
            return np.concatenate([X for X, _ in parts]), weights
        from sklearn.utils.random import sample_without_replacement

        chosen = np.sort(sample_without_replacement(n, size, random_state=random_state))
        taken, start = [], 0
        for X, _ in self:
            rows = chosen[(chosen >= start) & (chosen < start + len(X))] - start
            taken.append(X[rows])
            start += len(X)
        return np.concatenate(taken), None if self.weights is None else self.weights[chosen]

    def least_likely(self, mixture: Mixture, size: int) -> Data:
        """The rows with the smallest log p(x), at most so many, of those that have weight."""
        kept: Data = np.empty((0, 0))
        values = np.empty(0)
        for X, w in self:
            log_p = mixture.log_prob(X).astype(np.float64)
            rows = np.flatnonzero(w > 0) if w is not None else np.arange(len(X))
            rows = rows[np.argsort(log_p[rows], kind="stable")[:size]]
            kept = X[rows] if not len(values) else np.concatenate([kept, X[rows]])
            values = np.concatenate([values, log_p[rows]])
            best = np.argsort(values, kind="stable")[:size]
            kept, values = kept[best], values[best]
        return kept


def as_source(X: Any, sample_weight: Any, check: Callable[[Any], Data]) -> Source | None:
    """The source for an iterable of blocks, or None if X is not one."""
    one = hasattr(X, "shape") or hasattr(X, "__array__") or hasattr(X, "__dataframe__")  # array, frame, sparse matrix
    if one or not hasattr(X, "__iter__"):
        return None
    if isinstance(X, Iterator):
        raise TypeError("X is an iterator, which can be read only once, and EM reads the data in each iteration")
    first = next(iter(X), None)
    if not isinstance(first, np.ndarray) or first.ndim != 2:
        return None
    total = None if sample_weight is None else np.size(sample_weight)
    weights = None if total is None else as_weights(sample_weight, total)
    return Source(X, weights, check)


# Starts ------------------------------------------------------------------------------------------------------------


def filled(X: Data, weights: Array | None) -> Data:
    """X with each missing cell at the mean of its column: good enough to find a start."""
    refuse_infinity(X)
    missing = np.isnan(X)
    if not missing.any():
        return X
    w = np.ones(len(X)) if weights is None else weights
    counts = w @ ~missing
    means = np.divide(w @ np.where(missing, 0.0, X), counts, out=np.zeros(X.shape[1]), where=counts > 0)
    return cast(Data, np.where(missing, means, X).astype(X.dtype))


def starting_labels(X: Data, weights: Array | None, K: int, method: str, random_state: Any) -> Index:
    """A component for each row.

    Where cells are missing, the rows without missing cells decide, if they are enough, and the others follow: among
    rows whose missing cells were filled in, clusters are often those of rows that miss the same columns.
    """
    complete = filled(X, weights)
    if complete is not X:
        whole = ~np.isnan(X).any(axis=1)
        if np.count_nonzero(whole if weights is None else weights[whole]) >= 4 * K:
            labels = np.full(len(X), -1, np.intp)
            part = None if weights is None else weights[whole]
            labels[whole] = starting_labels(X[whole], part, K, method, random_state)
        else:
            labels = starting_labels(complete, weights, K, method, random_state)
        return _without_empty(_by_observed_cells(X, complete, weights, labels, K), weights, K)
    if method == "kmeans":
        from sklearn.cluster import KMeans

        kmeans = KMeans(K, n_init=1, random_state=random_state).fit(complete, sample_weight=weights)
        labels = kmeans.labels_.astype(np.intp)
    else:
        if method == "k-means++":
            from sklearn.cluster import kmeans_plusplus

            _, chosen = kmeans_plusplus(complete, K, random_state=random_state, sample_weight=weights)
        else:
            p = None if weights is None else weights / weights.sum()
            chosen = random_state.choice(len(X), K, replace=False, p=p)
        labels, nearest = np.zeros(len(X), np.intp), np.full(len(X), np.inf)
        for k, centre in enumerate(complete[chosen]):
            distance = ((complete - centre) ** 2).sum(axis=1)
            labels[distance < nearest] = k
            nearest = np.minimum(nearest, distance)
        labels[chosen] = np.arange(K)  # each keeps one, even among duplicates
    return _without_empty(labels, weights, K)


def _by_observed_cells(X: Data, complete: Data, weights: Array | None, labels: Index, K: int) -> Index:
    """Labels after some steps of k-means on the observed cells alone (k-POD, Chi, Chi & Baraniuk 2016). -1: none."""
    w = np.ones(len(X)) if weights is None else weights
    seen = ~np.isnan(X)
    middle = np.average(complete, axis=0, weights=w)
    away = np.where(seen, X - middle, 0.0)
    centres = np.zeros((K, X.shape[1]))
    for _ in range(20):
        for k in range(K):
            rows = labels == k
            count = w[rows] @ seen[rows]
            np.divide(w[rows] @ away[rows], count, out=centres[k], where=count > 0)
        parts = []
        for start in range(0, len(X), _ROWS):
            block = slice(start, start + _ROWS)
            parts.append((seen[block] @ (centres**2).T - 2 * away[block] @ centres.T).argmin(axis=1))
        moved = np.concatenate(parts)
        if np.array_equal(moved, labels):
            break
        labels = moved
    return labels


def _without_empty(labels: Index, weights: Array | None, K: int) -> Index:
    """The same labels, but for one row of the largest cluster for each cluster that has none."""
    rows = np.arange(len(labels)) if weights is None else np.flatnonzero(weights)
    for k in range(K):
        sizes = np.bincount(labels[rows], minlength=K)
        if sizes[k] == 0 and sizes.max() > 1:
            labels[rows[labels[rows] == sizes.argmax()][-1]] = k
    return labels


def statistics_of_labels(family: Any, X: Data, weights: Array | None, labels: Index, K: int) -> Any:
    """Statistics of the rows of each label."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(labels, minlength=K))[:-1])
    return labelled_statistics(family, X, weights, groups)


def random_statistics(family: Any, X: Data, weights: Array | None, K: int, random_state: Any) -> Any:
    """Statistics under random responsibilities."""
    total: Any = None
    for start in range(0, len(X), _ROWS):
        block = X[start : start + _ROWS]
        resp = random_state.uniform(size=(len(block), K))
        resp /= resp.sum(axis=1, keepdims=True)
        if weights is not None:
            resp *= weights[start : start + _ROWS, None]
        part = family.statistics(block, resp)
        total = part if total is None else total + part
    return total


def shares(weight: Array) -> Array:
    """Weights of components as probabilities."""
    return np.asarray(weight / weight.sum())


# Components without weight -----------------------------------------------------------------------------------------


def empty_components(statistics: MixtureStatistics) -> Index:
    """Components whose weight is below the rounding of the total weight."""
    weight = statistics.components.weight
    return np.flatnonzero(weight <= 2.0**-52 * weight.sum())


def reseed(source: Source, mixture: Mixture, statistics: MixtureStatistics, empty: Index) -> MixtureStatistics:
    """Give empty components a part of the rows that the mixture explains least."""
    family = mixture.family
    n, weight = source.size
    K, d = len(mixture.weights), family.n_features
    size = min(n, max(2 * (d + 1), n // (10 * K)))
    worst = source.least_likely(mixture, size * len(empty))
    if np.isnan(worst).any():  # the parameters of the empty components know nothing about missing cells
        worst = family.impute(worst, mixture.posterior(worst).astype(np.float64))
    resp = np.zeros((len(worst), K))
    resp[np.arange(len(worst)), empty[np.arange(len(worst)) * len(empty) // len(worst)]] = weight / n
    return replace(statistics, components=statistics.components + family.statistics(np.ascontiguousarray(worst), resp))
