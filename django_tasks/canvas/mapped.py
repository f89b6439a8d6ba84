"""How is one task called for each item of an iterable?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Self

from django_tasks.canvas.compositions import group
from django_tasks.canvas.signature import Signature

MAP, STARMAP, ACCUMULATE = "celery.map", "celery.starmap", "celery.accumulate"
"""The names of the tasks that do so; Celery has them too."""


def xmap(call: Signature, items: Iterable[Any]) -> Signature:
    """Return the call of one task that calls another for each item, one after the other, and returns a list."""
    return Signature(MAP, (), {"task": call.to_dict(), "it": list(items)}, immutable=True)


def xstarmap(call: Signature, items: Iterable[Iterable[Any]]) -> Signature:
    """Return the call of one task that calls another with the arguments in each item, and returns a list."""
    return Signature(STARMAP, (), {"task": call.to_dict(), "it": [list(item) for item in items]}, immutable=True)


class chunks(group):  # noqa: N801  # Celery's name
    """A group whose members each call a task for up to `n` items, and return a list."""

    __slots__ = ()

    def __init__(self, call: Signature, items: Iterable[Iterable[Any]], n: int) -> None:
        if n < 1:
            raise ValueError(f"chunks of {n} items: there is no end to them.")
        super().__init__(xstarmap(call, part) for part in _parted(iter(items), n))

    def group(self) -> Self:
        """Return the group."""
        return self


def _parted(items: Iterator[Any], n: int) -> Iterator[list[Any]]:
    while part := list(islice(items, n)):
        yield part
