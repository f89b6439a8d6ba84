"""What is a call that has not been sent?

A node is data that its owner may change, as in Celery: `link` and `set` change it where it stands. Composing copies
what is composed, and sending changes nothing. What goes on the way is frozen first: a copy in which each task has its
id.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar, Unpack, cast

from asgiref.sync import sync_to_async

from django_tasks import conf
from django_tasks.canvas.calls import lineage
from django_tasks.canvas.stamping import StampingVisitor, gathered, gathered_over, named, spread, stamp, stamp_links
from django_tasks.canvas.steps import Step, message_of
from django_tasks.connections import LOCAL, brokers, groups_of
from django_tasks.context import remember
from django_tasks.exceptions import DecodeError
from django_tasks.message import member_id, new_id
from django_tasks.options import CALL_OPTIONS, CallOptions
from django_tasks.plan import Place, Plan, place_from
from django_tasks.publisher import begin
from django_tasks.registry import tasks as registered
from django_tasks.result import AsyncResult

Form = Mapping[str, Any]
"""A node as plain values, with Celery's names: task, args, kwargs, options, subtask_type, immutable."""

N = TypeVar("N", bound="Signature")

_OWN = frozenset({"group_id"})
"""Options that a later one of that name does not replace."""
LINKS = ("link", "link_error")


class Signature:
    """A call of a task: its name, arguments and options."""

    __slots__ = ("args", "immutable", "kwargs", "options", "task")

    subtask_type: ClassVar[str | None] = None
    kinds: ClassVar[dict[Any, type[Signature]]] = {}
    """The class of each `subtask_type`."""

    def __init_subclass__(cls) -> None:
        if cls.subtask_type is not None:
            Signature.kinds.setdefault(cls.subtask_type, cls)

    def __init__(
        self,
        task: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: CallOptions | None = None,
        *,
        immutable: bool = False,
    ) -> None:
        self.task = task
        self.args = tuple(args)
        self.kwargs: dict[str, Any] = {} if kwargs is None else dict(kwargs)
        self.options: dict[str, Any] = {} if options is None else gathered(options)
        for name in LINKS:
            if name in self.options:
                self.options[name] = _linked(self.options[name])
        self.immutable = immutable
        """Whether it ignores the value of what it follows."""

    # As data

    def to_dict(self) -> dict[str, Any]:
        """Return the node as plain values, of which `signature` makes the same node again."""
        return {
            "task": self.task,
            "args": list(self.args),
            "kwargs": self._form_of_kwargs(),
            "options": {name: _plain(value) for name, value in spread(self.options).items()},
            "subtask_type": self.subtask_type,
            "immutable": self.immutable,
        }

    __json__ = to_dict

    def _form_of_kwargs(self) -> dict[str, Any]:
        return dict(self.kwargs)

    @classmethod
    def _from_parts(cls, parts: Mapping[str, Any]) -> Signature:
        return Signature(parts["task"], parts["args"], parts["kwargs"])

    def keys(self) -> Iterable[str]:
        """Return the names of what `to_dict` gives, so that `dict(node)` works as it does in Celery."""
        return self.to_dict().keys()

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Signature):
            return self.to_dict() == other.to_dict()
        return self.to_dict() == other if isinstance(other, dict) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it may change

    def __repr__(self) -> str:
        told = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.task}({', '.join(told)})"

    @property
    def name(self) -> str:
        return self.task

    @property
    def id(self) -> str | None:
        """The id that its task will have, where that is known before it is sent."""
        return self.options.get("task_id")

    # Changing and copying

    def set(self, *, immutable: bool | None = None, **options: Any) -> Self:
        """Lay options over those of this node; return it."""
        if immutable is not None:
            self.set_immutable(immutable)
        options = gathered_over(self.options, options)
        self.options.update(options | {name: _linked(options[name]) for name in LINKS if name in options})
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether it ignores the value of what it follows."""
        self.immutable = immutable

    def clone(self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Self:
        """Return a copy with arguments put before its own, and keyword arguments and options laid over its own.

        One that is immutable takes the options alone.
        """
        twin = self._copy()
        twin._take(tuple(args), kwargs or {})
        for callback in _linked(options.pop("link", None)):
            twin.link(callback)
        for errback in _linked(options.pop("link_error", None)):
            twin.link_error(errback)
        options = gathered_over(twin.options, options, own=True)
        kept = {name for name in _OWN if name in twin.options}
        twin.options.update({name: value for name, value in options.items() if name not in kept})
        return twin

    partial = clone

    def replace(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: CallOptions | None = None,
    ) -> Self:
        """Return a copy with other arguments or options in place of its own."""
        twin = self._copy()
        if args is not None:
            twin.args = tuple(args)
        if kwargs is not None:
            twin.kwargs = dict(kwargs)
        if options is not None:
            twin.options = gathered(options)
        return twin

    def _copy(self) -> Self:
        twin = object.__new__(type(self))
        twin.task, twin.args, twin.immutable = self.task, self.args, self.immutable
        twin.kwargs = dict(self.kwargs)
        twin.options = {name: list(value) if name in LINKS else value for name, value in self.options.items()}
        return twin

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take arguments before one's own."""
        if not self.immutable:
            self.args = (*args, *self.args)
            self.kwargs.update(kwargs)

    def link(self, callback: N) -> N:
        """Have another node sent, with what this one returned, when it has ended well; return the other."""
        return _listed(self, "link", callback)

    def link_error(self, errback: N) -> N:
        """Have another node sent when this one has failed for good; return the other.

        It gets the id of the task that failed, or, where it is a task that is known here and takes more than one
        argument, `(request, exc, traceback)`.
        """
        return _listed(self, "link_error", errback)

    def on_error(self, errback: Signature) -> Self:
        """Do as `link_error` does, and return this node."""
        self.link_error(errback)
        return self

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Stamp each call that it is made of, and what is linked to it, with headers that messages carry; return it.

        A visitor says for each part what it is stamped with beside. A stamp that was there already is replaced, or with
        `append_stamps` becomes one of a list.
        """
        stamp(self, visitor, named(headers), append=append_stamps)
        return self

    def stamp_links(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp what is linked to it, and not itself."""
        stamp_links(self, visitor, named(headers), append=append_stamps)

    def flatten_links(self) -> list[Signature]:
        """Return this node and all that is linked to it, and to that."""
        linked = (each.flatten_links() for each in self.options.get("link", ()))
        return [self, *itertools.chain.from_iterable(linked)]

    def __or__(self, other: object) -> Signature:
        return self.kinds["chain"]._of_two(self, other) if isinstance(other, Signature) else NotImplemented

    @classmethod
    def _of_two(cls, left: Signature, right: Signature) -> Signature:
        raise NotImplementedError

    # Sending

    def delay(self, /, *args: Any, **kwargs: Any) -> Any:
        """Send it with arguments before its own; see `apply_async`."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Any:
        """Send it, with arguments put before its own, and keyword arguments and options laid over its own.

        Returns the handle of what it ends with: an AsyncResult, or for a group a GroupResult. Raises
        SerializationError, TypeError or ValueError for what cannot be sent, before anything is.
        """
        node = (self.clone(args, kwargs, **options) if args or kwargs or options else self).frozen()
        begin(node.plan())
        handle = node.handle()
        remember(handle)
        return handle

    async def adelay(self, /, *args: Any, **kwargs: Any) -> Any:
        """Send it as `delay` does, without blocking the event loop."""
        return await sync_to_async(self.delay)(*args, **kwargs)

    async def aapply_async(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Any:
        """Send it as `apply_async` does, without blocking the event loop."""
        return await sync_to_async(self.apply_async)(args, kwargs, **options)

    def apply(
        self, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> Any:
        """Run it here and now, as a worker would, with all that follows; the handle holds what came of it."""
        node = self.clone(args, kwargs, **options).frozen()
        plan = node.plan(replies=False)
        groups_of(LOCAL).open(plan.groups)
        brokers[LOCAL].publish(plan.messages)
        handle = node.handle(LOCAL)
        # Handles keep what they have read; a process that runs for months must not keep it all.
        handle.take()
        return handle

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the task here, as a function."""
        called = self.clone(args, kwargs)
        return registered[self.task](*called.args, **called.kwargs)

    def __invert__(self) -> Any:
        """Send it and wait for what it returns."""
        return self.apply_async().get()

    def freeze(self) -> Any:
        """Give each task its id, and return the handle before anything is sent."""
        node = self.frozen()
        for name in (name for kind in type(self).__mro__ for name in getattr(kind, "__slots__", ())):
            setattr(self, name, getattr(node, name))
        return self.handle()

    # On the way

    def frozen(self, place: Place | None = None) -> Self:
        """Return a copy in which each task has its id; where it ends is a member of a group if there is a `place`."""
        twin = self._copy()
        options = twin.options
        if place is not None:
            options["group_id"], options["group_index"] = place
            options.setdefault("task_id", member_id(*place))
        if options.get("task_id") is None:
            options["task_id"] = new_id()
        for name in LINKS:
            if options.get(name):
                # Sent twice, after a crash, they are to be the same tasks.
                options[name] = [each.frozen() for each in options[name]]
        return twin

    @property
    def place(self) -> Place | None:
        """Where this node is a member of a group."""
        return place_from(self.options.get("group_id"), self.options.get("group_index"))

    @property
    def is_empty(self) -> bool:
        """Tell whether it stands for no task at all."""
        return False

    def plan(self, *, replies: bool = True) -> Plan:
        """Return what must be written for a frozen node to begin.

        Raises SerializationError, TypeError or ValueError for arguments and options that cannot be sent.
        """
        return self.begin(Step(lineage(), replies=replies))

    def begin(self, step: Step) -> Plan:
        """Return what must be written for a frozen node to begin, given what it is told."""
        task = registered.get(self.task)
        if task is not None:
            before = () if self.immutable else step.before
            task.check_arguments((*before, *self.args), self.kwargs)
        return Plan((message_of(self, step),))

    def handle(self, store: str = "default") -> Any:
        """Return the handle of what a frozen node ends with."""
        return AsyncResult(self.options["task_id"], store, ignored=self._is_ignored())

    def _is_ignored(self) -> bool:
        said = self.options.get("ignore_result")
        if said is None and (task := registered.get(self.task)) is not None:
            said = task.options.ignore_result
        return conf.get().ignore_result if said is None else said

    @property
    def leaves(self) -> list[Signature]:
        """The calls of tasks that it is made of."""
        return [self]


def signature(
    task: str | Form | Signature,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: CallOptions | None = None,
    *,
    immutable: bool = False,
    **more: Unpack[CallOptions],
) -> Signature:
    """Return a node: of a task's name and arguments, of what `to_dict` gave, or the node itself.

    Raises DecodeError for a dictionary that describes none.
    """
    if isinstance(task, Signature):
        return task
    name: Any = task if isinstance(task, str) else getattr(task, "name", None)
    if isinstance(task, str) or (isinstance(name, str) and name in registered):
        return Signature(name, args, kwargs, cast(CallOptions, {**(options or {}), **more}), immutable=immutable)
    return _from_form(task)


def _from_form(form: Form) -> Signature:
    try:
        parts = {"task": str(form["task"]), "args": form.get("args") or (), "kwargs": form.get("kwargs") or {}}
        kind = Signature.kinds.get(form.get("subtask_type"), Signature)
        node = kind._from_parts(parts)
        node.options.update(_options_of(form))
        node.immutable = bool(form.get("immutable"))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DecodeError(f"{form!r:.200} does not describe a signature: {error!r}") from error
    return node


def _options_of(form: Form) -> dict[str, Any]:
    """Return the options of a form; Celery has others too, which mean nothing here."""
    told = gathered(form.get("options") or {})
    options = {name: value for name, value in told.items() if name in CALL_OPTIONS}
    if told.get("reply_to"):
        options["headers"] = {**(options.get("headers") or {}), "reply_to": told["reply_to"]}
    return options | {name: _linked(options[name]) for name in LINKS if name in options}


def _plain(value: Any) -> Any:
    if isinstance(value, Signature):
        return value.to_dict()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _linked(value: Any) -> list[Signature]:
    """Return what is linked: one node or several, each of them or its form."""
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [signature(each) for each in several]


def _listed(node: Signature, name: str, other: N) -> N:
    linked = node.options.setdefault(name, [])
    if other not in linked:
        linked.append(other)
    return other
