"""Does the worker's own thread run tasks?"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from django_tasks import states
from django_tasks.pools.solo import SoloPool
from tests.app import pool_tasks as tasks
from tests.integration.rig import Rig, delivery, text, value

Start = Callable[..., Rig[SoloPool]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start pools; afterwards see that somebody else's alarm is as it was."""
    before = signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    timer = signal.setitimer(signal.ITIMER_REAL, 1000, 7)

    def make(**options) -> Rig[SoloPool]:
        rig = Rig(SoloPool, **options)
        rig.pool.start()
        return rig

    yield make
    handler = signal.signal(signal.SIGALRM, before)
    left, interval = signal.setitimer(signal.ITIMER_REAL, *timer)
    assert handler == signal.default_int_handler
    assert 800 < left < 1000
    assert interval == 7


def test_tasks_have_run_when_submit_returns(start):
    rig = start(size=5)
    calls = [delivery(tasks.echo, number) for number in range(100)]
    rig.submit(*calls)
    rig.drain()
    assert rig.order == [each.message.id for each in calls]
    assert [value(rig.outcomes[task_id]) for task_id in rig.order] == list(range(100))
    assert value(rig.run(delivery(tasks.pid))[0]) == os.getpid()
    assert (rig.pool.size, rig.pool.free, rig.pool.running(), rig.pool.reclaim()) == (1, 1, [], [])


def test_states_in_between_come_out_before_the_end(start):
    rig = start()
    call = delivery(tasks.report, ["PROGRESS", "ALMOST"])
    assert value(rig.run(call)[0]) == "reported"
    assert [(each, between.state) for each, between in rig.interim] == [(call, "PROGRESS"), (call, "ALMOST")]


def test_a_task_leaves_nothing_in_the_context_of_the_next(start):
    rig = start()
    before, _, after = rig.run(
        delivery(tasks.look_at_context), delivery(tasks.soil_context), delivery(tasks.look_at_context)
    )
    assert value(after) == value(before)


def test_a_soft_limit_lets_the_task_clean_up(start):
    rig = start()
    cleaned, next_one = rig.run(delivery(tasks.spin_until_told, soft_time_limit=0.1), delivery(tasks.spin, 100_000))
    assert value(cleaned) == "cleaned up"
    assert next_one.state == states.SUCCESS


def test_a_soft_limit_also_ends_a_blocking_call(start):
    rig = start(soft_time_limit=0.1)
    (outcome,) = rig.run(delivery(tasks.pause, 60))
    assert text(outcome).startswith("SoftTimeLimitExceeded")


def test_soft_limits_strike_nobody_else(start):
    rig = start()
    calls = [delivery(tasks.spin, turns, soft_time_limit=0.0005) for turns in range(0, 60_000, 30)]
    ends = {"well" if each.state == states.SUCCESS else text(each).split(":")[0] for each in rig.run(*calls)}
    assert ends == {"well", "SoftTimeLimitExceeded"}


def test_another_thread_sees_and_ends_what_runs(start):
    rig = start()
    call, waiting = delivery(tasks.spin_for_ever), delivery(tasks.noop)
    seen: list[object] = []

    def end() -> None:
        while not (running := rig.pool.running()):
            pass
        seen.extend([running[0].delivery, rig.pool.free, *rig.pool.reclaim()])
        while not rig.pool.cancel(call.message.id):
            pass

    ender = threading.Thread(target=end)
    ender.start()
    rig.submit(call, waiting)
    ender.join()
    assert rig.results([call])[0].state == states.REVOKED
    assert seen == [call, 0, waiting]
    assert not rig.pool.cancel(call.message.id)
    assert waiting.message.id not in rig.outcomes


def test_a_stopped_pool_gives_everything_back(start):
    rig = start()
    rig.pool.stop(0)
    (outcome,) = rig.run(delivery(tasks.noop))
    assert outcome.requeue is not None
    assert not outcome.requeue.spent
