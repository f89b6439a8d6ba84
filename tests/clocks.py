"""What time is it, when a test says so?"""

from __future__ import annotations

import time


class TurnedClock:
    """A clock that begins at the real time, stands still, and goes on when it is turned."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds
