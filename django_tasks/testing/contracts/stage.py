"""How does a suite run a pool and see what it does?"""

from __future__ import annotations

import os
import select
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from django_tasks import Task
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome
from django_tasks.pools.base import Done, Pool, PoolOptions
from django_tasks.serializers import loads


def sealed(task: Task[Any, Any], *args: Any) -> Message:
    """Return the message of a call."""
    return task.s(*args).plan().messages[0]


def delivery(task: Task[Any, Any], *args: Any, soft: float | None = None, hard: float | None = None) -> Delivery:
    """Return a call as a worker fetches it, with limits of its own."""
    message = replace(sealed(task, *args), soft_time_limit=soft, time_limit=hard)
    return Delivery(message, receipt=object(), deliveries=1)


def value(outcome: Outcome) -> Any:
    """Return what the task returned."""
    assert outcome.state == "SUCCESS", outcome.failure
    assert outcome.value is not None
    return loads(outcome.value)


class Gate:
    """A place where tasks wait until they are let through, and where they are seen to arrive."""

    def __init__(self, folder: Path) -> None:
        self.began, self.gate = str(folder / "began"), str(folder / "gate")
        for path in (self.began, self.gate):
            os.mkfifo(path)
        # Both ways, so that neither side waits for the other to open it, and no end comes before it is meant.
        self._arrivals = os.open(self.began, os.O_RDWR | os.O_NONBLOCK)
        self._way = os.open(self.gate, os.O_RDWR | os.O_NONBLOCK)

    def arrived(self, number: int = 1, patience: float = 20.0) -> list[int]:
        """Wait until so many tasks have begun; return the ids of their processes."""
        deadline = time.monotonic() + patience
        told = b""
        while told.count(b"\n") < number:
            readable, _, _ = select.select([self._arrivals], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{len(told.split())} of {number} tasks began in time"
            told += os.read(self._arrivals, 4096)
        return [int(line) for line in told.split()]

    def nobody_else(self) -> bool:
        """Tell whether nobody has arrived who was not asked for."""
        return not select.select([self._arrivals], [], [], 0)[0]

    def open(self, number: int = 1) -> None:
        """Let so many tasks through."""
        os.write(self._way, b"." * number)

    def close(self) -> None:
        """Let everybody go who is still there."""
        for fd in (self._way, self._arrivals):
            os.close(fd)
        for path in (self.began, self.gate):
            Path(path).unlink()


class Stage:
    """A pool that was started, and what has come out of it."""

    def __init__(self, pool: type[Pool], folder: Path, patience: float) -> None:
        self._make = pool
        self._folder = folder
        self._patience = patience
        self._rung = threading.Event()
        self._gates: list[Gate] = []
        self._pools: list[Pool] = []
        self._early: list[Done] = []
        self.came: list[Done] = []
        """All that `drain` gave, interim outcomes included."""

    def start(self, options: PoolOptions) -> Pool:
        pool = self._make(options, self._rung.set)
        self._pools.append(pool)
        pool.start()
        return pool

    def gate(self) -> Gate:
        folder = self.folder()
        self._gates.append(Gate(folder))
        return self._gates[-1]

    def folder(self) -> Path:
        """Return an empty folder."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def drain(self, pool: Pool) -> list[Done]:
        """Return what has come out and was not asked for yet, without interim outcomes."""
        new = pool.drain()
        self.came += new
        ended, self._early = [*self._early, *(pair for pair in new if not pair[1].interim)], []
        return ended

    def outcomes(self, pool: Pool, number: int) -> list[Done]:
        """Wait, by the bell, until so many deliveries have come out; keep what comes beyond that for the next call."""
        ended: list[Done] = []
        deadline = time.monotonic() + self._patience
        while len(ended) < number:
            self._rung.clear()
            new = self.drain(pool)
            ended += new
            if not new and not self._rung.wait(max(0.0, deadline - time.monotonic())):
                silent = self.drain(pool)
                assert not silent, f"{len(silent)} deliveries came out and the bell was not rung"
                raise AssertionError(f"only {len(ended)} of {number} deliveries came out in time")
        self._early = ended[number:]
        return ended[:number]

    def run(self, pool: Pool, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Submit deliveries; return their outcomes in this order."""
        pool.submit(deliveries)
        by_delivery = {id(delivery): outcome for delivery, outcome in self.outcomes(pool, len(deliveries))}
        return [by_delivery[id(delivery)] for delivery in deliveries]

    def close(self) -> None:
        for pool in self._pools:
            pool.stop(0.0)
        for gate in self._gates:
            gate.close()
