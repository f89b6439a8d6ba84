"""Does each example of Celery's guide to workflows end here as the guide says?

What the examples do and what they end with is the guide's; names and numbers are not. What is different here is said in
docs/how-to/move-from-celery.md. Under each heading of the guide stand the tests of its examples, here unless named:

====================================  ==========================================================================
Signatures                            made_in_four_ways, tells_its_fields, is_called_here, is_sent
Partials                              arguments_go_before, keywords_and_options_go_over, a_clone
Immutability                          before_an_immutable_one, before_an_immutable_one_called_here
Callbacks; Linking                    a_callback_gets, a_list_of_callbacks, an_errback_is_told
The Primitives: chains                a_chain_by_each_spelling, independent_steps, partial_chains
  groups, chords                      a_group, a_chord_by_each_spelling, a_body_without, goes_to_each_member
Chains                                what_was_linked; test_dependencies: get_leaf, IncompleteStream
  Task ID                             the_id_of_its_last_task
  Graphs                              the_graph_of_a_chain; test_dependencies: to_dot
Groups                                a_group
  Callbacks and Error Handling        linked_to_a_group, each_failed_member
  Group Results                       tells_how_far_it_is; integration/test_workflows: revoke
  Group Unrolling                     group_of_one_is_that_one, group_of_one_leaves_its_options
Chords                                a_chord_by_each_spelling, the_id_of_a_chord
  Error handling                      a_failed_member, an_errback_of_a_body, told_once
  Important Notes                     members_that_keep_nothing
Map & Starmap; Chunks                 items_one_by_one, items_in_chunks, chunks_one_after_another
Stamping                              a_stamped_group
  Custom stamping                     members_of_groups, a_stamp_of_its_own, does_not_list
  Callbacks stamping                  what_is_linked_is_stamped
Tasks: Ignore                         asks_to_be_ignored
  Avoid launching synchronous ...     steps_in_place_of_waiting; test_result: does_not_wait
====================================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest

from django_tasks import Ignore, Signature, StampingVisitor, Task, chain, chord, group, signature, task
from django_tasks.connections import brokers, results
from django_tasks.exceptions import ChordError, ResultTimeout, TaskError
from django_tasks.execution import execute
from django_tasks.settlement import Settlement
from tests.calls import HERE
from tests.canvas_tasks import add, collect, fail, mul, note, on_error, on_error_id, same, stamped, told, tsum

pytestmark = pytest.mark.usefixtures("configure")

PAIRS = [(number, number) for number in range(100)]
DOUBLES = [number * 2 for number in range(10)]


class Quiet(Task[..., Any]):
    """Has a handler that leaves the one above it out."""

    def after_return(self, *args: Any, **kwargs: Any) -> None:
        told.append("after")


@task
def minus(x: int, y: int, *, negated: bool = False) -> int:
    return y - x if negated else x - y


@task
def reset() -> str:
    told.append("reset")
    return "reset"


@task
def sign_up(*, name: str, mail: str) -> str:
    return f"{name} <{mail}>"


@task
def give_up() -> None:
    raise Ignore


@task(bind=True)
def on_error_bound(self: Task[..., Any], task_id: str) -> None:
    told.append([self.name, task_id])


@task(base=Quiet)
def quiet(value: int) -> int:
    return value


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    told.clear()
    yield
    told.clear()


def work() -> None:
    """Run what waits, and what follows it, as a worker does."""
    broker = brokers["default"]
    settlement = Settlement(broker, results["default"], worker="w1", lease=30.0)
    while taken := broker.fetch(["default"], 100, lease=30.0, consumer="w1"):
        settlement.settle([(delivery, execute(delivery, HERE)) for delivery in taken])


def ended(handle: Any) -> Any:
    work()
    return handle.get(0)


# Signatures


def test_a_signature_is_made_in_four_ways():
    by_name = signature(minus.name, args=(9, 4), countdown=10)
    assert by_name == minus.signature((9, 4), countdown=10) == minus.s(9, 4).set(countdown=10)
    assert repr(by_name) == f"{minus.name}(9, 4)"
    assert repr(minus.s(9, 4, negated=True)) == f"{minus.name}(9, 4, negated=True)"


def test_a_signature_tells_its_fields():
    call = minus.signature((9, 4), {"negated": True}, countdown=10)
    assert (call.args, call.kwargs, call.options) == ((9, 4), {"negated": True}, {"countdown": 10})


def test_a_signature_is_called_here():
    assert (minus.s(9, 4)(), minus.s(9, 4)(negated=True), minus.s(4)(9)) == (5, -5, 5)
    assert brokers["default"].fetch(["default"], 1, lease=1.0, consumer="w1") == []


def test_a_signature_is_sent_and_waited_for(configure: Callable[..., None]):
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    assert (~minus.s(9, 4), ~tsum.map([[1, 2]])) == (5, [3])


@pytest.mark.parametrize(
    "send",
    [
        lambda: minus.apply_async((9, 4), countdown=0),
        lambda: minus.signature((9, 4), countdown=0).apply_async(),
        lambda: minus.signature((9, 4)).delay(),
        lambda: minus.signature((9, 4)).set(countdown=0).delay(),
        lambda: minus.s(9, 4).apply_async(countdown=0),
        lambda: minus.s(4).delay(9),
        lambda: minus.s(4).apply_async((9,)),
    ],
)
def test_a_signature_is_sent(send: Callable[[], Any]):
    assert ended(send()) == 5


# Partials


def test_arguments_go_before_those_of_a_partial():
    assert minus.s(10).clone((30,)).args == (30, 10)
    assert ended(minus.s(10).delay(30)) == 20


def test_keywords_and_options_go_over_those_of_a_partial():
    call = minus.signature((9, 4), countdown=10)
    assert ended(minus.s(9, 4).delay(negated=True)) == -5
    assert ended(minus.s(9, 4, negated=False).apply_async(kwargs={"negated": True})) == -5
    assert ended(call.apply_async(countdown=0)) == 5
    assert call.options == {"countdown": 10}


def test_a_clone_of_a_partial():
    assert repr(minus.s(4).clone(args=(9,), kwargs={"negated": True})) == f"{minus.name}(9, 4, negated=True)"


# Immutability


@pytest.mark.parametrize("callback", [reset.si(), reset.signature(immutable=True), reset.s().set(immutable=True)])
def test_nothing_is_put_before_an_immutable_one(callback: Signature):
    assert ended(add.apply_async((2, 2), link=callback)) == 4
    assert told == ["reset"]


def test_nothing_is_put_before_an_immutable_one_called_here():
    assert minus.si(9, 4)(1, negated=True) == 5
    assert ended(minus.si(9, 4).delay(1)) == 5


# Callbacks, and linking


def test_a_callback_gets_the_value_before_its_own_arguments():
    sent = add.apply_async((2, 2), link=minus.s(10))
    assert ended(sent) == 4
    assert [child.get(0) for child in sent.children] == [-6]


def test_a_list_of_callbacks_is_sent_in_order():
    call = add.s(2, 2)
    call.link(mul.s(4))
    call.link(note.s("log"))
    assert ended(call.delay()) == 4
    sent = add.apply_async((2, 2), link=[add.s(16), note.s()])
    assert ended(sent) == 4
    assert [child.get(0) for child in sent.children] == [20, [4]]
    assert told == [[4, "log"], [4]]


@pytest.mark.parametrize(
    "send",
    [
        lambda: fail.apply_async((2,), link=note.s(), link_error=on_error.s()),
        lambda: fail.s(2).on_error(on_error.s()).delay(),
        lambda: fail.apply_async((2,), link_error=[on_error.s()]),
    ],
)
def test_an_errback_is_told_of_the_failure(send: Callable[[], Any]):
    sent = send()
    work()
    assert told == [[sent.id, "ValueError", "on purpose", True]]


# The primitives


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(add.s(4, 4), mul.s(8), mul.s(10)),
        lambda: chain([add.s(4, 4), mul.s(8), mul.s(10)]),
        lambda: chain(step for step in (add.s(4, 4), mul.s(8), mul.s(10))),
        lambda: add.s(4, 4) | mul.s(8) | mul.s(10),
    ],
)
def test_a_chain_by_each_spelling(make: Callable[[], Any]):
    assert repr(make()) == f"{add.name}(4, 4) | {mul.name}(8) | {mul.name}(10)"
    for handle in (make()(), make().apply_async()):
        assert (ended(handle), handle.parent.get(0), handle.parent.parent.get(0)) == (640, 64, 8)
        assert handle.parent.parent.parent is None


def test_independent_steps():
    handle = (add.si(2, 2) | add.signature((4, 4), immutable=True) | add.si(8, 8))()
    assert (ended(handle), handle.parent.get(0), handle.parent.parent.get(0)) == (16, 8, 4)


def test_a_group():
    members = group(add.s(i, i) for i in range(10))
    assert repr(group(add.s(2, 2), add.s(4, 4))) == f"group([{add.name}(2, 2), {add.name}(4, 4)])"
    assert ended(members()) == DOUBLES
    assert ended(group([add.s(2, 2), add.s(4, 4)])()) == [4, 8]


@pytest.mark.parametrize(
    "send",
    [
        lambda: chord((add.s(i, i) for i in range(100)), tsum.s()).apply_async(),
        lambda: chord(add.s(i, i) for i in range(100))(tsum.s()),
        lambda: chord([add.s(i, i) for i in range(100)])(tsum.s()),
        lambda: (group(add.s(i, i) for i in range(100)) | tsum.s()).apply_async(queue="default"),
    ],
)
def test_a_chord_by_each_spelling(send: Callable[[], Any]):
    handle = send()
    assert len(handle.parent) == 100
    assert ended(handle) == 9900


def test_the_id_of_a_chord_is_that_of_its_body():
    assert chord([add.s(1, 1)], tsum.s().set(task_id="the-body"))().id == "the-body"


def test_a_body_without_the_values():
    assert ended(chord((same.s(i) for i in range(3)), note.si("import 7")).apply_async()) == ["import 7"]


def test_partial_chains():
    assert ended((add.s(4) | mul.s(8))(16)) == 160
    assert ended((add.s(4, 16) | mul.s(2) | (add.s(4) | mul.s(8)))()) == 352


def test_what_a_step_is_given_goes_to_each_member():
    whole = sign_up.s() | group(collect.s("contacts"), collect.s("mail"))
    handle = whole.delay(name="Ada", mail="ada@example.com")
    assert ended(handle) == [["Ada <ada@example.com>", "contacts"], ["Ada <ada@example.com>", "mail"]]
    handle = (add.s(4, 4) | group(add.si(i, i) for i in range(10)))()
    assert (ended(handle), handle.parent.get(0)) == (DOUBLES, 8)


# Chains


def test_what_was_linked_is_a_child():
    sent = add.apply_async((2, 2), link=mul.s(16))
    with pytest.raises(ResultTimeout):
        list(sent.collect(timeout=0))
    work()
    assert [child.get(0) for child in sent.children] == [64]
    assert list(sent.collect()) == [(sent, 4), (sent.children[0], 64)]


def test_a_chain_has_the_id_of_its_last_task():
    whole = chain(add.s(1, 1), add.s(2), mul.s(3).set(task_id="the-last"))
    assert whole.id == whole.freeze().id == whole().id == "the-last"
    other = chain(add.s(1, 1), add.s(2))
    assert other.id is None
    handle = other.freeze()
    assert other.id == handle.id == other.tasks[-1].id
    assert other.apply_async(task_id="given").id == "given"
    assert ended(whole.delay()) == 12


def test_the_graph_of_a_chain():
    last = chain(add.s(4, 4), mul.s(8), mul.s(10))()
    work()
    first, second, third = last.parent.parent.id, last.parent.id, last.id
    lines = repr(last.parent.parent.graph).splitlines()
    assert lines == [f"{first}(2)", f"    {second}(1)", f"{second}(1)", f"    {third}(0)", f"{third}(0)"]


# Groups


def test_what_is_linked_to_a_group():
    members = group(add.s(2, 2), add.s(4, 4))
    members.link(add.s())
    assert ended(members()) == [4, 8], "the callback fails, for it gets neither the value nor the values"
    others = group(add.s(2, 2), add.s(4, 4))
    others.link(note.s())
    assert ended(others()) == [4, 8]
    assert told == [[]]


def test_each_failed_member_tells_the_errback():
    members = group(fail.s(), same.s(1), fail.s())
    members.link_error(on_error_id.s())
    handle = members()
    work()
    assert told == [handle[0].id, handle[2].id]


def test_a_group_tells_how_far_it_is():
    handle = group([add.s(i, i) for i in (2, 4, 8, 16, 32)]).apply_async()
    assert (handle.ready(), handle.waiting(), handle.successful(), handle.completed_count()) == (False, True, False, 0)
    work()
    assert (handle.ready(), handle.waiting(), handle.successful(), handle.completed_count()) == (True, False, True, 5)
    assert (handle.failed(), handle.get(0), handle.join(0)) == (False, [4, 8, 16, 32, 64], [4, 8, 16, 32, 64])
    broken = group(add.s(1, 1), fail.s()).apply_async()
    work()
    assert (broken.ready(), broken.successful(), broken.failed(), broken.completed_count()) == (True, False, True, 1)


def test_a_group_of_one_is_that_one_in_a_chain():
    assert repr(chain(add.s(2, 2), group(add.s(1)), add.s(1))) == f"{add.name}(2, 2) | {add.name}(1) | {add.name}(1)"
    assert ended(chain(add.s(2, 2), group(add.s(1)), add.s(1))()) == 6
    assert ended(chain(add.s(2, 2), group(add.s(1)), add.s(1), queue="default")()) == 6, "whatever is said of the chain"
    assert ended(chain(add.s(2, 2), group(add.s(1), add.s(2)), collect.s(1))()) == [[5, 6], 1]
    assert ended(chain(group(add.s(1, 1)), add.s(2))()) == 4
    assert ended((group(add.s(1, 1)) | collect.s(2))()) == [[2], 2], "but not at the head of a pipe"


def test_a_group_of_one_leaves_its_options_behind():
    whole: Any = chain(add.s(1, 1), group(add.s(1)).set(queue="slow", countdown=5), add.s(1))
    assert whole.tasks[1].options == {"queue": "slow", "countdown": 5}
    in_time: Any = chain(add.s(1, 1), group(add.s(1), timeout=60), collect.s())
    assert ended(in_time()) == [[3]], "one that has to end in time is a group, whatever its size"


# Chords


def test_a_failed_member_fails_the_body_once_and_stops_no_other():
    handle = chord([chain(add.s(4, 4), fail.s()), fail.s(), note.s(8)], tsum.s())()
    work()
    with pytest.raises(ChordError, match="on purpose") as caught:
        handle.get(0)
    assert handle.parent[1].id in str(caught.value), "the first in time, and not in the header"
    assert "on purpose" in handle.traceback
    assert (told, handle.state) == ([[8]], "FAILURE")


@pytest.mark.parametrize("errback", [on_error, on_error_id, on_error_bound])
def test_an_errback_of_a_body_is_told_of_the_body(errback: Task[..., Any]):
    handle = (group([add.s(1, 1), fail.s()]) | tsum.s().on_error(errback.s())).delay()
    work()
    error = [handle.id, "ChordError", str(handle.result), True]
    assert told == [
        {on_error: error, on_error_id: handle.id, on_error_bound: [on_error_bound.name, handle.id]}[errback]
    ]


def test_callbacks_and_errbacks_of_a_chord_are_told_once():
    good, bad = chord([add.s(1, 1), add.s(2, 2)], tsum.s()), chord([fail.s(), fail.s()], tsum.s())
    for each in (good, bad):
        each.link(note.s())
        each.link_error(on_error_id.s())
    assert ended(good()) == 6
    failed = bad()
    work()
    assert told == [[6], failed.id]


def test_members_that_keep_nothing_or_skip_handlers_count():
    header = [quiet.s(1), add.s(1, 1).set(ignore_result=True)]
    assert ended(chord(header, tsum.s())()) == 3
    assert told == ["after"]


# Map, starmap, chunks


def test_items_one_by_one():
    assert ended(tsum.map([list(range(10)), list(range(100))]).delay()) == [45, 4950]
    assert ended(add.starmap(PAIRS[:10]).delay()) == DOUBLES
    assert ended(group(add.starmap(PAIRS[:10]), tsum.map([[1, 2]]))()) == [DOUBLES, [3]]
    later = add.starmap(PAIRS[:10]).apply_async(countdown=10)
    work()
    assert later.state == "PENDING"


@pytest.mark.parametrize("send", [lambda call: call(), lambda call: call.apply_async(), lambda call: call.group()()])
def test_items_in_chunks(send: Callable[[Any], Any]):
    parts = ended(send(add.chunks(iter(PAIRS), 10)))
    assert parts == [[number * 2 for number in range(begin, begin + 10)] for begin in range(0, 100, 10)]


def test_chunks_one_after_another():
    several: Any = add.chunks(PAIRS, 10).group().skew(start=1, stop=10)
    assert [message.countdown for message in several.frozen().plan().messages] == list(range(1, 11))


# Stamping


def test_a_stamped_group_is_made_of_a_frozen_call():
    call = add.si(2, 2)
    handle = call.freeze()
    whole = group(call, stamped.si())
    whole.stamp(label="blue")
    assert ended(whole.apply_async()) == [4, {"label": "blue"}]
    assert handle.get(0) == 4


class InGroup(StampingVisitor):
    """Tells what is in a group."""

    def __init__(self) -> None:
        self.inside = False

    def _told(self) -> dict[str, Any]:
        return {"inside": [self.inside], "stamped_headers": ["inside"]}

    def on_group_start(self, group: Any, **headers: Any) -> Mapping[str, Any]:
        self.inside = True
        return self._told()

    def on_group_end(self, group: Any, **headers: Any) -> None:
        self.inside = False

    def on_chain_start(self, chain: Any, **headers: Any) -> Mapping[str, Any]:
        return self._told()

    def on_signature(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        return self._told()


def stamps(node: Signature) -> Any:
    return node.options["stamps"]


def test_members_of_groups_are_labelled():
    several = group(same.s(1), same.s(2)).stamp(visitor=InGroup())
    assert [stamps(leaf) for leaf in several.leaves] == [{"inside": [True]}] * 2
    whole = chain(same.s(1), group(same.s(), same.s())).stamp(visitor=InGroup())
    first, *members = [stamps(leaf)["inside"] for leaf in whole.leaves]
    assert first == [False]
    assert members == [[False, True]] * 2, "what the chain gave them, and what the group did"


class Watched(StampingVisitor):
    """Gives each call a number of its own; says something else beside that only some visitors list."""

    def __init__(self, *listed: str) -> None:
        self.listed = listed

    def on_signature(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        said = {"watch_id": uuid4().hex, **({"other": "value"} if self.listed else {})}
        return {**said, "stamped_headers": list(self.listed)} if self.listed else said


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda: signature("t1"), 1),
        (lambda: group([signature("t1"), signature("t2")]), 2),
        (lambda: chord([signature("t1"), signature("t2")], signature("t3")), 3),
        (lambda: chain(signature("t1"), group(signature("t2"), signature("t3")), signature("t4")), 4),
    ],
)
def test_each_call_has_a_stamp_of_its_own(make: Callable[[], Signature], number: int):
    leaves = make().stamp(visitor=Watched()).leaves
    assert [list(stamps(leaf)) for leaf in leaves] == [["watch_id"]] * number
    assert len({stamps(leaf)["watch_id"] for leaf in leaves}) == number


def test_what_a_visitor_does_not_list_is_no_stamp():
    call = stamped.s().stamp(visitor=Watched("watch_id"))
    assert list(ended(call.delay())) == ["watch_id"]
    assert list(ended(stamped.s().stamp(visitor=Watched("watch_id", "other")).delay())) == ["watch_id", "other"]


class Linked(StampingVisitor):
    """Stamps all calls, and more on those that are linked."""

    def on_signature(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        return {"seen": "value"}

    def on_callback(self, callback: Any, **headers: Any) -> Mapping[str, Any]:
        return {"called_back": True}

    def on_errback(self, errback: Any, **headers: Any) -> Mapping[str, Any]:
        return {"in_error": True}


def test_what_is_linked_is_stamped():
    whole = chord([add.s(1, 1), add.s(2, 2)], tsum.s())
    whole.link(signature("after"))
    whole.link_error(signature("failed"))
    whole.stamp(visitor=Linked())
    assert whole.body is not None
    for each in (*whole.tasks, whole.body):
        form = each.to_dict()["options"]
        assert (form["seen"], form["stamped_headers"]) == ("value", ["seen"])
    [after], [failed] = whole.body.options["link"], whole.body.options["link_error"]
    assert stamps(after) == {"called_back": True, "seen": "value"}
    assert stamps(failed) == {"in_error": True, "seen": "value"}


# Of the guide to tasks


def test_a_step_that_asks_to_be_ignored_ends_what_waits_for_it():
    step = chain(give_up.s(), note.si("after"))()
    body = chord([give_up.s(), same.s(1)], note.s())()
    members = group(give_up.s(), same.s(1))()
    work()
    assert told == []
    for handle, error in ((step, TaskError), (body, ChordError), (members, TaskError)):
        with pytest.raises(error, match="ignored"):
            handle.get(0)
    first, second = members.get(0, propagate=False)
    assert (type(first), second) == (TaskError, 1)


def test_steps_in_place_of_waiting():
    whole = same.s("https://example.com") | collect.s("parsed") | note.s("https://example.com").set(ignore_result=True)
    whole()
    work()
    assert told == [[["https://example.com", "parsed"], "https://example.com"]]
