"""What do 100,000 periodic tasks cost a beat, and how late are they?"""

from __future__ import annotations

import time

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading, percentile
from benchmarks.processes import usage
from testproject.children import Child

ROWS = 100_000
RATE = 100
"""Rows that are due each second."""
TICKS = 20
IDLE, BUSY = 15.0, 60.0
"""Seconds that are measured."""
REST = 5.0
"""Seconds until a beat that has said that it is there is at rest, and until one is busy."""


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Time ticks with ever more rows that are not due, then watch a beat that has nothing to do, and one that has."""
    rows = max(1_000, round(ROWS * scale))
    period = rows // RATE
    readings = _ticks(bench, rows, period)
    beat = bench.start_beat()
    while not bench.database.count("SELECT count(*) FROM django_tasks_beatnode") and beat.poll() is None:
        time.sleep(0.1)
    time.sleep(REST)
    readings.append(Reading("nothing due: of a core", 100 * _load(bench, beat, IDLE * max(0.3, scale)), "%", "less"))
    time.sleep(bench.ask("benchmarks.periodic.begin", rows, period).value + REST)
    readings.append(Reading("busy: of a core", 100 * _load(bench, beat, BUSY * max(0.3, scale)), "%", "less"))
    bench.stop([beat])
    late: list[float] = bench.ask("benchmarks.periodic.lateness").value
    return [
        *readings,
        Reading("sent", len(late), "", "more"),
        Reading("lateness p50", percentile(late, 0.5), "s", "less"),
        Reading("lateness p99", percentile(late, 0.99), "s", "less"),
        Reading("lateness, longest", max(late), "s", "less"),
    ]


def _ticks(bench: Bench, rows: int, period: int) -> list[Reading]:
    bench.ask("benchmarks.periodic.add_timed", RATE)
    readings, there, first = [], 0, 0
    for number in (rows // 100, rows // 10, rows):
        bench.ask("benchmarks.periodic.add", there, number - there, period)
        there = number
        taken: list[float] = bench.ask("benchmarks.periodic.ticks", TICKS, first).value
        first += TICKS
        readings.append(Reading(f"a tick, {number:,} rows", 1000 * percentile(taken, 0.5), "ms", "less"))
    bench.ask("benchmarks.periodic.retire")
    return readings


def _load(bench: Bench, beat: Child, span: float) -> float:
    """Return the share of a core that a beat takes over so many seconds."""
    began, before = time.monotonic(), usage(beat.pid).cpu
    time.sleep(span)
    if beat.poll() is not None:
        raise beat.failure("The beat has ended")
    return (usage(beat.pid).cpu - before) / (time.monotonic() - began)


BENCHMARK = Benchmark("beats", "100,000 periodic tasks, of which 100 are due each second", measure)
