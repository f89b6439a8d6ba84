"""What follows tasks that have ended, and how is it sent?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from django.db import transaction

from django_tasks import states
from django_tasks.canvas.abandonment import abandoned
from django_tasks.canvas.calls import place_of
from django_tasks.canvas.completion import Completion, complete, take
from django_tasks.connections import brokers, groups_of, has_outbox, home
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, DjangoTasksError, StoreUnavailable
from django_tasks.failure import Failure
from django_tasks.message import Message
from django_tasks.plan import NOTHING, Outcome, Plan, Result, joined, member_end
from django_tasks.publisher import publish
from django_tasks.results.base import ResultStore
from django_tasks.results.groups import Ended, Groups
from django_tasks.routing import broker_for
from django_tasks.transactions import retrying

_log = logging.getLogger("django_tasks.worker")

PASSING = (BrokerUnavailable, BrokerFull, StoreUnavailable)
"""No message is to blame: the server takes it later."""

NO_VALUE = Failure("TaskError", "django_tasks.exceptions", "it asked that its end be ignored, so that it has no value")


def following(message: Message, outcome: Outcome) -> Plan:
    """Return what follows an outcome: what its run says, or, of one that had no run, what its message does; and what it
    means for the group of which its task is a member."""
    if outcome.state not in states.FINAL or outcome.requeue is not None or not outcome.counts:
        return outcome.plan
    place = place_of(message)
    if outcome.state == states.SUCCESS:
        return outcome.plan + member_end(place, message.id, value=outcome.value)
    failure = outcome.failure or NO_VALUE
    rest = NOTHING if outcome.opened else abandoned(message, failure)
    return joined((outcome.plan, rest, member_end(place, message.id, failure=failure)))


def abandon(store: ResultStore, ended: Sequence[Result]) -> None:
    """Do what follows tasks that ended without a run, and whose messages are known: they were revoked."""
    plans = [
        following(result.message, Outcome(result.state, failure=result.failure))
        for result in ended
        if result.message is not None
    ]
    send(store, joined(plans))


def send(store: ResultStore, plan: Plan, *, shared: str | None = None) -> None:
    """Do what a plan says; `shared` is the database whose transaction is under way, if one is.

    Guarantee: where groups are rows, what follows one is sent in the transaction that records its last member: with it,
    or, to a broker elsewhere, through the outbox. So it is sent once. Elsewhere it is sent before the group is marked
    as fired, and `sweep` finds what was not.
    """
    if plan.messages or plan.groups:
        publish(Plan(plan.messages, plan.groups))
    if plan.results:
        store.save(plan.results)
    if not plan.parts:
        return
    groups = groups_of(store.alias)
    if groups.database is None or groups.database == shared:
        _fire(store, groups, complete(groups, plan.parts))
    else:
        retrying(groups.database, lambda: _fire(store, groups, complete(groups, plan.parts)))


def sweep(store: ResultStore) -> int:
    """Send what follows groups that have ended without that, and end those whose time is over; return how many there
    were."""
    groups = groups_of(store.alias)
    unfired: list[Callable[[], list[Ended]]] = [partial(list, (each,)) for each in groups.unfired()]
    late: list[Callable[[], list[Ended]]] = [partial(groups.give_up, (each,)) for each in groups.late()]
    return sum(_sweep(store, groups, each) for each in unfired + late)


def _sweep(store: ResultStore, groups: Groups, end: Callable[[], list[Ended]]) -> int:
    """Do what follows one group; what cannot be sent holds up no other."""

    def follow() -> int:
        done = Completion()
        take(groups, done, end())
        if done.messages and groups.database is None:
            # Whoever was to send it may have come as far as that, and not to say so.
            known = store.get([message.id for message in done.messages])
            done.messages = [each for each in done.messages if each.id not in known or not known[each.id].final]
        if done.fired:
            _fire(store, groups, done)
        return len(done.fired)

    try:
        return follow() if groups.database is None else retrying(groups.database, follow)
    except PASSING:
        raise
    except DjangoTasksError as error:
        _log.error("What follows a group could not be sent; trying again later", extra={"error": str(error)})
        return 0


def _fire(store: ResultStore, groups: Groups, done: Completion) -> None:
    store.save(done.results)
    outbox = groups.database is not None
    messages = [_through_outbox(message) if outbox else message for message in done.messages]
    if messages:
        publish(Plan(tuple(messages)))
    if groups.database is None and transaction.get_connection(home()).in_atomic_block:
        # So are messages for a broker that takes no part in it.
        transaction.on_commit(partial(groups.fired, done.fired), using=home())
    else:
        groups.fired(done.fired)


def _through_outbox(message: Message) -> Message:
    """Have a message for a broker that takes no part in the database's transactions sent with the one under way."""
    return replace(message, enqueue="transaction") if has_outbox(brokers[broker_for(message.queue)]) else message
