"""Is this database fit to keep a queue? Said by `manage.py check`.

E101 the server or library is too old.
W101 an SQLite file is not in WAL mode.
W102 an SQLite database is in memory.
W103 times in the tables are UTC, and Django takes them for local ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it
from django.db import Error as DatabaseError
from django.db import connections

MINIMUM = {"MySQL": (8, 0, 1), "MariaDB": (10, 6), "SQLite": (3, 35)}
"""SKIP LOCKED and RETURNING need these; what PostgreSQL needs, Django needs too."""

WAL = """\
In DATABASES[{alias!r}] write
    "OPTIONS": {{
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
    }}"""


def found_wrong(using: str, databases: Collection[str]) -> Iterator[CheckMessage]:
    """Give what is wrong with a database; it is asked only if it is one of those that may be."""
    connection: Any = connections[using]
    if connection.vendor != "postgresql" and connection.timezone_name != "UTC":
        yield Warning(
            f"The queue in the database {using!r} keeps its times in UTC, but Django reads and writes "
            f"{connection.timezone_name} there: the admin will show other times than those that count.",
            hint=f"Set USE_TZ = True, and no TIME_ZONE in DATABASES[{using!r}].",
            id="django_tasks.W103",
        )
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        yield Warning(
            f"The database {using!r} is in memory, so a worker in another process sees none of its tasks.",
            hint=f"Give DATABASES[{using!r}] a file as its NAME.",
            id="django_tasks.W102",
        )
    if using not in databases:
        return
    try:
        yield from _asked(using, connection)
    except DatabaseError:
        # That it does not answer is not for a check of settings to say: migrate runs these, and so do tests.
        return


def _asked(using: str, connection: Any) -> Iterator[CheckMessage]:
    name = connection.display_name
    version = tuple(connection.get_database_version())
    if version < MINIMUM.get(name, ()):
        needed, found = (".".join(map(str, each)) for each in (MINIMUM[name], version))
        yield Error(
            f"The queue in the database {using!r} needs {name} {needed} or newer; this is {found}.",
            hint=f"Update {name}, or let OPTIONS['USING'] of the broker name another database.",
            id="django_tasks.E101",
        )
    if connection.vendor == "sqlite" and not connection.is_in_memory_db():
        with connection.cursor() as cursor:
            (mode,) = cursor.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            yield Warning(
                f"The SQLite database {using!r} is in journal mode {mode!r}, in which readers and writers lock each "
                "other out: a worker will slow the site down, and be slowed down by it.",
                hint=WAL.format(alias=using),
                id="django_tasks.W101",
            )
