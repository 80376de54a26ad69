"""Linear-Gaussian networks: Bayesian networks of continuous variables, each linear in its parents plus noise.

The joint density is one Gaussian. Columns in topological order make the matrix U = (I - W)^T diag(1 / s) of the
standardised residuals upper triangular, and U U^T is the precision: the factor that the kernels want, without any
decomposition.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_solve
from sklearn.utils.validation import check_is_fitted

from fastgen import families
from fastgen._em import Fit, expectation_maximisation
from fastgen._estimator import atomic
from fastgen._kernels import _gaussian
from fastgen._missing import Index, incomplete_rows, patterns
from fastgen._validation import (
    BLOCK_ROWS,
    Array,
    Data,
    as_floats,
    as_parameters,
    as_weights,
    check_number,
    refuse_infinity,
)
from fastgen.families._moments import FullStatistics, moments
from fastgen.families.gaussian import regression
from fastgen.gaussian import Gaussian
from fastgen.graphical._arcs import lasting, pairs
from fastgen.graphical._factors import NetworkError
from fastgen.graphical._named_density import NamedDensity, position
from fastgen.graphical._separation import d_separated, markov_blanket, topological_order

__all__ = ["LinearGaussianNetwork"]

_EPS = 2.0**-52


class LinearGaussianNetwork(NamedDensity):
    """A directed model of continuous variables: ``x_i = b_i + sum_j w_ij x_j + N(0, s_i^2)`` over the parents j of i.

    Parameters
    ----------
    edges : iterable of (parent, child), default=None
        The arcs, by names or numbers of columns (an iterator is read when the model is made). None: there are none, the
        variables are independent.
    names : sequence, default=None
        Of the columns, where X is an array. Data frames bring theirs.
    reg_covar : float, default=0.0
        Added to the variances of the residuals: the fit then maximises the log-likelihood less
        ``reg_covar / 2 * sum_i 1 / s_i^2`` per row.
    tol : float, default=1e-9
        EM stops when the mean log-likelihood per row gains less.
    max_iter : int, default=10000
        Most iterations of EM.

    Attributes
    ----------
    names_ : tuple
        Of the variables: text, or numbers of columns.
    parents_ : tuple of tuples of int
    edges_ : list of (parent, child)
    coefficients_ : dict
        {(parent, child): w}
    intercepts_, variances_ : arrays (d,)
        b and s^2.
    mean_ : array (d,)
    covariance_, precision_ : arrays (d, d)
        Of the joint Gaussian; made when they are first asked for.
    n_parameters_ : int
        Free parameters: arcs + 2 d.
    n_iter_, stop_reason_, history_
        Of EM (`fastgen.Gaussian`); the history is empty for a closed form.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    *Fit.* Least squares for each variable, from centred and scaled cross-products, then corrected once by the residuals
    of the data (corrected semi-normal equations): about as exact as an orthogonal decomposition, at an offset of 1e8
    too. Parents that are linearly dependent in the data, or constant, are an error: coefficients would be arbitrary.

    *Missing values.* NaN is missing at random, and is marginalised exactly in every method. `fit` then is EM: its cost
    per iteration grows with the number of patterns of missing columns, not with the number of rows. The coefficient of
    two columns that are never observed together stays where the others put it.

    *Deterministic variables.* `from_parameters` takes variances of 0: such a variable is a linear function of its
    parents. Moments, conditions on values that are possible, draws and imputation work as always; what needs a
    density (`log_prob`, `precision_`, `aic`, `gaussian`, ...) raises `NetworkError`. `fit` never returns one: a
    residual variance that is 0 up to rounding is an error unless ``reg_covar`` is positive.

    *Cost.* `log_prob`: O(n d^2); `sample`: O(n (d + arcs)); what conditions, or imputes: O(d^3) for each set of known
    variables.

    References
    ----------
    D. Koller, N. Friedman, Probabilistic Graphical Models, 2009, sections 7.2 and 17.2.4; Å. Björck, Stability analysis
    of the method of seminormal equations, Linear Algebra Appl. 88-89 (1987); R. Little, D. Rubin, Statistical Analysis
    with Missing Data, section 11.2.

    Examples
    --------
    >>> from fastgen.graphical import LinearGaussianNetwork
    >>> model = LinearGaussianNetwork.from_parameters({("a", "b"): 0.5}, {"a": 1, "b": -5}, {"a": 4, "b": 4})
    >>> model.covariance_
    array([[4., 2.],
           [2., 5.]])
    >>> model.condition({"b": 0.0}).mean_
    array([2.8])
    """

    def __init__(
        self,
        edges: Iterable[tuple[Any, Any]] | None = None,
        *,
        names: Sequence[Any] | None = None,
        reg_covar: float = 0.0,
        tol: float = 1e-9,
        max_iter: int = 10_000,
    ) -> None:
        self.edges = lasting(edges)
        self.names = names
        self.reg_covar = reg_covar
        self.tol = tol
        self.max_iter = max_iter

    # ---- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def from_parameters(
        cls,
        coefficients: Mapping[tuple[Any, Any], float],
        intercepts: Mapping[Any, float] | ArrayLike,
        variances: Mapping[Any, float] | ArrayLike,
        *,
        names: Sequence[Any] | None = None,
    ) -> Self:
        """Return the network with these parameters.

        Parameters
        ----------
        coefficients : mapping
            {(parent, child): w}; its keys are the arcs.
        intercepts, variances : mapping by name, or array (d,)
            b and s^2: of each variable given its parents. A variance of 0 makes it deterministic (see `Notes`).
        names : sequence, optional
            By default the keys of ``variances``, or numbers.

        Returns
        -------
        LinearGaussianNetwork

        Raises
        ------
        NetworkError
            A cycle, an arc to a variable that does not exist.
        ValueError
            Parameters that are missing, not finite, or negative variances.
        """
        if names is None:
            names = tuple(variances) if isinstance(variances, Mapping) else tuple(range(len(np.atleast_1d(variances))))
        names = tuple(names)
        if not names:
            raise ValueError("there must be at least one variable")
        b, v = (_by_name(given, names, what) for given, what in ((intercepts, "intercepts"), (variances, "variances")))
        if v.min() < 0:
            node = int(v.argmin())
            raise ValueError(f"variances must not be negative, but that of {names[node]!r} is {v[node]}")
        arcs = list(coefficients)
        parents, order = _graph(arcs, names)
        w = as_floats([coefficients[arc] for arc in arcs], "coefficients").astype(np.float64)
        if not np.isfinite(w).all():
            raise ValueError("coefficients must be finite")
        numbers = {name: i for i, name in enumerate(names)}
        by_arc = dict(zip([_arc(arc, numbers) for arc in arcs], w.tolist(), strict=True))
        weights = [np.array([by_arc[parent, child] for parent in some]) for child, some in enumerate(parents)]
        mean = b.copy()
        for i in order:
            mean[i] = b[i] + weights[i] @ mean[list(parents[i])]
        model = cls(arcs, names=None if names == tuple(range(len(names))) else names)
        model._set(names, parents, order, mean, weights, v)
        model.intercepts_ = b
        return model

    def _set(
        self,
        names: tuple[Any, ...],
        parents: tuple[tuple[int, ...], ...],
        order: tuple[int, ...],
        mean: Array,
        weights: list[Array],
        variances: Array,
    ) -> None:
        for name in ("covariance_", "_family"):
            self.__dict__.pop(name, None)
        self.names_, self.parents_, self._order, self._weights = names, parents, order, weights
        self.mean_, self.variances_ = mean, variances
        self.intercepts_ = np.array(
            [mean[i] - w @ mean[list(some)] for i, (w, some) in enumerate(zip(weights, parents, strict=True))]
        )
        self.n_features_in_ = len(names)
        if not (np.isfinite(self.intercepts_).all() and np.isfinite(self.covariance_).all()):
            raise ValueError("the moments overflow: scale the data, or the parameters")

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        state.pop("_family", None)  # made again when it is needed
        return state

    @property
    def edges_(self) -> list[tuple[Any, Any]]:
        """The arcs, by name."""
        return [(self.names_[p], self.names_[c]) for c, some in enumerate(self.parents_) for p in some]

    @property
    def coefficients_(self) -> dict[tuple[Any, Any], float]:
        """The coefficient of each arc."""
        return dict(zip(self.edges_, np.concatenate([*self._weights, np.empty(0)]).tolist(), strict=True))

    @property
    def n_parameters_(self) -> int:
        """The number of free parameters: arcs, intercepts, variances."""
        return sum(map(len, self.parents_)) + 2 * len(self.parents_)

    @cached_property
    def covariance_(self) -> Array:
        """Covariance of the joint Gaussian, (d, d)."""
        check_is_fitted(self, "names_")
        root = np.eye(len(self.names_)) * np.sqrt(self.variances_)  # rows: what each noise adds to a variable
        for i in self._order:
            root[i] += self._weights[i] @ root[list(self.parents_[i])]
        with np.errstate(over="ignore", invalid="ignore"):  # checked afterwards
            return np.asarray(root @ root.T)

    @property
    def precision_(self) -> Array:
        """Inverse covariance of the joint Gaussian, (d, d); 0 where two variables share no factor."""
        self._refuse_deterministic("a precision")
        root = np.diag(1 / np.sqrt(self.variances_))
        for i, (weights, some) in enumerate(zip(self._weights, self.parents_, strict=True)):
            root[list(some), i] = -weights * root[i, i]
        return np.asarray(root @ root.T)

    @cached_property
    def _family(self) -> families.Gaussian:
        """The joint Gaussian, its columns in topological order."""
        self._refuse_deterministic("a density")
        order = np.array(self._order)
        return _joint(
            _renumbered(self.parents_, order),
            self.mean_[order],
            [self._weights[i] for i in order],
            self.variances_[order],
        )

    def _refuse_deterministic(self, what: str) -> None:
        check_is_fitted(self, "names_")
        if self.variances_.min() <= 0:
            node = int(self.variances_.argmin())
            raise NetworkError(
                f"{self.names_[node]!r} is deterministic (its variance given its parents is 0), so the joint "
                f"distribution does not have {what}: take the marginal of other variables, or a positive variance",
                node,
            )

    # ---- fit -------------------------------------------------------------------------------------------------------

    @atomic
    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit by maximum likelihood.

        Parameters
        ----------
        X : array or data frame (n, d)
            float32 or float64; NaN is a missing value.
        y : ignored
        sample_weight : array (n,), optional
            A weight of 2 is the same as the row twice.

        Returns
        -------
        self

        Raises
        ------
        NetworkError
            A cycle, an unknown name; linearly dependent parents; a variable that its parents determine.
        ValueError
            Infinity in X, a column without any observed value, weights that are not.

        Notes
        -----
        O(n d^2) for the cross-products, O(n) for each arc. With missing values, EM.
        """
        self._forget()
        check_number(self.reg_covar, "reg_covar", Real, 0)
        data = self._check_data(X, reset=True)
        n, d = data.shape
        names = self._names_of(d)
        parents, order = _graph(pairs(() if self.edges is None else self.edges, "edges"), names)
        weights = as_weights(sample_weight, n)
        found, left_out = moments(data, weights, True, None)
        if left_out:
            refuse_infinity(data)
            columns = np.array(order)
            sorted_data = data if order == tuple(range(d)) else data[:, columns]
            fit = self._fit_missing(sorted_data, weights, _renumbered(parents, columns), [names[i] for i in order])
            back = np.argsort(columns)
            mean, coefficients, variances = fit.parameters
            mean, variances, coefficients = mean[back], variances[back], [coefficients[i] for i in back]
        else:
            mean, coefficients, variances = _least_squares(
                cast(FullStatistics, found), parents, names, self.reg_covar, data, weights
            )
            fit = Fit(None, None, (), "closed form")
        self._set(names, parents, order, mean, coefficients, variances)
        self._report(fit)
        return self

    def _fit_missing(
        self, X: Data, weights: Array | None, parents: Sequence[tuple[int, ...]], names: Sequence[Any]
    ) -> Fit:
        """EM; columns in topological order."""
        check_number(self.tol, "tol", Real, 0)
        check_number(self.max_iter, "max_iter", Integral, 1)
        family = families.Gaussian("full")
        start = family._start(X, weights, None)
        total = len(X) if weights is None else float(weights.sum())
        observed = start.observe(X, weights)
        variances = start.covariance_matrix(0).diagonal()
        no_arcs = [np.zeros(len(some)) for some in parents]

        def e_step(parameters: Any) -> tuple[float, FullStatistics]:
            log_likelihood, statistics = _joint(parents, *parameters).expect(observed)
            if self.reg_covar:  # rows without any observed cell do not count
                penalty = 0.5 * self.reg_covar * float((1 / parameters[2]).sum())
                log_likelihood -= float(statistics.weight[0]) * penalty
            return log_likelihood / total, statistics

        def m_step(parameters: Any, statistics: FullStatistics) -> Any:
            return _least_squares(statistics, parents, names, self.reg_covar)

        return expectation_maximisation(
            (start.means[0], no_arcs, variances + self.reg_covar), e_step, m_step, tol=self.tol, max_iter=self.max_iter
        )

    # ---- densities -------------------------------------------------------------------------------------------------

    def _log_density(self, data: Data) -> Data:
        if self._order == tuple(range(data.shape[1])):
            return self._family.log_density(data)[:, 0]
        try:
            return self._family.log_density(data[:, self._order])[:, 0]
        except ValueError:
            refuse_infinity(data)  # names the column as it is in X
            raise

    def gaussian(self) -> Gaussian:
        """The joint density as one Gaussian.

        Returns
        -------
        fastgen.Gaussian
        """
        check_is_fitted(self, "names_")
        return self._marginal(np.arange(len(self.names_)))

    # ---- inference -------------------------------------------------------------------------------------------------

    def moments(self, columns: Any = None, given: Mapping[Any, float] | None = None) -> tuple[Array, Array]:
        """Mean and covariance of some variables, given the values of others; deterministic ones too.

        Parameters
        ----------
        columns : variable, or iterable of variables, optional
            By default all that are not given.
        given : dict, optional
            {variable: value}

        Returns
        -------
        mean : array (k,)
        covariance : array (k, k)
            O(d^3).

        Raises
        ------
        ValueError
            The values are impossible, since a variable is deterministic.
        """
        check_is_fitted(self, "names_")
        observed, values = self._evidence(given)
        chosen = np.setdiff1d(np.arange(len(self.names_)), observed) if columns is None else self._variables(columns)
        if np.isin(chosen, observed).any():
            raise ValueError("a variable cannot be asked for and given")
        return self._moments(chosen, observed, values)

    def _moments(self, chosen: Index, observed: Index, values: Array) -> tuple[Array, Array]:
        slopes, covariance = self._regression(observed, chosen, values[None])
        return self.mean_[chosen] + (values - self.mean_[observed]) @ slopes, covariance

    def condition(self, given: Mapping[Any, float]) -> Gaussian:
        """The density of the other variables, given the values of some.

        Parameters
        ----------
        given : dict
            {variable: value}

        Returns
        -------
        fastgen.Gaussian
            Over the other variables, in their order. O(d^3).

        Raises
        ------
        NetworkError
            Their covariance is singular, since variables are deterministic: see `moments`.
        """
        observed, values = self._evidence(given)
        rest = np.setdiff1d(np.arange(len(self.names_)), observed)
        if not len(rest):
            raise ValueError("no variable is left: at least one must not be given")
        return self._gaussian(rest, *self._moments(rest, observed, values))

    def _marginal(self, columns: Index) -> Gaussian:
        return self._gaussian(columns, *self._moments(columns, np.empty(0, np.intp), np.empty(0)))

    def _gaussian(self, columns: Index, mean: Array, covariance: Array) -> Gaussian:
        try:
            family = families.Gaussian("full")._set(mean[None], covariance[None].copy(), derived=True)
        except np.linalg.LinAlgError:
            if self.variances_.min() > 0:
                raise
            family = None
        if family is None or (self.variances_.min() <= 0 and _is_singular(covariance, self.covariance_, columns)):
            raise NetworkError(
                "the covariance is singular, since variables are deterministic: `moments` has mean and covariance"
            )
        return self._named(family, columns)

    def _regression(self, observed: Index, rest: Index, values: Array | None = None) -> tuple[Array, Array]:
        """Slopes (o, r) and residual covariance (r, r) of ``rest`` given ``observed``; rows of values are checked."""
        covariance = self.covariance_
        if not len(observed) or self.variances_.min() > 0:
            return regression(covariance, observed, rest)
        scale = np.sqrt(covariance.diagonal())
        scale[scale == 0] = 1.0
        correlation = covariance / scale / scale[:, None]
        lengths, axes = np.linalg.eigh(correlation[np.ix_(observed, observed)])
        free = lengths > 64 * len(scale) * _EPS * max(lengths[-1], 1.0)
        if values is not None:
            centre, size = self.mean_[observed], scale[observed]
            away = np.abs(((values - centre) / size) @ axes[:, ~free]).max(axis=1, initial=0.0)
            allowed = 1e-9 * (1.0 + ((np.abs(values) + np.abs(centre)) / size).max(axis=1, initial=0.0))
            if (away > allowed).any():
                raise ValueError(
                    "the values given are impossible: they are not on the subspace that deterministic variables allow"
                )
        half = (axes[:, free] / np.sqrt(lengths[free])).T @ correlation[np.ix_(observed, rest)]
        slopes = (axes[:, free] / np.sqrt(lengths[free])) @ half * scale[rest] / scale[observed][:, None]
        residual = (correlation[np.ix_(rest, rest)] - half.T @ half) * scale[rest] * scale[rest][:, None]
        return slopes, residual

    def _completed(self, data: Data, rng: np.random.Generator | None) -> Iterator[tuple[Index, Index, Array]]:
        for rows, observed in patterns(data, incomplete_rows(data)):
            missing = np.setdiff1d(np.arange(data.shape[1]), observed, assume_unique=True)
            part = data[np.ix_(rows, observed)].astype(np.float64)
            slopes, _ = self._regression(observed, missing, part)
            # a draw of all, moved to what is observed, is one given that (Matheron's rule)
            base = self.mean_[None] if rng is None else self._draw(len(rows), rng)
            yield rows, missing, base[:, missing] + (part - base[:, observed]) @ slopes

    # ---- draws -----------------------------------------------------------------------------------------------------

    def _sample(self, n: int, rng: np.random.Generator, observed: Index, values: Array) -> Array:
        rows = self._draw(n, rng)
        if len(observed):
            rest = np.setdiff1d(np.arange(len(self.names_)), observed)
            slopes, _ = self._regression(observed, rest, values[None])
            rows[:, rest] += (values - rows[:, observed]) @ slopes
            rows[:, observed] = values
        return rows

    def _draw(self, n: int, rng: np.random.Generator) -> Array:
        """Ancestral sampling."""
        rows = rng.standard_normal((n, len(self.names_)))
        for start in range(0, n, BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS].T * np.sqrt(self.variances_)[:, None]
            for i in self._order:
                if len(self.parents_[i]):
                    block[i] += self._weights[i] @ block[list(self.parents_[i])]
            rows[start : start + BLOCK_ROWS] = (block + self.mean_[:, None]).T
        return rows

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
            O(d + arcs).
        """
        check_is_fitted(self, "names_")
        return d_separated(self.parents_, *(self._variables(some).tolist() for some in (x, y, given)))

    def markov_blanket(self, variable: Any) -> list[Any]:
        """Parents, children, and other parents of these: given them, nothing else tells about the variable.

        Parameters
        ----------
        variable : variable

        Returns
        -------
        list of variables
            In the order of the columns. O(d + arcs).
        """
        return [self.names_[i] for i in sorted(markov_blanket(self.parents_, self._variable(variable)))]

    def _lines(self) -> list[tuple[int, int]]:
        return [(parent, child) for child, some in enumerate(self.parents_) for parent in some]


# ---- graphs and names ----------------------------------------------------------------------------------------------


def _arc(arc: Any, numbers: Mapping[Any, int]) -> tuple[int, int]:
    try:
        parent, child = arc
    except (TypeError, ValueError):
        raise NetworkError(f"edges must be pairs (parent, child), got {arc!r}") from None
    return position(parent, numbers), position(child, numbers)


def _graph(arcs: Sequence[Any], names: Sequence[Any]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Parents of each variable, ascending, and a topological order."""
    if len(set(names)) < len(names):
        raise NetworkError(f"names must be distinct, got {list(names)}")
    numbers = {name: i for i, name in enumerate(names)}
    parents: list[list[int]] = [[] for _ in names]
    for arc in arcs:
        parent, child = _arc(arc, numbers)
        if parent in parents[child]:
            raise NetworkError(f"the arc {names[parent]!r} -> {names[child]!r} is there twice", child)
        parents[child].append(parent)
    found = tuple(tuple(sorted(some)) for some in parents)
    return found, topological_order(found, names)


def _renumbered(parents: Sequence[tuple[int, ...]], order: Index) -> list[tuple[int, ...]]:
    """The graph after its variables are put into this order; each keeps the order of its parents."""
    position = np.argsort(order)
    return [tuple(position[list(parents[i])].tolist()) for i in order]


def _by_name(given: Mapping[Any, float] | ArrayLike, names: Sequence[Any], what: str) -> Array:
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ValueError(f"{what} must be given for {list(names)}, but are for {list(given)}")
        given = [given[name] for name in names]
    return as_parameters(given, what, (len(names),)).copy()


# ---- numbers -------------------------------------------------------------------------------------------------------


def _joint(
    parents: Sequence[tuple[int, ...]], mean: Array, weights: Sequence[Array], variances: Array
) -> families.Gaussian:
    """The joint Gaussian, columns in topological order."""
    factor = np.diag(1 / np.sqrt(variances))
    for i, some in enumerate(parents):
        factor[list(some), i] = -weights[i] * factor[i, i]
    return families.Gaussian("full").with_factors(mean[None], factor[None])


def _is_singular(covariance: Array, joint: Array, columns: Index) -> bool:
    """Whether this covariance has, in units of the joint standard deviations, no variance in some direction."""
    scale = np.sqrt(joint.diagonal()[columns])
    if scale.min() == 0:
        return True
    lengths = np.linalg.eigvalsh(covariance / scale / scale[:, None])
    return bool(lengths[0] <= 64 * len(joint) * _EPS * max(lengths[-1], 1.0))


def _least_squares(
    statistics: FullStatistics,
    parents: Sequence[tuple[int, ...]],
    names: Sequence[Any],
    reg_covar: float,
    X: Data | None = None,
    sample_weight: Array | None = None,
) -> tuple[Array, list[Array], Array]:
    """Mean, coefficients and variances of maximum likelihood; with X, corrected by its residuals."""
    total, mean, scatter = float(statistics.weight[0]), statistics.mean[0], statistics.scatter[0]
    rows = int(statistics.rows[0])
    if not (np.isfinite(scatter).all() and np.isfinite(mean).all()):
        raise ValueError("the moments of the data overflow: scale the data, or the weights")
    spread = np.sqrt(scatter.diagonal() / total)
    size = np.abs(mean) + spread
    constant = spread <= 4 * _EPS * np.abs(mean)
    weights, factors = [], []
    for i, some in enumerate(parents):
        P = list(some)
        root = np.empty((len(P), len(P)))
        if P:
            bad = int(np.argmax(constant[P])) if constant[P].any() else -1
            if bad < 0:
                root[:] = np.triu(scatter[np.ix_(P, P)] / (spread[P] * spread[P][:, None] * total))
                bad = _gaussian.cholesky(root, 16 * len(P) * _EPS)
            if bad >= 0:
                cause = "is constant" if constant[P[bad]] else "follows from the others"
                raise NetworkError(
                    f"the parents of {names[i]!r} are linearly dependent in these {rows} rows: {names[P[bad]]!r} "
                    f"{cause} (of {[names[p] for p in P]}), so the coefficients are not determined. Leave out an arc, "
                    "or use more rows",
                    i,
                )
            solved = cho_solve((root, False), scatter[P, i] / (spread[P] * total))
        weights.append(solved / spread[P] if P else np.zeros(0))
        factors.append(root)
    rss = np.array(
        [scatter[i, i] - w @ scatter[list(P), i] for i, (w, P) in enumerate(zip(weights, parents, strict=True))]
    )
    blur = 16 * _EPS * np.array([1 + len(P) for P in parents]) * scatter.diagonal()
    if X is not None:
        gradients = [np.zeros(len(P)) for P in parents]
        inner = [i for i, P in enumerate(parents) if P]
        rss[inner] = 0.0
        for start in range(0, len(X) if inner else 0, BLOCK_ROWS):
            block = X[start : start + BLOCK_ROWS].astype(np.float64) - mean
            block = np.ascontiguousarray((block - statistics.mean_rest[0]).T)
            w = None if sample_weight is None else sample_weight[start : start + BLOCK_ROWS]
            for i in inner:
                columns = block[list(parents[i])]
                residual = block[i] - weights[i] @ columns
                weighted = residual if w is None else w * residual
                rss[i] += weighted @ residual
                gradients[i] += columns @ weighted
        for i in inner:
            unit = spread[list(parents[i])]
            step = cho_solve((factors[i], False), gradients[i] / (unit * total)) / unit
            weights[i] += step
            rss[i] -= step @ gradients[i]
        # what the rounding of the data, and of the products, leaves of an exact relation
        reach = np.array(
            [size[i] + np.abs(w) @ size[list(P)] for i, (w, P) in enumerate(zip(weights, parents, strict=True))]
        )
        blur = total * (2 * _EPS * reach) ** 2
    zero = (rss <= blur) | constant
    if zero.any() and reg_covar == 0:
        i = int(np.argmax(zero))
        P = [names[p] for p in parents[i]]
        cause = f"follows exactly from its parents {P}" if P and not constant[i] else "is constant"
        noun = "1 sample" if rows == 1 else f"{rows} rows"
        raise NetworkError(
            f"{names[i]!r} {cause} in {noun}: its variance would be 0, and the likelihood has no maximum. Use more "
            f"rows (more than {len(P) + 1}), leave out the variable or arcs, or set reg_covar > 0",
            i,
        )
    return mean.copy(), weights, np.where(zero, 0.0, rss) / total + reg_covar
