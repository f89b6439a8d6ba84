"""In which environment does a peer run? One of its own, thrown away when its requirements change.

A peer never shares ours: one of them installs the import name `django_tasks` as well.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from benchmarks.header import Header

ROOT = Path(__file__).resolve().parent.parent
DRIVERS = {"sqlite": (), "postgres": ("psycopg[binary]>=3.2",), "mariadb": ("mysqlclient>=2.2.1",)}
"""What Django needs to speak with a database."""
NEWEST, OLDEST = 14, 11
"""Minor versions of Python 3 to look for."""


class NotInstalled(Exception):
    """A peer cannot be installed here; the message says why."""


def make(header: Header, database: str) -> Path:
    """Make the environment unless it stands, and return its Python; raises NotInstalled."""
    python = interpreter(header.requires_python)
    wanted = [*header.dependencies, *DRIVERS[database]]
    path = ROOT / f".venv-peer-{header.module.rpartition('.')[2]}"
    own = path / "bin" / "python"
    stamp = path / f".stamp-{database}"
    state = hashlib.sha256("\0".join([python, *wanted]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return own
    if not _made_by(own, python):
        shutil.rmtree(path, ignore_errors=True)
        _run([python, "-m", "venv", str(path)])
    _run([str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    stamp.write_text(state)
    return own


def versions(python: Path, header: Header) -> str:
    """Say what is installed: the interpreter, Django and the system's own distributions."""
    code = (
        "import json, sys; from importlib.metadata import version;"
        "print(json.dumps([sys.version.split()[0], *map(version, sys.argv[1:])]))"
    )
    names = sorted({name.split("[")[0].split(">")[0] for name in ("django", *header.dependencies)})
    done = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True)
    interpreter_version, *installed = json.loads(done.stdout)
    return ", ".join([f"Python {interpreter_version}", *map(" ".join, zip(names, installed, strict=True))])


@cache
def interpreter(at_least: tuple[int, ...]) -> str:
    """Return the running Python if it is new enough, else the newest that is found and can make environments."""
    if sys.version_info >= at_least:
        return sys.executable
    for minor in range(NEWEST, OLDEST - 1, -1):
        pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python"), reverse=True)
        for python in [f"python3.{minor}", *map(str, pyenv)]:
            if (3, minor) >= at_least and _says(python, "import ensurepip, sys, venv; print(sys.executable)"):
                return python
    raise NotInstalled(f"it needs Python {'.'.join(map(str, at_least))} or newer, and none was found")


def _made_by(own: Path, python: str) -> bool:
    code = "import sys; print(sys.version)"
    return own.exists() and _says(str(own), code) == _says(python, code)


def _says(python: str, code: str) -> str:
    try:
        return subprocess.run([python, "-c", code], check=False, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""  # no such program


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise NotInstalled(f"`{' '.join(command)}` failed: {' '.join(errors[-2:])[-300:]}")
