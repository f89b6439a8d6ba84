"""Does a worker run its tasks from Redis, and keep their results there?"""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from django_tasks import AsyncResult, bulk, states
from django_tasks.backends.redis import RedisBroker
from django_tasks.connections import brokers
from django_tasks.exceptions import ConfigurationError
from tests import redises
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

pytestmark = pytest.mark.django_db(transaction=True)


@each_pool
def test_a_burst_leaves_results_and_nothing_else(pool, on_redis):
    handles = bulk(note.s(number) for number in range(300))
    failed, retried = fail.delay(), retry_twice.delay()
    worker = burst(pool)
    assert [handle.get(0) for handle in handles] == list(range(300))
    assert ended([failed, retried]) == [states.FAILURE, states.SUCCESS]
    assert isinstance(failed.get(0, propagate=False), ValueError)
    assert stage.begun.count(str(retried.id)) == 3
    assert worker.processed == 302
    assert redises.is_empty(on_redis)


def test_what_is_signed_runs_however_it_gets_there(on_redis, redis_server):
    def story() -> None:
        with transaction.atomic():
            relayed = note.apply_async((1,), enqueue="transaction")
            committed = note.apply_async((2,), enqueue="on_commit")
        assert [relayed.get(PATIENCE), committed.get(PATIENCE), retry_twice.delay().get(PATIENCE)] == [1, 2, 2]
        assert at_most_once_retried.delay().get(PATIENCE) == 2
        worker.stop()

    with override_settings(DJANGO_TASKS={**redises.settings_of(redis_server), "REQUIRE_SIGNATURE": True}):
        worker = build()
        Meanwhile(worker, story)
        assert redises.is_empty(on_redis)
        brokers.close()


def test_a_worker_with_nothing_to_do_begins_a_task_as_soon_as_it_is_sent(on_redis):
    taken = []

    def story() -> None:
        note.delay().get(PATIENCE)
        for _ in range(5):
            sent = time.monotonic()
            assert note.delay(7).get(PATIENCE) == 7
            taken.append(time.monotonic() - sent)
        sent = time.monotonic()
        note.apply_async(countdown=0.5).get(PATIENCE)
        assert time.monotonic() - sent >= 0.5
        worker.stop()

    worker = build()
    Meanwhile(worker, story)
    # A look every two seconds is what it would take without being woken.
    assert min(taken) < 0.5


def test_what_runs_when_a_server_with_a_file_is_killed_ends_once():
    stage.clear()
    with (
        redises.private_redis("--appendonly", "yes") as server,
        override_settings(DJANGO_TASKS=redises.settings_of(server)),
    ):
        handles: list[AsyncResult[Any]] = []

        def story() -> None:
            handles.extend(bulk([hold.s(), *(note.s(number) for number in range(200))]))
            stage.until(lambda: bool(stage.begun))
            server.stop(kill=True)
            stage.gate.set()
            server.start()
            for handle in handles:
                handle.get(PATIENCE)
            # Also those that were sent afterwards.
            assert note.delay(1).get(PATIENCE) == 1
            worker.stop()

        worker = build(lease=10.0, heartbeat=1.0)
        Meanwhile(worker, story)
        assert set(ended(handles)) == {states.SUCCESS}
        assert handles[0].get(0) == 1
        with redises.direct(server.url) as client:
            assert redises.is_empty(client)
        brokers.close()


def test_a_worker_does_not_start_on_a_server_that_evicts_messages():
    server = redises.private_redis("--maxmemory-policy", "allkeys-lfu")
    with server as found, override_settings(DJANGO_TASKS=redises.settings_of(found)):
        with pytest.raises(ConfigurationError, match="allkeys-lfu"):
            burst()
        assert isinstance(brokers["default"], RedisBroker)
        brokers.close()
