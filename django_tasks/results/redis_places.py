"""Where in a Redis does something of an id stand, and how much is it asked at once?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from zlib import crc32

from django_tasks.exceptions import StoreUnavailable
from django_tasks.redis_servers import RedisFailed
from django_tasks.results.fields import microseconds, to_bytes

T = TypeVar("T")

ITEMS, BYTES = 1_000, 16 << 20
"""How much one script writes."""

IDS = 5_000
"""How many ids one script names."""

SLOTS = 16
"""Into how many parts what a cluster keeps is divided: as many scripts as that save or find any number of things."""

UNFINISHED = timedelta(days=90)
"""How much longer than others what never ended is kept."""


@dataclass(frozen=True, slots=True)
class Places:
    """The beginnings of the names of keys. What stands between braces decides on the slot of a cluster."""

    prefix: str
    clustered: bool

    def of(self, item_id: str) -> bytes:
        """Return what the names of all keys that have to do with an id begin with."""
        if not self.clustered:
            return f"{self.prefix}:".encode()
        return f"{self.prefix}:{{{crc32(to_bytes(item_id)) % SLOTS}}}:".encode()

    def all(self) -> list[bytes]:
        """Return all beginnings that there are."""
        if not self.clustered:
            return [f"{self.prefix}:".encode()]
        return [f"{self.prefix}:{{{slot}}}:".encode() for slot in range(SLOTS)]

    def parted(self, items: Sequence[T], id_of: Callable[[T], str]) -> Iterator[tuple[bytes, list[T]]]:
        """Give what stands together, with its beginning."""
        found: dict[bytes, list[T]] = {}
        for item in items:
            found.setdefault(self.of(id_of(item)), []).append(item)
        return iter(found.items())

    def expire(self, run: Callable[[bytes, Sequence[Any]], Any], before: datetime, limit: int) -> int:
        """Remove what ended before a time, by a script that is given each beginning until it finds no more there;
        return how much that was."""
        removed = 0
        for base in self.all():
            while removed < limit:
                number, gone = run(base, [microseconds(before), limit - removed])
                removed += number
                if not gone:
                    break
        return removed


def itself(item_id: str) -> str:
    """Return an id of an id."""
    return item_id


def lives(expires: timedelta | None) -> tuple[int, int]:
    """Return how many milliseconds is kept what has ended, and what has not; 0 for ever."""
    if expires is None:
        return 0, 0
    return _milliseconds(expires), _milliseconds(expires + UNFINISHED)


def _milliseconds(span: timedelta) -> int:
    return max(1, span // timedelta(milliseconds=1))


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut what is to be named into what one script should."""
    for start in range(0, len(values), IDS):
        yield values[start : start + IDS]


def pieces(said: Sequence[list[Any]]) -> Iterator[Sequence[list[Any]]]:
    """Cut what is to be written into what one script should take."""
    start = size = 0
    for place, words in enumerate(said):
        weight = sum(len(word) for word in words if isinstance(word, bytes))
        if place > start and (place - start == ITEMS or size + weight > BYTES):
            yield said[start:place]
            start, size = place, 0
        size += weight
    if said:
        yield said[start:]


@contextmanager
def asking() -> Iterator[None]:
    """Give a driver's error the name that the contract has for it."""
    try:
        yield
    except RedisFailed as error:
        raise StoreUnavailable(str(error)) from error
