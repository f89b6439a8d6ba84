"""Does a pool end what runs too long or was cancelled, and nothing else?"""

from __future__ import annotations

import os
import signal
import statistics
import time

import pytest

from django_tasks import states
from django_tasks.plan import Outcome
from django_tasks.pools.base import PoolOptions
from django_tasks.testing.contracts import tasks
from django_tasks.testing.contracts.harness import needs
from django_tasks.testing.contracts.pool_runs import PoolHarness
from django_tasks.testing.contracts.stage import Stage, delivery, value

SHORT = 0.3
"""Seconds of a limit that is to be reached."""


def failed_as(outcome: Outcome) -> str | None:
    return outcome.failure.type if outcome.failure else None


class LimitContract(PoolHarness):
    @pytest.mark.parametrize("whose", ["call", "pool"])
    def test_a_task_may_tidy_up_at_its_soft_limit(self, stage: Stage, whose: str) -> None:
        pool = stage.start(PoolOptions(soft_time_limit=SHORT if whose == "pool" else None))
        needs(pool, "soft_limit")
        soft = SHORT if whose == "call" else None
        [outcome] = stage.run(pool, [delivery(tasks.tidy_up, stage.gate().began, soft=soft)])
        assert value(outcome) == "tidied up"
        assert outcome.runtime >= SHORT * 0.9

    def test_a_task_that_takes_no_notice_of_its_soft_limit_fails_with_it(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions())
        needs(pool, "soft_limit")
        failed, after = stage.run(
            pool, [delivery(tasks.spin, stage.gate().began, soft=SHORT), delivery(tasks.add, 1, 2, soft=SHORT)]
        )
        assert (failed.state, failed_as(failed)) == (states.FAILURE, "SoftTimeLimitExceeded")
        assert value(after) == 3

    def test_a_soft_limit_strikes_in_time_and_never_the_next_task(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions())
        needs(pool, "soft_limit")
        calls = []
        for _ in range(self.rounds):
            calls += [delivery(tasks.tidy_up, stage.gate().began, soft=0.02), delivery(tasks.add, 1, 2)]
        outcomes = stage.run(pool, calls)
        assert [value(outcome) for outcome in outcomes[1::2]] == [3] * self.rounds
        # On a busy machine the limit may be over before the task has come to where it is caught.
        early = [outcome for outcome in outcomes[::2] if outcome.state != states.SUCCESS]
        assert {failed_as(outcome) for outcome in early} <= {"SoftTimeLimitExceeded"}
        assert {value(outcome) for outcome in outcomes[::2] if outcome.state == states.SUCCESS} == {"tidied up"}
        # The median, since a busy machine may be late now and then, but not every other time.
        assert statistics.median(outcome.runtime for outcome in outcomes[::2]) < 0.3

    @pytest.mark.parametrize("whose", ["call", "pool"])
    def test_a_task_is_ended_at_its_hard_limit(self, stage: Stage, whose: str) -> None:
        pool = stage.start(PoolOptions(size=2, time_limit=SHORT if whose == "pool" else None))
        needs(pool, "hard_limit")
        gate = stage.gate()
        began = time.monotonic()
        ended, after = stage.run(
            pool,
            [
                delivery(tasks.hold, gate.began, gate.gate, hard=SHORT if whose == "call" else None),
                delivery(tasks.add, 1, 2),
            ],
        )
        assert SHORT * 0.9 <= time.monotonic() - began < self.patience / 2
        assert (ended.state, failed_as(ended), ended.requeue) == (states.FAILURE, "TimeLimitExceeded", None)
        assert value(after) == 3
        outcomes = stage.run(pool, [delivery(tasks.add, number, 0) for number in range(20)])
        assert [value(outcome) for outcome in outcomes] == list(range(20))

    def test_a_task_that_swallows_its_soft_limit_is_ended_at_the_hard_one(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions())
        needs(pool, "hard_limit")
        ended, after = stage.run(
            pool, [delivery(tasks.swallow, stage.gate().began, soft=SHORT / 3, hard=SHORT), delivery(tasks.add, 1, 2)]
        )
        assert (ended.state, failed_as(ended)) == (states.FAILURE, "TimeLimitExceeded")
        assert value(after) == 3

    def test_a_task_that_holds_the_interpreter_is_ended_at_its_hard_limit(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions())
        needs(pool, "hard_limit", "survives")
        began = time.monotonic()
        ended, after = stage.run(
            pool, [delivery(tasks.hold_gil, stage.gate().began, 3600.0, hard=SHORT), delivery(tasks.add, 1, 2)]
        )
        assert (ended.state, failed_as(ended)) == (states.FAILURE, "TimeLimitExceeded")
        assert time.monotonic() - began < self.patience / 2
        assert value(after) == 3

    def test_a_task_that_holds_the_interpreter_holds_up_no_other(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=2))
        needs(pool, "survives")
        gate = stage.gate()
        long = delivery(tasks.hold_gil, gate.began, 3600.0)
        pool.submit([long])
        gate.arrived()
        outcomes = stage.run(pool, [delivery(tasks.add, number, 0) for number in range(50)])
        assert [value(outcome) for outcome in outcomes] == list(range(50))
        assert [one.delivery for one in pool.running()] == [long]

    def test_a_child_that_is_frozen_holds_up_no_other_and_is_ended_at_its_limit(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=2))
        needs(pool, "survives", "hard_limit")
        gate = stage.gate()
        frozen = delivery(tasks.hold, gate.began, gate.gate, hard=2.0)
        pool.submit([frozen])
        [pid] = gate.arrived()
        os.kill(pid, signal.SIGSTOP)
        outcomes = stage.run(pool, [delivery(tasks.measure, "x" * 900_000) for _ in range(20)])
        assert {value(outcome) for outcome in outcomes} == {900_000}
        [(given, outcome)] = stage.outcomes(pool, 1)
        assert given is frozen
        assert failed_as(outcome) == "TimeLimitExceeded"

    @pytest.mark.parametrize("kill", [False, True])
    def test_a_task_that_is_cancelled_ends_as_revoked_and_alone(self, stage: Stage, kill: bool) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=2))
        needs(pool, "cancel")
        gate = stage.gate()
        unlucky, lucky = delivery(tasks.spin, gate.began), delivery(tasks.hold, gate.began, gate.gate, "lucky")
        pool.submit([unlucky, lucky])
        gate.arrived(2)
        assert pool.cancel("unknown", kill=kill) is False
        assert pool.cancel(unlucky.message.id, kill=kill) is True
        [(given, outcome)] = stage.outcomes(pool, 1)
        assert given is unlucky
        assert (outcome.state, outcome.requeue) == (states.REVOKED, None)
        assert pool.cancel(unlucky.message.id, kill=kill) is False
        gate.open()
        [(given, outcome)] = stage.outcomes(pool, 1)
        assert (given, value(outcome)) == (lucky, "lucky")
        assert pool.free == 2

    def test_a_task_that_will_not_be_cancelled_can_be_killed(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions())
        needs(pool, "cancel", "survives")
        gate = stage.gate()
        pool.submit([delivery(tasks.swallow, gate.began)])
        gate.arrived()
        [running] = pool.running()
        assert pool.cancel(running.delivery.message.id)
        assert pool.cancel(running.delivery.message.id, kill=True)
        [(_, outcome)] = stage.outcomes(pool, 1)
        assert outcome.state == states.REVOKED

    @pytest.mark.parametrize("kill", [False, True])
    def test_cancelling_a_task_as_it_ends_strikes_no_other(self, stage: Stage, kill: bool) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=1))
        needs(pool, "cancel")
        for turn in range(self.rounds):
            calls = [delivery(tasks.add, number, 0) for number in range(6)]
            pool.submit(calls)
            ended = stage.outcomes(pool, turn % 4)
            pool.cancel(calls[2].message.id, kill=kill)
            ended += stage.outcomes(pool, 6 - len(ended))
            done = {id(given): outcome for given, outcome in ended}
            for number, call in enumerate(calls):
                outcome = done[id(call)]
                if number != 2 or outcome.state != states.REVOKED:
                    assert value(outcome) == number
