"""When the sun stands so high, as seen from one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django_tasks.exceptions import ScheduleError
from django_tasks.schedules.base import LATEST, Schedule, asked

try:
    import ephem
except ImportError:  # pragma: no cover
    ephem = None

_POLAR = 89.8
"""Degrees from which on the seasons move the sun more than the day does, so that it may rise in the afternoon."""
_SEARCHED = 370
"""Days: everywhere each of these happens within a year, at the poles on one day of it."""


@dataclass(frozen=True, slots=True)
class _Event:
    """What an event is: the sun, on its way up or down, at a height in degrees."""

    rises: bool
    height: float
    limb: bool = False
    """The upper limb is what counts, and not the centre."""


# Heights and names are Celery's; 34 minutes of arc are what the air lifts the sun by at the horizon
# (https://aa.usno.navy.mil/faq/RST_defs).
_HORIZON = -34 / 60
EVENTS: dict[str, _Event | None] = {
    "dawn_astronomical": _Event(True, -18),
    "dawn_nautical": _Event(True, -12),
    "dawn_civil": _Event(True, -6),
    "sunrise": _Event(True, _HORIZON, limb=True),
    "solar_noon": None,
    "sunset": _Event(False, _HORIZON, limb=True),
    "dusk_civil": _Event(False, -6),
    "dusk_nautical": _Event(False, -12),
    "dusk_astronomical": _Event(False, -18),
}


@dataclass(frozen=True, slots=True)
class Solar(Schedule):
    """Due at an event of each solar day, at sea level; days on which it does not happen are skipped.

    Latitude and longitude are in degrees, north and east positive. Times are whole seconds.
    """

    event: str
    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if self.event not in EVENTS:
            raise ScheduleError(f"event={self.event!r}: allowed are {', '.join(EVENTS)}.")
        for name, most in (("latitude", 90), ("longitude", 180)):
            degrees = getattr(self, name)
            if isinstance(degrees, bool) or not isinstance(degrees, int | float):
                raise TypeError(f"{name} is a number of degrees, not {degrees!r}.")
            if not -most <= degrees <= most:
                raise ScheduleError(f"{name}={degrees}: allowed are degrees from {-most} to {most}.")
            object.__setattr__(self, name, float(degrees))
        if ephem is None:
            raise ScheduleError("Solar schedules need the library ephem: pip install 'django-tasks-queue[solar]'.")

    def next(self, after: datetime) -> datetime | None:
        """Return the first event after a moment, in UTC; None at the end of time."""
        after = asked(after)
        if after >= LATEST:
            return None
        first = (after + timedelta(hours=self.longitude / 15)).date() - timedelta(days=1)
        for days in range(_SEARCHED):
            found = self._on(first + timedelta(days=days))
            if found is not None and found > after:
                return found
        return None

    def describe(self) -> str:
        """Return "at sunset at latitude 52.52, longitude 13.405"."""
        kind, _, degree = self.event.partition("_")
        event = "solar noon" if kind == "solar" else f"{degree} {kind}".strip()
        return f"at {event} at latitude {self.latitude:g}, longitude {self.longitude:g}"

    def text(self) -> str:
        """Return "solar sunset 52.52 13.405"."""
        return f"solar {self.event} {self.latitude!r} {self.longitude!r}"

    def _on(self, day: date) -> datetime | None:
        """Return when it happens on a solar day, from midnight to midnight around its noon; None if it does not.

        The search begins at the same point whoever asks, so that one event is always at the same second.
        """
        observer, sun = ephem.Observer(), ephem.Sun()
        observer.lat, observer.lon = math.radians(self.latitude), math.radians(self.longitude)
        observer.elevation = observer.pressure = 0
        morning = datetime.combine(day, time(6)) - timedelta(hours=self.longitude / 15)
        noon = observer.next_transit(sun, start=morning).datetime()
        event = EVENTS[self.event]
        if event is None:
            return _whole(noon)
        before = (observer.previous_antitransit(sun, start=noon).datetime(), noon)
        after = (noon, observer.next_antitransit(sun, start=noon).datetime())
        halves = (before, after) if event.rises else (after, before)
        for begin, end in halves if abs(self.latitude) > _POLAR else halves[:1]:
            if _above(observer, sun, event, begin) != event.rises and _above(observer, sun, event, end) == event.rises:
                return _whole(_crossing(observer, sun, event, (begin, end)))
        return None


def _above(observer: Any, sun: Any, event: _Event, moment: datetime) -> bool:
    observer.date = moment
    sun.compute(observer)
    return bool(sun.alt + sun.radius * event.limb >= math.radians(event.height))


def _crossing(observer: Any, sun: Any, event: _Event, within: tuple[datetime, datetime]) -> datetime:
    begin, end = within
    while end - begin > timedelta(milliseconds=100):
        middle = begin + (end - begin) / 2
        if _above(observer, sun, event, middle) == event.rises:
            end = middle
        else:
            begin = middle
    return end


def _whole(moment: datetime) -> datetime:
    return (moment + timedelta(microseconds=500_000)).replace(microsecond=0, tzinfo=UTC)


def solar(event: str, lat: float, lon: float) -> Solar:
    """Return a schedule for an event of the sun, with Celery's arguments; degrees north and east are positive.

    Needs the extra `solar`. Events: dawn_astronomical, dawn_nautical, dawn_civil, sunrise, solar_noon, sunset,
    dusk_civil, dusk_nautical and dusk_astronomical.
    """
    return Solar(event, lat, lon)


def read_solar(text: str) -> Solar:
    """Read what follows the word "solar": an event, latitude and longitude in degrees."""
    words = text.split()
    try:
        event, latitude, longitude = words[0], *map(float, words[1:])
    except (IndexError, ValueError) as error:
        raise ScheduleError(
            f"solar {text}: expected an event, latitude and longitude, such as 'solar sunset 52.52 13.405'."
        ) from error
    return Solar(event, latitude, longitude)
