"""What becomes of slots that are missed, that overlap, that are changed meanwhile?"""

from __future__ import annotations

import json

import pytest
from django.core import serializers
from django.utils import timezone

from django_tasks import states
from django_tasks.beat.outcomes import connect, record
from django_tasks.beat.tick import next_due
from django_tasks.connections import results
from django_tasks.models import PeriodicTask, QueuedMessage, Revocation, ScheduledRun
from django_tasks.plan import Result
from tests.periodic import NOON, at, at_noon, look, many, periodic, sent, slots
from tests.vendors import each_vendor

pytestmark = pytest.mark.usefixtures("in_database")


def end(alias: str, task_id: str, outcome: str = "succeeded", *, seconds: float = 0) -> None:
    """Have a worker be done with a task."""
    QueuedMessage.objects.using(alias).filter(task_id=task_id).delete()
    record(alias, {outcome: [task_id]}, at(seconds))


def outcomes(alias: str, name: str = "a") -> dict[float, str]:
    runs = ScheduledRun.objects.using(alias).filter(periodic_task__name=name).order_by("slot_at")
    return {(slot - NOON).total_seconds(): outcome for slot, outcome in runs.values_list("slot_at", "outcome")}


@each_vendor("sqlite", "postgres")
class TestMissed:
    @pytest.mark.parametrize(
        ("missed", "late", "run"),
        [
            # Within the grace the last one runs, whatever is said of those that are missed.
            ("skip", 35.0, [30]),
            ("once", 35.0, [30]),
            ("all", 35.0, [10, 20, 30]),
            ("all", 205.0, [180, 190, 200]),
            ("once", 3600.0, [3600]),
        ],
    )
    def test_after_a_pause(self, alias: str, missed: str, late: float, run: list[float]):
        periodic(alias, missed=missed, missed_limit=3)
        look(alias, 1)
        look(alias, late)
        assert slots(alias) == run
        assert slots(alias, "a", "missed") == ([] if run[0] == 10 else [run[0] - 10])
        look(alias, late + 10)
        assert slots(alias)[-1] == (late + 10) // 10 * 10

    @pytest.mark.parametrize(("missed", "run"), [("skip", []), ("once", [3600]), ("all", [3600])])
    def test_what_is_late_for_longer_than_the_grace(self, alias: str, missed: str, run: list[float]):
        periodic(alias, schedule="every 1 hour", missed=missed)
        look(alias, 1)
        look(alias, 3600 + 61)
        assert slots(alias) == run
        assert slots(alias, "a", "missed") == ([] if run else [3600])
        look(alias, 7200)
        assert slots(alias)[-1] == 7200

    def test_none_of_those_missed_is_kept_when_none_may_be(self, alias: str):
        periodic(alias, missed="all", missed_limit=0)
        look(alias, 1)
        look(alias, 100)
        assert slots(alias) == []


@each_vendor("sqlite", "postgres")
class TestOverlap:
    def test_skip_leaves_out_until_the_run_before_has_ended(self, alias: str):
        periodic(alias, overlap="skip")
        look(alias, 10)
        look(alias, 20)
        assert outcomes(alias) == {10: "sent", 20: "skipped"}
        end(alias, sent(alias)[0])
        look(alias, 30)
        assert outcomes(alias) == {10: "succeeded", 20: "skipped", 30: "sent"}

    def test_a_final_result_says_that_it_has_ended_too(self, alias: str):
        periodic(alias, overlap="skip")
        look(alias, 10)
        results["default"].save([Result(id=sent(alias)[0], state=states.FAILURE, ended_at=at(12))])
        look(alias, 20)
        assert slots(alias) == [10, 20]

    def test_cancel_revokes_the_run_before(self, alias: str):
        connect()
        periodic(alias, overlap="cancel")
        look(alias, 10)
        first = sent(alias)[0]
        QueuedMessage.objects.using(alias).update(ready=False, leased_by="a worker")
        look(alias, 20)
        assert outcomes(alias) == {10: "revoked", 20: "sent"}
        assert Revocation.objects.using(alias).get(task_id=first).terminate

    @pytest.mark.parametrize("overlap", ["skip", "cancel", "wait"])
    def test_a_slot_that_comes_again_is_not_in_its_own_way(self, alias: str, overlap: str):
        periodic(alias, overlap=overlap)
        look(alias, 10)
        PeriodicTask.objects.using(alias).update(schedule="every 5 seconds")
        at_noon(alias, 9)
        look(alias, 11)
        assert not Revocation.objects.using(alias).exists()
        assert PeriodicTask.objects.using(alias).get().waiting_at is None
        assert outcomes(alias) == {10: "sent"}

    def test_one_waits_for_the_run_before_and_the_last_one_at_that(self, alias: str):
        periodic(alias, overlap="wait")
        look(alias, 10)
        look(alias, 20)
        look(alias, 30)
        assert outcomes(alias) == {10: "sent", 20: "skipped"}
        end(alias, sent(alias)[0])
        assert next_due(alias) == at(31)
        look(alias, 31)
        assert outcomes(alias) == {10: "succeeded", 20: "skipped", 30: "sent"}
        end(alias, sent(alias)[0])
        look(alias, 40)
        assert slots(alias) == [10, 30, 40]

    def test_the_last_slot_of_all_may_wait(self, alias: str):
        periodic(alias, overlap="wait", end_at=at(25))
        look(alias, 10)
        look(alias, 20)
        end(alias, sent(alias)[0])
        look(alias, 21)
        assert slots(alias) == [10, 20]
        look(alias, 22)
        assert next_due(alias) is None


@each_vendor("sqlite", "postgres")
class TestTerms:
    def test_one_that_runs_once_is_disabled_by_its_run(self, alias: str):
        periodic(alias, one_off=True)
        look(alias, 10)
        row = PeriodicTask.objects.using(alias).get()
        assert (slots(alias), row.enabled, row.error) == ([10], False, "")
        assert look(alias, 20).rows == 0

    def test_nothing_runs_before_the_start_nor_after_the_end(self, alias: str):
        periodic(alias, start_at=at(20), end_at=at(40))
        for second in range(1, 70):
            look(alias, second)
        assert slots(alias) == [20, 30, 40]
        assert next_due(alias) is None

    def test_a_moment_that_has_passed_while_nobody_looked_is_late_and_not_lost(self, alias: str):
        periodic(alias, schedule=f"clocked {at(10).isoformat()}")
        look(alias, 1)
        look(alias, 500)
        assert slots(alias) == [10]
        assert next_due(alias) is None

    def test_jitter_delays_by_so_much_at_most_and_is_not_late(self, alias: str):
        rows = [
            PeriodicTask(name=str(n), task="t", schedule="every 1 hour", jitter=300.0, missed="skip") for n in range(40)
        ]
        many(alias, rows)
        look(alias, 1)
        times = PeriodicTask.objects.using(alias).values_list("next_run_at", flat=True)
        delays = [(time - at(3600)).total_seconds() for time in times if time]
        assert len(delays) == 40
        assert all(0 <= delay <= 300 for delay in delays)
        assert max(delays) - min(delays) > 150
        for second in range(0, 301, 30):
            look(alias, 3600 + second)
        late = dict(ScheduledRun.objects.using(alias).values_list("slot_at", "lateness"))
        assert set(late) == {at(3600)}
        assert ScheduledRun.objects.using(alias).filter(outcome="sent", lateness__lte=30).count() == 40

    def test_failures_in_a_row_pause_it_and_a_change_begins_anew(self, alias: str):
        periodic(alias, pause_after=2)
        for second, outcome in ((10, "failed"), (20, "succeeded"), (30, "failed"), (40, "failed")):
            look(alias, second)
            end(alias, sent(alias)[0], outcome)
        row = PeriodicTask.objects.using(alias).get()
        assert not row.enabled
        assert "failed" in row.error
        assert look(alias, 50).rows == 0
        PeriodicTask.objects.using(alias).update(enabled=True)
        row.refresh_from_db()
        assert (row.failures, row.error) == (0, "")
        at_noon(alias, 55)
        look(alias, 60)
        end(alias, sent(alias)[0], "failed")
        look(alias, 70)
        assert slots(alias) == [10, 20, 30, 40, 60, 70]


@each_vendor("sqlite", "postgres")
class TestChanges:
    def test_however_a_row_comes_to_be_it_is_planned(self, alias: str):
        made = PeriodicTask(name="saved", task="t", schedule="every 10 seconds")
        made.save(using=alias)
        PeriodicTask.objects.using(alias).bulk_create(
            [PeriodicTask(name="bulk", task="t", schedule="every 10 seconds")]
        )
        fields = {"name": "loaded", "task": "t", "schedule": "every 10 seconds"}
        loaded = json.dumps([{"model": "django_tasks.periodictask", "fields": fields}])
        for each in serializers.deserialize("json", loaded, using=alias):
            each.save(using=alias)
        assert not PeriodicTask.objects.using(alias).exclude(next_run_at__lte=timezone.now()).exists()
        at_noon(alias)
        look(alias, 10)
        assert slots(alias, "saved") == slots(alias, "bulk") == slots(alias, "loaded") == [10]

    @pytest.mark.parametrize("way", ["update", "save", "bulk_update"])
    def test_a_new_schedule_counts_from_its_change_on(self, alias: str, way: str):
        row = periodic(alias)
        look(alias, 10)
        row.schedule = "every 3 seconds"
        if way == "update":
            PeriodicTask.objects.using(alias).update(schedule=row.schedule)
        elif way == "save":
            row.save()
        else:
            PeriodicTask.objects.using(alias).bulk_update([row], ["schedule"])
        at_noon(alias, 13)
        look(alias, 14)
        assert slots(alias) == [10]
        look(alias, 15)
        look(alias, 18)
        assert slots(alias) == [10, 15, 18]

    @pytest.mark.parametrize("way", ["update", "save"])
    def test_slots_of_a_pause_are_not_run_afterwards(self, alias: str, way: str):
        row = periodic(alias, missed="all")
        look(alias, 10)
        for enabled in (False, True):
            if way == "update":
                PeriodicTask.objects.using(alias).update(enabled=enabled)
            else:
                row.enabled = enabled
                row.save()
            at_noon(alias, 45)
            assert look(alias, 46).published == 0
        look(alias, 50)
        assert slots(alias) == [10, 50]

    def test_what_a_beat_has_written_survives_a_save_of_what_was_read_before(self, alias: str):
        row = periodic(alias, one_off=True)
        look(alias, 10)
        row.description = "edited"
        row.save()
        row.refresh_from_db()
        assert (row.description, row.enabled, row.total_run_count, row.last_run_at) == ("edited", False, 1, at(10))

    def test_other_fields_count_at_the_next_run_and_move_nothing(self, alias: str):
        row = periodic(alias)
        look(alias, 10)
        row.args = "[1]"
        row.save()
        PeriodicTask.objects.using(alias).update(queue="mail")
        assert next_due(alias) == at(20)
        look(alias, 20)
        assert QueuedMessage.objects.using(alias).order_by("-pk")[0].queue == "mail"
