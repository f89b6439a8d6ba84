"""How is a periodic task run by hand?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django_tasks.beat.calls import plan_of
from django_tasks.beat.clock import server_time
from django_tasks.message import new_id
from django_tasks.models import PeriodicTask, ScheduledRun
from django_tasks.plan import joined
from django_tasks.publisher import publish
from django_tasks.transactions import retrying


def run_now(rows: Sequence[PeriodicTask], by: str, *, using: str) -> list[str]:
    """Send the calls of periodic tasks now, enabled or not, beside what their schedules say; return the ids of the
    tasks.

    Nothing of their schedules changes, nor what is known of the run before: this is no slot. All are sent or none;
    raises PublishError, a database's error, or one of `calls.MISFITS`.
    """
    now = server_time(using)
    ids = [new_id() for _ in rows]
    plans = [plan_of(row, task_id) for row, task_id in zip(rows, ids, strict=True)]
    slot = _between_slots(now)

    def send() -> None:
        # Made anew each time: rows that were rolled back have kept their keys.
        ScheduledRun.objects.using(using).bulk_create(
            ScheduledRun(
                periodic_task=row,
                slot_at=slot,
                published_at=now,
                lateness=0.0,
                task_id=task_id,
                note=f"by hand, {by}",
            )
            for row, task_id in zip(rows, ids, strict=True)
        )
        publish(joined(plans))

    retrying(using, send)
    return ids


def _between_slots(now: datetime) -> datetime:
    """Return a moment between whole milliseconds, where it stands in the way of no slot of a usual schedule."""
    return now + timedelta(microseconds=1) if now.microsecond % 1000 == 0 else now
