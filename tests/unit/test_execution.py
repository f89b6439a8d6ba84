"""Does each run end in the outcome that the task, its options and its end ask for?"""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_tasks import SoftTimeLimitExceeded, Task, endings, states
from django_tasks.context import current_request
from django_tasks.exceptions import Ignore, Reject, Retry, TaskRevoked
from django_tasks.execution import Site, execute
from django_tasks.failure import rebuild
from django_tasks.interrupt import here
from django_tasks.message import Delivery, Message
from django_tasks.plan import Outcome
from django_tasks.pools.base import PoolOptions
from django_tasks.serializers import decode_body, loads
from django_tasks.settlement import ACKED
from tests.app.models import Note
from tests.calls import HERE, declare, deliver, next_of, raising, run
from tests.clocks import TurnedClock
from tests.integration.rig import text, value

Configure = Callable[..., None]
Bound = Task[..., Any]


@pytest.fixture(autouse=True)
def _site(configure: Configure) -> None:
    """Run in a site that keeps everything in this process."""


# How it ends


def test_what_a_task_returns_is_its_value() -> None:
    outcome = run(lambda x: {"at": datetime(2030, 1, 1, tzinfo=UTC), "x": x}, (1, 2))
    assert value(outcome) == {"at": datetime(2030, 1, 1, tzinfo=UTC), "x": (1, 2)}
    assert (outcome.failure, outcome.requeue, outcome.keep, outcome.settled, outcome.interim) == (
        None,
        None,
        True,
        False,
        False,
    )


def test_begin_and_end_are_told_by_the_clock_that_was_passed_in() -> None:
    clock = TurnedClock()
    began = clock.now
    outcome = execute(deliver(declare(lambda: clock.turn(2.5))), Site(eager=True, clock=clock))
    assert (outcome.started, outcome.ended, outcome.runtime) == (began, began + 2.5, 2.5)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(1),
        MemoryError(),
        RecursionError("deep"),
        SoftTimeLimitExceeded(),
        ExceptionGroup("several", [ValueError("x")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_task_raises_is_a_failure_and_no_more(error: BaseException) -> None:
    outcome = run(raising(error))
    assert outcome.state == states.FAILURE
    assert outcome.failure is not None
    assert outcome.failure.type == type(error).__qualname__
    assert isinstance(rebuild(outcome.failure), Exception)
    assert outcome.ended is not None


def test_the_traceback_begins_in_the_task() -> None:
    outcome = run(raising(ValueError("x")))
    assert outcome.failure is not None
    assert "in raises" in outcome.failure.traceback
    assert "django_tasks/execution.py" not in outcome.failure.traceback


def test_an_unknown_task_fails_with_the_way_out() -> None:
    outcome = execute(Delivery(Message(id="7", task="no.such", body=b""), "r"), HERE)
    assert outcome.state == states.FAILURE
    assert text(outcome).startswith("NotRegistered: No task named 'no.such' is registered here.")


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", b"[1,2]", b'[[],{},"x"]', b"[" * 100_000])
def test_a_body_that_cannot_be_read_fails_the_task(body: bytes) -> None:
    known = declare(lambda: None)
    outcome = execute(Delivery(Message(id="7", task=known.name, body=body), "r"), HERE)
    assert outcome.state == states.FAILURE
    assert text(outcome).startswith("DecodeError: ")


def test_one_that_expired_is_not_begun() -> None:
    clock, begun = TurnedClock(), []
    clock.now = 2_000_000_000.0  # a time that a datetime tells exactly
    moment = datetime.fromtimestamp(clock.now, UTC)
    known = declare(lambda: begun.append(1))
    outcome = execute(deliver(known, expires=moment), Site(eager=True, clock=clock))
    assert (outcome.state, text(outcome)) == (states.REVOKED, f"TaskExpired: expired at {moment}")
    assert (begun, outcome.started) == ([], None)
    late = deliver(known, expires=moment + timedelta(seconds=1))
    assert execute(late, Site(eager=True, clock=clock)).state == states.SUCCESS


def test_an_asynchronous_task_runs_to_its_end() -> None:
    async def gather(n: int) -> int:
        async def one() -> int:
            await asyncio.sleep(0)
            return 1

        return sum(await asyncio.gather(*(one() for _ in range(n))))

    assert value(run(gather, 3)) == 3


def test_an_asynchronous_task_may_fail_retry_and_cancel_itself() -> None:
    async def cancel(self: Bound, how: str) -> None:
        await asyncio.sleep(0)
        if how == "retry":
            raise self.retry(countdown=5)
        raise {"fail": ValueError("x"), "cancel": asyncio.CancelledError()}[how]

    assert text(run(cancel, "fail", bind=True)) == "ValueError: x"
    assert text(run(cancel, "cancel", bind=True)).startswith("CancelledError")
    assert next_of(run(cancel, "retry", bind=True)).countdown == 5


@pytest.mark.django_db
def test_what_holds_the_database_is_no_result() -> None:
    note = Note.objects.create(text="x")
    for made, words in ((note, "Note"), (Note.objects.all(), "QuerySet")):
        outcome = run(lambda made=made: made)
        assert text(outcome).startswith("ResultNotSerializable: result: ")
        assert words in text(outcome)


def test_a_task_that_logs_to_a_broken_pipe_is_unharmed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(logging, "raiseExceptions", False)  # as in production
    logger, handler = logging.getLogger("shop.tasks"), logging.StreamHandler(Broken())
    logger.addHandler(handler)

    def talk() -> str:
        logger.warning("working")
        print("working")
        return "done"

    assert value(run(talk)) == "done"
    logger.removeHandler(handler)


# What the task knows


def test_the_task_is_told_its_call_and_where_it_runs() -> None:
    def look(self: Bound, x: int) -> list[Any]:
        request = self.request
        return [request.id, request.args, request.hostname, request.deliveries, request.attempt, request.is_eager]

    known = declare(look, bind=True)
    delivery = deliver(known, 5, id="7", deliveries=2, attempts=3)
    assert value(execute(delivery, HERE)) == ["7", (5,), "w1", 2, 5, True]
    assert current_request() is None


def test_states_in_between_are_reported_with_their_delivery() -> None:
    def work(self: Bound) -> None:
        self.update_state(state="PROGRESS", meta={"done": 1})
        self.update_state(state="PROGRESS", meta={"done": 2})

    told: list[tuple[Delivery, Outcome]] = []
    delivery = deliver(declare(work, bind=True))
    execute(delivery, Site(eager=True, report=lambda *pair: told.append(pair)))
    assert [(given is delivery, loads(outcome.value or b"")) for given, outcome in told] == [
        (True, {"done": 1}),
        (True, {"done": 2}),
    ]


@pytest.mark.parametrize(("declared", "setting", "told"), [
    (True, False, True),
    (None, True, True),
    (False, True, False),
    (None, False, False),
])  # fmt: skip
def test_the_begin_is_reported_where_it_is_asked_for(
    configure: Configure, declared: bool | None, setting: bool, told: bool
) -> None:
    configure(TRACK_STARTED=setting)
    seen: list[Outcome] = []
    clock = TurnedClock()
    site = Site(eager=True, clock=clock, report=lambda _, outcome: seen.append(outcome))
    execute(deliver(declare(lambda: None, track_started=declared)), site)
    assert [(outcome.state, outcome.started) for outcome in seen] == [("STARTED", clock.now)] * told


def test_nothing_of_the_run_is_kept_alive() -> None:
    class Heavy:
        pass

    seen: list[weakref.ref[Heavy]] = []

    def hold() -> None:
        heavy = Heavy()
        seen.append(weakref.ref(heavy))
        raise ValueError("x")

    gc.collect()
    gc.disable()
    try:
        run(hold)
        assert seen[0]() is None
    finally:
        gc.enable()


def test_limits_reach_the_function_and_not_its_handlers() -> None:
    strikes: list[bool] = []

    class Watched(Task[..., Any]):
        def before_start(self, *args: Any) -> None:
            strikes.append(gate.strike(delivery, SoftTimeLimitExceeded))

        def on_success(self, *args: Any) -> None:
            strikes.append(gate.strike(delivery, SoftTimeLimitExceeded))

    def work() -> str:
        try:
            gate.strike(delivery, SoftTimeLimitExceeded)
        except SoftTimeLimitExceeded:
            return "cleaned up"
        return "not interrupted"

    gate = here()
    delivery = deliver(declare(work, base=Watched))
    assert value(execute(delivery, Site(eager=True, interruptible=gate))) == "cleaned up"
    assert strikes == [False, False]


# Directives


def test_a_task_that_says_ignore_keeps_nothing() -> None:
    outcome = run(raising(Ignore()))
    assert (outcome.state, outcome.keep, outcome.interim, outcome.failure) == (states.IGNORED, False, False, None)


def test_a_rejected_message_ends_as_such() -> None:
    outcome = run(raising(Reject("malformed order")))
    assert (outcome.state, text(outcome)) == (states.REJECTED, "TaskRejected: malformed order")


def test_a_message_that_is_rejected_for_another_worker_goes_back_after_a_pause() -> None:
    outcome = run(raising(Reject("not here", requeue=True)))
    assert outcome.requeue is not None
    assert (outcome.requeue.delay, outcome.requeue.spent, outcome.keep) == (1.0, False, False)


def test_a_task_that_was_ended_from_outside_is_revoked() -> None:
    assert run(raising(TaskRevoked("ended while it ran"))).state == states.REVOKED


def test_a_retry_that_was_asked_for_is_the_next_attempt() -> None:
    def again(self: Bound) -> None:
        self.retry(countdown=5, exc=ConnectionError("down"))

    outcome = run(again, bind=True)
    assert (next_of(outcome).countdown, next_of(outcome).retries) == (5, 1)
    assert text(outcome) == "ConnectionError: down"
    assert (outcome.requeue, outcome.keep, outcome.interim) == (None, True, False)


def test_a_retry_that_was_not_thrown_counts_when_the_function_returns() -> None:
    def again(self: Bound) -> str:
        self.retry(countdown=5, throw=False)
        return "dropped"

    assert next_of(run(again, bind=True)).countdown == 5


def test_raising_retry_itself_is_a_retry_too() -> None:
    assert next_of(run(raising(Retry()), default_retry_delay=7)).countdown == 7
    assert next_of(run(raising(Retry(when=3)))).countdown == 3
    when = datetime(2030, 1, 1, tzinfo=UTC)
    assert next_of(run(raising(Retry(when=when)))).eta == when
    assert text(run(raising(Retry(exc=ConnectionError("down"))))) == "ConnectionError: down"


def test_raising_retry_itself_once_too_often_is_a_failure() -> None:
    outcome = run(raising(Retry("again", ConnectionError("down"))), max_retries=0)
    assert (outcome.state, text(outcome)) == (states.FAILURE, "ConnectionError: down")


class Hostile:
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Retry(when=1e12), "ValueError: countdown=1000000000000.0 lies more than a thousand years ahead."),
        (Retry(when="later"), "TypeError: countdown is a number of seconds, not 'later'."),  # type: ignore[arg-type]
        (Retry(exc="down"), "AttributeError"),  # type: ignore[arg-type]  # any failure will do
        (Reject(Hostile()), "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_done_of_what_a_task_asks_for_fails_it(error: BaseException, words: str) -> None:
    outcome = run(raising(error))
    assert outcome.state == states.FAILURE
    assert text(outcome).startswith(words) or words == "AttributeError"


def test_a_delay_that_cannot_be_fails_the_task_and_not_the_worker() -> None:
    outcome = run(raising(OSError()), autoretry_for=OSError, default_retry_delay=float("inf"))
    assert text(outcome) == "ValueError: countdown=inf lies more than a thousand years ahead."


# Retries that nobody asks for


def test_an_error_that_is_declared_is_retried_by_itself() -> None:
    outcome = run(raising(PermissionError("x")), autoretry_for=OSError, default_retry_delay=7)
    assert (next_of(outcome).countdown, next_of(outcome).retries, text(outcome)) == (7, 1, "PermissionError: x")


def test_other_errors_and_those_excepted_are_not() -> None:
    assert run(raising(ValueError("x")), autoretry_for=OSError).state == states.FAILURE
    excepted = {"autoretry_for": OSError, "dont_autoretry_for": [FileNotFoundError]}
    assert run(raising(FileNotFoundError("x")), **excepted).state == states.FAILURE


def test_the_last_failure_is_one() -> None:
    known = declare(raising(OSError("x")), autoretry_for=OSError, max_retries=2)
    assert [execute(deliver(known, retries=retries), HERE).state for retries in range(4)] == [
        states.RETRY,
        states.RETRY,
        states.FAILURE,
        states.FAILURE,
    ]


def test_without_a_number_of_its_own_a_task_is_retried_as_often_as_the_settings_say(configure: Configure) -> None:
    configure(MAX_RETRIES=1, DEFAULT_RETRY_DELAY=9)
    known = declare(raising(OSError("x")), autoretry_for=OSError)
    assert next_of(execute(deliver(known), HERE)).countdown == 9
    assert execute(deliver(known, retries=1), HERE).state == states.FAILURE


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.01, 1000), st.floats(0.01, 10_000), st.integers(0, 10_000))
def test_the_wait_lies_between_none_and_what_the_backoff_says(backoff: float, longest: float, retries: int) -> None:
    known = declare(
        raising(OSError("x")),
        autoretry_for=OSError,
        retry_backoff=backoff,
        retry_backoff_max=longest,
        max_retries=None,
    )
    wait = next_of(execute(deliver(known, retries=retries), HERE)).countdown or 0
    assert 0 <= wait <= min(longest, backoff * 2 ** min(retries, 64))


def test_a_retry_gets_the_arguments_as_they_were_sent() -> None:
    def spoil(numbers: list[int]) -> None:
        numbers.clear()
        raise OSError

    known = declare(spoil, autoretry_for=OSError)
    assert decode_body(next_of(execute(deliver(known, [1, 2]), HERE)).body)[0] == ([1, 2],)


# What is kept


@pytest.mark.parametrize(
    ("declared", "setting", "called", "ignored"),
    [
        (None, False, None, False),
        (None, True, None, True),
        (True, False, None, True),
        (False, True, None, False),
        (True, True, False, False),
        (False, False, True, True),
    ],
)
def test_the_result_is_ignored_as_the_call_says_else_the_task_else_the_settings(
    configure: Configure, declared: bool | None, setting: bool, called: bool | None, ignored: bool
) -> None:
    configure(IGNORE_RESULT=setting)
    known = declare(lambda: object() if ignored else 1, ignore_result=declared)
    outcome = execute(deliver(known, ignore_result=called), HERE)
    assert (outcome.state, outcome.keep, outcome.value) == (states.SUCCESS, not ignored, None if ignored else b"1")


@pytest.mark.parametrize(
    ("declared", "setting", "kept"), [(None, True, True), (None, False, False), (True, False, True)]
)
def test_an_error_is_kept_though_results_are_ignored_unless_that_is_turned_off(
    configure: Configure, declared: bool | None, setting: bool, kept: bool
) -> None:
    configure(STORE_ERRORS_EVEN_IF_IGNORED=setting)
    options = {"ignore_result": True, "store_errors_even_if_ignored": declared}
    assert run(raising(ValueError("x")), **options).keep is kept


def test_an_error_is_kept_where_results_are_whatever_is_said_of_ignored_ones() -> None:
    assert run(raising(ValueError("x")), store_errors_even_if_ignored=False).keep


# What others say of a task


@pytest.mark.parametrize(
    ("call", "declared", "pool", "both"),
    [
        ((None, None), (None, None), (None, None), (None, None)),
        ((None, None), (None, None), (30, 20), (30, 20)),
        ((None, None), (6, 5), (30, 20), (6, 5)),
        ((3, 2), (6, 5), (30, 20), (3, 2)),
        ((3, None), (None, 5), (30, 20), (3, 5)),
    ],
)
def test_limits_are_the_calls_else_the_tasks_else_the_pools(call: Any, declared: Any, pool: Any, both: Any) -> None:
    known = declare(lambda: None, time_limit=declared[0], soft_time_limit=declared[1])
    delivery = deliver(known, time_limit=call[0], soft_time_limit=call[1])
    assert endings.limits(delivery, PoolOptions(time_limit=pool[0], soft_time_limit=pool[1])) == both


def test_limits_of_an_unknown_task_are_the_pools() -> None:
    delivery = Delivery(Message(id="7", task="no.such", body=b""), "r")
    assert endings.limits(delivery, PoolOptions(time_limit=30)) == (30, None)


def test_each_end_that_a_task_cannot_tell_itself_has_its_words() -> None:
    delivery = deliver(declare(lambda: None))
    for outcome, state, words in [
        (endings.revoked(delivery), states.REVOKED, "TaskRevoked: revoked before it was begun"),
        (endings.revoked(delivery, "by hand"), states.REVOKED, "TaskRevoked: by hand"),
        (endings.cancelled(delivery), states.REVOKED, "TaskRevoked: ended while it ran"),
        (
            endings.timed_out(delivery, 1.5),
            states.FAILURE,
            "TimeLimitExceeded: ran longer than its time limit of 1.5 s",
        ),
        (
            endings.lost(delivery, "signal 9 (SIGKILL)"),
            states.RETRY,
            "WorkerLostError: the process that ran it died: signal 9 (SIGKILL)",
        ),
    ]:
        assert (outcome.state, text(outcome), outcome.keep) == (state, words, True)


def test_what_is_handed_back_has_cost_nothing() -> None:
    outcome = endings.handed_back(deliver(declare(lambda: None)))
    assert outcome.requeue is not None
    assert (outcome.state, outcome.requeue.spent, outcome.requeue.delay, outcome.keep, outcome.interim) == (
        states.PENDING,
        False,
        0.0,
        False,
        False,
    )


def test_what_is_ended_with_its_worker_goes_back_unless_it_may_not_begin_twice() -> None:
    known = declare(lambda: None)
    assert endings.interrupted(deliver(known)).requeue == endings.handed_back(deliver(known)).requeue
    outcome = endings.interrupted(deliver(known, receipt=ACKED))
    assert (outcome.state, outcome.requeue) == (states.FAILURE, None)
    assert text(outcome) == "WorkerLostError: ended with its worker; it is not run again, as acks_late=False says"


def test_a_lost_run_counts_and_is_run_again() -> None:
    outcome = endings.lost(deliver(declare(lambda: None)), "signal 9")
    assert outcome.requeue is not None
    assert outcome.requeue.spent


@pytest.mark.parametrize(
    ("declared", "setting", "fails"),
    [(None, "retry", False), (None, "fail", True), ("retry", "fail", False), ("fail", "retry", True)],
)
def test_a_lost_run_fails_where_the_task_or_the_settings_say_so(
    configure: Configure, declared: Any, setting: str, fails: bool
) -> None:
    configure(ON_CRASH=setting)
    delivery = deliver(declare(lambda: None, on_crash=declared))
    assert (endings.lost(delivery, "x").state == states.FAILURE) is fails
    assert endings.max_crashes(delivery.message) == (1 if fails else 3)


def test_a_lost_run_of_what_was_acknowledged_before_is_not_repeated() -> None:
    outcome = endings.lost(deliver(declare(lambda: None, acks_late=False), receipt=ACKED), "signal 9")
    assert (outcome.state, outcome.requeue) == (states.FAILURE, None)


@pytest.mark.parametrize(
    "end", [lambda delivery: endings.lost(delivery, "x"), lambda delivery: endings.timed_out(delivery, 1)]
)
def test_an_end_that_is_an_error_is_kept_as_errors_are(end: Callable[[Delivery], Outcome]) -> None:
    options = {"ignore_result": True, "on_crash": "fail"}
    assert end(deliver(declare(lambda: None, **options))).keep
    assert not end(deliver(declare(lambda: None, store_errors_even_if_ignored=False, **options))).keep


def test_a_message_is_acknowledged_late_unless_the_task_or_the_settings_say_otherwise(configure: Configure) -> None:
    unknown = Message(id="7", task="no.such", body=b"")
    early, late, neither = (declare(lambda: None, acks_late=said) for said in (False, True, None))
    assert [endings.acks_late(deliver(each).message) for each in (early, late, neither)] == [False, True, True]
    assert endings.acks_late(unknown)
    configure(ACKS_LATE=False)
    assert [endings.acks_late(deliver(each).message) for each in (early, late, neither)] == [False, True, False]
    assert not endings.acks_late(unknown)


def test_how_many_crashes_are_too_many_is_the_tasks_else_the_settings(configure: Configure) -> None:
    configure(MAX_CRASHES=5)
    assert endings.max_crashes(deliver(declare(lambda: None)).message) == 5
    assert endings.max_crashes(deliver(declare(lambda: None, max_crashes=2)).message) == 2
    assert endings.max_crashes(Message(id="7", task="no.such", body=b"")) == 5
