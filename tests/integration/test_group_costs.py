"""What do groups ask of a database, however large they are and whoever waits for them?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_tasks import chord, group, states
from django_tasks.control.client import revoke
from django_tasks.exceptions import ChordError, ResultTimeout
from django_tasks.models import QueuedMessage, TaskResult
from tests.canvas_tasks import add, fail, on_error_id, same, told, tsum
from tests.integration.stage import PATIENCE, burst, ended, until
from tests.integration.test_costs import fetched, kept_in_database, metered, ran, settlement, trips, verbs
from tests.vendors import each_vendor

__all__ = ["kept_in_database"]

pytestmark = [pytest.mark.usefixtures("clean_stage", "kept_in_database")]


@pytest.fixture(autouse=True)
def fresh() -> None:
    told.clear()


def costs_of_a_batch(alias: str, size: int) -> list[str]:
    done = ran(fetched(size))
    return verbs(trips(alias, lambda: settlement().settle(done)))


@each_vendor(transaction=True)
def test_settling_members_costs_the_same_for_ten_and_for_two_hundred(alias: str):
    chord([same.s(number) for number in range(450)], tsum.s()).apply_async()
    costs = [costs_of_a_batch(alias, size) for size in (10, 200, 200)]
    # SQLite takes two hundred rows in two statements.
    assert len(costs[1]) == len(costs[2]) == len(costs[0]) + (alias == "default")
    assert len(costs[0]) <= 12
    # And the last members add what ends the group, and what is sent then.
    assert len(costs_of_a_batch(alias, 40)) <= len(costs[0]) + 5


@each_vendor(transaction=True)
def test_many_groups_that_end_together_cost_what_one_does(alias: str):
    group(same.s(1)).apply_async()
    alone = costs_of_a_batch(alias, 1)
    for number in range(30):
        chord([same.s(number), same.s(2)], tsum.s()).apply_async()
    together = costs_of_a_batch(alias, 60)
    assert len(together) <= len(alone) + 5


@each_vendor(transaction=True)
def test_one_of_three_hundred_members_that_fails_is_told_once_and_the_others_run_on(alias: str):
    members = [same.s(number) for number in range(300)]
    members[57] = fail.s()
    whole = chord(members, tsum.s())
    whole.link_error(on_error_id.s())
    result = whole.apply_async()
    costs = [costs_of_a_batch(alias, 100) for _ in range(3)]
    # In whichever batch the one was: what ends the group, its body and the errback. All else costs what it did.
    ordinary = min(costs, key=len)
    assert [len(cost) <= len(ordinary) + 7 for cost in costs] == [True] * 3
    assert sorted(len(cost) for cost in costs)[:2] == [len(ordinary)] * 2
    burst()
    with pytest.raises(ChordError, match=f"{result.parent[57].id} raised ValueError"):
        result.get(0.1)
    assert told == [result.id]
    found = ended(result.parent)
    assert (found.count(states.SUCCESS), found[57]) == (299, states.FAILURE)
    assert not TaskResult.objects.using(alias).filter(task=tsum.name, state=states.SUCCESS).exists()


@each_vendor(transaction=True)
def test_a_chord_that_is_revoked_costs_a_few_statements_for_five_hundred_members_and_ends_its_body(alias: str):
    whole = chord([same.s(number) for number in range(500)], tsum.s())
    whole.link_error(on_error_id.s())
    result = whole.apply_async()
    costs = trips(alias, result.parent.revoke)
    # Revocations are kept in the default database, and are none of these elsewhere.
    assert len(costs) <= 40
    assert not QueuedMessage.objects.using(alias).filter(task=same.name).exists()
    assert set(ended(result.parent)) == {states.REVOKED}
    burst()
    with pytest.raises(ChordError, match="TaskRevoked"):
        result.get(0.1)
    assert told == [result.id]


@each_vendor("sqlite", transaction=True)
def test_many_ids_are_revoked_at_once_known_or_not(alias: str):
    sent = group(same.s(number) for number in range(600)).apply_async()
    unknown = [f"unknown-{number}" for number in range(2_000)]
    asked: list[str] = []
    costs = trips(alias, lambda: asked.extend(revoke([*unknown, *(each.id for each in sent)])))
    assert sorted(asked) == sorted(each.id for each in sent)
    # Six times five hundred of them: a revocation, a look, and for two of these results and members.
    assert len(costs) <= 60
    same.s(1).set(task_id=unknown[7]).apply_async()
    burst()
    assert TaskResult.objects.using(alias).get(task_id=unknown[7]).state == states.REVOKED


WAITERS = 50
LOOKS = 90
"""At most, of one who waits for five seconds: 10 before the pauses grow, then each a tenth longer, up to 0.25 s."""


def start(wait: Callable[[], None]) -> threading.Thread:
    def then_close() -> None:
        try:
            wait()
        finally:
            connections.close_all()

    thread = threading.Thread(target=then_close)
    thread.start()
    return thread


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@each_vendor("sqlite", transaction=True)
def test_fifty_who_wait_for_a_group_ask_little_and_those_who_give_up_leave_nothing(alias: str):
    sent = group(add.s(number, number) for number in range(500)).apply_async()
    values: list[Any] = []
    gone: list[ResultTimeout] = []

    def patient() -> None:
        values.append(group_of(sent).get(PATIENCE))

    def hasty() -> None:
        with pytest.raises(ResultTimeout) as caught:
            group_of(sent).get(0.3)
        gone.append(caught.value)

    before = threading.active_count(), descriptors()
    with metered(alias) as meter:
        leaving = [start(hasty) for _ in range(WAITERS // 2)]
        staying = [start(patient) for _ in range(WAITERS // 2)]
        for thread in leaving:
            thread.join(PATIENCE)
        asked = meter.about("SELECT", "django_tasks_taskgroup")
        burst()
        for thread in staying:
            thread.join(PATIENCE)
        reads = meter.about("SELECT", "django_tasks_grouppart", "value")
    assert len(gone) == len(values) == WAITERS // 2
    assert all(value == [2 * number for number in range(500)] for value in values)
    assert asked <= WAITERS * LOOKS
    # The values once each, whatever the size of the group, and nothing of a single member.
    assert reads == WAITERS // 2
    assert meter.about("SELECT", "django_tasks_taskresult") == 0
    until(lambda: (threading.active_count(), descriptors()) <= before)


def group_of(sent: Any) -> Any:
    """Return a handle of one's own."""
    return type(sent)(sent.id, list(sent.results))
