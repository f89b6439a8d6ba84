"""Which slots of a schedule are to be run now, and which comes next? Pure: time is passed in."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django_tasks.schedules import Schedule

GRACE = timedelta(seconds=60)
"""A slot that is later than this, and its jitter, when it is seen counts as missed."""

_LOOK = 1000
"""How many slots are counted one by one."""
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Terms:
    """When a periodic task runs, apart from its schedule."""

    start_at: datetime | None = None
    end_at: datetime | None = None
    missed: str = "once"
    missed_limit: int = 10
    grace: timedelta = GRACE


@dataclass(frozen=True, slots=True)
class Turn:
    """What a tick does with one periodic task."""

    run: tuple[datetime, ...] = ()
    """Slots to be run now, the earliest first."""
    missed: tuple[datetime, ...] = ()
    """Slots that are not run, as far as they were counted: the last of them."""
    uncounted: bool = False
    """Whether more were missed than these."""
    next: datetime | None = None
    """The slot after these; None when there is none any more."""


def first_slot(schedule: Schedule, terms: Terms, since: datetime) -> datetime | None:
    """Return the first slot after a moment, not before the start."""
    if terms.start_at is not None and terms.start_at > since:
        since = terms.start_at - _MOMENT
    return _within(schedule.next(since), terms)


def upcoming(schedule: Schedule, terms: Terms, since: datetime, number: int) -> tuple[datetime, ...]:
    """Return the first slots after a moment, at most so many."""
    found: list[datetime] = []
    slot = first_slot(schedule, terms, since) if number else None
    while slot is not None and len(found) < number:
        found.append(slot)
        slot = _within(schedule.next(slot), terms)
    return tuple(found)


def turn(schedule: Schedule, terms: Terms, slot: datetime, now: datetime) -> Turn:
    """Decide on a slot that is due, and on those after it that are due as well.

    Late by no more than the grace, one slot is run: the last one, or with "all" each. Of those that are later "skip"
    runs none, "once" the last, "all" the last `missed_limit`.
    """
    due, uncounted = _due(schedule, slot, now if terms.end_at is None else min(now, terms.end_at))
    # A row may be due whose slot is not, by the clock of another moment.
    if not due:
        return Turn(next=slot)
    number = terms.missed_limit if terms.missed == "all" else 1
    run = due[max(0, len(due) - number) :]
    if terms.missed == "skip":
        run = [each for each in run if now - each <= terms.grace]
    missed = due[: len(due) - len(run)]
    following = _within(schedule.next(due[-1]), terms)
    if following is not None and following <= now:
        # Counted up to the end alone.
        following = None
    return Turn(tuple(run), tuple(missed), uncounted, following)


def _due(schedule: Schedule, slot: datetime, until: datetime) -> tuple[list[datetime], bool]:
    """Return the slots from one on that are not after a moment, and whether there are more before these.

    A schedule tells only what comes next. Where that would be too many steps from the slot, one looks from ever
    further back until enough are found.
    """
    found = list(_slots(schedule, slot, until, _LOOK))
    if len(found) < _LOOK:
        return found, False
    back = timedelta(seconds=1)
    last: deque[datetime] = deque(found[-1:], maxlen=_LOOK)
    while until - back > found[-1]:
        near = list(_slots(schedule, schedule.next(until - back), until, _LOOK + 1))
        if len(near) > _LOOK:
            break
        last.extend(near)
        if len(near) >= _LOOK // 2:
            break
        back *= 2
    # Each look saw what the ones before had seen.
    return sorted(set(last)), True


def _slots(schedule: Schedule, slot: datetime | None, until: datetime, limit: int) -> Iterator[datetime]:
    while slot is not None and slot <= until and limit > 0:
        yield slot
        limit -= 1
        slot = schedule.next(slot)


def _within(slot: datetime | None, terms: Terms) -> datetime | None:
    return None if slot is None or (terms.end_at is not None and slot > terms.end_at) else slot


def slot_id(periodic: int, slot: datetime) -> str:
    """Return the id of the task that runs a slot: a UUID of version 7 that is the same whoever makes it."""
    stamp = int(slot.timestamp() * 1000) & (1 << 48) - 1
    digest = hashlib.sha256(f"{periodic}@{slot.astimezone(UTC).isoformat()}".encode()).digest()
    tail = int.from_bytes(digest[:10], "big")
    return str(UUID(int=stamp << 80 | 7 << 76 | (tail >> 62 & 0xFFF) << 64 | 2 << 62 | tail & (1 << 62) - 1))
