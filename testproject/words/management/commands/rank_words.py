"""Which words does Python's own source use most? Asks the workers, one task a module, and draws up the ranking."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError

from django_tasks import bulk, states
from django_tasks.connections import results
from django_tasks.plan import Result
from django_tasks.result import value_of
from testproject.words import library
from testproject.words.progress import Bar, marks
from testproject.words.tasks import count_words, keep_ranking

KEPT = 100
"""Places that the home page shows."""
LOOK = 500
"""Results asked for at once: they come about in the order of their tasks."""
PAUSE = 0.1
"""Seconds between two looks."""
BAR = 24


@dataclass(slots=True)
class Tally:
    """What has come back so far."""

    waiting: dict[str, str]
    """Modules by the id of their task, those that have not come back."""
    times: Counter[str] = field(default_factory=Counter)
    modules: Counter[str] = field(default_factory=Counter)
    done: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def collect(self) -> None:
        """Take in what has come back; raises CommandError when a task did not end well."""
        while self.waiting:
            asked = list(self.waiting)[:LOOK]
            ended = [result for result in results["default"].get(asked).values() if result.final]
            for result in ended:
                self._take(self.waiting.pop(result.id), result)
            if len(ended) < LOOK:
                return

    def _take(self, module: str, result: Result) -> None:
        if result.state != states.SUCCESS:
            trace = result.failure.traceback if result.failure else ""
            raise CommandError(f"{module}: task {result.id} ended as {result.state}.\n{trace}".rstrip())
        counts: dict[str, int] = value_of(result)
        self.times.update(counts)
        self.modules.update(counts.keys())
        self.done += 1
        self.first = min(filter(None, (self.first, result.started_at)), default=None)
        self.last = max(filter(None, (self.last, result.ended_at)), default=None)

    @property
    def seconds(self) -> float:
        """Return the time from the first task's begin to the last one's end."""
        return (self.last - self.first).total_seconds() if self.first and self.last else 0.0

    def ranking(self, places: int) -> list[tuple[str, int, int]]:
        """Return words with their counts and numbers of modules, those with the highest counts first."""
        ordered = sorted(self.times.items(), key=lambda item: (-item[1], item[0]))
        return [(text, times, self.modules[text]) for text, times in ordered[:places]]


class Command(BaseCommand):
    help = "Ranks the most used words of Python's standard library, by one task a module."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--top", type=int, default=15, help="how many places to print (default: %(default)s)")
        parser.add_argument(
            "--patience",
            type=float,
            default=60.0,
            help="seconds without news of any task before giving up (default: %(default)g)",
        )

    def handle(self, *args: Any, top: int, patience: float, **options: Any) -> None:
        """Send, wait, and print the ranking."""
        # The bar is drawn over and over on one line.
        self.stdout.ending = ""
        modules = library.modules()
        began = time.monotonic()
        sent = bulk(count_words.s(module) for module in modules)
        self.stdout.write(f"  {len(sent):,} modules queued in {time.monotonic() - began:.1f} s\n\n")
        tally = Tally({result.id: module for result, module in zip(sent, modules, strict=True)})
        try:
            self._wait(tally, len(sent), patience)
        except KeyboardInterrupt:
            raise CommandError(f"Interrupted; {len(tally.waiting):,} tasks wait.", returncode=130) from None
        places = tally.ranking(KEPT)
        keep_ranking.delay(places).get(timeout=patience)
        self._print(places[:top])
        rate = f": {tally.done / tally.seconds:,.0f} a second" if tally.seconds else ""
        words = sum(tally.times.values())
        summary = f"{tally.done:,} tasks counted {words:,} words in {tally.seconds:.1f} s{rate}"
        self.stdout.write(f"\n  {self.style.SUCCESS(summary)}\n")

    def _wait(self, tally: Tally, total: int, patience: float) -> None:
        bar = Bar(total, cast(TextIO, self.stdout))
        heard = time.monotonic()
        try:
            while tally.waiting:
                before = tally.done
                tally.collect()
                bar.show(tally.done)
                if tally.done > before:
                    heard = time.monotonic()
                elif time.monotonic() - heard > patience:
                    raise CommandError(
                        f"Nothing came back for {patience:g} seconds; {len(tally.waiting):,} tasks wait. "
                        "Is a worker running? Start one: python testproject/manage.py runworker"
                    )
                if tally.waiting:
                    time.sleep(PAUSE)
        finally:
            bar.end()

    def _print(self, places: Sequence[tuple[str, int, int]]) -> None:
        longest = max((len(text) for text, _, _ in places), default=4)
        most = max((times for _, times, _ in places), default=1)
        full, _ = marks(cast(TextIO, self.stdout))
        heading = f"{'':>3}  {'word':<{longest}}  {'times':>9}  {'modules':>7}"
        self.stdout.write(f"\n  {self.style.MIGRATE_HEADING(heading)}\n")
        for place, (text, times, modules) in enumerate(places, start=1):
            bar = self.style.SUCCESS(full * max(1, round(BAR * times / most)))
            self.stdout.write(f"  {place:>3}  {text:<{longest}}  {times:>9,}  {modules:>7,}  {bar}\n")
