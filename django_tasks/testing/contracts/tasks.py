"""Which tasks do to a pool what tasks do to pools?

They tell what they do through named pipes and files whose paths they are given, so that a test need not sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import locale
import os
import random
import signal
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from django.db import connections, transaction

from django_tasks import SoftTimeLimitExceeded, Task, shared_task
from django_tasks.message import new_id

ENDS = {
    error.__name__: error
    for error in (
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        MemoryError,
        StopIteration,
        StopAsyncIteration,
        asyncio.CancelledError,
    )
}
"""Exceptions that end a process, a loop or a coroutine elsewhere, and only a task here."""

_leaked: list[bytearray] = []


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@shared_task
def measure(data: str) -> int:
    return len(data)


@shared_task
def repeat(text: str, times: int) -> str:
    return text * times


@shared_task
def fail(text: str) -> None:
    raise ValueError(text)


@shared_task
def end_with(name: str) -> None:
    raise ENDS[name]("from a task")


@shared_task
def leave(code: int) -> None:
    sys.exit(code)


@shared_task
def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


@shared_task
def hold(began: str, gate: str, value: Any = None) -> Any:
    """Say that this began, and go on when the gate is opened."""
    _tell(began)
    _pass(gate)
    return value


@shared_task
def tidy_up(began: str) -> str:
    """Go on until the soft limit, and end in order then."""
    _tell(began)
    try:
        _spin(began)
    except SoftTimeLimitExceeded:
        return "tidied up"
    return "never reached the limit"


@shared_task
def spin(began: str) -> None:
    """Go on for ever, in Python code."""
    _tell(began)
    _spin(began)


@shared_task
def swallow(began: str) -> None:
    """Go on for ever, whatever is raised here."""
    told = False
    while Path(began).exists():
        with contextlib.suppress(BaseException):
            # Told in here: from then on something may be raised at any moment.
            if not told:
                told = True
                _tell(began)
            _spin(began)


@shared_task
def hold_gil(began: str, seconds: float) -> str:
    """Keep every other thread of this process from running, as a C library may."""
    _tell(began)
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return "let go"


@shared_task
def die(number: int) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait()


@shared_task(on_crash="fail")
def die_once(number: int) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait()


@shared_task
def segfault() -> None:
    ctypes.string_at(0)


@shared_task
def exit_at_once(code: int) -> None:
    os._exit(code)


@shared_task
def write_down(path: str, line: str) -> int:
    """Append a line to a file in one write, and return this process's id."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)
    return os.getpid()


@shared_task(bind=True)
def progress(self: Task[[int], int], steps: int) -> int:
    for step in range(steps):
        self.update_state(state="PROGRESS", meta={"current": step + 1, "total": steps})
    return steps


@shared_task(bind=True)
def introduce(self: Task[[], list[Any]]) -> list[Any]:
    return [self.request.id, self.request.hostname, self.request.attempt]


@shared_task
def fingerprint() -> list[Any]:
    return [os.getpid(), random.random(), str(uuid.uuid4()), new_id()]


@shared_task
def leak(mebibytes: int) -> int:
    """Keep memory, and return this process's id."""
    _leaked.append(bytearray(os.urandom(4096) * (256 * mebibytes)))
    return os.getpid()


@shared_task
def describe() -> dict[str, Any]:
    """Return what a task can change about its process."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "directory": os.getcwd(),  # noqa: PTH109  # as text
        "umask": umask,
        "locale": locale.setlocale(locale.LC_ALL),
        "zone": [os.environ.get("TZ"), time.tzname],
        "environment": sorted(os.environ),
        "path": list(sys.path),
        "recursion limit": sys.getrecursionlimit(),
        "socket timeout": socket.getdefaulttimeout(),
        "handlers": [repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "pid": os.getpid(),
    }


@shared_task
def make_a_mess(folder: str) -> int:
    """Change all of that."""
    os.chdir(folder)
    os.umask(0o077)
    locale.setlocale(locale.LC_ALL, "C")
    os.environ["TZ"] = "Pacific/Chatham"
    time.tzset()
    os.environ["LEFT_BY_A_TASK"] = "1"
    os.environ.pop("HOME", None)
    sys.path.insert(0, folder)
    sys.setrecursionlimit(sys.getrecursionlimit() + 321)
    socket.setdefaulttimeout(12.5)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, _unasked)
    return os.getpid()


@shared_task
def close_output() -> int:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.close()
    return os.getpid()


@shared_task
def begin_transaction(alias: str) -> int:
    """Leave a transaction open, and autocommit off."""
    transaction.set_autocommit(False, using=alias)
    transaction.atomic(using=alias).__enter__()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
    return os.getpid()


@shared_task
def ask_database(alias: str, number: int) -> list[Any]:
    """Query a database; return the answer, and whether the connection is as it should be."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s + 0", [number])
        [answer] = cursor.fetchone()
    return [answer, connection.get_autocommit(), connection.in_atomic_block]


def _tell(began: str) -> None:
    fd = os.open(began, os.O_WRONLY)
    try:
        os.write(fd, b"%d\n" % os.getpid())
    finally:
        os.close(fd)


def _pass(gate: str) -> None:
    fd = os.open(gate, os.O_RDONLY)
    try:
        os.read(fd, 1)
    finally:
        os.close(fd)


def _spin(began: str) -> None:
    """Go on until the test is over, and let other threads run meanwhile."""
    while Path(began).exists():
        # An Event's wait, struck between two steps of its own, raises something else than what was sent.
        time.sleep(0.005)


def _unasked(number: int, frame: object) -> None:
    """Handle a signal that nobody sends."""
