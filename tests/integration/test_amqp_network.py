"""What does the AMQP broker do when the network cuts a connection at any byte, or swallows what comes back?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.backends.links import frames
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Delivery, Message
from django_tasks.testing.contracts.harness import QUEUE, ids, sample, samples
from tests import rabbit as rabbits
from tests.rabbit import Rabbit, refused, take, until
from tests.settings import AMQP_URL
from tests.wires import Wire, wire_to

SHORT_STEP, STEP, LONG_STEP = 4, 23, 71
"""Bytes between two places where an exchange is cut, by its length."""

_parts = urlsplit(AMQP_URL)
SERVER = str(_parts.hostname), _parts.port or 5672


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    rabbit = Rabbit(HEARTBEAT=600)
    yield rabbit
    rabbit.close()


@pytest.fixture
def broker(rabbit: Rabbit) -> AmqpBroker:
    """Return a broker that nothing happens to."""
    return rabbit.open()


@pytest.fixture
def wire() -> Iterator[Wire]:
    with wire_to(*SERVER) as wire:
        yield wire


def through(*wires: Wire) -> str:
    """Return a URL that leads through each of some wires."""
    account = _parts.netloc.rpartition("@")[0]
    return ";".join(_parts._replace(netloc=f"{account}@127.0.0.1:{wire.port}").geturl() for wire in wires)


# Whatever happens to the connection on the way.
gather = partial(rabbits.gather, through=(BrokerUnavailable,))


# Cut inside


def test_a_publish_whose_confirm_is_cut_anywhere_loses_nothing(rabbit: Rabbit, broker: AmqpBroker, wire: Wire):
    publisher = rabbit.open(url=through(wire))
    publisher.publish(samples(1))
    before = wire.answered
    publisher.publish(samples(1))
    broker.ack(gather(broker, 2))
    for place in range(wire.answered - before):
        message, cuts = sample(), wire.cuts
        wire.cut_after(place)
        publisher.publish([message])
        assert wire.cuts == cuts + 1
        # The server had it, and cannot know that it is the same one: it may be there twice, and under one id.
        assert set(ids(drained(broker))) == {message.id}


def test_a_message_that_is_cut_on_its_way_is_sent_again_and_is_there_once(
    rabbit: Rabbit, broker: AmqpBroker, wire: Wire
):
    publisher = rabbit.open(url=through(wire))
    publisher.publish(samples(1))
    before = wire.asked
    publisher.publish(samples(1))
    broker.ack(gather(broker, 2))
    for place in range(0, wire.asked - before, STEP):
        message, cuts = sample(), wire.cuts
        wire.cut_after_asking(place)
        publisher.publish([message])
        assert wire.cuts == cuts + 1
        assert ids(drained(broker)) == [message.id]


def test_a_message_that_came_back_is_sent_again_though_the_connection_is_cut_right_after(
    rabbit: Rabbit, broker: AmqpBroker, wire: Wire
):
    """The server confirms it all the same, as one that it keeps."""
    publisher = rabbit.open(url=through(wire))
    publisher.publish([*samples(1), *samples(1, "gone")])
    before = wire.asked
    publisher.publish(samples(1, "gone"))
    # It comes back as it was sent, but that the words before it are longer. Both confirms follow.
    returned, confirm = wire.asked - before + 8, len(frames.ack(1, 1, multiple=False))
    for late in range(0, 2 * confirm, SHORT_STEP):
        broker.ack(take(broker, 1000, QUEUE, "gone"))
        with rabbit.channel() as channel:
            channel.queue_delete(rabbit.name("gone"))
        sent, cuts = [*samples(1, "gone"), *samples(1)], wire.cuts
        wire.cut_after(returned + late)
        publisher.publish(sent)
        assert wire.cuts == cuts + 1
        found = gather(broker, 2, QUEUE, "gone")
        broker.ack(found)
        assert {*ids(found), *ids(take(broker, 10, QUEUE, "gone"))} == set(ids(sent))


def drained(broker: AmqpBroker, *queues: str) -> list[Delivery]:
    """Take and acknowledge all that is there, which is one at least."""
    found = gather(broker, 1, *queues)
    broker.ack(found)
    while more := take(broker, 1000, *queues):
        found += more
        broker.ack(more)
    return found


def test_a_fetch_that_is_cut_anywhere_loses_nothing(rabbit: Rabbit, broker: AmqpBroker, wire: Wire):
    worker = rabbit.open(url=through(wire))

    def prepare() -> list[Message]:
        assert take(worker) == []
        sent = samples(2)
        broker.publish(sent)
        return sent

    prepare()
    before = wire.answered
    assert worker.ack(take(worker)) != []
    for place in range(0, wire.answered - before, LONG_STEP):
        sent = prepare()
        wire.cut_after(place)
        held = gather(worker, 2)
        wire.cut_after(1 << 30)
        assert sorted(ids(held)) == sorted(ids(sent))
        assert all(one.deliveries <= 2 for one in held)
        assert worker.ack(held) == held
    assert wire.cuts > 10
    until(lambda: broker.stats([QUEUE])[0].ready == 0)


def test_an_acknowledgement_that_is_cut_on_its_way_brings_the_message_again(
    rabbit: Rabbit, broker: AmqpBroker, wire: Wire
):
    worker = rabbit.open(url=through(wire))
    for place in range(0, len(frames.ack(1, 1, multiple=False)), SHORT_STEP):
        broker.publish([message := sample()])
        [delivery] = gather(worker, 1)
        # When a question was answered, nothing that was said before is still on its way.
        worker.stats([QUEUE])
        cuts = wire.cuts
        wire.cut_after_asking(place)
        assert worker.ack([delivery]) == [delivery]
        until(lambda: wire.cuts > cuts)  # noqa: B023  # at once
        # Said again, it is no longer held: what it says counts for nothing.
        assert refused(lambda: worker.ack([delivery])) or worker.ack([delivery]) == []  # noqa: B023
        [again] = gather(worker, 1)
        assert (again.message.id, again.deliveries) == (message.id, 2)
        assert worker.ack([again]) == [again]


def test_a_batch_that_is_cut_half_way_is_told_and_whole_when_it_is_sent_again(
    rabbit: Rabbit, broker: AmqpBroker, wire: Wire
):
    publisher = rabbit.open(url=through(wire))
    publisher.publish(samples(1))
    broker.ack(gather(broker, 1))
    sent = samples(3000)
    wire.cut_after_asking(500_000, last=True)
    with pytest.raises(BrokerUnavailable):
        publisher.publish(sent)
    reopened = Wire(SERVER, wire.port)
    try:
        publisher.publish(sent)
        found = ids(drained(broker))
    finally:
        reopened.close()
    assert set(found) == set(ids(sent))
    assert len(sent) < len(found) < 2 * len(sent)


# Half open


def test_a_worker_whose_server_falls_silent_notices_by_its_heartbeat_and_goes_on(
    rabbit: Rabbit, broker: AmqpBroker, wire: Wire
):
    worker = rabbit.open(url=through(wire), HEARTBEAT=1)
    broker.publish(samples(2))
    held = gather(worker, 2)
    began = time.monotonic()
    wire.hush()
    until(lambda: worker.extend(held, 30.0) == [])
    # The system alone would take minutes to find out.
    assert 1.0 < time.monotonic() - began < 10.0
    assert worker.ack(held) == []
    again = gather(worker, 2)
    assert sorted(ids(again)) == sorted(ids(held))
    assert {one.deliveries for one in again} == {2}
    assert worker.ack(again) == again


def test_a_publisher_whose_server_falls_silent_is_told_in_time(rabbit: Rabbit, broker: AmqpBroker, wire: Wire):
    assert broker.settings.publish_timeout == 5
    publisher = rabbit.open(url=through(wire), PUBLISH_TIMEOUT=0.3)
    publisher.publish(samples(1))
    wire.hush()
    with pytest.raises(BrokerUnavailable, match=r"not confirmed within 0\.3 seconds"):
        publisher.publish(samples(1))
    # Not over the same connection: there an answer to the one before might come.
    publisher.publish(samples(1))
    assert len(gather(broker, 3)) == 3


# Several servers


def test_the_next_server_takes_over_within_seconds_and_the_first_again_when_that_fails(
    rabbit: Rabbit, broker: AmqpBroker, wire: Wire
):
    with wire_to(*SERVER) as second:
        worker = rabbit.open(url=through(wire, second))
        worker.publish(samples(2))
        held = gather(worker, 2)
        assert second.connections == 0
        began = time.monotonic()
        wire.close()
        worker.publish(samples(1))
        again = gather(worker, 3)
        assert time.monotonic() - began < 5.0
        assert second.connections == 2
        assert set(ids(held)) < set(ids(again))
        assert worker.ack(again) == again
        first = Wire(SERVER, wire.port)
        try:
            second.close()
            began = time.monotonic()
            worker.publish(samples(1))
            assert worker.ack(gather(worker, 1))
            assert time.monotonic() - began < 5.0
            assert first.connections == 2
        finally:
            first.close()


def test_a_server_that_takes_connections_and_says_nothing_is_passed_over(rabbit: Rabbit, broker: AmqpBroker):
    assert broker.settings.connect_timeout == 3
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port: int = mute.getsockname()[1]
        found: Any = rabbit.open(url=f"amqp://127.0.0.1:{port};{rabbit.url}", CONNECT_TIMEOUT=0.3)
        found.publish(samples(1))
        assert found.ack(gather(found, 1))
