"""What does the setting DJANGO_TASKS say? Read once, checked, and read again when a test overrides it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache
from typing import Any, Literal

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from django_tasks import keys
from django_tasks.compression import COMPRESSIONS
from django_tasks.exceptions import ConfigurationError
from django_tasks.message import ENQUEUE, PRIORITY_MAX, PRIORITY_MIN, Enqueue
from django_tasks.serializers import SERIALIZERS

SETTING = "DJANGO_TASKS"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that the setting says and that cannot be."""

    message: str
    hint: str = ""


Test = Callable[[Any], str]
"""Returns what a value should have been, or an empty string when it is right."""


def _mapping_of_mappings(value: Any) -> str:
    fine = isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, Mapping) for k, v in value.items())
    return "" if fine else "a dict of dicts"


def _mapping(value: Any) -> str:
    return "" if isinstance(value, Mapping) else "a dict"


def _routes(value: Any) -> str:
    fine = all(isinstance(step, Mapping) or callable(step) for step in in_order(value))
    return "" if fine else "a dict of routes, a function, or a list of these"


def in_order(routes: Any) -> list[Any]:
    """Return what ROUTES says as the list that it stands for."""
    return [*routes] if isinstance(routes, list | tuple) else [routes]


def route_fault(route: Any) -> str:
    """Return what a route should have been, or an empty string when it is right."""
    if isinstance(route, Mapping) and not route.keys() - ROUTE_KEYS:
        texts = all(isinstance(route[key], str) and route[key] for key in ROUTE_TEXTS & route.keys())
        return "" if texts and not _priority(route.get("priority", 0)) else f"a dict of {_ROUTE_WORDS}"
    return "" if isinstance(route, str) and route else f"the name of a queue, or a dict of {_ROUTE_WORDS}"


def _keys(value: Any) -> str:
    fine = all(isinstance(key, str) for key in in_order(value))
    return "" if fine else "text, or a list of texts"


def _name(value: Any) -> str:
    return "" if isinstance(value, str) and value else "a name"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "True or False"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _seconds(value: Any) -> str:
    return "" if _number(value) and value > 0 else "a number of seconds above 0"


def _maybe_seconds(value: Any) -> str:
    return "" if value is None else _seconds(value) and "a number of seconds above 0, or None"


def _some_seconds(value: Any) -> str:
    return "" if _number(value) and value >= 0 else "a number of seconds, 0 or more"


def _count(value: Any) -> str:
    return "" if isinstance(value, int) and not isinstance(value, bool) and value > 0 else "a whole number above 0"


def _maybe_count(value: Any) -> str:
    return "" if value is None else _count(value) and "a whole number above 0, or None"


def _maybe_retries(value: Any) -> str:
    fine = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
    return "" if fine else "a whole number, or None for no end of retries"


def _priority(value: Any) -> str:
    fine = type(value) is int and PRIORITY_MIN <= value <= PRIORITY_MAX
    return "" if fine else f"a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}"


def _span(value: Any) -> str:
    return "" if value is None or isinstance(value, timedelta) else "a timedelta, or None for ever"


def _maybe_span(value: Any) -> str:
    fine = value is None or (isinstance(value, timedelta) and value > timedelta(0))
    return "" if fine else "a timedelta above 0, or None for not at all"


def _one_of(*choices: str | None) -> Test:
    return lambda value: "" if value in choices else " or ".join(map(repr, choices))


def _serializers(value: Any) -> str:
    fine = isinstance(value, list | tuple | set | frozenset) and value and all(map(_is_serializer, value))
    return "" if fine else f"a list of some of {_names(SERIALIZERS)}"


def _is_serializer(value: Any) -> bool:
    return isinstance(value, str) and value in SERIALIZERS


def _names(table: Mapping[str, Any]) -> str:
    return ", ".join(dict.fromkeys(each.name for each in table.values()))


def _key(default: Any, test: Test, *, secret: bool = False) -> Any:
    """Declare one key of the setting: its default, the test that its value must pass, and whether nobody may see it."""
    made = {"default_factory": lambda: default} if isinstance(default, Mapping) else {"default": default}
    return field(metadata={"test": test, "secret": secret}, repr=not secret, **made)


_SEVEN_DAYS = timedelta(days=7)
_THIRTY_DAYS = timedelta(days=30)
_NINETY_DAYS = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Settings:
    """DJANGO_TASKS with its defaults. The key of a field is its name in capitals."""

    brokers: Mapping[str, Mapping[str, Any]] = _key({"default": {"BACKEND": "database"}}, _mapping_of_mappings)
    results: Mapping[str, Mapping[str, Any]] = _key({"default": {"BACKEND": "database"}}, _mapping_of_mappings)
    queues: Mapping[str, Mapping[str, Any]] = _key({}, _mapping_of_mappings)
    schedule: Mapping[str, Mapping[str, Any]] = _key({}, _mapping_of_mappings)
    """Periodic tasks by name: see `periodic`."""
    schedule_history: timedelta | None = _key(_THIRTY_DAYS, _span)  # noqa: RUF009  # as the fields below
    """How long it is kept what became of the runs of periodic tasks."""
    routes: Any = _key({}, _routes)  # noqa: RUF009  # as the fields below
    """A dict, a function, or a list of these: see `routing`."""
    default_queue: str = _key("default", _name)
    enqueue: Enqueue | None = _key(None, _one_of(None, *ENQUEUE))  # noqa: RUF009  # as the fields below
    """None leaves it to the broker."""

    inherit_parent_priority: bool = _key(False, _flag)
    """Whether what a running task sends, and what follows it, has the task's priority unless another is named."""

    acks_late: bool = _key(True, _flag)
    on_crash: Literal["retry", "fail"] = _key("retry", _one_of("retry", "fail"))
    max_crashes: int = _key(3, _count)
    max_retries: int | None = _key(3, _maybe_retries)
    default_retry_delay: float = _key(180.0, _some_seconds)
    ignore_result: bool = _key(False, _flag)
    store_errors_even_if_ignored: bool = _key(True, _flag)
    track_started: bool = _key(False, _flag)
    typing: bool = _key(True, _flag)
    time_limit: float | None = _key(None, _maybe_seconds)
    soft_time_limit: float | None = _key(None, _maybe_seconds)
    keep_arguments: Literal["never", "on_failure"] = _key("on_failure", _one_of("never", "on_failure"))
    """Whether a failed task's message is kept beside its result, so that it can be sent again."""
    unknown_tasks_wait: timedelta | None = _key(None, _maybe_span)  # noqa: RUF009  # as the fields above
    """How long a message is held whose task no worker that took it knows; None for not at all."""

    serializer: str = _key("json", _one_of(*(each.name for each in SERIALIZERS.values())))
    accept: Sequence[str] = _key(("json",), _serializers)
    """The serializers, by name or content type, whose bodies a worker decodes."""

    compression: str | None = _key(None, _one_of(None, *COMPRESSIONS))

    sign: bool = _key(False, _flag)
    """Whether messages are signed when they are sent."""
    require_signature: bool = _key(False, _flag)
    """Whether a worker refuses what is not signed, or not as it is; messages are then signed in any case."""
    signature_max_age: timedelta | None = _key(_SEVEN_DAYS, _span)  # noqa: RUF009  # as the fields above
    encrypt: bool = _key(False, _flag)
    """Whether arguments are encrypted when they are sent, and the results of such calls."""
    encryption_keys: Sequence[str] = _key((), keys.encryption_keys, secret=True)
    """The first one encrypts, all of them decrypt."""
    security_key: keys.Path | None = _key(None, keys.path)  # noqa: RUF009  # as above
    """The file of the private key that the serializer "auth" signs with."""
    security_key_password: str | bytes | None = _key(None, keys.password, secret=True)
    security_certificate: keys.Path | None = _key(None, keys.path)  # noqa: RUF009  # as above
    security_cert_store: keys.Path | None = _key(None, keys.path)  # noqa: RUF009  # as above
    """The certificates of those whose bodies are read: a folder, or a pattern."""
    security_digest: str = _key("sha256", _one_of("sha256", "sha384", "sha512"))

    lease: float = _key(30.0, _seconds)
    heartbeat: float = _key(5.0, _seconds)
    grace: float = _key(25.0, _some_seconds)
    pool: str = _key("prefork", _name)
    concurrency: int | None = _key(None, _maybe_count)
    """None for one a processor."""
    max_tasks_per_child: int | None = _key(None, _maybe_count)
    max_memory_per_child: int | None = _key(None, _maybe_count)
    """KiB."""
    revocations_kept: timedelta | None = _key(_NINETY_DAYS, _span)  # noqa: RUF009  # as the fields above

    @property
    def signs(self) -> bool:
        return self.sign or self.require_signature


_KEYS = {entry.name.upper(): entry for entry in fields(Settings)}
_BACKEND_KEYS = frozenset({"BACKEND", "LOCATION", "OPTIONS"})
EXCHANGE_TYPES = ("direct", "topic", "fanout", "headers")
_EXCHANGE_TESTS: Mapping[str, Test] = {
    "EXCHANGE": _name,
    "EXCHANGE_TYPE": _one_of(*EXCHANGE_TYPES),
    "ROUTING_KEY": _keys,
    "ARGUMENTS": _mapping,
}
EXCHANGE_KEYS = frozenset(_EXCHANGE_TESTS)
"""Keys of an entry of QUEUES that only brokers with exchanges know."""
_QUEUE_KEYS = frozenset({"BROKER", "PRIORITY"}) | EXCHANGE_KEYS
ROUTE_TEXTS = frozenset({"queue", "exchange", "routing_key"})
ROUTE_KEYS = ROUTE_TEXTS | {"priority"}
_ROUTE_WORDS = "queue, exchange, routing_key (names) and priority (-100 to 100)"


@cache
def get() -> Settings:
    """Return the settings in force; raises ConfigurationError for what cannot be."""
    given = getattr(django_settings, SETTING, {})
    for problem in problems(given):
        raise ConfigurationError(f"{problem.message} {problem.hint}".strip())
    return Settings(**{_KEYS[key].name: value for key, value in given.items()})


def problems(given: Any) -> Iterator[Problem]:
    """Yield all that is wrong with a value of DJANGO_TASKS."""
    if not isinstance(given, Mapping):
        yield Problem(f"{SETTING} must be a dict, not {type(given).__name__}.")
        return
    for key, value in given.items():
        if key not in _KEYS:
            yield Problem(f"{SETTING} has an unknown key {key!r}.", nearest(str(key), _KEYS))
        elif wanted := _KEYS[key].metadata["test"](value):
            told = "" if _KEYS[key].metadata["secret"] else f", not {value!r}"
            yield Problem(f"{SETTING}[{key!r}] must be {wanted}{told}.", keys.MADE if key == "ENCRYPTION_KEYS" else "")
        else:
            yield from _inner_problems(key, value)
    yield from _stray_queues(given)
    yield from _unfit_serializers(given)
    for message, hint in keys.unfit(given):
        yield Problem(f"{SETTING}{message}", hint)


def _inner_problems(key: str, value: Any) -> Iterator[Problem]:
    if key in ("BROKERS", "RESULTS"):
        if "default" not in value:
            yield Problem(f"{SETTING}[{key!r}] has no 'default'.", "Name one of them 'default'.")
        for alias, params in value.items():
            if not isinstance(params.get("BACKEND"), str):
                yield Problem(f"{SETTING}[{key!r}][{alias!r}] has no BACKEND.", "Give a short name or a dotted path.")
            yield from _unknown(f"{SETTING}[{key!r}][{alias!r}]", params, _BACKEND_KEYS)
            if wanted := _mapping(params.get("OPTIONS", {})):
                where = f"{SETTING}[{key!r}][{alias!r}]['OPTIONS']"
                yield Problem(f"{where} must be {wanted}, not {params['OPTIONS']!r}.")
    elif key == "QUEUES":
        for queue, params in value.items():
            yield from _unknown(f"{SETTING}[{key!r}][{queue!r}]", params, _QUEUE_KEYS)
            if wanted := _priority(params.get("PRIORITY", 0)):
                where = f"{SETTING}[{key!r}][{queue!r}]['PRIORITY']"
                yield Problem(f"{where} must be {wanted}, not {params['PRIORITY']!r}.")
            yield from _exchange_problems(f"{SETTING}[{key!r}][{queue!r}]", params)
    elif key == "ROUTES":
        yield from _route_problems(value)


def _exchange_problems(where: str, params: Mapping[str, Any]) -> Iterator[Problem]:
    for key, test in _EXCHANGE_TESTS.items():
        if key in params and (wanted := test(params[key])):
            yield Problem(f"{where}[{key!r}] must be {wanted}, not {params[key]!r}.")
    if "EXCHANGE" not in params and (stray := EXCHANGE_KEYS & params.keys()):
        yield Problem(f"{where} has {min(stray)} and no EXCHANGE.", "Name the exchange that it is bound to.")


def _route_problems(routes: Any) -> Iterator[Problem]:
    for step in in_order(routes):
        for pattern, route in step.items() if isinstance(step, Mapping) else ():
            where = f"{SETTING}['ROUTES'][{pattern!r}]"
            if not (isinstance(pattern, str | re.Pattern) and pattern):
                yield Problem(f"{where} stands for no task.", "Give a name, a pattern, or re.compile(...).")
            if wanted := route_fault(route):
                yield Problem(f"{where} must be {wanted}, not {route!r}.")


def _stray_queues(given: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the queues that name a broker which is not there."""
    queues, brokers = given.get("QUEUES", {}), given.get("BROKERS", Settings().brokers)
    if _mapping_of_mappings(queues) or _mapping_of_mappings(brokers):
        return
    for queue, params in queues.items():
        alias = params.get("BROKER", "default")
        if alias not in ["default", *brokers]:
            where = f"{SETTING}['QUEUES'][{queue!r}]['BROKER']"
            yield Problem(f"{where} names no broker: {alias!r}.", nearest(str(alias), brokers))


def _unfit_serializers(given: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what cannot be sent or read as the settings have it."""
    accept, chosen = given.get("ACCEPT", Settings().accept), given.get("SERIALIZER", "json")
    if _serializers(accept) or not _is_serializer(chosen):
        return
    accepted = {SERIALIZERS[name].name for name in accept}
    if chosen not in accepted:
        yield Problem(
            f"{SETTING}['SERIALIZER'] is {chosen!r}, which {SETTING}['ACCEPT'] does not name.",
            "Workers would decode nothing that is sent: add it to ACCEPT, everywhere, before it is sent.",
        )
    named = given.get("COMPRESSION")
    way = COMPRESSIONS.get(named) if isinstance(named, str) else None
    if way is not None and way.missing:
        yield Problem(f"{SETTING}['COMPRESSION'] is {way.name!r}, whose library is not installed.", way.missing)
    for name in sorted(accepted):
        if SERIALIZERS[name].signed_only and given.get("REQUIRE_SIGNATURE") is not True:
            yield Problem(
                f"{SETTING}['ACCEPT'] names {name!r}, and {SETTING}['REQUIRE_SIGNATURE'] is not True.",
                "Whoever can write to the broker could run any code in your workers: require signatures first.",
            )
        if SERIALIZERS[name].missing:
            yield Problem(
                f"{SETTING}['ACCEPT'] names {name!r}, whose library is not installed.", SERIALIZERS[name].missing
            )


def _unknown(where: str, params: Mapping[str, Any], known: frozenset[str]) -> Iterator[Problem]:
    for name in params:
        if name not in known:
            yield Problem(f"{where} has an unknown key {name!r}.", nearest(str(name), known))


def nearest(word: str, words: Any) -> str:
    """Return a hint that names the known word most like the one given, or all of them."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6) or difflib.get_close_matches(
        word.upper(), list(words), n=1, cutoff=0.6
    )
    return f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(sorted(words))}."


def _forget(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        get.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_tasks.conf")
