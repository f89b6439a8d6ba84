"""Does a worker on Redis outlive every message, and whose clock does it go by?"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_tasks import AsyncResult, bulk, states
from django_tasks.backends.redis import RedisBroker
from django_tasks.backends.redis_entries import RANK, packed
from django_tasks.connections import brokers, results
from django_tasks.message import Delivery, Message, new_id
from django_tasks.testing.contracts.harness import ids, sample, samples
from tests import redises
from tests.integration.stage import PATIENCE, Meanwhile, build, burst, hold, note, retry_twice, stage
from tests.redises import take
from tools.servers import PrivateRedis

MUTATIONS = 200
STAMPS = b"0" * RANK + b"1" * RANK
"""The rank and the time of publication of a message."""
HOUR = 3600.0
ODD: list[Any] = [
    [],
    "retries",
    {"retries": -1},
    {"retries": "2"},
    {"timelimit": {"hard": 1}},
    {"timelimit": [[], {}]},
    {"expires": "tomorrow"},
    {"content_type": "application/x-nothing"},
    {"content_encoding": "klingon"},
    {"compression": "application/x-gzip"},
    {"signature": 5},
    {"group_index": 10**400},
    {f"h{number}": number for number in range(10_000)},
    {"deep": [[[[[[]]]]]], "\ud800": "\x00"},
]
"""Headers as they should not be."""


@pytest.fixture
def broker(redis_broker: RedisBroker) -> RedisBroker:
    return redis_broker


def noting(**fields: Any) -> Message:
    return Message(id=new_id(), task=note.name, body=b"[[1], {}, {}]", **fields)


# What others put there


def mutated(rng: random.Random) -> bytes:
    """Return what is kept of a message, with something wrong about it."""
    message = noting(headers={"n": "x" * rng.randrange(20)}, time_limit=5.0)
    whole = STAMPS + packed(message)
    place, length = rng.randrange(len(whole)), rng.randrange(1, 40)
    changes: list[Callable[[], bytes]] = [
        lambda: whole[:place],
        lambda: whole[:place] + bytes([rng.randrange(256)]) + whole[place + 1 :],
        lambda: whole[:place] + rng.randbytes(length) + whole[place:],
        lambda: whole[:place] + whole[place + length :],
        lambda: STAMPS + with_headers(message, rng.choice(ODD)),
        lambda: STAMPS + packed(replace(message, body=rng.randbytes(5 * length))),
        lambda: STAMPS + packed(replace(message, body=b"[" * 2_000 * length)),
        lambda: STAMPS + packed(replace(message, task=rng.choice(["", "\ud800", "no.such.task", "x" * 300]))),
        lambda: rng.randbytes(5 * length),
    ]
    return rng.choice(changes)()


def with_headers(message: Message, odd: Any) -> bytes:
    """Return a message as it is kept, with headers of which nobody has looked whether they can be."""
    plain = packed(replace(message, headers={}, time_limit=None))
    text = repr(odd).replace("'", '"').encode("ascii", "backslashreplace")
    queue, task = message.queue.encode(), message.task.encode()
    start = len(plain) - len(message.body) - len(b"{}")
    fixed = plain[: start - len(queue) - len(task)]
    lengths = fixed[:4] + len(text).to_bytes(4) + fixed[8:]
    return lengths + queue + task + text + message.body


@pytest.mark.django_db(transaction=True)
def test_two_hundred_broken_messages_end_visibly_and_hold_up_no_good_one(on_redis: redis.Redis):
    seed = time.time_ns()
    print("seed", seed)
    rng = random.Random(seed)
    bad: dict[Any, Any] = {f"bad-{number}": mutated(rng) for number in range(MUTATIONS)}
    on_redis.hset("q:messages", mapping=bad)
    on_redis.zadd("q:{default}:ready", dict.fromkeys(bad, rng.randrange(10)))
    good = bulk(note.s(number) for number in range(20))
    worker = burst()
    assert [handle.get(0) for handle in good] == list(range(20))
    assert worker.processed >= MUTATIONS + 20
    found = results["default"].get(list(bad))
    assert set(found) == set(bad)
    assert all(result.final for result in found.values())
    # Most can be no task; a few changes say nothing, or still say something that can be run.
    failed = [result for result in found.values() if result.state == states.FAILURE]
    assert len(failed) > MUTATIONS / 2
    assert redises.is_empty(on_redis)


@pytest.mark.django_db(transaction=True)
def test_a_body_that_would_fill_the_memory_is_refused(on_redis: redis.Redis):
    bomb = zlib.compress(b"[[" + b"0," * 10_000_000 + b"0], {}, {}]")
    message = replace(noting(), body=bomb, compression="application/x-gzip")
    brokers["default"].publish([message])
    after = note.delay(2)
    burst()
    assert after.get(0) == 2
    refused = results["default"].get([message.id])[message.id]
    assert refused.state == states.FAILURE
    assert refused.failure is not None
    assert refused.failure.type == "DecodeError"
    assert stage.begun == [after.id]


class Watching(RedisBroker):
    """Tells with which headers each message came."""

    seen: list[dict[str, Any]] = []

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        found = super().fetch(queues, limit, lease=lease, consumer=consumer)
        Watching.seen += [dict(one.message.headers) for one in found]
        return found


@pytest.mark.django_db(transaction=True)
def test_headers_that_a_newer_version_writes_come_through_a_run_and_its_retries(
    redis_server: PrivateRedis, client: Any
):
    newer = {"colour": "blue", "shards": [1, {"two": None}], "django_tasks_next": {"version": 3}}
    told = redises.settings_of(redis_server)
    told["BROKERS"] = {"default": {**told["BROKERS"]["default"], "BACKEND": f"{__name__}.Watching"}}
    Watching.seen.clear()
    stage.clear()
    with override_settings(DJANGO_TASKS=told):
        message = replace(noting(), task=retry_twice.name, body=b"[[], {}, {}]", headers=newer)
        brokers["default"].publish([message])
        burst()
        assert AsyncResult(message.id).get(0) == 2
        brokers.close()
        results.close()
    assert Watching.seen == [newer] * 3


@pytest.mark.django_db(transaction=True)
def test_an_id_that_is_sent_again_while_it_waits_and_while_it_runs_runs_once(on_redis: redis.Redis):
    def story() -> None:
        stage.until(lambda: len(stage.begun) == 1)
        again = hold.apply_async(task_id="the-one")
        stage.gate.set()
        assert again.get(PATIENCE) == 1
        assert note.delay(3).get(PATIENCE) == 3
        worker.stop()

    for _ in range(2):
        hold.apply_async(task_id="the-one")
    worker = build()
    Meanwhile(worker, story)
    assert stage.begun.count("the-one") == 1
    assert redises.is_empty(on_redis)


# Storms


def test_thousands_that_lost_their_leases_come_back_once_each(broker: RedisBroker, redis_server: PrivateRedis):
    sent = samples(5_000)
    broker.publish(sent)
    lost = take(broker, 5_000)
    redises.elapse("q", 31.0, redis_server.url)
    found = []
    while held := take(broker, 300):
        assert len(held) <= 300
        found += held
    assert sorted(ids(found)) == sorted(ids(sent))
    assert {one.deliveries for one in found} == {2}
    assert broker.ack(lost) == []
    assert len(broker.ack(found)) == 5_000


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_starts_while_the_server_is_down_begins_when_it_is_up():
    stage.clear()
    with redises.private_redis() as server, override_settings(DJANGO_TASKS=redises.settings_of(server)):
        server.stop()
        worker = build()

        def story() -> None:
            redises.until(lambda: worker._backoff._failures, "the worker has found out")
            server.start()
            assert note.delay(4).get(PATIENCE) == 4
            worker.stop()

        Meanwhile(worker, story)
        brokers.close()
        results.close()


# Clocks


@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_worker_whose_clock_is_off_takes_nothing_too_early_and_loses_nothing(off: float, broker: RedisBroker):
    params = {"LOCATION": broker.location, "OPTIONS": broker.options}
    wrong = RedisBroker("default", params, clock=lambda: time.time() + off)
    eta = datetime.now(UTC) + timedelta(minutes=30)
    broker.publish([*samples(1), replace(sample(), countdown=60.0), replace(sample(), eta=eta)])
    wrong.publish([replace(sample(), countdown=60.0)])
    held = take(wrong)
    assert len(held) == 1
    assert take(broker) == []
    [stats] = wrong.stats(["default"])
    assert (stats.ready, stats.delayed, stats.leased) == (0, 3, 1)
    assert wrong.extend(held, 30.0) == held
    assert take(broker) == []
    assert wrong.ack(held) == held
    wrong.close()
