"""What are the queues on the server called, and how are they declared?

A queue of ours is one queue on the server, under the same name, so that Celery finds it. A message that is to wait is
published to a queue whose only consumer is time: after its TTL the server moves it, through the dead-letter exchange,
to the queue where it belongs. TTLs come in steps, so that there are a hundred or so of these queues at most, and each
goes when nobody has used it for a while. A message that waits for longer than a step waits in several, one after the
other; `AmqpBroker` sends it on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django_tasks.backends.links.bindings import Binding
from django_tasks.backends.links.options import AmqpOptions
from django_tasks.wire import LEVELS

NAME = 230
"""Bytes of the name of a queue; RabbitMQ takes 255, and those where messages wait have longer ones."""

_KEPT = 160
_FINEST = 50
"""Milliseconds; delays up to a second are told apart by so much."""
_LONGEST = 1 << 31
"""Milliseconds, about 25 days: the longest TTL. Longer delays take several."""
_SPARE = 600_000
"""Milliseconds that a queue where nothing waits any more is kept. Less than that passes between two declarations."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A queue as the server knows it."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    binding: Binding | None = None
    exclusive: bool = False
    """Only the connection that declares it can take from it, and it goes with that connection."""
    auto_delete: bool = False
    """It goes with the last connection that takes from it."""


@dataclass(slots=True)
class Layout:
    """Names and arguments of queues, by their names in the settings."""

    options: AmqpOptions
    bindings: Mapping[str, Binding] = field(default_factory=dict)
    worker: str = ""
    """Names the queues that are this worker's own; another text after each loss of its connection."""

    @property
    def prioritized(self) -> bool:
        return self.options.priorities and self.options.queue_type == "classic"

    @property
    def returned(self) -> int:
        """The level above all others, of what comes back to a queue that it has been at the head of."""
        return LEVELS

    def name(self, queue: str) -> str:
        own = f".{self.worker}" if self.broadcast(queue) else ""
        return _shortened(self.options.prefix + queue, own)

    def exchange(self, exchange: str) -> str:
        return _shortened(self.options.prefix + exchange)

    def exchange_here(self, name: str) -> str:
        """Return what the settings call an exchange of the server's."""
        return name.removeprefix(self.options.prefix)

    def broadcast(self, queue: str) -> Binding | None:
        """Return the binding of a queue of which each worker has its own."""
        binding = self.bindings.get(queue)
        return binding if binding is not None and binding.broadcast else None

    def bound_to(self, exchange: str) -> dict[str, Binding]:
        """Return what the settings bind to an exchange."""
        return {queue: binding for queue, binding in self.bindings.items() if binding.exchange == exchange}

    def queue(self, queue: str) -> Declaration:
        """Return the queue in which messages are ready."""
        arguments: dict[str, Any] = {}
        own = self.broadcast(queue) is not None
        if self.options.queue_type == "quorum" and not own:
            arguments["x-queue-type"] = "quorum"
        elif self.prioritized:
            arguments["x-max-priority"] = self.returned
        if self.options.max_length is not None:
            arguments |= {"x-max-length": self.options.max_length, "x-overflow": "reject-publish"}
        if self.options.dead_letter_exchange:
            arguments["x-dead-letter-exchange"] = self.options.dead_letter_exchange
        binding = self.bindings.get(queue)
        if binding is not None:
            binding = replace(binding, exchange=self.exchange(binding.exchange))
        return Declaration(self.name(queue), arguments, binding, own)

    def waiting(self, queue: str, step: int) -> Declaration:
        """Return the queue in which messages wait for so many milliseconds."""
        target = self.name(queue)
        arguments: dict[str, Any] = {
            "x-message-ttl": step,
            "x-expires": min(2 * step + _SPARE, 2**32 - 1),
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": target,
        }
        if self.options.queue_type == "quorum":
            # Then the server itself publishes with confirms, and keeps the message until it has arrived.
            arguments |= {
                "x-queue-type": "quorum",
                "x-overflow": "reject-publish",
                "x-dead-letter-strategy": "at-least-once",
            }
        return Declaration(f"{target}.delay.{step}", arguments)


def step_for(seconds: float) -> int:
    """Return the TTL, in milliseconds, of the first queue that a delay is spent in.

    Up to a second it is the delay itself, rounded up; beyond, the delay with all but its three leading bits dropped.
    """
    delay = min(_LONGEST, round(seconds * 1000))
    if delay <= 1000:
        return max(1, -(-delay // _FINEST)) * _FINEST
    dropped = delay.bit_length() - 3
    return max(1000, delay >> dropped << dropped)


def steps() -> list[int]:
    """Return every TTL that there can be."""
    fine = range(_FINEST, 1000 + _FINEST, _FINEST)
    coarse = {leading << dropped for leading in range(4, 8) for dropped in range(7, 30)}
    return [*fine, *sorted(step for step in coarse if 1000 < step <= _LONGEST)]


def _shortened(name: str, end: str = "") -> str:
    """Return a name that fits, and is still the only one of its kind."""
    data = (name + end).encode("utf-8", "surrogatepass")
    if len(data) <= NAME:
        return name + end
    return f"{data[:_KEPT].decode('utf-8', 'ignore')}~{hashlib.sha256(data).hexdigest()}"
