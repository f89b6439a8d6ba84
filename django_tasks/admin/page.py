"""What do all pages have in common? They change nothing by themselves, and read no large table to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.paginator import InvalidPage, Page, Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks.connections import home
from django_tasks.display import clock_text, moment_text, short_id
from django_tasks.listing import CEILING, WINDOW, Listing
from django_tasks.message import ID_LENGTH, is_group_id
from django_tasks.workflows import find_group

# Django's classes are generic for type checkers only.
if TYPE_CHECKING:
    _Paginator = Paginator[Any]
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _Paginator = Paginator
    _ModelAdmin = admin.ModelAdmin

LABEL = "django_tasks"


class CeilingPaginator(_Paginator):
    """Counts up to a ceiling, and has no pages beyond it."""

    ceiling: ClassVar[int] = CEILING

    def __init__(self, listing: Listing[Any], per_page: int) -> None:
        super().__init__([], per_page)
        self.listing = listing

    @cached_property
    def _found(self) -> int:
        return self.listing.count(self.ceiling)

    @cached_property
    def count(self) -> int:
        return min(self._found, self.ceiling)

    @property
    def count_text(self) -> str:
        """The count as people read it: `37`, or `10,000+`."""
        number = formats.number_format(self.count, use_l10n=True, force_grouping=True)
        return _("%(number)s+") % {"number": number} if self._found > self.ceiling else number

    def page(self, number: int | str) -> Page[Any]:
        number = self.validate_number(number)
        start = (number - 1) * self.per_page
        return Page(self.listing.rows(start, min(self.per_page, self.count - start)), number, self)


class PageList(ChangeList):
    """The list of a page: the page says which rows it has, and nobody else in which order."""

    listing: Listing[Any]
    paginator: CeilingPaginator

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return []

    def get_ordering_field_columns(self) -> dict[Any, Any]:
        return {}

    def get_results(self, request: HttpRequest) -> None:
        page = cast(TaskPage, self.model_admin)
        self.listing = page.find(self.queryset, self.chosen(), self.query.strip()[:ID_LENGTH])
        self.paginator = CeilingPaginator(self.listing, self.list_per_page)
        try:
            self.result_list = self.paginator.page(self.page_num).object_list
        except InvalidPage as error:
            raise IncorrectLookupParameters from error
        page.complete(self.result_list)
        self.result_count = self.paginator.count
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all = False
        self.multi_page = self.result_count > self.list_per_page

    def chosen(self) -> dict[str, Any]:
        """Return what is chosen in the filters, by the name of the parameter."""
        values: dict[str, Any] = {}
        for spec in self.filter_specs:
            values |= cast(Any, spec).chosen()
        return values

    @property
    def window_text(self) -> str:
        """How much was searched, where that is not everything."""
        if self.listing.edge is None:
            return ""
        page = cast(TaskPage, self.model_admin)
        number = formats.number_format(page.window, use_l10n=True, force_grouping=True)
        return str(page.window_text) % {"number": number}


class TaskPage(_ModelAdmin):
    """A page over one of our tables, read where the settings say that it is, whatever a router says."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    list_per_page = 100
    list_max_show_all = 0
    list_select_related = ()
    window: ClassVar[int] = WINDOW
    window_text: Any = gettext_lazy(
        "Only the newest %(number)s are searched for this. Choose a task, a state or dates to go further."
    )

    class Media:
        css: ClassVar[Mapping[str, Any]] = {"all": ["django_tasks/admin.css"]}

    def database(self) -> str:
        """Return the alias of the database where the rows are."""
        return home()

    def find(self, rows: QuerySet[Any], chosen: Mapping[str, Any], beginning: str) -> Listing[Any]:
        """Return the rows that were chosen in the filters and whose name begins so."""
        return Listing((rows.order_by("-pk"),))

    def complete(self, rows: Sequence[Any]) -> None:
        """Add to the rows of a list what their own table does not know."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = self.model._default_manager.using(self.database())
        return rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        # `find` gets the term, and looks it up by an index.
        return queryset, False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PageList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        # PostgreSQL refuses the question itself when there is a NUL in it.
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Allow what the filters declare and nothing else: `?traceback__contains=` would scan the table, and tell its
        content to who may not see it."""
        return any(lookup in spec.parameters for spec in self.list_filter)  # type: ignore[union-attr]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Deleting is an action of its own here, which says what came of it.
        return False

    def search_link(self, model_name: str, task_id: str, text: Any = "") -> SafeString:
        """Return a link to a task in another page, under its short id unless there is a better text."""
        url = reverse(f"admin:{LABEL}_{model_name}_changelist", current_app=self.admin_site.name)
        query = urlencode({SEARCH_VAR: task_id})
        shown = text or short_id(task_id)
        return format_html('<a class="{}" href="{}?{}" title="{}">{}</a>', _kind(text), url, query, task_id, shown)

    def group_link(self, group_id: str, text: Any = "") -> SafeString:
        """Return a link to the page of a group."""
        url = reverse(f"admin:{LABEL}_taskgroup_change", args=[quote(group_id)], current_app=self.admin_site.name)
        shown = text or short_id(group_id)
        return format_html('<a class="{}" href="{}" title="{}">{}</a>', _kind(text), url, group_id, shown)

    def task_or_group_link(self, task_id: str) -> SafeString:
        """Return a link to what has this id: what follows a group comes from that group."""
        if is_group_id(task_id) and find_group(task_id) is not None:
            return format_html("{} {}", _("the group"), self.group_link(task_id))
        return self.search_link("taskresult", task_id)


def _kind(text: Any) -> str:
    return "task-link" if text else "task-id"


def preformatted(text: str) -> SafeString:
    """Return text to be shown as it is, line by line."""
    return format_html('<pre class="task-text">{}</pre>', text)


def named_task(name: str, task_id: str) -> SafeString:
    """Return a task's name and its shortened id in one cell."""
    return format_html('{}<br><span class="task-quiet" title="{}">{}</span>', name, task_id, short_id(task_id))


def dotted(name: str) -> SafeString:
    """Return a task's name that may be broken after its dots."""
    *parts, last = name.split(".")
    joined = format_html_join("", "{}.<wbr>", ((part,) for part in parts))
    return format_html('<span class="task-name">{}{}</span>', joined, last)


def moment(when: datetime | None) -> SafeString:
    """Return a time for a table, with the whole of it where the pointer rests."""
    return format_html('<span class="task-time" title="{}">{}</span>', moment_text(when), clock_text(when))


def badge(kind: str, text: Any) -> SafeString:
    """Return a word with a colour; `kind` is one of the classes of the style sheet, never data."""
    return format_html('<span class="task-badge task-badge-{}">{}</span>', kind, text)


def is_of_one(request: HttpRequest) -> bool:
    """Tell whether the page of one row was asked for, which shows the columns that lists leave in the database."""
    return request.resolver_match is not None and "object_id" in request.resolver_match.kwargs
