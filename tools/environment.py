"""Is a virtual environment ready? Makes it, and makes it again when pyproject.toml changes.

python -m tools.environment .venv test mariadb      the package with the dependency groups `test` and `mariadb`
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


class EnvironmentFailed(Exception):
    """An environment cannot be made; the message says what to do."""


def make(path: Path, groups: tuple[str, ...] = (), *, python: str = sys.executable, django: str = "") -> Path:
    """Make the environment unless it stands, and return its Python.

    `python` is the interpreter it starts from; `django` narrows the version, such as "django~=5.2.0".
    """
    own = path / "bin" / "python"
    stamp = path / "-".join([".stamp", *groups])
    state = _fingerprint(python, groups, django)
    if own.exists() and stamp.exists() and stamp.read_text() == state:
        return own
    print(f"Making {path.relative_to(ROOT)} with {python}", flush=True)
    if not _fits(own, python):
        shutil.rmtree(path, ignore_errors=True)
        _create(path, python)
    wanted = [argument for group in groups for argument in ("--group", group)]
    _install(own, [*wanted, "--editable", str(ROOT), *filter(None, [django])])
    stamp.write_text(state)
    return own


def _fingerprint(python: str, groups: tuple[str, ...], django: str) -> str:
    parts = [(ROOT / "pyproject.toml").read_text(), _version(python), *groups, django]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _version(python: str) -> str:
    command = [python, "-c", "import sys; print(sys.version.split()[0])"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _fits(own: Path, python: str) -> bool:
    try:
        return _version(str(own)) == _version(python)
    except (OSError, subprocess.CalledProcessError):
        return False  # not made yet, or its interpreter is gone


def _create(path: Path, python: str) -> None:
    if uv := shutil.which("uv"):
        _run([uv, "venv", "--quiet", "--python", python, str(path)])
        return
    if python == sys.executable and not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise EnvironmentFailed(
            f"{python} cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv. "
            "Or install uv."
        )
    _run([python, "-m", "venv", str(path)])
    # The first pip that knows dependency groups.
    _install(path / "bin" / "python", ["pip>=25.1"])


def _install(own: Path, wanted: list[str]) -> None:
    if uv := shutil.which("uv"):
        _run([uv, "pip", "install", "--quiet", "--upgrade", "--python", str(own), *wanted])
    else:
        pip = [str(own), "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "install", "--upgrade", *wanted])


def _run(command: list[str]) -> None:
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise EnvironmentFailed(f"Exit code {code}, for the reason above, of:\n  {' '.join(command)}")


if __name__ == "__main__":
    try:
        make(ROOT / sys.argv[1], tuple(sys.argv[2:]))
    except EnvironmentFailed as error:
        sys.exit(str(error))
