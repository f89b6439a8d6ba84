"""Are names, arguments, tables and frames of AMQP what a server and py-amqp understand?"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp.serialization import decode_properties_basic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks.backends.links import frames, tables
from django_tasks.backends.links.frames import Confirm
from django_tasks.backends.links.layout import NAME, Layout, step_for, steps
from django_tasks.backends.links.options import AmqpOptions, read_options
from django_tasks.backends.links.servers import Servers, shown
from django_tasks.exceptions import BrokerUnavailable, ConfigurationError

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
NAMES = st.text(max_size=60)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": NAMES,
        "content_encoding": NAMES,
        "delivery_mode": st.integers(0, 255),
        "priority": st.integers(0, 255),
        "correlation_id": NAMES,
        "reply_to": NAMES,
        "expiration": NAMES,
        "message_id": NAMES,
        "timestamp": st.integers(0, 2**63),
        "type": NAMES,
        "user_id": NAMES,
        "app_id": NAMES,
        "cluster_id": NAMES,
    },
)


# Most of the time goes into making up values, so that all is asked of the same ones.
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES, max_size=6), PROPERTIES)
def test_headers_and_properties_come_out_as_they_went_in_also_from_and_to_py_amqp(
    headers: dict[str, Any], said: dict[str, Any]
):
    ours = tables.properties(said, headers)
    assert tables.read_properties(ours, 0) == (headers, said)
    assert decode_properties_basic(ours, 0)[0] == {**said, "application_headers": headers}
    theirs = amqp.Message(b"", application_headers=headers, **said)._serialize_properties()
    assert tables.read_properties(theirs, 0) == (headers, said)


def test_values_that_only_other_clients_send_are_read():
    headers = {"price": Decimal("1.25"), "at": datetime(2026, 1, 1, tzinfo=UTC)}
    written = amqp.Message(b"", application_headers=headers)._serialize_properties()
    assert tables.read_properties(written, 0) == (headers, {})


def test_text_that_is_no_unicode_is_read_as_some_text():
    written = amqp.Message(b"", application_headers={"a": b"\xff", "b": "\ud800"})._serialize_properties()
    assert tables.read_properties(written, 0)[0] == {"a": "ÿ", "b": "\ud800"}


def test_times_that_no_calendar_has_and_text_in_no_encoding_are_read_as_something():
    """A program in Java writes milliseconds where seconds belong."""
    millis = b"T" + Struct(">Q").pack(1_800_000_000_000)
    latest = b"T" + b"\xff" * 8
    odd = b"S\0\0\0\3\xed!\xff"
    headers, _ = tables.read_properties(
        written(*((b"\1" + name, value) for name, value in ((b"a", millis), (b"b", latest), (b"c", odd)))), 0
    )
    assert headers == {"a": 1_800_000_000_000, "b": 2**63 - 1, "c": "í!ÿ"}


def written(*entries: tuple[bytes, bytes]) -> bytes:
    """Return properties whose headers are made of these bytes."""
    body = b"".join(name + value for name, value in entries)
    return b"\x20\0" + Struct(">I").pack(len(body)) + body


def test_what_only_other_clients_send_can_be_sent_again():
    headers = {"at": datetime(2030, 1, 2, tzinfo=UTC), "price": Decimal("-1.25"), "raw": b"\xff", "many": [Decimal(7)]}
    assert tables.read_properties(tables.properties({}, headers), 0)[0] == headers
    for value in (Decimal("1e40"), Decimal("NaN"), Decimal(2**31)):
        with pytest.raises(ValueError, match="no place"):
            tables.properties({}, {"price": value})


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_tables_and_lists_without_end_are_not_read(kind: bytes):
    inner = b""
    for _ in range(5_000):
        inner = (b"\1a" if kind == b"F" else b"") + kind + Struct(">I").pack(len(inner)) + inner
    inner = inner.removeprefix(b"\1a")
    assert tables.read_properties(written((b"\1a", inner)), 0) == ({}, {})


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.data())
def test_bytes_that_are_no_properties_are_read_as_something_or_nothing(headers: dict[str, Any], data: st.DataObject):
    whole = bytearray(tables.properties({"content_type": "application/json", "priority": 1}, headers))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    found, properties = tables.read_properties(cut, 0)
    assert isinstance(found, dict)
    assert isinstance(properties, dict)


@pytest.mark.parametrize("headers", [{"k" * 256: 1}, {"a": object()}, {"a": [{1}]}])
def test_what_fits_no_table_is_refused(headers: dict[str, Any]):
    with pytest.raises((TypeError, ValueError)):
        tables.properties({}, headers)


def test_frames_that_are_not_whole_yet_are_left():
    whole = frames.ack(1, 7, multiple=True) + frames.cancel(2, "c1")
    for size in range(len(whole) + 1):
        found = list(frames.split(whole[:size]))
        assert sum(size >= end for end in (21, len(whole))) == len(found)
    assert [channel for (_, channel, _), _ in frames.split(whole)] == [1, 2]


def taken(*found: frames.Frame) -> frames.Inbox:
    """Hand frames to an inbox of channel 1, as a connection does with what the inbox wants."""
    inbox = frames.Inbox()
    inbox.channel = 1
    for frame in found:
        if inbox.wants(frame):
            inbox.take(SimpleNamespace(bytes_recv=0), frame)
    return inbox


def test_confirms_are_taken_whether_the_server_has_a_message_or_refused_it():
    method = Struct(">HHQB")
    inbox = taken(*((frames.METHOD, 1, method.pack(60, kind, 7, bits)) for kind, bits in ((80, 0), (80, 1), (120, 1))))
    assert list(inbox.confirms) == [Confirm(7, False, True), Confirm(7, True, True), Confirm(7, True, False)]


def test_what_belongs_to_another_channel_or_to_a_message_that_came_back_is_left_to_py_amqp():
    confirm = frames.ack(1, 7, multiple=False)[7:-1]
    inbox = taken((frames.METHOD, 2, confirm), (frames.METHOD, 1, b"\0\x3c\0\x32"), (frames.BODY, 1, confirm))
    assert not inbox.confirms
    assert not inbox.contents


@given(st.floats(0, 10 * 365 * 86_400))
def test_a_delay_is_spent_in_a_few_steps_and_is_never_too_short(seconds: float):
    left, taken = seconds, []
    while left > 0:
        taken.append(step_for(left))
        left -= taken[-1] / 1000
    assert set(taken) <= set(steps())
    assert left > -0.0501
    long = int(seconds // (2**31 / 1000))
    assert len(taken) <= long + 9


def test_there_are_about_a_hundred_steps():
    assert len(steps()) == len(set(steps())) < 110
    assert max(steps()) == 2**31


@pytest.mark.parametrize("prefix", ["", "site."])
@pytest.mark.parametrize("queue", ["mail", "x" * 128, "é" * 128, "\N{GRINNING FACE}" * 128])
def test_names_fit_and_stay_apart(prefix: str, queue: str):
    layout = Layout(AmqpOptions(prefix=prefix))
    names = [layout.name(queue), layout.name(queue[:-1] + "a"), layout.waiting(queue, 2**31).name]
    assert len(set(names)) == 3
    assert max(len(name.encode()) for name in names) <= 255
    if len((prefix + queue).encode()) <= NAME:
        assert names[0] == prefix + queue


def test_a_plain_queue_is_declared_as_celery_declares_it():
    assert Layout(AmqpOptions(priorities=False)).queue("celery").arguments == {}
    assert Layout(AmqpOptions(queue_type="quorum")).queue("celery").arguments == {"x-queue-type": "quorum"}


def test_options_become_arguments():
    layout = Layout(AmqpOptions(max_length=5, dead_letter_exchange="dead"))
    assert layout.queue("mail").arguments == {
        "x-max-priority": 10,
        "x-max-length": 5,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "dead",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"QUEUE_TYP": "quorum"}, "no option 'QUEUE_TYP'"),
        ({"QUEUE_TYPE": "stream"}, "QUEUE_TYPE is 'classic' or 'quorum'"),
        ({"PRIORITIES": 1}, "True or False"),
        ({"PREFIX": None}, "text"),
        ({"MAX_LENGTH": 0}, "whole number"),
        ({"TLS": True}, "a dict"),
        ({"HEARTBEAT": -1}, "seconds"),
        ({"PUBLISH_TIMEOUT": True}, "seconds"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, Any], words: str):
    with pytest.raises(ConfigurationError, match=words):
        read_options("bus", options)


def test_options_that_are_given_are_taken():
    assert read_options("bus", {"QUEUE_TYPE": "quorum", "MAX_LENGTH": None}) == AmqpOptions(queue_type="quorum")


def test_every_server_is_tried_and_no_password_is_told():
    servers = Servers("amqp://me:CANARY@127.0.0.1:1; amqp://me:CANARY@127.0.0.1:2", AmqpOptions())
    with pytest.raises(BrokerUnavailable) as caught:
        servers.connect({})
    assert "127.0.0.1:1" in str(caught.value)
    assert "127.0.0.1:2" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in shown("amqps://me:CANARY@host/vhost")


def test_tls_checks_who_answers_unless_told_otherwise():
    servers = Servers("amqps://broker.example", AmqpOptions(tls={"ca_certs": "/ca.pem"}))
    found = servers.connection(servers.urls[0], {}).ssl
    assert found == {"server_hostname": None, "cert_reqs": 2, "ca_certs": "/ca.pem"}
    plain = Servers("amqp://broker.example", AmqpOptions())
    assert not plain.connection(plain.urls[0], {}).ssl


@pytest.mark.parametrize(
    ("url", "native"), [("", True), ("amqps://h", True), ("redis://h", False), ("sqla+sqlite:///x", False)]
)
def test_rabbitmq_is_told_from_the_rest(url: str, *, native: bool):
    assert Servers(url, AmqpOptions()).native is native
