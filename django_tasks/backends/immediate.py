"""Tasks that run where they are published, before `delay()` returns: for tests, and for `Task.apply`."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from django_tasks import states
from django_tasks.backends.base import Broker, Features, QueueStats
from django_tasks.canvas.completion import complete
from django_tasks.connections import groups_of, results
from django_tasks.execution import Site, execute
from django_tasks.failure import rebuild
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome
from django_tasks.sequel import following
from django_tasks.settlement import result_of
from django_tasks.signing import signed

WORKER = "immediate"


class ImmediateBroker(Broker):
    """Runs each message as it is published, in the caller's thread and transaction, retries and callbacks included.

    Delays are not waited for and time limits not kept. `OPTIONS`: `RESULTS` is the alias of the store that keeps the
    results ("default"); with `PROPAGATE` an exception that a task fails with is raised by `delay()`.
    """

    features: ClassVar[Features] = Features(priorities=False, delay=False, leases=False, discards=False, peeks=False)
    eager: ClassVar[bool] = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self.store: str = self.options.get("RESULTS", "default")
        self.propagate: bool = self.options.get("PROPAGATE", False)

    def publish(self, messages: Sequence[Message]) -> None:
        """Run all messages, and all that follows from them, one after the other."""
        waiting = deque(messages)
        while waiting:
            message = signed(waiting.popleft())
            delivery = Delivery(replace(message, created_at=message.created_at or datetime.now(UTC)), receipt=None)
            outcome = execute(delivery, Site(worker=WORKER, report=self._keep, eager=True, store=self.store))
            self._keep(delivery, outcome)
            if self.propagate and outcome.state == states.FAILURE and outcome.failure is not None:
                raise rebuild(outcome.failure)
            # What follows comes before what was published beside it, as a call comes before the next line.
            waiting.extendleft(reversed(self._follow(delivery, outcome)))

    def _follow(self, delivery: Delivery, outcome: Outcome) -> list[Message]:
        """Write down what follows an outcome; return the messages of it."""
        plan = following(delivery.message, outcome)
        if not (plan.parts or plan.groups or plan.results):
            return list(plan.messages)
        groups, store = groups_of(self.store), results[self.store]
        groups.open(plan.groups)
        done = complete(groups, plan.parts)
        store.save([*plan.results, *done.results])
        groups.fired(done.fired)
        return [*plan.messages, *done.messages]

    def _keep(self, delivery: Delivery, outcome: Outcome) -> None:
        if outcome.keep:
            results[self.store].save([result_of(delivery, outcome, WORKER)])

    def fetch(self, queues: Sequence[str], limit: int, *, lease: float, consumer: str) -> list[Delivery]:
        return []

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return []

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        return []

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        return []

    def stats(self, queues: Sequence[str] = (), *, ceiling: int = 10_000) -> list[QueueStats]:
        return []

    def purge(self, queue: str) -> int:
        return 0

    def discard(self, ids: Sequence[str]) -> list[Message]:
        return []

    def peek(self, queue: str, limit: int) -> list[Message]:
        return []
