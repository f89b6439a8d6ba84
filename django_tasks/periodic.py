"""Which periodic tasks does the code declare?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from django_tasks import conf, signals
from django_tasks.exceptions import ConfigurationError, ScheduleError
from django_tasks.message import NAME_LENGTH
from django_tasks.options import Call
from django_tasks.schedules import Schedule, every, parse

When = Schedule | str | timedelta | float
"""A schedule, the text of one, or how much time lies between two runs."""

MISSED = ("skip", "once", "all")
"""What becomes of slots that nobody published in time: nothing, one run for all of them, one run for each."""
OVERLAP = ("allow", "skip", "cancel", "wait")
"""What becomes of a slot while the run before it goes on: it runs too; it is left out; the one before is cancelled; it
waits, and at most one does."""


class EntryOptions(TypedDict, total=False):
    """What can be said of a periodic task, beside its name, task, schedule and arguments."""

    queue: str
    priority: int | None
    headers: Mapping[str, Any]
    expires: float | None
    timezone: str
    start_at: datetime | None
    end_at: datetime | None
    one_off: bool
    missed: str
    missed_limit: int
    overlap: str
    jitter: float
    pause_after: int | None
    enabled: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A periodic task that the code declares; its fields are those of the row that is kept equal with it."""

    name: str
    task: str
    schedule: Schedule
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str = ""
    priority: int | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    expires: float | None = None
    """Seconds after its publication within which a run must begin."""
    timezone: str = ""
    start_at: datetime | None = None
    end_at: datetime | None = None
    one_off: bool = False
    missed: str = "once"
    missed_limit: int = 10
    overlap: str = "allow"
    jitter: float = 0.0
    pause_after: int | None = None
    enabled: bool = True
    """How the row begins; afterwards that is for operators to say."""
    description: str = ""

    def __post_init__(self) -> None:
        for word, value, known in (("missed", self.missed, MISSED), ("overlap", self.overlap, OVERLAP)):
            if value not in known:
                raise ConfigurationError(f"{self._where}: {word} is one of {', '.join(known)}, not {value!r}.")
        if not 0 < len(self.name) <= NAME_LENGTH or not self.name.isprintable():
            raise ConfigurationError(f"{self._where}: a name has 1 to {NAME_LENGTH} printable characters.")
        for word, number, least in (("jitter", self.jitter, 0), ("missed_limit", self.missed_limit, 1)):
            if not number >= least:
                raise ConfigurationError(f"{self._where}: {word} is a number of {least} or more, not {number!r}.")

    @property
    def _where(self) -> str:
        return f"The periodic task {self.name[:80]!r}"


declared: dict[str, Entry] = {}
"""Entries by name, but for those of the settings."""

_OPTIONS = frozenset(EntryOptions.__annotations__)
_FROM_CALL = frozenset({"queue", "priority", "headers", "expires"})
_SETTING_KEYS = frozenset(entry.name for entry in fields(Entry)) - {"name"} | {"options"}


def add_periodic_task(schedule: When, call: Call, *, name: str = "", **options: Unpack[EntryOptions]) -> Entry:
    """Have a call sent whenever a schedule says so: in `AppConfig.ready()`, or where tasks are declared.

    Its name is that of the task unless given; an entry of the same name is replaced. Options of the call that a
    periodic task can have are taken over. Raises ConfigurationError or ScheduleError.
    """
    if unknown := sorted(options.keys() - _OPTIONS):
        raise TypeError(f"no option {unknown[0]!r}: {conf.nearest(unknown[0], _OPTIONS)}")
    if stray := sorted(call.options.keys() - _FROM_CALL - {"task_id"}):
        raise ConfigurationError(
            f"The periodic task {name or call.task!r}: a call with {stray[0]!r} cannot be sent again and again; "
            f"it may have {', '.join(sorted(_FROM_CALL))}."
        )
    said: dict[str, Any] = {
        key: value for key, value in call.options.items() if key in _FROM_CALL and value is not None
    }
    entry = Entry(
        name=name or call.task,
        task=call.task,
        schedule=schedule_of(schedule),
        args=tuple(call.args),
        kwargs=dict(call.kwargs),
        **{**said, **options},
    )
    declared[entry.name] = entry
    return entry


def declare(task: str, schedule: When | None) -> None:
    """Have a task sent without arguments whenever a schedule says so, if one does: what `@task(schedule=...)` does."""
    if schedule is not None:
        declared[task] = Entry(name=task, task=task, schedule=schedule_of(schedule))


def entries() -> dict[str, Entry]:
    """Return what the code and the settings declare, by name; raises ConfigurationError."""
    signals.announce(signals.schedule_loading, __name__)
    return {**declared, **{entry.name: entry for entry in _of_settings(conf.get().schedule)}}


def _of_settings(told: Mapping[str, Mapping[str, Any]]) -> Iterable[Entry]:
    for name, given in told.items():
        where = f"{conf.SETTING}['SCHEDULE'][{name!r}]"
        if unknown := sorted(given.keys() - _SETTING_KEYS):
            raise ConfigurationError(
                f"{where} has an unknown key {unknown[0]!r}. {conf.nearest(unknown[0], _SETTING_KEYS)}"
            )
        if missing := sorted({"task", "schedule"} - given.keys()):
            raise ConfigurationError(f"{where} has no {missing[0]!r}.")
        rest = {key: value for key, value in given.items() if key not in ("schedule", "options", "args")}
        # Celery keeps what goes with the message apart.
        options = dict(given.get("options") or {})
        if unknown := sorted(options.keys() - _OPTIONS):
            raise ConfigurationError(
                f"{where}['options'] has an unknown key {unknown[0]!r}. {conf.nearest(unknown[0], _OPTIONS)}"
            )
        try:
            schedule = schedule_of(given["schedule"])
            yield Entry(name=name, schedule=schedule, args=tuple(given.get("args") or ()), **{**rest, **options})
        except (ScheduleError, TypeError) as error:
            raise ConfigurationError(f"{where}: {error}") from error


def schedule_of(when: When) -> Schedule:
    """Return a schedule, whichever way it is said; raises ScheduleError."""
    if isinstance(when, Schedule):
        return when
    if isinstance(when, str):
        return parse(when)
    if type(when) in (int, float) or isinstance(when, timedelta):
        return every(when)
    raise ScheduleError(f"{when!r:.80} is no schedule: give crontab(...), every(...), the text of one, or seconds.")
