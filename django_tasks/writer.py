"""How is a value told from its parts, until the room for it is used up?

Containers item by item, dataclasses by their fields if their repr is the one that `dataclass` makes, Django's models as
`<app.Model: pk>` with the key that they hold in memory, exceptions by their arguments, and any object that is not plain
as `<module.Class object>`. No code of a value's class runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from types import FunctionType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django_tasks.classes import ancestors, attribute, display_name, namespace, qualified_name
from django_tasks.redaction import HIDDEN, looks_secret

NAME_LENGTH = 200
"""Longer names of classes and fields are cut."""

_CUT = "..."
_INT_BITS = 2048
_DECIMAL_SIZE = 1024


class _Full(Exception):  # ends the writing, and is no error
    """There is no room left."""


def told(write: Callable[[Writer], None], limit: int, *, redact: bool) -> str:
    """Return what a function writes, in at most `limit` characters; never raises."""
    writer = Writer(limit, redact=redact)
    try:
        write(writer)
    except _Full:
        text = "".join(writer.pieces)
        return text[: limit - len(_CUT)] + _CUT if limit > len(_CUT) else text[:limit]
    except Exception as error:  # noqa: BLE001  # a class can be hostile in more ways than can be named
        return f"<not to be shown: {_clean(display_name(type(error)))}>"[:limit]
    return "".join(writer.pieces)


class Writer:
    """Writes a value until the room is used up."""

    __slots__ = ("pieces", "redact", "room")

    def __init__(self, room: int, *, redact: bool) -> None:
        self.pieces: list[str] = []
        self.room = room
        self.redact = redact

    def put(self, text: str) -> None:
        self.pieces.append(text)
        self.room -= len(text)
        if self.room < 0:
            raise _Full

    def value(self, value: Any, depth: int) -> None:
        kind = type(value)
        write = _WRITERS.get(kind)
        if write is None:
            write = _of_subclass(kind)
        write(self, value, depth)

    def items(self, opening: str, items: Iterable[Any], closing: str, depth: int, hidden: Iterable[int] = ()) -> None:
        self.put(opening)
        for index, item in enumerate(items):
            if index:
                self.put(", ")
            if index in hidden:
                self.put(HIDDEN)
            else:
                self.value(item, depth)
        self.put(closing)

    def container(self, opening: str, value: Any, items: Iterator[Any], closing: str, depth: int) -> None:
        if depth > 0:
            self.items(opening, items, closing, depth - 1)
        else:
            self.put(f"{opening}{_CUT if len(value) else ''}{closing}")

    def fields(self, opening: str, items: Iterable[tuple[str, Any]], closing: str, depth: int) -> None:
        self.put(opening)
        if depth <= 0:
            self.put(_CUT)
        else:
            for index, (name, item) in enumerate(items):
                self.put(f"{', ' if index else ''}{_clean(name)}=")
                self.secret(name, item, depth - 1)
        self.put(closing)

    def secret(self, name: str, value: Any, depth: int) -> None:
        """Write what goes by a name, or that it is hidden."""
        if self.redact and looks_secret(name):
            self.put(HIDDEN)
        else:
            self.value(value, depth)


_Write = Callable[[Writer, Any, int], None]


def _clean(name: str) -> str:
    """Return a name as one printable word: identifiers made at run time may hold anything."""
    name = name[:NAME_LENGTH]
    return name if name.isprintable() else repr(name)[1:-1]


def _name_of(value: object) -> str:
    return _clean(display_name(type(value)))


def _builtin(writer: Writer, value: Any, _depth: int) -> None:
    writer.put(repr(value))


def _int(writer: Writer, value: int, _depth: int) -> None:
    bits = int.bit_length(value)
    writer.put(int.__repr__(value) if bits <= _INT_BITS else f"<int of {bits:,} bits>")


def _float(writer: Writer, value: float, _depth: int) -> None:
    writer.put(float.__repr__(value))


def _str(writer: Writer, value: str, _depth: int) -> None:
    # A character more than there is room for, so that what is cut is seen to be.
    writer.put(repr(str.__getitem__(value, slice(writer.room + 1))))


def _bytes(writer: Writer, value: bytes, _depth: int) -> None:
    writer.put(repr(bytes.__getitem__(value, slice(writer.room + 1))))


def _bytearray(writer: Writer, value: bytearray, _depth: int) -> None:
    writer.put(repr(bytearray.__getitem__(value, slice(writer.room + 1))))


def _decimal(writer: Writer, value: Decimal, _depth: int) -> None:
    size = Decimal.__sizeof__(value)
    writer.put(Decimal.__repr__(value) if size <= _DECIMAL_SIZE else f"<Decimal of {size:,} bytes>")


def _moment(writer: Writer, value: datetime | time, _depth: int) -> None:
    if value.tzinfo is None or type(value.tzinfo) in {timezone, ZoneInfo}:
        writer.put(repr(value))
    else:
        writer.put(f"<{value.replace(tzinfo=None)!r} in {_name_of(value.tzinfo)}>")


def _list(writer: Writer, value: list[Any], depth: int) -> None:
    writer.container("[", value, list.__iter__(value), "]", depth)


def _tuple(writer: Writer, value: tuple[Any, ...], depth: int) -> None:
    writer.container("(", value, tuple.__iter__(value), ",)" if tuple.__len__(value) == 1 else ")", depth)


def _named_tuple(writer: Writer, value: tuple[Any, ...], depth: int) -> None:
    names = attribute(type(value), "_fields")
    if type(names) is tuple and set(map(type, names)) <= {str} and len(names) == tuple.__len__(value):
        pairs = zip(names, tuple.__iter__(value), strict=True)
        writer.fields(f"{_clean(qualified_name(type(value))[1])}(", pairs, ")", depth)
    else:
        _tuple(writer, value, depth)


def _set(writer: Writer, value: set[Any], depth: int) -> None:
    if set.__len__(value):
        writer.container("{", value, set.__iter__(value), "}", depth)
    else:
        writer.put("set()")


def _frozenset(writer: Writer, value: frozenset[Any], depth: int) -> None:
    writer.container("frozenset({", value, frozenset.__iter__(value), "})", depth)


def _dict(writer: Writer, value: dict[Any, Any], depth: int) -> None:
    writer.put("{")
    if depth <= 0:
        writer.put(_CUT if dict.__len__(value) else "")
    else:
        for index, (key, item) in enumerate(dict.items(value)):
            if index:
                writer.put(", ")
            writer.value(key, depth - 1)
            writer.put(": ")
            writer.secret(key_name(key), item, depth - 1)
    writer.put("}")


def key_name(key: object) -> str:
    """Return the text of a key, empty when it is none."""
    if issubclass(type(key), str):
        return str.__str__(key)
    if issubclass(type(key), bytes):
        return bytes.decode(key, "latin-1")  # type: ignore[arg-type]
    return ""


def _enum(writer: Writer, value: Enum, _depth: int) -> None:
    name = object.__getattribute__(value, "_name_")
    shown = _clean(name) if type(name) is str else _CUT
    writer.put(f"<{_clean(qualified_name(type(value))[1])}.{shown}>")


def _exception(writer: Writer, value: BaseException, depth: int) -> None:
    args = BaseException.args.__get__(value)  # type: ignore[attr-defined]
    writer.container(f"{_clean(qualified_name(type(value))[1])}(", args, iter(args), ")", depth)


def _dataclass(writer: Writer, value: Any, depth: int) -> None:
    fields = (field.name for field in dataclasses.fields(type(value)) if field.repr)
    pairs = ((name, object.__getattribute__(value, name)) for name in fields)
    writer.fields(f"{_clean(qualified_name(type(value))[1])}(", pairs, ")", depth)


def _function(writer: Writer, value: FunctionType, _depth: int) -> None:
    module = value.__module__ if type(value.__module__) is str else "?"
    writer.put(f"<function {_clean(module)}.{_clean(value.__qualname__)}>")


def _class(writer: Writer, value: type, _depth: int) -> None:
    writer.put(f"<class {_clean(display_name(value))}>")


def _object(writer: Writer, value: object, _depth: int) -> None:
    writer.put(f"<{_name_of(value)} object>")


def _model(writer: Writer, value: Any, depth: int) -> None:
    """Write a Django model with the primary key that it holds: nothing is asked of the database."""
    options: Any = attribute(type(value), "_meta")
    stored = object.__getattribute__(value, "__dict__")
    keys = [stored.get(field.attname) for field in getattr(options, "pk_fields", None) or [options.pk]]
    writer.put(f"<{_clean(options.label)}: ")
    writer.items("", keys, "", depth - 1)
    writer.put(">")


_WRITERS: dict[type, _Write] = {
    type(None): _builtin,
    bool: _builtin,
    int: _int,
    float: _float,
    complex: _builtin,
    str: _str,
    bytes: _bytes,
    bytearray: _bytearray,
    Decimal: _decimal,
    datetime: _moment,
    time: _moment,
    date: _builtin,
    timedelta: _builtin,
    UUID: _builtin,
    range: _object,
    list: _list,
    tuple: _tuple,
    set: _set,
    frozenset: _frozenset,
    dict: _dict,
    FunctionType: _function,
    type: _class,
}

_SUBCLASSES: tuple[tuple[type, _Write], ...] = (
    (str, _str),
    (bytes, _bytes),
    (bytearray, _bytearray),
    (int, _int),
    (float, _float),
    (list, _list),
    (tuple, _named_tuple),
    (set, _set),
    (frozenset, _frozenset),
    (dict, _dict),
    (type, _class),
)


def _of_subclass(kind: type) -> _Write:
    """Return how a value is written whose class is not exactly a plain one."""
    if issubclass(kind, Enum):
        return _enum
    if attribute(kind, "__dataclass_fields__") is not None:
        return _dataclass if _has_made_repr(kind) else _object
    if issubclass(kind, BaseException):
        return _exception
    for plain, write in _SUBCLASSES:
        if issubclass(kind, plain):
            return write
    options = attribute(kind, "_meta")
    if qualified_name(type(options)) == ("django.db.models.options", "Options"):
        return _model
    return _object


def _has_made_repr(kind: type) -> bool:
    """Tell whether the repr of a dataclass is the one that `dataclass` made, which tells the fields.

    One of its own may be there to keep some of them back.
    """
    for each in ancestors(kind):
        if "__repr__" in namespace(each):
            made = getattr(namespace(each)["__repr__"], "__wrapped__", None)
            return type(made) is FunctionType and made.__code__.co_filename == "<string>"
    return False
