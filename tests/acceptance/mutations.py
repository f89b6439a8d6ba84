"""How may a message be wrong that another program put into a queue of RabbitMQ?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Any

from django_tasks.backends.links import tables
from django_tasks.message import Message
from django_tasks.wire import to_wire

# Without infinity: a server that finds it in a header closes the connection.
_ODD: tuple[Any, ...] = (0, -1, 2**62, 1.5, True, "", "x" * 5_000, "\ud800", b"\xff", [], [1], {}, {"a": {}})
_HEADERS = ("eta", "expires", "retries", "group_index", "attempts", "created_at", "priority", "shadow")
_BODIES = (
    b"",
    b"\0",
    b"{}",
    b"null",
    b"[[]]",
    b"[[], {}",
    b"[1, 2, 3]",
    b"[[], [], {}]",
    b'[["\xff"], {}, {}]',
    b"[[NaN], {}, {}]",
    b"[" * 50_000,
    b"9" * 50_000,
    b"\x80\x04N.",
)


@dataclass(slots=True)
class Draft:
    """A message before it is written."""

    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    raw: bytes = b""
    """Entries of the headers as they are written."""

    def written(self) -> bytes:
        """Return its properties."""
        said = {name: value for name, value in self.properties.items() if value is not None}
        table = tables.table(self.headers)
        longer = Struct(">I").pack(len(table) - 4 + len(self.raw)) + table[4:] + self.raw
        return tables.properties(said, self.headers).replace(table, longer, 1)


@dataclass(frozen=True, slots=True)
class Mutations:
    """Makes messages that are wrong in a way, the same ones for the same seed."""

    seed: int
    rng: random.Random = field(init=False, default_factory=random.Random)

    def of(self, message: Message, number: int) -> Iterator[Draft]:
        self.rng.seed(self.seed)
        ways: tuple[Callable[[Draft], None], ...] = (
            self._no_task,
            self._no_id,
            self._no_headers,
            self._odd_header,
            self._odd_header,
            self._odd_body,
            self._odd_body,
            self._cut_body,
            self._odd_property,
            self._compressed,
            self._many_headers,
            self._raw_header,
            self._raw_header,
            self._our_notes,
        )
        for place in range(number):
            wire = to_wire(replace(message, id=f"mutated-{place}"))
            draft = Draft(wire.body, wire.headers, wire.properties)
            ways[place % len(ways)](draft)
            yield draft

    def _no_task(self, draft: Draft) -> None:
        draft.headers["task"] = self.rng.choice((None, 5, "", "no.such.task", "t" * 300, "a\nb"))

    def _no_id(self, draft: Draft) -> None:
        draft.headers["id"] = self.rng.choice((None, 5, "", "x" * 300, "a b"))

    def _no_headers(self, draft: Draft) -> None:
        draft.headers.clear()

    def _odd_header(self, draft: Draft) -> None:
        draft.headers[self.rng.choice(_HEADERS)] = self.rng.choice(_ODD)

    def _odd_body(self, draft: Draft) -> None:
        draft.body = self.rng.choice(_BODIES)

    def _cut_body(self, draft: Draft) -> None:
        draft.body = draft.body[: self.rng.randrange(len(draft.body))]

    def _odd_property(self, draft: Draft) -> None:
        name = self.rng.choice(("content_type", "content_encoding"))
        draft.properties[name] = self.rng.choice(("", "x", "application/x-python-serialize", "é" * 100))

    def _compressed(self, draft: Draft) -> None:
        draft.headers["compression"] = self.rng.choice(("application/x-gzip", "application/x-none", "", 5))

    def _many_headers(self, draft: Draft) -> None:
        draft.headers |= {f"h{number}": number for number in range(8_000)}

    def _raw_header(self, draft: Draft) -> None:
        deep = b""
        for _ in range(2_000):
            deep = b"A" + Struct(">I").pack(len(deep)) + deep
        draft.raw = b"\1r" + self.rng.choice(
            (
                b"S" + Struct(">I").pack(4) + b"\xed!\xff\xfe",
                b"T" + Struct(">Q").pack(1_800_000_000_000),
                b"T" + b"\xff" * 8,
                b"D\xff" + b"\x7f\xff\xff\xff",
                deep,
            )
        )

    def _our_notes(self, draft: Draft) -> None:
        name = self.rng.choice(
            ("django_tasks_due", "django_tasks_deliveries", "django_tasks_headers", "x-delivery-count")
        )
        draft.headers[name] = self.rng.choice((-1, -(2**62), "{", [], {"a": 1}, None))
