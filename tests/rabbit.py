"""How do tests have queues of their own on a RabbitMQ that others use as well?"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import kombu

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.backends.links.layout import Layout, steps
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Clock, Delivery
from django_tasks.testing.contracts.harness import QUEUE
from tests.settings import AMQP_URL

PATIENCE = 20.0
"""Seconds after which what should have come is taken not to come."""
NEVER = threading.Event()

_numbers = itertools.count(1)


def take(broker: AmqpBroker, limit: int = 100, *queues: str) -> list[Delivery]:
    """Fetch once."""
    return broker.fetch(queues or [QUEUE], limit, lease=30.0, consumer="w")


def gather(broker: AmqpBroker, number: int, *queues: str, through: tuple[type[Exception], ...] = ()) -> list[Delivery]:
    """Fetch until so many have come, whatever of these errors happens on the way."""
    found: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < number:
        assert time.monotonic() < deadline, f"{len(found)} of {number} came"
        try:
            found += take(broker, number - len(found), *queues)
        except through:
            continue
        if len(found) < number:
            broker.wait(queues or [QUEUE], 0.05, NEVER)
    return found


def until(test: Callable[[], bool]) -> None:
    """Block until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not test():
        assert time.monotonic() < deadline
        NEVER.wait(0.02)


def refused(call: Callable[[], object]) -> bool:
    """Tell whether a call finds that nobody answers."""
    try:
        call()
    except BrokerUnavailable:
        return True
    return False


class Rabbit:
    """One set of queues, and the brokers that use it."""

    def __init__(self, url: str = AMQP_URL, **options: Any) -> None:
        self.url = url
        self.prefix = f"test.{os.getpid()}.{next(_numbers)}."
        self.options = {"PREFIX": self.prefix, **options}
        self.queues: dict[str, dict[str, Any]] = {}
        """What the settings say of them."""
        self._opened: list[AmqpBroker] = []
        self._names: set[str] = set()

    @property
    def entry(self) -> dict[str, Any]:
        """What stands for it in the settings."""
        return {"BACKEND": "amqp", "LOCATION": self.url, "OPTIONS": self.options}

    def open(self, *, clock: Clock | None = None, url: str | None = None, **options: Any) -> AmqpBroker:
        """Return one more broker, with connections of its own."""
        params = {"LOCATION": url or self.url, "OPTIONS": {**self.options, **options}, "QUEUES": self.queues}
        broker = AmqpBroker("default", params, **({"clock": clock} if clock else {}))
        self._opened.append(broker)
        return broker

    def unreachable(self) -> AmqpBroker:
        return self.open(url="amqp://127.0.0.1:1")

    def name(self, queue: str) -> str:
        return self._layout.name(queue)

    def uses(self, *queues: str) -> None:
        """Have queues deleted in the end that no broker here knows."""
        self._names.update(queues)

    @contextmanager
    def channel(self) -> Iterator[amqp.Channel]:
        """Give a channel of py-amqp, for what is done behind a broker's back."""
        with connected(self.url) as connection:
            yield connection.channel()

    def close(self) -> None:
        names = self._names.union(*(broker._queues for broker in self._opened))
        for broker in self._opened:
            broker.close()
        with self.channel() as channel:
            for queue in names:
                # Those of single workers have gone with them.
                if self._layout.broadcast(queue) is None:
                    delete(channel, self._every_name(queue))
            for entry in self.queues.values():
                if "EXCHANGE" in entry:
                    channel.exchange_delete(self._layout.exchange(entry["EXCHANGE"]), nowait=True)

    @property
    def _layout(self) -> Layout:
        return (self._opened or [self.open()])[0]._layout

    def _every_name(self, queue: str) -> Iterator[str]:
        yield self.name(queue)
        for step in steps():
            yield self._layout.waiting(queue, step).name


@contextmanager
def connected(url: str) -> Iterator[amqp.Connection]:
    """Give a connection of py-amqp."""
    connection = kombu.Connection(url.replace("amqp:", "pyamqp:")).transport.establish_connection()
    try:
        yield connection
    finally:
        connection.close()


def delete(channel: amqp.Channel, names: Iterable[str]) -> None:
    for name in names:
        channel.queue_delete(name, nowait=True)
