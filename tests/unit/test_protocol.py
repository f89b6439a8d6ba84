"""Does a message look on the way as Celery's protocol 2 has it, and come out as it went in?"""

from __future__ import annotations

import json
import threading
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.message import Message
from django_tasks.protocol import (
    LARGEST,
    MALFORMED,
    RESERVED,
    dump_headers,
    dump_message,
    dump_rest,
    load_headers,
    load_message,
    malformed,
    pack,
    pack_rest,
    unpack,
    unpack_rest,
)
from tests.unit.messages import BARE, FULL


def content(message: Message) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in fields(Message)}


@pytest.mark.parametrize("message", [BARE, FULL], ids=["bare", "full"])
def test_what_is_packed_comes_out_as_it_was(message: Message):
    assert content(unpack(json.loads(json.dumps(pack(message))), message.body)) == content(message)
    assert content(load_message(dump_message(message))) == content(message)


def test_what_is_at_its_default_is_not_written():
    assert pack(BARE) == {"id": "id-1", "task": "shop.tasks.add", "queue": "default"}
    assert pack_rest(BARE) == {}
    assert dump_headers({}) == "{}"


VARIANTS = [
    {},
    {"args_repr": "(1, 'zwei')"},
    {"kwargs_repr": "{\"ö\\n\": '\\ud800'}"},
    {"args_repr": "()", "kwargs_repr": "{}", "origin": "gen1@here"},
    {"retries": 1},
    {"retries": True},
    {"ignore_result": True, "root_id": "r", "parent_id": "p", "shadow": ""},
    {"eta": datetime(2030, 1, 1, tzinfo=UTC)},
    {"expires": datetime(2030, 1, 1, tzinfo=UTC), "time_limit": 0},
    {"signature": "1:2:3"},
    {"group_id": "g", "group_index": 0},
    {"headers": {"tenant": "blue"}, "args_repr": "()"},
]


@pytest.mark.parametrize("said", VARIANTS, ids="-".join)
def test_headers_are_written_alike_whichever_way(said: dict[str, Any]):
    for message in (BARE, replace(BARE, **said), replace(BARE, **said, task="other"), FULL):
        assert dump_rest(message) == dump_headers(pack_rest(message))


def test_headers_that_cannot_be_sent_are_told_whichever_way():
    with pytest.raises(SerializationError, match="headers"):
        dump_rest(replace(BARE, headers={"queue": "the protocol's own"}))
    with pytest.raises(SerializationError, match="headers"):
        dump_rest(replace(BARE, headers={"tenant": object()}))


def test_names_are_those_of_celery():
    assert pack(FULL) == {
        "id": "id-2",
        "task": "shop.tasks.bill",
        "queue": "mail",
        "priority": -7,
        "created_at": "2029-01-01T00:00:00.000001+00:00",
        "argsrepr": "(1, 'zwei')",
        "kwargsrepr": "{'drei': 3}",
        "origin": "gen1@here",
        "retries": 2,
        "attempts": 5,
        "content_type": "application/x-msgpack",
        "content_encoding": "binary",
        "compression": "application/zstd",
        "eta": "2030-02-28T23:59:59.123456+05:45",
        "expires": "2090-01-01T00:00:00+00:00",
        "timelimit": [30.5, 20],
        "root_id": "root",
        "parent_id": "parent",
        "group": "group",
        "group_index": 0,
        "ignore_result": False,
        "shadow": "",
        "tenant": "blue",
        "": None,
        "nested": {"list": [1, 2.5, True]},
    }


def test_a_countdown_is_used_up_when_a_message_is_published():
    assert content(unpack(pack(replace(BARE, countdown=5.0)), BARE.body)) == content(BARE)


def test_one_limit_alone_travels_in_its_place():
    assert pack_rest(replace(BARE, soft_time_limit=3.0))["timelimit"] == [None, 3.0]
    assert unpack(pack(replace(BARE, time_limit=4.0)), b"").time_limit == 4.0


def test_the_headers_of_a_celery_client_are_read():
    envelope: dict[str, Any] = {
        "lang": "py",
        "task": "proj.add",
        "id": "1547",
        "shadow": None,
        "eta": "2026-11-20T15:51:15.802398+00:00",
        "expires": "2026-11-20T16:00:00",
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": "1547",
        "parent_id": None,
        "argsrepr": "(2, 2)",
        "kwargsrepr": "{}",
        "origin": "gen18580@vm",
        "ignore_result": False,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "custom": "x",
    }
    message = unpack(envelope, b"[[2,2],{},{}]")
    assert (message.id, message.task, message.queue, message.root_id) == ("1547", "proj.add", "default", "1547")
    assert message.eta == datetime(2026, 11, 20, 15, 51, 15, 802398, tzinfo=UTC)
    assert message.expires == datetime(2026, 11, 20, 16, tzinfo=UTC), "a time without a zone is UTC"
    assert (message.time_limit, message.soft_time_limit, message.ignore_result) == (None, None, False)
    assert message.headers == {
        "lang": "py",
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "custom": "x",
    }


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_callers_header_cannot_pass_for_one_of_the_protocol(name: str):
    with pytest.raises(SerializationError) as caught:
        pack(replace(BARE, headers={"fine": 1, name: "x"}))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "value", [threading.Lock(), float("nan"), {(1, 2): 3}, b"bytes"], ids=["lock", "nan", "key", "bytes"]
)
def test_headers_that_are_not_json_are_refused(value: object):
    with pytest.raises(SerializationError) as caught:
        dump_headers(pack_rest(replace(BARE, headers={"x": value})))
    assert caught.value.path == "headers"


def test_headers_that_hold_themselves_or_are_very_deep_are_refused():
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(SerializationError):
            dump_headers({"x": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retries", "3"),
        ("retries", -1),
        ("retries", True),
        ("retries", 2.0),
        ("attempts", LARGEST + 1),
        ("attempts", 10**20),
        ("eta", 5),
        ("eta", "tomorrow"),
        ("expires", {}),
        ("timelimit", 5),
        ("timelimit", [1]),
        ("timelimit", [1, 2, 3]),
        ("timelimit", ["1", None]),
        ("timelimit", [float("inf"), None]),
        ("timelimit", [True, None]),
        ("root_id", 7),
        ("group_index", "0"),
        ("ignore_result", 1),
        ("shadow", []),
        ("argsrepr", ["a"]),
        ("content_type", 1),
        ("id", 1),
        ("task", None),
        ("queue", ["q"]),
        ("priority", "high"),
        ("created_at", "?"),
    ],
)
def test_a_header_of_the_wrong_type_is_told(name: str, value: object):
    with pytest.raises(DecodeError):
        unpack({**pack(BARE), name: value}, b"")


@pytest.mark.parametrize("name", ["id", "task"])
def test_a_missing_name_is_told(name: str):
    envelope = pack(BARE)
    del envelope[name]
    with pytest.raises(DecodeError, match=name):
        unpack(envelope, b"")


@pytest.mark.parametrize("rest", [[], "text", 1, None])
def test_headers_that_are_no_object_are_told(rest: object):
    with pytest.raises(DecodeError):
        unpack_rest(rest, {"id": "i", "task": "t", "body": b""})


@pytest.mark.parametrize("text", ["", "{", "nope", "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "{} {}"])
def test_headers_that_are_not_json_are_told(text: str):
    with pytest.raises(DecodeError):
        unpack_rest(load_headers(text), {"id": "i", "task": "t", "body": b""})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"headers": {}, "body": ""}', '{"headers": 1, "body": ""}'])
def test_a_kept_message_that_is_none_is_told(text: str):
    with pytest.raises(DecodeError):
        load_message(text)


def test_a_kept_body_that_is_no_base64_is_told():
    text = dump_message(BARE).replace('"body":"', '"body":"*')
    with pytest.raises(DecodeError):
        load_message(text)


def test_a_malformed_message_says_so_and_keeps_what_was_found():
    message = malformed("id", "task", "queue", b"\xff raw")
    assert (message.id, message.task, message.queue, message.body) == ("id", "task", "queue", b"\xff raw")
    assert message.content_type == MALFORMED


texts = st.text(st.characters(), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
# Whole seconds, as zones have them: of less, Python's own `fromisoformat` makes UTC.
offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
# No zone with changes of its own: a time in a repeated hour equals no time of another zone, by PEP 495, not even the
# same instant, so what comes back could not be compared. Those have a test of their own.
moments = st.datetimes(timezones=offsets | st.just(UTC))
seconds = st.none() | st.floats(0, 1e9)
messages = st.builds(
    Message,
    id=texts,
    task=texts,
    body=st.binary(max_size=50),
    queue=texts,
    priority=st.integers(-100, 100),
    content_type=texts,
    content_encoding=texts,
    compression=st.none() | texts,
    eta=st.none() | moments,
    expires=st.none() | moments,
    retries=st.integers(0, LARGEST),
    attempts=st.integers(0, LARGEST),
    time_limit=seconds,
    soft_time_limit=seconds,
    ignore_result=st.none() | st.booleans(),
    root_id=st.none() | texts,
    parent_id=st.none() | texts,
    group_id=st.none() | texts,
    group_index=st.none() | st.integers(0, LARGEST),
    shadow=st.none() | texts,
    args_repr=texts,
    kwargs_repr=texts,
    origin=texts,
    created_at=st.none() | moments,
    headers=st.dictionaries(texts.filter(lambda name: name not in RESERVED), json_values, max_size=3),
)


@given(messages)
def test_any_message_comes_out_as_it_was_through_a_text_that_any_column_takes(message: Message):
    text = dump_message(message)
    assert text.isascii()
    assert "\x00" not in text
    assert content(load_message(text)) == content(message)


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_of_any_zone_comes_out_as_the_same_instant(moment: datetime):
    loaded = load_message(dump_message(replace(BARE, eta=moment))).eta
    assert loaded is not None
    assert instant(loaded) == instant(moment)


def instant(moment: datetime) -> timedelta:
    """Return the time since an epoch in UTC; a plain difference also reaches times that no zone of UTC can name."""
    offset = moment.utcoffset()
    assert offset is not None
    return moment.replace(tzinfo=None) - datetime(1970, 1, 1) - offset  # noqa: DTZ001
