"""Does each pool keep its contract?"""

from __future__ import annotations

from django_tasks.pools.prefork import PreforkPool
from django_tasks.pools.solo import SoloPool
from django_tasks.pools.threads import ThreadPool
from django_tasks.testing.contracts.pools import PoolContract


class TestPrefork(PoolContract):
    pool = PreforkPool


class TestThreads(PoolContract):
    pool = ThreadPool


class TestSolo(PoolContract):
    pool = SoloPool
    alone = True
