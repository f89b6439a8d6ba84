"""How does an exception travel from the process where it was raised to whoever asks for the result?

As text: its names, its message, its traceback and, where they can be sent, its arguments. It is never pickled, so an
exception that cannot be made again harms nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MemberDescriptorType
from typing import Any

from django_tasks import tracebacks
from django_tasks.classes import attribute, builtin_ancestor, find_class, qualified_name
from django_tasks.exceptions import DecodeError, RemoteError
from django_tasks.reprs import storable_text
from django_tasks.serializers import Limits, dumps, loads

MESSAGE_LENGTH = 8_192
TRACEBACK_LENGTH = 65_536
NAME_LENGTH = 255

_ARGS_LIMITS = Limits(nodes=10_000, bytes=16_384)
_ATTRIBUTES = 50
_CONTROL_FLOW = (StopIteration, StopAsyncIteration)
"""Exceptions that steer loops: raised by `AsyncResult.get` they would end one of the caller's in silence."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as text."""

    type: str
    """The qualified name of its class."""
    module: str
    message: str = ""
    args: str | None = None
    """JSON: the arguments, or {"args": [...], "attributes": {...}} when attributes were set too.

    None when the arguments cannot be sent."""
    traceback: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {
            "type": self.type,
            "module": self.module,
            "message": self.message,
            "args": self.args,
            "traceback": self.traceback,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Failure:
        """Return the failure that `as_dict` described; DecodeError when it cannot have."""
        texts = {name: found.get(name, "") for name in ("type", "module", "message", "traceback")}
        args, notes = found.get("args"), found.get("notes", [])
        if (
            not (args is None or type(args) is str)
            or type(notes) not in {list, tuple}
            or any(type(text) is not str for text in (*texts.values(), *notes))
        ):
            raise DecodeError("the description of a failure has something else than text where text belongs")
        return cls(**texts, args=args, notes=tuple(notes))


def capture(
    exc: BaseException, *, message_limit: int = MESSAGE_LENGTH, traceback_limit: int = TRACEBACK_LENGTH
) -> Failure:
    """Describe an exception; never raises, whatever the exception does.

    All text is storable in any database and bounded, in characters. The traceback tells causes, groups and notes,
    leaves out this package's own frames at its top, and holds no local variables. Nothing keeps the exception alive
    afterwards. A `__str__` of its own may take any time: call this where a time limit holds.
    """
    module, qualname = qualified_name(type(exc))
    return Failure(
        type=storable_text(qualname, NAME_LENGTH),
        module=storable_text(module, NAME_LENGTH),
        message=tracebacks.message(exc, message_limit),
        args=_args(exc),
        traceback=tracebacks.format_exception(exc, traceback_limit),
        notes=tracebacks.notes(exc),
    )


def _args(exc: BaseException) -> str | None:
    # What the builtin ancestor would give to pickle tells more than the arguments: an OSError's file name, for one.
    try:
        _, args, *rest = builtin_ancestor(type(exc)).__reduce__(exc)
    except BaseException:  # noqa: BLE001  # some ancestors ask for attributes, which may run code of the class
        return None
    sent = _sendable(list(args))
    if sent is None:
        return None
    attributes = {
        name: value
        for name, value in list(rest[0].items() if rest else ())[:_ATTRIBUTES]
        if type(name) is str and not name.startswith("__") and _sendable(value) is not None
    }
    if not attributes:
        return sent
    return _sendable({"args": list(args), "attributes": attributes}) or sent


def _sendable(value: object) -> str | None:
    """Return a value as JSON, None when it cannot be sent."""
    try:
        return dumps(value, limits=_ARGS_LIMITS).decode("ascii")
    except BaseException:  # noqa: BLE001  # a value's class may be hostile in other ways than by a SerializationError
        return None


def rebuild(failure: Failure) -> BaseException:
    """Return an exception to raise for a failure, with the remote traceback as its last note.

    It has the class of the original if that is an Exception in a module that this process has imported already; else it
    is a RemoteError. So are those that are no errors (SystemExit, KeyboardInterrupt, CancelledError, StopIteration),
    which would end the caller's loop or process. Neither `__init__` nor `__new__` of the class runs: the exception gets
    the original's arguments and attributes as far as these could be sent, else its message as the only argument. If
    its `__str__` misses some of them, it becomes a RemoteError as well.
    """
    exc = _remade(failure)
    if exc is None:
        exc = RemoteError(failure.module, failure.type, failure.message)
    told = list(failure.notes)
    if failure.traceback:
        told.append(f"The traceback in the worker was:\n{failure.traceback}")
    if told:
        _attributes(exc)["__notes__"] = told
    return exc


_attributes: Any = attribute(BaseException, "__dict__").__get__


def _remade(failure: Failure) -> BaseException | None:
    cls = find_class(failure.module, failure.type)
    if cls is None or not issubclass(cls, Exception) or issubclass(cls, _CONTROL_FLOW):
        return None
    builtin = builtin_ancestor(cls)
    args, attributes = _read_args(failure)
    try:
        # Those of the builtin ancestor: OSError keeps its errno in fields of its own, others check what they get.
        exc: BaseException = builtin.__new__(cls, *args)
        builtin.__init__(exc, *args)
        for name, value in attributes.items():
            _set(exc, attribute(builtin, name), name, value)
    except (TypeError, ValueError, OverflowError):
        return None
    try:
        str(exc)
    except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001  # code of the class ran
        return None
    return exc


def _set(exc: BaseException, field: Any, name: str, value: Any) -> None:
    if type(field) is MemberDescriptorType:  # ImportError.name
        field.__set__(exc, value)
    else:
        _attributes(exc)[name] = value


def _read_args(failure: Failure) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        found = None if failure.args is None else loads(failure.args.encode("utf-8", "replace"))
    except DecodeError:
        found = None
    if type(found) is list:
        return tuple(found), {}
    if type(found) is dict and type(found.get("args")) is list and type(found.get("attributes")) is dict:
        names = {name: value for name, value in found["attributes"].items() if type(name) is str and name[:2] != "__"}
        return tuple(found["args"]), names
    return (failure.message,), {}
