"""What happens to tasks on RabbitMQ when their workers die?"""

from __future__ import annotations

import signal

import pytest

from django_tasks import bulk, states
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.vendors import each_vendor

pytestmark = [each_vendor("sqlite", transaction=True), pytest.mark.brokers("amqp")]


def test_workers_that_are_killed_lose_nothing(site: Site):
    handles = bulk(tasks.pause.s(str(site.ledger), 0.02) for _ in range(90))
    for _ in range(2):
        ended = len(site.ledger.lines("end"))
        worker = site.worker()
        site.until(lambda: len(site.ledger.lines("end")) > ended + 10, "some tasks have ended")  # noqa: B023  # at once
        worker.send(signal.SIGKILL, group=True)
    site.worker()
    assert set(site.ended(*handles)) == {states.SUCCESS}
    started = site.ledger.count()
    assert set(started) == {handle.id for handle in handles}
    # Once more for each worker that held it when it was killed.
    assert max(started.values()) <= 3
    site.until(site.quiet, "nothing is left in the queue")


def test_a_task_that_kills_its_worker_each_time_is_given_up(site: Site):
    poison = tasks.kill_worker.delay(str(site.ledger))
    others = bulk(tasks.note.s(str(site.ledger)) for _ in range(20))
    for number in (1, 2, 3):
        worker = site.worker("-c", "1")
        assert worker.wait() != 0, number
    site.worker("-c", "1")
    assert site.ended(poison, *others) == [states.FAILURE, *[states.SUCCESS] * 20]
    assert site.ledger.count()[poison.id] == 3
    assert "took its worker process down" in str(poison.result)
