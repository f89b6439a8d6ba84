"""Can programs start tasks over HTTP and see what came of them, and only those that may?"""

from __future__ import annotations

import json
import threading
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test import Client, override_settings
from django.urls import reverse
from rest_framework.permissions import AllowAny, IsAdminUser
from rest_framework.test import APIClient, APIRequestFactory

from django_tasks import states, task
from django_tasks.api import views
from django_tasks.api.serializers import Look
from django_tasks.models import QueuedMessage, Revocation, TaskResult
from tests.app.tasks import add as internal
from tests.app.tasks import fail
from tests.surfaces.site import (
    NASTY,
    WORKER,
    chief,
    fetch,
    on_each_database,
    result,
    settings_for,
    staff,
    work,
)

pytestmark = [pytest.mark.urls("tests.surfaces.urls"), pytest.mark.usefixtures("place")]

CANARY = "canary-77ab"


@task(api=True, name="api.order")
def order(item: str, count: int = 1, /, *, note: str, password: str = "") -> dict[str, Any]:
    return {"item": item, "count": count, "token": CANARY, "when": datetime(2026, 1, 2, tzinfo=UTC)}


@task(api=True, name="api.quiet", ignore_result=True)
def quiet(*numbers: int, **named: int) -> None:
    pass


@task(api=True, name="api.loose")
def loose(a: int, b: int = 2) -> int:
    return a + b


@pytest.fixture
def boss(db):
    client = APIClient()
    client.force_login(chief())
    return client


def client_of(*permissions: str, name: str = "operator") -> APIClient:
    client = APIClient()
    client.force_login(staff(*permissions, name=name))
    return client


LIST = "/api/tasks/"


def url(task_id: str, action: str = "") -> str:
    return f"{LIST}{task_id}/{action}"


def post(client, where: str, body: Any = None, **headers: str):
    return client.post(where, {} if body is None else body, format="json", headers=headers)


def cursor(*told: Any) -> str:
    return urlsafe_b64encode(json.dumps(told).encode()).decode()


def ids(response) -> list[str]:
    assert response.status_code == 200, response.data
    return [entry["id"] for entry in response.data["results"]]


class TestList:
    @on_each_database()
    def test_filters(self, alias, boss):
        old = datetime.now(UTC) - timedelta(days=3)
        result(alias, "a", state=states.FAILURE)
        result(alias, "b", queue="mail", ended_at=old)
        result(alias, "c", worker="other", task="shop.other")
        result(alias, "d", state="PROGRESS", ended_at=None)
        edge = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        looks = [
            ({}, ["d", "c", "a", "b"]),
            ({"ordering": "ended_at"}, ["b", "a", "c", "d"]),
            ({"state": "FAILURE"}, ["a"]),
            ({"queue": "mail"}, ["b"]),
            ({"worker": "other"}, ["c"]),
            ({"task": "shop.other", "state": "SUCCESS"}, ["c"]),
            ({"since": edge}, ["c", "a"]),
            ({"until": edge}, ["b"]),
            ({"state": "REVOKED"}, []),
        ]
        for asked, found in looks:
            assert ids(boss.get(LIST, asked)) == found, asked

    @on_each_database()
    def test_what_an_entry_says(self, alias, boss):
        result(alias, "a", args_repr="(1,)", value='"secret"', traceback="x", attempts=2, retries=1)
        (entry,) = boss.get(LIST).data["results"]
        assert entry.keys() == {
            "id", "url", "state", "task", "queue", "worker", "attempts", "retries",
            "created_at", "started_at", "ended_at", "runtime",
        }  # fmt: skip
        assert entry["url"] == "http://testserver/api/tasks/a/"
        assert (entry["state"], entry["attempts"], entry["runtime"]) == ("SUCCESS", 2, 0.25)

    @on_each_database()
    def test_pages_lead_to_every_row_once_and_back(self, alias, boss):
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        for number in range(7):
            # Some end in the same moment, some have not ended.
            ended = None if number > 4 else moment + timedelta(hours=number // 2)
            result(alias, f"id-{number}", ended_at=ended)
        whole = ["id-6", "id-5", "id-4", "id-3", "id-2", "id-1", "id-0"]
        for ordering, expected in (("-ended_at", whole), ("ended_at", whole[::-1])):
            for size in (1, 2, 3, 7, 8):
                response = boss.get(LIST, {"ordering": ordering, "page_size": size})
                assert response.data["previous"] is None
                seen, first = ids(response), ids(response)
                while response.data["next"]:
                    response = boss.get(response.data["next"])
                    seen += ids(response)
                assert seen == expected
                back = ids(response)
                while response.data["previous"]:
                    response = boss.get(response.data["previous"])
                    back = ids(response) + back
                assert back == expected
                assert ids(response) == first

    @on_each_database()
    def test_a_page_stays_where_it_is_while_others_arrive(self, alias, boss):
        for number in range(4):
            result(alias, f"id-{number}")
        first = boss.get(LIST, {"page_size": 2})
        result(alias, "newer")
        assert ids(boss.get(first.data["next"])) == ["id-1", "id-0"]

    def test_pages_are_bounded(self, boss):
        for number in range(205):
            result("default", f"id-{number:03d}")
        assert len(ids(boss.get(LIST))) == 50
        assert len(ids(boss.get(LIST, {"page_size": 10**9}))) == 200

    @pytest.mark.parametrize(
        ("asked", "field"),
        [
            ({"_connector": "OR"}, "_connector"),
            ({"task__contains": "a"}, "task__contains"),
            ({"ordering": "traceback"}, "ordering"),
            ({"ordering": "ended_at; DROP TABLE x"}, "ordering"),
            ({"page_size": 0}, "page_size"),
            ({"page_size": "x"}, "page_size"),
            ({"since": "yesterday"}, "since"),
            ({"state": "\x00"}, "state"),
            ({"queue": "x" * 300}, "queue"),
            ({"cursor": "x"}, "cursor"),
            ({"cursor": "W10"}, "cursor"),
            ({"cursor": "WyJhIiwieCIsMF0"}, "cursor"),
            ({"cursor": "é"}, "cursor"),
            ({"cursor": cursor("a", "9999-12-31T23:59:59.999999+00:00", 0)}, "cursor"),
            ({"cursor": cursor("a", "2026-01-01T00:00:00", 0)}, "cursor"),
            ({"cursor": cursor("a b", None, 0)}, "cursor"),
            ({"cursor": cursor("a", None, 2)}, "cursor"),
        ],
    )
    def test_odd_parameters_are_refused_by_name(self, boss, asked, field):
        response = boss.get(LIST, asked)
        assert response.status_code == 400
        assert response.data.keys() == {field, "code"}
        assert response.data["code"] == "invalid"

    @pytest.mark.django_db
    def test_where_results_cannot_be_listed(self, boss):
        entry = {"BACKEND": "memory"}
        with override_settings(DJANGO_TASKS={"BROKERS": {"default": entry}, "RESULTS": {"default": entry}}):
            response = boss.get(LIST)
            assert (response.status_code, response.data["code"]) == (501, "not_listed")
            sent = loose.delay(1)
            work()
            assert boss.get(url(sent.id)).data["result"] == 3


class TestEnqueue:
    @on_each_database()
    def test_a_task_is_accepted_and_runs(self, alias, boss):
        body = {"task": "api.order", "args": ["tea", 2], "kwargs": {"note": "now", "password": CANARY}, "priority": 7}
        response = post(boss, LIST, body)
        assert response.status_code == 202
        assert response.data["state"] == "PENDING"
        where = f"http://testserver{url(response.data['id'])}"
        assert response["Location"] == response.data["url"] == where
        message = QueuedMessage.objects.using(alias).get()
        assert (message.task_id, message.task, message.rank) == (response.data["id"], "api.order", -7)
        work()
        found = boss.get(where).data
        assert found["state"] == "SUCCESS"
        assert found["result"] == {"item": "tea", "count": 2, "token": "********", "when": "2026-01-02T00:00:00+00:00"}
        assert "'now'" in found["kwargs"]
        assert CANARY not in json.dumps(found, default=str)

    def test_when(self, boss):
        eta = datetime.now(UTC) + timedelta(hours=1)
        for body in (
            {"countdown": 3600},
            {"eta": eta.isoformat(), "expires": (eta + timedelta(hours=1)).isoformat()},
            {"countdown": 3600, "expires": 7200},
        ):
            response = post(boss, LIST, {"task": "api.loose", "args": [1], **body})
            assert response.status_code == 202
            row = QueuedMessage.objects.get(task_id=response.data["id"])
            assert row.ready is False
            assert abs(row.visible_at - eta) < timedelta(seconds=30)
            assert ("expires" in json.loads(row.headers)) is ("expires" in body)

    @pytest.mark.parametrize(
        ("body", "errors"),
        [
            ({}, {"task": "required"}),
            ({"task": "no.such.task"}, {"task": "no such task"}),
            ({"task": "tests.app.tasks.add", "args": [1, 2]}, {"task": "no such task"}),
            ({"task": "os.system", "args": ["true"]}, {"task": "no such task"}),
            ({"task": "api.l\u043e\u043ese", "args": [1]}, {"task": "no such task"}),
            ({"task": ["api.loose"]}, {"task": "valid string"}),
            ({"task": "api.loose"}, {"kwargs.a": "required"}),
            ({"task": "api.loose", "args": [1, 2, 3]}, {"args": "at most 2"}),
            ({"task": "api.loose", "args": [1], "kwargs": {"a": 1}}, {"kwargs.a": "given twice"}),
            ({"task": "api.loose", "args": [1], "kwargs": {"c": 1}}, {"kwargs.c": "no argument of this name"}),
            ({"task": "api.order", "args": []}, {"args": "item is missing", "kwargs.note": "required"}),
            (
                {"task": "api.order", "kwargs": {"item": "a", "note": ""}},
                {"args": "item is missing", "kwargs.item": "no argument of this name"},
            ),
            ({"task": "api.loose", "args": {"a": 1}}, {"args": "list"}),
            ({"task": "api.loose", "kwargs": [1]}, {"kwargs": "dictionary"}),
            ({"task": "api.loose", "args": [1], "countdown": -1}, {"countdown": "greater than or equal"}),
            ({"task": "api.loose", "args": [1], "countdown": "nan"}, {"countdown": "valid number"}),
            ({"task": "api.loose", "args": [1], "countdown": True}, {"countdown": "valid number"}),
            ({"task": "api.loose", "args": [1], "countdown": 1e300}, {"non_field_errors": "thousand years"}),
            ({"task": "api.loose", "args": [1], "expires": "soon"}, {"expires": "wrong format"}),
            ({"task": "api.loose", "args": [1], "expires": "9999-12-31T23:59:59-14:00"}, {"expires": "out of range"}),
            ({"task": "api.loose", "args": [1], "eta": "x", "countdown": 1}, {"eta": "wrong format"}),
            ({"task": "api.loose", "args": [1], "priority": 101}, {"priority": "less than or equal"}),
            ({"task": "api.loose", "args": [1], "queue": "admin"}, {"queue": "no such field"}),
            ({"task": "api.loose", "args": [1], "task_id": "mine"}, {"task_id": "no such field"}),
            ([], {"non_field_errors": "dictionary"}),
            ("api.loose", {"non_field_errors": "dictionary"}),
        ],
    )
    def test_what_does_not_fit_is_told_by_field(self, boss, body, errors):
        response = post(boss, LIST, body)
        assert response.status_code == 400
        assert response.data.pop("code") == "invalid"
        found = dict(_flat(response.json() | {}))
        found.pop("code", None)
        assert found.keys() == errors.keys()
        for field, words in errors.items():
            assert words in found[field]
        assert not QueuedMessage.objects.exists()

    def test_countdown_and_eta_together(self, boss):
        body = {"task": "api.loose", "args": [1], "countdown": 1, "eta": datetime.now(UTC).isoformat()}
        assert "not both" in str(post(boss, LIST, body).data["countdown"])

    def test_tags_in_the_arguments_stay_data(self, boss):
        tagged = {"__type__": "dataclass", "__value__": {"class": "os:system", "fields": {}}}
        response = post(boss, LIST, {"task": "api.quiet", "kwargs": {"x": tagged}})
        assert response.status_code == 202
        (delivery,) = fetch()
        assert b"dataclass" in delivery.message.body
        assert b'"__type__":"dict"' in delivery.message.body.replace(b" ", b"")

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (b"{", 400, "parse_error"),
            (b'{"task": "\xff"}', 400, "parse_error"),
            (b'{"task": NaN}', 400, "parse_error"),
            (b'{"args": [' + b"9" * 5000 + b"]}", 400, "parse_error"),
            (b"[" * 100_000 + b"]" * 100_000, 400, "parse_error"),
            (b'{"task": "api.loose", "args": [' + b"[" * 200 + b"]" * 200 + b"]}", 400, "invalid"),
            (b'{"task": "api.quiet", "args": ["' + b"x" * 1_048_600 + b'"]}', 413, "too_large"),
            (b'{"task": "api.quiet", "args": ["' + "é".encode() * 400_000 + b'"]}', 400, "invalid"),
        ],
    )
    def test_bodies_that_are_too_much(self, boss, body, status, code):
        response = boss.generic("POST", LIST, body, content_type="application/json")
        assert (response.status_code, response.data["code"]) == (status, code)
        assert not QueuedMessage.objects.exists()

    def test_only_json(self, boss):
        response = boss.post(LIST, {"task": "api.loose"}, format="multipart")
        assert (response.status_code, response.data["code"]) == (415, "unsupported_media_type")

    def test_a_broker_that_takes_nothing(self, boss):
        settings = settings_for("default")
        settings["BROKERS"] = {"default": {"BACKEND": "tests.surfaces.test_actions.FullBroker"}}
        with override_settings(DJANGO_TASKS=settings):
            response = post(boss, LIST, {"task": "api.loose", "args": [1]})
        assert (response.status_code, response.data["code"]) == (503, "queue_full")

    def test_an_eager_broker_has_the_result_at_once(self, boss):
        with override_settings(DJANGO_TASKS=settings_for("default", BROKERS={"default": {"BACKEND": "immediate"}})):
            response = post(boss, LIST, {"task": "api.loose", "args": [1]})
        assert response.data["state"] == "SUCCESS"


class TestIdempotency:
    @on_each_database()
    def test_a_repeated_call_is_the_same_task(self, alias, boss):
        body = {"task": "api.quiet", "args": [1]}
        first, again = (post(boss, LIST, body, **{"Idempotency-Key": "k1"}) for _ in range(2))
        assert first.status_code == again.status_code == 202
        assert first.data == again.data
        assert QueuedMessage.objects.using(alias).count() == 1
        work()
        late = post(boss, LIST, body, **{"Idempotency-Key": "k1"})
        assert late.data == first.data | {"state": "SUCCESS"}
        assert not QueuedMessage.objects.using(alias).exists()
        assert post(boss, LIST, body, **{"Idempotency-Key": "k2"}).data["id"] != first.data["id"]
        assert post(boss, LIST, body).data["id"] != post(boss, LIST, body).data["id"]

    def test_it_is_the_users_own(self, boss):
        body = {"task": "api.loose", "args": [1]}
        other = client_of("add_queuedmessage")
        mine, theirs = (post(client, LIST, body, **{"Idempotency-Key": "k"}).data["id"] for client in (boss, other))
        assert mine != theirs
        assert QueuedMessage.objects.count() == 2

    @on_each_database()
    def test_another_call_with_the_same_key_is_refused(self, alias, boss):
        assert post(boss, LIST, {"task": "api.loose", "args": [1]}, **{"Idempotency-Key": "k"}).status_code == 202
        for _ in range(2):
            for body in ({"task": "api.loose", "args": [2]}, {"task": "api.quiet", "args": [1]}):
                response = post(boss, LIST, body, **{"Idempotency-Key": "k"})
                assert (response.status_code, response.data["code"]) == (422, "idempotency_key_reused")
            work()

    @pytest.mark.parametrize("key", ["x" * 256, "a\tb", ""])
    def test_odd_keys(self, boss, key):
        response = post(boss, LIST, {"task": "api.loose", "args": [1]}, **{"Idempotency-Key": key})
        assert response.status_code == 400
        assert not QueuedMessage.objects.exists()

    @on_each_database(transaction=True)
    def test_many_at_once_start_one_task_while_a_worker_races_them(self, alias):
        user = chief()
        body = {"task": "api.loose", "args": [1]}
        answers: list[Any] = []
        together = threading.Barrier(4)

        def call():
            client = APIClient()
            client.force_login(user)
            together.wait()
            answers.extend(post(client, LIST, body, **{"Idempotency-Key": "k"}) for _ in range(8))
            connections.close_all()

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        together.wait()
        ran = 0
        while any(thread.is_alive() for thread in threads):
            ran += work()
        for thread in threads:
            thread.join()
        ran += work()
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.data["id"] for answer in answers}) == 1
        assert ran == 1


class TestDetail:
    @on_each_database()
    def test_a_task_that_waits(self, alias, boss):
        sent = internal.apply_async((1, 2), countdown=60, queue="mail")
        found = boss.get(url(sent.id)).data
        assert (found["state"], found["queue"], found["standing"]) == ("PENDING", "mail", "delayed")
        assert found["visible_at"] > datetime.now(UTC)
        assert (found["args"], found["result"], found["error"], found["ended_at"]) == ("(1, 2)", None, None, None)

    @on_each_database()
    def test_a_task_that_failed(self, alias, boss):
        sent = fail.delay("no paper, password=hunter2")
        work()
        found = boss.get(url(sent.id)).data
        assert found["error"]["type"] == "ValueError"
        assert found["error"]["message"] == "no paper, password=********"
        assert "hunter2" not in json.dumps(found, default=str)
        assert "ValueError" in found["error"]["traceback"]
        assert (found["attempts"], found["history"]) == (1, [])

    @on_each_database()
    def test_progress(self, alias, boss):
        metas = {
            '{"current": 3, "total": 12, "message": "half"}': (3, 12, 25.0, "half"),
            '{"percent": 40}': (None, None, 40, None),
            '{"current": "x", "total": 0}': (None, 0, None, None),
            '{"other": 1}': None,
            "[1]": None,
            "{": None,
        }
        for number, (meta, expected) in enumerate(metas.items()):
            result(alias, f"id-{number}", state="PROGRESS", value=meta, ended_at=None)
            found = boss.get(url(f"id-{number}")).data["progress"]
            assert (found and tuple(found.values())) == expected, meta

    @on_each_database()
    def test_without_the_payload_permission(self, alias):
        client = client_of()
        result(
            alias,
            "a",
            state=states.FAILURE,
            args_repr="('shown',)",
            value='"shown"',
            error_type="ValueError",
            error_message="no paper",
            traceback="shown",
        )
        waiting = internal.apply_async((4711, 4711), countdown=60)
        found = client.get(url("a")).data
        assert found.keys().isdisjoint({"args", "kwargs", "result"})
        assert found["error"] == {"type": "ValueError", "module": "", "message": "no paper"}
        assert "shown" not in json.dumps(found, default=str)
        assert "4711" not in json.dumps(client.get(url(waiting.id)).data, default=str)

    @on_each_database()
    def test_etag(self, alias, boss):
        result(alias, "a", state=states.STARTED, ended_at=None)
        first = boss.get(url("a"))
        same = boss.get(url("a"), headers={"If-None-Match": first["ETag"]})
        assert (same.status_code, same.content) == (304, b"")
        assert "no-store" in same["Cache-Control"]
        TaskResult.objects.using(alias).update(state=states.SUCCESS)
        changed = boss.get(url("a"), headers={"If-None-Match": first["ETag"]})
        assert changed.status_code == 200
        assert changed["ETag"] != first["ETag"]

    @pytest.mark.parametrize("odd", ["nobody", "%00", "a%20b", "x" * 300, "..%2F..%2Fetc%2Fpasswd", "%ED%A0%80"])
    def test_unknown(self, boss, odd):
        for method, where in ((boss.get, url(odd)), (boss.post, url(odd, "retry/")), (boss.post, url(odd, "revoke/"))):
            response = method(where)
            assert (response.status_code, response.data["code"]) == (404, "not_found")

    def test_an_id_with_a_slash(self, boss):
        result("default", "a/b?c#d")
        (entry,) = boss.get(LIST).data["results"]
        assert boss.get(entry["url"]).data["id"] == "a/b?c#d"

    @pytest.mark.parametrize("text", NASTY)
    def test_text_stays_text(self, boss, text):
        result(
            "default", "a", task=text, error_type=text, error_message=text, state=states.FAILURE, value=json.dumps(text)
        )
        response = boss.get(url("a"))
        assert response["Content-Type"] == "application/json"
        assert response.json()["task"] == text


class TestWaiting:
    @on_each_database(transaction=True)
    def test_it_answers_when_the_task_has_ended(self, alias):
        client = APIClient()
        client.force_login(chief())
        sent = loose.delay(1, 2)
        answers: list[Any] = []

        def ask():
            answers.append(client.get(url(sent.id), {"wait": 25}))
            connections.close_all()

        thread = threading.Thread(target=ask)
        thread.start()
        work()
        thread.join(20)
        assert answers[0].data["state"] == "SUCCESS"
        assert answers[0].data["result"] == 3

    @on_each_database()
    def test_it_answers_when_the_time_has_passed(self, alias, boss):
        sent = loose.delay(1, 2)
        assert boss.get(url(sent.id), {"wait": 0.05}).data["state"] == "PENDING"

    def test_what_has_ended_or_is_unknown_is_not_waited_for(self, boss):
        result("default", "a")
        assert boss.get(url("a"), {"wait": 30}).data["state"] == "SUCCESS"
        assert boss.get(url("b"), {"wait": 30}).status_code == 404

    @pytest.mark.parametrize(("asked", "meant"), [("0", 0.0), ("29.5", 29.5), ("31", 30.0), ("1e9", 30.0)])
    def test_it_is_bounded(self, asked, meant):
        serializer = Look(data={"wait": asked})
        assert serializer.is_valid()
        assert serializer.validated_data["wait"] == meant

    @pytest.mark.parametrize("asked", ["-1", "nan", "inf", "x", ""])
    def test_odd_times(self, boss, asked):
        result("default", "a")
        response = boss.get(url("a"), {"wait": asked})
        assert (response.status_code, response.data.keys()) == (400, {"wait", "code"})

    def test_there_are_only_so_many_places(self, boss):
        sent = loose.delay(1)
        taken = views.TaskView.most_waiting
        for _ in range(taken):
            assert views.TaskView._places.acquire(blocking=False)
        try:
            assert boss.get(url(sent.id), {"wait": 30}).data["state"] == "PENDING"
        finally:
            views.TaskView._places.release(taken)

    def test_nobody_waits_where_nothing_is_kept(self, boss):
        with override_settings(DJANGO_TASKS=settings_for("default", RESULTS={"default": {"BACKEND": "dummy"}})):
            sent = loose.delay(1)
            assert boss.get(url(sent.id), {"wait": 30}).data["state"] == "PENDING"

    def test_no_view_runs_in_a_transaction_of_the_request(self):
        for view in (views.TaskListView, views.TaskView, views.RevokeView, views.RetryView):
            assert set(connections) <= view.as_view()._non_atomic_requests


class TestActing:
    @on_each_database()
    def test_revoke(self, alias, boss):
        waiting = internal.apply_async((1, 1), countdown=60)
        response = post(boss, url(waiting.id, "revoke/"))
        assert (response.status_code, response.data["code"]) == (202, "revoked")
        assert boss.get(response["Location"]).data["state"] == "REVOKED"
        running = internal.delay(1, 1)
        fetch()
        response = post(boss, url(running.id, "revoke/"), {"terminate": True})
        assert (response.status_code, response.data["code"]) == (202, "told")
        assert Revocation.objects.using(alias).get(pk=running.id).terminate is True
        response = post(boss, url(waiting.id, "revoke/"))
        assert (response.status_code, response.data["code"]) == (409, "ended")
        assert post(boss, url(running.id, "revoke/"), {"terminate": "perhaps"}).status_code == 400
        assert post(boss, url(running.id, "revoke/"), {"kill": True}).data.keys() == {"kill", "code"}

    @on_each_database()
    def test_retry(self, alias, boss):
        bad, good = fail.delay("no"), internal.delay(1, 1)
        work()
        response = boss.post(url(bad.id, "retry/"))
        assert (response.status_code, response.data["code"]) == (202, "queued")
        assert boss.get(response["Location"]).data["state"] == "PENDING"
        work()
        found = boss.get(url(bad.id)).data
        assert (found["attempts"], [attempt["attempt"] for attempt in found["history"]]) == (2, [1])
        assert WORKER in found["history"][0]["worker"]
        response = boss.post(url(good.id, "retry/"))
        assert (response.status_code, response.data["code"]) == (409, "not_failed")
        assert "SUCCESS" in response.data["detail"]


@pytest.mark.django_db
class TestPermissions:
    """What each kind of caller gets from each address: anonymous, user, staff, staff with the permission."""

    CALLS = (
        ("GET", "", None, (403, 403, 200, 200), "view_payload"),
        ("POST", "", {"task": "api.loose", "args": [1]}, (403, 403, 403, 202), "add_queuedmessage"),
        ("GET", "failed/", None, (403, 403, 200, 200), "view_payload"),
        ("POST", "failed/retry/", None, (403, 403, 403, 202), "retry_taskresult"),
        ("POST", "waiting/revoke/", None, (403, 403, 403, 202), "revoke_taskresult"),
        ("PUT", "failed/", None, (403, 403, 405, 405), "view_payload"),
        ("DELETE", "failed/", None, (403, 403, 405, 405), "delete_taskresult"),
        ("GET", "failed/retry/", None, (403, 403, 405, 405), "retry_taskresult"),
        ("GET", "waiting/revoke/", None, (403, 403, 405, 405), "revoke_taskresult"),
    )

    @pytest.mark.parametrize(("method", "where", "body", "statuses", "permission"), CALLS)
    def test_table(self, django_user_model, method, where, body, statuses, permission):
        message = json.dumps({"headers": {"id": "failed", "task": "api.loose"}, "body": "W1sxXSx7fSx7fV0="})
        result("default", "failed", state=states.FAILURE, message=message)
        loose.apply_async((1,), task_id="waiting", countdown=60)
        user = django_user_model.objects.create_user("user", password="password")
        callers = [None, user, staff(name="plain"), staff(permission, name="allowed")]
        found = []
        for caller in callers:
            client = APIClient()
            if caller is not None:
                client.force_login(caller)
            response = client.generic(method, LIST + where, json.dumps(body or {}), content_type="application/json")
            assert "no-store" in response["Cache-Control"]
            assert response.status_code < 400 or response.data["code"]
            found.append(response.status_code)
        assert tuple(found) == statuses

    def test_a_user_who_is_no_longer_active(self):
        client = client_of("view_payload")
        assert client.get(LIST).status_code == 200
        user = staff(name="other")
        client.force_login(user)
        user.is_active = False
        user.save()
        assert client.get(LIST).status_code == 403

    def test_a_session_needs_its_token(self):
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(chief())
        data = json.dumps({"task": "api.loose", "args": [1]})
        assert strict.post(LIST, data, content_type="application/json").status_code == 403
        assert not QueuedMessage.objects.exists()

    def test_a_project_may_open_it(self):
        class Open(views.TaskView):
            permission_classes = [AllowAny]

        result("default", "a")
        request = APIRequestFactory().get("/")
        view = Open.as_view()
        request.resolver_match = None
        with override_settings(ROOT_URLCONF="django_tasks.api.urls"):
            response = view(request, task_id="a")
        assert response.status_code == 200
        assert "result" not in response.data

    @pytest.mark.parametrize(("action", "method"), [("", "get"), ("retry/", "post"), ("revoke/", "post")])
    def test_a_task_of_somebody_else_does_not_exist(self, action, method, monkeypatch):
        class Mine(IsAdminUser):
            def has_object_permission(self, request, view, obj):
                return obj.queue == "mail"

        for view in (views.TaskView, views.RetryView, views.RevokeView):
            monkeypatch.setattr(view, "permission_classes", [Mine])
        message = json.dumps({"headers": {"id": "mine", "task": "api.loose"}, "body": "W1sxXSx7fSx7fV0="})
        result("default", "theirs", state=states.FAILURE, message=message)
        state = states.FAILURE if action == "retry/" else states.STARTED
        result("default", "mine", state=state, message=message, queue="mail")
        loose.apply_async((1,), task_id="waiting", countdown=60)
        client = client_of()
        for task_id in ("theirs", "waiting"):
            assert getattr(client, method)(url(task_id, action)).status_code == 404
        assert getattr(client, method)(url("mine", action)).status_code in (200, 202)
        assert TaskResult.objects.get(pk="theirs").state == "FAILURE"
        assert not Revocation.objects.filter(pk="waiting").exists()

    def test_options(self):
        client = APIClient()
        client.force_login(chief())
        for where in (LIST, url("a")):
            assert client.options(where).status_code == 200
        assert "countdown" in client.options(LIST).data["actions"]["POST"]


def test_the_addresses_have_names():
    assert reverse("django_tasks:task-list") == LIST
    assert reverse("django_tasks:task-detail", args=["a"]) == url("a")
    assert reverse("django_tasks:task-revoke", args=["a"]) == url("a", "revoke/")


def _flat(tree: Any, path: str = ""):
    for name, value in tree.items():
        where = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            yield from _flat(value, where)
        else:
            yield where, " ".join(map(str, value)) if isinstance(value, list) else str(value)
