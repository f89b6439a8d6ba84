"""What does a user's task do, from the call to its result, on a real worker?"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings

from django_tasks import AsyncResult, bulk, revoke, send_task, states
from django_tasks.connections import results
from django_tasks.exceptions import RemoteError, ResultTimeout, TaskExpired, TaskRevoked
from django_tasks.models import TaskResult
from testproject.backends import BROKERS
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.acceptance.gates import release
from tests.app.models import Note
from tests.vendors import each_vendor

pytestmark = each_vendor(transaction=True)

Handle = AsyncResult[Any]


def begun(site: Site, *handles: Handle) -> None:
    ids = {handle.id for handle in handles}
    site.until(lambda: ids <= set(site.ledger.count()), "they have begun")


def order(site: Site) -> list[str]:
    return [line.id for line in sorted(site.ledger.lines("start"), key=lambda line: line.at)]


def seconds_since(moment: datetime, line: Any) -> float:
    """Return how much later than a moment a task wrote its line."""
    return float((line.at - time.monotonic_ns()) / 1e9 + (datetime.now(UTC) - moment).total_seconds())


# In which order


def test_higher_priorities_go_first_and_the_oldest_of_each_before_the_others(site: Site):
    book = str(site.ledger)
    # RabbitMQ has ten levels from 0 on.
    priorities = (0, 50, 100, 20) if site.kind == "amqp" else (0, -100, 5, 100, 4)
    sent = {
        priority: [tasks.note.apply_async((book,), priority=priority).id for _ in range(3)] for priority in priorities
    }
    site.worker("-c", "1", "-P", "solo")
    site.until(lambda: len(order(site)) == 3 * len(sent), "all have begun")
    assert order(site) == [task_id for priority in sorted(sent, reverse=True) for task_id in sent[priority]]


def test_tasks_begin_in_the_order_of_their_sending_and_delayed_ones_when_their_time_has_come(site: Site):
    site.worker("-c", "1", "-P", "threads")
    book = str(site.ledger)
    now = datetime.now(UTC)
    delays = (1.4, 0.4, 0.9)
    later = {delay: tasks.note.apply_async((book,), countdown=delay).id for delay in delays}
    at = now + timedelta(seconds=1.9)
    later[1.9] = tasks.note.apply_async((book,), eta=at).id
    first = [handle.id for handle in bulk(tasks.note.s(book) for _ in range(50))]
    site.until(lambda: len(order(site)) == len(first) + len(later), "all have begun")
    # Which of those that are delayed come between the others, a machine that is slow enough decides.
    assert [task_id for task_id in order(site) if task_id in first] == first
    lines = {line.id: line for line in site.ledger.lines("start")}
    for delay, task_id in later.items():
        late = seconds_since(now + timedelta(seconds=delay), lines[task_id])
        assert -0.05 <= late < 20.0, f"{delay}: {late}"


def test_an_eta_in_the_past_is_at_once_and_one_far_ahead_waits(site: Site):
    worker = site.worker("-P", "threads")
    book = str(site.ledger)
    past = tasks.note.apply_async((book,), eta=datetime(1999, 1, 1, tzinfo=UTC))
    negative = tasks.note.apply_async((book,), countdown=-5)
    far = tasks.note.apply_async((book,), eta=datetime.now(UTC) + timedelta(days=400))
    assert [past.get(20), negative.get(20)] == [1, 1]
    assert worker.stop() == 0
    site.comes_to(default=1)
    assert far.state == states.PENDING
    assert set(site.ledger.count()) == {past.id, negative.id}


def test_a_queue_of_thousands_does_not_keep_another_one_waiting(site: Site):
    many = bulk(tasks.pause.s(str(site.ledger), 0.002).set(queue="many") for _ in range(2000))
    worker = site.worker("-c", "1", "-Q", "many,few")
    site.until(lambda: len(site.ledger.lines("end")) > 20, "they are under way")
    few = tasks.note.apply_async((str(site.ledger),), queue="few")
    few.get(20)
    assert len(site.ledger.lines("end")) < len(many) / 2
    worker.kill()


def test_a_long_task_holds_up_no_short_one_while_a_slot_is_free(site: Site):
    book, gate = str(site.ledger), site.gate()
    site.worker("-c", "2")
    warm = bulk(tasks.note.s(book) for _ in range(50))
    assert set(site.ended(*warm)) == {states.SUCCESS}
    short = bulk(tasks.note.s(book) for _ in range(100))
    # It does not end before it is let, which nobody does until all the others have.
    long = tasks.hold.delay(book, str(gate))
    short += bulk(tasks.note.s(book) for _ in range(100))
    assert set(site.ended(*short)) == {states.SUCCESS}
    assert long.state != states.SUCCESS
    gate.open()
    assert long.get(20) == 1


def test_what_waits_behind_a_long_task_goes_to_another_worker(site: Site):
    book, gate = str(site.ledger), site.gate()
    bulk(tasks.note.s(book) for _ in range(50))
    long = tasks.hold.delay(book, str(gate))
    behind = bulk(tasks.note.s(book) for _ in range(50))
    # It has looked far ahead by the time it comes to the long one: its only slot is taken.
    first = site.worker("-c", "1")
    begun(site, long)
    other = site.worker("-c", "1")
    assert set(site.ended(*behind)) == {states.SUCCESS}
    assert {line.pid for line in site.ledger.lines("start") if line.id in {handle.id for handle in behind}}.isdisjoint(
        line.pid for line in site.ledger.lines("start") if line.id == long.id
    )
    assert {handle.fetch().attempts for handle in behind} == {1}
    gate.open()
    assert long.get(20) == 1
    assert [first.stop(), other.stop()] == [0, 0]


def test_two_workers_share_the_load_and_no_task_runs_twice(site: Site):
    for _ in range(2):
        site.worker("-c", "1")
    gate = site.gate()
    # Each has one, so that both are there when the rest is to be had.
    held = bulk(tasks.hold.s(str(site.ledger), str(gate)) for _ in range(2))
    begun(site, *held)
    handles = bulk(tasks.pause.s(str(site.ledger), 0.01) for _ in range(200))
    release(site, gate, *held)
    assert set(site.ended(*held, *handles)) == {states.SUCCESS}
    assert max(site.ledger.count().values()) == 1
    shares = Counter(line.pid for line in site.ledger.lines("start"))
    assert len(shares) == 2
    assert min(shares.values()) > 1
    assert len({handle.fetch().worker for handle in handles}) == 2


# Not to be run


def test_what_has_expired_is_not_begun(site: Site):
    book = str(site.ledger)
    gone = tasks.note.apply_async((book,), expires=0)
    past = tasks.note.apply_async((book,), expires=datetime(2001, 1, 1, tzinfo=UTC))
    waits = tasks.note.apply_async((book,), countdown=1.0, expires=0.5)
    fine = tasks.note.apply_async((book,), expires=3600)
    site.worker("-P", "threads")
    assert site.ended(gone, past, waits, fine) == [states.REVOKED] * 3 + [states.SUCCESS]
    with pytest.raises(TaskExpired, match="expired at"):
        gone.get()
    assert set(site.ledger.count()) == {fine.id}


def test_a_revoked_task_does_not_begin_whenever_it_was_revoked(site: Site):
    book, gate = str(site.ledger), site.gate()
    early = "revoked-before-it-was-sent"
    revoke([early])
    waiting = tasks.note.delay(book)
    delayed = tasks.note.apply_async((book,), countdown=0.5)
    found = revoke([waiting.id, delayed.id, "unknown"])
    if site.broker.features.discards:
        assert found == [waiting.id, delayed.id]
        assert [waiting.state, delayed.state] == [states.REVOKED] * 2
    # A worker that comes later knows of it as well.
    worker = site.worker("-c", "1")
    unknown = tasks.note.apply_async((book,), task_id=early)
    assert site.ended(unknown, waiting, delayed) == [states.REVOKED] * 3
    # Behind another task, in the hands of a worker or not.
    held = tasks.hold.delay(book, str(gate))
    begun(site, held)
    behind = bulk(tasks.note.s(book) for _ in range(3))
    behind[1].revoke()
    gate.open()
    assert site.ended(held, *behind) == [states.SUCCESS, states.SUCCESS, states.REVOKED, states.SUCCESS]
    with pytest.raises(TaskRevoked):
        behind[1].get()
    assert worker.stop() == 0
    assert set(site.ledger.count()) == {held.id, behind[0].id, behind[2].id}


def test_a_running_task_that_is_revoked_ends_only_if_that_is_asked_for_and_is_not_retried(site: Site):
    book = str(site.ledger)
    gates = [site.gate(name) for name in ("one", "two", "three")]
    worker = site.worker("-c", "3")
    goes_on = tasks.hold.delay(book, str(gates[0]))
    ended = tasks.hold.delay(book, str(gates[1]))
    retried = tasks.hold_then.delay(book, str(gates[2]), "retry")
    begun(site, goes_on, ended, retried)
    revoke([goes_on.id, retried.id])
    revoked_at = time.monotonic()
    revoke([ended.id], terminate=True)
    assert site.ended(ended) == [states.REVOKED]
    # Within a heartbeat, which is half a second here.
    assert time.monotonic() - revoked_at < 10.0
    with pytest.raises(TaskRevoked, match="ended while it ran"):
        ended.get()
    gates[0].open()
    gates[2].open()
    assert site.ended(goes_on, retried) == [states.SUCCESS, states.REVOKED]
    assert site.ledger.count() == {goes_on.id: 1, ended.id: 1, retried.id: 1}
    site.until(site.quiet, "nothing is left in the queue")
    assert worker.stop() == 0


def test_a_retry_that_waits_is_taken_out_when_it_is_revoked(site: Site):
    worker = site.worker("-P", "threads")
    discards = site.broker.features.discards
    # Where nothing can be taken out, it ends when its time has come.
    handle = tasks.retry_until.delay(str(site.ledger), 2, 600.0 if discards else 2.0)
    site.until(lambda: handle.state == states.RETRY, "it is to be retried")
    handle.revoke()
    if discards:
        assert handle.state == states.REVOKED
    assert site.ended(handle) == [states.REVOKED]
    site.until(site.quiet, "nothing is left in the queue")
    assert worker.stop() == 0
    again = site.worker("-P", "threads")
    same = tasks.note.apply_async((str(site.ledger),), task_id=handle.id)
    assert same == handle
    site.until(site.quiet, "it was refused once more")
    assert again.stop() == 0
    assert site.ledger.count() == {handle.id: 1}


# Once more


@pytest.mark.brokers(*BROKERS)
def test_retries_wait_as_long_as_they_are_told_and_end_when_they_are_used_up(site: Site):
    book = str(site.ledger)
    site.worker("-P", "threads")
    asked = tasks.retry_until.delay(book, 3, 0.3)
    spent = tasks.retry_until.delay(book, 100, 0.0)
    backed_off = tasks.flaky.delay(book, 2)
    too_often = tasks.flaky.delay(book, 3)
    exempt = tasks.flaky.delay(book, 1, "PermissionError")
    others = tasks.flaky.delay(book, 1, "ValueError")
    assert asked.get(20) == 3
    assert backed_off.get(20) == 2
    assert site.ended(spent, too_often, exempt, others) == [states.FAILURE] * 4
    with pytest.raises(ValueError, match="not yet"):
        spent.get()
    with pytest.raises(OSError, match="no"):
        too_often.get()
    counts = site.ledger.count()
    expected = {asked: 3, spent: 4, backed_off: 3, too_often: 3, exempt: 1, others: 1}
    assert counts == {handle.id: number for handle, number in expected.items()}
    starts = [line.at / 1e9 for line in site.ledger.lines("start") if line.id == asked.id]
    assert all(0.29 <= second - first < 6.0 for first, second in itertools.pairwise(starts))
    assert [line.attempt for line in site.ledger.lines("start") if line.id == asked.id] == [1, 2, 3]
    known = asked.fetch()
    assert (known.retries, known.attempts) == (2, 3)
    if results["default"].database is not None:
        history = TaskResult.objects.using(site.alias).get(task_id=asked.id).history.splitlines()
        assert [json.loads(line)["state"] for line in history] == [states.RETRY, states.RETRY]


# What is seen meanwhile, and afterwards


def test_whoever_waits_sees_how_far_a_task_is(site: Site):
    book, gate, step = str(site.ledger), site.gate(), site.gate("step")
    worker = site.worker()
    tracked, silent = tasks.tracked.delay(book, str(gate)), tasks.hold.delay(book, str(gate))
    begun(site, tracked, silent)
    site.until(lambda: tracked.state == states.STARTED, "it has started")
    assert silent.state == states.PENDING
    gate.open()
    release(site, gate, tracked, silent)
    assert site.ended(tracked, silent) == [states.SUCCESS] * 2
    told = tasks.progress.delay(book, str(step), 3)
    for number in (1, 2, 3):
        site.until(lambda: told.info == {"current": number, "total": 3}, f"it is at step {number}")  # noqa: B023
        assert told.state == "PROGRESS"
        assert not told.ready()
        step.open()
    assert told.get(20) == "done"
    # Everything is asked to say so by a setting as well.
    assert worker.stop() == 0
    site.worker(TRACK_STARTED=True)
    silent = tasks.hold.delay(book, str(gate))
    site.until(lambda: silent.state == states.STARTED, "it has started")
    with pytest.raises(ResultTimeout, match="it is STARTED"):
        silent.get(0.05)
    gate.open()
    assert silent.get(20) == 1


def test_nothing_is_kept_of_a_result_that_is_ignored_but_its_error_is(site: Site):
    book = str(site.ledger)
    site.worker("-P", "threads")
    silent = tasks.ignored.delay(book)
    broken = tasks.ignored.delay(book, broken=True)
    once = tasks.note.apply_async((book,), ignore_result=True)
    asked = tasks.ignored.apply_async((book,), ignore_result=False)
    assert asked.get(20) == "nobody asks"
    assert site.ended(broken) == [states.FAILURE]
    site.until(lambda: len(site.ledger.count()) == 4 and site.quiet(), "all are done")
    assert [handle.get() for handle in (silent, once)] == [None, None]
    assert [silent.state, once.state] == [states.PENDING] * 2
    assert set(site.ledger.count()) == {silent.id, broken.id, once.id, asked.id}


def test_an_error_comes_back_as_itself_with_its_traceback_and_an_unknown_one_by_its_name(site: Site):
    site.worker()
    handle = tasks.raise_text.delay("as told")
    with pytest.raises(ValueError, match="as told") as caught:
        handle.get(20)
    assert "raise ValueError(text)" in "\n".join(caught.value.__notes__)
    assert isinstance(handle.get(propagate=False), ValueError)
    assert handle.traceback is not None
    unknown = send_task("no.such.task", (1,))
    with pytest.raises(Exception, match=r"No task named 'no\.such\.task'"):
        unknown.get(20)
    assert unknown.state == states.FAILURE
    assert not isinstance(unknown.result, RemoteError)
    known = handle.fetch()
    assert (known.task, known.queue, known.args_repr) == (
        "tests.acceptance.tasks.raise_text",
        "default",
        "('as told',)",
    )
    assert known.created_at is not None
    assert known.started_at is not None
    assert known.ended_at is not None
    # Two clocks: the server's and the worker's.
    assert known.created_at - timedelta(seconds=1) <= known.started_at <= known.ended_at
    assert abs(known.ended_at - datetime.now(UTC)) < timedelta(seconds=20)


def test_asynchronous_tasks_are_called_and_awaited(site: Site):
    site.worker()
    Note.objects.using(site.alias).create(text="x")

    async def call() -> tuple[Handle, Any]:
        handle = await tasks.wait_async.adelay(str(site.ledger), 0.05)
        return handle, await handle.aget(20)

    handle, answer = async_to_sync(call)()
    assert answer == [handle.id, 1]


def test_handlers_and_signals_are_called_where_the_task_runs(site: Site):
    pool = "threads" if site.alias == "default" else "prefork"
    book = str(site.ledger)
    site.environment["DJANGO_TASKS_TEST_SIGNALS"] = book
    worker = site.worker("-P", pool, "-c", "1")
    handles = {how: tasks.handled.delay(book, how) for how in ("well", "fail", "retry")}
    site.ended(*handles.values())
    said = {how: [line.what for line in site.ledger.lines() if line.id == handle.id] for how, handle in handles.items()}
    begin, close = ["signal:started", "before_start", "run"], "signal:finished"
    well = [*begin, "on_success:well", "signal:succeeded", "after_return:SUCCESS", close]
    assert said["well"] == well
    failed = ["on_failure:ValueError:True", "signal:failed", "after_return:FAILURE", close]
    assert said["fail"] == [*begin, *failed]
    retried = ["on_retry:ValueError", "signal:retried", "after_return:RETRY", close]
    assert said["retry"] == [*begin, *retried, *well]
    pids = {line.pid for line in site.ledger.lines()}
    assert len(pids) == 1
    assert (worker.pid in pids) == (pool == "threads")
    assert worker.stop() == 0


# Transactions


def test_a_task_that_is_sent_in_a_transaction_begins_after_its_commit_and_not_after_a_rollback(site: Site):
    book = str(site.ledger)
    worker = site.worker("-P", "threads")
    seen = threading.Event()
    with transaction.atomic(using=site.alias):
        kept = tasks.query.delay()
        Note.objects.using(site.alias).create(text="seen by the task")
        if site.alias != "default":
            # The worker looks meanwhile; on SQLite it would wait for this very transaction.
            seen.wait(1.2)
            assert kept.state == states.PENDING
    assert kept.get(20) == 2
    with pytest.raises(RuntimeError, match="roll back"), transaction.atomic(using=site.alias):  # noqa: PT012
        gone = tasks.note.delay(book)
        raise RuntimeError("roll back")
    with transaction.atomic(using=site.alias):
        outer = tasks.note.delay(book)
        with pytest.raises(RuntimeError, match="roll back"), transaction.atomic(using=site.alias):  # noqa: PT012
            inner = tasks.note.delay(book)
            raise RuntimeError("roll back")
    assert outer.get(20) == 1
    after = tasks.note.delay(book)
    assert after.get(20) == 1
    assert set(site.ledger.count()) == {outer.id, after.id}
    assert [gone.state, inner.state] == [states.PENDING] * 2
    assert site.quiet()
    assert worker.stop() == 0


def test_an_atomic_task_and_its_completion_are_one(site: Site):
    site.worker()
    handle = tasks.write_atomically.delay(str(site.ledger), "kept", "")
    assert handle.get(20) == Note.objects.using(site.alias).get(text="kept").pk
    broken = tasks.write_and_fail.delay(str(site.ledger), "dropped")
    assert site.ended(broken) == [states.FAILURE]
    assert not Note.objects.using(site.alias).filter(text="dropped").exists()
    site.until(site.quiet, "nothing is left in the queue")


def test_tasks_that_send_tasks_know_their_root_and_their_parent(site: Site):
    site.worker()
    root = tasks.spread.delay(str(site.ledger), 2, 3)
    assert root.get(20) == root.id
    site.until(lambda: len(site.ledger.lines()) == 1 + 3 + 9 and site.quiet(), "all have run")
    told = {line.id: line.what.split(":") for line in site.ledger.lines()}
    assert {what[2] for what in told.values()} == {root.id}
    assert told[root.id][3] == "None"
    for task_id, (_, depth, _, parent) in told.items():
        if task_id != root.id:
            assert int(told[parent][1]) == int(depth) + 1
    kept = results["default"].get(list(told))
    assert [kept[task_id].root_id for task_id in told if task_id != root.id] == [root.id] * 12
    assert kept[root.id].parent_id is None


# Settings, deployments and time zones


@pytest.mark.brokers(*BROKERS)
def test_a_task_that_an_old_worker_does_not_know_is_left_to_a_new_one(site: Site, tmp_path: Path):
    (tmp_path / "old_site.py").write_text(
        "from datetime import timedelta\n"
        "from tests.acceptance.settings import *\n"
        "DJANGO_TASKS['UNKNOWN_TASKS_WAIT'] = timedelta(minutes=5)\n"
    )
    (tmp_path / "new_site.py").write_text("from old_site import *\nINSTALLED_APPS.append('new_app')\n")
    (tmp_path / "new_app").mkdir()
    (tmp_path / "new_app" / "__init__.py").touch()
    (tmp_path / "new_app" / "tasks.py").write_text(
        "from django_tasks import task\n"
        "@task(name='deployed.later', bind=True)\n"
        "def later(self):\n"
        "    return self.request.attempt\n"
    )
    site.environment |= {"DJANGO_SETTINGS_MODULE": "old_site", "PYTHONPATH": str(tmp_path)}
    old = site.worker("-c", "1", "-P", "threads")
    handle = send_task("deployed.later")
    old.wait_for("goes back to its queue, for a worker that knows it: NotRegistered")
    assert handle.state == states.PENDING
    site.environment["DJANGO_SETTINGS_MODULE"] = "new_site"
    site.worker("-c", "1", "-P", "threads")
    assert old.stop() == 0
    assert handle.get(60) == 1
    assert old.output.count("for a worker that knows it") == 1


def test_settings_hold_for_tasks_that_say_nothing_themselves(site: Site):
    book = str(site.ledger)
    worker = site.worker(
        "-P", "threads", MAX_RETRIES=1, IGNORE_RESULT=True, STORE_ERRORS_EVEN_IF_IGNORED=False, ROUTES={"*": "routed"}
    )
    with override_settings(
        DJANGO_TASKS={
            **site.backends,
            "ROUTES": {"tests.acceptance.tasks.note": "routed"},
            "QUEUES": {"routed": {"PRIORITY": 7}},
            "IGNORE_RESULT": True,
        }
    ):
        handle = tasks.note.delay(book)
        assert handle.ignored
        other = tasks.look_up.apply_async((book,), queue="routed")
    site.until(lambda: len(site.ledger.lines()) == 2 and site.quiet(), "both are done")
    assert worker.stop() == 0
    assert results["default"].get([handle.id, other.id]) == {}


def test_times_are_right_for_a_site_without_time_zones(site: Site, tmp_path: Path):
    # This process has them, and another TIME_ZONE, so that what is shared must be told in UTC.
    zone = "Pacific/Chatham"
    code = tmp_path / "zoned_settings.py"
    code.write_text(f"from tests.acceptance.settings import *\nUSE_TZ = False\nTIME_ZONE = {zone!r}\n")
    site.environment |= {"DJANGO_SETTINGS_MODULE": code.stem, "PYTHONPATH": str(tmp_path)}
    book = str(site.ledger)
    worker = site.worker("-P", "threads")
    now, name, _ = tasks.where_and_when.delay().get(20)
    assert name == zone
    assert datetime.fromisoformat(now).tzinfo is None
    soon = tasks.note.apply_async((book,), countdown=0.5)
    later = tasks.note.apply_async((book,), countdown=3600)
    expired = tasks.note.apply_async((book,), expires=-0.5)
    fresh = tasks.note.apply_async((book,), expires=600)
    again = tasks.retry_until.delay(book, 2, 0.2)
    early = tasks.note.apply_async((book,), eta=datetime.now(UTC) - timedelta(seconds=1))
    assert site.ended(soon, expired, fresh, again, early) == [
        states.SUCCESS,
        states.REVOKED,
        states.SUCCESS,
        states.SUCCESS,
        states.SUCCESS,
    ]
    for handle in (soon, fresh):
        known = handle.fetch()
        moments = [known.created_at, known.started_at, known.ended_at]
        assert all(moment is not None and abs(moment - datetime.now(UTC)) < timedelta(seconds=30) for moment in moments)
    assert later.state == states.PENDING
    revoke([later.id])
    assert later.state == states.REVOKED
    assert worker.stop() == 0
