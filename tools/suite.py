"""Does everything work? Runs all tests here, then the quick ones on the Python and Django that this run leaves out.

python -m tools.suite [arguments of pytest]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import environment, programs, servers

ROOT = environment.ROOT
QUICK = ("tests/unit", "tests/contracts")
"""What a version of Python, Django or a driver is most likely to change."""
SUPPORTED = range(11, 15)
"""Minor versions of Python 3."""
OLDEST = "django~=5.2.0"
NEWEST_NEEDS = 12
"""The minor version of Python 3 that Django 6 asks for."""
SIDE_BY_SIDE = ("--numprocesses=4", "--dist=worksteal", "--quiet")
"""Most tests wait for processes and servers: four at a time keep two cores busy."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A Python and a Django; no `django` means the newest that this Python takes."""

    python: str
    minor: int
    django: str = ""

    def make(self) -> Path:
        name = f".venv-3.{self.minor}-{'5.2' if self.django else 'newest'}"
        return environment.make(ROOT / name, servers.GROUPS, python=self.python, django=self.django)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many tests passed, and how many did not."""

    passed: int
    failed: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.passed + other.passed, self.failed + other.failed)


def run(python: Path, arguments: list[str], urls: dict[str, str]) -> Tally:
    """Run pytest and count; a run that breaks off counts as a failure."""
    django = "import sys, django; print('Python %d.%d' % sys.version_info[:2], '· Django', django.__version__)"
    subprocess.run([python, "-c", django], check=True)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        command = [str(python), "-m", "pytest", f"--junit-xml={report}", *arguments]
        code = servers.attend(command, urls)
        if not report.exists():
            return Tally(0, 1)
        total = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - pytest wrote it
    assert total is not None
    counts = {key: int(total.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return Tally(passed, failed or int(code != 0))


def missing_pair() -> Pair | None:
    """Find the other end: Django 5.2 where the newest has run, the newest where this Python is too old for it."""
    others = sorted(_others(), key=lambda pair: pair.minor)
    if sys.version_info.minor < NEWEST_NEEDS:
        return max((pair for pair in others if pair.minor >= NEWEST_NEEDS), key=lambda pair: pair.minor, default=None)
    oldest = min(others, key=lambda pair: pair.minor, default=Pair(sys.executable, sys.version_info.minor))
    return Pair(oldest.python, oldest.minor, OLDEST)


def _others() -> Iterator[Pair]:
    """Look for other Pythons, on PATH and where pyenv keeps them, that can make environments and compile drivers."""
    for minor in SUPPORTED:
        pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python"), key=_version)
        for python in [f"python3.{minor}", *map(str, reversed(pyenv))]:
            if minor != sys.version_info.minor and (whole := _whole(python)):
                yield Pair(whole, minor)
                break


def _whole(python: str) -> str | None:
    """Say where an interpreter is that has all it takes."""
    code = (
        "import ensurepip, os, sys, sysconfig, venv;"
        "print(os.path.exists(sysconfig.get_path('include') + '/Python.h') and sys.executable)"
    )
    try:
        asked = subprocess.run([python, "-c", code], check=False, capture_output=True, text=True)
    except OSError:
        return None  # no such program
    where = asked.stdout.strip()
    return where if asked.returncode == 0 and where != "False" else None


def _version(python: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", python.parent.parent.name)]


def main(arguments: list[str]) -> int:
    programs.require()
    main_python = environment.make(ROOT / ".venv", servers.GROUPS)
    other = None if arguments else missing_pair()
    other_python = other.make() if other else None
    with servers.running(main_python) as urls:
        tally = run(main_python, arguments or list(SIDE_BY_SIDE), urls)
        if other_python:
            quick = [path for path in QUICK if (ROOT / path).exists()]
            tally += run(other_python, [*SIDE_BY_SIDE, *quick], urls)
        elif not arguments:
            print(f"No Python 3.{NEWEST_NEEDS} or newer was found: Django 6 was not tested.")
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (programs.ProgramMissing, environment.EnvironmentFailed, servers.ServerFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
