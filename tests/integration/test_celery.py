"""Do Celery's clients and workers understand us, and we them?"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from django.test import override_settings

from django_tasks import Task, send_task, states, task
from django_tasks.backends.amqp import AmqpBroker
from django_tasks.connections import brokers
from tests.integration.celery_sides import CeleryWorker, calls_and_reads, calls_theirs_and_reads, ended, site_on, value
from tests.rabbit import Rabbit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
NEVER = threading.Event()
VALUES = (
    datetime(2026, 3, 29, 1, 30, 0, 5, tzinfo=UTC),
    date(2026, 3, 29),
    Decimal("1.10"),
    UUID(int=7),
    b"\xff\x00",
    "中文",
    [1, 2.5, None, {"a": True}],
)


@task(bind=True, name="ours.echo")
def echo(self: Task[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    request = self.request
    return {
        "args": [*args],
        "kwargs": kwargs,
        "retries": request.retries,
        "timelimit": [*request.timelimit],
        "eta": request.eta,
        "expires": request.expires,
        "headers": dict(request.headers),
        "priority": request.message.priority,
        "root_id": request.root_id,
    }


@task(bind=True, name="ours.retry_once", max_retries=3)
def retry_once(self: Task[..., Any]) -> int:
    if self.request.retries < 1:
        self.retry(countdown=0.5)
    return self.request.retries


@task(bind=True, name="ours.relay")
def relay(self: Task[..., Any], queue: str) -> None:
    """Send a task to Celery, from inside one that came from there."""
    send_task("interop.note", ["relayed"], queue=queue)


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    # As Celery declares its queues.
    rabbit = Rabbit(PRIORITIES=False)
    rabbit.uses("theirs", "ours")
    yield rabbit
    rabbit.close()


@pytest.fixture(autouse=True)
def site(rabbit: Rabbit) -> Iterator[dict[str, Any]]:
    with site_on(rabbit) as keys:
        yield keys


# Our client, Celery's worker


@pytest.fixture(scope="module")
def worker(rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(rabbit, tmp_path_factory.mktemp("celery"), INTEROP_RESULTS="rpc://")
    yield worker
    worker.close()


def test_a_celery_worker_runs_what_we_send_with_the_values_that_we_sent(worker: CeleryWorker):
    sent = send_task(
        "interop.note",
        VALUES,
        {"when": VALUES[0]},
        queue="theirs",
        time_limit=30,
        soft_time_limit=20,
        expires=3600,
        headers={"tenant": "blue"},
        priority=100,
    )
    [seen] = worker.seen(sent.id)
    assert seen["args"] == [repr(value) for value in VALUES]
    assert seen["kwargs"] == {"when": repr(VALUES[0])}
    assert seen["timelimit"] == [30, 20]
    assert seen["root_id"] == sent.id
    assert seen["tenant"] == "blue"
    assert datetime.fromisoformat(seen["expires"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert seen["argsrepr"].startswith("(datetime.datetime(2026")
    assert seen["origin"].startswith(f"gen{os.getpid()}@")


def test_a_celery_worker_reads_what_we_compress(worker: CeleryWorker):
    sent = send_task("interop.note", ["x" * 500], queue="theirs", compression="zlib")
    [seen] = worker.seen(sent.id)
    assert seen["args"] == [repr("x" * 500)]


def test_a_celery_worker_gets_a_task_when_it_is_due(worker: CeleryWorker):
    began = time.time()
    sent = send_task("interop.note", queue="theirs", countdown=1.5)
    [seen] = worker.seen(sent.id)
    assert time.time() >= began + 1.5
    assert datetime.fromisoformat(seen["eta"]).timestamp() >= began + 1.4


def test_a_celery_worker_revokes_what_has_expired(worker: CeleryWorker):
    sent = send_task("interop.note", queue="theirs", expires=-5)
    worker.said("Discarding revoked task", sent.id)
    assert not [line for line in worker.file.read_text().splitlines() if sent.id in line]


def test_a_celery_worker_retries_what_we_sent(worker: CeleryWorker):
    sent = send_task("interop.retry_once", queue="theirs")
    assert [seen["retries"] for seen in worker.seen(sent.id, 2)] == [0, 1]


def test_a_celery_worker_sends_us_what_came_of_our_calls(worker: CeleryWorker, rabbit: Rabbit, site: dict[str, Any]):
    kept = {"BACKEND": "rpc", "LOCATION": rabbit.url}
    with override_settings(DJANGO_TASKS={**site, "RESULTS": {"default": kept}}):
        calls_theirs_and_reads(worker)


# Celery's client, our worker


@pytest.fixture
def client(rabbit: Rabbit) -> Iterator[Celery]:
    with Celery("client", broker=rabbit.url, set_as_current=False) as app:
        app.conf.update(task_ignore_result=True, task_default_queue=rabbit.name("ours"))
        yield app


def test_our_worker_runs_what_celery_sends_with_the_values_that_it_sent(client: Celery):
    sent = client.send_task(
        "ours.echo",
        args=VALUES,
        kwargs={"when": VALUES[0]},
        time_limit=30,
        soft_time_limit=20,
        expires=3600,
        headers={"tenant": "blue"},
        priority=9,
        retries=1,
    )
    seen = value(ended(sent.id))
    assert seen["args"] == [*VALUES]
    assert seen["kwargs"] == {"when": VALUES[0]}
    assert seen["timelimit"] == [30, 20]
    assert seen["retries"] == 1
    assert seen["priority"] == 100
    assert seen["root_id"] == sent.id
    assert seen["headers"]["tenant"] == "blue"
    assert seen["expires"] > datetime.now(UTC) + timedelta(minutes=50)


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
def test_our_worker_reads_what_celery_writes_and_compresses(client: Celery, site: dict[str, Any], serializer: str):
    with override_settings(DJANGO_TASKS={**site, "ACCEPT": ["json", "msgpack", "yaml"]}):
        sent = client.send_task("ours.echo", args=["x" * 500, 2.5], serializer=serializer, compression="zlib")
        assert value(ended(sent.id))["args"] == ["x" * 500, 2.5]


def test_our_worker_runs_what_celery_sends_for_later_when_it_is_due(client: Celery):
    began = time.time()
    sent = client.send_task("ours.echo", countdown=1)
    seen = value(ended(sent.id))
    assert time.time() >= began + 1
    assert seen["eta"].timestamp() >= began + 0.9


def test_our_worker_revokes_what_has_expired(client: Celery, rabbit: Rabbit):
    # Celery tells the server as well, which then drops it; unless it has been delivered before.
    past = datetime.now(UTC) - timedelta(seconds=5)
    message = client.amqp.as_task_v2("expired-1", "ours.echo", expires=past)
    with client.producer_pool.acquire(block=True) as producer:
        producer.publish(message.body, routing_key=rabbit.name("ours"), headers=message.headers)
    assert ended("expired-1").state == states.REVOKED


def test_our_worker_retries_what_celery_sent(client: Celery):
    assert value(ended(client.send_task("ours.retry_once").id)) == 1


def test_a_task_of_celerys_that_nobody_knows_ends_as_a_failure(client: Celery):
    result = ended(client.send_task("nobody.knows").id)
    assert result.state == states.FAILURE
    assert result.failure is not None
    assert result.failure.type == "NotRegistered"


def test_a_task_of_celerys_that_nobody_knows_yet_is_held_as_long_as_the_settings_say(
    client: Celery, site: dict[str, Any]
):
    with override_settings(DJANGO_TASKS={**site, "UNKNOWN_TASKS_WAIT": timedelta(seconds=1.5)}):
        began = time.time()
        result = ended(client.send_task("nobody.knows").id)
        assert time.time() >= began + 1.5
    assert (result.state, result.attempts) == (states.FAILURE, 1)


def test_a_task_goes_from_celery_to_us_and_on_to_celery(client: Celery, worker: CeleryWorker):
    sent = client.send_task("ours.relay", args=["theirs"])
    assert ended(sent.id).state == states.SUCCESS
    deadline = time.monotonic() + PATIENCE
    while "relayed" not in (worker.file.read_text() if worker.file.exists() else ""):
        assert time.monotonic() < deadline
        NEVER.wait(0.05)
    [line] = [line for line in map(json.loads, worker.file.read_text().splitlines()) if line["root_id"] == sent.id]
    assert line["args"] == ["'relayed'"]


def test_a_celery_client_gets_back_what_our_worker_made_of_its_calls(rabbit: Rabbit, site: dict[str, Any]):
    kept = {"BACKEND": "rpc", "LOCATION": rabbit.url}
    with (
        override_settings(DJANGO_TASKS={**site, "RESULTS": {"default": kept}}),
        Celery("asking", broker=rabbit.url, backend="rpc://", set_as_current=False) as app,
    ):
        app.conf.task_default_queue = rabbit.name("ours")
        calls_and_reads(app)
        # Its thread's connection; the queue goes with it.
        app.backend.result_consumer.stop()


def test_a_bare_queue_of_celerys_is_left_as_it_was(client: Celery, rabbit: Rabbit):
    assert isinstance(brokers["default"], AmqpBroker)
    client.send_task("ours.echo")
    with rabbit.channel() as channel:
        # Raises when the arguments are not the same.
        channel.queue_declare(rabbit.name("ours"), durable=True, auto_delete=False)
