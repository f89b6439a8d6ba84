"""Where are groups recorded while one process is all there is?"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from django_tasks.message import Clock
from django_tasks.plan import Group, Part
from django_tasks.results.groups import GRACE, Ended, Groups, Progress, absent, lateness


@dataclass(slots=True)
class _Record:
    group: Group
    parts: dict[int, Part] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    """The numbers of members that were added later, by their names."""
    failed: Part | None = None
    ended_at: datetime | None = None
    saved: str | None = None


class MemoryGroups(Groups):
    """Keeps groups in this process: the readable reference of what is recorded of them. Any thread may call."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}
        self._unfired: dict[str, float] = {}
        """When groups were given out of which nobody has said that they were fired, the earliest first."""
        self._limited: dict[str, float] = {}
        """When the time is over of groups that have not ended."""

    def open(self, groups: Sequence[Group]) -> None:
        with self._lock:
            for group in groups:
                known = group.id in self._records
                record = self._records.setdefault(group.id, _Record(group))
                if group.failure is not None and not known:
                    record.failed = Part((group.id, 0), group.id, failure=group.failure)
                    record.ended_at = self._now()
                if group.timeout is not None and record.ended_at is None:
                    self._limited.setdefault(group.id, self.clock() + group.timeout)

    def record(self, parts: Sequence[Part]) -> list[Ended]:
        ended: list[Ended] = []
        with self._lock:
            for part in parts:
                group_id, index = part.place
                record = self._records.get(group_id)
                if record is None or index in record.parts or not 0 <= index < record.group.size:
                    continue
                record.parts[index] = part
                if record.ended_at is not None:
                    continue
                if part.failure is not None:
                    record.failed = part
                elif len(record.parts) < record.group.size:
                    continue
                ended.append(self._end(record))
        return ended

    def _end(self, record: _Record) -> Ended:
        record.ended_at = self._now()
        self._limited.pop(record.group.id, None)
        self._unfired[record.group.id] = self.clock()
        return Ended(record.group, record.failed)

    def late(self, limit: int = 100) -> list[str]:
        with self._lock:
            return self._late()[: max(0, limit)]

    def _late(self) -> list[str]:
        now = self.clock()
        return [each for each, deadline in self._limited.items() if deadline <= now]

    def give_up(self, ids: Sequence[str]) -> list[Ended]:
        with self._lock:
            late = set(self._late())
            return [self._give_up(self._records[each]) for each in dict.fromkeys(ids) if each in late]

    def _give_up(self, record: _Record) -> Ended:
        size, missing = record.group.size, absent(record.parts, record.group.size)
        failure = lateness(missing, size - len(record.parts), size)
        record.failed = Part((record.group.id, missing[0]), record.group.id, failure=failure)
        return self._end(record)

    def fired(self, ids: Sequence[str]) -> None:
        with self._lock:
            for each in ids:
                self._unfired.pop(each, None)

    def unfired(self, limit: int = 100) -> list[Ended]:
        with self._lock:
            now = self.clock()
            due = [each for each, since in self._unfired.items() if since <= now - GRACE][: max(0, limit)]
            for each in due:
                del self._unfired[each]
                self._unfired[each] = now
            return [Ended(self._records[each].group, self._records[each].failed) for each in due]

    def values(self, group_id: str) -> list[bytes] | None:
        with self._lock:
            record = self._records.get(group_id)
            if record is None or record.failed is not None or len(record.parts) < record.group.size:
                return None
            return [record.parts[index].value or b"null" for index in range(record.group.size)]

    def parts(self, group_id: str) -> list[Part]:
        with self._lock:
            record = self._records.get(group_id)
            return [] if record is None else [record.parts[index] for index in sorted(record.parts)]

    def progress(self, ids: Sequence[str]) -> dict[str, Progress]:
        with self._lock:
            found = {each: self._records[each] for each in ids if each in self._records}
            return {
                each: Progress(each, record.group.size, len(record.parts), record.failed, record.ended_at)
                for each, record in found.items()
            }

    def keep(self, group_id: str, size: int, text: str) -> None:
        with self._lock:
            self._records.setdefault(group_id, _Record(Group(group_id, size))).saved = text

    def kept(self, group_id: str) -> str | None:
        with self._lock:
            record = self._records.get(group_id)
            return None if record is None else record.saved

    def grow(self, group_id: str, name: str) -> int | None:
        with self._lock:
            record = self._records.get(group_id)
            if record is None or name in record.added:
                return None if record is None else record.added[name]
            if record.ended_at is not None:
                return None
            number = record.added[name] = record.group.size
            record.group = replace(record.group, size=number + 1)
            return number

    def forget(self, ids: Sequence[str]) -> int:
        with self._lock:
            for each in ids:
                self._unfired.pop(each, None)
                self._limited.pop(each, None)
            return sum(self._records.pop(each, None) is not None for each in ids)

    def expire(self, before: datetime, limit: int = 100) -> int:
        with self._lock:
            fired = (each for each in self._records if each not in self._unfired)
            ended = ((at, each) for each in fired if (at := self._records[each].ended_at) is not None)
            old = sorted(pair for pair in ended if pair[0] < before)[: max(0, limit)]
            for _, each in old:
                del self._records[each]
            return len(old)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)
