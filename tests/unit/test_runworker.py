"""Does the command read its options, and say what to do where it cannot?"""

from __future__ import annotations

import faulthandler
import io
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from django_tasks.connections import brokers
from django_tasks.management.commands.runworker import Command
from django_tasks.message import Message, new_id
from django_tasks.pools.prefork import PreforkPool
from django_tasks.pools.solo import SoloPool
from django_tasks.pools.threads import ThreadPool
from django_tasks.version import VERSION

pytestmark = pytest.mark.usefixtures("configure", "own_log")
Configure = Callable[..., None]

NOT_A_POOL = "json.dumps"


class Prepared(Command):
    """Does all that the command does before a worker runs."""

    options: dict[str, Any]
    worker: Any = None
    pid: str | None = None

    def start(self, options: dict[str, Any]) -> None:
        self.options = options
        self.worker = self.build(options)
        if options["pidfile"]:
            self.pid = Path(options["pidfile"]).read_text()


@pytest.fixture
def prepare() -> Iterator[Callable[..., Prepared]]:
    made: list[Prepared] = []

    def prepare(*words: str) -> Prepared:
        command = Prepared(stdout=io.StringIO())
        made.append(command)
        call_command(command, *words)
        return command

    yield prepare
    for command in made:
        if command.worker is None:
            continue
        command.worker.pool.stop(0)
        command.worker.bell.close()


# What it builds


def test_without_options_a_worker_is_what_the_settings_say(
    configure: Configure, prepare: Callable[..., Prepared]
) -> None:
    configure(POOL="threads", CONCURRENCY=3, TIME_LIMIT=60, SOFT_TIME_LIMIT=50, GRACE=7, LEASE=12, HEARTBEAT=2)
    worker = prepare().worker
    assert type(worker.pool) is ThreadPool
    assert (worker.pool.size, worker.pool.options.time_limit, worker.pool.options.soft_time_limit) == (3, 60, 50)
    assert (worker.options.grace, worker.options.lease, worker.options.heartbeat) == (7, 12, 2)
    assert (worker.options.prefetch, worker.options.burst, worker.options.max_tasks) == (500, False, None)
    assert (worker.options.queues, worker.broker, worker.store.alias) == (["default"], brokers["default"], "default")


def test_options_win_over_the_settings(configure: Configure, prepare: Callable[..., Prepared]) -> None:
    configure(POOL="threads", CONCURRENCY=3, TIME_LIMIT=60, GRACE=7, MAX_TASKS_PER_CHILD=1)
    worker = prepare(
        *["-P", "prefork", "-c", "5", "--time-limit", "6.5", "--soft-time-limit", "5", "--grace", "0"],
        *["--max-tasks-per-child", "10", "--max-memory-per-child", "50000"],
        *["--prefetch", "0", "--burst", "--max-tasks", "9"],
    ).worker
    options = worker.pool.options
    assert (type(worker.pool), options.size, options.worker) == (PreforkPool, 5, worker.options.name)
    assert (options.time_limit, options.soft_time_limit) == (6.5, 5)
    assert (options.max_tasks_per_child, options.max_memory_per_child) == (10, 50_000)
    assert (worker.options.grace, worker.options.prefetch, worker.options.burst, worker.options.max_tasks) == (
        0,
        0,
        True,
        9,
    )


def test_auto_is_one_for_each_processor_unless_the_settings_say(
    configure: Configure, prepare: Callable[..., Prepared]
) -> None:
    assert prepare("-P", "threads").worker.pool.size == os.cpu_count()
    configure(CONCURRENCY=3)
    assert prepare("-P", "threads", "-c", "auto").worker.pool.size == 3


def test_a_pool_may_be_a_class_of_the_project(prepare: Callable[..., Prepared]) -> None:
    assert type(prepare("-P", "django_tasks.pools.solo.SoloPool").worker.pool) is SoloPool


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "{host}.{pid}"),
        (["-n", "mail"], "mail"),
        (["-n", "mail@%h"], "mail@{host}"),
        (["-n", "mail.%i"], "mail.{pid}"),
        (["-n", "mail", "--node-number", "2"], "mail-2"),
        (["--node-number", "2"], "{host}.{pid}"),
    ],
)
def test_a_name_is_made_of_host_process_and_number(
    prepare: Callable[..., Prepared], words: list[str], name: str
) -> None:
    said = prepare(*words, "-P", "threads").worker.options.name
    assert said == name.format(host=socket.gethostname(), pid=os.getpid())


@pytest.mark.parametrize(
    ("words", "queues"),
    [
        ([], ["mail", "slow", "default"]),
        (["-Q", "other"], ["other"]),
        (["-Q", "other, mail ,,third"], ["other", "mail", "third"]),
        (["-X", "slow"], ["mail", "default"]),
        (["-Q", "a,b,c", "-X", " b , nobody"], ["a", "c"]),
    ],
)
def test_queues_are_those_named_else_the_brokers_less_those_left_out(
    configure: Configure, prepare: Callable[..., Prepared], words: list[str], queues: list[str]
) -> None:
    configure(QUEUES={"mail": {}, "slow": {}})
    assert prepare(*words, "-P", "threads").worker.options.queues == queues


def test_a_worker_of_another_broker_takes_from_its_queues(
    configure: Configure, prepare: Callable[..., Prepared]
) -> None:
    entry = {"BACKEND": "memory"}
    configure(BROKERS={"default": entry, "bus": entry}, QUEUES={"mail": {}, "events": {"BROKER": "bus"}})
    worker = prepare("--broker", "bus", "-P", "threads").worker
    assert (worker.broker, worker.options.queues) == (brokers["bus"], ["events"])


# What it refuses


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-c", "0"], "--concurrency takes a whole number above 0 or auto, not '0'."),
        (["-c", "many"], "--concurrency takes a whole number above 0 or auto, not 'many'."),
        (["-c", "1.5"], "--concurrency takes a whole number above 0 or auto, not '1.5'."),
        (["-P", "thread"], "No pool 'thread'. Did you mean 'threads'?"),
        (["-P", "quill"], "No pool 'quill'. Known are: prefork, solo, threads."),
        (["-P", "nowhere.Pool"], "Cannot import the pool nowhere.Pool: No module named 'nowhere'"),
        (["-P", NOT_A_POOL], "json.dumps is not a Pool."),
        (["--broker", "defualt"], "DJANGO_TASKS['BROKERS'] has no 'defualt'. Did you mean 'default'?"),
        (["-Q", "a", "-X", "a"], "No queue is left to take from; see --queues and --exclude-queues."),
        (["-Q", "a\nb"], "'a\\nb' cannot be a queue's name: 1 to 128 printable characters."),
        (["-Q", "events"], "The queue 'events' is kept by the broker 'bus': add --broker bus."),
        (["--workers", "0"], "--workers must be 1 or more, not 0."),
        (["--prefetch", "-1"], "--prefetch must be 0 or more, not -1."),
        (["--max-tasks", "0"], "--max-tasks must be 1 or more, not 0."),
        (["--max-tasks-per-child", "0"], "--max-tasks-per-child must be 1 or more, not 0."),
        (["--max-memory-per-child", "0"], "--max-memory-per-child must be 1 or more, not 0."),
        (["--grace", "-1"], "--grace must be 0 or more, not -1."),
        (["--grace", "nan"], "--grace must be 0 or more, not nan."),
        (["--time-limit", "0"], "--time-limit must be more than 0 seconds, not 0."),
        (["--soft-time-limit", "-2.5"], "--soft-time-limit must be more than 0 seconds, not -2.5."),
        (["-n", ""], "--name must be 1 to 255 printable characters, not ''."),
        (["-n", "a\nb"], "--name must be 1 to 255 printable characters, not 'a\\nb'."),
        (["-n", "x" * 300], "--name must be 1 to 255 printable characters, not 'xxx"),
        (["--time-limit", "soon"], "argument --time-limit: invalid float value: 'soon'"),
        (["-l", "loud"], "argument -l/--loglevel: invalid choice: 'loud'"),
        (["--logfile", "/no/such/folder/log"], "Cannot write the log: [Errno 2] No such file or directory"),
        (["--pidfile", "/no/such/folder/pid"], "Cannot write the pidfile: [Errno 2] No such file or directory"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    configure: Configure, prepare: Callable[..., Prepared], words: list[str], said: str
) -> None:
    entry = {"BACKEND": "memory"}
    configure(BROKERS={"default": entry, "bus": entry}, QUEUES={"events": {"BROKER": "bus"}})
    with pytest.raises(CommandError) as caught:
        prepare(*words)
    assert said in str(caught.value)


def test_wrong_settings_are_told_in_one_line(configure: Configure, prepare: Callable[..., Prepared]) -> None:
    configure(LEESE=5)
    with pytest.raises(CommandError, match=r"^DJANGO_TASKS has an unknown key 'LEESE'\. Did you mean 'LEASE'\?$"):
        prepare()


def test_a_store_that_cannot_be_built_is_told(configure: Configure, prepare: Callable[..., Prepared]) -> None:
    configure(RESULTS={"default": {"BACKEND": "nowhere.Store"}})
    with pytest.raises(CommandError, match=r"DJANGO_TASKS\['RESULTS'\]\['default'\]: cannot import nowhere\.Store"):
        prepare()


# The file with its process id


def test_the_pidfile_is_there_while_the_worker_is(prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert prepare("--pidfile", str(path), "-P", "threads").pid == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_pidfile_that_is_there_belongs_to_another(prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    with pytest.raises(CommandError, match=r"pid exists: is a worker running\? Remove it if not\.$"):
        prepare("--pidfile", str(path))
    assert path.read_text() == "1\n"


def test_a_link_is_not_followed(prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    aim, path = tmp_path / "aim", tmp_path / "pid"
    path.symlink_to(aim)
    with pytest.raises(CommandError, match="exists: is a worker running"):
        prepare("--pidfile", str(path))
    assert not aim.exists()


def test_a_worker_that_cannot_start_leaves_no_pidfile(prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        prepare("--pidfile", str(tmp_path / "pid"), "-c", "0")
    assert list(tmp_path.iterdir()) == []


# Purging


def test_a_purge_removes_what_waits_in_the_queues_that_are_asked_for(prepare: Callable[..., Prepared]) -> None:
    names = ["default", "mail", "mail", "other"]
    brokers["default"].publish([Message(id=new_id(), task="t", body=b"", queue=name) for name in names])
    command = prepare("--purge", "-Q", "mail,default", "-P", "threads")
    assert isinstance(command.stdout._out, io.StringIO)
    assert command.stdout._out.getvalue() == "purged 2 messages from mail\npurged 1 messages from default\n"
    assert [stats.queue for stats in brokers["default"].stats()] == ["other"]


def test_one_of_several_workers_does_not_purge_again(prepare: Callable[..., Prepared]) -> None:
    """Else each that is started again would take away what came since."""
    brokers["default"].publish([Message(id=new_id(), task="t", body=b"")])
    prepare("--purge", "--workers", "2", "--node-number", "1", "-P", "threads")
    assert len(brokers["default"].peek("default", 9)) == 1


# What it says, and hears


def banner(command: Prepared) -> str:
    command.stdout._out = io.StringIO()  # type: ignore[attr-defined]  # unknown to the stubs
    command.banner(command.worker, command.options)
    return str(command.stdout._out.getvalue())


def test_the_banner_says_what_the_worker_is(prepare: Callable[..., Prepared]) -> None:
    said = banner(prepare("-n", "mail", "-P", "threads", "-c", "3", "-Q", "a,b"))
    assert said.splitlines()[:7] == [
        f"django_tasks {VERSION} · mail",
        "",
        "  broker   default (MemoryBroker)",
        "  results  default (MemoryStore)",
        "  pool     threads, 3 at once",
        "  queues   a, b",
        "",
    ]
    assert "    tests.app.tasks.add\n" in said


def test_a_worker_that_is_to_be_quiet_has_no_banner(prepare: Callable[..., Prepared]) -> None:
    assert banner(prepare("-l", "warning", "-P", "threads")) == ""


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    ("sent", "how"),
    [
        (["TERM"], "warm"),
        (["TERM", "TERM"], "warm"),
        (["INT"], "warm"),
        (["INT", "INT"], "cold"),
        (["QUIT"], "cold"),
        (["TERM", "QUIT"], "cold"),
        (["QUIT", "TERM"], "cold"),
        (["USR1"], None),
    ],
)
def test_signals_stop_it_warmly_or_coldly(
    prepare: Callable[..., Prepared], sent: list[str], how: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    command = prepare("-P", "threads")
    command.obey_signals(command.worker, reload=False)
    try:
        for name in sent:
            os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
        assert command.worker.stopping == how
        assert command.worker.bell.wait(30)
    finally:
        faulthandler.unregister(signal.SIGUSR1)
    assert ("most recent call first" in capfd.readouterr().err) is ("USR1" in sent)


@pytest.mark.usefixtures("own_signals")
def test_under_the_reloader_signals_are_its_own_business(prepare: Callable[..., Prepared]) -> None:
    command = prepare("-P", "threads")
    before = signal.getsignal(signal.SIGTERM)
    command.obey_signals(command.worker, reload=True)
    assert signal.getsignal(signal.SIGTERM) is before
