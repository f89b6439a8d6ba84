"""What is a task, and how is it called?"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import update_wrapper
from typing import Any, Concatenate, Generic, Literal, NoReturn, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from asgiref.sync import async_to_sync, sync_to_async

from django_tasks import conf, periodic, states
from django_tasks.canvas.calls import next_attempt
from django_tasks.canvas.continuations import replacement
from django_tasks.canvas.growth import member, send
from django_tasks.canvas.mapped import chunks, xmap, xstarmap
from django_tasks.canvas.signature import Signature
from django_tasks.context import Request, current_request, remember
from django_tasks.exceptions import MaxRetriesExceeded, Replaced, Retry
from django_tasks.message import Message
from django_tasks.options import (
    DECLARATION,
    RNG,
    CallOptions,
    Declaration,
    RetryOptions,
    TaskOptions,
    declared,
    retry_policy,
)
from django_tasks.plan import Outcome
from django_tasks.registry import tasks
from django_tasks.result import AsyncResult
from django_tasks.retry import RetryPolicy
from django_tasks.sealing import kept

P = ParamSpec("P")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A function with its options. Calling it runs it here; `delay` and `apply_async` send it to a worker.

    A subclass given as `@task(base=...)` may set any keyword of `@task` as an attribute, and override the handlers
    `before_start`, `on_success`, `on_failure`, `on_retry` and `after_return`.
    """

    def __init__(self, function: Callable[..., Any], name: str, *, bind: bool, given: Declaration) -> None:
        self.function = function
        self.name = name
        self.bind = bind
        self.options: TaskOptions = declared(type(self), given)
        self.origin = f"{function.__module__}.{function.__qualname__}"
        self.is_async = inspect.iscoroutinefunction(function)
        self.parameters = _parameters(function, bind)
        self._arity = _arity(self.parameters)
        self._preset = CallOptions()
        update_wrapper(self, function, updated=())

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self.run(*args, **kwargs))

    def run(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function with this task before its arguments where it is bound."""
        return self.function(self, *args, **kwargs) if self.bind else self.function(*args, **kwargs)

    def run_async(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run a task declared with `async def` to its end, in an event loop of its own."""

        async def call() -> Any:
            return await self.run(*args, **kwargs)

        return async_to_sync(call)()

    # Calling

    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task to a worker; raises TypeError for arguments that do not fit the function, and
        SerializationError for values that cannot be sent."""
        return self._send(args, kwargs, self._preset)

    def apply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Send the task to a worker, with options for this one call."""
        return self._send(tuple(args), dict(kwargs or {}), cast(CallOptions, {**self._preset, **options}))

    async def adelay(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task to a worker, without blocking the event loop."""
        return await sync_to_async(self._send)(args, kwargs, self._preset)

    async def aapply_async(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Send the task to a worker, without blocking the event loop."""
        merged = cast(CallOptions, {**self._preset, **options})
        return await sync_to_async(self._send)(tuple(args), dict(kwargs or {}), merged)

    def apply(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Run the task here and now, as a worker would, its retries included; the handle holds what came of it."""
        merged = cast(CallOptions, {**self._preset, **options})
        return cast(AsyncResult[R], self._call(tuple(args), dict(kwargs or {}), merged).apply())

    def using(self, **options: Unpack[CallOptions]) -> Task[P, R]:
        """Return this task with options laid under each of its calls: `mail.using(queue="slow").delay(...)`."""
        twin = copy.copy(self)
        twin._preset = cast(CallOptions, {**self._preset, **options})  # a copy of itself
        return twin

    def s(self, /, *args: Any, **kwargs: Any) -> Signature:
        """Describe a call, to be sent later, or with others; what comes before it may add arguments before these."""
        return Signature(self.name, args, kwargs, self._preset)

    def si(self, /, *args: Any, **kwargs: Any) -> Signature:
        """Describe a call that ignores what comes before it."""
        return Signature(self.name, args, kwargs, self._preset, immutable=True)

    def signature(
        self,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Unpack[CallOptions],
    ) -> Signature:
        """Describe a call with options of its own."""
        return Signature(self.name, args, kwargs, cast(CallOptions, {**self._preset, **options}), immutable=immutable)

    subtask = signature

    def map(self, items: Iterable[Any]) -> Signature:
        """Describe one call that calls this task for each item, one after the other."""
        return xmap(self.s(), items)

    def starmap(self, items: Iterable[Iterable[Any]]) -> Signature:
        """Describe one call that calls this task with the arguments in each item, one after the other."""
        return xstarmap(self.s(), items)

    def chunks(self, items: Iterable[Iterable[Any]], n: int) -> chunks:
        """Describe a group of calls that each call this task with the arguments in up to `n` items."""
        return chunks(self.s(), items, n)

    def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions) -> AsyncResult[R]:
        return cast(AsyncResult[R], self._call(args, kwargs, options).apply_async())

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions) -> Signature:
        return Signature(self.name, args, kwargs, options)

    def check_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError when the function could not be called with these arguments, unless `typing` is off."""
        typing = self.options.typing
        if not (conf.get().typing if typing is None else typing):
            return
        least, most = self._arity
        if not kwargs and least <= len(args) <= most:
            return
        try:
            self.parameters.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self.parameters}: {error}") from None

    # While it runs

    @property
    def request(self) -> Request:
        """The call that is being answered; outside of a worker one that says `called_directly`."""
        request = current_request()
        return request if request is not None and request.task == self.name else _direct(self.name)

    def update_state(self, *, state: str, meta: Any = None) -> None:
        """Tell how far this run is: a custom state such as PROGRESS, with data that whoever waits can read.

        Written by the worker a moment later, and only while this run still holds the task. A task that is called as
        a plain function tells nobody.
        """
        if (
            state in states.FINAL
            or state in (states.PENDING, states.RETRY, states.RECEIVED)
            or not 0 < len(state) <= 50
        ):
            raise ValueError(f"{state!r} cannot be set by a task: return, raise, or choose a name of your own.")
        self.request.report(Outcome(state, value=kept(meta, "meta", self.request.message)))

    def retry(  # noqa: PLR0913, PLR0917  # Celery's signature
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,  # Celery's signature
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Unpack[RetryOptions],
    ) -> Retry:
        """Run this task again later, under the same id; raises Retry, which ends this run.

        Raises `exc`, or MaxRetriesExceeded, when the task has been retried `max_retries` times. Without `args` and
        `kwargs` the next run gets what this one got. With `throw=False` the Retry is returned, and counts when the
        function returns.
        """
        request = self.request
        if request.called_directly:
            raise exc if exc is not None else Retry("Task can be retried only by a worker")
        policy = self.retry_policy(max_retries)
        if policy.exhausted(request.retries):
            if exc is not None:
                raise exc
            raise MaxRetriesExceeded(f"Cannot retry {self.name}[{request.id}]: it was retried {request.retries} times.")
        if countdown is None and eta is None:
            countdown = policy.countdown(request.retries, RNG)
        when = cast(CallOptions, {"countdown": countdown, "eta": eta, **options})
        directive = Retry(f"Retry in {countdown}s" if eta is None else f"Retry at {eta}", exc, eta or countdown)
        request.following = (next_attempt(request, args, kwargs, when),)
        request.directive = directive
        if throw:
            raise directive from exc
        return directive

    def replace(self, node: Signature) -> NoReturn:
        """Have another call run in this one's place, and end this run.

        The other ends under this task's id, as the same member of a group, and is followed by what was to follow this
        task. A group ends with the list of its values. Raises Replaced, which ends this run.
        """
        request = self.request
        if request.called_directly:
            raise RuntimeError(f"{self.name} was called as a function: only a task that a worker runs can be replaced.")
        if node.is_empty:
            raise ValueError("There is nothing in what is to run in this task's place.")
        raise Replaced(replacement(request, node))

    def add_to_chord(self, sig: Signature, lazy: bool = False) -> Any:  # Celery's signature
        """Add a call, or a workflow, to the chord or group of which this task is a member, and send it; return its
        handle, or with `lazy` the signature, which is then to be sent by its `delay`.

        The body of the chord waits for it too, and gets its value after those of the other members. A run that is
        repeated adds the same members again, which count once. Raises ValueError for a task that is no member,
        ChordError for a group that has ended meanwhile.
        """
        request = self.request
        node = member(request, sig)
        if lazy:
            return node
        send(request, node)
        handle = node.handle(request.store)
        remember(handle, request)
        return handle

    def retry_policy(self, max_retries: int | None = None) -> RetryPolicy:
        """Return when this task is run again; `max_retries` overrides what was declared."""
        settings = conf.get()
        policy = retry_policy(self.options, settings.max_retries, settings.default_retry_delay)
        return policy if max_retries is None else replace(policy, max_retries=max_retries)

    @property
    def max_retries(self) -> int | None:
        return self.retry_policy().max_retries

    # Handlers

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Override: called before the function; an exception fails the run."""

    def on_success(self, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Override: called after the function returned; an exception is logged."""

    def on_failure(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        """Override: called when the task has failed for good, with the traceback as text."""

    def on_retry(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        """Override: called when the task is to be run again."""

    def after_return(
        self, status: str, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        """Override: called last, whatever came of the run."""


class Declare(Protocol):
    """Turns a function into a task; to the type checker, one that is declared with `async def` returns what it ends
    with."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class DeclareBound(Protocol):
    """Turns a function that takes its task first into a task that is called without it."""

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, name: str | None = ..., bind: Literal[True], base: type[Task[Any, Any]] = ..., **options: Unpack[Declaration]
) -> DeclareBound: ...
@overload
def task(
    *,
    name: str | None = ...,
    bind: Literal[False] = ...,
    base: type[Task[Any, Any]] = ...,
    **options: Unpack[Declaration],
) -> Declare: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    bind: bool = False,
    base: type[Task[Any, Any]] = Task,
    **options: Unpack[Declaration],
) -> Any:
    """Declare a function a task: `@task`, or `@task(queue="mail", max_retries=5)`.

    `name` is `module.function` unless given. With `bind` the function gets the task as its first argument. `base` is a
    subclass of Task with handlers or options of its own.
    """
    unknown = options.keys() - DECLARATION
    if not (function is None or callable(function)):
        raise TypeError(f"@task takes a function; options are given by name, such as name={function!r:.80}.")
    if unknown:
        raise TypeError("; ".join(f"no option {word!r}: {conf.nearest(word, DECLARATION)}" for word in sorted(unknown)))

    def declare(function: Callable[..., Any]) -> Task[Any, Any]:
        made = base(function, name or f"{function.__module__}.{function.__qualname__}", bind=bind, given=options)
        tasks.register(made)
        periodic.declare(made.name, made.options.schedule)
        return made

    return declare if function is None else declare(function)


shared_task = task
"""Celery's name for the same: there is no app object that a task could belong to."""


def current_task() -> Task[Any, Any] | None:
    """Return the task that is running here, or None outside of one."""
    request = current_request()
    return None if request is None else tasks.get(request.task)


def _parameters(function: Callable[..., Any], bind: bool) -> inspect.Signature:
    signature = inspect.signature(function)
    if not bind:
        return signature
    parameters = list(signature.parameters.values())
    if not parameters:
        raise TypeError(f"{function.__qualname__} is declared with bind=True but takes no argument for the task.")
    return signature.replace(parameters=parameters[1:])


def _arity(signature: inspect.Signature) -> tuple[int, float]:
    """Return how many positional arguments alone are enough, and how many are too many."""
    least, most = 0, 0.0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = float("inf")
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            least += parameter.default is parameter.empty
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            # No number of positional arguments is enough: bind() is to find the words for it.
            return 1, 0.0
    return least, most


def _direct(name: str) -> Request:
    return Request(message=Message(id="", task=name, body=b""), called_directly=True)
