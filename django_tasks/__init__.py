"""A distributed task queue for Django."""

from __future__ import annotations

from django_tasks.canvas.compositions import chain, chord, group
from django_tasks.canvas.mapped import chunks, xmap, xstarmap
from django_tasks.canvas.signature import Signature, signature
from django_tasks.canvas.stamping import StampingVisitor
from django_tasks.context import allow_join_result, current_request
from django_tasks.control.client import revoke, revoke_by_stamped_headers
from django_tasks.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from django_tasks.group_result import GroupResult, ResultSet, result_from_tuple
from django_tasks.periodic import add_periodic_task
from django_tasks.result import AsyncResult
from django_tasks.schedules import clocked, crontab, every, solar
from django_tasks.sending import abulk, bulk, send_task
from django_tasks.stock import accumulate
from django_tasks.task import Task, current_task, shared_task, task
from django_tasks.version import VERSION

__version__ = VERSION

__all__ = [
    "AsyncResult",
    "GroupResult",
    "Ignore",
    "Reject",
    "ResultSet",
    "Retry",
    "Signature",
    "SoftTimeLimitExceeded",
    "StampingVisitor",
    "Task",
    "abulk",
    "accumulate",
    "add_periodic_task",
    "allow_join_result",
    "bulk",
    "chain",
    "chord",
    "chunks",
    "clocked",
    "crontab",
    "current_request",
    "current_task",
    "every",
    "group",
    "result_from_tuple",
    "revoke",
    "revoke_by_stamped_headers",
    "send_task",
    "shared_task",
    "signature",
    "solar",
    "task",
    "xmap",
    "xstarmap",
]
