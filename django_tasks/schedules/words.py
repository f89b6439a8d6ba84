"""How does one say when a crontab is due?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from django_tasks.schedules.fields import DAY_OF_MONTH, DAY_OF_WEEK, HOUR, MINUTE, MONTH_OF_YEAR, SECOND, Field, runs

_MOST_TIMES = 6
"""So many times of day are listed one by one."""


@dataclass(frozen=True, slots=True)
class Times:
    """The times of day that match."""

    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Days:
    """The dates that match: both kinds of day, or either."""

    of_month: tuple[int, ...]
    of_week: tuple[int, ...]
    months: tuple[int, ...]
    either: bool


def describe(times: Times, days: Days, tz: str | None) -> str:
    """Return a sentence without its end: "at 03:30 on Monday, in Europe/Berlin"."""
    words = " ".join(filter(None, [_times(times), _days(days), _months(days.months)]))
    return f"{words}, in {tz}" if tz else words


def _times(times: Times) -> str:
    whole = times.seconds == (0,)
    if len(times.hours) * len(times.minutes) * len(times.seconds) <= _MOST_TIMES:
        listed = product(times.hours, times.minutes, times.seconds)
        return "at " + _series([f"{h:02}:{m:02}" if whole else f"{h:02}:{m:02}:{s:02}" for h, m, s in listed])
    minutes = _often(MINUTE, times.minutes, "minute")
    seconds = _often(SECOND, times.seconds, "second") or f"at {_numbers('second', times.seconds)}"
    hours = _hours(times.hours) or "of every hour"
    if whole:
        # "every 5 minutes" says that it goes on for hours.
        often = " ".join(filter(None, [minutes, _hours(times.hours)]))
        return often if minutes else f"at {_numbers('minute', times.minutes)} {hours}"
    if times.minutes == MINUTE.every:
        minutes = "" if seconds.startswith("every") else "of every minute"
        return " ".join(filter(None, [seconds, minutes, _hours(times.hours)]))
    return f"{seconds} of {_numbers('minute', times.minutes)} {hours}"


def _often(field: Field, numbers: tuple[int, ...], unit: str) -> str:
    """Return "every minute", "every 5 minutes"; nothing where the distances differ, or the last one would."""
    if numbers == field.every:
        return f"every {unit}"
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 0
    even = step and 60 % step == 0 and numbers == tuple(range(0, 60, step))
    return f"every {step} {unit}s" if even else ""


def _hours(hours: tuple[int, ...]) -> str:
    if hours == HOUR.every:
        return ""
    if len(stretches := runs(hours)) == 1 and len(hours) > 1:
        first, last = stretches[0]
        return f"from {first:02}:00 to {last:02}:59"
    return f"of {_numbers('hour', hours)}"


def _days(days: Days) -> str:
    in_month = "" if days.of_month == DAY_OF_MONTH.every else f"on {_numbers('day', days.of_month)} of the month"
    if days.of_week == DAY_OF_WEEK.every:
        return in_month
    in_week = _stretches(days.of_week, DAY_OF_WEEK.title, " to ")
    if in_month:
        return f"{in_month}{' or on' if days.either else ' if on'} {_series(in_week, 'or')}"
    return f"on {_series(in_week)}"


def _months(months: tuple[int, ...]) -> str:
    if months == MONTH_OF_YEAR.every:
        return ""
    return f"in {_series(_stretches(months, MONTH_OF_YEAR.title, ' to '))}"


def _numbers(unit: str, numbers: tuple[int, ...]) -> str:
    """Return "minute 5", "minutes 5, 10 and 20-30"."""
    return f"{unit}{'s' * (len(numbers) > 1)} {_series(_stretches(numbers, str, '-'))}"


def _stretches(numbers: tuple[int, ...], title: Callable[[int], str], to: str) -> list[str]:
    found = []
    for first, last in runs(numbers):
        if last - first > 1:
            found.append(f"{title(first)}{to}{title(last)}")
        else:
            found += [title(number) for number in range(first, last + 1)]
    return found


def _series(words: Sequence[str], joint: str = "and") -> str:
    *most, last = words
    return f"{', '.join(most)} {joint} {last}" if most else last
