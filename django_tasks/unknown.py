"""What becomes of a message whose task nobody here knows: is it held until a worker comes that does?"""

from __future__ import annotations

from datetime import UTC, datetime

from django_tasks import conf, states
from django_tasks.exceptions import NotRegistered
from django_tasks.failure import capture
from django_tasks.message import Delivery
from django_tasks.plan import Outcome, Requeue

SHORTEST, LONGEST = 1.0, 60.0
"""Seconds between two looks at a message that is held."""


def held(delivery: Delivery, error: NotRegistered, now: float) -> Outcome | None:
    """Say that a message goes back to its queue for a while, unspent; None when `UNKNOWN_TASKS_WAIT` is over.

    It waits as long again as it has waited already, from a second to a minute: so the delay grows, and nothing need be
    kept of the message but the time when it was sent, was first seen, or was to be run.
    """
    wait, since = conf.get().unknown_tasks_wait, _since(delivery)
    if wait is None or since is None:
        return None
    if delivery.message.eta is not None:
        since = max(since, delivery.message.eta)
    waited = (datetime.fromtimestamp(now, UTC) - since).total_seconds()
    left = wait.total_seconds() - waited
    if left <= 0:
        return None
    delay = min(max(SHORTEST, waited), LONGEST, left)
    return Outcome(states.PENDING, failure=capture(error), requeue=Requeue(delay=delay), keep=False)


def _since(delivery: Delivery) -> datetime | None:
    """Return when a message was sent; when a worker first had it, if it does not say and its broker knows."""
    if delivery.message.created_at is not None or delivery.seen_at is None:
        return delivery.message.created_at
    return datetime.fromtimestamp(delivery.seen_at, UTC)
