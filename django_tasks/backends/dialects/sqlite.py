"""How does the queue speak to SQLite (3.35 or newer)?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.backends.utils import CursorWrapper

from django_tasks.backends.dialects.dialect import ROW, Dialect, Entry, Lease, Receipt, Row, Swept
from django_tasks.transactions import write

STAMP = "'%%Y-%%m-%%d %%H:%%M:%%f'"
"""How Django writes times into text columns, here to the millisecond; such texts compare as the times do."""

EARLIEST, LATEST = "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"

NOT_TEXT = "not UTF-8"
"""Stands for headers that are none, and is no JSON either."""


class SQLiteDialect(Dialect):
    """Writes one at a time, as the file's lock has it, and looks before it takes that lock: an idle worker never does.

    A column may hold values of any type, and the driver gives up a whole batch for one text that is not UTF-8, so
    text is read as bytes and decoded here.
    """

    words = {
        "now": f"strftime({STAMP}, 'now')",
        "is_ready": "{ready}",
        "not_ready": "NOT {ready}",
        "until": "(julianday({visible_at}) - julianday('now')) * 86400.0",
        "created": "CAST({created_at} AS BLOB)",
        "after": f"strftime({STAMP}, 'now', %s)",
        "held": "{id} IN (SELECT value FROM json_each(%s)) AND {lease_token} IN (SELECT value FROM json_each(%s))",
    }

    def _quoted(self) -> dict[str, str]:
        names = super()._quoted()
        kinds = {"BLOB": ("task_id", "queue", "task", "headers", "body"), "INTEGER": ("rank", "deliveries")}
        casts = {name: f"CAST({names[name]} AS {kind})" for kind, columns in kinds.items() for name in columns}
        return names | {"row": ROW.format(**names | casts)}

    def rows(self, found: Sequence[Any]) -> list[Row]:
        return [
            (
                number,
                _text(task_id),
                _text(queue),
                rank,
                deliveries,
                _text(task),
                _json(headers),
                body,
                _moment(created),
            )
            for number, task_id, queue, rank, deliveries, task, headers, body, created in found
        ]

    def insert(self, cursor: CursorWrapper, broker: str, entries: Sequence[Entry], *, notify: bool) -> None:
        values = [
            (task_id, broker, queue, rank, task, headers, body, _after(delay), _utc(eta), _utc(created))
            for task_id, queue, rank, task, headers, body, delay, eta, created in entries
        ]
        if len(values) == 1:
            cursor.execute(self.sql(_INSERT), values[0])
            return
        with write(self.using):
            cursor.executemany(self.sql(_INSERT), values)

    def claim(self, cursor: CursorWrapper, broker: str, queues: Sequence[str], limit: int, lease: Lease) -> list[Row]:
        if not self.look(cursor, broker, queues)[0]:
            return []
        found: list[Any] = []
        arguments = (lease.token, lease.consumer, _after(lease.seconds), broker)
        with write(self.using):
            for queue in queues:
                if len(found) < limit:
                    cursor.execute(self.sql(_CLAIM), [*arguments, queue, limit - len(found)])
                    found += cursor.fetchall()
        return self.rows(found)

    def promote(self, cursor: CursorWrapper, broker: str, limit: int) -> Swept:
        due = self.due(cursor, broker)
        if due is None or due > 0:
            return Swept(0, due)
        with write(self.using):
            cursor.execute(self.sql(_PROMOTE), [broker, limit])
            number = cursor.rowcount
        return Swept(number, self.due(cursor, broker))

    def remove(self, cursor: CursorWrapper, receipts: Sequence[Receipt]) -> set[Receipt]:
        cursor.execute(self.sql(_REMOVE), _lists(receipts))
        return set(cursor.fetchall())

    def put_back(
        self, cursor: CursorWrapper, receipts: Sequence[Receipt], *, delay: float, spent: bool, notify: bool
    ) -> set[Receipt]:
        with write(self.using):
            cursor.execute(self.sql(_HELD_NOW), _lists(receipts))
            held: set[Receipt] = set(cursor.fetchall())
            arguments = [delay <= 0, _after(delay), 0 if spent else 1, _numbers(number for number, _ in held)]
            cursor.execute(self.sql(_PUT_BACK), arguments)
        return held

    def renew(self, cursor: CursorWrapper, receipts: Sequence[Receipt], seconds: float) -> set[Receipt]:
        cursor.execute(self.sql(_RENEW), [_after(seconds), *_lists(receipts)])
        return set(cursor.fetchall())

    def discard(self, cursor: CursorWrapper, broker: str, task_ids: Sequence[str]) -> list[Row]:
        cursor.execute(self.sql(_DISCARD), [json.dumps(task_ids), broker])
        return self.rows(cursor.fetchall())

    def purge(self, cursor: CursorWrapper, broker: str, queue: str, above: int, limit: int) -> tuple[int, int]:
        cursor.execute(self.sql(_PURGE), [broker, queue, above, limit])
        found = [number for (number,) in cursor.fetchall()]
        return len(found), max(found, default=0)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _json(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_TEXT


def _moment(value: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(value.decode("ascii")).replace(tzinfo=UTC)
    except ValueError:
        return None


def _utc(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    try:
        return str(moment.astimezone(UTC).replace(tzinfo=None))
    except OverflowError:
        return LATEST if moment.year > 1 else EARLIEST


def _after(seconds: float | None) -> str | None:
    """Return how strftime() is told to add seconds."""
    return None if seconds is None else f"{seconds:+.3f} seconds"


def _numbers(values: Iterable[int]) -> str:
    return f"[{','.join(map(str, values))}]"


def _lists(receipts: Sequence[Receipt]) -> list[str]:
    ids, tokens = zip(*receipts, strict=True)
    return [_numbers(ids), _numbers(tokens)]


_INSERT = """
    INSERT INTO {table} ({task_id}, {broker}, {queue}, {rank}, {ready}, {visible_at}, {leased_by},
                           {deliveries}, {task}, {headers}, {body}, {created_at})
    SELECT task_id, broker, queue, rank, due <= now, max(due, now), '', 0, task, headers, body, coalesce(created, now)
    FROM (SELECT %s AS task_id, %s AS broker, %s AS queue, %s AS rank, %s AS task, %s AS headers, %s AS body,
                 coalesce({after}, %s, '') AS due, %s AS created, {now} AS now)
    WHERE TRUE  -- or the parser takes ON for that of a join
    ON CONFLICT ({task_id}) DO NOTHING
"""

_CLAIM = """
    UPDATE {table}
    SET {ready} = FALSE, {lease_token} = %s + {id}, {leased_by} = %s,
        {visible_at} = {after}, {deliveries} = {deliveries} + 1
    WHERE {id} IN (SELECT {id} FROM {table} WHERE {is_ready} AND {broker} = %s AND {queue} = %s
                     ORDER BY {rank}, {id} LIMIT %s)
    RETURNING {row}
"""

_PROMOTE = """
    UPDATE {table} SET {ready} = TRUE, {lease_token} = NULL, {leased_by} = ''
    WHERE {id} IN (SELECT {id} FROM {table} WHERE {not_ready} AND {broker} = %s AND {visible_at} <= {now}
                   ORDER BY {visible_at} LIMIT %s)
"""

_HELD_NOW = "SELECT {id}, {lease_token} FROM {table} WHERE {held}"

_REMOVE = "DELETE FROM {table} WHERE {held} RETURNING {id}, {lease_token}"

_PUT_BACK = """
    UPDATE {table}
    SET {ready} = %s, {visible_at} = {after}, {lease_token} = NULL, {leased_by} = '',
        {deliveries} = max({deliveries} - %s, 0)
    WHERE {id} IN (SELECT value FROM json_each(%s))
"""

_RENEW = """
    UPDATE {table} SET {visible_at} = {after} WHERE {held} RETURNING {id}, {lease_token}
"""

_DISCARD = """
    DELETE FROM {table}
    WHERE {task_id} IN (SELECT value FROM json_each(%s)) AND {broker} = %s AND {lease_token} IS NULL
    RETURNING {row}
"""

_PURGE = """
    DELETE FROM {table} WHERE {id} IN (
        SELECT {id} FROM {table} WHERE {broker} = %s AND {queue} = %s AND {lease_token} IS NULL AND {id} > %s
        ORDER BY {id} LIMIT %s
    )
    RETURNING {id}
"""
