"""What do tests of a worker in their own process find ready?"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connections
from django.test import override_settings

from django_tasks.connections import brokers, results
from tests.integration.stage import FAULTY, FaultyBroker, FaultyStore, Recorder, stage


@pytest.fixture
def clean_stage() -> Iterator[None]:
    stage.clear()
    with override_settings(DJANGO_TASKS=FAULTY):
        yield
    stage.gate.set()


@pytest.fixture
def broker() -> FaultyBroker:
    found = brokers["default"]
    assert isinstance(found, FaultyBroker)
    return found


@pytest.fixture
def store() -> FaultyStore:
    found = results["default"]
    assert isinstance(found, FaultyStore)
    return found


@pytest.fixture
def refusing() -> Iterator[dict[str, int]]:
    """Have the worker's own connections refuse statements, each as often as said."""
    faults: dict[str, int] = {}

    def refuse(execute, sql, params, many, context):
        for pattern, times in faults.items():
            words = pattern.split(" .*")
            if times > 0 and all(word in sql for word in words):
                faults[pattern] -= 1
                raise OperationalError("the server has gone away")
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(refuse):
        yield faults
    assert not any(faults.values())


@pytest.fixture
def logged() -> Iterator[Recorder]:
    recorder = Recorder()
    root = logging.getLogger("django_tasks")
    root.addHandler(recorder)
    yield recorder
    root.removeHandler(recorder)
