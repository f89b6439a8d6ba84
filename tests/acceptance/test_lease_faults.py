"""What happens to tasks whose worker freezes, or wakes again too late?"""

from __future__ import annotations

import signal
import time

import pytest

from django_tasks import states
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.app.models import Note
from tests.vendors import each_vendor

pytestmark = each_vendor(transaction=True)


@pytest.mark.parametrize("how", ["return", "raise", "retry", "progress"])
def test_a_worker_that_wakes_after_its_lease_changes_nothing(site: Site, how: str):
    if site.kind == "amqp":
        # There what a worker holds is lost with its connection, which the server ends after two silent heartbeats.
        site.settings["BROKERS"]["default"]["OPTIONS"]["HEARTBEAT"] = 2
    zombie = site.worker()
    gate = site.gate()
    result = tasks.hold_then.delay(str(site.ledger), str(gate), how)
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    zombie.send(signal.SIGSTOP, group=True)
    rescuer = site.worker()
    assert result.get(30) == 2
    ended_at = result.date_done
    zombie.send(signal.SIGCONT, group=True)
    # It either finds out by its heartbeat, or when it writes down what came of the run.
    zombie.wait_for("no longer held")
    assert zombie.stop() == 0
    known = result.fetch()
    assert (known.state, result.get(1), known.ended_at, known.attempts) == (states.SUCCESS, 2, ended_at, 2)
    assert [line.attempt for line in site.ledger.lines("start")] == [1, 2]
    assert rescuer.stop() == 0
    site.until(site.quiet, "nothing is left in the queue")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_that_holds_the_interpreter_lock_for_several_leases_runs_once(site: Site, pool: str):
    first = site.worker("-P", pool, "-c", "1", LEASE=2.0, HEARTBEAT=0.3)
    began = time.monotonic()
    result = tasks.hog.delay(str(site.ledger), 5)
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    other = site.worker("-c", "1", LEASE=2.0, HEARTBEAT=0.3)
    assert result.get(60) == 1
    took = time.monotonic() - began
    assert site.ledger.count()[result.id] == 1
    assert took > 2 * 2.0, "the task was too short to prove anything"
    assert first.stop() == 0
    assert other.stop() == 0


@pytest.mark.brokers("database", reason="one transaction takes in effects and messages there alone")
@pytest.mark.stores("database", reason="one transaction takes in effects and results there alone")
def test_an_atomic_task_that_lost_its_lease_leaves_no_effect(site: Site):
    if site.alias == "default":
        pytest.skip("SQLite has one writer: the frozen transaction holds the lock that the rescuer needs")
    zombie = site.worker()
    gate = site.gate()
    result = tasks.write_atomically.delay(str(site.ledger), "paid", str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    zombie.send(signal.SIGSTOP, group=True)
    site.worker()
    result.get(30)
    zombie.send(signal.SIGCONT, group=True)
    zombie.wait_for("no longer held")
    zombie.stop()
    assert Note.objects.using(site.alias).filter(text="paid").count() == 1
