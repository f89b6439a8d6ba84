"""What happens to tasks on RabbitMQ when their workers die?"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from django.db.models import QuerySet

from django_tasks import AsyncResult, bulk, states
from django_tasks.backends.links import frames
from django_tasks.backends.links.frames import Address
from django_tasks.canvas.calls import seal
from django_tasks.message import Message
from django_tasks.models import TaskResult
from tests.acceptance import tasks
from tests.acceptance.conftest import ROOT, Site
from tests.acceptance.mutations import Mutations
from tests.rabbit import connected
from tests.settings import AMQP_URL
from tests.vendors import each_vendor

pytestmark = [each_vendor("sqlite", transaction=True), pytest.mark.brokers("amqp")]


def test_workers_that_are_killed_lose_nothing(site: Site):
    handles = bulk(tasks.pause.s(str(site.ledger), 0.02) for _ in range(90))
    for _ in range(2):
        ended = len(site.ledger.lines("end"))
        worker = site.worker()
        site.until(lambda: len(site.ledger.lines("end")) > ended + 10, "some tasks have ended")  # noqa: B023  # at once
        worker.send(signal.SIGKILL, group=True)
    site.worker()
    assert set(site.ended(*handles)) == {states.SUCCESS}
    started = site.ledger.count()
    assert set(started) == {handle.id for handle in handles}
    # Once more for each worker that held it when it was killed.
    assert max(started.values()) <= 3
    site.until(site.quiet, "nothing is left in the queue")


def test_a_task_that_kills_its_worker_each_time_is_given_up(site: Site):
    poison = tasks.kill_worker.delay(str(site.ledger))
    others = bulk(tasks.note.s(str(site.ledger)) for _ in range(20))
    for number in (1, 2, 3):
        worker = site.worker("-c", "1")
        assert worker.wait() != 0, number
    site.worker("-c", "1")
    assert site.ended(poison, *others) == [states.FAILURE, *[states.SUCCESS] * 20]
    assert site.ledger.count()[poison.id] == 3
    assert "took its worker process down" in str(poison.result)


def test_what_was_sent_is_run_though_its_producer_and_the_first_worker_are_killed(site: Site):
    sent = [ids for _ in range(2) for ids in killed_producer(site, after=30)]
    first = site.worker()
    site.until(lambda: len(site.ledger.count()) > 10, "some have begun, and others wait in the outbox")
    first.send(signal.SIGKILL, group=True)
    site.worker()
    assert set(site.ended(*map(AsyncResult, sent))) == {states.SUCCESS}
    site.until(site.quiet, "nothing is left in the queue, nor in the outbox")
    started = site.ledger.count()
    # Of each producer one may have been sent and not been told of yet.
    assert set(sent) <= set(started)
    assert len(started) <= len(sent) + 2
    # Once more for the worker that held it, and for the relay that had sent it and not taken note of that.
    assert max(started.values()) <= 3


def killed_producer(site: Site, *, after: int) -> list[str]:
    """Let a process send tasks, kill it after so many, and return those that it had told of."""
    command = [sys.executable, "-W", "error", "-m", "tests.acceptance.producer", str(site.ledger)]
    with subprocess.Popen(
        command, cwd=ROOT, env=site.environment_of(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as producer:
        assert producer.stdout is not None
        told = [producer.stdout.readline().strip() for _ in range(after)]
        producer.kill()
        # A line that was cut off tells of nothing.
        rest = producer.stdout.read()
    return told + rest[: rest.rfind("\n") + 1].split()


MUTATED = 200


def test_messages_that_are_wrong_in_any_way_end_visibly_and_hold_up_nobody(site: Site, prefix: str):
    before = bulk(tasks.note.s(str(site.ledger)) for _ in range(20))
    put_mutated(f"{prefix}.default", seal(tasks.note.s(str(site.ledger))))
    after = bulk(tasks.note.s(str(site.ledger)) for _ in range(20))
    worker = site.worker()
    assert set(site.ended(*before, *after)) == {states.SUCCESS}
    site.until(lambda: final(site).count() == MUTATED + 40, "every message has ended")
    site.until(site.quiet, "nothing is left in the queue")
    good = final(site).filter(state=states.SUCCESS).count()
    assert good == len(site.ledger.count())
    assert MUTATED / 2 < final(site).filter(state=states.FAILURE).count() == MUTATED + 40 - good
    # It is the one that was started.
    assert worker.stop() == 0


def put_mutated(queue: str, message: Message) -> None:
    """Put messages into a queue as no program of ours would."""
    with connected(AMQP_URL) as connection:
        channel = connection.channel()
        for draft in Mutations(7).of(message, MUTATED):
            data = frames.publication(
                channel.channel_id, Address("", queue), draft.written(), draft.body, connection.frame_max
            )
            connection.transport.write(data)
        # Had the server not taken one, it would have closed the channel.
        channel.queue_declare(queue, passive=True)


def final(site: Site) -> QuerySet[TaskResult]:
    return TaskResult.objects.using(site.alias).filter(state__in=states.FINAL)
