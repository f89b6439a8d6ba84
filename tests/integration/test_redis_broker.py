"""What does the Redis broker do when its server, its connection or somebody else misbehaves?"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import redis

from django_tasks.backends.redis import RedisBroker
from django_tasks.backends.redis_entries import packed
from django_tasks.exceptions import BrokerUnavailable, ConfigurationError
from django_tasks.protocol import MALFORMED
from django_tasks.results.redis import RedisStore
from django_tasks.testing.contracts.harness import ids, sample, samples
from tests import redises
from tests.redises import open_broker, take
from tools.servers import PrivateRedis

DOCS = Path(__file__).parents[2] / "docs"
PATIENCE = 20.0

Verb = Callable[[RedisBroker], Any]


@pytest.fixture
def server(redis_server: PrivateRedis) -> PrivateRedis:
    return redis_server


@pytest.fixture
def broker(redis_broker: RedisBroker) -> RedisBroker:
    return redis_broker


# What it costs


def calls(client: redis.Redis) -> dict[str, int]:
    return {name: told["calls"] for name, told in client.info("commandstats").items()}


def costs(client: redis.Redis, action: Callable[[], object]) -> tuple[int, int]:
    """Return how many scripts something ran, and how many commands those were inside."""
    before = calls(client)
    action()
    after = calls(client)
    spent = {name: count - before.get(name, 0) for name, count in after.items()}
    ours = spent.pop("cmdstat_evalsha", 0) + spent.pop("cmdstat_eval", 0)
    spent.pop("cmdstat_info", 0)
    return ours, sum(spent.values())


def test_each_verb_is_one_round_trip_whatever_the_number_of_messages_and_queues(broker, client):
    broker.discard(["each script is sent once, and known by its name from then on"])
    warm = samples(4)
    broker.publish(warm)
    broker.nack(take(broker, 1))
    broker.extend(held := take(broker, 1), 30)
    broker.replace([(one, one.message) for one in held])
    broker.ack(take(broker))
    queues = ["a", "b", "c", "d"]
    sent = [sample(queues[number % 4]) for number in range(1_000)]
    held = []
    told = {
        "publish": costs(client, lambda: broker.publish(sent)),
        "fetch": costs(client, lambda: held.extend(broker.fetch(queues, 1_000, lease=30, consumer="w"))),
        "extend": costs(client, lambda: broker.extend(held, 30)),
        "nack": costs(client, lambda: broker.nack(held[500:])),
        "replace": costs(client, lambda: broker.replace([(one, one.message) for one in held[:500]])),
        "fetch what came back": costs(client, lambda: held.extend(take(broker, 1_000, *queues))),
        "ack": costs(client, lambda: broker.ack(held[1_000:])),
        "discard": costs(client, lambda: broker.discard(ids(sent))),
    }
    assert {verb: trips for verb, (trips, _) in told.items()} == dict.fromkeys(told, 1)
    # What leaves one queue and enters another is looked at one by one; all else is done to many at once.
    assert told.pop("replace")[1] <= 2 * 500 + 80
    assert max(inside for _, inside in told.values()) <= 80


def test_an_idle_worker_asks_less_than_twice_a_second(broker, client):
    broker.wait(["default", "mail"], 0.0, Event())
    began = time.monotonic()
    told = costs(client, lambda: [broker.wait(["default", "mail"], 0.25, Event()) for _ in range(8)])
    assert told[0] <= 1 + (time.monotonic() - began) / 1.6


def test_a_busy_worker_is_not_told_of_each_message(broker, client):
    """Notes in the line of a worker that has no time to read them would fill the server's memory."""
    broker.wait(["default"], 0.0, Event())
    published = calls(client).get("cmdstat_publish", 0)
    for _ in range(50):
        broker.publish(samples(1))
    assert calls(client)["cmdstat_publish"] - published == 1
    assert broker.wait(["default"], PATIENCE, Event())


# Who may come in


def acl_lines() -> list[list[str]]:
    """Return the commands of the page on Redis that make a user."""
    text = (DOCS / "how-to" / "redis.md").read_text().replace("\\\n", " ")
    return [line.split() for line in re.findall(r"^ACL SETUSER .+$", text, flags=re.MULTILINE)]


def test_a_user_with_the_rights_that_the_docs_name_can_do_all_and_no_more(server, client):
    [line] = acl_lines()
    client.execute_command(*line)
    client.acl_log_reset()
    user = line[2]
    password = next(word[1:] for word in line if word.startswith(">"))
    try:
        location = server.url.replace("//", f"//{user}:{password}@")
        broker = open_broker(location, "django_tasks")
        use_everything(broker)
        assert broker.check(["default"])[0].id == "django_tasks.W111"
        broker.close()
        groups = RedisStore("default", {"LOCATION": location}).groups
        assert groups is not None
        redises.keep_groups(groups)
        assert client.acl_log() == []
        elsewhere = open_broker(location, "other")
        with pytest.raises(BrokerUnavailable, match="No permission|NOPERM|no permissions"):
            elsewhere.publish(samples(1))
        elsewhere.close()
        with redises.direct(location) as limited:
            for words in (("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("GET", "secret")):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    limited.execute_command(*words)
    finally:
        client.acl_deluser(user)


def use_everything(broker: RedisBroker) -> None:
    stop = Event()
    broker.wait(["default"], 0.0, stop)
    broker.publish([*samples(6), replace(sample(), countdown=3600), replace(sample("mail"), countdown=0.01)])
    assert broker.wait(["default"], PATIENCE, stop)
    held = take(broker, 4)
    assert broker.extend(held, 60) == held
    assert broker.ack(held[:1]) == held[:1]
    assert broker.nack(held[1:2], spent=True) == held[1:2]
    assert broker.nack(held[2:3], delay=60) == held[2:3]
    assert broker.replace([(held[3], held[3].message)]) == held[3:]
    assert [(one.queue, one.ready + one.delayed) for one in broker.stats()] == [("default", 6), ("mail", 1)]
    assert len(broker.peek("default", 10)) == 6
    assert len(broker.discard(ids(held))) == 3
    assert broker.purge("default") == 3


def test_a_password_is_never_told(server):
    broker = open_broker("redis://user:CANARY@127.0.0.1:1", "q")
    with pytest.raises(BrokerUnavailable) as caught:
        broker.publish(samples(1))
    assert "CANARY" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    wrong = open_broker(server.url.replace("//", "//nobody:CANARY@"), "q")
    with pytest.raises(BrokerUnavailable) as caught:
        wrong.publish(samples(1))
    assert "CANARY" not in str(caught.value)


# Servers that are not fit


def test_a_server_that_evicts_messages_is_refused():
    with redises.broker_on_its_own("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as (server, broker):
        assert [found.id for found in broker.check(["default"])] == ["django_tasks.E111", "django_tasks.W111"]
        assert broker.check() == []
        with pytest.raises(ConfigurationError, match="allkeys-lru"):
            take(broker)
        with redises.direct(server.url) as client:
            # Takes keys alone that end some day; no message does.
            client.config_set("maxmemory-policy", "volatile-lru")
        assert take(broker) == []


def test_a_server_that_keeps_its_data_is_fit(caplog):
    with redises.broker_on_its_own("--appendonly", "yes") as (_, broker):
        assert broker.check(["default"]) == []
        assert take(broker) == []
    assert "keeps nothing" not in caplog.text


def test_a_server_that_keeps_nothing_is_said_to_once(broker, caplog):
    for _ in range(3):
        take(broker)
    assert caplog.text.count("keeps nothing") == 1


def test_a_server_that_does_not_answer_has_no_findings():
    assert open_broker(redises.NOWHERE, "q").check(["default"]) == []


# Keys that somebody else wrote


def test_what_is_no_message_comes_out_as_one_that_says_so(broker, client):
    good = samples(3)
    broker.publish(good)
    whole = client.hget("q:messages", good[0].id)
    assert whole is not None
    bad = {f"cut{length}": whole[:length] for length in (0, 1, 15, 16, 31, 32, 33, 40, 49, 50, 51, 60, len(whole) - 30)}
    bad |= {
        "text": b"not a message at all, though it is long enough to be one of them",
        "headers": whole.replace(b"{}", b"{]", 1),
        "time": whole[:16] + b"9" * 16 + whole[32:],
        "lengths": whole[:32] + b"\xff" * 18 + whole[50:],
        "rank": b"x" * 16 + whole[16:],
    }
    bad |= {f"byte{place}": whole[:place] + b"\xfe" + whole[place + 1 :] for place in range(0, 60, 3)}
    # Some of these can still be read, and are then messages.
    client.hset("q:messages", mapping=bad)
    client.zadd("q:{default}:ready", dict.fromkeys(bad, -1))
    client.zadd("q:{default}:ready", {b"\xff\xfe id": -1, "no message": 0})
    client.zadd("q:{default}:delayed", {"short": 1, b"\xff" * 20: 2})
    client.zadd("q:{default}:leased", {"lost": 1})
    expected = {*bad, "no message", "short", "lost", *ids(good)}
    broker.stats()
    broker.peek("default", 100)
    held = take(broker, 1000)
    assert expected <= {one.message.id for one in held}
    assert len(held) == len(expected) + 2
    odd = [one for one in held if one.message.content_type == MALFORMED]
    assert len(odd) > 25
    assert all(one.message.queue == "default" for one in odd)
    assert broker.nack(odd[:5]) == odd[:5]
    assert broker.ack(odd[5:]) == odd[5:]
    assert broker.ack(take(broker, 1000))
    assert {one.message.id for one in held if one.message.content_type != MALFORMED} >= set(ids(good))


def test_a_message_of_a_newer_version_comes_through(broker):
    newer = replace(sample(), headers={"colour": "blue"})
    assert b"colour" in packed(newer)
    broker.publish([newer])
    [held] = take(broker)
    assert dict(held.message.headers) == {"colour": "blue"}


def test_queues_whose_names_hold_braces_are_apart(broker):
    names = ["{", "}", "{}", "a}b", "a{b}", "%7B"]
    broker.publish([sample(name) for name in names])
    assert sorted(one.queue for one in broker.stats()) == sorted(names)
    for name in names:
        held = take(broker, 10, name)
        assert [one.message.queue for one in held] == [name]
        broker.ack(held)
    assert broker.stats() == []


def test_what_was_flushed_is_held_by_nobody(broker, client):
    broker.publish(samples(2))
    held = take(broker)
    client.flushall()
    assert broker.ack(held) == []
    assert take(broker) == []
    broker.publish(samples(1))
    assert len(take(broker)) == 1


# Settings


@pytest.mark.parametrize(
    ("location", "options", "says"),
    [
        ("", {}, "LOCATION says nothing"),
        ("nothing", {}, "CACHES has no 'nothing'"),
        ("http://127.0.0.1", {}, "begins with 'http'"),
        ("redis+sentinel://127.0.0.1:26379", {}, "must end in the name"),
        ("redis+cluster://127.0.0.1:7000/1", {}, "a cluster has no databases"),
        ("redis+cluster://127.0.0.1:7000?db=1", {}, "a cluster has no databases"),
        ("redis+cluster://", {}, "must be like"),
        ("redis+sentinel://:0/x?what=1", {}, "is not a host"),
        ("redis://127.0.0.1", {"PREFIX": "x"}, "has no option 'PREFIX'"),
        ("redis://127.0.0.1", {"KEY_PREFIX": "{x}"}, "without braces"),
    ],
)
def test_a_location_or_option_that_cannot_be_is_refused(location, options, says):
    with pytest.raises(ConfigurationError, match=says):
        RedisBroker("default", {"LOCATION": location, "OPTIONS": options})
