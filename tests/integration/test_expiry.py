"""By whose clock does a task expire, when that of its worker is an hour off?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.connections import brokers, results
from django_tasks.message import Message
from django_tasks.pools.solo import SoloPool
from django_tasks.serializers import encode_body
from django_tasks.testing.contracts.harness import ids, samples
from tests import redises
from tests.integration.stage import build, note, stage
from tests.settings import REDIS_URL

HOUR = 3600.0

pytestmark = pytest.mark.django_db(databases=["default", "postgres", "mariadb"], transaction=True)


@pytest.fixture(params=["redis", "postgres", "mariadb"])
def entry(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Give the settings of a broker whose server has a clock of its own."""
    stage.clear()
    with redises.own_prefix() as prefix:
        entry: dict[str, Any] = {"BACKEND": "database", "OPTIONS": {"USING": request.param}}
        if request.param == "redis":
            entry = {"BACKEND": "redis", "LOCATION": REDIS_URL, "OPTIONS": {"KEY_PREFIX": prefix}}
        with override_settings(DJANGO_TASKS={"BROKERS": {"default": entry}}):
            yield entry
            brokers.close()


def calls(expires: timedelta) -> list[Message]:
    moment = datetime.now(UTC) + expires
    return [replace(one, task=note.name, body=encode_body((), {}, {}), expires=moment) for one in samples(2)]


@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_task_expires_by_the_clock_of_the_server_that_kept_it(entry: dict[str, Any], off: float):
    fresh, late = calls(timedelta(minutes=30)), calls(timedelta(minutes=-30))
    brokers["default"].publish([*fresh, *late])

    def wrong() -> float:
        return time.time() + off

    broker: Broker = type(brokers["default"])("default", entry, clock=wrong)
    build(SoloPool, broker=broker, clock=wrong, burst=True).run()
    ended = {task_id: result.state for task_id, result in results["default"].get(ids([*fresh, *late])).items()}
    assert ended == dict.fromkeys(ids(fresh), states.SUCCESS) | dict.fromkeys(ids(late), states.REVOKED)
    assert sorted(stage.begun) == sorted(ids(fresh))


def test_a_clock_that_is_right_is_left_alone(entry: dict[str, Any]):
    """What the answer took on its way is no difference between clocks."""
    brokers["default"].publish(samples(3))
    found = brokers["default"].fetch(["default"], 3, lease=30.0, consumer="w")
    assert brokers["default"].ack(found) == found
    assert all(abs(one.ahead) < 1.0 for one in found)
