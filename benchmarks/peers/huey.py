"""How does Huey do it? A consumer whose two workers are processes, each with a Redis connection of its own."""
# /// script
# requires-python = ">=3.11"
# dependencies = ["huey>=3.0", "redis", "django"]
#
# [tool.benchmarks]
# name = "Huey"
# places = ["redis"]
# program = "huey.bin.huey_consumer"
# worker = [
#     "benchmarks.peers.huey.app", "--workers", "2", "--worker-type", "process", "--no-periodic",
#     "--delay", "0.01", "--max-delay", "0.1", "--quiet",
# ]
# processes = 1
# bulk = false
# tasks = 10000
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = []
# ///

from __future__ import annotations

import os

from huey import RedisHuey  # type: ignore[import-not-found]  # installed where this runs

from benchmarks import ledger

app = RedisHuey("benchmarks", url=os.environ["BENCHMARKS_BROKER"], results=False)


@app.task()  # type: ignore[untyped-decorator]
def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        noop()
