"""What follows a step of a chain, and how does it travel?

All that is left of a chain travels with each of its steps, and is read and written again at each. A step of a long
chain would cost more than one of a short chain. So only the next steps of a long one travel in Celery's form; the
others are packed into blocks, which are carried along unread until their turn has come.

The blocks stand in a call of a task of our own, the last of the chain. A worker of ours never sends it. One of Celery's
does when it has run the step before: then that task goes on with the chain.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from django_tasks.compression import COMPRESSIONS, expanded
from django_tasks.context import current_request
from django_tasks.exceptions import DecodeError, SerializationError
from django_tasks.message import member_id, new_group_id
from django_tasks.routing import place_for
from django_tasks.serializers import LIMITS, dumps, loads

REST = "django_tasks.rest"
"""The name of the task whose call holds the rest of a chain."""

WHOLE = 100
"""Steps that may wait without any of them being packed: a chain of so many looks as it does in Celery."""
AHEAD = 20
"""Steps of a longer chain that are not packed, and those of a block."""
LONGEST = 20_000
"""Steps that may wait in one message."""
LARGEST = 16 * LIMITS.bytes
"""Bytes of JSON that they may be, before they are packed."""

_ZLIB = COMPRESSIONS["zlib"]
_BETWEEN = "."
"""Between two blocks: a character that base64 does not have."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Steps that are packed."""

    packed: str
    """Blocks: JSON of steps in order, compressed, in base64."""
    steps: int
    size: int
    """Bytes of JSON."""
    queue: str
    """Where the task is sent that goes on with them, if it is sent."""

    @classmethod
    def found_in(cls, kwargs: Any, queue: Any = None) -> Self | None:
        """Return the steps that a call holds, by its arguments; None if it does not look like one that does."""
        if not isinstance(kwargs, dict):
            return None
        packed, steps, size = (kwargs.get(name) for name in ("packed", "steps", "size"))
        if not isinstance(packed, str) or type(steps) is not int or type(size) is not int:
            return None
        return cls(packed, steps, size, queue if isinstance(queue, str) else "") if packed and steps and size else None

    def form(self) -> dict[str, Any]:
        """Return the call that holds these steps."""
        return {
            "task": REST,
            "args": [],
            "kwargs": {"packed": self.packed, "steps": self.steps, "size": self.size},
            "options": {"queue": self.queue} if self.queue else {},
            "subtask_type": None,
            "immutable": False,
        }

    def opened(self) -> tuple[list[Any], Rest | None]:
        """Return the steps of the first block, and the other blocks; raises DecodeError."""
        block, _, packed = self.packed.partition(_BETWEEN)
        try:
            text = expanded(b64decode(block, validate=True), _ZLIB.content_type)
        except (binascii.Error, ValueError) as error:
            raise DecodeError(f"the steps of a chain are not packed as they should be: {error}") from error
        steps = loads(text)
        if type(steps) is not list or not 0 < len(steps) <= AHEAD:
            raise DecodeError(f"what is packed are not up to {AHEAD} steps of a chain")
        left = replace(self, packed=packed, steps=self.steps - len(steps), size=self.size - len(text))
        if left.steps < 0 or left.size < 0 or self.steps > LONGEST or self.size > LARGEST:
            raise DecodeError("more steps of a chain are packed than should be")
        return steps, left if packed else None


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows a step of a chain, in order: nodes or their forms, and the steps behind them, which are packed."""

    ahead: tuple[Any, ...] = ()
    rest: Rest | None = None

    @classmethod
    def of(cls, chain: Sequence[Any]) -> Self:
        """Return what follows a step, of what its message says: forms, the last one first."""
        rest = _rest_of(chain[0]) if chain else None
        return cls(tuple(chain[::-1])) if rest is None else cls(tuple(chain[:0:-1]), rest)

    def __bool__(self) -> bool:
        return bool(self.ahead) or self.rest is not None

    def after(self, *nodes: Any) -> Self:
        """Return what follows, with other nodes before it."""
        return replace(self, ahead=(*nodes, *self.ahead))

    def parted(self) -> tuple[Any, Self]:
        """Return the step that comes next, and what follows that; raises DecodeError."""
        ahead, rest = self.ahead, self.rest
        if not ahead and rest is not None:
            opened, rest = rest.opened()
            ahead = tuple(opened)
        return ahead[0], replace(self, ahead=ahead[1:], rest=rest)

    def every(self) -> Iterator[Any]:
        """Give all steps in order; raises DecodeError where some cannot be read."""
        yield from self.ahead
        rest = self.rest
        while rest is not None:
            opened, rest = rest.opened()
            yield from opened

    def chain(self, *, whole: bool = False) -> list[Any]:
        """Return what a message says of it; with `whole` nothing is packed that is not.

        Raises SerializationError for more than one message may carry.
        """
        ahead, rest = self.ahead, self.rest
        if not whole and len(ahead) > WHOLE:
            ahead, rest = ahead[:AHEAD], _packed(ahead, rest)
        return [*([] if rest is None else [rest.form()]), *reversed(ahead)]

    @property
    def steps(self) -> int:
        """How many steps there are, as far as that is told."""
        return len(self.ahead) + (0 if self.rest is None else self.rest.steps)


def number(steps: Sequence[Any]) -> None:
    """Give to the tasks among many nodes ids that differ by a number alone: packed, they take half the room."""
    if len(steps) < WHOLE:
        return
    base = new_group_id()
    for index, step in enumerate(steps):
        if step.subtask_type is None:
            step.options.setdefault("task_id", member_id(base, index))


def _rest_of(form: Any) -> Rest | None:
    """Return the steps that a form holds, if it is that of the rest of a chain."""
    if not isinstance(form, dict) or form.get("task") != REST:
        return None
    options = form.get("options")
    return Rest.found_in(form.get("kwargs"), options.get("queue") if isinstance(options, dict) else None)


def _packed(steps: Sequence[Any], behind: Rest | None) -> Rest:
    """Pack all steps but the first ones, before those that are packed; raises SerializationError."""
    rest = Rest("", 0, 0, _queue()) if behind is None else behind
    waiting, size = rest.steps + len(steps) - AHEAD, rest.size
    blocks = []
    for begin in range(AHEAD, len(steps), AHEAD):
        text = dumps(list(steps[begin : begin + AHEAD]), root=f"chain[{begin}:]")
        size += len(text)
        if waiting > LONGEST or size > LARGEST:
            raise SerializationError(
                "chain",
                f"{waiting:,} steps wait behind the first {AHEAD}, {size:,} bytes of JSON or more; no more than "
                f"{LONGEST:,} may, and {LARGEST:,} bytes; have its last task send what comes after it",
            )
        blocks.append(b64encode(_ZLIB.compress(text)).decode("ascii"))
    return replace(rest, packed=_BETWEEN.join(filter(None, [*blocks, rest.packed])), steps=waiting, size=size)


def _queue() -> str:
    """Return where the rest is sent if it is sent: its route; or where the task came from that is running, since a
    worker takes from there; or the default queue."""
    request = current_request()
    return place_for(REST, (), {}, {}, declared=None if request is None else request.message.queue).queue
