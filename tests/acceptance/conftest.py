"""How do acceptance tests start workers, wait for them, and end them?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import AsyncResult, states
from django_tasks.backends.base import Broker
from django_tasks.connections import brokers, results
from django_tasks.message import Delivery
from django_tasks.models import QueuedMessage, TaskResult, WorkerNode
from testproject.backends import backends, signatures, store_of
from tests import redises
from tests.acceptance import choice
from tests.acceptance.ledger import Ledger
from tests.rabbit import Rabbit

ROOT = Path(__file__).parents[2]
QUEUES = ("default", "elsewhere", "empty", "few", "mail", "many", "other", "reports", "routed", "slow", "start")
"""What tests send to; RabbitMQ keeps them until they are deleted."""
PATIENCE = 60.0
"""Seconds after which something that should have happened is taken not to happen."""


class WorkerProcess:
    """A `runworker`, or another command, in a process group of its own."""

    def __init__(
        self, arguments: Sequence[str], environment: dict[str, str], log: Path, command: str = "runworker"
    ) -> None:
        self.log = log
        self._seen: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "django", command, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.log.open("a") as log:
            for line in self.process.stderr:
                log.write(line)
                log.flush()
                with self._news:
                    self._seen.append(line)
                    self._news.notify_all()
        with self._news:
            self._seen.append("")
            self._news.notify_all()

    def wait_for(self, words: str, times: int = 1) -> None:
        """Block until the worker has logged a line with these words so often."""

        def said() -> bool:
            return sum(words in line for line in self._seen) >= times or "" in self._seen

        with self._news:
            assert self._news.wait_for(said, PATIENCE), f"never said {words!r}:\n{self.output}"
            assert sum(words in line for line in self._seen) >= times, f"ended without {words!r}:\n{self.output}"

    @property
    def output(self) -> str:
        return "".join(self._seen)

    def send(self, number: int, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the process to end and return its exit code, negative for a signal."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.wait()

    def kill(self) -> None:
        """End the whole group, whatever is left of it."""
        for number in (signal.SIGCONT, signal.SIGKILL):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                break
        self.wait()

    def children(self) -> list[int]:
        """Return the processes of the group but the worker itself."""
        return [pid for pid in group_of(self.pid) if pid != self.pid]


def group_of(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


class Site:
    """One database, one broker, and the workers on them."""

    def __init__(self, alias: str, folder: Path, kind: str = "database") -> None:
        self.alias = alias
        self.folder = folder
        self.kind = kind
        self.backends: dict[str, Any] = {}
        """BROKERS and RESULTS as this process sees them, and whether it signs; for workers the test's database is the
        default one."""
        self.ledger = Ledger(folder / "ledger")
        self.settings: dict[str, Any] = {"LEASE": 2.0, "HEARTBEAT": 0.5, **signatures()}
        self.environment: dict[str, str] = {}
        self.workers: list[WorkerProcess] = []

    def worker(self, *arguments: str, ready: bool = True, **settings: Any) -> WorkerProcess:
        """Start a worker with two slots unless told otherwise, and wait until it is ready."""
        size = () if "-c" in arguments else ("-c", "2")
        log = self.folder / f"worker{len(self.workers)}.log"
        worker = WorkerProcess([*size, *arguments], self.environment_of(**settings), log)
        self.workers.append(worker)
        if ready:
            worker.wait_for("ready")
        return worker

    def beat(self, *arguments: str) -> WorkerProcess:
        """Start a beat."""
        log = self.folder / f"beat{len(self.workers)}.log"
        beat = WorkerProcess(arguments, self.environment_of(), log, "beat")
        self.workers.append(beat)
        return beat

    def environment_of(self, **settings: Any) -> dict[str, str]:
        """Return the environment of a process of this site."""
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.acceptance.settings",
            "DJANGO_TASKS_TEST_ALIAS": self.alias,
            "DJANGO_TASKS_TEST_SETTINGS": json.dumps({**self.settings, **settings}),
            **self.environment,
        }

    def gate(self, name: str = "gate") -> Gate:
        return Gate(self.folder / name)

    def ended(self, *handles: AsyncResult[Any], timeout: float = PATIENCE) -> list[str]:
        """Wait until all tasks have ended and return their states."""
        for handle in handles:
            assert results["default"].wait([handle.id], timeout), f"{handle} did not end; {self.tell()}"
        found = results["default"].get([handle.id for handle in handles])
        return [found[handle.id].state for handle in handles]

    def settled(self, handles: Sequence[AsyncResult[Any]]) -> set[str]:
        """Wait until a worker has settled some of many tasks, and return the ids of those that it is done with."""

        def ended() -> set[str]:
            found = results["default"].get([handle.id for handle in handles])
            return {task_id for task_id, result in found.items() if result.state in states.FINAL}

        self.until(lambda: len(ended()) > 10, "some have ended")
        over = ended()
        begun = set(self.ledger.count())
        # A result may be there before its message is acknowledged. What begins later is settled later, after that.
        self.until(lambda: bool(ended() - begun) or len(ended()) == len(handles), "one that began later has ended")
        return over if ended() - begun else set()

    def until(self, test: Callable[[], bool], what: str) -> None:
        """Block until something outside of our reach is so, looking again whenever a moment has passed."""
        tick = threading.Event()
        for _ in range(int(PATIENCE / 0.02)):
            if test():
                return
            tick.wait(0.02)
        pytest.fail(f"never: {what}; {self.tell()}")

    def tell(self) -> str:
        """Say how everything stands, for a test that fails."""
        waiting = dict(self.waiting())
        queued = list(QueuedMessage.objects.using(self.alias).values("task_id", "ready", "leased_by", "deliveries"))
        done = list(TaskResult.objects.using(self.alias).values("task_id", "state", "error_message")[:20])
        logs = "\n".join(worker.output[-3000:] for worker in self.workers)
        return f"waiting {waiting} queued {queued[:20]}\nresults {done}\n{logs}\nledger {self.ledger.lines()[:40]}"

    @property
    def broker(self) -> Broker:
        return brokers["default"]

    def waiting(self, *queues: str) -> Counter[str]:
        """Count what waits in the broker and in its outbox; without names, in every queue that has been used here."""
        found: Counter[str] = Counter()
        if self.broker.database is None:
            found.update(QueuedMessage.objects.using(self.alias).values_list("queue", flat=True))
        for stats in self.broker.stats(queues):
            found[stats.queue] += stats.ready + stats.delayed
        return +found

    def quiet(self) -> bool:
        """Tell whether nothing is queued or, where the broker tells that, leased."""
        return not self.waiting() and not any(stats.leased for stats in self.broker.stats())

    def comes_to(self, **numbers: int) -> None:
        """Block until so many messages wait in each queue, and none in any other."""
        self.until(lambda: self.waiting() == numbers, f"{numbers} wait and no others")

    def deliveries_to_come(self, *handles: AsyncResult[Any]) -> set[int]:
        """Take tasks that wait, as a worker would, and put them back; return which deliveries of theirs these were: the
        first, if none before has counted."""
        taken: list[Delivery] = []

        def all_came() -> bool:
            taken.extend(self.broker.fetch(["default"], 100, lease=600.0, consumer="test"))
            return {handle.id for handle in handles} <= {delivery.message.id for delivery in taken}

        self.until(all_came, "all are in their queue")
        self.broker.nack(taken)
        brokers.close()
        return {delivery.deliveries for delivery in taken}

    def nodes(self) -> list[WorkerNode]:
        return list(WorkerNode.objects.using(self.alias).order_by("name"))

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()


class Gate:
    """A named pipe that tasks block on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> None:
        """Let whoever waits go on; blocks until somebody does wait."""
        with self.path.open("w"):
            pass


@pytest.fixture
def prefix(broker: str) -> Iterator[str]:
    """Begin the names of all keys or queues of one test, and leave none of them behind."""
    if broker == "amqp":
        rabbit = Rabbit()
        rabbit.uses(*QUEUES)
        prefix = rabbit.prefix.removesuffix(".")
        yield prefix
        rabbit.close()
    else:
        prefix = redises.new_prefix()
        yield prefix
    if "redis" in (broker, store_of(broker)):
        redises.wipe(prefix)


@pytest.fixture
def site(alias: str, broker: str, prefix: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(alias, tmp_path, broker)
    site.backends = backends(broker, prefix, using=alias) | signatures()
    if (broker, store_of(broker)) != ("database", "database"):
        site.settings |= backends(broker, prefix)
    with override_settings(DJANGO_TASKS={**site.settings, **site.backends}):
        yield site
        site.close()
        brokers.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    choice.parametrize(metafunc)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    choice.deselect(config, items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    choice.send_up(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    choice.take_over(node.config, getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    choice.tell(terminalreporter)
