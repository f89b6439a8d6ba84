"""What does the AMQP broker ask of its way to a server?"""

from __future__ import annotations

import heapq
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import ClassVar

from django_tasks.wire import Wire

Receipt = tuple[str, int]
"""The channel that a message came through, and its number there. No other channel can acknowledge it, and the number
says nothing once the channel has gone."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message on its way to a queue."""

    queue: str
    wire: Wire
    step: int = 0
    """Milliseconds that it waits before it gets there."""
    returned: bool = False
    """It has been at the head of the queue before, and goes there again."""
    exchange: str = ""
    """Goes where this leads, and not straight to the queue."""
    key: str = ""
    reply: bool = False
    """Goes to the queue `key`, which is somebody's who waits for it; it is dropped if that one is gone."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that came from a queue, and is unacknowledged."""

    queue: str
    receipt: Receipt
    wire: Wire
    losses: int
    """How often it was delivered before and not acknowledged, as far as the server tells."""
    exact: bool
    """Whether that is the whole number, and not merely "once or more"."""
    exchange: str = ""
    """What it came through, as the server calls it; nothing if it was put straight into the queue."""
    key: str = ""
    """The routing key that it came by."""


class Sender(ABC):
    """Puts messages into queues; any thread may use it, also several at once."""

    delays: ClassVar[bool] = False
    """Whether the server keeps a parcel until its step is over."""

    def step(self, queue: str, left: float) -> int:
        """Return for how many milliseconds of a delay in seconds the server keeps a parcel; 0 where it does not."""
        return 0

    @abstractmethod
    def send(self, parcels: Sequence[Parcel]) -> None:
        """Send all and return when the server has them; raises PublishError, and then it may have some of them."""

    @abstractmethod
    def close(self) -> None: ...


class Kept:
    """What was fetched too early, by its time on the monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Receipt, Arrival]] = []

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def due(self) -> bool:
        """Tell whether the time of any has come."""
        return bool(self._heap) and self._heap[0][0] <= time.monotonic()

    def add(self, arrival: Arrival, seconds: float) -> None:
        heapq.heappush(self._heap, (time.monotonic() + seconds, arrival.receipt, arrival))

    def take(self, queues: Sequence[str], limit: int) -> list[Arrival]:
        """Take out what is due and came from these queues."""
        due: list[Arrival] = []
        others = []
        while self.due and len(due) < limit:
            entry = heapq.heappop(self._heap)
            if entry[2].queue in queues:
                due.append(entry[2])
            else:
                others.append(entry)
        for entry in others:
            heapq.heappush(self._heap, entry)
        return due

    def clear(self) -> None:
        self._heap.clear()


class Receiver(ABC):
    """Gets messages out of queues and acknowledges them; any thread may use it. Raises BrokerUnavailable."""

    @abstractmethod
    def fetch(self, queues: Sequence[str], limit: int) -> list[Arrival]:
        """Return up to `limit` messages; of each queue in its order, the queues one after the other.

        An empty list means that there was none.
        """

    @abstractmethod
    def held(self, receipts: Iterable[Receipt]) -> set[Receipt]:
        """Return which of these messages are unacknowledged still, and on a channel that lives."""

    @abstractmethod
    def ack(self, receipts: Sequence[Receipt]) -> None:
        """Acknowledge messages that are held."""

    def absorb(self, held: Receipt, again: Receipt) -> bool:
        """Tell whether a message that is held has come again, because it was held for too long: then there is one of
        it, which is held by what came last."""
        return False

    @abstractmethod
    def requeue(self, receipts: Sequence[Receipt]) -> None:
        """Give messages that are held back to the server, which counts it as a loss."""

    def renew(self, receipts: Iterable[Receipt]) -> set[Receipt]:
        """Hold on to messages where the server takes them back after a while; return those that are held."""
        return self.held(receipts)

    @abstractmethod
    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        """Block until a message came since the last wait, or may have; return whether it did."""

    @abstractmethod
    def keep(self, arrival: Arrival, seconds: float) -> None:
        """Hold what was fetched too early, and give it to a fetch again after so many seconds."""

    def pause(self) -> None:  # noqa: B027  # most take nothing by themselves
        """Take nothing more until the next fetch says that there is need; `stale` then has what came before."""

    def stale(self, age: float) -> list[Arrival]:
        """Take out what came so many seconds ago, without having been asked for, and was not fetched since."""
        return []

    @abstractmethod
    def ready(self, queue: str) -> int:
        """Return how many messages may be fetched from a queue; 0 when there is no such queue."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Remove what nobody has fetched; return how many messages."""

    @abstractmethod
    def close(self) -> None: ...
