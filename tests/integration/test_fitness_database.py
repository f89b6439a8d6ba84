"""Is said of a real database what is unsafe about it?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS

from django_tasks.backends.database import DatabaseBroker
from django_tasks.database_fitness import NETWORKED, examine, file_system, networked, slack
from django_tasks.diagnosis import Diagnosis
from django_tasks.exceptions import BrokerUnavailable, StoreUnavailable
from django_tasks.models import Crash
from django_tasks.results.database import DatabaseStore
from tests import databases
from tests.integration.stage import until
from tests.outages import unreachable
from tests.sabotage import execute
from tests.vendors import each_vendor
from tools.servers import PrivateMariaDB, PrivatePostgres, PrivateServer, private

TESTS_OWN = {"E102", "W104"}
"""A server that was started for tests does not wait for the disk."""

MOUNTS = """\
22 28 0:20 / /proc rw,relatime shared:5 - proc proc rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 28 0:40 / /srv/shared\\040data rw,relatime shared:9 master:2 - nfs4 host:/export rw,vers=4.2
41 40 8:2 / /srv/shared\\040data/local rw,relatime - xfs /dev/sdb1 rw
42 28 8:3 / /mnt rw,relatime - ext4 /dev/sdc1 rw
43 28 0:41 / /mnt rw,relatime - cifs //host/share rw
"""


def ids(told: Diagnosis) -> set[str]:
    return {str(message.id).removeprefix("django_tasks.") for message in told.found} - TESTS_OWN


def broker(alias: str) -> DatabaseBroker:
    return DatabaseBroker("default", {"OPTIONS": {"USING": alias}})


def store(alias: str) -> DatabaseStore:
    return DatabaseStore("default", {"OPTIONS": {"USING": alias}})


@each_vendor()
def test_a_database_says_what_it_is(alias: str) -> None:
    told = broker(alias).diagnose()
    name, version = told.what.split(" ", 1)
    assert name == {"default": "SQLite", "postgres": "PostgreSQL", "mariadb": "MariaDB"}[alias]
    assert version[0].isdigit()
    assert told.where.endswith(connections[alias].settings_dict["NAME"])
    assert (told.connections is None) == (alias == "default")
    assert ids(told) == ids(store(alias).diagnose()) == set()


@each_vendor(transaction=True)
def test_a_database_that_may_not_be_asked_is_not(alias: str) -> None:
    with unreachable(alias) as nowhere:
        assert ids(broker(nowhere).diagnose(ask=False)) == ids(store(nowhere).diagnose(ask=False)) == set()


@each_vendor()
def test_a_database_that_does_not_answer_raises_what_the_contract_says(alias: str) -> None:
    with unreachable(alias) as nowhere:
        with pytest.raises(BrokerUnavailable):
            broker(nowhere).diagnose()
        with pytest.raises(StoreUnavailable):
            store(nowhere).diagnose()


@each_vendor("postgres", "mariadb")
def test_a_clock_that_is_off_is_told(alias: str) -> None:
    assert "W154" in ids(examine(alias, clock=lambda: time.time() - 60))


@each_vendor("postgres")
@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("statement_timeout", "5s", {"W107"}),
        ("statement_timeout", "10min", set()),
        ("idle_in_transaction_session_timeout", "900ms", {"W107"}),
    ],
)
def test_a_timeout_that_cuts_off_a_settlement_is_told(alias: str, name: str, value: str, found: set[str]) -> None:
    execute(alias, f"SET {name} = '{value}'")
    assert ids(examine(alias)) == found


@each_vendor("mariadb")
def test_a_timeout_of_mariadb_is_told_too(alias: str) -> None:
    execute(alias, "SET max_statement_time = 2.5")
    try:
        [found] = [one for one in examine(alias).found if one.id == "django_tasks.W107"]
    finally:
        execute(alias, "SET max_statement_time = 0")
    assert "after 2.5 s (max_statement_time)" in found.msg


@each_vendor("postgres")
def test_a_commit_that_does_not_wait_for_the_disk_is_told(alias: str) -> None:
    execute(alias, "SET synchronous_commit = off")
    assert "django_tasks.W104" in {found.id for found in examine(alias).found}


@each_vendor("mariadb", transaction=True)
def test_a_table_without_transactions_is_an_error(alias: str) -> None:
    table = Crash._meta.db_table
    execute(alias, f"ALTER TABLE {table} ENGINE = MyISAM")
    try:
        [found] = [one for one in examine(alias).found if one.id == "django_tasks.E103"]
    finally:
        execute(alias, f"ALTER TABLE {table} ENGINE = InnoDB")
    assert table in found.msg
    assert f"ALTER TABLE {table} ENGINE=InnoDB" in str(found.hint)


@each_vendor("sqlite", transaction=True)
def test_an_sqlite_file_that_a_power_cut_may_destroy_is_an_error(alias: str) -> None:
    execute(alias, "PRAGMA synchronous = OFF")
    try:
        found = [str(one.id) for one in broker(alias).check([alias])]
    finally:
        execute(alias, "PRAGMA synchronous = NORMAL")
    assert found == ["django_tasks.E102"]


@contextmanager
def aliased(server: PrivateServer, name: str) -> Iterator[str]:
    """Give the alias of a server's own database, one that tests may use unasked."""
    connections.databases[NO_DB_ALIAS] = connections.configure_settings(
        {"default": databases.parse(server.url, name=name)}
    )["default"]
    try:
        yield NO_DB_ALIAS
    finally:
        connections[NO_DB_ALIAS].close()
        del connections[NO_DB_ALIAS]
        del connections.databases[NO_DB_ALIAS]


@pytest.mark.parametrize(
    ("kind", "database", "found"),
    [
        pytest.param(PrivatePostgres, "postgres", "E102", id="postgres, fsync off"),
        pytest.param(PrivateMariaDB, "mysql", "W104", id="mariadb, a log that is flushed each second"),
    ],
)
@pytest.mark.django_db(databases=[])
def test_a_server_that_does_not_wait_for_the_disk_is_told(kind: type[PrivateServer], database: str, found: str) -> None:
    with private(kind) as server, aliased(server, database) as alias:
        assert {str(one.id) for one in examine(alias).found} == {f"django_tasks.{found}"}
        if kind is PrivatePostgres:
            execute(alias, "ALTER SYSTEM SET full_page_writes = off")
            execute(alias, "SELECT pg_reload_conf()")
            until(lambda: any("full_page_writes is off" in str(one.msg) for one in examine(alias).found))


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        pytest.param({"fsync": "on", "synchronous_commit": "on"}, set(), id="PostgreSQL"),
        pytest.param({"fsync": "on", "synchronous_commit": "local"}, set(), id="no wait for a standby"),
        pytest.param({"fsync": "on", "full_page_writes": "off"}, {"E102"}, id="pages that may be torn"),
        pytest.param({"innodb_flush_log_at_trx_commit": "1", "log_bin": "ON", "sync_binlog": "1"}, set(), id="MySQL"),
        pytest.param({"log_bin": "OFF", "sync_binlog": "0"}, set(), id="no binary log"),
        pytest.param({"log_bin": "ON", "sync_binlog": "0"}, {"W105"}, id="a binary log that is not synced"),
        pytest.param({"innodb_flush_log_at_trx_commit": "0"}, {"W104"}, id="a log that is written each second"),
    ],
)
def test_what_is_not_written_in_time_is_known_by_its_settings(variables: dict[str, str], found: set[str]) -> None:
    assert {str(one.id).removeprefix("django_tasks.") for one in slack("default", variables)} == found


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/site/db.sqlite3", "ext4"),
        ("/srv/shared data/db.sqlite3", "nfs4"),
        ("/srv/shared data/local/db.sqlite3", "xfs"),
        ("/srv/shared database/db.sqlite3", "ext4"),
        ("/mnt/db.sqlite3", "cifs"),
    ],
)
def test_the_file_system_of_a_file_is_that_of_the_deepest_and_latest_mount(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_an_error_and_others_are_not() -> None:
    assert [str(one.id) for one in networked("default", "nfs4")] == ["django_tasks.E104"]
    assert not any(list(networked("default", kind)) for kind in ("ext4", "tmpfs", "overlay", ""))
    assert "cifs" in NETWORKED


@pytest.mark.parametrize(
    ("host", "remote"),
    [("", False), ("/run/postgresql", False), ("127.0.0.1", False), ("db.example.com", True)],
    ids=["none", "a socket", "loopback", "a name"],
)
@pytest.mark.django_db(databases=["postgres"])
def test_a_database_elsewhere_is_told_from_one_here(host: str, remote: bool) -> None:
    entry = connections["postgres"].settings_dict
    before = entry["HOST"]
    entry["HOST"] = host
    try:
        assert examine("postgres", ask=False).remote is remote
    finally:
        entry["HOST"] = before
