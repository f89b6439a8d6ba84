"""How is a large table looked at without reading all of it?

Guarantee: however large the tables are, a page costs at most `CEILING` rows for its count and `WINDOW` rows for what no
index answers. What is cut off is told, never silently left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db.models import Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Lower, Substr
from django.db.models.lookups import Contains, Exact
from django.utils import timezone

from django_tasks import conf, states
from django_tasks.connections import brokers, keepers, results
from django_tasks.message import is_group_id, member_group
from django_tasks.models import PeriodicTask, QueuedMessage, ScheduledRun, TaskGroup, TaskResult

CEILING = 10_000
WINDOW = 50_000

M = TypeVar("M", bound=Model)

Span = tuple[datetime | None, datetime | None]
"""From a moment on, and until before another; None for no bound."""
EVER: Span = (None, None)

READY, DELAYED, LEASED = "ready", "delayed", "leased"
RUNNING, DONE, FAILED = "running", "done", "failed"

HEAVY_RESULT = (
    "args_repr",
    "kwargs_repr",
    "value",
    "error_message",
    "error_args",
    "error_notes",
    "traceback",
    "history",
    "message",
)
"""Columns of results that no list shows."""
HEAVY_MESSAGE = ("headers", "body")
HEAVY_GROUP = ("then", "error", "saved")
HEAVY_PERIODIC = ("args", "kwargs", "headers", "description")

_LAST = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Listing(Generic[M]):
    """Rows in the order in which they are shown: one part after the other."""

    parts: tuple[QuerySet[M], ...]
    edge: Any = None
    """Rows beyond this were not looked at; None when all were."""

    def count(self, ceiling: int = CEILING) -> int:
        """Return how many rows there are; ceiling + 1 means more than that."""
        found = 0
        for part in self.parts:
            found += part.order_by()[: ceiling + 1 - found].count()
            if found > ceiling:
                break
        return found

    def rows(self, start: int, size: int) -> list[M]:
        """Return `size` rows from the place `start` on."""
        found: list[M] = []
        for index, part in enumerate(self.parts):
            found += part[start : start + size - len(found)]
            if len(found) == size:
                break
            if index + 1 < len(self.parts):
                start = 0 if found else start - part.order_by()[:start].count()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCriteria:
    """Which results are looked for. Empty means any."""

    state: str = ""
    task: str = ""
    queue: str = ""
    worker: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Ended in [since, until)."""
    beginning: str = ""
    """An id or its beginning, else a task's name or its beginning."""


def result_database() -> str | None:
    """Return the alias of the database where results are, None when they are kept elsewhere."""
    return results["default"].database


def message_databases() -> list[str]:
    """Return the aliases of the databases where messages wait, that of the default broker first."""
    aliases = [brokers["default"], *keepers()]
    return list(dict.fromkeys(broker.database for broker in aliases if broker.database is not None))


def find_results(
    rows: QuerySet[TaskResult], criteria: ResultCriteria, *, window: int = WINDOW, within: Span = EVER
) -> Listing[TaskResult]:
    """Return results that fit: what has not ended, then what ended, the last first.

    One criterion is answered by an index; where there are more, only the newest `window` rows of that are searched.
    Of what has ended, only that which ended `within` a span is returned: a page of a longer list begins there.
    """
    rows = rows.defer(*HEAVY_RESULT)
    if criteria.beginning and _any(rows.filter(starting_with("task_id", criteria.beginning))):
        return _by_id(rows, criteria, window)
    if criteria.beginning and not criteria.task and _any(rows.filter(task=criteria.beginning)):
        criteria = replace(criteria, task=criteria.beginning, beginning="")
    rest = Q()
    if criteria.task:
        rows, rest = rows.filter(task=criteria.task), _equal(state=criteria.state)
    elif criteria.state:
        rows = rows.filter(state=criteria.state)
    if criteria.beginning:
        rest &= _begins_with("task", criteria.beginning)
    rest &= _equal(queue=criteria.queue, worker=criteria.worker)
    ended = rows.filter(ended_at__isnull=False).order_by(*_NEWEST_FIRST)
    asked = criteria.since, criteria.until
    edge = _edge(_ended_within(ended, asked), "ended_at", window) if rest else None
    ended = _ended_within(ended, _overlap(asked, (edge, None), within)).filter(rest)
    if asked != EVER or criteria.state in states.FINAL:
        return Listing((ended,), edge)
    return Listing((rows.filter(rest, ended_at__isnull=True).order_by(*_NEWEST_FIRST), ended), edge)


# Also of what has not ended: by this order PostgreSQL is led to the index.
_NEWEST_FIRST = ("-ended_at", "-task_id")


def _ended_within(rows: QuerySet[M], span: Span) -> QuerySet[M]:
    # One bound at each end: of several, SQLite uses the first for its way through the index.
    since, until = span
    if since is not None:
        rows = rows.filter(ended_at__gte=since)
    return rows if until is None else rows.filter(ended_at__lt=until)


def _overlap(*spans: Span) -> Span:
    since = max((since for since, _ in spans if since is not None), default=None)
    until = min((until for _, until in spans if until is not None), default=None)
    return since, until


def _by_id(rows: QuerySet[TaskResult], criteria: ResultCriteria, window: int) -> Listing[TaskResult]:
    rest = _equal(state=criteria.state, task=criteria.task, queue=criteria.queue, worker=criteria.worker)
    return _beginning_so(rows, criteria.beginning, rest & _ended_q((criteria.since, criteria.until)), window)


def _ended_q(span: Span) -> Q:
    since, until = span
    bounds = {"ended_at__gte": since, "ended_at__lt": until}
    return Q(**{name: moment for name, moment in bounds.items() if moment is not None})


def _beginning_so(rows: QuerySet[M], beginning: str, rest: Q, window: int, *, field: str = "task_id") -> Listing[M]:
    """Return the rows whose id begins so, of the last `window` of them those for which the rest holds too."""
    found = rows.filter(starting_with(field, beginning)).order_by(f"-{field}")
    edge = _edge(found, field, window) if rest else None
    if edge is not None:
        within = {f"{field}__gte": edge, f"{field}__lte": beginning + _LAST}
        found = rows.filter(**within).order_by(f"-{field}")
    return Listing((found.filter(rest),), edge)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCriteria:
    """Which groups are looked for. Empty means any."""

    stage: str = ""
    """`running`, `done` or `failed`."""
    since: datetime | None = None
    until: datetime | None = None
    """Ended in [since, until)."""
    beginning: str = ""
    """The group's id or its beginning, or the id of one of its members."""


def find_groups(rows: QuerySet[TaskGroup], criteria: GroupCriteria, *, window: int = WINDOW) -> Listing[TaskGroup]:
    """Return groups that fit: those that have not ended, then the others, the last ended first.

    Where no index answers, only the last `window` of those that ended are searched.
    """
    rows = rows.defer(*HEAVY_GROUP)
    asked = criteria.since, criteria.until
    rest = Q() if criteria.stage in ("", RUNNING) else Q(failed_id__isnull=criteria.stage != FAILED)
    if criteria.beginning:
        if criteria.stage:
            rest &= Q(ended_at__isnull=criteria.stage == RUNNING)
        return _beginning_so(
            rows, _group_named(rows, criteria.beginning), _ended_q(asked) & rest, window, field="group_id"
        )
    running = rows.filter(ended_at__isnull=True).order_by("-ended_at", "-group_id")
    ended = rows.filter(ended_at__isnull=False).order_by("-ended_at", "-group_id")
    if criteria.stage == RUNNING:
        return Listing((running if asked == EVER else running.none(),))
    edge = _edge(_ended_within(ended, asked), "ended_at", window) if rest else None
    ended = _ended_within(ended, _overlap(asked, (edge, None))).filter(rest)
    return Listing((ended,) if asked != EVER or criteria.stage else (running, ended), edge)


def _group_named(rows: QuerySet[TaskGroup], beginning: str) -> str:
    """Return what the ids that are looked for begin with, where one of a member was given as well."""
    around = None if is_group_id(beginning) else member_group(beginning)
    return around if around is not None and _any(rows.filter(group_id=around)) else beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCriteria:
    """Which waiting messages are looked for. Empty means any."""

    standing: str = ""
    """`ready`, `delayed` or `leased`."""
    queue: str = ""
    task: str = ""
    beginning: str = ""
    """An id or its beginning, else a task's name or its beginning."""


def find_messages(
    rows: QuerySet[QueuedMessage], criteria: MessageCriteria, *, window: int = WINDOW
) -> Listing[QueuedMessage]:
    """Return messages that fit.

    Ready ones stand in the order in which workers take them, delayed and leased ones by the time when that ends, and
    others by number, the newest first. Where no index answers, only the newest `window` are searched.
    """
    rows = rows.defer(*HEAVY_MESSAGE)
    rest = _standing(criteria.standing) & _equal(queue=criteria.queue, task=criteria.task)
    if criteria.beginning and _any(rows.filter(starting_with("task_id", criteria.beginning))):
        return _beginning_so(rows, criteria.beginning, rest, window)
    if not (criteria.task or criteria.beginning):
        # One part a broker: with each one's name as an equation the columns behind it in the index are in order.
        parts = tuple(rows.filter(rest, broker=alias) for alias in _brokers_in(rows.db))
        if criteria.standing == READY:
            return Listing(tuple(part.order_by("queue", "rank", "id") for part in parts))
        if criteria.standing and not criteria.queue:
            return Listing(tuple(part.order_by("visible_at", "id") for part in parts))
    if criteria.beginning:
        rest &= _begins_with("task", criteria.beginning)
    rows = rows.order_by("-id")
    edge = _edge(rows, "id", window) if rest else None
    if edge is not None:
        rows = rows.filter(id__gte=edge)
    return Listing((rows.filter(rest),), edge)


def _brokers_in(database: str) -> list[str]:
    return [broker.alias for broker in brokers.all() if broker.database == database]


def waiting(ids: Sequence[str]) -> dict[str, QueuedMessage]:
    """Return the messages of these tasks that wait or run, their bodies left behind."""
    found: dict[str, QueuedMessage] = {}
    for database in message_databases():
        rows = QueuedMessage.objects.using(database).filter(task_id__in=list(ids)).defer("body")
        found.update((row.task_id, row) for row in rows)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicCriteria:
    """Which periodic tasks are looked for. Empty means any."""

    enabled: str = ""
    """`yes` or `no`."""
    origin: str = ""
    """`code`, or `here` for what was not declared there."""
    condition: str = ""
    """`failing`: disabled by an error, failed more than once in a row where that is counted, or the last run failed."""
    part: str = ""
    """Of the name, or of that of the task; in any case."""


def find_periodic(
    rows: QuerySet[PeriodicTask], criteria: PeriodicCriteria, *, window: int = WINDOW
) -> Listing[PeriodicTask]:
    """Return periodic tasks that fit, by name; where anything is asked for, of the first `window` of them."""
    rest = Q()
    if criteria.enabled:
        rest &= Q(enabled=criteria.enabled == "yes")
    if criteria.origin:
        rest &= Q(from_code=criteria.origin == "code")
    if criteria.condition:
        last = last_runs().values("outcome")[:1]
        failed = Q(Exact(Subquery(last), ScheduledRun.Outcome.FAILED))
        rest &= ~Q(error="") | Q(failures__gt=0) | failed
    if criteria.part:
        part = criteria.part.lower()
        rest &= Q(Contains(Lower("name"), part)) | Q(Contains(Lower("task"), part))
    rows = rows.order_by("name")
    edge = _edge(rows, "name", window) if rest else None
    if edge is not None:
        rows = rows.filter(name__lte=edge)
    return Listing((rows.filter(rest),), edge)


def last_runs() -> QuerySet[ScheduledRun]:
    """Return the runs of the periodic task of an outer query, the last first, by the index of slots."""
    return ScheduledRun.objects.filter(periodic_task=OuterRef("pk")).order_by("-slot_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCriteria:
    """Which scheduled runs are looked for. Empty means any."""

    outcome: str = ""
    periodic: str = ""
    """The name of a periodic task."""
    beginning: str = ""
    """The name of a periodic task, else the id of a task or its beginning."""


def find_runs(rows: QuerySet[ScheduledRun], criteria: RunCriteria, *, window: int = WINDOW) -> Listing[ScheduledRun]:
    """Return scheduled runs that fit, the newest first; those of one periodic task by their slots."""
    name = criteria.periodic or criteria.beginning
    owner = PeriodicTask.objects.using(rows.db).filter(name=name).values_list("pk", flat=True).first() if name else None
    rest = _equal(outcome=criteria.outcome)
    if owner is not None:
        rows, field = rows.filter(periodic_task=owner), "slot_at"
        if criteria.periodic and criteria.beginning:
            rest &= Q(task_id=criteria.beginning)
    elif criteria.periodic:
        return Listing((rows.none(),))
    elif criteria.beginning:
        return _beginning_so(rows, criteria.beginning, rest, window)
    else:
        field = "id"
    rows = rows.order_by(f"-{field}")
    edge = _edge(rows, field, window) if rest else None
    if edge is not None:
        rows = rows.filter(**{f"{field}__gte": edge})
    return Listing((rows.filter(rest),), edge)


def standing(row: QueuedMessage) -> str:
    """Return how a message stands: `ready`, `delayed` or `leased`."""
    if row.ready:
        return READY
    return DELAYED if row.lease_token is None else LEASED


def starting_with(field: str, beginning: str) -> Q:
    """Return the condition that a name begins so, in a form that every vendor answers by an index: names are compared
    by their bytes."""
    return Q((f"{field}__gte", beginning), (f"{field}__lte", beginning + _LAST))


def _begins_with(field: str, beginning: str) -> Q:
    # Not a range: an index that answered it would give rows in another order than they are shown in, all to be sorted.
    return Q(Exact(Substr(field, 1, len(beginning)), beginning))


def _standing(name: str) -> Q:
    match name:
        case "ready":
            return Q(ready=True)
        case "delayed":
            return Q(ready=False, lease_token__isnull=True)
        case "leased":
            # A lease is renewed long before it ends, so that all ends lie near: what is delayed further is not read.
            latest = timezone.now() + timedelta(seconds=10 * conf.get().lease)
            return Q(ready=False, lease_token__isnull=False, visible_at__lte=latest)
        case _:
            return Q()


def _equal(**named: str) -> Q:
    return Q(**{name: value for name, value in named.items() if value})


def _any(rows: QuerySet[Any]) -> bool:
    return rows.order_by().exists()


def _edge(rows: QuerySet[Any], field: str, window: int) -> Any:
    """Return the value of the last row within the window, None when there are no more rows than that."""
    return next(iter(rows.values_list(field, flat=True)[window : window + 1]), None)
