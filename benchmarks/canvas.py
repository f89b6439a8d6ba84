"""What do workflows cost? A chord beside the same tasks without it, chains of several lengths, and a large group."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.place import PLACES

MEMBERS = 10_000
WARM = 2_000
"""Tasks that are run before anything is timed: the first ones find everything cold."""
STEPS = (250, 500, 1_000, 2_000)
"""Of chains, each twice as long as the one before."""
GROUP = 100_000


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Measure all of it in one place, one after the other."""
    _drain(bench, "bulk_members", max(100, round(WARM * scale)))
    return [*_chord(bench, scale), *_chains(bench, scale), *_group(bench, scale)]


def _chord(bench: Bench, scale: float) -> Iterator[Reading]:
    members = max(100, round(MEMBERS * scale))
    done = bench.marks()
    alone = _drain(bench, "bulk_members", members)
    together = _drain(bench, "send_chord", members, more=1)
    failed = _drain(bench, "send_failing_chord", members, more=1)
    yield Reading(f"{members:,} tasks", alone, "s", "less")
    yield Reading(f"chord of {members:,}", together, "s", "less")
    yield Reading("chord, of its tasks alone", together / alone, "x", "less")
    # As many runs as members, and the errback: one more would be none of them.
    yield Reading("chord with one that fails, of its tasks alone", failed / alone, "x", "less")
    yield Reading("runs too many", bench.marks() - done - 3 * members - 2, "", "less")


def _drain(bench: Bench, sent: str, number: int, *, more: int = 0) -> float:
    """Send so many tasks and what follows them; return the seconds from the first run until all is written down."""
    bench.ask(sent, number)
    done = bench.marks()
    workers = bench.start_workers()
    first = bench.until_marks(done + 1, workers)
    bench.until_marks(done + number + more, workers)
    last = bench.until_finished(workers)
    bench.stop(workers)
    return last - first


def _chains(bench: Bench, scale: float) -> Iterator[Reading]:
    """Run chains one after the other: where their length does not matter, each step takes the same time."""
    for steps in STEPS:
        length = max(10, round(steps * scale))
        done = bench.marks()
        size = bench.ask("send_chain", length).value
        workers = bench.start_workers()
        first = bench.until_marks(done + 1, workers)
        last = bench.until_marks(done + length, workers)
        bench.stop(workers)
        yield Reading(f"a step, chain of {length:,}", (last - first) / (length - 1) * 1000, "ms", "less")
        yield Reading(f"first message, chain of {length:,}", size / 1024, "KiB", "less")


def _group(bench: Bench, scale: float) -> Iterator[Reading]:
    members = max(100, round(GROUP * scale))
    done = bench.marks()
    sent = bench.ask("send_group", members)
    workers = bench.start_workers()
    bench.until_marks(done + members, workers)
    bench.until_finished(workers)
    bench.stop(workers)
    got = bench.ask("get_group", sent.value)
    yield Reading(f"send, group of {members:,}", sent.seconds, "s", "less")
    yield Reading(f"get, group of {members:,}", got.seconds, "s", "less")
    yield Reading("values missing or wrong", members - max(0, got.value["values"]), "", "less")
    yield Reading("questions to get them", got.value["asked"], "", "less")


BENCHMARK = Benchmark("canvas", "chords, chains and a large group", measure, places=tuple(PLACES))
