"""Does a page of the admin or the API cost the same however large the tables are?

Each page is visited with 65,536 rows, and each query that it makes is measured: the rows that PostgreSQL and MariaDB
say they read, and the instructions that SQLite's machine executes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_tasks import states
from django_tasks.admin.groups import TaskGroupPage
from django_tasks.admin.messages import QueuedMessagePage
from django_tasks.admin.page import CeilingPaginator
from django_tasks.admin.periodic import PeriodicTaskPage
from django_tasks.admin.results import TaskResultPage
from django_tasks.admin.runs import ScheduledRunPage
from django_tasks.api.views import TaskListView
from django_tasks.listing import HEAVY_MESSAGE, HEAVY_RESULT
from django_tasks.models import PeriodicTask, QueuedMessage, ScheduledRun, TaskGroup, TaskResult, WorkerNode
from tests.surfaces.site import chief, joined, multiply, on_each_database, tasks_in

pytestmark = [pytest.mark.urls("tests.surfaces.urls"), pytest.mark.timeout(300)]

SEEDS, DOUBLINGS = 512, 7
ROWS = SEEDS * 2**DOUBLINGS
WINDOW, CEILING = 2_000, 1_000

MOST_ROWS = 3 * (WINDOW + CEILING)
"""A scan would read seven times as many."""
MOST_STEPS = 100_000
"""SQLite's instructions. A page takes a third of that, a scan of the smaller table, even of an index, twice as many."""

RESULTS = [
    "",
    "p=10",
    "state=SUCCESS",
    "state=FAILURE",
    "state=STARTED",
    "state=NONE",
    "task=shop.tasks.t3",
    "task=shop.tasks.t3&state=REVOKED",
    "task=none",
    "queue=mail",
    "queue=none",
    "worker=none",
    "worker=none&state=SUCCESS",
    "worker=w1&queue=default",
    "since=24h",
    "since=2000-01-01",
    "since=2000-01-01&worker=none",
    "until=2000-01-01",
    "q=0",
    "q=0&worker=none",
    "q=none",
    "q=shop.",
    "q=shop.tasks.t3",
    "q=shop.tasks.t3&queue=none",
    "q=shop.&state=REVOKED",
]
MESSAGES = [
    "",
    "p=10",
    "standing=ready",
    "standing=ready&queue=mail",
    "standing=ready&queue=none",
    "standing=ready&task=none",
    "standing=delayed",
    "standing=delayed&queue=none",
    "standing=leased",
    "standing=leased&queue=mail",
    "queue=none",
    "task=none",
    "q=0",
    "q=0&task=none",
    "q=shop.",
    "q=none",
]
GROUPS = [
    "",
    "p=10",
    "stage=running",
    "stage=done",
    "stage=failed",
    "stage=failed&since=24h",
    "q=0",
    "q=0&stage=failed",
]
API = [
    "",
    "ordering=ended_at",
    "state=SUCCESS",
    "state=REVOKED&ordering=ended_at",
    "task=none",
    "queue=none",
    "worker=none&ordering=ended_at",
    "task=shop.tasks.t3&state=REVOKED",
    "since=2000-01-01T00:00:00Z&worker=none",
]


@pytest.fixture
def tables(alias, monkeypatch) -> Iterator[str]:
    """Fill the tables, and let the pages look less far, so that looking too far is seen."""
    for page in (TaskResultPage, QueuedMessagePage, TaskGroupPage, TaskListView):
        monkeypatch.setattr(page, "window", WINDOW)
    monkeypatch.setattr(CeilingPaginator, "ceiling", CEILING)
    now = datetime.now(UTC)
    common = [states.SUCCESS] * 6 + [states.FAILURE]
    results = TaskResult.objects.using(alias)
    results.bulk_create(
        TaskResult(
            task_id=f"{number:06d}",
            state=states.STARTED if number % 64 == 0 else common[number % 7],
            task=f"shop.tasks.t{number % 5}",
            queue="default",
            worker=f"w{number % 3}",
            args_repr="x" * 300,
            ended_at=None if number % 64 == 0 else now - timedelta(minutes=number),
        )
        for number in range(SEEDS)
    )
    later = now + timedelta(days=30)
    messages = QueuedMessage.objects.using(alias)
    messages.bulk_create(
        QueuedMessage(
            task_id=f"{number:06d}",
            queue="default",
            rank=number % 3,
            ready=number % 2 == 0,
            visible_at=now if number % 2 == 0 else later + timedelta(minutes=number),
            task=f"shop.tasks.t{number % 5}",
            body=b"x" * 300,
        )
        for number in range(SEEDS)
    )
    groups = TaskGroup.objects.using(alias)
    groups.bulk_create(
        TaskGroup(
            group_id=f"{number:06d}",
            size=3,
            # As wide as what follows a group is, or a table is read to its end because it is so small.
            then="x" * 300,
            done=number % 64 and 3,
            # One that failed long ago, and few that have not ended.
            failed_id="x" if number == SEEDS - 1 else None,
            ended_at=None if number % 64 == 0 else now - timedelta(minutes=number),
        )
        for number in range(SEEDS)
    )
    for model, name in ((TaskResult, "task_id"), (QueuedMessage, "task_id"), (TaskGroup, "group_id")):
        multiply(alias, model, DOUBLINGS, {name: joined(alias, name, "'-{n}'")})
    results.create(
        task_id="old", state=states.SUCCESS, task="shop.old", worker="none", ended_at=now - timedelta(days=9)
    )
    _lease(alias, now)
    _analyze(alias, TaskResult, QueuedMessage, TaskGroup)
    WorkerNode.objects.using(alias).create(name="w1", session="s")
    with tasks_in(alias):
        yield alias


def _analyze(alias: str, *models: Any) -> None:
    """Let the database know how large tables are."""
    with connections[alias].cursor() as cursor:
        for model in models:
            table = connections[alias].ops.quote_name(model._meta.db_table)
            cursor.execute(f"ANALYZE {'TABLE ' if connections[alias].vendor == 'mysql' else ''}{table}")


def _lease(alias: str, now: datetime) -> None:
    newest = QueuedMessage.objects.using(alias).order_by("-id").values_list("id", flat=True)[:20]
    leases = {"ready": False, "lease_token": 1, "leased_by": "w1", "visible_at": now + timedelta(seconds=30)}
    QueuedMessage.objects.using(alias).filter(id__in=list(newest)).update(**leases)


@on_each_database(transaction=True)
def test_no_page_reads_a_table_to_its_end(tables):
    alias, client = tables, Client()
    client.force_login(chief())
    names = ("taskresult", "queuedmessage", "taskgroup")
    results, messages, groups = (reverse(f"admin:django_tasks_{name}_changelist") for name in names)
    pages = [
        *(f"{results}?{query}" for query in RESULTS),
        *(f"{messages}?{query}" for query in MESSAGES),
        *(f"{groups}?{query}" for query in GROUPS),
        *(f"/api/tasks/?{query}" for query in API),
    ]
    too_much = []
    with _meter(alias) as measure:
        for page in pages:
            with CaptureQueriesContext(connections[alias]) as captured:
                response = client.get(page)
                assert response.status_code == 200, page
                if page.startswith("/api/") and response.json()["next"]:
                    assert client.get(response.json()["next"]).status_code == 200
            asked = [query["sql"] for query in captured if "django_tasks_" in query["sql"]]
            assert len(asked) <= 12, page
            for sql in asked:
                assert not any(f'"{name}"' in sql or f"`{name}`" in sql for name in {*HEAVY_RESULT, *HEAVY_MESSAGE}), (
                    sql
                )
                cost, most = measure(sql)
                if cost > most:
                    too_much.append(f"{page}: {cost:,} for {sql}")
    assert not too_much, "\n".join(too_much)


PERIODIC_DOUBLINGS, PERIODIC_WINDOW = 5, 100
PERIODIC_ROWS = SEEDS * 2**PERIODIC_DOUBLINGS
EARLIER = {
    "sqlite": "datetime(slot_at, '-' || (1 << {n}) || ' days')",
    "postgresql": "slot_at - power(2, {n}) * interval '1 day'",
    "mysql": "slot_at - INTERVAL POW(2, {n}) DAY",
}
PERIODIC = {
    "periodictask": ["", "enabled=no", "condition=failing", "origin=code", "q=none", "q=p000"],
    "scheduledrun": ["", "outcome=missed", "periodic=p00007", "periodic=p00007&outcome=missed", "q=none", "q=0"],
}


@on_each_database(transaction=True)
def test_no_page_of_periodic_tasks_reads_a_table_to_its_end(alias, monkeypatch):
    for page in (PeriodicTaskPage, ScheduledRunPage):
        monkeypatch.setattr(page, "window", PERIODIC_WINDOW)
    monkeypatch.setattr(CeilingPaginator, "ceiling", PERIODIC_WINDOW)
    now, client = datetime.now(UTC), Client()
    client.force_login(chief())
    PeriodicTask.objects.using(alias).bulk_create(
        PeriodicTask(name=f"p{number:05d}", task="shop.t", schedule="every hour", next_run_at=now + timedelta(days=1))
        for number in range(SEEDS)
    )
    first = PeriodicTask.objects.using(alias).get(name="p00007")
    ScheduledRun.objects.using(alias).bulk_create(
        ScheduledRun(
            periodic_task=first, slot_at=now - timedelta(minutes=number), outcome="sent", task_id=f"{number:06d}"
        )
        for number in range(SEEDS)
    )
    multiply(alias, PeriodicTask, PERIODIC_DOUBLINGS, {"name": joined(alias, "name", "'-{n}'")})
    earlier = {"slot_at": EARLIER[connections[alias].vendor], "task_id": joined(alias, "task_id", "'-{n}'")}
    multiply(alias, ScheduledRun, PERIODIC_DOUBLINGS, earlier)
    _analyze(alias, PeriodicTask, ScheduledRun)
    urls = [
        *(
            reverse(f"admin:django_tasks_{page}_changelist") + f"?{query}"
            for page in PERIODIC
            for query in PERIODIC[page]
        ),
        reverse("admin:django_tasks_periodictask_change", args=[first.pk]),
    ]
    too_much = []
    with tasks_in(alias), _meter(alias) as measure:
        for url in urls:
            with CaptureQueriesContext(connections[alias]) as captured:
                assert client.get(url).status_code == 200, url
            asked = [query["sql"] for query in captured if "django_tasks_" in query["sql"]]
            assert len(asked) <= 8, url
            for sql in asked:
                cost, most = measure(sql)
                # Of SQLite's instructions a scan takes several a row.
                if cost > min(most, PERIODIC_ROWS * (4 if alias == "default" else 0.4)):
                    too_much.append(f"{url}: {cost:,} for {sql}")
    assert not too_much, "\n".join(too_much)


@pytest.mark.parametrize("alias", ["default"])
@pytest.mark.django_db(transaction=True)
def test_what_a_large_list_says(tables):
    client = Client()
    client.force_login(chief())
    url = reverse("admin:django_tasks_taskresult_changelist")
    text = client.get(url).content.decode()
    assert "1,000+ results" in text
    assert "Only the newest" not in text
    assert client.get(url, {"p": 11}).status_code == 302
    found = client.get(url, {"worker": "none"})
    assert found.context["cl"].result_list == []
    assert "Only the newest 2,000 are searched" in found.content.decode()
    (row,) = client.get(url, {"worker": "none", "task": "shop.old"}).context["cl"].result_list
    assert row.task_id == "old"
    answer = client.get("/api/tasks/", {"worker": "none"}).json()
    assert answer["results"] == []
    assert answer["searched_since"] is not None
    assert client.get("/api/tasks/").json()["searched_since"] is None


@on_each_database()
def test_the_number_of_queries(alias):
    with tasks_in(alias):
        client = Client()
        client.force_login(chief())
        for page, number in (("taskresult", 3), ("queuedmessage", 1)):
            url = reverse(f"admin:django_tasks_{page}_changelist")
            client.get(url)
            with CaptureQueriesContext(connections[alias]) as captured:
                client.get(url)
            asked = [query["sql"] for query in captured if "django_tasks_" in query["sql"]]
            assert len(asked) == number, asked


class _meter:
    """Gives a function that measures a query: what it cost, and what it may cost."""

    def __init__(self, alias: str) -> None:
        self.connection: Any = connections[alias]

    def __enter__(self) -> Callable[[str], tuple[int, int]]:
        by_vendor = {"postgresql": self._postgresql, "mysql": self._mariadb, "sqlite": self._sqlite}
        return by_vendor[self.connection.vendor]

    def __exit__(self, *_: object) -> None:
        if self.connection.vendor == "sqlite":
            self.connection.connection.set_progress_handler(None, 0)

    def _postgresql(self, sql: str) -> tuple[int, int]:
        with self.connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}")
            (plans,) = cursor.fetchone()
        plans = json.loads(plans) if isinstance(plans, str) else plans
        return int(sum(map(_rows_of_node, _nodes(plans[0]["Plan"])))), MOST_ROWS

    def _mariadb(self, sql: str) -> tuple[int, int]:
        with self.connection.cursor() as cursor:
            cursor.execute(f"ANALYZE FORMAT=JSON {sql}")
            (text,) = cursor.fetchone()
        tables = _tables(json.loads(text))
        return int(sum((table.get("r_rows") or 0) * (table.get("r_loops") or 1) for table in tables)), MOST_ROWS

    def _sqlite(self, sql: str) -> tuple[int, int]:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 100
            return 0

        self.connection.connection.set_progress_handler(count, 100)
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            cursor.fetchall()
        return steps, MOST_STEPS


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _rows_of_node(node: dict[str, Any]) -> float:
    if not node["Node Type"].endswith("Scan"):
        return 0.0
    seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float(seen * node["Actual Loops"])


def _tables(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "table_name" in tree and not str(tree["table_name"]).startswith("<"):
            yield tree
        for inner in tree.values():
            yield from _tables(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from _tables(inner)
