"""How does a request become a task, once however often it is sent?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError

from django_tasks import states
from django_tasks.api.documents import look
from django_tasks.api.errors import KeyReused
from django_tasks.canvas.signature import Signature
from django_tasks.connections import brokers, results
from django_tasks.exceptions import SerializationError
from django_tasks.message import Message
from django_tasks.options import CallOptions
from django_tasks.plan import Plan
from django_tasks.protocol import load_headers
from django_tasks.publisher import publish
from django_tasks.routing import broker_for
from django_tasks.transactions import retrying

LONGEST_KEY = 255


def enqueue(call: Mapping[str, Any], user: Any, key: str | None) -> tuple[str, str]:
    """Enqueue a call that was validated; return the task's id and state.

    With a key, a second call of the same user with that key starts no second task, as long as the result of the first
    is kept: its result is kept even if the task's own is not. Raises KeyReused when the calls differ.
    """
    options: dict[str, Any] = {name: call[name] for name in ("countdown", "eta", "expires", "priority") if name in call}
    if key is not None:
        options |= {"task_id": id_for(user, key), "ignore_result": False}
    signature = Signature(call["task"].name, tuple(call["args"]), call["kwargs"], cast(CallOptions, options))
    try:
        (message,) = signature.frozen().plan().messages
    except SerializationError as error:
        field = "kwargs" if error.path.startswith("kwargs") else "args"
        raise ValidationError({field: [str(error)]}) from error
    except ValueError as error:
        raise ValidationError({"non_field_errors": [str(error)]}) from error
    broker = brokers[broker_for(message.queue)]
    if key is None:
        publish(Plan((message,)))
        return message.id, _state_now(message.id) if broker.eager else states.PENDING
    if broker.database is not None and broker.database == results["default"].database:
        state = retrying(broker.database, lambda: _once(message))
    else:
        state = _once(message)
    if state is _OTHER:
        raise KeyReused
    return message.id, state


def _state_now(task_id: str) -> str:
    row, _queued = look(task_id)
    return states.PENDING if row is None else row.state


def id_for(user: Any, key: str) -> str:
    """Return the id of the task that a user's key stands for; nobody else can tell it from the key."""
    if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        text = _("Idempotency-Key: 1 to %(most)d printable characters.") % {"most": LONGEST_KEY}
        raise ValidationError({"non_field_errors": [text]})
    digest = salted_hmac("django_tasks.api.idempotency", f"{user.pk}:{key}", algorithm="sha256").digest()
    # A UUID of version 8 (RFC 9562): its other bits are whatever the maker says.
    number = int.from_bytes(digest[:16]) & ~(0xF << 76 | 0x3 << 62) | 8 << 76 | 2 << 62
    return str(UUID(int=number))


def _once(message: Message) -> str:
    """Publish a call unless it is known, and return its state; `_OTHER` when its id stands for another call."""
    state = _known(message)
    if state is not None:
        return state
    publish(Plan((message,)))
    # A worker may have finished the first call since we looked, and then this was a second one.
    state = _known(message) or states.PENDING
    if state in states.FINAL:
        brokers[broker_for(message.queue)].discard([message.id])
    return state


def _known(message: Message) -> str | None:
    """Return the state of the call that has this message's id, None when there is none."""
    row, queued = look(message.id)
    if row is not None:
        told = row.task, row.args_repr, row.kwargs_repr
    elif queued is not None:
        headers = load_headers(queued.headers)
        told = queued.task, headers.get("argsrepr", ""), headers.get("kwargsrepr", "")
    else:
        return None
    if told != (message.task, message.args_repr, message.kwargs_repr):
        return _OTHER
    return states.PENDING if row is None else row.state


_OTHER = ""
