"""Is said of the settings alone what is unsafe about them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks

from django_tasks import task
from django_tasks.backends.memory import MemoryBroker
from django_tasks.checks import check_deployment
from django_tasks.connections import brokers
from django_tasks.deployment import diagnosed, settings_wrong, time_limits_wrong
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.registry import tasks
from django_tasks.results.memory import MemoryStore

Configure = Callable[..., None]
HOLD = 1800.0


class SharedBroker(MemoryBroker):
    """Passes for one that other processes see."""

    private = False

    def diagnose(self, queues: Sequence[str] = (), *, ask: bool = True) -> Diagnosis:
        return Diagnosis(f"asked {list(queues)}" if ask else "not asked")


class HastyBroker(SharedBroker):
    """Takes messages back after half an hour."""

    longest_hold = HOLD


class SharedStore(MemoryStore):
    private = False


class SilentStore(SharedStore):
    def diagnose(self, *, ask: bool = True) -> Diagnosis:
        raise BrokerUnavailable("nobody is there")


SHARED = {
    "BROKERS": {"default": {"BACKEND": f"{__name__}.SharedBroker"}},
    "RESULTS": {"default": {"BACKEND": f"{__name__}.SharedStore"}},
}


def ids(found: Any) -> list[str]:
    return [str(message.id).removeprefix("django_tasks.") for message in found]


@pytest.fixture(autouse=True)
def debug(settings: Any) -> None:
    settings.DEBUG = False


def test_sound_settings_are_not_mentioned(configure: Configure) -> None:
    configure(**SHARED)
    assert ids(settings_wrong()) == []


def test_keys_with_which_nothing_is_encrypted_are_told(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name, known in tasks.items() if known.options.encrypt]:
        # Other tests have declared it in this process.
        monkeypatch.delitem(tasks, name)
    keys = ["A" * 43 + "="]
    configure(**SHARED, ENCRYPTION_KEYS=keys)
    assert ids(settings_wrong()) == ["W158"]
    configure(**SHARED, ENCRYPTION_KEYS=keys, ENCRYPT=True)
    assert ids(settings_wrong()) == []


def test_messages_on_another_machine_are_to_be_signed(configure: Configure) -> None:
    brokers = {
        "default": {"BACKEND": "redis", "LOCATION": "redis://cache.example.org:6379/0"},
        "here": {"BACKEND": "redis", "LOCATION": "redis://localhost:6379/0"},
    }
    configure(**{**SHARED, "BROKERS": brokers, "SIGN": True})
    [warning] = settings_wrong()
    assert warning.id == "django_tasks.W156"
    assert "The broker 'default' is on another machine" in warning.msg
    configure(**{**SHARED, "BROKERS": brokers, "REQUIRE_SIGNATURE": True})
    assert ids(settings_wrong()) == []


def test_pickles_are_mentioned_even_where_they_are_signed(configure: Configure) -> None:
    configure(**SHARED, ACCEPT=["json", "pickle"], REQUIRE_SIGNATURE=True)
    assert ids(settings_wrong()) == ["W157"]


def test_debug_is_not_for_others(configure: Configure, settings: Any) -> None:
    configure(**SHARED)
    settings.DEBUG = True
    assert ids(settings_wrong()) == ["W152"]


@pytest.mark.parametrize(("heartbeat", "expected"), [(10, []), (10.5, ["W153"])], ids=["in time", "too late"])
def test_a_lease_outlasts_three_heartbeats(configure: Configure, heartbeat: float, expected: list[str]) -> None:
    configure(**SHARED, LEASE=30, HEARTBEAT=heartbeat)
    assert ids(settings_wrong()) == expected


def test_results_that_are_kept_for_ever_pile_up(configure: Configure) -> None:
    forever = {"BACKEND": f"{__name__}.SharedStore", "OPTIONS": {"EXPIRES": None}}
    short = {"BACKEND": f"{__name__}.SharedStore", "OPTIONS": {"EXPIRES": timedelta(days=1)}}
    configure(**{**SHARED, "RESULTS": {"default": short, "audit": forever}})
    [found] = settings_wrong()
    assert found.id == "django_tasks.W151"
    assert "'audit'" in found.msg


@pytest.mark.parametrize(
    "broker", [{"BACKEND": "memory"}, {"BACKEND": "dummy"}, {"BACKEND": "amqp", "LOCATION": "memory://"}], ids=str
)
def test_messages_in_the_memory_of_the_site_reach_no_worker(configure: Configure, broker: dict[str, str]) -> None:
    configure(BROKERS={"default": broker}, RESULTS=SHARED["RESULTS"])
    assert ids(settings_wrong()) == ["E151"]


def test_results_in_the_memory_of_a_worker_do_not_reach_the_site(configure: Configure) -> None:
    configure(BROKERS=SHARED["BROKERS"])
    assert ids(settings_wrong()) == ["W155"]


def test_who_runs_tasks_at_once_may_keep_results_in_memory(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    assert ids(settings_wrong()) == []


@pytest.mark.parametrize(
    ("own", "general", "expected"),
    [
        pytest.param(HOLD, None, [], id="just as long"),
        pytest.param(HOLD + 1, None, ["W001"], id="longer"),
        pytest.param(None, HOLD + 1, ["W001"], id="by the setting"),
        pytest.param(60, HOLD + 1, [], id="its own limit wins"),
        pytest.param(None, None, [], id="no limit"),
    ],
)
def test_a_task_that_may_outlast_what_its_broker_allows_is_named(
    configure: Configure, own: float | None, general: float | None, expected: list[str]
) -> None:
    known = dict(tasks)
    tasks.clear()
    task(name="slow", time_limit=own)(lambda: None)
    configure(**{**SHARED, "BROKERS": {"default": {"BACKEND": f"{__name__}.HastyBroker"}}}, TIME_LIMIT=general)
    try:
        found = list(time_limits_wrong())
    finally:
        tasks.clear()
        tasks.update(known)
    assert ids(found) == expected
    assert all(message.msg.startswith("slow may run") for message in found)


def test_a_broker_is_asked_about_the_queues_that_it_keeps(configure: Configure) -> None:
    configure(**SHARED, QUEUES={"mail": {}})
    assert diagnosed(brokers["default"]).what == "asked ['mail', 'default']"


class TalkingBroker(SharedBroker):
    """Finds one thing that every check says, and one that only `--deploy` does."""

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        return [CheckMessage(30, "always", id="django_tasks.W198")]

    def diagnose(self, queues: Sequence[str] = (), *, ask: bool = True) -> Diagnosis:
        asked = CheckMessage(30, f"asked: {ask}", id="django_tasks.W199")
        return Diagnosis("it", found=(*self.check(), asked))


def test_a_deployment_check_says_once_what_the_other_checks_say_too(configure: Configure) -> None:
    configure(**{**SHARED, "BROKERS": {"default": {"BACKEND": f"{__name__}.TalkingBroker"}}})
    assert [found.msg for found in check_deployment(None)] == ["asked: False"]
    told = run_checks(tags=["django_tasks"], include_deployment_checks=True, databases=[])
    assert [found.msg for found in told] == ["always", "asked: False"]
    assert [found.msg for found in run_checks(tags=["django_tasks"], databases=[])] == ["always"]


def test_a_server_is_asked_if_databases_may_be(configure: Configure) -> None:
    configure(**{**SHARED, "BROKERS": {"default": {"BACKEND": f"{__name__}.TalkingBroker"}}})
    assert [found.msg for found in check_deployment(None, databases=["elsewhere"])] == ["asked: True"]


def test_a_server_that_does_not_answer_is_not_the_business_of_a_check(configure: Configure) -> None:
    configure(**{**SHARED, "RESULTS": {"default": {"BACKEND": f"{__name__}.SilentStore"}}})
    assert check_deployment(None, databases=["elsewhere"]) == []


def test_where_the_settings_are_wrong_nothing_is_built_from_them(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": "memory"}}, LEESE=1)
    assert check_deployment(None) == []


@pytest.mark.django_db
def test_the_database_of_workers_is_looked_at_wherever_messages_and_results_are(
    configure: Configure, settings: Any
) -> None:
    configure(**SHARED)
    settings.USE_TZ, settings.TIME_ZONE = False, "America/New_York"
    assert ids(check_deployment(None)) == ["W103"]


def test_what_cannot_be_built_keeps_nothing_else_from_being_checked(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "nowhere.Broker"}})
    assert ids(check_deployment(None)) == ["E151"]
