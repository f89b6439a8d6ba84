"""Does a step of a chain of a thousand cost what one of a short chain costs, and is none of them lost on the way?"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_tasks import AsyncResult, chain, group, states
from django_tasks.canvas.signature import Signature
from django_tasks.canvas.tail import AHEAD, LONGEST, REST, WHOLE, Rest, Tail
from django_tasks.endings import revoked
from django_tasks.exceptions import SerializationError
from django_tasks.execution import execute
from django_tasks.group_result import result_from_tuple
from django_tasks.message import Delivery, Message, new_id
from django_tasks.plan import Outcome
from django_tasks.sealing import unsealed
from django_tasks.sequel import following
from django_tasks.serializers import SERIALIZERS, encode_body
from django_tasks.signing import signed
from tests.calls import HERE, deliver, outcome_of
from tests.canvas_tasks import add, become, collect, fail, ids, on_error_id, same, told, tsum
from tests.certificates import owner
from tests.unit.test_encryption import key

pytestmark = pytest.mark.usefixtures("configure")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    told.clear()
    yield
    told.clear()


def adding(steps: int) -> Signature:
    """Return a chain that ends with the number of its steps."""
    whole: Signature = chain(add.s(0, 1), *(add.s(1) for _ in range(steps - 1)))
    return whole


def run(node: Signature) -> Iterator[tuple[Message, Outcome]]:
    """Run what a chain begins with, then what follows that, and so on to its end."""
    messages = node.frozen().plan(replies=False).messages
    while messages:
        [message] = messages
        outcome = outcome_of(message)
        yield message, outcome
        messages = outcome.plan.messages


def forms_in(message: Message) -> list[Any]:
    forms = unsealed(message)[2].get("chain", [])
    assert isinstance(forms, list)
    return forms


def nodes_in(value: Any) -> int:
    """Count what is to be made of a message, of whatever a value holds."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(nodes_in, inner))


def test_what_is_read_and_written_at_a_step_does_not_grow_with_the_chain():
    most = {}
    for steps in (WHOLE, 2 * WHOLE, 5 * WHOLE):
        seen = [(nodes_in(forms_in(message)), len(message.body)) for message, _ in run(adding(steps))]
        assert len(seen) == steps
        nodes, sizes = zip(*seen, strict=True)
        most[steps] = max(nodes)
        # The value that is handed on gets longer by three digits.
        assert max(sizes) <= sizes[0] + 3
        assert all(after < before for before, after in zip(sizes, sizes[AHEAD:], strict=False))
    assert most[5 * WHOLE] == most[2 * WHOLE] < most[WHOLE]


def test_a_chain_of_a_thousand_runs_to_its_end_and_the_handles_lead_back():
    result = adding(1_000).apply()
    assert result.get() == 1_000
    assert result.first.get() == 1
    assert len(result.as_list()) == 1_000
    found = result_from_tuple(result.as_tuple())
    assert (found.id, found.first.id, len(found.as_list())) == (result.id, result.first.id, 1_000)


def test_ids_of_a_long_chain_are_told_by_number_and_are_one_each():
    first, second = adding(150).freeze(), adding(150).freeze()
    assert len({*first.as_list(), *second.as_list()}) == 300
    assert [each[-6:] for each in first.as_list()[:0:-1]][:3] == ["000001", "000002", "000003"]
    mine = chain(add.s(0, 1).set(task_id="mine"), *(add.s(1) for _ in range(150))).freeze()
    assert mine.first.id == "mine"


def test_all_steps_of_a_short_chain_are_in_celerys_form_and_those_of_a_long_one_but_for_the_rest():
    short, long = adding(WHOLE + 1), adding(WHOLE + 2)
    [first] = short.frozen().plan().messages
    assert [form["task"] for form in forms_in(first)] == [add.name] * WHOLE
    [first] = long.frozen().plan().messages
    forms = forms_in(first)
    assert [form["task"] for form in forms] == [REST] + [add.name] * AHEAD
    assert forms[0]["kwargs"]["steps"] == WHOLE + 1 - AHEAD
    assert forms[0]["options"] == {"queue": "default"}


def test_a_failed_step_ends_the_packed_ones_as_well_and_only_its_own_errback_is_told():
    whole = chain(fail.s(), *(add.s(1) for _ in range(300)), group(same.s(), same.s()), tsum.s())
    whole.link_error(on_error_id.s())
    last = whole.apply()
    line = [last, last.parent]
    while line[-1].parent is not None:
        line.append(line[-1].parent)
    assert len(line) == 303
    assert all(each.failed() for each in line)
    assert {each.result.args for each in line if isinstance(each, AsyncResult)} == {("on purpose",)}
    assert told == [last.first.id]


def test_a_packed_step_that_fails_ends_those_behind_it_and_tells_its_errback():
    middle = fail.s()
    middle.link_error(on_error_id.s())
    last = chain(add.s(0, 1), *(add.s(1) for _ in range(150)), middle, *(add.s(1) for _ in range(150))).apply()
    line = [last]
    while line[-1].parent is not None:
        line.append(line[-1].parent)
    assert [each.state for each in reversed(line)] == [states.SUCCESS] * 151 + [states.FAILURE] * 151
    assert told == [line[150].id]


def test_a_revoked_step_ends_the_packed_ones_without_a_run():
    [message] = adding(500).frozen().plan().messages
    plan = following(message, revoked(Delivery(message, "r")))
    assert len(plan.results) == 499
    assert {result.state for result in plan.results} == {states.FAILURE}


def test_a_packed_step_may_be_a_group_be_replaced_and_know_where_it_comes_from():
    ones = [add.s(1) for _ in range(150)]
    whole = chain(add.s(0, 1), *ones, group(same.s(), same.s()), tsum.s(), *ones, become.si(adding(150)), *ones)
    assert whole.apply().get() == 300
    last = chain(ids.s(), *(ids.s() for _ in range(200))).apply()
    assert last.get() == {"id": last.id, "root": last.first.id, "parent": last.parent.id, "group": None}


def test_a_chain_of_chains_and_one_in_a_chord_are_packed_too():
    inner = chain._of([adding(150), *[add.s(1) for _ in range(10)]])
    assert chain._of([inner, *[add.s(1) for _ in range(150)]]).apply().get() == 310
    assert group(adding(150), adding(200)).apply().get() == [150, 200]


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("json", {}),
    ("json", {"compression": "zlib"}),
    ("json", {"encrypt": True}),
    ("msgpack", {"encrypt": True}),
    ("yaml", {}),
    ("pickle", {}),
]


@pytest.mark.parametrize(("name", "way"), WAYS, ids=str)
def test_every_serializer_carries_it(configure: Callable[..., None], name: str, way: dict[str, Any]):
    configure(ACCEPT=["json", name], SERIALIZER=name, REQUIRE_SIGNATURE=True, ENCRYPTION_KEYS=[key()])
    value = {"set": {1, 2}, "bytes": b"\0\xff"}
    whole = chain(collect.s(value), *(same.s() for _ in range(WHOLE + 10))).set(**way)
    assert whole.apply().get() == [value]
    assert {each.name for each in SERIALIZERS.values()} == {name for name, _ in WAYS} | {"auth"}, "which is tried below"


def test_what_celery_signs_carries_it(configure: Callable[..., None], tmp_path: Path):
    trusted = tmp_path / "trusted"
    configure(**owner(tmp_path, "site", trusted=trusted).settings(trusted))
    assert adding(WHOLE + 10).apply().get() == WHOLE + 10


def test_what_only_pickle_can_say_is_not_packed(configure: Callable[..., None]):
    configure(ACCEPT=["json", "pickle"], SERIALIZER="pickle", REQUIRE_SIGNATURE=True)
    whole = chain(collect.s(1), *(collect.s(complex(1, number)) for number in range(150)))
    [message] = whole.frozen().plan().messages
    assert len(forms_in(signed(message))) == 150


def test_a_chain_that_is_too_long_is_refused_where_it_is_sent():
    tail = Tail.of([Rest("x", steps=LONGEST, size=10, queue="").form()]).after(*[add.s(1)] * (WHOLE + 1))
    with pytest.raises(SerializationError, match=r"chain: 20,081 steps wait behind .* no more than 20,000 may"):
        tail.chain()
    tail = Tail().after(*[same.s("x" * 40_000)] * (20 * WHOLE))
    with pytest.raises(SerializationError, match=r"chain: 1,980 steps wait behind .* bytes of JSON or more"):
        tail.chain()
    large = chain(same.s("x" * 600_000), *(same.si("y" * 600_000) for _ in range(2)))
    with pytest.raises(SerializationError, match=r"body: .* the limit is .*; 2 steps of a chain wait in it"):
        large.apply_async()
    wrong = chain(same.s(1), *(same.si(1) for _ in range(130)), same.si(object()))
    with pytest.raises(SerializationError, match=r"chain\[120:\]\[10\]\['args'\]\[0\]"):
        wrong.apply_async()


# Where a worker of Celery's has run the step before


def rest_of(node: Signature) -> dict[str, Any]:
    [message] = node.frozen().plan().messages
    form = forms_in(message)[0]
    assert isinstance(form, dict)
    return form


def resume(kwargs: dict[str, Any], embed: dict[str, Any] | None = None) -> Message:
    return Message(id=new_id(), task=REST, body=encode_body((21,), kwargs, embed or {}), root_id="root")


def test_the_rest_goes_on_as_a_task():
    outcome = outcome_of(resume(rest_of(adding(200))["kwargs"]))
    assert not outcome.keep
    [message] = outcome.plan.messages
    assert (message.task, message.root_id) == (add.name, "root")
    assert unsealed(message)[0] == (21, 1)
    assert Tail.of(forms_in(message)).steps == 178
    # And so it does before steps that somebody put behind it.
    outcome = outcome_of(resume(rest_of(adding(200))["kwargs"], {"chain": [same.s().set(task_id="last").to_dict()]}))
    [message] = outcome.plan.messages
    assert list(Tail.of(forms_in(message)).every())[-1]["options"]["task_id"] == "last"


def test_all_of_the_rest_ends_when_it_is_revoked_or_cannot_go_on():
    message = resume(rest_of(adding(200))["kwargs"])
    plan = following(message, revoked(Delivery(message, "r")))
    assert len(plan.results) == 179
    wrong = chain(add.s(0, 1), *(add.s(1) for _ in range(AHEAD)), add.s(1, 2, 3), *(add.s(1) for _ in range(WHOLE)))
    outcome = outcome_of(resume(rest_of(wrong)["kwargs"]))
    assert len(outcome.plan.results) == WHOLE + 1


def test_what_celery_sends_whole_is_packed_and_comes_back_to_the_queue_of_the_task_that_packed_it():
    forms = [same.s().set(task_id=f"step-{number}").to_dict() for number in range(2 * WHOLE)]
    [message] = outcome_of(
        deliver(add, 1, 2, queue="mail", body=encode_body((1, 2), {}, {"chain": forms})).message
    ).plan.messages
    rest = forms_in(message)[0]
    assert (rest["task"], rest["options"]) == (REST, {"queue": "mail"})
    assert [each["options"]["task_id"] for each in Tail.of(forms_in(message)).every()] == [
        f"step-{number}" for number in reversed(range(2 * WHOLE - 1))
    ]


def test_the_rest_has_a_route_if_one_is_given(configure: Callable[..., None]):
    configure(ROUTES={REST: "shared"})
    assert rest_of(adding(200))["options"] == {"queue": "shared"}


def test_an_unknown_serializer_is_refused_as_ever():
    with pytest.raises(ValueError, match="serializer"):
        adding(3).apply_async(serializer="nope")


# What anybody may have written


def block(text: bytes) -> str:
    return b64encode(zlib.compress(text)).decode()


ONE = b'[{"task":"x","options":{"task_id":"one"}}]'
BROKEN = [
    {"packed": "?", "steps": 1, "size": 1},
    {"packed": b64encode(b"not compressed").decode(), "steps": 1, "size": 1},
    {"packed": block(b"not json"), "steps": 1, "size": 100},
    {"packed": block(b"[" * 1000), "steps": 1, "size": 2000},
    {"packed": block(b" " * 5_000_000), "steps": 1, "size": 5_000_000},
    {"packed": block(b"[]"), "steps": 1, "size": 2},
    {"packed": block(b"{}"), "steps": 1, "size": 2},
    {"packed": block(b"[" + b",".join([b"1"] * 21) + b"]"), "steps": 21, "size": 43},
    {"packed": block(ONE), "steps": 1, "size": 2},
    {"packed": block(ONE), "steps": -1, "size": 200},
    {"packed": block(ONE), "steps": 10**30, "size": 200},
    {"packed": ".".join([block(ONE)] * 3), "steps": 2, "size": 10_000},
    {"packed": block(ONE), "steps": True, "size": None},
    {"packed": ["x"], "steps": {}, "size": "1"},
    {},
    5,
]


@pytest.mark.parametrize("kwargs", BROKEN)
@pytest.mark.parametrize("call", [add, fail])
def test_whatever_stands_for_the_rest_the_task_runs(call: Any, kwargs: Any):
    rest = {"task": REST, "kwargs": kwargs, "options": {"queue": ["x"]}}
    for embed in ({"chain": [rest]}, {"chain": [rest, add.s(1).set(task_id="next").to_dict()]}):
        message = Message(id=new_id(), task=call.name, body=encode_body((1, 2), {}, embed))
        outcome = execute(Delivery(message, "r"), HERE)
        assert outcome.state == (states.SUCCESS if call is add else states.FAILURE)
        # What can be read is still ended.
        ended = following(message, revoked(Delivery(message, "r"))).results
        assert [result.id for result in ended][: len(embed["chain"]) - 1] == ["next"][: len(embed["chain"]) - 1]


@pytest.mark.parametrize("kwargs", [each for each in BROKEN if isinstance(each, dict)])
def test_whatever_the_rest_holds_that_comes_as_a_task_it_ends(kwargs: dict[str, Any]):
    message = resume(kwargs)
    assert outcome_of(message).state in {states.FAILURE, states.IGNORED}
    assert following(message, revoked(Delivery(message, "r"))).messages == ()


def test_a_step_that_cannot_be_read_does_not_keep_those_behind_it_from_ending():
    chain_of = [{"task": "x", "options": {"task_id": "last"}}, {"task": "x", "options": {"task_id": []}}, 5]
    outcome = execute(deliver(fail, body=encode_body((), {}, {"chain": chain_of})), HERE)
    assert [result.id for result in outcome.plan.results] == ["last"]


def test_no_more_steps_come_out_than_are_told():
    rest = Rest.found_in({"packed": ".".join([block(ONE)] * 3), "steps": 2, "size": 10_000})
    assert rest is not None
    with pytest.raises(Exception, match="more steps of a chain are packed than should be"):
        list(Tail(rest=rest).every())
