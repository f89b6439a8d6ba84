"""How are headers and properties written in AMQP 0-9-1?

The types of a table's values are those that RabbitMQ and its clients agree on
(https://www.rabbitmq.com/amqp-0-9-1-errata.html, section 3). py-amqp has the same code in a more general form, which
takes a worker's loop five times as long; that loop does this for every message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct, error
from typing import Any

_SIZE = Struct(">I")
_TEXT = Struct(">cI")
_SMALL = Struct(">ci")
_LARGE = Struct(">cq")
_REAL = Struct(">cd")
_FLAGS = Struct(">H")
_STAMP = Struct(">Q")
_DECIMAL = Struct(">Bi")

_SMALLEST, _LARGEST = -(2**31), 2**31 - 1
_LATEST = 2**63 - 1
_DEEPEST = 100
"""How many tables and lists may stand in one another."""
_MISFITS = (error, IndexError, KeyError, ValueError, ArithmeticError)
"""What reading raises where bytes are not what they should be."""

# What stands for each property in the flags, in the order in which they follow each other.
_SHORT, _TABLE, _OCTET, _MOMENT = range(4)
_PROPERTIES = (
    (0x8000, "content_type", _SHORT),
    (0x4000, "content_encoding", _SHORT),
    (0x2000, "headers", _TABLE),
    (0x1000, "delivery_mode", _OCTET),
    (0x0800, "priority", _OCTET),
    (0x0400, "correlation_id", _SHORT),
    (0x0200, "reply_to", _SHORT),
    (0x0100, "expiration", _SHORT),
    (0x0080, "message_id", _SHORT),
    (0x0040, "timestamp", _MOMENT),
    (0x0020, "type", _SHORT),
    (0x0010, "user_id", _SHORT),
    (0x0008, "app_id", _SHORT),
    (0x0004, "cluster_id", _SHORT),
)

SHORT = 255
"""Bytes that a short text may have: every property, and every name in a table."""


def short(text: str) -> bytes:
    """Return a short text; raises ValueError when it is too long."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > SHORT:
        raise ValueError(f"{text[:40]!r}... has {len(data)} bytes, and there is room for {SHORT}")
    return bytes((len(data),)) + data


def short_pair(data: bytes) -> tuple[str, str]:
    """Return two short texts that follow each other."""
    middle = 1 + data[0]
    first, second = data[1:middle], data[middle + 1 : middle + 1 + data[middle]]
    return first.decode("utf-8", "surrogatepass"), second.decode("utf-8", "surrogatepass")


# The same few names stand in every message.
_name = lru_cache(maxsize=512)(short)


@lru_cache(maxsize=512)
def _nothing(name: str) -> bytes:
    """Return an entry without a value, as half of those of a message are."""
    return short(name) + b"V"


def table(values: Mapping[str, Any]) -> bytes:
    """Return a table; raises TypeError or ValueError for what none can hold."""
    parts = []
    for name, value in values.items():
        # Nearly all that there is; a call for each would take as long as all the rest.
        if value is None:
            parts.append(_nothing(name))
        elif type(value) is str:
            data = value.encode("utf-8", "surrogatepass")
            parts += (_name(name), _TEXT.pack(b"S", len(data)), data)
        else:
            parts += (_name(name), _item(value))
    body = b"".join(parts)
    return _SIZE.pack(len(body)) + body


def properties(values: Mapping[str, Any], headers: Mapping[str, Any]) -> bytes:
    """Return a message's properties, headers among them, as they stand in its content header."""
    flags, parts = 0x2000, []
    for flag, name, kind in _PROPERTIES:
        if kind == _TABLE:
            parts.append(table(headers))
        elif (value := values.get(name)) is not None:
            flags |= flag
            if kind == _SHORT:
                parts.append(short(value))
            else:
                parts.append(bytes((value,)) if kind == _OCTET else _STAMP.pack(value))
    return _FLAGS.pack(flags) + b"".join(parts)


def read_properties(data: bytes, place: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the headers and the other properties that stand at a place; nothing where they cannot be read.

    Whatever another program puts there, it must harm nothing beyond its own message.
    """
    try:
        return _read_properties(data, place)
    except _MISFITS:
        return {}, {}


def _read_properties(data: bytes, place: int) -> tuple[dict[str, Any], dict[str, Any]]:
    (flags,) = _FLAGS.unpack_from(data, place)
    place += 2
    headers: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for flag, name, kind in _PROPERTIES:
        if not flags & flag:
            continue
        if kind == _SHORT:
            end = place + 1 + data[place]
            found[name] = _text(data[place + 1 : end])
            place = end
        elif kind == _TABLE:
            headers, place = _read_table(data, place, 0)
        elif kind == _OCTET:
            found[name] = data[place]
            place += 1
        else:
            (found[name],) = _STAMP.unpack_from(data, place)
            place += 8
    return headers, found


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    try:
        # Lone surrogates, which Python's text may hold.
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        # Bytes of another encoding become some text all the same.
        return data.decode("latin-1")


_read_name = lru_cache(maxsize=512)(_text)


def _item(value: Any) -> bytes:
    write = _WRITERS.get(type(value))
    if write is None:
        raise TypeError(f"{type(value).__name__} has no place in an AMQP table")
    return write(value)


def _write_text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return _TEXT.pack(b"S", len(data)) + data


def _write_int(value: int) -> bytes:
    return _SMALL.pack(b"I", value) if _SMALLEST <= value <= _LARGEST else _LARGE.pack(b"l", value)


def _write_list(value: list[Any]) -> bytes:
    body = b"".join(map(_item, value))
    return _TEXT.pack(b"A", len(body)) + body


def _write_decimal(value: Decimal) -> bytes:
    """Write a number as it was read; one that has more digits has no place."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 0:
        raise ValueError(f"{value} has no place in an AMQP table")
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    if not _SMALLEST <= number <= _LARGEST:
        raise ValueError(f"{value} has no place in an AMQP table")
    return b"D" + _DECIMAL.pack(-exponent, number)


_WRITERS: Mapping[type, Callable[[Any], bytes]] = {
    str: _write_text,
    type(None): lambda _: b"V",
    int: _write_int,
    bool: lambda value: b"t\x01" if value else b"t\x00",
    float: lambda value: _REAL.pack(b"d", value),
    list: _write_list,
    dict: lambda value: b"F" + table(value),
    bytes: lambda value: _TEXT.pack(b"x", len(value)) + value,
    # Those that only other programs write, for what is sent again as it came.
    datetime: lambda value: b"T" + _STAMP.pack(int(value.timestamp())),
    Decimal: _write_decimal,
}

_IS_TEXT, _IS_VOID = b"SV"

Read = Callable[[bytes, int, int], tuple[Any, int]]
"""Takes the bytes, a place, and how many tables and lists it is in."""


def _read_table(data: bytes, place: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth > _DEEPEST:
        raise ValueError("tables in tables without end")
    (size,) = _SIZE.unpack_from(data, place)
    place += 4
    end = place + size
    found: dict[str, Any] = {}
    while place < end:
        stop = place + 1 + data[place]
        name = _read_name(data[place + 1 : stop])
        kind = data[stop]
        # Nearly all that there is; a call for each would take as long as all the rest.
        if kind == _IS_TEXT:
            start = stop + 5
            place = start + _SIZE.unpack_from(data, stop + 1)[0]
            text = data[start:place]
            found[name] = text.decode("ascii") if text.isascii() else _text(text)
        elif kind == _IS_VOID:
            found[name], place = None, stop + 1
        else:
            found[name], place = _READERS[kind](data, stop + 1, depth + 1)
    return found, end


def _read_list(data: bytes, place: int, depth: int) -> tuple[list[Any], int]:
    if depth > _DEEPEST:
        raise ValueError("lists in lists without end")
    (size,) = _SIZE.unpack_from(data, place)
    place += 4
    end = place + size
    found = []
    while place < end:
        item, place = _READERS[data[place]](data, place + 1, depth + 1)
        found.append(item)
    return found, end


def _read_text(data: bytes, place: int, depth: int) -> tuple[str, int]:
    start = place + 4
    end = start + _SIZE.unpack_from(data, place)[0]
    return _text(data[start:end]), end


def _read_bytes(data: bytes, place: int, depth: int) -> tuple[bytes, int]:
    start = place + 4
    end = start + _SIZE.unpack_from(data, place)[0]
    return data[start:end], end


def _read_decimal(data: bytes, place: int, depth: int) -> tuple[Decimal, int]:
    scale, number = _DECIMAL.unpack_from(data, place)
    return Decimal(number).scaleb(-scale), place + _DECIMAL.size


def _read_moment(data: bytes, place: int, depth: int) -> tuple[datetime | int, int]:
    """Read a time; one that no calendar has stays a number, as when a program writes milliseconds."""
    (seconds,) = _STAMP.unpack_from(data, place)
    try:
        return datetime.fromtimestamp(seconds, UTC), place + _STAMP.size
    except (ValueError, OverflowError, OSError):
        return min(seconds, _LATEST), place + _STAMP.size


def _number(form: str) -> Read:
    struct = Struct(f">{form}")

    def read(data: bytes, place: int, depth: int) -> tuple[Any, int]:
        return struct.unpack_from(data, place)[0], place + struct.size

    return read


_READERS: Mapping[int, Read] = {
    ord(kind): read
    for kind, read in {
        "S": _read_text,
        "V": lambda _, place, __: (None, place),
        "I": _number("i"),
        "t": _number("?"),
        "A": _read_list,
        "F": _read_table,
        "l": _number("q"),
        "L": _number("q"),
        "d": _number("d"),
        "f": _number("f"),
        "b": _number("b"),
        "B": _number("B"),
        "s": _number("h"),
        "U": _number("h"),
        "u": _number("H"),
        "i": _number("I"),
        "D": _read_decimal,
        "T": _read_moment,
        "x": _read_bytes,
    }.items()
}
