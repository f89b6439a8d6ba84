"""Is said of a real RabbitMQ what is unsafe about it, and about how it is reached?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.backends.links.fitness import out_of_support
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import BrokerUnavailable
from tests.rabbit import Rabbit, connected

QUEUE = "mail"
NOT_OURS = {"W121", "W123"}
"""Of the account and the version, which the tests' server may have or not."""


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    rabbit = Rabbit()
    rabbit.uses(QUEUE)
    yield rabbit
    rabbit.close()


def ids(told: Diagnosis) -> set[str]:
    return {str(message.id).removeprefix("django_tasks.") for message in told.found}


def declare(rabbit: Rabbit, **arguments: Any) -> None:
    with rabbit.channel() as channel:
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        channel.queue_declare(rabbit.name(QUEUE), durable=True, auto_delete=False, arguments=given)


def of_the_queue(rabbit: Rabbit, **options: Any) -> list[tuple[str, str]]:
    told = rabbit.open(**options).diagnose([QUEUE])
    named = [(str(one.id).removeprefix("django_tasks."), str(one.msg)) for one in told.found]
    return [(name, said) for name, said in named if name not in NOT_OURS]


def test_a_server_says_what_it_is(rabbit: Rabbit) -> None:
    with connected(rabbit.url) as connection:
        version = connection.server_properties["version"]
    told = rabbit.open().diagnose()
    assert (told.what, told.remote) == (f"RabbitMQ {version}", False)


def test_a_queue_that_is_as_declared_or_not_there_is_not_mentioned(rabbit: Rabbit) -> None:
    assert of_the_queue(rabbit) == []
    with rabbit.channel() as channel, pytest.raises(Exception, match="NOT_FOUND"):
        channel.queue_declare(rabbit.name(QUEUE), passive=True)
    rabbit.open().stats([QUEUE])
    assert of_the_queue(rabbit) == []


def test_a_bounded_queue_that_drops_its_oldest_message_is_an_error(rabbit: Rabbit) -> None:
    declare(rabbit, x_max_length=5, x_max_priority=3, x_dead_letter_exchange="dead")
    [(name, said)] = of_the_queue(rabbit)
    assert name == "E121"
    assert "(x-max-length = 5)" in said


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        pytest.param({}, "x-max-priority = nothing", id="without priorities"),
        pytest.param({"x_queue_type": "quorum"}, "x-queue-type = quorum", id="quorum"),
        pytest.param({"x_max_length": 5, "x_overflow": "reject-publish"}, "x-max-length = 5", id="bounded and safe"),
    ],
)
def test_a_queue_that_is_otherwise_than_the_settings_say_is_used_and_named(
    rabbit: Rabbit, arguments: dict[str, Any], difference: str
) -> None:
    declare(rabbit, **arguments)
    [(name, said)] = of_the_queue(rabbit)
    assert name == "W126"
    assert difference in said


def test_a_bound_that_the_settings_ask_for_is_as_it_should_be(rabbit: Rabbit) -> None:
    rabbit.open(MAX_LENGTH=5).stats([QUEUE])
    assert of_the_queue(rabbit, MAX_LENGTH=5) == []


def test_a_server_that_does_not_answer_raises_what_the_contract_says() -> None:
    broker = AmqpBroker("default", {"LOCATION": "amqp://me:CANARY@127.0.0.1:1"})
    with pytest.raises(BrokerUnavailable, match="127.0.0.1:1") as caught:
        broker.diagnose()
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "options", "found"),
    [
        pytest.param("amqp://me:secret@localhost", {}, set(), id="this machine"),
        pytest.param("amqp://localhost", {}, {"W121"}, id="guest, left to be understood"),
        pytest.param("amqps://guest:secret@rabbit.example.com", {}, {"W121"}, id="guest"),
        pytest.param("amqp://me:secret@rabbit.example.com", {}, {"W122"}, id="in clear"),
        pytest.param("amqp://me:secret@rabbit.example.com", {"TLS": {"ca_certs": "ca.pem"}}, set(), id="TLS by option"),
        pytest.param("amqps://me:secret@a.example.com;amqps://me:secret@b.example.com", {}, {"W125"}, id="classic"),
        pytest.param(
            "amqps://me:secret@a.example.com;amqps://me:secret@b.example.com",
            {"QUEUE_TYPE": "quorum"},
            set(),
            id="quorum",
        ),
    ],
)
def test_how_a_server_is_reached_is_judged_without_asking_it(
    location: str, options: dict[str, Any], found: set[str]
) -> None:
    told = AmqpBroker("default", {"LOCATION": location, "OPTIONS": options}).diagnose(ask=False)
    assert ids(told) == found
    assert "secret" not in repr(told)


@pytest.mark.parametrize(
    ("product", "version", "expected"),
    [
        ("RabbitMQ", "3.11.28", 1),
        ("RabbitMQ", "3.12.0", 0),
        ("RabbitMQ", "4.1.1", 0),
        ("LavinMQ", "2.0.0", 0),
    ],
)
def test_versions_without_corrections_are_known(product: str, version: str, expected: int) -> None:
    assert len(list(out_of_support(product, version, "It"))) == expected


def test_another_transport_tells_how_long_it_lets_a_worker_hold_a_message() -> None:
    def hold(location: str, **transport: Any) -> float:
        broker = AmqpBroker("default", {"LOCATION": location, "OPTIONS": {"TRANSPORT": transport}})
        return broker.longest_hold

    assert hold("redis://localhost/1") == 3600.0
    assert hold("redis://localhost/1", visibility_timeout=60) == 60.0
    # Twelve hours, within which the last renewal must end, too.
    assert hold("sqs://") == 12 * 3600 - 1800
    assert hold("sqs://", visibility_timeout=60) == 12 * 3600 - 60
    assert hold("azureservicebus://policy:key@namespace") == 60.0
    assert hold("memory://") == float("inf")


def test_another_transport_is_asked_whether_it_answers() -> None:
    assert AmqpBroker("default", {"LOCATION": "memory://"}).diagnose().what == "kombu's transport memory"
    with pytest.raises(BrokerUnavailable):
        AmqpBroker("default", {"LOCATION": "redis://127.0.0.1:1/1"}).diagnose([QUEUE])


@pytest.mark.parametrize(
    ("location", "remote"),
    [
        ("sqs://", True),
        ("sqs://KEY:SECRET@", True),
        ("sqs://KEY:SECRET@127.0.0.1:4566", False),
        ("gcpubsub://projects/shop", True),
        ("redis://localhost/1", False),
        ("redis://redis.example.com/1", True),
        ("sqla+sqlite:////tmp/queues.sqlite3", False),
        ("filesystem://", False),
        ("memory://", False),
    ],
)
def test_whether_another_transport_is_on_another_machine_is_told_by_its_url(location: str, remote: bool) -> None:
    told = AmqpBroker("default", {"LOCATION": location}).diagnose(ask=False)
    assert told.remote is remote
    assert "SECRET" not in repr(told)
