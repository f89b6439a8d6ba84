"""Do all kinds of schedules keep the contract?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from django_tasks.schedules import Schedule, clocked, cron, crontab, every, solar
from django_tasks.testing.contracts.schedules import ScheduleContract

KINDS: dict[str, Callable[[], Schedule]] = {
    "every": lambda: every(7, minutes=5),
    "every, from a start": lambda: every(days=5, start=datetime(2025, 6, 1, tzinfo=UTC)),
    "crontab": lambda: crontab("*/20", "1-3", "sun", month_of_year="3,10", tz="America/St_Johns"),
    "crontab, hourly": lambda: crontab(30, day_of_month=2, month_of_year=11, tz="America/St_Johns"),
    "crontab, never": lambda: crontab(0, 0, day_of_month=30, month_of_year=2),
    "cron": lambda: cron("30 */40 4 13 * fri", "Europe/Berlin"),
    "clocked": lambda: clocked(datetime(2025, 6, 1, tzinfo=UTC) + timedelta(microseconds=1)),
    "solar": lambda: solar("sunset", 52.52, 13.405),
}


class TestSchedules(ScheduleContract):
    @pytest.fixture(params=KINDS)
    def schedule(self, request: pytest.FixtureRequest) -> Schedule:
        return KINDS[request.param]()
