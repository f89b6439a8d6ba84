"""Which servers do the tests talk to? Those that answer, else private ones that live as long as the tests.

python -m tools.servers pytest tests/contracts      a module of the environment, run with the servers' URLs
"""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from tools import environment, programs

ROOT = Path(__file__).parent.parent
GROUPS = ("test", "mariadb")
"""Dependency groups with the drivers of all servers."""
START_TIMEOUT = 60.0
"""Seconds; a cold disk makes a first start slow."""


class ServerFailed(Exception):
    """A server does not start; the message says why."""


class PrivateServer(ABC):
    """A server of one's own on a free port, its data in `directory`: nobody else feels when it is stopped or killed."""

    binaries: tuple[str, ...]
    account: str
    """Who runs it when root starts it: database servers refuse to run as root."""
    variables: dict[str, str] = {}
    """What its programs find in their environment, beside what is there anyway."""

    def __init__(self, directory: Path) -> None:
        self.port = _free_port()
        self.data, self.log = directory / "data", directory / "log"
        self.data.mkdir(mode=0o700)
        self.log.touch()
        self._user = None
        if os.geteuid() == 0:
            self._user = self.account if _exists(self.account) else "nobody"
            shutil.chown(self.data, self._user)
            shutil.chown(self.log, self._user)

    @property
    @abstractmethod
    def url(self) -> str: ...

    @abstractmethod
    def create(self) -> None:
        """Lay down an empty data directory."""

    @abstractmethod
    def start(self) -> None:
        """Start, also again after a stop, and return when it takes connections."""

    @abstractmethod
    def stop(self, *, kill: bool = False) -> None:
        """Stop in good order, or as in a crash; a server that does not run may be stopped."""

    def _run(self, *command: str) -> None:
        if code := self._spawn(*command).wait(START_TIMEOUT):
            raise self._failure(f"{command[0]} ended with exit code {code}")

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        binary = programs.find(program)
        if binary is None:
            raise ServerFailed(f"{program} is not installed.")
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [binary, *arguments],
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                cwd=self.data,
                env={**os.environ, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the tests; the servers are stopped after them.
                start_new_session=True,
            )

    def _failure(self, what: str) -> ServerFailed:
        return ServerFailed(f"{what}; the end of its log:\n{self.log.read_text(errors='replace')[-2000:]}")


Running = TypeVar("Running", bound=PrivateServer)


class PrivatePostgres(PrivateServer):
    binaries = ("initdb", "pg_ctl", "postgres")
    account = "postgres"

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}"

    def create(self) -> None:
        options = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        self._run("initdb", f"--pgdata={self.data}", *options)

    def start(self) -> None:
        # Data must outlive the server's crash, not the machine's.
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--pgdata={self.data}", f"--options={options}")

    def stop(self, *, kill: bool = False) -> None:
        if (self.data / "postmaster.pid").exists():
            mode = "immediate" if kill else "fast"
            self._run("pg_ctl", "stop", "--wait", f"--pgdata={self.data}", f"--mode={mode}")


class PrivateProcess(PrivateServer):
    """A server whose program goes on for as long as it runs."""

    arguments: tuple[str, ...] = ()
    """Settings beside those that make it private, as on its command line."""
    _process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> tuple[str, ...]:
        """Return the program, and what makes it private."""

    @abstractmethod
    def answers(self) -> bool:
        """Say whether it takes connections by now."""

    def start(self) -> None:
        self._process = self._spawn(*self.command(), *self.arguments)
        deadline = time.monotonic() + START_TIMEOUT
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failure(f"{self.command()[0]} does not start")
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait(START_TIMEOUT)


Process = TypeVar("Process", bound=PrivateProcess)


def configured(kind: type[Process], *arguments: str) -> type[Process]:
    """Return a kind of server with settings as on its command line."""
    return type(kind.__name__, (kind,), {"arguments": arguments})


class PrivateMariaDB(PrivateProcess):
    binaries = ("mariadb-install-db", "mariadbd")
    account = "mysql"

    @property
    def url(self) -> str:
        return f"mariadb://root@127.0.0.1:{self.port}"

    def create(self) -> None:
        options = ("--auth-root-authentication-method=normal", "--skip-test-db")
        self._run("mariadb-install-db", "--no-defaults", f"--datadir={self.data}", *options)

    def command(self) -> tuple[str, ...]:
        return (
            "mariadbd",
            "--no-defaults",
            f"--datadir={self.data}",
            f"--port={self.port}",
            f"--socket={self.data / 'socket'}",
            f"--pid-file={self.data / 'pid'}",
            "--bind-address=127.0.0.1",
            # Data must outlive the server's crash, not the machine's.
            "--innodb-flush-log-at-trx-commit=2",
        )

    def answers(self) -> bool:
        return greets(self.port)


class PrivateRedis(PrivateProcess):
    binaries = ("redis-server",)
    account = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def create(self) -> None:
        """Lay down nothing: an empty directory is an empty Redis."""

    def command(self) -> tuple[str, ...]:
        own = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data), "--save", "")
        return ("redis-server", *own)

    def answers(self) -> bool:
        return _pongs(self.port)


class PrivateRabbitMQ(PrivateProcess):
    binaries = ("rabbitmq-server", "rabbitmqctl", "epmd")
    account = "rabbitmq"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def create(self) -> None:
        self._names = str(_free_port())
        self.variables = {
            # Where the cookie lies that its programs know each other by.
            "HOME": str(self.data),
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(_free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.data / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.data / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.data / "rabbitmq"),
            # Names of Erlang nodes are looked up in a daemon of its own, too.
            "ERL_EPMD_PORT": self._names,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def command(self) -> tuple[str, ...]:
        return ("rabbitmq-server",)

    def answers(self) -> bool:
        return greets(self.port, b"AMQP\0\0\x09\x01")

    def stop(self, *, kill: bool = False) -> None:
        if self._process and self._process.poll() is None:
            # The program is a script that waits for the server, in one group with it.
            os.killpg(self._process.pid, signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait(START_TIMEOUT)
        if not kill:
            self._spawn("epmd", "-port", self._names, "-kill").wait(START_TIMEOUT)

    def control(self, *arguments: str) -> None:
        """Do what an operator would do with rabbitmqctl."""
        self._run("rabbitmqctl", *arguments)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that the suite asks for: where to look for it, and what to start where nothing answers."""

    name: str
    variable: str
    usual: tuple[str, ...]
    private: type[PrivateServer]


_ME = getpass.getuser()

REQUIRED = (
    Server(
        "PostgreSQL",
        "DJANGO_TASKS_TEST_POSTGRES_URL",
        (
            "postgres://postgres@127.0.0.1:5432",
            f"postgres://{_ME}@127.0.0.1:5432",
            f"postgres://{_ME}@%2Fvar%2Frun%2Fpostgresql",
        ),
        PrivatePostgres,
    ),
    Server(
        "MariaDB",
        "DJANGO_TASKS_TEST_MARIADB_URL",
        ("mariadb://root@127.0.0.1:3306", f"mariadb://{_ME}@%2Frun%2Fmysqld%2Fmysqld.sock"),
        PrivateMariaDB,
    ),
    Server("Redis", "DJANGO_TASKS_TEST_REDIS_URL", ("redis://127.0.0.1:6379",), PrivateRedis),
    Server(
        "RabbitMQ",
        "DJANGO_TASKS_TEST_AMQP_URL",
        ("amqp://guest:guest@127.0.0.1:5672",),
        PrivateRabbitMQ,
    ),
)


@contextmanager
def running(python: Path) -> Iterator[dict[str, str]]:
    """Give the URL of every required server by its variable; private ones are stopped at the end.

    `python` is the environment that has the drivers to ask with.
    """
    signal.signal(signal.SIGTERM, _leave)
    with ExitStack() as stack:
        urls = {}
        for server in REQUIRED:
            url = _answering(server, python)
            if url is None:
                print(f"{server.name}: starting a private one", flush=True)
                url = stack.enter_context(private(server.private)).url
            print(f"{server.name}: {_masked(url)}", flush=True)
            urls[server.variable] = url
        yield urls


@contextmanager
def private(kind: type[Running]) -> Iterator[Running]:
    """Start a server of one's own, and leave nothing of it behind."""
    with tempfile.TemporaryDirectory(prefix="django_tasks_", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)  # its account must reach the data, which is closed to others
        server = kind(Path(directory))
        server.create()
        try:
            server.start()
            yield server
        finally:
            server.stop()


def attend(command: list[str], urls: dict[str, str]) -> int:
    """Run a command with the servers' URLs, and let it clean up before they go, whatever ends it."""
    environment = {**os.environ, **urls}
    # The tests start hundreds of processes, and each would compile the package again.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # it had the same Ctrl-C
            raise
        except SystemExit:
            process.send_signal(signal.SIGINT)
            raise


def _answering(server: Server, python: Path) -> str | None:
    given = os.environ.get(server.variable)
    for url in [given] if given else server.usual:
        asked = subprocess.run(
            [python, "-W", "ignore", "-m", "tests.probe", url], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if asked.returncode == 0:
            return url
        if given:
            print(f"{server.name} at {server.variable}={_masked(url)}: {asked.stderr.strip()}", flush=True)
    return None


def _masked(url: str) -> str:
    return re.sub(r"(//[^:/@]*):[^/]*@", r"\1:***@", url)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def greets(port: int, hello: bytes = b"") -> bool:
    """Say whether a server sends the first bytes of its greeting: MariaDB listens before it can be told to stop, and
    RabbitMQ before it has an answer to `hello`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(hello)
            return bool(probe.recv(1))
    except OSError:
        return False


def _pongs(port: int) -> bool:
    """Say whether Redis answers; while it reads its file it says that it is loading."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def _exists(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main(module: str, *arguments: str) -> int:
    programs.require()
    python = environment.make(ROOT / ".venv", GROUPS)
    with running(python) as urls:
        return attend([str(python), "-m", module, *arguments], urls)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except (programs.ProgramMissing, environment.EnvironmentFailed, ServerFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
