"""How does django-q2 do it? A cluster of processes around one pusher and one monitor.

It takes up to `bulk` rows at once, claims and acknowledges each by itself. A claim may be lost to `retry`, which
must be longer than `timeout`. Successes are all kept, as the others keep them.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["django-q2"]
#
# [tool.benchmarks]
# name = "django-q2"
# places = ["sqlite", "postgres", "mariadb"]
# worker = ["qcluster"]
# processes = 1
# bulk = false
# tasks = 2000
# unfinished = "SELECT count(*) FROM django_q_ormq"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_q"]
#
# [tool.benchmarks.settings.Q_CLUSTER]
# name = "benchmarks"
# orm = "default"
# workers = 2
# bulk = 100
# queue_limit = 500
# recycle = 100000
# save_limit = 0
# timeout = 600
# retry = 3600
# scheduler = false
# log_level = "WARNING"
# ///

from __future__ import annotations

from django_q.tasks import async_task  # type: ignore[import-not-found]  # installed where this runs

from benchmarks import ledger


def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        async_task("benchmarks.peers.django_q2.noop")
