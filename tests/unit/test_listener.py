"""Is the loop told when a fetch is worth it, once each time it asks?"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Semaphore

import pytest

from django_tasks.backends.memory import MemoryBroker
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Message, new_id
from django_tasks.worker.listener import Listener


class Counting(MemoryBroker):
    """Says when somebody waits."""

    def __init__(self) -> None:
        super().__init__("default", {})
        self.waits = Semaphore(0)

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        self.waits.release()
        return super().wait(queues, timeout, stop)


@pytest.fixture
def broker() -> Counting:
    return Counting()


@pytest.fixture
def rings() -> queue.Queue[int]:
    return queue.Queue()


@pytest.fixture
def listen(broker: Counting, rings: queue.Queue[int]) -> Iterator[Callable[..., Listener]]:
    started: list[Listener] = []

    def listen(broker: MemoryBroker = broker, poll: float = 3600.0) -> Listener:
        listener = Listener(broker, ["default"], lambda: rings.put(1), poll=poll)
        listener.start()
        started.append(listener)
        return listener

    yield listen
    for listener in started:
        listener.stop()
        assert not listener.is_alive()


def message(name: str = "default") -> Message:
    return Message(id=new_id(), task="t", body=b"", queue=name)


def test_a_message_rings_when_the_loop_has_asked(
    listen: Callable[..., Listener], broker: Counting, rings: queue.Queue[int]
) -> None:
    listener = listen()
    for _ in range(3):
        listener.want()
        assert broker.waits.acquire(timeout=30)
        broker.publish([message()])
        assert rings.get(timeout=30)


def test_a_message_that_came_in_between_rings_too(
    listen: Callable[..., Listener], broker: Counting, rings: queue.Queue[int]
) -> None:
    broker.publish([message()])
    listen().want()
    assert rings.get(timeout=30)


def test_without_being_asked_it_does_not_even_wait(
    listen: Callable[..., Listener], broker: Counting, rings: queue.Queue[int]
) -> None:
    broker.publish([message()])
    listener = listen()
    listener.stop()
    assert not broker.waits.acquire(blocking=False)
    assert rings.empty()


def test_it_rings_now_and_then_though_nothing_came(listen: Callable[..., Listener], rings: queue.Queue[int]) -> None:
    listener = listen(poll=0.01)
    for _ in range(3):
        listener.want()
        assert rings.get(timeout=30)


def test_one_who_waits_ends_when_told(listen: Callable[..., Listener], broker: Counting) -> None:
    listener = listen()
    listener.want()
    assert broker.waits.acquire(timeout=30)
    listener.stop()
    assert not listener.is_alive()


def test_one_that_never_started_may_be_stopped(broker: Counting) -> None:
    Listener(broker, ["default"], lambda: None, poll=1).stop()


def test_a_broker_that_does_not_answer_is_told_of_and_asked_again(
    listen: Callable[..., Listener], rings: queue.Queue[int], caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(Counting):
        def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
            self.waits.release()
            raise BrokerUnavailable("no answer")

    broker = Silent()
    listener = listen(broker)
    listener.want()
    assert broker.waits.acquire(timeout=30)
    # It rings all the same: that the broker does not answer is for a fetch to find out.
    assert rings.get(timeout=30)
    listener.want()
    assert broker.waits.acquire(timeout=30)
    listener.stop()
    assert {record.getMessage() for record in caplog.records} == {"Cannot listen to the broker; trying again"}
    assert {record.name for record in caplog.records} == {"django_tasks.broker"}
