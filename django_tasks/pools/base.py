"""What must a pool do?"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from django_tasks.message import Clock, Delivery
from django_tasks.plan import Outcome

Done = tuple[Delivery, Outcome]


@dataclass(frozen=True, slots=True)
class PoolFeatures:
    """What a pool can do; the conformance suite proves each claim."""

    soft_limit: bool = False
    hard_limit: bool = False
    cancel: bool = False
    """A running task can be stopped."""
    survives: bool = False
    """A task that takes its process down does not take the worker down."""
    resize: bool = False


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool is to run."""

    size: int = 1
    """How many tasks run at once."""
    worker: str = ""
    """The node name that running tasks are told."""
    time_limit: float | None = None
    """Seconds; for tasks that have none of their own."""
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    """KiB of resident memory, looked at after each task."""


@dataclass(frozen=True, slots=True)
class Running:
    """A delivery whose task has begun."""

    delivery: Delivery
    since: float
    """Seconds since the epoch."""
    pid: int


class Pool(ABC):
    """Runs deliveries; knows neither broker nor store.

    Every delivery that is submitted comes out of `drain` with an outcome that is not interim, or out of `reclaim`,
    exactly once. Whenever `drain` has something new the pool rings the bell, from any thread.
    """

    features: ClassVar[PoolFeatures] = PoolFeatures()

    def __init__(self, options: PoolOptions, bell: Callable[[], None], *, clock: Clock = time.time) -> None:
        self.options = options
        self.size = options.size
        self.bell = bell
        self.clock = clock

    @property
    @abstractmethod
    def free(self) -> int:
        """Return how many deliveries could begin at once: slots less what was submitted and has not come out; 0 when
        more was submitted."""

    @property
    def exhausted(self) -> bool:
        """Tell whether the pool cannot go on: the worker must be started anew."""
        return False

    @abstractmethod
    def start(self) -> None:
        """Make ready to run; called once, from the main thread before any other thread is started."""

    @abstractmethod
    def submit(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over deliveries; those that find no free slot wait in the pool, in this order."""

    @abstractmethod
    def drain(self) -> list[Done]:
        """Return what has come out since the last call, interim outcomes included; never blocks."""

    @abstractmethod
    def reclaim(self, older_than: float = 0.0) -> list[Delivery]:
        """Take back deliveries that were handed over more than `older_than` seconds ago and have not begun."""

    @abstractmethod
    def running(self) -> list[Running]:
        """Return what has begun and not come out."""

    def cancel(self, task_id: str, *, kill: bool = False) -> bool:
        """Stop a running task: raise SoftTimeLimitExceeded's sibling in it where the pool can, or end its process;
        return whether it was found. Its outcome is REVOKED."""
        return False

    def dump_stacks(self) -> None:  # noqa: B027  # only pools with processes of their own have more to show
        """Have every process of the pool print the stack of each of its threads to standard error."""

    def resize(self, size: int) -> None:
        """Change how many tasks run at once."""
        self.size = size

    @abstractmethod
    def stop(self, timeout: float) -> None:
        """End within `timeout` seconds. What still runs then is ended and comes out of `drain` as handed back, its
        attempt not spent; so does what has not begun."""
