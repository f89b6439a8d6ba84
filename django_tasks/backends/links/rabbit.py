"""What do the sending and the receiving side of RabbitMQ have in common? A connection with one channel for messages."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

from amqp.exceptions import AccessRefused, ChannelError, NotFound, PreconditionFailed, ResourceLocked

from django_tasks.backends.links.frames import Inbox, split
from django_tasks.backends.links.layout import Declaration
from django_tasks.backends.links.servers import Servers

_CHUNK = 1 << 18
"""Bytes that are read at once."""

SLIPS = (AttributeError, ValueError)
"""What py-amqp raises, beside errors of its own, when another thread has just closed the connection."""

_EXCHANGE, _QUEUE = 40, 50
"""The classes of methods that are about these; a channel of its own is closed when one of them fails."""

FRESH = 60.0
"""Seconds for which a declaration is relied on: what others delete is there again after that at the latest."""


def concerns_a_queue(error: Exception) -> bool:
    """Tell whether it is a question about one queue that failed, so that messages are as they were."""
    return isinstance(error, ChannelError) and (error.method_sig or (0, 0))[0] in (_EXCHANGE, _QUEUE)


class RabbitConnection:
    """A connection; not for two threads at once.

    Messages have a channel to themselves. What may fail for one queue alone, which closes its channel, is asked through
    another one.
    """

    def __init__(self, servers: Servers, name: str, settings: Mapping[str, Any]) -> None:
        self.inbox = Inbox()
        self._connection = servers.connect(
            {
                "frame_handler": self.inbox.handler,
                "client_properties": {"connection_name": f"django_tasks {name}"},
                **settings,
            }
        )
        try:
            self.channel = self._connection.channel()
        except BaseException:
            self.abandon()
            raise
        self.number: int = self.channel.channel_id
        self._encrypted = isinstance(self._connection.transport.sock, ssl.SSLSocket)
        self._ready = select.poll()
        self._ready.register(self.fileno(), select.POLLIN)
        self.inbox.channel = self.number
        self._questions: Any = None
        self._as_found: set[str] = set()
        self._bound: dict[str, float] = {}

    @property
    def product(self) -> tuple[str, str]:
        """The name of the server's software, and its version."""
        told = self._connection.server_properties
        return str(told.get("product", "AMQP")), str(told.get("version", "?"))

    @property
    def frame_max(self) -> int:
        return int(self._connection.frame_max)

    def fileno(self) -> int:
        return int(self._connection.transport.sock.fileno())

    def write(self, data: bytes) -> None:
        self._connection.transport.write(data)
        # What py-amqp counts to know when a heartbeat is due.
        self._connection.bytes_sent += 1

    def pump(self, seconds: float) -> bool:
        """Take in what has been received, waiting so long for the first of it; return whether there was any."""
        transport = self._connection.transport
        try:
            received = self._decrypted(seconds) if self._encrypted else self._received(seconds)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return False
        if not received:
            raise ConnectionResetError("the server closed the connection")
        # Where py-amqp keeps the beginning of a frame whose end it waits for. It goes on from there.
        data = transport._read_buffer + received
        while data is not None:
            data = self._take_in(data)
        return True

    def _received(self, seconds: float) -> bytes:
        # A socket whose timeout is changed, and changed back, costs two more system calls for every message.
        if seconds > 0:
            self._ready.poll(seconds * 1000)
        received: bytes = self._connection.transport.sock.recv(_CHUNK, socket.MSG_DONTWAIT)
        return received

    def _decrypted(self, seconds: float) -> bytes:
        """Return what was received through TLS, which may have been read from the system already."""
        sock = self._connection.transport.sock
        before = sock.gettimeout()
        sock.settimeout(seconds)
        try:
            received: bytes = sock.recv(_CHUNK)
        finally:
            sock.settimeout(before)
        return received

    def _take_in(self, data: bytes) -> bytes | None:
        """Hand over whole frames; return what there is to go on with, if py-amqp read on by itself meanwhile."""
        transport, inbox = self._connection.transport, self.inbox
        end = 0
        for frame, stop in split(data):
            end = stop
            if inbox.wants(frame):
                inbox.take(self._connection, frame)
                continue
            rest = transport._read_buffer = data[end:]
            self._connection.on_inbound_frame(frame)
            if transport._read_buffer is not rest:
                return bytes(transport._read_buffer)
        transport._read_buffer = data[end:]
        return None

    def tick(self) -> None:
        """Send a heartbeat if one is due; raises when the server has sent none for too long."""
        self._connection.heartbeat_tick()

    def count(self, queue: Declaration, *, create: bool = True) -> int | None:
        """Return how many messages are ready in a queue, which is made if it is not there; None if it is not to be.

        One that is there and was declared otherwise, by Celery or by hand, is taken as it is. What is made is bound to
        its exchange.
        """
        ready = self._count(queue, create=create)
        if create and queue.binding is not None and self._bound.get(queue.name, 0.0) < time.monotonic():
            self.exchange(queue.binding.exchange, queue.binding.kind)
            for key in queue.binding.keys:
                self._asking().queue_bind(queue.name, queue.binding.exchange, key, arguments=queue.binding.arguments)
            self._bound[queue.name] = time.monotonic() + FRESH
        return ready

    def exchange(self, name: str, kind: str) -> None:
        """See to it that there is an exchange, of that kind; without one, raise NotFound when there is none."""
        self._asking().exchange_declare(name, kind, passive=not kind, durable=True, auto_delete=False)

    def deleted(self, name: str) -> None:
        """Take note that a queue is not there any more, nor bound."""
        self._bound.pop(name, None)

    def _count(self, queue: Declaration, *, create: bool) -> int | None:
        if create and queue.name not in self._as_found:
            try:
                return self._declare(queue, passive=False)
            except (PreconditionFailed, AccessRefused):
                self._as_found.add(queue.name)
        try:
            return self._declare(queue, passive=True)
        except NotFound:
            self._as_found.discard(queue.name)
            return self._declare(queue, passive=False) if create else None

    def _declare(self, queue: Declaration, *, passive: bool) -> int:
        declared = self._asking().queue_declare(
            queue.name,
            passive=passive,
            durable=not queue.exclusive,
            exclusive=queue.exclusive,
            auto_delete=queue.auto_delete,
            arguments=queue.arguments or None,
        )
        return int(declared.message_count)

    def otherwise(self, queue: Declaration) -> str:
        """Return what the server says of a queue that is there and was declared otherwise; nothing of any other."""
        try:
            self._declare(queue, passive=True)
            self._declare(queue, passive=False)
        except PreconditionFailed as error:
            return str(error.reply_text)
        except (NotFound, AccessRefused, ResourceLocked):
            return ""
        return ""

    def purge(self, queue: str) -> int:
        """Empty a queue; return how many messages it had."""
        try:
            return int(self._asking().queue_purge(queue))
        except NotFound:
            return 0

    def close(self) -> None:
        """Say goodbye, for no longer than a moment."""
        connection = self._connection
        try:
            if connection.transport is not None and connection.connected:
                connection.transport.sock.settimeout(1.0)
                connection.close()
        except Exception:  # noqa: BLE001, S110  # it goes, whatever it says
            pass
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of a connection that is of no use any more."""
        self._connection.collect()

    def _asking(self) -> Any:
        if self._questions is None:
            self._questions = self._connection.channel()
        return self._questions
