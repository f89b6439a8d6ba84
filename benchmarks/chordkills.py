"""Does the body of each chord run once when workers are killed? Chords all the time, and one worker killed after the
other, with all its processes."""

from __future__ import annotations

import time
from collections import Counter

from benchmarks import killing, ledger
from benchmarks.bench import Bench, Benchmark
from benchmarks.figures import Reading
from benchmarks.place import PLACES

KILLS = 120
WORKERS = 4


def measure(bench: Bench, scale: float) -> list[Reading]:
    """Send chords until so many workers were killed, let the others end what is left, and look at each chord."""
    kills = max(1, round(KILLS * scale))
    bench.ask("watch_bodies")
    bench.ledger.touch()
    began = time.monotonic()
    with killing.sender(bench, "send_chords", str(bench.ledger)) as sent:
        workers = [bench.start_worker() for _ in range(WORKERS)]
        bench.until_marks(1, workers)
        killing.kill(bench, workers, kills)
    chords: int = sent()
    deadline = time.monotonic() + killing.RESCUED
    while len(ledger.ended(bench.ledger)) < chords and time.monotonic() < deadline:
        time.sleep(killing.LOOK)
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


BENCHMARK = Benchmark("chordkills", "chords while workers are killed", measure, places=tuple(PLACES), kills=KILLS)
