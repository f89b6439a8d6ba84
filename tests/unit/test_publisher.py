"""Do messages reach their brokers, in one call each?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.db import connections, transaction

from django_tasks import bulk, chord, signals
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import brokers, groups_of
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, ConfigurationError, PublishError
from django_tasks.message import Message, new_id
from django_tasks.plan import NOTHING, Plan
from django_tasks.publisher import publish
from tests import waits
from tests.calls import declare
from tests.canvas_tasks import add, tsum
from tests.vendors import each_vendor

Configure = Callable[..., None]


class Full(MemoryBroker):
    def publish(self, messages: Sequence[Message]) -> None:
        raise BrokerFull("no room")


@pytest.fixture
def told() -> Iterator[list[tuple[str, Any, int]]]:
    """Give what the signals of publishing tell, in order."""
    said: list[tuple[str, Any, int]] = []

    def publishing(sender, messages, **_):
        said.append(("publishing", sender, len(messages)))

    def published(sender, messages, **_):
        said.append(("published", sender, len(messages)))

    signals.task_publishing.connect(publishing)
    signals.task_published.connect(published)
    yield said
    signals.task_publishing.disconnect(publishing)
    signals.task_published.disconnect(published)


def message(queue: str = "default") -> Message:
    return Message(id=new_id(), task="t", body=b"", queue=queue)


def test_a_plan_for_several_brokers_is_one_call_for_each_in_the_order_given(configure: Configure, told) -> None:
    entry = {"BACKEND": "memory"}
    configure(BROKERS={"default": entry, "bus": entry}, QUEUES={"events": {"BROKER": "bus"}})
    sent = [message(), message("events"), message("mail"), message("events")]
    publish(Plan(tuple(sent)))
    assert told == [("publishing", MemoryBroker, 2), ("published", MemoryBroker, 2)] * 2
    assert [found.id for found in brokers["bus"].peek("events", 9)] == [sent[1].id, sent[3].id]
    assert [found.id for found in brokers["default"].peek("default", 9)] == [sent[0].id]
    assert [found.id for found in brokers["default"].peek("mail", 9)] == [sent[2].id]


def test_a_plan_without_messages_costs_nothing(configure: Configure, told) -> None:
    publish(NOTHING)
    assert told == []


def test_what_a_broker_refuses_is_raised_and_not_told_as_published(configure: Configure, told) -> None:
    configure(BROKERS={"default": {"BACKEND": f"{__name__}.Full"}})
    with pytest.raises(PublishError, match="no room"):
        publish(Plan((message(),)))
    assert told == [("publishing", Full, 1)]


def test_nothing_is_left_of_a_group_that_no_broker_took(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": f"{__name__}.Full"}})
    whole = chord([add.s(1, 1)], tsum.s())
    group_id = whole.freeze().parent.id
    for send in (whole.apply_async, lambda: bulk([whole])):
        with pytest.raises(PublishError, match="no room"):
            send()
        assert groups_of().progress([group_id]) == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kept", [True, False])
def test_the_time_of_a_group_elsewhere_runs_once_the_transaction_is_committed(configure: Configure, kept: bool) -> None:
    entry = {"default": {"BACKEND": "memory"}}
    configure(BROKERS=entry, RESULTS=entry)
    with contextlib.suppress(Undo), transaction.atomic():
        sent = chord([add.s(1, 1)], tsum.s(), timeout=60).apply_async()
        waits.elapse(groups_of(), 61)
        assert groups_of().late() == []
        if not kept:
            raise Undo
    waits.elapse(groups_of(), 59)
    assert groups_of().late() == []
    waits.elapse(groups_of(), 2)
    assert groups_of().late() == ([sent.parent.id] if kept else [])


# In the caller's transaction


class Undo(Exception):
    """The caller changes its mind."""


@pytest.fixture
def in_database(configure: Configure, alias: str) -> None:
    """Keep messages in the database of the test."""
    configure(BROKERS={"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}})


def waiting() -> list[str]:
    return [found.task for found in brokers["default"].peek("default", 99)]


@each_vendor(transaction=True)
@pytest.mark.usefixtures("in_database")
class TestTransaction:
    def test_what_is_sent_in_a_transaction_is_gone_when_that_is_rolled_back(self, alias: str) -> None:
        first, second = declare(lambda: None), declare(lambda: None)
        first.delay()
        with contextlib.suppress(Undo), transaction.atomic(using=alias):
            second.delay()
            bulk(second.s() for _ in range(10))
            second.apply_async(countdown=60)
            assert len(waiting()) == 13
            raise Undo
        assert waiting() == [first.name]

    def test_it_is_seen_by_others_when_that_commits_and_no_sooner(self, alias: str) -> None:
        def fetched() -> int:
            try:
                return len(brokers["default"].fetch(["default"], 99, lease=30, consumer="w"))
            finally:
                connections[alias].close()

        known = declare(lambda: None)
        with ThreadPoolExecutor(1) as executor:
            with transaction.atomic(using=alias):
                known.delay()
                # On SQLite nobody could even look before the end of a transaction that writes.
                if connections[alias].vendor != "sqlite":
                    assert executor.submit(fetched).result(30) == 0
            assert executor.submit(fetched).result(30) == 1

    def test_a_savepoint_that_is_rolled_back_takes_its_messages_along(self, alias: str) -> None:
        kept, undone = declare(lambda: None), declare(lambda: None)
        with transaction.atomic(using=alias):
            kept.delay()
            with contextlib.suppress(Undo), transaction.atomic(using=alias):
                undone.delay()
                raise Undo
        assert waiting() == [kept.name]

    def test_a_hook_on_commit_may_send(self, alias: str) -> None:
        known = declare(lambda: None)
        with transaction.atomic(using=alias):
            transaction.on_commit(known.delay, using=alias)
            assert waiting() == []
        assert waiting() == [known.name]

    def test_an_id_that_is_sent_twice_in_a_transaction_is_queued_once(self, alias: str) -> None:
        known = declare(lambda: None)
        with transaction.atomic(using=alias):
            for _ in range(2):
                known.apply_async(task_id="order-7")
        assert waiting() == [known.name]

    def test_in_a_transaction_that_is_broken_sending_fails_and_says_so(self, alias: str) -> None:
        known = declare(lambda: None)
        with transaction.atomic(using=alias):
            transaction.set_rollback(True, using=alias)
            with pytest.raises(BrokerUnavailable, match=r"can't execute queries until the end of the 'atomic' block"):
                known.delay()
        assert waiting() == []


def test_a_message_for_an_exchange_is_refused_where_its_broker_has_none(configure: Configure) -> None:
    configure(BROKERS={"default": {"BACKEND": "memory"}})
    with pytest.raises(
        ConfigurationError, match="through the exchange 'events', and the broker 'default', which keeps"
    ):
        publish(Plan((replace(message(), exchange="events"),)))
    configure(BROKERS={"default": {"BACKEND": "dummy"}})
    publish(Plan((replace(message(), exchange="events"),)))
