"""How does dj_queue do it? After Rails' Solid Queue: a table for each state, a supervisor over workers of threads."""
# /// script
# requires-python = ">=3.12"
# dependencies = ["dj-queue", "django>=6.0"]
#
# [tool.benchmarks]
# name = "dj_queue"
# places = ["sqlite", "postgres", "mariadb"]
# worker = ["dj_queue", "--skip-recurring", "--verbosity", "0"]
# processes = 1
# bulk = true
# tasks = 3000
# unfinished = "SELECT count(*) FROM dj_queue_jobs WHERE finished_at IS NULL"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["dj_queue"]
#
# [tool.benchmarks.settings.TASKS.default]
# BACKEND = "dj_queue.backend.DjQueueBackend"
# QUEUES = []
#
# [[tool.benchmarks.settings.TASKS.default.OPTIONS.workers]]
# queues = "*"
# threads = 4
# processes = 2
# prefetch_multiplier = 12
# ///

from __future__ import annotations

from typing import Any

from django.tasks import task

from benchmarks import ledger

BATCH = 500


@task
def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        noop.enqueue()


def bulk(number: int) -> None:
    # Nobody else has this method.
    backend: Any = noop.get_backend()
    for begin in range(0, number, BATCH):
        backend.enqueue_all([(noop, [], {})] * min(BATCH, number - begin))
