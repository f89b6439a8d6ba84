"""Where do messages wait while one process is all there is?

The readable reference of what a broker does: every other one must look like this from outside.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from threading import Event
from typing import Any, ClassVar

from django_tasks.backends.base import Broker, Features, QueueStats
from django_tasks.exceptions import PublishError
from django_tasks.message import Clock, Delivery, Enqueue, Message

GLANCE = 0.1
"""Seconds that `wait` sleeps at most before it looks at `stop`, which cannot wake it, and at the clock, which may
be one that a test turns."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A message in its queue, and what became of it so far."""

    number: int
    """Its place in the order of publication; kept when the message comes back."""
    message: Message
    visible_at: float
    """The end of its delay or of its lease; once it is ready, the time since when it has been."""
    deliveries: int = 0
    token: int | None = None
    """The proof of the lease, fresh at each claim."""

    @property
    def rank(self) -> tuple[int, int]:
        return -self.message.priority, self.number


class MemoryBroker(Broker):
    """Keeps messages in this process: for tests, and for a site whose worker is a thread of it.

    Another process, a child that a pool forks included, has queues of its own, and all are gone when it ends. Every
    method may be called from any thread.
    """

    enqueue: ClassVar[Enqueue] = "immediate"
    private = True
    features: ClassVar[Features] = Features(wakeups=True)

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        self._changed = threading.Condition()
        self._numbers = count(1)
        self._turn = 0
        self._entries: dict[int, _Entry] = {}
        self._ids: dict[str, int] = {}
        self._ready: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """Of each queue the (rank, number) of what may be taken now, sorted."""
        self._due: list[tuple[float, int]] = []
        """The (time, number) of everything else, sorted: the ends of delays and of leases."""
        self._arrivals: Counter[str] = Counter()
        self._seen = threading.local()

    def publish(self, messages: Sequence[Message]) -> None:
        copies = [_copy(message) for message in messages]
        with self._changed:
            now = self.clock()
            for message in copies:
                if message.id not in self._ids:
                    self._add(message, now)

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        with self._changed:
            now = self.clock()
            self._promote(now)
            taken = sorted(self._pick(queues, limit))
            return [self._claim(self._entries[number], now + lease) for _, number in taken]

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        with self._changed:
            held = []
            for delivery in deliveries:
                if entry := self._held(delivery):
                    self._remove(entry)
                    held.append(delivery)
            return held

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        with self._changed:
            now = self.clock()
            held = []
            for delivery in deliveries:
                if entry := self._held(delivery):
                    entry.deliveries -= 0 if spent else 1
                    self._take_out(entry)
                    self._place(entry, now + max(0.0, delay), now)
                    held.append(delivery)
            return held

    def replace(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        copies = [(delivery, _copy(message)) for delivery, message in pairs]
        with self._changed:
            return super().replace(copies)

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        with self._changed:
            until = self.clock() + lease
            held = []
            for delivery in deliveries:
                if entry := self._held(delivery):
                    self._take_out(entry)
                    self._put_off(entry, until)
                    held.append(delivery)
            return held

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        """Block until something arrived in one of the queues since the last `wait` of this thread returned.

        What arrived in between counts, so nothing is missed; what lies there since longer does not, so a worker
        that has no free slot is not woken over and over.
        """
        names = tuple(queues)
        seen: dict[tuple[str, ...], list[int]] = self._seen.__dict__.setdefault("marks", {})
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                self._promote(self.clock())
                marks = [self._arrivals[queue] for queue in names]
                if marks != seen.get(names, [0] * len(names)):
                    seen[names] = marks
                    return not stop.is_set()
                left = deadline - time.monotonic()
                if left <= 0 or stop.is_set():
                    return False
                self._changed.wait(min(left, GLANCE, self._until_due()))

    def stats(self, queues: Sequence[str] = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        with self._changed:
            now = self.clock()
            entries: defaultdict[str, list[_Entry]] = defaultdict(list)
            for entry in self._entries.values():
                entries[entry.message.queue].append(entry)
            return [_standing(queue, entries[queue], now, ceiling) for queue in queues or sorted(entries)]

    def purge(self, queue: str) -> int:
        with self._changed:
            idle = [entry for entry in self._entries.values() if entry.message.queue == queue and entry.token is None]
            for entry in idle:
                self._remove(entry)
            return len(idle)

    def discard(self, ids: Sequence[str]) -> list[Message]:
        with self._changed:
            entries = [self._entries[self._ids[task_id]] for task_id in dict.fromkeys(ids) if task_id in self._ids]
            idle = [entry for entry in entries if entry.token is None]
            for entry in idle:
                self._remove(entry)
            return [entry.message for entry in idle]

    def peek(self, queue: str, limit: int) -> list[Message]:
        """Return what may be taken now in the order of `fetch`, and then what is delayed in the order of its time."""
        with self._changed:
            now = self.clock()
            waiting = [
                entry
                for entry in self._entries.values()
                if entry.message.queue == queue and (entry.token is None or entry.visible_at <= now)
            ]
            waiting.sort(key=lambda entry: (max(now, entry.visible_at), entry.rank))
            return [_copy(entry.message) for entry in waiting[: max(0, limit)]]

    def _add(self, message: Message, now: float) -> None:
        if message.created_at is None:
            message = replace(message, created_at=datetime.fromtimestamp(now, UTC))
        entry = _Entry(next(self._numbers), message, now)
        self._entries[entry.number] = entry
        self._ids[message.id] = entry.number
        self._place(entry, _visible_at(message, now), now)

    def _pick(self, queues: Sequence[str], limit: int) -> list[tuple[int, int]]:
        """Take the best out of each queue; another one is looked at first each time, so that none starves."""
        names = list(dict.fromkeys(queues))
        self._turn += 1
        first = self._turn % len(names) if names else 0
        taken: list[tuple[int, int]] = []
        for queue in names[first:] + names[:first]:
            ready = self._ready[queue]
            share = max(0, limit - len(taken))
            taken += ready[:share]
            del ready[:share]
        return taken

    def _claim(self, entry: _Entry, until: float) -> Delivery:
        entry.token = secrets.randbits(63)
        entry.deliveries += 1
        self._put_off(entry, until)
        return Delivery(_copy(entry.message), (entry.number, entry.token), entry.deliveries)

    def _promote(self, now: float) -> None:
        """Make ready what is due. A lease that ran out is lost here and no sooner: until then nobody else can have
        the message, so its holder may still ack it.
        """
        end = bisect_right(self._due, (now, math.inf))
        due, self._due[:end] = self._due[:end], []
        for visible_at, number in due:
            self._place(self._entries[number], visible_at, now)

    def _held(self, delivery: Delivery) -> _Entry | None:
        number, token = delivery.receipt
        entry = self._entries.get(number)
        return entry if entry is not None and entry.token == token else None

    def _place(self, entry: _Entry, visible_at: float, now: float) -> None:
        """Put an entry that stands nowhere, and that nobody holds from now on, where its time says."""
        entry.token = None
        if visible_at > now:
            self._put_off(entry, visible_at)
        else:
            entry.visible_at = visible_at
            insort(self._ready[entry.message.queue], entry.rank)
            self._arrivals[entry.message.queue] += 1
        self._changed.notify_all()

    def _put_off(self, entry: _Entry, until: float) -> None:
        entry.visible_at = until
        insort(self._due, (until, entry.number))

    def _take_out(self, entry: _Entry) -> None:
        ready = self._ready[entry.message.queue]
        place = bisect_left(ready, entry.rank)
        if place < len(ready) and ready[place] == entry.rank:
            del ready[place]
        else:
            del self._due[bisect_left(self._due, (entry.visible_at, entry.number))]

    def _remove(self, entry: _Entry) -> None:
        self._take_out(entry)
        del self._entries[entry.number]
        del self._ids[entry.message.id]

    def _until_due(self) -> float:
        return max(0.0, self._due[0][0] - self.clock()) if self._due else GLANCE


def _visible_at(message: Message, now: float) -> float:
    if message.countdown is not None:
        return now + max(0.0, message.countdown)
    return now if message.eta is None else max(now, message.eta.timestamp())


def _standing(queue: str, entries: Sequence[_Entry], now: float, ceiling: int) -> QueueStats:
    """Count entries as `fetch` would find them, without changing any."""
    ready = [entry for entry in entries if entry.visible_at <= now]
    leased = sum(entry.token is not None for entry in entries if entry.visible_at > now)
    return QueueStats(
        queue=queue,
        ready=min(len(ready), ceiling),
        delayed=min(len(entries) - len(ready) - leased, ceiling),
        leased=min(leased, ceiling),
        oldest=max((now - entry.visible_at for entry in ready), default=0.0),
    )


def _copy(message: Message) -> Message:
    """Return a message whose headers nobody else can change, as if it had been to a server and back."""
    if not message.headers:
        return message
    try:
        return replace(message, headers=deepcopy(dict(message.headers)))
    except (TypeError, ValueError, RecursionError) as error:
        raise PublishError(f"The headers of {message.task}[{message.id}] cannot be sent: {error}") from error
