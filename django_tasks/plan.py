"""What must be written down: for work to start or go on, and for work that was done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django_tasks import states
from django_tasks.failure import Failure
from django_tasks.message import Message

Place = tuple[str, int]
"""A group's id, and the number of one of its members, counted from 0."""


def place_from(group_id: Any, index: Any) -> Place | None:
    """Return a place of these; None if they are none, whatever a message says."""
    if type(group_id) is not str or type(index) is not int or not 0 <= index < 2**31:
        return None
    return group_id, index


@dataclass(frozen=True, slots=True)
class Plan:
    """What must be written for work to start or go on."""

    messages: tuple[Message, ...] = ()
    groups: tuple[Group, ...] = ()
    """To be opened before any message is sent."""
    results: tuple[Result, ...] = ()
    """Of tasks that will never run, since what they waited for has failed."""
    parts: tuple[Part, ...] = ()
    """Of groups whose members will never run."""

    def __add__(self, other: Plan) -> Plan:
        return joined((self, other))

    def __bool__(self) -> bool:
        return bool(self.messages or self.groups or self.results or self.parts)


def joined(plans: Iterable[Plan]) -> Plan:
    """Return one plan for several."""
    every = [plan for plan in plans if plan]
    if len(every) == 1:
        return every[0]
    return Plan(
        messages=tuple(message for plan in every for message in plan.messages),
        groups=tuple(group for plan in every for group in plan.groups),
        results=tuple(result for plan in every for result in plan.results),
        parts=tuple(part for plan in every for part in plan.parts),
    )


NOTHING = Plan()


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks that run side by side, and what is to happen when all of them have ended well."""

    id: str
    size: int
    then: Plan = NOTHING
    place: Place | None = None
    """Where this group itself is a member: the list of its values is that member's value."""
    failure: Failure | None = None
    """Why none of its members will run."""
    root_id: str | None = None
    parent_id: str | None = None
    timeout: float | None = None
    """Seconds after which it fails if not all members have ended, counted from when it is opened."""


@dataclass(frozen=True, slots=True)
class Part:
    """How one member of a group ended."""

    place: Place
    task_id: str
    """The task whose end this is: for a chain the last one, or the one that failed."""
    value: bytes | None = None
    """Encoded."""
    failure: Failure | None = None
    """None if it ended well."""


def member_end(place: Place | None, task_id: str, value: bytes | None = None, failure: Failure | None = None) -> Plan:
    """Return what is to be recorded of the end of a group's member; nothing of a task that is none."""
    return NOTHING if place is None else Plan(parts=(Part(place, task_id, value, failure),))


@dataclass(frozen=True, slots=True)
class Requeue:
    """The message goes back to its queue in place of being acknowledged."""

    delay: float = 0.0
    """Seconds before it may be taken again."""
    spent: bool = False
    """Whether this run counts: False for a hand-back, True when the run took its worker process down."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt; a pool also reports the states in between (STARTED, PROGRESS) in this form."""

    state: str
    value: bytes | None = None
    """The encoded return value, or what `update_state(meta=...)` was given."""
    failure: Failure | None = None
    plan: Plan = NOTHING
    """What follows: the next attempt, callbacks."""
    requeue: Requeue | None = None
    keep: bool = True
    """Whether a result is written."""
    started: float | None = None
    """Seconds since the epoch; None when the task's function was never entered."""
    ended: float | None = None
    children: str = ""
    """What the run sent and what follows it, as JSON: see `dependencies.Trail`."""
    opened: bool = False
    """Whether the body was opened, so that `plan` says all that follows a failure too."""
    counts: bool = True
    """Whether anything follows at all: not so for a copy, for a forgery, and where another call takes over."""
    settled: bool = False
    """Whether the task has written all of this down itself, in its own transaction."""

    @property
    def interim(self) -> bool:
        """Tell whether the attempt goes on: the delivery stays leased, and another outcome will follow."""
        return self.requeue is None and self.state not in states.FINAL and self.state != states.RETRY

    @property
    def runtime(self) -> float:
        """Return the seconds spent in the task's function."""
        return 0.0 if self.started is None or self.ended is None else max(0.0, self.ended - self.started)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What is kept of a task."""

    id: str
    state: str
    value: bytes | None = None
    """Encoded: the return value, or a custom state's meta."""
    failure: Failure | None = None
    task: str = ""
    queue: str = ""
    worker: str = ""
    args_repr: str = ""
    kwargs_repr: str = ""
    retries: int = 0
    attempts: int = 0
    runtime: float | None = None
    """Seconds."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    children: str = ""
    """What the run sent, and what followed it, as JSON: the ids, as `as_tuple` has them."""
    message: Message | None = None
    """Kept for tasks that failed, so that they can be sent again."""
    reply_to: str = ""
    """Where the message says that its result is to go. It is not kept."""

    @classmethod
    def of(cls, message: Message, state: str, /, **told: Any) -> Result:
        """Return a result of a message's task, with what the message tells, and what else is known."""
        return cls(
            id=message.id,
            state=state,
            task=message.task,
            queue=message.queue,
            args_repr=message.args_repr,
            kwargs_repr=message.kwargs_repr,
            retries=message.retries,
            created_at=message.created_at,
            root_id=message.root_id,
            parent_id=message.parent_id,
            group_id=message.group_id,
            reply_to=message.reply_to,
            **told,
        )

    @property
    def final(self) -> bool:
        return self.state in states.FINAL
