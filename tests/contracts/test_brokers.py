"""Does each broker keep its contract?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from threading import Event
from typing import ClassVar

import pytest
from django.db.models import F

from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.memory import MemoryBroker
from django_tasks.backends.redis import RedisBroker
from django_tasks.models import QueuedMessage
from django_tasks.testing.contracts.brokers import BrokerContract
from tests import redises
from tests.clocks import TurnedClock
from tests.outages import unreachable
from tests.rabbit import Rabbit
from tests.settings import REDIS_URL
from tests.vendors import each_vendor


class TestMemory(BrokerContract):
    lease = 30.0
    rounds = 200

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        self.clock = TurnedClock()
        broker = MemoryBroker("default", {}, clock=self.clock)
        yield broker
        broker.close()

    def elapse(self, broker: Broker, seconds: float) -> None:
        self.clock.turn(seconds)


@each_vendor(transaction=True)
class TestDatabase(BrokerContract):
    # A listener sleeps until what is due next, and does not see that the suite moves times; so it really waits.
    lease = 4.0
    rounds = 10

    @pytest.fixture
    def broker(self, alias: str) -> Iterator[Broker]:
        with ExitStack() as self.stack:
            self.alias = alias
            yield self.open(alias)

    def open(self, using: str) -> Broker:
        broker = DatabaseBroker("default", {"OPTIONS": {"USING": using}})
        self.stack.callback(broker.close)
        return broker

    def peer(self, broker: Broker) -> Broker:
        return self.open(self.alias)

    def unreachable(self) -> Broker:
        return self.open(self.stack.enter_context(unreachable(self.alias)))

    def elapse(self, broker: Broker, seconds: float) -> None:
        QueuedMessage.objects.using(self.alias).update(visible_at=F("visible_at") - timedelta(seconds=seconds))


class TestRedis(BrokerContract):
    lease = 30.0
    rounds = 10

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        with ExitStack() as self.stack:
            self.prefix = self.stack.enter_context(redises.own_prefix())
            yield self.open(REDIS_URL)

    def open(self, location: str) -> Broker:
        broker = RedisBroker("default", {"LOCATION": location, "OPTIONS": {"KEY_PREFIX": self.prefix}})
        self.stack.callback(broker.close)
        return broker

    def peer(self, broker: Broker) -> Broker:
        return self.open(REDIS_URL)

    def unreachable(self) -> Broker:
        return self.open(redises.NOWHERE)

    def elapse(self, broker: Broker, seconds: float) -> None:
        redises.elapse(self.prefix, seconds)


class TestAmqp(BrokerContract):
    lease = 1.0
    rounds = 5
    queue_type: ClassVar[str] = "classic"

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        self.rabbit = Rabbit(QUEUE_TYPE=self.queue_type)
        yield self.rabbit.open()
        self.rabbit.close()

    def peer(self, broker: Broker) -> Broker:
        return self.rabbit.open()

    def unreachable(self) -> Broker:
        return self.rabbit.unreachable()

    def elapse(self, broker: Broker, seconds: float) -> None:
        # Time is the server's alone. To wait on the broker would be to take what comes due.
        Event().wait(seconds)


class TestAmqpQuorum(TestAmqp):
    queue_type = "quorum"
