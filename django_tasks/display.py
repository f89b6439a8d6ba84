"""What of a task's data may a person see, and how does it look?

Nothing here makes objects of what was stored: a tagged value is told from its text, so that forged data stays text and
a class need not be known where it is looked at.
"""

from __future__ import annotations

import ast
import json
import pprint
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from django_tasks.encoding import TYPE, VALUE
from django_tasks.encryption import HIDDEN
from django_tasks.redaction import looks_secret
from django_tasks.reprs import storable_text

MASK = "********"
LONGEST = 65_536
"""Characters of one text that are shown."""

_WIDTH = 100
_ID_HEAD, _ID_TAIL = 8, 12
_MOST_ATTEMPTS = 200

_NAME = re.compile(r"""(?<![\w-]) (?P<name> [\w-]{1,64} ) ["']? [ \t]{0,3} [:=] [ \t]{0,3}""", re.VERBOSE)
_VALUE = re.compile(
    r"""
    (?: (?: Basic | Bearer | Digest | Token ) [ \t]{1,3} )? [bru]{0,2} (?:
        ' (?: [^'\\\n] | \\. ){0,2000} '
      | " (?: [^"\\\n] | \\. ){0,2000} "
      | [\[({] [^\])}\n]{0,2000} [\])}]?
      | ["']? [^\s'",;&)}\]]+
    )
    """,
    re.VERBOSE,
)
_BARE = re.compile(
    r"""
    (?P<scheme> (?<![a-z0-9]) [a-z][a-z0-9+.-]{0,30} :// [^\s/:@'"<>]{0,200} : ) [^\s@'"<>]{1,500} (?= @ )
  | (?P<kind> (?<!\w) (?: Basic | Bearer ) [ \t]{1,3} ) [\w.~+/=-]{8,}
  | (?<!\w) eyJ[\w-]{8,} \. [\w-]{8,} (?: \. [\w-]* )?
  | -----BEGIN\ [A-Z ]{0,40}PRIVATE\ KEY----- [^-]{0,20000} (?: -----END\ [A-Z ]{0,40}PRIVATE\ KEY----- )?
    """,
    re.VERBOSE,
)


def free_text(text: str) -> str:
    """Return text for display, without what stands beside a name that looks secret, passwords in URLs, tokens and
    private keys."""
    shown = storable_text(text, LONGEST, tail=LONGEST // 2)
    return _without_named(_BARE.sub(_bare, shown))


def _without_named(text: str) -> str:
    """Return text without what stands beside names that look secret, also where that stands beside another name."""
    shown: list[str] = []
    copied = place = 0
    while (name := _NAME.search(text, place)) is not None:
        place = name.end()
        if not looks_secret(name["name"]):
            continue
        value = _VALUE.match(text, place)
        if value is not None and value[0].strip("'\"") != MASK:
            shown += (text[copied:place], MASK)
            copied = place = value.end()
    return "".join((*shown, text[copied:]))


def _bare(match: re.Match[str]) -> str:
    return f"{match['scheme'] or match['kind'] or ''}{MASK}"


def value_tree(text: str | None) -> Any:
    """Return what an encoded value says as plain JSON, with secrets left out; None when there is none."""
    if text is None:
        return None
    try:
        return redacted(told(json.loads(text)))
    except (ValueError, RecursionError):
        return free_text(text)


def redacted(tree: Any) -> Any:
    """Return a tree of plain JSON without what goes by a name that looks secret."""
    if isinstance(tree, dict):
        return {free_text(name): MASK if looks_secret(name) else redacted(item) for name, item in tree.items()}
    if isinstance(tree, list):
        return [redacted(item) for item in tree]
    return free_text(tree) if isinstance(tree, str) else tree


def told(tree: Any) -> Any:
    """Return decoded JSON with each tagged value replaced by the plain JSON that says the same to a reader."""
    if isinstance(tree, list):
        return [told(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {TYPE, VALUE} and isinstance(tree[TYPE], str):
        content = told(tree[VALUE])
        tell = _TELL.get(tree[TYPE])
        try:
            return content if tell is None else tell(content)
        except (TypeError, ValueError, LookupError):
            return {TYPE: tree[TYPE], VALUE: content}
    return {name: told(item) for name, item in tree.items()}


def _timedelta(content: Any) -> str:
    days, seconds, microseconds = content
    sign = "-" if days < 0 else ""
    if sign:
        seconds, microseconds = -(days * 86_400 + seconds), -microseconds
        days = 0
        if microseconds < 0:
            seconds, microseconds = seconds - 1, microseconds + 1_000_000
    hours, rest = divmod(days * 86_400 + seconds, 3600)
    fraction = f".{microseconds:06d}" if microseconds else ""
    return f"{sign}{hours}:{rest // 60:02d}:{rest % 60:02d}{fraction}"


def _pairs(content: Any) -> Any:
    if all(isinstance(key, str | int | float) for key, _ in content):
        return {str(key): item for key, item in content}
    return [[key, MASK if isinstance(key, str) and looks_secret(key) else item] for key, item in content]


_TELL: Mapping[str, Callable[[Any], Any]] = {
    "encrypted": lambda _: HIDDEN,
    "uuid": lambda content: content["hex"],
    "zoned_datetime": lambda content: content["iso"],
    "zoned_time": lambda content: content["iso"],
    "timedelta": _timedelta,
    "dict": _pairs,
    # More digits than a browser's numbers hold: as text.
    "int": lambda content: str(int(content, 16)),
    "str": "".join,
    "enum": lambda content: content[1],
    "dataclass": lambda content: content["fields"],
}
"""Tags whose content says the same by itself are left out."""


def pretty(tree: Any) -> str:
    """Return a tree of plain JSON in lines."""
    return storable_text(json.dumps(tree, indent=2, ensure_ascii=False), LONGEST)


def call_text(text: str) -> str:
    """Return the text of a call's arguments in lines, where it can be read as Python literals."""
    if not text or len(text) > LONGEST:
        return free_text(text)
    try:
        return free_text(pprint.pformat(ast.literal_eval(text), width=_WIDTH, sort_dicts=False))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return free_text(text)


def past_attempts(history: str) -> list[dict[str, Any]]:
    """Return the attempts that a result's history tells of, the last ones; a line that cannot be read is left out."""
    found = []
    for line in history.splitlines()[-_MOST_ATTEMPTS:]:
        try:
            told_of = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(told_of, dict):
            found.append(
                {
                    "attempt": _number(told_of.get("attempt")),
                    "state": str(told_of.get("state", "")),
                    "worker": str(told_of.get("worker", "")),
                    "started": _moment(told_of.get("started")),
                    "ended": _moment(told_of.get("ended")),
                    "error": free_text(str(told_of.get("error") or "")),
                }
            )
    return found


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _moment(text: object) -> datetime | None:
    try:
        return parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None


def short_id(task_id: str) -> str:
    """Return enough of an id to tell it from its neighbours: ids of one second begin alike, and those of members of
    groups end with their numbers."""
    if len(task_id) <= _ID_HEAD + _ID_TAIL + 1:
        return task_id
    return f"{task_id[:_ID_HEAD]}…{task_id[-_ID_TAIL:]}"


def span(seconds: float | None) -> str:
    """Return a length of time for a table: `34 ms`, `2.5 s`, `1:02:03`."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def distance(seconds: float) -> str:
    """Return a length of time as people say it: `5 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    left = round(abs(seconds))
    if left < 60:
        return f"{left} s"
    hours, minutes = divmod(left // 60, 60)
    if hours < 24:
        return " ".join([f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes))
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def from_now(moment: datetime) -> str:
    """Return how far away a moment is: `in 3 min`, `2 h 5 min ago`."""
    left = (moment - timezone.now()).total_seconds()
    return (_("in %(span)s") if left > 0 else _("%(span)s ago")) % {"span": distance(left)}


def moment_text(moment: datetime | None) -> str:
    """Return a moment to the second, in the current time zone."""
    return "" if moment is None else f"{_local(moment):%Y-%m-%d %H:%M:%S}"


def clock_text(moment: datetime | None) -> str:
    """Return a moment for a table, as short as it can be told from today's others: `09:31:07`, `11-20 23:59`."""
    if moment is None:
        return ""
    local = _local(moment)
    today = _local(timezone.now()).date()
    if local.date() == today:
        return f"{local:%H:%M:%S}"
    return f"{local:%m-%d %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d}"


def _local(moment: datetime) -> datetime:
    return timezone.localtime(moment) if timezone.is_aware(moment) else moment
