"""How do messages travel through Amazon SQS?

SQS has more than kombu's other transports have. It keeps a message for later by itself, for a quarter of an hour at
most; it counts deliveries; and it hides what a worker holds from others for a while, which the worker renews.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from botocore.exceptions import ClientError
from kombu.utils.json import dumps

from django_tasks.backends.links.emulated import EmulatedLink
from django_tasks.backends.links.layout import Layout
from django_tasks.backends.links.link import Arrival, Parcel, Receipt
from django_tasks.backends.links.servers import ERRORS, SOCKET, Servers
from django_tasks.exceptions import BrokerUnavailable, Unroutable

_LONGEST_DELAY = 900.0
_AT_ONCE = 10
"""How many messages one request may name."""
_ATTEMPTS = 2
_ROOM = "MaximumMessageSize"
_ADDED = 300
"""Bytes at most that kombu adds to a message: a tag, the name of the queue, how the body is encoded."""


class SqsLink(EmulatedLink):
    """Sends and receives through SQS. What is held is lost when its time has run out, and not with a connection."""

    delays: ClassVar[bool] = True
    # Each look is a request, and costs money.
    poll = 1.0
    lasting: ClassVar[bool] = True

    def __init__(self, servers: Servers, layout: Layout) -> None:
        super().__init__(servers, layout)
        self._errors = (*self._errors, ClientError)
        self._places: dict[int, str] = {}
        """From which queue each message came that is held."""
        self._ids: dict[int, str] = {}
        """What SQS itself calls each message; its handle is another one each time."""
        self._renewed: dict[int, float] = {}
        self._room: dict[str, int] = {}
        """Bytes that a message in each queue may have."""

    def step(self, queue: str, left: float) -> int:
        # Queues that keep their order delay all messages or none.
        return 0 if queue.endswith(".fifo") else math.ceil(min(left, _LONGEST_DELAY)) * 1000

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Send all that the queues take; raises Unroutable for the others."""
        with self._using() as channel:
            large = [told for parcel in parcels if (told := self._too_large(channel, parcel))]
        refused = {id(parcel) for parcel, _ in large}
        super().send([parcel for parcel in parcels if id(parcel) not in refused])
        if large:
            raise Unroutable(large[0][1], [str(parcel.wire.headers["id"]) for parcel, _ in large])

    def _too_large(self, channel: Any, parcel: Parcel) -> tuple[Parcel, str] | None:
        """Return a parcel that its queue would refuse, and what to say of it."""
        name = self._queue(channel, parcel.queue)
        size = self._size(channel, parcel)
        if name not in self._room:
            asked = {"QueueUrl": channel._new_queue(name), "AttributeNames": [_ROOM]}
            self._room[name] = int(self._client(channel, name).get_queue_attributes(**asked)["Attributes"][_ROOM])
        if size <= self._room[name]:
            return None
        headers = parcel.wire.headers
        return parcel, (
            f"{headers['task']}[{headers['id']}] takes {size:,} bytes on SQS, and the queue {name!r} takes "
            f"{self._room[name]:,}. Keep what is large elsewhere, and send where it is."
        )

    def _size(self, channel: Any, parcel: Parcel) -> int:
        envelope = {**self._prepared(channel, parcel), "body": ""}
        size = len(dumps(envelope)) + _ADDED + _in_base64(len(parcel.wire.body))
        return _in_base64(size) if channel.sqs_base64_encoding else size

    def _prepared(self, channel: Any, parcel: Parcel) -> Any:
        message = super()._prepared(channel, parcel)
        if parcel.step:
            message["properties"]["DelaySeconds"] = parcel.step // 1000
        return message

    def _arrival(self, queue: str, message: Any) -> Arrival:
        arrival = super()._arrival(queue, message)
        self._places[arrival.receipt[1]] = self.layout.name(queue)
        self._ids[arrival.receipt[1]] = message.delivery_info["sqs_message"]["MessageId"]
        return arrival

    def _losses(self, message: Any) -> tuple[int, bool]:
        told = message.delivery_info["sqs_message"].get("Attributes", {})
        return int(told.get("ApproximateReceiveCount", 1)) - 1, True

    def absorb(self, held: Receipt, again: Receipt) -> bool:
        old, new = held[1], again[1]
        with self._using() as channel:
            if old not in self._held or new not in self._held or self._ids[old] != self._ids[new]:
                return False
            channel.qos.ack(self._held[old])
            self._held[old] = self._held.pop(new)
            for known in (self._places, self._ids, self._renewed):
                known.pop(new, None)
            return True

    def ack(self, receipts: Sequence[Receipt]) -> None:
        with self._using() as channel:
            failed: list[str] = []
            for name, numbers in self._batches(channel, receipts):
                entries = [{"Id": str(number), "ReceiptHandle": self._held[number]} for number in numbers]
                told = self._client(channel, name).delete_message_batch(
                    QueueUrl=channel._new_queue(name), Entries=entries
                )
                failed += self._settle(channel, numbers, told)
            if failed:
                raise BrokerUnavailable(f"SQS did not delete {len(failed)} messages: {failed[0]}")

    def _settle(self, channel: Any, numbers: Sequence[int], told: Mapping[str, Any]) -> list[str]:
        """Forget what is settled, and return what SQS said of the rest. Of what it calls our fault it knows nothing
        any more."""
        failed = {entry["Id"]: entry for entry in told.get("Failed", ()) if not entry["SenderFault"]}
        for number in numbers:
            if str(number) not in failed:
                self._drop(channel, number)
        return [f"{entry['Code']} {entry.get('Message', '')}".strip() for entry in failed.values()]

    def renew(self, receipts: Iterable[Receipt]) -> set[Receipt]:
        receipts = list(receipts)
        now = time.monotonic()
        # Its queue may hide it for less than we are told: what is held for the first time is renewed at once.
        due = [one for one in receipts if now - self._renewed.get(one[1], -math.inf) >= self.servers.hidden / 3]
        with self._using() as channel:
            for name, numbers in self._batches(channel, due):
                self._hide(channel, name, numbers, int(self.servers.hidden))
                self._renewed |= dict.fromkeys([number for number in numbers if number in self._held], now)
            return self.held(receipts)

    def _hide(self, channel: Any, name: str, numbers: Sequence[int], seconds: int) -> None:
        """Hide messages from others for so long from now, and forget those that are no longer ours."""
        entries = [
            {"Id": str(number), "ReceiptHandle": self._held[number], "VisibilityTimeout": seconds} for number in numbers
        ]
        told = self._client(channel, name).change_message_visibility_batch(
            QueueUrl=channel._new_queue(name), Entries=entries
        )
        for entry in told.get("Failed", ()):
            if entry["SenderFault"]:
                self._drop(channel, int(entry["Id"]))

    def purge(self, queue: str) -> int:
        # kombu counts what is there ten times over.
        there = self.ready(queue)
        super().purge(queue)
        return there

    def close(self) -> None:
        """Give back what is held. kombu would do so one by one, and write to a file what SQS does not take."""
        with self._lock:
            channel, held = self._channel, [(self._name, number) for number in self._held]
            if channel is not None:
                with suppress(*ERRORS, *self._errors):
                    for name, numbers in self._batches(channel, held):
                        self._hide(channel, name, numbers, 0)
                for tag in self._let_go(held):
                    channel.qos.ack(tag)
            super().close()

    def _batches(self, channel: Any, receipts: Iterable[Receipt]) -> Iterator[tuple[str, list[int]]]:
        """Give what is held by its queue, as much at once as one request may name."""
        by_queue: dict[str, list[int]] = {}
        for name, number in receipts:
            if name == self._name and number in self._held:
                by_queue.setdefault(self._places[number], []).append(number)
        for queue, numbers in by_queue.items():
            for start in range(0, len(numbers), _AT_ONCE):
                yield queue, numbers[start : start + _AT_ONCE]

    def _client(self, channel: Any, name: str) -> Any:
        return channel.sqs(queue=channel.canonical_queue_name(name))

    def _drop(self, channel: Any, number: int) -> None:
        for tag in self._let_go([(self._name, number)]):
            channel.qos.ack(tag)

    def _let_go(self, receipts: Iterable[Receipt]) -> list[Any]:
        mine = [one for one in receipts if one[0] == self._name]
        for _, number in mine:
            for known in (self._places, self._ids, self._renewed):
                known.pop(number, None)
        return super()._let_go(mine)

    def _settings(self) -> Mapping[str, Any]:
        given = self.layout.options.transport
        client = {
            "connect_timeout": self.layout.options.connect_timeout,
            "read_timeout": SOCKET,
            "retries": {"total_max_attempts": _ATTEMPTS},
        }
        # A fetch must not block: nothing could be sent or renewed meanwhile.
        return {"wait_time_seconds": 0, **given, "client-config": {**client, **given.get("client-config", {})}}

    def _failed(self) -> None:
        """Look for the queues again, which may have been deleted; what is held is held all the same."""
        self._declared.clear()
        self._room.clear()
        if self._channel is not None:
            self._channel._queue_cache.clear()

    def _forget(self) -> None:
        super()._forget()
        for known in (self._places, self._ids, self._renewed, self._room):
            known.clear()


def _in_base64(size: int) -> int:
    return -(-size // 3) * 4
