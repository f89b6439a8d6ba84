"""Do child processes run tasks, whatever these do to them?"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connections

from django_tasks import signals, states
from django_tasks.plan import Outcome
from django_tasks.pools.prefork import PreforkPool
from tests.app import pool_tasks as tasks
from tests.app.models import Note
from tests.integration.rig import Rig, delivery, open_when, text, value
from tests.vendors import each_vendor

Start = Callable[..., Rig[PreforkPool]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start pools; afterwards stop them, and see that they left nothing behind."""
    before = descriptors()
    rigs: list[Rig[PreforkPool]] = []

    def make(size: int = 2, **options) -> Rig[PreforkPool]:
        rig = Rig(PreforkPool, size=size, **options)
        rigs.append(rig)
        rig.pool.start()
        return rig

    yield make
    for rig in rigs:
        seen = processes(rig)
        rig.close()
        assert [pid for pid in seen if Path(f"/proc/{pid}").exists()] == []
    # What an earlier test left to the garbage collector may have gone meanwhile; nothing may have come.
    assert descriptors() - before == Counter()


def descriptors() -> Counter[str]:
    connections.close_all()
    return Counter(str(path.readlink()) for path in Path("/dev/fd").iterdir() if path.is_symlink())


def children(rig: Rig[PreforkPool]) -> list[int]:
    """Return the process ids of the children that are up."""
    with rig.pool._guard:
        return sorted(handle.pid for handle in rig.pool._crew.children.values() if handle.present)


def processes(rig: Rig[PreforkPool]) -> list[int]:
    crew = rig.pool._crew
    return [crew.template.pid, *(handle.pid for handle in crew.children.values() if handle.pid)]


def up(rig: Rig[PreforkPool], count: int = 2) -> list[int]:
    """Wait until so many children are up."""
    rig.until(lambda: len(children(rig)) == count, f"{count} children are up")
    return children(rig)


def warm(rig: Rig[PreforkPool]) -> None:
    """Have the pool learn that tasks are short, so that it hands out many at a time."""
    rig.run(*(delivery(tasks.noop) for _ in range(300)))


class TestRunning:
    def test_tasks_run_in_children_and_come_out_once_each(self, start):
        rig = start()
        calls = [delivery(tasks.echo, number) for number in range(1000)]
        assert [value(outcome) for outcome in rig.run(*calls)] == list(range(1000))
        assert {value(outcome) for outcome in rig.run(*(delivery(tasks.pid) for _ in range(50)))} <= set(children(rig))
        assert rig.pool.free == 2

    def test_states_in_between_come_out_before_the_end(self, start):
        rig = start()
        call = delivery(tasks.report, ["PROGRESS", "ALMOST"])
        (outcome,) = rig.run(call)
        assert value(outcome) == "reported"
        assert [(each, between.state) for each, between in rig.interim] == [(call, "PROGRESS"), (call, "ALMOST")]

    def test_what_has_begun_is_known(self, start, tmp_path):
        rig = start()
        gate, before = rig.gate(tmp_path / "gate"), time.time()
        call = delivery(tasks.mark_and_hold, str(tmp_path / "begun"), str(gate))
        rig.submit(call)
        rig.begun(tmp_path / "begun")
        (entry,) = rig.pool.running()
        assert entry.delivery is call
        assert before - 1 < entry.since <= time.time()
        assert rig.pool.free == 1
        gate.open()
        assert entry.pid == value(rig.results([call])[0])
        assert rig.pool.running() == []
        assert rig.pool.free == 2

    def test_what_waits_can_be_taken_back(self, start, tmp_path):
        rig = start()
        gate = rig.gate(tmp_path / "gate")
        running = [delivery(tasks.hold, str(gate)) for _ in range(2)]
        waiting = [delivery(tasks.noop) for _ in range(5)]
        rig.submit(*running)
        rig.until(lambda: len(rig.pool.running()) == 2, "both run")
        rig.submit(*waiting)
        assert rig.pool.free == 0
        assert rig.pool.reclaim(older_than=60) == []
        assert rig.pool.reclaim() == waiting
        gate.open(2)
        rig.results(running)
        assert set(rig.outcomes) == {each.message.id for each in running}

    def test_a_long_task_holds_up_no_short_one(self, start, tmp_path):
        """A task that does not end among two hundred short ones, two slots: the short ones are done meanwhile."""
        rig = start()
        warm(rig)
        gate = rig.gate(tmp_path / "gate")
        short = [delivery(tasks.noop) for _ in range(200)]
        long = delivery(tasks.hold, str(gate))
        rig.submit(*short[:100], long, *short[100:])
        rig.results(short)
        assert long.message.id not in rig.outcomes
        gate.open()
        assert rig.results([long])

    def test_what_waits_behind_two_long_tasks_comes_back_to_the_worker(self, start, tmp_path):
        rig = start()
        warm(rig)
        gate = rig.gate(tmp_path / "gate")
        long = [delivery(tasks.hold, str(gate)) for _ in range(2)]
        short = [delivery(tasks.noop) for _ in range(20)]
        rig.submit(*long, *short)
        back: list[object] = []

        def reclaimed() -> bool:
            back.extend(rig.pool.reclaim(0.05))
            return len(back) + sum(each.message.id in rig.outcomes for each in short) == 20

        rig.until(reclaimed, "all short ones ran or came back")
        gate.open(2)
        rig.results(long)

    def test_arguments_of_ten_megabytes(self, start):
        rig = start()
        calls = [delivery(tasks.echo, "x" * 900_000) for _ in range(12)]
        assert [len(value(outcome)) for outcome in rig.run(*calls)] == [900_000] * 12


class TestCrashes:
    """FAULTS A1, A8, A10, A13: a child that dies takes its own task with it, and nothing else."""

    def test_a_child_killed_by_its_task_is_named_and_replaced(self, start):
        rig = start()
        before = up(rig)
        call = delivery(tasks.kill_self, signal.SIGKILL)
        began = time.monotonic()
        (outcome,) = rig.run(call)
        assert time.monotonic() - began < 30
        assert "signal 9 (SIGKILL)" in text(outcome)
        assert outcome.requeue is not None
        assert outcome.requeue.spent
        after = up(rig)
        assert len(set(before) & set(after)) == 1

    def test_a_task_that_must_not_be_repeated_fails(self, start):
        rig = start()
        (outcome,) = rig.run(delivery(tasks.kill_self_once, signal.SIGKILL))
        assert outcome.state == states.FAILURE
        assert outcome.requeue is None
        assert "signal 9 (SIGKILL)" in text(outcome)

    @pytest.mark.parametrize(
        ("how", "reason"),
        [("segfault", "signal 11 (SIGSEGV)"), ("abort", "signal 6 (SIGABRT)"), ("_exit", "exit code 7")],
    )
    def test_the_way_a_process_ended_is_told(self, start, how, reason):
        rig = start()
        (outcome,) = rig.run(delivery(tasks.end, how))
        assert reason in text(outcome)
        up(rig)

    @pytest.mark.parametrize(
        ("how", "name"), [("exit", "SystemExit"), ("memory", "MemoryError"), ("recursion", "RecursionError")]
    )
    def test_what_a_process_survives_is_an_ordinary_failure(self, start, how, name):
        rig = start(size=1)
        before = up(rig, 1)
        (outcome,) = rig.run(delivery(tasks.end, how))
        assert outcome.state == states.FAILURE
        assert text(outcome).startswith(name)
        assert up(rig, 1) == before

    def test_the_neighbours_of_a_poison_pill_are_not_punished(self, start):
        rig = start()
        for _ in range(20):
            warm(rig)
            neighbours = [delivery(tasks.noop) for _ in range(50)]
            poison = delivery(tasks.kill_self, signal.SIGKILL)
            rig.submit(*neighbours[:25], poison, *neighbours[25:])
            assert {outcome.state for outcome in rig.results(neighbours)} == {states.SUCCESS}
            (outcome,) = rig.results([poison])
            assert outcome.requeue is not None

    def test_children_killed_at_random_stall_nobody(self, start):
        """Hundreds of SIGKILLs at any moment: each delivery comes out once, and something comes out after each.

        A machine that is slow to start children is given the time: the next kill waits for something to come out.
        """
        seed = random.randrange(1 << 32)
        print("seed", seed)
        rng = random.Random(seed)
        rig = start(size=3)
        up(rig, 3)
        over = threading.Event()
        kills = seen = 0

        def kill() -> None:
            nonlocal kills, seen
            while not over.wait(rng.uniform(0.0, 0.012)):
                if len(rig.order) == seen:
                    continue
                with contextlib.suppress(ProcessLookupError, IndexError):
                    os.kill(rng.choice(children(rig)), signal.SIGKILL)
                    seen = len(rig.order)
                    kills += 1

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            calls = []
            while kills < 300:
                calls += [delivery(tasks.spin, rng.choice((0, 10, 1000, 20_000))) for _ in range(100)]
                rig.submit(*calls[-100:])
                rig.results(calls[:-200])
            rig.results(calls)
        finally:
            over.set()
            killer.join()
        print("killed", kills, "of", len(calls))
        states_seen = Counter(outcome.state for outcome in rig.outcomes.values())
        assert set(states_seen) <= {states.SUCCESS, states.RETRY}
        assert states_seen[states.RETRY] <= kills

    def test_children_that_do_not_come_up_are_tried_again_ever_more_slowly(self, start, tmp_path, caplog):
        """The log tells; when the cause is gone, all is well."""
        broken = tmp_path / "broken"
        broken.touch()

        def die(**kwargs: object) -> None:
            if broken.exists():
                os._exit(3)

        signals.child_started.connect(die)
        try:
            rig = start(size=1)
            call = delivery(tasks.noop)
            rig.submit(call)

            def told() -> list[float]:
                return [r.__dict__["next_try_in"] for r in caplog.records if "did not come up" in r.message]

            rig.until(lambda: len(told()) >= 4, "the log tells of it")
            assert told()[:4] == [0.1, 0.2, 0.4, 0.8]
            assert "exit code 3" in {r.__dict__["reason"] for r in caplog.records if "did not come up" in r.message}
            broken.unlink()
            assert rig.results([call])[0].state == states.SUCCESS
        finally:
            signals.child_started.disconnect(die)

    def test_without_its_template_a_pool_says_that_it_is_done_for(self, start, tmp_path):
        rig = start()
        up(rig)
        call = delivery(tasks.mark_and_hold, str(tmp_path / "begun"), str(rig.gate(tmp_path / "gate")))
        rig.submit(call)
        rig.begun(tmp_path / "begun")
        os.kill(rig.pool._crew.template.pid, signal.SIGKILL)
        (outcome,) = rig.results([call], patience=2)
        assert "signal 9 (SIGKILL)" in text(outcome)
        assert rig.pool.exhausted
        assert rig.pool.free == 0
        late = delivery(tasks.noop)
        rig.submit(late)
        assert rig.pool.reclaim() == [late]


class TestSignals:
    """FAULTS A6: the worker coordinates; what reaches a child alone does nothing."""

    @pytest.mark.parametrize(
        "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=lambda n: n.name
    )
    def test_a_signal_to_all_processes_disturbs_no_task(self, start, tmp_path, number):
        rig = start(size=1)
        gate = rig.gate(tmp_path / "gate")
        call = delivery(tasks.mark_and_hold, str(tmp_path / "begun"), str(gate))
        rig.submit(call)
        rig.begun(tmp_path / "begun")
        for pid in processes(rig):
            os.kill(pid, number)
        gate.open()
        assert rig.results([call])[0].state == states.SUCCESS

    def test_programs_that_a_task_starts_can_be_terminated(self, start, tmp_path):
        rig = start(size=1)
        codes = rig.run(delivery(tasks.terminate_program), delivery(tasks.fork_and_be_killed))
        assert [value(outcome) for outcome in codes] == [-signal.SIGTERM, -signal.SIGTERM]

    def test_children_show_where_they_are(self, start, tmp_path, capfd):
        rig = start(size=1)
        gate = rig.gate(tmp_path / "gate")
        call = delivery(tasks.mark_and_hold, str(tmp_path / "begun"), str(gate))
        rig.submit(call)
        rig.begun(tmp_path / "begun")
        seen: list[str] = []

        def shown() -> bool:
            # Again and again: the task says that it has begun before it comes to the gate.
            rig.pool.dump_stacks()
            seen.append(capfd.readouterr().err)
            return "in pass_gate" in "".join(seen)

        rig.until(shown, "the stack was printed")
        gate.open()
        assert rig.results([call])[0].state == states.SUCCESS


class TestLimits:
    """FAULTS B5, I2, I5, I6, I7."""

    def test_a_task_over_its_hard_limit_is_killed(self, start):
        rig = start(size=1)
        before = up(rig, 1)
        began = time.monotonic()
        (outcome,) = rig.run(delivery(tasks.pause, 60, time_limit=0.3))
        assert 0.3 <= time.monotonic() - began < 30
        assert text(outcome).startswith("TimeLimitExceeded")
        assert outcome.state == states.FAILURE
        assert up(rig, 1) != before

    def test_also_while_it_is_in_c_code_with_the_interpreter_lock(self, start):
        """And the other child works on meanwhile, and the pool answers."""
        rig = start()
        hog = delivery(tasks.hog, 60, time_limit=5.0)
        rig.submit(hog)
        rig.until(lambda: len(rig.pool.running()) == 1, "it runs")
        for _ in range(5):
            rig.run(*(delivery(tasks.noop) for _ in range(20)))
        assert hog.message.id not in rig.outcomes
        assert text(rig.results([hog])[0]).startswith("TimeLimitExceeded")

    def test_the_limit_of_the_pool_is_for_tasks_without_one(self, start):
        rig = start(time_limit=0.3)
        calls = [delivery(tasks.pause, 60), delivery(tasks.pause, 0.6, time_limit=20)]
        killed, finished = rig.run(*calls)
        assert text(killed).startswith("TimeLimitExceeded")
        assert finished.state == states.SUCCESS

    def test_the_neighbours_of_a_task_that_is_killed_run(self, start):
        rig = start(size=1)
        warm(rig)
        slow = delivery(tasks.pause, 60, time_limit=0.3)
        others = [delivery(tasks.noop) for _ in range(30)]
        rig.submit(*others[:10], slow, *others[10:])
        assert {outcome.state for outcome in rig.results(others)} == {states.SUCCESS}
        assert text(rig.results([slow])[0]).startswith("TimeLimitExceeded")

    def test_a_soft_limit_lets_the_task_clean_up(self, start, tmp_path):
        rig = start(size=1)
        before = up(rig, 1)
        call = delivery(tasks.clean_up, str(tmp_path / "begun"), str(rig.gate(tmp_path / "gate")), soft_time_limit=0.2)
        (outcome,) = rig.run(call)
        assert value(outcome) == "cleaned up"
        assert up(rig, 1) == before

    def test_a_task_that_swallows_the_soft_limit_meets_the_hard_one(self, start, tmp_path):
        rig = start(size=1)
        mark = tmp_path / "mark"
        (outcome,) = rig.run(delivery(tasks.ignore_limits, str(mark), soft_time_limit=0.2, time_limit=1.0))
        assert Path(f"{mark}.swallowed").exists()
        assert text(outcome).startswith("TimeLimitExceeded")

    def test_soft_limits_strike_nobody_else(self, start):
        """Tasks about as long as their limit, thousands of them: each ends well or struck, and the pool goes on."""
        rig = start()
        calls = [delivery(tasks.spin, random.randrange(150_000), soft_time_limit=0.002) for _ in range(3000)]
        before = up(rig)
        for first in range(0, 3000, 100):
            rig.run(*calls[first : first + 100])
        ends = Counter(
            "well" if outcome.state == states.SUCCESS else text(outcome).split(":")[0]
            for outcome in rig.outcomes.values()
        )
        assert set(ends) == {"well", "SoftTimeLimitExceeded"}
        assert children(rig) == before

    def test_a_running_task_can_be_ended(self, start, tmp_path):
        rig = start(size=1)
        call = delivery(tasks.mark_and_hold, str(tmp_path / "begun"), str(rig.gate(tmp_path / "gate")))
        rig.submit(call)
        rig.begun(tmp_path / "begun")
        assert rig.pool.cancel(call.message.id)
        assert rig.results([call])[0].state == states.REVOKED

    def test_a_running_task_that_does_not_listen_can_be_killed(self, start, tmp_path):
        rig = start(size=1)
        call = delivery(tasks.ignore_limits, str(tmp_path / "mark"))
        rig.submit(call)
        rig.begun(tmp_path / "mark")
        assert rig.pool.cancel(call.message.id)
        rig.begun(f"{tmp_path / 'mark'}.swallowed")
        assert rig.pool.cancel(call.message.id, kill=True)
        assert rig.results([call], patience=2)[0].state == states.REVOKED

    @pytest.mark.parametrize("kill", [False, True])
    def test_a_task_that_waits_can_be_kept_from_beginning(self, start, tmp_path, kill):
        rig = start(size=1)
        gate = rig.gate(tmp_path / "gate")
        first, second = delivery(tasks.mark_and_hold, str(tmp_path / "begun"), str(gate)), delivery(tasks.noop)
        rig.submit(first, second)
        rig.begun(tmp_path / "begun")
        assert rig.pool.cancel(second.message.id, kill=kill)
        assert rig.results([second])[0].state == states.REVOKED
        gate.open()
        assert rig.results([first])[0].state == states.SUCCESS

    def test_nothing_is_found_that_is_not_there(self, start):
        rig = start(size=1)
        call = delivery(tasks.noop)
        rig.run(call)
        assert not rig.pool.cancel(call.message.id, kill=True)
        assert not rig.pool.cancel("no such id")

    @pytest.mark.parametrize("kill", [False, True])
    def test_cancelling_strikes_nobody_else(self, start, kill):
        """Hundreds of races between a task's end and its cancellation: only what was named is ever revoked."""
        seed = random.randrange(1 << 32)
        print("seed", seed)
        rng = random.Random(seed)
        rig = start()
        warm(rig)
        cancelled: set[str] = set()
        for _ in range(300 if kill else 1000):
            calls = [delivery(tasks.spin, rng.randrange(3000)) for _ in range(6)]
            victim = rng.choice(calls).message.id
            cancelled.add(victim)
            rig.submit(*calls)
            for _ in range(rng.randrange(300)):
                pass
            rig.pool.cancel(victim, kill=kill)
            rig.results(calls)
        revoked = {task_id for task_id, outcome in rig.outcomes.items() if outcome.state == states.REVOKED}
        assert {outcome.state for outcome in rig.outcomes.values()} <= {states.SUCCESS, states.REVOKED}
        assert revoked <= cancelled
        assert revoked


class TestStoppedChildren:
    """FAULTS A14: a child that reads nothing blocks nobody."""

    def test_a_child_that_stands_still_holds_up_nobody(self, start):
        rig = start()
        warm(rig)
        asleep = children(rig)[0]
        os.kill(asleep, signal.SIGSTOP)
        try:
            calls = [delivery(tasks.size_of, "x" * 900_000) for _ in range(12)] + [
                delivery(tasks.noop) for _ in range(200)
            ]
            began = time.monotonic()
            outcomes = rig.run(*calls)
            assert time.monotonic() - began < 10
            assert {outcome.state for outcome in outcomes} == {states.SUCCESS}
        finally:
            os.kill(asleep, signal.SIGCONT)
        rig.run(*(delivery(tasks.noop) for _ in range(200)))
        assert asleep in up(rig)

    def test_a_task_that_stands_still_is_killed_at_its_limit(self, start, tmp_path):
        rig = start(size=1)
        (pid,) = up(rig, 1)
        call = delivery(tasks.mark_and_hold, str(tmp_path / "begun"), str(rig.gate(tmp_path / "gate")), time_limit=0.5)
        rig.submit(call)
        rig.begun(tmp_path / "begun")
        os.kill(pid, signal.SIGSTOP)
        assert text(rig.results([call], patience=5)[0]).startswith("TimeLimitExceeded")


class TestRecycling:
    """FAULTS A12: a child is replaced between tasks, by one as small as the first was."""

    def test_after_so_many_tasks(self, start):
        rig = start(max_tasks_per_child=5)
        calls = [delivery(tasks.pid) for _ in range(100)]
        used = Counter(value(outcome) for outcome in rig.run(*calls))
        assert max(used.values()) <= 5
        assert len(used) >= 20

    def test_after_so_much_memory(self, start):
        _, small = value(start(size=1).run(delivery(tasks.leak, 0))[0])
        limit = small + 30_000
        rig = start(size=1, max_memory_per_child=limit)
        at_first: dict[int, int] = {}
        for _ in range(30):
            (outcome,) = rig.run(delivery(tasks.leak, 8 << 20))
            pid, size = value(outcome)
            at_first.setdefault(pid, size)
            # A child that has grown beyond the limit begins nothing more.
            assert size <= limit
        assert len(at_first) >= 3
        assert max(at_first.values()) - min(at_first.values()) < 8_000

    def test_a_child_that_was_replaced_is_no_crash(self, start, caplog):
        rig = start(max_tasks_per_child=1)
        assert {outcome.state for outcome in rig.run(*(delivery(tasks.noop) for _ in range(20)))} == {states.SUCCESS}
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


class TestIsolation:
    """FAULTS A15, E14."""

    def test_a_child_reads_nothing_from_the_terminal(self, start):
        assert value(start().run(delivery(tasks.standard_input))[0]) == "/dev/null"

    def test_children_draw_different_numbers(self, start):
        rig = start(size=2, max_tasks_per_child=1)
        drawn = [value(outcome) for outcome in rig.run(*(delivery(tasks.random_number) for _ in range(20)))]
        assert len(set(drawn)) == 20

    def test_a_task_finds_its_process_as_the_one_before_did(self, start, tmp_path):
        rig = start(size=1)
        (before,) = rig.run(delivery(tasks.look))
        rig.run(delivery(tasks.soil, str(tmp_path)))
        (after,) = rig.run(delivery(tasks.look))
        assert value(after) == value(before)
        # The timer that it left must not end the process, and strikes must still arrive.
        (struck,) = rig.run(delivery(tasks.pause, 60, soft_time_limit=0.2))
        assert text(struck).startswith("SoftTimeLimitExceeded")

    def test_a_copy_of_the_process_that_returns_from_the_task_says_nothing(self, start):
        rig = start(size=1)
        before = up(rig, 1)
        assert [value(outcome) for outcome in rig.run(delivery(tasks.fork_and_return))] == before
        calls = [delivery(tasks.echo, number) for number in range(50)]
        assert [value(outcome) for outcome in rig.run(*calls)] == list(range(50))


@each_vendor(transaction=True)
class TestDatabases:
    """FAULTS A15, I6."""

    def test_children_leave_the_connections_of_the_worker_alone(self, start, alias):
        """Threads have connections open and log without a pause while the pool is started; then they query while a
        hundred children are forked, and the children do the same."""
        over, ready, forked, queries = threading.Event(), threading.Event(), threading.Event(), Counter[str]()

        def query() -> None:
            while not over.is_set():
                if forked.is_set() or not ready.is_set():
                    queries[threading.current_thread().name] += Note.objects.using(alias).count() + 1
                logging.getLogger("django_tasks.tests").warning("busy")
                ready.set()
            connections[alias].close()

        Note.objects.using(alias).create(text="seen by all")
        threads = [threading.Thread(target=query, name=name) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        assert ready.wait(10)
        rig = start(max_tasks_per_child=1)
        forked.set()
        try:
            outcomes = rig.run(*(delivery(tasks.log_and_count, alias) for _ in range(100)))
            assert [value(outcome) for outcome in outcomes] == [1] * 100
            before = queries.copy()
            rig.until(lambda: all(queries[name] > before[name] + 5 for name in before), "the threads query still")
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert Note.objects.using(alias).count() == 1

    def test_a_strike_in_the_middle_of_a_transaction_harms_no_later_task(self, start, alias):
        rig = start(size=1)
        before = up(rig, 1)
        for turn in range(60):
            struck = delivery(tasks.write_for_ever, alias, soft_time_limit=0.01 + random.random() / 100)
            first, second = rig.run(struck, delivery(tasks.count_notes, alias))
            # What the strike makes of the driver's own state is the task's to see: it may fail with another error.
            assert first.state == states.FAILURE, turn
            assert value(second) % 2 == 0
        assert children(rig) == before
        assert Note.objects.using(alias).filter(text="half").count() * 2 == Note.objects.using(alias).count()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere children notice between tasks only")
class TestParentDeath:
    """FAULTS A2b."""

    SCRIPT = """
import sys, threading
import django
django.setup()
from django_tasks.pools.prefork import PreforkPool
from tests.app import pool_tasks as tasks
from tests.integration.rig import Rig, delivery, open_when
rig = Rig(PreforkPool, size=3)
rig.pool.start()
rig.submit(delivery(tasks.hog, 60), delivery(tasks.pause, 60), delivery(tasks.ignore_limits, sys.argv[1]))
rig.until(lambda: len(rig.pool.running()) == 3, "all run")
crew = rig.pool._crew
print(crew.template.pid, *(handle.pid for handle in crew.children.values()), flush=True)
threading.Event().wait()
"""

    def test_no_process_outlives_the_worker(self, tmp_path):
        """Not even one that runs C code or swallows whatever is raised in it."""
        parent = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT, str(tmp_path / "mark")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        )
        with parent:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 4
            assert all(map(alive, pids))
            parent.kill()
            deadline = time.monotonic() + 20
            while any(map(alive, pids)):
                assert time.monotonic() < deadline


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


class TestResizing:
    def test_a_pool_grows(self, start):
        rig = start(size=1)
        up(rig, 1)
        rig.pool.resize(12)
        up(rig, 12)
        assert rig.pool.free == 12

    def test_a_pool_shrinks_without_harm_to_what_runs(self, start, tmp_path):
        rig = start(size=3)
        up(rig, 3)
        gate = rig.gate(tmp_path / "gate")
        calls = [delivery(tasks.hold, str(gate)) for _ in range(3)]
        rig.submit(*calls)
        rig.until(lambda: len(rig.pool.running()) == 3, "all run")
        rig.pool.resize(1)
        assert rig.pool.free == 0
        gate.open(3)
        assert {outcome.state for outcome in rig.results(calls)} == {states.SUCCESS}
        up(rig, 1)

    def test_a_pool_of_nobody_is_refused(self, start):
        with pytest.raises(ValueError, match="at least one"):
            start().pool.resize(0)


class TestStopping:
    def test_what_runs_may_finish_and_what_waits_goes_back(self, start, tmp_path):
        rig = start(size=1)
        gate = rig.gate(tmp_path / "gate")
        running, waiting = delivery(tasks.hold, str(gate)), [delivery(tasks.noop) for _ in range(5)]
        rig.submit(running, *waiting)
        rig.until(lambda: len(rig.pool.running()) == 1, "it runs")
        opener = threading.Thread(target=open_when, args=(gate, lambda: rig.pool._crew._stop_at is not None))
        opener.start()
        rig.pool.stop(20)
        opener.join()
        assert rig.results([running])[0].state == states.SUCCESS
        assert all(handed_back(outcome) for outcome in rig.results(waiting))

    def test_what_runs_too_long_goes_back(self, start, tmp_path):
        rig = start()
        calls = [delivery(tasks.hold, str(rig.gate(tmp_path / str(number)))) for number in range(2)]
        rig.submit(*calls)
        rig.until(lambda: len(rig.pool.running()) == 2, "both run")
        began = time.monotonic()
        rig.pool.stop(0.3)
        assert 0.3 <= time.monotonic() - began < 30
        assert all(handed_back(outcome) for outcome in rig.results(calls))

    def test_a_second_call_puts_an_end_to_the_first(self, start, tmp_path):
        rig = start(size=1)
        call = delivery(tasks.hold, str(rig.gate(tmp_path / "gate")))
        rig.submit(call)
        rig.until(lambda: len(rig.pool.running()) == 1, "it runs")
        patient = threading.Thread(target=rig.pool.stop, args=(60,))
        patient.start()
        rig.until(lambda: rig.pool._crew._stop_at is not None, "the first call waits")
        began = time.monotonic()
        rig.pool.stop(0)
        patient.join(10)
        assert time.monotonic() - began < 30
        assert handed_back(rig.results([call])[0])

    def test_what_comes_after_goes_back_at_once(self, start):
        rig = start(size=1)
        rig.pool.stop(1)
        rig.pool.stop(0)
        call = delivery(tasks.noop)
        rig.submit(call)
        assert handed_back(rig.results([call])[0])
        assert rig.pool.running() == []
        assert rig.pool.reclaim() == []

    def test_a_pool_that_never_started_stops(self):
        before = descriptors()
        rig = Rig(PreforkPool)
        rig.pool.stop(1)
        assert descriptors() == before


def handed_back(outcome: Outcome) -> bool:
    return outcome.requeue is not None and not outcome.requeue.spent and not outcome.keep
