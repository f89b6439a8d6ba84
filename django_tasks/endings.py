"""What do a pool and the worker say of a task that cannot say it itself?"""

from __future__ import annotations

from typing import Any

from django_tasks import conf, states
from django_tasks.exceptions import (
    ChordError,
    DecodeError,
    NotRegistered,
    SignatureError,
    TaskExpired,
    TaskRevoked,
    TimeLimitExceeded,
    WorkerLostError,
)
from django_tasks.failure import capture
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome, Requeue
from django_tasks.pools.base import PoolOptions
from django_tasks.registry import tasks
from django_tasks.settlement import ACKED
from django_tasks.task import Task

AnyTask = Task[Any, Any]


def ignores(message: Message, task: AnyTask | None) -> bool:
    """Tell whether nothing is to be kept of what a task returns."""
    if message.ignore_result is not None:
        return message.ignore_result
    declared = task.options.ignore_result if task is not None else None
    return conf.get().ignore_result if declared is None else declared


def keeps_errors(message: Message, task: AnyTask | None) -> bool:
    """Tell whether something is to be kept of how a task failed."""
    if not ignores(message, task):
        return True
    declared = task.options.store_errors_even_if_ignored if task is not None else None
    return conf.get().store_errors_even_if_ignored if declared is None else declared


def limits(delivery: Delivery, options: PoolOptions) -> tuple[float | None, float | None]:
    """Return the hard and the soft limit of a delivery, in seconds: the call's, else the task's, else the pool's."""
    message, task = delivery.message, tasks.get(delivery.message.task)
    hard, soft = options.time_limit, options.soft_time_limit
    if task is not None:
        hard, soft = task.options.time_limit or hard, task.options.soft_time_limit or soft
    return message.time_limit or hard, message.soft_time_limit or soft


def refused(delivery: Delivery, error: NotRegistered | DecodeError | ChordError) -> Outcome:
    """Say that a message cannot be run here at all."""
    # One that is not what was sent must neither go on with what it says, nor end anything for a group.
    return Outcome(states.FAILURE, failure=capture(error), counts=not isinstance(error, SignatureError))


def expired(delivery: Delivery) -> Outcome:
    """Say that a message came too late to be begun."""
    return Outcome(states.REVOKED, failure=capture(TaskExpired(f"expired at {delivery.message.expires}")))


def revoked(delivery: Delivery, reason: str = "") -> Outcome:
    """Say that a task was revoked before it began."""
    return Outcome(states.REVOKED, failure=capture(TaskRevoked(reason or "revoked before it was begun")))


def cancelled(delivery: Delivery, reason: str = "") -> Outcome:
    """Say that a task was revoked and ended while it ran."""
    return Outcome(states.REVOKED, failure=capture(TaskRevoked(reason or "ended while it ran")))


def timed_out(delivery: Delivery, limit: float) -> Outcome:
    """Say that a task ran beyond its hard limit and was ended."""
    task = tasks.get(delivery.message.task)
    error = TimeLimitExceeded(f"ran longer than its time limit of {limit:g} s")
    return Outcome(states.FAILURE, failure=capture(error), keep=keeps_errors(delivery.message, task))


def handed_back(delivery: Delivery) -> Outcome:
    """Say that a task goes back to its queue as if it had never been taken."""
    return Outcome(states.PENDING, requeue=Requeue(), keep=False)


def interrupted(delivery: Delivery) -> Outcome:
    """Say that a task was ended because its worker is leaving: it goes back, if it may be begun twice."""
    if delivery.receipt is not ACKED:
        return handed_back(delivery)
    task = tasks.get(delivery.message.task)
    failure = capture(WorkerLostError("ended with its worker; it is not run again, as acks_late=False says"))
    return Outcome(states.FAILURE, failure=failure, keep=keeps_errors(delivery.message, task))


def lost(delivery: Delivery, reason: str) -> Outcome:
    """Say that the process that ran a task died: it is run again or fails, as the task's `on_crash` says."""
    task = tasks.get(delivery.message.task)
    failure = capture(WorkerLostError(f"the process that ran it died: {reason}"))
    # What was acknowledged before it ran must not run twice.
    if _on_crash(task) == "fail" or delivery.receipt is ACKED:
        return Outcome(states.FAILURE, failure=failure, keep=keeps_errors(delivery.message, task))
    return Outcome(states.RETRY, failure=failure, requeue=Requeue(spent=True))


def _on_crash(task: AnyTask | None) -> str:
    declared = task.options.on_crash if task is not None else None
    return declared or conf.get().on_crash


def acks_late(message: Message) -> bool:
    """Tell whether a message is acknowledged after its task ran, not before."""
    task = tasks.get(message.task)
    declared = task.options.acks_late if task is not None else None
    return conf.get().acks_late if declared is None else declared


def max_crashes(message: Message) -> int:
    """Return how many worker processes a task may take down before it is given up: with `on_crash="fail"`, one."""
    task = tasks.get(message.task)
    if _on_crash(task) == "fail":
        return 1
    declared = task.options.max_crashes if task is not None else None
    return declared or conf.get().max_crashes
