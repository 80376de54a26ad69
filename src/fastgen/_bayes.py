"""What all classifiers that rest on Bayes' rule share: priors, codes of labels, drawing classes."""

from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._missing import Index
from fastgen._validation import Array, as_parameters


def check_priors(value: ArrayLike, name: str, C: int) -> Array:
    """Probabilities of C classes, as an array of its own.

    Raises
    ------
    ValueError
        Another number of them, negative ones, a sum that is not 1 (beyond a relative 1e-5): in scikit-learn's words.
    """
    if np.ndim(cast(Any, value)) == 1 and len(cast(Any, value)) != C:
        raise ValueError(
            f"Number of priors must match number of classes. {name} must have shape ({C},), "
            f"got {np.shape(cast(Any, value))}"
        )
    priors = as_parameters(value, name, (C,)).copy()
    if priors.min() < 0:
        raise ValueError(f"Priors must be non-negative. {name} must be probabilities, got {priors}")
    if not np.isclose(priors.sum(), 1.0):
        raise ValueError(f"The sum of the priors should be 1. {name} must be probabilities, got {priors}")
    return priors


def classes_of(labels: NDArray[Any]) -> tuple[NDArray[Any], Index]:
    """The sorted classes, and the position of each label among them."""
    if labels.dtype.kind in "iu" and len(labels):
        least, most = int(labels.min()), int(labels.max())
        if least == 0 and most < len(labels) and np.bincount(labels[:4096].astype(np.intp), minlength=most + 1).all():
            return np.arange(most + 1).astype(labels.dtype), np.ascontiguousarray(labels, np.intp)
        if most - least < max(1024, len(labels) // 8) and most < 2**62:  # a table instead of sorting
            shifted = labels.astype(np.intp) - least
            present = np.bincount(shifted) > 0
            position = np.cumsum(present) - 1
            return (np.flatnonzero(present) + least).astype(labels.dtype), position[shifted]
    classes, codes = np.unique(labels, return_inverse=True)
    return classes, codes


def encode(labels: NDArray[Any], classes: NDArray[Any]) -> Index:
    """Position of each label among the sorted classes; -1 for others."""
    codes = np.searchsorted(classes, labels)
    known = np.asarray(classes[np.minimum(codes, len(classes) - 1)] == labels, dtype=bool)
    return np.where(known, codes, -1)


def draw_classes(classes: NDArray[Any], prior: Array, n_samples: int | None, y: Any, rng: np.random.Generator) -> Index:
    """Classes, as positions, to draw samples from: by the prior, or those that the user wants.

    Parameters
    ----------
    classes : array (C,)
    prior : array (C,)
    n_samples : int, optional
        Default: 1, or the length of y.
    y : label or array of labels, optional
        One label for all samples, or one for each.
    rng : numpy.random.Generator

    Returns
    -------
    integer array (n_samples,)

    Raises
    ------
    ValueError
        Labels that are no classes, or not ``n_samples`` of them.
    """
    if y is None:
        return rng.choice(len(classes), size=1 if n_samples is None else n_samples, p=prior / prior.sum())
    wanted = np.asarray(y)
    codes = encode(wanted, classes)
    if np.any(codes < 0):
        raise ValueError(f"y holds labels that are not among the classes {classes}")
    if wanted.ndim == 0:
        return np.full(1 if n_samples is None else n_samples, codes)
    if wanted.ndim != 1 or n_samples not in (None, len(wanted)):
        raise ValueError(f"y must be one label or {n_samples} of them, got shape {wanted.shape}")
    return codes
