"""How does Celery do it? A pool of two processes behind a parent that takes 64 tasks for each."""
# /// script
# requires-python = ">=3.11"
# dependencies = ["celery[redis]>=5.7", "django-celery-results", "django"]
#
# [tool.benchmarks]
# name = "Celery"
# places = ["redis", "rabbitmq", "redis-postgres", "rabbitmq-postgres"]
# program = "celery"
# worker = [
#     "--app", "benchmarks.peers.celery_prefork", "worker", "--pool", "prefork", "--concurrency", "2",
#     "--prefetch-multiplier", "64", "--without-gossip", "--without-mingle", "--loglevel", "warning",
# ]
# processes = 1
# bulk = false
# tasks = 6000
# answers = true
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_celery_results"]
# CELERY_BROKER_URL = "{broker}"
#
# [tool.benchmarks.redis]
# CELERY_RESULT_BACKEND = "{broker}"
#
# [tool.benchmarks.redis-postgres]
# CELERY_RESULT_BACKEND = "django-db"
#
# [tool.benchmarks.rabbitmq-postgres]
# CELERY_RESULT_BACKEND = "django-db"
# ///

from __future__ import annotations

import django
from celery import Celery

from benchmarks import calls, ledger
from benchmarks.settings import BENCHMARKS_RESULTS

TIMEOUT = 60.0
"""Seconds to wait for a task."""

django.setup()
app = Celery("benchmarks")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(ignore_result=not BENCHMARKS_RESULTS)  # type: ignore[untyped-decorator]
def noop() -> None:
    ledger.mark()


@app.task  # type: ignore[untyped-decorator]
def answer() -> int:
    return 42


def enqueue(number: int) -> None:
    for _ in range(number):
        noop.delay()


def round_trips(number: int, warm: int, pause: float) -> list[float]:
    return calls.timed(lambda: answer.delay().get(timeout=TIMEOUT), number, warm, pause)
