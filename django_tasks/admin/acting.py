"""How does an operator act on tasks? By choosing, confirming where it matters, and reading what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_tasks.actions import Report, Verdict
from django_tasks.admin.page import LABEL, TaskPage
from django_tasks.display import short_id
from django_tasks.exceptions import PublishError, StoreUnavailable

MOST = 500
"""Tasks in one action: fewer than Django takes fields in a form."""
_SHOWN, _NAMED = 20, 3


@dataclass(frozen=True, slots=True)
class Act:
    """Something that can be done to the tasks of a page."""

    name: str
    label: Any
    permission: str
    """A codename of this app."""
    run: Callable[[Sequence[Any]], Report]
    """Given what `carry_out` gives it, by default the ids of tasks."""
    question: Any = None
    """What has to be confirmed; None when nothing has."""
    dangerous: bool = False
    fits: Callable[[Any], bool] = lambda _row: True
    """Whether the page of one task offers it."""


class ChosenForm(ActionForm):
    """Acts on what is ticked, never on all that a filter finds."""

    def clean_select_across(self) -> bool:
        return False


class ActingPage(TaskPage):
    """A page whose tasks can be acted on, each action with a permission of its own."""

    acts: ClassVar[tuple[Act, ...]] = ()
    action_form = ChosenForm

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.actions = [_action(act) for act in cls.acts]
        for act in cls.acts:
            setattr(cls, f"has_{act.permission}_permission", _permission(act))

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context |= {
            "task_acts": [act for act in self.acts if obj is not None and _may(request, act) and act.fits(obj)],
            "task_acts_url": self.list_url(),
            "checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return super().render_change_form(request, context, add, change, form_url, obj)

    def list_url(self) -> str:
        return reverse(f"admin:{LABEL}_{self.opts.model_name}_changelist", current_app=self.admin_site.name)

    def carry_out(self, request: HttpRequest, act: Act, rows: Sequence[Any]) -> Report:
        """Do something to rows, and answer for each by its name; may raise PublishError or StoreUnavailable."""
        return act.run([self.name_of(row) for row in rows])

    def name_of(self, row: Any) -> str:
        """Return what an action knows a row by."""
        return str(row.task_id)

    def short_name(self, name: str) -> str:
        """Return what messages call a row."""
        return short_id(name)

    def counted(self, number: int) -> str:
        """Return so many of what the rows stand for, in words."""
        return ngettext("%(number)d task", "%(number)d tasks", number) % {"number": number}

    def act(self, request: HttpRequest, chosen: QuerySet[Any], act: Act) -> HttpResponse | None:
        """Do something to the chosen tasks, or ask first whether it is meant."""
        if not _may(request, act):
            raise PermissionDenied
        rows: list[Any] = list(chosen[: MOST + 1])
        if not rows:
            self.message_user(request, _("None of what was chosen is there any more."), messages.WARNING)
        elif len(rows) > MOST:
            text = _("Choose at most %(number)d at once.") % {"number": MOST}
            self.message_user(request, text, messages.ERROR)
        elif act.question is not None and "confirmed" not in request.POST:
            return self._ask(request, rows, act)
        else:
            self._do(request, rows, act)
            if "_detail" in request.POST and len(rows) == 1:
                return self._back_to(request, rows[0].pk)
        return None

    def _back_to(self, request: HttpRequest, pk: Any) -> HttpResponse | None:
        """Return to the page of one task, where there is still one."""
        if not self.get_queryset(request).filter(pk=pk).exists():
            return None
        name = f"admin:{LABEL}_{self.opts.model_name}_change"
        return HttpResponseRedirect(reverse(name, args=[quote(pk)], current_app=self.admin_site.name))

    def _ask(self, request: HttpRequest, rows: Sequence[Any], act: Act) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": act.label,
            "opts": self.opts,
            "act": act,
            "rows": rows,
            "counted": self.counted(len(rows)),
            "shown": rows[:_SHOWN],
            "more": max(0, len(rows) - _SHOWN),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "detail": "_detail" in request.POST,
            "list_url": self.list_url(),
            "media": self.media,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_tasks/confirm.html", context)

    def _do(self, request: HttpRequest, rows: Sequence[Any], act: Act) -> None:
        try:
            report = self.carry_out(request, act, rows)
        except (PublishError, StoreUnavailable) as error:
            self.message_user(request, _("Nothing was done: %(reason)s") % {"reason": error}, messages.ERROR)
            return
        done = set(report.done)
        if touched := [row for row in rows if self.name_of(row) in done]:
            LogEntry.objects.log_actions(cast(int, request.user.pk), touched, CHANGE, str(act.label))
        self._tell(request, report, act)

    def _tell(self, request: HttpRequest, report: Report, act: Act) -> None:
        said: dict[tuple[bool, str], list[str]] = defaultdict(list)
        for answer in report.answers:
            said[answer.verdict is Verdict.DONE, answer.text].append(self.short_name(answer.id))
        for (fine, text), ids in said.items():
            told = f"{act.label if fine else _('Not done')}: {self.counted(len(ids))}"
            named = ", ".join(ids[:_NAMED] + ["…"] * (len(ids) > _NAMED))
            self.message_user(request, f"{told} ({named}). {text}", messages.SUCCESS if fine else messages.WARNING)


def _action(act: Act) -> Any:
    """Return what Django's admin calls when an action is chosen from its menu."""

    @admin.action(description=act.label, permissions=[act.permission])
    def action(page: ActingPage, request: HttpRequest, chosen: QuerySet[Any]) -> HttpResponse | None:
        return page.act(request, chosen, act)

    action.__name__ = act.name
    return action


def _permission(act: Act) -> Callable[[ActingPage, HttpRequest], bool]:
    return lambda _page, request: _may(request, act)


def _may(request: HttpRequest, act: Act) -> bool:
    return request.user.has_perm(f"{LABEL}.{act.permission}")
