"""What may a running task know and do?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django_tasks.dependencies import Form, Trail
from django_tasks.exceptions import Retry
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome

Report = Callable[[Outcome], None]


def _nowhere(outcome: Outcome) -> None:
    """Drop a report: the task was called as a plain function."""


def forms(embed: Mapping[str, Any], name: str) -> list[Any]:
    """Return the forms of signatures that a message's body has under a name; none where something else stands."""
    found = embed.get(name)
    return found if isinstance(found, list) else []


@dataclass(slots=True, eq=False)
class Request:
    """The call that a task is answering: `self.request` in a bound task."""

    message: Message
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    embed: Mapping[str, Any] = field(default_factory=dict)
    """What follows the task, as its message tells it."""
    hostname: str = ""
    """The name of the worker."""
    deliveries: int = 1
    way: tuple[str, str] = ("", "")
    """The exchange and the routing key that the message came by."""
    is_eager: bool = False
    store: str = "default"
    """The alias of the store that keeps the results here."""
    added: int = 0
    """How many members this run has added to its group."""
    called_directly: bool = False
    report: Report = _nowhere
    directive: Retry | None = None
    """Set by `retry(throw=False)`: what is to be done when the function returns."""
    following: tuple[Message, ...] = ()
    """The next attempt, prepared by `retry()`."""
    trail: Trail | None = None
    """What was sent meanwhile; None while nothing was."""

    @property
    def id(self) -> str | None:
        return None if self.called_directly else self.message.id

    @property
    def task(self) -> str:
        return self.message.task

    @property
    def retries(self) -> int:
        return self.message.retries

    @property
    def attempt(self) -> int:
        """The number of this run, counted from 1; what was lost with its worker counts too, begun or not."""
        return self.message.attempts + self.deliveries

    @property
    def root_id(self) -> str | None:
        return self.message.root_id or self.id

    @property
    def parent_id(self) -> str | None:
        return self.message.parent_id

    @property
    def group(self) -> str | None:
        return self.message.group_id

    @property
    def group_index(self) -> int | None:
        return self.message.group_index

    @property
    def callbacks(self) -> list[Any]:
        """What is sent when the task has ended well; each as the dictionary of a signature."""
        return forms(self.embed, "callbacks")

    @property
    def errbacks(self) -> list[Any]:
        """What is sent when the task has failed for good."""
        return forms(self.embed, "errbacks")

    @property
    def chain(self) -> list[Any]:
        """The steps that follow, the last one first."""
        return forms(self.embed, "chain")

    @property
    def children(self) -> list[Form]:
        """What it has sent so far, as `as_tuple` has it; with its result also what followed it."""
        return [] if self.trail is None else self.trail.forms

    @property
    def correlation_id(self) -> str | None:
        return self.id

    @property
    def eta(self) -> datetime | None:
        return self.message.eta

    @property
    def expires(self) -> datetime | None:
        return self.message.expires

    @property
    def time_limit(self) -> float | None:
        return self.message.time_limit

    @property
    def soft_time_limit(self) -> float | None:
        return self.message.soft_time_limit

    @property
    def timelimit(self) -> tuple[float | None, float | None]:
        """The hard and the soft limit of this call, in Celery's order."""
        return self.message.time_limit, self.message.soft_time_limit

    @property
    def ignore_result(self) -> bool | None:
        return self.message.ignore_result

    @property
    def shadow(self) -> str | None:
        return self.message.shadow

    @property
    def origin(self) -> str:
        return self.message.origin

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.message.headers

    @property
    def stamps(self) -> dict[str, Any]:
        """What the call was stamped with, by name."""
        return self.message.stamps

    @property
    def stamped_headers(self) -> list[str]:
        """The names of its stamps."""
        return list(self.message.stamps)

    @property
    def delivery_info(self) -> dict[str, Any]:
        exchange, key = self.way
        return {
            "exchange": exchange,
            "routing_key": key if exchange else self.message.queue,
            "priority": self.message.priority,
            "redelivered": self.deliveries > 1,
        }


_current: ContextVar[Request | None] = ContextVar("django_tasks_request", default=None)
_joining: ContextVar[bool] = ContextVar("django_tasks_joining", default=False)


def current_request() -> Request | None:
    """Return the call that is being answered here, or None outside of a task."""
    return _current.get()


def remember(handle: Any, request: Request | None = None) -> None:
    """Have a task, that which runs here unless another is given, keep in mind what it has sent."""
    request = _current.get() if request is None else request
    if request is not None:
        if request.trail is None:
            request.trail = Trail()
        request.trail.add(handle)


@contextmanager
def answering(request: Request) -> Iterator[Request]:
    """Make a call the current one for the block."""
    token = _current.set(request)
    try:
        yield request
    finally:
        _current.reset(token)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow waiting for another task's result inside a task, at the risk of a deadlock when all slots wait."""
    token = _joining.set(True)
    try:
        yield
    finally:
        _joining.reset(token)


def may_join() -> bool:
    """Tell whether waiting for another task is allowed here."""
    request = _current.get()
    return request is None or request.is_eager or _joining.get()


def request_for(delivery: Delivery, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Request:
    """Return the request of a delivery whose body was opened."""
    return Request(
        message=delivery.message,
        args=args,
        kwargs=kwargs,
        deliveries=delivery.deliveries,
        way=(delivery.exchange, delivery.routing_key),
    )
