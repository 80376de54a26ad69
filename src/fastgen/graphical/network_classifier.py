"""Bayesian networks as classifiers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from fastgen._bayes import classes_of, encode
from fastgen._estimator import FastgenEstimator, atomic
from fastgen._frames import is_frame, is_missing
from fastgen._missing import Index
from fastgen._validation import Array, check_choice
from fastgen.graphical._arcs import lasting
from fastgen.graphical._engine import Engine
from fastgen.graphical._posterior import class_posteriors
from fastgen.graphical._states import Codes, Coding, with_weight
from fastgen.graphical._structures import Structure, learn_parents
from fastgen.graphical.bayesian_network import BayesianNetwork

__all__ = ["BayesianNetworkClassifier"]


class BayesianNetworkClassifier(ClassifierMixin, FastgenEstimator):  # type: ignore[misc]
    """A Bayesian network of discrete features and a class.

    Parameters
    ----------
    structure : str, iterable of (parent, child), callable, default="tan"
        ``"naive"`` (the class is the only parent of all features), ``"tan"`` (and they form a tree), or as for
        `BayesianNetwork`: a general network, of which the class is one variable. Arcs name the class by `class_column`.
    class_column : default="class"
        The name of the class in the network. ``fit(X)`` without y takes the labels from this column of a data frame.
    structure_options : dict, default=None
        For what learns the structure (for "tan": ``root``, a number). An error where nothing takes them.
    states : mapping, default=None
        For some features, and for the class by the name `class_column`, all values that may occur, in the order that
        they are to have.
    prior, equivalent_sample_size, tol, max_iter, n_init, random_state, limit
        As for `BayesianNetwork`; the default prior is 1 for each entry (Laplace), so that no value is impossible.
    handle_unknown : {"error", "missing"}
        What to do at predictions with values that no state stands for: to refuse them, or to sum over the feature.

    Attributes
    ----------
    classes_ : array
        The labels that occur, sorted; or those that `states` names, in their order.
    model_ : BayesianNetwork
        Of the features and, as the last variable, the class.
    n_iter_ : int
        Of EM.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    *Cost.* d features, C classes. A complete row takes O(C (d + arcs)). With missing cells it takes exact inference:
    see the notes of `BayesianNetwork`.

    References
    ----------
    N. Friedman, D. Geiger, M. Goldszmidt, Bayesian network classifiers, Machine Learning 29, 1997.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgen.graphical import BayesianNetworkClassifier
    >>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5)
    >>> y = X[:, 0] ^ X[:, 1]
    >>> BayesianNetworkClassifier().fit(X, y).predict(X[:4])
    array([0, 1, 1, 0])
    """

    def __init__(
        self,
        structure: Iterable[tuple[Any, Any]] | str | Structure = "tan",
        *,
        class_column: Any = "class",
        structure_options: Mapping[str, Any] | None = None,
        states: Mapping[Any, Sequence[Any]] | None = None,
        prior: str | float | None = 1.0,
        equivalent_sample_size: float = 10.0,
        handle_unknown: str = "error",
        tol: float = 1e-4,
        max_iter: int = 200,
        n_init: int = 1,
        random_state: Any = None,
        limit: int = 1 << 31,
    ) -> None:
        self.structure = lasting(structure)
        self.class_column = class_column
        self.structure_options = structure_options
        self.states = states
        self.prior = prior
        self.equivalent_sample_size = equivalent_sample_size
        self.handle_unknown = handle_unknown
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.limit = limit

    @atomic
    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the structure, unless it is given, and the tables.

        Parameters
        ----------
        X : array or data frame (n, d)
            Discrete features; missing cells (see `BayesianNetwork`) only if the structure is given, or "naive".
        y : array (n,)
            Labels; None takes them from the column `class_column` of X.
        sample_weight : array (n,), optional
            Of the structure, too, if it is learned by name; a function does not get them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Missing labels, labels or values that are none of `states`, unknown options, missing cells where a structure
            is to be learned, ...
        NetworkError
            The arcs have a cycle.
        EngineLimitError
            With missing cells: EM would need more than `limit`.

        Notes
        -----
        "naive": O(n d). "tan": O(n d^2). With missing cells an iteration of EM takes exact inference for each row that
        differs from the others.
        """
        self._forget()
        check_choice(self.handle_unknown, "handle_unknown", ("error", "missing"))
        if y is None:
            X, y = self._split(X)
        check_consistent_length(X, y)
        X, y, weights = with_weight(X, y, sample_weight)
        states = dict(self.states or {})
        named = states.pop(self.class_column, None)
        coding, codes = Coding.of(X, states, self)
        classes = self._learn_classes(y, named)
        self._coding = coding
        self.n_features_in_ = d = len(coding.names)
        if all(isinstance(name, str) for name in coding.names):
            self.feature_names_in_ = np.array(coding.names, object)
        if self.class_column in coding.names:
            raise ValueError(
                f"X has a column {self.class_column!r}: call fit(X) without y, or choose another class_column"
            )
        names = (*coding.names, self.class_column)
        whole = Coding(names, (*coding.categories, tuple(self.classes_.tolist())))
        table = np.empty((len(codes), d + 1), np.int32)
        table[:, :d], table[:, d] = codes, classes
        structure, options = self._structure(table, whole, weights)
        model = BayesianNetwork(
            structure,
            structure_options=options,
            states=dict(zip(names, whole.categories, strict=True)),
            **{
                name: getattr(self, name)
                for name in ("prior", "equivalent_sample_size", "tol", "max_iter", "n_init", "random_state", "limit")
            },
        )
        model._fit_codes(whole, table, weights)
        self.model_ = model
        self.n_iter_ = model.n_iter_
        return self

    def _split(self, X: Any) -> tuple[Any, NDArray[Any]]:
        if not is_frame(X) or self.class_column not in list(X.columns):
            raise ValueError(
                "This BayesianNetworkClassifier requires y to be passed, but the target y is None"
                f" (and X is no data frame with a column {self.class_column!r})"
            )
        labels = X[self.class_column].to_numpy()
        return (X.drop(columns=self.class_column) if hasattr(X, "iloc") else X.drop(self.class_column)), labels

    def _learn_classes(self, y: Any, named: Sequence[Any] | None) -> Index:
        """Set the classes, and return the position of each label among them."""
        labels = np.asarray(column_or_1d(y, warn=True))
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise ValueError("Input y contains NaN or infinity")
        if labels.dtype.kind == "O" and any(map(is_missing, labels.tolist())):
            row = next(row for row, label in enumerate(labels.tolist()) if is_missing(label))
            raise ValueError(f"Input y contains missing labels: {labels[row]!r} in row {row}; leave out these rows")
        check_classification_targets(labels)
        if named is None:
            self.classes_, codes = classes_of(labels)
            return codes
        if len(set(named)) < len(named):
            raise ValueError(f"states of {self.class_column!r} are not distinct: {list(named)}")
        self.classes_ = np.array(list(named), object if labels.dtype.kind == "O" else None)
        return self._class_codes(labels)

    def _class_codes(self, labels: NDArray[Any]) -> Index:
        """The position of each label among the classes.

        Raises
        ------
        ValueError
            One is none of them.
        """
        order = np.argsort(self.classes_)
        found = encode(labels, self.classes_[order])
        if (found < 0).any():
            raise ValueError(
                f"y holds {labels.tolist()[found.argmin()]!r}, which is none of the classes {self.classes_}"
            )
        return order[found]

    def _structure(self, table: Codes, coding: Coding, weights: Array | None) -> tuple[Any, Any]:
        """What the network is to be told: its structure, with options."""
        options = dict(self.structure_options or {})
        names, d = coding.names, len(coding.names) - 1
        if not isinstance(self.structure, str) or self.structure not in ("naive", "tan"):
            return self.structure, self.structure_options
        if self.structure == "naive" or (d == 1 and not options):
            return [(self.class_column, name) for name in names[:-1]], options
        if (table < 0).any():
            raise ValueError('the structure "tan" cannot be learned from rows with missing cells: use "naive"')
        if "class_column" in options:
            raise ValueError("class_column is a parameter of the classifier, not one of structure_options")
        parents = learn_parents("tan", table, coding.sizes, weights, {"class_column": d, **options})
        return [(names[parent], names[child]) for child, own in enumerate(parents) for parent in own], None

    @property
    def _engine(self) -> Engine:
        """That of the network, with the limit as it is now."""
        self.model_.limit = self.limit
        return self.model_._engine

    def _posterior(self, X: Any, predict: bool = False) -> NDArray[Any]:
        """Probabilities of the classes, or the positions of the best ones, -1 where none is possible."""
        check_is_fitted(self, "model_")
        codes = self._coding.encode(X, self.handle_unknown, self)
        d = self.n_features_in_
        if codes.dtype.kind == "u" or int(codes.min()) >= 0:
            return class_posteriors(self.model_.network_, codes, d, predict=predict)
        whole = np.full((len(codes), d + 1), -1, np.int32)
        whole[:, :-1] = codes
        (table,), log_evidence = self._engine.marginals(whole, None, [d])
        return np.where(log_evidence > -np.inf, table.argmax(axis=1), -1) if predict else table

    def predict_proba(self, X: Any) -> Array:
        """P(class | the observed features of each row).

        Parameters
        ----------
        X : array or data frame (n, d)

        Returns
        -------
        array (n, classes)
            NaN where no class makes the row possible.

        Raises
        ------
        ValueError
            Values that are no states, unless ``handle_unknown="missing"``; another number of columns.
        EngineLimitError
            Cells are missing, and to sum over them would need more than `limit`.

        Notes
        -----
        O(n C (d + arcs)) for complete rows.
        """
        posterior: Array = self._posterior(X)
        return posterior

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithm of `predict_proba`.

        Parameters
        ----------
        X : array or data frame (n, d)

        Returns
        -------
        array (n, classes)

        Notes
        -----
        Errors and cost are those of `predict_proba`.
        """
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self._posterior(X)), np.float64)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row; where no class makes it possible, the one most probable before.

        Parameters
        ----------
        X : array or data frame (n, d)

        Returns
        -------
        array (n,)

        Notes
        -----
        Errors and cost are those of `predict_proba`.
        """
        best = self._posterior(X, predict=True)
        if (best < 0).any():
            prior = self._engine.marginals(None, None, [self.n_features_in_])[0][0]
            best = np.where(best < 0, prior.argmax(), best)
        return np.asarray(self.classes_[best])

    def log_prob(self, X: Any, y: Any = None) -> Array:
        """log p(x) of each row, or log p(x, y), in nats.

        Parameters
        ----------
        X : array or data frame (n, d)
        y : array (n,), optional

        Returns
        -------
        array (n,)
            -inf for what is impossible.

        Raises
        ------
        ValueError
            Labels that are no classes; and as `predict_proba`.
        EngineLimitError
            It would need more than `limit`.

        Notes
        -----
        Exact inference, as for rows with missing cells.
        """
        check_is_fitted(self, "model_")
        codes = self._coding.encode(X, self.handle_unknown, self)
        whole = np.full((len(codes), self.n_features_in_ + 1), -1, np.int32)
        whole[:, :-1] = codes
        if y is not None:
            labels = np.asarray(column_or_1d(y))
            check_consistent_length(X, labels)
            whole[:, -1] = self._class_codes(labels)
        return self._engine.log_evidence(whole)
