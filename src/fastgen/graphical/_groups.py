"""Families of a network in groups with a common table, so that a row is looked up less often than it has variables."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ENTRIES = 512
"""Of a table that several families share: small enough for the nearest caches."""
_ALL_ENTRIES = 1 << 15  # times three, roughly, in all shared tables together: for the second-level cache
_OTHERS = 4  # groups that a family may join though they have no variable of its own


@dataclass(frozen=True)
class Group:
    """Families, and the variables of all of them: the axes of their common table."""

    scope: tuple[int, ...]
    families: tuple[int, ...]

    def axes(self, family: Sequence[int]) -> list[int]:
        """Where the variables of a family are in the scope."""
        return [self.scope.index(j) for j in family]

    def spread(self, table: NDArray[Any], family: Sequence[int]) -> NDArray[Any]:
        """The table of a family, whose variables are its axes, as one that can be broadcast to that of the group."""
        axes = self.axes(family)
        shape = [1] * len(self.scope)
        for axis, size in zip(axes, table.shape, strict=True):
            shape[axis] = size
        return np.transpose(table, np.argsort(axes)).reshape(shape)

    def marginal(self, table: NDArray[Any], family: Sequence[int]) -> NDArray[Any]:
        """Sums of the group's table: one axis for each variable of the family, in its order."""
        if tuple(family) == self.scope:
            return table
        axes = self.axes(family)
        rest = tuple(axis for axis in range(len(self.scope)) if axis not in axes)
        return np.transpose(table.sum(axis=rest), np.argsort(np.argsort(axes)))


def group_families(
    cardinalities: Sequence[int], families: Sequence[Sequence[int]], most: int | None = None
) -> list[Group]:
    """Put families together whose common table has few entries.

    Parameters
    ----------
    cardinalities : sequence of int
    families : sequence of sequences of int
        The variables of each.
    most : int, optional
        Entries of a table that several families share. Default: what caches hold.

    Returns
    -------
    list of Group
        Each family is in one; the larger ones come first, others join where the table grows least.
    """
    if most is None:
        most = max(16, min(_MOST_ENTRIES, _ALL_ENTRIES // max(1, len(families))))
    sizes = [prod(cardinalities[j] for j in family) for family in families]
    scopes: list[list[int]] = []
    members: list[list[int]] = []
    entries: list[int] = []
    holders: dict[int, list[int]] = {}  # the groups of each variable
    for f in sorted(range(len(families)), key=lambda f: -sizes[f]):
        family = families[f]
        if len(set(family)) < len(family):  # no family of a network: not this one's to refuse
            continue
        near = {g for j in family for g in holders.get(j, ())} | set(range(len(scopes))[-_OTHERS:])
        best, chosen, added = float(most), -1, list(family)
        for g in sorted(near):
            new = [j for j in family if j not in scopes[g]]
            factor = prod(cardinalities[j] for j in new)
            if entries[g] * factor <= most and factor < best:
                best, chosen, added = factor, g, new
        if chosen < 0:
            chosen = len(scopes)
            scopes.append([])
            members.append([])
            entries.append(1)
        scopes[chosen] += added
        members[chosen].append(f)
        for j in added:
            entries[chosen] *= cardinalities[j]
            holders.setdefault(j, []).append(chosen)
    groups = [Group(tuple(scope), tuple(own)) for scope, own in zip(scopes, members, strict=True)]
    alone = (f for f, family in enumerate(families) if len(set(family)) < len(family))
    return [*groups, *(Group(tuple(families[f]), (f,)) for f in alone)]
