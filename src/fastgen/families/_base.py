"""What structures may ask of a family, and nothing else: `Family`, and `IncompleteFamily` for EM on missing values."""

from collections.abc import Sequence
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
    def n_parameters(self) -> int:
        """Free parameters of all components together."""
        ...

    def log_density(self, X: ArrayLike, *, out: Data | None = None, n_threads: int | None = None) -> Data:
        """log p(x | component k), (n, K)."""
        ...

    def statistics(self, X: ArrayLike, weights: ArrayLike | None = None, *, n_threads: int | None = None) -> Any:
        """Statistics of X under weights (n, K), or (n,) for one component. None: all ones."""
        ...

    def maximise(self, statistics: Any) -> Self:
        """The family with the parameters that maximise the expected log-likelihood."""
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


class IncompleteFamily(Family, Protocol):
    """A family whose statistics depend on its parameters where values are missing (`Statistics.complete` is False)."""

    def observe(self, X: Data, weights: Array | None = None) -> Any:
        """What EM needs of the data, whatever the parameters; for one component."""
        ...

    def expect(self, observed: Any) -> tuple[float, Any]:
        """Log-likelihood of what `observe` returned, and expected statistics, under the parameters of one component."""
        ...
