"""What stands in JSON for a value that JSON does not know?

A tagged value is an object of exactly two keys, `{"__type__": tag, "__value__": content}`. The first six tags are
kombu's, so Celery understands them and we understand Celery's; a Celery worker refuses the others.

    tag             content
    datetime        ISO 8601 text: naive, or with its UTC offset
    date, time      ISO 8601 text
    decimal         text
    uuid            {"hex": 32 digits}
    bytes, base64   the text, when the bytes are UTF-8; else their base64
    zoned_datetime  {"iso": ..., "zone": key of a ZoneInfo or null, "fold": 0 or 1}: wall time, zone and fold come back
    zoned_time      the same
    timedelta       [days, seconds, microseconds]
    tuple, set, frozenset   [items]
    dict            [[key, value], ...]: keys that are not text, or exactly the two keys of a tag
    int             hexadecimal text: integers of more than 2048 bits
    float           "nan", "inf", "-inf"
    str             [parts]: text that holds a surrogate pair in two halves, cut between the halves
    enum            ["module:Class", member name], or [..., [names]] for combined flags
    dataclass       {"class": "module:Class", "fields": {...}}

A time zone that is neither `datetime.timezone` nor `ZoneInfo` comes back as the offset that it had. A subclass of a
plain type comes back as the plain type (SafeString as str, OrderedDict as dict) when nothing is lost by that; lazy text
comes back as text; other classes, named tuples among them, are refused. A class is looked for only in modules that the
reader has imported, and no code of a dataclass runs when it is read, so `__post_init__` does not, and what is not a
field is not kept. Fields that the message lacks take their defaults.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from itertools import pairwise
from math import isfinite
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django_tasks.classes import ancestors, attribute, find_class, is_builtin, is_stored, qualified_name
from django_tasks.exceptions import SerializationError
from django_tasks.refusals import reason

TYPE, VALUE = "__type__", "__value__"

PLAIN_INT = 1 << 2048
"""Integers from here on are tagged: Python bounds the digits that it reads, by 640 at the strictest setting."""

PAIR_IN_HALVES = re.compile("[\ud800-\udbff](?=[\udc00-\udfff])")
"""JSON's escapes would read the two halves as one character."""

_PATH_STEPS = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How large an encoded value may be, counted in the JSON text."""

    depth: int = 100
    """Levels of brackets."""
    nodes: int = 1_000_000
    """Values: containers and what stands in them; keys are not counted."""
    bytes: int = 1_048_576


LIMITS = Limits()


class _Refused(Exception):  # becomes a SerializationError once the path to the value is known
    """A value cannot be sent; every container on the way out adds the step that leads to it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def path(self, root: str) -> str:
        steps = self.steps[::-1]
        if len(steps) > _PATH_STEPS:
            steps[_PATH_STEPS // 2 : -_PATH_STEPS // 2] = ["..."]
        return root + "".join(steps)


class _Walk:
    """One pass over a value, on the way to JSON."""

    __slots__ = ("limits", "nodes", "open")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.nodes = 0
        self.open: list[int] = []

    def node(self, value: Any) -> Any:
        """Return what stands for a value in JSON."""
        self.nodes += 1
        if self.nodes > self.limits.nodes:
            raise _Refused(f"{self.nodes:,} values or more; the limit is {self.limits.nodes:,}; pass less at a time")
        kind = type(value)
        encode = _ENCODERS.get(kind) or _of_subclass(kind)
        if encode is None:
            raise _Refused(reason(value))
        return encode(self, value)

    def enter(self, value: object) -> None:
        """Go into a container; `leave` it afterwards."""
        if id(value) in self.open:
            raise _Refused("contains itself; pass data without circles")
        if len(self.open) >= self.limits.depth:
            raise _Refused(f"nested {len(self.open) + 1} levels deep or more; the limit is {self.limits.depth}")
        self.open.append(id(value))

    def leave(self) -> None:
        self.open.pop()

    def items(self, value: object, items: Iterable[Any], step: str = "[{}]") -> list[Any]:
        """Return the items of a container, encoded."""
        self.enter(value)
        encoded: list[Any] = []
        try:
            for item in items:
                encoded.append(self.node(item))  # noqa: PERF401  # its length is the index of what is refused
        except _Refused as refused:
            refused.steps.append(step.format(len(encoded)))
            raise
        self.leave()
        return encoded

    def fields(self, value: object, items: Iterable[tuple[str, Any]], step: str = "[{!r}]") -> dict[str, Any]:
        """Return the values of a container that are found by name, encoded."""
        self.enter(value)
        encoded: dict[str, Any] = {}
        name = ""
        try:
            for name, item in items:
                encoded[name] = self.node(item)
        except _Refused as refused:
            refused.steps.append(step.format(name if len(name) <= 64 else name[:64] + "..."))
            raise
        self.leave()
        return encoded


Encoder = Callable[[_Walk, Any], Any]


def to_json(value: object, root: str, limits: Limits) -> Any:
    """Return a tree of exactly None, bool, int, float, str, list and dict that stands for a value.

    Raises SerializationError with the path of what cannot be sent, which begins with `root`.
    """
    try:
        return _Walk(limits).node(value)
    except _Refused as refused:
        raise SerializationError(refused.path(root), refused.reason) from refused.__cause__


def _tagged(tag: str, content: Any) -> dict[str, Any]:
    return {TYPE: tag, VALUE: content}


def _same(_walk: _Walk, value: Any) -> Any:
    return value


def _int(_walk: _Walk, value: int) -> Any:
    plain = int.__int__(value)
    return plain if -PLAIN_INT < plain < PLAIN_INT else _tagged("int", hex(plain))


def _float(_walk: _Walk, value: float) -> Any:
    plain = float.__float__(value)
    return plain if isfinite(plain) else _tagged("float", float.__repr__(plain))


def _str(_walk: _Walk, value: str) -> Any:
    plain = str.__str__(value)
    if plain.isascii() or not PAIR_IN_HALVES.search(plain):
        return plain
    ends = [0, *(match.end() for match in PAIR_IN_HALVES.finditer(plain)), len(plain)]
    return _tagged("str", [plain[start:end] for start, end in pairwise(ends)])


def _bytes(_walk: _Walk, value: bytes) -> Any:
    try:
        return _tagged("bytes", bytes.decode(value, "utf-8"))
    except UnicodeDecodeError:
        return _tagged("base64", base64.b64encode(value).decode("ascii"))


def _moment(value: datetime | time, tag: str) -> Any:
    try:
        text, zone = value.isoformat(), _zone(value)
        offset = value.utcoffset()
    except Exception as error:  # the code of a foreign tzinfo ran
        raise _Refused(f"its time zone cannot tell the offset: {type(error).__name__}; pass UTC") from error
    if value.tzinfo is not None and zone is None and offset is None:
        raise _Refused("its time zone tells no offset; pass UTC, or no time zone")
    if offset and abs(offset) < timedelta(seconds=1):  # fromisoformat takes it for UTC
        raise _Refused("the offset of its time zone is a fraction of a second; pass UTC")
    if zone is None and not value.fold:
        return _tagged(tag, text)
    return _tagged(f"zoned_{tag}", {"iso": text, "zone": zone, "fold": value.fold})


def _zone(value: datetime | time) -> str | None:
    return value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None


def _datetime(_walk: _Walk, value: datetime) -> Any:
    return _moment(value, "datetime")


def _time(_walk: _Walk, value: time) -> Any:
    return _moment(value, "time")


def _dict(walk: _Walk, value: dict[Any, Any]) -> Any:
    pairs = list(value.items())
    named = [(name, item) for key, item in pairs if (name := _name(key)) is not None]
    if len(named) < len(pairs) or {name for name, _ in named} == {TYPE, VALUE}:
        return _tagged("dict", _pairs(walk, value, pairs))
    return walk.fields(value, named)


def _name(key: object) -> str | None:
    """Return a key as JSON has it; None when JSON has no such key."""
    kind = type(key)
    if kind is not str and (not issubclass(kind, str) or issubclass(kind, Enum)):
        return None
    name = str.__str__(key)
    return None if PAIR_IN_HALVES.search(name) else name


def _pairs(walk: _Walk, value: object, pairs: list[tuple[Any, Any]]) -> list[list[Any]]:
    keys = walk.items(value, (key for key, _ in pairs), ".keys()[{}]")
    items = walk.items(value, (item for _, item in pairs), ".values()[{}]")
    return [list(pair) for pair in zip(keys, items, strict=True)]


def _ordered(walk: _Walk, value: OrderedDict[Any, Any]) -> Any:
    return _dict(walk, dict(value.items()))


def _enum(_walk: _Walk, value: Enum) -> Any:
    cls = type(value)
    label = _label(cls)
    if cls._member_map_.get(value._name_) is value:
        return _tagged("enum", [label, value._name_])
    if isinstance(value, Flag):
        members = list(value)
        if sum(member._value_ for member in members) == value._value_:  # their bits do not overlap
            return _tagged("enum", [label, [member._name_ for member in members]])
    raise _Refused(f"{value._value_!r} is no member of {label}")


def _dataclass(walk: _Walk, value: Any) -> Any:
    cls = type(value)
    label = _label(cls)
    if not _is_plain_object(cls):
        raise _Refused(f"{label} is a dataclass and a builtin type at once; pass its fields as a dict")
    names = [field.name for field in dataclasses.fields(cls)]
    for name in names:
        if not is_stored(cls, name):
            raise _Refused(f"the field {name} of {label} is a property or the like; pass its fields as a dict")
    try:
        found = {name: object.__getattribute__(value, name) for name in names}
    except AttributeError as error:
        raise _Refused(f"a field of {label} has no value: {error}") from error
    fields = walk.fields(value, found.items(), ".{}")
    # Two fields could be named like the keys of a tag.
    escaped = _tagged("dict", [list(pair) for pair in fields.items()]) if fields.keys() == {TYPE, VALUE} else fields
    return _tagged("dataclass", {"class": label, "fields": escaped})


def _is_plain_object(cls: type) -> bool:
    """Tell whether `object.__new__` makes an instance of this class."""
    return all(each is object or not is_builtin(each) for each in ancestors(cls))


def _label(cls: type) -> str:
    """Return the name by which a reader finds a class."""
    module, qualname = qualified_name(cls)
    if module == "__main__":
        raise _Refused(f"the class {qualname} stands in __main__, which a worker does not see; move it to a module")
    if "<locals>" in qualname:
        raise _Refused(f"the class {qualname} stands in a function, where a worker cannot find it; move it out")
    if find_class(module, qualname) is not cls:
        raise _Refused(f"the module {module} does not have this class under the name {qualname}; assign it there")
    return f"{module}:{qualname}"


def _own_form(walk: _Walk, value: Any) -> Any:
    """Encode what says itself how it looks as plain values, as signatures do."""
    return walk.node(value.__json__())


def _lazy_text(_walk: _Walk, value: object) -> Any:
    try:
        return str(value)
    except Exception as error:  # the code of a translation ran
        raise _Refused(f"the lazy text cannot be told: {type(error).__name__}; pass str(value)") from error


def _equal(plain: Callable[[Any], Any], encode: Encoder) -> Encoder:
    """Return an encoder for subclasses that are sent as their plain type, if they hold no more than it does."""

    def encode_equal(walk: _Walk, value: Any) -> Any:
        try:
            base = plain(value)
            same = bool(base == value)
        except Exception:  # noqa: BLE001  # the code of a foreign class ran, and says that it is not like its ancestor
            raise _Refused(reason(value)) from None
        if not same:
            raise _Refused(reason(value))
        return encode(walk, base)

    return encode_equal


def _plain_datetime(value: datetime) -> datetime:
    return datetime.combine(_plain_date(value), _plain_time(value))


def _plain_date(value: date) -> date:
    return date(value.year, value.month, value.day)


def _plain_time(value: datetime | time) -> time:
    return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)


_ENCODERS: dict[type, Encoder] = {
    type(None): _same,
    bool: _same,
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    datetime: _datetime,
    date: lambda _, value: _tagged("date", value.isoformat()),
    time: _time,
    timedelta: lambda _, value: _tagged("timedelta", [value.days, value.seconds, value.microseconds]),
    Decimal: lambda _, value: _tagged("decimal", str(value)),
    UUID: lambda _, value: _tagged("uuid", {"hex": value.hex}),
    list: lambda walk, value: walk.items(value, value),
    tuple: lambda walk, value: _tagged("tuple", walk.items(value, value)),
    set: lambda walk, value: _tagged("set", walk.items(value, value, "{{...}}")),
    frozenset: lambda walk, value: _tagged("frozenset", walk.items(value, value, "{{...}}")),
    dict: _dict,
    OrderedDict: _ordered,
}

_SUBCLASSES: tuple[tuple[type, Encoder], ...] = (
    (str, _str),
    (int, _int),
    (float, _float),
    (bytes, _bytes),
    (datetime, _equal(_plain_datetime, _datetime)),
    (date, _equal(_plain_date, _ENCODERS[date])),
    (time, _equal(_plain_time, _time)),
    (timedelta, _equal(lambda value: timedelta(value.days, value.seconds, value.microseconds), _ENCODERS[timedelta])),
    (Decimal, _equal(Decimal, _ENCODERS[Decimal])),
    (UUID, _equal(lambda value: UUID(int=value.int), _ENCODERS[UUID])),
)
"""In this order: a datetime is a date as well."""

_CONTAINERS: tuple[tuple[type, str], ...] = (
    (OrderedDict, "items"),
    (dict, "items"),
    (list, "__iter__"),
    (set, "__iter__"),
    (frozenset, "__iter__"),
)


def _of_subclass(kind: type) -> Encoder | None:
    """Return how a value is encoded whose class is not exactly one of the plain ones."""
    if issubclass(kind, Enum):
        return _enum
    if attribute(kind, "__dataclass_fields__") is not None:
        return _dataclass
    for plain, encode in _SUBCLASSES:
        if issubclass(kind, plain):
            return encode
    for plain, content in _CONTAINERS:
        if issubclass(kind, plain):
            # With a view of its own on its content it is not clear what the content is.
            return _ENCODERS[plain] if attribute(kind, content) is attribute(plain, content) else None
    if attribute(kind, "__json__") is not None:
        return _own_form
    names = {qualified_name(each) for each in ancestors(kind)}
    is_text = attribute(kind, "encode") is not None
    return _lazy_text if is_text and ("django.utils.functional", "Promise") in names else None
