"""Which of the servers answers, and what does its driver call an error?"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import AMQPError
from kombu import Connection
from kombu.exceptions import KombuError
from kombu.utils.url import maybe_sanitize_url

from django_tasks.backends.links.options import AmqpOptions
from django_tasks.exceptions import BrokerUnavailable

NATIVE = ("amqp", "amqps", "pyamqp")
"""Schemes of URLs that are RabbitMQ's."""

SOCKET = 10.0
"""Seconds after which a server that is asked something, and says nothing at all, is taken for dead."""

_HIDDEN = {
    "redis": ("visibility_timeout", 3600.0),
    "rediss": ("visibility_timeout", 3600.0),
    "sqs": ("visibility_timeout", 1800.0),
    "pgmq": ("visibility_timeout", 1800.0),
    "azureservicebus": ("peek_lock_seconds", 60.0),
}
"""Which option tells a transport of kombu's after how many seconds it gives a message to another worker, and how many
those are unless it does."""

_LONGEST_ON_SQS = 12 * 3600.0
"""Seconds that a message on SQS can be held, however often that is renewed."""

ERRORS: tuple[type[Exception], ...] = (AMQPError, KombuError, OSError)
"""What drivers raise when a server is at fault."""


class Servers:
    """The servers of one broker, any of which will do: the first that answers is kept to until it fails."""

    def __init__(self, location: str, options: AmqpOptions) -> None:
        self.urls = [url.strip() for url in location.split(";") if url.strip()] or ["amqp://"]
        self.options = options
        self._first = 0

    @property
    def scheme(self) -> str:
        return self.urls[0].partition("://")[0]

    @property
    def native(self) -> bool:
        """Tell whether this is RabbitMQ, and not one of kombu's other transports."""
        return self.scheme in NATIVE

    @property
    def longest_hold(self) -> float:
        """Return the seconds after which a message is taken from a worker that is not done with it."""
        if self.native:
            return self.options.consumer_timeout
        # What is renewed last must end within that time, too.
        return _LONGEST_ON_SQS - self.hidden if self.scheme == "sqs" else self.hidden

    @property
    def hidden(self) -> float:
        """Return the seconds for which one of kombu's other transports hides from others what a worker fetched."""
        option, seconds = _HIDDEN.get(self.scheme, ("", math.inf))
        return float(self.options.transport.get(option, seconds))

    def connection(self, url: str, settings: Mapping[str, Any]) -> Connection:
        """Return kombu's idea of a connection, which is not opened yet."""
        native = self.native
        return Connection(
            # By this name kombu does not look for a driver in C, which knows no publisher confirms.
            f"py{url}" if url.startswith("amqp:") else url,
            ssl=self._tls(url) if native else False,
            connect_timeout=self.options.connect_timeout,
            transport_options=dict(settings),
            heartbeat=settings.get("heartbeat", 0),
        )

    def connect(self, settings: Mapping[str, Any]) -> Any:
        """Return py-amqp's connection to the first server that answers; raises BrokerUnavailable when none does."""
        told: list[str] = []
        for turn in range(len(self.urls)):
            place = (self._first + turn) % len(self.urls)
            connection = self.connection(self.urls[place], _native(settings))
            try:
                opened = connection.transport.establish_connection()
            except ERRORS as error:
                told.append(f"{shown(self.urls[place])}: {explained(error)}")
            else:
                self._first = place
                return opened
        raise BrokerUnavailable(f"No server answers. {'; '.join(told)}")

    @contextmanager
    def telling(self, errors: Sequence[type[Exception]] = ()) -> Iterator[None]:
        """Raise BrokerUnavailable for what the driver raises."""
        try:
            yield
        except (*ERRORS, *errors) as error:
            if isinstance(error, BrokerUnavailable):
                raise
            raise BrokerUnavailable(f"{shown(self.urls[self._first])}: {explained(error)}") from error

    def _tls(self, url: str) -> dict[str, Any] | bool:
        if not url.startswith("amqps") and not self.options.tls:
            return False
        # A name of None stands for the host of the URL. Who wants less than that has to say so.
        return {"server_hostname": None, "cert_reqs": ssl.CERT_REQUIRED, **self.options.tls}


def _native(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"read_timeout": SOCKET, "write_timeout": SOCKET, **settings}


def shown(url: str) -> str:
    """Return a URL without its password."""
    return str(maybe_sanitize_url(url))


def explained(error: Exception) -> str:
    """Return what an error says, or its name when it says nothing."""
    return str(error).strip() or type(error).__name__
