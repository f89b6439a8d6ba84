"""Does a running task know its call, and nobody else's?"""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from django_tasks.context import Request, allow_join_result, answering, current_request, may_join, request_for
from django_tasks.message import Delivery, Message

EARLY, LATE = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)

FULL = Message(
    id="7",
    task="shop.pay",
    body=b"",
    queue="money",
    priority=9,
    eta=EARLY,
    expires=LATE,
    retries=2,
    attempts=3,
    time_limit=60,
    soft_time_limit=50,
    ignore_result=True,
    root_id="1",
    parent_id="5",
    group_id="g",
    group_index=4,
    shadow="pay",
    origin="gen1@host",
    headers={"tenant": "a"},
)


def test_outside_of_a_task_there_is_no_request() -> None:
    assert current_request() is None


def test_a_request_is_current_within_its_block_and_the_one_around_it_after() -> None:
    outer, inner = Request(FULL), Request(FULL)
    with answering(outer):
        with answering(inner) as given:
            assert current_request() is given is inner
        assert current_request() is outer
    assert current_request() is None


def test_a_task_that_raises_leaves_no_request_behind() -> None:
    with pytest.raises(KeyError), answering(Request(FULL)):
        raise KeyError
    assert current_request() is None


def test_another_thread_does_not_see_it() -> None:
    seen: list[Request | None] = []
    with answering(Request(FULL)):
        thread = threading.Thread(target=lambda: seen.append(current_request()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_a_request_tells_the_whole_envelope() -> None:
    request = Request(FULL, (1,), {"x": 2}, hostname="w1", deliveries=2)
    assert (request.id, request.correlation_id, request.task, request.args, request.kwargs) == (
        "7",
        "7",
        "shop.pay",
        (1,),
        {"x": 2},
    )
    assert (request.retries, request.root_id, request.parent_id) == (2, "1", "5")
    assert (request.group, request.group_index, request.shadow, request.origin) == ("g", 4, "pay", "gen1@host")
    assert (request.eta, request.expires, request.ignore_result) == (EARLY, LATE, True)
    assert (request.time_limit, request.soft_time_limit, request.timelimit) == (60, 50, (60, 50))
    assert (request.hostname, request.headers, request.is_eager, request.called_directly) == (
        "w1",
        {"tenant": "a"},
        False,
        False,
    )


def test_where_it_came_from_is_told_as_celery_tells_it() -> None:
    assert Request(FULL, deliveries=2).delivery_info == {
        "exchange": "",
        "routing_key": "money",
        "priority": 9,
        "redelivered": True,
    }
    assert Request(FULL).delivery_info["redelivered"] is False


def test_the_exchange_and_the_key_are_told_that_it_came_by() -> None:
    through = Request(FULL, way=("events", "news.eu")).delivery_info
    assert (through["exchange"], through["routing_key"]) == ("events", "news.eu")
    to_all = Request(FULL, way=("all", "")).delivery_info
    assert (to_all["exchange"], to_all["routing_key"]) == ("all", "")
    request = request_for(Delivery(FULL, receipt=1, exchange="events", routing_key="news.eu"), (), {})
    assert request.delivery_info["exchange"] == "events"


def test_the_attempt_counts_retries_and_runs_that_were_lost() -> None:
    assert Request(FULL, deliveries=2).attempt == 5
    assert Request(Message(id="7", task="t", body=b"")).attempt == 1


def test_a_task_that_nobody_sent_is_its_own_root() -> None:
    assert Request(Message(id="7", task="t", body=b"")).root_id == "7"


def test_a_function_that_was_called_directly_has_no_id() -> None:
    request = Request(Message(id="", task="t", body=b""), called_directly=True)
    assert (request.id, request.root_id) == (None, None)


def test_the_request_of_a_delivery_counts_its_deliveries() -> None:
    request = request_for(Delivery(FULL, receipt=1, deliveries=3), (1,), {})
    assert (request.message, request.args, request.kwargs, request.deliveries) == (FULL, (1,), {}, 3)


def test_waiting_for_another_task_is_allowed_everywhere_but_in_a_worker() -> None:
    assert may_join()
    with answering(Request(FULL, is_eager=True)):
        assert may_join()
    with answering(Request(FULL)):
        assert not may_join()
        with allow_join_result():
            assert may_join()
        assert not may_join()
