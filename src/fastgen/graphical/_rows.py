"""Complete rows of a `DiscreteNetwork`: log p(x), and draws; on threads, the same bits for any number of them."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgen._kernels.jit import draws
from fastgen._kernels.jit import rows as kernel
from fastgen._missing import Index
from fastgen._parallel import Body, run_chunks
from fastgen._validation import Array
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical._families import Layout
from fastgen.graphical._groups import group_families

_SEGMENT = 1 << 14  # rows for which one generator draws


class NetworkRows:
    """A network laid out flat for `log_prob` and `draw`.

    Parameters
    ----------
    network : DiscreteNetwork
    """

    def __init__(self, network: DiscreteNetwork) -> None:
        self.network = network
        sizes = [table.size for table in network.tables]
        if sum(sizes) >= 1 << 31:
            raise ValueError(f"the tables have {sum(sizes)} entries: at most 2**31 - 1 can be addressed")
        self._cardinality = np.array(network.cardinalities, np.int32)
        self._first = np.concatenate([[0], np.cumsum([len(parents) for parents in network.parents])]).astype(np.intp)
        self._parent = np.array([parent for parents in network.parents for parent in parents], np.intp)
        strides = [stride // 8 for table in network.tables for stride in table.strides[:-1]]
        self._stride = np.array(strides, np.int32)
        self._offset = (np.cumsum(sizes) - sizes).astype(np.int32)
        self._order = np.array(network.order, np.intp)

    @cached_property
    def _table(self) -> Array:
        return np.concatenate([table.ravel() for table in self.network.tables])

    @cached_property
    def _logs(self) -> tuple[Layout, Array]:
        """Sums of the families' log-probabilities, group by group."""
        network = self.network
        families = [(*parents, i) for i, parents in enumerate(network.parents)]
        groups = group_families(network.cardinalities, families)
        layout = Layout(network.cardinalities, [group.scope for group in groups])
        sums = np.zeros(layout.entries)
        with np.errstate(divide="ignore"):
            for group, part, shape in zip(groups, layout.slices, layout.shapes, strict=True):
                own = sums[part].reshape(shape)
                for i in group.families:
                    own += group.spread(np.log(network.tables[i]), families[i])
        return layout, sums

    @cached_property
    def _alias(self) -> NDArray[np.uint64]:
        most = int(self._cardinality.max())
        table, threshold, work = np.empty(len(self._table), np.uint64), np.empty(most), np.empty((3, most), np.intp)
        for i, (begin, own) in enumerate(zip(self._offset, self.network.tables, strict=True)):
            part = slice(int(begin), int(begin) + own.size)
            draws.alias_tables(self._table[part], self._cardinality[i], table[part], threshold, *work)
        return table

    def log_prob(self, X: NDArray[Any], n_threads: int | None = None) -> Array:
        """log p(x) of rows without missing cells.

        Parameters
        ----------
        X : integer array (n, V)
            States as numbers, with any strides; not copied.
        n_threads : int, optional

        Returns
        -------
        array (n,)
            -inf for what is impossible. O(n (V + arcs)).

        Raises
        ------
        ValueError
            Another shape, or a code that is no state.
        """
        V = len(self._cardinality)
        if X.ndim != 2 or X.shape[1] != V or X.dtype.kind not in "iu":
            raise ValueError(f"X must be integers of shape (n, {V}), got {X.dtype} {X.shape}")
        most = int(self._cardinality.max(initial=0))
        read = kernel.reader(X, most)
        layout, logs = self._logs
        out = np.empty(len(X))
        wrong: list[int] = []

        def make_body() -> Body:
            work = *kernel.tile_of(V, most), np.empty(kernel.ROWS, np.int32)

            def body(start: int, stop: int) -> None:
                row = kernel.log_prob(
                    X, *layout.arguments, logs, *read, *work, start, stop, out
                )  # fmt: skip
                if row >= 0:
                    wrong.append(row)

            return body

        cost_ns = (0.25 * V + 0.6 * len(layout.shapes)) * len(X)
        run_chunks(make_body, len(X), kernel.ROWS, cost_ns, n_threads)
        if wrong:
            self._refuse(X, min(wrong))
        return out

    def _refuse(self, X: NDArray[Any], row: int) -> None:
        i = int(np.flatnonzero((X[row] < 0) | (X[row] >= self._cardinality))[0])
        raise ValueError(
            f"row {row} holds {X[row, i]} for {self.network.names[i]!r}, whose states are 0 to "
            f"{self._cardinality[i] - 1}"
        )

    def draw(self, n: int, rng: np.random.Generator, n_threads: int | None = None) -> NDArray[Any]:
        """n independent rows.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator
            Seeds a generator for each 16384 rows.
        n_threads : int, optional

        Returns
        -------
        unsigned integer array (n, V)
            States as numbers, of the smallest type that holds them all.
        """
        V = len(self._cardinality)
        out = np.empty((n, V), np.min_scalar_type(int(self._cardinality.max()) - 1))
        seeds: Index = rng.integers(0, 2**63, -(-n // _SEGMENT))
        table = self._alias

        def make_body() -> Body:
            tile, work = np.empty((V, draws.ROWS), np.int32), np.empty(draws.ROWS, np.int32)
            random = np.empty(draws.LANES, np.uint64)

            def body(first: int, last: int) -> None:
                for segment in range(first, last):
                    lanes = np.random.SFC64(int(seeds[segment])).random_raw(4 * draws.LANES).reshape(4, -1)
                    draws.draw(
                        self._order, self._first, self._parent, self._stride, self._cardinality, self._offset, table,
                        lanes, tile, work, random, out[segment * _SEGMENT : (segment + 1) * _SEGMENT],
                    )  # fmt: skip

            return body

        run_chunks(make_body, len(seeds), 1, 8.0 * n * V, n_threads)
        return out
