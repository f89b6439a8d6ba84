"""How is a worker, or a task that nobody has begun, told something from outside?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.utils.module_loading import import_string

from django_tasks import signals, states
from django_tasks.connections import home, keepers, results
from django_tasks.control.stamps import stamp_names
from django_tasks.exceptions import TaskRevoked
from django_tasks.failure import capture
from django_tasks.message import Message
from django_tasks.plan import Result

LEDGER = "django_tasks.control.ledger.RevocationLedger"
ABANDON = "django_tasks.sequel.abandon"


def revoke(ids: str | Sequence[str], *, terminate: bool = False, reason: str = "") -> list[str]:
    """Revoke one task or several: those that wait end as REVOKED now, those that nobody knows yet will when a worker
    meets them.

    One that runs goes on, but is not retried; with `terminate` its worker ends it, within a heartbeat at most.
    Returns the ids that ended now.
    """
    ids = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
    if not ids:
        return []
    # The ledger holds database models, which cannot be imported before Django's apps are ready.
    import_string(LEDGER)(home()).add(ids, terminate=terminate, reason=reason)
    ended = [message for broker in keepers() if broker.features.discards for message in broker.discard(ids)]
    store, over = results["default"], [revoked(message, reason) for message in ended]
    store.save(over)
    # Settling stands above calling, and revoking is something that handles do.
    import_string(ABANDON)(store, over)
    signals.announce(signals.task_revoked, __name__, ids=ids)
    return [message.id for message in ended]


def revoke_by_stamped_headers(headers: Mapping[str, Any], *, terminate: bool = False, reason: str = "") -> None:
    """Revoke all tasks that carry one of these stamps, those that are sent later too: `{"tenant": ["blue", "red"]}`.

    Each ends as REVOKED when a worker meets it, at its next heartbeat at the earliest; one that runs goes on, but is
    not retried; with `terminate` its worker ends it. Remembered for as long as REVOCATIONS_KEPT says. Raises TypeError
    for what is no stamp.
    """
    names = stamp_names(headers)
    if names:
        import_string(LEDGER)(home()).add(names, terminate=terminate, reason=reason)


def revoked(message: Message, reason: str = "") -> Result:
    """Return the result of a message that was taken out of its queue."""
    return Result.of(
        message,
        states.REVOKED,
        failure=capture(TaskRevoked(reason or "revoked before it was begun")),
        attempts=message.attempts,
        ended_at=datetime.fromtimestamp(time.time(), UTC),
        message=message,
    )
