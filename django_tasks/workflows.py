"""How far is a group of tasks, and what do its members do?

Guarantee: whatever is asked here of one group costs a fixed number of queries, and reads at most `WINDOW` short rows
and a page of members, however large the group is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from django.conf import settings
from django.db.models import Count, Model, QuerySet
from django.utils import timezone

from django_tasks import states
from django_tasks.connections import groups_of
from django_tasks.exceptions import DecodeError
from django_tasks.failure import Failure
from django_tasks.listing import (
    CEILING,
    DONE,
    FAILED,
    HEAVY_GROUP,
    HEAVY_RESULT,
    RUNNING,
    WINDOW,
    result_database,
    standing,
    waiting,
)
from django_tasks.message import first_id, is_group_id, member_id
from django_tasks.models import GroupPart, QueuedMessage, TaskGroup, TaskResult
from django_tasks.results.groups import Progress

EMPTY = "empty"

NEAR = 2_000
"""Rows that are searched for what was begun at about the same time."""

_SKEW = timedelta(seconds=2)
"""How far the clocks of two machines may differ."""

M = TypeVar("M", bound=Model)

Reader = Callable[[Sequence[str]], Iterable[TaskResult]]
"""Gives the results that are known of these tasks."""


def group_database() -> str | None:
    """Return the alias of the database where groups are recorded; None when they are recorded elsewhere."""
    return groups_of().database


def find_group(group_id: str) -> TaskGroup | None:
    """Return what is known of a group, wherever it is recorded, without what follows it."""
    database = group_database()
    if database is not None:
        return TaskGroup.objects.using(database).filter(group_id=group_id).defer("then", "saved").first()
    known = groups_of().progress([group_id]).get(group_id)
    return None if known is None else _row(known)


def _row(known: Progress) -> TaskGroup:
    """Return a group of any store in the form of the database's, unsaved."""
    failed = known.failed
    failure = None if failed is None else failed.failure
    return TaskGroup(
        group_id=known.id,
        size=known.size,
        done=known.done,
        failed_id=failed.task_id if failed else None,
        failed_index=failed.place[1] if failed else None,
        error="" if failure is None else json.dumps(failure.as_dict()),
        ended_at=known.ended_at,
        # Not told; no row is ever without it.
        created_at=cast(Any, None),
    )


def stage(row: TaskGroup) -> str:
    """Return how a group stands: `running`, `done`, `failed` as soon as one member has failed, or `empty`."""
    if row.failed_id is not None:
        return FAILED
    if row.size == 0:
        return EMPTY
    return RUNNING if row.ended_at is None else DONE


def first_failure(row: TaskGroup) -> Failure | None:
    """Return how the first member failed, or the group as a whole; None if none did."""
    if row.failed_id is None:
        return None
    try:
        return Failure.from_dict(json.loads(row.error))
    except (ValueError, TypeError, AttributeError, RecursionError, DecodeError):
        return Failure("", "", row.error)


@dataclass(frozen=True, slots=True)
class Failures:
    """How many members of a group have failed."""

    number: int
    searched: int
    """Of how many members, from the first on."""


def failures(rows: Sequence[TaskGroup], budget: int = CEILING) -> dict[str, Failures]:
    """Return the failures of groups by their ids, in one query; at most `budget` members are searched in all.

    Of a group that is not in the database, and larger than that, only the first failure is known.
    """
    failed = [row for row in rows if row.failed_id is not None]
    share = max(1, budget // max(1, len(failed)))
    counted: dict[str, int] = {}
    database = group_database()
    if failed and database is not None:
        parts = _failed_parts(database, share).filter(group_id__in=[row.group_id for row in failed])
        counted = dict(parts.values_list("group_id").annotate(number=Count("id")).order_by())
    elif database is None:
        for row in failed:
            found = groups_of().parts(row.group_id) if row.size <= share else []
            counted[row.group_id] = sum(part.failure is not None for part in found)
    return {
        row.group_id: Failures(
            # The first one is known by the group itself. One that failed as a whole had none.
            max(counted.get(row.group_id, 0), int(row.failed_id not in (None, row.group_id))),
            min(row.size, share) if row in failed else row.size,
        )
        for row in rows
    }


def _failed_parts(database: str, searched: int) -> QuerySet[GroupPart]:
    return GroupPart.objects.using(database).filter(index__lt=searched).exclude(error="")


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of one member of a group."""

    index: int
    """Its number, counted from 0."""
    id: str
    """The id of the task that it ends with; empty where that is not known before its end."""
    state: str
    task: str = ""
    row: TaskResult | None = None
    message: QueuedMessage | None = None
    inner_id: str | None = None
    """The group that it is, or ends with."""

    @property
    def standing(self) -> str:
        """How its message waits: `ready`, `delayed` or `leased`; empty where none is known."""
        return "" if self.message is None else standing(self.message)


def known_results(ids: Sequence[str]) -> Iterable[TaskResult]:
    """Return the results of tasks in the database, without what is long."""
    database = result_database()
    if database is None:
        return ()
    return TaskResult.objects.using(database).filter(task_id__in=list(ids)).defer(*HEAVY_RESULT)


def members(row: TaskGroup, indexes: Sequence[int], read: Reader = known_results) -> list[Member]:
    """Return members of a group by their numbers, a page of them; `read` says what is known of each task."""
    ends = _ends(row.group_id, indexes)
    ids = {index: ends[index][0] if index in ends else _expected(row.group_id, index) for index in indexes}
    known = {found.task_id: found for found in read([each for each in ids.values() if each])}
    unseen = [each for index, each in ids.items() if each and each not in known and index not in ends]
    messages = waiting(unseen) if unseen else {}
    inner = {each.outer_index: each for each in inner_groups(row) if each.outer_index in ids}
    return [
        _member(index, ids[index], ends.get(index), known.get(ids[index]), messages.get(ids[index]), inner.get(index))
        for index in indexes
    ]


def _member(
    index: int,
    task_id: str,
    end: tuple[str, bool] | None,
    row: TaskResult | None,
    message: QueuedMessage | None,
    inner: TaskGroup | None,
) -> Member:
    task = row.task if row is not None else message.task if message is not None else ""
    inner_id = None if inner is None else inner.group_id
    if row is None and end is not None and is_group_id(task_id):
        inner_id = task_id
    state = states.PENDING
    if row is not None:
        state = row.state
    elif end is not None:
        state = states.FAILURE if end[1] else states.SUCCESS
    elif inner is not None:
        state = states.STARTED
    return Member(index, inner_id or task_id, state, task, row, message, inner_id)


def _ends(group_id: str, indexes: Sequence[int]) -> Mapping[int, tuple[str, bool]]:
    """Return, of members that have ended, the task whose end that was and whether it failed."""
    database = group_database()
    if database is None or not indexes:
        return {}
    parts = GroupPart.objects.using(database).filter(group_id=group_id, index__in=list(indexes))
    told = parts.values_list("index", "task_id", "error")
    return {index: (task_id, bool(error)) for index, task_id, error in told}


def first_tasks(rows: Sequence[TaskGroup]) -> dict[str, str]:
    """Return, by the ids of groups, the name of each one's first task, where that is known."""
    firsts = {row.group_id: _expected(row.group_id, 0) for row in rows if row.size}
    ids = [task_id for task_id in firsts.values() if task_id]
    known = {found.task_id: found.task for found in known_results(ids)} if ids else {}
    if unseen := [task_id for task_id in ids if task_id not in known]:
        known |= {task_id: message.task for task_id, message in waiting(unseen).items()}
    return {group_id: known[task_id] for group_id, task_id in firsts.items() if task_id in known}


def _expected(group_id: str, index: int) -> str:
    return member_id(group_id, index) if is_group_id(group_id) and index + 1 < 16**6 else ""


def open_members(row: TaskGroup, indexes: Sequence[int]) -> list[str]:
    """Return the ids of those among these members that have not ended, as far as they are known."""
    ends = _ends(row.group_id, indexes)
    expected = (_expected(row.group_id, index) for index in indexes if index not in ends)
    return [task_id for task_id in expected if task_id]


def failed_indexes(row: TaskGroup, start: int, stop: int, searched: int = WINDOW) -> list[int]:
    """Return the numbers of members that failed, from the one at `start` among them to the one before `stop`."""
    database = group_database()
    if database is None or row.failed_id is None:
        return []
    parts = _failed_parts(database, searched).filter(group_id=row.group_id).order_by("index")
    return list(parts.values_list("index", flat=True)[start:stop])


# What was begun at about the same time: ids tell when they were made, and are in order in the index.


@dataclass(frozen=True, slots=True)
class Begun(Generic[M]):
    """What a task, or whatever began with it, has begun, as far as that was searched."""

    rows: list[M]
    whole: bool
    """Whether nothing beyond what was searched can belong to it."""


def inner_groups(row: TaskGroup) -> list[TaskGroup]:
    """Return the groups that are members of this one, among those whose ids were made soon after its own."""
    database = group_database()
    if database is None:
        return []
    groups = TaskGroup.objects.using(database).defer(*HEAVY_GROUP)
    return _near(groups, "group_id", row.group_id, None, {"outer_id": row.group_id}).rows


def groups_beside(row: TaskGroup, most: int) -> list[TaskGroup]:
    """Return up to `most` groups of the same tree, among those whose ids were made soon after that of its root."""
    database, root_id = group_database(), row.root_id
    if database is None or root_id is None:
        return []
    groups = TaskGroup.objects.using(database).defer(*HEAVY_GROUP).exclude(group_id=row.group_id)
    return _near(groups, "group_id", root_id, None, {"root_id": root_id}).rows[:most]


def begun_by(row: TaskResult, most: int) -> tuple[Begun[TaskResult], Begun[TaskGroup]]:
    """Return up to `most` tasks and groups that a task sent, or that follow it, the first ones first."""
    tasks = TaskResult.objects.using(row._state.db).defer(*HEAVY_RESULT)
    found = _begun(tasks, "task_id", row, most)
    database = group_database()
    if database is None:
        return found, Begun([], whole=True)
    return found, _begun(TaskGroup.objects.using(database).defer(*HEAVY_GROUP), "group_id", row, most)


def _begun(rows: QuerySet[M], field: str, parent: TaskResult, most: int) -> Begun[M]:
    mine = {"parent_id": parent.task_id}
    # The ids of what follows it were made with its own, those of what it sent while it ran.
    beside = _near(rows, field, parent.task_id, None, mine)
    if parent.started_at is None:
        return Begun(beside.rows[:most], beside.whole)
    since = first_id(_aware(parent.started_at) - _SKEW)
    until = None if parent.ended_at is None else first_id(_aware(parent.ended_at) + _SKEW)
    within = _near(rows, field, max(since, parent.task_id), until, mine)
    found = {each.pk: each for each in (*beside.rows, *within.rows)}
    return Begun([found[key] for key in sorted(found)][:most], (beside.whole or within.whole) and len(found) <= most)


def _near(rows: QuerySet[M], field: str, after: str, until: str | None, mine: Mapping[str, Any]) -> Begun[M]:
    """Return rows of the `NEAR` whose ids come next after one, and not beyond another."""
    rows = rows.filter(**{f"{field}__gt": after}).order_by(field)
    if until is not None:
        rows = rows.filter(**{f"{field}__lt": until})
    edge = next(iter(rows.values_list(field, flat=True)[NEAR : NEAR + 1]), None)
    if edge is not None:
        rows = rows.filter(**{f"{field}__lt": edge})
    return Begun(list(rows.filter(**mine)), edge is None)


def _aware(moment: datetime) -> datetime:
    return moment if settings.USE_TZ or timezone.is_aware(moment) else timezone.make_aware(moment)
