"""Why can a value not be sent, and what can be sent in its place?"""

from __future__ import annotations

from types import FunctionType

from django_tasks.classes import ancestors, attribute, display_name, qualified_name

# Classes are known by name: a library that is not installed costs no import.
_ADVICE = {
    "django.db.models.base.Model": "pass its primary key and load it in the task",
    "django.db.models.query.QuerySet": "pass primary keys: list(queryset.values_list('pk', flat=True))",
    "django.db.models.manager.BaseManager": "use it in the task itself",
    "django.http.request.HttpRequest": "pass the values that the task needs, such as request.user.pk",
    "django.http.response.HttpResponseBase": "pass its content",
    "django.core.files.base.File": "save it in a storage and pass its name",
    "django.core.files.utils.FileProxyMixin": "save it in a storage and pass its name",
    "django.forms.forms.BaseForm": "pass its cleaned_data",
    "django.utils.functional.LazyObject": "pass a plain value, such as request.user.pk in place of request.user",
    "django.utils.datastructures.MultiValueDict": "pass value.dict(), or dict(value.lists()) to keep every value",
    "django_tasks.result.AsyncResult": "pass its id",
    "rest_framework.serializers.BaseSerializer": "pass its data",
    "pydantic.main.BaseModel": "pass value.model_dump()",
    "numpy.ndarray": "pass value.tolist()",
    "numpy.generic": "pass value.item()",
    "pandas.core.frame.DataFrame": "pass value.to_dict()",
    "pandas.core.series.Series": "pass value.to_list()",
    "_io._IOBase": "pass its path or its content",
    "tempfile._TemporaryFileWrapper": "pass its path or its content",
    "builtins.function": "pass its name instead",
    "builtins.builtin_function_or_method": "pass its name instead",
    "builtins.method": "pass its name instead",
    "functools.partial": "pass the name of the function and its arguments instead",
    "builtins.type": "pass its name instead",
    "builtins.module": "pass its name instead",
    "builtins.generator": "pass list(value)",
    "builtins.async_generator": "pass [item async for item in value]",
    "builtins.coroutine": "await it and pass its result",
    "builtins.BaseException": "pass str(value)",
    "builtins.bytearray": "pass bytes(value)",
    "builtins.memoryview": "pass bytes(value)",
    "builtins.range": "pass list(value)",
    "builtins.map": "pass list(value)",
    "builtins.filter": "pass list(value)",
    "builtins.zip": "pass list(value)",
    "builtins.dict_keys": "pass list(value)",
    "builtins.dict_values": "pass list(value)",
    "builtins.dict_items": "pass list(value)",
    "collections.deque": "pass list(value)",
    "collections.UserDict": "pass dict(value)",
    "collections.UserList": "pass list(value)",
    "builtins.dict": "it has items() of its own; pass dict(value)",
    "builtins.list": "it has an __iter__ of its own; pass list(value)",
    "builtins.set": "it has an __iter__ of its own; pass set(value)",
    "builtins.frozenset": "it has an __iter__ of its own; pass frozenset(value)",
    "builtins.complex": "pass [value.real, value.imag]",
    "datetime.date": "it holds more than the standard class does; pass a plain date or datetime",
    "datetime.time": "it holds more than the standard class does; pass a plain time",
    "datetime.timedelta": "it holds more than the standard class does; pass a plain timedelta",
    "decimal.Decimal": "it holds more than the standard class does; pass a plain Decimal",
    "uuid.UUID": "it holds more than the standard class does; pass a plain UUID",
    "fractions.Fraction": "pass str(value)",
    "pathlib.PurePath": "pass str(value)",
    "pathlib._local.PurePath": "pass str(value)",
    "ipaddress._BaseAddress": "pass str(value)",
    "ipaddress._BaseNetwork": "pass str(value)",
    "re.Pattern": "pass value.pattern",
    "zoneinfo.ZoneInfo": "pass value.key",
}

_NOUNS = {
    "django.db.models.base.Model": "a model instance",
    "builtins.function": "a function",
    "builtins.builtin_function_or_method": "a function",
    "builtins.method": "a method",
    "builtins.type": "a class",
    "builtins.module": "a module",
    "builtins.generator": "a generator",
    "builtins.async_generator": "an asynchronous generator",
    "builtins.coroutine": "a coroutine",
    "builtins.BaseException": "an exception",
    "_io._IOBase": "an open file",
}


def reason(value: object) -> str:
    """Return the sentence that a caller reads who tried to send this."""
    kind = type(value)
    for each in ancestors(kind):
        name = ".".join(qualified_name(each))
        if name in _ADVICE:
            return f"{_noun(value, name)} cannot be sent; {_ADVICE[name]}"
    if issubclass(kind, tuple):
        advice = "pass tuple(value), or value._asdict() if it has that"
    elif attribute(kind, "__attrs_attrs__") is not None:
        advice = "pass attrs.asdict(value)"
    elif attribute(kind, "__next__") is not None:
        advice = "pass list(value)"
    else:
        advice = "pass the plain values that the task needs, or make it a dataclass"
    return f"{_noun(value, '')} cannot be sent; {advice}"


def _noun(value: object, name: str) -> str:
    if type(value) is FunctionType and value.__name__ == "<lambda>":
        return "a lambda"
    kind = display_name(type(value))
    noun = _NOUNS.get(name)
    if noun is None:
        return f"an object of {kind}"
    return noun if name == f"builtins.{kind}" else f"{noun} ({kind})"
