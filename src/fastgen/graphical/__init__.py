"""Models over many variables: Bayesian networks, Markov random fields, one engine for inference.

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgen.graphical import formats
    from fastgen.graphical._engine import Cost, Engine, EngineLimitError
    from fastgen.graphical._factors import DiscreteNetwork, Factor, FactorGraph, NetworkError
    from fastgen.graphical._structure import (
        Pattern,
        StructureResult,
        chow_liu,
        hill_climb,
        pc_stable,
        score_network,
        structural_hamming_distance,
        tree_augmented_naive_bayes,
    )
    from fastgen.graphical.bayesian_network import BayesianNetwork, Inference, Query
    from fastgen.graphical.gaussian_markov import GaussianMarkovRandomField
    from fastgen.graphical.linear_gaussian import LinearGaussianNetwork
    from fastgen.graphical.network_classifier import BayesianNetworkClassifier

_HOMES = {
    "BayesianNetwork": "bayesian_network",
    "BayesianNetworkClassifier": "network_classifier",
    "Cost": "_engine",
    "DiscreteNetwork": "_factors",
    "Engine": "_engine",
    "EngineLimitError": "_engine",
    "Factor": "_factors",
    "FactorGraph": "_factors",
    "GaussianMarkovRandomField": "gaussian_markov",
    "Inference": "bayesian_network",
    "LinearGaussianNetwork": "linear_gaussian",
    "NetworkError": "_factors",
    "Pattern": "_structure",
    "Query": "bayesian_network",
    "StructureResult": "_structure",
    "chow_liu": "_structure",
    "formats": "formats",
    "hill_climb": "_structure",
    "pc_stable": "_structure",
    "score_network": "_structure",
    "structural_hamming_distance": "_structure",
    "tree_augmented_naive_bayes": "_structure",
}

__all__ = [
    "BayesianNetwork",
    "BayesianNetworkClassifier",
    "Cost",
    "DiscreteNetwork",
    "Engine",
    "EngineLimitError",
    "Factor",
    "FactorGraph",
    "GaussianMarkovRandomField",
    "Inference",
    "LinearGaussianNetwork",
    "NetworkError",
    "Pattern",
    "Query",
    "StructureResult",
    "chow_liu",
    "formats",
    "hill_climb",
    "pc_stable",
    "score_network",
    "structural_hamming_distance",
    "tree_augmented_naive_bayes",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fastgen.graphical' has no attribute {name!r}")
    module = import_module(f"fastgen.graphical.{home}")
    value = module if home == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
