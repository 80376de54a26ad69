"""One Gaussian density."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from fastgen import families
from fastgen._em import fit_labelled
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._validation import Array, Data, as_floats, as_generator, as_weights, check_choice, refuse_infinity
from fastgen.errors import ComponentError
from fastgen.kernels import LOG_2PI

__all__ = ["Gaussian"]


class Gaussian(DensityMixin, FastgenEstimator):  # type: ignore[misc]
    """A multivariate Gaussian density, fitted by maximum likelihood.

    NaN in X is a value missing at random: it is marginalised exactly in every method, and `fit` then maximises the
    likelihood of what is observed (EM; in closed form for diagonal and spherical covariances).

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        For one density, tied is full; in a `GenerativeClassifier` the classes then share one covariance.
    reg_covar : float, default=0.0
        Added to the diagonal of the covariance.
    tol : float, default=1e-9
        EM stops when the mean log-likelihood per sample gains less.
    max_iter : int, default=10000
        Most iterations of EM.

    Attributes
    ----------
    mean_ : array (d,)
    covariance_ : array (d, d), diag (d,), or float for spherical
    family_ : fastgen.families.Gaussian
        The same parameters, as a family with one component.
    statistics_ : FullStatistics or DiagonalStatistics
        Weight, mean and scatter of the data so far; `partial_fit` adds to them.
    n_iter_, stop_reason_, history_
        Iterations of EM; ``closed form``, ``converged``, ``max_iter``, ``decreased`` or ``partial_fit``; the mean
        log-likelihood per sample at the start and after each (empty for a closed form), less
        ``reg_covar / 2 * trace(inverse(covariance))``.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen import Gaussian
    >>> g = Gaussian.from_parameters([0.0, 0.0], [[1.0, 0.5], [0.5, 1.0]])
    >>> g.condition({0: 2.0}).mean_
    array([1.])
    >>> g.impute([[2.0, np.nan]])
    array([[2., 1.]])
    """

    def __init__(
        self, covariance_type: str = "full", *, reg_covar: float = 0.0, tol: float = 1e-9, max_iter: int = 10_000
    ) -> None:
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.tol = tol
        self.max_iter = max_iter

    @classmethod
    def from_parameters(cls, mean: ArrayLike, covariance: ArrayLike, covariance_type: str | None = None) -> Self:
        """The density with these parameters.

        Parameters
        ----------
        mean : array (d,)
        covariance : array
            (d, d) for full, (d,) variances for diag, one variance for spherical.
        covariance_type : str, optional
            Default: what the shape of ``covariance`` says.

        Returns
        -------
        Gaussian

        Raises
        ------
        fastgen.errors.SingularCovarianceError
            The covariance is not positive definite.
        """
        means = np.atleast_2d(as_floats(mean, "mean"))
        array = as_floats(covariance, "covariance")
        if means.shape[0] != 1 or means.shape[1] == 0:
            raise ValueError(f"mean must have shape (d,), got {means.shape}")
        if array.ndim > 2:
            raise ValueError(f"covariance must be (d, d), (d,) or a number, got shape {array.shape}")
        kind = covariance_type or ("spherical", "diag", "full")[array.ndim]
        family = families.Gaussian(kind, means=means, covariances=array if kind == "tied" else array[None])
        return cls(kind)._with_family(family)

    @property
    def family(self) -> families.Gaussian:
        """The family that this density takes, without parameters."""
        return families.Gaussian(self.covariance_type, self.reg_covar)

    def _with_family(self, family: families.Gaussian) -> Self:
        """Take the parameters of a family with one component."""
        self.family_ = family
        self.mean_ = family.means[0].copy()
        self.covariance_: Array | float
        if family.covariance_type == "spherical":
            self.covariance_ = float(family.covariances[0])
        else:
            tied = family.covariance_type == "tied"
            self.covariance_ = (family.covariances if tied else family.covariances[0]).copy()
        self.n_features_in_ = family.n_features
        return self

    @atomic
    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit by maximum likelihood.

        Parameters
        ----------
        X : array (n, d)
            float32 or float64, not copied; NaN is a missing value.
        y : ignored
        sample_weight : array (n,), optional
            A weight of 2 is the same as the row twice.

        Returns
        -------
        self

        Raises
        ------
        fastgen.errors.SingularCovarianceError
            Fewer samples than a covariance needs, a constant column, columns that determine each other.
        ValueError
            Infinity in X, a column without any observed value, weights that are not.

        Notes
        -----
        O(n d^2), one pass; O(n d) for diag and spherical. With missing values (full, tied), a pass and, for each
        distinct pattern of missing columns, O(d^3) in each iteration of EM.
        """
        self._forget()
        data = self._check_data(X, reset=True)
        weights = as_weights(sample_weight, len(data))
        try:
            fit = fit_labelled(self.family, data, weights, [slice(None)], tol=self.tol, max_iter=self.max_iter)
        except ComponentError as error:
            raise error.of("the data", len(data)) from None
        self.statistics_ = fit.statistics
        self._with_family(fit.parameters)
        self._report(fit)
        return self

    @atomic
    def partial_fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to this block and all blocks before it.

        The result is that of one `fit` to all blocks, up to rounding; the first block alone must be enough for a
        covariance. With missing values and full or tied covariance it is not the same: each block is then filled in
        once, with the parameters so far (of the first block: its own EM).

        Parameters
        ----------
        X : array (n, d)
        y : ignored
        sample_weight : array (n,), optional

        Returns
        -------
        self
        """
        if not hasattr(self, "statistics_"):
            return self.fit(X, y, sample_weight)
        data = self._check_data(X)
        if self.covariance_type != self.family_.covariance_type:
            raise ValueError("covariance_type has changed since the last fit: call fit, not partial_fit")
        statistics = self.statistics_ + self.family_.statistics(data, as_weights(sample_weight, len(data)))
        try:
            family = self.family.maximise(statistics)
        except ComponentError as error:
            raise error.of("the data so far", len(data)) from None
        self.statistics_ = statistics
        self.n_iter_, self.stop_reason_, self.history_ = 1, "partial_fit", np.empty(0)
        return self._with_family(family)

    def log_prob(self, X: ArrayLike) -> Data:
        """log p(x) of each sample, in nats; of its observed part where cells are NaN.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n,)
            float32 for float32 X. O(n d^2).
        """
        check_is_fitted(self)
        data = self._check_data(X)
        return self.family_.log_density(data)[:, 0]

    score_samples = log_prob

    def score(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean log p(x), in nats.

        Parameters
        ----------
        X : array (n, d)
        y : ignored
        sample_weight : array (n,), optional

        Returns
        -------
        float
        """
        log_prob = self.log_prob(X)
        return float(np.average(log_prob.astype(np.float64), weights=as_weights(sample_weight, len(log_prob))))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """Draw samples.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, numpy.random.Generator or RandomState

        Returns
        -------
        array (n_samples, d)
        """
        check_is_fitted(self)
        return self.family_.sample(np.zeros(n_samples, np.intp), as_generator(random_state))

    def marginal(self, columns: Any) -> Self:
        """The density of some columns.

        Parameters
        ----------
        columns : list of numbers or feature names, slice, or boolean mask
            In the order that the result is to have.

        Returns
        -------
        Gaussian
        """
        check_is_fitted(self)
        chosen = self._columns(columns)
        if not len(chosen):
            raise ValueError("no column is left")
        return self._derived(self.family_.marginal(chosen), chosen)

    def condition(self, given: Mapping[Any, float]) -> Self:
        """The density of the other columns, given the values of some.

        Parameters
        ----------
        given : dict
            {column number or feature name: value}

        Returns
        -------
        Gaussian
            Over the other columns, in their order. O(d^3).
        """
        check_is_fitted(self)
        columns = self._columns(list(given))
        values = as_floats(list(given.values()), "given").astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("given values must be finite; leave out what is not known")
        rest = np.setdiff1d(np.arange(self.n_features_in_), columns)
        if not len(rest):
            raise ValueError("no column is left: at least one must not be given")
        family = self.family_.condition(dict(zip(columns.tolist(), values.tolist(), strict=True)))
        return self._derived(family, rest)

    def _derived(self, family: families.Gaussian, columns: Any) -> Self:
        parameters = self.get_params() | {"covariance_type": family.covariance_type}
        result = type(self)(**parameters)._with_family(family)
        result._keep_names(self, columns)
        return result

    def impute(self, X: ArrayLike, method: str = "mean", random_state: Any = None) -> Data:
        """A copy of X in which missing cells (NaN) are filled in, given the observed cells of the row.

        Parameters
        ----------
        X : array (n, d)
        method : {"mean", "sample"}
            Conditional mean, or a draw from the conditional distribution.
        random_state : None, int, numpy.random.Generator or RandomState
            For "sample".

        Returns
        -------
        array (n, d)
            O(d^3) for each distinct pattern of missing columns.
        """
        check_is_fitted(self)
        check_choice(method, "method", ("mean", "sample"))
        data = self._check_data(X)
        refuse_infinity(data)
        return self.family_.impute(data, rng=as_generator(random_state) if method == "sample" else None)

    def entropy(self) -> float:
        """Differential entropy in nats: (d (1 + log 2 pi) + log det covariance) / 2.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        d = self.n_features_in_
        factors = self.family_.precisions_cholesky
        kind = self.family_.covariance_type
        if kind in ("full", "tied"):
            factors = factors.reshape(d, d).diagonal()
        half_log_det = -float(np.log(factors).sum()) * (d if kind == "spherical" else 1)
        return 0.5 * d * (1 + LOG_2PI) + half_log_det

    def aic(self, X: ArrayLike) -> float:
        """Akaike's information criterion, -2 log L + 2 (free parameters): lower is better.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        float
        """
        return -2 * float(self.log_prob(X).sum(dtype=np.float64)) + 2 * self.family_.n_parameters

    def bic(self, X: ArrayLike) -> float:
        """Bayesian information criterion, -2 log L + log(n) (free parameters): lower is better.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        float
        """
        log_prob = self.log_prob(X)
        return -2 * float(log_prob.sum(dtype=np.float64)) + float(np.log(len(log_prob))) * self.family_.n_parameters
