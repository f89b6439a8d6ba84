"""How do tasks run in child processes?"""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from django.db import connections

from django_tasks.message import Clock, Delivery
from django_tasks.pools import child
from django_tasks.pools.base import Done, Pool, PoolFeatures, PoolOptions, Running
from django_tasks.pools.crew import Crew

LOOK = 1.0
"""Seconds after which the pool looks whether all is well, with no reason to."""

_log = logging.getLogger("django_tasks.worker")


class PreforkPool(Pool):
    """Runs each task in one of several child processes, which come from a clean template process.

    The pool's own thread takes in results, feeds the children and enforces limits; a thread that submits or drains
    does the same while it is here, so that no task waits for another thread to be scheduled. One lock guards it all.
    The kernel ends all processes of the pool when the thread that started it ends.
    """

    features = PoolFeatures(soft_limit=True, hard_limit=True, cancel=True, survives=True, resize=True)

    def __init__(self, options: PoolOptions, bell: Callable[[], None], *, clock: Clock = time.time) -> None:
        super().__init__(options, bell, clock=clock)
        self._guard = threading.Lock()
        self._crew = Crew(options)
        self._wakes_at = 0.0
        self._ended = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="django_tasks.pool", daemon=True)
        self._woken, self._waker = os.pipe()
        self._raised = False

    @property
    def exhausted(self) -> bool:
        """Whether no child can be forked any more: the worker must be started anew."""
        return self._crew.lost

    @property
    def free(self) -> int:
        return 0 if self._crew.lost else max(0, self.size - self._crew.unfinished)

    def start(self) -> None:
        others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
        if others:
            _log.warning(
                "Threads run before the pool starts; a lock that one holds may stay locked in all children. Start them "
                "later, for example on the signal child_started",
                extra={"threads": others},
            )
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()
        self._crew.template.start(partial(child.live, options=self.options, pool=type(self)))
        self._crew.selector.register(self._crew.template.control, selectors.EVENT_READ, self._crew.hear)
        self._crew.selector.register(self._woken, selectors.EVENT_READ, _nothing)
        with self._guard:
            self._see_to()
        self._thread.start()

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        with self._guard:
            self._crew.add(deliveries, time.monotonic())
            ring = self._see_to()
        if ring:
            self.bell()

    def drain(self) -> list[Done]:
        if not self._ended.is_set() and self._guard.acquire(blocking=False):
            try:
                self._crew.watch()
                self._see_to()
            finally:
                self._guard.release()
        done = self._crew.done
        return [done.popleft() for _ in range(len(done))]

    def reclaim(self, older_than: float = 0.0) -> list[Delivery]:
        with self._guard:
            return self._crew.reclaim(time.monotonic() - older_than)

    def running(self) -> list[Running]:
        with self._guard:
            epoch = self.clock() - time.monotonic()
            return [
                Running(job.delivery, epoch + handle.since, handle.pid)
                for handle in self._crew.children.values()
                if handle.jobs and (job := handle.begun) is not None
            ]

    def cancel(self, task_id: str, *, kill: bool = False) -> bool:
        with self._guard:
            found = self._crew.cancel(task_id, time.monotonic(), kill=kill)
            ring = self._see_to()
        if ring:
            self.bell()
        return found

    def resize(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"A pool needs at least one slot, not {size}.")
        with self._guard:
            self.size = self._crew.size = size
            self._crew.restaff = True
            self._see_to()

    def dump_stacks(self) -> None:
        """Have every child print the stack of each of its threads to standard error."""
        with self._guard:
            for handle in self._crew.children.values():
                if handle.born:
                    handle.signal(child.SIGNAL_DUMP)

    def stop(self, timeout: float) -> None:
        if self._thread.ident is not None:
            with self._guard:
                self._crew.stop(time.monotonic() + timeout)
                self._see_to()
                self._wake()
            self._ended.wait()
        with self._guard:
            self._close()

    def _close(self) -> None:
        """Give everything back to the system; harmless a second time."""
        if self._closed:
            return
        self._closed = True
        if self._thread.ident is not None:
            self._thread.join()
        self._crew.close()
        os.close(self._woken)
        os.close(self._waker)

    def _watch(self) -> None:
        """Be the pool's thread."""
        crew = self._crew
        timeout = 0.0
        try:
            while not crew.ended:
                crew.selector.select(timeout)
                with self._guard:
                    self._lower()
                    before = crew.produced
                    crew.watch()
                    self._wakes_at = crew.see_to(time.monotonic())
                    timeout = max(0.0, min(LOOK, self._wakes_at - time.monotonic()))
                    ring = crew.produced > before
                if ring:
                    self.bell()
        except Exception:  # noqa: BLE001  # a bug here must not leave the worker waiting for ever
            _log.critical("The pool's thread failed; the worker must be started anew", exc_info=True)
            crew.lost = True
        finally:
            self._ended.set()
            self.bell()

    def _see_to(self) -> bool:
        """Do what is due, and have the thread wake up for what is due next; return whether something came out."""
        before = self._crew.produced
        due = self._crew.see_to(time.monotonic())
        if due < self._wakes_at:
            self._wakes_at = due
            self._wake()
        return self._crew.produced > before

    def _wake(self) -> None:
        if not self._raised and not self._closed:
            self._raised = True
            os.write(self._waker, b"\0")

    def _lower(self) -> None:
        """Take note of having woken up. Only the pool's thread does: another one would make it sleep on."""
        if self._raised:
            self._raised = False
            os.read(self._woken, 1)


def _nothing() -> None:
    """Do nothing about the wake-up pipe: that is for the pool's thread alone."""
