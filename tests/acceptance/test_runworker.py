"""Does each option of `manage.py runworker` do what it says?"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings

from django_tasks import bulk, revoke, states
from django_tasks.connections import results
from django_tasks.result import AsyncResult
from testproject.backends import signatures
from tests.acceptance import tasks
from tests.acceptance.conftest import PATIENCE, ROOT, Site, group_of
from tests.acceptance.gates import release
from tests.databases import parse
from tests.vendors import each_vendor
from tools.servers import PrivatePostgres, private

pytestmark = each_vendor("sqlite", transaction=True)

ALIAS = "own"
COMMAND = [sys.executable, "-W", "error", "-m", "django", "runworker"]


def environment(site: Site, **settings: Any) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.acceptance.settings",
        "DJANGO_TASKS_TEST_ALIAS": site.alias,
        "DJANGO_TASKS_TEST_SETTINGS": json.dumps({**site.settings, **settings}),
        **site.environment,
    }


def run(site: Site, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a worker to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment(site, **settings),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def burst(site: Site, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a worker until it finds nothing more to do."""
    done = run(site, "--burst", "-P", "threads", *arguments, **settings)
    assert done.returncode == 0, done.stderr
    return done


def notes(site: Site, number: int = 1, **options: Any) -> list[AsyncResult[Any]]:
    return bulk(tasks.note.s(str(site.ledger)).set(**options) for _ in range(number))


# Queues and brokers


def test_queues_are_those_that_are_named_or_those_of_the_settings_and_some_may_be_left_out(site: Site):
    for queue in ("mail", "reports", "other", "default"):
        notes(site, 2, queue=queue)
    burst(site, "-Q", "mail, reports")
    site.comes_to(other=2, default=2)
    burst(site, "-X", "mail,default", QUEUES={"mail": {}, "other": {}})
    site.comes_to(default=2)
    burst(site, "--queues=mail,default", "--exclude-queues=mail")
    site.comes_to()


@pytest.mark.brokers("database", reason="names brokers of its own")
def test_without_names_a_worker_takes_from_every_queue_that_the_settings_name_for_its_broker(site: Site):
    for queue in ("mail", "routed", "start", "elsewhere"):
        notes(site, queue=queue)
    burst(
        site,
        QUEUES={"mail": {}, "elsewhere": {"BROKER": "second"}},
        ROUTES={"shop.*": "routed"},
        DEFAULT_QUEUE="start",
        BROKERS={"default": {"BACKEND": "database"}, "second": {"BACKEND": "database"}},
    )
    site.comes_to(elsewhere=1)


@pytest.mark.brokers("database", reason="names brokers of its own")
def test_a_worker_serves_the_broker_that_is_named(site: Site):
    backend = {"BACKEND": "database", "OPTIONS": {"USING": site.alias}}
    both = {"BROKERS": {"default": backend, "second": backend}, "QUEUES": {"slow": {"BROKER": "second"}}}
    with override_settings(DJANGO_TASKS={**both, "RESULTS": {"default": backend}}):
        notes(site, queue="slow")
        notes(site, queue="default")
    served = {**both, "BROKERS": {"default": {"BACKEND": "database"}, "second": {"BACKEND": "database"}}}
    done = burst(site, "--broker", "second", **served)
    assert "second (DatabaseBroker)" in done.stdout
    site.comes_to(default=1)


# How many at once, and how


def test_so_many_tasks_run_at_once(site: Site):
    worker = site.worker("-c", "3", "-l", "debug")
    gate = site.gate()
    handles = bulk(tasks.hold.s(str(site.ledger), str(gate)) for _ in range(4))
    site.until(lambda: len(site.ledger.lines("start")) == 3, "three have begun")
    (node,) = site.nodes()
    assert node.concurrency == 3
    assert len({line.pid for line in site.ledger.lines("start")}) == 3
    release(site, gate, *handles)
    assert site.ended(*handles) == [states.SUCCESS] * 4
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ([], {}, f"prefork, {os.cpu_count()} at once"),
        (["-c", "auto"], {"CONCURRENCY": 5}, "prefork, 5 at once"),
        (["-c", "4"], {"CONCURRENCY": 5, "POOL": "threads"}, "threads, 4 at once"),
        (["-P", "prefork", "-c", "1"], {"POOL": "threads"}, "prefork, 1 at once"),
        (["-P", "solo", "-c", "7"], {}, "solo, 1 at once"),
        (["-P", "django_tasks.pools.threads.ThreadPool", "-c", "2"], {}, "django_tasks.pools.threads.ThreadPool, 2"),
    ],
)
def test_each_pool_runs_tasks_and_the_command_line_wins_over_the_settings(site: Site, arguments, settings, said):
    handles = notes(site, 5)
    done = run(site, "--burst", *arguments, **settings)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert site.ended(*handles) == [states.SUCCESS] * 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-P", "thread"], "No pool 'thread'. Did you mean 'threads'?"),
        (["-P", "nothing"], "No pool 'nothing'. Known are: prefork, solo, threads."),
        (["-P", "no.such.Pool"], "Cannot import the pool no.such.Pool: No module named 'no'"),
        (["-P", "json.JSONDecoder"], "json.JSONDecoder is not a Pool."),
        (["-c", "0"], "--concurrency takes a whole number above 0 or auto, not '0'."),
        (["-c", "many"], "--concurrency takes a whole number above 0 or auto, not 'many'."),
        (["--broker", "fast"], "DJANGO_TASKS['BROKERS'] has no 'fast'. Known are: default."),
        (["-Q", "mail", "-X", "mail"], "No queue is left to take from; see --queues and --exclude-queues."),
        (["-Q", "a\tb"], r"'a\tb' cannot be a queue's name: 1 to 128 printable characters."),
        (["--workers", "0"], "--workers must be 1 or more, not 0."),
        (["--prefetch", "-1"], "--prefetch must be 0 or more, not -1."),
        (["--max-tasks", "0"], "--max-tasks must be 1 or more, not 0."),
        (["--max-tasks-per-child", "0"], "--max-tasks-per-child must be 1 or more, not 0."),
        (["--grace", "-0.5"], "--grace must be 0 or more, not -0.5."),
        (["--time-limit", "0"], "--time-limit must be more than 0 seconds, not 0."),
        (["--soft-time-limit", "-1"], "--soft-time-limit must be more than 0 seconds, not -1."),
        (["-n", "x" * 300], "--name must be 1 to 255 printable characters, not 'xxx"),
        (["--logfile", "/no/such/folder/log"], "Cannot write the log: [Errno 2]"),
        (["--pidfile", "/no/such/folder/pid"], "Cannot write the pidfile: [Errno 2]"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(site: Site, arguments: list[str], said: str):
    with pytest.raises(CommandError) as caught:
        call_command("runworker", *arguments)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert caught.value.returncode == 1


def test_a_queue_that_another_broker_keeps_is_refused_with_the_way_out(site: Site):
    with (
        override_settings(
            DJANGO_TASKS={
                "BROKERS": {"default": {"BACKEND": "database"}, "second": {"BACKEND": "memory"}},
                "QUEUES": {"slow": {"BROKER": "second"}},
            }
        ),
        pytest.raises(CommandError, match="The queue 'slow' is kept by the broker 'second': add --broker second."),
    ):
        call_command("runworker", "-Q", "slow")


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["-P", "thread"], {}, "CommandError: No pool 'thread'. Did you mean 'threads'?"),
        (["--workers", "2", "-P", "thread"], {}, "CommandError: No pool 'thread'. Did you mean 'threads'?"),
        (["--broker", "fast"], {}, "CommandError: DJANGO_TASKS['BROKERS'] has no 'fast'. Known are: default."),
        ([], {"POOL": "green"}, "CommandError: No pool 'green'. Known are: prefork, solo, threads."),
        ([], {"LEASES": 1}, "(django_tasks.E001) DJANGO_TASKS has an unknown key 'LEASES'."),
        ([], {"LEASE": "1"}, "DJANGO_TASKS['LEASE'] must be a number of seconds above 0, not '1'."),
        (["--skip-checks"], {"LEASE": 0}, "CommandError: DJANGO_TASKS['LEASE'] must be a number of seconds above 0"),
        ([], {"BROKERS": {"default": {"BACKEND": "databas"}}}, "no backend 'databas'. Did you mean 'database'?"),
    ],
)
def test_bad_settings_and_names_end_the_command_with_a_clear_word_and_exit_code_1(
    site: Site, arguments, settings, said
):
    done = run(site, *arguments, **settings)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    if said.startswith("CommandError"):
        assert len(done.stderr.splitlines()) == 1


# Limits


def test_limits_of_the_command_line_hold_for_tasks_that_have_none(site: Site):
    worker = site.worker("--time-limit", "1.5", "--soft-time-limit", "0.3")
    gate = site.gate()
    told = tasks.clean_up.delay(str(site.ledger), str(gate))
    ended = tasks.ignore_limits.delay(str(site.ledger))
    assert told.get(20) == "cleaned up"
    assert site.ended(ended) == [states.FAILURE]
    failure = ended.fetch().failure
    assert failure is not None
    assert (failure.type, failure.message) == ("TimeLimitExceeded", "ran longer than its time limit of 1.5 s")
    assert worker.stop() == 0


def test_nothing_is_taken_beyond_what_runs_when_that_is_asked_for(site: Site):
    short = notes(site, 60)
    gate = site.gate()
    long = tasks.hold.delay(str(site.ledger), str(gate))
    behind = notes(site, 20)
    worker = site.worker("-c", "1", "--prefetch", "0")
    site.until(lambda: long.id in site.ledger.count(), "the long task has begun")
    assert site.waiting() == {"default": len(behind)}
    gate.open()
    assert set(site.ended(*short, long, *behind)) == {states.SUCCESS}
    assert worker.stop() == 0


def test_a_burst_leaves_what_is_delayed_and_a_number_of_tasks_is_exact(site: Site):
    handles = notes(site, 30)
    later = tasks.note.apply_async((str(site.ledger),), countdown=3600)
    done = run(site, "--max-tasks", "7", "-c", "3")
    assert done.returncode == 0
    assert "stopped: 7 tasks done, 0 failed" in done.stderr
    assert len(site.ledger.lines()) == 7
    assert site.deliveries_to_come(*(handle for handle in handles if not handle.ready())) == {1}
    assert "stopped: 23 tasks done" in burst(site).stderr
    assert site.ended(*handles) == [states.SUCCESS] * 30
    assert later.state == states.PENDING
    site.comes_to(default=1)


def test_without_grace_what_runs_goes_back_at_once(site: Site):
    worker = site.worker("--grace", "0")
    gate = site.gate()
    handle = tasks.hold.delay(str(site.ledger), str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    assert worker.stop() == 0
    worker.wait_for("goes back to its queue")
    assert site.deliveries_to_come(handle) == {1}


def test_a_purge_removes_what_waits_in_the_workers_queues_first(site: Site):
    notes(site, 5)
    tasks.note.apply_async((str(site.ledger),), countdown=3600)
    notes(site, 3, queue="other")
    done = burst(site, "--purge", "-Q", "default,empty")
    assert "purged 6 messages from default\npurged 0 messages from empty\n" in done.stdout
    site.comes_to(other=3)
    assert site.ledger.lines() == []


# Several workers


@pytest.fixture
def flock(site: Site) -> Iterator[None]:
    """End workers that a supervisor started, which are in groups of their own, whatever becomes of the test."""
    yield
    for node in site.nodes():
        if group_of(node.pid):
            os.killpg(node.pid, signal.SIGKILL)


def alive(site: Site) -> dict[str, int]:
    return {node.name: node.pid for node in site.nodes() if group_of(node.pid)}


@pytest.mark.usefixtures("flock")
def test_several_workers_are_kept_alive_by_a_supervisor_that_passes_on_what_it_is_told(site: Site):
    pidfile = site.folder / "pid"
    notes(site, 4)
    worker = site.worker("--workers", "2", "-n", "w", "-c", "1", "--purge", "--pidfile", str(pidfile), ready=False)
    worker.wait_for("ready", 2)
    site.until(lambda: set(alive(site)) == {"w-1", "w-2"}, "both have signed on")
    assert int(pidfile.read_text()) == worker.pid
    assert (site.waiting(), site.ledger.lines()) == ({}, [])
    gate = site.gate()
    held = bulk(tasks.hold.s(str(site.ledger), str(gate)) for _ in range(2))
    site.until(lambda: len(site.ledger.lines("start")) == 2, "each has a task")
    waits = notes(site, 2)
    before = alive(site)
    os.killpg(before["w-1"], signal.SIGKILL)
    worker.wait_for("ready", 3)
    # One worker less is no reason to purge again, and no conflict about the pidfile.
    site.until(lambda: alive(site).get("w-1") not in (None, before["w-1"]), "it came back")
    assert alive(site)["w-2"] == before["w-2"]
    worker.send(signal.SIGUSR1)
    worker.wait_for("most recent call first", 2)
    release(site, gate, *held, *waits)
    assert worker.stop() == 0
    assert alive(site) == {}
    assert not pidfile.exists()


@pytest.mark.usefixtures("flock")
def test_workers_leave_when_their_supervisor_is_killed(site: Site):
    worker = site.worker("--workers", "2", "-c", "1", ready=False)
    worker.wait_for("ready", 2)
    site.until(lambda: len(alive(site)) == 2, "both have signed on")
    worker.send(signal.SIGKILL)
    site.until(lambda: not alive(site), "both have left")
    assert {node.status for node in site.nodes()} == {"offline"}


def test_workers_that_leave_by_themselves_are_not_started_again(site: Site):
    handles = notes(site, 20)
    done = run(site, "--workers", "2", "--burst", "-P", "threads")
    assert done.returncode == 0
    assert done.stderr.count("ready") == 2
    assert site.ended(*handles) == [states.SUCCESS] * 20


# Names


def test_names_are_made_of_host_and_process(site: Site):
    worker = site.worker("-n", "shop@%h-%i")
    site.until(lambda: len(site.nodes()) == 1, "it has signed on")
    assert site.nodes()[0].name == f"shop@{os.uname().nodename}-{worker.pid}"
    assert worker.stop() == 0
    assert site.nodes()[0].status == "offline"


def test_two_workers_of_one_name_both_work_and_say_that_they_should_not(site: Site):
    workers = [site.worker("-n", "twin", "-c", "1") for _ in range(2)]
    gate = site.gate()
    handles = bulk(tasks.hold.s(str(site.ledger), str(gate)) for _ in range(2))
    site.until(lambda: len(site.ledger.lines("start")) == 2, "each has a task")
    for worker in workers:
        worker.wait_for("Another worker has the name twin too")
    release(site, gate, *handles)
    assert site.ended(*handles) == [states.SUCCESS] * 2
    assert max(site.ledger.count().values()) == 1
    assert [worker.stop() for worker in workers] == [0, 0]
    assert all(worker.output.count("Another worker has the name") == 1 for worker in workers)


# What it says


def test_the_banner_says_what_the_worker_is_before_it_is_ready(site: Site):
    command = [*COMMAND, "-n", "w", "-c", "2", "-Q", "mail,default"]
    env = {**environment(site), "PYTHONIOENCODING": "ascii"}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip()]
        while "tests.app.tasks.write_note" not in said:
            said.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert re.fullmatch(r"django_tasks \d\S* (\\xb7|.) w", said[0])
    assert f"broker   default ({type(site.broker).__name__})" in said
    assert f"results  default ({type(results['default']).__name__})" in said
    assert "pool     prefork, 2 at once" in said
    assert "queues   mail, default" in said
    assert "tests.acceptance.tasks.note" in said


def test_each_task_has_a_line_when_it_comes_and_one_when_it_ends(site: Site):
    worker = site.worker("-P", "threads", "-n", "w")
    book = str(site.ledger)
    good = tasks.note.delay(book)
    bad = tasks.raise_text.delay("it broke")
    expected = tasks.look_up.delay(book)
    again = tasks.retry_until.delay(book, 2)
    late = tasks.note.apply_async((book,), expires=-1)
    named = tasks.note.apply_async((book,), shadow="a nicer name")
    gone = tasks.note.apply_async((book,), task_id="revoked-before")
    site.ended(good, bad, expected, again, late, named, gone)
    gate = site.gate()
    revoked = tasks.tracked.delay(book, str(gate))
    site.until(lambda: revoked.id in site.ledger.count(), "it has begun")
    revoke([revoked.id], terminate=True)
    site.ended(revoked)
    assert worker.stop() == 0
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}: "
    name, seconds = r"tests\.acceptance\.tasks\.", r"\d+\.\d{6}s"
    trace = r"ValueError: it broke\nTraceback \(most recent call last\):\n(.*\n)*ValueError: it broke"
    for line in (
        rf"{stamp}INFO/MainProcess\] w ready",
        rf"{stamp}INFO/MainProcess\] Task {name}note\[{good.id}\] received",
        rf"{stamp}INFO/MainProcess\] Task {name}note\[{good.id}\] succeeded in {seconds}: 1",
        rf"{stamp}ERROR/MainProcess\] Task {name}raise_text\[{bad.id}\] failed in {seconds}: {trace}",
        rf"{stamp}INFO/MainProcess\] Task {name}look_up\[{expected.id}\] failed in {seconds}: KeyError: 'not here'\n\[",
        rf"{stamp}INFO/MainProcess\] Task {name}retry_until\[{again.id}\] is to be retried: ValueError: not yet",
        rf"{stamp}INFO/MainProcess\] Task {name}retry_until\[{again.id}\] succeeded in {seconds}: 2",
        rf"{stamp}INFO/MainProcess\] Task {name}note\[{late.id}\] revoked: TaskExpired: expired at ",
        rf"{stamp}INFO/MainProcess\] Task a nicer name\[{named.id}\] succeeded in",
        rf"{stamp}INFO/MainProcess\] Task {name}tracked\[{revoked.id}\] revoked: TaskRevoked: ended while it ran",
        rf"{stamp}INFO/MainProcess\] w stopping \(warm\): 0 tasks to end",
        rf"{stamp}INFO/MainProcess\] w stopped: \d tasks done, 2 failed",
    ):
        assert re.search(line, worker.output), f"{line}\n{worker.output}"


def test_a_log_level_leaves_out_what_is_below_it(site: Site):
    handles = [*notes(site, 3), tasks.raise_text.delay("it broke")]
    done = burst(site, "-l", "error")
    assert done.stdout == ""
    assert "ready" not in done.stderr
    assert "received" not in done.stderr
    assert "failed in" in done.stderr
    assert set(site.ended(*handles)) == {states.SUCCESS, states.FAILURE}


def test_a_log_file_takes_the_lines_and_may_be_rotated_away(site: Site):
    log, old = site.folder / "log", site.folder / "log.1"
    worker = site.worker("--logfile", str(log), "--json-logs", ready=False)
    site.until(lambda: log.exists() and "ready" in log.read_text(), "it is ready")
    first = notes(site)[0]
    site.until(lambda: "succeeded" in log.read_text(), "the first task has ended")
    log.rename(old)
    second = tasks.raise_text.delay("caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    site.ended(second)
    assert worker.stop() == 0
    records = [[json.loads(line) for line in path.read_text().splitlines()] for path in (old, log)]
    assert worker.output == ""
    done = next(record for record in records[0] if "succeeded" in record["message"])
    assert done["task"] == "tests.acceptance.tasks.note"
    assert (done["task_id"], done["state"], done["attempt"], done["root_id"]) == (first.id, "SUCCESS", 1, first.id)
    assert done["level"] == "INFO"
    assert done["logger"] == "django_tasks.task"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", done["time"])
    failed = next(record for record in records[1] if "failed" in record["message"])
    assert (failed["task_id"], failed["level"], failed["state"]) == (second.id, "ERROR", "FAILURE")
    assert any("stopped" in record["message"] for record in records[1])


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_signal_prints_the_stack_of_every_thread_and_child_and_the_worker_goes_on(site: Site, pool: str):
    worker = site.worker("-P", pool)
    gate = site.gate()
    handle = tasks.hold.delay(str(site.ledger), str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    worker.send(signal.SIGUSR1)
    worker.wait_for(" in hold")
    for place in ("heart.py", "listener.py", "maintenance.py", "bell.py"):
        worker.wait_for(place)
    gate.open()
    assert handle.get(20) == 1
    assert worker.stop() == 0


# The process


def test_a_pidfile_is_there_while_the_worker_is_and_keeps_a_second_one_out(site: Site):
    pidfile = site.folder / "pid"
    worker = site.worker("--pidfile", str(pidfile))
    assert pidfile.read_text() == f"{worker.pid}\n"
    notes(site, 3, queue="other")
    second = run(site, "--pidfile", str(pidfile), "--purge", "-Q", "other")
    assert second.returncode == 1
    assert second.stderr == f"CommandError: {pidfile} exists: is a worker running? Remove it if not.\n"
    site.comes_to(other=3)
    assert worker.stop() == 0
    assert not pidfile.exists()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_is_a_signal_to_the_worker(site: Site, pool: str, number: int):
    # As Ctrl-C in a terminal, and a service manager that ends all of a service's processes.
    worker = site.worker("-P", pool, "-c", "1")
    gate = site.gate()
    handle = tasks.hold.delay(str(site.ledger), str(gate))
    site.until(lambda: bool(site.ledger.lines("start")), "the task has begun")
    worker.send(number, group=True)
    worker.wait_for("stopping (warm)")
    gate.open()
    assert worker.wait() == 0
    assert handle.get(1) == 1
    assert "Traceback" not in worker.output
    assert group_of(worker.pid) == []


def test_a_pool_that_cannot_go_on_ends_the_worker_with_exit_code_1(site: Site):
    tasks.ignore_limits.delay(str(site.ledger))
    done = run(site, "-P", "threads", "-c", "1", "--time-limit", "0.3")
    assert done.returncode == 1
    assert "The pool cannot go on" in done.stderr


# What Django's reloader says of the file that is changed here, and of no other.
TOLD_SETTINGS = """\
from tests.acceptance.settings import *
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "own": {"()": "django.utils.log.CallbackFilter", "callback": lambda record: __name__ in record.getMessage()}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["own"]}},
    "loggers": {"django.utils.autoreload": {"level": "DEBUG", "handlers": ["stderr"]}},
}
"""


def test_a_worker_starts_again_when_the_code_changes(site: Site, tmp_path: Path):
    code = tmp_path / "reloaded_settings.py"
    code.write_text(TOLD_SETTINGS)
    site.environment |= {"DJANGO_SETTINGS_MODULE": code.stem, "PYTHONPATH": str(tmp_path)}
    pidfile = tmp_path / "pid"
    notes(site, 2)
    worker = site.worker("--reload", "--purge", "--pidfile", str(pidfile), "-c", "1")
    assert site.ledger.lines() == []
    assert int(pidfile.read_text()) == worker.pid
    assert notes(site)[0].get(20) == 1
    delayed = tasks.note.apply_async((str(site.ledger),), countdown=3600)
    # Once: a change before the reloader has looked for the first time goes unseen, and one too many starts the worker
    # again when it has a task.
    worker.wait_for(f"{code.name} first seen")
    code.touch()
    worker.wait_for("ready", 2)
    assert notes(site)[0].get(20) == 1
    assert int(pidfile.read_text()) == worker.pid
    # Nothing is purged a second time.
    site.comes_to(default=1)
    assert delayed.state == states.PENDING
    assert worker.stop() == 0
    assert not pidfile.exists()
    site.until(lambda: not group_of(worker.pid), "no process is left")


def test_help_names_options_signals_and_exit_codes(site: Site):
    done = run(site, "--help")
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    for word in ("--name", "--queues", "--soft-time-limit", "--pidfile", "TERM", "USR1", "Exit codes: 0", "seconds"):
        assert word in said
    assert "--node-number" not in said


# A database that is not ready


@contextmanager
def site_at(url: str, folder: Path, blocker: Any) -> Iterator[Site]:
    """Give a site in a database of its own, whatever state that is in."""
    connections.settings[ALIAS] = connections.configure_settings({"default": {}, ALIAS: parse(url)})[ALIAS]
    site = Site(ALIAS, folder)
    site.environment["DJANGO_TASKS_TEST_URL"] = url
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": ALIAS}}}
    try:
        keys = {"BROKERS": backend, "RESULTS": backend, **signatures()}
        with blocker.unblock(), override_settings(DJANGO_TASKS=keys):
            yield site
    finally:
        site.close()
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


@pytest.mark.brokers("database", reason="about the database that keeps the messages")
def test_a_database_without_tables_is_told_of_and_waited_for(alias: str, tmp_path: Path, django_db_blocker):
    with site_at(f"sqlite:///{tmp_path}/new.sqlite3", tmp_path, django_db_blocker) as site:
        worker = site.worker("-P", "threads")
        worker.wait_for("run `manage.py migrate`", 3)
        assert worker.output.count("Heartbeat failed") <= 4
        call_command("migrate", database=ALIAS, verbosity=0)
        assert notes(site)[0].get(30) == 1
        site.until(lambda: [node.status for node in site.nodes()] == ["running"], "it has signed on")
        assert worker.stop() == 0


@pytest.mark.brokers("database", reason="about the database that keeps the messages")
def test_a_purge_of_a_database_without_tables_is_refused(alias: str, tmp_path: Path, django_db_blocker):
    with site_at(f"sqlite:///{tmp_path}/new.sqlite3", tmp_path, django_db_blocker) as site:
        done = run(site, "--purge")
        assert done.returncode == 1
        assert done.stderr.startswith("CommandError: Cannot purge default: The database 'default' lacks tables")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.brokers("database", reason="about the database that keeps the messages")
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_server_that_is_down_when_the_worker_starts_is_waited_for(
    alias: str, pool, down, tmp_path, django_db_blocker
):
    with site_at(f"{down.url}/postgres", tmp_path, django_db_blocker) as site:
        down.start()
        call_command("migrate", database=ALIAS, verbosity=0)
        handles = notes(site, 5)
        connections[ALIAS].close()
        down.stop()
        worker = site.worker("-P", pool)
        worker.wait_for("The server does not answer", 2)
        # Told to stop, it need not wait for the server.
        hasty = site.worker("-P", pool)
        assert hasty.stop() == 0
        down.start()
        assert set(site.ended(*handles)) == {states.SUCCESS}
        assert set(site.ledger.count().values()) == {1}
        site.until(lambda: (worker.pid, "running") in [(node.pid, node.status) for node in site.nodes()], "it is there")
        assert worker.stop() == 0
        connections[ALIAS].close()
        down.stop()


@pytest.fixture(scope="module")
def down(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgres]:
    """Give a server of one's own that does not run."""
    with private(PrivatePostgres) as server:
        server.stop()
        yield server
