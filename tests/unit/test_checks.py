"""Does `manage.py check` say what is wrong, and what to do?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage, Error, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from django_tasks.backends.memory import MemoryBroker
from django_tasks.checks import check_backends, check_import_name, check_settings, check_time_limits
from tests.calls import declare

Configure = Callable[..., None]


class Wary(MemoryBroker):
    """Says which databases it may ask."""

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        return [checks.Warning(f"asked {list(databases)}", id="django_tasks.W199")]


def test_a_sound_setting_is_not_mentioned(configure: Configure) -> None:
    assert check_settings(None) == check_backends(None) == []


def test_each_wrong_key_is_an_error_with_a_hint(configure: Configure) -> None:
    configure(LEESE=5, GRACE=-1)
    assert check_settings(None) == [
        Error("DJANGO_TASKS has an unknown key 'LEESE'.", hint="Did you mean 'LEASE'?", id="django_tasks.E001"),
        Error("DJANGO_TASKS['GRACE'] must be a number of seconds, 0 or more, not -1.", id="django_tasks.E001"),
    ]


def test_where_the_setting_is_wrong_nothing_is_built_from_it(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": "nowhere.Broker"}}, GRACE=-1)
    assert check_backends(None) == []


def test_each_backend_that_cannot_be_built_is_an_error(configure: Configure) -> None:
    configure(
        BROKERS={"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "nowhere.Broker"}},
        RESULTS={"default": {"BACKEND": "memorry"}},
    )
    assert [(found.id, found.msg) for found in check_backends(None)] == [
        (
            "django_tasks.E002",
            "DJANGO_TASKS['BROKERS']['bus']: cannot import nowhere.Broker: No module named 'nowhere'",
        ),
        ("django_tasks.E002", "DJANGO_TASKS['RESULTS']['default']: no backend 'memorry'. Did you mean 'memory'?"),
    ]


def test_backends_say_what_they_find_and_ask_no_database_but_those_named(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": f"{__name__}.Wary"}})
    assert [found.msg for found in check_backends(None)] == ["asked []"]
    assert [found.msg for found in check_backends(None, databases=["default"])] == ["asked ['default']"]


def install(folder: Path, name: str) -> None:
    """Leave what pip leaves of a distribution."""
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")


def test_another_distribution_in_this_packages_folder_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "django-tasks")
    monkeypatch.syspath_prepend(tmp_path)
    [found] = check_import_name(None)
    assert (found.id, found.msg) == (
        "django_tasks.E003",
        "django-tasks 1.2 installs the package django_tasks too, and its files are mixed with ours.",
    )
    assert found.hint == ("Uninstall django-tasks and django-tasks-queue, then install django-tasks-queue again.")


def test_a_distribution_of_a_like_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("django-tasks-queue", "django-tasks-scheduler"):
        install(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert check_import_name(None) == []


def test_djangos_own_command_runs_all_of_them(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    # Named, because Django 6.1 takes no databases for all of them.
    assert list(run_checks(tags=["django_tasks"], databases=[])) == []
    configure(LEESE=5)
    with pytest.raises(SystemCheckError, match=r"\(django_tasks\.E001\) .*'LEESE'"):
        call_command("check", databases=[])


def test_a_site_without_the_setting_passes(settings: Any) -> None:
    del settings.DJANGO_TASKS
    assert check_settings(None) == check_backends(None) == []


def test_a_queue_that_is_bound_to_an_exchange_needs_a_broker_that_has_some(configure: Configure) -> None:
    bound = {"news": {"EXCHANGE": "events", "EXCHANGE_TYPE": "topic"}, "plain": {}}
    configure(BROKERS={"default": {"BACKEND": "memory"}}, QUEUES=bound)
    assert check_backends(None) == [
        Error(
            "DJANGO_TASKS['QUEUES']['news'] has EXCHANGE, and its broker 'default' has no exchanges.",
            hint="Keep the queue on a broker with the BACKEND 'amqp', on a RabbitMQ.",
            id="django_tasks.E004",
        )
    ]
    for backend in ("immediate", "dummy", "amqp"):
        configure(BROKERS={"default": {"BACKEND": backend}}, QUEUES=bound)
        assert check_backends(None) == []


def test_a_task_that_may_run_for_longer_than_its_server_allows_is_warned_of(configure: Configure) -> None:
    long = declare(list, queue="bus", time_limit=7200)
    declare(list, time_limit=7200)
    two: dict[str, dict[str, Any]] = {"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "amqp"}}
    configure(BROKERS=two, QUEUES={"bus": {"BROKER": "bus"}})
    [found] = check_time_limits(None)
    assert found.id == "django_tasks.W001"
    assert found.msg.startswith(f"{long.name} may run for 7200 seconds, and the broker 'bus' takes a message")
    two["bus"]["OPTIONS"] = {"CONSUMER_TIMEOUT": 7200}
    configure(BROKERS=two, QUEUES={"bus": {"BROKER": "bus"}})
    assert check_time_limits(None) == []
