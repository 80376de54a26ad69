"""Multivariate Gaussians: full, tied, diagonal or spherical covariance.

Fit. The statistics are weight, mean and centred scatter of each component; the maximum likelihood estimate is
covariance = scatter / weight (+ reg_covar on the diagonal).

Missing values, full and tied: the E-step replaces a missing part x_m by its conditional mean given the observed part
x_o, and adds its conditional covariance to the scatter (Little & Rubin, *Statistical Analysis with Missing Data*,
sec. 11.2). Diagonal and spherical: columns are independent, so each has its own weight and nothing is filled in.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._kernels import _gaussian
from fastgen._missing import Index, incomplete_rows, patterns
from fastgen._validation import (
    Array,
    Data,
    as_data,
    as_floats,
    as_parameters,
    as_weights,
    check_choice,
    check_number,
    refuse_infinity,
)
from fastgen.errors import EmptyComponentError, SingularCovarianceError, UnobservedColumnError
from fastgen.families import _gaussian_em
from fastgen.families._moments import (
    AnyStatistics,
    DiagonalStatistics,
    FullStatistics,
    ObservedPart,
    moments,
    two_sum,
)
from fastgen.kernels import (
    COVARIANCE_TYPES,
    GaussianFactors,
    covariance_shape,
    covariances_of,
    density_out,
    log_density_into,
    precision_cholesky,
    prepare_gaussians,
)

_REMEDY = "Increase reg_covar, use more samples, or a simpler covariance_type."


def regression(covariance: Array, observed: Index, missing: Index) -> tuple[Array, Array]:
    """Coefficients B^T (o, m) and residual covariance (m, m) of the missing given the observed columns.

    x_m | x_o ~ N(mu_m + B (x_o - mu_o), Sigma_mm - B Sigma_om), B = Sigma_mo Sigma_oo^-1.
    """
    residual = covariance[np.ix_(missing, missing)]
    if not len(observed):
        return np.zeros((0, len(missing))), residual
    U = precision_cholesky(covariance[np.ix_(observed, observed)], "tied", tolerance=0.0)
    half = U.T @ covariance[np.ix_(observed, missing)]
    return U @ half, residual - half.T @ half


class Gaussian:
    """K Gaussians: the family.

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}
    reg_covar : float, not negative
        Added to the diagonal of fitted covariances: the fit then maximises the log-likelihood minus
        ``reg_covar / 2 * weight * trace(inverse(covariance))``, as if each sample were known up to that variance.
    floor : array (d,), optional
        Smallest variances of the columns, not negative: fitted covariances are kept from falling below them in any
        direction (of standardised columns; spherical: below their mean). The fit maximises under this constraint.
    means : array (K, d), optional
    covariances : array, optional
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,). Given together with ``means``, or not at all.

    Raises
    ------
    fastgen.errors.SingularCovarianceError
        A covariance is not positive definite.
    """

    def __init__(
        self,
        covariance_type: str = "full",
        reg_covar: float = 0.0,
        *,
        floor: ArrayLike | None = None,
        means: ArrayLike | None = None,
        covariances: ArrayLike | None = None,
    ) -> None:
        check_choice(covariance_type, "covariance_type", COVARIANCE_TYPES)
        check_number(reg_covar, "reg_covar", Real, 0)
        if (means is None) != (covariances is None):
            raise ValueError("give both means and covariances, or neither")
        self.covariance_type = covariance_type
        self.reg_covar = float(reg_covar)
        self.floor = None if floor is None else as_parameters(floor, "floor", np.shape(floor)).copy()
        if self.floor is not None and (self.floor.ndim != 1 or self.floor.min(initial=0) < 0):
            raise ValueError(f"floor must have shape (d,) and not be negative, got {floor!r}")
        self._floored: NDArray[np.bool_] | None = None
        self._means: Array | None = None
        if means is not None and covariances is not None:
            array = as_floats(means, "means")
            if array.ndim != 2 or 0 in array.shape:
                raise ValueError(f"means must have shape (K, d), got {array.shape}")
            shape = covariance_shape(covariance_type, *array.shape)
            self._set(
                as_parameters(array, "means", array.shape).copy(),
                as_parameters(covariances, "covariances", shape).copy(),
            )

    def _set(self, means: Array, covariances: Array, factors: Array | None = None, *, derived: bool = False) -> Self:
        """Take checked parameters, and make them constant; `derived` from such that were not singular."""
        if factors is None:
            tolerance = 0.0 if derived else 4.0
            factors = precision_cholesky(covariances, self.covariance_type, remedy=_REMEDY, tolerance=tolerance)
        self._means, self._covariances, self._factors = means, covariances, factors
        return self._freeze()

    def _like(self, columns: Index | slice = slice(None)) -> Self:
        """The same family without parameters, of some columns."""
        floor = None if self.floor is None else self.floor[columns]
        return type(self)(self.covariance_type, self.reg_covar, floor=floor)

    def with_parameters(self, means: Array, covariances: Array) -> Self:
        """The same family with these parameters: see the class for their shapes and what is raised."""
        return self._like()._set(np.array(means, order="C"), np.array(covariances, order="C"))

    def with_factors(self, means: Array, precisions_cholesky: Array) -> Self:
        """The same family with these means and factors of the precisions (`fastgen.kernels.precision_cholesky`)."""
        factors = np.array(precisions_cholesky, order="C")
        square = self.covariance_type in ("full", "tied")
        covariances = covariances_of(factors) if square else 1 / factors**2
        return self._like()._set(np.array(means, order="C"), covariances, factors)

    def _freeze(self) -> Self:
        if self._means is not None:
            for array in (self._means, self._covariances, self._factors):
                array.flags.writeable = False
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickling and copying forget it

    def __repr__(self) -> str:
        size = "" if self._means is None else f", {self._means.shape[0]} components, {self._means.shape[1]} features"
        return f"families.Gaussian({self.covariance_type!r}, reg_covar={self.reg_covar:g}{size})"

    @property
    def means(self) -> Array:
        """Means, (K, d)."""
        if self._means is None:
            raise AttributeError("this family has no parameters yet: give it means and covariances, or fit it")
        return self._means

    @property
    def covariances(self) -> Array:
        """Covariances: full (K, d, d), tied (d, d), diag (K, d), spherical (K,)."""
        self.means  # noqa: B018 - raises if there are no parameters
        return self._covariances

    @property
    def precisions_cholesky(self) -> Array:
        """Factors U of the precisions U U^T, in the shape of `covariances`."""
        self.means  # noqa: B018
        return self._factors

    @property
    def floored(self) -> NDArray[np.bool_]:
        """(K,) whether `floor` holds up a variance of the component."""
        return np.zeros(len(self.means), bool) if self._floored is None else self._floored

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.means)

    @property
    def n_features(self) -> int:
        """d."""
        return int(self.means.shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters: means, and the distinct elements of the covariances."""
        K, d = self.means.shape
        triangle = d * (d + 1) // 2
        sizes = {"full": K * triangle, "tied": triangle, "diag": K * d, "spherical": K}
        return int(K * d + sizes[self.covariance_type])

    @property
    def parameters(self) -> dict[str, Array]:
        """Means and covariances, by name."""
        return {"means": self.means, "covariances": self.covariances}

    def covariance_matrix(self, component: int) -> Array:
        """Covariance of one component as a matrix (d, d), whatever the type."""
        covariances = self.covariances
        if self.covariance_type == "tied":
            return covariances
        if self.covariance_type == "full":
            return cast(Array, covariances[component])
        return np.diag(np.broadcast_to(covariances[component], self.n_features))

    def log_density(self, X: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
        """Log-density of each sample under each component; of its observed part where cells are NaN.

        See `fastgen.kernels.gaussian_log_density`.

        Parameters
        ----------
        X : array (n, d)
        out : array (n, K), optional
        n_threads : int, optional

        Returns
        -------
        array (n, K), in nats
        """
        data = as_data(X, n_features=self.n_features)
        result = density_out(out, (len(data), self.n_components), data)
        parameters = self._prepared, self.means, self.precisions_cholesky, self.covariance_type
        log_density_into(result, data, *parameters, n_threads)
        return result

    @cached_property
    def _prepared(self) -> GaussianFactors:
        """The parameters as the kernel reads them."""
        return prepare_gaussians(self.means, self.precisions_cholesky, self.covariance_type)

    def statistics(
        self, X: ArrayLike, weights: ArrayLike | None = None, *, n_threads: int | None = None
    ) -> AnyStatistics:
        """Sufficient statistics of a block of data.

        Parameters
        ----------
        X : array (n, d)
            NaN: full and tied covariances need parameters to fill it in; a family that has none yet starts from
            the means and variances of the observed cells. Rows without any observed cell do not count.
        weights : array (n, K), or (n,) for one component, optional
            Default: one component, all ones.
        n_threads : int, optional
            The result does not depend on it.

        Returns
        -------
        FullStatistics (full, tied) or DiagonalStatistics (diag, spherical)
            O(n K d^2) and O(n K d).
        """
        data = as_data(X, n_features=None if self._means is None else self._means.shape[1])
        if weights is not None:
            weights = as_floats(weights, "weights")
            if weights.ndim == 2 and self._means is not None and weights.shape[1] != self.n_components:
                raise ValueError(f"weights must have {self.n_components} columns, got shape {weights.shape}")
            if weights.ndim == 2:
                if len(weights) != len(data) or not weights.size:
                    raise ValueError(f"weights must have shape (n, K), here ({len(data)}, K), got {weights.shape}")
                if not np.isfinite(weights).all() or weights.min() < 0:
                    raise ValueError("weights must be finite and not negative")
                columns = [np.asarray(weights[:, k], np.float64) for k in range(weights.shape[1])]
                parts: list[Any] = [self._statistics(data, w, k, n_threads) for k, w in enumerate(columns)]
                return cast(AnyStatistics, type(parts[0]).stack(parts))
        return self._statistics(data, as_weights(weights, len(data), "weights"), 0, n_threads)

    def _statistics(self, X: Data, weights: Array | None, component: int, n_threads: int | None) -> AnyStatistics:
        full = self.covariance_type in ("full", "tied")
        statistics, found = moments(X, weights, full, n_threads)
        if not found:
            return statistics
        refuse_infinity(X)
        if not isinstance(statistics, FullStatistics):
            raise AssertionError("only an infinity can have been found")
        start = self._start(X, weights, n_threads) if self._means is None else self.select([component])
        return start.expect(start.observe(X, weights, n_threads=n_threads))[1]

    def _start(self, X: Data, weights: Array | None, n_threads: int | None) -> "Gaussian":
        """One component with the mean and variance of what is observed of each column."""
        available = cast(DiagonalStatistics, moments(X, weights, False, n_threads)[0])
        _refuse_unobserved(available.count)
        variances = available.scatter[0] / available.count[0] + self.reg_covar
        variances[variances <= 0] = 1.0  # only a start: EM finds what it must be
        return Gaussian("full", means=available.mean, covariances=[np.diag(variances)])

    def observe(self, X: Data, weights: Array | None = None, *, n_threads: int | None = None) -> "list[ObservedPart]":
        """What EM needs of data with missing values, whatever the parameters: see `expect`.

        Parameters
        ----------
        X : array (n, d)
        weights : array (n,), optional
        n_threads : int, optional

        Returns
        -------
        list of ObservedPart
            One for each pattern of missing columns. Memory: O(n d).
        """
        d = X.shape[1]
        rows = incomplete_rows(X)
        parts = []
        whole, _ = moments(X, weights, True, n_threads)
        if whole.weight[0] > 0:
            parts.append(ObservedPart.of(np.arange(d), cast(FullStatistics, whole)))
        for group, observed in patterns(X, rows):
            w = None if weights is None else weights[group]
            if not len(observed) or (w is not None and not w.any()):
                continue
            missing = np.setdiff1d(np.arange(d), observed, assume_unique=True)
            block = X[np.ix_(group, observed)].astype(np.float64)
            columns = np.concatenate([observed, missing])
            if len(group) < len(observed):  # keep the rows: they are less than their scatter
                weight = float(len(group) if w is None else w.sum())
                mean = np.average(block, axis=0, weights=w)
                centred = block - mean
                if w is not None:
                    centred *= np.sqrt(w)[:, None]
                parts.append(
                    ObservedPart(columns, len(group), weight, mean, np.zeros(len(observed)), centred, thin=True)
                )
            else:
                parts.append(ObservedPart.of(columns, cast(FullStatistics, moments(block, w, True, n_threads)[0])))
        return parts

    def expect(self, parts: "Sequence[ObservedPart]") -> tuple[float, FullStatistics]:
        """E-step for missing values: log-likelihood of the observed cells, and expected statistics.

        Parameters
        ----------
        parts : list of ObservedPart
            As `observe` returns them. The family must have one component.

        Returns
        -------
        log_likelihood : float
            In nats, weighted.
        statistics : FullStatistics
            O(d^3) for each part, whatever the number of rows.
        """
        mean, covariance = self.means[0], self.covariance_matrix(0)
        d = len(mean)
        first, second, log_likelihood = np.zeros(d), np.zeros((d, d)), np.zeros(1)
        work = np.empty(_gaussian.missing_work_size(d))
        for part in parts:
            singular = _gaussian.expect_missing(
                mean,
                covariance,
                part.columns,
                part.weight,
                part.mean,
                part.mean_rest,
                part.scatter,
                0.0,
                first,
                second,
                log_likelihood,
                work,
            )
            if singular >= 0:  # by rounding: the whole covariance is not
                raise SingularCovarianceError(0, f"column {singular} follows from others", "covariances[0]", _REMEDY)
        weight = sum(part.weight for part in parts)
        shift = first / weight if weight > 0 else first
        moved, rest = two_sum(mean, shift)
        statistics = FullStatistics(
            np.array([weight]),
            np.array([float(sum(part.n_rows for part in parts))]),
            moved[None],
            rest[None],
            (second - weight * shift[:, None] * shift)[None],
            complete=all(len(part.mean) == d for part in parts),
        )
        return float(log_likelihood[0]), statistics

    def prepare(self, X: Data, weights: Array | None = None) -> "_gaussian_em.Prepared":
        """The data as `e_step` takes them, for many E-steps: what does not depend on parameters is found once."""
        return _gaussian_em.Prepared(X, weights)

    def e_step(
        self, data: "_gaussian_em.Prepared", log_weights: Array, *, n_threads: int | None = None
    ) -> tuple[float, AnyStatistics]:
        """Log-likelihood of a mixture with these components, and statistics under its responsibilities.

        Parameters
        ----------
        data : what `prepare` returns
        log_weights : array (K,)
            Logarithms of the components' probabilities.
        n_threads : int, optional

        Returns
        -------
        log_likelihood : float
            In nats, weighted.
        statistics : FullStatistics or DiagonalStatistics
            One pass over the data, O(n K d^2) (full) or O(n K d); see `fastgen.kernels.mixture_e_step`.
        """
        return _gaussian_em.e_step(self, data, log_weights, n_threads=n_threads)

    def mixture_log_prob(self, X: Data, log_weights: Array) -> Data:
        """log p(x) of a mixture with these components, (n,)."""
        return _gaussian_em.log_prob(self, X, log_weights)

    def mixture_posterior(self, X: Data, log_weights: Array) -> Data:
        """p(k | x) of a mixture with these components, (n, K)."""
        return _gaussian_em.posterior(self, X, log_weights)

    def mixture_predict(self, X: Data, log_weights: Array) -> NDArray[np.intp]:
        """The most probable component, (n,)."""
        return _gaussian_em.predict(self, X, log_weights)

    def maximise(self, statistics: AnyStatistics) -> Self:
        """The maximum likelihood estimate (with ``reg_covar``, see the class).

        Parameters
        ----------
        statistics : FullStatistics or DiagonalStatistics
            As `statistics` returns them for this covariance type.

        Returns
        -------
        Gaussian

        Raises
        ------
        fastgen.errors.SingularCovarianceError
        fastgen.errors.UnobservedColumnError
            A column has no observed value in a component.
        fastgen.errors.EmptyComponentError
            A component has no weight.
        """
        expected = FullStatistics if self.covariance_type in ("full", "tied") else DiagonalStatistics
        if not isinstance(statistics, expected):
            raise TypeError(f"{self.covariance_type} covariances need {expected.__name__}, got {type(statistics)}")
        if statistics.weight.min() <= 0:
            raise EmptyComponentError(int(statistics.weight.argmin()))
        if isinstance(statistics, DiagonalStatistics):
            _refuse_unobserved(statistics.count)
            scatter = _without_rounding(statistics.scatter, statistics.count, statistics.mean)
            if self.covariance_type == "diag":
                covariances = scatter / statistics.count
            else:
                covariances = scatter.sum(axis=1) / statistics.count.sum(axis=1)
            covariances = covariances + self.reg_covar
        else:
            covariances = self._full_covariances(statistics)
        if not np.isfinite(covariances).all() or not np.isfinite(statistics.mean).all():
            raise ValueError("the moments of the data overflow: scale the data, or the weights")
        covariances, floored = self._raised(covariances, len(statistics.mean))
        family = self._like()._set(statistics.mean.copy(), covariances)
        family._floored = floored
        return family

    def _raised(self, covariances: Array, K: int) -> tuple[Array, NDArray[np.bool_] | None]:
        """Covariances that are not below the floor, and which components had to be raised.

        Clipping the eigenvalues maximises the likelihood under the constraint (Ingrassia & Rocci 2007).
        """
        floor = self.floor
        if floor is None:
            return covariances, None
        if len(floor) != covariances.shape[-1] and self.covariance_type != "spherical":
            raise ValueError(f"floor must have shape ({covariances.shape[-1]},), got {floor.shape}")
        if self.covariance_type == "spherical":
            return np.maximum(covariances, floor.mean()), np.asarray(covariances < floor.mean())
        if self.covariance_type == "diag":
            return np.maximum(covariances, floor), np.asarray((covariances < floor).any(axis=1))
        if floor.min() == 0:  # a constant column has no scale
            return covariances, np.zeros(K, bool)
        scale = np.sqrt(floor)
        values, vectors = np.linalg.eigh(covariances / (scale * scale[:, None]))
        low = np.asarray(values < 1.0).any(axis=-1)
        raised = (vectors * np.maximum(values, 1.0)[..., None, :]) @ vectors.mT * (scale * scale[:, None])
        which = np.broadcast_to(low, (K,))
        return np.where(np.expand_dims(low, (-2, -1)), 0.5 * (raised + raised.mT), covariances), which

    def _full_covariances(self, statistics: FullStatistics) -> Array:
        """Scatter over weight, or the error that says why this is singular."""
        d = statistics.mean.shape[1]
        scatter = statistics.scatter.copy()
        diagonal = np.arange(d)
        pooled = len(scatter) < len(statistics.weight)
        weight, mean = statistics.weight[:, None], statistics.mean
        if pooled:
            weight, mean = weight.sum(axis=0, keepdims=True), np.abs(mean).max(axis=0, keepdims=True)
        scatter[:, diagonal, diagonal] = _without_rounding(scatter[:, diagonal, diagonal], weight, mean)
        rows = statistics.rows - 1  # rank of each scatter, at most
        if self.covariance_type == "full":
            if pooled:
                raise ValueError("full covariances need statistics with a scatter for each component")
            covariances = scatter / statistics.weight[:, None, None]
        else:
            covariances = scatter.sum(axis=0) / statistics.weight.sum()
            rows = np.array([rows.sum()])
        if self.reg_covar == 0 and self.floor is None:
            # Constant columns first: they say more. Then what rounding would hide from the Cholesky factor.
            for k, covariance in enumerate(covariances.reshape(-1, d, d)):
                if covariance.diagonal().min() > 0 and rows[k] < d:
                    reason = f"{d} columns need more than {d} samples"
                    raise SingularCovarianceError(k, reason, f"covariances[{k}]", _REMEDY)
        covariances[..., diagonal, diagonal] += self.reg_covar
        return np.asarray(covariances)

    def penalty(self, statistics: AnyStatistics) -> float:
        """``-reg_covar / 2 * weight * trace(inverse(covariance))``, summed over components: see the class."""
        if not self.reg_covar:
            return 0.0
        squares = self.precisions_cholesky**2
        if isinstance(statistics, DiagonalStatistics):
            if self.covariance_type == "spherical":
                squares = squares[:, None]
            return float(-0.5 * self.reg_covar * (statistics.count * squares).sum())
        trace = squares.sum(axis=(-2, -1))
        return float(-0.5 * self.reg_covar * (statistics.weight * trace).sum())

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation from each of the components that are listed.

        Parameters
        ----------
        components : integer array (n,)
        rng : numpy.random.Generator

        Returns
        -------
        array (n, d)
        """
        components = _indices(components, "components", self.n_components)
        z = rng.standard_normal((len(components), self.n_features))
        if self.covariance_type in ("diag", "spherical"):
            sd = np.sqrt(self.covariances)[components]
            return np.asarray(self.means[components] + z * (sd if sd.ndim == 2 else sd[:, None]))
        factors = self.precisions_cholesky
        for k in np.unique(components):
            root = np.array(factors if self.covariance_type == "tied" else factors[k])
            _gaussian.inverse(root, np.empty(len(root)))  # covariance = root^T root
            rows = components == k
            z[rows] = z[rows] @ root + self.means[k]
        return z

    def select(self, components: Sequence[int]) -> Self:
        """The family of some of the components."""
        chosen = _indices(components, "components", self.n_components)
        parameters = [self.covariances, self.precisions_cholesky]
        if self.covariance_type != "tied":
            parameters = [array[chosen] for array in parameters]
        return self._like()._set(self.means[chosen], *parameters)

    def marginal(self, columns: Sequence[int] | Index) -> Self:
        """The family of some of the columns."""
        columns = _indices(columns, "columns", self.n_features)
        covariances = self.covariances
        if self.covariance_type == "diag":
            covariances = covariances[:, columns]
        elif self.covariance_type != "spherical":
            covariances = covariances[..., columns[:, None], columns]
        family = self._like(columns)
        return family._set(self.means[:, columns].copy(), np.array(covariances, order="C"), derived=True)

    def condition(self, given: Mapping[int, float]) -> Self:
        """The family of the other columns, given values of some.

        For K components this is p(rest | given, component): the components' own probabilities change too, in
        proportion to the density of the given values.
        """
        observed = _indices(sorted(given), "columns", self.n_features)
        rest = np.setdiff1d(np.arange(self.n_features), observed)
        if self.covariance_type in ("diag", "spherical"):
            return self.marginal(rest)
        values = np.array([given[int(column)] for column in observed])
        means = np.empty((self.n_components, len(rest)))
        residuals = []
        for k in range(self.n_components):
            coefficients, residual = regression(self.covariance_matrix(k), observed, rest)
            means[k] = self.means[k, rest] + (values - self.means[k, observed]) @ coefficients
            residuals.append(residual)
        covariances = residuals[0] if self.covariance_type == "tied" else np.stack(residuals)
        return self._like(rest)._set(means, covariances, derived=True)

    def impute(self, X: Data, posterior: Array | None = None, rng: np.random.Generator | None = None) -> Data:
        """A copy of X with each missing cell at its conditional mean, or drawn given the observed cells.

        E[x_m | x_o] = sum_k p(k | x_o) E[x_m | x_o, k]

        Parameters
        ----------
        X : array (n, d)
        posterior : array (n, K), optional
            p(k | observed part of each sample). Default: the family has one component.
        rng : numpy.random.Generator, optional
            Draw with it. Default: conditional means.

        Returns
        -------
        array (n, d)
        """
        result = X.copy()
        columns = np.arange(X.shape[1])
        for rows, observed in patterns(X, incomplete_rows(X)):
            missing = np.setdiff1d(columns, observed, assume_unique=True)
            part = X[np.ix_(rows, observed)].astype(np.float64)
            p = np.ones((len(rows), 1)) if posterior is None else posterior[rows]
            filled = np.zeros((len(rows), len(missing)))
            if rng is not None:  # draw the component first: then its share is all or nothing
                drawn = np.minimum((p.cumsum(axis=1) < rng.random((len(rows), 1))).sum(axis=1), p.shape[1] - 1)
                p = np.eye(p.shape[1])[drawn]
            for k in range(self.n_components):
                coefficients, residual = regression(self.covariance_matrix(k), observed, missing)
                values = self.means[k, missing] + (part - self.means[k, observed]) @ coefficients
                if rng is not None:
                    values += rng.standard_normal(values.shape) @ covariances_root(residual)
                filled += p[:, k, None] * values
            result[np.ix_(rows, missing)] = filled
        return result


def covariances_root(covariance: Array) -> Array:
    """R, upper triangular, with R^T R = covariance."""
    root = np.triu(covariance)
    if _gaussian.cholesky(root, 0.0) >= 0:
        raise SingularCovarianceError(0, "it is singular", "a conditional covariance", _REMEDY)
    return root


def _without_rounding(scatter: Array, weight: Array, mean: Array) -> Array:
    """Scatter of columns, 0 where it is no more than rounding makes of a constant."""
    rounding = 4 * 2.0**-52 * np.abs(mean)
    return np.where(scatter <= weight * rounding**2, 0.0, scatter)


def _indices(numbers: Sequence[int] | Index, name: str, size: int) -> Index:
    """Return them as an array, if each is an integer from 0 to ``size - 1``."""
    array = np.asarray(numbers)
    if array.shape == (0,):
        return np.empty(0, np.intp)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= size:
        raise ValueError(f"{name} must be a list of integers from 0 to {size - 1}, got {numbers!r}")
    return array.astype(np.intp)


def _refuse_unobserved(count: Array) -> None:
    if count.min() <= 0:
        k, j = np.unravel_index(int(count.argmin()), count.shape)
        raise UnobservedColumnError(
            int(k), f"column {j} has no observed value", f"component {k}", "Leave the column out."
        )
