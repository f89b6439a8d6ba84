"""How does each vendor write results, leave alone those that are final, and remove old ones?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, cast
from zoneinfo import ZoneInfo

from django.db import connections
from django.db.backends.utils import CursorWrapper

from django_tasks import states
from django_tasks.models import TaskResult
from django_tasks.results.base import Saving
from django_tasks.results.rows import COLUMNS, HISTORY, KEPT_OTHERS, KEPT_TEXTS, TIMES, Row
from django_tasks.schema import number_array, text_array, time_array

FINAL = "(" + ", ".join(f"'{state}'" for state in sorted(states.FINAL)) + ")"


class Table(ABC):
    """The statements of one vendor, over the alias `using`."""

    upsert: ClassVar[str]
    expire: ClassVar[str]
    new: ClassVar[str] = "excluded.{}"
    old: ClassVar[str] = "old.{}"
    joined: ClassVar[str] = "{} || {}"
    tail: ClassVar[str] = "right({}, {})"

    def __init__(self, using: str) -> None:
        self.using = using
        quote = connections[using].ops.quote_name
        options = TaskResult._meta
        self.names = {field.name: quote(str(field.column)) for field in options.concrete_fields}
        self.names["table"] = quote(options.db_table)
        self._upsert = self.sql(self.upsert)
        self._expire = self.sql(self.expire)
        self._read = self.sql(_READ)
        self._ended = self.sql(_ENDED)

    def sql(self, template: str) -> str:
        """Return a statement with the names of table and columns filled in."""
        return template.format(
            **self.names,
            columns=", ".join(self.names[column] for column in COLUMNS),
            read=", ".join(self.names[column] for column in COLUMNS if column != "history"),
            arrays=", ".join(f"%s::{kind}[]" for kind in COLUMNS.values()),
            marks=", ".join(["%s"] * len(COLUMNS)),
            updates=", ".join(f"{self.names[column]} = {self.later(column)}" for column in UPDATED),
            final=FINAL,
        )

    @abstractmethod
    def write(self, cursor: CursorWrapper, rows: Sequence[Row]) -> None:
        """Insert rows, no two of one id; where there is one that is not final, it becomes what came later."""

    def saving(self, rows: Sequence[Row], among: str) -> Saving | None:
        """Return `write` as a part of another statement, for rows whose ids `among` selects, if there is such a way."""
        return None

    def prune(self, cursor: CursorWrapper, before: datetime, limit: int) -> int:
        """Delete rows that ended before a time; return how many."""
        cursor.execute(self._expire, [before, limit])
        return int(cursor.rowcount)

    def read(self, ids: Sequence[str], cursor: CursorWrapper, *, ended: bool = False) -> list[Row]:
        """Return the rows of tasks without their histories; with `ended`, of those that are in a final state."""
        cursor.execute(_listing(self._ended if ended else self._read, ids), ids)
        moment = self.moment
        return [(*row[: TIMES.start], *map(moment, row[TIMES]), *row[TIMES.stop :]) for row in cursor.fetchall()]

    def delete(self, ids: Sequence[str], cursor: CursorWrapper) -> int:
        """Delete rows; return how many there were."""
        cursor.execute(_listing(self.sql(_DELETE), ids), ids)
        return int(cursor.rowcount)

    def moment(self, value: Any) -> datetime | None:
        """Return a time, as the driver gave it, with its zone, whatever the project's settings say of zones."""
        return None if value is None else value.replace(tzinfo=UTC)

    def later(self, column: str) -> str:
        """Say what a column holds after a later result."""
        new, old = self.new.format(self.names[column]), self.old.format(self.names[column])
        if column in KEPT_TEXTS:
            return f"coalesce(nullif({new}, ''), {old})"
        if column in KEPT_OTHERS:
            return f"coalesce({new}, {old})"
        if column == "history":
            # A line that stands there already comes of a result that was written twice.
            end = self.tail.format(old, f"length({new})")
            both = self.tail.format(self.joined.format(old, new), HISTORY)
            return f"CASE WHEN {new} = '' OR {end} = {new} THEN {old} ELSE {both} END"
        return new


class PostgreSQLTable(Table):
    """Sends one array a column: the statement is the same for any number of rows, and the driver has little to do."""

    upsert = """
        INSERT INTO {table} AS old ({columns}) SELECT * FROM unnest({arrays}) AS new ({columns}) WHERE <wanted>
        ON CONFLICT ({task_id}) DO UPDATE SET {updates} WHERE old.{state} NOT IN {final}
    """
    expire = """
        DELETE FROM {table} WHERE {task_id} = ANY (ARRAY(
            SELECT {task_id} FROM {table} WHERE {ended_at} < %s ORDER BY {ended_at} LIMIT %s FOR UPDATE SKIP LOCKED
        ))
    """

    def write(self, cursor: CursorWrapper, rows: Sequence[Row]) -> None:
        cursor.execute(self._upsert.replace("<wanted>", "TRUE"), _arrays(rows))

    def saving(self, rows: Sequence[Row], among: str) -> Saving:
        wanted = f"new.{self.names['task_id']} IN ({among})"
        return Saving(self._upsert.replace("<wanted>", wanted), _arrays(rows))

    def moment(self, value: Any) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return cast("datetime | None", value)
        return cast(datetime, value.replace(tzinfo=ZoneInfo(connections[self.using].timezone_name)))


class SQLiteTable(Table):
    upsert = """
        INSERT INTO {table} AS old ({columns}) VALUES ({marks})
        ON CONFLICT ({task_id}) DO UPDATE SET {updates} WHERE old.{state} NOT IN {final}
    """
    expire = """
        DELETE FROM {table} WHERE {task_id} IN (
            SELECT {task_id} FROM {table} WHERE {ended_at} < %s ORDER BY {ended_at} LIMIT %s
        )
    """
    tail = "substr({}, -({}))"

    def write(self, cursor: CursorWrapper, rows: Sequence[Row]) -> None:
        # sqlite3 turns a datetime into this text too, but says that it will not for ever.
        values = [
            (*row[: TIMES.start], *[moment and str(moment) for moment in _utc(row)], *row[TIMES.stop :]) for row in rows
        ]
        cursor.executemany(self._upsert, values)

    def prune(self, cursor: CursorWrapper, before: datetime, limit: int) -> int:
        cursor.execute(self._expire, [str(_zoneless(before)), limit])
        return int(cursor.rowcount)


class MySQLTable(Table):
    upsert = "INSERT INTO {table} ({columns}) VALUES <rows> ON DUPLICATE KEY UPDATE {updates}"
    expire = "DELETE FROM {table} WHERE {ended_at} < %s ORDER BY {ended_at} LIMIT %s"
    new = "VALUES({})"
    old = "{}"
    joined = "concat({}, {})"

    def later(self, column: str) -> str:
        return f"IF({self.names['state']} IN {FINAL}, {self.names[column]}, {super().later(column)})"

    def write(self, cursor: CursorWrapper, rows: Sequence[Row]) -> None:
        marks = f"({', '.join(['%s'] * len(COLUMNS))})"
        statement = self._upsert.replace("<rows>", ", ".join([marks] * len(rows)))
        cursor.execute(
            statement, [value for row in rows for value in (*row[: TIMES.start], *_utc(row), *row[TIMES.stop :])]
        )

    def prune(self, cursor: CursorWrapper, before: datetime, limit: int) -> int:
        return super().prune(cursor, _zoneless(before), limit)


TABLES: Mapping[str, type[Table]] = {"mysql": MySQLTable, "postgresql": PostgreSQLTable, "sqlite": SQLiteTable}
"""By Django's name of the vendor."""

_READ = "SELECT {read} FROM {table} WHERE {task_id} IN (<ids>)"

_ENDED = _READ + " AND {state} IN {final}"

_DELETE = "DELETE FROM {table} WHERE {task_id} IN (<ids>)"

_ARRAYS: Mapping[str, Callable[[tuple[Any, ...]], str]] = {
    "text": text_array,
    "integer": number_array,
    "float8": number_array,
    "timestamptz": time_array,
}

UPDATED = (*(column for column in COLUMNS if column not in ("task_id", "state")), "state")
"""MySQL assigns from left to right, and each assignment asks for the state, so that comes last."""


def _arrays(rows: Sequence[Row]) -> list[str]:
    columns = zip(COLUMNS.values(), zip(*rows, strict=True), strict=True)
    return [_ARRAYS[kind](values) for kind, values in columns]


def _listing(statement: str, ids: Sequence[str]) -> str:
    return statement.replace("<ids>", ", ".join(["%s"] * len(ids)))


def _utc(row: Row) -> list[datetime | None]:
    """Return the times of a row as columns without zones hold them."""
    return [None if moment is None else _zoneless(moment) for moment in row[TIMES]]


def _zoneless(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
