"""What structures may ask of a family, and nothing else.

`Family` is what every family has. `IncompleteFamily` (EM on missing values, labelled data) and `FusedFamily` (an E-step
without responsibilities in memory) are what some have beyond that.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgen._validation import Array, Data


class Statistics(Protocol):
    """Sufficient statistics of a block of data: small, picklable, and ``a + b`` is that of both blocks."""

    @property
    def weight(self) -> Array:
        """Total weight of each component, (K,)."""
        ...

    @property
    def complete(self) -> bool:
        """Whether they follow from the data alone; otherwise missing values were filled in by a model's parameters."""
        ...

    def __add__(self, other: Self, /) -> Self: ...

    # Those that do not depend on parameters also have ``__mul__(factor)``, for `partial_fit`.

    @classmethod
    def stack(cls, parts: Sequence[Self], /) -> Self:
        """Statistics of several families' components, as those of one family with all of them."""
        ...


@runtime_checkable
class Family(Protocol):
    """K components of one kind, with their parameters or, before a fit, without.

    NaN in X is a missing value, marginalised exactly.
    """

    @property
    def n_components(self) -> int:
        """K; an AttributeError before there are parameters, as for all that needs them."""
        ...

    @property
    def n_features(self) -> int:
        """d."""
        ...

    @property
    def n_parameters(self) -> int:
        """Free parameters of all components together."""
        ...

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by name; each array begins with the K axis, but for what the components share."""
        ...

    def log_density(self, X: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
        """log p(x | component k), (n, K)."""
        ...

    def statistics(self, X: ArrayLike, weights: ArrayLike | None = None, *, n_threads: int | None = None) -> Any:
        """Statistics of X under weights (n, K), or (n,) for one component. None: all ones."""
        ...

    def maximise(self, statistics: Any) -> Self:
        """The family with the parameters that maximise the expected log-likelihood.

        A component that has no weight is an `EmptyComponentError`. A family whose attribute ``accelerated`` is True may
        overshoot, and takes ``cautious=True`` for a step that does not.
        """
        ...

    def penalty(self, statistics: Any) -> float:
        """What the fit maximises beyond the log-likelihood, for statistics of fixed weights (labelled data), or 0."""
        ...

    def sample(self, components: NDArray[np.intp], rng: np.random.Generator) -> Array:
        """One observation of each of the components that are listed, (n, d)."""
        ...

    def select(self, components: Sequence[int]) -> Self:
        """The family of some of the components."""
        ...

    def marginal(self, columns: Any) -> Self:
        """The family of some of the columns."""
        ...

    def condition(self, given: Mapping[int, float]) -> Self:
        """The family of the other columns, given values of some: p(rest | given, component)."""
        ...

    def impute(self, X: Data, posterior: Array | None = None, rng: np.random.Generator | None = None) -> Data:
        """A copy of X with each NaN at its conditional mean under p(component | x_o), or drawn with ``rng``."""
        ...


class IncompleteFamily(Family, Protocol):
    """A family whose statistics depend on its parameters where values are missing (`Statistics.complete` is False)."""

    def observe(self, X: Data, weights: Array | None = None) -> Any:
        """What EM needs of the data, whatever the parameters; for one component."""
        ...

    def expect(self, observed: Any) -> tuple[float, Any]:
        """Log-likelihood of what `observe` returned, and expected statistics, under the parameters of one component."""
        ...


class FusedFamily(Family, Protocol):
    """A family with an E-step of its own for mixtures, which is faster than log-densities, posterior and statistics."""

    def prepare(self, X: Data, weights: Array | None = None) -> Any:
        """What the E-steps need of the data, whatever the parameters: made once for all of them."""
        ...

    def e_step(self, prepared: Any, log_weights: Array, *, n_threads: int | None = None) -> tuple[float, Any]:
        """Log-likelihood of the mixture and statistics under its responsibilities.

        ``log_weights`` (K,): logarithms of the probabilities of the components.
        """
        ...
