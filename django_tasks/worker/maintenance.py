"""Who removes what is no longer needed, and looks for what is gone?"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.db import DatabaseError
from django.utils import timezone

from django_tasks import databases
from django_tasks.exceptions import DjangoTasksError
from django_tasks.options import RNG
from django_tasks.results.base import ResultStore

_log = logging.getLogger("django_tasks.worker")

BATCH = 1000
INTERVAL = 60.0
PRESSING = 5.0
"""Seconds between two looks at what cannot wait so long."""


class Maintenance(threading.Thread):
    """Prunes expired results and old records in small batches, about once a minute. What is pressing it does every few
    seconds, for as long as there is anything.

    Every worker does it: what one has removed the next does not find, and the times are scattered. It begins with a
    watch for losses, and keeps that each time.
    """

    def __init__(
        self,
        store: ResultStore,
        chores: list[Callable[[], int]],
        pressing: Callable[[], int] = lambda: 0,
        *,
        watch: Callable[[], object] = bool,
        interval: float = INTERVAL,
    ) -> None:
        super().__init__(name="maintenance", daemon=True)
        self.store = store
        self.chores = chores
        self.pressing = pressing
        self.watch = watch
        self.interval = interval
        self._stop_asked = threading.Event()

    def run(self) -> None:
        self._attempt(self.watch)
        databases.close_all()
        due = time.monotonic() + _scattered(self.interval)
        while not self._stop_asked.wait(_scattered(min(self.interval, PRESSING))):
            self._attempt(self.press)
            if time.monotonic() >= due:
                self._attempt(self.watch)
                self._attempt(self.sweep)
                databases.close_all()
                due = time.monotonic() + _scattered(self.interval)
        databases.close_all()

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except (DjangoTasksError, DatabaseError) as error:
            _log.warning("Maintenance failed; trying again later", extra={"error": str(error)})
            databases.close_all()

    def press(self) -> int:
        """Do what is pressing until there is no more of it; return how much there was."""
        done = 0
        while not self._stop_asked.is_set() and (number := self.pressing()):
            done += number
        return done

    def sweep(self) -> int:
        """Remove all that is due; return how much."""
        removed = sum(chore() for chore in self.chores)
        expires = self.store.expires
        while expires is not None and not self._stop_asked.is_set():
            batch = self.store.expire(timezone.now() - expires, BATCH)
            removed += batch
            if batch < BATCH:
                break
        return removed

    def stop(self) -> None:
        """End the thread after the batch it is at."""
        self._stop_asked.set()
        if self.is_alive():
            self.join(timeout=5.0)


def _scattered(seconds: float) -> float:
    return seconds * RNG.uniform(0.5, 1.5)


def older_than(chore: Callable[..., int], age: timedelta | None) -> Callable[[], int]:
    """Return a chore that removes what is older than an age; one that removes nothing when there is none."""
    if age is None:
        return lambda: 0
    return lambda: chore(timezone.now() - age)
