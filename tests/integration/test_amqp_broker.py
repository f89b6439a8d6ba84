"""Does the AMQP broker keep what only a real RabbitMQ puts to the test?"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import amqp
import pytest

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.backends.links.frames import Content
from django_tasks.exceptions import BrokerFull, BrokerUnavailable
from django_tasks.message import Delivery, Message
from django_tasks.protocol import MALFORMED
from django_tasks.testing.contracts.harness import QUEUE, ids, sample, samples
from django_tasks.wire import to_wire
from tests.rabbit import NEVER, PATIENCE, Rabbit, gather, refused, take, until

each_type = pytest.mark.parametrize("rabbit", [{"QUEUE_TYPE": "classic"}, {"QUEUE_TYPE": "quorum"}], indirect=True)


@pytest.fixture
def rabbit(request: Any) -> Iterator[Rabbit]:
    rabbit = Rabbit(**getattr(request, "param", {}))
    yield rabbit
    rabbit.close()


@pytest.fixture
def broker(rabbit: Rabbit) -> AmqpBroker:
    return rabbit.open()


def published(broker: AmqpBroker, number: int) -> list[Delivery]:
    broker.publish(samples(number))
    return gather(broker, number)


def cut(broker: AmqpBroker) -> None:
    """Have the network end the connection that messages come through."""
    receiver: Any = broker._ends.receiver
    receiver._connection._connection.transport.sock.shutdown(socket.SHUT_RDWR)


def after_the_cut(broker: AmqpBroker) -> None:
    """Wait until it has been noticed."""
    until(lambda: refused(lambda: take(broker, 1, "nothing")))


def waiting(channel: amqp.Channel, name: str) -> int:
    return int(channel.queue_declare(name, passive=True).message_count)


def put(channel: amqp.Channel, name: str, body: bytes, headers: Any = None, **properties: Any) -> None:
    """Publish as another program would."""
    properties.setdefault("content_type", "application/json")
    channel.basic_publish(amqp.Message(body, application_headers=headers, **properties), "", name)


# Publishing


@each_type
def test_what_was_published_is_on_the_server_and_persistent(rabbit: Rabbit, broker: AmqpBroker):
    message = replace(sample(), priority=100, headers={"tenant": "blue"})
    broker.publish([message])
    with rabbit.channel() as channel:
        found = channel.basic_get(rabbit.name(QUEUE), no_ack=True)
        assert found.body == message.body.decode()
        assert found.properties["delivery_mode"] == 2
        assert found.properties["correlation_id"] == message.id
        assert found.properties["priority"] == 9
        assert found.properties["content_type"] == "application/json"
        assert "expiration" not in found.properties
        headers = found.properties["application_headers"]
        assert (headers["lang"], headers["task"], headers["tenant"]) == ("py", message.task, "blue")
        assert {"shadow", "eta", "expires", "group", "timelimit", "stamps"} <= headers.keys()


def test_a_queue_that_was_deleted_since_is_made_again_and_nothing_is_lost(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish(samples(1, "mail"))
    with rabbit.channel() as channel:
        channel.queue_delete(rabbit.name("mail"))
    sent = samples(3, "mail")
    broker.publish(sent)
    assert ids(gather(broker, 3, "mail")) == ids(sent)


def test_a_message_that_came_back_may_begin_as_a_delivery_or_a_confirm_does(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish(samples(1, "mail"))
    with rabbit.channel() as channel:
        channel.queue_delete(rabbit.name("mail"))
    sent = [replace(sample("mail"), body=b"\0\x3c\0" + kind + b"!" * 20) for kind in (b"\x3c", b"\x50", b"\x78")]
    broker.publish(sent)
    assert [one.message.body for one in gather(broker, 3, "mail")] == [one.body for one in sent]


def test_a_full_queue_says_so_and_keeps_what_it_has(rabbit: Rabbit):
    broker = rabbit.open(MAX_LENGTH=3)
    broker.publish(samples(3))
    with pytest.raises(BrokerFull):
        broker.publish(samples(1))
    assert [stats.ready for stats in broker.stats([QUEUE])] == [3]
    broker.ack(gather(broker, 1))
    broker.publish(samples(1))


def test_what_a_full_queue_does_not_take_back_is_given_back_all_the_same(rabbit: Rabbit):
    broker = rabbit.open(MAX_LENGTH=2)
    [held] = published(broker, 1)
    broker.publish(samples(2))
    assert broker.nack([held]) == [held]
    assert held.message.id in ids(gather(broker, 3))


def test_a_dead_connection_of_a_publisher_is_replaced_unseen(broker: AmqpBroker):
    sender: Any = broker._ends.sender
    broker.publish(samples(1))
    for how in (socket.SHUT_RDWR, socket.SHUT_WR):
        sender._idle[0].connection._connection.transport.sock.shutdown(how)
        broker.publish(samples(1))
    assert len(gather(broker, 3)) == 3


def test_idle_connections_of_publishers_are_few(broker: AmqpBroker):
    sender: Any = broker._ends.sender
    threads = [threading.Thread(target=broker.publish, args=(samples(200),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert 1 <= len(sender._idle) <= 4
    assert len(gather(broker, 1600)) == 1600


def test_an_expiry_is_told_to_the_server_only_when_that_is_asked_for(rabbit: Rabbit):
    soon = datetime.now(UTC) + timedelta(hours=1)
    for drop in (False, True):
        rabbit.open(DROP_EXPIRED=drop).publish([replace(sample(), expires=soon)])
    with rabbit.channel() as channel:
        told = [channel.basic_get(rabbit.name(QUEUE), no_ack=True).properties.get("expiration") for _ in range(2)]
    assert told[0] is None
    assert 3_500_000 < int(told[1]) <= 3_600_000


# Fetching


@each_type
def test_a_worker_holds_no_more_than_it_asked_for(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish(samples(100))
    assert len(gather(broker, 5)) == 5
    with rabbit.channel() as channel:
        until(lambda: waiting(channel, rabbit.name(QUEUE)) == 95)
    assert len(gather(rabbit.open(), 95)) == 95


def test_the_highest_of_ten_levels_goes_first_and_in_it_the_oldest(broker: AmqpBroker):
    order = (0, -100, 100, 50, -50, 0, 100, -100)
    sent = [replace(sample(), priority=priority) for priority in order]
    broker.publish(sent)
    expected = sorted(sent, key=lambda message: -message.priority)
    assert ids(gather(broker, 3)) + ids(gather(broker, 5)) == ids(expected)


def test_what_comes_back_goes_before_all_that_waits(broker: AmqpBroker):
    broker.publish([replace(sample(), priority=100) for _ in range(5)])
    [first] = gather(broker, 1)
    broker.nack([first])
    assert ids(gather(broker, 1)) == [first.message.id]


@each_type
def test_losses_are_counted_however_often_a_worker_dies(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish(samples(1))
    for number in (1, 2, 3, 4):
        [delivery] = gather(broker, 1)
        assert delivery.deliveries == number
        cut(broker)
        after_the_cut(broker)


def test_who_got_less_than_asked_for_since_some_was_lost_before_is_told_at_once_that_there_is_more(
    rabbit: Rabbit, broker: AmqpBroker
):
    broker.publish(samples(1))
    gather(broker, 1)
    cut(broker)
    after_the_cut(broker)
    broker.publish(samples(3))
    other = rabbit.open()
    assert len(take(other, 2)) == 1, "the lost one went back to be counted"
    assert other.wait([QUEUE], 0.0, threading.Event())
    assert len(gather(other, 3)) == 3


def test_an_id_that_runs_here_is_not_run_beside_itself(rabbit: Rabbit, broker: AmqpBroker):
    message = sample()
    broker.publish([message, message])
    [delivery] = gather(broker, 1)
    assert take(broker) == []
    broker.ack([delivery])
    assert take(broker) == []
    with rabbit.channel() as channel:
        assert waiting(channel, rabbit.name(QUEUE)) == 0


def test_a_queue_that_celery_declared_is_used_as_it_is(rabbit: Rabbit, broker: AmqpBroker):
    with rabbit.channel() as channel:
        for queue in ("plain", "odd"):
            arguments = {"x-max-priority": 3} if queue == "odd" else None
            channel.queue_declare(rabbit.name(queue), durable=True, auto_delete=False, arguments=arguments)
    sent = [*samples(2, "plain"), *samples(2, "odd"), *samples(2, "own")]
    broker.publish(sent)
    assert sorted(ids(gather(broker, 6, "plain", "odd", "own"))) == sorted(ids(sent))


def test_a_queue_that_cannot_be_had_does_not_stop_the_others(rabbit: Rabbit):
    broker = rabbit.open(PREFIX="")
    rabbit.uses("own")
    mine = f"{rabbit.prefix}own"
    broker.publish(samples(1, mine))
    assert len(gather(broker, 1, "amq.forbidden", mine)) == 1
    with pytest.raises(BrokerUnavailable, match=r"amq\.forbidden"):
        take(broker, 1, "amq.forbidden")
    broker._queues.pop("amq.forbidden")


def test_a_message_that_came_for_a_worker_without_use_for_it_goes_back(rabbit: Rabbit, broker: AmqpBroker):
    assert take(broker) == []
    broker.publish(samples(1))
    assert broker.wait([QUEUE], PATIENCE, NEVER) is True
    other = rabbit.open()
    assert take(other) == []
    NEVER.wait(1.1)
    broker.wait([QUEUE], 0.0, NEVER)
    [delivery] = gather(other, 1)
    assert delivery.deliveries == 1


def test_what_a_worker_puts_back_when_it_leaves_does_not_come_to_itself(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish([sample()])
    taken = gather(broker, 1)
    # It looks out for more, with a slot free.
    take(broker)
    assert not broker.wait([QUEUE], 0.1, NEVER)
    assert broker.nack(taken) == taken
    other = rabbit.open()
    [again] = gather(other, 1)
    assert again.deliveries == 1


def test_what_came_to_a_worker_that_leaves_is_not_taken_for_lost(rabbit: Rabbit, broker: AmqpBroker):
    take(broker)
    assert not broker.wait([QUEUE], 0.1, NEVER)
    other = rabbit.open()
    other.publish([sample()])
    assert broker.wait([QUEUE], PATIENCE, NEVER)
    broker.close()
    [only] = gather(other, 1)
    assert only.deliveries == 1


def test_a_deleted_queue_is_made_again_under_who_waits_for_it(rabbit: Rabbit, broker: AmqpBroker):
    assert take(broker) == []
    until(lambda: not broker.wait([QUEUE], 0.05, NEVER))
    with rabbit.channel() as channel:
        channel.queue_delete(rabbit.name(QUEUE))
    until(lambda: not broker.wait([QUEUE], 0.05, NEVER))
    rabbit.open().publish(samples(1))
    assert broker.wait([QUEUE], PATIENCE, NEVER) is True
    assert len(gather(broker, 1)) == 1


# Waiting for a time


@each_type
def test_a_delay_of_several_steps_is_never_too_short(broker: AmqpBroker):
    began = time.monotonic()
    broker.publish([replace(sample(), countdown=1.42)])  # 1280 ms, 100 ms and 50 ms
    [delivery] = gather(broker, 1)
    assert time.monotonic() - began >= 1.4
    assert delivery.deliveries == 1


def test_what_celery_sends_for_later_waits(rabbit: Rabbit, broker: AmqpBroker):
    later = replace(sample(), eta=datetime.now(UTC) + timedelta(seconds=0.8))
    broker.publish(samples(1))
    broker.ack(gather(broker, 1))
    wire = to_wire(later)
    with rabbit.channel() as channel:
        put(channel, rabbit.name(QUEUE), later.body, wire.headers, correlation_id=later.id)
    assert take(broker) == []
    with rabbit.channel() as channel:
        until(lambda: waiting(channel, rabbit.name(QUEUE)) == 0)
    [delivery] = gather(broker, 1)
    assert later.eta is not None
    assert delivery.message.id == later.id
    assert datetime.now(UTC) >= later.eta


def test_a_purge_takes_what_is_delayed_as_well(broker: AmqpBroker, rabbit: Rabbit):
    broker.publish([*samples(2), *(replace(sample(), countdown=countdown) for countdown in (0.8, 60, 10**6))])
    assert rabbit.open().purge(QUEUE) == 5


# What others send


@pytest.mark.parametrize(
    ("body", "headers", "properties"),
    [
        (b"", None, {}),
        (b"\x80\x04junk", None, {"content_type": "application/x-python-serialize", "content_encoding": "binary"}),
        (json.dumps({"task": "old", "id": "1", "args": [], "kwargs": {}}).encode(), {}, {}),
        (b"[[], {}, {}]", {"task": "t", "id": "x", "retries": "many"}, {}),
        (b"[[], {}, {}]", {"task": 5, "id": None}, {"correlation_id": "y"}),
        (b"[[], {}, {}]", {"id": "x" * 300, "task": "t"}, {}),
    ],
)
def test_a_message_that_cannot_be_read_is_handed_over_as_such(
    rabbit: Rabbit, broker: AmqpBroker, body: bytes, headers: Any, properties: Any
):
    broker.publish(samples(1))
    with rabbit.channel() as channel:
        put(channel, rabbit.name(QUEUE), body, headers, **properties)
    found = gather(broker, 2)
    [odd] = [delivery for delivery in found if delivery.message.content_type == MALFORMED]
    assert odd.message.body == body
    assert odd.message.queue == QUEUE
    assert broker.nack([odd], spent=True) == [odd]
    [again] = gather(broker, 1)
    assert (again.message.content_type, again.deliveries) == (MALFORMED, 2)
    assert broker.ack([again]) == [again]


@each_type
def test_when_a_message_without_a_date_was_first_seen_outlasts_being_put_back_and_a_lost_worker(rabbit: Rabbit):
    now = time.time()
    times = iter([now, now + 5, now + 7, now + 9])
    broker = rabbit.open(clock=lambda: now)
    broker.publish(samples(1))
    broker.ack(gather(broker, 1))
    wire = to_wire(sample())
    del wire.headers["created_at"]
    with rabbit.channel() as channel:
        put(channel, rabbit.name(QUEUE), b"[[], {}, {}]", wire.headers)
    for moment in times:
        worker = rabbit.open(clock=lambda moment=moment: moment)  # type: ignore[misc]
        [delivery] = gather(worker, 1)
        assert (delivery.message.created_at, delivery.seen_at) == (None, now)
        if moment == now + 7:
            cut(worker)
        else:
            assert worker.nack([delivery], delay=0.05) == [delivery]
            worker.close()


def test_a_message_that_says_when_it_was_sent_needs_no_other_date(broker: AmqpBroker):
    [delivery] = published(broker, 1)
    assert delivery.message.created_at is not None
    assert delivery.seen_at is None


def test_notes_of_the_server_on_a_message_do_not_travel_on(rabbit: Rabbit, broker: AmqpBroker):
    broker.publish([replace(sample(), countdown=0.1, headers={"x-request-id": "7"})])
    [delivery] = gather(broker, 1)
    assert delivery.message.headers == {"x-request-id": "7"}
    broker.nack([delivery])
    with rabbit.channel() as channel:
        until(lambda: waiting(channel, rabbit.name(QUEUE)) == 1)
        found = channel.basic_get(rabbit.name(QUEUE), no_ack=True)
    headers = found.properties["application_headers"]
    assert [name for name in headers if name.startswith("x-")] == ["x-request-id"]


@each_type
def test_a_task_is_tried_again_later_time_after_time(broker: AmqpBroker):
    broker.publish(samples(1))
    for retries in (0, 1, 2):
        [delivery] = gather(broker, 1)
        assert delivery.message.retries == retries
        broker.replace([(delivery, replace(delivery.message, retries=retries + 1, countdown=0.05))])


# Losing the connection


@each_type
def test_after_a_lost_connection_nothing_old_counts_and_all_queues_are_served_again(rabbit: Rabbit, broker: AmqpBroker):
    sent = [*samples(3), *samples(3, "mail")]
    broker.publish(sent)
    held = gather(broker, 6, QUEUE, "mail")
    assert broker.extend(held, 30.0) == held
    cut(broker)
    after_the_cut(broker)
    assert broker.extend(held, 30.0) == []
    assert broker.ack(held) == []
    assert broker.nack(held) == []
    assert broker.replace([(held[0], replace(held[0].message, queue="elsewhere"))]) == []
    again = gather(broker, 6, QUEUE, "mail")
    assert sorted(ids(again)) == sorted(ids(sent))
    assert {delivery.deliveries for delivery in again} == {2}
    assert broker.ack(again) == again
    assert take(broker, 10, "elsewhere") == []


def test_who_waits_is_woken_after_a_lost_connection_as_well(rabbit: Rabbit, broker: AmqpBroker):
    until(lambda: not broker.wait([QUEUE], 0.05, NEVER))
    cut(broker)
    rabbit.open().publish(samples(1))
    until(lambda: broker.wait([QUEUE], 0.2, NEVER))
    assert len(gather(broker, 1)) == 1


def test_an_idle_connection_stays_open_by_itself(rabbit: Rabbit):
    broker = rabbit.open(HEARTBEAT=1)
    held = published(broker, 2)
    # The server ends a connection from which it has heard nothing for two intervals.
    NEVER.wait(4.0)
    assert broker.ack(held) == held


def test_another_server_is_asked_when_the_first_does_not_answer(rabbit: Rabbit):
    broker = rabbit.open(url=f"amqp://127.0.0.1:1; {rabbit.url}")
    assert broker.ack(published(broker, 2))


def test_a_wrong_password_is_told_and_not_shown(rabbit: Rabbit):
    broker = rabbit.open(url="amqp://guest:CANARY@" + rabbit.url.partition("@")[2])
    with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED") as caught:
        broker.publish(samples(1))
    assert "CANARY" not in str(caught.value)


# Processes


def test_a_forked_process_has_connections_of_its_own(rabbit: Rabbit, broker: AmqpBroker):
    held = published(broker, 2)
    child = os.fork()
    if child == 0:
        try:
            broker.publish(samples(3))
            mine = broker.ack(held)
            found = broker.ack(gather(broker, 3))
            os._exit(0 if (len(mine), len(found)) == (0, 3) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert broker.ack(held) == held
    broker.publish(samples(1))
    assert len(gather(broker, 1)) == 1


def test_a_process_that_did_not_fetch_leaves_what_it_is_asked_to_renew_alone(rabbit: Rabbit):
    foreign = [Delivery(Message(id="x", task="", body=b""), ("1.abcdef", 1))]
    assert rabbit.unreachable().extend(foreign, 30.0) == foreign


# Frames


def test_a_body_in_many_frames_and_a_bare_one_come_through_whichever_way_they_are_read(broker: AmqpBroker):
    sent = [replace(sample(), body=body) for body in (b"", b"x" * 500_000, b"", b"y")]
    broker.publish(sent)
    receiver: Any = broker._ends.receiver
    found = gather(broker, 4)
    assert [delivery.message.body for delivery in found] == [one.body for one in sent]
    # py-amqp reads what comes while it waits for an answer to something else.
    broker.nack(found)
    assert len(gather(broker, 4)) == 4
    assert not receiver._connection.inbox.contents
    assert Content.__slots__
