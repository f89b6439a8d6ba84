"""How does django-tasks-db do it? The database backend of those who wrote Django's own tasks.

One process runs one task at a time, so two workers are two processes.
"""
# /// script
# requires-python = ">=3.12"
# dependencies = ["django-tasks-db", "django>=6.0"]
#
# [tool.benchmarks]
# name = "django-tasks-db"
# places = ["sqlite", "postgres", "mariadb"]
# worker = ["db_worker", "--no-startup-delay", "--verbosity", "0"]
# processes = 2
# bulk = false
# tasks = 2000
# unfinished = "SELECT count(*) FROM django_tasks_database_dbtaskresult WHERE status IN ('READY', 'RUNNING')"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_tasks_db"]
# TASKS = { default = { BACKEND = "django_tasks_db.DatabaseBackend" } }
# ///

from __future__ import annotations

from django.tasks import task

from benchmarks import ledger


@task
def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        noop.enqueue()
