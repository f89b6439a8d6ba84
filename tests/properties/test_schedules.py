"""Is a schedule due when a clock on the wall says so, minute by minute, wherever and whenever clocks are changed?

The oracle looks at each minute of two days around a change, and knows nothing of how `next` finds its answer. A few
changes of each zone are drawn; DJANGO_TASKS_TEST_LONG=1 takes all of twenty years, with more crontabs: some minutes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.schedules import Crontab, Schedule, clocked, cron, crontab, every, parse

LONG = bool(os.environ.get("DJANGO_TASKS_TEST_LONG"))
CHANGES = 1000 if LONG else 2
"""So many changes of each zone at most."""
CRONTABS = 30 if LONG else 4
"""So many crontabs for each change."""
MINUTE = timedelta(minutes=1)
AROUND = timedelta(hours=26)
ZONES = (
    *("Africa/Cairo", "Africa/Casablanca", "Africa/El_Aaiun", "Africa/Juba", "Africa/Tripoli"),
    *("America/Asuncion", "America/Caracas", "America/Godthab", "America/Havana", "America/Mexico_City"),
    *("America/New_York", "America/Port-au-Prince", "America/Santiago", "America/Sao_Paulo", "America/Scoresbysund"),
    *("America/St_Johns", "Antarctica/Casey", "Antarctica/Macquarie", "Antarctica/Troll", "Asia/Amman"),
    *("Asia/Beirut", "Asia/Gaza", "Asia/Jerusalem", "Asia/Kathmandu", "Asia/Pyongyang", "Asia/Tehran"),
    *("Asia/Tokyo", "Atlantic/Azores", "Australia/Eucla", "Australia/Lord_Howe", "Australia/Sydney"),
    *("Europe/Berlin", "Europe/Dublin", "Europe/Istanbul", "Europe/London", "Europe/Volgograd", "Pacific/Apia"),
    *("Pacific/Chatham", "Pacific/Easter", "Pacific/Norfolk", "US/Pacific"),
)


@cache
def changes(zone: str) -> list[datetime]:
    """Return the moments of twenty years at which a zone changes its clocks."""
    clock, step = ZoneInfo(zone), timedelta(hours=12)
    found, moment = [], datetime(2010, 1, 1, tzinfo=UTC)
    while moment.year < 2030:
        low, high = moment, moment + step
        if low.astimezone(clock).utcoffset() != high.astimezone(clock).utcoffset():
            while high - low > MINUTE:
                middle = low + (high - low) // MINUTE // 2 * MINUTE
                same = middle.astimezone(clock).utcoffset() == low.astimezone(clock).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
        moment += step
    return found


class Wall:
    """What a clock on the wall shows in each minute around a moment."""

    def __init__(self, zone: str, moment: datetime) -> None:
        clock = ZoneInfo(zone)
        self.begin = (moment - AROUND).replace(minute=0)
        self.end = moment + AROUND
        minutes = [self.begin + number * MINUTE for number in range((self.end - self.begin) // MINUTE)]
        self.shown = [(minute, minute.astimezone(clock).replace(tzinfo=None)) for minute in minutes]
        self.first: dict[datetime, datetime] = {}
        for minute, wall in self.shown:
            self.first.setdefault(wall, minute)

    def due(self, schedule: Crontab) -> list[datetime]:
        """Return the moments, after the first, at which a crontab is due, as its documentation says."""
        if len(schedule.hours) == 24:
            found = {moment for moment, wall in self.shown if matches(schedule, wall)}
        else:
            found = set(self._once(schedule))
        return sorted(found - {self.begin})

    def _once(self, schedule: Crontab) -> Iterator[datetime]:
        wall, last = self.shown[0][1], max(self.first)
        while wall <= last:
            if matches(schedule, wall):
                yield self.first[wall] if wall in self.first else self._end_of_gap(wall)
            wall += MINUTE

    def _end_of_gap(self, wall: datetime) -> datetime:
        return next(
            moment
            for (_, before), (moment, after) in zip(self.shown, self.shown[1:], strict=False)
            if before < wall < after
        )


def matches(schedule: Crontab, wall: datetime) -> bool:
    in_month, in_week = wall.day in schedule.days_of_month, wall.isoweekday() % 7 in schedule.days_of_week
    day = in_month or in_week if schedule.either else in_month and in_week
    return wall.minute in schedule.minutes and wall.hour in schedule.hours and wall.month in schedule.months and day


def draw(rng: random.Random, wall: datetime, zone: str) -> Crontab:
    """Return a crontab that is often due around a time."""
    near = rng.randint(0, 3)
    hour = (wall.hour + rng.randint(-2, 2)) % 24
    minute = rng.choice(["*", "*/10", "*/45", "0", "30", str(rng.randint(0, 59)), "5-20/5,59"])
    hours = rng.choice(["*", "*", "0", "*/2", "1-3", str(hour), f"{hour},{(hour + 1) % 24}"])
    day, weekday = (wall + timedelta(days=rng.randint(-1, 1))).day, rng.randint(0, 6)
    if near == 0:
        return cron(f"{minute} {hours} {day} * {weekday}", zone)
    dates = rng.choice(["*", "*", f"{day}", "1-15"])
    return crontab(minute, hours, rng.choice(["*", "*", "0", "mon-sat"]), dates, "*", zone)


@pytest.mark.parametrize("zone", ZONES)
def test_a_crontab_is_due_when_the_clock_on_the_wall_says_so(zone: str) -> None:
    rng = random.Random(zone)
    known = changes(zone) or [datetime(2026, 3, 29, 1, tzinfo=UTC)]
    for change in rng.sample(known, min(CHANGES, len(known))):
        wall = Wall(zone, change)
        local = change.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        for _ in range(CRONTABS):
            schedule = draw(rng, local, zone)
            due = wall.due(schedule)
            assert list(walk(schedule, wall.begin, wall.end)) == due, (schedule, change)
            # From any moment, and not only from one at which it is due.
            for _ in range(10):
                after = wall.begin + (wall.end - wall.begin) * rng.random() * 0.9
                coming = next((moment for moment in due if moment > after), None)
                if coming is not None:
                    assert schedule.next(after) == coming, (schedule, after)
                    assert schedule.next(after.astimezone(ZoneInfo(zone))) == coming


def test_the_zones_change_their_clocks_in_every_way() -> None:
    """By an hour, half of one, two and more; at midnight and at other times; some never, some four times a year."""
    sizes = set()
    for zone in ("Antarctica/Troll", "Australia/Lord_Howe", "Pacific/Apia", "Europe/Berlin"):
        clock = ZoneInfo(zone)
        for change in changes(zone):
            before, after = (change - MINUTE).astimezone(clock).utcoffset(), change.astimezone(clock).utcoffset()
            assert before is not None
            assert after is not None
            sizes.add((after - before) / timedelta(hours=1))
    assert sizes == {-2, -1, -0.5, 0.5, 1, 2, 24}


def walk(schedule: Schedule, begin: datetime, end: datetime) -> Iterator[datetime]:
    """Give each moment at which a schedule is due, after one and before another."""
    moment = schedule.next(begin)
    while moment is not None and moment < end:
        yield moment
        moment = schedule.next(moment)


MOMENTS = st.datetimes(timezones=st.just(UTC))
FIELDS: list[tuple[int, int]] = [(0, 59), (0, 23), (0, 7), (1, 31), (1, 12)]


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    part = st.one_of(
        st.just("*"),
        number,
        st.tuples(number, number).map("-".join),
        st.tuples(number, number, st.integers(1, 70)).map(lambda given: f"{given[0]}-{given[1]}/{given[2]}"),
        st.integers(1, 70).map(lambda step: f"*/{step}"),
    )
    return st.just("*") | st.lists(part, min_size=1, max_size=4).map(",".join)


MINUTES, HOURS, WEEKDAYS, DATES, MONTHS = (field(low, high) for low, high in FIELDS)
TZ = st.none() | st.sampled_from(ZONES)
CRONS: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(crontab, MINUTES, HOURS, WEEKDAYS, DATES, MONTHS, TZ),
    st.builds(cron, st.tuples(MINUTES, HOURS, DATES, MONTHS, WEEKDAYS).map(" ".join), TZ),
    st.builds(cron, st.tuples(MINUTES, MINUTES, HOURS, DATES, MONTHS, WEEKDAYS).map(" ".join), TZ),
)
STEPS = st.timedeltas(timedelta(microseconds=1), timedelta(days=10**6))
INTERVALS: st.SearchStrategy[Schedule] = st.builds(every, STEPS, start=st.none() | MOMENTS)
SCHEDULES = st.one_of(CRONS, INTERVALS, st.builds(clocked, MOMENTS))


@given(SCHEDULES, MOMENTS)
def test_next_is_later_and_nothing_is_due_between(schedule: Schedule, after: datetime) -> None:
    coming = schedule.next(after)
    if coming is not None:
        assert coming > after
        assert coming.tzinfo is UTC
        between = after + (coming - after) / 2
        assert schedule.next(between) == coming or between == coming
        assert schedule.next(coming) != coming


@given(SCHEDULES)
def test_a_schedule_comes_back_from_its_text(schedule: Schedule) -> None:
    assert len(schedule.text()) <= 500
    again = parse(schedule.text())
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.text() == schedule.text()
    assert schedule.describe()


@given(STEPS, MOMENTS, MOMENTS, st.integers(1, 10**6))
def test_an_interval_never_leaves_its_grid(step: timedelta, start: datetime, after: datetime, late: int) -> None:
    schedule = every(step, start=start)
    coming = schedule.next(after)
    if coming is None:
        return
    assert not (coming - start) % step
    assert coming == start or coming - step <= after
    # Whoever asks late, asks from another place, and gets a point of the same grid.
    last = schedule.next(coming + (datetime.max.replace(tzinfo=UTC) - coming) * (late / 10**7))
    assert last is None or not (last - start) % step


def test_seconds_are_counted_through_a_change_of_clocks() -> None:
    begin = datetime(2026, 4, 4, 13, 0, tzinfo=UTC)
    due = list(walk(cron("*/20 * * * * *", "Pacific/Chatham"), begin, begin + timedelta(hours=2)))
    assert due == [begin + number * timedelta(seconds=20) for number in range(1, 360)]
