"""Is the worker's loop woken by every ring, wherever it comes from?"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from django_tasks.worker.bell import Bell


@pytest.fixture
def bell() -> Iterator[Bell]:
    found = Bell()
    yield found
    found.close()


def test_nobody_rang(bell: Bell) -> None:
    assert (bell.wait(0), bell.wait(-5)) == (False, False)


def test_a_ring_before_the_wait_is_heard_by_it_once(bell: Bell) -> None:
    for _ in range(3):
        bell.ring()
    assert (bell.wait(30), bell.wait(0)) == (True, False)


def test_a_ring_wakes_who_waits(bell: Bell) -> None:
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(bell.wait, 30)
        bell.ring()
        assert waiting.result(30) is True


@pytest.fixture
def restless() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_thousands_of_rings_from_many_threads_and_none_is_lost(bell: Bell) -> None:
    """Whoever rings has left something before; when all is quiet, nothing may lie there that nobody came for."""
    left: list[int] = []
    each, many = 20_000, 4
    seen = wakes = 0
    over = False

    def leave_and_ring() -> None:
        for number in range(each):
            left.append(number)
            bell.ring()
            # The next one rings a quiet bell again, or one that is just being answered.
            while seen < len(left) - many + 1 and not over:
                os.sched_yield()

    threads = [threading.Thread(target=leave_and_ring, daemon=True) for _ in range(many)]
    for thread in threads:
        thread.start()
    try:
        while seen < each * many:
            assert bell.wait(10), f"{len(left) - seen} were left, and nobody rang"
            wakes += 1
            seen = len(left)
    finally:
        over = True
    for thread in threads:
        thread.join()
    assert wakes > each


@pytest.mark.usefixtures("own_signals", "restless")
def test_a_signal_handler_may_ring_at_any_moment(bell: Bell) -> None:
    handled: list[int] = []
    came = threading.Event()
    many = 2_000

    def handle(number: int, frame: object) -> None:
        handled.append(number)
        bell.ring()
        came.set()

    def strike() -> None:
        for _ in range(many):
            came.clear()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert came.wait(30)

    signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=strike)
    thread.start()
    seen = 0
    while seen < many:
        assert bell.wait(30), f"{len(handled) - seen} signals came, and nobody rang"
        seen = len(handled)
        # The handler strikes here as well, in the middle of a ring of this very thread.
        bell.ring()
    thread.join()
    assert seen == many


def test_a_bell_that_is_closed_leaves_no_file_open() -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(10):
        Bell().close()
    assert len(list(Path("/dev/fd").iterdir())) == before
