"""Are groups recorded as promised?

    class TestMongo(GroupContract):
        @pytest.fixture
        def groups(self):
            yield MongoGroups(...)

        def elapse(self, groups, seconds):
            ...

The fixture gives each test a place where no group is recorded. Any thread may use it. `elapse` lets time pass there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import ClassVar

import pytest

from django_tasks.failure import Failure
from django_tasks.message import Message, new_group_id, new_id
from django_tasks.plan import NOTHING, Group, Part, Plan
from django_tasks.results.groups import GRACE, Ended, Groups
from django_tasks.testing.contracts.harness import content, together

BROKEN = Failure("ValueError", "builtins", "it broke: \N{PILE OF POO}", '["it broke"]', "", ("a note",))
BODY = Message(
    id=new_id(),
    task="contracts.total",
    body=bytes(range(256)),
    queue="mail",
    priority=7,
    countdown=60.0,
    headers={"tenant": "blue"},
    enqueue="transaction",
)


LIMIT = 60.0
"""Seconds of the time of groups in the suite."""


def group(
    size: int, *, then: Plan = NOTHING, place: tuple[str, int] | None = None, timeout: float | None = None
) -> Group:
    return Group(new_group_id(), size, then, place, None, "root", "parent", timeout)


def part(group: Group, index: int, value: bytes = b"1", failure: Failure | None = None) -> Part:
    return Part((group.id, index), f"task-{index}", None if failure else value, failure)


def parts(group: Group, indexes: Sequence[int] | None = None) -> list[Part]:
    return [part(group, index, b"%d" % index) for index in (range(group.size) if indexes is None else indexes)]


def names(ended: Sequence[Ended]) -> list[str]:
    return [each.group.id for each in ended]


class GroupContract:
    """Everything that `Groups` promises; inherit from it under a name that starts with Test."""

    rounds: ClassVar[int] = 20
    """How often each race is run."""

    @pytest.fixture
    def groups(self) -> Groups:
        raise NotImplementedError("Override the fixture `groups`.")

    def elapse(self, groups: Groups, seconds: float) -> None:
        """Let time pass for groups: turn the clock that was passed in, or move the server's times back."""
        raise NotImplementedError("Override `elapse`.")

    def test_the_last_member_gives_out_the_group_with_what_follows(self, groups: Groups) -> None:
        inner = group(2, place=("outer", 3), timeout=LIMIT)
        first = group(3, then=Plan((BODY,), (inner,)), place=("around", 1))
        groups.open([first, group(1)])
        assert groups.record(parts(first, [2])) == []
        assert groups.record(parts(first, [0])) == []
        [ended] = groups.record(parts(first, [1]))
        assert ended.failed is None
        assert (ended.group.id, ended.group.size, ended.group.place) == (first.id, 3, ("around", 1))
        assert (ended.group.root_id, ended.group.parent_id) == ("root", "parent")
        assert ended.group.then.groups == (inner,)
        [message] = ended.group.then.messages
        assert content(message) | {"eta": None} == content(BODY)
        assert message.countdown == 60.0, "it counts from now on"
        assert groups.values(first.id) == [b"0", b"1", b"2"]

    def test_members_of_several_groups_end_in_one_batch(self, groups: Groups) -> None:
        several = [group(size) for size in (1, 2, 3, 700)]
        groups.open(several)
        batch = [each for one in several for each in parts(one)]
        random.Random(7).shuffle(batch)
        assert sorted(names(groups.record(batch))) == sorted(one.id for one in several)
        assert [len(groups.values(one.id) or []) for one in several] == [1, 2, 3, 700]

    def test_what_is_recorded_twice_counts_once(self, groups: Groups) -> None:
        one = group(3)
        groups.open([one])
        assert groups.record([part(one, 0), part(one, 0), part(one, 1)]) == []
        assert groups.record([part(one, 0, b"7"), part(one, 1, failure=BROKEN)]) == []
        assert groups.progress([one.id])[one.id].done == 2
        assert names(groups.record([part(one, 2)])) == [one.id]
        assert groups.record(parts(one)) == []
        assert groups.values(one.id) == [b"1", b"1", b"1"]

    def test_the_first_failure_gives_the_group_out_and_nothing_does_again(self, groups: Groups) -> None:
        one = group(3)
        groups.open([one])
        [ended] = groups.record([part(one, 1, failure=BROKEN)])
        assert ended.failed is not None
        assert (ended.failed.place, ended.failed.task_id) == ((one.id, 1), "task-1")
        assert ended.failed.failure == BROKEN
        assert groups.record([part(one, 0, failure=BROKEN), part(one, 2)]) == []
        assert groups.values(one.id) is None
        known = groups.progress([one.id])[one.id]
        assert (known.done, known.ready) == (3, True)
        assert known.failed is not None
        assert known.failed.task_id == "task-1"
        assert [each.failure is None for each in groups.parts(one.id)] == [False, False, True]

    def test_parts_that_belong_nowhere_are_dropped(self, groups: Groups) -> None:
        one = group(2)
        groups.open([one])
        stray = group(1)
        assert groups.record([part(stray, 0), part(one, 2), part(one, -1), part(one, 0)]) == []
        assert groups.progress([one.id, stray.id]).keys() == {one.id}
        assert groups.progress([one.id])[one.id].done == 1

    def test_a_group_that_is_opened_again_stays_as_it_is(self, groups: Groups) -> None:
        one = group(1)
        groups.open([one])
        groups.open([one, one])
        assert names(groups.record(parts(one))) == [one.id]
        groups.open([one])
        assert groups.record(parts(one)) == []
        assert groups.progress([one.id])[one.id].done == 1

    def test_a_group_that_never_began_has_ended(self, groups: Groups) -> None:
        one = Group(new_group_id(), 2, failure=BROKEN)
        groups.open([one])
        known = groups.progress([one.id])[one.id]
        assert known.failed is not None
        assert known.failed.failure == BROKEN
        assert known.ended_at is not None
        assert groups.record(parts(one)) == []

    def test_what_was_given_out_and_not_fired_is_given_out_again_after_a_while(self, groups: Groups) -> None:
        if groups.database is not None:
            pytest.skip("Groups are given out when the transaction commits, with what follows them.")
        good, bad, fired, open_one = group(1, then=Plan((BODY,))), group(2, place=("outer", 3)), group(1), group(2)
        groups.open([good, bad, fired, open_one, Group(new_group_id(), 2, failure=BROKEN)])
        failed = part(bad, 1, failure=BROKEN)
        assert len(groups.record([*parts(good), *parts(fired), failed, part(open_one, 0)])) == 3
        groups.fired([fired.id, open_one.id, "unknown"])
        assert groups.unfired() == [], "whoever has been given them is at it"
        self.elapse(groups, GRACE + 1)
        assert groups.unfired(0) == []
        again = {each.group.id: each for each in groups.unfired()}
        assert set(again) == {good.id, bad.id}
        assert again[good.id].failed is None
        assert [content(message)["body"] for message in again[good.id].group.then.messages] == [BODY.body]
        assert again[bad.id].failed == failed
        assert again[bad.id].group.place == ("outer", 3)
        assert all(each.vouched for each in again.values())
        assert groups.unfired() == [], "now another one is at it"
        groups.forget([good.id])
        self.elapse(groups, GRACE + 1)
        assert names(groups.unfired(1)) == [bad.id]
        groups.fired([bad.id])
        self.elapse(groups, GRACE + 1)
        assert groups.unfired() == []

    def test_a_group_whose_time_is_over_ends_with_the_members_that_are_missing(self, groups: Groups) -> None:
        one, longer, endless = group(4, place=("outer", 3), timeout=LIMIT), group(1, timeout=10 * LIMIT), group(1)
        groups.open([one, longer, endless])
        groups.record([part(one, 0), part(one, 2)])
        assert groups.late() == []
        assert groups.give_up([one.id, longer.id, endless.id, "unknown"]) == [], "its time is not over"
        self.elapse(groups, LIMIT + 1)
        assert groups.late(0) == []
        assert groups.late() == [one.id]
        [ended] = groups.give_up([one.id, longer.id, endless.id, "unknown"])
        assert groups.late() == []
        assert groups.give_up([one.id]) == []
        assert (ended.group.id, ended.group.place) == (one.id, ("outer", 3))
        assert ended.failed is not None
        assert (ended.failed.place, ended.failed.task_id) == ((one.id, 1), one.id)
        assert ended.failed.failure is not None
        assert ended.failed.failure.type == "ChordError"
        assert ended.failed.failure.message.startswith("Members 1 and 3 of 4 had not ended")
        known = groups.progress([one.id])[one.id]
        assert (known.done, known.ready, known.over) == (2, False, True)
        assert known.ended_at is not None
        assert known.failed == ended.failed

    def test_members_that_end_when_the_time_is_over_are_recorded_and_give_nothing_out(self, groups: Groups) -> None:
        one = group(2, timeout=LIMIT)
        groups.open([one])
        self.elapse(groups, LIMIT + 1)
        assert names(groups.give_up(groups.late())) == [one.id]
        groups.fired([one.id])
        assert groups.record([part(one, 0, failure=BROKEN)]) == groups.record([part(one, 1)]) == []
        assert [each.failure for each in groups.parts(one.id)] == [BROKEN, None]
        known = groups.progress([one.id])[one.id]
        assert (known.done, known.over) == (2, True)
        assert known.failed is not None
        assert known.failed.task_id == one.id, "it has failed once"
        assert groups.values(one.id) is None
        self.elapse(groups, LIMIT + GRACE)
        assert (groups.late(), groups.unfired()) == ([], [])
        assert groups.forget([one.id]) == 1

    def test_what_has_ended_or_is_forgotten_is_not_late(self, groups: Groups) -> None:
        good, bad, gone = (group(2, timeout=LIMIT) for _ in range(3))
        never = Group(new_group_id(), 2, failure=BROKEN, timeout=LIMIT)
        groups.open([good, bad, gone, never])
        assert len(groups.record([*parts(good), part(bad, 1, failure=BROKEN)])) == 2
        groups.forget([gone.id])
        groups.fired([good.id, bad.id])
        self.elapse(groups, LIMIT + 1)
        assert groups.late() == []
        assert groups.give_up([good.id, bad.id, gone.id, never.id]) == []
        assert groups.values(good.id) == [b"0", b"1"]

    def test_the_time_of_a_group_that_is_opened_again_goes_on(self, groups: Groups) -> None:
        one = group(2, timeout=LIMIT)
        groups.open([one])
        self.elapse(groups, LIMIT / 2)
        groups.open([one])
        self.elapse(groups, LIMIT / 2 + 1)
        assert groups.late() == [one.id]

    def test_the_time_of_a_group_may_be_told_later(self, groups: Groups) -> None:
        if groups.database is not None:
            pytest.skip("It is opened within the transaction that may be undone.")
        one = group(2, timeout=LIMIT)
        groups.open([replace(one, timeout=None)])
        self.elapse(groups, LIMIT)
        groups.open([one])
        assert groups.late() == []
        self.elapse(groups, LIMIT + 1)
        assert groups.late() == [one.id]

    def test_of_many_missing_members_the_first_are_named(self, groups: Groups) -> None:
        several = [group(size, timeout=LIMIT) for size in (1, 1_500)]
        groups.open(several)
        groups.record(parts(several[1], range(1, 1_100)))
        self.elapse(groups, LIMIT + 1)
        ended = {each.group.id: each.failed for each in groups.give_up(groups.late())}
        said = [each.failure.message for one in several if (each := ended[one.id]) is not None and each.failure]
        first, many = said
        assert first.startswith("Member 0 of 1 had not ended")
        named = ", ".join(map(str, [0, *range(1_100, 1_119)]))
        assert many.startswith(f"Members {named} and 381 more of 1,500 had not ended")

    def test_a_group_ends_once_also_if_its_last_member_ends_when_its_time_is_over(self, groups: Groups) -> None:
        for _ in range(self.rounds):
            one = group(2, timeout=LIMIT)
            groups.open([one])
            groups.record([part(one, 0)])
            self.elapse(groups, LIMIT + 1)
            given = together(
                partial(groups.record, [part(one, 1)]),
                partial(groups.give_up, [one.id]),
                partial(groups.give_up, [one.id]),
            )
            [ended] = (each for several in given for each in several)
            assert (groups.values(one.id) is None) == (ended.failed is not None)

    def test_a_saved_text_is_kept(self, groups: Groups) -> None:
        one, unknown = group(2), group(3)
        groups.open([one])
        for each in (one, unknown):
            groups.keep(each.id, each.size, "中文")
        assert [groups.kept(each.id) for each in (one, unknown)] == ["中文"] * 2
        assert groups.kept(new_group_id()) is None
        assert names(groups.record(parts(unknown))) == [unknown.id]

    def test_a_group_grows_by_each_name_once(self, groups: Groups) -> None:
        one, other = group(2, then=Plan((BODY,))), group(1)
        groups.open([one, other])
        assert groups.record([part(one, 0)]) == []
        assert [groups.grow(one.id, name) for name in ("a", "b", "a", "b")] == [2, 3, 2, 3]
        assert groups.grow(other.id, "a") == 1, "names are those of one group"
        groups.open([one])
        assert groups.progress([one.id])[one.id].size == 4
        assert groups.record([part(one, index) for index in (1, 2, 4)]) == []
        [ended] = groups.record([part(one, 3)])
        assert (ended.group.id, ended.group.size, len(ended.group.then.messages)) == (one.id, 4, 1)
        assert groups.values(one.id) == [b"1"] * 4

    def test_a_group_that_has_ended_does_not_grow(self, groups: Groups) -> None:
        one, failed = group(1), group(2)
        groups.open([one, failed])
        assert groups.grow(one.id, "a") == 1
        groups.record([*parts(one, [0, 1]), part(failed, 0, failure=BROKEN)])
        assert [groups.grow(each.id, "b") for each in (one, failed)] == [None, None]
        assert groups.grow(one.id, "a") == 1, "what was added is told again"
        assert groups.grow(new_group_id(), "a") is None
        assert groups.forget([one.id]) == 1
        again = Group(one.id, 5)
        groups.open([again])
        assert groups.grow(one.id, "a") == 5, "nothing is left of what was forgotten"

    def test_a_group_that_grows_and_ends_at_once_does_one_or_the_other(self, groups: Groups) -> None:
        numbers: list[int | None] = []

        def grow(group_id: str) -> list[Ended]:
            numbers.append(groups.grow(group_id, "a"))
            return []

        for _ in range(self.rounds):
            one = group(1)
            groups.open([one])
            ended, _nothing = together(partial(groups.record, parts(one)), partial(grow, one.id))
            assert (numbers[-1], names(ended)) in [(1, []), (None, [one.id])]

    def test_what_is_forgotten_is_gone(self, groups: Groups) -> None:
        several = [group(2) for _ in range(3)]
        groups.open(several)
        groups.record([each for one in several for each in parts(one)])
        assert groups.forget([several[0].id, several[1].id, "unknown"]) == 2
        assert groups.progress([one.id for one in several]).keys() == {several[2].id}
        assert groups.parts(several[0].id) == []
        assert len(groups.parts(several[2].id)) == 2

    def test_groups_expire_after_they_ended(self, groups: Groups) -> None:
        over, open_one = group(1), group(1)
        groups.open([over, open_one])
        groups.record(parts(over))
        now = datetime.now(UTC)
        if groups.database is None:
            assert groups.expire(now + timedelta(hours=1)) == 0, "what follows it is yet to be sent"
        groups.fired([over.id])
        assert groups.expire(now - timedelta(hours=1)) == 0
        assert groups.expire(now + timedelta(hours=1), 0) == 0
        assert groups.expire(now + timedelta(hours=1)) == 1
        assert groups.progress([over.id, open_one.id]).keys() == {open_one.id}

    def test_of_many_that_end_the_last_members_at_once_one_is_given_the_group(self, groups: Groups) -> None:
        for number in range(self.rounds):
            one, other = group(8), group(8)
            groups.open([one, other])
            batches = [[part(one, index), part(other, index)] for index in range(8)]
            random.Random(number).shuffle(batches)
            # Each batch is recorded twice, as after a crash.
            given = together(*(partial(groups.record, batch) for batch in [*batches[:4], *batches[:4]]))
            assert not any(given)
            given = together(*(partial(groups.record, batch) for batch in [*batches[4:], *batches[4:]]))
            assert sorted(name for ended in given for name in names(ended)) == sorted([one.id, other.id])
