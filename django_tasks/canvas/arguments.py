"""What does a task get before the arguments that its message carries?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from django_tasks.canvas.values import values_of
from django_tasks.connections import groups_of
from django_tasks.context import Request
from django_tasks.exceptions import ChordError, DecodeError
from django_tasks.failure import Failure, rebuild
from django_tasks.message import Message
from django_tasks.serializers import loads


def arguments(args: tuple[Any, ...], embed: Mapping[str, Any], store: str) -> tuple[Any, ...]:
    """Return the arguments of a task: the values of a group before them, or what an errback is told.

    Raises ChordError when the values are not kept any more, DecodeError for what cannot be read, StoreUnavailable.
    """
    group_id, failed = embed.get("gather"), embed.get("failed")
    if group_id is not None:
        if type(group_id) is not str:
            raise DecodeError("what names the group whose values are an argument is no text")
        values = values_of(groups_of(store), group_id)
        if values is None:
            raise ChordError(f"The values of the group {group_id} are not kept any more.")
        return ([loads(value) for value in values], *args)
    if failed is not None:
        return (*_told(failed), *args)
    return args


def _told(failed: Any) -> tuple[Request, BaseException, str]:
    """Return the request of the task that failed, its exception, and its traceback as text."""
    try:
        failure = Failure.from_dict(failed["failure"])
        message = Message(**{name: value for name, value in failed["message"].items() if name in _NAMES}, body=b"")
    except (TypeError, KeyError, AttributeError) as error:
        raise DecodeError(f"what an errback is told cannot be read: {error!r}") from error
    return Request(message=message), rebuild(failure), failure.traceback


_NAMES = frozenset(field.name for field in fields(Message)) - {"body"}
