"""What does one look at the clock do? Claims what is due, sends it, and moves on, in one transaction.

Guarantee: each slot is run once. Its row in the table of runs is unique and is written in the transaction that sends
its message, or puts it into the outbox, and moves the row on; a crash leaves all of it or nothing.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, connections

from django_tasks.beat.calls import MISFITS, plan_of
from django_tasks.beat.rows import move_on, record
from django_tasks.beat.slots import GRACE, Terms, Turn, first_slot, slot_id, turn
from django_tasks.beat.unfinished import unfinished
from django_tasks.connections import brokers
from django_tasks.control.client import revoke
from django_tasks.exceptions import DjangoTasksError
from django_tasks.models import PeriodicTask, ScheduledRun
from django_tasks.plan import Plan, joined
from django_tasks.publisher import publish
from django_tasks.schedules import Schedule, parse
from django_tasks.transactions import retrying

_log = logging.getLogger("django_tasks.beat")

BATCH = 500
"""How many rows one tick takes."""
AGAIN = timedelta(seconds=1)
"""After so long it is looked again whether the run that another waits for has ended."""

FROZEN = 30
"""Seconds after which a server that can takes rows from a beat that has stopped in the middle of a tick: one whose host
has lost its power would hold them for hours."""

_GUARDS = {
    "postgresql": f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN}s'",
    "mariadb": f"SET SESSION idle_transaction_timeout = {FROZEN}",
}


@dataclass(slots=True)
class _Work:
    """What is done in one transaction."""

    now: datetime
    rows: list[PeriodicTask]
    going_on: set[str] = field(default_factory=set)
    runs: list[ScheduledRun] = field(default_factory=list)
    plans: dict[str, Plan] = field(default_factory=dict)
    """By the id of the task."""
    last: dict[int, str] = field(default_factory=dict)
    """The task that is sent last, by the number of the row."""
    cancelled: dict[str, str] = field(default_factory=dict)
    """Tasks, by the id of those that they make room for."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick has done."""

    rows: int
    published: int


def tick(using: str, now: datetime, *, limit: int = BATCH, rng: random.Random) -> Ticked:
    """Send what is due at a moment; return how much that was.

    Raises PublishError or a database's error, and nothing has happened then.
    """
    return retrying(using, lambda: _tick(using, now, limit, rng))


def _tick(using: str, now: datetime, limit: int, rng: random.Random) -> Ticked:
    # Settings that are wrong are no fault of the rows: without this, one mistake there would disable all of them.
    brokers.all()
    _guard(using)
    work = _Work(now, _claimed(using, now, limit))
    if not work.rows:
        return Ticked(0, 0)
    cautious = [row.last_task_id for row in work.rows if row.overlap != PeriodicTask.Overlap.ALLOW and row.last_task_id]
    work.going_on = unfinished(using, cautious, now)
    for row in work.rows:
        _attend(row, work, rng)
    written = _recorded(using, work)
    if cancelled := [old for new, old in work.cancelled.items() if new in written]:
        revoke(cancelled, terminate=True, reason="the next run of this periodic task is due")
    if written:
        publish(joined([plan for task_id, plan in work.plans.items() if task_id in written]))
    move_on(using, work.rows)
    return Ticked(len(work.rows), len(written))


def _guard(using: str) -> None:
    connection = connections[using]
    vendor = "mariadb" if getattr(connection, "mysql_is_mariadb", False) else connection.vendor
    if vendor in _GUARDS:
        with connection.cursor() as cursor:
            cursor.execute(_GUARDS[vendor])


def set_aside(using: str, now: datetime, error: Exception) -> Ticked:
    """Disable the row that is due first, which cannot be sent."""

    def disable() -> Ticked:
        rows = _claimed(using, now, 1)
        for row in rows:
            _disable(row, _words(error))
        move_on(using, rows)
        return Ticked(len(rows), 0)

    return retrying(using, disable)


def _claimed(using: str, now: datetime, limit: int) -> list[PeriodicTask]:
    """Lock rows that are due and that no other beat is at."""
    due = PeriodicTask.as_they_are.using(using).filter(enabled=True, next_run_at__lte=now)
    features = connections[using].features
    if features.has_select_for_update:
        due = due.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    return list(due.order_by("next_run_at")[:limit])


def next_due(using: str) -> datetime | None:
    """Return when the next periodic task is to be looked at; None when there is none."""
    rows = PeriodicTask.as_they_are.using(using).filter(enabled=True, next_run_at__isnull=False)
    found: datetime | None = rows.order_by("next_run_at").values_list("next_run_at", flat=True).first()
    return found


def schedule_for(row: PeriodicTask) -> Schedule:
    """Return the schedule of a row, in its time zone or that of the site; raises ScheduleError."""
    return parse(row.schedule).within(row.timezone or settings.TIME_ZONE or "UTC")


def terms_of(row: PeriodicTask) -> Terms:
    return Terms(
        row.start_at, row.end_at, row.missed, row.missed_limit, GRACE + timedelta(seconds=max(0.0, row.jitter))
    )


def _attend(row: PeriodicTask, work: _Work, rng: random.Random) -> None:
    """Decide on one row; one that cannot be is disabled, and the others go on."""
    try:
        schedule = schedule_for(row)
        if not row.planned:
            # From the change on: what has become due between it and now is not lost.
            _move_on(row, first_slot(schedule, terms_of(row), row.changed_at), rng)
            row.planned, row.waiting_at = True, None
            if row.slot_at is None or row.slot_at > work.now:
                return
        if row.slot_at is None and row.waiting_at is None:
            row.next_run_at = None
            return
        _run(row, schedule, work, rng)
    except Exception as error:  # a schedule of the project's own may raise anything
        if isinstance(error, DatabaseError | DjangoTasksError) and not isinstance(error, MISFITS):
            raise
        if not isinstance(error, MISFITS):
            _log.exception("A schedule raised", extra={"periodic_task": row.name})
        _disable(row, _words(error))


def _run(row: PeriodicTask, schedule: Schedule, work: _Work, rng: random.Random) -> None:
    # One may wait when there are no more to come.
    decided = Turn() if row.slot_at is None else turn(schedule, terms_of(row), row.slot_at, work.now)
    if decided.missed:
        _miss(row, decided, work)
    waited, row.waiting_at = row.waiting_at, None
    slots = ([] if waited is None else [waited]) + list(decided.run)
    for slot in slots:
        _slot(row, slot, work, is_last=slot is slots[-1])
    _move_on(row, decided.next, rng)
    if row.waiting_at is not None:
        again = work.now + AGAIN
        row.next_run_at = again if row.next_run_at is None else min(again, row.next_run_at)
    elif row.one_off and row.pk in work.last:
        _disable(row, "")


def _slot(row: PeriodicTask, slot: datetime, work: _Work, *, is_last: bool) -> None:
    """Send the run of one slot, unless the run before it is in its way."""
    task_id, before = slot_id(row.pk, slot), work.last.get(row.pk, row.last_task_id)
    if task_id == before:
        # It is run already: a clock was set back.
        return
    if before in work.going_on:
        if row.overlap == PeriodicTask.Overlap.SKIP:
            _note(row, slot, work, ScheduledRun.Outcome.SKIPPED, "the run before it goes on")
            return
        if row.overlap == PeriodicTask.Overlap.WAIT:
            if is_last:
                row.waiting_at = slot
            else:
                _note(row, slot, work, ScheduledRun.Outcome.SKIPPED, "a later one waits for the run before it")
            return
        if row.overlap == PeriodicTask.Overlap.CANCEL:
            work.cancelled[task_id] = before
    work.plans[task_id] = plan_of(row, task_id)
    # What the jitter says is not late.
    due = max(slot, row.next_run_at or slot) if slot == row.slot_at else slot
    late = max(0.0, (work.now - due).total_seconds())
    work.runs.append(
        ScheduledRun(periodic_task=row, slot_at=slot, published_at=work.now, lateness=late, task_id=task_id)
    )
    work.last[row.pk] = task_id
    if row.overlap != PeriodicTask.Overlap.ALLOW:
        work.going_on.add(task_id)


def _miss(row: PeriodicTask, decided: Turn, work: _Work) -> None:
    number = f"{'more than ' if decided.uncounted else ''}{len(decided.missed)}"
    note = "" if len(decided.missed) == 1 else f"the last of {number} that were missed"
    _note(row, decided.missed[-1], work, ScheduledRun.Outcome.MISSED, note)


def _note(row: PeriodicTask, slot: datetime, work: _Work, outcome: str, note: str) -> None:
    work.runs.append(ScheduledRun(periodic_task=row, slot_at=slot, outcome=outcome, note=note, ended_at=work.now))


def _move_on(row: PeriodicTask, slot: datetime | None, rng: random.Random) -> None:
    row.slot_at = slot
    row.next_run_at = slot
    if slot is not None and row.jitter > 0:
        row.next_run_at = slot + timedelta(seconds=rng.uniform(0.0, row.jitter))


def _words(error: Exception) -> str:
    """Return what a row says of an error, in characters that every database keeps."""
    words = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()
    return words.replace("\0", "\\0")[:2000]


def _disable(row: PeriodicTask, error: str) -> None:
    row.enabled, row.error = False, error
    row.planned, row.slot_at, row.next_run_at, row.waiting_at = False, None, None, None
    if error:
        _log.error("A periodic task cannot be run; it is disabled", extra={"periodic_task": row.name, "error": error})


def _recorded(using: str, work: _Work) -> set[str]:
    """Write down what becomes of slots; return the tasks of those that nobody has run."""
    if not work.runs:
        return set()
    record(using, work.runs)
    written = _written(using, work.runs) if work.plans else set()
    for run in work.runs:
        if run.task_id in written:
            row = run.periodic_task
            row.last_run_at, row.last_task_id = work.now, run.task_id
            row.total_run_count += 1
    return written


def _written(using: str, runs: Sequence[ScheduledRun]) -> set[str]:
    """Return the tasks of these runs whose slots had no row before."""
    mine = {run.task_id: run.created_at for run in runs if run.task_id}
    rows = ScheduledRun.objects.using(using).filter(task_id__in=mine).values_list("task_id", "created_at")
    return {task_id for task_id, created_at in rows if created_at == mine[task_id]}


def plan_anew(using: str, now: datetime) -> int:
    """Have all rows that wait for a later moment planned from this one on: the clock was set back. Slots that are run
    stay so."""
    later = PeriodicTask.as_they_are.using(using).filter(enabled=True, next_run_at__gt=now)
    return retrying(using, lambda: later.update(planned=False, next_run_at=now, changed_at=now))


def latest(using: str) -> datetime | None:
    """Return when a run was sent last."""
    sent = ScheduledRun.objects.using(using).filter(published_at__isnull=False).order_by("-pk")
    return sent.values_list("published_at", flat=True).first()
