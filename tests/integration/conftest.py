"""What do tests of a worker in their own process find ready?"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import redis
from django.db import OperationalError, connections
from django.test import override_settings

from django_tasks.backends.redis import RedisBroker
from django_tasks.connections import brokers, results
from tests import redises
from tests.amazon import PrivateSqs, private_sqs
from tests.integration.stage import FAULTY, FaultyBroker, FaultyStore, Recorder, stage
from tests.periodic import settings_at
from tools.servers import PrivateRedis


@pytest.fixture
def clean_stage() -> Iterator[None]:
    stage.clear()
    with override_settings(DJANGO_TASKS=FAULTY):
        yield
    stage.gate.set()


@pytest.fixture
def in_database(alias: str) -> Iterator[None]:
    """Have messages and results in the database of the test."""
    with override_settings(DJANGO_TASKS=settings_at(alias)):
        yield


@pytest.fixture
def broker() -> FaultyBroker:
    found = brokers["default"]
    assert isinstance(found, FaultyBroker)
    return found


@pytest.fixture
def store() -> FaultyStore:
    found = results["default"]
    assert isinstance(found, FaultyStore)
    return found


@pytest.fixture
def refusing() -> Iterator[dict[str, int]]:
    """Have the worker's own connections refuse statements, each as often as said."""
    faults: dict[str, int] = {}

    def refuse(execute, sql, params, many, context):
        for pattern, times in faults.items():
            words = pattern.split(" .*")
            if times > 0 and all(word in sql for word in words):
                faults[pattern] -= 1
                raise OperationalError("the server has gone away")
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(refuse):
        yield faults
    assert not any(faults.values())


@pytest.fixture
def logged() -> Iterator[Recorder]:
    recorder = Recorder()
    root = logging.getLogger("django_tasks")
    root.addHandler(recorder)
    yield recorder
    root.removeHandler(recorder)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PrivateRedis]:
    """Run a Redis that tests may treat as they like, and leave as they found it."""
    with redises.private_redis() as server:
        yield server


@pytest.fixture(scope="session")
def sqs_server() -> Iterator[PrivateSqs]:
    """Run an SQS for tests that use queues with a name of their own."""
    with private_sqs() as server:
        yield server


@pytest.fixture
def client(redis_server: PrivateRedis) -> Iterator[redis.Redis]:
    """Give a client that looks behind the broker's back, and an empty server."""
    with redises.direct(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_broker(redis_server: PrivateRedis, client: redis.Redis) -> Iterator[RedisBroker]:
    broker = redises.open_broker(redis_server.url)
    yield broker
    broker.close()


@pytest.fixture
def on_redis(redis_server: PrivateRedis, client: redis.Redis) -> Iterator[redis.Redis]:
    """Have messages and results in Redis; give what looks behind their back."""
    stage.clear()
    with override_settings(DJANGO_TASKS=redises.settings_of(redis_server)):
        yield client
        brokers.close()
        results.close()
    stage.gate.set()
