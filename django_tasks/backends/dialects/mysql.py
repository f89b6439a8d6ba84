"""How does the queue speak to MySQL (8.0.1 or newer) and MariaDB (10.6 or newer)?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.backends.utils import CursorWrapper

from django_tasks.backends.dialects.dialect import NEXT_DUE, Dialect, Due, Entry, Lease, Receipt, Row, Swept
from django_tasks.transactions import write

FURTHEST = datetime.max.replace(tzinfo=UTC)
EARLIEST = datetime(1000, 1, 1, tzinfo=UTC)
"""What DATETIME reaches back to."""


class MySQLDialect(Dialect):
    """Selects rows FOR UPDATE, and then changes them by their primary keys: MySQL has no RETURNING.

    Without partial indexes, the planner must be told to take the one with `ready` first: from another one it would
    lock every row that it passes over.
    """

    words = {
        "now": "UTC_TIMESTAMP(6)",
        "is_ready": "{ready} = 1",
        "not_ready": "{ready} = 0",
        "until": "timestampdiff(MICROSECOND, UTC_TIMESTAMP(6), {visible_at}) / 1e6",
        "created": "{created_at}",
    }

    def rows(self, found: Sequence[Any]) -> list[Row]:
        return [(*values[:7], bytes(values[7]), values[8].replace(tzinfo=UTC)) for values in found]

    def insert(self, cursor: CursorWrapper, broker: str, entries: Sequence[Entry], *, notify: bool) -> None:
        values: list[Any] = []
        for task_id, queue, rank, task, headers, body, delay, eta, created in entries:
            microseconds = None if delay is None else int(delay * 1_000_000)
            due = (microseconds, _utc(eta))
            values += [task_id, broker, queue, rank, *due, *due, task, headers, body, _utc(created)]
        cursor.execute(self.sql(_INSERT).replace("<rows>", ",".join([self.sql(_VALUES)] * len(entries))), values)

    def claim(self, cursor: CursorWrapper, broker: str, queues: Sequence[str], limit: int, lease: Lease) -> list[Row]:
        picked: list[Any] = []
        with write(self.using):
            for queue in queues:
                if len(picked) < limit:
                    cursor.execute(self.sql(_PICK), [broker, queue, limit - len(picked)])
                    picked += cursor.fetchall()
            if picked:
                arguments: list[Any] = [lease.token, lease.consumer, int(lease.seconds * 1_000_000), _ids(picked)]
                cursor.execute(self.sql(_CLAIM), arguments)
        return [(*row[:4], row[4] + 1, *row[5:]) for row in self.rows(picked)]

    def promote(self, cursor: CursorWrapper, broker: str, limit: int) -> Swept:
        cursor.execute(self.sql(_STANDING), [broker])
        due, told = cursor.fetchone()
        clock = float(told)
        if due is None or due > 0:
            return Swept(0, due, clock)
        with write(self.using):
            cursor.execute(self.sql(_DUE), [broker, limit])
            if found := cursor.fetchall():
                cursor.execute(self.sql(_PROMOTE), [_ids(found)])
        # Rows that are overdue still are in the hands of another worker that promotes them.
        return Swept(len(found), 0.0 if len(found) == limit else self._later(cursor, broker), clock)

    def _later(self, cursor: CursorWrapper, broker: str) -> Due:
        cursor.execute(self.sql(_NEXT), [broker])
        found = cursor.fetchone()
        return found[0] if found else None

    def remove(self, cursor: CursorWrapper, receipts: Sequence[Receipt]) -> set[Receipt]:
        return self._change(cursor, receipts, _REMOVE, [])

    def put_back(
        self, cursor: CursorWrapper, receipts: Sequence[Receipt], *, delay: float, spent: bool, notify: bool
    ) -> set[Receipt]:
        return self._change(cursor, receipts, _PUT_BACK, [delay <= 0, int(delay * 1_000_000), 0 if spent else 1])

    def renew(self, cursor: CursorWrapper, receipts: Sequence[Receipt], seconds: float) -> set[Receipt]:
        return self._change(cursor, receipts, _RENEW, [int(seconds * 1_000_000)])

    def _change(
        self, cursor: CursorWrapper, receipts: Sequence[Receipt], statement: str, arguments: list[Any]
    ) -> set[Receipt]:
        ids, tokens = zip(*receipts, strict=True)
        with write(self.using):
            cursor.execute(self.sql(_HELD), [ids, tokens])
            if held := cursor.fetchall():
                cursor.execute(self.sql(statement), [*arguments, _ids(held)])
        return set(held)

    def discard(self, cursor: CursorWrapper, broker: str, task_ids: Sequence[str]) -> list[Row]:
        with write(self.using):
            cursor.execute(self.sql(_DISCARDED), [tuple(task_ids), broker])
            if found := cursor.fetchall():
                cursor.execute(self.sql(_REMOVE), [_ids(found)])
        return self.rows(found)

    def purge(self, cursor: CursorWrapper, broker: str, queue: str, above: int, limit: int) -> tuple[int, int]:
        with write(self.using):
            cursor.execute(self.sql(_PURGED), [broker, queue, above, limit])
            if found := cursor.fetchall():
                cursor.execute(self.sql(_REMOVE), [_ids(found)])
        return len(found), max(_ids(found), default=0)


def _ids(found: Sequence[Any]) -> tuple[int, ...]:
    """Return the first column; as a tuple, which the driver writes as a list in parentheses."""
    return tuple(values[0] for values in found)


def _utc(moment: datetime | None) -> datetime | None:
    """Return a time as the columns hold it: UTC, without a zone."""
    if moment is None:
        return None
    try:
        return max(EARLIEST, moment.astimezone(UTC)).replace(tzinfo=None)
    except OverflowError:
        return (FURTHEST if moment.year > 1 else EARLIEST).replace(tzinfo=None)


_INSERT = """
    INSERT INTO {table} ({task_id}, {broker}, {queue}, {rank}, {ready}, {visible_at}, {leased_by}, {deliveries},
                         {task}, {headers}, {body}, {created_at})
    VALUES <rows> ON DUPLICATE KEY UPDATE {id} = {id}
"""

_VALUES = """
    (%s, %s, %s, %s,
     coalesce({now} + INTERVAL %s MICROSECOND, CAST(%s AS DATETIME(6)), {now}) <= {now},
     greatest({now}, coalesce({now} + INTERVAL %s MICROSECOND, CAST(%s AS DATETIME(6)), {now})),
     '', 0, %s, %s, %s, coalesce(%s, {now}))
"""

_PICK = """
    SELECT {row} FROM {table} FORCE INDEX (django_tasks_queued_ready)
    WHERE {is_ready} AND {broker} = %s AND {queue} = %s
    ORDER BY {rank}, {id} LIMIT %s FOR UPDATE SKIP LOCKED
"""

_CLAIM = """
    UPDATE {table}
    SET {ready} = 0, {lease_token} = %s + {id}, {leased_by} = %s, {visible_at} = {now} + INTERVAL %s MICROSECOND,
        {deliveries} = {deliveries} + 1
    WHERE {id} IN %s
"""

_DUE = """
    SELECT {id} FROM {table} FORCE INDEX (django_tasks_queued_due)
    WHERE {not_ready} AND {broker} = %s AND {visible_at} <= {now}
    ORDER BY {visible_at} LIMIT %s FOR UPDATE SKIP LOCKED
"""

_PROMOTE = "UPDATE {table} SET {ready} = 1, {lease_token} = NULL, {leased_by} = '' WHERE {id} IN %s"

_STANDING = f"SELECT ({NEXT_DUE}), UNIX_TIMESTAMP(SYSDATE(6))"

_NEXT = """
    SELECT {until} FROM {table} WHERE {not_ready} AND {broker} = %s AND {visible_at} > {now}
    ORDER BY {visible_at} LIMIT 1
"""

_HELD = """
    SELECT {id}, {lease_token} FROM {table} FORCE INDEX (PRIMARY)
    WHERE {id} IN %s AND {lease_token} IN %s ORDER BY {id} FOR UPDATE
"""

_REMOVE = "DELETE FROM {table} WHERE {id} IN %s"

_PUT_BACK = """
    UPDATE {table}
    SET {ready} = %s, {visible_at} = {now} + INTERVAL %s MICROSECOND, {lease_token} = NULL, {leased_by} = '',
        {deliveries} = greatest({deliveries} - %s, 0)
    WHERE {id} IN %s
"""

_RENEW = "UPDATE {table} SET {visible_at} = {now} + INTERVAL %s MICROSECOND WHERE {id} IN %s"

_DISCARDED = """
    SELECT {row} FROM {table} FORCE INDEX (django_tasks_queued_id)
    WHERE {task_id} IN %s AND {broker} = %s AND {lease_token} IS NULL ORDER BY {id} FOR UPDATE SKIP LOCKED
"""

_PURGED = """
    SELECT {id} FROM {table} FORCE INDEX (PRIMARY)
    WHERE {broker} = %s AND {queue} = %s AND {lease_token} IS NULL AND {id} > %s
    ORDER BY {id} LIMIT %s FOR UPDATE SKIP LOCKED
"""
