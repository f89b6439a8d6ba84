"""Which workflows are tried at random, and what should come of each?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django_tasks import Task, chain, chord, group
from django_tasks.canvas.signature import Signature

KINDS = ("chain", "group", "chord")
SIZE = 16
"""Nodes of a tree, at most: leaves and what holds them."""
WIDE = 4
"""Nodes that one holds, at most."""
BODY = "body"
"""What the body of each chord is given beside what it follows."""


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    fails: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    kind: str
    nodes: tuple[Tree | Leaf, ...]


class Failed(Exception):
    """A leaf failed on the way."""


class Tasks(NamedTuple):
    """The tasks that a workflow is made of. All but `fail` return the list of what they are given."""

    collect: Task[..., Any]
    fail: Task[..., Any]
    body: Task[..., Any]


def grown(rng: random.Random, *, failing: bool, size: int = SIZE) -> Tree | Leaf:
    """Return a tree; with `failing` a quarter of its leaves fail."""
    if size == 1 or not rng.randrange(6):
        return Leaf(rng.choice("abcdef"), failing and rng.randrange(4) == 3)
    left = size - 1
    kind, many = rng.choice(KINDS), rng.randint(1, min(WIDE, left))
    nodes = []
    for behind in range(many - 1, -1, -1):
        share = rng.randint(1, left - behind)
        nodes.append(grown(rng, failing=failing, size=share))
        left -= share
    return Tree(kind, tuple(nodes))


def workflow(tree: Tree | Leaf, tasks: Tasks) -> Signature:
    """Return the workflow of a tree."""
    if isinstance(tree, Leaf):
        return tasks.fail.s() if tree.fails else tasks.collect.s(tree.name)
    nodes = [workflow(each, tasks) for each in tree.nodes]
    if tree.kind == "chain":
        # Not composed by "|", which makes other nodes of it: that is what planning makes of it too.
        return chain._of(nodes)
    if tree.kind == "group":
        return group(nodes)
    return chord(nodes, tasks.body.s(BODY))


def evaluated(tree: Tree | Leaf, given: tuple[Any, ...] = ()) -> Any:
    """Return what a tree ends with, by doing here what its tasks do; raises Failed."""
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
    values = _flat(tree.nodes, given)
    return values if tree.kind == "group" else [values, BODY]


def _flat(nodes: Sequence[Tree | Leaf], given: tuple[Any, ...]) -> list[Any]:
    """Return the values of members: those of a group among them stand in its place."""
    values: list[Any] = []
    for each in nodes:
        value = evaluated(each, given)
        values += value if isinstance(each, Tree) and each.kind == "group" else [value]
    return values
