"""Is each alias built once, from what the settings say, and again when they change?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.test import override_settings

from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.immediate import ImmediateBroker
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import LOCAL, brokers, home, results
from django_tasks.exceptions import ConfigurationError
from django_tasks.results.memory import MemoryStore

pytestmark = pytest.mark.usefixtures("configure")
Configure = Callable[..., None]


THREADS = 8


class SlowToBuild(MemoryBroker):
    """Is not there before every thread has asked for it."""

    built = 0
    asked = threading.Semaphore(0)

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        type(self).built += 1
        for _ in range(THREADS):
            assert self.asked.acquire(timeout=30)


class Counted(MemoryBroker):
    closed = 0

    def close(self) -> None:
        type(self).closed += 1


def path(cls: type) -> dict[str, Any]:
    return {"BACKEND": f"{cls.__module__}.{cls.__qualname__}"}


def test_an_alias_is_built_once_with_what_its_entry_says(configure: Configure) -> None:
    options = {"SHELVES": 3}
    configure(BROKERS={"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "memory", "OPTIONS": options}})
    bus = brokers["bus"]
    assert brokers["bus"] is bus
    assert (type(bus), bus.alias, bus.options) == (MemoryBroker, "bus", options)
    assert brokers["default"] is not bus


def test_a_dotted_path_names_a_class_of_the_project(configure: Configure) -> None:
    configure(BROKERS={"default": path(Counted)})
    assert type(brokers["default"]) is Counted


def test_threads_that_ask_at_once_get_the_same_one(configure: Configure) -> None:
    SlowToBuild.built = 0
    configure(BROKERS={"default": path(SlowToBuild)})

    def ask(_: int) -> Any:
        SlowToBuild.asked.release()
        return brokers["default"]

    with ThreadPoolExecutor(THREADS) as executor:
        found = list(executor.map(ask, range(THREADS)))
    assert set(map(id, found)) == {id(found[0])}
    assert SlowToBuild.built == 1


def test_all_gives_one_for_each_alias_of_the_settings(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "dummy"}})
    assert list(brokers) == ["default", "bus"]
    assert [broker.alias for broker in brokers.all()] == ["default", "bus"]


def test_closing_lets_go_of_all_and_the_next_use_builds_anew(configure: Configure) -> None:
    configure(BROKERS={"default": path(Counted)})
    before, Counted.closed = brokers["default"], 0
    brokers.close()
    assert Counted.closed == 1
    assert brokers["default"] is not before


def test_overriding_the_setting_builds_anew(configure: Configure) -> None:
    before = brokers["default"], results["default"]
    with override_settings(DJANGO_TASKS={"BROKERS": {"default": {"BACKEND": "dummy"}}}):
        assert type(brokers["default"]).__name__ == "DummyBroker"
    assert (brokers["default"], results["default"]) != before
    assert (type(brokers["default"]), type(results["default"])) == (MemoryBroker, MemoryStore)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"BACKEND": "memorry"}, r"\['BROKERS'\]\['default'\]: no backend 'memorry'. Did you mean 'memory'\?"),
        ({"BACKEND": "quill"}, r"no backend 'quill'. Known are: amqp, database, dummy, immediate, memory"),
        ({"BACKEND": "nowhere.Broker"}, r"\['default'\]: cannot import nowhere.Broker: No module named 'nowhere'"),
        ({"BACKEND": "django_tasks.backends.memory.Nothing"}, r'cannot import .*does not define a "Nothing"'),
        (path(MemoryStore), r"django_tasks.results.memory.MemoryStore is not a Broker\."),
        ({"BACKEND": "json.dumps"}, r"json.dumps is not a Broker\."),
    ],
)
def test_what_cannot_be_built_says_which_entry_and_why(configure: Configure, entry: dict[str, Any], said: str) -> None:
    configure(BROKERS={"default": entry})
    with pytest.raises(ConfigurationError, match=said):
        brokers["default"]


def test_an_alias_that_is_not_there_is_answered_with_the_nearest(configure: Configure) -> None:
    configure(RESULTS={"default": {"BACKEND": "memory"}, "archive": {"BACKEND": "memory"}})
    with pytest.raises(ConfigurationError, match=r"\['RESULTS'\] has no 'archiv'. Did you mean 'archive'\?"):
        results["archiv"]


def test_home_is_the_database_of_the_default_broker_else_of_the_store_else_the_default_one(
    configure: Configure,
) -> None:
    assert home() == "default"
    configure(RESULTS={"default": {"BACKEND": "database", "OPTIONS": {"USING": "postgres"}}})
    assert home() == "postgres"
    configure(BROKERS={"default": {"BACKEND": "database", "OPTIONS": {"USING": "mariadb"}}})
    assert home() == "mariadb"
    assert isinstance(brokers["default"], DatabaseBroker)


def test_the_broker_of_apply_is_there_whatever_the_settings_name(configure: Configure) -> None:
    """Also where they give that very name to something else."""
    configure(BROKERS={"default": {"BACKEND": "memory"}, "immediate": {"BACKEND": "dummy"}})
    assert isinstance(brokers[LOCAL], ImmediateBroker)
    assert isinstance(results[LOCAL], MemoryStore)
    assert LOCAL not in list(brokers)
