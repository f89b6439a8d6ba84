"""Are small bodies that stand for huge values refused before the values are made?"""

from __future__ import annotations

import msgpack
import pytest
import yaml

from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.serializers import Limits, serializer

LIMITS = Limits(depth=5, nodes=20, bytes=400)
TAG = "__type__"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xdd\xff\xff\xff\xff", "ends too soon"),
        (b"\xdf\xff\xff\xff\xff", "ends too soon"),
        (b"\xdb\xff\xff\xff\xff", "ends too soon"),
        (b"\xdc\x01\x00" + b"\xc0" * 256, "256 values|257 values"),
        (b"\xde\x00\x20" + b"\xa1a\xc0" * 32, "33 values"),
        (b"\x91" * 300 + b"\xc0", "nested 6 levels"),
        (b"\xdd\x00\x00\x00\x0a" * 6 + b"\xc0" * 60, "values or more|nested"),
        (b"\xc7\x05\x2atouch", "extensions are not read"),
        (b"\xd6\xff\x00\x00\x00\x01", "extensions are not read"),
        (b"\xc1", "extensions are not read"),
        (b"\xc0\xc0", "behind the value"),
        (b"", "ends too soon"),
        (b"\xa1", "ends too soon|not valid"),
        (b"\xc4\xff" + b"x" * 500, "the limit is 400"),
    ],
    ids=range(14),
)
def test_msgpack_that_claims_too_much_is_refused(data, words):
    with pytest.raises(DecodeError, match=words):
        serializer("msgpack").loads(data, LIMITS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchor"),
        (b"&a [*a]", "anchor"),
        (b"[*a]", "anchor"),
        (b"[" * 390, "nested 6 levels"),
        (b"- " * 190 + b"x", "nested 6 levels"),
        (b"[" + b"x," * 30 + b"]", "21 values"),
        (b"!!python/object/apply:os.system ['touch pwned']", "not valid YAML"),
        (b"!!python/name:os.system", "not valid YAML"),
        (b"1:" + b"1:" * 180 + b"1", None),
        (b"x" * 401, "the limit is 400"),
        (b"2001-99-99", "not valid YAML"),
        (b"--- 1\n--- 2", "not valid YAML"),
        (b"{__type__: enum, __value__: 'os:system'}", "tagged 'enum'"),
    ],
    ids=range(13),
)
def test_yaml_that_stands_for_too_much_or_for_objects_is_refused(data, words):
    if words is None:  # short enough to be read
        assert isinstance(serializer("yaml").loads(data, LIMITS), int)
        return
    with pytest.raises(DecodeError, match=words):
        serializer("yaml").loads(data, LIMITS)


def test_long_integers_of_yaml_are_refused_where_they_take_quadratic_time():
    with pytest.raises(DecodeError, match="an integer of 200,001 characters"):
        serializer("yaml").loads(b"1:" * 100_000 + b"1")


@pytest.mark.parametrize("name", ["msgpack", "yaml"])
def test_limits_are_kept_when_sending(name):
    form = serializer(name)
    for value, words in (([[[[[[]]]]]], "nested"), ([0] * 20, "values"), ("x" * 400, "the limit is 400")):
        with pytest.raises(SerializationError, match=words):
            form.dumps(value, limits=LIMITS)
    assert form.loads(form.dumps([0] * 19, limits=LIMITS), LIMITS) == [0] * 19
    assert form.loads(form.dumps([[[[[]]]]], limits=LIMITS), LIMITS) == [[[[[]]]]]


def test_other_programs_read_what_we_write_and_we_read_theirs():
    value = {"a": [1, 2.5, None, True, "ü"], "b": b"\x00\xff"}
    assert msgpack.unpackb(serializer("msgpack").dumps(value)) == value
    assert serializer("msgpack").loads(msgpack.packb(value)) == value
    assert serializer("yaml").loads(yaml.safe_dump(value).encode()) == value
    assert yaml.safe_load(serializer("yaml").dumps({"a": value["a"]})) == {"a": value["a"]}
