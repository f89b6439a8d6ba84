"""How do tasks get healthy database connections, and leave none behind?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

T = TypeVar("T")

_log = logging.getLogger("django_tasks.worker")


def tidy(task: str) -> None:
    """Make the thread's connections ready for the next task.

    They stay open whatever CONN_MAX_AGE says, and are looked at before their next query, so that one which the server
    closes meanwhile is replaced unseen. One that the task left in a state that the next must not meet is closed.
    """
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()
        if connection.connection is None:
            continue
        if connection.in_atomic_block or connection.closed_in_transaction or connection.needs_rollback:
            _log.warning("A task left a transaction open; it is rolled back", extra={"task": task})
            discard(connection)
        elif connection.errors_occurred or not connection.get_autocommit():
            _recover(connection)
        connection.health_check_enabled = True  # type: ignore[attr-defined]  # unknown to the stubs
        connection.health_check_done = False  # type: ignore[attr-defined]


def _recover(connection: BaseDatabaseWrapper) -> None:
    connection.errors_occurred = False
    if not connection.get_autocommit() or not connection.is_usable():
        discard(connection)


def discard(connection: BaseDatabaseWrapper) -> None:
    """Close a connection, whatever state it is in; the next query opens a new one."""
    connection.run_on_commit = []
    connection.savepoint_ids = []
    connection.in_atomic_block = False
    connection.closed_in_transaction = False
    connection.needs_rollback = False
    connection.atomic_blocks = []
    try:
        connection.close()
    except (DatabaseError, InterfaceError):
        connection.connection = None


def close_all() -> None:
    """Close the thread's connections; for threads that end."""
    for connection in connections.all(initialized_only=True):
        discard(connection)


async def aside(call: Callable[[], T]) -> T:
    """Make a blocking call in a thread of its own, which answers no request: nobody else would ever close the
    connections that it opened there."""

    def closing() -> T:
        try:
            return call()
        finally:
            close_all()

    return await sync_to_async(closing, thread_sensitive=False)()
