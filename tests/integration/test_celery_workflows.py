"""Do chains go on at the other side, where Celery's workers and ours share a RabbitMQ?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import celery
import pytest

from django_tasks import chain, signature, states
from django_tasks.canvas.tail import AHEAD, WHOLE
from tests.canvas_tasks import add, fail, note, stamped, told
from tests.integration.celery_sides import CeleryWorker, site_on
from tests.integration.stage import Meanwhile, build, open_gate_when, stage
from tests.rabbit import Rabbit

OURS, THEIRS = f"ours.{os.getpid()}", f"theirs.{os.getpid()}"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    # As Celery declares its queues, under the names by which both sides send to them.
    rabbit = Rabbit(PRIORITIES=False, PREFIX="")
    rabbit.uses(THEIRS, OURS)
    yield rabbit
    rabbit.close()


@pytest.fixture(autouse=True)
def site(rabbit: Rabbit) -> Iterator[None]:
    stage.clear()
    told.clear()
    with site_on(rabbit, OURS):
        yield


@pytest.fixture(scope="module")
def worker(rabbit: Rabbit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(rabbit, tmp_path_factory.mktemp("celery"), queue=THEIRS, INTEROP_RESULTS="rpc://")
    yield worker
    worker.close()


def until(test: Any) -> None:
    """Run our worker until something is so."""
    ours = build(queues=[OURS])

    def story() -> None:
        open_gate_when(test)
        ours.stop()

    Meanwhile(ours, story)


def test_a_chain_of_ours_goes_through_celery_and_comes_back(rabbit: Rabbit, worker: CeleryWorker):
    theirs = signature("interop.half", queue=THEIRS)
    back = signature(note.name, queue=OURS)
    result = chain(add.s(40, 44), theirs, back).apply_async()
    until(lambda: [42.0] in told)
    assert result.state == states.SUCCESS


def test_the_rest_of_a_long_chain_that_celery_does_not_know_comes_back(rabbit: Rabbit, worker: CeleryWorker):
    """Celery runs the last step that is not packed, and sends what holds the others to us."""
    ours = [add.s(0) for _ in range(AHEAD - 1)]
    rest = [add.s(1) for _ in range(WHOLE)]
    theirs = signature("interop.half", queue=THEIRS)
    result = chain(add.s(40, 44), *ours, theirs, *rest, signature(note.name, queue=OURS)).apply_async()
    until(lambda: [42.0 + WHOLE] in told)
    assert result.state == states.SUCCESS
    assert result.parent.state == states.SUCCESS


def test_a_chain_of_celerys_goes_through_us_and_back(rabbit: Rabbit, worker: CeleryWorker):
    client = celery.Celery("client", broker=rabbit.url, backend="rpc://", set_as_current=False)
    whole = celery.chain(
        client.signature("interop.half", args=(84,), queue=THEIRS),
        client.signature(add.name, args=(1,), queue=OURS),
        client.signature("interop.note", queue=THEIRS),
        app=client,
    )
    sent = whole.apply_async()
    seen: list[Any] = []

    def arrived() -> bool:
        lines = worker.file.read_text() if worker.file.exists() else ""
        seen[:] = [line for line in lines.splitlines() if sent.id in line]
        return bool(seen)

    until(arrived)
    assert '"43.0"' in seen[0]
    client.close()


def test_callbacks_of_celerys_client_are_sent_by_us(rabbit: Rabbit):
    client = celery.Celery("client", broker=rabbit.url, set_as_current=False)
    good = client.signature(add.name, args=(1, 2), queue=OURS)
    good.link(client.signature(note.name, args=("linked",), queue=OURS))
    bad = client.signature(fail.name, queue=OURS)
    bad.link_error(client.signature(note.name, args=("failed",), immutable=True, queue=OURS))
    good.apply_async()
    bad.apply_async()
    until(lambda: len(told) == 2)
    assert sorted(told, key=str) == [["failed"], [3, "linked"]]
    client.close()


def test_stamps_go_to_celery_and_come_back(rabbit: Rabbit, worker: CeleryWorker):
    theirs = signature("interop.note", queue=THEIRS)
    whole = chain(add.s(1, 1), theirs, signature(stamped.name, queue=OURS, immutable=True))
    result = whole.stamp(tenant="blue", orders=[7, 8]).apply_async()
    stamps = {"tenant": "blue", "orders": [7, 8]}
    until(lambda: stamps in told)
    [seen] = worker.seen(result.parent.id)
    assert seen["stamps"] == stamps


def test_we_read_the_stamps_of_celerys_client(rabbit: Rabbit):
    client = celery.Celery("client", broker=rabbit.url, set_as_current=False)
    call = client.signature(stamped.name, queue=OURS)
    call.link(client.signature(stamped.name, immutable=True, queue=OURS))
    call.stamp(tenant="blue")
    call.apply_async()
    until(lambda: len(told) == 2)
    assert told == [{"tenant": "blue"}] * 2
    client.close()
