"""Is a message what this site has signed, and is it new?"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from django_tasks import conf, states
from django_tasks.endings import refused
from django_tasks.exceptions import SignatureError
from django_tasks.message import Clock, Delivery
from django_tasks.plan import Outcome
from django_tasks.results.base import ResultStore
from django_tasks.settlement import Done
from django_tasks.signing import verify

_log = logging.getLogger("django_tasks.worker")


class Seals:
    """Refuses what was not signed by this site, and drops what was run before, where the settings require signatures.

    It comes before all else that a worker does with a message, of which nothing was decompressed or decoded by then.
    A message was run before if its id has a final result, or that of a later retry. That is so as well of one that
    comes again because a worker died after it wrote the result and before it acknowledged: nothing was left to do.
    """

    def __init__(self, store: ResultStore, clock: Clock = time.time) -> None:
        self.store = store
        self.clock = clock

    def sift(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Done]]:
        """Return the deliveries that may run, and the outcomes of those that may not; raises StoreUnavailable."""
        settings = conf.get()
        if not settings.require_signature:
            return list(deliveries), []
        genuine: list[Delivery] = []
        turned_away: list[Done] = []
        for delivery in deliveries:
            try:
                verify(delivery.message, settings.signature_max_age, self.clock)
            except SignatureError as error:
                turned_away.append((delivery, refused(delivery, error)))
            else:
                genuine.append(delivery)
        replayed = self._replayed(genuine)
        fresh = [delivery for delivery in genuine if delivery.message.id not in replayed]
        return fresh, turned_away + [(each, _dropped()) for each in genuine if each.message.id in replayed]

    def _replayed(self, deliveries: Sequence[Delivery]) -> set[str]:
        if not deliveries:
            return set()
        known = self.store.get([delivery.message.id for delivery in deliveries])
        over = {
            delivery.message.id
            for delivery in deliveries
            if (result := known.get(delivery.message.id)) is not None
            and (result.final or result.retries > delivery.message.retries)
        }
        if over:
            _log.warning(
                "Messages came again of tasks that have run; they are dropped",
                extra={"messages": len(over), "task_id": min(over)},
            )
        return over


def _dropped() -> Outcome:
    return Outcome(states.IGNORED, keep=False, counts=False)
