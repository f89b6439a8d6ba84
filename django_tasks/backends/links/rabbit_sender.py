"""How do messages get to RabbitMQ?

Each batch is written in pieces of many messages, and then waited for until the server has confirmed every one. All are
`mandatory`: a message for which there is no queue comes back, and is no silence. A connection serves one thread at a
time; there are as many as threads publish at once.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import AMQPError, NotFound

from django_tasks.backends.links import frames, tables
from django_tasks.backends.links.frames import Address, Confirm
from django_tasks.backends.links.layout import Declaration, Layout, step_for
from django_tasks.backends.links.link import Parcel, Sender
from django_tasks.backends.links.rabbit import FRESH, SLIPS, RabbitConnection
from django_tasks.backends.links.servers import Servers
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, PublishError, Unroutable

_log = logging.getLogger("django_tasks.broker")

_PIECE = 200
"""Messages that are written at once."""
_OPEN = 2_000
"""Messages that may be on their way without a confirm: the server stops reading when it has too much to say."""
_KEPT = 4
"""Idle connections that are kept."""
_ADDRESSES = 1_000
"""Queues whose addresses are remembered."""
_PAUSES = (0.02, 0.1, 0.3)
"""Seconds before what was refused is sent again: a queue that is being made by another at this moment, or has no leader
for a moment, refuses like a full one."""


@dataclass(slots=True)
class _Letter:
    """A parcel ready to be written, and what became of it."""

    parcel: Parcel
    address: Address
    needs: tuple[Declaration, ...]
    """The queues that it goes to, where it goes through no exchange."""
    properties: bytes
    confirmed: bool = False


class RabbitSender(Sender):
    """Publishes over connections of its own, apart from the one that consumes: the server may stop these."""

    delays = True

    def __init__(self, servers: Servers, layout: Layout) -> None:
        self.servers = servers
        self.layout = layout
        self._lock = threading.Lock()
        self._idle: deque[_Desk] = deque()
        self._addresses: dict[str, tuple[Address, tuple[Declaration, ...]]] = {}
        """How the queues that were sent to are addressed and declared."""

    def step(self, queue: str, left: float) -> int:
        return step_for(left)

    def send(self, parcels: Sequence[Parcel]) -> None:
        letters = [self._letter(parcel) for parcel in parcels]
        with self.servers.telling(SLIPS):
            desk = self._take()
            try:
                desk.send(letters)
            except (AMQPError, OSError, *SLIPS) as error:
                desk.connection.abandon()
                if isinstance(error, PublishError):
                    raise
                # The others were opened to the same server, and are gone as well.
                self.close()
                desk = self._again([letter for letter in letters if not letter.confirmed])
            except BaseException:
                # Also a call that is interrupted from outside: on this connection its answer may come yet.
                desk.connection.abandon()
                raise
        self._give_back(desk)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, deque()
        for desk in idle:
            desk.connection.close()

    def _again(self, letters: Sequence[_Letter]) -> _Desk:
        """Send once more, over a new connection, what was not confirmed: the server may have it already."""
        desk = _Desk(self.servers, self.layout)
        try:
            desk.send(letters)
        except BaseException:
            desk.connection.abandon()
            raise
        return desk

    def _take(self) -> _Desk:
        while True:
            with self._lock:
                desk = self._idle.pop() if self._idle else None
            if desk is None:
                return _Desk(self.servers, self.layout)
            if desk.alive():
                return desk
            desk.connection.abandon()

    def _give_back(self, desk: _Desk) -> None:
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(desk)
                return
        desk.connection.close()

    def _letter(self, parcel: Parcel) -> _Letter:
        wire, layout = parcel.wire, self.layout
        said = {key: value for key, value in wire.properties.items() if value is not None}
        if not layout.options.drop_expired or parcel.step:
            # The server would drop the message without a word, and its task would never end.
            said.pop("expiration", None)
        for name in ("correlation_id", "reply_to"):
            if len(str(said.get(name, "")).encode("utf-8", "surrogatepass")) > tables.SHORT:
                del said[name]
        if parcel.returned and layout.prioritized:
            said["priority"] = layout.returned
        address, needs = self._address(parcel)
        try:
            return _Letter(parcel, address, needs, tables.properties(said, wire.headers))
        except (TypeError, ValueError, OverflowError) as error:
            raise PublishError(f"A message cannot be sent: {error}") from error

    def _address(self, parcel: Parcel) -> tuple[Address, tuple[Declaration, ...]]:
        layout = self.layout
        if parcel.exchange:
            # What is said to all is said to those that are there.
            heard = not any(binding.broadcast for binding in layout.bound_to(parcel.exchange).values())
            return Address(layout.exchange(parcel.exchange), parcel.key, heard), ()
        if parcel.reply:
            return Address("", parcel.key), ()
        if not parcel.step:
            return self._straight(parcel.queue)
        waiting = layout.waiting(parcel.queue, parcel.step)
        return Address("", waiting.name), (layout.queue(parcel.queue), waiting)

    def _straight(self, name: str) -> tuple[Address, tuple[Declaration, ...]]:
        known = self._addresses.get(name)
        if known is None:
            queue = self.layout.queue(name)
            known = Address("", queue.name), (queue,)
            if queue.exclusive:
                # It has another name as soon as its worker has another connection.
                return known
            if len(self._addresses) >= _ADDRESSES:
                self._addresses.clear()
            self._addresses[name] = known
        return known


class _Desk:
    """One connection with publisher confirms."""

    def __init__(self, servers: Servers, layout: Layout) -> None:
        self.layout = layout
        self.connection = RabbitConnection(
            servers,
            "publisher",
            {"on_blocked": self._on_blocked, "on_unblocked": self._on_unblocked, "socket_settings": _patience()},
        )
        channel = self.connection.channel
        channel.confirm_select()
        channel.events["basic_return"].add(self._on_return)
        self._declared: dict[tuple[str, str], float] = {}
        self._number = 0
        self._open: dict[int, _Letter] = {}
        self._refused: list[_Letter] = []
        self._returned: set[Any] = set()
        self._blocked = ""
        self._heard = 0.0

    def alive(self) -> bool:
        """Take in what the server said meanwhile; tell whether that was not goodbye."""
        try:
            while self.connection.pump(0.0):
                pass
        except (AMQPError, OSError, *SLIPS):
            return False
        return True

    def send(self, letters: Sequence[_Letter]) -> None:
        """Publish letters and wait for the confirms; raises BrokerFull, Unroutable or what the driver raises."""
        lost: list[_Letter] = []
        for pause in (*_PAUSES, None):
            self._returned, self._refused = set(), []
            try:
                self._publish(letters)
            finally:
                # Whatever else came: what the server keeps is not sent again, and what it confirmed and does not is.
                self._note_confirms()
                came_back = [one for one in letters if one.parcel.wire.headers.get("id") in self._returned]
                for letter in came_back:
                    letter.confirmed = False
            # Their queue was deleted since it was declared here.
            lost = [one for one in came_back if not one.parcel.reply]
            if len(lost) < len(came_back):
                _log.debug("Nobody waits for replies any more", extra={"replies": len(came_back) - len(lost)})
            letters = lost + self._refused
            if not letters:
                return
            for letter in lost:
                self._declared.pop(_place(letter.address), None)
            if pause is not None:
                time.sleep(pause)
        if lost:
            ids = () if self._refused else [letter.parcel.wire.headers["id"] for letter in lost]
            raise Unroutable(_unroutable(lost[0].address), ids)
        raise BrokerFull(f"The server refused {len(letters)} messages: a queue is full, or the server is.")

    def _publish(self, letters: Sequence[_Letter]) -> None:
        self._heard = time.monotonic()
        largest = self.connection.frame_max
        for start in range(0, len(letters), _PIECE):
            piece = letters[start : start + _PIECE]
            parts = []
            for letter in piece:
                if not self._declare(letter):
                    self._returned.add(letter.parcel.wire.headers["id"])
                    continue
                self._number += 1
                self._open[self._number] = letter
                parts.append(
                    frames.publication(
                        self.connection.number,
                        letter.address,
                        letter.properties,
                        letter.parcel.wire.body,
                        largest,
                    )
                )
            self.connection.write(b"".join(parts))
            self._await(_OPEN)
        self._await(0)

    def _await(self, most: int) -> None:
        """Wait until no more than so many messages are unconfirmed."""
        patience = self.layout.options.publish_timeout
        self._note_confirms()
        while len(self._open) > most:
            left = self._heard + patience - time.monotonic()
            if left <= 0:
                raise self._silence(patience)
            self.connection.pump(left)
            self._note_confirms()

    def _silence(self, patience: float) -> PublishError:
        told = f"{len(self._open)} messages were not confirmed within {patience:g} seconds"
        if self._blocked:
            return BrokerFull(f"The server takes no messages ({self._blocked}); {told}.")
        return BrokerUnavailable(f"The server is silent: {told}.")

    def _declare(self, letter: _Letter) -> bool:
        """See to it that there is what a letter is addressed to; return False where nobody made the exchange."""
        now = time.monotonic()
        if letter.address.exchange and self._declared.get(_place(letter.address), 0.0) < now:
            try:
                self._declare_exchange(letter)
            except NotFound:
                return False
            self._declared[_place(letter.address)] = now + FRESH
        for queue in letter.needs:
            # One that is exclusive was declared by its worker, and can be by nobody else.
            if not queue.exclusive and self._declared.get(("", queue.name), 0.0) < now:
                self.connection.count(queue)
                self._declared["", queue.name] = now + FRESH
        return True

    def _declare_exchange(self, letter: _Letter) -> None:
        """Make an exchange and what the settings bind to it; one that they do not name is somebody else's."""
        bound = self.layout.bound_to(letter.parcel.exchange)
        kind = next((binding.kind for binding in bound.values()), "")
        self.connection.exchange(letter.address.exchange, kind)
        for queue in map(self.layout.queue, bound):
            if not queue.exclusive:
                # A message that came back says that the binding is not what it was.
                self.connection.deleted(queue.name)
                self.connection.count(queue)

    def _note_confirms(self) -> None:
        """Take note of what the server has said of messages; some of it came while something else was asked."""
        confirms = self.connection.inbox.confirms
        if confirms:
            self._heard = time.monotonic()
        while confirms:
            confirm = confirms.popleft()
            closed = self._closed(confirm)
            if confirm.taken:
                for letter in closed:
                    letter.confirmed = True
            else:
                self._refused += closed

    def _closed(self, confirm: Confirm) -> list[_Letter]:
        if not confirm.multiple:
            letter = self._open.pop(confirm.number, None)
            return [] if letter is None else [letter]
        numbers = []
        for each in self._open:
            if each > confirm.number:
                break
            numbers.append(each)
        return [self._open.pop(each) for each in numbers]

    def _on_return(self, error: Exception, exchange: str, key: str, message: Any) -> None:
        self._returned.add((message.properties.get("application_headers") or {}).get("id"))

    def _on_blocked(self, reason: str) -> None:
        self._blocked = "an alarm of its memory or disk"

    def _on_unblocked(self) -> None:
        self._blocked = ""


def _place(address: Address) -> tuple[str, str]:
    """Return what stands for that which must be declared for an address."""
    return (address.exchange, "") if address.exchange else ("", address.key)


def _unroutable(address: Address) -> str:
    if address.exchange:
        return (
            f"The exchange {address.exchange!r} is not there, or leads no message with the routing key {address.key!r} "
            "and such headers to a queue."
        )
    return f"The server has no queue {address.key!r} for a message, and came by none."


def _patience() -> dict[int, int]:
    """Return how long the system waits for the server to take in what was written, where it can be told."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    return {} if option is None else {option: 10_000}
