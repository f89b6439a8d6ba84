"""Does `manage.py tasks doctor` say what is wrong, go on when a server is down, and leave with the right code?"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import ERROR, WARNING, CheckMessage
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS
from django.utils import timezone

from django_tasks.backends.base import Features, QueueStats
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import brokers, outboxes
from django_tasks.diagnosis import Diagnosis
from django_tasks.management.commands.runworker import Command as RunWorker
from django_tasks.management.commands.runworker import _own_words
from django_tasks.message import Message, new_id
from django_tasks.models import QueuedMessage, WorkerNode
from tests.outages import unreachable

pytestmark = pytest.mark.django_db(databases=["default"])

DATABASE = {"BACKEND": "database"}
DOWN = {"BACKEND": "redis", "LOCATION": "redis://:CANARY@127.0.0.1:1/0"}
RABBIT_DOWN = {"BACKEND": "amqp", "LOCATION": "amqp://me:CANARY@127.0.0.1:1"}

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def configure(settings: Any) -> Configure:
    settings.DEBUG = False

    def configure(**keys: Any) -> None:
        settings.DJANGO_TASKS = keys

    configure()
    return configure


def doctor(*words: str) -> tuple[str, int]:
    """Return what the command says, and its exit code."""
    said = io.StringIO()
    try:
        call_command("tasks", "doctor", *words, stdout=said)
    except SystemExit as leaving:
        return said.getvalue(), int(leaving.code or 0)
    return said.getvalue(), 0


def places() -> dict[str, dict[str, Any]]:
    """Return what the command says for programs, by the names of the places."""
    document = json.loads(doctor("--json")[0])
    return {", ".join(place["names"]): place for place in document["places"]}


def found(place: dict[str, Any]) -> list[str]:
    return [one["id"].removeprefix("django_tasks.") for one in place["found"]]


def send(queue: str = "default", *, age: float = 0.0, alias: str = "default") -> None:
    brokers[alias].publish([Message(id=new_id(), task="shop.tasks.mail", queue=queue, body=b"[[],{},{}]")])
    QueuedMessage.objects.filter(queue=queue).update(
        visible_at=timezone.now() - timedelta(seconds=age), created_at=timezone.now() - timedelta(seconds=age)
    )


def worker(queues: str = "default", **fields: Any) -> WorkerNode:
    return WorkerNode.objects.create(name=new_id(), queues=queues, **{"status": "running", "concurrency": 2, **fields})


def test_where_nothing_is_wrong_it_says_so() -> None:
    said, code = doctor()
    assert code == 0
    assert said.rstrip().endswith("All is well.")
    assert "broker default, results default, workers and outbox\n  SQLite " in said
    assert connections["default"].settings_dict["NAME"] in said


def test_a_server_that_is_down_is_an_error_and_keeps_nobody_from_asking_the_others(configure: Configure) -> None:
    configure(
        BROKERS={"default": DATABASE, "fast": DOWN, "bus": RABBIT_DOWN},
        RESULTS={"default": DATABASE, "quick": DOWN},
        QUEUES={"clicks": {"BROKER": "fast"}, "events": {"BROKER": "bus"}},
    )
    send("forgotten")
    said, code = doctor()
    assert code == 1
    assert said.count("django_tasks.E100") == 2
    assert "broker fast, results quick\n  does not answer" in said, "one server is told of once"
    assert "Redis at redis://:***@127.0.0.1:1/0" in said
    assert "W161" in said, "what the default broker keeps is looked at all the same"
    assert "broker default, results default, workers and outbox\n  SQLite " in said
    assert "2 errors, 1 warning." in said


def test_no_password_is_ever_shown(configure: Configure) -> None:
    configure(BROKERS={"default": DATABASE, "fast": DOWN, "bus": RABBIT_DOWN}, RESULTS={"default": DOWN})
    assert "CANARY" not in doctor()[0] + doctor("--json")[0]


def test_a_database_that_is_down_is_an_error_too(configure: Configure) -> None:
    with unreachable("default") as nowhere:
        there = {"BACKEND": "database", "OPTIONS": {"USING": nowhere}}
        configure(BROKERS={"default": there}, RESULTS={"default": there})
        told = places()
    assert found(told["broker default, results default, workers and outbox"]) == ["E100"]


def test_a_backend_that_cannot_be_made_is_an_error_and_the_others_are_asked(configure: Configure) -> None:
    configure(BROKERS={"default": DATABASE, "bus": {"BACKEND": "amqp", "OPTIONS": {"QUEUE_TIPE": "quorum"}}})
    told = places()
    assert found(told["broker bus"]) == ["E002"]
    assert told["work"]["what"] == "no live workers"
    assert found(told["broker default, results default, workers and outbox"]) == []


def test_settings_that_cannot_be_are_told_as_everywhere(configure: Configure) -> None:
    configure(LEESE=1)
    with pytest.raises(CommandError, match="'LEESE'"):
        doctor()


def test_warnings_alone_leave_with_zero_and_come_with_what_to_change(settings: Any) -> None:
    settings.DEBUG = True
    said, code = doctor()
    assert code == 0
    assert "  warning django_tasks.W152\n    DEBUG is on" in said
    assert "    -> Set DEBUG = False" in said
    assert said.rstrip().endswith("0 errors, 1 warning.")


class Ailing(MemoryBroker):
    """Has what is worst in the middle."""

    private = False

    def diagnose(self, queues: Any = (), *, ask: bool = True) -> Diagnosis:
        levels = {"W197": WARNING, "E198": ERROR, "W199": WARNING}
        messages = tuple(CheckMessage(level, name, id=f"django_tasks.{name}") for name, level in levels.items())
        return Diagnosis("Ailing 1.0", "here", messages, remote=True)


def test_the_worst_comes_first(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": f"{__name__}.Ailing"}})
    said, code = doctor()
    assert code == 1
    assert said.index("E198") < said.index("W197") < said.index("W199")


def test_what_is_silenced_is_not_told(configure: Configure, settings: Any) -> None:
    configure(BROKERS={"default": {"BACKEND": f"{__name__}.Ailing"}})
    settings.SILENCED_SYSTEM_CHECKS = [f"django_tasks.{name}" for name in ("W156", "W197", "E198", "W199")]
    said, code = doctor()
    assert (code, said.rstrip().endswith("All is well.")) == (0, True)


def test_programs_get_one_document(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": f"{__name__}.Ailing"}})
    said, code = doctor("--json")
    document = json.loads(said)
    assert code == 1
    assert document["healthy"] is False
    [place] = [place for place in document["places"] if place["names"] == ["broker default"]]
    assert (place["what"], place["where"], place["remote"], place["answers"]) == ("Ailing 1.0", "here", True, True)
    assert place["found"][0] == {"level": "error", "id": "django_tasks.E198", "message": "E198", "hint": ""}


# Work


def test_tasks_that_no_live_worker_takes_are_told() -> None:
    send("mail")
    send("default")
    worker("default")
    worker("mail", heartbeat_at=timezone.now() - timedelta(minutes=5))
    worker("mail", status="offline")
    worker("mail", broker="elsewhere")
    work = places()["work"]
    assert work["what"] == "2 live workers"
    assert found(work) == ["W161"]
    assert work["found"][0]["message"].startswith("1 task is ready in the queue 'mail' of the broker 'default'")
    assert "--queues 'mail'" in work["found"][0]["hint"]


def test_tasks_that_have_been_ready_for_long_are_told_although_a_worker_is_there() -> None:
    send(age=3 * 3600)
    worker()
    work = places()["work"]
    assert found(work) == ["W162"]
    assert "the oldest for 3:0" in work["found"][0]["message"]


def test_tasks_that_have_just_come_are_not_mentioned() -> None:
    send(age=60)
    worker()
    assert found(places()["work"]) == []


class Distant(MemoryBroker):
    """Is told of the queues that it is asked for, and keeps an outbox."""

    private = False
    enqueue = "on_commit"
    features = Features(overview=False)

    def stats(self, queues: Any = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        return [QueueStats(queue, 4, 0, 0, 0.0) for queue in queues]


def test_a_broker_that_knows_no_queues_is_asked_for_those_of_the_settings(configure: Configure) -> None:
    configure(
        BROKERS={"default": DATABASE, "far": {"BACKEND": f"{__name__}.Distant"}}, QUEUES={"clicks": {"BROKER": "far"}}
    )
    [told] = places()["work"]["found"]
    assert told["message"].startswith("4 tasks are ready in the queue 'clicks' of the broker 'far', and no live")
    assert "runworker --broker far --queues 'clicks'" in told["hint"]


def test_what_nobody_relays_is_told(configure: Configure) -> None:
    configure(BROKERS={"default": DATABASE, "far": {"BACKEND": f"{__name__}.Distant"}})
    outboxes["far"].publish([Message(id=new_id(), task="t", queue="clicks", body=b"[[],{},{}]")])
    QueuedMessage.objects.update(
        visible_at=timezone.now() - timedelta(hours=1), created_at=timezone.now() - timedelta(hours=1)
    )
    [told] = places()["work"]["found"]
    assert told["id"] == "django_tasks.W162"
    assert "in the outbox for the broker 'far'" in told["message"]


@pytest.fixture
def without_tables() -> Iterator[str]:
    """Give the alias of a database that nobody has migrated."""
    connections.databases[NO_DB_ALIAS] = {**connections.databases["default"], "NAME": ":memory:"}
    yield NO_DB_ALIAS
    connections[NO_DB_ALIAS].close()
    del connections[NO_DB_ALIAS]
    del connections.databases[NO_DB_ALIAS]


def test_tables_that_are_not_there_are_an_error_with_the_way_out(configure: Configure, without_tables: str) -> None:
    there = {"BACKEND": "database", "OPTIONS": {"USING": without_tables}}
    configure(BROKERS={"default": there}, RESULTS={"default": there})
    work = places()["work"]
    assert found(work) == ["E100"]
    assert "manage.py migrate" in work["found"][0]["message"]


def test_one_broker_that_cannot_be_looked_into_keeps_nobody_from_looking_into_others(
    configure: Configure, without_tables: str
) -> None:
    configure(
        BROKERS={
            "default": DATABASE,
            "bare": {"BACKEND": "database", "OPTIONS": {"USING": without_tables}},
            "far": {"BACKEND": f"{__name__}.Distant"},
        },
        QUEUES={"clicks": {"BROKER": "far"}},
    )
    assert found(places()["work"]) == ["E100", "W161"]


@pytest.mark.django_db(databases=["postgres"])
@pytest.mark.parametrize(("children", "expected"), [(10, []), (100_000, ["W108"])], ids=["room", "none"])
def test_workers_that_need_more_connections_than_there_are_are_told(
    configure: Configure, children: int, expected: list[str]
) -> None:
    there = {"BACKEND": "database", "OPTIONS": {"USING": "postgres"}}
    configure(BROKERS={"default": there}, RESULTS={"default": there})
    WorkerNode.objects.using("postgres").create(name="w", queues="default", status="running", concurrency=children)
    place = places()["broker default, results default, workers and outbox"]
    # A server that was started for tests does not wait for the disk.
    assert [name for name in found(place) if name != "E102"] == expected


# The command that it is part of


def test_a_worker_has_the_same_options_by_either_name() -> None:
    said = io.StringIO()
    with pytest.raises(CommandError) as mine:
        call_command("runworker", "--grace", "-1", stdout=said)
    with pytest.raises(CommandError) as ours:
        call_command("tasks", "worker", "--grace", "-1", stdout=said)
    assert str(mine.value) == str(ours.value) == "--grace must be 0 or more, not -1."


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["manage.py", "runworker", "--workers", "2"], ["--workers", "2"]),
        (["manage.py", "tasks", "worker", "--workers", "2"], ["--workers", "2"]),
        (["manage.py", "tasks", "-v", "1", "worker", "-Q", "worker"], ["-Q", "worker"]),
    ],
    ids=["runworker", "tasks worker", "an option before"],
)
def test_several_workers_are_started_with_the_words_behind_the_name(words: list[str], own: list[str]) -> None:
    assert _own_words(words) == own


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for words in ([], ["worker"]):
        with pytest.raises(SystemExit):
            call_command("tasks", *words, "--help")
    said = capsys.readouterr().out
    assert "worker" in said
    assert "doctor" in said
    assert all(option in said for action in _actions() for option in action.option_strings)


def _actions() -> list[Any]:
    return [
        action
        for action in RunWorker().create_parser("manage.py", "runworker")._actions
        if action.help != "==SUPPRESS=="
    ]
