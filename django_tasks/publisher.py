"""How do messages get to their brokers? In one call a broker, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence

from django_tasks import signals
from django_tasks.connections import brokers
from django_tasks.message import Message
from django_tasks.plan import Plan
from django_tasks.routing import broker_for


def publish(plan: Plan) -> None:
    """Publish what a plan says.

    With a broker that keeps its queue in a Django database the messages are part of the caller's transaction: they
    are seen when it commits, and gone when it rolls back. Raises PublishError; then nothing of that broker's part
    was queued.
    """
    for alias, messages in _by_broker(plan.messages).items():
        broker = brokers[alias]
        signals.announce(signals.task_publishing, type(broker), messages=messages)
        broker.publish(messages)
        signals.announce(signals.task_published, type(broker), messages=messages)


def _by_broker(messages: Sequence[Message]) -> dict[str, list[Message]]:
    shares: dict[str, list[Message]] = {}
    for message in messages:
        shares.setdefault(broker_for(message.queue), []).append(message)
    return shares
