"""Is a deep queue slower than a short one? Drains the same number with nothing and with a million behind them."""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.processes import resident

ROWS = 1_000_000
TASKS = 20_000
"""Drained and timed."""
WARM = 0.1
"""The share of these that is run before the clock starts."""
MIB = 2**20


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Measure three times in one database, which is warm: a short queue, one beside delayed tasks, and a deep one."""
    rows, tasks = round(ROWS * scale), max(500, round(TASKS * scale))
    _drain(bench, tasks, rows=0)
    short, memory_short = _drain(bench, tasks, rows=0)
    bench.ask("bulk_delayed", rows)
    delayed, _ = _drain(bench, tasks, rows=0)
    deep, memory_deep = _drain(bench, tasks, rows=rows)
    return [
        Reading("drain, short queue", short, "/s", "more"),
        Reading(f"drain, {rows:,} delayed", delayed, "/s", "more"),
        Reading(f"drain, {rows:,} waiting", deep, "/s", "more"),
        Reading("delayed, of short", 100 * delayed / short, "%", "more"),
        Reading("waiting, of short", 100 * deep / short, "%", "more"),
        Reading("memory, short queue", memory_short / MIB, "MiB", "less"),
        Reading("memory, deep queue", memory_deep / MIB, "MiB", "less"),
    ]


def _drain(bench: Bench, tasks: int, *, rows: int) -> tuple[float, int]:
    """Return tasks a second over so many tasks, with more waiting behind them, and the memory then used."""
    bench.fill(tasks + rows)
    done = bench.marks()
    workers = bench.start_workers()
    warm = round(tasks * WARM)
    began = bench.until_marks(done + warm, workers)
    ended = bench.until_marks(done + tasks, workers)
    memory = sum(resident(worker.pid) for worker in workers)
    bench.stop(workers)
    return (tasks - warm) / (ended - began), memory


BENCHMARK = Benchmark("deep", "a million rows in the queue", measure, places=("postgres",))
