"""Which call does a row describe?"""

from __future__ import annotations

import json
from typing import Any

from django_tasks.canvas.calls import ORPHAN
from django_tasks.canvas.signature import Signature
from django_tasks.canvas.steps import Step
from django_tasks.exceptions import ConfigurationError, NotRegistered, SerializationError
from django_tasks.models import PeriodicTask
from django_tasks.options import CallOptions
from django_tasks.plan import Plan

HEADER = "periodic_task_name"
"""Tells whose run a message is, as with django-celery-beat."""


class Unfit(ValueError):
    """A row says something that cannot be; the message is for its owner."""


MISFITS = (Unfit, ConfigurationError, SerializationError, NotRegistered, TypeError, ValueError, OverflowError)
"""What is wrong with a row, rather than with a server."""


def plan_of(row: PeriodicTask, task_id: str) -> Plan:
    """Return what is sent when a row is run; raises one of MISFITS."""
    return call_of(row, task_id).frozen().begin(Step(ORPHAN, replies=False))


def call_of(row: PeriodicTask, task_id: str) -> Signature:
    """Return the call of a row; raises Unfit for a row that describes none."""
    args, kwargs, headers = _read(row.args, list), _read(row.kwargs, dict), _read(row.headers, dict)
    options: CallOptions = {
        "task_id": task_id,
        "headers": {**headers, HEADER: row.name, "celery_beat_task": True},
        # Elsewhere than in a database it is committed with the slot, and relayed then.
        "enqueue": "transaction",
    }
    if row.queue:
        options["queue"] = row.queue
    if row.priority is not None:
        options["priority"] = row.priority
    if row.expires is not None:
        options["expires"] = row.expires
    return Signature(row.task, args, kwargs, options)


def _read(text: str, kind: type) -> Any:
    wanted = "a list" if kind is list else "an object"
    try:
        found = json.loads(text or ("[]" if kind is list else "{}"))
    except (ValueError, RecursionError) as error:
        raise Unfit(f"{text!r:.80} is not {wanted} in JSON: {error}") from error
    if not isinstance(found, kind):
        raise Unfit(f"{text!r:.80} is not {wanted} in JSON.")
    return found
