"""Does work go on when the broker's server was restarted? Tasks are sent all the time, and it goes again and again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks import ledger
from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading, percentile

RESTARTS = {"redis": 20, "rabbitmq": 10}
BETWEEN = 2.0
"""Seconds from the first task that was run after a restart to the next stop."""
PATIENCE = 60.0
"""Seconds for work to go on, and for all that was sent to be done."""
LOOK = 0.01


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Restart the server under load; a kill every other time. Count what was sent, what was run, and how soon."""
    assert bench.place.server is not None
    restarts = max(2, round(RESTARTS[bench.place.name] * scale))
    workers = bench.start_workers()
    with ThreadPoolExecutor(1) as executor:
        # Ends when the file is gone.
        going = bench.folder / "going"
        going.touch()
        sender = executor.submit(bench.ask, "send_records", str(going))
        try:
            _next_end(bench, time.monotonic())
            pauses = [_restart(bench, kill=bool(number % 2)) for number in range(restarts)]
        finally:
            going.unlink()
        sent: int = sender.result().value
    deadline = time.monotonic() + PATIENCE
    while len(ledger.ended(bench.ledger)) < sent and time.monotonic() < deadline:
        time.sleep(LOOK)
    done = ledger.ended(bench.ledger)
    runs = sum(note.event == "end" for note in ledger.notes(bench.ledger))
    bench.stop(workers)
    return [
        Reading("restarts", restarts, "", "more"),
        Reading("tasks sent", sent, "", "more"),
        Reading("tasks never run", sent - len(done), "", "less"),
        Reading("ended twice", runs - len(done), "", "less"),
        Reading("goes on after, p50", percentile(pauses, 0.5), "s", "less"),
        Reading("goes on after, longest", max(pauses), "s", "less"),
    ]


def _restart(bench: Bench, *, kill: bool) -> float:
    """Return the seconds from the server's first answer to the end of the next task."""
    time.sleep(BETWEEN)
    server = bench.place.server
    assert server is not None
    server.stop(kill=kill)
    server.start()
    up = time.monotonic()
    return _next_end(bench, up) - up


def _next_end(bench: Bench, since: float) -> float:
    """Wait for a task to end after a time, and return when the first one did."""
    while time.monotonic() < since + PATIENCE:
        ends = [note.time for note in ledger.notes(bench.ledger) if note.event == "end" and note.time > since]
        if ends:
            return min(ends)
        time.sleep(LOOK)
    return since + PATIENCE


BENCHMARK = Benchmark("restarts", "the broker's server restarted under load", measure, places=tuple(RESTARTS))
