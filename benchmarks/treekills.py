"""Does any workflow end as it should when workers are killed and messages come twice? Trees of chains, groups and
chords all the time, and one worker killed after the other, with all its processes."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from benchmarks import killing, ledger
from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.place import PLACES

KILLS = 50
WORKERS = 4


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Send trees until so many workers were killed, let the others end what is left, and look at each tree."""
    kills = max(1, round(KILLS * scale))
    bench.ledger.touch()
    began = time.monotonic()
    with killing.sender(bench, "send_trees", killing.RESCUED) as sent:
        workers = [bench.start_worker() for _ in range(WORKERS)]
        bench.until_marks(1, workers)
        killing.kill(bench, workers, kills)
    told: dict[str, Any] = sent()
    bench.stop(workers)
    seconds = time.monotonic() - began
    for line in (*told["wrong"], *told["hung"]):
        print(f"  {line}", flush=True)
    runs = Counter((note.event, note.number) for note in ledger.notes(bench.ledger))
    return [
        Reading("kills", kills, "", "more"),
        Reading("trees", told["trees"], "", "more"),
        Reading("trees that fail", told["failed"], "", "more"),
        Reading("tasks", told["tasks"], "", "more"),
        Reading("wrong", len(told["wrong"]), "", "less"),
        Reading("hung", len(told["hung"]), "", "less"),
        Reading("messages given out twice", _sum(runs, ledger.ECHO), "", "more"),
        Reading("runs", _sum(runs, "begin"), "", "more"),
        Reading("bodies run to success more than once", _again(runs, "body"), "", "less"),
        Reading("seconds", seconds, "s", "less"),
    ]


def _sum(runs: Counter[tuple[str, int]], event: str) -> int:
    return sum(many for (what, _), many in runs.items() if what == event)


def _again(runs: Counter[tuple[str, int]], event: str) -> int:
    return sum(many > 1 for (what, _), many in runs.items() if what == event)


BENCHMARK = Benchmark(
    "treekills",
    "any workflows while workers are killed and messages come twice",
    measure,
    places=tuple(PLACES),
    kills=KILLS,
    system="benchmarks.trees.tasks",
)
