"""Approximate inference row by row, by the name of the method."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any

import numpy as np

from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical._states import Codes

_SAMPLES = 10_000
_HOMES = {
    "gibbs": ("_sampling", "gibbs"),
    "likelihood_weighting": ("_likelihood_weighting", "likelihood_weighting"),
    "loopy": ("_message_passing", "belief_propagation"),
    "mean_field": ("_message_passing", "mean_field"),
}
_OURS = "graph", "network", "evidence"
"""What is given to each of them, not by the user."""
_LOG = {"gibbs": "", "likelihood_weighting": "log_evidence", "loopy": "log_z", "mean_field": "elbo"}


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` unless the method takes these options: "exact" has none, "auto" those of "loopy"."""
    if not options:
        return
    allowed = () if method == "exact" else _options(_function("loopy" if method == "auto" else method))
    for name in options:
        if name not in allowed:
            known = f"those of {method!r} are {', '.join(allowed)}" if allowed else f"method={method!r} has none"
            raise TypeError(f"there is no option {name!r}: {known}")


def approximate(
    network: DiscreteNetwork,
    codes: Codes,
    targets: Sequence[int],
    method: str,
    options: Mapping[str, Any],
    random_state: Any = None,
) -> tuple[list[Array], Array, bool, list[Any]]:
    """Marginals of the targets for each row, log P(evidence) or NaN, whether they are exact, and all results.

    ``random_state`` is that of the model: for methods that draw, unless the options have one.
    """
    run = _function(method)
    allowed = _options(run)
    chosen = dict(options)
    if "n_samples" in allowed:
        chosen.setdefault("n_samples", _SAMPLES)
    if "random_state" in allowed and chosen.get("random_state") is None:
        chosen["random_state"] = random_state
    model = network if method == "likelihood_weighting" else network.factor_graph()
    results = [run(model, evidence=np.asarray(row, np.int64), **chosen) for row in codes]
    marginals = [np.array([result.marginals[i] for result in results]) for i in targets]
    log_evidence = np.array([float(getattr(result, _LOG[method], np.nan)) for result in results])
    return marginals, log_evidence, all(getattr(result, "exact", False) for result in results), results


def _function(method: str) -> Callable[..., Any]:
    module, name = _HOMES[method]
    found: Callable[..., Any] = getattr(import_module(f"fastgen.graphical.{module}"), name)
    return found


def _options(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(name for name in signature(function).parameters if name not in _OURS)
