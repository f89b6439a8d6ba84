"""How does a test reach PostgreSQL through a proxy that lends connections for one transaction at a time?"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connections

from tools.servers import PrivateProcess, private

POOL = 4
"""Connections to the server; whoever would need more waits."""


class PrivatePgBouncer(PrivateProcess):
    binaries = ("pgbouncer",)
    account = "postgres"
    server: dict[str, Any]
    """The entry of Django's DATABASES that is to be reached."""

    @property
    def url(self) -> str:
        return f"postgres://127.0.0.1:{self.port}"

    @property
    def _file(self) -> Path:
        return self.log.parent / "pgbouncer.ini"

    def create(self) -> None:
        server = self.server
        target = {
            "host": server["HOST"],
            "port": server["PORT"],
            "user": server["USER"],
            "password": server["PASSWORD"],
        }
        lines = [
            "[databases]",
            "* = " + " ".join(f"{name}='{value}'" for name, value in target.items() if value),
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = any",
            "pool_mode = transaction",
            f"default_pool_size = {POOL}",
            "max_client_conn = 200",
            "ignore_startup_parameters = extra_float_digits,options",
        ]
        self._file.write_text("\n".join(lines))
        self._file.chmod(0o644)

    def command(self) -> tuple[str, ...]:
        return ("pgbouncer", "-q", str(self._file))

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def proxy_of(alias: str) -> Iterator[PrivatePgBouncer]:
    """Run a proxy before the server of an alias."""

    class PgBouncer(PrivatePgBouncer):
        server = dict(connections.settings[alias])

    with private(PgBouncer) as proxy:
        yield proxy


@contextmanager
def routed(alias: str, port: int) -> Iterator[None]:
    """Let all connections to an alias go through a proxy at a port of this machine."""
    entry = connections.settings[alias]
    before = dict(entry)
    connections[alias].close()
    entry.update(HOST="127.0.0.1", PORT=str(port), DISABLE_SERVER_SIDE_CURSORS=True)
    try:
        yield
    finally:
        connections[alias].close()
        entry.clear()
        entry.update(before)
