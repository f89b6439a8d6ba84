"""What does Django's admin show of tasks? One file a page; importing them registers them."""

from __future__ import annotations

from django_tasks.admin.evidence import CrashPage, RevocationPage
from django_tasks.admin.groups import TaskGroupPage
from django_tasks.admin.messages import QueuedMessagePage
from django_tasks.admin.periodic import PeriodicTaskPage
from django_tasks.admin.results import TaskResultPage
from django_tasks.admin.runs import BeatNodePage, ScheduledRunPage
from django_tasks.admin.workers import WorkerNodePage

__all__ = [
    "BeatNodePage",
    "CrashPage",
    "PeriodicTaskPage",
    "QueuedMessagePage",
    "RevocationPage",
    "ScheduledRunPage",
    "TaskGroupPage",
    "TaskResultPage",
    "WorkerNodePage",
]
