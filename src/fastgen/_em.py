"""The one EM driver: iterate, keep the history of the objective, say why it stopped.

Every structure brings an E-step, parameters -> (objective, statistics), and an M-step. The objective is what the M-step
maximises, per unit of weight: the log-likelihood, with the logarithm of the prior where there is one.
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
MStep = Callable[[Any, Any], Any]
Rows = NDArray[np.intp] | slice
"""Numbers of rows; slice(None) for all of them, without a copy."""

_ROUNDING = 1e-10  # of the objective: a fall beyond it has another cause


@dataclass(frozen=True)
class Fit:
    """What a fit ended with."""

    parameters: Any
    statistics: Any
    """Statistics under these parameters."""
    history: tuple[float, ...]
    """Objective of the start and after each iteration; the last is that of ``parameters``. Empty for a closed form."""
    stop_reason: str
    """``closed form``, ``converged``, ``max_iter``, ``interrupted``, ``degenerate`` (no M-step) or ``decreased``
    (the objective fell by more than rounding, though it must not)."""
    error: ComponentError | None = None
    """Why the M-step failed."""

    @property
    def n_iter(self) -> int:
        """Iterations that were made."""
        return max(1, len(self.history) - 1)


def expectation_maximisation(
    start: Any,
    e_step: EStep,
    m_step: MStep,
    *,
    tol: float,
    max_iter: int,
    may_fall: Callable[[], bool] = bool,
    cautious_step: MStep | None = None,
    stop_at_error: bool = False,
    report: Callable[[int, float, float], None] | None = None,
) -> Fit:
    """Alternate E- and M-steps until an iteration gains less than ``tol``, then make one more (as scikit-learn does).

    Parameters
    ----------
    start : the parameters to start from
    e_step : parameters -> (objective, statistics)
    m_step : (parameters, statistics) -> parameters
    tol, max_iter : when to stop
    may_fall : whether the last M-step did something else than maximise (regularise, reseed): then a fall does not stop
    cautious_step : an M-step to take instead where ``m_step``, an accelerated one, made the objective fall
    stop_at_error : return what there is when the M-step raises a `ComponentError`
    report : called with the iteration, the objective and its gain

    What is returned has its own objective. An interrupt (Ctrl-C) ends the iterations, and what there is is returned.
    """
    objective, statistics = e_step(start)
    parameters, history = start, [objective]
    reason, last = "max_iter", False
    try:
        for iteration in range(1, max_iter + 1):
            try:
                candidate = m_step(parameters, statistics)
            except ComponentError as error:
                if not stop_at_error:
                    raise
                return Fit(parameters, statistics, tuple(history), "degenerate", error)
            value, its_statistics = e_step(candidate)
            rounding = _ROUNDING * max(1.0, abs(objective))
            if value < objective - rounding and cautious_step is not None:
                candidate = cautious_step(parameters, statistics)
                value, its_statistics = e_step(candidate)
            if value < objective - rounding and not may_fall():
                reason = "decreased"
                break
            gain, objective, parameters, statistics = value - objective, value, candidate, its_statistics
            history.append(objective)
            if report is not None:
                report(iteration, objective, gain)
            if last:
                break
            last = abs(gain) < tol or abs(gain) <= 2.0**-50 * abs(objective)
    except KeyboardInterrupt:
        return Fit(parameters, statistics, tuple(history), "interrupted")
    return Fit(parameters, statistics, tuple(history), "converged" if last and reason == "max_iter" else reason)


def take(X: Data, weights: Array | None, rows: Rows) -> tuple[Data, Array | None]:
    """Some rows, and their weights."""
    if isinstance(rows, slice):
        return X[rows], None if weights is None else weights[rows]
    return X.take(rows, axis=0), None if weights is None else weights.take(rows)  # faster than indexing


def labelled_statistics(family: Family, X: Data, weights: Array | None, groups: Sequence[Rows]) -> Any:
    """Statistics of one component for each group of rows. The rows of one group at a time are copied."""
    parts = []
    for k, rows in enumerate(groups):
        try:
            parts.append(family.statistics(*take(X, weights, rows)))
        except ComponentError as error:
            error.component = k
            raise
    return type(parts[0]).stack(parts)


def fit_labelled(
    family: Family, X: Data, weights: Array | None, groups: Sequence[Rows], *, tol: float, max_iter: int
) -> Fit:
    """Fit one component of a family to each group of rows.

    In closed form; by EM if values are missing and the family's statistics then depend on its parameters
    (`IncompleteFamily`).
    """
    check_number(tol, "tol", Real, 0)
    check_number(max_iter, "max_iter", Integral, 1)
    statistics = labelled_statistics(family, X, weights, groups)
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

    def m_step(current: Any, statistics: Any) -> Any:
        return current.maximise(statistics)

    def cautious_step(current: Any, statistics: Any) -> Any:
        return current.maximise(statistics, cautious=True)

    cautious = cautious_step if getattr(family, "accelerated", False) else None
    return expectation_maximisation(start, e_step, m_step, tol=tol, max_iter=max_iter, cautious_step=cautious)
