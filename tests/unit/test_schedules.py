"""Are intervals, moments and schedules of one's own due when they say, and do they come back from their text?"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import django_tasks
from django_tasks import schedules
from django_tasks.exceptions import DjangoTasksError, ScheduleError
from django_tasks.schedules import Interval, Schedule, build, clocked, cron, crontab, every, parse, solar

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
HERE = __name__


@dataclass(frozen=True, slots=True)
class Doubling(Schedule):
    """Due 1, 2, 4, 8, ... days after a date."""

    since: str
    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError("factor is 2 or more")

    def next(self, after: datetime) -> datetime | None:
        begin, days = datetime.fromisoformat(self.since).replace(tzinfo=UTC), 1
        while begin + timedelta(days=days) <= after:
            days *= self.factor
        return begin + timedelta(days=days)


@dataclass(frozen=True)
class Never(Schedule):
    def next(self, after: datetime) -> datetime | None:
        return None


class Plain(Schedule):
    def next(self, after: datetime) -> datetime | None:
        return None


@dataclass(frozen=True)
class Holder(Schedule):
    held: object

    def next(self, after: datetime) -> datetime | None:
        return None


# Intervals


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (every(10), NOON + timedelta(seconds=10)),
        (every(0.25), NOON + timedelta(seconds=0.25)),
        (every(minutes=5), NOON + timedelta(minutes=5)),
        (every(timedelta(hours=8)), datetime(2026, 11, 28, 16, tzinfo=UTC)),
        (every(days=1), datetime(2026, 11, 29, tzinfo=UTC)),
        # The epoch was a Thursday.
        (every(days=7), datetime(2026, 12, 3, tzinfo=UTC)),
        (every(30, minutes=1), datetime(2026, 11, 28, 12, 1, 30, tzinfo=UTC)),
        (every(hours=1, start=datetime(2026, 1, 1, 0, 20, tzinfo=UTC)), datetime(2026, 11, 28, 12, 20, tzinfo=UTC)),
        (every(days=1, start=NOON + timedelta(days=9)), NOON + timedelta(days=9)),
    ],
)
def test_an_interval_is_due_on_its_grid(schedule: Schedule, expected: datetime) -> None:
    assert schedule.next(NOON) == expected
    assert schedule.next(expected - timedelta(microseconds=1)) == expected


def test_an_interval_does_not_drift_however_late_its_runs_are() -> None:
    schedule, moment = every(minutes=5), NOON
    for late in range(0, 299, 7):
        coming = schedule.next(moment)
        assert coming is not None
        assert coming.minute % 5 == coming.second == coming.microsecond == 0
        moment = coming + timedelta(seconds=late)
    assert moment - NOON < timedelta(minutes=5 * 44)


def test_an_interval_is_elapsed_time_whatever_clocks_show() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    schedule = every(hours=24, start=datetime(2026, 3, 28, 12, tzinfo=berlin))
    assert schedule.next(datetime(2026, 3, 28, 13, tzinfo=berlin)) == datetime(2026, 3, 29, 13, tzinfo=berlin)


def test_an_interval_ends_with_time() -> None:
    assert every(timedelta.max).next(NOON) is None
    assert every(1).next(datetime.max.replace(tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (every, ScheduleError, "0 seconds never ends: it must be above 0"),
        (lambda: every(-5), ScheduleError, "-5 seconds never ends"),
        (lambda: every(float("nan")), ScheduleError, "interval=nan is no length of time"),
        (lambda: every(days=1e300), ScheduleError, "days=1e+300: that is longer than time is counted"),
        (lambda: every("5"), TypeError, "interval is a number of seconds or a timedelta, not '5'"),  # type: ignore[arg-type]
        (lambda: Interval(5), TypeError, "step is a timedelta, not 5"),  # type: ignore[arg-type]
        (lambda: solar("sunset", "52", 13), TypeError, "latitude is a number of degrees, not '52'"),  # type: ignore[arg-type]
        (lambda: every(minutes=True), TypeError, "minutes is a number, not True"),
        (
            lambda: every(5, start=NOON.replace(tzinfo=None)),
            ScheduleError,
            "start=2026-11-28T12:00:00 has no time zone",
        ),
        (lambda: clocked(NOON.replace(tzinfo=None)), ScheduleError, "at=2026-11-28T12:00:00 has no time zone"),
        (lambda: clocked("2026-11-28"), TypeError, "at is a datetime, not '2026-11-28'"),  # type: ignore[arg-type]
        (lambda: every(5).next(NOON.replace(tzinfo=None)), ScheduleError, "after=2026-11-28T12:00:00 has no time zone"),
    ],
)
def test_what_is_no_interval_and_no_moment_is_refused(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert words in str(caught.value)


# Single moments


def test_a_single_moment_is_due_once() -> None:
    schedule = clocked(NOON)
    assert schedule.next(NOON - timedelta(microseconds=1)) == NOON
    assert schedule.next(NOON) is None
    assert schedule.next(NOON + timedelta(days=1)) is None


def test_one_moment_is_one_schedule_in_whatever_zone_it_was_given() -> None:
    tokyo = NOON.astimezone(ZoneInfo("Asia/Tokyo"))
    assert clocked(tokyo) == clocked(NOON)
    assert hash(clocked(tokyo)) == hash(clocked(NOON))
    assert every(5, start=tokyo) == every(5, start=NOON)


# Texts


@pytest.mark.parametrize(
    ("schedule", "text", "words"),
    [
        (every(10), "every 10 seconds", "every 10 seconds"),
        (every(1), "every 1 second", "every second"),
        (every(0.5), "every 0.5 seconds", "every 0.5 seconds"),
        (every(minutes=90), "every 1 hour 30 minutes", "every 1 hour and 30 minutes"),
        (every(days=14), "every 14 days", "every 14 days"),
        (
            every(days=1, hours=2, seconds=3.000001, start=NOON),
            "every 1 day 2 hours 3.000001 seconds from 2026-11-28T12:00:00+00:00",
            "every 1 day, 2 hours and 3.000001 seconds from 2026-11-28 12:00:00 UTC",
        ),
        (clocked(NOON), "clocked 2026-11-28T12:00:00+00:00", "once, at 2026-11-28 12:00:00 UTC"),
        (solar("sunset", 52.52, 13), "solar sunset 52.52 13.0", "at sunset at latitude 52.52, longitude 13"),
        (
            solar("dawn_civil", -33.87, 151.21),
            "solar dawn_civil -33.87 151.21",
            "at civil dawn at latitude -33.87, longitude 151.21",
        ),
        (
            solar("solar_noon", 0, 0),
            "solar solar_noon 0.0 0.0",
            "at solar noon at latitude 0, longitude 0",
        ),
        (crontab(0, 4, tz="Europe/Berlin"), "crontab 0 4 * * * Europe/Berlin", "at 04:00, in Europe/Berlin"),
        (crontab("*/5", "8-17", "mon-fri"), "crontab */5 8-17 * * mon-fri", None),
        (crontab("1-31/2", 0, "*/2", "1-31/2", "*/3"), "crontab 1-31/2 0 */2 jan,apr,jul,oct sun,tue,thu,sat", None),
        (cron("0 0 1-31/2 * mon,tue"), "cron 0 0 1-31/2 * mon,tue", None),
        (cron("*/20 0 0 * * *", "UTC"), "crontab */20 0 0 * * * UTC", None),
        (Doubling("2026-01-01"), f'{HERE}.Doubling {{"since": "2026-01-01", "factor": 2}}', None),
        (Never(), f"{HERE}.Never", f"{HERE}.Never"),
    ],
)
def test_a_schedule_is_stored_as_a_text_and_read_back(schedule: Schedule, text: str, words: str | None) -> None:
    assert schedule.text() == text
    assert parse(text) == schedule
    assert hash(parse(text)) == hash(schedule)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    if words is not None:
        assert schedule.describe() == str(schedule) == words


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("every minute", every(60)),
        ("  every   2 weeks  1 day ", every(days=15)),
        ("every\n5 minutes", every(minutes=5)),
        ("every 90 minutes from 2026-11-28T12:00:00Z", every(minutes=90, start=NOON)),
        ("crontab 0 4 * * mon", crontab(0, 4, "mon")),
        ("crontab 0 4 1-7 * mon UTC", crontab(0, 4, "mon", "1-7", tz="UTC")),
        ("crontab 30 0 4 * * mon", cron("30 0 4 * * mon")),
        ("crontab 30 0 4 * * mon Asia/Tokyo", cron("30 0 4 * * mon", "Asia/Tokyo")),
        ("cron 0 4 1-7 * mon Asia/Tokyo", cron("0 4 1-7 * mon", "Asia/Tokyo")),
        ("cron @daily", cron("@daily")),
        ("cron @daily Asia/Tokyo", cron("@daily", "Asia/Tokyo")),
        ("@daily", cron("@daily")),
        ("*/5 * * * *", cron("*/5 * * * *")),
        ("0 4 1 * mon Europe/Berlin", cron("0 4 1 * mon", "Europe/Berlin")),
        ("clocked 2026-11-28T13:00:00+01:00", clocked(NOON)),
    ],
)
def test_people_write_texts_in_their_own_way(text: str, schedule: Schedule) -> None:
    assert parse(text) == schedule


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no schedule. It begins with every, crontab, cron, clocked, solar, or the dotted path of a class"),
        ("weekly", "'weekly' is no schedule"),
        ("every", "expected numbers with their units, such as 'every 5 minutes'"),
        ("every 5", "every 5: expected numbers with their units"),
        ("every 5 fortnights", "Allowed are weeks, days, hours, minutes and seconds"),
        ("every 0 seconds", "0 seconds never ends"),
        ("every 999999999999 weeks", "longer than time is counted"),
        ("every 5 minutes from noon", "start='noon' is no date and time, such as 2030-12-24T18:00:00+00:00"),
        ("every 5 minutes from 2026-11-28T12:00:00", "start=2026-11-28T12:00:00 has no time zone"),
        ("clocked tomorrow", "at='tomorrow' is no date and time"),
        ("clocked 2026-11-28", "at=2026-11-28T00:00:00 has no time zone"),
        ("crontab 0 4 * *", "has 4 fields"),
        ("crontab 0 25 * * *", "hour='25': 25 is too large"),
        ("crontab 0 4 * * * Europe/Bonn", "this host knows no such time zone"),
        ("solar", "expected an event, latitude and longitude, such as 'solar sunset 52.52 13.405'"),
        ("solar sunset 52.52", "expected an event, latitude and longitude"),
        ("solar sunset here there", "expected an event, latitude and longitude"),
        ("solar sunset 100 0", "latitude=100.0: allowed are"),
        ("clocked 0001-01-01T00:00:00+14:00", "at=0001-01-01T00:00:00+14:00 is beyond the years 1 to 9999 in UTC"),
        (".Workdays", ".Workdays cannot be imported"),
        ("..Workdays.Early", "..Workdays.Early cannot be imported"),
        ("nowhere.Workdays", "nowhere.Workdays cannot be imported"),
        ("datetime.datetime", "datetime.datetime is no subclass of django_tasks.schedules.Schedule"),
        ("django_tasks.schedules.Schedule", "cannot be made with {}"),
        (f"{HERE}.Doubling {{", "'{' is no JSON"),
        (f"{HERE}.Doubling [1]", "arguments are a JSON object"),
        (f"{HERE}.Doubling {{}}", "cannot be made with {}: "),
        (f'{HERE}.Doubling {{"since": "2026-01-01", "factor": 1}}', "factor is 2 or more"),
        (f"{HERE}.Doubling " + "[" * 100_000, "is no JSON"),
    ],
)
def test_a_text_that_is_no_schedule_is_refused(text: str, words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert words in str(caught.value)


def test_one_error_is_enough_for_whoever_reads_schedules() -> None:
    assert issubclass(ScheduleError, DjangoTasksError)
    assert issubclass(ScheduleError, ValueError)


# One's own


def test_one_of_your_own_is_built_from_its_path_and_arguments() -> None:
    schedule = build(f"{HERE}.Doubling", {"since": "2026-11-01", "factor": 3})
    assert schedule == Doubling("2026-11-01", 3)
    assert schedule.next(NOON) == datetime(2027, 1, 21, tzinfo=UTC)


def test_one_of_your_own_that_cannot_be_written_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="Plain is no dataclass: give it a method text()"):
        Plain().text()
    with pytest.raises(TypeError, match="Holder has a field that JSON does not know; give it a method text()"):
        Holder(NOON).text()


@pytest.mark.parametrize("schedule", [every(5), clocked(NOON), solar("sunset", 0, 0), Never()])
def test_what_knows_no_wall_clock_stays_as_it_is_in_any_zone(schedule: Schedule) -> None:
    assert schedule.within("Asia/Tokyo") is schedule


def test_public_names() -> None:
    assert {"crontab", "every", "solar", "clocked"} <= set(django_tasks.__all__)
    assert all(getattr(django_tasks, name) is getattr(schedules, name) for name in ("crontab", "every", "solar"))
    assert all(hasattr(schedules, name) for name in schedules.__all__)
