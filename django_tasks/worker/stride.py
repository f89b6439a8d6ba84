"""How much should be asked of a server at once, when the way to it may be slow?"""

from __future__ import annotations

QUICK = 0.2
"""Seconds within which a failure has nothing to do with the size of what was sent: nobody was there."""


class Stride:
    """Adapts the size of batches to a slow link: one that takes longer than somebody waits for it would fail, or come
    too late, each time that it is tried."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = most
        """At most how many to ask for now; at least one."""

    def failed(self, number: int, seconds: float) -> None:
        """Take note that a batch of so many was given up after so many seconds: the next one has half of that."""
        if seconds > QUICK:
            self.size = max(1, min(self.size, number // 2))

    def went(self, number: int, seconds: float = 0.0, *, within: float = 1.0) -> None:
        """Take note that a batch of so many took so many seconds: the next one may have twice as many, or no more than
        would have taken the seconds `within` which it was wanted."""
        if number and seconds > within:
            self.size = max(1, min(self.size, int(number * within / seconds)))
        else:
            self.size = min(self.most, 2 * self.size)
