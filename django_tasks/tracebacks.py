"""What does an exception say, and where was it raised, as text of bounded size?

Of an exception only `__str__` is called, and only where its class or its argument has one of its own; everything else
is read past the class. No local variable is looked at.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from textwrap import indent
from types import TracebackType
from typing import Any

from django_tasks.classes import attribute, display_name
from django_tasks.reprs import safe_repr, storable_text

CAUSE = "The above exception was the direct cause of the following exception:"
CONTEXT = "During handling of the above exception, another exception occurred:"

_OWN = "django_tasks"
_FRAMES_FIRST, _FRAMES_LAST = 20, 40
_LINE_LENGTH = 1_000
_LINKS_NEW, _LINKS_OLD = 8, 4
_MEMBERS = 10
_MEMBERS_DEPTH = 3
_EXCEPTIONS = 50
_NOTES = 20
_NOTE_LENGTH = 1_000

# Read past the class of the exception, which may have names of its own for them.
_args: Any = attribute(BaseException, "args")
_dict: Any = attribute(BaseException, "__dict__")
_cause: Any = attribute(BaseException, "__cause__")
_context: Any = attribute(BaseException, "__context__")
_suppressed: Any = attribute(BaseException, "__suppress_context__")
_traceback: Any = attribute(BaseException, "__traceback__")
_members: Any = attribute(BaseExceptionGroup, "exceptions")


def message(exc: BaseException, limit: int) -> str:
    """Return what the exception says."""
    try:
        return _message(exc, limit)
    except BaseException as error:  # noqa: BLE001  # whatever a __str__ raises, SystemExit included, is not ours to pass on
        return f"<its text cannot be told: {storable_text(display_name(type(error)), 200)}>"


def _message(exc: BaseException, limit: int) -> str:
    # str(exc) with the standard __str__ would write out all of the arguments, however large.
    if attribute(type(exc), "__str__") is attribute(BaseException, "__str__"):
        args = _args.__get__(exc)
        if not args:
            return ""
        if len(args) > 1:
            return safe_repr(args, limit=limit)
        if issubclass(type(args[0]), str):
            return storable_text(args[0], limit)
        if type(args[0]) in {bytes, list, tuple, dict, set, frozenset}:
            return safe_repr(args[0], limit=limit)
    return storable_text(str(exc), limit)


def notes(exc: BaseException) -> tuple[str, ...]:
    """Return the first of the exception's notes."""
    found = _dict.__get__(exc).get("__notes__")
    if type(found) not in {list, tuple}:
        return () if found is None else (safe_repr(found, limit=_NOTE_LENGTH),)
    return tuple(
        storable_text(note, _NOTE_LENGTH) if issubclass(type(note), str) else safe_repr(note, limit=_NOTE_LENGTH)
        for note in found[:_NOTES]
    )


def format_exception(exc: BaseException, limit: int) -> str:
    """Return the exception's traceback and those of what led to it, in Python's layout.

    What is too long loses its middle: of frames, of the chain of causes, of a group's members and of the text.
    """
    text = _Telling().chain(exc, _MEMBERS_DEPTH)
    return storable_text(text, limit, tail=limit // 2)


class _Telling:
    """One text about an exception and all that belong to it."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _EXCEPTIONS

    def chain(self, exc: BaseException, depth: int) -> str:
        """Tell the exception and what led to it, the oldest first."""
        links = _links(exc)
        parts: list[str] = []
        for place in range(len(links) - 1, -1, -1):
            each, relation = links[place]
            if _LINKS_NEW <= place < len(links) - _LINKS_OLD:
                if place == _LINKS_NEW:
                    left_out = len(links) - _LINKS_OLD - _LINKS_NEW
                    parts.append(f"[{left_out:,} more exceptions of the chain are left out]\n")
                continue
            told = self.one(each, depth)
            parts.append(f"{told}\n{relation}\n" if relation else told)
        return "\n".join(parts)

    def one(self, exc: BaseException, depth: int) -> str:
        """Tell one exception and its members."""
        self.left -= 1
        if self.left < 0:
            return "[more exceptions are left out]\n"
        lines = [*_frames(_traceback.__get__(exc)), _headline(exc)]
        lines += [f"{line}\n" for note in notes(exc) for line in note.splitlines()]
        if issubclass(type(exc), BaseExceptionGroup):
            lines += self.members(_members.__get__(exc), depth)
        return "".join(lines)

    def members(self, members: tuple[BaseException, ...], depth: int) -> Iterator[str]:
        shown = members[:_MEMBERS] if depth else ()
        for number, member in enumerate(shown, 1):
            yield f"  +---------------- {number} ----------------\n"
            yield indent(self.chain(member, depth - 1), "  | ", lambda _: True)
        if len(members) > len(shown):
            yield f"  +---- [{len(members) - len(shown):,} more exceptions of the group are left out]\n"


def _links(exc: BaseException) -> list[tuple[BaseException, str]]:
    """Return the exception and what led to it, newest first, each with the words that join it to the one before."""
    links = [(exc, "")]
    seen = {id(exc)}
    while True:
        cause, relation = _cause.__get__(exc), CAUSE
        if cause is None and not _suppressed.__get__(exc):
            cause, relation = _context.__get__(exc), CONTEXT
        if cause is None or id(cause) in seen:
            return links
        links.append((cause, relation))
        seen.add(id(cause))
        exc = cause


def _frames(first: TracebackType | None) -> list[str]:
    first = _of_application(first)
    if first is None:
        return []
    count, each = 0, first
    while each is not None:
        count, each = count + 1, each.tb_next  # type: ignore[assignment]  # typed as never None
    lines = ["Traceback (most recent call last):\n"]
    if count <= _FRAMES_FIRST + _FRAMES_LAST:
        return lines + _formatted(first, count)
    lines += _formatted(first, _FRAMES_FIRST)
    lines.append(f"  [{count - _FRAMES_FIRST - _FRAMES_LAST:,} more frames are left out]\n")
    return lines + _formatted(first, -_FRAMES_LAST)


def _formatted(first: TracebackType, limit: int) -> list[str]:
    try:
        lines = traceback.format_list(traceback.extract_tb(first, limit))
    except BaseException as error:  # noqa: BLE001  # the source of a frame comes from its module's loader
        return [f"  [frames that cannot be told: {storable_text(display_name(type(error)), 200)}]\n"]
    return [line if len(line) <= _LINE_LENGTH else storable_text(line, _LINE_LENGTH) + "\n" for line in lines]


def _of_application(first: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame on that is not of this package; all of it when there is none."""
    each = first
    while each is not None:
        module = dict.get(each.tb_frame.f_globals, "__name__")
        if type(module) is not str or (module != _OWN and not module.startswith(_OWN + ".")):
            return each
        each = each.tb_next
    return first


def _headline(exc: BaseException) -> str:
    name = storable_text(display_name(type(exc)), 200)
    said = message(exc, _NOTE_LENGTH)
    return f"{name}: {said}\n" if said else f"{name}\n"
