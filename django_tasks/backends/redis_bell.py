"""How does a worker that waits hear that something arrived in Redis?"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event

from django_tasks.redis_servers import RedisFailed, Subscription

GLANCE = 0.2
"""Seconds after which `stop` is looked at, which cannot wake who listens to a socket."""

FLOOR = 2.0
"""Seconds after which a worker looks though it heard nothing: leases end without a word, and so do connections."""

ASLEEP = 60
"""Seconds for which the server knows after a look that somebody waits."""

PING = 30.0
"""Seconds between two signs of life that the connection must give."""

MARGIN = 0.001
"""Seconds by which a look comes too late rather than too soon."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a look at queues tells."""

    arrived: Sequence[bytes]
    """For each queue the time when something became ready last, or nothing."""
    due: float | None
    """Seconds until the next message of any of them is due."""


class Bell:
    """What a thread listens to while it waits; each thread has its own.

    A look makes ready what is due, asks when something became ready last, and leaves a note that somebody waits.
    Whoever makes something ready takes the note away and publishes the time; while it lies there nothing has come. So
    nobody is told who is busy, and nothing is missed between two waits.
    """

    def __init__(
        self,
        look: Callable[[Sequence[str]], Heard],
        subscribe: Callable[[], Subscription],
        channel: Callable[[str], bytes],
    ) -> None:
        self._ask = look
        self._subscribe = subscribe
        self._channel = channel
        self._subscription: Subscription | None = None
        self._queues: dict[bytes, str] = {}
        """The queues that were asked for last, by their channels."""
        self._seen: dict[str, bytes] = {}
        self._noted: set[str] = set()
        """Queues in which the note lies, as far as is known."""
        self._next_look = 0.0
        self._next_ping = math.inf
        self._due = math.inf

    def listen(self, queues: Sequence[str], seconds: float, stop: Event) -> bool:
        """Return True as soon as something became ready since the last call, False after so many seconds or at the
        stop."""
        deadline = time.monotonic() + seconds
        try:
            subscription = self._tuned(queues)
        except RedisFailed:
            # Whoever hears nothing looks.
            if self._look(queues):
                return True
            raise
        while self._subscription is subscription:
            now = time.monotonic()
            if now >= self._next_ping:
                subscription.ping()
                self._next_ping = now + PING
            if now >= min(self._next_look, self._due) or not self._noted.issuperset(queues):
                if self._look(queues):
                    return True
                now = time.monotonic()
            left = min(deadline, self._next_look, self._due) - now
            if self._rings(subscription.hear(max(0.0, min(left, GLANCE)))):
                return True
            if stop.is_set() or time.monotonic() >= deadline:
                return False
        return False

    def _tuned(self, queues: Sequence[str]) -> Subscription:
        """Return a subscription to the channels of these queues."""
        wanted = {self._channel(queue): queue for queue in queues}
        subscription = self._subscription
        if subscription is None or subscription.pid != os.getpid():
            subscription = self._subscription = self._subscribe()
            self._noted.clear()
            self._next_ping = time.monotonic() + PING
        subscription.subscribe(wanted)
        if wanted != self._queues:
            self._queues = wanted
            self._noted.clear()
        return subscription

    def _look(self, queues: Sequence[str]) -> bool:
        told = self._ask(queues)
        now = time.monotonic()
        self._noted.update(queues)
        # Workers that began together do not look together.
        self._next_look = now + FLOOR * random.uniform(0.8, 1.2)
        self._due = math.inf if told.due is None else now + told.due + MARGIN
        news = {queue: at for queue, at in zip(queues, told.arrived, strict=True) if at and at != self._seen.get(queue)}
        self._seen.update(news)
        return bool(news)

    def _rings(self, heard: Sequence[tuple[bytes, bytes]]) -> bool:
        """Take in what was heard; what was told late, and seen already by a look, is no news."""
        rings = False
        for channel, at in heard:
            queue = self._queues.get(channel)
            if queue is None:
                continue
            self._noted.discard(queue)
            if at > self._seen.get(queue, b""):
                self._seen[queue] = at
                rings = True
        return rings

    def close(self) -> None:
        """Let go of the connection, if there is one; the next call opens another."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
