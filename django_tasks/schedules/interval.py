"""Every so often, on a grid that never drifts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django_tasks.exceptions import ScheduleError
from django_tasks.schedules.base import Schedule, asked, in_utc, read_moment

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {
    "week": timedelta(weeks=1),
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}
_PART = re.compile(r"(?:(?P<number>[0-9]{1,12}(?:\.[0-9]{1,6})?)\s+)?(?P<unit>week|day|hour|minute|second)s?(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Interval(Schedule):
    """Due every `step` of elapsed time: at `start`, and at whole steps from there.

    The grid is fixed, whenever it is looked at: late runs, restarts and changes of the clock do not move it. Without a
    start it begins at the epoch (1970-01-01 00:00 UTC) and has no beginning: every(hours=1) is on the hour, in UTC.
    """

    step: timedelta
    start: datetime | None = None
    """Nothing is due before it."""

    def __post_init__(self) -> None:
        if not isinstance(self.step, timedelta):
            raise TypeError(f"step is a timedelta, not {self.step!r}.")
        if self.step <= timedelta(0):
            raise ScheduleError(f"An interval of {self.step.total_seconds():g} seconds never ends: it must be above 0.")
        if self.start is not None:
            object.__setattr__(self, "start", in_utc("start", self.start))

    def next(self, after: datetime) -> datetime | None:
        """Return the first point of the grid after a moment; None beyond the year 9999."""
        after = asked(after)
        if self.start is not None and after < self.start:
            return self.start
        anchor = self.start or EPOCH
        try:
            return anchor + ((after - anchor) // self.step + 1) * self.step
        except OverflowError:
            return None

    def describe(self) -> str:
        """Return "every 5 minutes", "every 1 hour and 30 minutes from 2030-01-01 08:00 UTC"."""
        *most, last = _parts(self.step)
        words = f"every {', '.join(most)} and {last}" if most else f"every {last.removeprefix('1 ')}"
        if self.start is None:
            return words
        return f"{words} from {self.start.replace(tzinfo=None).isoformat(' ')} UTC"

    def text(self) -> str:
        """Return "every 5 minutes", "every 1 hour 30 minutes from 2030-01-01T08:00:00+00:00"."""
        words = f"every {' '.join(_parts(self.step))}"
        return words if self.start is None else f"{words} from {self.start.isoformat()}"


def every(
    interval: float | timedelta | None = None,
    *,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    start: datetime | None = None,
) -> Interval:
    """Return a schedule that is due every so many seconds, or every `timedelta`, or every sum of the keywords.

    `every(10)`, `every(minutes=5)`, `every(timedelta(days=1), start=datetime(2030, 1, 1, 8, tzinfo=UTC))`. Time is
    elapsed time, not that of a wall clock: for "every day at eight", whatever the clocks do, use `crontab(0, 8)`.
    """
    return Interval(_sum(interval, {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}), start)


def read_interval(text: str) -> Interval:
    """Read what follows the word "every": "5 minutes", "hour", "1 day 12 hours from 2030-01-01T08:00:00+00:00"."""
    words, begins, start = text.partition(" from ")
    step, place, words = timedelta(0), 0, words.strip()
    while place < len(words):
        part = _PART.match(words, place)
        if part is None:
            raise ScheduleError(_unreadable(text))
        number = Decimal(part["number"] or 1)
        try:
            step += int(number * 10**6) * (_UNITS[part["unit"]] / 10**6)
        except OverflowError as error:
            raise ScheduleError(f"every {text}: that is longer than time is counted.") from error
        place = part.end()
    if not words:
        raise ScheduleError(_unreadable(text))
    return Interval(step, read_moment("start", start.strip()) if begins else None)


def _unreadable(text: str) -> str:
    return (
        f"every {text}: expected numbers with their units, such as 'every 5 minutes' or 'every 1 day 12 hours'. "
        "Allowed are weeks, days, hours, minutes and seconds, then 'from' with a date and time."
    )


def _sum(interval: float | timedelta | None, keywords: dict[str, float]) -> timedelta:
    total = timedelta(0)
    if isinstance(interval, timedelta):
        total = interval
    elif interval is not None:
        keywords = {"interval": interval} | keywords
    for name, number in keywords.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"{name} is a number{' of seconds or a timedelta' * (name == 'interval')}, not {number!r}.")
        if not math.isfinite(number):
            raise ScheduleError(f"{name}={number} is no length of time.")
        try:
            total += timedelta(**{"seconds" if name == "interval" else name: number})
        except OverflowError as error:
            raise ScheduleError(f"{name}={number}: that is longer than time is counted.") from error
    return total


def _parts(step: timedelta) -> list[str]:
    """Return a length of time as numbers of units, the largest first."""
    parts = []
    rest = step
    for unit in ("day", "hour", "minute"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count} {unit}{'s' * (count != 1)}")
    if rest:
        count = rest.seconds
        number = f"{count}.{rest.microseconds:06}".rstrip("0").rstrip(".") if rest.microseconds else str(count)
        parts.append(f"{number} second{'s' * (number != '1')}")
    return parts
