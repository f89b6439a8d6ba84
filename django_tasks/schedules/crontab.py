"""When a clock on a wall shows certain times, on certain days."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo

from django_tasks.exceptions import ScheduleError
from django_tasks.schedules.base import LATEST, Schedule, asked
from django_tasks.schedules.fields import (
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    MINUTE,
    MONTH_OF_YEAR,
    SECOND,
    Spec,
)
from django_tasks.schedules.wallclock import WallClock, key_of, wall_clock
from django_tasks.schedules.words import Days, Times, describe

_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WEEKDAYS = {name[:3].lower() for name in DAY_OF_WEEK.names}
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class Crontab(Schedule):
    """Due when the clock on a wall in a time zone shows a time that all fields match.

    Made by `crontab` and `cron`. The fields are sorted numbers, and Sunday is 0. What happens when clocks are changed
    depends on whether hours are restricted:

    * All 24 hours match: it is due at each moment when the clock shows a matching time. So it is due in both rounds of
      an hour that is shown twice, and not in one that is left out: it keeps its rhythm in elapsed time.
    * Else each matching time of each matching date is due once: for a time that is shown twice, at the first of the
      two; for a time in a gap, at the gap's end. Times that so fall together are due once.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days_of_month: tuple[int, ...]
    months: tuple[int, ...]
    days_of_week: tuple[int, ...]
    seconds: tuple[int, ...] = (0,)
    either: bool = False
    """One of the two kinds of day is enough; else both must match."""
    tz: str | None = None
    """The key of its time zone. None: UTC, until `within` gives it one."""

    def next(self, after: datetime) -> datetime | None:
        """Return the first moment after another at which it is due, in UTC; None for a date that never comes."""
        after = asked(after)
        if after >= LATEST or not self._comes():
            return None
        clock = wall_clock(self.tz)
        first_shown, last_shown = clock.after(after)
        if self.hours != HOUR.every:
            wall = self._match(first_shown)
            if wall is None:
                return None
            shown = clock.moments(wall)
            return clock.end_of_gap(wall) if shown is None else shown[0]
        found = self._shown(clock, first_shown)
        if found is None or first_shown == last_shown:
            return found and found[0]
        again = self._shown(clock, last_shown)
        return found[0] if again is None else min(found[0], again[1])

    def describe(self) -> str:
        """Return "every 5 minutes", "at 03:30 on Monday, in Europe/Berlin"."""
        days = Days(self.days_of_month, self.days_of_week, self.months, self.either)
        return describe(Times(self.hours, self.minutes, self.seconds), days, self.tz)

    def text(self) -> str:
        """Return "crontab 30 3 * * mon Europe/Berlin": minute, hour, day of month, month, day of week, time zone.

        It begins with "cron" where one of the two kinds of day is enough, and has six fields, the first for seconds,
        where these matter. Schedules that are due at the same times have the same text, of 500 characters at most.
        """
        fields = [
            MINUTE.compact(self.minutes),
            HOUR.compact(self.hours),
            DAY_OF_MONTH.compact(self.days_of_month, star=not self.either),
            MONTH_OF_YEAR.compact(self.months),
            DAY_OF_WEEK.compact(self.days_of_week, star=not self.either),
        ]
        if self.seconds != (0,):
            fields.insert(0, SECOND.compact(self.seconds))
        return " ".join(["cron" if self.either else "crontab", *fields, *filter(None, [self.tz])])

    def within(self, tz: str) -> Crontab:
        """Return it in a time zone, if it has none."""
        return self if self.tz is not None else dataclasses.replace(self, tz=key_of(tz))

    def _comes(self) -> bool:
        """Tell whether there is such a date: within 400 years, each falls on each day of the week."""
        return self.either or any(self.days_of_month[0] <= _LONGEST_MONTHS[month - 1] for month in self.months)

    def _shown(self, clock: WallClock, wall: datetime) -> tuple[datetime, datetime] | None:
        """Return the moments at which the clock shows the first matching time, from one on, that it ever shows."""
        found = self._match(wall)
        while found is not None:
            shown = clock.moments(found)
            if shown is not None:
                return shown
            found = self._match(clock.shows(clock.end_of_gap(found)))
        return None

    def _match(self, wall: datetime) -> datetime | None:
        """Return the first matching time from one on, whether the clock shows it or not."""
        day = self._day(wall.date())
        if day is None:
            return None
        if day == wall.date():
            rest = self._time(wall.hour, wall.minute, wall.second)
            if rest is not None:
                return datetime.combine(day, rest)
            day = self._day(day + timedelta(days=1))
            if day is None:
                return None
        return datetime.combine(day, time(self.hours[0], self.minutes[0], self.seconds[0]))

    def _time(self, hour: int, minute: int, second: int) -> time | None:
        """Return the first matching time of day from one on."""
        for later_hour in self.hours[bisect_left(self.hours, hour) :]:
            if later_hour > hour:
                return time(later_hour, self.minutes[0], self.seconds[0])
            for later_minute in self.minutes[bisect_left(self.minutes, minute) :]:
                if later_minute > minute:
                    return time(hour, later_minute, self.seconds[0])
                place = bisect_left(self.seconds, second)
                if place < len(self.seconds):
                    return time(hour, minute, self.seconds[place])
        return None

    def _day(self, begin: date) -> date | None:
        """Return the first matching date from one on."""
        for year in range(begin.year, LATEST.year + 1):
            for month in self.months:
                if (year, month) < (begin.year, begin.month):
                    continue
                least = begin.day if (year, month) == (begin.year, begin.month) else 1
                day = self._day_of(year, month, least)
                if day:
                    return date(year, month, day)
        return None

    def _day_of(self, year: int, month: int, least: int) -> int:
        """Return the first matching day of a month from one on, or 0."""
        weekday, length = monthrange(year, month)
        for day in DAY_OF_MONTH.every if self.either else self.days_of_month:
            if day > length:
                break
            # The weekday of the first is counted from Monday, ours from Sunday.
            in_week = (weekday + day) % 7 in self.days_of_week
            if day >= least and (in_week or (self.either and day in self.days_of_month)):
                return day
        return 0


def crontab(
    minute: Spec = "*",
    hour: Spec = "*",
    day_of_week: Spec = "*",
    day_of_month: Spec = "*",
    month_of_year: Spec = "*",
    tz: str | tzinfo | None = None,
) -> Crontab:
    """Return a schedule with Celery's arguments and their meaning: a day is due when all three day fields match.

    A field is a number, numbers, or text: `*`, `5`, `1-5`, `*/15`, `8-18/2`, `mon-fri`, and lists of these with commas.
    Raises ScheduleError for what a field cannot hold, and TypeError for what is no field at all.
    """
    return Crontab(
        minutes=MINUTE.expand(minute),
        hours=HOUR.expand(hour),
        days_of_month=DAY_OF_MONTH.expand(day_of_month),
        months=MONTH_OF_YEAR.expand(month_of_year),
        days_of_week=DAY_OF_WEEK.expand(day_of_week),
        tz=key_of(tz),
    )


def cron(expression: str, tz: str | tzinfo | None = None) -> Crontab:
    """Return the schedule of a line of cron, with cron's meaning: `cron("*/5 4 * * mon-fri")`, `cron("@daily")`.

    Five fields: minute, hour, day of month, month, day of week; or six, with seconds first. If both kinds of day are
    restricted, that is, neither begins with `*`, one of them is enough: so does Vixie's cron, see crontab(5).
    """
    fields = _fields(expression)
    found = _all_of(fields, tz)
    if fields[-3].startswith("*") or fields[-1].startswith("*"):
        return found
    if found.days_of_month == DAY_OF_MONTH.every or found.days_of_week == DAY_OF_WEEK.every:
        # One of them always matches: every day, and in one spelling.
        return dataclasses.replace(found, days_of_month=DAY_OF_MONTH.every, days_of_week=DAY_OF_WEEK.every)
    return dataclasses.replace(found, either=True)


def read_crontab(text: str) -> Crontab:
    """Read what follows the word "crontab": the fields of a line of cron, all of which must match, and its zone."""
    expression, tz = _with_zone(text)
    return _all_of(_fields(expression), tz)


def read_cron(text: str) -> Crontab:
    """Read what follows the word "cron": a line of cron, and its zone."""
    return cron(*_with_zone(text))


def _all_of(fields: list[str], tz: str | tzinfo | None) -> Crontab:
    minute, hour, day_of_month, month_of_year, day_of_week = fields[-5:]
    found = crontab(minute, hour, day_of_week, day_of_month, month_of_year, tz)
    return dataclasses.replace(found, seconds=SECOND.expand(fields[0])) if len(fields) == 6 else found


def _fields(expression: str) -> list[str]:
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in _NICKNAMES:
            raise ScheduleError(f"{text!r} names no times. Allowed are {', '.join(_NICKNAMES)}.")
        text = _NICKNAMES[text.lower()]
    fields = text.split()
    if len(fields) not in {5, 6}:
        raise ScheduleError(
            f"{expression!r} has {len(fields)} fields. Allowed are five (minute, hour, day of month, month, day of "
            "week), and six, with seconds first; lists are written without spaces."
        )
    return fields


def _with_zone(text: str) -> tuple[str, str | None]:
    """Part a line of cron from the time zone that may follow it."""
    *fields, last = text.split() or [""]
    nicknamed = len(fields) == 1 and fields[0].startswith("@")
    # The sixth of six words is a day of the week or a zone; no zone begins as a day does.
    named = len(fields) == 5 and last[:1].isalpha() and last[:3].lower() not in _WEEKDAYS
    if nicknamed or named or len(fields) == 6:
        return " ".join(fields), last
    return text, None
