"""What does the API say of a task?"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from django_tasks import states
from django_tasks.connections import results
from django_tasks.display import call_text, free_text, past_attempts, value_tree
from django_tasks.listing import standing, waiting
from django_tasks.models import QueuedMessage, TaskResult
from django_tasks.plan import Result

Document = dict[str, Any]

_PROGRESS = ("current", "total", "percent", "message")


def look(task_id: str) -> tuple[TaskResult | None, QueuedMessage | None]:
    """Return what is known of a task: its result, else its message."""
    row = _result(task_id)
    if row is not None:
        return row, None
    message = waiting([task_id]).get(task_id)
    # It may have ended between the two looks; a task leaves its queue and gets its result at once.
    return (None, message) if message is not None else (_result(task_id), None)


def _result(task_id: str) -> TaskResult | None:
    store = results["default"]
    if store.database is None:
        found = store.get([task_id]).get(task_id)
        return None if found is None else row_of(found)
    return TaskResult.objects.using(store.database).filter(task_id=task_id).defer("message", "error_args").first()


def row_of(result: Result) -> TaskResult:
    """Return a result of any store in the form of the database's, unsaved."""
    failure = result.failure
    return TaskResult(
        task_id=result.id,
        state=result.state,
        task=result.task,
        queue=result.queue,
        worker=result.worker,
        args_repr=result.args_repr,
        kwargs_repr=result.kwargs_repr,
        value=None if result.value is None else result.value.decode("utf-8", "replace"),
        error_type=failure.type if failure else "",
        error_module=failure.module if failure else "",
        error_message=failure.message if failure else "",
        traceback=failure.traceback if failure else "",
        retries=result.retries,
        attempts=result.attempts,
        runtime=result.runtime,
        created_at=result.created_at,
        started_at=result.started_at,
        ended_at=result.ended_at,
        root_id=result.root_id,
        parent_id=result.parent_id,
        group_id=result.group_id,
    )


def summary(row: TaskResult, url: str) -> Document:
    """Return what the list says."""
    return {
        "id": row.task_id,
        "url": url,
        "state": row.state,
        "task": row.task,
        "queue": row.queue,
        "worker": row.worker,
        "attempts": row.attempts,
        "retries": row.retries,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "runtime": row.runtime,
    }


def whole(row: TaskResult, url: str, *, payload: bool) -> Document:
    """Return all of a task; arguments, result and traceback only where they may be seen."""
    value = value_tree(row.value)
    document = summary(row, url) | {
        "progress": progress(value) if states.is_custom(row.state) else None,
        "error": None,
        "history": past_attempts(row.history),
        "root_id": row.root_id,
        "parent_id": row.parent_id,
        "group_id": row.group_id,
        "standing": None,
        "visible_at": None,
    }
    if row.error_type:
        document["error"] = {
            "type": row.error_type,
            "module": row.error_module,
            "message": free_text(row.error_message),
        }
        if payload:
            document["error"]["traceback"] = free_text(row.traceback)
    if payload:
        document |= {"args": call_text(row.args_repr), "kwargs": call_text(row.kwargs_repr), "result": value}
    return document


def pending(message: QueuedMessage, url: str, *, payload: bool) -> Document:
    """Return all of a task that only its message tells of."""
    row = TaskResult(
        task_id=message.task_id,
        state=states.PENDING,
        task=message.task,
        queue=message.queue,
        attempts=message.deliveries,
        created_at=message.created_at,
    )
    try:
        headers = json.loads(message.headers)
        row.args_repr, row.kwargs_repr = str(headers.get("argsrepr", "")), str(headers.get("kwargsrepr", ""))
        row.retries = int(headers.get("retries", 0))
        row.attempts += int(headers.get("attempts", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass  # one that cannot be read waits all the same
    times = {"standing": standing(message), "visible_at": message.visible_at}
    return whole(row, url, payload=payload) | times


def progress(meta: Any) -> Document | None:
    """Return how far a task is, from the data of a custom state, where that has any of the four names."""
    if not isinstance(meta, dict) or not any(name in meta for name in _PROGRESS):
        return None
    current, total, percent = (_number(meta.get(name)) for name in _PROGRESS[:3])
    if percent is None and current is not None and total:
        percent = round(100 * current / total, 1)
    message = meta.get("message")
    return {
        "current": current,
        "total": total,
        "percent": percent,
        "message": message if isinstance(message, str) else None,
    }


def _number(value: Any) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fine else None


def etag(document: Document) -> str:
    """Return a tag that changes whenever the document does."""
    text = json.dumps(document, sort_keys=True, cls=DjangoJSONEncoder)
    return f'"{hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]}"'
