"""When many workers have lost one server, do they come back to it one after the other?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from threading import Event

import pytest
import redis

from django_tasks.backends.base import Broker
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.testing.contracts.harness import QUEUE, samples, together
from django_tasks.worker.backoff import Backoff
from django_tasks.worker.listener import Listener
from tests import redises
from tests.wires import wire_to
from tools.servers import PrivateRedis

WORKERS = 50
OUTAGE = 2.5
"""Seconds."""
WINDOW = 0.1

Gather = Callable[[Callable[[], Broker]], list["Member"]]


class Member:
    """What of a worker speaks to its broker: the loop that fetches, and the listener."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.backoff = Backoff()
        self.bell = Event()
        self.stopping = Event()
        self.found = 0
        self.listener = Listener(broker, [QUEUE], self.bell.set, poll=5.0)
        self.loop = threading.Thread(target=self._run)

    def start(self) -> None:
        self.listener.start()
        self.loop.start()

    def _run(self) -> None:
        while not self.stopping.is_set():
            self.bell.clear()
            try:
                found = self.broker.fetch([QUEUE], 1, lease=30.0, consumer="w")
            except BrokerUnavailable as error:
                self.backoff.failed(error)
                self.stopping.wait(self.backoff.left)
                continue
            self.backoff.answered()
            self.broker.ack(found)
            self.found += len(found)
            if not found:
                self.listener.want()
                self.bell.wait(1.0)

    def stop(self) -> None:
        self.stopping.set()
        self.bell.set()
        self.listener.stop()
        self.loop.join(30)
        self.broker.close()


@pytest.fixture
def herd() -> Iterator[Gather]:
    members: list[Member] = []

    def gather(opened: Callable[[], Broker]) -> list[Member]:
        members.extend(Member(opened()) for _ in range(WORKERS))
        for member in members:
            member.start()
        return members

    yield gather
    together(*[member.stop for member in members])


def busiest(moments: list[float]) -> int:
    """Return how many came within one window, at most."""
    return max(sum(begin <= each < begin + WINDOW for each in moments) for begin in moments)


def test_fifty_workers_that_lost_their_redis_come_back_to_it_scattered(
    redis_server: PrivateRedis, client: redis.Redis, herd: Gather
):
    with wire_to("127.0.0.1", redis_server.port) as wire:
        members = herd(lambda: redises.open_broker(f"redis://127.0.0.1:{wire.port}"))
        redises.until(lambda: len(client.client_list("pubsub")) == WORKERS, "all listen")
        wire.bar()
        began = time.monotonic()
        redises.until(lambda: time.monotonic() - began > OUTAGE, "the outage is over")
        wire.reopen()
        redises.until(lambda: len(client.client_list("pubsub")) == WORKERS, "all listen again")
        came = [each - began for each in wire.moments if each >= began]
        members[0].broker.publish(samples(WORKERS))
        redises.until(lambda: sum(member.found for member in members) == WORKERS, "each message is taken")
    # Three and a half of them a second each, on average, of which the loop has most; and all of them now and then.
    assert len(came) < 40 * WORKERS
    assert busiest(came) < 4 * WORKERS
