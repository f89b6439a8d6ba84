"""How does a call of a task become a message?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.apps import apps
from django.utils import timezone

from django_tasks import conf
from django_tasks.canvas.stamping import stamp_headers
from django_tasks.connections import results
from django_tasks.context import Request, current_request
from django_tasks.encryption import conceal
from django_tasks.message import Message, new_id, valid_id
from django_tasks.options import CALL_OPTIONS, Call, CallOptions, TaskOptions, check_call
from django_tasks.outline import checked_name, origin, outline_of
from django_tasks.plan import Place, place_from
from django_tasks.registry import tasks
from django_tasks.reprs import redacted_call
from django_tasks.routing import checked_queue, place_for, priority_for
from django_tasks.sealing import NOTHING, rewritten, written
from django_tasks.serializers import SERIALIZERS

USED_UP = ("gather", "failed")
"""What a message says of arguments that its task gets before those in it: once they are in hand, no more than that."""

_IDENTITY = frozenset({"task_id", "group_id", "group_index"})
_UNDECLARED = TaskOptions()
_FOREVER = timedelta(days=365_000)


class Lineage(NamedTuple):
    """Where a call comes from."""

    root_id: str | None = None
    parent_id: str | None = None
    priority: int | None = None
    """What it goes by unless it is told otherwise; None leaves it to the queue."""


ORPHAN = Lineage()


def lineage() -> Lineage:
    """Return where a call comes from that is made here."""
    parent = current_request()
    return ORPHAN if parent is None else Lineage(parent.root_id, parent.id, inherited_priority(parent.message))


def inherited_priority(message: Message) -> int | None:
    """Return the priority that what a message's task leads to has from it, if the settings have it inherited."""
    return message.priority if conf.get().inherit_parent_priority else None


def place_of(message: Message) -> Place | None:
    """Return where a message's task is a member of a group."""
    return place_from(message.group_id, message.group_index)


def ignored(message: Message) -> bool:
    """Tell whether nothing is to be kept of what a message's task returns, as far as its sender knows."""
    return conf.get().ignore_result if message.ignore_result is None else message.ignore_result


def seal(
    call: Call,
    embed: Mapping[str, Any] = NOTHING,
    comes_from: Lineage | None = None,
    *,
    replies: bool = True,
) -> Message:
    """Turn a call into a message: options of the call, else of the task, else of the settings.

    `embed` tells what follows it. It says where its result is to go if the store wants to know; not so without
    `replies`.
    """
    options = call.options
    before = lineage() if comes_from is None else comes_from
    usual = not embed and before.priority is None and options.keys() <= _IDENTITY
    if usual and (outline := outline_of(call.task)) is not None:
        member = place_from(options.get("group_id"), options.get("group_index"))
        if member is not None or "group_id" not in options:
            came = (before.root_id, before.parent_id)
            message = outline.filled(call.args, call.kwargs, _id(options.get("task_id")), came, member)
            return _addressed(message) if replies else message
    unknown = options.keys() - CALL_OPTIONS
    if unknown:
        raise TypeError(
            "; ".join(f"no option {name!r}: {conf.nearest(name, CALL_OPTIONS)}" for name in sorted(unknown))
        )
    check_call(options)
    refuse_timeout(options)
    task = tasks.get(call.task)
    declared = _UNDECLARED if task is None else task.options
    place = place_for(call.task, call.args, call.kwargs, options, task=task, declared=declared.queue)
    args_repr, kwargs_repr = redacted_call(task.parameters if task else None, call.args, call.kwargs)
    countdown, eta = _visible(options.get("countdown"), options.get("eta"))
    body = written(
        call.args,
        call.kwargs,
        _first(options.get("serializer"), declared.serializer),
        _first(options.get("compression"), declared.compression),
        embed,
    )
    message = Message(
        **body.fields(),
        id=_id(options.get("task_id")),
        task=checked_name(call.task),
        queue=place.queue,
        exchange=place.exchange,
        routing_key=place.routing_key,
        priority=priority_for(place.queue, _first(_first(place.priority, declared.priority), before.priority)),
        countdown=countdown,
        eta=eta,
        expires=_expires(_first(options.get("expires"), declared.expires)),
        retries=options.get("retries", 0),
        time_limit=options.get("time_limit"),
        soft_time_limit=options.get("soft_time_limit"),
        ignore_result=_first(options.get("ignore_result"), declared.ignore_result),
        root_id=options.get("root_id") or before.root_id,
        parent_id=options.get("parent_id") or before.parent_id,
        group_id=options.get("group_id"),
        group_index=options.get("group_index"),
        shadow=options.get("shadow"),
        args_repr=args_repr,
        kwargs_repr=kwargs_repr,
        origin=origin(),
        enqueue=_first(options.get("enqueue"), declared.enqueue),
        headers=_headers(options.get("headers")) | stamp_headers(options.get("stamps")),
    )
    sealed = conceal(message) if _encrypts(options.get("encrypt"), declared.encrypt) else message
    return _addressed(sealed) if replies else sealed


def plainly(call: Call, comes_from: Lineage) -> Message | None:
    """Return the message of a call that has neither options nor an id yet, as `seal` does; None where more is to be
    thought of than its arguments."""
    outline = None if call.options or comes_from.priority is not None else outline_of(call.task)
    if outline is None:
        return None
    outline.task.check_arguments(call.args, call.kwargs)
    came = (comes_from.root_id, comes_from.parent_id)
    return _addressed(outline.filled(call.args, call.kwargs, new_id(), came))


def is_pickled(call: Call) -> bool:
    """Tell whether the message of a call is written by a serializer that is read only with a signature."""
    task = tasks.get(call.task)
    declared = None if task is None else task.options.serializer
    form = SERIALIZERS.get(_first(call.options.get("serializer"), declared) or conf.get().serializer)
    return form is not None and form.signed_only


def refuse_timeout(options: Mapping[str, Any]) -> None:
    """Raise TypeError where there is no group that could wait no longer than the option `timeout` says."""
    if options.get("timeout") is not None:
        raise TypeError(
            "timeout is for a group or a chord: how many seconds it waits for its members. A task has time_limit, "
            "which bounds its run, and expires, which bounds its wait."
        )


def _encrypts(called: bool | None, declared: bool | None) -> bool:
    said = _first(called, declared)
    return conf.get().encrypt if said is None else said


def _addressed(message: Message) -> Message:
    """Return a message whose result finds its way back, if it is one that is sent."""
    # Before the apps are ready there are no stores, and nobody who could wait for a result.
    if ignored(message) or "reply_to" in message.headers or not apps.ready:
        return message
    place = results["default"].reply_to()
    return replace(message, headers={**message.headers, "reply_to": place}) if place else message


def next_attempt(
    request: Request, args: Iterable[Any] | None, kwargs: Mapping[str, Any] | None, options: CallOptions
) -> Message:
    """Return the message that runs a call again, under its id: as it was, but for what is given here."""
    check_call(options)
    before = request.message
    sealed = before
    if args is not None or kwargs is not None:
        # The original body is sent again wherever it can be: a function may have changed its arguments in place.
        sealed = rewritten(
            before,
            tuple(request.args if args is None else args),
            dict(request.kwargs if kwargs is None else kwargs),
            {name: value for name, value in request.embed.items() if name not in USED_UP},
        )
    countdown, eta = _visible(options.get("countdown"), options.get("eta"))
    queue = checked_queue(options.get("queue") or before.queue)
    expires = options.get("expires")
    return replace(
        sealed,
        queue=queue,
        # It is another message now, and signed anew when it is sent.
        signature=None,
        # Back to the queue that it came from, and not to all that an exchange leads to.
        exchange=None,
        routing_key=None,
        priority=priority_for(queue, _first(options.get("priority"), before.priority)),
        countdown=countdown,
        eta=eta,
        expires=before.expires if expires is None else _expires(expires),
        retries=before.retries + 1,
        attempts=request.attempt,
        time_limit=_first(options.get("time_limit"), before.time_limit),
        soft_time_limit=_first(options.get("soft_time_limit"), before.soft_time_limit),
        headers={**before.headers, **_headers(options.get("headers"))},
    )


def _first(said: Any, otherwise: Any) -> Any:
    return otherwise if said is None else said


def _id(given: str | None) -> str:
    if given is None:
        return new_id()
    if not valid_id(given):
        raise ValueError(f"task_id must be 1 to 255 printable characters without white space, not {given!r:.80}.")
    return given


def _headers(given: Mapping[str, Any] | None) -> dict[str, Any]:
    for key in given or ():
        if not isinstance(key, str):
            raise TypeError(f"headers: the name {key!r} is not a string.")
    return dict(given) if given else {}


def _visible(countdown: float | None, eta: datetime | None) -> tuple[float | None, datetime | None]:
    """Return the countdown and the eta of a call; a countdown of 0 or less means at once."""
    if countdown is None:
        return None, None if eta is None else aware("eta", eta)
    if eta is not None:
        raise ValueError("Give countdown or eta, not both.")
    if not countdown > 0:
        return None, None
    return countdown, _from_now("countdown", countdown)


def _expires(given: float | datetime | None) -> datetime | None:
    if given is None:
        return None
    if isinstance(given, datetime):
        return aware("expires", given)
    # One that is over already still travels, and ends as REVOKED for all to see.
    return _from_now("expires", max(0.0, given))


def _from_now(what: str, seconds: float) -> datetime:
    if not seconds < _FOREVER.total_seconds():
        raise ValueError(f"{what}={seconds!r} lies more than a thousand years ahead.")
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError as error:
        raise ValueError(f"{what}={seconds!r} lies beyond the year 9999.") from error


def aware(what: str, moment: datetime) -> datetime:
    """Return a moment in UTC; a naive one is read in Django's current time zone."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{what} must be a datetime, not {type(moment).__name__}.")
    try:
        return (timezone.make_aware(moment) if timezone.is_naive(moment) else moment).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{what}={moment!r} cannot be told in UTC; stay a day within the years 1 and 9999.") from error
