"""How is a memcached of one's own run?"""

from __future__ import annotations

import signal
import subprocess
import time

from tools.servers import START_TIMEOUT, PrivateServer, greets


class PrivateMemcached(PrivateServer):
    binaries = ("memcached",)
    account = "memcache"
    arguments: tuple[str, ...] = ()
    """Settings beside those that make it private, as on its command line."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def create(self) -> None:
        """Lay down nothing: it has no files."""

    def start(self) -> None:
        # It gives up no result that has been kept before its time is over, and says so when it has no room.
        own = ("-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-M", "-m", "256")
        self._process = self._spawn("memcached", *own, *self.arguments)
        deadline = time.monotonic() + START_TIMEOUT
        while not greets(self.port, b"version\r\n"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failure("memcached does not start")
            time.sleep(0.01)

    def stop(self, *, kill: bool = False) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait(START_TIMEOUT)
