"""Poisson distributions of independent columns of counts.

log p(x | k) = sum_j x_j log rate_kj - rate_kj - log x_j!

Where all rates of a column are large and of the same size, these terms are as large as the counts and cancel: the
column is then centred on a rate c between them (Loader 2000, *Fast and accurate computation of binomial
probabilities*):
log p(x | rate) = log p(x | c) + (x - c) log(rate / c) + c (log(1 + e) - e), e = rate / c - 1.
"""

from dataclasses import dataclass
from functools import cache
from math import lgamma, log, pi
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._validation import Array, Data
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

_CENTRED_FROM = 64.0
"""Rates from which columns are centred."""
_TABLE = 1024


@dataclass(frozen=True, eq=False)
class PoissonStatistics(ColumnStatistics):
    """Weights and weighted sums of the observed counts."""

    count: Array
    """(K, d) total weight of the rows in which the column is observed"""
    total: Array
    """(K, d) sum w x"""


class Poisson(Linear):
    """K times d independent Poisson distributions: the family for counts.

    Missing values (NaN) do not count; `impute` puts the mean in their place, or a draw.

    Parameters
    ----------
    rates : array (K, d), optional
        Expected counts, not negative. A rate of 0 allows nothing but 0.

    Notes
    -----
    The fit is by maximum likelihood: rate = mean of the observed counts.

    Examples
    --------
    >>> from fastgen.families import Poisson
    >>> family = Poisson()
    >>> family.maximise(family.statistics([[1.0, 0.0], [3.0, 5.0]])).rates
    array([[2. , 2.5]])
    """

    _name = "rates"
    _cell_ns = 6.0

    def __init__(self, *, rates: ArrayLike | None = None) -> None:
        if rates is not None:
            self._set(as_component_parameters(rates, "rates", 2))

    def _empty(self) -> Self:
        return type(self)()

    def _options(self) -> str:
        return ""

    def _legal(self, column: int) -> str:
        return "Poisson counts are 0, 1, 2, ..."

    @property
    def rates(self) -> Array:
        """Rates, (K, d)."""
        return self._given()

    def _prepare(self) -> Terms:
        rates = self.rates.T
        low, high = rates.min(axis=1), rates.max(axis=1)
        centred = (low >= _CENTRED_FROM) & (0.5 * high <= low)
        centre = np.where(centred, 0.5 * low + 0.5 * high, 0.0)
        relative = (rates - centre[:, None]) / np.where(centred, centre, 1.0)[:, None]
        shift = np.log1p(np.where(centred[:, None], relative, 0.0))
        slope = np.where(centred[:, None], shift, np.log(np.where(rates > 0, rates, 1.0)))
        constant = np.where(centred[:, None], centre[:, None] * (shift - relative), -rates)
        return Terms(
            centre if centred.any() else None,
            np.ascontiguousarray(slope),
            np.ascontiguousarray(constant),
            None,
            any_or_none(self.rates == 0),
        )

    def _add_base(self, result: Array, values: Array, observed: Array | None) -> None:
        """log p(x | centre), or -log x! where there is none."""
        terms: Terms = self._prepared
        if terms.centre is None:
            base = -log_factorial(values)
        else:
            centred = np.flatnonzero(terms.centre)
            plain = np.flatnonzero(terms.centre == 0)
            base = np.empty_like(values)
            base[:, plain] = -log_factorial(values[:, plain])
            base[:, centred] = log_poisson(values[:, centred], terms.centre[centred])
            if observed is not None:
                base *= observed
        result += base.sum(axis=1)[:, None]

    def _segment(self, X: Data, weights: Array | None, start: int, stop: int, plan: Any) -> PoissonStatistics:
        K = 1 if weights is None else weights.shape[1]
        weight, count, total = np.zeros(K), np.zeros((K, X.shape[1])), np.zeros((K, X.shape[1]))
        for block, values, observed in self._blocks(X, start, stop, K, fitting=True):
            w = np.ones((len(values), 1)) if weights is None else weights[block]
            share = w.sum(axis=0)
            weight += share
            count += share[:, None] if observed is None else product(w.T, observed)
            total += product(w.T, values)
        return PoissonStatistics(weight, count, total)

    def maximise(self, statistics: PoissonStatistics) -> Self:
        """The maximum likelihood estimate: rate = total / count.

        Parameters
        ----------
        statistics : PoissonStatistics
            As `statistics` returns them.

        Returns
        -------
        Poisson

        Raises
        ------
        fastgen.errors.EmptyComponentError
            A component has no weight.
        fastgen.errors.UnobservedColumnError
            A column has no observed value in a component.
        """
        check_statistics(statistics, PoissonStatistics)
        if not np.isfinite(statistics.total).all():
            raise ValueError("the sums of the data overflow: scale the weights")
        with np.errstate(over="ignore"):
            rates = statistics.total / statistics.count
        if not np.isfinite(rates).all():
            raise ValueError("the means of the data overflow: scale the weights")
        return self._empty()._set(rates)

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation from each of the components that are listed.

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
        return rng.poisson(self.rates[components]).astype(np.float64)

    def _most_likely(self, posterior: Array) -> Array:
        return posterior @ self.rates


@cache
def _tables() -> tuple[Array, Array]:
    """log n!, and log n! less Stirling's formula."""
    n = np.arange(_TABLE)
    factorial = np.array([lgamma(i + 1.0) for i in range(_TABLE)])
    few = n[1:16]
    rest = factorial[1:16] - (few + 0.5) * np.log(few) + few - 0.5 * log(2 * pi)
    return factorial, np.r_[0.0, rest]


def log_factorial(x: Array) -> Array:
    """log x! of whole numbers."""
    table = _tables()[0]
    result = table.take(np.minimum(x, _TABLE - 1).astype(np.intp))
    large = x >= _TABLE
    if large.any():
        from scipy.special import gammaln

        result[large] = gammaln(x[large] + 1)
    return result


def log_poisson(x: Array, rate: Array) -> Array:
    """Log p(x | rate) of whole numbers x and positive rates, without the cancellation of large terms."""
    some = x > 0
    away = (x - rate) / rate
    deviance = x * np.log1p(away, where=some, out=np.zeros_like(away)) - (x - rate)
    few = np.minimum(x, 16)
    y = 1 / np.maximum(x, 16)
    series = y * (1 / 12 - y**2 * (1 / 360 - y**2 * (1 / 1260 - y**2 * (1 / 1680 - y**2 / 1188))))
    rest = np.where(x < 16, _tables()[1].take(np.minimum(few, 15).astype(np.intp)), series)
    rest += 0.5 * np.log(2 * pi * np.maximum(x, 1))
    return np.where(some, -deviance - rest, -rate)
