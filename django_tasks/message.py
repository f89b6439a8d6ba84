"""What travels: a call of a task, sealed for the way, and the same leased to a worker."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from datetime import datetime
from typing import Any, Literal, cast, get_args

Clock = Callable[[], float]
"""Seconds since the epoch."""

PRIORITY_MIN, PRIORITY_MAX = -100, 100
ID_LENGTH = 255
QUEUE_LENGTH = 128
NAME_LENGTH = 255
STAMPS = 100
"""How many stamps a message may carry, the values of lists counted."""

Enqueue = Literal["on_commit", "transaction", "immediate"]
"""When a message is sent to a broker that takes no part in the database's transactions: when the caller's has been
committed; with it, through the outbox; or at once."""
ENQUEUE: tuple[Enqueue, ...] = get_args(Enqueue)

_lock = threading.Lock()
_last = 0
_TAILS = struct.Struct("512Q")
_tails: list[int] = []
"""Random numbers for ids to come: the system is asked for many at once, since it takes longer than all the rest."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """A signature sent: the envelope that workers read, and the body that only the running task opens."""

    id: str
    task: str
    body: bytes
    queue: str = "default"
    priority: int = 0
    """-100 to 100; higher goes first."""
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    compression: str | None = None
    """The content type of what the body is compressed with."""
    signature: str | None = None
    """What proves that all of this is as it was sent; see `signing`."""
    eta: datetime | None = None
    """Not to be run before; aware."""
    countdown: float | None = None
    """Seconds from now on the broker's clock; wins over `eta`, which then only tells it."""
    expires: datetime | None = None
    """Not to be begun after; aware."""
    retries: int = 0
    attempts: int = 0
    """Runs of this id before this message was published."""
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None
    group_index: int | None = None
    shadow: str | None = None
    """A name to show in place of the task's."""
    args_repr: str = ""
    kwargs_repr: str = ""
    origin: str = ""
    created_at: datetime | None = None
    """When it was published; aware. The broker fills it in."""
    enqueue: Enqueue | None = None
    """How it is sent; used up by that. None leaves it to the settings and the broker."""
    exchange: str | None = None
    """Where the broker is to send it, rather than to `queue`; used up by that, as its routing key is."""
    routing_key: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    """What the caller added, and anything a newer version or another program put there."""

    @property
    def reply_to(self) -> str:
        """Where the result is to go, with a store that sends it to who asked."""
        told = self.headers.get("reply_to")
        return told if isinstance(told, str) else ""

    @property
    def stamps(self) -> dict[str, Any]:
        """What the call was stamped with, by name; nothing where the headers hold something else."""
        names, stamps = self.headers.get("stamped_headers"), self.headers.get("stamps")
        if not isinstance(names, list) or not isinstance(stamps, dict):
            return {}
        return {name: stamps[name] for name in names[:STAMPS] if isinstance(name, str) and name in stamps}


FIELDS = tuple(field.name for field in fields(Message))
_Draft: Any = make_dataclass("_Draft", FIELDS, slots=True)


def message_of(values: Iterable[Any]) -> Message:
    """Return a message with these values, one for each of FIELDS.

    A frozen dataclass sets its fields one by one through object.__setattr__, which takes ten times as long as to fill
    the same slots while they may still be changed.
    """
    draft = _Draft(*values)
    draft.__class__ = Message
    return cast(Message, draft)


_BLANK: Mapping[str, Any] = dict.fromkeys(FIELDS) | {
    field.name: field.default for field in fields(Message) if field.default is not MISSING
}


def message_with(known: Mapping[str, Any]) -> Message:
    """Return a message with some of its fields given by name, `id`, `task` and `body` among them."""
    values = {**_BLANK, "headers": {}, **known}
    return message_of(values.values())


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """A message leased to a worker, with the receipt that proves it."""

    message: Message
    receipt: Any
    """Opaque; given by the broker, fresh at each claim."""
    deliveries: int = 1
    """How often this message was leased, this time included and hand-backs left out."""
    exchange: str = ""
    """What it came through; nothing if it was put straight into its queue."""
    routing_key: str = ""
    """The key that it came by, if it came through an exchange."""
    seen_at: float | None = None
    """When a worker first had it, in seconds since the epoch: told of a message that does not say when it was sent, by
    a broker that remembers it when the message is put back."""
    ahead: float = 0.0
    """Seconds that the clock of its server was ahead of this machine's; 0 too where the broker does not tell."""

    @property
    def attempt(self) -> int:
        """Return the number of this run of the task's id, counted from 1."""
        return self.message.attempts + self.deliveries


def new_id() -> str:
    """Return a fresh task id: a UUID of version 7 (RFC 9562), so that ids sort by the time they were made.

    Within one process each id is greater than the one before, also when the clock stands still or steps back.
    """
    global _last
    with _lock:
        # 48 bits of milliseconds and 12 of sub-millisecond counter, as RFC 9562 section 6.2 method 3 describes.
        _last = max(_last + 1, (time.time_ns() << 12) // 1_000_000)
        stamp = _last
        if not _tails:
            _tails.extend(_TAILS.unpack(os.urandom(_TAILS.size)))
        tail = _tails.pop()
    variant = 0x8000 | (tail >> 48 & 0x3FFF)
    return f"{stamp >> 28:08x}-{stamp >> 12 & 0xFFFF:04x}-7{stamp & 0xFFF:03x}-{variant:04x}-{tail & _NODE:012x}"


_NODE = 0xFFFF_FFFF_FFFF


_DIGITS = 6
"""Hexadecimal digits of a member's number at the end of its id."""


def new_group_id() -> str:
    """Return a fresh id for a group, which ends in zeros: its members have the same with their number there."""
    return new_id()[:-_DIGITS] + "0" * _DIGITS


def member_id(group_id: str, index: int) -> str:
    """Return the id of a group's member by its number, counted from 0: a fresh one where the group's id is not one of
    `new_group_id`, or leaves no room for the number."""
    if not is_group_id(group_id) or index + 1 >= 16**_DIGITS:
        return new_id()
    return f"{group_id[:-_DIGITS]}{index + 1:0{_DIGITS}x}"


def member_group(task_id: str) -> str | None:
    """Return the id that a group has if this is the id of one of its members; None if it cannot be one."""
    return f"{task_id[:-_DIGITS]}{'0' * _DIGITS}" if len(task_id) == 36 else None


def first_id(moment: datetime) -> str:
    """Return what no id that `new_id` makes from a moment on comes before."""
    stamp = max(0, int(moment.timestamp() * 1000))
    return f"{stamp >> 16:08x}-{stamp & 0xFFFF:04x}-"


def is_group_id(value: str) -> bool:
    """Tell whether the ids of a group's members can be told from its own."""
    return len(value) == 36 and value.endswith("0" * _DIGITS)


def _forked() -> None:
    """Replace the lock in a forked process: a thread of its parent may have held it, and is not there to let it go.

    The random numbers are left to the parent, or both would make ids with the same ones.
    """
    global _lock
    _lock = threading.Lock()
    _tails.clear()


os.register_at_fork(after_in_child=_forked)


def valid_id(value: object) -> bool:
    """Tell whether a value may be a task id: 1 to 255 printable characters without white space."""
    # No other white space is printable.
    return isinstance(value, str) and 0 < len(value) <= ID_LENGTH and value.isprintable() and " " not in value
