"""Where are results kept when Celery keeps its own there, in a Redis?"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django_tasks.exceptions import ConfigurationError
from django_tasks.message import Clock
from django_tasks.plan import Result
from django_tasks.results.base import StoreFeatures, merged
from django_tasks.results.celery_meta import dump_meta, load_meta
from django_tasks.results.fields import to_bytes
from django_tasks.results.lua import SCRIPTS
from django_tasks.results.redis import RedisStore
from django_tasks.results.redis_places import IDS, asking, lives

_RESULTS = 1_000
"""How many one script saves."""


class CeleryRedisStore(RedisStore):
    """Keeps results under the keys and in the form of Celery's Redis backend: each side reads what the other wrote.

    A final state never changes, unless Celery overwrites it. `OPTIONS`: those of the Redis store; `KEY_PREFIX` is
    Celery's `global_keyprefix`, empty unless given.
    """

    features = StoreFeatures(expires=False)

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        options = dict(params.get("OPTIONS", {}))
        self._before = options.pop("KEY_PREFIX", "")
        super().__init__(alias, {**params, "OPTIONS": options}, clock=clock)
        if not isinstance(self._before, str):
            raise ConfigurationError(f"{self._where}: KEY_PREFIX must be a text, not {self._before!r}.")
        if self._redis.clustered:
            raise ConfigurationError(f"{self._where}: Celery keeps no results in a cluster of Redis.")
        # What is beside its results in this Redis is Celery's own: groups stay in the database.
        self.groups = None

    def save(self, results: Sequence[Result]) -> None:
        if not results:
            return
        known = self.get([result.id for result in results])
        kept, words = lives(self.expires), list[Any]()
        for result in results:
            before = known.get(result.id)
            if before is not None and before.final:
                continue
            whole = known[result.id] = result if before is None else merged(before, result)
            words += [self._channel(whole.id), int(whole.final), dump_meta(whole)]
        with asking():
            for start in range(0, len(words), 3 * _RESULTS):
                self._redis.run(SCRIPTS["save_meta"], [b""], [*kept, *words[start : start + 3 * _RESULTS]])

    def _read(self, ids: Sequence[str], *, final_alone: bool) -> dict[str, Result]:
        known: dict[str, Result] = {}
        unique = list(dict.fromkeys(ids))
        with asking():
            for start in range(0, len(unique), IDS):
                chunk = unique[start : start + IDS]
                raws = self._redis.call("MGET", *map(self._channel, chunk))
                for task_id, raw in zip(chunk, raws, strict=True):
                    result = None if raw is None else load_meta(task_id, raw)
                    if result is not None and (result.final or not final_alone):
                        known[task_id] = result
        return known

    def forget(self, ids: Sequence[str]) -> int:
        unique = list(dict.fromkeys(ids))
        with asking():
            return sum(
                int(self._redis.call("DEL", *map(self._channel, unique[start : start + IDS])))
                for start in range(0, len(unique), IDS)
            )

    def expire(self, before: datetime, limit: int = 1000) -> int:
        """Return 0: results go by themselves, as Celery's do."""
        return 0

    def _channel(self, task_id: str) -> bytes:
        """Return a result's key, which is where it is told as well."""
        return to_bytes(f"{self._before}celery-task-meta-{task_id}")
