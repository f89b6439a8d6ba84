"""Which runs of periodic tasks still go on?"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from django_tasks.connections import brokers, results
from django_tasks.exceptions import StoreUnavailable
from django_tasks.models import QueuedMessage, ScheduledRun

LONGEST = timedelta(days=1)
"""A run of which nothing is heard counts as lost after this, where the broker cannot be asked for its message."""


def unfinished(using: str, ids: Collection[str], now: datetime) -> set[str]:
    """Return which of these tasks have not ended, in a bounded number of queries.

    A run has ended when a worker has said so, or its result is final; it is lost when a database that keeps its queue
    has its message no more.
    """
    if not ids:
        return set()
    rows = ScheduledRun.objects.using(using).filter(task_id__in=ids, outcome=ScheduledRun.Outcome.SENT)
    sent = {task_id: published_at or now for task_id, published_at in rows.values_list("task_id", "published_at")}
    if not sent:
        return set()
    try:
        over = {one.id for one in results["default"].get(list(sent)).values() if one.final}
    except StoreUnavailable:
        over = set()
    open_ids = sent.keys() - over
    there = set(QueuedMessage.objects.using(using).filter(task_id__in=open_ids).values_list("task_id", flat=True))
    if all(broker.database == using for broker in brokers.all()):
        return there
    return there | {each for each in open_ids - there if now - sent[each] < LONGEST}
