"""Are revoked deliveries kept from running, at no cost where nothing is revoked?"""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import states
from django_tasks.control.ledger import RevocationLedger
from django_tasks.message import Delivery, Message
from django_tasks.worker.revocation import Revocations

pytestmark = pytest.mark.django_db


def deliver(task_id: str, *, deliveries: int = 1, retries: int = 0) -> Delivery:
    return Delivery(Message(id=task_id, task="t", body=b"", retries=retries), "r", deliveries)


@pytest.fixture
def revocations() -> Revocations:
    return Revocations(RevocationLedger("default"))


def test_what_is_revoked_ends_and_the_rest_may_run(revocations: Revocations) -> None:
    revocations.ledger.add(["2"])
    one, two, three = (deliver(task_id) for task_id in "123")
    allowed, refused = revocations.sift([one, two, three])
    assert allowed == [one, three]
    [(delivery, outcome)] = refused
    assert (delivery, outcome.state, outcome.requeue) == (two, states.REVOKED, None)
    assert outcome.failure is not None
    assert outcome.failure.message == "revoked before it was begun"


def test_a_worker_that_has_just_started_looks_before_it_runs_anything(revocations: Revocations) -> None:
    revocations.ledger.add(["1"])
    assert revocations.sift([deliver("1")])[0] == []


def test_where_nothing_is_revoked_first_deliveries_cost_nothing(
    revocations: Revocations, django_assert_num_queries: Any
) -> None:
    revocations.refresh()
    first = [deliver(str(number)) for number in range(100)]
    with django_assert_num_queries(0):
        assert revocations.sift(first) == (first, [])
        assert revocations.sift([]) == ([], [])


@pytest.mark.parametrize("again", [{"deliveries": 2}, {"retries": 1}])
def test_what_was_leased_before_is_looked_up_each_time(
    revocations: Revocations, again: Any, django_assert_num_queries: Any
) -> None:
    revocations.refresh()
    revocations.ledger.add(["1"])
    with django_assert_num_queries(1):
        allowed, refused = revocations.sift([deliver("1", **again), deliver("2")])
    assert ([each.message.id for each in allowed], len(refused)) == (["2"], 1)


def test_a_heartbeat_tells_whether_first_deliveries_must_be_looked_up(revocations: Revocations) -> None:
    revocations.refresh()
    revocations.ledger.add(["1"])
    assert revocations.sift([deliver("1")])[1] == []
    revocations.refresh()
    assert len(revocations.sift([deliver("1")])[1]) == 1


def test_only_a_terminating_revocation_ends_what_runs(revocations: Revocations, django_assert_num_queries: Any) -> None:
    revocations.ledger.add(["1"])
    revocations.ledger.add(["2"], terminate=True)
    one, two, three = (deliver(task_id) for task_id in "123")
    assert revocations.to_end([one, two, three]) == [two]
    with django_assert_num_queries(0):
        assert revocations.to_end([]) == []
    revocations.ledger.forget(["1", "2"])
    revocations.refresh()
    with django_assert_num_queries(0):
        assert revocations.to_end([one, two, three]) == []
