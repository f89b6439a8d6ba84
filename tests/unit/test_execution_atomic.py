"""Are the effects of an atomic task and its completion one transaction?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from django_tasks import Task, states
from django_tasks.connections import brokers
from django_tasks.exceptions import Reject
from django_tasks.execution import Site, execute
from django_tasks.message import Delivery
from django_tasks.models import QueuedMessage, TaskResult
from django_tasks.plan import Outcome
from tests.app.models import Note
from tests.calls import declare, deliver, run
from tests.integration.rig import text
from tests.vendors import each_vendor

pytestmark = pytest.mark.usefixtures("configure")
Configure = Callable[..., None]
Bound = Task[..., Any]


class Atomic:
    """A task that writes a note in the transaction in which its own completion is written."""

    def __init__(self, alias: str, function: Callable[..., Any], **options: Any) -> None:
        self.alias = alias
        self.task = declare(function, **{"atomic": True if alias == "default" else alias, "bind": True, **options})

    def run(self, **site: Any) -> tuple[Delivery, Outcome]:
        """Send it, take it and run it."""
        broker = brokers["default"]
        self.task.delay()
        [delivery] = broker.fetch(["default"], 1, lease=30, consumer="w1")
        return delivery, execute(delivery, Site(worker="w1", **site))

    @property
    def notes(self) -> int:
        return Note.objects.using(self.alias).count()

    @property
    def waiting(self) -> int:
        return QueuedMessage.objects.using(self.alias).count()

    @property
    def states(self) -> list[str]:
        return list(TaskResult.objects.using(self.alias).values_list("state", flat=True))


@pytest.fixture
def shared(configure: Configure, alias: str) -> None:
    """Keep messages and results in the database of the test."""
    entry = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    configure(BROKERS=entry, RESULTS=entry)


def writing(alias: str, end: Callable[[Bound], Any]) -> Callable[[Bound], Any]:
    def write(self: Bound) -> Any:
        Note.objects.using(alias).create(text="x")
        return end(self)

    return write


def fail(self: Bound) -> None:
    raise ValueError("x")


@each_vendor(transaction=True)
@pytest.mark.usefixtures("shared")
class TestAtomic:
    def test_the_effect_the_result_and_the_end_of_the_message_are_there_together(self, alias: str) -> None:
        atomic = Atomic(alias, writing(alias, lambda self: 5))
        _, outcome = atomic.run()
        assert (outcome.state, outcome.settled) == (states.SUCCESS, True)
        assert (atomic.notes, atomic.states, atomic.waiting) == (1, [states.SUCCESS], 0)

    @pytest.mark.parametrize(
        ("end", "state"),
        [
            (fail, states.FAILURE),
            (lambda self: object(), states.FAILURE),
            (lambda self: self.retry(), states.RETRY),
            (lambda self: self.retry(throw=False), states.RETRY),
            (lambda self: (_ for _ in ()).throw(Reject()), states.REJECTED),
        ],
        ids=["fails", "returns what cannot be kept", "retries", "retries without throwing", "rejects"],
    )
    def test_what_does_not_succeed_leaves_no_effect_and_is_settled_by_its_worker(
        self, alias: str, end: Callable[[Bound], Any], state: str
    ) -> None:
        atomic = Atomic(alias, writing(alias, end))
        _, outcome = atomic.run()
        assert (outcome.state, outcome.settled) == (state, False)
        assert (atomic.notes, atomic.states, atomic.waiting) == (0, [], 1)

    def test_a_run_whose_lease_was_lost_is_undone(self, alias: str) -> None:
        def lose(self: Bound) -> None:
            rows = QueuedMessage.objects.using(alias)
            if self.request.deliveries == 1:
                rows.update(lease_token=5)

        def losing(self: Bound) -> None:
            Note.objects.using(alias).create(text="x")
            lose(self)

        atomic = Atomic(alias, losing)
        _, outcome = atomic.run()
        assert (outcome.state, outcome.settled) == (states.FAILURE, False)
        assert "LeaseLost" in text(outcome)
        assert "was taken over; its effects are rolled back." in text(outcome)
        assert (atomic.notes, atomic.states) == (0, [])

    def test_what_it_sends_is_part_of_it(self, alias: str) -> None:
        other = declare(lambda: None)

        def send(self: Bound) -> None:
            other.delay()
            if self.request.retries == 0:
                raise ValueError("x")

        atomic = Atomic(alias, send)
        atomic.run()
        assert atomic.waiting == 1
        assert not QueuedMessage.objects.using(alias).filter(task=other.name).exists()

    def test_nothing_of_an_ignored_result_is_kept_and_the_rest_is_the_same(self, alias: str) -> None:
        atomic = Atomic(alias, writing(alias, lambda self: 5), ignore_result=True)
        _, outcome = atomic.run()
        assert outcome.settled
        assert (atomic.notes, atomic.states, atomic.waiting) == (1, [], 0)

    def test_with_results_elsewhere_the_effects_alone_are_one_transaction(
        self, configure: Configure, alias: str
    ) -> None:
        configure(BROKERS={"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}})
        atomic = Atomic(alias, writing(alias, lambda self: 5))
        _, outcome = atomic.run()
        assert (outcome.state, outcome.settled, atomic.notes, atomic.waiting) == (states.SUCCESS, False, 1, 1)


@pytest.mark.django_db
def test_an_atomic_task_on_the_spot_is_a_savepoint_of_its_caller() -> None:
    with transaction.atomic():
        outcome = run(writing("default", fail), bind=True, atomic=True)
        assert outcome.state == states.FAILURE
        assert run(writing("default", lambda self: 5), bind=True, atomic=True).state == states.SUCCESS
        assert connection.in_atomic_block
        assert not connection.needs_rollback
    assert Note.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_a_task_left_open_does_not_reach_the_next() -> None:
    def leave() -> None:
        transaction.set_autocommit(False)
        Note.objects.create(text="x")

    execute(deliver(declare(leave)), Site())
    assert not connection.in_atomic_block
    assert connection.get_autocommit()
    assert Note.objects.count() == 0
