"""What does Django's admin show of tasks? One file a page; importing them registers them."""

from __future__ import annotations

from django_tasks.admin.evidence import CrashPage, RevocationPage
from django_tasks.admin.groups import TaskGroupPage
from django_tasks.admin.messages import QueuedMessagePage
from django_tasks.admin.results import TaskResultPage
from django_tasks.admin.workers import WorkerNodePage

__all__ = ["CrashPage", "QueuedMessagePage", "RevocationPage", "TaskGroupPage", "TaskResultPage", "WorkerNodePage"]
