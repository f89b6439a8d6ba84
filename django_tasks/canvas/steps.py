"""What must be written for a node to begin, and for what follows it to find its way?

What follows travels with what it follows: the steps of a chain in the body of each message, the body of a chord in the
record of its header. Each id is there before anything is sent, so that whatever is repeated after a crash is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from django_tasks.canvas.calls import Lineage, is_pickled, seal
from django_tasks.canvas.tail import Tail
from django_tasks.exceptions import SerializationError
from django_tasks.message import Message
from django_tasks.plan import Place, Plan

Embed = Mapping[str, Any]
"""What a message's body says of what follows: `callbacks`, `errbacks` and `chain` as in Celery (`chain` backwards; how
much of it, `tail` tells); `gather`, the id of the group whose values are the first argument; `failed`, what an errback
is told."""


NOTHING_MORE = Tail()


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
    tail: Tail = NOTHING_MORE
    """What follows it."""
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
        # What only pickle can say cannot be packed, which is done in JSON.
        embed["chain"] = step.tail.chain(whole=is_pickled(node))
    if not node.immutable:
        if step.gather is not None:
            embed["gather"] = step.gather
        if step.failed is not None:
            embed["failed"] = step.failed
        if step.given:
            node = node.clone(step.given)
    try:
        return seal(node, embed, step.comes_from, replies=step.replies)
    except SerializationError as error:
        if error.path != "body" or not step.tail:
            raise
        reason = f"{error.reason}; {step.tail.steps:,} steps of a chain wait in it"
        raise SerializationError(error.path, reason) from error
