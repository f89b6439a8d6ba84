"""Which vendor's statements does the queue speak? One file a vendor; `DIALECTS` says which."""

from __future__ import annotations

from collections.abc import Mapping

from django_tasks.backends.dialects.dialect import Dialect
from django_tasks.backends.dialects.mysql import MySQLDialect
from django_tasks.backends.dialects.postgresql import PostgreSQLDialect
from django_tasks.backends.dialects.sqlite import SQLiteDialect

DIALECTS: Mapping[str, type[Dialect]] = {
    "mysql": MySQLDialect,
    "postgresql": PostgreSQLDialect,
    "sqlite": SQLiteDialect,
}
"""By Django's name of the vendor; MariaDB goes by "mysql"."""
