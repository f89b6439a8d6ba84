"""How long does a worker leave a server alone that does not answer?"""

from __future__ import annotations

import logging
import time

from django_tasks.options import RNG

_log = logging.getLogger("django_tasks.worker")

FIRST, LONGEST = 0.2, 30.0
"""Seconds before the second try, and at most."""


class Backoff:
    """Pauses that double with each failure, and are scattered: workers that lost one server do not come back to it
    together."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def left(self) -> float:
        """Return the seconds until the server may be asked again; 0 when it may be now."""
        return max(0.0, self._until - time.monotonic())

    def failed(self, error: Exception) -> None:
        """Take note that it did not answer."""
        wait = min(LONGEST, FIRST * 2 ** min(self._failures, 8)) * RNG.uniform(0.5, 1.0)
        self._failures += 1
        self._until = time.monotonic() + wait
        _log.warning("The server does not answer; trying again", extra={"error": str(error), "wait": round(wait, 1)})

    def answered(self) -> None:
        """Take note that it did."""
        self._failures = 0
        self._until = 0.0

    def hurry(self) -> None:
        """Ask again now, whatever happened before."""
        self._until = 0.0
