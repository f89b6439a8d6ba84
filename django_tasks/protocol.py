"""How does a message look on the way? A body, and headers with the names of Celery's message protocol 2.

Only what differs from the default is written. `attempts`, `content_type`, `content_encoding`, `queue`, `priority` and
`created_at` are our own names. A countdown is used up when a message is published, and does not travel. What is not
known here goes to `Message.headers`, and comes out again under its own name.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from operator import attrgetter
from typing import Any

from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.message import Message, message_with
from django_tasks.plan import NOTHING, Group, Plan

MALFORMED = "application/x-malformed"
"""The content type of a message that could not be read; its body is what was found."""

JSON = "application/json"

LARGEST = 2**31 - 1
"""What databases keep in an integer column."""

Headers = dict[str, Any]
Read = Callable[[Any], Any]


def pack(message: Message) -> Headers:
    """Return the whole envelope of a message, all but its body."""
    headers: Headers = {"id": message.id, "task": message.task, "queue": message.queue}
    if message.priority:
        headers["priority"] = message.priority
    if message.created_at is not None:
        headers["created_at"] = message.created_at.isoformat()
    return headers | pack_rest(message)


def unpack(envelope: Mapping[str, Any], body: bytes) -> Message:
    """Return the message of a whole envelope; raises DecodeError."""
    rest = dict(envelope)
    try:
        known = {
            "id": _text(rest.pop("id")),
            "task": _text(rest.pop("task")),
            "queue": _text(rest.pop("queue", "default")),
            "priority": _integer(rest.pop("priority", 0)),
            "body": body,
        }
        if (created := rest.pop("created_at", None)) is not None:
            known["created_at"] = _moment(created)
    except KeyError as error:
        raise DecodeError(f"the header {error} is missing") from error
    except _MISFITS as error:
        raise DecodeError(f"a header has something else than what belongs there: {error}") from error
    return unpack_rest(rest, known)


def pack_rest(message: Message) -> Headers:
    """Return the headers of a message, but for those that brokers keep in places of their own: id, task, queue,
    priority and the time of publication.
    """
    said = zip(_FIELDS, _values(message), _DEFAULTS, strict=True)
    rest: Headers = {name: value for name, value, default in said if value != default}
    if message.eta is not None:
        rest["eta"] = message.eta.isoformat()
    if message.expires is not None:
        rest["expires"] = message.expires.isoformat()
    if message.time_limit is not None or message.soft_time_limit is not None:
        rest["timelimit"] = [message.time_limit, message.soft_time_limit]
    return rest | _own(message.headers) if message.headers else rest


def dump_rest(message: Message) -> str:
    """Return `dump_headers(pack_rest(message))`; raises SerializationError.

    Messages that are sent together differ in little but the texts of their arguments and their place in a group: all
    else is written once.
    """
    if message.headers or _one_offs(message) != _NOT_SAID:
        return dump_headers(pack_rest(message))
    args_repr, kwargs_repr, group_id, group_index, *others = _values(message)
    texts = []
    if args_repr:
        texts.append(f'"argsrepr":{_quoted(args_repr)}')
    if kwargs_repr:
        texts.append(f'"kwargsrepr":{_quoted(kwargs_repr)}')
    if group_id is not None:
        texts.append(f'"group":{_quoted(group_id)}')
    if group_index is not None:
        texts.append(f'"group_index":{group_index:d}')
    if rest := _rest_of(*others):
        texts.append(rest)
    return f"{{{','.join(texts)}}}"


@lru_cache(maxsize=256, typed=True)  # True is as good a key as 1
def _rest_of(*values: Any) -> str:
    """Return the headers of a message that come after those of its own, without the braces."""
    said = zip(_NAMES[_OWN:], values, _DEFAULTS[_OWN:], strict=True)
    return dump_headers({name: value for name, value, default in said if value != default})[1:-1]


def _own(headers: Mapping[str, Any]) -> Headers:
    """Return the caller's headers; refuse those that would be taken for the protocol's."""
    for name in headers:
        if name in RESERVED:
            raise SerializationError(f"headers[{name!r}]", "this name is the protocol's own; choose another")
    return dict(headers)


def unpack_rest(rest: object, known: Headers) -> Message:
    """Return the message with these headers and the fields that are known otherwise; raises DecodeError."""
    if not isinstance(rest, dict):
        raise DecodeError(f"the headers are {type(rest).__name__}, not an object")
    if not rest:
        return message_with(known)
    own: Headers = {}
    for name, value in rest.items():
        field = _FIELDS.get(name)
        if field is None:
            if name == "timelimit":
                known["time_limit"], known["soft_time_limit"] = _limits(value)
            else:
                own[name] = value
        elif value is not None:
            attribute, read = field
            try:
                known[attribute] = read(value)
            except _MISFITS as error:
                raise DecodeError(f"the header {name!r} has something else than what belongs there: {error}") from error
    if own:
        known["headers"] = own
    return message_with(known)


def malformed(task_id: str, task: str, queue: str, raw: bytes) -> Message:
    """Return a message that stands for one that cannot be read, so that its task can end visibly."""
    return Message(id=task_id, task=task, queue=queue, body=raw, content_type=MALFORMED, content_encoding="binary")


def dump_headers(headers: Headers) -> str:
    """Return headers as JSON in pure ASCII; raises SerializationError, whose path begins with `headers`."""
    if not headers:
        return "{}"
    try:
        return _encode(headers)
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError("headers", f"cannot be sent: {error}") from error


def load_headers(text: str) -> Any:
    """Return what `dump_headers` wrote; raises DecodeError."""
    if text == "{}":
        return {}
    try:
        return _decode(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the headers are not JSON: {error}") from error


def dump_message(message: Message) -> str:
    """Return a whole message as one text in pure ASCII, to be kept; raises SerializationError."""
    return dump_headers({"headers": pack(message), "body": b64encode(message.body).decode("ascii")})


def load_message(text: str) -> Message:
    """Return what `dump_message` wrote; raises DecodeError."""
    kept = load_headers(text)
    try:
        return unpack(kept["headers"], b64decode(kept["body"], validate=True))
    except (TypeError, KeyError, ValueError) as error:
        raise error if isinstance(error, DecodeError) else DecodeError(f"no message was kept here: {error}") from error


def dump_plan(plan: Plan) -> str:
    """Return the messages and groups of a plan as one text in pure ASCII, to be kept until its time has come; raises
    SerializationError."""
    return dump_headers(_plan_form(plan)) if plan else ""


def _plan_form(plan: Plan) -> Headers:
    return {"messages": list(map(_message_form, plan.messages)), "groups": list(map(_group_form, plan.groups))}


def _message_form(message: Message) -> Headers:
    form: Headers = {"headers": pack(message), "body": b64encode(message.body).decode("ascii")}
    if message.countdown is not None:
        # It counts from when the message is sent, which is yet to come.
        form["countdown"] = message.countdown
    if message.enqueue is not None:
        form["enqueue"] = message.enqueue
    return form


def _group_form(group: Group) -> Headers:
    return {
        "id": group.id,
        "size": group.size,
        "then": _plan_form(group.then),
        "place": group.place,
        "root_id": group.root_id,
        "parent_id": group.parent_id,
        "timeout": group.timeout,
    }


def load_plan(text: str) -> Plan:
    """Return the plan that `dump_plan` wrote; raises DecodeError."""
    try:
        return _plan_from(load_headers(text)) if text else NOTHING
    except (TypeError, KeyError, ValueError) as error:
        raise error if isinstance(error, DecodeError) else DecodeError(f"no plan was kept here: {error}") from error


def _plan_from(form: Headers) -> Plan:
    return Plan(tuple(map(_message_from, form["messages"])), tuple(map(_group_from, form["groups"])))


def _message_from(form: Headers) -> Message:
    message = unpack(form["headers"], b64decode(form["body"], validate=True))
    countdown = form.get("countdown")
    if countdown is None and "enqueue" not in form:
        return message
    eta = message.eta if countdown is None else datetime.now(UTC) + timedelta(seconds=countdown)
    return replace(message, countdown=countdown, eta=eta, enqueue=form.get("enqueue"))


def _group_from(form: Headers) -> Group:
    place = form["place"]
    return Group(
        id=form["id"],
        size=form["size"],
        then=_plan_from(form["then"]),
        place=None if place is None else (place[0], place[1]),
        root_id=form["root_id"],
        parent_id=form["parent_id"],
        timeout=form.get("timeout"),
    )


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().decode

_MISFITS = (TypeError, ValueError, OverflowError)


def _text(value: object) -> str:
    if type(value) is str:
        return value
    raise TypeError(f"{type(value).__name__} where text belongs")


def _integer(value: object) -> int:
    if type(value) is int:
        return value
    raise TypeError(f"{type(value).__name__} where an integer belongs")


def _count(value: object) -> int:
    number = _integer(value)
    if not 0 <= number <= LARGEST:
        raise ValueError("a number where a count belongs")
    return number


def _flag(value: object) -> bool:
    if type(value) is bool:
        return value
    raise TypeError(f"{type(value).__name__} where true or false belongs")


def _moment(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    # Celery reads a time without a zone as UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _seconds(value: object) -> float | None:
    if value is None or (type(value) in (int, float) and math.isfinite(value)):  # type: ignore[arg-type]
        return value  # type: ignore[return-value]
    raise TypeError(f"{value!r:.80} where seconds belong")


def _limits(value: Any) -> tuple[float | None, float | None]:
    """Read `[hard, soft]`, in Celery's order."""
    if value is None:
        return None, None
    try:
        hard, soft = value
        return _seconds(hard), _seconds(soft)
    except _MISFITS as error:
        raise DecodeError(f"the header 'timelimit' is not [hard, soft]: {error}") from error


_FIELDS: Mapping[str, tuple[str, Read]] = {
    "argsrepr": ("args_repr", _text),
    "kwargsrepr": ("kwargs_repr", _text),
    "group": ("group_id", _text),
    "group_index": ("group_index", _integer),
    "origin": ("origin", _text),
    "retries": ("retries", _count),
    "attempts": ("attempts", _count),
    "content_type": ("content_type", _text),
    "content_encoding": ("content_encoding", _text),
    "compression": ("compression", _text),
    "signature": ("signature", _text),
    "eta": ("eta", _moment),
    "expires": ("expires", _moment),
    "root_id": ("root_id", _text),
    "parent_id": ("parent_id", _text),
    "ignore_result": ("ignore_result", _flag),
    "shadow": ("shadow", _text),
    "exchange": ("exchange", _text),
    "routing_key": ("routing_key", _text),
}

_NAMES = tuple(_FIELDS)
_values = attrgetter(*(attribute for attribute, _ in _FIELDS.values()))
_OWN = 4
"""So many of these are different in each message; `dump_rest` knows them."""
_one_offs = attrgetter("signature", "eta", "expires", "time_limit", "soft_time_limit")
"""What hardly two messages have alike, or what is not written as it is."""
_NOT_SAID = (None,) * 5
_DEFAULTS = tuple(
    {field.name: field.default for field in fields(Message)}[attribute] for attribute, _ in _FIELDS.values()
)

RESERVED = frozenset(_FIELDS) | {"id", "task", "queue", "priority", "created_at", "timelimit"}
"""Names that a caller's own headers cannot have."""
