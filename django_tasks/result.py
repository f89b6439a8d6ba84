"""What came of a task? The handle that a caller holds."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar, cast

from asgiref.sync import sync_to_async

from django_tasks import databases, states
from django_tasks.connections import results
from django_tasks.context import may_join
from django_tasks.control.client import revoke
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

    __slots__ = ("id", "ignored", "known", "parent", "store")

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
        return self if self.parent is None else self.parent.first

    def as_tuple(self) -> tuple[Any, None]:
        """Return the ids, of which `result_from_tuple` makes the handle again."""
        return (self.id, None if self.parent is None else self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Return the ids of this task and of those before it."""
        return [self.id] if self.parent is None else [self.id, *self.parent.as_list()]

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
        if self.known is None:
            self.ignored = not self.fetch().final
            results[self.store].forget([self.id])
        if self.parent is not None:
            self.parent.take()

    def revoke(self, *, terminate: bool = False) -> None:
        """Revoke the task; with `terminate` also while it runs."""
        revoke([self.id], terminate=terminate)

    async def aforget(self) -> None:
        await sync_to_async(self.forget)()

    async def arevoke(self, *, terminate: bool = False) -> None:
        await sync_to_async(self.revoke)(terminate=terminate)


def value_of(result: Result) -> Any:
    """Return what a stored result stands for: a value, or an exception."""
    if result.failure is not None:
        return rebuild(result.failure)
    if result.state in states.FAILED:
        return TaskError(f"Task {result.id} ended as {result.state}.")
    return None if result.value is None else loads(reveal_value(result.value, result.id))
