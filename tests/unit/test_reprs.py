"""Is a value shown without harm: bounded, printable, and with its secrets left out?"""

from __future__ import annotations

import inspect
import math
import threading
import uuid
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, IntFlag
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.hashers import make_password
from django.db import models
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString

from django_tasks.reprs import redacted_call, safe_repr, storable_text


class Ran(BaseException):
    """Code of a hostile class ran."""


class Hostile:
    """Raises whenever it is asked for anything."""

    def __getattribute__(self, name: str) -> Any:
        raise Ran(name)

    def _raise(self, *args: object) -> Any:
        raise Ran

    __repr__ = __str__ = __len__ = __iter__ = __eq__ = __bool__ = __format__ = __reduce__ = _raise
    __hash__ = None  # type: ignore[assignment]


class HostileMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise Ran(name)

    def __repr__(cls) -> str:
        raise Ran


def hostile_class() -> type:
    # Not at the top of the module, where pytest looks at everything.
    return HostileMeta("HostileClass", (), {})


class HostileText(str):  # noqa: SLOT000
    def __getitem__(self, key: Any) -> Any:
        raise Ran

    __repr__ = __str__ = __len__ = __iter__ = __getitem__  # type: ignore[assignment]


class HostileList(list[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1

    def __len__(self) -> int:
        raise Ran

    def __repr__(self) -> str:
        raise Ran


class HostileDict(dict[str, int]):
    def items(self) -> Any:
        raise Ran

    __repr__ = __iter__ = __len__ = items


class Color(Enum):
    RED = 1

    def __repr__(self) -> str:
        raise Ran


class Bits(IntFlag):
    ONE = 1
    TWO = 2


@dataclass
class Card:
    owner: str
    api_key: str = "canary"
    note: str = field(default="unseen", repr=False)


@dataclass
class Guarded:
    pin: str

    def __repr__(self) -> str:
        return "Guarded()"


@dataclass(repr=False)
class Unshown:
    pin: str


Pair = namedtuple("Pair", "left password")  # noqa: PYI024


class Note(models.Model):  # noqa: DJ008
    text = models.TextField()

    class Meta:
        app_label = "notes"
        managed = False

    def __repr__(self) -> str:
        raise Ran


class Moon(tzinfo):
    def __repr__(self) -> str:
        raise Ran

    utcoffset = dst = tzname = __repr__  # type: ignore[assignment]


class Broken(Exception):
    def __repr__(self) -> str:
        raise Ran


EXACT = [
    None,
    True,
    -12,
    2**2048 - 1,
    1.5,
    -0.0,
    math.nan,
    math.inf,
    1j,
    "",
    "it's",
    "both ' and \"",
    "é😀",
    "\x00\x1b[31m\n\r\t\x7f\x9b\u202e\u2028\ud800",
    b"",
    b"\x00a",
    bytearray(b"a"),
    [],
    [1, [2]],
    (),
    (1,),
    (1, 2),
    {},
    {"a": {1: None}},
    {1},
    set(),
    {1: (2,), "b": [3.0]},
    Decimal("1.50"),
    uuid.UUID(int=1),
    datetime(2026, 1, 2, 3, tzinfo=UTC),
    datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
    time(1),
    timedelta(1),
]


@pytest.mark.parametrize("value", EXACT, ids=lambda value: ascii(value)[:40])
def test_plain_values_look_as_python_shows_them(value):
    assert safe_repr(value) == repr(value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: frozenset({1}), "frozenset({1})"),
        (lambda: 2**2048, "<int of 2,049 bits>"),
        (lambda: 10**100_000, "<int of 332,193 bits>"),
        (lambda: Decimal("1" * 5000), "<Decimal of "),
        (lambda: SafeString("<b>"), "'<b>'"),
        (lambda: HostileText("abc"), "'abc'"),
        (lambda: HostileList([7]), "[7]"),
        (lambda: HostileDict(a=1), "{'a': 1}"),
        (lambda: OrderedDict(a=1), "{'a': 1}"),
        (lambda: defaultdict(list, a=[1]), "{'a': [1]}"),
        (lambda: Color.RED, "<Color.RED>"),
        (lambda: Bits.ONE | Bits.TWO, "<Bits.ONE|TWO>"),
        (lambda: Card("me"), "Card(owner='me', api_key='canary')"),
        (lambda: Guarded("1234"), "Guarded object>"),
        (lambda: Unshown("1234"), "Unshown object>"),
        (lambda: Pair(1, "x"), "Pair(left=1, password='x')"),
        (lambda: Note(pk=5, text="canary"), "<notes.Note: 5>"),
        (Note, "<notes.Note: None>"),
        (Note._default_manager.all, "<django.db.models.query.QuerySet object>"),
        (lambda: SimpleLazyObject(Hostile), "<django.utils.functional.SimpleLazyObject object>"),
        (lambda: Broken("a", [1]), "Broken('a', [1])"),
        (lambda: KeyError("x"), "KeyError('x')"),
        (lambda: datetime(2026, 1, 2, tzinfo=Moon()), "<datetime.datetime(2026, 1, 2, 0, 0) in "),
        (Hostile, ".Hostile object>"),
        (lambda: object.__new__(hostile_class()), ".HostileClass object>"),
        (hostile_class, ".HostileClass>"),
        (lambda: int, "<class int>"),
        (lambda: make_password, "<function django.contrib.auth.hashers.make_password>"),
        (lambda: deque([1]), "<collections.deque object>"),
        (lambda: Path("/x"), "object>"),
        (threading.Lock, "lock object>"),
        (type("evil\x1b[31m\n", (), {}), "evil\\x1b[31m\\n object>"),
    ],
    ids=range(32),
)
def test_other_values_are_told_from_their_parts_and_none_of_their_code_runs(make, text):
    value = make()
    shown = safe_repr(value)
    assert text in shown
    assert shown.isprintable()
    assert text in safe_repr([value])


def test_a_composite_key_is_shown_whole(monkeypatch):
    class Field:
        def __init__(self, attname: str) -> None:
            self.attname = attname

    monkeypatch.setattr(Note._meta, "pk_fields", [Field("id"), Field("text")], raising=False)
    assert safe_repr(Note(pk=5, text="x")) == "<notes.Note: 5, 'x'>"


def test_a_hostile_iterator_is_not_asked():
    assert safe_repr(iter(HostileList([1]))) == "<generator object>"


def test_length_is_bounded_and_the_cut_is_marked():
    for value in ("x" * 100, [1] * 100, {"a" * 50: "b" * 50}, b"x" * 100, Card("x" * 100), [["x" * 9] * 9] * 9):
        for limit in range(70):
            shown = safe_repr(value, limit=limit)
            assert len(shown) == limit
            assert limit <= 3 or shown.endswith("...")
    assert safe_repr("x" * 8, limit=10) == "'xxxxxxxx'"
    assert safe_repr("x" * 9, limit=10) == "'xxxxxx..."


def test_a_huge_value_is_not_written_out():
    class Counted(str):  # noqa: SLOT000
        seen = 0

        def __repr__(self) -> str:
            Counted.seen += 1
            return "c"

    huge = Counted("x" * 10_000_000)
    assert len(safe_repr({"a": [huge]})) == 1024
    assert len(safe_repr([huge] * 1_000_000)) == 1024
    assert len(safe_repr(dict.fromkeys(range(1_000_000)))) == 1024
    assert len(safe_repr(set(range(1_000_000)))) == 1024
    assert len(safe_repr(bytearray(100_000_000))) == 1024
    assert len(safe_repr(range(10**30))) < 30
    assert Counted.seen == 0


def test_depth_is_bounded():
    assert safe_repr([[[[1]]]]) == "[[[[...]]]]"
    assert safe_repr([[[[]]]]) == "[[[[]]]]"
    assert safe_repr({"a": {"b": {"c": {"d": 1}}}}) == "{'a': {'b': {'c': {...}}}}"
    assert safe_repr(({1: frozenset({(1,)})},)) == "({1: frozenset({(...,)})},)"
    assert safe_repr([1, (2,)], depth=0) == "[...]"
    assert safe_repr(Card("x"), depth=0) == "Card(...)"
    ring: list[Any] = [1]
    ring.append(ring)
    assert safe_repr(ring) == "[1, [1, [1, [...]]]]"
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert safe_repr(deep) == "[[[[...]]]]"
    assert len(safe_repr(deep, depth=10**9)) <= 1024


def call(function: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
    return redacted_call(inspect.signature(function), args, kwargs)


def test_a_call_is_shown_as_python_shows_its_arguments():
    def add(x: int, y: int) -> None: ...

    assert call(add, 2, 3) == ("(2, 3)", "{}")
    assert call(add, 2, y=3) == ("(2,)", "{'y': 3}")
    assert call(add) == ("()", "{}")
    assert redacted_call(None, (1, "a"), {"b": [2]}) == ("(1, 'a')", "{'b': [2]}")


def test_secrets_are_left_out_wherever_they_stand():
    def login(user: str, password: str, /, *tokens: str, api_key: str = "", **rest: Any) -> None: ...

    shown = call(login, "me", "canary", "canary", "canary", api_key="canary", auth={"x": 1}, user="you")
    hidden = "'********'"
    assert shown == (
        f"('me', {hidden}, {hidden}, {hidden})",
        f"{{'api_key': {hidden}, 'auth': {hidden}, 'user': 'you'}}",
    )
    nested = {"config": [{"db": {"PASSWORD": "canary", b"token": "canary", "name": "x"}}]}
    for place in call(login, nested), call(login, x=nested), call(login, Card("me")), call(login, [Pair(1, "canary")]):
        assert "canary" not in "".join(place)
        assert hidden in "".join(place) or "..." in "".join(place)
    assert call(login, Card("me"))[0] == f"(Card(owner='me', api_key={hidden}),)"
    assert "canary" in safe_repr(nested, depth=5), "only calls are redacted"


def test_more_arguments_than_parameters_are_shown_unnamed():
    def one(x: int) -> None: ...

    assert call(one, 1, 2, 3)[0] == "(1, 2, 3)"


def test_a_call_is_bounded():
    args, kwargs = redacted_call(None, ("x" * 5000,), {"y": "x" * 5000}, limit=50)
    assert len(args) == len(kwargs) == 50
    assert args.endswith("...")


def test_text_is_made_storable_and_says_what_was_escaped():
    assert storable_text("a\tb\r\nc é😀", 100) == "a\tb\r\nc é😀"
    assert storable_text("\x00\ud800\x1b[31m\x9b\x7f", 100) == "\\x00\\ud800\\x1b[31m\\x9b\\x7f"
    assert storable_text(HostileText("a\x00"), 100) == "a\\x00"
    assert type(storable_text(SafeString("a"), 100)) is str


def test_text_that_is_cut_says_so_and_keeps_both_ends():
    cut = storable_text("a" * 5000 + "z" * 5000, 100)
    assert len(cut) == 100
    assert cut == "a" * 61 + "... [cut: 10,000 characters in all] ..."
    cut = storable_text("a" * 5000 + "z" * 5000, 100, tail=30)
    assert len(cut) == 100
    assert cut == "a" * 31 + "... [cut: 10,000 characters in all] ..." + "z" * 30
    assert storable_text("a" * 50, 10) == "a" * 10
    assert storable_text("\x00" * 50, 100, tail=20).endswith("\\x00" * 5)
    assert len(storable_text("\x00" * 50, 100, tail=20)) <= 100
