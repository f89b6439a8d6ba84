"""Which periodic tasks does django-celery-beat have in its tables? They are read whether or not it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections
from django.utils.dateparse import parse_datetime

from django_tasks.exceptions import ConfigurationError, ScheduleError
from django_tasks.models import PeriodicTask
from django_tasks.schedules import Schedule, clocked, crontab, every, solar

_PREFIX = "django_celery_beat_"
_TASKS = f"{_PREFIX}periodictask"
_OURS = {"celery.backend_cleanup": "workers remove expired results by themselves"}
"""Tasks of Celery that nobody need run here."""

Row = Mapping[str, Any]


def brought_over(using: str) -> tuple[list[PeriodicTask], list[tuple[str, str]]]:
    """Return the rows that stand for those of django-celery-beat, not saved, and the names of those that have none,
    each with the reason. Raises ConfigurationError where its tables are not there."""
    with connections[using].cursor() as cursor:
        tables = set(connections[using].introspection.table_names(cursor))
        if _TASKS not in tables:
            raise ConfigurationError(
                f"The database {using!r} has no table {_TASKS}: django-celery-beat was never there."
            )
        found = _all(cursor, _TASKS)
        kinds = {kind: {row["id"]: row for row in _all(cursor, _PREFIX + table)} for kind, (table, _) in _KINDS.items()}
    taken = set(PeriodicTask.objects.using(using).values_list("name", flat=True))
    rows: list[PeriodicTask] = []
    left: list[tuple[str, str]] = []
    for row in sorted(found, key=lambda each: str(each["name"])):
        if row["task"] in _OURS:
            left.append((row["name"], _OURS[row["task"]]))
        elif row["name"] in taken:
            left.append((row["name"], "there is a periodic task of this name"))
        else:
            try:
                rows.append(_ours(row, _schedule(row, kinds)))
            except (ScheduleError, TypeError, ValueError) as error:
                left.append((row["name"], str(error)))
    return rows, left


def _all(cursor: Any, table: str) -> list[Row]:
    cursor.execute(f"SELECT * FROM {table}")  # noqa: S608  # one of five names, all ours
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def _schedule(row: Row, kinds: Mapping[str, Mapping[Any, Row]]) -> Schedule:
    for kind, (_, make) in _KINDS.items():
        if (number := row.get(f"{kind}_id")) is not None:
            return make(kinds[kind][number])
    raise ValueError("it has no schedule")


def _interval(row: Row) -> Schedule:
    return every(timedelta(**{row["period"]: row["every"]}))


def _crontab(row: Row) -> Schedule:
    said = {field: str(row[field]).replace(" ", "") for field in _CRONTAB}
    return crontab(**said, tz=str(row.get("timezone") or "UTC"))


_CRONTAB = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


def _solar(row: Row) -> Schedule:
    return solar(row["event"], float(row["latitude"]), float(row["longitude"]))


def _clocked(row: Row) -> Schedule:
    moment = _moment(row["clocked_time"])
    if moment is None:
        raise ValueError("it has no time")
    return clocked(moment)


_KINDS: Mapping[str, tuple[str, Callable[[Row], Schedule]]] = {
    "interval": ("intervalschedule", _interval),
    "crontab": ("crontabschedule", _crontab),
    "solar": ("solarschedule", _solar),
    "clocked": ("clockedschedule", _clocked),
}


def _ours(row: Row, schedule: Schedule) -> PeriodicTask:
    headers = json.loads(row.get("headers") or "{}")
    return PeriodicTask(
        name=row["name"],
        task=row["task"],
        schedule=schedule.text(),
        args=row.get("args") or "[]",
        kwargs=row.get("kwargs") or "{}",
        queue=row.get("queue") or "",
        priority=row.get("priority"),
        headers=json.dumps(headers),
        expires=row.get("expire_seconds"),
        end_at=_moment(row.get("expires")),
        start_at=_moment(row.get("start_time")),
        one_off=bool(row.get("one_off")),
        enabled=bool(row["enabled"]),
        description=row.get("description") or "",
        last_run_at=_moment(row.get("last_run_at")),
        total_run_count=row.get("total_run_count") or 0,
    )


def _moment(value: Any) -> datetime | None:
    """Return a moment as the driver gave it: some give text, some no zone, which is UTC then."""
    found = parse_datetime(value) if isinstance(value, str) else value
    if not isinstance(found, datetime):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
