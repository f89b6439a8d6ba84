"""How is what came of tasks written down? Results, then what follows, then acknowledgements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from django.db import InterfaceError, InternalError, OperationalError

from django_tasks import conf, states
from django_tasks.backends.base import Broker
from django_tasks.canvas.calls import place_of
from django_tasks.exceptions import StoreUnavailable
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome, Plan, Requeue, Result, joined
from django_tasks.publisher import publish
from django_tasks.results.base import ResultStore
from django_tasks.routing import broker_for
from django_tasks.sequel import following, send
from django_tasks.signing import signed
from django_tasks.transactions import explain, retrying

Done = tuple[Delivery, Outcome]

ACKED = None
"""The receipt of a delivery that was acknowledged before it ran (`acks_late=False`)."""


class Settlement:
    """Writes down outcomes, a batch at a time.

    Guarantee: a crash at any point repeats work and loses none. Where broker and store share a database all of it is
    one transaction, in which the acknowledgement comes first and decides: what this worker no longer holds writes
    nothing and is followed by nothing. Elsewhere results come first, then what follows, and the acknowledgement last;
    there a stale worker cannot change a final state, but it may be the first to write one. Where signatures are
    required what follows comes before the results: a result kept stands for all of it.
    """

    def __init__(self, broker: Broker, store: ResultStore, *, worker: str, lease: float) -> None:
        self.broker = broker
        self.store = store
        self.worker = worker
        self.lease = lease
        self.shared = broker.database if broker.database == store.database else None

    def settle(self, done: Sequence[Done]) -> list[Done]:
        """Write outcomes down; return those that counted.

        Raises BrokerUnavailable or StoreUnavailable, and may then be called again with the same outcomes.
        """
        batch = _last_of_each(done)
        if not batch:
            return []
        if self.shared is not None:
            return self._settle_together(batch, self.shared)
        if conf.get().require_signature:
            # A message whose result is kept is taken for a replay when it comes again, so nothing may be left to do.
            self._follow(batch)
            self._save(batch)
        else:
            self._save(batch)
            self._follow(batch)
        held = self._release(batch)
        return [pair for pair in batch if id(pair[0]) in held]

    def _settle_together(self, batch: Sequence[Done], using: str) -> list[Done]:
        try:
            finished = self._finish(batch)
            return retrying(using, lambda: self._decide(batch)) if finished is None else finished
        except (InterfaceError, InternalError, OperationalError) as error:
            # Not the batch is at fault but the server, which is gone, read-only or full: it may take the same later.
            raise StoreUnavailable(explain(using, error)) from error

    def _finish(self, batch: Sequence[Done]) -> list[Done] | None:
        """Do all of it in one statement, where there is such a one and nothing but results is to be written."""
        if len({delivery.message.id for delivery, _ in batch}) < len(batch) or not all(map(_is_plain, batch)):
            return None
        saved = [result_of(*pair, self.worker) for pair in batch if pair[1].keep]
        finished = self.broker.finish([delivery for delivery, _ in batch], self.store, saved)
        if finished is None:
            return None
        held = set(map(id, finished))
        return [pair for pair in batch if id(pair[0]) in held]

    def _decide(self, batch: Sequence[Done]) -> list[Done]:
        held = self._release(batch)
        counted = [pair for pair in batch if id(pair[0]) in held]
        self._save(counted)
        self._follow(counted)
        return counted

    def _release(self, batch: Iterable[Done]) -> set[int]:
        """Acknowledge, give back or renew each delivery; return the `id()` of those that were held."""
        done: list[Delivery] = []
        again: list[tuple[Delivery, Message]] = []
        going_on: list[Delivery] = []
        back: dict[Requeue, list[Delivery]] = defaultdict(list)
        held: set[int] = set()
        for delivery, outcome in batch:
            if delivery.receipt is ACKED or outcome.settled:
                held.add(id(delivery))
            elif outcome.requeue is not None:
                back[outcome.requeue].append(delivery)
            elif outcome.interim:
                going_on.append(delivery)
            elif (attempt := self._next_attempt(delivery, outcome)) is not None:
                again.append((delivery, signed(attempt)))
            else:
                done.append(delivery)
        held.update(map(id, self.broker.ack(done)))
        held.update(map(id, self.broker.replace(again)) if again else ())
        held.update(map(id, self.broker.extend(going_on, self.lease)))
        for requeue, deliveries in back.items():
            held.update(map(id, self.broker.nack(deliveries, delay=requeue.delay, spent=requeue.spent)))
        return held

    def _next_attempt(self, delivery: Delivery, outcome: Outcome) -> Message | None:
        """Return the message that takes this one's place with its broker, if there is one."""
        for message in outcome.plan.messages:
            if message.id == delivery.message.id and broker_for(message.queue) == self.broker.alias:
                return message
        return None

    def _save(self, batch: Iterable[Done]) -> None:
        self.store.save([result_of(*pair, self.worker) for pair in batch if pair[1].keep and not pair[1].settled])

    def _follow(self, batch: Iterable[Done]) -> None:
        plans: list[Plan] = []
        back: list[Message] = []
        for delivery, outcome in batch:
            if outcome.settled:
                continue
            again = None if delivery.receipt is ACKED else self._next_attempt(delivery, outcome)
            plans.append(_without(following(delivery.message, outcome), again))
            if delivery.receipt is ACKED and outcome.requeue is not None:
                # It left its queue when it was begun: the only way back is to send it again.
                back.append(replace(delivery.message, countdown=outcome.requeue.delay or None))
        send(self.store, joined(plans), shared=self.shared)
        if back:
            publish(Plan(tuple(back)), as_it_is=True)


def _without(plan: Plan, message: Message | None) -> Plan:
    if message is None:
        return plan
    return replace(plan, messages=tuple(each for each in plan.messages if each is not message))


def result_of(delivery: Delivery, outcome: Outcome, worker: str) -> Result:
    """Return what is kept of an outcome."""
    message = delivery.message
    return Result.of(
        message,
        outcome.state,
        value=outcome.value,
        failure=outcome.failure,
        children=outcome.children,
        worker=worker,
        attempts=delivery.attempt,
        runtime=outcome.runtime if outcome.ended is not None else None,
        started_at=_moment(outcome.started),
        ended_at=_moment(outcome.ended) or datetime.now(UTC) if outcome.state in states.FINAL else None,
        message=message if _kept(outcome) else None,
    )


def _is_plain(pair: Done) -> bool:
    """Tell whether a task is over, and nothing follows."""
    delivery, outcome = pair
    goes_on = outcome.interim or outcome.requeue is not None or bool(outcome.plan)
    # What follows a failure without a run stands in a body that nobody has opened.
    known = outcome.state == states.SUCCESS or outcome.opened
    plain = known and not goes_on and place_of(delivery.message) is None
    return plain and not outcome.settled and delivery.receipt is not ACKED


def _kept(outcome: Outcome) -> bool:
    return outcome.state in states.FAILED and conf.get().keep_arguments == "on_failure"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _last_of_each(done: Sequence[Done]) -> list[Done]:
    """Return the last outcome of each delivery: what came before it is history."""
    return list({id(delivery): (delivery, outcome) for delivery, outcome in done}.values())
