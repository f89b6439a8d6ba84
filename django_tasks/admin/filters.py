"""What can a list be narrowed by?

Choices come from the settings, the registry and the few workers, never from a scan of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, ClassVar

from django.contrib.admin import ListFilter, ModelAdmin, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext_lazy as _

from django_tasks import states
from django_tasks.connections import brokers, home
from django_tasks.listing import DELAYED, DONE, FAILED, LEASED, READY, RUNNING
from django_tasks.models import PeriodicTask, ScheduledRun, WorkerNode
from django_tasks.registry import tasks
from django_tasks.routing import queues_of

_MOST_WORKERS = _MOST_PERIODIC = 50
_LONGEST = 255


class ChoiceFilter(SimpleListFilter):
    """A filter whose value the page itself looks up; one that is not among the choices may stand in the address."""

    parameters: ClassVar[tuple[str, ...]]

    def __init__(
        self, request: HttpRequest, params: dict[str, list[str]], model: type[Model], model_admin: ModelAdmin[Any]
    ) -> None:
        super().__init__(request, params, model, model_admin)
        if value := self.value():
            _check(value)

    def has_output(self) -> bool:
        return bool(self.lookup_choices) or self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        return None

    def chosen(self) -> dict[str, Any]:
        return {self.parameters[0]: self.value() or ""}

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        yield from super().choices(changelist)
        value = self.value()
        if value and value not in {str(known) for known, _title in self.lookup_choices}:
            yield {"selected": True, "query_string": changelist.get_query_string(), "display": value}


class StateFilter(ChoiceFilter):
    title = _("state")
    parameter_name = "state"
    parameters = ("state",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        shown = (
            states.PENDING,
            states.STARTED,
            "PROGRESS",
            states.RETRY,
            states.SUCCESS,
            states.FAILURE,
            states.REVOKED,
            states.REJECTED,
        )
        return [(state, state) for state in shown]


class StageFilter(ChoiceFilter):
    title = _("state")
    parameter_name = "stage"
    parameters = ("stage",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return [(RUNNING, _("running")), (DONE, _("done")), (FAILED, _("failed"))]


class TaskFilter(ChoiceFilter):
    title = _("task")
    parameter_name = "task"
    parameters = ("task",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return [(name, name) for name in sorted(tasks)]


class QueueFilter(ChoiceFilter):
    title = _("queue")
    parameter_name = "queue"
    parameters = ("queue",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return [(queue, queue) for alias in brokers for queue in queues_of(alias)]


class WorkerFilter(ChoiceFilter):
    title = _("worker")
    parameter_name = "worker"
    parameters = ("worker",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        names = WorkerNode.objects.using(home()).order_by("name").values_list("name", flat=True)[:_MOST_WORKERS]
        return [(name, name) for name in names]


class StandingFilter(ChoiceFilter):
    title = _("standing")
    parameter_name = "standing"
    parameters = ("standing",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return [(READY, _("ready")), (DELAYED, _("delayed")), (LEASED, _("leased"))]


class EnabledFilter(ChoiceFilter):
    title = _("standing")
    parameter_name = "enabled"
    parameters = ("enabled",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return [("yes", _("enabled")), ("no", _("disabled"))]


class OriginFilter(ChoiceFilter):
    title = _("origin")
    parameter_name = "origin"
    parameters = ("origin",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return [("code", _("declared in code")), ("here", _("made here"))]


class ConditionFilter(ChoiceFilter):
    title = _("condition")
    parameter_name = "condition"
    parameters = ("condition",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return [("failing", _("failing"))]


class OutcomeFilter(ChoiceFilter):
    title = _("outcome")
    parameter_name = "outcome"
    parameters = ("outcome",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        return ScheduledRun.Outcome.choices


class PeriodicFilter(ChoiceFilter):
    """By the name of a periodic task; some are offered, and any may be searched for."""

    title = _("periodic task")
    parameter_name = "periodic"
    parameters = ("periodic",)

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Iterable[tuple[str, Any]]:
        rows = PeriodicTask.objects.using(home()).order_by("name")
        return [(name, name) for name in rows.values_list("name", flat=True)[:_MOST_PERIODIC]]


class EndedFilter(ListFilter):
    """When tasks ended: a span up to now, or two dates."""

    title = _("end")
    template = "admin/django_tasks/ended_filter.html"
    parameters: ClassVar[tuple[str, ...]] = ("since", "until")

    SPANS: ClassVar[Mapping[str, tuple[Any, timedelta]]] = {
        "1h": (_("Past hour"), timedelta(hours=1)),
        "24h": (_("Past 24 hours"), timedelta(hours=24)),
        "7d": (_("Past 7 days"), timedelta(days=7)),
        "30d": (_("Past 30 days"), timedelta(days=30)),
    }

    def __init__(
        self, request: HttpRequest, params: dict[str, list[str]], model: type[Model], model_admin: ModelAdmin[Any]
    ) -> None:
        super().__init__(request, params, model, model_admin)
        self.given = {name: params.pop(name)[-1].strip() for name in self.parameters if name in params}
        self.hidden: list[tuple[str, str]] = []
        for value in self.given.values():
            _check(value)
        since, until = self.given.get("since", ""), self.given.get("until", "")
        self.since = timezone.now() - self.SPANS[since][1] if since in self.SPANS else _moment(since)
        self.until = _moment(until, end_of_day=True)

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return list(self.parameters)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        return None

    def chosen(self) -> dict[str, Any]:
        return {"since": self.since, "until": self.until}

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        self.hidden = [(name, value) for name, value in changelist.params.items() if name not in self.parameters]
        yield {
            "selected": not any(self.given.values()),
            "query_string": changelist.get_query_string(remove=list(self.parameters)),
            "display": _("Any time"),
        }
        for name, (title, _length) in self.SPANS.items():
            yield {
                "selected": self.given.get("since") == name,
                "query_string": changelist.get_query_string({"since": name}, remove=["until"]),
                "display": title,
            }

    @property
    def dates(self) -> dict[str, str]:
        """What the two fields for dates show."""
        return {name: value for name, value in self.given.items() if value not in self.SPANS}


def _check(value: str) -> None:
    if "\x00" in value or len(value) > _LONGEST:
        raise IncorrectLookupParameters


def _moment(text: str, *, end_of_day: bool = False) -> datetime | None:
    """Return the moment that a date or a date and time names; the end of a date where that is asked for."""
    if not text:
        return None
    try:
        day = parse_date(text)
        if day is not None:
            return _midnight(day + timedelta(days=1) if end_of_day else day)
        moment = parse_datetime(text)
        if moment is None:
            raise IncorrectLookupParameters
        return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
    except (ValueError, OverflowError) as error:
        raise IncorrectLookupParameters from error


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))
