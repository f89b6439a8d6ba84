"""How do the results of its calls come to a process from RabbitMQ?

They come to one queue, which is this process's alone. Calls need only the queue; from the first question on a thread
consumes from it, and then it goes with the connection, as Celery's does.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from threading import Event

from django_tasks.backends.links.frames import Content
from django_tasks.backends.links.layout import Declaration
from django_tasks.backends.links.rabbit import FRESH, SLIPS, RabbitConnection
from django_tasks.backends.links.servers import Servers
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.options import RNG

_log = logging.getLogger("django_tasks.broker")

_BACKLOG = 2.0
"""Seconds in which what waited in the queue has to come; what takes longer comes later."""
_LULL = 0.02
_FIRST, _LONGEST, _GROWTH = 0.1, 5.0, 1.25
"""Seconds between two tries to connect again, at first and at most, and what each is longer than the one before."""
_PARTING = 5.0
"""Seconds that a thread is waited for which was told to end."""


class RabbitReplies:
    """The queue that replies come to; any thread may use it. Raises BrokerUnavailable.

    `take` is called with what came, `lost` with the reason why something may have come and be gone.
    """

    def __init__(
        self,
        servers: Servers,
        queue: Declaration,
        take: Callable[[Sequence[Content]], None],
        lost: Callable[[str], None],
    ) -> None:
        self.servers = servers
        self.queue = queue
        self._take = take
        self._lost = lost
        self._lock = threading.RLock()
        self._connection: RabbitConnection | None = None
        """The connection that consumes; only its thread reads from it."""
        self._listener: _Listener | None = None
        self._declared = 0.0
        self._deleted = False

    def declare(self) -> None:
        """See to it that the queue is there. One that is consumed from stays."""
        if self._there():
            return
        with self._lock, self.servers.telling(SLIPS):
            if self._there():
                return
            connection = RabbitConnection(self.servers, "caller", {})
            try:
                connection.count(self.queue)
            finally:
                connection.close()
            self._declared = time.monotonic() + FRESH

    def listen(self) -> None:
        """Consume from now on; what has waited in the queue was taken when this returns."""
        if self._connection is not None:
            return
        with self._lock:
            self._connect()
            if self._listener is None:
                self._listener = _Listener(self._attend)

    def close(self) -> None:
        """Consume no more. The queue goes, with what comes until it is declared again."""
        with self._lock:
            listener, self._listener = self._listener, None
            connection, self._connection = self._connection, None
            self._declared = 0.0
            if listener is not None:
                listener.ended.set()
        if listener is not None:
            listener.end()
        if connection is not None:
            connection.close()
            self._lost("the store was closed")

    def _there(self) -> bool:
        return self._connection is not None or time.monotonic() < self._declared

    # The thread

    def _attend(self, listener: _Listener) -> None:
        """Take what comes until told to end, over a new connection when one is lost."""
        pause = _FIRST
        while not listener.ended.is_set():
            connection = self._connection
            if connection is None:
                try:
                    self._connect(listener.ended)
                except BrokerUnavailable as error:
                    _log.debug("Replies cannot be had", extra={"error": str(error)})
                    # Scattered: a site may have hundreds of processes that lost the same server.
                    listener.rest(pause * RNG.uniform(0.5, 1.0))
                    pause = min(_GROWTH * pause, _LONGEST)
                continue
            pause = _FIRST
            try:
                with self.servers.telling(SLIPS):
                    self._receive(connection, listener)
            except BrokerUnavailable as error:
                self._drop(connection, str(error))

    def _receive(self, connection: RabbitConnection, listener: _Listener) -> None:
        while connection.pump(0.0):
            self._hand_over(connection)
        # Also what py-amqp has read, while it waited for an answer.
        self._hand_over(connection)
        if self._deleted:
            raise BrokerUnavailable(f"The queue {self.queue.name!r} was deleted.")
        connection.tick()
        listener.rest(self.servers.options.heartbeat / 4, connection.fileno())

    def _drop(self, connection: RabbitConnection, why: str) -> None:
        with self._lock:
            if self._connection is not connection:
                # It was closed, and is not missed.
                return
            self._connection = None
            self._declared = 0.0
        connection.abandon()
        _log.warning("The connection for replies was lost", extra={"error": why})
        self._lost(why)

    # The connection

    def _connect(self, ended: Event | None = None) -> None:
        with self._lock, self.servers.telling(SLIPS):
            if self._connection is not None or (ended is not None and ended.is_set()):
                return
            connection = RabbitConnection(self.servers, "caller", {"heartbeat": self.servers.options.heartbeat})
            try:
                self._consume(connection)
            except BaseException:
                connection.abandon()
                raise
            self._connection = connection

    def _consume(self, connection: RabbitConnection) -> None:
        self._deleted = False
        ready = connection.count(self.queue) or 0
        connection.channel.basic_consume(self.queue.name, no_ack=True, on_cancel=self._on_cancel)
        give_up = time.monotonic() + _BACKLOG
        while len(connection.inbox.contents) < ready and time.monotonic() < give_up:
            connection.pump(_LULL)
        self._hand_over(connection)

    def _hand_over(self, connection: RabbitConnection) -> None:
        contents = connection.inbox.contents
        if contents:
            came = [contents.popleft() for _ in range(len(contents))]
            self._take(came)

    def _on_cancel(self, consumer: str) -> None:
        self._deleted = True


class _Listener:
    """A thread that can be woken from its rest."""

    def __init__(self, work: Callable[[_Listener], None]) -> None:
        self.ended = Event()
        self._bell, self._ring = socket.socketpair()
        self._thread = threading.Thread(target=work, args=(self,), name="amqp-replies", daemon=True)
        self._thread.start()

    def rest(self, seconds: float, *files: int) -> None:
        """Return when there is something to read from a file, after so many seconds, or when told to end."""
        ready = select.poll()
        for file in (self._bell.fileno(), *files):
            ready.register(file, select.POLLIN)
        ready.poll(seconds * 1000)

    def end(self) -> None:
        self.ended.set()
        self._ring.send(b"!")
        self._thread.join(_PARTING)
        if not self._thread.is_alive():
            self._bell.close()
            self._ring.close()
