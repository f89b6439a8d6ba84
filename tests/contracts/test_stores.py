"""Does each result store keep its contract?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from django_tasks.results.base import ResultStore
from django_tasks.results.database import DatabaseStore
from django_tasks.results.memory import MemoryStore
from django_tasks.results.redis import RedisStore
from django_tasks.testing.contracts.stores import StoreContract
from tests import redises
from tests.outages import unreachable
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
