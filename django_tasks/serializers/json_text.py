"""How are values written as JSON?

What JSON cannot say itself is tagged: `encoding` tells how. The text is pure ASCII, so it fits any column, and it is
checked for size and depth before it is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from json import encoder as json_encoder
from typing import Any

from django_tasks.decoding import from_object
from django_tasks.encoding import LIMITS, PLAIN_INT, TYPE, Limits, to_json
from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.serializers.form import Serializer, too_large


def dumps(value: object, *, root: str = "value", limits: Limits = LIMITS) -> bytes:
    """Return a value as JSON; `loads` gives back an equal value of equal types.

    Raises SerializationError naming the path of what cannot be sent, or the limit that is passed.
    """
    try:
        text = _plain_text(value, limits)
        counted = text is not None
        if text is None:
            text = "".join(_write(to_json(value, root, limits), 0))
    except RecursionError as error:
        raise SerializationError(root, "nested deeper than Python's stack is at this place") from error
    data = text.encode("ascii")
    if (excess := _excess(data, limits, counted=counted)) is not None:
        raise SerializationError(root, f"{excess}; store the data and pass a reference to it")
    return data


def loads(data: bytes, limits: Limits = LIMITS) -> Any:
    """Return the value that JSON stands for; of a key that is there twice, the last counts.

    Raises DecodeError when the data passes a limit, before it is parsed, when it is no JSON, and when it holds a tagged
    value that cannot be made.
    """
    if type(data) is not bytes:
        data = memoryview(data).tobytes()
    if (excess := _excess(data, limits)) is not None:
        raise DecodeError(excess)
    # Only with such an escape could the tag's key be written in another way.
    decoder = _TAGGED if _TYPE in data or b"\\u00" in data else _PLAIN
    try:
        text = data.decode("utf-8")
        value, end = decoder.raw_decode(text) if text[:1] in _OPENERS else (None, -1)
        return value if end == len(text) else decoder.decode(text)
    except DecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not valid JSON: {error}") from error


_OPENERS = frozenset('[{"')
_TYPE = TYPE.encode("ascii")
_PLAIN = json.JSONDecoder()
_TAGGED = json.JSONDecoder(object_hook=from_object)

_SCALARS = frozenset({str, bool, float, type(None)})
_CONTAINERS = frozenset({list, dict})


def _plain_text(value: object, limits: Limits) -> str | None:
    """Return the text of a value that needs no tags and keeps the limits of depth and nodes, else None."""
    if _count_plain((value,), limits.depth, limits.nodes) < 0:
        return None
    try:
        text = "".join(_write(value, 0))
    except ValueError:  # a float that is not finite
        return None
    return None if "\\ud" in text and _splits_pairs(value, text) else text


def _count_plain(items: Iterable[Any], depth: int, nodes: int) -> int:
    """Return how many of `nodes` are left after these values and all in them.

    Less than 0 when they are too many, too deep or not plain JSON: the walk of `encoding` then finds out which.
    """
    for item in items:
        nodes -= 1
        kind = type(item)
        if kind in _SCALARS or (kind in _CONTAINERS and not item and depth > 0):
            continue
        if kind is int:
            if not -PLAIN_INT < item < PLAIN_INT:
                return -1
        elif kind is list and depth > 0:
            if len(item) > nodes:
                return -1
            nodes = _count_plain(item, depth - 1, nodes)
        elif kind is dict and depth > 0:
            if len(item) > nodes or (len(item) == 2 and TYPE in item) or not _has_text_keys(item):
                return -1
            nodes = _count_plain(item.values(), depth - 1, nodes)
        else:
            return -1
        if nodes < 0:
            return -1
    return nodes


def _has_text_keys(mapping: dict[Any, Any]) -> bool:
    # `all` with a generator takes twice as long, and this stands in the way of every message.
    for key in mapping:  # noqa: SIM110
        if type(key) is not str:
            return False
    return True


def _unknown(value: object) -> Any:
    raise TypeError(f"{type(value)} is not plain JSON")


_Writer = Callable[[object, int], Iterable[str]]


def _writer() -> _Writer:
    """Return a function that writes plain JSON in pieces."""
    make: Any = getattr(json_encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        plain = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":"))
        return lambda value, _: (plain.encode(value),)
    # JSONEncoder.encode makes this anew for every value, which takes longer than to write a small one.
    # Markers (a circle cannot get here), default, encoder, indent, separators, sort_keys, skipkeys, allow_nan.
    made: _Writer = make(None, _unknown, json_encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    return made


_write = _writer()
_SURROGATE = re.compile(r"\\ud[89ab]")
_UNICODE = json.JSONEncoder(check_circular=False, ensure_ascii=False)


def _splits_pairs(value: object, text: str) -> bool:
    """Tell whether text may hold a surrogate pair in two halves, which JSON's escapes would make one character."""
    if not _SURROGATE.search(text):
        return False
    try:
        _UNICODE.encode(value).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


_SPACE = b" \t\r\n"
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")


def _excess(data: bytes, limits: Limits, *, counted: bool = False) -> str | None:
    """Say which limit JSON text passes. With `counted` it is known to keep those of depth and nodes."""
    if (excess := too_large(len(data), limits)) is not None:
        return excess
    # A value takes two characters or more, but for the first: most texts need no closer look.
    if counted or (data.count(b"[") + data.count(b"{") <= limits.depth and len(data) < 2 * limits.nodes):
        return None
    # Each step is linear on any input. Backslashes stand in strings only, so without them and what they escape every
    # other piece between two quotes is a string.
    bare = b"s".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]).translate(None, _SPACE)
    depth = _depth(bare.translate(_BRACKETS, _NO_BRACKETS))
    if depth > limits.depth:
        return f"nested {depth:,} levels deep; the limit is {limits.depth:,}"
    empty = bare.count(b"[]") + bare.count(b"{}")
    nodes = 1 + bare.count(b",") + bare.count(b"[") + bare.count(b"{") - empty
    if nodes > limits.nodes:
        return f"{nodes:,} values; the limit is {limits.nodes:,}"
    return None


def _depth(brackets: bytes) -> int:
    """Return how deep brackets are nested, which are all written as square ones."""
    levels = 0
    # Each pass takes away the innermost level, of whatever is wide and shallow much at once.
    while brackets and levels < 8:
        brackets = brackets.replace(b"[]", b"")
        levels += 1
    return levels + max(accumulate(memoryview(brackets.translate(_STEPS)).cast("b")), default=0)


JSON = Serializer("json", "application/json", "utf-8", dumps, loads)
