"""Do strikes reach the function they are meant for, and nothing else?"""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from django_tasks.exceptions import SoftTimeLimitExceeded, TaskRevoked
from django_tasks.interrupt import Interruptible, here

ROUNDS = 20_000
STRIKES = 300


class InThread:
    """A gate in a thread of its own, which runs the functions that it is given."""

    def __init__(self) -> None:
        self.gate: Interruptible | None = None
        self.thread: threading.Thread | None = None

    def start(self, body) -> Interruptible:
        ready = threading.Event()

        def run() -> None:
            self.gate = here()
            ready.set()
            body(self.gate)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        assert ready.wait(10)
        assert self.gate is not None
        return self.gate

    def join(self) -> None:
        assert self.thread is not None
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def alarms() -> Iterator[None]:
    """Lend the test the alarm timer; afterwards it is again whose it was."""
    handler, timer = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.fixture
def restless() -> Iterator[None]:
    """Have threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def spin_until(event: threading.Event) -> None:
    while not event.is_set():
        pass


def test_a_call_returns_and_raises_what_the_function_does():
    gate = Interruptible()
    assert gate.call("a", lambda x, *, y: x + y, (1,), {"y": 2}) == 3
    with pytest.raises(ZeroDivisionError):
        gate.call("a", lambda: 1 / 0, (), {})
    assert not gate.struck


def test_each_thread_has_one_gate():
    assert here() is here()
    other = InThread()
    gate = other.start(lambda gate: None)
    other.join()
    assert gate is not here()


def test_a_shut_gate_refuses_strikes():
    gate = Interruptible()
    assert not gate.strike("a", SoftTimeLimitExceeded)
    gate.call("a", lambda: None, (), {})
    assert not gate.strike("a", SoftTimeLimitExceeded)
    assert not gate.strike(None, SoftTimeLimitExceeded)


def test_another_thread_strikes_a_function_that_runs():
    began = threading.Event()
    caught: list[object] = []

    def body(gate: Interruptible) -> None:
        def work() -> None:
            began.set()
            spin_until(threading.Event())

        try:
            gate.call("a", work, (), {})
        except SoftTimeLimitExceeded as error:
            caught.append(error)
        caught.append(gate.struck)

    other = InThread()
    gate = other.start(body)
    assert began.wait(10)
    assert not gate.strike("b", SoftTimeLimitExceeded)
    assert gate.strike("a", SoftTimeLimitExceeded)
    other.join()
    assert [type(each) for each in caught] == [SoftTimeLimitExceeded, bool]
    assert caught[1] is True


def test_a_function_is_struck_once_for_each_reason():
    began, cleaning, seen = threading.Event(), threading.Event(), []

    def body(gate: Interruptible) -> None:
        def work() -> None:
            try:
                began.set()
                spin_until(threading.Event())
            except SoftTimeLimitExceeded:
                seen.append("soft")
                cleaning.set()
                spin_until(threading.Event())

        try:
            gate.call("a", work, (), {})
        except TaskRevoked:
            seen.append("revoked")

    other = InThread()
    gate = other.start(body)
    assert began.wait(10)
    assert gate.strike("a", SoftTimeLimitExceeded)
    assert cleaning.wait(10)
    assert not gate.strike("a", SoftTimeLimitExceeded)
    assert gate.strike("a", TaskRevoked)
    other.join()
    assert seen == ["soft", "revoked"]


def test_a_call_within_a_call_belongs_to_the_outer_one():
    gate = Interruptible()

    def inner() -> None:
        assert not gate.strike("inner", SoftTimeLimitExceeded)
        gate.strike("outer", SoftTimeLimitExceeded)

    def outer() -> str:
        with pytest.raises(SoftTimeLimitExceeded):
            gate.call("inner", inner, (), {})
        return "went on"

    assert gate.call("outer", outer, (), {}) == "went on"


def test_a_shield_makes_a_strike_from_the_same_thread_wait():
    gate, seen = Interruptible(), []

    def work() -> None:
        with gate.shield:
            with gate.shield:
                assert gate.strike("a", SoftTimeLimitExceeded)
                seen.append("inner")
            seen.append("outer")
        seen.append("never")

    with pytest.raises(SoftTimeLimitExceeded):
        gate.call("a", work, (), {})
    assert seen == ["inner", "outer"]


def test_a_shield_makes_a_strike_from_another_thread_wait():
    began, struck, seen = threading.Event(), threading.Event(), []

    def body(gate: Interruptible) -> None:
        def work() -> None:
            with gate.shield:
                began.set()
                spin_until(struck)
                seen.append("done")
            seen.append("never")

        try:
            gate.call("a", work, (), {})
        except SoftTimeLimitExceeded:
            seen.append("struck")

    other = InThread()
    gate = other.start(body)
    assert began.wait(10)
    assert gate.strike("a", SoftTimeLimitExceeded)
    struck.set()
    other.join()
    assert seen == ["done", "struck"]


def test_what_is_left_of_a_shield_does_not_reach_the_next_call():
    gate = Interruptible()

    def work() -> None:
        with gate.shield:
            gate.strike("a", SoftTimeLimitExceeded)
            raise ZeroDivisionError

    with pytest.raises(SoftTimeLimitExceeded):
        gate.call("a", work, (), {})
    assert gate.call("b", lambda: "fine", (), {}) == "fine"
    assert not gate.struck


class Strikes:
    """Is struck when it is destroyed."""

    def __init__(self, strike) -> None:
        self.strike = strike

    def __del__(self) -> None:
        self.strike()


def test_a_strike_that_lands_in_a_destructor_may_be_sent_again():
    """Python can only ignore an exception there."""
    gate, seen = here(), []

    def work() -> None:
        Strikes(lambda: gate.strike("a", SoftTimeLimitExceeded))
        seen.append("went on")
        gate.strike("a", SoftTimeLimitExceeded)
        seen.append("never")

    with pytest.raises(SoftTimeLimitExceeded):
        gate.call("a", work, (), {})
    assert seen == ["went on"]


def test_other_exceptions_in_destructors_are_told_of_as_ever():
    told: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda what: told.append(what.exc_type)
    try:
        gate = InThread().start(lambda gate: None)

        def work() -> None:
            Strikes(lambda: 1 / 0)

        gate.call("a", work, (), {})
    finally:
        sys.unraisablehook = before
    assert told == [ZeroDivisionError]


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("kinds", [(SoftTimeLimitExceeded,), (SoftTimeLimitExceeded, TaskRevoked)])
def test_strikes_from_another_thread_hit_only_their_own_function(kinds):
    """Strike at random moments around short calls, hundreds of times: one lands in its own function, or nowhere."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    current: list[int] = [-1]
    strays: list[BaseException] = []
    hits = sent = 0
    over = threading.Event()

    def work(token: int, turns: int) -> int:
        for _ in range(turns):
            pass
        return token

    def body(gate: Interruptible) -> None:
        nonlocal hits
        try:
            for token in range(3_000_000):
                if sent > STRIKES:
                    break
                current[0] = token
                try:
                    assert gate.call(token, work, (token, rng.randrange(200)), {}) == token
                except kinds:
                    hits += 1
                # Framework code: nothing may be raised here.
                sum(range(20))
        except BaseException as error:
            strays.append(error)
        finally:
            over.set()

    other = InThread()
    gate = other.start(body)
    while not over.is_set():
        for kind in kinds:
            sent += gate.strike(current[0], kind)
    other.join()
    print("sent", sent, "hits", hits)
    assert strays == []
    assert sent > STRIKES


@pytest.mark.usefixtures("alarms")
def test_strikes_from_a_signal_handler_hit_only_their_own_function():
    """Alarms go off at random moments around thousands of short calls: one lands in its function, or nowhere."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    gate = here()
    token = -1
    hits = 0

    def strike(number: int, where: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-4))
        gate.strike(token, rng.choice((SoftTimeLimitExceeded, TaskRevoked)))

    def work(expected: int, turns: int) -> int:
        for _ in range(turns):
            pass
        return expected

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 1e-5)
    for token in range(ROUNDS):
        try:
            assert gate.call(token, work, (token, rng.randrange(200)), {}) == token
        except (SoftTimeLimitExceeded, TaskRevoked):
            hits += 1
        # Framework code: an exception here fails the test.
        sum(range(20))
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("hits", hits)
    assert hits > 0
