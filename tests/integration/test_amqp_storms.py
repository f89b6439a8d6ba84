"""Does the AMQP broker stay within its bounds when everything comes at once, or is broken off?"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgiref.sync import sync_to_async
from django.test import override_settings

from django_tasks.backends.amqp import AmqpBroker
from django_tasks.connections import brokers
from django_tasks.message import Delivery
from django_tasks.testing.contracts.harness import QUEUE, ids, samples
from tests.integration.stage import note
from tests.rabbit import Rabbit
from tests.settings import AMQP_URL
from tests.wires import wire_to

PATIENCE = 20.0
NEVER = threading.Event()
STORM, PREFETCH = 2_000, 500


@pytest.fixture
def rabbit() -> Iterator[Rabbit]:
    rabbit = Rabbit()
    yield rabbit
    rabbit.close()


def gather(broker: AmqpBroker, number: int, at_once: int) -> Iterator[list[Delivery]]:
    """Fetch until so many have come, so many at once."""
    came = 0
    deadline = time.monotonic() + PATIENCE
    while came < number:
        assert time.monotonic() < deadline, f"{came} of {number} came"
        found = broker.fetch([QUEUE], min(at_once, number - came), lease=30.0, consumer="w")
        came += len(found)
        if found:
            yield found
        else:
            broker.wait([QUEUE], 0.05, NEVER)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_what_a_dead_worker_held_comes_back_at_once_and_no_more_of_it_than_is_asked_for(
    rabbit: Rabbit, queue_type: str
):
    dead, worker = rabbit.open(QUEUE_TYPE=queue_type), rabbit.open(QUEUE_TYPE=queue_type)
    sent = samples(STORM)
    dead.publish(sent)
    held = [one for some in gather(dead, STORM, STORM) for one in some]
    assert len(held) == STORM
    # As the kernel does for a process that is killed.
    dead._ends.receiver.close()
    receiver: Any = worker._ends.receiver
    seen: Counter[str] = Counter()
    for some in gather(worker, STORM, PREFETCH):
        assert len(receiver._outstanding) <= PREFETCH
        assert {one.deliveries for one in some} == {2}
        seen.update(ids(some))
        assert worker.ack(some) == some
    assert seen == Counter(ids(sent))
    assert worker.stats([QUEUE])[0].ready == 0


def test_calls_that_are_cancelled_under_way_leave_no_answer_to_others(rabbit: Rabbit):
    rabbit.uses("default")
    settings = {"BROKERS": {"default": rabbit.entry}, "RESULTS": {"default": {"BACKEND": "memory"}}}

    async def story() -> list[Any]:
        calls = [asyncio.ensure_future(note.aapply_async((n,), task_id=f"call-{n}")) for n in range(200)]
        # Of the others some are on their way now, and some are not.
        await calls[0]
        for call in calls[1::2]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        # The thread that sends is through with the one that it could not be kept from.
        await sync_to_async(len)("")
        return answers

    with override_settings(DJANGO_TASKS=settings):
        answers = asyncio.run(story())
        returned = {answer.id for answer in answers if not isinstance(answer, BaseException)}
        assert returned >= {f"call-{n}" for n in range(0, 200, 2)}
        broker = brokers["default"]
        assert isinstance(broker, AmqpBroker)
        last = samples(1, "default")
        broker.publish(last)
        found = broker.fetch(["default"], 1000, lease=30.0, consumer="w")
        assert found[-1].message.id == last[0].id
        calls = {one.message.id: json.loads(one.message.body)[0] for one in found[:-1]}
        assert set(calls) >= returned
        assert all(args == [int(task_id.removeprefix("call-"))] for task_id, args in calls.items())
        assert broker.ack(found) == found


class Interrupted(Exception):
    """What a signal's handler raises, such as that of a time limit."""


def test_a_call_that_is_interrupted_while_it_waits_leaves_its_connection_to_nobody(rabbit: Rabbit):
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    parts = urlsplit(AMQP_URL)
    account = parts.netloc.rpartition("@")[0]
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with wire_to(str(parts.hostname), parts.port or 5672) as wire:
            publisher = rabbit.open(url=parts._replace(netloc=f"{account}@127.0.0.1:{wire.port}").geturl())
            publisher.publish(samples(1))
            wire.hush()
            asked, main = wire.asked, threading.get_ident()

            def when_it_waits() -> None:
                deadline = time.monotonic() + PATIENCE
                while wire.asked == asked and time.monotonic() < deadline:
                    NEVER.wait(0.01)
                signal.pthread_kill(main, signal.SIGUSR1)

            thread = threading.Thread(target=when_it_waits)
            thread.start()
            with pytest.raises(Interrupted):
                publisher.publish(samples(1))
            thread.join(PATIENCE)
            connections = wire.connections
            last = samples(1)
            publisher.publish(last)
            assert wire.connections == connections + 1
            assert ids(last)[0] in [one for some in gather(rabbit.open(), 3, 10) for one in ids(some)]
    finally:
        signal.signal(signal.SIGUSR1, before)
