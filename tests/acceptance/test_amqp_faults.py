"""What happens to tasks on RabbitMQ when their workers die?"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from django.test import override_settings

from django_tasks import bulk, states
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.rabbit import Rabbit
from tests.vendors import each_vendor

pytestmark = each_vendor("sqlite", transaction=True)


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    rabbit = Rabbit()
    rabbit.uses("default")
    yield rabbit
    rabbit.close()


@pytest.fixture
def bus(site: Site, rabbit: Rabbit) -> Iterator[Site]:
    """Give a site whose messages wait on RabbitMQ, and whose results are in the database."""
    site.settings |= {"BROKERS": {"default": rabbit.entry}}
    results = {"default": {"BACKEND": "database", "OPTIONS": {"USING": site.alias}}}
    with override_settings(DJANGO_TASKS={**site.settings, "RESULTS": results}):
        yield site
        for worker in site.workers:
            worker.kill()


def test_workers_that_are_killed_lose_nothing(bus: Site, rabbit: Rabbit):
    handles = bulk(tasks.pause.s(str(bus.ledger), 0.02) for _ in range(90))
    for _ in range(2):
        ended = len(bus.ledger.lines("end"))
        worker = bus.worker()
        bus.until(lambda: len(bus.ledger.lines("end")) > ended + 10, "some tasks have ended")  # noqa: B023  # at once
        worker.send(signal.SIGKILL, group=True)
    bus.worker()
    assert set(bus.ended(*handles)) == {states.SUCCESS}
    started = bus.ledger.count()
    assert set(started) == {handle.id for handle in handles}
    # Once more for each worker that held it when it was killed.
    assert max(started.values()) <= 3
    broker = rabbit.open()
    bus.until(lambda: broker.stats(["default"])[0].ready == 0, "nothing is left in the queue")


def test_a_task_that_kills_its_worker_each_time_is_given_up(bus: Site):
    poison = tasks.kill_worker.delay(str(bus.ledger))
    others = bulk(tasks.note.s(str(bus.ledger)) for _ in range(20))
    for number in (1, 2, 3):
        worker = bus.worker("-c", "1")
        assert worker.wait() != 0, number
    bus.worker("-c", "1")
    assert bus.ended(poison, *others) == [states.FAILURE, *[states.SUCCESS] * 20]
    assert bus.ledger.count()[poison.id] == 3
    assert "took its worker process down" in str(poison.result)


def test_a_warm_stop_finishes_what_runs_and_hands_back_the_rest(bus: Site, rabbit: Rabbit):
    worker = bus.worker()
    gate = bus.gate()
    running = bulk(tasks.hold.s(str(bus.ledger), str(gate)) for _ in range(2))
    bus.until(lambda: len(bus.ledger.lines("start")) == 2, "both slots are busy")
    waiting = bulk(tasks.note.s(str(bus.ledger)) for _ in range(5))
    worker.send(signal.SIGTERM)
    worker.wait_for("stopping")
    gate.open()
    if len(bus.ledger.lines("end")) < 2:
        gate.open()
    assert worker.wait() == 0
    assert bus.ended(*running) == [states.SUCCESS] * 2
    found = rabbit.open().fetch(["default"], 10, lease=30.0, consumer="w")
    assert sorted(one.message.id for one in found) == sorted(handle.id for handle in waiting)
