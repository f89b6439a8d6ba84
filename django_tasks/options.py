"""What can be said about a task, and about one call of it?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypedDict

from django_tasks.compression import COMPRESSIONS
from django_tasks.message import ENQUEUE, PRIORITY_MAX, PRIORITY_MIN, Enqueue
from django_tasks.retry import BACKOFF_MAX, ErrorTypes, RetryPolicy
from django_tasks.serializers import SERIALIZERS


class Unset(Enum):
    """Says that nothing was said, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

OnCrash = Literal["retry", "fail"]


class Declaration(TypedDict, total=False):
    """The keywords of `@task`, beside `name`, `bind` and `base`."""

    queue: str | None
    priority: int | None
    max_retries: int | None
    default_retry_delay: float
    autoretry_for: Iterable[type[BaseException]]
    dont_autoretry_for: Iterable[type[BaseException]]
    retry_kwargs: Mapping[str, Any]
    retry_backoff: bool | float
    retry_backoff_max: float
    retry_jitter: bool
    throws: Iterable[type[BaseException]]
    time_limit: float | None
    soft_time_limit: float | None
    acks_late: bool | None
    on_crash: OnCrash | None
    max_crashes: int | None
    ignore_result: bool | None
    store_errors_even_if_ignored: bool | None
    track_started: bool | None
    expires: float | datetime | None
    typing: bool | None
    atomic: bool | str
    enqueue: Enqueue | None
    serializer: str | None
    compression: str | None
    encrypt: bool | None
    api: bool
    schedule: Any


class CallOptions(TypedDict, total=False):
    """The keywords of `apply_async`, beside the arguments of the task."""

    countdown: float | None
    eta: datetime | None
    expires: float | datetime | None
    task_id: str | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    headers: Mapping[str, Any] | None
    stamps: Mapping[str, Any] | None
    shadow: str | None
    time_limit: float | None
    soft_time_limit: float | None
    ignore_result: bool | None
    enqueue: Enqueue | None
    serializer: str | None
    compression: str | None
    encrypt: bool | None
    link: Any
    link_error: Any
    retries: int
    root_id: str | None
    parent_id: str | None
    group_id: str | None
    group_index: int | None
    timeout: float | None
    """Of a group or a chord alone."""


class Call(Protocol):
    """A call of a task, as far as a message is made of it."""

    @property
    def task(self) -> str: ...
    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def kwargs(self) -> dict[str, Any]: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


class RetryOptions(TypedDict, total=False):
    """The keywords of `Task.retry`, beside the arguments of the next run and when it is to be."""

    expires: float | datetime | None
    queue: str | None
    priority: int | None
    headers: Mapping[str, Any] | None
    time_limit: float | None
    soft_time_limit: float | None


CALL_OPTIONS = frozenset(CallOptions.__annotations__)
DECLARATION = frozenset(Declaration.__annotations__)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the value of an option must be."""

    kinds: tuple[type, ...]
    words: str
    fits: Callable[[Any], bool] | None = None

    def complaint(self, value: Any) -> type[Exception] | None:
        """Return the error that a value is worth."""
        flag = isinstance(value, bool) and bool not in self.kinds
        if flag or not isinstance(value, self.kinds):
            return TypeError
        return None if value is None or self.fits is None or self.fits(value) else ValueError


_NONE = type(None)
PLAIN = "none"
"""The compression of a task or call that is to have none, whatever the settings say."""
_COMPRESSIONS = (*(name for name in COMPRESSIONS if "/" not in name), PLAIN)
_SERIALIZERS = tuple(dict.fromkeys(each.name for each in SERIALIZERS.values()))
_CENTURY = 100 * 366 * 86_400
_LIMIT = _Rule((int, float, _NONE), "a number of seconds above 0", lambda value: value > 0)
_MAYBE = _Rule((bool, _NONE), "True, False or None")
_ENQUEUE = _Rule((str, _NONE), f"one of {', '.join(map(repr, ENQUEUE))}", lambda value: value in ENQUEUE)
_SERIALIZER = _Rule((str, _NONE), f"one of {', '.join(_SERIALIZERS)}", lambda value: value in _SERIALIZERS)
_COMPRESSION = _Rule((str, _NONE), f"one of {', '.join(_COMPRESSIONS)}", lambda value: value in _COMPRESSIONS)
_EXPIRES = _Rule((int, float, datetime, _NONE), "a number of seconds or a datetime")

_DECLARED: Mapping[str, _Rule] = {
    "queue": _Rule((str, _NONE), "the name of a queue", bool),
    "priority": _Rule(
        (int, _NONE),
        f"a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}",
        lambda value: PRIORITY_MIN <= value <= PRIORITY_MAX,
    ),
    "max_retries": _Rule((int, _NONE), "0 or more, or None for no end", lambda value: value >= 0),
    "default_retry_delay": _Rule((int, float), "a number of seconds, 0 or more", lambda value: value >= 0),
    "retry_backoff": _Rule(
        (bool, int, float, _NONE), "True or a number of seconds, 0 or more", lambda value: value >= 0
    ),
    "retry_backoff_max": _Rule((int, float), "a number of seconds above 0", lambda value: value > 0),
    "retry_jitter": _Rule((bool,), "True or False"),
    "time_limit": _LIMIT,
    "soft_time_limit": _LIMIT,
    "acks_late": _MAYBE,
    "on_crash": _Rule((str, _NONE), "'retry' or 'fail'", lambda value: value in ("retry", "fail")),
    "max_crashes": _Rule((int, _NONE), "1 or more", lambda value: value >= 1),
    "ignore_result": _MAYBE,
    "store_errors_even_if_ignored": _MAYBE,
    "track_started": _MAYBE,
    "expires": _EXPIRES,
    "typing": _MAYBE,
    "atomic": _Rule((bool, str), "True, False or the alias of a database", lambda value: value != ""),
    "enqueue": _ENQUEUE,
    "serializer": _SERIALIZER,
    "compression": _COMPRESSION,
    "encrypt": _MAYBE,
    "api": _Rule((bool,), "True or False"),
}
_CALLED: Mapping[str, _Rule] = {
    "countdown": _Rule((int, float, _NONE), "a number of seconds"),
    "exchange": _Rule((str, _NONE), "the name of an exchange", bool),
    "routing_key": _Rule((str, _NONE), "text"),
    "expires": _EXPIRES,
    "shadow": _Rule((str, _NONE), "a name"),
    "stamps": _Rule((dict, _NONE), "a dictionary of stamps by name"),
    "time_limit": _LIMIT,
    "soft_time_limit": _LIMIT,
    "ignore_result": _MAYBE,
    "enqueue": _ENQUEUE,
    "serializer": _SERIALIZER,
    "compression": _COMPRESSION,
    "encrypt": _MAYBE,
    "retries": _Rule((int,), "0 or more", lambda value: value >= 0),
    "root_id": _Rule((str, _NONE), "the id of a task"),
    "parent_id": _Rule((str, _NONE), "the id of a task"),
    "group_id": _Rule((str, _NONE), "the id of a group"),
    "group_index": _Rule((int, _NONE), "a whole number"),
    "timeout": _Rule((int, float, _NONE), "a number of seconds above 0", lambda value: 0 < value <= _CENTURY),
}


def _check(told: Mapping[str, Any], rules: Mapping[str, _Rule]) -> None:
    for name, value in told.items():
        rule = rules.get(name)
        if rule is not None and (error := rule.complaint(value)):
            raise error(f"{name} is {rule.words}, not {value!r:.80}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What a task declares. None (for `max_retries` and `default_retry_delay`: UNSET) leaves it to the settings."""

    queue: str | None = None
    priority: int | None = None
    max_retries: int | Unset | None = UNSET
    default_retry_delay: float | Unset = UNSET
    autoretry_for: ErrorTypes = ()
    dont_autoretry_for: ErrorTypes = ()
    retry_backoff: float | None = None
    retry_backoff_max: float = BACKOFF_MAX
    retry_jitter: bool = True
    throws: ErrorTypes = ()
    time_limit: float | None = None
    soft_time_limit: float | None = None
    acks_late: bool | None = None
    on_crash: OnCrash | None = None
    max_crashes: int | None = None
    ignore_result: bool | None = None
    store_errors_even_if_ignored: bool | None = None
    track_started: bool | None = None
    expires: float | datetime | None = None
    typing: bool | None = None
    atomic: bool | str = False
    """True, or the alias of a database: the task and its completion are one transaction."""
    enqueue: Enqueue | None = None
    serializer: str | None = None
    compression: str | None = None
    encrypt: bool | None = None
    api: bool = False
    """May be started through the REST API."""
    schedule: Any = None
    """When it is sent by itself: a schedule, the text of one, or seconds."""


_NAMES = frozenset(entry.name for entry in fields(TaskOptions))


def declared(base: type, given: Declaration) -> TaskOptions:
    """Return the options of a task: the decorator's keywords over the attributes of its base class."""
    told: dict[str, Any] = {name: getattr(base, name) for name in DECLARATION if name in _public(base)}
    told.update(given)
    retry_kwargs = dict(told.pop("retry_kwargs", {}))
    if "max_retries" in retry_kwargs:
        told.setdefault("max_retries", retry_kwargs.pop("max_retries"))
    if "countdown" in retry_kwargs:
        told.setdefault("default_retry_delay", retry_kwargs.pop("countdown"))
    if retry_kwargs:
        raise TypeError(f"retry_kwargs takes max_retries and countdown, not {', '.join(retry_kwargs)}.")
    for name in ("autoretry_for", "dont_autoretry_for", "throws"):
        if name in told:
            told[name] = _error_types(name, told[name])
    _check(told, _DECLARED)
    backoff = told.get("retry_backoff")
    # True means "from one second on", as in Celery; False means no backoff.
    told["retry_backoff"] = float(backoff) if backoff else None
    return TaskOptions(**told)


def _public(base: type) -> set[str]:
    return {name for cls in base.__mro__ for name in vars(cls) if not isinstance(vars(cls)[name], property)}


def _error_types(name: str, value: Any) -> ErrorTypes:
    kinds = (value,) if isinstance(value, type) else tuple(value)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} takes exception classes; {kind!r} is not one.")
    return kinds


def check_call(given: Mapping[str, Any]) -> None:
    """Raise TypeError for an option of a call that is of the wrong kind, ValueError for one that is out of range."""
    _check(given, _CALLED)


def retry_policy(options: TaskOptions, max_retries: int | None, delay: float) -> RetryPolicy:
    """Return when a task is run again, given what the settings say where it says nothing."""
    return RetryPolicy(
        max_retries=max_retries if options.max_retries is UNSET else options.max_retries,
        delay=delay if options.default_retry_delay is UNSET else options.default_retry_delay,
        backoff=options.retry_backoff,
        backoff_max=options.retry_backoff_max,
        jitter=options.retry_jitter,
        errors=options.autoretry_for,
        except_for=options.dont_autoretry_for,
    )


RNG = random.Random()
"""Jitter; reseeded in each child process."""
