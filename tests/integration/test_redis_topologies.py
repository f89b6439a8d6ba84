"""Do broker and store work on a cluster, through sentinels, on a socket, and with a cache's connections?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import pytest
from django.core.cache import caches
from django.test import override_settings

from django_tasks import states
from django_tasks.backends.redis import RedisBroker
from django_tasks.exceptions import BrokerUnavailable, StoreUnavailable
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.results.redis import RedisStore
from django_tasks.testing.contracts.harness import ids, sample, samples
from tests import redises
from tools.servers import PrivateRedis

PATIENCE = 30.0
QUEUES = [f"queue{number}" for number in range(6)]


def open_both(location: str, prefix: str = "q") -> tuple[RedisBroker, RedisStore]:
    params = {"LOCATION": location, "OPTIONS": {"KEY_PREFIX": prefix}}
    return RedisBroker("default", params), RedisStore("default", params)


def do_work(broker: RedisBroker, store: RedisStore) -> None:
    """Publish, wait, fetch, renew, put back, replace, acknowledge; look around; keep results, and wait for one."""
    broker.wait(QUEUES, 0.0, Event())
    sent = [sample(queue) for queue in QUEUES for _ in range(3)]
    broker.publish(sent)
    assert broker.wait(QUEUES, PATIENCE, Event())
    held = broker.fetch(QUEUES, 100, lease=30, consumer="w")
    assert sorted(ids(held)) == sorted(ids(sent))
    assert broker.extend(held, 60) == held
    assert broker.nack(held[:6], spent=True) == held[:6]
    following = [replace(one.message, queue=QUEUES[-1], retries=1) for one in held[6:]]
    assert broker.replace(list(zip(held[6:], following, strict=True))) == held[6:]
    assert broker.ack(held) == []
    assert sum(one.ready for one in broker.stats()) == len(sent)
    assert sum(one.ready for one in broker.stats(QUEUES)) == len(sent)
    again = broker.fetch(QUEUES, 100, lease=30, consumer="w")
    assert sorted(ids(again)) == sorted(ids(sent))
    assert broker.ack(again) == again
    broker.publish([replace(sample(queue), countdown=60) for queue in QUEUES])
    waiting = [broker.peek(queue, 10)[0] for queue in QUEUES]
    assert len(broker.discard(ids(waiting[:3]))) == 3
    assert [broker.purge(queue) for queue in QUEUES] == [0, 0, 0, 1, 1, 1]
    assert broker.stats() == []
    results = [Result(id=new_id(), state=states.SUCCESS, value=b"%d" % number) for number in range(100)]
    store.save(results)
    store.save([replace(result, state=states.FAILURE) for result in results])
    assert {result.state for result in store.get([result.id for result in results]).values()} == {states.SUCCESS}
    assert store.forget([result.id for result in results]) == 100
    assert store.groups is not None
    redises.keep_groups(store.groups)
    last = new_id()
    saving = threading.Timer(0.1, lambda: store.save([Result(id=last, state=states.SUCCESS)]))
    saving.start()
    assert set(store.wait([last], PATIENCE)) == {last}
    saving.join()


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[PrivateRedis]]:
    with redises.private_cluster() as servers:
        yield servers


def where(servers: list[PrivateRedis]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


def test_a_cluster_keeps_queues_and_results_on_all_its_nodes(cluster):
    broker, store = open_both(where(cluster))
    do_work(broker, store)
    broker.publish([sample(queue) for queue in QUEUES])
    used = 0
    for server in cluster:
        with redises.direct(server.url) as client:
            used += bool(client.keys("q:{queue*}:ready"))
    assert used == len(cluster)
    assert broker.check(["default"])[0].id == "django_tasks.W111"
    # Each queue may be lost by itself.
    assert [mark.number for _ in range(2) for mark in broker.mark(QUEUES)] == [1] * len(QUEUES) + [2] * len(QUEUES)
    broker.close()
    store.close()


def test_a_cluster_that_lost_a_node_is_unavailable_until_it_is_back(cluster):
    broker, store = open_both(where(cluster), "lost")
    broker.publish([sample(queue) for queue in QUEUES])
    cluster[1].stop(kill=True)
    with pytest.raises(BrokerUnavailable):
        broker.fetch(QUEUES, 100, lease=30, consumer="w")
    with pytest.raises(StoreUnavailable):
        store.save([Result(id=new_id(), state=states.SUCCESS) for _ in range(50)])
    cluster[1].start()

    def works() -> bool:
        try:
            broker.publish([sample(queue) for queue in QUEUES])
            store.save([Result(id=new_id(), state=states.SUCCESS) for _ in range(50)])
        except (BrokerUnavailable, StoreUnavailable):
            return False
        return True

    redises.until(works, "the cluster is whole again")
    assert broker.fetch(QUEUES, 100, lease=30, consumer="w")
    broker.close()
    store.close()


def test_a_cluster_that_is_not_there_is_unavailable():
    broker, store = open_both("redis+cluster://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable):
        broker.publish(samples(1))
    with pytest.raises(StoreUnavailable):
        store.get(["x"])
    assert broker.wait(["default"], 0.0, Event()) is False


def test_sentinels_tell_which_server_is_the_master_also_after_it_changed():
    with redises.private_sentinel() as (sentinel, servers):
        broker, store = open_both(f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
        do_work(broker, store)
        assert "django_tasks.W118" in {one.id for one in broker.diagnose().found}
        broker.publish(samples(1))
        with redises.direct(servers[1].url) as replica:
            redises.until(lambda: replica.zcard("q:{default}:ready") == 1, "the replica has it too")
        servers[0].stop(kill=True)
        sent = samples(1)

        def works() -> bool:
            try:
                broker.publish(sent)
            except BrokerUnavailable:
                return False
            return True

        redises.until(works, "the new master takes messages")
        assert len(broker.fetch(["default"], 10, lease=30, consumer="w")) == 2
        with redises.direct(servers[1].url) as master:
            assert master.zcard("q:{default}:leased") == 2
        broker.close()
        store.close()


def test_sentinels_that_are_not_there_are_unavailable():
    broker, _ = open_both("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main")
    with pytest.raises(BrokerUnavailable):
        broker.publish(samples(1))


def test_a_socket_and_a_database_of_its_own():
    with redises.private_redis("--unixsocket", "redis.sock", "--unixsocketperm", "777") as server:
        server.data.chmod(0o755)
        broker, store = open_both(f"unix://{server.data / 'redis.sock'}?db=3")
        do_work(broker, store)
        with redises.direct(f"{server.url}/3") as client:
            broker.publish(samples(1))
            assert client.zcard("q:{default}:ready") == 1
        broker.close()
        store.close()


def test_a_cache_lends_its_connections_and_keeps_them():
    with redises.private_redis() as server:
        cache = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"{server.url}/1",
            "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
        }
        with override_settings(
            CACHES={"default": cache, "plain": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
        ):
            broker, store = open_both("default")
            do_work(broker, store)
            pool = caches["default"].client.get_client().connection_pool  # type: ignore[attr-defined]  # django_redis's own
            assert broker._redis._connected().connection_pool is pool
            broker.publish(samples(1))
            broker.close()
            store.close()
            caches["default"].set("still", "there")
            assert caches["default"].get("still") == "there"
            assert len(broker.fetch(["default"], 10, lease=30, consumer="w")) == 1
            pool.disconnect()
