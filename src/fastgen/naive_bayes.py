"""Naive Bayes: columns that are independent within each class, and Bayes' rule.

Write ``from fastgen.naive_bayes import GaussianNB`` in place of ``from sklearn.naive_bayes import GaussianNB``, and so
for `MultinomialNB`, `ComplementNB`, `BernoulliNB` and `CategoricalNB`. Constructors, attributes, estimates, decisions,
warnings and errors are those of scikit-learn, to rounding, but for these:

==================================  ======================================  ==========================================
what                                scikit-learn 1.9                        here
==================================  ======================================  ==========================================
NaN in ``X`` (not for counts of     refused                                 a missing value, marginalised
words)
a category that was never seen      IndexError                              has the probability of a category of count
                                                                            0; with ``alpha=0`` a ValueError
``alpha=0``, counts of 0            NaN, and the first class                log 0 = -inf, and 0 times it is 0; a class
                                                                            without data has equal probabilities
all classes impossible              the first class                         `predict` falls back on the priors,
                                                                            posteriors are NaN
``epsilon_`` in `partial_fit`       of the last block; and taken off        of all data so far: blocks give what `fit`
                                    ``var_`` as if it had been that before  gives
``n_categories_`` in `partial_fit`  of the last block                       of all data so far
labels that are no classes, in      ignored, or (two classes) taken for     ValueError
`partial_fit` of discrete models    the first class
variances of 0                      NaN, warnings                           `fit`, or what needs a density after
                                                                            `partial_fit`: SingularCovarianceError
float32 data, `GaussianNB`          all in float32                          in float64; ``theta_`` and ``var_`` rounded
``class_prior``                     only its length is checked              probabilities that add up to 1
negative weights                    accepted                                ValueError
`BernoulliNB`, ``binarize=None``,   extrapolated                            ValueError
values other than 0 and 1
a fit that fails                    leaves parts of a fit                   leaves the estimator as it was
==================================  ======================================  ==========================================

Kept, though surprising: ``epsilon_`` comes from variances without ``sample_weight``; `CategoricalNB` truncates floats;
`MultinomialNB` leaves the multinomial coefficient out, so that its log p(x) is that of the words in one order.

Beyond scikit-learn: ``log_prob``, ``sample``, and ``semi_supervised`` fits of all but `ComplementNB`, which is no
generative model: its scores are no probabilities of X. `MixedNB` takes columns of different kinds.
"""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from numbers import Integral, Real
from operator import add
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_X_y
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import assert_all_finite, check_is_fitted, validate_data

from fastgen._bayes import check_priors, classes_of, draw_classes, encode
from fastgen._column_models import (
    BernoulliKind,
    BernoulliModel,
    CategoricalKind,
    CategoricalModel,
    Codes,
    GaussianKind,
    GaussianModel,
    Kind,
    Matrix,
    Model,
    Moments,
    MultinomialKind,
    MultinomialModel,
    PoissonKind,
    PoissonModel,
    Sums,
    Tables,
    check_variances,
    is_sparse,
    n_categories,
    select,
)
from fastgen._em import Fit, expectation_maximisation
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._frames import MISSING, UNKNOWN, Column, columns_of, is_frame
from fastgen._missing import Index
from fastgen._naive_bayes import NEGATIVE, LinearTerm, Term, as_matrix, class_moments, score
from fastgen._validation import (
    BLOCK_ROWS,
    Array,
    as_floats,
    as_generator,
    as_weights,
    check_choice,
    check_number,
    refuse_infinity,
)
from fastgen.kernels import logsumexp, softmax

__all__ = ["BernoulliNB", "CategoricalNB", "ComplementNB", "GaussianNB", "MixedNB", "MultinomialNB"]

_LEAST_ALPHA = 1e-10
_EM_ROWS = 1 << 15
_MIXED_ROWS = 1 << 15
_FAMILIES = ("gaussian", "poisson", "bernoulli", "categorical")


def _check_labels(labels: NDArray[Any]) -> None:
    """Refuse what are no classes. However many there are, that is no reason to warn."""
    if labels.dtype.kind in "iu":
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        if labels.dtype.kind == "O" and len({isinstance(label, str) for label in labels.tolist()}) == 1:
            labels = np.array(labels.tolist())
        check_classification_targets(labels)


class _BaseNB(ClassifierMixin, FastgenEstimator):  # type: ignore[misc]
    """Bayes' rule over independent columns: statistics of each class, that add up, and a fit from them."""

    classes_: NDArray[Any]
    class_count_: Array
    alpha: Any
    force_alpha: bool
    _statistics: tuple[Any, ...]
    _takes_sparse = False
    _takes_nan = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._takes_sparse
        tags.input_tags.allow_nan = self._takes_nan
        return tags

    # ---- what models are -------------------------------------------------------------------------------------------

    @abstractmethod
    def _kinds(self) -> Sequence[Kind]:
        """The kinds of columns, as the parameters of the constructor have them."""

    @abstractmethod
    def _terms(self) -> list[Term]:
        """log p(x | y)."""

    @abstractmethod
    def _log_prior(self) -> Array:
        """log p(y)."""

    @abstractmethod
    def _fit_prior(self, weight: Array) -> Array:
        """log p(y) of classes of this weight."""

    @abstractmethod
    def _adopt(self, log_prior: Array, models: list[Any]) -> None:
        """Set the attributes that show the parameters."""

    def _survey(self, X: Matrix, weights: Array | None, statistics: tuple[Any, ...] | None) -> None:
        """Look at what does not depend on the classes; the statistics are there if all rows are labelled."""

    # ---- input -----------------------------------------------------------------------------------------------------

    def _validate(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        """X as a dense array or CSR matrix of numbers, uncopied if it is one; and labels y if given."""
        if not isinstance(y, str) or not self._is_checked(X):
            if isinstance(X, np.ma.MaskedArray) or (isinstance(X, np.ndarray) and X.dtype.kind == "f"):
                X = as_floats(X, "X")
            accept = "csr" if self._takes_sparse else False
            checked = validate_data(self, X, y, reset=reset, accept_sparse=accept, ensure_all_finite=False)
            X, y = checked if isinstance(checked, tuple) else (checked, y)
        X = as_matrix(X)
        return X if isinstance(y, str) else (X, y)

    def _look_closer(self, X: Matrix, met: int) -> None:
        """Refuse what a kernel has met, if the model does not take it."""
        self._check_values(X)

    def _check_values(self, X: Matrix) -> None:
        """Refuse infinity, and NaN where it is not a missing value."""
        values = X.data if is_sparse(X) else X
        if values.dtype.kind != "f":
            return
        with np.errstate(all="ignore"):
            suspicious = not np.isfinite(values.sum())
        if suspicious:
            if not self._takes_nan:
                assert_all_finite(X, estimator_name=type(self).__name__, input_name="X")
            if is_sparse(X):
                found = np.flatnonzero(np.isinf(values))
                if len(found):
                    row = int(np.searchsorted(X.indptr, found[0], side="right")) - 1
                    raise ValueError(
                        f"Input X contains infinity (at row {row}, column {X.indices[found[0]]}); "
                        "NaN stands for a missing value, infinity is an error"
                    )
            else:
                refuse_infinity(values)

    def _check_alpha(self) -> Any:
        """The smoothing parameter: a number, or one for each column."""
        for name in ("force_alpha", "fit_prior", "norm"):
            if not isinstance(getattr(self, name, True), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        alpha: Any = self.alpha
        if not isinstance(alpha, Real):
            alpha = np.asarray(as_floats(alpha, "alpha"), np.float64)
            if alpha.shape != (self.n_features_in_,):
                raise ValueError(
                    "When alpha is an array, it should contains `n_features`. "
                    f"Got {alpha.size} elements instead of {self.n_features_in_}."
                )
            if not alpha.min() >= 0:
                raise ValueError("All values in alpha must be greater than 0.")
            if not np.isfinite(alpha).all():
                raise ValueError("All values in alpha must be finite.")
        else:
            check_number(alpha, "alpha", Real, 0)
        if np.min(alpha) < _LEAST_ALPHA and not self.force_alpha:
            warnings.warn(
                f"alpha too small will result in numeric errors, setting alpha = {_LEAST_ALPHA:.1e}. "
                "Use `force_alpha=True` to keep alpha unchanged.",
                stacklevel=5,
            )
            return np.maximum(alpha, _LEAST_ALPHA)
        return alpha

    # ---- fit -------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to labelled data.

        Parameters
        ----------
        X : array (n, d), or sparse matrix where the class takes it
            Not copied, but by fits with unknown labels; a `numpy.memmap` may be larger than memory. CSR as it is,
            duplicate entries add up.
        y : array (n,)
            Labels of any kind. With ``semi_supervised=True``, -1 is an unknown label.
        sample_weight : array (n,), optional
            A weight of 2 is the same as the row twice (but for ``epsilon_``, which is without weights).

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Values or labels that the model does not have; the message names them.

        Notes
        -----
        O(n d) for labelled rows; O(n d C) in each iteration for others.
        """
        self._fit(X, y, sample_weight)
        return self

    @atomic
    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> None:
        self._forget()
        data, labels = self._validate(X, y, reset=True)
        weights = as_weights(sample_weight, data.shape[0])
        unknown = self._unlabelled(labels)
        if unknown.any():
            if unknown.all():
                raise ValueError("y must hold at least one label that is known: all are -1")
            if weights is not None and not weights[~unknown].any():
                raise ValueError(
                    "y must hold at least one label that is known and has weight: all labelled rows have weight 0"
                )
            labels = labels[~unknown]
        _check_labels(labels)
        self.classes_, codes = classes_of(labels)
        if self.classes_.dtype.kind == "O":  # as scikit-learn has them
            self.classes_ = np.array(self.classes_.tolist())
        if unknown.any():
            self._fit_semi_supervised(data, codes, weights, unknown)
            return
        statistics = self._count(data, codes, weights, len(self.classes_))
        self._survey(data, weights, statistics)
        self._update(statistics)
        self._terms()  # may refuse variances of 0
        self._report(Fit(None, statistics, (), "closed form"))

    def _unlabelled(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        return np.zeros(len(labels), bool)

    def _fit_semi_supervised(self, X: Matrix, codes: Codes, weights: Array | None, unknown: NDArray[np.bool_]) -> None:
        raise NotImplementedError

    @atomic
    def partial_fit(
        self, X: Any, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit to one more block of data; the blocks together give what `fit` gives of all of them.

        Parameters
        ----------
        X : array (n, d), or sparse matrix where the class takes it
        y : array (n,)
        classes : array (C,)
            All labels that there will ever be. Needed in the first call.
        sample_weight : array (n,), optional

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Labels that are not among ``classes``, ``classes`` other than before, and what `fit` refuses.
        """
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        data, labels = self._validate(X, y, reset=first)
        if classes is not None:
            if not np.size(cast(Any, classes)):
                raise ValueError("classes must hold at least one label")
            wanted = unique_labels(classes)
            if first:
                self.classes_ = wanted
            elif not np.array_equal(self.classes_, wanted):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}"
                )
        if self._unlabelled(labels).any():
            raise ValueError("partial_fit needs labels: give the rows whose label is unknown (-1) to fit")
        _check_labels(labels)
        codes = encode(labels, self.classes_)
        if codes.min() < 0:
            others = np.unique(labels[codes < 0])
            raise ValueError(f"The target label(s) {others} in y do not exist in the initial classes {self.classes_}")
        weights = as_weights(sample_weight, data.shape[0])
        statistics = self._count(data, codes, weights, len(self.classes_))
        self._survey(data, weights, statistics)
        if not first:
            statistics = tuple(map(add, self._statistics, statistics))
        self._update(statistics)
        for name in ("n_iter_", "history_", "stop_reason_"):  # of a fit before
            self.__dict__.pop(name, None)
        return self

    def _count(self, X: Matrix, codes: Codes, weights: Array | None, C: int) -> tuple[Any, ...]:
        return tuple(kind.statistics(X, codes, weights, C, self._look_closer) for kind in self._kinds())

    def _update(self, statistics: tuple[Any, ...]) -> None:
        """The fit from statistics."""
        models = [kind.maximise(part) for kind, part in zip(self._kinds(), statistics, strict=True)]
        self._statistics = statistics
        self.class_count_ = statistics[0].weight
        self._adopt(self._fit_prior(self.class_count_), models)

    # ---- Bayes' rule -----------------------------------------------------------------------------------------------

    def _score(self, X: Any, what: str) -> NDArray[Any]:
        check_is_fitted(self)
        return score(self._validate(X), self._terms(), self._log_prior(), what, check=self._look_closer)

    def predict_joint_log_proba(self, X: Any) -> Array:
        """log p(x, y) of each sample with each class.

        Parameters
        ----------
        X : array or sparse matrix (n, d)

        Returns
        -------
        array (n, C)
            In the order of ``classes_``, in nats. O(n d C).
        """
        return self._score(X, "joint")

    def predict_log_proba(self, X: Any) -> Array:
        """log p(y | x) of each class.

        Parameters
        ----------
        X : array or sparse matrix (n, d)

        Returns
        -------
        array (n, C)
            NaN where no class is possible.
        """
        return self._score(X, "log_proba")

    def predict_proba(self, X: Any) -> Array:
        """p(y | x) of each class.

        Parameters
        ----------
        X : array or sparse matrix (n, d)

        Returns
        -------
        array (n, C)
            NaN where no class is possible.
        """
        return self._score(X, "proba")

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each sample, the first of equals.

        Parameters
        ----------
        X : array or sparse matrix (n, d)

        Returns
        -------
        array (n,)
            Where no class is possible, the one of the largest prior.
        """
        codes = self._score(X, "predict")
        if self.classes_.dtype == codes.dtype and self.classes_[-1] == len(self.classes_) - 1 and not self.classes_[0]:
            return codes  # the classes are 0, 1, 2, ...
        labels: NDArray[Any] = self.classes_[codes]
        return labels


class _GenerativeNB(_BaseNB):
    """Those that are models of X: they have log p(x), draw samples, and learn from rows without labels."""

    semi_supervised: bool
    tol: float
    max_iter: int

    @abstractmethod
    def _models(self) -> Sequence[Model]:
        """The fitted columns, as the attributes have them."""

    def _terms(self) -> list[Term]:
        return [term for model in self._models() for term in model.terms()]

    def log_prob(self, X: Any) -> Array:
        """log p(x) of each sample, in nats: the sum over the classes.

        Parameters
        ----------
        X : array or sparse matrix (n, d)

        Returns
        -------
        array (n,)
            Of the observed cells where some are NaN; -inf where no class is possible. O(n d C).
        """
        return self._score(X, "log_prob")

    score_samples = log_prob

    def sample(
        self, n_samples: int | None = None, y: Any = None, random_state: Any = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw samples: a class by its prior, then each column from its distribution in that class.

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
        codes = draw_classes(self.classes_, np.exp(self._log_prior()), n_samples, y, rng)
        X = np.empty((len(codes), self.n_features_in_))
        for model in self._models():
            X[:, slice(None) if model.columns is None else model.columns] = model.draw(codes, rng)
        return self._decode(X), self.classes_[codes]

    def _decode(self, X: Array) -> NDArray[Any]:
        """Numbers as the values that they stand for."""
        return X

    # ---- rows without labels ---------------------------------------------------------------------------------------

    def _unlabelled(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        if not self.semi_supervised:
            return super()._unlabelled(labels)
        if labels.dtype.kind in "US":
            if np.any(labels == labels.dtype.type("-1")):
                raise ValueError("y holds '-1' as text: use an array of dtype object, with the number -1 for unknown")
            return super()._unlabelled(labels)
        if labels.dtype.kind == "O":
            return np.array([isinstance(label, Real) and label == -1 for label in labels], bool)
        return cast(NDArray[np.bool_], labels == -1)

    def _fit_semi_supervised(self, X: Matrix, codes: Codes, weights: Array | None, unknown: NDArray[np.bool_]) -> None:
        """EM: the labelled rows count in their class, the others in each by its posterior (Nigam et al. 2000)."""
        check_number(self.tol, "tol", Real, 0)
        check_number(self.max_iter, "max_iter", Integral, 1)
        C = len(self.classes_)
        self._look_closer(X, NEGATIVE)
        self._survey(X, weights, None)
        known, rest = np.flatnonzero(~unknown), np.flatnonzero(unknown)
        X_known, X_rest = X[known], X[rest]
        w_known = None if weights is None else weights[known]
        w_rest = None if weights is None else weights[rest]
        labelled = tuple(
            part.padded(n_categories(select(X, kind.columns)).tolist()) if isinstance(part, Tables) else part
            for kind, part in zip(self._kinds(), self._count(X_known, codes, w_known, C), strict=True)
        )
        total = float(X.shape[0] if weights is None else weights.sum())

        def maximise(statistics: tuple[Any, ...]) -> tuple[Array, list[Any]]:
            models = [kind.maximise(part) for kind, part in zip(self._kinds(), statistics, strict=True)]
            log_prior = self._fit_prior(statistics[0].weight)
            for model in models:
                if isinstance(model, GaussianModel):
                    check_variances(model, log_prior, self.classes_, statistics[0].weight)
            return log_prior, models

        def e_step(parameters: tuple[Array, list[Any]]) -> tuple[float, tuple[Any, ...]]:
            log_prior, models = parameters
            terms = [term for model in models for term in model.e_step_terms()]
            own = score(X_known, terms, log_prior, "joint")[np.arange(len(known)), codes]
            objective = _weighted_sum(own, w_known) + sum(model.penalty() for model in models)
            statistics = labelled
            for start in range(0, len(rest), _EM_ROWS):
                block = slice(start, start + _EM_ROWS)
                w = None if w_rest is None else w_rest[block]
                joint = score(X_rest[block], terms, log_prior, "joint")
                log_prob = logsumexp(joint)
                if log_prob.min() == -np.inf:
                    row = int(rest[start + int(log_prob.argmin())])
                    raise ValueError(f"no class allows row {row}, whose label is unknown")
                objective += _weighted_sum(log_prob, w)
                posterior = softmax(joint, out=joint)
                if w is not None:
                    posterior = posterior * w[:, None]
                statistics = tuple(map(add, statistics, self._expect(X_rest[block], posterior)))
            return objective / total, statistics

        start = maximise(labelled)
        fit = expectation_maximisation(
            start, e_step, lambda _, statistics: maximise(statistics), tol=self.tol, max_iter=self.max_iter
        )
        log_prior, models = fit.parameters
        self._statistics = fit.statistics
        self.class_count_ = fit.statistics[0].weight
        self._adopt(log_prior, models)
        self._report(fit)

    def _expect(self, X: Matrix, posterior: Any) -> tuple[Any, ...]:
        """Expected statistics of rows that belong to each class in part."""
        zeros = np.zeros(X.shape[0], np.intp)
        parts = [self._count(X, zeros, np.ascontiguousarray(column), 1) for column in posterior.T]
        return tuple(type(of_kind[0]).stack(of_kind) for of_kind in zip(*parts, strict=True))


def _weighted_sum(values: Any, weights: Array | None) -> float:
    if weights is None:
        return float(values.sum())
    return float((weights[weights > 0] * values[weights > 0]).sum())


# ---- continuous ------------------------------------------------------------------------------------------------------


class GaussianNB(_GenerativeNB):
    """Gaussian Naive Bayes: scikit-learn's, with missing values, log p(x), draws, and rows without labels.

    Parameters
    ----------
    priors : array (C,), default=None
        Probabilities of the classes, in the order of ``classes_``. Default: their share in the training data.
    var_smoothing : float, default=1e-9
        Share of the largest variance of all columns that is added to each variance.
    semi_supervised : bool, default=False
        Whether the label -1 means that it is unknown: `fit` then takes these rows into account, by EM.
    tol : float, default=1e-6
        EM stops where it gains less, per unit of weight.
    max_iter : int, default=1000
        Most iterations of EM.

    Attributes
    ----------
    classes_ : array (C,)
    class_count_ : array (C,)
        Weight of the training samples of each class.
    class_prior_ : array (C,)
    theta_ : array (C, d)
        Means. float32 if X is, and can hold the variances.
    var_ : array (C, d)
        Variances, with ``epsilon_``.
    epsilon_ : float
        What was added to the variances.
    n_iter_, history_, stop_reason_
        How EM went: the number of iterations, its objective after each, why it stopped.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Missing cells (NaN) do not count. A column that a class has never shown gets the moments of all classes together.
    The objective of EM is the log-likelihood of data with noise of variance ``epsilon_``, which is what ``var_`` is
    the estimate for.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque (1983). Algorithms for computing the sample variance. The American
    Statistician 37.
    K. Nigam, A. McCallum, S. Thrun, T. Mitchell (2000). Text classification from labeled and unlabeled documents using
    EM. Machine Learning 39.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastgen import GaussianNB
    >>> X, y = load_iris(return_X_y=True)
    >>> int((GaussianNB().fit(X, y).predict(X) != y).sum())
    6
    """

    class_prior_: Array
    theta_: Array
    var_: Array
    epsilon_: float
    _spread: Moments

    def __init__(
        self,
        *,
        priors: ArrayLike | None = None,
        var_smoothing: float = 1e-9,
        semi_supervised: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        self.priors = priors
        self.var_smoothing = var_smoothing
        self.semi_supervised = semi_supervised
        self.tol = tol
        self.max_iter = max_iter

    def _validate(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        checked = super()._validate(X, y, reset=reset)
        if reset:
            data = checked[0] if isinstance(checked, tuple) else checked
            self._dtype = np.dtype(np.float32 if data.dtype == np.float32 else np.float64)
        return checked

    def _kinds(self) -> Sequence[Kind]:
        return [GaussianKind(None, getattr(self, "epsilon_", 0.0), getattr(self, "_spread", None))]

    def _survey(self, X: Matrix, weights: Array | None, statistics: tuple[Any, ...] | None) -> None:
        check_number(self.var_smoothing, "var_smoothing", Real, 0)
        spread = _spread(X, weights, None if statistics is None else statistics[0])
        self._spread = self._spread + spread if hasattr(self, "_spread") else spread
        self.epsilon_ = _epsilon(self._spread, self.var_smoothing)

    def _forget(self) -> None:
        super()._forget()
        self.__dict__.pop("_spread", None)

    def _fit_prior(self, weight: Array) -> Array:
        return _log_priors(self.priors, weight)

    def _adopt(self, log_prior: Array, models: list[Any]) -> None:
        means, variances = models[0].means, models[0].variances
        limits = np.finfo(np.float32 if self._dtype == np.float32 else np.float64)
        seen = variances[variances > 0]
        fits = np.all((seen >= limits.tiny) & (seen <= limits.max))
        dtype = self._dtype if fits else np.dtype(np.float64)
        self.class_prior_ = _exact_prior(self.priors, self.class_count_, log_prior).astype(dtype)
        self.theta_, self.var_ = means.astype(dtype), variances.astype(dtype)

    def _log_prior(self) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(self.class_prior_.astype(np.float64))

    def _models(self) -> Sequence[Model]:
        model = GaussianModel(None, self.theta_.astype(np.float64), self.var_.astype(np.float64))
        return [check_variances(model, self._log_prior(), self.classes_, self.class_count_)]


def _log_priors(priors: ArrayLike | None, weight: Array) -> Array:
    """Logarithms of what the user wants, or of the classes' shares."""
    prior = weight / weight.sum() if priors is None else check_priors(priors, "priors", len(weight))
    with np.errstate(divide="ignore"):
        return cast(Array, np.log(prior))


def _exact_prior(priors: ArrayLike | None, weight: Array, log_prior: Array) -> Array:
    """exp(log_prior), without its rounding if it comes from these weights (as it does, but after EM)."""
    with np.errstate(divide="ignore"):
        prior = weight / weight.sum() if priors is None else check_priors(priors, "priors", len(weight))
        return prior if np.array_equal(np.log(prior), log_prior) else np.exp(log_prior)


def _spread(X: Matrix, weights: Array | None, statistics: Moments | None) -> Moments:
    """Moments of all classes together, without weights."""
    if weights is None and statistics is not None:
        return statistics.pooled()
    return Moments(*class_moments(X, np.zeros(X.shape[0], np.intp), None, 1))


def _epsilon(spread: Moments, var_smoothing: float) -> float:
    """What is added to variances: a share of the largest variance of all columns."""
    seen = spread.count[0] > 0
    if not seen.any():
        return 0.0
    return float(var_smoothing * (spread.scatter[0, seen] / spread.count[0, seen]).max())


# ---- discrete --------------------------------------------------------------------------------------------------------


class _DiscreteNB(_BaseNB):
    """Smoothing and priors of the discrete models."""

    alpha: Any
    force_alpha: bool
    fit_prior: bool
    class_prior: ArrayLike | None
    class_log_prior_: Array

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def _fit_prior(self, weight: Array) -> Array:
        C = len(weight)
        with np.errstate(divide="ignore"):
            if self.class_prior is not None:
                return cast(Array, np.log(check_priors(self.class_prior, "class_prior", C)))
            if self.fit_prior:
                return cast(Array, np.log(weight) - np.log(weight.sum()))
        return np.full(C, -np.log(C))

    def _log_prior(self) -> Array:
        return np.asarray(self.class_log_prior_, np.float64)


class _WordsNB(_DiscreteNB):
    """X holds counts of words."""

    _takes_sparse = True
    _takes_nan = False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags

    def _kinds(self) -> Sequence[Kind]:
        return [MultinomialKind(None, self._alpha)]

    def _validate(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        checked = super()._validate(X, y, reset=reset)
        if isinstance(checked, tuple):
            self._alpha = self._check_alpha()
        return checked

    def _look_closer(self, X: Matrix, met: int) -> None:
        super()._look_closer(X, met)
        values = X.data if is_sparse(X) else X
        if met & NEGATIVE and values.size and values.min() < 0:
            raise ValueError(f"Negative values in data passed to {type(self).__name__} (input X).")


class MultinomialNB(_WordsNB, _GenerativeNB):
    """Naive Bayes for counts of words: scikit-learn's, with log p(x), draws, and rows without labels.

    Parameters
    ----------
    alpha : float or array (d,), default=1.0
        How many more of each word are taken to have been seen in each class.
    force_alpha : bool, default=True
        If False, an alpha below 1e-10 becomes 1e-10.
    fit_prior : bool, default=True
        Whether the probabilities of the classes are their shares in the training data, or equal.
    class_prior : array (C,), default=None
        Probabilities of the classes instead.
    semi_supervised : bool, default=False
        Whether the label -1 means that it is unknown: `fit` then takes these rows into account, by EM.
    tol : float, default=1e-6
        EM stops where it gains less, per unit of weight.
    max_iter : int, default=1000
        Most iterations of EM.

    Attributes
    ----------
    classes_ : array (C,)
    class_count_ : array (C,)
        Weight of the training samples of each class.
    class_log_prior_ : array (C,)
    feature_count_ : array (C, d)
        Weighted sums of the counts.
    feature_log_prob_ : array (C, d)
        log p(word | class).
    n_iter_, history_, stop_reason_
        How EM went: the number of iterations, its objective after each (with the Dirichlet prior that alpha stands
        for), why it stopped.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    References
    ----------
    C. D. Manning, P. Raghavan, H. Schütze (2008). Introduction to Information Retrieval, ch. 13.
    K. Nigam, A. McCallum, S. Thrun, T. Mitchell (2000). Text classification from labeled and unlabeled documents using
    EM. Machine Learning 39.

    Examples
    --------
    >>> from fastgen import MultinomialNB
    >>> MultinomialNB().fit([[3, 0], [1, 2]], ["a", "b"]).predict([[0, 1]])
    array(['b'], dtype='<U1')
    """

    feature_count_: Array
    feature_log_prob_: Array

    def __init__(
        self,
        *,
        alpha: Any = 1.0,
        force_alpha: bool = True,
        fit_prior: bool = True,
        class_prior: ArrayLike | None = None,
        semi_supervised: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        self.alpha = alpha
        self.force_alpha = force_alpha
        self.fit_prior = fit_prior
        self.class_prior = class_prior
        self.semi_supervised = semi_supervised
        self.tol = tol
        self.max_iter = max_iter

    def _adopt(self, log_prior: Array, models: list[Any]) -> None:
        self.class_log_prior_ = log_prior
        self.feature_count_ = self._statistics[0].total
        self.feature_log_prob_ = models[0].log_p
        self._lengths = models[0].lengths

    def _models(self) -> Sequence[Model]:
        return [MultinomialModel(None, np.asarray(self.feature_log_prob_, np.float64), 0.0, self._lengths)]

    def sample(
        self, n_samples: int | None = None, y: Any = None, random_state: Any = None, *, length: int | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw samples: a class by its prior, then words from their distribution in that class.

        Parameters
        ----------
        n_samples : int, optional
            Default: 1, or the length of y.
        y : label or array of labels, optional
            Draw these classes instead: one label for all samples, or one for each.
        random_state : None, int, numpy.random.Generator or RandomState
        length : int, optional
            How many words each sample has. Default: the mean of the class, rounded.

        Returns
        -------
        X : array (n_samples, d)
        y : array (n_samples,)
        """
        check_is_fitted(self)
        rng = as_generator(random_state)
        codes = draw_classes(self.classes_, np.exp(self._log_prior()), n_samples, y, rng)
        model = cast(MultinomialModel, self._models()[0])
        if length is not None:
            check_number(length, "length", Integral, 0)
            model = replace(model, lengths=np.full(len(self.classes_), float(length)))
        return model.draw(codes, rng), self.classes_[codes]


class ComplementNB(_WordsNB):
    """Complement Naive Bayes: scikit-learn's. Each class is scored by the words of all others.

    No generative model: it has neither ``log_prob`` nor ``sample``, and `predict_proba` is the softmax of its scores.

    Parameters
    ----------
    alpha : float or array (d,), default=1.0
        How many more of each word are taken to have been seen.
    force_alpha : bool, default=True
        If False, an alpha below 1e-10 becomes 1e-10.
    fit_prior : bool, default=True
        Only matters if there is one class.
    class_prior : array (C,), default=None
        Only matters if there is one class.
    norm : bool, default=False
        Whether the weights of each class are divided by their sum.

    Attributes
    ----------
    classes_ : array (C,)
    class_count_ : array (C,)
        Weight of the training samples of each class.
    class_log_prior_ : array (C,)
    feature_count_ : array (C, d)
        Weighted sums of the counts.
    feature_all_ : array (d,)
        Of all classes together.
    feature_log_prob_ : array (C, d)
        The weights.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    References
    ----------
    J. D. M. Rennie, L. Shih, J. Teevan, D. R. Karger (2003). Tackling the poor assumptions of naive Bayes text
    classifiers. ICML, table 4.

    Examples
    --------
    >>> from fastgen import ComplementNB
    >>> ComplementNB().fit([[3, 0], [1, 2]], ["a", "b"]).predict([[0, 1]])
    array(['b'], dtype='<U1')
    """

    feature_count_: Array
    feature_all_: Array
    feature_log_prob_: Array

    def __init__(
        self,
        *,
        alpha: Any = 1.0,
        force_alpha: bool = True,
        fit_prior: bool = True,
        class_prior: ArrayLike | None = None,
        norm: bool = False,
    ) -> None:
        self.alpha = alpha
        self.force_alpha = force_alpha
        self.fit_prior = fit_prior
        self.class_prior = class_prior
        self.norm = norm

    def _adopt(self, log_prior: Array, models: list[Any]) -> None:
        self.class_log_prior_ = log_prior
        self.feature_count_ = self._statistics[0].total
        self.feature_all_ = self.feature_count_.sum(axis=0)
        others = self.feature_all_ + self._alpha - self.feature_count_
        total = others.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = -np.log(np.where(total > 0, others / total, 1 / others.shape[1]))
            if self.norm:
                never = np.isinf(weights)
                weights = np.where(never.any(axis=1, keepdims=True), never, weights)  # the limit for alpha -> 0
                weights = weights / weights.sum(axis=1, keepdims=True)
            self.feature_log_prob_ = weights

    def _terms(self) -> list[Term]:
        return [LinearTerm(None, np.asarray(self.feature_log_prob_, np.float64), None)]

    def _log_prior(self) -> Array:
        return super()._log_prior() if len(self.classes_) == 1 else np.zeros(len(self.classes_))


class BernoulliNB(_DiscreteNB, _GenerativeNB):
    """Naive Bayes for events: scikit-learn's, with missing values, log p(x), draws, and rows without labels.

    Parameters
    ----------
    alpha : float or array (d,), default=1.0
        How many more events, and as many more rows without, are taken to have been seen in each class.
    force_alpha : bool, default=True
        If False, an alpha below 1e-10 becomes 1e-10.
    binarize : float or None, default=0.0
        A value above it is an event. None: X holds 0, 1 (and NaN) alone.
    fit_prior : bool, default=True
        Whether the probabilities of the classes are their shares in the training data, or equal.
    class_prior : array (C,), default=None
        Probabilities of the classes instead.
    semi_supervised : bool, default=False
        Whether the label -1 means that it is unknown: `fit` then takes these rows into account, by EM.
    tol : float, default=1e-6
        EM stops where it gains less, per unit of weight.
    max_iter : int, default=1000
        Most iterations of EM.

    Attributes
    ----------
    classes_ : array (C,)
    class_count_ : array (C,)
        Weight of the training samples of each class.
    class_log_prior_ : array (C,)
    feature_count_ : array (C, d)
        Weight of the events.
    feature_log_prob_ : array (C, d)
        log p(event | class).
    n_iter_, history_, stop_reason_
        How EM went: the number of iterations, its objective after each (with the beta prior that alpha stands for),
        why it stopped.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Missing cells (NaN) do not count. `sample` gives ``binarize + 1`` for an event, and 0.

    References
    ----------
    C. D. Manning, P. Raghavan, H. Schütze (2008). Introduction to Information Retrieval, sec. 13.3.
    K. Nigam, A. McCallum, S. Thrun, T. Mitchell (2000). Text classification from labeled and unlabeled documents using
    EM. Machine Learning 39.

    Examples
    --------
    >>> from fastgen import BernoulliNB
    >>> BernoulliNB().fit([[1, 0], [1, 1]], ["a", "b"]).predict([[0, 1]])
    array(['b'], dtype='<U1')
    """

    _takes_sparse = True
    feature_count_: Array
    feature_log_prob_: Array

    def __init__(
        self,
        *,
        alpha: Any = 1.0,
        force_alpha: bool = True,
        binarize: float | None = 0.0,
        fit_prior: bool = True,
        class_prior: ArrayLike | None = None,
        semi_supervised: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        self.alpha = alpha
        self.force_alpha = force_alpha
        self.binarize = binarize
        self.fit_prior = fit_prior
        self.class_prior = class_prior
        self.semi_supervised = semi_supervised
        self.tol = tol
        self.max_iter = max_iter

    def _kinds(self) -> Sequence[Kind]:
        return [BernoulliKind(None, self._threshold(), self._alpha)]

    def _threshold(self) -> float:
        return 0.0 if self.binarize is None else float(self.binarize)

    def _validate(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        checked = super()._validate(X, y, reset=reset)
        data, labels = checked if isinstance(checked, tuple) else (checked, None)
        if is_sparse(data) and not data.has_canonical_format:  # add up first, then compare with the threshold
            data = data.copy()
            data.sum_duplicates()
        if self.binarize is not None:
            check_number(self.binarize, "binarize", Real, 0)
        else:
            _refuse_others_than_0_and_1(data)
        if labels is None:
            return data
        self._alpha = self._check_alpha()
        return data, labels

    def _adopt(self, log_prior: Array, models: list[Any]) -> None:
        self.class_log_prior_ = log_prior
        self.feature_count_ = self._statistics[0].total
        self.feature_log_prob_ = models[0].log_p
        self._log_q = models[0].log_p, models[0].log_q  # log(1 - p) would lose digits where p is near 1

    def _models(self) -> Sequence[Model]:
        log_p, log_q = self._log_q
        if self.feature_log_prob_ is not log_p and not np.array_equal(self.feature_log_prob_, log_p):  # the user's
            log_p = np.asarray(self.feature_log_prob_, np.float64)
            with np.errstate(divide="ignore"):
                log_q = np.log(-np.expm1(log_p))
        return [BernoulliModel(None, log_p, log_q, self._threshold())]


def _refuse_others_than_0_and_1(X: Matrix) -> None:
    if is_sparse(X):
        X = X.data[:, None]
    for start in range(0, len(X), BLOCK_ROWS):
        block = X[start : start + BLOCK_ROWS]
        found = block[(block != 0) & (block != 1) & ~np.isnan(block)]
        if len(found):
            raise ValueError(f"with binarize=None, X must hold 0 and 1 (or NaN) alone, but holds {found[0]}")


class CategoricalNB(_DiscreteNB, _GenerativeNB):
    """Naive Bayes for categories: scikit-learn's, with missing values, log p(x), draws, and rows without labels.

    Parameters
    ----------
    alpha : float, default=1.0
        How many more of each category are taken to have been seen in each class.
    force_alpha : bool, default=True
        If False, an alpha below 1e-10 becomes 1e-10.
    fit_prior : bool, default=True
        Whether the probabilities of the classes are their shares in the training data, or equal.
    class_prior : array (C,), default=None
        Probabilities of the classes instead.
    min_categories : int or array (d,), default=None
        Least number of categories of each column.
    semi_supervised : bool, default=False
        Whether the label -1 means that it is unknown: `fit` then takes these rows into account, by EM.
    tol : float, default=1e-6
        EM stops where it gains less, per unit of weight.
    max_iter : int, default=1000
        Most iterations of EM.

    Attributes
    ----------
    classes_ : array (C,)
    class_count_ : array (C,)
        Weight of the training samples of each class.
    class_log_prior_ : array (C,)
    category_count_ : list of d arrays (C, M_j)
        Weight of each category.
    feature_log_prob_ : list of d arrays (C, M_j)
        log p(category | class).
    n_categories_ : array (d,)
        M_j: the largest code that was seen plus 1, or more by ``min_categories``.
    n_iter_, history_, stop_reason_
        How EM went: the number of iterations, its objective after each (with the Dirichlet prior that alpha stands
        for), why it stopped.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    X holds codes 0, 1, 2, ...; floats are truncated, NaN is missing and does not count. A code from M_j on, seen
    after the fit, has the probability of a category of count 0, alpha / (weight + alpha M_j); with ``alpha=0`` it is a
    ValueError.

    References
    ----------
    C. M. Bishop (2006). Pattern Recognition and Machine Learning, sec. 4.2.3.
    K. Nigam, A. McCallum, S. Thrun, T. Mitchell (2000). Text classification from labeled and unlabeled documents using
    EM. Machine Learning 39.

    Examples
    --------
    >>> from fastgen import CategoricalNB
    >>> CategoricalNB().fit([[0, 2], [1, 0]], ["a", "b"]).predict([[1, 1]])
    array(['b'], dtype='<U1')
    """

    category_count_: list[Array]
    feature_log_prob_: list[Array]
    n_categories_: NDArray[np.int64]

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        force_alpha: bool = True,
        fit_prior: bool = True,
        class_prior: ArrayLike | None = None,
        min_categories: Any = None,
        semi_supervised: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        self.alpha = alpha
        self.force_alpha = force_alpha
        self.fit_prior = fit_prior
        self.class_prior = class_prior
        self.min_categories = min_categories
        self.semi_supervised = semi_supervised
        self.tol = tol
        self.max_iter = max_iter

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.positive_only = True
        return tags

    def _kinds(self) -> Sequence[Kind]:
        return [CategoricalKind(None, self._alpha, self._least_sizes())]

    def _least_sizes(self) -> tuple[int, ...] | None:
        if self.min_categories is None:
            return None
        least = np.asarray(self.min_categories)
        if not np.issubdtype(least.dtype, np.signedinteger):
            raise ValueError(f"'min_categories' should have integral type. Got {least.dtype} instead.")
        if least.ndim and least.shape != (self.n_features_in_,):
            raise ValueError(
                f"'min_categories' should have shape ({self.n_features_in_},) when an array-like is provided. "
                f"Got {least.shape} instead."
            )
        if least.min() < 1:
            raise ValueError(f"'min_categories' should be at least 1, got {least.min()}")
        return tuple(np.broadcast_to(least, self.n_features_in_).tolist())

    def _validate(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        checked = super()._validate(X, y, reset=reset)
        if isinstance(checked, tuple):
            check_number(self.alpha, "alpha", Real, 0)
            self._alpha = float(self._check_alpha())
        return checked

    def _look_closer(self, X: Matrix, met: int) -> None:
        super()._look_closer(X, met)
        if met & NEGATIVE and X.dtype.kind != "u" and np.fmin.reduce(X, axis=None) <= -1:  # -0.5 is truncated
            raise ValueError(f"Negative values in data passed to {type(self).__name__} (input X).")

    def _adopt(self, log_prior: Array, models: list[Any]) -> None:
        self.class_log_prior_ = log_prior
        self.category_count_ = list(self._statistics[0].counts)
        self.feature_log_prob_ = list(models[0].log_p)
        self.n_categories_ = np.array([count.shape[1] for count in self.category_count_], np.int64)
        self._fitted = models[0]

    def _models(self) -> Sequence[Model]:
        return [replace(self._fitted, log_p=tuple(self.feature_log_prob_))]


# ---- columns of different kinds --------------------------------------------------------------------------------------


class MixedNB(_GenerativeNB):
    """Naive Bayes for columns of different kinds: Gaussian, Poisson, Bernoulli and categorical ones.

    X may be a data frame of pandas or polars, with categories and strings as they are, or an array. Missing values
    (NaN, None, NA, null) do not count in the fit and are marginalised exactly.

    Parameters
    ----------
    families : None, str, or mapping from columns to str, default=None
        Family of columns, by name or number: "gaussian", "poisson", "bernoulli" or "categorical"; one str for all.
        Columns that are not mentioned get theirs by dtype:

        - categories, strings, objects: categorical;
        - truth values: Bernoulli;
        - floats: Gaussian;
        - integers: Bernoulli if all are 0 or 1; Poisson if none is negative and the variance within the classes is at
          most twice the mean; Gaussian otherwise. Codes of categories cannot be told from counts: name these columns.

        The columns of an array of objects count as what they hold.
    priors : array (C,), default=None
        Probabilities of the classes, in the order of ``classes_``. Default: their share in the training data.
    alpha : float, default=1.0
        Smoothing: how many more of each category, event, and row without event are taken to have been seen in each
        class; of Poisson columns, how many more observations of the mean of all classes.
    var_smoothing : float, default=1e-9
        Share of each Gaussian column's variance that is added to its variance in each class; to that of a constant
        column, ``var_smoothing`` itself.
    semi_supervised : bool, default=False
        Whether the label -1 means that it is unknown: `fit` then takes these rows into account, by EM.
    tol : float, default=1e-6
        EM stops where it gains less, per unit of weight.
    max_iter : int, default=1000
        Most iterations of EM.

    Attributes
    ----------
    classes_ : array (C,)
    class_count_ : array (C,)
        Weight of the training samples of each class.
    class_prior_ : array (C,)
    families_ : list of d str
        Family of each column.
    categories_ : list of d arrays, or None
        Categories of each categorical column: those that a data frame declares, or the sorted values; those that
        `partial_fit` finds later follow. None for other columns.
    parameters_ : list of d dicts
        "mean" and "variance" (C,), "rate" (C,), "probability" (C,), or "probabilities" (C, M_j) of each column.
    epsilon_ : array
        What was added to the variances of the Gaussian columns.
    n_iter_, history_, stop_reason_
        How EM went: the number of iterations, its objective after each (with the prior that alpha stands for), why it
        stopped.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    A category that was never seen has the probability of one of count 0, alpha / (weight + alpha M_j); with ``alpha=0``
    it is a ValueError. An event is a value above 0. Poisson columns hold 0, 1, 2, ...

    Data frames and arrays with categories are copied once, as float64. `partial_fit` chooses the families by its first
    block: name those of which it may not show what they are, as of counts that begin with 0 and 1 alone.

    References
    ----------
    C. M. Bishop (2006). Pattern Recognition and Machine Learning, sec. 4.2.
    K. Nigam, A. McCallum, S. Thrun, T. Mitchell (2000). Text classification from labeled and unlabeled documents using
    EM. Machine Learning 39.

    Examples
    --------
    >>> import pandas as pd
    >>> from fastgen import MixedNB
    >>> X = pd.DataFrame({"height": [1.8, 1.7, 1.6, None], "eyes": ["blue", "green", "green", "brown"]})
    >>> model = MixedNB(var_smoothing=1e-2).fit(X, ["a", "a", "b", "b"])
    >>> model.families_
    ['gaussian', 'categorical']
    >>> model.predict(pd.DataFrame({"height": [None], "eyes": ["brown"]}))
    array(['b'], dtype='<U1')
    """

    class_prior_: Array
    families_: list[str]
    categories_: list[NDArray[Any] | None]
    parameters_: list[dict[str, Array]]
    epsilon_: Array
    _spread: Moments
    _rows: Sums

    def __init__(
        self,
        families: str | Mapping[Any, str] | None = None,
        *,
        priors: ArrayLike | None = None,
        alpha: float = 1.0,
        var_smoothing: float = 1e-9,
        semi_supervised: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        self.families = families
        self.priors = priors
        self.alpha = alpha
        self.var_smoothing = var_smoothing
        self.semi_supervised = semi_supervised
        self.tol = tol
        self.max_iter = max_iter

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    # ---- columns ---------------------------------------------------------------------------------------------------

    def _validate(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        """X as numbers: codes where columns are categorical, one beyond all for categories that are not known."""
        fitting = not isinstance(y, str)
        if not fitting and self._is_checked(X) and not self._categorical().size:
            self._check_values(X)
            self._check_counts(X)
            return X
        columns = columns_of(X, self)
        n = len(columns[0].values)
        labels = check_X_y(np.zeros((n, 1)), y, estimator=self)[1] if fitting else None
        shaped = X if is_frame(X) else np.broadcast_to(0.0, (n, len(columns)))
        validate_data(self, shaped, skip_check_array=True, reset=reset)
        if fitting:
            check_number(self.alpha, "alpha", Real, 0)
        if reset:
            self.families_ = self._choose(columns, cast(NDArray[Any], labels))
            self._known: list[dict[Any, int]] = [{}] * len(columns)
        if fitting:
            self._learn(columns)
        data = self._encode(X, columns)
        self._check_values(data)
        self._check_counts(data)
        return (data, labels) if fitting else data

    def _choose(self, columns: list[Column], labels: NDArray[Any]) -> list[str]:
        chosen: list[str | None] = [None] * len(columns)
        if isinstance(self.families, str):
            chosen = [self.families] * len(columns)
        elif self.families is not None:
            if not isinstance(self.families, Mapping):
                raise TypeError(f"families must be a str or a mapping from columns to str, got {self.families!r}")
            for column, family in self.families.items():
                chosen[int(self._columns([column])[0])] = family
        for choice in chosen:
            if choice is not None:
                check_choice(choice, "families", _FAMILIES)
        return [family or _family(column, labels) for column, family in zip(columns, chosen, strict=True)]

    def _learn(self, columns: list[Column]) -> None:
        """Categories that are not known yet."""
        known, categories = [], []
        for column, family, before in zip(columns, self.families_, self._known, strict=True):
            if family == "categorical":
                new = [value for value in column.distinct() if value not in before]
                before = before | {value: len(before) + i for i, value in enumerate(new)}
            known.append(before)
            categories.append(_as_categories(list(before)) if family == "categorical" else None)
        self._known, self.categories_ = known, categories

    def _encode(self, X: Any, columns: list[Column]) -> NDArray[Any]:
        if isinstance(X, np.ndarray) and X.dtype.kind in "fiub" and "categorical" not in self.families_:
            return cast(NDArray[Any], as_matrix(X))
        data = np.empty((len(columns[0].values), len(columns)))
        for j, (column, family) in enumerate(zip(columns, self.families_, strict=True)):
            if family == "categorical":
                codes = column.codes(self._known[j])
                unseen = codes == UNKNOWN
                if self.alpha == 0 and unseen.any():
                    row = int(unseen.argmax())
                    raise ValueError(
                        f"row {row} holds {column.value(row)!r} in column {column.name!r}, which is none of its "
                        "categories: without smoothing (alpha=0) no class allows it"
                    )
                data[:, j] = np.where(unseen, len(self._known[j]), codes)
                data[codes == MISSING, j] = np.nan
            else:
                data[:, j] = column.numbers()
        return data

    def _check_counts(self, X: NDArray[Any]) -> None:
        for j in self._of("poisson"):
            column = X[:, j]
            with np.errstate(invalid="ignore"):
                wrong = (column < 0) | (column != np.floor(column)) & ~np.isnan(column)
            if wrong.any():
                row = int(wrong.argmax())
                raise ValueError(
                    f"column {j} is Poisson and must hold 0, 1, 2, ... but holds {column[row]} at row {row}: "
                    "choose another family for it"
                )

    def _of(self, family: str) -> Index:
        return np.flatnonzero([name == family for name in self.families_])

    def _categorical(self) -> Index:
        return self._of("categorical")

    # ---- fit -------------------------------------------------------------------------------------------------------

    def _kinds(self) -> Sequence[Kind]:
        kinds: list[Kind] = []
        for family in _FAMILIES:
            columns = self._of(family)
            if not len(columns):
                continue
            where = None if len(columns) == self.n_features_in_ else columns
            if family == "gaussian":
                kinds.append(GaussianKind(where, getattr(self, "epsilon_", 0.0), getattr(self, "_spread", None)))
            elif family == "poisson":
                kinds.append(PoissonKind(where, self.alpha, getattr(self, "_rows", None)))
            elif family == "bernoulli":
                kinds.append(BernoulliKind(where, 0.0, self.alpha))
            else:
                kinds.append(CategoricalKind(where, self.alpha, tuple(len(self._known[j]) for j in columns)))
        return kinds

    def _count(self, X: Matrix, codes: Codes, weights: Array | None, C: int) -> tuple[Any, ...]:
        """In blocks: columns of one kind are copied."""
        kinds = self._kinds()
        if kinds[0].columns is None:
            return super()._count(X, codes, weights, C)
        parts = []
        for start in range(0, len(X), _MIXED_ROWS):
            rows = slice(start, start + _MIXED_ROWS)
            w = None if weights is None else weights[rows]
            parts.append([kind.statistics(X[rows], codes[rows], w, C, self._look_closer) for kind in kinds])
        return tuple(reduce(add, of_kind) for of_kind in zip(*parts, strict=True))

    def _survey(self, X: Matrix, weights: Array | None, statistics: tuple[Any, ...] | None) -> None:
        check_number(self.var_smoothing, "var_smoothing", Real, 0)
        self.__dict__.pop("_rows", None)
        counts = self._of("poisson")
        if statistics is None and len(counts):  # the prior of the rates is that of all rows
            self._rows = PoissonKind(counts).statistics(X, np.zeros(len(X), np.intp), weights, 1, self._look_closer)
        columns = self._of("gaussian")
        if not len(columns):
            self.epsilon_ = np.empty(0)
            return
        if weights is None and statistics is not None:
            spread = statistics[0].pooled()
        else:
            kind = GaussianKind(columns)
            blocks = (X[i : i + _MIXED_ROWS] for i in range(0, len(X), _MIXED_ROWS))
            spread = reduce(
                add,
                (kind.statistics(block, np.zeros(len(block), np.intp), None, 1, self._look_closer) for block in blocks),
            )
        self._spread = self._spread + spread if hasattr(self, "_spread") else spread
        variance = self._spread.scatter[0] / np.where(self._spread.count[0] > 0, self._spread.count[0], 1.0)
        self.epsilon_ = self.var_smoothing * np.where(variance > 0, variance, 1.0)

    def _forget(self) -> None:
        super()._forget()
        self.__dict__.pop("_spread", None)
        self.__dict__.pop("_rows", None)

    def _fit_prior(self, weight: Array) -> Array:
        return _log_priors(self.priors, weight)

    def _adopt(self, log_prior: Array, models: list[Any]) -> None:
        self.class_prior_ = _exact_prior(self.priors, self.class_count_, log_prior)
        self._fitted_log_prior = log_prior
        self._fitted = models
        self.parameters_ = [{}] * self.n_features_in_
        for model in models:
            columns = np.arange(self.n_features_in_) if model.columns is None else model.columns
            for i, j in enumerate(columns):
                self.parameters_[j] = _parameters(model, i)

    def _log_prior(self) -> Array:
        return self._fitted_log_prior

    def _models(self) -> Sequence[Model]:
        return [
            check_variances(model, self._log_prior(), self.classes_, self.class_count_)
            if isinstance(model, GaussianModel)
            else model
            for model in self._fitted
        ]

    def _decode(self, X: Array) -> NDArray[Any]:
        categorical = [j for j in self._categorical() if len(cast(Any, self.categories_[j]))]
        if all(cast(Any, self.categories_[j]).dtype.kind in "fiub" for j in categorical):
            for j in categorical:
                X[:, j] = cast(Any, self.categories_[j])[X[:, j].astype(np.intp)]
            return X
        result = X.astype(object)
        for j in categorical:
            result[:, j] = cast(Any, self.categories_[j])[X[:, j].astype(np.intp)]
        return result


def _family(column: Column, labels: NDArray[Any]) -> str:
    """The family of a column that the user leaves to us; see `MixedNB`."""
    if column.kind != "integer":
        return {"float": "gaussian", "boolean": "bernoulli", "categorical": "categorical"}[column.kind]
    values = column.values
    if np.all((values == 0) | (values == 1) | np.isnan(values)):
        return "bernoulli"
    if np.fmin.reduce(values) < 0:
        return "gaussian"
    classes, codes = np.unique(labels, return_inverse=True)
    _, count, mean, scatter = class_moments(values[:, None], codes, None, len(classes))
    return "poisson" if scatter.sum() <= 2 * (count * mean).sum() else "gaussian"


def _as_categories(values: list[Any]) -> NDArray[Any]:
    """As numbers if they are, as objects otherwise."""
    if values and all(isinstance(value, Real) for value in values):
        return np.array(values)
    result = np.empty(len(values), object)
    result[:] = values
    return result


def _parameters(model: Any, i: int) -> dict[str, Array]:
    """Those of one column, in words."""
    if isinstance(model, GaussianModel):
        return {"mean": model.means[:, i], "variance": model.variances[:, i]}
    if isinstance(model, PoissonModel):
        return {"rate": model.rates[:, i]}
    if isinstance(model, BernoulliModel):
        return {"probability": np.exp(model.log_p[:, i])}
    return {"probabilities": np.exp(cast(CategoricalModel, model).log_p[i])}
