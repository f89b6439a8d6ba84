"""Do workflows do what Celery's do? Here in one process; with workers in tests/integration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_tasks import Task, chain, chord, chunks, group, signature
from django_tasks.canvas.signature import Signature
from django_tasks.endings import revoked
from django_tasks.exceptions import ChordError
from django_tasks.execution import execute
from django_tasks.message import Delivery, Message, new_id
from django_tasks.protocol import dump_plan, load_plan
from django_tasks.sequel import following
from django_tasks.serializers import encode_body
from tests.calls import HERE, deliver
from tests.canvas_tasks import add, become, fail, ids, mul, note, nothing, on_error, on_error_id, same, told, tsum

pytestmark = pytest.mark.usefixtures("configure")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    told.clear()
    yield
    told.clear()


# What is in Celery's guide, with the results that it states


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: add.s(2, 2), 4),
        (lambda: add.s(4).clone((8,)), 12),
        (lambda: chain(add.s(4, 4), mul.s(8)), 64),
        (lambda: chain(add.s(2, 2), add.s(4), add.s(8)), 16),
        (lambda: add.s(2, 2) | add.s(4) | add.s(8), 16),
        (lambda: chain(add.si(2, 2), add.si(4, 4), add.si(8, 8)), 16),
        (lambda: group(add.s(2, 2), add.s(4, 4)), [4, 8]),
        (lambda: group(add.s(i, i) for i in range(10)), [i * 2 for i in range(10)]),
        (lambda: chord((add.s(i, i) for i in range(100)), tsum.s()), 9900),
        (lambda: chord([add.s(i, i) for i in range(10)], same.s()), [i * 2 for i in range(10)]),
        (lambda: group(add.s(i, i) for i in range(10)) | tsum.s(), 90),
        (lambda: chain(add.s(4, 16), mul.s(2), mul.s(4)) | group(same.s(), add.s(1)), [160, 161]),
        (lambda: add.s(4, 16) | mul.s(2) | (add.s(4) | mul.s(8)), 352),
        (lambda: chain(group(add.s(1, 1), add.s(2, 2)), tsum.s(), add.s(10)), 16),
        (lambda: chain(add.s(1, 1), group(add.s(1), add.s(2)), tsum.s(), group(same.s(), mul.s(2))), [7, 14]),
        (lambda: chord([], tsum.s()), 0),
        (lambda: chord([add.s(1, 2)], tsum.s()), 3),
        (lambda: tsum.map([list(range(10)), list(range(100))]), [45, 4950]),
        (lambda: add.starmap(zip(range(10), range(10), strict=True)), [i * 2 for i in range(10)]),
        (lambda: add.chunks([(i, i) for i in range(10)], 5), [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18]]),
        (lambda: chunks(add.s(), [(1, 2), (3, 4), (5, 6)], 2).group(), [[3, 7], [11]]),
        (lambda: group(group(add.s(1, 1), add.s(2, 2)), add.s(3, 3)), [2, 4, 6]),
        (lambda: group(chain(add.s(1, 1), group(add.s(1), add.s(2))), same.s(5)), [[3, 4], 5]),
        (lambda: chord([chord([add.s(1, 1), add.s(2, 2)], tsum.s()), chain(add.s(1, 2), mul.s(3))], tsum.s()), 15),
        (lambda: chord((chain(add.s(i, 1), group(same.s(), add.s(1))) for i in (0, 1)), same.s()), [[1, 2], [2, 3]]),
        (lambda: chain(chord([add.s(1, 1)], tsum.s()), chord([add.s(1), add.s(2)], tsum.s()), add.s(100)), 107),
        (lambda: chain(add.s(1, 1), group([])), 2),
        (lambda: chain(same.s(3), group(add.s(4))), 7),
        (lambda: chord([same.s(1), same.s(2)], group(same.s(), tsum.s())), [[1, 2], 3]),
        (lambda: chord(group(same.s(1), group([]), same.s(2)), chain(tsum.s(), add.s(1))), 4),
        (lambda: chord([same.s(1)], tsum.si([7])), 7),
    ],
)  # fmt: skip
def test_a_workflow_ends_as_it_does_in_celery(make: Callable[[], Signature], value: Any):
    node = make()
    assert node.apply().get() == value
    assert signature(node.to_dict()).apply().get() == value, "so does what is made of its dictionary"
    assert node.apply().get() == value, "and sending it has not changed it"


def test_a_callback_gets_the_value():
    call = add.s(2, 2)
    call.link(mul.s(16))
    call.link(note.s("beside"))
    assert call.apply().get() == 4
    assert told == [[4, "beside"]]


def test_a_callback_of_a_chain_and_of_a_chord_is_that_of_their_last_task():
    whole = chain(add.s(1, 1), add.s(1))
    whole.link(note.s())
    assert whole.apply().get() == 3
    several = chord([add.s(1, 1), add.s(2, 2)], tsum.s())
    several.link(note.s())
    assert several.apply().get() == 6
    assert told == [[3], [6]]


def test_errbacks_of_both_styles_are_told():
    call = fail.s(1).on_error(on_error.s()).on_error(on_error_id.s()).on_error(note.si("plain"))
    result = call.apply()
    with pytest.raises(ValueError, match="on purpose"):
        result.get()
    assert told == [[result.id, "ValueError", "on purpose", True], result.id, ["plain"]]


def test_a_failed_step_fails_all_that_waits_for_it():
    whole = chain(add.s(1, 1), fail.s(), add.s(1), group(same.s(), add.s(2)), tsum.s())
    whole.link_error(on_error_id.s())
    last = whole.apply()
    with pytest.raises(ValueError, match="on purpose"):
        last.get()
    assert last.state == "FAILURE"
    group_result = last.parent
    with pytest.raises(ValueError, match="on purpose"):
        group_result.get()
    assert [member.state for member in group_result] == ["FAILURE", "FAILURE"]
    step = group_result.parent
    assert step.state == "FAILURE"
    assert (step.parent.state, step.parent.parent.state) == ("FAILURE", "SUCCESS")
    assert told == [step.parent.id], "the errback of the task that failed, once"


def test_a_failed_member_fails_the_body_and_names_itself():
    whole = chord([add.s(1, 1), fail.s(), chain(add.s(1, 1), fail.s(), same.s())], tsum.s() | add.s(1))
    whole.link_error(on_error.s())
    result = whole.apply()
    with pytest.raises(ChordError, match=r"Dependency \S+ raised ValueError\('on purpose'\)") as caught:
        result.get()
    header = result.parent.parent
    assert header[1].id in str(caught.value)
    assert [each.state for each in header] == ["SUCCESS", "FAILURE", "FAILURE"]
    assert told == [[result.parent.id, "ChordError", str(caught.value), True]]


def test_a_group_inside_a_failed_group_takes_its_failure_along():
    inner = chain(add.s(1, 1), group(fail.s(), same.s()))
    result = chord([inner, same.s(1)], same.s()).apply()
    with pytest.raises(ChordError, match="ValueError"):
        result.get()


def test_who_is_who():
    last = chain(ids.s(), ids.s(), group(ids.s(), ids.s()), ids.s()).apply()
    told = last.get()
    members = last.parent
    second = members.parent
    first = second.parent
    assert told == {"id": last.id, "root": first.id, "parent": members.id, "group": None}
    assert second.get() == {"id": second.id, "root": first.id, "parent": first.id, "group": None}
    assert members.get() == [
        {"id": each.id, "root": first.id, "parent": second.id, "group": members.id} for each in members
    ]
    assert [each.id[-6:] for each in members] == ["000001", "000002"]


def test_a_member_that_ignores_its_result_still_counts_with_its_value():
    assert chord([add.s(1, 1).set(ignore_result=True), nothing.s()], same.s()).apply().get() == [2, None]


def test_a_frozen_node_has_its_id_before_it_is_sent():
    call = add.s(1, 1)
    result = call.freeze()
    assert call.id == result.id
    assert call.apply().id == result.id
    whole = chord([add.s(1, 1)], tsum.s())
    result = whole.freeze()
    assert whole.apply().id == result.id


def test_options_of_a_whole_go_where_they_belong():
    whole = chain(add.s(1, 1), add.s(1), group(add.s(1), add.s(2))).set(queue="slow", countdown=5).frozen()
    first, second, members = whole.tasks
    assert (first.options["queue"], first.options["countdown"]) == ("slow", 5)
    assert second.options["queue"] == "slow"
    assert "countdown" not in second.options
    assert [member.options["queue"] for member in members.leaves] == ["slow", "slow"]


def test_a_wrong_call_is_refused_where_it_is_sent():
    with pytest.raises(TypeError, match="missing a required argument"):
        chain(add.s(1, z=1), add.s(1)).apply_async()


def test_what_follows_a_task_and_cannot_be_sent_fails():
    result = chain(add.s(1, 1), add.s(1, 2)).apply()
    with pytest.raises(TypeError, match="too many positional"):
        result.get()
    assert result.parent.get() == 2


@pytest.mark.parametrize(
    ("other", "value"),
    [(add.s(2, 3), 105), (chain(add.s(1, 1), mul.s(10)), 120), (chord([add.s(1, 1), add.s(2, 2)], tsum.s()), 106)],
)
def test_a_task_that_is_replaced_ends_as_the_other_and_is_followed_as_before(other: Signature, value: int):
    result = chain(become.s(other), add.s(100)).apply()
    assert result.get() == value
    assert chord([become.s(other), same.s(1)], tsum.s()).apply().get() == value - 99


def test_a_task_that_is_replaced_by_a_group_ends_with_its_values():
    assert become.s(group(add.s(1, 1), add.s(2, 2))).apply().get() == [2, 4]


def test_a_replacement_inherits_callbacks_and_errbacks():
    good, bad = become.s(add.s(1, 1)), become.s(fail.s())
    good.link(note.s())
    bad.link_error(on_error_id.s())
    good.apply()
    failed = bad.apply()
    assert told == [[2], failed.id]


# How long a group waits


@pytest.mark.parametrize(
    ("make", "limits"),
    [
        (lambda: group(add.s(1, 1), timeout=5), [5]),
        (lambda: group(add.s(1, 1)).set(timeout=5), [5]),
        (lambda: chord([add.s(1, 1)], tsum.s(), timeout=0.5), [0.5]),
        (lambda: chord(group(add.s(1, 1), timeout=5), tsum.s()), [5]),
        (lambda: chord(group(add.s(1, 1), timeout=5), tsum.s(), timeout=7), [7]),
        (lambda: group(add.s(1, 1), timeout=5) | tsum.s() | same.s(), [5]),
        (lambda: chord([chord([add.s(1, 1)], tsum.s(), timeout=5), add.s(1, 1)], tsum.s(), timeout=7), [7, 5]),
        (lambda: chord([add.s(1, 1)], chord([same.s()], tsum.s(), timeout=5)), [None]),
        (lambda: group(add.s(1, 1)), [None]),
        (lambda: group(add.s(1, 1), timeout=None), [None]),
    ],
)
def test_a_timeout_is_that_of_the_group_and_of_nothing_in_it(make: Callable[[], Signature], limits: list[float]):
    for node in (make(), signature(make().to_dict())):
        plan = node.frozen().plan()
        assert [each.timeout for each in plan.groups] == limits
        assert all(message.time_limit is None for message in plan.messages)


def test_a_timeout_travels_with_a_group_that_comes_later():
    node = chain(add.s(1, 1), group(same.s(), same.s()).set(timeout=5), chord([same.s()], tsum.s(), timeout=7))
    [message] = node.frozen().plan().messages
    outcome = execute(Delivery(message, "r"), HERE)
    [first] = outcome.plan.groups
    assert first.timeout == 5
    assert [each.timeout for each in load_plan(dump_plan(first.then)).groups] == [7]


@pytest.mark.parametrize(
    "make",
    [
        lambda: add.s(1, 1).set(timeout=5),
        lambda: chain(add.s(1, 1), add.s(1)).set(timeout=5),
        lambda: chain(group(add.s(1, 1), timeout=5).tasks[0], add.s(1), timeout=5),
        lambda: group(group(add.s(1, 1), timeout=5), add.s(1, 1)),
        lambda: group(add.s(1, 1), timeout="5"),
    ],
)
def test_a_timeout_where_no_group_can_have_it_is_refused(make: Callable[[], Signature]):
    with pytest.raises(TypeError, match="timeout"):
        make().apply_async()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e15])
def test_a_timeout_that_is_no_time_is_refused(seconds: float):
    for node in (group(add.s(1, 1), timeout=seconds), chord([add.s(1, 1)], tsum.s()).set(timeout=seconds)):
        with pytest.raises(ValueError, match="timeout is a number of seconds above 0"):
            node.apply_async()


# What anybody may have written


@pytest.mark.parametrize(
    "embed",
    [
        {"callbacks": 5, "errbacks": "x", "chain": {"a": 1}},
        {"callbacks": [5], "errbacks": [None], "chain": ["x"]},
        {"chain": [{"task": "x", "options": {"task_id": 5, "group_id": [], "group_index": {}}}]},
        {"chain": [{"task": "x", "subtask_type": "group", "kwargs": {"tasks": [{"task": "y"}]}}]},
        {"chain": [{"task": "x", "subtask_type": "chord", "kwargs": {"header": 5, "body": 5}}]},
        {"chain": [{"task": "x", "subtask_type": "chain", "kwargs": 5, "options": 5}]},
        {"chain": [{"task": tsum.name, "kwargs": {"what": 1}, "options": {"queue": ["x"]}}]},
        {"errbacks": [{"task": on_error.name, "options": {"eta": "x"}}], "chain": [{"task": 5}]},
    ],
)
@pytest.mark.parametrize("call", [add, fail])
def test_whatever_a_message_says_of_what_follows_its_task_runs(call: Task[..., Any], embed: dict[str, Any]):
    message = Message(id=new_id(), task=call.name, body=encode_body((1, 2), {}, embed), group_id="g", group_index=2**40)
    outcome = execute(Delivery(message, "r"), HERE)
    assert outcome.state == ("SUCCESS" if call is add else "FAILURE")
    assert following(message, outcome).parts == ()
    assert following(message, revoked(Delivery(message, "r"))).messages == ()


def test_a_timeout_in_a_message_that_is_none_begins_nothing():
    form = group(add.s(1, 1)).frozen().to_dict()
    form["options"]["timeout"] = "soon"
    outcome = execute(deliver(same, body=encode_body((1,), {}, {"chain": [form]})), HERE)
    assert outcome.state == "SUCCESS"
    assert outcome.plan.messages == ()
    [closed] = outcome.plan.groups
    assert closed.failure is not None
    assert closed.failure.message == "timeout is a number of seconds above 0, not 'soon'."


@pytest.mark.parametrize("embed", [{"gather": 5}, {"gather": {"a": []}}, {"failed": 5}, {"failed": {"message": []}}])
def test_arguments_that_cannot_be_found_end_the_task(embed: dict[str, Any]):
    outcome = execute(deliver(same, body=encode_body((), {}, embed)), HERE)
    assert outcome.state == "FAILURE"
