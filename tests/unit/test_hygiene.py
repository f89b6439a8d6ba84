"""Does a task find its process as if it were the first one there?"""

from __future__ import annotations

import importlib
import locale
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from django_tasks.pools.hygiene import Hygiene

SIGNALS = (signal.SIGTERM, signal.SIGALRM)


@contextmanager
def watching() -> Iterator[Hygiene]:
    """Watch this process, and leave it as it was whatever the test does. No fixture: pytest itself changes the
    environment between a test and its fixtures."""
    hygiene = Hygiene(SIGNALS)
    try:
        yield hygiene
    finally:
        hygiene.restore("teardown")
        hygiene.close()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def set_time_zone() -> None:
    os.environ["TZ"] = "Pacific/Chatham"
    time.tzset()


def change_environment() -> None:
    os.environ["NEW_VARIABLE"] = "1"
    os.environ["HOME"] = "/nowhere"
    del os.environ["PATH"]


CHANGES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "umask": (lambda: os.umask(0o077), umask),
    "cwd": (lambda: os.chdir("/"), Path.cwd),
    "signal": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), lambda: signal.getsignal(signal.SIGTERM)),
    "environment": (change_environment, lambda: dict(os.environ)),
    "time zone": (set_time_zone, lambda: (time.tzname, os.environ.get("TZ"))),
    "locale": (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), lambda: locale.setlocale(locale.LC_ALL)),
    "socket timeout": (lambda: socket.setdefaulttimeout(3), socket.getdefaulttimeout),
    "recursion limit": (lambda: sys.setrecursionlimit(4321), sys.getrecursionlimit),
    "import path": (lambda: sys.path.insert(0, "/nowhere"), lambda: list(sys.path)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_task_changes_is_undone(what):
    change, look = CHANGES[what]
    with watching() as hygiene:
        before = look()
        change()
        assert look() != before
        hygiene.restore("shop.tasks.messy")
        assert look() == before


def test_a_directory_that_the_task_removed_is_left(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    with watching() as hygiene:
        before = Path.cwd()
        os.chdir(gone)
        gone.rmdir()
        hygiene.restore("shop.tasks.messy")
        assert Path.cwd() == before


def test_what_an_import_sets_stays(tmp_path, monkeypatch):
    """A library is imported once: what it set then would be missing at the second run."""
    monkeypatch.syspath_prepend(tmp_path)
    Path(tmp_path, "sets_a_variable.py").write_text("import os\nos.environ['SET_BY_AN_IMPORT'] = '1'\n")
    try:
        with watching() as hygiene:
            importlib.import_module("sets_a_variable")
            hygiene.restore("shop.tasks.lazy")
            assert os.environ["SET_BY_AN_IMPORT"] == "1"
            os.environ["SET_BY_AN_IMPORT"] = "2"
            hygiene.restore("shop.tasks.messy")
            assert os.environ["SET_BY_AN_IMPORT"] == "1"
    finally:
        del sys.modules["sets_a_variable"], os.environ["SET_BY_AN_IMPORT"]


def test_a_change_is_told_once_for_each_task(caplog):
    with watching() as hygiene:
        for task in ("shop.tasks.messy", "shop.tasks.messy", "shop.tasks.other"):
            socket.setdefaulttimeout(3)
            hygiene.restore(task)
    told = [record.__dict__["task"] for record in caplog.records]
    assert told == ["shop.tasks.messy", "shop.tasks.other"]


def test_a_clean_task_is_not_mentioned(caplog):
    with watching() as hygiene:
        hygiene.restore("shop.tasks.clean")
    assert caplog.records == []


def test_threads_that_are_left_are_told_of_once(caplog):
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    with watching() as hygiene:
        thread.start()
        hygiene.restore("shop.tasks.messy")
        hygiene.restore("shop.tasks.next")
        release.set()
        thread.join()
    assert told(caplog) == [("shop.tasks.messy", "threads")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for the list of child processes")
def test_processes_that_are_left_are_told_of_once(caplog):
    with watching() as hygiene:
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        hygiene.restore("shop.tasks.messy")
        hygiene.restore("shop.tasks.next")
        child.communicate()
    assert told(caplog) == [("shop.tasks.messy", "processes")]


def test_nothing_is_left_open():
    before = len(list(Path("/dev/fd").iterdir()))
    Hygiene(SIGNALS).close()
    assert len(list(Path("/dev/fd").iterdir())) == before


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.__dict__["task"], record.__dict__["what"]) for record in caplog.records]
