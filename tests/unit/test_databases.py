"""Does each task get a sound connection, and is none left behind?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, connections, transaction

from django_tasks import databases
from tests.app.models import Note
from tests.vendors import each_vendor

everywhere = each_vendor(transaction=True)


@pytest.fixture(autouse=True)
def _sound(alias: str) -> Any:
    yield
    databases.discard(connections[alias])


def usable(alias: str) -> bool:
    """Tell whether the next task can write, in a transaction of its own."""
    before = Note.objects.using(alias).count()
    Note.objects.using(alias).create(text="x")

    def look() -> int:
        try:
            return Note.objects.using(alias).count()
        finally:
            databases.close_all()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(look).result() == before + 1


@everywhere
def test_a_sound_connection_stays_open_from_task_to_task(alias: str) -> None:
    Note.objects.using(alias).count()
    opened = connections[alias].connection
    databases.tidy("shop.pay")
    Note.objects.using(alias).count()
    assert connections[alias].connection is opened


@everywhere
@pytest.mark.parametrize("age", [0, 60, None])
def test_it_stays_open_whatever_its_greatest_age(alias: str, age: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections[alias].settings_dict, "CONN_MAX_AGE", age)
    Note.objects.using(alias).count()
    opened = connections[alias].connection
    databases.tidy("shop.pay")
    assert connections[alias].connection is opened


def leave_block(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    Note.objects.using(alias).create(text="left")


def leave_savepoint(alias: str) -> None:
    leave_block(alias)
    transaction.atomic(using=alias).__enter__()


def leave_broken_block(alias: str) -> None:
    leave_block(alias)
    transaction.set_rollback(True, using=alias)


def leave_block_without_connection(alias: str) -> None:
    leave_block(alias)
    connections[alias].close()


def leave_autocommit_off(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    Note.objects.using(alias).create(text="left")


def leave_open_by_hand(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
    transaction.set_autocommit(False, using=alias)


def leave_an_error(alias: str) -> None:
    with pytest.raises(DatabaseError), connections[alias].cursor() as cursor:
        cursor.execute("SELECT no_such_column FROM no_such_table")


LEFT = [
    leave_block,
    leave_savepoint,
    leave_broken_block,
    leave_block_without_connection,
    leave_autocommit_off,
    leave_open_by_hand,
    leave_an_error,
]


@everywhere
@pytest.mark.parametrize("leave", LEFT)
def test_whatever_a_task_leaves_the_next_can_work_and_sees_nothing_of_it(alias: str, leave: Any) -> None:
    leave(alias)
    databases.tidy("shop.pay")
    connection = connections[alias]
    assert not Note.objects.using(alias).filter(text="left").exists()
    assert (connection.in_atomic_block, connection.get_autocommit(), connection.needs_rollback) == (False, True, False)
    assert usable(alias)


@everywhere
def test_who_left_a_transaction_open_is_told(alias: str, caplog: pytest.LogCaptureFixture) -> None:
    leave_block(alias)
    databases.tidy("shop.pay")
    assert [(record.getMessage(), record.__dict__["task"]) for record in caplog.records] == [
        ("A task left a transaction open; it is rolled back", "shop.pay")
    ]


@everywhere
def test_hooks_of_a_transaction_that_was_left_open_do_not_run_later(alias: str) -> None:
    ran: list[int] = []
    leave_block(alias)
    transaction.on_commit(lambda: ran.append(1), using=alias)
    databases.tidy("shop.pay")
    with transaction.atomic(using=alias):
        Note.objects.using(alias).count()
    assert ran == []


@everywhere
def test_the_log_of_queries_does_not_grow_with_each_task(alias: str, settings: Any) -> None:
    settings.DEBUG = True
    for _ in range(3):
        Note.objects.using(alias).count()
        databases.tidy("shop.pay")
    assert len(connections[alias].queries_log) == 0


def end(alias: str, number: int) -> None:
    """End a connection from the server's side."""
    connection = connections[alias]
    statement = "SELECT pg_terminate_backend(%s)" if connection.vendor == "postgresql" else "KILL %s"
    with connection.cursor() as cursor:
        cursor.execute(statement, [number])
    databases.close_all()


@each_vendor("postgres", "mariadb", transaction=True)
def test_a_connection_that_the_server_closed_meanwhile_is_replaced_unseen(alias: str) -> None:
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()" if connection.vendor == "postgresql" else "SELECT CONNECTION_ID()")
        [number] = cursor.fetchone()
    databases.tidy("shop.pay")
    opened = connection.connection
    with ThreadPoolExecutor(1) as executor:
        executor.submit(end, alias, number).result()
    assert Note.objects.using(alias).count() == 0
    assert connection.connection is not opened


@everywhere
def test_a_connection_that_cannot_even_be_closed_is_dropped(alias: str) -> None:
    class Unclosable:
        def close(self) -> None:
            raise InterfaceError("connection already closed")

    connection = connections[alias]
    Note.objects.using(alias).count()
    connection.connection.close()
    connection.connection = Unclosable()
    databases.discard(connection)
    assert usable(alias)


@everywhere
def test_a_thread_that_ends_closes_its_own_connections_and_no_others(alias: str) -> None:
    Note.objects.using(alias).count()
    mine = connections[alias].connection

    def work() -> tuple[bool, bool]:
        Note.objects.using(alias).count()
        opened = connections[alias].connection is not None
        databases.close_all()
        return opened, connections[alias].connection is None

    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(work).result() == (True, True)
    assert connections[alias].connection is mine
    Note.objects.using(alias).count()


@everywhere
def test_a_thread_that_opened_none_closes_none(alias: str) -> None:
    with ThreadPoolExecutor(1) as executor:
        executor.submit(databases.close_all).result()
        executor.submit(databases.tidy, "shop.pay").result()
