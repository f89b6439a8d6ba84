"""How does a chain go on whose rest came as a task, because a worker of Celery's ran the step before it?"""

from __future__ import annotations

from django_tasks.canvas.abandonment import ended
from django_tasks.canvas.calls import Lineage
from django_tasks.canvas.continuations import MALFORMED
from django_tasks.canvas.header import onward
from django_tasks.canvas.steps import Step
from django_tasks.canvas.tail import Rest, Tail
from django_tasks.context import Request
from django_tasks.exceptions import DecodeError
from django_tasks.failure import capture
from django_tasks.plan import Plan


def resumed(request: Request) -> Plan:
    """Return what must be written for the steps to begin that are packed in the arguments of a call.

    Raises DecodeError for what is not packed as it should be.
    """
    rest = Rest.found_in(request.kwargs)
    if rest is None:
        raise DecodeError("no steps of a chain are packed in the arguments")
    tail = Tail(rest=rest)
    if behind := Tail.of(request.chain):
        tail = behind.after(*tail.every())
    step = Step(Lineage(request.root_id, request.parent_id), given=tuple(request.args), replies=not request.is_eager)
    try:
        return onward(tail, step)
    except MALFORMED as error:
        return ended(tail, capture(error), request.message)
