"""Do our statements survive what databases do to them?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import Error, IntegrityError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from django_tasks.exceptions import BrokerUnavailable
from django_tasks.models import Revocation
from django_tasks.testing.contracts.harness import together
from django_tasks.transactions import Patience, explain, is_conflict, is_full, retrying, write
from tests.outages import unreachable
from tests.sabotage import another, backend, changed_options, execute, kill
from tests.vendors import each_vendor


class Pauses:
    """Sleeps that take no time; the first thing to be done in one of them may be given."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.meanwhile = meanwhile
        self.lengths: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.lengths.append(seconds)
        if len(self.lengths) == 1:
            self.meanwhile()


def add(alias: str, task_id: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_tasks_revocation (task_id, terminate, reason, created_at) VALUES (%s, %s, '', %s)",
            [task_id, False, "2026-01-01 00:00:00"],
        )


def mark(alias: str, task_id: str, reason: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("UPDATE django_tasks_revocation SET reason = %s WHERE task_id = %s", [reason, task_id])


def reasons(alias: str) -> dict[str, str]:
    return dict(Revocation.objects.using(alias).values_list("task_id", "reason"))


@pytest.fixture
def options(alias: str) -> Iterator[dict[str, Any]]:
    with changed_options(alias) as options:
        yield options


# What a block of our own is


@each_vendor(transaction=True)
def test_a_block_commits_as_a_whole(alias: str):
    with write(alias):
        add(alias, "a")
        add(alias, "b")
    assert set(reasons(alias)) == {"a", "b"}


@each_vendor(transaction=True)
def test_a_block_that_fails_leaves_nothing(alias: str):
    def fail() -> None:
        with write(alias):
            add(alias, "a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert reasons(alias) == {}
    assert not connections[alias].in_atomic_block


@each_vendor(transaction=True)
def test_a_block_within_the_callers_transaction_is_part_of_it_and_costs_nothing(alias: str):
    with CaptureQueriesContext(connections[alias]) as inner, transaction.atomic(using=alias):
        add(alias, "a")
        with write(alias):
            add(alias, "b")
        transaction.set_rollback(True, using=alias)
    assert reasons(alias) == {}
    assert not any("SAVEPOINT" in query["sql"] for query in inner)


@each_vendor(transaction=True)
def test_an_error_within_the_callers_transaction_marks_it_to_be_rolled_back(alias: str):
    with transaction.atomic(using=alias):
        add(alias, "a")
        with pytest.raises(IntegrityError):
            retrying(alias, lambda: add(alias, "a"))
        with pytest.raises(TransactionManagementError):
            add(alias, "b")
    assert reasons(alias) == {}


@each_vendor(transaction=True)
def test_a_caller_that_commits_by_hand_keeps_the_say(alias: str):
    connection = connections[alias]
    connection.set_autocommit(False)
    try:
        retrying(alias, lambda: add(alias, "a"))
        connection.rollback()
    finally:
        connection.set_autocommit(True)
    assert reasons(alias) == {}


@each_vendor("sqlite", transaction=True)
def test_a_block_on_sqlite_takes_the_write_lock_when_it_begins(alias: str):
    with another(alias) as run:
        run("PRAGMA busy_timeout = 0")
        with write(alias), pytest.raises(OperationalError, match="locked"):
            run("BEGIN IMMEDIATE")
        with transaction.atomic(using=alias):
            run("BEGIN IMMEDIATE")


@each_vendor("mariadb", transaction=True)
@pytest.mark.parametrize("level", ["repeatable read", "serializable", None])
def test_a_block_on_mysql_reads_what_is_committed_whatever_the_session_does(
    alias: str, options: dict[str, Any], level: str | None
):
    options["isolation_level"] = level
    add(alias, "a")
    connections[alias].close()
    execute(alias, f"SET SESSION TRANSACTION ISOLATION LEVEL {level or 'REPEATABLE READ'}")
    update = "UPDATE django_tasks_revocation SET reason = '{}' WHERE task_id = 'a'"
    with another(alias) as run:
        with write(alias):
            assert reasons(alias) == {"a": ""}
            run(update.format("first"))
            assert reasons(alias) == {"a": "first"}
        if level != "serializable":
            with transaction.atomic(using=alias):
                assert reasons(alias) == {"a": "first"}
                run(update.format("second"))
                assert reasons(alias) == {"a": "first"}, "the project's own transactions are as they were"


@each_vendor("mariadb", transaction=True)
def test_a_block_on_mysql_costs_no_statement_where_the_session_is_right_already(alias: str):
    with CaptureQueriesContext(connections[alias]) as queries, write(alias):
        add(alias, "a")
    assert not any("ISOLATION" in query["sql"] for query in queries)


# When others are in the way


@each_vendor("postgres", "mariadb", transaction=True)
def test_two_that_wait_for_each_other_both_get_through(alias: str):
    add(alias, "a")
    add(alias, "b")
    both_have_one = threading.Barrier(2)

    def swap(first: str, second: str) -> Callable[[], int]:
        tries = 0

        def update() -> None:
            nonlocal tries
            tries += 1
            mark(alias, first, first + second)
            if tries == 1:
                both_have_one.wait(30)
            mark(alias, second, first + second)

        def run() -> int:
            retrying(alias, update, patience=Patience(rng=lambda: 0.0))
            return tries

        return run

    tries = together(swap("a", "b"), swap("b", "a"))
    assert sum(tries) > 2, "one of them was sent back; it may meet the other again at once, for nothing makes it wait"
    assert reasons(alias) in ({"a": "ab", "b": "ab"}, {"a": "ba", "b": "ba"})


@each_vendor("postgres", transaction=True)
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_strict_isolation_level_is_nobodys_problem(alias: str, level: str):
    add(alias, "a")
    execute(alias, f"SET default_transaction_isolation TO '{level}'")
    seen: list[str] = []
    with another(alias) as run:

        def update() -> None:
            seen.append(reasons(alias)["a"])
            if len(seen) == 1:
                run("UPDATE django_tasks_revocation SET reason = 'theirs' WHERE task_id = 'a'")
            mark(alias, "a", seen[-1] + " and ours")

        pauses = Pauses()
        retrying(alias, update, patience=Patience(sleep=pauses))
    execute(alias, "RESET default_transaction_isolation")
    assert seen == ["", "theirs"]
    assert len(pauses.lengths) == 1
    assert reasons(alias) == {"a": "theirs and ours"}


@each_vendor(transaction=True)
@pytest.mark.parametrize("atomic", [True, False])
def test_a_lock_that_another_holds_too_long_is_waited_for_again(alias: str, *, atomic: bool):
    add(alias, "a")
    impatient = {
        "sqlite": "PRAGMA busy_timeout = 0",
        "postgresql": "SET lock_timeout = '10ms'",
        "mysql": "SET SESSION innodb_lock_wait_timeout = 1",
    }
    execute(alias, impatient[connections[alias].vendor])
    with another(alias) as run:
        run("BEGIN")
        run("UPDATE django_tasks_revocation SET reason = 'theirs' WHERE task_id = 'a'")
        pauses = Pauses(lambda: run("COMMIT"))
        retrying(alias, lambda: mark(alias, "a", "ours"), atomic=atomic, patience=Patience(sleep=pauses))
    connections[alias].close()
    assert len(pauses.lengths) == 1
    assert reasons(alias) == {"a": "ours"}


@each_vendor("sqlite", transaction=True)
def test_patience_ends_after_so_many_tries_and_each_pause_is_of_random_length_up_to_a_growing_one(alias: str):
    execute(alias, "PRAGMA busy_timeout = 0")
    pauses = Pauses()
    with another(alias) as run:
        run("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            retrying(alias, lambda: add(alias, "a"), patience=Patience(tries=9, sleep=pauses, rng=lambda: 0.5))
    connections[alias].close()
    assert pauses.lengths == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5]


@each_vendor("sqlite", transaction=True)
def test_patience_ends_after_so_many_seconds(alias: str):
    execute(alias, "PRAGMA busy_timeout = 0")
    pauses, now = Pauses(), iter(range(0, 1000, 11))
    with another(alias) as run:
        run("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            retrying(alias, lambda: add(alias, "a"), patience=Patience(sleep=pauses, clock=lambda: float(next(now))))
    connections[alias].close()
    assert len(pauses.lengths) == 2


@each_vendor("sqlite", transaction=True)
def test_nothing_is_tried_again_within_the_callers_transaction(alias: str):
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        with another(alias) as run:
            run("PRAGMA busy_timeout = 0")
            run("BEGIN IMMEDIATE")

    def run_in_a_transaction() -> None:
        with transaction.atomic(using=alias):
            add(alias, "a")
            retrying(alias, fail)

    with pytest.raises(OperationalError, match="locked"):
        run_in_a_transaction()
    assert calls == [1]


@each_vendor("sqlite", transaction=True)
def test_what_is_wrong_in_itself_is_not_tried_again(alias: str):
    add(alias, "a")
    calls: list[int] = []

    def insert() -> None:
        calls.append(1)
        add(alias, "a")

    with pytest.raises(IntegrityError):
        retrying(alias, insert)
    assert calls == [1]


@each_vendor("sqlite", transaction=True)
def test_a_conflict_is_known_through_the_errors_that_were_made_of_it(alias: str):
    execute(alias, "PRAGMA busy_timeout = 0")
    pauses = Pauses()

    def translated() -> None:
        try:
            add(alias, "a")
        except Error as error:
            raise BrokerUnavailable("no") from error

    with another(alias) as run:
        run("BEGIN IMMEDIATE")
        pauses.meanwhile = lambda: run("ROLLBACK")
        retrying(alias, translated, atomic=False, patience=Patience(sleep=pauses))
    connections[alias].close()
    assert set(reasons(alias)) == {"a"}
    assert not is_conflict(BrokerUnavailable("no"))


# When the connection is lost


@each_vendor("postgres", "mariadb", transaction=True)
@pytest.mark.parametrize("atomic", [True, False])
def test_a_connection_that_died_while_idle_is_replaced_unseen(alias: str, *, atomic: bool):
    kill(alias, backend(alias))
    retrying(alias, lambda: add(alias, "a"), atomic=atomic)
    assert set(reasons(alias)) == {"a"}


@each_vendor("postgres", "mariadb", transaction=True)
def test_a_connection_that_died_before_the_commit_is_replaced_and_all_is_done_anew(alias: str):
    calls: list[int] = []

    def insert() -> None:
        calls.append(1)
        add(alias, f"a{len(calls)}")
        if len(calls) == 1:
            kill(alias, backend(alias))
        add(alias, "b")

    retrying(alias, insert)
    assert set(reasons(alias)) == {"a2", "b"}


@each_vendor("postgres", "mariadb", transaction=True)
def test_a_connection_that_dies_every_time_is_replaced_once(alias: str):
    calls: list[int] = []

    def insert() -> None:
        calls.append(1)
        kill(alias, backend(alias))
        add(alias, "a")

    with pytest.raises(Error):
        retrying(alias, insert)
    assert calls == [1, 1]
    assert reasons(alias) == {}, "the connection that comes next is a good one"


@each_vendor("postgres", "mariadb", transaction=True)
def test_a_commit_whose_answer_was_lost_is_left_to_whoever_knows_what_to_do(alias: str):
    calls: list[int] = []

    def insert() -> None:
        calls.append(1)
        add(alias, "a")
        kill(alias, backend(alias))

    with pytest.raises(Error):
        retrying(alias, insert)
    assert calls == [1]
    assert reasons(alias) == {}


@each_vendor("postgres", "mariadb", transaction=True)
def test_a_connection_lost_within_the_callers_transaction_is_told(alias: str):
    def run() -> None:
        with transaction.atomic(using=alias):
            add(alias, "a")
            kill(alias, backend(alias))
            retrying(alias, lambda: add(alias, "b"))

    with pytest.raises(Error):
        run()
    assert reasons(alias) == {}


@each_vendor()
def test_a_server_that_does_not_answer_is_not_waited_for(alias: str):
    pauses = Pauses()
    with unreachable(alias) as nowhere, pytest.raises(OperationalError):
        retrying(nowhere, lambda: add(nowhere, "a"), patience=Patience(sleep=pauses))
    assert pauses.lengths == []


# What people are told


@each_vendor()
def test_a_missing_table_is_told_with_what_makes_it(alias: str):
    with pytest.raises(Error) as caught, transaction.atomic(using=alias):
        execute(alias, "SELECT 1 FROM django_tasks_nothing")
    told = explain(alias, caught.value)
    assert "manage.py migrate" in told
    assert ("--database" in told) == (alias != "default")


@each_vendor("sqlite", transaction=True)
def test_a_full_database_is_known(alias: str):
    with connections[alias].cursor() as cursor:
        # Other tests leave free pages behind, in which the row would find room.
        cursor.execute("VACUUM")
        cursor.execute("PRAGMA page_count")
        (pages,) = cursor.fetchone()
        cursor.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OperationalError) as caught:
            cursor.execute("INSERT INTO django_tasks_crash SELECT 1, 'a', '', 1, hex(zeroblob(10000000)), ''")
    connections[alias].close()
    assert is_full(caught.value)
    assert not is_full(OperationalError("full"))
    assert not is_conflict(caught.value)
