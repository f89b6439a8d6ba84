"""Are several workers kept alive, told what to do, and left alone when they leave by themselves?"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from django_tasks.worker import supervisor
from django_tasks.worker.supervisor import Supervisor, _wait

pytestmark = pytest.mark.usefixtures("own_signals")
ROOT = Path(__file__).parents[2]

HEAD = """
import os, signal, sys
book, number = sys.argv[1], int(sys.argv[3])
assert sys.argv[2] == "--node-number"
def note(what):
    out = os.open(book, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(out, f"{number} {what}\\n".encode())
    os.close(out)
def times(what):
    with open(book) as file:
        return file.read().count(f"{number} {what}\\n")
note("began")
"""

OBEDIENT = (
    HEAD
    + """
import select
ears, mouth = os.pipe()
told = []
def hear(signum, frame):
    told.append(signal.Signals(signum).name)
    os.write(mouth, b"!")
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(each, hear)
note("ready")
def wait(count):
    while len(told) < count:
        os.read(ears, 1)
    note(" ".join(told))
def tell(signum, after="1 ready"):
    # Once the other worker has written so: a signal that comes while one like it is on its way is lost.
    with open(book) as file:
        while after not in file.read():
            file.seek(0)
    os.kill(os.getppid(), signum)
"""
)
"""A worker that writes down which signals it is sent; `wait(n)` waits for so many."""


def read(book: Path) -> list[str]:
    return sorted(book.read_text().splitlines())


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Give the file that workers write in."""
    return tmp_path / "book"


def supervise(book: Path, code: str, count: int) -> int:
    found = Supervisor([sys.executable, "-I", "-S", "-c", code, str(book)], count)
    try:
        return found.run()
    finally:
        for child in found.children:
            child.process.kill()
            child.process.wait()
        found.bell.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start again without a pause."""
    monkeypatch.setattr(supervisor, "PAUSE", 0.0)


def test_each_worker_gets_its_number_and_all_may_leave_by_themselves(book: Path) -> None:
    assert supervise(book, HEAD, 3) == 0
    assert read(book) == ["1 began", "2 began", "3 began"]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("end", ["sys.exit(3)", "os.kill(os.getpid(), 9)", "os.abort()"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_that_dies_is_started_again_under_its_number_also_when_all_die_at_once(
    book: Path, end: str, count: int
) -> None:
    assert supervise(book, f"{HEAD}\nif times('began') < 3: {end}", count) == 0
    assert read(book) == sorted([f"{number} began" for number in range(1, count + 1)] * 3)


@pytest.mark.usefixtures("hasty")
def test_who_dies_is_told_with_its_exit_code(book: Path, caplog: pytest.LogCaptureFixture) -> None:
    supervise(book, f"{HEAD}\nif number == 2 and times('began') < 2: os.kill(os.getpid(), 9)", 2)
    [record] = caplog.records
    assert (record.getMessage(), record.__dict__["number"], record.__dict__["code"]) == (
        "A worker ended; it is started again",
        2,
        -9,
    )


@pytest.mark.usefixtures("hasty")
def test_the_others_go_on_while_one_is_started_again(book: Path) -> None:
    code = f"""{OBEDIENT}
if number == 2 and times("began") < 3: sys.exit(1)
if number == 2: tell(signal.SIGTERM)
wait(1)
"""
    assert supervise(book, code, 2) == 0
    assert [line for line in read(book) if "ready" not in line] == [
        *["1 SIGTERM", "1 began"],
        *["2 SIGTERM", "2 began", "2 began", "2 began"],
    ]


def test_workers_that_die_again_and_again_are_started_less_and_less_often() -> None:
    waits = [_wait(failures) for failures in range(12)]
    assert waits[:7] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(waits[7:]) == {30.0}


@pytest.mark.parametrize(("sent", "heard"), [("TERM", "TERM"), ("INT", "INT"), ("QUIT", "QUIT"), ("HUP", "TERM")])
def test_what_the_supervisor_is_told_its_workers_are_told(book: Path, sent: str, heard: str) -> None:
    """One hung up on is not to die at once, with all that it runs."""
    code = f"{OBEDIENT}\nif number == 2: tell(signal.SIG{sent})\nwait(1)"
    assert supervise(book, code, 2) == 0
    assert [line for line in read(book) if "SIG" in line] == [f"1 SIG{heard}", f"2 SIG{heard}"]


def test_a_second_interrupt_is_passed_on_as_well(book: Path) -> None:
    code = f"""{OBEDIENT}
if number == 2: tell(signal.SIGINT)
wait(1)
if number == 2: tell(signal.SIGINT, after="1 SIGINT")
wait(2)
"""
    assert supervise(book, code, 2) == 0
    assert [line for line in read(book) if "SIGINT SIGINT" in line] == ["1 SIGINT SIGINT", "2 SIGINT SIGINT"]


@pytest.mark.usefixtures("hasty")
def test_asking_for_stacks_stops_nobody(book: Path) -> None:
    code = f"""{OBEDIENT}
if number == 2: tell(signal.SIGUSR1)
if number == 2 or times("began") == 1: wait(1)
if number == 1 and times("began") == 1: sys.exit(3)
"""
    assert supervise(book, code, 2) == 0
    assert read(book).count("1 began") == 2


def test_once_told_to_stop_it_starts_nobody_again(book: Path) -> None:
    code = f"{OBEDIENT}\ntell(signal.SIGTERM)\nwait(1)\nsys.exit(3)"
    assert supervise(book, code, 1) == 0
    assert read(book).count("1 began") == 1


def test_being_told_to_stop_ends_the_pause_before_a_worker_is_started_again(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PAUSE", 3600.0)

    class Impatient(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    logger = logging.getLogger("django_tasks.worker")
    logger.addHandler(handler := Impatient())
    try:
        assert supervise(book, f"{HEAD}\nsys.exit(3)", 1) == 0
    finally:
        logger.removeHandler(handler)
    assert read(book) == ["1 began"]


def test_a_worker_that_cannot_be_started_again_is_tried_later(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PAUSE", 0.0)
    program, aside = tmp_path / "worker", tmp_path / "aside"
    program.write_text(
        f"#!/bin/sh\necho began >> {book}\nif [ -e {aside} ]; then exit 0; fi\nmv {program} {aside}\nexit 3\n"
    )
    program.chmod(0o755)
    told: list[str] = []

    class Mender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            if "could not be started" in told[-1] and not program.exists():
                program.write_bytes(aside.read_bytes())
                program.chmod(0o755)

    logger = logging.getLogger("django_tasks.worker")
    logger.addHandler(handler := Mender())
    found = Supervisor([str(program)], 1)
    try:
        assert found.run() == 0
    finally:
        logger.removeHandler(handler)
        found.bell.close()
    assert told == ["A worker ended; it is started again", "A worker could not be started; trying again"]
    assert book.read_text().splitlines() == ["began", "began"]


def test_each_worker_is_the_leader_of_a_session_of_its_own(book: Path) -> None:
    """Else a Ctrl-C would reach it twice: from the terminal, and from its supervisor."""
    assert supervise(book, f"{HEAD}\nnote(os.getsid(0) == os.getpid())", 2) == 0
    assert [line for line in read(book) if "began" not in line] == ["1 True", "2 True"]


# The command of a worker

SHOW = "from django_tasks.worker.supervisor import own_command\nprint(own_command(['-c', '2']))\n"


def shown(*command: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_a_script_is_run_again_as_a_script_wherever_the_worker_goes(tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text(SHOW)
    command = [sys.executable, str(tmp_path / "manage.py"), "runworker", "-c", "2"]
    assert shown("manage.py", folder=tmp_path) == str(command)


def test_a_module_is_run_again_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "site_manage.py").write_text(SHOW)
    assert shown("-m", "site_manage", folder=tmp_path) == str(
        [sys.executable, "-m", "site_manage", "runworker", "-c", "2"]
    )


def test_a_package_is_run_again_as_a_package(tmp_path: Path) -> None:
    package = tmp_path / "site_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SHOW)
    assert shown("-m", "site_package", folder=tmp_path) == str(
        [sys.executable, "-m", "site_package", "runworker", "-c", "2"]
    )
