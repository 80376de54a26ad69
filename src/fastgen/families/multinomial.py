"""Multinomial distributions: how often each of d outcomes came up in n trials.

log p(x | k) = log n! - sum_j log x_j! + sum_j x_j log p_kj,  n = sum_j x_j

A row holds the counts of one set of trials; their number n belongs to the row, and may differ from row to row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._missing import Index, incomplete_rows
from fastgen._validation import Array, Data, check_number
from fastgen.errors import EmptyComponentError
from fastgen.families._independent import (
    ColumnStatistics,
    Linear,
    Terms,
    _Illegal,
    any_or_none,
    as_component_parameters,
    product,
)
from fastgen.families.gaussian import _indices
from fastgen.families.poisson import log_factorial

_ONE_FAMILY = (
    "the columns of a multinomial distribution depend on each other through the number of trials: {} is not a "
    "family of multinomials. Fit one to these columns instead."
)


@dataclass(frozen=True, eq=False)
class MultinomialStatistics(ColumnStatistics):
    """Weights and weighted sums of the counts."""

    total: Array
    """(K, d) sum w x"""


class Multinomial(Linear):
    """K multinomial distributions over d outcomes: the family for rows of counts out of a number of trials.

    Each row adds up to its own number of trials; that number has no distribution. Missing values (NaN) are refused: the
    number of trials would be unknown.

    Parameters
    ----------
    pseudo_count : float, not negative
        Added to each outcome of each component in the fit (a symmetric Dirichlet prior with parameter
        1 + ``pseudo_count``): it then maximises the log-likelihood plus ``pseudo_count * sum(log p)``.
    n_trials : int, optional
        Number of trials of each row that `sample` draws.
    probabilities : array (K, d), optional
        Each row adds up to 1. A probability of exactly 0 is legal: it rules the outcome out.

    Notes
    -----
    The fit is by maximum likelihood: p = share of the outcome in all trials. For one trial per row, `Categorical` has
    the same density and takes the code of the outcome instead.

    Examples
    --------
    >>> from fastgen.families import Multinomial
    >>> family = Multinomial()
    >>> family.maximise(family.statistics([[1.0, 0.0, 1.0], [3.0, 2.0, 1.0]])).probabilities
    array([[0.5 , 0.25, 0.25]])
    """

    _name = "probabilities"
    _cell_ns = 6.0

    def __init__(
        self, pseudo_count: float = 0.0, n_trials: int | None = None, *, probabilities: ArrayLike | None = None
    ) -> None:
        check_number(pseudo_count, "pseudo_count", Real, 0)
        if n_trials is not None:
            check_number(n_trials, "n_trials", Integral, 0)
        self.pseudo_count = float(pseudo_count)
        self.n_trials = None if n_trials is None else int(n_trials)
        if probabilities is not None:
            array = as_component_parameters(probabilities, "probabilities", 2, 1)
            if np.abs(array.sum(axis=1) - 1).max() > 1e-8:
                raise ValueError("probabilities must add up to 1 over the last axis")
            self._set(array)

    def _empty(self) -> Self:
        return type(self)(self.pseudo_count, self.n_trials)

    def _options(self) -> str:
        trials = "" if self.n_trials is None else f", n_trials={self.n_trials}"
        return f"pseudo_count={self.pseudo_count:g}{trials}"

    def _legal(self, column: int) -> str:
        return "counts of outcomes are 0, 1, 2, ..."

    @property
    def probabilities(self) -> Array:
        """Probabilities, (K, d)."""
        return self._given()

    @property
    def n_parameters(self) -> int:
        """Free parameters: one less than outcomes, for each component."""
        return self.n_components * (self.n_features - 1)

    def _prepare(self) -> Terms:
        p = self.probabilities.T
        slope = np.log(np.where(p > 0, p, 1.0))
        constant = np.zeros(p.shape)
        return Terms(None, np.ascontiguousarray(slope), constant, None, any_or_none(self.probabilities == 0))

    def _add_base(self, result: Array, values: Array, observed: Array | None) -> None:
        """Logarithm of the multinomial coefficient."""
        result += (log_factorial(values.sum(axis=1)) - log_factorial(values).sum(axis=1))[:, None]

    def _block_log_density(self, values: Array, observed: Array | None) -> Array:
        if observed is not None:
            raise _Illegal
        return super()._block_log_density(values, observed)

    def _refuse(self, X: Data, *, fitting: bool) -> None:
        rows = incomplete_rows(X)
        if len(rows):
            column = int(np.isnan(X[rows[0]]).argmax())
            raise ValueError(
                f"X has NaN at row {rows[0]}, column {column}: a multinomial row with a missing count has an unknown "
                "number of trials. Leave the row out."
            )
        super()._refuse(X, fitting=fitting)

    def _segment(self, X: Data, weights: Array | None, start: int, stop: int, plan: Any) -> MultinomialStatistics:
        K = 1 if weights is None else weights.shape[1]
        weight, total = np.zeros(K), np.zeros((K, X.shape[1]))
        for block, values, observed in self._blocks(X, start, stop, K, fitting=True):
            if observed is not None:
                raise _Illegal
            w = np.ones((len(values), 1)) if weights is None else weights[block]
            weight += w.sum(axis=0)
            total += product(w.T, values)
        return MultinomialStatistics(weight, total)

    def maximise(self, statistics: MultinomialStatistics) -> Self:
        """The estimate (total + pseudo_count) / (their sum).

        Parameters
        ----------
        statistics : MultinomialStatistics
            As `statistics` returns them.

        Returns
        -------
        Multinomial

        Raises
        ------
        fastgen.errors.EmptyComponentError
            A component has no weight, or no trial.
        """
        if not isinstance(statistics, MultinomialStatistics):
            raise TypeError(f"MultinomialStatistics are needed, got {type(statistics)}")
        if not statistics.weight.min() > 0:
            raise EmptyComponentError(int(statistics.weight.argmin()))
        total = statistics.total + self.pseudo_count
        trials = total.sum(axis=1, keepdims=True)
        if not np.isfinite(trials).all():
            raise ValueError("the sums of the data overflow: scale the weights")
        if not trials.min() > 0:
            raise EmptyComponentError(
                int(trials.argmin()), "all its counts are 0", remedy="Use fewer components, or a pseudo_count."
            )
        return self._empty()._set(total / trials)

    def penalty(self, statistics: MultinomialStatistics) -> float:
        """``pseudo_count * log p``, summed over components and outcomes."""
        if not self.pseudo_count:
            return 0.0
        with np.errstate(divide="ignore"):
            return float(self.pseudo_count * np.log(self.probabilities).sum())

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """``n_trials`` trials of each of the components that are listed.

        Parameters
        ----------
        components : integer array (n,)
        rng : numpy.random.Generator

        Returns
        -------
        array (n, d)
            Counts, as float64.
        """
        components = _indices(components, "components", self.n_components)
        if self.n_trials is None:
            raise ValueError("the number of trials is not part of the fit: give Multinomial n_trials to draw from it")
        p = self.probabilities / self.probabilities.sum(axis=1, keepdims=True)
        return rng.multinomial(self.n_trials, p[components]).astype(np.float64)

    def _most_likely(self, posterior: Array) -> Array:
        raise NotImplementedError(_ONE_FAMILY.format("what is missing"))

    def impute(self, X: Data, posterior: Array | None = None, rng: np.random.Generator | None = None) -> Data:
        """A copy of X, which must not hold NaN."""
        if len(incomplete_rows(X)):
            self._refuse(X, fitting=False)
        return X.copy()

    def marginal(self, columns: Sequence[int] | Index) -> NoReturn:
        """Not a family of multinomials: the number of trials in some of the columns is random."""
        raise NotImplementedError(_ONE_FAMILY.format("the marginal of some of them"))

    def condition(self, given: Mapping[int, float]) -> NoReturn:
        """Not a family of multinomials with one number of trials."""
        raise NotImplementedError(_ONE_FAMILY.format("the conditional of some of them"))
