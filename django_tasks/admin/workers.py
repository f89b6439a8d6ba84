"""Who works, and at what?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks.admin.page import TaskPage, badge
from django_tasks.display import moment_text, span
from django_tasks.listing import Listing, message_databases
from django_tasks.models import WorkerNode
from django_tasks.worker.presence import HEARD


@admin.register(WorkerNode)
class WorkerNodePage(TaskPage):
    list_display = (
        "name",
        "alive",
        "heard",
        "host",
        "pid",
        "pool",
        "concurrency",
        "queues_shown",
        "processed",
        "failed",
        "busy",
    )
    fieldsets = (
        (None, {"fields": ("name", "alive", "heard", "started", "running_shown")}),
        (gettext_lazy("Place"), {"fields": ("host", "pid", "version", "session")}),
        (gettext_lazy("Work"), {"fields": ("broker", "queues_shown", "pool", "concurrency", "processed", "failed")}),
    )

    def find(self, rows: QuerySet[WorkerNode], chosen: Mapping[str, Any], beginning: str) -> Listing[WorkerNode]:
        return Listing((rows.order_by("name"),))

    @admin.display(description=gettext_lazy("status"))
    def alive(self, row: WorkerNode) -> str:
        if row.status == WorkerNode.Status.OFFLINE:
            return badge("quiet", row.get_status_display())
        if timezone.now() - row.heartbeat_at > HEARD:
            return badge("bad", _("lost"))
        return badge("good" if row.status == WorkerNode.Status.RUNNING else "warn", row.get_status_display())

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heard(self, row: WorkerNode) -> str:
        return _("%(span)s ago") % {"span": span(max(0.0, (timezone.now() - row.heartbeat_at).total_seconds()))}

    @admin.display(description=gettext_lazy("started"))
    def started(self, row: WorkerNode) -> str:
        return moment_text(row.started_at)

    @admin.display(description=gettext_lazy("queues"))
    def queues_shown(self, row: WorkerNode) -> str:
        return ", ".join(filter(None, row.queues.split(",")))

    @admin.display(description=gettext_lazy("running"))
    def busy(self, row: WorkerNode) -> int:
        return len(running(row))

    @admin.display(description=gettext_lazy("running"))
    def running_shown(self, row: WorkerNode) -> str:
        page = "queuedmessage" if message_databases() else "taskresult"
        entries = [entry | {"link": self.search_link(page, entry["id"])} for entry in running(row)]
        return render_to_string("admin/django_tasks/running.html", {"entries": entries})


def running(row: WorkerNode) -> list[dict[str, Any]]:
    """Return the tasks that a worker says it runs; what cannot be read is left out."""
    try:
        told = json.loads(row.running)
    except (ValueError, RecursionError):
        return []
    return [
        {
            "id": str(entry["id"]),
            "task": str(entry.get("task", "")),
            "since": moment_text(_since(entry)),
            "pid": str(entry.get("pid", "")),
        }
        for entry in (told if isinstance(told, list) else ())
        if isinstance(entry, dict) and entry.get("id")
    ]


def _since(entry: Mapping[str, Any]) -> datetime | None:
    try:
        return parse_datetime(str(entry.get("since", "")))
    except ValueError:
        return None
