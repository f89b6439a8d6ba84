"""Does a pool keep its contract?

    class TestSubinterpreters(PoolContract):
        pool = SubinterpreterPool

`PoolHarness` tells what else may be said: that tasks run in the thread that submits them, which database tasks query,
how long to be patient.
"""

from __future__ import annotations

from django_tasks.testing.contracts.pool_crashes import CrashContract
from django_tasks.testing.contracts.pool_limits import LimitContract
from django_tasks.testing.contracts.pool_runs import RunContract


class PoolContract(RunContract, LimitContract, CrashContract):
    """Everything that `Pool` promises; inherit from it under a name that starts with Test."""
