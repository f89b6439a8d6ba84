"""What did tasks really do? Written by the tasks themselves, beside and apart from the system under test."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


def write(path: str, task_id: str, attempt: int, what: str) -> None:
    """Append one line in one system call: it is there whole, or not at all, whatever happens next."""
    line = f"{task_id} {attempt} {what} {os.getpid()} {time.monotonic_ns()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Line:
    id: str
    attempt: int
    what: str
    pid: int
    at: int


class Ledger:
    """Reads what tasks wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def lines(self, what: str | None = None) -> list[Line]:
        if not self.path.exists():
            return []
        rows = (row.split() for row in self.path.read_text().splitlines())
        lines = [Line(row[0], int(row[1]), row[2], int(row[3]), int(row[4])) for row in rows]
        return [line for line in lines if what is None or line.what == what]

    def count(self, what: str = "start") -> Counter[str]:
        return Counter(line.id for line in self.lines(what))
