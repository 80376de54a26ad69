"""What the estimators share: checking input as scikit-learn does, and leaving a failed fit without a trace."""

import warnings
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from fastgen._em import Fit
from fastgen._missing import Index
from fastgen._validation import as_floats

Model = TypeVar("Model", bound="FastgenEstimator")
P = ParamSpec("P")
R = TypeVar("R")


def atomic(method: Callable[Concatenate[Model, P], R]) -> Callable[Concatenate[Model, P], R]:
    """Make a method that sets attributes leave the estimator as it was if it fails."""

    @wraps(method)
    def wrapper(self: Model, /, *args: P.args, **kwargs: P.kwargs) -> R:
        before = dict(self.__dict__)
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.__dict__ = before
            raise

    return wrapper


class FastgenEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of all estimators: NaN is a missing value, infinity an error."""

    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _check_data(self, X: ArrayLike, y: Any = "no_validation", *, reset: bool = False) -> Any:
        """X as (n, d) floats, and labels y if given; feature names and number are set (``reset``) or compared.

        Infinity in X is found later, by the kernels.
        """
        if not reset and self._is_checked(X):
            return X
        if isinstance(X, np.ma.MaskedArray) or (isinstance(X, np.ndarray) and X.dtype.kind == "f"):
            X = as_floats(X, "X")  # refuses what would lose digits
        return validate_data(
            self, X, y, reset=reset, dtype=[np.float64, np.float32], order=None, ensure_all_finite=False
        )

    def _forget(self) -> None:
        """Remove what an earlier fit has left."""
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)

    def _is_checked(self, X: ArrayLike) -> bool:
        """Whether nothing is left to check; scikit-learn would take ten times as long as a kernel for a few rows."""
        return (
            type(X) is np.ndarray
            and X.dtype in (np.float64, np.float32)
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == self.n_features_in_
            and not hasattr(self, "feature_names_in_")
        )

    def _columns(self, columns: Iterable[Any] | Any) -> Index:
        """Column numbers from numbers, feature names, a slice, or a boolean mask."""
        d = self.n_features_in_
        if isinstance(columns, slice):
            return np.arange(d)[columns]
        if isinstance(columns, str) or not isinstance(columns, Iterable):
            columns = [columns]
        listed = list(columns)
        if listed and all(isinstance(column, (bool, np.bool_)) for column in listed):
            if len(listed) != d:
                raise ValueError(f"a mask of columns must have length {d}, got {len(listed)}")
            return np.flatnonzero(listed)
        names = list(getattr(self, "feature_names_in_", ()))
        found = []
        for column in listed:
            if isinstance(column, str):
                if column not in names:
                    raise ValueError(f"there is no feature {column!r}; the model has {names or f'{d} without names'}")
                found.append(names.index(column))
            elif hasattr(column, "__index__") and -d <= int(column) < d:
                found.append(int(column) % d)
            else:
                raise ValueError(f"there is no column {column!r}: the model has {d}, numbered from 0")
        if len(set(found)) < len(found):
            raise ValueError(f"columns must be distinct, got {listed}")
        return np.array(found, np.intp)

    def _keep_names(self, other: "FastgenEstimator", columns: Index) -> None:
        """Take over the names of some columns from another model."""
        if hasattr(other, "feature_names_in_"):
            self.feature_names_in_ = other.feature_names_in_[columns]

    def _report(self, fit: Fit) -> None:
        """Set the attributes that tell how the fit went; warn if it did not converge."""
        self.n_iter_ = fit.n_iter
        self.history_ = np.array(fit.history)
        self.stop_reason_ = fit.stop_reason
        if fit.stop_reason == "max_iter":
            warnings.warn(
                f"EM did not converge in {fit.n_iter} iterations: increase max_iter or tol",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif fit.stop_reason == "decreased":
            warnings.warn(
                "the objective fell, which rounding alone does not explain: the parameters before the fall are kept; "
                "is a variance or covariance almost singular? Increase reg_covar or var_smoothing",
                ConvergenceWarning,
                stacklevel=4,
            )
