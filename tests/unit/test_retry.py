"""Is a task run again as often, as late and for such errors as it says?"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.retry import BACKOFF_MAX, RetryPolicy

SECONDS = st.floats(min_value=0.001, max_value=1e6)
RETRIES = st.integers(min_value=0, max_value=10**9)


def test_without_backoff_each_wait_is_the_delay() -> None:
    assert [RetryPolicy(delay=7).countdown(retries, random.Random(1)) for retries in (0, 1, 1000)] == [7, 7, 7]


def test_without_jitter_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    policy = RetryPolicy(backoff=3, backoff_max=40, jitter=False)
    assert [policy.countdown(retries, random.Random(1)) for retries in range(6)] == [3, 6, 12, 24, 40, 40]


def test_the_longest_wait_is_ten_minutes_unless_told() -> None:
    assert RetryPolicy(backoff=1, jitter=False).countdown(100, random.Random(1)) == BACKOFF_MAX == 600


@given(SECONDS, SECONDS, RETRIES, st.randoms(use_true_random=False))
def test_jitter_waits_a_random_time_up_to_the_one_computed(
    backoff: float, longest: float, retries: int, rng: random.Random
) -> None:
    wait = RetryPolicy(backoff=backoff, backoff_max=longest).countdown(retries, rng)
    computed = RetryPolicy(backoff=backoff, backoff_max=longest, jitter=False).countdown(retries, rng)
    assert 0 <= wait <= computed <= longest


@given(SECONDS, SECONDS, RETRIES)
def test_waits_never_grow_shorter(backoff: float, longest: float, retries: int) -> None:
    policy, rng = RetryPolicy(backoff=backoff, backoff_max=longest, jitter=False), random.Random(1)
    assert policy.countdown(retries, rng) <= policy.countdown(retries + 1, rng)


def test_tasks_that_failed_together_do_not_come_back_together() -> None:
    policy, rng = RetryPolicy(backoff=60, backoff_max=600), random.Random(1)
    waits = sorted(policy.countdown(2, rng) for _ in range(1000))
    assert [waits[0], waits[500], waits[-1]] == pytest.approx([0, 120, 240], abs=15)
    assert len(set(waits)) == 1000


@given(st.none() | st.integers(0, 1000), RETRIES)
def test_a_task_is_retried_so_often_and_no_more(most: int | None, retries: int) -> None:
    assert RetryPolicy(max_retries=most).exhausted(retries) is (most is not None and retries >= most)


def test_an_error_is_covered_with_its_subclasses_unless_it_is_excepted_with_its_own() -> None:
    policy = RetryPolicy(errors=(OSError, KeyError), except_for=(ConnectionError,))
    covered = {error: policy.covers(error("x")) for error in (OSError, PermissionError, KeyError)}
    assert all(covered.values()), covered
    spared = {error: policy.covers(error("x")) for error in (ConnectionError, ConnectionResetError, ValueError)}
    assert not any(spared.values()), spared


def test_nothing_is_covered_unless_told() -> None:
    assert not RetryPolicy().covers(Exception())
