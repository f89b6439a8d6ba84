"""What is lost when workers are killed? Three workers, 2,000 tasks, one worker's processes killed each second."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from benchmarks import ledger
from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading, percentile
from benchmarks.place import PLACES

TASKS = 2_000
TASK = 0.05
"""Seconds that a task takes."""
WORKERS = 3
SLOTS = 2
"""Tasks that a worker runs at once: so many runs, at most, may a kill repeat."""
EVERY = 1.0
"""Seconds between two kills."""
RESCUED = 120.0
"""Seconds for what was interrupted to be done."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a task; `end` is None when it was killed. Times are of the monotonic clock."""

    begin: float
    end: float | None


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Kill a worker each second while there is work that nobody has begun, then let the others rescue what is left."""
    tasks = max(100, round(TASKS * scale))
    bench.ask("bulk_records", tasks, TASK)
    kills = _kill(bench, tasks, seed=tasks)
    runs = _runs(bench)
    states: dict[str, int] = bench.ask("states", tasks).value
    interrupted = sum(run.end is None for of_task in runs.values() for run in of_task)
    rescues = list(_rescues(runs))
    return [
        Reading("kills", len(kills), "", "more"),
        Reading("slots of killed workers", len(kills) * SLOTS, "", "more"),
        Reading("tasks lost", tasks - states.get("SUCCESS", 0), "", "less"),
        Reading("tasks never run", tasks - len(runs), "", "less"),
        Reading("runs cut off", interrupted, "", "less"),
        Reading("runs too many", sum(map(len, runs.values())) - len(runs), "", "less"),
        Reading("ended twice", sum(sum(run.end is not None for run in of) > 1 for of in runs.values()), "", "less"),
        Reading("rescue p50", percentile(rescues, 0.5) if rescues else 0.0, "s", "less"),
        Reading("rescue, longest", max(rescues, default=0.0), "s", "less"),
        Reading("last begin after the last kill", _last_begin(runs) - kills[-1], "s", "less"),
    ]


def _kill(bench: Bench, tasks: int, *, seed: int) -> list[float]:
    """Run all tasks, and return when workers were killed."""
    rng = random.Random(seed)
    workers = [bench.start_worker() for _ in range(WORKERS)]
    bench.until_marks(1, workers)
    kills = []
    while len(_runs(bench)) < tasks * 0.95:
        time.sleep(EVERY)
        victim = rng.randrange(WORKERS)
        workers[victim].kill()
        kills.append(time.monotonic())
        workers[victim] = bench.start_worker()
    deadline = time.monotonic() + RESCUED
    while len(ledger.ended(bench.ledger)) < tasks and time.monotonic() < deadline:
        time.sleep(0.1)
    bench.stop(workers)
    return kills


def _runs(bench: Bench) -> dict[int, list[Run]]:
    """Return the runs of each task, in order."""
    ends: dict[tuple[int, int], list[float]] = defaultdict(list)
    begins: list[tuple[float, int, int]] = []
    for note in ledger.notes(bench.ledger):
        if note.event == "begin":
            begins.append((note.time, note.number, note.pid))
        else:
            ends[note.number, note.pid].append(note.time)
    runs: dict[int, list[Run]] = defaultdict(list)
    for begin, number, pid in sorted(begins):
        later = [end for end in ends[number, pid] if end >= begin]
        runs[number].append(Run(begin, min(later, default=None)))
    return runs


def _rescues(runs: dict[int, list[Run]]) -> Iterator[float]:
    """Give the seconds from the begin of each run that was killed to the next begin of the same task.

    It was killed within the length of a task after it began.
    """
    for of_task in runs.values():
        for run, following in pairwise(of_task):
            if run.end is None:
                yield following.begin - run.begin


def _last_begin(runs: dict[int, list[Run]]) -> float:
    return max(run.begin for of_task in runs.values() for run in of_task)


BENCHMARK = Benchmark("kills", "workers killed each second", measure, places=tuple(PLACES))
