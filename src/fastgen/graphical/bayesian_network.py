"""Bayesian networks of discrete variables: learned from data, asked anything, many rows at a time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from fastgen._em import Fit, expectation_maximisation
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._validation import Array, as_floats, as_generator, check_choice, check_number
from fastgen.graphical import _separation
from fastgen.graphical._approximate import approximate, check_options
from fastgen.graphical._arcs import lasting, pairs
from fastgen.graphical._engine import Cost, Engine, EngineLimitError, _distinct, _large
from fastgen.graphical._factors import DiscreteNetwork
from fastgen.graphical._families import family_counts
from fastgen.graphical._rows import NetworkRows
from fastgen.graphical._states import Codes, Coding, with_weight
from fastgen.graphical._structures import Structure, learn_parents

__all__ = ["BayesianNetwork", "Inference", "Query"]

_METHODS = "auto", "exact", "loopy", "mean_field", "gibbs", "likelihood_weighting"
_MOST_AXES = 64  # of an array of NumPy
_JOINT_ROWS = 1 << 15  # of a joint distribution, at a time
_FORECAST_ROWS = 256
_JOINT_COPIES = 3  # of its entries, while it is made


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
        The arcs, by names or numbers of columns (an iterator is read when the model is made); or how to learn them from
        complete data: ``"hill_climb"`` (with `score`), ``"tabu"`` (searches longer), ``"chow_liu"``, ``"pc"``,
        ``"empty"``; or a function of (codes, cardinalities) that returns the parents of each variable. Keywords for the
        learner: `structure_options`.
    structure_options : dict, default=None
        See `fastgen.graphical.hill_climb`, `chow_liu`, `pc_stable`. An error where nothing takes them.
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

    *Cost.* V variables, n rows. What knows all cells of a row takes O(V + arcs) for it. Exact inference takes, for each
    row that differs from the others, one pass over the tables of the cliques: these grow with the product of the
    numbers of states of the variables in a clique, so exponentially with the width of the graph. The first time also a
    plan is made. What it needs is known before it begins, and refused above `limit`.

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
        self.structure = lasting(structure)
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

        Returns
        -------
        BayesianNetwork

        Raises
        ------
        NetworkError
            A cycle, a table of another shape, rows that do not sum to 1, ...

        Notes
        -----
        O(V + arcs + entries of the tables).
        """
        coding = Coding(tuple(states), tuple(map(tuple, states.values())))
        texts = dict(zip(coding.names, coding.state_names, strict=True))
        return cls._made(DiscreteNetwork.of(texts, tables, parents), coding, parameters)

    @classmethod
    def from_network(cls, network: DiscreteNetwork, **parameters: Any) -> Self:
        """Return the model of a network; its states are text.

        Parameters
        ----------
        network : DiscreteNetwork
        **parameters
            Of the model.

        Returns
        -------
        BayesianNetwork

        Notes
        -----
        O(V + arcs): tables are not copied.
        """
        return cls._made(network, Coding(network.names, network.states), parameters)

    @classmethod
    def read(cls, path: Any, **parameters: Any) -> Self:
        """Read a file, whose suffix names its format: BIF, XMLBIF, NET, DSL, XDSL, UAI (see `formats`).

        Parameters
        ----------
        path : path-like
        **parameters
            Of the model.

        Returns
        -------
        BayesianNetwork

        Raises
        ------
        formats.FormatError
            The file is malformed; with line and column.
        ValueError
            The suffix is unknown.

        Notes
        -----
        Linear in the length of the file.
        """
        from fastgen.graphical.formats import read_network

        return cls.from_network(read_network(path), **parameters)

    def write(self, path: Any) -> None:
        """Write a file, whose suffix names its format.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            The suffix is unknown, or the format cannot hold a name; nothing is written then.

        Notes
        -----
        Linear in the entries of the tables.
        """
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
        for name in ("_made_engine", "_rows"):
            self.__dict__.pop(name, None)
        self.network_ = network
        self._coding = coding
        self.n_features_in_ = len(coding.names)
        if all(isinstance(name, str) for name in coding.names):
            self.feature_names_in_ = np.array(coding.names, object)

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        for name in ("_made_engine", "_rows"):  # made again when they are needed
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

    @property
    def _engine(self) -> Engine:
        """One engine as long as the limit stays the same."""
        engine: Engine | None = self.__dict__.get("_made_engine")
        if engine is None or engine.limit != self.limit:
            engine = self._made_engine = Engine(self.network_.factor_graph(), limit=self.limit)
        return engine

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
            Of the structure, too, if it is learned by name; a function does not get them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Values that are no states, unknown options, a structure to be learned from missing cells, ...
        NetworkError
            The arcs have a cycle.
        EngineLimitError
            With missing cells: the posteriors would need more than `limit`.

        Notes
        -----
        Given arcs, complete rows: O(n V) and a table for each variable. With missing cells an iteration of EM costs
        as much as `predict_proba` for all variables. Learners have costs of their own.
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
            options = dict(self.structure_options or {})
            if options and (callable(self.structure) or self.structure == "empty"):
                raise ValueError(f"structure={self.structure!r} takes no structure_options, got {options}")
            return learn_parents(self.structure, codes, coding.sizes, weights, options)
        if self.structure_options:
            raise ValueError(
                f"structure_options are for a learner, but the arcs are given; got {dict(self.structure_options)}"
            )
        parents: list[list[int]] = [[] for _ in coding.names]
        for arc in pairs(self.structure, "structure"):
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
        """log p(x) of each row, in nats, summed over what is missing; -inf for what is impossible.

        Parameters
        ----------
        X : array or data frame (n, V)

        Returns
        -------
        array (n,)

        Raises
        ------
        EngineLimitError
            Cells are missing, and to sum over them would need more than `limit`.

        Notes
        -----
        O(n (V + arcs)) for complete rows; with missing cells as `predict_proba`.
        """
        codes = self._encode(X)
        if codes.dtype.kind == "u" or int(codes.min()) >= 0:
            return self._rows.log_prob(codes)
        return self._engine.log_evidence(codes)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log p(x), in nats.

        Parameters
        ----------
        X : array or data frame (n, V)
        y : ignored

        Returns
        -------
        float

        Notes
        -----
        As `log_prob`.
        """
        return float(self.log_prob(X).mean())

    def aic(self, X: Any) -> float:
        """Akaike's information criterion, -2 log L + 2 (free parameters): lower is better.

        Parameters
        ----------
        X : array or data frame (n, V)

        Returns
        -------
        float

        Notes
        -----
        As `log_prob`.
        """
        return float(-2 * self.log_prob(X).sum() + 2 * self.network_.n_parameters)

    def bic(self, X: Any) -> float:
        """Schwarz's information criterion, -2 log L + log(n) (free parameters): lower is better.

        Parameters
        ----------
        X : array or data frame (n, V)

        Returns
        -------
        float

        Notes
        -----
        As `log_prob`.
        """
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
            Return a data frame, of polars if the model was fitted to one of these, otherwise of pandas; False: an
            array. By default what the data were at the fit.

        Returns
        -------
        array or data frame (n, V)

        Raises
        ------
        ValueError
            If the evidence is impossible, with the values that contradict each other.
        EngineLimitError
            With evidence: it would need more than `limit`.

        Notes
        -----
        O(n (V + arcs)). With evidence one pass over the cliques, and for each draw the states of the variables one by
        one, from tables over their cliques.
        """
        check_is_fitted(self, "network_")
        check_number(n_samples, "n_samples", Integral, 1)
        rng = as_generator(self.random_state if random_state is None else random_state)
        if evidence:
            row = self._evidence(evidence)
            if self._engine.log_evidence(row)[0] == -np.inf:
                raise ValueError(self._cause(row))
            drawn: Codes = self._engine.sample(n_samples, row[0], rng)
            drawn = drawn.astype(np.min_scalar_type(max(self._coding.sizes) - 1))
        else:
            drawn = self._rows.draw(n_samples, rng)
        return drawn if codes else self._coding.decode(drawn, as_frame=as_frame)

    # ---- inference -------------------------------------------------------------------------------------------------

    def predict_proba(self, X: Any, targets: Any = None) -> dict[Any, Array]:
        """Posterior distributions given the observed cells of each row, exactly.

        Parameters
        ----------
        X : array or data frame (n, V)
        targets : variable or iterable of variables, optional
            By default all that are missing in some row.

        Returns
        -------
        dict of arrays (n, states)
            In the order of ``categories_``; NaN where the row is impossible.

        Raises
        ------
        EngineLimitError
            It would need more than `limit`.

        Notes
        -----
        One pass over the cliques for each row that differs from the others: see *Cost* in the notes of the class.
        """
        codes = self._encode(X)
        return self._infer(codes, self._targets(codes, targets), None, "exact", {}).marginals

    def infer(
        self,
        X: Any = None,
        *,
        targets: Any = None,
        soft: Mapping[Any, ArrayLike] | None = None,
        method: str = "auto",
        **options: Any,
    ) -> Inference:
        """Posterior marginals by the method of choice, and whether they are exact.

        Parameters
        ----------
        X : array, data frame (n, V), or mapping, optional
            Observed cells; a mapping from variables to values is one row; None: nothing is observed.
        targets : variable or iterable of variables, optional
            All by default.
        soft : mapping, optional
            For some variables the likelihood of what was seen in each of their states, (states,) or (n, states).
        method : {"auto", "exact", "loopy", "mean_field", "gibbs", "likelihood_weighting"}
            "auto" is exact if the forecast allows, otherwise loopy belief propagation.
        **options
            Of the approximate method ("auto": of loopy belief propagation): the keywords of
            `fastgen.graphical.belief_propagation`, `mean_field`, `gibbs`, `likelihood_weighting`. What draws uses
            `random_state` of the model unless it is given here.

        Returns
        -------
        Inference

        Raises
        ------
        EngineLimitError
            ``method="exact"`` would need more than `limit`.
        TypeError
            The method has no such option.

        Notes
        -----
        Exact: as `predict_proba`. Approximate: row by row; each iteration, or sample, of a row costs about the entries
        of all tables (likelihood weighting: V + arcs for each sample).
        """
        check_choice(method, "method", _METHODS)
        check_options(method, options)
        codes = self._observed(X)
        chosen = list(range(len(self._coding.names))) if targets is None else self._coding.variables(targets)
        return self._infer(codes, chosen, self._soft(soft, len(codes)), method, options)

    def _infer(
        self, codes: Codes, targets: list[int], soft: dict[int, Array] | None, method: str, options: dict[str, Any]
    ) -> Inference:
        names = self._coding.names
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
        marginals, log_evidence, exact, details = approximate(
            self.network_, codes, targets, method, options, self.random_state
        )
        found = {names[i]: table for i, table in zip(targets, marginals, strict=True)}
        return Inference(found, log_evidence, method, exact, details)

    def query(
        self,
        targets: Any,
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
            For some variables the likelihood of what was seen in each of their states, (states,).
        method, **options
            See `infer`; joint distributions of several variables are exact ones.

        Returns
        -------
        Query

        Raises
        ------
        ValueError
            If the evidence is impossible, with the values that contradict each other.
        EngineLimitError
            The joint distribution, or inference, would need more than `limit`, or than the engine's limit of
            operations; nothing is allocated before that is known.

        Notes
        -----
        One row of `infer` for one target; for several, one row for each configuration of all but the last.
        """
        check_is_fitted(self, "network_")
        check_choice(method, "method", _METHODS)
        coding = self._coding
        chosen = coding.variables(targets)
        if not chosen:
            raise ValueError("there must be at least one target")
        check_options(method, options)
        row = self._evidence(evidence or {})
        given = self._soft(soft, 1)
        # p(a, b) = p(a) p(b | a): the last target given all states of the others that are not known
        *others, last = chosen
        free = [i for i in others if row[0, i] < 0]
        sizes = [coding.sizes[i] for i in chosen]
        if others:
            if method not in ("auto", "exact"):
                raise ValueError(f"joint distributions need exact inference, not method={method!r}")
            method, options = "exact", {}
            self._check_joint(chosen, free, row)
        n_rows = prod(coding.sizes[i] for i in free)
        logs, table = np.empty(n_rows), np.empty((n_rows, sizes[-1]))
        for start in range(0, n_rows, _JOINT_ROWS):
            rest = np.arange(start, min(start + _JOINT_ROWS, n_rows))
            rows = np.repeat(row, len(rest), axis=0)
            for i in reversed(free):
                rest, rows[:, i] = np.divmod(rest, coding.sizes[i])
            result = self._infer(rows, [last], given, method, options)
            part = slice(start, start + len(rows))
            logs[part], table[part] = result.log_evidence, result.marginals[coding.names[last]]
        peak = logs.max()
        if peak == -np.inf:
            raise ValueError(self._cause(row, given))
        weights = np.ones(1) if n_rows == 1 else np.exp(logs - peak)
        table[weights == 0] = 0.0  # NaN so far
        table *= weights[:, None] / weights.sum()
        joint = np.zeros(sizes)
        place = tuple(slice(None) if i in free else row[0, i] for i in others)
        joint[place] = table.reshape(*(coding.sizes[i] for i in free), sizes[-1])
        return Query(
            tuple(coding.names[i] for i in chosen),
            tuple(coding.categories[i] for i in chosen),
            joint,
            float(peak + np.log(weights.sum())),
            result.method,
            result.exact,
        )

    def _check_joint(self, chosen: list[int], free: list[int], row: Codes) -> None:
        """Refuse a joint distribution that is too large, or takes too long, before anything is allocated."""
        sizes = self._coding.sizes
        entries, n_rows = prod(sizes[i] for i in chosen), prod(sizes[i] for i in free)
        if len(chosen) > _MOST_AXES:
            raise ValueError(f"a joint distribution may have at most {_MOST_AXES} variables, got {len(chosen)}")
        size = 8 * _JOINT_COPIES * entries
        operations = n_rows
        if size <= self.limit and n_rows > _FORECAST_ROWS:  # a plan takes as long as some rows
            observed = [*map(int, np.flatnonzero(row[0] >= 0)), *free]
            operations *= self._engine.forecast(observed, chosen[-1:]).operations
        for name, need, limit, unit in (
            ("limit", size, self.limit, "bytes"),
            ("operation_limit", operations, self._engine.operation_limit, "multiplications"),
        ):
            if need > limit:
                raise EngineLimitError(
                    f"the joint distribution of {len(chosen)} variables has {_large(entries)} entries and would need "
                    f"{_large(need)} {unit}, above {name}={_large(limit)}: ask for fewer variables",
                    Cost(len(chosen) - 1, entries, size, operations, 0),
                )

    def predict(self, X: Any, targets: Any = None) -> Any:
        """X with each missing cell replaced by its most probable value, each by itself.

        Parameters
        ----------
        X : array or data frame (n, V)
        targets : variable or iterable of variables, optional
            Only their columns are returned, and what is observed in them counts as evidence.

        Returns
        -------
        array or data frame
            (n, V), or (n, targets). Cells of impossible rows stay missing. Data frames of pandas keep their index.

        Raises
        ------
        EngineLimitError
            It would need more than `limit`.

        Notes
        -----
        As `predict_proba`.
        """
        check_is_fitted(self, "network_")
        if targets is None:
            return self.impute(X, method="mode")
        chosen = self._coding.variables(targets)
        codes = self._encode(X)
        return self._coding.decode(self._modes(codes, chosen), chosen, like=X)

    def _modes(self, codes: Codes, targets: list[int]) -> Codes:
        tables, log_evidence = self._engine.marginals(codes, None, targets)
        out = np.empty((len(codes), len(targets)), np.int64)
        for k, table in enumerate(tables):
            out[:, k] = table.argmax(axis=1)
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
            For "sample"; None: that of the model.

        Returns
        -------
        array or data frame (n, V)
            Cells of impossible rows stay missing. Data frames of pandas keep their index.

        Raises
        ------
        EngineLimitError
            It would need more than `limit`.

        Notes
        -----
        As `predict_proba`, for the rows with missing cells.
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
        return self._coding.decode(filled, like=X)

    def mpe(self, X: Any = None) -> Any:
        """Most probable explanation: all missing cells of a row filled in together; see `impute`.

        Parameters
        ----------
        X : array, data frame (n, V), or mapping, optional
            As in `infer`.

        Returns
        -------
        array or data frame (n, V), or dict if X is a mapping or None
            Data frames of pandas keep their index.

        Raises
        ------
        ValueError
            The evidence of a mapping is impossible, with the values that contradict each other.
        EngineLimitError
            It would need more than `limit`.

        Notes
        -----
        As `predict_proba`, with maxima in place of sums.
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
        return self._coding.decode(states, like=X)

    def _observed(self, X: Any) -> Codes:
        check_is_fitted(self, "network_")
        return self._evidence(X or {}) if X is None or isinstance(X, Mapping) else self._encode(X)

    def _evidence(self, evidence: Mapping[Any, Any]) -> NDArray[np.int64]:
        row = np.full((1, len(self._coding.names)), -1, np.int64)
        for name, value in evidence.items():
            i, state = self._coding.state(name, value)
            row[0, i] = state
        return row

    def _soft(self, soft: Mapping[Any, ArrayLike | None] | None, n: int) -> dict[int, Array] | None:
        """Soft evidence by the numbers of variables."""
        found: dict[int, Array] = {}
        for name, likelihood in (soft or {}).items():
            if likelihood is None:
                continue
            i = self._coding.variable(name)
            what = f"the soft evidence of {self._coding.names[i]!r}"
            if i in found:
                raise ValueError(f"{what} is given twice")
            array, size = as_floats(likelihood, what).astype(np.float64), self._coding.sizes[i]
            if array.shape not in ((size,), (1, size), (n, size)):
                rows = f" or ({n}, {size})" if n > 1 else ""
                raise ValueError(f"{what} must have shape ({size},){rows}, got {array.shape}")
            if not (np.isfinite(array).all() and (array >= 0).all()):
                raise ValueError(f"{what} must be finite and not negative")
            found[i] = array
        return found or None

    def _targets(self, codes: Codes, targets: Any) -> list[int]:
        if targets is not None:
            return self._coding.variables(targets)
        return list(map(int, np.flatnonzero((codes < 0).any(axis=0))))

    def _cause(self, row: Codes, soft: dict[int, Array] | None = None) -> str:
        """Why the evidence is impossible: values that are so together, and none of which can be left out."""
        found, kept = row.copy(), dict(soft or {})
        observed = [int(i) for i in np.flatnonzero(row[0] >= 0)]
        for i in observed:
            less = found.copy()
            less[0, i] = -1
            if self._engine.log_evidence(less, kept or None)[0] == -np.inf:
                found = less
        for i in soft or {}:
            fewer = {j: likelihood for j, likelihood in kept.items() if j != i}
            if self._engine.log_evidence(found, fewer or None)[0] == -np.inf:
                kept = fewer
        names, categories = self._coding.names, self._coding.categories
        values = [f"{names[i]!r} = {categories[i][found[0, i]]!r}" for i in observed if found[0, i] >= 0]
        values += [f"the soft evidence of {names[i]!r}" for i in kept]
        return f"the evidence has probability 0: {' and '.join(values) or 'the network itself'} cannot occur" + (
            " together" if len(values) > 1 else ""
        )

    # ---- the graph -------------------------------------------------------------------------------------------------

    def d_separated(self, x: Any, y: Any, given: Any = ()) -> bool:
        """Whether the arcs alone make x and y independent given others.

        Parameters
        ----------
        x, y, given : variable, or iterable of variables
            Disjoint.

        Returns
        -------
        bool

        Raises
        ------
        ValueError
            A variable is in two of them.

        Notes
        -----
        O(V + arcs).
        """
        check_is_fitted(self, "network_")
        return _separation.d_separated(self.network_.parents, *map(self._coding.variables, (x, y, given)))

    def markov_blanket(self, variable: Any) -> list[Any]:
        """Parents, children, and other parents of these: given them, nothing else tells about the variable.

        Parameters
        ----------
        variable : variable

        Returns
        -------
        list of variables
            In the order of the columns.

        Notes
        -----
        O(V + arcs).
        """
        check_is_fitted(self, "network_")
        found = _separation.markov_blanket(self.network_.parents, self._coding.variable(variable))
        return [self._coding.names[i] for i in sorted(found)]

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the network, with graphviz's layout where it is installed.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new figure.
        **options
            ``layout`` ("auto", "dot", "layers", or a mapping from variables to (x, y)), ``labels`` (a mapping from
            arcs, as pairs of numbers), ``font_size``, ``node_color``, ``edge_color``.

        Returns
        -------
        matplotlib Axes

        Notes
        -----
        In layers: O(V arcs), where an arc counts once for each layer that it passes.
        """
        from fastgen.graphical._plot import plot

        check_is_fitted(self, "network_")
        return plot(self._coding.names, self.network_.arcs, ax=ax, **options)


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
