"""Arcs as users give them to estimators."""

from collections.abc import Iterator
from typing import Any

__all__ = ["lasting", "pairs"]


def lasting(arcs: Any) -> Any:
    """What can be read by each fit: an iterator (a generator, zip, ...) as a list, anything else as it is."""
    return list(arcs) if isinstance(arcs, Iterator) else arcs


def pairs(arcs: Any, name: str) -> list[Any]:
    """The arcs as a list.

    Raises
    ------
    ValueError
        They are an iterator, which a later fit would find empty, or nothing that can be read.
    """
    if isinstance(arcs, Iterator):
        raise ValueError(f"{name} is an iterator, which can be read only once: make it a list of (parent, child)")
    try:
        return list(arcs)
    except TypeError:
        raise ValueError(f"{name} must be pairs (parent, child), got {arcs!r}") from None
