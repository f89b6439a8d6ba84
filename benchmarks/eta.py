"""What do a million tasks for later cost a worker? All are due at one time; its memory is watched before and after."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks import ledger
from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.place import PLACES
from benchmarks.processes import resident
from testproject.children import Child

TASKS = 1_000_000
WARM = 1_000
"""Tasks that are run at once, before anything is measured."""
SENT = 3_000
"""Tasks a second, at least, that are sent: so much later are all of them due."""
LEAST = 20.0
"""Seconds, at least, until they are due."""
STEP = 1_000
"""Runs between two looks at the memory."""
MIB = 2**20


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Send to a worker that is there already, and count what it ran."""
    tasks = max(1_000, round(TASKS * scale))
    workers = bench.start_workers()
    bench.ask("bulk_numbered", 0, WARM, 0.0)
    _until(bench, WARM, workers)
    before = _memory(workers)
    due = time.time() + max(LEAST, tasks / SENT)
    bench.ask("bulk_numbered", WARM, tasks, due)
    waiting = _memory(workers)
    early = len(ledger.numbers(bench.ledger)) - WARM if time.time() < due else 0
    time.sleep(max(0.0, due - time.time()))
    began = time.monotonic()
    most = _until(bench, WARM + tasks, workers)
    seconds = time.monotonic() - began
    bench.stop(workers)
    run = ledger.numbers(bench.ledger)
    return [
        Reading("tasks for later", tasks, "", "more"),
        Reading("run too early", early, "", "less"),
        Reading("never run", WARM + tasks - len(set(run)), "", "less"),
        Reading("run twice", len(run) - len(set(run)), "", "less"),
        Reading("run when they were due", tasks / seconds, "/s", "more"),
        Reading("memory before", before / MIB, "MiB", "less"),
        Reading("memory with all waiting", waiting / MIB, "MiB", "less"),
        Reading("memory at most", max(most, waiting) / MIB, "MiB", "less"),
    ]


def _until(bench: Bench, number: int, workers: Sequence[Child]) -> int:
    """Wait for so many runs; return the most memory that was seen."""
    most = done = 0
    while done < number:
        done = min(number, done + STEP)
        bench.until_marks(done * ledger.LINE, list(workers))
        most = max(most, _memory(workers))
    return most


def _memory(workers: Sequence[Child]) -> int:
    return sum(resident(worker.pid) for worker in workers)


BENCHMARK = Benchmark("eta", "a million tasks for later", measure, places=tuple(PLACES))
