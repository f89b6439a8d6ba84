"""How do tasks run in the worker's own thread?"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType

from django_tasks import databases, endings, execution
from django_tasks.exceptions import SoftTimeLimitExceeded, TaskRevoked
from django_tasks.interrupt import Interruptible, here
from django_tasks.message import Clock, Delivery
from django_tasks.plan import Outcome
from django_tasks.pools.base import Done, Pool, PoolFeatures, PoolOptions, Running

RESTRIKE = 0.05
"""Seconds until a soft limit is tried again on a task that had not entered its function yet."""


class SoloPool(Pool):
    """Runs tasks one after the other, within `submit`, in the thread that calls it.

    Meanwhile nothing else happens in that thread: what is submitted together comes out together. Soft limits need the
    main thread, whose alarm timer they use; there are no hard ones. A cancellation from another thread raises in
    the task as far as Python can: not inside a blocking call.
    """

    features = PoolFeatures(soft_limit=True)

    def __init__(self, options: PoolOptions, bell: Callable[[], None], *, clock: Clock = time.time) -> None:
        super().__init__(options, bell, clock=clock)
        self.size = 1
        self._inbox: deque[tuple[Delivery, float]] = deque()
        self._done: deque[Done] = deque()
        self._current: Running | None = None
        self._gate: Interruptible | None = None
        self._stopped = False

    @property
    def free(self) -> int:
        return 1 if self._current is None and not self._inbox else 0

    def start(self) -> None:
        """There is nothing to make ready."""

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        now = time.monotonic()
        self._inbox.extend((delivery, now) for delivery in deliveries)
        if self._current is not None:  # a task runs here, and submits
            return
        while self._inbox:
            delivery, _ = self._inbox.popleft()
            outcome = endings.handed_back(delivery) if self._stopped else self._run(delivery)
            self._done.append((delivery, outcome))
        self.bell()

    def drain(self) -> list[Done]:
        return [self._done.popleft() for _ in range(len(self._done))]

    def reclaim(self, older_than: float = 0.0) -> list[Delivery]:
        before = time.monotonic() - older_than
        taken = [entry for entry in list(self._inbox) if entry[1] <= before]
        for entry in taken:
            self._inbox.remove(entry)
        return [delivery for delivery, _ in taken]

    def running(self) -> list[Running]:
        current = self._current
        return [] if current is None else [current]

    def cancel(self, task_id: str, *, kill: bool = False) -> bool:
        current, gate = self._current, self._gate
        if current is None or gate is None or current.delivery.message.id != task_id:
            return False
        return gate.strike(current.delivery, TaskRevoked)

    def resize(self, size: int) -> None:
        """Change nothing: there is one thread."""

    def stop(self, timeout: float) -> None:
        self._stopped = True

    def _run(self, delivery: Delivery) -> Outcome:
        gate = self._gate = here()
        site = execution.Site(
            worker=self.options.worker,
            time_limit=self.options.time_limit,
            soft_time_limit=self.options.soft_time_limit,
            report=self._report,
            interruptible=gate,
            clock=self.clock,
        )
        _, soft = endings.limits(delivery, self.options)
        self._current = Running(delivery, self.clock(), os.getpid())
        try:
            with _alarm(gate, delivery, soft):
                return copy_context().run(execution.execute, delivery, site)
        finally:
            self._current = None
            if gate.struck:  # what stopped half-way may have been a query
                databases.close_all()

    def _report(self, delivery: Delivery, outcome: Outcome) -> None:
        with here().shield:
            self._done.append((delivery, outcome))
            self.bell()


@contextmanager
def _alarm(gate: Interruptible, delivery: Delivery, soft: float | None) -> Iterator[None]:
    """Strike the task when its soft limit has passed, if this is a thread that can."""
    if soft is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def strike(number: int, where: FrameType | None) -> None:
        gate.strike(delivery, SoftTimeLimitExceeded)

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, strike)
    left, interval = signal.setitimer(signal.ITIMER_REAL, soft, RESTRIKE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's alarm goes off when it was to
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)), interval)
