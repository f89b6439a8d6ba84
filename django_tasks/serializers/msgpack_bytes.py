"""How are values written as MessagePack?

Bytes are written as they are, without a tag, which is what other programs expect; so are all that JSON knows. What is
read is looked over first: a header of five bytes may claim four billion items, for which the library would make room.
"""

from __future__ import annotations

import base64
from typing import Any

from django_tasks.decoding import from_object
from django_tasks.encoding import LIMITS, TYPE, VALUE, Limits, to_json
from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.serializers.form import Serializer, missing, too_large

try:
    import msgpack
except ImportError:  # pragma: no cover
    msgpack = None

_MISSING = missing(msgpack, "msgpack")

_INTEGERS = range(-(2**63), 2**64)


def _dumps(value: object, *, root: str = "value", limits: Limits = LIMITS) -> bytes:
    try:
        data: bytes = msgpack.packb(_native(to_json(value, root, limits)), unicode_errors="surrogatepass")
    except RecursionError as error:
        raise SerializationError(root, "nested deeper than Python's stack is at this place") from error
    except (ValueError, OverflowError) as error:  # the library has limits of its own, far beyond ours
        raise SerializationError(root, f"cannot be written as MessagePack: {error}") from error
    if (excess := _excess(data, limits)) is not None:
        raise SerializationError(root, f"{excess}; store the data and pass a reference to it")
    return data


def _native(tree: Any) -> Any:
    """Return a tree of JSON with bytes as bytes, and integers that MessagePack does not have as tagged ones."""
    kind = type(tree)
    if kind is int:
        return tree if tree in _INTEGERS else {TYPE: "int", VALUE: hex(tree)}
    if kind is list:
        return [_native(item) for item in tree]
    if kind is dict:
        # A dict of the sender's with these two keys is tagged itself.
        tag = tree.get(TYPE) if len(tree) == 2 else None
        if tag == "bytes":
            return tree[VALUE].encode("utf-8")
        if tag == "base64":
            return base64.b64decode(tree[VALUE])
        return {key: _native(item) for key, item in tree.items()}
    return tree


def _loads(data: bytes, limits: Limits = LIMITS) -> Any:
    data = bytes(data)
    if (excess := _excess(data, limits)) is not None:
        raise DecodeError(excess)
    try:
        return msgpack.unpackb(data, object_hook=from_object, unicode_errors="surrogatepass")
    except DecodeError:
        raise
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        raise DecodeError(f"not valid MessagePack: {type(error).__name__}: {str(error)[:200]}") from error


# What a first byte says (https://github.com/msgpack/msgpack/blob/master/spec.md): how many bytes follow, or how many
# of them tell the length of a text, of a list or of a map. Extensions have no entry: they are not read.
_FOLLOWED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {0xCC + n: 1 << n for n in range(4)}
_FOLLOWED |= {0xD0 + n: 1 << n for n in range(4)}
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


def _excess(data: bytes, limits: Limits) -> str | None:
    """Say which limit data passes; raises DecodeError where it is no MessagePack at all."""
    if (excess := too_large(len(data), limits)) is not None:
        return excess
    size, place, nodes = len(data), 0, 1
    left = [1]
    """How many values are to come on each level that is open."""
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        if place >= size:
            raise DecodeError("not valid MessagePack: it ends too soon")
        left[-1] -= 1
        place, items, keys = _step(data, place)
        if items:
            # All at once, before any is seen: this is what the library makes room for.
            nodes += items - keys
            left.append(items)
            if len(left) > limits.depth + 1:
                return f"nested {len(left) - 1:,} levels deep or more; the limit is {limits.depth:,}"
            if items > size - place:
                raise DecodeError("not valid MessagePack: it ends too soon")
            if nodes > limits.nodes:
                return f"{nodes:,} values or more; the limit is {limits.nodes:,}"
    if place != size:
        what = "it ends too soon" if place > size else "something stands behind the value"
        raise DecodeError(f"not valid MessagePack: {what}")
    return None


def _step(data: bytes, place: int) -> tuple[int, int, int]:  # noqa: PLR0911  # a kind of value each
    """Return where the next value begins, how many items follow that belong to this one, and how many are keys."""
    first = data[place]
    place += 1
    if first < 0x80 or first >= 0xE0:
        return place, 0, 0
    if first >= 0xA0 and first < 0xC0:
        return place + (first & 0x1F), 0, 0
    if first < 0x90:
        return place, 2 * (first & 0x0F), first & 0x0F
    if first < 0xA0:
        return place, first & 0x0F, 0
    if (number := _FOLLOWED.get(first)) is not None:
        return place + number, 0, 0
    for table in (_LENGTHS, _LISTS, _MAPS):
        if (number := table.get(first)) is not None:
            length = int.from_bytes(data[place : place + number])
            place += number
            if table is _LENGTHS:
                return place + length, 0, 0
            return (place, length, 0) if table is _LISTS else (place, 2 * length, length)
    raise DecodeError(f"not valid MessagePack here: the byte {first:#04x} at {place - 1}; extensions are not read")


MSGPACK = Serializer("msgpack", "application/x-msgpack", "binary", _dumps, _loads, _MISSING)
