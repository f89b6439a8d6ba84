"""Is each record of groups kept as promised?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from django_tasks.redis_servers import Redis
from django_tasks.results.group_rows import GroupRows
from django_tasks.results.groups import Groups
from django_tasks.results.memory_groups import MemoryGroups
from django_tasks.results.redis_groups import RedisGroups
from django_tasks.results.redis_places import Places
from django_tasks.testing.contracts.groups import GroupContract
from tests import redises, waits
from tests.clocks import TurnedClock
from tests.settings import REDIS_URL
from tests.vendors import each_vendor


class TestMemory(GroupContract):
    rounds = 100

    @pytest.fixture
    def groups(self) -> Groups:
        return MemoryGroups(TurnedClock())

    def elapse(self, groups: Groups, seconds: float) -> None:
        waits.elapse(groups, seconds)


@each_vendor(transaction=True)
class TestRows(GroupContract):
    rounds = 5

    @pytest.fixture
    def groups(self, alias: str) -> Groups:
        return GroupRows(alias)

    def elapse(self, groups: Groups, seconds: float) -> None:
        waits.elapse(groups, seconds)


class TestRedis(GroupContract):
    rounds = 20
    clustered = False

    @pytest.fixture
    def groups(self) -> Iterator[Groups]:
        redis = Redis(REDIS_URL, {})
        with redises.own_prefix() as self.prefix:
            yield RedisGroups(redis, Places(self.prefix, self.clustered), timedelta(days=7))
            redis.close()

    def elapse(self, groups: Groups, seconds: float) -> None:
        waits.elapse(groups, seconds, self.prefix)


class TestRedisCluster(TestRedis):
    """The same server, with its keys divided as in a cluster."""

    rounds = 5
    clustered = True
