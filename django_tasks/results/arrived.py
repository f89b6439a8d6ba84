"""What has come to this process of the results that were sent to it?"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from django_tasks.exceptions import StoreUnavailable
from django_tasks.message import Clock
from django_tasks.plan import Result
from django_tasks.results.base import merged


class Arrived:
    """Keeps the newest results for a time; any thread may ask, and wait."""

    def __init__(self, most: int, kept: timedelta | None, clock: Clock) -> None:
        self.most = most
        self.kept = kept
        self.clock = clock
        self._changed = threading.Condition()
        self._results: OrderedDict[str, tuple[float, Result]] = OrderedDict()
        """Each with the time when it came, the oldest first."""
        self._losses = 0
        self._why = ""

    @property
    def losses(self) -> int:
        """How often something may have been lost on the way."""
        return self._losses

    def add(self, results: Iterable[Result]) -> None:
        now = self.clock()
        with self._changed:
            for result in results:
                before = self._results[result.id][1] if result.id in self._results else None
                if before is not None and before.final:
                    continue
                self._results[result.id] = (now, result if before is None else merged(before, result))
                self._results.move_to_end(result.id)
            while len(self._results) > self.most:
                self._results.popitem(last=False)
            self._changed.notify_all()

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        with self._changed:
            self._drop_old()
            return {task_id: self._results[task_id][1] for task_id in ids if task_id in self._results}

    def final(self, ids: Sequence[str]) -> dict[str, Result]:
        return {task_id: found for task_id, found in self.get(ids).items() if found.final}

    def wait(self, ids: Sequence[str], timeout: float | None, losses: int) -> dict[str, Result]:
        """Block until one is final; raises StoreUnavailable when more was lost than this, for it may never come."""
        with self._changed:
            self._changed.wait_for(lambda: self._losses != losses or self.final(ids), timeout)
            found = self.final(ids)
            if not found and self._losses != losses:
                raise StoreUnavailable(f"Results that were on their way here may be lost: {self._why}")
            return found

    def forget(self, ids: Sequence[str]) -> int:
        with self._changed:
            return sum(self._results.pop(task_id, None) is not None for task_id in ids)

    def lose(self, why: str) -> None:
        """Tell all who wait that what they wait for may never come."""
        with self._changed:
            self._losses += 1
            self._why = why
            self._changed.notify_all()

    def _drop_old(self) -> None:
        if self.kept is None:
            return
        before = self.clock() - self.kept.total_seconds()
        while self._results and next(iter(self._results.values()))[0] <= before:
            self._results.popitem(last=False)
