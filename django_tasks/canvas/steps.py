"""What must be written for a node to begin, and for what follows it to find its way?

What follows travels with what it follows: the steps of a chain in the body of each message, the body of a chord in the
record of its header. Each id is there before anything is sent, so that whatever is repeated after a crash is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from django_tasks.canvas.calls import Lineage, seal
from django_tasks.message import Message
from django_tasks.options import check_call
from django_tasks.plan import NOTHING, Group, Place, Plan, joined

Embed = Mapping[str, Any]
"""What a message's body says of what follows: `callbacks`, `errbacks` and `chain` as in Celery (`chain` backwards);
`gather`, the id of the group whose values are the first argument; `failed`, what an errback is told."""


class Node(Protocol):
    """A frozen node, as far as planning needs to know it."""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    immutable: bool

    @property
    def place(self) -> Place | None: ...
    def clone(self, args: Iterable[Any] = ..., kwargs: Mapping[str, Any] | None = ...) -> Self: ...
    def begin(self, step: Step) -> Plan: ...


class Members(Node, Protocol):
    """A frozen group."""

    @property
    def tasks(self) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Step:
    """What a node is told when its turn comes."""

    comes_from: Lineage
    given: tuple[Any, ...] = ()
    """Arguments before its own."""
    gather: str | None = None
    """The group whose values, in a list, are an argument before its own."""
    failed: Mapping[str, Any] | None = None
    """Of what it is told, as an errback that takes more than an id."""
    tail: tuple[Node, ...] = ()
    """What follows it, in order."""
    replies: bool = True

    @property
    def before(self) -> tuple[Any, ...]:
        """What its arguments begin with, as far as that is known."""
        if self.gather is not None:
            return ([],)
        return (None, None, "") if self.failed is not None else self.given


def message_of(node: Node, step: Step) -> Message:
    """Return the message of a single call."""
    embed: dict[str, Any] = {}
    if callbacks := node.options.get("link"):
        embed["callbacks"] = callbacks
    if errbacks := node.options.get("link_error"):
        embed["errbacks"] = errbacks
    if step.tail:
        embed["chain"] = [*reversed(step.tail)]
    if not node.immutable:
        if step.gather is not None:
            embed["gather"] = step.gather
        if step.failed is not None:
            embed["failed"] = step.failed
        if step.given:
            node = node.clone(step.given)
    return seal(node, embed, step.comes_from, replies=step.replies)


def fan(header: Members, step: Step) -> Plan:
    """Return what must be written for the members of a group to begin, and the rest when they have ended."""
    # It may come from a message, which anybody can have written.
    check_call({"timeout": header.options.get("timeout")})
    group_id: str = header.options["task_id"]
    root_id, following = step.comes_from.root_id or group_id, step.tail
    if not header.tasks:
        # Nothing to wait for: a body begins with the empty list.
        if not following:
            return NOTHING
        return following[0].begin(replace(step, given=([],), gather=None, tail=following[1:]))
    then = NOTHING
    if following:
        heir = Lineage(root_id, group_id, step.comes_from.priority)
        told = Step(heir, gather=group_id, tail=following[1:], replies=step.replies)
        then = following[0].begin(told)
    each = replace(step, comes_from=step.comes_from._replace(root_id=root_id), tail=())
    record = Group(
        id=group_id,
        size=len(header.tasks),
        then=then,
        place=None if following else header.place,
        root_id=root_id,
        parent_id=step.comes_from.parent_id,
        timeout=header.options.get("timeout"),
    )
    return joined((Plan(groups=(record,)), *(member.begin(each) for member in header.tasks)))
