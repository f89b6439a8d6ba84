"""How do tests run a worker in their own process, with a broker and a store that fail when told?"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest
from django.db import DataError, connections

from django_tasks import AsyncResult, Task, signals, states, task
from django_tasks.backends.base import Broker
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import brokers, results
from django_tasks.exceptions import BrokerUnavailable, StoreUnavailable
from django_tasks.message import Clock, Delivery
from django_tasks.plan import Result
from django_tasks.pools.base import Pool, PoolOptions
from django_tasks.pools.solo import SoloPool
from django_tasks.pools.threads import ThreadPool
from django_tasks.results.memory import MemoryStore
from django_tasks.worker.bell import Bell
from django_tasks.worker.worker import Worker, WorkerOptions

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which something that should have happened is taken not to happen."""

each_pool = pytest.mark.parametrize("pool", [ThreadPool, SoloPool], ids=["threads", "solo"])


class Stage:
    """What the tasks of this process share with the test that runs them."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.clear()

    def clear(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gate = threading.Event()
        self.worker: Worker | None = None

    def say(self, what: list[str], task_id: str | None) -> None:
        with self.news:
            what.append(str(task_id))
            self.news.notify_all()

    def until(self, test: Callable[[], bool]) -> None:
        """Block until something is so that a task has said."""
        with self.news:
            assert self.news.wait_for(test, PATIENCE), f"begun {self.begun}, ended {self.ended}"


stage = Stage()
Bound = Task[..., Any]


@task(bind=True)
def note(self: Bound, number: int = 0) -> int:
    stage.say(stage.begun, self.request.id)
    stage.say(stage.ended, self.request.id)
    return number


@task(bind=True)
def hold(self: Bound) -> int:
    """Run until the gate is opened."""
    stage.say(stage.begun, self.request.id)
    assert stage.gate.wait(PATIENCE)
    stage.say(stage.ended, self.request.id)
    return self.request.attempt


@task(bind=True)
def stop_worker(self: Bound, how: str) -> str:
    """Tell the worker to stop, from inside."""
    stage.say(stage.begun, self.request.id)
    assert stage.worker is not None
    stage.worker.stop(how)
    return how


@task(bind=True, max_retries=3)
def retry_twice(self: Bound) -> int:
    stage.say(stage.begun, self.request.id)
    if self.request.retries < 2:
        self.retry(countdown=0)
    return self.request.retries


@task(bind=True)
def retry_with_odd_header(self: Bound) -> None:
    self.retry(countdown=0, headers={"lock": threading.Lock()})


@task(bind=True, acks_late=False)
def at_most_once(self: Bound) -> None:
    stage.say(stage.begun, self.request.id)


@task(bind=True, acks_late=False, max_retries=3)
def at_most_once_retried(self: Bound) -> int:
    stage.say(stage.begun, self.request.id)
    if self.request.retries < 1:
        self.retry(countdown=0)
    return self.request.attempt


@task(bind=True, acks_late=False, on_crash="fail")
def careful(self: Bound) -> int:
    """Run at most once, and never after a crash: always suspect."""
    stage.say(stage.begun, self.request.id)
    assert stage.gate.wait(PATIENCE)
    return int(self.request.attempt)


@task
def fail() -> None:
    raise ValueError("as told")


@task(time_limit=0.1)
def overlong() -> None:
    stage.gate.wait(PATIENCE)


class Faults:
    """Raises at a named call as often as told, before or after it did its work."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def through(self, name: str, call: Callable[[], T]) -> T:
        self.calls[name] += 1
        self._raise(self.before, name)
        answer = call()
        self._raise(self.after, name)
        return answer

    def _raise(self, faults: Counter[str], name: str) -> None:
        if faults[name] > 0:
            faults[name] -= 1
            raise self.error(f"{name}: nobody answers")


class FaultyBroker(MemoryBroker):
    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self.faults = Faults(BrokerUnavailable)

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        fetch = super().fetch
        return self.faults.through("fetch", lambda: fetch(queues, limit, lease=lease, consumer=consumer))

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        ack = super().ack
        return self.faults.through("ack", lambda: ack(deliveries)) if deliveries else []

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        nack = super().nack
        return self.faults.through("nack", lambda: nack(deliveries, delay=delay, spent=spent))

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        extend = super().extend
        return self.faults.through("extend", lambda: extend(deliveries, lease))

    def wait(self, queues: Sequence[str], timeout: float, stop: threading.Event) -> bool:
        wait = super().wait
        return self.faults.through("wait", lambda: wait(queues, timeout, stop))

    def deliveries(self) -> dict[str, int]:
        """Return how often each message that is still here was leased."""
        return {entry.message.id: entry.deliveries for entry in self._entries.values()}

    def take_over(self, task_id: str) -> list[Delivery]:
        """Be another worker, to whom the message was given when its lease had ended."""
        with self._changed:
            entry = self._entries[self._ids[task_id]]
            self._take_out(entry)
            return [self._claim(entry, time.time() + 60)]


class FaultyStore(MemoryStore):
    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self.faults = Faults(StoreUnavailable)
        self.refused: dict[str, set[str]] = {}

    def save(self, results: Sequence[Result]) -> None:
        if not results:
            return
        for result in results:
            if result.state in self.refused.get(result.id, ()):
                raise DataError("value out of range")
        save = super().save
        self.faults.through("save", lambda: save(results))

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        get = super().get
        return self.faults.through("get", lambda: get(ids))


FAULTY = {
    "BROKERS": {"default": {"BACKEND": f"{__name__}.FaultyBroker"}},
    "RESULTS": {"default": {"BACKEND": f"{__name__}.FaultyStore"}},
}


def build(
    pool: type[Pool] = ThreadPool,
    *,
    size: int = 2,
    broker: Broker | None = None,
    clock: Clock = time.time,
    **options: Any,
) -> Worker:
    bell = Bell()
    told: dict[str, Any] = {"queues": ["default"], "lease": 30.0, "heartbeat": 5.0, "grace": 5.0, **options}
    worker = Worker(
        broker or brokers["default"],
        results["default"],
        pool(PoolOptions(size=size, worker="w1"), bell.ring, clock=clock),
        bell,
        WorkerOptions(name="w1", **told),
    )
    stage.worker = worker
    return worker


def burst(pool: type[Pool] = ThreadPool, **options: Any) -> Worker:
    """Run a worker until there is nothing left for it to do."""
    worker = build(pool, burst=True, **options)
    worker.run()
    return worker


class Meanwhile:
    """Runs a worker here while a story about it goes on in another thread."""

    def __init__(self, worker: Worker, story: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        thread = threading.Thread(target=self._tell, args=(worker, story))
        receiver = self._on_ready(thread)
        signals.worker_ready.connect(receiver)
        try:
            worker.run()
            thread.join(PATIENCE)
        finally:
            signals.worker_ready.disconnect(receiver)
        if self.error is not None:
            raise self.error

    def _tell(self, worker: Worker, story: Callable[[], None]) -> None:
        try:
            story()
        except BaseException as error:
            self.error = error
            worker.stop("cold")
        finally:
            connections.close_all()

    def _on_ready(self, thread: threading.Thread) -> Callable[..., None]:
        def start(**_: Any) -> None:
            thread.start()

        return start


def ended(handles: Sequence[AsyncResult[Any]]) -> list[str]:
    found = results["default"].get([handle.id for handle in handles])
    return [found[handle.id].state if handle.id in found else states.PENDING for handle in handles]


def until(test: Callable[[], bool]) -> None:
    """Look again and again until something is so that nobody says."""
    tick = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not test():
        assert time.monotonic() < deadline
        tick.wait(0.01)


def open_gate_when(test: Callable[[], bool]) -> None:
    until(test)
    stage.gate.set()


class Recorder(logging.Handler):
    """Keeps what is logged, whatever becomes of the logger's handlers meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.message = record.getMessage()
        self.records.append(record)
