"""Likelihood weighting: forward draws, each weighted by the probability of the evidence given its parents."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastgen._validation import Array, as_generator, check_number
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical._rows import NetworkRows

__all__ = ["LikelihoodWeightingResult", "likelihood_weighting"]

_BLOCK = 1 << 16


@dataclass(frozen=True)
class LikelihoodWeightingResult:
    """What likelihood weighting found."""

    marginals: list[Array]
    """Of each variable."""
    standard_errors: list[Array]
    """Of the marginals, by the delta method."""
    log_evidence: float
    """Estimate of log P(evidence)."""
    log_evidence_error: float
    """Its standard error, by the delta method."""
    effective_sample_size: float
    """(sum w)^2 / sum w^2 (Kong 1992)."""
    n_samples: int
    exact: bool = False


def likelihood_weighting(
    network: DiscreteNetwork, evidence: ArrayLike | None = None, n_samples: int = 10_000, random_state: Any = None
) -> LikelihoodWeightingResult:
    """Marginals given evidence from weighted draws; good as long as the evidence is not improbable.

    Parameters
    ----------
    network : DiscreteNetwork
    evidence : integer array (V,), optional
        The state of each variable, -1 where it is not observed.
    n_samples : int
    random_state : None, int, Generator or RandomState

    Returns
    -------
    LikelihoodWeightingResult

    Raises
    ------
    ValueError
        If no draw has a positive weight: the evidence is impossible or too improbable.

    References
    ----------
    R. Fung, K.-C. Chang, Weighing and integrating evidence for stochastic simulation in Bayesian networks, 1989.
    """
    check_number(n_samples, "n_samples", Integral, 1)
    V = len(network.names)
    codes = np.full(V, -1) if evidence is None else np.asarray(evidence)
    if codes.shape != (V,) or codes.dtype.kind not in "iu":
        raise ValueError(f"evidence must be integers of shape ({V},), got {codes.dtype} {codes.shape}")
    for i, (code, size) in enumerate(zip(codes.tolist(), network.cardinalities, strict=True)):
        if not -1 <= code < size:
            raise ValueError(f"evidence of {network.names[i]!r} must be below {size}, or -1, got {code}")
    # the mutilated network: observed variables have no parents, and are what they are
    observed = codes >= 0
    parents = tuple(() if observed[i] else own for i, own in enumerate(network.parents))
    tables = tuple(
        np.eye(network.cardinalities[i])[codes[i]] if observed[i] else table for i, table in enumerate(network.tables)
    )
    rows = NetworkRows(DiscreteNetwork(network.names, network.states, parents, tables))
    rng = as_generator(random_state)
    with np.errstate(divide="ignore"):
        logs = [np.log(network.tables[i]) for i in np.flatnonzero(observed)]
    scopes = [(*network.parents[i], int(i)) for i in np.flatnonzero(observed)]
    drawn, weights = [], []
    for start in range(0, n_samples, _BLOCK):
        X = rows.draw(min(_BLOCK, n_samples - start), rng)
        log_weight = np.zeros(len(X))
        for scope, table in zip(scopes, logs, strict=True):
            log_weight += table[tuple(X[:, j] for j in scope)]
        drawn.append(X)
        weights.append(log_weight)
    X, log_weight = np.concatenate(drawn), np.concatenate(weights)
    peak = log_weight.max()
    if peak == -np.inf:
        raise ValueError(f"none of {n_samples} draws agrees with the evidence: it is impossible, or too improbable")
    weight = np.exp(log_weight - peak)
    total = float(weight.sum())
    marginals, errors = [], []
    for i, size in enumerate(network.cardinalities):
        share = np.bincount(X[:, i], weight, size) / total
        # the variance of a ratio: sum w^2 (1[x = s] - p)^2 / (sum w)^2
        inside = np.bincount(X[:, i], weight**2, size)
        outside = np.maximum(inside.sum() - inside, 0.0)  # but for rounding it is not negative
        marginals.append(share)
        errors.append(np.sqrt(inside * (1 - share) ** 2 + outside * share**2) / total)
    mean = total / n_samples
    deviation = float(weight.std()) / mean / np.sqrt(n_samples)
    return LikelihoodWeightingResult(
        marginals, errors, float(peak + np.log(mean)), deviation, total**2 / float((weight**2).sum()), n_samples
    )
