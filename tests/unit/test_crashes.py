"""Is a task that takes its process down given up in time, and nobody else for it?"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from django_tasks import Task, states
from django_tasks.backends.memory import MemoryBroker
from django_tasks.control.ledger import RevocationLedger
from django_tasks.endings import handed_back, lost
from django_tasks.message import Delivery
from django_tasks.models import Crash
from django_tasks.plan import Outcome
from django_tasks.results.memory import MemoryStore
from django_tasks.settlement import Done
from django_tasks.worker.buffer import Buffer
from django_tasks.worker.crashes import CrashBook, Judgement
from django_tasks.worker.revocation import Revocations
from django_tasks.worker.seals import Seals
from tests.calls import declare, deliver
from tests.vendors import each_vendor

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("configure")]
Configure = Callable[..., None]
AnyTask = Task[..., Any]


@pytest.fixture
def book() -> CrashBook:
    return CrashBook("w1", "default")


def careful(**options: Any) -> AnyTask:
    return declare(lambda: None, **options)


def evidence(task_id: str = "7") -> list[tuple[int, str, str]]:
    return list(Crash.objects.filter(task_id=task_id).order_by("id").values_list("attempt", "worker", "reason"))


def words(outcome: Outcome) -> str:
    assert outcome.failure is not None
    assert outcome.failure.type == "WorkerLostError"
    return outcome.failure.message


def alone(judgement: Judgement) -> list[bool]:
    assert not judgement.clear
    assert not judgement.condemned
    return [suspect.alone for suspect in judgement.suspects]


def succeed(book: CrashBook, *deliveries: Delivery) -> None:
    book.ended([(delivery, Outcome(states.SUCCESS)) for delivery in deliveries])
    book.clear()


# One task


def runs(book: CrashBook, task: AnyTask, deaths: Iterator[str]) -> tuple[int, str]:
    """Run a task that always takes its process down until it is given up; return how often it began, and the words.

    With it dies a child whose worker sees that, or the whole worker.
    """
    for number in itertools.count(1):
        delivery = deliver(task, id="7", deliveries=number)
        judgement = book.judge([delivery])
        if judgement.condemned:
            return number - 1, words(judgement.condemned[0][1])
        if judgement.suspects:
            book.begin(delivery)
        if next(deaths) == "child":
            [(_, outcome)] = book.judged([(delivery, lost(delivery, "signal 9 (SIGKILL)"))])
            if outcome.requeue is None:
                return number, words(outcome)
    raise AssertionError


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(most=st.integers(1, 6), deaths=st.lists(st.sampled_from(["child", "worker"]), min_size=6, max_size=6))
@example(3, ["child"] * 6)
@example(3, ["worker"] * 6)
@example(1, ["worker"] * 6)
def test_it_runs_exactly_so_often_as_it_may(book: CrashBook, most: int, deaths: list[str]) -> None:
    Crash.objects.all().delete()
    assert runs(book, careful(max_crashes=most), iter(deaths))[0] == most


@pytest.mark.parametrize("death", ["child", "worker"])
def test_with_on_crash_fail_it_runs_once(book: CrashBook, death: str) -> None:
    known = careful(on_crash="fail")
    delivery = deliver(known, id="7")
    assert alone(book.judge([delivery])) == [False]
    book.begin(delivery)
    if death == "child":
        [(_, outcome)] = book.judged([(delivery, lost(delivery, "signal 9"))])
        assert (outcome.state, outcome.requeue) == (states.FAILURE, None)
    else:
        [(_, outcome)] = book.judge([deliver(known, id="7", deliveries=2)]).condemned
        assert words(outcome) == "given up: it took its worker process down once (attempt 1 on w1: its worker vanished)"


def test_without_a_word_of_its_own_it_may_as_often_as_the_settings_say(configure: Configure, book: CrashBook) -> None:
    configure(MAX_CRASHES=2)
    assert runs(book, careful(), itertools.repeat("child"))[0] == 2


def test_the_failure_tells_all_the_evidence(book: CrashBook) -> None:
    assert runs(book, careful(), itertools.repeat("child"))[1] == (
        "given up: it took its worker process down 3 times ("
        "attempt 1 on w1: the process that ran it died: signal 9 (SIGKILL); "
        "attempt 2 on w1: the process that ran it died: signal 9 (SIGKILL); "
        "attempt 3 on w1: the process that ran it died: signal 9 (SIGKILL))"
    )


def test_the_failure_tells_of_a_loss_that_nobody_wrote_down(book: CrashBook) -> None:
    assert runs(book, careful(), itertools.repeat("worker"))[1] == (
        "given up: it took its worker process down 3 times (an earlier attempt, whose worker vanished; "
        "attempt 2 on w1: its worker vanished; attempt 3 on w1: its worker vanished)"
    )


def test_the_failure_tells_when_the_run_began_and_ended(book: CrashBook) -> None:
    delivery = deliver(careful(max_crashes=1), id="7")
    died = Outcome(states.RETRY, failure=lost(delivery, "x").failure, requeue=lost(delivery, "x").requeue)
    [(_, outcome)] = book.judged([(delivery, Outcome(**{**fields_of(died), "started": 1.0, "ended": 2.0}))])
    assert (outcome.state, outcome.started, outcome.ended) == (states.FAILURE, 1.0, 2.0)


def fields_of(outcome: Outcome) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in ("state", "failure", "requeue")}


def test_a_task_that_recovers_begins_anew(book: CrashBook) -> None:
    known = careful()
    for attempts in range(0, 20, 2):
        first = deliver(known, id="7", attempts=attempts)
        assert book.judge([first]).clear == [first]
        book.judged([(first, lost(first, "signal 9"))])
        second = deliver(known, id="7", attempts=attempts, deliveries=2)
        assert alone(book.judge([second])) == [False]
        book.begin(second)
        succeed(book, second)
        assert evidence() == []


def test_an_outcome_that_is_judged_twice_counts_once(book: CrashBook) -> None:
    delivery = deliver(careful(), id="7")
    for _ in range(5):
        [(_, outcome)] = book.judged([(delivery, lost(delivery, "signal 9"))])
        assert outcome.state == states.RETRY
    assert len(evidence()) == 1


def test_other_outcomes_pass_as_they_are_at_no_cost(book: CrashBook, django_assert_num_queries: Any) -> None:
    delivery = deliver(careful())
    done = [(delivery, Outcome(states.SUCCESS)), (delivery, handed_back(delivery)), (delivery, Outcome("PROGRESS"))]
    with django_assert_num_queries(0):
        assert book.judged(done) == done


def test_first_deliveries_cost_nothing(book: CrashBook, django_assert_num_queries: Any) -> None:
    known = careful()
    first = [deliver(known) for _ in range(100)]
    with django_assert_num_queries(0):
        assert book.judge(first) == Judgement(clear=first)
        succeed(book, *first)


def test_one_look_is_enough_for_any_number_of_suspects(book: CrashBook, django_assert_num_queries: Any) -> None:
    known = careful()
    with django_assert_num_queries(1):
        assert len(book.judge([deliver(known, deliveries=2) for _ in range(100)]).suspects) == 100


# What is taken back


def test_the_evidence_of_a_task_that_was_given_up_stays(book: CrashBook) -> None:
    known = careful(max_crashes=1)
    delivery = deliver(known, id="7")
    book.begin(delivery)
    done = book.judged([(delivery, lost(delivery, "signal 9"))])
    book.ended(done)
    book.clear()
    assert evidence() == [(1, "w1", "the process that ran it died: signal 9")]


def test_a_suspect_that_is_handed_back_has_not_been_lost(book: CrashBook) -> None:
    known = careful()
    first, second = deliver(known, id="7"), deliver(known, id="7", deliveries=2)
    book.judged([(first, lost(first, "signal 9"))])
    book.begin(second)
    book.ended([(second, handed_back(second))])
    book.clear()
    assert [attempt for attempt, _, _ in evidence()] == [1]


def test_a_suspect_that_failed_by_itself_or_is_retried_is_cleared(book: CrashBook) -> None:
    for state in (states.FAILURE, states.RETRY, states.REVOKED):
        delivery = deliver(careful(), id="7", deliveries=2)
        book.begin(delivery)
        book.ended([(delivery, Outcome(state))])
        book.clear()
        assert evidence() == []


def test_one_that_goes_on_is_not_cleared(book: CrashBook) -> None:
    delivery = deliver(careful(), id="7", deliveries=2)
    book.begin(delivery)
    book.ended([(delivery, Outcome("PROGRESS"))])
    book.clear()
    assert len(evidence()) == 1


def test_one_that_was_lost_again_is_not_cleared(book: CrashBook) -> None:
    delivery = deliver(careful(), id="7", deliveries=2)
    book.begin(delivery)
    done = book.judged([(delivery, lost(delivery, "signal 11"))])
    book.ended(done)
    book.clear()
    assert evidence() == [(2, "w1", "the process that ran it died: signal 11")]


def test_clearing_one_task_clears_no_other(book: CrashBook) -> None:
    known = careful()
    mine, other = deliver(known, id="7", deliveries=2), deliver(known, id="8", deliveries=2)
    for delivery in (mine, other):
        book.begin(delivery)
    succeed(book, mine)
    assert (evidence("7"), len(evidence("8"))) == ([], 1)


def test_old_evidence_is_removed(book: CrashBook) -> None:
    for task_id in ("7", "8"):
        book.begin(deliver(careful(), id=task_id, deliveries=2))
    now = timezone.now()
    Crash.objects.filter(task_id="7").update(created_at=now - timedelta(days=91))
    assert book.expire(now - timedelta(days=90)) == 1
    assert (evidence("7"), len(evidence("8"))) == ([], 1)


@each_vendor()
def test_evidence_is_kept_in_the_database_that_is_named(alias: str) -> None:
    book = CrashBook("w1", alias)
    delivery = deliver(careful(), id="7", deliveries=2)
    book.begin(delivery)
    book.begin(delivery)
    assert Crash.objects.using(alias).filter(task_id="7").count() == 1
    succeed(book, delivery)
    assert not Crash.objects.using(alias).exists()


# Neighbours


@pytest.mark.parametrize("options", [{}, {"max_crashes": 2}, {"max_crashes": 1}, {"on_crash": "fail"}])
def test_one_that_merely_waited_is_never_blamed_however_often(book: CrashBook, options: Any) -> None:
    known = careful(**options)
    for deliveries in range(2, 200):
        judgement = book.judge([deliver(known, id="7", deliveries=deliveries)])
        assert (len(judgement.suspects), judgement.condemned) == (1, [])
    assert evidence() == []


def test_one_that_ran_beside_it_has_its_last_chance_alone(book: CrashBook) -> None:
    known = careful(max_crashes=3)
    assert alone(book.judge([deliver(known, id="7", deliveries=2)])) == [False]
    book.begin(deliver(known, id="7", deliveries=2))
    assert alone(book.judge([deliver(known, id="7", deliveries=3)])) == [True]


@dataclass
class Hall:
    """A queue, and workers that take from it one after the other, each killed when the poison begins."""

    most: int
    slots: int
    place: int
    neighbours: int
    poison: AnyTask = field(init=False)
    deliveries: dict[str, int] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    begun: int = 0

    def __post_init__(self) -> None:
        self.poison = careful(max_crashes=self.most)
        self.good = careful(max_crashes=self.most)
        names = [f"good-{number}" for number in range(self.neighbours)]
        names.insert(min(self.place, len(names)), "poison")
        self.names = names

    def live(self, name: str) -> None:
        """Be a worker: fetch all there is, and work until the poison ends that or nothing is left."""
        book = CrashBook(name, "default")
        buffer = Buffer(
            MemoryBroker("default", {}),
            Seals(MemoryStore("default", {})),
            book,
            Revocations(RevocationLedger("default")),
        )
        waiting = deque(self.fetch())
        clear, refused = buffer.take(waiting)
        self.settle(book, refused)
        inbox, running = deque(clear), deque[Delivery]()
        while True:
            while len(running) < self.slots:
                begun = [inbox.popleft()] if inbox else buffer.release()
                if not begun:
                    break
                if begun[0].message.id == "poison":
                    self.begun += 1
                    return
                running += begun
            if not running:
                return
            # Nothing ends before all slots are taken: whoever can be killed with the poison is.
            delivery = running.popleft()
            self.settle(book, [(delivery, Outcome(states.SUCCESS))])
            buffer.ended([delivery])

    def fetch(self) -> Sequence[Delivery]:
        taken = []
        for name in self.names:
            if name not in self.ended:
                self.deliveries[name] = self.deliveries.get(name, 0) + 1
                known = self.poison if name == "poison" else self.good
                taken.append(deliver(known, id=name, deliveries=self.deliveries[name]))
        return taken

    def settle(self, book: CrashBook, done: Sequence[Done]) -> None:
        self.ended.update((delivery.message.id, outcome.state) for delivery, outcome in done)
        book.ended(done)
        book.clear()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(most=st.integers(2, 5), slots=st.integers(1, 4), place=st.integers(0, 6), neighbours=st.integers(0, 6))
@example(3, 4, 3, 6)
@example(2, 4, 0, 6)
def test_a_task_that_kills_whole_workers_runs_exactly_so_often_and_its_neighbours_all_end_well(
    most: int, slots: int, place: int, neighbours: int
) -> None:
    Crash.objects.all().delete()
    hall = Hall(most, slots, place, neighbours)
    for life in range(most + 2):
        hall.live(f"w{life}")
    assert hall.begun == most
    assert hall.ended.pop("poison") == states.FAILURE
    assert hall.ended == {f"good-{number}": states.SUCCESS for number in range(neighbours)}
