"""Is a message held whose task is not known here yet, as long as the settings say?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_tasks import logs, states
from django_tasks.execution import Site, execute
from django_tasks.message import Delivery, Message, new_id
from django_tasks.plan import Outcome
from django_tasks.settlement import ACKED
from tests.clocks import TurnedClock

Configure = Callable[..., None]
SENT = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _holding(configure: Configure) -> None:
    configure(UNKNOWN_TASKS_WAIT=timedelta(minutes=10))


def after(seconds: float, *, eager: bool = False, seen_at: float | None = None, **envelope: Any) -> Outcome:
    """Return what comes of an unknown task so long after it was sent."""
    clock = TurnedClock()
    clock.now = SENT.timestamp() + seconds
    message = Message(**{"id": new_id(), "task": "not.yet", "body": b"", "created_at": SENT, **envelope})
    return execute(Delivery(message, "r", seen_at=seen_at), Site(worker="w1", eager=eager, clock=clock))


@pytest.mark.parametrize(
    ("waited", "delay"),
    [(-3.0, 1.0), (0.0, 1.0), (4.0, 4.0), (59.0, 59.0), (300.0, 60.0), (590.0, 10.0)],
)
def test_it_goes_back_unspent_for_as_long_again_as_it_has_waited_but_no_longer_than_a_minute(
    waited: float, delay: float
) -> None:
    outcome = after(waited)
    assert (outcome.state, outcome.keep, outcome.interim) == (states.PENDING, False, False)
    assert outcome.requeue is not None
    assert outcome.requeue.delay == pytest.approx(delay)
    assert not outcome.requeue.spent


def test_when_its_time_is_over_it_fails_and_says_which_task_is_missing() -> None:
    outcome = after(600.0)
    assert (outcome.state, outcome.requeue, outcome.keep) == (states.FAILURE, None, True)
    assert outcome.failure is not None
    assert outcome.failure.type == "NotRegistered"
    assert "not.yet" in outcome.failure.message


def test_the_time_of_a_delayed_one_begins_when_it_is_due() -> None:
    outcome = after(3600.0, eta=SENT + timedelta(hours=1))
    assert outcome.requeue is not None
    assert after(4200.0, eta=SENT + timedelta(hours=1)).state == states.FAILURE


def test_one_that_has_expired_meanwhile_is_not_held() -> None:
    assert after(30.0, expires=SENT + timedelta(seconds=20)).state == states.REVOKED


def test_unless_the_settings_ask_for_it_none_is_held(configure: Configure) -> None:
    configure()
    assert after(0.0).state == states.FAILURE


def test_where_the_caller_itself_runs_it_there_is_nobody_to_hold_it_for() -> None:
    assert after(0.0, eager=True).state == states.FAILURE


def test_one_without_a_date_is_held_from_when_a_worker_first_had_it() -> None:
    seen: dict[str, Any] = {"created_at": None, "seen_at": SENT.timestamp()}
    for waited, delay in ((0.0, 1.0), (4.0, 4.0), (590.0, 10.0)):
        outcome = after(waited, **seen)
        assert outcome.requeue is not None
        assert outcome.requeue.delay == pytest.approx(delay)
    assert after(600.0, **seen).state == states.FAILURE


def test_when_it_was_sent_counts_more_than_when_it_was_seen() -> None:
    assert after(600.0, seen_at=SENT.timestamp() + 500).state == states.FAILURE


def test_of_one_without_a_date_whose_broker_remembers_nothing_nobody_can_say_how_long_it_has_waited() -> None:
    assert after(0.0, created_at=None).state == states.FAILURE


def test_the_log_has_one_warning_for_each_name_however_often_its_messages_come(
    own_log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    own_log.setLevel("INFO")
    own_log.propagate = True
    name = f"not.yet.{new_id()}"
    outcome = after(0.0, task=name)
    one, other = (Delivery(Message(id=new_id(), task=name, body=b""), "r") for _ in range(2))
    logs.log_settled(done=[(one, outcome), (one, outcome), (other, outcome)])
    logs.log_settled(done=[(replace(other, receipt=ACKED), outcome)])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "goes back to its queue, for a worker that knows it: NotRegistered: " in record.getMessage()
