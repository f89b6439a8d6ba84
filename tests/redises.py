"""How does a test have keys of its own in a Redis, and how does it let time pass there?"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from django_tasks.backends.redis import RedisBroker
from django_tasks.message import Delivery, new_group_id
from django_tasks.plan import Group, Part
from django_tasks.results.groups import Groups
from tests.settings import REDIS_PREFIX, REDIS_URL
from tools.servers import PrivateRedis, configured, private

NOWHERE = "redis://127.0.0.1:1"
"""Where no server is."""

_numbers = itertools.count()

# Moves back all that says when something is, or has been, to be taken.
_SHIFT = """
local by = tonumber(ARGV[2]) * 1000
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local name = string.match(key, '[^:]*$')
  if name == 'delayed' or name == 'leased' or name == 'since' then
    local found = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #found, 2 do
      redis.call('ZADD', key, found[i + 1] - by, found[i])
    end
  elseif name == 'unfired' or name == 'limited' then
    local found = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #found, 2 do
      redis.call('ZADD', key, found[i + 1] - by * 1000, found[i])
    end
  elseif name == 'messages' then
    local found = redis.call('HGETALL', key)
    for i = 1, #found, 2 do
      local published = tonumber(string.sub(found[i + 1], 17, 32))
      if published then
        local moved = string.format('%016.0f', published - by * 1000)
        local value = string.sub(found[i + 1], 1, 16) .. moved .. string.sub(found[i + 1], 33)
        redis.call('HSET', key, found[i], value)
      end
    end
  end
end
"""


def direct(url: str = REDIS_URL) -> redis.Redis:
    """Return a client that looks behind the broker's back."""
    return redis.Redis.from_url(url)


def new_prefix() -> str:
    return f"{REDIS_PREFIX}_{next(_numbers)}"


def wipe(prefix: str, url: str = REDIS_URL) -> None:
    """Remove all keys that begin with a prefix."""
    with direct(url) as client:
        for key in client.scan_iter(f"{prefix}:*", count=10_000):
            client.unlink(key)


@contextmanager
def own_prefix(url: str = REDIS_URL) -> Iterator[str]:
    """Give a prefix for keys, and leave none of them behind."""
    prefix = new_prefix()
    try:
        yield prefix
    finally:
        wipe(prefix, url)


def elapse(prefix: str, seconds: float, url: str = REDIS_URL) -> None:
    """Let time pass for the messages and groups under a prefix."""
    with direct(url) as client:
        client.eval(_SHIFT, 0, f"{prefix}:*", seconds)


@contextmanager
def private_redis(*arguments: str) -> Iterator[PrivateRedis]:
    """Run a server of one's own, with settings as on its command line."""

    with private(configured(PrivateRedis, *arguments)) as server:
        yield server


def open_broker(location: str, prefix: str = "q", **options: Any) -> RedisBroker:
    return RedisBroker("default", {"LOCATION": location, "OPTIONS": {"KEY_PREFIX": prefix, **options}})


def take(broker: RedisBroker, limit: int = 100, *queues: str) -> list[Delivery]:
    return broker.fetch(queues or ("default",), limit, lease=30, consumer="w")


def keep_groups(groups: Groups) -> None:
    """Do with some groups all that can be done with them."""
    several = [Group(new_group_id(), 3) for _ in range(20)]
    ids = [each.id for each in several]
    groups.open(several)
    groups.keep(ids[0], 3, "kept")
    assert groups.kept(ids[0]) == "kept"
    parts = [Part((each, index), "t", b"%d" % index) for index in range(3) for each in ids]
    assert groups.record(parts[:-1] + parts[:5]) != []
    assert [each.group.id for each in groups.record(parts[-3:])] == ids[-1:]
    assert groups.values(ids[5]) == [b"0", b"1", b"2"]
    assert groups.parts(ids[6]) == [Part((ids[6], index), "t", b"%d" % index) for index in range(3)]
    assert {each.done for each in groups.progress(ids).values()} == {3}
    assert groups.unfired() == []
    groups.fired(ids[:10])
    assert groups.expire(datetime.now(UTC) + timedelta(hours=1), 4) == 4
    assert groups.forget(ids) == 16


def settings_of(server: PrivateRedis) -> dict[str, Any]:
    """Return settings that have messages and results there, under the prefix "q"."""
    entry = {"default": {"BACKEND": "redis", "LOCATION": server.url, "OPTIONS": {"KEY_PREFIX": "q"}}}
    return {"BROKERS": entry, "RESULTS": entry}


def is_empty(client: redis.Redis) -> bool:
    """Tell whether no message is there any more."""
    return not client.exists("q:messages", "q:tries", "q:{default}:leased", "q:{default}:ready")


def save(client: redis.Redis) -> None:
    """Have the server try to write its file, and wait for what comes of it."""
    client.bgsave()
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        pass


@contextmanager
def broker_on_its_own(*arguments: str, **options: Any) -> Iterator[tuple[PrivateRedis, RedisBroker]]:
    """Give a broker on a server of its own, which was started with some settings."""
    with private_redis(*arguments) as server:
        broker = open_broker(server.url, **options)
        try:
            yield server, broker
        finally:
            broker.close()


SLOTS = 16_384
PATIENCE = 30.0


def until(test: Callable[[], object], what: str) -> None:
    """Look again and again until something is so; an error of the server means that it is not yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if test():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


@contextmanager
def private_cluster(nodes: int = 3) -> Iterator[list[PrivateRedis]]:
    """Run a cluster of one's own."""
    with ExitStack() as stack:
        servers, buses = [], []
        for _ in range(nodes):
            bus = _free_port()
            arguments = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(bus))
            servers.append(stack.enter_context(private_redis(*arguments)))
            buses.append(bus)
        clients = [stack.enter_context(direct(server.url)) for server in servers]
        for place, client in enumerate(clients):
            first, last = SLOTS * place // nodes, SLOTS * (place + 1) // nodes - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, buses[0])
        until(lambda: all(_whole(client, nodes) for client in clients), "the cluster is whole")
        yield servers


def _whole(client: redis.Redis, nodes: int) -> bool:
    told = client.execute_command("CLUSTER", "INFO").split()
    return b"cluster_state:ok" in told and b"cluster_known_nodes:%d" % nodes in told


class PrivateSentinel(PrivateRedis):
    """Watches one server, whose name is "main"."""

    watched: PrivateRedis

    def create(self) -> None:
        file = self.data / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor main 127.0.0.1 {self.watched.port} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 3000",
        ]
        file.write_text("\n".join(lines))
        # It writes into it what it learns.
        file.chmod(0o666)

    def start(self) -> None:
        self._process = self._spawn("redis-server", str(self.data / "sentinel.conf"), "--sentinel")
        until(lambda: direct(self.url).ping(), "the sentinel answers")


@contextmanager
def private_sentinel() -> Iterator[tuple[PrivateSentinel, list[PrivateRedis]]]:
    """Run a sentinel, and the master and the replica that it watches."""
    with ExitStack() as stack:
        master = stack.enter_context(private_redis())
        replica = stack.enter_context(private_redis("--replicaof", f"127.0.0.1 {master.port}"))

        # A sentinel asks for replicas when it starts, and then every ten seconds.
        until(lambda: _link(replica) == "up", "the replica follows")

        class Sentinel(PrivateSentinel):
            watched = master

        sentinel = stack.enter_context(private(Sentinel))
        with direct(sentinel.url) as client:
            until(lambda: len(client.sentinel_slaves("main")) == 1, "the sentinel knows the replica")
        yield sentinel, [master, replica]


def _link(replica: PrivateRedis) -> str:
    with direct(replica.url) as client:
        return str(client.info("replication")["master_link_status"])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
