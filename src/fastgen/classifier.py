"""Bayes' rule: a density for each class makes a classifier, and a model of everything together."""

from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from fastgen import families
from fastgen._bayes import check_priors, draw_classes
from fastgen._em import Fit, fit_labelled, take
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._missing import Index
from fastgen._validation import Array, Data, as_generator, as_weights, check_choice, refuse_infinity
from fastgen.errors import ComponentError, SingularCovarianceError
from fastgen.gaussian import Gaussian
from fastgen.kernels import logsumexp, softmax

__all__ = ["GenerativeClassifier"]


class GenerativeClassifier(ClassifierMixin, FastgenEstimator):  # type: ignore[misc]
    """One density per class, and Bayes' rule: p(y | x) = p(x | y) p(y) / p(x).

    With `Gaussian` densities this is quadratic discriminant analysis, with tied covariance linear discriminant
    analysis (both by maximum likelihood). NaN in X is a value missing at random and is marginalised exactly, if the
    density does so.

    Parameters
    ----------
    density : object, default=None
        Cloned and fitted to each class: `Gaussian` (None), or anything with ``fit(X)``, ``log_prob(X)`` and
        ``sample(n, random_state)``.
    priors : array (n_classes,), default=None
        Probabilities of the classes, in the order of ``classes_``. Default: their share in the training data.

    Attributes
    ----------
    classes_ : array (n_classes,)
    class_count_ : array (n_classes,)
        Total weight of the training samples of each class.
    class_prior_ : array (n_classes,)
    densities_ : list
        The fitted density of each class.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Where every class gives a sample density 0, there is no posterior: `predict_proba` is NaN, `predict` falls back on
    the priors, and `log_prob` is -inf.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastgen import GenerativeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> int((GenerativeClassifier().fit(X, y).predict(X) != y).sum())
    3
    """

    def __init__(self, density: Any = None, *, priors: ArrayLike | None = None) -> None:
        self.density = density
        self.priors = priors

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.density is not None and hasattr(self.density, "__sklearn_tags__"):
            tags.input_tags.allow_nan = self.density.__sklearn_tags__().input_tags.allow_nan
        return tags

    @atomic
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a density to each class.

        Parameters
        ----------
        X : array (n, d)
            The rows of one class at a time are copied.
        y : array (n,)
            Labels of any kind.
        sample_weight : array (n,), optional
            Passed on to the density's ``fit`` if given.

        Returns
        -------
        self

        Raises
        ------
        fastgen.errors.SingularCovarianceError
            The covariance of a class is singular: the message names the class and the remedy.
        ValueError
            A class without weight, labels that are not classes, priors that are not probabilities.
        """
        self._forget()
        data, labels = self._check_data(X, y, reset=True)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        K = len(self.classes_)
        weights = as_weights(sample_weight, len(data))
        self.class_count_ = np.bincount(codes, weights, minlength=K).astype(np.float64)
        if self.class_count_.min() <= 0:
            raise ValueError(f"class {self._name(int(self.class_count_.argmin()))} has no weight: leave its rows out")
        self.class_prior_ = self._check_priors(K)
        order = np.argsort(codes.astype(np.min_scalar_type(K)), kind="stable")  # small integers: radix sort
        ends = np.cumsum(np.bincount(codes))
        members = np.split(order, ends[:-1])
        density = Gaussian() if self.density is None else self.density
        self.family_: families.Gaussian | None = None
        if type(density) is Gaussian:  # a subclass may do anything
            self._report(self._fit_gaussians(density, data, weights, members))
        else:
            self._fit_each(density, data, weights, members)
        return self

    def _fit_each(self, density: Any, data: Data, weights: Array | None, members: list[Index]) -> None:
        """A copy of the density for each class."""
        absent = [name for name in ("fit", "log_prob", "sample") if not hasattr(density, name)]
        if absent:
            raise TypeError(f"density must have fit, log_prob and sample, but {density!r} lacks {', '.join(absent)}")
        refuse_infinity(data)
        self.densities_ = []
        for rows in members:
            X, w = take(data, weights, rows)
            copy = clone(density, safe=False)
            self.densities_.append(copy.fit(X) if w is None else copy.fit(X, sample_weight=w))

    def _fit_gaussians(self, density: Gaussian, data: Data, weights: Array | None, members: list[Index]) -> Fit:
        """All classes as the components of one family: fitted together (tied), scored in one pass."""
        try:
            fit = fit_labelled(density.family, data, weights, members, tol=density.tol, max_iter=density.max_iter)
        except ComponentError as error:
            if isinstance(error, SingularCovarianceError) and density.covariance_type == "tied":
                raise error.of("all classes together", len(data)) from None
            raise error.of(f"class {self._name(error.component)}", len(members[error.component])) from None
        except ValueError:
            refuse_infinity(data)  # and say where in the whole of it
            raise
        self.family_ = fit.parameters
        self.densities_ = []
        for k in range(len(members)):
            member = clone(density)._with_family(fit.parameters.select([k]))
            member._keep_names(self, np.arange(self.n_features_in_))
            self.densities_.append(member)
        return fit

    def _name(self, k: int) -> str:
        return repr(self.classes_[k].item() if hasattr(self.classes_[k], "item") else self.classes_[k])

    def _check_priors(self, K: int) -> Array:
        if self.priors is None:
            return cast(Array, self.class_count_ / self.class_count_.sum())
        return check_priors(self.priors, "priors", K)

    def predict_joint_log_proba(self, X: ArrayLike) -> Array:
        """log p(x, y) of each sample with each class.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n, n_classes)
            float64, in the order of ``classes_``.
        """
        check_is_fitted(self)
        data = self._check_data(X)
        joint = np.empty((len(data), len(self.classes_)))
        if self.family_ is not None:
            self.family_.log_density(data, out=joint)
        else:
            refuse_infinity(data)
            for k, density in enumerate(self.densities_):
                joint[:, k] = density.log_prob(data)
        with np.errstate(divide="ignore"):  # a prior of 0 rules its class out
            joint += np.log(self.class_prior_)
        return joint

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """log p(y | x) of each class.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n, n_classes)
        """
        joint = self.predict_joint_log_proba(X)
        with np.errstate(invalid="ignore"):  # -inf - -inf: no posterior
            joint -= logsumexp(joint)[:, None]
        return joint

    def predict_proba(self, X: ArrayLike) -> Array:
        """p(y | x) of each class.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n, n_classes)
        """
        joint = self.predict_joint_log_proba(X)
        return cast(Array, softmax(joint, out=joint))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each sample.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n,)
        """
        joint = self.predict_joint_log_proba(X)
        best = joint.argmax(axis=1)
        impossible = joint[np.arange(len(joint)), best] == -np.inf
        best[impossible] = self.class_prior_.argmax()
        return cast(NDArray[Any], self.classes_[best])

    def log_prob(self, X: ArrayLike) -> Array:
        """log p(x) of each sample, in nats: the sum over the classes.

        Parameters
        ----------
        X : array (n, d)

        Returns
        -------
        array (n,)
        """
        return cast(Array, logsumexp(self.predict_joint_log_proba(X)))

    score_samples = log_prob

    def sample(
        self, n_samples: int | None = None, y: Any = None, random_state: Any = None
    ) -> tuple[Array, NDArray[Any]]:
        """Draw samples: a class by its prior, then x from its density.

        Parameters
        ----------
        n_samples : int, optional
            Default: 1, or the length of y.
        y : label or array of labels, optional
            Draw these classes instead: one label for all samples, or one for each.
        random_state : None, int, numpy.random.Generator or RandomState

        Returns
        -------
        X : array (n_samples, d)
        y : array (n_samples,)
        """
        check_is_fitted(self)
        rng = as_generator(random_state)
        codes = draw_classes(self.classes_, self.class_prior_, n_samples, y, rng)
        X = np.empty((len(codes), self.n_features_in_))
        if self.family_ is not None:
            X = self.family_.sample(codes, rng)
        else:
            for k in np.unique(codes):
                rows = codes == k
                # A seed is what every density takes; scikit-learn knows no Generator.
                drawn = self.densities_[k].sample(int(rows.sum()), random_state=int(rng.integers(2**31)))
                X[rows] = drawn[0] if isinstance(drawn, tuple) else drawn  # mixtures also give the components
        return X, self.classes_[codes]

    def impute(self, X: ArrayLike, method: str = "mean", random_state: Any = None) -> Data:
        """A copy of X in which missing cells (NaN) are filled in, given the observed cells of the row.

        E[x_m | x_o] = sum_y p(y | x_o) E[x_m | x_o, y], or a draw: a class from p(y | x_o), then from its density.
        Needs Gaussian densities.

        Parameters
        ----------
        X : array (n, d)
        method : {"mean", "sample"}
        random_state : None, int, numpy.random.Generator or RandomState
            For "sample".

        Returns
        -------
        array (n, d)
            O(d^3) for each class and distinct pattern of missing columns.
        """
        check_is_fitted(self)
        check_choice(method, "method", ("mean", "sample"))
        if self.family_ is None:
            raise AttributeError(f"impute needs Gaussian densities, not {type(self.densities_[0]).__name__}")
        posterior = self.predict_proba(X)
        rng = as_generator(random_state) if method == "sample" else None
        return self.family_.impute(self._check_data(X), posterior, rng)
