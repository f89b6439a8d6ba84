"""How is a memcached of one's own run?"""

from __future__ import annotations

from tools.servers import PrivateProcess, greets


class PrivateMemcached(PrivateProcess):
    binaries = ("memcached",)
    account = "memcache"

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def create(self) -> None:
        """Lay down nothing: it has no files."""

    def command(self) -> tuple[str, ...]:
        # It gives up no result that has been kept before its time is over, and says so when it has no room.
        return ("memcached", "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-M", "-m", "256")

    def answers(self) -> bool:
        return greets(self.port, b"version\r\n")
