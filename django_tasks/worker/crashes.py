"""Which task has taken its worker process down too often?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from django.db.models import QuerySet

from django_tasks import states
from django_tasks.endings import max_crashes
from django_tasks.exceptions import WorkerLostError
from django_tasks.failure import capture
from django_tasks.message import Delivery
from django_tasks.models import Crash
from django_tasks.plan import Outcome
from django_tasks.settlement import Done
from django_tasks.transactions import retrying

VANISHED = "its worker vanished"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A delivery that was lost before."""

    delivery: Delivery
    alone: bool
    """Whether one loss more condemns it. It then runs beside no other suspect, so that the blame is not another's."""


@dataclass(slots=True)
class Judgement:
    """What is to become of deliveries."""

    clear: list[Delivery] = field(default_factory=list)
    """Never lost before: may be handed over at once, in any number."""
    suspects: list[Suspect] = field(default_factory=list)
    """Lost before: that one is about to begin is written down first."""
    condemned: list[Done] = field(default_factory=list)
    """Lost too often: not run again."""


class CrashBook:
    """Keeps the evidence of lost runs, and gives up on tasks that are lost too often.

    A run whose worker process died while the worker lived is written down with its signal. When a whole worker dies
    nobody is left to write, and of all that it held only the begun ones are to blame. So nothing is written for a
    message that is delivered for the first time, which keeps the common case free of cost. A message that was lost
    before is a suspect: that it is about to begin is written down first, and taken back when it ends well. One
    unexplained loss counts as a crash, so that a task that kills whole workers runs exactly `max_crashes` times. A
    neighbour that merely waited beside it gathers no evidence, however often that happens, and one that ran beside it
    has its last chance alone.
    """

    def __init__(self, worker: str, using: str) -> None:
        self.worker = worker
        self.using = using
        self._over: list[Done] = []
        """Suspects that have ended, and of which something may be written still."""

    def judge(self, deliveries: Sequence[Delivery]) -> Judgement:
        """Sort deliveries by what is known against them."""
        judgement = Judgement()
        evidence = self._evidence([d.message.id for d in deliveries if d.deliveries > 1])
        for delivery in deliveries:
            most = max_crashes(delivery.message)
            if delivery.deliveries <= 1 and most > 1:
                judgement.clear.append(delivery)
                continue
            crashes = evidence[delivery.message.id]
            ended = delivery.deliveries - 1
            # Of a task that may not be lost even once every begin is written down: without evidence it never began.
            counted = _counted(ended, crashes) if most > 1 else len(crashes)
            if counted >= most:
                judgement.condemned.append((delivery, _given_up(counted, crashes)))
            else:
                judgement.suspects.append(Suspect(delivery, alone=1 < most <= counted + 1))
        return judgement

    def begin(self, delivery: Delivery) -> None:
        """Write down that a suspect is about to begin."""
        self._write(delivery, VANISHED)

    def judged(self, done: Sequence[Done]) -> list[Done]:
        """Write down the runs among these that took their process down; those of them that did so too often fail.

        May be called again with the same outcomes.
        """
        return [self._judged(*pair) if _is_crash(pair[1]) else pair for pair in done]

    def _judged(self, delivery: Delivery, outcome: Outcome) -> Done:
        self._write(delivery, outcome.failure.message if outcome.failure else VANISHED)
        crashes = self._evidence([delivery.message.id])[delivery.message.id]
        if _counted(delivery.deliveries, crashes) < max_crashes(delivery.message):
            return delivery, outcome
        return delivery, replace(_given_up(delivery.deliveries, crashes), started=outcome.started, ended=outcome.ended)

    def ended(self, settled: Iterable[Done]) -> None:
        """Take note of deliveries that have ended, for `clear`."""
        self._over += [pair for pair in settled if _written(pair[0]) and not pair[1].interim]

    def clear(self) -> None:
        """Forget what was written of suspects that ended well, or were handed back before they began. What cannot be
        forgotten now will be at the next call."""
        if self._over:
            retrying(self.using, self._clear)
            self._over.clear()

    def _clear(self) -> None:
        cleared = [
            delivery.message.id for delivery, outcome in self._over if outcome.requeue is None and not _gave_up(outcome)
        ]
        self._crashes.filter(task_id__in=cleared).delete()
        for delivery, outcome in self._over:
            if outcome.requeue is not None and not outcome.requeue.spent:
                self._crashes.filter(task_id=delivery.message.id, attempt=delivery.attempt).delete()

    def expire(self, before: datetime) -> int:
        """Remove evidence older than a time; return how much."""
        return self._crashes.filter(created_at__lt=before).delete()[0]

    @property
    def _crashes(self) -> QuerySet[Crash]:
        return Crash.objects.using(self.using)

    def _evidence(self, ids: Sequence[str]) -> dict[str, list[Crash]]:
        found: dict[str, list[Crash]] = defaultdict(list)
        if not ids:
            # Of most batches. To make a query that is not asked takes longer than all else that is done with them.
            return found
        rows = self._crashes.filter(task_id__in=ids).order_by("id")
        for crash in retrying(self.using, lambda: list(rows.all()), atomic=False):
            found[crash.task_id].append(crash)
        return found

    def _write(self, delivery: Delivery, reason: str) -> None:
        def write() -> None:
            self._crashes.update_or_create(
                task_id=delivery.message.id,
                attempt=delivery.attempt,
                defaults={"worker": self.worker, "reason": reason},
            )

        retrying(self.using, write)


def _written(delivery: Delivery) -> bool:
    """Tell whether the begin of a delivery was written down."""
    return delivery.deliveries > 1 or max_crashes(delivery.message) == 1


def _is_crash(outcome: Outcome) -> bool:
    """Tell whether a run took its process down."""
    return outcome.requeue is not None and outcome.requeue.spent


def _counted(ended: int, crashes: Sequence[Crash]) -> int:
    """Return how many of the runs that ended count as lost: those with evidence, and one for any without."""
    return len(crashes) + min(1, max(0, ended - len(crashes)))


def _given_up(ended: int, crashes: Sequence[Crash]) -> Outcome:
    told = [f"attempt {crash.attempt} on {crash.worker}: {crash.reason}" for crash in crashes]
    if _counted(ended, crashes) > len(crashes):
        told.insert(0, "an earlier attempt, whose worker vanished")
    times = "once" if len(told) == 1 else f"{len(told)} times"
    text = f"given up: it took its worker process down {times} ({'; '.join(told)})"
    return Outcome(states.FAILURE, failure=capture(WorkerLostError(text)))


def _gave_up(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.type == WorkerLostError.__qualname__
