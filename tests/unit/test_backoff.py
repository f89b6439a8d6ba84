"""Is a server that comes back found at once, and one that stays away left alone?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks.worker.backoff import LONGEST, SHARE, SHORTEST, Backoff
from tests.clocks import TurnedClock

DOWN = ConnectionRefusedError("nobody answers")
HOUR = 3600.0


def tries(seed: int, *, costs: float = 0.001) -> Iterator[float]:
    """Give the seconds since the first failure at which a server that stays away is tried, without end."""
    clock = TurnedClock()
    began = clock()
    backoff = Backoff(clock, random.Random(seed))
    while True:
        yield clock() - began
        backoff.failed(DOWN)
        clock.turn(backoff.left + costs)


def until(seconds: float, seed: int = 1) -> list[float]:
    return list(takewhile(lambda at: at <= seconds, tries(seed)))


@given(st.floats(0, 2 * HOUR), st.integers(0, 1000))
def test_an_outage_seems_a_twentieth_longer_at_most(lasted: float, seed: int) -> None:
    found = next(at for at in tries(seed) if at >= lasted)
    assert found - lasted <= min(LONGEST, max(SHORTEST, SHARE * lasted)) + 0.01


def test_a_restart_of_half_a_minute_is_noticed_within_two_seconds() -> None:
    pauses = [later - earlier for earlier, later in pairwise(until(30.0))]
    assert max(pauses) < 1.6


def test_an_outage_of_hours_costs_a_few_tries_a_minute() -> None:
    tried = until(8 * HOUR)
    assert len([at for at in tried if at <= 60]) < 120
    assert len([at for at in tried if at > 8 * HOUR - 600]) <= 10 * 60 / (LONGEST / 2)


def test_two_hundred_workers_that_lost_one_server_do_not_come_back_to_it_together() -> None:
    """They are as many in each tenth of the time in which all come back, give or take."""
    lasted = 10.0
    back = [next(at for at in tries(seed) if at >= lasted) - lasted for seed in range(200)]
    window = SHARE * lasted
    tenths = [sum(window * n / 10 <= at < window * (n + 1) / 10 for at in back) for n in range(10)]
    assert max(back) <= window * 1.1
    assert max(tenths) <= 50


def test_a_server_that_answered_is_tried_anew_without_a_pause() -> None:
    clock = TurnedClock()
    backoff = Backoff(clock, random.Random(1))
    backoff.failed(DOWN)
    clock.turn(HOUR)
    backoff.failed(DOWN)
    assert backoff.left >= LONGEST / 2
    backoff.answered()
    assert backoff.left == 0
    backoff.failed(DOWN)
    assert 0 < backoff.left <= SHORTEST


def test_who_is_in_a_hurry_waits_for_nothing() -> None:
    backoff = Backoff(TurnedClock())
    backoff.failed(DOWN)
    backoff.hurry()
    assert backoff.left == 0


def test_the_log_has_a_line_at_once_and_then_fewer_and_fewer(caplog: pytest.LogCaptureFixture) -> None:
    clock = TurnedClock()
    began = clock()
    backoff = Backoff(clock, random.Random(1))
    said = []
    while clock() - began < 8 * HOUR:
        backoff.failed(DOWN)
        if caplog.records:
            said.append(clock() - began)
            caplog.clear()
        clock.turn(backoff.left + 0.001)
    assert said[0] == 0
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(said))
    assert len([at for at in said if at <= 60]) <= 8
    # Whoever looks into the log during an outage sees it there.
    assert all(later - earlier <= 60.0 + LONGEST for earlier, later in pairwise(said))


def test_what_fails_and_answers_by_turns_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = TurnedClock()
    backoff = Backoff(clock, random.Random(1))
    for _ in range(100):
        backoff.failed(DOWN)
        backoff.answered()
        clock.turn(0.1)
    assert len(caplog.records) <= 10
