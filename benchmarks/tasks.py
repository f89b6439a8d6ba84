"""How do we do it? The tasks that the benchmarks run, and what they ask in a process that has Django set up."""
# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.benchmarks]
# name = "django_tasks"
# places = ["sqlite", "postgres", "mariadb", "redis", "rabbitmq", "redis-postgres", "rabbitmq-postgres"]
# worker = ["runworker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "warning"]
# processes = 1
# bulk = true
# tasks = 40000
# unfinished = "SELECT count(*) FROM django_tasks_queuedmessage"
# answers = true
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_tasks", "benchmarks"]
#
# [tool.benchmarks.redis.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "redis", LOCATION = "{broker}" } }
# RESULTS = { default = { BACKEND = "redis", LOCATION = "{broker}" } }
#
# [tool.benchmarks.rabbitmq.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "amqp", LOCATION = "{broker}" } }
#
# [tool.benchmarks.redis-postgres.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "redis", LOCATION = "{broker}" } }
#
# [tool.benchmarks.rabbitmq-postgres.DJANGO_TASKS]
# BROKERS = { default = { BACKEND = "amqp", LOCATION = "{broker}" } }
# ///

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import calls, ledger
from benchmarks.settings import BENCHMARKS_RESULTS
from benchmarks.workflows import (
    bulk_members,
    chord_outcomes,
    get_group,
    send_chain,
    send_chord,
    send_chords,
    send_failing_chord,
    send_group,
    watch_bodies,
)
from django_tasks import bulk as publish
from django_tasks import task
from django_tasks.connections import results
from django_tasks.exceptions import BrokerUnavailable

__all__ = [
    "bulk_members",
    "chord_outcomes",
    "get_group",
    "send_chain",
    "send_chord",
    "send_chords",
    "send_failing_chord",
    "send_group",
    "watch_bodies",
]

BATCH = 500
A_DAY = 86_400.0
TIMEOUT = 60.0
"""Seconds to wait for a task."""
EVERY, PAUSE = 0.005, 0.05
"""Seconds between two tasks, and before one is sent again that was not taken."""


@task(ignore_result=not BENCHMARKS_RESULTS)
def noop() -> None:
    ledger.mark()


@task
def answer() -> int:
    return 42


@task(ignore_result=True)
def numbered(number: int) -> None:
    ledger.number(number)


@task
def wait(seconds: float) -> None:
    time.sleep(seconds)


@task
def record(number: int, seconds: float) -> None:
    """Leave a line when it begins and when it ends."""
    ledger.note(number, "begin")
    time.sleep(seconds)
    ledger.note(number, "end")


def enqueue(number: int) -> None:
    for _ in range(number):
        noop.delay()


def bulk(number: int) -> None:
    for begin in range(0, number, BATCH):
        publish(noop.s() for _ in range(min(BATCH, number - begin)))


def bulk_delayed(number: int) -> None:
    """Enqueue tasks that are not to be run today."""
    tomorrow = noop.using(countdown=A_DAY)
    for begin in range(0, number, BATCH):
        publish(tomorrow.s() for _ in range(min(BATCH, number - begin)))


def bulk_numbered(first: int, number: int, due: float) -> None:
    """Enqueue tasks with consecutive numbers, all to be run at a time in seconds since the epoch."""
    later = numbered.using(eta=datetime.fromtimestamp(due, UTC)) if due else numbered
    for begin in range(first, first + number, BATCH):
        publish(later.s(i) for i in range(begin, min(begin + BATCH, first + number)))


def round_trips(number: int, warm: int, pause: float) -> list[float]:
    return calls.timed(lambda: answer.delay().get(timeout=TIMEOUT), number, warm, pause)


def head_of_line(short: int, seconds: float) -> float:
    """Return after how many seconds the last of the short tasks has ended that were sent around a long one."""
    batch = [noop.s() for _ in range(short)]
    batch.insert(short // 10, wait.s(seconds))
    answer.delay().get(timeout=TIMEOUT)
    began = time.perf_counter()
    sent = publish(batch)
    del sent[short // 10]
    for result in sent:
        result.get(timeout=TIMEOUT)
    return time.perf_counter() - began


def bulk_records(number: int, seconds: float) -> None:
    """Enqueue tasks that say when they begin and end; the number is their id."""
    for begin in range(0, number, BATCH):
        numbers = range(begin, min(begin + BATCH, number))
        publish(record.using(task_id=f"record-{i}").s(i, seconds) for i in numbers)


def send_records(going: str) -> int:
    """Send a task every few milliseconds for as long as a file is there; return how many the broker has taken.

    What it does not take is sent again, under the same id, until it does.
    """
    number = 0
    while Path(going).exists():
        try:
            record.using(task_id=f"record-{number}").delay(number, 0.0)
        except BrokerUnavailable:
            time.sleep(PAUSE)
        else:
            number += 1
            time.sleep(EVERY)
    return number


def states(number: int) -> dict[str, int]:
    """Count the states of the tasks that say when they begin and end; those that are not known are left out."""
    found = Counter[str]()
    for begin in range(0, number, BATCH):
        ids = [f"record-{i}" for i in range(begin, min(begin + BATCH, number))]
        found.update(result.state for result in results["default"].get(ids).values())
    return dict(found)
