"""What does a process keep of the results that came to it?"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from threading import Thread

import pytest

from django_tasks import states
from django_tasks.exceptions import StoreUnavailable
from django_tasks.plan import Result
from django_tasks.results.arrived import Arrived


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def done(task_id: str) -> Result:
    return Result(id=task_id, state=states.SUCCESS, value=b"1")


def test_of_more_than_it_keeps_the_oldest_go():
    arrived = Arrived(2, None, Clock())
    running = replace(done("a"), state="PROGRESS")
    arrived.add([running, done("b")])
    # What is heard of again is no longer the oldest.
    arrived.add([replace(running, value=b"2")])
    arrived.add([done("c")])
    assert set(arrived.get(["a", "b", "c"])) == {"a", "c"}


def test_what_came_too_long_ago_goes():
    clock = Clock()
    arrived = Arrived(10, timedelta(seconds=60), clock)
    arrived.add([done("a")])
    clock.now += 30
    arrived.add([done("b")])
    clock.now += 30
    assert set(arrived.get(["a", "b"])) == {"b"}
    assert arrived.wait(["a"], 0, arrived.losses) == {}


def test_what_is_kept_for_ever_does_not_go():
    clock = Clock()
    arrived = Arrived(10, None, clock)
    arrived.add([done("a")])
    clock.now += 1e9
    assert set(arrived.get(["a"])) == {"a"}


def test_who_waits_is_told_of_a_loss_unless_what_they_wait_for_has_come():
    arrived = Arrived(10, None, Clock())
    seen = arrived.losses
    Thread(target=arrived.lose, args=("it broke",)).start()
    with pytest.raises(StoreUnavailable, match="it broke"):
        arrived.wait(["a"], None, seen)
    arrived.add([done("a")])
    assert set(arrived.wait(["a"], None, seen)) == {"a"}
