"""What does a worker write to its log? Signal receivers, in this one file; nothing else logs what happens to tasks."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from logging.handlers import WatchedFileHandler
from typing import Any

from django_tasks import signals, states
from django_tasks.classes import find_class
from django_tasks.encryption import HIDDEN, is_concealed
from django_tasks.exceptions import DecodeError
from django_tasks.losses import Loss
from django_tasks.message import NAME_LENGTH, Delivery, Message
from django_tasks.plan import Outcome
from django_tasks.registry import tasks
from django_tasks.reprs import safe_repr, storable_text
from django_tasks.serializers import loads
from django_tasks.settlement import Done

_worker = logging.getLogger("django_tasks.worker")
_task = logging.getLogger("django_tasks.task")
_broker = logging.getLogger("django_tasks.broker")

LEVELS = ("debug", "info", "warning", "error", "critical")
_SHOWN = 200
_HELD = 1000
"""How many names are kept of tasks that are not known here: they come from outside."""
_held: set[str] = set()
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class LineFormatter(logging.Formatter):
    """One line a record, the data that came with it behind the words; a traceback below."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("[%(asctime)s: %(levelname)s/%(processName)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        data = {key: value for key, value in vars(record).items() if key not in _STANDARD and key not in _QUIET}
        line = super().formatMessage(record)
        return f"{line} ({', '.join(f'{key}={_one_line(value)}' for key, value in data.items())})" if data else line


_QUIET = frozenset({"task", "task_id", "attempt", "state", "runtime", "root_id"})
"""Data that the words of the record say already."""


def _one_line(value: object, limit: int = 2_000) -> str:
    """Return a value's text on one line: what tasks and servers say must not look like records of the log."""
    return "\\n".join(storable_text(str(value), limit).splitlines())


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        told.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def configure(level: str, *, as_json: bool = False, logfile: str | None = None) -> None:
    """Send the records of this package's loggers to standard error or a file; what the project configured for them
    itself stays as it is."""
    root = logging.getLogger("django_tasks")
    if root.handlers:
        root.setLevel(level.upper())
        return
    # Watched: a log that is rotated away is opened anew.
    handler = WatchedFileHandler(logfile, encoding="utf-8") if logfile else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    JsonFormatter.converter = LineFormatter.converter = time.localtime
    root.addHandler(handler)
    root.setLevel(level.upper())
    root.propagate = False


def connect() -> None:
    """Start logging what happens to tasks in this process."""
    signals.received.connect(log_received, dispatch_uid="django_tasks.logs")
    signals.settled.connect(log_settled, dispatch_uid="django_tasks.logs")
    signals.lease_lost.connect(log_lease_lost, dispatch_uid="django_tasks.logs")
    signals.messages_lost.connect(log_messages_lost, dispatch_uid="django_tasks.logs")
    signals.worker_ready.connect(log_ready, dispatch_uid="django_tasks.logs")
    signals.worker_stopping.connect(log_stopping, dispatch_uid="django_tasks.logs")
    signals.worker_stopped.connect(log_stopped, dispatch_uid="django_tasks.logs")


def log_received(*, deliveries: Sequence[Delivery], **_: Any) -> None:
    if not _task.isEnabledFor(logging.INFO):
        return
    for delivery in deliveries:
        message = delivery.message
        _task.info("Task %s[%s] received", _name(message), message.id, extra=_data(delivery))


def log_settled(*, done: Sequence[Done], **_: Any) -> None:
    for delivery, outcome in done:
        if not outcome.interim:
            _log_outcome(delivery, outcome)


def log_lease_lost(*, deliveries: Sequence[Delivery], **_: Any) -> None:
    for delivery in deliveries:
        message = delivery.message
        _task.error(
            "Task %s[%s] is no longer held by this worker; its run is ended and counts for nothing",
            _name(message),
            message.id,
            extra=_data(delivery),
        )


def log_messages_lost(*, losses: Sequence[Loss], **_: Any) -> None:
    for loss in losses:
        told = {"broker": loss.broker, "place": loss.place, "since": loss.since, "until": loss.until}
        _broker.error("%s", loss, extra=told)


def log_ready(sender: Any, **_: Any) -> None:
    _worker.info("%s ready", sender.options.name)


def log_stopping(sender: Any, how: str, **_: Any) -> None:
    _worker.info("%s stopping (%s): %s tasks to end", sender.options.name, how, len(sender.holdings))


def log_stopped(sender: Any, **_: Any) -> None:
    _worker.info("%s stopped: %s tasks done, %s failed", sender.options.name, sender.processed, sender.failed)


def _log_outcome(delivery: Delivery, outcome: Outcome) -> None:
    level = _level(delivery, outcome)
    if not _task.isEnabledFor(level):
        return
    message = delivery.message
    _task.log(
        level,
        "Task %s[%s] %s",
        _name(message),
        message.id,
        _words(outcome, level),
        extra={**_data(delivery), "state": outcome.state, "runtime": round(outcome.runtime, 6)},
    )


def _level(delivery: Delivery, outcome: Outcome) -> int:
    if outcome.state == states.PENDING and outcome.failure is not None:
        return logging.WARNING if _is_new(delivery.message.task) else logging.DEBUG
    if outcome.state != states.FAILURE:
        return logging.WARNING if outcome.requeue is not None and outcome.requeue.spent else logging.INFO
    task = tasks.get(delivery.message.task)
    failure = outcome.failure
    if task is not None and task.options.throws and failure is not None:
        raised = find_class(failure.module, failure.type)
        for error in task.options.throws:
            # A class that was made within a function is found by nobody, and yet has its name.
            named = (error.__module__, error.__qualname__) == (failure.module, failure.type)
            if named or (raised is not None and issubclass(raised, error)):
                return logging.INFO
    return logging.ERROR


def _is_new(name: str) -> bool:
    """Tell whether this is the first message of a task that is not known here: the others need no word each."""
    if name in _held or len(_held) >= _HELD:
        return False
    _held.add(name)
    return True


def _words(outcome: Outcome, level: int) -> str:
    failure = outcome.failure
    why = _one_line(f"{failure.type}: {failure.message}", 500) if failure is not None else ""
    match outcome.state:
        case states.SUCCESS:
            return f"succeeded in {outcome.runtime:.6f}s: {_shown(outcome.value)}"
        case states.FAILURE:
            trace = f"\n{failure.traceback}" if failure is not None and level >= logging.ERROR else ""
            return f"failed in {outcome.runtime:.6f}s: {why}{trace}"
        case states.RETRY if outcome.requeue is not None:
            return f"was lost and goes back to its queue: {why}"
        case states.RETRY:
            return f"is to be retried: {why}"
        case states.PENDING:
            return f"goes back to its queue, for a worker that knows it: {why}" if why else "goes back to its queue"
        case _:
            return f"{outcome.state.lower()}: {why}"


def _shown(value: bytes | None) -> str:
    """Return what a task returned as text; of a large value, its first characters as they are stored."""
    if value is None:
        return "None"
    if is_concealed(value):
        return HIDDEN
    if len(value) > 4 * _SHOWN:
        return value[:_SHOWN].decode("ascii", "replace") + "..."
    try:
        return safe_repr(loads(value), limit=_SHOWN)
    except DecodeError:
        return value[:_SHOWN].decode("ascii", "replace")


def _name(message: Message) -> str:
    return _one_line(message.shadow or message.task, NAME_LENGTH)


def _data(delivery: Delivery) -> dict[str, Any]:
    message = delivery.message
    return {
        "task": message.task,
        "task_id": message.id,
        "attempt": delivery.attempt,
        "root_id": message.root_id or message.id,
    }
