"""Which queue and which broker does a message go to?"""

from __future__ import annotations

import fnmatch

from django_tasks import conf
from django_tasks.exceptions import ConfigurationError
from django_tasks.message import PRIORITY_MAX, PRIORITY_MIN, QUEUE_LENGTH


def queue_for(task: str, asked: str | None, declared: str | None) -> str:
    """Return the queue of a call: the caller's, else the route's, else the task's, else the default one.

    `ROUTES` maps a task's exact name, or a pattern with `*` and `?`, to a queue; an exact name wins, then the first
    pattern that fits.
    """
    if asked:
        return checked_queue(asked)
    settings = conf.get()
    routed = settings.routes.get(task)
    if routed is None and settings.routes:
        routed = next((queue for glob, queue in settings.routes.items() if fnmatch.fnmatchcase(task, glob)), None)
    return checked_queue(routed or declared or settings.default_queue)


def checked_queue(queue: str) -> str:
    """Return a queue's name, or raise ConfigurationError when it cannot be one."""
    if not 0 < len(queue) <= QUEUE_LENGTH or not queue.isprintable():
        raise ConfigurationError(f"{queue!r} cannot be a queue's name: 1 to {QUEUE_LENGTH} printable characters.")
    return queue


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
    """Return the queues that the settings give to a broker, the default queue included where it is there."""
    settings = conf.get()
    named = [queue for queue in settings.queues if broker_for(queue) == broker]
    for queue in [settings.default_queue, *settings.routes.values()]:
        if queue not in named and broker_for(queue) == broker:
            named.append(queue)
    return named
