"""Learning the structure of discrete networks from complete data.

Everything is counting: the rows are grouped in cells, those that agree in some variables, and the cells are counted
against all states of all other variables at once. Without weights, sets of rows are bits, 64 to a word, and a count is
the population of an intersection; with weights, or many cells, rows are counted one by one.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from math import inf, isnan, log, nan
from numbers import Integral, Real
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from fastgen._kernels.jit import counting, structure
from fastgen._kernels.jit import rows as kernel
from fastgen._parallel import Body, run_chunks
from fastgen._validation import Array, as_generator, as_weights, check_choice, check_number
from fastgen.graphical._separation import topological_order

__all__ = [
    "Pattern",
    "StructureResult",
    "chow_liu",
    "cpdag",
    "hill_climb",
    "pair_counts",
    "pc_stable",
    "score_network",
    "structural_hamming_distance",
    "tree_augmented_naive_bayes",
]

Parents = tuple[tuple[int, ...], ...]
_SCORES = "bic", "aic", "log_likelihood", "bdeu", "k2"
_MOST_STATES = 1 << 16
_MOST_WORDS = 1 << 22
"""Of bit sets for the cells of a family; above, rows are counted one by one."""
_TABU_MOVES = 10
"""Of a search that may fail, for each variable."""
_WORD_NS = 0.045
"""To count a cell's word against a state's."""
_ROUNDING = 1e-10


# ---- data ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """Rows grouped by the states of some variables, and within each group by those of one more."""

    sizes: Array
    group: NDArray[np.int64]
    """The cells of group j are group[j] to group[j + 1]."""
    counts: Array
    """(cells, states of all variables + 1)"""


def _aligned(rows: int, words: int) -> NDArray[np.uint64]:
    """Sets of bits that begin where cache lines do, if a row's length is a multiple of theirs."""
    room = np.empty(rows * words + 8, np.uint64)
    start = -room.ctypes.data // 8 % 8
    return room[start : start + rows * words].reshape(rows, words)


class _Data:
    """Complete rows, column by column, and as bit sets."""

    def __init__(self, X: Any, cardinalities: Sequence[int] | None, weights: Any) -> None:
        X = np.asarray(X)
        if X.ndim != 2 or X.dtype.kind not in "iu" or 0 in X.shape:
            raise ValueError(f"X must be integers of shape (n, V), with n, V >= 1, got {X.dtype} {X.shape}")
        X = X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))
        n, V = X.shape
        sizes = [int(high) + 1 for high in X.max(axis=0)] if cardinalities is None else list(map(index, cardinalities))
        if len(sizes) == V and max(sizes) > _MOST_STATES:
            i = int(np.argmax(sizes))
            raise ValueError(f"column {i} of X has {sizes[i]} states: at most {_MOST_STATES} are possible")
        if len(sizes) != V or min(sizes) < 1:
            raise ValueError(f"cardinalities must be {V} positive numbers, got {sizes}")
        self.cardinality = np.array(sizes, np.int64)
        given = as_weights(weights, n, "weights")
        self.weighted = given is not None
        self.weights = np.empty(0) if given is None else np.ascontiguousarray(given)
        self.columns = np.empty((V, n), np.min_scalar_type(max(sizes) - 1))
        read = kernel.reader(X, max(sizes))
        wrong: list[int] = []

        def make_body() -> Body:
            narrow = np.empty(kernel.ROWS * V, np.uint8)

            def body(start: int, stop: int) -> None:
                row = kernel.load_all(X, self.cardinality, start, stop, *read, narrow, self.columns)
                if row >= 0:
                    wrong.append(row)

            return body

        run_chunks(make_body, n, kernel.ROWS, 0.5 * n * V)
        if wrong:
            row = min(wrong)
            i = int(np.flatnonzero((X[row] < 0) | (X[row] >= self.cardinality))[0])
            raise ValueError(
                f"X holds {X[row, i]} in row {row}, column {i}, whose states are 0 to {sizes[i] - 1}: structures are "
                "learned from complete rows; EM takes missing cells where the structure is given"
            )
        self.n, self.V = n, V
        self.total = float(self.weights.sum()) if self.weighted else float(n)
        ends = np.cumsum(self.cardinality)
        self.first = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        self.states = int(ends[-1])
        self.words = -(-n // 512) * 8
        self.bits = _aligned(0 if self.weighted else self.states, self.words)
        self._room: tuple[NDArray[Any], ...] = (np.empty(0, np.int64),)
        if not self.weighted:
            self.bits[:] = 0
            run_chunks(lambda: self._pack, V, 1, 0.5 * n * V)

    def _pack(self, start: int, stop: int) -> None:
        counting.pack(self.columns, self.first, self.cardinality, start, stop, self.bits)

    def cells(self, y: int, given: Sequence[int], others: Sequence[int] | None) -> _Cells:
        """Group the rows by the given variables, then by y, and count the cells against the others (None: not)."""
        most = int(min(self.n, np.prod([*self.cardinality[list(given)], self.cardinality[y]], dtype=float)))
        if self.weighted or most * self.words > _MOST_WORDS:
            return self._cells_of_rows(y, given, others)
        work = self._work(most)
        cells, sizes, _, _, group = work
        made, groups = counting.split_bits(np.array([*given, y]), self.bits, self.first, self.cardinality, *work)
        counts = np.empty((made, self.states + 1))
        counts[:, -1] = sizes[:made]
        if others is not None:
            self._count_bits(cells[:made], others, counts)
        return _Cells(counts[:, -1], group[: groups + 1], counts)

    def _work(self, cells: int) -> tuple[NDArray[Any], ...]:
        """Room for so many cells, twice; it is used again and again: memory that is new is slow to write."""
        if cells + 1 > len(self._room[-1]):
            room = max(cells, 2 * len(self._room[-1]), 16)
            rows = [array for _ in range(2) for array in (_aligned(room, self.words), np.empty(room, np.int64))]
            self._room = (*rows, np.empty(room + 1, np.int64))
        return self._room

    def _count_bits(self, cells: NDArray[np.uint64], others: Sequence[int], counts: Array) -> None:
        variables = np.array(others)

        def make_body() -> Body:
            states = np.empty(self.states, np.int64)

            def body(start: int, stop: int) -> None:
                counting.count_bits(
                    cells, self.bits, self.first, self.cardinality, variables, start, stop, states, counts
                )

            return body

        share = len(variables) / self.V
        run_chunks(make_body, len(variables), 1, share * _WORD_NS * len(cells) * self.words * self.states)

    def pairs(self, given: int | None = None, state: int = 0) -> Array:
        """Counts (or weights) of all pairs of states, of the rows in which a variable is in this state."""
        counts = np.zeros((self.states, self.states + 1))
        if self.weighted:
            rows = slice(None) if given is None else self.columns[given] == state
            chosen, weights = np.ascontiguousarray(self.columns[:, rows]), self.weights[rows]
            every = np.arange(self.V)

            def body(start: int, stop: int) -> None:
                for i in range(start, stop):
                    part = counts[self.first[i] : self.first[i] + self.cardinality[i]]
                    counting.count_rows(
                        chosen[i].astype(np.int64), chosen, self.first, self.cardinality, weights, True, every, part
                    )

            run_chunks(lambda: body, self.V, 1, 1.0 * chosen.size * self.V)
        else:
            cells = self.bits if given is None else self.bits & self.bits[self.first[given] + state]
            counts[:, -1] = np.bitwise_count(cells).sum(axis=1, dtype=np.int64)
            self._count_bits(cells, range(self.V), counts)
        return counts[:, :-1]

    def _cells_of_rows(self, y: int, given: Sequence[int], others: Sequence[int] | None) -> _Cells:
        cell, made, group = np.zeros(self.n, np.int64), 1, np.zeros(1, np.int64)
        for variable in (*given, y):
            states = int(self.cardinality[variable])
            seen = np.zeros(made * states, np.int64)
            split = np.empty(self.n, np.int64)
            made = counting.split_rows(cell, self.columns[variable], states, split, seen)
            group = np.flatnonzero(seen) // states
            cell = split
        counts = np.zeros((made, self.states + 1))
        counting.cell_sizes(cell, self.weights, self.weighted, counts[:, -1])
        if others is not None:
            variables = np.array(others)
            run_chunks(
                lambda: lambda start, stop: counting.count_rows(
                    cell, self.columns, self.first, self.cardinality, self.weights, self.weighted,
                    variables[start:stop], counts,
                ),
                len(variables), 1, 1.0 * self.n * len(variables),
            )  # fmt: skip
        bounds = np.concatenate([[0], np.flatnonzero(np.diff(group)) + 1, [made]])
        return _Cells(counts[:, -1], bounds, counts)


def pair_counts(
    X: Any, cardinalities: Sequence[int] | None = None, *, weights: Any = None
) -> tuple[tuple[Array, ...], ...]:
    """Contingency tables of all pairs of variables, in one pass over the data.

    Parameters
    ----------
    X, cardinalities, weights
        As for `score_network`.

    Returns
    -------
    tuple of tuples of arrays
        ``pair_counts(X)[i][j]``, of shape (states of i, states of j): numbers of rows, or sums of weights. On the
        diagonal (i = j) those of the states themselves. The tables are views of one matrix over all states.

    Raises
    ------
    ValueError
        Codes that are no states.

    Notes
    -----
    Rows are sets of bits: O(n / 64 states^2). With weights, O(n V^2).

    Examples
    --------
    >>> from fastgen.graphical import pair_counts
    >>> pair_counts([[0, 1], [0, 0], [1, 1]])[0][1]
    array([[1., 1.],
           [0., 1.]])
    """
    data = _Data(X, cardinalities, weights)
    counts = np.ascontiguousarray(data.pairs())
    parts = [slice(begin, begin + size) for begin, size in zip(data.first, data.cardinality, strict=True)]
    return tuple(tuple(counts[own, other] for other in parts) for own in parts)


# ---- scores ----------------------------------------------------------------------------------------------------------


class _Score:
    """Scores of families: natural logarithms, larger is better."""

    def __init__(self, data: _Data, score: str, equivalent_sample_size: float) -> None:
        check_choice(score, "score", _SCORES)
        check_number(equivalent_sample_size, "equivalent_sample_size", Real, 0)
        if score == "bdeu" and equivalent_sample_size <= 0:
            raise ValueError(f"equivalent_sample_size must be positive, got {equivalent_sample_size!r}")
        self.data = data
        self.score = score
        self.size = float(equivalent_sample_size)
        self.dirichlet = score in ("bdeu", "k2")
        self.family = lru_cache(maxsize=1 << 14)(self._family)

    def _parameter(self, configurations: float, states: int) -> float:
        return {
            "bic": 0.5 * log(max(self.data.total, 1e-300)),
            "aic": 1.0,
            "log_likelihood": 0.0,
            "bdeu": self.size / (configurations * states),
            "k2": 1.0,
        }[self.score]

    def _configurations(self, parents: Iterable[int]) -> float:
        return float(np.prod(self.data.cardinality[list(parents)], dtype=float))

    def _family(self, y: int, parents: tuple[int, ...]) -> float:
        """The score of y with these parents, sorted."""
        cells = self.data.cells(y, parents, None)
        states, configurations = int(self.data.cardinality[y]), self._configurations(parents)
        parameter = self._parameter(configurations, states)
        return float(
            structure.score_family(cells.sizes, cells.group, states, configurations, self.dirichlet, parameter)
        )

    def additions(self, y: int, parents: tuple[int, ...]) -> Array:
        """The score of y with each variable as one more parent."""
        data = self.data
        cells = data.cells(y, parents, range(data.V))
        states, configurations = int(data.cardinality[y]), self._configurations(parents)
        parameter = self._parameter(configurations, states)
        out = np.empty(data.V)
        structure.score_additions(
            cells.counts, cells.group, data.first, data.cardinality, states, configurations, self.dirichlet,
            -parameter if self.score == "bdeu" else parameter, 0, data.V, out,
        )  # fmt: skip
        return out

    def first_additions(self) -> Iterator[tuple[float, Array]]:
        """Of each variable the score without parents, and what each other variable as its parent adds to it."""
        data = self.data
        counts = data.pairs()
        sizes = data.cardinality.tolist()
        parameters = np.array([self._parameter(1.0, states) for states in sizes])
        if self.score == "bdeu":
            parameters = -parameters
        out = np.empty((data.V, data.V))
        structure.score_pairs(counts, data.first, data.cardinality, self.dirichlet, parameters, out)
        for y, (begin, states) in enumerate(zip(data.first.tolist(), sizes, strict=True)):
            own = counts.diagonal()[begin : begin + states]
            score = structure.score_family(
                own, np.array([0, states]), states, 1.0, self.dirichlet, abs(float(parameters[y]))
            )
            yield float(score), out[y] - score

    def total(self, parents: Iterable[Iterable[int]]) -> float:
        return sum(self.family(y, tuple(sorted(chosen))) for y, chosen in enumerate(parents))


@dataclass(frozen=True)
class StructureResult:
    """A directed acyclic graph that was learned."""

    parents: Parents
    """Of each variable."""
    score: float
    """Natural logarithm; larger is better."""
    n_iter: int
    """Moves that were made."""


def score_network(
    X: Any,
    parents: Sequence[Sequence[int]],
    cardinalities: Sequence[int] | None = None,
    *,
    score: str = "bic",
    equivalent_sample_size: float = 10.0,
    weights: Any = None,
) -> float:
    """Score of a network's structure given complete data: natural logarithm, larger is better.

    Parameters
    ----------
    X : integer array (n, V)
        States as numbers.
    parents : sequence of sequences of int
        Of each variable.
    cardinalities : sequence of int, optional
        Default: the largest state that occurs, and one.
    score : {"bic", "aic", "log_likelihood", "bdeu", "k2"}
        Log-likelihood less 0.5 log n, 1 or 0 for each free parameter; or log p(data) with Dirichlet priors: uniform
        with `equivalent_sample_size` in each family (Heckerman, Geiger, Chickering 1995), or 1 for each entry (Cooper,
        Herskovits 1992).
    equivalent_sample_size : float
        Of "bdeu".
    weights : array (n,), optional

    Returns
    -------
    float
    """
    data = _Data(X, cardinalities, weights)
    chosen = _check_parents(parents, data.V)
    return _Score(data, score, equivalent_sample_size).total(chosen)


def _check_parents(parents: Sequence[Iterable[int]], V: int, name: str = "parents") -> Parents:
    """Numbers of other variables, each once, and no cycle."""
    chosen = tuple(tuple(map(index, own)) for own in parents)
    if len(chosen) != V or any(not 0 <= j < V or j == i for i, own in enumerate(chosen) for j in own):
        raise ValueError(f"{name} must list, for each of {V} variables, numbers of others; got {chosen}")
    for i, own in enumerate(chosen):
        if len(set(own)) < len(own):
            raise ValueError(f"{name} lists a parent of variable {i} twice: {own}")
    topological_order(chosen)
    return chosen


# ---- hill-climbing ---------------------------------------------------------------------------------------------------


def hill_climb(
    X: Any,
    cardinalities: Sequence[int] | None = None,
    *,
    score: str = "bic",
    equivalent_sample_size: float = 10.0,
    start: Sequence[Sequence[int]] | None = None,
    required: Iterable[tuple[int, int]] = (),
    forbidden: Iterable[tuple[int, int]] = (),
    max_parents: int | None = None,
    tabu: int | None = None,
    max_iter: int | None = None,
    n_restarts: int = 0,
    random_state: Any = None,
    weights: Any = None,
) -> StructureResult:
    """Add, delete or reverse the arc that gains most, until none gains; then search on from there with a tabu list.

    Only the scores of families that were not met before are computed, so that the search beyond the first optimum costs
    little. It is worth it: most moves that gain nothing lead to a graph that says the same, from which others gain.

    Parameters
    ----------
    X, cardinalities, score, equivalent_sample_size, weights
        As for `score_network`.
    start : parents of each variable, optional
        Default: no arcs but the required ones.
    required, forbidden : iterable of (parent, child)
    max_parents : int, optional
    tabu : int, optional
        So many of the last graphs are not visited again, and so many moves in a row may fail to beat the best graph
        (Bouckaert 1995). Default: 10 for each variable; 0: stop at the first optimum.
    max_iter : int, optional
        The most moves, from each start.
    n_restarts : int
        So often the best graph is disturbed by random moves, and the search goes on from there.
    random_state : None, int, Generator or RandomState

    Returns
    -------
    StructureResult

    Raises
    ------
    ValueError
        Codes that are no states; a start or required arcs with a cycle, with a forbidden arc or too many parents.
    """
    data = _Data(X, cardinalities, weights)
    V = data.V
    scorer = _Score(data, score, equivalent_sample_size)
    tabu = _TABU_MOVES * V if tabu is None else tabu
    check_number(tabu, "tabu", Integral, 0)
    most = V if max_parents is None else max_parents
    check_number(most, "max_parents", Integral, 0)
    check_number(n_restarts, "n_restarts", Integral, 0)
    if max_iter is not None:
        check_number(max_iter, "max_iter", Integral, 0)
    needed, allowed = np.zeros((V, V), np.bool_), ~np.eye(V, dtype=np.bool_)
    has = np.zeros((V, V), np.bool_)
    for name, arcs, matrix, value in (("required", required, needed, True), ("forbidden", forbidden, allowed, False)):
        for x, y in ((index(x), index(y)) for x, y in arcs):
            if not (0 <= x < V and 0 <= y < V and x != y):
                raise ValueError(f"{name} must have pairs of different variables below {V}, got {(x, y)}")
            matrix[y, x] = value
    for y, own in enumerate(() if start is None else _check_parents(start, V, "start")):
        has[y, list(own)] = True
    has |= needed
    if (has & ~allowed).any():
        y, x = map(int, np.argwhere(has & ~allowed)[0])
        raise ValueError(f"the arc {(x, y)} is both there at the start (or required) and forbidden")
    if has.sum(axis=1).max(initial=0) > most:
        raise ValueError(f"a variable has more than max_parents={most} parents at the start")
    search = _Search(scorer, has, needed, allowed, most)
    best, chosen = search.climb(int(tabu), max_iter)
    rng = as_generator(random_state)
    for _ in range(n_restarts):
        search.go_to(chosen)
        search.disturb(max(2, V // 4), rng)
        found = search.climb(int(tabu), max_iter)
        if found[0] > best + search.margin:
            best, chosen = found
    parents = tuple(_members(own) for own in chosen)
    return StructureResult(parents, scorer.total(parents), search.moves)


_Sets = NDArray[np.uint64]
_MOST_PAIRS = 1 << 24
"""Of states, in tables of all pairs; above, variables are taken one by one."""
_MOST_FAMILIES = 1 << 14
_MOST_CHANGES = 1 << 24
"""Changes of scores that are remembered: numbers, for each family as many as there are variables."""


def _sets(has: NDArray[np.bool_]) -> _Sets:
    """Rows of truth values as sets of bits."""
    V = has.shape[1]
    bits = np.packbits(has, axis=1, bitorder="little")
    out = np.zeros((len(has), 8 * -(-V // 64)), np.uint8)
    out[:, : bits.shape[1]] = bits
    return out.view("<u8").astype(np.uint64)


def _members(own: _Sets) -> tuple[int, ...]:
    """The elements of one set."""
    bits = np.unpackbits(own.astype("<u8").view(np.uint8), bitorder="little")
    return tuple(np.flatnonzero(bits).tolist())


class _Search:
    """A walk over graphs: what each move gains is known, and remembered."""

    def __init__(
        self,
        scorer: _Score,
        has: NDArray[np.bool_],
        needed: NDArray[np.bool_],
        allowed: NDArray[np.bool_],
        most: int,
    ) -> None:
        V = scorer.data.V
        self.scorer, self.rules = scorer, (_sets(allowed), _sets(needed), most)
        parents = _sets(has)
        self.graph = parents, _sets(has.T), np.zeros_like(parents), has.sum(axis=1)
        self.work = np.empty(V, np.int64), np.empty(V, np.int64)
        if not structure.find_descendants(self.graph, *self.work):
            raise ValueError("the arcs at the start (or required) have a cycle")
        self.keys = np.random.default_rng(0).integers(1, 1 << 63, (V, V), np.uint64)
        self.row = np.full(V, -1)
        most_families = max(4 * V, min(_MOST_FAMILIES, _MOST_CHANGES // V))
        self.store = (
            np.empty(1 << (2 * most_families).bit_length(), np.int32),
            np.empty(most_families, np.int64),
            np.empty((most_families, parents.shape[1]), np.uint64),
            np.empty(most_families),
            np.empty((most_families, V)),
            np.empty(most_families),
        )
        self.moves = 0
        self._forget()
        if most > 0 and (parents == 0).all(axis=1).any() and scorer.data.states**2 <= _MOST_PAIRS:
            self._start()
        for y in range(V):
            self._learn(y)
        self.margin = _ROUNDING * max(1.0, abs(float(self.store[3][self.row].sum())))

    def _forget(self) -> None:
        self.store[0][:] = -1
        self.row[:] = -1
        self.families = 0

    def _start(self) -> None:
        """All families without parents, in one pass over the data."""
        none = np.zeros_like(self.graph[0][0])
        for y, (own, changes) in enumerate(self.scorer.first_additions()):
            self._remember(y, none, own, changes)

    def _remember(self, y: int, members: _Sets, own: float, changes: Array) -> None:
        structure.remember(self.families, y, members, own, changes, self.rules[0], self.store)
        self.families += 1

    def _learn(self, y: int) -> None:
        """What changes when y has other parents, if it is not known yet."""
        members = self.graph[0][y].copy()
        if self.families == len(self.store[1]):
            self._forget()
        changes = np.full(len(self.row), -inf)
        own = structure.known_scores(y, members, self.store, changes)
        slot = structure.find(y, members, self.store)
        if slot < 0:
            parents = _members(members)
            if isnan(own):
                own = self.scorer.family(y, parents)
            lost = {
                x: changes[x]
                if changes[x] == changes[x]
                else self.scorer.family(y, tuple(j for j in parents if j != x))
                for x in parents
            }
            if len(parents) < self.rules[2]:
                changes = self.scorer.additions(y, parents)
            changes = changes - own
            for x, value in lost.items():
                changes[x] = value - own
            slot = self.families
            self._remember(y, members, own, changes)
        self.row[y] = slot

    def go_to(self, parents: _Sets) -> None:
        """Go on from another graph."""
        has = np.array([np.isin(np.arange(len(parents)), _members(own)) for own in parents])
        self.graph[0][:] = parents
        self.graph[1][:] = _sets(has.T)
        self.graph[3][:] = has.sum(axis=1)
        self.row[:] = -1
        structure.find_descendants(self.graph, *self.work)

    def disturb(self, n_moves: int, rng: np.random.Generator) -> None:
        """Make some random moves."""
        V = len(self.row)
        for _ in range(n_moves):
            moves = rng.integers(0, [3, V, V], (8 * V, 3))  # until one is legal
            structure.disturb(moves, self.graph, self.rules, self.row, *self.work)

    def climb(self, tabu: int, max_iter: int | None) -> tuple[float, _Sets]:
        """Make the best move as long as one is worth it; return the score of the best graph, and its parents."""
        seen = np.empty(tabu, np.uint64), np.zeros(16 << tabu.bit_length(), np.int32)
        best, parents, progress = np.array([nan]), np.empty_like(self.graph[0]), np.zeros(3, np.int64)
        limit = -1 if max_iter is None else max_iter
        while True:
            y = structure.walk(
                self.graph, self.rules, self.row, self.store, self.keys, seen, limit, self.margin, progress, best,
                parents, *self.work,
            )  # fmt: skip
            if y < 0:
                break
            self._learn(y)
        self.moves += int(progress[0])
        return float(best[0]), parents


# ---- trees -----------------------------------------------------------------------------------------------------------


def chow_liu(X: Any, cardinalities: Sequence[int] | None = None, *, root: int = 0, weights: Any = None) -> Parents:
    """Tree of largest likelihood: the maximum spanning tree of the mutual information of all pairs.

    Parameters
    ----------
    X, cardinalities, weights
        As for `score_network`.
    root : int
        The variable without parents.

    Returns
    -------
    parents : tuple of tuples of int
        Of each variable. Of pairs with equal information, those with smaller numbers are taken.

    References
    ----------
    C. K. Chow, C. N. Liu, Approximating discrete probability distributions with dependence trees, 1968.
    """
    data = _Data(X, cardinalities, weights)
    check_number(root, "root", Integral, 0)
    if not root < data.V:
        raise ValueError(f"root must be a variable below {data.V}, got {root!r}")
    return _tree(_information(data, None), root, list(range(data.V)))


def tree_augmented_naive_bayes(
    X: Any,
    cardinalities: Sequence[int] | None = None,
    *,
    class_column: int,
    root: int | None = None,
    weights: Any = None,
) -> Parents:
    """The class is a parent of all others, and these form the tree of largest conditional likelihood.

    Parameters
    ----------
    X, cardinalities, weights
        As for `score_network`.
    class_column : int
    root : int, optional
        Default: the first of the others.

    Returns
    -------
    parents : tuple of tuples of int

    References
    ----------
    N. Friedman, D. Geiger, M. Goldszmidt, Bayesian network classifiers, Machine Learning 29, 1997.
    """
    data = _Data(X, cardinalities, weights)
    check_number(class_column, "class_column", Integral, 0)
    if not class_column < data.V:
        raise ValueError(f"class_column must be a variable below {data.V}, got {class_column!r}")
    others = [i for i in range(data.V) if i != class_column]
    if not others:
        return ((),)
    root = others[0] if root is None else root
    if root not in others:
        raise ValueError(f"root must be one of the other variables, got {root!r}")
    tree = _tree(_information(data, class_column), root, others)
    return tuple(() if i == class_column else (*own, class_column) for i, own in enumerate(tree))


def _information(data: _Data, given: int | None) -> Array:
    """(Conditional) mutual information of all pairs, times the number of rows."""
    out = np.zeros((data.V, data.V))
    for state in (0,) if given is None else range(int(data.cardinality[given])):
        structure.pair_information(data.pairs(given, state), data.first, data.cardinality, out)
    return out


def _tree(information: Array, root: int, nodes: Sequence[int]) -> Parents:
    """Maximum spanning tree (Prim), arcs away from the root."""
    parents: list[tuple[int, ...]] = [()] * len(information)
    margin = _ROUNDING * max(1.0, float(np.abs(information).max(initial=0.0)))
    link = {i: root for i in nodes if i != root}
    while link:
        best = min(link)
        for i in sorted(link):
            if information[i, link[i]] > information[best, link[best]] + margin:
                best = i
        parents[best] = (link.pop(best),)
        for i in link:
            if information[i, best] > information[i, link[i]] + margin:
                link[i] = best
    return tuple(parents)


# ---- independence tests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """A Markov equivalence class: the arcs on which all its members agree, and edges on which they do not."""

    n_variables: int
    directed: frozenset[tuple[int, int]]
    undirected: frozenset[tuple[int, int]]
    """Pairs (i, j) with i < j."""
    separating: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    """For each pair (i, j), i < j, without an edge: what made them independent, by the largest p-value. Of tests."""
    n_tests: int = 0

    def to_dag(self, strict: bool = True) -> Parents:
        """Parents of each variable in a graph of this class (Dor and Tarsi 1992).

        Parameters
        ----------
        strict : bool
            Otherwise, if the class has no graph, as tests on finite data may contradict each other: return one with
            the same arcs and edges and some colliders that are not in the pattern, and warn.

        Raises
        ------
        ValueError
            If there is none.
        """
        parents: list[set[int]] = [set() for _ in range(self.n_variables)]
        directed, undirected = set(self.directed), set(self.undirected)
        for x, y in directed:
            parents[y].add(x)
        left, surplus = set(range(self.n_variables)), 0
        while left:
            best, fewest = -1, 1 if strict else self.n_variables**2
            for x in sorted(left):  # the last in the order: nothing that is left is its child
                if any((x, y) in directed for y in left):
                    continue
                joined = {y for y in left if (min(x, y), max(x, y)) in undirected}
                near = joined | {y for y in left if (y, x) in directed}
                new = sum(not _adjacent(a, b, directed, undirected) for a in joined for b in near if a != b)
                if new < fewest:
                    best, fewest, chosen = x, new, joined
                if not new:
                    break
            if best < 0:
                raise ValueError("the tests contradict each other: no acyclic graph has these edges and colliders")
            surplus += fewest
            parents[best] |= chosen
            left.remove(best)
        if surplus:
            warnings.warn(
                "the independence tests contradict each other: the graph has colliders that they do not account for",
                RuntimeWarning,
                stacklevel=2,
            )
        return tuple(tuple(sorted(own)) for own in parents)


def _adjacent(a: int, b: int, directed: Any, undirected: Any) -> bool:
    return (a, b) in directed or (b, a) in directed or (min(a, b), max(a, b)) in undirected


def pc_stable(
    X: Any,
    cardinalities: Sequence[int] | None = None,
    *,
    alpha: float = 0.05,
    test: str = "g2",
    max_condition: int | None = None,
    weights: Any = None,
) -> Pattern:
    """Find the equivalence class from tests of conditional independence, whatever the order of the variables.

    Parameters
    ----------
    X, cardinalities, weights
        As for `score_network`; weights count as rows.
    alpha : float
        Level of each test.
    test : {"g2", "chi2"}
        Likelihood ratio or Pearson; degrees of freedom are those of rows and columns that are not empty.
    max_condition : int, optional
        The largest number of variables that are conditioned on.

    Returns
    -------
    Pattern

    Notes
    -----
    Of two variables without an edge, a common neighbour is taken for a child of both if no set that separated them has
    it. Tests on finite data may contradict each other. Then the collider goes first whose ends are the more dependent
    given it, whatever else is given of their neighbours (after J. Ramsey, Improving accuracy and scalability of the PC
    algorithm by maximizing p-value, 2016). What contradicts it stays undirected, as do edges that would have to point
    both ways to avoid further colliders and cycles.

    References
    ----------
    D. Colombo, M. H. Maathuis, Order-independent constraint-based causal structure learning, JMLR 15, 2014.
    C. Meek, Causal inference and causal explanation with background knowledge, UAI 1995.
    """
    data = _Data(X, cardinalities, weights)
    check_choice(test, "test", ("g2", "chi2"))
    if max_condition is not None:
        check_number(max_condition, "max_condition", Integral, 0)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha!r}")
    V = data.V
    near = [set(range(V)) - {i} for i in range(V)]
    separating: dict[tuple[int, int], tuple[int, ...]] = {}
    ever: dict[tuple[int, int], set[int]] = {}
    n_tests = size = 0
    while any(len(own) > size for own in near) and (max_condition is None or size <= max_condition):
        frozen = [sorted(own) for own in near]
        found: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for y in range(V):
            for given in combinations(frozen[y], size):
                others = [x for x in frozen[y] if x not in given and (size or x > y)]
                if not others:
                    continue
                n_tests += len(others)
                for x, p in zip(others, _p_values(data, y, given, others, test)[0].tolist(), strict=True):
                    if p <= alpha:
                        continue
                    pair = min(x, y), max(x, y)
                    ever.setdefault(pair, set()).update(given)
                    if pair not in found or (-p, given) < (-found[pair][0], found[pair][1]):
                        found[pair] = p, given
        for (i, j), (_, given) in found.items():
            near[i].discard(j)
            near[j].discard(i)
            separating[i, j] = given
        size += 1
    edges = {(i, j) for i in range(V) for j in near[i] if i < j}
    colliders = [
        (i, k, j)
        for k in range(V)
        for i, j in combinations(sorted(near[k]), 2)
        if (i, j) not in edges and k not in ever.get((i, j), ())
    ]
    directed, more = _resolve(data, colliders, near, max(1, size - 1), test)
    undirected = {(i, j) for i, j in edges if (i, j) not in directed and (j, i) not in directed}
    _meek(directed, undirected, near)
    return Pattern(V, frozenset(directed), frozenset(undirected), separating, n_tests + more)


def _resolve(
    data: _Data, colliders: Sequence[tuple[int, int, int]], near: Sequence[set[int]], most: int, test: str
) -> tuple[set[tuple[int, int]], int]:
    """The arcs of colliders (i, k, j), and how many tests that took.

    If two want an edge in both directions, the one goes first whose i and j are the more dependent given k: by the
    least of the dependences given k and up to most - 1 others that are near i, or near j.
    """
    wanted = {(x, k) for i, k, j in colliders for x in (i, j)}
    directed: set[tuple[int, int]] = set()
    contested: list[tuple[tuple[float, float], tuple[int, int, int]]] = []
    n_tests = 0
    for i, k, j in colliders:
        if (k, i) not in wanted and (k, j) not in wanted:
            directed |= {(i, k), (j, k)}
            continue
        weakest = -inf, -inf
        for y, x in ((i, j), (j, i)):
            others = sorted(near[y] - {k})
            for size in range(min(most, len(others) + 1)):
                for given in combinations(others, size):
                    p, excess = _p_values(data, y, sorted((*given, k)), [x], test)
                    weakest = max(weakest, (float(p[0]), -float(excess[0])))
                    n_tests += 1
        contested.append((weakest, (i, k, j)))
    for _, (i, k, j) in sorted(contested):
        if (k, i) not in directed and (k, j) not in directed:
            directed |= {(i, k), (j, k)}
    return directed, n_tests


def _p_values(data: _Data, y: int, given: Sequence[int], others: Sequence[int], test: str) -> tuple[Array, Array]:
    """Of tests of y against others; and by how many standard deviations the statistics exceed what is expected."""
    cells = data.cells(y, given, others)
    statistic, freedom = np.empty(len(others)), np.empty(len(others))
    structure.independence(
        cells.counts, cells.group, data.first, data.cardinality, np.array(others), test == "chi2", statistic, freedom
    )
    some = np.maximum(freedom, 1)
    p = np.where(freedom > 0, chdtrc(some, np.maximum(statistic, 0)), 1.0)
    return p, (statistic - freedom) / np.sqrt(2 * some)


def _meek(directed: set[tuple[int, int]], undirected: set[tuple[int, int]], near: Sequence[set[int]]) -> None:
    """Direct the edges that could not be otherwise without a new collider or a cycle: rules 1 to 3."""

    def free(i: int, j: int) -> bool:
        return (min(i, j), max(i, j)) in undirected

    def forced(i: int, j: int) -> bool:
        into_i = [k for k in near[i] if (k, i) in directed]
        if any(k != j and k not in near[j] for k in into_i):
            return True
        into_j = [k for k in near[j] if (k, j) in directed]
        if any((i, k) in directed for k in into_j):
            return True
        between = [k for k in into_j if free(i, k)]
        return any(b not in near[a] for a, b in combinations(between, 2))

    while True:  # all at once, so that their order does not matter; what is forced both ways stays as it is
        either = [((i, j), forced(i, j), forced(j, i)) for i, j in undirected]
        new = {edge: edge if there else edge[::-1] for edge, there, back in either if there != back}
        if not new:
            return
        undirected.difference_update(new)
        directed.update(new.values())


def cpdag(parents: Sequence[Sequence[int]]) -> Pattern:
    """Markov equivalence class of a directed acyclic graph: what data alone can tell of it.

    An arc is directed if it has this direction in all graphs with the same edges and the same colliders (variables with
    two parents that are not joined).

    Parameters
    ----------
    parents : sequence of sequences of int
        Of each variable.

    Returns
    -------
    Pattern

    Raises
    ------
    ValueError
        Numbers that are no other variables, a parent twice, a cycle.

    References
    ----------
    T. Verma, J. Pearl, Equivalence and synthesis of causal models, UAI 1990.
    C. Meek, Causal inference and causal explanation with background knowledge, UAI 1995.

    Examples
    --------
    >>> from fastgen.graphical import cpdag
    >>> cpdag([(), (0,), (1,)]).undirected == {(0, 1), (1, 2)}
    True
    >>> sorted(cpdag([(), (), (0, 1), (2,)]).directed)
    [(0, 2), (1, 2), (2, 3)]
    """
    chosen = _check_parents(parents, len(parents))
    near = [set(own) for own in chosen]
    for y, own in enumerate(chosen):
        for x in own:
            near[x].add(y)
    directed = {
        (x, y) for y, own in enumerate(chosen) for a, b in combinations(own, 2) if b not in near[a] for x in (a, b)
    }
    arcs = ((x, y) for y, own in enumerate(chosen) for x in own)
    undirected = {(min(x, y), max(x, y)) for x, y in arcs if (x, y) not in directed}
    _meek(directed, undirected, near)
    return Pattern(len(chosen), frozenset(directed), frozenset(undirected))


def structural_hamming_distance(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> int:
    """Pairs of variables on whose edge (none, either direction) two graphs differ.

    Parameters
    ----------
    a, b : parents of each variable
    """
    if len(a) != len(b):
        raise ValueError(f"the graphs must have the same variables, got {len(a)} and {len(b)}")
    arcs = [{(x, y) for y, own in enumerate(parents) for x in own} for parents in (a, b)]
    return len({(min(pair), max(pair)) for pair in arcs[0] ^ arcs[1]})
