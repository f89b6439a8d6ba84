"""How far are groups of tasks, what do their members do, and what waits for them?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import InvalidPage, Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_tasks import group_actions
from django_tasks.admin.acting import Act, ActingPage
from django_tasks.admin.filters import EndedFilter, StageFilter
from django_tasks.admin.page import LABEL, PageList, badge, dotted, is_of_one, moment
from django_tasks.admin.results import state_badge
from django_tasks.connections import home
from django_tasks.display import free_text, moment_text, short_id, span
from django_tasks.failure import Failure
from django_tasks.followers import BODY, CALLBACK, ERRBACK, NEXT, Follower, first_names, followers
from django_tasks.listing import (
    CEILING,
    DELAYED,
    DONE,
    FAILED,
    HEAVY_GROUP,
    LEASED,
    READY,
    RUNNING,
    WINDOW,
    GroupCriteria,
    Listing,
    find_groups,
)
from django_tasks.models import TaskGroup
from django_tasks.workflows import (
    EMPTY,
    Failures,
    Member,
    failed_indexes,
    failures,
    first_failure,
    first_tasks,
    group_database,
    groups_beside,
    members,
    stage,
)

_KINDS = {RUNNING: "busy", DONE: "good", FAILED: "bad", EMPTY: "quiet"}
_NAMES = {
    RUNNING: gettext_lazy("running"),
    DONE: gettext_lazy("done"),
    FAILED: gettext_lazy("failed"),
    EMPTY: gettext_lazy("empty"),
}
_HOW = {
    BODY: gettext_lazy("When all have ended well"),
    NEXT: gettext_lazy("Then"),
    CALLBACK: gettext_lazy("With what that returned"),
    ERRBACK: gettext_lazy("If that fails"),
}
_STANDING = {
    READY: gettext_lazy("waits for a free worker"),
    DELAYED: gettext_lazy("waits for its time"),
    LEASED: gettext_lazy("is with a worker"),
}
_MOST_BESIDE = 20


class GroupList(PageList):
    """The list of groups, which knows of those on its page what takes a look at other rows."""

    result_list: list[TaskGroup]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = self.result_list
        tasks, followed, failed = first_tasks(rows), first_names(rows), failures(rows)
        for row in rows:
            _tell(row, tasks.get(row.group_id, ""), followed.get(row.group_id, ""), failed[row.group_id])


def _tell(row: Any, task: str, follower: str, failed: Failures) -> None:
    row.first_task, row.follower, row.failures = task, follower, failed


@admin.register(TaskGroup)
class TaskGroupPage(ActingPage):
    list_display = (
        "stage_shown",
        "group_shown",
        "size_shown",
        "done_shown",
        "failed_shown",
        "created",
        "follower_shown",
    )
    list_display_links = ("group_shown",)
    list_filter = (StageFilter, EndedFilter)
    search_fields = ("group_id",)
    search_help_text = gettext_lazy("An id or its beginning, or the id of a member.")
    members_per_page: ClassVar[int] = 100
    acts: ClassVar[tuple[Act, ...]] = (
        Act(
            "revoke_members",
            gettext_lazy("Revoke what has not begun"),
            "revoke_taskresult",
            group_actions.revoke_members,
            gettext_lazy(
                "Members that wait end as revoked, and with them the group has failed: what waits for it will not run. "
                "Members that run go on to their end, and are not run again."
            ),
            dangerous=True,
            fits=lambda row: row.done < row.size,
        ),
    )

    def database(self) -> str:
        return group_database() or home()

    def find(self, rows: QuerySet[TaskGroup], chosen: Mapping[str, Any], beginning: str) -> Listing[TaskGroup]:
        return find_groups(rows, GroupCriteria(**chosen, beginning=beginning), window=self.window)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskGroup]:
        rows = super().get_queryset(request)
        return rows.defer("then", "saved") if is_of_one(request) else rows.defer(*HEAVY_GROUP)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return GroupList

    def name_of(self, row: TaskGroup) -> str:
        return row.group_id

    def counted(self, number: int) -> str:
        return ngettext("%(number)d group of tasks", "%(number)d groups of tasks", number) % {"number": number}

    def get_fieldsets(self, request: HttpRequest, obj: TaskGroup | None = None) -> Any:
        fields = ["stage_shown", "progress", "group_id"]
        if obj is not None and obj.failed_id is not None:
            fields.insert(2, "why")
        related = {"outer": "outer_id", "parent": "parent_id", "root": "root_id"}
        shown = [name for name, field in related.items() if getattr(obj, field, None) not in (None, obj and obj.pk)]
        if obj is not None and _beside(obj):
            shown.append("beside")
        found: list[tuple[Any, dict[str, Any]]] = [
            (None, {"fields": fields}),
            (_("Times"), {"fields": ["sent", "finished", "took"]}),
        ]
        if shown:
            found.append((_("Relations"), {"fields": shown}))
        return found

    # Columns

    @admin.display(description=gettext_lazy("state"))
    def stage_shown(self, row: TaskGroup) -> str:
        return stage_badge(row)

    @admin.display(description=gettext_lazy("first task"))
    def group_shown(self, row: Any) -> str:
        name = dotted(row.first_task) if row.first_task else _("not known") if row.size else _("none")
        shown = '{}<br><span class="task-quiet task-id" title="{}">{}</span>'
        return format_html(shown, name, row.group_id, short_id(row.group_id))

    @admin.display(description=gettext_lazy("followed by"))
    def follower_shown(self, row: Any) -> str:
        return dotted(row.follower)

    @admin.display(description=gettext_lazy("members"))
    def size_shown(self, row: TaskGroup) -> str:
        return _number(row.size)

    @admin.display(description=gettext_lazy("ended"))
    def done_shown(self, row: TaskGroup) -> str:
        return _number(row.done)

    @admin.display(description=gettext_lazy("failed"))
    def failed_shown(self, row: Any) -> str:
        return failures_text(row, row.failures)

    @admin.display(description=gettext_lazy("sent, took"))
    def created(self, row: TaskGroup) -> str:
        return format_html('{}<br><span class="task-quiet task-id">{}</span>', moment(row.created_at), self.took(row))

    @admin.display(description=gettext_lazy("took"))
    def took(self, row: TaskGroup) -> str:
        if stage(row) == EMPTY:
            return self.get_empty_value_display()
        shown = span(_seconds(row.created_at, row.ended_at))
        return shown if row.ended_at is not None else _("%(span)s so far") % {"span": shown}

    # One group

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, row: TaskGroup) -> str:
        failed = failures([row], WINDOW)[row.group_id]
        bad = min(failed.number, row.done)
        share = 100 / row.size if row.size else 0.0
        context = {
            "bad": f"{bad * share:.2f}",
            "good": f"{(row.done - bad) * share:.2f}",
            "begin": f"{bad * share:.2f}",
            "text": progress_text(row, failed),
        }
        return render_to_string("admin/django_tasks/progress.html", context)

    @admin.display(description=gettext_lazy("why"))
    def why(self, row: TaskGroup) -> str:
        told = error_text(first_failure(row))
        if row.failed_id == row.group_id:
            return told
        link = self.search_link("taskresult", row.failed_id or "")
        number = _("member %(number)s") % {"number": _number((row.failed_index or 0) + 1)}
        return format_html("{} ({}): {}", number, link, told)

    @admin.display(description=gettext_lazy("sent"))
    def sent(self, row: TaskGroup) -> str:
        return moment_text(row.created_at)

    @admin.display(description=gettext_lazy("ended"))
    def finished(self, row: TaskGroup) -> str:
        if row.ended_at is None:
            return self.get_empty_value_display()
        if row.failed_id is not None and row.done < row.size:
            return _("%(when)s, when the first member failed") % {"when": moment_text(row.ended_at)}
        return moment_text(row.ended_at)

    @admin.display(description=gettext_lazy("member of"))
    def outer(self, row: TaskGroup) -> str:
        number = _("as its member %(number)s") % {"number": _number((row.outer_index or 0) + 1)}
        return format_html("{} {}", self.group_link(row.outer_id or ""), number)

    @admin.display(description=gettext_lazy("sent by"))
    def parent(self, row: TaskGroup) -> str:
        return self.task_or_group_link(row.parent_id or "")

    @admin.display(description=gettext_lazy("first of its tree"))
    def root(self, row: TaskGroup) -> str:
        return self.task_or_group_link(row.root_id or "")

    @admin.display(description=gettext_lazy("groups of the same tree"))
    def beside(self, row: TaskGroup) -> str:
        return format_html_join(" ", "{}", ((self.group_link(each.group_id),) for each in _beside(row)))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= self._following(request, obj) | self._members(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _following(self, request: HttpRequest, row: TaskGroup) -> dict[str, Any]:
        found, whole = followers(row)
        payload = request.user.has_perm(f"{LABEL}.view_payload")
        shown = [self._follower(each, payload=payload) for each in found]
        return {"followers": shown, "followers_whole": whole, "payload": payload}

    def _follower(self, each: Follower, *, payload: bool) -> dict[str, Any]:
        link = self.search_link("taskresult", each.id) if each.id else ""
        task = each.task
        if each.size:
            task = ngettext("%(number)s task: %(name)s", "%(number)s tasks: %(name)s", each.size) % {
                "number": _number(each.size),
                "name": each.task,
            }
            link = self.group_link(each.group_id) if each.group_id else ""
        given = [text for text in (each.args, each.kwargs) if text not in ("", "()", "{}")]
        return {"how": _HOW[each.how], "task": dotted(task), "link": link, "given": "\n".join(given) if payload else ""}

    def _members(self, request: HttpRequest, row: TaskGroup) -> dict[str, Any]:
        only = request.GET.get("only") == FAILED and row.failed_id is not None
        failed = failures([row], WINDOW)[row.group_id]
        number = min(failed.number, CEILING) if only else row.size
        pages = Paginator(range(number), self.members_per_page)
        try:
            page: Page[int] = pages.page(request.GET.get("m", "1"))
        except InvalidPage:
            page = pages.page(1)
        start = (page.number - 1) * self.members_per_page
        stop = start + len(page.object_list)
        indexes = failed_indexes(row, start, stop) if only else range(start, stop)
        return {
            "members": [self._member(each) for each in members(row, indexes)],
            "members_page": page,
            "members_first": _number(min(start + 1, number)),
            "members_last": _number(stop),
            "members_number": _number(number),
            "members_only": FAILED if only else "",
            "members_failed": failures_text(row, failed) if failed.number else "",
            "pages_shown": pages.get_elided_page_range(page.number, on_each_side=1, on_ends=1),
            "elided": Paginator.ELLIPSIS,
        }

    def _member(self, member: Member) -> dict[str, Any]:
        row, note = member.row, _STANDING.get(member.standing, "")
        name: Any = dotted(member.task) if member.task else ""
        if member.inner_id is not None:
            name = self.group_link(member.inner_id, _("a group of tasks"))
        elif member.id:
            page = "queuedmessage" if row is None and member.standing else "taskresult"
            name = self.search_link(page, member.id, name)
        return {
            "number": _number(member.index + 1),
            "state": state_badge(member.state),
            "note": note,
            "task": name,
            "ended": moment(row.ended_at) if row is not None and row.ended_at else "",
            "took": span(row.runtime) if row is not None else "",
        }


def _beside(row: Any) -> list[TaskGroup]:
    """Return other groups of the same tree; asked for once, whoever wants to know."""
    if not hasattr(row, "found_beside"):
        row.found_beside = groups_beside(row, _MOST_BESIDE)
    found: list[TaskGroup] = row.found_beside
    return found


def stage_badge(row: TaskGroup) -> SafeString:
    """Return how a group stands, with its colour."""
    name = stage(row)
    return badge(_KINDS[name], _NAMES[name])


def failures_text(row: TaskGroup, failed: Failures) -> str:
    """Return how many members have failed, as people read it: `3`, or `3+` where not all were searched."""
    number = _number(failed.number)
    return _("%(number)s+") % {"number": number} if failed.searched < min(row.size, row.done) else number


def progress_text(row: TaskGroup, failed: Failures) -> str:
    """Return how far a group is in a sentence."""
    if not row.size:
        return _("It has no members.")
    text = _("%(done)s of %(size)s ended (%(percent)d%%)") % {
        "done": _number(row.done),
        "size": _number(row.size),
        # Not 100 before it is.
        "percent": 100 * row.done // row.size,
    }
    if not failed.number:
        return text
    return _("%(text)s, %(failed)s of them failed") % {"text": text, "failed": failures_text(row, failed)}


def error_text(failure: Failure | None) -> str:
    """Return an error in a line, secrets masked."""
    if failure is None:
        return ""
    return free_text(f"{failure.type}: {failure.message}" if failure.type else failure.message)


def _number(number: int) -> str:
    return formats.number_format(number, use_l10n=True, force_grouping=True)


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    if since is None:
        return None
    now = timezone.now() if timezone.is_aware(since) else datetime.now()  # noqa: DTZ005  # as the row is
    return max(0.0, ((until or now) - since).total_seconds())
