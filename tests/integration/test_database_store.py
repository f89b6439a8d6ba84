"""What does the database store do beyond the contract of stores, because it is a database?"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import count
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from django_tasks import states
from django_tasks.exceptions import ConfigurationError, StoreUnavailable
from django_tasks.failure import Failure
from django_tasks.message import Message, new_id
from django_tasks.models import TaskResult
from django_tasks.plan import Result
from django_tasks.protocol import LARGEST
from django_tasks.results.database import DatabaseStore
from django_tasks.testing.contracts.harness import together
from tests.sabotage import backend, changed_options, execute, kill
from tests.vendors import each_vendor

PATIENCE = 20.0
NOW = datetime(2026, 10, 25, 2, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
def store(alias: str) -> DatabaseStore:
    return DatabaseStore("default", {"OPTIONS": {"USING": alias}})


def ended(number: int = 0) -> Result:
    return Result(id=new_id(), state=states.SUCCESS, value=b"1", ended_at=NOW + timedelta(seconds=number))


def retried(task_id: str, attempt: int) -> Result:
    return Result(
        id=task_id,
        state=states.RETRY,
        failure=Failure("ValueError", "builtins", f"it broke: {attempt}"),
        worker="w@here",
        attempts=attempt,
        started_at=NOW,
        runtime=1.5,
    )


def history(alias: str, task_id: str) -> list[dict[str, Any]]:
    text = TaskResult.objects.using(alias).get(pk=task_id).history
    return [json.loads(line) for line in text.splitlines()]


def statements(alias: str, call: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connections[alias]) as queries:
        call()
    return [query["sql"] for query in queries]


# Round trips


@each_vendor(transaction=True)
def test_how_many_statements_a_call_costs(alias: str, store: DatabaseStore):
    results = [ended() for _ in range(100)]
    ids = [result.id for result in results]

    def cost(call: Callable[[], object]) -> int:
        return len(statements(alias, call))

    store.save([ended()])
    block = 3 if alias == "default" else 1  # BEGIN, COMMIT
    assert cost(lambda: store.save(results[:1])) == 1
    assert cost(lambda: store.save(results)) == block
    assert cost(lambda: store.get(ids)) == 1
    assert cost(lambda: store.wait(ids, None)) == (2 if alias == "default" else 1)
    assert cost(lambda: store.forget(ids)) == 1
    assert cost(lambda: store.expire(NOW)) == 3
    assert cost(lambda: store.save([])) == cost(lambda: store.get([])) == cost(lambda: store.forget([])) == 0


@each_vendor(transaction=True)
def test_old_results_are_found_by_their_index(alias: str, store: DatabaseStore):
    store.save([ended(number) for number in range(5_000)])
    execute(alias, "ANALYZE TABLE django_tasks_taskresult" if alias == "mariadb" else "ANALYZE")
    sql = next(
        sql for sql in statements(alias, lambda: store.expire(NOW + timedelta(seconds=10), 5)) if "DELETE" in sql
    )
    assert TaskResult.objects.using(alias).count() == 4_995
    assert store.expire(NOW + timedelta(seconds=10), 500) == 5
    with connections[alias].cursor() as cursor:
        cursor.execute(f"{'EXPLAIN QUERY PLAN' if alias == 'default' else 'EXPLAIN'} {sql}")
        assert "django_tasks_result_ended" in str(cursor.fetchall())


# What is written


@each_vendor(transaction=True)
def test_each_attempt_that_did_not_end_the_task_is_a_line_of_its_history(alias: str, store: DatabaseStore):
    started = Result(id="x", state=states.STARTED)
    for attempt in (1, 2):
        store.save([started])
        store.save([retried("x", attempt)])
    store.save([retried("x", 3), started, retried("x", 4), replace(ended(), id="x")])
    store.save([retried("x", 5)])
    lines = history(alias, "x")
    assert [line["attempt"] for line in lines] == [1, 2, 3, 4]
    assert lines[0] == {
        "attempt": 1,
        "state": "RETRY",
        "worker": "w@here",
        "started": "2026-10-25T02:30:00.123456+00:00",
        "ended": "2026-10-25T02:30:01.623456+00:00",
        "error": "ValueError: it broke: 1",
    }


@each_vendor(transaction=True)
def test_a_result_that_is_saved_twice_is_one_line_of_the_history(alias: str, store: DatabaseStore):
    for result in (retried("x", 1), retried("x", 2)):
        for _ in range(3):
            store.save([result])
    assert [line["attempt"] for line in history(alias, "x")] == [1, 2]


@each_vendor(transaction=True)
def test_of_a_long_history_the_end_is_kept(alias: str, store: DatabaseStore):
    loud = Failure("ValueError", "builtins", "it broke %_\\' " * 1_000)
    for attempt in count(1):
        store.save([replace(retried("x", attempt), failure=loud)])
        if attempt == 80:
            break
    text = TaskResult.objects.using(alias).get(pk="x").history
    assert len(text) == 65_536
    assert [json.loads(line)["attempt"] for line in text.splitlines()[1:]] == list(range(81 - text.count("\n") + 1, 81))


HOSTILE = "NUL \x00, a lone \ud800, a \N{GRINNING FACE}, '\"\\%s{}\x1b[31m" * 20


@each_vendor(transaction=True)
def test_nothing_that_is_wrong_with_a_text_keeps_a_result_from_being_written(alias: str, store: DatabaseStore):
    hostile = Result(
        id="x",
        state=HOSTILE,
        value=HOSTILE.encode("utf-8", "surrogatepass"),
        failure=Failure(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE, HOSTILE)),
        task=HOSTILE,
        queue=HOSTILE,
        worker=HOSTILE,
        args_repr=HOSTILE,
        kwargs_repr=HOSTILE,
        retries=10**30,
        attempts=10**30,
        root_id=HOSTILE,
        parent_id=HOSTILE,
        group_id=HOSTILE,
        message=Message(id="x", task=HOSTILE, body=b"\xff", args_repr=HOSTILE, headers={HOSTILE: HOSTILE}),
    )
    plain = ended()
    store.save([hostile, plain])
    store.save([replace(hostile, state=states.RETRY), replace(hostile, id="y", state=states.FAILURE)])
    found = store.get(["x", "y", plain.id])
    assert set(found) == {"x", "y", plain.id}
    kept = found["x"]
    assert kept.value == hostile.value
    assert kept.message is not None
    assert kept.message.headers == {HOSTILE: HOSTILE}
    assert kept.failure is not None
    assert kept.failure.message.startswith("NUL \\x00, a lone \\ud800, a \N{GRINNING FACE}, '\"\\%s{}\\x1b[31m")
    assert len(kept.failure.notes) == 2
    assert kept.retries == LARGEST


@each_vendor(transaction=True)
@pytest.mark.parametrize("value", [b"\xff\x00", b"base64:", b"base64:QUJD", b"\x80base64:", b"", b"\xed\xa0\x80"])
def test_a_value_that_is_not_json_comes_back_as_it_was(alias: str, store: DatabaseStore, value: bytes):
    store.save([replace(ended(), id="x", value=value)])
    assert store.get(["x"])["x"].value == value


@each_vendor(transaction=True)
def test_a_row_that_somebody_has_spoilt_can_be_read(alias: str, store: DatabaseStore):
    store.save([replace(ended(), id="x", failure=Failure("E", "m"), message=Message(id="x", task="t", body=b""))])
    TaskResult.objects.using(alias).update(error_notes="[", message="{}")
    found = store.get(["x"])["x"]
    assert found.message is None
    assert found.failure == Failure("E", "m", notes=("[",))


@each_vendor(transaction=True)
def test_a_message_that_cannot_be_kept_costs_no_result(alias: str, store: DatabaseStore):
    unfit = Message(id="x", task="t", body=b"", headers={"lock": threading.Lock()})
    store.save([replace(ended(), id="x", state=states.FAILURE, message=unfit)])
    assert store.get(["x"])["x"].message is None


@each_vendor(transaction=True)
@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_the_same_whatever_zones_a_project_has(alias: str, settings: Any, *, use_tz: bool):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "America/New_York"
    store = DatabaseStore("default", {"OPTIONS": {"USING": alias}})
    moment = NOW.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    store.save([replace(ended(), id="x", created_at=moment, started_at=moment, ended_at=moment)])
    found = store.get(["x"])["x"]
    assert (found.created_at, found.started_at, found.ended_at) == (NOW, NOW, NOW)
    assert store.expire(NOW) == 0
    assert store.expire(NOW + timedelta(seconds=1)) == 1


# Transactions and faults


@each_vendor(transaction=True)
def test_results_are_part_of_the_callers_transaction(alias: str, store: DatabaseStore):
    kept = ended()
    store.save([kept])
    with transaction.atomic(using=alias):
        store.save([ended() for _ in range(3)])
        assert store.forget([kept.id]) == 1
        transaction.set_rollback(True, using=alias)
    assert [row.pk for row in TaskResult.objects.using(alias)] == [kept.id]


@each_vendor("postgres", "mariadb", transaction=True)
def test_all_results_of_a_call_are_written_or_none(alias: str, store: DatabaseStore):
    with pytest.raises(StoreUnavailable):
        store.save([*(ended() for _ in range(1_200)), replace(ended(), runtime="long")])  # type: ignore[arg-type]
    assert TaskResult.objects.using(alias).count() == 0


@each_vendor(transaction=True)
def test_savers_of_the_same_results_agree_on_who_was_first(alias: str, store: DatabaseStore):
    ids = [new_id() for _ in range(200)]

    def save(number: int) -> None:
        mine = [Result(id=task_id, state=states.SUCCESS, value=b"%d" % number, ended_at=NOW) for task_id in ids]
        for start in range(0, len(ids), 20):
            part = mine[start : start + 20]
            store.save(part if number % 2 else part[::-1])
            seen = store.get(ids[start : start + 20])
            first.setdefault(start, []).append({task_id: result.value for task_id, result in seen.items()})

    first: dict[int, list[dict[str, bytes | None]]] = {}
    together(*[partial(save, number) for number in range(8)])
    assert all(seen == each[0] for each in first.values() for seen in each)


@each_vendor("postgres", "mariadb", transaction=True)
@pytest.mark.parametrize("call", ["save", "get", "wait", "forget", "expire"])
def test_a_connection_that_was_lost_meanwhile_is_replaced_unseen(alias: str, store: DatabaseStore, call: str):
    known = ended()
    store.save([known])
    calls: dict[str, Callable[[], object]] = {
        "save": lambda: store.save([ended()]),
        "get": lambda: len(store.get([known.id])),
        "wait": lambda: len(store.wait([known.id], 5)),
        "forget": lambda: store.forget([known.id]),
        "expire": lambda: store.expire(NOW + timedelta(days=1)),
    }
    kill(alias, backend(alias))
    assert calls[call]() in (None, 1)


@each_vendor(transaction=True)
def test_a_database_that_was_not_migrated_is_told_with_what_to_do(alias: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TaskResult._meta, "db_table", "django_tasks_elsewhere")
    store = DatabaseStore("default", {"OPTIONS": {"USING": alias}})
    with pytest.raises(StoreUnavailable, match=r"manage\.py migrate"):
        store.save([ended()])


# Waiting


@each_vendor(transaction=True)
def test_waiting_sees_what_another_has_written_and_holds_no_transaction(alias: str, store: DatabaseStore):
    awaited = ended()
    looked = threading.Event()
    found: list[dict[str, Result]] = []

    def listen(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        looked.set()
        assert not context["connection"].in_atomic_block
        return execute(sql, params, many, context)

    def wait() -> None:
        with connections[alias].execute_wrapper(listen):
            found.append(store.wait(["another", awaited.id], None))
        connections.close_all()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    assert looked.wait(PATIENCE)
    store.save([replace(awaited, state=states.STARTED, ended_at=None)])
    store.save([awaited])
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert [list(each) for each in found] == [[awaited.id]]


@each_vendor(transaction=True)
def test_waiting_long_asks_less_and_less(alias: str, store: DatabaseStore):
    asked = statements(alias, lambda: store.wait(["never"], 1.0))
    looks = [sql for sql in asked if "PRAGMA" not in sql]
    assert len(looks) < (3 if alias == "default" else 60)


# Settings


class Astray:
    """A router that sends everything where there are no tables."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        return "nowhere"

    db_for_write = db_for_read


@each_vendor(transaction=True)
def test_the_database_is_the_one_that_the_options_name_whatever_routers_say(alias: str, settings: Any):
    settings.DATABASE_ROUTERS = ["tests.integration.test_database_store.Astray"]
    store = DatabaseStore("default", {"OPTIONS": {"USING": alias}})
    assert store.database == alias
    one, other = ended(), ended()
    store.save([one, other])
    assert set(store.get([one.id, other.id])) == set(store.wait([one.id, other.id], None)) == {one.id, other.id}
    assert store.forget([one.id]) == 1
    assert store.expire(NOW + timedelta(days=1)) == 1


@each_vendor("postgres", transaction=True)
def test_values_may_be_bound_by_the_server(alias: str, store: DatabaseStore):
    with changed_options(alias) as options:
        options["server_side_binding"] = True
        results = [*(ended() for _ in range(600)), retried("x", 1)]
        store.save(results)
        assert len(store.get([result.id for result in results])) == 601
        assert len(store.wait([results[0].id, "x"], 5)) == 1
        assert store.expire(NOW + timedelta(days=1), 100) == 100
        assert store.forget(["x"]) == 1


def test_an_alias_that_does_not_exist_is_told():
    with pytest.raises(ConfigurationError, match=r"no USING 'elsewhere'.*'default'.*'postgres'"):
        DatabaseStore("default", {"OPTIONS": {"USING": "elsewhere"}})


def test_an_option_that_does_not_exist_is_told():
    with pytest.raises(ConfigurationError, match="no option 'EXPIRE'; it has EXPIRES, USING"):
        DatabaseStore("default", {"OPTIONS": {"EXPIRE": None}})


def test_a_vendor_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    with pytest.raises(ConfigurationError, match="oracle"):
        DatabaseStore("default", {})
