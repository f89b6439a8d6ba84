"""How are workers killed, one after the other, while something is sent all the time?"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks import ledger
from benchmarks.bench import Bench
from testproject.children import Child

EVERY = 0.8
"""Seconds between two kills, about, where workers start fast enough: only one that has run something is killed."""
RESCUED = 180.0
"""Seconds for what was interrupted to be done: more than once the lease of a message, 30 seconds."""
LOOK = 0.1


@contextmanager
def sender(bench: Bench, function: str, *arguments: float | str) -> Iterator[Callable[[], Any]]:
    """Have a function of the system send for the time of the block; give what then tells what that returned."""
    going = bench.folder / "going"
    going.touch()
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(bench.ask, function, str(going), *arguments)
        try:
            yield lambda: asked.result().value
        finally:
            # The sender ends when the file is gone.
            going.unlink()


def kill(bench: Bench, workers: list[Child], kills: int) -> None:
    """Kill so many workers with all their processes, and start one in the place of each."""
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
