"""fastgen: classical generative models at the speed of the hardware.

Names are loaded when they are first used: ``import fastgen`` itself imports NumPy-free compiled modules only, and
neither SciPy nor scikit-learn nor Numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastgen import _kernels as _kernels  # the instruction set is chosen here, once

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastgen import errors, families, graphical, hmm, kernels, naive_bayes
    from fastgen._config import show_config
    from fastgen._parallel import get_num_threads, num_threads, set_num_threads
    from fastgen.classifier import GenerativeClassifier
    from fastgen.gaussian import Gaussian
    from fastgen.hidden_markov import HMM
    from fastgen.hmm import GMMHMM, CategoricalHMM, GaussianHMM, MultinomialHMM, PoissonHMM
    from fastgen.mixture import GaussianMixture, Mixture
    from fastgen.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MixedNB, MultinomialNB

_HOMES = {
    "BernoulliNB": "naive_bayes",
    "CategoricalHMM": "hmm",
    "CategoricalNB": "naive_bayes",
    "ComplementNB": "naive_bayes",
    "GMMHMM": "hmm",
    "Gaussian": "gaussian",
    "GaussianHMM": "hmm",
    "GaussianMixture": "mixture",
    "GaussianNB": "naive_bayes",
    "GenerativeClassifier": "classifier",
    "HMM": "hidden_markov",
    "MixedNB": "naive_bayes",
    "Mixture": "mixture",
    "MultinomialHMM": "hmm",
    "MultinomialNB": "naive_bayes",
    "PoissonHMM": "hmm",
    "errors": "errors",
    "families": "families",
    "get_num_threads": "_parallel",
    "graphical": "graphical",
    "hmm": "hmm",
    "kernels": "kernels",
    "naive_bayes": "naive_bayes",
    "num_threads": "_parallel",
    "set_num_threads": "_parallel",
    "show_config": "_config",
}

__all__ = [
    "GMMHMM",
    "HMM",
    "BernoulliNB",
    "CategoricalHMM",
    "CategoricalNB",
    "ComplementNB",
    "Gaussian",
    "GaussianHMM",
    "GaussianMixture",
    "GaussianNB",
    "GenerativeClassifier",
    "MixedNB",
    "Mixture",
    "MultinomialHMM",
    "MultinomialNB",
    "PoissonHMM",
    "__version__",
    "errors",
    "families",
    "get_num_threads",
    "graphical",
    "hmm",
    "kernels",
    "naive_bayes",
    "num_threads",
    "set_num_threads",
    "show_config",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fastgen' has no attribute {name!r}")
    module = import_module(f"fastgen.{home}")
    value = module if home == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
