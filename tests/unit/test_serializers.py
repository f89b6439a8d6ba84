"""Are the limits kept both ways, and is a body what a Celery worker expects?"""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.serializers import LIMITS, Limits, decode_body, dumps, encode_body, loads, serializer


def nested(depth: int, innermost: object = 0) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_limited_when_encoding():
    assert loads(dumps(nested(100))) == nested(100)
    for depth in (101, 100_000):
        with pytest.raises(SerializationError) as caught:
            dumps(nested(depth))
        assert caught.value.reason == "nested 101 levels deep or more; the limit is 100"
    # A tuple takes two levels of JSON.
    with pytest.raises(SerializationError, match="nested 101 levels deep; the limit is 100"):
        dumps(nested(99, ()))
    deep: Any = {"a": 1}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(SerializationError, match="the limit is 100"):
        dumps(deep)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000,
        b'"]]]]]]]]]]"' + b"[" * 101 + b"]" * 101,
        b'["' + b"]" * 200 + b'",' + b"[" * 100 + b"]" * 101,
        b'["\\"",' + b"[" * 100 + b"]" * 101,
        b'["\\\\",' + b"[" * 100 + b"]" * 101,
        b"[[],[[],[],{}]," + b"[" * 100 + b"]" * 101,
    ],
    ids=range(9),
)
def test_depth_is_limited_before_data_is_parsed(data):
    with pytest.raises(DecodeError, match=r"^nested [\d,]+ levels deep; the limit is 100$"):
        loads(data)


def test_brackets_in_strings_and_width_are_not_depth():
    value: Any
    for value in (
        ["[" * 500],
        ['"' + "[" * 500],
        ["\\" * 7 + '"' + "{" * 500],
        [[]] * 500,
        {"[" * 500: {}},
        nested(100),
    ):
        assert loads(dumps(value)) == value


def test_the_check_of_depth_is_quick_on_hostile_data():
    for data in (
        b'\\"' * 500_000,
        b'"' * 1_000_000,
        b'"\\' * 500_000,
        b"[]" * 500_000,
        b"[" * 1_000_000,
        b"]" * 1_000_000,
    ):
        with pytest.raises(DecodeError):
            loads(data)


def test_bytes_are_limited_both_ways():
    with pytest.raises(SerializationError) as caught:
        dumps("x" * LIMITS.bytes, root="args[0]")
    reason = "1,048,578 bytes; the limit is 1,048,576; store the data and pass a reference to it"
    assert str(caught.value) == f"args[0]: {reason}"
    with pytest.raises(DecodeError, match=r"^1,048,578 bytes; the limit is 1,048,576$"):
        loads(b'"' + b"x" * LIMITS.bytes + b'"')
    assert len(loads(dumps("x" * (LIMITS.bytes - 2)))) == LIMITS.bytes - 2


def test_the_number_of_values_is_limited_both_ways():
    few = Limits(nodes=10, bytes=1000)
    assert loads(dumps([0] * 9, limits=few), few) == [0] * 9
    assert loads(b" [ [ ] , { } ,\n1,2,3,4,5,6,7 ] ", few) == [[], {}, 1, 2, 3, 4, 5, 6, 7]
    for value in ([0] * 10, [[0] * 9], {"a": {str(each): each for each in range(9)}}, {(): list(range(9))}):
        with pytest.raises(SerializationError, match=r"values.*; the limit is 10;"):
            dumps(value, limits=few)
    for data in (b"[" + b"0,0," * 4 + b"0,0]", b'[{"a":0,"b,,[":0},0,0,0,[],{},0,0]'):
        with pytest.raises(DecodeError, match=r"^11 values; the limit is 10$"):
            loads(data, few)


def test_ten_million_items_are_refused_before_they_are_written():
    with pytest.raises(SerializationError, match="1,000,001 values or more; the limit is 1,000,000;"):
        dumps([None] * 10_000_000)
    shared: list[Any] = [0] * 100
    for _ in range(20):
        shared = [shared] * 100
    with pytest.raises(SerializationError, match="1,000,001 values or more"):
        dumps(shared)


def test_limits_beyond_the_stack_end_in_a_clean_error():
    endless = Limits(depth=10**9, nodes=10**9, bytes=10**9)
    with pytest.raises(SerializationError, match="nested deeper than Python's stack is at this place"):
        dumps(nested(500_000), limits=endless)
    with pytest.raises(DecodeError, match="not valid JSON"):
        loads(b"[" * 500_000 + b"]" * 500_000, endless)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nope",
        b"[1,]",
        b"[1] 2",
        b"[1",
        b'"a',
        b'"\x01"',
        b"\xff",
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1",
        b"1" * 5000,
        b"[1]\x00",
    ],
)
def test_what_is_not_json_is_a_decode_error(data):
    with pytest.raises(DecodeError, match="not valid JSON"):
        loads(data)


def test_white_space_and_other_buffers_are_read():
    assert loads(b' \n[1, {"a": 2}]\t') == [1, {"a": 2}]
    assert loads(memoryview(b"[1]")) == loads(bytearray(b"[1]")) == [1]  # type: ignore[arg-type]
    assert loads(b"1") == 1
    assert loads(b" null") is None


def test_of_duplicate_keys_the_last_counts():
    assert loads(b'{"a":1,"a":2}') == {"a": 2}
    assert loads(b'{"__type__":"x","__type__":"set","__value__":[1],"__value__":[2]}') == {2}


def test_a_body_has_celery_s_layout():
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    data = encode_body((2, 3), {"x": (1,)}, embed)
    assert data == (
        b'[[2,3],{"x":{"__type__":"tuple","__value__":[1]}},'
        b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
    )
    assert decode_body(data, "application/json") == ((2, 3), {"x": (1,)}, embed)
    assert decode_body(b"[[],{},null]") == ((), {}, {})
    strange = {"__type__": "set", "__value__": [1]}
    assert decode_body(encode_body((), strange, {})) == ((), strange, {})


@pytest.mark.parametrize(
    ("args", "kwargs", "embed", "path"),
    [
        ((1, print), {}, {}, "args[1]"),
        ((1, 2, {"items": {"x": print}}), {}, {}, "args[2]['items']['x']"),
        ((), {"x": [print]}, {}, "kwargs['x'][0]"),
        ((), {}, {"chain": [print]}, "embed['chain'][0]"),
        (("x" * 2_000_000,), {}, {}, "body"),
    ],
)
def test_a_refused_argument_is_named(args, kwargs, embed, path):
    with pytest.raises(SerializationError) as caught:
        encode_body(args, kwargs, embed)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[[],{}]",
        b"[[],{},{},{}]",
        b"[{},{},{}]",
        b"[[],[],{}]",
        b"[[],null,{}]",
        b'["ab",{},{}]',
        b"[[],{},[]]",
        b'[[],{"__type__":"dict","__value__":[[1,2]]},{}]',
        b'{"__type__":"tuple","__value__":[[],{},{}]}',
    ],
)
def test_a_body_of_another_shape_is_a_decode_error(data):
    with pytest.raises(DecodeError):
        decode_body(data)


def test_a_content_type_that_is_not_known_is_refused_before_the_body_is_opened():
    for content_type in ("", "application/x-malformed"):
        with pytest.raises(DecodeError, match=r"is not read here; known: json \(application/json\), "):
            decode_body(b"{", content_type)


def test_a_pickle_is_not_opened_unless_its_signature_was_seen():
    for content_type in ("application/x-python-serialize", "pickle"):
        with pytest.raises(DecodeError, match="is only read with a signature"):
            decode_body(b"cos\nsystem\n(S'id'\ntR.", content_type)
    assert decode_body(encode_body((1,), {}, {}, serializer("pickle")), "pickle", verified=True) == ((1,), {}, {})


def test_a_serializer_is_found_by_name_and_by_content_type():
    found = serializer("json")
    assert found is serializer("application/json")
    assert (found.name, found.content_type, found.content_encoding) == ("json", "application/json", "utf-8")
    assert found.loads(found.dumps((1,))) == (1,)
