"""How do messages get to their brokers? In one call a broker, whatever their number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from django.db import transaction

from django_tasks import conf, signals
from django_tasks.backends.base import Broker
from django_tasks.connections import brokers, groups_of, home, outboxes
from django_tasks.exceptions import ConfigurationError, PublishError, StoreUnavailable, Unroutable
from django_tasks.message import Enqueue, Message
from django_tasks.plan import Group, Plan
from django_tasks.results.groups import Groups
from django_tasks.routing import broker_for
from django_tasks.signing import signed

_log = logging.getLogger("django_tasks.broker")


def publish(plan: Plan, *, as_it_is: bool = False) -> None:
    """Publish what a plan says.

    With a broker that keeps its queue in a Django database the messages are part of the caller's transaction: they
    are seen when it commits, and gone when it rolls back. To others they are sent when it has been committed
    (`on_commit`), with it (`transaction`: they are rows of the outbox, which workers relay), or at once (`immediate`);
    outside of a transaction the first is the last. Raises PublishError; then nothing of that broker's part was queued.

    What has no signature is signed if the settings say so, unless it goes out `as_it_is`: it came from a broker, and
    nobody here has made it.

    Groups are there before their members: with broker and groups in one database, in one transaction.
    """
    if plan.groups:
        _publish_groups(plan)
    else:
        _publish(plan, as_it_is=as_it_is)


def begin(plan: Plan) -> None:
    """Publish what a caller sends; if that is not taken, nothing is left of its groups, which nobody would ever end.

    What follows a task is published again instead, with the groups that are there.
    """
    try:
        publish(plan)
    except PublishError:
        if plan.groups:
            # In a transaction that is broken now they are undone with it.
            with suppress(StoreUnavailable):
                groups_of().forget([group.id for group in plan.groups])
        raise


def _publish_groups(plan: Plan) -> None:
    groups = groups_of()
    if groups.database is not None and _is_kept_in(groups.database, plan.messages):
        with transaction.atomic(using=groups.database):
            groups.open(plan.groups)
            _publish(plan)
        return
    _open(groups, plan.groups)
    # A member that ends before the caller's transaction does would find no group.
    _publish(replace(plan, messages=tuple(map(_not_before_commit, plan.messages))))


def _open(groups: Groups, opened: Sequence[Group]) -> None:
    """Open groups that take no part in a transaction; their time runs once it has been committed: of what is undone
    with it nothing is to fail."""
    limited = [group for group in opened if group.timeout is not None]
    if not limited or groups.database is not None or not transaction.get_connection(home()).in_atomic_block:
        groups.open(opened)
        return
    groups.open([replace(group, timeout=None) for group in opened])
    # Whatever comes of it, the members are sent.
    transaction.on_commit(partial(groups.open, limited), using=home(), robust=True)


def _is_kept_in(database: str, messages: Sequence[Message]) -> bool:
    return all(brokers[broker_for(queue)].database == database for queue in {message.queue for message in messages})


def _not_before_commit(message: Message) -> Message:
    return replace(message, enqueue="on_commit") if message.enqueue == "immediate" else message


def _publish(plan: Plan, *, as_it_is: bool = False) -> None:
    ready = plan.messages if as_it_is or not conf.get().signs else [signed(message) for message in plan.messages]
    for (alias, how), messages in _shares(ready).items():
        if how == "transaction":
            _send(brokers[alias], messages, outboxes[alias])
        elif how == "on_commit":
            _send_on_commit(brokers[alias], messages)
        else:
            _send(brokers[alias], messages, brokers[alias])


def _shares(messages: Sequence[Message]) -> dict[tuple[str, Enqueue], list[Message]]:
    shares: dict[tuple[str, Enqueue], list[Message]] = {}
    shares_of: dict[str, list[Message]] = {}
    """Of queues, for messages that say nothing else of their way."""
    for message in messages:
        is_usual = message.enqueue is None and message.exchange is None and message.eta is None
        if is_usual and message.queue in shares_of:
            shares_of[message.queue].append(message)
            continue
        broker = brokers[broker_for(message.queue)]
        if message.exchange is not None and not (broker.features.exchanges or broker.eager):
            raise ConfigurationError(
                f"{message.task} is to go through the exchange {message.exchange!r}, and the broker {broker.alias!r}, "
                f"which keeps the queue {message.queue!r}, has no exchanges. Use one with the BACKEND 'amqp'."
            )
        sent = message if message.enqueue is None else replace(message, enqueue=None)
        share = shares.setdefault((broker.alias, _how(message, broker)), [])
        share.append(sent)
        if is_usual:
            shares_of[message.queue] = share
    return shares


def _how(message: Message, broker: Broker) -> Enqueue:
    if broker.database is not None or broker.eager:
        return "immediate"
    if message.eta is not None and (message.exchange is not None or not _keeps(broker, message.eta)):
        # It waits in the database for as long as it takes.
        return "transaction"
    return message.enqueue or conf.get().enqueue or broker.enqueue


def _keeps(broker: Broker, eta: datetime) -> bool:
    """Tell whether a message is to wait for its time at the broker itself."""
    return broker.features.delay and (eta - datetime.now(UTC)).total_seconds() <= broker.longest_delay


def _send(broker: Broker, messages: Sequence[Message], to: Broker) -> None:
    signals.announce(signals.task_publishing, type(broker), messages=messages)
    to.publish(messages)
    signals.announce(signals.task_published, type(broker), messages=messages)


def _send_on_commit(broker: Broker, messages: Sequence[Message]) -> None:
    if not transaction.get_connection(home()).in_atomic_block:
        _send(broker, messages, broker)
        return
    transaction.on_commit(partial(_send_committed, broker, messages), using=home())


def _send_committed(broker: Broker, messages: Sequence[Message]) -> None:
    """Send what was promised: the caller's transaction can no longer be undone, so what the broker does not take now
    goes to the outbox."""
    try:
        _send(broker, messages, broker)
    except PublishError as error:
        if isinstance(error, Unroutable) and error.ids:
            messages = [message for message in messages if message.id in error.ids]
        _log.warning(
            "The broker took no messages after a commit; they wait in the outbox",
            extra={"broker": broker.alias, "messages": len(messages), "error": str(error)},
        )
        outboxes[broker.alias].publish(messages)
