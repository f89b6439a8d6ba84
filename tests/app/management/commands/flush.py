"""`manage.py flush`: empty the tables after a test, in place of the command of Django that is made for larger ones."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import flush
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

LASTING = {"django_content_type", "auth_permission"}
"""What Django writes after each migration. It stays, and need not be written again."""


class Command(flush.Command):
    def handle(self, **options: Any) -> None:
        connection = connections[options["database"]]
        found = connection.introspection.django_table_names(only_existing=True, include_views=False)
        tables = [connection.ops.quote_name(table) for table in sorted(set(found) - LASTING)]
        if not tables:
            return
        with transaction.atomic(connection.alias), connection.constraint_checks_disabled():
            _empty(connection, tables)


def _empty(connection: BaseDatabaseWrapper, tables: list[str]) -> None:
    """Delete all rows: truncating makes new files for each table and its indexes, however empty they are."""
    statements = [f"DELETE FROM {table}" for table in tables]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # As truncating does, wait for what somebody still writes whom the test has left behind.
            cursor.execute("; ".join([f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE", *statements]))
            return
        for statement in statements:
            cursor.execute(statement)
