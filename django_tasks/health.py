"""Are tasks being run, and periodic tasks sent? What each part last said of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db import DatabaseError
from django.utils import timezone

from django_tasks.connections import home
from django_tasks.models import BeatNode, PeriodicTask, WorkerNode
from django_tasks.transactions import explain
from django_tasks.worker.presence import HEARD

LATE = timedelta(seconds=30)
"""How long after its time a periodic task may be sent without a word."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What one part says of itself."""

    what: str
    well: bool
    words: str


def examined() -> list[Sign]:
    """Look at the database, workers and beats; a database that does not answer is one of the signs."""
    using = home()
    try:
        return [Sign("database", well=True, words=f"{using!r} answers"), _workers(using), *beats(using)]
    except DatabaseError as error:
        return [Sign("database", well=False, words=explain(using, error))]


def _workers(using: str) -> Sign:
    nodes = WorkerNode.objects.using(using).filter(heartbeat_at__gte=timezone.now() - HEARD)
    alive = nodes.exclude(status=WorkerNode.Status.OFFLINE).count()
    words = f"{alive} alive" if alive else "none has been heard of for 30 seconds; start `manage.py runworker`"
    return Sign("workers", well=alive > 0, words=words)


def beats(using: str) -> list[Sign]:
    """Tell whether periodic tasks are sent; nothing where there are none."""
    now = timezone.now()
    enabled = PeriodicTask.objects.using(using).filter(enabled=True, next_run_at__isnull=False)
    first = enabled.order_by("next_run_at").values_list("next_run_at", flat=True).first()
    if first is None:
        return []
    last = BeatNode.objects.using(using).order_by("-ticked_at").values_list("ticked_at", flat=True).first()
    if last is None or now - last > HEARD:
        told = "never" if last is None else f"{(now - last).total_seconds():.0f} seconds ago"
        return [Sign("beat", well=False, words=f"last tick {told}; start `manage.py beat` or `runworker --beat`")]
    if now - first > LATE:
        late = (now - first).total_seconds()
        return [Sign("beat", well=False, words=f"a periodic task is {late:.0f} seconds late; see the beat's log")]
    return [Sign("beat", well=True, words=f"last tick {max(0.0, (now - last).total_seconds()):.0f} seconds ago")]
