"""Is what is no longer needed removed, in small batches and by nobody in particular?"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from django_tasks import states
from django_tasks.exceptions import StoreUnavailable
from django_tasks.plan import Result
from django_tasks.results.memory import MemoryStore
from django_tasks.worker import maintenance
from django_tasks.worker.maintenance import Maintenance, older_than

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Counting(MemoryStore):
    """Remembers how much was removed at a time."""

    def __init__(self, expires: timedelta | None = timedelta(days=7)) -> None:
        super().__init__("default", {"OPTIONS": {"EXPIRES": expires}})
        self.batches: list[int] = []

    def expire(self, before: datetime, limit: int = 1000) -> int:
        self.batches.append(super().expire(before, limit))
        return self.batches[-1]


def ended(store: MemoryStore, count: int, when: datetime = LONG_AGO) -> None:
    store.save([Result(id=f"{when}-{number}", state=states.SUCCESS, ended_at=when) for number in range(count)])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "BATCH", 10)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("count", "batches"), [(0, [0]), (9, [9]), (10, [10, 0]), (25, [10, 10, 5])])
def test_results_that_are_too_old_are_removed_batch_by_batch(count: int, batches: list[int]) -> None:
    store = Counting()
    ended(store, count)
    ended(store, 3, timezone.now())
    assert Maintenance(store, []).sweep() == count
    assert store.batches == batches
    assert store.expire(datetime.max.replace(tzinfo=UTC)) == 3


def test_results_that_are_kept_for_ever_are() -> None:
    store = Counting(expires=None)
    ended(store, 3)
    assert Maintenance(store, []).sweep() == 0
    assert store.batches == []


def test_what_else_is_to_be_done_is_done_and_counted() -> None:
    assert Maintenance(Counting(None), [lambda: 3, lambda: 4]).sweep() == 7


@pytest.mark.usefixtures("small")
def test_one_that_is_told_to_end_begins_no_further_batch() -> None:
    class Ending(Counting):
        def expire(self, before: datetime, limit: int = 1000) -> int:
            keeper.stop()
            return super().expire(before, limit)

    store = Ending()
    keeper = Maintenance(store, [])
    ended(store, 25)
    assert keeper.sweep() == 10


@pytest.mark.parametrize("error", [OperationalError("no answer"), StoreUnavailable("no answer")])
def test_a_server_that_does_not_answer_is_told_of_and_asked_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    swept = threading.Semaphore(0)
    errors = [error]

    def chore() -> int:
        swept.release()
        if errors:
            raise errors.pop()
        return 0

    keeper = Maintenance(Counting(None), [chore], interval=0.001)
    keeper.start()
    for _ in range(3):
        assert swept.acquire(timeout=30)
    keeper.stop()
    assert not keeper.is_alive()
    [record] = caplog.records
    assert (record.getMessage(), record.__dict__["error"]) == ("Maintenance failed; trying again later", "no answer")


def test_what_is_pressing_is_done_until_there_is_no_more_of_it() -> None:
    left = [2, 3]
    keeper = Maintenance(Counting(None), [], lambda: left.pop() if left else 0)
    assert keeper.press() == 5
    assert keeper.press() == 0
    left.append(1)
    keeper.stop()
    assert keeper.press() == 0, "one that is told to end begins no more"


def test_what_is_pressing_is_not_kept_from_being_done_by_what_fails() -> None:
    pressed, swept = threading.Semaphore(0), threading.Semaphore(0)

    def press() -> int:
        pressed.release()
        raise StoreUnavailable("no answer")

    def chore() -> int:
        swept.release()
        raise StoreUnavailable("no answer")

    keeper = Maintenance(Counting(None), [chore], press, interval=0.001)
    keeper.start()
    for _ in range(3):
        assert pressed.acquire(timeout=30)
        assert swept.acquire(timeout=30)
    keeper.stop()


def test_one_that_waits_ends_at_once_when_told() -> None:
    keeper = Maintenance(Counting(), [], interval=3600)
    keeper.start()
    keeper.stop()
    assert not keeper.is_alive()


def test_one_that_never_started_may_be_stopped() -> None:
    Maintenance(Counting(), []).stop()


def test_a_chore_for_what_is_older_than_an_age() -> None:
    asked: list[Any] = []

    def expire(before: datetime) -> int:
        asked.append(before)
        return 5

    now = timezone.now()
    assert older_than(expire, timedelta(days=1))() == 5
    assert abs(asked[0] - (now - timedelta(days=1))) < timedelta(seconds=20)
    assert older_than(expire, None)() == 0
    assert len(asked) == 1
