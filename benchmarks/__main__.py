"""How is it all measured? `python -m benchmarks throughput --at postgres --peers`, or `make bench ARGS="..."`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import django
from django.conf import settings
from django.db import DatabaseError

from benchmarks import (
    beatfaults,
    beats,
    bench,
    canvas,
    chordkills,
    deep,
    environment,
    eta,
    header,
    headofline,
    idle,
    kills,
    restarts,
    roundtrip,
    throughput,
    treekills,
)
from benchmarks.bench import Benchmark
from benchmarks.figures import OURS, Absence, Figure, Reading, table
from benchmarks.place import PLACES
from testproject.children import ChildFailed
from tools.servers import ServerFailed

BENCHMARKS = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        *(throughput, roundtrip, headofline, deep, eta, idle, canvas),
        *(kills, chordkills, treekills, restarts, beats, beatfaults),
    )
}
THREADS = "benchmarks.threads"
PEERS = (
    "django_tasks_db",
    "django_q2",
    "procrastinate",
    "dj_queue",
    "django_ox",
    "celery_prefork",
    "celery_confirmed",
    "dramatiq",
    "huey",
    "rq",
    "taskiq",
)

Key = tuple[str, str, str, str]


class Results:
    """Collects what is read, run by run."""

    def __init__(self) -> None:
        self.absences: list[Absence] = []
        self.versions: dict[str, str] = {}
        """Of systems and servers, by their name."""
        self._readings: dict[Key, list[Reading]] = defaultdict(list)

    def add(self, key: tuple[str, str, str], readings: Sequence[Reading]) -> None:
        for reading in readings:
            self._readings[(*key, reading.measure)].append(reading)

    def figures(self) -> list[Figure]:
        """Return medians and all, each measure of each database with its systems side by side."""
        order = {key: place for place, key in enumerate(dict.fromkeys((b, d, m) for b, d, _, m in self._readings))}
        keys = sorted(self._readings, key=lambda key: order[key[0], key[1], key[3]])
        return [
            Figure(benchmark, database, system, measure, first.unit, first.better, tuple(r.value for r in readings))
            for benchmark, database, system, measure in keys
            for readings in [self._readings[benchmark, database, system, measure]]
            for first in readings[:1]
        ]


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _leave)
    asked = _parser().parse_args(arguments)
    # Connections of Django's, and none of its project.
    settings.configure(USE_TZ=True)
    django.setup()
    results = Results()
    try:
        for benchmark, place in _pairs(asked.names, asked.at):
            peers = PEERS if asked.peers == [] else tuple(asked.peers or ()) if benchmark.peers else ()
            _measure(benchmark, place, peers if benchmark.peers else (), asked, results)
    except KeyboardInterrupt:
        print("\nInterrupted: this is what was measured.", file=sys.stderr)
    figures = results.figures()
    _print(figures, results)
    if asked.json:
        Path(asked.json).write_text(json.dumps(_document(figures, results, asked), indent=2) + "\n")
        print(f"\nWritten to {asked.json}")
    return int(not figures or any(absence.system.startswith(OURS) for absence in results.absences))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures django_tasks, and others beside it.",
        epilog="; ".join(f"{each.name}: {each.summary}" for each in BENCHMARKS.values()),
    )
    add = parser.add_argument
    add("names", nargs="*", choices=[*BENCHMARKS, []], metavar="benchmark", help=f"{', '.join(BENCHMARKS)}; or all")
    add("--at", nargs="+", choices=PLACES, default=tuple(PLACES), help="where messages and results are (default: all)")
    add("--peers", nargs="*", choices=PEERS, help="run others beside us: these, or without a name all")
    add("--repeat", type=int, default=3, help="runs of each, taken in turn (default: %(default)s)")
    add("--scale", type=float, default=1.0, help="how much of the full size (default: %(default)g)")
    usual = ", ".join(f"{each.name} {each.kills}" for each in BENCHMARKS.values() if each.kills)
    add("--kills", type=int, help=f"how many workers are killed (default, by the scale: {usual})")
    add("--json", metavar="FILE", help="write every reading there")
    return parser


def _pairs(names: Sequence[str], places: Sequence[str]) -> Iterator[tuple[Benchmark, str]]:
    for name in names or BENCHMARKS:
        for place in places:
            if place in BENCHMARKS[name].places:
                yield BENCHMARKS[name], place


def _measure(
    benchmark: Benchmark, place: str, peers: Sequence[str], asked: argparse.Namespace, results: Results
) -> None:
    """Measure all systems in turn, so that a machine that slows down slows all of them down."""
    modules = [
        benchmark.system,
        *([THREADS] if benchmark.peers else []),
        *(f"benchmarks.peers.{peer}" for peer in peers),
    ]
    headers = [each for each in map(header.read, modules) if place in each.places]
    scale = asked.kills / benchmark.kills if asked.kills is not None and benchmark.kills else asked.scale
    if benchmark.answers:
        headers = [each for each in headers if each.answers]
    for number in range(asked.repeat):
        for each in list(headers):
            print(f"{benchmark.name} · {place} · {each.name} · {number + 1} of {asked.repeat}", flush=True)
            reason = _run(benchmark, place, each, scale, results)
            if reason:
                print(f"  not measured: {reason}", flush=True)
                results.absences.append(Absence(benchmark.name, place, each.name, reason))
                headers.remove(each)


def _run(benchmark: Benchmark, place: str, system: header.Header, scale: float, results: Results) -> str:
    """Measure once; return why it could not be done, if so."""
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="django_tasks_bench_"))
            opened = stack.enter_context(bench.opened(system, place, Path(folder)))
            readings = benchmark.measure(opened, scale)
            servers = opened.place.versions()
            results.versions[system.name] = environment.versions(opened.python, system)
            results.versions |= servers
    except (environment.NotInstalled, ServerFailed, ChildFailed, DatabaseError) as error:
        return str(error)
    results.add((benchmark.name, ", ".join(servers), system.name), readings)
    said = ", ".join(f"{reading.measure} {reading.value:,.2f} {reading.unit}".rstrip() for reading in readings)
    print(f"  {said}  ({time.monotonic() - began:.0f} s)", flush=True)
    return ""


def _print(figures: Sequence[Figure], results: Results) -> None:
    print()
    for name in dict.fromkeys(figure.benchmark for figure in figures):
        print(f"{name}: {BENCHMARKS[name].summary}")
        for line in table(figure for figure in figures if figure.benchmark == name):
            print(f"  {line}")
        print()
    for name, version in results.versions.items():
        print(f"{name}: {version}")
    for absence in results.absences:
        # In full where it happened, above.
        reason = absence.reason.splitlines()[-1]
        print(f"Not measured: {absence.benchmark} of {absence.system} on {absence.database}: {reason}")


def _document(figures: Sequence[Figure], results: Results, asked: argparse.Namespace) -> dict[str, object]:
    return {
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "django": django.get_version(),
        "scale": asked.scale,
        "kills": asked.kills,
        "versions": results.versions,
        "figures": [{**asdict(figure), "median": figure.median} for figure in figures],
        "absences": [asdict(absence) for absence in results.absences],
    }


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
