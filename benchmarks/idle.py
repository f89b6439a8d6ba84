"""What does a worker cost that has nothing to do?"""

from __future__ import annotations

import time

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.processes import usage

REST = 11.0
"""Seconds until a worker that has run a task is at rest, and PostgreSQL has counted what was done before."""
SPAN = 20.0
"""Seconds that are measured."""


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Run a few tasks, let the worker come to rest, and watch it do nothing."""
    span = max(5.0, SPAN * scale)
    bench.fill(10)
    workers = bench.start_workers()
    bench.until_marks(10, workers)
    bench.until_finished(workers)
    time.sleep(REST)
    began, before = time.monotonic(), [usage(worker.pid) for worker in workers]
    asked = bench.database.round_trips()
    time.sleep(span)
    asked_then = bench.database.round_trips()
    after, seconds = [usage(worker.pid) for worker in workers], time.monotonic() - began
    cpu = sum(use.cpu for use in after) - sum(use.cpu for use in before)
    wakeups = sum(use.wakeups for use in after) - sum(use.wakeups for use in before)
    readings = [
        Reading("idle: of a core", 100 * cpu / seconds, "%", "less"),
        Reading("idle: wake-ups", wakeups / seconds, "/s", "less"),
    ]
    if asked is not None and asked_then is not None:
        whose = "of the whole server" if bench.database.vendor == "mariadb" else "of the worker"
        readings.append(Reading(f"idle: round trips {whose}", (asked_then - asked) / seconds, "/s", "less"))
    bench.stop(workers)
    return readings


BENCHMARK = Benchmark("idle", "what an idle worker costs", measure, peers=True)
