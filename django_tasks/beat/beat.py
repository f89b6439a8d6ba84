"""Who looks at the clock, again and again?"""

from __future__ import annotations

import logging
import os
import platform
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import DatabaseError
from django.utils import timezone

from django_tasks import databases
from django_tasks.beat.clock import server_time
from django_tasks.beat.entries import synchronize
from django_tasks.beat.outcomes import prune
from django_tasks.beat.tick import BATCH, Ticked, next_due, set_aside, tick
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, ConfigurationError, DjangoTasksError, PublishError
from django_tasks.models import BeatNode
from django_tasks.options import RNG
from django_tasks.transactions import retrying
from django_tasks.version import VERSION
from django_tasks.worker.backoff import Backoff

_log = logging.getLogger("django_tasks.beat")

MAX_INTERVAL = 1.0
"""Seconds between two looks, at most: so soon a change of a row counts."""
PRESENCE = 5.0
"""Seconds between two words that this beat is alive."""
PRUNING = 60.0
STALE = timedelta(days=1)

Clock = Callable[[], datetime]


class Beat(threading.Thread):
    """Sends periodic tasks, as a thread of a worker or, with `run`, of its own process.

    Any number may run; there is no leader. Each takes rows that no other is at.
    """

    def __init__(
        self,
        using: str,
        *,
        name: str,
        max_interval: float = MAX_INTERVAL,
        history: timedelta | None = None,
        clock: Clock | None = None,
        rng: random.Random = RNG,
    ) -> None:
        super().__init__(name="beat", daemon=True)
        self.using = using
        self.node = name
        self.max_interval = max_interval
        self.history = history
        self.published = 0
        self._clock = clock or (lambda: server_time(using))
        self._rng = rng
        self._stop_asked = threading.Event()
        self._backoff = Backoff()
        self._started_at = timezone.now()
        self._told = self._pruned = -float("inf")

    def run(self) -> None:
        synchronized = False
        while not self._stop_asked.is_set():
            try:
                if not synchronized:
                    synchronize(self.using)
                    synchronized = True
                pause = self.once()
                self._backoff.answered()
            except (DatabaseError, DjangoTasksError) as error:
                self._backoff.failed(error)
                pause = self._backoff.left
            self._stop_asked.wait(pause)
        databases.close_all()

    def once(self) -> float:
        """Send all that is due; return how many seconds to rest.

        Raises a database's error, PublishError or BrokerUnavailable; what was not sent then is due still.
        """
        while True:
            now = self._clock()
            ticked = self._tick(now)
            self.published += ticked.published
            if ticked.rows < BATCH or self._stop_asked.is_set():
                break
        self._keep_up()
        due = next_due(self.using)
        left = self.max_interval if due is None else (due - self._clock()).total_seconds()
        return max(0.0, min(self.max_interval, left))

    def _tick(self, now: datetime) -> Ticked:
        try:
            return tick(self.using, now, rng=self._rng)
        except (BrokerUnavailable, BrokerFull):
            raise
        except (PublishError, ConfigurationError) as error:
            _log.warning("Periodic tasks are sent one by one, since not all can be", extra={"error": str(error)})
        try:
            return tick(self.using, now, limit=1, rng=self._rng)
        except (BrokerUnavailable, BrokerFull):
            raise
        except (PublishError, ConfigurationError) as error:
            return set_aside(self.using, now, error)

    def _keep_up(self) -> None:
        moment = time.monotonic()
        if moment - self._told >= PRESENCE:
            self._told = moment
            self._be_seen()
        if moment - self._pruned >= PRUNING:
            self._pruned = moment
            prune(self.using, self.history)
            BeatNode.objects.using(self.using).filter(ticked_at__lt=timezone.now() - STALE).delete()

    def _be_seen(self) -> None:
        said = {
            "host": platform.node(),
            "pid": os.getpid(),
            "version": VERSION,
            "started_at": self._started_at,
            "ticked_at": timezone.now(),
            "published": self.published,
        }
        nodes = BeatNode.objects.using(self.using)
        retrying(self.using, lambda: nodes.update_or_create(name=self.node, defaults=said))

    def stop(self) -> None:
        """End after the tick it is at."""
        self._stop_asked.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(timeout=5.0)

    def leave(self) -> None:
        """Take its row away: it has ended as it should."""
        own = BeatNode.objects.using(self.using).filter(name=self.node, pid=os.getpid())
        retrying(self.using, own.delete)
