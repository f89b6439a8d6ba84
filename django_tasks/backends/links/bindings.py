"""Which exchanges lead to a queue, as the settings have it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Binding:
    """What leads from an exchange to one queue."""

    exchange: str
    kind: str = "direct"
    keys: tuple[str, ...] = ("",)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def broadcast(self) -> bool:
        """Tell whether each worker is to get every message, through a queue of its own."""
        return self.kind == "fanout"


def read_bindings(queues: Mapping[str, Mapping[str, Any]]) -> dict[str, Binding]:
    """Return the bindings in entries of QUEUES, by the name of the queue."""
    return {queue: _binding(queue, entry) for queue, entry in queues.items() if "EXCHANGE" in entry}


def _binding(queue: str, entry: Mapping[str, Any]) -> Binding:
    keys = entry.get("ROUTING_KEY", queue)
    return Binding(
        entry["EXCHANGE"],
        entry.get("EXCHANGE_TYPE", "direct"),
        (keys,) if isinstance(keys, str) else tuple(keys),
        entry.get("ARGUMENTS", {}),
    )
