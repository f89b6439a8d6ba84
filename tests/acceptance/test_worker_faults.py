"""What happens to tasks when processes die, stop or are stopped?"""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from django_tasks import bulk, states
from django_tasks.models import Crash
from testproject.backends import BROKERS
from tests.acceptance import tasks
from tests.acceptance.conftest import Site, group_of
from tests.acceptance.gates import release
from tests.vendors import each_vendor

pytestmark = each_vendor(transaction=True)


def test_a_child_killed_in_a_task_is_replaced_and_the_task_runs_again_before_its_lease_ends(site: Site):
    worker = site.worker(LEASE=60.0)
    # The template, and two children.
    site.until(lambda: len(worker.children()) == 3, "all processes are there")
    result = tasks.die.delay(str(site.ledger), signal.SIGKILL, times=1)
    assert result.get(20) == 2
    first, second = site.ledger.lines("start")
    assert first.pid != second.pid
    assert (second.at - first.at) / 1e9 < 10.0
    site.until(lambda: len(worker.children()) == 3, "there are as many children as before")
    assert first.pid not in worker.children()


def test_the_error_of_a_lost_child_names_the_signal_and_with_on_crash_fail_it_runs_once(site: Site):
    site.worker()
    result = tasks.die_once.delay(str(site.ledger))
    assert site.ended(result) == [states.FAILURE]
    assert "SIGKILL" in str(result.result)
    assert site.ledger.count()[result.id] == 1


def test_a_worker_killed_with_all_its_children_loses_nothing(site: Site):
    first = site.worker()
    handles = bulk(tasks.pause.s(str(site.ledger), 0.02) for _ in range(200))
    settled = site.settled(handles)
    first.send(signal.SIGKILL, group=True)
    killed = time.monotonic()
    site.worker()
    assert set(site.ended(*handles)) == {states.SUCCESS}
    # The lease is two seconds here; 30 in a real worker.
    assert time.monotonic() - killed < 2.0 + 5.0 + 30.0
    started = site.ledger.count()
    assert set(started) == {handle.id for handle in handles}
    # Those that had ended and were not settled yet run again.
    assert all(started[task_id] == 1 for task_id in settled)
    assert max(started.values()) <= 2
    site.until(site.quiet, "nothing is left in the queue")


def test_no_child_outlives_its_killed_parent(site: Site):
    worker = site.worker()
    gate = site.gate()
    tasks.hold.delay(str(site.ledger), str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    worker.send(signal.SIGKILL)
    killed = time.monotonic()
    site.until(lambda: not group_of(worker.pid), "the whole group is gone")
    # The task itself would wait for ever.
    assert time.monotonic() - killed < 10.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_warm_stop_finishes_what_runs_and_hands_back_the_rest_unspent(site: Site, number: int):
    worker = site.worker()
    gate = site.gate()
    running = bulk(tasks.hold.s(str(site.ledger), str(gate)) for _ in range(2))
    site.until(lambda: len(site.ledger.lines("start")) == 2, "both slots are busy")
    waiting = bulk(tasks.note.s(str(site.ledger)) for _ in range(5))
    worker.send(number)
    worker.wait_for("stopping")
    if number == signal.SIGTERM:
        worker.send(number)
    release(site, gate, *running)
    assert worker.wait() == 0
    assert site.ended(*running) == [states.SUCCESS] * 2
    site.comes_to(default=5)
    assert site.deliveries_to_come(*waiting) == {1}


def test_heartbeats_go_on_during_a_warm_stop(site: Site):
    worker = site.worker("--grace", "20")
    gate = site.gate()
    result = tasks.hold.delay(str(site.ledger), str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    worker.send(signal.SIGTERM)
    worker.wait_for("stopping")
    other = site.worker()
    # More than the lease passes: without heartbeats the other worker would take the task.
    seen = threading.Event()
    seen.wait(3.0)
    gate.open()
    assert result.get(20) == 1
    assert worker.wait() == 0
    assert site.ledger.count()[result.id] == 1
    assert other.stop() == 0


@pytest.mark.brokers(*BROKERS)
def test_past_the_grace_period_work_is_handed_back_at_once_and_unspent(site: Site):
    worker = site.worker("--grace", "0.5", LEASE=60.0)
    gate = site.gate()
    result = tasks.hold.delay(str(site.ledger), str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    other = site.worker()
    assert worker.stop() == 0
    stopped = time.monotonic_ns()
    site.until(lambda: len(site.ledger.lines("start")) == 2, "the other worker has begun it")
    gate.open()
    assert result.get(20) == 1
    first, second = site.ledger.lines("start")
    assert (second.at - stopped) / 1e9 < 10.0
    assert first.attempt == second.attempt == 1
    assert other.stop() == 0


@pytest.mark.parametrize(
    "signals", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]]
)
def test_a_cold_stop_waits_for_nobody_and_loses_nothing(site: Site, signals: list[int]):
    worker = site.worker()
    gate = site.gate()
    result = tasks.hold.delay(str(site.ledger), str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    began = time.monotonic()
    for number in signals[:-1]:
        worker.send(number)
        worker.wait_for("stopping")
    worker.send(signals[-1])
    assert worker.wait() == 0
    # The grace period is 25 seconds, and the task would wait for ever.
    assert time.monotonic() - began < 10.0
    assert site.deliveries_to_come(result) == {1}


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("exit", "SystemExit"),
        ("interrupt", "KeyboardInterrupt"),
        ("generator_exit", "GeneratorExit"),
        ("memory", "MemoryError"),
        ("recursion", "RecursionError"),
    ],
)
def test_what_ends_a_thread_of_thought_is_an_ordinary_failure(site: Site, how: str, error: str):
    site.worker()
    result = tasks.crash.delay(str(site.ledger), how)
    assert site.ended(result) == [states.FAILURE]
    failure = result.fetch().failure
    assert failure is not None
    assert failure.type == error
    assert site.ledger.count()[result.id] == 1


@pytest.mark.parametrize(("how", "reason"), [("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("_exit", "exit code 7")])
def test_what_ends_the_process_is_a_crash_three_times_and_then_a_failure(site: Site, how: str, reason: str):
    worker = site.worker()
    result = tasks.crash.delay(str(site.ledger), how)
    assert site.ended(result) == [states.FAILURE]
    failure = result.fetch().failure
    assert failure is not None
    assert failure.type == "WorkerLostError"
    assert failure.message.count(reason) == 3
    assert site.ledger.count()[result.id] == 3
    assert worker.process.poll() is None


def test_a_task_that_kills_its_whole_worker_runs_three_times_and_its_neighbours_are_not_blamed(site: Site):
    worker = site.worker("--prefetch", "50")
    neighbours = bulk(tasks.pause.s(str(site.ledger), 0.01) for _ in range(60))
    poison = tasks.kill_worker.delay(str(site.ledger))
    neighbours += bulk(tasks.pause.s(str(site.ledger), 0.01) for _ in range(60))
    assert worker.wait() == -signal.SIGKILL
    assert site.worker("--prefetch", "50").wait() == -signal.SIGKILL
    assert site.worker("--prefetch", "50").wait() == -signal.SIGKILL
    site.worker()
    assert site.ended(poison) == [states.FAILURE]
    assert site.ledger.count()[poison.id] == 3
    assert set(site.ended(*neighbours)) == {states.SUCCESS}
    # What was written of neighbours while they were suspects is taken back once they are settled.
    others = Crash.objects.using(site.alias).exclude(task_id=poison.id)
    site.until(lambda: not others.exists(), "nothing is held against the neighbours")


def test_with_on_crash_fail_a_task_that_kills_its_whole_worker_runs_once_and_those_that_waited_run_too(site: Site):
    worker = site.worker("--prefetch", "50", "-c", "1")
    poison = tasks.kill_worker_once.delay(str(site.ledger))
    waiting = bulk(tasks.note_once.s(str(site.ledger)) for _ in range(20))
    assert worker.wait() == -signal.SIGKILL
    site.worker()
    assert site.ended(poison) == [states.FAILURE]
    assert set(site.ended(*waiting)) == {states.SUCCESS}
    assert set(site.ledger.count().values()) == {1}


def test_at_most_once_means_at_most_once(site: Site):
    site.worker()
    result = tasks.at_most_once.delay(str(site.ledger))
    assert site.ended(result) == [states.FAILURE]
    assert site.ledger.count()[result.id] == 1


def test_children_are_replaced_after_so_many_tasks_and_none_is_interrupted(site: Site):
    site.worker("--max-tasks-per-child", "5", "-c", "1")
    handles = bulk(tasks.note.s(str(site.ledger)) for _ in range(20))
    assert set(site.ended(*handles)) == {states.SUCCESS}
    by_child = [line.pid for line in site.ledger.lines("start")]
    assert len(by_child) == 20
    assert {by_child.count(pid) for pid in set(by_child)} == {5}


def test_children_are_replaced_when_they_have_grown(site: Site):
    site.worker("--max-memory-per-child", "150000", "-c", "1")
    handles = bulk(tasks.leak.s(str(site.ledger)) for _ in range(40))
    assert set(site.ended(*handles)) == {states.SUCCESS}
    assert len(site.ledger.lines("start")) == 40
    assert len({line.pid for line in site.ledger.lines("start")}) > 1


def test_a_worker_outlives_its_children_killed_at_random(site: Site):
    worker = site.worker()
    handles = bulk(tasks.pause.s(str(site.ledger), 0.01) for _ in range(300))
    for _ in range(6):
        # Of the next twenty what was killed before is one: it goes first. There may be fewer left, if we are slow.
        enough = min(len(site.ledger.lines("end")) + 20, len(handles))
        site.until(lambda: len(site.ledger.lines("end")) >= enough, "tasks are running")  # noqa: B023
        victim = site.ledger.lines("start")[-1].pid
        if victim in worker.children():
            worker_kill(victim)
    assert site.ended(*handles) == [states.SUCCESS] * 300
    site.until(site.quiet, "nothing is left in the queue")


def worker_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
