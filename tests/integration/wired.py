"""How does a test have a site whose broker is at the other end of a wire that it can cut, or make slow?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from django.db import connections
from django.test import override_settings

from django_tasks.connections import brokers, results
from tests import redises
from tests.proxies import routed
from tests.rabbit import Rabbit
from tests.settings import AMQP_URL, REDIS_URL
from tests.wires import Wire, wire_to


@contextmanager
def wired(kind: str) -> Iterator[Wire]:
    """Have messages on "redis", "postgres" or "rabbitmq", results on the first two too; give the wire that leads
    there."""
    with ExitStack() as stack:
        wire, entry = {"redis": _redis, "postgres": _postgres, "rabbitmq": _rabbitmq}[kind](stack)
        keys = {"BROKERS": {"default": entry}}
        if kind != "rabbitmq":
            keys["RESULTS"] = {"default": entry}
        stack.enter_context(override_settings(DJANGO_TASKS=keys))
        yield wire
        brokers.close()
        results.close()


def _redis(stack: ExitStack) -> tuple[Wire, dict[str, Any]]:
    wire, url = _through(stack, REDIS_URL)
    prefix = stack.enter_context(redises.own_prefix())
    return wire, {"BACKEND": "redis", "LOCATION": url, "OPTIONS": {"KEY_PREFIX": prefix}}


def _postgres(stack: ExitStack) -> tuple[Wire, dict[str, Any]]:
    server = connections["postgres"].settings_dict
    wire = stack.enter_context(wire_to(server["HOST"], int(server["PORT"] or 5432)))
    stack.enter_context(routed("postgres", wire.port))
    return wire, {"BACKEND": "database", "OPTIONS": {"USING": "postgres"}}


def _rabbitmq(stack: ExitStack) -> tuple[Wire, dict[str, Any]]:
    wire, url = _through(stack, AMQP_URL)
    rabbit = Rabbit()
    stack.callback(rabbit.close)
    rabbit.uses("default")
    return wire, {"BACKEND": "amqp", "LOCATION": url, "OPTIONS": rabbit.options}


def _through(stack: ExitStack, url: str) -> tuple[Wire, str]:
    parts = urlsplit(url)
    wire = stack.enter_context(wire_to(str(parts.hostname), parts.port or 0))
    account, at, _ = parts.netloc.rpartition("@")
    return wire, parts._replace(netloc=f"{account}{at}127.0.0.1:{wire.port}").geturl()
