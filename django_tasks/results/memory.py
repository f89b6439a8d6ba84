"""Where are results kept while one process is all there is?

The readable reference of what a result store does: every other one must look like this from outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django_tasks.message import Clock
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore, merged
from django_tasks.results.groups import Groups
from django_tasks.results.memory_groups import MemoryGroups


class MemoryStore(ResultStore):
    """Keeps results in this process; another one sees none of them, and all are gone when it ends. Every method may
    be called from any thread.
    """

    private = True

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        super().__init__(alias, params, clock=clock)
        self._changed = threading.Condition()
        self._results: dict[str, Result] = {}
        self.groups: Groups = MemoryGroups(clock)

    def save(self, results: Sequence[Result]) -> None:
        with self._changed:
            for result in results:
                before = self._results.get(result.id)
                if before is None:
                    self._results[result.id] = result
                elif not before.final:
                    self._results[result.id] = merged(before, result)
            self._changed.notify_all()

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        with self._changed:
            return {task_id: self._results[task_id] for task_id in ids if task_id in self._results}

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        with self._changed:
            if ids:
                self._changed.wait_for(lambda: self._final(ids), timeout)
            return self._final(ids)

    def forget(self, ids: Sequence[str]) -> int:
        with self._changed:
            return sum(self._results.pop(task_id, None) is not None for task_id in ids)

    def expire(self, before: datetime, limit: int = 1000) -> int:
        with self._changed:
            ended = ((result.ended_at, result.id) for result in self._results.values() if result.ended_at is not None)
            old = sorted(pair for pair in ended if pair[0] < before)[: max(0, limit)]
            for _, task_id in old:
                del self._results[task_id]
            return len(old)

    def _final(self, ids: Sequence[str]) -> dict[str, Result]:
        return {task_id: found for task_id in ids if (found := self._results.get(task_id)) and found.final}
