"""Does each call go to the queue, the broker and the place in line that were asked for?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_tasks import routing
from django_tasks.exceptions import ConfigurationError
from django_tasks.message import QUEUE_LENGTH

Configure = Callable[..., None]

TWO_BROKERS = {"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "memory"}}


def test_the_caller_wins_over_the_route_and_that_over_the_task_and_that_over_the_default(configure: Configure) -> None:
    configure(ROUTES={"shop.*": "routed"}, DEFAULT_QUEUE="rest")
    assert routing.queue_for("shop.pay", "asked", "declared") == "asked"
    assert routing.queue_for("shop.pay", None, "declared") == "routed"
    assert routing.queue_for("mail.send", None, "declared") == "declared"
    assert routing.queue_for("mail.send", None, None) == "rest"


def test_an_exact_name_wins_over_patterns_and_else_the_first_pattern_that_fits(configure: Configure) -> None:
    configure(ROUTES={"shop.*": "first", "shop.p?y": "second", "shop.pay": "exact", "*.send": "third"})
    assert routing.queue_for("shop.pay", None, None) == "exact"
    assert routing.queue_for("shop.ply", None, None) == "first"
    assert routing.queue_for("mail.send", None, None) == "third"


def test_patterns_tell_capitals_from_small_letters(configure: Configure) -> None:
    configure(ROUTES={"Shop.*": "first"})
    assert routing.queue_for("shop.pay", None, None) == "default"


@pytest.mark.parametrize("name", ["x" * (QUEUE_LENGTH + 1), "a\nb", "a\x00b", "\ud800"])
def test_what_cannot_be_a_queues_name_is_refused_with_what_can(configure: Configure, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a queue's name: 1 to 128 printable characters"):
        routing.queue_for("shop.pay", name, None)


@pytest.mark.parametrize("name", ["x" * QUEUE_LENGTH, "mail high", "почта", "a.b-c:d/e"])
def test_other_names_are_taken_as_they_are(configure: Configure, name: str) -> None:
    assert routing.queue_for("shop.pay", name, None) == name


def test_a_queue_is_kept_by_its_broker_else_by_the_default_one(configure: Configure) -> None:
    configure(BROKERS=TWO_BROKERS, QUEUES={"events": {"BROKER": "bus"}, "mail": {}})
    assert [routing.broker_for(queue) for queue in ("events", "mail", "unheard of")] == ["bus", "default", "default"]


def test_the_priority_is_the_calls_else_the_queues_else_0(configure: Configure) -> None:
    configure(QUEUES={"mail": {"PRIORITY": 5}})
    assert routing.priority_for("mail", -3) == -3
    assert routing.priority_for("mail", 0) == 0
    assert routing.priority_for("mail", None) == 5
    assert routing.priority_for("other", None) == 0


@pytest.mark.parametrize("priority", [-100, 100])
def test_the_ends_of_the_range_belong_to_it(configure: Configure, priority: int) -> None:
    assert routing.priority_for("mail", priority) == priority


@pytest.mark.parametrize("priority", [101, -101, 1.5, "high", float("nan"), True])
def test_any_other_priority_is_refused_with_the_range(configure: Configure, priority: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"A priority is a whole number from -100 to 100; this one is"):
        routing.priority_for("mail", priority)


def test_a_worker_takes_from_every_queue_that_the_settings_name_for_its_broker(configure: Configure) -> None:
    configure(
        BROKERS=TWO_BROKERS,
        QUEUES={"mail": {}, "events": {"BROKER": "bus"}},
        ROUTES={"a.*": "slow", "b.*": "mail", "c.*": "events"},
        DEFAULT_QUEUE="rest",
    )
    assert routing.queues_of("default") == ["mail", "rest", "slow"]
    assert routing.queues_of("bus") == ["events"]
    assert routing.queues_of("nobody") == []
