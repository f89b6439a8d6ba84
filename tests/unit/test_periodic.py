"""What does the code declare to run periodically, and what is refused?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_tasks import add_periodic_task, crontab, every, periodic, signals, task
from django_tasks.exceptions import ConfigurationError, ScheduleError
from django_tasks.periodic import Entry, entries, schedule_of
from django_tasks.registry import tasks

Configure = Callable[..., None]


@task(name="periodic.plain")
def plain(x: int = 0) -> None:
    pass


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, configure: Configure) -> None:
    monkeypatch.setattr(periodic, "declared", {})


@pytest.fixture
def forget() -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    for name in names:
        del tasks[name]


def test_a_task_may_say_itself_when_it_runs(forget: list[str]) -> None:
    @task(name="periodic.own", schedule=crontab(minute=0))
    def own() -> None:
        pass

    forget.append("periodic.own")
    assert entries() == {"periodic.own": Entry(name="periodic.own", task=own.name, schedule=crontab(minute=0))}


def test_a_call_may_be_sent_again_and_again_with_its_options() -> None:
    call = plain.s(3).set(queue="slow", priority=4, expires=60)
    entry = add_periodic_task(10, call, name="often", missed="skip", jitter=2)
    assert entries() == {"often": entry}
    assert (entry.task, entry.args, entry.queue, entry.priority, entry.expires) == (plain.name, (3,), "slow", 4, 60)
    assert (entry.schedule, entry.missed, entry.jitter) == (every(10), "skip", 2)


def test_the_settings_take_what_celery_says(configure: Configure) -> None:
    configure(
        SCHEDULE={
            "nightly": {
                "task": plain.name,
                "schedule": crontab(hour=3, minute=0),
                "args": [1],
                "options": {"queue": "slow", "expires": 3600},
            },
            "often": {"task": plain.name, "schedule": timedelta(seconds=30), "kwargs": {"x": 2}, "overlap": "skip"},
        }
    )
    found = entries()
    assert (found["nightly"].args, found["nightly"].queue, found["nightly"].expires) == ((1,), "slow", 3600)
    assert (found["often"].schedule, dict(found["often"].kwargs), found["often"].overlap) == (
        every(30),
        {"x": 2},
        "skip",
    )


def test_a_receiver_may_add_some_before_they_are_read() -> None:
    def adding(**_: Any) -> None:
        add_periodic_task("every 5 minutes", plain.s(), name="late")

    signals.schedule_loading.connect(adding)
    try:
        assert entries().keys() == {"late"}
    finally:
        signals.schedule_loading.disconnect(adding)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"schedule": 5}, "has no 'task'"),
        ({"task": "t"}, "has no 'schedule'"),
        ({"task": "t", "schedule": 5, "quueue": "x"}, "unknown key 'quueue'. Did you mean 'queue'"),
        ({"task": "t", "schedule": 5, "options": {"link": 1}}, "['options'] has an unknown key 'link'"),
        ({"task": "t", "schedule": "sometimes"}, "'sometimes' is no schedule"),
        ({"task": "t", "schedule": 5, "missed": "twice"}, "missed is one of skip, once, all, not 'twice'"),
        ({"task": "t", "schedule": 5, "jitter": -1}, "jitter is a number of 0 or more"),
    ],
)
def test_an_entry_of_the_settings_that_cannot_be_is_named_with_the_reason(
    configure: Configure, given: dict[str, Any], words: str
) -> None:
    configure(SCHEDULE={"mine": given})
    with pytest.raises(ConfigurationError) as raised:
        entries()
    assert "mine" in str(raised.value)
    assert words in str(raised.value)


def test_what_cannot_be_sent_again_and_again_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a call with 'link' cannot be sent again and again"):
        add_periodic_task(5, plain.s().set(link=plain.si()))
    with pytest.raises(TypeError, match=r"no option 'colour'"):
        add_periodic_task(5, plain.s(), colour="red")  # type: ignore[call-arg]
    with pytest.raises(ScheduleError, match="True is no schedule"):
        schedule_of(True)
