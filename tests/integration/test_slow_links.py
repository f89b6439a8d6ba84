"""Is a queue behind a bad link slower and never wrong: late, narrow, and losing a piece now and then?"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_tasks import bulk, states
from django_tasks.backends.redis import RedisBroker
from django_tasks.connections import brokers, results
from django_tasks.models import QueuedMessage
from django_tasks.plan import Plan
from django_tasks.publisher import publish
from django_tasks.serializers import encode_body
from django_tasks.testing.contracts.harness import samples
from django_tasks.worker.relay import Relay
from tests import redises
from tests.integration.stage import Meanwhile, build, ended, note, stage
from tests.integration.wired import wired
from tests.wires import Slowness, Wire, wire_to

BAD = Slowness(latency=0.02, loss=0.2)
HALF_A_SECOND = replace(BAD, latency=0.25)
"""There and back."""
NARROW = Slowness(rate=300_000)

LARGE = "x" * 20_000

pytestmark = pytest.mark.django_db(databases=["default", "postgres"], transaction=True)


@pytest.fixture(params=["redis", "postgres", "rabbitmq"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Give the wire that leads to the server which keeps the messages; Redis and PostgreSQL keep the results too."""
    stage.clear()
    with wired(request.param) as wire:
        yield wire


def test_a_worker_behind_a_bad_link_runs_each_task_once(wire: Wire, thorough: bool):
    wire.slowness = HALF_A_SECOND if thorough else BAD
    handles = bulk(note.s(number) for number in range(10))
    worker = build()

    def story() -> None:
        assert [handle.get(60) for handle in handles] == list(range(10))
        worker.stop()

    Meanwhile(worker, story)
    assert Counter(stage.begun) == dict.fromkeys([handle.id for handle in handles], 1)
    assert all(not stats.ready and not stats.leased for stats in brokers["default"].stats(["default"]))


@pytest.fixture
def narrow(on_redis: redis.Redis, redis_server: Any) -> Iterator[Wire]:
    """Give a narrow wire to the Redis that keeps messages and results."""
    with wire_to("127.0.0.1", redis_server.port) as wire:
        yield wire


def behind(wire: Wire, **connection: Any) -> dict[str, Any]:
    location, options = f"redis://127.0.0.1:{wire.port}", {"KEY_PREFIX": "q", "CONNECTION": connection}
    entry = {"default": {"BACKEND": "redis", "LOCATION": location, "OPTIONS": options}}
    return {"BROKERS": entry, "RESULTS": entry}


@pytest.fixture
def waiting(redis_broker: RedisBroker) -> Iterator[None]:
    """Have another worker look at the queue, as often as a lease may have ended, and take nothing."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            redis_broker.wait(["default"], 0.1, stop)

    thread = threading.Thread(target=look)
    thread.start()
    yield
    stop.set()
    thread.join(30)


@pytest.mark.usefixtures("waiting")
def test_a_worker_fetches_no_more_than_comes_before_the_leases_end(narrow: Wire):
    handles = bulk(note.s(number).set(headers={"x": LARGE}) for number in range(30))
    with override_settings(DJANGO_TASKS=behind(narrow)):
        narrow.slowness = NARROW
        worker = build(lease=1.0, heartbeat=0.1)
        # As if short tasks had gone before: all of it is taken at once, and comes when its leases have ended.
        worker.lookahead.observe(0.0001)

        def story() -> None:
            assert [handle.get(30) for handle in handles] == list(range(30))
            worker.stop()

        Meanwhile(worker, story)
        brokers.close()
        results.close()
    assert set(ended(handles)) == {states.SUCCESS}
    # Without an end to what it asks for it would get all of it too late, each time again.
    assert Counter(stage.begun) == dict.fromkeys([handle.id for handle in handles], 1)


def test_an_outbox_behind_a_narrow_link_is_relayed_in_smaller_batches(narrow: Wire):
    narrow.slowness = Slowness(rate=200_000)
    body = encode_body((LARGE[:5000],), {}, {})
    with override_settings(DJANGO_TASKS=behind(narrow, socket_timeout=0.3)):
        sent = [replace(one, body=body, enqueue="transaction") for one in samples(40)]
        publish(Plan(tuple(sent)))
        assert QueuedMessage.objects.count() == 40
        relay = Relay(["default"], lease=30.0, consumer="w1")
        relay.start()
        try:
            redises.until(lambda: not QueuedMessage.objects.exists(), "the outbox is empty")
        finally:
            relay.stop()
        narrow.slowness = Slowness()
        assert sorted(one.id for one in brokers["default"].peek("default", 100)) == sorted(one.id for one in sent)
        brokers.close()
