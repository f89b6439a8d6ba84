"""How does RQ do it? Two workers that run tasks in their own process, the faster of its ways."""
# /// script
# requires-python = ">=3.11"
# dependencies = ["rq>=2.0", "django"]
#
# [tool.benchmarks]
# name = "RQ"
# places = ["redis"]
# program = "benchmarks.peers.rq"
# worker = []
# processes = 2
# bulk = false
# tasks = 2000
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = []
# ///

from __future__ import annotations

import os

from redis import Redis
from rq import Queue, SimpleWorker  # type: ignore[import-not-found]  # installed where this runs

from benchmarks import ledger

_redis = Redis.from_url(os.environ["BENCHMARKS_BROKER"])
_queue = Queue("benchmarks", connection=_redis)


def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        _queue.enqueue("benchmarks.peers.rq.noop", result_ttl=0)


if __name__ == "__main__":
    SimpleWorker([_queue], connection=_redis).work(logging_level="WARNING")
