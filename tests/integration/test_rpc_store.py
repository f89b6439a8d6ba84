"""Do results find their way back through RabbitMQ, and what becomes of those that cannot?"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import amqp
import pytest
from django.test import override_settings

from django_tasks import AsyncResult, Task, states, task
from django_tasks.connections import brokers, results
from django_tasks.exceptions import ConfigurationError, StoreUnavailable, TaskRevoked
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.results.rpc import RpcStore
from tests.integration.stage import Meanwhile, build, burst, note, stage
from tests.rabbit import connected
from tests.replies import NOWHERE, PATIENCE, BothSides, delete, ready
from tests.settings import AMQP_URL

RPC = {"BACKEND": "rpc", "LOCATION": AMQP_URL}


@task(bind=True, name="rpc.stubborn", default_retry_delay=0)
def stubborn(self: Task[..., str]) -> str:
    self.update_state(state="PROGRESS", meta={"at": self.request.retries})
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return "done"


def ended(reply_to: str = "", value: bytes = b"1") -> Result:
    return Result(
        id=new_id(), state=states.SUCCESS, value=value, task="t", ended_at=datetime.now(UTC), reply_to=reply_to
    )


def site(results: Mapping[str, object]) -> override_settings:
    stage.clear()
    return override_settings(
        DJANGO_TASKS={"BROKERS": {"default": {"BACKEND": "memory"}}, "RESULTS": {"default": results}}
    )


@pytest.fixture
def sides() -> Iterator[BothSides]:
    sides = BothSides()
    yield sides
    sides.close()
    # Where nobody consumed it has not gone by itself.
    delete(sides.queue)


def send(queue: str, body: bytes, **properties: str) -> None:
    with connected(AMQP_URL) as connection:
        connection.channel().basic_publish(amqp.Message(body, **properties), routing_key=queue)


# A worker and its caller


@pytest.mark.django_db(transaction=True)
def test_a_caller_gets_what_a_worker_made_of_its_calls_through_retries_and_from_many_threads():
    with site(RPC):
        handles = [note.delay(number) for number in range(8)]
        patient = stubborn.delay()
        worker = build()

        def story() -> None:
            with ThreadPoolExecutor(8) as executor:
                assert [*executor.map(lambda one: one.get(PATIENCE), handles)] == [*range(8)]
            assert patient.get(PATIENCE) == "done"
            worker.stop()

        Meanwhile(worker, story)


@pytest.mark.django_db(transaction=True)
def test_results_that_came_before_anybody_asked_are_there_at_the_first_question():
    with site(RPC):
        sent = [note.delay(number) for number in range(3)]
        queue = results["default"].reply_to()
        burst()
        assert ready(queue) == 3
        assert [one.result for one in sent] == [0, 1, 2]
        assert ready(queue) == 0
        sent[0].forget()
        assert AsyncResult(sent[0].id).state == states.PENDING


@pytest.mark.django_db(transaction=True)
def test_a_caller_learns_that_its_task_was_revoked_before_it_began():
    with site(RPC):
        sent = note.delay()
        sent.revoke()
        with pytest.raises(TaskRevoked):
            sent.get(PATIENCE)


def test_calls_that_want_no_result_need_no_server_and_others_are_refused_before_they_are_sent():
    with site({**RPC, "LOCATION": NOWHERE}):
        assert note.apply([7]).get() == 7
        note.apply_async(ignore_result=True)
        with pytest.raises(StoreUnavailable, match="The rpc store 'default'"):
            note.delay()
        [waiting] = brokers["default"].stats(["default"])
        assert waiting.ready == 1


def test_a_header_of_the_callers_own_sends_the_result_elsewhere():
    with site(RPC):
        note.apply_async(headers={"reply_to": "elsewhere"})
        [message] = brokers["default"].peek("default", 1)
        assert message.reply_to == "elsewhere"


# Replies


def test_a_worker_drops_what_nobody_waits_for_and_delivers_the_rest_of_the_batch(sides: BothSides):
    wanted, gone = ended(sides.queue), "reply.that.is.gone"
    sides.worker.save([ended(gone), wanted, ended(""), ended("x" * 300), ended(gone)])
    assert set(sides.wait([wanted.id], PATIENCE)) == {wanted.id}
    assert ready(gone) is None


def test_a_result_too_large_for_one_frame_arrives_whole(sides: BothSides):
    large = ended(value=b'"' + b"x" * 700_000 + b'"')
    sides.save([large])
    assert sides.get([large.id])[large.id].value == large.value


def test_no_other_process_sees_a_result(sides: BothSides):
    done = ended()
    sides.save([done])
    assert sides.worker.get([done.id]) == {}
    assert sides.worker.wait([done.id], 0) == {}


def test_what_is_no_result_is_passed_over(sides: BothSides):
    queue = sides.queue
    for body in (b"\x80pickle", b"[]", b'{"task_id": "x", "status": 7}', b"[" * 5000):
        send(queue, body)
        send(queue, body, correlation_id="x")
    send(queue, b'{"task_id": 7, "status": "SUCCESS"}')
    send(queue, b'{"task_id": "theirs", "status": "SUCCESS", "result": 5}')
    assert sides.wait(["theirs"], PATIENCE)["theirs"].value == b"5"
    assert set(sides.get(["x", "theirs"])) == {"theirs"}


def test_who_waits_is_told_when_the_queue_is_lost_and_the_next_results_arrive(sides: BothSides):
    sides.save([ended()])
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        sides.wait(["never"], None)

    with ThreadPoolExecutor(1) as executor:
        told = executor.submit(wait)
        assert waiting.wait(PATIENCE)
        # It may not wait yet: a loss before that is no loss to it.
        while not told.done():
            delete(sides.queue)
        with pytest.raises(StoreUnavailable, match="may be lost"):
            told.result(PATIENCE)
    done = ended()
    sides.save([done])
    assert set(sides.wait([done.id], PATIENCE)) == {done.id}


def test_a_forked_process_has_a_queue_of_its_own(sides: BothSides):
    done = ended()
    sides.save([done])
    queue = sides.queue
    child = os.fork()
    if child == 0:
        try:
            other = sides.queue
            mine = ended()
            sides.save([mine])
            right = other != queue and set(sides.get([mine.id, done.id])) == {mine.id}
            sides.close()
            os._exit(0 if right else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    later = ended()
    sides.save([later])
    assert (sides.queue, set(sides.get([later.id, done.id]))) == (queue, {later.id, done.id})


def test_the_queue_is_durable_and_goes_with_its_reader(sides: BothSides):
    queue = sides.queue
    with connected(AMQP_URL) as connection:
        # As it stands in the settings; raises when any of it is otherwise.
        connection.channel().queue_declare(
            queue,
            durable=True,
            auto_delete=True,
            exclusive=False,
            arguments={"x-max-length": 10_000, "x-expires": 86_400_000, "x-message-ttl": 86_400_000},
        )
    sides.save([ended()])
    sides.close()
    assert ready(queue) is None


def test_a_worker_is_told_when_no_server_answers():
    worker = RpcStore("default", {"LOCATION": NOWHERE})
    worker.save([ended("")])
    with pytest.raises(StoreUnavailable, match="No server answers"):
        worker.save([ended("somewhere")])


# Settings


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"LOCATION": "redis://127.0.0.1"}, "LOCATION is the URL of a RabbitMQ"),
        ({"OPTIONS": {"QUEUE_TYPE": "quorum"}}, "no option 'QUEUE_TYPE'; it has PREFIX, TLS"),
        ({"OPTIONS": {"HEARTBEAT": "often"}}, "The rpc store 'default': HEARTBEAT is a number of seconds"),
        ({"OPTIONS": {"EXPIRES": 60}}, "EXPIRES is a timedelta"),
        ({"OPTIONS": {"EXPIRES": timedelta(0)}}, "EXPIRES is a timedelta"),
    ],
    ids=["transport", "option", "value", "expires", "expired"],
)
def test_settings_that_cannot_be_are_refused(params: dict[str, object], told: str):
    with pytest.raises(ConfigurationError, match=told):
        RpcStore("default", params)


def test_the_doctor_says_what_the_server_is(sides: BothSides):
    diagnosis = sides.caller.diagnose()
    assert diagnosis.what.startswith("RabbitMQ ")
    assert sides.caller.diagnose(ask=False).what == "RabbitMQ"
    with pytest.raises(StoreUnavailable):
        RpcStore("default", {"LOCATION": NOWHERE}).diagnose()
