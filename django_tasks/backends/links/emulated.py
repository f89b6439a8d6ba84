"""How do messages travel over kombu's other transports, which emulate AMQP on something else?

On a directory, a table, a Redis list, a cloud's queue: as safe as kombu makes them, which is less than RabbitMQ is.
Nothing is confirmed, nobody is woken, and what is to wait for its time waits in the worker that fetched it.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, ClassVar

from kombu import Connection
from kombu.transport.virtual import Channel

from django_tasks.backends.links.layout import Layout
from django_tasks.backends.links.link import Arrival, Kept, Parcel, Receipt, Receiver, Sender
from django_tasks.backends.links.servers import ERRORS, Servers
from django_tasks.exceptions import ConfigurationError, PublishError
from django_tasks.wire import Wire

_SHORTEST_POLL = 0.01
_RESCUE = 10.0
"""Seconds between two looks for what killed workers have left."""

_RESCUED = 1000
"""How much of that is put back at one look."""

_SAID = ("correlation_id", "reply_to", "delivery_mode", "priority")
"""Properties that are the sender's, and not the transport's own."""


class EmulatedLink(Sender, Receiver):
    """Sends and receives over one connection, behind one lock."""

    poll = 0.25
    """Seconds between two looks at queues in which there is nothing, unless kombu's `polling_interval` says."""
    lasting: ClassVar[bool] = False
    """Whether what is held outlives a call that failed; otherwise it goes with the connection."""

    def __init__(self, servers: Servers, layout: Layout) -> None:
        self.servers = servers
        self.layout = layout
        self.poll = max(_SHORTEST_POLL, layout.options.transport.get("polling_interval", self.poll))
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._errors = self._raised()
        """What this transport raises when its server is at fault."""
        self._channel: Channel | None = None
        self._name = ""
        self._held: dict[int, Any] = {}
        """What the transport calls each message that is unacknowledged."""
        self._declared: set[str] = set()
        self._kept = Kept()
        self._number = 0
        self._turn = 0
        self._ready: dict[str, int] = {}
        self._rescue_at = 0.0

    def send(self, parcels: Sequence[Parcel]) -> None:
        with self._using() as channel:
            prepared = [(parcel, self._prepared(channel, parcel)) for parcel in parcels]
            for parcel, message in prepared:
                channel.basic_publish(message, "", self._queue(channel, parcel.queue))

    def _prepared(self, channel: Any, parcel: Parcel) -> Any:
        wire = parcel.wire
        said = dict(wire.properties)
        said.pop("expiration", None)
        said.pop("priority", None)
        kind, encoding = said.pop("content_type"), said.pop("content_encoding")
        try:
            # Priorities of these transports mean one thing here and another there; ours travels as a header.
            return channel.prepare_message(wire.body, 0, kind, encoding, wire.headers, said)
        except (TypeError, ValueError) as error:
            raise PublishError(f"A message cannot be sent: {error}") from error

    def fetch(self, queues: Sequence[str], limit: int) -> list[Arrival]:
        with self._using() as channel:
            self._rescue(channel)
            self._turn += 1
            first = self._turn % len(queues)
            fetched = self._kept.take(queues, limit)
            try:
                for queue in [*queues[first:], *queues[:first]]:
                    name = self._queue(channel, queue)
                    while len(fetched) < limit:
                        message = channel.basic_get(name)
                        if message is None:
                            # Whatever comes now is news, also if it is less than there was.
                            self._ready.pop(queue, None)
                            break
                        fetched.append(self._arrival(queue, message))
            except (*ERRORS, *self._errors):
                # What came before is held all the same.
                if not (self.lasting and fetched):
                    raise
            return fetched

    def _rescue(self, channel: Any) -> None:
        """Have put back what others held for too long, where the transport does that when it is asked to."""
        if time.monotonic() >= self._rescue_at:
            self._rescue_at = time.monotonic() + min(_RESCUE, self.servers.hidden / 3)
            channel.qos.restore_visible(num=_RESCUED, interval=1)

    def keep(self, arrival: Arrival, seconds: float) -> None:
        with self._lock:
            self._kept.add(arrival, seconds)

    def _arrival(self, queue: str, message: Any) -> Arrival:
        self._number += 1
        self._held[self._number] = message.delivery_tag
        body = message.body or b""
        said = {name: message.properties[name] for name in _SAID if name in message.properties}
        said |= {"content_type": message.content_type, "content_encoding": message.content_encoding}
        wire = Wire(dict(message.headers), said, body.encode() if isinstance(body, str) else bytes(body))
        losses, exact = self._losses(message)
        info = message.delivery_info or {}
        return Arrival(
            queue,
            (self._name, self._number),
            wire,
            losses,
            exact,
            exchange=info.get("exchange") or "",
            key=info.get("routing_key") or "",
        )

    def _losses(self, message: Any) -> tuple[int, bool]:
        """Return how often a message was delivered before and not acknowledged, and whether it was not oftener."""
        redelivered = bool((message.delivery_info or {}).get("redelivered"))
        return int(redelivered), not redelivered

    def held(self, receipts: Iterable[Receipt]) -> set[Receipt]:
        with self._using():
            return {one for one in receipts if one[0] == self._name and one[1] in self._held}

    def absorb(self, held: Receipt, again: Receipt) -> bool:
        with self._lock:
            # Where kombu puts back what was held for too long, the tag stays.
            same = again[1] in self._held and self._held.get(held[1]) == self._held[again[1]]
            if same:
                del self._held[again[1]]
            return same

    def ack(self, receipts: Sequence[Receipt]) -> None:
        with self._using() as channel:
            for tag in self._let_go(receipts):
                channel.basic_ack(tag)

    def requeue(self, receipts: Sequence[Receipt]) -> None:
        with self._using() as channel:
            for tag in self._let_go(receipts):
                channel.basic_reject(tag, requeue=True)

    def _let_go(self, receipts: Iterable[Receipt]) -> list[Any]:
        numbers = [number for name, number in receipts if name == self._name and number in self._held]
        return [self._held.pop(number) for number in numbers]

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        deadline = time.monotonic() + timeout
        while not stop.is_set():
            with self._lock:
                ready = {queue: self.ready(queue) for queue in queues}
                # What nobody fetches is no news.
                grown = any(number > self._ready.get(queue, 0) for queue, number in ready.items())
                self._ready = ready
            if grown or self._kept.due:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            stop.wait(min(left, self.poll))
        return False

    def ready(self, queue: str) -> int:
        with self._using() as channel:
            return int(channel._size(self._queue(channel, queue)))

    def purge(self, queue: str) -> int:
        with self._using() as channel:
            return int(channel.queue_purge(self._queue(channel, queue)) or 0)

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            self._forget()
            if connection is not None:
                # Closing the channel puts back what is unacknowledged.
                with suppress(Exception):
                    connection.release()

    def _queue(self, channel: Any, queue: str) -> str:
        name = self.layout.name(queue)
        if name not in self._declared:
            channel.queue_declare(queue=name, durable=True, auto_delete=False)
            self._declared.add(name)
        return name

    @contextmanager
    def _using(self) -> Iterator[Any]:
        with self._lock, self.servers.telling(self._errors):
            if self._channel is None:
                self._connect()
            try:
                yield self._channel
            except PublishError:
                raise
            except Exception:
                self._failed()
                raise

    def _failed(self) -> None:
        """Let go of what a failed call leaves in doubt."""
        self.close()

    def _connect(self) -> None:
        self._connection = self._new_connection()
        self._channel = self._connection.channel()
        self._name = f"{os.getpid()}.{secrets.token_hex(8)}"

    def _new_connection(self) -> Connection:
        return self.servers.connection(self.servers.urls[0], self._settings())

    def _raised(self) -> tuple[type[Exception], ...]:
        try:
            like_it = self._new_connection()
            errors = (*like_it.connection_errors, *like_it.channel_errors)
        except (ImportError, KeyError) as error:
            raise ConfigurationError(f"kombu's transport {self.servers.scheme} cannot be used: {error}") from error
        return errors

    def _settings(self) -> Mapping[str, Any]:
        """Return kombu's `transport_options`."""
        return self.layout.options.transport

    def _forget(self) -> None:
        self._channel, self._name = None, ""
        for known in (self._held, self._declared, self._kept, self._ready):
            known.clear()
