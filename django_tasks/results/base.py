"""What must a result store do?"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from django.core.checks import CheckMessage

from django_tasks.diagnosis import Diagnosis
from django_tasks.message import Clock
from django_tasks.plan import Result
from django_tasks.results.groups import Groups

DEFAULT_EXPIRES = timedelta(days=7)

KEPT = (
    "task",
    "queue",
    "args_repr",
    "kwargs_repr",
    "created_at",
    "started_at",
    "root_id",
    "parent_id",
    "group_id",
)
"""What a result of a later state need not say again."""

_DEFAULTS = {field.name: field.default for field in fields(Result)}


def merged(before: Result, after: Result) -> Result:
    """Return the later result, with what it leaves out taken from the one before."""
    left_out = {name: getattr(before, name) for name in KEPT if getattr(after, name) == _DEFAULTS[name]}
    return replace(after, **left_out)


@dataclass(frozen=True, slots=True)
class StoreFeatures:
    """What a store can do; the conformance suite proves each claim."""

    expires: bool = True
    """`expire` removes what ended before a time; without that results go by themselves when their time is over."""
    large: bool = True
    """Keeps values of several megabytes; without that it may raise ResultTooLarge."""
    shared: bool = True
    """Every process sees what is saved; without that the one alone which `reply_to` stands for."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A part of a statement that saves results, and its parameters."""

    sql: str
    params: Sequence[Any]


class ResultStore(ABC):
    """Keeps what is known of tasks, in batches.

    A final state never changes: the first one that is saved stays. A driver's error never leaves: it is raised as
    `StoreUnavailable`.
    """

    features: StoreFeatures = StoreFeatures()
    database: str | None = None
    """The alias of the Django database whose transactions this store takes part in, if it does."""
    groups: Groups | None = None
    """Where this store records groups; None leaves them to the project's database."""
    private: bool = False
    """Whether no other process sees what is in it."""

    def __init__(self, alias: str, params: Mapping[str, Any], *, clock: Clock = time.time) -> None:
        self.alias = alias
        self.location: str = params.get("LOCATION", "")
        self.options: Mapping[str, Any] = params.get("OPTIONS", {})
        self.expires: timedelta | None = self.options.get("EXPIRES", DEFAULT_EXPIRES)
        """How long results are kept after the task ended; None for ever."""
        self.clock = clock

    def reply_to(self) -> str:
        """Return what a message is to say of where its result goes, for a store that sends results to who asked; asked
        once a call that wants its result. May raise StoreUnavailable."""
        return ""

    @abstractmethod
    def save(self, results: Sequence[Result]) -> None:
        """Write results; one that is final already stays as it is. Of several with one id the last that counts wins.

        Returns when all are kept: a worker then acknowledges their messages. Raises ResultTooLarge for a result that
        is not taken for its size; others of the batch may have been written.
        A later state that leaves out `created_at`, `started_at`, `args_repr` or `kwargs_repr` keeps what was known.
        """

    def saving(self, results: Sequence[Result], among: str) -> Saving | None:
        """Return what saves results, no two of one id, whose ids `among` selects: a broker that keeps its messages in
        the same database makes it a part of its own statement. None where `save` is to be called."""
        return None

    @abstractmethod
    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        """Return what is known, by id; an id that is not known is left out."""

    @abstractmethod
    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        """Block until one of the tasks, at least, is in a final state, or `timeout` seconds have passed; return those
        that are."""

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> int:
        """Remove results, final ones included; return how many there were."""

    @abstractmethod
    def expire(self, before: datetime, limit: int = 1000) -> int:
        """Remove up to `limit` results that ended before a time; return how many."""

    def close(self) -> None:  # noqa: B027  # most stores hold nothing that must be let go
        """Let go of connections; the next call opens them again."""

    def check(self, databases: Sequence[str] = ()) -> list[CheckMessage]:
        """Return what Django's system checks should say about this store's settings.

        Only the databases that are named may be asked anything.
        """
        return []

    def diagnose(self, *, ask: bool = True) -> Diagnosis:
        """Return what its server is and all that is unsafe about it: what `check` says, and what is worth saying before
        a site goes live. Raises StoreUnavailable.

        Without `ask` nothing is sent anywhere, and only what the settings show is told.
        """
        return Diagnosis(type(self).__name__, found=tuple(self.check()))
