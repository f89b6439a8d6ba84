"""What does the database broker do beyond the contract of brokers, because it is a database?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from threading import Event
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from django_tasks.backends.base import Broker
from django_tasks.backends.database import BYTES, DatabaseBroker
from django_tasks.exceptions import BrokerFull, BrokerUnavailable, ConfigurationError, PublishError
from django_tasks.message import Delivery
from django_tasks.models import QueuedMessage
from django_tasks.protocol import MALFORMED
from django_tasks.testing.contracts.harness import content, ids, sample, samples, together
from tests.sabotage import another, backend, changed_options, execute, kill
from tests.vendors import ALIASES, each_vendor

QUEUE = "default"


@contextmanager
def opened(alias: str, **options: object) -> Iterator[DatabaseBroker]:
    broker = DatabaseBroker("default", {"OPTIONS": {"USING": alias, **options}})
    try:
        yield broker
    finally:
        broker.close()


@pytest.fixture
def broker(alias: str) -> Iterator[DatabaseBroker]:
    with opened(alias) as broker:
        yield broker


@pytest.fixture
def options(alias: str) -> Iterator[dict[str, Any]]:
    with changed_options(alias) as options:
        yield options


def take(broker: Broker, limit: int = 100, *, queues: tuple[str, ...] = (QUEUE,), lease: float = 600) -> list[Delivery]:
    return broker.fetch(queues, limit, lease=lease, consumer="worker@here")


def rows(alias: str) -> dict[str, QueuedMessage]:
    return {row.task_id: row for row in QueuedMessage.objects.using(alias)}


def statements(alias: str, call: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connections[alias]) as queries:
        call()
    return [query["sql"].split()[0].upper() for query in queries]


# Claims


def drain_together(alias: str, number: int, claimers: int) -> list[str]:
    def drain() -> list[str]:
        with opened(alias) as mine:
            got: list[str] = []
            empty = 0
            # One that finds all rows in the hands of others finds them again, or nothing, at its next look.
            while empty < 3:
                fetched = take(mine, 50)
                empty = 0 if fetched else empty + 1
                got += ids(fetched)
            return got

    with opened(alias) as publisher:
        publisher.publish(samples(number))
    return list(chain.from_iterable(together(*[drain] * claimers, patience=100)))


@each_vendor(transaction=True)
def test_sixteen_claimers_take_ten_thousand_messages_and_none_twice(alias: str, broker: DatabaseBroker):
    got = drain_together(alias, 10_000, 16)
    got += ids(take(broker, 10_000))
    assert len(got) == 10_000
    assert set(got) == set(rows(alias))
    assert {row.deliveries for row in rows(alias).values()} == {1}
    assert len({row.lease_token for row in rows(alias).values()}) == 10_000


@each_vendor("mariadb", transaction=True)
@pytest.mark.parametrize("level", ["repeatable read", "read committed"])
def test_claimers_do_not_depend_on_the_isolation_level(alias: str, options: dict[str, Any], level: str):
    options["isolation_level"] = level
    got = drain_together(alias, 10_000, 16)
    with opened(alias) as broker:
        got += ids(take(broker, 10_000))
    assert len(got) == len(set(got)) == 10_000


@each_vendor("postgres", transaction=True)
@pytest.mark.parametrize("level", ["repeatable\\ read", "serializable"])
def test_claimers_get_through_where_the_server_is_strict(alias: str, options: dict[str, Any], level: str):
    options["options"] = f"-c default_transaction_isolation={level}"
    got = drain_together(alias, 1_000, 8)
    with opened(alias) as broker:
        got += ids(take(broker, 1_000))
    assert len(got) == len(set(got)) == 1_000


@each_vendor("postgres", "mariadb", transaction=True)
def test_rows_that_another_has_locked_are_passed_over(alias: str, broker: DatabaseBroker):
    sent = samples(3)
    broker.publish(sent)
    with another(alias) as run:
        run("BEGIN")
        run(f"SELECT * FROM django_tasks_queuedmessage WHERE task_id = '{sent[0].id}' FOR UPDATE")
        assert ids(take(broker, 2)) == ids(sent[1:])
        assert broker.discard([sent[0].id]) == []
        assert broker.purge(QUEUE) == 0
        run("ROLLBACK")
    assert ids(take(broker)) == ids(sent[:1])


@each_vendor("sqlite", transaction=True)
def test_a_look_at_an_empty_queue_takes_no_lock(alias: str, broker: DatabaseBroker):
    execute(alias, "PRAGMA busy_timeout = 0")
    with another(alias) as run:
        run("BEGIN IMMEDIATE")
        broker.publish([])
        assert take(broker) == []
        assert broker.stats() == []
        assert broker.peek(QUEUE, 10) == []
    connections[alias].close()


# Round trips

ONE = {"sqlite": 1, "postgres": 1, "mariadb": 1}
BLOCK = {"sqlite": 3, "postgres": 1, "mariadb": 4}  # BEGIN, one statement or two, COMMIT


@each_vendor(transaction=True)
def test_how_many_statements_a_call_costs(alias: str, broker: DatabaseBroker):
    vendor = next(name for name, known in ALIASES.items() if known == alias)
    broker.publish(samples(1))
    take(broker)

    def cost(call: Callable[[], object]) -> int:
        return len(statements(alias, call))

    assert cost(lambda: broker.publish(samples(1))) == ONE[vendor]
    assert cost(lambda: broker.publish(samples(500))) == {**ONE, "sqlite": 3}[vendor]
    assert cost(lambda: broker.publish(samples(1_500))) == {"sqlite": 4, "postgres": 4, "mariadb": 4}[vendor]
    held: list[Delivery] = []
    assert cost(lambda: held.extend(take(broker))) == {**BLOCK, "sqlite": 4}[vendor]
    assert cost(lambda: take(broker, queues=(QUEUE, "a", "b"))) <= {"sqlite": 6, "postgres": 1, "mariadb": 6}[vendor]
    assert len(held) == 100
    assert cost(lambda: broker.extend(held, 30)) == {**BLOCK, "sqlite": 1}[vendor]
    assert cost(lambda: broker.nack(held[:50])) == {**BLOCK, "sqlite": 4}[vendor]
    assert cost(lambda: broker.ack(held[50:])) == {**BLOCK, "sqlite": 1}[vendor]
    empty = ("nothing",)
    assert cost(lambda: take(broker, queues=empty)) == {"sqlite": 2, "postgres": 2, "mariadb": 4}[vendor]


@each_vendor(transaction=True)
def test_what_is_due_is_promoted_about_once_a_second_while_there_is_enough_else(alias: str, broker: DatabaseBroker):
    broker.publish(samples(200))
    take(broker, 1)
    fetches = [statements(alias, lambda: take(broker, 1)) for _ in range(5)]
    assert len({len(fetch) for fetch in fetches}) == 1


# Plans


def plans(alias: str, call: Callable[[], object]) -> dict[str, str]:
    """Return the statements that a call makes, each with the vendor's plan of it."""
    prefix = "EXPLAIN QUERY PLAN" if connections[alias].vendor == "sqlite" else "EXPLAIN"
    made: dict[str, Any] = {}

    def listen(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        made[sql] = params[0] if many else params
        return execute(sql, params, many, context)

    with connections[alias].execute_wrapper(listen):
        call()
    found = {}
    with connections[alias].cursor() as cursor:
        for sql, params in made.items():
            cursor.execute(f"{prefix} {sql}", params)
            found[sql] = "\n".join(" ".join(map(str, row)) for row in cursor.fetchall())
    return found


SCANS = {
    # How a vendor says that it reads a whole table or index, or sorts what it read.
    "sqlite": ("SCAN django_tasks_queuedmessage\n", "TEMP B-TREE"),
    "postgresql": ("Seq Scan on django_tasks_queuedmessage", "Sort Key: django_tasks_queuedmessage.rank"),
    "mysql": ("django_tasks_queuedmessage ALL ", "django_tasks_queuedmessage index ", "Using filesort"),
}


@each_vendor(transaction=True)
def test_no_call_reads_more_of_a_long_queue_than_it_takes(alias: str, broker: DatabaseBroker):
    broker.publish([sample(queue=f"q{n % 4}") for n in range(8_000)])
    broker.publish([replace(sample(queue=f"q{n % 4}"), countdown=3600) for n in range(8_000)])
    # What earlier tests deleted still takes up room in PostgreSQL's table, and the planner knows.
    tidied = {"mariadb": "ANALYZE TABLE", "postgres": "VACUUM (FULL, ANALYZE)", "default": "ANALYZE"}
    execute(alias, f"{tidied[alias]} django_tasks_queuedmessage")
    held: list[Delivery] = []
    calls: dict[str, Callable[[], object]] = {
        "fetch": lambda: held.extend(take(broker, queues=("q0", "q1"))),
        "promote": lambda: take(broker, queues=("nothing",)),
        "look": lambda: broker.wait(["nothing"], 0, Event()),
        "extend": lambda: broker.extend(held, 30),
        "nack": lambda: broker.nack(held[:50]),
        "ack": lambda: broker.ack(held[50:]),
        "discard": lambda: broker.discard(ids(held[:50])),
        "peek": lambda: broker.peek("q2", 10),
    }
    for name, call in calls.items():
        made = plans(alias, call)
        assert made, name
        for sql, plan in made.items():
            for scan in SCANS[connections[alias].vendor]:
                if name in ("extend", "nack", "ack", "discard", "peek") and scan in ("TEMP B-TREE", "Using filesort"):
                    continue  # of the few rows that were named
                assert scan not in f"{plan}\n", f"{name}: {sql}\n{plan}"


# Time


@each_vendor(transaction=True)
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_of_a_publisher_or_worker_does_not_matter(alias: str, hours: int):
    def wrong() -> float:
        return datetime.now(UTC).timestamp() + hours * 3600

    broker = DatabaseBroker("default", {"OPTIONS": {"USING": alias}}, clock=wrong)
    now = datetime.now(UTC)
    soon, later = replace(sample(), eta=now - timedelta(seconds=1)), replace(sample(), eta=now + timedelta(seconds=900))
    counted = replace(sample(), countdown=900)
    broker.publish([soon, later, counted])
    [held] = take(broker, lease=900)
    assert held.message.id == soon.id
    assert held.message.created_at is not None
    assert abs(held.message.created_at - now) < timedelta(seconds=60)
    broker.nack([held], delay=900)
    for row in rows(alias).values():
        assert abs(row.visible_at - now - timedelta(seconds=900)) < timedelta(seconds=60)


@each_vendor("postgres", transaction=True)
def test_a_countdown_begins_when_it_is_published_however_old_the_transaction_is(alias: str, broker: DatabaseBroker):
    sent = replace(sample(), countdown=900)
    with transaction.atomic(using=alias):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT transaction_timestamp()")
            (began,) = cursor.fetchone()
        broker.publish([sent])
    assert rows(alias)[sent.id].visible_at > began + timedelta(seconds=900)


@each_vendor(transaction=True)
@pytest.mark.parametrize("text", ["0001-01-01", "1969-07-20", "2938-01-20", "9999-12-31T23:59:59.999999"])
@pytest.mark.parametrize("hours", [-14, 0, 14])
def test_any_time_may_be_said_for_a_message(alias: str, broker: DatabaseBroker, text: str, hours: int):
    sent = replace(sample(), eta=datetime.fromisoformat(text).replace(tzinfo=timezone(timedelta(hours=hours))))
    broker.publish([sent])
    found = [one.message for one in take(broker)] if text < "2000" else broker.discard([sent.id])
    assert [content(one) for one in found] == [content(sent)]


@each_vendor(transaction=True)
def test_a_countdown_beyond_all_bounds_is_a_long_one(alias: str, broker: DatabaseBroker):
    broker.publish([replace(sample(), countdown=1e300), replace(sample(), countdown=float("inf"))])
    assert take(broker) == []
    assert {row.visible_at.year > 2100 for row in rows(alias).values()} == {True}


@each_vendor(transaction=True)
def test_times_are_those_of_the_server_where_a_project_has_no_time_zones(alias: str, settings: Any):
    settings.USE_TZ, settings.TIME_ZONE = False, "America/New_York"
    with opened(alias) as broker:
        broker.publish([sample(), replace(sample(), countdown=900), replace(sample(), eta=datetime.now(UTC))])
        found = take(broker)
        assert len(found) == 2
        assert all(one.message.created_at is not None for one in found)
        for one in found:
            assert one.message.created_at is not None
            assert abs(one.message.created_at - datetime.now(UTC)) < timedelta(seconds=60)
        assert broker.extend(found, 30) == found


# Transactions


@each_vendor(transaction=True)
def test_a_message_is_part_of_the_callers_transaction(alias: str, broker: DatabaseBroker):
    with transaction.atomic(using=alias):
        broker.publish(samples(3))
        transaction.set_rollback(True, using=alias)
    assert rows(alias) == {}
    with transaction.atomic(using=alias):
        kept, dropped = sample(), sample()
        broker.publish([kept])
        with transaction.atomic(using=alias):
            broker.publish([dropped])
            transaction.set_rollback(True, using=alias)
    assert set(rows(alias)) == {kept.id}


@each_vendor("postgres", "mariadb", transaction=True)
def test_a_message_is_seen_by_others_when_the_transaction_commits(alias: str, broker: DatabaseBroker):
    def look() -> list[Delivery]:
        with opened(alias) as other:
            return take(other)

    with transaction.atomic(using=alias):
        broker.publish(samples(1))
        assert together(look) == [[]]
    assert len(together(look)[0]) == 1


@each_vendor(transaction=True)
@pytest.mark.parametrize("write", ["ack", "nack", "extend"])
def test_what_a_holder_writes_is_undone_with_the_transaction(alias: str, broker: DatabaseBroker, write: str):
    broker.publish(samples(1))
    held = take(broker)
    before = rows(alias)[held[0].message.id]
    with transaction.atomic(using=alias):
        calls = {"ack": broker.ack, "nack": broker.nack, "extend": lambda held: broker.extend(held, 5)}
        assert calls[write](held) == held
        transaction.set_rollback(True, using=alias)
    after = rows(alias)[held[0].message.id]
    names = [field.attname for field in QueuedMessage._meta.concrete_fields]
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]
    assert broker.ack(held) == held


@each_vendor(transaction=True)
def test_a_tasks_next_attempt_takes_its_place_in_one_transaction(alias: str, broker: DatabaseBroker):
    broker.publish(samples(1))
    held = take(broker)
    again = replace(held[0].message, retries=1)
    with transaction.atomic(using=alias):
        assert broker.ack(held) == held
        broker.publish([again])
    [delivery] = take(broker)
    assert content(delivery.message) == content(again)
    assert delivery.message.created_at == held[0].message.created_at


@each_vendor(transaction=True)
def test_all_messages_of_a_call_are_queued_or_none(alias: str, broker: DatabaseBroker):
    refused = replace(sample(), id="lone \ud800 surrogate")
    with pytest.raises(PublishError):
        broker.publish([*samples(2_500), refused])
    assert rows(alias) == {}
    broker.publish(samples(2_500))
    assert len(rows(alias)) == 2_500


@each_vendor("postgres", "mariadb", transaction=True)
@pytest.mark.parametrize("field", ["id", "queue", "task"])
def test_a_name_that_is_too_long_is_told(alias: str, broker: DatabaseBroker, field: str):
    long: dict[str, Any] = {field: "x" * 256}
    with pytest.raises(PublishError) as caught:
        broker.publish([replace(sample(), **long)])
    assert not isinstance(caught.value, BrokerUnavailable)
    assert rows(alias) == {}


@each_vendor(transaction=True)
def test_large_messages_are_cut_into_several_statements(alias: str, broker: DatabaseBroker):
    sent = [replace(sample(), body=bytes([n]) * (BYTES // 4)) for n in range(8)]
    cost = statements(alias, lambda: broker.publish(sent))
    assert len([verb for verb in cost if verb not in ("BEGIN", "COMMIT")]) == 3
    assert [one.message.body == sent[n].body for n, one in enumerate(take(broker))] == [True] * 8


# Faults


@each_vendor("postgres", "mariadb", transaction=True)
@pytest.mark.parametrize("call", ["publish", "fetch", "ack", "nack", "extend", "stats", "purge", "discard", "peek"])
def test_a_connection_that_was_lost_meanwhile_is_replaced_unseen(alias: str, broker: DatabaseBroker, call: str):
    waiting = sample()
    broker.publish([sample(), waiting])
    held = take(broker, 1)
    calls: dict[str, Callable[[], object]] = {
        "publish": lambda: broker.publish(samples(1)),
        "fetch": lambda: len(take(broker)),
        "ack": lambda: broker.ack(held) == held,
        "nack": lambda: broker.nack(held) == held,
        "extend": lambda: broker.extend(held, 30) == held,
        "stats": lambda: broker.stats()[0].ready,
        "purge": lambda: broker.purge(QUEUE),
        "discard": lambda: len(broker.discard([waiting.id])),
        "peek": lambda: len(broker.peek(QUEUE, 5)),
    }
    kill(alias, backend(alias))
    assert calls[call]() in (None, True, 1)


@each_vendor("postgres", "mariadb", transaction=True)
def test_publishing_again_after_a_lost_answer_queues_nothing_twice(alias: str, broker: DatabaseBroker):
    sent = samples(3)
    broker.publish(sent)
    broker.publish(sent)
    assert set(rows(alias)) == set(ids(sent))


@each_vendor("sqlite", transaction=True)
def test_a_full_disk_is_told_as_such(alias: str, broker: DatabaseBroker):
    execute(alias, "VACUUM")
    with connections[alias].cursor() as cursor:
        (pages,) = cursor.execute("PRAGMA page_count").fetchone()
        cursor.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(BrokerFull, match="full"):
        broker.publish([replace(sample(), body=bytes(1_000_000))])
    connections[alias].close()
    assert rows(alias) == {}


@each_vendor(transaction=True)
def test_a_database_that_was_not_migrated_is_told_with_what_to_do(alias: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(QueuedMessage._meta, "db_table", "django_tasks_elsewhere")
    with opened(alias) as broker, pytest.raises(BrokerUnavailable, match=r"manage\.py migrate"):
        broker.publish(samples(1))


BROKEN = {
    "not JSON": "nope",
    "no object": "[]",
    "cut": '{"retries": 1',
    "wrong type": '{"retries": "many"}',
    "huge": '{"attempts": 99999999999999}',
    "deep": "[" * 100_000,
    "no time": '{"eta": "soon"}',
}


@each_vendor(transaction=True)
def test_a_row_that_cannot_be_read_does_not_hold_up_the_others(alias: str, broker: DatabaseBroker):
    good = samples(len(BROKEN))
    bad = [replace(sample(), id=name.replace(" ", "-"), body=b"raw") for name in BROKEN]
    broker.publish([message for pair in zip(good, bad, strict=True) for message in pair])
    for message, headers in zip(bad, BROKEN.values(), strict=True):
        QueuedMessage.objects.using(alias).filter(task_id=message.id).update(headers=headers)
    found = {one.message.id: one for one in take(broker)}
    assert set(found) == {*ids(good), *ids(bad)}
    for message in bad:
        shown = found[message.id].message
        assert (shown.content_type, shown.task, shown.queue, shown.body) == (MALFORMED, message.task, QUEUE, b"raw")
    assert {found[message.id].message.content_type for message in good} == {"application/json"}
    assert len(broker.ack(list(found.values()))) == len(found)


@each_vendor("sqlite", transaction=True)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("headers", "CAST(x'7b22ff22' AS TEXT)"),
        ("headers", "x'00ff'"),
        ("headers", "17"),
        ("task", "CAST(x'ff' AS TEXT)"),
        ("task_id", "CAST(x'c328' AS TEXT)"),
        ("body", "'text'"),
        ("body", "5"),
        ("rank", "'high'"),
        ("deliveries", "'none'"),
        ("created_at", "'yesterday'"),
        ("created_at", "CAST(x'ff' AS TEXT)"),
    ],
)
def test_a_row_of_sqlite_may_hold_anything_anywhere(alias: str, broker: DatabaseBroker, column: str, value: str):
    broker.publish(samples(3))
    number = min(row.pk for row in rows(alias).values())
    execute(alias, f"UPDATE django_tasks_queuedmessage SET {column} = {value} WHERE id = {number}")
    assert len(broker.peek(QUEUE, 10)) == 3
    found = take(broker)
    assert len(found) == 3
    assert all(type(one.message.body) is bytes for one in found)
    assert broker.ack(found) == found


# Settings


class Astray:
    """A router that sends everything where there are no tables."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        return "nowhere"

    db_for_write = db_for_read


@each_vendor(transaction=True)
def test_the_database_is_the_one_that_the_options_name_whatever_routers_say(alias: str, settings: Any):
    settings.DATABASE_ROUTERS = ["tests.integration.test_database_broker.Astray"]
    with opened(alias) as broker:
        assert broker.database == alias
        broker.publish(samples(2))
        held = take(broker, 1)
        broker.stats()
        broker.peek(QUEUE, 1)
        assert broker.ack(held) == held
        assert broker.purge(QUEUE) == 1


@each_vendor(transaction=True)
def test_brokers_of_several_aliases_share_a_table_and_nothing_else(alias: str, broker: DatabaseBroker):
    other = DatabaseBroker("other", {"OPTIONS": {"USING": alias}})
    mine, theirs = samples(3), samples(2)
    broker.publish(mine)
    other.publish([*theirs, replace(sample(), countdown=3600)])
    assert [(one.ready, one.delayed) for one in broker.stats()] == [(3, 0)]
    assert [(one.ready, one.delayed) for one in other.stats()] == [(2, 1)]
    assert broker.discard(ids(theirs)) == []
    assert other.purge("nothing") == 0
    assert ids(other.peek(QUEUE, 2)) == ids(theirs)
    assert ids(take(broker)) == ids(mine)
    assert other.purge(QUEUE) == 3


def test_an_alias_that_does_not_exist_is_told():
    with pytest.raises(ConfigurationError, match=r"no USING 'elsewhere'.*'default'.*'postgres'"):
        DatabaseBroker("default", {"OPTIONS": {"USING": "elsewhere"}})


def test_an_option_that_does_not_exist_is_told():
    with pytest.raises(ConfigurationError, match="no option 'UZING'; it has NOTIFY, POLL, USING"):
        DatabaseBroker("default", {"OPTIONS": {"UZING": "default"}})


def test_a_vendor_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections["default"], "vendor", "oracle")
    with pytest.raises(ConfigurationError, match="oracle"):
        DatabaseBroker("default", {})


@each_vendor("postgres", transaction=True)
def test_values_may_be_bound_by_the_server(alias: str, options: dict[str, Any]):
    options["server_side_binding"] = True
    with opened(alias) as broker:
        broker.publish(
            [*samples(600), replace(sample(), countdown=5, priority=3), replace(sample(), eta=datetime.now(UTC))]
        )
        held = take(broker, 10, queues=(QUEUE, "other"), lease=30)
        assert len(held) == 10
        assert broker.extend(held, 60) == held
        assert broker.nack(held[:3], delay=1.5, spent=True) == held[:3]
        assert broker.ack(held) == held[3:]
        assert broker.stats()[0].ready == 591
        assert len(broker.peek(QUEUE, 5)) == 5
        assert broker.purge(QUEUE) == 595
