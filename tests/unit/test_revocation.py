"""Are revoked deliveries kept from running, at no cost where nothing is revoked?"""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import AsyncResult, actions, revoke_by_stamped_headers, states
from django_tasks.control.ledger import RevocationLedger
from django_tasks.message import Delivery, Message, valid_id
from django_tasks.models import Revocation
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


def stamp(task_id: str, **stamps: Any) -> Delivery:
    headers = {"stamped_headers": list(stamps), "stamps": stamps}
    return Delivery(Message(id=task_id, task="t", body=b"", headers=headers), "r")


def left(revocations: Revocations, *deliveries: Delivery) -> list[str]:
    return [delivery.message.id for delivery in revocations.sift(deliveries)[0]]


def test_tasks_with_a_revoked_stamp_end_in_one_query(revocations: Revocations, django_assert_num_queries: Any) -> None:
    revoke_by_stamped_headers({"tenant": ["blue", "red"], "order": 7})
    several = [
        stamp("1", tenant="blue"),
        stamp("2", tenant="green"),
        stamp("3", tenant=["green", "red"], more=1),
        stamp("4", order=7),
        stamp("5", order="7"),
        stamp("6", other="blue"),
        deliver("7"),
    ]
    with django_assert_num_queries(1):
        assert left(revocations, *several) == ["2", "5", "6", "7"]


def test_stamps_cost_nothing_where_nothing_is_revoked(revocations: Revocations, django_assert_num_queries: Any) -> None:
    revocations.refresh()
    with django_assert_num_queries(0):
        assert left(revocations, stamp("1", tenant="blue")) == ["1"]


def test_only_a_terminating_revocation_of_a_stamp_ends_what_runs(revocations: Revocations) -> None:
    running = [stamp("1", tenant="blue"), stamp("2", tenant="red"), stamp("3", tenant="red", order=7)]
    revoke_by_stamped_headers({"tenant": "red"})
    assert revocations.to_end(running) == []
    AsyncResult[Any]("3").revoke_by_stamped_headers({"order": 7}, terminate=True)
    assert revocations.to_end(running) == [running[2]]


def test_a_stamp_is_never_taken_for_an_id(revocations: Revocations) -> None:
    revoke_by_stamped_headers({"tenant": "1"})
    assert left(revocations, deliver("1"), deliver("tenant")) == ["1", "tenant"]
    [row] = Revocation.objects.all()
    assert row.task_id == 'stamp {"tenant": "1"}'
    assert not valid_id(row.task_id)
    assert actions.take_back([row.task_id]).done == [row.task_id]
    assert left(revocations, stamp("2", tenant="1")) == ["2"]


@pytest.mark.parametrize("value", ["x" * 1000, "\0\ud800", {"b": [1], "a": None}, None, True, 2.5, "a b"])
def test_any_value_may_be_revoked(revocations: Revocations, value: Any) -> None:
    revoke_by_stamped_headers({"tenant": value})
    assert left(revocations, stamp("1", tenant=value), stamp("2", tenant="x")) == ["2"]


@pytest.mark.parametrize("headers", [{"tenant": object()}, {7: "blue"}, {"tenant": [1, {2}]}])
def test_what_is_no_stamp_is_refused(revocations: Revocations, headers: Any) -> None:
    with pytest.raises(TypeError, match="is no stamp"):
        revoke_by_stamped_headers(headers)
    with pytest.raises(TypeError, match="as a dictionary"):
        revoke_by_stamped_headers(["tenant"])  # type: ignore[arg-type]
    revoke_by_stamped_headers({})
    assert not revocations.ledger.any()


def test_whatever_a_message_is_stamped_with_is_looked_up(
    revocations: Revocations, django_assert_num_queries: Any
) -> None:
    odd = [stamp("1", tenant=object()), stamp("2", tenant={1: 2, "a": 3}), stamp("3", tenant=[1, "x"] * 100_000)]
    with django_assert_num_queries(1):
        assert left(revocations, *odd) == ["1", "2", "3"]
