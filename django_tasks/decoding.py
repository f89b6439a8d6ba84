"""Which value does a tagged object of JSON stand for? (The tags are told in `encoding`.)

What is read comes from a broker or a store and may be forged. The set of tags is closed, contents are checked, nothing
is imported, and of the classes that a message names only Enums and dataclasses are taken, without running their code.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django_tasks.classes import find_class, is_stored
from django_tasks.encoding import TYPE, VALUE
from django_tasks.exceptions import DecodeError

_KEYS = {TYPE, VALUE}
_HEXADECIMAL = re.compile(r"-?0x[0-9a-f]+")
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+-]{1,64}(/[A-Za-z0-9_+-]{1,64}){0,4}")
_FACTORIES = (list, dict, set)
"""Defaults that are made without running code of the application."""


def from_object(found: dict[str, Any]) -> Any:
    """Return the value of an object read from JSON, its inner objects being values already.

    Raises DecodeError for an unknown tag, and for a content that its tag cannot have.
    """
    if found.keys() != _KEYS:
        return found
    tag, content = found[TYPE], found[VALUE]
    decode = _DECODERS.get(tag) if type(tag) is str else None
    if decode is None:
        raise DecodeError(
            f"a value has the type tag {str(tag)[:64]!r}, which is not known here: another program or a newer version "
            f"sent it. Known: {', '.join(_DECODERS)}"
        )
    try:
        return decode(content)
    except DecodeError:
        raise
    # InvalidOperation is an ArithmeticError, as OverflowError is; binascii.Error is a ValueError.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise DecodeError(f"a value tagged {tag!r} has a content that is no {tag}: {str(error)[:200]}") from error


def _text(content: Any) -> str:
    if type(content) is not str:
        raise TypeError(f"text was expected, found {type(content).__name__}")
    return content


def _items(content: Any) -> list[Any]:
    if type(content) is not list:
        raise TypeError(f"a list was expected, found {type(content).__name__}")
    return content


def _fields(content: Any, *names: str) -> list[Any]:
    if type(content) is not dict or content.keys() != set(names):
        raise TypeError(f"an object with exactly {', '.join(names)} was expected")
    return [content[name] for name in names]


def _datetime(content: Any) -> datetime:
    return datetime.fromisoformat(_text(content))


def _time(content: Any) -> time:
    return time.fromisoformat(_text(content))


def _zoned_datetime(content: Any) -> datetime:
    iso, zone, fold = _fields(content, "iso", "zone", "fold")
    found = _datetime(iso).replace(fold=fold)
    return found if zone is None else found.replace(tzinfo=_zone(zone))


def _zoned_time(content: Any) -> time:
    iso, zone, fold = _fields(content, "iso", "zone", "fold")
    found = _time(iso).replace(fold=fold)
    return found if zone is None else found.replace(tzinfo=_zone(zone))


def _zone(key: Any) -> ZoneInfo:
    if not _ZONE_KEY.fullmatch(_text(key)):
        raise ValueError(f"{key[:64]!r} is no key of a time zone")
    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the key of a folder of zones
        raise DecodeError(f"this host knows no time zone {key!r}; install or update the tzdata package") from error


def _timedelta(content: Any) -> timedelta:
    days, seconds, microseconds = _items(content)
    if {type(days), type(seconds), type(microseconds)} != {int}:
        raise TypeError("three integers were expected")
    return timedelta(days, seconds, microseconds)


def _uuid(content: Any) -> UUID:
    (digits,) = _fields(content, "hex")
    return UUID(hex=_text(digits))


def _dict(content: Any) -> dict[Any, Any]:
    found = {}
    for pair in _items(content):
        key, value = _items(pair)
        found[key] = value
    return found


def _int(content: Any) -> int:
    if not _HEXADECIMAL.fullmatch(_text(content)):
        raise ValueError("hexadecimal digits were expected")
    return int(content, 16)


def _float(content: Any) -> float:
    if content not in {"nan", "inf", "-inf"}:
        raise ValueError("nan, inf or -inf was expected")
    return float(content)


def _find(label: Any) -> type:
    module, _, qualname = _text(label).partition(":")
    cls = find_class(module, qualname)
    if cls is None:
        raise DecodeError(
            f"the class {label[:200]!r} is not known in this process: import its module in a tasks.py or in "
            f"AppConfig.ready(); if the class was moved or renamed, leave its old name where it was"
        )
    return cls


def _enum(content: Any) -> Enum:
    label, names = _items(content)
    cls = _find(label)
    if not issubclass(cls, Enum):
        raise DecodeError(f"the class {label!r} is no Enum here")
    members = cls._member_map_
    missing = [name for name in ([names] if type(names) is str else _items(names)) if _text(name) not in members]
    if missing:
        raise DecodeError(
            f"{label!r} has no member {str(missing[0])[:64]!r} here: it comes from another version of the code"
        )
    if type(names) is str:
        return members[names]
    if not issubclass(cls, Flag):
        raise DecodeError(f"the class {label!r} is no Flag here, whose members could be combined")
    mask = 0
    for name in names:
        mask |= members[name]._value_
    # The standard lookup, past a `_missing_` of the class itself.
    known = cls._value2member_map_.get(mask)
    return known if known is not None else Flag._missing_.__func__(cls, mask)  # type: ignore[attr-defined]


def _dataclass(content: Any) -> Any:
    label, given = _fields(content, "class", "fields")
    cls = _find(label)
    if not dataclasses.is_dataclass(cls):
        raise DecodeError(f"the class {label!r} is no dataclass here")
    if type(given) is not dict:
        raise TypeError("the fields are no object")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = given.keys() - fields.keys()
    if unknown:
        raise DecodeError(
            f"{label!r} has no field {min(unknown)[:64]!r} here: it comes from another version of the code"
        )
    instance: Any = object.__new__(cls)
    for name, field in fields.items():
        if not is_stored(cls, name):
            raise DecodeError(
                f"the field {name} of {label!r} is a property or the like here, which cannot be set unseen"
            )
        object.__setattr__(instance, name, given[name] if name in given else _default(label, field))
    return instance


def _default(label: str, field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory in _FACTORIES:
        return field.default_factory()
    raise DecodeError(
        f"the field {field.name} of {label!r} was not sent and has no plain default: another version sent it"
    )


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "datetime": _datetime,
    "date": lambda content: _datetime(content).date(),
    "time": _time,
    "decimal": lambda content: Decimal(_text(content)),
    "uuid": _uuid,
    "bytes": lambda content: _text(content).encode("utf-8"),
    "base64": lambda content: base64.b64decode(_text(content).encode("ascii"), validate=True),
    "zoned_datetime": _zoned_datetime,
    "zoned_time": _zoned_time,
    "timedelta": _timedelta,
    "tuple": lambda content: tuple(_items(content)),
    "set": lambda content: set(_items(content)),
    "frozenset": lambda content: frozenset(_items(content)),
    "dict": _dict,
    "int": _int,
    "float": _float,
    "str": lambda content: "".join(_text(part) for part in _items(content)),
    "enum": _enum,
    "dataclass": _dataclass,
}
