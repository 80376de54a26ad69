"""Approximate inference row by row, by the name of the method."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical._states import Codes

_SAMPLES = 10_000


def approximate(
    network: DiscreteNetwork, codes: Codes, targets: Sequence[int], method: str, options: dict[str, Any]
) -> tuple[list[Array], Array, bool, list[Any]]:
    """Marginals of the targets for each row, log P(evidence) or NaN, whether they are exact, and all results."""
    run = _RUNS[method]
    results = [run(network, np.asarray(row, np.int64), dict(options)) for row in codes]
    marginals = [np.array([result.marginals[i] for result in results]) for i in targets]
    log_evidence = np.array([float(getattr(result, _LOG[method], np.nan)) for result in results])
    return marginals, log_evidence, all(getattr(result, "exact", False) for result in results), results


def _loopy(network: DiscreteNetwork, row: Codes, options: dict[str, Any]) -> Any:
    from fastgen.graphical._message_passing import belief_propagation

    return belief_propagation(network.factor_graph(), row, **options)


def _mean_field(network: DiscreteNetwork, row: Codes, options: dict[str, Any]) -> Any:
    from fastgen.graphical._message_passing import mean_field

    return mean_field(network.factor_graph(), row, **options)


def _gibbs(network: DiscreteNetwork, row: Codes, options: dict[str, Any]) -> Any:
    from fastgen.graphical._sampling import gibbs

    return gibbs(network.factor_graph(), options.pop("n_samples", _SAMPLES), row, **options)


def _likelihood_weighting(network: DiscreteNetwork, row: Codes, options: dict[str, Any]) -> Any:
    from fastgen.graphical._likelihood_weighting import likelihood_weighting

    return likelihood_weighting(network, row, options.pop("n_samples", _SAMPLES), **options)


_RUNS: dict[str, Callable[[DiscreteNetwork, Codes, dict[str, Any]], Any]] = {
    "gibbs": _gibbs,
    "likelihood_weighting": _likelihood_weighting,
    "loopy": _loopy,
    "mean_field": _mean_field,
}
_LOG = {"gibbs": "", "likelihood_weighting": "log_evidence", "loopy": "log_z", "mean_field": "elbo"}
