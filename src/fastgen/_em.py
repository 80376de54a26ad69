"""The one EM driver: iterate, keep the history of the objective, say why it stopped.

Every structure brings an E-step: parameters -> (objective, statistics). The objective is what the M-step maximises, per
unit of weight: the log-likelihood, with the logarithm of the prior where there is one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastgen._validation import Array, Data, check_number
from fastgen.errors import ComponentError
from fastgen.families._base import Family, IncompleteFamily

EStep = Callable[[Any], tuple[float, Any]]
Rows = NDArray[np.intp] | slice
"""Numbers of rows; slice(None) for all of them, without a copy."""


@dataclass(frozen=True)
class Fit:
    """What a fit ended with."""

    family: Any
    """The parameters."""
    statistics: Any
    """Statistics under these parameters."""
    history: tuple[float, ...]
    """Objective of the start and after each iteration; the last is that of ``family``. Empty for a closed form."""
    stop_reason: str
    """``closed form``, ``converged``, ``max_iter``, or ``decreased``: the objective fell by more than rounding."""

    @property
    def n_iter(self) -> int:
        """Iterations that were made."""
        return max(1, len(self.history) - 1)


def expectation_maximisation(family: Any, e_step: EStep, *, tol: float, max_iter: int) -> Fit:
    """Alternate E- and M-steps until the objective gains less than ``tol``.

    ``family`` has the starting parameters. What is returned is the best that was seen, with its own objective.
    """
    objective, statistics = e_step(family)
    history = [objective]
    reason = "max_iter"
    for _ in range(max_iter):
        candidate = family.maximise(statistics)
        value, its_statistics = e_step(candidate)
        if value < objective - 1e-10 * max(1.0, abs(objective)):
            reason = "decreased"
            break
        gain, objective, family, statistics = value - objective, value, candidate, its_statistics
        history.append(objective)
        if gain <= tol:
            reason = "converged"
            break
    return Fit(family, statistics, tuple(history), reason)


def take(X: Data, weights: Array | None, rows: Rows) -> tuple[Data, Array | None]:
    """Some rows, and their weights."""
    if isinstance(rows, slice):
        return X[rows], None if weights is None else weights[rows]
    return X.take(rows, axis=0), None if weights is None else weights.take(rows)  # faster than indexing


def fit_labelled(
    family: Family, X: Data, weights: Array | None, groups: Sequence[Rows], *, tol: float, max_iter: int
) -> Fit:
    """Fit one component of a family to each group of rows.

    In closed form; by EM if values are missing and the family's statistics then depend on its parameters
    (`IncompleteFamily`). The rows of one group at a time are copied.
    """
    check_number(tol, "tol", Real, 0)
    check_number(max_iter, "max_iter", Integral, 1)
    parts = []
    for k, rows in enumerate(groups):
        try:
            parts.append(family.statistics(*take(X, weights, rows)))
        except ComponentError as error:
            error.component = k
            raise
    statistics = type(parts[0]).stack(parts)
    start = family.maximise(statistics)
    if statistics.complete:
        return Fit(start, statistics, (), "closed form")
    total = len(X) if weights is None else float(weights.sum())
    incomplete = cast(IncompleteFamily, family)
    observed = [incomplete.observe(*take(X, weights, rows)) for rows in groups]

    def e_step(current: IncompleteFamily) -> tuple[float, Any]:
        expected = [current.select([k]).expect(parts) for k, parts in enumerate(observed)]
        statistics = type(expected[0][1]).stack([part for _, part in expected])
        log_likelihood = sum(value for value, _ in expected)
        return (log_likelihood + current.penalty(statistics)) / total, statistics

    return expectation_maximisation(start, e_step, tol=tol, max_iter=max_iter)
