"""Where are results kept when the project's own database keeps them?"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.backends.utils import CursorWrapper

from django_tasks.database_fitness import examine
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import ConfigurationError, StoreUnavailable
from django_tasks.message import Clock
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore, Saving
from django_tasks.results.group_rows import GroupRows
from django_tasks.results.groups import Groups
from django_tasks.results.rows import KEPT_OTHERS, KEPT_TEXTS, Row, from_row, history_line, to_row
from django_tasks.results.tables import TABLES
from django_tasks.transactions import explain, retrying

T = TypeVar("T")

OPTIONS = ("EXPIRES", "USING")

ROWS = 500
"""How many results, or ids, one statement names."""

FIRST_POLL, LONGEST_POLL = 0.0005, 0.25
"""Seconds between two looks at a result that is waited for, at first and after a while. The first is about as long as
a look takes: a task that nobody is before is done after a few."""

TICK = 0.005
"""Seconds between two looks at the version of an SQLite file."""


class DatabaseStore(ResultStore):
    """Keeps results in a table, where a final one stays as it is.

    `OPTIONS`: `USING` is the alias of the database ("default"), whatever routers say; `EXPIRES` the timedelta after
    which results are removed (7 days), None for never.
    """

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        if unknown := sorted(set(self.options) - set(OPTIONS)):
            raise ConfigurationError(
                f"The database store {alias!r} has no option {unknown[0]!r}; it has {', '.join(OPTIONS)}."
            )
        self.using: str = self.options.get("USING", DEFAULT_DB_ALIAS)
        self.database = self.using
        self._vendor = _vendor(alias, self.using)
        self._table = TABLES[self._vendor](self.using)
        self.groups: Groups = GroupRows(self.using)

    def save(self, results: Sequence[Result]) -> None:
        """Write results, in the order of their ids, so that no two savers wait for each other.

        Saving them twice is saving them once.
        """
        rows = _rows(results)
        if not rows:
            return

        def write(cursor: CursorWrapper) -> None:
            for chunk in _chunks(rows):
                self._table.write(cursor, chunk)

        # SQLite takes a statement for each row, others one for all.
        self._run(write, atomic=len(rows) > (1 if self._vendor == "sqlite" else ROWS))

    def saving(self, results: Sequence[Result], among: str) -> Saving | None:
        # A store of somebody's own that saves in another way is to be asked for that.
        own = type(self).save is DatabaseStore.save
        return self._table.saving(_rows(results), among) if own and 0 < len(results) <= ROWS else None

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        return self._found(list(dict.fromkeys(ids)), ended=False)

    def _found(self, ids: Sequence[str], *, ended: bool) -> dict[str, Result]:
        # Not by way of a model: a router may send its reads elsewhere, and to make the query takes longer than to ask.
        rows: dict[str, Row] = {}
        for chunk in _chunks(ids):
            rows |= {row[0]: row for row in self._run(partial(self._table.read, chunk, ended=ended))}
        return {task_id: from_row(rows[task_id]) for task_id in ids if task_id in rows}

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        """Look again and again, less often as time goes by; on SQLite, as soon as anybody has written to the file."""
        unique = list(dict.fromkeys(ids))
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        began = time.monotonic()
        while unique:
            version = self._version()
            if ended := self._found(unique, ended=True):
                return ended
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if version is None:
                # A tenth of the time waited so far: that is what looking too late adds at most, whatever a task takes.
                pause = min(max(FIRST_POLL, (time.monotonic() - began) / 10), LONGEST_POLL)
                time.sleep(min(left, pause * random.uniform(0.8, 1.2)))
            else:
                self._rest(version, deadline)
        return {}

    def _version(self) -> int | None:
        """Return the version of an SQLite file, which changes when another connection commits."""
        connection: Any = connections[self.using]
        if self._vendor != "sqlite" or connection.is_in_memory_db():
            return None
        return self._run(_data_version)

    def _rest(self, version: int, deadline: float) -> None:
        while self._version() == version and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(TICK, left))

    def forget(self, ids: Sequence[str]) -> int:
        return sum(self._run(partial(self._table.delete, chunk)) for chunk in _chunks(list(dict.fromkeys(ids))))

    def expire(self, before: datetime, limit: int = 1000) -> int:
        return self._run(lambda cursor: self._table.prune(cursor, before, limit), atomic=True) if limit > 0 else 0

    def diagnose(self, *, ask: bool = True) -> Diagnosis:
        try:
            return examine(self.using, ask=ask, clock=self.clock)
        except Error as error:
            raise StoreUnavailable(explain(self.using, error)) from error

    def _run(self, statements: Callable[[CursorWrapper], T], *, atomic: bool = False) -> T:
        def attempt() -> T:
            with connections[self.using].cursor() as cursor:
                return statements(cursor)

        try:
            return retrying(self.using, attempt, atomic=atomic)
        except (Error, ValueError) as error:
            raise StoreUnavailable(explain(self.using, error)) from error


def _vendor(alias: str, using: str) -> str:
    if using not in connections.settings:
        known = ", ".join(repr(name) for name in connections.settings)
        raise ConfigurationError(f"The database store {alias!r}: no USING {using!r} in DATABASES, which has {known}.")
    vendor = connections[using].vendor
    if vendor not in TABLES:
        raise ConfigurationError(
            f"The database store {alias!r} does not know {vendor}, the database {using!r}. Let OPTIONS['USING'] name "
            "one in PostgreSQL, MySQL, MariaDB or SQLite, or use another store."
        )
    return vendor


def _rows(results: Sequence[Result]) -> list[Row]:
    """Return results as rows, one for each id, in the order of their ids."""
    merged = _merged(results)
    return [to_row(*merged[task_id]) for task_id in sorted(merged)]


def _merged(results: Sequence[Result]) -> dict[str, tuple[Result, str]]:
    """Return the one result of each id that counts, with the lines that the history gains."""
    merged: dict[str, tuple[Result, str]] = {}
    for result in results:
        before = merged.get(result.id)
        if before is None:
            merged[result.id] = result, history_line(result)
        elif not before[0].final:
            merged[result.id] = _after(before[0], result), before[1] + history_line(result)
    return merged


def _after(before: Result, after: Result) -> Result:
    """Return the later result, with what it leaves out taken from the one before."""
    left_out = {name: getattr(before, name) for name in (*KEPT_TEXTS, *KEPT_OTHERS) if not getattr(after, name)}
    return replace(after, **left_out)


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), ROWS):
        yield values[start : start + ROWS]


def _data_version(cursor: CursorWrapper) -> int:
    cursor.execute("PRAGMA data_version")
    return int(cursor.fetchone()[0])
