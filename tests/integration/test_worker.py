"""When does a worker leave, what becomes of its tasks then, and whom does it tell?"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.dispatch import Signal
from django.test import override_settings
from django.utils import timezone

from django_tasks import AsyncResult, bulk, revoke, revoke_by_stamped_headers, send_task, signals, states, task
from django_tasks.connections import brokers, results
from django_tasks.exceptions import TaskRevoked
from django_tasks.message import Delivery
from django_tasks.models import TaskResult, WorkerNode
from django_tasks.pools.solo import SoloPool
from django_tasks.registry import tasks
from django_tasks.worker.maintenance import BATCH
from django_tasks.worker.worker import Worker
from tests.integration.stage import (
    PATIENCE,
    Meanwhile,
    build,
    burst,
    each_pool,
    ended,
    fail,
    hold,
    note,
    open_gate_when,
    overlong,
    retry_twice,
    stage,
    stop_worker,
)
from tests.vendors import each_vendor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean_stage")]


# Leaving by itself


@each_pool
def test_a_burst_ends_when_all_that_was_ready_is_done_and_leaves_what_is_delayed(pool, broker):
    handles = bulk(note.s(number) for number in range(100))
    later = note.apply_async(countdown=3600)
    worker = burst(pool)
    assert [handle.get(0) for handle in handles] == list(range(100))
    assert broker.deliveries() == {later.id: 0}
    assert (worker.processed, worker.failed, worker.stopping) == (100, 0, "warm")


@each_pool
def test_a_burst_also_does_what_its_tasks_bring_about(pool):
    handle = retry_twice.delay()
    worker = burst(pool)
    assert handle.get(0) == 2
    assert stage.begun == [handle.id] * 3
    assert worker.processed == 1


@each_pool
@pytest.mark.parametrize("ahead", [0, 500])
def test_a_worker_with_a_number_of_tasks_runs_exactly_so_many(pool, ahead, broker):
    handles = bulk(note.s(number) for number in range(50))
    worker = build(pool, max_tasks=20, prefetch=ahead)
    worker.run()
    assert worker.processed == 20
    assert ended(handles) == [states.SUCCESS] * 20 + [states.PENDING] * 30
    assert set(broker.deliveries().values()) == {0}


@each_pool
def test_a_task_whose_code_comes_with_the_next_deployment_waits_for_it(pool, broker, settings):
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "UNKNOWN_TASKS_WAIT": timedelta(minutes=5)}
    broker = brokers["default"]
    handle = send_task("deployed.later", (2,))
    # The worker of before finds nothing that it could do, and leaves.
    assert burst(pool).processed == 0
    assert broker.deliveries() == {handle.id: 0}
    assert handle.state == states.PENDING
    task(name="deployed.later", bind=True)(later)
    try:
        broker.clock = lambda: time.time() + 60.0
        assert burst(pool).processed == 1
    finally:
        del tasks["deployed.later"]
    assert handle.get(0) == [2, 1]


def later(self: Any, number: int) -> list[int]:
    return [number, self.request.attempt]


def test_what_was_handed_back_does_not_count_among_a_number_of_tasks(broker):
    # Tasks of no length make it look far ahead; then one blocks the only slot, and what is behind it goes back.
    handles = bulk(note.s(number) for number in range(20))
    blocked = hold.delay()
    handles += bulk(note.s(number) for number in range(20, 50))
    worker = build(size=1, max_tasks=40)
    Meanwhile(worker, lambda: open_gate_when(lambda: bool(broker.faults.calls["nack"])))
    assert worker.processed == 40
    assert blocked.get(0) == 1
    assert ended(handles).count(states.SUCCESS) == 39


def test_a_worker_that_may_take_no_more_rests_until_its_last_task_has_ended():
    hold.delay()

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        tick = threading.Event()
        tick.wait(1.0)
        stage.gate.set()

    worker = build(size=2, max_tasks=1)
    before = time.thread_time()
    Meanwhile(worker, story)
    assert worker.processed == 1
    assert time.thread_time() - before < 0.5


def test_what_runs_with_a_revoked_stamp_is_ended():
    def story() -> None:
        handles = [hold.s().stamp(tenant=tenant).apply_async() for tenant in ("blue", "green")]
        stage.until(lambda: len(stage.begun) == 2)
        revoke_by_stamped_headers({"tenant": "blue"}, terminate=True)
        with pytest.raises(TaskRevoked):
            handles[0].get(PATIENCE)
        stage.gate.set()
        assert handles[1].get(PATIENCE) == 1
        worker.stop()

    worker = build(heartbeat=0.1)
    Meanwhile(worker, story)


@each_pool
def test_what_is_refused_is_written_down_at_once_also_by_a_worker_with_nothing_else_to_do(pool):
    revoke(["never"])

    def story() -> None:
        # The heart has seen by then that something is revoked.
        note.delay().get(PATIENCE)
        sent = time.monotonic()
        handle = note.apply_async(task_id="never")
        with pytest.raises(TaskRevoked):
            handle.get(PATIENCE)
        # It looks by itself each five seconds.
        assert time.monotonic() - sent < 4.0
        worker.stop()

    worker = build(pool)
    Meanwhile(worker, story)
    assert "never" not in stage.begun


# Being stopped


def test_a_warm_stop_lets_what_runs_end_and_hands_back_the_rest_unspent(broker):
    running = bulk(hold.s() for _ in range(2))
    waiting: list[AsyncResult[Any]] = []
    said: list[Any] = []

    def stopping(how: str, **_: Any) -> None:
        said.append(how)

    def story() -> None:
        stage.until(lambda: len(stage.begun) == 2)
        waiting.extend(bulk(note.s() for _ in range(5)))
        worker.stop()
        worker.stop("warm")
        open_gate_when(lambda: bool(said))

    worker = build()
    signals.worker_stopping.connect(stopping)
    try:
        Meanwhile(worker, story)
    finally:
        signals.worker_stopping.disconnect(stopping)
    assert said == ["warm"]
    assert ended(running + waiting) == [states.SUCCESS] * 2 + [states.PENDING] * 5
    assert broker.deliveries() == {handle.id: 0 for handle in waiting}


def test_a_warm_stop_hands_back_what_waits_in_the_pool_before_what_runs_has_ended(broker):
    first = bulk(note.s() for _ in range(20))
    blocked = hold.delay()
    behind = bulk(note.s() for _ in range(20))

    def story() -> None:
        stage.until(lambda: blocked.id in stage.begun)
        worker.stop()
        open_gate_when(lambda: set(broker.deliveries().values()) == {0, 1})

    worker = build(size=1)
    Meanwhile(worker, story)
    assert ended([*first, blocked]) == [states.SUCCESS] * 21
    assert broker.deliveries() == {handle.id: 0 for handle in behind}


@each_pool
@pytest.mark.parametrize("how", ["warm", "cold"])
def test_a_task_may_stop_its_own_worker(pool, how, broker):
    handle = stop_worker.delay(how)
    after = note.delay()
    worker = build(pool, size=1)
    worker.run()
    assert worker.stopping == how
    # A task that has ended by then counts, however the stop was meant; one that had not goes back unspent.
    assert broker.deliveries() in ({after.id: 0}, {handle.id: 0, after.id: 0})
    assert ended([handle, after]) in ([states.SUCCESS, states.PENDING], [states.PENDING, states.PENDING])


def test_a_cold_stop_hands_back_what_runs_and_what_that_says_later_counts_for_nothing(broker):
    handle = hold.delay()

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        worker.stop("warm")
        worker.stop("cold")
        worker.stop("warm")

    worker = build(grace=60.0)
    began = time.monotonic()
    Meanwhile(worker, story)
    assert time.monotonic() - began < 20
    assert worker.stopping == "cold"
    assert broker.deliveries() == {handle.id: 0}
    stage.gate.set()
    assert ended([handle]) == [states.PENDING]
    assert burst().processed == 1
    assert handle.get(0) == 1


def test_when_the_grace_period_is_over_what_runs_is_handed_back(broker):
    handle = hold.delay()

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        worker.stop()

    worker = build(grace=0.2)
    Meanwhile(worker, story)
    assert worker.stopping == "warm"
    assert broker.deliveries() == {handle.id: 0}


def test_a_stop_before_anything_was_fetched_fetches_nothing(broker):
    handle = note.delay()
    worker = build()
    worker.stop()
    worker.run()
    assert broker.deliveries() == {handle.id: 0}
    assert broker.faults.calls["fetch"] == 0


def test_a_pool_that_cannot_go_on_ends_the_worker_and_says_so(broker):
    stuck, after = overlong.delay(), hold.delay()
    worker = build(size=1)
    worker.run()
    assert worker.broken
    assert worker.stopping == "cold"
    assert ended([stuck, after]) == [states.FAILURE, states.PENDING]
    assert broker.deliveries() == {after.id: 0}


def test_a_worker_signs_on_and_off():
    def story() -> None:
        open_gate_when(lambda: bool(stage.begun) and WorkerNode.objects.filter(name="w1", status="running").exists())
        worker.stop()

    hold.delay()
    worker = build()
    Meanwhile(worker, story)
    node = WorkerNode.objects.get(name="w1")
    assert node.status == "offline"
    assert (node.pool, node.concurrency, node.queues, node.broker) == ("ThreadPool", 2, "default", "default")
    assert (node.processed, node.failed) == (1, 0)


# Whoever listens


@pytest.mark.parametrize(
    "signal",
    [
        signals.worker_starting,
        signals.worker_ready,
        signals.received,
        signals.task_started,
        signals.task_succeeded,
        signals.task_failed,
        signals.task_retried,
        signals.task_finished,
        signals.settled,
        signals.worker_stopping,
        signals.worker_stopped,
    ],
)
@each_pool
def test_a_receiver_that_raises_is_logged_and_disturbs_nobody(signal: Signal, pool, logged):
    calls = 0

    def receiver(**_: Any) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("a receiver of the project's own")

    handles: list[AsyncResult[Any]] = [note.delay(7), fail.delay(), retry_twice.delay()]
    signal.connect(receiver)
    try:
        worker = burst(pool)
    finally:
        signal.disconnect(receiver)
    assert ended(handles) == [states.SUCCESS, states.FAILURE, states.SUCCESS]
    assert (worker.processed, worker.failed) == (3, 1)
    assert calls
    assert sum(record.message == "A signal receiver raised" for record in logged.records) == calls


def test_receivers_are_told_what_was_fetched_and_what_was_settled():
    fetched: list[str] = []
    settled: list[tuple[str, str]] = []

    def on_received(sender: Worker, deliveries: Sequence[Delivery], **_: Any) -> None:
        fetched.extend(delivery.message.id for delivery in deliveries)

    def on_settled(sender: Worker, done: Any, **_: Any) -> None:
        settled.extend((delivery.message.id, outcome.state) for delivery, outcome in done)

    signals.received.connect(on_received)
    signals.settled.connect(on_settled)
    try:
        handles: list[AsyncResult[Any]] = [note.delay(), fail.delay(), retry_twice.delay()]
        burst(SoloPool)
    finally:
        signals.received.disconnect(on_received)
        signals.settled.disconnect(on_settled)
    first, second, third = (handle.id for handle in handles)
    assert Counter(fetched) == {first: 1, second: 1, third: 3}
    assert Counter(settled) == {
        (first, states.SUCCESS): 1,
        (second, states.FAILURE): 1,
        (third, states.RETRY): 2,
        (third, states.SUCCESS): 1,
    }


# Housekeeping


@each_vendor(transaction=True)
def test_results_that_have_expired_are_removed_in_small_batches_and_others_stay(alias):
    backend = {"BACKEND": "database", "OPTIONS": {"USING": alias}}
    keep = {**backend, "OPTIONS": {"USING": alias, "EXPIRES": timedelta(days=2)}}
    with override_settings(DJANGO_TASKS={"BROKERS": {"default": backend}, "RESULTS": {"default": keep}}):
        now = timezone.now()
        ages = {"old": timedelta(days=3), "young": timedelta(days=1)}
        rows = [
            TaskResult(task_id=f"{kind}-{number}", state=states.SUCCESS, ended_at=now - age)
            for kind, age in ages.items()
            for number in range(2 * BATCH + 500 if kind == "old" else 10)
        ]
        rows += [TaskResult(task_id="running", state=states.STARTED)]
        TaskResult.objects.using(alias).bulk_create(rows, batch_size=500)
        seen: list[int] = []
        worker = build()
        with connections[alias].execute_wrapper(deletions(seen)):
            assert worker.maintenance.sweep() == 2 * BATCH + 500
        assert seen == [BATCH, BATCH, 500]
        left = TaskResult.objects.using(alias).order_by("task_id").values_list("task_id", flat=True)
        assert list(left) == ["running", *(f"young-{number}" for number in range(10))]


def deletions(seen: list[int]) -> Callable[..., Any]:
    def watch(execute, sql, params, many, context):
        answer = execute(sql, params, many, context)
        if sql.lstrip().startswith("DELETE") and "django_tasks_taskresult" in sql:
            seen.append(context["cursor"].rowcount)
        return answer

    return watch


def test_a_worker_that_runs_removes_what_has_expired(store):
    store.expires = timedelta(seconds=0)
    gone = note.delay()

    def story() -> None:
        open_gate_when(lambda: bool(stage.ended) and worker.processed == 1 and not results["default"].get([gone.id]))
        worker.stop()

    worker = build()
    worker.maintenance.interval = 0.05
    Meanwhile(worker, story)
