"""What does a prefork pool know of one of its children, and how does it reach it?"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django_tasks.message import Delivery
from django_tasks.plan import Outcome
from django_tasks.pools import frames
from django_tasks.pools.child import STRIKE

CHUNK = 1 << 18
PACKET_BYTES = 1 << 16
"""How large a packet of several deliveries may be."""

Verdict = Callable[[Delivery], Outcome]

_PACKETS = 200
"""How many packets may be under way: their numbers are told apart in one byte."""
_FREEZE_POLLS = 40


class Job:
    """A delivery on its way through the pool."""

    __slots__ = ("delivery", "moves", "number", "order", "packet", "submitted")

    def __init__(self, delivery: Delivery, order: int, submitted: float) -> None:
        self.delivery = delivery
        self.order = order
        self.submitted = submitted
        self.number = -1
        self.packet = -1
        self.moves = 0
        """How often it was taken back from a child that did nothing at all."""


class Handle:
    """One child: the jobs it was handed, and the pool's ends of its channels.

    Jobs are run in the order in which they were handed over. The kernel's count of tokens left is the number of those
    at the end of the line that have not begun.
    """

    def __init__(self, seat: int) -> None:
        self.seat = seat
        self.pid = 0
        self.jobs: deque[Job] = deque()
        self.since = 0.0
        """When the first job began, at the latest; monotonic."""
        self.limits: tuple[float | None, float | None] | None = None
        """Hard and soft limit of the first job, once somebody asked."""
        self.present = False
        """Whether it came up, and reacted to what it was handed last."""
        self.born = False
        self.leaving = False
        self.killed = False
        self.verdict: Verdict | None = None
        """What is to come of the first job, which this child is to be killed for."""
        self.spared = 0
        """How often it was not killed because a result was on its way."""
        self.strike_kind: int | None = None
        self.strikes = 0
        self.next_kill = self.next_strike = 0.0
        """When each is to be tried again; monotonic."""
        self.answered = False
        """Whether the first job was seen to have begun."""
        self.silent = False
        """Whether nothing more will come from it."""
        self._process: int | None = None
        self._frames = frames.Frames()
        self._unsent: memoryview | None = None
        self._numbers = 0
        self._packets = 0
        with contextlib.ExitStack() as undo:
            work, self.work = _pipe(undo)
            self._tokens, self._token_write = _pipe(undo)
            strikes, self._strikes = _pipe(undo)
            self.results, results = _pipe(undo)
            self.far_ends: tuple[int, ...] = (work, os.dup(self._tokens), strikes, results)
            """The child's ends, in the order in which the template hands them on."""
            undo.pop_all()
        for fd in (self.work, self._tokens, self._token_write, self._strikes, strikes, self.results):
            os.set_blocking(fd, False)

    def adopt(self, pid: int) -> None:
        """Take note of the process that the template made."""
        if self.pid:
            return
        self.pid = pid
        if sys.platform == "linux":
            # A process that is named so cannot be mistaken for a later one with the same number.
            with contextlib.suppress(OSError):
                self._process = os.pidfd_open(pid)

    def send_off(self) -> None:
        """Close the child's ends here: they were sent to the template."""
        for fd in self.far_ends:
            os.close(fd)
        self.far_ends = ()

    @property
    def waiting(self) -> int:
        """Return how many of the jobs have not begun."""
        left = array.array("i", [0])
        fcntl.ioctl(self._tokens, termios.FIONREAD, left)
        return left[0]

    @property
    def begun(self) -> Job | None:
        """Return the job that runs."""
        return self.jobs[0] if len(self.jobs) > self.waiting else None

    @property
    def clogged(self) -> bool:
        """Tell whether something handed over has not been read."""
        return self._unsent is not None

    def hand(self, jobs: Sequence[Job], now: float) -> None:
        """Hand over jobs as one packet."""
        packet = self._packets = (self._packets + 1) % 256
        first = self._numbers
        for number, job in enumerate(jobs, first):
            job.number, job.packet = number, packet
        self._numbers += len(jobs)
        if not self.jobs:
            self.begin(now)
        self.jobs.extend(jobs)
        # Tokens first: a child that has a packet and finds none knows that they were taken back.
        os.write(self._token_write, bytes((packet,)) * len(jobs))
        data = frames.frame((first, packet, [frames.delivery_row(job.delivery) for job in jobs]))
        self._write(memoryview(data))

    def begin(self, now: float) -> None:
        """Take note that another job is the first one."""
        self.since = now
        self.limits = None
        self.verdict = None
        self.spared = 0
        self.strike_kind = None
        self.strikes = 0
        self.next_kill = self.next_strike = 0.0
        self.answered = False

    def may_take(self) -> bool:
        """Tell whether another packet may be handed over: nothing is stuck, and packet numbers stay distinct."""
        under_way = (self._packets - self.jobs[0].packet) % 256 if self.jobs else 0
        return self.present and not self.leaving and self._unsent is None and under_way < _PACKETS

    def flush(self) -> None:
        """Write more of what did not fit into the pipe."""
        if self._unsent is not None:
            self._write(self._unsent)

    def _write(self, view: memoryview) -> None:
        try:
            written = os.write(self.work, view)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:  # it is dead; the template will tell
            written = len(view)
        self._unsent = view[written:] if written < len(view) else None

    def take_back(self) -> list[Job]:
        """Return all jobs that have not begun, which now never will here."""
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while tokens := os.read(self._tokens, 4096):
                taken += len(tokens)
        jobs = [self.jobs.pop() for _ in range(taken)]
        jobs.reverse()
        return jobs

    def read(self) -> list[Any] | None:
        """Return the frames that have come, None when nothing has; raises EOFError once the child's end is closed."""
        try:
            data = os.read(self.results, CHUNK)
        except BlockingIOError:
            return None
        if not data:
            raise EOFError
        return self._frames.feed(data)

    @property
    def mid_frame(self) -> bool:
        """Tell whether a frame has come in part."""
        return self._frames.partial

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still is."""
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                signal.pidfd_send_signal(self._process, number)
            elif self.pid:
                os.kill(self.pid, number)

    def strike(self, kind: int) -> None:
        """Have an exception raised in the task that runs, if it is still the first job."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._strikes, STRIKE.pack(self.jobs[0].number, kind))
        self.signal(signal.SIGUSR1)

    def freeze(self) -> None:
        """Stop the process, so that what it has written is all it has done."""
        self.signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        nap = select.poll()
        for _ in range(_FREEZE_POLLS):
            try:
                state = stat.read_text().rpartition(") ")[2][:1]
            except OSError:
                return
            if state in "tTZX":
                return
            nap.poll(1)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.killed = True
        self.signal(signal.SIGKILL)

    def wait(self, timeout: float) -> None:
        """Wait until the process is dead, where the kernel can tell that of another's child."""
        if self._process is not None:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            poll.poll(timeout * 1000)

    def dismiss(self) -> list[Job]:
        """Let the child end when it has done what it is doing; return what it has not begun."""
        self.leaving = True
        jobs = self.take_back()
        self._close_work()
        return jobs

    def _close_work(self) -> None:
        self._unsent = None
        if self.work >= 0:
            os.close(self.work)
            self.work = -1

    def close(self) -> None:
        """Close all channels of a child that is dead."""
        self._close_work()
        for fd in (self._tokens, self._token_write, self._strikes, self.results, self._process):
            if fd is not None:
                os.close(fd)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        undo.callback(os.close, fd)
    return ends
