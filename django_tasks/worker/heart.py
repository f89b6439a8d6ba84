"""How do a worker's leases stay its own while tasks run?"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from django.db import DatabaseError

from django_tasks import databases
from django_tasks.backends.base import Broker
from django_tasks.connections import home
from django_tasks.exceptions import DjangoTasksError
from django_tasks.message import Delivery
from django_tasks.options import RNG
from django_tasks.transactions import explain
from django_tasks.worker.holdings import Holdings

_log = logging.getLogger("django_tasks.worker")


class Heart(threading.Thread):
    """Renews leases and shows that the worker is alive, every `interval` seconds.

    Only leases that are older than a third are renewed, so that short tasks cost nothing here.
    """

    def __init__(
        self,
        broker: Broker,
        holdings: Holdings,
        *,
        lease: float,
        interval: float,
        on_lost: Callable[[Sequence[Delivery]], None],
        on_beat: Callable[[], None],
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self.broker = broker
        self.holdings = holdings
        self.lease = lease
        self.interval = interval
        self.on_lost = on_lost
        self.on_beat = on_beat
        self.last_beat = time.monotonic()
        self._stop_asked = threading.Event()
        self._failures = 0

    @property
    def overdue(self) -> bool:
        """Tell whether leases may have run out unseen: this process stood still, or the broker did not answer."""
        return time.monotonic() - self.last_beat > self.lease * 2 / 3

    def run(self) -> None:
        # The first beat shows the worker at once.
        wait = 0.0
        while not self._stop_asked.wait(wait):
            wait = self.beat()
        databases.close_all()

    def beat(self) -> float:
        """Renew what is due and return the seconds until the next beat: fewer when the broker did not answer."""
        try:
            now = time.monotonic()
            self.renew(now)
            self.last_beat = now
            self.on_beat()
        except (DjangoTasksError, DatabaseError) as error:
            self._failed(error)
            return min(1.0, self.interval)
        self._failures = 0
        # Workers that were started together must not beat together for ever.
        return self.interval * RNG.uniform(0.9, 1.0)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        # Less and less often: the loop says the same, and an outage may last for hours.
        if self._failures & (self._failures - 1) == 0:
            said = explain(home(), error) if isinstance(error, DatabaseError) else str(error)
            _log.warning("Heartbeat failed; trying again", extra={"error": said, "failures": self._failures})

    def renew(self, now: float) -> None:
        """Renew the leases that are due and tell of those that are lost."""
        due = self.holdings.due(now - self.lease / 3)
        if not due:
            return
        kept = self.broker.extend(due, self.lease)
        self.holdings.renew(kept, now)
        still = set(map(id, kept))
        # What was settled while the broker was asked is no longer held, and nothing of it is lost.
        lost = [delivery for delivery in due if id(delivery) not in still and delivery in self.holdings]
        if lost:
            self.on_lost(lost)

    def stop(self) -> None:
        """End the thread after the beat it is in."""
        self._stop_asked.set()
        if self.is_alive():
            self.join(timeout=self.interval)
