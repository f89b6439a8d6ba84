"""Which of the messages at hand were revoked?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django_tasks.control.ledger import RevocationLedger
from django_tasks.control.stamps import names_of
from django_tasks.endings import revoked
from django_tasks.message import Delivery
from django_tasks.settlement import Done
from django_tasks.transactions import retrying


class Revocations:
    """Looks deliveries up in the ledger, where there is a reason to.

    A message that waits is taken out of its queue when it is revoked, so a first delivery can only be revoked where
    the broker cannot do that, or where an id was revoked before it was sent, or by its stamp: for these the ledger is
    read when it is not empty, as the heart saw it last. One that was leased before (a retry, a redelivery) is always
    looked up.
    """

    def __init__(self, ledger: RevocationLedger) -> None:
        self.ledger = ledger
        self.any = True

    def refresh(self) -> None:
        """Look whether anything is revoked at all; called with each heartbeat."""
        self.any = retrying(self.ledger.using, self.ledger.any, atomic=False)

    def sift(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Done]]:
        """Return the deliveries that may run, and the outcomes of those that may not."""
        asked = [d for d in deliveries if self.any or d.deliveries > 1 or d.message.retries]
        if not asked:
            return list(deliveries), []
        known = self._among(asked)
        return (
            [delivery for delivery in deliveries if delivery.message.id not in known],
            [(delivery, revoked(delivery)) for delivery in deliveries if delivery.message.id in known],
        )

    def to_end(self, running: Sequence[Delivery]) -> list[Delivery]:
        """Return those of the running deliveries that are to be ended."""
        if not self.any or not running:
            return []
        known = self._among(running)
        return [delivery for delivery in running if known.get(delivery.message.id)]

    def _among(self, deliveries: Sequence[Delivery]) -> Mapping[str, bool]:
        """Return the ids of those that are revoked, by id or by stamp, with whether a run of them is to be ended."""
        names = {delivery.message.id: names_of(delivery.message) for delivery in deliveries}
        asked = list(dict.fromkeys(name for each in names.values() for name in each))
        known = retrying(self.ledger.using, lambda: self.ledger.among(asked), atomic=False)
        if not known:
            return known
        found = {task_id: [known[name] for name in each if name in known] for task_id, each in names.items()}
        return {task_id: any(each) for task_id, each in found.items() if each}
