"""Which Redis does a location name: one server, one that sentinels watch, a cluster, or the one that a cache has?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from django.core.cache import InvalidCacheBackendError, caches
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from django_tasks.exceptions import ConfigurationError

CONNECT_TIMEOUT, SOCKET_TIMEOUT = 3.0, 10.0
"""Seconds."""

DEFAULT_PORT, DEFAULT_SENTINEL_PORT = 6379, 26379


def masked(location: str) -> str:
    """Return a URL without the password in it."""
    return re.sub(r"(//[^:/@]*):[^/]*@", r"\1:***@", location).partition("?")[0]


@dataclass(frozen=True, slots=True)
class Access:
    """How servers are reached."""

    hosts: tuple[str, ...]
    """An empty name stands for a socket of this machine."""
    tls: bool
    password: bool
    """Whether one is sent."""


class Opener:
    """Makes clients of one kind of location."""

    clustered = False
    shared = False

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        self.location = location
        self.keywords: dict[str, Any] = {
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": SOCKET_TIMEOUT,
            # Whoever asks decides what may be asked twice.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **options.get("CONNECTION", {}),
        }
        if not location.startswith("unix://"):
            self.keywords.setdefault("socket_keepalive", True)

    def __call__(self) -> Any:
        return redis.Redis(connection_pool=self._new_pool())

    @property
    def access(self) -> Access:
        return _access(self._new_pool())

    def _new_pool(self) -> Any:
        return redis.ConnectionPool.from_url(self.location, **self.keywords)


class _ByName(Opener):
    """Of a URL that names several hosts: `redis+cluster://user:password@host:port,host:port/name?db=0`."""

    usual_port = DEFAULT_PORT

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        super().__init__(location, options)
        parts = urlsplit(location)
        account, _, hosts = parts.netloc.rpartition("@")
        user, _, password = account.partition(":")
        given = {"username": unquote(user) or None, "password": unquote(password) or None}
        self.keywords.update({key: value for key, value in given.items() if value})
        if parts.scheme.startswith("rediss"):
            self.keywords["ssl"] = True
        self.hosts = [_host(host, self.usual_port) for host in hosts.split(",") if host]
        self.name = unquote(parts.path.strip("/"))
        query = dict(parse_qsl(parts.query))
        if not self.hosts or set(query) - {"db"} or not query.get("db", "0").isdigit():
            raise ConfigurationError(
                f"{masked(location)!r} must be like {parts.scheme}://user:password@host:port,host:port/...?db=0; what "
                "else there is to say goes to OPTIONS['CONNECTION']."
            )
        self.db = int(query.get("db", "0"))

    @property
    def access(self) -> Access:
        return Access(
            tuple(host for host, _ in self.hosts), bool(self.keywords.get("ssl")), bool(self.keywords.get("password"))
        )


class _Cluster(_ByName):
    clustered = True

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        super().__init__(location, options)
        if self.name or self.db:
            raise ConfigurationError(f"{masked(location)!r}: a cluster has no databases, and no name.")

    def __call__(self) -> Any:
        nodes = [ClusterNode(*host) for host in self.hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **self.keywords)


class _Sentinels(_ByName):
    usual_port = DEFAULT_SENTINEL_PORT

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        super().__init__(location, options)
        if not self.name:
            raise ConfigurationError(f"{masked(location)!r} must end in the name that the sentinels give their master.")
        shared = ("socket_connect_timeout", "socket_timeout", "retry", "protocol", "ssl")
        self.sentinel = {key: self.keywords[key] for key in shared if key in self.keywords}
        self.sentinel.update(options.get("SENTINEL", {}))

    def __call__(self) -> Any:
        sentinel: Any = Sentinel(self.hosts, sentinel_kwargs=self.sentinel)  # type: ignore[no-untyped-call]
        return sentinel.master_for(self.name, db=self.db, **self.keywords)


class _Cache(Opener):
    """Of the alias of a cache that django_redis keeps, whose connections are then used."""

    shared = True

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        super().__init__(location, options)
        try:
            cache: Any = caches[location]
            self.pool = cache.client.get_client(write=True).connection_pool
        except InvalidCacheBackendError as error:
            raise ConfigurationError(f"LOCATION is no URL, and CACHES has no {location!r}.") from error
        except AttributeError as error:
            raise ConfigurationError(
                f"LOCATION names the cache {location!r}, which is not one of django_redis; name one that is, or give a "
                "URL."
            ) from error
        if self.pool.connection_kwargs.get("decode_responses"):
            raise ConfigurationError(f"The cache {location!r} decodes what Redis answers; messages are bytes.")

    def __call__(self) -> Any:
        return redis.Redis(connection_pool=self.pool)

    @property
    def access(self) -> Access:
        return _access(self.pool)


_KINDS: Mapping[str, type[Opener]] = {
    "redis": Opener,
    "rediss": Opener,
    "unix": Opener,
    "redis+sentinel": _Sentinels,
    "rediss+sentinel": _Sentinels,
    "redis+cluster": _Cluster,
    "rediss+cluster": _Cluster,
}


def opener(location: str, options: Mapping[str, Any]) -> Opener:
    """Return what makes clients of a location; raises ConfigurationError for one that cannot be."""
    if not location:
        raise ConfigurationError("LOCATION says nothing; it must be a URL, or the alias of a cache.")
    if "://" not in location:
        return _Cache(location, options)
    scheme = location.partition("://")[0]
    if scheme not in _KINDS:
        raise ConfigurationError(f"LOCATION begins with {scheme!r}; it must with one of {', '.join(_KINDS)}.")
    return _KINDS[scheme](location, options)


def _access(pool: Any) -> Access:
    given = pool.connection_kwargs
    host = "" if "path" in given else str(given.get("host", "localhost"))
    secure = issubclass(pool.connection_class, redis.SSLConnection)
    return Access((host,), secure, bool(given.get("password") or given.get("credential_provider")))


def _host(text: str, usual_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ConfigurationError(f"{text!r} is not a host and a port.")
    return parts.hostname, parts.port or usual_port
