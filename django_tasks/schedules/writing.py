"""Which schedule does a text stand for?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from django.utils.module_loading import import_string

from django_tasks.exceptions import ScheduleError
from django_tasks.schedules.base import Schedule
from django_tasks.schedules.clocked import read_clocked
from django_tasks.schedules.crontab import read_cron, read_crontab
from django_tasks.schedules.interval import read_interval
from django_tasks.schedules.solar import read_solar

SCHEDULES: dict[str, Callable[[str], Schedule]] = {
    "every": read_interval,
    "crontab": read_crontab,
    "cron": read_cron,
    "clocked": read_clocked,
    "solar": read_solar,
}
"""Who reads what follows the first word of a text."""


def parse(text: str) -> Schedule:
    """Return the schedule that a text stands for, what `Schedule.text` gave or a person wrote; raises ScheduleError.

    A text that begins with a number, `*` or `@` is a line of cron. A dotted path, perhaps followed by a JSON object of
    arguments, is a class of your own; it is imported: whoever may write such a text may import any module.
    """
    word, rest = [*text.split(None, 1), "", ""][:2]
    if word in SCHEDULES:
        return SCHEDULES[word](rest)
    if _is_cron(word):
        return read_cron(text)
    if names_a_class(text):
        return build(word, _arguments(rest) if rest else {})
    raise ScheduleError(
        f"{text!r} is no schedule. It begins with {', '.join(SCHEDULES)}, or the dotted path of a class, such as "
        "'every 5 minutes' or 'crontab 30 3 * * mon-fri Europe/Berlin'."
    )


def names_a_class(text: str) -> bool:
    """Tell whether a text begins with the dotted path of a class, so that reading it imports a module."""
    word = text.strip().partition(" ")[0]
    return "." in word and word not in SCHEDULES and not _is_cron(word)


def _is_cron(word: str) -> bool:
    return word[:1] in {"*", "@"} or word[:1].isdigit()


def build(path: str, arguments: Mapping[str, Any]) -> Schedule:
    """Return a schedule of the class at a dotted path, made with these keywords; raises ScheduleError."""
    try:
        kind = import_string(path)
    except (ImportError, TypeError, ValueError) as error:  # the latter of a path that begins with a dot
        raise ScheduleError(f"{path} cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Schedule)):
        raise ScheduleError(f"{path} is no subclass of django_tasks.schedules.Schedule.")
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ScheduleError(
            f"{path} cannot be made with {json.dumps(dict(arguments), default=repr)}: {error}"
        ) from error


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScheduleError(f"{text.strip()!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ScheduleError(f'{text.strip()!r}: arguments are a JSON object, such as {{"hour": 9}}.')
    return found
