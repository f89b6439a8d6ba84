"""Where do messages wait on RabbitMQ, or on another of kombu's transports?"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

from django.utils.module_loading import import_string

from django_tasks.backends.base import Broker, Features, QueueStats
from django_tasks.backends.links.bindings import read_bindings
from django_tasks.backends.links.emulated import EmulatedLink
from django_tasks.backends.links.ends import Ends, give_back, resent, send_back
from django_tasks.backends.links.fitness import emulated, examine
from django_tasks.backends.links.layout import Layout
from django_tasks.backends.links.link import Arrival, Parcel
from django_tasks.backends.links.options import read_options
from django_tasks.backends.links.own import Own
from django_tasks.backends.links.rabbit_receiver import RabbitReceiver
from django_tasks.backends.links.rabbit_sender import RabbitSender
from django_tasks.backends.links.servers import Servers
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import BrokerUnavailable, ConfigurationError, PublishError
from django_tasks.message import Clock, Delivery, Message
from django_tasks.pause import Pause
from django_tasks.wire import (
    DELIVERIES,
    DUE,
    SEEN,
    Wire,
    deliveries_of,
    due_of,
    from_wire,
    seen_of,
    to_wire,
    way_of,
)

_log = logging.getLogger("django_tasks.broker")

_STALE = 1.0
"""Seconds after which what came by itself, and was not fetched, goes back for others to take."""
_HELD = 1.0
"""Seconds until what could not be sent on is tried again."""
_NEXT_LOOKS = 3
"""How often a fetch looks again when all that it found had to be sent on."""

_LINKS = {"sqs": "django_tasks.backends.links.sqs.SqsLink"}
"""Transports of kombu's that can do more than what they emulate. Their drivers are imported where they are used."""


class AmqpBroker(Broker):
    """Keeps messages in the queues of a RabbitMQ, in the form in which Celery has them.

    A delivery is a worker's own for as long as its channel lives: there is no lease that could run out. When the
    connection is lost the server gives all of it to others, and what this worker still says about it counts for
    nothing: the receipt names the channel. What is put back is published anew, and confirmed, before it is
    acknowledged, with the number of its deliveries; so is, on a classic queue, what another worker lost. A crash in
    between leaves it twice.

    The server does not look at ids: one that is published twice is there twice. A batch is published in one go, but
    not as one: when `publish` raises, the server may have some of it. `LOCATION`: one URL, or several with semicolons
    between them; `OPTIONS`: see `links/options.py`.
    """

    longest_delay = 600.0

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        self.settings = read_options(alias, self.options)
        self._servers = Servers(self.location, self.settings)
        self.private = self._servers.scheme == "memory"
        self._layout = Layout(self.settings, read_bindings(self.queues))
        native = self._servers.native
        self._link = None if native else _link(self._servers.scheme)
        self.features = Features(  # type: ignore[misc]
            unique=False,
            priorities=False,
            delay=self._link is None or self._link.delays,
            leases=False,
            wakeups=native,
            discards=False,
            peeks=False,
            overview=False,
            exchanges=native,
        )
        self.longest_hold = self._servers.longest_hold
        self._own = Own(self._new_ends)
        self._pause = Pause()
        self._queues: dict[str, None] = {}
        """The queues that this process has used."""
        self._taken: dict[str, Arrival] = {}
        """What is held here, by task id."""
        self._more = False
        """Whether the last fetch gave less than was asked for, and yet there may be more."""

    def publish(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        now = self.clock()
        self._ends.sender.send([self._parcel(message, now) for message in messages])

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        """Take messages; those that are not to be run yet, or were lost by another worker, are sent on first.

        Which queue is looked at first goes round.
        """
        names = list(dict.fromkeys(queues))
        if not names or limit <= 0:
            return []
        self._queues.update(dict.fromkeys(names))
        deliveries: list[Delivery] = []
        arrivals: Sequence[Arrival] = ()
        for _ in range(_NEXT_LOOKS):
            arrivals = self._ends.receiver.fetch(names, limit)
            deliveries = self._admit(arrivals)
            if deliveries or not arrivals:
                break
        self._more = len(deliveries) < limit <= len(arrivals)
        return sorted(deliveries, key=_rank)

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        held = self._held(deliveries)
        if held:
            self._acknowledge(held)
        return held

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        held = self._held(deliveries)
        if not held:
            return []
        # What wants one more message as soon as there is one would take this.
        self._ends.receiver.pause()
        now = self.clock()
        back = [self._again(delivery, now, delay, spent=spent) for delivery in held]
        try:
            self._ends.sender.send(back)
        except PublishError as error:
            if delay > 0:
                raise
            # It can always be given back as it is. Its next delivery then counts one too many.
            _log.warning("Giving messages back without their count", extra={"error": str(error)})
            self._forget(held)
            self._ends.receiver.requeue([delivery.receipt for delivery in held])
        else:
            self._acknowledge(held)
        return held

    def replace(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        """Publish what comes next before that is acknowledged which was: a crash in between repeats, and loses
        nothing."""
        now = self.clock()
        parcels = {
            id(delivery): self._parcel(message, now, back=message.queue == delivery.message.queue)
            for delivery, message in pairs
        }
        held = self._held([delivery for delivery, _ in pairs])
        if held:
            self._ends.sender.send([parcels[id(delivery)] for delivery in held])
            self._acknowledge(held)
        return held

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Return what is still held. Another process than the one that fetched cannot know, and is told "all"."""
        mine = f"{os.getpid()}."
        if not any(_channel(delivery).startswith(mine) for delivery in deliveries):
            return list(deliveries)
        kept = self._ends.receiver.renew(delivery.receipt for delivery in deliveries)
        return [delivery for delivery in deliveries if delivery.receipt in kept]

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        """Block until something came; while the server does not answer nothing does, and that is for `fetch` to say."""
        names = list(dict.fromkeys(queues))
        if not names:
            return super().wait(queues, timeout, stop)
        if self._more or self._pause.spend(timeout, stop):
            # To the receiver it had what it asked for: that sends for no more.
            more, self._more = self._more, False
            return more
        try:
            self._release()
            return self._ends.receiver.wait(names, timeout, stop)
        except BrokerUnavailable:
            self._pause.begin()
            self._pause.spend(timeout, stop)
            return False

    def stats(self, queues: Sequence[str] = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        """Return how many messages are ready; of those that are delayed or leased the server does not tell. Without
        names: of the queues that this process has used."""
        names = list(dict.fromkeys(queues)) or list(self._queues)
        receiver = self._ends.receiver
        found = [
            QueueStats(name, min(ceiling, receiver.ready(name)), delayed=0, leased=0, oldest=0.0) for name in names
        ]
        return [stats for stats in found if queues or stats.ready]

    def purge(self, queue: str) -> int:
        return self._ends.receiver.purge(queue)

    def discard(self, ids: Sequence[str]) -> list[Message]:
        """Return nothing: the server finds no message by its id."""
        return []

    def peek(self, queue: str, limit: int) -> list[Message]:
        """Return nothing: to look at a message is to take it."""
        return []

    def close(self) -> None:
        """Give back what came and was not fetched, and let go of the connections; so what is held is lost."""
        ends = self._own.part()
        self._taken.clear()
        if ends is None:
            return
        # If that fails, they go back with the connection.
        with suppress(PublishError):
            ends.receiver.pause()
            give_back(ends, ends.receiver.stale(0.0))
        ends.receiver.close()
        ends.sender.close()

    def diagnose(self, queues: Sequence[str] = (), *, ask: bool = True) -> Diagnosis:
        if not self._servers.native:
            if ask:
                self.stats(queues)
            return emulated(self._servers)
        return examine(self._servers, self._layout, queues, f"The AMQP broker {self.alias!r}", ask=ask)

    # Sending

    def _parcel(self, message: Message, now: float, *, back: bool = False) -> Parcel:
        """Return a message ready to be sent; with `back`, to the queue that this worker has it from."""
        self._queues[message.queue] = None
        wire = to_wire(message)
        if message.created_at is None:
            # A copy of the message that had it would take as long as all of its headers.
            wire.headers["created_at"] = datetime.fromtimestamp(now, UTC).isoformat()
        if message.countdown is not None:
            wire.headers[DUE] = now + max(0.0, message.countdown)
        if message.exchange is not None:
            return Parcel(message.queue, wire, exchange=message.exchange, key=message.routing_key or "")
        if not back and (binding := self._layout.broadcast(message.queue)) is not None:
            return Parcel(message.queue, wire, exchange=binding.exchange)
        return self._timed(message.queue, wire, due_of(wire.headers, message) - now)

    def _again(self, delivery: Delivery, now: float, delay: float, *, spent: bool) -> Parcel:
        """Return what puts a delivery back."""
        message = delivery.message
        taken = self._taken.get(message.id)
        wire = resent(taken) if taken is not None and taken.receipt == delivery.receipt else to_wire(message)
        wire.headers[DELIVERIES] = delivery.deliveries if spent else delivery.deliveries - 1
        wire.headers[DUE] = now + delay if delay > 0 else 0.0
        if delivery.seen_at is not None:
            wire.headers[SEEN] = delivery.seen_at
        return replace(self._timed(message.queue, wire, delay), returned=delay <= 0)

    def _timed(self, queue: str, wire: Wire, left: float) -> Parcel:
        return Parcel(queue, wire, self._ends.sender.step(queue, left) if left > 0 else 0)

    # Receiving

    def _admit(self, arrivals: Sequence[Arrival]) -> list[Delivery]:
        """Return the arrivals that may be run now."""
        now = self.clock()
        admitted: list[Delivery] = []
        twins: list[Arrival] = []
        lost: list[Arrival] = []
        early: list[tuple[Arrival, float]] = []
        for arrival in arrivals:
            message = from_wire(arrival.wire, arrival.queue)
            left = due_of(arrival.wire.headers, message) - now
            twin = self._taken.get(message.id)
            if twin is not None and twin.receipt[0] == arrival.receipt[0]:
                # It is running here: one that is leased is not queued a second time.
                if not self._ends.receiver.absorb(twin.receipt, arrival.receipt):
                    twins.append(arrival)
            elif left > 0:
                early.append((arrival, left))
            elif not arrival.exact and self._ends.sender.delays:
                lost.append(arrival)
            else:
                admitted.append(self._delivery(arrival, message))
        if twins:
            self._ends.receiver.ack([arrival.receipt for arrival in twins])
        if early:
            self._delay(early)
        return admitted + self._counted(lost)

    def _delay(self, early: Sequence[tuple[Arrival, float]]) -> None:
        """Send to where it waits what came too early: from Celery, or at the end of one of several steps."""
        ends = self._ends
        sent: list[Arrival] = []
        parcels: list[Parcel] = []
        for arrival, left in early:
            parcel = self._timed(arrival.queue, resent(arrival), left)
            if parcel.step:
                sent.append(arrival)
                parcels.append(parcel)
            else:
                ends.receiver.keep(arrival, left)
        if not sent:
            return
        try:
            ends.sender.send(parcels)
        except PublishError as error:
            _log.warning("Holding messages that are for later", extra={"error": str(error), "number": len(sent)})
            for arrival in sent:
                ends.receiver.keep(arrival, _HELD)
        else:
            ends.receiver.ack([arrival.receipt for arrival in sent])

    def _counted(self, lost: Sequence[Arrival]) -> list[Delivery]:
        """Send to the head of their queues messages that were delivered before, with that written down.

        A classic queue tells that it happened and not how often, so that a task which kills its worker each time
        would seem to be lost for the first time for ever. If they cannot be sent, they are admitted as they are.
        """
        if not lost:
            return []
        try:
            send_back(self._ends, lost)
        except PublishError:
            return [self._delivery(arrival, from_wire(arrival.wire, arrival.queue)) for arrival in lost]
        return []

    def _delivery(self, arrival: Arrival, message: Message) -> Delivery:
        self._taken[message.id] = arrival
        headers = arrival.wire.headers
        exchange, key = (arrival.exchange, arrival.key) if arrival.exchange else way_of(headers)
        return Delivery(
            message,
            arrival.receipt,
            deliveries_of(headers) + arrival.losses + 1,
            exchange=self._layout.exchange_here(exchange),
            routing_key=key,
            seen_at=None if message.created_at is not None else seen_of(headers, self.clock()),
        )

    def _release(self) -> None:
        """Send back what came for a worker that has no use for it any more."""
        ends = self._ends
        give_back(ends, ends.receiver.stale(_STALE))

    # Holding

    def _held(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        if not deliveries:
            return []
        held = self._ends.receiver.held(delivery.receipt for delivery in deliveries)
        return [delivery for delivery in deliveries if delivery.receipt in held]

    def _acknowledge(self, held: Sequence[Delivery]) -> None:
        self._forget(held)
        self._ends.receiver.ack([delivery.receipt for delivery in held])

    def _forget(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            taken = self._taken.get(delivery.message.id)
            if taken is not None and taken.receipt == delivery.receipt:
                del self._taken[delivery.message.id]

    @property
    def _ends(self) -> Ends:
        return self._own.get()

    def _new_ends(self) -> Ends:
        self._taken.clear()
        if self._link is not None:
            link = self._link(self._servers, self._layout)
            return Ends(link, link)
        return Ends(RabbitSender(self._servers, self._layout), RabbitReceiver(self._servers, self._layout))


def _link(scheme: str) -> type[EmulatedLink]:
    """Return what sends and receives through one of kombu's other transports; raises ConfigurationError."""
    path = _LINKS.get(scheme)
    if path is None:
        return EmulatedLink
    try:
        found: type[EmulatedLink] = import_string(path)
    except ImportError as error:
        raise ConfigurationError(
            f"{scheme}:// needs what is not installed: {error}. Install django-tasks-queue[{scheme}]."
        ) from error
    return found


def _rank(delivery: Delivery) -> int:
    return -delivery.message.priority


def _channel(delivery: Delivery) -> str:
    return str(delivery.receipt[0])
