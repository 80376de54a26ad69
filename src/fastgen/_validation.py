"""The one door: what comes in is checked here, once, before a kernel sees it.

Nothing is copied that need not be: float32 and float64 arrays of any layout pass as they are. Integers and
booleans become float64 (integers above 2^53 are rounded, as everywhere in NumPy); complex numbers, long doubles and
text are refused.
"""

from numbers import Integral
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
"""A float64 array."""

Data = NDArray[np.floating[Any]]
"""A float32 or float64 array."""

BLOCK_ROWS = 4096
"""Rows at a time where NumPy looks through data: keeps its temporaries small."""


def as_floats(value: ArrayLike, name: str) -> Data:
    """Return ``value`` as an aligned float32 or float64 array in native byte order, copied only if it must be."""
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "iubf":  # what is masked is missing
        dtype = value.dtype if value.dtype.kind == "f" else np.float64
        value = np.where(np.ma.getmaskarray(value), np.nan, value.data).astype(dtype)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error
    kind = array.dtype.kind
    if kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{name} must hold numbers, but: {error}") from error
    elif kind in "iub":
        array = array.astype(np.float64)
    elif kind != "f":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.dtype.itemsize > 8:
        raise TypeError(f"{name} has dtype {array.dtype}: convert it to float64 first, which loses digits")
    if array.dtype.itemsize < 4 or not array.dtype.isnative:
        array = array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        array = array.copy()
    return cast(Data, array)


def as_data(X: ArrayLike, name: str = "X", n_features: int | None = None) -> Data:
    """Return ``X`` as (n, d) with n, d >= 1 (see `as_floats`); ``n_features`` is the d that is expected."""
    array = as_floats(X, name)
    if array.ndim != 2:
        hint = " Use X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one sample." if array.ndim == 1 else ""
        raise ValueError(f"{name} must have shape (n_samples, n_features), got {array.shape}.{hint}")
    if n_features is not None and array.shape[1] != n_features:
        raise ValueError(f"{name} has {array.shape[1]} features, but {n_features} were expected")
    if 0 in array.shape:
        raise ValueError(f"{name} must have at least one sample and one feature, got shape {array.shape}")
    return array


def as_parameters(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    """Return ``value`` as a C-contiguous, finite float64 array of exactly ``shape``."""
    array = np.asarray(as_floats(value, name), dtype=np.float64, order="C")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, but holds NaN or infinity")
    return array


def as_weights(sample_weight: ArrayLike | None, n: int, name: str = "sample_weight") -> Array | None:
    """Return weights of shape (n,): finite, not negative, with a positive sum. None stays None (all ones)."""
    if sample_weight is None:
        return None
    weights = np.asarray(as_floats(sample_weight, name), dtype=np.float64, order="C")
    if weights.ndim == 0:
        weights = np.full(n, float(weights))
    if weights.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one weight per sample, got {weights.shape}")
    if not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"{name} must be finite and not negative")
    if not weights.any():
        raise ValueError(f"{name} must not be all zero: nothing is left to fit")
    with np.errstate(over="ignore"):
        if not np.isfinite(weights.sum()):
            raise ValueError(f"{name} must have a finite sum")
    return weights


def as_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *inputs: Data, in_place: bool = False) -> Data:
    """Return ``out`` if results of this shape and dtype can be written into it, or a new array if it is None.

    It must not overlap the ``inputs``, which are read meanwhile; with ``in_place`` it may be the very same array as the
    first of them.
    """
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must be a NumPy array of dtype {dtype} and shape {shape}, got {got}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if not out.flags.aligned or any(stride % out.itemsize for stride in out.strides):
        raise ValueError("out must be aligned")
    if any(stride == 0 and length > 1 for stride, length in zip(out.strides, out.shape, strict=True)):
        raise ValueError("out must have a place for every result: one of its strides is 0")
    same = in_place and out.ctypes.data == inputs[0].ctypes.data and out.strides == inputs[0].strides
    if not same and any(_overlap(out, array) for array in inputs):
        raise ValueError("out must not overlap the input")
    return cast(Data, out)


def _overlap(a: Data, b: Data) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=cast(Any, 10_000)))
    except np.exceptions.TooHardError:
        return True


def refuse_infinity(X: Data, name: str = "X") -> None:
    """Raise ``ValueError`` if ``X`` holds an infinity, and say where."""
    for start in range(0, len(X), BLOCK_ROWS):
        found = np.argwhere(np.isinf(X[start : start + BLOCK_ROWS]))
        if len(found):
            row, column = found[0]
            raise ValueError(
                f"Input {name} contains infinity (at row {start + row}, column {column}); "
                "NaN stands for a missing value, infinity is an error"
            )


def as_generator(random_state: Any) -> np.random.Generator:
    """Return a Generator for None, a seed, a Generator (as it is), or a RandomState (sharing its stream)."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.Generator(random_state._bit_generator)
    return np.random.default_rng(random_state)


def check_number(value: object, name: str, kind: type, least: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number of this kind (Integral or Real), not below ``least``."""
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= cast(float, value) < np.inf:
        noun = "an integer" if kind is Integral else "a finite number"
        raise ValueError(f"{name} must be {noun} of at least {least}, got {value!r}")


def check_choice(value: object, name: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
