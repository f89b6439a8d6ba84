"""Is a task that is revoked ended wherever it waits, and remembered wherever it does not?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from django_tasks import revoke, signals, states
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import brokers
from django_tasks.control import client
from django_tasks.control.ledger import RevocationLedger
from django_tasks.exceptions import TaskRevoked
from django_tasks.failure import rebuild
from django_tasks.message import Message
from django_tasks.models import Revocation
from django_tasks.results.memory import MemoryStore

pytestmark = pytest.mark.django_db
Configure = Callable[..., None]

CREATED = datetime(2030, 1, 1, tzinfo=UTC)


def message(task_id: str, **more: Any) -> Message:
    return Message(**{"id": task_id, "task": "shop.pay", "body": b"", **more})


def test_a_task_that_waits_ends_now(queue: MemoryBroker, kept: MemoryStore) -> None:
    queue.publish([message("7"), message("8"), message("9", countdown=3600)])
    assert revoke(["7", "9", "nobody"]) == ["7", "9"]
    assert [found.id for found in queue.peek("default", 9)] == ["8"]
    assert {found.state for found in kept.get(["7", "9"]).values()} == {states.REVOKED}
    assert kept.get(["8", "nobody"]) == {}


def test_one_id_is_one_task(queue: MemoryBroker) -> None:
    queue.publish([message("order-7"), message("o")])
    assert revoke("order-7") == ["order-7"]
    assert list(Revocation.objects.values_list("task_id", flat=True)) == ["order-7"]


def test_every_revoked_id_is_remembered(queue: MemoryBroker) -> None:
    queue.publish([message("7")])
    revoke(["7", "nobody"], reason="by hand")
    assert list(Revocation.objects.order_by("task_id").values_list("task_id", "terminate", "reason")) == [
        ("7", False, "by hand"),
        ("nobody", False, "by hand"),
    ]


def test_a_task_that_runs_goes_on_and_is_remembered(queue: MemoryBroker, kept: MemoryStore) -> None:
    queue.publish([message("7")])
    [delivery] = queue.fetch(["default"], 1, lease=30, consumer="w")
    assert revoke(["7"], terminate=True) == []
    assert queue.ack([delivery]) == [delivery]
    assert kept.get(["7"]) == {}
    assert RevocationLedger("default").among(["7"]) == {"7": True}


def test_every_broker_is_asked(configure: Configure) -> None:
    entry = {"BACKEND": "memory"}
    immediate = {"BACKEND": "immediate"}
    configure(BROKERS={"default": entry, "bus": entry, "now": immediate}, QUEUES={"events": {"BROKER": "bus"}})
    brokers["default"].publish([message("7")])
    brokers["bus"].publish([message("8", queue="events")])
    assert revoke(["7", "8"]) == ["7", "8"]
    assert brokers["bus"].peek("events", 9) == []


def test_who_waits_for_it_is_told_why(queue: MemoryBroker, kept: MemoryStore) -> None:
    queue.publish([message("7"), message("8")])
    revoke(["7"])
    revoke(["8"], reason="the order was cancelled")
    told = [kept.get([task_id])[task_id].failure for task_id in ("7", "8")]
    errors = [rebuild(failure) for failure in told if failure]
    assert [type(error) for error in errors] == [TaskRevoked, TaskRevoked]
    assert [str(error) for error in errors] == ["revoked before it was begun", "the order was cancelled"]


def test_the_result_tells_all_that_the_message_did() -> None:
    waiting = message(
        "7",
        queue="money",
        retries=2,
        attempts=3,
        args_repr="(1,)",
        kwargs_repr="{}",
        created_at=CREATED,
        root_id="1",
        parent_id="2",
        group_id="g",
    )
    found = client.revoked(waiting)
    assert (found.id, found.task, found.queue, found.retries, found.attempts) == ("7", "shop.pay", "money", 2, 3)
    assert (found.args_repr, found.kwargs_repr, found.created_at) == ("(1,)", "{}", CREATED)
    assert (found.root_id, found.parent_id, found.group_id, found.message) == ("1", "2", "g", waiting)
    assert found.ended_at is not None


def test_what_was_revoked_is_told_once(queue: MemoryBroker) -> None:
    told: list[Any] = []

    def receive(sender: Any, ids: Any, **_: Any) -> None:
        told.append((sender, ids))

    signals.task_revoked.connect(receive)
    revoke(["7", "8", "7"])
    revoke([])
    signals.task_revoked.disconnect(receive)
    assert told == [("django_tasks.control.client", ["7", "8"])]


def test_nothing_costs_nothing(queue: MemoryBroker, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert revoke([]) == []
