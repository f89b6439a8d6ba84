"""What does a worker do when its broker, its store or its leases fail it?"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import DataError, connections
from django.test import override_settings

from django_tasks import bulk, revoke, signals, states
from django_tasks.backends.database import DatabaseBroker
from django_tasks.connections import brokers, results
from django_tasks.exceptions import BrokerFull
from django_tasks.message import Delivery, Message
from django_tasks.models import Crash
from django_tasks.plan import Result
from django_tasks.pools.solo import SoloPool
from django_tasks.results.database import DatabaseStore
from tests.clocks import TurnedClock
from tests.integration.stage import (
    FAULTY,
    PATIENCE,
    Meanwhile,
    at_most_once,
    at_most_once_retried,
    build,
    burst,
    careful,
    each_pool,
    ended,
    hold,
    note,
    open_gate_when,
    retry_twice,
    retry_with_odd_header,
    stage,
    until,
)
from tests.vendors import each_vendor

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean_stage")]


class FullBroker(DatabaseBroker):
    """Has no room for so many messages."""

    full = 0

    def publish(self, messages: Sequence[Message]) -> None:
        if self.full and messages:
            self.full -= 1
            raise BrokerFull("no room")
        super().publish(messages)


class PickyStore(DatabaseStore):
    """Refuses the value of one task."""

    refused = ""

    def save(self, results: Sequence[Result]) -> None:
        super().save(results)
        for result in results:
            if result.id == self.refused and result.state == states.SUCCESS:
                raise DataError("value out of range")


# What the store does not take


def test_an_outcome_that_the_store_refuses_fails_visibly_and_its_batch_is_settled_one_by_one(store, caplog, logged):
    handles = bulk(note.s(number) for number in range(30))
    bad = handles[10]
    store.refused[bad.id] = {states.SUCCESS}
    worker = burst(SoloPool)
    assert ended(handles) == [states.SUCCESS] * 10 + [states.FAILURE] + [states.SUCCESS] * 19
    failure = bad.fetch().failure
    assert failure is not None
    assert (failure.type, failure.message) == ("DataError", "value out of range")
    assert Counter(stage.begun) == {handle.id: 1 for handle in handles}
    assert (worker.processed, worker.failed) == (30, 1)
    assert any("could not be written down" in record.message for record in logged.records)


def test_an_outcome_that_is_refused_even_as_a_failure_costs_nobody_else_anything(store, broker, logged):
    handles = bulk(note.s(number) for number in range(30))
    bad = handles[10]
    store.refused[bad.id] = {states.SUCCESS, states.FAILURE}
    worker = burst(SoloPool)
    assert ended(handles) == [states.SUCCESS] * 10 + [states.PENDING] + [states.SUCCESS] * 19
    # Its lease is no longer renewed: it comes back when that ends.
    assert set(broker.deliveries()) == {bad.id}
    assert len(worker.holdings) == 0
    assert any("Not even the failure" in record.message for record in logged.records)


@each_vendor(transaction=True)
def test_a_value_that_the_database_refuses_costs_only_its_own_task(alias):
    backend = {"BACKEND": "database", "OPTIONS": {"USING": alias}}
    picky = {**backend, "BACKEND": f"{__name__}.PickyStore"}
    with override_settings(DJANGO_TASKS={"BROKERS": {"default": backend}, "RESULTS": {"default": picky}}):
        handles = bulk(note.s(number) for number in range(30))
        results["default"].refused = handles[10].id  # type: ignore[attr-defined]
        worker = burst(SoloPool)
        assert ended(handles) == [states.SUCCESS] * 10 + [states.FAILURE] + [states.SUCCESS] * 19
        assert "DataError" in str(handles[10].traceback)
        assert brokers["default"].stats(["default"])[0].leased == 0
        assert worker.processed == 30


# What does not answer


@each_pool
@pytest.mark.parametrize("call", ["fetch", "ack", "save", "wait"])
def test_a_server_that_does_not_answer_for_a_while_is_waited_for_and_nothing_is_lost(pool, call, broker, store, logged):
    handles = bulk(note.s(number) for number in range(20))
    faulty = store.faults if call == "save" else broker.faults
    faulty.before[call] = 2

    def story() -> None:
        open_gate_when(lambda: states.PENDING not in ended(handles) and faulty.calls[call] > 2)
        worker.stop()

    worker = build(pool)
    Meanwhile(worker, story)
    assert [handle.get(0) for handle in handles] == list(range(20))
    assert Counter(stage.begun) == {handle.id: 1 for handle in handles}
    assert not broker.deliveries()
    words = "Cannot listen" if call == "wait" else "does not answer"
    assert any(words in record.message for record in logged.records)


def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_server_that_does_not_answer(store, broker):
    handle = note.delay()
    store.faults.before["save"] = 10**6

    def story() -> None:
        open_gate_when(lambda: store.faults.calls["save"] >= 2)
        worker.stop("cold")

    worker = build(grace=60.0)
    began = time.monotonic()
    Meanwhile(worker, story)
    assert time.monotonic() - began < 20
    # It ran, and nobody could be told: it comes back when its lease ends.
    assert broker.deliveries() == {handle.id: 1}


@each_vendor("postgres", transaction=True)
def test_a_connection_that_the_server_closed_is_replaced_wherever_the_worker_uses_it(alias):
    # The broker does not use the database, so that nothing but the worker's own bookkeeping finds out.
    store = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    with override_settings(DJANGO_TASKS={**FAULTY, "RESULTS": store}):
        revoke(["somebody"])
        handles = [note.delay()]

        def story() -> None:
            handles[0].get(PATIENCE)
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            handles.append(note.delay())
            handles[1].get(PATIENCE)
            worker.stop()

        worker = build()
        Meanwhile(worker, story)
        assert stage.begun == [handle.id for handle in handles]


@each_vendor(transaction=True)
def test_a_retry_waits_until_a_full_broker_has_room_again(alias):
    backend = {"BACKEND": "database", "OPTIONS": {"USING": alias}}
    full = {**backend, "BACKEND": f"{__name__}.FullBroker"}
    with override_settings(DJANGO_TASKS={"BROKERS": {"default": full}, "RESULTS": {"default": backend}}):
        handle = retry_twice.delay()
        brokers["default"].full = 2  # type: ignore[attr-defined]
        burst(SoloPool)
        assert handle.get(0) == 2
        assert stage.begun == [handle.id] * 3


def test_a_retry_that_cannot_be_sent_leaves_a_failure_behind():
    # Short tasks first, so that the others are settled in one batch.
    handles = [*bulk(note.s() for _ in range(20)), retry_with_odd_header.delay(), note.delay()]
    burst(SoloPool)
    assert ended(handles) == [*[states.SUCCESS] * 20, states.FAILURE, states.SUCCESS]


@each_vendor(transaction=True)
def test_a_retry_that_the_database_does_not_take_leaves_a_failure_behind(alias):
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    with override_settings(DJANGO_TASKS={"BROKERS": backend, "RESULTS": backend}):
        handles = [*bulk(note.s() for _ in range(20)), retry_with_odd_header.delay(), note.delay()]
        burst(SoloPool)
        assert ended(handles) == [*[states.SUCCESS] * 20, states.FAILURE, states.SUCCESS]


@each_pool
def test_a_fetch_whose_answer_is_lost_costs_a_lease_and_nothing_else(pool, broker):
    handles = bulk(note.s(number) for number in range(10))
    broker.faults.after["fetch"] = 1

    def story() -> None:
        open_gate_when(lambda: states.PENDING not in ended(handles))
        worker.stop()

    worker = build(pool, size=10, lease=0.3, heartbeat=0.1)
    Meanwhile(worker, story)
    assert Counter(stage.begun) == {handle.id: 1 for handle in handles}
    assert handles[0].fetch().attempts == 2


def test_what_was_fetched_goes_back_when_what_must_be_known_of_it_cannot_be_read(broker, refusing):
    handles = bulk(note.s(number) for number in range(5))
    for delivery in broker.fetch(["default"], 2, lease=60, consumer="gone"):
        # Two of them were lost before, so that their evidence is asked for.
        broker.nack([delivery], spent=True)
    refusing["django_tasks_crash"] = 1
    worker = burst(size=5)
    assert set(ended(handles)) == {states.SUCCESS}
    assert Counter(stage.begun) == {handle.id: 1 for handle in handles}
    assert (worker.processed, len(worker.holdings)) == (5, 0)


def test_what_is_acknowledged_before_it_runs_does_not_run_when_that_fails(broker):
    early = at_most_once.delay()
    others = bulk(note.s() for _ in range(2))
    suspect = note.delay()
    last = broker.fetch(["default"], 4, lease=60, consumer="gone")
    broker.nack(last[:-1])
    broker.nack(last[-1:], spent=True)
    broker.faults.calls.clear()
    broker.faults.before["ack"] = 1
    worker = burst(size=5)
    assert ended([early, *others, suspect]) == [states.SUCCESS] * 4
    assert Counter(stage.begun) == {handle.id: 1 for handle in [early, *others, suspect]}
    assert len(worker.buffer) == 0


@pytest.mark.parametrize("table", ["SELECT", "INSERT"])
def test_a_suspect_is_begun_when_that_can_be_written_down_and_not_before(broker, refusing, table):
    handle = note.delay()
    broker.nack(broker.fetch(["default"], 1, lease=60, consumer="gone"), spent=True)
    refusing[f'{table} .*"django_tasks_crash"'] = 2
    worker = burst()
    assert ended([handle]) == [states.SUCCESS]
    assert stage.begun == [handle.id]
    assert (worker.processed, len(worker.holdings), len(worker.buffer)) == (1, 0, 0)
    assert not Crash.objects.exists()


def test_what_was_submitted_is_not_handed_back_because_a_suspect_could_not_be_begun(broker, refusing):
    innocent = bulk(hold.s() for _ in range(3))
    suspect = note.delay()
    fetched = broker.fetch(["default"], 4, lease=60, consumer="gone")
    broker.nack(fetched[:3])
    broker.nack(fetched[3:], spent=True)
    refusing['INSERT .*"django_tasks_crash"'] = 1

    def story() -> None:
        stage.until(lambda: suspect.id in stage.begun)
        stage.gate.set()
        worker.stop()

    worker = build(size=4)
    Meanwhile(worker, story)
    assert set(ended([*innocent, suspect])) == {states.SUCCESS}
    assert Counter(stage.begun) == {handle.id: 1 for handle in [*innocent, suspect]}


def test_a_suspect_that_waited_for_a_slot_is_begun_when_that_can_be_written_down(broker, refusing):
    suspect = note.delay()
    broker.nack(broker.fetch(["default"], 1, lease=60, consumer="gone"), spent=True)
    blocked = hold.apply_async(priority=5)

    def story() -> None:
        stage.until(lambda: blocked.id in stage.begun)
        refusing['INSERT .*"django_tasks_crash"'] = 2
        stage.gate.set()

    worker = build(size=1, max_tasks=2)
    Meanwhile(worker, story)
    assert ended([blocked, suspect]) == [states.SUCCESS] * 2
    assert stage.begun == [blocked.id, suspect.id]


def test_a_suspect_that_ended_counts_though_its_evidence_cannot_be_taken_back(broker, refusing):
    handle = note.delay()
    broker.nack(broker.fetch(["default"], 1, lease=60, consumer="gone"), spent=True)
    refusing['DELETE .*"django_tasks_crash"'] = 1
    worker = burst()
    assert handle.get(0) == 0
    assert stage.begun == [handle.id]
    assert (worker.processed, worker.failed, len(worker.holdings)) == (1, 0, 0)


# Losing a lease


def test_a_run_whose_lease_was_lost_is_ended_and_counts_for_nothing(broker, logged):
    handle = hold.delay()
    other: list[Delivery] = []
    told: list[str] = []

    def lost(deliveries: Sequence[Delivery], **_: Any) -> None:
        told.extend(delivery.message.id for delivery in deliveries)

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        other.extend(broker.take_over(handle.id))
        open_gate_when(lambda: bool(told))
        worker.stop()

    worker = build(lease=0.3, heartbeat=0.05)
    signals.lease_lost.connect(lost)
    try:
        Meanwhile(worker, story)
    finally:
        signals.lease_lost.disconnect(lost)
    assert told == [handle.id]
    assert (worker.processed, len(worker.holdings)) == (0, 0)
    # Nothing is written of the run, not even that it was ended.
    assert ended([handle]) == [states.PENDING]
    # The other worker holds it still.
    assert broker.ack(other) == other


def test_a_run_that_ends_after_its_lease_was_lost_counts_for_nothing(broker):
    handle = hold.delay()
    other: list[Delivery] = []

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        other.extend(broker.take_over(handle.id))
        stage.gate.set()
        stage.until(lambda: bool(stage.ended))
        open_gate_when(lambda: broker.faults.calls["ack"] > 0)
        worker.stop()

    worker = build()
    Meanwhile(worker, story)
    assert (worker.processed, len(worker.holdings)) == (0, 0)
    assert broker.ack(other) == other


def test_leases_are_renewed_while_a_task_runs_for_several_of_them(broker):
    broker.clock = clock = TurnedClock()
    handle = hold.delay()

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        for _ in range(5):
            # One that begins from here on, and has ended.
            calls = broker.faults.calls["extend"] + 2
            until(lambda: broker.faults.calls["extend"] >= calls)  # noqa: B023
            clock.turn(0.9 * worker.options.lease)
        stage.gate.set()
        worker.stop()

    worker = build(lease=0.3, heartbeat=0.05)
    Meanwhile(worker, story)
    assert handle.get(0) == 1
    assert stage.begun == [handle.id]


def test_a_task_at_most_once_is_out_of_its_queue_before_it_begins_and_may_still_be_retried(broker):
    handle = at_most_once_retried.delay()
    burst()
    assert handle.get(0) == 2
    assert stage.begun == [handle.id] * 2
    assert not broker.deliveries()


def test_a_task_that_is_acknowledged_early_and_always_suspect_is_not_taken_for_lost(broker):
    handle = careful.delay()

    def story() -> None:
        stage.until(lambda: bool(stage.begun))
        renewals = threading.Event()
        renewals.wait(0.5)
        stage.gate.set()
        worker.stop()

    worker = build(lease=0.3, heartbeat=0.05)
    Meanwhile(worker, story)
    assert handle.get(0) == 1
    assert (worker.processed, len(worker.holdings)) == (1, 0)
    assert not broker.deliveries()
