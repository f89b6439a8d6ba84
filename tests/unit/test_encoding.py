"""Does what a task is called with come back as it went?"""

# ruff: noqa: DTZ001, DTZ901  # naive datetimes are sent as well

from __future__ import annotations

import json
import math
import uuid
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from typing import Any, Self
from zoneinfo import ZoneInfo

import pytest
from django.db import models
from django.utils.functional import lazy
from django.utils.safestring import SafeString

from django_tasks.exceptions import SerializationError
from django_tasks.reprs import safe_repr
from django_tasks.serializers import dumps, loads


class Color(Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796  # an alias
    BLUE = 2


class Size(IntEnum):
    SMALL = 1


class Mood(StrEnum):
    GOOD = "good"


class Status(models.TextChoices):
    PAID = "p", "Paid"


class Access(Flag):
    READ = 1
    WRITE = 2
    ADMIN = 4


class Bits(IntFlag):
    ONE = 1
    TWO = 2


class Order:
    class Kind(Enum):
        GIFT = "gift"


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
class Loud:
    """Says so whenever code of its own runs."""

    x: int
    doubled: int = field(init=False, default=0)
    calls = 0

    def __new__(cls, *args: Any) -> Self:
        cls.calls += 1
        return super().__new__(cls)

    def __post_init__(self) -> None:
        type(self).calls += 1
        self.doubled = self.x * 2

    def __setattr__(self, name: str, value: object) -> None:
        type(self).calls += 1
        object.__setattr__(self, name, value)


def same(value: object, other: object) -> bool:  # noqa: PLR0911
    """Tell whether two values are equal, and of equal types all the way down."""
    if type(value) is not type(other):
        return False
    match value, other:
        case (float(), float()):
            return value.hex() == other.hex()
        case (list() | tuple(), list() | tuple()):
            return len(value) == len(other) and all(map(same, value, other))
        case (dict(), dict()):
            return same(list(value.items()), list(other.items()))
        case (datetime() | time(), datetime() | time()):
            zones = [getattr(each.tzinfo, "key", None) for each in (value, other)]
            offsets = [each.utcoffset() for each in (value, other)]
            walls = [each.replace(tzinfo=None) for each in (value, other)]
            return len({*zones}) == len({*offsets}) == len({*walls}) == 1 and value.fold == other.fold
        case (Decimal(), Decimal()):
            return str(value) == str(other)
    return value == other


BERLIN = ZoneInfo("Europe/Berlin")
HUGE = 7**6000

VALUES = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 + 1,
    -(2**2047),
    2**2048 - 1,
    2**2048,
    -(2**2048),
    HUGE,
    -HUGE,
    0.1,
    -0.0,
    1e308,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "a",
    "naïve 文字 한국어",
    "NUL \x00 in text",
    "emoji 😀 \U0010ffff",
    "lone \ud800 surrogate",
    "\udc00",
    "a pair in two halves: \ud83d\ude00, again \ud83d\ude00",
    "\ud83d\ud83d\ude00\ude00",
    "\\ud83d\\ude00 as text",
    '"quoted" [brackets] {braces} \\ " \\" \\\\',
    [],
    [1, [2, [3]]],
    {},
    {"a": {"b": [None]}},
    {"": 1, "\x00": 2, "\ud800": 3, "\ud83d\ude00": 4, "😀": 5},
    (),
    (1, (2,), [3]),
    [(1, 2)],
    set(),
    {1, 2.5, (2, 3)},
    frozenset({frozenset({1}), None}),
    {1: "a", None: "b", (1, 2): "c", 1.5: "d", False: "e", Color.RED: "f", date(2026, 1, 2): "g"},
    {"__type__": "datetime", "__value__": "2026-01-01"},
    {"__type__": "dataclass", "__value__": {"class": "os:system", "fields": {}}},
    {"__type__": 1},
    {"__type__": 1, "x": 2},
    {"__type__": 1, "__value__": 2, "x": 3},
    {"__value__": {"__type__": "set", "__value__": [{"__type__": "x", "__value__": None}]}},
    [{"__type__": {"__type__": "dict", "__value__": []}, "__value__": []}],
    b"",
    b"text",
    "é".encode(),
    b"\xff\x00\xfe",
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("NaN"),
    Decimal("sNaN123"),
    Decimal("-Infinity"),
    Decimal("1E+1000"),
    Decimal("123456789" * 20),
    uuid.UUID(int=0),
    uuid.UUID("9d1b7f3e-52c8-4f0a-8f6d-0b7e51c4a2d9"),
    date.min,
    date.max,
    datetime.min,
    datetime.max,
    datetime(2026, 7, 8, 9, 10, 11, 123456),
    datetime(2026, 7, 8, 9, 10, fold=1),
    datetime(2026, 7, 8, tzinfo=UTC),
    datetime(2026, 7, 8, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(2026, 7, 8, tzinfo=timezone(timedelta(seconds=-2, microseconds=5))),
    datetime(2026, 7, 8, 12, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN),
    datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")),
    datetime(1800, 1, 1, tzinfo=ZoneInfo("Pacific/Chatham")),
    time(1, 2, 3, 4),
    time(1, 2, fold=1),
    time(1, 2, tzinfo=UTC),
    time(1, 2, tzinfo=BERLIN),
    timedelta(0),
    timedelta.min,
    timedelta.max,
    timedelta(days=-1, microseconds=1),
    Color.RED,
    Color.CRIMSON,
    Size.SMALL,
    Mood.GOOD,
    Status.PAID,
    Order.Kind.GIFT,
    Access.READ,
    Access.READ | Access.ADMIN,
    Access(0),
    Bits.ONE | Bits.TWO,
    Line("x", Decimal("9.90"), datetime(2026, 1, 1, tzinfo=UTC), ["a"]),
    Point(1, 2),
    {Point(1): [Point(2)]},
    Point(Point(1, 2), {"__type__": 1, "__value__": 2}),  # type: ignore[arg-type]
    Loud(3),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(safe_repr(value, limit=60)))
def test_values_come_back_as_they_went(value):
    data = dumps(value)
    assert data.isascii()
    assert b"\x00" not in data
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"), parse_int=str)
    assert same(loads(data), value)
    assert same(loads(dumps([value, {"x": value}])), [value, {"x": value}])


def test_plain_values_are_plain_json():
    value: list[Any] = [None, True, 1, 1.5, "é", [{"a": {}}], {"__type__": 1, "a": 2}]
    assert json.loads(dumps(value)) == value
    assert dumps([[2, 3], {}]) == b"[[2,3],{}]"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (SafeString("<b>"), "<b>"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, {"a": [1]}), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        ({SafeString("k"): 1}, {"k": 1}),
        (type("MyInt", (int,), {})(5), 5),
        (type("MyFloat", (float,), {})(5.5), 5.5),
        (type("MyBytes", (bytes,), {})(b"x"), b"x"),
        (type("MyList", (list,), {})([1]), [1]),
        (type("MySet", (set,), {})({1}), {1}),
        (type("MyDate", (date,), {})(2026, 1, 2), date(2026, 1, 2)),
        (type("MyDatetime", (datetime,), {})(2026, 1, 2, fold=1), datetime(2026, 1, 2, fold=1)),
        (type("MyTime", (time,), {})(3), time(3)),
        (type("MyDelta", (timedelta,), {})(3), timedelta(3)),
        (type("MyDecimal", (Decimal,), {})("1.50"), Decimal("1.50")),
        (type("MyUUID", (uuid.UUID,), {})(int=5), uuid.UUID(int=5)),
        (lazy(lambda: "later", str)(), "later"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_of_a_plain_type_comes_back_as_the_plain_type(value, plain):
    assert same(loads(dumps(value)), plain)
    assert same(loads(dumps([value])), [plain])


def test_an_ordered_dict_keeps_its_own_order():
    value = OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert list(loads(dumps(value))) == ["b", "a"]


def test_a_zone_without_a_key_comes_back_as_the_offset_it_had():
    class Summer(tzinfo):
        def tzname(self, dt: datetime | None) -> str:
            return "summer"

        def utcoffset(self, dt: datetime | None) -> timedelta | None:
            return None if dt is None else timedelta(hours=2)

        def dst(self, dt: datetime | None) -> timedelta:
            return timedelta(0)

    value = datetime(2026, 7, 8, 9, fold=1, tzinfo=Summer())
    back = loads(dumps(value))
    assert back == value
    assert back.fold == 1
    assert back.utcoffset() == timedelta(hours=2)
    with pytest.raises(SerializationError, match="tells no offset"):
        dumps(time(1, tzinfo=Summer()))
    with pytest.raises(SerializationError, match="a fraction of a second"):
        dumps(datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=-5))))


def test_a_time_zone_that_raises_is_refused():
    class Broken(tzinfo):
        def tzname(self, dt: datetime | None) -> str:
            raise OSError

        dst = tzname  # type: ignore[assignment]

        def utcoffset(self, dt: datetime | None) -> timedelta:
            raise OSError

    with pytest.raises(SerializationError, match=r"^value\[0\]: its time zone cannot tell the offset: OSError"):
        dumps([datetime(2026, 1, 1, tzinfo=Broken())])


BERLIN_NOON = datetime(2026, 7, 8, 12, tzinfo=BERLIN)
KOMBU = [
    (datetime(2026, 7, 8, 9, tzinfo=UTC), {"__type__": "datetime", "__value__": "2026-07-08T09:00:00+00:00"}),
    (datetime(2026, 7, 8, 9), {"__type__": "datetime", "__value__": "2026-07-08T09:00:00"}),
    (date(2026, 7, 8), {"__type__": "date", "__value__": "2026-07-08"}),
    (time(9, 10, 11, 12), {"__type__": "time", "__value__": "09:10:11.000012"}),
    (Decimal("1.10"), {"__type__": "decimal", "__value__": "1.10"}),
    (uuid.UUID(int=5), {"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}}),
    (b"text", {"__type__": "bytes", "__value__": "text"}),
    (b"\xff", {"__type__": "base64", "__value__": "/w=="}),
    ({"__type__": 1}, {"__type__": 1}),
    (2**64, 2**64),
]


@pytest.mark.parametrize(("value", "tagged"), KOMBU, ids=lambda each: type(each).__name__)
def test_what_kombu_has_a_form_for_is_written_and_read_in_that_form(value, tagged):
    assert json.loads(dumps(value)) == tagged
    assert same(loads(json.dumps(tagged).encode()), value)


def test_numbers_that_kombu_writes_past_json_are_read():
    assert loads(b"[Infinity,-Infinity]") == [math.inf, -math.inf]
    assert math.isnan(loads(b"NaN"))


UNKNOWN_TO_KOMBU = [(1,), {1}, timedelta(1), Color.RED, Point(1), math.nan, {1: 2}, 10**5000, BERLIN_NOON]


@pytest.mark.parametrize("value", UNKNOWN_TO_KOMBU, ids=lambda each: type(each).__name__)
def test_what_kombu_has_no_form_for_is_tagged_so_that_a_celery_worker_refuses_it(value):
    tagged = json.loads(dumps(value))
    assert tagged.keys() == {"__type__", "__value__"}
    assert tagged["__type__"] not in {"datetime", "date", "time", "decimal", "uuid", "bytes", "base64"}
