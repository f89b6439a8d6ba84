"""How do deliveries and outcomes cross between a pool and its child processes?

Both sides are forks of one program, so frames need no version. Nothing is pickled: exceptions, plans and messages go as
tuples of built-in values.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from django_tasks.failure import Failure
from django_tasks.message import FIELDS, Delivery, Message, message_of
from django_tasks.plan import NOTHING, Group, Outcome, Part, Plan, Requeue, Result

Row = tuple[Any, ...]

_LENGTH = struct.Struct(">I")
_DEPTH = 50
"""How deep a value may be nested that marshal cannot carry as it is."""

_RECEIPTS = (tuple, str, int, bytes, type(None))
_KEPT = "kept by the pool"

_TIMES = tuple(index for index, field in enumerate(fields(Message)) if "datetime" in str(field.type))
_HEADERS = FIELDS.index("headers")
_message_row = attrgetter(*FIELDS)

_from_state: Any = datetime
# The base's own methods: a subclass may have overridden its conversion.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, lambda value: str.__add__(value, "")),
    (bytes, lambda value: bytes.__add__(value, b"")),
    (int, int.__int__),
    (float, float.__float__),
)

_OUTCOME = tuple(field.name for field in fields(Outcome))
_FAILURE, _PLAN, _REQUEUE = map(_OUTCOME.index, ("failure", "plan", "requeue"))
_outcome_row = attrgetter(*_OUTCOME)
# A frozen dataclass sets its fields one by one through object.__setattr__: filling the slots costs a third of that.
_outcome_slots = tuple(getattr(Outcome, name).__set__ for name in _OUTCOME)
_failure_row = attrgetter(*(field.name for field in fields(Failure)))


def frame(value: Any) -> bytes:
    """Return a value of built-in types as bytes with their length before them."""
    try:
        payload = marshal.dumps(value)
    except ValueError:
        payload = marshal.dumps(_plain(value, _DEPTH))
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Bytes that come in pieces, cut into frames; what a dead writer left unfinished is never seen."""

    __slots__ = ("_needed", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = 0

    @property
    def partial(self) -> bool:
        """Tell whether a frame has come in part."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Any]:
        """Add bytes; return the values that are complete."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
        view = memoryview(data)
        found = []
        start, size, needed = 0, len(data), 4
        while size - start >= 4:
            needed = 4 + _LENGTH.unpack_from(data, start)[0]
            if size - start < needed:
                break
            found.append(marshal.loads(view[start + 4 : start + needed]))  # noqa: S302  # a fork of this process wrote it
            start += needed
            needed = 4
        self._rest = bytearray(view[start:])
        self._needed = needed
        return found


def delivery_row(delivery: Delivery) -> Row:
    """Return a delivery as built-in values. A receipt that is none of these stays with the pool."""
    receipt = delivery.receipt if type(delivery.receipt) in _RECEIPTS else _KEPT
    told = (delivery.deliveries, delivery.exchange, delivery.routing_key, delivery.seen_at, delivery.ahead)
    return (_message(delivery.message), receipt, *told)


def delivery_from(row: Row) -> Delivery:
    """Return the delivery that a row was made of."""
    message, receipt, *told = row
    return Delivery(_message_from(message), receipt, *told)


def outcome_row(outcome: Outcome) -> Row:
    """Return an outcome as built-in values."""
    row = list(_outcome_row(outcome))
    if outcome.failure is not None:
        row[_FAILURE] = _failure_row(outcome.failure)
    row[_PLAN] = _plan(outcome.plan) if outcome.plan else None
    if outcome.requeue is not None:
        row[_REQUEUE] = (outcome.requeue.delay, outcome.requeue.spent)
    return tuple(row)


def outcome_from(row: Row) -> Outcome:
    """Return the outcome that a row was made of."""
    values = list(row)
    if values[_FAILURE] is not None:
        values[_FAILURE] = Failure(*values[_FAILURE])
    values[_PLAN] = NOTHING if values[_PLAN] is None else _plan_from(values[_PLAN])
    if values[_REQUEUE] is not None:
        values[_REQUEUE] = Requeue(*values[_REQUEUE])
    outcome = Outcome.__new__(Outcome)
    for fill, value in zip(_outcome_slots, values, strict=True):
        fill(outcome, value)
    return outcome


def _plan(plan: Plan) -> Row:
    return (
        [_message(message) for message in plan.messages],
        [_group(group) for group in plan.groups],
        [_result(result) for result in plan.results],
        [(part.place, part.task_id, part.value, _failed(part.failure)) for part in plan.parts],
    )


def _plan_from(row: Row) -> Plan:
    messages, groups, results, parts = row
    return Plan(
        tuple(map(_message_from, messages)),
        tuple(map(_group_from, groups)),
        tuple(map(_result_from, results)),
        tuple(Part(place, task_id, value, _failure_from(failed)) for place, task_id, value, failed in parts),
    )


def _group(group: Group) -> Row:
    then, failed = _plan(group.then), _failed(group.failure)
    return (group.id, group.size, then, group.place, failed, group.root_id, group.parent_id)


def _group_from(row: Row) -> Group:
    group_id, size, then, place, failed, root_id, parent_id = row
    return Group(group_id, size, _plan_from(then), place, _failure_from(failed), root_id, parent_id)


def _result(result: Result) -> Row:
    """Return the result of a task that will not run: nothing of a run is in it."""
    ended = None if result.ended_at is None else result.ended_at.isoformat()
    return ([getattr(result, name) for name in _UNRUN], _failed(result.failure), ended)


def _result_from(row: Row) -> Result:
    told, failed, ended = row
    ended_at = None if ended is None else datetime.fromisoformat(ended)
    return Result(**dict(zip(_UNRUN, told, strict=True)), failure=_failure_from(failed), ended_at=ended_at)


_UNRUN = ("id", "state", "task", "queue", "args_repr", "kwargs_repr", "root_id", "parent_id", "group_id", "reply_to")


def _failed(failure: Failure | None) -> Row | None:
    return None if failure is None else _failure_row(failure)


def _failure_from(row: Row | None) -> Failure | None:
    return None if row is None else Failure(*row)


def _message(message: Message) -> list[Any]:
    row = list(_message_row(message))
    for index in _TIMES:
        time = row[index]
        if time is not None:
            # What datetime itself gives to copies of it is made and read six times as fast as text.
            row[index] = time.__reduce__()[1][0] if time.tzinfo is UTC else time.isoformat()
    row[_HEADERS] = dict(row[_HEADERS])
    return row


def _message_from(row: list[Any]) -> Message:
    for index in _TIMES:
        time = row[index]
        if time is not None:
            row[index] = _from_state(time, UTC) if type(time) is bytes else datetime.fromisoformat(time)
    return message_of(row)


def _plain(value: Any, depth: int) -> Any:
    """Return what marshal can carry in place of a value: a subclass as its base, what it does not know as text."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if depth and isinstance(value, Mapping):
        return {_plain(key, 0): _plain(each, depth - 1) for key, each in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        items = (_plain(each, depth - 1) for each in value)
        return list(items) if isinstance(value, list) else tuple(items)
    for base, plain in _BASES:
        if isinstance(value, base):
            return plain(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str.__add__(str(value), "")
    except Exception:  # noqa: BLE001  # the class of a header's value is not ours
        return object.__repr__(value)
