"""Where are results kept when a Redis keeps them?"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from django.core.checks import CheckMessage

from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import StoreUnavailable
from django_tasks.message import Clock
from django_tasks.plan import Result
from django_tasks.redis_fitness import examine, found_wrong, unfit_for_results
from django_tasks.redis_servers import (
    OPTIONS,
    Redis,
    RedisFailed,
    Script,
    Subscription,
    check_options,
    key_prefix,
)
from django_tasks.results.base import ResultStore
from django_tasks.results.fields import fields_of, microseconds, results_of, to_bytes
from django_tasks.results.groups import Groups
from django_tasks.results.lua import SCRIPTS
from django_tasks.results.redis_groups import RedisGroups
from django_tasks.results.redis_places import Places, asking, chunks, itself, lives, pieces

FLOOR = 5.0
"""Seconds after which a result that is waited for is looked at though nothing was heard: a connection may be dead
without telling."""

IDLE = 8
"""How many connections that nobody waits on are kept for the next who does."""


class RedisStore(ResultStore):
    """Keeps results in a Redis, each under a key that ends by itself.

    `OPTIONS`: those of the Redis broker, and `EXPIRES`, the timedelta after which results are removed (7 days), None
    for never.
    """

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        self._where = f"The Redis store {alias!r}"
        check_options(self.options, (*OPTIONS, "EXPIRES"), self._where)
        self.prefix = key_prefix(self.options, self._where)
        self._redis = Redis(self.location, self.options)
        self._places = Places(self.prefix, self._redis.clustered)
        self.groups: Groups | None = RedisGroups(self._redis, self._places, self.expires)
        self._lock = threading.Lock()
        self._idle: list[Subscription] = []

    def save(self, results: Sequence[Result]) -> None:
        """Write results; saving them twice is saving them once."""
        with asking():
            for base, mine in self._places.parted(results, _id_of):
                for piece in pieces([_said(result) for result in mine]):
                    self._run("save", base, [*lives(self.expires), *(word for words in piece for word in words)])

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        return self._read(ids, final_alone=False)

    def _read(self, ids: Sequence[str], *, final_alone: bool) -> dict[str, Result]:
        known: dict[str, Result] = {}
        with asking():
            for base, mine in self._places.parted(list(dict.fromkeys(ids)), itself):
                for chunk in chunks(mine):
                    found = self._run("get", base, [int(final_alone), *map(to_bytes, chunk)])
                    known.update((result.id, result) for result in results_of(chunk, found))
        return {task_id: known[task_id] for task_id in ids if task_id in known}

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        """Look once, and then at what is told to have ended."""
        unique = list(dict.fromkeys(ids))
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        ended = self._read(unique, final_alone=True) if unique else {}
        while unique and not ended and time.monotonic() < deadline:
            try:
                ended = self._hear(unique, deadline)
            except RedisFailed as error:
                if not error.broken:
                    raise StoreUnavailable(str(error)) from error
                # It may be this connection alone: then the server still answers.
                ended = self._read(unique, final_alone=True)
        return ended

    def _hear(self, ids: Sequence[str], deadline: float) -> dict[str, Result]:
        """Return the results of the first tasks that end; nothing when it has become too late."""
        with self._listening(ids) as (subscription, channels):
            while True:
                # First of all once more: a task may have ended before anybody listened.
                ended = self._read(ids, final_alone=True)
                floor = time.monotonic() + FLOOR
                while not ended and (left := min(deadline, floor) - time.monotonic()) > 0:
                    heard = {channels[name] for name, _ in subscription.hear(left) if name in channels}
                    ended = self._read(list(heard), final_alone=True) if heard else {}
                if ended or time.monotonic() >= deadline:
                    return ended

    @contextmanager
    def _listening(self, ids: Sequence[str]) -> Iterator[tuple[Subscription, dict[bytes, str]]]:
        """Give a connection that hears when one of the tasks has ended, and the id that each channel stands for."""
        channels = {self._channel(task_id): task_id for task_id in ids}
        subscription = self._tuned(list(channels))
        try:
            yield subscription, channels
            subscription.unsubscribe()
        except BaseException:
            subscription.close()
            raise
        with self._lock:
            if len(self._idle) < IDLE:
                self._idle.append(subscription)
                return
        subscription.close()

    def _tuned(self, channels: Sequence[bytes]) -> Subscription:
        """Return a connection that listens to channels: one that is idle, unless the server has closed it meanwhile."""
        while True:
            with self._lock:
                subscription = self._idle.pop() if self._idle else None
            if subscription is None:
                break
            if subscription.pid == os.getpid():
                try:
                    subscription.subscribe(channels)
                except RedisFailed:
                    subscription.close()
                else:
                    return subscription
        subscription = self._redis.subscription()
        subscription.subscribe(channels)
        return subscription

    def forget(self, ids: Sequence[str]) -> int:
        known = 0
        with asking():
            for base, mine in self._places.parted(list(dict.fromkeys(ids)), itself):
                known += sum(self._run("forget", base, list(map(to_bytes, chunk))) for chunk in chunks(mine))
        return known

    def expire(self, before: datetime, limit: int = 1000) -> int:
        """Remove results that ended before a time: they would go by themselves, but not before their time is over, and
        they leave their names behind."""
        with asking():
            return self._places.expire(partial(self._run, "expire"), before, limit)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for subscription in idle:
            subscription.close()
        self._redis.close()

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        """Ask the server, if any database may be asked: a check of settings alone reaches for nothing."""
        return found_wrong(self._redis, self._where, unfit_for_results) if databases else []

    def diagnose(self, *, ask: bool = True) -> Diagnosis:
        with asking():
            return examine(self._redis, self._where, unfit_for_results, ask=ask, clock=self.clock)

    def _run(self, name: str, base: bytes, args: Sequence[Any]) -> Any:
        script: Script = SCRIPTS[name]
        return self._redis.run(script, [base], args)

    def _channel(self, task_id: str) -> bytes:
        """Return where it is told that a task has ended."""
        return self._places.of(task_id) + b"result:" + to_bytes(task_id)


def _id_of(result: Result) -> str:
    return result.id


def _said(result: Result) -> list[Any]:
    """Return a result as the script takes it."""
    fields = fields_of(result)
    ended = b"" if result.ended_at is None else b"%d" % microseconds(result.ended_at)
    return [to_bytes(result.id), ended, int(result.final), len(fields), *fields]
