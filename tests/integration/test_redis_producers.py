"""Do those who send to Redis keep apart what belongs to each, whatever happens to them meanwhile?"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import warnings
from asyncio import Semaphore
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from asgiref.sync import ThreadSensitiveContext

from django_tasks import AsyncResult, signals, states
from django_tasks.backends.redis import RedisBroker
from django_tasks.connections import brokers, results
from django_tasks.message import new_id
from django_tasks.plan import Result
from django_tasks.protocol import MALFORMED
from django_tasks.testing.contracts.harness import ids, samples, together
from tests.integration.stage import note
from tests.redises import take

CANCELS = 2_000
"""Ten thousand say no more, and take five times as long."""
AT_ONCE = 50


def kept(number: int) -> str:
    """Keep a result whose value is its number; return its id."""
    ended = Result(id=new_id(), state=states.SUCCESS, value=b"%d" % number, task="t", ended_at=datetime.now(UTC))
    results["default"].save([ended])
    return ended.id


@asynccontextmanager
async def requests() -> AsyncIterator[list[Context]]:
    """Give the contexts of requests that are handled at once: what each sends goes through a thread of its own. They
    are used again and again, since to start that thread takes longer than all the rest."""
    threads = [(copy_context(), ThreadSensitiveContext()) for _ in range(AT_ONCE)]
    for context, thread in threads:
        await asyncio.create_task(thread.__aenter__(), context=context)
    yield [context for context, _ in threads]
    for context, thread in threads:
        await asyncio.create_task(thread.__aexit__(None, None, None), context=context)


async def cancelled_in_the_middle(contexts: list[Context], begun: Semaphore, rng: random.Random) -> int:
    """Send tasks and cancel those who send them once all have begun; return how many came through nevertheless."""
    sending = [asyncio.create_task(note.adelay(), context=context) for context in contexts]
    for _ in sending:
        await begun.acquire()
    for task in rng.sample(sending, AT_ONCE):
        task.cancel()
        if rng.random() < 0.1:
            await asyncio.sleep(0)
    ended = await asyncio.gather(*sending, return_exceptions=True)
    assert all(isinstance(one, AsyncResult | asyncio.CancelledError) for one in ended)
    return sum(isinstance(one, AsyncResult) for one in ended)


async def read_by_many(contexts: list[Context], expected: dict[str, int], rng: random.Random) -> None:
    """Read results, and cancel some of those who do: whoever read somebody else's reply would be wrong about it."""
    asked = rng.choices(list(expected.items()), k=len(contexts))
    reading: list[asyncio.Task[Any]] = [
        asyncio.create_task(AsyncResult(task_id).aget(20), context=context)
        for (task_id, _), context in zip(asked, contexts, strict=True)
    ]
    await asyncio.sleep(0)
    for task in reading[::3]:
        task.cancel()
    for (_, value), found in zip(asked, await asyncio.gather(*reading, return_exceptions=True), strict=True):
        assert found == value or isinstance(found, asyncio.CancelledError)


@pytest.mark.django_db(transaction=True)
def test_thousands_who_are_cancelled_while_they_send_leave_no_reply_to_another(on_redis: redis.Redis, thorough: bool):
    many = 5 * CANCELS if thorough else CANCELS
    seed = time.time_ns()
    print("seed", seed)
    rng = random.Random(seed)
    expected = {kept(number): number for number in range(20)}

    async def story() -> int:
        loop, begun = asyncio.get_running_loop(), Semaphore(0)

        def tell(**_: Any) -> None:
            loop.call_soon_threadsafe(begun.release)

        came_through = 0
        signals.task_publishing.connect(tell)
        try:
            async with requests() as contexts:
                for _ in range(many // AT_ONCE):
                    came_through += await cancelled_in_the_middle(contexts, begun, rng)
                    await read_by_many(contexts[:10], expected, rng)
        finally:
            signals.task_publishing.disconnect(tell)
        return came_through

    came_through = asyncio.run(story())
    waiting = brokers["default"].peek("default", 2 * many)
    # Each had begun, and none was stopped half-way.
    assert len(set(ids(waiting))) == len(waiting) == many
    assert came_through < many
    assert [stats.ready for stats in brokers["default"].stats()] == [many]


@pytest.mark.django_db(transaction=True)
def test_threads_that_share_a_client_each_get_their_own_replies(on_redis: redis.Redis):
    broker, store = brokers["default"], results["default"]

    def work(name: int) -> None:
        for turn in range(30):
            own = samples(3, queue=f"queue {name}")
            broker.publish(own)
            held = broker.fetch([f"queue {name}"], 3, lease=30.0, consumer="w")
            assert ids(held) == ids(own)
            task_id = kept(1000 * name + turn)
            assert store.get([task_id])[task_id].value == b"%d" % (1000 * name + turn)
            assert broker.ack(held) == held

    together(*[lambda name=name: work(name) for name in range(8)])
    assert broker.stats() == []


def test_who_is_killed_while_sending_has_sent_all_that_it_was_told_of(redis_broker: RedisBroker):
    """A web server may be killed in the middle of `delay`; what had returned before is in the queue."""
    # Who forks has a connection already.
    redis_broker.stats()
    told: list[str] = []
    for _ in range(5):
        told += killed_while_sending(redis_broker, after=20)
    waiting = ids(redis_broker.peek("default", 10_000))
    assert len(set(waiting)) == len(waiting)
    assert set(told) <= set(waiting)
    found = take(redis_broker, 10_000)
    assert all(one.message.content_type != MALFORMED for one in found)
    assert redis_broker.ack(found) == found


def killed_while_sending(broker: RedisBroker, after: int) -> list[str]:
    """Fork who sends without end, kill it after so many messages, and return the ids that it told of."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Other threads of this process mean nothing to the child.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            while True:
                [message] = samples(1)
                broker.publish([message])
                os.write(write, f"{message.id}\n".encode())
        finally:
            os._exit(1)
    os.close(write)
    told: Any
    with os.fdopen(read) as told:
        found = [told.readline().strip() for _ in range(after)]
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        return [*found, *(line.strip() for line in told)]
