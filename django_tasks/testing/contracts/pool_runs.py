"""Does a pool run what it is given, each once, and give back what it did not begin?"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from django_tasks import states
from django_tasks.message import Delivery
from django_tasks.plan import Requeue
from django_tasks.pools.base import Pool, PoolOptions
from django_tasks.testing.contracts import tasks
from django_tasks.testing.contracts.harness import needs
from django_tasks.testing.contracts.stage import Stage, delivery, sealed, value
from django_tasks.testing.contracts.tasks import ENDS


class PoolHarness:
    """What the suite asks of whoever proves a pool: the class `pool`, and what of the rest does not fit."""

    pool: ClassVar[type[Pool]]
    alone: ClassVar[bool] = False
    """Tasks run in the thread that submits them: nothing can be seen or done meanwhile."""
    patience: ClassVar[float] = 30.0
    """Seconds within which what must happen does."""
    rounds: ClassVar[int] = 50
    """How often each race is run."""
    database: ClassVar[str] = "default"
    """The alias that tasks query; the suite writes nothing there."""

    @pytest.fixture
    def stage(self, tmp_path: Path) -> Iterator[Stage]:
        stage = Stage(self.pool, tmp_path, self.patience)
        yield stage
        stage.close()

    def together(self) -> None:
        if self.alone:
            pytest.skip(f"{self.pool.__name__} runs tasks in the thread that submits them")


class RunContract(PoolHarness):
    @pytest.mark.parametrize("size", [1, 3])
    def test_every_delivery_comes_out_once_with_its_outcome(self, stage: Stage, size: int) -> None:
        pool = stage.start(PoolOptions(size=size))
        calls = [delivery(tasks.add, number, 1) for number in range(300)]
        for start in range(0, 300, 50):
            pool.submit(calls[start : start + 50])
        done = {id(given): outcome for given, outcome in stage.outcomes(pool, 300)}
        assert [value(done[id(given)]) for given in calls] == list(range(1, 301))
        assert pool.drain() == []
        assert pool.reclaim() == []

    def test_the_bell_is_rung_for_all_that_comes_out(self, stage: Stage) -> None:
        """Nobody looks into a pool that is silent: `Stage` waits for the bell and for nothing else."""
        pool = stage.start(PoolOptions(size=2))
        for turn in range(self.rounds * 20):
            stage.run(pool, [delivery(tasks.add, number, turn) for number in range(1 + turn % 4)])

    def test_what_waits_begins_in_the_order_it_was_submitted(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=1))
        ledger = stage.folder() / "ledger"
        stage.run(pool, [delivery(tasks.write_down, str(ledger), str(number)) for number in range(100)])
        assert ledger.read_text().split() == [str(number) for number in range(100)]

    def test_an_outcome_says_when_the_task_ran(self, stage: Stage) -> None:
        before = time.time()
        [outcome] = stage.run(stage.start(PoolOptions()), [delivery(tasks.add, 1, 2)])
        assert outcome.started is not None
        assert outcome.ended is not None
        assert before - 1 <= outcome.started <= outcome.ended <= time.time() + 1

    def test_a_task_is_told_who_runs_it_and_which_attempt_it_is(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(worker="w1@here"))
        third = Delivery(replace(sealed(tasks.introduce), id="third", attempts=1), receipt=object(), deliveries=2)
        [outcome] = stage.run(pool, [third])
        assert value(outcome) == ["third", "w1@here", 3]

    def test_a_task_that_fails_fails_alone(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=2))
        outcomes = stage.run(pool, [delivery(tasks.fail, "it broke"), delivery(tasks.add, 1, 2)])
        assert outcomes[0].state == states.FAILURE
        assert outcomes[0].requeue is None
        assert outcomes[0].failure is not None
        assert (outcomes[0].failure.type, outcomes[0].failure.message) == ("ValueError", "it broke")
        assert "raise ValueError(text)" in outcomes[0].failure.traceback
        assert value(outcomes[1]) == 3

    @pytest.mark.parametrize("name", ENDS)
    def test_an_exception_that_would_end_a_process_is_an_ordinary_failure(self, stage: Stage, name: str) -> None:
        pool = stage.start(PoolOptions())
        failed, after = stage.run(pool, [delivery(tasks.end_with, name), delivery(tasks.add, 1, 2)])
        assert (failed.state, failed.requeue) == (states.FAILURE, None)
        assert failed.failure is not None
        assert failed.failure.type == name
        assert value(after) == 3

    def test_leaving_and_recursing_too_deep_are_ordinary_failures(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions())
        calls = [delivery(tasks.leave, 0), delivery(tasks.leave, 3), delivery(tasks.recurse), delivery(tasks.add, 1, 2)]
        *failed, after = stage.run(pool, calls)
        assert [outcome.failure and outcome.failure.type for outcome in failed] == [
            "SystemExit",
            "SystemExit",
            "RecursionError",
        ]
        assert value(after) == 3

    def test_a_message_that_cannot_be_opened_fails_alone(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions())
        fine = sealed(tasks.add, 1, 2)
        broken = [
            replace(fine, task="no.such.task"),
            replace(fine, body=b"\x00\xff not JSON"),
            replace(fine, body=b'{"args": []}'),
            replace(fine, content_type="application/x-malformed"),
        ]
        outcomes = stage.run(pool, [Delivery(message, receipt=None) for message in [*broken, fine]])
        assert [outcome.state for outcome in outcomes] == [states.FAILURE] * len(broken) + [states.SUCCESS]
        assert [outcome.failure and outcome.failure.type for outcome in outcomes[:2]] == [
            "NotRegistered",
            "DecodeError",
        ]

    def test_large_arguments_and_results_come_through(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=2))
        calls = [delivery(tasks.measure, "x" * 900_000) for _ in range(10)]
        calls += [delivery(tasks.repeat, "ab", 450_000) for _ in range(10)]
        outcomes = stage.run(pool, calls)
        assert [value(outcome) for outcome in outcomes] == [900_000] * 10 + ["ab" * 450_000] * 10

    def test_states_in_between_come_out_before_the_last_one(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=2))
        calls = [delivery(tasks.progress, 3) for _ in range(5)]
        stage.run(pool, calls)
        for call in calls:
            came = [outcome.state for given, outcome in stage.came if given is call]
            assert came == ["PROGRESS"] * 3 + [states.SUCCESS]

    def test_free_slots_are_those_that_nobody_asked_for(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=3))
        assert pool.free == 3
        gate = stage.gate()
        pool.submit([delivery(tasks.hold, gate.began, gate.gate) for _ in range(2)])
        assert pool.free == 1
        gate.arrived(2)
        assert pool.free == 1
        pool.submit([delivery(tasks.hold, gate.began, gate.gate) for _ in range(3)])
        assert pool.free == 0
        gate.open(5)
        stage.outcomes(pool, 5)
        assert pool.free == 3

    def test_as_many_run_at_once_as_there_are_slots(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=2))
        gate = stage.gate()
        pool.submit([delivery(tasks.hold, gate.began, gate.gate, number) for number in range(5)])
        gate.arrived(2)
        assert gate.nobody_else()
        for _ in range(3):
            gate.open()
            stage.outcomes(pool, 1)
            gate.arrived(1)
        gate.open(2)
        stage.outcomes(pool, 2)
        assert gate.nobody_else()

    def test_a_long_task_holds_up_no_short_one(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=2))
        stage.run(pool, [delivery(tasks.add, 1, 2) for _ in range(200)])  # by now the pool takes tasks for short
        gate = stage.gate()
        calls = [delivery(tasks.add, number, 0) for number in range(100)]
        calls.insert(3, delivery(tasks.hold, gate.began, gate.gate))
        pool.submit(calls)
        assert all(value(outcome) is not None for _, outcome in stage.outcomes(pool, 100))
        gate.open()
        stage.outcomes(pool, 1)

    def test_what_runs_can_be_seen(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=2))
        assert pool.running() == []
        gate = stage.gate()
        held, waiting = [delivery(tasks.hold, gate.began, gate.gate) for _ in range(2)], delivery(tasks.add, 1, 2)
        before = time.time()
        pool.submit([*held, waiting])
        pids = gate.arrived(2)
        running = pool.running()
        assert {id(one.delivery) for one in running} == set(map(id, held))
        assert sorted(one.pid for one in running) == sorted(pids)
        assert all(before - 1 <= one.since <= time.time() + 1 for one in running)
        gate.open(2)
        stage.outcomes(pool, 3)
        assert pool.running() == []

    def test_stacks_can_be_printed_while_tasks_run(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=2))
        gate = stage.gate()
        pool.submit([delivery(tasks.hold, gate.began, gate.gate, "unharmed")])
        gate.arrived()
        pool.dump_stacks()
        gate.open()
        [(_, outcome)] = stage.outcomes(pool, 1)
        assert value(outcome) == "unharmed"
        assert not pool.exhausted

    def test_what_has_not_begun_can_be_taken_back(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=1))
        stage.run(pool, [delivery(tasks.add, 1, 2) for _ in range(50)])
        gate, ledger = stage.gate(), stage.folder() / "ledger"
        held = delivery(tasks.hold, gate.began, gate.gate)
        waiting = [delivery(tasks.write_down, str(ledger), "ran") for _ in range(5)]
        pool.submit([held, *waiting])
        gate.arrived()
        assert pool.reclaim(older_than=3600.0) == []
        assert list(map(id, pool.reclaim())) == list(map(id, waiting))
        assert pool.reclaim() == []
        assert pool.free == 0
        gate.open()
        [(given, _)] = stage.outcomes(pool, 1)
        assert given is held
        assert value(stage.run(pool, [delivery(tasks.add, 1, 2)])[0]) == 3
        assert not ledger.exists()
        assert pool.free == 1

    def test_taking_back_in_the_instant_of_beginning_loses_and_doubles_nothing(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=2))
        ledger = stage.folder() / "ledger"
        began: Counter[str] = Counter()
        back: Counter[str] = Counter()
        for turn in range(self.rounds):
            calls = [delivery(tasks.write_down, str(ledger), f"{turn}-{number}") for number in range(20)]
            names = {id(call): f"{turn}-{number}" for number, call in enumerate(calls)}
            pool.submit(calls)
            came = stage.outcomes(pool, turn % 15)
            returned = pool.reclaim()
            came += stage.outcomes(pool, 20 - len(came) - len(returned))
            began.update(names[id(given)] for given, _ in came)
            back.update(names[id(given)] for given in returned)
        assert sum(began.values()) + sum(back.values()) == 20 * self.rounds
        assert set(began.values()) | set(back.values()) <= {1}
        assert not set(began) & set(back)
        assert Counter(ledger.read_text().split()) == began

    def test_a_pool_that_was_never_used_stops(self, stage: Stage) -> None:
        stage.start(PoolOptions(size=2)).stop(self.patience)

    def test_stopping_waits_for_what_runs_and_hands_back_what_does_not(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=2))
        gate = stage.gate()
        held = [delivery(tasks.hold, gate.began, gate.gate, number) for number in range(2)]
        waiting = [delivery(tasks.add, number, 0) for number in range(5)]
        pool.submit([*held, *waiting])
        gate.arrived(2)
        gate.open(2)
        pool.stop(self.patience)
        done = {id(given): outcome for given, outcome in stage.drain(pool)}
        assert [value(done[id(given)]) for given in held] == [0, 1]
        for given in waiting:
            outcome = done[id(given)]
            if outcome.state != states.SUCCESS:  # what began in that instant was allowed to end
                assert (outcome.requeue, outcome.keep) == (Requeue(), False)
        assert len(done) == 7
        pool.stop(self.patience)
        assert pool.drain() == []

    def test_stopping_ends_what_goes_on_too_long_and_spends_no_attempt(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=2))
        gate = stage.gate()
        calls = [delivery(tasks.hold, gate.began, gate.gate) for _ in range(4)]
        pool.submit(calls)
        gate.arrived(2)
        began = time.monotonic()
        pool.stop(0.2)
        assert time.monotonic() - began < self.patience / 2
        done = stage.drain(pool)
        assert sorted(id(given) for given, _ in done) == sorted(map(id, calls))
        assert {(outcome.requeue, outcome.keep) for _, outcome in done} == {(Requeue(), False)}
        assert gate.nobody_else()

    def test_more_slots_take_effect_at_once(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=1))
        needs(pool, "resize")
        gate = stage.gate()
        pool.submit([delivery(tasks.hold, gate.began, gate.gate) for _ in range(4)])
        gate.arrived(1)
        pool.resize(3)
        assert pool.size == 3
        gate.arrived(2)
        assert gate.nobody_else()
        gate.open(4)
        stage.outcomes(pool, 4)
        assert pool.free == 3

    def test_fewer_slots_end_nothing_that_runs(self, stage: Stage) -> None:
        self.together()
        pool = stage.start(PoolOptions(size=3))
        needs(pool, "resize")
        gate = stage.gate()
        pool.submit([delivery(tasks.hold, gate.began, gate.gate, number) for number in range(3)])
        gate.arrived(3)
        pool.resize(1)
        assert pool.free == 0
        gate.open(3)
        assert sorted(value(outcome) for _, outcome in stage.outcomes(pool, 3)) == [0, 1, 2]
        pool.submit([delivery(tasks.hold, gate.began, gate.gate, number) for number in (3, 4)])
        gate.arrived(1)
        assert gate.nobody_else()
        gate.open()
        stage.outcomes(pool, 1)
        gate.arrived(1)
        gate.open()
        stage.outcomes(pool, 1)
        assert (pool.size, pool.free) == (1, 1)

    def test_tasks_of_a_pool_that_survives_run_in_other_processes(self, stage: Stage) -> None:
        pool = stage.start(PoolOptions(size=2))
        needs(pool, "survives")
        ledger = stage.folder() / "ledger"
        outcomes = stage.run(pool, [delivery(tasks.write_down, str(ledger), "x") for _ in range(50)])
        assert os.getpid() not in {value(outcome) for outcome in outcomes}
