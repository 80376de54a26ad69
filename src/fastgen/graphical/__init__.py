"""Models over many variables: Bayesian networks, Markov random fields, one engine for inference.

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgen.graphical import formats
    from fastgen.graphical._engine import Cost, Engine, EngineLimitError
    from fastgen.graphical._factors import DiscreteNetwork, Factor, FactorGraph, NetworkError
    from fastgen.graphical._likelihood_weighting import LikelihoodWeightingResult, likelihood_weighting
    from fastgen.graphical._message_passing import (
        BeliefPropagationResult,
        MeanFieldResult,
        TreeReweightedResult,
        belief_propagation,
        mean_field,
        trw_s,
    )
    from fastgen.graphical._sampling import (
        Chains,
        GridChain,
        effective_sample_size,
        gibbs,
        ising_gibbs,
        potts_gibbs,
        r_hat,
        swendsen_wang,
    )
    from fastgen.graphical._structure import (
        Pattern,
        StructureResult,
        chow_liu,
        cpdag,
        hill_climb,
        pair_counts,
        pc_stable,
        score_network,
        structural_hamming_distance,
        tree_augmented_naive_bayes,
    )
    from fastgen.graphical.bayesian_network import BayesianNetwork, Inference, Query
    from fastgen.graphical.boltzmann import RestrictedBoltzmannMachine
    from fastgen.graphical.gaussian_markov import GaussianMarkovRandomField
    from fastgen.graphical.linear_gaussian import LinearGaussianNetwork
    from fastgen.graphical.markov_random_field import (
        Assignment,
        Marginals,
        MarkovRandomField,
        UnnormalisedWarning,
    )
    from fastgen.graphical.network_classifier import BayesianNetworkClassifier

_HOMES = {
    "Assignment": "markov_random_field",
    "BayesianNetwork": "bayesian_network",
    "BayesianNetworkClassifier": "network_classifier",
    "BeliefPropagationResult": "_message_passing",
    "Chains": "_sampling",
    "Cost": "_engine",
    "DiscreteNetwork": "_factors",
    "Engine": "_engine",
    "EngineLimitError": "_engine",
    "Factor": "_factors",
    "FactorGraph": "_factors",
    "GaussianMarkovRandomField": "gaussian_markov",
    "GridChain": "_sampling",
    "Inference": "bayesian_network",
    "LikelihoodWeightingResult": "_likelihood_weighting",
    "LinearGaussianNetwork": "linear_gaussian",
    "Marginals": "markov_random_field",
    "MarkovRandomField": "markov_random_field",
    "MeanFieldResult": "_message_passing",
    "NetworkError": "_factors",
    "Pattern": "_structure",
    "Query": "bayesian_network",
    "RestrictedBoltzmannMachine": "boltzmann",
    "StructureResult": "_structure",
    "TreeReweightedResult": "_message_passing",
    "UnnormalisedWarning": "markov_random_field",
    "belief_propagation": "_message_passing",
    "chow_liu": "_structure",
    "cpdag": "_structure",
    "effective_sample_size": "_sampling",
    "formats": "formats",
    "gibbs": "_sampling",
    "hill_climb": "_structure",
    "ising_gibbs": "_sampling",
    "likelihood_weighting": "_likelihood_weighting",
    "mean_field": "_message_passing",
    "pair_counts": "_structure",
    "pc_stable": "_structure",
    "potts_gibbs": "_sampling",
    "r_hat": "_sampling",
    "score_network": "_structure",
    "structural_hamming_distance": "_structure",
    "swendsen_wang": "_sampling",
    "tree_augmented_naive_bayes": "_structure",
    "trw_s": "_message_passing",
}

__all__ = [
    "Assignment",
    "BayesianNetwork",
    "BayesianNetworkClassifier",
    "BeliefPropagationResult",
    "Chains",
    "Cost",
    "DiscreteNetwork",
    "Engine",
    "EngineLimitError",
    "Factor",
    "FactorGraph",
    "GaussianMarkovRandomField",
    "GridChain",
    "Inference",
    "LikelihoodWeightingResult",
    "LinearGaussianNetwork",
    "Marginals",
    "MarkovRandomField",
    "MeanFieldResult",
    "NetworkError",
    "Pattern",
    "Query",
    "RestrictedBoltzmannMachine",
    "StructureResult",
    "TreeReweightedResult",
    "UnnormalisedWarning",
    "belief_propagation",
    "chow_liu",
    "cpdag",
    "effective_sample_size",
    "formats",
    "gibbs",
    "hill_climb",
    "ising_gibbs",
    "likelihood_weighting",
    "mean_field",
    "pair_counts",
    "pc_stable",
    "potts_gibbs",
    "r_hat",
    "score_network",
    "structural_hamming_distance",
    "swendsen_wang",
    "tree_augmented_naive_bayes",
    "trw_s",
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
