"""Is said of a real Redis what is unsafe about it, and about how it is reached?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from django.core.checks import run_checks

from django_tasks.backends.redis import RedisBroker
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import BrokerUnavailable, StoreUnavailable
from django_tasks.redis_fitness import has_hole
from django_tasks.results.redis import RedisStore
from tests import redises
from tools.servers import PrivateRedis

USUAL = {"W111"}
"""A private server has no append-only file. What its release has of holes is not for these tests to say."""

# Where no interface has this address, the server lets go of it without a word.
BEYOND = "127.0.0.1 -192.0.2.1"


def ids(told: Diagnosis) -> set[str]:
    return {str(message.id).removeprefix("django_tasks.") for message in told.found} - {"W113"}


def message(told: Diagnosis, name: str) -> str:
    [found] = [each for each in told.found if each.id == f"django_tasks.{name}"]
    assert found.hint
    return str(found.msg)


@contextmanager
def configured(client: redis.Redis, **settings: Any) -> Iterator[None]:
    names = {name: name.replace("_", "-") for name in settings}
    before = {name: str(client.config_get(names[name])[names[name]]) for name in settings}
    try:
        for name, value in settings.items():
            client.config_set(names[name], value)
        yield
    finally:
        for name, value in before.items():
            client.config_set(names[name], value)


def store(location: str, **options: Any) -> RedisStore:
    return RedisStore("default", {"LOCATION": location, "OPTIONS": options})


def asked_so_far(client: redis.Redis) -> int:
    """Return how often the server was asked INFO, this time included."""
    return int(client.info("commandstats").get("cmdstat_info", {"calls": 0})["calls"]) + 1


@pytest.mark.django_db
def test_a_deployment_check_asks_no_server_what_it_has_just_said(
    redis_server: PrivateRedis, client: redis.Redis, settings: Any
) -> None:
    entry = {"default": {"BACKEND": "redis", "LOCATION": redis_server.url}}
    settings.DJANGO_TASKS = {"BROKERS": entry, "RESULTS": entry}
    databases = ["default"]
    for deploy in (False, True, True):
        before = asked_so_far(client)
        found = run_checks(tags=["django_tasks"], include_deployment_checks=deploy, databases=databases)
        assert "django_tasks.W111" in {one.id for one in found}
        # The other question is that of this test.
        assert asked_so_far(client) - before == 2


def test_a_server_says_what_it_is(redis_broker: RedisBroker, redis_server: PrivateRedis, client: redis.Redis) -> None:
    told = redis_broker.diagnose()
    version = client.info()["redis_version"]
    assert (told.what, told.where, told.remote) == (f"Redis {version}", redis_server.url, False)
    assert ids(told) == USUAL


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        pytest.param({"appendonly": "yes"}, set(), id="keeps a log"),
        pytest.param({"appendonly": "yes", "appendfsync": "always"}, set(), id="at once"),
        pytest.param({"appendonly": "yes", "appendfsync": "no"}, {"W117"}, id="keeps a log that reaches the disk late"),
        pytest.param({"appendfsync": "no"}, USUAL, id="keeps no log"),
        pytest.param({"maxmemory_policy": "allkeys-lru"}, {*USUAL, "E111"}, id="evicts"),
        pytest.param({"protected_mode": "no"}, USUAL, id="unprotected, on this machine alone"),
        pytest.param({"bind": BEYOND}, USUAL, id="protected, on more addresses"),
        pytest.param({"protected_mode": "no", "bind": BEYOND}, {*USUAL, "W114"}, id="open to all"),
    ],
)
def test_a_broker_finds_how_its_server_is_set_up(
    redis_broker: RedisBroker, client: redis.Redis, settings: dict[str, str], found: set[str]
) -> None:
    with configured(client, **settings):
        assert ids(redis_broker.diagnose()) == found


def test_a_password_closes_an_open_server(redis_server: PrivateRedis, client: redis.Redis) -> None:
    with configured(client, protected_mode="no", bind=BEYOND, requirepass="CANARY"):
        broker = redises.open_broker(redis_server.url.replace("//", "//:CANARY@"))
        told = broker.diagnose()
        broker.close()
    assert ids(told) == USUAL
    assert "CANARY" not in repr(told)


def test_a_full_memory_is_told_before_it_is_full(redis_broker: RedisBroker, client: redis.Redis) -> None:
    used = client.info("memory")["used_memory"]
    with configured(client, maxmemory=100 * used):
        assert ids(redis_broker.diagnose()) == USUAL
    with configured(client, maxmemory=used + used // 10):
        assert "of its memory is used" in message(redis_broker.diagnose(), "W116")


def test_a_file_that_cannot_be_written_is_told(
    redis_broker: RedisBroker, redis_server: PrivateRedis, client: redis.Redis
) -> None:
    in_the_way = redis_server.data / "dump.rdb" / "directory"
    in_the_way.mkdir(parents=True)
    redises.save(client)
    try:
        assert "rdb_last_bgsave_status" in message(redis_broker.diagnose(), "E114")
    finally:
        in_the_way.rmdir()
        in_the_way.parent.rmdir()
        redises.save(client)
    assert ids(redis_broker.diagnose()) == USUAL


def test_a_replica_is_no_place_to_write_to(redis_broker: RedisBroker, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "1")
    try:
        assert "replica of 127.0.0.1:1" in message(redis_broker.diagnose(), "E113")
    finally:
        client.replicaof("NO", "ONE")


def test_a_clock_that_is_off_is_told(redis_server: PrivateRedis, client: redis.Redis) -> None:
    broker = RedisBroker("default", {"LOCATION": redis_server.url}, clock=lambda: time.time() + 60)
    told = broker.diagnose()
    broker.close()
    assert "ahead of the server's" in message(told, "W154")


def test_a_user_with_few_rights_is_no_hindrance(redis_server: PrivateRedis, client: redis.Redis) -> None:
    client.execute_command("ACL", "SETUSER", "few", "on", ">secret", "-@all", "+ping")
    try:
        broker = redises.open_broker(redis_server.url.replace("//", "//few:secret@"))
        told = broker.diagnose()
        broker.close()
    finally:
        client.acl_deluser("few")
    assert (told.what, ids(told)) == ("Redis (which does not let this user ask INFO)", set())


def test_a_store_may_lose_results_where_a_broker_loses_nothing(redis_server: PrivateRedis, client: redis.Redis) -> None:
    with configured(client, maxmemory_policy="volatile-lru"):
        assert ids(store(redis_server.url).diagnose()) == {"W112"}
    assert ids(store(redis_server.url).diagnose()) == set()


def test_a_server_that_does_not_answer_raises_what_the_contract_says() -> None:
    with pytest.raises(BrokerUnavailable, match="127.0.0.1:1"):
        redises.open_broker(redises.NOWHERE).diagnose()
    with pytest.raises(StoreUnavailable, match="127.0.0.1:1"):
        store(redises.NOWHERE).diagnose()


@pytest.mark.parametrize(
    ("location", "found"),
    [
        pytest.param("redis://redis.example.com", {"W114", "W115"}, id="open and in clear"),
        pytest.param("redis://:secret@10.0.0.7/1", {"W115"}, id="in clear"),
        pytest.param("rediss://redis.example.com", {"W114"}, id="open"),
        pytest.param("rediss://user:secret@redis.example.com", set(), id="safe"),
        pytest.param("redis://localhost", set(), id="this machine"),
        pytest.param("unix:///run/redis/redis.sock", set(), id="a socket"),
        pytest.param("redis+sentinel://localhost,10.0.0.7/main", {"W114", "W115"}, id="one sentinel elsewhere"),
        pytest.param("rediss+sentinel://:secret@10.0.0.7/main", set(), id="safe sentinels"),
        pytest.param("redis+cluster://:secret@redis.example.com", {"W115"}, id="a cluster in clear"),
        pytest.param("rediss+cluster://u:secret@redis.example.com", set(), id="a safe cluster"),
    ],
)
def test_how_a_server_is_reached_is_judged_without_asking_it(location: str, found: set[str]) -> None:
    for told in (redises.open_broker(location).diagnose(ask=False), store(location).diagnose(ask=False)):
        assert ids(told) == found
        assert "secret" not in repr(told)


def test_a_password_beside_the_location_counts_too() -> None:
    broker = redises.open_broker("rediss://redis.example.com", CONNECTION={"password": "secret"})
    assert ids(broker.diagnose(ask=False)) == set()


@pytest.mark.parametrize(
    ("product", "version", "hole"),
    [
        ("Redis", "6.0.20", True),
        ("Redis", "6.2.19", True),
        ("Redis", "6.2.20", False),
        ("Redis", "7.0.15", True),
        ("Redis", "7.2.10", True),
        ("Redis", "7.2.11", False),
        ("Redis", "7.4.5", True),
        ("Redis", "8.0.4", False),
        ("Redis", "8.2.1", True),
        ("Redis", "8.4.0", False),
        ("Redis", "255.255.255", False),
        ("Redis", "?", False),
        ("Valkey", "8.0.5", True),
        ("Valkey", "8.1.4", False),
        ("Valkey", "9.0.0", False),
    ],
)
def test_releases_with_a_known_hole_are_known(product: str, version: str, hole: bool) -> None:
    assert has_hole(product, version) is hole
