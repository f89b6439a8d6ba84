"""What do tests of pages and of the API find in the database, and how does it get there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings

from django_tasks import states
from django_tasks.connections import brokers, results
from django_tasks.execution import Site, execute
from django_tasks.message import Delivery
from django_tasks.models import TaskResult
from django_tasks.settlement import Settlement
from tests.vendors import ALIASES

WORKER = "worker@host"
LEASE = 30.0
NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</pre></textarea><svg/onload=alert(1)>",
    "{{ 7|add:7 }}{% debug %}",
    "&lt;b&gt;\u202e\u2028",
)


def strict_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware that forbids browsers all that stands in the page itself or comes from elsewhere."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["Content-Security-Policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        return response

    return middleware


def on_each_database(*, transaction: bool = False) -> pytest.MarkDecorator:
    """Run a test once for each vendor that may keep tasks; users and sessions stay in the default database."""
    return pytest.mark.parametrize(
        "alias",
        [
            pytest.param(
                alias,
                id=vendor,
                marks=pytest.mark.django_db(databases=sorted({"default", alias}), transaction=transaction),
            )
            for vendor, alias in ALIASES.items()
        ],
    )


def settings_for(alias: str, **more: Any) -> dict[str, Any]:
    """Return DJANGO_TASKS for tasks that are kept in a database."""
    entry = {"BACKEND": "database", "OPTIONS": {"USING": alias}}
    return {"BROKERS": {"default": entry}, "RESULTS": {"default": entry}, "QUEUES": {"default": {}, "mail": {}}, **more}


@contextmanager
def tasks_in(alias: str, **more: Any) -> Iterator[None]:
    with override_settings(DJANGO_TASKS=settings_for(alias, **more)):
        yield


def fetch(limit: int = 100) -> list[Delivery]:
    """Lease what is ready, as a worker does."""
    return brokers["default"].fetch(["default", "mail"], limit, lease=LEASE, consumer=WORKER)


def work(limit: int = 100) -> int:
    """Run what is ready, as a worker does; return how many tasks ran."""
    # Eager, or it would take the test's own transaction for one that a task left open.
    done = [(delivery, execute(delivery, Site(worker=WORKER, eager=True))) for delivery in fetch(limit)]
    Settlement(brokers["default"], results["default"], worker=WORKER, lease=LEASE).settle(done)
    return len(done)


def staff(*permissions: str, name: str = "operator") -> User:
    """Make a user of the admin with these permissions of ours."""
    user = User.objects.create_user(name, password="password", is_staff=True)
    found = Permission.objects.filter(content_type__app_label="django_tasks", codename__in=permissions)
    assert found.count() == len(permissions)
    user.user_permissions.set(found)
    return user


def client_of(*permissions: str, name: str = "operator") -> Client:
    """Return a client of a user of the admin with these permissions of ours."""
    client = Client()
    client.force_login(staff(*permissions, name=name))
    return client


def chief(name: str = "chief") -> User:
    return User.objects.create_superuser(name, password="password")


def result(alias: str, task_id: str, **fields: Any) -> TaskResult:
    """Write one result as a finished task leaves it."""
    now = datetime.now(UTC)
    fields = {
        "state": states.SUCCESS,
        "task": "shop.tasks.order",
        "queue": "default",
        "worker": WORKER,
        "attempts": 1,
        "runtime": 0.25,
        "created_at": now - timedelta(seconds=2),
        "started_at": now - timedelta(seconds=1),
        "ended_at": now,
        **fields,
    }
    return TaskResult.objects.using(alias).create(task_id=task_id, **fields)


def multiply(alias: str, model: Any, times: int, changes: dict[str, str]) -> None:
    """Let a table grow to twice its size, several times; `changes` gives columns their value in SQL, which may name
    the round as {n}."""
    connection = connections[alias]
    quote = connection.ops.quote_name
    names = [field.column for field in model._meta.concrete_fields if field.name != "id"]
    table = quote(model._meta.db_table)
    with connection.cursor() as cursor:
        for n in range(times):
            values = ", ".join(changes[name].format(n=n) if name in changes else quote(name) for name in names)
            cursor.execute(f"INSERT INTO {table} ({', '.join(map(quote, names))}) SELECT {values} FROM {table}")


def joined(alias: str, *parts: str) -> str:
    """Return SQL that joins texts."""
    return f"CONCAT({', '.join(parts)})" if connections[alias].vendor == "mysql" else " || ".join(parts)
