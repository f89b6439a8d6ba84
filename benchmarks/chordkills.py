"""Does the body of each chord run once when workers are killed? Chords all the time, and one worker killed after the
other, with all its processes."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from benchmarks import ledger
from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.place import PLACES
from testproject.children import Child

KILLS = 120
WORKERS = 4
EVERY = 0.8
"""Seconds between two kills, about, where workers start fast enough: only one that has run something is killed."""
RESCUED = 180.0
"""Seconds for what was interrupted to be done: more than once the lease of a message, 30 seconds."""
LOOK = 0.1


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Send chords until so many workers were killed, let the others end what is left, and look at each chord."""
    kills = max(1, round(KILLS * scale))
    bench.ask("watch_bodies")
    bench.ledger.touch()
    began = time.monotonic()
    with _sender(bench) as sent:
        workers = [bench.start_worker() for _ in range(WORKERS)]
        bench.until_marks(1, workers)
        _kill(bench, workers, kills)
    chords = sent()
    deadline = time.monotonic() + RESCUED
    while len(ledger.ended(bench.ledger)) < chords and time.monotonic() < deadline:
        time.sleep(LOOK)
    bench.until_finished(workers)
    bench.stop(workers)
    seconds = time.monotonic() - began
    told: dict[str, int] = bench.ask("chord_outcomes", chords).value
    runs = Counter((note.event, note.number) for note in ledger.notes(bench.ledger))
    again = {event: sum(many > 1 for (what, _), many in runs.items() if what == event) for event in ("begin", "end")}
    return [
        Reading("kills", kills, "", "more"),
        Reading("chords", chords, "", "more"),
        Reading("members recorded", told["parts"], "", "more"),
        Reading("groups without all their members", told["odd groups"], "", "less"),
        Reading("bodies published", told["published"], "", "more"),
        Reading("bodies published twice", told["published"] - told["published once"], "", "less"),
        Reading("bodies never published", chords - told["published once"], "", "less"),
        Reading("bodies not ended well", told.get("not ended well", 0), "", "less"),
        Reading("bodies with a wrong value", told.get("wrong value", 0), "", "less"),
        Reading("bodies begun again after a kill", again["begin"], "", "less"),
        Reading("bodies killed after their end", again["end"], "", "less"),
        Reading("seconds", seconds, "s", "less"),
    ]


@contextmanager
def _sender(bench: Bench) -> Iterator[Callable[[], int]]:
    """Send chords for the time of the block; give what then tells how many."""
    going = bench.folder / "going"
    going.touch()
    with ThreadPoolExecutor(1) as executor:
        sender = executor.submit(bench.ask, "send_chords", str(going), str(bench.ledger))
        try:
            yield lambda: int(sender.result().value)
        finally:
            # The sender ends when the file is gone.
            going.unlink()


def _kill(bench: Bench, workers: list[Child], kills: int) -> None:
    rng = random.Random(kills)
    for _ in range(kills):
        time.sleep(rng.uniform(0.5, 1.5) * EVERY)
        victim = _one_at_work(bench, workers)
        workers.remove(victim)
        victim.kill()
        workers.append(bench.start_worker())


def _one_at_work(bench: Bench, workers: list[Child]) -> Child:
    """Return the oldest worker that has run something: to kill one that is not ready would be to kill nothing."""
    deadline = time.monotonic() + RESCUED
    while time.monotonic() < deadline:
        sessions = set(map(_session, {note.pid for note in ledger.notes(bench.ledger)}))
        for worker in workers:
            if worker.pid in sessions:
                return worker
        time.sleep(LOOK)
    raise workers[0].failure("No worker has run anything")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


BENCHMARK = Benchmark("chordkills", "chords while workers are killed", measure, places=tuple(PLACES))
