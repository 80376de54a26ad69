"""Approximate inference by messages: loopy belief propagation, TRW-S, mean field."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from fastgen._kernels import _messages as kernels
from fastgen._kernels.jit import message_passing as kernel
from fastgen._parallel import Body, run_chunks
from fastgen._validation import Array, as_generator, check_choice, check_number
from fastgen.graphical._factors import FactorGraph

__all__ = [
    "BeliefPropagationResult",
    "MeanFieldResult",
    "TreeReweightedResult",
    "belief_propagation",
    "mean_field",
    "trw_s",
]

_SCHEDULES = "flooding", "sequential", "residual"
_COMPARE = 4
"""Sweeps of pairwise graphs after which messages are compared with the ones before."""
_ALIKE = 32
"""Variables with the same number of neighbours and the same tables that are worth a group of their own."""
_FEW_TABLES = 16
_MOST_BYTES = 1 << 30
"""For tables of variables that are not alike; above, factors are taken one by one."""
_PART_NS, _SWEEP_NS, _CALL_NS = 5e3, 2e4, 5e7
"""What a thread does at a time; sweeps that are worth two threads; what is done between looks at the keyboard."""


@dataclass(frozen=True)
class BeliefPropagationResult:
    """What belief propagation found."""

    marginals: list[Array]
    """Of each variable; with ``maximum`` max-marginals, whose largest entry is 1."""
    states: NDArray[np.int64]
    """The likeliest state of each variable by itself: with ``maximum``, an assignment (ties may contradict)."""
    log_z: float
    """Bethe's approximation of the log of the sum over all states that agree with the evidence; NaN for ``maximum``."""
    converged: bool
    exact: bool
    """Whether the graph is a forest and messages have converged."""
    n_iter: int
    """Sweeps; with the residual schedule, updates of single factors."""
    residual: float
    """Largest change of a message in the last iteration, where the largest entry of a message is 1."""


@dataclass(frozen=True)
class MeanFieldResult:
    """What mean field found."""

    marginals: list[Array]
    states: NDArray[np.int64]
    elbo: float
    """A lower bound of the log of the sum over all states that agree with the evidence."""
    history: Array
    """`elbo` after each sweep; never falls."""
    converged: bool
    n_iter: int
    exact: bool = False


@dataclass(frozen=True)
class TreeReweightedResult:
    """What TRW-S found."""

    states: NDArray[np.int64]
    energy: float
    """-log of the product of all factors at `states`."""
    lower_bound: float
    """No states have a lower energy."""
    converged: bool
    n_iter: int
    history: Array
    """`lower_bound` after each iteration."""

    @property
    def exact(self) -> bool:
        """Whether the bound proves that no states are better."""
        return self.energy - self.lower_bound <= 1e-9 * max(1.0, abs(self.energy))


class _Graph:
    """A factor graph given evidence, as kernels read it: factors over free variables, the others sliced."""

    def __init__(self, graph: FactorGraph, evidence: ArrayLike | None) -> None:
        V = graph.n_variables
        codes = np.full(V, -1) if evidence is None else np.asarray(evidence)
        if codes.shape != (V,) or codes.dtype.kind not in "iu":
            raise ValueError(f"evidence must be integers of shape ({V},), got {codes.dtype} {codes.shape}")
        sizes = np.array(graph.cardinalities, np.int64)
        wrong = np.flatnonzero((codes < -1) | (codes >= sizes))
        if len(wrong):
            v = int(wrong[0])
            raise ValueError(
                f"evidence of variable {v} must be below {sizes[v]}, or -1 where it is missing, got {codes[v]}"
            )
        self.codes = codes.astype(np.int64)
        self.free = np.flatnonzero(self.codes < 0)
        number = np.full(V, -1)
        number[self.free] = np.arange(len(self.free))
        self.cardinality = sizes[self.free]
        self.log_constant = 0.0
        self.scopes: list[tuple[int, ...]] = []
        self.tables: list[Array] = []
        for factor in graph.factors:
            table = factor.table[tuple(int(self.codes[v]) if self.codes[v] >= 0 else slice(None) for v in factor.scope)]
            scope = tuple(int(number[v]) for v in factor.scope if number[v] >= 0)
            largest = float(table.max(initial=0.0))
            if largest <= 0.0:
                raise ValueError(f"the evidence is impossible: the factor of scope {factor.scope} is 0 given it")
            if scope:
                self.scopes.append(scope)
                self.tables.append(np.asarray(table))
            else:
                self.log_constant += float(np.log(largest))

    def layout(self, extra: Sequence[int] = ()) -> None:
        """Number the sockets; `extra`: variables that get a factor of ones."""
        scopes = [*self.scopes, *((v,) for v in extra)]
        tables = [*self.tables, *(np.ones(int(self.cardinality[v])) for v in extra)]
        arity = np.array([len(scope) for scope in scopes], np.int64)
        self.first = np.concatenate([[0], np.cumsum(arity)]).astype(np.int64)
        self.variable = np.array([v for scope in scopes for v in scope], np.int64)
        self.factor_of = np.repeat(np.arange(len(scopes)), arity)
        self.size = np.array([table.size for table in tables], np.int64)
        self.offset = np.cumsum(self.size) - self.size
        self.table = np.concatenate([np.zeros(0), *(table.ravel() for table in tables)])
        widths = self.cardinality[self.variable]
        self.place = np.cumsum(widths) - widths
        self.n_messages = int(widths.sum())
        order = np.argsort(self.variable, kind="stable")
        self.sockets = order.astype(np.int64)
        self.starts = np.searchsorted(self.variable[order], np.arange(len(self.free) + 1)).astype(np.int64)
        self.widest = int(max(np.add.reduceat(widths, self.first[:-1]), default=1)) if len(scopes) else 1
        self.deepest = int(max(np.diff(self.starts).max(initial=1), arity.max(initial=1)))

    @property
    def factor_arguments(self) -> tuple[Any, ...]:
        return (
            self.first, self.variable, self.cardinality, self.offset, self.size, self.table, self.place,
        )  # fmt: skip

    def workspace(self) -> tuple[Any, ...]:
        return np.zeros(self.deepest, np.int64), np.empty(self.deepest), np.empty(self.widest)

    def bare(self) -> list[int]:
        """Variables in no factor."""
        used = set().union(*self.scopes) if self.scopes else set()
        return [v for v in range(len(self.free)) if v not in used]

    def forest(self) -> bool:
        """Whether no two factors and variables are joined by two paths."""
        parent = list(range(len(self.free) + len(self.scopes)))

        def root(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for f, scope in enumerate(self.scopes):
            for v in scope:
                a, b = root(v), root(len(self.free) + f)
                if a == b:
                    return False
                parent[a] = b
        return True

    def whole(self, marginals: Sequence[Array], sizes: Sequence[int]) -> tuple[list[Array], NDArray[np.int64]]:
        """Marginals and states of all variables, from those of the free ones."""
        states = self.codes.copy()
        tables = [np.eye(size)[max(code, 0)] for size, code in zip(sizes, self.codes, strict=True)]
        for v, table in zip(self.free, marginals, strict=True):
            tables[v] = table
            states[v] = int(table.argmax())
        return tables, states


# ---- belief propagation ----------------------------------------------------------------------------------------------


def belief_propagation(
    graph: FactorGraph,
    evidence: ArrayLike | None = None,
    *,
    maximum: bool = False,
    damping: float = 0.0,
    schedule: str = "flooding",
    max_iter: int = 200,
    tol: float = 1e-6,
    n_threads: int | None = None,
) -> BeliefPropagationResult:
    """Loopy belief propagation: sums, or maxima, of products.

    Parameters
    ----------
    graph : FactorGraph
    evidence : integer array (V,), optional
        The state of each variable, -1 where it is not observed.
    maximum : bool
        Max-product, for the most probable states, instead of marginals.
    damping : float
        Share of the old message in a new one, 0 to below 1.
    schedule : {"flooding", "sequential", "residual"}
        All messages at once, from those before; factor after factor, with the latest; or the factor first whose
        messages would change most (Elidan, McGraw, Koller 2006).
    max_iter : int
        Sweeps over all factors.
    tol : float
        Messages whose largest entry is 1 have converged when none changes by more.
    n_threads : int, optional
        For flooding. The result does not depend on it.

    Returns
    -------
    BeliefPropagationResult

    Raises
    ------
    ValueError
        If the evidence is impossible, or messages contradict each other.

    Notes
    -----
    A sweep costs O(arity size) for a factor with a table of this size. Flooding in pairwise graphs whose variables have
    the same number of states is far faster: it does many variables at a time, and compares messages with those
    before after every fourth sweep only (after each, if they are damped).

    References
    ----------
    F. R. Kschischang, B. J. Frey, H.-A. Loeliger, Factor graphs and the sum-product algorithm, 2001.
    J. S. Yedidia, W. T. Freeman, Y. Weiss, Constructing free-energy approximations, 2005 (log Z).
    """
    check_choice(schedule, "schedule", _SCHEDULES)
    _check_options(damping, max_iter, tol)
    model = _Graph(graph, evidence)
    model.layout(extra=model.bare())
    to_factor, to_variable = np.ones(model.n_messages), np.ones(model.n_messages)
    for f, scope in enumerate(model.scopes):
        if len(scope) == 1:  # what a factor of one variable says never changes
            begin = model.place[model.first[f]]
            to_variable[begin : begin + model.size[f]] = model.tables[f] / model.tables[f].max()
    variables = model.sockets, model.starts, model.cardinality, model.place
    n_factors = len(model.offset)
    pairs = _Pairs.of(model) if schedule == "flooding" else None
    change, n_iter = 0.0, 0
    if schedule == "residual":
        n_iter, change = kernel.residual(
            *model.factor_arguments, model.sockets, model.starts, model.factor_of, maximum, float(damping),
            *model.workspace(), to_factor, to_variable, max_iter * max(1, n_factors), float(tol),
        )  # fmt: skip
        _check_alive(change)
    elif pairs is not None:
        messages, n_iter, change = pairs.run(maximum, float(damping), max_iter, tol, n_threads)
        binary = [f for f, scope in enumerate(model.scopes) if len(scope) == 2]
        places = model.place[model.first[binary][:, None] + np.array([1, 0])]  # along an edge comes to its second end
        to_variable[places.reshape(-1, 1) + np.arange(pairs.K)] = messages
    else:
        for _ in range(max_iter):
            n_iter += 1
            if schedule == "sequential":
                change = kernel.sequential(
                    *model.factor_arguments, model.sockets, model.starts, maximum, float(damping), *model.workspace(),
                    to_factor, to_variable,
                )  # fmt: skip
            else:
                change = _flood(model, maximum, float(damping), to_factor, to_variable, n_threads)
            _check_alive(change)
            if change <= tol:
                break
    if kernel.all_variables(0, len(model.free), *variables, to_variable, np.empty(model.deepest), to_factor):
        _check_alive(-1.0)
    beliefs = []
    for v in range(len(model.free)):
        belief = np.ones(int(model.cardinality[v]))
        for socket in model.sockets[model.starts[v] : model.starts[v + 1]]:
            belief *= to_variable[model.place[socket] : model.place[socket] + len(belief)]
        if not belief.max() > 0:
            _check_alive(-1.0)
        beliefs.append(belief / (belief.max() if maximum else belief.sum()))
    log_z = np.nan
    if not maximum:
        log_z = model.log_constant + kernel.bethe(
            *model.factor_arguments, model.sockets, model.starts, *model.workspace(), to_factor, to_variable
        )
    marginals, states = model.whole(beliefs, graph.cardinalities)
    converged = bool(change <= tol)
    return BeliefPropagationResult(
        marginals, states, float(log_z), converged, converged and model.forest(), int(n_iter), float(change)
    )


def pairwise_belief_propagation(
    unary: Array,
    edges: NDArray[np.int64],
    tables: Array,
    *,
    maximum: bool = False,
    damping: float = 0.0,
    max_iter: int = 200,
    tol: float = 1e-6,
    n_threads: int | None = None,
) -> BeliefPropagationResult | None:
    """`belief_propagation` with flooding for a model that is given as arrays; None if that is not the way to do it.

    It is not if there are no edges, or if their tables take too much memory: see `_Pairs.fits`.

    Parameters
    ----------
    unary : array (V, K)
        Logarithms of the nodes' potentials; -inf forbids a state.
    edges : int array (m, 2)
    tables : array (1, K, K) or (m, K, K)
        Logarithms of the edges' potentials.
    maximum, damping, max_iter, tol, n_threads
        See `belief_propagation`.
    """
    _check_options(damping, max_iter, tol)
    V = len(unary)
    if not len(edges):
        return None
    numbers: dict[bytes, int] = {}  # far faster than np.unique(axis=0)
    kind = np.array([numbers.setdefault(table.tobytes(), len(numbers)) for table in tables])
    different = tables[np.unique(kind, return_index=True)[1]]
    kind = np.broadcast_to(kind, (len(edges),))
    tops, peaks = unary.max(axis=1), different.max(axis=(1, 2))
    _check_alive(0.0 if (tops > -np.inf).all() and (peaks > -np.inf).all() else -1.0)
    pairs = _Pairs(np.exp(unary - tops[:, None]), edges, np.exp(different - peaks[:, None, None]), kind)
    if not pairs.fits:
        return None
    messages, n_iter, change = pairs.run(maximum, float(damping), max_iter, tol, n_threads)
    beliefs, sent = pairs.unary.copy(), np.empty_like(messages)
    for group in pairs.groups:
        inside = messages[group.halves.T ^ 1]  # (slots, nodes, K)
        product = pairs.unary[group.nodes]
        for told, halves in zip(inside, group.halves.T, strict=True):
            sent[halves] = product
            product *= told
        beliefs[group.nodes] = product
        product = inside[-1]
        for told, halves in zip(inside[-2::-1], group.halves.T[-2::-1], strict=True):
            sent[halves] *= product
            product *= told
    total = beliefs.sum(axis=1)
    _check_alive(float(total.min()) or -1.0)
    log_z = np.nan
    if not maximum:  # Bethe: sums over nodes and edges, less those over the ends of edges: what all say of these
        log_total, degree = np.log(total), np.bincount(edges.ravel(), minlength=V)
        both = _products(sent, pairs.tables, kind)
        log_z = float(tops.sum() + peaks[kind].sum() + log_total @ (1 - degree) + np.log(both).sum())
    graph: Any = csr_array((np.ones(len(edges)), edges.T), shape=(V, V))
    forest = len(edges) == V - connected_components(graph, directed=False)[0]
    beliefs /= beliefs.max(axis=1, keepdims=True) if maximum else total[:, None]
    converged = change <= tol
    return BeliefPropagationResult(
        list(beliefs), beliefs.argmax(axis=1), log_z, converged, converged and forest, n_iter, change
    )


def _products(sent: Array, tables: Array, kind: NDArray[np.int64]) -> Array:
    """The sum over the states of both ends of each edge."""
    if len(tables) > _FEW_TABLES:
        return np.asarray(np.einsum("ex,exy,ey->e", sent[0::2], tables[kind], sent[1::2]))
    both = np.empty(len(kind))
    for number, table in enumerate(tables):
        of = np.flatnonzero(kind == number)
        both[of] = np.einsum("ey,ey->e", sent[2 * of] @ table, sent[2 * of + 1])
    return both


def _check_options(damping: float, max_iter: int, tol: float) -> None:
    check_number(max_iter, "max_iter", Integral, 1)
    check_number(tol, "tol", Real, 0)
    check_number(damping, "damping", Real, 0)
    if damping >= 1:
        raise ValueError(f"damping must be below 1, got {damping!r}")


def _check_alive(change: float) -> None:
    if change < 0:
        raise ValueError("the evidence is impossible: what the factors say of a variable leaves no state")


def _flood(
    model: _Graph, maximum: bool, damping: float, to_factor: Array, to_variable: Array, n_threads: int | None
) -> float:
    changes: list[float] = []

    def to_factors() -> Body:
        before = np.empty(model.deepest)

        def body(start: int, stop: int) -> None:
            if kernel.all_variables(
                start, stop, model.sockets, model.starts, model.cardinality, model.place, to_variable, before, to_factor
            ):
                changes.append(-1.0)

        return body

    def to_variables() -> Body:
        work = model.workspace()

        def body(start: int, stop: int) -> None:
            changes.append(
                kernel.flood(
                    start, stop, *model.factor_arguments, to_factor, maximum, damping, *work, to_variable
                )
            )  # fmt: skip

        return body

    run_chunks(to_factors, len(model.free), 64, 4.0 * model.n_messages, n_threads)
    if not changes:
        run_chunks(to_variables, len(model.offset), 64, 3.0 * float(model.size.sum()), n_threads)
    return -1.0 if min(changes, default=0.0) < 0 else max(changes, default=0.0)


class _Pairs:
    """A pairwise graph whose variables have the same number of states, laid out for `_kernels/messages.h`.

    Parameters
    ----------
    unary : array (V, K)
        Potentials; scaled so that the largest of each variable is 1.
    edges : int array (m, 2)
    tables : array (T, K, K)
        Different potentials of edges.
    kind : int array (m,)
        Which of the tables an edge has.
    """

    def __init__(self, unary: Array, edges: NDArray[np.int64], tables: Array, kind: NDArray[np.int64]) -> None:
        self.unary, self.tables, self.K = unary, tables, unary.shape[1]
        m, T = len(edges), len(tables)
        symmetric = (tables == tables.transpose(0, 2, 1)).all(axis=(1, 2))
        # half-edge 2 e leads from the first end of edge e to the second, 2 e + 1 back; table T + t is t transposed
        owner = edges.T.ravel()
        table = np.concatenate([kind, np.where(symmetric, np.arange(T), np.arange(T) + T)[kind]])
        half = np.concatenate([2 * np.arange(m), 2 * np.arange(m) + 1])
        by_owner, by_table = np.argsort(owner, kind="stable"), np.lexsort((table, owner))
        starts = np.searchsorted(owner[by_owner], np.arange(len(unary) + 1))
        degree = np.diff(starts)
        self.groups: list[_Group] = []
        for slots in np.unique(degree[degree > 0]).tolist():
            nodes = np.flatnonzero(degree == slots)
            place = starts[nodes][:, None] + np.arange(slots)
            which = np.full(len(nodes), -1)
            if len(nodes) >= _ALIKE:
                which = _equal_rows(table[by_table[place]], 2 * T)
                which[np.bincount(which)[which] < _ALIKE] = -1
            order = np.argsort(which, kind="stable")
            for rows in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
                alike = bool(which[rows[0]] >= 0)
                at = (by_table if alike else by_owner)[place[rows]]
                self.groups.append(_Group(nodes[rows], half[at], table[at], alike))

    @property
    def fits(self) -> bool:
        """Whether tables for each variable do not take too much memory."""
        own = sum(kernels.LANES * len(group.halves) * group.slots for group in self.groups if not group.alike)
        return bool(8 * own * self.K**2 <= _MOST_BYTES)

    @classmethod
    def of(cls, model: _Graph) -> "_Pairs | None":
        """The same graph, if it is of this kind."""
        sizes = set(model.cardinality.tolist())
        arities = set(map(len, model.scopes))
        if len(sizes) != 1 or not arities <= {1, 2} or 2 not in arities:
            return None
        unary = np.ones((len(model.free), sizes.pop()))
        kinds: dict[bytes, int] = {}
        tables: list[Array] = []
        edges: list[tuple[int, ...]] = []
        kind: list[int] = []
        for scope, table in zip(model.scopes, model.tables, strict=True):
            if len(scope) == 1:
                unary[scope[0]] *= table / table.max()
                continue
            number = kinds.setdefault(np.ascontiguousarray(table).tobytes(), len(tables))
            if number == len(tables):
                tables.append(table)
            edges.append(scope)
            kind.append(number)
        _check_alive(float(unary.max(axis=1).min()) or -1.0)
        unary /= unary.max(axis=1, keepdims=True)
        pairs = cls(unary, np.array(edges), np.array(tables), np.array(kind))
        return pairs if pairs.fits else None

    @cached_property
    def _layout(self) -> "_Layout":
        return _Layout(self)

    def run(
        self, maximum: bool, damping: float, max_iter: int, tol: float, n_threads: int | None
    ) -> tuple[Array, int, float]:
        """Messages (2 m, K), the number of sweeps, the largest change in the last."""
        layout = self._layout
        cost = kernels.LANES * len(layout.partner) * self.K * (0.04 * self.K + 0.3)  # of a sweep, in ns
        part = max(1, int(len(layout.blocks) * min(1.0, _PART_NS / cost)))
        parts = -(-len(layout.blocks) // part)
        arrays = _aligned(2, len(layout.partner), self.K, kernels.LANES)
        arrays[0] = 1.0
        progress, changes = np.zeros(8, np.int64), np.empty(parts)
        size = kernels.work_size(self.K, layout.most_slots)

        def make_body() -> Body:
            work = np.empty(size)

            def body(start: int, stop: int) -> None:  # parts are dealt out by the kernel
                pending = -1
                try:
                    while True:
                        pending = kernels.sweep(
                            *layout.arguments, maximum, damping, tol, arrays, part, _COMPARE, until, max_iter, progress,
                            changes, pending, work,
                        )  # fmt: skip
                        if pending < 0:
                            break
                        time.sleep(5e-5)  # a thread that others wait for has no processor
                except BaseException:
                    progress[0] = kernels.DEAD  # nobody shall wait for the part that is pending
                    raise

            return body

        some, max_iter = max(1, int(_CALL_NS / cost)), min(max_iter, 1 << 62)
        state = n_iter = holds = away = 0
        while state != kernels.CONVERGED and n_iter < max_iter:
            until = min(max_iter, n_iter + some)
            kernels.begin(progress, _COMPARE, max_iter, damping > 0)
            run_chunks(make_body, parts, 1, cost * (until - n_iter) if cost > _SWEEP_NS else 0.0, n_threads)
            state, n_iter, _, holds, away = progress[:5].tolist()
            _check_alive(-1.0 if state == kernels.DEAD else 0.0)
        messages = np.empty((layout.n_halves, self.K))

        def make_collector() -> Body:
            return lambda start, stop: kernels.collect(arrays[holds], layout.halves, not away, start, stop, messages)

        run_chunks(make_collector, len(layout.halves), 256, 4.0 * messages.size, n_threads)
        return messages, n_iter, float(changes.max())


@dataclass(frozen=True)
class _Group:
    """Variables with the same number of neighbours, and the same tables if they are alike."""

    nodes: NDArray[np.int64]
    halves: NDArray[np.int64]
    """(nodes, slots): the half-edges that lead away."""
    tables: NDArray[np.int64]
    alike: bool

    @property
    def slots(self) -> int:
        return int(self.halves.shape[1])


class _Layout:
    """Where the kernel finds everything: see `_kernels/messages.h`.

    The variables of a group are cut into as many strips as there are lanes, so that neighbours of variables in
    different lanes mostly stand in different lanes too, as those in a grid do.
    """

    def __init__(self, pairs: _Pairs) -> None:
        L, K = kernels.LANES, pairs.K
        size = K * L
        blocks, nodes, halves, where = [], [], [], []
        tables: list[tuple[int, NDArray[np.int64]]] = []  # where each table, or tables of lanes, begin
        n_messages = n_table = 0
        place: dict[int, int] = {}  # of tables that variables share
        for group in pairs.groups:
            n, slots = group.halves.shape
            run = _common_run(group.nodes)  # strips of whole rows: neighbours at their ends are then alike too
            runs = n // run
            steps = -(-runs // L) * run
            rest = (runs - 1) % L + 1  # so many lanes have a run more than the others
            lane, step = np.arange(L), np.arange(steps)[:, None]
            row = lane * steps - np.maximum(lane - rest, 0) * run + step
            there = (step < steps - run) | (lane < rest)
            row = np.where(there, row, row[:, :1])
            blocks.append(
                np.stack(np.broadcast_arrays(slots, n_messages + np.arange(steps), steps, there.sum(axis=1)), 1)
            )
            nodes.append(np.where(there, group.nodes[row], -1))
            halves.append(np.where(there, group.halves[row].transpose(2, 0, 1), -1).reshape(-1, L))
            n_messages += steps * slots
            table = group.tables[row].transpose(2, 0, 1)
            if group.alike:
                for number in set(group.tables[0].tolist()) - place.keys():
                    place[number] = n_table
                    tables.append((n_table, np.array([[number]])))
                    n_table += K * K
                where.append(np.repeat([place[number] for number in group.tables[0].tolist()], steps))
            else:
                where.append(~(n_table + size * K * np.arange(slots * steps)))
                tables.append((n_table, table.reshape(-1, L)))
                n_table += size * K * slots * steps
        self.halves = half = np.ascontiguousarray(np.concatenate(halves), np.intp)
        """(message blocks, LANES): half-edges along which these messages go; -1: none."""
        self.n_halves = int(half.max()) + 1
        own = np.arange(n_messages)[:, None] * size + np.arange(L)
        there = half >= 0
        address = np.empty(self.n_halves, np.intp)  # of the first state
        address[half[there]] = own[there]
        partner = np.where(there, address[half ^ 1], own)
        block = partner[:, 0] // size
        same = np.where(there, partner == block[:, None] * size + np.arange(L), half[block] < 0)
        regular = same.all(axis=1)
        node = np.concatenate(nodes)
        self.blocks = np.ascontiguousarray(np.concatenate(blocks), np.intp)
        unary = _aligned(len(node), K, L)
        unary[...] = np.where(node[:, None] >= 0, pairs.unary[node].transpose(0, 2, 1), 1.0)
        self.partner = np.where(regular, block, -np.cumsum(~regular)).astype(np.intp)
        lists = np.ascontiguousarray(np.concatenate([partner[~regular], np.zeros((1, L), np.int64)]), np.intp)
        entries = _aligned(n_table)
        for begin, which in tables:
            for i in range(0, len(which), 256):  # little memory
                found = _oriented(pairs.tables, which[i : i + 256]).transpose(0, 2, 3, 1)
                at = begin + i * which.shape[1] * K * K
                entries[at : at + found.size] = found.ravel()
        self.most_slots = int(self.blocks[:, 0].max())
        self.arguments = (
            self.blocks, unary, self.partner, lists, np.concatenate(where).astype(np.intp), entries, self.most_slots,
        )  # fmt: skip


def _common_run(nodes: NDArray[np.int64]) -> int:
    """The length that all runs of successive nodes have, if strips of whole runs have nearly the same size; else 1."""
    starts = np.append(np.flatnonzero(np.diff(nodes, prepend=nodes[0] - 2) != 1), len(nodes))
    run = int(starts[1])
    strip = -(-len(nodes) // (run * kernels.LANES)) * run
    if (np.diff(starts) == run).all() and strip * kernels.LANES <= 1.15 * len(nodes):
        return run
    return 1


def _equal_rows(rows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """A number for each row of numbers below limit: the same for equal rows."""
    found = np.zeros(len(rows), np.int64)
    for column in rows.T:  # far faster than np.unique(axis=0)
        found = np.unique(found * limit + column, return_inverse=True)[1].ravel()
    return found


def _oriented(tables: Array, which: NDArray[np.int64]) -> Array:
    """Those tables; transposed for numbers from len(tables) on."""
    found = tables[which % len(tables)]
    turned = which >= len(tables)
    found[turned] = found[turned].swapaxes(-1, -2)
    return found


def _aligned(*shape: int) -> Array:
    """An array that begins with a cache line."""
    size = int(np.prod(shape))
    whole = np.empty(size + 8)
    begin = -whole.ctypes.data % 64 // 8
    return whole[begin : begin + size].reshape(shape)


# ---- mean field ------------------------------------------------------------------------------------------------------


def mean_field(
    graph: FactorGraph,
    evidence: ArrayLike | None = None,
    *,
    max_iter: int = 500,
    tol: float = 1e-8,
    n_restarts: int = 0,
    random_state: Any = None,
) -> MeanFieldResult:
    """Naive mean field: the product of distributions nearest to the model in KL(q || p), by coordinate ascent.

    Parameters
    ----------
    graph : FactorGraph
        Without zeros, given the evidence: a q that is positive everywhere could not be compared with them.
    evidence : integer array (V,), optional
    max_iter : int
        Sweeps.
    tol : float
        The bound has converged when a sweep gains less.
    n_restarts : int
        Random starts, besides the uniform one; the best bound is returned.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    MeanFieldResult

    References
    ----------
    D. Koller, N. Friedman, Probabilistic Graphical Models, 2009, section 11.5.
    """
    check_number(max_iter, "max_iter", Integral, 1)
    check_number(tol, "tol", Real, 0)
    check_number(n_restarts, "n_restarts", Integral, 0)
    model = _Graph(graph, evidence)
    for scope, table in zip(model.scopes, model.tables, strict=True):
        if not table.min() > 0:
            raise ValueError(
                f"mean field needs factors without zeros, but that of scope {tuple(model.free[list(scope)].tolist())} "
                "has some: use another method"
            )
    model.layout(extra=model.bare())
    rng = as_generator(random_state)
    place_of = np.cumsum(model.cardinality) - model.cardinality
    log_table = np.log(model.table)
    digits, work = np.zeros(model.deepest, np.int64), np.empty(int(model.cardinality.max(initial=1)))
    order = np.arange(len(model.free))
    best: tuple[float, Array, list[float], bool, int] | None = None
    for trial in range(n_restarts + 1):
        parts = [np.ones(k) if trial == 0 else rng.gamma(1.0, size=k) for k in model.cardinality]
        q = np.concatenate([np.zeros(0), *(part / part.sum() for part in parts)])
        history: list[float] = []
        converged, n_iter = False, 0
        for _ in range(max_iter):
            n_iter += 1
            kernel.mean_field_sweep(
                order, model.sockets, model.starts, model.factor_of, model.first, model.variable, model.cardinality,
                model.offset, model.size, log_table, place_of, q, digits, work,
            )  # fmt: skip
            expected = kernel.energy_terms(
                model.first, model.variable, model.cardinality, model.offset, model.size, log_table, place_of, q, digits
            )
            positive = q[q > 0]
            history.append(model.log_constant + expected - float(positive @ np.log(positive)))
            if len(history) > 1 and history[-1] - history[-2] <= tol:
                converged = True
                break
        if best is None or history[-1] > best[0]:
            best = history[-1], q, history, converged, n_iter
    assert best is not None
    elbo, q, history, converged, n_iter = best
    beliefs = [q[begin : begin + size] for begin, size in zip(place_of, model.cardinality, strict=True)]
    marginals, states = model.whole(beliefs, graph.cardinalities)
    return MeanFieldResult(marginals, states, elbo, np.array(history), converged, n_iter)


# ---- TRW-S -----------------------------------------------------------------------------------------------------------


def trw_s(
    graph: FactorGraph, evidence: ArrayLike | None = None, *, max_iter: int = 1000, tol: float = 1e-9
) -> TreeReweightedResult:
    """Sequential tree-reweighted message passing: states of low energy, and a bound that no states can beat.

    Parameters
    ----------
    graph : FactorGraph
        Factors over at most two free variables, without zeros (energies are -log of the tables).
    evidence : integer array (V,), optional
    max_iter : int
        Forward and backward passes.
    tol : float
        The bound has converged when an iteration gains less, relative to its size.

    Returns
    -------
    TreeReweightedResult

    References
    ----------
    V. Kolmogorov, Convergent tree-reweighted message passing for energy minimization, PAMI 2006.
    """
    check_number(max_iter, "max_iter", Integral, 1)
    check_number(tol, "tol", Real, 0)
    model = _Graph(graph, evidence)
    V = len(model.free)
    sizes = model.cardinality
    unary_at = np.cumsum(sizes) - sizes
    unary = np.zeros(int(sizes.sum()))
    energies: dict[tuple[int, int], Array] = {}
    for scope, table in zip(model.scopes, model.tables, strict=True):
        where = tuple(model.free[list(scope)].tolist())
        if len(scope) > 2:
            raise ValueError(f"TRW-S needs factors of at most two variables, but one has scope {where}")
        if not table.min() > 0:
            raise ValueError(f"TRW-S needs factors without zeros, but that of scope {where} has some")
        energy = -np.log(table)
        if len(scope) == 1:
            unary[unary_at[scope[0]] : unary_at[scope[0]] + sizes[scope[0]]] += energy
        else:
            a, b = scope
            pair = (a, b) if a < b else (b, a)
            energies[pair] = energies.get(pair, 0.0) + (energy if a < b else energy.T)
    edges = sorted(energies)
    slots: list[list[tuple[int, int, bool]]] = [[] for _ in range(V)]
    for e, (a, b) in enumerate(edges):
        slots[a].append((b, e, False))
        slots[b].append((a, e, True))
    starts = np.concatenate([[0], np.cumsum([len(own) for own in slots])]).astype(np.int64)
    flat = [slot for own in slots for slot in own]
    neighbour, edge = (np.array([slot[i] for slot in flat], np.int64) for i in (0, 1))
    flipped = np.array([slot[2] for slot in flat], np.bool_)
    widths = np.repeat(sizes, np.diff(starts))
    message_at = np.cumsum(widths) - widths
    message = np.zeros(int(widths.sum()))
    pair_sizes = [energies[pair].size for pair in edges]
    pair_at = (np.cumsum(pair_sizes) - pair_sizes).astype(np.int64)
    pair_energy = np.concatenate([np.zeros(0), *(energies[pair].ravel() for pair in edges)])
    ends = np.array(edges, np.int64).reshape(-1, 2)
    later = np.array(
        [max(sum(u > v for u, _, _ in own), sum(u < v for u, _, _ in own), 1) for v, own in enumerate(slots)]
    )
    order = np.arange(V)
    theta, states = np.empty(int(sizes.max(initial=1))), np.zeros(V, np.int64)
    arguments = (
        order, order, starts, neighbour, edge, flipped, sizes, unary, unary_at, pair_energy, pair_at,
        1.0 / later.reshape(V), message, message_at,
    )  # fmt: skip
    best_energy, best_states, history, converged, n_iter = np.inf, states.copy(), [], False, 0
    for _ in range(max_iter):
        n_iter += 1
        kernel.trw_s_pass(*arguments, True, theta, states)
        at = pair_at + states[ends[:, 0]] * sizes[ends[:, 1]] + states[ends[:, 1]]
        energy_found = float(unary[unary_at + states].sum() + pair_energy[at].sum())
        if energy_found < best_energy:
            best_energy, best_states = energy_found, states.copy()
        history.append(float(kernel.trw_s_pass(*arguments, False, theta, states)))
        margin = tol * max(1.0, abs(history[-1]))
        if best_energy - history[-1] <= margin or (n_iter > 1 and history[-1] - history[-2] <= margin):
            converged = True
            break
    found = model.codes.copy()
    found[model.free] = best_states
    shift = -model.log_constant
    return TreeReweightedResult(
        found, best_energy + shift, history[-1] + shift, converged, n_iter, np.array(history) + shift
    )
