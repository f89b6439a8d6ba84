"""What becomes of what waits for a task that has failed?

It fails as well, and says why: nobody waits for ever for a task that will never run.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from django_tasks import states
from django_tasks.canvas.calls import place_of
from django_tasks.canvas.compositions import chain, chord, group
from django_tasks.canvas.continuations import MALFORMED, reports
from django_tasks.canvas.signature import Signature, signature
from django_tasks.canvas.steps import Embed
from django_tasks.canvas.tail import REST, Rest, Tail
from django_tasks.context import forms
from django_tasks.exceptions import ChordError, DecodeError
from django_tasks.failure import Failure, capture, rebuild
from django_tasks.message import Message, valid_id
from django_tasks.plan import NOTHING, Group, Part, Plan, Result, joined, member_end
from django_tasks.sealing import unsealed


def abandoned(message: Message, failure: Failure, *, replies: bool = True) -> Plan:
    """Return what follows a task that failed before its body was opened; of a body that cannot be, nothing is known."""
    try:
        _, kwargs, embed = unsealed(message)
    except DecodeError:
        return NOTHING
    plan = aftermath(message, embed, failure, replies=replies)
    if message.task != REST:
        return plan
    return joined((ended(Tail(rest=Rest.found_in(kwargs)), failure, message), plan))


def aftermath(message: Message, embed: Embed, failure: Failure, *, replies: bool = True) -> Plan:
    """Return what follows a task that has failed for good: its errbacks, and the end of all that waits for it."""
    if not embed:
        return NOTHING
    try:
        told = reports(message, embed, failure, replies=replies)
    except MALFORMED as error:
        told = NOTHING
        failure = replace(failure, notes=(*failure.notes, f"Its errbacks could not be sent: {error}"))
    return joined((told, ended(Tail.of(forms(embed, "chain")), failure, message)))


def ended(tail: Tail, failure: Failure, message: Message) -> Plan:
    """Return the end of all steps that will not begin, since the task of a message has failed; of those that can be
    read."""
    plans: list[Plan] = []
    with suppress(DecodeError):
        for step in tail.every():
            with suppress(*MALFORMED):
                plans.append(_ended(signature(step), failure, message))
    return joined(plans)


def _ended(node: Signature, failure: Failure, message: Message) -> Plan:
    match node:
        case chain():
            return joined(_ended(task, failure, message) for task in node.tasks)
        case group():
            return joined((_never_opened(node, failure), *(_ended(task, failure, message) for task in node.tasks)))
        case chord(body=Signature() as body):
            return joined((_ended(node.header, failure, message), _ended(body, failure, message)))
    task_id = node.options["task_id"]
    if not valid_id(task_id):
        raise DecodeError(f"{task_id!r:.80} is no id of a task")
    result = Result(
        id=task_id,
        state=states.FAILURE,
        failure=failure,
        task=node.task,
        ended_at=datetime.now(UTC),
        root_id=message.root_id or message.id,
        parent_id=message.id,
        group_id=None if node.place is None else node.place[0],
    )
    return Plan(results=(result,)) + member_end(node.place, task_id, failure=failure)


def _never_opened(node: group, failure: Failure) -> Plan:
    group_id, size = node.options["task_id"], len(node.tasks)
    if not valid_id(group_id):
        raise DecodeError(f"{group_id!r:.80} is no id of a group")
    return Plan(groups=(Group(group_id, size, failure=failure),)) + member_end(node.place, group_id, failure=failure)


def dropped(plan: Plan, failure: Failure) -> Plan:
    """Return the end of all that a plan would have begun: of what was to follow a group one of whose members failed."""
    return joined(
        (
            *(_dropped_group(each, failure) for each in plan.groups),
            *(_dropped_message(message, failure) for message in plan.messages),
        )
    )


def _dropped_group(each: Group, failure: Failure) -> Plan:
    closed = replace(each, then=NOTHING, place=None, failure=failure)
    return joined(
        (Plan(groups=(closed,)), member_end(each.place, each.id, failure=failure), dropped(each.then, failure))
    )


def _dropped_message(message: Message, failure: Failure) -> Plan:
    result = Result.of(message, states.FAILURE, failure=failure, ended_at=datetime.now(UTC))
    end = member_end(place_of(message), message.id, failure=failure)
    return joined((Plan(results=(result,)), end, abandoned(message, failure)))


def chord_failure(part: Part) -> Failure:
    """Return how the body of a chord fails for the failure of a member, or of the group as such."""
    if part.failure is not None and part.task_id == part.place[0]:
        return capture(rebuild(part.failure))
    cause = part.failure or Failure("TaskError", "django_tasks.exceptions", "it ended without a value")
    error = ChordError(f"Dependency {part.task_id} raised {cause.type}({cause.message!r})")
    error.__cause__ = rebuild(cause)
    return capture(error)
