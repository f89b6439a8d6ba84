"""`manage.py runworker`: run tasks until told to stop."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import autoreload
from django.utils.module_loading import import_string

from django_tasks import conf, logs
from django_tasks.backends.base import Broker
from django_tasks.beat import outcomes
from django_tasks.beat.beat import Beat
from django_tasks.connections import Connections, brokers, home, keepers_of, results
from django_tasks.exceptions import BrokerUnavailable, ConfigurationError
from django_tasks.message import NAME_LENGTH
from django_tasks.pools import POOLS
from django_tasks.pools.base import Pool, PoolOptions
from django_tasks.registry import tasks
from django_tasks.results.base import ResultStore
from django_tasks.routing import broker_for, checked_queue, queues_of
from django_tasks.version import VERSION
from django_tasks.worker.bell import Bell
from django_tasks.worker.supervisor import Supervisor, leave_with_parent, own_command
from django_tasks.worker.worker import Worker, WorkerOptions

T = TypeVar("T", Broker, ResultStore)

_STOCK = ("celery.", "django_tasks.")
"""How the names of tasks begin that are always there."""
_FROM_SETTINGS = ("pool", "time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child", "grace")
"""What the settings say where the command line does not."""

_LEAST: dict[str, float] = {
    "workers": 1,
    "max_tasks_per_child": 1,
    "max_memory_per_child": 1,
    "prefetch": 0,
    "max_tasks": 1,
    "grace": 0,
}

EPILOG = """
TERM and the first INT stop the worker warmly: it takes nothing new, finishes what runs within --grace seconds and
hands the rest back. QUIT and a second INT stop it coldly: what runs is handed back at once. USR1 writes the stack of
every thread and child to standard error. Exit codes: 0 stopped as told (nothing is lost, what was handed back waits in
its queue), 1 could not start, or could not go on because its pool broke.
"""


class Command(BaseCommand):
    help = "Runs tasks until told to stop."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.epilog = EPILOG
        add = parser.add_argument
        add("-n", "--name", default="%h.%i", help="node name; %%h is the host, %%i the process (default: %(default)s)")
        add("-Q", "--queues", default="", help="queues to take from, comma separated (default: all of the broker's)")
        add("-X", "--exclude-queues", default="", help="queues to leave out, comma separated")
        add("-c", "--concurrency", default="auto", help="tasks at once; auto is one a processor (default: auto)")
        add("-P", "--pool", help=f"{', '.join(POOLS)} or a dotted path (default: prefork)")
        add("--broker", default="default", help="alias of the broker in the settings (default: default)")
        add("--workers", type=int, default=1, help="whole workers to run under one supervisor (default: 1)")
        add("-l", "--loglevel", default="info", choices=logs.LEVELS)
        add("--logfile", help="write the log there in place of standard error")
        add("--json-logs", action="store_true", help="one JSON object a line")
        add("--time-limit", type=float, help="seconds after which a task is ended")
        add("--soft-time-limit", type=float, help="seconds until it is told to end")
        add("--max-tasks-per-child", type=int, help="tasks after which a child is replaced")
        add("--max-memory-per-child", type=int, help="KiB after which a child is replaced")
        add("--prefetch", type=int, default=500, help="at most so many tasks at hand beyond those that run")
        add("--burst", action="store_true", help="leave when no task is ready any more; delayed ones stay")
        add("--max-tasks", type=int, help="leave after so many tasks")
        add("--grace", type=float, help="seconds for running tasks at a warm stop (default: 25)")
        add("--purge", action="store_true", help="remove all waiting messages of the queues first")
        add("-B", "--beat", action="store_true", help="send periodic tasks too, as `manage.py beat` does")
        add("--reload", action="store_true", help="start again when the code changes; for development")
        add("--pidfile", help="file to write the process id to")
        add("--node-number", type=int, default=0, help=SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            settings = conf.get()
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        for name in _FROM_SETTINGS:
            if options[name] is None:
                options[name] = getattr(settings, name)
        _check(options)
        try:
            logs.configure(options["loglevel"], as_json=options["json_logs"], logfile=options["logfile"])
        except OSError as error:
            raise CommandError(f"Cannot write the log: {error}") from error
        if options["node_number"] or (options["reload"] and _is_reloaded()):
            # The process that started this one has the pidfile, and purged the queues once.
            self.start(options)
        else:
            with _pidfile(options["pidfile"]):
                if options["purge"]:
                    self.purge(options)
                self.start(options)

    def start(self, options: dict[str, Any]) -> None:
        """Run one worker here, or see to it that others do."""
        if options["node_number"]:
            leave_with_parent()
        elif options["workers"] > 1:
            sys.exit(Supervisor(own_command(_own_words(sys.argv)), options["workers"]).run())
        if options["reload"]:
            self.reload(options)
        else:
            self.work(**options)

    def reload(self, options: dict[str, Any]) -> None:
        """Run a worker in a thread until the code changes, in a process that another one then starts again."""
        code: Any = 0
        try:
            autoreload.run_with_reloader(self.work, **options)
        except SystemExit as left:
            code = left.code
        if _is_reloaded() and (code is None or isinstance(code, int)):
            # The worker's threads go on: an interpreter that is taken down under them may crash, and with another code
            # than the one that asks for a new start.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
        sys.exit(code)

    def work(self, **options: Any) -> None:
        """Run one worker in this process."""
        worker = self.build(options)
        self.obey_signals(worker, reload=options["reload"])
        self.banner(worker, options)
        logs.connect()
        outcomes.connect()
        try:
            with self.beating(worker) if options["beat"] and options["node_number"] <= 1 else nullcontext():
                worker.run()
        except ConfigurationError as error:
            # Said by the server that a backend reached.
            raise CommandError(str(error)) from error
        if worker.broken:
            sys.exit(1)

    @contextmanager
    def beating(self, worker: Worker) -> Iterator[None]:
        """Send periodic tasks beside a worker; of several workers under one supervisor the first one does.

        A worker whose beat has died stops warmly, and counts as broken: who started it starts it again.
        """

        def died() -> None:
            worker.broken = True
            worker.stop()

        node = f"beat@{worker.options.name}"[:255]
        beat = Beat(home(), name=node, history=conf.get().schedule_history)
        beat.died = died
        beat.start()
        try:
            yield
        finally:
            beat.stop()
            with suppress(DatabaseError):
                beat.leave()

    def build(self, options: dict[str, Any]) -> Worker:
        """Build the worker that the options describe."""
        settings = conf.get()
        name = _name(options["name"], options["node_number"])
        broker, store = _named(brokers, options["broker"]), _named(results, "default")
        bell = Bell()
        pool_options = PoolOptions(
            size=_concurrency(options["concurrency"]),
            worker=name,
            time_limit=options["time_limit"],
            soft_time_limit=options["soft_time_limit"],
            max_tasks_per_child=options["max_tasks_per_child"],
            max_memory_per_child=options["max_memory_per_child"],
        )
        pool = _pool_class(options["pool"])(pool_options, bell.ring)
        return Worker(
            broker,
            store,
            pool,
            bell,
            WorkerOptions(
                name=name,
                queues=_queues(options, broker.alias),
                lease=settings.lease,
                heartbeat=settings.heartbeat,
                grace=options["grace"],
                prefetch=options["prefetch"],
                burst=options["burst"],
                max_tasks=options["max_tasks"],
            ),
        )

    def obey_signals(self, worker: Worker, *, reload: bool) -> None:
        """Install the signal handlers; they only set flags and ring the bell."""
        if reload:
            # The autoreloader runs this in a thread, and ends the process itself.
            return
        interrupts = iter(["warm"])
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        signal.signal(signal.SIGINT, lambda *_: worker.stop(next(interrupts, "cold")))
        signal.signal(signal.SIGQUIT, lambda *_: worker.stop("cold"))
        signal.signal(signal.SIGUSR1, lambda *_: worker.dump_stacks())
        # This process's own threads are printed at once, also when the loop hangs; the children's by the loop.
        faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)

    def purge(self, options: dict[str, Any]) -> None:
        """Remove all waiting messages of the queues."""
        broker = _named(brokers, options["broker"])
        for queue in _queues(options, broker.alias):
            try:
                removed = sum(keeper.purge(queue) for keeper in keepers_of(broker.alias))
            except BrokerUnavailable as error:
                raise CommandError(f"Cannot purge {queue}: {error}") from error
            self.stdout.write(f"purged {removed} messages from {queue}")

    def banner(self, worker: Worker, options: dict[str, Any]) -> None:
        """Say what this worker is."""
        if options["loglevel"] not in ("debug", "info"):
            return
        rows = {
            "broker": f"{worker.broker.alias} ({type(worker.broker).__name__})",
            "results": f"{worker.store.alias} ({type(worker.store).__name__})",
            "pool": f"{options['pool']}, {worker.pool.size} at once",
            "queues": ", ".join(worker.options.queues),
        }
        lines = [f"django_tasks {VERSION} · {worker.options.name}", ""]
        lines += [f"  {key:<9}{value}" for key, value in rows.items()]
        lines += ["", "  tasks"] + [f"    {name}" for name in sorted(tasks) if not name.startswith(_STOCK)] + [""]
        encoding = self.stdout.encoding or "utf-8"
        self.stdout.write("\n".join(lines).encode(encoding, "backslashreplace").decode(encoding))
        # Now, and not when a pipe's buffer is full.
        self.stdout.flush()


def _is_reloaded() -> bool:
    """Tell whether this process is the one that Django's reloader starts again and again."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def _own_words(words: Sequence[str]) -> Sequence[str]:
    """Return what stands behind the name of this command, which is `tasks worker` too."""
    return words[words.index("worker", 2) + 1 :] if words[1] == "tasks" else words[2:]


def _check(options: dict[str, Any]) -> None:
    """Refuse what cannot be before anything is started."""
    for name, least in _LEAST.items():
        value = options[name]
        if value is not None and not value >= least:
            raise CommandError(f"--{name.replace('_', '-')} must be {least:g} or more, not {value:g}.")
    for name in ("time_limit", "soft_time_limit"):
        if options[name] is not None and not options[name] > 0:
            raise CommandError(f"--{name.replace('_', '-')} must be more than 0 seconds, not {options[name]:g}.")
    _concurrency(options["concurrency"])
    _pool_class(options["pool"])
    _queues(options, _named(brokers, options["broker"]).alias)
    _name(options["name"], options["node_number"])


def _named(connections: Connections[T], alias: str) -> T:
    try:
        return connections[alias]
    except ConfigurationError as error:
        raise CommandError(str(error)) from error


def _name(pattern: str, number: int) -> str:
    name = pattern.replace("%h", socket.gethostname()).replace("%i", str(os.getpid()))
    if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        raise CommandError(f"--name must be 1 to {NAME_LENGTH} printable characters, not {name[:80]!r}.")
    return f"{name}-{number}" if number and "%i" not in pattern else name


def _concurrency(value: str | int) -> int:
    if value == "auto":
        return conf.get().concurrency or os.cpu_count() or 1
    if not str(value).isdigit() or int(value) < 1:
        raise CommandError(f"--concurrency takes a whole number above 0 or auto, not {value!r}.")
    return int(value)


def _pool_class(name: str) -> type[Pool]:
    path = POOLS.get(name, name)
    if "." not in path:
        raise CommandError(f"No pool {name!r}. {conf.nearest(name, POOLS)}")
    try:
        cls = import_string(path)
    except ImportError as error:
        raise CommandError(f"Cannot import the pool {path}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Pool)):
        raise CommandError(f"{path} is not a Pool.")
    return cls


def _queues(options: dict[str, Any], broker: str) -> list[str]:
    asked = _listed(options["queues"]) or queues_of(broker)
    excluded = _listed(options["exclude_queues"])
    queues = [queue for queue in asked if queue not in excluded]
    if not queues:
        raise CommandError("No queue is left to take from; see --queues and --exclude-queues.")
    for queue in queues:
        if (keeper := broker_for(queue)) != broker:
            raise CommandError(f"The queue {queue!r} is kept by the broker {keeper!r}: add --broker {keeper}.")
    return queues


def _listed(names: str) -> list[str]:
    try:
        return [checked_queue(name.strip()) for name in names.split(",") if name.strip()]
    except ConfigurationError as error:
        raise CommandError(str(error)) from error


@contextmanager
def _pidfile(path: str | None) -> Iterator[None]:
    """Keep the process id in a file; one that is there already belongs to another worker, or to one that was
    killed."""
    if not path:
        yield
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError as error:
        raise CommandError(f"{path} exists: is a worker running? Remove it if not.") from error
    except OSError as error:
        raise CommandError(f"Cannot write the pidfile: {error}") from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{os.getpid()}\n")
        yield
    finally:
        Path(path).unlink(missing_ok=True)
