"""Does each call of a workflow carry its stamps, wherever it goes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from django_tasks import Signature, StampingVisitor, Task, chain, chord, group, signature, task
from django_tasks.canvas.signature import Signature as Node
from django_tasks.exceptions import SerializationError, SignatureError
from django_tasks.message import STAMPS, Message
from django_tasks.protocol import dump_message, load_message
from django_tasks.signing import signed, verify
from django_tasks.wire import from_wire, to_wire
from tests.canvas_tasks import become, fail, same, stamped, told, tsum

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def eager(configure: Callable[..., None]) -> Iterator[None]:
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    told.clear()
    yield
    told.clear()


@task(bind=True)
def insist(self: Task[..., Any]) -> Any:
    """Fail once; then tell the stamps."""
    if self.request.retries == 0:
        raise self.retry(countdown=0, headers={"tenant": "x"})
    return [self.request.stamps, self.request.stamped_headers, self.request.headers["tenant"]]


class Everything(StampingVisitor):
    """Tells what it meets, and stamps all of it."""

    def __init__(self) -> None:
        self.met: list[str] = []

    def on_signature(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        self.met.append(sig.task.rpartition(".")[2])
        return {"number": len(self.met), "priority": 7, "stamped_headers": ["number"]}

    def on_chain_start(self, chain: Any, **headers: Any) -> Mapping[str, Any]:
        self.met.append("chain")
        return {"in_chain": True}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:
        self.met.append("/chain")

    def on_group_start(self, group: Any, **headers: Any) -> Mapping[str, Any]:
        self.met.append(f"group {len(group.tasks)}")
        return {"in_group": True}

    def on_group_end(self, group: Any, **headers: Any) -> None:
        self.met.append("/group")

    def on_chord_body(self, sig: Any, **headers: Any) -> Mapping[str, Any]:
        self.met.append("body")
        return {"in_body": True}

    def on_callback(self, callback: Any, **headers: Any) -> Mapping[str, Any]:
        self.met.append("callback")
        return {"called_back": True}

    def on_errback(self, errback: Any, **headers: Any) -> Mapping[str, Any]:
        self.met.append("errback")
        return {"in_error": True}


def stamps(node: Signature) -> Any:
    return node.options.get("stamps")


def test_a_call_tells_its_stamps():
    call = stamped.s().stamp(tenant="blue", order=7)
    assert call.apply_async().get() == {"tenant": "blue", "order": 7}
    assert stamped.s().apply_async().get() == {}
    assert stamped.apply_async(stamps={"tenant": "blue"}).get() == {"tenant": "blue"}
    assert stamped.signature(stamped_headers=["tenant"], tenant="red").delay().get() == {"tenant": "red"}  # type: ignore[call-arg]  # as Celery has it


def test_its_form_is_celerys_and_reads_back():
    call = stamped.s().stamp(tenant="blue").set(priority=3)
    form = call.to_dict()["options"]
    assert form == {"tenant": "blue", "stamped_headers": ["tenant"], "priority": 3}
    assert signature(call.to_dict()) == call
    assert signature(call.to_dict()).delay().get() == {"tenant": "blue"}


def test_a_visitor_sees_every_part_and_says_what_each_is_stamped_with():
    step = same.s(1)
    step.link(same.s())
    step.link_error(same.s())
    whole: Any = chain(step, chord([same.s(2), same.s(3)], tsum.s()))
    visitor = Everything()
    assert whole.stamp(visitor, tenant="blue") is whole
    assert visitor.met == [
        *["chain", "callback", "same", "errback", "same", "same"],
        *["group 2", "same", "same", "/group", "body", "tsum", "/chain"],
    ]
    first, second = whole.tasks
    outer = {"tenant": "blue", "in_chain": True}
    assert stamps(first) == {**outer, "number": 6}
    assert first.options["priority"] == 7, "what is no stamp is an option"
    assert stamps(first.options["link"][0]) == {**outer, "called_back": True, "number": 3}
    assert stamps(first.options["link_error"][0]) == {**outer, "in_error": True, "number": 5}
    assert stamps(second.tasks[0]) == {**outer, "in_group": True, "number": 8}
    assert stamps(second.body) == {**outer, "in_group": True, "in_body": True, "number": 12}


def test_a_group_is_stamped_member_by_member():
    visitor = Everything()
    several = group(stamped.s(), stamped.s()).stamp(visitor)
    assert visitor.met == ["group 2", "stamped", "stamped", "/group"]
    assert several.apply_async().get() == [{"in_group": True, "number": 2}, {"in_group": True, "number": 3}]


def test_a_later_stamp_replaces_or_is_appended():
    call = stamped.s().stamp(tenant="blue", kept=1).stamp(tenant="red")
    assert stamps(call) == {"tenant": "red", "kept": 1}
    assert stamps(call.stamp(append_stamps=True, tenant="green")) == {"tenant": ["green", "red"], "kept": 1}
    assert stamps(call.stamp(append_stamps=True, tenant={"a": 1})) == {"tenant": [{"a": 1}, "green", "red"], "kept": 1}


def test_stamps_may_be_listed_beside_options():
    call = stamped.s().stamp(stamped_headers=["tenant"], tenant="blue", shadow="a name")
    assert (stamps(call), call.options["shadow"]) == ({"tenant": "blue"}, "a name")
    assert stamps(stamped.s().stamp(stamped_headers=None, tenant="blue")) == {"tenant": "blue"}
    assert "stamps" not in stamped.s().stamp().options


def test_links_are_stamped_alone():
    call = same.s(1)
    call.link(same.s())
    call.stamp_links(tenant="blue")
    assert (stamps(call), stamps(call.options["link"][0])) == (None, {"tenant": "blue"})


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: chain(same.s(1), stamped.si()), {"tenant": "blue"}),
        (lambda: chord([stamped.s(), chain(same.s(1), stamped.si())], same.s()), [{"tenant": "blue"}] * 2),
        (lambda: chord([same.s(1)], stamped.si()), {"tenant": "blue"}),
        (lambda: become.s(stamped.s().to_dict()), {"tenant": "blue"}),
        (lambda: become.s(chain(same.s(1), stamped.si()).to_dict()), {"tenant": "blue"}),
        (lambda: become.s(stamped.s().stamp(tenant="own", more=1).to_dict()), {"tenant": "own", "more": 1}),
        (insist.s, [{"tenant": "blue"}, ["tenant"], "x"]),
    ],
)  # fmt: skip
def test_stamps_stay_on_the_way(make: Callable[[], Node], value: Any):
    assert make().stamp(tenant="blue").apply_async().get() == value
    assert signature(make().stamp(tenant="blue").to_dict()).apply_async().get() == value


def test_callbacks_and_errbacks_are_stamped():
    good, bad = same.s(1), fail.s()
    good.link(stamped.si())
    bad.link_error(stamped.si())
    for call in (good, bad):
        call.stamp(tenant="blue").apply_async()
    assert told == [{"tenant": "blue"}] * 2


def test_options_of_a_whole_may_be_stamps():
    whole = chain(same.s(1), stamped.si().stamp(own=1)).set(stamps={"tenant": "blue", "own": 2})
    assert whole.apply_async().get() == {"tenant": "blue", "own": 1}


def test_what_cannot_be_a_stamp_is_refused():
    with pytest.raises(ValueError, match="cannot be named 'priority'"):
        same.s(1).stamp(priority=3)
    with pytest.raises(TypeError, match="stamped_headers is a list"):
        same.s(1).set(stamped_headers="tenant")
    with pytest.raises(TypeError, match="names of stamps are texts"):
        same.apply_async((1,), stamps={7: 1})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="stamps is a dictionary"):
        same.apply_async((1,), stamps="blue")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"at most {STAMPS} stamps"):
        same.s(1).stamp(tenants=list(range(STAMPS + 1))).apply_async()
    with pytest.raises(SerializationError):
        dump_message(Message(id="7", task="t", body=b"", headers={"stamped_headers": ["x"], "stamps": {"x": object()}}))


STAMPED = Message(
    id="7", task="t", body=b"[]", headers={"stamped_headers": ["tenant"], "stamps": {"tenant": ["blue", 7]}}
)


def test_a_message_tells_its_stamps_after_any_way():
    for way in (STAMPED, load_message(dump_message(STAMPED)), from_wire(to_wire(STAMPED), "default")):
        assert way.stamps == {"tenant": ["blue", 7]}
    wire = to_wire(STAMPED)
    assert (wire.headers["stamped_headers"], wire.headers["stamps"]) == (["tenant"], {"tenant": ["blue", 7]})


@pytest.mark.parametrize(
    "headers",
    [
        {"stamped_headers": "tenant", "stamps": {"tenant": 1}},
        {"stamped_headers": ["tenant"], "stamps": ["tenant"]},
        {"stamped_headers": [["tenant"], 7, None], "stamps": {"tenant": 1}},
        {"stamped_headers": ["tenant"]},
        {"stamps": {"tenant": 1}},
    ],
)
def test_whatever_a_message_says_of_stamps_is_read(headers: dict[str, Any]):
    assert Message(id="7", task="t", body=b"", headers=headers).stamps == {}


def test_stamps_are_signed(configure: Callable[..., None]):
    configure(SIGN=True)
    sealed = signed(STAMPED)
    verify(sealed)
    for headers in ({}, {**STAMPED.headers, "stamps": {"tenant": "red"}}):
        with pytest.raises(SignatureError):
            verify(replace(sealed, headers=headers))
