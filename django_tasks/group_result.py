"""What came of several tasks? The handles of a group, and of any set of tasks."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Self, cast

from django_tasks import databases, states
from django_tasks.connections import groups_of, results
from django_tasks.context import may_join
from django_tasks.control.client import revoke
from django_tasks.encryption import reveal_value
from django_tasks.exceptions import ResultTimeout
from django_tasks.failure import Failure, rebuild
from django_tasks.message import is_group_id, member_id, valid_id
from django_tasks.plan import Part, Result
from django_tasks.result import FORBIDDEN, AsyncResult, line_of, look, tuple_of, value_of
from django_tasks.results.groups import Progress
from django_tasks.serializers import loads

FIRST_POLL, LONGEST_POLL = 0.005, 0.25
"""Seconds between two looks at a group that is waited for, at first and after a while."""


class ResultSet:
    """Handles of tasks, in order, asked together."""

    __slots__ = ("results",)

    def __init__(self, results: Iterable[Any] = ()) -> None:
        self.results: list[Any] = list(results)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.results == self.results

    __hash__ = None  # type: ignore[assignment]  # it may change

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(handle.id for handle in self.results)}]>"

    def add(self, result: Any) -> None:
        """Add a handle, if it is not there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Take a handle, or the one with that id, out; KeyError if it is not there."""
        found = next((each for each in self.results if result in (each, each.id)), None)
        if found is None:
            raise KeyError(result)
        self.results.remove(found)

    def discard(self, result: Any) -> None:
        """Take a handle out, if it is there."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add handles that are not there."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Take all handles out."""
        self.results.clear()

    # How far they are

    @property
    def _leaves(self) -> list[AsyncResult[Any]]:
        return [leaf for each in self.results for leaf in (each._leaves if isinstance(each, ResultSet) else [each])]

    def _known(self) -> list[Result]:
        """Return what is known of each task, in one look at each store."""
        return look(self._leaves)

    def completed_count(self) -> int:
        """Return how many have ended well."""
        return sum(each.state == states.SUCCESS for each in self._known())

    def ready(self) -> bool:
        """Tell whether all have ended."""
        return all(each.final for each in self._known())

    def waiting(self) -> bool:
        """Tell whether any has not ended."""
        return not self.ready()

    def successful(self) -> bool:
        """Tell whether all have ended well."""
        return all(each.state == states.SUCCESS for each in self._known())

    def failed(self) -> bool:
        """Tell whether any has failed."""
        return any(each.state == states.FAILURE for each in self._known())

    def maybe_throw(self) -> None:
        """Raise the exception of the first that failed, if any did."""
        for each in self._known():
            if each.state in states.FAILED:
                raise value_of(each)

    # What they returned

    def get(
        self,
        timeout: float | None = None,
        *,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        callback: Callable[[str, Any], None] | None = None,
    ) -> list[Any]:
        """Wait for all, and return what they returned, in order.

        Raises the exception of the first, in that order, that failed, or with `propagate=False` gives it in place of a
        value; ResultTimeout after `timeout` seconds. A `callback` gets the id and the value of each, in order.
        """
        if disable_sync_subtasks and not may_join():
            raise RuntimeError(FORBIDDEN)
        deadline = None if timeout is None else time.monotonic() + timeout
        self._await(deadline, fast=propagate)
        values: list[Any] = []
        for handle, value in self._ended(deadline, propagate):
            if callback is not None:
                callback(handle.id, value)
            values.append(value)
        return values

    def _ended(self, deadline: float | None, propagate: bool) -> Iterator[tuple[Any, Any]]:
        """Give each handle with its value, or raise what it failed with."""
        for handle in self.results:
            yield handle, handle.get(_left(deadline), propagate=propagate, disable_sync_subtasks=False)

    join = join_native = get

    def _await(self, deadline: float | None, *, fast: bool = False) -> None:
        """Wait until all have ended, or, if `fast`, one may be known to have failed; read them many at a time."""
        while True:
            self._known()
            waiting = [leaf for leaf in self._leaves if leaf.known is None and not leaf.ignored]
            if not waiting:
                return
            left = _left(deadline)
            if left is not None and left <= 0:
                raise ResultTimeout(f"{len(waiting)} of {len(self._leaves)} tasks did not end in time.")
            # The last to end is as good as any: the others are read when it has.
            results[waiting[-1].store].wait([waiting[-1].id], left)

    def iter_native(self, timeout: float | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give the id and the state and value of each task as it ends."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = {leaf.id: leaf for leaf in self._leaves}
        while waiting:
            left = _left(deadline)
            store = next(iter(waiting.values())).store
            ended = results[store].wait([each for each, leaf in waiting.items() if leaf.store == store], left)
            if not ended:
                raise ResultTimeout(f"{len(waiting)} tasks did not end in time.")
            for task_id, known in ended.items():
                waiting.pop(task_id).known = known
                yield task_id, {"status": known.state, "result": value_of(known), "task_id": task_id}

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> list[Any]:
        """Wait for all as `get` does, without blocking the event loop."""
        return await databases.aside(partial(self.get, timeout, propagate=propagate))

    # What becomes of them

    def forget(self) -> None:
        """Remove the results from their stores."""
        leaves = self._leaves
        for store in {leaf.store for leaf in leaves}:
            results[store].forget([leaf.id for leaf in leaves if leaf.store == store])

    def revoke(self, *, terminate: bool = False) -> None:
        """Revoke all; with `terminate` also those that run."""
        revoke([leaf.id for leaf in self._leaves], terminate=terminate)


class GroupResult(ResultSet):
    """The handle of a group that was sent: of its members, and of how far they are together."""

    __slots__ = ("id", "parent", "store")

    def __init__(
        self,
        id: str,  # noqa: A002  # Celery's name
        results: Iterable[Any] = (),
        store: str = "default",
        parent: Any = None,
    ) -> None:
        super().__init__(results)
        self.id = id
        self.store = store
        self.parent: Any = parent
        """The handle of what came before, in a chain."""

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} [{', '.join(handle.id for handle in self.results)}]>"

    @property
    def children(self) -> list[Any]:
        """The handles of the members."""
        return self.results

    @property
    def first(self) -> Any:
        """The handle of what the whole began with."""
        return line_of(self)[-1]

    def progress(self) -> Progress | None:
        """Return how far the group is, in one look at one record, however many members it has; None when that is not
        kept."""
        return groups_of(self.store).progress([self.id]).get(self.id)

    def ready(self) -> bool:
        """Tell whether all members have ended, or the time of the group is over."""
        known = self.progress()
        return super().ready() if known is None else known.over

    def _await(self, deadline: float | None, *, fast: bool = False) -> None:
        """Wait for the record of the group, and not for each of its members."""
        began = time.monotonic()
        while (known := self.progress()) is not None and not (known.over or (fast and known.failed)):
            left = float("inf") if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise ResultTimeout(f"{known.size - known.done} of {known.size} members did not end in time.")
            pause = min(max(FIRST_POLL, (time.monotonic() - began) / 10), LONGEST_POLL)
            time.sleep(min(left, pause * random.uniform(0.8, 1.2)))
        if known is None:
            super()._await(deadline, fast=fast)

    def _ended(self, deadline: float | None, propagate: bool) -> Iterator[tuple[Any, Any]]:
        parts = {part.place[1]: part for part in groups_of(self.store).parts(self.id)}
        if len(parts) < len(self.results):
            known = self.progress()
            if propagate and known is not None and known.failed is not None and known.failed.failure is not None:
                raise rebuild(known.failed.failure)
            if known is not None and known.over and known.failed is not None and known.failed.failure is not None:
                yield from self._ended_in_time(known.failed.failure)
            else:
                yield from super()._ended(deadline, propagate)
            return
        for index, handle in enumerate(self.results):
            value = _value_of(parts[index], handle, propagate)
            if propagate and parts[index].failure is not None:
                raise cast(BaseException, value)
            yield handle, value

    def _ended_in_time(self, failure: Failure) -> Iterator[tuple[Any, Any]]:
        """Give each handle with its value or error as far as it has ended, and else with the failure of the group."""
        self._known()
        for handle in self.results:
            done = handle.ready() if isinstance(handle, GroupResult) else handle.known is not None or handle.ignored
            value = handle.get(propagate=False, disable_sync_subtasks=False) if done else rebuild(failure)
            yield handle, value

    def forget(self) -> None:
        """Remove the results of the members, and the record of the group."""
        super().forget()
        groups_of(self.store).forget([self.id])

    def take(self) -> None:
        """Read all results, and those of what came before, out of the store: only the handles know them then."""
        for each in line_of(self):
            each._take_own()

    def _take_own(self) -> None:
        """Do so with the results of this group alone."""
        for each in self.results:
            each.take()
        groups_of(self.store).forget([self.id])

    # Keeping the handle

    def as_tuple(self) -> tuple[Any, Any]:
        """Return the ids, of which `result_from_tuple` makes the handle again."""
        return tuple_of(self)

    def _members_as_tuples(self) -> list[Any]:
        """Return the ids of the members."""
        return [handle.as_tuple() for handle in self.results]

    def as_list(self) -> list[str]:
        """Return the ids of all members."""
        return [leaf.id for leaf in self._leaves]

    def save(self) -> Self:
        """Keep the handle in the store, so that `restore` finds it by the group's id."""
        groups_of(self.store).keep(self.id, len(self.results), json.dumps(self.as_tuple()))
        return self

    def delete(self) -> None:
        """Remove what `save` kept, and the record of the group."""
        groups_of(self.store).forget([self.id])

    @classmethod
    def restore(cls, group_id: str, store: str = "default") -> GroupResult | None:
        """Return the handle of a group by its id: one that was saved, or whose members have ids that follow from its
        own, as they do unless one was given. None when the group is not known."""
        groups = groups_of(store)
        if (saved := groups.kept(group_id)) is not None:
            return cast(GroupResult, result_from_tuple(json.loads(saved), store))
        known = groups.progress([group_id]).get(group_id)
        if known is None or not is_group_id(group_id):
            return None
        members: list[AsyncResult[Any]] = [
            AsyncResult(member_id(group_id, index), store) for index in range(known.size)
        ]
        return cls(group_id, members, store)


def _left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, none below 0."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _value_of(part: Part, handle: Any, propagate: bool) -> Any:
    """Return what a member returned, or the exception that it failed with."""
    if part.failure is None:
        return None if part.value is None else loads(reveal_value(part.value, part.task_id))
    # The result of the task tells more than the part does, where one is kept: a task that raised `Ignore` has none.
    known = None if isinstance(handle, GroupResult) else handle.fetch()
    if known is None or not known.final or known.failure is None:
        return rebuild(part.failure)
    return handle.get(propagate=propagate, disable_sync_subtasks=False) or rebuild(part.failure)


def result_from_tuple(form: Sequence[Any], store: str = "default") -> Any:
    """Return the handle of which `as_tuple` gave the ids; raises TypeError or ValueError for something else."""
    line: list[Sequence[Any]] = []
    before: Any = form
    while before is not None:
        line.append(before)
        before = None if isinstance(before[0], str) else before[0][1]
    handle: Any = None
    for head, members in reversed(line):
        own_id = head if isinstance(head, str) else head[0]
        if not valid_id(own_id):
            raise ValueError(f"{own_id!r:.80} is no id of a task or a group.")
        if members is None or isinstance(head, str):
            handle = AsyncResult(own_id, store, parent=handle)
        else:
            handle = GroupResult(own_id, [result_from_tuple(each, store) for each in members], store, handle)
    return handle


AsyncResult.made_of = staticmethod(result_from_tuple)
