"""Which slots are run, which are missed, and which comes next?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from django_tasks.beat.slots import GRACE, Terms, Turn, first_slot, slot_id, turn
from django_tasks.message import valid_id
from django_tasks.schedules import Schedule, clocked, cron, crontab, every

NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Counted(Schedule):
    """Every second, and says how often it was asked."""

    asked: list[datetime]

    def next(self, after: datetime) -> datetime | None:
        self.asked.append(after)
        return every(1).next(after)


def test_what_is_due_is_run_and_the_next_slot_follows() -> None:
    assert turn(every(10), Terms(), NOON, NOON + 3 * SECOND) == Turn(run=(NOON,), next=NOON + 10 * SECOND)


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_a_tick_that_is_a_little_late_misses_nothing(missed: str) -> None:
    decided = turn(every(hours=1), Terms(missed=missed), NOON, NOON + GRACE)
    assert (decided.run, decided.missed) == ((NOON,), ())


def test_of_missed_slots_policies_run_none_the_last_or_the_last_few() -> None:
    now = NOON + 3 * HOUR + 30 * timedelta(minutes=1)
    slots = tuple(NOON + n * HOUR for n in range(4))
    for terms, run in (
        (Terms(missed="skip"), ()),
        (Terms(missed="once"), slots[-1:]),
        (Terms(missed="all"), slots),
        (Terms(missed="all", missed_limit=3), slots[-3:]),
    ):
        decided = turn(every(hours=1), terms, NOON, now)
        assert decided.run == run
        assert decided.missed == slots[: len(slots) - len(run)]
        assert (decided.uncounted, decided.next) == (False, NOON + 4 * HOUR)


def test_a_stall_does_not_move_the_grid_of_an_interval() -> None:
    decided = turn(every(1), Terms(), NOON, NOON + 5.4 * SECOND)
    assert decided.run == (NOON + 5 * SECOND,)
    assert decided.next == NOON + 6 * SECOND


def test_a_year_of_seconds_is_not_counted_one_by_one() -> None:
    schedule = Counted([])
    now = NOON + timedelta(days=365)
    decided = turn(schedule, Terms(missed="all", missed_limit=5), NOON, now)
    assert decided.run == tuple(now - n * SECOND for n in reversed(range(5)))
    assert decided.uncounted
    assert decided.next == now + SECOND
    assert len(schedule.asked) < 5_000


def test_a_schedule_that_is_seldom_due_is_looked_for_as_far_back_as_it_takes() -> None:
    now = datetime(2060, 7, 1, tzinfo=UTC)
    decided = turn(cron("0 0 29 2 *"), Terms(), datetime(2032, 2, 29, tzinfo=UTC), now)
    assert decided.run == (datetime(2060, 2, 29, tzinfo=UTC),)
    assert len(decided.missed) == 7


def test_nothing_is_due_before_the_start_or_after_the_end() -> None:
    terms = Terms(start_at=NOON, end_at=NOON + HOUR)
    assert first_slot(every(minutes=30), terms, NOON - 5 * HOUR) == NOON
    assert first_slot(every(minutes=30), terms, NOON) == NOON + 30 * timedelta(minutes=1)
    assert first_slot(every(minutes=30), terms, NOON + HOUR) is None
    decided = turn(every(minutes=30), terms, NOON + HOUR, NOON + 5 * HOUR)
    assert decided == Turn(run=(NOON + HOUR,), next=None)


def test_what_is_due_once_has_no_next() -> None:
    assert turn(clocked(NOON), Terms(), NOON, NOON + SECOND) == Turn(run=(NOON,), next=None)
    assert first_slot(clocked(NOON), Terms(), NOON) is None


def test_a_slot_that_is_not_due_yet_stays() -> None:
    assert turn(every(10), Terms(), NOON + 10 * SECOND, NOON) == Turn(next=NOON + 10 * SECOND)


def test_both_of_the_hours_that_a_clock_shows_twice_are_run() -> None:
    hourly = crontab(minute=0, tz="Europe/Berlin")
    first = datetime(2030, 10, 27, 0, tzinfo=UTC)
    decided = turn(hourly, Terms(missed="all"), first, first + 2 * HOUR)
    assert decided.run == (first, first + HOUR, first + 2 * HOUR)


def test_the_id_of_a_slot_is_the_same_wherever_it_is_made_and_sorts_by_time() -> None:
    one, again, later, other = (slot_id(*given) for given in ((7, NOON), (7, NOON), (7, NOON + SECOND), (8, NOON)))
    assert one == again
    assert len({one, later, other}) == 3
    assert one == slot_id(7, NOON.astimezone(timezone(HOUR)))
    assert one < later
    assert UUID(one).version == 7
    assert valid_id(one)
