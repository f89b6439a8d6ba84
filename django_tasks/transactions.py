"""How do statements survive deadlocks, busy files and lost connections?"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_tasks.exceptions import DjangoTasksError

T = TypeVar("T")

Codes = frozenset[str | int]

# What PostgreSQL, and what MySQL and MariaDB, say of serialization failures, deadlocks and lock timeouts, ...
CONFLICTS: Codes = frozenset({"40001", "40P01", "55P03", 1020, 1205, 1213})
# ... of tables that are not there, ...
MISSING_TABLE: Codes = frozenset({"42P01", 1146})
# ... and of a full disk or table.
FULL: Codes = frozenset({"53100", 1021, 1114})

SQLITE_BUSY, SQLITE_LOCKED, SQLITE_FULL = 5, 6, 13


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on when others are in the way."""

    tries: int = 10
    seconds: float = 30.0
    """No further try begins later than this after the first."""
    first: float = 0.01
    longest: float = 1.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: Callable[[], float] = random.random

    def pause(self, tries: int) -> None:
        """Sleep for a random time, up to one that doubles with each try: those that collided do not meet again."""
        self.sleep(self.rng() * min(self.longest, self.first * 2**tries))


PATIENCE = Patience()


@contextmanager
def write(using: str) -> Iterator[None]:
    """Run the block in a transaction of its own, or as a part of the caller's.

    One of its own begins IMMEDIATE on SQLite, where a transaction that began by reading may find that it cannot go on
    to write, and is READ COMMITTED on MySQL and MariaDB, where the stricter default locks gaps between rows. In the
    caller's there is no savepoint: an error marks it to be rolled back.
    """
    connection = connections[using]
    if _is_callers(connection):
        with transaction.atomic(using=using, savepoint=False):
            yield
        return
    with ExitStack() as stack:
        with _beginning(connection):
            stack.enter_context(transaction.atomic(using=using))
        yield


@contextmanager
def _beginning(connection: BaseDatabaseWrapper) -> Iterator[None]:
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        # Whatever the project's own transactions begin with, in OPTIONS["transaction_mode"].
        theirs = getattr(connection, "transaction_mode")  # noqa: B009  # not declared on the base class
        setattr(connection, "transaction_mode", "IMMEDIATE")  # noqa: B010
        try:
            yield
        finally:
            setattr(connection, "transaction_mode", theirs)  # noqa: B010
    else:
        if connection.vendor == "mysql" and getattr(connection, "isolation_level", None) != "read committed":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        yield


def retrying(using: str, function: Callable[[], T], *, atomic: bool = True, patience: Patience = PATIENCE) -> T:
    """Call a function in `write`, and again when others were in the way or the connection had been lost.

    The function must be one that may run twice. Inside a caller's transaction it runs once: only the caller can begin
    that again. With `atomic=False` it is a single statement, which is a transaction by itself. A connection is replaced
    once, and not when it was lost in COMMIT: whether that took place nobody knows.
    """
    connection = connections[using]
    if _is_callers(connection):
        with write(using):
            return function()
    began, renewed = patience.clock(), False
    for tries in count(1):
        before: object = None
        committing = False
        try:
            connection.ensure_connection()
            before = connection.connection
            with write(using) if atomic else nullcontext():
                result = function()
                committing = atomic
        except (Error, DjangoTasksError) as error:
            if is_conflict(error) and tries < patience.tries and patience.clock() - began < patience.seconds:
                patience.pause(tries)
            elif not (committing or renewed) and _was_lost(connection, before):
                renewed = True
            else:
                raise
        else:
            return result
    raise AssertionError("count() does not end")


def is_conflict(error: BaseException) -> bool:
    """Tell whether an error, or what it was raised from, says that others were in the way."""
    return _says(error, CONFLICTS, SQLITE_BUSY, SQLITE_LOCKED)


def _is_callers(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a transaction is under way that is not ours to begin or to end."""
    if connection.in_atomic_block:
        return True
    opened = connection.connection is not None
    return not (connection.autocommit if opened else connection.settings_dict["AUTOCOMMIT"])


def _was_lost(connection: BaseDatabaseWrapper, before: object) -> bool:
    """Tell whether the connection that a statement began with is gone; the next statement opens another."""
    if before is None:
        return False
    if connection.connection is before:
        if connection.is_usable():
            return False
        connection.close()
    return True


def explain(using: str, error: BaseException) -> str:
    """Return what to tell people about a database's error."""
    if _says(error, MISSING_TABLE) or "no such table" in str(error):
        option = "" if using == "default" else f" --database={using}"
        return f"The database {using!r} lacks tables of django_tasks: run `manage.py migrate{option}`. ({error})"
    return f"The database {using!r} did not do it: {error}"


def is_full(error: BaseException) -> bool:
    """Tell whether a database says that it has no room left."""
    return _says(error, FULL, SQLITE_FULL)


def _says(error: BaseException | None, codes: Codes, *sqlite_codes: int) -> bool:
    """Tell whether an error, or what it was raised from, has one of these codes."""
    while error is not None:
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or next(iter(error.args), None)
        if isinstance(code, str | int) and code in codes:
            return True
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in sqlite_codes:
            return True
        error = error.__cause__
    return False
