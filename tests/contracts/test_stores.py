"""Does each result store keep its contract?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.test import override_settings

from django_tasks.results.base import ResultStore
from django_tasks.results.cache import CacheStore
from django_tasks.results.celery_redis import CeleryRedisStore
from django_tasks.results.database import DatabaseStore
from django_tasks.results.memory import MemoryStore
from django_tasks.results.redis import RedisStore
from django_tasks.testing.contracts.stores import StoreContract
from tests import memcaches, redises
from tests.outages import unreachable
from tests.replies import NOWHERE, BothSides
from tests.settings import REDIS_URL
from tests.vendors import each_vendor


class TestMemory(StoreContract):
    rounds = 200

    @pytest.fixture
    def store(self) -> ResultStore:
        return MemoryStore("default", {})


@each_vendor(transaction=True)
class TestDatabase(StoreContract):
    rounds = 10

    @pytest.fixture
    def store(self, alias: str) -> Iterator[ResultStore]:
        with ExitStack() as self.stack:
            self.alias = alias
            yield self.open(alias)

    def open(self, using: str) -> ResultStore:
        store = DatabaseStore("default", {"OPTIONS": {"USING": using}})
        self.stack.callback(store.close)
        return store

    def peer(self, store: ResultStore) -> ResultStore:
        return self.open(self.alias)

    def unreachable(self) -> ResultStore:
        return self.open(self.stack.enter_context(unreachable(self.alias)))


class TestRedis(StoreContract):
    rounds = 10

    @pytest.fixture
    def store(self) -> Iterator[ResultStore]:
        with ExitStack() as self.stack:
            self.prefix = self.stack.enter_context(redises.own_prefix())
            yield self.open(REDIS_URL)

    def open(self, location: str) -> ResultStore:
        store = RedisStore("default", {"LOCATION": location, "OPTIONS": {"KEY_PREFIX": self.prefix}})
        self.stack.callback(store.close)
        return store

    def peer(self, store: ResultStore) -> ResultStore:
        return self.open(REDIS_URL)

    def unreachable(self) -> ResultStore:
        return self.open(redises.NOWHERE)


@pytest.fixture(scope="module")
def memcached() -> Iterator[str]:
    with memcaches.private_memcached() as server:
        yield server.url


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    # Clearing such a cache empties the database that it is in.
    with redises.private_redis() as server:
        yield server.url


class CacheContract(StoreContract):
    rounds = 3
    # A cache adds one by one.
    many = 300

    @pytest.fixture
    def store(self, entry: dict[str, Any], nowhere: dict[str, Any]) -> Iterator[ResultStore]:
        with ExitStack() as self.stack, override_settings(CACHES={"default": {}, "kept": entry, "nowhere": nowhere}):
            yield self.open("kept")
            cache = caches.create_connection("kept")
            cache.clear()
            cache.close()

    @pytest.fixture
    def nowhere(self) -> dict[str, Any]:
        return memcaches.entry(memcaches.NOWHERE)

    def open(self, cache: str) -> ResultStore:
        store = CacheStore("default", {"LOCATION": cache})
        self.stack.callback(store.close)
        return store

    def peer(self, store: ResultStore) -> ResultStore:
        return self.open("kept")

    def unreachable(self) -> ResultStore:
        return self.open("nowhere")


class TestMemcached(CacheContract):
    @pytest.fixture
    def entry(self, memcached: str) -> dict[str, Any]:
        return memcaches.entry(memcached)


class TestCacheInFiles(CacheContract):
    @pytest.fixture
    def entry(self, tmp_path: Path) -> dict[str, Any]:
        return {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": str(tmp_path / "cache"),
            "OPTIONS": {"MAX_ENTRIES": 1_000_000},
        }

    @pytest.fixture
    def nowhere(self) -> dict[str, Any]:
        return {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": "/dev/null/nowhere"}


@each_vendor("postgres", transaction=True)
class TestCacheInDatabase(CacheContract):
    @pytest.fixture
    def entry(self, alias: str) -> Iterator[dict[str, Any]]:
        router = type("Router", (), {"db_for_read": lambda *_, **__: alias, "db_for_write": lambda *_, **__: alias})
        entry = {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "contract_cache",
            "OPTIONS": {"MAX_ENTRIES": 1_000_000},
        }
        with override_settings(DATABASE_ROUTERS=[router()], CACHES={"default": entry}):
            call_command("createcachetable", database=alias)
            yield entry


class TestCacheInRedis(CacheContract):
    @pytest.fixture
    def entry(self, redis_url: str) -> dict[str, Any]:
        return {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redis_url}

    @pytest.fixture
    def nowhere(self) -> dict[str, Any]:
        return {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redises.NOWHERE}


class TestCeleryRedis(TestRedis):
    rounds = 5
    many = 1_000

    def open(self, location: str) -> ResultStore:
        params = {"LOCATION": location, "OPTIONS": {"KEY_PREFIX": f"{self.prefix}:"}}
        store = CeleryRedisStore("default", params)
        self.stack.callback(store.close)
        return store


class TestRpc(StoreContract):
    rounds = 5
    many = 1_000

    @pytest.fixture
    def store(self) -> Iterator[ResultStore]:
        store = BothSides()
        yield store
        store.close()

    def unreachable(self) -> ResultStore:
        return BothSides(NOWHERE)
