"""Is what came of tasks written down alike, in one statement where a database can do that, and elsewhere in several?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections, transaction

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.connections import brokers, results
from django_tasks.message import Delivery
from django_tasks.models import QueuedMessage, TaskResult
from django_tasks.plan import Outcome, Plan, Result
from django_tasks.results.base import ResultStore
from django_tasks.settlement import Settlement
from django_tasks.testing.contracts.harness import sample
from tests.vendors import each_vendor

pytestmark = each_vendor(transaction=True)

QUEUE = "default"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def kept_in_database(alias: str, settings: Any) -> None:
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    settings.DJANGO_TASKS = {"BROKERS": backend, "RESULTS": backend}


@pytest.fixture
def broker(kept_in_database: None) -> Broker:
    return brokers["default"]


@pytest.fixture
def store(kept_in_database: None) -> ResultStore:
    return results["default"]


@pytest.fixture
def settlement(broker: Broker, store: ResultStore) -> Settlement:
    return Settlement(broker, store, worker="w1", lease=30)


def held(broker: Broker, number: int) -> list[Delivery]:
    broker.publish([sample() for _ in range(number)])
    found = broker.fetch([QUEUE], number, lease=30, consumer="w1")
    assert len(found) == number
    return found


def success(value: bytes = b"42", **said: Any) -> Outcome:
    return Outcome(states.SUCCESS, value=value, started=1.0, ended=2.0, **said)


def taken_over(broker: Broker, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Return the deliveries by which another worker holds these messages now."""
    assert broker.nack(deliveries) == list(deliveries)
    return broker.fetch([QUEUE], len(deliveries), lease=30, consumer="w2")


def waiting(alias: str) -> set[str]:
    return set(QueuedMessage.objects.using(alias).values_list("task_id", flat=True))


def is_one_statement(alias: str) -> bool:
    return connections[alias].vendor == "postgresql"


def statements(alias: str, settlement: Settlement, done: Sequence[Any]) -> list[str]:
    """Settle, and return the first word of each statement."""
    connection = connections[alias]
    connection.force_debug_cursor = True
    connection.queries_log.clear()
    try:
        settlement.settle(done)
        return [query["sql"].split()[0] for query in connection.queries_log]
    finally:
        connection.force_debug_cursor = False


def test_what_another_worker_holds_by_now_leaves_no_result(
    alias: str, broker: Broker, store: ResultStore, settlement: Settlement
):
    deliveries = held(broker, 4)
    lost, kept = deliveries[:2], deliveries[2:]
    others = taken_over(broker, lost)
    counted = settlement.settle([(delivery, success()) for delivery in deliveries])
    assert [delivery for delivery, _ in counted] == kept
    assert waiting(alias) == {delivery.message.id for delivery in others} == {delivery.message.id for delivery in lost}
    assert set(store.get([delivery.message.id for delivery in deliveries])) == {each.message.id for each in kept}


def test_a_final_result_stays_and_the_message_goes(
    alias: str, broker: Broker, store: ResultStore, settlement: Settlement
):
    final, open_ = held(broker, 2)
    store.save([Result(id=final.message.id, state=states.REVOKED, ended_at=NOW)])
    store.save([Result(id=open_.message.id, state="PROGRESS", value=b"1", task="told before")])
    counted = settlement.settle([(final, success()), (open_, success())])
    assert len(counted) == 2
    assert waiting(alias) == set()
    found = store.get([final.message.id, open_.message.id])
    assert [result.state for result in found.values()] == [states.REVOKED, states.SUCCESS]
    assert found[open_.message.id].value == b"42"


def test_tasks_whose_results_are_ignored_go_with_the_others(
    alias: str, broker: Broker, store: ResultStore, settlement: Settlement
):
    first, ignored, last = held(broker, 3)
    done = [(first, success()), (ignored, success(keep=False)), (last, success())]
    assert settlement.settle(done) == done
    assert waiting(alias) == set()
    assert TaskResult.objects.using(alias).count() == 2
    none = [(delivery, success(keep=False)) for delivery in held(broker, 2)]
    assert settlement.settle(none) == none
    assert waiting(alias) == set()
    assert TaskResult.objects.using(alias).count() == 2


def test_of_two_deliveries_of_one_task_the_one_that_is_held_counts(
    alias: str, broker: Broker, store: ResultStore, settlement: Settlement
):
    stale = held(broker, 1)
    [current] = taken_over(broker, stale)
    counted = settlement.settle([(stale[0], success(b"1")), (current, success(b"2"))])
    assert [delivery for delivery, _ in counted] == [current]
    assert store.get([current.message.id])[current.message.id].value == b"2"


def test_all_of_it_is_part_of_the_callers_transaction(
    alias: str, broker: Broker, store: ResultStore, settlement: Settlement
):
    [delivery] = held(broker, 1)
    with transaction.atomic(using=alias):
        assert settlement.settle([(delivery, success())])
        assert waiting(alias) == set()
        transaction.set_rollback(True, using=alias)
    assert waiting(alias) == {delivery.message.id}
    assert store.get([delivery.message.id]) == {}
    assert settlement.settle([(delivery, success())])
    assert waiting(alias) == set()


def test_a_batch_of_any_size_is_settled(alias: str, broker: Broker, store: ResultStore, settlement: Settlement):
    done = [(delivery, success()) for delivery in held(broker, 1_201)]
    assert settlement.settle(done) == done
    assert waiting(alias) == set()
    assert TaskResult.objects.using(alias).count() == 1_201


def test_what_has_more_to_it_takes_as_many_statements_as_it_needs(
    alias: str, broker: Broker, store: ResultStore, settlement: Settlement
):
    def cost(*outcomes: Outcome) -> int:
        return len(statements(alias, settlement, list(zip(held(broker, len(outcomes)), outcomes, strict=True))))

    [again] = held(broker, 1)
    retry = Outcome(states.RETRY, plan=Plan((again.message,)))
    assert (cost(success()) == 1) == (cost(success(), success()) == 1) == is_one_statement(alias)
    assert cost(success(), Outcome("PROGRESS")) > 1
    assert cost(success(), success(plan=Plan((sample(),)))) > 1
    assert len(statements(alias, settlement, [(again, retry)])) > 1
    assert again.message.id in waiting(alias)
