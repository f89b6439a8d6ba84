"""How do tasks run in threads of the worker's own process?"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context

from django_tasks import databases, endings, execution
from django_tasks.exceptions import SoftTimeLimitExceeded, TaskRevoked, TimeLimitExceeded
from django_tasks.interrupt import Interruptible, here
from django_tasks.message import Clock, Delivery
from django_tasks.plan import Outcome
from django_tasks.pools.base import Done, Pool, PoolFeatures, PoolOptions, Running
from django_tasks.pools.hygiene import wake_caches

RESTRIKE, RESTRIKE_MAX = 0.05, 10.0
"""Seconds after which an exception is sent once more to a task that goes on, since the first may have come before its
function was entered; doubled each time."""

LEAVE = 1.0
"""Seconds that an idle thread may take to close its database connections when the pool stops."""

_NEVER = float("inf")
_log = logging.getLogger("django_tasks.worker")


class ThreadPool(Pool):
    """Runs each task in one of several threads, in a context of its own.

    Python cannot end a thread. Limits and cancellations raise an exception in the task, which arrives when its code
    next runs in Python: not inside a blocking call. A task beyond its hard limit, or cancelled with `kill`, comes out
    at once; its thread is told to end, written off and replaced, and what it says later is dropped.
    """

    features = PoolFeatures(soft_limit=True, hard_limit=True, cancel=True, resize=True)

    def __init__(self, options: PoolOptions, bell: Callable[[], None], *, clock: Clock = time.time) -> None:
        super().__init__(options, bell, clock=clock)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        """Something waits in the inbox, or a thread is to leave."""
        self._change = threading.Condition(self._lock)
        """A limit is nearer than was known, or a thread has ended what it did."""
        self._inbox: deque[tuple[Delivery, float]] = deque()
        self._done: deque[Done] = deque()
        self._unfinished = 0
        self._produced = 0
        self._seats: set[_Seat] = set()
        self._written_off: set[_Seat] = set()
        self._stopped = False
        self._watcher = threading.Thread(target=self._watch, name="django_tasks.pool", daemon=True)
        self._looks_at = _NEVER

    @property
    def exhausted(self) -> bool:
        """Whether as many threads as there are slots hang in tasks that were given up: the worker should be started
        anew to be rid of them."""
        return len(self._written_off) >= self.size

    @property
    def free(self) -> int:
        return max(0, self.size - self._unfinished)

    def start(self) -> None:
        with self._lock:
            self._staff()
        self._watcher.start()

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        now = time.monotonic()
        with self._lock:
            self._unfinished += len(deliveries)
            self._inbox.extend((delivery, now) for delivery in deliveries)
            if self._stopped:
                self._hand_back_waiting()
            else:
                self._work.notify(len(deliveries))
        if self._stopped:
            self.bell()

    def drain(self) -> list[Done]:
        return [self._done.popleft() for _ in range(len(self._done))]

    def reclaim(self, older_than: float = 0.0) -> list[Delivery]:
        before = time.monotonic() - older_than
        with self._lock:
            taken = [delivery for delivery, submitted in self._inbox if submitted <= before]
            self._inbox = deque(entry for entry in self._inbox if entry[1] > before)
            self._unfinished -= len(taken)
        return taken

    def running(self) -> list[Running]:
        epoch, pid = self.clock() - time.monotonic(), os.getpid()
        with self._lock:
            return [
                Running(seat.delivery, epoch + seat.since, pid) for seat in self._seats if seat.delivery is not None
            ]

    def cancel(self, task_id: str, *, kill: bool = False) -> bool:
        with self._lock:
            found = self._cancel_running(task_id, kill=kill) or self._cancel_waiting(task_id)
        if found:
            self.bell()
        return found

    def _cancel_running(self, task_id: str, *, kill: bool) -> bool:
        for seat in self._seats:
            delivery = seat.delivery
            if delivery is not None and delivery.message.id == task_id:
                if kill:
                    self._write_off(seat, endings.cancelled(delivery), TaskRevoked)
                else:
                    seat.revoked, seat.next_strike = True, 0.0
                    self._enforce(seat, time.monotonic())
                    self._change.notify_all()
                return True
        return False

    def _cancel_waiting(self, task_id: str) -> bool:
        for entry in self._inbox:
            if entry[0].message.id == task_id:
                self._inbox.remove(entry)
                self._finish(entry[0], endings.revoked(entry[0]))
                return True
        return False

    def resize(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"A pool needs at least one slot, not {size}.")
        with self._lock:
            self.size = size
            self._staff()

    def stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopped = True
            self._hand_back_waiting()
            self._work.notify_all()
            self._change.notify_all()
            while any(seat.delivery is not None for seat in self._seats) and (left := deadline - time.monotonic()) > 0:
                self._change.wait(left)
            for seat in list(self._seats):
                if seat.delivery is not None:
                    self._write_off(seat, endings.interrupted(seat.delivery), TaskRevoked)
            leaving = [seat.thread for seat in self._seats] + [self._watcher] * (self._watcher.ident is not None)
        for thread in leaving:
            thread.join(max(0.0, deadline - time.monotonic()) + LEAVE)
        self.bell()

    def _hand_back_waiting(self) -> None:
        while self._inbox:
            delivery, _ = self._inbox.popleft()
            self._finish(delivery, endings.handed_back(delivery))

    def _finish(self, delivery: Delivery, outcome: Outcome) -> None:
        self._unfinished -= 1
        self._produced += 1
        self._done.append((delivery, outcome))

    def _staff(self) -> None:
        """Start threads that are missing, and have those leave that are too many."""
        while len(self._seats) < self.size and not self._stopped:
            seat = _Seat(self)
            self._seats.add(seat)
            seat.thread.start()
        self._work.notify_all()

    def _write_off(self, seat: _Seat, outcome: Outcome, error: type[BaseException]) -> None:
        """Let a task come out that still runs, and have nothing more to do with its thread."""
        assert seat.delivery is not None
        _log.warning("A thread was given up", extra={"task_id": seat.delivery.message.id})
        self._seats.remove(seat)
        self._written_off.add(seat)
        seat.gate.strike(seat.delivery, error)
        self._finish(seat.delivery, outcome)
        self._staff()
        self._change.notify_all()

    def _watch(self) -> None:
        """Be the thread that enforces limits."""
        while True:
            with self._lock:
                if self._stopped and not self._seats:
                    return
                now = time.monotonic()
                before = self._produced
                self._looks_at = min((self._enforce(seat, now) for seat in list(self._seats)), default=_NEVER)
                ring = self._produced > before
                if not ring:
                    self._change.wait(None if self._looks_at == _NEVER else max(0.0, self._looks_at - now))
            if ring:
                self.bell()

    def _enforce(self, seat: _Seat, now: float) -> float:
        """Do what is due about a seat's task; return when to look again."""
        delivery = seat.delivery
        if delivery is None:
            return _NEVER
        hard, soft = seat.limits
        if hard is not None and now >= seat.since + hard:
            self._write_off(seat, endings.timed_out(delivery, hard), TimeLimitExceeded)
            return _NEVER
        due = _NEVER if hard is None else seat.since + hard
        wanted: list[type[BaseException]] = [TaskRevoked] * seat.revoked
        if soft is not None and now >= seat.since + soft:
            wanted.append(SoftTimeLimitExceeded)
        elif soft is not None:
            due = min(due, seat.since + soft)
        if wanted and now >= seat.next_strike:
            for error in wanted:
                seat.gate.strike(delivery, error)
            seat.next_strike = now + seat.patience
            seat.patience = min(RESTRIKE_MAX, 2 * seat.patience)
        return min(due, seat.next_strike) if wanted else due


class _Seat:
    """One thread, and what it runs. All of it is guarded by the pool's lock but what the thread alone touches."""

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool
        self.delivery: Delivery | None = None
        self.since = 0.0
        self.limits: tuple[float | None, float | None] = (None, None)
        self.revoked = False
        self.next_strike = 0.0
        self.patience = RESTRIKE
        self.gate: Interruptible
        self.thread = threading.Thread(target=self._live, name="django_tasks.task", daemon=True)

    def _live(self) -> None:
        pool = self.pool
        self.gate = here()
        site = execution.Site(
            worker=pool.options.worker,
            time_limit=pool.options.time_limit,
            soft_time_limit=pool.options.soft_time_limit,
            report=self._report,
            interruptible=self.gate,
        )
        wake_caches()
        context = copy_context()
        try:
            while (delivery := self._next()) is not None:
                try:
                    outcome = context.copy().run(execution.execute, delivery, site)
                except BaseException as error:  # noqa: BLE001  # a bug of ours must cost neither the task nor the thread
                    _log.exception("A thread failed", extra={"task_id": delivery.message.id})
                    outcome = endings.lost(delivery, repr(error))
                if self.gate.struck:  # what stopped half-way may have been a query
                    databases.close_all()
                if not self._ended(delivery, outcome):
                    return
        finally:
            databases.close_all()
            with pool._lock:
                pool._seats.discard(self)
                pool._written_off.discard(self)
                pool._change.notify_all()

    def _next(self) -> Delivery | None:
        """Wait for something to run; None when this thread is to leave."""
        pool = self.pool
        with pool._lock:
            while not pool._inbox:
                if pool._stopped or len(pool._seats) > pool.size:
                    pool._seats.discard(self)
                    return None
                pool._work.wait()
            if len(pool._seats) > pool.size:
                pool._seats.discard(self)
                pool._work.notify()
                return None
            delivery, _ = pool._inbox.popleft()
            self.limits = endings.limits(delivery, pool.options)
            self.since = time.monotonic()
            self.revoked = False
            self.next_strike, self.patience = 0.0, RESTRIKE
            self.delivery = delivery
            nearest = min((limit for limit in self.limits if limit is not None), default=_NEVER)
            if self.since + nearest < pool._looks_at:
                pool._change.notify_all()
        return delivery

    def _ended(self, delivery: Delivery, outcome: Outcome) -> bool:
        """Hand in an outcome; return False when nobody wants it, or anything else of this thread, any more."""
        pool = self.pool
        with pool._lock:
            if self in pool._written_off:
                return False
            self.delivery = None
            pool._finish(delivery, outcome)
            if pool._stopped:
                pool._change.notify_all()
        pool.bell()
        return True

    def _report(self, delivery: Delivery, outcome: Outcome) -> None:
        """Hand in an interim outcome; called by the task's own code, from any of its threads."""
        pool = self.pool
        with here().shield:
            with pool._lock:
                if delivery is not self.delivery or self in pool._written_off:
                    return
                pool._done.append((delivery, outcome))
            pool.bell()
