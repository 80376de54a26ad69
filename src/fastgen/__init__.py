"""fastgen: classical generative models at the speed of the hardware.

Names are loaded when they are first used: ``import fastgen`` itself imports NumPy-free compiled modules only, and
neither SciPy nor scikit-learn nor Numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastgen import _kernels as _kernels  # the instruction set is chosen here, once

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastgen import errors, families, kernels
    from fastgen._config import show_config
    from fastgen._parallel import get_num_threads, num_threads, set_num_threads
    from fastgen.classifier import GenerativeClassifier
    from fastgen.gaussian import Gaussian
    from fastgen.mixture import GaussianMixture, Mixture

_HOMES = {
    "Gaussian": "gaussian",
    "GaussianMixture": "mixture",
    "GenerativeClassifier": "classifier",
    "Mixture": "mixture",
    "errors": "errors",
    "families": "families",
    "get_num_threads": "_parallel",
    "kernels": "kernels",
    "num_threads": "_parallel",
    "set_num_threads": "_parallel",
    "show_config": "_config",
}

__all__ = [
    "Gaussian",
    "GaussianMixture",
    "GenerativeClassifier",
    "Mixture",
    "__version__",
    "errors",
    "families",
    "get_num_threads",
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
