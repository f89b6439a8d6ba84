"""Is a call that is sent from its task's outline the message that it would have been without?"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from django_tasks import task
from django_tasks.canvas.calls import ORPHAN, plainly, seal
from django_tasks.canvas.signature import Signature
from django_tasks.context import Request, answering
from django_tasks.exceptions import ConfigurationError, NotRegistered, SerializationError
from django_tasks.message import FIELDS, Message
from django_tasks.outline import outline_of
from django_tasks.registry import tasks

pytestmark = pytest.mark.usefixtures("configure")
Configure = Callable[..., None]


@task(name="outline.plain")
def plain(x: Any = 0, *rest: Any, **named: Any) -> None:
    pass


@task(name="outline.secret")
def secret(user: str, password: str) -> None:
    pass


@task(name="outline.declared", queue="slow", priority=-7, ignore_result=True, serializer="json", enqueue="immediate")
def declared() -> None:
    pass


@task(name="outline.expiring", expires=datetime(2090, 1, 1, tzinfo=UTC))
def expiring() -> None:
    pass


@task(name="outline.compressed", compression="gzip")
def compressed() -> None:
    pass


def content(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in FIELDS if name != "id"}


def by_itself(signature: Signature) -> Message:
    """Return the message of a call that says an option, and nothing by it."""
    return seal(signature.clone(shadow=None))


CALLS = [
    plain.s(),
    plain.s(1, "zwei", None, [3.5, {"vier": True}], fünf="5", token="hidden"),
    plain.s("x" * 2_000),
    secret.s("ada", "hunter2"),
    secret.s(user="ada", password="hunter2"),
    declared.s(),
    expiring.s(),
    compressed.s(),
    Signature("outline.elsewhere", (1,), {"two": 2}),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.task}-{len(call.args)}-{len(call.kwargs)}")
def test_it_makes_no_difference_to_the_message(call: Signature) -> None:
    member = call.clone(group_id="the-group", group_index=7)
    for _ in range(2):
        assert content(seal(call)) == content(by_itself(call))
        assert content(seal(member)) == content(by_itself(member))
        plain_message = plainly(call, ORPHAN)
        if plain_message is not None:
            assert content(plain_message) == content(by_itself(call))


def test_what_says_more_than_its_arguments_is_no_plain_call() -> None:
    assert plainly(plain.s(1), ORPHAN) is not None
    for call in (plain.s(1).set(priority=3), plain.s(1).set(task_id="mine"), compressed.s(), expiring.s()):
        assert plainly(call, ORPHAN) is None


@pytest.mark.parametrize("place", [("the-group", "7"), ("the-group", -1), (7, 7), ("the-group", None)])
def test_what_is_no_place_in_a_group_is_looked_at_as_any_option(place: tuple[Any, Any]) -> None:
    group_id, index = place
    call = plain.s().set(group_id=group_id, group_index=index)
    try:
        expected = content(by_itself(call))
    except (TypeError, ValueError) as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            seal(call)
    else:
        assert content(seal(call)) == expected


@pytest.mark.parametrize(
    "keys",
    [
        {"ROUTES": {"outline.*": {"queue": "routed", "priority": 3}}},
        {"ROUTES": [{"outline.plain": "exact"}, {re.compile("outline"): "pattern"}]},
        {"QUEUES": {"slow": {"PRIORITY": 9}, "default": {"PRIORITY": 4}}, "DEFAULT_QUEUE": "slow"},
        {"COMPRESSION": "gzip"},
        {"SERIALIZER": "yaml", "ACCEPT": ["yaml", "json"]},
        {"IGNORE_RESULT": True},
    ],
    ids="-".join,
)
def test_it_follows_the_settings_in_force(configure: Configure, keys: Mapping[str, Any]) -> None:
    for call in (plain.s(1), declared.s()):
        before = seal(call)
        configure(**keys)
        assert content(seal(call)) == content(by_itself(call))
        configure()
        assert content(seal(call)) == content(before)


def test_a_route_that_looks_at_the_arguments_is_asked_each_time(configure: Configure) -> None:
    def by_size(name: str, args: Sequence[Any], kwargs: Any, options: Any, task: Any = None) -> str:
        return f"size-{args[0]}"

    configure(ROUTES=[{"other": "one"}, by_size])
    assert [seal(plain.s(size)).queue for size in (1, 2, 1)] == ["size-1", "size-2", "size-1"]


def test_a_task_that_is_declared_anew_has_a_new_outline() -> None:
    def again() -> None:
        pass

    queues = []
    for queue in ("one", "two"):
        task(name="outline.again", queue=queue)(again)
        queues.append(seal(Signature("outline.again")).queue)
    del tasks["outline.again"]
    assert queues == ["one", "two"]
    assert seal(Signature("outline.again")).queue == "default"


def test_a_call_inside_of_a_task_knows_where_it_came_from() -> None:
    running = Message(id="the-parent", task="outline.plain", body=b"", root_id="the-root")
    with answering(Request(message=running)):
        inside = seal(plain.s())
    assert (inside.root_id, inside.parent_id) == ("the-root", "the-parent")
    outside = seal(plain.s())
    assert (outside.root_id, outside.parent_id) == (None, None)


def test_no_two_messages_share_what_may_be_changed() -> None:
    one, two = seal(plain.s()), seal(plain.s())
    assert one.id != two.id
    assert one.headers == two.headers == {}
    assert one.headers is not two.headers


def test_the_settings_and_the_task_are_looked_at_once(configure: Configure) -> None:
    assert outline_of("outline.plain") is outline_of("outline.plain")
    before = outline_of("outline.plain")
    configure()
    assert outline_of("outline.plain") is not before


@pytest.mark.parametrize("name", ["outline.expiring", "outline.compressed", "outline.elsewhere", "", "a\nb"])
def test_a_task_whose_messages_differ_has_none(name: str) -> None:
    assert outline_of(name) is None


def test_what_cannot_be_sent_is_told_as_without(configure: Configure) -> None:
    with pytest.raises(SerializationError, match=r"args\[0\]"):
        seal(plain.s(object()))
    with pytest.raises(NotRegistered):
        seal(Signature("a\nb"))
    configure(ACCEPT=["yaml"], SERIALIZER="yaml")
    with pytest.raises(ConfigurationError, match="ACCEPT"):
        seal(declared.s())


FORK = """
import os
from django_tasks.outline import origin

print(origin().startswith(f"gen{os.getpid()}@"), flush=True)
if os.fork() == 0:
    print(origin().startswith(f"gen{os.getpid()}@"), flush=True)
    os._exit(0)
os.wait()
"""


def test_a_forked_process_says_that_it_is_another() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == ["True", "True"]
