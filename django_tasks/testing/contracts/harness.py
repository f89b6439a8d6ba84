"""What do all suites stand on: sample messages, threads that start together, and time that a test lets pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from threading import Event
from typing import Any, ClassVar, TypeVar

import pytest
from django.db import connections

from django_tasks.backends.base import Broker
from django_tasks.message import Delivery, Message, new_id

T = TypeVar("T")

QUEUE = "default"
ALIKE = ("a1", "A1", "á1", "ａ1", "a1\N{COMBINING ACUTE ACCENT}", "ss1", "ß1", "a1.", "a1%", "a_", "a%")
"""Names that a careless collation or pattern takes for each other."""
TEXTS = (
    "plain",
    "",
    "tab\tline\n",
    "NUL \x00 inside",
    "中文 ﷽ \N{GRINNING FACE}",
    "lone \ud800 surrogate",
    "'\"\\%s%%{}",
)
"""What text may hold; a database's text columns refuse some of it."""


def sample(queue: str = QUEUE) -> Message:
    """Return a message with a fresh id and a small body."""
    return Message(id=new_id(), task="contracts.add", body=b"[[2, 3], {}, {}]", queue=queue)


def samples(number: int, queue: str = QUEUE) -> list[Message]:
    return [sample(queue) for _ in range(number)]


def content(message: Message) -> dict[str, Any]:
    """Return what must come through unchanged: all but what the broker itself fills in or uses up."""
    names = [field.name for field in fields(Message) if field.name not in ("created_at", "countdown")]
    return {name: getattr(message, name) for name in names} | {"headers": dict(message.headers)}


def ids(found: Iterable[Message | Delivery]) -> list[str]:
    return [one.message.id if isinstance(one, Delivery) else one.id for one in found]


def together(*functions: Callable[[], T], patience: float = 60.0) -> list[T]:
    """Run functions in threads that begin at the same instant; return what they returned, or raise what one raised."""
    barrier = threading.Barrier(len(functions))
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(place: int, function: Callable[[], T]) -> None:
        try:
            barrier.wait(patience)
            results[place] = function()
        except BaseException as error:  # noqa: BLE001  # raised again in the thread of the test
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), f"still running after {patience} seconds"
    return [results[place] for place in range(len(functions))]


def needs(plugin: object, *claims: str) -> None:
    """Skip a test of something that a plug-in does not claim to do."""
    for claim in claims:
        if not getattr(getattr(plugin, "features"), claim):  # noqa: B009  # three contracts, three kinds of features
            pytest.skip(f"{type(plugin).__name__} does not claim {claim!r}")


class BrokerHarness:
    """What the suite asks of whoever proves a broker: the fixture `broker`, empty, and what of this does not fit."""

    lease: ClassVar[float] = 2.0
    """Seconds of the leases and delays in the suite. They really pass unless `elapse` is overridden; then they may
    be as long as you like."""
    patience: ClassVar[float] = 20.0
    """Seconds within which what must happen does."""
    rounds: ClassVar[int] = 20
    """How often each race is run; every round races 50 messages."""
    largest: ClassVar[int] = 1_000_000
    """Bytes of the largest body that the broker takes."""

    @pytest.fixture
    def broker(self) -> Broker:
        raise NotImplementedError(f"{type(self).__name__} must give a fixture `broker` that returns an empty broker.")

    def elapse(self, broker: Broker, seconds: float) -> None:
        """Let time pass for the broker: turn the clock that was passed in, or move the server's times back.

        As it stands it waits, on the broker itself.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            broker.wait([QUEUE], left, Event())

    def peer(self, broker: Broker) -> Broker:
        """Return the broker as another process has it: connections of its own, the same queues.

        As it stands it is the same broker, which must then take calls from any thread.
        """
        return broker

    def unreachable(self) -> Broker | None:
        """Return a broker of this kind whose server does not answer; None if there is no server."""
        return None

    def take(
        self, broker: Broker, limit: int = 100, *, queues: Sequence[str] = (QUEUE,), consumer: str = "worker@here"
    ) -> list[Delivery]:
        return broker.fetch(queues, limit, lease=self.lease, consumer=consumer)

    def gather(self, broker: Broker, number: int, *, queues: Sequence[str] = (QUEUE,)) -> list[Delivery]:
        """Fetch until so many deliveries have come, and fail if they do not."""
        found: list[Delivery] = []
        deadline = time.monotonic() + self.patience
        while len(found) < number and time.monotonic() < deadline:
            fetched = self.take(broker, number - len(found), queues=queues)
            found += fetched
            if not fetched:
                broker.wait(queues, 0.05, Event())
        assert len(found) == number
        return found

    def published(self, broker: Broker, number: int = 1) -> list[Delivery]:
        """Publish messages and lease them."""
        broker.publish(samples(number))
        return self.gather(broker, number)
