"""Do kombu's other transports run through the AMQP broker?"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import bulk
from django_tasks.backends.amqp import AmqpBroker
from django_tasks.exceptions import BrokerUnavailable, ConfigurationError
from django_tasks.protocol import MALFORMED
from django_tasks.testing.contracts.harness import QUEUE, ids, sample, samples
from tests import amazon
from tests.integration.stage import burst, note, retry_twice, stage
from tests.settings import REDIS_URL

HIDDEN = 600
"""Seconds for which what is held is hidden from others."""
PATIENCE = 30.0
NEVER = threading.Event()


def _folder(path: Path) -> dict[str, Any]:
    for name in ("queues", "control"):
        (path / name).mkdir()
    folders = {"data_folder_in": "queues", "data_folder_out": "queues", "control_folder": "control"}
    return {
        "LOCATION": "filesystem://",
        "OPTIONS": {"TRANSPORT": {name: str(path / folder) for name, folder in folders.items()}},
    }


TRANSPORTS = {
    "memory": lambda path: {"LOCATION": "memory://"},
    "filesystem": _folder,
    "sqla": lambda path: {"LOCATION": f"sqla+sqlite:///{path}/queues.sqlite3"},
    "redis": lambda path: {"LOCATION": REDIS_URL, "OPTIONS": {"TRANSPORT": {"visibility_timeout": HIDDEN}}},
}


@pytest.fixture(params=[*TRANSPORTS, "sqs"])
def entry(request: Any, tmp_path: Path) -> dict[str, Any]:
    params: dict[str, Any]
    if request.param == "sqs":
        params = amazon.entry(request.getfixturevalue("sqs_server").url, visibility_timeout=HIDDEN)
    else:
        params = TRANSPORTS[request.param](tmp_path)
    options = {**params.get("OPTIONS", {}), "PREFIX": f"test.{os.getpid()}.{time.monotonic_ns()}."}
    return {**params, "OPTIONS": options}


@pytest.fixture
def broker(entry: dict[str, Any]) -> Iterator[AmqpBroker]:
    broker = AmqpBroker("default", entry)
    yield broker
    for queue in list(broker._queues):
        broker.purge(queue)
    broker.close()


def take(broker: AmqpBroker, limit: int = 100, *queues: str) -> list[Any]:
    return broker.fetch(queues or [QUEUE], limit, lease=30.0, consumer="w")


def test_messages_come_through_whole(broker: AmqpBroker):
    sent = [replace(sample(), body=body, headers={"n": n}) for n, body in enumerate([b"", b"\xff\x00", b"[]"])]
    broker.publish(sent)
    # Mostly in their order; that of files is the order of their times, to the millisecond.
    found = sorted(take(broker, 2) + take(broker), key=lambda one: one.message.headers["n"])
    assert [(one.message.id, one.message.body, one.message.headers) for one in found] == [
        (one.id, one.body, one.headers) for one in sent
    ]
    assert broker.ack(found) == found
    assert broker.ack(found) == []
    assert take(broker) == []


def test_what_is_put_back_comes_again_with_its_count(broker: AmqpBroker):
    broker.publish(samples(1))
    [held] = take(broker)
    assert broker.nack([held]) == [held]
    [held] = take(broker)
    assert held.deliveries == 1
    broker.nack([held], spent=True)
    [held] = take(broker)
    assert held.deliveries == 2
    broker.replace([(held, replace(held.message, retries=1, queue="again"))])
    [again] = take(broker, 10, "again")
    assert (again.message.retries, again.deliveries) == (1, 1)
    broker.ack([again])


def test_what_is_for_later_waits_in_the_worker(broker: AmqpBroker):
    later, now = replace(sample(), countdown=0.5), sample()
    began = time.monotonic()
    broker.publish([later, now])
    came: dict[str, float] = {}
    while len(came) < 2:
        found = take(broker)
        came |= dict.fromkeys(ids(found), time.monotonic())
        assert broker.ack(found) == found
        assert time.monotonic() - began < 60
        broker.wait([QUEUE], 0.1, NEVER)
    assert came.keys() == {later.id, now.id}
    assert came[later.id] - began >= 0.5
    assert take(broker) == []


def test_waiting_ends_when_something_is_there_and_not_over_and_over(broker: AmqpBroker):
    assert broker.wait([QUEUE], 0.0, NEVER) is False
    broker.publish(samples(2))
    assert broker.wait([QUEUE], 20.0, NEVER) is True
    assert broker.wait([QUEUE], 0.0, NEVER) is False
    assert [stats.ready for stats in broker.stats()] == [2]
    stopped = threading.Event()
    stopped.set()
    assert broker.wait([QUEUE], 20.0, stopped) is False


def test_one_that_comes_after_several_were_fetched_is_noticed(broker: AmqpBroker):
    broker.publish(samples(3))
    assert broker.wait([QUEUE], 20.0, NEVER) is True
    held = take(broker)
    assert len(held) == 3
    broker.publish(samples(1))
    assert broker.wait([QUEUE], 0.0, NEVER) is True
    broker.ack([*held, *take(broker)])


def test_a_message_that_cannot_be_read_is_handed_over_as_such(broker: AmqpBroker):
    broker.publish([replace(sample(), body=b"x")])
    [held] = take(broker)
    link: Any = broker._ends.receiver
    broker.ack([held])
    channel = link._channel
    channel.basic_publish(
        channel.prepare_message(b"junk", 0, "text/plain", "binary", {}, {}), "", link._queue(channel, QUEUE)
    )
    [odd] = take(broker)
    assert (odd.message.content_type, odd.message.body) == (MALFORMED, b"junk")
    broker.ack([odd])


def test_what_was_not_acknowledged_is_there_again_when_its_worker_has_gone(entry: dict[str, Any], broker: AmqpBroker):
    if entry["LOCATION"] in ("filesystem://", "memory://"):
        pytest.skip("kombu forgets what was fetched when the file was read, or the channel is closed")
    broker.publish(samples(2))
    held = take(broker)
    broker.close()
    assert broker.ack(held) == []
    assert sorted(ids(take(broker))) == sorted(ids(held))


@pytest.fixture(params=["redis", "sqs"])
def brief(request: Any) -> dict[str, Any]:
    """Give settings of what hides a message for a second from those who did not fetch it."""
    own = f"test{os.getpid()}-{time.monotonic_ns()}-"
    if request.param == "sqs":
        entry = amazon.entry(request.getfixturevalue("sqs_server").url, visibility_timeout=1)
    else:
        # Whoever looks there puts back what others hold.
        transport = {"visibility_timeout": 1, "global_keyprefix": own}
        entry = {"LOCATION": REDIS_URL, "OPTIONS": {"TRANSPORT": transport}}
    entry["OPTIONS"]["PREFIX"] = own
    return entry


def take_again(broker: AmqpBroker) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := take(broker)):
        assert time.monotonic() < deadline
        broker.wait([QUEUE], 0.3, NEVER)
    [again] = found
    return again


def test_what_a_killed_worker_held_comes_again_after_the_visibility_timeout(brief: dict[str, Any]):
    # Nothing is closed before the end: who is killed closes nothing.
    killed, other = AmqpBroker("default", brief), AmqpBroker("default", brief)
    killed.publish(samples(1))
    [lost] = take(killed)
    found = take_again(other)
    assert (found.message.id, found.deliveries) == (lost.message.id, 2)
    assert other.ack([found]) == [found]
    other.close()
    killed.close()


def test_what_comes_again_to_who_holds_it_runs_once_and_is_not_lost(brief: dict[str, Any]):
    holder, other = AmqpBroker("default", brief), AmqpBroker("default", brief)
    holder.publish(samples(2))
    link: Any = holder._ends.receiver
    held = take(holder)
    deadline = time.monotonic() + PATIENCE
    while link._number < 4:
        assert take(holder) == []
        assert time.monotonic() < deadline
        holder.wait([QUEUE], 0.3, NEVER)
    assert holder.ack(held[:1]) == held[:1]
    # Had its worker died now, there would still be somebody to run it.
    assert take_again(other).message.id == held[1].message.id
    other.close()
    holder.close()


@pytest.mark.django_db(transaction=True)
def test_a_worker_runs_on_it(entry: dict[str, Any]):
    stage.clear()
    brokers = {"default": {"BACKEND": "amqp", **entry}}
    with override_settings(DJANGO_TASKS={"BROKERS": brokers, "RESULTS": {"default": {"BACKEND": "memory"}}}):
        handles = bulk(note.s(number) for number in range(20))
        retried = retry_twice.delay()
        burst()
        assert [handle.get(0) for handle in handles] == list(range(20))
        assert retried.get(0) == 2


def test_a_server_that_does_not_answer_is_told_as_such():
    broker = AmqpBroker("default", {"LOCATION": "redis://127.0.0.1:1"})
    with pytest.raises(BrokerUnavailable):
        take(broker)
    with pytest.raises(BrokerUnavailable):
        broker.publish(samples(1))
    assert broker.wait([QUEUE], 0.0, NEVER) is False


@pytest.mark.parametrize("url", ["mongodb://localhost", "azurestoragequeues://name:key@account", "carrierpigeon://"])
def test_a_transport_that_is_not_there_is_a_matter_of_the_settings(url: str):
    with pytest.raises(ConfigurationError, match="cannot be used"):
        take(AmqpBroker("default", {"LOCATION": url}))
