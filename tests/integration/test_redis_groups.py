"""What do groups in a Redis cost, how long are they kept, and what if somebody writes there or an answer is lost?"""

from __future__ import annotations

import itertools
import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
import redis
from django.test import override_settings

from django_tasks import bulk, chord, group, states
from django_tasks.backends.memory import MemoryBroker
from django_tasks.canvas.completion import complete
from django_tasks.connections import brokers, groups_of, results
from django_tasks.exceptions import Unroutable
from django_tasks.execution import Site, execute
from django_tasks.message import Delivery, Message, new_group_id
from django_tasks.plan import Group, Part, Plan
from django_tasks.redis_servers import Redis
from django_tasks.results.groups import GRACE, Groups
from django_tasks.results.redis_groups import RedisGroups
from django_tasks.results.redis_places import IDS, UNFINISHED
from django_tasks.sequel import following, sweep
from django_tasks.settlement import Done, Settlement
from tests import redises
from tests.canvas_tasks import add, note, same, told, tsum
from tests.integration.stage import build, burst
from tests.wires import cut_everywhere, wire_to
from tools.servers import PrivateRedis

DAY = timedelta(days=1)


@pytest.fixture
def groups(on_redis: redis.Redis) -> RedisGroups:
    found = groups_of()
    assert isinstance(found, RedisGroups)
    # Each script is sent once, and known by its name from then on.
    redises.keep_groups(found)
    return found


def scripts(client: redis.Redis, action: Callable[[], object]) -> int:
    """Return how many scripts something ran."""
    before = _scripts(client)
    action()
    return _scripts(client) - before


def _scripts(client: redis.Redis) -> int:
    told = client.info("commandstats")
    return sum(int(told.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "eval"))


def pass_time(server: PrivateRedis) -> None:
    redises.elapse("q", GRACE + 1, server.url)


def opened(groups: Groups, size: int) -> list[Part]:
    """Open a group; return how its members end."""
    group_id = new_group_id()
    groups.open([Group(group_id, size)])
    return [Part((group_id, index), f"t{index}", b"%d" % index) for index in range(size)]


# What it costs


@pytest.mark.django_db(transaction=True)
def test_settling_members_costs_the_same_for_one_and_for_five_hundred(on_redis, groups):
    settlement = Settlement(brokers["default"], results["default"], worker="w", lease=30)

    def settled(number: int) -> int:
        held = brokers["default"].fetch(["default"], number, lease=30, consumer="w")
        assert len(held) == number
        done = [(delivery, execute(delivery, Site())) for delivery in held]
        return scripts(on_redis, lambda: settlement.settle(done))

    bulk(chord([add.s(1, 1)] * 8, tsum.s()) for _ in range(150))
    settled(1)
    # Results, members, acknowledgements; and for those groups that end, their bodies and that they were sent.
    assert settled(6) == 3
    assert {settled(8), settled(500)} == {5}


def test_thousands_of_members_are_read_a_few_thousand_at_a_time(on_redis, groups):
    size = 12_000
    parts = opened(groups, size)
    assert groups.record(parts[:1]) == []
    assert scripts(on_redis, lambda: groups.record(parts[1:-1])) == size / 1000
    assert len(groups.record(parts[-1:])) == 1
    read: list[Any] = []
    group_id = parts[0].place[0]
    trips = math.ceil(size / IDS)
    assert scripts(on_redis, lambda: read.append(groups.values(group_id))) == trips
    assert read[0] == [part.value for part in parts]
    assert scripts(on_redis, lambda: read.append(groups.parts(group_id))) == trips
    assert read[1] == parts
    assert scripts(on_redis, lambda: groups.progress([group_id])) == 1


def test_large_values_are_read_in_several_answers(on_redis, groups):
    parts = [replace(part, value=bytes(17_000)) for part in opened(groups, 1_001)]
    groups.record(parts)
    read: list[Any] = []
    assert scripts(on_redis, lambda: read.append(groups.values(parts[0].place[0]))) == 2
    assert read == [[part.value for part in parts]]


def test_no_look_for_what_was_not_fired_goes_through_all_keys(redis_server, on_redis, groups):
    for _ in range(3):
        groups.record(opened(groups, 1))
    pass_time(redis_server)
    on_redis.config_resetstat()
    assert len(groups.unfired()) == 3
    told = on_redis.info("commandstats")
    assert not {"cmdstat_keys", "cmdstat_scan", "cmdstat_hgetall"} & set(told)
    assert told["cmdstat_zrange"]["calls"] == 1


# How long they are kept


def life(client: redis.Redis, key: str) -> timedelta:
    return timedelta(milliseconds=client.pttl(key))


@pytest.mark.parametrize("expires", [DAY, None])
def test_a_group_ends_by_itself_but_not_before_it_was_fired(redis_server: PrivateRedis, client, expires):
    results_of = {"BACKEND": "redis", "LOCATION": redis_server.url, "OPTIONS": {"KEY_PREFIX": "q", "EXPIRES": expires}}
    with override_settings(DJANGO_TASKS={"RESULTS": {"default": results_of}}):
        groups = groups_of()
        first, second = opened(groups, 2)
        keys = [f"q:group:{first.place[0]}", f"q:parts:{first.place[0]}"]
        groups.record([first])
        groups.record([second])
        lives = [life(client, key) for key in keys]
        groups.fired([first.place[0]])
        after = [life(client, key) for key in keys]
        if expires is None:
            assert {*lives, *after} == {timedelta(milliseconds=-1)}
        else:
            assert all(DAY + UNFINISHED - timedelta(minutes=1) < each <= DAY + UNFINISHED for each in lives)
            assert all(DAY - timedelta(minutes=1) < each <= DAY for each in after)
        assert groups.expire(datetime.now(UTC) + DAY) == 1
        assert client.keys("q:*") == []
        results.close()


def test_groups_that_have_gone_leave_no_names_behind(redis_server, on_redis, groups):
    fired, unfired = opened(groups, 1), opened(groups, 1)
    groups.record([*fired, *unfired])
    groups.fired([fired[0].place[0]])
    on_redis.delete(*on_redis.keys("q:group:*"), *on_redis.keys("q:parts:*"))
    pass_time(redis_server)
    assert groups.unfired() == []
    assert groups.expire(datetime.now(UTC) + DAY) == 0
    assert on_redis.keys("q:groups:*") == []


# What if


def test_a_group_whose_answer_is_cut_is_given_all_the_same_and_once(redis_server, on_redis, groups):
    with wire_to("127.0.0.1", redis_server.port) as wire:
        entry = {"BACKEND": "redis", "LOCATION": f"redis://127.0.0.1:{wire.port}", "OPTIONS": {"KEY_PREFIX": "q"}}
        with override_settings(DJANGO_TASKS={"RESULTS": {"default": entry}}):
            cut = groups_of()
            for parts, ended in cut_everywhere(wire, lambda: opened(groups, 2), cut.record, step=3):
                assert [each.group.id for each in ended] == [parts[0].place[0]]
                assert groups.record(parts) == []
            results.close()


def forge_body(client: redis.Redis, task: bytes) -> str:
    """Send a chord, and have somebody put another task in place of its body; return the id of that."""
    sent = chord([add.s(1, 1)], same.s()).apply_async()
    [key] = client.keys("q:group:*")
    plan: Any = client.hget(key, "t")
    assert b"canvas_tasks.same" in plan
    client.hset(key, "t", plan.replace(b"canvas_tasks.same", task))
    burst()
    return str(sent.id)


@pytest.mark.django_db(transaction=True)
def test_what_follows_a_group_is_not_signed_for_somebody_else(redis_server, on_redis):
    store = redises.settings_of(redis_server)
    with override_settings(DJANGO_TASKS={**store, "REQUIRE_SIGNATURE": True}):
        sent = chord([add.s(1, 1)], tsum.s()).apply_async()
        burst()
        assert sent.get(0.1) == 2
        on_redis.flushall()
        forged = forge_body(on_redis, b"canvas_tasks.tsum")
        kept = results["default"].get([forged])[forged]
        assert (kept.state, kept.failure and kept.failure.type) == (states.FAILURE, "SignatureError")
        assert brokers["default"].stats() == []
        results.close()
        brokers.close()


@pytest.mark.django_db(transaction=True)
def test_a_record_that_cannot_be_read_stops_nobody(on_redis, groups):
    odd, fine = group(add.s(1, 1)).apply_async(), chord([add.s(1, 1)], tsum.s()).apply_async()
    on_redis.hset(f"q:group:{odd.id}", mapping={"n": "many", "e": "never", "x": "y", "w": "z"})
    burst()
    assert fine.get(0.1) == 2
    assert groups.progress([odd.id]) == {}
    assert groups.parts(odd.id) == []
    [part] = opened(groups, 1)
    on_redis.hset(f"q:group:{part.place[0]}", mapping={"t": "no plan", "o": "5", "p": b"\xff"})
    [ended] = groups.record([part])
    assert (ended.group.then, ended.group.place, ended.vouched) == (Plan(), None, False)
    on_redis.hset(f"q:parts:{part.place[0]}", "0", "no part")
    assert groups.parts(part.place[0]) == []
    assert groups.values(part.place[0]) is None
    on_redis.zadd("q:groups:unfired", {b"\xff": 0, "unknown": 0})
    assert groups.unfired() == []


# After a crash


@pytest.fixture(params=["memory", "database", "redis"])
def elsewhere(request: Any, redis_server: PrivateRedis, client: redis.Redis) -> Iterator[redis.Redis]:
    """Have results in Redis, and messages there or in another place."""
    both = redises.settings_of(redis_server)
    broker = both["BROKERS"]["default"] if request.param == "redis" else {"BACKEND": request.param}
    with override_settings(DJANGO_TASKS={**both, "BROKERS": {"default": broker}}), ExitStack() as stack:
        stack.callback(brokers.close)
        stack.callback(results.close)
        yield client
        brokers["default"].purge("default")


def run_member(delivery: Delivery) -> Plan:
    """Run a member of a group; return what is to be written of its end in its group."""
    return following(delivery.message, execute(delivery, Site()))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("sent", [False, True], ids=["before the body was sent", "after the body has run"])
def test_a_worker_that_dies_once_the_last_member_is_recorded_leaves_the_body_to_a_sweep(redis_server, elsewhere, sent):
    whole = chord([add.s(1, 1), add.s(2, 2)], tsum.s()).apply_async()
    held = brokers["default"].fetch(["default"], 10, lease=30, consumer="w")
    plans = [run_member(delivery) for delivery in held]
    done = complete(groups_of(), [part for plan in plans for part in plan.parts])
    brokers["default"].ack(held)
    assert [message.id for message in done.messages] == [whole.id]
    if sent:
        # It dies before it has said that it was.
        brokers["default"].publish(done.messages)
        burst()
        assert whole.get(0.1) == 6
    worker = build()
    assert worker.maintenance.press() == 0, "whoever has recorded it is at it"
    pass_time(redis_server)
    assert worker.maintenance.press() == 1
    assert burst().processed == (0 if sent else 1)
    assert whole.get(0.1) == 6
    pass_time(redis_server)
    assert worker.maintenance.press() == 0


def settle_and_die(done: Sequence[Done], at: int) -> int:
    """Settle in a process that is killed before the script of that number; return the signal it died of."""
    with warnings.catch_warnings():
        # Other threads of this process mean nothing to the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        numbers, run = itertools.count(), Redis.run

        def run_or_die(*args: Any, **kwargs: Any) -> Any:
            if next(numbers) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return run(*args, **kwargs)

        try:
            Redis.run = run_or_die  # type: ignore[method-assign]
            Settlement(brokers["default"], results["default"], worker="w", lease=30).settle(done)
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.django_db(transaction=True)
def test_the_body_runs_once_wherever_a_worker_is_killed(redis_server, on_redis, groups):
    killed = 0
    for at in itertools.count():
        told.clear()
        whole = chord([add.s(1, 1), add.s(2, 2)], note.s()).apply_async()
        held = brokers["default"].fetch(["default"], 10, lease=30, consumer="w")
        done = [(delivery, execute(delivery, Site())) for delivery in held]
        died_of = settle_and_die(done, at)
        redises.elapse("q", GRACE + 1, redis_server.url)
        burst()
        build().maintenance.press()
        burst()
        assert (whole.get(0.1), told) == ([[2, 4]], [[[2, 4]]])
        assert groups.unfired() == []
        assert [stats.ready + stats.leased for stats in brokers["default"].stats()] in ([], [0])
        if died_of == 0:
            break
        assert died_of == signal.SIGKILL
        killed += 1
    # Before results, members, body, its being said, and acknowledgements.
    assert killed == 5


class Unroutables(MemoryBroker):
    """Has no queue for one task."""

    refused: ClassVar[str] = ""

    def publish(self, messages: Sequence[Message]) -> None:
        if any(message.id == self.refused for message in messages):
            raise Unroutable("no queue for it", [self.refused])
        super().publish(messages)


@pytest.mark.django_db(transaction=True)
def test_a_body_that_no_queue_takes_holds_up_no_other(redis_server, on_redis, monkeypatch, caplog):
    broker = {"BACKEND": f"{__name__}.Unroutables"}
    with override_settings(DJANGO_TASKS={**redises.settings_of(redis_server), "BROKERS": {"default": broker}}):
        sent = [chord([add.s(1, 1)], tsum.s()).apply_async() for _ in range(3)]
        monkeypatch.setattr(Unroutables, "refused", sent[1].id)
        held = brokers["default"].fetch(["default"], 10, lease=30, consumer="w")
        complete(groups_of(), [part for delivery in held for part in run_member(delivery).parts])
        brokers["default"].ack(held)
        pass_time(redis_server)
        assert sweep(results["default"]) == 2
        burst()
        assert [handle.state for handle in sent] == [states.SUCCESS, states.PENDING, states.SUCCESS]
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
            "What follows a group could not be sent; trying again later"
        ]
        monkeypatch.setattr(Unroutables, "refused", "")
        pass_time(redis_server)
        assert sweep(results["default"]) == 1
        burst()
        assert sent[1].get(0.1) == 2
        brokers.close()
        results.close()
