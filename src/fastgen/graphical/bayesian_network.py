"""Bayesian networks of discrete variables: learned from data, asked anything, many rows at a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fastgen._em import Fit, expectation_maximisation
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._validation import Array, as_generator, check_choice, check_number
from fastgen.graphical import _separation
from fastgen.graphical._engine import Engine, EngineLimitError, _distinct
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical._families import family_counts
from fastgen.graphical._rows import NetworkRows
from fastgen.graphical._states import Codes, Coding, with_weight
from fastgen.graphical._structures import Structure, learn_parents

__all__ = ["BayesianNetwork", "Inference", "Query"]

_METHODS = "auto", "exact", "loopy", "mean_field", "gibbs", "likelihood_weighting"


@dataclass(frozen=True)
class Inference:
    """Posterior marginals, and how they were found."""

    marginals: dict[Any, Array]
    """For each variable (n, states): its distribution given each row; NaN where the row is impossible."""
    log_evidence: Array
    """(n,): log P(evidence), -inf where it is impossible. An estimate, or NaN, if the method gives none exactly."""
    method: str
    exact: bool
    details: Any = None
    """Results of an approximate method, one for each row: convergence, standard errors, ..."""


@dataclass(frozen=True)
class Query:
    """The answer to one question."""

    variables: tuple[Any, ...]
    states: tuple[tuple[Any, ...], ...]
    """The values of each variable: what the entries along its axis stand for."""
    probabilities: Array
    """Joint distribution of the variables, one axis for each."""
    log_evidence: float
    method: str
    exact: bool


class BayesianNetwork(FastgenEstimator):
    """A directed model of discrete variables: ``p(x) = prod_i p(x_i | x_parents(i))``.

    Parameters
    ----------
    structure : iterable of (parent, child), str, callable, default="hill_climb"
        The arcs, by names or numbers of columns; or how to learn them from complete data: ``"hill_climb"`` (with
        `score`), ``"tabu"`` (searches longer), ``"chow_liu"``, ``"pc"``, ``"empty"``; or a function of (codes,
        cardinalities) that returns the parents of each variable. Keywords for the learner: `structure_options`.
    structure_options : dict, default=None
        See `fastgen.graphical.hill_climb`, `chow_liu`, `pc_stable`.
    states : mapping, default=None
        For some columns, all values that may occur, in the order that the states are to have.
    prior : None, "k2", "bdeu" or float, default=None
        Pseudo-counts: none (maximum likelihood), 1 for each entry of a table, ``equivalent_sample_size`` spread over
        each table, or this number for each entry.
    equivalent_sample_size : float, default=10
        Of the prior "bdeu".
    tol : float, default=1e-4
        EM stops when the log-likelihood per row gains less.
    max_iter : int, default=200
    n_init : int, default=1
        Starts of EM; the first is what the observed cells say, others are random.
    random_state : None, int, Generator or RandomState
    limit : int, default=2**31
        The most memory, in bytes, that exact inference may take.

    Attributes
    ----------
    network_ : DiscreteNetwork
        Names, states, parents, tables.
    edges_ : list of (parent, child)
    categories_ : dict
        The values that the states of each variable stand for.
    n_features_in_, feature_names_in_
        As in scikit-learn.
    history_, n_iter_, stop_reason_
        Of EM: log-likelihood per row (with the log-density of the prior).

    Notes
    -----
    A cell is missing if it is NaN or None, in a data frame also if the column is absent, in an array of integers if it
    is -1. Missing cells are taken to be missing at random, and are summed over exactly. Configurations of parents
    without data (nor prior) get the uniform distribution.

    References
    ----------
    D. Koller, N. Friedman, Probabilistic Graphical Models, 2009, chapters 3, 17 to 19.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.graphical import BayesianNetwork
    >>> X = np.array([[0, 0], [0, 0], [0, 1], [1, 1]])
    >>> model = BayesianNetwork([(0, 1)]).fit(X)
    >>> model.query([0], {1: 1}).probabilities.round(3)
    array([0.5, 0.5])
    """

    def __init__(
        self,
        structure: Iterable[tuple[Any, Any]] | str | Structure = "hill_climb",
        *,
        structure_options: Mapping[str, Any] | None = None,
        states: Mapping[Any, Sequence[Any]] | None = None,
        prior: str | float | None = None,
        equivalent_sample_size: float = 10.0,
        tol: float = 1e-4,
        max_iter: int = 200,
        n_init: int = 1,
        random_state: Any = None,
        limit: int = 1 << 31,
    ) -> None:
        self.structure = structure
        self.structure_options = structure_options
        self.states = states
        self.prior = prior
        self.equivalent_sample_size = equivalent_sample_size
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.limit = limit

    # ---- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def from_tables(
        cls,
        states: Mapping[str, Sequence[Any]],
        tables: Mapping[str, ArrayLike],
        parents: Mapping[str, Iterable[str]] | None = None,
        **parameters: Any,
    ) -> Self:
        """Return the network with these tables.

        Parameters
        ----------
        states : mapping
            The values of each variable.
        tables : mapping
            For each variable ``p(own state | states of the parents)``, of shape (states of the parents ..., own
            states).
        parents : mapping, optional
            Of each variable that has some.
        **parameters
            Of the model.

        Raises
        ------
        NetworkError
            A cycle, a table of another shape, rows that do not sum to 1, ...
        """
        coding = Coding(tuple(states), tuple(map(tuple, states.values())))
        texts = dict(zip(coding.names, coding.state_names, strict=True))
        return cls._made(DiscreteNetwork.of(texts, tables, parents), coding, parameters)

    @classmethod
    def from_network(cls, network: DiscreteNetwork, **parameters: Any) -> Self:
        """Return the model of a network; its states are text."""
        return cls._made(network, Coding(network.names, network.states), parameters)

    @classmethod
    def read(cls, path: Any, **parameters: Any) -> Self:
        """Read a file, whose suffix names its format: BIF, XMLBIF, NET, DSL, XDSL, UAI (see `formats`)."""
        from fastgen.graphical.formats import read_network

        return cls.from_network(read_network(path), **parameters)

    def write(self, path: Any) -> None:
        """Write a file, whose suffix names its format."""
        from fastgen.graphical.formats import write_network

        check_is_fitted(self)
        write_network(self.network_, path)

    @classmethod
    def _made(cls, network: DiscreteNetwork, coding: Coding, parameters: dict[str, Any]) -> Self:
        edges = [(coding.names[parent], coding.names[child]) for parent, child in network.arcs]
        model = cls(edges, states=dict(zip(coding.names, coding.categories, strict=True)), **parameters)
        model._set(network, coding)
        return model

    def _set(self, network: DiscreteNetwork, coding: Coding) -> None:
        for name in ("_engine", "_rows"):
            self.__dict__.pop(name, None)
        self.network_ = network
        self._coding = coding
        self.n_features_in_ = len(coding.names)
        if all(isinstance(name, str) for name in coding.names):
            self.feature_names_in_ = np.array(coding.names, object)

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        for name in ("_engine", "_rows"):  # made again when they are needed
            state.pop(name, None)
        return state

    @property
    def edges_(self) -> list[tuple[Any, Any]]:
        """The arcs, by name."""
        names = self._coding.names
        return [(names[parent], names[child]) for parent, child in self.network_.arcs]

    @property
    def categories_(self) -> dict[Any, tuple[Any, ...]]:
        """The values that the states of each variable stand for."""
        return dict(zip(self._coding.names, self._coding.categories, strict=True))

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.network_.factor_graph(), limit=self.limit)

    @cached_property
    def _rows(self) -> NetworkRows:
        return NetworkRows(self.network_)

    # ---- fit -------------------------------------------------------------------------------------------------------

    @atomic
    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the structure, unless it is given, and the tables.

        Parameters
        ----------
        X : array or data frame (n, V)
            See `Notes` for missing cells; with some, tables come from EM, and the structure must be given.
        y : ignored
        sample_weight : array (n,), optional

        Returns
        -------
        self
        """
        self._forget()
        X, _, weights = with_weight(X, None, sample_weight)
        return self._fit_codes(*Coding.of(X, self.states, self), weights)

    def _fit_codes(self, coding: Coding, codes: Codes, weights: Array | None) -> Self:
        missing = codes.dtype.kind == "i" and bool((codes < 0).any())
        parents = self._parents(coding, codes, weights, missing)
        if missing:
            tables = self._fit_missing(coding, codes, weights, parents)
        else:
            counts = family_counts(codes, coding.sizes, parents, weights)
            tables = _maximise(counts, self._pseudo_counts(coding, parents))
            self._report(Fit(None, None, (), "closed form"))
        names = tuple(map(str, coding.names))
        self._set(DiscreteNetwork(names, coding.state_names, parents, tuple(tables)), coding)
        return self

    def _parents(
        self, coding: Coding, codes: Codes, weights: Array | None, missing: bool
    ) -> tuple[tuple[int, ...], ...]:
        if isinstance(self.structure, str) or callable(self.structure):
            if missing and self.structure != "empty":
                raise ValueError(
                    "the structure cannot be learned from rows with missing cells: give its arcs, or learn them from "
                    "the complete rows"
                )
            return learn_parents(self.structure, codes, coding.sizes, weights, dict(self.structure_options or {}))
        parents: list[list[int]] = [[] for _ in coding.names]
        for arc in self.structure:
            try:
                parent, child = arc
            except (TypeError, ValueError):
                raise ValueError(f"structure must have pairs (parent, child), got {arc!r}") from None
            parents[coding.variable(child)].append(coding.variable(parent))
        return tuple(map(tuple, parents))

    def _pseudo_counts(self, coding: Coding, parents: Sequence[Sequence[int]]) -> list[float]:
        """For each entry of each table."""
        prior = self.prior
        if prior == "bdeu":
            check_number(self.equivalent_sample_size, "equivalent_sample_size", Real, 0)
            sizes = coding.sizes
            return [
                self.equivalent_sample_size / float(np.prod([sizes[j] for j in (*chosen, i)], dtype=float))
                for i, chosen in enumerate(parents)
            ]
        if prior is not None and prior != "k2":
            check_number(prior, "prior (None, 'k2', 'bdeu' or a number)", Real, 0)
            return [float(prior)] * len(parents)
        return [0.0 if prior is None else 1.0] * len(parents)

    def _fit_missing(
        self, coding: Coding, codes: Codes, weights: Array | None, parents: tuple[tuple[int, ...], ...]
    ) -> list[Array]:
        """EM, on the rows that differ."""
        check_number(self.tol, "tol", Real, 0)
        check_number(self.max_iter, "max_iter", Integral, 1)
        check_number(self.n_init, "n_init", Integral, 1)
        rng = as_generator(self.random_state)
        pseudo = self._pseudo_counts(coding, parents)
        data, each = np.ascontiguousarray(codes, np.int32), np.ones(len(codes)) if weights is None else weights
        if (distinct := _distinct(data)) is not None:
            first, kind = distinct
            data, each = data[first], np.bincount(kind, each).astype(np.float64)
        data, each = data[each > 0], each[each > 0]
        names = tuple(map(str, coding.names))
        start = _available_tables(data, each, coding.sizes, parents)
        network = DiscreteNetwork(names, coding.state_names, parents, tuple(start))
        engine = Engine(network.factor_graph(), limit=self.limit)
        engine.log_evidence(data[:1])  # refuses what is too large

        def e_step(tables: list[Array]) -> tuple[float, Any]:
            graph = DiscreteNetwork(names, coding.state_names, parents, tuple(tables)).factor_graph()
            counts, log_evidence = engine.with_tables(graph).expected_counts(data, each)
            objective = float(each @ log_evidence)
            for a, table in zip(pseudo, tables, strict=True):
                if a > 0:
                    objective += a * float(np.log(table).sum())
            return objective / float(each.sum()), counts

        def m_step(tables: list[Array], counts: Any) -> list[Array]:
            return _maximise(counts, pseudo, tables)

        best: Fit | None = None
        for trial in range(self.n_init):
            tables = start if trial == 0 else [_perturbed(table, rng) for table in start]
            if trial == 0 and not (data >= 0).any(axis=0).all():  # hidden variables: a start must not be symmetric
                tables = [_perturbed(table, rng) for table in start]
            fit = expectation_maximisation(tables, e_step, m_step, tol=self.tol, max_iter=self.max_iter)
            if best is None or fit.history[-1] > best.history[-1]:
                best = fit
        assert best is not None
        self._report(best)
        return list(best.parameters)

    # ---- rows ------------------------------------------------------------------------------------------------------

    def _encode(self, X: Any) -> Codes:
        check_is_fitted(self, "network_")
        return self._coding.encode(X, estimator=self)

    def log_prob(self, X: Any) -> Array:
        """log p(x) of each row, summed over what is missing; -inf for what is impossible.

        Parameters
        ----------
        X : array or data frame (n, V)

        Returns
        -------
        array (n,)
        """
        codes = self._encode(X)
        if codes.dtype.kind == "u" or int(codes.min()) >= 0:
            return self._rows.log_prob(codes)
        return self._engine.log_evidence(codes)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log p(x)."""
        return float(self.log_prob(X).mean())

    def aic(self, X: Any) -> float:
        """Akaike's information criterion: lower is better."""
        return float(-2 * self.log_prob(X).sum() + 2 * self.network_.n_parameters)

    def bic(self, X: Any) -> float:
        """Schwarz's information criterion: lower is better."""
        log_prob = self.log_prob(X)
        return float(-2 * log_prob.sum() + np.log(len(log_prob)) * self.network_.n_parameters)

    def sample(
        self,
        n_samples: int = 1,
        random_state: Any = None,
        *,
        evidence: Mapping[Any, Any] | None = None,
        codes: bool = False,
        as_frame: bool | None = None,
    ) -> Any:
        """Draw rows, exactly.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, Generator or RandomState
        evidence : mapping, optional
            Values of some variables: the others are drawn given these.
        codes : bool
            Return numbers of states, (n, V) unsigned integers, instead of values.
        as_frame : bool, optional
            Return a pandas data frame; by default what the data were at the fit.

        Returns
        -------
        array or data frame (n, V)

        Raises
        ------
        ValueError
            If the evidence is impossible, with the values that contradict each other.
        """
        check_is_fitted(self, "network_")
        check_number(n_samples, "n_samples", Integral, 1)
        rng = as_generator(self.random_state if random_state is None else random_state)
        if evidence:
            row = self._evidence(evidence)
            if self._engine.log_evidence(row)[0] == -np.inf:
                raise ValueError(self._cause(row))
            drawn: Codes = self._engine.sample(n_samples, row[0], rng)
        else:
            drawn = self._rows.draw(n_samples, rng)
        return drawn if codes else self._coding.decode(drawn, as_frame=as_frame)

    # ---- inference -------------------------------------------------------------------------------------------------

    def predict_proba(self, X: Any, targets: Iterable[Any] | None = None) -> dict[Any, Array]:
        """Posterior distributions given the observed cells of each row.

        Parameters
        ----------
        X : array or data frame (n, V)
        targets : iterable, optional
            Variables; by default all that are missing in some row.

        Returns
        -------
        dict of arrays (n, states)
            In the order of ``categories_``; NaN where the row is impossible.
        """
        codes = self._encode(X)
        return self._infer(codes, self._targets(codes, targets), None, "exact", {}).marginals

    def infer(
        self,
        X: Any = None,
        *,
        targets: Iterable[Any] | None = None,
        soft: Mapping[Any, ArrayLike] | None = None,
        method: str = "auto",
        **options: Any,
    ) -> Inference:
        """Posterior marginals by the method of choice, and whether they are exact.

        Parameters
        ----------
        X : array, data frame (n, V), or mapping, optional
            Observed cells; a mapping from variables to values is one row; None: nothing is observed.
        targets : iterable, optional
            Variables; all by default.
        soft : mapping, optional
            For some variables the likelihood of what was seen in each of their states, (states,) or (n, states).
        method : {"auto", "exact", "loopy", "mean_field", "gibbs", "likelihood_weighting"}
            "auto" is exact if the forecast allows, otherwise loopy belief propagation.
        **options
            Of the approximate method.

        Returns
        -------
        Inference

        Raises
        ------
        EngineLimitError
            ``method="exact"`` would need more than `limit`.
        """
        check_choice(method, "method", _METHODS)
        codes = self._observed(X)
        chosen = range(len(self._coding.names)) if targets is None else map(self._coding.variable, targets)
        return self._infer(codes, list(chosen), soft, method, options)

    def _infer(self, codes: Codes, targets: list[int], soft: Any, method: str, options: dict[str, Any]) -> Inference:
        names = self._coding.names
        soft = None if soft is None else {self._coding.variable(name): value for name, value in soft.items()}
        if method in ("auto", "exact"):
            try:
                marginals, log_evidence = self._engine.marginals(codes, soft, targets)
                found = {names[i]: table for i, table in zip(targets, marginals, strict=True)}
                return Inference(found, log_evidence, "exact", True)
            except EngineLimitError:
                if method == "exact":
                    raise
                method = "loopy"
        if soft:
            raise ValueError(f"soft evidence needs exact inference, not method={method!r}")
        from fastgen.graphical._approximate import approximate

        marginals, log_evidence, exact, details = approximate(self.network_, codes, targets, method, options)
        found = {names[i]: table for i, table in zip(targets, marginals, strict=True)}
        return Inference(found, log_evidence, method, exact, details)

    def query(
        self,
        targets: Iterable[Any] | Any,
        evidence: Mapping[Any, Any] | None = None,
        *,
        soft: Mapping[Any, ArrayLike] | None = None,
        method: str = "auto",
        **options: Any,
    ) -> Query:
        """Joint distribution of some variables given the values of others.

        Parameters
        ----------
        targets : variable or iterable of variables
        evidence : mapping, optional
            From variables to values.
        soft : mapping, optional
            See `infer`.
        method, **options
            See `infer`; joint distributions of several variables are exact ones.

        Returns
        -------
        Query

        Raises
        ------
        ValueError
            If the evidence is impossible, with the values that contradict each other.
        """
        check_is_fitted(self, "network_")
        coding = self._coding
        if isinstance(targets, str) or not isinstance(targets, Iterable):
            targets = [targets]
        chosen = [coding.variable(name) for name in targets]
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"targets must be variables, each once, got {list(targets)}")
        row = self._evidence(evidence or {})
        if len(chosen) > 1 and method not in ("auto", "exact"):
            raise ValueError(f"joint distributions need exact inference, not method={method!r}")
        # the last target given all states of the others: p(a, b) = p(a) p(b | a)
        *others, last = chosen
        shape = tuple(coding.sizes[i] for i in others)
        rows = np.repeat(row, int(np.prod(shape, dtype=np.int64)), axis=0)
        grid = np.indices(shape).reshape(len(others), len(rows))
        possible = np.ones(len(rows), bool)
        for i, states in zip(others, grid, strict=True):
            possible &= (row[0, i] < 0) | (row[0, i] == states)
            rows[:, i] = states
        result = self._infer(rows, [last], soft, method if len(chosen) == 1 else "exact", options)
        logs = np.where(possible, result.log_evidence, -np.inf)
        (table,) = result.marginals.values()
        peak = logs.max()
        if peak == -np.inf:
            raise ValueError(self._cause(row))
        with np.errstate(invalid="ignore"):
            weights = np.ones(1) if len(rows) == 1 else np.exp(logs - peak)
            joint = np.where(weights[:, None] > 0, weights[:, None] * table, 0.0)
        log_evidence = float(peak + np.log(weights.sum()))
        return Query(
            tuple(coding.names[i] for i in chosen),
            tuple(coding.categories[i] for i in chosen),
            (joint / weights.sum()).reshape(*shape, coding.sizes[last]),
            log_evidence,
            result.method,
            result.exact,
        )

    def predict(self, X: Any, targets: Iterable[Any] | None = None) -> Any:
        """X with each missing cell replaced by its most probable value, each by itself.

        Parameters
        ----------
        X : array or data frame (n, V)
        targets : iterable, optional
            Variables: only their columns are returned, and what is observed in them counts as evidence.

        Returns
        -------
        array or data frame
            (n, V), or (n, targets). Cells of impossible rows stay missing.
        """
        check_is_fitted(self, "network_")
        if targets is None:
            return self.impute(X, method="mode")
        chosen = [self._coding.variable(name) for name in targets]
        codes = self._encode(X)
        return self._coding.decode(self._modes(codes, chosen), chosen)

    def _modes(self, codes: Codes, targets: list[int]) -> Codes:
        tables, log_evidence = self._engine.marginals(codes, None, targets)
        out = np.stack([table.argmax(axis=1) for table in tables], axis=1)
        out[log_evidence == -np.inf] = -1
        return out

    def impute(self, X: Any, method: str = "mode", random_state: Any = None) -> Any:
        """Fill in the missing cells.

        Parameters
        ----------
        X : array or data frame (n, V)
        method : {"mode", "mpe", "sample"}
            The most probable value of each cell; the most probable values of all missing cells of a row together; or a
            draw of all of them together.
        random_state : None, int, Generator or RandomState

        Returns
        -------
        array or data frame (n, V)
            Cells of impossible rows stay missing.
        """
        check_choice(method, "method", ("mode", "mpe", "sample"))
        codes = self._encode(X)
        filled = codes.astype(np.int64)
        rows = np.flatnonzero((codes < 0).any(axis=1))
        part = np.ascontiguousarray(filled[rows])
        if method == "mpe":
            part = self._engine.mpe(part)[0] if len(rows) else part
        elif len(rows):
            targets = list(map(int, np.flatnonzero((part < 0).any(axis=0))))
            if method == "mode":
                found = part.copy()
                found[:, targets] = self._modes(part, targets)
            else:
                rng = as_generator(self.random_state if random_state is None else random_state)
                possible = self._engine.log_evidence(part) > -np.inf
                found = part.copy()
                if possible.any():
                    found[possible] = self._engine.sample(1, part[possible], rng)[:, 0]
            part = np.where(part < 0, found, part)
        filled[rows] = part
        return self._coding.decode(filled)

    def mpe(self, X: Any = None) -> Any:
        """Most probable explanation: all missing cells of a row filled in together; see `impute`.

        Parameters
        ----------
        X : array, data frame (n, V), or mapping, optional
            As in `infer`.

        Returns
        -------
        array or data frame (n, V), or dict if X is a mapping or None
        """
        codes = self._observed(X)
        states, log_value = self._engine.mpe(codes)
        if X is None or isinstance(X, Mapping):
            if log_value[0] == -np.inf:
                raise ValueError(self._cause(codes))
            return {
                name: values[state]
                for name, values, state in zip(self._coding.names, self._coding.categories, states[0], strict=True)
            }
        return self._coding.decode(states)

    def _observed(self, X: Any) -> Codes:
        check_is_fitted(self, "network_")
        return self._evidence(X or {}) if X is None or isinstance(X, Mapping) else self._encode(X)

    def _evidence(self, evidence: Mapping[Any, Any]) -> NDArray[np.int64]:
        row = np.full((1, len(self._coding.names)), -1, np.int64)
        for name, value in evidence.items():
            i, state = self._coding.state(name, value)
            row[0, i] = state
        return row

    def _targets(self, codes: Codes, targets: Iterable[Any] | None) -> list[int]:
        if targets is not None:
            return [self._coding.variable(name) for name in targets]
        return list(map(int, np.flatnonzero((codes < 0).any(axis=0))))

    def _cause(self, row: Codes) -> str:
        """Why the evidence is impossible: values that are so together, and none of which can be left out."""
        found = row.copy()
        observed = [int(i) for i in np.flatnonzero(row[0] >= 0)]
        for i in observed:
            less = found.copy()
            less[0, i] = -1
            if self._engine.log_evidence(less)[0] == -np.inf:
                found = less
        names, categories = self._coding.names, self._coding.categories
        values = [f"{names[i]!r} = {categories[i][found[0, i]]!r}" for i in observed if found[0, i] >= 0]
        return f"the evidence has probability 0: {' and '.join(values) or 'the network itself'} cannot occur" + (
            " together" if len(values) > 1 else ""
        )

    # ---- the graph -------------------------------------------------------------------------------------------------

    def d_separated(self, x: Iterable[Any] | Any, y: Iterable[Any] | Any, given: Iterable[Any] = ()) -> bool:
        """Whether the arcs alone make x and y independent given others.

        Parameters
        ----------
        x, y, given : variable, or iterable of variables
        """
        check_is_fitted(self, "network_")
        sets = [
            [self._coding.variable(v) for v in ([s] if isinstance(s, str) or not isinstance(s, Iterable) else s)]
            for s in (x, y, given)
        ]
        return _separation.d_separated(self.network_.parents, *sets)

    def markov_blanket(self, variable: Any) -> list[Any]:
        """Parents, children, and other parents of these: given them, nothing else tells about the variable."""
        check_is_fitted(self, "network_")
        found = _separation.markov_blanket(self.network_.parents, self._coding.variable(variable))
        return [self._coding.names[i] for i in sorted(found)]

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the network, with graphviz's layout where it is installed; return the Axes."""
        from fastgen.graphical._plot import plot

        check_is_fitted(self, "network_")
        return plot(self.network_.names, self.network_.arcs, ax=ax, **options)


def _maximise(counts: Iterable[Array], pseudo: Sequence[float], before: Sequence[Array] | None = None) -> list[Array]:
    """Tables from counts; where there are none, the rows from before, or uniform ones."""
    tables = []
    for i, count in enumerate(counts):
        total = count + pseudo[i]
        sums = total.sum(axis=-1, keepdims=True)
        table = np.full(total.shape, 1 / total.shape[-1]) if before is None else np.array(before[i])
        np.divide(total, sums, out=table, where=sums > 0)
        tables.append(table)
    return tables


def _available_tables(
    codes: NDArray[np.int32], weights: Array, sizes: Sequence[int], parents: Sequence[Sequence[int]]
) -> list[Array]:
    """A start for EM, positive everywhere: tables from the rows that are complete for each family, smoothed."""
    counts = []
    for i, chosen in enumerate(parents):
        family = [*chosen, i]
        part = codes[:, family]
        rows = (part >= 0).all(axis=1)
        shape = tuple(sizes[j] for j in family)
        place = np.ravel_multi_index(tuple(part[rows].T), shape) if rows.any() else np.empty(0, np.intp)
        found = np.bincount(place, weights[rows], minlength=int(np.prod(shape))).astype(np.float64)
        counts.append(found.reshape(shape))
    return _maximise(counts, [1.0] * len(counts))


def _perturbed(table: Array, rng: np.random.Generator) -> Array:
    """Rows drawn about those of the table."""
    drawn = rng.gamma(2.0, size=table.shape) * table
    return np.asarray(drawn / drawn.sum(axis=-1, keepdims=True), np.float64)
