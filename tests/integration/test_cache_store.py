"""What does the cache store do when its cache or its server misbehaves?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from django_tasks import states, task
from django_tasks.connections import brokers, results
from django_tasks.exceptions import ConfigurationError, StoreUnavailable
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.results.cache import CacheStore
from tests import memcaches
from tests.integration.stage import Meanwhile, build, burst, note, stage
from tools.memcached import PrivateMemcached

PATIENCE = 30.0
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


class Swallowing(LocMemCache):
    """Hides, as some clients do, that its server keeps nothing."""

    down = False

    def add(self, *args: Any, **kwargs: Any) -> bool:
        return not Swallowing.down and super().add(*args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> None:
        if not Swallowing.down:
            super().set(*args, **kwargs)

    def set_many(self, data: Any, *args: Any, **kwargs: Any) -> list[str]:
        return [*data] if Swallowing.down else super().set_many(data, *args, **kwargs)

    def get_many(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {} if Swallowing.down else super().get_many(*args, **kwargs)


def ended(state: str = states.SUCCESS, value: bytes = b"1") -> Result:
    return Result(id=new_id(), state=state, value=value, task="t", ended_at=datetime.now(UTC))


@task
def lengthy() -> str:
    return "x" * 400_000


@pytest.fixture
def server() -> Iterator[PrivateMemcached]:
    with memcaches.private_memcached("-I", "256k", "-o", "slab_chunk_max=131072") as server:
        yield server


@pytest.fixture
def site(server: PrivateMemcached) -> Iterator[None]:
    """Have messages in this process and results in memcached."""
    stage.clear()
    tasks = {
        "BROKERS": {"default": {"BACKEND": "memory"}},
        "RESULTS": {"default": {"BACKEND": "cache", "LOCATION": "kept"}},
    }
    with override_settings(CACHES={"default": {}, "kept": memcaches.entry(server.url)}, DJANGO_TASKS=tasks):
        yield
        results.close()


def waiting() -> int:
    [stats] = brokers["default"].stats(["default"])
    return stats.ready + stats.leased + stats.delayed


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("site")
def test_nothing_is_acknowledged_while_memcached_is_down_and_all_is_kept_when_it_is_back(server):
    handle = note.delay(7)
    server.stop(kill=True)
    worker = build()

    def story() -> None:
        stage.until(lambda: len(stage.ended) == 1)
        while not worker._backoff._failures:
            assert waiting() == 1
        with pytest.raises(StoreUnavailable):
            handle.fetch()
        assert waiting() == 1
        server.start()
        assert handle.get(PATIENCE, disable_sync_subtasks=False) == 7
        worker.stop()

    Meanwhile(worker, story)
    assert stage.begun == [handle.id]
    assert waiting() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("site")
def test_a_task_whose_value_memcached_does_not_take_fails_and_says_so():
    handle, other = lengthy.delay(), note.delay(3)
    burst()
    assert other.fetch().state == states.SUCCESS
    found = handle.fetch()
    assert found.state == states.FAILURE
    assert found.failure is not None
    assert found.failure.type == "ResultTooLarge"
    assert "400," in found.failure.message
    assert waiting() == 0


@pytest.mark.usefixtures("site")
def test_progress_that_is_too_large_is_kept_without_its_data():
    store = results["default"]
    running = Result(id=new_id(), state="PROGRESS", value=b"x" * 400_000, task="t")
    other = Result(id=new_id(), state="PROGRESS", value=b"1")
    store.save([running, other])
    found = store.get([running.id, other.id])
    assert (found[running.id].state, found[running.id].value, found[running.id].task) == ("PROGRESS", None, "t")
    assert found[other.id].state == "PROGRESS"


@pytest.mark.usefixtures("site")
def test_connections_that_a_restarted_server_closed_are_no_failure(server):
    store, result = results["default"], ended()
    store.save([ended()])
    server.stop()
    server.start()
    store.save([result])
    assert store.get([result.id])[result.id].final


@pytest.mark.usefixtures("site")
def test_results_end_by_themselves_and_states_of_running_tasks_with_them(server):
    store, result = results["default"], ended()
    started = replace(result, state=states.STARTED, ended_at=None)
    store.save([started])
    store.save([result])
    [final, running] = [store._final_key(result.id), store._open_key(result.id)]  # type: ignore[attr-defined]
    cache = caches.create_connection("kept")
    try:
        assert cache.get(running) == b"over"
        # Once it has gone, the final state does not hang on it.
        cache.delete(running)
        assert store.get([result.id])[result.id].final
        cache.delete(final)
        assert store.get([result.id]) == {}
    finally:
        cache.close()


@pytest.mark.parametrize("state", [states.SUCCESS, states.RETRY])
def test_a_cache_that_hides_that_its_server_is_down_loses_no_result(state, monkeypatch):
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Swallowing", "LOCATION": new_id()}}):
        store, result = CacheStore("default", {}), ended(state)
        monkeypatch.setattr(Swallowing, "down", True)
        with pytest.raises(StoreUnavailable, match="keeps nothing"):
            store.save([result])
        monkeypatch.setattr(Swallowing, "down", False)
        store.save([result])
        assert store.get([result.id])[result.id].state == state


def test_who_waits_looks_less_and_less_often(monkeypatch):
    looks: list[float] = []
    with override_settings(CACHES={"default": {"BACKEND": LOCMEM}}):
        store = CacheStore("default", {"OPTIONS": {"POLL": 60}})
        get = LocMemCache.get_many

        def look(*args: Any) -> dict[Any, Any]:
            looks.append(time.monotonic())
            return get(*args)

        monkeypatch.setattr(LocMemCache, "get_many", look)
        assert store.wait(["x"], 1.0) == {}
    # 5 ms, and half as much again each time: within a second no more than that, however the pauses fall.
    assert 2 <= len(looks) <= 16


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ({"BACKEND": LOCMEM}, ["W131", "W132"]),
        ({"BACKEND": LOCMEM, "OPTIONS": {"MAX_ENTRIES": 1_000_000}}, ["W131"]),
        ({"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "t"}, ["W132"]),
        ({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}, ["E131"]),
        (memcaches.entry(memcaches.NOWHERE), []),
    ],
    ids=["locmem", "large-locmem", "database", "dummy", "memcached"],
)
def test_checks_tell_of_caches_that_lose_results(cache, said):
    with override_settings(CACHES={"default": cache}):
        store = CacheStore("default", {})
        assert [str(found.id).removeprefix("django_tasks.") for found in store.check()] == said


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"LOCATION": "tsak"}, "CACHES has no 'tsak'; it has 'default'"),
        ({"OPTIONS": {"PREFIX": "x"}}, "no option 'PREFIX'"),
        ({"OPTIONS": {"KEY_PREFIX": "a b"}}, "KEY_PREFIX must be"),
        ({"OPTIONS": {"POLL": 0}}, "POLL is a number of seconds"),
    ],
    ids=["alias", "option", "prefix", "poll"],
)
def test_options_that_cannot_be_are_refused(params, words):
    with override_settings(CACHES={"default": {"BACKEND": LOCMEM}}), pytest.raises(ConfigurationError, match=words):
        CacheStore("default", params)


def test_a_cache_of_files_that_cannot_be_written_is_told_as_such(tmp_path: Path):
    (tmp_path / "file").touch()
    entry = {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": str(tmp_path / "file" / "in"),
        "TIMEOUT": int(timedelta(days=1).total_seconds()),
    }
    with override_settings(CACHES={"default": entry}), pytest.raises(StoreUnavailable, match="cannot be written"):
        CacheStore("default", {}).save([ended()])


def test_no_thread_leaves_connections_behind(server):
    with override_settings(CACHES={"default": memcaches.entry(server.url)}):
        store = CacheStore("default", {})
        threads = [threading.Thread(target=store.save, args=([ended()],)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(store._idle) <= 8
        store.close()
        assert not store._idle
