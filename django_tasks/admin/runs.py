"""What became of the runs of periodic tasks, and which beats send them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks.admin.filters import OutcomeFilter, PeriodicFilter
from django_tasks.admin.page import LABEL, TaskPage, badge, moment
from django_tasks.display import free_text, from_now, moment_text, span
from django_tasks.listing import Listing, RunCriteria, find_runs
from django_tasks.models import BeatNode, ScheduledRun
from django_tasks.worker.presence import HEARD

_KINDS = {
    ScheduledRun.Outcome.SENT: "busy",
    ScheduledRun.Outcome.SUCCEEDED: "good",
    ScheduledRun.Outcome.FAILED: "bad",
    ScheduledRun.Outcome.MISSED: "warn",
}


def outcome_badge(row: ScheduledRun) -> SafeString:
    return badge(_KINDS.get(ScheduledRun.Outcome(row.outcome), "quiet"), row.get_outcome_display())


@admin.register(ScheduledRun)
class ScheduledRunPage(TaskPage):
    list_display = ("outcome_shown", "periodic_shown", "slot", "sent", "late", "ended", "task_link", "note_shown")
    list_display_links = ("slot",)
    list_filter = (OutcomeFilter, PeriodicFilter)
    search_fields = ("task_id",)
    search_help_text = gettext_lazy("The name of a periodic task, else a task's id or its beginning.")
    window_text = gettext_lazy(
        "Only the newest %(number)s are searched for this. Choose a periodic task to go further."
    )
    fields = (
        "outcome_shown",
        "periodic_shown",
        "slot_whole",
        "sent_whole",
        "late",
        "ended_whole",
        "task_link",
        "note_shown",
    )

    def find(self, rows: QuerySet[ScheduledRun], chosen: Mapping[str, Any], beginning: str) -> Listing[ScheduledRun]:
        return find_runs(rows, RunCriteria(**chosen, beginning=beginning), window=self.window)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScheduledRun]:
        fields = [field.name for field in ScheduledRun._meta.concrete_fields]
        return super().get_queryset(request).select_related("periodic_task").only(*fields, "periodic_task__name")

    @admin.display(description=gettext_lazy("outcome"))
    def outcome_shown(self, row: ScheduledRun) -> str:
        return outcome_badge(row)

    @admin.display(description=gettext_lazy("periodic task"))
    def periodic_shown(self, row: ScheduledRun) -> str:
        args = [row.periodic_task_id]
        url = reverse(f"admin:{LABEL}_periodictask_change", args=args, current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, row.periodic_task.name)

    @admin.display(description=gettext_lazy("scheduled for"))
    def slot(self, row: ScheduledRun) -> str:
        return moment(row.slot_at)

    @admin.display(description=gettext_lazy("sent"))
    def sent(self, row: ScheduledRun) -> str:
        return moment(row.published_at)

    @admin.display(description=gettext_lazy("ended"))
    def ended(self, row: ScheduledRun) -> str:
        return moment(row.ended_at)

    @admin.display(description=gettext_lazy("scheduled for"))
    def slot_whole(self, row: ScheduledRun) -> str:
        return moment_text(row.slot_at)

    @admin.display(description=gettext_lazy("sent"))
    def sent_whole(self, row: ScheduledRun) -> str:
        return moment_text(row.published_at) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("ended"))
    def ended_whole(self, row: ScheduledRun) -> str:
        return moment_text(row.ended_at) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("lateness"))
    def late(self, row: ScheduledRun) -> str:
        return span(row.lateness) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("task"))
    def task_link(self, row: ScheduledRun) -> str:
        return self.search_link("taskresult", row.task_id) if row.task_id else self.get_empty_value_display()

    @admin.display(description=gettext_lazy("note"))
    def note_shown(self, row: ScheduledRun) -> str:
        return free_text(row.note)


@admin.register(BeatNode)
class BeatNodePage(TaskPage):
    list_display = ("name", "alive", "ticked", "host", "pid", "version", "since", "published")
    fields = ("name", "alive", "ticked", "since", "host", "pid", "version", "published")

    def find(self, rows: QuerySet[BeatNode], chosen: Mapping[str, Any], beginning: str) -> Listing[BeatNode]:
        return Listing((rows.order_by("name"),))

    @admin.display(description=gettext_lazy("status"))
    def alive(self, row: BeatNode) -> str:
        return badge("bad", _("lost")) if timezone.now() - row.ticked_at > HEARD else badge("good", _("running"))

    @admin.display(description=gettext_lazy("last tick"))
    def ticked(self, row: BeatNode) -> str:
        return from_now(min(row.ticked_at, timezone.now()))

    @admin.display(description=gettext_lazy("started"))
    def since(self, row: BeatNode) -> str:
        return moment_text(row.started_at)
