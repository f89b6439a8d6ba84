"""Does each result store keep its contract?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from django_tasks.results.base import ResultStore
from django_tasks.results.database import DatabaseStore
from django_tasks.results.memory import MemoryStore
from django_tasks.testing.contracts.stores import StoreContract
from tests.outages import unreachable
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
