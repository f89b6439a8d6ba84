"""How does a message look to Celery? As its message protocol 2 has it, for AMQP and for kombu's other transports.

Every header of Celery's is always there, null when nothing is said. Beside them stand a few that Celery passes over:
`attempts`, `created_at` and `priority`, which is ours in full while the property has room for ten levels; what the
broker itself notes down, `DUE`, `DELIVERIES`, `WAY` and `SEEN`; and `EXTRA`, which holds headers of the caller that
AMQP has no way to carry. Two things of Celery's have no field in a `Message` and travel in its headers: `reply_to`,
which is a property on the wire, and whatever else Celery or a newer version put there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.message import NAME_LENGTH, PRIORITY_MAX, PRIORITY_MIN, Message, new_id, valid_id
from django_tasks.protocol import RESERVED, dump_headers, load_headers, malformed, unpack

DUE = "django_tasks_due"
"""Seconds since the epoch before which the message is not to be run; wins over `eta`."""
DELIVERIES = "django_tasks_deliveries"
"""How often the message was leased before it was put where it is."""
WAY = "django_tasks_way"
"""The exchange and the routing key that the message came by before it was put where it is."""
SEEN = "django_tasks_seen"
"""Seconds since the epoch when a worker first had a message that does not say when it was sent."""
EXTRA = "django_tasks_headers"
"""The JSON text of the caller's headers that fit into no AMQP table."""

LEVELS = 10
"""How many priorities there are on the wire, the highest number first."""

PERSISTENT = 2
LONGEST_TTL = 2**32 - 1
"""Milliseconds; RabbitMQ closes the channel for a longer one."""

_LATEST = 253_402_300_800
"""Seconds since the epoch, to the end of the year 9999."""
_KEY_BYTES = 255
_INTEGERS = range(-(2**63), 2**63)
_CONSTANT = {"lang": "py", "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {}}
"""Headers of Celery's that say nothing unless they say something else."""
_BROKERS = {DUE, DELIVERIES, WAY, SEEN, EXTRA}
_NOTES = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""How the names begin of what RabbitMQ notes on a message; other names with an x are the caller's."""
_FLEETING = {*_BROKERS, *_CONSTANT, "reply_to"}
_USED_UP = {"exchange", "routing_key"}
"""What said where a message was to go; it says nothing of where it goes next."""
_UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Wire:
    """A message as it is handed to a driver."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes


def to_wire(message: Message) -> Wire:
    """Return a message as Celery 5.7 would send it; raises SerializationError for headers that cannot be sent."""
    own = dict(message.headers)
    reply_to = own.pop("reply_to", "")
    headers: dict[str, Any] = {
        "lang": "py",
        "task": message.task,
        "id": message.id,
        "shadow": message.shadow,
        "eta": _iso(message.eta),
        "expires": _iso(message.expires),
        "group": message.group_id,
        "group_index": message.group_index,
        "retries": message.retries,
        "timelimit": [message.time_limit, message.soft_time_limit],
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id,
        "argsrepr": message.args_repr,
        "kwargsrepr": message.kwargs_repr,
        "origin": message.origin,
        "ignore_result": message.ignore_result,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "attempts": message.attempts,
        "created_at": _iso(message.created_at),
        "priority": message.priority,
    }
    if message.compression is not None:
        headers["compression"] = message.compression
    if message.signature is not None:
        headers["signature"] = message.signature
    if own:
        headers |= _carried(own)
    properties = {
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "correlation_id": message.id,
        "reply_to": reply_to if isinstance(reply_to, str) else "",
        "delivery_mode": PERSISTENT,
        "priority": level(message.priority),
    }
    if message.expires is not None:
        properties |= _expiration(message.expires)
    return Wire(headers, properties, message.body)


def from_wire(wire: Wire, queue: str) -> Message:
    """Return the message that came from a queue; one that says that it is malformed, if it cannot be read."""
    envelope: dict[str, Any] = {}
    for name, value in wire.headers.items():
        if name in RESERVED:
            if value is not None and name not in _USED_UP:
                envelope[name] = value
        elif not (name in _BROKERS or (name in _CONSTANT and value == _CONSTANT[name]) or name.startswith(_NOTES)):
            # What the worker changes must not change what is sent again.
            envelope[name] = deepcopy(value) if type(value) in (list, dict) else value
    try:
        if EXTRA in wire.headers:
            envelope |= _extra(wire.headers[EXTRA])
        return unpack(_completed(envelope, wire.properties, queue), wire.body)
    except DecodeError:
        return malformed(_known_id(wire), _known_task(wire.headers), queue, wire.body)


def unmarked(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers without what the server noted on the way."""
    return {name: value for name, value in headers.items() if not name.startswith(_NOTES)}


def is_fleeting(name: Any) -> bool:
    """Tell whether a header of this name may change or be left out on the way, as those of Celery's and the servers'
    own do."""
    return name in _FLEETING or (isinstance(name, str) and name.startswith(_NOTES))


def level(priority: int) -> int:
    """Return which of the ten levels a priority from -100 to 100 falls on."""
    return (priority - PRIORITY_MIN) * (LEVELS - 1) // (PRIORITY_MAX - PRIORITY_MIN)


def due_of(headers: Mapping[str, Any], message: Message) -> float:
    """Return when a message is to be run, in seconds since the epoch; 0 for at once."""
    due = headers.get(DUE)
    # Anybody may have written it, also a number that is none.
    if isinstance(due, int | float) and 0 <= due <= _LATEST:
        return float(due)
    return 0.0 if message.eta is None else message.eta.timestamp()


def deliveries_of(headers: Mapping[str, Any]) -> int:
    """Return how often a message was leased before it was put where it came from."""
    number = headers.get(DELIVERIES)
    return number if isinstance(number, int) and number > 0 else 0


def way_of(headers: Mapping[str, Any]) -> tuple[str, str]:
    """Return the exchange and the routing key that a message came by before it was put where it came from."""
    way = headers.get(WAY)
    if isinstance(way, list) and len(way) == 2 and all(isinstance(part, str) for part in way):
        return way[0], way[1]
    return "", ""


def seen_of(headers: Mapping[str, Any], now: float) -> float:
    """Return when a worker first had a message, in seconds since the epoch: now, unless an earlier time was written
    down."""
    seen = headers.get(SEEN)
    return float(seen) if isinstance(seen, int | float) and 0 < seen < now else now


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _expiration(expires: datetime) -> dict[str, str]:
    left = max(0, int((expires - datetime.now(UTC)).total_seconds() * 1000))
    return {"expiration": str(left)} if left <= LONGEST_TTL else {}


def _carried(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the caller's headers: as they are where AMQP can carry them, as JSON text where it cannot."""
    for name in own:
        if name in RESERVED or name in _BROKERS:
            raise SerializationError(f"headers[{name!r}]", "this name is the protocol's own; choose another")
    rest = {name: value for name, value in own.items() if not (_fits_key(name) and _fits(value))}
    if not rest:
        return dict(own)
    return {name: value for name, value in own.items() if name not in rest} | {EXTRA: dump_headers(rest)}


def _fits(value: Any) -> bool:
    """Tell whether a value comes out of an AMQP table as it went in."""
    kind = type(value)
    if kind is str:
        return _is_unicode(value)
    if kind is int:
        return value in _INTEGERS
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(_fits, value))
    if kind is dict:
        return all(_fits_key(key) and _fits(item) for key, item in value.items())
    return kind is bool or value is None


def _fits_key(key: Any) -> bool:
    return type(key) is str and _is_unicode(key) and len(key.encode()) <= _KEY_BYTES


def _is_unicode(text: str) -> bool:
    """Tell whether text is free of surrogates, which UTF-8 does not have."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _extra(text: Any) -> dict[str, Any]:
    found = load_headers(text) if isinstance(text, str) else None
    if not isinstance(found, dict):
        raise DecodeError(f"the header {EXTRA!r} holds no JSON object")
    return found


def _completed(envelope: dict[str, Any], properties: Mapping[str, Any], queue: str) -> dict[str, Any]:
    """Return an envelope as `protocol` reads it, with what stands among the properties."""
    if not valid_id(envelope.get("id")) or not _is_name(envelope.get("task")):
        raise DecodeError("the message has no id, or no task, as Celery's message protocol 2 has it")
    if envelope.get("root_id") == envelope["id"]:
        del envelope["root_id"]
    if not _is_priority(envelope.get("priority")):
        envelope["priority"] = _from_level(properties.get("priority"))
    for name in ("content_type", "content_encoding", "reply_to"):
        if properties.get(name):
            envelope[name] = properties[name]
    envelope["queue"] = queue
    return envelope


def _is_name(task: Any) -> bool:
    return isinstance(task, str) and 0 < len(task) <= NAME_LENGTH and task.isprintable()


def _is_priority(value: Any) -> bool:
    return type(value) is int and PRIORITY_MIN <= value <= PRIORITY_MAX


def _from_level(number: Any) -> int:
    """Return the priority that a property of Celery's stands for. Its 0 is what Celery sends unless told otherwise."""
    if type(number) is not int or number <= 0:
        return 0
    return min(PRIORITY_MAX, number * PRIORITY_MAX // (LEVELS - 1))


def _known_id(wire: Wire) -> str:
    for found in (wire.headers.get("id"), wire.properties.get("correlation_id")):
        if isinstance(found, str) and valid_id(found):
            return found
    return new_id()


def _known_task(headers: Mapping[str, Any]) -> str:
    task = headers.get("task")
    return task if isinstance(task, str) and _is_name(task) else _UNREADABLE
