"""What waits, and what is being run?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_tasks import actions
from django_tasks.admin.acting import Act, ActingPage
from django_tasks.admin.filters import QueueFilter, StandingFilter, TaskFilter
from django_tasks.admin.page import LABEL, badge, is_of_one, moment, named_task, preformatted
from django_tasks.backends.base import QueueStats
from django_tasks.connections import brokers, home
from django_tasks.display import call_text, clock_text, moment_text, pretty, redacted
from django_tasks.exceptions import PublishError
from django_tasks.listing import (
    CEILING,
    DELAYED,
    HEAVY_MESSAGE,
    LEASED,
    READY,
    Listing,
    MessageCriteria,
    find_messages,
    message_databases,
    standing,
)
from django_tasks.models import QueuedMessage
from django_tasks.routing import queues_of

_PURGE = "purge_queuedmessage"


@admin.register(QueuedMessage)
class QueuedMessagePage(ActingPage):
    list_display = ("standing_shown", "task_shown", "queue", "priority", "visible", "until_shown", "deliveries")
    list_display_links = ("task_shown",)
    list_filter = (StandingFilter, QueueFilter, TaskFilter)
    search_fields = ("task_id",)
    search_help_text = gettext_lazy("An id or its beginning, else a task's name or its beginning.")
    acts: ClassVar[tuple[Act, ...]] = (
        Act(
            "run_now",
            gettext_lazy("Run now"),
            "run_now_queuedmessage",
            actions.run_now,
            fits=lambda row: standing(row) == DELAYED,
        ),
        Act(
            "revoke",
            gettext_lazy("Revoke"),
            "revoke_taskresult",
            actions.revoke,
            gettext_lazy("Those that wait end as revoked. Those that run go on to their end, and are not run again."),
        ),
        Act(
            "terminate",
            gettext_lazy("Revoke and end"),
            "revoke_taskresult",
            partial(actions.revoke, terminate=True),
            gettext_lazy("Those that run are ended where they are: what they have half done stays half done."),
            dangerous=True,
        ),
        Act(
            "delete",
            gettext_lazy("Delete"),
            "delete_queuedmessage",
            actions.discard,
            gettext_lazy(
                "The tasks will not run, and nothing will tell of it: whoever waits for one of them waits in vain. "
                "Revoke them instead if anybody may."
            ),
            dangerous=True,
            fits=lambda row: standing(row) != LEASED,
        ),
    )

    def database(self) -> str:
        return next(iter(message_databases()), home())

    def find(self, rows: QuerySet[QueuedMessage], chosen: Mapping[str, Any], beginning: str) -> Listing[QueuedMessage]:
        return find_messages(rows, MessageCriteria(**chosen, beginning=beginning), window=self.window)

    def get_queryset(self, request: HttpRequest) -> QuerySet[QueuedMessage]:
        rows = super().get_queryset(request)
        return rows.defer("body") if is_of_one(request) else rows.defer(*HEAVY_MESSAGE)

    def get_fieldsets(self, request: HttpRequest, obj: QueuedMessage | None = None) -> Any:
        payload = request.user.has_perm(f"{LABEL}.view_payload")
        return [
            (None, {"fields": ["standing_shown", "task", "task_id", "queue", "broker", "priority"]}),
            (_("Standing"), {"fields": ["until_shown", "until", "leased_by", "deliveries", "created"]}),
            (_("Call"), {"fields": ["arguments", "keyword_arguments", "other_headers"] if payload else ["hidden"]}),
        ]

    # Columns

    @admin.display(description=gettext_lazy("standing"))
    def standing_shown(self, row: QueuedMessage) -> str:
        match standing(row):
            case "ready":
                return badge("good", _("ready"))
            case "delayed":
                return badge("quiet", _("delayed"))
            case _:
                return badge("busy", _("leased"))

    @admin.display(description=gettext_lazy("task"))
    def task_shown(self, row: QueuedMessage) -> str:
        return named_task(row.task, row.task_id)

    @admin.display(description=gettext_lazy("priority"))
    def priority(self, row: QueuedMessage) -> int:
        return -row.rank

    @admin.display(description=gettext_lazy("visible"))
    def visible(self, row: QueuedMessage) -> str:
        return moment(row.visible_at)

    @admin.display(description=gettext_lazy("waits for"))
    def until_shown(self, row: QueuedMessage) -> str:
        now, how = timezone.now(), standing(row)
        when = clock_text(row.visible_at)
        if how == READY:
            return _("a free worker")
        if row.visible_at <= now:
            return _("its next look: due since %(when)s") % {"when": when}
        if how == DELAYED:
            return _("its time, %(when)s") % {"when": when}
        return _("%(worker)s, which holds it until %(when)s") % {"worker": row.leased_by, "when": when}

    # One message

    @admin.display(description=gettext_lazy("visible at"))
    def until(self, row: QueuedMessage) -> str:
        return moment_text(row.visible_at)

    @admin.display(description=gettext_lazy("queued"))
    def created(self, row: QueuedMessage) -> str:
        return moment_text(row.created_at)

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, row: QueuedMessage) -> str:
        return preformatted(call_text(str(_headers(row).get("argsrepr", ""))))

    @admin.display(description=gettext_lazy("keyword arguments"))
    def keyword_arguments(self, row: QueuedMessage) -> str:
        return preformatted(call_text(str(_headers(row).get("kwargsrepr", ""))))

    @admin.display(description=gettext_lazy("headers"))
    def other_headers(self, row: QueuedMessage) -> str:
        rest = {name: value for name, value in _headers(row).items() if name not in {"argsrepr", "kwargsrepr"}}
        return preformatted(pretty(redacted(rest)))

    @admin.display(description=gettext_lazy("arguments"))
    def hidden(self, row: QueuedMessage) -> str:
        return _("You do not have the permission to see them.")

    # Queues

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.queues_view)
        return [path("queues/", view, name=f"{LABEL}_queuedmessage_queues"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        url = reverse(f"admin:{LABEL}_queuedmessage_queues", current_app=self.admin_site.name)
        return super().changelist_view(request, (extra_context or {}) | {"queues_url": url})

    def queues_view(self, request: HttpRequest) -> HttpResponse:
        """Show how queues stand; with `?queue=` and `?broker=` ask whether one is to be purged; purge it by POST."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        may_purge = request.user.has_perm(f"{LABEL}.{_PURGE}")
        told = request.POST if request.method == "POST" else request.GET
        queue, broker = told.get("queue", ""), told.get("broker", "")
        if queue or request.method == "POST":
            if not may_purge:
                raise PermissionDenied
            if broker not in brokers or not queue:
                raise Http404(_("There is no such queue."))
            if request.method == "POST":
                return self._purge(request, queue, broker)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Purge the queue %(queue)s") % {"queue": queue} if queue else _("Queues"),
            "opts": self.opts,
            "media": self.media,
            "may_purge": may_purge,
            "queue": queue,
            "broker": broker,
            "standings": _standings(broker, [queue]) if queue else [s for alias in brokers for s in _standings(alias)],
            "list_url": self.list_url(),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_tasks/queues.html", context)

    def _purge(self, request: HttpRequest, queue: str, broker: str) -> HttpResponse:
        try:
            removed = actions.purge(queue, broker)
        except PublishError as error:
            self.message_user(request, _("Nothing was done: %(reason)s") % {"reason": error}, messages.ERROR)
        else:
            text = ngettext(
                "%(number)d message was removed from the queue %(queue)s.",
                "%(number)d messages were removed from the queue %(queue)s.",
                removed,
            ) % {"number": removed, "queue": queue}
            self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(reverse(f"admin:{LABEL}_queuedmessage_queues", current_app=self.admin_site.name))


def _standings(alias: str, queues: list[str] | None = None) -> list[dict[str, Any]]:
    """Return how the queues of a broker stand; those of the settings, and others that have messages."""
    broker = brokers[alias]
    known = {stats.queue: stats for stats in broker.stats(queues or (), ceiling=CEILING + 1)}
    for queue in queues or queues_of(alias):
        known.setdefault(queue, QueueStats(queue, 0, 0, 0, 0.0))
    return [
        {
            "broker": alias,
            "queue": stats.queue,
            "ready": _capped(stats.ready),
            "delayed": _capped(stats.delayed),
            "leased": _capped(stats.leased),
            "removable": _capped(stats.ready + stats.delayed),
            "oldest": stats.oldest,
        }
        for _queue, stats in sorted(known.items())
    ]


def _capped(number: int) -> str:
    shown = formats.number_format(min(number, CEILING), use_l10n=True, force_grouping=True)
    return _("%(number)s+") % {"number": shown} if number > CEILING else shown


def _headers(row: QueuedMessage) -> dict[str, Any]:
    try:
        found = json.loads(row.headers)
    except (ValueError, RecursionError):
        return {"headers": row.headers}
    return found if isinstance(found, dict) else {"headers": found}
