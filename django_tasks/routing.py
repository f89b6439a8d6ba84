"""Which queue, through which exchange, and which broker does a message go to?"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django_tasks import conf
from django_tasks.conf import ROUTE_KEYS
from django_tasks.exceptions import ConfigurationError
from django_tasks.message import PRIORITY_MAX, PRIORITY_MIN, QUEUE_LENGTH

KEY_BYTES = 255
"""What AMQP has room for in a routing key."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call goes."""

    queue: str
    priority: int | None = None
    """What the call or its route says; None when neither does."""
    exchange: str | None = None
    """Through this exchange, and not straight to the queue."""
    routing_key: str | None = None


def place_for(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    task: Any = None,
    declared: str | None = None,
) -> Place:
    """Return where a call goes: where the caller says, else its route, else the task, else the default queue.

    `ROUTES` is one step or a list of them, and the first that has a route for the call gives it. A step is a dict, from
    a task's exact name, a pattern with `*` and `?` or a compiled regular expression to a route, where an exact name
    wins and then the first pattern that fits; or a function of Celery's signature that returns a route or None. A
    route is the name of a queue, or a dict of queue, exchange, routing_key and priority.
    """
    settings = conf.get()
    said = {key: options[key] for key in ROUTE_KEYS if options.get(key) not in (None, "")}
    if settings.routes:
        route = _route(name, args, kwargs, options, task)
        if "queue" in said or "exchange" in said:
            # Half of one address and half of another would be none.
            route = {key: value for key, value in route.items() if key == "priority"}
        said = {**route, **said}
    exchange, key = said.get("exchange"), said.get("routing_key")
    queue = said.get("queue")
    if queue is None and exchange is not None:
        queue = _bound_to(exchange)
    queue = checked_queue(queue or declared or settings.default_queue)
    entry = settings.queues.get(queue, {})
    if exchange is None and (key is not None or entry.get("EXCHANGE_TYPE") == "fanout"):
        exchange = entry.get("EXCHANGE")
        if exchange is None:
            raise ConfigurationError(
                f"routing_key={key!r} leads nowhere: the queue {queue!r} has no EXCHANGE in {conf.SETTING}['QUEUES']."
            )
    if exchange is None:
        return Place(queue, said.get("priority"))
    if key is None and entry.get("EXCHANGE") == exchange:
        key = next(iter(conf.in_order(entry.get("ROUTING_KEY", queue))), "")
    return Place(queue, said.get("priority"), checked_queue(exchange, "an exchange"), _checked_key(key or ""))


def is_fixed(routes: Any) -> bool:
    """Tell whether ROUTES give each task one route, whatever its arguments and options."""
    return all(isinstance(step, Mapping) for step in conf.in_order(routes))


def _route(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Any, task: Any) -> Mapping[str, Any]:
    for step in conf.in_order(conf.get().routes):
        if isinstance(step, Mapping):
            route = _looked_up(name, step)
        else:
            route = step(name, args, kwargs, options, task=task)
            if route is not None and (wanted := conf.route_fault(route)):
                where = getattr(step, "__qualname__", repr(step))
                raise ConfigurationError(f"The route of {name} by {where} must be {wanted}, not {route!r}.")
        if route is not None:
            return {"queue": route} if isinstance(route, str) else dict(route)
    return {}


def _looked_up(name: str, routes: Mapping[Any, Any]) -> Any:
    if name in routes:
        return routes[name]
    return next((route for pattern, route in routes.items() if _fits(name, pattern)), None)


def _fits(name: str, pattern: str | re.Pattern[str]) -> bool:
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern.match(name) is not None


def _bound_to(exchange: str) -> str:
    """Return the first queue of the settings that is bound to an exchange: its broker is the one that has it."""
    for queue, entry in conf.get().queues.items():
        if entry.get("EXCHANGE") == exchange:
            return queue
    raise ConfigurationError(
        f"No queue in {conf.SETTING}['QUEUES'] has the EXCHANGE {exchange!r}: nothing says which broker has it. "
        "Name a queue of that broker as well."
    )


def _checked_key(key: str) -> str:
    if len(key.encode("utf-8", "surrogatepass")) > KEY_BYTES:
        raise ConfigurationError(f"routing_key={key[:40]!r}... is too long: it has {KEY_BYTES} bytes at most.")
    return key


def checked_queue(name: str, what: str = "a queue") -> str:
    """Return a queue's name, or raise ConfigurationError when it cannot be one."""
    if not 0 < len(name) <= QUEUE_LENGTH or not name.isprintable():
        raise ConfigurationError(f"{name!r} cannot be {what}'s name: 1 to {QUEUE_LENGTH} printable characters.")
    return name


def broker_for(queue: str) -> str:
    """Return the alias of the broker that keeps a queue."""
    alias: str = conf.get().queues.get(queue, {}).get("BROKER", "default")
    return alias


def priority_for(queue: str, asked: int | None) -> int:
    """Return the priority of a call, a whole number from -100 to 100: the caller's or the task's, else the queue's."""
    priority = asked if asked is not None else conf.get().queues.get(queue, {}).get("PRIORITY", 0)
    if type(priority) is not int or not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise ConfigurationError(
            f"A priority is a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}; this one is {priority!r}."
        )
    return priority


def queues_of(broker: str) -> list[str]:
    """Return the queues that the settings give to a broker, the default queue included where it is there.

    Where a function routes to is known only when it does.
    """
    settings = conf.get()
    named = [queue for queue in settings.queues if broker_for(queue) == broker]
    for queue in [settings.default_queue, *_routed_to(settings.routes)]:
        if queue not in named and broker_for(queue) == broker:
            named.append(queue)
    return named


def _routed_to(routes: Any) -> Iterator[str]:
    for step in conf.in_order(routes):
        for route in step.values() if isinstance(step, Mapping) else ():
            queue = route if isinstance(route, str) else route.get("queue")
            if queue is not None:
                yield queue
