"""How does the queue speak to PostgreSQL? In one statement, which is one round trip, whatever it does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.db.backends.utils import CursorWrapper

from django_tasks.backends.dialects.dialect import Dialect, Entry, Lease, Receipt, Row, Swept
from django_tasks.results.base import Saving
from django_tasks.schema import bytes_array, number_array, text_array, time_array

CHANNEL = "django_tasks"
"""Where `pg_notify` tells the names of queues in which something arrived."""


class PostgreSQLDialect(Dialect):
    """Claims with FOR UPDATE SKIP LOCKED.

    Rows to be changed are named as `= ANY (ARRAY(...))`: the planner takes that for ten rows and looks each up by its
    key, whatever its statistics say. A join it might turn into a scan of the table.
    """

    words = {
        "now": "statement_timestamp()",
        "is_ready": "{ready}",
        "not_ready": "NOT {ready}",
        "until": "extract(epoch FROM {visible_at} - statement_timestamp())::float8",
        "created": "extract(epoch FROM {created_at})::float8",
    }

    gone = "SELECT task_id FROM gone"

    def rows(self, found: Sequence[Any]) -> list[Row]:
        moment = datetime.fromtimestamp
        return [(*values[:7], bytes(values[7]), moment(values[8], UTC)) for values in found]

    def insert(self, cursor: CursorWrapper, broker: str, entries: Sequence[Entry], *, notify: bool) -> None:
        if len(entries) == 1 and entries[0][6] is None and entries[0][7] is None:
            self._insert_one(cursor, broker, entries[0], notify=notify)
            return
        ids, queues, ranks, tasks, headers, bodies, delays, etas, created = zip(*entries, strict=True)
        arrays = [
            text_array(ids),
            text_array(queues),
            number_array(ranks),
            text_array(tasks),
            text_array(headers),
            bytes_array(bodies),
            number_array(delays),
            time_array(etas),
            time_array(created),
        ]
        cursor.execute(self.sql(_INSERT), [*arrays, broker, CHANNEL, notify])

    def _insert_one(self, cursor: CursorWrapper, broker: str, entry: Entry, *, notify: bool) -> None:
        task_id, queue, rank, task, headers, body, _, _, created_at = entry
        arguments: list[Any] = [task_id, broker, queue, rank, task, headers, body, created_at]
        if notify:
            cursor.execute(self.sql(_INSERT_ONE + _NOTIFY), [*arguments, CHANNEL])
        else:
            cursor.execute(self.sql(_INSERT_ONE), arguments)

    def claim(self, cursor: CursorWrapper, broker: str, queues: Sequence[str], limit: int, lease: Lease) -> list[Row]:
        arguments: list[Any] = [value for queue in queues for value in (broker, queue, limit)]
        arguments += [lease.token, lease.consumer, lease.seconds]
        cursor.execute(self.sql(_claim(len(queues))), arguments)
        return self.rows(cursor.fetchall())

    def promote(self, cursor: CursorWrapper, broker: str, limit: int) -> Swept:
        cursor.execute(self.sql(_PROMOTE), [broker, limit, broker])
        number, due, clock = cursor.fetchone()
        return Swept(number, 0.0 if number == limit else due, clock)

    def remove(self, cursor: CursorWrapper, receipts: Sequence[Receipt]) -> set[Receipt]:
        cursor.execute(self.sql(_HELD + _REMOVE), _arrays(receipts))
        return set(cursor.fetchall())

    def finish(self, cursor: CursorWrapper, receipts: Sequence[Receipt], saving: Saving) -> set[Receipt]:
        cursor.execute(self.sql(_HELD + _FINISH).replace("<saving>", saving.sql), [*_arrays(receipts), *saving.params])
        return set(cursor.fetchall())

    def put_back(
        self, cursor: CursorWrapper, receipts: Sequence[Receipt], *, delay: float, spent: bool, notify: bool
    ) -> set[Receipt]:
        arguments = [*_arrays(receipts), delay <= 0, delay, 0 if spent else 1, CHANNEL, notify]
        cursor.execute(self.sql(_HELD + _PUT_BACK), arguments)
        return {(number, token) for number, token, _ in cursor.fetchall()}

    def renew(self, cursor: CursorWrapper, receipts: Sequence[Receipt], seconds: float) -> set[Receipt]:
        cursor.execute(self.sql(_HELD + _RENEW), [*_arrays(receipts), seconds])
        return set(cursor.fetchall())

    def discard(self, cursor: CursorWrapper, broker: str, task_ids: Sequence[str]) -> list[Row]:
        cursor.execute(self.sql(_DISCARD), [text_array(task_ids), broker])
        return self.rows(cursor.fetchall())

    def purge(self, cursor: CursorWrapper, broker: str, queue: str, above: int, limit: int) -> tuple[int, int]:
        cursor.execute(self.sql(_PURGE), [broker, queue, above, limit])
        number, last = cursor.fetchone()
        return number, last


@lru_cache
def _claim(queues: int) -> str:
    """Return the claim from a number of queues, each of which gives what those before it have left of the limit."""
    picks, left = [], "%s"
    for n in range(queues):
        picks.append(_PICK.replace("<n>", str(n)).replace("<left>", left))
        left += _TAKEN.replace("<n>", str(n))
    picked = " UNION ALL ".join(_PICKED.replace("<n>", str(n)) for n in range(queues))
    return f"WITH {','.join(picks)} {_CLAIM.replace('<picked>', picked)}"


def _arrays(receipts: Sequence[Receipt]) -> list[str]:
    ids, tokens = zip(*receipts, strict=True)
    return [number_array(ids), number_array(tokens)]


# greatest() passes over NULLs.
_INSERT = """
    WITH sent AS (
        SELECT *, greatest({now}, coalesce({now} + delay * interval '1 second', eta)) AS visible_at
        FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::text[], %s::text[], %s::bytea[],
                    %s::float8[], %s::timestamptz[], %s::timestamptz[]) WITH ORDINALITY
            AS sent (task_id, queue, rank, task, headers, body, delay, eta, created_at, number)
    ), added AS (
        INSERT INTO {table} ({task_id}, {broker}, {queue}, {rank}, {ready}, {visible_at}, {leased_by}, {deliveries},
                             {task}, {headers}, {body}, {created_at})
        SELECT task_id, %s, queue, rank, visible_at <= {now}, visible_at, '', 0,
               task, headers, body, coalesce(created_at, {now})
        FROM sent ORDER BY number
        ON CONFLICT ({task_id}) DO NOTHING
        RETURNING {queue}
    )
    SELECT pg_notify(%s, name) FROM (SELECT DISTINCT {queue} AS name FROM added) AS names WHERE %s
"""

# What is sent by itself and at once: the server has read and planned this in a third of the time.
_INSERT_ONE = """
    INSERT INTO {table} ({task_id}, {broker}, {queue}, {rank}, {ready}, {visible_at}, {leased_by}, {deliveries},
                         {task}, {headers}, {body}, {created_at})
    VALUES (%s, %s, %s, %s, TRUE, {now}, '', 0, %s, %s, %s, coalesce(%s, {now}))
    ON CONFLICT ({task_id}) DO NOTHING
"""

_NOTIFY = "RETURNING pg_notify(%s, {queue})"

_PICK = """
    pick<n> AS (
        SELECT {id} AS id FROM {table} WHERE {is_ready} AND {broker} = %s AND {queue} = %s
        ORDER BY {rank}, {id} LIMIT <left> FOR UPDATE SKIP LOCKED
    )
"""

_TAKEN = " - (SELECT count(*) FROM pick<n>)"

_PICKED = "SELECT id FROM pick<n>"

_CLAIM = """
    UPDATE {table}
    SET {ready} = FALSE, {lease_token} = %s + {id}, {leased_by} = %s, {visible_at} = {now} + %s * interval '1 second',
        {deliveries} = {deliveries} + 1
    WHERE {id} = ANY (ARRAY(<picked>))
    RETURNING {row}
"""

_PROMOTE = """
    WITH due AS (
        SELECT {id} AS id FROM {table} WHERE {not_ready} AND {broker} = %s AND {visible_at} <= {now}
        ORDER BY {visible_at} LIMIT %s FOR UPDATE SKIP LOCKED
    ), promoted AS (
        UPDATE {table} SET {ready} = TRUE, {lease_token} = NULL, {leased_by} = ''
        WHERE {id} = ANY (ARRAY(SELECT id FROM due))
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM promoted),
           (SELECT {until} FROM {table} WHERE {not_ready} AND {broker} = %s AND {visible_at} > {now}
            ORDER BY {visible_at} LIMIT 1),
           extract(epoch FROM {now})::float8
"""

_HELD = """
    WITH held AS (
        SELECT {id} AS id, {lease_token} AS token, {queue} AS name FROM {table}
        WHERE {id} = ANY (%s::bigint[]) AND {lease_token} = ANY (%s::bigint[])
        ORDER BY {id} FOR UPDATE
    )
"""

_REMOVE = """
    DELETE FROM {table} WHERE {id} = ANY (ARRAY(SELECT id FROM held)) RETURNING {id}, {lease_token}
"""

_FINISH = """
    , gone AS (
        DELETE FROM {table} WHERE {id} = ANY (ARRAY(SELECT id FROM held))
        RETURNING {id} AS id, {lease_token} AS token, {task_id} AS task_id
    ), kept AS (<saving>)
    SELECT id, token FROM gone
"""

_PUT_BACK = """
    , back AS (
        UPDATE {table}
        SET {ready} = %s, {visible_at} = {now} + %s * interval '1 second', {lease_token} = NULL, {leased_by} = '',
            {deliveries} = greatest({deliveries} - %s, 0)
        WHERE {id} = ANY (ARRAY(SELECT id FROM held))
        RETURNING {queue}
    )
    SELECT id, token, (SELECT count(pg_notify(%s, name)) FROM (SELECT DISTINCT {queue} AS name FROM back) AS names
                       WHERE %s)
    FROM held
"""

_RENEW = """
    UPDATE {table} SET {visible_at} = {now} + %s * interval '1 second'
    WHERE {id} = ANY (ARRAY(SELECT id FROM held))
    RETURNING {id}, {lease_token}
"""

_DISCARD = """
    WITH found AS (
        SELECT {id} AS id FROM {table}
        WHERE {task_id} = ANY (%s::text[]) AND {broker} = %s AND {lease_token} IS NULL
        ORDER BY {id} FOR UPDATE SKIP LOCKED
    )
    DELETE FROM {table} WHERE {id} = ANY (ARRAY(SELECT id FROM found)) RETURNING {row}
"""

_PURGE = """
    WITH found AS (
        SELECT {id} AS id FROM {table}
        WHERE {broker} = %s AND {queue} = %s AND {lease_token} IS NULL AND {id} > %s
        ORDER BY {id} LIMIT %s FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {table} WHERE {id} = ANY (ARRAY(SELECT id FROM found)) RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT coalesce(max(id), 0) FROM found)
"""
