"""How does a test have a database that does not answer?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS

from tests import databases


@contextmanager
def unreachable(alias: str) -> Iterator[str]:
    """Give the alias of a database that is like another one, but whose server nobody reaches."""
    name = NO_DB_ALIAS  # the only one that Django does not keep from tests which have not asked for it
    entry = connections.databases[alias]
    nowhere = {"NAME": "/no/such/directory/db.sqlite3"} if entry["ENGINE"] == databases.SQLITE else {"PORT": "1"}
    connections.databases[name] = {**entry, **nowhere}
    try:
        yield name
    finally:
        connections[name].close()
        del connections[name]
        del connections.databases[name]
