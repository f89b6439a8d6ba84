"""Where do messages wait when the project's own database keeps them?"""

from __future__ import annotations

import math
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any, TypeVar

from django.core.checks import CheckMessage, Warning  # noqa: A004  # Django's own name for it
from django.db import DEFAULT_DB_ALIAS, DataError, Error, IntegrityError, connections
from django.db.backends.utils import CursorWrapper

from django_tasks.backends.base import Broker, Features, QueueStats
from django_tasks.backends.dialects import DIALECTS
from django_tasks.backends.dialects.bells import Bell, FileVersion, Notifications, Polls
from django_tasks.backends.dialects.dialect import Count, Due, Entry, Lease, Receipt, Row
from django_tasks.database_fitness import examine, found_wrong
from django_tasks.diagnosis import Diagnosis, ahead
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, ConfigurationError, DecodeError, PublishError
from django_tasks.message import Clock, Delivery, Message
from django_tasks.pause import Pause
from django_tasks.plan import Result
from django_tasks.protocol import dump_rest, load_headers, malformed, unpack_rest
from django_tasks.results.base import ResultStore
from django_tasks.transactions import explain, is_full, retrying

T = TypeVar("T")

OPTIONS = ("NOTIFY", "POLL", "USING")

ROWS, BYTES = 1000, 4 << 20
"""How much one statement inserts: well below what servers take."""

PROMOTED = 1000
"""How many rows one statement promotes."""

SWEEP = 1.0
"""Seconds after which a fetch promotes what is due though it has enough without."""

WINDOW = 10_000
"""How many rows that are not ready a peek looks through, what is due next first."""

CONSUMER_LENGTH = 255

CENTURY = 100 * 365.25 * 86_400
"""Seconds; no delay is longer."""


class DatabaseBroker(Broker):
    """Keeps messages in a table, where publishing is part of the caller's transaction.

    All times are the server's, so that no clock of a publisher or worker matters. A lease that ran out is lost when
    the row is promoted, and no sooner: until then nobody else can have the message, so its holder may still write.

    `OPTIONS`: `USING` is the alias of the database ("default"), whatever routers say; `POLL` the seconds between two
    looks at an empty queue, at most, where the database wakes nobody (1); with `NOTIFY` false PostgreSQL is not asked
    to wake workers, for sites where hundreds of publishers commit at once and wait for each other to notify.
    """

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        if unknown := sorted(set(self.options) - set(OPTIONS)):
            raise ConfigurationError(
                f"The database broker {alias!r} has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}."
            )
        self.using: str = self.options.get("USING", DEFAULT_DB_ALIAS)
        self.database = self.using
        self.notify: bool = self.options.get("NOTIFY", True)
        self.poll: float = self.options.get("POLL", 1.0)
        vendor = _vendor(alias, self.using)
        self._dialect = DIALECTS[vendor](self.using)
        self.features = Features(wakeups=vendor == "sqlite" or (vendor == "postgresql" and self.notify))  # type: ignore[misc]
        self._turn = 0
        self._swept = -math.inf
        self._ahead = 0.0
        """Seconds that the server's clock was ahead of this machine's at the last look."""
        self._due = math.inf
        """When the next row becomes ready, on the monotonic clock, as far as is known."""
        self._own = threading.local()
        self._bells: weakref.WeakSet[Bell] = weakref.WeakSet()

    def publish(self, messages: Sequence[Message]) -> None:
        """Insert messages; those that are queued already stay as they are, so that this may be repeated."""
        chunks = list(_chunks([_entry(message) for message in messages]))
        if not chunks:
            return

        def insert() -> None:
            with connections[self.using].cursor() as cursor:
                for chunk in chunks:
                    self._dialect.insert(cursor, self.alias, chunk, notify=self.notify)

        try:
            retrying(self.using, insert, atomic=len(chunks) > 1)
        except (DataError, IntegrityError, ValueError) as error:
            raise PublishError(f"The database {self.using!r} does not take a message: {error}") from error
        except Error as error:
            unable = BrokerFull if is_full(error) else BrokerUnavailable
            raise unable(explain(self.using, error)) from error

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        """Lease messages, of one queue after the other; another one comes first each time, so that none starves."""
        names = list(dict.fromkeys(queues))
        if not names or limit <= 0:
            return []
        self._turn += 1
        first = self._turn % len(names)
        names = names[first:] + names[:first]
        claim = Lease(secrets.randbits(62), lease, consumer[:CONSUMER_LENGTH])
        swept = time.monotonic() - self._swept >= SWEEP
        if swept:
            self._promote()
        rows = self._claim(names, limit, claim)
        if not rows and not swept and self._promote():
            rows = self._claim(names, limit, claim)
        rows.sort(key=_place)
        return [Delivery(_message(row), (row[0], claim.token + row[0]), row[4], ahead=self._ahead) for row in rows]

    def _claim(self, queues: Sequence[str], limit: int, lease: Lease) -> list[Row]:
        return self._run(lambda cursor: self._dialect.claim(cursor, self.alias, queues, limit, lease))

    def _promote(self) -> int:
        self._swept = time.monotonic()
        before = self.clock()
        swept = self._run(lambda cursor: self._dialect.promote(cursor, self.alias, PROMOTED))
        if swept.clock is not None:
            self._ahead = ahead(swept.clock, before, self.clock())
        self._expect(swept.due)
        return swept.number

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return self._change(deliveries, self._dialect.remove)

    def finish(
        self, deliveries: Sequence[Delivery], store: ResultStore, results: Sequence[Result]
    ) -> list[Delivery] | None:
        saving = store.saving(results, self._dialect.gone) if self._dialect.gone else None
        if saving is None:
            return None
        return self._change(deliveries, partial(self._dialect.finish, saving=saving))

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        put_back = partial(self._dialect.put_back, delay=_bounded(delay), spent=spent, notify=self.notify)
        return self._change(deliveries, put_back)

    def replace(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        """Do both in one transaction: no crash can take a task's next attempt away."""
        try:
            return retrying(self.using, lambda: super(DatabaseBroker, self).replace(pairs))
        except Error as error:
            raise BrokerUnavailable(explain(self.using, error)) from error

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        return self._change(deliveries, partial(self._dialect.renew, seconds=lease))

    def _change(
        self, deliveries: Sequence[Delivery], change: Callable[[CursorWrapper, list[Receipt]], set[Receipt]]
    ) -> list[Delivery]:
        if not deliveries:
            return []
        receipts = [delivery.receipt for delivery in deliveries]
        held = self._run(lambda cursor: change(cursor, receipts))
        return [delivery for delivery in deliveries if delivery.receipt in held]

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        """Block until something arrived since this thread's last wait, or is due.

        While the database does not answer, nothing has arrived; that it does not is for `fetch` to say.
        """
        deadline = time.monotonic() + timeout
        bell, pause = self._bell(), self._pause()
        while queues and not stop.is_set():
            left = deadline - time.monotonic()
            try:
                if not pause.spend(left, stop) and self._listen(bell, queues, max(0.0, left), stop):
                    return not stop.is_set()
            except (Error, BrokerUnavailable):
                bell.close()
                pause.begin()
            if left <= 0:
                return False
        stop.wait(max(0.0, deadline - time.monotonic()))
        return False

    def _listen(self, bell: Bell, queues: Sequence[str], seconds: float, stop: Event) -> bool:
        """Listen once, no longer than until something is due; return whether there is something to fetch."""
        until_due = max(0.0, self._due - time.monotonic())
        rang = bell.listen(queues, min(seconds, until_due), stop)
        if bell.polling and self.features.wakeups:
            self.features = replace(self.features, wakeups=False)  # type: ignore[misc]
        if rang and bell.sure:
            return True
        if not rang and time.monotonic() < self._due:
            return False
        ready, due = self._run(lambda cursor: self._dialect.look(cursor, self.alias, queues))
        self._expect(due)
        found = ready or (due is not None and due <= 0)
        bell.looked(found=found)
        return found

    def _expect(self, due: Due) -> None:
        """Remember when something is due. What is due now is not: whoever learned of it acts on it."""
        self._due = math.inf if due is None or due <= 0 else time.monotonic() + due

    def _bell(self) -> Bell:
        bell: Bell | None = getattr(self._own, "bell", None)
        if bell is None:
            bell = self._own.bell = self._new_bell()
            self._bells.add(bell)
        return bell

    def _pause(self) -> Pause:
        pause: Pause | None = getattr(self._own, "pause", None)
        if pause is None:
            pause = self._own.pause = Pause()
        return pause

    def _new_bell(self) -> Bell:
        connection: Any = connections[self.using]
        if connection.vendor == "postgresql" and self.notify:
            return Notifications(self.using, self.poll)
        if connection.vendor == "sqlite" and not connection.is_in_memory_db():
            return FileVersion(self.using)
        return Polls(self.poll)

    def stats(self, queues: Sequence[str] = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        """Return how queues stand.

        Of what is delayed or leased, four times the ceiling is looked at, over all queues, what is due next first: a
        queue may have more that is delayed for longer.
        """
        window = 4 * ceiling

        def count(cursor: CursorWrapper) -> list[QueueStats]:
            names = list(dict.fromkeys(queues)) or self._dialect.queues(cursor, self.alias, window)
            counts = self._dialect.counts(cursor, self.alias, names, ceiling=ceiling, window=window)
            return [_standing(name, counts, ceiling) for name in names]

        return self._run(count)

    def purge(self, queue: str) -> int:
        total, number, last = 0, ROWS, 0
        while number == ROWS:
            above = last
            number, last = self._run(lambda cursor: self._dialect.purge(cursor, self.alias, queue, above, ROWS))  # noqa: B023
            total += number
        return total

    def discard(self, ids: Sequence[str]) -> list[Message]:
        unique = list(dict.fromkeys(ids))
        found: list[Row] = []
        for start in range(0, len(unique), ROWS):
            part = unique[start : start + ROWS]
            found += self._run(lambda cursor: self._dialect.discard(cursor, self.alias, part))  # noqa: B023
        return [_message(row) for row in found]

    def peek(self, queue: str, limit: int) -> list[Message]:
        """Return what may be taken now in the order of `fetch`, and then what is delayed in the order of its time, as
        far as it is among the next 10,000 of all queues."""
        if limit <= 0:
            return []
        seen = self._run(lambda cursor: self._dialect.peek(cursor, self.alias, queue, limit, WINDOW))
        seen.sort(key=lambda one: (max(0.0, one.until), _place(one.row)))
        return [_message(one.row) for one in seen[:limit]]

    def close(self) -> None:
        """Let go of the connections that `wait` listens to; Django's own are the business of those who use them."""
        for bell in list(self._bells):
            bell.close()

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        return list(found_wrong(self.using, databases))

    def diagnose(self, queues: Sequence[str] = (), *, ask: bool = True) -> Diagnosis:
        try:
            told = examine(self.using, ask=ask, clock=self.clock)
        except Error as error:
            raise BrokerUnavailable(explain(self.using, error)) from error
        return replace(told, found=(*told.found, *self._deaf())) if ask else told

    def _deaf(self) -> Iterator[CheckMessage]:
        """Say it when notifications are wanted and do not come."""
        if connections[self.using].vendor != "postgresql" or not self.notify:
            return
        bell = Notifications(self.using, self.poll)
        try:
            heard = bell.proves_itself()
        finally:
            bell.close()
        if not heard:
            yield Warning(
                f"The database {self.using!r} is behind a proxy that pools by transaction, and its notifications do "
                f"not come through: workers look for tasks every {self.poll:g} s in place of being woken.",
                hint="Give workers a DATABASES entry that goes past the proxy, or let it pool by session. To keep it "
                "as it is, set NOTIFY to False in the broker's OPTIONS, and POLL to what you can wait.",
                id="django_tasks.W106",
            )

    def _run(self, statements: Callable[[CursorWrapper], T]) -> T:
        def attempt() -> T:
            with connections[self.using].cursor() as cursor:
                return statements(cursor)

        try:
            return retrying(self.using, attempt, atomic=False)
        except (Error, UnicodeError) as error:
            raise BrokerUnavailable(explain(self.using, error)) from error


def _vendor(alias: str, using: str) -> str:
    if using not in connections.settings:
        known = ", ".join(repr(name) for name in connections.settings)
        raise ConfigurationError(f"The database broker {alias!r}: no USING {using!r} in DATABASES, which has {known}.")
    vendor = connections[using].vendor
    if vendor not in DIALECTS:
        raise ConfigurationError(
            f"The database broker {alias!r} does not know {vendor}, the database {using!r}. Let OPTIONS['USING'] name "
            "one in PostgreSQL, MySQL, MariaDB or SQLite, or use another broker."
        )
    return vendor


def _entry(message: Message) -> Entry:
    delay = None if message.countdown is None else _bounded(message.countdown)
    return (
        message.id,
        message.queue,
        -message.priority,
        message.task,
        dump_rest(message),
        message.body,
        delay,
        message.eta if delay is None else None,
        message.created_at,
    )


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), CENTURY)


def _chunks(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut what is to be inserted into what one statement should hold."""
    start = size = 0
    for place, entry in enumerate(entries):
        weight = len(entry[4]) + len(entry[5])
        if place > start and (place - start == ROWS or size + weight > BYTES):
            yield entries[start:place]
            start, size = place, 0
        size += weight
    if entries:
        yield entries[start:]


def _place(row: Row) -> tuple[int, int]:
    """Return what rows are sorted by: the priority, then the order of publication."""
    return row[3], row[0]


def _message(row: Row) -> Message:
    """Return the message of a row; one that says that it is malformed, if the row is: a batch does not fail for it."""
    _, task_id, queue, rank, _, task, headers, body, created_at = row
    known = {"id": task_id, "task": task, "queue": queue, "priority": -rank, "body": body, "created_at": created_at}
    try:
        return unpack_rest(load_headers(headers), known)
    except DecodeError:
        return malformed(task_id, task, queue, body)


def _standing(queue: str, counts: Sequence[Count], ceiling: int) -> QueueStats:
    mine = [count for count in counts if count.queue == queue]
    numbers = {
        kind: min(ceiling, sum(count.number for count in mine if count.kind == kind))
        for kind in ("ready", "delayed", "leased")
    }
    oldest = max((count.age for count in mine if count.kind == "ready"), default=0.0)
    return QueueStats(queue=queue, oldest=max(0.0, oldest), **numbers)
