"""Contingency tables of all families of a network, in one pass over the rows."""

from collections.abc import Sequence
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgen._kernels.jit import rows as kernel
from fastgen._parallel import Body, run_chunks, segments
from fastgen._validation import Array
from fastgen.graphical._groups import group_families

_COPIES_BYTES = 1 << 17  # four copies of the counters should be in the second-level cache
_MANY_ROWS = 1 << 15  # for fewer, putting families together is not worth it
_MOST_ROWS = 1 << 30  # 32-bit counters are emptied after so many


class Layout:
    """Tables of several variables each, as kernels find them, one after the other.

    Parameters
    ----------
    cardinalities : sequence of int
    scopes : sequence of sequences of int
        The variables of each table: its axes.
    """

    def __init__(self, cardinalities: Sequence[int], scopes: Sequence[Sequence[int]]) -> None:
        self.shapes = [tuple(cardinalities[j] for j in scope) for scope in scopes]
        sizes = [prod(shape) for shape in self.shapes]
        self.entries = sum(sizes)
        if self.entries >= 1 << 31:
            raise ValueError(f"the tables have {self.entries} entries: at most 2**31 - 1 can be addressed")
        ends = np.cumsum(sizes)
        self.offset = (ends - sizes).astype(np.int32)
        self.slices = [slice(int(end) - size, int(end)) for size, end in zip(sizes, ends, strict=True)]
        self.first = np.cumsum([0, *map(len, scopes)]).astype(np.intp)
        self.member = np.array([j for scope in scopes for j in scope], np.intp)
        strides = [np.cumprod((1, *shape[:0:-1]))[::-1] for shape in self.shapes]
        self.stride = np.concatenate([np.zeros(0, np.int32), *strides]).astype(np.int32)
        self.cardinality = np.array(cardinalities, np.int32)

    @property
    def arguments(self) -> tuple[NDArray[Any], ...]:
        return self.first, self.member, self.stride, self.cardinality, self.offset


def family_counts(
    X: NDArray[Any],
    cardinalities: Sequence[int],
    parents: Sequence[Sequence[int]],
    weights: Array | None = None,
    n_threads: int | None = None,
) -> tuple[Array, ...]:
    """Count how often each state of each variable comes with each configuration of its parents.

    Parameters
    ----------
    X : integer array (n, V)
        States as numbers, with any strides; not copied.
    cardinalities : sequence of int
    parents : sequence of sequences of int
        Of each variable.
    weights : array (n,), optional
    n_threads : int, optional

    Returns
    -------
    tuple of arrays (states of the parents ..., own states)
        Numbers of rows, or sums of weights: the same bits for any number of threads. O(n (V + arcs)).

    Raises
    ------
    ValueError
        Another shape, or a code that is no state.
    """
    V = len(cardinalities)
    if X.ndim != 2 or X.shape[1] != V or X.dtype.kind not in "iu":
        raise ValueError(f"X must be integers of shape (n, {V}), got {X.dtype} {X.shape}")
    X = X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))
    families = [(*chosen, i) for i, chosen in enumerate(parents)]
    groups = group_families(cardinalities, families, None if len(X) >= _MANY_ROWS else 0)
    layout = Layout(cardinalities, [group.scope for group in groups])
    wrong: list[int] = []
    total = np.zeros(layout.entries)
    most = max(cardinalities)
    read = kernel.reader(X, most)
    row_ns = 0.25 * V + 0.6 * len(groups)

    def workspace() -> tuple[NDArray[Any], ...]:
        return *kernel.tile_of(V, most), np.empty(kernel.ROWS, np.int32)

    if weights is None:
        lock = Lock()
        copies = 4 if 16 * layout.entries <= _COPIES_BYTES else 1

        def make_body() -> Body:
            work, counts = workspace(), np.zeros((copies, layout.entries), np.int32)

            def body(start: int, stop: int) -> None:
                for begin in range(start, stop, _MOST_ROWS):
                    end = min(stop, begin + _MOST_ROWS)
                    row = kernel.count(X, *layout.arguments, begin, end, *read, *work, counts)
                    if row >= 0:
                        wrong.append(row)
                        return
                    with lock:  # whole numbers: the order does not matter
                        for copy in counts:
                            total[:] += copy
                    counts[:] = 0

            return body

        run_chunks(make_body, len(X), kernel.ROWS, row_ns * len(X), n_threads)
    else:
        cuts = segments(len(X), kernel.ROWS, 8 * layout.entries, row_ns)
        sums = np.zeros((len(cuts), layout.entries))

        def make_weighing() -> Body:
            work = workspace()

            def body(first: int, last: int) -> None:
                for number in range(first, last):
                    start, stop = cuts[number]
                    row = kernel.weigh(X, weights, *layout.arguments, start, stop, *read, *work, sums[number])
                    if row >= 0:
                        wrong.append(row)
                        return

            return body

        run_chunks(make_weighing, len(cuts), 1, row_ns * len(X), n_threads)
        for part in sums:
            total += part
    if wrong:
        row = min(wrong)
        i = int(np.flatnonzero((X[row] < 0) | (X[row] >= layout.cardinality))[0])
        raise ValueError(f"X holds {X[row, i]} in row {row}, column {i}, whose states are 0 to {cardinalities[i] - 1}")
    found: dict[int, Array] = {}
    for group, own, shape in zip(groups, layout.slices, layout.shapes, strict=True):
        table = total[own].reshape(shape)
        for i in group.families:
            found[i] = np.ascontiguousarray(group.marginal(table, families[i]))
    return tuple(found[i] for i in range(V))
