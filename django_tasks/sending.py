"""How is a task sent by its name alone, and how are many sent at once?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from asgiref.sync import sync_to_async

from django_tasks.canvas.calls import ignored, lineage, plainly
from django_tasks.canvas.signature import Signature
from django_tasks.canvas.steps import Step
from django_tasks.context import remember
from django_tasks.message import Message
from django_tasks.options import CallOptions
from django_tasks.plan import Plan, joined
from django_tasks.publisher import begin
from django_tasks.result import AsyncResult


def send_task(
    name: str,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[CallOptions],
) -> AsyncResult[Any]:
    """Send a task by its name alone: it need not be known in this process."""
    return bulk([Signature(name, tuple(args), dict(kwargs or {}), options)])[0]


def bulk(calls: Iterable[Signature]) -> list[AsyncResult[Any]]:
    """Send many calls at once, in one message to the broker: `bulk(add.s(i, i) for i in range(1000))`.

    All arguments are checked first: either all calls of one broker are queued or none.
    """
    step = Step(lineage())
    handles: list[AsyncResult[Any]] = []
    plans: list[Plan] = []
    plain: list[Message] = []
    for call in calls:
        # A thousand calls that say nothing but their arguments need no thousand copies and plans.
        message = plainly(call, step.comes_from) if type(call) is Signature else None
        if message is not None:
            plain.append(message)
            handles.append(AsyncResult(message.id, ignored=ignored(message)))
            continue
        if plain:
            plans.append(Plan(tuple(plain)))
            plain = []
        node = call.frozen()
        plans.append(node.begin(step))
        handles.append(node.handle())
    begin(joined([*plans, Plan(tuple(plain))]))
    for handle in handles:
        remember(handle)
    return handles


async def abulk(calls: Iterable[Signature]) -> list[AsyncResult[Any]]:
    """Send many calls at once, without blocking the event loop."""
    return await sync_to_async(bulk)(calls)
