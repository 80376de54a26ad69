"""What the Gaussian models of named variables share: variables by name, data in their order, scores, missing cells."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import DensityMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from fastgen import families
from fastgen._estimator import FastgenEstimator
from fastgen._frames import is_frame
from fastgen._missing import Index
from fastgen._validation import Array, Data, as_generator, as_parameters, as_weights, check_choice, refuse_infinity
from fastgen.gaussian import Gaussian
from fastgen.graphical._factors import NetworkError

__all__ = ["NamedDensity", "position"]


class NamedDensity(DensityMixin, FastgenEstimator):  # type: ignore[misc]
    """A Gaussian over named variables; subclasses know its structure."""

    names: Sequence[Any] | None
    names_: tuple[Any, ...]

    @property
    def n_parameters_(self) -> int:
        """The number of free parameters."""
        raise NotImplementedError

    # ---- what differs ----------------------------------------------------------------------------------------------

    _directed = True

    def _log_density(self, data: Data) -> Data:
        """log p(x) of rows in the order of the variables."""
        raise NotImplementedError

    def _marginal(self, columns: Index) -> Gaussian:
        """The density of some variables, at least one."""
        raise NotImplementedError

    def _completed(self, data: Data, rng: np.random.Generator | None) -> Iterator[tuple[Index, Index, Array]]:
        """For each pattern of missing cells: its rows, missing columns, and values: conditional means, or draws."""
        raise NotImplementedError

    def _sample(self, n: int, rng: np.random.Generator, observed: Index, values: Array) -> Array:
        """Rows in which some variables have these values."""
        raise NotImplementedError

    def _lines(self) -> list[tuple[int, int]]:
        """The arcs, or edges, to be drawn."""
        raise NotImplementedError

    # ---- variables and rows ----------------------------------------------------------------------------------------

    def _names_of(self, d: int) -> tuple[Any, ...]:
        found = tuple(getattr(self, "feature_names_in_", ())) or None
        names = found or tuple(range(d)) if self.names is None else tuple(self.names)
        if len(names) != d or len(set(names)) < d:
            raise ValueError(f"names must be {d} different ones, for the columns of X, got {list(names)}")
        if found is not None and names != found:
            raise ValueError(f"names are {list(names)}, but the columns of X are called {list(found)}")
        return names

    def _rows(self, X: ArrayLike) -> Data:
        """X as floats, in the order of the variables."""
        check_is_fitted(self, "names_")
        if is_frame(X) and not hasattr(self, "feature_names_in_"):
            frame: Any = X
            if set(frame.columns) != set(self.names_):
                raise ValueError(f"X has columns {list(frame.columns)}, the variables are {list(self.names_)}")
            X = check_array(frame[list(self.names_)], dtype=[np.float64, np.float32], ensure_all_finite=False)
        return cast(Data, self._check_data(X))

    def _variable(self, name: Any) -> int:
        return int(self._variables([name])[0])

    def _variables(self, names: Any) -> Index:
        check_is_fitted(self, "names_")
        numbers = {name: i for i, name in enumerate(self.names_)}
        several = isinstance(names, Iterable) and not isinstance(names, str)
        if several and not (isinstance(names, tuple) and names in numbers):
            names = list(names)
        else:
            names = [names]
        found = [position(name, numbers) for name in names]
        if len(set(found)) < len(found):
            raise ValueError(f"the variables must be distinct, got {names}")
        return np.array(found, np.intp)

    def _evidence(self, given: Mapping[Any, float] | None) -> tuple[Index, Array]:
        given = given or {}
        return self._variables(list(given)), as_parameters(list(given.values()), "given values", (len(given),))

    def _named(self, family: families.Gaussian, columns: Index) -> Gaussian:
        """The estimator of a family over some of the variables."""
        result = Gaussian("full")._with_family(family)
        if all(isinstance(name, str) for name in self.names_):
            result.feature_names_in_ = np.array([self.names_[i] for i in columns], object)
        return result

    # ---- densities -------------------------------------------------------------------------------------------------

    def log_prob(self, X: ArrayLike) -> Data:
        """log p(x) of each row, in nats; of its observed part where cells are NaN.

        Parameters
        ----------
        X : array or data frame (n, d)

        Returns
        -------
        array (n,)
            float32 for float32 X.

        Raises
        ------
        NetworkError
            A variable is deterministic: the joint distribution has no density.
        """
        return self._log_density(self._rows(X))

    def score_samples(self, X: ArrayLike) -> Data:
        """`log_prob`, as scikit-learn calls it."""
        return self.log_prob(X)

    def score(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean log p(x), in nats.

        Parameters
        ----------
        X : array or data frame (n, d)
        y : ignored
        sample_weight : array (n,), optional

        Returns
        -------
        float
        """
        log_prob = self.log_prob(X)
        return float(np.average(log_prob.astype(np.float64), weights=as_weights(sample_weight, len(log_prob))))

    def aic(self, X: ArrayLike) -> float:
        """Akaike's information criterion, -2 log L + 2 (free parameters): lower is better.

        Parameters
        ----------
        X : array or data frame (n, d)

        Returns
        -------
        float
        """
        return -2 * float(self.log_prob(X).sum(dtype=np.float64)) + 2 * self.n_parameters_

    def bic(self, X: ArrayLike) -> float:
        """Bayesian information criterion, -2 log L + log(n) (free parameters): lower is better.

        Parameters
        ----------
        X : array or data frame (n, d)

        Returns
        -------
        float
        """
        log_prob = self.log_prob(X)
        return -2 * float(log_prob.sum(dtype=np.float64)) + float(np.log(len(log_prob))) * self.n_parameters_

    def marginal(self, columns: Any) -> Gaussian:
        """The density of some variables.

        Parameters
        ----------
        columns : variable, or iterable of variables
            In the order that the result is to have.

        Returns
        -------
        fastgen.Gaussian

        Raises
        ------
        NetworkError
            Their covariance is singular, since variables are deterministic.
        """
        chosen = self._variables(columns)
        if not len(chosen):
            raise ValueError("no variable is left")
        return self._marginal(chosen)

    # ---- missing cells and draws -----------------------------------------------------------------------------------

    def predict(self, X: ArrayLike, targets: Any = None) -> Data:
        """Conditional means of missing cells, given the observed cells of the row; observed cells as they are.

        Parameters
        ----------
        X : array or data frame (n, d)
        targets : variable, or iterable of variables, optional
            Only their columns are returned.

        Returns
        -------
        array (n, d) or (n, targets)
        """
        filled = self.impute(X)
        return filled if targets is None else filled[:, self._variables(targets)]

    def impute(self, X: ArrayLike, method: str = "mean", random_state: Any = None) -> Data:
        """A copy of X in which missing cells (NaN) are filled in, given the observed cells of the row.

        Parameters
        ----------
        X : array or data frame (n, d)
        method : {"mean", "sample"}
            Conditional mean, or a draw from the conditional distribution.
        random_state : None, int, numpy.random.Generator or RandomState
            For "sample".

        Returns
        -------
        array (n, d)

        Notes
        -----
        One condition for each distinct pattern of missing columns.
        """
        check_choice(method, "method", ("mean", "sample"))
        data = self._rows(X)
        refuse_infinity(data)
        rng = as_generator(random_state) if method == "sample" else None
        result = data.copy()
        for rows, missing, values in self._completed(data, rng):
            result[np.ix_(rows, missing)] = values
        return result

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, evidence: Mapping[Any, float] | None = None
    ) -> Array:
        """Draw rows.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, numpy.random.Generator or RandomState
        evidence : mapping, optional
            Values of some variables: the others are drawn given these, exactly.

        Returns
        -------
        array (n_samples, d)
        """
        check_is_fitted(self, "names_")
        return self._sample(n_samples, as_generator(random_state), *self._evidence(evidence))

    # ---- the graph -------------------------------------------------------------------------------------------------

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the graph, with graphviz's layout where it is installed.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new figure.
        **options
            ``layout`` ("auto", "dot", "layers", or a mapping from variables to (x, y)), ``labels`` (a mapping from
            pairs of numbers), ``font_size``, ``node_color``, ``edge_color``.

        Returns
        -------
        matplotlib Axes
        """
        from fastgen.graphical._plot import plot

        check_is_fitted(self, "names_")
        return plot(self.names_, self._lines(), ax=ax, directed=self._directed, **options)


def position(name: Any, numbers: Mapping[Any, int]) -> int:
    """The number of a variable, given by name or number."""
    if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
        name = int(name)
    if isinstance(name, Hashable) and not isinstance(name, (bool, np.bool_)):
        if name in numbers:
            return numbers[name]
        if isinstance(name, int) and 0 <= name < len(numbers):
            return name
    raise NetworkError(f"there is no variable {name!r}: these are {_listed(numbers)}")


def _listed(names: Iterable[Any]) -> str:
    listed = list(names)
    return str(listed) if len(listed) <= 50 else f"{str(listed[:50])[:-1]}, ...]"
