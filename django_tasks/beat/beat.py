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

from django.db import DataError, Error, connections
from django.utils import timezone

from django_tasks import databases
from django_tasks.beat.clock import server_time
from django_tasks.beat.entries import synchronize
from django_tasks.beat.outcomes import prune
from django_tasks.beat.tick import BATCH, Ticked, latest, next_due, plan_anew, set_aside, tick
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, DjangoTasksError, PublishError
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
CONTENDED = 0.1
"""Seconds until a beat looks again that found all that is due in the hands of others."""
SET_BACK = timedelta(seconds=60)
"""A clock that is this far behind what it was has been set back, and is not the one of a server that took over."""

_ROWS_FAULT = (PublishError, DataError, ValueError)
"""What is said of a message rather than of a server."""

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
        self.died: Callable[[], object] = bool
        """Called in its thread when it ends without having been told to."""
        self._stop_asked = threading.Event()
        self._backoff = Backoff()
        self._limit = BATCH
        self._latest: datetime | None = None
        self._started_at = timezone.now()
        self._told = self._pruned = -float("inf")

    def run(self) -> None:
        try:
            self._look_again_and_again()
        finally:
            databases.close_all()
            if not self._stop_asked.is_set():
                self.died()

    def _look_again_and_again(self) -> None:
        synchronized = False
        while not self._stop_asked.is_set():
            try:
                if not synchronized:
                    synchronize(self.using)
                    synchronized = True
                pause = self.once()
                self._backoff.answered()
            except (Error, DjangoTasksError) as error:
                self._backoff.failed(error)
                pause = self._backoff.left
                # It may be one that the server has closed, and no request ends here to replace it.
                databases.discard(connections[self.using])
            self._stop_asked.wait(pause)

    def once(self) -> float:
        """Send all that is due; return how many seconds to rest.

        Raises a database's error, PublishError or BrokerUnavailable; what was not sent then is due still.
        """
        pause = self.max_interval
        while not self._stop_asked.is_set():
            now = self._clock()
            self._notice(now)
            due = next_due(self.using)
            if due is None or due > now:
                pause = pause if due is None else min(pause, (due - now).total_seconds())
                break
            ticked = self._tick(now)
            self.published += ticked.published
            if not ticked.rows:
                pause = min(pause, CONTENDED)
                break
        self._keep_up()
        return pause

    def _notice(self, now: datetime) -> None:
        """See whether the clock was set back: until it is where it was, nothing would be due."""
        before = latest(self.using) if self._latest is None else self._latest
        if before is not None and before - now > SET_BACK:
            number = plan_anew(self.using, now)
            back = round((before - now).total_seconds())
            _log.warning("The clock was set back; periodic tasks are planned anew", extra={"by": back, "rows": number})
        self._latest = now

    def _tick(self, now: datetime) -> Ticked:
        """Tick; when one message spoils it for all, with ever fewer rows until that one stands alone."""
        while True:
            try:
                ticked = tick(self.using, now, limit=self._limit, rng=self._rng)
            except (BrokerUnavailable, BrokerFull):
                raise
            except _ROWS_FAULT as error:
                if self._limit == 1:
                    return set_aside(self.using, now, error)
                if self._limit == BATCH:
                    _log.warning("Some periodic tasks cannot be sent; looking for them", extra={"error": str(error)})
                self._limit = max(1, self._limit // 2)
            else:
                self._limit = min(BATCH, self._limit * 2)
                return ticked

    def _keep_up(self) -> None:
        moment = time.monotonic()
        if moment - self._told >= PRESENCE:
            self._told = moment
            self._be_seen()
        if moment - self._pruned >= PRUNING:
            self._pruned = moment
            while prune(self.using, self.history) and not self._stop_asked.is_set():
                pass
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
