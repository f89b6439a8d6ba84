"""Do the pages of the admin show what is there, to whom they should, and change it only as asked?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote as admin_quote
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from django_tasks import group, states
from django_tasks.connections import home
from django_tasks.models import Crash, GroupPart, QueuedMessage, Revocation, TaskGroup, TaskResult, WorkerNode
from tests.app.tasks import add, echo, fail
from tests.surfaces.site import NASTY, WORKER, chief, client_of, fetch, on_each_database, result, staff, work

pytestmark = [pytest.mark.urls("tests.surfaces.urls"), pytest.mark.usefixtures("place")]

PAGES = ("taskresult", "queuedmessage", "workernode", "crash", "revocation", "taskgroup")
CANARY = "canary-5f1d"


def list_url(page: str) -> str:
    return reverse(f"admin:django_tasks_{page}_changelist")


def detail_url(page: str, pk: int | str) -> str:
    return reverse(f"admin:django_tasks_{page}_change", args=[admin_quote(pk)])


def shown(response) -> list[str]:
    """Return the ids that a list shows, from top to bottom."""
    assert response.status_code == 200
    return [getattr(row, "task_id", row.pk) for row in response.context["cl"].result_list]


def act(client, page, action, *pks, **more):
    return client.post(list_url(page), {"action": action, "_selected_action": list(pks), **more}, follow=True)


def said(response) -> str:
    return " | ".join(str(message) for message in response.context["messages"])


def worker(alias, name="w1", **fields):
    return WorkerNode.objects.using(alias).create(
        name=name, **{"session": "s", "status": "running", "queues": "default,mail", **fields}
    )


class TestResults:
    @on_each_database()
    def test_the_list(self, alias, boss):
        result(alias, "running", state=states.STARTED, ended_at=None, runtime=None)
        result(alias, "older", ended_at=datetime.now(UTC) - timedelta(hours=1), state=states.FAILURE)
        result(alias, "newer", task="shop.tasks.mail", queue="mail")
        response = boss.get(list_url("taskresult"))
        assert shown(response) == ["running", "newer", "older"]
        text = response.content.decode()
        assert '<span class="task-badge task-badge-bad">FAILURE</span>' in text
        assert "250 ms" in text
        assert "3 results" in text
        assert "django_tasks/admin.css" in text

    @on_each_database()
    def test_filters(self, alias, boss):
        worker(alias, "other@host")
        result(alias, "a", state=states.FAILURE)
        result(alias, "b", queue="mail", ended_at=datetime.now(UTC) - timedelta(days=4))
        result(alias, "c", worker="other@host", task="example.other")
        result(alias, "d", state="PROGRESS", ended_at=None)
        looks = {
            "state=FAILURE": ["a"],
            "state=PROGRESS": ["d"],
            "queue=mail": ["b"],
            "worker=other@host": ["c"],
            "task=example.other": ["c"],
            "task=shop.tasks.order&state=SUCCESS": ["b"],
            "task=shop.tasks.order&queue=default": ["d", "a"],
            "since=24h": ["c", "a"],
            "since=2000-01-01&until=2001-01-01": [],
            f"until={(datetime.now(UTC) - timedelta(days=2)).date()}": ["b"],
            "q=shop.tasks.order&state=FAILURE": ["a"],
        }
        for query, ids in looks.items():
            assert shown(boss.get(f"{list_url('taskresult')}?{query}")) == ids, query

    @on_each_database()
    def test_choices_come_from_what_is_known_without_the_table(self, alias, boss):
        worker(alias, "other@host")
        response = boss.get(f"{list_url('taskresult')}?state=SPECIAL")
        choices = {
            str(spec.title): [str(choice["display"]) for choice in spec.choices(response.context["cl"])]
            for spec in response.context["cl"].filter_specs
        }
        assert {"default", "mail"} < set(choices["queue"])
        assert "other@host" in choices["worker"]
        assert "tests.app.tasks.add" in choices["task"]
        assert choices["state"][-1] == "SPECIAL"

    @on_each_database()
    def test_search(self, alias, boss):
        for task_id in ("0193-aa", "0193-ab", "0193-Ab", "0194-aa", "100%", "under_score"):
            result(alias, task_id)
        result(alias, "x", task="unknown.task")
        looks = {
            "0193-aa": ["0193-aa"],
            "0193-a": ["0193-ab", "0193-aa"],
            " 0194 ": ["0194-aa"],
            "100%": ["100%"],
            "_": [],
            "%": [],
            "unknown.task": ["x"],
            "unknown.": ["x"],
            "Unknown.": [],
        }
        for text, ids in looks.items():
            assert shown(boss.get(list_url("taskresult"), {"q": text})) == ids, text

    @on_each_database()
    def test_the_page_of_one(self, alias, boss):
        history = [{"attempt": 1, "state": "RETRY", "worker": "w0", "started": None, "ended": None, "error": "Oh: no"}]
        result(
            alias,
            "id/with_odd:parts",
            state=states.FAILURE,
            attempts=2,
            args_repr="(1, 2)",
            kwargs_repr="{'name': 'Ann', 'password': '********'}",
            error_type="ValueError",
            error_module="builtins",
            error_message="no paper",
            error_notes="tray 2",
            traceback="Traceback (most recent call last):\n  line",
            history="\n".join(map(json.dumps, history)) + "\nnot json\n",
            message=json.dumps({"headers": {"id": "x", "origin": "gen1@web", "api_key": CANARY}, "body": ""}),
            parent_id="0193-parent",
        )
        response = boss.get(detail_url("taskresult", "id/with_odd:parts"))
        assert response.status_code == 200
        text = response.content.decode()
        for part in (
            "(1, 2)",
            "&#x27;Ann&#x27;",
            "ValueError",
            "no paper",
            "tray 2",
            "most recent call last",
            "Oh: no",
            "Deliveries",
        ):
            assert part in text, part
        assert "gen1@web" in text
        assert "?q=0193-parent" in text
        assert CANARY not in text
        assert "_save" not in text

    @on_each_database()
    def test_a_result_is_told_in_plain_words(self, alias, boss):
        echo.delay(when=datetime(2026, 11, 20, 10, tzinfo=UTC), token=CANARY)
        work()
        (row,) = TaskResult.objects.using(alias).all()
        assert CANARY in (row.value or "")
        text = boss.get(detail_url("taskresult", row.pk)).content.decode()
        assert "2026-11-20T10:00:00+00:00" in text
        assert "__type__" not in text
        assert CANARY not in text

    def test_what_is_not_there(self, boss):
        for odd in ("nobody", "\x00", "x" * 300, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
            response = boss.get(f"{list_url('taskresult')}{quote(admin_quote(odd))}/change/")
            assert response.status_code == 302


class TestActions:
    @on_each_database()
    def test_retry(self, alias, boss):
        sent, good = fail.delay("no paper"), add.delay(1, 1)
        work()
        text = said(act(boss, "taskresult", "retry", sent.id, good.id))
        assert "Retry: 1 task" in text
        assert "It is sent again." in text
        assert "Not done: 1 task" in text
        assert "only what failed" in text
        assert QueuedMessage.objects.using(alias).get().task_id == sent.id
        entry = LogEntry.objects.get()
        assert (entry.object_id, entry.change_message, entry.user.username) == (sent.id, "Retry", "chief")

    @on_each_database()
    def test_what_destroys_asks_first(self, alias, boss):
        sent = add.apply_async((1, 1), countdown=60)
        result(alias, sent.id, state=states.RETRY, ended_at=None)
        for name, question in {
            "revoke": "end as revoked",
            "terminate": "half done",
            "delete": "ask for these results",
        }.items():
            response = act(boss, "taskresult", name, sent.id)
            assert question in response.content.decode()
            assert TaskResult.objects.using(alias).get().state == "RETRY"
            assert not Revocation.objects.using(alias).exists()
        text = said(act(boss, "taskresult", "terminate", sent.id, confirmed="yes"))
        assert "It was waiting, and is revoked." in text
        assert TaskResult.objects.using(alias).get().state == "REVOKED"
        assert Revocation.objects.using(alias).get().terminate is True
        assert "Delete: 1 task" in said(act(boss, "taskresult", "delete", sent.id, confirmed="yes"))
        assert not TaskResult.objects.using(alias).exists()

    def test_back_to_the_page_it_came_from(self, boss):
        sent = fail.delay("no")
        work()
        response = act(boss, "taskresult", "retry", sent.id, _detail="yes")
        assert response.redirect_chain == [(detail_url("taskresult", sent.id), 302)]
        assert "_detail" in act(boss, "taskresult", "delete", sent.id, _detail="yes").content.decode()
        QueuedMessage.objects.all().delete()
        response = act(boss, "taskresult", "delete", sent.id, _detail="yes", confirmed="yes")
        assert response.redirect_chain == [(list_url("taskresult"), 302)]

    def test_a_selection_is_bounded_and_never_the_whole_table(self, boss):
        for number in range(501):
            result("default", f"id-{number:03d}", state=states.FAILURE)
        ids = [f"id-{number:03d}" for number in range(501)]
        assert "at most 500" in said(act(boss, "taskresult", "delete", *ids, confirmed="yes"))
        act(boss, "taskresult", "delete", ids[0], confirmed="yes", select_across="1")
        assert TaskResult.objects.count() == 500
        assert "Select all 500" not in boss.get(list_url("taskresult")).content.decode()

    def test_what_has_gone_meanwhile(self, boss):
        assert "any more" in said(act(boss, "taskresult", "retry", "gone"))


class TestWaitingMessages:
    @on_each_database()
    def test_list_filters_and_search(self, alias, boss):
        leased = add.delay(0, 0)
        fetch(1)
        low, high = add.delay(1, 1), add.apply_async((2, 2), priority=5, queue="mail")
        later, soon = add.apply_async((3, 3), countdown=7200), fail.apply_async(("x",), countdown=60)
        response = boss.get(list_url("queuedmessage"))
        assert shown(response) == [soon.id, later.id, high.id, low.id, leased.id]
        text = response.content.decode()
        assert f"{WORKER}, which holds it until" in text
        assert "a free worker" in text
        looks = {
            "standing=ready": [low.id, high.id],
            "standing=ready&queue=mail": [high.id],
            "standing=delayed": [soon.id, later.id],
            "standing=leased": [leased.id],
            "queue=default": [soon.id, later.id, low.id, leased.id],
            "task=tests.app.tasks.fail": [soon.id],
            "standing=delayed&task=tests.app.tasks.add": [later.id],
            "q=tests.app.tasks.f": [soon.id],
            f"q={high.id}": [high.id],
            f"q={high.id}&standing=leased": [],
        }
        for query, ids in looks.items():
            assert shown(boss.get(f"{list_url('queuedmessage')}?{query}")) == ids, query

    @on_each_database()
    def test_the_page_of_one(self, alias, boss):
        echo.apply_async((1,), {"password": CANARY, "name": "Ann"}, headers={"x-api-key": CANARY, "tenant": "acme"})
        row = QueuedMessage.objects.using(alias).get()
        text = boss.get(detail_url("queuedmessage", row.pk)).content.decode()
        assert "&#x27;Ann&#x27;" in text
        assert "acme" in text
        assert CANARY not in text
        row.headers = "[broken"
        row.save(using=alias)
        assert boss.get(detail_url("queuedmessage", row.pk)).status_code == 200

    @on_each_database()
    def test_actions(self, alias, boss):
        leased = add.delay(0, 0)
        fetch(1)
        later, unwanted, wrong = (add.apply_async((n, n), countdown=60) for n in range(3))
        pks = {row.task_id: row.pk for row in QueuedMessage.objects.using(alias).all()}
        text = said(act(boss, "queuedmessage", "run_now", pks[later.id], pks[leased.id]))
        assert "It is ready." in text
        assert f"It is leased by {WORKER}" in text
        assert "nothing will tell of it" in act(boss, "queuedmessage", "delete", pks[unwanted.id]).content.decode()
        text = said(act(boss, "queuedmessage", "delete", pks[unwanted.id], pks[leased.id], confirmed="yes"))
        assert "Its message is deleted." in text
        assert f"It is leased by {WORKER}" in text
        act(boss, "queuedmessage", "revoke", pks[wrong.id], confirmed="yes")
        assert TaskResult.objects.using(alias).get().task_id == wrong.id
        left = set(QueuedMessage.objects.using(alias).values_list("task_id", flat=True))
        assert left == {later.id, leased.id}

    @on_each_database()
    def test_a_queue_is_purged_after_a_question(self, alias, boss):
        leased = add.apply_async((0, 0), queue="mail")
        fetch(1)
        for number in range(3):
            add.apply_async((number, 0), queue="mail")
        add.delay(1, 1)
        url = reverse("admin:django_tasks_queuedmessage_queues")
        assert url in boss.get(list_url("queuedmessage")).content.decode()
        standings = {s["queue"]: (s["ready"], s["leased"]) for s in boss.get(url).context["standings"]}
        assert standings == {"default": ("1", "0"), "mail": ("3", "1")}
        asked = boss.get(url, {"queue": "mail", "broker": "default"})
        assert "3 messages that nobody has leased are removed" in asked.content.decode()
        assert QueuedMessage.objects.using(alias).count() == 5
        text = said(boss.post(url, {"queue": "mail", "broker": "default"}, follow=True))
        assert text == "3 messages were removed from the queue mail."
        assert QueuedMessage.objects.using(alias).filter(queue="mail").get().task_id == leased.id
        assert QueuedMessage.objects.using(alias).count() == 2
        assert boss.get(url, {"queue": "mail", "broker": "none"}).status_code == 404


class TestWorkers:
    @on_each_database()
    def test_list_and_page(self, alias, boss):
        since = datetime.now(UTC).isoformat()
        busy = worker(
            alias,
            running=json.dumps([{"id": "0193-run", "task": "shop.tasks.order", "since": since, "pid": 77}, "odd", {}]),
            pid=4242,
            processed=12,
        )
        worker(alias, "silent", heartbeat_at=datetime.now(UTC) - timedelta(seconds=31))
        worker(alias, "gone", status="offline")
        worker(alias, "odd", running="{")
        text = boss.get(list_url("workernode")).content.decode()
        assert '<span class="task-badge task-badge-good">running</span>' in text
        assert '<span class="task-badge task-badge-bad">lost</span>' in text
        assert re.search(r"3\d\.\d s ago", text)
        assert '<td class="field-busy">1</td>' in text
        assert '<td class="field-busy">0</td>' in text
        text = boss.get(detail_url("workernode", busy.pk)).content.decode()
        assert f"{list_url('queuedmessage')}?q=0193-run" in text
        assert "4242" in text


class TestEvidence:
    @on_each_database()
    def test_crashes(self, alias, boss):
        crash = Crash.objects.using(home()).create(
            task_id="0193-x", worker="w1", attempt=2, reason="signal 9, pwd=hunter2"
        )
        text = boss.get(list_url("crash")).content.decode()
        assert "signal 9" in text
        assert "hunter2" not in text
        assert boss.get(detail_url("crash", crash.pk)).status_code == 200

    @on_each_database()
    def test_a_revocation_is_taken_back(self, alias, boss):
        Revocation.objects.using(home()).create(task_id="0193-x", reason="a mistake")
        assert "a mistake" in boss.get(list_url("revocation")).content.decode()
        assert boss.get(detail_url("revocation", "0193-x")).status_code == 200
        assert "will be run" in act(boss, "revocation", "take_back", "0193-x").content.decode()
        assert "It may be run again." in said(act(boss, "revocation", "take_back", "0193-x", confirmed="yes"))
        assert not Revocation.objects.using(home()).exists()


@pytest.mark.django_db
class TestPermissions:
    def test_each_page_needs_its_own(self):
        client = client_of("view_taskresult")
        assert client.get(list_url("taskresult")).status_code == 200
        for page in PAGES[1:]:
            assert client.get(list_url(page)).status_code == 403
        assert client.get(reverse("admin:django_tasks_queuedmessage_queues")).status_code == 403
        assert Client().get(list_url("taskresult")).status_code == 302

    def test_without_the_payload_permission_nothing_of_it_is_shown(self):
        sent = echo.delay("argument-shown", name="keyword-shown")
        waits = echo.apply_async(("argument-shown",), headers={"tenant": "header-shown"}, countdown=60)
        work()
        broken = fail.apply_async(("argument-shown",), headers={"tenant": "header-shown"})
        work()
        TaskResult.objects.filter(pk=broken.id).update(error_message="", traceback="")
        pages = [
            detail_url("taskresult", sent.id),
            detail_url("taskresult", broken.id),
            detail_url("queuedmessage", QueuedMessage.objects.get(task_id=waits.id).pk),
        ]
        client, other = client_of("view_taskresult", "view_queuedmessage"), Client()
        other.force_login(staff("view_taskresult", "view_queuedmessage", "view_payload", name="auditor"))
        for page in pages:
            text = client.get(page).content.decode()
            assert "do not have the permission" in text
            assert "-shown" not in text.replace("field-shown", "")
            assert "-shown" in other.get(page).content.decode()

    @pytest.mark.parametrize(
        ("page", "name", "permission"),
        [
            ("taskresult", "retry", "retry_taskresult"),
            ("taskresult", "revoke", "revoke_taskresult"),
            ("taskresult", "terminate", "revoke_taskresult"),
            ("taskresult", "delete", "delete_taskresult"),
            ("queuedmessage", "run_now", "run_now_queuedmessage"),
            ("queuedmessage", "revoke", "revoke_taskresult"),
            ("queuedmessage", "delete", "delete_queuedmessage"),
            ("revocation", "take_back", "delete_revocation"),
            ("taskgroup", "revoke_members", "revoke_taskresult"),
        ],
    )
    def test_each_action_needs_its_own(self, page, name, permission):
        Revocation.objects.create(task_id="revoked")
        sent = fail.delay("no")
        work()
        later = add.apply_async((1, 1), countdown=60)
        result("default", later.id, state=states.RETRY, ended_at=None)
        pk = {
            "taskresult": later.id if permission == "revoke_taskresult" else sent.id,
            "queuedmessage": str(QueuedMessage.objects.get(task_id=later.id).pk),
            "revocation": "revoked",
            "taskgroup": group([add.s(1, 1)]).apply_async(countdown=60).id,
        }[page]
        view = f"view_{page}"
        client = client_of(view)
        before = _everything()
        assert f'value="{name}"' not in client.get(list_url(page)).content.decode()
        assert f'value="{name}"' not in client.get(detail_url(page, pk)).content.decode()
        act(client, page, name, pk, confirmed="yes")
        assert _everything() == before
        allowed = Client()
        allowed.force_login(staff(view, permission, name="allowed"))
        assert f'value="{name}"' in allowed.get(detail_url(page, pk)).content.decode()
        act(allowed, page, name, pk, confirmed="yes")
        assert _everything() != before

    def test_purging_needs_its_own(self):
        add.delay(1, 1)
        client, url = client_of("view_queuedmessage"), reverse("admin:django_tasks_queuedmessage_queues")
        assert "Purge" not in client.get(url).content.decode()
        assert client.get(url, {"queue": "default", "broker": "default"}).status_code == 403
        assert client.post(url, {"queue": "default", "broker": "default"}).status_code == 403
        assert QueuedMessage.objects.count() == 1

    def test_nothing_is_added_changed_or_deleted_past_the_actions(self, boss):
        result("default", "a")
        for page, pk in (("taskresult", "a"),):
            base = detail_url(page, pk).removesuffix("change/")
            assert boss.get(f"{list_url(page)}add/").status_code == 403
            assert boss.post(detail_url(page, pk), {"state": "PENDING"}).status_code == 403
            assert boss.post(f"{base}delete/", {"post": "yes"}).status_code == 403
        assert TaskResult.objects.get().state == "SUCCESS"


@pytest.mark.django_db
class TestSafety:
    def test_a_get_changes_nothing_and_a_post_needs_its_token(self, boss):
        sent = fail.delay("no")
        work()
        before = _everything()
        queues = reverse("admin:django_tasks_queuedmessage_queues")
        for action in ("retry", "revoke", "terminate", "delete"):
            boss.get(list_url("taskresult"), {"action": action, "_selected_action": sent.id, "confirmed": "yes"})
        boss.get(queues, {"queue": "default", "broker": "default", "confirmed": "yes"})
        assert _everything() == before
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(chief("second"))
        data = {"action": "delete", "_selected_action": sent.id, "confirmed": "yes"}
        assert strict.post(list_url("taskresult"), data).status_code == 403
        assert strict.post(queues, {"queue": "default", "broker": "default"}).status_code == 403
        assert _everything() == before

    def test_no_page_is_kept_by_a_cache_or_framed(self, boss):
        result("default", "a")
        urls = [
            *map(list_url, PAGES),
            detail_url("taskresult", "a"),
            reverse("admin:django_tasks_queuedmessage_queues"),
        ]
        for url in urls:
            response = boss.get(url)
            assert "no-store" in response["Cache-Control"]
            assert response["X-Frame-Options"] == "DENY"

    @pytest.mark.parametrize("text", NASTY)
    def test_text_stays_text(self, boss, text):
        """With any text in every column each page has the elements that it has with plain words."""
        assert _tour(boss, text) == _tour(boss, "plain words")

    @pytest.mark.parametrize(
        "query",
        [
            "traceback__contains=x",
            "message__regex=(a%2B)%2B$",
            "state__in=a,b",
            "_connector=OR",
            "task_id__startswith=a",
            "pk=a",
        ],
    )
    def test_only_declared_lookups(self, boss, query):
        assert boss.get(f"{list_url('taskresult')}?{query}").status_code in (302, 400)

    @pytest.mark.parametrize(
        "query",
        [
            "since=yesterday",
            "until=2026-99-99",
            "since=9999-12-31&until=9999-12-31",
            "state=%00",
            "queue=" + "x" * 300,
            "p=999999999",
            "p=-1",
            "p=x",
            "q=%00",
            "since=0001-01-01",
        ],
    )
    def test_odd_parameters_do_no_harm(self, boss, query):
        assert boss.get(f"{list_url('taskresult')}?{query}", follow=True).status_code == 200

    @pytest.mark.parametrize("query", ["o=1.-2.99", "o=x", "all=", "o=(select 1)", "_facets=True"])
    def test_the_order_is_ours(self, boss, query):
        result("default", "a", task="z")
        result("default", "b", task="a", ended_at=datetime.now(UTC) + timedelta(seconds=5))
        assert shown(boss.get(f"{list_url('taskresult')}?{query}")) == ["b", "a"]


def test_nothing_here_needs_django_rest_framework():
    apps = ["admin", "auth", "contenttypes", "sessions", "messages"]
    code = f"""
import sys
sys.modules["rest_framework"] = None
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_tasks", *(f"django.contrib.{{app}}" for app in {apps})],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
)
django.setup()
from django.contrib import admin
admin.autodiscover()
assert len([model for model in admin.site._registry if model._meta.app_label == "django_tasks"]) == 9
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=Path(__file__).parents[2], check=True)


class Elements(HTMLParser):
    """Collects what a browser would make of a page: elements with the names of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in_script = tag == "script"
        self.found.append((tag, *sorted(name for name, _ in attrs)))
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name != "style", (tag, value)
            if name in ("href", "src", "action"):
                assert not (value or "").lower().strip().startswith("javascript:"), (tag, value)
        assert tag != "style"
        assert tag != "script" or dict(attrs).keys() & {"src"} or dict(attrs).get("type") == "application/json"


def _tour(client: Client, text: str) -> list[list[tuple[str, ...]]]:
    """Visit every page with a text in every column; return the elements of each."""
    for model in (TaskResult, QueuedMessage, Revocation, WorkerNode, Crash, TaskGroup, GroupPart):
        model.objects.all().delete()
    task_id = f"id-{text.replace(' ', '')}"
    fields = (
        "queue",
        "worker",
        "args_repr",
        "kwargs_repr",
        "error_type",
        "error_module",
        "error_message",
        "error_notes",
    )
    result(
        "default",
        task_id,
        **dict.fromkeys((*fields, "task", "traceback", "root_id", "parent_id", "group_id"), text),
        state=text[:64],
        value=json.dumps({text: [text]}),
        history=json.dumps(dict.fromkeys(("attempt", "state", "worker", "started", "ended", "error"), text)),
        message=json.dumps({"headers": {text: text}}),
    )
    message = QueuedMessage.objects.create(
        **dict.fromkeys(("task", "queue", "leased_by"), text),
        task_id=task_id,
        ready=False,
        lease_token=1,
        visible_at=datetime.now(UTC) + timedelta(seconds=20),
        headers=json.dumps({"argsrepr": text, "kwargsrepr": text, text: text}),
        body=b"",
    )
    running = json.dumps([{"id": text, "task": text, "since": text, "pid": text}])
    node = worker("default", text, **dict.fromkeys(("host", "pool", "queues", "version"), text), running=running)
    crash = Crash.objects.create(task_id=text, worker=text, reason=text)
    Revocation.objects.create(task_id=text, reason=text)
    form = {"task": text, "args": [text], "kwargs": {text: text}, "options": {"task_id": text}}
    body = json.dumps([[], {}, {"callbacks": [form], "chain": [form], "errbacks": [{"subtask_type": text}]}])
    headers = {"id": text, "task": text, "argsrepr": text, "kwargsrepr": text}
    then = {"messages": [{"headers": headers, "body": b64encode(body.encode()).decode()}], "groups": []}
    TaskGroup.objects.create(
        **dict.fromkeys(("group_id", "outer_id", "root_id", "parent_id"), text),
        size=2,
        done=1,
        outer_index=1,
        failed_id=f"{text}!",
        failed_index=0,
        error=json.dumps({"type": text, "module": "", "message": text}),
        then=json.dumps(then),
    )
    GroupPart.objects.create(group_id=text, index=0, task_id=task_id, error="{}")
    urls = (
        *map(list_url, PAGES),
        f"{list_url('taskresult')}?state={quote(text)}&q={quote(text)}&task={quote(text)}",
        f"{list_url('queuedmessage')}?queue={quote(text)}&standing={quote(text)}",
        detail_url("taskresult", task_id),
        detail_url("queuedmessage", message.pk),
        detail_url("workernode", node.pk),
        detail_url("crash", crash.pk),
        detail_url("revocation", text),
        detail_url("taskgroup", text),
        f"{reverse('admin:django_tasks_queuedmessage_queues')}?queue={quote(text)}&broker=default",
    )
    pages = [client.get(url) for url in urls]
    pages += [act(client, "taskresult", action, task_id) for action in ("delete", "retry")]
    assert [page.status_code for page in pages] == [200] * len(pages)
    assert all(escape(text) in page.content.decode() for page in pages[8:14])
    return [Elements(page.content.decode()).found for page in pages]


def _everything() -> list[object]:
    models = (TaskResult, QueuedMessage, Revocation, WorkerNode, Crash, LogEntry)
    return [list(model.objects.order_by("pk").values()) for model in models]
