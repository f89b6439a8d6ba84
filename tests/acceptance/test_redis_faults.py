"""What happens to tasks in Redis when their worker or the server is killed?"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.db import transaction
from django.test import override_settings

from django_tasks import bulk, states
from django_tasks.connections import brokers
from django_tasks.models import QueuedMessage
from tests import redises
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.vendors import each_vendor
from tools.servers import PrivateRedis

pytestmark = [each_vendor("sqlite", transaction=True), pytest.mark.brokers("redis")]


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with redises.private_redis("--appendonly", "yes", "--appendfsync", "everysec") as server:
        yield server


@pytest.fixture
def client(server: PrivateRedis) -> Iterator[redis.Redis]:
    with redises.direct(server.url) as client:
        yield client


@pytest.fixture
def redis_site(site: Site, server: PrivateRedis) -> Iterator[Site]:
    """Give a site whose messages and results are in Redis; workers are in the database."""
    entry: dict[str, Any] = {"default": {"BACKEND": "redis", "LOCATION": server.url, "OPTIONS": {"KEY_PREFIX": "q"}}}
    site.settings |= {"BROKERS": entry, "RESULTS": entry}
    with override_settings(DJANGO_TASKS=site.settings):
        yield site
        brokers.close()


def is_quiet(client: redis.Redis) -> bool:
    return not client.exists("q:messages", "q:tries", "q:{default}:leased")


def test_a_worker_killed_with_all_its_children_loses_nothing(redis_site: Site, client: redis.Redis):
    site = redis_site
    first = site.worker()
    handles = bulk(tasks.pause.s(str(site.ledger), 0.01) for _ in range(200))
    settled = site.settled(handles)
    first.send(signal.SIGKILL, group=True)
    site.worker()
    assert set(site.ended(*handles)) == {states.SUCCESS}
    started = site.ledger.count()
    assert set(started) == {handle.id for handle in handles}
    # Those that had ended and were not settled yet run again.
    assert all(started[task_id] == 1 for task_id in settled)
    assert max(started.values()) <= 2
    site.until(lambda: is_quiet(client), "nothing is left in the queue")


def test_workers_go_on_after_each_time_that_the_server_was_killed(redis_site: Site, server: PrivateRedis):
    site = redis_site
    worker = site.worker(LEASE=10.0)
    handles = []
    for _ in range(3):
        handles += bulk(tasks.pause.s(str(site.ledger), 0.005) for _ in range(60))
        middle = handles[-30].id
        site.until(lambda: middle in site.ledger.count(), "half of them have begun")  # noqa: B023
        server.stop(kill=True)
        server.start()
    assert set(site.ended(*handles)) == {states.SUCCESS}
    with redises.direct(server.url) as client:
        site.until(lambda: is_quiet(client), "nothing is left in the queue")
    assert set(site.ledger.count()) == {handle.id for handle in handles}
    assert worker.stop() == 0


def test_a_worker_says_why_it_does_not_start_on_a_server_that_evicts_messages(redis_site: Site, client: redis.Redis):
    client.config_set("maxmemory-policy", "allkeys-lru")
    worker = redis_site.worker(ready=False)
    assert worker.wait() == 1
    assert "allkeys-lru" in worker.output
    assert "Traceback" not in worker.output


def test_what_is_sent_with_a_transaction_waits_for_a_server_that_is_down(redis_site: Site, server: PrivateRedis):
    site = redis_site
    worker = site.worker()
    server.stop()
    with transaction.atomic():
        handles = [tasks.note.apply_async((str(site.ledger),), enqueue="transaction") for _ in range(20)]
        promised = tasks.note.delay(str(site.ledger))
    # It was to be sent at the commit, and went the same way when it could not be.
    assert QueuedMessage.objects.filter(broker="default").count() == 21
    server.start()
    assert set(site.ended(*handles, promised)) == {states.SUCCESS}
    assert set(site.ledger.count().values()) == {1}
    site.until(site.quiet, "the outbox is empty")
    assert worker.stop() == 0
