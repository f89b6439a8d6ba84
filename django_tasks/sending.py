"""How is a task sent by its name alone, and how are many sent at once?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from asgiref.sync import sync_to_async

from django_tasks.canvas.calls import lineage
from django_tasks.canvas.signature import Signature
from django_tasks.canvas.steps import Step
from django_tasks.options import CallOptions
from django_tasks.plan import joined
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
    nodes = [call.frozen() for call in calls]
    step = Step(lineage())
    begin(joined(node.begin(step) for node in nodes))
    return [node.handle() for node in nodes]


async def abulk(calls: Iterable[Signature]) -> list[AsyncResult[Any]]:
    """Send many calls at once, without blocking the event loop."""
    return await sync_to_async(bulk)(calls)
