"""Who keeps several workers alive?"""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django_tasks.worker.bell import Bell

_log = logging.getLogger("django_tasks.worker")

_PR_SET_PDEATHSIG = 1

SETTLED = 10.0
"""Seconds after which a worker that ends is started again without a pause."""
PAUSE = 0.5
"""Seconds that double with each worker that ends sooner, up to half a minute."""


@dataclass(slots=True)
class _Child:
    number: int
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    again_at: float | None = None


class Supervisor:
    """Runs `count` whole workers, each a process of its own, and starts again those that die.

    It passes on what it is told to: TERM, HUP and INT stop the workers warmly, QUIT and a second INT coldly, USR1 has
    them print their stacks. If it is killed itself, they stop warmly.
    """

    def __init__(self, command: Sequence[str], count: int) -> None:
        self.command = command
        self.count = count
        self.bell = Bell()
        self.children: list[_Child] = []
        self.stopping = False
        self._signals: list[int] = []

    def run(self) -> int:
        """Supervise until told to stop, or until all workers have left by themselves; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._signalled)
        signal.signal(signal.SIGCHLD, lambda *_: self.bell.ring())
        self.children = [self._start(number) for number in range(self.count)]
        while True:
            self._pass_on()
            self._revive()
            # Not poll(): one that ends just now has still to be started again.
            if all(child.process.returncode is not None and child.again_at is None for child in self.children):
                break
            self.bell.wait(self._pause())
        codes = {child.process.returncode for child in self.children}
        return 0 if self.stopping or codes == {0} else 1

    def _start(self, number: int) -> _Child:
        command = [*self.command, "--node-number", str(number + 1)]
        # Its own session: a Ctrl-C reaches the supervisor alone, which passes it on once.
        return _Child(number, subprocess.Popen(command, start_new_session=True), time.monotonic())

    def _signalled(self, number: int, frame: object) -> None:
        self._signals.append(number)
        self.bell.ring()

    def _pass_on(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            self.stopping = self.stopping or number != signal.SIGUSR1
            for child in self.children:
                if self.stopping:
                    child.again_at = None
                if child.process.poll() is None:
                    # A worker that is hung up on would die at once, and what it runs with it.
                    child.process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    def _revive(self) -> None:
        for position, child in enumerate(self.children):
            code = child.process.poll()
            if code is None or self.stopping or code == 0:
                continue
            if child.again_at is None:
                child.failures = 0 if time.monotonic() - child.started > SETTLED else child.failures + 1
                child.again_at = time.monotonic() + _wait(child.failures)
                _log.error("A worker ended; it is started again", extra={"number": child.number + 1, "code": code})
            if time.monotonic() >= child.again_at:
                self._start_again(position, child)

    def _start_again(self, position: int, child: _Child) -> None:
        try:
            self.children[position] = self._start(child.number)
            self.children[position].failures = child.failures
        except OSError as error:
            child.failures += 1
            child.again_at = time.monotonic() + _wait(child.failures)
            told = {"number": child.number + 1, "error": str(error)}
            _log.error("A worker could not be started; trying again", extra=told)

    def _pause(self) -> float:
        times = [child.again_at - time.monotonic() for child in self.children if child.again_at is not None]
        return max(0.0, min([5.0, *times]))


def _wait(failures: int) -> float:
    return min(30.0, PAUSE * 2 ** min(failures, 10)) if failures else 0.0


def leave_with_parent() -> None:
    """Have the kernel stop this worker warmly when its supervisor dies (Linux, prctl(2)): nobody would start it again,
    and the next supervisor starts workers of its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def own_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that starts one worker as this process was started, with other arguments."""
    script = sys.argv[0]
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None and main.__spec__ is not None:
        name = main.__spec__.name.removesuffix(".__main__")
        return [sys.executable, "-m", name, "runworker", *arguments]
    return [sys.executable, str(Path(script).resolve()), "runworker", *arguments]
