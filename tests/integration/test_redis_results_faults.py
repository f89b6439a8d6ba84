"""What becomes of results when the Redis that is to keep them is full, is down or is cut off?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_tasks import states
from django_tasks.connections import brokers, results
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore
from django_tasks.results.celery_redis import CeleryRedisStore
from django_tasks.results.redis import RedisStore
from tests import redises
from tests.integration.stage import Meanwhile, build, note, stage
from tests.wires import Wire, cut_everywhere, wire_to
from tools.servers import PrivateRedis

PATIENCE = 20.0

Trouble = Callable[[PrivateRedis], Any]
"""Takes what a server needs to write, and gives it back."""


@contextmanager
def no_memory(server: PrivateRedis) -> Iterator[None]:
    with redises.direct(server.url) as client:
        client.config_set("maxmemory", "1")
        yield
        client.config_set("maxmemory", "0")


@contextmanager
def no_disk(server: PrivateRedis) -> Iterator[None]:
    in_the_way = server.data / "dump.rdb" / "directory"
    with redises.direct(server.url) as client:
        client.config_set("save", "100000 1")
        in_the_way.mkdir(parents=True)
        redises.save(client)
        yield
        in_the_way.rmdir()
        in_the_way.parent.rmdir()
        redises.save(client)


@contextmanager
def no_server(server: PrivateRedis) -> Iterator[None]:
    server.stop(kill=True)
    yield
    server.start()


@pytest.fixture(params=[no_memory, no_disk, no_server], ids=["no memory", "no disk", "no server"])
def trouble(request: Any) -> Trouble:
    found: Trouble = request.param
    return found


def stores(server: PrivateRedis) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return settings, and caches, that keep results on a server."""
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url}
    return {
        "redis": ({"BACKEND": "redis", "LOCATION": server.url}, {}),
        "celery-redis": ({"BACKEND": "celery-redis", "LOCATION": server.url}, {}),
        "cache": ({"BACKEND": "cache", "LOCATION": "kept"}, {"kept": cache}),
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["redis", "celery-redis", "cache"])
def test_nothing_is_acknowledged_before_its_result_is_kept_and_no_task_runs_twice(kind: str, trouble: Trouble):
    stage.clear()
    with ExitStack() as stack:
        server = stack.enter_context(redises.private_redis("--maxmemory-policy", "noeviction"))
        kept, caches = stores(server)[kind]
        tasks = {"BROKERS": {"default": {"BACKEND": "memory"}}, "RESULTS": {"default": kept}}
        stack.enter_context(override_settings(CACHES={"default": {}, **caches}, DJANGO_TASKS=tasks))
        handle = note.delay(7)
        worker = build()
        troubled = ExitStack()
        troubled.enter_context(trouble(server))

        def leased() -> int:
            return sum(stats.leased for stats in brokers["default"].stats(["default"]))

        def story() -> None:
            stage.until(lambda: len(stage.ended) == 1)
            redises.until(lambda: worker._backoff._failures, "the worker has found out")
            assert leased() == 1
            troubled.close()
            assert handle.get(PATIENCE, disable_sync_subtasks=False) == 7
            worker.stop()

        Meanwhile(worker, story)
        assert leased() == 0
        assert stage.begun == [handle.id]
        results.close()


@pytest.mark.django_db(transaction=True)
def test_messages_and_results_on_one_server_come_through_its_trouble(trouble: Trouble):
    stage.clear()
    with ExitStack() as stack:
        server = stack.enter_context(redises.private_redis("--maxmemory-policy", "noeviction", "--appendonly", "yes"))
        stack.enter_context(override_settings(DJANGO_TASKS=redises.settings_of(server)))
        handles = [note.delay(number) for number in range(20)]
        worker = build(lease=10.0, heartbeat=1.0)
        troubled = ExitStack()
        troubled.enter_context(trouble(server))

        def story() -> None:
            redises.until(lambda: worker._backoff._failures, "the worker has found out")
            troubled.close()
            assert [handle.get(PATIENCE, disable_sync_subtasks=False) for handle in handles] == list(range(20))
            worker.stop()

        Meanwhile(worker, story)
        assert sorted(stage.begun) == sorted(handle.id for handle in handles)
        with redises.direct(server.url) as client:
            assert redises.is_empty(client)
        brokers.close()
        results.close()


# Connections that break


@pytest.fixture
def wire(redis_server: PrivateRedis) -> Iterator[Wire]:
    with wire_to("127.0.0.1", redis_server.port) as wire:
        yield wire


@pytest.fixture(params=[RedisStore, CeleryRedisStore])
def sides(request: Any, wire: Wire, redis_server: PrivateRedis, client: redis.Redis) -> Iterator[Any]:
    """Give a store behind the wire, and one that always answers."""

    def open_store(port: int) -> ResultStore:
        params = {"LOCATION": f"redis://127.0.0.1:{port}", "OPTIONS": {"KEY_PREFIX": "q"}}
        store: ResultStore = request.param("default", params)
        return store

    cut, whole = open_store(wire.port), open_store(redis_server.port)
    yield cut, whole
    cut.close()
    whole.close()


def some() -> list[Result]:
    moment = datetime.now(UTC)
    return [Result(id=new_id(), state=states.SUCCESS, value=b"1", task="t", ended_at=moment) for _ in range(2)]


def kept(store: ResultStore) -> list[str]:
    """Have a store keep some results; return their ids."""
    sent = some()
    store.save(sent)
    return [result.id for result in sent]


def test_results_whose_answer_is_cut_are_kept_once_and_found(wire: Wire, sides: Any):
    cut, whole = sides
    for sent, _ in cut_everywhere(wire, some, cut.save):
        ids = [result.id for result in sent]
        assert [result.value for result in whole.get(ids).values()] == [b"1", b"1"]


def test_a_look_that_is_cut_finds_all_the_same(wire: Wire, sides: Any):
    cut, whole = sides

    # Each answer has two whole results; a step of a few bytes still comes through every part of it.
    for ids, found in cut_everywhere(wire, partial(kept, whole), cut.get, step=7):
        assert list(found) == ids


def test_what_is_forgotten_with_its_answer_cut_is_gone(wire: Wire, sides: Any):
    cut, whole = sides

    for ids, _ in cut_everywhere(wire, partial(kept, whole), cut.forget):
        assert whole.get(ids) == {}
