"""How long does who waits for a server leave it alone when it did not answer?"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from threading import Event

from django_tasks.options import RNG

RECOVERY = 1.0
"""Seconds, on average."""


class Pause:
    """A rest after each failure, however short the waits are that it lasts for. It is scattered: those who lost one
    server together do not come back to it together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, rng: random.Random = RNG) -> None:
        self._clock = clock
        self._rng = rng
        self._until = 0.0

    @property
    def left(self) -> float:
        """Return the seconds until the server may be asked again; 0 when it may be now."""
        return max(0.0, self._until - self._clock())

    def begin(self) -> None:
        """Take note that it did not answer."""
        self._until = self._clock() + RECOVERY * self._rng.uniform(0.5, 1.5)

    def spend(self, seconds: float, stop: Event) -> bool:
        """Block until it is over, but for no more than so many seconds; return whether there was any of it left."""
        left = self.left
        if left:
            stop.wait(min(left, max(0.0, seconds)))
        return bool(left)
