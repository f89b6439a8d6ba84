"""How does a result look to Celery? As the JSON that its result backends keep.

Beside Celery's own keys stands one that Celery passes over, with what it has no place for. Values are as they travel:
what both sides know (dates, decimals, UUIDs, bytes) is the same on both; sets, enums and dataclasses are ours alone.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django_tasks import states
from django_tasks.dependencies import CHILDREN, forms_from
from django_tasks.failure import Failure
from django_tasks.plan import Result
from django_tasks.results.fields import fields_of, packed, results_of, unpacked

OURS = "django_tasks"
"""The key with the rest of a result."""


def dump_meta(result: Result) -> bytes:
    """Return a result as Celery would write it."""
    value = None if result.value is None else json.loads(result.value)
    if result.state in states.EXCEPTION:
        value = _exception(result)
    # What reads back as it was need not be there twice.
    same = result.value is None or (
        value is not None and result.state not in states.EXCEPTION and _text(value) == result.value
    )
    rest = packed(fields_of(replace(result, children="", value=None if same else result.value)))
    return _text(
        {
            "task_id": result.id,
            "status": result.state,
            "result": value,
            "traceback": result.failure.traceback if result.failure else None,
            "children": forms_from(result.children),
            "date_done": result.ended_at.isoformat() if result.ended_at else None,
            "parent_id": result.parent_id,
            "group_id": result.group_id,
            "name": result.task,
            "args": result.args_repr,
            "kwargs": result.kwargs_repr,
            "worker": result.worker,
            "retries": result.retries,
            "queue": result.queue,
            OURS: b64encode(rest).decode("ascii"),
        }
    )


def load_meta(task_id: str, raw: bytes) -> Result | None:
    """Return the result that Celery or `dump_meta` wrote; None if it is none."""
    try:
        meta = json.loads(raw)
        state = meta["status"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(state, str):
        return None
    failed = state in states.EXCEPTION
    value = None if failed or meta.get("result") is None else _text(meta["result"])
    if (ours := _rest(task_id, meta.get(OURS))) is not None:
        known = ours.value if ours.value is not None or failed else value
        return replace(ours, value=known, children=_children(meta.get("children")))
    return Result(
        id=task_id,
        state=state,
        value=b"null" if value is None and state == states.SUCCESS else value,
        failure=_failure(meta.get("result"), meta.get("traceback")) if failed else None,
        task=_word(meta.get("name")),
        queue=_word(meta.get("queue")),
        worker=_word(meta.get("worker")),
        retries=meta["retries"] if type(meta.get("retries")) is int else 0,
        ended_at=_moment(meta.get("date_done")) if state in states.FINAL else None,
        parent_id=_word(meta.get("parent_id")) or None,
        group_id=_word(meta.get("group_id")) or None,
        children=_children(meta.get("children")),
    )


def _children(told: Any) -> str:
    return json.dumps(told[:CHILDREN], separators=(",", ":")) if isinstance(told, list) and told else ""


def _text(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _exception(result: Result) -> dict[str, Any]:
    failure = result.failure
    if failure is None:
        return {"exc_type": "TaskError", "exc_message": [result.state], "exc_module": "django_tasks.exceptions"}
    try:
        args = json.loads(failure.args or "null")
    except ValueError:
        args = None
    if isinstance(args, dict):
        args = args.get("args")
    message = args if isinstance(args, list) else [failure.message]
    return {"exc_type": failure.type, "exc_message": message, "exc_module": failure.module}


def _failure(told: Any, traceback: Any) -> Failure:
    if not isinstance(told, dict):
        return Failure("TaskError", "django_tasks.exceptions", str(told), traceback=_word(traceback))
    args = told.get("exc_message")
    args = args if isinstance(args, list) else [args]
    message = str(args[0]) if len(args) == 1 else str(tuple(args))
    kind, module = _word(told.get("exc_type")) or "Exception", _word(told.get("exc_module")) or "builtins"
    return Failure(kind, module, message, _text(args).decode(), _word(traceback))


def _rest(task_id: str, told: Any) -> Result | None:
    if not isinstance(told, str):
        return None
    try:
        return next(results_of([task_id], [unpacked(b64decode(told))]), None)
    except (NotBase64, ValueError):
        return None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _moment(text: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
