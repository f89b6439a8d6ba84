"""Do deliveries and outcomes cross to a child process and back as they are?"""

from __future__ import annotations

import enum
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.utils.safestring import SafeString

from django_tasks import states
from django_tasks.failure import Failure
from django_tasks.message import Delivery, Message, new_id
from django_tasks.plan import NOTHING, Outcome, Plan, Requeue
from django_tasks.pools import frames

NOW = datetime(2026, 3, 29, 1, 59, 59, 999_999, UTC)

FULL = Message(
    id=new_id(),
    task="shop.tasks.add",
    body=b"[[1], {}, {}]",
    queue="fast",
    priority=-7,
    content_type="application/x-yaml",
    content_encoding="binary",
    compression="application/zstd",
    signature="1:2:3",
    eta=NOW.astimezone(ZoneInfo("Australia/Lord_Howe")),
    countdown=1.5,
    expires=datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    retries=2,
    attempts=3,
    time_limit=10.0,
    soft_time_limit=9.5,
    ignore_result=True,
    root_id="root",
    parent_id="parent",
    group_id="group",
    group_index=4,
    shadow="other name",
    enqueue="transaction",
    exchange="news",
    routing_key="news.europe",
    args_repr="(1,)",
    kwargs_repr="{}",
    origin="gen1@host",
    created_at=NOW,
    headers={"trace": "abc", "list": [1, {"two": None}], "lone": "\ud800"},
)
FAILURE = Failure("ValueError", "builtins", "no", '["no"]', "Traceback ...", ("first", "second"))


def there_and_back(value):
    (found,) = frames.Frames().feed(frames.frame(value))
    return found


def same(one: Message, other: Message) -> bool:
    return all(getattr(one, field.name) == getattr(other, field.name) for field in fields(Message))


def test_every_field_of_the_example_differs_from_its_default():
    """So that the next test notices a field that is forgotten."""
    plain = Message(id="", task="", body=b"")
    assert [field.name for field in fields(Message) if getattr(FULL, field.name) == getattr(plain, field.name)] == []


@pytest.mark.parametrize("message", [FULL, Message(id="1", task="t", body=b"")], ids=["full", "plain"])
def test_a_delivery_crosses(message):
    found = frames.delivery_from(there_and_back(frames.delivery_row(Delivery(message, ("row", 7), 5))))
    assert same(found.message, message)
    assert (found.receipt, found.deliveries) == (("row", 7), 5)


def test_what_a_broker_tells_of_a_delivery_crosses_with_it():
    told = Delivery(FULL, None, 2, exchange="events", routing_key="news.eu", seen_at=1.5, ahead=-3600.0)
    found = frames.delivery_from(there_and_back(frames.delivery_row(told)))
    assert (found.exchange, found.routing_key, found.seen_at, found.ahead) == ("events", "news.eu", 1.5, -3600.0)


def test_a_delivery_that_was_acknowledged_early_still_is():
    found = frames.delivery_from(there_and_back(frames.delivery_row(Delivery(FULL, None))))
    assert found.receipt is None


def test_a_receipt_that_only_means_something_to_the_worker_stays_there():
    found = frames.delivery_from(there_and_back(frames.delivery_row(Delivery(FULL, object()))))
    assert found.receipt == "kept by the pool"


def test_times_are_aware_and_exact():
    found = frames.delivery_from(there_and_back(frames.delivery_row(Delivery(FULL, None)))).message
    assert found.created_at is not None
    assert found.created_at.tzinfo is UTC
    assert found.eta is not None
    assert found.eta.utcoffset() == timedelta(hours=11)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(states.SUCCESS, b"5", started=1.25, ended=2.5, settled=True),
        Outcome(states.FAILURE, failure=FAILURE, keep=False),
        Outcome(states.RETRY, failure=FAILURE, plan=Plan((FULL, replace(FULL, id="2")))),
        Outcome(states.PENDING, requeue=Requeue(delay=1.5, spent=True), keep=False),
        Outcome("PROGRESS", b"{}"),
    ],
    ids=lambda outcome: outcome.state,
)
def test_an_outcome_crosses(outcome):
    found = frames.outcome_from(there_and_back(frames.outcome_row(outcome)))
    assert replace(found, plan=NOTHING) == replace(outcome, plan=NOTHING)
    assert found.interim == outcome.interim
    assert len(found.plan.messages) == len(outcome.plan.messages)
    assert all(map(same, found.plan.messages, outcome.plan.messages))


def test_a_memoryview_arrives_as_bytes():
    """As some database drivers give them."""
    message = replace(FULL, body=memoryview(b"x"))  # type: ignore[arg-type]
    found = frames.delivery_from(there_and_back(frames.delivery_row(Delivery(message, None))))
    assert found.message.body == b"x"


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError


def test_what_marshal_does_not_know_crosses_as_what_it_is_like():
    headers = {
        Colour.RED: [SafeString("safe"), Loud("quiet")],
        "number": Number.ONE,
        "when": NOW,
        "price": Decimal("1.50"),
        "set": {Number.ONE},
        "buffer": bytearray(b"x"),
    }
    found = frames.delivery_from(there_and_back(frames.delivery_row(Delivery(replace(FULL, headers=headers), None))))
    assert found.message.headers == {
        "red": ["safe", "quiet"],
        "number": 1,
        "when": str(NOW),
        "price": "1.50",
        "set": (1,),
        "buffer": b"x",
    }
    assert all(type(key) is str for key in found.message.headers)
    assert type(found.message.headers["number"]) is int
    assert same(replace(found.message, headers=FULL.headers), FULL)


def test_a_value_whose_text_cannot_be_had_crosses_as_its_description():
    assert "Broken object" in there_and_back({"x": Broken()})["x"]


def test_a_value_that_is_nested_without_end_crosses_in_part():
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert there_and_back({"x": deep, "y": 1})["y"] == 1


def test_frames_come_out_whole_however_they_arrive():
    values = [(number, "x" * number * 37) for number in range(40)]
    stream = b"".join(map(frames.frame, values))
    for size in (1, 3, 4, 5, 1000, len(stream)):
        buffer = frames.Frames()
        found = [value for start in range(0, len(stream), size) for value in buffer.feed(stream[start : start + size])]
        assert found == values
        assert not buffer.partial


def test_a_frame_that_was_never_finished_is_never_seen():
    buffer = frames.Frames()
    whole = frames.frame("whole")
    assert buffer.feed(whole + frames.frame("cut off")[:-1]) == ["whole"]
    assert buffer.partial


def test_a_large_frame_is_put_together_in_linear_time():
    """Each piece is looked at once: with a copy of all that came before at each, this takes minutes."""
    data = frames.frame(b"x" * 50_000_000)
    buffer = frames.Frames()
    found = [value for start in range(0, len(data), 4096) for value in buffer.feed(data[start : start + 4096])]
    assert len(found[0]) == 50_000_000
