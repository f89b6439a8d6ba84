"""`manage.py tasks schedule`: see periodic tasks, run them now, turn them on and off, bring them over from Celery."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from django_tasks.beat.celery_tables import brought_over
from django_tasks.beat.entries import synchronize
from django_tasks.beat.manual import run_now
from django_tasks.beat.slots import Terms
from django_tasks.connections import home
from django_tasks.exceptions import DjangoTasksError
from django_tasks.models import PeriodicTask
from django_tasks.timetable import AHEAD, outlook, outlook_of
from django_tasks.transactions import explain


class Command(BaseCommand):
    help = "Shows periodic tasks, runs them now, enables and disables them."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
        listing = actions.add_parser("list", help="all periodic tasks, and when they run next")
        listing.add_argument("--json", action="store_true", help="one JSON list, for programs")
        for name, words in (
            ("run", "send them now, beside what their schedules say"),
            ("enable", "have their schedules count again, from now on"),
            ("disable", "leave them alone until they are enabled"),
        ):
            acting = actions.add_parser(name, help=words)
            acting.add_argument("names", nargs="+", metavar="NAME")
        coming = actions.add_parser("next", help="when a schedule is due: 'cron 0 4 * * *', 'every 5 minutes', ...")
        coming.add_argument("text", metavar="SCHEDULE")
        coming.add_argument("--timezone", default="", help="where its clock hangs (default: TIME_ZONE)")
        actions.add_parser("sync", help="write what the code declares into the table, as a beat does when it starts")
        bring = actions.add_parser("import-celery", help="bring over what django-celery-beat has in its tables")
        bring.add_argument("--dry-run", action="store_true", help="say what would be done")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        doing: Mapping[str, Callable[[dict[str, Any]], None]] = {
            "list": self.list,
            "run": self.run,
            "enable": self.enable,
            "disable": self.disable,
            "next": self.next,
            "sync": self.sync,
            "import-celery": self.import_celery,
        }
        try:
            doing[action](options)
        except DatabaseError as error:
            raise CommandError(explain(home(), error)) from error
        except DjangoTasksError as error:
            raise CommandError(str(error)) from error

    def list(self, options: dict[str, Any]) -> None:
        """Write a line, or an object, for each."""
        rows = list(PeriodicTask.objects.using(home()).order_by("name"))
        if options["json"]:
            self.stdout.write(json.dumps([_document(row) for row in rows], indent=2))
            return
        if not rows:
            self.stdout.write("There are no periodic tasks.")
        for row in rows:
            state = "on " if row.enabled else "off"
            moment = _next(row)
            coming = moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %z") if moment else "never"
            self.stdout.write(f"{state}  {row.name}  ·  {row.task}  ·  {_words(row)}  ·  next: {coming}")
            if row.error:
                self.stdout.write(self.style.ERROR(f"     {row.error}"))

    def run(self, options: dict[str, Any]) -> None:
        """Send some now."""
        rows = _named(options["names"])
        try:
            ids = run_now(rows, "manage.py", using=home())
        except (TypeError, ValueError) as error:
            raise CommandError(f"Nothing was sent: {error}") from error
        for row, task_id in zip(rows, ids, strict=True):
            self.stdout.write(f"{row.name}  {task_id}")

    def enable(self, options: dict[str, Any]) -> None:
        """Have schedules count again."""
        self._turn(options["names"], enabled=True)

    def disable(self, options: dict[str, Any]) -> None:
        """Leave some alone."""
        self._turn(options["names"], enabled=False)

    def _turn(self, names: Sequence[str], *, enabled: bool) -> None:
        for row in _named(names):
            row.enabled = enabled
            row.save()
            self.stdout.write(f"{row.name}: {'enabled' if enabled else 'disabled'}")

    def next(self, options: dict[str, Any]) -> None:
        """Say when a schedule is due."""
        found = outlook(options["text"], options["timezone"], Terms())
        if found.error:
            raise CommandError(found.error)
        self.stdout.write(found.words)
        for moment in found.runs:
            self.stdout.write(f"  {moment.astimezone().strftime('%a %Y-%m-%d %H:%M:%S %z')}")
        if len(found.runs) < AHEAD:
            self.stdout.write("  never again")

    def sync(self, options: dict[str, Any]) -> None:
        """Write what the code declares."""
        synchronize(home())
        number = PeriodicTask.objects.using(home()).filter(from_code=True).count()
        self.stdout.write(f"{number} of the code")

    def import_celery(self, options: dict[str, Any]) -> None:
        """Bring over what Celery has."""
        rows, left = brought_over(home())
        for name, why in left:
            self.stdout.write(self.style.WARNING(f"left out  {name}: {why}"))
        for row in rows:
            if not options["dry_run"]:
                row.save(using=home(), force_insert=True)
            self.stdout.write(
                f"{'would bring' if options['dry_run'] else 'brought'} over  {row.name}  ·  {_words(row)}"
            )
        self.stdout.write(f"{len(rows)} of {len(rows) + len(left)}")


def _named(names: Sequence[str]) -> list[PeriodicTask]:
    found = {row.name: row for row in PeriodicTask.objects.using(home()).filter(name__in=names)}
    if unknown := [name for name in names if name not in found]:
        raise CommandError(f"There is no periodic task {unknown[0]!r}; see `manage.py tasks schedule list`.")
    return [found[name] for name in dict.fromkeys(names)]


def _next(row: PeriodicTask) -> datetime | None:
    """Return when a periodic task runs next; None if it does not."""
    if not row.enabled:
        return None
    # One that was changed is worked out by the next tick.
    return row.next_run_at if row.planned else next(iter(outlook_of(row, number=1).runs), None)


def _words(row: PeriodicTask) -> str:
    return outlook_of(row, number=0).words or row.schedule


def _document(row: PeriodicTask) -> dict[str, Any]:
    coming = _next(row)
    return {
        "name": row.name,
        "task": row.task,
        "schedule": row.schedule,
        "words": _words(row),
        "enabled": row.enabled,
        "next_run_at": coming and coming.astimezone(UTC).isoformat(),
        "last_run_at": row.last_run_at and row.last_run_at.isoformat(),
        "total_run_count": row.total_run_count,
        "from_code": row.from_code,
        "error": row.error,
    }
