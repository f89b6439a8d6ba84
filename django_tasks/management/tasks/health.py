"""`manage.py tasks health`: tell whether tasks are being run, in a way that a supervisor of containers understands."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from django_tasks.health import examined

EPILOG = """
Exit codes: 0 all is well; 1 something is not.
"""


class Command(BaseCommand):
    help = "Says whether workers and beats are alive, and whether periodic tasks are sent in time."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = EPILOG
        parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        found = examined()
        healthy = all(sign.well for sign in found)
        if options["json"]:
            self.stdout.write(json.dumps({"healthy": healthy, "signs": [asdict(sign) for sign in found]}, indent=2))
        else:
            for sign in found:
                style = self.style.SUCCESS if sign.well else self.style.ERROR
                self.stdout.write(f"{style('well ' if sign.well else 'wrong')}  {sign.what}: {sign.words}")
        if not healthy:
            sys.exit(1)
