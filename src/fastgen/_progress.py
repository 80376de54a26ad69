"""Progress of long fits, through the logger ``fastgen``."""

import logging
import sys
from collections.abc import Callable
from time import monotonic

logger = logging.getLogger("fastgen")


class _Stdout(logging.Handler):
    """Writes to whatever sys.stdout is at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record) + "\n")


def _audible() -> None:
    """Have messages shown even where the program has not set up logging."""
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(_Stdout())


class Progress:
    """Reports each start and every ``interval``-th iteration; silent if ``verbose`` is 0."""

    def __init__(self, verbose: int, interval: int) -> None:
        self._verbose = int(verbose)
        self._interval = interval
        self._began = monotonic()
        if self._verbose:
            _audible()

    def start(self, number: int, of: int) -> None:
        """Begin start ``number``."""
        if self._verbose:
            logger.info("start %d of %d", number + 1, of)

    @property
    def iteration(self) -> Callable[[int, float, float], None] | None:
        """What `fastgen._em.expectation_maximisation` calls after each iteration."""
        return self._iteration if self._verbose else None

    def _iteration(self, number: int, objective: float, gain: float) -> None:
        if number % self._interval:
            return
        if self._verbose == 1:
            logger.info("  iteration %d: objective %.6g", number, objective)
        else:
            logger.info(
                "  iteration %d: objective %.10g, gain %.3g, %.2f s", number, objective, gain, monotonic() - self._began
            )

    def end(self, reason: str, n_iter: int, objective: float) -> None:
        """Say how a start ended."""
        if self._verbose:
            logger.info(
                "  %s after %d iterations, %.2f s: objective %.10g",
                reason,
                n_iter,
                monotonic() - self._began,
                objective,
            )
