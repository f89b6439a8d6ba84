"""Where are groups recorded when the project's own database keeps them?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error, connections
from django.db.models import Case, F, IntegerField, Value, When
from django.db.models.functions import Now
from django.utils import timezone

from django_tasks.exceptions import StoreUnavailable
from django_tasks.models import GroupMember, GroupPart, TaskGroup
from django_tasks.plan import Group, Part, Place
from django_tasks.protocol import dump_plan, load_plan
from django_tasks.results.groups import Ended, Groups, Progress, absent, failure_from, failure_text, lateness
from django_tasks.results.rows import as_bytes, as_text
from django_tasks.schema import number_array, text_array
from django_tasks.transactions import explain, retrying

T = TypeVar("T")

ROWS = 500
"""How many rows one statement names."""


class _ServerTime(Now):
    """The time of the server, the same whatever zone a session has."""

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


class GroupRows(Groups):
    """Keeps groups in two tables: a row for each group, and one for each member that has ended.

    Whoever records members holds the rows of their groups, in the order of their ids, until the transaction ends. So of
    two that end the last two members one comes second, and finds the group complete. A batch costs four statements,
    whatever its size and that of the groups, and two or three more when groups end.
    """

    def __init__(self, using: str) -> None:
        self.database: str = using

    def open(self, groups: Sequence[Group]) -> None:
        rows = [self._row(group) for group in groups]
        for chunk in _chunks(rows):
            self._run(partial(self._insert, chunk))

    def _insert(self, rows: Sequence[TaskGroup]) -> None:
        TaskGroup.objects.using(self.database).bulk_create(rows, ignore_conflicts=True)

    def _row(self, group: Group) -> TaskGroup:
        outer_id, outer_index = group.place or (None, None)
        row = TaskGroup(
            group_id=group.id,
            size=group.size,
            then=dump_plan(group.then),
            outer_id=outer_id,
            outer_index=outer_index,
            root_id=group.root_id,
            parent_id=group.parent_id,
        )
        if group.failure is None and group.timeout is not None:
            row.deadline = _ServerTime() + timedelta(seconds=group.timeout)
        if group.failure is not None:
            row.failed_id, row.failed_index = group.id, 0
            row.error, row.ended_at = failure_text(group.failure), timezone.now()
        return row

    def record(self, parts: Sequence[Part]) -> list[Ended]:
        first = {part.place: part for part in reversed(parts)}
        ended: list[Ended] = []
        for chunk in _chunks([first[place] for place in sorted(first)]):
            ended += self._run(partial(self._record, chunk))
        return ended

    def _record(self, parts: Sequence[Part]) -> list[Ended]:
        groups = TaskGroup.objects.using(self.database)
        ids = list(dict.fromkeys(part.place[0] for part in parts))
        locked = groups.select_for_update().filter(group_id__in=ids).order_by("group_id")
        found = {row[0]: row for row in locked.values_list("group_id", "size", "done", "ended_at")}
        fresh = self._insert_parts([part for part in parts if _fits(part.place, found)])
        if not fresh:
            return []
        counts = Counter(part.place[0] for part in fresh)
        each = [When(group_id=group_id, then=Value(count)) for group_id, count in counts.items()]
        groups.filter(group_id__in=list(counts)).update(done=F("done") + Case(*each, output_field=IntegerField()))
        failed: dict[str, Part] = {}
        for part in fresh:
            if part.failure is not None:
                failed.setdefault(part.place[0], part)
        ended = [
            group_id
            for group_id, count in counts.items()
            if found[group_id][3] is None and (group_id in failed or found[group_id][2] + count >= found[group_id][1])
        ]
        return self._end(ended, failed) if ended else []

    def _insert_parts(self, parts: Sequence[Part]) -> list[Part]:
        """Write parts down but for those that are there, and return them."""
        if not parts:
            return []
        if connections[self.database].vendor == "postgresql":
            with connections[self.database].cursor() as cursor:
                cursor.execute(_INSERT_FRESH, _arrays(parts))
                written = set(cursor.fetchall())
            return [part for part in parts if part.place in written]
        rows = GroupPart.objects.using(self.database)
        known = rows.filter(group_id__in={part.place[0] for part in parts}, index__in={part.place[1] for part in parts})
        there = set(known.values_list("group_id", "index"))
        fresh = [part for part in parts if part.place not in there]
        if fresh:
            rows.bulk_create([_part_row(part) for part in fresh])
        return fresh

    def _end(self, ids: Sequence[str], failed: Mapping[str, Part]) -> list[Ended]:
        groups, now = TaskGroup.objects.using(self.database), timezone.now()
        rows = {row.group_id: row for row in groups.filter(group_id__in=ids)}
        if whole := [group_id for group_id in ids if group_id not in failed]:
            groups.filter(group_id__in=whole).update(ended_at=now, deadline=None)
        broken = [rows[group_id] for group_id in ids if group_id in failed]
        for row in broken:
            part = failed[row.group_id]
            row.ended_at, row.deadline = now, None
            row.failed_id, row.failed_index = part.task_id, part.place[1]
            row.error = "" if part.failure is None else failure_text(part.failure)
        if broken:
            groups.bulk_update(broken, _ENDING)
        return [Ended(_group_from(rows[group_id]), failed.get(group_id)) for group_id in ids]

    def late(self, limit: int = 100) -> list[str]:
        late = TaskGroup.objects.using(self.database).filter(deadline__lte=_ServerTime()).order_by("deadline")
        ids = late.values_list("group_id", flat=True)[: max(0, limit)]
        return self._run(lambda: list(ids), atomic=False)

    def give_up(self, ids: Sequence[str]) -> list[Ended]:
        return [ended for chunk in _chunks(ids) for ended in self._run(partial(self._give_up, chunk))]

    def _give_up(self, ids: Sequence[str]) -> list[Ended]:
        late = TaskGroup.objects.using(self.database).filter(group_id__in=ids, deadline__lte=_ServerTime())
        locked = late.select_for_update().order_by("group_id")
        failed = dict(map(self._lateness, list(locked.values_list("group_id", "size"))))
        return self._end(list(failed), failed) if failed else []

    def _lateness(self, row: tuple[str, int]) -> tuple[str, Part]:
        group_id, size = row
        rows = GroupPart.objects.using(self.database).filter(group_id=group_id)
        there = set(rows.values_list("index", flat=True))
        missing = absent(there, size)
        failure = lateness(missing, size - len(there), size)
        return group_id, Part((group_id, missing[0]), group_id, failure=failure)

    def values(self, group_id: str) -> list[bytes] | None:
        known = self.progress([group_id]).get(group_id)
        if known is None or known.failed is not None or not known.ready:
            return None
        rows = GroupPart.objects.using(self.database).filter(group_id=group_id).order_by("index")
        values = self._run(lambda: list(rows.values_list("value", flat=True)), atomic=False)
        return [b"null" if value is None else as_bytes(value) for value in values]

    def parts(self, group_id: str) -> list[Part]:
        rows = GroupPart.objects.using(self.database).filter(group_id=group_id).order_by("index")
        return [_part_from(row) for row in self._run(lambda: list(rows), atomic=False)]

    def progress(self, ids: Sequence[str]) -> dict[str, Progress]:
        found: dict[str, Progress] = {}
        for chunk in _chunks(list(dict.fromkeys(ids))):
            rows = TaskGroup.objects.using(self.database).filter(group_id__in=chunk)
            told: list[dict[str, Any]] = self._run(partial(list, rows.values(*_PROGRESS)), atomic=False)
            for row in told:
                found[row["group_id"]] = _progress(row)
        return found

    def keep(self, group_id: str, size: int, text: str) -> None:
        self.open([Group(group_id, size)])
        self._run(lambda: TaskGroup.objects.using(self.database).filter(group_id=group_id).update(saved=text))

    def kept(self, group_id: str) -> str | None:
        row = TaskGroup.objects.using(self.database).filter(group_id=group_id).values_list("saved", flat=True)
        return self._run(row.first, atomic=False)

    def grow(self, group_id: str, name: str) -> int | None:
        return self._run(partial(self._grow, group_id, name))

    def _grow(self, group_id: str, name: str) -> int | None:
        groups = TaskGroup.objects.using(self.database).filter(group_id=group_id)
        added = GroupMember.objects.using(self.database).filter(group_id=group_id, name=name)
        found = groups.select_for_update().values_list("size", "ended_at").first()
        if found is None:
            return None
        known: int | None = added.values_list("index", flat=True).first()
        if known is not None or found[1] is not None:
            return known
        added.create(group_id=group_id, name=name, index=found[0])
        groups.update(size=found[0] + 1)
        return found[0]

    def forget(self, ids: Sequence[str]) -> int:
        return sum(self._run(partial(self._delete, chunk)) for chunk in _chunks(ids))

    def _delete(self, ids: Sequence[str]) -> int:
        # Past Django's collector, which would read what it deletes.
        parts = GroupPart.objects.using(self.database).filter(group_id__in=ids)
        parts._raw_delete(self.database)
        GroupMember.objects.using(self.database).filter(group_id__in=ids)._raw_delete(self.database)
        return int(TaskGroup.objects.using(self.database).filter(group_id__in=ids)._raw_delete(self.database))

    def expire(self, before: datetime, limit: int = 100) -> int:
        old = TaskGroup.objects.using(self.database).filter(ended_at__lt=_as_stored(before)).order_by("ended_at")
        ids = self._run(lambda: list(old.values_list("group_id", flat=True)[: max(0, limit)]), atomic=False)
        return self.forget(ids) if ids else 0

    def _run(self, statements: Callable[[], T], *, atomic: bool = True) -> T:
        try:
            return retrying(self.database, statements, atomic=atomic)
        except (Error, ValueError) as error:
            raise StoreUnavailable(explain(self.database, error)) from error


_ENDING = ("ended_at", "deadline", "failed_id", "failed_index", "error")
_PROGRESS = ("group_id", "size", "done", "failed_id", "failed_index", "error", "ended_at")


def _progress(row: dict[str, Any]) -> Progress:
    failed = None
    if row["failed_id"] is not None:
        failed = Part((row["group_id"], row["failed_index"] or 0), row["failed_id"], failure=failure_from(row["error"]))
    return Progress(row["group_id"], row["size"], row["done"], failed, row["ended_at"])


def _group_from(row: TaskGroup) -> Group:
    place = None if row.outer_id is None or row.outer_index is None else (row.outer_id, row.outer_index)
    return Group(row.group_id, row.size, load_plan(row.then), place, None, row.root_id, row.parent_id)


def _fits(place: Place, found: dict[str, Any]) -> bool:
    return place[0] in found and 0 <= place[1] < found[place[0]][1]


_INSERT_FRESH = """
    INSERT INTO django_tasks_grouppart (group_id, index, task_id, value, error)
    SELECT * FROM unnest(%s::text[], %s::integer[], %s::text[], %s::text[], %s::text[])
    ON CONFLICT (group_id, index) DO NOTHING RETURNING group_id, index
"""
"""Sends one array a column: the statement is the same for any number of rows, and the driver has little to do."""


def _arrays(parts: Sequence[Part]) -> list[str]:
    return [
        text_array([part.place[0] for part in parts]),
        number_array([part.place[1] for part in parts]),
        text_array([part.task_id for part in parts]),
        text_array([None if part.value is None else as_text(part.value) for part in parts]),
        text_array(["" if part.failure is None else failure_text(part.failure) for part in parts]),
    ]


def _part_row(part: Part) -> GroupPart:
    return GroupPart(
        group_id=part.place[0],
        index=part.place[1],
        task_id=part.task_id,
        value=None if part.value is None else as_text(part.value),
        error="" if part.failure is None else failure_text(part.failure),
    )


def _part_from(row: GroupPart) -> Part:
    value = None if row.value is None else as_bytes(row.value)
    failure = failure_from(row.error) if row.error else None
    return Part((row.group_id, row.index), row.task_id, value, failure)


def _as_stored(moment: datetime) -> datetime:
    if settings.USE_TZ or timezone.is_naive(moment):
        return moment
    return timezone.make_naive(moment)


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), ROWS):
        yield values[start : start + ROWS]
