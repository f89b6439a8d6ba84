"""Do leases stay held while tasks run, and is their loss noticed?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import OperationalError

from django_tasks.backends.memory import MemoryBroker
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Delivery, Message
from django_tasks.worker.heart import Heart
from django_tasks.worker.holdings import Holdings
from tests.clocks import TurnedClock

pytestmark = pytest.mark.usefixtures("configure")


class Body:
    """A heart with all that it needs, and what it said."""

    def __init__(self, broker: type[MemoryBroker] = MemoryBroker) -> None:
        self.clock = TurnedClock()
        self.broker = broker("default", {}, clock=self.clock)
        self.holdings = Holdings()
        self.lost: list[Delivery] = []
        self.beats = threading.Semaphore(0)
        self.heart = Heart(
            self.broker, self.holdings, lease=30, interval=5, on_lost=self.lost.extend, on_beat=self.beats.release
        )

    def take(self, *ids: str, now: float) -> list[Delivery]:
        self.broker.publish([Message(id=task_id, task="t", body=b"") for task_id in ids])
        taken = self.broker.fetch(["default"], 9, lease=30, consumer="w")
        self.holdings.add(taken, now)
        return taken

    def pass_on(self, seconds: float) -> list[Delivery]:
        """Let time pass, and see what another worker could have then."""
        self.clock.turn(seconds)
        return self.broker.fetch(["default"], 9, lease=30, consumer="other")


def test_leases_older_than_a_third_are_renewed_and_others_cost_nothing() -> None:
    class Counting(MemoryBroker):
        renewed: list[str] = []

        def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
            self.renewed += [delivery.message.id for delivery in deliveries]
            return super().extend(deliveries, lease)

    body = Body(Counting)
    body.take("old", now=100.0)
    body.take("new", now=105.0)
    body.heart.renew(109.0)
    assert Counting.renewed == []
    body.heart.renew(111.0)
    assert Counting.renewed == ["old"]
    body.heart.renew(112.0)
    assert Counting.renewed == ["old"]


def test_a_lease_that_is_renewed_outlasts_its_time() -> None:
    body = Body()
    body.take("1", now=0.0)
    for now in range(11, 100, 11):
        body.clock.turn(11)
        body.heart.renew(float(now))
    assert body.pass_on(0) == []
    assert body.lost == []
    assert len(body.pass_on(31)) == 1


def test_a_lease_that_another_worker_has_is_lost() -> None:
    body = Body()
    mine = body.take("1", now=0.0)
    assert len(body.pass_on(31)) == 1
    body.heart.renew(31.0)
    assert body.lost == mine


def test_what_is_settled_while_the_broker_is_asked_is_not_lost() -> None:
    class Settling(MemoryBroker):
        meanwhile: Callable[[], object]

        def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
            self.meanwhile()
            return super().extend(deliveries, lease)

    body = Body(Settling)
    done = body.take("1", now=0.0)

    def settle() -> None:
        body.broker.ack(done)
        body.holdings.remove(done)

    Settling.meanwhile = staticmethod(settle)
    body.heart.renew(11.0)
    assert body.lost == []


def test_each_beat_shows_the_worker_and_says_when_the_next_is() -> None:
    body = Body()
    waits = {body.heart.beat() for _ in range(50)}
    assert body.beats.acquire(blocking=False)
    assert all(4.5 <= wait <= 5 for wait in waits)
    assert len(waits) > 1


@pytest.mark.parametrize("error", [BrokerUnavailable("no answer"), OperationalError("no answer")])
def test_a_server_that_does_not_answer_is_asked_again_sooner(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    body = Body()
    body.heart.on_beat = fail
    assert body.heart.beat() == 1.0
    assert [record.getMessage() for record in caplog.records] == ["Heartbeat failed; trying again"]
    assert "no answer" in caplog.records[0].__dict__["error"]
    body.heart.interval = 0.5
    assert body.heart.beat() == 0.5


def test_a_worker_that_stood_still_knows_that_its_leases_may_have_run_out() -> None:
    body = Body()
    assert not body.heart.overdue
    body.heart.last_beat = time.monotonic() - 21
    assert body.heart.overdue
    body.heart.beat()
    assert not body.heart.overdue


def test_a_broker_that_did_not_answer_for_long_is_as_bad() -> None:
    class Silent(MemoryBroker):
        def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
            raise BrokerUnavailable("no answer")

    body = Body(Silent)
    body.take("1", now=0.0)
    body.heart.last_beat = before = time.monotonic() - 21
    body.heart.beat()
    assert (body.heart.last_beat, body.heart.overdue) == (before, True)


def test_the_thread_beats_at_once_and_ends_when_told() -> None:
    body = Body()
    body.heart.start()
    assert body.beats.acquire(timeout=30)
    body.heart.stop()
    assert not body.heart.is_alive()


def test_a_heart_that_never_beat_may_be_stopped() -> None:
    Body().heart.stop()


def test_it_beats_on_and_on() -> None:
    body: Any = Body()
    body.heart.interval = 0.001
    body.heart.start()
    for _ in range(20):
        assert body.beats.acquire(timeout=30)
    body.heart.stop()
