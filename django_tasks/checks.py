"""What is wrong with the settings? Said by `manage.py check`.

E001 DJANGO_TASKS says something that cannot be.
E002 a backend cannot be built.
E003 two distributions installed this import name.
E004 a queue is to be bound to an exchange, by a broker that has none.
E005 a key or a certificate cannot be read.
W001 a task may run for longer than its broker lets a worker hold it.
E1xx, W1xx come from the brokers and stores themselves, and with --deploy from `deployment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error

from django_tasks import conf
from django_tasks.answers import Answers
from django_tasks.auth import certificate_faults
from django_tasks.backends.base import Broker
from django_tasks.connections import brokers, results
from django_tasks.deployment import deployment_wrong, time_limits_wrong
from django_tasks.encryption import prepare
from django_tasks.exceptions import ConfigurationError
from django_tasks.results.base import ResultStore

DISTRIBUTION = "django-tasks-queue"
CLASHING = "django-tasks"
"""The backport of Django's own tasks framework."""


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check each key of DJANGO_TASKS."""
    given = getattr(settings, conf.SETTING, {})
    return [
        Error(problem.message, hint=problem.hint or None, id="django_tasks.E001") for problem in conf.problems(given)
    ]


def check_backends(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Build each broker and store, and ask it what it finds."""
    if _unusable():
        return []
    with _answers(databases, first=True).remembered():
        return _backends_wrong(databases or ())


def _backends_wrong(databases: Sequence[str]) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for connections in (brokers, results):
        for alias in connections:
            try:
                found += connections[alias].check(databases)
            except ConfigurationError as error:
                found.append(Error(str(error), id="django_tasks.E002"))
            else:
                found += _stray_exchanges(connections[alias])
    return found


def check_keys(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Read the keys and certificates that bodies are encrypted, signed and verified with."""
    if _unusable():
        return []
    # A worker asks this before it forks: its children then share what the library takes.
    prepare()
    return [Error(fault, id="django_tasks.E005") for fault in certificate_faults()]


def check_time_limits(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Find tasks that may run for longer than the broker of their queue lets a worker hold them."""
    if _unusable():
        return []
    return list(time_limits_wrong())


def _unusable() -> bool:
    """Tell whether the settings say what cannot be, so that nothing can be built from them."""
    return any(conf.problems(getattr(settings, conf.SETTING, {})))


def _stray_exchanges(backend: Broker | ResultStore) -> list[CheckMessage]:
    if not isinstance(backend, Broker) or backend.features.exchanges or backend.eager:
        return []
    return [
        Error(
            f"{conf.SETTING}['QUEUES'][{queue!r}] has {min(conf.EXCHANGE_KEYS & entry.keys())}, "
            f"and its broker {backend.alias!r} has no exchanges.",
            hint="Keep the queue on a broker with the BACKEND 'amqp', on a RabbitMQ.",
            id="django_tasks.E004",
        )
        for queue, entry in backend.queues.items()
        if conf.EXCHANGE_KEYS & entry.keys()
    ]


def check_deployment(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Look for what is unsafe once others use the site; said with `--deploy` alone.

    What the other checks were told by servers is not asked again.
    """
    if _unusable():
        return []
    with _answers(databases).remembered():
        known = [*_backends_wrong(databases or ()), *check_time_limits(app_configs)]
        found: list[CheckMessage] = []
        for message in deployment_wrong(databases or ()):
            if message not in known and message not in found:
                found.append(message)
    return found


_run: tuple[object, Answers] = (None, Answers())
"""The databases that the last run of the checks named, and what servers told it."""


def _answers(databases: Sequence[str] | None, *, first: bool = False) -> Answers:
    """Return what servers told this run: Django gives the same list to each check, those for deployment last."""
    global _run
    if first or databases is None or _run[0] is not databases:
        _run = databases, Answers()
    return _run[1]


def check_import_name(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Find another distribution that put its files into this package's folder."""
    try:
        other = distribution(CLASHING)
    except PackageNotFoundError:
        return []
    return [
        Error(
            f"{other.name} {other.version} installs the package django_tasks too, and its files are mixed with ours.",
            hint=f"Uninstall {CLASHING} and {DISTRIBUTION}, then install {DISTRIBUTION} again.",
            id="django_tasks.E003",
        )
    ]
