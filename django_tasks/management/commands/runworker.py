"""`manage.py runworker`: run tasks until told to stop."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import autoreload
from django.utils.module_loading import import_string

from django_tasks import conf, logs
from django_tasks.connections import brokers, results
from django_tasks.exceptions import ConfigurationError
from django_tasks.pools import POOLS
from django_tasks.pools.base import Pool, PoolOptions
from django_tasks.registry import tasks
from django_tasks.routing import queues_of
from django_tasks.version import VERSION
from django_tasks.worker.bell import Bell
from django_tasks.worker.supervisor import Supervisor, own_command
from django_tasks.worker.worker import Worker, WorkerOptions

_FROM_SETTINGS = ("pool", "time_limit", "soft_time_limit", "max_tasks_per_child", "max_memory_per_child", "grace")
"""What the settings say where the command line does not."""

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
        add("--reload", action="store_true", help="start again when the code changes; for development")
        add("--pidfile", help="file to write the process id to")
        add("--node-number", type=int, default=0, help="set by the supervisor")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            settings = conf.get()
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        for name in _FROM_SETTINGS:
            if options[name] is None:
                options[name] = getattr(settings, name)
        logs.configure(options["loglevel"], as_json=options["json_logs"], logfile=options["logfile"])
        if options["workers"] > 1 and not options["node_number"]:
            sys.exit(Supervisor(own_command(_one_worker(sys.argv)), options["workers"]).run())
        if options["reload"]:
            autoreload.run_with_reloader(self.work, **options)
        else:
            self.work(**options)

    def work(self, **options: Any) -> None:
        """Run one worker in this process."""
        try:
            worker = self.build(options)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        if options["purge"]:
            self.purge(worker)
        self.banner(worker, options)
        logs.connect()
        self.obey_signals(worker, reload=options["reload"])
        pidfile = options["pidfile"]
        if pidfile:
            _write_pidfile(pidfile)
        try:
            worker.run()
        finally:
            if pidfile:
                Path(pidfile).unlink()
        if worker.broken:
            sys.exit(1)

    def build(self, options: dict[str, Any]) -> Worker:
        """Build the worker that the options describe."""
        settings = conf.get()
        name = _name(options["name"], options["node_number"])
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
        broker = brokers[options["broker"]]
        return Worker(
            broker,
            results["default"],
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

    def purge(self, worker: Worker) -> None:
        """Remove all waiting messages of the worker's queues."""
        for queue in worker.options.queues:
            removed = worker.broker.purge(queue)
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
        lines += ["", "  tasks"] + [f"    {name}" for name in sorted(tasks)] + [""]
        self.stdout.write("\n".join(lines))


def _one_worker(argv: list[str]) -> list[str]:
    """Return the arguments of this command line without those that ask for several workers."""
    kept: list[str] = []
    skip = False
    for word in argv[2:]:
        if skip:
            skip = False
        elif word == "--workers":
            skip = True
        elif not word.startswith("--workers="):
            kept.append(word)
    return kept


def _name(pattern: str, number: int) -> str:
    name = pattern.replace("%h", socket.gethostname()).replace("%i", str(os.getpid()))
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
    asked = [queue for queue in options["queues"].split(",") if queue] or queues_of(broker)
    excluded = set(options["exclude_queues"].split(","))
    queues = [queue for queue in asked if queue not in excluded]
    if not queues:
        raise CommandError("No queue is left to take from; see --queues and --exclude-queues.")
    return queues


def _write_pidfile(path: str) -> None:
    """Write the process id; a file that is there already belongs to another worker, or to one that was killed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError as error:
        raise CommandError(f"{path} exists: is a worker running? Remove it if not.") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{os.getpid()}\n")
