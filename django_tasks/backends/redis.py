"""Where do messages wait when a Redis keeps them?"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any, ClassVar

from django.core.checks import CheckMessage

from django_tasks.backends.base import Broker, Features, Mark, QueueStats
from django_tasks.backends.lua import SCRIPTS
from django_tasks.backends.redis_bell import ASLEEP, Bell, Heard
from django_tasks.backends.redis_entries import (
    TOKEN,
    base_of,
    bounded,
    by_queue,
    deliveries_of,
    mark_of,
    messages_of,
    packed,
    published,
    rank_of,
    runs,
    to_bytes,
    to_text,
)
from django_tasks.diagnosis import Diagnosis, ahead
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, ConfigurationError
from django_tasks.message import Clock, Delivery, Message
from django_tasks.pause import Pause
from django_tasks.redis_fitness import evicts, examine, found_wrong, is_old, keeps_nothing, unfit_for_messages
from django_tasks.redis_servers import OPTIONS, Redis, RedisFailed, Script, check_options, key_prefix

_log = logging.getLogger("django_tasks.broker")

MESSAGES, BYTES = 20_000, 64 << 20
"""How much one script takes: a server does nothing else meanwhile."""

IDS = 10_000
"""How many ids, or messages to be removed, one script names."""

REGISTERED = 60.0
"""Seconds for which a process remembers that it has told a cluster of a queue."""

Receipt = tuple[str, bytes]
"""The name of a queue; and token, rank and id."""


class RedisBroker(Broker):
    """Keeps messages in a Redis: each verb is one script, whatever the number of messages and queues.

    All times are the server's. A lease that ran out is lost when a fetch or a wait notices, and no sooner. On a cluster
    each queue lives on one node: there a verb is one script a queue, an id is known once in each, and a task whose next
    attempt goes to another queue is there twice if a crash comes between the two.

    `OPTIONS`: `KEY_PREFIX` begins the names of all keys and channels ("django_tasks"); `CONNECTION` are further
    arguments of a connection of redis-py; `SENTINEL` those of the connections to sentinels.
    """

    features: ClassVar[Features] = Features(wakeups=True, marks=True)

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        where = f"The Redis broker {alias!r}"
        check_options(self.options, OPTIONS, where)
        self.prefix = key_prefix(self.options, where)
        self._where = where
        self._redis = Redis(self.location, self.options)
        self._turn = 0
        self._fit = False
        self._deaf = False
        """Whether it was said that waiting is looking."""
        self._registered: dict[str, float] = {}
        self._own = threading.local()
        self._bells: weakref.WeakSet[Bell] = weakref.WeakSet()

    # Moving messages

    def publish(self, messages: Sequence[Message]) -> None:
        """Queue messages; those that are queued already stay as they are, so that this may be repeated.

        More than 20,000, or 64 MiB, are sent in pieces; if the server refuses one, those before it are taken back.
        """
        entries = [(message, packed(message)) for message in messages]
        sent: list[str] = []
        with self._asking(full=BrokerFull):
            for piece in _pieces(entries):
                try:
                    sent += self._publish(piece)
                except RedisFailed:
                    self.discard(sent)
                    raise

    def _publish(self, entries: Sequence[tuple[Message, bytes]]) -> list[str]:
        """Send messages; return the ids of those that were not there before."""
        new: list[str] = []
        for queues in self._together(message.queue for message, _ in entries):
            places = {queue: place for place, queue in enumerate(queues, start=1)}
            args: list[Any] = self._names(queues)
            mine = [entry for entry in entries if entry[0].queue in places]
            args += runs(mine, places)
            flags = self._run(SCRIPTS["publish"], queues, args)
            new += [message.id for (message, _), flag in zip(mine, flags, strict=True) if flag == YES]
        return new

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        """Lease messages, of one queue after the other; another one comes first each time, so that none starves.

        When the answer is lost on the way, what was leased is asked for once more under the same token.
        """
        names = list(dict.fromkeys(queues))
        if not names or limit <= 0:
            return []
        self._turn += 1
        first = self._turn % len(names)
        token = secrets.token_hex(TOKEN // 2).encode()
        found: list[tuple[bytes, Delivery]] = []
        with self._asking():
            if not self._fit:
                self._be_fit()
            for part in self._together(names[first:] + names[:first]):
                args = [limit - len(found), lease * 1000, token]
                before = self.clock()
                *replies, told = self._run(SCRIPTS["fetch"], part, [*args, 0], again=[*args, 1])
                off = ahead(int(told) / 1e6, before, self.clock())
                for queue, reply in zip(part, replies, strict=True):
                    found += deliveries_of(reply, queue, token, off)
                if len(found) >= limit:
                    break
        found.sort(key=_rank)
        return [delivery for _, delivery in found]

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return self._change(SCRIPTS["ack"], deliveries)

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        return self._change(SCRIPTS["nack"], deliveries, bounded(delay) * 1000, int(spent))

    def replace(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        """Do both in one script: no crash can take a task's next attempt away."""
        entries = [(delivery, message, packed(message)) for delivery, message in pairs]
        if self._redis.clustered:
            apart = [(one, message) for one, message, _ in entries if message.queue != one.receipt[0]]
            if apart:
                moved = set(map(id, self._move(apart)))
                entries = [entry for entry in entries if entry[1].queue == entry[0].receipt[0]]
                moved.update(map(id, self._replace(entries)))
                return [delivery for delivery, _ in pairs if id(delivery) in moved]
        return self._replace(entries)

    def _replace(self, entries: Sequence[tuple[Delivery, Message, bytes]]) -> list[Delivery]:
        held: set[int] = set()
        with self._asking(full=BrokerFull):
            for queues in self._together(q for one, message, _ in entries for q in (one.receipt[0], message.queue)):
                places = {queue: place for place, queue in enumerate(queues, start=1)}
                args: list[Any] = self._names(queues)
                mine = [entry for entry in entries if entry[0].receipt[0] in places]
                for delivery, message, body in mine:
                    queue, receipt = delivery.receipt
                    args += (places[queue], receipt, places[message.queue], *published(message, body))
                flags = self._run(SCRIPTS["replace"], queues, args)
                held.update(id(entry[0]) for entry, flag in zip(mine, flags, strict=True) if flag == YES)
        return [delivery for delivery, _, _ in entries if id(delivery) in held]

    def _move(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        """Replace messages by ones that belong on another node of a cluster."""
        held = self.extend([delivery for delivery, _ in pairs], MOVING)
        still = set(map(id, held))
        self.publish([message for delivery, message in pairs if id(delivery) in still])
        return self.ack(held)

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        return self._change(SCRIPTS["extend"], deliveries, lease * 1000)

    def _change(self, script: Script, deliveries: Sequence[Delivery], *args: Any) -> list[Delivery]:
        """Run a script over receipts; return the deliveries that were held."""
        if not deliveries:
            return []
        receipts: list[Receipt] = [delivery.receipt for delivery in deliveries]
        places = by_queue(receipts)
        held: list[int] = []
        with self._asking():
            for queues in self._together(places):
                words: list[Any] = list(args)
                for queue in queues:
                    words += (len(places[queue]), *(receipts[place][1] for place in places[queue]))
                flags = self._run(script, queues, words)
                asked = [place for queue in queues for place in places[queue]]
                held += [place for place, flag in zip(asked, flags, strict=True) if flag == YES]
        return [deliveries[place] for place in sorted(held)]

    # Waiting

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        """Block until something became ready since this thread's last wait.

        While the server does not answer, nothing has arrived; that it does not is for `fetch` to say.
        """
        deadline = time.monotonic() + timeout
        names = list(dict.fromkeys(queues))
        bell, pause = self._bell(), self._pause()
        while names and not stop.is_set():
            left = deadline - time.monotonic()
            try:
                if not pause.spend(left, stop) and bell.listen(names, max(0.0, left), stop):
                    return not stop.is_set()
            except RedisFailed as error:
                bell.close()
                if not (error.broken or self._deaf):
                    self._deaf = True
                    _log.warning("Redis does not let us listen; looking every second", extra={"error": str(error)})
                pause.begin()
            if left <= 0:
                return False
        stop.wait(max(0.0, deadline - time.monotonic()))
        return False

    def _bell(self) -> Bell:
        bell: Bell | None = getattr(self._own, "bell", None)
        if bell is None:
            bell = self._own.bell = Bell(self._look, self._redis.subscription, self._channel)
            self._bells.add(bell)
        return bell

    def _pause(self) -> Pause:
        pause: Pause | None = getattr(self._own, "pause", None)
        if pause is None:
            pause = self._own.pause = Pause()
        return pause

    def _channel(self, queue: str) -> bytes:
        return base_of(self.prefix, queue) + b"arrived"

    def _look(self, queues: Sequence[str]) -> Heard:
        arrived: list[bytes] = []
        dues: list[float] = []
        for part in self._together(queues):
            *times, due = self._run(SCRIPTS["listen"], part, [ASLEEP])
            arrived += times
            dues += [float(due) / 1000] if due else []
        return Heard(arrived, min(dues, default=None))

    # What operators do

    def stats(self, queues: Sequence[str] = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        found: list[QueueStats] = []
        with self._asking():
            names = list(dict.fromkeys(queues)) or sorted(self._known())
            for part in self._together(names):
                said = self._run(SCRIPTS["stats"], part, self._names(part, tell=False))
                found += [_standing(queue, counts, ceiling) for queue, counts in zip(part, said, strict=True)]
        return [one for one in found if queues or one.ready or one.delayed or one.leased]

    def purge(self, queue: str) -> int:
        total, number = 0, IDS
        with self._asking():
            while number == IDS:
                number = self._run(SCRIPTS["purge"], [queue], [IDS])
                total += number
        return total

    def discard(self, ids: Sequence[str]) -> list[Message]:
        unique = [to_bytes(task_id) for task_id in dict.fromkeys(ids)]
        found: list[Message] = []
        with self._asking():
            for part in self._together(sorted(self._known())) if unique and self._redis.clustered else [[]]:
                for start in range(0, len(unique), IDS):
                    args = [to_bytes(f"{self.prefix}:"), *unique[start : start + IDS]]
                    found += messages_of(*self._run(SCRIPTS["discard"], part, args))
        return found

    def peek(self, queue: str, limit: int) -> list[Message]:
        if limit <= 0:
            return []
        with self._asking():
            ready, kept, later, kept_later = self._run(SCRIPTS["peek"], [queue], [limit])
        ranked = sorted(zip(map(rank_of, kept), messages_of(ready, kept, queue), strict=True), key=_rank)
        return [*(message for _, message in ranked), *messages_of(later, kept_later, queue)][:limit]

    def mark(self, queues: Sequence[str], *, leave: bool = True) -> list[Mark]:
        """Leave one mark; in a cluster one for each queue, since each has a node of its own."""
        names = list(dict.fromkeys(queues)) if self._redis.clustered else [""]
        with self._asking():
            told = [self._run(SCRIPTS["mark"], [name] if name else [], [int(leave)]) for name in names]
        places = [f"{to_text(base_of(self.prefix, name)) if name else f'{self.prefix}:'}mark" for name in names]
        return [mark_of(f"{place} in {self._redis.where}", said) for place, said in zip(places, told, strict=True)]

    def close(self) -> None:
        """Let go of the connections; those that are a cache's stay with it."""
        for bell in list(self._bells):
            bell.close()
        self._redis.close()
        self._fit = False

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        """Ask the server, if any database may be asked: a check of settings alone reaches for nothing."""
        return found_wrong(self._redis, self._where, unfit_for_messages) if databases else []

    def diagnose(self, queues: Sequence[str] = (), *, ask: bool = True) -> Diagnosis:
        with self._asking():
            return examine(self._redis, self._where, unfit_for_messages, ask=ask, clock=self.clock)

    # How scripts are run

    @contextmanager
    def _asking(self, full: type[BrokerUnavailable | BrokerFull] = BrokerUnavailable) -> Iterator[None]:
        """Give a driver's error the name that the contract has for it."""
        try:
            yield
        except RedisFailed as error:
            raise (full if error.full else BrokerUnavailable)(str(error)) from error

    def _together(self, queues: Any) -> list[list[str]]:
        """Return queues in groups that one script may touch: all, or each by itself in a cluster."""
        unique = list(dict.fromkeys(queues))
        return [[queue] for queue in unique] if self._redis.clustered else [unique] if unique else []

    def _run(self, script: Script, queues: Sequence[str], args: Sequence[Any], **options: Any) -> Any:
        bases = [base_of(self.prefix, queue) for queue in queues]
        shared = bases[0] if self._redis.clustered else to_bytes(f"{self.prefix}:")
        return self._redis.run(script, [shared, *bases], args, **options)

    def _names(self, queues: Sequence[str], *, tell: bool = True) -> list[Any]:
        """Return the names of queues as a script is told them that keeps a list of them; in a cluster the list is
        elsewhere, and this process writes it."""
        if not self._redis.clustered:
            return [to_bytes(queue) for queue in queues]
        if tell:
            self._register(queues)
        return [b""] * len(queues)

    def _register(self, queues: Sequence[str]) -> None:
        now = time.monotonic()
        new = [queue for queue in queues if now - self._registered.get(queue, -REGISTERED) >= REGISTERED]
        if new:
            self._redis.call("SADD", f"{self.prefix}:queues", *map(to_bytes, new))
            self._registered.update(dict.fromkeys(new, now))

    def _known(self) -> list[str]:
        return [to_text(name) for name in self._redis.call("SMEMBERS", f"{self.prefix}:queues")]

    def _be_fit(self) -> None:
        """Refuse a server that throws messages away, once a process, and say so if it may lose them."""
        servers = self._redis.info()
        for wrong in filter(None, [find(server) for server in servers for find in (is_old, evicts)]):
            raise ConfigurationError(f"{self._where}: {wrong}")
        if any(map(keeps_nothing, servers)):
            _log.warning("Redis keeps nothing on disk: what waits there is lost when it ends (appendonly no)")
        self._fit = True


YES = ord("1")

MOVING = 30.0
"""Seconds of the lease while a message is moved."""


def _rank(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _pieces(entries: Sequence[tuple[Message, bytes]]) -> Iterator[Sequence[tuple[Message, bytes]]]:
    """Cut what is to be published into what one script should take."""
    start = size = 0
    for place, (_, body) in enumerate(entries):
        if place > start and (place - start == MESSAGES or size + len(body) > BYTES):
            yield entries[start:place]
            start, size = place, 0
        size += len(body)
    if entries:
        yield entries[start:]


def _standing(queue: str, counts: Sequence[Any], ceiling: int) -> QueueStats:
    ready, delayed, leased = (min(ceiling, count) for count in counts[:3])
    oldest = max(0.0, float(counts[3]) / 1000) if ready else 0.0
    return QueueStats(queue, ready, delayed, leased, oldest)
