"""Does a worker know what it holds, and since when?"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from django_tasks.message import Delivery, Message
from django_tasks.settlement import ACKED
from django_tasks.worker.holdings import Holdings


def lease(task_id: str, receipt: object = 1) -> Delivery:
    return Delivery(Message(id=task_id, task="t", body=b""), receipt)


def test_what_is_added_is_held_until_it_is_removed() -> None:
    held, one, other = Holdings(), lease("1"), lease("2")
    held.add([one, other], 0.0)
    assert (one in held, lease("3") in held, len(held)) == (True, False, 2)
    held.remove([one, lease("3")])
    assert (one in held, other in held, len(held)) == (False, True, 1)


def test_a_lease_is_told_from_an_older_one_of_the_same_task() -> None:
    held, old, new = Holdings(), lease("1", 1), lease("1", 2)
    held.add([old], 0.0)
    held.add([new], 5.0)
    assert (old in held, new in held, len(held)) == (False, True, 1)
    held.remove([old])
    held.renew([old], 9.0)
    assert held.due(6.0) == [new]


def test_those_not_renewed_since_a_time_are_due() -> None:
    held, early, late = Holdings(), lease("1"), lease("2")
    held.add([early], 10.0)
    held.add([late], 20.0)
    assert held.due(10.0) == []
    assert held.due(15.0) == [early]
    held.renew([early], 20.0)
    assert held.due(15.0) == []
    assert held.due(25.0) == held.leased() == [early, late]


def test_what_was_acknowledged_early_has_no_lease_to_renew() -> None:
    held, early = Holdings(), lease("1", ACKED)
    held.add([early, lease("2")], 0.0)
    assert early in held
    assert [delivery.message.id for delivery in held.leased()] == ["2"]


def test_the_loop_and_the_heart_may_use_it_at_once() -> None:
    held, over = Holdings(), threading.Event()

    def beat() -> int:
        beats = 0
        while not over.is_set():
            held.renew(held.due(float("inf")), 1.0)
            beats += 1
        return beats

    with ThreadPoolExecutor(1) as executor:
        heart = executor.submit(beat)
        for number in range(3_000):
            several = [lease(f"{number}-{each}") for each in range(5)]
            held.add(several, 0.0)
            held.remove(several)
        over.set()
        assert heart.result(30) > 0
    assert len(held) == 0
