"""How much more than it has free slots for should a worker fetch?"""

from __future__ import annotations

HORIZON = 0.1
"""Seconds of work to have at hand. It covers the time that the loop spends settling and fetching, so that no slot
stands idle meanwhile, and is short enough that nobody waits behind it for long."""

_WEIGHT = 0.2


class LookAhead:
    """Adapts how much is fetched ahead to the measured run time: hundreds of tasks of a tenth of a millisecond, none
    of a second."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._mean: float | None = None

    def observe(self, runtime: float) -> None:
        """Take note of how long a task ran, in seconds."""
        self._mean = runtime if self._mean is None else self._mean + _WEIGHT * (runtime - self._mean)

    def forget(self) -> None:
        """Start anew, without look-ahead: what was thought to be short turned out long."""
        self._mean = None

    def size(self, slots: int) -> int:
        """Return how many deliveries to have at hand beyond those that run; none before anything was measured."""
        if self._mean is None:
            return 0
        return min(self.limit, int(slots * HORIZON / max(self._mean, 1e-6)))
