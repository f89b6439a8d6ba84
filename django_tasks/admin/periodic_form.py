"""What may be said of a periodic task, and what is wrong with what was said?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib.admin.widgets import AdminSplitDateTime, AdminTextareaWidget
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.forms.renderers import BaseRenderer
from django.template.loader import render_to_string
from django.utils import formats
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_tasks.beat.calls import MISFITS, plan_of
from django_tasks.beat.slots import Terms
from django_tasks.connections import brokers, home
from django_tasks.display import from_now
from django_tasks.exceptions import ConfigurationError, NotRegistered
from django_tasks.message import PRIORITY_MAX, PRIORITY_MIN, new_id
from django_tasks.models import PeriodicTask
from django_tasks.registry import tasks
from django_tasks.routing import checked_queue, queues_of
from django_tasks.schedules.solar import EVENTS
from django_tasks.timetable import AHEAD, Outlook, outlook

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[PeriodicTask]
else:
    _ModelForm = forms.ModelForm

PAYLOAD = ("args", "kwargs", "headers")
_KINDS = {"args": list, "kwargs": dict, "headers": dict}
_LEAST = {"jitter": 0, "missed_limit": 1, "pause_after": 1, "priority": PRIORITY_MIN}
_EXAMPLES = (
    "every 5 minutes",
    "every 1 day 12 hours",
    "crontab 30 3 * * mon-fri",
    "cron 0 9 1,15 * *",
    "@daily",
    "solar sunset 52.52 13.405",
    "clocked 2030-12-24T18:00:00+01:00",
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a schedule says, as it is shown beside it."""

    words: str = ""
    title: str = ""
    runs: tuple[Mapping[str, str], ...] = ()
    """Of each the moment in ISO 8601, as text, and how far away it is."""
    error: str = ""

    @classmethod
    def of(cls, found: Outlook) -> Look:
        if found.error:
            return cls(error=found.error)
        title = _("Next runs, by the clock of %(zone)s:") if found.runs else _("It has no further run.")
        return cls(
            words=found.words,
            title=title % {"zone": found.zone},
            runs=tuple(
                {
                    "at": moment.isoformat(),
                    "text": formats.date_format(moment, "D Y-m-d H:i:s"),
                    "away": from_now(moment),
                }
                for moment in found.runs
            ),
        )


class SuggestingInput(forms.TextInput):
    """A line of text for which some values are offered."""

    def __init__(self, offered: Callable[[], Iterable[str]]) -> None:
        super().__init__({"class": "vTextField"})
        self.offered = offered

    def render(self, name: str, value: Any, attrs: Any = None, renderer: BaseRenderer | None = None) -> SafeString:
        options = format_html_join("", '<option value="{}"></option>', ((each,) for each in self.offered()))
        line = super().render(name, value, {**(attrs or {}), "list": f"{name}-offered"}, renderer)
        return format_html('{}<datalist id="{}-offered">{}</datalist>', line, name, options)


class ScheduleInput(forms.TextInput):
    """A line for the text of a schedule, with a chooser that writes it, and what it means beneath."""

    look: Look | None = None
    preview_url = ""

    def __init__(self) -> None:
        super().__init__({"class": "vTextField", "autocomplete": "off", "spellcheck": "false"})

    def render(self, name: str, value: Any, attrs: Any = None, renderer: BaseRenderer | None = None) -> SafeString:
        context = {
            "line": super().render(name, value, attrs, renderer),
            "look": self.look,
            "preview_url": self.preview_url,
            "events": EVENTS,
            "examples": _EXAMPLES,
        }
        return render_to_string("admin/django_tasks/schedule.html", context)


@cache
def _zones() -> tuple[tuple[str, str], ...]:
    return tuple((zone, zone) for zone in sorted(available_timezones()))


class PeriodicTaskForm(_ModelForm):
    """All of a periodic task but what beats write."""

    timezone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        required=False,
        choices=lambda: [("", _("that of the site (%(zone)s)") % {"zone": settings.TIME_ZONE}), *_zones()],
        help_text=gettext_lazy("Of the clock that schedules go by which name none themselves."),
    )
    preview_url: ClassVar[str] = ""

    class Meta:
        model = PeriodicTask
        fields = (
            "name",
            "task",
            "enabled",
            "description",
            "schedule",
            "timezone",
            "start_at",
            "end_at",
            "one_off",
            *PAYLOAD,
            "queue",
            "priority",
            "expires",
            "missed",
            "missed_limit",
            "overlap",
            "jitter",
            "pause_after",
        )
        widgets: ClassVar[Mapping[str, Any]] = {
            "task": SuggestingInput(lambda: sorted(tasks)),
            "queue": SuggestingInput(lambda: [queue for alias in brokers for queue in queues_of(alias)]),
            "schedule": ScheduleInput(),
            "description": AdminTextareaWidget({"rows": 2}),
            **{name: AdminTextareaWidget({"rows": 3, "spellcheck": "false"}) for name in PAYLOAD},
        }
        help_texts: ClassVar[Mapping[str, Any]] = {
            "name": gettext_lazy("What you call it; no other periodic task has this name."),
            "task": gettext_lazy("The name of the task that is sent, such as shop.tasks.report."),
            "enabled": gettext_lazy("Without it nothing is sent. A change counts at the next tick of a beat."),
            "start_at": gettext_lazy("Nothing is due before this, in the time zone of this page."),
            "end_at": gettext_lazy("Nothing is due after this."),
            "one_off": gettext_lazy("It is disabled when it has been sent once."),
            "args": gettext_lazy('A JSON list, such as [2, "Ann"].'),
            "kwargs": gettext_lazy('A JSON object, such as {"copies": 2}.'),
            "headers": gettext_lazy("A JSON object that goes with the message, for middleware and tracing."),
            "queue": gettext_lazy("Empty: where the task and the routes say."),
            "priority": gettext_lazy("From -100 to 100, higher first. Empty: what the task says."),
            "expires": gettext_lazy("Seconds after which a run that has not begun is dropped. Empty: never."),
            "missed": gettext_lazy("What becomes of runs that were due while no beat ran, a minute late or more."),
            "missed_limit": gettext_lazy("Where each is run."),
            "overlap": gettext_lazy("What happens when it is due and the run before it goes on."),
            "jitter": gettext_lazy("Up to so many seconds are added to each run, at random: not all start at once."),
            "pause_after": gettext_lazy("So many failures in a row disable it. Empty: none do."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, least in _LEAST.items():
            if name in self.fields:
                self.fields[name].validators.append(MinValueValidator(least))
        if "priority" in self.fields:
            self.fields["priority"].validators.append(MaxValueValidator(PRIORITY_MAX))
        if "timezone" in self.fields:
            _keep(self.fields["timezone"], self.instance.timezone)
        if "schedule" in self.fields:
            widget: Any = self.fields["schedule"].widget
            widget.preview_url = self.preview_url
            widget.look = self._look()

    def _look(self) -> Look | None:
        """Return what to show beneath the schedule; what is wrong with it stands above then."""
        if self.is_bound:
            found = look_at(self.data)
            return None if found.error else found
        if not self.instance.schedule:
            return None
        row = self.instance
        terms = Terms(row.start_at, row.end_at)
        return Look.of(outlook(row.schedule, row.timezone, terms, number=1 if row.one_off else AHEAD))

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not name.isprintable():
            raise ValidationError(_("A name has printable characters only."))
        others = PeriodicTask.objects.using(home()).filter(name=name).exclude(pk=self.instance.pk)
        if others.exists():
            raise ValidationError(_("There is a periodic task of this name already."))
        return name

    def clean_schedule(self) -> str:
        text: str = self.cleaned_data["schedule"].strip()
        if error := outlook(text, "", Terms(), number=1).error:
            raise ValidationError(error)
        return text

    def clean_queue(self) -> str:
        queue: str = self.cleaned_data["queue"]
        try:
            return queue and checked_queue(queue)
        except ConfigurationError as error:
            raise ValidationError(str(error)) from error

    def clean_expires(self) -> float | None:
        seconds: float | None = self.cleaned_data["expires"]
        if seconds is not None and seconds <= 0:
            raise ValidationError(_("It is a number of seconds above 0."))
        return seconds

    def clean_args(self) -> str:
        return self._json("args")

    def clean_kwargs(self) -> str:
        return self._json("kwargs")

    def clean_headers(self) -> str:
        return self._json("headers")

    def _json(self, name: str) -> str:
        """Return JSON of the right kind as it was written; empty stands for nothing in it."""
        kind = _KINDS[name]
        text: str = self.cleaned_data[name].strip() or json.dumps(kind())
        wanted = _('A list in JSON, such as [2, "Ann"].') if kind is list else _("An object in JSON: {…}.")
        try:
            found = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"{wanted} {_('This is no JSON: %(reason)s') % {'reason': error}}") from error
        if not isinstance(found, kind):
            raise ValidationError(wanted)
        return text

    def clean(self) -> dict[str, Any]:
        told: dict[str, Any] = super().clean() or self.cleaned_data
        start, end = told.get("start_at"), told.get("end_at")
        if start is not None and end is not None and end <= start:
            self.add_error("end_at", _("It ends before it begins."))
        return told

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors or "task" not in self.fields:
            return
        try:
            plan_of(self.instance, new_id())
        except MISFITS as error:
            self.add_error(NON_FIELD_ERRORS, _("It could not be sent: %(reason)s") % {"reason": error})

    def validate_unique(self) -> None:
        """Leave it to `clean_name`, which looks where the rows are, whatever a router says."""

    @property
    def warning(self) -> str:
        """What may be wrong with it, and may not be."""
        return unknown_task(self.cleaned_data["task"]) if "task" in self.cleaned_data else ""


def look_at(told: Mapping[str, str]) -> Look:
    """Return what the schedule of a form says that is being filled in."""
    terms = Terms(_moment(told, "start_at"), _moment(told, "end_at"))
    zone = told.get("timezone", "")
    number = 1 if told.get("one_off") else AHEAD
    return Look.of(outlook(told.get("schedule", ""), zone, terms, number=number))


def unknown_task(name: str) -> str:
    """Return a warning for a name that is not among the tasks which are registered here."""
    try:
        tasks[name]
    except NotRegistered as error:
        return _("%(error)s Workers that know it can run it.") % {"error": error}
    return ""


def _moment(told: Mapping[str, str], name: str) -> datetime | None:
    """Return a moment as far as it is filled in."""
    widget = AdminSplitDateTime()
    try:
        found: datetime | None = forms.SplitDateTimeField(required=False, widget=widget).clean(
            widget.value_from_datadict(told, {}, name)  # type: ignore[arg-type]
        )
    except ValidationError:
        return None
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _keep(field: Any, zone: str) -> None:
    """Let a row keep a zone that this host does not know."""
    if zone and zone not in dict(field.choices):
        field.choices = [*field.choices, (zone, zone)]
