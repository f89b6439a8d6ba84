"""How do messages get from the outbox to their broker?"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence

from django.db import DatabaseError

from django_tasks import databases
from django_tasks.connections import brokers, outboxes
from django_tasks.exceptions import DjangoTasksError, Unroutable
from django_tasks.message import Delivery
from django_tasks.routing import queues_of
from django_tasks.worker.backoff import Backoff
from django_tasks.worker.stride import Stride

_log = logging.getLogger("django_tasks.broker")

BATCH = 500
POSTPONED = 60.0
"""Seconds until what no queue takes is tried again."""
SLICE = 0.25
"""Seconds to listen to one outbox before the next one's turn."""
POLL = 5.0
"""Seconds between two looks at outboxes that have said nothing, at most: nobody listens for queues that the settings do
not name."""


class Relay(threading.Thread):
    """Sends messages of the outbox to their brokers when they are visible and committed, the oldest first.

    Every worker does it, whatever queues it takes from; each message is leased by one of them. Guarantee: at least
    once, and under one id. A message leaves the outbox after its broker has it, so a relay that dies in between sends
    it again.
    """

    def __init__(self, aliases: Sequence[str], *, lease: float, consumer: str) -> None:
        super().__init__(name="relay", daemon=True)
        self.aliases = aliases
        self.lease = lease
        self.consumer = consumer
        self._stop_asked = threading.Event()
        self._sending = threading.Lock()
        self._sent = self._seen = 0
        self._backoffs = {alias: Backoff() for alias in aliases}
        self._strides = {alias: Stride(BATCH) for alias in aliases}
        self._looked_at = dict.fromkeys(aliases, -math.inf)

    def run(self) -> None:
        while self.aliases and not self._stop_asked.is_set():
            for alias in self.aliases:
                self._attend(alias)
        databases.close_all()

    def _attend(self, alias: str) -> None:
        """Listen to an outbox for a while, and send on what is there."""
        backoff = self._backoffs[alias]
        if backoff.left:
            self._stop_asked.wait(min(backoff.left, SLICE))
            return
        try:
            rang = outboxes[alias].wait(queues_of(alias), SLICE, self._stop_asked)
            if rang or time.monotonic() - self._looked_at[alias] >= POLL:
                self._looked_at[alias] = time.monotonic()
                while self.relay(alias) and not self._stop_asked.is_set():
                    backoff.answered()
        except (DjangoTasksError, DatabaseError) as error:
            backoff.failed(error)

    def flush(self) -> bool:
        """Send on all that is ready now; tell whether any message has been since this was last asked, by the thread of
        this relay as well."""
        for alias in self.aliases:
            self.relay(alias)
        with self._sending:
            before, self._seen = self._seen, self._sent
        return self._seen != before

    def relay(self, alias: str) -> int:
        """Send one batch on; return how many messages that were."""
        outbox = outboxes[alias]
        with self._sending:
            queues = [stats.queue for stats in outbox.stats(ceiling=1) if stats.ready]
            number = self._strides[alias].size
            deliveries = outbox.fetch(queues, number, lease=self.lease, consumer=self.consumer)
            if deliveries:
                self._send(alias, deliveries)
            self._sent += len(deliveries)
        return len(deliveries)

    def _send(self, alias: str, deliveries: Sequence[Delivery]) -> None:
        outbox, began = outboxes[alias], time.monotonic()
        try:
            brokers[alias].publish([delivery.message for delivery in deliveries])
        except Unroutable as error:
            lost = [delivery for delivery in deliveries if delivery.message.id in error.ids]
            if not lost:
                outbox.nack(deliveries)
                raise
            # Nor are the others to wait for these.
            _log.warning("Messages wait in the outbox for a queue", extra={"broker": alias, "error": str(error)})
            outbox.nack(lost, delay=POSTPONED)
            outbox.ack([delivery for delivery in deliveries if delivery.message.id not in error.ids])
            return
        except DjangoTasksError:
            self._strides[alias].failed(len(deliveries), time.monotonic() - began)
            # It is not to wait until the lease ends.
            outbox.nack(deliveries)
            raise
        self._strides[alias].went(len(deliveries))
        outbox.ack(deliveries)

    def stop(self) -> None:
        """End the thread after the batch it is at."""
        self._stop_asked.set()
        if self.is_alive():
            self.join(timeout=5.0)
