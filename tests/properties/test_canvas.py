"""Does any workflow end as its direct evaluation does, whatever is done twice on the way?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from django_tasks import chain, chord, group, states
from django_tasks.canvas.signature import Signature
from django_tasks.connections import brokers
from tests.canvas_tasks import collect, fail
from tests.integration.stage import FAULTY, FaultyBroker, burst

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with override_settings(DJANGO_TASKS=FAULTY):
        yield


@dataclass(frozen=True)
class Leaf:
    name: str
    fails: bool = False


@dataclass(frozen=True)
class Tree:
    kind: str
    nodes: tuple[Any, ...]


class Failed(Exception):
    """A leaf failed on the way."""


def trees(failing: bool) -> st.SearchStrategy[Any]:
    fails = st.sampled_from([False, False, False, True]) if failing else st.just(False)
    leaves = st.builds(Leaf, st.sampled_from("abcdef"), fails)
    return st.recursive(
        leaves,
        lambda inner: st.builds(
            Tree, st.sampled_from(["chain", "group", "chord"]), st.lists(inner, min_size=1, max_size=4).map(tuple)
        ),
        max_leaves=12,
    )


def node_of(tree: Any) -> Signature:
    """Return the workflow of a tree."""
    if isinstance(tree, Leaf):
        return fail.s() if tree.fails else collect.s(tree.name)
    nodes = [node_of(each) for each in tree.nodes]
    if tree.kind == "chain":
        # Not composed by "|", which makes other nodes of it: that is what planning makes of it too.
        return chain._of(nodes)
    if tree.kind == "group":
        return group(nodes)
    return chord(nodes, collect.s("body"))


def evaluated(tree: Any, given: tuple[Any, ...]) -> Any:
    """Return what a tree ends with, by calling its tasks here."""
    if isinstance(tree, Leaf):
        if tree.fails:
            raise Failed
        return [*given, tree.name]
    if tree.kind == "chain":
        value, args = None, given
        for each in tree.nodes:
            value = evaluated(each, args)
            args = (value,)
        return value
    values = flat(tree.nodes, given)
    return values if tree.kind == "group" else [values, "body"]


def flat(nodes: tuple[Any, ...], given: tuple[Any, ...]) -> list[Any]:
    """Return the values of members: those of a group among them stand in its place."""
    values: list[Any] = []
    for each in nodes:
        value = evaluated(each, given)
        values += value if isinstance(each, Tree) and each.kind == "group" else [value]
    return values


@settings(max_examples=60, deadline=None)
@given(trees(failing=False), st.integers(0, 2**16))
def test_a_workflow_equals_its_direct_evaluation(tree: Any, seed: int):
    expected = evaluated(tree, ())
    assert node_of(tree).apply().get() == expected
    assert value_on_workers(tree, seed) == expected


@settings(max_examples=60, deadline=None)
@given(trees(failing=True), st.integers(0, 2**16))
def test_a_workflow_fails_exactly_when_a_leaf_does(tree: Any, seed: int):
    try:
        expected = evaluated(tree, ())
    except Failed:
        expected = Failed
    if expected is not Failed:
        assert value_on_workers(tree, seed) == expected
        return
    with pytest.raises(Exception, match="on purpose"):
        value_on_workers(tree, seed)


def value_on_workers(tree: Any, seed: int) -> Any:
    """Return what a worker makes of it that settles a third of its batches twice, as after a crash."""
    broker = brokers["default"]
    assert isinstance(broker, FaultyBroker)
    result = node_of(tree).apply_async()
    broker.faults.before["ack"] = random.Random(seed).randrange(4)
    burst()
    broker.faults.before.clear()
    handles = result._leaves if hasattr(result, "_leaves") else [result]
    assert all(handle.state in states.FINAL for handle in handles), "nothing stays PENDING"
    return result.get(0)
