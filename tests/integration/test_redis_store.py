"""What does the Redis store do over time, and when its server or connection misbehaves?"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_tasks import states
from django_tasks.connections import brokers, results
from django_tasks.exceptions import ConfigurationError, StoreUnavailable
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.results.redis import RedisStore
from django_tasks.results.redis_places import UNFINISHED
from tests import redises
from tests.integration.stage import Meanwhile, build, note, stage
from tools.servers import PrivateRedis

PATIENCE = 20.0
DAY = timedelta(days=1)


def open_store(location: str, **options: Any) -> RedisStore:
    return RedisStore("default", {"LOCATION": location, "OPTIONS": {"KEY_PREFIX": "q", **options}})


@pytest.fixture
def store(redis_server: PrivateRedis, client: redis.Redis) -> Iterator[RedisStore]:
    store = open_store(redis_server.url)
    yield store
    store.close()


def ended(state: str = states.SUCCESS) -> Result:
    return Result(id=new_id(), state=state, value=b"1", task="t", ended_at=datetime.now(UTC))


def scripts(client: redis.Redis) -> int:
    told = client.info("commandstats")
    return int(told.get("cmdstat_evalsha", {"calls": 0})["calls"])


def spent(client: redis.Redis, action: Callable[[], object]) -> int:
    before = scripts(client)
    action()
    return scripts(client) - before


def test_hundreds_of_results_are_one_round_trip(store, client):
    results = [ended() for _ in range(1_000)]
    ids = [result.id for result in results]
    store.save(results[:1])
    store.get(ids[:1])
    store.forget(["unknown"])
    assert spent(client, lambda: store.save(results)) == 1
    assert spent(client, lambda: store.get(ids)) == 1
    assert spent(client, lambda: store.wait(ids, 10)) == 1
    assert spent(client, lambda: store.forget(ids)) == 1


def test_who_waits_asks_only_when_something_was_heard(store, client):
    results = [ended() for _ in range(50)]
    ids = [result.id for result in results]
    store.wait(ids, 1.0)
    with ThreadPoolExecutor(1) as executor:
        before = scripts(client)
        waiting = executor.submit(store.wait, ids, PATIENCE)
        redises.until(lambda: len(client.pubsub_channels("q:*")) == 50, "somebody listens")
        store.save([replace(result, state="PROGRESS") for result in results])
        store.save(results[:1])
        assert set(waiting.result(PATIENCE)) == {ids[0]}
    # Two looks, one when something was heard, and what saved.
    assert scripts(client) - before <= 3 + 2
    assert client.pubsub_channels("q:*") == []


def test_connections_that_hear_are_used_again(store, client):
    # Long enough to get as far as listening.
    store.wait(["x"], 1.0)
    before = client.info("stats")["total_connections_received"]
    for _ in range(5):
        assert store.wait(["x"], 0.01) == {}
    assert client.info("stats")["total_connections_received"] == before
    store.close()
    redises.until(lambda: client.info("clients")["connected_clients"] == 1, "they are closed")


def test_a_result_ends_by_itself(redis_server, client):
    done, running = ended(), Result(id=new_id(), state=states.STARTED)
    for expires, kept in ((DAY, DAY), (None, None)):
        store = open_store(redis_server.url, EXPIRES=expires)
        store.save([done, running])
        lives = [timedelta(milliseconds=client.pttl(f"q:result:{one.id}")) for one in (done, running)]
        if kept is None:
            assert lives == [timedelta(milliseconds=-1)] * 2
        else:
            assert kept - timedelta(minutes=1) < lives[0] <= kept
            assert kept + UNFINISHED - timedelta(minutes=1) < lives[1] <= kept + UNFINISHED
        store.close()
        client.flushall()


def test_what_has_ended_by_itself_leaves_no_name_behind(redis_server, client):
    store = open_store(redis_server.url, EXPIRES=timedelta(milliseconds=1))
    store.save([ended() for _ in range(30)])
    redises.until(lambda: not client.keys("q:result:*"), "all have gone")
    assert client.zcard("q:ended") == 30
    assert store.expire(datetime.now(UTC) + DAY, 7) == 0
    assert client.zcard("q:ended") == 0
    store.close()


def test_who_waits_hears_it_also_when_the_connection_was_killed_meanwhile(store, client):
    result = ended()
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(store.wait, [result.id], PATIENCE)
        redises.until(lambda: client.pubsub_channels("q:*"), "somebody listens")
        client.client_kill_filter(_type="pubsub", skipme=True)
        store.save([result])
        assert set(waiting.result(PATIENCE)) == {result.id}


def test_who_waits_is_told_when_the_server_goes():
    with redises.private_redis() as server, redises.direct(server.url) as client, ThreadPoolExecutor(1) as executor:
        store = open_store(server.url)
        waiting = executor.submit(store.wait, ["x"], PATIENCE)
        redises.until(lambda: client.pubsub_channels("q:*"), "somebody listens")
        server.stop(kill=True)
        with pytest.raises(StoreUnavailable):
            waiting.result(PATIENCE)
        store.close()


def test_a_server_without_memory_refuses_results_until_there_is_some():
    with redises.private_redis("--maxmemory", "5mb") as server:
        store = open_store(server.url)
        big = [replace(ended(), value=bytes(1_000_000)) for _ in range(10)]

        def fill() -> None:
            for result in big:
                store.save([result])

        with pytest.raises(StoreUnavailable, match="maxmemory"):
            fill()
        assert store.forget([result.id for result in big]) > 0
        store.save([ended()])
        store.close()


def test_a_forked_process_has_connections_of_its_own(store):
    result = ended()
    store.save([result])
    store.wait(["x"], 1.0)
    with warnings.catch_warnings():
        # Other threads of this process mean nothing to the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            store.wait(["y"], 0.5)
            code = 0 if set(store.wait([result.id], PATIENCE)) == {result.id} else 2
        finally:
            os._exit(code)
    for _ in range(100):
        store.get([result.id])
    assert os.waitpid(child, 0)[1] == 0
    saving = threading.Timer(0.05, lambda: store.save([replace(result, id="later")]))
    saving.start()
    assert set(store.wait(["later"], PATIENCE)) == {"later"}
    saving.join()


def test_what_is_no_result_is_not_known(store, client):
    result = ended()
    store.save([result])
    client.hset("q:result:odd", mapping={"s": "[1]", "z": "1"})
    client.hset("q:result:empty", mapping={"x": "y"})
    client.hset(f"q:result:{result.id}", "c", "no time")
    assert store.get(["odd", "empty", result.id]) == {}
    client.hdel(f"q:result:{result.id}", "c")
    client.hset(f"q:result:{result.id}", "m", "no message")
    assert store.get([result.id])[result.id].message is None


def test_a_server_that_may_evict_results_is_warned_of():
    with redises.private_redis("--maxmemory-policy", "volatile-ttl") as server:
        store = open_store(server.url)
        assert [found.id for found in store.check(["default"])] == ["django_tasks.W112"]
        assert store.check() == []
        store.close()


def test_an_option_that_there_is_not_is_refused():
    with pytest.raises(ConfigurationError, match="has no option 'EXPIRE'"):
        open_store("redis://127.0.0.1", EXPIRE=DAY)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_acknowledged_while_redis_is_down_and_all_is_kept_when_it_is_back():
    stage.clear()
    with redises.private_redis() as server:
        kept = {"BACKEND": "redis", "LOCATION": server.url}
        memory = {"BACKEND": "memory"}
        with override_settings(DJANGO_TASKS={"BROKERS": {"default": memory}, "RESULTS": {"default": kept}}):
            handle = note.delay(7)
            server.stop(kill=True)
            worker = build()

            def story() -> None:
                stage.until(lambda: len(stage.ended) == 1)
                redises.until(lambda: worker._backoff._failures, "the worker has found out")
                assert [stats.leased for stats in brokers["default"].stats(["default"])] == [1]
                server.start()
                assert handle.get(PATIENCE, disable_sync_subtasks=False) == 7
                worker.stop()

            Meanwhile(worker, story)
            assert stage.begun == [handle.id]
            assert [stats.leased for stats in brokers["default"].stats(["default"])] == [0]
            results.close()
