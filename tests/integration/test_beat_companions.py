"""How does a beat get on with clocks, other beats, and who changes rows meanwhile?"""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.db import connections

from django_tasks import signals
from django_tasks.beat.beat import Beat
from django_tasks.beat.tick import FROZEN, next_due
from django_tasks.management.commands.beat import Command
from django_tasks.models import PeriodicTask, ScheduledRun
from django_tasks.testing.contracts.harness import together
from django_tasks.worker.bell import Bell
from tests.periodic import Clock, at, beat, close, look, many, periodic, sent, slots
from tests.sabotage import another
from tests.vendors import each_vendor

pytestmark = pytest.mark.usefixtures("in_database")


class Ending(Beat):
    """Ends as soon as it begins."""

    def run(self) -> None:
        pass


@each_vendor("sqlite")
def test_a_command_whose_beat_has_ended_by_itself_fails(alias: str):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]
    try:
        with pytest.raises(CommandError, match="by itself"):
            Command().attend(Ending(alias, name="beat@test"), Bell())
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@each_vendor("sqlite", transaction=True)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_beat_that_dies_says_so_and_one_that_is_stopped_does_not(alias: str):
    def broken() -> Any:
        raise RuntimeError("no clock")

    dead = threading.Event()
    dying = Beat(alias, name="dying", clock=broken)
    dying.died = dead.set
    dying.start()
    dying.join(10)
    assert dead.is_set()
    dead.clear()
    looking = threading.Event()

    def clock() -> Any:
        looking.set()
        return at(0)

    told = Beat(alias, name="told", clock=clock)
    told.died = dead.set
    told.start()
    assert looking.wait(10)
    told.stop()
    assert not told.is_alive()
    assert not dead.is_set()


@each_vendor()
def test_rows_are_removed_by_what_is_known_of_their_runs(alias: str):
    periodic(alias)
    periodic(alias, "idle", schedule="every 1 day")
    look(alias, 10)
    PeriodicTask.objects.using(alias).filter(runs__isnull=True).distinct().delete()
    assert PeriodicTask.objects.using(alias).get().name == "a"
    PeriodicTask.objects.using(alias).get().delete()
    assert not ScheduledRun.objects.using(alias).exists()


@each_vendor(transaction=True)
def test_rows_are_changed_and_removed_while_beats_tick(alias: str):
    many(alias, [PeriodicTask(name=str(n), task="t", schedule="every 1 seconds") for n in range(30)])
    look(alias, 0.5)
    over = threading.Event()

    def ticking() -> None:
        second = 1
        # On SQLite they would leave no room for anybody else.
        while not over.wait(0.01):
            while look(alias, second, limit=7).rows:
                pass
            second += 1

    def changing() -> None:
        try:
            for number in range(30):
                row = PeriodicTask.objects.using(alias).get(name=str(number))
                if number % 3 == 0:
                    row.delete()
                elif number % 3 == 1:
                    PeriodicTask.objects.using(alias).filter(pk=row.pk).delete()
                else:
                    row.description = "changed"
                    row.save()
                    PeriodicTask.objects.using(alias).filter(pk=row.pk).update(enabled=False)
        finally:
            over.set()

    together(ticking, changing, *([] if alias == "default" else [ticking]))
    rows = list(PeriodicTask.objects.using(alias))
    assert len(rows) == 10
    assert {(row.description, row.enabled) for row in rows} == {("changed", False)}
    assert set(ScheduledRun.objects.using(alias).values_list("periodic_task_id", flat=True)) <= {row.pk for row in rows}


@each_vendor(transaction=True)
class TestClocks:
    def test_set_back_by_an_hour_nothing_runs_twice_and_nothing_is_silent(self, alias: str):
        periodic(alias)
        clock = Clock(1)
        sender = beat(alias, clock)
        for second in (1, 10, 3610):
            clock.seconds = second
            sender.once()
        assert slots(alias) == [10, 3610]
        clock.seconds = 15
        assert 0 < sender.once() <= 1.0
        # The slot before the last one was told as missed when the clock went forward, and stays so.
        for second in (20, 30, 3590, 3600, 3610, 3620):
            clock.seconds = second
            sender.once()
        assert slots(alias) == [10, 20, 30, 3590, 3610, 3620]
        assert len(sent(alias)) == 6
        assert PeriodicTask.objects.using(alias).get().total_run_count == 6

    def test_a_beat_that_starts_after_the_clock_was_set_back_sees_it(self, alias: str):
        periodic(alias)
        clock = Clock(3610)
        beat(alias, clock).once()
        clock.seconds = 15
        sender = beat(alias, clock)
        sender.once()
        clock.seconds = 20
        sender.once()
        assert slots(alias) == [20, 3610]

    def test_set_forward_the_policy_for_missed_runs_says_what_runs(self, alias: str):
        for missed in ("skip", "once", "all"):
            periodic(alias, missed, schedule="every 1 minute", missed=missed, missed_limit=3)
        clock = Clock(1)
        sender = beat(alias, clock)
        sender.once()
        clock.seconds = 3600 + 30
        sender.once()
        assert (slots(alias, "skip"), slots(alias, "once")) == ([3600], [3600])
        assert slots(alias, "all") == [3480, 3540, 3600]

    def test_a_long_stall_does_not_move_the_grid(self, alias: str):
        periodic(alias, schedule="every 2 seconds")
        clock = Clock(1)
        sender = beat(alias, clock)
        for second in (1, 2.0, 4.1, 6.9, 13.37, 14.0, 16.2):
            clock.seconds = second
            sender.once()
        assert slots(alias) == [2, 4, 6, 12, 14, 16]

    def test_what_was_pending_when_a_beat_ended_is_sent_by_the_next(self, alias: str):
        periodic(alias, schedule="every 1 hour")
        periodic(alias, "later", schedule=f"clocked {at(7300).isoformat()}")
        clock = Clock(1)
        beat(alias, clock).once()
        close(alias)
        clock.seconds = 7301
        beat(alias, clock).once()
        assert (slots(alias), slots(alias, "later")) == ([7200], [7300])
        assert next_due(alias) == at(10_800)


@each_vendor("postgres", "mariadb", transaction=True)
class TestRowsInOtherHands:
    def test_a_beat_that_finds_all_in_the_hands_of_others_does_not_turn_in_circles(self, alias: str):
        periodic(alias)
        look(alias, 1)
        with another(alias) as run:
            run("BEGIN")
            run("SELECT * FROM django_tasks_periodictask FOR UPDATE")
            assert 0.05 <= beat(alias, Clock(10)).once() <= 0.5
            assert slots(alias) == []
            run("ROLLBACK")
        assert beat(alias, Clock(10)).once() == 1.0
        assert slots(alias) == [10]

    def test_a_server_lets_go_of_rows_that_a_frozen_beat_holds(self, alias: str):
        question = {
            "postgres": "SHOW idle_in_transaction_session_timeout",
            "mariadb": "SELECT CONCAT(@@idle_transaction_timeout, 's')",
        }[alias]
        said = []

        def ask(**_: Any) -> None:
            with connections[alias].cursor() as cursor:
                cursor.execute(question)
                said.append(cursor.fetchone()[0])

        periodic(alias)
        signals.task_publishing.connect(ask)
        try:
            look(alias, 10)
        finally:
            signals.task_publishing.disconnect(ask)
        assert said == [f"{FROZEN}s"]
