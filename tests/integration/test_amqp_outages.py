"""What does the AMQP broker do when its server is full, freezes, closes connections or dies?

On a server of its own, started once for all of these.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from django_tasks import states
from django_tasks.backends.amqp import AmqpBroker
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, PublishError, ResultTooLarge, StoreUnavailable
from django_tasks.message import Delivery
from django_tasks.plan import Result
from django_tasks.results.rpc import RpcStore
from django_tasks.testing.contracts.harness import QUEUE, ids, sample, samples
from tests.rabbit import Rabbit, until
from tools.servers import PrivateRabbitMQ, private

PATIENCE = 60.0
NEVER = threading.Event()

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRabbitMQ]:
    with private(PrivateRabbitMQ) as server:
        yield server


@pytest.fixture
def rabbit(server: PrivateRabbitMQ) -> Iterator[Rabbit]:
    rabbit = Rabbit(server.url)
    yield rabbit
    rabbit.close()


def gather(broker: AmqpBroker, number: int, *queues: str) -> list[Delivery]:
    """Fetch until so many have come, whatever the server does meanwhile."""
    found: list[Delivery] = []
    said = ""
    deadline = time.monotonic() + PATIENCE
    while len(found) < number:
        assert time.monotonic() < deadline, f"{len(found)} of {number} came; {said}"
        try:
            fetched = broker.fetch(queues or [QUEUE], number - len(found), lease=30.0, consumer="w")
        except BrokerUnavailable as error:
            fetched, said = [], str(error)
        found += fetched
        if not fetched:
            broker.wait(queues or [QUEUE], 0.1, NEVER)
    return found


def test_a_server_out_of_memory_stops_publishers_for_a_moment_and_consumers_not_at_all(
    server: PrivateRabbitMQ, rabbit: Rabbit
):
    broker = rabbit.open(PUBLISH_TIMEOUT=1)
    broker.publish(samples(20))
    held = gather(broker, 10)
    server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        began = time.monotonic()
        with pytest.raises(BrokerFull, match="alarm"):
            broker.publish(samples(1))
        assert time.monotonic() - began < 5.0
        assert "django_tasks.E122" in {one.id for one in broker.diagnose([QUEUE]).found}
        assert broker.ack(held[:5]) == held[:5]
        assert broker.nack(held[5:]) == held[5:]
        assert len(gather(broker, 15)) == 15
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")
    until(lambda: "django_tasks.E122" not in {one.id for one in broker.diagnose([QUEUE]).found})
    broker.publish(samples(1, "after"))
    assert len(gather(broker, 1, "after")) == 1


def test_connections_that_an_operator_closes_are_opened_again(server: PrivateRabbitMQ, rabbit: Rabbit):
    broker, publisher = rabbit.open(), rabbit.open()
    publisher.publish([*samples(2), *samples(2, "mail")])
    held = gather(broker, 4, QUEUE, "mail")
    server.control("close_all_connections", "as told")
    publisher.publish(samples(1))
    found = gather(broker, 5, QUEUE, "mail")
    assert broker.ack(held) == []
    assert broker.ack(found) == found


def test_a_frozen_server_is_not_waited_for(server: PrivateRabbitMQ, rabbit: Rabbit):
    broker = rabbit.open(PUBLISH_TIMEOUT=1)
    broker.publish(samples(1))
    assert server._process is not None
    os.killpg(server._process.pid, signal.SIGSTOP)
    try:
        began = 0.0
        with pytest.raises(BrokerUnavailable, match="not confirmed"):  # noqa: PT012  # it may take a moment to freeze
            while True:
                began = time.monotonic()
                broker.publish(samples(1))
        assert time.monotonic() - began < 5.0
    finally:
        os.killpg(server._process.pid, signal.SIGCONT)
    broker.publish(samples(1))
    assert len(gather(broker, 2)) >= 2


def test_what_was_confirmed_survives_a_killed_server_and_consumption_goes_on(server: PrivateRabbitMQ, rabbit: Rabbit):
    # Of classic queues: RabbitMQ 3.10 forgets a quorum queue that was declared less than a minute before it is killed.
    broker = rabbit.open()
    confirmed: list[str] = []
    unsure: list[str] = []
    enough, gone = threading.Event(), threading.Event()

    def publish() -> None:
        """Publish one after the other until the server has gone."""
        while not gone.is_set():
            message = sample()
            try:
                broker.publish([message])
            except PublishError:
                unsure.append(message.id)
            else:
                confirmed.append(message.id)
            if len(confirmed) > 100:
                enough.set()

    with ThreadPoolExecutor(1) as executor:
        publishing = executor.submit(publish)
        assert enough.wait(PATIENCE)
        held = gather(broker, 3)
        # RabbitMQ 3.10 writes down a moment later that there is such a queue, and forgets it with all that it holds
        # when it is killed before.
        server.control("eval", "mnesia:sync_log().")
        server.stop(kill=True)
        gone.set()
        publishing.result(PATIENCE)
    with pytest.raises(BrokerUnavailable):
        broker.fetch([QUEUE], 1, lease=30.0, consumer="w")
    broker.wait([QUEUE], 0.0, NEVER)
    with pytest.raises(BrokerUnavailable):
        broker.ack(held)
    server.start()
    found = _all(broker, QUEUE)
    assert set(confirmed) <= set(found) <= {*confirmed, *unsure}
    assert broker.ack(held) == []


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_server_that_was_stopped_and_started_is_found_again(server: PrivateRabbitMQ, rabbit: Rabbit, queue_type: str):
    broker = rabbit.open(QUEUE_TYPE=queue_type)
    sent = [*samples(20), *samples(20, "mail")]
    broker.publish(sent)
    held = gather(broker, 5)
    server.control("stop_app")
    with pytest.raises(BrokerUnavailable):
        broker.publish(samples(1))
    server.control("start_app")
    found = gather(broker, 40, QUEUE, "mail")
    assert sorted(ids(found)) == sorted(ids(sent))
    assert {one.deliveries for one in found if one.message.id in ids(held)} == {2}
    assert broker.ack(held) == []
    assert broker.ack(found) == found


def test_what_is_held_for_longer_than_the_server_allows_goes_to_others_and_counts_as_lost(
    server: PrivateRabbitMQ, rabbit: Rabbit
):
    server.control("eval", "[application:set_env(rabbit, K, 500) || K <- [consumer_timeout, channel_tick_interval]].")
    try:
        broker = rabbit.open()
        broker.publish(samples(2))
        held = gather(broker, 2)
        deadline = time.monotonic() + PATIENCE
        while _held(broker, held):
            assert time.monotonic() < deadline
            NEVER.wait(0.1)
    finally:
        server.control("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    again = gather(broker, 2)
    assert sorted(ids(again)) == sorted(ids(held))
    assert {one.deliveries for one in again} == {2}


def _held(broker: AmqpBroker, deliveries: list[Delivery]) -> list[Delivery]:
    try:
        return broker.extend(deliveries, 30.0)
    except BrokerUnavailable:
        return []


def test_a_worker_whose_virtual_host_is_gone_says_so_and_goes_on_when_it_is_there_again(server: PrivateRabbitMQ):
    _make_host(server)
    rabbit = Rabbit(f"{server.url}/shop")
    broker = rabbit.open()
    broker.publish(samples(1))
    assert broker.ack(gather(broker, 1))
    server.control("delete_vhost", "shop")
    deadline = time.monotonic() + PATIENCE
    while not _refused(broker):
        assert time.monotonic() < deadline
        NEVER.wait(0.1)
    with pytest.raises(BrokerUnavailable, match="shop"):
        broker.publish(samples(1))
    _make_host(server)
    broker.publish(samples(1))
    assert broker.ack(gather(broker, 1))
    rabbit.close()
    server.control("delete_vhost", "shop")


def _make_host(server: PrivateRabbitMQ) -> None:
    server.control("add_vhost", "shop")
    server.control("set_permissions", "-p", "shop", "guest", ".*", ".*", ".*")


def _refused(broker: AmqpBroker) -> bool:
    try:
        broker.fetch([QUEUE], 1, lease=30.0, consumer="w")
    except BrokerUnavailable:
        return True
    return False


def _all(broker: AmqpBroker, queue: str) -> list[str]:
    """Fetch all that there is, beginning with what comes at all."""
    found = gather(broker, 1, queue)
    while fetched := broker.fetch([queue], 1000, lease=30.0, consumer="w"):
        found += fetched
    return ids(found)


def test_results_for_a_caller_that_has_not_asked_yet_outlast_an_outage(server: PrivateRabbitMQ):
    """Its worker is told, keeps its lease and tries again. Who waits already is told as well: that queue is gone."""
    worker, asking, silent = stores = [RpcStore("default", {"LOCATION": server.url}) for _ in range(3)]
    kept = Result(id="kept", state=states.SUCCESS, value=b"1", reply_to=silent.reply_to())
    first = replace(kept, id="first", reply_to=asking.reply_to())
    worker.save([first])
    assert set(asking.wait([first.id], PATIENCE)) == {first.id}
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(asking.wait, ["never"], PATIENCE)
        server.control("stop_app")
        with pytest.raises(StoreUnavailable, match="may be lost"):
            waiting.result(PATIENCE)
    with pytest.raises(StoreUnavailable):
        worker.save([kept])
    with pytest.raises(StoreUnavailable):
        silent.wait([kept.id], None)
    server.control("start_app")
    worker.save([kept, replace(first, id="later", reply_to=asking.reply_to())])
    assert set(silent.wait([kept.id], PATIENCE)) == {kept.id}
    assert set(asking.wait(["later"], PATIENCE)) == {"later"}
    for store in stores:
        store.close()


def test_a_result_that_the_server_finds_too_large_is_refused_as_such(server: PrivateRabbitMQ):
    server.control("eval", "application:set_env(rabbit, max_message_size, 1500000).")
    store = RpcStore("default", {"LOCATION": server.url})
    result = Result(id="large", state=states.SUCCESS, value=b'"' + b"x" * 2_000_000 + b'"', reply_to=store.reply_to())
    with pytest.raises(ResultTooLarge, match="max_message_size"):
        store.save([result])
    # What a worker then writes in its place.
    store.save([replace(result, state=states.FAILURE, value=None)])
    assert store.wait([result.id], PATIENCE)[result.id].state == states.FAILURE
    store.close()
    server.control("eval", "application:unset_env(rabbit, max_message_size).")
