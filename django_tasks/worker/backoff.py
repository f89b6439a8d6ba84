"""How long does a worker leave a server alone that does not answer?"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable

from django_tasks.options import RNG

_log = logging.getLogger("django_tasks.worker")

SHARE = 0.05
"""How much longer than it was an outage may seem to a worker, at most: a server that was restarted is found again at
once, and one that is down for an hour costs nothing."""
SHORTEST, LONGEST = 0.2, 30.0
"""Seconds between two tries, at first and at most, before they are scattered."""
SILENCE, LONGEST_SILENCE = 1.0, 60.0
"""Seconds between two lines in the log, at least; as long as it has lasted so far, but no longer than a minute."""


class Backoff:
    """Pauses that grow with an outage, and are scattered: workers that lost one server do not come back to it
    together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, rng: random.Random = RNG) -> None:
        self._clock = clock
        self._rng = rng
        self._failures = 0
        self._since = 0.0
        self._until = 0.0
        self._silent_until = -math.inf

    @property
    def left(self) -> float:
        """Return the seconds until the server may be asked again; 0 when it may be now."""
        return max(0.0, self._until - self._clock())

    def failed(self, error: Exception) -> None:
        """Take note that it did not answer."""
        now = self._clock()
        if not self._failures:
            self._since = now
        self._failures += 1
        lasted = now - self._since
        wait = min(LONGEST, max(SHORTEST, SHARE * lasted)) * self._rng.uniform(0.5, 1.0)
        self._until = now + wait
        # Not taken back when it answers: what fails and succeeds by turns must not fill the log either.
        if now >= self._silent_until:
            self._silent_until = now + min(LONGEST_SILENCE, max(SILENCE, lasted))
            _log.warning(
                "The server does not answer; trying again",
                extra={"error": str(error), "wait": round(wait, 1), "failures": self._failures},
            )

    def answered(self) -> None:
        """Take note that it did."""
        self._failures = 0
        self._until = 0.0

    def hurry(self) -> None:
        """Ask again now, whatever happened before."""
        self._until = 0.0
