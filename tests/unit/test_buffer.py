"""Is each delivery refused, held or handed on as what is known of it asks for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from django.db import OperationalError

from django_tasks import Task, states
from django_tasks.backends.memory import MemoryBroker
from django_tasks.control.ledger import RevocationLedger
from django_tasks.exceptions import BrokerUnavailable
from django_tasks.message import Delivery, Message
from django_tasks.models import Crash
from django_tasks.results.memory import MemoryStore
from django_tasks.serializers import encode_body
from django_tasks.settlement import ACKED
from django_tasks.worker.buffer import Buffer
from django_tasks.worker.crashes import CrashBook
from django_tasks.worker.revocation import Revocations
from django_tasks.worker.seals import Seals
from tests.calls import declare
from tests.clocks import TurnedClock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("configure")]
AnyTask = Task[..., Any]


class Hands:
    """A buffer, and the broker that fills it."""

    def __init__(self, broker: type[MemoryBroker] = MemoryBroker) -> None:
        self.clock = TurnedClock()
        self.broker = broker("default", {}, clock=self.clock)
        self.revocations = Revocations(RevocationLedger("default"))
        self.buffer = Buffer(
            self.broker, Seals(MemoryStore("default", {})), CrashBook("w1", "default"), self.revocations
        )

    def fetch(self, task: AnyTask, *ids: str, lost: int = 0, evidence: int = 0) -> list[Delivery]:
        """Lease messages that were lost so often before, with so much evidence."""
        self.broker.publish([Message(id=each, task=task.name, body=encode_body((), {}, {})) for each in ids])
        for _ in range(lost):
            self.broker.nack(self.broker.fetch(["default"], 99, lease=30, consumer="gone"), spent=True)
        for task_id in ids:
            for attempt in range(1, evidence + 1):
                Crash.objects.create(task_id=task_id, attempt=attempt, worker="gone", reason="signal 9")
        return self.broker.fetch(["default"], 99, lease=30, consumer="w1")


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def known() -> AnyTask:
    return declare(lambda: None)


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def test_what_nothing_is_known_of_may_run(hands: Hands, known: AnyTask) -> None:
    fetched = hands.fetch(known, "1", "2")
    assert hands.buffer.take(fetched) == (fetched, [])
    assert len(hands.buffer) == 0
    assert hands.buffer.release() == []


def test_what_was_revoked_or_lost_too_often_is_refused(hands: Hands, known: AnyTask) -> None:
    hands.revocations.ledger.add(["1"])
    fetched = hands.fetch(known, "1", "2", lost=3, evidence=3)
    runnable, refused = hands.buffer.take(fetched)
    assert (runnable, len(hands.buffer)) == ([], 0)
    assert [(delivery.message.id, outcome.state) for delivery, outcome in refused] == [
        ("1", states.REVOKED),
        ("2", states.FAILURE),
    ]


def test_a_suspect_waits_until_it_can_begin_and_is_written_down_then(hands: Hands, known: AnyTask) -> None:
    fetched = hands.fetch(known, "1", "2", lost=1)
    assert hands.buffer.take(fetched) == ([], [])
    assert (len(hands.buffer), Crash.objects.count()) == (2, 0)
    assert ids(hands.buffer.release()) == ["1"]
    assert list(Crash.objects.values_list("task_id", flat=True)) == ["1"]
    assert ids(hands.buffer.release()) == ["2"]
    assert hands.buffer.release() == []
    assert len(hands.buffer) == 0


def test_one_at_its_last_chance_waits_until_no_other_suspect_runs(hands: Hands, known: AnyTask) -> None:
    hands.buffer.take(hands.fetch(known, "first", lost=1))
    [first] = hands.buffer.release()
    hands.buffer.take(hands.fetch(known, "last", lost=2, evidence=2))
    hands.buffer.take(hands.fetch(known, "after", lost=1))
    assert hands.buffer.release() == []
    hands.buffer.ended([first])
    [last] = hands.buffer.release()
    assert last.message.id == "last"
    # And nobody begins beside it.
    assert hands.buffer.release() == []
    hands.buffer.ended([last])
    assert ids(hands.buffer.release()) == ["after"]


def test_what_is_held_is_handed_back_on_leaving(hands: Hands, known: AnyTask) -> None:
    fetched = hands.fetch(known, "1", "2", "3", lost=1)
    hands.buffer.take(fetched)
    hands.buffer.release()
    assert hands.buffer.empty() == fetched[1:]
    assert (len(hands.buffer), hands.buffer.empty(), hands.buffer.release()) == (0, [], [])


def test_what_was_lost_meanwhile_is_forgotten(hands: Hands, known: AnyTask) -> None:
    fetched = hands.fetch(known, "1", "2", "3", lost=2, evidence=2)
    hands.buffer.take(fetched)
    [first] = hands.buffer.release()
    hands.buffer.drop([first, fetched[1]])
    assert ids(hands.buffer.release()) == ["3"]


# At most once


def test_a_task_that_runs_at_most_once_is_acknowledged_before_it_is_handed_on(hands: Hands, known: AnyTask) -> None:
    early = declare(lambda: None, acks_late=False)
    hands.broker.publish([Message(id="early", task=early.name, body=b"")])
    runnable, _ = hands.buffer.take(hands.fetch(known, "late"))
    assert [(each.message.id, each.receipt is ACKED) for each in runnable] == [("early", True), ("late", False)]
    hands.clock.turn(31)
    assert ids(hands.broker.fetch(["default"], 9, lease=30, consumer="w2")) == ["late"]


def test_one_whose_lease_is_gone_by_then_is_not_run(hands: Hands) -> None:
    early = declare(lambda: None, acks_late=False)
    fetched = hands.fetch(early, "1")
    hands.clock.turn(31)
    hands.broker.fetch(["default"], 9, lease=30, consumer="w2")
    assert hands.buffer.take(fetched) == ([], [])


def test_a_suspect_of_that_kind_is_acknowledged_when_it_begins(hands: Hands) -> None:
    early = declare(lambda: None, acks_late=False)
    hands.buffer.take(hands.fetch(early, "1", lost=1))
    assert [stats.leased for stats in hands.broker.stats()] == [1]
    [released] = hands.buffer.release()
    assert released.receipt is ACKED
    assert hands.broker.stats() == []


def test_a_suspect_of_that_kind_whose_lease_is_gone_makes_way_for_the_next(hands: Hands, known: AnyTask) -> None:
    early = declare(lambda: None, acks_late=False)
    hands.buffer.take(hands.fetch(early, "gone", lost=2, evidence=2))
    hands.clock.turn(31)
    hands.broker.fetch(["default"], 9, lease=30, consumer="w2")
    hands.buffer.take(hands.fetch(known, "next", lost=1))
    assert ids(hands.buffer.release()) == ["next"]


# When a server does not answer


def test_what_could_not_be_taken_is_not_held_either(hands: Hands) -> None:
    class Silent(MemoryBroker):
        def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
            raise BrokerUnavailable("no answer")

    hands = Hands(Silent)
    early = declare(lambda: None, acks_late=False)
    suspects = hands.fetch(declare(lambda: None), "suspect", lost=1)
    fetched = suspects + hands.fetch(early, "early")
    with pytest.raises(BrokerUnavailable):
        hands.buffer.take(fetched)
    assert len(hands.buffer) == 0


def test_a_suspect_that_could_not_be_written_down_goes_on_waiting(hands: Hands, known: AnyTask) -> None:
    class Silent(CrashBook):
        answers = False

        def begin(self, delivery: Delivery) -> None:
            if not self.answers:
                raise OperationalError("no answer")
            super().begin(delivery)

    silent = hands.buffer.crashes = Silent("w1", "default")
    hands.buffer.take(hands.fetch(known, "1", lost=1))
    with pytest.raises(OperationalError):
        hands.buffer.release()
    assert len(hands.buffer) == 1
    silent.answers = True
    assert ids(hands.buffer.release()) == ["1"]
