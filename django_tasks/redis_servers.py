"""How is a Redis asked, and what if it does not answer?"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException

from django_tasks.exceptions import ConfigurationError
from django_tasks.redis_locations import Access, masked, opener

OPTIONS = ("CONNECTION", "KEY_PREFIX", "SENTINEL")
"""What brokers and stores may both say of their server, and of where in it they are."""

MINIMUM = (7, 0)
"""Scripts say since this version what they do when memory is full."""

_MISCONFIGURED = "MISCONF"
"""Said by a server that cannot write to its disk."""

_FAILURES = (redis.RedisError, RedisClusterException, OSError)


class RedisFailed(Exception):
    """A Redis did not do what it was asked."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(f"{where}: {error}" if str(error) else f"{where}: {type(error).__name__}")
        self.full = isinstance(error, redis.exceptions.OutOfMemoryError) or str(error).startswith(_MISCONFIGURED)
        """Whether it has no room for more."""
        self.broken = isinstance(error, redis.ConnectionError | OSError | AttributeError)
        """Whether it was the connection that failed; another one may do."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the name by which a server that has it knows it."""

    source: bytes
    digest: str


def load_scripts(folder: Path) -> dict[str, Script]:
    """Return the scripts of a folder by their names; what is in `common.lua` stands before each."""
    common = (folder / "common.lua").read_bytes()
    scripts = {}
    for path in sorted(folder.glob("*.lua")):
        if path.name != "common.lua":
            first, _, rest = path.read_bytes().partition(b"\n")
            source = first + b"\n" + common + rest
            # The name that Redis gives it, not a secret.
            scripts[path.stem] = Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
    return scripts


class Redis:
    """A server, or several that stand for one. Any thread may ask; a process that was forked has connections anew."""

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        self.location = location
        self.where = f"Redis at {masked(location)}"
        self._open = opener(location, options)
        self.clustered = self._open.clustered
        """Whether a script may only touch what hashes to one slot."""
        self._lock = threading.Lock()
        self._client: Any = None
        self._pid = 0

    @property
    def access(self) -> Access:
        """How it is reached, as far as the location tells."""
        return self._open.access

    def call(self, *words: Any) -> Any:
        """Send a command; once more if the connection breaks, so it must be one that may be done twice."""
        return self._twice(lambda client, _: client.execute_command(*words))

    def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Any], *, again: Sequence[Any] | None = None
    ) -> Any:
        """Run a script; once more if the connection breaks, then with the arguments `again`."""

        def attempt(client: Any, repeated: bool) -> Any:
            rest = (len(keys), *keys, *(again if repeated and again is not None else args))
            try:
                return client.execute_command("EVALSHA", script.digest, *rest)
            except NoScriptError:
                return client.execute_command("EVAL", script.source, *rest)

        return self._twice(attempt)

    def _twice(self, attempt: Any) -> Any:
        repeated = False
        while True:
            client = None
            try:
                client = self._connected()
                return attempt(client, repeated)
            except _FAILURES as error:
                # Whatever else is in the pool is as old: after a restart or a failover none of it is of use.
                if not isinstance(error, redis.ResponseError) or _has_moved(error):
                    self._let_go(client)
                if repeated or not isinstance(error, redis.ConnectionError):
                    raise RedisFailed(self.where, error) from error
                repeated = True

    def _connected(self) -> Any:
        """Return the client of this process."""
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                self._client, self._pid = self._open(), os.getpid()
            return self._client

    def _let_go(self, client: Any) -> None:
        """Close connections that nobody uses at the moment."""
        for pool in _pools(client):
            pool.disconnect(inuse_connections=False)

    def info(self) -> list[dict[str, Any]]:
        """Return what each server that takes writes says of itself; nothing where that may not be asked."""
        try:
            if not self.clustered:
                return [dict(self.call("INFO"))]
            told = self._twice(lambda client, _: client.execute_command("INFO", target_nodes=RedisCluster.PRIMARIES))
        except RedisFailed as error:
            if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                return []
            raise
        return [dict(each) for each in told.values()]

    def subscription(self) -> Subscription:
        """Return a connection of its own that hears what is published; any node of a cluster hears everything."""
        failure: Exception = redis.ConnectionError("no server is known")
        try:
            for pool in _pools(self._connected()):
                connection = pool.connection_class(**pool.connection_kwargs)
                try:
                    connection.connect()
                except _FAILURES as error:
                    failure = error
                else:
                    return Subscription(self.where, connection)
        except _FAILURES as error:
            failure = error
        raise RedisFailed(self.where, failure) from failure

    def close(self) -> None:
        """Close all connections but those that a cache has; the next call opens others."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid() and not self._open.shared:
            client.close()


class Subscription:
    """A connection that hears what is published on channels; one thread uses it, any may close it."""

    def __init__(self, where: str, connection: Any) -> None:
        self.where = where
        self.pid = os.getpid()
        self.channels: set[bytes] = set()
        self._connection = connection
        self._heard: list[tuple[bytes, bytes]] = []
        self._pinged = False

    def subscribe(self, channels: Collection[bytes]) -> None:
        """Listen to these channels too; what is published from now on is heard."""
        new = [channel for channel in channels if channel not in self.channels]
        if not new:
            return
        try:
            self._connection.send_command("SUBSCRIBE", *new)
            left = len(new)
            while left:
                left -= self._take_in() == b"subscribe"
        except _FAILURES as error:
            raise RedisFailed(self.where, error) from error
        self.channels.update(new)

    def unsubscribe(self) -> None:
        """Listen to nothing, and forget what was heard. The server's word for it is not waited for."""
        try:
            if self.channels:
                self._connection.send_command("UNSUBSCRIBE", *self.channels)
        except _FAILURES as error:
            raise RedisFailed(self.where, error) from error
        self.channels.clear()
        self._heard.clear()

    def _take_in(self) -> bytes:
        """Read one thing that was said, and keep it if it is a message; return of which kind it was."""
        said = self._connection.read_response(push_request=True)
        kind, *rest = said if isinstance(said, list) else [said]
        if kind == b"message":
            self._heard.append((rest[0], rest[1]))
        elif kind in (b"pong", b"PONG"):
            self._pinged = False
        return bytes(kind)

    def hear(self, seconds: float) -> list[tuple[bytes, bytes]]:
        """Return the channels and texts that were heard, as soon as there are some or when so many seconds are over."""
        try:
            if not self._heard and self._connection.can_read(seconds):
                self._take_in()
            while self._connection.can_read(0):
                self._take_in()
        except (*_FAILURES, ValueError, AttributeError) as error:
            # The last two: another thread closes it meanwhile.
            raise RedisFailed(self.where, error) from error
        heard, self._heard = self._heard, []
        return heard

    def ping(self) -> None:
        """Ask for a sign of life, which `hear` takes in; raise RedisFailed if the last one has not come."""
        if self._pinged:
            raise RedisFailed(self.where, redis.ConnectionError("nothing comes through the connection any more"))
        try:
            self._connection.send_command("PING")
        except _FAILURES as error:
            raise RedisFailed(self.where, error) from error
        self._pinged = True

    def close(self) -> None:
        self._connection.disconnect()


def key_prefix(options: Mapping[str, Any], where: str) -> str:
    """Return what all keys begin with."""
    prefix = options.get("KEY_PREFIX", "django_tasks")
    if not isinstance(prefix, str) or not prefix or set(prefix) & set("{}"):
        raise ConfigurationError(f"{where}: KEY_PREFIX must be a text without braces, not {prefix!r}.")
    return prefix


def check_options(options: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Raise ConfigurationError for an option that there is not."""
    if unknown := sorted(set(options) - set(known)):
        raise ConfigurationError(f"{where} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}.")


def _has_moved(error: Exception) -> bool:
    """Tell whether a server says that it is not, or not yet, the one to ask."""
    return isinstance(error, redis.exceptions.ReadOnlyError) or str(error).startswith(("MASTERDOWN", "BUSY "))


def _pools(client: Any) -> Iterator[Any]:
    """Give the pools of connections that a client has."""
    if client is None:
        return
    if isinstance(client, redis.Redis):
        yield client.connection_pool
        return
    for node in client.get_primaries():
        yield client.get_redis_connection(node).connection_pool
