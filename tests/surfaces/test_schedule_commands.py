"""What can be done with periodic tasks from a shell?"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone

from django_tasks import periodic, task
from django_tasks.models import BeatNode, PeriodicTask, QueuedMessage, ScheduledRun, WorkerNode

Configure = Callable[..., None]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("alone")]


@task(name="shell.plain")
def plain(x: int = 0) -> None:
    pass


@pytest.fixture
def configure(settings: Any) -> Configure:
    def set_to(**keys: Any) -> None:
        settings.DJANGO_TASKS = keys

    return set_to


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> None:
    """Have the code declare nothing, and the database keep what is sent."""
    configure()
    monkeypatch.setattr(periodic, "declared", {})


def said(*words: str) -> str:
    out = io.StringIO()
    call_command("tasks", *words, stdout=out, no_color=True)
    return out.getvalue()


def row(name: str = "mine", **values: Any) -> PeriodicTask:
    return PeriodicTask.objects.create(**{"name": name, "task": plain.name, "schedule": "every 5 minutes", **values})


def test_list_says_in_words_when_what_runs_next() -> None:
    assert "There are no periodic tasks." in said("schedule", "list")
    row()
    row("broken", schedule="never ever")
    PeriodicTask.as_they_are.filter(name="broken").update(enabled=False, error="ScheduleError: no")
    lines = said("schedule", "list").splitlines()
    assert lines[0].startswith("off  broken  ·  shell.plain  ·  never ever")
    assert "ScheduleError: no" in lines[1]
    assert "on   mine  ·  shell.plain  ·  every 5 minutes" in lines[2]
    assert lines[0].endswith("next: never")
    told = json.loads(said("schedule", "list", "--json"))
    soon = datetime.fromisoformat(told[1]["next_run_at"]) - timezone.now()
    assert told[0]["next_run_at"] is None
    assert timedelta(0) < soon <= timedelta(minutes=5)
    assert [(one["name"], one["words"], one["enabled"]) for one in told] == [
        ("broken", "never ever", False),
        ("mine", "every 5 minutes", True),
    ]


def test_run_sends_now_and_leaves_the_schedule_alone() -> None:
    before = row(args="[3]", queue="slow")
    name, task_id = said("schedule", "run", "mine").split()
    message = QueuedMessage.objects.get(task_id=task_id)
    assert (name, message.task, message.queue, json.loads(bytes(message.body))[0]) == ("mine", plain.name, "slow", [3])
    run = ScheduledRun.objects.get()
    assert (run.task_id, run.outcome, run.note) == (task_id, "sent", "by hand, manage.py")
    after = PeriodicTask.objects.get()
    assert (after.next_run_at, after.total_run_count) == (before.next_run_at, 0)


def test_of_several_that_are_to_be_run_none_is_if_one_cannot_be() -> None:
    row()
    row("broken", args="{}")
    with pytest.raises(CommandError, match=r"Nothing was sent: '\{\}' is not a list in JSON"):
        said("schedule", "run", "mine", "broken")
    assert not QueuedMessage.objects.exists()
    assert not ScheduledRun.objects.exists()


def test_enable_and_disable_say_what_they_did_and_refuse_what_is_not_there() -> None:
    row()
    assert said("schedule", "disable", "mine") == "mine: disabled\n"
    assert not PeriodicTask.objects.get().enabled
    PeriodicTask.as_they_are.update(error="paused", failures=3, planned=True)
    assert said("schedule", "enable", "mine") == "mine: enabled\n"
    found = PeriodicTask.objects.get()
    assert (found.enabled, found.error, found.failures, found.planned) == (True, "", 0, False)
    with pytest.raises(CommandError, match="There is no periodic task 'other'"):
        said("schedule", "enable", "mine", "other")


def test_next_tells_when_a_schedule_is_due() -> None:
    lines = said("schedule", "next", "cron 0 4 * * *", "--timezone", "Asia/Tokyo").splitlines()
    assert lines[0] == "at 04:00, in Asia/Tokyo"
    assert len(lines) == 6
    past = "clocked 2001-01-01T00:00:00+00:00"
    assert said("schedule", "next", past).splitlines()[1] == "  never again"
    with pytest.raises(CommandError, match="is no schedule"):
        said("schedule", "next", "sometimes")


def test_sync_writes_what_the_code_declares_and_removes_what_it_does_no_more(configure: Configure) -> None:
    entry = {"task": plain.name, "schedule": 60, "queue": "slow"}
    configure(SCHEDULE={"one": entry, "two": entry})
    row("hand made")
    assert said("schedule", "sync") == "2 of the code\n"
    PeriodicTask.objects.filter(name="one").update(enabled=False)
    planned = datetime(2030, 1, 1, tzinfo=UTC)
    PeriodicTask.as_they_are.filter(name="one").update(planned=True, next_run_at=planned)
    configure(SCHEDULE={"one": {**entry, "queue": "slower"}})
    assert said("schedule", "sync") == "1 of the code\n"
    one = PeriodicTask.objects.get(name="one")
    assert (one.queue, one.enabled, one.planned, one.next_run_at) == ("slower", False, True, planned)
    configure(SCHEDULE={"one": {**entry, "schedule": 90}})
    said("schedule", "sync")
    one.refresh_from_db()
    assert (one.schedule, one.enabled, one.planned) == ("every 1 minute 30 seconds", False, False)
    assert set(PeriodicTask.objects.values_list("name", flat=True)) == {"one", "hand made"}


def test_the_code_does_not_take_over_a_row_that_was_made_by_hand(configure: Configure, caplog: Any) -> None:
    row("mine", task="other.task")
    configure(SCHEDULE={"mine": {"task": plain.name, "schedule": 60}})
    with caplog.at_level("WARNING", logger="django_tasks"):
        said("schedule", "sync")
    assert "has the name of a row" in caplog.text
    assert PeriodicTask.objects.get().task == "other.task"


CELERY = """
CREATE TABLE django_celery_beat_intervalschedule (id integer, every integer, period varchar(24));
INSERT INTO django_celery_beat_intervalschedule VALUES (1, 90, 'seconds');
CREATE TABLE django_celery_beat_crontabschedule (id integer, minute varchar(240), hour varchar(96),
    day_of_week varchar(64), day_of_month varchar(124), month_of_year varchar(64), timezone varchar(63));
INSERT INTO django_celery_beat_crontabschedule VALUES (1, '0, 30', '4', 'mon-fri', '*', '*', 'Europe/Berlin'),
    (2, '0', '4', 'someday', '*', '*', 'UTC');
CREATE TABLE django_celery_beat_solarschedule (id integer, event varchar(24), latitude decimal, longitude decimal);
INSERT INTO django_celery_beat_solarschedule VALUES (1, 'sunset', 52.5, 13.4);
CREATE TABLE django_celery_beat_clockedschedule (id integer, clocked_time datetime);
INSERT INTO django_celery_beat_clockedschedule VALUES (1, '2040-01-01 12:00:00');
CREATE TABLE django_celery_beat_periodictask (id integer, name varchar(200), task varchar(200), args text, kwargs text,
    queue varchar(200), headers text, priority integer, expires datetime, expire_seconds integer, one_off bool,
    start_time datetime, enabled bool, last_run_at datetime, total_run_count integer, description text,
    interval_id integer, crontab_id integer, solar_id integer, clocked_id integer);
"""
NOTHING = dict.fromkeys(("queue", "expires", "expire_seconds", "start_time", "last_run_at", "priority"))
NOTHING |= dict.fromkeys(f"{kind}_id" for kind in ("interval", "crontab", "solar", "clocked"))
PLAIN = {"task": "a.b", "args": "[]", "kwargs": "{}", "headers": "{}", "one_off": 0, "enabled": 1, "description": ""}
PLAIN |= {"total_run_count": 0}
TASKS: list[dict[str, Any]] = [
    {"name": "each", "interval_id": 1, "args": "[1]", "kwargs": '{"x": 2}', "queue": "slow", "priority": 3}
    | {"expire_seconds": 60, "total_run_count": 7, "description": "why"},
    {"name": "night", "crontab_id": 1, "enabled": 0, "expires": "2041-01-01 00:00:00"},
    {"name": "sun", "solar_id": 1},
    {"name": "once", "clocked_id": 1, "one_off": 1},
    {"name": "bad", "crontab_id": 2},
    {"name": "celery.backend_cleanup", "task": "celery.backend_cleanup", "crontab_id": 1},
]


def celery_tables() -> None:
    """Make the tables that django-celery-beat would have, with a few rows."""
    with connections["default"].cursor() as cursor:
        for statement in CELERY.split(";\n"):
            cursor.execute(statement)
        for number, told in enumerate(TASKS, start=1):
            values = {**NOTHING, **PLAIN, **told, "id": number}
            places = ", ".join(["%s"] * len(values))
            statement = f"INSERT INTO django_celery_beat_periodictask ({', '.join(values)}) VALUES ({places})"
            cursor.execute(statement, list(values.values()))


def test_what_django_celery_beat_has_is_brought_over() -> None:
    with pytest.raises(CommandError, match="The database 'default' has no table django_celery_beat_periodictask"):
        said("schedule", "import-celery")
    celery_tables()
    assert "would bring over  each" in said("schedule", "import-celery", "--dry-run")
    assert not PeriodicTask.objects.exists()
    told = said("schedule", "import-celery")
    assert "left out  bad: day_of_week='someday'" in told
    assert "left out  celery.backend_cleanup: workers remove expired results by themselves" in told
    assert told.endswith("4 of 6\n")
    rows = {each.name: each for each in PeriodicTask.objects.all()}
    assert {name: each.schedule for name, each in rows.items()} == {
        "each": "every 1 minute 30 seconds",
        "night": "crontab 0,30 4 * * mon-fri Europe/Berlin",
        "sun": "solar sunset 52.5 13.4",
        "once": "clocked 2040-01-01T12:00:00+00:00",
    }
    each, night, once = rows["each"], rows["night"], rows["once"]
    assert (each.args, each.kwargs, each.queue, each.priority, each.expires) == ("[1]", '{"x": 2}', "slow", 3, 60)
    assert (each.total_run_count, each.description, each.enabled, night.enabled) == (7, "why", True, False)
    assert (night.end_at, once.one_off) == (datetime(2041, 1, 1, tzinfo=UTC), True)
    assert "left out  each: there is a periodic task of this name" in said("schedule", "import-celery")


def health() -> tuple[int, str]:
    try:
        return 0, said("health")
    except SystemExit as ended:
        return int(ended.code or 0), ""


def test_health_looks_at_workers_and_beats() -> None:
    assert health()[0] == 1
    WorkerNode.objects.create(name="w", status="running")
    assert health() == (0, "well   database: 'default' answers\nwell   workers: 1 alive\n")
    due = row()
    assert health()[0] == 1
    BeatNode.objects.create(name="b")
    assert "well   beat: last tick 0 seconds ago" in health()[1]
    PeriodicTask.as_they_are.filter(pk=due.pk).update(next_run_at=timezone.now() - timedelta(minutes=2))
    assert health()[0] == 1
    BeatNode.objects.update(ticked_at=timezone.now() - timedelta(minutes=1))
    signs = json.loads(_json_of_a_failure())
    assert not signs["healthy"]
    assert [sign["what"] for sign in signs["signs"] if not sign["well"]] == ["beat"]


def _json_of_a_failure() -> str:
    out = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("tasks", "health", "--json", stdout=out)
    return out.getvalue()


def test_beat_once_sends_what_is_due_and_ends() -> None:
    made = row(schedule="every 1 day")
    # One slot has become due since, whatever time it is.
    PeriodicTask.as_they_are.filter(pk=made.pk).update(changed_at=timezone.now() - timedelta(days=1))
    out = io.StringIO()
    call_command("beat", "--once", stdout=out)
    assert out.getvalue() == "sent 1\n"
    assert QueuedMessage.objects.get().task_id == ScheduledRun.objects.get().task_id


def test_beat_says_what_is_wrong_with_the_code_before_it_starts(configure: Configure) -> None:
    configure(SCHEDULE={"mine": {"task": plain.name, "schedule": "sometimes"}})
    with pytest.raises(CommandError, match="'sometimes' is no schedule"):
        call_command("beat", "--once")
