"""Where are results kept when each is sent to the process that asked for it?"""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from amqp.exceptions import PreconditionFailed

from django_tasks.backends.links.fitness import examine
from django_tasks.backends.links.frames import PROPERTIES, Content
from django_tasks.backends.links.layout import Declaration, Layout
from django_tasks.backends.links.link import Parcel
from django_tasks.backends.links.options import read_options
from django_tasks.backends.links.own import Own
from django_tasks.backends.links.rabbit_replies import RabbitReplies
from django_tasks.backends.links.rabbit_sender import RabbitSender
from django_tasks.backends.links.servers import Servers
from django_tasks.backends.links.tables import SHORT, read_properties
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import (
    BrokerUnavailable,
    ConfigurationError,
    PublishError,
    ResultTooLarge,
    StoreUnavailable,
)
from django_tasks.message import Clock, new_id
from django_tasks.plan import Result
from django_tasks.results.arrived import Arrived
from django_tasks.results.base import ResultStore, StoreFeatures
from django_tasks.results.celery_meta import dump_meta, load_meta
from django_tasks.wire import Wire

_log = logging.getLogger("django_tasks.worker")

_EXPIRES = timedelta(days=1)
"""How long results wait for a process that called and never asked, unless `EXPIRES` says otherwise; as with Celery."""
_MOST = 10_000
"""Results that a process keeps, and that its queue keeps for it; of more the oldest go."""
_LONGEST = 2**32 - 1
"""Milliseconds; RabbitMQ takes no longer time after which a queue or a message goes."""
_LARGE = 1_000_000
"""Bytes that every server takes."""
_TRANSIENT = 1
"""The delivery mode of what need not outlive the server: the process that waits loses its queue with the connection."""
_OPTIONS = ("PREFIX", "TLS", "HEARTBEAT", "PUBLISH_TIMEOUT", "CONNECT_TIMEOUT")
_UNREADABLE = (LookupError, TypeError, ValueError, ArithmeticError, OSError, RecursionError, struct.error)
"""What reading a header or a text raises that no worker wrote."""


@dataclass(frozen=True, slots=True)
class _Side:
    """What one process has of the store."""

    sender: RabbitSender
    replies: RabbitReplies
    arrived: Arrived


class RpcStore(ResultStore):
    """Sends each result through RabbitMQ to the process that called, in the form of Celery's `rpc://`.

    A message says where its result is to go: to a queue of the calling process, which takes it from there at the first
    question and keeps it in its memory, the newest 10,000. No other process sees it. A result whose caller is gone is
    dropped. When the caller's connection is lost its queue goes, and what came meanwhile with it; whoever waits is told
    by StoreUnavailable.

    `LOCATION`: one URL, or several with semicolons between them; `OPTIONS`: `EXPIRES`, and those of the AMQP broker
    that are about the connection.
    """

    features = StoreFeatures(expires=False, shared=False)

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        self._where = f"The rpc store {alias!r}"
        rest = {key: value for key, value in self.options.items() if key != "EXPIRES"}
        self._layout = Layout(read_options(alias, rest, where=self._where, keys=_OPTIONS))
        self._servers = Servers(self.location, self._layout.options)
        if not self._servers.native:
            raise ConfigurationError(
                f"{self._where}: LOCATION is the URL of a RabbitMQ, such as amqp://host/shop, not of kombu's transport "
                f"{self._servers.scheme!r}."
            )
        self.expires = self.options.get("EXPIRES", _EXPIRES)
        if self.expires is not None and not (isinstance(self.expires, timedelta) and self.expires > timedelta(0)):
            raise ConfigurationError(f"{self._where}: EXPIRES is a timedelta above 0, or None, not {self.expires!r}.")
        self._own = Own(self._new_side)

    def reply_to(self) -> str:
        side = self._side
        try:
            side.replies.declare()
        except BrokerUnavailable as error:
            raise self._unavailable(error) from error
        return side.replies.queue.name

    def save(self, results: Sequence[Result]) -> None:
        """Send results to who asked for them, and return when the server has them all."""
        parcels = [_parcel(result) for result in results if result.reply_to and _fits(result.reply_to)]
        if len(parcels) < len(results):
            _log.debug("Nobody asked for some results", extra={"results": len(results) - len(parcels)})
        if not parcels:
            return
        try:
            self._side.sender.send(parcels)
        except PublishError as error:
            largest = max(len(parcel.wire.body) for parcel in parcels)
            if isinstance(error.__cause__, PreconditionFailed) and largest > _LARGE:
                raise ResultTooLarge(
                    f"{self._where}: the server takes no result of {largest:,} bytes; its max_message_size is what it "
                    "takes. Return less, such as the name of where the data is, or keep results in the database."
                ) from error
            raise self._unavailable(error) from error

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        if not ids:
            return {}
        side = self._side
        found = side.arrived.final(ids)
        if len(found) == len(set(ids)):
            return found
        self._listen(side)
        return side.arrived.get(ids)

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        """Block until one has come that is final. Raises StoreUnavailable as well when the connection is lost
        meanwhile, for results may be lost with it; to ask again is to wait on."""
        if not ids:
            return {}
        side, began = self._side, time.monotonic()
        losses = side.arrived.losses
        if found := side.arrived.final(ids):
            return found
        self._listen(side)
        left = None if timeout is None else max(0.0, began + timeout - time.monotonic())
        return side.arrived.wait(ids, left, losses)

    def forget(self, ids: Sequence[str]) -> int:
        """Remove what came to this process."""
        return self._side.arrived.forget(ids)

    def expire(self, before: datetime, limit: int = 1000) -> int:
        """Return 0: results go by themselves, from the queue as from this process."""
        return 0

    def close(self) -> None:
        """Let go of the connections. The queue goes if it was read from; what has come stays."""
        side = self._own.made()
        if side is not None:
            side.sender.close()
            side.replies.close()

    def diagnose(self, *, ask: bool = True) -> Diagnosis:
        try:
            told = examine(self._servers, self._layout, (), self._where, ask=ask)
        except BrokerUnavailable as error:
            raise self._unavailable(error) from error
        # A queue that lives as long as a connection needs no replica.
        return replace(told, found=tuple(one for one in told.found if one.id != "django_tasks.W125"))

    def _listen(self, side: _Side) -> None:
        try:
            side.replies.listen()
        except BrokerUnavailable as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"{self._where}: {error}")

    @property
    def _side(self) -> _Side:
        """Return this process's own; one that was forked has another queue than its parent."""
        return self._own.get()

    def _new_side(self) -> _Side:
        arrived = Arrived(_MOST, self.expires, self.clock)
        replies = RabbitReplies(
            self._servers,
            self._queue(),
            lambda contents: arrived.add(filter(None, map(_read, contents))),
            arrived.lose,
        )
        return _Side(RabbitSender(self._servers, self._layout), replies, arrived)

    def _queue(self) -> Declaration:
        """Return a new queue as Celery would declare it, with bounds to what a caller lets lie."""
        arguments: dict[str, Any] = {"x-max-length": _MOST}
        if self.expires is not None:
            kept = min(_LONGEST, max(1, int(self.expires.total_seconds() * 1000)))
            arguments |= {"x-expires": kept, "x-message-ttl": kept}
        return Declaration(self._layout.name(f"reply.{new_id()}"), arguments, auto_delete=True)


def _fits(reply_to: str) -> bool:
    """Tell whether there can be a queue of this name."""
    return len(reply_to.encode("utf-8", "surrogatepass")) <= SHORT


def _parcel(result: Result) -> Parcel:
    properties = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "correlation_id": result.id,
        "delivery_mode": _TRANSIENT,
    }
    return Parcel("", Wire({"id": result.id}, properties, dump_meta(result)), key=result.reply_to, reply=True)


def _read(content: Content) -> Result | None:
    """Return the result that came, if it is one."""
    try:
        _, properties = read_properties(content.header, PROPERTIES)
        # An id that is too long for the property stands in the text alone.
        task_id = properties.get("correlation_id") or json.loads(content.body)["task_id"]
        result = load_meta(task_id, content.body) if isinstance(task_id, str) else None
    except _UNREADABLE:
        result = None
    if result is None:
        _log.warning("What came as a result cannot be read; Celery has to send JSON")
    return result
