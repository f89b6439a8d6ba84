"""Does what a task leads to have its priority, where the settings say so?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_tasks import Task, chain, chord, group, signature, task
from tests.canvas_tasks import fail, same, send, told

Configure = Callable[..., None]


@task(bind=True)
def urgency(self: Task[..., Any], *args: Any) -> int:
    """Tell how urgent this call is."""
    told.append(self.request.message.priority)
    return self.request.message.priority


@task(bind=True, priority=2)
def declared(self: Task[..., Any], *args: Any) -> int:
    told.append(self.request.message.priority)
    return self.request.message.priority


@task(bind=True)
def replaced(self: Task[..., Any], form: dict[str, Any]) -> Any:
    self.replace(signature(form))


@pytest.fixture
def inherited(configure: Configure) -> Iterator[None]:
    configure(
        BROKERS={"default": {"BACKEND": "immediate"}},
        QUEUES={"default": {"PRIORITY": 1}},
        INHERIT_PARENT_PRIORITY=True,
    )
    told.clear()
    yield
    told.clear()


@pytest.mark.usefixtures("inherited")
def test_what_a_task_sends_has_its_priority_unless_it_names_one():
    calls = [urgency.s(), urgency.s().set(priority=-3), declared.s(), urgency.s(), urgency.s().set(countdown=0)]
    send.apply_async((calls,), priority=7)
    assert told[:-1] == [7, -3, 2, 7, 7]
    told.clear()
    send.delay([urgency.s()])
    assert told[0] == 1, "what nobody names is the queue's"


@pytest.mark.usefixtures("inherited")
@pytest.mark.parametrize(
    ("following", "expected"),
    [
        (lambda: urgency.s(), [7]),  # noqa: PLW0108  # like the others
        (lambda: chain(urgency.s(), urgency.s()), [7, 7]),
        (lambda: chord([urgency.s(), urgency.s().set(priority=3)], urgency.s()), [7, 3, 7]),
        (lambda: group(declared.s(), group(urgency.s(), urgency.s())), [2, 7, 7]),
        (lambda: chord([same.s()], urgency.s()) | urgency.s(), [7, 7]),
    ],
)
def test_what_follows_a_task_has_its_priority(following: Callable[[], Any], expected: list[int]):
    first = same.s(1).set(priority=7)
    (first | following()).apply_async()
    assert told == expected
    told.clear()
    replaced.apply_async((same.s(1) | following(),), priority=7)
    assert told == expected


@pytest.mark.usefixtures("inherited")
def test_callbacks_and_errbacks_have_its_priority():
    for call in (same.s(1), fail.s()):
        call.link(urgency.s())
        call.link_error(urgency.s())
        call.apply_async(priority=7)
    assert told == [7, 7]


def test_nothing_is_inherited_unless_the_settings_say_so(configure: Configure):
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    told.clear()
    send.apply_async(([urgency.s()],), priority=7)
    (same.s(1).set(priority=7) | urgency.s()).apply_async()
    assert [each for each in told if isinstance(each, int)] == [0, 0]
    told.clear()
