"""Does a signature hold for a message as it was sent, and for no other?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from django_tasks.backends.redis_entries import packed, unpacked
from django_tasks.connections import brokers
from django_tasks.exceptions import SerializationError, SignatureError
from django_tasks.message import Delivery, Message
from django_tasks.plan import Plan
from django_tasks.pools.frames import delivery_from, delivery_row
from django_tasks.protocol import dump_message, load_message
from django_tasks.publisher import publish
from django_tasks.signing import resigned, sign, verify
from django_tasks.testing.contracts.broker_queues import FULL
from django_tasks.testing.contracts.harness import sample
from django_tasks.wire import from_wire, to_wire

Configure = Callable[..., None]
NOW = 1_800_000_000.0
DAY = timedelta(days=1)
MOMENT = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)

OTHERWISE: dict[str, Any] = {
    "id": "another",
    "task": "shop.tasks.refund",
    "queue": "other",
    "priority": 8,
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "compression": None,
    "eta": MOMENT,
    "expires": None,
    "retries": 1,
    "attempts": 4,
    "time_limit": None,
    "soft_time_limit": 20.5,
    "ignore_result": False,
    "root_id": None,
    "parent_id": None,
    "group_id": "another",
    "group_index": 4,
    "shadow": "shipping",
    "args_repr": "(2,)",
    "kwargs_repr": "{}",
    "headers": {**FULL.headers, "tenant": "red"},
}
"""Another value for each field that is signed."""

UNSIGNED = {"countdown", "created_at", "enqueue", "exchange", "routing_key", "origin"}
"""What brokers fill in or use up, and what says nothing of what runs."""


def clock(days: float = 0.0) -> Callable[[], float]:
    return lambda: NOW + days * 86_400


def test_every_field_is_signed_or_left_out_for_a_reason() -> None:
    assert {field.name for field in fields(Message)} == OTHERWISE.keys() | UNSIGNED | {"body", "signature"}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_changed_field_is_refused(name: str) -> None:
    message = sign(FULL)
    verify(message)
    with pytest.raises(SignatureError, match="the signature is not that of this message"):
        verify(replace(message, **{name: OTHERWISE[name]}))


@pytest.mark.parametrize("headers", [{"reply_to": "theirs"}, {"reply_to": "", "new": 1}, {"tenant": None}])
def test_where_a_result_goes_and_every_header_is_signed(headers: dict[str, Any]) -> None:
    message = sign(replace(FULL, headers={**FULL.headers, "reply_to": "mine"}))
    verify(from_wire(to_wire(message), message.queue))
    with pytest.raises(SignatureError):
        verify(replace(message, headers={**message.headers, **headers}))


def test_every_flipped_byte_of_the_body_is_refused() -> None:
    message = sign(FULL)
    for place in range(len(message.body)):
        body = bytearray(message.body)
        body[place] ^= 1
        with pytest.raises(SignatureError):
            verify(replace(message, body=bytes(body)))


def test_every_changed_character_of_the_signature_is_refused() -> None:
    message = sign(FULL)
    text = str(message.signature)
    for place, character in enumerate(text):
        for other in ("0", "x", "\N{ARABIC-INDIC DIGIT ONE}", "\ud800", ""):
            if other != character:
                with pytest.raises(SignatureError):
                    verify(replace(message, signature=text[:place] + other + text[place + 1 :]))
    for odd in ("", ":", "1", "1::", "1:" + "9" * 5000 + ":" + "0" * 64, "2" + text[1:]):
        with pytest.raises(SignatureError):
            verify(replace(message, signature=odd))


def test_what_is_left_out_may_change() -> None:
    message = sign(FULL)
    verify(replace(message, countdown=5.0, created_at=MOMENT, origin="relay@there", enqueue="immediate"))
    verify(replace(message, eta=FULL.eta and FULL.eta.astimezone(UTC), time_limit=30.5))


def test_an_unsigned_message_is_refused() -> None:
    with pytest.raises(SignatureError, match="not signed"):
        verify(FULL)


def test_a_body_cannot_pass_for_the_end_of_its_envelope() -> None:
    message = sign(replace(sample(), body=b'{"task":"x"}\0'))
    with pytest.raises(SignatureError):
        verify(replace(message, body=b"\0" + message.body))


def test_what_went_through_an_exchange_holds_wherever_that_leads_to() -> None:
    through = replace(sign(replace(FULL, exchange="news", routing_key="a.b")), exchange=None, routing_key=None)
    verify(replace(through, queue="wherever"))
    bound = str(sign(FULL).signature)
    with pytest.raises(SignatureError):
        verify(replace(FULL, queue="wherever", signature=bound.replace("1:", "1x:", 1)))


def test_keys_can_be_changed_one_after_the_other(settings: Any) -> None:
    settings.SECRET_KEY = "old"
    message = sign(FULL)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["older", "old"]
    verify(message)
    assert sign(FULL, clock()).signature != message.signature
    verify(sign(FULL))
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(SignatureError, match="SECRET_KEY_FALLBACKS"):
        verify(message)


def test_age_counts_from_the_signature_or_from_the_time_to_run() -> None:
    plain = sign(sample(), clock())
    verify(plain, 2 * DAY, clock(2))
    verify(plain, None, clock(5000))
    with pytest.raises(SignatureError, match="more than 2 days"):
        verify(plain, 2 * DAY, clock(2.1))
    later = sign(replace(sample(), eta=datetime.fromtimestamp(NOW, UTC) + 30 * DAY), clock())
    verify(later, 2 * DAY, clock(31.9))
    with pytest.raises(SignatureError):
        verify(later, 2 * DAY, clock(32.1))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"n": 1.0, "m": -0.0, "big": 10**30, "deep": [{"a": (1, 2)}], "text": "lone \ud800", "": None},
        {"numbers": {2: "b", 10: "a"}},
        {"reply_to": "", "lang": "py", "stamps": {}, "x-death": [1], "replaced_task_nesting": 0},
    ],
    ids=["none", "values", "numbers for names", "fleeting"],
)
def test_it_holds_on_every_way_that_a_message_is_written(headers: dict[str, Any]) -> None:
    zone = timezone(timedelta(hours=-3))
    message = sign(replace(FULL, headers=headers, root_id=FULL.id, expires=MOMENT.astimezone(zone), time_limit=30))
    verify(load_message(dump_message(message)))
    verify(from_wire(to_wire(message), message.queue))
    verify(delivery_from(delivery_row(Delivery(message, None))).message)
    with pytest.raises(SignatureError):
        verify(from_wire(to_wire(message), "other"))


def test_in_redis_the_queue_is_the_one_that_it_was_found_in() -> None:
    message = sign(FULL)
    kept = b"0" * 32 + packed(message)
    verify(unpacked(b"every-field", message.queue, kept))
    with pytest.raises(SignatureError):
        verify(unpacked(b"every-field", "other", kept))


def test_headers_that_cannot_be_sent_cannot_be_signed_nor_hold() -> None:
    odd = replace(FULL, headers={"lock": object()})
    with pytest.raises(SerializationError, match="headers: cannot be signed"):
        sign(odd)
    with pytest.raises(SignatureError, match="cannot have been signed"):
        verify(replace(odd, signature=sign(FULL).signature))


def test_nobody_vouches_for_what_nobody_vouched_for() -> None:
    message = sign(FULL)
    verify(resigned(message, replace(message, retries=9)))
    forged = replace(message, task="shop.tasks.refund")
    for before in (forged, replace(forged, signature=None)):
        with pytest.raises(SignatureError):
            verify(resigned(before, replace(before, retries=9)))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({}, False), ({"SIGN": True}, True), ({"REQUIRE_SIGNATURE": True}, True)],
    ids=["neither", "sign", "require"],
)
def test_what_is_sent_is_signed_as_the_settings_say(configure: Configure, keys: dict[str, Any], expected: bool) -> None:
    configure(**keys)
    publish(Plan((sample(),)))
    [delivery] = receive()
    assert (delivery.message.signature is not None) is expected


def test_what_has_a_signature_keeps_it_and_what_goes_out_as_it_is_gets_none(configure: Configure) -> None:
    configure(SIGN=True)
    kept = replace(sample(), signature="1:2:3")
    publish(Plan((kept,)))
    publish(Plan((sample(),)), as_it_is=True)
    assert [delivery.message.signature for delivery in receive()] == ["1:2:3", None]


def receive() -> list[Delivery]:
    return brokers["default"].fetch(["default"], 9, lease=60.0, consumer="w1")
