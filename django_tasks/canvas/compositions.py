"""How are calls composed: one after the other, side by side, and one after many?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self, TypeVar, cast

from django_tasks.canvas.calls import refuse_timeout
from django_tasks.canvas.given import nodes_of
from django_tasks.canvas.header import fan
from django_tasks.canvas.signature import LINKS, Form, Signature, signature
from django_tasks.canvas.steps import Step
from django_tasks.canvas.tail import number
from django_tasks.group_result import GroupResult
from django_tasks.message import new_group_id
from django_tasks.options import CallOptions, check_call
from django_tasks.plan import NOTHING, Place, Plan

N = TypeVar("N", bound=Signature)

_FIRST = ("countdown", "eta")
_WHOLE = ("timeout",)
"""Options of a group as such."""
_IDENTITY = ("task_id", "group_id", "group_index", "root_id", "parent_id")


class _Composed(Signature):
    """Nodes put together; its name is one that Celery knows."""

    __slots__ = ()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Send it."""
        return self.apply_async(args, kwargs)

    def _spread(self, also: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the options that go for each node in it."""
        kept = {*_FIRST, *LINKS, *_IDENTITY, *_WHOLE}.difference(also)
        return {name: value for name, value in self.options.items() if name not in kept}


class _Several(_Composed):
    """A list of nodes."""

    __slots__ = ("tasks",)

    tasks: list[Signature]

    def _form_of_kwargs(self) -> dict[str, Any]:
        return {"tasks": [task.to_dict() for task in self.tasks]}

    def _copy(self) -> Self:
        twin = super()._copy()
        twin.tasks = [task._copy() for task in self.tasks]
        return twin

    @property
    def leaves(self) -> list[Signature]:
        return [leaf for task in self.tasks for leaf in task.leaves]

    @property
    def is_empty(self) -> bool:
        return all(task.is_empty for task in self.tasks)


class chain(_Several):  # noqa: N801  # Celery's names, here and below
    """Nodes of which each begins when the one before it has ended well, with what that returned."""

    __slots__ = ()

    subtask_type = "chain"

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        nodes = nodes_of(tasks)
        if cls is chain and len(nodes) > 1:
            # Composed as by "|": a group that is followed becomes a chord.
            whole: Signature = cls._of(())
            for node in nodes:
                whole = _followed(whole, node)
            return whole.set(**options)
        made = super().__new__(cls)
        made._fill(nodes, options)
        return made

    def __init__(self, *tasks: Any, **options: Any) -> None:
        """Do nothing: `__new__` may have made a chord."""

    def _fill(self, tasks: Iterable[Signature], options: Mapping[str, Any]) -> None:
        super().__init__("celery.chain", options=cast(CallOptions, options))
        self.tasks = list(tasks)

    @classmethod
    def _of_two(cls, left: Signature, right: Signature) -> Signature:
        return piped(left, right)

    @classmethod
    def _of(cls, tasks: Iterable[Signature]) -> chain:
        made = object.__new__(cls)
        made._fill(tasks, {})
        return made

    @classmethod
    def _from_parts(cls, parts: Mapping[str, Any]) -> Signature:
        return cls._of(map(signature, parts["kwargs"]["tasks"]))

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self.tasks:
            self.tasks[0]._take(args, kwargs)

    def set_immutable(self, immutable: bool) -> None:
        """Say whether its first node ignores the value of what it follows."""
        self.immutable = immutable
        if self.tasks:
            self.tasks[0].set_immutable(immutable)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks)) or "chain()"

    @property
    def id(self) -> str | None:
        return super().id or (self.tasks[-1].id if self.tasks else None)

    @property
    def steps(self) -> list[Signature]:
        """The nodes in order, with those of chains within it in their place, and without empty ones."""
        spliced = [task.steps if isinstance(task, chain) and not task.options else [task] for task in self.tasks]
        return [task for tasks in spliced for task in tasks if not task.is_empty]

    def frozen(self, place: Place | None = None) -> Self:
        twin = self._copy()
        refuse_timeout(twin.options)
        steps = [step.clone(**twin._spread()) for step in twin.steps]
        if steps:
            _first(steps[0], twin.options)
            _last(steps[-1], twin.options)
        for step in steps:
            for errback in twin.options.get("link_error") or ():
                step.link_error(errback)
        number(steps[:-1])
        ahead = [step.frozen() for step in steps[:-1]]
        twin.tasks = [*ahead, *(step.frozen(place or twin.place) for step in steps[-1:])]
        twin.options = {}
        return twin

    def begin(self, step: Step) -> Plan:
        if not self.tasks:
            return NOTHING
        first, *rest = self.tasks
        return first.begin(replace(step, tail=step.tail.after(*rest)))

    def handle(self, store: str = "default") -> Any:
        if not self.tasks:
            return GroupResult(new_group_id(), [], store)
        handle: Any = None
        for task in self.tasks:
            before, handle = handle, task.handle(store)
            handle.first.parent = before
        return handle

    @property
    def place(self) -> Place | None:
        return self.tasks[-1].place if self.tasks else super().place


class group(_Several):  # noqa: N801
    """Nodes that run side by side."""

    __slots__ = ()

    subtask_type = "group"

    def __init__(self, *tasks: Any, **options: Any) -> None:
        super().__init__("celery.group", options=cast(CallOptions, options))
        self.tasks = nodes_of(tasks)

    @classmethod
    def _from_parts(cls, parts: Mapping[str, Any]) -> Signature:
        return cls(list(map(signature, parts["kwargs"]["tasks"])))

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for task in self.tasks:
            task._take(args, kwargs)

    def set_immutable(self, immutable: bool) -> None:
        """Say whether its members ignore the value of what they follow."""
        self.immutable = immutable
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: N) -> N:
        """Have another node sent when the first member has ended well, without what that returned."""
        if self.tasks:
            self.tasks[0].link(callback.clone().set(immutable=True))
        return callback

    def link_error(self, errback: N) -> N:
        """Have another node sent for each member that has failed for good."""
        for task in self.tasks:
            task.link_error(errback.clone())
        return errback

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Delay the members by `start`, `start + step`, ... seconds; from `stop` on all by the same; return it."""
        delay = start
        for task in self.tasks:
            task.set(countdown=delay)
            delay = delay + step if stop is None or delay + step <= stop else stop
        return self

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Signature]:
        return iter(self.tasks)

    def __repr__(self) -> str:
        return f"group({self.tasks!r})"

    @property
    def members(self) -> list[Signature]:
        """Its nodes, with those of groups within it in their place, and without empty ones."""
        return [
            member
            for task in self.tasks
            for member in (task.clone()._inherited() if isinstance(task, group) else [task])
            if not member.is_empty
        ]

    def _inherited(self) -> list[Signature]:
        if self.options.get("timeout") is not None:
            raise TypeError("A group within a group is part of that one: give the outer one the timeout.")
        return [member.clone(**self._spread()) for member in self.members]

    def frozen(self, place: Place | None = None) -> Self:
        twin = self._copy()
        group_id = twin.options.get("task_id") or twin.options.get("group_id") or new_group_id()
        inherited = twin._spread(_FIRST)
        members = [member.clone(**inherited) for member in twin.members]
        twin.tasks = [member.frozen((group_id, index)) for index, member in enumerate(members)]
        own = place or twin.place
        check_call({name: twin.options[name] for name in _WHOLE if name in twin.options})
        twin.options = {"task_id": group_id} | {name: twin.options[name] for name in _WHOLE if name in twin.options}
        if own is not None:
            twin.options["group_id"], twin.options["group_index"] = own
        return twin

    def begin(self, step: Step) -> Plan:
        return fan(self, step)

    def handle(self, store: str = "default") -> GroupResult:
        return GroupResult(self.options["task_id"], [task.handle(store) for task in self.tasks], store)


class chord(_Composed):  # noqa: N801
    """A group, and a body that begins with the list of what its members returned when all have ended well."""

    __slots__ = ("body", "header")

    subtask_type = "chord"

    def __init__(self, header: Any, body: Signature | Form | None = None, **options: Any) -> None:
        super().__init__("celery.chord", options=cast(CallOptions, options))
        self.header = header._copy() if isinstance(header, group) else group(header)
        self.body = None if body is None else signature(body)._copy()

    @property
    def tasks(self) -> list[Signature]:
        """The members of the header."""
        return self.header.tasks

    def _form_of_kwargs(self) -> dict[str, Any]:
        body = None if self.body is None else self.body.to_dict()
        return {"header": self.header.to_dict(), "body": body, "kwargs": {}}

    @classmethod
    def _from_parts(cls, parts: Mapping[str, Any]) -> Signature:
        header = parts["kwargs"]["header"]
        return cls(signature(header) if isinstance(header, dict) else header, parts["kwargs"].get("body"))

    def _copy(self) -> Self:
        twin = super()._copy()
        twin.header = self.header._copy()
        twin.body = None if self.body is None else self.body._copy()
        return twin

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.header._take(args, kwargs)

    def set_immutable(self, immutable: bool) -> None:
        """Say whether the members of the header ignore the value of what they follow."""
        self.immutable = immutable
        self.header.set_immutable(immutable)

    def link(self, callback: N) -> N:
        """Have another node sent, with what the body returned, when that has ended well."""
        return self._followed().link(callback)

    def link_error(self, errback: N) -> N:
        """Have another node sent when the body has failed, which it does when a member of the header does."""
        return self._followed().link_error(errback)

    def _followed(self) -> Signature:
        if self.body is None:
            raise TypeError("This chord has no body yet: give it one, chord(header, body), before it is linked.")
        return self.body

    def __call__(self, body: Signature | None = None, /, **options: Any) -> Any:
        """Send it, with a body in place of its own if one is given."""
        whole = self if body is None else chord(self.header, body, **self.options)
        return whole.apply_async(**options)

    def __repr__(self) -> str:
        return f"chord({self.header.tasks!r}, {self.body!r})"

    def frozen(self, place: Place | None = None) -> Self:
        if self.body is None:
            raise TypeError("A chord needs a body: chord(header, body), or chord(header)(body).")
        twin = self._copy()
        spread = twin._spread()
        header, body = twin.header.clone(**spread), self.body.clone(**spread)
        _first(header, twin.options)
        if twin.options.get("timeout") is not None:
            header.options["timeout"] = twin.options["timeout"]
        _last(body, twin.options)
        for errback in twin.options.get("link_error") or ():
            body.link_error(errback)
        twin.header, twin.body = header.frozen(), body.frozen(place or twin.place)
        twin.options = {}
        return twin

    def begin(self, step: Step) -> Plan:
        return fan(self.header, replace(step, tail=step.tail.after(self._followed())))

    def handle(self, store: str = "default") -> Any:
        handle = self._followed().handle(store)
        handle.first.parent = self.header.handle(store)
        return handle

    @property
    def leaves(self) -> list[Signature]:
        return [*self.header.leaves, *self._followed().leaves]

    @property
    def place(self) -> Place | None:
        return self.body.place if self.body is not None else None


def piped(left: Signature, right: Signature) -> Signature:
    """Return what `left | right` is: a chain; or, where that would follow a group, a chord."""
    return _followed(left._copy(), right)


def _followed(left: Signature, right: Signature) -> Signature:
    """Return what a node becomes, which may be changed, when another follows it, which is copied."""
    if right.is_empty:
        return left
    match right:
        case group(tasks=[one]) if not isinstance(left, group) and right.options.get("timeout") is None:
            # A group of one is that one, unless it has to end in time.
            right = one.clone(**right._spread(_FIRST))
    match left:
        case chain():
            return _followed_chain(left, right)
        case chord(body=Signature() as body):
            left.body = _followed(body, right)
            return left
        case group() if not left.is_empty:
            return chord(left, right)
    steps = right._copy().tasks if isinstance(right, chain) else [right._copy()]
    return chain._of([left, *steps])


def _followed_chain(left: chain, right: Signature) -> Signature:
    if not left.tasks:
        return right._copy() if isinstance(right, group | chain) else chain._of([right._copy()])
    if isinstance(right, chain):
        whole: Signature = left
        for step in right.tasks:
            whole = _followed(whole, step)
        return whole
    last = left.tasks[-1]
    if isinstance(last, group | chord):
        left.tasks[-1] = _followed(last, right)
    else:
        left.tasks.append(right._copy())
    return left


def _first(node: Signature, options: Mapping[str, Any]) -> None:
    """Give to the first of several nodes what is for it alone."""
    node.options.update({name: options[name] for name in _FIRST if name in options})


def _last(node: Signature, options: Mapping[str, Any]) -> None:
    """Give to the last of several nodes what is for it alone."""
    if options.get("task_id") is not None:
        node.options["task_id"] = options["task_id"]
    for callback in options.get("link") or ():
        node.link(callback)
