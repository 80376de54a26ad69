"""Errors of this package. Each states what was wrong, what was expected, and the remedy."""

import numpy as np


class SingularCovarianceError(np.linalg.LinAlgError):
    """A covariance is not positive definite, or only so by rounding. A ``ValueError``.

    Attributes
    ----------
    component : int
        Which one, 0 for the first.
    reason : str
        What is wrong with it.
    """

    def __init__(self, component: int, reason: str, subject: str, remedy: str) -> None:
        super().__init__(component, reason, subject, remedy)
        self.component = component
        self.reason = reason
        self.subject = subject
        self.remedy = remedy

    def about(self, subject: str) -> "SingularCovarianceError":
        """The same error, of a covariance that goes by another name where the user sees it."""
        return SingularCovarianceError(self.component, self.reason, subject, self.remedy)

    def __str__(self) -> str:
        return f"{self.subject} is not positive definite: {self.reason}. {self.remedy}"
