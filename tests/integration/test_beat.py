"""Is each slot of a periodic task sent once, and at what cost?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DataError, OperationalError, connections, transaction
from django.test import override_settings

from django_tasks.beat.slots import slot_id
from django_tasks.beat.tick import BATCH
from django_tasks.connections import brokers
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, ConfigurationError
from django_tasks.models import BeatNode, PeriodicTask, QueuedMessage, ScheduledRun
from django_tasks.schedules import Schedule
from django_tasks.testing.contracts.harness import together
from tests.integration.test_costs import trips, verbs
from tests.periodic import NOON, Clock, at, at_noon, beat, look, many, periodic, sent, settings_at, slots
from tests.vendors import each_vendor

pytestmark = [each_vendor(transaction=True), pytest.mark.usefixtures("in_database")]


def refuse(alias: str, table: str, error: Exception, times: int = 1):
    """Have statements about a table fail, so often."""
    left = [times]

    def raise_or_go_on(execute, sql, params, many, context):
        if left[0] and table in sql and "SELECT" not in sql.split()[0]:
            left[0] -= 1
            raise error
        return execute(sql, params, many, context)

    return connections[alias].execute_wrapper(raise_or_go_on)


FULL = OperationalError(1021, "Disk full")
GONE = OperationalError("the server has gone away")


def test_a_slot_is_claimed_sent_recorded_and_left_behind_in_one_transaction(alias: str):
    row = periodic(alias, args="[2, 3]", kwargs='{"x": 1}', queue="mail", priority=7, expires=60.0, headers='{"h": 1}')
    assert (look(alias, 5).published, look(alias, 9.9).published) == (0, 0)
    assert look(alias, 10.25).published == 1
    message = QueuedMessage.objects.using(alias).get()
    run = ScheduledRun.objects.using(alias).get()
    row.refresh_from_db()
    assert (message.task, message.queue, message.rank) == ("tests.unknown", "mail", -7)
    headers = json.loads(message.headers)
    assert (headers["h"], headers["periodic_task_name"]) == (1, "a")
    assert message.task_id == run.task_id == row.last_task_id == slot_id(row.pk, at(10))
    assert (run.slot_at, run.published_at, run.outcome) == (at(10), at(10.25), "sent")
    assert run.lateness == pytest.approx(0.25)
    assert (row.slot_at, row.next_run_at, row.last_run_at, row.total_run_count) == (at(20), at(20), at(10.25), 1)
    assert look(alias, 10.25).rows == 0


@pytest.mark.parametrize(
    ("table", "error", "raised"),
    [("queuedmessage", FULL, BrokerFull), ("queuedmessage", GONE, BrokerUnavailable)]
    + [(table, GONE, OperationalError) for table in ("scheduledrun", "periodictask")],
)
def test_what_cannot_be_sent_leaves_all_as_it_was_and_is_sent_later(
    alias: str, table: str, error: Exception, raised: type[Exception]
):
    many(alias, [PeriodicTask(name=str(n), task="t", schedule="every 10 seconds") for n in range(3)])
    look(alias, 1)
    before = list(PeriodicTask.objects.using(alias).order_by("pk").values())
    clock = Clock(10)
    with refuse(alias, table, error), pytest.raises(raised):
        beat(alias, clock).once()
    assert list(PeriodicTask.objects.using(alias).order_by("pk").values()) == before
    assert not sent(alias)
    assert not ScheduledRun.objects.using(alias).exists()
    clock.seconds = 13
    beat(alias, clock).once()
    assert sorted(sent(alias)) == sorted(slot_id(row["id"], at(10)) for row in before)


def test_beats_that_look_at_the_same_time_send_nothing_twice(alias: str):
    many(alias, [PeriodicTask(name=str(n), task="t", schedule=f"every {n % 3 + 1} seconds") for n in range(40)])

    def run() -> int:
        number = 0
        for second in range(1, 7):
            while (ticked := look(alias, second, limit=7)).rows:
                number += ticked.published
        return number

    numbers = together(run, run, run)
    # One that is ahead of the others passes over slots, which are told as missed.
    told = ScheduledRun.objects.using(alias).exclude(outcome="missed")
    runs = list(told.values_list("periodic_task_id", "slot_at"))
    assert len(set(runs)) == len(runs) == sum(numbers) == len(sent(alias)) == len(set(sent(alias)))
    assert {slot for _, slot in runs} >= {at(6)}


def test_a_slot_that_has_a_row_is_not_sent_again_and_counts_once(alias: str):
    row = periodic(alias)
    look(alias, 10)
    PeriodicTask.as_they_are.using(alias).update(slot_at=at(10), next_run_at=at(10), last_task_id="another")
    assert look(alias, 11) == type(look(alias, 0))(1, 0)
    row.refresh_from_db()
    assert (row.slot_at, row.total_run_count, row.last_task_id) == (at(20), 1, "another")
    assert len(sent(alias)) == 1


@dataclass(frozen=True, slots=True)
class Cursed(Schedule):
    def next(self, after: datetime) -> datetime | None:
        raise RuntimeError("no text \0 for every database")


BROKEN: dict[str, dict[str, Any]] = {
    "json": {"args": "[1,"},
    "no list": {"args": '{"a": 1}'},
    "deep": {"kwargs": "[" * 100_000},
    "schedule": {"schedule": "every blue moon"},
    "cursed": {"schedule": f"{__name__}.Cursed"},
    "no such class": {"schedule": "os.path.join"},
    "zone": {"schedule": "cron 0 4 * * *", "timezone": "Mars/Olympus"},
    "priority": {"priority": 3000},
    "endless": {"expires": 1e300},
    "queue": {"queue": "no\tqueue"},
    "task": {"task": ""},
    "header": {"headers": '{"periodic": {"a": "\\ud800"}}', "kwargs": '{"\\ud800": 1}'},
    "jitter": {"jitter": 1e300},
}


def test_rows_that_describe_no_call_are_disabled_and_the_others_go_on(alias: str):
    told = {name: {"name": name, "task": "t", "schedule": "every 10 seconds", **row} for name, row in BROKEN.items()}
    many(alias, [PeriodicTask(**row) for row in told.values()])
    periodic(alias, "good")
    clock = Clock(1)
    sender = beat(alias, clock)
    sender.once()
    clock.seconds = 10
    sender.once()
    rows = {row.name: row for row in PeriodicTask.objects.using(alias)}
    assert slots(alias, "good") == [10]
    wrong = {name for name in BROKEN if rows[name].enabled}
    # Such text can be sent: JSON writes it in ASCII.
    assert wrong <= {"header"}
    assert all(rows[name].error and rows[name].next_run_at is None for name in BROKEN if name not in wrong)
    assert len(sent(alias)) == 1 + len(wrong)


def test_messages_that_no_broker_takes_are_found_among_many(alias: str):
    rows = [PeriodicTask(name=str(n), task="t", schedule="every 10 seconds") for n in range(60)]
    for row in (rows[3], rows[50]):
        row.task = "bane"
    many(alias, rows)

    def choke(execute, sql, params, many, context):
        if "queuedmessage" in sql and "bane" in str(params):
            raise DataError("value out of range")
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(choke):
        beat(alias, Clock(10)).once()
    disabled = PeriodicTask.objects.using(alias).filter(enabled=False)
    assert sorted(disabled.values_list("name", flat=True)) == ["3", "50"]
    assert all("value out of range" in row.error for row in disabled)
    assert len(sent(alias)) == 58


def test_settings_that_are_wrong_disable_no_row(alias: str):
    periodic(alias)
    with override_settings(DJANGO_TASKS={**settings_at(alias), "QUEUE": {}}), pytest.raises(ConfigurationError):
        beat(alias, Clock(10)).once()
    assert PeriodicTask.objects.using(alias).get().enabled
    look(alias, 10)
    assert slots(alias) == [10]


def test_a_tick_takes_as_many_statements_for_one_as_for_hundreds(alias: str):
    run, left_out = [], []
    for number in (1, BATCH - 1):
        rows = [PeriodicTask(name=f"{number} {n}", task="t", schedule="every 10 seconds") for n in range(number)]
        for row in rows:
            row.overlap = "skip"
        many(alias, rows)
        look(alias, 1)
        run.append(len(trips(alias, lambda: look(alias, 10))))
        assert len(sent(alias)) == number
        left_out.append(len(trips(alias, lambda: look(alias, 20))))
        assert len(sent(alias)) == number
        PeriodicTask.objects.using(alias).update(enabled=False)
        QueuedMessage.objects.using(alias).all().delete()
    assert run[0] == run[1]
    assert left_out[0] == left_out[1]
    # Two of them begin and end it; where a server can, one has it let go of what is frozen.
    assert run[0] <= 9


def test_rows_that_are_not_due_cost_nothing(alias: str):
    periodic(alias, "due")
    look(alias, 1)
    alone = trips(alias, lambda: look(alias, 10))
    rows = [PeriodicTask(name=str(n), task="t", schedule="every 1 day") for n in range(300)]
    many(alias, rows)
    while look(alias, 11).rows:
        pass
    assert len(trips(alias, lambda: look(alias, 20))) == len(alone)
    sender = beat(alias, Clock(21))
    sender.once()
    assert verbs(trips(alias, sender.once)) == ["SELECT"]
    assert look(alias, 21).rows == 0


def test_elsewhere_than_in_a_database_messages_go_through_the_outbox(alias: str):
    told = {**settings_at(alias), "BROKERS": {"default": {"BACKEND": "memory"}}}
    with override_settings(DJANGO_TASKS=told):
        # The outbox is where results are.
        periodic(alias)
        with transaction.atomic(using=alias):
            look(alias, 10)
            assert brokers["default"].fetch(["default"], 9, lease=30, consumer="w") == []
            transaction.set_rollback(True, using=alias)
        assert (sent(alias), slots(alias)) == ([], [])
        look(alias, 10)
        row = QueuedMessage.objects.using(alias).get()
        assert (row.broker, slots(alias)) == ("default", [10])
        assert brokers["default"].fetch(["default"], 9, lease=30, consumer="w") == []


def test_a_beat_says_that_it_is_there_and_takes_its_row_away(alias: str):
    periodic(alias)
    sender = beat(alias, Clock(10))
    sender.once()
    node = BeatNode.objects.using(alias).get()
    assert (node.name, node.published) == ("beat@test", 1)
    sender.leave()
    assert not BeatNode.objects.using(alias).exists()


def test_old_runs_are_removed_however_many(alias: str):
    row = periodic(alias)
    old = [ScheduledRun(periodic_task=row, slot_at=NOON - timedelta(seconds=n)) for n in range(2500)]
    ScheduledRun.objects.using(alias).bulk_create(old)
    ScheduledRun.objects.using(alias).update(created_at=datetime.now(UTC) - timedelta(days=40))
    beat(alias, Clock(10), history=timedelta(days=30)).once()
    assert ScheduledRun.objects.using(alias).count() == 1
    at_noon(alias)
