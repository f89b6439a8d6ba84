"""How does a result look in bytes? One field for each thing that it says, so that what it leaves out stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any

from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.failure import Failure
from django_tasks.plan import Result
from django_tasks.protocol import dump_message, load_message

FINAL = b"z"
"""A field that is there once the result is final."""

_SIZE = Struct(">I")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Return a time since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def to_bytes(text: str) -> bytes:
    """Return any text, such as half of a surrogate pair, as bytes."""
    return text.encode("utf-8", "surrogatepass")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _time(raw: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int(raw))


_KEPT: Mapping[str, tuple[bytes, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "task": (b"t", to_bytes, _text),
    "queue": (b"q", to_bytes, _text),
    "args_repr": (b"a", to_bytes, _text),
    "kwargs_repr": (b"k", to_bytes, _text),
    "created_at": (b"c", lambda moment: b"%d" % microseconds(moment), _time),
    "started_at": (b"b", lambda moment: b"%d" % microseconds(moment), _time),
    "root_id": (b"r", to_bytes, _text),
    "parent_id": (b"p", to_bytes, _text),
    "group_id": (b"g", to_bytes, _text),
}
"""What a result of a later state need not say again: the name of its field, and how it is written and read."""


def fields_of(result: Result) -> list[bytes]:
    """Return the names and values of the fields of a result."""
    ended = None if result.ended_at is None else microseconds(result.ended_at)
    rest = [result.state, result.worker, result.retries, result.attempts, result.runtime, ended]
    fields = [b"s", json.dumps(rest).encode()]
    for attribute, (name, write, _) in _KEPT.items():
        if value := getattr(result, attribute):
            fields += (name, write(value))
    if result.value is not None:
        fields += (b"v", result.value)
    if (failure := result.failure) is not None:
        told = [failure.type, failure.module, failure.message, failure.args, failure.traceback, failure.notes]
        fields += (b"f", json.dumps(told).encode())
    if result.children:
        fields += (b"h", result.children.encode())
    if result.message is not None and (kept := _dumped(result)) is not None:
        fields += (b"m", kept)
    if result.final:
        fields += (FINAL, b"1")
    return fields


def packed(fields: Sequence[bytes]) -> bytes:
    """Return the names and values of fields as one text, for a store that knows no fields."""
    return b"".join(piece for field in fields for piece in (_SIZE.pack(len(field)), field))


def unpacked(raw: bytes) -> list[bytes]:
    """Return the names and values that were packed; nothing of what is not whole."""
    fields, place = [], 0
    while place + _SIZE.size <= len(raw):
        (size,) = _SIZE.unpack_from(raw, place)
        place += _SIZE.size + size
        fields.append(raw[place - size : place])
    return fields if place == len(raw) else []


def _dumped(result: Result) -> bytes | None:
    try:
        return None if result.message is None else dump_message(result.message).encode()
    except SerializationError:
        # It cannot be sent again; that its task ended is written all the same.
        return None


def results_of(ids: Sequence[str], found: Sequence[Sequence[bytes]]) -> Iterator[Result]:
    """Give the results whose fields were found; one that cannot be read is not known."""
    for task_id, fields in zip(ids, found, strict=True):
        if fields:
            try:
                yield _result(task_id, dict(zip(fields[::2], fields[1::2], strict=True)))
            except (KeyError, TypeError, ValueError, OverflowError):
                continue


def _result(task_id: str, fields: Mapping[bytes, bytes]) -> Result:
    state, worker, retries, attempts, runtime, ended = json.loads(fields[b"s"])
    kept = {attribute: read(fields[name]) for attribute, (name, _, read) in _KEPT.items() if name in fields}
    return Result(
        id=task_id,
        state=state,
        value=fields.get(b"v"),
        failure=_failure(fields[b"f"]) if b"f" in fields else None,
        worker=worker,
        retries=retries,
        attempts=attempts,
        runtime=runtime,
        ended_at=None if ended is None else _EPOCH + timedelta(microseconds=ended),
        message=_restored(fields[b"m"]) if b"m" in fields else None,
        children=fields.get(b"h", b"").decode(),
        **kept,
    )


def _failure(raw: bytes) -> Failure:
    kind, module, message, args, traceback, notes = json.loads(raw)
    return Failure(kind, module, message, args, traceback, tuple(notes))


def _restored(raw: bytes) -> Any:
    try:
        return load_message(raw.decode())
    except DecodeError:
        return None
