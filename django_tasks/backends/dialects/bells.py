"""How does a worker that waits hear that something arrived?"""

from __future__ import annotations

import logging
import random
import secrets
import selectors
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Collection
from threading import Event
from typing import Any

from django.db import Error, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_tasks.backends.dialects.postgresql import CHANNEL

_log = logging.getLogger("django_tasks.broker")

GLANCE = 0.2
"""Seconds after which `stop` is looked at, which cannot wake who listens to a socket."""

FIRST_POLL = 0.05
LONGEST_POLL = 1.0
"""Seconds between two looks at a queue that was empty, at first and after a while."""

FLOOR = 2.0
"""Seconds after which a worker looks though it heard nothing: a connection may be dead without telling."""

PROOF = 2.0
"""Seconds within which a connection that can be notified has been."""

RECONNECT, LONGEST_RECONNECT = 1.0, 30.0

FIRST_TICK, LONGEST_TICK = 0.01, 0.03
"""Seconds between two looks at the version of an SQLite file, which reads a few bytes of shared memory. What it costs
is that the process wakes up: half a percent of a core at forty times a second."""


class Bell(ABC):
    """What a thread listens to while it waits; each thread has its own."""

    polling: bool = False
    """Whether it rings by the clock."""
    sure: bool = False
    """Whether it rang because something arrived, so that a look beforehand would only cost time."""
    _connection: BaseDatabaseWrapper | None = None
    _finalizer: weakref.finalize[..., Any] | None = None

    @abstractmethod
    def listen(self, queues: Collection[str], seconds: float, stop: Event) -> bool:
        """Return True as soon as a look at the queues is worth it, False after so many seconds or at the stop.

        What rang before the first call cannot have been heard, so that one says True.
        """

    def looked(self, *, found: bool) -> None:  # noqa: B027  # most bells do not care
        """Take note of what came of the look."""

    def close(self) -> None:
        """Let go of the connection, if there is one; the next call opens another."""
        self._connection = None
        if self._finalizer is not None:
            self._finalizer()

    def _hold(self, connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
        """Keep a connection, and close it at the latest when the thread ends that this bell belongs to."""
        self.close()
        self._finalizer = weakref.finalize(self, _hang_up, connection)
        self._connection = connection
        return connection


class Polls(Bell):
    """Rings by the clock: soon after something was found, ever more slowly after that."""

    polling = True

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._pause = min(FIRST_POLL, longest)
        self._next = time.monotonic()

    def listen(self, queues: Collection[str], seconds: float, stop: Event) -> bool:
        left = self._next - time.monotonic()
        if stop.wait(max(0.0, min(left, seconds))) or left > seconds:
            return False
        self._next = time.monotonic() + _jittered(self._pause)
        return True

    def looked(self, *, found: bool) -> None:
        self._pause = min(FIRST_POLL if found else self._pause * 1.5, self.longest)


class FileVersion(Bell):
    """Rings when another connection has committed to the SQLite file."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._version = 0
        self._tick = FIRST_TICK

    def listen(self, queues: Collection[str], seconds: float, stop: Event) -> bool:
        deadline = time.monotonic() + seconds
        if self._connection is None:
            self._version = _data_version(self._hold(_own_connection(self.using)))
            return True
        while not stop.is_set():
            version = _data_version(self._connection)
            if version != self._version:
                self._version, self._tick = version, FIRST_TICK
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Not stop.wait(), which costs twice as much; this is short enough.
            time.sleep(min(self._tick, left))
            self._tick = min(self._tick * 1.02, LONGEST_TICK)
        return False


def _data_version(connection: BaseDatabaseWrapper | None) -> int:
    # Past Django's cursor, which costs more than the question itself.
    raw = _raw(connection)
    assert connection is not None
    with connection.wrap_database_errors:
        (version,) = raw.execute("PRAGMA data_version").fetchone()
    return int(version)


class Notifications(Bell):
    """Rings when PostgreSQL notifies, through a connection of its own; polls while there is no such connection.

    Behind a proxy that lends a server's connection for one transaction at a time, LISTEN reaches nobody: a
    notification comes while the connection is not lent, or to whoever has it then. So one that goes through a proxy
    must prove itself by a notification that we send to ourselves. If that does not come, this one polls for good.
    """

    def __init__(self, using: str, longest: float) -> None:
        self.using = using
        self._polls = Polls(longest)
        self._proof = ""
        """What must be heard before the connection is trusted; empty once it is."""
        self._proof_until = 0.0
        self._next_look = 0.0
        self._retry = RECONNECT
        self._retry_at = 0.0

    def listen(self, queues: Collection[str], seconds: float, stop: Event) -> bool:
        deadline = time.monotonic() + seconds
        self.sure = False
        if self._connection is None and self._connect():
            return True
        while not stop.is_set():
            left = deadline - time.monotonic()
            if self._connection is None:
                return self._polls.listen(queues, left, stop)
            self.sure = self._heard(self._connection, queues, max(0.0, min(left, GLANCE)))
            if self.sure or self._is_time():
                return True
            if left <= 0:
                return False
        return False

    def looked(self, *, found: bool) -> None:
        self._polls.looked(found=found)

    def proves_itself(self) -> bool:
        """Tell whether notifications come, which takes two seconds at most."""
        never = Event()
        self.listen((), 0.0, never)
        while self._connection is not None and self._proof:
            self.listen((), PROOF, never)
        return self._connection is not None

    def _connect(self) -> bool:
        """Listen, if it is time to try; return whether we do."""
        now = time.monotonic()
        if self.polling or now < self._retry_at:
            return False
        try:
            connection = self._hold(_own_connection(self.using))
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
                cursor.execute("SELECT pg_backend_pid()")
                (pid,) = cursor.fetchone()
            self._proof = "" if pid == _raw(connection).info.backend_pid else self._ask_for_proof()
        except Error:
            self._lose()
            return False
        self._retry = RECONNECT
        self._proof_until = now + PROOF
        self._plan_look(now)
        return True

    def _ask_for_proof(self) -> str:
        """Notify ourselves from another connection: the server notifies the one that it comes from in any case."""
        proof = f"? {secrets.token_hex(16)}"
        other = _own_connection(self.using)
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, proof])
        finally:
            other.close()
        return proof

    def _heard(self, connection: Any, queues: Collection[str], seconds: float) -> bool:
        """Wait for notifications; tell whether one is for these queues."""
        try:
            payloads = _notifications(_raw(connection), seconds)
        except (Error, connection.Database.Error, OSError, ValueError):
            # Slower from here on, and no more: what was missed is found by looking.
            self._lose()
            return True
        if self._proof and self._proof in payloads:
            self._proof = ""
        return any(payload in queues for payload in payloads)

    def _is_time(self) -> bool:
        """Tell whether to look though nothing was heard."""
        now = time.monotonic()
        if self._proof and now >= self._proof_until:
            self._give_up()
            return True
        if now < self._next_look:
            return False
        self._plan_look(now)
        return True

    def _plan_look(self, now: float) -> None:
        # Until the connection has proven itself, as often as if there were none.
        self._next_look = now + _jittered(FIRST_POLL if self._proof else FLOOR)

    def _give_up(self) -> None:
        _log.info(
            "Notifications do not come through the proxy before the database; polling instead",
            extra={"using": self.using},
        )
        self.polling = True
        connection = self._connection
        if connection is not None:
            try:
                # The proxy keeps the server's connection, and most likely gives us the same one again.
                for _ in range(5):
                    with connection.cursor() as cursor:
                        cursor.execute(f"UNLISTEN {CHANNEL}")
            except Error:
                self._lose()
        self.close()

    def _lose(self) -> None:
        self.close()
        self._retry_at = time.monotonic() + _jittered(self._retry)
        self._retry = min(self._retry * 2, LONGEST_RECONNECT)


def _notifications(raw: Any, seconds: float) -> list[str]:
    """Return the payloads that come within so many seconds, as soon as there are any."""
    # What TLS has decrypted already does not make the socket readable.
    if payloads := _drained(raw):
        return payloads
    with selectors.DefaultSelector() as selector:
        selector.register(raw.fileno(), selectors.EVENT_READ)
        return _drained(raw) if selector.select(seconds) else []


def _drained(raw: Any) -> list[str]:
    """Return what psycopg has read so far; version 3 wraps libpq's own calls, version 2 keeps a list."""
    if not hasattr(raw, "pgconn"):
        raw.poll()
        found, raw.notifies[:] = [each.payload for each in raw.notifies], []
        return found
    raw.pgconn.consume_input()
    return [each.extra.decode() for each in iter(raw.pgconn.notifies, None)]


def _own_connection(using: str) -> BaseDatabaseWrapper:
    """Return a new connection to an alias, of which Django knows nothing; any thread may close it."""
    connection = connections[using].copy()
    # A pool would lend it for ever.
    connection.settings_dict["OPTIONS"].pop("pool", None)
    connection.settings_dict["AUTOCOMMIT"] = True
    connection.inc_thread_sharing()
    connection.ensure_connection()
    return connection


def _raw(connection: BaseDatabaseWrapper | None) -> Any:
    """Return the driver's connection."""
    raw = None if connection is None else connection.connection
    if raw is None:
        raise InterfaceError("the connection was closed by another thread")
    return raw


def _hang_up(connection: BaseDatabaseWrapper) -> None:
    try:
        connection.close()
    except Error:
        connection.connection = None


def _jittered(seconds: float) -> float:
    """Return about as many seconds, so that workers that began together do not look together."""
    return seconds * random.uniform(0.8, 1.2)
