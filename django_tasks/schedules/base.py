"""When is it time? The contract of every schedule."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from datetime import UTC, datetime

from django_tasks.exceptions import ScheduleError

_EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 12, 31, tzinfo=UTC)
"""In the year after, the last that is counted, some time zones run over its end."""


class Schedule(ABC):
    """Says when something is due: a value, and a pure function of time.

    `next` is the whole contract. A schedule of your own that is a frozen dataclass with fields that JSON knows can be
    compared, hashed and stored as it stands.
    """

    __slots__ = ()

    @abstractmethod
    def next(self, after: datetime) -> datetime | None:
        """Return the first moment strictly after another, both aware; None when there is none any more.

        The answer follows from the schedule and `after` alone: never from the clock, nor from what was asked before.
        """

    def describe(self) -> str:
        """Return in words when it is due, for people: "every 5 minutes"."""
        return self.text()

    def text(self) -> str:
        """Return what `schedules.parse` makes an equal schedule of; raises TypeError where that cannot be written."""
        kind = type(self)
        path = f"{kind.__module__}.{kind.__qualname__}"
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"{path} is no dataclass: give it a method text() that says how it is stored.")
        arguments = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}
        try:
            written = json.dumps(arguments, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{path} has a field that JSON does not know; give it a method text(): {error}") from error
        return f"{path} {written}" if arguments else path

    def within(self, tz: str) -> Schedule:
        """Return the schedule in this time zone, if it tells the time by a wall clock and has no zone of its own."""
        return self

    def __str__(self) -> str:
        return self.describe()


def asked(after: datetime) -> datetime:
    """Return the moment that `next` is asked about in UTC; at the ends of time, one that every time zone can tell."""
    _check("after", after)
    try:
        return max(after.astimezone(UTC), _EARLIEST)
    except OverflowError:
        return _EARLIEST if after.year == 1 else LATEST


def in_utc(name: str, moment: datetime) -> datetime:
    """Return a moment in UTC, so that one moment is one value in whatever zone it was given."""
    _check(name, moment)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ScheduleError(f"{name}={moment.isoformat()} is beyond the years 1 to 9999 in UTC.") from error


def _check(name: str, moment: datetime) -> None:
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} is a datetime, not {moment!r}.")
    if moment.utcoffset() is None:
        raise ScheduleError(f"{name}={moment.isoformat()} has no time zone: give it one, such as tzinfo=datetime.UTC.")


def read_moment(name: str, text: str) -> datetime:
    """Read a moment in ISO 8601 with its offset."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ScheduleError(f"{name}={text!r} is no date and time, such as 2030-12-24T18:00:00+00:00.") from error
    return in_utc(name, found)
