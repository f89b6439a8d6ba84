"""Once, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django_tasks.schedules.base import Schedule, asked, in_utc, read_moment


@dataclass(frozen=True, slots=True)
class Clocked(Schedule):
    """Due once, at this moment; never after it."""

    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", in_utc("at", self.at))

    def next(self, after: datetime) -> datetime | None:
        """Return the moment while it is to come, else None."""
        return self.at if asked(after) < self.at else None

    def describe(self) -> str:
        """Return "once, at 2030-12-24 18:00:00 UTC"."""
        return f"once, at {self.at.replace(tzinfo=None).isoformat(' ')} UTC"

    def text(self) -> str:
        """Return "clocked 2030-12-24T18:00:00+00:00"."""
        return f"clocked {self.at.isoformat()}"


def clocked(at: datetime) -> Clocked:
    """Return a schedule that is due once, at an aware moment."""
    return Clocked(at)


def read_clocked(text: str) -> Clocked:
    """Read what follows the word "clocked": a moment in ISO 8601 with its offset."""
    return Clocked(read_moment("at", text.strip()))
