"""What do the benchmarks of beats ask of the tables, in a process that has Django set up?"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db.models import F

from benchmarks.tasks import noop
from django_tasks.beat.tick import latest, tick
from django_tasks.models import PeriodicTask, QueuedMessage, ScheduledRun

FIRST = datetime(2020, 1, 1, tzinfo=UTC)
"""Where the grids of all schedules begin."""
CENTURY = timedelta(days=36_525)
LEAD = 10.0
"""Seconds, at least, until the first rows are due that were not; and so many rows are changed in one of them."""
CHANGED = 5_000
TIMED = "timed"
"""Begins the names of the rows that ticks are timed with."""
SECOND = timedelta(seconds=1)


def _add(rows: Iterable[PeriodicTask]) -> None:
    PeriodicTask.objects.using("default").bulk_create(rows, batch_size=2000)


def add(first: int, number: int, period: int) -> None:
    """Add rows that are due once in so many seconds, as many each second, and never before the next century."""
    starts = [(FIRST + second * SECOND).isoformat() for second in range(period)]
    slots = [_far(period) + second * SECOND for second in range(period)]
    _add(
        PeriodicTask(
            name=f"{i}",
            task=noop.name,
            schedule=f"every {period} seconds from {starts[i % period]}",
            planned=True,
            slot_at=slots[i % period],
            next_run_at=slots[i % period],
        )
        for i in range(first, first + number)
    )


def _far(period: int) -> datetime:
    """Return a moment in a hundred years that is on the grid of the rows that come first."""
    return FIRST + CENTURY // (period * SECOND) * period * SECOND


def add_timed(number: int) -> None:
    """Add rows for `ticks`."""
    told = {"task": noop.name, "schedule": "every 1 second", "planned": True, "slot_at": FIRST, "next_run_at": FIRST}
    _add(PeriodicTask(name=f"{TIMED} {i}", **told) for i in range(number))


def ticks(number: int, first: int) -> list[float]:
    """Tick so often, from so many seconds after the first on, each time with all timed rows due; return the seconds
    that each took."""
    taken = []
    for second in range(first, first + number):
        began = time.perf_counter()
        tick("default", FIRST + second * SECOND, rng=random.Random(0))
        taken.append(time.perf_counter() - began)
    return taken


def retire() -> None:
    """Have the rows of `ticks` never be due again, and forget what was sent."""
    PeriodicTask.objects.filter(name__startswith=TIMED).update(enabled=False)
    ScheduledRun.objects.all().delete()
    QueuedMessage.objects.all().delete()


def begin(rows: int, period: int) -> float:
    """Have rows be due as their schedules say; return the seconds until the first are."""
    since = int(time.time() + LEAD + rows / CHANGED - FIRST.timestamp())
    far, now = _far(period), FIRST + since * SECOND
    later = far + since % period * SECOND
    waiting = PeriodicTask.as_they_are.filter(slot_at__gte=far)
    for some, back in ((waiting.filter(slot_at__lt=later), later - now - period * SECOND), (waiting, later - now)):
        some.update(slot_at=F("slot_at") - back, next_run_at=F("next_run_at") - back)
    left = now.timestamp() - time.time()
    if left < 0:
        raise RuntimeError(f"The rows were changed {-left:.0f} s after the first of them was due.")
    return left


def lateness() -> list[float]:
    """Return how long after its slot each message was made, in seconds."""
    made = dict(QueuedMessage.objects.values_list("task_id", "created_at"))
    runs = ScheduledRun.objects.exclude(task_id="").values_list("task_id", "slot_at")
    return [(made[task_id] - slot).total_seconds() for task_id, slot in runs if task_id in made]


def add_each_second(number: int) -> None:
    """Add rows that are due each second, and none of whose slots is passed over."""
    told = {"task": noop.name, "schedule": "every 1 second", "missed": "all", "missed_limit": 1000}
    _add(PeriodicTask(name=f"{i}", **told) for i in range(number))


def sent() -> int:
    """Return how many slots were sent."""
    return ScheduledRun.objects.count()


def tally() -> dict[str, int]:
    """Count slots that were sent, that lie between others and were not, and messages without slots or too many."""
    slots: dict[int, list[datetime]] = defaultdict(list)
    ids = []
    for row, slot, task_id in ScheduledRun.objects.order_by("slot_at").values_list(
        "periodic_task_id", "slot_at", "task_id"
    ):
        slots[row].append(slot)
        ids.append(task_id)
    messages = list(QueuedMessage.objects.values_list("task_id", flat=True))
    last = latest("default")
    assert last is not None
    return {
        "rows": len(slots),
        "sent": len(ids),
        "missing": sum(round((of[-1] - of[0]) / SECOND) + 1 - len(of) for of in slots.values()),
        "behind": sum((last - of[-1]) > 2 * SECOND for of in slots.values()),
        "twice": len(messages) - len(set(messages)),
        "without message": len(set(ids) - set(messages)),
        "without slot": len(set(messages) - set(ids)),
    }
