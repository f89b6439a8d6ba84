"""Do encrypted calls run on every broker, and is nothing lost where a worker lacks the key?"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from django_tasks import AsyncResult, actions, states
from django_tasks.connections import brokers, results
from django_tasks.message import Delivery
from django_tasks.protocol import dump_message
from testproject.backends import BROKERS
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.vendors import each_vendor

pytestmark = [each_vendor("sqlite", transaction=True), pytest.mark.brokers(*BROKERS, reason="on every broker anyway")]

CANARY = "canary-7718"
KEY = base64.urlsafe_b64encode(os.urandom(32)).decode()


@pytest.fixture
def encrypting(site: Site) -> Iterator[Site]:
    """Have this process and its workers encrypt, and sign what they have encrypted."""
    site.settings |= {"ENCRYPT": True, "ENCRYPTION_KEYS": [KEY], "REQUIRE_SIGNATURE": True}
    with override_settings(DJANGO_TASKS={**site.settings, **site.backends}):
        yield site
        brokers.close()


def test_calls_run_and_neither_their_arguments_nor_their_results_can_be_read(encrypting: Site):
    with transaction.atomic(using=encrypting.alias):
        handles: list[AsyncResult[Any]] = [
            tasks.odd_names.apply_async(kwargs={"name": CANARY}, compression="zlib"),
            tasks.odd_names.apply_async(kwargs={"name": CANARY}, enqueue="transaction"),
            tasks.mutate.delay([1, 2]),
        ]
    waiting: list[Delivery] = []

    def some_came() -> bool:
        waiting.extend(encrypting.broker.fetch(["default"], 9, lease=600.0, consumer="test"))
        return bool(waiting)

    encrypting.until(some_came, "calls are in their queue")
    assert all(CANARY not in dump_message(delivery.message) for delivery in waiting)
    encrypting.broker.nack(waiting)
    worker = encrypting.worker()
    assert [handle.get(60) for handle in handles] == [{"name": CANARY}, {"name": CANARY}, [1, 2]]
    found = results["default"].get([handle.id for handle in handles])
    assert all(CANARY not in repr(result) for result in found.values())
    assert worker.stop() == 0
    assert CANARY not in worker.output


def test_what_a_worker_cannot_decrypt_fails_and_runs_when_another_can(encrypting: Site):
    handle = tasks.odd_names.delay(name=CANARY)
    poor = encrypting.worker(ENCRYPTION_KEYS=[], ENCRYPT=False)
    assert encrypting.ended(handle) == [states.FAILURE]
    failure = handle.fetch().failure
    assert failure is not None
    assert (failure.type, "has no DJANGO_TASKS['ENCRYPTION_KEYS']" in failure.message) == ("DecryptionError", True)
    assert poor.stop() == 0
    encrypting.worker()
    assert [answer.code for answer in actions.retry([handle.id]).answers] == ["queued"]
    encrypting.until(lambda: AsyncResult[Any](handle.id).state == states.SUCCESS, "it has run")
    assert AsyncResult[Any](handle.id).get(0) == {"name": CANARY}
