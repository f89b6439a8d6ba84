"""What can `manage.py tasks` do? One file for each, and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from django.core.management.base import BaseCommand

from django_tasks.management.commands import runworker
from django_tasks.management.tasks import doctor, health, schedule

SUBCOMMANDS: Mapping[str, type[BaseCommand]] = {
    "worker": runworker.Command,
    "doctor": doctor.Command,
    "health": health.Command,
    "schedule": schedule.Command,
}
