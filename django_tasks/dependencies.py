"""What did a task send, and what came of all of it? A trail, kept with its result, and the graph that it makes."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from graphlib import TopologicalSorter
from typing import Any, TextIO

from django_tasks.exceptions import IncompleteStream

CHILDREN = 1_000
"""How many ids are kept, at most, of what one run sent and of what followed it."""

Form = Sequence[Any]
"""What `as_tuple` gives: an id and that of what came before, and the forms of the members of a group."""


class Trail:
    """What was sent, in order, in the form that `as_tuple` has; nothing of calls whose result is ignored, since nobody
    would ever know what came of them."""

    __slots__ = ("forms", "left")

    def __init__(self) -> None:
        self.forms: list[Form] = []
        self.left = CHILDREN

    def add(self, handle: Any) -> None:
        """Add what begins first of what a handle stands for: the first step of a chain; of a chord, header and body."""
        for form in _begun(handle) if self.left > 0 else ():
            if self.left <= 0:
                return
            head, members = form
            if members is not None:
                # A group counts with its members; those that there is no room for are left out.
                members = members[: self.left - 1]
                self.left -= len(members)
            self.left -= 1
            self.forms.append((head, members))

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.forms, separators=(",", ":"))


def forms_from(text: str) -> list[Form]:
    """Return the forms in what `Trail.text` gave; none of what is something else."""
    try:
        found = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return []
    return found[:CHILDREN] if isinstance(found, list) else []


def _begun(handle: Any) -> Iterator[Form]:
    """Give the forms of what begins when that is sent of which a handle stands at the end."""
    line = [handle]
    while (before := line[-1].parent) is not None:
        line.append(before)
    for each in reversed(line):
        if _members(each) is None:
            # What comes after a task is told with the result of that.
            if not each.ignored:
                yield _end(each)
            return
        if not any(leaf.ignored for leaf in each._leaves):
            yield _end(each)
        for member in each.results:
            # A member is known by its end: how it begins stands beside the group.
            if member.parent is not None or _members(member) is not None:
                yield from _begun(member)
        # No task sends what comes after a group, so it is told here too.


def _members(handle: Any) -> list[Any] | None:
    """Return the members that a handle has, if it is that of a group."""
    found: list[Any] | None = getattr(handle, "results", None)
    return found


def _end(handle: Any) -> Form:
    members = _members(handle)
    return (handle.id, None), None if members is None else [_end(member) for member in members]


def walk(handle: Any, learn: Callable[[Sequence[Any]], object], *, intermediate: bool) -> Iterator[tuple[Any, Any]]:
    """Give each handle with that of what sent it, None for the first, breadth first; one that is met again is given
    with its other sender, and its own children once.

    `learn` is given all children of a handle at once, to read what is known of them in one look. Raises
    IncompleteStream at a task that has not ended, unless `intermediate`.
    """
    waiting: deque[tuple[Any, Any]] = deque([(None, handle)])
    seen: set[str] = set()
    while waiting:
        parent, node = waiting.popleft()
        yield parent, node
        if node.id in seen:
            continue
        seen.add(node.id)
        if node.ready():
            children = node.children
            learn(children)
            waiting.extend((node, child) for child in children)
        elif not intermediate:
            raise IncompleteStream(f"{node.id} has not ended; ask again when it has, or with intermediate=True.")


def once(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Give of pairs of a sender and what it sent the first for each that was sent."""
    seen: set[str] = set()
    for parent, node in pairs:
        if node.id not in seen:
            seen.add(node.id)
            yield parent, node


class DependencyGraph:
    """A directed graph without loops, of anything that has an `id`, or is its own: what sent what, or needs what.

    Its repr is a list of all, each with what hangs on it below; `to_dot` is for Graphviz.
    """

    def __init__(self, name: str = "dependencies") -> None:
        self.name = name
        self._nodes: dict[Any, Any] = {}
        self._adjacent: dict[Any, list[Any]] = {}

    def add_arc(self, node: Any) -> None:
        """Add something, if it is not there."""
        self._nodes.setdefault(_key(node), node)
        self._adjacent.setdefault(_key(node), [])

    def add_edge(self, node: Any, other: Any) -> None:
        """Say that something leads to another; each is added if it is not there."""
        self.add_arc(node)
        self.add_arc(other)
        if _key(other) not in self._adjacent[_key(node)]:
            self._adjacent[_key(node)].append(_key(other))

    def edges(self) -> list[Any]:
        """Return all that lead to others."""
        return [self._nodes[key] for key, adjacent in self._adjacent.items() if adjacent]

    def items(self) -> Iterator[tuple[Any, list[Any]]]:
        """Give each with those that it leads to."""
        return ((self._nodes[key], self[self._nodes[key]]) for key in self._nodes)

    def topsort(self) -> list[Any]:
        """Return all, each after those that it leads to; raises ValueError for a loop."""
        return [self._nodes[key] for key in TopologicalSorter(self._adjacent).static_order()]

    def valency_of(self, node: Any) -> int:
        """Return how many edges lie on the ways from a node, itself left out."""
        found: set[Any] = set()
        waiting = [_key(node)]
        while waiting:
            fresh = [key for key in self._adjacent[waiting.pop()] if key not in found]
            found.update(fresh)
            waiting += fresh
        return len(found)

    def to_dot(self, file: TextIO | None = None) -> str:
        """Return the graph in the language DOT, and write it to a file if one is given."""
        lines = [f"digraph {_quoted(self.name)} {{"]
        lines += [f"    {_quoted(key)};" for key in self._nodes]
        lines += [f"    {_quoted(key)} -> {_quoted(other)};" for key, each in self._adjacent.items() for other in each]
        text = "\n".join([*lines, "}"]) + "\n"
        if file is not None:
            file.write(text)
        return text

    def __getitem__(self, node: Any) -> list[Any]:
        return [self._nodes[key] for key in self._adjacent[_key(node)]]

    def __contains__(self, node: object) -> bool:
        return _key(node) in self._nodes

    def __iter__(self) -> Iterator[Any]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        told: list[str] = []
        for node, adjacent in self.items():
            told.append(f"{_key(node)}({self.valency_of(node)})")
            told += [f"    {_key(other)}({self.valency_of(other)})" for other in adjacent]
        return "\n".join(told)


def _key(node: Any) -> Any:
    return getattr(node, "id", node)


def _quoted(value: Any) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
