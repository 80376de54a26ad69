"""Mixtures: K components of one family, fitted by EM."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastgen import _mixture_em, families
from fastgen._em import Fit, expectation_maximisation
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._missing import Index
from fastgen._mixture_em import MixtureStatistics, Source
from fastgen._progress import Progress
from fastgen._validation import (
    Array,
    Data,
    as_floats,
    as_generator,
    as_parameters,
    as_weights,
    check_choice,
    check_number,
    refuse_infinity,
)
from fastgen.errors import (
    CollapsedComponentError,
    ComponentError,
    EmptyComponentError,
    SingularCovarianceError,
    UnobservedColumnError,
)
from fastgen.families.gaussian import regression
from fastgen.kernels import COVARIANCE_TYPES, covariance_shape, precision_cholesky

__all__ = ["GaussianMixture", "Mixture"]

_INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")
_CONSTANT = {"weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"}


class _EM:
    """The E- and M-step of one fit, as the driver takes them."""

    def __init__(self, source: Source, family: Any, reseed: bool) -> None:
        self.source = source
        self.reseed = reseed
        self.reseeded = False
        self.regularised = _regularised(family)

    def e_step(self, mixture: _mixture_em.Mixture) -> tuple[float, MixtureStatistics]:
        statistics = self.source.e_step(mixture)
        prior = 0.0 if self.regularised else mixture.family.penalty(statistics.components)
        return (statistics.log_likelihood + prior) / self.source.size[1], statistics

    def m_step(
        self, mixture: _mixture_em.Mixture, statistics: MixtureStatistics, **options: Any
    ) -> _mixture_em.Mixture:
        empty = _mixture_em.empty_components(statistics)
        if len(empty):
            if not self.reseed:
                raise EmptyComponentError(
                    int(empty[0]), remedy="Use fewer components, other starting parameters, or reseed=True."
                )
            statistics = _mixture_em.reseed(self.source, mixture, statistics, empty)
        self.reseeded = len(empty) > 0
        components = statistics.components
        return _mixture_em.Mixture(
            _mixture_em.shares(components.weight), mixture.family.maximise(components, **options)
        )

    def may_fall(self) -> bool:
        """Whether the last M-step may have made the objective fall."""
        return self.reseeded or self.regularised

    def cautious_step(self, mixture: _mixture_em.Mixture, statistics: MixtureStatistics) -> _mixture_em.Mixture:
        return self.m_step(mixture, statistics, cautious=True)


class _BaseMixture(DensityMixin, FastgenEstimator):  # type: ignore[misc]
    """Everything that does not depend on the family."""

    n_components: int
    tol: float
    max_iter: int
    n_init: int
    init_params: str
    random_state: Any
    warm_start: bool
    verbose: int
    verbose_interval: int
    reseed: bool
    _mixture: _mixture_em.Mixture

    @abstractmethod
    def _unfitted(self, source: Source) -> Any:
        """The family, before it has parameters."""

    @abstractmethod
    def _adopt(self, mixture: _mixture_em.Mixture, dtype: np.dtype[Any]) -> None:
        """Set the attributes that show the parameters."""

    def _model(self) -> _mixture_em.Mixture:
        check_is_fitted(self)
        return self._mixture

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name in _CONSTANT & vars(self).keys():
            getattr(self, name).flags.writeable = False  # pickling and copying forget it

    def _go_on(self, last: _mixture_em.Mixture, family: Any) -> _mixture_em.Mixture:
        """The last parameters, for a fit under the present settings."""
        return last

    def _check_parameters(self, d: int) -> None:
        check_number(self.n_components, "n_components", Integral, 1)
        check_number(self.tol, "tol", Real, 0)
        check_number(self.max_iter, "max_iter", Integral, 0)
        check_number(self.n_init, "n_init", Integral, 1)
        check_number(self.verbose_interval, "verbose_interval", Integral, 1)
        check_choice(self.init_params, "init_params", _INIT_PARAMS)

    def _initial(self, family: Any, source: Source, random_state: Any) -> _mixture_em.Mixture:
        """One start."""
        X, weights = source.sample(_mixture_em._START_ROWS, random_state)
        try:
            return self._start(family, X, weights, random_state)
        except UnobservedColumnError:
            if not isinstance(family, families.Gaussian):
                raise
            return self._start(family, _mixture_em.filled(X, weights), weights, random_state)
        except ComponentError:
            raise
        except ValueError:
            for block in [X] if len(X) == source.size[0] else (block for block, _ in source):
                family.statistics(block)  # where it is in X, not among some of its rows
            raise

    def _start(self, family: Any, X: Data, weights: Array | None, random_state: Any) -> _mixture_em.Mixture:
        K = self.n_components
        if self.init_params == "random":
            statistics = _mixture_em.random_statistics(family, X, weights, K, random_state)
        else:
            labels = _mixture_em.starting_labels(X, weights, K, self.init_params, random_state)
            statistics = _mixture_em.statistics_of_labels(family, X, weights, labels, K)
        return _mixture_em.Mixture(_mixture_em.shares(statistics.weight), family.maximise(statistics))

    # Fit --------------------------------------------------------------------------------------------------------------

    def _source(self, X: Any, sample_weight: ArrayLike | None) -> Source:
        """The data, checked; names and number of features are set."""
        source = _mixture_em.as_source(X, sample_weight, self._check_data)
        if source is None:
            data = self._check_data(X, reset=True)
            source = Source.of_array(data, as_weights(sample_weight, len(data)))
        else:
            self._check_data(next(iter(X)), reset=True)
        n = source.size[0] if source.weights is None else int(np.count_nonzero(source.weights))
        self._check_parameters(self.n_features_in_)
        name = type(self).__name__
        if n < 2:
            raise ValueError(f"Found array with 1 sample(s) while a minimum of 2 is required by {name}")
        if n < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, n_samples = {n}"
            )
        return source

    def fit(self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit by EM.

        Parameters
        ----------
        X : array (n, d), or an iterable of arrays (n_i, d)
            float32 or float64, not copied; NaN is a missing value. A `numpy.memmap` may be larger than memory. An
            iterable is read again in each iteration, so an iterator will not do.
        y : ignored
        sample_weight : array (n,), optional
            A weight of 2 is the same as the row twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Fewer samples than components, infinity in X, parameters that are not what they must be; a start whose
            components are singular (a `fastgen.errors.ComponentError`).

        Notes
        -----
        Each iteration is one pass over the data. Ctrl-C ends the iterations, and so does a component that collapses
        (``stop_reason_`` is ``degenerate``); the parameters so far are kept.
        """
        self._fit(X, sample_weight)
        return self

    def fit_predict(self, X: Any, y: object = None, sample_weight: ArrayLike | None = None) -> Index:
        """Fit, and return the most probable component of each row.

        Parameters
        ----------
        X, y, sample_weight : see `fit`

        Returns
        -------
        integer array (n,)
        """
        source = self._fit(X, sample_weight)
        return np.concatenate([self._mixture.predict(block) for block, _ in source])

    @atomic
    def _fit(self, X: Any, sample_weight: ArrayLike | None) -> Source:
        warm = self._model() if self.warm_start and hasattr(self, "_mixture") else None
        if warm is None:
            self._forget()
        source = self._source(X, sample_weight)
        if warm is not None and (
            len(warm.weights) != self.n_components or warm.family.n_features != self.n_features_in_
        ):
            raise ValueError("warm_start needs the number of components and features of the last fit")
        family = self._unfitted(source)
        if warm is not None:
            warm = self._go_on(warm, family)
        random_state = check_random_state(self.random_state)
        n_init = 1 if warm is not None else self.n_init
        progress = Progress(self.verbose, self.verbose_interval)
        best: Fit | None = None
        objectives = []
        for start in range(n_init):
            progress.start(start, n_init)
            try:
                initial = warm if warm is not None else self._initial(family, source, random_state)
                fit = self._run(initial, source, progress)
            except ComponentError as error:
                raise self._collapsed(error) from error
            objectives.append(fit.history[-1])
            if best is None or fit.history[-1] > best.history[-1]:
                best = fit
            if fit.stop_reason == "interrupted":
                break
        first = next(iter(source))[0]
        self._finish(cast(Fit, best), objectives, first.dtype)
        return source

    def _run(self, initial: _mixture_em.Mixture, source: Source, progress: Progress) -> Fit:
        em = _EM(source, initial.family, self.reseed)
        fit = expectation_maximisation(
            initial,
            em.e_step,
            em.m_step,
            tol=self.tol,
            max_iter=self.max_iter,
            may_fall=em.may_fall,
            cautious_step=em.cautious_step if getattr(initial.family, "accelerated", False) else None,
            stop_at_error=True,
            report=progress.iteration,
        )
        progress.end(fit.stop_reason, len(fit.history) - 1, fit.history[-1])
        return fit

    def _collapsed(self, error: ComponentError) -> ComponentError:
        return error

    def _finish(self, fit: Fit, objectives: list[float], dtype: np.dtype[Any]) -> None:
        self._mixture = fit.parameters
        self.statistics_ = fit.statistics
        self._adopt(fit.parameters, dtype)
        self.history_ = np.array(fit.history)
        self.lower_bound_ = fit.history[-1]
        self.lower_bounds_ = list(fit.history[1:])
        self.n_iter_ = len(fit.history) - 1
        self.stop_reason_ = fit.stop_reason
        self.converged_ = fit.stop_reason == "converged"
        self.optima_ = _distinct(objectives, 10 * self.tol)
        self.n_steps_ = 0
        if fit.stop_reason == "interrupted":
            message = f"EM was interrupted after {self.n_iter_} iterations: the parameters so far are kept"
            warnings.warn(message, ConvergenceWarning, stacklevel=5)
        elif fit.error is not None:
            message = f"{self._collapsed(fit.error)} The parameters before that are kept."
            warnings.warn(message, ConvergenceWarning, stacklevel=5)
        elif fit.stop_reason == "decreased":
            message = "the objective fell, which rounding alone does not explain: the parameters before it are kept"
            warnings.warn(message, ConvergenceWarning, stacklevel=5)
        elif not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase max_iter, "
                "tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=5,
            )

    @atomic
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None, *, step_size: float | None = None
    ) -> Self:
        """Online EM: move the parameters towards those of one more block (Cappé & Moulines 2009, sec. 2.3).

        The statistics per unit of weight become ``(1 - step_size) * old + step_size * new``, and the M-step follows.
        The first block is fitted as by `fit` and must be enough for that.

        Parameters
        ----------
        X : array (n, d)
        y : ignored
        sample_weight : array (n,), optional
        step_size : float in (0, 1], optional
            Default: (t + 1) ** -0.6 for the t-th block after the first.

        Returns
        -------
        self
            ``history_`` gets the mean log-likelihood of each block under the parameters before it.
        """
        if not hasattr(self, "_mixture"):
            self._fit(X, sample_weight)
            self.history_ = np.empty(0)
            self.stop_reason_ = "partial_fit"
            return self
        if step_size is None:
            step_size = (self.n_steps_ + 2) ** -0.6
        else:
            check_number(step_size, "step_size", Real, 0)
            if not 0 < step_size <= 1:
                raise ValueError(f"step_size must be in (0, 1], got {step_size!r}")
        data = self._check_data(X)
        weights = as_weights(sample_weight, len(data))
        mixture = self._model()
        new = mixture.e_step(data, weights)
        old = self.statistics_
        if not hasattr(old.components, "__mul__"):
            raise TypeError(f"{type(mixture.family).__name__} has no statistics that partial_fit could mix: use fit")
        mean_log_likelihood = new.log_likelihood / new.weight
        mixed = old * ((1 - step_size) / old.weight) + new * (step_size / new.weight)
        try:
            components = mixed.components
            family = mixture.family.maximise(components)
        except ComponentError as error:
            raise self._collapsed(error) from error
        self._mixture = _mixture_em.Mixture(_mixture_em.shares(components.weight), family)
        self._adopt(self._mixture, data.dtype)
        self.statistics_ = mixed
        self.history_ = np.append(self.history_, mean_log_likelihood)
        self.lower_bound_ = mean_log_likelihood
        self.n_steps_ += 1
        self.n_iter_, self.stop_reason_, self.converged_ = self.n_steps_, "partial_fit", False
        return self

    # Use --------------------------------------------------------------------------------------------------------------

    def log_prob(self, X: ArrayLike) -> Data:
        """log p(x) of each row, in nats; of its observed part where cells are NaN.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n,)
            float32 for float32 X. O(n K d^2) for full covariances.
        """
        model = self._model()
        return model.log_prob(self._check_data(X))

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

    def predict(self, X: ArrayLike) -> Index:
        """The most probable component of each row.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        integer array (n,)
            Where every component gives density 0, the one with the largest weight.
        """
        model = self._model()
        return model.predict(self._check_data(X))

    def predict_proba(self, X: ArrayLike) -> Data:
        """The posterior p(k | x) of each component.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n, K)
            float32 for float32 X. NaN where every component gives density 0.
        """
        model = self._model()
        return model.posterior(self._check_data(X))

    posterior = predict_proba

    def sample(self, n_samples: int = 1, random_state: Any = None) -> tuple[Array, Index]:
        """Draw samples.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, numpy.random.Generator or RandomState
            Default: that of the estimator.

        Returns
        -------
        X : array (n_samples, d)
        y : integer array (n_samples,)
            The component of each, in ascending order.
        """
        model = self._model()
        check_number(n_samples, "Invalid value for 'n_samples': it", Integral, 1)
        rng = as_generator(self.random_state if random_state is None else random_state)
        counts = rng.multinomial(int(n_samples), model.weights)
        components = np.repeat(np.arange(len(counts)), counts)
        return model.family.sample(components, rng), components

    def impute(self, X: ArrayLike, method: str = "mean", random_state: Any = None) -> Data:
        """A copy of X in which missing cells (NaN) are filled in, given the observed cells of the row.

        Parameters
        ----------
        X : array (n, d)
        method : {"mean", "sample"}
            Conditional mean under p(k | x_observed), or a draw: a component, then the cells.
        random_state : None, int, numpy.random.Generator or RandomState
            For "sample". Default: that of the estimator.

        Returns
        -------
        array (n, d)
        """
        model = self._model()
        check_choice(method, "method", ("mean", "sample"))
        data = self._check_data(X)
        refuse_infinity(data)
        rng = None
        if method == "sample":
            rng = as_generator(self.random_state if random_state is None else random_state)
        return cast(Data, model.family.impute(data, model.posterior(data).astype(np.float64), rng))

    def _n_parameters(self) -> int:
        model = self._model()
        return int(model.family.n_parameters) + len(model.weights) - 1

    def aic(self, X: ArrayLike) -> float:
        """Akaike's information criterion, -2 log L + 2 (free parameters): lower is better.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        float
        """
        return -2 * float(self.log_prob(X).sum(dtype=np.float64)) + 2 * self._n_parameters()

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
        return -2 * float(log_prob.sum(dtype=np.float64)) + float(np.log(len(log_prob))) * self._n_parameters()

    def icl(self, X: ArrayLike) -> float:
        """Integrated completed likelihood, BIC - 2 sum_i log max_k p(k | x_i): lower is better.

        Like BIC, but it also punishes components that overlap (Biernacki, Celeux & Govaert 2000).

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        float
        """
        best = self.predict_proba(X).max(axis=1).astype(np.float64)
        return self.bic(X) - 2 * float(np.log(best).sum())

    def marginal(self, columns: Any) -> Self:
        """The mixture of some columns.

        Parameters
        ----------
        columns : list of numbers or feature names, slice, or boolean mask
            In the order that the result is to have.

        Returns
        -------
        a fitted mixture
        """
        model = self._model()
        chosen = self._columns(columns)
        if not len(chosen):
            raise ValueError("no column is left")
        return self._derived(_mixture_em.Mixture(model.weights, model.family.marginal(chosen)), chosen)

    def condition(self, given: Mapping[Any, float]) -> Self:
        """The mixture of the other columns, given the values of some.

        The weights become p(k | given), the components p(rest | given, k).

        Parameters
        ----------
        given : dict
            {column number or feature name: value}

        Returns
        -------
        a fitted mixture over the other columns, in their order
        """
        model = self._model()
        columns = self._columns(list(given))
        values = as_floats(list(given.values()), "given").astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("given values must be finite; leave out what is not known")
        rest = np.setdiff1d(np.arange(self.n_features_in_), columns)
        if not len(rest):
            raise ValueError("no column is left: at least one must not be given")
        weights = model.weights
        if len(columns):
            marginal = _mixture_em.Mixture(weights, model.family.marginal(columns))
            weights = marginal.posterior(values[None])[0]
            if np.isnan(weights).any():
                raise ValueError("the given values have density 0 under every component")
        family = model.family.condition(dict(zip(columns.tolist(), values.tolist(), strict=True)))
        return self._derived(_mixture_em.Mixture(weights, family), rest)

    def _derived(self, mixture: _mixture_em.Mixture, columns: Index) -> Self:
        result = type(self)(**self.get_params(deep=False))
        result._mixture = mixture
        result._adopt(mixture, np.dtype(np.float64))
        result.n_features_in_ = len(columns)
        result._keep_names(self, columns)
        return result


def _regularised(family: Any) -> bool:
    """Whether the M-step adds something that the log-likelihood does not know of."""
    parts = getattr(family, "families", ())  # of a product
    return getattr(family, "reg_covar", 0.0) > 0 or any(_regularised(part) for part in parts)


def _distinct(objectives: list[float], tolerance: float) -> list[tuple[float, int]]:
    """Objectives that differ by more than the tolerance, best first, and how many starts ended there."""
    found: list[tuple[float, int]] = []
    for value in sorted(objectives, reverse=True):
        if found and found[-1][0] - value <= max(tolerance, 1e-9 * abs(value)):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((value, 1))
    return found


class Mixture(_BaseMixture):
    """A mixture of components of any family: p(x) = sum_k weight_k p(x | k).

    NaN in X is a value missing at random: it is marginalised exactly, if the family does so.

    Parameters
    ----------
    family : a family of `fastgen.families`
        Without parameters: `families.Poisson()`, `families.Categorical()` (latent class analysis),
        `families.StudentT()`, `families.Product` for columns of different kinds, `families.Custom` for your own.
    n_components : int, default=1
    tol : float, default=1e-6
        EM stops when the mean log-likelihood per sample gains less.
    max_iter : int, default=1000
        Most iterations of EM.
    n_init : int, default=1
        Starts; the best result is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        First responsibilities: clusters of k-means; nearest of K rows drawn by k-means++ or at random; random numbers.
        At most 100 000 rows, drawn at random, are used.
    reseed : bool, default=True
        Give a component that loses all its weight the rows that the mixture explains least; otherwise EM ends there.
    random_state : None, int or RandomState
    warm_start : bool, default=False
        Start from the parameters of the last fit.
    verbose : int, default=0
        1 or 2: progress, through the logger ``fastgen``.
    verbose_interval : int, default=10

    Attributes
    ----------
    weights_ : array (K,)
    family_ : the family with its parameters; ``family_.parameters`` has them by name
    converged_, n_iter_, stop_reason_
        ``stop_reason_`` is ``converged``, ``max_iter``, ``interrupted``, ``degenerate`` (a component collapsed),
        ``decreased`` (which should not happen) or ``partial_fit``.
    history_ : array (n_iter_ + 1,)
        Mean log-likelihood per sample (with the logarithm of the family's prior) at the start and after each iteration.
    lower_bound_ : float
        The last of them: that of the parameters that are returned.
    optima_ : list of (float, int)
        Distinct objectives that the starts ended with, best first, and how many did.
    statistics_ : the statistics under these parameters
    n_features_in_, feature_names_in_

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen import Mixture, families
    >>> counts = np.array([0, 1, 1, 2, 0, 9, 11, 10, 12, 8.0])[:, None]
    >>> m = Mixture(families.Poisson(), 2, random_state=0).fit(counts)
    >>> np.sort(m.family_.parameters["rates"].ravel()).round(1)
    array([ 0.8, 10. ])
    """

    def __init__(
        self,
        family: Any = None,
        n_components: int = 1,
        *,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: str = "kmeans",
        reseed: bool = True,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.family = family
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.reseed = reseed
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    def _unfitted(self, source: Source) -> Any:
        family = families.Gaussian() if self.family is None else self.family
        if not all(hasattr(type(family), name) for name in ("log_density", "statistics", "maximise", "sample")):
            raise TypeError(f"family must be one of fastgen.families, got {family!r}")
        return family

    def _adopt(self, mixture: _mixture_em.Mixture, dtype: np.dtype[Any]) -> None:
        self.weights_ = _constant(mixture.weights, np.dtype(np.float64))
        self.family_ = mixture.family


class GaussianMixture(_BaseMixture):
    """A mixture of Gaussians, fitted by EM: p(x) = sum_k weight_k N(x; mean_k, covariance_k).

    Takes and gives what `sklearn.mixture.GaussianMixture` does, and more. NaN in X is a value missing at random: it is
    marginalised exactly, in every method.

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    tol : float, default=1e-3
        EM makes its last iteration after one that gains less, in mean log-likelihood per sample.
    reg_covar : float, default=1e-6
        Added to the diagonal of the covariances.
    max_iter : int, default=100
        Most iterations of EM; 0 keeps the start.
    n_init : int, default=1
        Starts; the best result is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}, default="kmeans"
        First responsibilities: clusters of k-means (scikit-learn's); nearest of K rows drawn by k-means++ or at random;
        random numbers. At most 100 000 rows, drawn at random, are used; missing cells count as the column's mean.
    weights_init, means_init, precisions_init : arrays, optional
        Starting parameters, in the shapes of the attributes, instead of what ``init_params`` finds.
    random_state : None, int or RandomState
    warm_start : bool, default=False
        Start from the parameters of the last fit.
    verbose : int, default=0
        1 or 2: progress, through the logger ``fastgen``.
    verbose_interval : int, default=10
    covariances_init : array, optional
        Instead of ``precisions_init``.
    floor : float, optional
        Smallest variance in any direction, relative to the columns' variances in the data, against components that
        collapse onto a few rows. The M-step maximises under this constraint (Ingrassia & Rocci 2007); ``floored_``
        and a warning tell which components it holds up.
    reseed : bool, default=True
        Give a component that loses all its weight the rows that the mixture explains least; otherwise EM ends there.

    Attributes
    ----------
    weights_ : array (K,)
    means_ : array (K, d)
    covariances_, precisions_, precisions_cholesky_ : arrays
        Full (K, d, d), tied (d, d), diag (K, d), spherical (K,). Of X's dtype, as all parameters; read-only.
    converged_, n_iter_, stop_reason_
        ``stop_reason_`` is ``converged``, ``max_iter``, ``interrupted``, ``degenerate`` (a component collapsed),
        ``decreased`` (which should not happen) or ``partial_fit``.
    history_ : array (n_iter_ + 1,)
        Mean log-likelihood per sample at the start and after each iteration. It cannot fall but by rounding, unless
        ``reg_covar`` is added: its M-step does not quite maximise it.
    lower_bound_ : float
        The last of them: that of the parameters that are returned.
    lower_bounds_ : list
        ``history_`` without the start.
    optima_ : list of (float, int)
        Distinct objectives that the starts ended with, best first, and how many did.
    floored_ : array (K,) of bool
    family_ : fastgen.families.Gaussian
    statistics_ : the statistics under these parameters; `partial_fit` goes on from them
    n_features_in_, feature_names_in_

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen import GaussianMixture
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0.0]])
    >>> gm = GaussianMixture(2, random_state=0).fit(X)
    >>> np.sort(gm.means_[:, 0])
    array([ 1., 10.])
    >>> gm.condition({0: 10.0}).predict_proba([[2.0]]).max().round(3)
    np.float64(1.0)
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        covariances_init: ArrayLike | None = None,
        floor: float | None = None,
        reseed: bool = True,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.covariances_init = covariances_init
        self.floor = floor
        self.reseed = reseed

    # Start ------------------------------------------------------------------------------------------------------------

    def _check_parameters(self, d: int) -> None:
        check_choice(self.covariance_type, "covariance_type", COVARIANCE_TYPES)
        check_number(self.reg_covar, "reg_covar", Real, 0)
        if self.floor is not None:
            check_number(self.floor, "floor", Real, 0)
        super()._check_parameters(d)
        self._given(d)

    def _given(self, d: int) -> dict[str, Array]:
        """The starting parameters that the user gave, checked: weights, means, covariances."""
        K, kind = self.n_components, self.covariance_type
        given = {}
        if self.weights_init is not None:
            weights = _parameter(self.weights_init, "weights", (K,))
            if weights.min() < 0 or weights.max() > 1:
                raise ValueError(
                    "The parameter 'weights' should be in the range [0, 1], but got max value "
                    f"{weights.min():.5f}, min value {weights.max():.5f}"
                )
            if abs(weights.sum() - 1) > 1e-6:
                raise ValueError(
                    f"The parameter 'weights' should be normalized, but got sum(weights) = {weights.sum():.5f}"
                )
            given["weights"] = weights / weights.sum()
        if self.means_init is not None:
            given["means"] = _parameter(self.means_init, "means", (K, d))
        if self.precisions_init is not None and self.covariances_init is not None:
            raise ValueError("give precisions_init or covariances_init, not both")
        shape = covariance_shape(kind, K, d)
        if self.precisions_init is not None:
            given["covariances"] = _inverse(_parameter(self.precisions_init, f"{kind} precision", shape), kind)
        if self.covariances_init is not None:
            given["covariances"] = _parameter(self.covariances_init, f"{kind} covariance", shape)
            precision_cholesky(given["covariances"], kind, subject="covariances_init")  # refuses what has none
        return given

    def _unfitted(self, source: Source) -> families.Gaussian:
        floor = None
        if self.floor:
            spread: Any = None
            for X, w in source:
                part = families.Gaussian("diag").statistics(X, w)
                spread = part if spread is None else spread + part
            floor = self.floor * spread.scatter[0] / spread.count[0]
        return families.Gaussian(self.covariance_type, self.reg_covar, floor=floor)

    def _go_on(self, last: _mixture_em.Mixture, family: Any) -> _mixture_em.Mixture:
        if last.family.covariance_type != self.covariance_type:
            raise ValueError("warm_start needs the covariance_type of the last fit")
        parameters = last.family.parameters
        return _mixture_em.Mixture(last.weights, family.with_parameters(parameters["means"], parameters["covariances"]))

    def _initial(self, family: Any, source: Source, random_state: Any) -> _mixture_em.Mixture:
        given = self._given(self.n_features_in_)
        if len(given) < 3:
            start = super()._initial(family, source, random_state)
            given = {"weights": start.weights} | dict(start.family.parameters) | given
        return _mixture_em.Mixture(given["weights"], family.with_parameters(given["means"], given["covariances"]))

    def _collapsed(self, error: ComponentError) -> ComponentError:
        if not isinstance(error, SingularCovarianceError):
            return error
        text = (
            "Fitting the mixture model failed because some components have ill-defined empirical covariance (for "
            "instance caused by singleton or collapsed samples). Try to decrease the number of components, increase "
            f"reg_covar, or scale the input data. (Component {error.component}: {error.reason}; floor also helps.)"
        )
        return CollapsedComponentError(error.component, text)

    # Attributes -------------------------------------------------------------------------------------------------------

    def _adopt(self, mixture: _mixture_em.Mixture, dtype: np.dtype[Any]) -> None:
        family = mixture.family
        factors = family.precisions_cholesky
        square = self.covariance_type in ("full", "tied")
        self.weights_ = _constant(mixture.weights, dtype)
        self.means_ = _constant(family.means, dtype)
        self.covariances_ = _constant(family.covariances, dtype)
        self.precisions_cholesky_ = _constant(factors, dtype)
        self.precisions_ = _constant(factors @ factors.mT if square else factors**2, dtype)
        self.floored_ = family.floored
        self._adopted = (self.weights_, self.means_, self.precisions_cholesky_)

    def _finish(self, fit: Fit, objectives: list[float], dtype: np.dtype[Any]) -> None:
        super()._finish(fit, objectives, dtype)
        if self.floored_.any():
            which = ", ".join(map(str, np.flatnonzero(self.floored_)))
            warnings.warn(
                f"the smallest variance of component {which} is held up by floor: it would collapse",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _model(self) -> _mixture_em.Mixture:
        """The parameters; those that were set by hand, if they were."""
        check_is_fitted(self)
        shown = (self.weights_, self.means_, self.precisions_cholesky_)
        if not all(a is b for a, b in zip(shown, getattr(self, "_adopted", (None,) * 3), strict=True)):
            means = as_floats(self.means_, "means_").astype(np.float64)
            factors = as_parameters(
                self.precisions_cholesky_, "precisions_cholesky_", covariance_shape(self.covariance_type, *means.shape)
            )
            weights = as_parameters(self.weights_, "weights_", (len(means),))
            family = families.Gaussian(self.covariance_type, self.reg_covar).with_factors(means, factors)
            self._mixture = _mixture_em.Mixture(_mixture_em.shares(weights), family)
            for name in ("weights_", "means_", "precisions_cholesky_"):  # what is written into them would not be seen
                array = np.asarray(getattr(self, name))
                setattr(self, name, _constant(array, array.dtype))
            self._adopted = (self.weights_, self.means_, self.precisions_cholesky_)
            self.n_features_in_ = means.shape[1]
        return self._mixture

    @property
    def family_(self) -> families.Gaussian:
        """The components, as a family."""
        return cast(families.Gaussian, self._model().family)

    def predict_given(
        self, X: ArrayLike, given: Any, *, return_covariance: bool = False
    ) -> Array | tuple[Array, Array]:
        """Regression: the conditional mean of the other columns, given the values of some, for every row.

        E[rest | given] = sum_k p(k | given) E[rest | given, k] (Gaussian mixture regression, Ghahramani & Jordan 1994).

        Parameters
        ----------
        X : array (n, number of given columns)
        given : list of column numbers or feature names, slice, or boolean mask
            What the columns of X are.
        return_covariance : bool, default=False

        Returns
        -------
        mean : array (n, r)
            Of the other columns, in their order.
        covariance : array (n, r, r)
            Of the conditional mixture, with ``return_covariance``.
        """
        model = self._model()
        columns = self._columns(given)
        values = as_floats(X, "X").astype(np.float64)
        if values.ndim != 2 or values.shape[1] != len(columns):
            raise ValueError(f"X must have shape (n, {len(columns)}), a column for each given one, got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("given values must be finite; leave out columns that are not known, or use impute")
        rest = np.setdiff1d(np.arange(self.n_features_in_), columns)
        if not len(rest) or not len(columns):
            raise ValueError("at least one column must be given, and at least one must not")
        family = model.family
        p = _mixture_em.Mixture(model.weights, family.marginal(columns)).posterior(values)
        parts = []
        mean = np.zeros((len(values), len(rest)))
        for k in range(family.n_components):
            B, residual = regression(family.covariance_matrix(k), columns, rest)
            conditional = family.means[k, rest] + (values - family.means[k, columns]) @ B
            mean += p[:, k, None] * conditional
            parts.append((conditional, residual))
        if not return_covariance:
            return mean
        covariance = np.zeros((len(values), len(rest), len(rest)))
        for k, (conditional, residual) in enumerate(parts):
            away = conditional - mean
            covariance += p[:, k, None, None] * (residual + away[:, :, None] * away[:, None, :])
        return mean, covariance


def _parameter(value: ArrayLike, name: str, shape: tuple[int, ...]) -> Array:
    """A starting parameter, checked."""
    array = np.asarray(as_floats(value, name), dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}")
    return as_parameters(array, name, shape)


def _inverse(precisions: Array, kind: str) -> Array:
    """Covariances of starting precisions."""
    if kind in ("diag", "spherical"):
        if precisions.min() <= 0:
            raise ValueError(f"'{kind} precision' should be positive")
        return np.asarray(1 / precisions)
    matrices = precisions.reshape(-1, *precisions.shape[-2:])
    symmetric = np.allclose(matrices, matrices.mT, rtol=1e-6, atol=1e-10)
    if not symmetric or np.linalg.eigvalsh(matrices).min() <= 0:
        raise ValueError(f"'{kind} precision' should be symmetric, positive-definite")
    inverse = np.linalg.inv(matrices)
    return np.asarray((0.5 * (inverse + inverse.mT)).reshape(precisions.shape))


def _constant(array: Array, dtype: np.dtype[Any]) -> Data:
    """A read-only copy: writing into it would not change the model."""
    copy = array.astype(dtype)
    copy.flags.writeable = False
    return cast(Data, copy)
