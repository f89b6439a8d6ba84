"""Is a slot ever lost, or run twice, when beats are stopped, killed or cut off?"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from datetime import datetime, timedelta
from functools import partial

import pytest
from django.db import connections

from django_tasks.models import BeatNode, PeriodicTask, ScheduledRun
from tests.acceptance.conftest import ROOT, Site
from tests.acceptance.test_database_faults import ALIAS, PrivateSite, private, server
from tests.periodic import look, periodic, sent, slots
from tests.vendors import each_vendor

pytestmark = pytest.mark.brokers("database", reason="messages are committed with their slots there")
__all__ = ["private", "server"]

SECOND = timedelta(seconds=1)


def each_second(alias: str, number: int) -> None:
    """Have so many runs a second, each slot of which is to be run however late it is."""
    told = {"task": "t", "schedule": "every 1 second", "missed": "all", "missed_limit": 1000}
    PeriodicTask.objects.using(alias).bulk_create([PeriodicTask(name=str(n), **told) for n in range(number)])


def runs_of(alias: str) -> dict[int, list[datetime]]:
    """Return the slots that were run, in order, by the row; each has one message, and there are no others."""
    runs: dict[int, list[datetime]] = defaultdict(list)
    rows = ScheduledRun.objects.using(alias).order_by("slot_at").values_list("periodic_task_id", "slot_at", "task_id")
    ids = []
    for row, slot, task_id in rows:
        runs[row].append(slot)
        ids.append(task_id)
    messages = sent(alias)
    assert sorted(messages) == sorted(ids)
    assert len(set(messages)) == len(messages)
    return runs


def more_than(alias: str, number: int) -> bool:
    return ScheduledRun.objects.using(alias).count() > number


def assert_on_a_grid_of_seconds(runs: dict[int, list[datetime]], rows: int) -> None:
    assert len(runs) == rows
    for slots_of in runs.values():
        assert slots_of == [slots_of[0] + number * SECOND for number in range(len(slots_of))]


@each_vendor("postgres", transaction=True)
def test_each_slot_is_run_once_however_five_beats_are_frozen_and_killed(site: Site):
    """Seconds of what `python -m benchmarks beats` does for minutes."""
    each_second(site.alias, 50)
    beats = [site.beat() for _ in range(5)]
    site.until(lambda: ScheduledRun.objects.using(site.alias).count() >= 50, "the first are sent")
    rng = random.Random(5)
    pause = threading.Event()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        number = rng.randrange(5)
        if rng.random() < 0.2:
            beats[number].kill()
            beats[number] = site.beat()
        else:
            beats[number].send(signal.SIGSTOP)
            pause.wait(rng.uniform(0.05, 0.5))
            beats[number].send(signal.SIGCONT)
    site.until(partial(more_than, site.alias, ScheduledRun.objects.using(site.alias).count()), "it goes on")
    site.until(
        lambda: BeatNode.objects.using(site.alias).filter(pid__in=[each.pid for each in beats]).count() == 5,
        "all are there",
    )
    assert {each.stop() for each in beats} == {0}
    runs = runs_of(site.alias)
    assert_on_a_grid_of_seconds(runs, 50)
    assert min(map(len, runs.values())) >= 5


def test_a_database_that_is_down_for_a_while_costs_no_slot(private: PrivateSite):
    each_second(ALIAS, 5)
    beat = private.beat()
    private.until(lambda: ScheduledRun.objects.using(ALIAS).count() >= 5, "the first are sent")
    private.server.stop(kill=True)
    beat.wait_for("does not answer")
    private.server.start()
    connections[ALIAS].close()
    private.until(partial(more_than, ALIAS, ScheduledRun.objects.using(ALIAS).count()), "it goes on")
    assert beat.stop() == 0
    assert_on_a_grid_of_seconds(runs_of(ALIAS), 5)


@each_vendor("sqlite", transaction=True)
def test_a_beat_that_is_started_again_sends_what_became_due_meanwhile(site: Site):
    each_second(site.alias, 3)
    for number in range(2):
        beat = site.beat()
        site.until(partial(more_than, site.alias, ScheduledRun.objects.using(site.alias).count()), "some are sent")
        assert beat.stop(signal.SIGINT if number else signal.SIGTERM) == 0
        assert not BeatNode.objects.using(site.alias).exists()
    assert_on_a_grid_of_seconds(runs_of(site.alias), 3)


class Ticker:
    """Ticks in a child that strace kills at a system call."""

    def __init__(self, site: Site) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.ticker"],
            cwd=ROOT,
            env=site.environment_of(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tick(self, seconds: float, calls: str, number: int) -> int:
        """Kill it at so many of these system calls; return how it ended."""
        self._say(str(seconds))
        pid = self._hear()
        strace = subprocess.Popen(
            ["strace", "-p", pid, "-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={number}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert strace.stderr is not None
        said = strace.stderr.readline()
        assert re.search("attached", said), said
        self._say("go")
        code = int(self._hear())
        strace.communicate()
        return code

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate()


CALLS = {"default": ("pwrite64", "fdatasync"), "postgres": ("sendto", "recvfrom")}
"""What a process cannot take back: writes to the file or its journal, and words with the server."""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@each_vendor("sqlite", "postgres", transaction=True)
def test_a_beat_killed_at_any_write_of_a_tick_loses_nothing_and_repeats_nothing(site: Site):
    periodic(site.alias)
    look(site.alias, 1)
    ticker, number, killed = Ticker(site), 0, 0
    for call in CALLS[site.alias]:
        ended, at_call = -signal.SIGKILL, 0
        while ended:
            number, at_call = number + 1, at_call + 1
            ended = ticker.tick(10 * number, call, at_call)
            assert ended in (0, -signal.SIGKILL)
            killed += ended != 0
            site.until(partial(finished, site.alias, 10 * number), "the next beat has sent it")
            assert slots(site.alias) == [10 * (each + 1) for each in range(number)]
            assert len(sent(site.alias)) == number
    ticker.close()
    assert killed >= {"default": 4, "postgres": 16}[site.alias]


def finished(alias: str, seconds: float) -> bool:
    """Tick; a server may not have seen yet that the one before is dead."""
    look(alias, seconds)
    return slots(alias)[-1:] == [seconds]
