"""Is this database fit to keep a queue? Said by `manage.py check` and `manage.py tasks doctor`.

E101 the server or library is too old.
E102 it does not wait for the disk: a power cut may destroy it.
E103 a table cannot take part in transactions.
E104 an SQLite file is on a network file system.
W101 an SQLite file is not in WAL mode.
W102 an SQLite database is in memory.
W103 times in the tables are UTC, and Django takes them for local ones.
W104 a commit is answered before it is on the disk.
W105 the binary log may miss commits after a power cut.
W107 the server ends statements or transactions that a worker needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it
from django.db import Error as DatabaseError
from django.db import connections
from django.db.backends.utils import CursorWrapper

from django_tasks.answers import once
from django_tasks.diagnosis import Diagnosis, clock_off, is_local

MINIMUM = {"MySQL": (8, 0, 1), "MariaDB": (10, 6), "SQLite": (3, 35)}
"""SKIP LOCKED and RETURNING need these; what PostgreSQL needs, Django needs too."""

SHORT = 10.0
"""Seconds; a settlement of a thousand tasks on a busy server may take as long."""

NETWORKED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs"}
)
"""File systems, as Linux calls them, on which locks and shared memory do not reach from machine to machine."""

MOUNTS = Path("/proc/self/mountinfo")

WAL = """\
In DATABASES[{alias!r}] write
    "OPTIONS": {{
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
    }}"""


def found_wrong(using: str, databases: Collection[str]) -> Iterator[CheckMessage]:
    """Give what is wrong with a database; it is asked only if it is one of those that may be."""
    yield from _settings_wrong(using, connections[using])
    if using not in databases:
        return
    try:
        yield from _unfit_once(using)
    except DatabaseError:
        # That it does not answer is not for a check of settings to say: migrate runs these, and so do tests.
        return


def examine(using: str, *, ask: bool = True, clock: Callable[[], float] = time.time) -> Diagnosis:
    """Return all that is unsafe about a database; raises Django's DatabaseError if it does not answer."""
    connection: Any = connections[using]
    remote = connection.vendor != "sqlite" and not is_local(str(connection.settings_dict["HOST"]))
    found = list(_settings_wrong(using, connection))
    if not ask:
        return Diagnosis(connection.vendor, _place(connection), tuple(found), remote)
    found += _unfit_once(using)
    asked, room = once(("rest", using), lambda: _asked(using, connection, clock))
    version = ".".join(map(str, connection.get_database_version()))
    where, what = _place(connection), f"{connection.display_name} {version}"
    return Diagnosis(what, where, (*found, *asked), remote, connections=room)


def _asked(using: str, connection: Any, clock: Callable[[], float]) -> tuple[list[CheckMessage], int | None]:
    """Return what a database says of itself that is worth saying before a site goes live, and how many connections it
    takes."""
    found: list[CheckMessage] = []
    room = None
    if connection.vendor != "sqlite":
        variables = _variables(connection)
        found += slack(using, variables)
        found += _hasty(using, variables)
        found += _clock(using, connection, clock)
        room = int(variables["max_connections"]) - int(variables.get("superuser_reserved_connections", 0))
    if connection.vendor == "mysql":
        found += _tables(using, connection)
    return found, room


def _place(connection: Any) -> str:
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return str(settings["NAME"])
    port = f":{settings['PORT']}" if settings["PORT"] else ""
    return f"{settings['HOST'] or 'localhost'}{port}/{settings['NAME'] or ''}"


def _settings_wrong(using: str, connection: Any) -> Iterator[CheckMessage]:
    if connection.vendor != "postgresql" and connection.timezone_name != "UTC":
        yield Warning(
            f"The queue in the database {using!r} keeps its times in UTC, but Django reads and writes "
            f"{connection.timezone_name} there: the admin will show other times than those that count.",
            hint=f"Set USE_TZ = True, and no TIME_ZONE in DATABASES[{using!r}].",
            id="django_tasks.W103",
        )
    if connection.vendor != "sqlite":
        return
    if connection.is_in_memory_db():
        yield Warning(
            f"The database {using!r} is in memory, so a worker in another process sees none of its tasks.",
            hint=f"Give DATABASES[{using!r}] a file as its NAME.",
            id="django_tasks.W102",
        )
    elif MOUNTS.exists():
        path = Path(connection.settings_dict["NAME"]).resolve()
        yield from networked(using, file_system(path, MOUNTS.read_text()))


def networked(using: str, kind: str) -> Iterator[CheckMessage]:
    """Give what is wrong with a file system of that kind under an SQLite file."""
    if kind in NETWORKED:
        yield Error(
            f"The SQLite database {using!r} is on a network file system ({kind}), where its locks do not hold: two "
            "workers can take the same task, and the file can be destroyed.",
            hint="Move the file to a disk of this machine, or use a database server.",
            id="django_tasks.E104",
        )


def file_system(path: Path, mounts: str) -> str:
    """Return the kind of the file system that a path is on, by Linux's table of mounts; the deepest mount holds it."""
    deepest, kind = "", ""
    for line in mounts.splitlines():
        own, _, rest = line.partition(" - ")
        point = own.split()[4].replace(r"\040", " ")
        # The later of two on one point covers the other.
        if path.is_relative_to(point) and len(point) >= len(deepest):
            deepest, kind = point, rest.split()[0]
    return kind


def _unfit_once(using: str) -> list[CheckMessage]:
    return once(("unfit", using), lambda: list(_unfit(using, connections[using])))


def _unfit(using: str, connection: Any) -> Iterator[CheckMessage]:
    """Give what a database says of itself that every check should say."""
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
            (synchronous,) = cursor.execute("PRAGMA synchronous").fetchone()
        if mode != "wal":
            yield Warning(
                f"The SQLite database {using!r} is in journal mode {mode!r}, in which readers and writers lock each "
                "other out: a worker will slow the site down, and be slowed down by it.",
                hint=WAL.format(alias=using),
                id="django_tasks.W101",
            )
        if synchronous == 0:
            yield _destructible(using, "PRAGMA synchronous is OFF", WAL.format(alias=using))


def _destructible(using: str, why: str, hint: str) -> CheckMessage:
    return Error(
        f"The database {using!r} does not see to it that its files are whole ({why}): a power cut may destroy all of "
        "it.",
        hint=hint,
        id="django_tasks.E102",
    )


def _variables(connection: Any) -> dict[str, str]:
    """Return how a server is set up, times in seconds; what holds for this session, where it may differ."""
    names = ("max_connections", *_SLACK, *_HASTY)
    listed = ", ".join(["%s"] * len(names))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT name, CASE unit WHEN 'ms' THEN (setting::numeric / 1000)::text ELSE setting END "  # noqa: S608
                f"FROM pg_settings WHERE name IN ({listed}, 'superuser_reserved_connections')",
                names,
            )
        else:
            cursor.execute(f"SHOW VARIABLES WHERE Variable_name IN ({listed})", names)
        return {str(name): str(value) for name, value in cursor.fetchall()}


_SLACK = ("fsync", "full_page_writes", "synchronous_commit", "innodb_flush_log_at_trx_commit", "log_bin", "sync_binlog")


def slack(using: str, variables: Mapping[str, str]) -> Iterator[CheckMessage]:
    """Give what a server does not write to the disk in time."""
    if variables.get("fsync") == "off":
        yield _destructible(using, "fsync is off", "Set `fsync = on` in postgresql.conf.")
    if variables.get("full_page_writes") == "off":
        yield _destructible(using, "full_page_writes is off", "Set `full_page_writes = on` in postgresql.conf.")
    lax = [("synchronous_commit", "on")] if variables.get("synchronous_commit") == "off" else []
    if variables.get("innodb_flush_log_at_trx_commit", "1") != "1":
        lax.append(("innodb_flush_log_at_trx_commit", "1"))
    for name, safe in lax:
        yield Warning(
            f"The database {using!r} answers a commit before it is on the disk ({name} = {variables[name]}): after a "
            "power cut tasks that were sent may be gone, and tasks that ended may run again.",
            hint=f"Set `{name} = {safe}` in the server's configuration, or for the user of this site.",
            id="django_tasks.W104",
        )
    if variables.get("log_bin", "OFF") == "ON" and variables.get("sync_binlog") == "0":
        yield Warning(
            f"The database {using!r} does not sync its binary log (sync_binlog = 0): after a power cut a replica, or a "
            "restored backup, may lack messages and results that this server has.",
            hint="Set `sync_binlog = 1` in the server's configuration.",
            id="django_tasks.W105",
        )


_HASTY = ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout", "max_statement_time")


def _hasty(using: str, variables: Mapping[str, str]) -> Iterator[CheckMessage]:
    """Give the timeouts that cut off what a worker needs. Of MySQL's, `max_execution_time` ends SELECT alone."""
    for name in _HASTY:
        seconds = float(variables.get(name, 0))
        if 0 < seconds < SHORT:
            yield Warning(
                f"The database {using!r} gives up after {seconds:g} s ({name}). A worker that settles many tasks at "
                "once, or a task with atomic=True, may need longer, and is then done over.",
                hint=f"Let {name} be 0, or {SHORT:g} s at least, for the user of the workers.",
                id="django_tasks.W107",
            )


def _clock(using: str, connection: Any, clock: Callable[[], float]) -> list[CheckMessage]:
    question = {
        "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
        "mysql": "SELECT UNIX_TIMESTAMP(SYSDATE(6))",
    }[connection.vendor]
    with connection.cursor() as cursor:
        before = clock()
        told = _answer(cursor, question)
        return clock_off(f"The database {using!r}", float(told), before, clock())


def _answer(cursor: CursorWrapper, question: str) -> Any:
    cursor.execute(question)
    return cursor.fetchone()[0]


def _tables(using: str, connection: Any) -> Iterator[CheckMessage]:
    names = [model._meta.db_table for model in apps.get_app_config("django_tasks").get_models()]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() "  # noqa: S608
            f"AND engine <> 'InnoDB' AND table_name IN ({', '.join(['%s'] * len(names))}) ORDER BY table_name",
            names,
        )
        found = cursor.fetchall()
    for table, engine in found:
        yield Error(
            f"The table {table} in the database {using!r} is kept by {engine}, which has no transactions: tasks are "
            "lost or run twice.",
            hint=f"Run `ALTER TABLE {table} ENGINE=InnoDB`.",
            id="django_tasks.E103",
        )
