"""What may a request say?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from inspect import Parameter
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from django_tasks.message import NAME_LENGTH, PRIORITY_MAX, PRIORITY_MIN, QUEUE_LENGTH
from django_tasks.models import ALIAS_LENGTH, STATE_LENGTH
from django_tasks.registry import tasks
from django_tasks.task import Task

LONGEST_WAIT = 30.0
"""Seconds."""

Errors = dict[str, Any]


class Strict(serializers.Serializer[Any]):
    """Refuses names that it does not know: a word misspelt would otherwise silently mean nothing."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = sorted(str(name)[:80] for name in data if name not in self.fields)
            if unknown:
                known = ", ".join(self.fields)
                text = _("There is no such field here; there are: %(known)s.") % {"known": known}
                raise serializers.ValidationError({name: [text] for name in unknown})
        return super().to_internal_value(data)


class Seconds(serializers.FloatField):
    """A finite number of seconds."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool):
            self.fail("invalid")
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class SecondsOrMoment(serializers.Field[Any, Any, Any, Any]):
    """A number of seconds from now, or a moment."""

    def to_internal_value(self, data: Any) -> float | datetime:
        field: Any = serializers.DateTimeField() if isinstance(data, str) else Seconds(min_value=0)
        value: float | datetime = field.run_validation(data)
        return value

    def to_representation(self, value: Any) -> Any:
        return value


class Call(Strict):
    """A task to be enqueued."""

    task = serializers.CharField(max_length=NAME_LENGTH)
    args = serializers.ListField(default=list)
    kwargs = serializers.DictField(default=dict)
    countdown = Seconds(min_value=0, required=False)
    eta = serializers.DateTimeField(required=False)
    expires = SecondsOrMoment(required=False)
    priority = serializers.IntegerField(min_value=PRIORITY_MIN, max_value=PRIORITY_MAX, required=False)

    def validate_task(self, name: str) -> Task[Any, Any]:
        task = tasks.get(name)
        # The same words for both, or the API would tell which tasks there are.
        if task is None or not task.options.api:
            raise serializers.ValidationError(_("There is no such task."), code="no_such_task")
        return task

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "countdown" in attrs and "eta" in attrs:
            raise serializers.ValidationError({"countdown": _("Give countdown or eta, not both.")})
        if errors := misfits(attrs["task"], attrs["args"], attrs["kwargs"]):
            raise serializers.ValidationError(errors)
        return attrs


class Revocation(Strict):
    terminate = serializers.BooleanField(default=False)


class Nothing(Strict):
    """A request that has nothing to say."""


class Look(Strict):
    """The parameters of one task."""

    wait = Seconds(min_value=0, default=0.0)
    format = serializers.CharField(required=False)

    def validate_wait(self, seconds: float) -> float:
        return min(seconds, LONGEST_WAIT)


class MemberPage(Strict):
    """The parameters of one group."""

    start = serializers.IntegerField(min_value=0, default=0)
    page_size = serializers.IntegerField(min_value=1, required=False)
    format = serializers.CharField(max_length=ALIAS_LENGTH, required=False)


class Search(Strict):
    """The parameters of the list."""

    state = serializers.CharField(max_length=STATE_LENGTH, default="")
    task = serializers.CharField(max_length=NAME_LENGTH, default="")
    queue = serializers.CharField(max_length=QUEUE_LENGTH, default="")
    worker = serializers.CharField(max_length=255, default="")
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)
    ordering = serializers.ChoiceField(["-ended_at", "ended_at"], default="-ended_at")
    cursor = serializers.CharField(max_length=1000, default="")
    page_size = serializers.IntegerField(min_value=1, required=False)
    format = serializers.CharField(max_length=ALIAS_LENGTH, required=False)


def misfits(task: Task[Any, Any], args: list[Any], kwargs: Mapping[str, Any]) -> Errors:
    """Return why a task cannot be called so, by field; nothing when it can."""
    parameters = task.parameters.parameters
    positional = [name for name, parameter in parameters.items() if parameter.kind in _POSITIONAL]
    named = {name for name, parameter in parameters.items() if parameter.kind in _NAMED}
    kinds = {parameter.kind for parameter in parameters.values()}
    given = set(positional[: len(args)])
    errors: Errors = {}
    if len(args) > len(positional) and Parameter.VAR_POSITIONAL not in kinds:
        errors["args"] = [_("It takes at most %(most)d of these.") % {"most": len(positional)}]
    wrong: Errors = {}
    for name in kwargs:
        if name in given and name in named:
            wrong[name] = [_("It is given twice: here and in args.")]
        elif name not in named and Parameter.VAR_KEYWORD not in kinds:
            wrong[name] = [_("It takes no argument of this name.")]
    lacking = [name for name, parameter in parameters.items() if _is_needed(parameter) and name not in given]
    for name in lacking:
        if name not in named:
            errors.setdefault("args", []).append(_("%(name)s is missing.") % {"name": name})
        elif name not in kwargs:
            wrong[name] = [serializers.Field.default_error_messages["required"]]
    return errors | ({"kwargs": wrong} if wrong else {})


_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def _is_needed(parameter: Parameter) -> bool:
    variadic = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return parameter.default is Parameter.empty and not variadic
