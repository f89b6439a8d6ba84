"""What happens in one attempt of a task, from message to outcome?"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, transaction

from django_tasks import conf, databases, signals, states
from django_tasks.canvas.abandonment import aftermath, ended
from django_tasks.canvas.arguments import arguments
from django_tasks.canvas.calls import next_attempt
from django_tasks.canvas.continuations import MALFORMED, proceed
from django_tasks.canvas.tail import Tail
from django_tasks.connections import brokers, results
from django_tasks.context import Request, answering
from django_tasks.endings import AnyTask, expired, ignores, keeps_errors, refused
from django_tasks.exceptions import (
    ChordError,
    DecodeError,
    Ignore,
    LeaseLost,
    NotRegistered,
    Reject,
    Replaced,
    ResultNotSerializable,
    Retry,
    SerializationError,
    StoreUnavailable,
    TaskRejected,
    TaskRevoked,
)
from django_tasks.failure import capture
from django_tasks.interrupt import Interruptible
from django_tasks.message import Clock, Delivery, Message
from django_tasks.options import RNG, CallOptions
from django_tasks.plan import Outcome, Plan, Requeue
from django_tasks.registry import tasks
from django_tasks.routing import broker_for
from django_tasks.sealing import kept, unsealed
from django_tasks.sequel import NO_VALUE
from django_tasks.settlement import ACKED, Settlement
from django_tasks.unknown import held

_log = logging.getLogger("django_tasks.task")


def _unheard(delivery: Delivery, outcome: Outcome) -> None:
    """Drop a report that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a task runs."""

    worker: str = ""
    time_limit: float | None = None
    """Seconds; for tasks that have none of their own."""
    soft_time_limit: float | None = None
    report: Callable[[Delivery, Outcome], None] = _unheard
    """Takes the states between begin and end."""
    interruptible: Interruptible | None = None
    """How limits reach the function, where this pool has a way."""
    eager: bool = False
    """The task runs inside its caller: the caller's database connections are left alone."""
    store: str = "default"
    """The alias of the store that keeps the results here."""
    clock: Clock = time.time


@dataclass(slots=True)
class Attempt:
    """One run: what is known of it while it lasts."""

    task: AnyTask
    request: Request
    delivery: Delivery
    site: Site
    started: float
    value: Any = None
    error: BaseException | None = None

    @property
    def ignored(self) -> bool:
        return ignores(self.delivery.message, self.task)


def execute(delivery: Delivery, site: Site) -> Outcome:
    """Run one attempt and say what came of it; whatever the task does, this returns."""
    message = delivery.message
    try:
        task, args, kwargs, embed = _open(message, site)
    except NotRegistered as error:
        outcome = None if site.eager else held(delivery, error, site.clock() + delivery.ahead)
        if outcome is None:
            return refused(delivery, error)
        return expired(delivery) if _is_over(delivery, site) else outcome
    except (DecodeError, ChordError) as error:
        return refused(delivery, error)
    except StoreUnavailable as error:
        _log.warning("What a task begins with cannot be read now; it waits", extra={"error": str(error)})
        return Outcome(states.PENDING, requeue=Requeue(delay=1.0), keep=False)
    if _is_over(delivery, site):
        return expired(delivery)
    request = Request(
        message=message,
        args=args,
        kwargs=kwargs,
        embed=embed,
        hostname=site.worker,
        deliveries=delivery.deliveries,
        way=(delivery.exchange, delivery.routing_key),
        is_eager=site.eager,
        store=site.store,
        report=lambda outcome: site.report(delivery, outcome),
    )
    attempt = Attempt(task, request, delivery, site, site.clock())
    with answering(request):
        outcome = _conclude(attempt, _run(attempt))
    if not site.eager:
        databases.tidy(task.name)
    return outcome


def _is_over(delivery: Delivery, site: Site) -> bool:
    """Tell whether a task has expired by the clock of the server that kept it, where that is known."""
    expires = delivery.message.expires
    return expires is not None and expires.timestamp() <= site.clock() + delivery.ahead


def _open(message: Message, site: Site) -> tuple[AnyTask, tuple[Any, ...], dict[str, Any], Mapping[str, Any]]:
    task = tasks[message.task]
    args, kwargs, embed = unsealed(message)
    return task, arguments(args, embed, site.store) if embed else args, kwargs, embed


def _run(attempt: Attempt) -> Outcome:
    """Call the function, and turn whatever it did into an outcome."""
    try:
        _begin(attempt)
        if attempt.task.options.atomic:
            return _run_atomic(attempt)
        return _followed(attempt, _returned(attempt, _call(attempt)))
    except BaseException as error:  # noqa: BLE001  # a task may raise anything, and none of it may end the worker
        return _followed(attempt, _caught(attempt, error))


def _caught(attempt: Attempt, error: BaseException) -> Outcome:
    try:
        return _raised(attempt, error)
    except Exception as other:  # noqa: BLE001  # what a task asks for may be impossible, in as many ways
        attempt.error = other
        return _failure(attempt, other)


def _begin(attempt: Attempt) -> None:
    task, request = attempt.task, attempt.request
    declared = task.options.track_started
    if conf.get().track_started if declared is None else declared:
        request.report(Outcome(states.STARTED, started=attempt.started))
    signals.announce(signals.task_started, task, request=request)
    task.before_start(request.message.id, request.args, request.kwargs)


def _call(attempt: Attempt) -> Any:
    task, request, interruptible = attempt.task, attempt.request, attempt.site.interruptible
    function: Callable[..., Any] = task.run_async if task.is_async else task.run
    if interruptible is None:
        return function(*request.args, **request.kwargs)
    return interruptible.call(attempt.delivery, function, request.args, request.kwargs)


def _run_atomic(attempt: Attempt) -> Outcome:
    """Run the task and write down its outcome in one transaction.

    Guarantee: with broker and store in that database, its effects there happen exactly once. A run that does not
    succeed is rolled back, and so is one whose lease was lost meanwhile.
    """
    declared = attempt.task.options.atomic
    using = DEFAULT_DB_ALIAS if declared is True else str(declared)
    with transaction.atomic(using=using):
        outcome = _followed(attempt, _returned(attempt, _call(attempt)))
        if outcome.state != states.SUCCESS:
            # What it did would be done again by the next attempt, or be half of what it was to do.
            transaction.set_rollback(True, using=using)
            attempt.request.trail = None
            return outcome
        if attempt.delivery.receipt is ACKED or attempt.site.eager:
            return outcome
        settlement = Settlement(
            brokers[broker_for(attempt.delivery.message.queue)],
            results["default"],
            worker=attempt.site.worker,
            lease=conf.get().lease,
        )
        if settlement.shared != using:
            return outcome
        outcome = _timed(attempt, outcome)
        if not settlement.settle([(attempt.delivery, outcome)]):
            raise LeaseLost(f"{attempt.task.name}[{attempt.request.id}] was taken over; its effects are rolled back.")
    return replace(outcome, settled=True)


def _returned(attempt: Attempt, value: Any) -> Outcome:
    attempt.value = value
    if attempt.request.directive is not None:
        return _raised(attempt, attempt.request.directive)
    if attempt.ignored and attempt.delivery.message.group_id is None:
        return Outcome(states.SUCCESS, keep=False)
    try:
        # Whoever waits for the whole group asks for the values of its members, kept or not.
        sealed = kept(value, "result", attempt.request.message)
        return Outcome(states.SUCCESS, value=sealed, keep=not attempt.ignored)
    except SerializationError as error:
        if inspect.iscoroutine(value):
            value.close()
        attempt.error = ResultNotSerializable(error.path, error.reason)
        return _failure(attempt, attempt.error)


def _followed(attempt: Attempt, outcome: Outcome) -> Outcome:
    """Return an outcome with what follows it."""
    if outcome.state not in states.FINAL or outcome.opened or not outcome.counts:
        return outcome
    embed, message = attempt.request.embed, attempt.delivery.message
    if not embed:
        return outcome if outcome.state == states.SUCCESS else replace(outcome, opened=True)
    replies = not attempt.site.eager
    if outcome.state == states.SUCCESS:
        try:
            plan = proceed(attempt.request, attempt.value)
        except MALFORMED as error:
            _log.exception("What follows a task cannot be sent", extra={"task_id": message.id})
            plan = ended(Tail.of(attempt.request.chain), capture(error), message)
    elif outcome.state == states.IGNORED:
        plan = ended(Tail.of(attempt.request.chain), NO_VALUE, message)
    else:
        plan = aftermath(message, embed, outcome.failure or NO_VALUE, replies=replies)
    return replace(outcome, plan=outcome.plan + plan, opened=True)


def _raised(attempt: Attempt, error: BaseException) -> Outcome:  # noqa: PLR0911  # a case each
    """Say what an exception means: a directive, a retry, or a failure."""
    attempt.error = error
    match error:
        case Ignore():
            return Outcome(states.IGNORED, keep=False)
        case Reject(requeue=True):
            # A second's pause, or a message that nobody wants would keep the workers busy.
            return Outcome(states.PENDING, requeue=Requeue(delay=1.0), keep=False)
        case Reject():
            return Outcome(states.REJECTED, failure=capture(TaskRejected(str(error.reason))))
        case Replaced():
            return Outcome(states.IGNORED, keep=False, plan=error.plan, opened=True, counts=False)
        case TaskRevoked():
            return Outcome(states.REVOKED, failure=capture(error))
        case Retry():
            return _retried(attempt, error)
    policy = attempt.task.retry_policy()
    if policy.covers(error) and not policy.exhausted(attempt.request.retries):
        countdown = policy.countdown(attempt.request.retries, RNG)
        return _again(attempt, error, CallOptions(countdown=countdown))
    return _failure(attempt, error)


def _retried(attempt: Attempt, directive: Retry) -> Outcome:
    cause = directive if directive.exc is None else directive.exc
    if attempt.request.following:
        return Outcome(states.RETRY, failure=capture(cause), plan=Plan(attempt.request.following))
    policy = attempt.task.retry_policy()
    if policy.exhausted(attempt.request.retries):
        return _failure(attempt, cause)
    when = directive.when
    if isinstance(when, datetime):
        return _again(attempt, cause, CallOptions(eta=when))
    countdown = policy.countdown(attempt.request.retries, RNG) if when is None else when
    return _again(attempt, cause, CallOptions(countdown=countdown))


def _again(attempt: Attempt, cause: BaseException, options: CallOptions) -> Outcome:
    message = next_attempt(attempt.request, None, None, options)
    return Outcome(states.RETRY, failure=capture(cause), plan=Plan((message,)))


def _failure(attempt: Attempt, error: BaseException) -> Outcome:
    return Outcome(states.FAILURE, failure=capture(error), keep=keeps_errors(attempt.delivery.message, attempt.task))


def _timed(attempt: Attempt, outcome: Outcome) -> Outcome:
    trail = attempt.request.trail
    children = "" if trail is None else trail.text()
    return replace(outcome, started=attempt.started, ended=attempt.site.clock(), children=children)


def _conclude(attempt: Attempt, outcome: Outcome) -> Outcome:
    """Tell the task's handlers and the signals' receivers how the run ended."""
    if outcome.ended is None:
        outcome = _timed(attempt, outcome)
    task, request, error = attempt.task, attempt.request, attempt.error
    call = (request.message.id, request.args, request.kwargs)
    trace = outcome.failure.traceback if outcome.failure else ""
    cause = error.exc if isinstance(error, Retry) and error.exc is not None else error
    if outcome.state == states.SUCCESS:
        _handle(task.on_success, attempt.value, *call)
        signals.announce(signals.task_succeeded, task, request=request, value=attempt.value)
    elif outcome.state == states.RETRY:
        _handle(task.on_retry, cause, *call, trace)
        signals.announce(signals.task_retried, task, request=request, exception=cause)
    elif outcome.state in states.FAILED:
        _handle(task.on_failure, cause, *call, trace)
        signals.announce(signals.task_failed, task, request=request, exception=cause)
    value = attempt.value if outcome.state == states.SUCCESS else cause
    _handle(task.after_return, outcome.state, value, *call, trace)
    signals.announce(signals.task_finished, task, request=request, outcome=outcome)
    # An exception holds the frames that raised it, and through them all that the task had in hand.
    attempt.error = attempt.value = None
    return outcome


def _handle(handler: Callable[..., None], *args: Any) -> None:
    try:
        handler(*args)
    except BaseException:  # noqa: BLE001  # a task may raise anything here too
        _log.exception("A task's handler raised", extra={"handler": handler.__qualname__})
