"""Who waits for messages while the worker's loop has nothing to do?"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from django_tasks import databases
from django_tasks.backends.base import Broker
from django_tasks.exceptions import PublishError
from django_tasks.options import RNG

_log = logging.getLogger("django_tasks.broker")

SLICE = 0.25
"""Seconds that the broker is asked to wait at once: what the loop learns meanwhile of what is due next, a wait that is
under way may not know."""


class Listener(threading.Thread):
    """Waits on the broker, and rings when a fetch is worth it: when it says so, and every `poll` seconds at the
    latest, since a wake-up is only ever a hint."""

    def __init__(self, broker: Broker, queues: Sequence[str], ring: Callable[[], None], *, poll: float) -> None:
        super().__init__(name="listener", daemon=True)
        self.broker = broker
        self.queues = queues
        self.ring = ring
        self.poll = poll
        self._wanted = threading.Event()
        self._stop_asked = threading.Event()

    def want(self) -> None:
        """Ask for one ring; the loop does so when it has looked and found nothing."""
        self._wanted.set()

    def run(self) -> None:
        failures = 0
        while not self._stop_asked.is_set():
            self._wanted.wait()
            self._wanted.clear()
            if self._stop_asked.is_set():
                break
            try:
                self._wait(self.poll * RNG.uniform(0.9, 1.1))
                failures = 0
            except PublishError as error:
                failures += 1
                _log.warning("Cannot listen to the broker; trying again", extra={"error": str(error)})
                self._stop_asked.wait(min(30.0, 0.5 * 2 ** min(failures, 6)) * RNG.uniform(0.5, 1.0))
            self.ring()
        databases.close_all()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._stop_asked.is_set():
            if self.broker.wait(self.queues, min(SLICE, left), self._stop_asked):
                return

    def stop(self) -> None:
        """End the thread."""
        self._stop_asked.set()
        self._wanted.set()
        if self.is_alive():
            self.join(timeout=2.0)
