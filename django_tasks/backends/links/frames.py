"""How do the few methods look on the wire that are sent and received for every message?

Everything else is said through py-amqp. What is here is written many at a time, in one piece, and read without making
an object of each step; the numbers are those of AMQP 0-9-1 (https://www.rabbitmq.com/amqp-0-9-1-reference.html).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any

from amqp.method_framing import frame_handler

from django_tasks.backends.links.tables import short

METHOD, HEADER, BODY = 1, 2, 3

_FRAME = Struct(">BHI")
_END = b"\xce"
_OVERHEAD = _FRAME.size + len(_END)

_PUBLISH = Struct(">HHH")
_CONTENT = Struct(">HHQ")
_TAGGED = Struct(">HHQB")
_QOS = Struct(">HHIHB")
_NAMED = Struct(">HHH")
_METHOD = Struct(">HH")
_BASIC = 60
_DELIVER = _METHOD.pack(_BASIC, 60)
_ACK = _METHOD.pack(_BASIC, 80)
_NACK = _METHOD.pack(_BASIC, 120)
_TAKEN = (_DELIVER, _ACK, _NACK)
_CONTENT_SIZE = Struct(">Q")
_TAG = Struct(">QB")

Frame = tuple[int, int, bytes]


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + _END


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message is published to; without an exchange, the key is the name of a queue."""

    exchange: str
    key: str
    mandatory: bool = True
    """The message comes back when no queue takes it."""


def publication(channel: int, address: Address, properties: bytes, body: bytes, largest: int) -> bytes:
    """Return a message as it is published."""
    room = largest - _OVERHEAD
    to = short(address.exchange) + short(address.key) + bytes((address.mandatory,))
    parts = [
        _frame(METHOD, channel, _PUBLISH.pack(_BASIC, 40, 0) + to),
        _frame(HEADER, channel, _CONTENT.pack(_BASIC, 0, len(body)) + properties),
    ]
    parts += [_frame(BODY, channel, body[start : start + room]) for start in range(0, len(body), room)]
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    return _frame(METHOD, channel, _TAGGED.pack(_BASIC, 80, tag, multiple))


def requeue(channel: int, tag: int) -> bytes:
    return _frame(METHOD, channel, _TAGGED.pack(_BASIC, 90, tag, 1))


def consume(channel: int, queue: str, consumer: str, prefetch: int) -> bytes:
    """Return what begins a consumer that gets at most so many messages before any is acknowledged."""
    no_wait, no_arguments = b"\x08", b"\0\0\0\0"
    return _frame(METHOD, channel, _QOS.pack(_BASIC, 10, 0, prefetch, 0)) + _frame(
        METHOD, channel, _NAMED.pack(_BASIC, 20, 0) + short(queue) + short(consumer) + no_wait + no_arguments
    )


def cancel(channel: int, consumer: str) -> bytes:
    """Return what ends a consumer, without an answer."""
    return _frame(METHOD, channel, _METHOD.pack(_BASIC, 30) + short(consumer) + b"\x01")


def split(data: bytes) -> Iterator[tuple[Frame, int]]:
    """Give the whole frames in what was received, each with the place where it ends."""
    place = 0
    while len(data) - place >= _FRAME.size:
        kind, channel, size = _FRAME.unpack_from(data, place)
        end = place + size + _OVERHEAD
        if end > len(data):
            return
        yield (kind, channel, data[place + _FRAME.size : end - 1]), end
        place = end


@dataclass(slots=True)
class Content:
    """A message that was delivered, not looked into yet."""

    consumer: str
    tag: int
    redelivered: bool
    way: bytes
    """The exchange and the routing key that it came by, as two short texts."""
    header: bytes
    """Its content header, whose properties begin after 12 bytes."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Confirm:
    """What the server says of a message that was published, or of all up to it."""

    number: int
    multiple: bool
    taken: bool
    """Whether the server has it; else it refused."""


PROPERTIES = 12
"""Where the properties begin in a content header."""


class Inbox:
    """Takes deliveries and confirms out of what a connection receives, whoever reads it, and leaves the rest to
    py-amqp."""

    def __init__(self) -> None:
        self.contents: deque[Content] = deque()
        self.confirms: deque[Confirm] = deque()
        self.channel = -1
        self._method = b""
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def handler(self, connection: Any, callback: Callable[..., Any]) -> Callable[[Frame], bool]:
        """Return what py-amqp calls with each frame; it returns whether that was the last one of something."""
        standard: Callable[[Frame], bool] = frame_handler(connection, callback)

        def on_frame(frame: Frame) -> bool:
            return self.take(connection, frame) if self.wants(frame) else standard(frame)

        return on_frame

    def wants(self, frame: Frame) -> bool:
        """Tell whether a frame is a confirm, or belongs to a delivery."""
        kind, channel, payload = frame
        if channel != self.channel:
            return False
        # The body of a message that came back may begin with anything.
        return bool(self._method) or (kind == METHOD and payload.startswith(_TAKEN))

    def take(self, connection: Any, frame: Frame) -> bool:
        """Take a frame of a delivery, or a confirm; return whether it was the last one of it."""
        connection.bytes_recv += 1
        kind, _, payload = frame
        if kind == METHOD and not payload.startswith(_DELIVER):
            number, bits = _TAG.unpack_from(payload, _METHOD.size)
            self.confirms.append(Confirm(number, bool(bits & 1), payload.startswith(_ACK)))
            return True
        if kind == METHOD:
            self._method, self._header, self._parts = payload, b"", []
            return False
        if kind == HEADER:
            self._header = payload
            (self._missing,) = _CONTENT_SIZE.unpack_from(payload, 4)
        else:
            self._parts.append(payload)
            self._missing -= len(payload)
        if self._missing > 0:
            return False
        method, self._method = self._method, b""
        end = 5 + method[4]
        tag, redelivered = _TAG.unpack_from(method, end)
        self.contents.append(
            Content(
                method[5:end].decode(),
                tag,
                bool(redelivered & 1),
                method[end + _TAG.size :],
                self._header,
                b"".join(self._parts),
            )
        )
        return True
