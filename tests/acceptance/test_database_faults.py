"""What happens to tasks when their database goes away, refuses or is overloaded?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections
from django.test import override_settings

from django_tasks import bulk, states
from testproject.backends import signatures
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.databases import parse
from tests.vendors import each_vendor
from tools.servers import PrivatePostgres
from tools.servers import private as running_privately

pytestmark = pytest.mark.brokers("database", reason="about the database that keeps the messages")

ALIAS = "private"


class PrivateSite(Site):
    """A site on a PostgreSQL server of its own, which may be stopped and killed."""

    def __init__(self, folder: Path, server: PrivatePostgres) -> None:
        super().__init__(ALIAS, folder)
        self.server = server

    def restart(self, *, kill: bool) -> None:
        self.server.stop(kill=kill)
        self.server.start()


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    with running_privately(PrivatePostgres) as server:
        yield server


@pytest.fixture
def private(server: PrivatePostgres, tmp_path: Path, django_db_blocker) -> Iterator[PrivateSite]:
    url = f"{server.url}/postgres"
    connections.settings[ALIAS] = connections.configure_settings({"default": {}, ALIAS: parse(url)})[ALIAS]
    site = PrivateSite(tmp_path, server)
    site.environment["DJANGO_TASKS_TEST_URL"] = url
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": ALIAS}}}
    keys = {"BROKERS": backend, "RESULTS": backend, **signatures()}
    with django_db_blocker.unblock(), override_settings(DJANGO_TASKS=keys):
        call_command("migrate", database=ALIAS, verbosity=0)
        yield site
        site.close()
        call_command("flush", database=ALIAS, interactive=False, verbosity=0)
        connections[ALIAS].close()
    # Another module that asks for it has a server elsewhere.
    del connections[ALIAS]
    del connections.settings[ALIAS]


@pytest.mark.parametrize("kill", [False, True], ids=["fast", "immediate"])
def test_a_server_that_is_restarted_under_load_costs_neither_tasks_nor_runs(private: PrivateSite, *, kill: bool):
    worker = private.worker()
    handles = bulk(tasks.pause.s(str(private.ledger), 0.01) for _ in range(400))
    private.until(lambda: len(private.ledger.lines("end")) > 50, "tasks are running")
    private.restart(kill=kill)
    connections[ALIAS].close()
    assert set(private.ended(*handles)) == {states.SUCCESS}
    started = private.ledger.count()
    assert set(started) == {handle.id for handle in handles}
    assert max(started.values()) == 1
    assert worker.stop() == 0


def test_a_result_is_kept_until_the_server_is_back_and_the_task_is_not_run_again(private: PrivateSite):
    worker = private.worker(LEASE=30.0)
    gate = private.gate()
    result = tasks.hold.delay(str(private.ledger), str(gate))
    private.until(lambda: bool(private.ledger.lines("start")), "the task has begun")
    private.server.stop()
    gate.open()
    worker.wait_for("does not answer")
    private.server.start()
    connections[ALIAS].close()
    assert result.get(40) == 1
    assert private.ledger.count()[result.id] == 1
    assert worker.stop() == 0


def test_a_server_that_turns_read_only_is_waited_for(private: PrivateSite):
    worker = private.worker()
    handles = bulk(tasks.pause.s(str(private.ledger), 0.01) for _ in range(200))
    private.until(lambda: len(private.ledger.lines("end")) > 20, "tasks are running")
    read_only(on=True)
    worker.wait_for("does not answer")
    read_only(on=False)
    assert set(private.ended(*handles)) == {states.SUCCESS}
    assert worker.stop() == 0


def read_only(*, on: bool) -> None:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        cursor.execute("SELECT pg_reload_conf()")
    connections[ALIAS].close()


@each_vendor("postgres", transaction=True)
def test_connections_ended_by_the_server_again_and_again_only_fail_the_tasks_that_are_in_a_query(site: Site):
    worker = site.worker()
    stop = threading.Event()
    times = 0

    def terminate() -> None:
        nonlocal times
        while not stop.wait(0.2):
            times += 1
            with connections[site.alias].cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        connections[site.alias].close()

    thread = threading.Thread(target=terminate)
    thread.start()
    try:
        handles = [again(lambda: tasks.query.delay(0.01)) for _ in range(100)]
        ended = [again(lambda handle=handle: site.ended(handle)[0]) for handle in handles]
    finally:
        stop.set()
        thread.join()
    assert set(ended) <= {states.SUCCESS, states.FAILURE}
    # Each time the two that run at most.
    assert times > 0
    assert ended.count(states.FAILURE) <= 2 * times
    assert tasks.query.delay().get(30) == 0
    assert worker.stop() == 0


def again(call):
    """Call until the connection of this process is not the one that was ended."""
    for _ in range(20):
        try:
            return call()
        except (OperationalError, ConnectionError):
            connections["postgres"].close()
    pytest.fail("never got through")
    return None


@each_vendor("postgres", transaction=True)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_no_connection_is_leaked(site: Site, pool: str):
    worker = site.worker("-P", pool, "-c", "4")
    handles = bulk(tasks.query.s() for _ in range(400))
    assert set(site.ended(*handles)) == {states.SUCCESS}
    with connections[site.alias].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        (connected,) = cursor.fetchone()
    # The loop, the heart, the listener and its wait; one a slot.
    assert connected <= 4 + 5
    assert worker.stop() == 0


@each_vendor("postgres", transaction=True)
def test_no_transaction_is_open_while_a_task_runs(site: Site):
    # For the worker's own connections alone: libpq reads it.
    site.environment["PGOPTIONS"] = "-c idle_in_transaction_session_timeout=500ms"
    worker = site.worker()
    assert tasks.query.delay(1.5).get(30) == 0
    assert worker.stop() == 0


@each_vendor("sqlite", transaction=True)
def test_a_file_that_others_keep_locked_is_waited_for(site: Site):
    workers = [site.worker() for _ in range(3)]
    handles = bulk(tasks.pause.s(str(site.ledger), 0.001) for _ in range(600))
    tick = threading.Event()
    for _ in range(5):
        with connections[site.alias].cursor() as cursor:
            cursor.execute("BEGIN EXCLUSIVE")
            tick.wait(0.5)
            cursor.execute("COMMIT")
    assert set(site.ended(*handles)) == {states.SUCCESS}
    assert max(site.ledger.count().values()) == 1
    assert [worker.stop() for worker in workers] == [0, 0, 0]
    assert all("locked" not in worker.output for worker in workers)
