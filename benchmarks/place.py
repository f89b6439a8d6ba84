"""Where does a system keep its messages and its results? In a database of the run's own, or on a server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from kombu import Connection

from benchmarks import server
from tools.servers import PrivateRabbitMQ, PrivateRedis, PrivateServer, private


class DurableRedis(PrivateRedis):
    """Writes down what it is told, and brings it to the disk each second: as Redis is run where nothing may be lost."""

    arguments = ("--appendonly", "yes", "--appendfsync", "everysec")


KINDS: dict[str, type[PrivateServer]] = {"redis": DurableRedis, "rabbitmq": PrivateRabbitMQ}
PLACES = {
    "sqlite": ("sqlite", ""),
    "postgres": ("postgres", ""),
    "mariadb": ("mariadb", ""),
    "redis": ("sqlite", "redis"),
    "rabbitmq": ("sqlite", "rabbitmq"),
    "redis-postgres": ("postgres", "redis"),
    "rabbitmq-postgres": ("postgres", "rabbitmq"),
}
"""The database of the Django project, and the server for messages where they are not in it."""
KEEPING = ("sqlite", "postgres", "mariadb", "redis-postgres", "rabbitmq-postgres")
"""Where a task that returns nothing leaves a result all the same."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place of one run: `database` is there in any case, `server` where messages are not in it."""

    name: str
    database: server.Database
    server: PrivateServer | None

    @property
    def broker(self) -> str:
        """Return the URL of the server, empty if there is none."""
        return "" if self.server is None else self.server.url

    @property
    def keeps_results(self) -> bool:
        return self.name in KEEPING

    def versions(self) -> dict[str, str]:
        """Say which servers are measured, and how each keeps what it is given."""
        versions: dict[str, str] = {}
        if self.broker:
            kept = "appendonly yes, appendfsync everysec" if self.broker.startswith("redis") else "durable queues"
            versions[_version(self.broker)] = kept
        if not self.broker or self.keeps_results:
            versions[self.database.version()] = self.database.durability()
        return versions


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Place]:
    """Make an empty place, and leave nothing of it behind."""
    vendor, kind = PLACES[name]
    with ExitStack() as stack:
        own = stack.enter_context(private(KINDS[kind])) if kind else None
        yield Place(name, stack.enter_context(server.database(vendor, folder)), own)


def _version(url: str) -> str:
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            return f"Redis {client.info('server')['redis_version']}"
    with Connection(url.replace("amqp:", "pyamqp:", 1)) as connection:
        connection.connect()
        return f"RabbitMQ {connection.connection.server_properties['version']}"
