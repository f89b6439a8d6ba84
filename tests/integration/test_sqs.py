"""Does the broker make of SQS what it can do?"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.backends.links.link import Parcel
from django_tasks.connections import brokers
from django_tasks.exceptions import BrokerUnavailable, ConfigurationError, Unroutable
from django_tasks.message import Delivery
from django_tasks.models import QueuedMessage
from django_tasks.protocol import MALFORMED
from django_tasks.testing.contracts.harness import QUEUE, ids, sample, samples
from django_tasks.wire import to_wire
from tests import amazon
from tests.amazon import PrivateSqs
from tests.integration.stage import note

PATIENCE = 30.0
LIMIT = 262_144
NEVER = threading.Event()


@pytest.fixture
def prefix() -> str:
    return f"test-{os.getpid()}-{time.monotonic_ns()}-"


@pytest.fixture
def client(sqs_server: PrivateSqs) -> Any:
    return amazon.direct(sqs_server)


@pytest.fixture
def opened(sqs_server: PrivateSqs, prefix: str) -> Iterator[Any]:
    """Give what opens brokers on queues of this test alone; each is a worker of its own."""
    found: list[AmqpBroker] = []

    def open_broker(**transport: Any) -> AmqpBroker:
        entry = amazon.entry(sqs_server.url, **transport)
        entry["OPTIONS"]["PREFIX"] = prefix
        found.append(AmqpBroker("default", entry))
        return found[-1]

    yield open_broker
    for broker in found:
        broker.close()


@pytest.fixture
def broker(opened: Any) -> AmqpBroker:
    broker: AmqpBroker = opened()
    return broker


def take(broker: AmqpBroker, limit: int = 100, queue: str = QUEUE) -> list[Delivery]:
    return broker.fetch([queue], limit, lease=30.0, consumer="w")


def take_when_there(broker: AmqpBroker) -> Delivery:
    deadline = time.monotonic() + PATIENCE
    while not (found := take(broker, 1)):
        assert time.monotonic() < deadline
        broker.wait([QUEUE], 1.0, NEVER)
    return found[0]


def number(client: Any, name: str, which: str = "") -> int:
    url = client.get_queue_url(QueueName=name)["QueueUrl"]
    attribute = f"ApproximateNumberOfMessages{which}"
    return int(client.get_queue_attributes(QueueUrl=url, AttributeNames=[attribute])["Attributes"][attribute])


# Holding


def test_what_runs_for_long_stays_hidden_and_what_nobody_renews_is_given_to_another(opened, client, prefix):
    client.create_queue(QueueName=f"{prefix}{QUEUE}", Attributes={"VisibilityTimeout": "1"})
    first, second = opened(), opened()
    first.publish(samples(2))
    renewed, frozen = take(first)
    assert first.extend([renewed], 30.0) == [renewed]
    again = take_when_there(second)
    assert (again.message.id, again.deliveries) == (frozen.message.id, 2)
    # Half an hour is what the broker asks for, unless told otherwise.
    assert number(client, f"{prefix}{QUEUE}", "NotVisible") >= 1
    assert take(second) == [] or ids(take(second)) == [frozen.message.id]
    assert first.ack([renewed]) == [renewed]


def test_renewing_is_asked_for_once_in_a_third_of_the_time(broker, client, prefix):
    broker.publish(samples(1))
    held = take(broker)
    assert broker.extend(held, 30.0) == held
    url = client.get_queue_url(QueueName=f"{prefix}{QUEUE}")["QueueUrl"]
    client.delete_queue(QueueUrl=url)
    # SQS would know nothing of it any more.
    assert broker.extend(held, 30.0) == held


def test_what_somebody_else_removed_is_no_longer_held(broker, client, prefix):
    broker.publish(samples(3))
    held = take(broker)
    client.purge_queue(QueueUrl=client.get_queue_url(QueueName=f"{prefix}{QUEUE}")["QueueUrl"])
    assert broker.extend(held, 30.0) == []
    assert broker.ack(held) == []


def test_who_closes_gives_back_what_is_held_and_writes_no_file_of_what_has_gone(opened, client, prefix, caplog):
    first, second = opened(), opened()
    sent = [*samples(12), *samples(12, "other")]
    first.publish(sent)
    held = first.fetch([QUEUE, "other"], 24, lease=30.0, consumer="w")
    assert len(held) == 24
    client.purge_queue(QueueUrl=client.get_queue_url(QueueName=f"{prefix}other")["QueueUrl"])
    first.close()
    assert sorted(ids(take(second))) == sorted(one.id for one in sent[:12])
    # kombu's words when it writes messages to a file.
    assert "RESTORE" not in caplog.text


def test_many_messages_are_acknowledged_and_purged(broker, client, prefix):
    broker.publish(samples(23))
    held = take(broker, 21)
    assert broker.ack(held) == held
    assert number(client, f"{prefix}{QUEUE}") == 2
    assert broker.purge(QUEUE) == 2
    assert take(broker) == []


def test_what_a_task_that_kills_its_worker_costs_is_counted(opened):
    opened(visibility_timeout=1).publish(samples(1))
    counts = [take_when_there(opened(visibility_timeout=1)).deliveries for _ in range(3)]
    assert counts == [1, 2, 3]


def test_queues_that_are_named_beforehand_are_used(opened, client, prefix):
    name = f"{prefix}{QUEUE}"
    url = client.create_queue(QueueName=name)["QueueUrl"]
    keys = {"access_key_id": amazon.KEY, "secret_access_key": amazon.SECRET}
    broker = opened(predefined_queues={name: {"url": url, **keys}})
    broker.publish(samples(2))
    held = take(broker)
    assert broker.extend(held, 30.0) == held
    assert broker.ack(held) == held
    with pytest.raises(BrokerUnavailable, match="must be defined"):
        broker.publish([sample("other")])
    broker.publish(samples(1))
    assert broker.purge(QUEUE) == 1


# Delays


def test_what_is_for_later_waits_at_the_server_for_a_quarter_of_an_hour_at_most(broker, client, prefix):
    hour = replace(sample(), eta=datetime.now(UTC) + timedelta(hours=1))
    broker.publish([replace(sample(), countdown=300.0), hour])
    assert take(broker) == []
    assert number(client, f"{prefix}{QUEUE}", "Delayed") == 2
    link: Any = broker._ends.sender
    assert [link.step(QUEUE, left) for left in (0.2, 300.0, 3600.0)] == [1000, 300_000, 900_000]


def test_what_comes_too_early_is_sent_on(broker, client, prefix):
    broker.publish(samples(1))
    [held] = take(broker)
    assert broker.nack([held], delay=120.0) == [held]
    assert number(client, f"{prefix}{QUEUE}", "Delayed") == 1
    assert number(client, f"{prefix}{QUEUE}", "NotVisible") == 0


@pytest.mark.django_db(transaction=True)
def test_what_is_to_wait_for_longer_than_ten_minutes_waits_in_the_outbox(sqs_server, client, prefix):
    entry = amazon.entry(sqs_server.url)
    entry["OPTIONS"]["PREFIX"] = prefix
    with override_settings(DJANGO_TASKS={"BROKERS": {"default": {"BACKEND": "amqp", **entry}}}):
        note.apply_async(countdown=500)
        late = note.apply_async(countdown=1200)
        assert [row.task_id for row in QueuedMessage.objects.all()] == [late.id]
        assert number(client, f"{prefix}{QUEUE}", "Delayed") == 1
        brokers.close()


def test_a_queue_that_keeps_its_order_has_its_delays_in_the_worker(broker):
    sent = [sample("orders.fifo") for _ in range(3)]
    broker.publish(sent)
    # Of one group SQS gives nothing more while something is held.
    found: list[Delivery] = []
    while len(found) < 3:
        held = take(broker, 1, "orders.fifo")
        found += held
        assert broker.ack(held) == held
    assert ids(found) == ids(sent)
    later = replace(sample("orders.fifo"), countdown=0.3)
    broker.publish([later])
    began = time.monotonic()
    while not (held := take(broker, 1, "orders.fifo")):
        assert time.monotonic() - began < PATIENCE
    assert ids(held) == [later.id]
    assert held[0].deliveries == 1


# Sizes


def test_a_message_that_has_no_room_is_refused_by_name_before_it_is_sent(opened):
    broker = opened(**{"sqs-creation-attributes": {"MaximumMessageSize": str(LIMIT)}})
    small, large = sample(), replace(sample(), body=bytes(150_000))
    with pytest.raises(Unroutable, match=r"takes 26\d,\d+ bytes on SQS, .* takes 262,144") as caught:
        broker.publish([small, large])
    assert caught.value.ids == {large.id}
    assert large.task in str(caught.value)
    assert ids(take(broker)) == [small.id]


def test_the_largest_message_that_is_let_through_has_room(opened):
    broker = opened(**{"sqs-creation-attributes": {"MaximumMessageSize": str(LIMIT)}})
    link = broker._ends.sender

    def size(length: int) -> int:
        parcel = Parcel(QUEUE, to_wire(replace(sample(), body=bytes(length), created_at=datetime.now(UTC))))
        with link._using() as channel:
            return int(link._size(channel, parcel))

    length = max(length for length in range(144_000, 148_000, 3) if size(length) <= LIMIT)
    broker.publish([replace(sample(), body=bytes(length))])
    [held] = take(broker)
    assert held.message.body == bytes(length)
    broker.ack([held])


def test_half_as_much_again_has_room_without_a_second_base64(opened):
    broker = opened(sqs_base64_encoding=False, **{"sqs-creation-attributes": {"MaximumMessageSize": str(LIMIT)}})
    sent = replace(sample(), body=bytes(190_000))
    broker.publish([sent])
    [held] = take(broker)
    assert held.message.body == sent.body


# What goes wrong


def test_what_is_no_message_comes_out_as_one_that_says_so(broker, client, prefix):
    broker.publish(samples(1))
    url = client.get_queue_url(QueueName=f"{prefix}{QUEUE}")["QueueUrl"]
    for text in ("junk", "{}", '{"properties": {}}', "[1]", "ÿ"):
        client.send_message(QueueUrl=url, MessageBody=text)
    held = []
    while found := take(broker):
        held += found
    assert len([one for one in held if one.message.content_type == MALFORMED]) == 5
    assert len(held) == 6
    assert broker.ack(held) == held
    assert number(client, f"{prefix}{QUEUE}", "NotVisible") == 0


def test_a_queue_that_was_deleted_is_made_again(broker, client, prefix):
    broker.publish(samples(1))
    client.delete_queue(QueueUrl=client.get_queue_url(QueueName=f"{prefix}{QUEUE}")["QueueUrl"])
    with pytest.raises(BrokerUnavailable):
        take(broker)
    sent = samples(1)
    broker.publish(sent)
    assert ids(take(broker)) == ids(sent)


def test_a_failed_call_costs_nothing_that_is_held(broker, client, prefix):
    broker.publish(samples(2))
    held = take(broker)
    broker.publish([sample("other")])
    client.delete_queue(QueueUrl=client.get_queue_url(QueueName=f"{prefix}other")["QueueUrl"])
    with pytest.raises(BrokerUnavailable):
        take(broker, 1, "other")
    assert broker.ack(held) == held
    assert number(client, f"{prefix}{QUEUE}", "NotVisible") == 0


def test_a_server_that_does_not_answer_is_told_as_such_and_no_secret():
    once = {"retries": {"total_max_attempts": 1}}
    entry = amazon.entry(f"sqs://{amazon.KEY}:{amazon.SECRET}@127.0.0.1:1", **{"client-config": once})
    broker = AmqpBroker("default", entry)
    with pytest.raises(BrokerUnavailable) as caught:
        broker.publish(samples(1))
    assert amazon.SECRET not in str(caught.value)
    told = broker.diagnose(ask=False)
    assert told.what == "kombu's transport sqs"
    assert amazon.SECRET not in repr(told)


def test_several_threads_send_at_once(broker):
    sent = [samples(5) for _ in range(4)]
    threads = [threading.Thread(target=broker.publish, args=(some,)) for some in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = []
    while found := take(broker):
        held += found
    assert sorted(ids(held)) == sorted(one.id for some in sent for one in some)


def test_a_driver_that_is_missing_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr("django_tasks.backends.amqp._LINKS", {"sqs": "django_tasks.no.such.Link"})
    with pytest.raises(ConfigurationError, match=r"Install django-tasks-queue\[sqs\]"):
        AmqpBroker("default", {"LOCATION": "sqs://"})
