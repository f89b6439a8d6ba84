"""Does a worker that requires signatures run what this site has signed, once, and nothing else?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import AsyncResult, actions, states
from django_tasks.connections import results
from django_tasks.message import Message
from django_tasks.signing import sign
from tests.integration.stage import (
    FAULTY,
    Meanwhile,
    at_most_once_retried,
    build,
    burst,
    each_pool,
    ended,
    fail,
    hold,
    note,
    retry_twice,
    stage,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean_stage", "required")]


@pytest.fixture
def required(clean_stage: None) -> Iterator[None]:
    with override_settings(DJANGO_TASKS={**FAULTY, "REQUIRE_SIGNATURE": True}):
        yield


def message_of(number: int = 0) -> Message:
    """Return a call as it leaves before it is signed."""
    [message] = note.s(number).plan().messages
    return message


def error_of(message: Message) -> str:
    failure = results["default"].get([message.id])[message.id].failure
    assert failure is not None
    return f"{failure.type}: {failure.message}"


@each_pool
def test_calls_and_their_retries_run(pool):
    handles: list[AsyncResult[Any]] = [note.delay(1), retry_twice.delay(), at_most_once_retried.delay()]
    burst(pool)
    assert [handle.get(0) for handle in handles] == [1, 2, 2]


def test_what_is_not_signed_or_not_as_it_is_fails_unread(broker):
    unsigned = replace(message_of(), body=b"never opened", compression="application/x-gzip")
    changed = replace(sign(message_of()), body=b"[[7], {}, {}]")
    malformed = replace(message_of(), content_type="application/x-malformed")
    broker.publish([unsigned, changed, malformed])
    worker = burst()
    assert error_of(unsigned).startswith("SignatureError: the message is not signed")
    assert error_of(changed).startswith("SignatureError: the signature is not that of this message")
    assert error_of(malformed).startswith("SignatureError: the message is not signed")
    assert (stage.begun, broker.deliveries(), worker.failed) == ([], {}, 3)


def test_a_forged_task_that_was_to_run_at_most_once_leaves_its_failure(broker):
    [message] = at_most_once_retried.s().plan().messages
    broker.publish([message])
    burst()
    assert "SignatureError" in error_of(message)
    assert stage.begun == []


def test_a_message_that_comes_again_is_dropped_with_a_warning(broker, logged):
    messages = [sign(message_of(number)) for number in range(3)]
    broker.publish(messages)
    burst()
    broker.publish(messages)
    burst()
    assert len(stage.begun) == 3
    assert broker.deliveries() == {}
    assert [results["default"].get([each.id])[each.id].state for each in messages] == [states.SUCCESS] * 3
    warnings = [record for record in logged.records if "came again" in record.message]
    assert sum(record.messages for record in warnings) == 3


def test_a_message_that_is_too_old_fails(broker):
    old = sign(message_of(), clock=lambda: 1_600_000_000.0)
    broker.publish([old])
    burst()
    assert "SIGNATURE_MAX_AGE" in error_of(old)
    assert stage.begun == []
    young = sign(message_of(3), clock=lambda: 1_600_000_000.0)
    with override_settings(DJANGO_TASKS={**FAULTY, "REQUIRE_SIGNATURE": True, "SIGNATURE_MAX_AGE": None}):
        worker = build(burst=True)
        worker.broker.publish([young])
        worker.run()
    assert stage.begun == [young.id]


def test_a_failed_task_can_be_run_again_and_a_forged_one_cannot(broker):
    failed, forged = fail.delay(), message_of()
    broker.publish([forged])
    burst()
    report = actions.retry([failed.id, forged.id])
    assert {answer.id: answer.code for answer in report.answers} == {failed.id: "queued", forged.id: "not_signed"}
    burst()
    assert ended([failed]) == [states.FAILURE]
    assert results["default"].get([failed.id])[failed.id].attempts == 2


def test_what_a_worker_hands_back_holds_for_the_next(broker):
    handle = hold.delay()

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        worker.stop("cold")
        stage.gate.set()

    worker = build()
    Meanwhile(worker, story)
    burst()
    assert handle.get(0) >= 1


def test_results_that_cannot_be_asked_for_hand_the_batch_back(broker, store):
    store.faults.before["get"] = 1
    handle = note.delay(4)
    burst()
    assert handle.get(0) == 4
    assert store.faults.before["get"] == 0
