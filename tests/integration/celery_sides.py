"""How do a client and a worker of Celery's take part in a test?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.test import override_settings

from django_tasks import send_task, states, task
from django_tasks.connections import brokers, results
from django_tasks.plan import Result
from django_tasks.serializers import loads
from tests.integration.stage import Meanwhile, build
from tests.rabbit import Rabbit

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which something that should have happened is taken not to happen."""
NEVER = threading.Event()


@task(name="ours.twice")
def twice(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is below zero")
    return 2 * number


@contextmanager
def site_on(rabbit: Rabbit, queue: str = "ours", **more: Any) -> Iterator[dict[str, Any]]:
    """Have this process share a RabbitMQ with Celery, with a queue of its own, which is left empty."""
    keys = {
        "BROKERS": {"default": rabbit.entry},
        "RESULTS": {"default": {"BACKEND": "memory"}},
        "DEFAULT_QUEUE": queue,
        **more,
    }
    with override_settings(DJANGO_TASKS=keys):
        yield keys
        brokers["default"].purge(queue)


def calls_and_reads(client: Celery) -> None:
    """Have Celery's client call our worker, and read from its backend what came of it."""
    good, bad = (client.send_task("ours.twice", args=[number]) for number in (21, -1))
    ours = build(queues=["ours"])

    def story() -> None:
        assert good.get(timeout=PATIENCE) == 42
        with pytest.raises(ValueError, match="-1 is below zero"):
            bad.get(timeout=PATIENCE)
        assert "in twice" in bad.traceback
        ours.stop()

    Meanwhile(ours, story)


def calls_theirs_and_reads(worker: CeleryWorker) -> None:
    """Call Celery's worker, and read from our store what came of it."""
    good, bad = (send_task("interop.half", [number], queue="theirs") for number in (84, 7))
    # The worker takes its time to start on a machine that is busy.
    assert results["default"].wait([good.id], 2 * PATIENCE), worker.log.read_text()[-3000:]
    assert good.get(PATIENCE) == 42
    with pytest.raises(ValueError, match="7 is odd"):
        bad.get(PATIENCE)
    assert "in half" in str(bad.traceback)


def ended(task_id: str) -> Result:
    """Run a worker of ours until a task has ended."""
    found: dict[str, Result] = {}

    def story() -> None:
        found.update(results["default"].wait([task_id], PATIENCE))
        ours.stop()

    ours = build(queues=["ours"])
    Meanwhile(ours, story)
    return found[task_id]


def value(result: Result) -> Any:
    assert (result.state, result.failure) == (states.SUCCESS, None)
    assert result.value is not None
    return loads(result.value)


class CeleryWorker:
    """A Celery worker, and what its tasks have seen; `environment` says where it keeps results."""

    def __init__(self, rabbit: Rabbit, folder: Path, *, queue: str = "theirs", **environment: str) -> None:
        self.file, self.log = folder / "seen", folder / "log"
        environment = {
            **os.environ,
            **environment,
            "INTEROP_URL": rabbit.url,
            "INTEROP_QUEUE": rabbit.name(queue),
            "INTEROP_FILE": str(self.file),
        }
        # Two workers of one name cannot share a server, and tests run side by side.
        name = f"{uuid.uuid4().hex}@%h"
        quiet = ("-n", name, "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.integration.celery_app", "worker", "-P", "solo", *quiet],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def seen(self, task_id: str, number: int = 1) -> list[dict[str, Any]]:
        """Wait until a task has run so often; return what it saw each time."""
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = self.file.read_text().splitlines() if self.file.exists() else []
            found = [line for line in map(json.loads, lines) if line["id"] == task_id]
            if len(found) >= number:
                return found
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            NEVER.wait(0.05)

    def said(self, *words: str) -> None:
        """Wait until the worker has logged a line with all of these words."""
        deadline = time.monotonic() + PATIENCE
        while not any(all(word in line for word in words) for line in self.log.read_text().splitlines()):
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            NEVER.wait(0.05)

    def close(self) -> None:
        # It would take its time to say goodbye.
        self.process.kill()
        self.process.wait()
