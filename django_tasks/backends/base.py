"""What must a broker do?"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Any, ClassVar

from django.core.checks import CheckMessage

from django_tasks.diagnosis import Diagnosis
from django_tasks.message import Clock, Delivery, Enqueue, Message
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore


@dataclass(frozen=True, slots=True)
class Features:
    """What a broker can do; the conformance suite proves each claim."""

    unique: bool = True
    """An id that is queued or leased is not queued a second time."""
    priorities: bool = True
    delay: bool = True
    """Keeps messages that are not to be run yet, for as long as it takes."""
    leases: bool = True
    """What was fetched comes back when its time is over, and not only when its worker is gone."""
    wakeups: bool = False
    """`wait` returns as soon as something arrives, rather than at the next look."""
    discards: bool = True
    """`discard` takes waiting messages out."""
    peeks: bool = True
    overview: bool = True
    """`stats` tells of every queue what is delayed, what is leased and how long the oldest message waits; without that
    only what is ready, and of the queues that it is asked for."""
    exchanges: bool = False
    """Sends a message through an exchange, and binds queues to exchanges as the settings say."""
    marks: bool = False
    """`mark` leaves something behind by which it is seen later whether the server lost anything."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How a queue stands. Counts stop at the ceiling that was asked for."""

    queue: str
    ready: int
    delayed: int
    leased: int
    oldest: float
    """Seconds that the oldest ready message has been waiting; 0 when none is."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What was left on a server, and what was found there of the last time."""

    place: str
    """The server and what is kept there, without a password: at most 255 characters."""
    number: int
    """One more than the last one there has; 1 on a server without one."""
    last: datetime | None
    """When the last one was left; None if there was none. Aware, as all that follow, and of the server's clock."""
    now: datetime


class Broker(ABC):
    """Moves messages from publishers to workers, in batches.

    A fetched message is invisible to others for `lease` seconds, then visible again unless acked: delivery is at least
    once. A lease that ran out is held until somebody else could have the message: it is lost when a fetch or a wait
    notices, not before. Every method takes and gives sequences; an empty one costs nothing. `publish` may be called
    from any thread; `fetch`, `ack` and `nack` from the worker's loop; `extend` from its heart; `wait` from its
    listener. A driver's error never leaves: it is raised as `BrokerUnavailable`, `BrokerFull` or `PublishError`.
    """

    features: ClassVar[Features] = Features()
    database: str | None = None
    """The alias of the Django database whose transactions this broker takes part in, if it does."""
    eager: ClassVar[bool] = False
    """Whether `publish` runs the tasks before it returns."""
    private: bool = False
    """Whether no other process sees what is in it."""
    longest_delay: ClassVar[float] = math.inf
    """Seconds; what is to wait for longer is sent through the outbox, also where the broker could keep it."""
    longest_hold: float = math.inf
    """Seconds after which a delivery is taken from its worker, however often it is renewed."""
    enqueue: ClassVar[Enqueue] = "on_commit"
    """When messages are sent to it, unless the call, the task or the settings say. One with a `database` is sent them
    at once: they are part of the transaction anyway."""

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        self.alias = alias
        self.location: str = params.get("LOCATION", "")
        self.options: Mapping[str, Any] = params.get("OPTIONS", {})
        self.queues: Mapping[str, Mapping[str, Any]] = params.get("QUEUES", {})
        """What the settings say of its queues."""
        self.clock = clock

    @abstractmethod
    def publish(self, messages: Sequence[Message]) -> None:
        """Queue all messages or raise PublishError and queue none.

        With `unique` an id that is queued or leased stays as it is.
        """

    @abstractmethod
    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        """Lease up to `limit` messages for `lease` seconds; never blocks.

        The best of each queue, of the highest priority and then the oldest; queues take turns at being looked at first.
        The batch comes best first. What has just come due, or lost its lease, may be overlooked while there is enough
        else, for a second or so.
        """

    @abstractmethod
    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Remove messages that are done; return those whose lease was still held."""

    def finish(
        self, deliveries: Sequence[Delivery], store: ResultStore, results: Sequence[Result]
    ) -> list[Delivery] | None:
        """Acknowledge deliveries, no two of one id, and save the results of those whose lease was still held, in one
        statement; return those. None where that takes more than one: then nothing was done."""
        return None

    @abstractmethod
    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        """Put messages back, visible after `delay` seconds; return those whose lease was still held.

        Unless it was `spent`, the delivery does not count: the next one has the same number.
        """

    def replace(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        """Put messages in the place of leased ones: a task's next attempt, under the id of the one before. Return the
        deliveries whose lease was held; of the others nothing is published."""
        held = self.ack([delivery for delivery, _ in pairs])
        still = set(map(id, held))
        self.publish([message for delivery, message in pairs if id(delivery) in still])
        return held

    @abstractmethod
    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        """Renew leases to `lease` seconds from now; return those that were still held."""

    def wait(self, queues: Sequence[str], timeout: float, stop: Event) -> bool:
        """Block until something may have arrived, `timeout` seconds have passed or `stop` is set; return whether a
        fetch is worth it.

        What arrived since this thread's last wait counts; what has been lying there longer does not wake again.
        """
        return not stop.wait(timeout)

    @abstractmethod
    def stats(self, queues: Sequence[str] = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        """Return how queues stand; without names, every queue that has messages. Ready is what could be taken now."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Remove the messages of a queue that nobody has leased; return how many."""

    @abstractmethod
    def discard(self, ids: Sequence[str]) -> list[Message]:
        """Remove messages that nobody has leased; return them."""

    @abstractmethod
    def peek(self, queue: str, limit: int) -> list[Message]:
        """Return messages that wait and leave them where they are: what is ready in the order of `fetch`, then what is
        delayed in the order of its time; never what is leased."""

    def mark(self, queues: Sequence[str], *, leave: bool = True) -> list[Mark]:
        """Leave a mark wherever the messages of these queues are kept, in one place or several, and return what was
        found; or only look, and return the marks that would have been left. A server that forgot messages has
        forgotten the marks that were left after them, too."""
        return []

    def close(self) -> None:  # noqa: B027  # most brokers hold nothing that must be let go
        """Let go of connections and threads; the next call opens them again."""

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        """Return what Django's system checks should say about this broker's settings.

        Only the databases that are named may be asked anything.
        """
        return []

    def diagnose(self, queues: Sequence[str] = (), *, ask: bool = True) -> Diagnosis:
        """Return what its server is and all that is unsafe about it and about these queues: what `check` says, and
        what is worth saying before a site goes live. Raises BrokerUnavailable.

        Without `ask` nothing is sent anywhere, and only what the settings show is told.
        """
        return Diagnosis(type(self).__name__, found=tuple(self.check()))
