"""Whose are connections after a fork? The process's that made them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_inherited: list[object] = []
"""What a process has from the one that forked it. It is kept, so that nobody closes what is in use over there."""


class Own(Generic[T]):
    """Something that each process makes for itself when it first asks; any thread may."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        made = self._made
        if made is not None and made[0] == os.getpid():
            return made[1]
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                if self._made is not None:
                    _inherited.append(self._made)
                self._made = os.getpid(), self._make()
            return self._made[1]

    def made(self) -> T | None:
        """Return what this process has made, if it has."""
        made = self._made
        return made[1] if made is not None and made[0] == os.getpid() else None

    def part(self) -> T | None:
        """Return what this process has made, if it has, and make another when next asked."""
        with self._lock:
            made = self.made()
            if made is not None:
                self._made = None
            return made
