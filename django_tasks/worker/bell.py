"""How is the worker's loop woken?"""

from __future__ import annotations

import os
import select


class Bell:
    """Wakes one waiting thread; may be rung from any thread and from signal handlers.

    A pipe in place of `threading.Event`: an Event takes a lock, and a signal handler that rings while the very
    thread it interrupts holds that lock would wait for itself.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._rung = False

    def ring(self) -> None:
        """Wake the waiting thread, now or when it next waits."""
        if self._rung:
            return
        self._rung = True
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            # The pipe is full of rings already.
            return

    def wait(self, timeout: float) -> bool:
        """Block until the bell rings or `timeout` seconds have passed; return whether it rang."""
        ready, _, _ = select.select([self._read], [], [], max(0.0, timeout))
        if not ready:
            return False
        os.read(self._read, 4096)
        # Lowered last: a ring before this is answered by what the caller does next, one after it is written.
        self._rung = False
        return True

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._read)
        os.close(self._write)
