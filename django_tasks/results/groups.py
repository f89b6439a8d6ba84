"""Where is it recorded which members of a group have ended?"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from django_tasks.exceptions import ChordError, DecodeError
from django_tasks.failure import Failure, capture
from django_tasks.plan import Group, Part
from django_tasks.reprs import storable_text

GRACE = 30.0
"""Seconds after which what follows a group is taken not to have been sent by whoever was given the group."""

MISSING = 20
"""How many members a group names that had not ended in time."""

_TEXT_LENGTH = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a group is."""

    id: str
    size: int
    done: int
    """Members that have ended, well or not."""
    failed: Part | None = None
    """The first member that failed."""
    ended_at: datetime | None = None
    """When the last member ended, or the first one failed, or its time was over."""

    @property
    def ready(self) -> bool:
        """Tell whether all members have ended."""
        return self.done >= self.size

    @property
    def over(self) -> bool:
        """Tell whether nothing is waited for any more: all have ended, or the group as such has failed."""
        return self.ready or (self.failed is not None and self.failed.task_id == self.id)


@dataclass(frozen=True, slots=True)
class Ended:
    """A group whose outcome is known: what was to follow it can begin, or never will."""

    group: Group
    failed: Part | None = None
    """The first member that failed, if any did. Where its task is the group itself, that has failed as such."""
    vouched: bool = True
    """Whether what is to follow was written by this site, as far as the store can tell."""


class Groups(ABC):
    """Records groups, and each member's end under its number: nothing is counted, so that what is repeated after a
    crash changes nothing.

    Guarantee: each group ends once. `record` gives it to whoever records the end of its last member, or of the first
    one that failed; it is theirs to have done what follows.
    """

    database: str | None = None
    """The alias of the Django database whose transactions it takes part in, if it does. Then a group is given out when
    the caller's transaction commits and not before, so that `fired` and `unfired` have nothing to do."""

    @abstractmethod
    def open(self, groups: Sequence[Group]) -> None:
        """Write groups down; one that is there already stays as it is, but for its timeout if it has none yet.

        One with a `failure` has ended, and gives nothing out. The time of one with a `timeout` runs from now on.
        """

    @abstractmethod
    def record(self, parts: Sequence[Part]) -> list[Ended]:
        """Write down how members ended, and return the groups that end by that.

        What is recorded of a member stays; parts of a group that is not known are dropped.
        """

    @abstractmethod
    def late(self, limit: int = 100) -> list[str]:
        """Return the ids of up to `limit` groups that have not ended and whose time is over."""

    @abstractmethod
    def give_up(self, ids: Sequence[str]) -> list[Ended]:
        """End groups that were `late` with a failure that says which members are missing, and return those that end by
        that. What is recorded of them later stays, and gives nothing out."""

    def fired(self, ids: Sequence[str]) -> None:  # noqa: B027  # nothing to do within a transaction
        """Say that what follows these groups has been sent."""

    def unfired(self, limit: int = 100) -> list[Ended]:
        """Return groups that were given out longer than GRACE ago, and of which nobody has said that they were fired.

        It is as if they were given out now: nobody else gets them for as long.
        """
        return []

    @abstractmethod
    def values(self, group_id: str) -> list[bytes] | None:
        """Return the encoded value of each member, in order; None for a group that is not known or has failed."""

    @abstractmethod
    def parts(self, group_id: str) -> list[Part]:
        """Return how members ended, in order; those that have not are left out."""

    @abstractmethod
    def progress(self, ids: Sequence[str]) -> dict[str, Progress]:
        """Return how far groups are, by id; one that is not known is left out."""

    @abstractmethod
    def keep(self, group_id: str, size: int, text: str) -> None:
        """Keep a text with a group, which is written down if it is not known."""

    @abstractmethod
    def kept(self, group_id: str) -> str | None:
        """Return the text that is kept with a group; None if none is."""

    @abstractmethod
    def grow(self, group_id: str, name: str) -> int | None:
        """Add a member to a group, unless one of that name was added before; return its number.

        None for a group that is not known, or has ended without a member of that name.
        """

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> int:
        """Remove groups and their parts; return how many groups there were."""

    @abstractmethod
    def expire(self, before: datetime, limit: int = 100) -> int:
        """Remove up to `limit` groups that ended before a time, but for those that are yet to be fired; return how
        many."""


def lateness(missing: Sequence[int], count: int, size: int) -> Failure:
    """Return how a group fails whose time is over; `missing` are the numbers of the first of `count` members that have
    not ended."""
    *most, last = map(str, missing)
    if count > len(missing):
        most, last = [*most, last], f"{count - len(missing):,} more"
    named = f"Members {', '.join(most)} and {last}" if most else f"Member {last}"
    said = f"{named} of {size:,} had not ended when the time of their group was over; they are counted from 0."
    error = ChordError(said if most else said.replace("their", "its").replace("they are", "it is"))
    return replace(capture(error), traceback="")


def absent(numbers: Collection[int], size: int) -> list[int]:
    """Return the first of a group's numbers that are not among these, as many as it names."""
    return list(islice((number for number in range(size) if number not in numbers), MISSING))


def failure_text(failure: Failure) -> str:
    """Return what is kept of a member's failure, in pure ASCII; its traceback stands in the result of the task."""
    told = {**failure.as_dict(), "traceback": ""}
    return storable_text(json.dumps(told), _TEXT_LENGTH)


def failure_from(text: str | bytes) -> Failure:
    """Return the failure that was kept, or one that says that it cannot be read."""
    try:
        return Failure.from_dict(json.loads(text))
    except (ValueError, TypeError, AttributeError, DecodeError):
        return Failure("TaskError", "django_tasks.exceptions", "it failed, and how it did cannot be read")
