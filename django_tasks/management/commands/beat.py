"""`manage.py beat`: send periodic tasks until told to stop."""

from __future__ import annotations

import os
import signal
import socket
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from django_tasks import conf, logs
from django_tasks.beat.beat import MAX_INTERVAL, Beat
from django_tasks.beat.entries import synchronize
from django_tasks.connections import home
from django_tasks.exceptions import ConfigurationError, DjangoTasksError
from django_tasks.transactions import explain
from django_tasks.version import VERSION
from django_tasks.worker.bell import Bell

LOOK = 5.0
"""Seconds between two looks whether the thread that sends is still there."""

EPILOG = """
Any number of beats may run at once: each slot is run once. TERM and INT stop it after what it is at. Exit codes: 0
stopped as told, 1 could not start or failed.
"""


class Command(BaseCommand):
    help = "Sends periodic tasks when their schedules say so."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = EPILOG
        parser.add_argument("-n", "--name", default="beat@%h.%i", help="%%h is the host, %%i the process")
        parser.add_argument(
            "--max-interval",
            type=float,
            default=MAX_INTERVAL,
            help="seconds between two looks at the table, at most: so soon a change counts (default: %(default)s)",
        )
        parser.add_argument("-l", "--loglevel", default="info", choices=logs.LEVELS)
        parser.add_argument("--logfile", help="write the log there in place of standard error")
        parser.add_argument("--json-logs", action="store_true", help="one JSON object a line")
        parser.add_argument("--once", action="store_true", help="send what is due now, and end")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0.01 <= options["max_interval"] <= 3600:
            raise CommandError(f"--max-interval is 0.01 to 3600 seconds, not {options['max_interval']:g}.")
        try:
            logs.configure(options["loglevel"], as_json=options["json_logs"], logfile=options["logfile"])
        except OSError as error:
            raise CommandError(f"Cannot write the log: {error}") from error
        bell = Bell()
        beat = beat_of(options["name"], options["max_interval"])
        beat.died = bell.ring
        try:
            # What the code declares is read at once, so that a mistake there is told here and now.
            synchronize(beat.using)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(explain(beat.using, error)) from error
        if options["once"]:
            self.once(beat)
            return
        self.stdout.write(f"django_tasks {VERSION} · {beat.node} · periodic tasks in the database {beat.using!r}")
        self.stdout.flush()
        self.attend(beat, bell)

    def attend(self, beat: Beat, bell: Bell) -> None:
        """Run it until a signal says that it is enough."""
        told: list[int] = []

        def enough(number: int, frame: object) -> None:
            told.append(number)
            bell.ring()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, enough)
        beat.start()
        while not told and beat.is_alive():
            bell.wait(LOOK)
        died = not told
        beat.stop()
        with suppress(DatabaseError):
            beat.leave()
        if died:
            raise CommandError("The beat has ended by itself; its error stands above.")

    def once(self, beat: Beat) -> None:
        """Send what is due now."""
        try:
            beat.once()
        except (DatabaseError, DjangoTasksError) as error:
            raise CommandError(f"Nothing more was sent: {error}") from error
        self.stdout.write(f"sent {beat.published}")


def beat_of(name: str, max_interval: float) -> Beat:
    """Return the beat of this process."""
    node = name.replace("%h", socket.gethostname()).replace("%i", str(os.getpid()))[:255]
    return Beat(home(), name=node, max_interval=max_interval, history=conf.get().schedule_history)
