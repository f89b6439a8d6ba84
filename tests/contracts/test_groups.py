"""Is each record of groups kept as promised?"""

from __future__ import annotations

import time

import pytest

from django_tasks.results.group_rows import GroupRows
from django_tasks.results.groups import Groups
from django_tasks.results.memory_groups import MemoryGroups
from django_tasks.testing.contracts.groups import GroupContract
from tests.vendors import each_vendor


class TestMemory(GroupContract):
    rounds = 100

    @pytest.fixture
    def groups(self) -> Groups:
        return MemoryGroups(time.time)


@each_vendor(transaction=True)
class TestRows(GroupContract):
    rounds = 5

    @pytest.fixture
    def groups(self, alias: str) -> Groups:
        return GroupRows(alias)
