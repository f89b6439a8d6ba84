"""How does a result look as a row of a table?"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django_tasks import states
from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.failure import Failure
from django_tasks.message import NAME_LENGTH, QUEUE_LENGTH, Message
from django_tasks.models import STATE_LENGTH, TaskResult
from django_tasks.plan import Result
from django_tasks.protocol import LARGEST, dump_message, load_message
from django_tasks.reprs import storable_text

Row = tuple[Any, ...]
"""The values of COLUMNS; times are aware."""

COLUMNS: Mapping[str, str] = {
    "task_id": "text",
    "state": "text",
    "task": "text",
    "queue": "text",
    "worker": "text",
    "args_repr": "text",
    "kwargs_repr": "text",
    "value": "text",
    "error_type": "text",
    "error_module": "text",
    "error_message": "text",
    "error_args": "text",
    "error_notes": "text",
    "traceback": "text",
    "retries": "integer",
    "attempts": "integer",
    "runtime": "float8",
    "created_at": "timestamptz",
    "started_at": "timestamptz",
    "ended_at": "timestamptz",
    "root_id": "text",
    "parent_id": "text",
    "group_id": "text",
    "message": "text",
    "children": "text",
    "history": "text",
}
"""Every column of the table, with PostgreSQL's name of its type."""

TIMES = slice(17, 20)
"""Where the times stand among the columns."""

KEPT_TEXTS = ("task", "queue", "args_repr", "kwargs_repr")
KEPT_OTHERS = ("created_at", "started_at", "root_id", "parent_id", "group_id")
"""What a result of a later state need not say again: where it is left out, it stays."""

HISTORY = 65_536
"""Characters that are kept of what became of earlier attempts."""

_ERROR_LENGTH = 1_000
_WORKER_LENGTH = 255
_ANY_LENGTH = 1 << 30

_LENGTHS = {field.column: field.max_length for field in TaskResult._meta.concrete_fields}

_BINARY = "base64:"
"""Begins a value that is not text, as no JSON does."""


def to_row(result: Result, history: str) -> Row:
    """Return a result as a row that every database takes: whatever is wrong with a text, its task has ended."""
    failure = result.failure or _NO_FAILURE
    row = (
        result.id,
        result.state[:STATE_LENGTH],
        result.task[:NAME_LENGTH],
        result.queue[:QUEUE_LENGTH],
        result.worker[:_WORKER_LENGTH],
        result.args_repr,
        result.kwargs_repr,
        None if result.value is None else as_text(result.value),
        failure.type[:NAME_LENGTH],
        failure.module[:NAME_LENGTH],
        failure.message,
        failure.args,
        json.dumps(failure.notes) if failure.notes else "",
        failure.traceback,
        min(result.retries, LARGEST),
        min(result.attempts, LARGEST),
        result.runtime,
        result.created_at,
        result.started_at,
        result.ended_at,
        _name(result.root_id),
        _name(result.parent_id),
        _name(result.group_id),
        None if result.message is None else _kept(result.message),
        result.children or None,
        history,
    )
    return row if _is_storable(row) else tuple(map(_storable, COLUMNS, row))


_NO_FAILURE = Failure("", "")


def _name(value: str | None) -> str | None:
    return None if value is None else value[:NAME_LENGTH]


def _is_storable(row: Row) -> bool:
    """Tell, for all texts at once, whether databases take them."""
    texts = "".join([value for value in row if type(value) is str])
    if "\x00" in texts:
        return False
    if texts.isascii():
        return True
    try:
        texts.encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable(column: str, value: Any) -> Any:
    # An escape is longer than what it stands for.
    return storable_text(value, _ANY_LENGTH)[: _LENGTHS.get(column)] if type(value) is str else value


def as_text(value: bytes) -> str:
    """Return an encoded value as text, which databases index and show."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = _BINARY
    return _BINARY + b64encode(value).decode("ascii") if text.startswith(_BINARY) else text


def as_bytes(text: str) -> bytes:
    """Return the encoded value that `as_text` made text of."""
    return b64decode(text.removeprefix(_BINARY)) if text.startswith(_BINARY) else text.encode()


def _kept(message: Message) -> str | None:
    try:
        return dump_message(message)
    except SerializationError:
        # It cannot be sent again; that its task ended is written all the same.
        return None


def _restored(text: str) -> Message | None:
    try:
        return load_message(text)
    except DecodeError:
        return None


def history_line(result: Result) -> str:
    """Return what the history says of an attempt that did not end the task; nothing of other results."""
    if result.state != states.RETRY:
        return ""
    ended = result.ended_at
    if ended is None and result.started_at is not None:
        ended = result.started_at + timedelta(seconds=result.runtime or 0.0)
    failure = result.failure
    line = {
        "attempt": result.attempts,
        "state": result.state,
        "worker": result.worker,
        "started": None if result.started_at is None else result.started_at.isoformat(),
        "ended": None if ended is None else ended.isoformat(),
        "error": None if failure is None else f"{failure.type}: {failure.message}"[:_ERROR_LENGTH],
    }
    return json.dumps(line) + "\n"


def from_row(row: Sequence[Any]) -> Result:
    """Return the result of a row, given without its history."""
    (task_id, state, task, queue, worker, args_repr, kwargs_repr, value) = row[:8]
    (retries, attempts, runtime, created_at, started_at, ended_at, root_id, parent_id, group_id) = row[14:23]
    message, children = row[23:25]
    return Result(
        id=task_id,
        state=state,
        value=None if value is None else as_bytes(value),
        failure=_failure(*row[8:14]),
        task=task,
        queue=queue,
        worker=worker,
        args_repr=args_repr,
        kwargs_repr=kwargs_repr,
        retries=retries,
        attempts=attempts,
        runtime=runtime,
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        root_id=root_id,
        parent_id=parent_id,
        group_id=group_id,
        message=None if message is None else _restored(message),
        children=children or "",
    )


def _failure(kind: str, module: str, message: str, args: str | None, notes: str, traceback: str) -> Failure | None:
    if not kind and not module:
        return None
    try:
        told = tuple(map(str, json.loads(notes))) if notes else ()
    except (ValueError, TypeError):
        told = (notes,)
    return Failure(kind, module, message, args, traceback, told)
