"""Where do messages wait, where are results kept, and must messages be signed? The environment says.

TESTPROJECT_BROKER    database, unless it is redis or amqp
TESTPROJECT_RESULTS   database or redis; unless that is said, Redis keeps the results of what waits there, and the
                      database all others
TESTPROJECT_PREFIX    begins the names of keys in Redis and of queues in RabbitMQ, so that sites share a server
TESTPROJECT_SIGNED    1 has workers refuse what is not signed
DJANGO_TASKS_TEST_REDIS_URL, DJANGO_TASKS_TEST_AMQP_URL   where the servers are, if not on this machine
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

BROKERS = ("database", "redis", "amqp")
STORES = ("database", "redis")
VARIABLE, STORE_VARIABLE = "TESTPROJECT_BROKER", "TESTPROJECT_RESULTS"


def from_environment() -> dict[str, Any]:
    """Return the keys BROKERS and RESULTS of DJANGO_TASKS, and what is to be said of signatures."""
    prefix = os.environ.get("TESTPROJECT_PREFIX", "testproject")
    return backends(named(VARIABLE, BROKERS) or "database", prefix) | signatures()


def signatures() -> dict[str, Any]:
    """Return what DJANGO_TASKS is to say of signatures; nothing unless it is asked for."""
    return {"REQUIRE_SIGNATURE": True} if os.environ.get("TESTPROJECT_SIGNED") == "1" else {}


def named(variable: str, known: Sequence[str]) -> str:
    """Return what a variable says, or nothing; raises ValueError for what is not known."""
    word = os.environ.get(variable, "")
    if word not in ("", *known):
        raise ValueError(f"{variable} is {word!r}; it must be one of: {', '.join(known)}.")
    return word


def store_of(broker: str) -> str:
    """Return where the results are kept of what waits on a broker."""
    return named(STORE_VARIABLE, STORES) or ("redis" if broker == "redis" else "database")


def on(broker: str, prefix: str) -> dict[str, str]:
    """Return the environment of a site that is to use a broker, and the store that goes with it."""
    return {VARIABLE: broker, STORE_VARIABLE: store_of(broker), "TESTPROJECT_PREFIX": prefix}


def backends(broker: str, prefix: str, *, using: str = "default") -> dict[str, Any]:
    """Return BROKERS and RESULTS; a database among them is the one called `using`."""
    redis = os.environ.get("DJANGO_TASKS_TEST_REDIS_URL", "redis://127.0.0.1:6379")
    amqp = os.environ.get("DJANGO_TASKS_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
    entries: dict[str, dict[str, Any]] = {
        "database": {"BACKEND": "database", "OPTIONS": {"USING": using}},
        "redis": {"BACKEND": "redis", "LOCATION": redis, "OPTIONS": {"KEY_PREFIX": prefix}},
        "amqp": {"BACKEND": "amqp", "LOCATION": amqp, "OPTIONS": {"PREFIX": f"{prefix}."}},
    }
    return {"BROKERS": {"default": entries[broker]}, "RESULTS": {"default": entries[store_of(broker)]}}
