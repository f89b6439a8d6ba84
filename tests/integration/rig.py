"""How do tests drive a pool?"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from django_tasks import states
from django_tasks.message import Delivery, Message, new_id
from django_tasks.plan import Outcome
from django_tasks.pools.base import Pool, PoolOptions
from django_tasks.serializers import encode_body, loads
from django_tasks.task import Task

P = TypeVar("P", bound=Pool)

PATIENCE = 100.0
"""Seconds after which something that should have happened is taken not to happen."""


def delivery(task: Task[Any, Any], *args: Any, deliveries: int = 1, **envelope: Any) -> Delivery:
    """Return a call of a task as a broker would deliver it."""
    message = Message(id=new_id(), task=task.name, body=encode_body(args, {}, {}), **envelope)
    return Delivery(message, (message.id, 1), deliveries)


def value(outcome: Outcome) -> Any:
    assert outcome.state == states.SUCCESS, outcome
    assert outcome.value is not None
    return loads(outcome.value)


def text(outcome: Outcome) -> str:
    """Return the words of a failure."""
    assert outcome.failure is not None, outcome
    return f"{outcome.failure.type}: {outcome.failure.message}"


class Gate:
    """A named pipe that tasks wait at, each for a byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # Both ends, so that neither side waits for the other to open it.
        self._fd = os.open(path, os.O_RDWR)

    def __str__(self) -> str:
        return str(self.path)

    def open(self, count: int = 1) -> None:
        """Let so many go on, whether they are here yet or not."""
        os.write(self._fd, b"." * count)

    def close(self) -> None:
        """Let everybody go on."""
        os.close(self._fd)


def open_when(gate: Gate, test: Callable[[], bool]) -> None:
    """Open a gate as soon as something is so."""
    while not test():
        pass
    gate.open()


class Rig(Generic[P]):
    """A pool, and what has come out of it."""

    def __init__(self, pool: type[P], **options: Any) -> None:
        self._bell = threading.Event()
        self.pool = pool(PoolOptions(**options), self._bell.set)
        self._submitted: dict[int, Delivery] = {}
        self.interim: list[tuple[Delivery, Outcome]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.order: list[str] = []
        self._gates: list[Gate] = []

    def submit(self, *deliveries: Delivery) -> None:
        self._submitted.update((id(each), each) for each in deliveries)
        self.pool.submit(deliveries)

    def drain(self) -> None:
        """Take in what has come out; each delivery must come out at most once, and as the object that went in."""
        for delivery, outcome in self.pool.drain():
            assert id(delivery) in self._submitted
            if outcome.interim:
                self.interim.append((delivery, outcome))
                continue
            task_id = delivery.message.id
            assert task_id not in self.outcomes, f"{task_id} came out twice"
            self.outcomes[task_id] = outcome
            self.order.append(task_id)

    def until(self, test: Callable[[], bool], what: str, patience: float = PATIENCE, look: float = 0.02) -> None:
        """Take in what comes out until something is so. Look when the bell rings, and every so many seconds."""
        deadline = time.monotonic() + patience
        while True:
            self._bell.clear()
            self.drain()
            if test():
                return
            assert time.monotonic() < deadline, f"never: {what}"
            self._bell.wait(look)

    def results(self, deliveries: Iterable[Delivery], patience: float = PATIENCE) -> list[Outcome]:
        """Wait until all of these have come out."""
        ids = [each.message.id for each in deliveries]
        self.until(lambda: all(task_id in self.outcomes for task_id in ids), "all came out", patience, look=patience)
        return [self.outcomes[task_id] for task_id in ids]

    def run(self, *deliveries: Delivery) -> list[Outcome]:
        self.submit(*deliveries)
        return self.results(deliveries)

    def begun(self, path: Path | str, patience: float = PATIENCE) -> None:
        """Wait until a task has left a file to show that it has begun."""
        self.until(Path(path).exists, f"{path} was made", patience)

    def gate(self, path: Path) -> Gate:
        """Make a gate that is open at the latest when the rig is closed."""
        self._gates.append(Gate(path))
        return self._gates[-1]

    def close(self) -> None:
        """Stop the pool at once, and let go whatever it could not end."""
        self.pool.stop(0)
        for gate in self._gates:
            gate.close()
