"""Errors of this package. Each states what was wrong, what was expected, and the remedy."""

from typing import Any, Self

import numpy as np

__all__ = [
    "CollapsedComponentError",
    "ComponentError",
    "EmptyComponentError",
    "SingularCovarianceError",
    "UnobservedColumnError",
]


class ComponentError(ValueError):
    """One component (class, state) of a model cannot have the parameters that it would need.

    Attributes
    ----------
    component : int
        Which one, 0 for the first.
    reason : str
        What is wrong with it.
    subject : str
        What it is called where the user sees it.
    remedy : str
    """

    def __init__(self, component: int, reason: str, subject: str, remedy: str) -> None:
        super().__init__(component, reason, subject, remedy)
        self.component = component
        self.reason = reason
        self.subject = subject
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[Self], tuple[int, str, str, str]]:
        return type(self), (self.component, self.reason, self.subject, self.remedy)

    def of(self, whom: str, n_samples: int) -> Self:
        """Name what the component stands for, and how many samples it has; the error itself, to be raised again."""
        self.subject = f"{whom} ({n_samples} sample{'' if n_samples == 1 else 's'})"
        return self


class SingularCovarianceError(ComponentError, np.linalg.LinAlgError):
    """A covariance is not positive definite, or only so by rounding. A ``ValueError`` and a ``LinAlgError``."""

    def of(self, whom: str, n_samples: int) -> Self:
        """Name whose covariance it is."""
        return super().of(f"the covariance of {whom}", n_samples)

    def __str__(self) -> str:
        return f"{self.subject} is not positive definite: {self.reason}. {self.remedy}"


class UnobservedColumnError(ComponentError):
    """A column has no observed value, so nothing is known about it."""

    def __str__(self) -> str:
        return f"{self.reason} in {self.subject}. {self.remedy}"


class EmptyComponentError(ComponentError):
    """A component has no weight, so nothing is known about its parameters."""

    def __init__(
        self,
        component: int,
        reason: str = "nothing is known about its parameters",
        subject: str | None = None,
        remedy: str = "Use fewer components.",
    ) -> None:
        super().__init__(component, reason, subject or f"component {component}", remedy)

    def __str__(self) -> str:
        return f"{self.subject} has no weight: {self.reason}. {self.remedy}"


class CollapsedComponentError(SingularCovarianceError):
    """Components of a mixture collapsed onto too few samples."""

    def __init__(self, component: int, text: str) -> None:
        super().__init__(component, text, "", "")

    def __reduce__(self) -> Any:
        return type(self), (self.component, self.reason)

    def __str__(self) -> str:
        return self.reason
