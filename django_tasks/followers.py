"""What waits for the members of a group?

It is told from the text that is kept: nothing that a message carries is made into an object, and what cannot be read,
since it is encrypted or comes from elsewhere, is left out.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Left

from django_tasks.compression import expanded
from django_tasks.display import call_text, free_text, told
from django_tasks.exceptions import DecodeError
from django_tasks.models import TaskGroup
from django_tasks.registry import tasks
from django_tasks.reprs import redacted_call

BODY, NEXT, CALLBACK, ERRBACK = "body", "next", "callback", "errback"
"""Begins when all members have ended well; then, when that has; with what that returned; if that fails."""
_UNREAD = "unread"
"""Stands for what cannot be told from a body."""

MOST = 50
"""Calls that are told of one group."""

_READ = 1 << 20
"""Characters of what follows a group, and bytes of a body, that are read."""
_HEAD = 4_000
_NAME = re.compile(r'^\{"messages":\[\{"headers":\{"id":"(?:[^"\\]|\\.)*","task":("(?:[^"\\]|\\.)*")')
_MISFITS = (ValueError, TypeError, LookupError, AttributeError, RecursionError, DecodeError)


@dataclass(frozen=True, slots=True)
class Follower:
    """A call that waits for the members of a group, or for what does."""

    how: str
    task: str = ""
    id: str = ""
    args: str = ""
    kwargs: str = ""
    """The arguments beside what it will be given, as text, secrets masked."""
    group_id: str = ""
    size: int = 0
    """How many tasks a group has."""


def first_names(rows: Iterable[TaskGroup]) -> dict[str, str]:
    """Return, by the ids of groups, the task that follows each: the first one where there are several."""
    rows = list(rows)
    if not rows:
        return {}
    heads = _heads(rows[0]._state.db, [row.pk for row in rows], _HEAD)
    found = {pk: _NAME.match(head) for pk, head in heads.items() if head}
    return {pk: free_text(json.loads(match[1], strict=False)) for pk, match in found.items() if match}


def followers(row: TaskGroup) -> tuple[list[Follower], bool]:
    """Return the calls that wait for a group's members, in order, and whether these are all."""
    head = _heads(row._state.db, [row.pk], _READ + 1).get(row.pk, "")
    if not head:
        return [], True
    if len(head) > _READ:
        name = first_names([row]).get(row.pk)
        return ([Follower(BODY, task=name)] if name else []), False
    try:
        found = list(islice(_plan(json.loads(head), BODY), MOST + 1))
    except _MISFITS:
        return [], False
    readable = [each for each in found[:MOST] if each.how != _UNREAD]
    return readable, len(readable) == len(found)


def _heads(database: str | None, ids: list[str], length: int) -> dict[str, str]:
    rows = TaskGroup.objects.using(database).filter(group_id__in=ids)
    return dict(rows.values_list("group_id", Left("then", length, output_field=TextField())))


def _plan(plan: Mapping[str, Any], how: str) -> Iterator[Follower]:
    """Give what a plan begins: its calls, and its groups each as one, followed by what follows them."""
    groups = {group["id"]: group for group in plan["groups"]}
    for message in plan["messages"]:
        if message["headers"].get("group") not in groups:
            yield from _message(message, how)
    for group in groups.values():
        names = {
            message["headers"]["task"] for message in plan["messages"] if message["headers"].get("group") == group["id"]
        }
        yield Follower(how, task=_listed(names), group_id=str(group["id"]), size=int(group["size"]))
        yield from _plan(group["then"], NEXT)


def _message(form: Mapping[str, Any], how: str) -> Iterator[Follower]:
    headers = form["headers"]
    yield Follower(
        how,
        task=free_text(str(headers["task"])),
        id=str(headers["id"]),
        args=call_text(str(headers.get("argsrepr", ""))),
        kwargs=call_text(str(headers.get("kwargsrepr", ""))),
    )
    try:
        embed = _embed(headers, b64decode(form["body"], validate=True))
        for name, what in (("callbacks", CALLBACK), ("errbacks", ERRBACK)):
            for each in embed.get(name) or ():
                yield from _form(each, what)
        for each in reversed(embed.get("chain") or ()):
            yield from _form(each, NEXT)
    except _MISFITS:
        yield Follower(_UNREAD)


def _embed(headers: Mapping[str, Any], body: bytes) -> Mapping[str, Any]:
    """Return what a body says of what follows its task; raises one of _MISFITS where its text does not tell."""
    if (form := headers.get("content_type", "application/json")) != "application/json":
        raise DecodeError(f"a body in {form} is not opened here")
    if (compression := headers.get("compression")) is not None:
        body = expanded(body, str(compression), _READ)
    if len(body) > _READ:
        raise DecodeError(f"a body of {len(body):,} bytes is not opened here")
    embed: Mapping[str, Any] = json.loads(body)[2]
    return embed


def _form(form: Mapping[str, Any], how: str) -> Iterator[Follower]:
    """Give the calls that a signature stands for, from its form."""
    options, kwargs = form.get("options") or {}, form.get("kwargs") or {}
    match form.get("subtask_type"):
        case "chain":
            for number, each in enumerate(kwargs["tasks"]):
                yield from _form(each, NEXT if number else how)
        case "group":
            yield _group(form, how)
        case "chord":
            yield _group(kwargs["header"], how)
            if kwargs.get("body"):
                yield from _form(kwargs["body"], NEXT)
        case _:
            yield _call(form, options, how)
            for name, what in (("link", CALLBACK), ("link_error", ERRBACK)):
                for each in options.get(name) or ():
                    yield from _form(each, what)


def _group(form: Any, how: str) -> Follower:
    members = form if isinstance(form, list) else form["kwargs"]["tasks"]
    options = {} if isinstance(form, list) else form.get("options") or {}
    names = {str(each.get("task", "")) for each in members}
    return Follower(how, task=_listed(names), group_id=str(options.get("task_id") or ""), size=len(members))


def _call(form: Mapping[str, Any], options: Mapping[str, Any], how: str) -> Follower:
    name = str(form["task"])
    task = tasks.get(name)
    args, kwargs = told(form.get("args") or []), told(form.get("kwargs") or {})
    if not (isinstance(args, list) and isinstance(kwargs, dict)):
        args, kwargs = [], {}
    shown = redacted_call(None if task is None else task.parameters, tuple(args), kwargs)
    return Follower(
        how,
        task=free_text(name),
        id=str(options.get("task_id") or ""),
        args=call_text(shown[0]),
        kwargs=call_text(shown[1]),
    )


def _listed(names: set[str]) -> str:
    shown = sorted(free_text(name) for name in names)
    return ", ".join(shown[:3] + ["…"] * (len(shown) > 3))
