"""What if a broker delivers much of it twice, as one may that promises each message at least once?"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import ledger
from django_tasks.backends.amqp import AmqpBroker
from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.redis import RedisBroker
from django_tasks.message import Delivery
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore

MEANWHILE, AFTERWARDS, OF = 3, 3, 20
"""Of so many messages, how many are run a second time before the first run has ended, and how many after that."""


class Echoing(Broker):
    """Delivers three of ten messages twice.

    Half of these are given to others while their worker runs them, as when a lease ends too early: to publish an id
    again would do nothing on most brokers. The other half comes again when their worker has acknowledged them, as when
    that was lost: all that follows has been sent by then. Which ones is told by their ids.
    """

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        deliveries = self._fetch(queues, limit, lease, consumer)
        if self._return([each for each in deliveries if _echoes(each, 0, MEANWHILE)]):
            # A broker takes who gives something back to want nothing, until the next fetch.
            deliveries += self._fetch(queues, limit - len(deliveries), lease, consumer)
        return deliveries

    def _fetch(self, queues: Sequence[str], limit: int, lease: float, consumer: str) -> list[Delivery]:
        # Whatever it is mixed into does it.
        return super().fetch(queues, limit, lease=lease, consumer=consumer)  # type: ignore[safe-super]

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        again = [each for each in deliveries if _is_lost(each)]
        done = super().ack([each for each in deliveries if not _is_lost(each)])  # type: ignore[safe-super]
        held = {*map(id, done), *map(id, self._return(again))}
        return [each for each in deliveries if id(each) in held]

    def finish(
        self, deliveries: Sequence[Delivery], store: ResultStore, results: Sequence[Result]
    ) -> list[Delivery] | None:
        return None if any(map(_is_lost, deliveries)) else super().finish(deliveries, store, results)

    def _return(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        # As one that was delivered: the next time is not the first.
        held = self.nack(deliveries, spent=True)
        for delivery in held:
            ledger.note(ledger.number_of(delivery.message.id), ledger.ECHO)
        return held


class EchoingDatabase(Echoing, DatabaseBroker): ...


class EchoingRedis(Echoing, RedisBroker): ...


class EchoingAmqp(Echoing, AmqpBroker): ...


def _is_lost(delivery: Delivery) -> bool:
    return _echoes(delivery, MEANWHILE, MEANWHILE + AFTERWARDS)


def _echoes(delivery: Delivery, first: int, end: int) -> bool:
    return delivery.attempt == 1 and first <= ledger.number_of(delivery.message.id) % OF < end
