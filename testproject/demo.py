"""What does it look like at work? `python -m testproject.demo`: SQLite, a site, a worker and a real job.

Serves until Ctrl-C; without a terminal, or with ONCE=1, it ends after the job. Exit code 1 says that something failed.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sqlite3
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import django

from testproject.children import Child, ChildFailed

ROOT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(ROOT / "testproject" / "manage.py")]
CHILDREN = 2
ACCOUNT = "admin"
USUAL_PORT = 8000
START_TIMEOUT = 30.0
"""Seconds for the site to answer."""
STOP_TIMEOUT = 30.0
"""Seconds for a child to end when it is told to."""


def main() -> int:
    signal.signal(signal.SIGTERM, _leave)
    once = os.environ.get("ONCE", "0") not in ("", "0") or not sys.stdout.isatty()
    try:
        with tempfile.TemporaryDirectory(prefix="django_tasks_demo_") as folder:
            run(Path(folder), once=once)
    except ChildFailed as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\n  Stopped before the job was done.", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def run(folder: Path, *, once: bool) -> None:
    """Show the whole of it in a folder that is empty; raises ChildFailed when a part of it fails."""
    password = secrets.token_urlsafe(9)
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{folder / 'demo.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
        "DJANGO_SUPERUSER_PASSWORD": password,
        "PYTHONUNBUFFERED": "1",
    }
    versions = f"Python {sys.version.split()[0]} · Django {django.get_version()} · SQLite {sqlite3.sqlite_version}"
    _say(f"\n  django_tasks · {versions}\n")
    with ExitStack() as stack:
        _prepare(folder, environment)
        port = _free_port()
        site = Child("site", [*MANAGE, "runserver", "--noreload", f"127.0.0.1:{port}"], folder, environment)
        stack.callback(site.stop, STOP_TIMEOUT)
        site.start()
        worker = Child(
            "worker",
            # A server that keeps the messages may have some of a demo that was cut off.
            [*MANAGE, "runworker", "--pool", "prefork", "--concurrency", str(CHILDREN), "--purge"],
            folder,
            {**environment, "DEBUG": "0"},
        )
        stack.callback(worker.stop, STOP_TIMEOUT)
        worker.start()
        address = f"http://127.0.0.1:{port}/"
        _await(address, [site, worker])
        _say(f"  The site answers at {address}, and a worker runs tasks in {CHILDREN} children.")
        job = Child("job", [*MANAGE, "rank_words", f"--site={address}"], folder, environment, shown=True)
        stack.callback(job.stop, STOP_TIMEOUT)
        job.start()
        _finish(job, [site, worker])
        _say(f"\n  The ranking: {address}\n  The admin:   {address}admin/   login {ACCOUNT}, password {password}\n")
        if once:
            _say("  This is where it ends; on a terminal, without ONCE=1, the site goes on.\n")
        else:
            _say("  Ctrl-C ends it.\n")
            _serve([site, worker])


def _prepare(folder: Path, environment: dict[str, str]) -> None:
    began = time.monotonic()
    account = ["createsuperuser", "--noinput", f"--username={ACCOUNT}", "--email=admin@example.com"]
    for name, arguments in (("migrate", ["migrate", "--verbosity=0"]), ("account", account)):
        step = Child(name, [*MANAGE, *arguments], folder, environment)
        step.start()
        try:
            _finish(step, [])
        finally:
            step.stop(STOP_TIMEOUT)
    _say(f"  The database was made in {time.monotonic() - began:.1f} s.")


def _finish(child: Child, beside: list[Child]) -> None:
    """Wait for a child to end well, while those beside it go on."""
    while (code := child.poll()) is None:
        _check(beside)
        time.sleep(0.05)
    if code:
        raise child.failure(f"The {child.name} ended with exit code {code}", *beside)


def _serve(children: list[Child]) -> None:
    """Look after the children until Ctrl-C."""
    try:
        while True:
            _check(children)
            time.sleep(0.5)
    except KeyboardInterrupt:
        _say("\n  Stopping.")


def _check(children: list[Child]) -> None:
    for child in children:
        if (code := child.poll()) is not None:
            raise child.failure(f"The {child.name} ended by itself, with exit code {code}")


def _await(address: str, children: list[Child]) -> None:
    """Wait until the site answers."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        _check(children)
        try:
            with urllib.request.urlopen(address, timeout=START_TIMEOUT):  # noqa: S310  # it starts with http:
                return
        except urllib.error.HTTPError as error:
            raise children[0].failure(f"The site answers {address} with {error.code} {error.reason}") from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise children[0].failure(f"The site did not answer at {address} in {START_TIMEOUT:g} s") from error
        time.sleep(0.05)


def _free_port() -> int:
    """Return the usual port, or another one where that is taken."""
    for port in (USUAL_PORT, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as probe:
                found: int = probe.getsockname()[1]
                return found
        except OSError:
            continue
    raise ChildFailed("No port is free on 127.0.0.1.")


def _say(line: str) -> None:
    print(line, flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
