"""What is the same of every call of a task that is sent without options?"""

from __future__ import annotations

import inspect
import os
import socket
from dataclasses import dataclass
from functools import cache
from typing import Any

from django_tasks import conf
from django_tasks.exceptions import NotRegistered
from django_tasks.message import FIELDS, NAME_LENGTH, Message, message_of
from django_tasks.options import PLAIN
from django_tasks.plan import Place
from django_tasks.redaction import looks_secret
from django_tasks.registry import tasks
from django_tasks.reprs import redacted_call
from django_tasks.routing import is_fixed, place_for, priority_for
from django_tasks.sealing import sendable
from django_tasks.serializers import Serializer, encode_body

_ID, _BODY, _ROOT, _PARENT, _GROUP, _INDEX, _ARGS, _KWARGS, _ORIGIN, _HEADERS = map(
    FIELDS.index,
    ("id", "body", "root_id", "parent_id", "group_id", "group_index", "args_repr", "kwargs_repr", "origin", "headers"),
)


@dataclass(frozen=True, slots=True)
class Outline:
    """A message of which only the call itself is missing, as long as the settings and the task stay what they are."""

    settings: conf.Settings
    task: Any
    form: Serializer
    named: inspect.Signature | None
    """Tells which arguments are secrets; None if none is."""
    values: tuple[Any, ...]

    def filled(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        task_id: str,
        comes_from: tuple[str | None, str | None],
        place: Place | None = None,
    ) -> Message:
        """Return the message of a call that comes from a root and a parent, if from any, and is a member of a group if
        it has a place there; raises SerializationError."""
        values = list(self.values)
        values[_BODY] = encode_body(args, kwargs, {}, self.form)
        values[_ID] = task_id
        values[_ARGS], values[_KWARGS] = redacted_call(self.named, args, kwargs)
        values[_ORIGIN] = origin()
        values[_HEADERS] = {}
        values[_ROOT], values[_PARENT] = comes_from
        if place is not None:
            values[_GROUP], values[_INDEX] = place
        return message_of(values)


_outlines: dict[str, Outline] = {}


def outline_of(name: str) -> Outline | None:
    """Return the outline of a task; None if something of its messages depends on the call or on the time.

    Raises ConfigurationError for a task whose calls cannot be sent.
    """
    settings, task = conf.get(), tasks.get(name)
    known = _outlines.get(name)
    if known is not None and known.settings is settings and known.task is task:
        return known
    if task is None or task.options.expires is not None or not is_fixed(settings.routes):
        return None
    if (task.options.compression or settings.compression or PLAIN) != PLAIN:
        return None
    encrypts = settings.encrypt if task.options.encrypt is None else task.options.encrypt
    if encrypts or sendable(task.options.serializer or settings.serializer).wraps:
        return None
    made = _outlines[name] = _drawn(settings, task)
    return made


def _drawn(settings: conf.Settings, task: Any) -> Outline:
    declared = task.options
    form = sendable(declared.serializer or settings.serializer)
    place = place_for(task.name, (), {}, {}, task=task, declared=declared.queue)
    asked = declared.priority if place.priority is None else place.priority
    outlined = Message(
        id="",
        task=checked_name(task.name),
        body=b"",
        content_type=form.content_type,
        content_encoding=form.content_encoding,
        queue=place.queue,
        exchange=place.exchange,
        routing_key=place.routing_key,
        priority=priority_for(place.queue, asked),
        ignore_result=declared.ignore_result,
        enqueue=declared.enqueue,
    )
    named = task.parameters if any(map(looks_secret, task.parameters.parameters)) else None
    return Outline(settings, task, form, named, tuple(getattr(outlined, name) for name in FIELDS))


def checked_name(name: str) -> str:
    """Return a task's name, or raise NotRegistered when it cannot be one."""
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise NotRegistered(name[:80], f"A task's name has 1 to {NAME_LENGTH} printable characters.")
    return name


@cache
def origin() -> str:
    """Return what a message says of where it comes from: this process."""
    return f"gen{os.getpid()}@{socket.gethostname()}"


os.register_at_fork(after_in_child=origin.cache_clear)
