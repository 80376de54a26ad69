"""Bernoulli distributions of independent columns of zeros and ones.

log p(x | k) = sum_j x_j log p_kj + (1 - x_j) log(1 - p_kj)
"""

from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._validation import Array, Data, check_number
from fastgen.families._independent import (
    ColumnStatistics,
    Linear,
    Terms,
    any_or_none,
    as_component_parameters,
    check_statistics,
    product,
)
from fastgen.families.gaussian import _indices


@dataclass(frozen=True, eq=False)
class BernoulliStatistics(ColumnStatistics):
    """Weights of the zeros and of the ones."""

    zeros: Array
    """(K, d)"""
    ones: Array
    """(K, d)"""

    @property
    def count(self) -> Array:
        """(K, d) total weight of the rows in which the column is observed."""
        return self.zeros + self.ones


class Bernoulli(Linear):
    """K times d independent Bernoulli distributions: the family for columns of 0 and 1.

    Missing values (NaN) do not count; `impute` puts the more probable value in their place (0 if both are equally
    probable), or a draw.

    Parameters
    ----------
    pseudo_count : float, not negative
        Added to the zeros and to the ones of each column in the fit (a Beta prior with both parameters
        1 + ``pseudo_count``): it then maximises the log-likelihood plus ``pseudo_count * (log p + log(1 - p))``.
    probabilities : array (K, d), optional
        Of a 1. Probabilities of exactly 0 and 1 are legal: they rule a value out.

    Examples
    --------
    >>> from fastgen.families import Bernoulli
    >>> family = Bernoulli(pseudo_count=1)
    >>> family.maximise(family.statistics([[1.0, 0.0], [1.0, 1.0]])).probabilities
    array([[0.75, 0.5 ]])
    """

    _name = "probabilities"

    def __init__(self, pseudo_count: float = 0.0, *, probabilities: ArrayLike | None = None) -> None:
        check_number(pseudo_count, "pseudo_count", Real, 0)
        self.pseudo_count = float(pseudo_count)
        if probabilities is not None:
            self._set(as_component_parameters(probabilities, "probabilities", 2, 1))

    def _empty(self) -> Self:
        return type(self)(self.pseudo_count)

    def _options(self) -> str:
        return f"pseudo_count={self.pseudo_count:g}"

    def _legal(self, column: int) -> str:
        return "Bernoulli values are 0 and 1"

    def _limit(self, fitting: bool) -> float:
        return 2.0

    @property
    def probabilities(self) -> Array:
        """Probabilities of a 1, (K, d)."""
        return self._given()

    def _prepare(self) -> Terms:
        p = self.probabilities.T
        one, zero = np.log(np.where(p > 0, p, 1.0)), np.log1p(np.where(p < 1, -p, 0.0))
        return Terms(
            None,
            np.ascontiguousarray(one - zero),
            np.ascontiguousarray(zero),
            any_or_none(self.probabilities == 1),
            any_or_none(self.probabilities == 0),
        )

    def _segment(self, X: Data, weights: Array | None, start: int, stop: int, plan: Any) -> BernoulliStatistics:
        K = 1 if weights is None else weights.shape[1]
        weight, zeros, ones = np.zeros(K), np.zeros((K, X.shape[1])), np.zeros((K, X.shape[1]))
        for block, values, observed in self._blocks(X, start, stop, K, fitting=True):
            w = np.ones((len(values), 1)) if weights is None else weights[block]
            weight += w.sum(axis=0)
            ones += product(w.T, values)
            # Counted, not subtracted from all: so p is exactly 1 where there are no zeros.
            zeros += product(w.T, (1.0 if observed is None else observed) - values)
        return BernoulliStatistics(weight, zeros, ones)

    def maximise(self, statistics: BernoulliStatistics) -> Self:
        """The estimate (ones + pseudo_count) / (zeros + ones + 2 pseudo_count).

        Parameters
        ----------
        statistics : BernoulliStatistics
            As `statistics` returns them.

        Returns
        -------
        Bernoulli

        Raises
        ------
        fastgen.errors.EmptyComponentError
            A component has no weight.
        fastgen.errors.UnobservedColumnError
            A column has no observed value in a component.
        """
        check_statistics(statistics, BernoulliStatistics)
        ones, zeros = statistics.ones + self.pseudo_count, statistics.zeros + self.pseudo_count
        return self._empty()._set(ones / (ones + zeros))

    def penalty(self, statistics: BernoulliStatistics) -> float:
        """``pseudo_count * (log p + log(1 - p))``, summed over components and columns."""
        if not self.pseudo_count:
            return 0.0
        p = self.probabilities
        with np.errstate(divide="ignore"):
            return float(self.pseudo_count * (np.log(p) + np.log1p(-p)).sum())

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation from each of the components that are listed.

        Parameters
        ----------
        components : integer array (n,)
        rng : numpy.random.Generator

        Returns
        -------
        array (n, d)
            0.0 and 1.0.
        """
        components = _indices(components, "components", self.n_components)
        return (rng.random((len(components), self.n_features)) < self.probabilities[components]).astype(np.float64)

    def _most_likely(self, posterior: Array) -> Array:
        p = self.probabilities
        return (posterior @ p > posterior @ (1 - p)).astype(np.float64)
