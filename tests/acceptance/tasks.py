"""Which tasks do the fault tests run?"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from django_tasks import SoftTimeLimitExceeded, Task, signals, task
from tests.acceptance import killing, ledger
from tests.app.models import Note

Bound = Task[..., Any]

killing.arm()


def mark(self: Bound, book: str, what: str) -> None:
    ledger.write(book, self.request.id or "-", self.request.attempt, what)


@task(bind=True)
def note(self: Bound, book: str) -> int:
    """Begin, have an effect, end."""
    mark(self, book, "start")
    return self.request.attempt


@task(bind=True)
def told(self: Bound, values: list[Any], book: str) -> int:
    """Be the body of a chord: return how many members it has heard of."""
    mark(self, book, "told")
    return len(values)


@task(bind=True)
def hold(self: Bound, book: str, gate: str) -> int:
    """Begin, block until the test opens the named pipe for writing, end."""
    mark(self, book, "start")
    with Path(gate).open() as pipe:
        pipe.read()
    mark(self, book, "end")
    return self.request.attempt


@task(bind=True)
def hold_once(self: Bound, book: str, gate: str) -> int:
    """Block at the first run only; later ones return at once."""
    mark(self, book, "start")
    if self.request.attempt == 1:
        with Path(gate).open() as pipe:
            pipe.read()
    mark(self, book, "end")
    return self.request.attempt


@task(bind=True, max_retries=5)
def hold_then(self: Bound, book: str, gate: str, how: str) -> int:
    """Block at the first run only, and then end in a given way."""
    mark(self, book, "start")
    if self.request.attempt > 1:
        return self.request.attempt
    with Path(gate).open() as pipe:
        pipe.read()
    mark(self, book, "end")
    if how == "raise":
        raise ValueError("late")
    if how == "retry":
        self.retry(countdown=0)
    if how == "progress":
        self.update_state(state="PROGRESS", meta="late")
        with Path(gate).open() as pipe:
            pipe.read()
    return -1


@task(bind=True)
def pause(self: Bound, book: str, seconds: float) -> int:
    mark(self, book, "start")
    time.sleep(seconds)
    mark(self, book, "end")
    return self.request.attempt


@task(bind=True)
def die(self: Bound, book: str, number: int, times: int = 1_000_000) -> int:
    """Kill the process that runs this, as often as said."""
    mark(self, book, "start")
    if self.request.attempt <= times:
        os.kill(os.getpid(), number)
        time.sleep(60)
    return self.request.attempt


@task(bind=True, on_crash="fail")
def die_once(self: Bound, book: str) -> None:
    mark(self, book, "start")
    os.kill(os.getpid(), signal.SIGKILL)


@task(bind=True)
def kill_worker(self: Bound, book: str) -> None:
    """Kill the whole worker, this process included."""
    mark(self, book, "start")
    os.killpg(os.getpgid(0), signal.SIGKILL)


@task(bind=True)
def crash(self: Bound, book: str, how: str) -> None:
    mark(self, book, "start")
    match how:
        case "segv":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            ctypes.string_at(0)
        case "abort":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.abort()
        case "_exit":
            os._exit(7)
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "generator_exit":
            raise GeneratorExit
        case "memory":
            raise MemoryError
        case "recursion":
            recurse()


def recurse() -> None:
    recurse()


@task(bind=True)
def hog(self: Bound, book: str, seconds: int) -> int:
    """Hold the interpreter's lock for seconds on end: PyDLL does not release it."""
    mark(self, book, "start")
    ctypes.PyDLL(None).sleep(seconds)
    mark(self, book, "end")
    return self.request.attempt


@task(bind=True, atomic=True)
def write_atomically(self: Bound, book: str, text: str, gate: str) -> int:
    """Leave a row in the transaction that also says that the task is done."""
    row = Note.objects.create(text=text)
    mark(self, book, "start")
    if self.request.attempt == 1 and gate:
        with Path(gate).open() as pipe:
            pipe.read()
    return row.pk


@task(acks_late=False, bind=True)
def at_most_once(self: Bound, book: str) -> None:
    mark(self, book, "start")
    os.kill(os.getpid(), signal.SIGKILL)


@task
def query(seconds: float = 0) -> int:
    """Ask the database something, and wait in between without a transaction."""
    first = count_notes()
    time.sleep(seconds)
    return first + count_notes()


def count_notes() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM example_note")
        return int(cursor.fetchone()[0])


@task
def break_connection() -> None:
    """Leave a transaction open, with autocommit off."""
    transaction.set_autocommit(False)
    Note.objects.create(text="never committed")


@task
def give(kind: str) -> Any:
    """Return what is hard to keep."""
    return {
        "lambda": lambda: None,
        "nul": "a\x00b",
        "surrogate": "\ud800",
        "nan": float("nan"),
        "huge": "x" * 5_000_000,
        "int": 10**5000,
        "emoji": "\N{PILE OF POO}",
        "generator": (number for number in (1,)),
        "queryset": Note.objects.all(),
        "model": Note(text="x"),
    }[kind]


@task
def raise_text(text: str) -> None:
    raise ValueError(text)


@task(bind=True, max_retries=1)
def mutate(self: Bound, items: list[int]) -> list[int]:
    """Change the argument in place, and ask for a second run."""
    seen = list(items)
    items.append(99)
    if self.request.retries == 0:
        self.retry(countdown=0)
    return seen


@task
def odd_names(**kwargs: Any) -> dict[str, Any]:
    return kwargs


@task
def shout(lines: int) -> str:
    for number in range(lines):
        print("a line of a task", number)
    print("and one of its errors", file=sys.stderr)
    sys.stdout.close()
    return "done"


@task
def soil(cwd: str) -> None:
    """Change what belongs to the whole process."""
    os.chdir(cwd)
    os.umask(0o077)
    os.environ["SOILED"] = "1"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.setrecursionlimit(5000)


@task
def look() -> dict[str, Any]:
    mask = os.umask(0)
    os.umask(mask)
    return {"cwd": str(Path.cwd()), "umask": mask, "env": os.environ.get("SOILED"), "limit": sys.getrecursionlimit()}


@task(time_limit=1)
def overlong(seconds: float) -> None:
    time.sleep(seconds)


@task(bind=True)
def leak(self: Bound, book: str) -> int:
    """Keep some megabytes, and tell which process did."""
    mark(self, book, "start")
    _LEAKED.append(bytearray(8 * 1024 * 1024))
    return os.getpid()


_LEAKED: list[bytearray] = []


@task(bind=True, on_crash="fail")
def kill_worker_once(self: Bound, book: str) -> None:
    """Kill the whole worker, and say that this must never happen twice."""
    mark(self, book, "start")
    os.killpg(os.getpgid(0), signal.SIGKILL)


@task(bind=True, on_crash="fail")
def note_once(self: Bound, book: str) -> int:
    mark(self, book, "start")
    return self.request.attempt


@task(bind=True)
def clean_up(self: Bound, book: str, gate: str) -> str:
    """Wait until told to stop, then take the time to tidy up."""
    try:
        mark(self, book, "start")
        with Path(gate).open() as pipe:
            pipe.read()
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "not told"


@task(bind=True, throws=(LookupError,))
def look_up(self: Bound, book: str) -> None:
    """Fail in a way that is expected now and then."""
    mark(self, book, "start")
    raise KeyError("not here")


@task(bind=True, max_retries=3)
def retry_until(self: Bound, book: str, attempt: int, delay: float = 0.0) -> int:
    mark(self, book, "start")
    if self.request.attempt < attempt:
        self.retry(countdown=delay, exc=ValueError("not yet"))
    return self.request.attempt


@task(bind=True, autoretry_for=(OSError,), dont_autoretry_for=(PermissionError,), retry_backoff=0.1, max_retries=2)
def flaky(self: Bound, book: str, errors: int, kind: str = "OSError") -> int:
    """Raise so often before it ends well."""
    mark(self, book, "start")
    if self.request.retries < errors:
        raise {"OSError": OSError, "PermissionError": PermissionError, "ValueError": ValueError}[kind]("no")
    return self.request.retries


@task(bind=True)
async def wait_async(self: Bound, book: str, seconds: float) -> list[Any]:
    """Wait without blocking, and read the database as asynchronous code does."""
    mark(self, book, "start")
    await asyncio.sleep(seconds)
    return [self.request.id, await Note.objects.acount()]


@task(bind=True)
def progress(self: Bound, book: str, gate: str, steps: int) -> str:
    mark(self, book, "start")
    for step in range(1, steps + 1):
        self.update_state(state="PROGRESS", meta={"current": step, "total": steps})
        with Path(gate).open() as pipe:
            pipe.read()
    return "done"


@task(bind=True, track_started=True)
def tracked(self: Bound, book: str, gate: str) -> int:
    mark(self, book, "start")
    with Path(gate).open() as pipe:
        pipe.read()
    return self.request.attempt


@task(bind=True, ignore_result=True)
def ignored(self: Bound, book: str, *, broken: bool = False) -> str:
    mark(self, book, "start")
    if broken:
        raise ValueError("broken")
    return "nobody asks"


class Handled(Task[Any, Any]):
    """Writes down which of its handlers were called, where, and with what."""

    def before_start(self, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        mark(self, args[0], "before_start")

    def on_success(self, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        mark(self, args[0], f"on_success:{retval}")

    def on_failure(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        mark(self, args[0], f"on_failure:{type(exc).__name__}:{'Traceback' in einfo}")

    def on_retry(
        self, exc: BaseException, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        mark(self, args[0], f"on_retry:{type(exc).__name__}")

    def after_return(
        self, status: str, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], einfo: str
    ) -> None:
        mark(self, args[0], f"after_return:{status}")


@task(bind=True, base=Handled, max_retries=2)
def handled(self: Bound, book: str, how: str) -> str:
    mark(self, book, "run")
    if how == "retry" and self.request.retries == 0:
        self.retry(countdown=0, exc=ValueError("again"))
    if how == "fail":
        raise ValueError("failed")
    return "well"


@task(bind=True)
def spread(self: Bound, book: str, depth: int, width: int) -> str:
    """Send tasks of the same kind, so many levels deep."""
    mark(self, book, f"depth:{depth}:{self.request.root_id}:{self.request.parent_id}")
    if depth > 0:
        for _ in range(width):
            spread.delay(book, depth - 1, width)
    return str(self.request.root_id)


@task
def where_and_when() -> list[str]:
    """Tell which time it is, and in which zone."""
    return [timezone.now().isoformat(), timezone.get_current_timezone_name(), os.environ.get("TZ", "")]


def tell_signals(book: str) -> None:
    """Have the signals of tasks written to a ledger in whichever process they are sent."""

    def tell(word: str) -> Any:
        def receiver(sender: Any, request: Any, **_: Any) -> None:
            ledger.write(book, str(request.id), request.attempt, f"signal:{word}")

        return receiver

    for word in ("started", "succeeded", "retried", "failed", "finished"):
        getattr(signals, f"task_{word}").connect(tell(word), weak=False, dispatch_uid=f"tests.{word}")


if _book := os.environ.get("DJANGO_TASKS_TEST_SIGNALS"):
    tell_signals(_book)


@task(bind=True)
def ignore_limits(self: Bound, book: str) -> None:
    """Swallow what should end this."""
    mark(self, book, "start")
    while True:
        try:
            time.sleep(60)
        except Exception:
            mark(self, book, "swallowed")


@task(bind=True, atomic=True)
def write_and_fail(self: Bound, book: str, text: str) -> None:
    Note.objects.create(text=text)
    mark(self, book, "start")
    raise ValueError("after the row was written")
