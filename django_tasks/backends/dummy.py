"""Where do messages go when none is to be run?"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from django_tasks.backends.base import Broker, Features, QueueStats
from django_tasks.message import Clock, Delivery, Enqueue, Message


class DummyBroker(Broker):
    """Keeps what is published in `messages`, in that order, for a test to look at; no worker ever gets any of it."""

    enqueue: ClassVar[Enqueue] = "immediate"
    private = True
    features: ClassVar[Features] = Features(leases=False, exchanges=True)

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        self._lock = threading.Lock()
        self.messages: list[Message] = []

    def clear(self) -> None:
        """Forget every message."""
        with self._lock:
            self.messages.clear()

    def publish(self, messages: Sequence[Message]) -> None:
        with self._lock:
            now = datetime.fromtimestamp(self.clock(), UTC)
            known = {message.id for message in self.messages}
            for message in messages:
                if message.id not in known:
                    known.add(message.id)
                    self.messages.append(replace(message, created_at=message.created_at or now))

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return []

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        return []

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        return []

    def stats(self, queues: Sequence[str] = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        """Return how many messages each queue was sent; none of them is ever ready."""
        with self._lock:
            sent = Counter(message.queue for message in self.messages)
        return [QueueStats(queue, 0, min(sent[queue], ceiling), 0, 0.0) for queue in queues or sorted(sent)]

    def purge(self, queue: str) -> int:
        with self._lock:
            kept = [message for message in self.messages if message.queue != queue]
            removed = len(self.messages) - len(kept)
            self.messages[:] = kept
            return removed

    def discard(self, ids: Sequence[str]) -> list[Message]:
        with self._lock:
            unwanted = set(ids)
            removed = [message for message in self.messages if message.id in unwanted]
            self.messages[:] = [message for message in self.messages if message.id not in unwanted]
            return removed

    def peek(self, queue: str, limit: int) -> list[Message]:
        with self._lock:
            waiting = [message for message in self.messages if message.queue == queue]
        return sorted(waiting, key=lambda message: -message.priority)[: max(0, limit)]
