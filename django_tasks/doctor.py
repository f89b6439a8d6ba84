"""What is unsafe about this site's queue: in the settings, on the servers, and in what waits there?

E100 a server does not answer.
W108 the workers may need more connections than the database takes.
W161 tasks wait, and no worker takes them.
W162 tasks have been waiting for long.
W163 a server has lost messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it
from django.db import Error as DatabaseError
from django.utils import timezone

from django_tasks import conf
from django_tasks.backends.base import Broker, QueueStats
from django_tasks.connections import brokers, has_outbox, home, outboxes, results
from django_tasks.database_fitness import examine
from django_tasks.deployment import built, diagnosed, settings_wrong
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import ConfigurationError, DjangoTasksError
from django_tasks.losses import recent
from django_tasks.models import WorkerNode
from django_tasks.routing import queues_of
from django_tasks.transactions import explain
from django_tasks.worker.presence import HEARD

LONG = 600.0
"""Seconds that a task which could be run may wait before it is worth a word."""

OWN_CONNECTIONS = 4
"""Of a worker beside those of its tasks: for its loop, its heart, and two that listen."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in one place."""

    names: tuple[str, ...]
    """What it is to the site: "broker default", "results default", ..."""
    diagnosis: Diagnosis
    answers: bool = True


def examined() -> list[Finding]:
    """Ask every server that the settings name, and look at what waits there; one that does not answer keeps nobody
    from asking the others. Raises ConfigurationError if the settings say what cannot be."""
    conf.get()
    found = _merged(_servers())
    told = Finding(("settings",), Diagnosis(conf.SETTING, found=tuple(settings_wrong())))
    silent = {name for finding in found if not finding.answers for name in finding.names}
    if WORKERS in silent:
        return [told, *found]
    answering = [broker for broker in built(brokers) if f"broker {broker.alias}" not in silent]
    try:
        alive = list(_alive())
        work = Diagnosis(_crew(alive), found=tuple(work_wrong(answering, alive)))
    except DatabaseError as error:
        unseen = _unseen(f"Which workers are there cannot be seen: {_told(error)}")
        work = Diagnosis("cannot be seen", found=(unseen,))
        return [told, *found, Finding(("work",), work, answers=False)]
    return [told, *(_crowded(finding, alive) for finding in found), Finding(("work",), work)]


# Servers

WORKERS = "workers and outbox"


def _servers() -> Iterator[Finding]:
    for alias in brokers:
        yield _asked(f"broker {alias}", partial(_broker, alias))
    for alias in results:
        yield _asked(f"results {alias}", partial(_store, alias))
    yield _asked(WORKERS, lambda: examine(home()))


def _broker(alias: str) -> Diagnosis:
    return diagnosed(brokers[alias])


def _store(alias: str) -> Diagnosis:
    return results[alias].diagnose()


def _asked(name: str, diagnose: Callable[[], Diagnosis]) -> Finding:
    what = "cannot be made"
    try:
        return Finding((name,), diagnose())
    except ConfigurationError as error:
        wrong: CheckMessage = Error(str(error), hint="Correct the settings.", id="django_tasks.E002")
    except (DjangoTasksError, DatabaseError) as error:
        what = "does not answer"
        wrong = Error(
            f"It does not answer: {_told(error)}",
            hint="Is the server up, and do its address, account and password in the settings hold from this machine?",
            id="django_tasks.E100",
        )
    return Finding((name,), Diagnosis(what, found=(wrong,)), answers=False)


def _told(error: Exception) -> str:
    return explain(home(), error) if isinstance(error, DatabaseError) else str(error)


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """Put together what is one server, so that it is told of once."""
    merged: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        told = finding.diagnosis
        key = (told.what, told.where) if told.where else (told.what, *(message.msg for message in told.found))
        before = merged.get(key)
        if before is None:
            merged[key] = finding
            continue
        new = [message for message in told.found if message not in before.diagnosis.found]
        together = replace(before.diagnosis, found=(*before.diagnosis.found, *new))
        merged[key] = replace(before, names=(*before.names, *finding.names), diagnosis=together)
    return list(merged.values())


def _crowded(finding: Finding, alive: Sequence[WorkerNode]) -> Finding:
    """Add to a database of workers that it takes too few connections, if so."""
    room = finding.diagnosis.connections
    if room is None or WORKERS not in finding.names:
        return finding
    planned = [conf.get().concurrency or os.cpu_count() or 1]
    needed = sum(OWN_CONNECTIONS + size for size in [worker.concurrency for worker in alive] or planned)
    if needed <= room:
        return finding
    who = "The live workers" if alive else "A worker as the settings describe it"
    message = Warning(
        f"{who} may need {needed} connections, beside those of the site; the database takes {room}. What comes too "
        "late is refused, and its task fails.",
        hint="Lower --concurrency, run fewer workers, raise max_connections, or pool connections.",
        id="django_tasks.W108",
    )
    return replace(finding, diagnosis=replace(finding.diagnosis, found=(*finding.diagnosis.found, message)))


# Work


def work_wrong(answering: Iterable[Broker], alive: Sequence[WorkerNode]) -> Iterator[CheckMessage]:
    """Give what waits in vain."""
    served = {(worker.broker, queue) for worker in alive for queue in worker.queues.split(",")}
    for broker in answering:
        yield from _lost(broker)
        for stats in _standing(broker, [] if broker.features.overview else queues_of(broker.alias)):
            if isinstance(stats, CheckMessage):
                yield stats
            elif stats.ready and (broker.alias, stats.queue) not in served:
                yield _unserved(stats, _queue(stats, broker), broker.alias)
            elif stats.oldest > LONG:
                yield _late(stats, _queue(stats, broker))
    for broker in filter(has_outbox, built(brokers)):
        for stats in _standing(outboxes[broker.alias], []):
            if isinstance(stats, CheckMessage):
                yield stats
            elif stats.oldest > LONG:
                yield _late(stats, f"in the outbox for the broker {broker.alias!r}")


def _lost(broker: Broker) -> Iterator[CheckMessage]:
    try:
        losses = list(recent(broker, queues_of(broker.alias), home()))
    except DjangoTasksError as error:
        yield _unseen(f"Whether the broker {broker.alias!r} has lost messages cannot be seen: {error}")
        return
    for loss in losses:
        yield Warning(
            str(loss),
            hint="Send anew what matters. Let the server keep what it is given: `appendonly yes`, a database that "
            "nobody flushes, and `min-replicas-to-write` where a replica may take over.",
            id="django_tasks.W163",
        )


def _standing(broker: Broker, queues: Sequence[str]) -> Sequence[QueueStats | CheckMessage]:
    try:
        return broker.stats(queues)
    except DjangoTasksError as error:
        return [_unseen(f"What waits for the broker {broker.alias!r} cannot be seen: {error}")]


def _unseen(what: str) -> CheckMessage:
    return Error(what, hint="Does the server answer, and is `manage.py migrate` done?", id="django_tasks.E100")


def _queue(stats: QueueStats, broker: Broker) -> str:
    return f"in the queue {stats.queue!r} of the broker {broker.alias!r}"


def _unserved(stats: QueueStats, where: str, alias: str) -> CheckMessage:
    option = "" if alias == "default" else f" --broker {alias}"
    return Warning(
        f"{_number(stats)} {where}{_since(stats)}, and no live worker takes from it.",
        hint=f"Run `manage.py runworker{option} --queues {stats.queue!r}`, or correct the route that leads there.",
        id="django_tasks.W161",
    )


def _late(stats: QueueStats, where: str) -> CheckMessage:
    return Warning(
        f"{_number(stats)} {where}{_since(stats)}: workers do not keep up, or are stuck.",
        hint="Look at what the workers run, in the admin or with USR1; add workers, or raise --concurrency.",
        id="django_tasks.W162",
    )


def _number(stats: QueueStats) -> str:
    return "1 task is ready" if stats.ready == 1 else f"{stats.ready} tasks are ready"


def _since(stats: QueueStats) -> str:
    return f", the oldest for {timedelta(seconds=int(stats.oldest))}" if stats.oldest >= 1 else ""


def _alive() -> Iterator[WorkerNode]:
    """Give the workers that have been heard of before their leases would have ended."""
    since = timezone.now() - max(HEARD, timedelta(seconds=conf.get().lease))
    running = (WorkerNode.Status.STARTING, WorkerNode.Status.RUNNING)
    yield from WorkerNode.objects.using(home()).filter(heartbeat_at__gte=since, status__in=running).order_by("name")


def _crew(alive: Sequence[WorkerNode]) -> str:
    return "1 live worker" if len(alive) == 1 else f"{len(alive) or 'no'} live workers"
