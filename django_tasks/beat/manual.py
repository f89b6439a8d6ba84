"""How is a periodic task run by hand?"""

from __future__ import annotations

from collections.abc import Sequence

from django_tasks.beat.calls import call_of
from django_tasks.beat.clock import server_time
from django_tasks.canvas.calls import ORPHAN
from django_tasks.canvas.steps import Step
from django_tasks.message import new_id
from django_tasks.models import PeriodicTask, ScheduledRun
from django_tasks.plan import joined
from django_tasks.publisher import publish
from django_tasks.transactions import retrying


def run_now(rows: Sequence[PeriodicTask], by: str, *, using: str) -> list[str]:
    """Send the calls of periodic tasks now, beside what their schedules say; return the ids of the tasks.

    Nothing of their schedules changes. All are sent or none; raises Unfit, PublishError or what a call that cannot be
    sent raises.
    """
    now = server_time(using)
    calls = [call_of(row, new_id()).frozen() for row in rows]
    plans = [call.begin(Step(ORPHAN, replies=False)) for call in calls]
    runs = [
        ScheduledRun(
            periodic_task=row, slot_at=now, published_at=now, lateness=0.0, task_id=call.id or "", note=f"by hand, {by}"
        )
        for row, call in zip(rows, calls, strict=True)
    ]

    def send() -> None:
        ScheduledRun.objects.using(using).bulk_create(runs)
        publish(joined(plans))

    retrying(using, send)
    return [run.task_id for run in runs]
