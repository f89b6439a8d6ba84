"""Does a message look on AMQP as Celery 5.7 puts it there, and is whatever comes from there read?"""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from kombu.utils import json as kombu_json

from django_tasks.exceptions import SerializationError
from django_tasks.message import Message, valid_id
from django_tasks.protocol import MALFORMED
from django_tasks.serializers import decode_body, encode_body
from django_tasks.wire import (
    DUE,
    EXTRA,
    SEEN,
    WAY,
    Wire,
    deliveries_of,
    due_of,
    from_wire,
    level,
    seen_of,
    to_wire,
    way_of,
)
from tests.unit import messages
from tests.unit.messages import BARE

FULL = replace(
    messages.FULL,
    headers={"tenant": "blue", "nested": {"list": [1, 2.5, True]}, "reply_to": "here", "stamps": {"a": 1}},
)


def content(message: Message) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in fields(Message)}


@pytest.fixture
def celery() -> Celery:
    return Celery(set_as_current=False)


def sent_by_celery(app: Celery, **options: Any) -> Wire:
    """Return what Celery hands to its driver."""
    message = app.amqp.as_task_v2("id-1", "shop.tasks.add", args=(2, 2), **options)
    properties = {"content_type": "application/json", "content_encoding": "utf-8", **message.properties}
    return Wire({**message.headers}, properties, json.dumps(message.body).encode())


@pytest.mark.parametrize("message", [BARE, FULL], ids=["bare", "full"])
def test_a_message_comes_out_as_it_went_in(message: Message):
    assert content(from_wire(to_wire(message), message.queue)) == content(message)


def test_all_of_celerys_headers_are_there_with_celerys_values(celery: Celery):
    expected = sent_by_celery(celery, argsrepr="", kwargsrepr="", origin="here", ignore_result=None)
    found = to_wire(replace(BARE, origin="here"))
    assert {name: found.headers.get(name, "missing") for name in expected.headers} == expected.headers
    assert set(found.headers) - set(expected.headers) == {"attempts", "created_at", "priority"}
    assert expected.properties.items() <= found.properties.items()
    assert found.properties["delivery_mode"] == 2


def test_what_is_said_stands_where_celery_puts_it(celery: Celery):
    expected = sent_by_celery(
        celery,
        eta=FULL.eta,
        expires=FULL.expires,
        group_id="group",
        group_index=0,
        retries=2,
        time_limit=30.5,
        soft_time_limit=20,
        root_id="root",
        parent_id="parent",
        shadow="",
        argsrepr=FULL.args_repr,
        kwargsrepr=FULL.kwargs_repr,
        origin="gen1@here",
        ignore_result=False,
        reply_to="here",
    )
    found = to_wire(replace(FULL, id="id-1", task="shop.tasks.add", headers={"reply_to": "here"}))
    assert {name: found.headers[name] for name in expected.headers} == expected.headers
    assert found.properties["reply_to"] == "here"
    assert "reply_to" not in found.headers


def test_what_celery_sends_is_read(celery: Celery):
    sent = sent_by_celery(celery, countdown=60, expires=600, retries=1, time_limit=9, reply_to="there", origin="o")
    found = from_wire(sent, "celery")
    assert (found.id, found.task, found.queue, found.retries) == ("id-1", "shop.tasks.add", "celery", 1)
    assert (found.time_limit, found.soft_time_limit, found.root_id) == (9, None, None)
    assert found.eta is not None
    assert found.expires is not None
    assert found.expires - found.eta == pytest.approx(timedelta(seconds=540), abs=timedelta(seconds=5))
    assert found.headers == {"reply_to": "there"}
    assert decode_body(found.body)[:2] == ((2, 2), {})


def test_stamps_and_headers_of_a_newer_version_are_kept_and_sent_on(celery: Celery):
    sent = sent_by_celery(celery, stamped_headers=["mark"], mark="red")
    sent.headers["novelty"] = {"deep": [1]}
    again = to_wire(from_wire(sent, "celery"))
    assert again.headers["stamps"] == {"mark": "red"}
    assert again.headers["stamped_headers"] == ["mark"]
    assert again.headers["novelty"] == {"deep": [1]}


def test_what_the_server_notes_on_a_message_that_waited_is_no_header_of_the_callers():
    wire = to_wire(replace(BARE, headers={"x-request-id": "7"}))
    died = {"queue": "default.delay.100", "count": 1, "time": datetime(2030, 1, 1, tzinfo=UTC)}
    wire.headers.update({"x-death": [died], "x-first-death-queue": "default.delay.100", "x-delivery-count": 2})
    message = from_wire(wire, "default")
    assert message.headers == {"x-request-id": "7"}
    # As a retry sends it.
    assert from_wire(to_wire(message), "default").headers == {"x-request-id": "7"}


def test_what_a_reader_changes_is_not_sent_again():
    wire = to_wire(FULL)
    from_wire(wire, "mail").headers["nested"]["list"].append(2)
    assert wire.headers["nested"] == {"list": [1, 2.5, True]}


@pytest.mark.parametrize(
    "value", ["lone \ud800 surrogate", 2**63, -(2**63) - 1, {"k" * 256: 1}, {"\udfff": 1}, [[{"a": ["\ud800"]}]]]
)
def test_a_header_that_amqp_cannot_carry_travels_as_json(value: Any):
    message = replace(BARE, headers={"odd": value, "even": 1})
    wire = to_wire(message)
    assert wire.headers["even"] == 1
    assert "odd" not in wire.headers
    assert json.loads(wire.headers[EXTRA]) == {"odd": value}
    assert from_wire(wire, "default").headers == message.headers


@pytest.mark.parametrize("value", [float("nan"), object(), {1: 2}.keys(), b"bytes"])
def test_a_header_that_is_no_json_is_refused(value: Any):
    with pytest.raises(SerializationError, match="headers"):
        to_wire(replace(BARE, headers={"odd": value}))


@pytest.mark.parametrize("name", ["id", "task", "eta", "timelimit", "priority", DUE, EXTRA])
def test_a_header_that_takes_the_protocols_name_is_refused(name: str):
    with pytest.raises(SerializationError, match="protocol"):
        to_wire(replace(BARE, headers={name: 1}))


def test_priorities_fall_on_ten_levels():
    levels = [level(priority) for priority in range(-100, 101)]
    assert levels == sorted(levels)
    assert (levels[0], levels[100], levels[200]) == (0, 4, 9)
    assert set(levels) == set(range(10))


@pytest.mark.parametrize(("number", "priority"), [(None, 0), (0, 0), (1, 11), (5, 55), (9, 100), (255, 100), (-1, 0)])
def test_a_priority_of_celerys_becomes_one_of_ours(celery: Celery, number: Any, priority: int):
    sent = sent_by_celery(celery)
    sent.properties["priority"] = number
    assert from_wire(sent, "celery").priority == priority


def test_an_expiry_is_told_in_milliseconds_where_there_is_room():
    soon = to_wire(replace(BARE, expires=datetime.now(UTC) + timedelta(seconds=10)))
    assert 9_000 < int(soon.properties["expiration"]) <= 10_000
    past = to_wire(replace(BARE, expires=datetime(2001, 1, 1, tzinfo=UTC)))
    assert past.properties["expiration"] == "0"
    assert "expiration" not in to_wire(replace(BARE, expires=datetime(2999, 1, 1, tzinfo=UTC))).properties


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": "white space"},
        {"id": "x" * 256},
        {"task": None},
        {"task": 7},
        {"task": "a\nb"},
        {"eta": "tomorrow"},
        {"retries": -1},
        {"retries": "2"},
        {"timelimit": 5},
        {"group_index": "first"},
        {"argsrepr": 5},
        {EXTRA: "not JSON"},
        {EXTRA: "[1]"},
    ],
    ids=str,
)
def test_what_cannot_be_read_becomes_a_message_that_says_so(change: dict[str, Any]):
    wire = to_wire(BARE)
    found = from_wire(Wire(wire.headers | change, wire.properties, b"raw"), "mail")
    assert (found.content_type, found.queue, found.body) == (MALFORMED, "mail", b"raw")
    assert found.id == "id-1"  # the correlation id says the same
    assert found.task in ("shop.tasks.add", "unreadable")


@pytest.mark.parametrize("properties", [{}, {"correlation_id": "no good"}, {"correlation_id": 7}])
def test_a_message_without_any_id_gets_one(properties: dict[str, Any]):
    found = from_wire(Wire({}, properties, b'{"task": "protocol.one"}'), "celery")
    assert found.content_type == MALFORMED
    assert valid_id(found.id)


def test_a_broker_finds_what_it_noted_down():
    eta = datetime(2030, 1, 1, tzinfo=UTC)
    message = replace(BARE, eta=eta)
    assert due_of({}, BARE) == 0.0
    assert due_of({}, message) == eta.timestamp()
    assert due_of({DUE: 5}, message) == 5.0
    assert due_of({DUE: "soon"}, message) == eta.timestamp()
    assert [deliveries_of({"django_tasks_deliveries": n}) for n in (3, 0, -1, "x", None)] == [3, 0, 0, 0, 0]
    assert way_of({WAY: ["events", "news.eu"]}) == ("events", "news.eu")
    assert {way_of({WAY: way}) for way in (None, "xy", [], ["x"], ["x", 5], ["x", "y", "z"])} == {("", "")}
    assert seen_of({SEEN: 5.5}, 10.0) == 5.5
    assert {seen_of({SEEN: seen}, 10.0) for seen in (None, "5", 0, -5, 11, math.inf, -math.inf, math.nan)} == {10.0}


VALUES = [
    datetime(2026, 3, 29, 1, 30, 0, 5),  # noqa: DTZ001
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=-9))),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC).date(),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC).time(),
    Decimal("1.10"),
    UUID(int=7),
    b"text",
    b"\xff\x00",
    "中文",
    [1, 2.5, None, {"a": [True]}],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_celery_has_a_tag_for_is_read_on_both_sides(value: Any):
    assert kombu_json.loads(encode_body((value,), {}, {}))[0] == [value]
    assert decode_body(kombu_json.dumps([[value], {}, None]).encode())[0] == (value,)


@pytest.mark.parametrize("value", [(1, 2), {1}, timedelta(1), {1: 2}], ids=repr)
def test_what_celery_has_no_tag_for_it_refuses(value: Any):
    with pytest.raises(ValueError, match="Unsupported type"):
        kombu_json.loads(encode_body((value,), {}, {}))
