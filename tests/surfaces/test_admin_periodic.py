"""Can operators see, make, change, run and stop periodic tasks, each as far as they may?"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_tasks.beat.tick import tick
from django_tasks.connections import home
from django_tasks.models import BeatNode, PeriodicTask, QueuedMessage, ScheduledRun
from django_tasks.schedules import Schedule
from tests.app.tasks import add, echo
from tests.surfaces.site import NASTY, chief, client_of, on_each_database
from tests.surfaces.test_admin import Elements

pytestmark = [pytest.mark.urls("tests.surfaces.urls"), pytest.mark.usefixtures("place")]

LIST = "admin:django_tasks_periodictask_changelist"
CANARY = "canary-5f1d"


def periodic(name: str = "nightly", **fields) -> PeriodicTask:
    row = PeriodicTask(name=name, **{"task": add.name, "schedule": "crontab 30 3 * * *", "args": "[1, 2]", **fields})
    row.save(using=home())
    return row


def planned(row: PeriodicTask, **fields) -> PeriodicTask:
    """Leave a row as a beat does that has sent it some times."""
    due = datetime.now(UTC) + timedelta(hours=4, minutes=59, seconds=30)
    fields = {"planned": True, "slot_at": due, "next_run_at": due, "total_run_count": 7, **fields}
    rows = PeriodicTask.as_they_are.using(home()).filter(pk=row.pk)
    rows.update(**fields)
    return rows.get()


def ran(row: PeriodicTask, outcome: str, **fields) -> ScheduledRun:
    slot = datetime.now(UTC) - timedelta(minutes=5)
    return ScheduledRun.objects.using(home()).create(
        periodic_task=row, outcome=outcome, **{"slot_at": slot, "published_at": slot, "task_id": "0193-x", **fields}
    )


def page_of(row: PeriodicTask) -> str:
    return reverse("admin:django_tasks_periodictask_change", args=[row.pk])


def filled(**fields) -> dict[str, object]:
    """Return a form that can be saved."""
    return {
        "name": "nightly",
        "task": add.name,
        "enabled": "on",
        "schedule": "every 5 minutes",
        "args": "[1, 2]",
        "missed": "once",
        "missed_limit": "10",
        "overlap": "allow",
        "jitter": "0",
        **fields,
    }


def act(client, action, *rows, **more):
    chosen = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    return client.post(reverse(LIST), chosen, follow=True)


def said(response) -> str:
    return " | ".join(str(message) for message in response.context["messages"])


def now_tick(after: timedelta = timedelta(0)) -> int:
    return tick(home(), datetime.now(UTC) + after, rng=random.Random(1)).published


class TestList:
    @on_each_database()
    def test_what_it_shows(self, alias, boss):
        nightly = planned(periodic(timezone="Europe/Berlin"))
        ran(nightly, "failed")
        planned(periodic("paused", schedule="every hour"), enabled=False, error="ScheduleError: no such minute")
        periodic("broken", schedule="whenever", from_code=True)
        response = boss.get(reverse(LIST))
        assert [row.name for row in response.context["cl"].result_list] == ["broken", "nightly", "paused"]
        text = response.content.decode()
        for part in (
            "at 03:30, in Europe/Berlin",
            "every hour",
            ">stopped</span>",
            '<span class="task-quiet">no such minute</span>',
            "in 4 h 59 min",
            '<span class="task-badge task-badge-bad">failed</span>',
            "is no schedule",
            "planned at the next tick",
            "3 periodic tasks",
        ):
            assert part in text, part

    @on_each_database()
    def test_filters_and_search(self, alias, boss):
        ran(planned(periodic("Failing", task="shop.tasks.bill")), "failed")
        ran(planned(periodic("fine", from_code=True)), "succeeded")
        planned(periodic("off"), enabled=False, error="paused")
        looks = {
            "enabled=yes": ["Failing", "fine"],
            "enabled=no": ["off"],
            "origin=code": ["fine"],
            "origin=here": ["Failing", "off"],
            "condition=failing": ["Failing", "off"],
            "condition=failing&enabled=yes": ["Failing"],
            "q=AIL": ["Failing"],
            "q=tasks.BILL": ["Failing"],
            "q=%25": [],
        }
        for query, names in looks.items():
            found = boss.get(f"{reverse(LIST)}?{query}").context["cl"].result_list
            assert [row.name for row in found] == names, query

    def test_the_number_of_queries_does_not_grow_with_the_rows(self, boss):
        def asked() -> int:
            with CaptureQueriesContext(connections[home()]) as captured:
                assert boss.get(reverse(LIST)).status_code == 200
            return len([query for query in captured if "django_tasks_" in query["sql"]])

        ran(planned(periodic()), "sent")
        before = asked()
        for number in range(5):
            ran(planned(periodic(f"more-{number}")), "sent")
        assert asked() == before <= 6

    def test_what_is_shown_is_text(self, boss):
        def elements(text: str) -> list[object]:
            PeriodicTask.objects.all().delete()
            row = periodic(text, task=text, schedule=text, description=text, args=text, headers=text, timezone=text)
            row = planned(row, error=text, enabled=False, from_code=True)
            ran(row, "missed", note=text, task_id=text)
            pages = [reverse(LIST), page_of(row), reverse("admin:django_tasks_scheduledrun_changelist")]
            preview = boss.post(reverse(TestPreview.URL), {"schedule": text, "task": text})
            return [Elements(page.content.decode()).found for page in (*map(boss.get, pages), preview)]

        plain = elements("plain")
        for nasty in NASTY:
            assert elements(nasty) == plain, nasty

    def test_a_banner_says_that_nobody_sends_what_is_due(self, boss):
        text = "No beat is running"
        planned(periodic("later"))
        assert text not in boss.get(reverse(LIST)).content.decode()
        periodic()
        assert text in boss.get(reverse(LIST)).content.decode()
        beat = BeatNode.objects.create(name="b", ticked_at=datetime.now(UTC) - timedelta(seconds=31))
        assert text in boss.get(reverse(LIST)).content.decode()
        beat.ticked_at = datetime.now(UTC)
        beat.save()
        assert text not in boss.get(reverse(LIST)).content.decode()


class TestForm:
    def test_one_that_is_made_here_is_sent_when_it_is_due(self, boss):
        form = filled(
            task=echo.name, timezone="Asia/Tokyo", kwargs='{"z": 1}', queue="mail", priority="5", end_at_0="2999-01-01"
        )
        response = boss.post(f"{reverse(LIST)}add/", {**form, "end_at_1": "00:00:00"}, follow=True)
        assert "was added successfully" in said(response)
        row = PeriodicTask.objects.using(home()).get()
        assert (row.timezone, row.kwargs, row.headers, row.from_code) == ("Asia/Tokyo", '{"z": 1}', "{}", False)
        assert now_tick() == 0
        assert now_tick(timedelta(minutes=5)) == 1
        assert QueuedMessage.objects.using(home()).get().queue == "mail"

    def test_a_change_counts_at_the_next_tick_and_forgets_nothing(self, boss):
        row = planned(periodic(), last_task_id="0193-x", last_run_at=datetime.now(UTC))
        boss.post(page_of(row), filled(schedule="crontab 30 3 * * *", description="new words"))
        after = PeriodicTask.objects.using(home()).get()
        assert after.description == "new words"
        assert (after.planned, after.next_run_at, after.slot_at) == (True, row.next_run_at, row.slot_at)
        boss.post(page_of(row), filled(schedule="every 10 seconds", description="new words"))
        after = PeriodicTask.objects.using(home()).get()
        assert (after.total_run_count, after.last_task_id, after.last_run_at) == (7, "0193-x", row.last_run_at)
        assert now_tick(timedelta(seconds=10)) == 1
        assert PeriodicTask.objects.using(home()).get().total_run_count == 8
        assert LogEntry.objects.count() == 2

    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("schedule", "crontab 99 3 * * *", "99 is too large"),
            ("schedule", "no.such.Class", "cannot be imported"),
            ("schedule", "tests.surfaces.test_admin_periodic.Broken", "RuntimeError: out of order"),
            ("args", "{}", "A list in JSON"),
            ("args", "[NaN]", "NaN is no JSON"),
            ("kwargs", "[1]", "An object in JSON"),
            ("headers", "{", "This is no JSON"),
            ("name", "taken", "already"),
            ("expires", "0", "above 0"),
            ("priority", "101", "less than or equal to 100"),
            ("jitter", "-1", "greater than or equal to 0"),
            ("missed_limit", "0", "greater than or equal to 1"),
            ("queue", "a\x07b", "printable"),
            ("timezone", "Mars/Olympus", "not one of the available choices"),
        ],
    )
    def test_what_is_wrong_is_said_beside_it(self, boss, field, value, reason):
        periodic("taken")
        response = boss.post(f"{reverse(LIST)}add/", filled(**{field: value}))
        assert reason in " ".join(response.context["adminform"].form.errors[field])
        assert PeriodicTask.objects.count() == 1

    def test_a_call_that_the_task_does_not_take_is_refused(self, boss):
        response = boss.post(f"{reverse(LIST)}add/", filled(kwargs='{"z": 1}'))
        assert "It could not be sent" in str(response.context["adminform"].form.non_field_errors())

    def test_it_ends_after_it_begins(self, boss):
        form = filled(start_at_0="2030-01-02", start_at_1="00:00", end_at_0="2030-01-01", end_at_1="00:00")
        response = boss.post(f"{reverse(LIST)}add/", form)
        assert "ends before it begins" in str(response.context["adminform"].form.errors["end_at"])

    def test_a_task_that_only_workers_know_is_a_warning(self, boss):
        response = boss.post(f"{reverse(LIST)}add/", filled(task=f"{add.name}s"), follow=True)
        assert f"Did you mean '{add.name}'?" in said(response)
        assert PeriodicTask.objects.get().task == f"{add.name}s"
        text = boss.get(f"{reverse(LIST)}add/").content.decode()
        assert f'<option value="{echo.name}"></option>' in text
        assert 'list="task-offered"' in text

    def test_of_one_that_is_declared_in_code_only_enabled_is_changed(self, boss):
        row = planned(periodic(from_code=True))
        text = boss.get(page_of(row)).content.decode()
        assert 'name="schedule"' not in text
        assert "Next runs, by the clock of" in text
        boss.post(page_of(row), {"schedule": "every second", "task": "other"})
        after = PeriodicTask.objects.get()
        assert (after.enabled, after.schedule, after.task) == (False, row.schedule, row.task)
        boss.post(page_of(row), {"enabled": "on"})
        assert PeriodicTask.objects.get().enabled is True

    def test_the_page_of_one_shows_its_last_runs_and_its_next(self, boss):
        row = planned(periodic(args="[]"))
        ran(row, "succeeded", lateness=0.25, note="pwd=hunter2")
        text = boss.get(page_of(row)).content.decode()
        for part in ("250 ms", "?q=0193-x", f"?periodic={row.name}", "task-badge-good", "Next runs, by the clock of"):
            assert part in text, part
        assert text.count("<time datetime=") == 5
        assert "hunter2" not in text


class Broken(Schedule):
    """A schedule of a project's own that raises."""

    def next(self, after: datetime) -> datetime | None:
        raise RuntimeError("out of order")


class TestPreview:
    URL = "admin:django_tasks_periodictask_preview"

    def ask(self, client, schedule, **more):
        told = {"schedule": schedule, **more}
        return client.post(reverse(self.URL), told, headers={"accept": "application/json"})

    def test_the_next_five_in_the_time_zone_that_is_chosen(self, boss):
        told = self.ask(boss, "crontab 30 3 * * *", timezone="Asia/Tokyo", task="nope").json()
        assert told["words"] == "at 03:30, in Asia/Tokyo"
        assert [run["at"][11:] for run in told["runs"]] == ["03:30:00+09:00"] * 5
        assert "No task named 'nope'" in told["warning"]
        told = self.ask(boss, "every hour", start_at_0="2999-01-01", start_at_1="00:00:00", one_off="on").json()
        assert [run["at"][:10] for run in told["runs"]] == ["2999-01-01"]
        assert self.ask(boss, "clocked 2001-01-01T00:00:00Z").json()["title"] == "It has no further run."

    def test_what_is_wrong(self, boss):
        assert "99 is too large" in self.ask(boss, "99 * * * *").json()["error"]
        assert "no such time zone" in self.ask(boss, "every hour", timezone="Mars/Olympus").json()["error"]
        for text in NASTY:
            assert self.ask(boss, text).json()["error"], text
        assert self.ask(boss, "").json()["error"] == ""

    def test_a_page_for_browsers_without_scripts(self, boss):
        text = boss.post(reverse(self.URL), {"schedule": "every 5 minutes"}).content.decode()
        assert text.count("<time datetime=") == 5

    def test_who_may_ask(self, db):
        viewer = client_of("view_periodictask")
        assert self.ask(viewer, "every hour").status_code == 200
        # Reading it imports a module, which is for those who write schedules.
        assert self.ask(viewer, "antigravity.Schedule").status_code == 403
        assert "cannot be imported" in self.ask(client_of("add_periodictask", name="maker"), "no.such").json()["error"]
        assert self.ask(client_of("view_taskresult", name="other"), "every hour").status_code == 403
        assert self.ask(Client(), "every hour").status_code == 302
        assert viewer.get(reverse(self.URL)).status_code == 405
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(chief())
        assert self.ask(strict, "every hour").status_code == 403


class TestActions:
    @on_each_database()
    def test_run_now(self, alias, boss):
        row = planned(periodic(queue="mail"), enabled=False)
        unfit = periodic("unfit", args="{")
        told = said(act(boss, "run_now", row, unfit))
        assert "Run now: 1 task (nightly). It is sent." in told
        assert "Not done: 1 task (unfit)" in told
        assert "is not a list in JSON" in told
        message = QueuedMessage.objects.using(home()).get()
        assert (message.queue, message.task) == ("mail", add.name)
        assert '"periodic_task_name":"nightly"' in message.headers.replace(" ", "")
        run = ScheduledRun.objects.using(home()).get()
        assert (run.task_id, run.outcome, run.note) == (message.task_id, "sent", "by hand, by chief")
        assert run.published_at is not None
        assert run.slot_at.microsecond % 1000
        after = PeriodicTask.objects.using(home()).get(pk=row.pk)
        assert (after.next_run_at, after.slot_at, after.enabled) == (row.next_run_at, row.slot_at, False)
        assert (after.total_run_count, after.last_task_id) == (row.total_run_count, row.last_task_id)
        assert LogEntry.objects.get().change_message == "Run now"
        act(boss, "run_now", row)
        assert ScheduledRun.objects.using(home()).count() == QueuedMessage.objects.using(alias).count() == 2

    def test_disable_and_enable(self, boss):
        row, broken = periodic(schedule="every second"), periodic("broken", schedule="whenever", enabled=False)
        assert "Disable: 1 task (nightly)" in said(act(boss, "disable", row))
        assert now_tick(timedelta(seconds=5)) == 0
        planned(row, enabled=False, planned=False, error="paused", failures=3)
        told = said(act(boss, "enable", row, broken))
        assert "Enable: 1 task (nightly)" in told
        assert "is no schedule" in told
        after = PeriodicTask.objects.using(home()).get(pk=row.pk)
        assert (after.enabled, after.error, after.failures) == (True, "", 0)
        assert now_tick(timedelta(seconds=5)) == 1
        assert "enabled already" in said(act(boss, "enable", row))

    @on_each_database()
    def test_delete(self, alias, boss):
        row, of_code = periodic(), periodic("of code", from_code=True)
        ran(row, "sent")
        assert "their runs is deleted as well" in act(boss, "delete", row).content.decode()
        assert PeriodicTask.objects.using(home()).count() == 2
        told = said(act(boss, "delete", row, of_code, confirmed="yes"))
        assert "Delete: 1 task (nightly)" in told
        assert "declared in code" in told
        assert PeriodicTask.objects.using(home()).get().name == "of code"
        assert not ScheduledRun.objects.using(home()).exists()


@pytest.mark.django_db
class TestPermissions:
    @pytest.mark.parametrize(
        ("action", "permission"),
        [
            ("run_now", "run_periodictask"),
            ("enable", "change_periodictask"),
            ("disable", "change_periodictask"),
            ("delete", "delete_periodictask"),
        ],
    )
    def test_each_action_needs_its_own(self, action, permission):
        row = periodic(enabled=action != "enable")
        others = {"run_periodictask", "change_periodictask", "delete_periodictask"} - {permission}

        def state() -> object:
            return [*PeriodicTask.objects.values(), *ScheduledRun.objects.values()]

        before = state()
        client = client_of("view_periodictask", *others)
        assert f'value="{action}"' not in client.get(page_of(row)).content.decode()
        act(client, action, row, confirmed="yes")
        assert state() == before
        allowed = client_of("view_periodictask", permission, name="allowed")
        assert f'value="{action}"' in allowed.get(page_of(row)).content.decode()
        act(allowed, action, row, confirmed="yes")
        assert state() != before

    def test_viewing_adding_and_changing(self):
        row, viewer = periodic(), client_of("view_periodictask")
        assert "_save" not in viewer.get(page_of(row)).content.decode()
        assert viewer.post(page_of(row), filled(name="other")).status_code == 403
        assert viewer.get(f"{reverse(LIST)}add/").status_code == 403
        assert client_of("add_periodictask", name="maker").get(f"{reverse(LIST)}add/").status_code == 200
        assert client_of("view_taskresult", name="other").get(reverse(LIST)).status_code == 403

    def test_arguments_are_for_those_who_may_see_them(self):
        row = periodic(task=echo.name, kwargs=f'{{"name": "{CANARY}", "password": "hunter2"}}', headers=f'["{CANARY}"]')
        PeriodicTask.objects.update(headers="{}")
        client, viewer = client_of("change_periodictask"), client_of("view_periodictask", name="viewer")
        for each in (client, viewer):
            assert CANARY not in each.get(page_of(row)).content.decode()
        form = filled(task=echo.name, kwargs="{}", schedule="every hour")
        assert client.post(page_of(row), form).status_code == 302
        after = PeriodicTask.objects.get()
        assert (after.schedule, CANARY in after.kwargs) == ("every hour", True)
        auditor = client_of("view_periodictask", "view_payload", name="auditor")
        text = auditor.get(page_of(row)).content.decode()
        assert CANARY in text
        assert "hunter2" not in text


class TestRunsAndBeats:
    @on_each_database()
    def test_runs(self, alias, boss):
        row, other = periodic(), periodic("other")
        ran(row, "succeeded", task_id="0193-a", note="by hand, by chief")
        ran(other, "failed", task_id="0194-b")
        ran(other, "missed", task_id="", published_at=None, slot_at=datetime.now(UTC) - timedelta(hours=1))
        url = reverse("admin:django_tasks_scheduledrun_changelist")
        looks = {
            "": ["missed", "failed", "succeeded"],
            "outcome=failed": ["failed"],
            "periodic=other": ["failed", "missed"],
            "periodic=other&outcome=missed": ["missed"],
            "periodic=nobody": [],
            "q=other": ["failed", "missed"],
            "q=0193": ["succeeded"],
            "q=0193&outcome=failed": [],
        }
        for query, outcomes in looks.items():
            found = boss.get(f"{url}?{query}").context["cl"].result_list
            assert [run.outcome for run in found] == outcomes, query
        text = boss.get(url).content.decode()
        assert page_of(row) in text
        assert "by hand, by chief" in text
        run = ScheduledRun.objects.using(home()).get(task_id="0193-a")
        page = reverse("admin:django_tasks_scheduledrun_change", args=[run.pk])
        assert "?q=0193-a" in boss.get(page).content.decode()
        assert boss.post(page, {"note": "x"}).status_code == 403

    def test_beats(self, boss):
        BeatNode.objects.using(home()).create(name="alive", pid=4242, published=12)
        lost = BeatNode.objects.using(home()).create(name="lost", ticked_at=datetime.now(UTC) - timedelta(seconds=200))
        text = boss.get(reverse("admin:django_tasks_beatnode_changelist")).content.decode()
        assert '<span class="task-badge task-badge-good">running</span>' in text
        assert '<span class="task-badge task-badge-bad">lost</span>' in text
        assert "3 min ago" in text
        page = reverse("admin:django_tasks_beatnode_change", args=[lost.pk])
        assert "3 min ago" in boss.get(page).content.decode()
