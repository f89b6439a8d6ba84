"""What does a child process of a prefork pool do?

It reads packets of deliveries, and one token from a pipe for each before it begins it. No token left, or a token of
a later packet, means that the pool took the rest of this one back. The pool takes tokens from the same pipe, so
each delivery is begun here or taken back there, and never both, whatever happens to this process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import resource
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from django_tasks import databases, execution
from django_tasks.exceptions import SoftTimeLimitExceeded, TaskRevoked
from django_tasks.interrupt import here
from django_tasks.message import Delivery
from django_tasks.plan import Outcome
from django_tasks.pools import frames
from django_tasks.pools.base import Pool, PoolOptions
from django_tasks.pools.hygiene import Hygiene, wake_caches
from django_tasks.pools.template import COORDINATED, flush_output, ignore
from django_tasks.signals import announce, child_started, child_stopping

PRESENT = -1
"""In place of a delivery's number: a sign of life."""

STRIKE = struct.Struct(">QB")
"""A delivery's number and one of the kinds below."""
STRIKES: tuple[type[BaseException], ...] = (SoftTimeLimitExceeded, TaskRevoked)

SIGNAL_STRIKE, SIGNAL_DUMP = signal.SIGUSR1, signal.SIGUSR2
"""A strike waits in its pipe; print the stack of every thread."""

_CHUNK = 1 << 16
_SOFTWARE = 70
"""The exit code for an error of our own (EX_SOFTWARE in sysexits.h)."""

_log = logging.getLogger("django_tasks.worker")


def live(channels: tuple[int, ...], options: PoolOptions, pool: type[Pool]) -> NoReturn:
    """Be a child until there is no more work, then end the process."""
    code = _SOFTWARE
    try:
        child = Child(channels, options)
        announce(child_started, pool)
        child.run()
        announce(child_stopping, pool)
        databases.close_all()
        code = 0
    except BrokenPipeError:  # the pool is gone
        code = 1
    except BaseException:  # noqa: BLE001  # whatever it is, this process must not go on as a copy of the template
        _log.exception("A child process failed")
    finally:
        flush_output()
        os._exit(code)


class Child:
    """The loop of a child, and what it may say and hear meanwhile."""

    def __init__(self, channels: tuple[int, ...], options: PoolOptions) -> None:
        self._work, self._tokens, self._strikes, self._results = channels
        self._channels = channels
        self._options = options
        self._gate = here()
        self._site = execution.Site(
            worker=options.worker,
            time_limit=options.time_limit,
            soft_time_limit=options.soft_time_limit,
            report=self._report,
            interruptible=self._gate,
        )
        self._sending = threading.Lock()
        self._number = PRESENT
        self._current: Delivery | None = None
        self._token: bytes = b""
        self._left = options.max_tasks_per_child
        self._statm = _open_statm() if options.max_memory_per_child else None
        self._forked = False
        self._settle_in()

    def _settle_in(self) -> None:
        _offer_to_the_oom_killer()
        _reseed()
        for number in (*COORDINATED, signal.SIGALRM):  # an alarm that a task forgot must not kill the next one
            signal.signal(number, ignore)
        signal.signal(SIGNAL_STRIKE, self._on_strike)
        signal.signal(SIGNAL_DUMP, ignore)
        if sys.__stderr__ is not None:
            with contextlib.suppress(OSError, ValueError):  # it is closed
                faulthandler.enable(sys.__stderr__)
                faulthandler.register(SIGNAL_DUMP, sys.__stderr__)
        os.register_at_fork(after_in_child=self._disown)
        wake_caches()
        self._context = copy_context()
        self._hygiene = Hygiene((*COORDINATED, SIGNAL_STRIKE, signal.SIGALRM, signal.SIGCHLD))

    def run(self) -> None:
        """Work until the pool closes the stream, or until it is time to be replaced."""
        self._send(PRESENT, last=False)
        for number, packet, rows in self._packets():
            if not self._work_off(number, packet.to_bytes(1), rows):
                return

    def _packets(self) -> Iterator[tuple[int, int, list[frames.Row]]]:
        stream = frames.Frames()
        while data := os.read(self._work, _CHUNK):
            yield from stream.feed(data)

    def _work_off(self, number: int, packet: bytes, rows: list[frames.Row]) -> bool:
        """Run the deliveries of a packet until the pool takes the rest back; return False when this child must end."""
        for offset, row in enumerate(rows):
            if not self._may_begin(packet):
                self._send(PRESENT, last=False)
                return True
            self._number = number + offset
            self._current = delivery = frames.delivery_from(row)
            outcome = self._context.copy().run(execution.execute, delivery, self._site)
            self._current = None
            if self._forked:  # a copy of this process that the task made came back here
                os._exit(0)
            if self._gate.struck:  # what stopped half-way may have been a query
                databases.close_all()
            last = self._spent()
            self._send(self._number, last=last, outcome=outcome)
            if last:
                return False
            self._hygiene.restore(delivery.message.task)
        return True

    def _may_begin(self, packet: bytes) -> bool:
        if not self._token:
            try:
                self._token = os.read(self._tokens, 1)
            except BlockingIOError:
                return False
        if self._token != packet:
            return False
        self._token = b""
        return True

    def _send(self, number: int, *, last: bool, outcome: Outcome | None = None) -> None:
        data = frames.frame((number, last, os.getpid() if outcome is None else frames.outcome_row(outcome)))
        with self._sending:
            written = os.write(self._results, data)
            while written < len(data):
                data = data[written:]
                written = os.write(self._results, data)

    def _report(self, delivery: Delivery, outcome: Outcome) -> None:
        """Send an interim outcome; called by the task's own code, from any of its threads."""
        with here().shield:
            if delivery is self._current and not self._forked:
                self._send(self._number, last=False, outcome=outcome)

    def _on_strike(self, number: int, where: FrameType | None) -> None:
        try:
            data = os.read(self._strikes, STRIKE.size * 64)
        except BlockingIOError:
            return
        kinds = [kind for number, kind in STRIKE.iter_unpack(data) if number == self._number]
        if kinds and self._current is not None:
            self._gate.strike(self._current, STRIKES[max(kinds)])

    def _spent(self) -> bool:
        """Tell whether this child has run as many tasks, or grown as large, as it may."""
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                return True
        limit = self._options.max_memory_per_child
        return limit is not None and _resident(self._statm) > limit

    def _disown(self) -> None:
        """Keep a process that a task forked from speaking for this one, and from ignoring signals meant for it."""
        if self._forked:
            return
        self._forked = True
        for fd in self._channels:
            with contextlib.suppress(OSError):
                os.close(fd)
        for number in (*COORDINATED, SIGNAL_STRIKE):
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
        faulthandler.unregister(SIGNAL_DUMP)


def _offer_to_the_oom_killer() -> None:
    """Have the kernel choose a child before the worker when memory runs out."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        score.write_text(str(min(1000, int(score.read_text()) + 100)))


def _reseed() -> None:
    """Give this process random numbers of its own. Python sees to `random` at each fork, numpy does not."""
    seed: Any = getattr(sys.modules.get("numpy.random"), "seed", None)
    if seed is not None:
        seed()


def _open_statm() -> int | None:
    try:
        return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _resident(statm: int | None) -> int:
    """Return this process's resident memory in KiB; the peak of it where the kernel does not tell the current one."""
    if statm is not None:
        return int(os.pread(statm, 128, 0).split()[1]) * resource.getpagesize() // 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
