"""Does a chord wait for what its members add to it, however often they run?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_tasks import GroupResult, Signature, chain, chord, group
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import groups_of
from django_tasks.exceptions import ChordError
from django_tasks.execution import Site, execute
from tests.canvas_tasks import add, fail, grow, same, told, tsum

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    told.clear()
    yield
    told.clear()


# What is sent by its own delay goes to the brokers of the site.
@pytest.mark.parametrize(("way", "lazy"), [("apply", False), ("apply_async", False), ("apply_async", True)])
@pytest.mark.parametrize(
    ("added", "values"),
    [
        ([same.s(1), same.s(2)], [1, 2]),
        ([chain(same.s(1), add.s(1))], [2]),
        ([group(same.s(1), same.s(2))], [[1, 2]]),
        ([chord([same.s(1), same.s(2)], tsum.s())], [3]),
        ([grow.s([same.s(7)])], ["grown", 7]),
        ([], []),
    ],
)
def test_a_body_gets_the_values_of_what_was_added_after_the_others(
    configure: Configure, added: list[Signature], values: list[Any], way: str, lazy: bool
):
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    whole = chord([grow.s([each.to_dict() for each in added], lazy=lazy), same.s(9)], same.s())
    result = getattr(whole, way)()
    assert result.get() == ["grown", 9, *values]


def test_what_a_run_repeats_is_added_once(queue: MemoryBroker):
    header = chord([grow.s([same.s(1), same.s(2)]), same.s(9)], same.s()).apply_async().parent
    [delivery] = queue.fetch(["default"], 1, lease=30, consumer="w")
    for _ in range(3):
        assert execute(delivery, Site(eager=True)).state == "SUCCESS"
    assert told[:2] * 3 == told
    known = groups_of().progress([header.id])[header.id]
    assert (known.size, known.done) == (4, 0)
    again = GroupResult.restore(header.id)
    assert again is not None
    assert [each.id for each in again][2:] == told[:2]


def test_a_failed_member_that_was_added_fails_the_body(configure: Configure):
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    result = chord([grow.s([fail.s()]), same.s(9)], same.s()).apply_async()
    with pytest.raises(ChordError, match="on purpose"):
        result.get()


def test_what_was_added_is_a_child(configure: Configure):
    configure(BROKERS={"default": {"BACKEND": "immediate"}})
    header = chord([grow.s([same.s(1)])], same.s()).apply_async().parent
    assert [child.get() for child in header[0].children] == [1]


def test_nothing_is_added_where_there_is_no_group(configure: Configure, queue: MemoryBroker):
    with pytest.raises(ValueError, match="not a member of a chord"):
        grow.apply(([same.s(1)],)).get()
    with pytest.raises(ValueError, match="not a member of a chord"):
        grow.add_to_chord(same.s(1))
    with pytest.raises(ValueError, match="nothing in what is to be added"):
        group(grow.s([group([]).to_dict()])).apply()[0].get()
    header = group(grow.s([same.s(1)]), same.s(9)).apply_async()
    groups_of().forget([header.id])
    [delivery] = queue.fetch(["default"], 1, lease=30, consumer="w")
    failure = execute(delivery, Site(eager=True)).failure
    assert failure is not None
    assert "it has ended, or is not kept any more" in failure.message
