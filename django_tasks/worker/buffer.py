"""What becomes of a delivery between the broker and the pool?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from django_tasks.backends.base import Broker
from django_tasks.endings import acks_late
from django_tasks.message import Delivery
from django_tasks.settlement import ACKED, Done
from django_tasks.worker.crashes import CrashBook, Suspect
from django_tasks.worker.revocation import Revocations
from django_tasks.worker.seals import Seals


class Buffer:
    """Holds what was fetched and may not be handed to the pool yet, and refuses what must not run.

    1. One that is not what this site has signed ends as FAILURE, where the settings require that.
    2. A revoked message ends as REVOKED. (One that expired is refused where it would begin.)
    3. One that was lost too often ends as FAILURE.
    4. A suspect waits until it can begin at once, and one at its last chance until no other suspect runs.
    5. A task with `acks_late=False` is acknowledged now: from here on it runs at most once.
    """

    def __init__(self, broker: Broker, seals: Seals, crashes: CrashBook, revocations: Revocations) -> None:
        self.broker = broker
        self.seals = seals
        self.crashes = crashes
        self.revocations = revocations
        self.suspects: deque[Suspect] = deque()
        self._begun: dict[str, Suspect] = {}

    def __len__(self) -> int:
        return len(self.suspects)

    def take(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Done]]:
        """Return the deliveries that may run now, and the outcomes of those that will not."""
        genuine, refused = self.seals.sift(deliveries)
        allowed, revoked = self.revocations.sift(genuine)
        judgement = self.crashes.judge(allowed)
        runnable = self._acked(judgement.clear)
        # After all that may fail: then the caller hands everything back.
        self.suspects.extend(judgement.suspects)
        return runnable, refused + revoked + judgement.condemned

    def release(self) -> list[Delivery]:
        """Return the next suspect, written down, to be begun at once on an idle slot; nothing while none may begin.

        When that cannot be written it raises, and the suspect goes on waiting.
        """
        while self.suspects and self._may_begin(self.suspects[0]):
            suspect = self.suspects[0]
            self.crashes.begin(suspect.delivery)
            ready = self._acked([suspect.delivery])
            self.suspects.popleft()
            if ready:
                self._begun[suspect.delivery.message.id] = suspect
                return ready
        return []

    def ended(self, deliveries: Iterable[Delivery]) -> None:
        """Take note of deliveries that have come out of the pool."""
        for delivery in deliveries:
            self._begun.pop(delivery.message.id, None)

    def empty(self) -> list[Delivery]:
        """Return all that is held, for it to be handed back."""
        held = [suspect.delivery for suspect in self.suspects]
        self.suspects.clear()
        return held

    def drop(self, lost: Sequence[Delivery]) -> None:
        """Forget deliveries whose lease was lost."""
        gone = set(map(id, lost))
        self.suspects = deque(suspect for suspect in self.suspects if id(suspect.delivery) not in gone)
        self.ended(lost)

    def _may_begin(self, suspect: Suspect) -> bool:
        return not self._begun or not (suspect.alone or any(other.alone for other in self._begun.values()))

    def _acked(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        early = [delivery for delivery in deliveries if not acks_late(delivery.message)]
        if not early:
            return list(deliveries)
        held = set(map(id, self.broker.ack(early)))
        gone = {id(delivery) for delivery in early}
        return [
            replace(delivery, receipt=ACKED) if id(delivery) in held else delivery
            for delivery in deliveries
            if id(delivery) in held or id(delivery) not in gone
        ]
