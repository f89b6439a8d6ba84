"""What is unsafe about this site once others use it? Said by `manage.py check --deploy` and `manage.py tasks doctor`.

E151 messages are kept where no worker sees them.
W151 results are kept for ever.
W152 DEBUG is on.
W153 a lease is not renewed in time when a heartbeat or two fail.
W155 results are kept where the site does not see them.
W156 whoever can write to a broker on another machine decides what workers run.
W157 workers unpickle what was signed.
W158 there are keys, and nothing is encrypted with them.
W159 a certificate has expired, or soon will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004  # Django's own name for it
from django.db import Error as DatabaseError

from django_tasks import conf
from django_tasks.auth import certificates_ending
from django_tasks.backends.base import Broker
from django_tasks.connections import Connections, brokers, home, results
from django_tasks.database_fitness import examine
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import ConfigurationError, DjangoTasksError
from django_tasks.registry import tasks
from django_tasks.results.base import ResultStore
from django_tasks.routing import broker_for, queues_of
from django_tasks.serializers import SERIALIZERS

T = TypeVar("T", Broker, ResultStore)

SOON = timedelta(days=30)
"""How long before its end a certificate is worth a word."""
BEATS = 3
"""How many heartbeats a lease should outlast, so that two of them may fail."""


def deployment_wrong(databases: Sequence[str] = ()) -> Iterator[CheckMessage]:
    """Give what is unsafe about a site that goes live. A server is asked if a database may be, one of Django's if it is
    among those."""
    yield from settings_wrong()
    for broker in built(brokers):
        yield from _said(partial(diagnosed, broker), broker.database, databases)
    for store in built(results):
        yield from _said(store.diagnose, store.database, databases)
    with suppress(ConfigurationError):
        # Of workers and revocations, wherever messages and results are.
        yield from _said(partial(examine, home()), home(), databases)


def _said(diagnose: Callable[..., Diagnosis], database: str | None, databases: Sequence[str]) -> Sequence[CheckMessage]:
    ask = database in databases if database is not None else bool(databases)
    try:
        return diagnose(ask=ask).found
    except (DjangoTasksError, DatabaseError):
        # That it does not answer is not for a check of settings to say.
        return ()


def settings_wrong() -> Iterator[CheckMessage]:
    """Give what is unsafe about the settings, whatever the servers say."""
    keys = conf.get()
    yield from time_limits_wrong()
    if settings.DEBUG:
        yield Warning(
            "DEBUG is on: a worker then remembers the queries of each task, and whoever sees an error page sees the "
            "settings.",
            hint="Set DEBUG = False where the site and its workers run for others.",
            id="django_tasks.W152",
        )
    if keys.lease < BEATS * keys.heartbeat:
        yield Warning(
            f"LEASE is {keys.lease:g} s and HEARTBEAT {keys.heartbeat:g} s: a worker that is late once or twice loses "
            "what it runs, which then runs twice.",
            hint=f"Let LEASE be {BEATS} times HEARTBEAT at least, and better six times.",
            id="django_tasks.W153",
        )
    if any(SERIALIZERS[name].signed_only for name in keys.accept):
        yield Warning(
            "ACCEPT names pickle: whoever knows SECRET_KEY, or one of its fallbacks, can run any code in workers.",
            hint="Let the tasks that need it take plain values, and send them as JSON.",
            id="django_tasks.W157",
        )
    yield from _secrets_wrong()
    for broker in built(brokers):
        if broker.private and not broker.eager:
            yield Error(
                f"The broker {broker.alias!r} keeps messages in the process that sends them: no worker gets any, and "
                "all are gone when it ends.",
                hint='Use the broker "database", "redis" or "amqp".',
                id="django_tasks.E151",
            )
        if broker.database is None and not keys.require_signature and _is_remote(broker):
            yield Warning(
                f"The broker {broker.alias!r} is on another machine, and messages need not be signed: whoever can "
                "write to it can have workers run any task.",
                hint="Set SIGN to True everywhere, and REQUIRE_SIGNATURE once what was sent before has run.",
                id="django_tasks.W156",
            )
    for store in built(results):
        yield from _store_wrong(store)


def _secrets_wrong() -> Iterator[CheckMessage]:
    keys = conf.get()
    if keys.encryption_keys and not (keys.encrypt or any(task.options.encrypt for task in tasks.values())):
        yield Warning(
            "ENCRYPTION_KEYS has keys, and neither ENCRYPT nor any task says that something is to be encrypted.",
            hint="Set ENCRYPT to True once every worker has the keys.",
            id="django_tasks.W158",
        )
    now = datetime.now(UTC)
    for name, ends in dict.fromkeys(certificates_ending(now + SOON)):
        yield Warning(
            f"The certificate {name!r} {'expired' if ends <= now else 'expires'} at {ends:%Y-%m-%d %H:%M} UTC: workers "
            "refuse what it signed from then on, what waits by then included.",
            hint="Put a new one into SECURITY_CERT_STORE of all workers, then sign with its key, and restart both.",
            id="django_tasks.W159",
        )


def _is_remote(broker: Broker) -> bool:
    try:
        return diagnosed(broker, ask=False).remote
    except DjangoTasksError:
        # That it cannot say so is not for a check of settings to tell.
        return False


def _store_wrong(store: ResultStore) -> Iterator[CheckMessage]:
    if store.private and not all(broker.eager or broker.private for broker in built(brokers)):
        yield Warning(
            f"The store {store.alias!r} keeps results in the process that ran the task: the site never sees them, and "
            "`get` waits for ever.",
            hint='Use the store "database" or "redis", or "dummy" if nobody asks for results.',
            id="django_tasks.W155",
        )
    if store.expires is None:
        yield Warning(
            f"The store {store.alias!r} keeps results for ever (EXPIRES is None): it grows until its disk or memory is "
            "full, and keeps the arguments of failed tasks as long.",
            hint="Set EXPIRES in its OPTIONS to a timedelta.",
            id="django_tasks.W151",
        )


def built(connections: Connections[T]) -> Iterator[T]:
    """Give those that can be made; of the others the checks tell."""
    for alias in connections:
        with suppress(ConfigurationError):
            yield connections[alias]


def diagnosed(broker: Broker, *, ask: bool = True) -> Diagnosis:
    """Return what a broker says of itself and of the queues that the settings give to it."""
    return broker.diagnose(queues_of(broker.alias), ask=ask)


def time_limits_wrong() -> Iterator[CheckMessage]:
    """Give the tasks that may run for longer than the broker of their queue lets a worker hold a message."""
    for name, task in tasks.items():
        limit = task.options.time_limit or conf.get().time_limit
        if limit is None:
            continue
        try:
            broker = brokers[broker_for(task.options.queue or conf.get().default_queue)]
        except ConfigurationError:
            continue  # said by check_backends
        if limit > broker.longest_hold:
            yield Warning(
                f"{name} may run for {limit:g} seconds, and the broker {broker.alias!r} takes a message from its "
                f"worker after {broker.longest_hold:g}: the task would be run again, and given up in the end.",
                hint="Raise that time on the server, and say so (RabbitMQ: consumer_timeout and CONSUMER_TIMEOUT; "
                "kombu's other transports: visibility_timeout), or lower the limit.",
                id="django_tasks.W001",
            )
