"""How do others see that this worker is alive, and what it does?"""

from __future__ import annotations

import json
import logging
import os
import platform
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from django_tasks.models import WorkerNode
from django_tasks.pools.base import Running
from django_tasks.transactions import retrying

_log = logging.getLogger("django_tasks.worker")

HEARD = timedelta(seconds=30)
"""How long a worker or a beat counts as alive after it was heard of: one that has been silent for longer has lost its
leases too."""
STALE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while a worker runs."""

    name: str
    pool: str
    concurrency: int
    queues: Sequence[str]
    broker: str
    version: str


class Presence:
    """Keeps the worker's row in the table of workers."""

    def __init__(self, identity: Identity, using: str) -> None:
        self.identity = identity
        self.using = using
        self.session = str(uuid.uuid4())
        self._announced = False
        self._warned = False

    def announce(self) -> None:
        """Write the row of a worker that starts; one of an earlier start under this name is replaced."""
        now = timezone.now()
        fields = {
            "session": self.session,
            "host": platform.node(),
            "pid": os.getpid(),
            "pool": self.identity.pool,
            "concurrency": self.identity.concurrency,
            "queues": ",".join(self.identity.queues),
            "broker": self.identity.broker,
            "version": self.identity.version,
            "status": "running",
            "started_at": now,
            "heartbeat_at": now,
            "processed": 0,
            "failed": 0,
            "running": "[]",
        }
        nodes = WorkerNode.objects.using(self.using)
        retrying(self.using, lambda: nodes.update_or_create(name=self.identity.name, defaults=fields))
        self._announced = True

    def beat(self, status: str, processed: int, failed: int, running: Sequence[Running]) -> None:
        """Show that the worker is alive; a row that somebody removed is written again."""
        values: dict[str, Any] = {
            "status": status,
            "heartbeat_at": timezone.now(),
            "processed": processed,
            "failed": failed,
            "running": json.dumps([_told(entry) for entry in running[:100]]),
        }
        named = WorkerNode.objects.using(self.using).filter(name=self.identity.name)
        if not retrying(self.using, lambda: named.filter(session=self.session).update(**values)):
            if self._announced and not self._warned and retrying(self.using, named.exists, atomic=False):
                self._warned = True
                _log.warning("Another worker has the name %s too; give each its own with --name", self.identity.name)
            self.announce()

    def leave(self, processed: int, failed: int) -> None:
        """Say that the worker has ended."""
        own = WorkerNode.objects.using(self.using).filter(name=self.identity.name, session=self.session)
        values = {"status": "offline", "processed": processed, "failed": failed, "running": "[]"}
        retrying(self.using, lambda: own.update(**values))

    def prune(self) -> int:
        """Remove the rows of workers that have been gone for a day; return how many."""
        gone = WorkerNode.objects.using(self.using).filter(heartbeat_at__lt=timezone.now() - STALE)
        return gone.delete()[0]


def _told(entry: Running) -> dict[str, Any]:
    message = entry.delivery.message
    since = datetime.fromtimestamp(entry.since, UTC).isoformat()
    return {"id": message.id, "task": message.task, "since": since, "pid": entry.pid}
