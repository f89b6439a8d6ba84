"""What does the Redis broker do when its server goes, refuses or is cut off?"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import pytest
import redis

from django_tasks.backends.redis import RedisBroker
from django_tasks.exceptions import BrokerFull, BrokerUnavailable
from django_tasks.message import Delivery, Message
from django_tasks.testing.contracts.harness import ids, sample, samples, together
from tests import redises
from tests.redises import open_broker, take
from tests.wires import Wire, cut_everywhere, wire_to
from tools.servers import PrivateRedis

PATIENCE = 20.0


@pytest.fixture
def server(redis_server: PrivateRedis) -> PrivateRedis:
    return redis_server


@pytest.fixture
def broker(redis_broker: RedisBroker) -> RedisBroker:
    return redis_broker


# Servers that come and go


def test_nothing_is_lost_when_a_server_with_a_file_is_killed_or_restarted():
    with redises.broker_on_its_own("--appendonly", "yes", "--appendfsync", "everysec") as (server, broker):
        sent = samples(30)
        broker.publish(sent)
        held = take(broker, 10)
        for kill in (False, True):
            server.stop(kill=kill)
            with pytest.raises(BrokerUnavailable):
                broker.ack(held)
            server.start()
        assert broker.ack(held) == held
        assert ids(take(broker)) == ids(sent[10:])


def test_who_waits_while_the_server_restarts_is_woken_after_it():
    with redises.broker_on_its_own() as (server, broker):
        woken, stop = Event(), Event()

        def listen() -> None:
            while not stop.is_set():
                if broker.wait(["default"], 1.0, stop):
                    woken.set()

        thread = threading.Thread(target=listen)
        thread.start()
        server.stop(kill=True)
        server.start()
        woken.clear()
        broker.publish(samples(1))
        assert woken.wait(PATIENCE)
        stop.set()
        thread.join(PATIENCE)


def test_scripts_that_were_flushed_are_sent_again(broker, client):
    broker.publish(samples(2))
    client.script_flush()
    held = take(broker)
    client.script_flush()
    assert broker.ack(held) == held


def test_connections_that_are_killed_are_replaced_unseen(broker, client):
    broker.publish(samples(3))
    together(*[broker.stats] * 4)
    for kind in ("normal", "pubsub"):
        broker.wait(["default"], 0.0, Event())
        client.client_kill_filter(_type=kind, skipme=True)
        held = take(broker, 1)
        assert broker.ack(held) == held
    broker.wait(["default"], 0.0, Event())
    client.client_kill_filter(_type="pubsub", skipme=True)
    broker.publish(samples(1))
    assert broker.wait(["default"], PATIENCE, Event())


def test_a_server_that_is_silent_is_given_up_after_a_while():
    with (
        redises.broker_on_its_own(CONNECTION={"socket_timeout": 0.2}) as (server, broker),
        redises.direct(server.url) as client,
    ):
        broker.publish(samples(1))
        client.client_pause(60_000)
        for verb in (lambda: take(broker), lambda: broker.publish(samples(1))):
            with pytest.raises(BrokerUnavailable, match="[Tt]imeout"):
                verb()


def test_a_server_that_still_reads_its_file_is_waited_for():
    slowly = ("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024")
    with redises.broker_on_its_own(*slowly) as (server, broker), redises.direct(server.url) as client:
        sent = samples(3)
        broker.publish(sent)
        client.mset({f"key {number}": os.urandom(2_000) for number in range(400)})
        client.save()
        server.stop()
        starting = threading.Thread(target=server.start)
        starting.start()
        said = ""
        while "loading" not in said.lower():
            with pytest.raises(BrokerUnavailable) as caught:
                take(broker)
            said = str(caught.value)
        redises.until(lambda: client.config_set("key-load-delay", 0), "it is told to hurry")
        starting.join(PATIENCE)
        assert ids(take(broker)) == ids(sent)


# Servers that refuse


def test_a_server_without_memory_refuses_new_messages_and_lets_old_ones_out():
    with redises.broker_on_its_own("--maxmemory", "8mb", "--maxmemory-policy", "noeviction") as (_, broker):
        sent: list[Message] = []

        def fill() -> None:
            while len(sent) < 30:
                message = replace(sample(), body=bytes(500_000))
                broker.publish([message])
                sent.append(message)

        with pytest.raises(BrokerFull, match="maxmemory"):
            fill()
        held = take(broker, 3)
        assert broker.extend(held, 60) == held
        assert broker.nack(held[:1]) == held[:1]
        with pytest.raises(BrokerFull):
            broker.replace([(held[1], held[1].message)])
        assert broker.ack(held[1:]) == held[1:]
        assert len(broker.discard(ids(sent))) == len(sent) - 2
        broker.publish(samples(1))


def test_of_a_large_batch_that_does_not_fit_nothing_stays():
    with redises.broker_on_its_own("--maxmemory", "40mb", "--maxmemory-policy", "noeviction") as (_, broker):
        before = samples(1)
        broker.publish(before)
        body = bytes(60_000_000)
        with pytest.raises(BrokerFull):
            broker.publish([*before, *samples(20_000), replace(sample(), body=body), replace(sample(), body=body)])
        assert ids(broker.peek("default", 10)) == ids(before)


def test_a_server_that_cannot_write_to_its_disk_refuses_messages():
    with redises.broker_on_its_own("--save", "100000 1") as (server, broker), redises.direct(server.url) as client:
        broker.publish(samples(1))
        in_the_way = server.data / "dump.rdb" / "directory"
        in_the_way.mkdir(parents=True)
        redises.save(client)
        with pytest.raises(BrokerFull, match="MISCONF"):
            broker.publish(samples(1))
        with pytest.raises(BrokerUnavailable, match="MISCONF"):
            take(broker)
        in_the_way.rmdir()
        in_the_way.parent.rmdir()
        redises.save(client)
        assert len(take(broker)) == 1


def test_a_server_that_has_become_a_replica_is_left(broker, client):
    broker.publish(samples(1))
    client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(BrokerUnavailable, match="read only|READONLY"):
            broker.publish(samples(1))
    finally:
        client.replicaof("NO", "ONE")
    broker.publish(samples(1))
    assert len(take(broker)) == 2


def test_a_server_that_is_busy_with_a_script_is_tried_later(broker, client, server):
    client.config_set("busy-reply-threshold", 50)
    broker.publish(samples(1))
    error: list[Exception] = []

    def hog() -> None:
        with redises.direct(server.url) as other:
            try:
                other.eval("while true do end", 0)
            except redis.RedisError as raised:
                error.append(raised)

    def ask() -> None:
        while True:
            broker.stats(["default"])

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        with pytest.raises(BrokerUnavailable, match="BUSY|busy"):
            ask()
    finally:
        client.script_kill()
        thread.join(PATIENCE)
    assert error
    assert len(take(broker)) == 1


# Connections that break


@pytest.fixture
def wire(server: PrivateRedis) -> Iterator[Wire]:
    with wire_to("127.0.0.1", server.port) as wire:
        yield wire


@pytest.fixture
def cut_broker(wire: Wire, client: redis.Redis) -> Iterator[RedisBroker]:
    broker = open_broker(f"redis://127.0.0.1:{wire.port}", "q")
    broker.stats(["default"])
    take(broker)
    yield broker
    broker.close()


def test_who_waits_on_connections_that_are_open_and_dead_is_woken_all_the_same(wire, broker, client):
    """A firewall that forgot a connection tells nobody."""
    waiting = open_broker(f"redis://127.0.0.1:{wire.port}", "q", CONNECTION={"socket_timeout": 0.5})
    waiting.wait(["default"], 0.0, Event())
    wire.hush()
    broker.publish(samples(1))
    assert waiting.wait(["default"], PATIENCE, Event())
    assert len(take(waiting)) == 1
    waiting.close()


def test_a_publish_whose_answer_is_cut_queues_each_message_once(wire, cut_broker, broker, client):
    def prepare() -> list[Message]:
        client.flushall()
        return samples(3)

    for sent, _ in cut_everywhere(wire, prepare, cut_broker.publish):
        assert ids(take(broker)) == ids(sent)


def test_a_fetch_whose_answer_is_cut_brings_each_message_at_once_and_counts_no_delivery(
    wire, cut_broker, broker, client
):
    def prepare() -> list[Message]:
        client.flushall()
        sent = samples(2)
        broker.publish(sent)
        return sent

    for sent, held in cut_everywhere(wire, prepare, lambda _: take(cut_broker)):
        assert [(one.message.id, one.deliveries) for one in held] == [(one.id, 1) for one in sent]
        assert broker.ack(held) == held


@pytest.mark.parametrize(
    ("verb", "left"),
    [
        (lambda broker, held: broker.ack(held), (0, 0, 0)),
        (lambda broker, held: broker.nack(held), (2, 0, 0)),
        (lambda broker, held: broker.nack(held, delay=60, spent=True), (0, 2, 0)),
        (lambda broker, held: broker.extend(held, 60), (0, 0, 2)),
        (lambda broker, held: broker.replace([(one, one.message) for one in held]), (2, 0, 0)),
    ],
    ids=["ack", "nack", "nack later", "extend", "replace"],
)
def test_a_change_whose_answer_is_cut_is_made_once(wire, cut_broker, broker, client, verb, left):
    def prepare() -> list[Delivery]:
        client.flushall()
        broker.publish(samples(2))
        return take(broker)

    for _, _ in cut_everywhere(wire, prepare, lambda held: verb(cut_broker, held)):
        [stats] = broker.stats(["default"])
        assert (stats.ready, stats.delayed, stats.leased) == left


def test_a_connection_that_was_made_before_a_fork_is_not_used_after_it(broker, client):
    sent = samples(40)
    broker.publish(sent)
    broker.wait(["default"], 0.0, Event())
    read, write = os.pipe()
    children = []
    for _ in range(3):
        with warnings.catch_warnings():
            # Other threads of this process mean nothing to the child.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                held = [one for _ in range(10) for one in take(broker, 1)]
                broker.wait(["default"], 0.0, Event())
                os.write(write, "".join(f"{one}\n" for one in ids(broker.ack(held))).encode())
            finally:
                os._exit(0)
        children.append(child)
    mine = [one for _ in range(10) for one in take(broker, 1)]
    assert broker.ack(mine) == mine
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    os.close(write)
    with os.fdopen(read) as told:
        assert sorted([*told.read().split(), *ids(mine)]) == sorted(ids(sent))
    broker.publish(samples(1))
    assert broker.wait(["default"], PATIENCE, Event())
