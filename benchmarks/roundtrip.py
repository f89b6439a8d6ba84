"""How long does a call take that waits for its result, when the worker has nothing else to do?"""

from __future__ import annotations

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading, percentile

CALLS = 300
WARM = 20
"""Calls before those that count."""
PAUSE = 0.05
"""Seconds between calls, about: a worker must have come to rest."""


def measure(bench: Bench, scale: float) -> list[Reading]:
    bench.start_workers()
    taken: list[float] = bench.ask("round_trips", max(30, round(CALLS * scale)), WARM, PAUSE).value
    return [
        Reading(f"round trip p{share:.0%}".rstrip("%"), percentile(taken, share) * 1000, "ms", "less")
        for share in (0.50, 0.95, 0.99)
    ]


BENCHMARK = Benchmark(
    "roundtrip",
    "delay().get() on an idle worker",
    measure,
    places=("sqlite", "postgres", "mariadb", "redis"),
    peers=True,
    answers=True,
)
