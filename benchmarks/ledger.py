"""How often did a task run? Each run appends to a file, which no queue knows of.

BENCHMARKS_LEDGER names it; appending a few bytes at once is atomic, and costs a microsecond.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

ECHO = "echo"
"""The event of a message that is given out a second time."""
LINE = 10
"""Bytes for each run that is written down by its number."""

_path = os.environ.get("BENCHMARKS_LEDGER", os.devnull)
_file = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


@dataclass(frozen=True, slots=True)
class Note:
    """What a task wrote down of itself."""

    event: str
    """What it was: begin, end or another word."""
    number: int
    pid: int
    time: float
    """Seconds of the monotonic clock."""


def mark() -> None:
    """Count a run: one byte."""
    os.write(_file, b".")


def note(number: int, event: str) -> None:
    """Write down which task did what, in which process and when."""
    os.write(_file, f"{event} {number} {os.getpid()} {time.monotonic_ns()}\n".encode())


def number(number: int) -> None:
    """Write down that the task of a number ran."""
    os.write(_file, b"%09d\n" % number)


def number_of(task_id: str) -> int:
    """Return a number that a task is told by which has none of its own."""
    return int.from_bytes(blake2b(task_id.encode(), digest_size=8).digest())


def numbers(path: Path) -> list[int]:
    """Read which tasks ran, a number for each run."""
    return list(map(int, path.read_bytes().split()))


def notes(path: Path) -> Iterator[Note]:
    """Read what was written down, in its order."""
    for line in path.read_text().splitlines():
        event, number, pid, nanoseconds = line.split()
        yield Note(event, int(number), int(pid), int(nanoseconds) / 1e9)


def ended(path: Path) -> set[int]:
    """Return the numbers of the tasks that have ended at least once."""
    return {note.number for note in notes(path) if note.event == "end"}
