"""How does django-ox do it? One row a task, queue and result in one, and a supervisor over worker processes."""
# /// script
# requires-python = ">=3.12"
# dependencies = ["django-ox", "django>=6.0"]
#
# [tool.benchmarks]
# name = "django-ox"
# places = ["sqlite", "postgres", "mariadb"]
# worker = ["ox_worker", "--processes", "2", "--concurrency", "4"]
# processes = 1
# bulk = true
# tasks = 2000
# unfinished = "SELECT count(*) FROM django_ox_oxtask WHERE status IN ('READY', 'RUNNING')"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_ox"]
# TASKS = { default = { BACKEND = "django_ox.backend.OxBackend" } }
# ///

from __future__ import annotations

from django.tasks import task
from django_ox.bulk import enqueue_many  # type: ignore[import-not-found]  # installed where this runs

from benchmarks import ledger

BATCH = 500


@task
def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        noop.enqueue()


def bulk(number: int) -> None:
    for begin in range(0, number, BATCH):
        enqueue_many(noop, [((), {})] * min(BATCH, number - begin))
