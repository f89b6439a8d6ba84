"""Is a solar schedule due when the almanacs say that the sun rises, sets and stands highest?"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from celery import Celery
from celery.schedules import solar as celery_solar

from django_tasks.exceptions import ScheduleError
from django_tasks.schedules import solar

EVENTS = (
    *("dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon"),
    *("sunset", "dusk_civil", "dusk_nautical", "dusk_astronomical"),
)
# U.S. Naval Observatory, "Sun and Moon Data for One Day", Atlanta, 6 September 2009, in Eastern Daylight Time, as the
# documentation of PyEphem quotes it (https://rhodesmill.org/pyephem/rise-set.html).
ATLANTA = (33.8, -84.4)
# https://www.timeanddate.com/sun/uk/london, December 2015, as the tests of the library astral quote it.
LONDON = (51.51, -0.13)
# U.S. Naval Observatory for 19 49 N, 155 29 W on 15 July 2003, in Hawaii's time, as the tests of the Perl module
# Astro::Coords quote it.
MAUNA_KEA = (19.82, -155.48)
LONGYEARBYEN = (78.22, 15.65)


@pytest.mark.parametrize(
    ("place", "event", "published"),
    [
        (ATLANTA, "dawn_civil", "2009-09-06T06:50-04:00"),
        (ATLANTA, "sunrise", "2009-09-06T07:15-04:00"),
        (ATLANTA, "solar_noon", "2009-09-06T13:36-04:00"),
        (ATLANTA, "sunset", "2009-09-06T19:56-04:00"),
        (ATLANTA, "dusk_civil", "2009-09-06T20:21-04:00"),
        (LONDON, "dawn_astronomical", "2015-12-01T05:41+00:00"),
        (LONDON, "dawn_nautical", "2015-12-01T06:22+00:00"),
        (LONDON, "dawn_civil", "2015-12-01T07:04+00:00"),
        (LONDON, "sunrise", "2015-12-01T07:43+00:00"),
        (LONDON, "solar_noon", "2015-12-01T11:49+00:00"),
        (LONDON, "sunset", "2015-12-01T15:55+00:00"),
        (LONDON, "dusk_civil", "2015-12-01T16:34+00:00"),
        (LONDON, "dusk_nautical", "2015-12-01T17:16+00:00"),
        (LONDON, "dawn_astronomical", "2015-12-25T06:01+00:00"),
        (LONDON, "sunrise", "2015-12-25T08:05+00:00"),
        (MAUNA_KEA, "dawn_civil", "2003-07-15T05:27-10:00"),
        (MAUNA_KEA, "sunrise", "2003-07-15T05:51-10:00"),
        (MAUNA_KEA, "solar_noon", "2003-07-15T12:28-10:00"),
        (MAUNA_KEA, "sunset", "2003-07-15T19:04-10:00"),
        (MAUNA_KEA, "dusk_civil", "2003-07-15T19:28-10:00"),
    ],
)
def test_it_is_due_when_almanacs_say(place: tuple[float, float], event: str, published: str) -> None:
    expected = datetime.fromisoformat(published)
    coming = solar(event, *place).next(expected - timedelta(hours=10))
    assert coming is not None
    assert abs(coming - expected) <= timedelta(minutes=2)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("place", [ATLANTA, LONDON, (-33.87, 151.21), (-54.8, -68.3), (0.0, 180.0)])
def test_it_is_due_when_celerys_is(place: tuple[float, float], event: str) -> None:
    app = Celery(set_as_current=False)
    for after in (datetime(2026, month, 3, 5, 17, tzinfo=UTC) for month in (1, 4, 6, 10)):
        theirs = celery_solar(event, *place, app=app, nowfun=lambda after=after: after)
        coming = solar(event, *place).next(after)
        assert coming is not None
        assert abs(coming - after - theirs.remaining_estimate(after)) < timedelta(seconds=5)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("place", [ATLANTA, (-41.3, 174.8)])
def test_it_is_due_once_a_day_and_not_again_at_once(place: tuple[float, float], event: str) -> None:
    schedule, moments = solar(event, *place), [datetime(2026, 3, 1, tzinfo=UTC)]
    for _ in range(20):
        coming = schedule.next(moments[-1])
        assert coming is not None
        assert schedule.next(coming - timedelta(seconds=1)) == coming
        assert coming.microsecond == 0
        moments.append(coming)
    for earlier, later in pairwise(moments[1:]):
        assert abs(later - earlier - timedelta(days=1)) < timedelta(minutes=5)


def test_days_without_a_sunrise_are_skipped() -> None:
    """In Longyearbyen the sun stays down from October to February, and up from April to August."""
    rises = solar("sunrise", *LONGYEARBYEN)
    winter, summer = (rises.next(datetime(2026, month, 15, tzinfo=UTC)) for month in (11, 5))
    assert winter is not None
    assert summer is not None
    assert (winter.year, winter.month) == (2027, 2)
    assert (summer.year, summer.month) == (2026, 8)
    noon = solar("solar_noon", *LONGYEARBYEN).next(datetime(2026, 12, 21, tzinfo=UTC))
    assert noon is not None
    assert noon.day == 21


@pytest.mark.parametrize(("latitude", "month"), [(90, 3), (89.95, 3), (-90, 9), (-89.9, 9)])
def test_at_a_pole_the_sun_rises_once_a_year(latitude: float, month: int) -> None:
    schedule, moment = solar("sunrise", latitude, 0), datetime(2026, 1, 1, tzinfo=UTC)
    for year in range(2026, 2029):
        coming = schedule.next(moment)
        assert coming is not None
        assert (coming.year, coming.month) == (year, month)
        assert 15 <= coming.day <= 24
        moment = coming + timedelta(days=30)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("moonrise", 0, 0), "event='moonrise': allowed are dawn_astronomical, dawn_nautical, dawn_civil, sunrise"),
        (("sunrise", 91, 0), "latitude=91: allowed are degrees from -90 to 90"),
        (("sunrise", 0, -180.5), "longitude=-180.5: allowed are degrees from -180 to 180"),
        (("sunrise", float("nan"), 0), "latitude=nan: allowed are"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, float, float], words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        solar(*arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("event", EVENTS)
def test_at_the_ends_of_time_it_is_due_or_over(event: str) -> None:
    for moment in ("0001-01-01T00:00:00+00:00", "9998-12-30T00:00:00+00:00", "9999-12-31T23:59:59-12:00"):
        coming = solar(event, 10, -179).next(datetime.fromisoformat(moment))
        assert coming is None or coming.year in {2, 9998, 9999}


def test_without_the_library_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['ephem'] = None\n"
        "import django_tasks\n"
        "try: django_tasks.solar('sunset', 0, 0)\n"
        "except ValueError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said == "Solar schedules need the library ephem: pip install 'django-tasks-queue[solar]'.\n"
