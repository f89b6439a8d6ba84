"""What do plans, outcomes and results say of themselves?"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest

from django_tasks import states
from django_tasks.message import Message
from django_tasks.plan import NOTHING, Outcome, Plan, Requeue, Result


def message(task_id: str) -> Message:
    return Message(id=task_id, task="t", body=b"")


def test_plans_add_up_in_order() -> None:
    one, two, three = message("1"), message("2"), message("3")
    assert (Plan((one, two)) + Plan((three,))).messages == (one, two, three)
    assert (NOTHING + Plan((one,)) + NOTHING).messages == (one,)


def test_a_plan_is_true_when_there_is_something_to_write() -> None:
    assert not NOTHING
    assert not Plan()
    assert Plan((message("1"),))


@pytest.mark.parametrize("state", sorted(states.FINAL | {states.RETRY}))
def test_an_attempt_that_ended_is_not_interim(state: str) -> None:
    assert not Outcome(state).interim


@pytest.mark.parametrize("state", [states.STARTED, states.RECEIVED, states.PENDING, "PROGRESS", "上传"])
def test_an_attempt_that_goes_on_is_interim(state: str) -> None:
    assert Outcome(state).interim


@pytest.mark.parametrize("state", [states.PENDING, states.STARTED, states.RETRY, states.FAILURE])
@pytest.mark.parametrize("requeue", [Requeue(), Requeue(delay=5.0), Requeue(spent=True)])
def test_an_attempt_that_was_handed_back_is_not_interim(state: str, requeue: Requeue) -> None:
    assert not Outcome(state, requeue=requeue).interim


@pytest.mark.parametrize(
    ("started", "ended", "runtime"),
    [(None, None, 0.0), (10.0, None, 0.0), (None, 10.0, 0.0), (10.0, 12.5, 2.5), (10.0, 9.0, 0.0)],
)
def test_run_time_is_what_lies_between_and_never_negative(
    started: float | None, ended: float | None, runtime: float
) -> None:
    assert Outcome(states.SUCCESS, started=started, ended=ended).runtime == runtime


def test_a_hand_back_costs_nothing_unless_it_says_so() -> None:
    assert Requeue() == Requeue(delay=0.0, spent=False)


@pytest.mark.parametrize("state", sorted(states.ALL | {"PROGRESS"}))
def test_a_result_is_final_as_its_state_is(state: str) -> None:
    assert Result(id="1", state=state).final is (state in states.FINAL)


@pytest.mark.parametrize("value", [Plan(), Requeue(), Outcome(states.SUCCESS), Result(id="1", state=states.SUCCESS)])
def test_values_cannot_be_changed(value: Plan | Requeue | Outcome | Result) -> None:
    assert is_dataclass(value)
    first = fields(value)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(value, first, None)
    assert not hasattr(value, "__dict__")
    assert type(replace(value)) is type(value)
