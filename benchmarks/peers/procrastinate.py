"""How does Procrastinate do it? An asyncio worker with jobs and their states in PostgreSQL.

Coroutine tasks spare it the threads that functions would need.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["procrastinate[django]"]
#
# [tool.benchmarks]
# name = "procrastinate"
# places = ["postgres"]
# worker = ["procrastinate", "worker", "--concurrency", "20"]
# processes = 2
# bulk = true
# tasks = 3000
# unfinished = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["procrastinate.contrib.django"]
# PROCRASTINATE_IMPORT_PATHS = ["benchmarks.peers.procrastinate"]
# ///

from __future__ import annotations

from procrastinate.contrib.django import app  # type: ignore[import-not-found]  # installed where this runs

from benchmarks import ledger

BATCH = 500


@app.task  # type: ignore[untyped-decorator]
async def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        noop.defer()


def bulk(number: int) -> None:
    for begin in range(0, number, BATCH):
        noop.batch_defer(*({} for _ in range(min(BATCH, number - begin))))
