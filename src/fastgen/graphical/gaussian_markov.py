"""Gaussian Markov random fields: Gaussians with a sparse precision, whose zeros are conditional independences.

All comes from one sparse Cholesky factor, P S Q S P^T = L L^T: S scales the diagonal to 1, P is a minimum degree order.
SuperLU finds it: pivots on the diagonal are stable for a matrix that is positive definite, and L = L_LU sqrt(D).
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from fastgen import families
from fastgen._em import Fit, expectation_maximisation
from fastgen._estimator import atomic
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
from fastgen.errors import SingularCovarianceError
from fastgen.families._moments import FullStatistics, moments
from fastgen.gaussian import Gaussian
from fastgen.graphical._named_density import NamedDensity
from fastgen.kernels import LOG_2PI, precision_cholesky

__all__ = ["GaussianMarkovRandomField"]

_EPS = 2.0**-52
_DENSE = 5000
"""Most variables for a dense covariance."""
_SYMMETRIC = 1e-10
"""How far, of the diagonal, a precision may be from symmetric: it is then made so."""


class GaussianMarkovRandomField(NamedDensity):
    """A Gaussian with a sparse precision Q: ``log p(x) = (log det Q - d log 2 pi - (x - m)^T Q (x - m)) / 2``.

    Parameters
    ----------
    alpha : float, "cv" or None, default=0.1
        Weight of the penalty ``alpha / 2 * sum_ij |Q_ij|`` (i != j) on the precision, per row. "cv" or None: chosen by
        cross-validation (scikit-learn's GraphicalLassoCV, which takes neither weights nor missing values).
    standardize : bool, default=True
        Fit to columns of variance 1, as the penalty depends on the scale: alpha then is one of correlations, and the
        result the same in any unit. False: scikit-learn's GraphicalLasso as it is.
    tol : float, default=1e-4
        Duality gap at which the graphical lasso stops; with missing values also the gain of the objective for EM.
    max_iter : int, default=100
        Most iterations of the graphical lasso; with missing values also of EM.
    cv : int or cross-validation generator, default=None
        For ``alpha="cv"``.

    Attributes
    ----------
    names_ : tuple
        Of the variables: text, or numbers of columns.
    mean_ : array (d,)
    precision_ : scipy.sparse.csr_array (d, d)
    edges_ : list of (variable, variable)
        The conditional independence graph: pairs whose precision is not 0.
    partial_correlations_ : scipy.sparse.csr_array (d, d)
        Correlation of two variables given all others, ``-Q_ij / sqrt(Q_ii Q_jj)``; its diagonal is 0.
    covariance_ : array (d, d)
        Dense: for at most 5000 variables.
    alpha_ : float
        Of a fit.
    n_iter_, stop_reason_, history_
        With missing values, of EM: the penalised log-likelihood per row; otherwise iterations of the graphical lasso,
        ``closed form``, and an empty history.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    NaN is a value missing at random, and is marginalised exactly in every method. In `fit` it takes EM with a
    graphical lasso in each M-step (Städler & Bühlmann 2012).

    The factor of a 200 x 200 grid takes some 0.2 s; draws and densities cost O(nonzeros of the factor) each. Rows with
    missing cells take a factor for each pattern of missing columns, and a marginal one solution for each variable.

    References
    ----------
    H. Rue, L. Held, Gaussian Markov Random Fields, 2005, chapter 2; J. Friedman, T. Hastie, R. Tibshirani, Sparse
    inverse covariance estimation with the graphical lasso, Biostatistics 9 (2008); N. Städler, P. Bühlmann, Missing
    values: sparse inverse covariance estimation and an extension to sparse regression, Stat. Comput. 22 (2012).

    Examples
    --------
    >>> from fastgen.graphical import GaussianMarkovRandomField
    >>> model = GaussianMarkovRandomField.from_precision([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]])
    >>> model.edges_
    [(0, 1), (1, 2)]
    >>> model.marginal_variances().round(3)
    array([0.75, 1.  , 0.75])
    >>> model.condition({1: 1.0}).mean_
    array([0.5, 0.5])
    """

    names = None
    _directed = False

    def __init__(
        self,
        alpha: float | str | None = 0.1,
        *,
        standardize: bool = True,
        tol: float = 1e-4,
        max_iter: int = 100,
        cv: Any = None,
    ) -> None:
        self.alpha = alpha
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.cv = cv

    @classmethod
    def from_precision(
        cls, precision: Any, mean: ArrayLike | None = None, *, names: Sequence[Any] | None = None
    ) -> Self:
        """Return the field with these parameters.

        Parameters
        ----------
        precision : array or scipy.sparse array (d, d)
            Inverse covariance: symmetric, positive definite.
        mean : array (d,), optional
            Zeros by default.
        names : sequence, optional
            Of the variables; numbers by default.

        Returns
        -------
        GaussianMarkovRandomField

        Raises
        ------
        fastgen.errors.SingularCovarianceError
            The precision is not positive definite.
        ValueError
            It is not square, symmetric and finite.
        """
        Q = _as_precision(precision)
        d = Q.shape[0]
        names = tuple(range(d) if names is None else names)
        if len(names) != d or len(set(names)) < d:
            raise ValueError(f"names must be {d} different ones, one for each variable, got {len(names)}")
        m = np.zeros(d) if mean is None else as_parameters(mean, "mean", (d,)).copy()
        return cls()._set(names, m, Q)

    def _set(self, names: tuple[Any, ...], mean: Array, Q: Any) -> Self:
        factor = _Factor(Q, names)
        for name in ("covariance_", "_variances"):
            self.__dict__.pop(name, None)
        self._factor = factor
        self.names_, self.mean_, self.precision_ = names, mean, Q.tocsr()
        self.n_features_in_ = len(names)
        return self

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        state.pop("_factor", None)  # SuperLU's cannot be pickled: made again
        return state

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        if hasattr(self, "names_"):
            self._factor = _Factor(self.precision_.tocsc(), self.names_)

    @property
    def edges_(self) -> list[tuple[Any, Any]]:
        """Pairs of variables that depend on each other given all others."""
        check_is_fitted(self, "names_")
        return [(self.names_[i], self.names_[j]) for i, j in self._lines()]

    def _lines(self) -> list[tuple[int, int]]:
        upper = sparse.triu(self.precision_, 1).tocoo()
        return sorted(zip(upper.row.tolist(), upper.col.tolist(), strict=True))

    @property
    def partial_correlations_(self) -> Any:
        """Correlation of each two variables given all others."""
        check_is_fitted(self, "names_")
        scale = sparse.diags_array(1 / np.sqrt(self.precision_.diagonal()))
        scaled = sparse.coo_array(scale @ self.precision_ @ scale)
        off = scaled.row != scaled.col
        return sparse.csr_array((-scaled.data[off], (scaled.row[off], scaled.col[off])), shape=scaled.shape)

    @property
    def n_parameters_(self) -> int:
        """The number of free parameters: means, diagonal of the precision, edges."""
        return 2 * len(self.names_) + int(self.precision_.nnz - len(self.names_)) // 2

    @cached_property
    def covariance_(self) -> Array:
        """Inverse of the precision, dense."""
        check_is_fitted(self, "names_")
        d = len(self.names_)
        if d > _DENSE:
            raise ValueError(
                f"the covariance of {d} variables is not made (at most {_DENSE}): `marginal` has that of some, "
                "`marginal_variances` its diagonal"
            )
        return self._covariance(np.arange(d))

    def _covariance(self, columns: Index) -> Array:
        d = len(self.names_)
        inverse = np.empty((len(columns), len(columns)))
        for start in range(0, len(columns), 256):
            some = columns[start : start + 256]
            units = np.zeros((d, len(some)))
            units[some, np.arange(len(some))] = 1.0
            inverse[:, start : start + 256] = self._factor.solve(units)[columns]
        return 0.5 * (inverse + inverse.T)

    # ---- fit -------------------------------------------------------------------------------------------------------

    @atomic
    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit by the graphical lasso: maximum likelihood with a penalty on the precisions of pairs.

        Parameters
        ----------
        X : array or data frame (n, d)
            NaN is a missing value.
        y : ignored
        sample_weight : array (n,), optional
            A weight of 2 is the same as the row twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Infinity, constant columns, weights or missing values together with cross-validation.
        """
        self._forget()
        self.__dict__.pop("_factor", None)
        check_number(self.tol, "tol", Real, 0)
        check_number(self.max_iter, "max_iter", Integral, 1)
        search = self.alpha is None or (isinstance(self.alpha, str) and self.alpha == "cv")
        if not search:
            check_number(self.alpha, "alpha (a number, 'cv' or None)", Real, 0)
        data = self._check_data(X, reset=True).astype(np.float64)
        names = self._names_of(data.shape[1])
        weights = as_weights(sample_weight, len(data))
        found = cast(Any, moments(data, weights, False, None)[0])
        refuse_infinity(data)
        if found.count.min() <= 0:
            raise ValueError(f"column {names[int(found.count[0].argmin())]!r} has no observed value")
        centre, spread = found.mean[0], np.sqrt(found.scatter[0] / found.count[0])
        if (spread <= 4 * _EPS * np.abs(centre)).any():
            name = names[int(np.argmax(spread <= 4 * _EPS * np.abs(centre)))]
            noun = "1 sample" if len(data) == 1 else f"{len(data)} rows"
            raise ValueError(
                f"column {name!r} is constant in {noun}: it has no precision. Leave it out, or use more rows"
            )
        scale = spread if self.standardize else np.ones(len(spread))
        Z = (data - centre) / scale
        statistics, left_out = cast("tuple[FullStatistics, int]", moments(Z, weights, True, None))
        if search and (left_out or weights is not None):
            what = "missing values" if left_out else "sample_weight"
            raise ValueError(f"cross-validation of alpha does not work with {what}: give a number, such as 0.1")
        alpha = self._chosen_alpha(Z) if search else float(cast(float, self.alpha))
        if left_out:
            fit = self._fit_missing(Z, weights, alpha)
            shift, _, precision = fit.parameters
        else:
            shift = statistics.mean[0]
            precision, n_iter = _graphical_lasso(
                statistics.scatter[0] / statistics.weight[0], alpha, self.tol, self.max_iter
            )
            fit = Fit(None, None, (), "closed form")
        Q = _as_precision(precision / (scale * scale[:, None]))
        self._set(names, centre + scale * shift, Q)
        self._report(fit)
        if not left_out:
            self.n_iter_ = n_iter
        self.alpha_ = alpha
        return self

    def _chosen_alpha(self, Z: Array) -> float:
        from sklearn.covariance import GraphicalLassoCV

        search = GraphicalLassoCV(cv=self.cv, tol=self.tol, max_iter=self.max_iter)
        try:
            with np.errstate(invalid="ignore"), warnings.catch_warnings():  # scores of -inf
                warnings.simplefilter("ignore", ConvergenceWarning)  # what is chosen is then fitted with care
                return float(search.fit(Z).alpha_)
        except FloatingPointError as error:
            raise ValueError(f"the graphical lasso failed ({error}): give alpha, such as 0.1") from error

    def _fit_missing(self, Z: Array, weights: Array | None, alpha: float) -> Fit:
        family = families.Gaussian("full")
        start = family._start(Z, weights, None)
        observed = start.observe(Z, weights)
        total = len(Z) if weights is None else float(weights.sum())

        def e_step(parameters: Any) -> tuple[float, FullStatistics]:
            mean, covariance, precision = parameters
            log_likelihood, statistics = family.with_parameters(mean[None], covariance[None]).expect(observed)
            penalty = 0.5 * alpha * float(np.abs(precision).sum() - np.abs(precision.diagonal()).sum())
            return (log_likelihood - float(statistics.weight[0]) * penalty) / total, statistics

        def m_step(before: Any, statistics: FullStatistics) -> Any:
            S = statistics.scatter[0] / statistics.weight[0]
            precision, _ = _graphical_lasso(S, alpha, self.tol, self.max_iter)
            inverse = np.linalg.inv(precision)
            return statistics.mean[0], 0.5 * (inverse + inverse.T), precision

        covariance = start.covariance_matrix(0)
        first = start.means[0], covariance, np.diag(1 / covariance.diagonal())
        # a graphical lasso that stops early need not raise the objective
        return expectation_maximisation(
            first, e_step, m_step, tol=self.tol, max_iter=self.max_iter, may_fall=lambda: True
        )

    # ---- densities -------------------------------------------------------------------------------------------------

    def _log_density(self, data: Data) -> Data:
        refuse_infinity(data)
        result = np.empty(len(data))
        d = len(self.names_)
        size = max(1, min(BLOCK_ROWS, (1 << 22) // d))
        for start in range(0, len(data), size):
            half = self._factor.whiten(np.nan_to_num(data[start : start + size].astype(np.float64) - self.mean_))
            result[start : start + size] = -0.5 * np.einsum("ij,ij->j", half, half)
        result += 0.5 * self._factor.log_det - 0.5 * d * LOG_2PI
        # p(x_o) = p(x_o, x_m) / p(x_m | x_o), at the conditional mean of x_m
        for rows, missing, filled, factor in self._filled(data):
            half = self._factor.whiten(filled)
            result[rows] = -0.5 * np.einsum("ij,ij->j", half, half)
            result[rows] += 0.5 * (self._factor.log_det - factor.log_det) - 0.5 * (d - len(missing)) * LOG_2PI
        return result.astype(data.dtype, copy=False)

    def _filled(self, data: Data) -> Any:
        """For each pattern of missing cells: rows, missing columns, x - mean with conditional means, factor of Q_mm."""
        for rows, observed in patterns(data, incomplete_rows(data)):
            missing = np.setdiff1d(np.arange(data.shape[1]), observed, assume_unique=True)
            factor, across = self._given(missing, observed)
            filled = np.zeros((len(rows), data.shape[1]))
            filled[:, observed] = data[np.ix_(rows, observed)] - self.mean_[observed]
            filled[:, missing] = -factor.solve(across @ filled[:, observed].T).T
            yield rows, missing, filled, factor

    def _given(self, rest: Index, observed: Index) -> tuple["_Factor", Any]:
        """The factor of Q_rr, and Q_ro."""
        some = self.precision_[rest]
        return _Factor(some[:, rest].tocsc(), [self.names_[i] for i in rest], derived=True), some[:, observed]

    # ---- inference -------------------------------------------------------------------------------------------------

    def condition(self, given: Mapping[Any, float]) -> Self:
        """The field of the other variables, given the values of some: its precision is a part of this one's.

        Parameters
        ----------
        given : dict
            {variable: value}

        Returns
        -------
        GaussianMarkovRandomField
            Over the other variables, in their order. One factor.
        """
        check_is_fitted(self, "names_")
        return self._condition(*self._evidence(given))

    def _condition(self, observed: Index, values: Array) -> Self:
        rest = np.setdiff1d(np.arange(len(self.names_)), observed)
        if not len(rest):
            raise ValueError("no variable is left: at least one must not be given")
        some = self.precision_[rest]
        result = type(self)(**self.get_params(deep=False))
        names = tuple(self.names_[i] for i in rest)
        result._set(names, np.zeros(len(rest)), some[:, rest].tocsc())
        away = result._factor.solve(some[:, observed] @ (values - self.mean_[observed]))
        result.mean_ = self.mean_[rest] - away
        if hasattr(self, "feature_names_in_"):
            result._keep_names(self, rest)
        return result

    def _marginal(self, columns: Index) -> Gaussian:
        covariance = self._covariance(columns)
        family = families.Gaussian("full")._set(self.mean_[None, columns], covariance[None], derived=True)
        return self._named(family, columns)

    def marginal_variances(self) -> Array:
        """The variance of each variable, the diagonal of the inverse precision, exactly.

        Returns
        -------
        array (d,)

        Notes
        -----
        By the recursions of Takahashi, which need the covariances of neighbours in the factor only: about the cost of
        the factor; 1 to 2 s for a 200 x 200 grid.
        """
        check_is_fitted(self, "names_")
        return self._variances.copy()

    @cached_property
    def _variances(self) -> Array:
        return self._factor.inverse_diagonal()

    def _completed(self, data: Data, rng: np.random.Generator | None) -> Iterator[tuple[Index, Index, Array]]:
        for rows, missing, filled, factor in self._filled(data):
            values = self.mean_[missing] + filled[:, missing]
            if rng is not None:
                values += factor.colour(rng.standard_normal(values.shape))
            yield rows, missing, values

    def _sample(self, n: int, rng: np.random.Generator, observed: Index, values: Array) -> Array:
        d = len(self.names_)
        if not len(observed):
            return np.asarray(self.mean_ + self._factor.colour(rng.standard_normal((n, d))))
        rest = np.setdiff1d(np.arange(d), observed)
        rows = np.empty((n, d))
        rows[:, observed] = values
        if len(rest):
            rows[:, rest] = self._condition(observed, values).sample(n, rng)
        return rows

    # ---- the graph -------------------------------------------------------------------------------------------------

    def markov_blanket(self, variable: Any) -> list[Any]:
        """The neighbours of a variable: given them, nothing else tells about it.

        Parameters
        ----------
        variable : variable

        Returns
        -------
        list of variables
            In the order of the columns.
        """
        i = self._variable(variable)
        row = self.precision_[[i]]
        return [self.names_[j] for j in sorted(row.indices[row.data != 0].tolist()) if j != i]

    def separated(self, x: Any, y: Any, given: Any = ()) -> bool:
        """Whether the graph makes x and y independent given others: all paths between them pass through these.

        Parameters
        ----------
        x, y, given : variable, or iterable of variables
            Disjoint.

        Returns
        -------
        bool
            O(d + edges).
        """
        first, second, known = (self._variables(some) for some in (x, y, given))
        if len(np.unique(np.concatenate([first, second, known]))) < len(first) + len(second) + len(known):
            raise ValueError("x, y and given must be disjoint")
        rest = np.setdiff1d(np.arange(len(self.names_)), known)
        _, component = connected_components(self.precision_[rest][:, rest], directed=False)
        of = np.empty(len(self.names_), np.intp)
        of[rest] = component
        return not np.isin(of[first], of[second]).any()


def _as_precision(precision: Any) -> Any:
    """A symmetric sparse matrix, without stored zeros off the diagonal."""
    Q: Any
    if sparse.issparse(precision):
        given: Any = cast(Any, precision).tocoo()
        data = as_floats(given.data, "precision").astype(np.float64)
        Q = sparse.csc_array((data, (given.row, given.col)), shape=given.shape)
    else:
        dense = as_floats(precision, "precision")
        if dense.ndim != 2:
            raise ValueError(f"precision must have shape (d, d), got {dense.shape}")
        Q = sparse.csc_array(dense.astype(np.float64))
    if Q.shape[0] != Q.shape[1] or not Q.shape[0]:
        raise ValueError(f"precision must have shape (d, d), got {Q.shape}")
    Q.sum_duplicates()
    if not np.isfinite(Q.data).all():
        raise ValueError("precision must be finite, but holds NaN or infinity")
    scale = np.sqrt(np.abs(Q.diagonal()))
    gap = sparse.coo_array(Q - Q.T)
    if (np.abs(gap.data) > _SYMMETRIC * scale[gap.row] * scale[gap.col]).any():
        raise ValueError("precision must be symmetric")
    Q = (0.5 * (Q + Q.T)).tocsc()
    Q.eliminate_zeros()
    Q.sort_indices()
    return Q


class _Factor:
    """P S Q S P^T = L L^T, of a sparse symmetric matrix that is positive definite."""

    def __init__(self, Q: Any, names: Iterable[Any], *, derived: bool = False) -> None:
        n = Q.shape[0]
        diagonal = Q.diagonal()
        if not diagonal.min(initial=1.0) > 0:
            node = int(diagonal.argmin())
            raise _not_positive(f"that of {list(names)[node]!r} with itself is {diagonal[node]:.3g}")
        self.scale = 1 / np.sqrt(diagonal)
        S = sparse.diags_array(self.scale)
        self.scaled = (S @ Q @ S).tocsc()
        try:
            self.lu = splu(
                self.scaled, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
            )
            pivots = self.lu.U.diagonal()
        except RuntimeError:
            pivots = np.zeros(n)
        least = 0.0 if derived else 4 * n * _EPS
        if not pivots.min() > least or not np.array_equal(self.lu.perm_r, self.lu.perm_c):
            bad = "it is singular, or has negative eigenvalues"
            raise _not_positive(bad)
        self.pivots = pivots
        self.order = np.argsort(self.lu.perm_c)
        self.unit: Any = self.lu.L.tocsc()
        self.unit.sort_indices()
        self.lower = (self.unit @ sparse.diags_array(np.sqrt(pivots))).tocsc()
        self.log_det = float(np.log(pivots).sum() + np.log(diagonal).sum())

    def solve(self, b: Array) -> Array:
        """Q^-1 b, for b (d,) or (d, k)."""
        scale = self.scale if b.ndim == 1 else self.scale[:, None]
        return np.asarray(scale * self.lu.solve(np.asarray(scale * b)))

    def whiten(self, rows: Array) -> Array:
        """R x for each row x, with R^T R = Q: (d, n)."""
        return np.asarray(self.lower.T @ np.ascontiguousarray((rows / self.scale)[:, self.order].T))

    def colour(self, rows: Array) -> Array:
        """Rows of covariance Q^-1 from rows z of independent numbers: Q^-1 R^T z, as R^T z has covariance Q."""
        mixed = np.empty(rows.T.shape)
        mixed[self.order] = self.lower @ rows.T
        return np.asarray((self.scale[:, None] * self.lu.solve(mixed)).T)

    def inverse_diagonal(self) -> Array:
        """The diagonal of Q^-1 (Takahashi, Fagan & Chin 1973; Rue & Held 2005, section 2.4).

        With Z the inverse, L unit lower, D the pivots: Z_jj = 1 / D_j - sum_i L_ij Z_ij, Z_ij = -sum_k Z_ik L_kj, where
        i and k run over the rows of column j of L. Its first row p is its parent in the elimination tree; the others
        are rows of column p: so all that is needed is in the dense block of Z of the parent.
        """
        n = len(self.pivots)
        permuted = self.scaled[self.order][:, self.order].tocsc()
        below = sparse.tril(permuted, -1).tocsc()
        below.sort_indices()
        rows: list[Any] = []  # of each column of L: those of the matrix, and those of the children in the tree
        children: list[list[int]] = [[] for _ in range(n)]
        for j in range(n):
            own = below.indices[below.indptr[j] : below.indptr[j + 1]]
            parts = [own, *(rows[c][1:] for c in children[j])]
            rows.append(np.unique(np.concatenate(parts)) if len(parts) > 1 else own)
            if len(rows[j]):
                children[rows[j][0]].append(j)
        waiting = [len(some) for some in children]
        blocks: dict[int, Array] = {}
        diagonal = np.empty(n)
        for j in range(n - 1, -1, -1):
            some, k = rows[j], len(rows[j])
            block = np.empty((k + 1, k + 1))
            block[0, 0] = 1 / self.pivots[j]
            if k:
                parent = int(some[0])
                place = np.append(0, 1 + np.searchsorted(rows[parent], some[1:]))
                inner = blocks[parent] if k == len(blocks[parent]) else blocks[parent][np.ix_(place, place)]
                waiting[parent] -= 1
                if not waiting[parent]:
                    del blocks[parent]
                start, stop = self.unit.indptr[j], self.unit.indptr[j + 1]
                index, value = self.unit.indices[start:stop], self.unit.data[start:stop]
                kept = (index > j) & (value != 0)
                column = np.zeros(k)
                column[np.searchsorted(some, index[kept])] = value[kept]
                across = inner @ column
                block[0, 0] += column @ across
                block[0, 1:] = block[1:, 0] = -across
                block[1:, 1:] = inner
            diagonal[j] = block[0, 0]
            if children[j]:
                blocks[j] = block
        result = np.empty(n)
        result[self.order] = diagonal
        return np.asarray(result * self.scale**2)


def _graphical_lasso(S: Array, alpha: float, tol: float, max_iter: int) -> tuple[Array, int]:
    """The precision Q that minimises -log det Q + tr(S Q) + alpha sum_ij |Q_ij| (i != j), and iterations.

    Scikit-learn's coordinate descent is fast, but may stop early, or fail where columns are more than rows. Proximal
    gradient steps then go on from there until the duality gap is below ``tol`` (D. Guillot et al.,
    Iterative thresholding algorithm for sparse inverse covariance estimation, NIPS 2012).
    """
    if alpha == 0:
        U = precision_cholesky(
            S, "tied", subject="the covariance of the data", remedy="Set alpha > 0, or use more rows."
        )
        return U @ U.T, 1
    from sklearn.covariance import graphical_lasso

    d = len(S)
    Q, n_iter = np.diag(1 / S.diagonal()), 0
    if d > 1:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                _, found, n_iter = graphical_lasso(
                    S, alpha, tol=tol, enet_tol=min(1e-4, 1e-2 * tol), max_iter=max_iter, return_n_iter=True
                )
            found = np.where((found != 0) & (found.T != 0), 0.5 * (found + found.T), 0.0)
            np.linalg.cholesky(found)
            Q = found
        except (FloatingPointError, np.linalg.LinAlgError):
            pass
    off = ~np.eye(d, dtype=bool)
    W, log_det = np.linalg.inv(Q), _log_det(Q)
    step = 1.0 / np.square(W).sum()
    for iteration in range(100 * max_iter + 1):
        feasible = np.where(off, S + np.clip(W - S, -alpha, alpha), S)  # for the dual problem
        gap = (S * Q).sum() + alpha * np.abs(Q[off]).sum() - log_det - _log_det(feasible) - d
        if gap < tol:
            return Q, n_iter + iteration
        gradient = S - W
        while True:
            new = Q - step * gradient
            new[off] = np.sign(new[off]) * np.maximum(np.abs(new[off]) - step * alpha, 0.0)
            change, new_log_det = new - Q, _log_det(new)
            allowed = -log_det + (gradient * change).sum() + np.square(change).sum() / (2 * step)
            if -new_log_det + (S * change).sum() <= allowed + 1e-13 * (d + abs(log_det)):
                break
            step *= 0.5
        new_W = np.linalg.inv(new)
        curvature = -((new_W - W) * change).sum()
        step = float(np.square(change).sum() / curvature) if curvature > 0 else 1.0  # Barzilai and Borwein
        Q, W, log_det = new, 0.5 * (new_W + new_W.T), new_log_det
        if not change.any():
            break
    warnings.warn(
        f"the graphical lasso stopped at a duality gap of {gap:.2g}, tol is {tol:g}: increase alpha, tol or max_iter",
        ConvergenceWarning,
        stacklevel=4,
    )
    return Q, n_iter + iteration


def _log_det(A: Array) -> float:
    """log det of a symmetric matrix; -inf if it is not positive definite."""
    try:
        return 2 * float(np.log(np.linalg.cholesky(A).diagonal()).sum())
    except np.linalg.LinAlgError:
        return -np.inf


def _not_positive(reason: str) -> SingularCovarianceError:
    return SingularCovarianceError(0, reason, "the precision", "Add a positive number to its diagonal.")
