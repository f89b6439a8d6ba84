"""How does a test get in a database's way?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections


def execute(alias: str, statement: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def another(alias: str) -> Iterator[Callable[[str], None]]:
    """Give a second connection to a database, in autocommit mode; what it began is rolled back."""
    connection = connections[alias].copy()
    connection.inc_thread_sharing()

    def run(statement: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement)

    try:
        yield run
    finally:
        connection.close()


def backend(alias: str) -> int:
    """Return the number by which the server knows our connection."""
    function = {"postgresql": "pg_backend_pid()", "mysql": "connection_id()"}[connections[alias].vendor]
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT {function}")
        return int(cursor.fetchone()[0])


def kill(alias: str, number: int) -> None:
    """End a connection from the server's side, and return when it has ended."""
    with another(alias) as run:
        if connections[alias].vendor == "postgresql":
            run(f"SELECT pg_terminate_backend({number}, 10000)")
        else:
            run(f"KILL {number}")


@contextmanager
def changed_options(alias: str) -> Iterator[dict[str, Any]]:
    """Give the OPTIONS of a database, to be changed; connections that are opened from then on have them."""
    options = connections.settings[alias]["OPTIONS"]
    before = dict(options)
    connections[alias].close()
    try:
        yield options
    finally:
        connections[alias].close()
        options.clear()
        options.update(before)
