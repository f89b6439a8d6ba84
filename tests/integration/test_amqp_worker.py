"""Does a worker run on RabbitMQ as it does on a database?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import AsyncResult, bulk, states
from django_tasks.backends.amqp import AmqpBroker
from django_tasks.connections import brokers
from tests.integration.stage import (
    PATIENCE,
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
from tests.rabbit import Rabbit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["classic", "quorum"], autouse=True)
def rabbit(request: Any) -> Iterator[Rabbit]:
    stage.clear()
    rabbit = Rabbit(QUEUE_TYPE=request.param)
    rabbit.uses("default")
    settings = {"BROKERS": {"default": rabbit.entry}, "RESULTS": {"default": {"BACKEND": "memory"}}}
    with override_settings(DJANGO_TASKS=settings):
        yield rabbit
        stage.gate.set()
    rabbit.close()


@pytest.fixture
def broker(rabbit: Rabbit) -> AmqpBroker:
    found = brokers["default"]
    assert isinstance(found, AmqpBroker)
    return found


def ready(broker: AmqpBroker) -> int:
    return broker.stats(["default"])[0].ready


@each_pool
def test_a_burst_does_all_that_was_ready_and_all_that_comes_of_it(pool, broker):
    handles = bulk(note.s(number) for number in range(300))
    others: list[AsyncResult[Any]] = [retry_twice.delay(), at_most_once_retried.delay(), fail.delay()]
    worker = burst(pool)
    assert [handle.get(0) for handle in handles] == list(range(300))
    assert ended(others) == [states.SUCCESS, states.SUCCESS, states.FAILURE]
    assert worker.processed == 303
    assert ready(broker) == 0


@each_pool
def test_an_idle_worker_is_woken_by_each_task(pool, broker):
    def story() -> None:
        for number in range(10):
            began = time.monotonic()
            assert note.delay(number).get(PATIENCE) == number
            # Without being woken it would look every five seconds.
            assert time.monotonic() - began < 4.0
        worker.stop()

    worker = build(pool)
    Meanwhile(worker, story)


def test_a_task_with_a_countdown_runs_after_it(broker):
    def story() -> None:
        sent = time.monotonic()
        assert note.apply_async((7,), countdown=0.7).get(PATIENCE) == 7
        assert time.monotonic() - sent >= 0.7
        worker.stop()

    worker = build()
    Meanwhile(worker, story)


def test_a_worker_that_stops_hands_back_what_has_not_begun_and_it_is_not_counted(rabbit, broker):
    handles = bulk(hold.s() for _ in range(6))

    def story() -> None:
        stage.until(lambda: len(stage.begun) == 2)
        worker.stop()
        stage.gate.set()

    worker = build(size=2, prefetch=4)
    Meanwhile(worker, story)
    assert worker.processed == 2
    left = broker.fetch(["default"], 10, lease=30.0, consumer="w")
    assert sorted([*stage.ended, *(one.message.id for one in left)]) == sorted(handle.id for handle in handles)
    assert {one.deliveries for one in left} == {1}


def test_a_worker_goes_on_after_its_connection_was_lost(broker):
    def story() -> None:
        assert note.delay(1).get(PATIENCE) == 1
        for number in range(3):
            receiver: Any = broker._ends.receiver
            receiver._connection._connection.transport.sock.shutdown(socket.SHUT_RDWR)
            assert note.delay(number).get(PATIENCE) == number
        worker.stop()

    worker = build()
    Meanwhile(worker, story)


def test_a_task_whose_message_was_given_to_another_worker_is_settled_by_that_one_alone(rabbit, broker):
    handle = hold.delay()

    def story() -> None:
        stage.until(lambda: len(stage.begun) == 1)
        receiver: Any = broker._ends.receiver
        receiver._connection._connection.transport.sock.shutdown(socket.SHUT_RDWR)
        # The worker finds out, and takes the same message again.
        stage.until(lambda: len(stage.begun) == 2)
        stage.gate.set()
        handle.get(PATIENCE)
        worker.stop()

    worker = build(size=2, heartbeat=0.2, lease=1.0)
    Meanwhile(worker, story)
    assert handle.get(0) == 2
    assert worker.processed == 1
    assert ready(broker) == 0
