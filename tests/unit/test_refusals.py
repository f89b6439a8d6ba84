"""Is what cannot be sent refused with its path and with what to do instead?"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import re
import subprocess
import sys
import threading
from collections import UserDict, deque, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, IntFlag
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from django.db import models
from django.http import HttpRequest, QueryDict
from django.utils.functional import SimpleLazyObject, lazy

from django_tasks.exceptions import SerializationError
from django_tasks.serializers import dumps, loads

BERLIN = ZoneInfo("Europe/Berlin")


class Color(Enum):
    RED = 1


class OddFlag(IntFlag):
    ONE = 1


@dataclass
class Line:
    sku: str
    price: Decimal
    when: datetime | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


@dataclass
class Sneaky:
    x: int

    stored = 5


Sneaky.x = property(lambda self: 5, lambda self, value: sys.exit("the setter ran"))  # type: ignore[assignment]


@dataclass
class Failing(Exception):
    code: int


Pair = namedtuple("Pair", "a b")  # noqa: PYI024


class Typed(NamedTuple):
    a: int


class _Opaque:
    def method(self) -> None: ...

    def __repr__(self) -> str:
        raise AssertionError("its repr is not needed")


class _Lying:
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise AssertionError("type() tells the truth")


class _Nanosecond(datetime):
    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = datetime.__hash__


class _Upper(dict[str, int]):
    def items(self) -> Any:
        return [(key.upper(), value) for key, value in super().items()]


class _Backwards(list[int]):
    def __iter__(self) -> Iterator[int]:
        return reversed(self)


async def _coroutine() -> None: ...


@pytest.fixture
def coroutine():
    made = _coroutine()
    yield made
    made.close()


def _local_class() -> Any:
    @dataclass
    class Local:
        x: int = 0

    return Local()


class _Note(models.Model):  # noqa: DJ008
    class Meta:
        app_label = "app"
        managed = False


REFUSED = [
    (lambda: lambda: 0, "a lambda cannot be sent; pass its name instead"),
    (lambda: _local_class, "a function cannot be sent; pass its name instead"),
    (lambda: len, "a function cannot be sent; pass its name instead"),
    (lambda: "".join, "pass its name instead"),
    (lambda: _Opaque().method, "cannot be sent"),
    (lambda: functools.partial(print), "functools.partial cannot be sent; pass the name of the function"),
    (lambda: _Note(pk=5), r"a model instance \(.*_Note\) cannot be sent; pass its primary key"),
    (_Note._default_manager.all, "QuerySet cannot be sent; pass primary keys"),
    (lambda: _Note._default_manager, "Manager cannot be sent"),
    (lambda: SimpleLazyObject(lambda: _Note(pk=5)), r"pass a plain value, such as request.user.pk"),
    (HttpRequest, "HttpRequest cannot be sent; pass the values that the task needs"),
    (lambda: QueryDict("a=1&a=2"), r"pass value.dict\(\)"),
    (lambda: io.BytesIO(b""), "an open file .* cannot be sent; pass its path or its content"),
    (lambda: (each for each in "ab"), r"a generator cannot be sent; pass list\(value\)"),
    (lambda: iter([1]), r"pass list\(value\)"),
    (lambda: range(3), r"pass list\(value\)"),
    ({}.keys, r"pass list\(value\)"),
    (lambda: deque([1]), r"pass list\(value\)"),
    (lambda: UserDict(a=1), r"pass dict\(value\)"),
    (lambda: ValueError("x"), r"an exception \(ValueError\) cannot be sent; pass str\(value\)"),
    (lambda: Failing(5), "is a dataclass and a builtin type at once"),
    (lambda: Color, r"a class \(enum.EnumType\) cannot be sent; pass its name instead"),
    (lambda: int, "a class cannot be sent"),
    (lambda: json, "a module cannot be sent; pass its name instead"),
    (lambda: bytearray(b"x"), r"pass bytes\(value\)"),
    (lambda: memoryview(b"x"), r"pass bytes\(value\)"),
    (lambda: 1j, "value.real"),
    (lambda: Path("x"), r"pass str\(value\)"),
    (lambda: re.compile("x"), "pass value.pattern"),
    (lambda: BERLIN, "pass value.key"),
    (lambda: Pair(1, 2), r"Pair cannot be sent; pass tuple\(value\), or value._asdict\(\)"),
    (lambda: Typed(1), r"Typed cannot be sent; pass tuple\(value\)"),
    (threading.Lock, "lock cannot be sent; pass the plain values that the task needs"),
    (_Opaque, "_Opaque cannot be sent; pass the plain values that the task needs, or make it a dataclass"),
    (_Lying, "_Lying cannot be sent"),
    (lambda: _Nanosecond(2026, 1, 1), "holds more than the standard class does"),
    (lambda: _Upper(a=1), r"has items\(\) of its own; pass dict\(value\)"),
    (lambda: _Backwards([1, 2]), r"has an __iter__ of its own; pass list\(value\)"),
    (_local_class, "stands in a function, where a worker cannot find it; move it out"),
    (lambda: Sneaky.__new__(Sneaky), "the field x of .*Sneaky is a property or the like"),
    (lambda: Point.__new__(Point), "a field of .*Point has no value"),
    (lazy(lambda: 1 // 0, str), "the lazy text cannot be told: ZeroDivisionError"),
    (lazy(lambda: 5, int), "cannot be sent"),
    (asyncio.Event, "cannot be sent"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_what_cannot_be_sent_is_refused_with_its_path_and_what_to_do(make, words):
    value = make()
    with pytest.raises(SerializationError) as caught:
        dumps({"items": [1, {"x": (value,)}]}, root="args[2]")
    assert caught.value.path == "args[2]['items'][1]['x'][0]"
    assert re.search(words, caught.value.reason)
    with pytest.raises(SerializationError) as caught:
        dumps(value)
    assert caught.value.path == "value"


def test_a_coroutine_is_refused(coroutine):
    with pytest.raises(SerializationError, match="a coroutine cannot be sent; await it and pass its result"):
        dumps([coroutine])


def test_the_path_leads_through_every_kind_of_container():
    bad = threading.Lock()
    for value, path in [
        (Line("x", Decimal(1), tags=[bad]), "value.tags[0]"),  # type: ignore[list-item]
        ({1: bad}, "value.values()[0]"),
        ({bad: 1}, "value.keys()[0]"),
        ({frozenset({bad})}, "value{...}{...}"),
        ({"k" * 100: bad}, f"value['{'k' * 64}...']"),
        ({"it's": bad}, 'value["it\'s"]'),
        ([[[[[[[[[[[[[[[[[[bad]]]]]]]]]]]]]]]]]], "value[0][0][0][0][0][0]...[0][0][0][0][0][0]"),
    ]:
        with pytest.raises(SerializationError) as caught:
            dumps(value)
        assert caught.value.path == path


def test_a_class_of_the_main_module_is_refused():
    script = (
        "from dataclasses import dataclass\nfrom django_tasks.serializers import dumps\n"
        "@dataclass\nclass X: a: int = 0\n"
        "try: dumps(X())\nexcept TypeError as error: print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told == "value: the class X stands in __main__, which a worker does not see; move it to a module\n"


def test_a_class_that_is_shadowed_is_refused(monkeypatch):
    value = Point(1)
    monkeypatch.setattr(sys.modules[__name__], "Point", Line)
    with pytest.raises(SerializationError, match="does not have this class under the name Point"):
        dumps(value)


def test_circles_are_refused_by_name():
    ring: list[Any] = [1]
    ring.append({"self": ring})
    with pytest.raises(SerializationError) as caught:
        dumps(ring)
    assert str(caught.value) == "value[1]['self']: contains itself; pass data without circles"
    wide: list[Any] = []
    wide += [wide, wide]
    with pytest.raises(SerializationError, match="contains itself"):
        dumps(wide)
    shared = [1]
    assert loads(dumps([shared, shared])) == [[1], [1]]


def test_a_flag_with_bits_that_have_no_name_is_refused():
    with pytest.raises(SerializationError, match=r"9 is no member of .*:OddFlag"):
        dumps(OddFlag(9))
