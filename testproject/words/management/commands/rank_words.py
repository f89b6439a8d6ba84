"""Which words does Python's own source use most? Asks the workers, one task a module, and prints the ranking that the
task makes which follows them all."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO, cast
from urllib.parse import urljoin

from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from django_tasks import GroupResult, chord
from django_tasks.connections import groups_of, results
from django_tasks.exceptions import ResultTimeout
from django_tasks.results.groups import Progress
from testproject.words import library
from testproject.words.models import Word
from testproject.words.progress import Bar, marks
from testproject.words.tasks import count_words, rank

FIRST = 50
"""Tasks that are asked when they started: workers begin with those."""
PAUSE = 0.1
"""Seconds between two looks."""
BAR = 24


class Command(BaseCommand):
    help = "Ranks the most used words of Python's standard library, by one task a module and one that follows them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--top", type=int, default=15, help="how many places to print (default: %(default)s)")
        parser.add_argument(
            "--patience",
            type=float,
            default=60.0,
            help="seconds without news of any task before giving up (default: %(default)g)",
        )
        parser.add_argument("--site", default="", help="the address of the site, to print that of the tasks' page")

    def handle(self, *args: Any, top: int, patience: float, site: str, **options: Any) -> None:
        """Send, wait, and print the ranking."""
        # The bar is drawn over and over on one line.
        self.stdout.ending = ""
        modules = library.modules()
        began = time.monotonic()
        ranking = chord((count_words.s(module) for module in modules), rank.s()).delay()
        counting = ranking.parent
        self.stdout.write(f"  {len(modules):,} modules queued in {time.monotonic() - began:.1f} s\n")
        if site:
            self.stdout.write(f"  Their page: {urljoin(site, page_of(counting))}\n")
        self.stdout.write("\n")
        try:
            known = self._wait(counting, patience)
            words = ranking.get(timeout=patience)
        except KeyboardInterrupt:
            raise CommandError("Interrupted; the tasks go on.", returncode=130) from None
        except ResultTimeout as error:
            raise CommandError(f"All modules are counted, but the ranking is not made: {error}") from error
        self._print(list(Word.objects.all()[:top]))
        seconds = seconds_of(counting, known)
        rate = f": {known.done / seconds:,.0f} a second" if seconds else ""
        summary = f"{known.done:,} tasks counted {words:,} words in {seconds:.1f} s{rate}"
        self.stdout.write(f"\n  {self.style.SUCCESS(summary)}\n")

    def _wait(self, counting: GroupResult, patience: float) -> Progress:
        """Draw how far the tasks are until all have ended; raises CommandError when one did not end well."""
        bar = Bar(len(counting), cast(TextIO, self.stdout))
        heard, before = time.monotonic(), 0
        try:
            while True:
                known = counting.progress()
                if known is None:
                    raise CommandError(f"The group {counting.id} is not recorded: are results kept?")
                bar.show(known.done)
                if known.failed is not None:
                    raise CommandError(f"Task {known.failed.task_id} failed.\n{told_by(known)}".rstrip())
                if known.ready:
                    return known
                if known.done > before:
                    heard, before = time.monotonic(), known.done
                elif time.monotonic() - heard > patience:
                    raise CommandError(
                        f"Nothing came back for {patience:g} seconds; {known.size - known.done:,} tasks wait. "
                        "Is a worker running? Start one: python testproject/manage.py runworker"
                    )
                time.sleep(PAUSE)
        finally:
            bar.end()

    def _print(self, words: Sequence[Word]) -> None:
        longest = max((len(word.text) for word in words), default=4)
        most = max((word.times for word in words), default=1)
        full, _ = marks(cast(TextIO, self.stdout))
        heading = f"{'':>3}  {'word':<{longest}}  {'times':>9}  {'modules':>7}"
        self.stdout.write(f"\n  {self.style.MIGRATE_HEADING(heading)}\n")
        for place, word in enumerate(words, start=1):
            bar = self.style.SUCCESS(full * max(1, round(BAR * word.times / most)))
            self.stdout.write(f"  {place:>3}  {word.text:<{longest}}  {word.times:>9,}  {word.modules:>7,}  {bar}\n")


def page_of(counting: GroupResult) -> str:
    """Return the path of the page where the admin shows the tasks: as a group, or where it knows none, one by one."""
    if groups_of().database is None:
        return reverse("admin:django_tasks_taskresult_changelist")
    return reverse("admin:django_tasks_taskgroup_change", args=[counting.id])


def seconds_of(counting: GroupResult, known: Progress) -> float:
    """Return the time from the first task's begin to the last one's end."""
    begun = results["default"].get([handle.id for handle in counting[:FIRST]]).values()
    moments = [result.started_at for result in begun if result.started_at is not None]
    if not moments or known.ended_at is None:
        return 0.0
    first: datetime = min(moments)
    return (known.ended_at - first).total_seconds()


def told_by(known: Progress) -> str:
    failure = known.failed.failure if known.failed is not None else None
    return "" if failure is None else f"{failure.type}: {failure.message}"
