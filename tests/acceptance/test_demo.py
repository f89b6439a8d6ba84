"""Does `make demo` show what it promises, and leave nothing behind?"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testproject.backends import on

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def demo(broker: str, prefix: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "ONCE": "1", "PYTHONUNBUFFERED": "1", **on(broker, prefix)}
    process = subprocess.Popen(
        [sys.executable, "-m", "testproject.demo"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # It stops what it started.
            process.terminate()
        process.communicate()


def children_of(pid: int) -> dict[int, list[str]]:
    """Command lines of the processes that a process has started."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in pids}


def test_it_ranks_the_words_of_the_standard_library_and_stops(broker: str, prefix: str) -> None:
    with demo(broker, prefix) as process:
        said, errors = process.communicate()

    assert process.returncode == 0, f"{said}\n{errors}"
    assert [int(percent) for percent in re.findall(r"(\d+)%  ", said)][-1] == 100
    ranking = re.findall(r"^ +(\d+)  ([a-z]+) +([\d,]+) +([\d,]+)  ", said, flags=re.MULTILINE)
    assert [int(place) for place, *_ in ranking] == list(range(1, 16))
    assert ranking[0][1] == "self"
    counts = [int(times.replace(",", "")) for _, _, times, _ in ranking]
    assert counts == sorted(counts, reverse=True)
    total = re.search(r"([\d,]+) tasks counted [\d,]+ words in [\d.]+ s: [\d,]+ a second", said)
    assert total is not None
    assert int(total[1].replace(",", "")) > 500
    login = re.search(r"http://127\.0\.0\.1:(\d+)/admin/ +login admin, password \S{12}", said)
    assert login is not None
    assert re.search(rf"Their page: http://127\.0\.0\.1:{login[1]}/admin/django_tasks/task\w+/", said) is not None
    with socket.socket() as visitor:
        assert visitor.connect_ex(("127.0.0.1", int(login[1]))) != 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the demo's children in /proc")
def test_a_worker_that_dies_is_told_and_counts_as_a_failure(broker: str, prefix: str) -> None:
    with demo(broker, prefix) as process:
        assert process.stdout is not None
        assert any("a worker runs tasks" in line for line in process.stdout)
        children = children_of(process.pid)
        worker = next(pid for pid, command in children.items() if "runworker" in command)
        os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate()

    assert process.returncode == 1
    assert "The worker ended by itself, with exit code -9." in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
