"""How are many rows written at once? In one call to the driver, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_tasks.models import PeriodicTask, ScheduledRun

_MOVED = (
    "planned",
    "enabled",
    "slot_at",
    "next_run_at",
    "waiting_at",
    "last_run_at",
    "last_task_id",
    "total_run_count",
    "error",
)
"""What a tick writes."""


def move_on(using: str, rows: Sequence[PeriodicTask]) -> None:
    """Write what a tick has made of rows that it holds.

    `bulk_update` names each row in a CASE for each column, and takes fifty times as long.
    """
    if not rows:
        return
    connection = connections[using]
    fields = _columns(PeriodicTask, *_MOVED)
    if connection.vendor == "mysql":
        # Drivers send an UPDATE row by row. The rows are there, and so none of these is inserted.
        moved = [
            PeriodicTask(id=row.pk, name=row.name, **{name: getattr(row, name) for name in _MOVED}) for row in rows
        ]
        PeriodicTask.as_they_are.using(using).bulk_create(moved, update_conflicts=True, update_fields=_MOVED)
    elif connection.vendor == "postgresql":
        _update_from_arrays(connection, fields, rows)
    else:
        quote = connection.ops.quote_name
        told = ", ".join(f"{quote(field.column)} = %s" for field in fields)
        values = [(*_values(connection, fields, row), row.pk) for row in rows]
        with connection.cursor() as cursor:
            cursor.executemany(f"UPDATE {_table(connection, PeriodicTask)} SET {told} WHERE id = %s", values)  # noqa: S608


def _update_from_arrays(connection: BaseDatabaseWrapper, fields: Sequence[Any], rows: Sequence[PeriodicTask]) -> None:
    columns = [*_columns(PeriodicTask, "id"), *fields]
    arrays = [list(column) for column in zip(*(_values(connection, columns, row) for row in rows), strict=True)]
    names = ", ".join(connection.ops.quote_name(field.column) for field in columns)
    told = ", ".join(f"{name} = new.{name}" for name in names.split(", ")[1:])
    given = ", ".join(f"%s::{_type(connection, field)}[]" for field in columns)
    table = _table(connection, PeriodicTask)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {told} FROM unnest({given}) AS new({names}) WHERE {table}.id = new.id",  # noqa: S608
            arrays,
        )


def record(using: str, runs: Sequence[ScheduledRun]) -> None:
    """Write what becomes of slots, but for those that have a row."""
    connection = connections[using]
    if connection.vendor != "sqlite":
        ScheduledRun.objects.using(using).bulk_create(runs, ignore_conflicts=True)
        return
    # As many to a statement as it takes variables would be a few.
    fields: list[Any] = [field for field in ScheduledRun._meta.concrete_fields if not field.primary_key]
    names = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT OR IGNORE INTO {_table(connection, ScheduledRun)} ({names}) VALUES ({places})",  # noqa: S608
            [_values(connection, fields, run) for run in runs],
        )


def _columns(model: type[models.Model], *names: str) -> list[Any]:
    return [model._meta.get_field(name) for name in names]


def _values(connection: BaseDatabaseWrapper, fields: Sequence[Any], row: models.Model) -> list[Any]:
    return [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]


def _type(connection: BaseDatabaseWrapper, field: Any) -> str:
    return str(field.rel_db_type(connection) if field.primary_key else field.db_type(connection)).split("(")[0]


def _table(connection: BaseDatabaseWrapper, model: type[models.Model]) -> str:
    return str(connection.ops.quote_name(model._meta.db_table))
