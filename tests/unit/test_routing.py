"""Does each call go to the queue, the broker and the place in line that were asked for?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from django_tasks import routing
from django_tasks.exceptions import ConfigurationError
from django_tasks.message import QUEUE_LENGTH

Configure = Callable[..., None]

TWO_BROKERS = {"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "memory"}}


def queue_for(name: str, declared: str | None = None, **options: Any) -> str:
    return routing.place_for(name, (), {}, options, declared=declared).queue


def place_for(name: str = "shop.pay", **options: Any) -> routing.Place:
    return routing.place_for(name, (1,), {"a": 2}, options)


def test_the_caller_wins_over_the_route_and_that_over_the_task_and_that_over_the_default(configure: Configure) -> None:
    configure(ROUTES={"shop.*": "routed"}, DEFAULT_QUEUE="rest")
    assert queue_for("shop.pay", "declared", queue="asked") == "asked"
    assert queue_for("shop.pay", "declared") == "routed"
    assert queue_for("mail.send", "declared") == "declared"
    assert queue_for("mail.send") == "rest"


def test_an_exact_name_wins_over_patterns_and_else_the_first_pattern_that_fits(configure: Configure) -> None:
    routes = {re.compile(r"shop\.p.y"): "first", "shop.*": "second", "shop.pay": "exact", re.compile("mail"): "third"}
    configure(ROUTES=routes)
    assert queue_for("shop.pay") == "exact"
    assert queue_for("shop.ply") == "first"
    assert queue_for("shop.sell") == "second"
    assert queue_for("mail.send") == "third"
    assert queue_for("a.mail.send") == "default"


def test_patterns_tell_capitals_from_small_letters(configure: Configure) -> None:
    configure(ROUTES={"Shop.*": "first"})
    assert queue_for("shop.pay") == "default"


def test_the_first_step_of_a_list_that_has_a_route_gives_it(configure: Configure) -> None:
    asked: list[Any] = []

    def by_arguments(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        asked.append((name, args, kwargs, options, task))
        return {"queue": "large", "priority": 7} if kwargs.get("a") == 2 else None

    configure(ROUTES=[{"mail.*": "mail"}, by_arguments, {"*": "rest"}])
    assert place_for("mail.send").queue == "mail"
    assert asked == []
    assert place_for(shadow="x") == routing.Place("large", 7)
    assert asked == [("shop.pay", (1,), {"a": 2}, {"shadow": "x"}, None)]
    assert queue_for("shop.pay") == "rest"


def test_a_function_that_returns_no_route_is_named_with_what_it_returned(configure: Configure) -> None:
    def lost(*args: Any, **kwargs: Any) -> Any:
        return {"que": "mail"}

    configure(ROUTES=lost)
    with pytest.raises(ConfigurationError, match=r"The route of shop\.pay by .*lost must be .* not \{'que': 'mail'\}"):
        place_for()


def test_what_the_call_says_wins_over_a_dict_route_word_by_word(configure: Configure) -> None:
    configure(ROUTES={"*": {"queue": "mail", "priority": 5}})
    assert place_for() == routing.Place("mail", 5)
    assert place_for(priority=0) == routing.Place("mail", 0)
    assert place_for(queue="other") == routing.Place("other", 5)


BOUND = {
    "news": {"EXCHANGE": "events", "EXCHANGE_TYPE": "topic", "ROUTING_KEY": ["news.#", "alerts.*"]},
    "everyone": {"EXCHANGE": "all", "EXCHANGE_TYPE": "fanout"},
    "plain": {},
}


def test_a_call_that_names_a_queue_goes_straight_there_and_one_with_a_key_through_its_exchange(
    configure: Configure,
) -> None:
    configure(QUEUES=BOUND)
    assert place_for(queue="news") == routing.Place("news")
    assert place_for(queue="news", routing_key="news.eu") == routing.Place("news", None, "events", "news.eu")
    assert place_for(exchange="events") == routing.Place("news", None, "events", "news.#")
    assert place_for(exchange="elsewhere", queue="plain") == routing.Place("plain", None, "elsewhere", "")


def test_a_fanout_queue_is_always_reached_through_its_exchange(configure: Configure) -> None:
    configure(QUEUES=BOUND)
    assert place_for(queue="everyone") == routing.Place("everyone", None, "all", "everyone")


def test_an_address_of_the_call_is_not_mixed_with_that_of_its_route(configure: Configure) -> None:
    configure(QUEUES=BOUND, ROUTES={"*": {"exchange": "events", "routing_key": "news.eu", "priority": 3}})
    assert place_for() == routing.Place("news", 3, "events", "news.eu")
    assert place_for(queue="plain") == routing.Place("plain", 3)
    assert place_for(routing_key="alerts.x") == routing.Place("news", 3, "events", "alerts.x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exchange": "nobody's"}, 'has the EXCHANGE "nobody\'s": nothing says which broker has it'),
        ({"routing_key": "a.b"}, "routing_key='a.b' leads nowhere: the queue 'default' has no EXCHANGE"),
        ({"exchange": "events", "routing_key": "k" * 256}, "is too long"),
        ({"exchange": "a\nb", "queue": "plain"}, "cannot be an exchange's name"),
    ],
    ids=["unknown exchange", "no exchange", "long key", "odd name"],
)
def test_an_address_that_leads_nowhere_is_refused(configure: Configure, options: Any, said: str) -> None:
    configure(QUEUES=BOUND)
    with pytest.raises(ConfigurationError, match=said):
        place_for(**options)


@pytest.mark.parametrize("name", ["x" * (QUEUE_LENGTH + 1), "a\nb", "a\x00b", "\ud800"])
def test_what_cannot_be_a_queues_name_is_refused_with_what_can(configure: Configure, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a queue's name: 1 to 128 printable characters"):
        queue_for("shop.pay", queue=name)


@pytest.mark.parametrize("name", ["x" * QUEUE_LENGTH, "mail high", "почта", "a.b-c:d/e"])
def test_other_names_are_taken_as_they_are(configure: Configure, name: str) -> None:
    assert queue_for("shop.pay", queue=name) == name


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
    several = [{re.compile("a"): {"queue": "slow"}, "b": {"priority": 1}}, lambda *_, **__: "unknown", {"c": "fast"}]
    configure(ROUTES=several)
    assert routing.queues_of("default") == ["default", "slow", "fast"]
