"""Is a forged or foreign tag refused, and does no code run when a value is read?"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, Flag, IntFlag
from types import ModuleType
from typing import Any, Self

import pytest

from django_tasks.exceptions import DecodeError
from django_tasks.serializers import dumps, loads


class Color(Enum):
    RED = 1
    BLUE = 2


class Access(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    ONE = 1
    TWO = 2


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


@dataclass
class Sneaky:
    x: int

    stored = 5


Sneaky.x = property(lambda self: 5, lambda self, value: sys.exit("the setter ran"))  # type: ignore[assignment]


@dataclass
class Failing(Exception):
    code: int


def test_a_tag_is_seen_however_its_key_is_written():
    assert loads(rb'{"\u005f_type__":"tuple","__value__":[1]}') == (1,)
    assert loads(rb'{"__typ\u0065__":"tuple","__v\u0061lue__":[1]}') == (1,)


TAGGED: list[tuple[Any, Any, str]] = [
    ("datetime", "yesterday", "has a content that is no datetime"),
    ("datetime", None, "text was expected, found NoneType"),
    ("date", 5, "text was expected, found int"),
    ("time", "25:00", "hour"),
    ("decimal", "many", "is no decimal"),
    ("decimal", [0, [1], 0], "text was expected, found list"),
    ("uuid", {"int": 5}, "exactly hex was expected"),
    ("uuid", {"hex": "xyz"}, "badly formed"),
    ("uuid", {"hex": 5}, "text was expected"),
    ("bytes", 10**9, "text was expected, found int"),
    ("bytes", "\ud800", "is no bytes"),
    ("base64", "!", "is no base64"),
    ("base64", "é", "is no base64"),
    ("zoned_datetime", "2026-01-01", "an object with exactly iso, zone, fold was expected"),
    ("zoned_datetime", {"iso": "2026-01-01", "zone": "../../etc/passwd", "fold": 0}, "is no key of a time zone"),
    ("zoned_datetime", {"iso": "2026-01-01", "zone": "/etc/passwd", "fold": 0}, "is no key of a time zone"),
    ("zoned_datetime", {"iso": "2026-01-01", "zone": "Mars/Olympus", "fold": 0}, "knows no time zone 'Mars/Olympus'"),
    ("zoned_datetime", {"iso": "2026-01-01", "zone": "America", "fold": 0}, "knows no time zone 'America'"),
    ("zoned_datetime", {"iso": "2026-01-01", "zone": 5, "fold": 0}, "text was expected"),
    ("zoned_datetime", {"iso": "2026-01-01", "zone": None, "fold": 2}, "fold"),
    ("zoned_time", {"iso": "x", "zone": None, "fold": 0}, "is no zoned_time"),
    ("timedelta", [1, 2], "not enough values"),
    ("timedelta", [True, 2, 3], "three integers were expected"),
    ("timedelta", [10**30, 0, 0], "is no timedelta"),
    ("tuple", "ab", "a list was expected, found str"),
    ("set", [[]], "unhashable"),
    ("set", {"a": 1}, "a list was expected, found dict"),
    ("frozenset", [{}], "unhashable"),
    ("dict", ["ab"], "a list was expected, found str"),
    ("dict", [[1]], "not enough values"),
    ("dict", [[[], 1]], "unhashable"),
    ("int", "12", "hexadecimal digits were expected"),
    ("int", "0x1_0", "hexadecimal digits were expected"),
    ("int", 5, "text was expected"),
    ("float", "1.5", "nan, inf or -inf was expected"),
    ("float", [], "is no float"),
    ("str", "ab", "a list was expected"),
    ("str", [1], "text was expected"),
    ("enum", "x", "a list was expected"),
    ("enum", ["os:system", "x"], "'os:system' is not known in this process"),
    ("enum", ["antigravity:Fly", "UP"], "import its module in a tasks.py"),
    ("enum", ["decimal:Decimal", "x"], "is no Enum here"),
    ("enum", [f"{__name__}:Color", "GREEN"], "has no member 'GREEN' here"),
    ("enum", [f"{__name__}:Color", "__class__"], "has no member '__class__' here"),
    ("enum", [f"{__name__}:Color", ["RED", "BLUE"]], "is no Flag here"),
    ("enum", [f"{__name__}:Access", ["READ", "FLY"]], "has no member 'FLY' here"),
    ("enum", [f"{__name__}:Access", 3], "a list was expected"),
    ("enum", [5, "x"], "text was expected"),
    ("dataclass", {"class": "os:system", "fields": {}}, "is not known in this process"),
    ("dataclass", {"class": "subprocess:Popen", "fields": {"args": "id"}}, "is no dataclass here"),
    ("dataclass", {"class": f"{__name__}:Color", "fields": {}}, "is no dataclass here"),
    ("dataclass", {"class": f"{__name__}:Point.__class__", "fields": {}}, "is not known in this process"),
    ("dataclass", {"class": f"{__name__}:Point", "fields": {"x": 1, "z": 2}}, "has no field 'z' here"),
    ("dataclass", {"class": f"{__name__}:Point", "fields": {}}, "the field x of .* was not sent"),
    ("dataclass", {"class": f"{__name__}:Point", "fields": []}, "the fields are no object"),
    ("dataclass", {"class": f"{__name__}:Failing", "fields": {"code": 1}}, "is no dataclass"),
    ("dataclass", {"class": f"{__name__}:Sneaky", "fields": {"x": 1}}, "which cannot be set unseen"),
    ("exception", ["os", "system"], "type tag 'exception', which is not known here"),
    (None, 1, "type tag 'None', which is not known here"),
    ([], 1, "which is not known here"),
]


@pytest.mark.parametrize(("tag", "content", "words"), TAGGED)
def test_a_tag_with_a_content_that_it_cannot_have_is_a_decode_error(tag, content, words):
    data = json.dumps([{"__type__": tag, "__value__": content}]).encode()
    with pytest.raises(DecodeError, match=words):
        loads(data)
    assert "antigravity" not in sys.modules


def test_no_code_of_a_dataclass_runs_when_it_is_read():
    data = dumps(Loud(3))
    Loud.calls = 0
    back = loads(data)
    assert Loud.calls == 0
    assert (back.x, back.doubled) == (3, 6)


def test_a_module_that_loads_when_touched_is_not_touched(monkeypatch):
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("the module was touched")

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy("lazy_module"))
    with pytest.raises(DecodeError, match="is not known in this process"):
        loads(b'{"__type__":"enum","__value__":["lazy_module:X","Y"]}')


def test_a_field_added_since_takes_its_default():
    data = (
        b'{"__type__":"dataclass","__value__":{"class":"%s:Line","fields":{"sku":"x","price":1}}}' % __name__.encode()
    )
    assert loads(data) == Line("x", 1, None, [])  # type: ignore[arg-type]


def test_a_flag_with_a_lookup_of_its_own_is_combined_without_it(monkeypatch):
    data = dumps(Bits.ONE | Bits.TWO)
    monkeypatch.setattr(Bits, "_missing_", classmethod(lambda cls, value: pytest.fail("it ran")))
    Bits._value2member_map_.pop(3)
    assert loads(data) == 3
