"""fastgen: classical generative models at the speed of the hardware.

Names are loaded when they are first used: ``import fastgen`` itself imports NumPy-free compiled modules only, and
neither SciPy nor scikit-learn nor Numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastgen import _kernels as _kernels  # the instruction set is chosen here, once

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastgen import errors, families, hmm, kernels
    from fastgen._config import show_config
    from fastgen._parallel import get_num_threads, num_threads, set_num_threads
    from fastgen.classifier import GenerativeClassifier
    from fastgen.gaussian import Gaussian
    from fastgen.hidden_markov import HMM
    from fastgen.hmm import GMMHMM, CategoricalHMM, GaussianHMM, MultinomialHMM, PoissonHMM
    from fastgen.mixture import GaussianMixture, Mixture

_HOMES = {
    "CategoricalHMM": "hmm",
    "GMMHMM": "hmm",
    "Gaussian": "gaussian",
    "GaussianHMM": "hmm",
    "GaussianMixture": "mixture",
    "GenerativeClassifier": "classifier",
    "HMM": "hidden_markov",
    "Mixture": "mixture",
    "MultinomialHMM": "hmm",
    "PoissonHMM": "hmm",
    "errors": "errors",
    "families": "families",
    "get_num_threads": "_parallel",
    "hmm": "hmm",
    "kernels": "kernels",
    "num_threads": "_parallel",
    "set_num_threads": "_parallel",
    "show_config": "_config",
}

__all__ = [
    "GMMHMM",
    "HMM",
    "CategoricalHMM",
    "Gaussian",
    "GaussianHMM",
    "GaussianMixture",
    "GenerativeClassifier",
    "Mixture",
    "MultinomialHMM",
    "PoissonHMM",
    "__version__",
    "errors",
    "families",
    "get_num_threads",
    "hmm",
    "kernels",
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
