"""What came of a task? The handle that a caller holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from asgiref.sync import sync_to_async

from django_tasks import databases, states
from django_tasks.connections import results
from django_tasks.context import may_join
from django_tasks.control.client import revoke, revoke_by_stamped_headers
from django_tasks.dependencies import DependencyGraph, forms_from, once, walk
from django_tasks.encryption import reveal_value
from django_tasks.exceptions import ResultTimeout, TaskError
from django_tasks.failure import rebuild
from django_tasks.plan import Result
from django_tasks.serializers import loads

R = TypeVar("R")

FORBIDDEN = (
    "A task that waits for another holds a slot that the other may need: the worker can come to a stand. "
    "Chain the tasks, or wrap the call in allow_join_result() where you know that slots are left."
)


class AsyncResult(Generic[R]):
    """A handle on a task that was sent. Two handles with one id are equal."""

    __slots__ = ("_then", "id", "ignored", "known", "parent", "store")

    made_of: ClassVar[Callable[[Sequence[Any], str], Any]]
    """Makes the handle again of what `as_tuple` gave, and of the alias of its store."""

    def __init__(
        self,
        id: str,  # noqa: A002  # Celery's name
        store: str = "default",
        *,
        ignored: bool = False,
        parent: Any = None,
    ) -> None:
        self.id = id
        self.store = store
        self.ignored = ignored
        """Whether nothing is kept of what the task returns, as its sender knows: `get` does not wait for it."""
        self.parent: Any = parent
        """The handle of what came before, in a chain or a chord."""
        self.known: Result | None = None
        """How the task ended, once that was read."""
        self._then: list[Callable[[], object]] | None = None
        """What is to be called when it has ended."""

    def __repr__(self) -> str:
        return f"<AsyncResult: {self.id}>"

    def __str__(self) -> str:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def task_id(self) -> str:
        return self.id

    @property
    def first(self) -> Any:
        """The handle of what the whole began with."""
        return line_of(self)[-1]

    def as_tuple(self) -> tuple[Any, None]:
        """Return the ids, of which `result_from_tuple` makes the handle again; what it sent is not among them."""
        return tuple_of(self)

    def as_list(self) -> list[str]:
        """Return the ids of this task and of those before it."""
        ids: list[str] = []
        for each in line_of(self):
            if not isinstance(each, AsyncResult):
                return [*ids, *each.as_list()]
            ids.append(each.id)
        return ids

    def fetch(self) -> Result:
        """Return all that is known now, in one look at the store; a task that is not known is PENDING."""
        if self.known is None:
            found = results[self.store].get([self.id]).get(self.id)
            if found is None:
                return Result(id=self.id, state=states.PENDING)
            if not found.final:
                return found
            self.known = found
        return self.known

    def get(self, timeout: float | None = None, *, propagate: bool = True, disable_sync_subtasks: bool = True) -> R:
        """Wait for the task and return what it returned.

        Raises the task's own exception where its class is known here, else RemoteError; TaskRevoked, TaskRejected,
        WorkerLostError or TimeLimitExceeded where that is how it ended; ResultTimeout after `timeout` seconds. With
        `propagate=False` the exception is returned instead of raised. A task whose result is ignored is not waited for:
        the answer is None.
        """
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks and not may_join():
            raise RuntimeError(FORBIDDEN)
        ended = self.known or results[self.store].wait([self.id], timeout).get(self.id)
        if ended is None:
            raise ResultTimeout(f"Task {self.id} did not end within {timeout} seconds; it is {self.state}.")
        self.known = ended
        self._call_back()
        if propagate:
            self.maybe_throw()
        return cast(R, self.result)

    def wait(self, timeout: float | None = None, *, propagate: bool = True) -> R:
        """Wait for the task and return what it returned; another name for `get`."""
        return self.get(timeout, propagate=propagate)

    async def aget(self, timeout: float | None = None, *, propagate: bool = True) -> R:
        """Wait for the task as `get` does, without blocking the event loop."""
        return await databases.aside(partial(self.get, timeout, propagate=propagate))

    async def afetch(self) -> Result:
        """Return all that is known now, as `fetch` does."""
        return await sync_to_async(self.fetch)()

    def then(
        self, callback: Callable[[Self], object], on_error: Callable[[BaseException], object] | None = None
    ) -> Self:
        """Have a function called with this handle when the task has ended, or, where it failed and there is an
        `on_error`, that with the exception; return the handle.

        Called at once if the task has ended. Nobody listens in the background: otherwise it is called when `get` or
        `wait` of this very handle finds that the task has ended, in that thread, once. What it raises comes out there.
        """

        def answer() -> object:
            if on_error is None or self.fetch().state not in states.FAILED:
                return callback(self)
            return on_error(cast(BaseException, self.result))

        self._then = [*(self._then or ()), answer]
        if self.fetch().final:
            self._call_back()
        return self

    def _call_back(self) -> None:
        waiting, self._then = self._then, None
        for answer in waiting or ():
            answer()

    # What it sent, and what came of that

    @property
    def children(self) -> list[Any]:
        """The handles of what the task sent while it ran, and of what followed it: callbacks, and the next step of its
        chain. Known when it has ended; up to 1,000 ids are kept."""
        found: list[Any] = []
        for form in forms_from(self.fetch().children):
            try:
                found.append(AsyncResult.made_of(form, self.store))
            except (TypeError, ValueError, RecursionError):
                # Another program may have written it.
                continue
        return found

    async def achildren(self) -> list[Any]:
        """Return the handles of what it sent and of what followed it."""
        return await sync_to_async(lambda: self.children)()

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:  # Celery's signature
        """Give this handle, and those of all that it led to, each with that of what sent it, breadth first.

        Raises IncompleteStream at one that has not ended, or, with `intermediate`, goes on without what that may have
        sent.
        """
        return once(walk(self, look, intermediate=intermediate))

    def collect(
        self, intermediate: bool = False, *, timeout: float | None = None, propagate: bool = True
    ) -> Iterator[tuple[Any, Any]]:
        """Wait for this task, and for all that it led to; give the handle and the value of each, breadth first.

        `timeout`, in seconds, and `propagate` are for each of them, as in `get`.
        """
        for _, handle in self.iterdeps(intermediate):
            yield handle, handle.get(timeout, propagate=propagate)

    async def acollect(
        self, intermediate: bool = False, *, timeout: float | None = None, propagate: bool = True
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Do as `collect` does, without blocking the event loop."""
        found = self.collect(intermediate, timeout=timeout, propagate=propagate)
        while (pair := await databases.aside(partial(next, found, None))) is not None:
            yield pair

    def get_leaf(self) -> Any:
        """Return the value of what was reached last of all that it led to; raises as `collect` does."""
        last: Any = None
        for _, value in self.collect():
            last = value
        return last

    async def aget_leaf(self) -> Any:
        """Do as `get_leaf` does, without blocking the event loop."""
        return await databases.aside(self.get_leaf)

    def build_graph(self, intermediate: bool = False) -> DependencyGraph:
        """Return what led to what, this task first; raises IncompleteStream as `iterdeps` does."""
        graph = DependencyGraph(self.id)
        for parent, handle in walk(self, look, intermediate=intermediate):
            graph.add_arc(handle)
            if parent is not None:
                graph.add_edge(parent, handle)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """What led to what, when all of it has ended."""
        return self.build_graph()

    # What is known

    @property
    def state(self) -> str:
        """The task's state; PENDING also when nothing is known of it."""
        return self.fetch().state

    @property
    def status(self) -> str:
        return self.state

    @property
    def result(self) -> Any:
        """What the task returned, the exception it ended with, or the meta of a custom state."""
        return value_of(self.fetch())

    @property
    def info(self) -> Any:
        return self.result

    @property
    def traceback(self) -> str | None:
        failure = self.fetch().failure
        return failure.traceback if failure else None

    @property
    def name(self) -> str:
        return self.fetch().task

    @property
    def args(self) -> str:
        """The positional arguments, as text for display."""
        return self.fetch().args_repr

    @property
    def kwargs(self) -> str:
        """The keyword arguments, as text for display."""
        return self.fetch().kwargs_repr

    @property
    def worker(self) -> str:
        return self.fetch().worker

    @property
    def queue(self) -> str:
        return self.fetch().queue

    @property
    def retries(self) -> int:
        return self.fetch().retries

    @property
    def date_done(self) -> datetime | None:
        return self.fetch().ended_at

    def ready(self) -> bool:
        """Tell whether the task has ended."""
        return self.state in states.FINAL

    def successful(self) -> bool:
        """Tell whether the task has ended well."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Tell whether the task has ended with an exception."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Tell whether the store knows the task: after it ended, or reported a state."""
        return self.fetch().task != ""

    def maybe_throw(self) -> None:
        """Raise the exception that the task ended with, if it did."""
        known = self.fetch()
        if known.state in states.FAILED:
            raise cast(BaseException, value_of(known))

    def throw(self) -> None:
        self.maybe_throw()

    def forget(self) -> None:
        """Remove the result from the store."""
        results[self.store].forget([self.id])
        self.known = None

    def take(self) -> None:
        """Read the result, and those of what came before, out of the store: only the handles know them then.

        Where nothing was kept nobody must wait for it.
        """
        for each in line_of(self):
            each._take_own()

    def _take_own(self) -> None:
        """Do so with this result alone."""
        if self.known is None:
            self.ignored = not self.fetch().final
            results[self.store].forget([self.id])

    def revoke(self, *, terminate: bool = False) -> None:
        """Revoke the task; with `terminate` also while it runs."""
        revoke([self.id], terminate=terminate)

    def revoke_by_stamped_headers(self, headers: Mapping[str, Any], *, terminate: bool = False) -> None:
        """Revoke all tasks that carry one of these stamps, this one or not."""
        revoke_by_stamped_headers(headers, terminate=terminate)

    async def aforget(self) -> None:
        await sync_to_async(self.forget)()

    async def arevoke_by_stamped_headers(self, headers: Mapping[str, Any], *, terminate: bool = False) -> None:
        await sync_to_async(self.revoke_by_stamped_headers)(headers, terminate=terminate)

    async def arevoke(self, *, terminate: bool = False) -> None:
        await sync_to_async(self.revoke)(terminate=terminate)


def look(handles: Sequence[Any]) -> list[Result]:
    """Return what is known of each task, in one look at each store; those that have ended are told to their handles.

    A handle that is none of a task is passed over.
    """
    leaves = [handle for handle in handles if isinstance(handle, AsyncResult)]
    found: dict[str, dict[str, Result]] = {}
    for store in {leaf.store for leaf in leaves}:
        asked = [leaf.id for leaf in leaves if leaf.store == store and leaf.known is None]
        found[store] = results[store].get(asked) if asked else {}
    for leaf in leaves:
        known = found[leaf.store].get(leaf.id)
        if known is not None and known.final:
            leaf.known = known
    return [leaf.known or found[leaf.store].get(leaf.id) or Result(id=leaf.id, state=states.PENDING) for leaf in leaves]


def line_of(handle: Any) -> list[Any]:
    """Return a handle and those of what came before it, back to the first.

    Not by recursion: a chain may be longer than Python's stack is deep.
    """
    line = []
    while handle is not None:
        line.append(handle)
        handle = handle.parent
    return line


def tuple_of(handle: Any) -> tuple[Any, Any]:
    """Return the ids of a handle and of those before it, of which `result_from_tuple` makes them again."""
    form: Any = None
    for each in reversed(line_of(handle)):
        form = (each.id, form), (None if isinstance(each, AsyncResult) else each._members_as_tuples())
    return cast(tuple[Any, Any], form)


def value_of(result: Result) -> Any:
    """Return what a stored result stands for: a value, or an exception."""
    if result.failure is not None:
        return rebuild(result.failure)
    if result.state in states.FAILED:
        return TaskError(f"Task {result.id} ended as {result.state}.")
    return None if result.value is None else loads(reveal_value(result.value, result.id))
