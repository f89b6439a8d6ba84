"""Do threads run tasks, and what becomes of those that do not let go?"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_tasks import states
from django_tasks.plan import Outcome
from django_tasks.pools.threads import ThreadPool
from tests.app import pool_tasks as tasks
from tests.integration.rig import Rig, delivery, open_when, text, value
from tests.vendors import each_vendor

Start = Callable[..., Rig[ThreadPool]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start pools; afterwards stop them, and see that they left no thread behind."""
    before = set(threading.enumerate())
    rigs: list[Rig[ThreadPool]] = []

    def make(size: int = 2, **options) -> Rig[ThreadPool]:
        rig = Rig(ThreadPool, size=size, **options)
        rigs.append(rig)
        rig.pool.start()
        return rig

    yield make
    for rig in rigs:
        rig.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "django_tasks.task"]


def begin(rig: Rig[ThreadPool], tmp_path: Path, task=tasks.mark_and_hold, **envelope):
    """Submit a task that waits at a gate, and wait until it has begun."""
    gate, mark = rig.gate(tmp_path / f"gate{len(rig.outcomes)}"), tmp_path / f"mark{len(rig.outcomes)}"
    call = delivery(task, str(mark), str(gate), **envelope)
    rig.submit(call)
    rig.begun(mark)
    return call, gate


def test_tasks_run_in_threads_and_come_out_once_each(start):
    rig = start()
    calls = [delivery(tasks.echo, number) for number in range(1000)]
    assert [value(outcome) for outcome in rig.run(*calls)] == list(range(1000))
    assert {value(outcome) for outcome in rig.run(delivery(tasks.pid))} == {os.getpid()}
    assert rig.pool.free == 2


def test_so_many_run_at_once(start):
    rig = start(size=3)
    calls = [delivery(tasks.meet, 3) for _ in range(3)]
    assert {value(outcome) for outcome in rig.run(*calls)} == {"met"}


def test_states_in_between_come_out_before_the_end(start):
    rig = start()
    call = delivery(tasks.report, ["PROGRESS", "ALMOST"])
    assert value(rig.run(call)[0]) == "reported"
    assert [(each, between.state) for each, between in rig.interim] == [(call, "PROGRESS"), (call, "ALMOST")]


def test_what_has_begun_is_known_and_what_waits_can_be_taken_back(start, tmp_path):
    rig = start(size=1)
    call, gate = begin(rig, tmp_path)
    waiting = [delivery(tasks.noop) for _ in range(3)]
    rig.submit(*waiting)
    (entry,) = rig.pool.running()
    assert (entry.delivery, entry.pid) == (call, os.getpid())
    assert abs(entry.since - time.time()) < 30
    assert rig.pool.free == 0
    assert rig.pool.reclaim(60) == []
    assert rig.pool.reclaim() == waiting
    gate.open()
    rig.results([call])
    assert set(rig.outcomes) == {call.message.id}
    assert rig.pool.running() == []


def test_a_task_leaves_nothing_in_the_context_of_the_next(start):
    rig = start(size=1)
    (before,) = rig.run(delivery(tasks.look_at_context))
    rig.run(delivery(tasks.soil_context))
    (after,) = rig.run(delivery(tasks.look_at_context))
    assert value(after) == value(before)


def test_a_soft_limit_lets_the_task_clean_up(start):
    rig = start(size=1)
    (outcome,) = rig.run(delivery(tasks.spin_until_told, soft_time_limit=0.1))
    assert value(outcome) == "cleaned up"
    assert len(workers()) == 1


def test_a_task_over_its_hard_limit_comes_out_and_its_thread_is_replaced(start, tmp_path):
    rig = start(size=1)
    gate = rig.gate(tmp_path / "gate")
    stuck = delivery(tasks.mark_and_hold, str(tmp_path / "mark"), str(gate), time_limit=0.2)
    (outcome,) = rig.run(stuck)
    assert text(outcome).startswith("TimeLimitExceeded")
    assert rig.pool.exhausted
    # Nobody's slot is lost, and what the old thread says late is heard by nobody.
    assert value(rig.run(delivery(tasks.echo, 1))[0]) == 1
    gate.open()
    rig.until(lambda: not rig.pool.exhausted, "the thread ended")
    rig.run(delivery(tasks.noop))
    assert len(rig.outcomes) == 3


def test_a_task_in_python_code_is_ended_at_its_hard_limit(start):
    rig = start(size=1)
    (outcome,) = rig.run(delivery(tasks.spin_for_ever, time_limit=0.2))
    assert text(outcome).startswith("TimeLimitExceeded")
    rig.until(lambda: len(workers()) == 1, "the thread ended")
    assert not rig.pool.exhausted


def test_a_running_task_can_be_ended(start, tmp_path):
    rig = start(size=1)
    mark = tmp_path / "mark"
    call = delivery(tasks.mark_and_spin, str(mark))
    rig.submit(call)
    rig.begun(mark)
    assert rig.pool.cancel(call.message.id)
    assert rig.results([call])[0].state == states.REVOKED
    assert not rig.pool.cancel(call.message.id)


def test_a_task_that_does_not_listen_is_given_up(start, tmp_path):
    rig = start(size=1)
    call, gate = begin(rig, tmp_path)
    assert rig.pool.cancel(call.message.id, kill=True)
    assert rig.results([call])[0].state == states.REVOKED
    gate.open()


def test_a_task_that_waits_can_be_kept_from_beginning(start, tmp_path):
    rig = start(size=1)
    call, gate = begin(rig, tmp_path)
    second = delivery(tasks.noop)
    rig.submit(second)
    assert rig.pool.cancel(second.message.id)
    assert rig.results([second])[0].state == states.REVOKED
    gate.open()
    assert rig.results([call])[0].state == states.SUCCESS


def test_strikes_reach_nobody_else(start):
    """Tasks about as long as their soft limit, and cancellations at random moments: only what was meant is struck."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    rig = start()
    limited = [delivery(tasks.spin, rng.randrange(60_000), soft_time_limit=0.001) for _ in range(500)]
    others = [delivery(tasks.spin, rng.randrange(3000)) for _ in range(1500)]
    cancelled: set[str] = set()
    for first in range(0, 500, 10):
        batch = limited[first : first + 10] + others[first * 3 : first * 3 + 30]
        rng.shuffle(batch)
        rig.submit(*batch)
        for call in rng.sample(batch, 3):
            if rig.pool.cancel(call.message.id):
                cancelled.add(call.message.id)
        rig.results(batch)
    soft = {each.message.id for each in limited}
    for task_id, outcome in rig.outcomes.items():
        if outcome.state == states.REVOKED:
            assert task_id in cancelled
        elif outcome.state == states.FAILURE:
            assert text(outcome).startswith("SoftTimeLimitExceeded")
            assert task_id in soft
    assert Counter(outcome.state for outcome in rig.outcomes.values())[states.SUCCESS] > 1000
    assert len(workers()) == 2


def test_a_pool_grows_and_shrinks(start):
    rig = start(size=1)
    rig.pool.resize(4)
    assert {value(outcome) for outcome in rig.run(*(delivery(tasks.meet, 4) for _ in range(4)))} == {"met"}
    rig.pool.resize(1)
    rig.until(lambda: len(workers()) == 1, "three threads left")
    rig.run(*(delivery(tasks.noop) for _ in range(20)))
    with pytest.raises(ValueError, match="at least one"):
        rig.pool.resize(0)


def test_a_stop_lets_finish_what_runs_and_gives_back_what_waits(start, tmp_path):
    rig = start(size=1)
    call, gate = begin(rig, tmp_path)
    waiting = delivery(tasks.noop)
    rig.submit(waiting)
    opener = threading.Thread(target=open_when, args=(gate, lambda: rig.pool._stopped))
    opener.start()
    rig.pool.stop(20)
    opener.join()
    assert rig.results([call])[0].state == states.SUCCESS
    assert handed_back(rig.results([waiting])[0])
    assert workers() == []


def test_a_stop_gives_back_what_runs_too_long(start, tmp_path):
    rig = start(size=1)
    call, gate = begin(rig, tmp_path)
    began = time.monotonic()
    rig.pool.stop(0.2)
    # Nobody opens the gate before.
    assert 0.2 <= time.monotonic() - began < 20
    assert handed_back(rig.results([call])[0])
    late = delivery(tasks.noop)
    rig.submit(late)
    assert handed_back(rig.results([late])[0])
    gate.open()


def test_a_second_stop_puts_an_end_to_the_first(start, tmp_path):
    rig = start(size=1)
    call, gate = begin(rig, tmp_path)
    patient = threading.Thread(target=rig.pool.stop, args=(60,))
    patient.start()
    rig.until(lambda: rig.pool._stopped, "the first call waits")
    rig.pool.stop(0)
    patient.join(5)
    assert not patient.is_alive()
    assert handed_back(rig.results([call])[0])
    gate.open()


@each_vendor(transaction=True)
def test_a_thread_that_ends_leaves_no_connection(start, alias, tmp_path):
    rig = start(size=2)
    opened: list[Any] = []

    def remember(execute, sql, params, many, context):
        opened.append(context["connection"])
        return execute(sql, params, many, context)

    tasks.WRAPPER = remember
    try:
        rig.run(*(delivery(tasks.count_notes, alias) for _ in range(10)))
    finally:
        tasks.WRAPPER = None
    assert opened
    assert connections[alias] not in opened
    rig.pool.stop(5)
    assert all(each.connection is None for each in opened)


def handed_back(outcome: Outcome) -> bool:
    return outcome.requeue is not None and not outcome.requeue.spent and not outcome.keep
