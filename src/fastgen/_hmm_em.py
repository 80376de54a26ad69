"""What hidden Markov models of every family share: sequences, recursions over them, the E-step.

A hidden Markov model is p(z_1) prod_t p(z_t | z_{t-1}) prod_t p(x_t | z_t), with the states' emissions of one family.
Gaussians and one categorical column go from the data to the results without an array of log-densities (`_Emitting`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from operator import add
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._hmm_recursions import Chain, Layout, Moments, Outcome, Recursions, as_offsets, refuse_likelihoods
from fastgen._kernels import _gaussian, _hmm
from fastgen._missing import Index
from fastgen._validation import BLOCK_ROWS, Array, Data, refuse_infinity
from fastgen.families import Categorical, Gaussian
from fastgen.families._gaussian_em import (
    Prepared,
    Sums,
    diagonal_statistics,
    missing_diagonal_factors,
    statistics_from,
)
from fastgen.kernels import GaussianFactors

T = TypeVar("T")
_PART_ROWS = 1 << 16  # with checkpoints: what is held at once of short sequences


@dataclass(frozen=True)
class HMMStatistics:
    """What an E-step returns: small, picklable, and ``a + b`` is that of both sets of sequences."""

    log_likelihood: float
    """sum_s w_s log p(sequence s), in nats."""
    start: Array
    """(K,) expected number of sequences that start in each state"""
    transitions: Array
    """(K, K) expected number of transitions from state i to state j"""
    components: Any
    """Statistics of the states' emissions, each step weighted by its posterior."""

    def __add__(self, other: "HMMStatistics") -> "HMMStatistics":
        if not isinstance(other, HMMStatistics):
            return NotImplemented
        return HMMStatistics(
            self.log_likelihood + other.log_likelihood,
            self.start + other.start,
            self.transitions + other.transitions,
            self.components + other.components,
        )

    def __mul__(self, factor: float) -> "HMMStatistics":
        """The statistics of the same sequences with all weights multiplied."""
        return HMMStatistics(
            self.log_likelihood * factor, self.start * factor, self.transitions * factor, self.components * factor
        )


class Sequences:
    """Sequences that lie one after the other in the rows of one array, checked by the caller.

    One object for all passes over the same data: what is found out about them is kept.
    """

    def __init__(
        self,
        X: Data,
        lengths: ArrayLike | None = None,
        weights: Array | None = None,
        labels: NDArray[np.intp] | None = None,
        *,
        checkpoints: bool = False,
    ) -> None:
        self.X = X
        self.weights = weights
        """(S,) weight of each sequence, or None"""
        self.labels = labels
        """(n,) the state of each step, -1 where it is not known, or None"""
        self.checkpoints = checkpoints
        """Whether an E-step should need no more memory than for the square root of the steps."""
        self.layout = Layout(as_offsets(lengths, len(X)), weights, blocks=checkpoints)
        self.missing = False
        """Whether missing values were found."""

    def found_missing(self) -> None:
        """What was found out so far is worth nothing."""
        self.missing = True
        self.layout.wide.clear()
        self.layout.alone.clear()

    @property
    def lengths(self) -> Index:
        """(S,)."""
        return np.diff(self.layout.offsets)

    @cached_property
    def row_weights(self) -> Array | None:
        """(n,) the weight of each row's sequence."""
        return None if self.weights is None else np.repeat(self.weights, self.lengths)

    def rows(self, first: int, stop: int, sequences: slice | None = None) -> "Sequences":
        """Some of the rows: these sequences, or, by default, part of one."""
        lengths = None if sequences is None else self.lengths[sequences]
        weights = None if sequences is None or self.weights is None else self.weights[sequences]
        labels = None if self.labels is None else self.labels[first:stop]
        part = Sequences(self.X[first:stop], lengths, weights, labels, checkpoints=self.checkpoints)
        part.layout.origin = (first, 0 if sequences is None else sequences.start)
        return part

    @cached_property
    def parts(self) -> list["Sequences"]:
        """Of no more than ``_PART_ROWS`` each, or of one sequence that has more."""
        offsets, edges = self.layout.offsets, [0]
        for s in range(1, len(offsets) - 1):
            if offsets[s + 1] - offsets[edges[-1]] > _PART_ROWS:
                edges.append(s)
        edges.append(len(offsets) - 1)
        found = [self.rows(offsets[i], offsets[j], slice(i, j)) for i, j in pairwise(edges)]
        return [part for part in found if len(part.X)] or [self]

    @cached_property
    def prepared(self) -> Prepared:
        """What the E-step of Gaussians needs."""
        return Prepared(self.X, self.row_weights)

    @cached_property
    def incomplete(self) -> bool:
        """Whether a value is missing; an infinity is an error."""
        refuse_infinity(self.X)
        return any(np.isnan(self.X[i : i + BLOCK_ROWS]).any() for i in range(0, len(self.X), BLOCK_ROWS))

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """The first column as category codes: -1 is missing."""
        column = self.X[:, 0]
        if column.dtype.kind in "iub":
            codes: NDArray[np.intp] = np.ascontiguousarray(column, np.intp)
            wrong = codes < 0
        else:
            refuse_infinity(self.X)
            known = ~np.isnan(column)
            codes = np.full(len(column), -1, np.intp)
            codes[known] = column[known]
            wrong = known & ((codes != column) | (column < 0))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"X must hold category codes 0, 1, 2, ..., but row {row} holds {column[row]}")
        return codes


class _MissingFoundError(Exception):
    """The kernel came across missing values that it was not told of."""


class _Emitting(Recursions):
    """Recursions over what the states of a family emit."""

    def __init__(self, model: "HiddenMarkov", sequences: Sequences, n_threads: int | None) -> None:
        self.sequences = sequences
        self.family = model.family
        self.factors: GaussianFactors | None = None
        self.logs: Data | None = None
        self.model = model
        X, K = sequences.X, len(model.startprob)
        step_ns = 2.0
        by_hand = sequences.labels is not None or model.emits is not None or not len(X)
        gaussian = isinstance(self.family, Gaussian) and not (
            sequences.missing and self.family.covariance_type in ("full", "tied")
        )
        if gaussian and not by_hand:
            d = X.shape[1]
            missing = sequences.missing
            self.factors = missing_diagonal_factors(self.family) if missing else self.family._prepared
            emissions = self.gaussian_emissions(self.factors)
            step_ns += self.factors.fmas_per_row / K / 8 + d / 16
        elif isinstance(self.family, Categorical) and X.shape[1] == 1 and not by_hand:
            emissions = self.table_emissions(K)
        else:
            self.logs = model.log_density(sequences, n_threads)
            emissions = _hmm.Emissions(_hmm.LOGS, self.logs, K)
        super().__init__(emissions, model.chain, sequences.layout, step_ns, n_threads)

    def gaussian_emissions(self, factors: GaussianFactors) -> _hmm.Emissions:
        """Of the rows of X."""
        kind, means, U, log_norm, centre, _ = factors
        return _hmm.Emissions(kind, self.sequences.X, self.family.n_components, means, U, log_norm, centre)

    def table_emissions(self, K: int) -> _hmm.Emissions:
        """Of category codes: one row of the table for each, one of zeros for codes it does not have, one for NaN."""
        table = self.family.probabilities[:, 0, :].T
        C = len(table)
        codes = self.sequences.codes
        if codes.min() < 0 or codes.max() >= C:
            codes = np.where(codes < 0, C + 1, np.minimum(codes, C))
        table = np.concatenate([table, np.zeros((1, K)), np.ones((1, K))])
        top = table.max(axis=1)
        scaled = table / np.where(top > 0, top, 1.0)[:, None]
        with np.errstate(divide="ignore"):
            return _hmm.Emissions(_hmm.TABLE, np.ascontiguousarray(scaled), K, symbols=codes, top=np.log(top))

    def _look_closer(self) -> None:
        if self.factors is not None and not self.sequences.missing and self.sequences.incomplete:
            raise _MissingFoundError
        if self.logs is not None:
            refuse_likelihoods(self.logs, True)

    def e_step(self) -> tuple[Outcome, Any]:
        """The outcome, and the statistics of the family."""
        X, K = self.sequences.X, self.chain.K
        d = X.shape[1]
        if not self.model.fused(self.sequences):
            posterior = np.empty((len(X), K))
            outcome = self.forward_backward(posterior, transitions=True)
            return outcome, self.family.statistics(X, self.model.shares(posterior), n_threads=self.n_threads)
        outcomes = []

        def sums_about(factors: GaussianFactors, about: Array) -> Sums:
            full = factors.kind == _gaussian.FULL
            self.emissions = self.gaussian_emissions(factors)
            shape = (K, d, d) if full else (K, d)
            moments = Moments(about, full, np.zeros(K), np.zeros((K, d)), np.zeros(shape), np.zeros((K, d)))
            outcome = self.forward_backward(
                transitions=True, moments=moments, reduce=lambda i, j, p: moments_of(X[i:j], p, about, full)
            )
            outcomes.append(outcome)
            if full:
                moments.second += np.triu(moments.second, 1).mT
            for part in outcome.rest:
                moments += part
            if factors.kind != _gaussian.DIAG_MISSING:
                moments.count = np.repeat(moments.weight[:, None], d, axis=1)
            return Sums(0.0, moments.weight, moments.first, moments.second, moments.count)

        if self.sequences.missing:
            factors = cast(GaussianFactors, self.factors)
            statistics: Any = diagonal_statistics(self.family.means, sums_about(factors, self.family.means), 0.0)
        else:
            statistics, _ = statistics_from(self.family, self.sequences.prepared, sums_about)
        return outcomes[-1], statistics


class _Streamed(Recursions):
    """Recursions of long sequences over any family, whose densities are found block by block."""

    def __init__(self, model: "HiddenMarkov", sequences: Sequences, n_threads: int | None) -> None:
        self.sequences = sequences
        self.model = model
        unused = _hmm.Emissions(_hmm.LOGS, np.zeros((1, len(model.startprob))), len(model.startprob))
        super().__init__(unused, model.chain, sequences.layout, n_threads=n_threads)

    def _in_lanes(self, *_: Any) -> None:
        return None

    def _emissions_of(self, row: int, n: int, wide: bool) -> tuple[_hmm.Emissions, int]:
        logs = self.model.log_density(self.sequences.rows(row, row + n), 1)
        return _hmm.Emissions(_hmm.LOGS, logs, self.chain.K), 0

    def e_step(self) -> tuple[Outcome, Any]:
        """The outcome, and the statistics of the family."""

        def statistics(first: int, stop: int, posterior: Array) -> Any:
            shares = self.model.shares(posterior)
            return self.model.family.statistics(self.sequences.X[first:stop], shares, n_threads=1)

        outcome = self.forward_backward(transitions=True, reduce=statistics)
        return outcome, reduce(add, outcome.rest)


def moments_of(X: Data, posterior: Array, about: Array, full: bool) -> Moments:
    """Those of a few rows."""
    K, d = about.shape
    weight, first, count = posterior.sum(axis=0), np.empty((K, d)), np.zeros((K, d))
    second = np.empty((K, d, d) if full else (K, d))
    for k, p in enumerate(posterior.T):
        z = X - about[k]
        if full:
            weighted = z * p[:, None]
            first[k] = weighted.sum(axis=0)
            second[k] = weighted.T @ z
            continue
        seen = ~np.isnan(z)
        z[~seen] = 0.0
        count[k] = p @ seen
        first[k] = p @ z
        second[k] = p @ z**2
    return Moments(about, full, weight, first, second, count)


@dataclass(frozen=True)
class HiddenMarkov:
    """The parameters of a hidden Markov model."""

    startprob: Array
    """(K,) p(z_1)"""
    transmat: Array
    """(K, K) p(z_t = j | z_{t-1} = i)"""
    family: Any
    emits: Index | None = None
    """(K,) which component each state emits, of the family's and, after them, those of `fixed`; None: its own"""
    fixed: Any = None
    """A family of components that are not fitted, or None."""

    def log_density(self, sequences: Sequences, n_threads: int | None = None) -> Data:
        """log p(x_t | z_t), (n, K); -inf for states that the labels rule out."""
        X = sequences.X
        refuse_infinity(X)
        if not len(X):  # which families refuse
            return np.empty((0, len(self.startprob)))
        logs = np.empty((len(X), self.family.n_components))
        self.family.log_density(X, out=logs, n_threads=n_threads)
        if self.emits is not None:
            if self.fixed is not None:
                logs = np.concatenate([logs, self.fixed.log_density(X, n_threads=n_threads)], axis=1)
            logs = np.take(logs, self.emits, axis=1)
        if sequences.labels is not None:
            known = np.flatnonzero(sequences.labels >= 0)
            states = sequences.labels[known]
            values = logs[known, states]
            logs[known] = -np.inf
            logs[known, states] = values
        return logs

    def shares(self, posterior: Array) -> Array:
        """Of the family's components in each step (n, G), from those of the states (n, K)."""
        if self.emits is None:
            return posterior
        shares = np.zeros((len(posterior), self.family.n_components))
        for state, component in enumerate(self.emits):
            if component < shares.shape[1]:
                shares[:, component] += posterior[:, state]
        return shares

    @cached_property
    def chain(self) -> Chain:
        """Start and transition probabilities, as the kernels read them."""
        return Chain(np.ascontiguousarray(self.startprob, np.float64), np.ascontiguousarray(self.transmat, np.float64))

    def _with(self, sequences: Sequences, n_threads: int | None, run: Callable[[_Emitting], T]) -> T:
        try:
            return run(_Emitting(self, sequences, n_threads))
        except _MissingFoundError:
            sequences.found_missing()
            return run(_Emitting(self, sequences, n_threads))

    def log_prob(self, sequences: Sequences, n_threads: int | None = None) -> Array:
        """log p(sequence) of each, (S,); -inf if it is impossible."""
        return self._with(sequences, n_threads, lambda recursions: recursions.log_likelihoods())

    def posterior(self, sequences: Sequences, n_threads: int | None = None) -> tuple[Array, Array]:
        """log p(sequence), (S,), and p(z_t | sequence), (n, K). An impossible sequence is a ValueError."""
        out = np.empty((len(sequences.X), len(self.startprob)))
        found = self._with(sequences, n_threads, lambda recursions: recursions.forward_backward(out))
        return found.log_likelihoods, out

    def viterbi(self, sequences: Sequences, n_threads: int | None = None) -> tuple[Array, Index]:
        """log p(sequence, path) of the most probable path of each, (S,), and these paths, (n,)."""
        path = np.empty(len(sequences.X), np.intp)
        return self._with(sequences, n_threads, lambda recursions: recursions.viterbi(path)), path

    def filtered(self, sequences: Sequences, n_threads: int | None = None) -> Array:
        """log p(z_t | x_1, ..., x_t), (n, K)."""
        out = np.empty((len(sequences.X), len(self.startprob)))
        self._with(sequences, n_threads, lambda recursions: recursions.filtered(out))
        return out

    def fused(self, sequences: Sequences) -> bool:
        """Whether an E-step goes from data to statistics without an array of posteriors."""
        family, d = self.family, sequences.X.shape[1]
        if sequences.labels is not None or self.emits is not None or not isinstance(family, Gaussian):
            return False
        if family.covariance_type in ("full", "tied") and sequences.missing:
            return False
        return family.covariance_type != "full" or (
            d <= 112 and family.n_components * d * d <= 1 << 18
        )  # by_rows in mixture.h

    def e_step(self, sequences: Sequences, n_threads: int | None = None) -> HMMStatistics:
        """Log-likelihood and statistics of all sequences. An impossible one that has weight is a ValueError."""
        if sequences.checkpoints and not self.fused(sequences) and len(sequences.parts) > 1:
            return reduce(add, (self.e_step(part, n_threads) for part in sequences.parts))
        try:
            fused = not sequences.checkpoints or len(sequences.X) <= _PART_ROWS or self.fused(sequences)
            found, components = (_Emitting if fused else _Streamed)(self, sequences, n_threads).e_step()
        except _MissingFoundError:
            sequences.found_missing()
            return self.e_step(sequences, n_threads)
        log_likelihoods = found.log_likelihoods
        if sequences.weights is not None:
            seen = sequences.weights > 0
            log_likelihoods = sequences.weights[seen] * log_likelihoods[seen]
        return HMMStatistics(float(log_likelihoods.sum()), found.start, found.transitions, components)
