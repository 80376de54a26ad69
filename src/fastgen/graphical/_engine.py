"""Exact inference in discrete models: one engine for Bayesian networks and Markov random fields.

A `Plan` is what is compiled for one set of observed variables: a tree of products of two tables
(`fastgen.graphical._triangulation`), written as a flat list of contractions over one arena. Upwards it gives
log P(evidence), or the largest value; the adjoint of each contraction, downwards, is a contraction of the same kind and
gives all marginals and the expected counts; walked down with states in hand it gives the best assignment, or exact
samples. Nothing is ever divided, so zeros need no care.

Evidence enters as indicators (a table for each variable: which states are possible, or how likely each makes what was
seen), for any pattern of missing cells, or as slices of the tables, for one pattern. An engine answers all rows with
indicators if its forecast for that is small, and otherwise makes a plan for each pattern. To make one for a pattern
that comes often, call `Engine.compile`. Which plan answers a row, and so each bit of the answer, depends on the row's
pattern and on what was compiled, never on the other rows or the number of threads.

Where entries of one message may be so far apart that the smaller ones would vanish, that is noticed, and such rows are
done again with logarithms: slowly.

Not supported: deterministic tables are not exploited beyond their zeros making zeros; approximations of any kind; a
most probable assignment of some variables that sums over the others.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from itertools import accumulate, pairwise
from math import log, prod
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._parallel import get_num_threads, run_chunks, segments
from fastgen._validation import Array, as_floats, as_generator, as_weights
from fastgen.graphical._factors import FactorGraph
from fastgen.graphical._triangulation import Contraction, Cost, Elimination, Scopes, elimination

__all__ = ["Cost", "Engine", "EngineLimitError", "Plan"]

Codes = NDArray[np.int32]
Integers = NDArray[np.int64]

_LANES_BYTES = 1 << 28  # the most memory, for each thread, to work on several rows at once
_CACHE_BYTES = 4 << 20
_LANES_FROM = 4, 10  # so many rows are better done at once: in the cache, and elsewhere
_GENERIC_OPERATIONS = 1 << 22  # above this and so many for each variable, a plan for each pattern is worth making
_GENERIC_PER_VARIABLE = 300_000
_NS_PER_OPERATION = 0.8
_KEPT_PLANS = 32
_KEPT_ORDERS = 64
_KEPT_BYTES = 1 << 28  # an arena of this size is used again
_DRAWS = 64  # samples for each time that the tables are made, at least
_RANDOM_NUMBERS = 1 << 22  # at a time
_DRAW_NS = 30.0  # for each variable
_LN2 = log(2.0)
_SAFE = 1000.0  # no product of entries is below 2 to minus this: none can vanish
_WIDEST = 500.0  # products with entries of less than 2 to minus this may vanish unseen


class EngineLimitError(ValueError):
    """Exact inference would cost more than the limit of the engine.

    Attributes
    ----------
    cost : Cost
        The forecast.
    """

    def __init__(self, text: str, cost: Cost) -> None:
        super().__init__(text)
        self.cost = cost

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.cost)


def _kernels() -> Any:
    return import_module("fastgen._kernels.jit.junction_tree")


def _compiling() -> Any:
    return import_module("fastgen._kernels.jit.compilation")


def _steps(scope: Sequence[int], cardinalities: Sequence[int]) -> dict[int, int]:
    steps = {}
    step = 1
    for variable in reversed(scope):
        steps[variable] = step
        step *= cardinalities[variable]
    return steps


@dataclass(frozen=True)
class _Query:
    """What a plan is for."""

    sliced: tuple[int, ...]
    indicated: tuple[int, ...]
    targets: tuple[int, ...]
    counts: bool = False
    maximum: bool = False
    traced: bool = False


class Plan:
    """A compiled query; `Engine` makes it."""

    def __init__(self, engine: "Engine", query: _Query) -> None:
        self.query = query
        self.lanes_from = engine._lanes_from
        self.lanes_bytes = min(engine._lanes_bytes, engine.limit)
        self.graph = graph = engine.graph
        self.scopes = engine._scopes
        self._like: _Program | None = None  # the program of the same plan for other tables
        self._dropped, self.factor_shift = engine._prune(query)
        self.gone = np.zeros(graph.n_variables, np.bool_)
        self.gone[list(query.sliced)] = True
        free = ~self.gone
        free[[variable for variable, _ in self._dropped]] = False
        self.factors = np.arange(len(graph.factors))
        if self._dropped:
            self.factors = np.delete(self.factors, [factor for _, factor in self._dropped])
        self.free = np.flatnonzero(free)
        self.indicated, self.targets = (np.array(one, np.int64) for one in (query.indicated, query.targets))
        scopes, kernels = self.scopes, _compiling()
        *self._leaves, static, self._ones = kernels.leaves_of(
            scopes.pointers, scopes.members, self.factors, self.gone, self.indicated, self.free
        )
        self._leaves.append(static)
        best = engine._elimination(self)
        self._schedule(np.array(best.order, np.int64))
        self.cost = self._cost(best)

    # ---- forecast: nothing of the size of a table is made --------------------------------------------------------

    def _schedule(self, order: Integers) -> None:
        """Make the tree; decide which adjoints are needed and where the marginals come from."""
        kernels = _compiling()
        self.tree = Contraction(kernels.contract_tree(self.scopes.as_floats, *self._leaves, order))
        self.needed, self.parent, self.source, *self._work = kernels.schedule(
            self.tree.arrays, len(self.factors), self.indicated, self.targets, self.gone, self.query.counts
        )

    def _cost(self, best: Elimination) -> Cost:
        operations, preparation, constants, cells = self._work
        if not operations + preparation + 8 * (constants + cells) < 2.0**53:
            operations, preparation, constants, cells = self._exact_work()
        return Cost(best.width, best.states, int(8 * (constants + cells)), int(operations), int(preparation))

    def _exact_work(self) -> tuple[int, int, int, int]:
        """The same where floats would round: of plans that nobody will ever run."""
        tree, needed, cardinalities = self.tree, self.needed.tolist(), self.graph.cardinalities
        operations = preparation = constants = cells = 0
        sizes = [prod(cardinalities[variable] for variable in scope) for scope in tree.scopes]
        for node, children in enumerate(tree.children):
            work = 0
            if children[0] >= 0:
                work = sizes[node] * prod(cardinalities[variable] for variable in tree.summed[node])
            room = -(-sizes[node] // 8) * 8
            if tree.static[node]:
                preparation, constants = preparation + work, constants + room
            else:
                operations, cells = operations + work, cells + room
            if needed[node]:
                operations += work * sum(needed[child] for child in children if child >= 0)
                cells += room
        operations += sum(sizes[node] for node in self.source.tolist() if node >= 0)
        return operations, preparation, constants, cells

    # ---- compilation -----------------------------------------------------------------------------------------------

    @cached_property
    def program(self) -> "_Program":
        """What is run: made on first use."""
        return _Program(self) if self._like is None else self._like.with_tables(self)

    def with_tables(self, graph: FactorGraph) -> "Plan | None":
        """Return the same plan for other tables; None if it depends on what the tables are."""
        if self._dropped:
            return None
        plan = copy(self)
        plan.graph = graph
        plan._like = plan.__dict__.pop("program", None) or self._like
        return plan


class _Program:
    """The arrays that kernels read."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.tree = plan, plan.tree
        scopes, tree = plan.scopes, plan.tree.arrays
        (
            self.base,
            self.adjoint,
            self.factor_start,
            (self._fixed, self._up, self._down),
            (*self.tables, self._root),
            self.loading,
            self._offsets,
            self.n_constants,
            self.cells,
        ) = _compiling().lay_out(
            tree,
            plan.needed,
            plan.source,
            scopes.sizes,
            scopes.pointers,
            scopes.members,
            plan.factors,
            plan.gone,
            plan.indicated,
            plan.targets,
        )
        self._idle: list[Array] = []
        self.fold_records, self.fold_index = self._assemble(self._fixed, False, self.plan.query.maximum)
        self._fill(plan.graph)

    @cached_property
    def pairs(self) -> Integers:
        """Tables and their adjoints: first cells, size. Empty if only the root has one."""
        query = self.plan.query
        if not (query.targets or query.counts):
            return _NO_PAIRS
        nodes = np.flatnonzero(self.adjoint >= 0)
        static, entries = self.tree.arrays[6], self.tree.arrays[8]
        return np.stack([self.base[nodes], static[nodes], self.adjoint[nodes], entries[nodes]], 1).astype(np.int64)

    def _assemble(self, calls: Integers, lanes: bool, maximum: bool, known: Any = None) -> tuple[Any, Any]:
        """Records of contractions, and their tables of offsets."""
        known = _NO_OFFSETS if known is None else known
        return _compiling().assemble(  # type: ignore[no-any-return]
            calls, self.tree.arrays, self.plan.scopes.sizes, lanes, maximum, known
        )

    def _fill(self, graph: FactorGraph) -> None:
        """Write the constants, and do what does not depend on the evidence."""
        kernels, plan = _kernels(), self.plan
        constants, taken, spread, widest = self._constants(graph, False)
        self.fold_shifts = np.zeros(len(self.fold_records), np.int64)
        if len(self.fold_records):
            taken += kernels.fold(self.fold_records, self.fold_index, constants, plan.query.maximum, self.fold_shifts)
        self.shift = plan.factor_shift + taken * _LN2
        self.constants = constants
        # Can entries vanish that matter? Are there tiny ones to begin with? Must all rows be done with logarithms? Also
        # for counts with tiny constants, since derivatives by these are beyond the range of floats.
        self.watch = bool(spread + plan.scopes.log_sizes.sum() > _SAFE)
        self.tiny = self.watch and bool(constants.min(initial=1.0, where=constants > 0.0) < 2.0**-_WIDEST)
        self.vanishing = (self.watch and widest > _WIDEST) or (self.tiny and plan.query.counts)
        self._logs: Array | None = None

    def _constants(self, graph: FactorGraph, logs: bool) -> tuple[Array, int, float, float]:
        """The tables of factors, or their logarithms, and what `fill_constants` says."""
        plan, scopes, tree = self.plan, self.plan.scopes, self.tree.arrays
        constants = np.zeros(self.n_constants)
        if not logs:
            constants[0] = 1.0
            for leaf in range(len(plan.factors) + len(plan.indicated), len(plan._leaves[2])):
                constants[self.base[leaf] : self.base[leaf] + int(tree[8][leaf])] = 1.0
        tables = [factor.table.ravel() for factor in graph.factors]
        pointers = np.zeros(len(tables) + 1, np.int64)
        np.cumsum([len(table) for table in tables], out=pointers[1:])
        found = _compiling().fill_constants(
            np.concatenate(tables) if tables else _NOTHING,
            pointers,
            scopes.pointers,
            scopes.members,
            plan.factors,
            tree,
            scopes.sizes,
            self.factor_start,
            logs,
            constants,
        )
        return constants, *found

    def _log_constants(self) -> Array:
        if self._logs is None:
            logs, *_ = self._constants(self.plan.graph, True)
            _kernels().fold_in_logs(self.fold_records, self.fold_index, logs, self.plan.query.maximum)
            self._logs = logs
        return self._logs

    def _form(self, lanes: bool) -> tuple[Any, Any, Any]:
        """The contractions up and down, and the tables of offsets."""
        records, index = self._assemble(
            np.concatenate([self._up, self._down]), lanes, self.plan.query.maximum, self._offsets
        )
        return records[: len(self._up)], records[len(self._up) :], index

    @cached_property
    def in_runs(self) -> tuple[Any, Any, Any]:
        """The program for one row."""
        return self._form(False)

    @cached_property
    def in_lanes(self) -> tuple[Any, Any, Any]:
        """The program for several rows side by side."""
        return self._form(True)

    @cached_property
    def lanes(self) -> int:
        """How many rows can be worked on at once."""
        n: int = _kernels().LANES
        return n if self.cells * 8 * n <= self.plan.lanes_bytes else 1

    @cached_property
    def lanes_from(self) -> int:
        """How many rows are better done at once than one by one."""
        if self.plan.lanes_from is not None:
            return self.plan.lanes_from
        return _LANES_FROM[self.cells * 8 * self.lanes > _CACHE_BYTES]

    def with_tables(self, plan: Plan) -> "_Program":
        """Return the same for other tables of the same shapes."""
        program = copy(self)
        program.plan = plan
        program._idle = []
        program._fill(plan.graph)
        return program

    @cached_property
    def steps(self) -> tuple[Any, Any, Any]:
        """How states are found from the root down: records, scopes with steps, tables of offsets."""
        return _compiling().descent(self.tree.arrays, self.base, self.plan.scopes.sizes)  # type: ignore[no-any-return]

    @cached_property
    def count_leaves(self) -> Any:
        """Where adjoints are added up: the largest tables that are the same for all rows, and slices."""
        plan, static = self.plan, self.tree.static
        loads = dict(zip(self.loading.tolist(), self.tables[1].tolist(), strict=True))
        entries, parent = self.tree.arrays[8], plan.parent
        records = []
        for node in np.flatnonzero(plan.needed).tolist():
            size = int(entries[node])
            if node in loads:
                _, _, table, start, first, last = loads[node]
                records.append((self.adjoint[node], size, table, start, first, last))
            elif static[node] and (parent[node] < 0 or not static[parent[node]]):
                records.append((self.adjoint[node], size, -1, self.base[node], 0, 0))
        return _records(records, 6)

    @cached_property
    def _unfolding(self) -> tuple[Any, Any, Any]:
        """The adjoints of what was done once: which of them, contractions, tables of offsets."""
        calls = _compiling().unfolding(self.tree.arrays, self.base)
        number = np.zeros(len(self.tree), np.int64)
        number[self._fixed[:, 1]] = np.arange(len(self._fixed))
        return number[calls[:, 1]], *self._assemble(calls, False, False)

    def spread(self, counts: Array, more: Array | None) -> list[Array]:
        """Turn derivatives by the constants into posterior tables of the factors, in their own order of axes.

        ``more``: what is to be added to these.
        """
        which, records, index = self._unfolding
        if len(self.constants):
            _kernels().unfold(records, self.fold_shifts[which], index, self.constants, counts)
        tables = []
        for number, factor in enumerate(self.plan.graph.factors):
            start, size = self.factor_start[number], factor.table.size
            table = self.constants[start : start + size] * counts[start : start + size]
            if more is not None:
                table += more[start : start + size]
            if self.tree.static[number]:
                axes = [factor.scope.index(variable) for variable in self.tree.scopes[number]]
                table = table.reshape([factor.table.shape[axis] for axis in axes]).transpose(np.argsort(axes))
            tables.append(np.array(table.reshape(factor.table.shape), order="C"))
        return tables

    def workspace(self, lanes: int) -> Array:
        """Return an arena on a boundary of 64 bytes, used before or new."""
        cells = self.cells * lanes
        with suppress(IndexError):
            arena = self._idle.pop()
            if len(arena) >= cells:
                return arena
        room = np.empty(cells + 16)
        start = -room.ctypes.data % 64 // 8
        return room[start : start + cells + 8]

    def infer(
        self,
        codes: Codes,
        soft: Array,
        log_evidence: Array,
        marginals: Array | None = None,
        walk: tuple[Array, Codes] | None = None,
        tally: tuple[Array, Array, list[tuple[int, int]]] | None = None,
        check: Callable[[Integers], NDArray[np.bool_]] | None = None,
    ) -> Array | None:
        """Run the kernel over all rows, on threads.

        ``walk``: random numbers and states, (row, draw, step) and (row, draw, variable). ``tally``: weights, sums for
        each segment of rows, the segments. ``check``: of rows with tiny entries, which are to be done again; for
        programs that do not find that out. Returns what is to be added to the sums, see `spread`.
        """
        table = np.empty((0, 0)) if marginals is None else marginals
        down = (*self.steps, *walk) if walk else _NO_WALK
        again = self.doubts(codes, soft, log_evidence, table, down, tally)
        rows = np.flatnonzero(again)
        if len(rows) and check is not None and not self.vanishing:
            rows = rows[check(rows)]
        return self._infer_in_logs(codes, soft, rows, log_evidence, table, down, tally) if len(rows) else None

    def doubts(
        self, codes: Codes, soft: Array, log_evidence: Array, table: Array, down: Any = None, tally: Any = None
    ) -> NDArray[np.bool_]:
        """Do what `infer` does, but rows that need logarithms: return which."""
        doubtful = self.tiny or self.vanishing
        again = np.full(len(codes), doubtful) if self.watch or len(soft) else _NO_FLAGS
        if not self.vanishing:
            self._infer(codes, soft, log_evidence, table, _NO_WALK if down is None else down, tally, again)
        return again

    def _infer_in_logs(
        self, codes: Codes, soft: Array, rows: Integers, log_evidence: Array, table: Array, down: Any, tally: Any
    ) -> Array | None:
        """Rows in which numbers would be lost."""
        *most, _, root = self._arrays(self.in_runs)
        added = None
        counts = _NO_LEAVES, _NO_CALLS, _NO_INDEX, _NOTHING, _NOTHING, _NOTHING
        if tally:
            added = np.zeros(self.n_constants)
            _, unfolding, index = self._unfolding
            counts = self.count_leaves, unfolding, index, np.empty(self.n_constants), tally[0], added
        kernels, maximum = _kernels(), self.plan.query.maximum
        arena = self.workspace(1)
        program = *most, self._log_constants(), root
        kernels.infer_in_logs(
            program, self.plan.factor_shift, codes, soft, rows, arena, maximum, log_evidence, table, down, counts
        )
        self._keep([arena], 1)
        return added

    def _infer(
        self,
        codes: Codes,
        soft: Array,
        log_evidence: Array,
        table: Array,
        down: Any,
        tally: tuple[Array, Array, list[tuple[int, int]]] | None,
        again: NDArray[np.bool_],
    ) -> None:
        kernels = _kernels()
        n, maximum = len(codes), self.plan.query.maximum
        leaves, weights = (self.count_leaves, tally[0]) if tally else (_NO_LEAVES, _NOTHING)
        lanes = self.lanes if n >= self.lanes_from else 1
        alone = self._arrays(self.in_runs)
        if n == 1 and tally is None:
            arena = self.workspace(1)
            work = arena, *_lane_state(1)
            counts = leaves, weights, _NOTHING
            kernels.infer_rows(
                alone,
                self.shift,
                codes,
                soft,
                0,
                1,
                work,
                maximum,
                log_evidence,
                table,
                down,
                counts,
                again,
                self.pairs,
            )
            self._keep([arena], 1)
            return
        together = self._arrays(self.in_lanes) if lanes > 1 else alone
        used = []

        def make_body() -> Callable[[int, int], None]:
            arena = self.workspace(lanes)
            used.append(arena)
            one, many = (arena, *_lane_state(1)), (arena, *_lane_state(lanes))

            def rows(start: int, stop: int, sums: Array) -> None:
                counts = leaves, weights, sums
                middle = stop if (stop - start) % lanes >= self.lanes_from else stop - (stop - start) % lanes
                for arrays, work, first, last in ((together, many, start, middle), (alone, one, middle, stop)):
                    if first < last:
                        kernels.infer_rows(
                            arrays,
                            self.shift,
                            codes,
                            soft,
                            first,
                            last,
                            work,
                            maximum,
                            log_evidence,
                            table,
                            down,
                            counts,
                            again,
                            self.pairs,
                        )

            def body(start: int, stop: int) -> None:
                if tally is None:
                    rows(start, stop, _NOTHING)
                else:
                    for segment in range(start, stop):
                        rows(*tally[2][segment], tally[1][segment])

            return body

        try:
            if tally is None:
                run_chunks(make_body, n, lanes, n * self.row_ns)
            else:
                run_chunks(make_body, len(tally[2]), 1, n * self.row_ns)
        finally:
            self._keep(used, lanes)

    def _keep(self, arenas: list[Array], lanes: int) -> None:
        """Fresh memory costs more than the work that is done in it."""
        if self.cells * lanes * 8 <= _KEPT_BYTES:
            self._idle.extend(arenas)
            del self._idle[get_num_threads() :]

    def _arrays(self, form: tuple[Any, Any, Any]) -> tuple[Any, ...]:
        forward, backward, index = form
        lambdas, loads, load_variables, outputs = self.tables
        return lambdas, loads, load_variables, forward, backward, outputs, index, self.constants, self._root

    @property
    def row_ns(self) -> float:
        """About how long a row takes by itself."""
        return self.plan.cost.operations * _NS_PER_OPERATION + 40 * len(self.tree)


def _lane_state(lanes: int) -> tuple[Integers, Array, Array, Array]:
    return np.zeros(lanes, np.int64), np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)


_NOTHING = np.empty(0)
_NO_FLAGS = np.empty(0, np.bool_)
_NO_CALLS = np.empty((0, 14), np.int64)
_NO_INDEX = np.empty(0, np.int32)
_NO_OFFSETS = np.empty((0, 3), np.int64), np.empty((0, 3), np.int64), 0
_FIRST = np.zeros(1, np.int64)
_NO_LEAVES = np.empty((0, 6), np.int64)
_NO_PAIRS = np.empty((0, 4), np.int64)
_NO_WALK = (
    np.empty((0, 12), np.int64),
    np.empty((0, 3), np.int64),
    np.empty(0, np.int32),
    np.empty((0, 0, 0)),
    np.empty((0, 0, 0), np.int32),
)


def _records(rows: Sequence[Sequence[int]], columns: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(-1, columns)


def _rebuild(
    graph: FactorGraph, limit: int, operation_limit: int, rounds: int | None, compiled: Iterable[tuple[int, ...]]
) -> "Engine":
    engine = Engine(graph, limit=limit, operation_limit=operation_limit, rounds=rounds)
    engine._pinned.update(compiled)
    return engine


class Engine:
    """Exact inference, for any evidence, in a product of factors over discrete variables.

    Evidence is an array (n, V) of codes, or (V,) for one row: the state of each variable, -1 or masked where it is
    missing; None is one row where all are. It need not be possible: log P(evidence) is -inf then, marginals are NaN.

    Results are the same, bit for bit, for any number of threads, and for a row alone or among others; those of
    `expected_counts` (a sum over rows) and `sample` for the same rows and the same generator.

    Parameters
    ----------
    graph : FactorGraph
    limit : int
        The most memory, in bytes, that a plan may need; each further thread needs up to as much again.
    operation_limit : int
        The most multiplications that a plan may need for its preparation and one row.
    rounds : int, optional
        How many times each rule looks for an order of elimination. By default as often as the size of the tables is
        worth, up to 24; but what is 100 times above a limit after one round, or 8 times after four, is given up.

    Raises
    ------
    EngineLimitError
        By all methods, if what they need is above a limit; nothing is allocated before that is known.

    Notes
    -----
    What is called P(evidence) is the sum, over all states of what is missing, of the product of all factors. In a
    Markov random field that is P(evidence) times the partition function.
    """

    def __init__(
        self, graph: FactorGraph, *, limit: int = 1 << 31, operation_limit: int = 1 << 36, rounds: int | None = None
    ) -> None:
        if rounds is not None and rounds < 1:
            raise ValueError(f"rounds must be at least 1, or None, got {rounds}")
        self.graph = graph
        self.limit = limit
        self.operation_limit = operation_limit
        self.rounds = rounds
        self._lanes_bytes = _LANES_BYTES
        self._lanes_from: int | None = None
        self._generic_operations = max(_GENERIC_OPERATIONS, _GENERIC_PER_VARIABLE * graph.n_variables)
        self._plans: OrderedDict[_Query, Plan] = OrderedDict()
        self._pinned: set[tuple[int, ...]] = set()
        self._lock = RLock()
        self._constant_sums: dict[tuple[int, int], float | None] = {}
        self._orders: OrderedDict[tuple[Any, ...], Elimination] = OrderedDict()

    def __reduce__(self) -> Any:
        return _rebuild, (self.graph, self.limit, self.operation_limit, self.rounds, tuple(sorted(self._pinned)))

    def with_tables(self, graph: FactorGraph) -> "Engine":
        """Return an engine for the same factors with other tables: what was compiled is not compiled again.

        Parameters
        ----------
        graph : FactorGraph
            Cardinalities and scopes must be the same, in the same order.

        Returns
        -------
        Engine
        """
        mine = self.graph
        same = mine.cardinalities == graph.cardinalities and len(mine.factors) == len(graph.factors)
        if not same or any(a.scope != b.scope for a, b in zip(mine.factors, graph.factors, strict=True)):
            raise ValueError("graph must have the cardinalities and scopes of the engine's graph")
        engine = Engine(graph, limit=self.limit, operation_limit=self.operation_limit, rounds=self.rounds)
        engine._lanes_bytes, engine._lanes_from = self._lanes_bytes, self._lanes_from
        engine._generic_operations = self._generic_operations
        engine._pinned = set(self._pinned)
        with self._lock:
            for query, plan in self._plans.items():
                if (other := plan.with_tables(graph)) is not None:
                    engine._plans[query] = other
        if "_generic" in self.__dict__:  # depends on the sizes alone
            engine.__dict__["_generic"] = self._generic
        engine._orders = self._orders.copy()
        return engine

    # ---- cost ------------------------------------------------------------------------------------------------------

    @cached_property
    def cost(self) -> Cost:
        """What all marginals cost when nothing is observed."""
        return self.forecast()

    def forecast(self, columns: Iterable[int] = (), targets: Iterable[int] | None = None) -> Cost:
        """What marginals cost when these columns are observed; never refused, and without touching memory."""
        return Plan(self, self._query(self._columns(columns, "columns"), self._targets(targets))).cost

    def compile(self, columns: Iterable[int] = (), targets: Iterable[int] | None = None) -> Cost:
        """Make the plan for rows in which exactly these columns are observed; from now on it answers them.

        Parameters
        ----------
        columns : iterable of int
            The variables that are observed.
        targets : iterable of int, optional
            Those whose marginals are wanted, all by default.

        Returns
        -------
        Cost
        """
        observed = self._columns(columns, "columns")
        plan = self._plan(self._query(observed, self._targets(targets)))
        self._pinned.add(observed)
        _ = plan.program.in_runs
        return plan.cost

    @cached_property
    def _scopes(self) -> Scopes:
        return Scopes(self.graph.cardinalities, [factor.scope for factor in self.graph.factors])

    def _elimination(self, plan: Plan) -> Elimination:
        """The order for a plan; all plans for the same variables have the same."""
        key = plan.query.sliced, tuple(plan._dropped)
        with self._lock:
            found = self._orders.get(key)
            if found is None:
                found = elimination(
                    self._scopes,
                    plan.factors,
                    plan.free,
                    self.rounds,
                    lambda order, states: self._excess(plan, order, states),
                )
                self._orders[key] = found
                if len(self._orders) > _KEPT_ORDERS:
                    self._orders.popitem(last=False)
            return found

    def _excess(self, plan: Plan, order: Integers, states: float) -> float:
        """How many times above a limit the least is that any query needs of this order."""
        if 64 * states < self.limit and 8 * states < self.operation_limit:
            return 0.0  # no need to look closer
        scopes, kernels = self._scopes, _compiling()
        none = np.empty(0, np.int64)
        leaves = kernels.leaves_of(scopes.pointers, scopes.members, plan.factors, plan.gone, none, plan.free)
        *_, work, entries = kernels.contract_tree(scopes.as_floats, *leaves[:3], order)
        return max(8 * float(entries.sum()) / self.limit, float(work.sum()) / self.operation_limit)

    def _columns(self, columns: Iterable[int], name: str) -> tuple[int, ...]:
        chosen = tuple(sorted({int(column) for column in columns}))
        if chosen and not (chosen[0] >= 0 and chosen[-1] < self.graph.n_variables):
            raise ValueError(f"{name} must be variables below {self.graph.n_variables}, got {chosen}")
        return chosen

    @cached_property
    def _every(self) -> tuple[int, ...]:
        return tuple(range(self.graph.n_variables))

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.array(self.graph.cardinalities, np.int64)

    @cached_property
    def _every_span(self) -> list[tuple[int, int]]:
        return list(pairwise(accumulate(self.graph.cardinalities, initial=0)))

    def _spans(self, variables: tuple[int, ...]) -> list[tuple[int, int]]:
        """Where the columns of each variable begin and end."""
        if variables is self._every:
            return self._every_span
        return list(pairwise(accumulate((self.graph.cardinalities[variable] for variable in variables), initial=0)))

    def _targets(self, targets: Iterable[int] | None) -> tuple[int, ...]:
        return self._every if targets is None else self._columns(targets, "targets")

    def _query(
        self, sliced: tuple[int, ...], targets: tuple[int, ...], indicated: tuple[int, ...] = (), **rest: bool
    ) -> _Query:
        return _Query(sliced, indicated, targets, **rest)

    def _plan(self, query: _Query) -> Plan:
        with self._lock:
            plan = self._plans.get(query)
            if plan is None:
                plan = Plan(self, query)
                self._check(plan.cost)
                self._plans[query] = plan
                self._forget()
            else:
                self._plans.move_to_end(query)
            return plan

    def _forget(self) -> None:
        """Let go of the plans that were not used for longest, but those asked for."""
        others = [query for query in self._plans if query.sliced not in self._pinned][:-1]
        need = sum(plan.cost.bytes for plan in self._plans.values())
        for number, query in enumerate(others):
            if len(others) - number < _KEPT_PLANS and need <= self.limit:
                break
            need -= self._plans.pop(query).cost.bytes

    def _check(self, cost: Cost) -> None:
        for name, need, limit, unit in (
            ("limit", cost.bytes, self.limit, "bytes"),
            ("operation_limit", cost.operations + cost.preparation, self.operation_limit, "multiplications"),
        ):
            if need > limit:
                raise EngineLimitError(
                    f"exact inference would need {_large(need)} {unit}, above {name}={_large(limit)} "
                    f"(the cliques have up to {cost.width + 1} variables and {_large(cost.states)} states together); "
                    f"observe more variables, raise {name}, or use an approximation: loopy belief propagation, "
                    "mean field, Gibbs sampling or likelihood weighting",
                    cost,
                )

    def _prune(self, query: _Query) -> tuple[list[tuple[int, int]], float]:
        """Variables that sum out to a constant, with the factor that goes with each; the log of all constants."""
        if query.maximum or query.counts or query.traced:
            return [], 0.0
        graph = self.graph
        kept = {*query.sliced, *query.indicated, *query.targets}
        if len(kept) == graph.n_variables:
            return [], 0.0
        holders: list[set[int]] = [set() for _ in range(graph.n_variables)]
        for number, factor in enumerate(graph.factors):
            for variable in factor.scope:
                holders[variable].add(number)
        waiting = [variable for variable in range(graph.n_variables) if variable not in kept]
        dropped = []
        shift = 0.0
        while waiting:
            variable = waiting.pop()
            if len(holders[variable]) != 1:
                continue
            (number,) = holders[variable]
            total = self._constant_sum(number, variable)
            if total is None:
                continue
            dropped.append((variable, number))
            shift += log(total)
            for other in graph.factors[number].scope:
                holders[other].discard(number)
                if other not in kept and other != variable:
                    waiting.append(other)
        return dropped, shift

    def _constant_sum(self, number: int, variable: int) -> float | None:
        """What the factor sums to over a variable, if that is the same, to rounding, for all states of the others."""
        key = number, variable
        if key not in self._constant_sums:
            factor = self.graph.factors[number]
            with np.errstate(over="ignore"):
                sums = factor.table.sum(axis=factor.scope.index(variable))
            low, high = float(sums.min(initial=np.inf)), float(sums.max(initial=0.0))
            rounding = factor.table.shape[factor.scope.index(variable)] * np.finfo(np.float64).eps
            constant = 0.0 < low <= high < np.inf and high - low <= 2 * rounding * high
            middle = 1.0 if abs(low - 1) <= rounding else low
            self._constant_sums[key] = middle if constant else None
        return self._constant_sums[key]

    # ---- evidence --------------------------------------------------------------------------------------------------

    def _codes(self, evidence: ArrayLike | None) -> Codes:
        n_variables = self.graph.n_variables
        if evidence is None:
            return np.full((1, n_variables), -1, np.int32)
        array = np.asarray(evidence)
        if array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"evidence must hold integers (-1 where a value is missing), got dtype {array.dtype}")
        hidden = None
        if isinstance(evidence, np.ma.MaskedArray):
            hidden = np.ma.getmaskarray(evidence)
            array = np.where(hidden, 0, array)
        if array.ndim == 1:
            array = array[None]
        if array.ndim != 2 or array.shape[1] != n_variables:
            raise ValueError(f"evidence must have shape (n, {n_variables}), got {np.shape(evidence)}")
        if len(array) and n_variables:
            low, high = (array[0], array[0]) if len(array) == 1 else (array.min(axis=0), array.max(axis=0))
            wrong = (low < -1) | (high >= self._sizes)
            if wrong.any():
                bad = np.flatnonzero(wrong)
                variable = int(bad[0])
                cardinality = self.graph.cardinalities[variable]
                row = int(np.flatnonzero((array[:, variable] < -1) | (array[:, variable] >= cardinality))[0])
                raise ValueError(
                    f"evidence of variable {variable} must be below {cardinality}, or -1 where it is missing, "
                    f"got {int(array[row, variable])} in row {row}"
                )
        codes = np.ascontiguousarray(array, np.int32)
        return codes if hidden is None else np.where(hidden, np.int32(-1), codes)

    def _soft(self, soft: Any, n: int) -> tuple[Array, Array, tuple[int, ...]]:
        """Likelihoods of all states (n, sum of cardinalities), logs of what was taken out, variables that have some."""
        if soft is None:
            return np.empty((0, 0)), np.zeros(0), ()
        cardinalities = self.graph.cardinalities
        starts = np.cumsum([0, *cardinalities])
        given = dict(soft.items() if hasattr(soft, "items") else enumerate(soft))
        weights = np.ones((n, int(starts[-1])))
        shift = np.zeros(n)
        used = []
        for variable, likelihood in sorted(given.items()):
            if likelihood is None:
                continue
            (variable,) = self._columns([variable], "the variables of soft")
            size = cardinalities[variable]
            array = np.asarray(as_floats(likelihood, f"soft[{variable}]"), np.float64)
            if array.ndim == 1:
                array = array[None]
            if array.shape not in ((n, size), (1, size)):
                raise ValueError(f"soft[{variable}] must have shape ({n}, {size}) or ({size},), got {array.shape}")
            if not (np.isfinite(array).all() and (array >= 0).all()):
                raise ValueError(f"soft[{variable}] must be finite and not negative")
            _, exponent = np.frexp(array.max(axis=1, keepdims=True))
            weights[:, starts[variable] : starts[variable + 1]] = np.ldexp(array, -exponent)
            shift += exponent[:, 0] * _LN2
            used.append(variable)
        return weights, shift, tuple(used)

    @cached_property
    def _generic(self) -> bool:
        """Whether indicators for all variables are cheap enough to answer every pattern."""
        plan = Plan(self, self._query((), self._every, self._every))
        cost = plan.cost
        if cost.operations > self._generic_operations or cost.bytes > self.limit:
            return False
        with self._lock:
            self._plans[plan.query] = plan
        return True

    def _groups(
        self, codes: Codes, soft_variables: tuple[int, ...], targets: tuple[int, ...], **rest: bool
    ) -> Iterable[tuple[Plan, NDArray[np.int64] | None]]:
        """Plans, and the rows that each answers (None: all)."""
        every = self._every
        if self._generic and not self._pinned:
            yield self._plan(self._query((), targets, every, **rest)), None
            return
        seen = codes >= 0
        if soft_variables:
            seen[:, list(soft_variables)] = False  # these have indicators
        packed = np.packbits(seen, axis=1)
        if len(seen) == 1 or (len(packed) and (packed == packed[0]).all()):
            first, inverse = _FIRST, None
        else:
            keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
            _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        generic_rows = []
        for group, row in enumerate(first):
            pattern = tuple(np.flatnonzero(seen[row]).tolist())
            rows = None if inverse is None else np.flatnonzero(inverse == group)
            if self._generic and pattern not in self._pinned:
                if rows is None:
                    yield self._plan(self._query((), targets, every, **rest)), None
                else:
                    generic_rows.append(rows)
                continue
            yield self._plan(self._query(pattern, targets, soft_variables, **rest)), rows
        if generic_rows:
            yield self._plan(self._query((), targets, every, **rest)), np.sort(np.concatenate(generic_rows))

    # ---- queries ---------------------------------------------------------------------------------------------------

    def marginals(
        self, evidence: ArrayLike | None = None, soft: Any = None, targets: Iterable[int] | None = None
    ) -> tuple[list[Array], Array]:
        """Return the distribution of each variable given each row of evidence.

        Parameters
        ----------
        evidence : array-like of int (n, V) or (V,), optional
        soft : mapping or sequence, optional
            For a variable: an array (n, cardinality), or (cardinality,) for all rows, of the likelihood of what was
            seen in each of its states. None where there is none.
        targets : iterable of int, optional
            The variables that are wanted; all by default.

        Returns
        -------
        marginals : list of arrays (n, cardinality)
            One for each target, in their order. NaN where the evidence is impossible.
        log_evidence : array (n,)
        """
        order = self._every if targets is None else list(targets)
        chosen = self._targets(None if targets is None else order)
        table, log_evidence = self._infer(self._codes(evidence), soft, chosen)
        parts = [table[:, start:stop] for start, stop in self._spans(chosen)]
        if chosen is self._every:
            return parts, log_evidence
        part_of = dict(zip(chosen, parts, strict=True))
        return [part_of[variable] for variable in order], log_evidence

    def log_evidence(self, evidence: ArrayLike | None = None, soft: Any = None) -> Array:
        """Return log P(evidence) of each row, -inf where it is impossible; see `marginals`."""
        return self._infer(self._codes(evidence), soft, ())[1]

    def _check_of(self, plan: Plan, codes: Codes, weights: Array) -> Callable[[Integers], NDArray[np.bool_]]:
        """For queries without adjoints: ask the one for all marginals. If that is too large, nothing is done again."""
        query = replace(plan.query, targets=self._every, traced=False)

        def check(rows: Integers) -> NDArray[np.bool_]:
            try:
                program = self._plan(query).program
            except EngineLimitError:
                return np.zeros(len(rows), np.bool_)
            table = np.empty((len(rows), self._every_span[-1][1]))
            given = weights[rows] if len(weights) else weights
            return program.doubts(codes[rows], given, np.empty(len(rows)), table)

        return check

    def _infer(self, codes: Codes, soft: Any, targets: tuple[int, ...]) -> tuple[Array, Array]:
        if soft is None and (distinct := _distinct(codes)) is not None:
            first, kind = distinct
            table, log_evidence = self._infer(codes[first], None, targets)
            return table[kind], log_evidence[kind]
        weights, shift, soft_variables = self._soft(soft, len(codes))
        spans = self._spans(targets)
        table = np.empty((len(codes), spans[-1][1] if spans else 0))
        log_evidence = np.empty(len(codes))
        for plan, rows in self._groups(codes, soft_variables, targets):
            if rows is None:
                check = None if targets else self._check_of(plan, codes, weights)
                plan.program.infer(codes, weights, log_evidence, table, check=check)
            else:
                part, part_log = np.empty((len(rows), table.shape[1])), np.empty(len(rows))
                part_codes, part_weights = codes[rows], weights[rows] if len(weights) else weights
                check = None if targets else self._check_of(plan, part_codes, part_weights)
                plan.program.infer(part_codes, part_weights, part_log, part, check=check)
                table[rows], log_evidence[rows] = part, part_log
        return table, log_evidence + shift if soft_variables else log_evidence

    def mpe(self, evidence: ArrayLike | None = None, soft: Any = None) -> tuple[NDArray[np.int64], Array]:
        """Return the most probable states of all variables given each row, and the log of their value.

        Parameters
        ----------
        evidence, soft
            See `marginals`.

        Returns
        -------
        states : int array (n, V)
            The evidence with what is missing filled in; ties go to states that depend only on the row. Where the
            evidence is impossible, missing values stay -1.
        log_value : array (n,)
            The log of the product of all factors there.
        """
        codes = self._codes(evidence)
        kind = None
        if soft is None and (distinct := _distinct(codes)) is not None:
            first, kind = distinct
            codes = codes[first]
        states, log_value = self._trace(codes, soft, 1, None)
        found = states[:, 0].astype(np.int64)
        return (found, log_value) if kind is None else (found[kind], log_value[kind])

    def sample(
        self, n: int, evidence: ArrayLike | None = None, random_state: Any = None, soft: Any = None
    ) -> NDArray[np.int64]:
        """Draw from the distribution of all variables given the evidence, exactly and independently.

        Parameters
        ----------
        n : int
            Samples for each row of evidence.
        evidence, soft
            See `marginals`.
        random_state : None, int, Generator or RandomState

        Returns
        -------
        int array (n, V), or (rows, n, V) if the evidence has two axes

        Raises
        ------
        ValueError
            If a row is impossible.
        """
        codes = self._codes(evidence)
        if isinstance(n, bool) or not hasattr(n, "__index__") or n.__index__() < 0:
            raise ValueError(f"n must be an integer of at least 0, got {n!r}")
        rng = as_generator(random_state)
        states, log_value = self._trace(codes, soft, n.__index__(), rng)
        impossible = np.flatnonzero(log_value == -np.inf)
        if len(impossible):
            raise ValueError(f"the evidence in row {int(impossible[0])} has probability 0: there is nothing to draw")
        samples = states.astype(np.int64)
        return samples[0] if evidence is None or np.ndim(evidence) < 2 else samples

    def _trace(self, codes: Codes, soft: Any, n_draws: int, rng: np.random.Generator | None) -> tuple[Codes, Array]:
        weights, shift, soft_variables = self._soft(soft, len(codes))
        states = np.empty((len(codes), n_draws, self.graph.n_variables), np.int32)
        log_value = np.empty(len(codes))
        for plan, rows in self._groups(codes, soft_variables, (), maximum=rng is None, traced=rng is not None):
            program = plan.program
            n_steps = len(program.steps[0])
            # each row's tables are made again for every so many draws, so that draws for one row go to several threads
            worth = int(4 * program.row_ns / (_DRAW_NS * (n_steps + 1)))
            size = min(n_draws, max(_DRAWS, worth))
            blocks = max(1, -(-n_draws // max(1, size)))
            chosen = np.repeat(np.arange(len(codes)) if rows is None else rows, blocks)
            firsts = np.tile(np.arange(blocks) * size, len(chosen) // blocks)
            at_a_time = max(1, _RANDOM_NUMBERS // max(1, size * (n_steps + 1)))
            for start in range(0, len(chosen), at_a_time):
                block, first = chosen[start : start + at_a_time], firsts[start : start + at_a_time]
                shape = len(block), size, n_steps
                uniforms = np.empty((*shape[:2], 0)) if rng is None else rng.random(shape)
                part = np.empty((*shape[:2], self.graph.n_variables), np.int32)
                part_log = np.empty(len(block))
                part_weights = weights[block] if len(weights) else weights
                check = self._check_of(plan, codes[block], part_weights)
                program.infer(codes[block], part_weights, part_log, walk=(uniforms, part), check=check)
                log_value[block] = part_log
                if blocks == 1:
                    states[block] = part
                else:
                    for i, row in enumerate(block):
                        kept = min(size, n_draws - int(first[i]))
                        states[row, first[i] : first[i] + kept] = part[i, :kept]
        return states, log_value + shift if soft_variables else log_value

    def expected_counts(
        self, evidence: ArrayLike | None = None, weights: ArrayLike | None = None, soft: Any = None
    ) -> tuple[list[Array], Array]:
        """Return the sum over rows of the posterior distribution of each factor's variables.

        What EM needs, and the derivative of the weighted sum of log P(evidence) by the log of each entry of a table.

        Parameters
        ----------
        evidence, soft
            See `marginals`.
        weights : array-like (n,), optional
            The weight of each row; 1 by default.

        Returns
        -------
        counts : list of arrays
            One for each factor, of the shape of its table.
        log_evidence : array (n,)

        Raises
        ------
        ValueError
            If a row whose weight is not 0 is impossible.
        """
        codes = self._codes(evidence)
        given = as_weights(weights, len(codes), "weights")
        row_weights = np.ones(len(codes)) if given is None else np.ascontiguousarray(given)
        if soft is None and (distinct := _distinct(codes)) is not None:
            first, kind = distinct
            counts, log_evidence = self._counts(codes[first], np.bincount(kind, row_weights).astype(np.float64), None)
            log_evidence = log_evidence[kind]
        else:
            counts, log_evidence = self._counts(codes, row_weights, soft)
        impossible = np.flatnonzero((log_evidence == -np.inf) & (row_weights > 0))
        if len(impossible):
            raise ValueError(f"the evidence in row {int(impossible[0])} has probability 0: it has no posterior")
        return counts, log_evidence

    def _counts(self, codes: Codes, row_weights: Array, soft: Any) -> tuple[list[Array], Array]:
        weights, shift, soft_variables = self._soft(soft, len(codes))
        counts = [np.zeros(factor.table.shape) for factor in self.graph.factors]
        log_evidence = np.empty(len(codes))
        for plan, rows in self._groups(codes, soft_variables, (), counts=True):
            program = plan.program
            chosen = np.arange(len(codes)) if rows is None else rows
            cuts = segments(len(chosen), _kernels().LANES, program.n_constants * 8, program.row_ns)
            sums = np.zeros((len(cuts), program.n_constants))
            part_log = np.empty(len(chosen))
            part_weights = weights[chosen] if len(weights) else weights
            more = program.infer(codes[chosen], part_weights, part_log, tally=(row_weights[chosen], sums, cuts))
            log_evidence[chosen] = part_log
            total = np.zeros(program.n_constants)
            for one in sums:
                total += one
            for count, table in zip(counts, program.spread(total, more), strict=True):
                count += table
        return counts, log_evidence + shift if soft_variables else log_evidence


def _distinct(codes: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The first of each kind of row, and the kind of each row; None if all differ."""
    if len(codes) < 2:
        return None
    if codes.shape[1] == 0:
        return np.zeros(1, np.int64), np.zeros(len(codes), np.int64)
    multipliers = np.random.default_rng(0).integers(1, 2**62, codes.shape[1], np.uint64) * np.uint64(2)
    hashes = codes.astype(np.uint64) @ (multipliers + np.uint64(1))
    _, first, kind = np.unique(hashes, return_index=True, return_inverse=True)
    if len(first) == len(codes):
        return None
    if not np.array_equal(codes[first][kind], codes):  # two rows with one hash
        _, first, kind = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    return first, kind.ravel()


def _large(number: int) -> str:
    return str(number) if number < 10**6 else f"{number:.3g}"
