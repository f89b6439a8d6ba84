"""Does a worker have at hand what it needs for a moment, and no more?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.worker.lookahead import HORIZON, LookAhead

SECONDS = st.floats(min_value=0, max_value=1e6)
SLOTS = st.integers(min_value=1, max_value=1000)
LIMIT = st.integers(min_value=0, max_value=10_000)


def measured(*runtimes: float, limit: int = 500) -> LookAhead:
    found = LookAhead(limit)
    for runtime in runtimes:
        found.observe(runtime)
    return found


def test_before_anything_was_measured_nothing_is_taken_ahead() -> None:
    assert LookAhead(500).size(8) == 0


@pytest.mark.parametrize(("runtime", "size"), [(0.0001, 500), (0.001, 200), (0.01, 20), (0.1, 2), (0.3, 0), (10, 0)])
def test_short_tasks_are_taken_by_the_hundred_and_long_ones_not_at_all(runtime: float, size: int) -> None:
    assert measured(runtime).size(2) == size


def test_it_adapts_when_tasks_turn_out_longer_or_shorter() -> None:
    assert measured(*[0.001] * 50, *[1.0] * 3).size(2) == 0
    assert measured(*[1.0] * 10, *[0.001] * 60).size(2) > 100


def test_one_long_task_among_short_ones_does_not_stop_it_for_long() -> None:
    assert measured(*[0.001] * 50, 0.5, *[0.001] * 30).size(2) > 100


def test_what_was_thought_short_and_is_not_is_forgotten() -> None:
    found = measured(0.001)
    found.forget()
    assert found.size(2) == 0
    found.observe(0.01)
    assert found.size(2) == 20


@given(st.lists(SECONDS, min_size=1), SLOTS, LIMIT)
def test_it_lies_between_none_and_the_limit(runtimes: list[float], slots: int, limit: int) -> None:
    assert 0 <= measured(*runtimes, limit=limit).size(slots) <= limit


@given(SECONDS, SLOTS)
def test_what_is_taken_ahead_is_done_within_the_horizon(runtime: float, slots: int) -> None:
    assert measured(runtime).size(slots) * runtime / slots <= HORIZON * 1.001


@given(SECONDS, SECONDS, SLOTS)
def test_the_longer_tasks_run_the_less_is_taken(one: float, other: float, slots: int) -> None:
    shorter, longer = sorted([one, other])
    assert measured(shorter).size(slots) >= measured(longer).size(slots)
