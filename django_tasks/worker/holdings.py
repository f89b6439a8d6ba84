"""Which deliveries does this worker hold, and since when?"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from django_tasks.message import Delivery
from django_tasks.settlement import ACKED


@dataclass(slots=True)
class _Holding:
    delivery: Delivery
    renewed: float


class Holdings:
    """The deliveries that were fetched and are not settled; the loop and the heart share it. Times are monotonic
    seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Holding] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, delivery: Delivery) -> bool:
        holding = self._held.get(delivery.message.id)
        return holding is not None and holding.delivery.receipt == delivery.receipt

    def has(self, task_id: str) -> bool:
        """Tell whether a delivery of this task is held."""
        return task_id in self._held

    def add(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Take note of deliveries just leased."""
        with self._lock:
            for delivery in deliveries:
                self._held[delivery.message.id] = _Holding(delivery, now)

    def remove(self, deliveries: Iterable[Delivery]) -> None:
        """Forget deliveries that were settled or lost."""
        with self._lock:
            for delivery in deliveries:
                if delivery in self:
                    del self._held[delivery.message.id]

    def due(self, before: float) -> list[Delivery]:
        """Return the deliveries whose lease was not renewed since a time."""
        with self._lock:
            return [
                holding.delivery
                for holding in self._held.values()
                if holding.renewed < before and holding.delivery.receipt is not ACKED
            ]

    def renew(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Take note of leases just renewed."""
        with self._lock:
            for delivery in deliveries:
                if delivery in self:
                    self._held[delivery.message.id].renewed = now

    def leased(self) -> list[Delivery]:
        """Return every delivery whose lease is to be renewed."""
        return self.due(float("inf"))
