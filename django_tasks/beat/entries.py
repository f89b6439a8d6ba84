"""How are the rows kept equal with what the code declares?"""

from __future__ import annotations

import json
import logging
from typing import Any

from django.db import models
from django.utils import timezone

from django_tasks.exceptions import ConfigurationError
from django_tasks.models import PeriodicTask
from django_tasks.periodic import Entry, entries
from django_tasks.querysets import anew
from django_tasks.transactions import retrying

_log = logging.getLogger("django_tasks.beat")

_SAME: tuple[str, ...] = (
    *("task", "queue", "priority", "expires", "timezone", "start_at", "end_at", "one_off"),
    *("missed", "missed_limit", "overlap", "jitter", "pause_after", "description"),
)
_PLANNING = ("schedule", "timezone", "start_at", "end_at")


def synchronize(using: str) -> None:
    """Write entries of the code and the settings as rows, and remove those that are there no more.

    Whether a row is enabled is left as operators have it, and when it is due as well unless its schedule has changed.
    Raises ConfigurationError for an entry that cannot be.
    """
    wanted = entries()
    told = {name: _values(entry) for name, entry in wanted.items()}
    retrying(using, lambda: _synchronize(using, wanted, told))


def _synchronize(using: str, wanted: dict[str, Entry], told: dict[str, dict[str, Any]]) -> None:
    rows = PeriodicTask.as_they_are.using(using)
    known = {row.name: row for row in rows.filter(models.Q(from_code=True) | models.Q(name__in=wanted))}
    for name, values in told.items():
        row = known.get(name)
        if row is None:
            _added(using, wanted[name], values)
        elif not row.from_code:
            _log.warning(
                "A periodic task of the code has the name of a row; the row stays", extra={"periodic_task": name}
            )
        elif changed := {field: value for field, value in values.items() if getattr(row, field) != value}:
            if changed.keys() & set(_PLANNING):
                changed |= anew()
            rows.filter(pk=row.pk).update(**changed)
            _log.info("A periodic task of the code has changed", extra={"periodic_task": name})
    gone = [row.pk for name, row in known.items() if row.from_code and name not in wanted]
    if gone:
        PeriodicTask.objects.using(using).filter(pk__in=gone).delete()
        _log.info("Periodic tasks are in the code no more", extra={"number": len(gone)})


def _added(using: str, entry: Entry, values: dict[str, Any]) -> None:
    row = PeriodicTask(name=entry.name, from_code=True, enabled=entry.enabled, **values)
    for field, value in anew().items():
        setattr(row, field, value)
    # Another beat may be at the same.
    PeriodicTask.objects.using(using).bulk_create([row], ignore_conflicts=True)
    _log.info("A periodic task of the code is new", extra={"periodic_task": entry.name})


def _values(entry: Entry) -> dict[str, Any]:
    """Return the fields of the row of an entry."""
    values: dict[str, Any] = {field: getattr(entry, field) for field in _SAME}
    for field in ("start_at", "end_at"):
        if values[field] is not None and timezone.is_naive(values[field]):
            values[field] = timezone.make_aware(values[field])
    try:
        values["schedule"] = entry.schedule.text()
        values |= {
            field: json.dumps(value)
            for field, value in (
                ("args", list(entry.args)),
                ("kwargs", dict(entry.kwargs)),
                ("headers", dict(entry.headers)),
            )
        }
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"The periodic task {entry.name!r} cannot be kept: {error}") from error
    return values
