"""Do messages go through exchanges to the queues that the settings bind to them?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.connections import brokers, outboxes
from django_tasks.exceptions import Unroutable
from django_tasks.message import Delivery, Message
from django_tasks.models import QueuedMessage
from django_tasks.testing.contracts.harness import ids, sample
from django_tasks.worker.relay import Relay
from tests.integration.stage import PATIENCE, Meanwhile, build, note, retry_twice, stage
from tests.rabbit import Rabbit

NEVER = threading.Event()

QUEUES: dict[str, dict[str, Any]] = {
    "news": {"EXCHANGE": "events", "EXCHANGE_TYPE": "topic", "ROUTING_KEY": ["news.#", "alerts.*"]},
    "europe": {"EXCHANGE": "events", "EXCHANGE_TYPE": "topic", "ROUTING_KEY": "*.eu"},
    "orders": {"EXCHANGE": "shop"},
    "pdf": {"EXCHANGE": "files", "EXCHANGE_TYPE": "headers", "ARGUMENTS": {"x-match": "all", "format": "pdf"}},
    "everyone": {"EXCHANGE": "all", "EXCHANGE_TYPE": "fanout"},
}


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    rabbit = Rabbit()
    rabbit.queues = QUEUES
    rabbit.uses(*QUEUES)
    yield rabbit
    rabbit.close()


@pytest.fixture
def broker(rabbit: Rabbit) -> AmqpBroker:
    return rabbit.open()


def through(exchange: str, key: str = "", **changes: Any) -> Message:
    return replace(sample(), exchange=exchange, routing_key=key, **changes)


def take(broker: AmqpBroker, *queues: str) -> list[Delivery]:
    return broker.fetch(queues, 100, lease=30.0, consumer="w")


def gather(broker: AmqpBroker, number: int, *queues: str) -> list[Delivery]:
    """Fetch until so many have come."""
    found: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < number:
        assert time.monotonic() < deadline, f"{len(found)} of {number} came"
        found += take(broker, *queues)
        if len(found) < number:
            broker.wait(queues, 0.05, NEVER)
    return found


def test_a_topic_leads_to_each_queue_whose_key_fits(broker: AmqpBroker):
    both, one, other = through("events", "news.eu"), through("events", "news.us.east"), through("events", "sport.eu")
    broker.publish([both, one, other])
    found = gather(broker, 2, "news")
    assert ids(found) == [both.id, one.id]
    assert [(one.message.queue, one.message.exchange, one.deliveries) for one in found] == [("news", None, 1)] * 2
    broker.ack(found)
    assert ids(gather(broker, 2, "europe")) == [both.id, other.id]


def test_a_direct_exchange_goes_by_the_name_of_the_queue_unless_another_key_is_given(broker: AmqpBroker):
    sent = through("shop", "orders")
    broker.publish([sent])
    assert ids(gather(broker, 1, "orders")) == [sent.id]


def test_a_headers_exchange_goes_by_the_headers_of_the_call(broker: AmqpBroker):
    right, wrong = through("files", headers={"format": "pdf"}), through("files", headers={"format": "txt"})
    broker.publish([right])
    with pytest.raises(Unroutable):
        broker.publish([wrong])
    assert ids(gather(broker, 1, "pdf")) == [right.id]


@pytest.mark.parametrize("countdown", [None, 0.1])
def test_a_worker_is_told_what_a_message_came_by_also_when_it_was_put_back(broker: AmqpBroker, countdown: float | None):
    broker.publish([through("events", "news.eu", countdown=countdown)])
    for delay in (0.0, 0.1, 0.0):
        [held] = gather(broker, 1, "news")
        assert (held.exchange, held.routing_key) == ("events", "news.eu")
        assert broker.nack([held], delay=delay) == [held]
    [held] = gather(broker, 1, "news")
    assert broker.replace([(held, replace(held.message, retries=1))]) == [held]
    # The next attempt goes straight to its queue.
    [again] = gather(broker, 1, "news")
    assert (again.exchange, again.routing_key) == ("", "")


def test_an_exchange_that_goes_by_no_key_is_told_without_one(broker: AmqpBroker):
    take(broker, "everyone")
    broker.publish([through("all")])
    [held] = gather(broker, 1, "everyone")
    assert (held.exchange, held.routing_key) == ("all", "")


def test_a_message_that_no_key_fits_is_told_and_not_dropped(broker: AmqpBroker):
    with pytest.raises(
        Unroutable, match=r"events' is not there, or leads no message with the routing key 'weather\.eu\.west'"
    ):
        broker.publish([through("events", "weather.eu.west")])


def test_an_exchange_that_nobody_made_is_told_and_one_of_another_program_is_used_as_it_is(
    rabbit: Rabbit, broker: AmqpBroker
):
    theirs = rabbit.prefix + "theirs"
    lost, fine = through("theirs"), replace(sample(), queue="news")
    with pytest.raises(Unroutable, match=f"The exchange '{theirs}' is not there") as caught:
        broker.publish([lost, fine])
    assert caught.value.ids == {lost.id}
    assert ids(gather(broker, 1, "news")) == [fine.id]
    with rabbit.channel() as channel:
        channel.exchange_declare(theirs, "fanout", auto_delete=False)
        name = channel.queue_declare("", exclusive=True).queue
        channel.queue_bind(name, theirs)
        sent = through("theirs", "any")
        broker.publish([sent])
        assert channel.basic_get(name, no_ack=True).properties["correlation_id"] == sent.id
        channel.exchange_delete(theirs)


def test_a_queue_that_was_deleted_is_made_and_bound_again(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish([through("shop", "orders")])
    with rabbit.channel() as channel:
        channel.queue_delete(rabbit.name("orders"))
    sent = through("shop", "orders")
    broker.publish([sent])
    assert ids(gather(broker, 1, "orders")) == [sent.id]


def test_what_is_said_to_all_reaches_every_worker_once(rabbit: Rabbit):
    workers = [rabbit.open() for _ in range(3)]
    for worker in workers:
        assert take(worker, "everyone") == []
    sent = [through("all"), replace(sample(), queue="everyone")]
    rabbit.open().publish(sent)
    for worker in workers:
        found = gather(worker, 2, "everyone")
        assert ids(found) == ids(sent)
        assert worker.ack(found) == found
        assert take(worker, "everyone") == []


def test_what_is_said_to_all_is_said_to_nobody_when_nobody_is_there(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish([through("all")])
    late = rabbit.open()
    assert take(late, "everyone") == []
    broker.publish([through("all")])
    assert len(gather(late, 1, "everyone")) == 1


def test_what_a_worker_puts_back_or_tries_again_stays_its_own(rabbit: Rabbit):
    mine, other = rabbit.open(), rabbit.open()
    for worker in (mine, other):
        take(worker, "everyone")
    mine.publish([through("all")])
    theirs = gather(other, 1, "everyone")
    other.ack(theirs)
    [held] = gather(mine, 1, "everyone")
    assert mine.nack([held], delay=0.1, spent=True) == [held]
    [again] = gather(mine, 1, "everyone")
    assert again.deliveries == 2
    assert mine.replace([(again, replace(again.message, retries=1))]) == [again]
    [retried] = gather(mine, 1, "everyone")
    assert retried.message.retries == 1
    assert take(other, "everyone") == []


def the_broker() -> AmqpBroker:
    found = brokers["default"]
    assert isinstance(found, AmqpBroker)
    return found


@pytest.mark.django_db(transaction=True)
def test_a_worker_runs_what_is_sent_through_an_exchange_at_once_or_for_later(rabbit: Rabbit):
    stage.clear()
    settings = {
        "BROKERS": {"default": rabbit.entry},
        "RESULTS": {"default": {"BACKEND": "memory"}},
        "QUEUES": QUEUES,
        "ROUTES": {"*.note": {"exchange": "events", "routing_key": "news.eu"}},
    }
    with override_settings(DJANGO_TASKS=settings):

        def story() -> None:
            assert note.delay(7).get(PATIENCE) == 7
            assert note.apply_async((8,), countdown=0.2).get(PATIENCE) == 8
            assert retry_twice.apply_async(queue="everyone").get(PATIENCE) == 2
            worker.stop()

        worker = build(queues=["news", "everyone"])
        # So that it is there to be spoken to.
        brokers["default"].fetch(["everyone"], 1, lease=30.0, consumer="w1")
        Meanwhile(worker, story)
        outbox = outboxes["default"]
        with transaction.atomic():
            astray = note.apply_async((1,), queue="news", routing_key="nowhere", enqueue="transaction")
            handles = [note.apply_async((n,), queue="news", enqueue="transaction") for n in range(3)]
        assert Relay(["default"], lease=30.0, consumer="w1").relay("default") == 4
        # What goes nowhere does not hold up the rest, and is not lost.
        assert [message.id for message in outbox.peek("news", 10)] == [astray.id]
        assert ids(gather(the_broker(), 3, "news")) == [handle.id for handle in handles]
        outbox.discard([astray.id])
        with transaction.atomic():
            astray = note.apply_async((1,), queue="news", routing_key="nowhere")
        assert [message.id for message in outbox.peek("news", 10)] == [astray.id]
        outbox.discard([astray.id])
        later = note.apply_async((9,), countdown=3600)
        [row] = QueuedMessage.objects.all()
        assert row.task_id == later.id
        [kept] = outbox.peek("news", 1)
        assert (kept.exchange, kept.routing_key) == ("events", "news.eu")
