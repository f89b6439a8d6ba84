"""Which nodes is a composition given?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django_tasks.canvas.signature import Signature, signature


def nodes_of(tasks: Sequence[Any]) -> list[Signature]:
    """Return copies of nodes that were given one by one, or all in one iterable."""
    given = tasks[0] if len(tasks) == 1 and not isinstance(tasks[0], Signature | Mapping) else tasks
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"Signatures belong here, such as add.s(1, 2), not {given!r:.80}.")
    return [signature(task)._copy() for task in given]
