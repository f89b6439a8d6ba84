"""Is it seen, and told once, that a Redis has forgotten what it was given?"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.test import override_settings
from django.utils import timezone

from django_tasks import signals
from django_tasks.backends.redis import RedisBroker
from django_tasks.connections import brokers, results
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.losses import RECENT, Loss, recent, watch
from django_tasks.models import ServerMark
from django_tasks.testing.contracts.harness import samples
from tests import redises
from tests.integration.stage import Meanwhile, Recorder, build, stage, until
from tests.wires import wire_to
from tools.servers import PrivateRedis

pytestmark = pytest.mark.django_db(transaction=True)

USING = "default"


def looked(broker: RedisBroker) -> list[Loss]:
    return watch(broker, ["default"], USING)


def told(broker: RedisBroker) -> list[Loss]:
    return list(recent(broker, ["default"], USING))


def test_a_server_that_was_emptied_is_told_of_once(redis_broker: RedisBroker, client: redis.Redis):
    assert [looked(redis_broker) for _ in range(3)] == [[], [], []]
    assert told(redis_broker) == []
    before = datetime.now(UTC)
    client.flushall()
    # An operator who looks first takes nothing from those who are told.
    assert [loss.since for loss in told(redis_broker)] == [None]
    [loss] = looked(redis_broker)
    assert (loss.broker, loss.since) == ("default", None)
    assert abs(loss.until - before) < timedelta(seconds=20)
    assert f"{loss.until:%Y-%m-%d %H:%M:%S} UTC and had not ended is gone" in str(loss)
    assert [looked(redis_broker) for _ in range(3)] == [[], [], []]
    assert told(redis_broker) == [loss]
    ServerMark.objects.update(lost_at=timezone.now() - RECENT)
    assert told(redis_broker) == []


def test_of_several_who_look_one_tells(redis_broker: RedisBroker, client: redis.Redis):
    other = redises.open_broker(redis_broker.location)
    assert [looked(one) for one in (redis_broker, other) for _ in range(5)] == [[]] * 10
    client.flushall()
    assert sum(len(looked(one)) for one in (redis_broker, other)) == 1
    other.close()


def test_a_server_that_is_as_it_was_before_says_since_when():
    with redises.broker_on_its_own() as (server, broker), redises.direct(server.url) as client:
        looked(broker)
        broker.publish(samples(2))
        client.save()
        kept = datetime.now(UTC)
        assert looked(broker) == []
        broker.publish(samples(2))
        server.stop(kill=True)
        server.start()
        [loss] = looked(broker)
        assert loss.since is not None
        assert timedelta(0) <= kept - loss.since < timedelta(seconds=20)
        assert "and what ended then may run again" in str(loss)
        assert looked(broker) == []


def test_a_server_with_a_log_loses_nothing_when_it_is_killed():
    with redises.broker_on_its_own("--appendonly", "yes") as (server, broker):
        for _ in range(2):
            assert looked(broker) == []
        server.stop(kill=True)
        server.start()
        assert looked(broker) == []


def test_a_replica_that_takes_over_and_lags_behind_is_told_of(redis_server: PrivateRedis, client: redis.Redis):
    with (
        redises.private_redis() as replica,
        redises.direct(replica.url) as second,
        wire_to("127.0.0.1", redis_server.port) as wire,
    ):
        broker = redises.open_broker(f"redis://127.0.0.1:{wire.port}")
        looked(broker)
        second.replicaof("127.0.0.1", redis_server.port)
        redises.until(lambda: second.hget("q:mark", "number") == b"1", "the replica has it too")
        second.replicaof("NO", "ONE")
        assert looked(broker) == []
        wire.target = "127.0.0.1", replica.port
        wire.bar()
        wire.reopen()
        [loss] = looked(broker)
        assert loss.since is not None
        broker.close()


def test_what_somebody_else_put_in_place_of_a_mark_stops_nobody(redis_broker: RedisBroker, client: redis.Redis):
    client.hset("q:mark", mapping={"number": 7, "at": "yesterday"})
    assert looked(redis_broker) == []
    assert looked(redis_broker) == []
    client.hset("q:mark", mapping={"number": 3, "at": 10**30})
    assert [loss.since for loss in told(redis_broker)] == [None]
    assert [loss.since for loss in looked(redis_broker)] == [None]
    client.set("q:mark", "nothing of the kind")
    with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
        looked(redis_broker)
    client.delete("q:mark")
    client.hset("q:mark", "number", "nothing of the kind")
    assert len(told(redis_broker)) == 1


@pytest.fixture
def on_own_redis() -> Iterator[PrivateRedis]:
    """Have messages and results on a Redis that keeps nothing on its disk."""
    stage.clear()
    with redises.private_redis() as server, override_settings(DJANGO_TASKS=redises.settings_of(server)):
        yield server
        brokers.close()
        results.close()


def test_a_worker_and_the_doctor_tell_that_a_restarted_server_lost_what_it_had(
    on_own_redis: PrivateRedis, logged: Recorder
):
    worker = build()
    worker.maintenance.interval = 0.05
    heard: list[Loss] = []

    def hear(losses: list[Loss], **_: Any) -> None:
        heard.extend(losses)

    def story() -> None:
        until(lambda: ServerMark.objects.filter(number__gt=1).exists())
        on_own_redis.stop(kill=True)
        on_own_redis.start()
        until(lambda: bool(heard))
        number = ServerMark.objects.get().number
        until(lambda: ServerMark.objects.get().number > number)
        worker.stop()

    signals.messages_lost.connect(hear)
    try:
        Meanwhile(worker, story)
    finally:
        signals.messages_lost.disconnect(hear)
    [loss] = heard
    assert loss.since is None
    said = io.StringIO()
    call_command("tasks", "doctor", "--json", stdout=said)
    found = [one for place in json.loads(said.getvalue())["places"] for one in place["found"]]
    [message] = [one["message"] for one in found if one["id"] == "django_tasks.W163"]
    assert message == str(loss)
