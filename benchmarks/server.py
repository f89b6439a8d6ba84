"""On which database does a system run? One of its own on each server, dropped at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from tests import databases

URLS = {
    "postgres": ("DJANGO_TASKS_TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432"),
    "mariadb": ("DJANGO_TASKS_TEST_MARIADB_URL", "mariadb://root@127.0.0.1:3306"),
}
"""Where servers are told to be, and where they usually are."""
VENDORS = ("sqlite", *URLS)


class Database:
    """A database of one run: `entry` is its entry of DATABASES, `count` asks it behind the system's back."""

    def __init__(self, vendor: str, entry: Mapping[str, Any]) -> None:
        self.vendor = vendor
        self.entry = entry
        self._connection = ConnectionHandler({"default": {**entry, "CONN_MAX_AGE": None}})["default"]

    def count(self, sql: str) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
        assert row is not None
        return int(row[0])

    def version(self) -> str:
        """Say which server it is."""
        if self.vendor == "sqlite":
            return f"SQLite {self._text('SELECT sqlite_version()')}"
        if self.vendor == "postgres":
            return f"PostgreSQL {self._text('SHOW server_version').split()[0]}"
        return f"MariaDB {self._text('SELECT version()').split('-')[0]}"

    def durability(self) -> str:
        """Say how a commit gets to the disk: what waits for it one by one is as slow as that."""
        asked = {
            "sqlite": ("PRAGMA journal_mode", "PRAGMA synchronous"),
            "postgres": ("SHOW fsync", "SHOW synchronous_commit"),
            "mariadb": ("SELECT @@innodb_flush_log_at_trx_commit", "SELECT @@sync_binlog"),
        }[self.vendor]
        return ", ".join(f"{sql.split()[-1].lstrip('@')} {self._text(sql)}" for sql in asked)

    def round_trips(self) -> int | None:
        """Return how many transactions or statements the server has answered for this database; None if unknown.

        PostgreSQL counts transactions of each database, our worker's being of one statement or a few; MariaDB counts
        the statements of the whole server.
        """
        if self.vendor == "sqlite":
            return None
        # From outside of the database, or the question would be counted in it.
        with self._connection._nodb_cursor() as cursor:
            if self.vendor == "mariadb":
                cursor.execute(
                    "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Questions'"
                )
            else:
                sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
                cursor.execute(sql, [self.entry["NAME"]])
            row = cursor.fetchone()
        assert row is not None
        return int(row[0])

    def _text(self, sql: str) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
        assert row is not None
        return str(row[0])

    def close(self) -> None:
        self._connection.close()


@contextmanager
def database(vendor: str, folder: Path) -> Iterator[Database]:
    """Make an empty database, and drop it at the end."""
    name = f"django_tasks_bench_{os.getpid()}"
    if vendor == "sqlite":
        entry = databases.parse("sqlite:///", name=str(folder / "bench.sqlite3"))
        entry["OPTIONS"]["transaction_mode"] = "IMMEDIATE"
    else:
        variable, usual = URLS[vendor]
        entry = databases.parse(os.environ.get(variable, usual), name=name)
    # Every system keeps its connections, as each recommends.
    entry["CONN_MAX_AGE"] = None
    server = ConnectionHandler({"default": entry})["default"]
    if vendor != "sqlite":
        _execute(server, "DROP DATABASE IF EXISTS {}", name)
        _execute(server, "CREATE DATABASE {}", name)
    made = Database(vendor, entry)
    try:
        yield made
    finally:
        made.close()
        if vendor != "sqlite":
            forced = " WITH (FORCE)" if vendor == "postgres" else ""
            _execute(server, f"DROP DATABASE {{}}{forced}", name)


def _execute(server: BaseDatabaseWrapper, sql: str, name: str) -> None:
    with server._nodb_cursor() as cursor:
        cursor.execute(sql.format(server.ops.quote_name(name)))
