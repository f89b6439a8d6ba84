"""A distributed task queue for Django."""

from __future__ import annotations

from django_tasks.canvas.nodes import Signature
from django_tasks.context import allow_join_result, current_request
from django_tasks.control.client import revoke
from django_tasks.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from django_tasks.result import AsyncResult
from django_tasks.task import Task, abulk, bulk, current_task, send_task, shared_task, task
from django_tasks.version import VERSION

__version__ = VERSION

__all__ = [
    "AsyncResult",
    "Ignore",
    "Reject",
    "Retry",
    "Signature",
    "SoftTimeLimitExceeded",
    "Task",
    "abulk",
    "allow_join_result",
    "bulk",
    "current_request",
    "current_task",
    "revoke",
    "send_task",
    "shared_task",
    "task",
]
