"""Which tasks are sent again and again, when, and what came of it?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks import timetable
from django_tasks.actions import Report
from django_tasks.admin.acting import Act, ActingPage
from django_tasks.admin.filters import ConditionFilter, EnabledFilter, OriginFilter
from django_tasks.admin.page import LABEL, badge, is_of_one, moment, preformatted
from django_tasks.admin.periodic_form import PAYLOAD, Look, PeriodicTaskForm, look_at, unknown_task
from django_tasks.admin.runs import outcome_badge
from django_tasks.display import free_text, from_now, moment_text, pretty, redacted, span
from django_tasks.listing import HEAVY_PERIODIC, Listing, PeriodicCriteria, find_periodic, last_runs
from django_tasks.models import PeriodicTask, ScheduledRun
from django_tasks.schedules import names_a_class

_RUNS = 10
"""Of its last runs the page of one shows so many."""
_QUIET_BELOW = '{}<br><span class="task-quiet">{}</span>'
_LAST_RUN = "_last_run"
_RUN_NOW = Act("run_now", gettext_lazy("Run now"), "run_periodictask", lambda rows: timetable.run(rows, ""))


@admin.register(PeriodicTask)
class PeriodicTaskPage(ActingPage):
    form = PeriodicTaskForm
    list_display = ("name_shown", "standing_shown", "schedule_shown", "next_shown", "last_shown", "runs", "origin")
    list_display_links = ("name_shown",)
    list_filter = (EnabledFilter, ConditionFilter, OriginFilter)
    search_fields = ("name",)
    search_help_text = gettext_lazy("Part of a name, or of the name of the task.")
    window_text = gettext_lazy("Only the first %(number)s, by name, are searched for this.")
    acts: ClassVar[tuple[Act, ...]] = (
        _RUN_NOW,
        Act(
            "enable",
            gettext_lazy("Enable"),
            "change_periodictask",
            timetable.enable,
            fits=lambda row: not row.enabled,
        ),
        Act("disable", gettext_lazy("Disable"), "change_periodictask", timetable.disable, fits=lambda row: row.enabled),
        Act(
            "delete",
            gettext_lazy("Delete"),
            "delete_periodictask",
            timetable.remove,
            gettext_lazy("They are not sent any more, and what is known of their runs is deleted as well."),
            dangerous=True,
            fits=lambda row: not row.from_code,
        ),
    )

    class Media:
        js = ("django_tasks/periodic.js",)

    def find(self, rows: QuerySet[PeriodicTask], chosen: Mapping[str, Any], beginning: str) -> Listing[PeriodicTask]:
        return find_periodic(rows, PeriodicCriteria(**chosen, part=beginning), window=self.window)

    def complete(self, rows: Sequence[PeriodicTask]) -> None:
        """Give each row its last run, with two queries a page."""
        table = PeriodicTask.objects.using(self.database()).filter(pk__in=[row.pk for row in rows])
        newest = dict(table.values_list("pk", Subquery(last_runs().values("pk")[:1])))
        runs = ScheduledRun.objects.using(self.database()).in_bulk([pk for pk in newest.values() if pk is not None])
        for row in rows:
            setattr(row, _LAST_RUN, runs.get(newest.get(row.pk)))

    def get_queryset(self, request: HttpRequest) -> QuerySet[PeriodicTask]:
        rows = super().get_queryset(request)
        chosen = request.method == "POST"
        # Whoever sends or changes rows needs all of them.
        return rows if chosen or is_of_one(request) else rows.defer(*HEAVY_PERIODIC)

    # Who may do what

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"{LABEL}.add_periodictask")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"{LABEL}.change_periodictask")

    def carry_out(self, request: HttpRequest, act: Act, rows: Sequence[PeriodicTask]) -> Report:
        return timetable.run(rows, request.user.get_username()) if act is _RUN_NOW else act.run(rows)

    def name_of(self, row: PeriodicTask) -> str:
        return row.name

    def short_name(self, name: str) -> str:
        return name

    # One periodic task

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.preview_url = self._preview_url()
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        said = [name for name in PeriodicTaskForm.Meta.fields if name != "enabled"]
        return [*_SHOWN, *(said if obj is not None and obj.from_code else ())]

    def get_fieldsets(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        settled = obj is not None and (obj.from_code or not self.has_change_permission(request, obj))
        call = ["arguments", "keyword_arguments", "headers_shown"] if settled else list(PAYLOAD)
        if obj is not None and not request.user.has_perm(f"{LABEL}.view_payload"):
            call = ["hidden"]
        when = ["schedule", "timezone", ("start_at", "end_at"), "one_off"]
        if settled:
            when = ["schedule_text", "look_shown", "timezone", "start_at", "end_at", "one_off"]
        fieldsets = [
            (None, {"fields": ["name", "task", "enabled", "description"]}),
            (_("When it is due"), {"fields": when}),
            (_("What is sent"), {"fields": [*call, "queue", "priority", "expires"]}),
            (
                _("When something is in the way"),
                {"fields": ["missed", "missed_limit", "overlap", "jitter", "pause_after"]},
            ),
        ]
        if obj is not None:
            state = ["standing_whole", "origin", "next_whole", "total_run_count", "failures_shown", "last_runs_shown"]
            fieldsets.insert(0, (_("How it goes"), {"fields": state}))
        return fieldsets

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: Any, change: bool) -> None:
        obj.save(using=self.database())
        if form.warning:
            self.message_user(request, form.warning, messages.WARNING)

    # Columns

    @admin.display(description=gettext_lazy("name, task"))
    def name_shown(self, row: PeriodicTask) -> str:
        if row.name == row.task:
            return row.name
        return format_html(_QUIET_BELOW, row.name, row.task)

    @admin.display(description=gettext_lazy("standing"))
    def standing_shown(self, row: PeriodicTask) -> str:
        if row.enabled:
            return badge("good", _("enabled"))
        if not row.error:
            return badge("quiet", _("done") if row.one_off and row.total_run_count else _("disabled"))
        return format_html(
            '{}<br><span class="task-quiet">{}</span>', badge("bad", _("stopped")), timetable.reason(row)
        )

    @admin.display(description=gettext_lazy("schedule"))
    def schedule_shown(self, row: PeriodicTask) -> str:
        found = timetable.outlook_of(row, number=0)
        if found.error:
            # What disabled it stands beside it already.
            return format_html(_QUIET_BELOW, row.schedule, "" if row.error else Truncator(found.error).chars(100))
        return found.words

    @admin.display(description=gettext_lazy("next run"))
    def next_shown(self, row: PeriodicTask) -> str:
        if not row.enabled:
            return self.get_empty_value_display()
        if not row.planned:
            return _("planned at the next tick")
        if row.next_run_at is None:
            return _("never: its schedule has come to its end")
        if row.next_run_at <= timezone.now():
            return format_html("{}<br>{}", _("now"), moment(row.next_run_at))
        return format_html("{}<br>{}", from_now(row.next_run_at), moment(row.next_run_at))

    @admin.display(description=gettext_lazy("last run"))
    def last_shown(self, row: PeriodicTask) -> str:
        last: ScheduledRun | None = getattr(row, _LAST_RUN, None)
        if last is None:
            return moment(row.last_run_at) if row.last_run_at else self.get_empty_value_display()
        return format_html("{}<br>{}", outcome_badge(last), moment(last.published_at or last.slot_at))

    @admin.display(description=gettext_lazy("runs"))
    def runs(self, row: PeriodicTask) -> int:
        return row.total_run_count

    @admin.display(description=gettext_lazy("origin"))
    def origin(self, row: PeriodicTask) -> str:
        return _("code") if row.from_code else _("here")

    # Of one

    @admin.display(description=gettext_lazy("standing"))
    def standing_whole(self, row: PeriodicTask) -> str:
        return self.standing_shown(row)

    @admin.display(description=gettext_lazy("next run"))
    def next_whole(self, row: PeriodicTask) -> str:
        if not (row.enabled and row.planned and row.next_run_at):
            return self.next_shown(row)
        return format_html(
            '{} <span class="task-quiet">{}</span>', moment_text(row.next_run_at), from_now(row.next_run_at)
        )

    @admin.display(description=gettext_lazy("failures in a row"))
    def failures_shown(self, row: PeriodicTask) -> str:
        return str(row.failures) if row.pause_after else _("They are counted where it is paused after some.")

    @admin.display(description=gettext_lazy("last runs"))
    def last_runs_shown(self, row: PeriodicTask) -> str:
        runs = [
            {
                "outcome": outcome_badge(run),
                "slot": moment_text(run.slot_at),
                "sent": moment(run.published_at),
                "late": span(run.lateness),
                "ended": moment(run.ended_at),
                "task": self.search_link("taskresult", run.task_id) if run.task_id else "",
                "note": free_text(run.note),
            }
            for run in row.runs.using(self.database()).order_by("-slot_at")[:_RUNS]
        ]
        url = reverse(f"admin:{LABEL}_scheduledrun_changelist", current_app=self.admin_site.name)
        context = {"runs": runs, "all_url": f"{url}?{urlencode({'periodic': row.name})}"}
        return render_to_string("admin/django_tasks/last_runs.html", context)

    @admin.display(description=gettext_lazy("schedule"))
    def schedule_text(self, row: PeriodicTask) -> str:
        return row.schedule

    @admin.display(description=gettext_lazy("in words"))
    def look_shown(self, row: PeriodicTask) -> str:
        context = {"look": Look.of(timetable.outlook_of(row))}
        return format_html('<div class="task-preview">{}</div>', render_to_string(_PREVIEW, context))

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, row: PeriodicTask) -> str:
        return _shown(row.args)

    @admin.display(description=gettext_lazy("keyword arguments"))
    def keyword_arguments(self, row: PeriodicTask) -> str:
        return _shown(row.kwargs)

    @admin.display(description=gettext_lazy("headers"))
    def headers_shown(self, row: PeriodicTask) -> str:
        return _shown(row.headers)

    @admin.display(description=gettext_lazy("arguments"))
    def hidden(self, row: PeriodicTask) -> str:
        return _("You do not have the permission to see them.")

    # The list as a whole, and the preview

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.preview_view)
        return [path("preview/", view, name=f"{LABEL}_periodictask_preview"), *super().get_urls()]

    def _preview_url(self) -> str:
        return reverse(f"admin:{LABEL}_periodictask_preview", current_app=self.admin_site.name)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        unattended = request.method == "GET" and timetable.is_unattended()
        return super().changelist_view(request, (extra_context or {}) | {"unattended": unattended})

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Say what the schedule of a form means that is being filled in; in JSON to who asks for that."""
        writes = self.has_add_permission(request) or self.has_change_permission(request)
        if not (writes or self.has_view_permission(request)):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        text, task = request.POST.get("schedule", ""), request.POST.get("task", "")
        if names_a_class(text) and not writes:
            # Reading it imports a module.
            raise PermissionDenied
        look = look_at(request.POST) if text.strip() else Look()
        warning = unknown_task(task) if task else ""
        if request.accepts("text/html"):
            context = {
                **self.admin_site.each_context(request),
                "title": _("Preview"),
                "opts": self.opts,
                "media": self.media,
                "list_url": self.list_url(),
                "schedule": text,
                "look": look,
                "warning": warning,
            }
            request.current_app = self.admin_site.name
            return TemplateResponse(request, "admin/django_tasks/preview_page.html", context)
        told = {"words": look.words, "title": look.title, "runs": look.runs, "error": look.error}
        return JsonResponse({**told, "warning": warning})


_PREVIEW = "admin/django_tasks/preview.html"
_SHOWN = (
    "standing_whole",
    "origin",
    "next_whole",
    "total_run_count",
    "failures_shown",
    "last_runs_shown",
    "schedule_text",
    "look_shown",
    "arguments",
    "keyword_arguments",
    "headers_shown",
    "hidden",
)


def _shown(text: str) -> str:
    try:
        return preformatted(pretty(redacted(json.loads(text))))
    except (ValueError, RecursionError):
        return preformatted(free_text(text))
