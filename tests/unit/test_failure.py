"""Does an exception arrive as what it was, and harm nobody on the way?"""

from __future__ import annotations

import asyncio
import decimal
import gc
import json
import logging
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.utils.functional import lazy

from django_tasks.exceptions import DecodeError, NotRegistered, RemoteError, TaskRevoked
from django_tasks.failure import MESSAGE_LENGTH, Failure, capture, rebuild


class PaymentError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code

    def __str__(self) -> str:
        return f"payment {self.code}"


class Counted(Exception):
    made = 0

    def __new__(cls, *args: Any) -> Counted:  # noqa: PYI034
        cls.made += 1
        return super().__new__(cls, *args)

    def __init__(self, a: int, b: int) -> None:
        type(self).made += 1
        super().__init__(a, b)


class Hostile(Exception):
    """Does everything that an exception can do to whoever looks at it."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)

    def __str__(self) -> str:
        raise SystemExit("str")

    def __repr__(self) -> str:
        raise KeyboardInterrupt

    def __reduce__(self) -> Any:
        raise GeneratorExit

    __class__ = property(lambda self: sys.exit("class"))
    args = property(lambda self: sys.exit("args"))
    __cause__ = property(lambda self: sys.exit("cause"))
    __notes__ = property(lambda self: sys.exit("notes"))


class NotText(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307


class Stop(BaseException):
    pass


class Keyed(OSError):
    def __init__(self, *args: Any) -> None:
        raise AssertionError("it is not run")


class Both(ValueError, OSError):
    pass


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc  # noqa: TRY301
    except BaseException as error:
        return error


def test_an_exception_is_described():
    exc = raised(PaymentError(5, "no funds"))
    exc.add_note("order 7")
    failure = capture(exc)
    assert failure.type == "PaymentError"
    assert failure.module == __name__
    assert failure.message == "payment 5"
    assert failure.notes == ("order 7",)
    assert failure.args is not None
    assert json.loads(failure.args) == {"args": ["5: no funds"], "attributes": {"code": 5}}
    assert failure.traceback.startswith('Traceback (most recent call last):\n  File "')
    assert ", in raised\n    raise exc" in failure.traceback
    assert failure.traceback.endswith(f"{__name__}.PaymentError: payment 5\norder 7\n")


def test_it_comes_back_with_class_arguments_attributes_and_traceback():
    exc = rebuild(capture(raised(PaymentError(5, "no funds"))))
    assert isinstance(exc, PaymentError)
    assert (str(exc), exc.code, exc.args) == ("payment 5", 5, ("5: no funds",))
    assert exc.__notes__[0].startswith("The traceback in the worker was:\nTraceback (most recent call last):")
    assert "in raised" in exc.__notes__[0]


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("x"),
        ValueError(),
        KeyError("x"),
        KeyError(("a", decimal.Decimal("1.5"))),
        FileNotFoundError(2, "No such file", "name.txt"),
        OSError("odd"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
        ImportError("no module", name="x", path="y"),
        SyntaxError("bad", ("f.py", 1, 2, "x = ", 1, 3)),
        NameError("x"),
        IntegrityError("duplicate"),
        decimal.InvalidOperation("x"),
        json.JSONDecodeError("Expecting value", "[", 1),
        Both("x"),
        TaskRevoked("stopped"),
        NotRegistered("shop.tasks.x", "Did you mean shop.tasks.y?"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_common_exceptions_come_back_equal(exc):
    back = rebuild(capture(raised(exc)))
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    assert back.args == exc.args
    for name in ("errno", "filename", "name", "path", "lineno", "start", "doc"):
        assert getattr(back, name, None) == getattr(exc, name, None)


def test_an_exception_that_cannot_tell_itself_any_more_is_a_remote_error():
    # Its __str__ reads a list of exceptions, which cannot be sent.
    back = rebuild(capture(raised(ValidationError("wrong"))))
    assert type(back) is RemoteError
    assert str(back) == "django.core.exceptions.ValidationError: ['wrong']"


def test_neither_init_nor_new_of_the_class_runs():
    failure = capture(raised(Counted(1, 2)))
    Counted.made = 0
    back = rebuild(failure)
    assert type(back) is Counted
    assert back.args == (1, 2)
    assert Counted.made == 0
    assert type(rebuild(Failure("Keyed", __name__, args='[2, "x"]'))) is Keyed


def test_arguments_that_cannot_be_sent_leave_the_message():
    for args in ([threading.Lock(), 5], ["x" * 10_000_000], [print], [object(), {}]):
        exc = LookupError(*args)
        failure = capture(raised(exc))
        assert failure.args is None
        assert len(failure.message) <= MESSAGE_LENGTH
        back = rebuild(failure)
        assert type(back) is LookupError
        assert back.args == (failure.message,)


def test_attributes_that_cannot_be_sent_are_left_out_one_by_one():
    exc = ValueError("x")
    exc.code, exc.lock, exc.big = 5, threading.Lock(), "x" * 100_000  # type: ignore[attr-defined]
    back = rebuild(capture(exc))
    assert vars(back) == {"code": 5, "__notes__": back.__notes__}
    for number in range(200):
        setattr(exc, f"attribute{number}", "x" * 1000)
    assert rebuild(capture(exc)).args == ("x",)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("os", "system"),
        ("os", "path.join"),
        ("builtins", "eval"),
        ("builtins", "object"),
        ("subprocess", "Popen"),
        ("builtins", "ExceptionGroup"),
        ("antigravity", "Fly"),
        ("", ""),
        ("no.such.module", "Error"),
        ("builtins", "KeyError.__init__"),
        (__name__, "Hostile.__class__"),
    ],
)
def test_what_is_no_exception_class_here_is_a_remote_error(module, kind):
    loaded = set(sys.modules)
    back = rebuild(Failure(kind, module, "touch pwned", '["touch pwned"]', "the traceback"))
    assert type(back) is RemoteError
    assert (back.exc_module, back.exc_type, back.exc_message) == (module, kind, "touch pwned")
    assert back.__notes__ == ["The traceback in the worker was:\nthe traceback"]
    assert set(sys.modules) == loaded


@pytest.mark.parametrize(
    "exc",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        Stop("x"),
        StopIteration(5),
        StopAsyncIteration(),
        BaseExceptionGroup("x", [SystemExit(1)]),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_what_would_end_the_caller_comes_back_wrapped(exc):
    failure = capture(raised(exc))
    assert failure.type == type(exc).__qualname__
    back = rebuild(failure)
    assert type(back) is RemoteError
    assert back.exc_type == type(exc).__qualname__


@pytest.mark.parametrize(
    "args", ["", "{", "5", "null", "[" * 100_000, '{"args": 5, "attributes": {}}', '{"args": []}', "\ud800"]
)
def test_arguments_that_are_damaged_leave_the_message(args):
    back = rebuild(Failure("ValueError", "builtins", "the message", args))
    assert type(back) is ValueError
    assert back.args == ("the message",)


def test_arguments_that_the_class_does_not_take_make_a_remote_error():
    for args in ("[]", "[1, 2, 3, 4, 5]", '["utf-8", "text", 0, 1, "x"]', "[null]"):
        assert type(rebuild(Failure("UnicodeDecodeError", "builtins", "x", args))) is RemoteError


def test_a_hostile_exception_is_described_and_no_more():
    failure = capture(raised(Hostile("x")))
    assert failure.type == "Hostile"
    assert failure.message == "<its text cannot be told: SystemExit>"
    assert failure.args == '["x"]'
    assert failure.traceback.endswith("Hostile: <its text cannot be told: SystemExit>\n")
    assert type(rebuild(failure)) is RemoteError


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise SystemExit(name)

    def __repr__(cls) -> str:
        raise SystemExit


def test_an_exception_of_a_hostile_metaclass_is_described():
    failure = capture(raised(Meta("Odd", (Exception,), {"__module__": "odd", "__doc__": None})("x")))
    assert (failure.module, failure.type, failure.message, failure.args) == ("odd", "Odd", "x", '["x"]')
    assert failure.traceback.endswith("odd.Odd: x\n")


def test_a_message_that_is_no_text_is_told_as_such():
    assert capture(NotText()).message == "<its text cannot be told: TypeError>"
    assert capture(ValueError(lazy(lambda: "later", str)())).message == "later"
    assert capture(ValueError(ValueError("inner"))).message == "inner"
    assert capture(ValueError([1, "a"])).message == "[1, 'a']"
    assert capture(ValueError(1, "a")).message == "(1, 'a')"
    assert capture(ValueError()).message == ""


def test_every_text_is_storable_and_printable():
    name = "Bad\x1b[31m" + "x" * 5000
    exc = raised(
        type(name, (Exception,), {"__module__": "m\x00\ud800"})("NUL \x00 surrogate \ud800 escape \x1b[31m\nnext")
    )
    exc.add_note("note \x00\ud800")
    failure = capture(exc)
    assert failure.message == "NUL \\x00 surrogate \\ud800 escape \\x1b[31m\nnext"
    assert failure.notes == ("note \\x00\\ud800",)
    for text in (failure.type, failure.module, failure.message, failure.args or "", failure.traceback, *failure.notes):
        text.encode("utf-8")
        assert "\x00" not in text
        assert "\x1b" not in text
    assert len(failure.type) == 255
    assert rebuild(capture(ValueError("\x00\ud83d\ude00"))).args == ("\x00\ud83d\ude00",)


def size(failure: Failure) -> int:
    return sum(map(len, (failure.message, failure.traceback, failure.args or "", *failure.notes)))


def test_a_message_of_ten_megabytes_is_cut():
    failure = capture(raised(ValueError("x" * 10_000_000)))
    assert len(failure.message) == MESSAGE_LENGTH
    assert failure.message.endswith("... [cut: 10,000,000 characters in all] ...")
    assert size(failure) < 20_000
    short = capture(raised(ValueError("x" * 10_000)), message_limit=100, traceback_limit=200)
    assert (len(short.message), len(short.traceback)) == (100, 200)


def test_a_long_traceback_keeps_both_ends():
    exc = ValueError("x" * 900 + " the end")
    for number in range(100):
        exc.add_note(f"note {number} " + "n" * 2000)
    failure = capture(raised(exc), traceback_limit=4096)
    assert len(failure.traceback) == 4096
    assert failure.traceback.startswith("Traceback")
    assert "... [cut: " in failure.traceback
    assert len(failure.notes) == 20
    assert all(len(note) <= 1000 for note in failure.notes)


def test_notes_that_are_no_text_are_shown():
    exc = ValueError("x")
    exc.__notes__ = ["text", 5, threading.Lock(), None]  # type: ignore[list-item]
    assert capture(exc).notes[:2] == ("text", "5")
    assert "lock object" in capture(exc).notes[2]
    exc.__notes__ = 7  # type: ignore[assignment]
    assert capture(exc).notes == ("7",)
    exc.__notes__ = {"a": 1}  # type: ignore[assignment]
    assert capture(exc).notes == ("{'a': 1}",)


def test_nothing_keeps_the_exception_alive():
    class Local(Exception):
        pass

    gc.collect()
    gc.disable()
    try:
        exc = Local("x")
        exc.__cause__ = ValueError("cause")
        alive = weakref.ref(exc)
        failure = capture(exc)
        back = weakref.ref(rebuild(failure))
        del exc
        assert alive() is None
        assert back() is None
    finally:
        gc.enable()
    assert failure.type.endswith("Local")


def test_a_failure_travels_as_plain_values():
    failure = capture(raised(PaymentError(5, "x")))
    assert Failure.from_dict(json.loads(json.dumps(failure.as_dict()))) == failure
    assert Failure.from_dict({"type": "X", "module": "m"}) == Failure("X", "m")
    damaged: dict[str, Any]
    for damaged in ({"type": 5}, {"message": None}, {"args": []}, {"notes": [5]}, {"notes": 5}, {"traceback": {}}):
        with pytest.raises(DecodeError):
            Failure.from_dict({"type": "X", "module": "m", **damaged})


def test_capture_is_safe_from_any_thread_and_after_logging(caplog):
    failures: list[Failure] = []

    def run() -> None:
        try:
            Path("/no/such/file").stat()
        except OSError as error:
            logging.getLogger(__name__).exception("failed")
            failures.append(capture(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures[0].type == "FileNotFoundError"
    assert isinstance(rebuild(failures[0]), FileNotFoundError)
