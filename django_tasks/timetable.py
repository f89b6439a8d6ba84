"""When will periodic tasks run, and what can an operator do to them?

Shared by the doors. Actions take rows and answer for each, by its name: done, not found, or not possible and why.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _

from django_tasks.actions import Answer, Report, Verdict
from django_tasks.beat.calls import MISFITS, plan_of
from django_tasks.beat.manual import run_now
from django_tasks.beat.slots import Terms, upcoming
from django_tasks.connections import home
from django_tasks.display import free_text
from django_tasks.exceptions import ScheduleError
from django_tasks.message import new_id
from django_tasks.models import BeatNode, PeriodicTask
from django_tasks.schedules import Crontab, parse
from django_tasks.schedules.wallclock import key_of
from django_tasks.transactions import retrying
from django_tasks.worker.presence import HEARD

_log = logging.getLogger("django_tasks.beat")

AHEAD = 5
"""Runs that are told in advance."""

_CLASS = re.compile(r"\A[A-Z]\w*: ")


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a schedule says, for people."""

    words: str = ""
    zone: str = ""
    """The key of the time zone of its clock."""
    runs: tuple[datetime, ...] = ()
    """Those that come next, in that zone."""
    error: str = ""
    """Why it is no schedule; then there is nothing else."""


def outlook(text: str, zone: str, terms: Terms, *, number: int = AHEAD, since: datetime | None = None) -> Outlook:
    """Return what the text of a schedule stands for, and its next runs after a moment, by default now.

    `zone` is the time zone of a schedule that has none of its own; without one it is that of the site. A class that
    the text names is imported.
    """
    zone = zone or settings.TIME_ZONE or "UTC"
    try:
        key_of(zone)
        schedule = parse(text).within(zone)
        key = schedule.tz if isinstance(schedule, Crontab) and schedule.tz else zone
        clock = ZoneInfo(key)
        runs = upcoming(schedule, terms, since or datetime.now(UTC), number)
        return Outlook(schedule.describe(), key, tuple(moment.astimezone(clock) for moment in runs))
    except (ScheduleError, TypeError) as error:
        return Outlook(error=str(error))
    except Exception as error:  # noqa: BLE001  # a schedule of the project's own may raise anything
        _log.warning("A schedule raised", exc_info=True, extra={"schedule": text[:200]})
        return Outlook(error=f"{type(error).__name__}: {error}")


def outlook_of(row: PeriodicTask, *, number: int = AHEAD) -> Outlook:
    """Return what the schedule of a row says; of one that is run once only, the next run alone."""
    terms = Terms(_aware(row.start_at), _aware(row.end_at), row.missed, row.missed_limit)
    return outlook(row.schedule, row.timezone, terms, number=min(number, 1) if row.one_off else number)


def reason(row: PeriodicTask) -> str:
    """Return in plain words why a row was disabled by itself."""
    return free_text(_CLASS.sub("", row.error))


def is_unattended() -> bool:
    """Tell whether periodic tasks are due and no beat is there to send them."""
    now, using = timezone.now(), home()
    if BeatNode.objects.using(using).filter(ticked_at__gte=now - HEARD).exists():
        return False
    return PeriodicTask.objects.using(using).filter(enabled=True, next_run_at__lte=now).exists()


def run(rows: Sequence[PeriodicTask], by: str) -> Report:
    """Send calls now, beside their schedules; `by` is the name of who asked for it. Raises PublishError, and then
    nothing was sent."""
    answers = [_fitness(row) for row in rows]
    if fit := set(_picked(rows, answers)):
        run_now([row for row in rows if row.pk in fit], f"by {by}", using=home())
    return Report(tuple(answers))


def _fitness(row: PeriodicTask) -> Answer:
    try:
        plan_of(row, new_id())
    except MISFITS as error:
        return _not_possible(row.name, "unfit", str(error))
    return _done(row.name, "sent", _("It is sent. Its schedule goes on as before."))


def enable(rows: Sequence[PeriodicTask]) -> Report:
    """Have rows run when their schedules say so, from now on; errors and failures are forgotten."""

    def answer(row: PeriodicTask) -> Answer:
        if row.enabled:
            return _not_possible(row.name, "enabled", _("It was enabled already."))
        if error := outlook_of(row, number=1).error:
            return _not_possible(row.name, "unfit", error)
        return _done(row.name, "enabled", _("It is planned at the next tick."))

    return _changed(rows, answer, {"enabled": True, "error": "", "failures": 0})


def disable(rows: Sequence[PeriodicTask]) -> Report:
    """Have rows not run any more; what has been sent goes on."""

    def answer(row: PeriodicTask) -> Answer:
        if not row.enabled:
            return _not_possible(row.name, "disabled", _("It was disabled already."))
        return _done(row.name, "disabled", _("It is not sent any more. What was sent goes on."))

    return _changed(rows, answer, {"enabled": False})


def remove(rows: Sequence[PeriodicTask]) -> Report:
    """Delete rows with what is known of their runs; not those of the code, which would come back."""
    answers = [
        _not_possible(row.name, "from_code", _("It is declared in code: remove it there, or disable it."))
        if row.from_code
        else _done(row.name, "deleted", _("It is deleted, with what was known of its runs."))
        for row in rows
    ]
    gone = _picked(rows, answers)
    retrying(home(), lambda: _rows(gone).delete())
    return Report(tuple(answers))


def _changed(
    rows: Sequence[PeriodicTask], answer: Callable[[PeriodicTask], Answer], values: dict[str, object]
) -> Report:
    answers = [answer(row) for row in rows]
    changed = _picked(rows, answers)
    retrying(home(), lambda: _rows(changed).update(**values))
    return Report(tuple(answers))


def _picked(rows: Sequence[PeriodicTask], answers: Sequence[Answer]) -> list[int]:
    return [row.pk for row, answer in zip(rows, answers, strict=True) if answer.verdict is Verdict.DONE]


def _rows(keys: Sequence[int]) -> models.QuerySet[PeriodicTask]:
    return PeriodicTask.objects.using(home()).filter(pk__in=keys)


def _done(name: str, code: str, text: str) -> Answer:
    return Answer(name, Verdict.DONE, code, text)


def _not_possible(name: str, code: str, text: str) -> Answer:
    return Answer(name, Verdict.NOT_POSSIBLE, code, text)


def _aware(moment: datetime | None) -> datetime | None:
    return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment
