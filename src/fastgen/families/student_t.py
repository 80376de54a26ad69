"""Multivariate Student t: full, tied, diagonal or spherical scale matrices, degrees of freedom fixed or estimated.

x | u ~ N(mu, S / u), u ~ Gamma(nu / 2, rate nu / 2): a Gaussian whose precision varies from row to row. Far rows get a
small u, so outliers hardly move the fit. With a diagonal S the columns are uncorrelated but not independent: one u
scales the whole row.

Fit. The E-step expects u: E[u | x] = (nu + o) / (nu + delta), delta the squared Mahalanobis distance of the o observed
columns. Statistics are the weight N = sum r, the moments of the rows under weights r u, and sums for nu. Then:

- mu is the mean under r u, and S the scatter V under r u divided by sum r u instead of sum r. That is the M-step of EM
  in a model with one parameter more, u ~ alpha Gamma(nu / 2, rate nu / 2), whose S / alpha is the S of this model: so
  it never lowers the likelihood (PX-EM: Liu, Rubin & Wu 1998; the estimating equation is that of Kent, Tyler & Vardi
  1994). With ``reg_covar`` S = V / (N alpha) + reg_covar, and alpha, the maximum of the penalised objective, solves a
  concave problem in log alpha (`_expansion`).
- nu, in one of two ways. ``cautious``: the M-step of the same EM, log(nu / 2) - digamma(nu / 2) = A, whose steps are
  short where nu is large. Otherwise, as in ECME (Liu & Rubin 1995; McLachlan & Peel 2000, ch. 7), towards the maximum
  of the log-likelihood itself: its first two derivatives are part of the statistics, and nu takes a Newton step in
  log(1 + 4 / nu), in which the log-likelihood is nearly a parabola, and linear at both ends. The derivatives belong to
  the old mu and S, so that one pass over the data is enough; for that reason the step is not proved to raise the
  objective, and a family whose ``accelerated`` is True must be asked again, ``cautious``, if it fell.

Missing values: a marginal of a t is a t with the same nu. Full and tied scales: E[u x_m x_m^T | x_o] = u m m^T + C with
the conditional mean m and scale C of the regression of x_m on x_o. Diagonal and spherical: a cell that is missing adds
nothing, and each column has its own weight.

C. Liu & D. B. Rubin, *ML estimation of the t distribution using EM and its extensions, ECM and ECME*, Statistica Sinica
5 (1995). C. Liu, D. B. Rubin & Y. N. Wu, *Parameter expansion to accelerate EM*, Biometrika 85 (1998). J. T. Kent,
D. E. Tyler & Y. Vardi, *A curious likelihood identity for the multivariate t-distribution*, Communications in
Statistics 23 (1994). G. McLachlan & D. Peel, *Finite Mixture Models* (2000), ch. 7. S. Kotz & S. Nadarajah,
*Multivariate t Distributions and Their Applications* (2004), ch. 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._missing import Index, incomplete_rows, patterns
from fastgen._parallel import Body, run_chunks
from fastgen._validation import (
    BLOCK_ROWS,
    Array,
    Data,
    as_data,
    as_floats,
    as_parameters,
    check_choice,
    check_number,
    refuse_infinity,
)
from fastgen.errors import EmptyComponentError, SingularCovarianceError, UnobservedColumnError
from fastgen.families._independent import check_weights, draw_components
from fastgen.families._moments import DiagonalStatistics, FullStatistics, moments
from fastgen.families.gaussian import _REMEDY, Gaussian, _indices, _refuse_unobserved, covariances_root, regression
from fastgen.kernels import (
    COVARIANCE_TYPES,
    GaussianFactors,
    _run_density,
    covariance_shape,
    density_out,
    precision_cholesky,
    prepare_gaussians,
)

MIN_DF, MAX_DF = 0.1, 1e6
"""Range of estimated degrees of freedom. The upper end is a Gaussian, for all practical purposes."""

START_DF = 30.0
"""Degrees of freedom that a fit begins with: almost a Gaussian."""

_STEPS = 12  # of recurrences, to where an asymptotic series has converged to double precision
_FARTHEST = 1e300  # squared distances beyond it count as this in derivatives: no infinities there
_LOG_ROW_NS = 25.0  # what a row costs beside its distance, for each component
_TURN = 4.0  # degrees of freedom around which log(1 + _TURN / nu) turns from -log nu into 1 / nu


@dataclass(frozen=True, eq=False)
class StudentTStatistics:
    """Sums over rows, for K components, under the parameters of a family (or u = 1 where it had none)."""

    weight: Array
    """(K,) sum r"""
    cells: Array
    """(K, d) sum r of the rows in which the column is observed"""
    moments: FullStatistics | DiagonalStatistics
    """Moments under weights r u: full and tied, or diagonal and spherical scales."""
    dfs: Array
    """(K,) degrees of freedom under which this was computed; NaN for u = 1"""
    log_u: Array
    """(K,) sum r E[log u | x]"""
    score: Array
    """(K,) derivative of sum r log p(x) with respect to 1 / nu"""
    curvature: Array
    """(K,) second derivative"""

    complete = False
    """They depend on parameters."""

    def __add__(self, other: "StudentTStatistics") -> "StudentTStatistics":
        if not isinstance(other, StudentTStatistics):
            return NotImplemented
        if not np.array_equal(self.dfs, other.dfs, equal_nan=True):
            raise ValueError("statistics under different parameters cannot be merged")
        return StudentTStatistics(
            self.weight + other.weight,
            self.cells + other.cells,
            cast(Any, self.moments) + other.moments,
            self.dfs,
            self.log_u + other.log_u,
            self.score + other.score,
            self.curvature + other.curvature,
        )

    @classmethod
    def stack(cls, parts: "Sequence[StudentTStatistics]") -> "StudentTStatistics":
        """Statistics of several families' components, as those of one family."""

        def joined(name: str) -> Array:
            return np.concatenate([getattr(part, name) for part in parts])

        moments: Any = type(parts[0].moments)
        return cls(
            joined("weight"),
            joined("cells"),
            moments.stack([part.moments for part in parts]),
            joined("dfs"),
            joined("log_u"),
            joined("score"),
            joined("curvature"),
        )


class Rows(NamedTuple):
    """What `StudentT.observe` keeps: the data itself."""

    X: Data
    weights: Array | None


class _Distances(NamedTuple):
    """What is needed for rows with the same observed columns."""

    prepared: GaussianFactors
    """Made so that the kernel returns -delta / 2."""
    log_norm: Array
    """(K,) log-density at the centre"""


class StudentT:
    """K multivariate Student t distributions: the family.

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the scale matrices S; the covariance is S nu / (nu - 2), where nu > 2.
    reg_covar : float, not negative
        Added to the diagonal of fitted scales: the fit then maximises the log-likelihood minus
        ``reg_covar / 2 * weight * trace(inverse(scale))``.
    df : float, optional
        Degrees of freedom nu of all components, held fixed. Default: estimated for each, within [0.1, 1e6]. Data whose
        tails are not heavier than a Gaussian's drives it to the upper end, where it stays.
    means : array (K, d), optional
        Locations (means where nu > 1).
    scales : array, optional
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,).
    dfs : array (K,), optional
        Degrees of freedom; not needed if ``df`` is given. With ``means`` and ``scales``, or not at all.

    Raises
    ------
    fastgen.errors.SingularCovarianceError
        A scale matrix is not positive definite.

    Notes
    -----
    How it is fitted, and the sources: see the head of this module.

    Examples
    --------
    A t fitted by EM hardly notices what moves the mean by 2.5:

    >>> import numpy as np
    >>> from fastgen.families import StudentT
    >>> rng = np.random.default_rng(1)
    >>> X = rng.standard_normal((300, 2))
    >>> X[:15] += 50
    >>> family = StudentT()
    >>> for _ in range(30):
    ...     family = family.maximise(family.statistics(X))
    >>> bool(np.abs(family.means).max() < 0.2), bool(np.abs(X.mean(axis=0)).max() > 2)
    (True, True)
    """

    def __init__(
        self,
        covariance_type: str = "full",
        reg_covar: float = 0.0,
        df: float | None = None,
        *,
        means: ArrayLike | None = None,
        scales: ArrayLike | None = None,
        dfs: ArrayLike | None = None,
    ) -> None:
        check_choice(covariance_type, "covariance_type", COVARIANCE_TYPES)
        check_number(reg_covar, "reg_covar", Real, 0)
        if df is not None:
            check_number(df, "df", Real, 0)
            if df == 0:
                raise ValueError("df must be positive, got 0")
        self.covariance_type = covariance_type
        self.reg_covar = float(reg_covar)
        self.df = None if df is None else float(df)
        self._dfs: Array | None = None
        if dfs is None and df is not None and means is not None:
            dfs = np.full(len(as_floats(means, "means")), self.df)
        if len({means is None, scales is None, dfs is None}) > 1:
            raise ValueError("give means, scales and dfs (or df), or none of them")
        if dfs is not None:
            gaussian = _gaussian_of(covariance_type, reg_covar, means, scales)
            array = as_parameters(dfs, "dfs", (gaussian.n_components,)).copy()
            if array.min() <= 0:
                raise ValueError(f"dfs must be positive, got {array.min()}")
            if df is not None and (array != df).any():
                raise ValueError(f"dfs must all be df = {df}, got {array}")
            self._set(gaussian, array)

    def _set(self, gaussian: Gaussian, dfs: Array) -> Self:
        """Take checked parameters: means and scales as those of a Gaussian."""
        self._gaussian, self._dfs = gaussian, dfs
        dfs.flags.writeable = False
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_whole"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._dfs is not None:
            self._dfs.flags.writeable = False  # pickling and copying forget it

    def __repr__(self) -> str:
        size = "" if self._dfs is None else f", {self.n_components} components, {self.n_features} features"
        df = "" if self.df is None else f", df={self.df:g}"
        return f"families.StudentT({self.covariance_type!r}, reg_covar={self.reg_covar:g}{df}{size})"

    @property
    def accelerated(self) -> bool:
        """Whether `maximise` may overshoot, so that it must be asked again, ``cautious``, if the objective fell."""
        return self.df is None

    @property
    def dfs(self) -> Array:
        """Degrees of freedom, (K,)."""
        if self._dfs is None:
            raise AttributeError("this family has no parameters yet: give it means, scales and dfs, or fit it")
        return self._dfs

    @property
    def means(self) -> Array:
        """Locations, (K, d)."""
        self.dfs  # noqa: B018 - raises if there are no parameters
        return self._gaussian.means

    @property
    def scales(self) -> Array:
        """Scale matrices: full (K, d, d), tied (d, d), diag (K, d), spherical (K,)."""
        self.dfs  # noqa: B018
        return self._gaussian.covariances

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.dfs)

    @property
    def n_features(self) -> int:
        """d."""
        return int(self.means.shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters: locations, distinct elements of the scales, and the degrees of freedom unless fixed."""
        K = len(self.dfs)
        return self._gaussian.n_parameters + (K if self.df is None else 0)

    @property
    def parameters(self) -> dict[str, Array]:
        """Locations, scales and degrees of freedom, by name."""
        return {"means": self.means, "scales": self.scales, "dfs": self.dfs}

    def scale_matrix(self, component: int) -> Array:
        """Scale of one component as a matrix (d, d), whatever the type."""
        self.dfs  # noqa: B018
        return self._gaussian.covariance_matrix(component)

    # ---- densities ---------------------------------------------------------------------------------------------------

    def log_density(self, X: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
        """Log-density of each row under each component; of its observed part where cells are NaN.

        log t(x) = log G((nu + d) / 2) - log G(nu / 2) - d / 2 log(pi nu) - 1/2 log det S
        - (nu + d) / 2 log(1 + delta / nu), delta = (x - mu)^T S^-1 (x - mu) as in
        `fastgen.kernels.gaussian_log_density`. No digits are lost where nu is large.

        Parameters
        ----------
        X : array (n, d)
            float32 or float64 of any layout. A row without any observed cell has log-density 0.
        out : array (n, K), optional
            Of X's dtype or float64.
        n_threads : int, optional
            The result does not depend on it.

        Returns
        -------
        array (n, K), in nats
            float32 if X is float32 (computed in float64 and rounded once), else float64. -inf for rows more than 1e154
            scales away, whose delta overflows.

        Raises
        ------
        ValueError
            Infinity in X, or a wrong shape.

        Notes
        -----
        O(n K d^2) for full, O(n (d^2 + K d)) for tied, O(n K d) otherwise; a Cholesky factor for each distinct pattern
        of missing columns. Memory beyond the result: 4096 rows for each thread.
        """
        data = as_data(X, n_features=self.n_features)
        result = density_out(out, (len(data), self.n_components), data)
        if self._log_density_into(result, data, n_threads):
            refuse_infinity(data)
            for rows, observed in patterns(data, incomplete_rows(data)):
                if not len(observed):
                    result[rows] = 0.0
                    continue
                part = np.empty((len(rows), self.n_components), result.dtype)
                self.marginal(observed)._log_density_into(part, data[np.ix_(rows, observed)], n_threads)
                result[rows] = part
        return result

    def _log_density_into(self, result: Data, X: Data, n_threads: int | None) -> bool:
        """Log-density of complete rows; whether there are others, whose results mean nothing."""
        dfs, d = self.dfs, X.shape[1]
        at_centre = self._whole.log_norm
        bad = []

        def block(rows: slice) -> None:
            distances, incomplete = self._distances(X[rows])
            if incomplete:
                bad.append(rows.start)
            result[rows] = at_centre - 0.5 * (dfs + d) * np.log1p(distances / dfs)

        self._each_block(block, X, n_threads)
        return bool(bad)

    def _each_block(self, block: Any, X: Data, n_threads: int | None) -> None:
        """Call ``block(rows)`` for fixed blocks of rows, whatever the number of threads."""
        n = len(X)

        def body(start: int, stop: int) -> None:
            for first in range(start, stop, BLOCK_ROWS):
                block(slice(first, min(first + BLOCK_ROWS, stop)))

        def make_body() -> Body:
            return body

        cost = n * (self._whole.prepared.fmas_per_row / 6 + _LOG_ROW_NS * self.n_components)
        run_chunks(make_body, n, BLOCK_ROWS, cost, n_threads)

    @cached_property
    def _whole(self) -> _Distances:
        gaussian = self._gaussian
        prepared = prepare_gaussians(gaussian.means, gaussian.precisions_cholesky, self.covariance_type)
        normaliser, _, _ = log_normaliser(1 / self.dfs, self.n_features)
        return _Distances(
            prepared._replace(log_norm=np.zeros_like(prepared.log_norm)), prepared.log_norm[0] + normaliser
        )

    def _distances(self, X: Data) -> tuple[Array, bool]:
        """Squared Mahalanobis distances (n, K) of complete rows, and whether there are others."""
        distances = np.empty((len(X), self.n_components))
        bad = _run_density(self._whole.prepared, X, distances, 1)
        distances *= -2
        if bad:
            distances[np.isnan(distances)] = np.inf  # inf - inf: beyond the range of doubles
        return distances, bad

    # ---- fit -------------------------------------------------------------------------------------------------------

    def statistics(
        self, X: ArrayLike, weights: ArrayLike | None = None, *, n_threads: int | None = None
    ) -> StudentTStatistics:
        """Expected statistics of a block of data under the current parameters.

        Parameters
        ----------
        X : array (n, d)
            NaN: see the head of this module. Rows without any observed cell do not count.
        weights : array (n, K), or (n,) for one component, optional
            Default: one component, all ones. Rows of weight 0 do not count, whatever they hold.
        n_threads : int, optional
            The result does not depend on it.

        Returns
        -------
        StudentTStatistics
            A family without parameters takes u = 1 for each row, so a fit can begin with weights alone. O(n K d^2) for
            full and tied, O(n K d) for diag and spherical. Memory: O(n K).

        Raises
        ------
        ValueError
            Infinity in X, or a wrong shape.
        fastgen.errors.UnobservedColumnError
            Full or tied scales, no parameters yet, and a column is never observed.
        """
        return self._expected(X, weights, n_threads)[1]

    def observe(self, X: Data, weights: Array | None = None) -> Rows:
        """What EM needs of the data: all of it.

        Parameters
        ----------
        X : array (n, d)
        weights : array (n,), optional

        Returns
        -------
        Rows
        """
        return Rows(X, weights)

    def expect(self, observed: Rows) -> tuple[float, StudentTStatistics]:
        """Log-likelihood of what `observe` returned (nats, weighted), and statistics, for one component.

        Parameters
        ----------
        observed : Rows

        Returns
        -------
        log_likelihood : float
        statistics : StudentTStatistics
        """
        return self._expected(observed.X, observed.weights, None)

    def _expected(
        self, X: ArrayLike, weights: ArrayLike | None, n_threads: int | None
    ) -> tuple[float, StudentTStatistics]:
        known = self._dfs is not None
        data = as_data(X, n_features=self.n_features if known else None)
        n, d = data.shape
        r = check_weights(weights, n, self.n_components if known else None)
        r = np.ones((n, 1)) if r is None else np.ascontiguousarray(r)  # sums then have one order
        K = r.shape[1]
        if known and self.n_components != K:
            raise ValueError(f"weights must have {self.n_components} columns, one for each component")
        if known:
            sums, ru, incomplete = self._row_sums(data, r, n_threads)
        else:
            sums, ru, incomplete = np.zeros((4, K)), np.array(r.T, order="C"), True  # perhaps
        groups = []
        if incomplete:
            refuse_infinity(data)
            groups = list(patterns(data, incomplete_rows(data)))
        if not groups:
            weight = r.sum(axis=0)
            cells = np.repeat(weight[:, None], d, axis=1)
        else:
            whole = np.ones(n, np.bool_)
            weight, cells = np.zeros(K), np.zeros((K, d))
            for rows, observed in groups:
                whole[rows] = False
                if not len(observed):
                    ru[:, rows] = 0.0
                    continue
                part = r[rows]
                weight += part.sum(axis=0)
                cells[:, observed] += part.sum(axis=0)[:, None]
                if known:
                    X_o = data[np.ix_(rows, observed)]
                    group_sums, ru[:, rows], _ = self.marginal(observed)._row_sums(X_o, part, n_threads)
                    sums += group_sums
            rest = r[whole].sum(axis=0)
            weight += rest
            cells += rest[:, None]
        full = self.covariance_type in ("full", "tied")
        parts: list[Any] = [moments(data, ru[k], full, n_threads)[0] for k in range(K)]
        if full and groups:
            parts = [part + self._filled(data, r[:, k], ru[k], groups, k) for k, part in enumerate(parts)]
        dfs = self.dfs if known else np.full(K, np.nan)
        log_likelihood, log_u, score, curvature = sums
        merged = type(parts[0]).stack(parts)
        return float(log_likelihood.sum()), StudentTStatistics(weight, cells, merged, dfs, log_u, score, curvature)

    def _row_sums(self, X: Data, r: Array, n_threads: int | None) -> tuple[Array, Array, bool]:
        """Sums over complete rows, the weights r E[u | x], and whether there are other rows.

        The sums (4, K): log-likelihood, log u, score and curvature, as in `StudentTStatistics`.
        """
        n, d = X.shape
        K, nu = self.n_components, self.dfs
        a = 0.5 * (nu + d)
        bounded = np.minimum(nu, 100 * MAX_DF)  # cubes of more would be rounding alone
        at_centre = self._whole.log_norm
        mean_log = -log_minus_digamma(a)
        _, slope, bend = log_normaliser(1 / nu, d)
        ru = np.empty((K, n))
        sums = np.zeros((-(-n // BLOCK_ROWS), 4, K))
        bad = []

        def block(rows: slice) -> None:
            w = r[rows]
            distances, incomplete = self._distances(X[rows])
            if incomplete:
                bad.append(rows.start)
                w = np.where(np.isnan(X[rows]).any(axis=1, keepdims=True), 0.0, w)
            far = distances > _FARTHEST
            infinite = bool((far & (w > 0)).any())
            np.minimum(distances, _FARTHEST, out=distances)
            u = (nu + d) / (nu + distances)
            log_ratio = np.log1p(distances / nu)
            share = distances / (bounded + distances)
            gap = log_ratio - share
            s = sums[rows.start // BLOCK_ROWS]
            s[0] = (w * (at_centre - a * log_ratio)).sum(axis=0) if not infinite else -np.inf
            s[1] = (w * (mean_log + np.log(u))).sum(axis=0)
            # Of -(nu + d) / 2 log(1 + delta / nu), with respect to 1 / nu
            s[2] = (w * (slope + 0.5 * bounded * (bounded * gap - d * share))).sum(axis=0)
            share *= share
            s[3] = (w * (bend - 0.5 * bounded**2 * (bounded * (2 * gap - share) - d * share))).sum(axis=0)
            ru[:, rows] = (w * u).T

        self._each_block(block, X, n_threads)
        total = np.zeros((4, K))
        for part in sums:
            total += part
        return total, ru, bool(bad)

    def _filled(
        self, X: Data, r: Array, ru: Array, groups: Sequence[tuple[Index, Index]], component: int
    ) -> FullStatistics:
        """Moments of incomplete rows, missing cells filled in by regression on the observed ones."""
        d = X.shape[1]
        zero = np.zeros((1, d))
        total = FullStatistics(np.zeros(1), np.zeros(1), zero, zero, np.zeros((1, d, d)))
        if not ru.any():
            return total
        if self._dfs is not None:
            mean, scale = self.means[component], self.scale_matrix(component)
        else:
            try:
                start = Gaussian(reg_covar=self.reg_covar)._start(X, r, None)
            except UnobservedColumnError as error:
                error.component, error.subject = component, f"component {component}"
                raise
            mean, scale = start.means[0], start.covariances[0]
        for rows, observed in groups:
            w = ru[rows]
            if not len(observed) or not w.any():
                continue
            hidden = np.setdiff1d(np.arange(d), observed, assume_unique=True)
            part = cast(FullStatistics, moments(X[np.ix_(rows, observed)].astype(np.float64), w, True, None)[0])
            coefficients, residual = regression(scale, observed, hidden)
            spread = np.zeros((len(observed), d))  # deviations of the observed columns -> of all
            spread[np.arange(len(observed)), observed] = 1.0
            spread[:, hidden] = coefficients
            centre, rest = np.empty((1, d)), np.zeros((1, d))
            centre[0, observed], rest[0, observed] = part.mean[0], part.mean_rest[0]
            moved = (part.mean[0] - mean[observed]) + part.mean_rest[0]
            centre[0, hidden] = mean[hidden] + moved @ coefficients
            scatter = spread.T @ part.scatter[0] @ spread
            scatter[np.ix_(hidden, hidden)] += r[rows].sum() * residual
            total = total + FullStatistics(part.weight, part.rows, centre, rest, scatter[None])
        return total

    def maximise(self, statistics: StudentTStatistics, *, cautious: bool = False) -> Self:
        """The next parameters: see the head of this module.

        Parameters
        ----------
        statistics : StudentTStatistics
            As `statistics` returns them. For u = 1: mean and covariance, with ``df``, or 30 where it is estimated.
        cautious : bool
            Take the step that never lowers the objective. Without it, estimated degrees of freedom may overshoot; if
            they are fixed, every step is cautious.

        Returns
        -------
        StudentT

        Raises
        ------
        fastgen.errors.SingularCovarianceError
            A scale is not positive definite.
        fastgen.errors.UnobservedColumnError
            A column has no observed value in a component.
        fastgen.errors.EmptyComponentError
            A component has no weight.
        """
        full = self.covariance_type in ("full", "tied")
        expected = FullStatistics if full else DiagonalStatistics
        if not isinstance(getattr(statistics, "moments", None), expected):
            raise TypeError(f"{self.covariance_type} scales need their StudentTStatistics, got {type(statistics)}")
        N = statistics.weight
        if N.min() <= 0:
            raise EmptyComponentError(int(N.argmin()))
        _refuse_unobserved(statistics.cells)
        mean_u = statistics.moments.weight / N
        begins = bool(np.isnan(statistics.dfs).any())
        alpha = np.ones(len(N)) if begins else self._expansion(statistics)
        sums: Any = replace(statistics.moments, weight=N * alpha)
        if not full:
            sums = replace(sums, count=statistics.cells * alpha[:, None])
        try:
            gaussian = Gaussian(self.covariance_type, self.reg_covar).maximise(sums)
        except SingularCovarianceError as error:
            error.subject = error.subject.replace("covariances", "scales")
            raise
        if self.df is not None:
            dfs = np.full(len(N), self.df)
        elif begins:
            dfs = np.full(len(N), START_DF)
        elif cautious:
            dfs = 2 * inverse_log_minus_digamma(np.log(alpha) + (mean_u / alpha - 1) - statistics.log_u / N)
        else:
            dfs = _newton(statistics)
        if self.df is None:
            dfs = np.clip(dfs, MIN_DF, MAX_DF)
        return type(self)(self.covariance_type, self.reg_covar, self.df)._set(gaussian, dfs)

    def _expansion(self, statistics: StudentTStatistics) -> Array:
        """Alpha of the expanded model, (K,): sum r u / sum r, or less with ``reg_covar``.

        In t = log alpha the objective is concave, with the derivative
        -(alpha (nu N + sum_j c_j p_j) - nu U) / (2 alpha), p_j = alpha reg / (l_j + alpha reg), for the eigenvalues l_j
        of V / N and c_j = N (or scatter and weight of each column): its root by Newton's method on t + log(nu N + ...).
        """
        nu, N, U, cells = statistics.dfs, statistics.weight, statistics.moments.weight, statistics.cells
        V, K = statistics.moments.scatter, len(statistics.weight)
        kind = self.covariance_type
        if kind != "tied" and not self.reg_covar:
            return U / N
        have, want = nu * U, nu * N
        if kind == "tied":  # one alpha, or the scales would no longer be
            have, want = have.sum(keepdims=True), want.sum(keepdims=True)
            V, N = V.sum(axis=0, keepdims=True), N.sum(keepdims=True)
        if not self.reg_covar:
            return np.repeat(have / want, K)
        if V.ndim == 3:
            values = np.maximum(np.linalg.eigvalsh(V / N[:, None, None]), 0.0)
            counts = np.repeat(N[:, None], values.shape[1], axis=1)
        elif kind == "spherical":
            counts = cells.sum(axis=1, keepdims=True)
            values = V.sum(axis=1, keepdims=True) / counts
        else:
            values, counts = V / cells, cells
        log_alpha = np.log(have / want)
        for _ in range(50):
            ridge = np.exp(log_alpha)[:, None] * self.reg_covar
            p = ridge / (values + ridge)
            slowed = want + (counts * p).sum(axis=1)
            residual = log_alpha + np.log(slowed / have)
            step = residual / (1 + (counts * p * (1 - p)).sum(axis=1) / slowed)
            log_alpha = log_alpha - step
            if np.abs(step).max() < 1e-15:
                break
        return np.asarray(np.exp(np.broadcast_to(log_alpha, K)))

    def penalty(self, statistics: StudentTStatistics) -> float:
        """``-reg_covar / 2 * weight * trace(inverse(scale))``, summed over components: see the class."""
        sums: Any = replace(statistics.moments, weight=statistics.weight)
        if isinstance(sums, DiagonalStatistics):
            sums = replace(sums, count=statistics.cells)
        self.dfs  # noqa: B018
        return self._gaussian.penalty(sums)

    # ---- samples and parts -----------------------------------------------------------------------------------------

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation of each of the components that are listed.

        Parameters
        ----------
        components : integer array (n,)
        rng : numpy.random.Generator

        Returns
        -------
        array (n, d)
        """
        components = _indices(components, "components", self.n_components)
        if not len(components):
            return np.empty((0, self.n_features))
        centred = Gaussian(self.covariance_type)._set(
            np.zeros_like(self.means), self.scales, self._gaussian.precisions_cholesky
        )
        z = centred.sample(components, rng)
        z /= np.sqrt(_draw_u(self.dfs[components], rng))[:, None]
        return np.asarray(self.means[components] + z)

    def select(self, components: Sequence[int]) -> Self:
        """The family of some of the components."""
        chosen = _indices(components, "components", self.n_components)
        return self._like()._set(self._gaussian.select(components), self.dfs[chosen])

    def marginal(self, columns: Sequence[int] | Index) -> Self:
        """The family of some of the columns: t's with the same degrees of freedom."""
        self.dfs  # noqa: B018
        return self._like()._set(self._gaussian.marginal(columns), self.dfs.copy())

    def _like(self, covariance_type: str | None = None, df: float | None = None) -> Self:
        return type(self)(covariance_type or self.covariance_type, self.reg_covar, self.df if df is None else df)

    def condition(self, given: Mapping[int, float]) -> Self:
        """The family of the other columns, given finite values of some.

        x_m | x_o is a t with nu + o degrees of freedom, the location of the Gaussian regression, and its residual scale
        times (nu + delta_o) / (nu + o) (Kotz & Nadarajah, sec. 1.11). That factor is each component's own: tied scales
        become full ones.
        """
        observed = _indices(sorted(given), "columns", self.n_features)
        if not len(observed):
            return self.marginal(np.arange(self.n_features))
        values = np.array([float(given[int(column)]) for column in observed])
        if not np.isfinite(values).all():
            raise ValueError(f"given values must be finite, got {dict(given)}")
        distances, _ = self.marginal(observed)._distances(values[None])
        dfs = self.dfs + len(observed)
        factor = (self.dfs + distances[0]) / dfs
        rest = self._gaussian.condition(given)
        kind = "full" if self.covariance_type == "tied" else self.covariance_type
        scales = rest.covariances
        if self.covariance_type == "tied":
            scales = np.repeat(scales[None], self.n_components, axis=0)
        scales = scales * factor.reshape(-1, *[1] * (scales.ndim - 1))
        family = self._like(kind, None if self.df is None else self.df + len(observed))
        return family._set(Gaussian(kind, self.reg_covar)._set(rest.means, scales, derived=True), dfs)

    def impute(self, X: Data, posterior: Array | None = None, rng: np.random.Generator | None = None) -> Data:
        """A copy of X with each missing cell at its conditional location, or drawn given the observed cells.

        Parameters
        ----------
        X : array (n, d)
        posterior : array (n, K), optional
            p(k | observed part of each row). Default: the family has one component.
        rng : numpy.random.Generator, optional
            Draw with it. Default: conditional locations, averaged under the posterior; they are conditional means where
            these exist (nu plus the number of observed columns above 1).

        Returns
        -------
        array (n, d)
        """
        result = X.copy()
        for rows, observed in patterns(X, incomplete_rows(X)):
            hidden = np.setdiff1d(np.arange(X.shape[1]), observed, assume_unique=True)
            part = X[np.ix_(rows, observed)].astype(np.float64)
            p = np.ones((len(rows), 1)) if posterior is None else posterior[rows]
            if rng is not None:  # draw the component first: then its share is all or nothing
                p = np.eye(p.shape[1])[draw_components(p, rng)]
            distances = np.zeros((len(rows), self.n_components))
            if len(observed):
                distances, _ = self.marginal(observed)._distances(part)
            filled = np.zeros((len(rows), len(hidden)))
            for k in range(self.n_components):
                coefficients, residual = regression(self.scale_matrix(k), observed, hidden)
                values = self.means[k, hidden] + (part - self.means[k, observed]) @ coefficients
                if rng is not None:
                    nu = self.dfs[k] + len(observed)
                    factor = (self.dfs[k] + distances[:, k]) / nu / _draw_u(np.full(len(rows), nu), rng)
                    noise = rng.standard_normal(values.shape) @ covariances_root(residual)
                    values += np.sqrt(factor)[:, None] * noise
                filled += p[:, k, None] * values
            result[np.ix_(rows, hidden)] = filled
        return result


def _gaussian_of(covariance_type: str, reg_covar: float, means: Any, scales: Any) -> Gaussian:
    """Locations and scales, checked."""
    array = as_floats(means, "means")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"means must have shape (K, d), got {array.shape}")
    shape = covariance_shape(covariance_type, *array.shape)
    checked = as_parameters(scales, "scales", shape).copy()
    factors = precision_cholesky(checked, covariance_type, subject="scales", remedy=_REMEDY)
    return Gaussian(covariance_type, reg_covar)._set(
        as_parameters(array, "means", array.shape).copy(), checked, factors
    )


def _draw_u(dfs: Array, rng: np.random.Generator) -> Array:
    """u ~ Gamma(nu / 2, rate nu / 2); never 0."""
    return cast(Array, np.maximum(rng.chisquare(dfs) / dfs, np.finfo(np.float64).tiny))


def _newton(statistics: StudentTStatistics) -> Array:
    """Degrees of freedom after a Newton step in s = log(1 + _TURN / nu), at most 1 long; uphill where it is convex."""
    inverse = 1 / statistics.dfs
    scale = (1 + _TURN * inverse) / _TURN  # d(1 / nu) / ds, which is also the second derivative
    slope = statistics.score * scale
    bend = statistics.curvature * scale**2 + slope
    limit = np.where(bend < 0, 1.0, 0.5)
    step = np.divide(-slope, bend, out=np.sign(slope), where=bend < 0)
    s = np.log1p(_TURN * inverse) + np.clip(step, -limit, limit)
    return cast(Array, _TURN / np.expm1(np.maximum(s, np.log1p(_TURN / MAX_DF))))


# ---- Gamma functions -------------------------------------------------------------------------------------------------

# log G(x + 1/2) - log G(x) - log(x) / 2 in powers 1, 3, 5, ... of 1 / (2 x), and log x - digamma(x) - 1 / (2 x) in
# powers 2, 4, 6, ... of 1 / x; both from Bernoulli's numbers (DLMF 5.11.1, 5.11.2, 5.11.8).
_HALF_STEP = (-1 / 4, 1 / 24, -1 / 20, 17 / 112, -31 / 36, 691 / 88, -5461 / 52)
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


def log_normaliser(w: Array, d: int) -> tuple[Array, Array, Array]:
    """log G((nu + d) / 2) - log G(nu / 2) - d / 2 log(nu / 2) for nu = 1 / w, and its derivatives with respect to w.

    By the recurrence of G this is a sum of log(1 + a w), and for odd d what half a step adds: nothing cancels, and
    w = 0 is no special case.

    Parameters
    ----------
    w : array (K,)
    d : int

    Returns
    -------
    value, first, second : arrays (K,)
    """
    steps = np.arange(d % 2, d - 1, 2, dtype=np.float64)
    coefficients = np.ones(len(steps))
    if d % 2:  # log G(x + 1/2) - log G(x) - log(x) / 2 at x = nu / 2, less the same at x + _STEPS
        j = 2.0 * np.arange(_STEPS)
        steps = np.concatenate([steps, j, j + 1, j + 2])
        half = np.full(_STEPS, 0.5)
        coefficients = np.concatenate([coefficients, half, -2 * half, half])
    column = w[:, None]
    slope = steps / (1 + steps * column)
    value = (coefficients * np.log1p(steps * column)).sum(axis=1)
    first = (coefficients * slope).sum(axis=1)
    second = -(coefficients * slope**2).sum(axis=1)
    if d % 2:
        shrink = 1 / (1 + 2 * _STEPS * w)
        v, dv, ddv = w * shrink, shrink**2, -4 * _STEPS * shrink**3
        powers = range(1, 2 * len(_HALF_STEP), 2)
        slope_v = sum(c * p * v ** (p - 1) for c, p in zip(_HALF_STEP, powers, strict=True))
        value += sum(c * v**p for c, p in zip(_HALF_STEP, powers, strict=True))
        first += slope_v * dv
        second += slope_v * ddv
        second += dv**2 * sum(c * p * (p - 1) * v ** max(p - 2, 0) for c, p in zip(_HALF_STEP, powers, strict=True))
    return value, first, second


def log_minus_digamma(x: Array) -> Array:
    """log x - digamma(x) for x > 0; positive, falling, about 1 / (2 x) for large x."""
    inverse = 1 / (x[..., None] + np.arange(_STEPS))
    value = (inverse - np.log1p(inverse)).sum(axis=-1)
    y = 1 / (x + _STEPS)
    return cast(Array, value + y / 2 + sum(c * y ** (2 * i + 2) for i, c in enumerate(_DIGAMMA)))


def inverse_log_minus_digamma(value: Array) -> Array:
    """x with log x - digamma(x) = value, within half the range of the degrees of freedom; by bisection in log x."""
    low = np.full(value.shape, np.log(MIN_DF / 2))
    high = np.full(value.shape, np.log(MAX_DF / 2))
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = log_minus_digamma(np.exp(middle)) > value
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return cast(Array, np.exp(high))
