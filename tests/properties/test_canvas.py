"""Does any workflow end as its direct evaluation does, whatever is done twice on the way?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from django_tasks import states
from django_tasks.connections import brokers
from tests import trees
from tests.canvas_tasks import collect, fail
from tests.integration.stage import FAULTY, FaultyBroker, burst
from tests.trees import Failed, Leaf, Tree, evaluated, grown

pytestmark = pytest.mark.django_db(transaction=True)

workflow = partial(trees.workflow, tasks=trees.Tasks(collect, fail, collect))


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with override_settings(DJANGO_TASKS=FAULTY):
        yield


def any_tree(*, failing: bool) -> st.SearchStrategy[Tree | Leaf]:
    # Its random numbers are drawn by Hypothesis, so that it makes small what fails.
    return st.randoms(use_true_random=False).map(partial(grown, failing=failing))


@settings(max_examples=60, deadline=None)
@given(any_tree(failing=False), st.integers(0, 2**16))
def test_a_workflow_equals_its_direct_evaluation(tree: Tree | Leaf, seed: int):
    expected = evaluated(tree)
    assert workflow(tree).apply().get() == expected
    assert value_on_workers(tree, seed) == expected


@settings(max_examples=60, deadline=None)
@given(any_tree(failing=True), st.integers(0, 2**16))
def test_a_workflow_fails_exactly_when_a_leaf_does(tree: Tree | Leaf, seed: int):
    try:
        expected = evaluated(tree)
    except Failed:
        expected = Failed
    if expected is not Failed:
        assert value_on_workers(tree, seed) == expected
        return
    with pytest.raises(Exception, match="on purpose"):
        value_on_workers(tree, seed)


def value_on_workers(tree: Tree | Leaf, seed: int) -> Any:
    """Return what a worker makes of it that settles a third of its batches twice, as after a crash."""
    broker = brokers["default"]
    assert isinstance(broker, FaultyBroker)
    result = workflow(tree).apply_async()
    broker.faults.before["ack"] = random.Random(seed).randrange(4)
    burst()
    broker.faults.before.clear()
    handles = result._leaves if hasattr(result, "_leaves") else [result]
    assert all(handle.state in states.FINAL for handle in handles), "nothing stays PENDING"
    return result.get(0)
