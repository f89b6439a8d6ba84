"""Does the admin work in a browser that a strict policy holds to what comes from the site itself?

DJANGO_TASKS_TEST_SCREENSHOTS names a directory for pictures of every page, in light and dark.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.ui import WebDriverWait

from django_tasks import states
from django_tasks.message import member_id
from django_tasks.models import (
    BeatNode,
    Crash,
    GroupPart,
    PeriodicTask,
    QueuedMessage,
    Revocation,
    ScheduledRun,
    TaskGroup,
    TaskResult,
    WorkerNode,
)
from tests.app.tasks import add, echo, fail
from tests.surfaces.site import WORKER, chief, fetch, result, tasks_in, work

pytestmark = [pytest.mark.urls("tests.surfaces.urls"), pytest.mark.django_db(transaction=True)]

GROUP = "0193a1b2-0000-7000-8000-00000a000000"

CONTRAST = """
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const light = colour => {
  const [r, g, b] = numbers(colour).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor, [, , , alpha = 1] = numbers(colour);
    if (alpha) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll(arguments[0])].map(element => {
  const [high, low] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
  return [element.value || element.textContent, (high + 0.05) / (low + 0.05)];
});
"""


class Visitor:
    """Walks through pages, takes their picture, and hears what the browser complains about."""

    def __init__(self, browser: Chrome, site: str, pictures: Path) -> None:
        self.browser = browser
        self.site = site
        self.pictures = pictures
        self.width = 1280

    def dress(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.scheme = scheme

    def visit(self, url: str, name: str) -> str:
        self.browser.get(self.site + url)
        return self.look(name)

    def look(self, name: str) -> str:
        """Take a picture, check what it shows, and return the text of the page."""
        self.browser.set_window_size(self.width, 900)
        height = self.browser.execute_script("return document.documentElement.scrollHeight")
        self.browser.set_window_size(self.width, min(max(900, height + 140), 3000))
        self.browser.save_screenshot(str(self.pictures / f"{name}-{self.scheme}-{self.width}.png"))
        for text, ratio in self.browser.execute_script(
            CONTRAST,
            ".task-badge, .task-text, .task-quiet, .task-act button, .task-note, .task-preview *, .task-warning, "
            ".task-answers > :not([type=hidden])",
        ):
            assert ratio >= 4.5, (name, self.scheme, text, ratio)
        width = self.browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert width <= 0, f"{name} is {width} px wider than the window"
        return self.browser.find_element(By.TAG_NAME, "body").text

    def press(self, label: str = "", *, by: tuple[str, str] | None = None) -> None:
        """Press a button, and wait for the page that comes of it."""
        wanted = f"//button[normalize-space()='{label}'] | //input[@type='submit'][@value='{label}']"
        button = self.browser.find_element(*(by or (By.XPATH, wanted)))
        button.click()
        WebDriverWait(self.browser, 10).until(staleness_of(button))

    def complaints(self) -> list[str]:
        said = [entry["message"] for entry in self.browser.get_log("browser")]
        # A browser asks for this icon on its own; the test site has none.
        return [message for message in said if "/favicon.ico" not in message]


@pytest.fixture
def visitor(browser, live_server, tmp_path, settings) -> Iterator[Visitor]:
    settings.MIDDLEWARE = ["tests.surfaces.site.strict_policy", *settings.MIDDLEWARE]
    pictures = Path(os.environ.get("DJANGO_TASKS_TEST_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    client = Client()
    client.force_login(chief())
    with tasks_in("default"):
        browser.get(f"{live_server.url}/static/django_tasks/admin.css")
        browser.add_cookie({"name": "sessionid", "value": client.cookies["sessionid"].value})
        browser.get_log("browser")
        yield Visitor(browser, live_server.url, pictures)
    browser.delete_all_cookies()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def furnish() -> None:
    """Make a site that has a bit of everything."""
    for name, number in (("Ann", 2), ("Bob", 3)):
        echo.delay(name, number, password="hunter2", note="as agreed")
    fail.delay("The printer is out of paper.")
    work()
    failed = TaskResult.objects.get(state=states.FAILURE)
    attempt = {
        "attempt": 1,
        "state": "RETRY",
        "worker": WORKER,
        "started": datetime.now(UTC).isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "error": "ConnectionError: printer:631 does not answer",
    }
    failed.history, failed.attempts, failed.root_id = json.dumps(attempt) + "\n", 2, failed.task_id
    failed.save()
    now = datetime.now(UTC)
    for number, state in enumerate((states.REVOKED, states.REJECTED, states.RETRY, "PROGRESS", states.STARTED)):
        ended = now - timedelta(minutes=number) if state in states.FINAL else None
        result("default", f"0193a1b2-0000-7000-8000-{number:012d}", state=state, ended_at=ended)
    add.apply_async((1, 2), priority=5)
    fetch(1)
    add.apply_async((3, 4), countdown=3600)
    add.delay(5, 6)
    (leased,) = QueuedMessage.objects.exclude(lease_token=None)
    running = [{"id": leased.task_id, "task": leased.task, "since": now.isoformat(), "pid": 4243}]
    names = {"host": "host", "pid": 4242, "pool": "prefork", "concurrency": 2, "queues": "default,mail", "session": "s"}
    WorkerNode.objects.create(name=WORKER, status="running", processed=12, running=json.dumps(running), **names)
    WorkerNode.objects.create(name="lost@host", status="running", heartbeat_at=now - timedelta(minutes=5), **names)
    WorkerNode.objects.create(name="gone@host", status="offline", **names)
    Crash.objects.create(task_id=leased.task_id, worker=WORKER, attempt=1, reason="killed by signal 9 (SIGKILL)")
    Revocation.objects.create(task_id="0193a1b2-0000-7000-8000-000000000000", reason="ordered twice", terminate=True)
    error = json.dumps({"type": "ValueError", "module": "builtins", "message": "The tray is empty."})
    whole = TaskGroup.objects.create(group_id=GROUP, size=250, done=90, failed_index=1, failed_id="x", error=error)
    GroupPart.objects.bulk_create(
        GroupPart(group_id=whole.pk, index=index, task_id=member_id(GROUP, index), error=error * (index == 1))
        for index in range(90)
    )


def furnish_periodic() -> PeriodicTask:
    """Make periodic tasks of every standing, and runs of every outcome."""
    now = datetime.now(UTC)
    rows = PeriodicTask.objects
    nightly = rows.create(
        name="nightly report", task=add.name, schedule="crontab 30 3 * * mon-fri", timezone="Europe/Berlin"
    )
    planned = {"planned": True, "slot_at": now, "next_run_at": now + timedelta(hours=7), "total_run_count": 41}
    rows.filter(pk=nightly.pk).update(**planned)
    rows.create(name=echo.name, task=echo.name, schedule="every 5 minutes", from_code=True, args='[1, {"token": "x"}]')
    odd = rows.create(name="odd", task=add.name, schedule="every now and then")
    rows.filter(pk=odd.pk).update(enabled=False, error="ScheduleError: every now and then: expected numbers")
    paused = rows.create(name="flaky", task=fail.name, schedule="solar sunset 52.52 13.405", pause_after=3)
    error = "paused: it has failed as often in a row as it may"
    rows.filter(pk=paused.pk).update(enabled=False, failures=3, error=error)
    for number, outcome in enumerate(ScheduledRun.Outcome.values):
        ScheduledRun.objects.create(
            periodic_task=nightly,
            slot_at=now - timedelta(days=number + 1),
            published_at=None if outcome in ("missed", "skipped") else now - timedelta(days=number + 1),
            lateness=0.2,
            outcome=outcome,
            task_id=f"0193a1b2-0000-7000-8000-{number:012d}",
            note="the last of 3 that were missed" if outcome == "missed" else "",
        )
    BeatNode.objects.create(name="beat@host", host="host", pid=77, version="1", ticked_at=now - timedelta(minutes=3))
    return nightly


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_every_page_of_periodic_tasks(visitor, scheme, width):
    nightly = furnish_periodic()
    visitor.width = width
    visitor.dress(scheme)
    url = reverse("admin:django_tasks_periodictask_changelist")
    text = visitor.visit(url, "periodic")
    assert "No beat is running" in text
    assert "at 03:30 on Monday to Friday, in Europe/Berlin" in text
    assert "paused: it has failed" in text
    page = reverse("admin:django_tasks_periodictask_change", args=[nightly.pk])
    assert "the last of 3 that were missed" in visitor.visit(page, "periodic-one")
    of_code = PeriodicTask.objects.get(from_code=True)
    page = reverse("admin:django_tasks_periodictask_change", args=[of_code.pk])
    assert "Next runs, by the clock of" in visitor.visit(page, "periodic-of-code")
    assert "Time zone" in visitor.visit(f"{url}add/", "periodic-add")
    assert "succeeded" in visitor.visit(reverse("admin:django_tasks_scheduledrun_changelist"), "runs")
    assert "lost" in visitor.visit(reverse("admin:django_tasks_beatnode_changelist"), "beats")
    assert not visitor.complaints()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page(visitor, scheme):
    furnish()
    visitor.dress(scheme)
    lists = {name: reverse(f"admin:django_tasks_{name}_changelist") for name in (
        "taskresult", "queuedmessage", "workernode", "crash", "revocation", "taskgroup",
    )}  # fmt: skip
    assert "waiting messages" in visitor.visit(reverse("admin:index"), "index").lower()
    text = visitor.visit(lists["taskresult"], "results")
    assert "PROGRESS" in text
    assert "8 results" in text
    failed = TaskResult.objects.get(state=states.FAILURE)
    text = visitor.visit(reverse("admin:django_tasks_taskresult_change", args=[failed.pk]), "result-failed")
    assert "The printer is out of paper." in text
    assert "printer:631" in text
    good = TaskResult.objects.filter(task=echo.name)[0]
    text = visitor.visit(reverse("admin:django_tasks_taskresult_change", args=[good.pk]), "result-good")
    assert "as agreed" in text
    assert "hunter2" not in text
    assert "which holds it until" in visitor.visit(lists["queuedmessage"], "messages")
    message = QueuedMessage.objects.get(ready=True)
    visitor.visit(reverse("admin:django_tasks_queuedmessage_change", args=[message.pk]), "message")
    visitor.visit(reverse("admin:django_tasks_queuedmessage_queues"), "queues")
    visitor.visit(reverse("admin:django_tasks_queuedmessage_queues") + "?queue=default&broker=default", "purge")
    assert "lost" in visitor.visit(lists["workernode"], "workers")
    node = WorkerNode.objects.get(name=WORKER)
    assert "4243" in visitor.visit(reverse("admin:django_tasks_workernode_change", args=[node.pk]), "worker")
    assert "SIGKILL" in visitor.visit(lists["crash"], "crashes")
    assert "ordered twice" in visitor.visit(lists["revocation"], "revocations")
    assert "250" in visitor.visit(lists["taskgroup"], "groups")
    text = visitor.visit(reverse("admin:django_tasks_taskgroup_change", args=[GROUP]), "group")
    assert "90 of 250 ended (36%), 1 of them failed" in text
    assert "The tray is empty." in text
    assert not visitor.complaints()


def test_an_operator_at_work(visitor):
    """Find what failed, send it again, think better of it, revoke it, and delete what is left."""
    visitor.dress("light")
    sent = fail.delay("The printer is out of paper.")
    work()
    browser, results = visitor.browser, reverse("admin:django_tasks_taskresult_changelist")
    visitor.visit(f"{results}?state=FAILURE", "found")
    browser.find_element(By.CSS_SELECTOR, "tbody .field-task_shown a").click()
    WebDriverWait(browser, 10).until(lambda page: sent.id in page.current_url)
    visitor.press("Retry")
    assert "It is sent again." in visitor.look("sent-again")
    assert TaskResult.objects.get().state == states.PENDING
    visitor.press("Revoke")
    assert "end as revoked" in visitor.look("asked")
    visitor.press("Yes: Revoke")
    assert "It was waiting, and is revoked." in visitor.look("revoked")
    visitor.visit(results, "list")
    browser.find_element(By.ID, "action-toggle").click()
    counter = browser.find_element(By.CSS_SELECTOR, ".action-counter")
    WebDriverWait(browser, 10).until(lambda _: counter.text == "1 of 1 selected")
    browser.find_element(By.CSS_SELECTOR, "select[name=action] option[value=delete]").click()
    visitor.press(by=(By.CSS_SELECTOR, ".actions button[name=index]"))
    visitor.press("Yes: Delete")
    assert "Its result is deleted." in visitor.look("deleted")
    assert not TaskResult.objects.exists()
    assert not visitor.complaints()


def test_a_schedule_is_explained_while_it_is_typed(visitor):
    """Choose, mistype, see why, mend it, save, and have it run now."""
    visitor.dress("light")
    browser = visitor.browser
    visitor.visit(reverse("admin:django_tasks_periodictask_add"), "schedule-empty")
    line, preview = browser.find_element(By.ID, "id_schedule"), browser.find_element(By.CSS_SELECTOR, "[data-preview]")
    kind = browser.find_element(By.CSS_SELECTOR, "[data-kind]")

    def until(text: str) -> None:
        WebDriverWait(browser, 10).until(lambda _: text in preview.text)

    def choose(value: str) -> None:
        kind.find_element(By.CSS_SELECTOR, f"option[value='{value}']").click()

    written = {
        "every": ("every 5 minutes", "every 5 minutes"),
        "cron": ("cron 0 9 1,15 * *", "at 09:00 on days 1 and 15 of the month"),
        "solar": ("solar sunset 52.52 13.405", "at sunset"),
        "crontab": ("crontab 30 3 * * *", "at 03:30"),
    }
    for value, (text, words) in written.items():
        choose(value)
        assert line.get_attribute("value") == text
        until(words)
    hour = browser.find_element(By.CSS_SELECTOR, "[data-fields=crontab] label:nth-child(2) input")
    hour.clear()
    hour.send_keys("25")
    until("25 is too large")
    visitor.look("schedule-refused")
    line.clear()
    line.send_keys("every 7 hours")
    until("every 7 hours")
    assert kind.get_attribute("value") == "every"
    assert len(preview.find_elements(By.TAG_NAME, "time")) == 5
    line.clear()
    line.send_keys("crontab 15 4 * * *")
    browser.find_element(By.CSS_SELECTOR, "#id_timezone option[value='Asia/Tokyo']").click()
    until("at 04:15, in Asia/Tokyo")
    browser.find_element(By.ID, "id_name").send_keys("early")
    browser.find_element(By.ID, "id_task").send_keys("tests.app.tasks.ad")
    warning = browser.find_element(By.CSS_SELECTOR, "p.task-warning")
    WebDriverWait(browser, 10).until(lambda _: "Did you mean 'tests.app.tasks.add'?" in warning.text)
    browser.find_element(By.ID, "id_task").send_keys("d")
    WebDriverWait(browser, 10).until(lambda _: not warning.text)
    browser.find_element(By.ID, "id_args").clear()
    browser.find_element(By.ID, "id_args").send_keys("[1, 2]")
    visitor.look("schedule-typed")
    browser.find_element(By.ID, "id_name").send_keys(Keys.ENTER)
    WebDriverWait(browser, 10).until(staleness_of(line))
    row = PeriodicTask.objects.get()
    assert (row.schedule, row.timezone, row.task) == ("crontab 15 4 * * *", "Asia/Tokyo", add.name)
    visitor.visit(reverse("admin:django_tasks_periodictask_change", args=[row.pk]), "schedule-saved")
    visitor.press("Run now")
    assert "It is sent." in visitor.look("schedule-sent")
    assert ScheduledRun.objects.get().note == "by hand, by chief"
    assert not visitor.complaints()
