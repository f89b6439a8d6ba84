"""Do others see that a worker is alive, and what it does?"""

from __future__ import annotations

import json
import os
import platform
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_tasks.message import Delivery, Message
from django_tasks.models import WorkerNode
from django_tasks.pools.base import Running
from django_tasks.worker.presence import Identity, Presence
from tests.vendors import each_vendor

pytestmark = each_vendor()

WEB1 = Identity("web1", "PreforkPool", 8, ["mail", "default"], "default", "1.2.3")


def row(alias: str, name: str = "web1") -> dict[str, Any]:
    [found] = WorkerNode.objects.using(alias).filter(name=name).values()
    return dict(found)


@pytest.fixture
def presence(alias: str) -> Presence:
    found = Presence(WEB1, alias)
    found.announce()
    return found


def test_a_worker_that_starts_says_what_it_is(presence: Presence, alias: str) -> None:
    found = row(alias)
    assert (found["pool"], found["concurrency"], found["queues"]) == ("PreforkPool", 8, "mail,default")
    assert (found["broker"], found["version"], found["status"]) == ("default", "1.2.3", "running")
    assert (found["host"], found["pid"], found["session"]) == (platform.node(), os.getpid(), presence.session)
    assert timezone.now() - found["heartbeat_at"] < timedelta(seconds=20)


def test_each_beat_says_what_it_does(presence: Presence, alias: str) -> None:
    WorkerNode.objects.using(alias).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    running = Running(Delivery(Message(id="7", task="shop.pay", body=b""), "r"), since=1_000_000.5, pid=42)
    presence.beat("stopping", 9, 1, [running])
    found = row(alias)
    assert (found["status"], found["processed"], found["failed"]) == ("stopping", 9, 1)
    assert timezone.now() - found["heartbeat_at"] < timedelta(seconds=20)
    assert json.loads(found["running"]) == [
        {"id": "7", "task": "shop.pay", "since": "1970-01-12T13:46:40.500000+00:00", "pid": 42}
    ]


def test_a_worker_that_runs_thousands_at_once_tells_of_a_hundred(presence: Presence, alias: str) -> None:
    entry = Running(Delivery(Message(id="7", task="shop.pay", body=b""), "r"), since=0, pid=42)
    presence.beat("running", 0, 0, [entry] * 5_000)
    assert len(json.loads(row(alias)["running"])) == 100


def test_a_row_that_somebody_removed_is_written_again(
    presence: Presence, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    WorkerNode.objects.using(alias).all().delete()
    presence.beat("running", 9, 1, [])
    assert row(alias)["session"] == presence.session
    assert caplog.records == []


def test_a_worker_that_starts_again_under_its_name_has_one_row(presence: Presence, alias: str) -> None:
    presence.beat("running", 9, 1, [])
    again = Presence(WEB1, alias)
    again.announce()
    found = row(alias)
    assert (found["session"], found["processed"], found["status"]) == (again.session, 0, "running")


def test_a_worker_that_leaves_says_so(presence: Presence, alias: str) -> None:
    presence.leave(9, 1)
    found = row(alias)
    assert (found["status"], found["processed"], found["failed"], found["running"]) == ("offline", 9, 1, "[]")


def test_an_older_worker_of_the_name_does_not_sign_off_for_the_newer(presence: Presence, alias: str) -> None:
    again = Presence(WEB1, alias)
    again.announce()
    presence.leave(9, 1)
    assert (row(alias)["status"], row(alias)["session"]) == ("running", again.session)


def test_two_workers_of_one_name_are_told_what_to_do(
    presence: Presence, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    Presence(WEB1, alias).announce()
    for _ in range(2):
        presence.beat("running", 0, 0, [])
        Presence(WEB1, alias).announce()
    assert [record.getMessage() for record in caplog.records] == [
        "Another worker has the name web1 too; give each its own with --name"
    ]


def test_workers_that_have_been_gone_for_a_day_are_removed(presence: Presence, alias: str) -> None:
    now = timezone.now()
    for name, hours in (("yesterday", 23), ("long ago", 25)):
        WorkerNode.objects.using(alias).create(name=name, session="s", heartbeat_at=now - timedelta(hours=hours))
    assert presence.prune() == 1
    assert set(WorkerNode.objects.using(alias).values_list("name", flat=True)) == {"web1", "yesterday"}
