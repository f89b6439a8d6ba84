"""Which statements does the queue need, whatever the vendor?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from django.db import connections
from django.db.backends.utils import CursorWrapper

from django_tasks.models import QueuedMessage
from django_tasks.results.base import Saving

Entry = tuple[str, str, int, str, str, bytes, float | None, datetime | None, datetime | None]
"""A row to insert: task id, queue, rank, task, headers, body, seconds of delay, eta, time of publication."""

Row = tuple[int, str, str, int, int, str, str, bytes, datetime | None]
"""A row that was read: id, task id, queue, rank, deliveries, task, headers, body, time of publication."""

Receipt = tuple[int, int]
"""The id of a row, and the token of its lease."""

Due = float | None
"""Seconds until the next row that is not ready becomes so; negative when it is overdue, None when there is none."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a claim writes into a row."""

    token: int
    """Each row gets the sum of this and its id, so that no two claims of any rows have one token."""
    seconds: float
    consumer: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What a look at the rows that are not ready has done and learned."""

    number: int
    """How many were made ready."""
    due: Due
    clock: float | None = None
    """The server's, in seconds since the epoch; None where that is this machine's."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows of a queue stand in one way."""

    queue: str
    kind: str
    """"ready", "delayed" or "leased"."""
    number: int
    age: float
    """Seconds since the oldest of them became visible."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A row that waits, as an operator sees it."""

    row: Row
    until: float
    """Seconds until it may be taken; 0 or less when that is now."""


class Dialect(ABC):
    """The statements of one vendor, over the alias `using`.

    Each method is one transaction: those that need more than one statement open it. All time is the server's. What
    locks rows that it may have to wait for does so in the order of their ids, so that no two wait for each other.
    """

    words: ClassVar[Mapping[str, str]]
    """How the vendor says `now`, `is_ready`, `not_ready`, `until` (seconds until visible_at) and `created`."""

    gone: ClassVar[str] = ""
    """What selects, in the statement of `finish`, the ids of the tasks that were held; empty where there is none."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._names = self._quoted()
        self._statements: dict[str, str] = {}

    def _quoted(self) -> dict[str, str]:
        quote = connections[self.using].ops.quote_name
        options = QueuedMessage._meta
        names = {field.name: quote(str(field.column)) for field in options.concrete_fields}
        names["table"] = quote(options.db_table)
        names |= {word: said.format(**names) for word, said in self.words.items()}
        names["row"] = ROW.format(**names)
        return names

    def sql(self, template: str) -> str:
        """Return a statement with the names of table and columns, and the vendor's words, filled in."""
        statement = self._statements.get(template)
        if statement is None:
            statement = self._statements[template] = template.format(**self._names)
        return statement

    @abstractmethod
    def insert(self, cursor: CursorWrapper, broker: str, entries: Sequence[Entry], *, notify: bool) -> None:
        """Add rows, in order; a task id that is there already stays as it is."""

    @abstractmethod
    def claim(self, cursor: CursorWrapper, broker: str, queues: Sequence[str], limit: int, lease: Lease) -> list[Row]:
        """Lease ready rows, of the first queue as many as there are, then of the next."""

    @abstractmethod
    def promote(self, cursor: CursorWrapper, broker: str, limit: int) -> Swept:
        """Make rows ready whose time has come, and take away the leases that ran out."""

    @abstractmethod
    def remove(self, cursor: CursorWrapper, receipts: Sequence[Receipt]) -> set[Receipt]:
        """Delete rows; return the receipts that held, as all below do."""

    def finish(self, cursor: CursorWrapper, receipts: Sequence[Receipt], saving: Saving) -> set[Receipt]:
        """Delete rows, and save results among those of their tasks."""
        raise NotImplementedError

    @abstractmethod
    def put_back(
        self, cursor: CursorWrapper, receipts: Sequence[Receipt], *, delay: float, spent: bool, notify: bool
    ) -> set[Receipt]:
        """End leases."""

    @abstractmethod
    def renew(self, cursor: CursorWrapper, receipts: Sequence[Receipt], seconds: float) -> set[Receipt]:
        """Let leases end so many seconds from now."""

    @abstractmethod
    def discard(self, cursor: CursorWrapper, broker: str, task_ids: Sequence[str]) -> list[Row]:
        """Delete rows that nobody has leased; return them."""

    @abstractmethod
    def purge(self, cursor: CursorWrapper, broker: str, queue: str, above: int, limit: int) -> tuple[int, int]:
        """Delete up to `limit` rows of a queue that nobody has leased, of those whose id is above another; return how
        many, and the greatest of their ids."""

    def rows(self, found: Sequence[Any]) -> list[Row]:
        """Return rows as the vendor's driver gave them with values of the right types."""
        return list(found)

    def look(self, cursor: CursorWrapper, broker: str, queues: Sequence[str]) -> tuple[bool, Due]:
        """Tell whether a row of the queues is ready, and when the next of any queue will be."""
        probes = ", ".join([_IS_ANY_READY] * len(queues))
        arguments = [value for queue in queues for value in (broker, queue)]
        cursor.execute(self.sql(f"SELECT coalesce({probes}, 0), ({NEXT_DUE})"), [*arguments, broker])
        ready, due = cursor.fetchone()
        return bool(ready), due

    def due(self, cursor: CursorWrapper, broker: str) -> Due:
        """Tell when the next row that is not ready will be."""
        cursor.execute(self.sql(NEXT_DUE), [broker])
        found = cursor.fetchone()
        return found[0] if found else None

    def queues(self, cursor: CursorWrapper, broker: str, window: int) -> list[str]:
        """Return the names of the queues that have rows: all that have ready ones, found by a jump through the index
        from one name to the next, and those among the `window` rows that are due next."""
        cursor.execute(self.sql(_READY_QUEUES), [broker, broker])
        ready = {name for (name,) in cursor.fetchall()}
        cursor.execute(self.sql(_DUE_QUEUES), [broker, window])
        return sorted(ready | {name for (name,) in cursor.fetchall()})

    def counts(
        self, cursor: CursorWrapper, broker: str, queues: Sequence[str], *, ceiling: int, window: int
    ) -> list[Count]:
        """Count the rows of queues: of ready ones up to `ceiling` each, the others among the `window` that are due
        next. A row whose time has come counts as ready, whether or not it was promoted."""
        counts: list[Count] = []
        for start in range(0, len(queues), QUEUES_AT_ONCE):
            part = queues[start : start + QUEUES_AT_ONCE]
            statement = " UNION ALL ".join([_READY_COUNT] * len(part))
            cursor.execute(self.sql(statement), [value for name in part for value in (name, broker, name, ceiling)])
            counts += [Count(name, "ready", number, float(age or 0)) for name, number, age in cursor.fetchall()]
        wanted = set(queues)
        cursor.execute(self.sql(_DUE_COUNT), [broker, window])
        for name, kind, number, age in cursor.fetchall():
            if name in wanted:
                counts.append(Count(name, kind, number, float(age)))
        return counts

    def peek(self, cursor: CursorWrapper, broker: str, queue: str, limit: int, window: int) -> list[Seen]:
        """Return rows of a queue that nobody holds: ready ones, and those among the `window` that are due next."""
        cursor.execute(self.sql(_PEEK_READY), [broker, queue, limit])
        found = cursor.fetchall()
        cursor.execute(self.sql(_PEEK_DUE), [broker, window, queue, limit])
        found = [*found, *cursor.fetchall()]
        rows = self.rows([values[:-1] for values in found])
        return [Seen(row, float(values[-1])) for row, values in zip(rows, found, strict=True)]


QUEUES_AT_ONCE = 100

ROW = "{id}, {task_id}, {queue}, {rank}, {deliveries}, {task}, {headers}, {body}, {created}"

# Not EXISTS: without ORDER BY a planner with old statistics may read the table from its beginning.
_IS_ANY_READY = """
    (SELECT 1 FROM {table} WHERE {is_ready} AND {broker} = %s AND {queue} = %s ORDER BY {rank}, {id} LIMIT 1)
"""

NEXT_DUE = "SELECT {until} FROM {table} WHERE {not_ready} AND {broker} = %s ORDER BY {visible_at} LIMIT 1"

_READY_QUEUES = """
    WITH RECURSIVE names (name) AS (
        SELECT (SELECT {queue} FROM {table} WHERE {is_ready} AND {broker} = %s ORDER BY {queue} LIMIT 1)
        UNION ALL
        SELECT (SELECT {queue} FROM {table} WHERE {is_ready} AND {broker} = %s AND {queue} > names.name
                ORDER BY {queue} LIMIT 1)
        FROM names WHERE names.name IS NOT NULL
    )
    SELECT name FROM names WHERE name IS NOT NULL
"""

_DUE_QUEUES = """
    SELECT DISTINCT due.{queue} FROM (
        SELECT {queue} FROM {table} WHERE {not_ready} AND {broker} = %s ORDER BY {visible_at} LIMIT %s
    ) AS due
"""

_READY_COUNT = """
    SELECT %s AS name, count(*) AS number, -min(ready.seconds) AS age FROM (
        SELECT {until} AS seconds FROM {table} WHERE {is_ready} AND {broker} = %s AND {queue} = %s
        ORDER BY {rank}, {id} LIMIT %s
    ) AS ready
"""

_DUE_COUNT = """
    SELECT name, kind, count(*) AS number, -min(seconds) AS age FROM (
        SELECT name, seconds,
               CASE WHEN seconds <= 0 THEN 'ready' WHEN token IS NULL THEN 'delayed' ELSE 'leased' END AS kind
        FROM (
            SELECT {queue} AS name, {until} AS seconds, {lease_token} AS token
            FROM {table} WHERE {not_ready} AND {broker} = %s ORDER BY {visible_at} LIMIT %s
        ) AS due
    ) AS kinds
    GROUP BY name, kind
"""

_PEEK_READY = """
    SELECT {row}, 0.0 FROM {table} WHERE {is_ready} AND {broker} = %s AND {queue} = %s ORDER BY {rank}, {id} LIMIT %s
"""

_PEEK_DUE = """
    SELECT {row}, {until} FROM {table} WHERE {id} IN (
        SELECT id FROM (
            SELECT id FROM (
                SELECT {id} AS id, {queue} AS name, {lease_token} AS token, {until} AS seconds
                FROM {table} WHERE {not_ready} AND {broker} = %s ORDER BY {visible_at} LIMIT %s
            ) AS due
            WHERE name = %s AND (token IS NULL OR seconds <= 0) ORDER BY seconds, id LIMIT %s
        ) AS found
    )
"""
