"""Do messages for a broker outside of the database keep to the caller's transaction, and reach it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, cast

import pytest
from django.db import connections, transaction

from django_tasks import conf, states
from django_tasks.backends.base import Features
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import brokers, outboxes, relayed, results
from django_tasks.control.client import revoke
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Enqueue, Message
from django_tasks.models import QueuedMessage
from django_tasks.plan import Plan
from django_tasks.publisher import publish
from django_tasks.testing.contracts.harness import sample, samples, together
from django_tasks.worker.relay import BATCH, Relay
from tests.vendors import each_vendor

pytestmark = each_vendor(transaction=True)

PATIENCE = 20.0


class Elsewhere(MemoryBroker):
    """Stands for a server that knows nothing of the database's transactions, and may be down."""

    enqueue: Enqueue = "on_commit"  # type: ignore[misc]
    down = False

    def publish(self, messages: Sequence[Message]) -> None:
        if self.down:
            raise BrokerUnavailable("down")
        super().publish(messages)

    def waiting(self) -> list[str]:
        return [message.id for message in self.peek("default", 10_000)]


class Undelayed(Elsewhere):
    features = Features(wakeups=True, delay=False)


class Impatient(Elsewhere):
    longest_delay = 60.0


class Undo(Exception):
    """The caller changes its mind."""


@pytest.fixture
def elsewhere(alias: str, settings: Any) -> Iterator[Elsewhere]:
    yield use(settings, alias)
    connections[alias].close()


def use(settings: Any, alias: str, kind: type[Elsewhere] = Elsewhere, **keys: Any) -> Elsewhere:
    store = {"BACKEND": "database", "OPTIONS": {"USING": alias}}
    settings.DJANGO_TASKS = {
        "BROKERS": {"default": {"BACKEND": f"{__name__}.{kind.__name__}"}},
        "RESULTS": {"default": store},
        **keys,
    }
    return cast(Elsewhere, brokers["default"])


def relay() -> Relay:
    return Relay(relayed(), lease=30.0, consumer="worker@here")


def send(*messages: Message) -> list[str]:
    publish(Plan(messages))
    return [message.id for message in messages]


def kept(alias: str) -> list[str]:
    return list(QueuedMessage.objects.using(alias).order_by("id").values_list("task_id", flat=True))


def test_what_a_broker_keeps_for_a_while_only_waits_in_the_outbox_when_it_is_for_later(alias: str, settings: Any):
    elsewhere = use(settings, alias, Impatient)
    now = datetime.now(UTC)
    soon, late = send(
        *(replace(sample(), eta=now + timedelta(seconds=seconds), countdown=seconds) for seconds in (30, 90))
    )
    assert elsewhere.waiting() == [soon]
    assert kept(alias) == [late]


# On commit


def test_a_message_is_sent_when_the_transaction_commits(alias: str, elsewhere: Elsewhere):
    with transaction.atomic(using=alias):
        sent = send(*samples(2))
        assert elsewhere.waiting() == []
    assert elsewhere.waiting() == sent
    assert kept(alias) == []


def test_a_message_is_sent_at_once_outside_of_a_transaction(elsewhere: Elsewhere):
    assert send(sample()) == elsewhere.waiting()


@pytest.mark.parametrize("how", ["on_commit", "transaction"])
def test_a_message_is_gone_when_its_transaction_or_its_savepoint_is_rolled_back(
    alias: str, elsewhere: Elsewhere, how: Enqueue
):
    with pytest.raises(Undo), transaction.atomic(using=alias):  # noqa: PT012
        send(replace(sample(), enqueue=how))
        raise Undo
    with transaction.atomic(using=alias):
        (outer,) = send(replace(sample(), enqueue=how))
        with pytest.raises(Undo), transaction.atomic(using=alias):  # noqa: PT012
            send(replace(sample(), enqueue=how))
            raise Undo
    relay().relay("default")
    assert elsewhere.waiting() == [outer]
    assert kept(alias) == []


def test_what_the_broker_does_not_take_after_the_commit_waits_in_the_outbox(alias: str, elsewhere: Elsewhere):
    elsewhere.down = True
    with transaction.atomic(using=alias):
        sent = send(*samples(3))
    assert kept(alias) == sent
    elsewhere.down = False
    assert relay().relay("default") == 3
    assert elsewhere.waiting() == sent
    assert kept(alias) == []


def test_what_the_broker_does_not_take_at_once_is_refused(alias: str, elsewhere: Elsewhere):
    elsewhere.down = True
    with pytest.raises(BrokerUnavailable), transaction.atomic(using=alias):
        send(replace(sample(), enqueue="immediate"))
    assert kept(alias) == []


# How it is said


def test_the_call_wins_over_the_settings_and_those_over_the_broker(alias: str, settings: Any):
    elsewhere = use(settings, alias, ENQUEUE="transaction")
    assert conf.get().enqueue == "transaction"
    (waits,) = send(sample())
    assert kept(alias) == [waits]
    with transaction.atomic(using=alias):
        (at_once,) = send(replace(sample(), enqueue="immediate"))
        assert elsewhere.waiting() == [at_once]
    (message,) = elsewhere.peek("default", 1)
    assert message.enqueue is None


def test_a_broker_in_the_database_has_no_outbox(alias: str, settings: Any):
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    settings.DJANGO_TASKS = {"BROKERS": backend, "RESULTS": backend}
    assert relayed() == []
    (sent,) = send(replace(sample(), enqueue="on_commit"))
    assert kept(alias) == [sent]


# Relaying


def test_messages_are_relayed_in_their_order_when_they_are_committed(alias: str, elsewhere: Elsewhere):
    number = BATCH + 20
    with transaction.atomic(using=alias):
        sent = send(*(replace(one, enqueue="transaction") for one in samples(number)))
    assert elsewhere.waiting() == []
    running = relay()
    assert [running.relay("default") for _ in range(3)] == [BATCH, 20, 0]
    assert elsewhere.waiting() == sent


def test_a_broker_that_is_down_keeps_nothing_from_being_enqueued_and_gets_it_later(alias: str, elsewhere: Elsewhere):
    elsewhere.down = True
    sent = [send(replace(sample(), enqueue="transaction"))[0] for _ in range(5)]
    running = relay()
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            running.relay("default")
    elsewhere.down = False
    assert running.relay("default") == 5
    assert elsewhere.waiting() == sent


def test_two_relays_send_each_message_once(alias: str, elsewhere: Elsewhere):
    sent = send(*(replace(one, enqueue="transaction") for one in samples(3 * BATCH)))

    def drain() -> int:
        running, moved = relay(), 0
        while number := running.relay("default"):
            moved += number
        return moved

    shares = together(drain, drain)
    assert sum(shares) == len(sent)
    assert sorted(elsewhere.waiting()) == sorted(sent)


def test_a_relay_that_dies_after_sending_sends_again_under_the_same_id(alias: str, elsewhere: Elsewhere):
    sent = send(*(replace(one, enqueue="transaction") for one in samples(2)))
    # As far as the dead one came: its lease is over at once.
    taken = outboxes["default"].fetch(["default"], 10, lease=0.0, consumer="dead@here")
    elsewhere.publish([delivery.message for delivery in taken])
    running = relay()
    moved = 0
    while not moved:
        moved = running.relay("default")
    assert moved == 2
    assert elsewhere.waiting() == sent
    assert kept(alias) == []


def test_what_is_delayed_waits_in_the_database_for_a_broker_that_cannot_keep_it(alias: str, settings: Any):
    undelayed = use(settings, alias, Undelayed)
    later, soon = delayed(3600.0), delayed(0.3)
    send(later, soon)
    assert undelayed.waiting() == []
    running = relay()
    running.start()
    try:
        assert undelayed.wait(["default"], PATIENCE, Event())
    finally:
        running.stop()
    assert undelayed.waiting() == [soon.id]
    assert kept(alias) == [later.id]


def delayed(seconds: float) -> Message:
    return replace(sample(), countdown=seconds, eta=datetime.now(UTC) + timedelta(seconds=seconds))


def test_the_thread_relays_what_arrives_and_goes_on_after_an_outage(alias: str, elsewhere: Elsewhere):
    running = relay()
    running.start()
    try:
        (first,) = send(replace(sample(), enqueue="transaction"))
        assert elsewhere.wait(["default"], PATIENCE, Event())
        elsewhere.down = True
        (second,) = send(replace(sample(), enqueue="transaction"))
        elsewhere.down = False
        assert elsewhere.wait(["default"], PATIENCE, Event())
    finally:
        running.stop()
    assert elsewhere.waiting() == [first, second]


def test_a_message_that_waits_in_the_outbox_can_be_revoked(alias: str, elsewhere: Elsewhere):
    (sent,) = send(replace(sample(), enqueue="transaction"))
    assert revoke(sent) == [sent]
    assert results["default"].get([sent])[sent].state == states.REVOKED
    assert relay().relay("default") == 0
    assert elsewhere.waiting() == []
