"""Which tasks took their workers down, and which are not to be run?"""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy

from django_tasks import actions
from django_tasks.admin.acting import Act, ActingPage
from django_tasks.admin.page import TaskPage
from django_tasks.display import free_text
from django_tasks.models import Crash, Revocation


@admin.register(Crash)
class CrashPage(TaskPage):
    list_display = ("created_at", "task_link", "attempt", "worker", "reason_shown")
    fields = ("created_at", "task_id", "task_link", "attempt", "worker", "reason_whole")

    @admin.display(description=gettext_lazy("task"))
    def task_link(self, row: Crash) -> str:
        return self.search_link("taskresult", row.task_id)

    @admin.display(description=gettext_lazy("reason"))
    def reason_shown(self, row: Crash) -> str:
        return Truncator(free_text(row.reason)).chars(120)

    @admin.display(description=gettext_lazy("reason"))
    def reason_whole(self, row: Crash) -> str:
        return free_text(row.reason)


@admin.register(Revocation)
class RevocationPage(ActingPage):
    list_display = ("created_at", "task_link", "terminate", "reason_shown")
    list_display_links = ("created_at",)
    fields = ("created_at", "task_id", "task_link", "terminate", "reason_shown")
    acts: ClassVar[tuple[Act, ...]] = (
        Act(
            "take_back",
            gettext_lazy("Take back"),
            "delete_revocation",
            actions.take_back,
            gettext_lazy("Messages of these tasks that are still on their way will be run."),
        ),
    )

    @admin.display(description=gettext_lazy("task"))
    def task_link(self, row: Revocation) -> str:
        return self.search_link("taskresult", row.task_id)

    @admin.display(description=gettext_lazy("reason"))
    def reason_shown(self, row: Revocation) -> str:
        return free_text(row.reason)
