"""Which slots are lost or run twice when beats are frozen and killed? Five beats, 50 periodic tasks a second."""

from __future__ import annotations

import os
import random
import signal
import time

from benchmarks.bench import STALLED, Bench, Benchmark
from benchmarks.figures import Reading, percentile

BEATS = 5
ROWS = 50
"""Each is due every second."""
SPAN = 300.0
"""Seconds."""
KILLED = 0.2
"""The share of faults that are a kill; the others freeze a beat for a while."""
PAUSE, FROZEN = 0.5, 2.0
"""Seconds between two faults, and of being frozen, at most."""


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Freeze or kill one beat after the other for minutes, let the others end in good order, and count."""
    span = max(10.0, SPAN * scale)
    bench.ask("benchmarks.periodic.add_each_second", ROWS)
    rng = random.Random(int(span))
    beats = [bench.start_beat() for _ in range(BEATS)]
    _until_sent(bench, ROWS)
    kills = freezes = 0
    until = time.monotonic() + span
    while time.monotonic() < until:
        number = rng.randrange(BEATS)
        if rng.random() < KILLED:
            beats[number].kill()
            beats[number] = bench.start_beat()
            kills += 1
        else:
            os.killpg(beats[number].pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.0, FROZEN))
            os.killpg(beats[number].pid, signal.SIGCONT)
            freezes += 1
        time.sleep(rng.uniform(0.0, PAUSE))
    _until_sent(bench, bench.ask("benchmarks.periodic.sent").value + 2 * ROWS)
    bench.stop(beats)
    tally: dict[str, int] = bench.ask("benchmarks.periodic.tally").value
    late: list[float] = bench.ask("benchmarks.periodic.lateness").value
    return [
        Reading("kills", kills, "", "more"),
        Reading("freezes", freezes, "", "more"),
        Reading("slots sent", tally["sent"], "", "more"),
        Reading("slots missing", tally["missing"] + tally["behind"] + ROWS - tally["rows"], "", "less"),
        Reading("slots without a message", tally["without message"], "", "less"),
        Reading("messages too many", tally["twice"] + tally["without slot"], "", "less"),
        Reading("lateness p50", percentile(late, 0.5), "s", "less"),
        Reading("lateness p99", percentile(late, 0.99), "s", "less"),
        Reading("lateness, longest", max(late), "s", "less"),
    ]


def _until_sent(bench: Bench, number: int) -> None:
    deadline = time.monotonic() + STALLED
    while bench.ask("benchmarks.periodic.sent").value < number and time.monotonic() < deadline:
        time.sleep(0.2)


BENCHMARK = Benchmark("beatfaults", "five beats frozen and killed, 50 periodic tasks a second", measure)
