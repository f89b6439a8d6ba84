"""Which programs does the suite need, and where do they come from?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path


class ProgramMissing(Exception):
    """The suite cannot run; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Program:
    """Something to be installed before the tests can run; `binaries` may give alternatives, as in "a|b"."""

    name: str
    binaries: tuple[str, ...]
    packages: tuple[str, ...]
    elsewhere: str
    files: tuple[Path, ...] = ()

    @property
    def found(self) -> bool:
        binaries = all(any(map(find, binary.split("|"))) for binary in self.binaries)
        return binaries and all(path.exists() for path in self.files)


REQUIRED = (
    Program("PostgreSQL", ("postgres", "initdb", "pg_ctl"), ("postgresql",), "https://www.postgresql.org/download/"),
    Program("MariaDB", ("mariadbd", "mariadb-install-db"), ("mariadb-server",), "https://mariadb.org/download/"),
    Program(
        "Redis", ("redis-server",), ("redis-server",), "https://redis.io/docs/latest/operate/oss_and_stack/install/"
    ),
    Program(
        "RabbitMQ",
        ("rabbitmq-server", "rabbitmqctl"),
        ("rabbitmq-server",),
        "https://www.rabbitmq.com/docs/download",
    ),
    Program("memcached", ("memcached",), ("memcached",), "https://docs.memcached.org/serverguide/"),
    Program("PgBouncer", ("pgbouncer",), ("pgbouncer",), "https://www.pgbouncer.org/install.html"),
    Program(
        "Chromium",
        ("chromium|chromium-browser|google-chrome", "chromedriver"),
        ("chromium", "chromium-driver"),
        "https://developer.chrome.com/docs/chromedriver/",
    ),
    Program(
        "a C compiler with the headers of Python and of MariaDB's client, for mysqlclient",
        ("cc", "pkg-config", "mariadb_config|mysql_config"),
        ("gcc", "libc6-dev", "pkg-config", "libmariadb-dev", "python3-dev"),
        "https://github.com/PyMySQL/mysqlclient#install",
        files=(Path(sysconfig.get_path("include"), "Python.h"),),
    ),
)


def find(binary: str) -> str | None:
    """Say where a binary is, also outside PATH: Debian keeps PostgreSQL's by version, and has RabbitMQ's on PATH in a
    form that only one account may run."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    usual = os.environ.get("PATH", os.defpath)
    places = ["/usr/lib/rabbitmq/bin", usual, *map(str, versions), "/usr/local/sbin", "/usr/sbin"]
    return shutil.which(binary, path=os.pathsep.join(places))


def require() -> None:
    """Make sure that all programs are there: as root on Debian install them, elsewhere raise ProgramMissing."""
    missing = [program for program in REQUIRED if not program.found]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        _install([package for program in missing for package in program.packages])
        missing = [program for program in missing if not program.found]
    if missing:
        packages = " ".join(package for program in missing for package in program.packages)
        lines = [
            "The tests need programs that are not installed:",
            *(f"  {program.name}: {program.elsewhere}" for program in missing),
            f"On Debian and Ubuntu: sudo apt-get install {packages}",
        ]
        raise ProgramMissing("\n".join(lines))


def _install(packages: list[str]) -> None:
    print(f"Installing {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", *packages]):
        done = subprocess.run(
            command, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise ProgramMissing(
                f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{done.stdout[-2000:]}"
            )
