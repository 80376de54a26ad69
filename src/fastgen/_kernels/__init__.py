"""Compiled kernels: the widest instruction set that this processor runs is picked once, at import.

Every kernel module is built once per instruction set, into ``_baseline``, ``_v3`` (AVX2 and FMA) and ``_v4``
(AVX-512). The chosen copy is registered under its plain name (``fastgen._kernels._gaussian``), so that import,
pickle, type stubs and a downstream ``cimport`` all see one module. ``FASTGEN_ISA`` forces a choice.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

from fastgen._kernels._cpu import isa_level

_MODULES = ("_simd", "_gaussian", "_mixture", "_hmm", "_naive_bayes", "_messages")
_LEVELS = {"v4": 4, "v3": 3, "baseline": 0}


def _choose() -> str:
    built = [name for name in _LEVELS if find_spec(f"{__name__}._{name}.{_MODULES[0]}")]
    usable = [name for name in built if isa_level() >= _LEVELS[name]]
    wanted = os.environ.get("FASTGEN_ISA") or usable[0]
    if wanted not in usable:
        raise ImportError(
            f"FASTGEN_ISA={wanted!r} cannot run here: this build on this processor offers {', '.join(usable)}"
        )
    return wanted


isa: str = _choose()
"""The instruction set in use: ``baseline``, ``v3`` or ``v4``."""

for _name in _MODULES:
    _module = import_module(f"{__name__}._{isa}.{_name}")
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _module
