"""How does taskiq do it? Two processes that run coroutines, on a list in Redis."""
# /// script
# requires-python = ">=3.11"
# dependencies = ["taskiq>=0.12", "taskiq-redis>=1.0", "django"]
#
# [tool.benchmarks]
# name = "taskiq"
# places = ["redis"]
# program = "taskiq"
# worker = ["worker", "benchmarks.peers.taskiq:broker", "--workers", "2", "--log-level", "WARNING"]
# processes = 1
# bulk = false
# tasks = 10000
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = []
# ///

from __future__ import annotations

import asyncio
import os

from taskiq_redis import ListQueueBroker  # type: ignore[import-not-found]  # installed where this runs

from benchmarks import ledger

broker = ListQueueBroker(os.environ["BENCHMARKS_BROKER"])


@broker.task  # type: ignore[untyped-decorator]
async def noop() -> None:
    ledger.mark()


async def _enqueue(number: int) -> None:
    await broker.startup()
    for _ in range(number):
        await noop.kiq()
    await broker.shutdown()


def enqueue(number: int) -> None:
    asyncio.run(_enqueue(number))
