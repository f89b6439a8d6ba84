"""`manage.py tasks doctor`: say what is unsafe in the settings and on the servers, and what to change."""

from __future__ import annotations

import json
import sys
import textwrap
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import ERROR, CheckMessage
from django.core.management.base import BaseCommand, CommandError

from django_tasks.doctor import Finding, examined
from django_tasks.exceptions import ConfigurationError

WIDTH = 100

EPILOG = """
Exit codes: 0 nothing is wrong, or there are warnings alone; 1 there is an error, or a server does not answer.
"""


class Command(BaseCommand):
    help = "Asks every server that the settings name, and says what is unsafe and what to change."
    # It says what they say, server by server, and goes on.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = EPILOG
        parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            findings = [_heard(finding) for finding in examined()]
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(_document(findings), indent=2))
        else:
            self.print(findings)
        if not _healthy(findings):
            sys.exit(1)

    def print(self, findings: Sequence[tuple[Finding, list[CheckMessage]]]) -> None:
        """Write what was found for people."""
        for finding, messages in findings:
            told = finding.diagnosis
            self.stdout.write(self.style.MIGRATE_HEADING(", ".join(finding.names)))
            self.stdout.write(f"  {told.what}{f' at {told.where}' if told.where else ''}")
            for message in messages:
                self.stdout.write(self._styled(message))
            self.stdout.write("")
        messages = [message for _, found in findings for message in found]
        errors = sum(message.level >= ERROR for message in messages)
        warnings = len(messages) - errors
        if messages:
            self.stdout.write(f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}.")
        else:
            self.stdout.write(self.style.SUCCESS("All is well."))

    def _styled(self, message: CheckMessage) -> str:
        style = self.style.ERROR if message.level >= ERROR else self.style.WARNING
        heading = style(f"  {_level(message)} {message.id}")
        return "\n".join([heading, *_wrapped(message.msg), *_wrapped(message.hint, "-> ")])


def _heard(finding: Finding) -> tuple[Finding, list[CheckMessage]]:
    """Return with a finding what is to be said of it, worst first."""
    messages = [message for message in finding.diagnosis.found if not message.is_silenced()]
    return finding, sorted(messages, key=lambda message: -message.level)


def _healthy(findings: Sequence[tuple[Finding, list[CheckMessage]]]) -> bool:
    return all(finding.answers and all(one.level < ERROR for one in found) for finding, found in findings)


def _document(findings: Sequence[tuple[Finding, list[CheckMessage]]]) -> dict[str, Any]:
    return {
        "healthy": _healthy(findings),
        "places": [
            {
                "names": finding.names,
                "what": finding.diagnosis.what,
                "where": finding.diagnosis.where,
                "remote": finding.diagnosis.remote,
                "answers": finding.answers,
                "found": [
                    {"level": _level(one), "id": one.id, "message": str(one.msg), "hint": str(one.hint or "")}
                    for one in found
                ],
            }
            for finding, found in findings
        ],
    }


def _level(message: CheckMessage) -> str:
    return "error" if message.level >= ERROR else "warning"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _wrapped(text: object, mark: str = "") -> Iterator[str]:
    """Give the lines of a text, each no longer than a reader likes, the first behind a mark."""
    for number, line in enumerate(str(text or "").splitlines()):
        own = f"    {' ' * len(mark)}{line[: len(line) - len(line.lstrip())]}"
        first = own if number else f"    {mark}"
        yield textwrap.fill(line.strip(), WIDTH, initial_indent=first, subsequent_indent=own, break_on_hyphens=False)
