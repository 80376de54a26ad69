"""What is installed and in use: for bug reports and for the record beside a benchmark."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastgen import __version__, _kernels
from fastgen._parallel import available_cpus, get_num_threads

_DEPENDENCIES = ("numpy", "scipy", "scikit-learn", "numba", "matplotlib")


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _blas() -> list[str]:
    """The BLAS libraries in this process, as threadpoolctl (a dependency of scikit-learn) finds them."""
    import numpy.linalg  # noqa: F401 - loads NumPy's
    import threadpoolctl

    return [
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', 'unknown')}, {lib['num_threads']} threads)"
        for lib in threadpoolctl.threadpool_info()
        if lib["user_api"] == "blas"
    ]


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show version, instruction set, threads, BLAS, dependencies, and where the compiled modules lie.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dict.

    Returns
    -------
    dict or None
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    config: dict[str, Any] = {
        "fastgen": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "instruction set": _kernels.isa,
        "threads": get_num_threads(),
        "cpus": available_cpus(),
        "blas": _blas(),
        **{name: _installed(name) for name in _DEPENDENCIES},
        "compiled modules": str(Path(_kernels._gaussian.__file__ or "").parent),
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        text = ", ".join(value) if isinstance(value, list) else value
        print(f"{key + ':':18} {'not installed' if text is None else text}")
    return None
