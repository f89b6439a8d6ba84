"""How do tests have periodic tasks, and beats that look at a clock of theirs?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections

from django_tasks.beat.beat import Beat
from django_tasks.beat.tick import BATCH, Ticked, tick
from django_tasks.models import PeriodicTask, QueuedMessage, ScheduledRun

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
"""When the clock of a test begins; a moment of the grid of every interval here."""


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def settings_at(alias: str) -> dict[str, Any]:
    """Return settings that have messages and results in one database."""
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    return {"BROKERS": backend, "RESULTS": backend}


def periodic(alias: str, name: str = "a", schedule: str = "every 10 seconds", **fields: Any) -> PeriodicTask:
    """Make a row at noon."""
    made = PeriodicTask(**{"name": name, "task": "tests.unknown", "schedule": schedule, **fields})
    return many(alias, [made])[0]


def many(alias: str, rows: Sequence[PeriodicTask]) -> list[PeriodicTask]:
    PeriodicTask.objects.using(alias).bulk_create(rows)
    at_noon(alias)
    return list(PeriodicTask.objects.using(alias).filter(name__in=[row.name for row in rows]).order_by("pk"))


def at_noon(alias: str, seconds: float = 0.0) -> None:
    """Have rows that were changed, by the clock of this host, have been changed at noon or so much later."""
    changed = PeriodicTask.as_they_are.using(alias).filter(planned=False)
    changed.update(changed_at=at(seconds), next_run_at=at(seconds))


def look(alias: str, seconds: float, *, limit: int = BATCH, seed: int = 1) -> Ticked:
    """Tick so many seconds after noon."""
    return tick(alias, at(seconds), limit=limit, rng=random.Random(seed))


def slots(alias: str, name: str = "a", *outcomes: str) -> list[float]:
    """Return the slots that were run, or had one of these outcomes, as seconds after noon."""
    runs = ScheduledRun.objects.using(alias).filter(periodic_task__name=name)
    runs = runs.filter(outcome__in=outcomes) if outcomes else runs.exclude(task_id="")
    return [(slot - NOON).total_seconds() for slot in runs.order_by("slot_at").values_list("slot_at", flat=True)]


def sent(alias: str) -> list[str]:
    """Return the ids of messages that wait, in the order in which they were sent."""
    return list(QueuedMessage.objects.using(alias).order_by("pk").values_list("task_id", flat=True))


class Clock:
    """A clock that a test sets, in seconds after noon."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> datetime:
        return at(self.seconds)


def beat(alias: str, clock: Clock, **options: Any) -> Beat:
    return Beat(alias, name="beat@test", clock=clock, rng=random.Random(1), **options)


def close(alias: str) -> None:
    connections[alias].close()
