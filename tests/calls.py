"""How does a test run a task without a worker?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_tasks import Task, states, task
from django_tasks.execution import Site, execute
from django_tasks.message import Delivery, Message, new_id
from django_tasks.plan import Outcome
from django_tasks.serializers import encode_body

HERE = Site(worker="w1", eager=True)
"""Tasks that run in their caller leave its database connections alone, which are the test's own."""


def declare(function: Callable[..., Any], **options: Any) -> Task[..., Any]:
    """Declare a task that no other test knows."""
    made: Task[..., Any] = task(name=f"t.{new_id()}", **options)(function)
    return made


def raising(error: BaseException) -> Callable[[], None]:
    """Return a function that raises."""

    def raises() -> None:
        raise error

    return raises


def deliver(task: Task[..., Any], *args: Any, deliveries: int = 1, receipt: Any = "r", **envelope: Any) -> Delivery:
    """Return a call of a task as a broker would deliver it."""
    message = Message(**{"id": new_id(), "task": task.name, "body": encode_body(args, {}, {}), **envelope})
    return Delivery(message, receipt, deliveries)


def sent(task: Task[..., Any], *args: Any, **options: Any) -> Message:
    """Return the message of a call as it leaves."""
    [message] = task.s(*args).set(**options).plan().messages
    return message


def outcome_of(message: Message) -> Any:
    """Run the call that a message is, here."""
    return execute(Delivery(message, "r"), HERE)


def run(function: Callable[..., Any], *args: Any, **options: Any) -> Outcome:
    """Declare a function a task and run it here."""
    return execute(deliver(declare(function, **options), *args), HERE)


def next_of(outcome: Outcome) -> Message:
    """Return the message of the next attempt."""
    assert outcome.state == states.RETRY, outcome
    [message] = outcome.plan.messages
    return message
