"""Which workflows are sent while workers are killed? Any that a few nodes make, each to end as it does when its tasks
are called one after the other."""
# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.benchmarks]
# name = "django_tasks"
# places = ["sqlite", "postgres", "mariadb", "redis", "rabbitmq", "redis-postgres", "rabbitmq-postgres"]
# worker = ["runworker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "warning"]
# processes = 1
# bulk = false
# tasks = 0
# unfinished = "SELECT count(*) FROM django_tasks_queuedmessage"
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = ["django_tasks", "benchmarks.trees"]
#
# [tool.benchmarks.settings.DJANGO_TASKS]
# LEASE = 3.0  # what a killed worker had is taken from it before long
# HEARTBEAT = 0.5
# BROKERS = { default = { BACKEND = "benchmarks.trees.echoes.EchoingDatabase" } }
#
# [tool.benchmarks.redis.DJANGO_TASKS]
# LEASE = 3.0
# HEARTBEAT = 0.5
# BROKERS = { default = { BACKEND = "benchmarks.trees.echoes.EchoingRedis", LOCATION = "{broker}" } }
# RESULTS = { default = { BACKEND = "redis", LOCATION = "{broker}" } }
#
# [tool.benchmarks.rabbitmq.DJANGO_TASKS]
# LEASE = 3.0
# HEARTBEAT = 0.5
# BROKERS = { default = { BACKEND = "benchmarks.trees.echoes.EchoingAmqp", LOCATION = "{broker}" } }
#
# [tool.benchmarks.redis-postgres.DJANGO_TASKS]
# LEASE = 3.0
# HEARTBEAT = 0.5
# BROKERS = { default = { BACKEND = "benchmarks.trees.echoes.EchoingRedis", LOCATION = "{broker}" } }
#
# [tool.benchmarks.rabbitmq-postgres.DJANGO_TASKS]
# LEASE = 3.0
# HEARTBEAT = 0.5
# BROKERS = { default = { BACKEND = "benchmarks.trees.echoes.EchoingAmqp", LOCATION = "{broker}" } }
# ///

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ledger
from django_tasks import AsyncResult, GroupResult, Task, task
from django_tasks.result import line_of, look
from tests.trees import Failed, Leaf, Tasks, Tree, evaluated, grown, workflow

BRIEF = 0.002
"""Seconds that a task takes."""
AWAY, LOOK = 40, 0.05
"""Trees that are under way at any time, and seconds between two looks at them."""
NEVER = 1_000
"""Crashes after which a task is given up: here each is killed again and again for what others do."""
ON_PURPOSE = "on purpose"

Bound = Task[..., Any]


@task(bind=True, max_crashes=NEVER)
def collect(self: Bound, *args: Any) -> list[Any]:
    """Return all that it was given."""
    return _run(self, args, "end")


@task(bind=True, max_crashes=NEVER)
def body(self: Bound, *args: Any) -> list[Any]:
    return _run(self, args, "body")


@task(bind=True, max_crashes=NEVER)
def fail(self: Bound, *args: Any) -> None:
    _run(self, args, "failed")
    raise ValueError(ON_PURPOSE)


def _run(bound: Bound, args: tuple[Any, ...], end: str) -> list[Any]:
    number = ledger.number_of(str(bound.request.id))
    ledger.note(number, "begin")
    time.sleep(BRIEF)
    ledger.note(number, end)
    return list(args)


TASKS = Tasks(collect, fail, body)


@dataclass(frozen=True, slots=True)
class Sent:
    """A tree that was sent, and the handles of all its tasks."""

    number: int
    tree: Tree | Leaf
    handle: Any
    tasks: list[AsyncResult[Any]]


def send_trees(going: str, seconds: float) -> dict[str, Any]:
    """Keep trees under way for as long as a file is there, and look how each has ended within so many seconds from then
    on.

    Returns how many were sent and of how many tasks they are, how many failed, and what is to be said of each that
    ended otherwise than it should have, and of each that has not ended.
    """
    number, many, failed = 0, 0, 0
    away: list[Sent] = []
    wrong: list[str] = []
    deadline = float("inf")
    while (sending := Path(going).exists()) or (away and time.monotonic() < deadline):
        while sending and len(away) < AWAY:
            away.append(_send(number))
            number, many = number + 1, many + len(away[-1].tasks)
        if not sending:
            deadline = min(deadline, time.monotonic() + seconds)
        look([each for sent in away for each in sent.tasks])
        for sent in [each for each in away if _has_ended(each)]:
            away.remove(sent)
            failed += _fails(sent.tree)
            wrong += _faults(sent)
        time.sleep(LOOK)
    return {"trees": number, "tasks": many, "failed": failed, "wrong": wrong, "hung": list(map(_standing, away))}


def _send(number: int) -> Sent:
    rng = random.Random(number)
    tree = grown(rng, failing=rng.random() < 0.5)
    handle = workflow(tree, TASKS).apply_async()
    return Sent(number, tree, handle, list(_tasks_of(handle)))


def _tasks_of(handle: Any) -> Iterator[AsyncResult[Any]]:
    for each in line_of(handle):
        if isinstance(each, GroupResult):
            for member in each.results:
                yield from _tasks_of(member)
        else:
            yield each


def _groups_of(handle: Any) -> Iterator[GroupResult]:
    for each in line_of(handle):
        if isinstance(each, GroupResult):
            yield each
            for member in each.results:
                yield from _groups_of(member)


def _has_ended(sent: Sent) -> bool:
    """Tell whether each of its tasks has ended, and each of its groups: also what was never to run is to say so."""
    return all(each.known is not None for each in sent.tasks) and all(each.ready() for each in _groups_of(sent.handle))


def _fails(tree: Tree | Leaf) -> bool:
    try:
        evaluated(tree)
    except Failed:
        return True
    return False


def _faults(sent: Sent) -> Iterable[str]:
    """Say in what a tree has ended otherwise than it should have."""
    try:
        value = sent.handle.get(0)
    except Exception as error:  # noqa: BLE001  # whatever a task raised
        if not _fails(sent.tree) or ON_PURPOSE not in str(error):
            yield f"{_told(sent)} raised {error!r}"
    else:
        if _fails(sent.tree):
            yield f"{_told(sent)} ended with {value!r}, and a leaf fails"
        elif value != (expected := evaluated(sent.tree)):
            yield f"{_told(sent)} ended with {value!r} in place of {expected!r}"


def _standing(sent: Sent) -> str:
    """Say how far a tree has come."""
    tasks = [f"{each.id} {each.state}" for each in sent.tasks if each.known is None]
    groups = [repr(each.progress()) for each in _groups_of(sent.handle) if not each.ready()]
    return f"{_told(sent)} has not ended: {', '.join(tasks + groups)}"


def _told(sent: Sent) -> str:
    return f"tree {sent.number}, {sent.tree},"
