"""Are a task's handlers and the signals' receivers told how its run went?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_tasks import Task, signals, states
from django_tasks.exceptions import Ignore, Retry
from django_tasks.execution import execute
from tests.calls import HERE, declare, deliver, next_of, raising, run
from tests.integration.rig import text, value

pytestmark = pytest.mark.usefixtures("configure")


class Chatty(Task[..., Any]):
    """Writes down what it is told, each time with how many words it got."""

    def told(self, what: str, *args: Any) -> None:
        self.book: list[Any]
        vars(self).setdefault("book", []).append((what, *args))

    def before_start(self, *args: Any) -> None:
        self.told("before_start", *args)

    def on_success(self, *args: Any) -> None:
        self.told("on_success", *args)

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: str) -> None:
        self.told("on_failure", exc, task_id, args, kwargs, "Traceback" in einfo)

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: str) -> None:
        self.told("on_retry", exc, task_id, args, kwargs, "Traceback" in einfo)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: str) -> None:
        self.told("after_return", status, retval, task_id, args, kwargs, "Traceback" in einfo)


def test_handlers_of_a_task_that_succeeds() -> None:
    known = declare(lambda x: x + 1, base=Chatty)
    execute(deliver(known, 5, id="7"), HERE)
    assert vars(known)["book"] == [
        ("before_start", "7", (5,), {}),
        ("on_success", 6, "7", (5,), {}),
        ("after_return", "SUCCESS", 6, "7", (5,), {}, False),
    ]


def test_handlers_of_a_task_that_fails() -> None:
    error = ValueError("x")
    known = declare(raising(error), base=Chatty)
    execute(deliver(known, id="7"), HERE)
    assert vars(known)["book"] == [
        ("before_start", "7", (), {}),
        ("on_failure", error, "7", (), {}, True),
        ("after_return", "FAILURE", error, "7", (), {}, True),
    ]


def test_handlers_of_a_task_that_is_retried_get_what_it_is_retried_for() -> None:
    error = ConnectionError("x")
    for raised in (error, Retry(exc=error)):
        known = declare(raising(raised), base=Chatty, autoretry_for=OSError)
        execute(deliver(known, id="7"), HERE)
        assert [entry[:2] for entry in vars(known)["book"][1:]] == [("on_retry", error), ("after_return", "RETRY")]


def test_handlers_of_a_task_that_ignores_itself() -> None:
    known = declare(raising(Ignore()), base=Chatty)
    execute(deliver(known), HERE)
    assert [entry[0] for entry in vars(known)["book"]] == ["before_start", "after_return"]


def test_an_error_before_the_start_fails_the_run_and_the_function_is_not_entered() -> None:
    entered: list[int] = []

    class Picky(Task[..., Any]):
        def before_start(self, *args: Any) -> None:
            raise ValueError("not today")

    assert text(run(lambda: entered.append(1), base=Picky)) == "ValueError: not today"
    assert next_of(run(lambda: None, base=Picky, autoretry_for=ValueError)).retries == 1
    assert entered == []


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), Retry()], ids=lambda error: type(error).__name__)
def test_an_error_in_another_handler_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Clumsy(Task[..., Any]):
        def on_success(self, *args: Any) -> None:
            raise error

        def on_failure(self, *args: Any) -> None:
            raise error

        def after_return(self, *args: Any) -> None:
            raise error

    assert value(run(lambda: 5, base=Clumsy)) == 5
    assert text(run(raising(KeyError("y")), base=Clumsy)) == "KeyError: 'y'"
    assert [record.getMessage() for record in caplog.records] == ["A task's handler raised"] * 4
    assert {record.name for record in caplog.records} == {"django_tasks.task"}


def test_an_exception_that_counts_as_false_is_told_all_the_same() -> None:
    class Empty(Exception):
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    error = Empty()
    known = declare(raising(Retry(exc=error)), base=Chatty)
    assert execute(deliver(known), HERE).state == states.RETRY
    assert vars(known)["book"][1][1] is error


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda: 5, ["started", "succeeded", "finished"]),
        (raising(ValueError("x")), ["started", "failed", "finished"]),
        (raising(Retry()), ["started", "retried", "finished"]),
        (raising(Ignore()), ["started", "finished"]),
    ],
)
def test_signals_tell_how_it_went_with_the_task_as_sender(function: Callable[[], Any], told: list[str]) -> None:
    seen: list[str] = []
    known = declare(function)
    receivers = {}
    for name in ("started", "succeeded", "failed", "retried", "finished"):

        def receive(sender: Any, name: str = name, **_: Any) -> None:
            assert sender is known
            seen.append(name)

        receivers[name] = receive
        getattr(signals, f"task_{name}").connect(receive)
    execute(deliver(known), HERE)
    for name, receive in receivers.items():
        getattr(signals, f"task_{name}").disconnect(receive)
    assert seen == told
