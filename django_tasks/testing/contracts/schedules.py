"""Does a schedule keep its contract?

    class TestWorkdays(ScheduleContract):
        @pytest.fixture
        def schedule(self):
            return Workdays(hour=9)

The fixture gives a new one each time, equal to the one before.
"""

from __future__ import annotations

import pickle
import random
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

import pytest

from django_tasks.exceptions import ScheduleError
from django_tasks.schedules import Schedule, parse

ELSEWHERE = ZoneInfo("America/St_Johns")


class ScheduleContract:
    """Everything that `Schedule` promises; inherit from it under a name that starts with Test."""

    begin: ClassVar[datetime] = datetime(2025, 1, 1, tzinfo=UTC)
    """Where the tests start to ask; something should be due after it."""
    asked: ClassVar[int] = 50
    """How often each test asks."""

    def moments(self, schedule: Schedule) -> list[datetime]:
        """Return so many moments at which it is due, or all that there are."""
        found: list[datetime] = []
        coming = schedule.next(self.begin)
        while coming is not None and len(found) < self.asked:
            found.append(coming)
            coming = schedule.next(coming)
        return found

    def test_each_moment_is_aware_and_strictly_after_the_one_before(self, schedule: Schedule) -> None:
        before = self.begin
        for moment in self.moments(schedule):
            assert moment.utcoffset() is not None
            # In UTC: two times of one zone are compared by what its clocks show.
            assert moment.astimezone(UTC) > before.astimezone(UTC)
            before = moment

    def test_nothing_is_due_between_two_moments(self, schedule: Schedule) -> None:
        rng, before = random.Random(1), self.begin.astimezone(UTC)
        for moment in self.moments(schedule):
            between = before + (moment.astimezone(UTC) - before) * rng.random()
            assert schedule.next(between) == moment or between == moment
            assert schedule.next(moment.astimezone(UTC) - timedelta(microseconds=1)) == moment
            before = moment.astimezone(UTC)

    def test_the_answer_follows_from_the_moment_alone(self, schedule: Schedule) -> None:
        """Asked again, in another order, by another zone's time, of a copy: always the same."""
        moments = [self.begin, *self.moments(schedule)]
        answers = [schedule.next(moment) for moment in moments]
        assert [schedule.next(moment) for moment in reversed(moments)] == answers[::-1]
        assert [schedule.next(moment.astimezone(ELSEWHERE)) for moment in moments] == answers

    def test_what_is_over_stays_over(self, schedule: Schedule) -> None:
        last = (self.moments(schedule) or [self.begin])[-1]
        if schedule.next(last) is None:
            assert schedule.next(last.astimezone(UTC) + timedelta(days=3650)) is None

    def test_a_moment_without_a_time_zone_is_refused(self, schedule: Schedule) -> None:
        with pytest.raises((TypeError, ScheduleError)):
            schedule.next(self.begin.replace(tzinfo=None))

    def test_it_is_a_value(self, schedule: Schedule) -> None:
        copy = pickle.loads(pickle.dumps(schedule))  # noqa: S301 -- what was pickled the moment before
        assert copy == schedule
        assert hash(copy) == hash(schedule)
        assert self.moments(copy) == self.moments(schedule)

    def test_it_comes_back_from_its_text(self, schedule: Schedule) -> None:
        text = schedule.text()
        assert parse(text) == schedule
        assert parse(text).text() == text
        assert schedule.describe()
