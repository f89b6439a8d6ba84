"""Does a body travel as it was asked for, and is nothing read that the settings do not accept?"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from django_tasks import Task, states
from django_tasks.exceptions import ConfigurationError, SerializationError
from django_tasks.signing import sign
from tests.calls import declare, next_of, outcome_of, sent
from tests.integration.rig import text, value

Configure = Callable[..., None]
VALUE = {"a": (1, 2), "b": {3}, "c": b"\xff"}


@pytest.mark.parametrize(
    ("name", "content_type", "encoding"),
    [
        ("json", "application/json", "utf-8"),
        ("msgpack", "application/x-msgpack", "binary"),
        ("yaml", "application/x-yaml", "utf-8"),
    ],
)
def test_the_call_wins_over_the_task_and_the_task_over_the_setting(
    configure: Configure, name: str, content_type: str, encoding: str
) -> None:
    configure(ACCEPT=["json", "msgpack", "application/x-yaml"], SERIALIZER=name)
    by_setting = sent(declare(lambda x: x), VALUE)
    configure(ACCEPT=["json", "msgpack", "yaml"])
    by_task = sent(declare(lambda x: x, serializer=name), VALUE)
    by_call = sent(declare(lambda x: x, serializer="json"), VALUE, serializer=name)
    for message in (by_setting, by_task, by_call):
        assert (message.content_type, message.content_encoding) == (content_type, encoding)
        assert value(outcome_of(message)) == VALUE


class Odd:
    """What only a pickle can carry."""

    opened: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: dict[str, str]) -> None:
        self.opened.append(state["name"])
        self.name = state["name"]


def test_a_pickle_is_opened_if_it_was_signed_and_never_else(configure: Configure) -> None:
    configure(ACCEPT=["json", "pickle"], REQUIRE_SIGNATURE=True)
    Odd.opened.clear()
    message = sent(declare(lambda odd: odd.name), Odd("mine"), serializer="pickle")
    assert (message.content_type, message.content_encoding) == ("application/x-python-serialize", "binary")
    assert "SignatureError" in text(outcome_of(message))
    forged = replace(sign(message), priority=9)
    assert "SignatureError" in text(outcome_of(forged))
    assert Odd.opened == []
    assert value(outcome_of(sign(message))) == "mine"
    assert Odd.opened == ["mine"]


def test_a_pickle_travels_to_a_task_that_runs_in_its_caller(configure: Configure) -> None:
    configure(
        ACCEPT=["json", "pickle"],
        SERIALIZER="pickle",
        REQUIRE_SIGNATURE=True,
        BROKERS={"default": {"BACKEND": "immediate"}},
    )

    def twice(self: Task[..., Any], odd: Odd) -> str:
        if self.request.retries == 0:
            self.retry(countdown=0)
        return odd.name

    task = declare(twice, bind=True)
    assert task.delay(Odd("mine")).get(0) == "mine"
    assert task.apply((Odd("here"),)).get(0) == "here"


def test_what_cannot_be_pickled_or_unpickled_is_told(configure: Configure) -> None:
    configure(ACCEPT=["json", "pickle"], REQUIRE_SIGNATURE=True)
    task = declare(lambda x: x)
    with pytest.raises(SerializationError, match="cannot be pickled"):
        sent(task, lambda: 1, serializer="pickle")
    with pytest.raises(SerializationError, match="the limit is 1,048,576"):
        sent(task, b"x" * (2 << 20), serializer="pickle")
    broken = sign(replace(sent(task, 1, serializer="pickle"), body=b"\x80\x04no"))
    assert text(outcome_of(broken)).startswith("DecodeError: not a valid pickle here")


def test_a_body_that_is_not_accepted_is_refused_unread(configure: Configure) -> None:
    configure(ACCEPT=["json", "yaml"])
    task = declare(lambda x: x)
    message = replace(sent(task, 1, serializer="yaml"), body=b"!!no [yaml")
    configure()
    outcome = outcome_of(message)
    assert outcome.state == states.FAILURE
    assert text(outcome) == (
        "DecodeError: the content type 'application/x-yaml' (yaml) is not among DJANGO_TASKS['ACCEPT'] of this worker"
    )


def test_what_no_worker_would_read_is_not_sent(configure: Configure) -> None:
    configure()
    with pytest.raises(ConfigurationError, match="'msgpack' is not among DJANGO_TASKS\\['ACCEPT'\\]"):
        sent(declare(lambda: None), serializer="msgpack")
    with pytest.raises(ValueError, match="serializer is one of json, msgpack"):
        sent(declare(lambda: None), serializer="xml")
    configure(SERIALIZER="yaml")
    with pytest.raises(ConfigurationError, match="'yaml', which DJANGO_TASKS\\['ACCEPT'\\] does not name"):
        sent(declare(lambda: None))


def test_a_retry_is_written_as_its_call_was(configure: Configure) -> None:
    configure(ACCEPT=["json", "msgpack"])

    def again(self: Task[..., Any], x: int) -> None:
        self.retry(args=(x + 1,), countdown=0)

    message = next_of(outcome_of(sent(declare(again, bind=True), 1, serializer="msgpack")))
    assert (message.content_type, message.content_encoding) == ("application/x-msgpack", "binary")
    assert message.body == b"\x93\x91\x02\x80\x80"


def test_a_body_is_compressed_as_call_task_or_setting_say(configure: Configure) -> None:
    configure(COMPRESSION="zlib")
    long = "x" * 500
    task = declare(lambda x: x, compression="bzip2")
    assert sent(declare(lambda x: x), long).compression == "application/x-gzip"
    assert sent(task, long, compression="zstd").compression == "application/zstd"
    assert sent(task, long, compression="none").compression is None
    assert sent(task, "short").compression is None
    message = sent(task, long)
    assert message.compression == "application/x-bz2"
    assert len(message.body) < 200
    assert value(outcome_of(message)) == long


def test_a_bomb_ends_its_task_and_not_the_worker(configure: Configure) -> None:
    bomb = replace(sent(declare(lambda x: x), 1), body=zlib.compress(bytes(4 << 20)), compression="application/x-gzip")
    outcome = outcome_of(bomb)
    assert outcome.state == states.FAILURE
    assert text(outcome).startswith("DecodeError: more than 1,048,576 bytes come out of")


def test_nothing_is_decompressed_that_is_not_accepted(configure: Configure) -> None:
    message = replace(sent(declare(lambda: None)), content_type="application/x-yaml", compression="application/x-rar")
    assert "is not among DJANGO_TASKS['ACCEPT']" in text(outcome_of(message))


def test_a_retry_is_compressed_as_its_call_was(configure: Configure) -> None:
    def again(self: Task[..., Any], x: str) -> None:
        self.retry(args=(x + x,), countdown=0)

    first = sent(declare(again, bind=True), "x" * 500, compression="lzma")
    assert next_of(outcome_of(first)).compression == first.compression == "application/x-lzma"
