"""What follows a task that has ended?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django_tasks.canvas.calls import Lineage, inherited_priority, place_of
from django_tasks.canvas.compositions import chord, group
from django_tasks.canvas.mapped import ACCUMULATE
from django_tasks.canvas.signature import Signature, signature
from django_tasks.canvas.steps import Embed, Step
from django_tasks.canvas.tail import Tail
from django_tasks.context import Request, forms, remember
from django_tasks.exceptions import DjangoTasksError
from django_tasks.failure import Failure
from django_tasks.message import Message
from django_tasks.plan import Plan, joined
from django_tasks.registry import tasks

MALFORMED = (DjangoTasksError, LookupError, TypeError, ValueError, AttributeError)
"""What it may raise to go on with what a message says, which anybody may have written."""


def proceed(request: Request, value: Any) -> Plan:
    """Return what follows a task that has ended well with a value.

    Raises one of MALFORMED for a value or options that cannot be sent on.
    """
    comes_from = Lineage(request.root_id, request.id, inherited_priority(request.message))
    step = Step(comes_from, given=(value,), replies=not request.is_eager)
    following = [_named(signature(each)) for each in request.callbacks]
    plans = [each.begin(step) for each in following]
    if tail := Tail.of(request.chain):
        form, left = tail.parted()
        following.append(_named(signature(form)))
        plans.append(following[-1].begin(replace(step, tail=left)))
    for each in following:
        remember(each.handle(), request)
    return joined(plans)


def _named(node: Signature) -> Signature:
    """Return a node whose id is known before it is sent: others may have left it to whoever sends it."""
    return node if node.subtask_type is not None or node.options.get("task_id") is not None else node.frozen()


def replacement(request: Request, node: Signature) -> Plan:
    """Return what must be written for another node to run in a task's place: it ends under the task's id, as the same
    member of a group, and what was to follow the task follows it."""
    if isinstance(node, group):
        # Only a task can have the id.
        node = chord(node, Signature(ACCUMULATE, kwargs={"index": 0}))
    message = request.message
    inherited = node.clone(
        task_id=message.id, link=request.callbacks, link_error=request.errbacks, stamps=message.stamps
    )
    frozen = inherited.frozen(place_of(message))
    comes_from = Lineage(request.root_id, request.parent_id, inherited_priority(message))
    return frozen.begin(Step(comes_from, tail=Tail.of(request.chain), replies=not request.is_eager))


def reports(message: Message, embed: Embed, failure: Failure, *, replies: bool = True) -> Plan:
    """Return the errbacks of a task that has failed for good."""
    step = Step(Lineage(message.root_id or message.id, message.id, inherited_priority(message)), replies=replies)
    plans = []
    for each in forms(embed, "errbacks"):
        errback = signature(each)
        if _is_told_more(errback):
            told = replace(step, failed={"message": _told(message), "failure": failure.as_dict()})
        else:
            told = replace(step, given=(message.id,))
        plans.append(errback.begin(told))
    return joined(plans)


def _is_told_more(errback: Signature) -> bool:
    """Tell whether an errback is called with `(request, exc, traceback)`, as Celery decides it."""
    task = tasks.get(errback.task)
    if task is None:
        return False
    kinds = [parameter.kind for parameter in task.parameters.parameters.values()]
    positional = [kind for kind in kinds if kind in {kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD}]
    return len(positional) > 1 or any(kind is kind.VAR_POSITIONAL for kind in kinds)


_TOLD = ("id", "task", "queue", "priority", "retries", "root_id", "parent_id", "group_id", "group_index", "args_repr")
"""What an errback is told of the message whose task failed; its body may be secret, or large."""


def _told(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in (*_TOLD, "kwargs_repr", "origin", "attempts")}
