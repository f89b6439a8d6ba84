"""What can a benchmark do with a system? Enqueue, start workers, and watch what they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environment, place
from benchmarks.figures import OURS, Reading
from benchmarks.header import Header
from testproject.children import Child, ChildFailed

ROOT = environment.ROOT
LOOK = 0.002
"""Seconds between two looks at the ledger."""
STALLED = 90.0
"""Seconds without any progress before a run is given up: beyond the time in which a dead worker is noticed."""
STOP_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function of a system returned, and how many seconds it took."""

    seconds: float
    value: Any


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Something that can be measured: `measure` takes a bench and a scale, 1.0 being the full size."""

    name: str
    summary: str
    measure: Callable[[Bench, float], list[Reading]]
    places: tuple[str, ...] = ("sqlite", "postgres", "mariadb")
    peers: bool = False
    """Whether other systems can be measured in the same way."""
    answers: bool = False
    """Whether a system must be able to say how long its round trips take."""
    kills: int = 0
    """How many workers it kills at full size, where it is asked for a number of these."""
    system: str = "benchmarks.tasks"
    """The module of what is measured of ours."""


class Bench:
    """A system at an empty place. Its processes run in the system's own environment."""

    def __init__(self, header: Header, at: place.Place, folder: Path, python: Path) -> None:
        self.header = header
        self.place = at
        self.database = at.database
        self.folder = folder
        self.python = python
        self.ledger = folder / "ledger"
        self._stack = ExitStack()
        self._started = 0
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "BENCHMARKS_BROKER": at.broker,
            "BENCHMARKS_DATABASE": json.dumps(at.database.entry),
            "BENCHMARKS_LEDGER": str(self.ledger),
            "BENCHMARKS_PLACE": at.name,
            "BENCHMARKS_RESULTS": str(at.keeps_results),
            "BENCHMARKS_SYSTEM": header.module,
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "PYTHONPATH": str(ROOT if header.name.startswith(OURS) else self._only_benchmarks()),
        }

    def _only_benchmarks(self) -> Path:
        """Return a folder to import from in which our own package cannot be seen."""
        path = self.folder / "import"
        path.mkdir()
        path.joinpath("benchmarks").symlink_to(ROOT / "benchmarks")
        return path

    def prepare(self) -> None:
        """Make the tables."""
        self._run([str(self.python), "-m", "django", "migrate", "--verbosity", "0"])

    def ask(self, function: str, *arguments: float | str) -> Answer:
        """Call a function of the system, or one at a dotted path, in a process of its own."""
        said = self._run([str(self.python), "-m", "benchmarks.drive", function, *map(json.dumps, arguments)])
        answer = json.loads(said.splitlines()[-1])
        return Answer(answer["seconds"], answer["value"])

    def fill(self, number: int) -> Answer:
        """Enqueue so many tasks that do nothing, in the fastest way."""
        return self.ask("bulk" if self.header.bulk else "enqueue", number)

    def start_worker(self) -> Child:
        """Start one worker; it is stopped at the end at the latest."""
        return self._start("worker", [self.header.program, *self.header.worker])

    def start_beat(self) -> Child:
        """Start one beat of ours; it is stopped at the end at the latest."""
        return self._start("beat", ["django", "beat", "--loglevel", "warning"])

    def _start(self, name: str, arguments: list[str]) -> Child:
        self._started += 1
        command = [str(self.python), "-m", *arguments]
        child = Child(f"{name} {self._started}", command, self.folder, self._environment)
        self._stack.callback(child.kill)
        child.start()
        return child

    def start_workers(self) -> list[Child]:
        """Start as many workers as give two processes that run tasks."""
        return [self.start_worker() for _ in range(self.header.processes)]

    def marks(self) -> int:
        """Return how many runs the ledger counts."""
        return self.ledger.stat().st_size if self.ledger.exists() else 0

    def until_marks(self, number: int, workers: list[Child]) -> float:
        """Wait for the ledger to count so many runs, and return the time; raises ChildFailed when nothing goes on."""
        seen, since = -1, time.monotonic()
        while True:
            marks, now = self.marks(), time.monotonic()
            if marks >= number:
                return now
            if marks > seen:
                seen, since = marks, now
            self._check(workers, since, f"{marks:,} of {number:,} tasks were run")
            time.sleep(LOOK)

    def until_finished(self, workers: list[Child]) -> float:
        """Wait until the system has written down that all its tasks are done, where that can be asked; return the
        time."""
        since = time.monotonic()
        if self.place.broker or not self.header.unfinished:
            return since
        while left := self.database.count(self.header.unfinished):
            self._check(workers, since, f"{left:,} tasks were not finished")
            time.sleep(LOOK)
        return time.monotonic()

    def stop(self, workers: list[Child]) -> None:
        for worker in workers:
            worker.stop(STOP_TIMEOUT)

    def close(self) -> None:
        """Kill what is left."""
        self._stack.close()

    def _check(self, workers: list[Child], since: float, so_far: str) -> None:
        for worker in workers:
            if (code := worker.poll()) is not None:
                raise worker.failure(f"A worker of {self.header.name} left with exit code {code}; {so_far}")
        if time.monotonic() - since > STALLED:
            raise workers[0].failure(f"{self.header.name} stands still for {STALLED:g} s; {so_far}")

    def _run(self, command: list[str]) -> str:
        # In the folder, since Python looks for modules where it is started.
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, check=False, capture_output=True, text=True
        )
        if done.returncode:
            what = f"{' '.join(command[1:])} for {self.header.name} ended with exit code {done.returncode}"
            raise ChildFailed(f"{what}:\n{done.stderr.strip()[-2000:]}")
        return done.stdout


@contextmanager
def opened(header: Header, name: str, folder: Path) -> Iterator[Bench]:
    """Give a system at an empty place, and leave nothing of it behind; raises NotInstalled, ServerFailed or
    ChildFailed."""
    python = Path(sys.executable) if header.name.startswith(OURS) else environment.make(header, place.PLACES[name][0])
    with place.opened(name, folder) as at:
        bench = Bench(header, at, folder, python)
        try:
            bench.prepare()
            yield bench
        finally:
            bench.close()
