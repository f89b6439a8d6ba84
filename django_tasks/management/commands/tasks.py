"""`manage.py tasks`: everything about tasks that is typed into a shell, by its second word."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, DjangoHelpFormatter

from django_tasks.management.tasks import SUBCOMMANDS


class Command(BaseCommand):
    help = "Runs tasks, and says how they do. `manage.py tasks COMMAND --help` tells of one command."
    # Each does its own.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
        for name, command in SUBCOMMANDS.items():
            # Not add_arguments() alone: the options that every command has may stand behind the name as well.
            whole = command().create_parser("manage.py", name, add_help=False)
            commands.add_parser(
                name,
                help=command.help,
                description=command.help,
                epilog=whole.epilog,
                parents=[whole],
                formatter_class=DjangoHelpFormatter,
            )

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        SUBCOMMANDS[subcommand]().execute(*args, **options)
