"""Is what led to an exception told in full where it is short, and in part where it is endless?"""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from django_tasks.exceptions import RemoteError
from django_tasks.failure import TRACEBACK_LENGTH, Failure, capture, rebuild


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc  # noqa: TRY301
    except BaseException as error:
        return error


def size(failure: Failure) -> int:
    return sum(map(len, (failure.message, failure.traceback, failure.args or "", *failure.notes)))


def test_a_chain_of_ten_thousand_causes_keeps_both_ends():
    exc: BaseException = ValueError("link 0")
    for number in range(1, 10_000):
        following = ValueError(f"link {number}")
        following.__cause__ = exc
        exc = following
    failure = capture(exc)
    assert size(failure) < TRACEBACK_LENGTH
    for part in (
        "link 0\n",
        "link 3\n",
        "[9,988 more exceptions of the chain are left out]",
        "link 9992\n",
        "link 9999\n",
    ):
        assert part in failure.traceback
    assert "link 5000" not in failure.traceback
    assert "was the direct cause of" in failure.traceback
    # Let go of the links one by one: some Pythons free a chain by recursion.
    while (cause := exc.__cause__) is not None:
        exc.__cause__ = None
        exc = cause


def test_a_circle_of_contexts_is_told_once():
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    told = capture(first).traceback
    assert told.count("ValueError: first") == told.count("ValueError: second") == 1
    assert "During handling of the above exception" in told


def test_a_context_that_was_suppressed_is_not_told():
    outer = ValueError("outer")
    outer.__context__ = KeyError("inner")
    assert "inner" in capture(outer).traceback
    outer.__suppress_context__ = True
    assert "inner" not in capture(outer).traceback


def test_a_group_of_five_thousand_is_told_in_part():
    members = [ValueError(f"member {number}") for number in range(5000)]
    for member in members:
        raised(member)
    group: ExceptionGroup[Exception] = ExceptionGroup("many", members)
    failure = capture(raised(group))
    assert failure.message == "many (5000 sub-exceptions)"
    assert "  | ValueError: member 0\n" in failure.traceback
    assert "[4,990 more exceptions of the group are left out]" in failure.traceback
    assert size(failure) < TRACEBACK_LENGTH + 10_000
    assert type(rebuild(failure)) is RemoteError
    for _ in range(2000):
        group = ExceptionGroup("deep", [group, group])
    assert len(capture(group).traceback) < TRACEBACK_LENGTH


def test_deep_recursion_keeps_the_first_and_the_last_frames():
    def down(left: int) -> None:
        if not left:
            raise ValueError("bottom")
        down(left - 1)

    def start() -> None:
        down(500)

    with pytest.raises(ValueError, match="bottom") as caught:
        start()
    told = capture(caught.value).traceback
    assert "in start" in told
    assert "more frames are left out]" in told
    assert told.endswith("ValueError: bottom\n")
    assert len(told) < 10_000


def in_module(name: str, source: str) -> dict[str, Any]:
    """Return the names that a module of that name would have."""
    module: dict[str, Any] = {"__name__": name}
    exec(compile(source, f"{name}.py", "exec"), module)
    return module


OUTER = "def outer(function):\n    function()\n"
OWN = in_module("django_tasks.execution", OUTER)
USERS = in_module("django_tasks_of_mine", OUTER)


def fail() -> None:
    raise ValueError("x")


def told_below_the_test(function: Any, *args: Any) -> str:
    """Return the traceback without the frame of this test."""
    with pytest.raises(ValueError, match="x") as caught:
        function(*args)
    exc = caught.value
    assert exc.__traceback__ is not None
    exc.__traceback__ = exc.__traceback__.tb_next
    return capture(exc).traceback


def test_frames_of_this_package_at_the_top_are_left_out():
    told = told_below_the_test(
        OWN["outer"], partial(OWN["outer"], partial(USERS["outer"], partial(OWN["outer"], fail)))
    )
    files = re.findall(r'File "(.*?)"', told)
    assert [Path(file).name for file in files] == [
        "django_tasks_of_mine.py",
        "django_tasks.execution.py",
        Path(__file__).name,
    ]


def test_frames_of_this_package_are_told_when_there_are_no_others():
    own = in_module("django_tasks.settlement", "def fail():\n    raise ValueError('x')\n")
    told = told_below_the_test(OWN["outer"], own["fail"])
    assert told.count("File ") == 2


def test_no_local_variable_is_told():
    def fail() -> None:
        canary = "can" + "ary of the locals"
        raise ValueError(len(canary))

    with pytest.raises(ValueError, match="20") as caught:
        fail()
    assert "canary of the locals" not in str(asdict(capture(caught.value)))


def test_a_loader_that_raises_spoils_nothing():
    class Loader:
        def get_source(self, name: str) -> str:
            raise RuntimeError("no source")

    module = {"__name__": "odd", "__loader__": Loader(), "__file__": "odd.py"}
    with pytest.raises(ValueError, match="x") as caught:
        exec(compile("raise ValueError('x')", "odd.py", "exec"), module)
    told = capture(caught.value).traceback
    assert told.endswith("ValueError: x\n")
