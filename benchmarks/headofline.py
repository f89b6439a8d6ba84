"""Does a long task hold up short ones? One of 10 seconds among 200 short ones, two slots."""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading

SHORT = 200
LONG = 10.0
"""Seconds."""


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Send all at once to a worker that is ready, and time the last of the short ones."""
    workers = bench.start_workers()
    seconds: float = bench.ask("head_of_line", SHORT, LONG).value
    for worker in workers:
        # The long one need not end.
        worker.kill()
    return [Reading(f"{SHORT} short tasks done", seconds, "s", "less")]


BENCHMARK = Benchmark("headofline", "short tasks behind a long one", measure)
