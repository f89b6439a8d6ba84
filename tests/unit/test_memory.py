"""What do the stores and brokers of one process do beyond their contracts?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import pytest

from django_tasks import states
from django_tasks.backends import BROKERS, memory
from django_tasks.backends.dummy import DummyBroker
from django_tasks.backends.memory import MemoryBroker
from django_tasks.exceptions import ConfigurationError, PublishError
from django_tasks.message import Message, new_id
from django_tasks.plan import Result
from django_tasks.results import STORES
from django_tasks.results.dummy import DummyStore
from django_tasks.results.memory import MemoryStore
from tests.clocks import TurnedClock


def message(queue: str = "default") -> Message:
    return Message(id=new_id(), task="t", body=b"[]", queue=queue)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def broker(clock: TurnedClock) -> MemoryBroker:
    return MemoryBroker("default", {}, clock=clock)


@pytest.fixture
def long_glances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but a signal end a wait."""
    monkeypatch.setattr(memory, "GLANCE", 3600.0)


@pytest.mark.usefixtures("long_glances")
def test_a_message_wakes_who_waits_at_once_not_at_the_next_glance(broker: MemoryBroker) -> None:
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(broker.wait, ["default"], 0.0, Event()).result() is False
        waiting = executor.submit(broker.wait, ["default"], 3600.0, Event())
        broker.publish([message()])
        assert waiting.result(20) is True


@pytest.mark.usefixtures("long_glances")
def test_a_message_of_another_queue_wakes_nobody(broker: MemoryBroker) -> None:
    broker.publish([message("other")])
    assert broker.wait(["default"], 0.0, Event()) is False


def test_each_listener_hears_of_each_arrival_once(broker: MemoryBroker) -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        broker.publish([message()])
        for executor in (one, other):
            assert executor.submit(broker.wait, ["default"], 0.0, Event()).result() is True
            assert executor.submit(broker.wait, ["default"], 0.0, Event()).result() is False


def test_a_lease_that_ran_out_is_lost_when_somebody_looks(broker: MemoryBroker, clock: TurnedClock) -> None:
    """Looking for work is what finds it; asking how queues stand changes nothing."""
    broker.publish([message()])
    held = broker.fetch(["default"], 1, lease=30, consumer="w")
    clock.turn(31)
    broker.stats()
    broker.peek("default", 10)
    assert broker.extend(held, 30) == held
    clock.turn(31)
    broker.fetch(["other"], 1, lease=30, consumer="w")
    assert broker.ack(held) == []


def test_a_delay_that_is_no_number_is_none(broker: MemoryBroker) -> None:
    broker.publish([replace(message(), countdown=float("nan"))])
    assert len(broker.fetch(["default"], 1, lease=30, consumer="w")) == 1


def test_headers_that_cannot_be_copied_are_refused_with_the_name_of_the_task(broker: MemoryBroker) -> None:
    with pytest.raises(PublishError, match=r"shop\.bill\[42\]"):
        broker.publish([Message(id="42", task="shop.bill", body=b"", headers={"open": Event()})])


def test_the_broker_tells_the_time_of_publication_by_its_own_clock(broker: MemoryBroker, clock: TurnedClock) -> None:
    given = datetime(2020, 1, 1, tzinfo=UTC)
    broker.publish([message(), replace(message(), created_at=given)])
    found = [delivery.message.created_at for delivery in broker.fetch(["default"], 2, lease=30, consumer="w")]
    assert found == [datetime.fromtimestamp(clock.now, UTC), given]


def test_nothing_is_left_of_what_is_done(broker: MemoryBroker, clock: TurnedClock) -> None:
    """A worker that runs for a year must not grow."""
    for turn in range(50):
        broker.publish([message() for _ in range(20)])
        held = broker.fetch(["default"], 15, lease=30, consumer="w")
        broker.extend(held, 60)
        broker.nack(held[:5], delay=5)
        broker.ack(held[5:])
        clock.turn(turn)
        broker.purge("default")
    clock.turn(3600)
    broker.ack(broker.fetch(["default"], 1_000, lease=30, consumer="w"))
    assert (broker._entries, broker._ids, broker._due, broker._ready["default"]) == ({}, {}, [], [])


@pytest.fixture
def dummy(clock: TurnedClock) -> DummyBroker:
    return DummyBroker("default", {}, clock=clock)


def test_the_dummy_broker_keeps_what_is_sent_for_a_test_to_see(dummy: DummyBroker, clock: TurnedClock) -> None:
    first, second = message(), message("mail")
    dummy.publish([first])
    dummy.publish([second, first])
    assert [sent.id for sent in dummy.messages] == [first.id, second.id]
    assert {sent.created_at for sent in dummy.messages} == {datetime.fromtimestamp(clock.now, UTC)}
    assert [(stats.queue, stats.delayed) for stats in dummy.stats()] == [("default", 1), ("mail", 1)]


def test_the_dummy_broker_gives_nothing_to_anybody(dummy: DummyBroker) -> None:
    dummy.publish([message()])
    assert dummy.fetch(["default"], 10, lease=30, consumer="w") == []
    assert [stats.ready for stats in dummy.stats(["default", "never"])] == [0, 0]
    assert len(dummy.messages) == 1


def test_the_dummy_broker_forgets_when_it_is_told_to(dummy: DummyBroker) -> None:
    kept, sent = dummy.messages, [message(), message(), message("mail"), replace(message(), priority=5)]
    dummy.publish(sent)
    assert [found.id for found in dummy.peek("default", 2)] == [sent[3].id, sent[0].id]
    assert [found.id for found in dummy.discard([sent[0].id, "unknown"])] == [sent[0].id]
    assert dummy.purge("default") == 2
    assert [found.id for found in dummy.messages] == [sent[2].id]
    dummy.clear()
    assert dummy.messages == []
    assert dummy.messages is kept
    dummy.publish(sent)
    assert len(dummy.messages) == 4


def test_the_dummy_store_knows_nothing() -> None:
    store = DummyStore("archive", {})
    store.save([Result(id="1", state=states.SUCCESS)])
    assert store.get(["1"]) == {}
    assert store.forget(["1"]) == 0
    assert store.expire(datetime(2999, 1, 1, tzinfo=UTC)) == 0
    assert store.wait([], None) == {}


def test_waiting_on_the_dummy_store_says_at_once_that_it_is_in_vain() -> None:
    with pytest.raises(ConfigurationError, match=r"'archive' keeps no results.*\['RESULTS'\]\['archive'\]"):
        DummyStore("archive", {}).wait(["1"], None)


def test_short_names_lead_to_these_classes() -> None:
    for cls, name, names in [
        (MemoryBroker, "memory", BROKERS),
        (DummyBroker, "dummy", BROKERS),
        (MemoryStore, "memory", STORES),
        (DummyStore, "dummy", STORES),
    ]:
        assert f"{cls.__module__}.{cls.__qualname__}" == names[name]
