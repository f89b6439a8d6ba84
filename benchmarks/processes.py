"""What do the processes of a worker cost? Read from /proc, for all of a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat behind the command's name, counted from 0: see proc(5).
_SESSION, _USER, _SYSTEM, _RESIDENT = 3, 11, 12, 21


@dataclass(frozen=True, slots=True)
class Usage:
    """What a session has used up."""

    cpu: float
    """Seconds."""
    wakeups: int
    """How often a thread has slept and gone on."""


def usage(session: int) -> Usage:
    """Sum up what the processes of a session have used; those that have ended are left out."""
    cpu, wakeups = 0.0, 0
    for path, stat in _of(session):
        cpu += (int(stat[_USER]) + int(stat[_SYSTEM])) / _TICK
        wakeups += sum(map(_switches, path.glob("task/*/status")))
    return Usage(cpu, wakeups)


def resident(session: int) -> int:
    """Return the bytes of memory that the processes of a session occupy; pages that they share count for each."""
    return sum(int(stat[_RESIDENT]) * _PAGE for _, stat in _of(session))


def _of(session: int) -> Iterator[tuple[Path, list[str]]]:
    for path in PROC.glob("[0-9]*"):
        try:
            stat = path.joinpath("stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if int(stat[_SESSION]) == session:
            yield path, stat


def _switches(status: Path) -> int:
    try:
        lines = status.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # the thread ended meanwhile
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
