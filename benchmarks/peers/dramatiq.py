"""How does Dramatiq do it? Two processes of eight threads."""
# /// script
# requires-python = ">=3.11"
# dependencies = ["dramatiq[redis,rabbitmq]>=2.0", "django"]
#
# [tool.benchmarks]
# name = "Dramatiq"
# places = ["redis", "rabbitmq"]
# program = "dramatiq"
# worker = ["benchmarks.peers.dramatiq", "--processes", "2", "--threads", "8"]
# processes = 1
# bulk = false
# tasks = 8000
#
# [tool.benchmarks.settings]
# INSTALLED_APPS = []
# ///

from __future__ import annotations

import os

import dramatiq  # type: ignore[import-not-found]  # installed where this runs
from dramatiq.brokers.rabbitmq import RabbitmqBroker  # type: ignore[import-not-found]
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]

from benchmarks import ledger

_url = os.environ["BENCHMARKS_BROKER"]
dramatiq.set_broker(RedisBroker(url=_url) if _url.startswith("redis") else RabbitmqBroker(url=_url))


@dramatiq.actor  # type: ignore[untyped-decorator]
def noop() -> None:
    ledger.mark()


def enqueue(number: int) -> None:
    for _ in range(number):
        noop.send()
