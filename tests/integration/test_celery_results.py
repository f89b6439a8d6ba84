"""Does Celery read results that we keep in Redis, and we those that it keeps?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from celery import Celery
from django.test import override_settings

from django_tasks import states
from django_tasks.connections import brokers
from django_tasks.failure import capture
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.result import value_of
from django_tasks.results.celery_redis import CeleryRedisStore
from django_tasks.serializers import dumps
from tests import redises
from tests.integration.celery_sides import CeleryWorker, calls_and_reads, calls_theirs_and_reads
from tests.rabbit import Rabbit
from tests.settings import REDIS_URL

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery calls it

ROOT = Path(__file__).parents[2]
VALUE = [datetime(2026, 3, 29, 1, 30, tzinfo=UTC), Decimal("1.10"), UUID(int=7), b"x", "\u4e2d", {"a": None}]


@pytest.fixture
def prefix() -> Iterator[str]:
    with redises.own_prefix() as prefix:
        yield f"{prefix}:"


@pytest.fixture
def store(prefix: str) -> Iterator[CeleryRedisStore]:
    store = CeleryRedisStore("default", {"LOCATION": REDIS_URL, "OPTIONS": {"KEY_PREFIX": prefix}})
    yield store
    store.close()


@pytest.fixture
def client(prefix: str) -> Iterator[Celery]:
    with Celery("client", backend=REDIS_URL, broker="memory://", set_as_current=False) as app:
        app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
        yield app
        app.backend.client.close()


def failure(error: Exception) -> Result:
    try:
        raise error
    except type(error) as raised:
        return Result(id=new_id(), state=states.FAILURE, failure=capture(raised), task="t", ended_at=datetime.now(UTC))


def test_celery_reads_our_values(store, client):
    other = Result(id=new_id(), state=states.SUCCESS, value=dumps(VALUE), task="t", ended_at=datetime.now(UTC))
    done = replace(other, id=new_id(), children='[[["child",null],null]]')
    store.save([done, other])
    found = client.AsyncResult(done.id)
    assert found.state == "SUCCESS"
    assert found.result == VALUE
    assert [child.id for child in found.children] == ["child"]
    assert client.AsyncResult(other.id).children == []


def test_celery_reads_our_failures(store, client):
    failed = failure(ValueError("as told", 3))
    store.save([failed])
    found = client.AsyncResult(failed.id)
    assert found.state == "FAILURE"
    assert isinstance(found.result, ValueError)
    assert found.result.args == ("as told", 3)
    assert "as told" in found.traceback


def test_we_read_celerys_values_and_failures(store, client):
    done, failed, empty, running = (new_id() for _ in range(4))
    client.backend.store_result(done, VALUE, "SUCCESS")
    client.backend.store_result(empty, None, "SUCCESS")
    client.backend.store_result(failed, ValueError("as told", 3), "FAILURE", traceback="there")
    client.backend.store_result(running, {"at": 3}, "PROGRESS")
    found = store.get([done, failed, empty, running])
    assert value_of(found[done]) == VALUE
    assert found[done].ended_at is not None
    assert value_of(found[empty]) is None
    error = value_of(found[failed])
    assert (type(error), error.args) == (ValueError, ("as told", 3))
    assert found[failed].failure.traceback == "there"
    assert (found[running].state, value_of(found[running])) == ("PROGRESS", {"at": 3})
    assert set(store.wait([running, done], 10)) == {done}


def test_an_exception_of_an_unknown_class_is_made_up_and_nothing_is_imported_for_it(store, client):
    failed = new_id()
    error = {"exc_type": "Odd", "exc_message": ["x"], "exc_module": "antigravity"}
    client.backend.set(
        client.backend.get_key_for_task(failed),
        client.backend.encode({"task_id": failed, "status": "FAILURE", "result": error}),
    )
    assert "antigravity.Odd: x" in str(value_of(store.get([failed])[failed]))
    assert "antigravity" not in sys.modules


@pytest.mark.django_db(transaction=True)
def test_a_celery_client_calls_our_worker_and_reads_what_came_of_it(client, prefix):
    rabbit = Rabbit(PRIORITIES=False)
    rabbit.uses("ours")
    kept = {"BACKEND": "celery-redis", "LOCATION": REDIS_URL, "OPTIONS": {"KEY_PREFIX": prefix}}
    client.conf.update(broker_url=rabbit.url, task_default_queue=rabbit.name("ours"))
    with override_settings(DJANGO_TASKS={"BROKERS": {"default": rabbit.entry}, "RESULTS": {"default": kept}}):
        calls_and_reads(client)
        brokers.close()
    rabbit.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(180)
def test_our_client_calls_a_celery_worker_and_reads_what_came_of_it(prefix, tmp_path):
    rabbit = Rabbit(PRIORITIES=False)
    rabbit.uses("theirs")
    kept = {"BACKEND": "celery-redis", "LOCATION": REDIS_URL, "OPTIONS": {"KEY_PREFIX": prefix}}
    worker = CeleryWorker(rabbit, tmp_path, INTEROP_RESULTS=REDIS_URL, INTEROP_PREFIX=prefix)
    try:
        with override_settings(DJANGO_TASKS={"BROKERS": {"default": rabbit.entry}, "RESULTS": {"default": kept}}):
            calls_theirs_and_reads(worker)
            brokers.close()
    finally:
        worker.close()
        rabbit.close()
