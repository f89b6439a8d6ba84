"""When are periodic tasks due? Values, and pure functions of time; one file a kind."""

from __future__ import annotations

from django_tasks.schedules.base import Schedule
from django_tasks.schedules.clocked import Clocked, clocked
from django_tasks.schedules.crontab import Crontab, cron, crontab
from django_tasks.schedules.interval import Interval, every
from django_tasks.schedules.solar import Solar, solar
from django_tasks.schedules.writing import SCHEDULES, build, names_a_class, parse

__all__ = [
    "SCHEDULES",
    "Clocked",
    "Crontab",
    "Interval",
    "Schedule",
    "Solar",
    "build",
    "clocked",
    "cron",
    "crontab",
    "every",
    "names_a_class",
    "parse",
    "solar",
]
