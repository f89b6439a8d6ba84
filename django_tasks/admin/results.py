"""What is known of tasks that ran or run?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks import actions, states
from django_tasks.admin.acting import Act, ActingPage
from django_tasks.admin.filters import EndedFilter, QueueFilter, StateFilter, TaskFilter, WorkerFilter
from django_tasks.admin.page import LABEL, badge, is_of_one, moment, named_task, preformatted
from django_tasks.connections import home
from django_tasks.display import call_text, free_text, moment_text, past_attempts, pretty, redacted, span, value_tree
from django_tasks.listing import HEAVY_RESULT, Listing, ResultCriteria, find_results, result_database
from django_tasks.models import TaskResult
from django_tasks.protocol import RESERVED
from django_tasks.workflows import begun_by, find_group

_MOST_BEGUN = 20

_KINDS = {
    states.SUCCESS: "good",
    states.FAILURE: "bad",
    states.REJECTED: "bad",
    states.REVOKED: "quiet",
    states.IGNORED: "quiet",
    states.PENDING: "quiet",
    states.RETRY: "warn",
}


def state_badge(state: str) -> SafeString:
    """Return a state with its colour; states that are not known here are custom ones, of tasks that run."""
    return badge(_KINDS.get(state, "busy"), state)


def _goes_on(row: TaskResult) -> bool:
    return row.state not in states.FINAL


@admin.register(TaskResult)
class TaskResultPage(ActingPage):
    list_display = ("state_shown", "task_shown", "place_shown", "deliveries", "queued", "started", "ended")
    list_display_links = ("task_shown",)
    list_filter = (StateFilter, EndedFilter, QueueFilter, WorkerFilter, TaskFilter)
    search_fields = ("task_id",)
    search_help_text = gettext_lazy("An id or its beginning, else a task's name or its beginning.")
    acts: ClassVar[tuple[Act, ...]] = (
        Act(
            "retry",
            gettext_lazy("Retry"),
            "retry_taskresult",
            actions.retry,
            fits=lambda row: row.state in states.FAILED and row.message is not None,
        ),
        Act(
            "revoke",
            gettext_lazy("Revoke"),
            "revoke_taskresult",
            actions.revoke,
            gettext_lazy("Those that wait end as revoked. Those that run go on to their end, and are not run again."),
            fits=_goes_on,
        ),
        Act(
            "terminate",
            gettext_lazy("Revoke and end"),
            "revoke_taskresult",
            partial(actions.revoke, terminate=True),
            gettext_lazy("Those that run are ended where they are: what they have half done stays half done."),
            dangerous=True,
            fits=_goes_on,
        ),
        Act(
            "delete",
            gettext_lazy("Delete"),
            "delete_taskresult",
            actions.delete,
            gettext_lazy("Nobody will be able to ask for these results any more."),
            dangerous=True,
        ),
    )

    def database(self) -> str:
        return result_database() or home()

    def find(self, rows: QuerySet[TaskResult], chosen: Mapping[str, Any], beginning: str) -> Listing[TaskResult]:
        return find_results(rows, ResultCriteria(**chosen, beginning=beginning), window=self.window)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskResult]:
        rows = super().get_queryset(request)
        # The page of one task shows them; whatever goes over many must not load them.
        return rows if is_of_one(request) else rows.defer(*HEAVY_RESULT)

    def get_fieldsets(self, request: HttpRequest, obj: TaskResult | None = None) -> Any:
        payload = request.user.has_perm(f"{LABEL}.view_payload")
        fields: list[tuple[Any, list[Any]]] = [
            (None, ["state_shown", "task", "task_id", "queue", "worker"]),
            (_("Times"), ["created", "begun", "finished", "took"]),
            (_("Call"), ["arguments", "keyword_arguments"] if payload else ["hidden"]),
        ]
        if obj is not None and obj.error_type:
            fields.append((_("Error"), ["error", "notes", "trace"] if obj.error_notes else ["error", "trace"]))
        if obj is not None and obj.value is not None and payload:
            fields.append((_("Result"), ["value_shown"]))
        fields.append((_("Deliveries"), ["deliveries", "retries", "earlier"]))
        if obj is not None and obj.message is not None:
            fields.append((_("Kept message"), ["kept_headers" if payload else "kept"]))
        related = {"parent": "parent_id", "root": "root_id", "group": "group_id"}
        shown = [name for name, field in related.items() if getattr(obj, field, None)]
        fields.append((_("Relations"), [*shown, "led_to"]))
        return [(title, {"fields": names}) for title, names in fields]

    # Columns

    @admin.display(description=gettext_lazy("state"))
    def state_shown(self, row: TaskResult) -> str:
        return state_badge(row.state)

    @admin.display(description=gettext_lazy("task"))
    def task_shown(self, row: TaskResult) -> str:
        return named_task(row.task, row.task_id)

    @admin.display(description=gettext_lazy("queue, worker"))
    def place_shown(self, row: TaskResult) -> str:
        return format_html('{}<br><span class="task-quiet">{}</span>', row.queue, row.worker)

    @admin.display(description=gettext_lazy("queued"))
    def queued(self, row: TaskResult) -> str:
        return moment(row.created_at)

    @admin.display(description=gettext_lazy("started"))
    def started(self, row: TaskResult) -> str:
        return moment(row.started_at)

    @admin.display(description=gettext_lazy("ended, run time"))
    def ended(self, row: TaskResult) -> str:
        return format_html('{}<br><span class="task-quiet">{}</span>', moment(row.ended_at), span(row.runtime))

    # One task

    @admin.display(description=gettext_lazy("queued"))
    def created(self, row: TaskResult) -> str:
        return moment_text(row.created_at) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("started"))
    def begun(self, row: TaskResult) -> str:
        return moment_text(row.started_at) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("ended"))
    def finished(self, row: TaskResult) -> str:
        return moment_text(row.ended_at) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("run time"))
    def took(self, row: TaskResult) -> str:
        return span(row.runtime) or self.get_empty_value_display()

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, row: TaskResult) -> str:
        return preformatted(call_text(row.args_repr))

    @admin.display(description=gettext_lazy("keyword arguments"))
    def keyword_arguments(self, row: TaskResult) -> str:
        return preformatted(call_text(row.kwargs_repr))

    @admin.display(description=gettext_lazy("arguments and result"))
    def hidden(self, row: TaskResult) -> str:
        return _("You do not have the permission to see them.")

    @admin.display(description=gettext_lazy("result"))
    def value_shown(self, row: TaskResult) -> str:
        return preformatted(pretty(value_tree(row.value)))

    @admin.display(description=gettext_lazy("error"))
    def error(self, row: TaskResult) -> str:
        name = row.error_type if row.error_module in ("", "builtins") else f"{row.error_module}.{row.error_type}"
        return format_html("<strong>{}</strong> {}", name, free_text(row.error_message))

    @admin.display(description=gettext_lazy("notes"))
    def notes(self, row: TaskResult) -> str:
        return preformatted(free_text(row.error_notes))

    @admin.display(description=gettext_lazy("traceback"))
    def trace(self, row: TaskResult) -> str:
        return preformatted(free_text(row.traceback))

    @admin.display(description=gettext_lazy("deliveries"))
    def deliveries(self, row: TaskResult) -> int:
        """How often a worker was given it: also one that died before it began it."""
        return row.attempts

    @admin.display(description=gettext_lazy("earlier attempts"))
    def earlier(self, row: TaskResult) -> str:
        attempts = [
            attempt
            | {name: moment_text(attempt[name]) for name in ("started", "ended")}
            | {"state": state_badge(attempt["state"])}
            for attempt in past_attempts(row.history)
        ]
        return render_to_string("admin/django_tasks/attempts.html", {"attempts": attempts})

    @admin.display(description=gettext_lazy("message"))
    def kept(self, row: TaskResult) -> str:
        return _("It is kept, so that the task can be sent again.")

    @admin.display(description=gettext_lazy("headers"))
    def kept_headers(self, row: TaskResult) -> str:
        return preformatted(pretty(kept_headers(row.message or "")))

    @admin.display(description=gettext_lazy("called by"))
    def parent(self, row: TaskResult) -> str:
        return self.task_or_group_link(row.parent_id or "")

    @admin.display(description=gettext_lazy("first of its tree"))
    def root(self, row: TaskResult) -> str:
        return self.task_or_group_link(row.root_id or "")

    @admin.display(description=gettext_lazy("member of"))
    def group(self, row: TaskResult) -> str:
        group_id = row.group_id or ""
        return group_id if find_group(group_id) is None else self.group_link(group_id)

    @admin.display(description=gettext_lazy("began"))
    def led_to(self, row: TaskResult) -> str:
        tasks, groups = begun_by(row, _MOST_BEGUN)
        context = {
            "tasks": [
                {"state": state_badge(each.state), "task": each.task, "link": self.search_link("taskresult", each.pk)}
                for each in tasks.rows
            ],
            "groups": [{"size": each.size, "link": self.group_link(each.pk)} for each in groups.rows],
            "whole": tasks.whole and groups.whole,
        }
        return render_to_string("admin/django_tasks/begun.html", context)


def kept_headers(text: str) -> Any:
    """Return the headers of a kept message that say more than the result itself does."""
    try:
        headers = json.loads(text)["headers"]
        return redacted({name: value for name, value in headers.items() if name not in _TOLD})
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return _("They cannot be read.")


_TOLD = RESERVED & {"id", "task", "queue", "argsrepr", "kwargsrepr", "root_id", "parent_id", "group"}
