"""How are the processes of a demo or a benchmark started, watched and stopped?"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL = 2000
"""Characters of a log that a failure shows."""


class ChildFailed(Exception):
    """A process did not do what it should; the message shows the end of its log."""


class Child:
    """A process in a group of its own, so that Ctrl-C reaches only who started it; what it says goes to a log.

    With `shown` it speaks, and takes Ctrl-C, on the terminal of whoever started it.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], *, shown: bool = False
    ) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.shown = shown
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            said = None if self.shown else log
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=not self.shown,
            )

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout: float) -> int:
        """Return the exit code; raises ChildFailed when the process does not end in time."""
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(f"The {self.name} has not ended within {timeout:g} s") from None

    def stop(self, timeout: float) -> None:
        """End the process in good order, or kill its group when it does not end within `timeout` seconds."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the process and all that it started, as a crash of the machine would."""
        if self._process is None or self._process.poll() is not None:
            return
        if self.shown:
            self._process.kill()
        else:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def failure(self, what: str, *others: Child) -> ChildFailed:
        """Return an error that shows what this process and others said last."""
        lines = [f"{what}."]
        for child in (self, *others):
            said = child.log.read_text(errors="replace").strip()[-TAIL:]
            if said:
                lines += [f"The end of what the {child.name} said:", said]
        return ChildFailed("\n".join(lines))
