"""Do the pages of groups, and the API, tell how far they are, at the same cost however large they are?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from rest_framework.permissions import IsAdminUser

from django_tasks import chain, chord, group, states
from django_tasks.api.groups import GroupView
from django_tasks.followers import BODY, CALLBACK, ERRBACK, NEXT, followers
from django_tasks.group_actions import revoke_members
from django_tasks.group_result import GroupResult
from django_tasks.message import member_id, new_group_id
from django_tasks.models import GroupPart, QueuedMessage, TaskGroup, TaskResult
from django_tasks.workflows import begun_by
from tests.app.tasks import add, echo, fail
from tests.surfaces.site import client_of, fetch, on_each_database, result, work

pytestmark = [pytest.mark.urls("tests.surfaces.urls"), pytest.mark.usefixtures("place")]

LIST = "/admin/django_tasks/taskgroup/"


def page_of(group_id: str) -> str:
    return reverse("admin:django_tasks_taskgroup_change", args=[quote(group_id)])


def text_of(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, url
    return response.content.decode().replace("<wbr>", "")


def said(response) -> str:
    return " | ".join(str(message) for message in response.context["messages"])


def asked_in(alias: str, client: Client, url: str) -> int:
    with CaptureQueriesContext(connections[alias]) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


def calls() -> Any:
    """Return what follows a group: a call with a callback and an errback, and another one after it."""
    body = echo.s(password="hunter2", note="as agreed")
    body.link(echo.s("passed on", token="hunter3"))
    body.link_error(echo.s())
    return chain(body, echo.s("last"))


class TestList:
    @on_each_database()
    def test_states_filters_and_search(self, alias, boss):
        done = chord([add.s(1, 1), add.s(2, 2)], echo.s()).delay().parent.id
        work()
        failed = group(fail.s("no"), fail.s("no"), add.s(1, 1)).delay().id
        work()
        empty = GroupResult(new_group_id()).save().id
        running = group(echo.s(number) for number in range(4)).delay().id
        work(2)
        cells = [
            [getattr(page, name)(row) for name in ("stage_shown", "group_shown", "follower_shown", "failed_shown")]
            for response in [boss.get(LIST)]
            for page in [response.context["cl"].model_admin]
            for row in response.context["cl"].result_list
        ]
        assert [[str(cell).replace("<wbr>", "").split(">")[1].split("<")[0] for cell in row[:3]] for row in cells] == [
            ["running", "tests.app.tasks.echo", ""],
            ["empty", "", ""],
            ["failed", "tests.app.tasks.fail", ""],
            ["done", "tests.app.tasks.add", "tests.app.tasks.echo"],
        ]
        assert [row[3] for row in cells] == ["0", "0", "2", "0"]
        looks = {
            "": [running, empty, failed, done],
            "stage=running": [running, empty],
            "stage=done": [done],
            "stage=failed": [failed],
            "since=24h": [failed, done],
            "stage=running&since=24h": [],
            f"q={done}": [done],
            f"q={member_id(failed, 1)}": [failed],
            f"q={failed}&stage=done": [],
        }
        for query, ids in looks.items():
            found = boss.get(f"{LIST}?{query}").context["cl"].result_list
            assert [row.pk for row in found] == ids, query

    @on_each_database()
    def test_its_queries_are_few_however_many_there_are(self, alias, boss):
        group(add.s(1, 1)).delay()
        before = asked_in(alias, boss, LIST)
        for number in range(5):
            chord([fail.s("no"), add.s(number, 1)], echo.s()).delay()
            work()
        assert asked_in(alias, boss, LIST) <= before + 1, "one that counts what failed"


class TestPage:
    @on_each_database()
    def test_what_follows_and_what_the_members_do(self, alias, boss):
        sent = chord([add.s(number, 1) for number in range(6)], calls()).delay()
        group_id = sent.parent.parent.id
        work(2)
        fetch(1)
        text = text_of(boss, page_of(group_id))
        assert "2 of 6 ended (33%)" in text
        assert text.count("waits for a free worker") == 3
        assert text.count("is with a worker") == 1
        assert text.count(f"?q={member_id(group_id, 0)}") == 1
        for told in ("When all have ended well", "With what that returned", "If that fails", "as agreed", "passed on"):
            assert told in text, told
        assert "hunter" not in text
        row = TaskGroup.objects.using(alias).get(pk=group_id)
        found, whole = followers(row)
        assert [(each.how, each.task.split(".")[-1]) for each in found] == [
            (BODY, "echo"),
            (CALLBACK, "echo"),
            (ERRBACK, "echo"),
            (NEXT, "echo"),
        ]
        assert [each.id for each in found][3] == sent.id
        assert whole
        assert "as agreed" not in text_of(client_of("view_taskgroup"), page_of(group_id))

    @on_each_database()
    def test_one_that_failed(self, alias, boss):
        members = [fail.s("pwd=hunter2 no paper") if number in (1, 3) else add.s(1, 1) for number in range(5)]
        group_id = chord(members, echo.s()).delay().parent.id
        work(4)
        text = text_of(boss, page_of(group_id))
        assert "4 of 5 ended (80%), 2 of them failed" in text
        assert "member 2" in text
        assert "no paper" in text
        assert "hunter2" not in text
        found = boss.get(f"{page_of(group_id)}?only=failed").context["members"]
        assert [member["number"] for member in found] == ["2", "4"]

    def test_groups_within_groups(self, boss):
        outer = group(chain(add.s(1, 1), group(add.s(1), add.s(2))), chord([add.s(1, 1)], echo.s())).delay()
        for _ in range(2):
            work()
        inner = TaskGroup.objects.get(outer_id=outer.id)
        header = TaskGroup.objects.exclude(then="").get()
        text = text_of(boss, page_of(outer.id))
        assert f'{page_of(inner.pk)}" title="{inner.pk}">a group of tasks</a>' in text
        assert page_of(header.pk) in text
        assert page_of(outer.id) in text_of(boss, page_of(inner.pk))
        assert page_of(outer.id) in text_of(boss, page_of(header.pk))

    @on_each_database()
    def test_a_large_one_costs_as_little_as_a_small_one(self, alias, boss):
        small, large = (
            TaskGroup.objects.using(alias).create(group_id=new_group_id(), size=size, done=3, failed_id="x")
            for size in (3, 100_000)
        )
        for row in (small, large):
            GroupPart.objects.using(alias).bulk_create(
                GroupPart(group_id=row.pk, index=index, task_id=member_id(row.pk, index), error="x" * (index == 1))
                for index in range(3)
            )
        few = asked_in(alias, boss, page_of(small.pk))
        assert few <= 20
        for query in ("", "?m=500", "?m=1000", "?only=failed", "?m=x"):
            assert asked_in(alias, boss, page_of(large.pk) + query) <= few + 1, query
        last = boss.get(page_of(large.pk), {"m": 1000})
        assert [member["number"] for member in last.context["members"]][-1] == "100,000"
        assert "99,901 to 100,000 of 100,000" in last.content.decode()

    def test_what_follows_is_never_too_much(self, boss):
        group_id = chord([add.s(1, 1)], group(echo.s("x" * 900) for _ in range(700))).delay().parent.id
        row = TaskGroup.objects.get(pk=TaskGroup.objects.exclude(then="").get().pk)
        assert len(row.then) > 1 << 20
        found, whole = followers(row)
        assert [each.task for each in found] == [echo.name]
        assert not whole
        assert "There is more" in text_of(boss, page_of(row.pk))
        assert group_id

    @pytest.mark.parametrize(
        "then",
        [
            "{",
            "[]",
            '{"messages":[{}],"groups":[]}',
            '{"messages":[{"headers":{"id":"a"}',
            '{"messages":[{"headers":{"id":"a","task":"t","content_type":"application/x-yaml"},"body":""}],"groups":[]}',
            '{"messages":[{"headers":{"id":"a","task":"t"},"body":"W1tdLHt9LDFd"}],"groups":[]}',
        ],
    )
    def test_what_cannot_be_read_does_no_harm(self, boss, then):
        TaskGroup.objects.create(group_id="odd", size=1, then=then, error="{", failed_id="x", failed_index=0)
        assert "cannot be shown" in text_of(boss, page_of("odd"))
        text_of(boss, LIST)
        assert boss.get(page_of("none")).status_code == 302


class TestRevoking:
    def test_what_has_not_begun_is_revoked(self, boss):
        body = chord([add.s(number, 1) for number in range(5)], echo.s()).delay()
        group_id = body.parent.id
        work(1)
        fetch(1)
        data = {"action": "revoke_members", "_selected_action": group_id, "_detail": "yes"}
        assert "what waits for it will not run" in boss.post(LIST, data).content.decode()
        assert QueuedMessage.objects.count() == 4
        response = boss.post(LIST, data | {"confirmed": "yes"}, follow=True)
        assert response.redirect_chain == [(page_of(group_id), 302)]
        assert "1 group of tasks" in said(response)
        assert "3 that were waiting are revoked. 1 runs" in said(response)
        ended = dict(TaskResult.objects.values_list("task_id", "state"))
        assert [ended[member_id(group_id, index)] for index in (0, 2, 3, 4)] == ["SUCCESS", *["REVOKED"] * 3]
        assert ended[body.id] == states.FAILURE
        assert LogEntry.objects.get().object_id == group_id
        work()
        assert "None of its members" not in said(response)

    def test_groups_within_it_are_too(self, db):
        outer = group(chain(add.s(1, 1), group(add.s(1), add.s(2))), add.s(1, 1)).delay()
        work(1)
        (answer,) = revoke_members([outer.id]).answers
        assert "3 that were waiting are revoked" in answer.text
        assert not QueuedMessage.objects.exists()

    def test_it_goes_on_when_it_is_asked_again(self, db):
        sent = group(add.s(number, 1) for number in range(501)).delay()
        now = iter([0.0, 1.0, 99.0, 99.0])
        (answer,) = revoke_members([sent.id], patience=15, clock=lambda: next(now)).answers
        assert answer.code == "left"
        assert "500 that were waiting are revoked. Up to 1 is left" in answer.text
        (answer,) = revoke_members([sent.id]).answers
        assert "1 that was waiting is revoked" in answer.text
        (again, unknown) = revoke_members([sent.id, "none"]).answers
        assert (again.code, unknown.code) == ("ended", "not_found")


class TestRelations:
    @on_each_database()
    def test_a_result_leads_to_its_group_and_to_what_it_began(self, alias, boss):
        sent = chord([add.s(1, 1), add.s(2, 2)], calls()).delay()
        group_id, body_id = sent.parent.parent.id, sent.parent.id
        for _ in range(3):
            work()
        member = text_of(boss, reverse("admin:django_tasks_taskresult_change", args=[quote(member_id(group_id, 0))]))
        assert page_of(group_id) in member
        body = text_of(boss, reverse("admin:django_tasks_taskresult_change", args=[quote(body_id)]))
        assert f'the group <a class="task-id" href="{page_of(group_id)}' in body
        assert f"?q={sent.id}" in body
        tasks, groups = begun_by(TaskResult.objects.using(alias).get(pk=body_id), 10)
        assert len(tasks.rows) == 2
        assert tasks.whole
        assert groups.whole

    def test_what_is_searched_is_bounded_and_told(self, monkeypatch, boss):
        monkeypatch.setattr("django_tasks.workflows.NEAR", 2)
        row = result("default", "a", started_at=None)
        for number in range(3):
            result("default", f"b{number}", parent_id="a" if number != 1 else None)
        tasks, _groups = begun_by(TaskResult.objects.get(pk=row.pk), 10)
        assert [each.pk for each in tasks.rows] == ["b0"]
        assert not tasks.whole
        url = reverse("admin:django_tasks_taskresult_change", args=["a"])
        assert "There may be more" in text_of(boss, url)


class TestApi:
    def test_how_far_it_is(self, boss):
        group_id = group([add.s(1, 1), fail.s("pwd=hunter2 no"), *(echo.s(number) for number in range(5))]).delay().id
        work(3)
        first = boss.get(f"/api/tasks/groups/{group_id}/", {"page_size": 3}).json()
        assert (first["state"], first["size"], first["done"], first["failed"]) == ("failed", 7, 3, 1)
        assert first["first_failure"] == {
            "index": 1,
            "id": member_id(group_id, 1),
            "type": "ValueError",
            "message": "pwd=******** no",
        }
        assert [(each["index"], each["state"]) for each in first["members"]] == [
            (0, "SUCCESS"),
            (1, "FAILURE"),
            (2, "SUCCESS"),
        ]
        assert first["members"][0]["task"] == add.name
        assert boss.get(first["members"][0]["url"]).json()["group_id"] == group_id
        assert first["previous"] is None
        second = boss.get(first["next"]).json()
        assert [each["index"] for each in second["members"]] == [3, 4, 5]
        assert [each["index"] for each in boss.get(second["next"]).json()["members"]] == [6]
        assert boss.get(second["previous"]).json()["members"] == first["members"]

    def test_who_may_ask(self, db, monkeypatch):
        url = f"/api/tasks/groups/{group(add.s(1, 1), echo.s()).delay().id}/"
        work()
        assert Client().get(url).status_code == 403
        client = client_of()
        assert client.get(url).status_code == 200
        for odd in ("none", "%00", "x" * 300, "a%20b"):
            assert client.get(f"/api/tasks/groups/{odd}/").status_code == 404
        for asked in ({"start": -1}, {"page_size": 0}, {"start": "x"}, {"page": 2}):
            assert client.get(url, asked).status_code == 400
        assert client.get(url, {"start": 10**9}).json()["members"] == []

        class Mine(IsAdminUser):
            def has_object_permission(self, request, view, obj):
                return isinstance(obj, TaskGroup) or obj.task == add.name

        monkeypatch.setattr(GroupView, "permission_classes", [Mine])
        mine, other = client.get(url).json()["members"]
        assert mine["id"]
        assert set(other.values()) == {1, None}

    def test_where_groups_are_not_in_the_database(self, boss):
        entries = {"BROKERS": {"default": {"BACKEND": "immediate"}}, "RESULTS": {"default": {"BACKEND": "memory"}}}
        with override_settings(DJANGO_TASKS=entries):
            sent = group(add.s(1, 1), fail.s("no"), fail.s("no")).delay()
            told = boss.get(f"/api/tasks/groups/{sent.id}/").json()
            assert (told["state"], told["done"], told["failed"], told["created_at"]) == ("failed", 3, 2, None)
            assert [each["state"] for each in told["members"]] == ["SUCCESS", "FAILURE", "FAILURE"]
            assert text_of(boss, LIST)

    def test_a_large_one_costs_as_little_as_a_small_one(self, boss):
        small, large = (TaskGroup.objects.create(group_id=new_group_id(), size=size) for size in (3, 100_000))
        few = asked_in("default", boss, f"/api/tasks/groups/{small.pk}/")
        assert asked_in("default", boss, f"/api/tasks/groups/{large.pk}/?start=99000&page_size=200") <= few + 1


def test_the_values_of_many_members_are_gathered_by_few_queries(db):
    chord([add.s(number, 1) for number in range(300)], echo.s()).delay()
    work(300)
    with CaptureQueriesContext(connections["default"]) as captured:
        assert work() == 1
    assert len(captured) < 30
    (row,) = TaskResult.objects.filter(task=echo.name)
    assert json.loads(row.value or "")[0][0] == list(range(1, 301))
