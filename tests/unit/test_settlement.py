"""Is what came of tasks written down whole, whatever happens in between?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db.models import F

from django_tasks import states
from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import brokers, results
from django_tasks.exceptions import StoreUnavailable
from django_tasks.failure import capture
from django_tasks.message import Delivery, Message
from django_tasks.models import QueuedMessage
from django_tasks.plan import Outcome, Plan, Requeue, Result
from django_tasks.pools.base import PoolOptions
from django_tasks.pools.threads import ThreadPool
from django_tasks.results.base import ResultStore
from django_tasks.results.database import DatabaseStore
from django_tasks.results.memory import MemoryStore
from django_tasks.settlement import ACKED, Done, Settlement, result_of
from django_tasks.signing import verify
from tests.calls import declare, deliver
from tests.clocks import TurnedClock
from tests.outages import unreachable
from tests.vendors import each_vendor

Configure = Callable[..., None]


class Crash(Exception):
    """The process ends here."""


@dataclass
class Stage:
    """Which steps were taken, and before or after which one does the process end?"""

    steps: list[str] = field(default_factory=list)
    ends: tuple[str, str] = ("", "")
    within: str = ""
    """The step whose own steps are not looked at."""

    @contextmanager
    def step(self, name: str, *, whole: bool = False) -> Iterator[None]:
        if self.within:
            yield
            return
        self.steps.append(name)
        if self.ends == (name, "before"):
            raise Crash
        self.within = name if whole else ""
        try:
            yield
        finally:
            self.within = ""
        if self.ends == (name, "after"):
            raise Crash


STAGE = Stage()
CLOCK = TurnedClock()


class Staged(Broker):
    """Takes each step on the stage, before another broker takes it for real."""

    def publish(self, messages: Sequence[Message]) -> None:
        with STAGE.step("publish"):
            super().publish(messages)  # type: ignore[safe-super]

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        with STAGE.step("ack"):
            return super().ack(deliveries)  # type: ignore[safe-super]

    def nack(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, spent: bool = False) -> list[Delivery]:
        with STAGE.step("nack"):
            return super().nack(deliveries, delay=delay, spent=spent)  # type: ignore[safe-super]

    def extend(self, deliveries: Sequence[Delivery], lease: float) -> list[Delivery]:
        with STAGE.step("extend"):
            return super().extend(deliveries, lease)  # type: ignore[safe-super]


class StagedMemoryBroker(Staged, MemoryBroker):
    def __init__(self, alias: str, params: Any) -> None:
        super().__init__(alias, params, clock=CLOCK)

    def replace(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        # To a broker with a server of its own this is one command.
        with STAGE.step("replace", whole=True):
            return super().replace(pairs)


class StagedDatabaseBroker(Staged, DatabaseBroker):
    def replace(self, pairs: Sequence[tuple[Delivery, Message]]) -> list[Delivery]:
        with STAGE.step("replace"):
            return super().replace(pairs)


class StagedMemoryStore(MemoryStore):
    def save(self, results: Sequence[Result]) -> None:
        with STAGE.step("save"):
            super().save(results)


class StagedDatabaseStore(DatabaseStore):
    def save(self, results: Sequence[Result]) -> None:
        with STAGE.step("save"):
            super().save(results)


STEPS = ("save", "publish", "ack", "replace", "extend", "nack")
EVERYWHERE = [(name, when) for name in STEPS for when in ("before", "after")]


@pytest.fixture(autouse=True)
def _stage() -> None:
    STAGE.steps, STAGE.ends = [], ("", "")


@dataclass
class Site:
    """A broker and a store, and a worker's way to write down what came of tasks."""

    broker: Broker
    store: ResultStore

    def __post_init__(self) -> None:
        self.settlement = Settlement(self.broker, self.store, worker="w1", lease=30)

    def take(self, *ids: str, queue: str = "default") -> dict[str, Delivery]:
        """Queue messages and lease them."""
        self.broker.publish([Message(id=task_id, task="t", body=b"[[],{},{}]", queue=queue) for task_id in ids])
        taken = self.broker.fetch([queue], 99, lease=30, consumer="w1")
        STAGE.steps = []
        return {delivery.message.id: delivery for delivery in taken}

    def settle(self, *done: Done) -> list[str]:
        return [delivery.message.id for delivery, _ in self.settlement.settle(done)]

    def crash(self, done: Sequence[Done], ends: tuple[str, str]) -> None:
        """Settle as a process does that ends at one of the steps."""
        STAGE.ends = ends
        with pytest.raises(Crash):
            self.settle(*done)
        STAGE.ends = ("", "")

    def state(self, task_id: str) -> str:
        found = self.store.get([task_id]).get(task_id)
        return found.state if found else states.PENDING

    @property
    def waiting(self) -> dict[str, Message]:
        return {message.id: message for message in self.broker.peek("default", 99)}

    @property
    def leased(self) -> int:
        return sum(stats.leased for stats in self.broker.stats())


@pytest.fixture
def apart(configure: Configure) -> Site:
    """Give a site whose messages and results are in different places."""
    configure(
        BROKERS={"default": {"BACKEND": f"{__name__}.StagedMemoryBroker"}, "bus": {"BACKEND": "memory"}},
        RESULTS={"default": {"BACKEND": f"{__name__}.StagedMemoryStore"}},
        QUEUES={"events": {"BROKER": "bus"}},
    )
    return Site(brokers["default"], results["default"])


@pytest.fixture
def together(configure: Configure, alias: str) -> Site:
    """Give a site whose messages and results are in one database."""
    options = {"OPTIONS": {"USING": alias}}
    configure(
        BROKERS={"default": {"BACKEND": f"{__name__}.StagedDatabaseBroker", **options}, "bus": {"BACKEND": "memory"}},
        RESULTS={"default": {"BACKEND": f"{__name__}.StagedDatabaseStore", **options}},
        QUEUES={"events": {"BROKER": "bus"}},
    )
    return Site(brokers["default"], results["default"])


NEXT = Message(id="again", task="t", body=b"[[],{},{}]", retries=1, attempts=1)
LINK = Message(id="link", task="t", body=b"[[],{},{}]")


def batch(taken: dict[str, Delivery]) -> list[Done]:
    """Return one outcome of each kind."""
    return [
        (taken["done"], Outcome(states.SUCCESS, value=b"5", plan=Plan((LINK,)), started=1.0, ended=2.0)),
        (taken["again"], Outcome(states.RETRY, failure=capture(OSError("x")), plan=Plan((NEXT,)))),
        (taken["back"], Outcome(states.PENDING, requeue=Requeue(), keep=False)),
        (taken["begun"], Outcome(states.STARTED, started=1.0)),
    ]


def all_is_well(site: Site) -> None:
    """Everything of the batch is where it belongs."""
    assert {name: site.state(name) for name in ("done", "again", "back", "begun")} == {
        "done": states.SUCCESS,
        "again": states.RETRY,
        "back": states.PENDING,
        "begun": states.STARTED,
    }
    assert set(site.waiting) == {"link", "again", "back"}
    assert (site.waiting["again"].retries, site.waiting["back"].retries, site.leased) == (1, 0, 1)


# Apart: results, what follows, acknowledgements


def test_results_come_first_then_what_follows_and_the_acknowledgement_last(apart: Site) -> None:
    assert apart.settlement.shared is None
    assert apart.settle(*batch(apart.take("done", "again", "back", "begun"))) == ["done", "again", "back", "begun"]
    assert STAGE.steps == ["save", "publish", "ack", "replace", "extend", "nack"]
    all_is_well(apart)


@pytest.mark.parametrize("ends", EVERYWHERE)
def test_a_crash_at_any_step_repeats_and_loses_nothing(apart: Site, ends: tuple[str, str]) -> None:
    done = batch(apart.take("done", "again", "back", "begun"))
    apart.crash(done, ends)
    apart.settle(*done)
    all_is_well(apart)


@pytest.mark.parametrize("ends", EVERYWHERE)
def test_what_a_worker_that_died_at_any_step_left_is_found_by_others(apart: Site, ends: tuple[str, str]) -> None:
    apart.crash(batch(apart.take("done", "again", "back", "begun")), ends)
    CLOCK.turn(31)
    found = {delivery.message.id for delivery in apart.broker.fetch(["default"], 99, lease=30, consumer="w2")}
    assert {"again", "back", "begun"} <= found
    # A message goes only when its result is kept and what follows it is on its way.
    assert "done" in found or (apart.state("done") == states.SUCCESS and "link" in found)


@pytest.mark.parametrize("ends", EVERYWHERE)
def test_a_result_that_is_taken_for_all_of_a_signed_task_stands_for_what_follows_it(
    apart: Site, configure: Configure, settings: Any, ends: tuple[str, str]
) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "REQUIRE_SIGNATURE": True}
    site = Site(brokers["default"], results["default"])
    done = batch(site.take("done", "again", "back", "begun"))
    site.crash(done, ends)
    # Here it comes again and is dropped, so all that follows must be on its way.
    assert site.state("done") != states.SUCCESS or "link" in site.waiting
    site.settle(*done)
    all_is_well(site)
    for task_id in ("link", "again"):
        verify(site.waiting[task_id])


def test_a_final_state_that_another_worker_wrote_is_not_changed_by_a_stale_one(apart: Site) -> None:
    old = apart.take("1")["1"]
    CLOCK.turn(31)
    [new] = apart.broker.fetch(["default"], 1, lease=30, consumer="w2")
    assert apart.settle((new, Outcome(states.SUCCESS, value=b"5"))) == ["1"]
    assert apart.settle((old, Outcome(states.FAILURE, failure=capture(ValueError("late"))))) == []
    assert apart.state("1") == states.SUCCESS


def test_a_stale_retry_does_not_bring_a_task_back(apart: Site) -> None:
    old = apart.take("again")["again"]
    CLOCK.turn(31)
    [new] = apart.broker.fetch(["default"], 1, lease=30, consumer="w2")
    apart.settle((new, Outcome(states.SUCCESS, value=b"5")))
    assert apart.settle((old, Outcome(states.RETRY, plan=Plan((NEXT,))))) == []
    assert (apart.waiting, apart.state("again")) == ({}, states.SUCCESS)


# Together: one transaction


@each_vendor(transaction=True)
class TestTogether:
    def test_the_acknowledgement_comes_first_and_decides(self, together: Site, alias: str) -> None:
        assert together.settlement.shared == alias
        counted = together.settle(*batch(together.take("done", "again", "back", "begun")))
        assert counted == ["done", "again", "back", "begun"]
        assert STAGE.steps == ["ack", "replace", "ack", "publish", "extend", "nack", "save", "publish"]
        all_is_well(together)

    @pytest.mark.parametrize("ends", EVERYWHERE)
    def test_a_crash_at_any_step_leaves_all_as_it_was(self, together: Site, ends: tuple[str, str]) -> None:
        done = batch(together.take("done", "again", "back", "begun"))
        together.crash(done, ends)
        assert together.store.get(["done", "again", "back", "begun"]) == {}
        assert (together.waiting, together.leased) == ({}, 4)
        together.settle(*done)
        all_is_well(together)

    def test_stale_deliveries_write_nothing_and_nothing_follows_them(self, together: Site, alias: str) -> None:
        done = batch(together.take("done", "again", "back", "begun"))
        others = QueuedMessage.objects.using(alias)
        others.update(lease_token=F("lease_token") + 1)
        before = list(others.order_by("id").values())
        assert together.settle(*done) == []
        assert together.store.get(["done", "again", "back", "begun"]) == {}
        assert list(others.order_by("id").values()) == before

    def test_the_stale_part_of_a_batch_does_not_hold_up_the_rest(self, together: Site, alias: str) -> None:
        done = batch(together.take("done", "again", "back", "begun"))
        QueuedMessage.objects.using(alias).filter(task_id="again").update(lease_token=5)
        assert together.settle(*done) == ["done", "back", "begun"]
        assert (together.state("again"), together.state("done")) == (states.PENDING, states.SUCCESS)
        assert "link" in together.waiting

    def test_a_message_that_was_removed_meanwhile_is_no_error(self, together: Site, alias: str) -> None:
        done = batch(together.take("done", "again", "back", "begun"))
        QueuedMessage.objects.using(alias).all().delete()
        assert together.settle(*done) == []

    def test_a_server_that_does_not_answer_is_told_as_such(self, together: Site, alias: str) -> None:
        done = batch(together.take("done", "again", "back", "begun"))
        with unreachable(alias) as nowhere:
            together.settlement.shared = nowhere
            with pytest.raises(StoreUnavailable):
                together.settle(*done)
        together.settlement.shared = alias
        together.settle(*done)
        all_is_well(together)


# Wherever


def test_nothing_costs_nothing(apart: Site) -> None:
    assert apart.settle() == []
    assert STAGE.steps == []


def test_of_several_outcomes_of_one_delivery_the_last_counts(apart: Site) -> None:
    delivery = apart.take("1")["1"]
    told = [Outcome(states.STARTED, started=1.0), Outcome("PROGRESS", value=b"1"), Outcome(states.SUCCESS, value=b"5")]
    assert apart.settle(*((delivery, outcome) for outcome in told)) == ["1"]
    assert apart.state("1") == states.SUCCESS
    assert apart.leased == 0


def test_an_attempt_that_goes_on_keeps_its_lease(apart: Site) -> None:
    delivery = apart.take("1")["1"]
    CLOCK.turn(29)
    assert apart.settle((delivery, Outcome("PROGRESS", value=b"1"))) == ["1"]
    CLOCK.turn(29)
    assert apart.broker.fetch(["default"], 1, lease=30, consumer="w2") == []
    assert apart.state("1") == "PROGRESS"


def test_what_is_not_to_be_kept_is_not(apart: Site) -> None:
    delivery = apart.take("1")["1"]
    assert apart.settle((delivery, Outcome(states.SUCCESS, keep=False))) == ["1"]
    assert (apart.state("1"), apart.leased) == (states.PENDING, 0)


@pytest.mark.parametrize(("requeue", "deliveries"), [(Requeue(), 1), (Requeue(spent=True), 2), (Requeue(delay=60), 1)])
def test_what_goes_back_counts_or_not_and_waits_as_told(apart: Site, requeue: Requeue, deliveries: int) -> None:
    delivery = apart.take("1")["1"]
    assert apart.settle((delivery, Outcome(states.PENDING, requeue=requeue, keep=False))) == ["1"]
    if requeue.delay:
        assert apart.broker.fetch(["default"], 1, lease=30, consumer="w2") == []
        CLOCK.turn(requeue.delay + 1)
    [again] = apart.broker.fetch(["default"], 1, lease=30, consumer="w2")
    assert again.deliveries == deliveries


def test_a_task_that_has_settled_itself_counts_and_is_not_written_again(apart: Site) -> None:
    delivery = apart.take("1")["1"]
    outcome = Outcome(states.SUCCESS, value=b"5", plan=Plan((LINK,)), settled=True)
    assert apart.settle((delivery, outcome)) == ["1"]
    assert (apart.state("1"), apart.waiting) == (states.PENDING, {})


def test_a_retry_on_another_broker_leaves_this_one(apart: Site) -> None:
    delivery = apart.take("again")["again"]
    elsewhere = Message(id="again", task="t", body=b"", queue="events", retries=1)
    assert apart.settle((delivery, Outcome(states.RETRY, plan=Plan((elsewhere,))))) == ["again"]
    assert [message.retries for message in brokers["bus"].peek("events", 9)] == [1]
    assert (apart.leased, apart.waiting) == (0, {})


def acked(task_id: str) -> Delivery:
    """Return a delivery that was acknowledged before its task ran."""
    return Delivery(Message(id=task_id, task="t", body=b"[[],{},{}]"), ACKED)


def test_what_was_acknowledged_early_is_held_by_nobody_and_counts(apart: Site) -> None:
    assert apart.settle((acked("1"), Outcome(states.SUCCESS, value=b"5"))) == ["1"]
    assert apart.state("1") == states.SUCCESS


def test_a_retry_of_what_was_acknowledged_early_is_sent_anew(apart: Site) -> None:
    assert apart.settle((acked("again"), Outcome(states.RETRY, plan=Plan((NEXT,))))) == ["again"]
    assert apart.waiting["again"].retries == 1


@pytest.mark.parametrize(("delay", "countdown"), [(0.0, None), (5.0, 5.0)])
def test_what_was_acknowledged_early_and_did_not_begin_is_sent_again(
    apart: Site, delay: float, countdown: float | None
) -> None:
    outcome = Outcome(states.PENDING, requeue=Requeue(delay=delay), keep=False)
    assert apart.settle((acked("1"), outcome)) == ["1"]
    assert apart.waiting["1"].countdown == countdown


def test_what_goes_back_is_not_signed_by_a_worker_that_did_not_run_it(apart: Site, settings: Any) -> None:
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "SIGN": True}
    site = Site(brokers["default"], results["default"])
    outcome = Outcome(states.PENDING, requeue=Requeue(), keep=False)
    assert site.settle((acked("1"), outcome), (acked("again"), Outcome(states.RETRY, plan=Plan((NEXT,))))) == [
        "1",
        "again",
    ]
    assert site.waiting["1"].signature is None
    verify(site.waiting["again"])


def test_a_task_that_runs_at_most_once_is_not_sent_again_when_it_is_ended_with_its_worker(apart: Site) -> None:
    """Its worker was told to stop at once, or its grace period is over."""
    begun, leave = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        leave.wait(30)

    delivery = deliver(declare(work, acks_late=False), receipt=ACKED)
    pool = ThreadPool(PoolOptions(size=1), lambda: None)
    pool.start()
    pool.submit([delivery])
    assert begun.wait(30)
    pool.stop(0)
    leave.set()
    apart.settle(*pool.drain())
    assert apart.waiting == {}
    assert apart.state(delivery.message.id) == states.FAILURE


# What is kept


def test_a_result_tells_all_that_is_known() -> None:
    created = datetime(2030, 1, 1, tzinfo=UTC)
    message = Message(
        id="7",
        task="shop.pay",
        body=b"",
        queue="money",
        retries=2,
        attempts=3,
        args_repr="(1,)",
        kwargs_repr="{'x': 2}",
        created_at=created,
        root_id="1",
        parent_id="2",
        group_id="g",
    )
    outcome = Outcome(states.SUCCESS, value=b"5", started=1000.0, ended=1002.5)
    found = result_of(Delivery(message, "r", deliveries=2), outcome, "w1")
    assert (found.id, found.state, found.value, found.failure) == ("7", states.SUCCESS, b"5", None)
    assert (found.task, found.queue, found.worker, found.retries, found.attempts) == ("shop.pay", "money", "w1", 2, 5)
    assert (found.args_repr, found.kwargs_repr, found.runtime, found.created_at) == ("(1,)", "{'x': 2}", 2.5, created)
    assert (found.started_at, found.ended_at) == tuple(
        datetime.fromtimestamp(seconds, UTC) for seconds in (1000.0, 1002.5)
    )
    assert (found.root_id, found.parent_id, found.group_id, found.message) == ("1", "2", "g", None)


def test_a_result_that_is_not_final_has_no_end() -> None:
    begun = result_of(acked("7"), Outcome(states.STARTED, started=1.0), "w1")
    retried = result_of(acked("7"), Outcome(states.RETRY, started=1.0, ended=2.0), "w1")
    assert (begun.ended_at, begun.runtime, retried.ended_at, retried.runtime) == (None, None, None, 1.0)


def test_a_task_that_never_began_ended_all_the_same() -> None:
    before = datetime.now(UTC)
    found = result_of(acked("7"), Outcome(states.REVOKED), "w1")
    assert (found.started_at, found.runtime) == (None, None)
    assert found.ended_at is not None
    assert before <= found.ended_at <= datetime.now(UTC)


@pytest.mark.parametrize("state", sorted(states.FINAL))
def test_the_message_of_a_task_that_failed_is_kept_to_be_sent_again(configure: Configure, state: str) -> None:
    delivery = acked("7")
    kept = result_of(delivery, Outcome(state), "w1").message
    assert kept is (delivery.message if state in states.FAILED else None)
    configure(KEEP_ARGUMENTS="never")
    assert result_of(delivery, Outcome(state), "w1").message is None
