"""How does a message look in Redis?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import zip_longest
from struct import Struct, error
from typing import Any

from django_tasks.backends.base import Mark
from django_tasks.exceptions import DecodeError, PublishError
from django_tasks.message import PRIORITY_MAX, PRIORITY_MIN, Delivery, Message
from django_tasks.protocol import dump_rest, load_headers, malformed, unpack_rest

RANK = 16
"""Digits of a rank, which is lower for what goes first, and of the time of publication in microseconds."""

MIDDLE = b"%016d" % (100 * 2**44)
"""The rank of what has lost its own; each priority has 2**44."""

CENTURY = 100 * 365.25 * 86_400
"""Seconds; no delay is longer."""

PLACE = 255
"""Characters that are kept of where a mark is."""

TOKEN = 16
"""Characters that prove a lease."""

_FIXED = Struct(">HHIqh")
"""Lengths of the queue's name, the task's and the headers, which stand behind it, and the body after them; the time of
publication where the message says one, in microseconds; the priority."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_bytes(text: str) -> bytes:
    """Return any text, such as half of a surrogate pair, as bytes."""
    return text.encode("utf-8", "surrogatepass")


_name = lru_cache(maxsize=1024)(to_bytes)


def to_text(raw: bytes) -> str:
    """Return what `to_bytes` was given, or something readable for other bytes."""
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace")


@lru_cache(maxsize=1024)
def base_of(prefix: str, queue: str) -> bytes:
    """Return what the names of a queue's keys begin with. What stands between the braces decides on the slot."""
    tag = queue.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return to_bytes(f"{prefix}:{{{tag}}}:")


def delay_of(message: Message) -> bytes:
    """Return when a message may be taken: nothing for now, milliseconds from now after a "+", or since the epoch."""
    if message.countdown is not None:
        return b"+%.3f" % (bounded(message.countdown) * 1000) if message.countdown > 0 else b""
    return b"" if message.eta is None else b"%.3f" % (message.eta.timestamp() * 1000)


def bounded(seconds: float) -> float:
    return min(max(0.0, seconds), CENTURY)


def packed(message: Message) -> bytes:
    """Return a message as it is kept; raises PublishError or SerializationError."""
    headers = dump_rest(message).encode()
    queue, task = _name(message.queue), _name(message.task)
    created = 0 if message.created_at is None else (message.created_at - _EPOCH) // _MICROSECOND
    try:
        fixed = _FIXED.pack(len(queue), len(task), len(headers), created, message.priority)
    except error as misfit:
        raise PublishError(f"{message.task[:80]}[{message.id}] cannot be sent: {misfit}") from misfit
    return b"".join((fixed, queue, task, headers, message.body))


def published(message: Message, body: bytes) -> tuple[Any, ...]:
    """Return a message as a script is given it: id, priority, delay, and what is kept."""
    return to_bytes(message.id), _priority_of(message), delay_of(message), body


def runs(entries: Iterable[tuple[Message, bytes]], places: Mapping[str, int]) -> list[Any]:
    """Return messages as the script is given them that publishes many: what those have alike that follow each other is
    said once, since most have all of it alike."""
    words: list[Any] = []
    before: tuple[Any, ...] = ()
    counter = 0
    for message, body in entries:
        alike = (places[message.queue], _priority_of(message), delay_of(message))
        if alike != before:
            words += (*alike, 0)
            before, counter = alike, len(words) - 1
        words[counter] += 1
        words.append(to_bytes(message.id))
        words.append(body)
    return words


def _priority_of(message: Message) -> int:
    return min(PRIORITY_MAX, max(PRIORITY_MIN, message.priority))


def unpacked(task_id: bytes, queue: str, value: bytes) -> Message:
    """Return the message of what is kept, or one that says that it is malformed: a batch does not fail for it."""
    try:
        published = int(value[RANK : 2 * RANK])
        start = 2 * RANK
        of_queue, of_task, of_headers, created, priority = _FIXED.unpack_from(value, start)
        start += _FIXED.size
        if len(value) < start + of_queue + of_task + of_headers:
            raise DecodeError("it ends too soon")
        queue_end = start + of_queue
        task_end = queue_end + of_task
        headers_end = task_end + of_headers
        known = {
            "id": task_id.decode("utf-8", "surrogatepass"),
            "task": value[queue_end:task_end].decode("utf-8", "surrogatepass"),
            # That of the key it was found under, which nobody can say otherwise than by putting it there.
            "queue": queue or value[start:queue_end].decode("utf-8", "surrogatepass"),
            "priority": priority,
            "body": value[headers_end:],
            "created_at": _EPOCH + timedelta(microseconds=created or published),
        }
        return unpack_rest(load_headers(value[task_end:headers_end].decode("ascii")), known)
    except (ValueError, OverflowError, error):  # DecodeError and UnicodeDecodeError are ValueErrors
        return malformed(to_text(task_id)[:255], "", queue, value)


def rank_of(value: bytes) -> bytes:
    """Return the rank of what is kept, as the scripts read it."""
    rank = value[:RANK]
    return rank if len(rank) == RANK and rank.isdigit() else MIDDLE


def deliveries_of(reply: Sequence[Any], queue: str, token: bytes, ahead: float) -> Iterator[tuple[bytes, Delivery]]:
    """Give the rank and the delivery of each message of a reply to `fetch`. A receipt is the name of the queue, and
    what proves the lease: token, rank and id."""
    ids, values, tries = reply
    for task_id, value, spent in zip_longest(ids, values, tries):
        rank = rank_of(value)
        receipt = queue, token + rank + task_id
        yield rank, Delivery(unpacked(task_id, queue, value), receipt, int(spent or 0) + 1, ahead=ahead)


def messages_of(ids: Sequence[bytes], values: Sequence[bytes], queue: str = "") -> list[Message]:
    return [unpacked(task_id, queue, value) for task_id, value in zip(ids, values, strict=True)]


def mark_of(place: str, reply: Sequence[Any]) -> Mark:
    """Return what the script said of a mark; what somebody else wrote there in place of its time tells of no time."""
    number, last, now = reply
    moment = _EPOCH + int(now) * _MICROSECOND
    return Mark(place[:PLACE], number, _moment(last) if last.isdigit() else None, moment)


def _moment(stamp: bytes) -> datetime | None:
    try:
        return _EPOCH + int(stamp) * _MICROSECOND
    except OverflowError:
        return None


def by_queue(receipts: Sequence[tuple[str, bytes]]) -> dict[str, list[int]]:
    """Return the places of receipts, by the queue that each belongs to."""
    places: dict[str, list[int]] = {}
    for place, (queue, _) in enumerate(receipts):
        places.setdefault(queue, []).append(place)
    return places
