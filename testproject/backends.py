"""Where do messages wait, and where are results kept? The environment says.

TESTPROJECT_BROKER   database, unless it is redis or amqp
TESTPROJECT_PREFIX   begins the names of keys in Redis and of queues in RabbitMQ, so that sites share a server
DJANGO_TASKS_TEST_REDIS_URL, DJANGO_TASKS_TEST_AMQP_URL   where the servers are, if not on this machine
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

BROKERS = ("database", "redis", "amqp")
VARIABLE = "TESTPROJECT_BROKER"


def from_environment() -> dict[str, Any]:
    """Return the keys BROKERS and RESULTS of DJANGO_TASKS."""
    prefix = os.environ.get("TESTPROJECT_PREFIX", "testproject")
    return backends(os.environ.get(VARIABLE) or "database", prefix)


def on(broker: str, prefix: str) -> dict[str, str]:
    """Return the environment of a site that is to use a broker."""
    return {VARIABLE: broker, "TESTPROJECT_PREFIX": prefix}


def backends(broker: str, prefix: str, *, using: str = "default") -> dict[str, Any]:
    """Return BROKERS and RESULTS: Redis keeps results as well, RabbitMQ leaves them to the database `using`."""
    database = {"BACKEND": "database", "OPTIONS": {"USING": using}}
    kept: Mapping[str, Any] = database
    match broker:
        case "database":
            chosen = database
        case "redis":
            url = os.environ.get("DJANGO_TASKS_TEST_REDIS_URL", "redis://127.0.0.1:6379")
            kept = chosen = {"BACKEND": "redis", "LOCATION": url, "OPTIONS": {"KEY_PREFIX": prefix}}
        case "amqp":
            url = os.environ.get("DJANGO_TASKS_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
            chosen = {"BACKEND": "amqp", "LOCATION": url, "OPTIONS": {"PREFIX": f"{prefix}."}}
        case _:
            raise ValueError(f"{VARIABLE} is {broker!r}; it must be one of: {', '.join(BROKERS)}.")
    return {"BROKERS": {"default": chosen}, "RESULTS": {"default": kept}}
