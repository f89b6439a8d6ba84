"""What happens when the members of a group have ended?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django_tasks import conf, states
from django_tasks.canvas.abandonment import chord_failure, dropped
from django_tasks.canvas.values import listed
from django_tasks.exceptions import DecryptionError, SerializationError, SignatureError
from django_tasks.failure import capture
from django_tasks.message import Message
from django_tasks.plan import Group, Part, Place, Plan, Result, member_end
from django_tasks.results.groups import Ended, Groups
from django_tasks.serializers import LIMITS

_log = logging.getLogger("django_tasks.worker")


@dataclass(slots=True)
class Completion:
    """What is to be done once parts have been recorded."""

    messages: list[Message] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    """The groups whose following these are."""


def complete(groups: Groups, parts: Sequence[Part]) -> Completion:
    """Record how members of groups ended; return what that brings about, in the groups around theirs as well."""
    done = Completion()
    take(groups, done, groups.record(parts))
    return done


def take(groups: Groups, done: Completion, ended: Sequence[Ended]) -> None:
    """Add to what is to be done what follows groups that have ended."""
    while ended:
        parts: list[Part] = []
        opened: list[Group] = []
        for each in ended:
            following = _following(groups, each)
            opened += following.groups
            done.messages += following.messages
            done.results += following.results
            done.fired.append(each.group.id)
            parts += following.parts
        # What is to follow these is there before any message that may end one of their members.
        groups.open(opened)
        ended = groups.record(parts)


def _following(groups: Groups, ended: Ended) -> Plan:
    """Return what follows a group that has ended."""
    group, failed = ended.group, ended.failed
    if not ended.vouched and conf.get().require_signature:
        return _refused(group)
    if failed is not None:
        end = member_end(group.place, failed.task_id, failure=failed.failure)
        return dropped(group.then, chord_failure(failed)) + end
    if group.place is None:
        return group.then
    return group.then + Plan(parts=(_gathered(groups, group.id, group.place),))


def _refused(group: Group) -> Plan:
    """Return the end of what is to follow a group as nobody of this site has said, and which sending would sign.

    Nothing that stands there is sent, errbacks neither.
    """
    _log.error("What follows a group was not written by this site; it fails", extra={"group_id": group.id})
    failure = capture(
        SignatureError(
            "the group that it was to follow was changed where it is kept, or written with a key that is neither "
            "SECRET_KEY nor among SECRET_KEY_FALLBACKS"
        )
    )
    now = datetime.now(UTC)
    results = (Result.of(each, states.FAILURE, failure=failure, ended_at=now) for each in group.then.messages)
    return Plan(results=tuple(results)) + member_end(group.place, group.id, failure=failure)


def _gathered(groups: Groups, group_id: str, place: Place) -> Part:
    """Return the part that a whole group is of another: its values are a list, and that list is one of the other's."""
    try:
        value = listed(groups, group_id)
    except DecryptionError as error:
        return Part(place, group_id, failure=capture(error))
    if len(value) > LIMITS.bytes:
        large = SerializationError("result", f"{len(value):,} bytes; the limit is {LIMITS.bytes:,}")
        return Part(place, group_id, failure=capture(large))
    return Part(place, group_id, value=value)
