"""Does a crontab mean what Celery's and cron's mean, and say what is wrong with it?"""

from __future__ import annotations

import pickle
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab as celery_crontab

from django_tasks.exceptions import ScheduleError
from django_tasks.schedules import Crontab, cron, crontab
from django_tasks.schedules.fields import DAY_OF_WEEK, MONTH_OF_YEAR

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def at(text: str, tz: str = "UTC") -> datetime:
    """Return a moment from what a clock on a wall shows."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).astimezone(UTC)


def due(schedule: Crontab, after: datetime, count: int) -> list[str]:
    """Return so many times at which it is due, as clocks in its zone show them."""
    shown = []
    for _ in range(count):
        coming = schedule.next(after)
        assert coming is not None
        shown.append(f"{coming.astimezone(ZoneInfo(schedule.tz or 'UTC')):%m-%d %H:%M%z}")
        after = coming
    return shown


# Celery's arguments


def _spec(rng: random.Random, low: int, high: int, names: tuple[str, ...] = ()) -> Any:
    def number() -> str:
        if names and rng.random() < 0.3:
            return rng.choice(names)[: rng.choice([3, 99])]
        return str(rng.randint(low, high))

    def part() -> str:
        return rng.choice(
            [
                number(),
                number(),
                f"{number()}-{number()}",
                f"{number()}-{number()}/{rng.randint(1, 9)}",
                f"*/{rng.randint(1, high + 5)}",
            ]
        )

    kind = rng.random()
    if kind < 0.3:
        return "*"
    if kind < 0.9:
        return ",".join(part() for _ in range(rng.choice([1, 1, 2, 3])))
    return rng.randint(low, high) if kind < 0.95 else [rng.randint(low, high) for _ in range(3)]


def test_it_is_due_when_celerys_is() -> None:
    rng, app, compared = random.Random(1), Celery(set_as_current=False), 0
    while compared < 500:
        fields = (
            _spec(rng, 0, 59),
            _spec(rng, 0, 23),
            _spec(rng, 0, 6, DAY_OF_WEEK.names),
            _spec(rng, 1, 31),
            _spec(rng, 1, 12, MONTH_OF_YEAR.names),
        )
        after = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(10 * 365 * 86400))
        ours = crontab(*fields)
        try:
            theirs = celery_crontab(*fields, app=app, nowfun=lambda after=after: after)
        except ValueError:  # a date that never comes: Celery does not take it
            assert ours.next(after) is None, fields
            continue
        last, delta, _ = theirs.remaining_delta(after)
        assert ours.next(after) == last + delta, (fields, after)
        compared += 1


def test_arguments_stand_in_celerys_order() -> None:
    assert crontab(1, 2, 3, 4, 5) == crontab(minute=1, hour=2, day_of_week=3, day_of_month=4, month_of_year=5)
    assert crontab(1, 2, 3, 4, 5).text() == "crontab 1 2 4 may wed"


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"day_of_week": "mon-fri"}, {"day_of_week": "1-5"}),
        ({"day_of_week": "Monday,SUNDAY"}, {"day_of_week": [0, 1]}),
        ({"day_of_week": 7}, {"day_of_week": 0}),
        ({"day_of_week": "5-7"}, {"day_of_week": "0,5,6"}),
        ({"day_of_week": "7-2"}, {"day_of_week": "0-2"}),
        ({"day_of_week": "0-7"}, {}),
        ({"day_of_week": "7-7"}, {"day_of_week": "sun"}),
        ({"day_of_week": "fri-mon"}, {"day_of_week": {0, 1, 5, 6}}),
        ({"month_of_year": "january, sept"}, {"month_of_year": (1, 9)}),
        ({"month_of_year": "nov-feb"}, {"month_of_year": "1,2,11,12"}),
        ({"hour": "22-2"}, {"hour": "0-2,22,23"}),
        ({"hour": "22-2/2"}, {"hour": "0,2,22"}),
        ({"minute": "*/15"}, {"minute": range(0, 60, 15)}),
        ({"minute": "*/90"}, {"minute": 0}),
        ({"minute": "05"}, {"minute": 5}),
        ({"minute": "10-20/5,55"}, {"minute": [55, 10, 15, 20, 10]}),
        ({"day_of_month": "*/10"}, {"day_of_month": "1,11,21,31"}),
        ({"tz": "Europe/Berlin"}, {"tz": ZoneInfo("Europe/Berlin")}),
        ({"tz": "UTC"}, {"tz": UTC}),
    ],
)
def test_two_ways_to_say_one_thing(given: dict[str, Any], same: dict[str, Any]) -> None:
    assert crontab(**given) == crontab(**same)
    assert hash(crontab(**given)) == hash(crontab(**same))
    assert crontab(**given).text() == crontab(**same).text()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"minute": "60"}, "minute='60': 60 is too large. Allowed are 0 to 59; *, a-b, */n, a-b/n and lists."),
        ({"minute": 60}, "minute=60: 60 is too large"),
        ({"minute": "-1"}, "minute='-1': '-1' is not understood"),
        ({"minute": [0, -1]}, "minute=[0, -1]: -1 is too small"),
        ({"minute": ""}, "minute='': a part between commas is empty"),
        ({"minute": "1,,2"}, "a part between commas is empty"),
        ({"minute": []}, "minute=[]: nothing is in it"),
        ({"minute": "*/0"}, "a step is 1 or more"),
        ({"minute": "*/"}, "'*/' is not understood"),
        ({"minute": "5/10"}, "a step needs a range: write 5-59/10"),
        ({"minute": "1-5-9"}, "'1-5-9' is not understood"),
        ({"minute": "1 5"}, "'1 5' is not understood"),
        ({"minute": "*-5"}, "'*-5' is not understood"),
        ({"minute": "\N{ARABIC-INDIC DIGIT FIVE}"}, "is not understood"),
        ({"minute": "1," * 1000}, "longer than 1000 characters"),
        ({"hour": "8-24"}, "hour='8-24': 24 is too large. Allowed are 0 to 23"),
        ({"hour": "mar"}, "hour='mar': 'mar' is not understood. Allowed are 0 to 23;"),
        ({"day_of_month": 0}, "day_of_month=0: 0 is too small. Allowed are 1 to 31"),
        ({"day_of_month": "L"}, "day_of_month='L': 'L' is not understood"),
        ({"month_of_year": "mon"}, "month_of_year='mon': 'mon' is not understood. Allowed are 1 to 12, jan to dec;"),
        ({"month_of_year": "ja"}, "'ja' is not understood"),
        ({"day_of_week": "monkey"}, "Allowed are 0 to 7 (0 and 7 are Sunday), sun to sat;"),
        ({"day_of_week": 8}, "day_of_week=8: 8 is too large"),
        ({"tz": "Europe/Bonn"}, "tz='Europe/Bonn': this host knows no such time zone"),
        ({"tz": "Europe"}, "tz='Europe': this host knows no such time zone"),
        ({"tz": "../../etc/passwd"}, "this host knows no such time zone"),
        ({"tz": ""}, "this host knows no such time zone"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field_and_what_is_allowed(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        crontab(**given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"minute": 1.5}, "minute is a number, numbers or text"),
        ({"minute": None}, "minute is a number, numbers or text"),
        ({"minute": True}, "True is no whole number"),
        ({"day_of_week": ["mon"]}, "day_of_week=['mon']: 'mon' is no whole number"),
        ({"tz": 1}, "tz is the key of a time zone"),
    ],
)
def test_what_is_no_field_at_all_is_a_type_error(given: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        crontab(**given)
    assert words in str(caught.value)


def test_a_time_zone_without_a_key_cannot_be_stored() -> None:
    with pytest.raises(ScheduleError, match="has no key"):
        crontab(tz=NOON.astimezone().tzinfo)


def test_a_date_that_never_comes_is_never_due() -> None:
    assert crontab(0, 0, day_of_month=30, month_of_year=2).next(NOON) is None
    assert crontab(0, 0, day_of_month=31, month_of_year="2,4,6,9,11", tz="Asia/Tokyo").next(NOON) is None
    assert cron("0 0 30 feb *").next(NOON) is None


def test_a_rare_date_comes() -> None:
    assert crontab(0, 0, "mon", 29, 2).next(NOON) == at("2044-02-29")
    # 2100 is no leap year.
    assert crontab(0, 0, day_of_month=29, month_of_year=2).next(at("2096-03-01")) == at("2104-02-29")


def test_after_the_end_of_time_nothing_is_due() -> None:
    for moment in ("9998-12-30T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "9999-12-31T23:59:59-12:00"):
        coming = crontab(0, 0, tz="Pacific/Apia").next(datetime.fromisoformat(moment))
        assert coming is None or coming.year == 9998
    assert crontab(0, 0, "mon", 29, 2).next(at("9990-01-01")) is None
    assert crontab(0, 0, day_of_month=30, month_of_year=12).next(at("9998-12-30")) is None
    assert crontab(0, day_of_month=30, month_of_year=12).next(at("9998-12-30 23:30")) is None
    for moment in ("0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00"):
        assert crontab(0, 0, tz="UTC").next(datetime.fromisoformat(moment)) == at("0002-01-02")


def test_a_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ScheduleError, match="has no time zone"):
        crontab().next(datetime(2026, 1, 1))  # noqa: DTZ001 -- what is refused
    with pytest.raises(TypeError, match="after is a datetime"):
        crontab().next("2026-01-01")  # type: ignore[arg-type]


def test_it_is_due_strictly_after_a_moment() -> None:
    assert crontab().next(NOON) == NOON + timedelta(minutes=1)
    assert crontab().next(NOON - timedelta(microseconds=1)) == NOON
    assert crontab().next(NOON + timedelta(microseconds=1)) == NOON + timedelta(minutes=1)


def test_it_is_a_value() -> None:
    schedule = crontab(30, 3, "mon", tz="Europe/Berlin")
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    with pytest.raises(AttributeError):
        schedule.tz = "UTC"  # type: ignore[misc]


def test_it_takes_the_time_zone_of_the_site_unless_it_has_one() -> None:
    assert crontab(0, 9).within("Asia/Tokyo") == crontab(0, 9, tz="Asia/Tokyo")
    assert crontab(0, 9, tz="UTC").within("Asia/Tokyo") == crontab(0, 9, tz="UTC")
    assert crontab(0, 9).next(NOON) == at("2026-11-29 09:00")


# Lines of cron


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("*/5 4 * * mon-fri", crontab("*/5", 4, "mon-fri")),
        ("  0\t0  1 jan *  ", crontab(0, 0, day_of_month=1, month_of_year=1)),
        ("@hourly", crontab(0)),
        ("@daily", crontab(0, 0)),
        ("@midnight", crontab(0, 0)),
        ("@weekly", crontab(0, 0, "sun")),
        ("@monthly", crontab(0, 0, day_of_month=1)),
        ("@yearly", crontab(0, 0, day_of_month=1, month_of_year=1)),
        ("@Annually", crontab(0, 0, day_of_month=1, month_of_year=1)),
        ("0 */5 4 * * *", crontab("*/5", 4)),
    ],
)
def test_a_line_of_cron(line: str, same: Crontab) -> None:
    assert cron(line) == same


def test_one_kind_of_day_is_enough_if_both_are_restricted() -> None:
    """The example of crontab(5): the 1st and 15th of each month, and every Friday."""
    schedule = cron("30 4 1,15 * 5")
    assert due(schedule, at("2026-01-01"), 6) == [f"01-{day:02} 04:30+0000" for day in (1, 2, 9, 15, 16, 23)]
    assert schedule != crontab(30, 4, 5, "1,15")
    assert due(crontab(30, 4, 5, "1,15"), at("2026-01-01"), 2) == ["05-01 04:30+0000", "05-15 04:30+0000"]


def test_a_field_that_begins_with_a_star_is_not_restricted() -> None:
    """As in Vixie's cron, whose users write the first Sunday of a month so."""
    assert cron("0 0 1-7 * */7") == crontab(0, 0, 0, "1-7")
    assert cron("0 0 */2 * mon") == crontab(0, 0, "mon", "*/2")
    assert cron("0 0 1-31 * mon") == crontab(0, 0)


def test_seconds_come_first() -> None:
    schedule = cron("*/20 59 23 31 dec *")
    moment, shown = at("2026-01-01"), []
    for _ in range(4):
        coming = schedule.next(moment)
        assert coming is not None
        moment = coming
        shown.append(moment)
    first = at("2026-12-31 23:59")
    assert shown == [*(first + timedelta(seconds=second) for second in (0, 20, 40)), at("2027-12-31 23:59")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("* * * *", "has 4 fields. Allowed are five (minute, hour, day of month, month, day of week), and six"),
        ("* * * * * * *", "has 7 fields"),
        ("", "has 0 fields"),
        ("0, 30 * * * * *", "lists are written without spaces"),
        ("@reboot", "'@reboot' names no times. Allowed are @yearly, @annually, @monthly"),
        ("60 * * * * *", "second='60': 60 is too large"),
        ("0 0 ? * mon", "day_of_month='?': '?' is not understood"),
        ("0 0 * * mon#2", "day_of_week='mon#2': 'mon#2' is not understood"),
    ],
)
def test_a_line_of_cron_that_cannot_be(line: str, words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        cron(line)
    assert words in str(caught.value)


# When clocks are changed


def test_an_hourly_one_runs_in_both_rounds_of_an_hour_that_is_shown_twice() -> None:
    """Celery leaves one out."""
    assert due(crontab(30, tz="US/Pacific"), at("2026-11-01 00:00", "US/Pacific"), 4) == [
        "11-01 00:30-0700",
        "11-01 01:30-0700",
        "11-01 01:30-0800",
        "11-01 02:30-0800",
    ]


def test_a_daily_one_runs_once_on_a_day_with_an_hour_that_is_shown_twice() -> None:
    schedule = crontab(30, 1, tz="US/Pacific")
    assert due(schedule, at("2026-10-31 12:00", "US/Pacific"), 2) == ["11-01 01:30-0700", "11-02 01:30-0800"]


def test_a_daily_one_whose_time_is_left_out_runs_when_the_clocks_are_put_forward() -> None:
    schedule = crontab(30, 2, tz="Europe/Berlin")
    assert due(schedule, at("2026-03-28 00:00", "Europe/Berlin"), 3) == [
        "03-28 02:30+0100",
        "03-29 03:00+0200",
        "03-30 02:30+0200",
    ]


def test_times_that_are_left_out_together_are_due_once() -> None:
    schedule = crontab("*/10", "2,3", tz="Europe/Berlin")
    assert due(schedule, at("2026-03-29 00:00", "Europe/Berlin"), 3) == [
        "03-29 03:00+0200",
        "03-29 03:10+0200",
        "03-29 03:20+0200",
    ]


def test_an_hourly_one_keeps_its_rhythm_when_clocks_are_put_forward() -> None:
    schedule = crontab(30, tz="Europe/Berlin")
    assert due(schedule, at("2026-03-29 01:00", "Europe/Berlin"), 2) == ["03-29 01:30+0100", "03-29 03:30+0200"]


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        # Midnight is left out.
        (crontab(0, 0, tz="America/Santiago"), "2026-09-05 12:00", ["09-06 01:00-0300", "09-07 00:00-0300"]),
        # By half an hour.
        (crontab(15, 2, tz="Australia/Lord_Howe"), "2026-10-03 12:00", ["10-04 02:30+1100", "10-05 02:15+1100"]),
        (crontab(45, tz="Australia/Lord_Howe"), "2026-04-05 01:00", ["04-05 01:45+1100", "04-05 01:45+1030"]),
        # By two hours.
        (crontab(30, 1, tz="Antarctica/Troll"), "2026-03-28 12:00", ["03-29 03:00+0200", "03-30 01:30+0200"]),
        (crontab(30, "1-2", tz="Antarctica/Troll"), "2026-10-24 12:00", ["10-25 01:30+0200", "10-25 02:30+0200"]),
        # At a quarter to.
        (crontab(0, 3, tz="Pacific/Chatham"), "2026-09-26 12:00", ["09-27 03:45+1345", "09-28 03:00+1345"]),
        (crontab(50, tz="Pacific/Chatham"), "2026-04-05 02:00", ["04-05 02:50+1345", "04-05 02:50+1245"]),
        # A whole day is left out.
        (crontab(0, 12, tz="Pacific/Apia"), "2011-12-29 13:00", ["12-31 00:00+1400", "12-31 12:00+1400"]),
    ],
)
def test_in_zones_that_do_it_their_own_way(schedule: Crontab, after: str, expected: list[str]) -> None:
    assert schedule.tz is not None
    assert due(schedule, at(after, schedule.tz), 2) == expected


# In words


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (crontab(), "every minute"),
        (crontab("*/5"), "every 5 minutes"),
        (crontab(30), "at minute 30 of every hour"),
        (crontab("0,7"), "at minutes 0 and 7 of every hour"),
        (crontab(30, 3, "mon", tz="Europe/Berlin"), "at 03:30 on Monday, in Europe/Berlin"),
        (crontab("0,30", "9,17", "mon-fri"), "at 09:00, 09:30, 17:00 and 17:30 on Monday to Friday"),
        (crontab("*/15", "8-17", "mon-fri"), "every 15 minutes from 08:00 to 17:59 on Monday to Friday"),
        (crontab("*/15", "8,20"), "every 15 minutes of hours 8 and 20"),
        (crontab("*/7", 3), "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of hour 3"),
        (crontab(0, 0, day_of_month="1-7,15"), "at 00:00 on days 1-7 and 15 of the month"),
        (crontab(0, 0, 1, "1-7"), "at 00:00 on days 1-7 of the month if on Monday"),
        (cron("0 0 13 * fri,sat"), "at 00:00 on day 13 of the month or on Friday or Saturday"),
        (crontab(0, 12, month_of_year="jan,jul"), "at 12:00 in January and July"),
        (crontab(0, 12, "sat,sun", month_of_year="5-9"), "at 12:00 on Sunday and Saturday in May to September"),
        (cron("* * * * * *"), "every second"),
        (cron("*/10 * * * * *"), "every 10 seconds"),
        (cron("* * 8-17 * * *"), "every second from 08:00 to 17:59"),
        (cron("7 * * * * *"), "at second 7 of every minute"),
        (cron("*/30 0 * * * *"), "every 30 seconds of minute 0 of every hour"),
        (cron("15 30 4 * * *"), "at 04:30:15"),
    ],
)
def test_in_words(schedule: Crontab, words: str) -> None:
    assert schedule.describe() == str(schedule) == words
