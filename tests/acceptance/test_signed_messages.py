"""Does a worker that requires signatures run what its site has sent, as it was sent, once, and nothing else?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import AsyncResult, Task, states
from django_tasks.connections import brokers
from django_tasks.message import Message, new_id
from django_tasks.signing import sign
from testproject.backends import BROKERS
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.calls import sent
from tests.vendors import each_vendor

pytestmark = [each_vendor(transaction=True), pytest.mark.brokers(*BROKERS, reason="run on every broker by default")]

CHANGES: dict[str, Any] = {
    "task": tasks.at_most_once.name,
    "queue": "other",
    "priority": 50,
    "content_type": "application/x-msgpack",
    "content_encoding": "binary",
    "compression": "application/x-gzip",
    "eta": datetime(2020, 1, 1, tzinfo=UTC),
    "expires": datetime.now(UTC) + timedelta(days=9),
    "retries": 1,
    "attempts": 1,
    "time_limit": 99.5,
    "soft_time_limit": 98.5,
    "ignore_result": True,
    "root_id": "another",
    "parent_id": "another-parent",
    "group_id": "another-group",
    "group_index": 3,
    "shadow": "another name",
    "args_repr": "('nothing',)",
    "kwargs_repr": "{'nothing': 0}",
    "headers": {"tenant": "red"},
}
"""Another value for each field that is signed, but for the id."""
OTHERS = {"body", "signature", "id", "countdown", "created_at", "enqueue", "exchange", "routing_key", "origin"}


@pytest.fixture
def signing(site: Site) -> Iterator[Site]:
    """Have workers require signatures, and this process sign."""
    site.settings["REQUIRE_SIGNATURE"] = True
    with override_settings(DJANGO_TASKS={**site.settings, **site.backends}):
        yield site
        brokers.close()


def message_of(task: Task[..., Any], *args: Any, **options: Any) -> Message:
    """Return a call as it leaves, signed."""
    return sign(sent(task, *args, **options))


def changed(site: Site) -> Iterator[tuple[str, Message]]:
    """Give messages that were changed after they had been signed, each in one way."""

    def genuine() -> Message:
        return message_of(tasks.note, str(site.ledger), headers={"tenant": "blue"})

    for name, value in CHANGES.items():
        if name == "queue":
            yield name, replace(message_of(tasks.note, str(site.ledger), queue=value), queue="default")
        else:
            yield name, replace(genuine(), **{name: value})
    yield "id", replace(genuine(), id=new_id())
    yield "headers", replace(genuine(), headers={})
    for place in (0, 5, -1):
        message = genuine()
        body = bytearray(message.body)
        body[place] ^= 1
        yield "body", replace(message, body=bytes(body))
    yield "body", replace(genuine(), body=genuine().body.replace(b"]", b" ]", 1))
    yield "signature", replace(genuine(), signature=None)
    yield "signature", replace(genuine(), signature=genuine().signature)
    cut = genuine()
    yield "signature", replace(cut, signature=str(cut.signature)[:-1])


def error_of(message: Message) -> str:
    failure = AsyncResult[Any](message.id).fetch().failure
    assert failure is not None
    return failure.type


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_nothing_runs_that_was_changed_on_its_way(signing: Site, pool: str):
    assert {field.name for field in fields(Message)} == CHANGES.keys() | OTHERS
    forged = list(changed(signing))
    signing.broker.publish([message for _, message in forged])
    worker = signing.worker("-P", pool)
    genuine = tasks.note.delay(str(signing.ledger))
    handles = [AsyncResult[Any](message.id) for _, message in forged]
    assert set(signing.ended(*handles, timeout=60.0)) == {states.FAILURE}
    assert {name: error_of(message) for name, message in forged} == dict.fromkeys(dict(forged), "SignatureError")
    assert genuine.get(60) == 1
    assert worker.stop() == 0
    assert signing.ledger.count() == {genuine.id: 1}
    assert signing.quiet()


def comes_again(site: Site, message: Message) -> None:
    """Put a message in once more, when the broker is done with the first one, and so takes it."""
    site.until(site.quiet, "what was there has been acknowledged")
    site.broker.publish([message])


def test_what_has_run_does_not_run_again_here_or_in_another_queue(signing: Site):
    message = message_of(tasks.note, str(signing.ledger))
    signing.broker.publish([message])
    worker = signing.worker("-Q", "default,other")
    assert signing.ended(AsyncResult(message.id)) == [states.SUCCESS]
    comes_again(signing, message)
    worker.wait_for("came again")
    comes_again(signing, replace(message, queue="other"))
    worker.wait_for("SignatureError")
    assert worker.stop() == 0
    # What it is known by outlasts the worker.
    comes_again(signing, message)
    other = signing.worker("-P", "threads")
    other.wait_for("came again")
    assert other.stop() == 0
    assert signing.ledger.count() == {message.id: 1}
    assert AsyncResult[Any](message.id).state == states.SUCCESS
    assert signing.quiet()


def test_an_attempt_that_was_followed_by_another_does_not_run_again(signing: Site):
    first = message_of(tasks.retry_until, str(signing.ledger), 2)
    signing.broker.publish([first])
    worker = signing.worker()
    assert signing.ended(AsyncResult(first.id)) == [states.SUCCESS]
    comes_again(signing, first)
    worker.wait_for("came again")
    assert worker.stop() == 0
    assert signing.ledger.count() == {first.id: 2}


def test_the_secret_key_can_be_changed_while_messages_wait(signing: Site, settings: Any):
    book = str(signing.ledger)
    settings.SECRET_KEY = "old key"
    before, again = tasks.note.delay(book), tasks.retry_until.delay(book, 2, 2.0)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new key", ["old key"]
    after = tasks.note.delay(book)
    signing.environment["DJANGO_TASKS_TEST_KEYS"] = json.dumps(["new key", "old key"])
    worker = signing.worker()
    assert signing.ended(before, after) == [states.SUCCESS] * 2
    worker.wait_for("to be retried")
    assert worker.stop() == 0
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old key", []
    late = tasks.note.delay(book)
    settings.SECRET_KEY = "new key"
    signing.environment["DJANGO_TASKS_TEST_KEYS"] = json.dumps(["new key"])
    signing.worker()
    # The worker that knew both has signed the next attempt with the new one.
    assert signing.ended(again, late) == [states.SUCCESS, states.FAILURE]
    failure = late.fetch().failure
    assert failure is not None
    assert failure.type == "SignatureError"
    assert "SECRET_KEY_FALLBACKS" in failure.message
