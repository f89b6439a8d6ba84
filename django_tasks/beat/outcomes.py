"""What came of the runs of periodic tasks?"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError
from django.db.models import F
from django.utils import timezone

from django_tasks import signals, states
from django_tasks.beat.calls import HEADER
from django_tasks.connections import home
from django_tasks.models import PeriodicTask, ScheduledRun
from django_tasks.transactions import retrying

_log = logging.getLogger("django_tasks.beat")

_OUTCOMES = {
    states.SUCCESS: ScheduledRun.Outcome.SUCCEEDED,
    states.FAILURE: ScheduledRun.Outcome.FAILED,
    states.REJECTED: ScheduledRun.Outcome.FAILED,
    states.REVOKED: ScheduledRun.Outcome.REVOKED,
}


def connect() -> None:
    """Have a worker write down how the runs end that it settles, and who revokes some that those are over."""
    signals.settled.connect(_settled, dispatch_uid="django_tasks.beat.outcomes")
    signals.task_revoked.connect(_revoked, dispatch_uid="django_tasks.beat.outcomes")


def _settled(done: Iterable[Any], **_: Any) -> None:
    ended: dict[str, list[str]] = {}
    for delivery, outcome in done:
        if outcome.state in _OUTCOMES and HEADER in delivery.message.headers:
            ended.setdefault(_OUTCOMES[outcome.state], []).append(delivery.message.id)
    if ended:
        _tell(ended)


def _revoked(ids: Sequence[str], **_: Any) -> None:
    _tell({ScheduledRun.Outcome.REVOKED: list(ids)})


def _tell(ended: dict[str, list[str]]) -> None:
    try:
        record(home(), ended, timezone.now())
    except DatabaseError as error:
        # The result says it too, and that is asked where it matters.
        _log.warning("What came of scheduled runs is not written down", extra={"error": str(error)})


def record(using: str, ended: dict[str, list[str]], now: datetime) -> None:
    """Write down how tasks ended, by outcome; pause what has failed too often in a row. Statements are bounded by the
    number of outcomes, not of tasks."""
    retrying(using, lambda: _record(using, ended, now))


def _record(using: str, ended: dict[str, list[str]], now: datetime) -> None:
    periodic = PeriodicTask.as_they_are.using(using)
    for outcome, ids in ended.items():
        runs = ScheduledRun.objects.using(using).filter(task_id__in=ids, outcome=ScheduledRun.Outcome.SENT)
        owners = list(runs.values_list("periodic_task_id", flat=True))
        if not owners or not runs.update(outcome=outcome, ended_at=now):
            continue
        mine = periodic.filter(pk__in=owners, pause_after__isnull=False)
        if outcome == ScheduledRun.Outcome.SUCCEEDED:
            mine.filter(failures__gt=0).update(failures=0)
        elif outcome == ScheduledRun.Outcome.FAILED:
            mine.update(failures=F("failures") + 1)
            mine.filter(enabled=True, failures__gte=F("pause_after")).update(
                enabled=False, planned=False, error="paused: it has failed as often in a row as it may"
            )


def prune(using: str, age: timedelta | None, batch: int = 1000) -> int:
    """Remove runs that are older than an age, a batch at a time; return how many."""
    if age is None:
        return 0
    old = ScheduledRun.objects.using(using).filter(created_at__lt=timezone.now() - age)
    ids = list(old.order_by("created_at").values_list("pk", flat=True)[:batch])
    removed = ScheduledRun.objects.using(using).filter(pk__in=ids)._raw_delete(using) if ids else 0
    return int(removed or 0)
