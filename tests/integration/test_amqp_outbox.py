"""Does the outbox bring messages to a RabbitMQ that is away for a while, in their order?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections, transaction

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.connections import brokers, outboxes, relayed
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Delivery
from django_tasks.models import QueuedMessage
from django_tasks.sending import bulk
from django_tasks.worker.relay import Relay
from tests.integration.stage import note
from tests.rabbit import PATIENCE, Rabbit, until
from tests.settings import AMQP_URL
from tests.vendors import each_vendor
from tests.wires import Wire

pytestmark = each_vendor("sqlite", "postgres", transaction=True)


_parts = urlsplit(AMQP_URL)


class Away:
    """A way to RabbitMQ that is not open yet."""

    def __init__(self) -> None:
        self._wire = Wire((str(_parts.hostname), _parts.port or 5672))
        self._wire.close()
        account = _parts.netloc.rpartition("@")[0]
        self.url = _parts._replace(netloc=f"{account}@127.0.0.1:{self._wire.port}").geturl()

    def open(self) -> None:
        self._wire = Wire(self._wire.target, self._wire.port)

    def close(self) -> None:
        self._wire.close()


@pytest.fixture
def away() -> Iterator[Away]:
    away = Away()
    yield away
    away.close()


@pytest.fixture
def rabbit(alias: str, settings: Any, away: Away) -> Iterator[Rabbit]:
    rabbit = Rabbit()
    rabbit.uses("default")
    store = {"BACKEND": "database", "OPTIONS": {"USING": alias}}
    settings.DJANGO_TASKS = {
        "BROKERS": {"default": {**rabbit.entry, "LOCATION": away.url}},
        "RESULTS": {"default": store},
        "ENQUEUE": "transaction",
    }
    yield rabbit
    brokers.close()
    rabbit.close()
    connections[alias].close()


@pytest.fixture
def there(rabbit: Rabbit) -> AmqpBroker:
    """Return a broker that reaches the server all the time."""
    return rabbit.open()


def relay() -> Relay:
    return Relay(relayed(), lease=30.0, consumer="worker@here")


def kept(alias: str) -> int:
    return QueuedMessage.objects.using(alias).count()


def all_of(broker: AmqpBroker, number: int) -> list[Delivery]:
    found: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < number:
        assert time.monotonic() < deadline, f"{len(found)} of {number} came"
        found += broker.fetch(["default"], number - len(found), lease=30.0, consumer="w")
    assert broker.fetch(["default"], 10, lease=30.0, consumer="w") == []
    return found


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [json.loads(delivery.message.body)[0][0] for delivery in deliveries]


def test_calls_go_on_while_the_server_is_away_and_arrive_in_their_order(alias: str, away: Away, there: AmqpBroker):
    running = relay()
    running.start()
    try:
        for number in range(50):
            note.delay(number)
        with transaction.atomic(using=alias):
            bulk(note.s(number) for number in range(50, 100))
        until(lambda: running._backoffs["default"]._failures > 1)
        assert kept(alias) == 100
        away.open()
        until(lambda: kept(alias) == 0)
    finally:
        running.stop()
    assert numbers(all_of(there, 100)) == list(range(100))


def test_a_relay_that_dies_after_the_confirm_sends_again_under_the_same_id(alias: str, away: Away, there: AmqpBroker):
    away.open()
    sent = bulk(note.s(number) for number in range(20))
    # As far as the dead one came: its lease is over at once.
    taken = outboxes["default"].fetch(["default"], 10, lease=0.0, consumer="dead@here")
    brokers["default"].publish([delivery.message for delivery in taken])
    running = relay()
    until(lambda: running.relay("default") == 0 and kept(alias) == 0)
    found = all_of(there, 20)
    assert {delivery.message.id for delivery in found} == {handle.id for handle in sent}
    # What is there twice is not run beside itself.
    assert there.ack(found) == found


def test_a_server_that_takes_half_of_a_batch_gets_the_rest_later_and_nothing_is_missing(
    alias: str, away: Away, rabbit: Rabbit, there: AmqpBroker
):
    sent = {handle.id for handle in bulk(note.s(number) for number in range(400))}
    away.open()
    brokers["default"].stats(["default"])
    away._wire.cut_after_asking(100_000, last=True)
    running = relay()
    with pytest.raises(BrokerUnavailable):
        running.relay("default")
    assert kept(alias) == 400
    away.open()
    until(lambda: running.relay("default") == 0 and kept(alias) == 0)
    seen: set[str] = set()
    while found := there.fetch(["default"], 1000, lease=30.0, consumer="w"):
        seen |= {delivery.message.id for delivery in found}
        there.ack(found)
    assert seen == sent
