"""What can go wrong, and what a task can ask for.

DjangoTasksError
├── ConfigurationError           the setting DJANGO_TASKS says something that cannot be
├── NotRegistered                no task of that name is known in this process
├── ScheduleError                a schedule says something that cannot be
├── SerializationError           a value cannot be sent; `path` names where it stands
│   └── ResultNotSerializable    what a task returned cannot be kept; the task has run, and is not run again
├── DecodeError                  bytes from a broker or store are not what they claim to be
│   ├── SignatureError           a message is not signed, or not as it is
│   └── DecryptionError          it is encrypted, and cannot be decrypted here
├── PublishError                 the broker did not take a message
│   ├── BrokerUnavailable        it does not answer
│   ├── BrokerFull               it refuses more
│   └── Unroutable               it has no queue for a message
├── LeaseLost                    another worker may have the task by now: this run must change nothing
├── StoreUnavailable             the result store does not answer
├── ResultTooLarge               the result store has no room for one result of this size
├── ResultTimeout                `AsyncResult.get(timeout=...)` ran out of time
├── IncompleteStream             a task whose children are asked for has not ended
├── TaskError                    how a task ended, seen by whoever waits for its result
│   ├── MaxRetriesExceeded
│   ├── TaskRevoked
│   │   └── TaskExpired
│   ├── TaskRejected
│   ├── TimeLimitExceeded
│   ├── WorkerLostError          its worker process died
│   ├── ChordError               a member of the group that it waited for has failed
│   └── RemoteError              its exception has a class that is not known here
└── SoftTimeLimitExceeded        raised inside the task: time to clean up and leave

Directive                        not an error: a task tells the worker what to do with it
├── Retry
├── Ignore
├── Reject
└── Replaced                     another call runs in the task's place
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured


class DjangoTasksError(Exception):
    """The root of every error of this package."""


class ConfigurationError(DjangoTasksError, ImproperlyConfigured):
    """The setting DJANGO_TASKS says something that cannot be."""


class NotRegistered(DjangoTasksError, LookupError):
    """No task of that name is known in this process."""

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(name, hint)
        self.name = name
        self.hint = hint

    def __str__(self) -> str:
        return f"No task named {self.name!r} is registered here. {self.hint}".strip()


class ScheduleError(DjangoTasksError, ValueError):
    """A schedule says something that cannot be; the message names the field, what it says and what is allowed."""


class SerializationError(DjangoTasksError, TypeError):
    """A value cannot be sent."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ResultNotSerializable(SerializationError):
    """What a task returned cannot be kept; the task has run, and is not run again."""


class DecodeError(DjangoTasksError, ValueError):
    """Bytes from a broker or a store are not what they claim to be."""


class SignatureError(DecodeError):
    """A message is not signed, or not as it is: nothing of it was decoded or run."""


class DecryptionError(DecodeError):
    """A body or a result is encrypted with a key that is not here, or is not what was encrypted."""


class PublishError(DjangoTasksError):
    """The broker did not take a message; nothing of the batch was queued."""


class BrokerUnavailable(PublishError, ConnectionError):
    """The broker does not answer."""


class BrokerFull(PublishError):
    """The broker refuses more messages."""


class Unroutable(PublishError):
    """The broker has no queue for a message.

    `ids` are those of the messages that it concerns, where all others of the batch were published; empty where nobody
    can tell.
    """

    def __init__(self, message: str = "", ids: Collection[str] = ()) -> None:
        super().__init__(message)
        self.ids = frozenset(ids)


class LeaseLost(DjangoTasksError):
    """Another worker may have the task by now: this run must change nothing."""


class StoreUnavailable(DjangoTasksError, ConnectionError):
    """The result store does not answer."""


class ResultTooLarge(DjangoTasksError):
    """The result store has no room for one result of this size; the task has run, and is not run again."""


class ResultTimeout(DjangoTasksError, TimeoutError):
    """The task did not end in the time that the caller was willing to wait."""


class IncompleteStream(DjangoTasksError):
    """A task whose children are asked for has not ended, so that it may have more."""


class TaskError(DjangoTasksError):
    """How a task ended, seen by whoever waits for its result."""


class MaxRetriesExceeded(TaskError):
    """The task asked for one retry more than it may have."""


class TaskRevoked(TaskError):
    """The task was revoked before or while it ran."""


class TaskRejected(TaskError):
    """The task, or the worker on its behalf, refused the message."""


class TaskExpired(TaskRevoked):
    """The task was not begun before it expired."""


class TimeLimitExceeded(TaskError):
    """The task ran longer than its hard time limit and was ended."""


class ChordError(TaskError):
    """A member of the group that a task waited for has failed; its `__cause__` tells how."""


class WorkerLostError(TaskError):
    """The process that ran the task died."""


class RemoteError(TaskError):
    """The exception of a task whose class is not known here."""

    def __init__(self, exc_module: str, exc_type: str, exc_message: str) -> None:
        super().__init__(exc_module, exc_type, exc_message)
        self.exc_module = exc_module
        self.exc_type = exc_type
        self.exc_message = exc_message

    def __str__(self) -> str:
        return f"{self.exc_module}.{self.exc_type}: {self.exc_message}"


class SoftTimeLimitExceeded(DjangoTasksError):
    """Raised inside a task that ran longer than its soft time limit: time to clean up and leave."""


class Directive(Exception):  # control flow, not an error
    """A task tells the worker what to do with it."""


class Retry(Directive):
    """Run this task again later."""

    def __init__(
        self, message: str = "", exc: BaseException | None = None, when: datetime | float | None = None
    ) -> None:
        super().__init__(message, exc, when)
        self.message = message
        self.exc = exc
        self.when = when

    def __str__(self) -> str:
        return self.message or f"Retry: {self.exc!r}"


class Ignore(Directive):
    """Keep no result and change no state: the task itself has seen to it."""


class Reject(Directive):
    """Refuse the message: end it as REJECTED, or put it back for another worker."""

    def __init__(self, reason: Any = None, *, requeue: bool = False) -> None:
        super().__init__(reason, requeue)
        self.reason = reason
        self.requeue = requeue

    def __str__(self) -> str:
        return f"rejected: {self.reason}"


class Replaced(Directive):
    """Another call runs in the task's place, under its id; raised by `Task.replace`."""

    def __init__(self, plan: Any) -> None:
        super().__init__("replaced")
        self.plan = plan
        """What must be written for the other to begin."""
