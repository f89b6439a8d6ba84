"""Which tasks would try a pool's patience?

Those that wait do so at a gate: a named pipe that the test writes a byte to for each that is to go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import connections, transaction
from django.utils import timezone, translation

from django_tasks import task
from django_tasks.exceptions import SoftTimeLimitExceeded
from tests.app.models import Note


def pass_gate(gate: str) -> None:
    with Path(gate).open("rb", buffering=0) as pipe:
        pipe.read(1)


@task
def noop() -> None:
    pass


@task
def echo(value: Any) -> Any:
    return value


@task
def pid() -> int:
    return os.getpid()


@task
def hold(gate: str) -> int:
    pass_gate(gate)
    return os.getpid()


@task
def mark_and_hold(mark: str, gate: str) -> int:
    """Leave a file to show that this has begun, then wait."""
    touch(mark)
    pass_gate(gate)
    return os.getpid()


def touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


@task
def pause(seconds: float) -> int:
    threading.Event().wait(seconds)
    return os.getpid()


@task
def spin(turns: int) -> int:
    for _ in range(turns):
        pass
    return turns


@task
def hog(seconds: float) -> None:
    """Keep the interpreter's lock in C code."""
    # The standard library's way to sleep gives the lock away; this one does not.
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


@task
def size_of(data: str) -> int:
    return len(data)


@task
def kill_self(number: int) -> None:
    _die_quietly()
    os.kill(os.getpid(), number)
    threading.Event().wait(60)


@task(on_crash="fail")
def kill_self_once(number: int) -> None:
    kill_self.run(number)


def _die_quietly() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()


def _segfault() -> None:
    _die_quietly()
    ctypes.string_at(0)


def _abort() -> None:
    _die_quietly()
    os.abort()


def _exhaust_memory() -> None:
    raise MemoryError


def _recurse() -> None:
    _recurse()


ENDS: dict[str, Callable[[], Any]] = {
    "segfault": _segfault,
    "abort": _abort,
    "_exit": lambda: os._exit(7),
    "exit": lambda: sys.exit(3),
    "memory": _exhaust_memory,
    "recursion": _recurse,
}


@task
def end(how: str) -> None:
    ENDS[how]()


@task
def clean_up(mark: str, gate: str) -> str:
    """Wait until told to stop, then take the time to tidy up."""
    try:
        touch(mark)
        pass_gate(gate)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "not interrupted"


@task
def spin_for_ever() -> None:
    while True:
        pass


@task
def mark_and_spin(mark: str) -> None:
    touch(mark)
    while True:
        pass


@task
def spin_until_told() -> str:
    try:
        while True:
            pass
    except SoftTimeLimitExceeded:
        return "cleaned up"


_meetings: dict[int, threading.Barrier] = {}
_meeting = threading.Lock()


@task
def meet(count: int) -> str:
    """Wait until so many run at the same time."""
    with _meeting:
        barrier = _meetings.setdefault(count, threading.Barrier(count))
    barrier.wait(30)
    return "met"


WRAPPER: Any = None


@task
def count_notes(alias: str) -> int:
    with contextlib.ExitStack() as stack:
        if WRAPPER is not None:
            stack.enter_context(connections[alias].execute_wrapper(WRAPPER))
        return Note.objects.using(alias).count()


@task
def ignore_limits(mark: str) -> None:
    """Swallow what should end this."""
    while True:
        try:
            touch(mark)
            threading.Event().wait(60)
        except Exception:
            touch(mark + ".swallowed")


@task(bind=True)
def report(self, states: list[str]) -> str:
    for state in states:
        self.update_state(state=state, meta={"state": state})
    return "reported"


_LEAKED: list[bytes] = []


@task
def leak(size: int) -> list[int]:
    """Keep some memory; return which process did, and how many KiB it had before."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
    _LEAKED.append(os.urandom(size))
    return [os.getpid(), before]


@task
def fork_and_return() -> int:
    """Leave the task twice: here, and in a copy of the process."""
    os.fork()
    return os.getpid()


@task
def terminate_program() -> int:
    """Start another program, terminate it, and return its exit code."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as program:
        program.terminate()
        return program.wait()


@task
def fork_and_be_killed() -> int:
    """Start a process as `multiprocessing` does, terminate it as it does, and return its exit code."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"!")
        threading.Event().wait(60)
        os._exit(0)
    os.read(read, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@task
def standard_input() -> str:
    return str(Path("/dev/fd/0").readlink())


@task
def random_number() -> float:
    return random.random()


@task
def soil(directory: str) -> None:
    """Change what belongs to the whole process and to the whole context."""
    os.chdir(directory)
    os.environ["SOILED"] = "1"
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    translation.activate("de")
    timezone.activate("Pacific/Chatham")


@task
def soil_context() -> None:
    translation.activate("de")
    timezone.activate("Pacific/Chatham")


@task
def look_at_context() -> list[Any]:
    return [translation.get_language(), timezone.get_current_timezone_name()]


@task
def look() -> list[Any]:
    return [
        str(Path.cwd()),
        os.environ.get("SOILED"),
        signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,
        translation.get_language(),
        timezone.get_current_timezone_name(),
    ]


@task
def write_for_ever(alias: str) -> None:
    """Write rows in transactions until struck."""
    while True:
        with transaction.atomic(using=alias):
            Note.objects.using(alias).create(text="half")
            Note.objects.using(alias).create(text="other half")


@task
def log_and_count(alias: str) -> int:
    """Log, which needs a lock that somebody else may have held when this process was made, and query."""
    logging.getLogger("django_tasks.tests").warning("counting")
    return Note.objects.using(alias).count()
