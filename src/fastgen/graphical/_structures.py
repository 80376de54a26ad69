"""Structures by name, for the estimators."""

from collections.abc import Callable, Sequence
from typing import Any

from fastgen._validation import Array, check_choice
from fastgen.graphical._states import Codes

Parents = tuple[tuple[int, ...], ...]
Structure = Callable[[Codes, Sequence[int]], Sequence[Sequence[int]]]
"""From codes (n, V) and cardinalities to the parents of each variable."""

_LONG_WALK = 40  # moves that may fail, for each variable


def learn_parents(
    structure: str | Structure, codes: Codes, sizes: Sequence[int], weights: Array | None, options: dict[str, Any]
) -> Parents:
    """The parents of each variable, by one of the learners or a user's function."""
    if callable(structure):
        return tuple(tuple(map(int, parents)) for parents in structure(codes, sizes))
    check_choice(structure, "structure", ("hill_climb", "tabu", "chow_liu", "tan", "pc", "empty"))
    if structure == "empty":
        return ((),) * len(sizes)
    from fastgen.graphical import _structure

    if structure == "tabu":
        options = {"tabu": _LONG_WALK * len(sizes), **options}
    learner: Any = {
        "chow_liu": _structure.chow_liu,
        "tan": _structure.tree_augmented_naive_bayes,
        "pc": _structure.pc_stable,
    }.get(structure, _structure.hill_climb)
    found: Any = learner(codes, cardinalities=sizes, weights=weights, **options)
    if structure == "pc":
        found = found.to_dag(strict=False)
    return tuple(tuple(map(int, parents)) for parents in getattr(found, "parents", found))
