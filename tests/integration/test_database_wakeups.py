"""Does a worker that waits on the database broker wake up when it should, and cost nothing until then?"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event
from typing import Self

import pytest
from django.db import connections, transaction

from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.dialects import bells
from django_tasks.message import Delivery
from django_tasks.results.base import ResultStore
from django_tasks.results.database import DatabaseStore
from django_tasks.testing.contracts.brokers import BrokerContract
from django_tasks.testing.contracts.harness import ids, sample, samples
from django_tasks.testing.contracts.stores import StoreContract
from tests.proxies import PrivatePgBouncer, proxy_of, routed
from tests.sabotage import execute
from tests.vendors import each_vendor

QUEUE = "default"
PATIENCE = 20.0
LONG = 600.0


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


class Sleeper:
    """A worker's listener, in a thread of its own: it waits again and again, and fetches when it is woken."""

    def __init__(self, alias: str, *queues: str, **options: object) -> None:
        self.broker = DatabaseBroker("default", {"OPTIONS": {"USING": alias, **options}})
        self.queues = queues or (QUEUE,)
        self.found: list[Delivery] = []
        self.arrived, self.waiting, self.stop = Event(), Event(), Event()
        self.statements: list[str] = []
        self.alias = alias
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.waiting.wait(PATIENCE)
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with connections[self.alias].execute_wrapper(self._listen):
                # The first wait finds nothing, and from then on hears what comes.
                self.broker.wait(self.queues, 0.3, self.stop)
                self.waiting.set()
                while not self.stop.is_set():
                    if self.broker.wait(self.queues, LONG, self.stop):
                        self._fetch()
        except BaseException as error:
            self.error = error
        finally:
            self.broker.close()
            connections.close_all()

    def _fetch(self) -> None:
        self.found += self.broker.fetch(self.queues, 100, lease=600, consumer="sleeper")
        if self.found:
            self.arrived.set()

    def _listen(self, execute, sql, params, many, context):
        self.statements.append(sql)
        return execute(sql, params, many, context)


@each_vendor(transaction=True)
def test_a_message_wakes_a_worker(alias: str, broker: DatabaseBroker):
    with Sleeper(alias) as sleeper:
        broker.publish(samples(3))
        assert sleeper.arrived.wait(PATIENCE)
    assert len(sleeper.found) == 3


@each_vendor("postgres", "mariadb", transaction=True)
def test_a_message_wakes_a_worker_when_its_transaction_commits(alias: str, broker: DatabaseBroker):
    with Sleeper(alias) as sleeper:
        with transaction.atomic(using=alias):
            broker.publish(samples(1))
            assert not sleeper.arrived.wait(0.5)
        assert sleeper.arrived.wait(PATIENCE)


@each_vendor("sqlite", "postgres", transaction=True)
def test_each_message_of_many_wakes_a_worker(alias: str, broker: DatabaseBroker):
    with Sleeper(alias) as sleeper:
        for number in range(1, 31):
            sleeper.arrived.clear()
            broker.publish(samples(1))
            assert sleeper.arrived.wait(PATIENCE), number
    assert len(sleeper.found) == 30


@each_vendor(transaction=True)
def test_the_end_of_a_delay_wakes_a_worker_in_time(alias: str, broker: DatabaseBroker):
    with Sleeper(alias) as sleeper:
        began = time.monotonic()
        broker.publish([replace(sample(), countdown=1.0), replace(sample(), countdown=LONG)])
        assert sleeper.arrived.wait(PATIENCE)
        assert time.monotonic() - began >= 0.99
    assert len(sleeper.found) == 1


@each_vendor(transaction=True)
def test_the_end_of_a_dead_workers_lease_wakes_another(alias: str, broker: DatabaseBroker):
    broker.publish(samples(1))
    lost = broker.fetch([QUEUE], 1, lease=0.8, consumer="dead")
    with Sleeper(alias) as sleeper:
        assert sleeper.arrived.wait(PATIENCE)
    assert ids(sleeper.found) == ids(lost)
    assert sleeper.found[0].deliveries == 2


@each_vendor(transaction=True)
def test_what_is_handed_back_wakes_a_worker(alias: str, broker: DatabaseBroker):
    broker.publish(samples(1))
    held = broker.fetch([QUEUE], 1, lease=600, consumer="leaving")
    with Sleeper(alias) as sleeper:
        broker.nack(held)
        assert sleeper.arrived.wait(PATIENCE)
    assert sleeper.found[0].deliveries == 1


@each_vendor("postgres", transaction=True)
def test_messages_of_other_queues_do_not_wake(alias: str, broker: DatabaseBroker):
    with Sleeper(alias, "mine") as sleeper:
        before = len(sleeper.statements)
        for _ in range(50):
            broker.publish(samples(1, "theirs"))
        broker.publish(samples(1, "mine"))
        assert sleeper.arrived.wait(PATIENCE)
    assert len(sleeper.statements) - before < 10


@each_vendor(transaction=True)
def test_a_worker_with_nothing_to_do_asks_less_than_twice_a_second(alias: str):
    with Sleeper(alias) as sleeper:
        # Polling has slowed down by then.
        sleeper.stop.wait(2.0)
        before = len(sleeper.statements)
        sleeper.stop.wait(2.5)
        assert len(sleeper.statements) - before < 5


@each_vendor("postgres", transaction=True)
def test_a_worker_whose_listening_connection_dies_wakes_all_the_same_and_listens_again(alias: str):
    listening = "pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_backend_pid()%' AND pid <> pg_backend_pid()"

    def count() -> int:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM (SELECT {listening} AND datname = current_database()) AS found")
            return int(cursor.fetchone()[0])

    with Sleeper(alias) as sleeper, opened(alias) as broker:
        assert count() == 1
        execute(alias, f"SELECT pg_terminate_backend(pid, 10000) FROM (SELECT {listening}) AS found")
        assert count() == 0
        broker.publish(samples(1))
        assert sleeper.arrived.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not count() and time.monotonic() < deadline:
            sleeper.stop.wait(0.05)
        assert count() == 1
        sleeper.arrived.clear()
        broker.publish(samples(1))
        assert sleeper.arrived.wait(PATIENCE)
    assert sleeper.broker.features.wakeups


@each_vendor("postgres", transaction=True)
def test_a_worker_wakes_where_notifications_are_turned_off(alias: str):
    with Sleeper(alias, NOTIFY=False) as sleeper, opened(alias, NOTIFY=False) as broker:
        assert not broker.features.wakeups
        broker.publish(samples(1))
        assert sleeper.arrived.wait(PATIENCE)
        assert not any("LISTEN" in sql for sql in sleeper.statements)


@each_vendor(transaction=True)
def test_the_connection_of_a_thread_that_ends_without_a_word_is_closed(alias: str):
    """A warning of an unclosed connection would fail this."""
    broker = DatabaseBroker("default", {"OPTIONS": {"USING": alias}})

    def wait() -> None:
        broker.wait([QUEUE], 0.0, Event())
        connections.close_all()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(PATIENCE)
    assert list(broker._bells) == []


@each_vendor(transaction=True)
def test_a_database_that_does_not_answer_lets_a_worker_sleep(alias: str, monkeypatch: pytest.MonkeyPatch):
    with opened(alias) as broker:
        broker.wait([QUEUE], 0.0, Event())
        connections[alias].close()
        broker.close()
        nowhere = {"NAME": "/no/such/directory/db.sqlite3"} if alias == "default" else {"PORT": "1"}
        for key, value in nowhere.items():
            monkeypatch.setitem(connections.settings[alias], key, value)
        began = time.monotonic()
        assert broker.wait([QUEUE], 0.4, Event()) is False
        assert time.monotonic() - began >= 0.3
        monkeypatch.undo()
        connections[alias].close()
        broker.publish(samples(1))
        assert broker.wait([QUEUE], PATIENCE, Event()) is True


# Through a proxy that lends connections for one transaction at a time


@pytest.fixture(scope="module")
def pgbouncer() -> Iterator[PrivatePgBouncer]:
    with proxy_of("postgres") as proxy:
        yield proxy


@pytest.fixture
def proxy(alias: str, pgbouncer: PrivatePgBouncer) -> Iterator[None]:
    with routed(alias, pgbouncer.port):
        yield


@each_vendor("postgres", transaction=True)
def test_a_worker_behind_a_proxy_says_that_it_polls_and_does(
    alias: str, proxy: None, broker: DatabaseBroker, caplog: pytest.LogCaptureFixture
):
    assert broker.features.wakeups
    with caplog.at_level(logging.INFO, "django_tasks.broker"), Sleeper(alias) as sleeper:
        deadline = time.monotonic() + PATIENCE
        while sleeper.broker.features.wakeups and time.monotonic() < deadline:
            sleeper.stop.wait(0.05)
        assert not sleeper.broker.features.wakeups
        broker.publish(samples(3))
        assert sleeper.arrived.wait(PATIENCE)
    assert len(sleeper.found) == 3
    assert [record.message for record in caplog.records if "polling" in record.message] == [
        "Notifications do not come through the proxy before the database; polling instead"
    ]
    with connections[alias].cursor() as cursor:
        # The server's connection goes on to others, who would be told for ever.
        cursor.execute("SELECT count(*) FROM pg_listening_channels()")
        assert cursor.fetchone() == (0,)


@each_vendor("postgres", transaction=True)
def test_a_worker_behind_a_proxy_misses_nothing_until_it_knows(
    alias: str, proxy: None, broker: DatabaseBroker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bells, "PROOF", 10 * PATIENCE)
    monkeypatch.setattr(bells, "FLOOR", 10 * PATIENCE)
    with Sleeper(alias) as sleeper:
        broker.publish(samples(1))
        assert sleeper.arrived.wait(PATIENCE)
        assert sleeper.broker.features.wakeups, "it is still finding out"


@each_vendor("postgres", transaction=True)
@pytest.mark.parametrize(("notify", "found"), [(True, ["django_tasks.W106"]), (False, [])], ids=["wanted", "not"])
def test_a_proxy_that_keeps_notifications_back_is_told_where_they_are_wanted(
    alias: str, proxy: None, notify: bool, found: list[str]
):
    behind = DatabaseBroker("default", {"OPTIONS": {"USING": alias, "NOTIFY": notify}})
    told = behind.diagnose()
    assert [str(one.id) for one in told.found if one.id == "django_tasks.W106"] == found


@each_vendor("postgres", transaction=True)
class TestBrokerThroughAProxy(BrokerContract):
    lease = 30.0
    rounds = 2

    @pytest.fixture
    def broker(self, alias: str, proxy: None) -> Iterator[Broker]:
        with ExitStack() as self.stack:
            self.alias = alias
            yield self.open()

    def open(self) -> DatabaseBroker:
        # One that would notify takes two seconds to find out that nobody hears it.
        broker = DatabaseBroker("default", {"OPTIONS": {"USING": self.alias, "NOTIFY": False}})
        self.stack.callback(broker.close)
        return broker

    def peer(self, broker: Broker) -> Broker:
        return self.open()

    def elapse(self, broker: Broker, seconds: float) -> None:
        execute(
            self.alias,
            f"UPDATE django_tasks_queuedmessage SET visible_at = visible_at - interval '{seconds} seconds'",
        )


@each_vendor("postgres", transaction=True)
class TestStoreThroughAProxy(StoreContract):
    rounds = 2

    @pytest.fixture
    def store(self, alias: str, proxy: None) -> ResultStore:
        return DatabaseStore("default", {"OPTIONS": {"USING": alias}})
