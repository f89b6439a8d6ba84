"""How many statements does each database see, and do batches stay batches?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.test import override_settings

from django_tasks import bulk, states
from django_tasks.connections import brokers, results
from django_tasks.endings import handed_back
from django_tasks.execution import Site, execute
from django_tasks.message import Delivery
from django_tasks.models import QueuedMessage
from django_tasks.pools.base import Pool
from django_tasks.pools.solo import SoloPool
from django_tasks.pools.threads import ThreadPool
from django_tasks.settlement import Done, Settlement
from tests.integration.stage import Meanwhile, build, fail, note, retry_twice
from tests.vendors import each_vendor

pytestmark = [each_vendor(transaction=True), pytest.mark.usefixtures("clean_stage", "kept_in_database")]


@pytest.fixture
def kept_in_database(alias: str) -> Iterator[None]:
    backend = {"default": {"BACKEND": "database", "OPTIONS": {"USING": alias}}}
    with override_settings(DJANGO_TASKS={"BROKERS": backend, "RESULTS": backend}):
        # Whatever is set up once for a connection is none of the costs told here.
        brokers["default"].stats(["default"])
        yield


class Meter:
    """Writes down what goes to one database, over the connections of all threads."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.statements: list[str] = []

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        self.statements.append(" ".join(sql.split()))
        return execute(sql, params, many, context)

    def attach(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        if connection.alias == self.alias and self not in connection.execute_wrappers:
            connection.execute_wrappers.append(self)

    def about(self, *words: str) -> int:
        """Count the statements that have all these words."""
        return sum(all(word in statement for word in words) for statement in self.statements)


@contextmanager
def metered(alias: str) -> Iterator[Meter]:
    meter = Meter(alias)
    meter.attach(connections[alias])
    connection_created.connect(meter.attach)
    try:
        yield meter
    finally:
        connection_created.disconnect(meter.attach)
        connections[alias].execute_wrappers.remove(meter)


def trips(alias: str, call: Callable[[], Any]) -> list[str]:
    """Return the first word of each statement that a call sends, its transactions included."""
    connection = connections[alias]
    connection.force_debug_cursor = True
    connection.queries_log.clear()
    try:
        call()
        # An executemany is told as "500 times: INSERT ...".
        return [query["sql"].partition(" times: ")[2] or query["sql"] for query in connection.queries_log]
    finally:
        connection.force_debug_cursor = False


def verbs(statements: Sequence[str]) -> list[str]:
    return [statement.split()[0] for statement in statements]


def fetched(number: int) -> list[Delivery]:
    found = brokers["default"].fetch(["default"], number, lease=30, consumer="w1")
    assert len(found) == number
    return found


def ran(deliveries: Sequence[Delivery]) -> list[Done]:
    return [(delivery, execute(delivery, Site())) for delivery in deliveries]


def settlement() -> Settlement:
    return Settlement(brokers["default"], results["default"], worker="w1", lease=30)


def test_sending_a_task_is_one_statement(alias: str):
    assert len(trips(alias, lambda: [note.delay(number) for number in range(100)])) == 100


def test_sending_many_at_once_is_a_statement_for_a_thousand(alias: str):
    own = {"default": ["BEGIN", "INSERT", "COMMIT"], "postgres": ["WITH"], "mariadb": ["INSERT"]}
    assert verbs(trips(alias, lambda: bulk(note.s(number) for number in range(1000)))) == own[alias]
    several = {"default": "INSERT", "postgres": "WITH", "mariadb": "INSERT"}
    more = verbs(trips(alias, lambda: bulk(note.s(number) for number in range(2500))))
    assert more == ["BEGIN", *[several[alias]] * 3, "COMMIT"]
    assert QueuedMessage.objects.using(alias).count() == 3500


def test_fetching_costs_the_same_for_one_and_for_five_hundred(alias: str):
    handles = bulk(note.s(number) for number in range(1100))
    expected = {
        "default": ["SELECT", "BEGIN", "UPDATE", "COMMIT"],
        "postgres": ["WITH"],
        "mariadb": ["BEGIN", "SELECT", "UPDATE", "COMMIT"],
    }
    # The first one looks for what is due as well, as one in each second does.
    fetched(1)
    for number in (1, 10, 500):
        costs = [verbs(trips(alias, lambda: fetched(number))) for _ in range(2)]  # noqa: B023
        assert min(costs, key=len) == expected[alias]
    assert QueuedMessage.objects.using(alias).filter(ready=True).count() == len(handles) - 1 - 2 * 511


SETTLED = {
    "default": ["BEGIN", "DELETE", "INSERT", "COMMIT"],
    "postgres": ["WITH"],
    "mariadb": ["BEGIN", "SELECT", "DELETE", "INSERT", "COMMIT"],
}


@pytest.mark.parametrize("task", [note, fail], ids=["success", "failure"])
def test_settling_is_one_transaction_and_costs_the_same_for_one_and_for_five_hundred(alias: str, task: Any):
    bulk(task.s() for _ in range(511))
    for number in (1, 10, 500):
        done = ran(fetched(number))
        assert verbs(trips(alias, lambda: settlement().settle(done))) == SETTLED[alias]  # noqa: B023
    assert not QueuedMessage.objects.using(alias).exists()


def test_a_call_that_waits_for_its_result_sends_it_and_looks_once_for_what_has_ended(alias: str):
    handles: list[Any] = []
    sent = trips(alias, lambda: handles.append(note.delay(7)))
    assert verbs(sent) == ["INSERT"]
    settlement().settle(ran(fetched(1)))
    looks = trips(alias, lambda: handles.append(handles[0].get(30)))
    # On SQLite it asks before each look whether anybody has written to the file.
    assert verbs(looks) == (["PRAGMA", "SELECT"] if alias == "default" else ["SELECT"])
    assert handles[1] == 7


def test_retrying_adds_the_statement_that_sends_again(alias: str):
    bulk(retry_twice.s() for _ in range(110))
    sent = {"default": "INSERT", "postgres": "WITH", "mariadb": "INSERT"}[alias]
    removing = {"default": ["DELETE"], "postgres": ["WITH"], "mariadb": ["SELECT", "DELETE"]}[alias]
    for number in (10, 100):
        done = ran(fetched(number))
        costs = verbs(trips(alias, lambda: settlement().settle(done)))  # noqa: B023
        assert costs == ["BEGIN", *removing, sent, "INSERT", "COMMIT"]
    assert QueuedMessage.objects.using(alias).count() == 110


def test_handing_back_costs_the_same_for_one_and_for_a_hundred(alias: str):
    bulk(note.s() for _ in range(101))
    expected = {
        "default": ["BEGIN", "SELECT", "UPDATE", "COMMIT"],
        "postgres": ["BEGIN", "WITH", "COMMIT"],
        "mariadb": ["BEGIN", "SELECT", "UPDATE", "COMMIT"],
    }
    for number in (1, 100):
        done = [(delivery, handed_back(delivery)) for delivery in fetched(number)]
        assert verbs(trips(alias, lambda: settlement().settle(done))) == expected[alias]  # noqa: B023


@pytest.mark.parametrize("pool", [SoloPool, ThreadPool], ids=["solo", "threads"])
def test_a_thousand_short_tasks_cost_a_few_dozen_statements(alias: str, pool: type[Pool]):
    handles = bulk(note.s(number) for number in range(1000))
    with metered(alias) as meter:
        worker = build(pool, burst=True)
        worker.run()
    assert worker.processed == 1000
    assert results["default"].get([handles[999].id])[handles[999].id].state == states.SUCCESS
    # 30 to 45 where nothing else keeps the machine busy; batches are smaller where the loop has to wait for its turn.
    assert len(meter.statements) <= 120
    assert meter.about("INSERT", "django_tasks_taskresult") <= 30


IDLE = {"default": 14, "postgres": 14, "mariadb": 20}
"""Statements in four seconds at most: a heartbeat is 2, a look 1, a fetch 2, half of them with a BEGIN on SQLite."""


def test_an_idle_worker_asks_little(alias: str):
    found: list[Any] = []

    def story() -> None:
        note.delay().get(30)
        still = threading.Event()
        still.wait(0.5)
        meter.statements.clear()
        before = time.process_time()
        still.wait(4.0)
        found.extend((time.process_time() - before, list(meter.statements)))
        worker.stop()

    with metered(alias) as meter:
        worker = build(ThreadPool)
        Meanwhile(worker, story)
    used, statements = found
    assert len(statements) <= IDLE[alias], statements
    assert used < 4.0 * 0.05
