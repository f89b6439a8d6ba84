"""Is what is wrong with a database said before it does harm, and are its tables as they should be?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_tasks.backends.database import DatabaseBroker
from django_tasks.models import QueuedMessage
from tests.outages import unreachable
from tests.sabotage import execute
from tests.vendors import each_vendor


@pytest.fixture
def broker(alias: str) -> Iterator[DatabaseBroker]:
    broker = DatabaseBroker("default", {"OPTIONS": {"USING": alias}})
    yield broker
    broker.close()


def said(broker: DatabaseBroker, *databases: str) -> list[str]:
    return [str(message.id).removeprefix("django_tasks.") for message in broker.check(databases)]


@each_vendor()
def test_a_database_that_is_fit_is_not_talked_about(alias: str, broker: DatabaseBroker):
    assert said(broker, alias) == []


@each_vendor(transaction=True)
def test_only_databases_that_may_be_asked_are_asked(alias: str, broker: DatabaseBroker):
    with CaptureQueriesContext(connections[alias]) as queries:
        broker.check()
        broker.check(["elsewhere"])
    assert len(queries) == 0


@each_vendor("sqlite", transaction=True)
def test_sqlite_without_a_log_written_ahead_is_warned_about(alias: str, broker: DatabaseBroker):
    execute(alias, "PRAGMA journal_mode = DELETE")
    try:
        [warning] = broker.check([alias])
    finally:
        execute(alias, "PRAGMA journal_mode = WAL")
    assert warning.id == "django_tasks.W101"
    assert '"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"' in str(warning.hint)
    assert '"transaction_mode": "IMMEDIATE"' in str(warning.hint)


@each_vendor("sqlite")
def test_sqlite_in_memory_is_warned_about(alias: str, broker: DatabaseBroker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(connections[alias].settings_dict, "NAME", ":memory:")
    assert said(broker) == ["W102"]


@each_vendor("sqlite", "mariadb")
def test_a_server_that_is_too_old_is_refused(alias: str, broker: DatabaseBroker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections[alias], "get_database_version", lambda: (3, 34, 1))
    [error] = broker.check([alias])
    assert error.id == "django_tasks.E101"
    assert "3.34.1" in error.msg


@each_vendor()
def test_times_that_the_admin_would_show_wrong_are_warned_about(alias: str, broker: DatabaseBroker, settings: Any):
    settings.USE_TZ, settings.TIME_ZONE = False, "America/New_York"
    assert said(broker) == ([] if alias == "postgres" else ["W103"])


@each_vendor()
def test_a_database_that_does_not_answer_is_not_the_business_of_a_check(alias: str):
    with unreachable(alias) as nowhere:
        assert said(DatabaseBroker("default", {"OPTIONS": {"USING": nowhere}}), nowhere) == []


# Once a run


@each_vendor("sqlite", transaction=True)
def test_a_deployment_check_asks_no_database_what_it_has_just_said(alias: str, settings: Any):
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    settings.DJANGO_TASKS = {"BROKERS": backend, "RESULTS": backend}
    databases = [alias]
    for _ in range(2):
        with CaptureQueriesContext(connections[alias]) as asked:
            run_checks(tags=["django_tasks"], include_deployment_checks=True, databases=databases)
        assert [query["sql"] for query in asked if "PRAGMA journal_mode" in query["sql"]] == ["PRAGMA journal_mode"]


# Tables


@each_vendor(transaction=True)
def test_the_models_are_nothing_to_warn_about_on_any_vendor(alias: str):
    call_command("check", databases=[alias], fail_level="WARNING")


@each_vendor()
def test_ready_rows_have_an_index_that_holds_no_others(alias: str):
    connection = connections[alias]
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, QueuedMessage._meta.db_table)
    partial = connection.features.supports_partial_indexes
    flag = [] if partial else ["ready"]
    assert found["django_tasks_queued_ready"]["columns"] == [*flag, "broker", "queue", "rank", "id"]
    assert found["django_tasks_queued_due"]["columns"] == [*flag, "broker", "visible_at"]
    indexes = [one for one in found.values() if (one["index"] or one["unique"]) and not one["primary_key"]]
    assert len(indexes) == 3, "each index costs every message"


@each_vendor("sqlite", transaction=True)
def test_a_column_that_is_altered_leaves_the_indexes_as_they_were(alias: str):
    """SQLite makes the whole table anew for that."""
    before = QueuedMessage._meta.get_field("leased_by")
    after = before.clone()
    after.max_length = 300
    after.set_attributes_from_name("leased_by")
    after.model = QueuedMessage
    with connections[alias].schema_editor() as editor:
        editor.alter_field(QueuedMessage, before, after)
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '%queuedmessage%' ORDER BY name"
        )
        due, ready = (sql for (sql,) in cursor.fetchall())
    with connections[alias].schema_editor() as editor:
        editor.alter_field(QueuedMessage, after, before)
    assert due.endswith('WHERE NOT "ready"')
    assert ready.endswith('WHERE "ready"')
