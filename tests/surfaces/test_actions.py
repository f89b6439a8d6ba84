"""Does each action do what it says, once, and say what came of it?"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from django.test import override_settings

from django_tasks import actions, states
from django_tasks.actions import Verdict
from django_tasks.backends.memory import MemoryBroker
from django_tasks.connections import home, results
from django_tasks.control.ledger import RevocationLedger
from django_tasks.exceptions import BrokerFull, SignatureError
from django_tasks.message import Message
from django_tasks.models import Crash, QueuedMessage, Revocation, TaskResult
from django_tasks.plan import Result
from django_tasks.result import AsyncResult
from django_tasks.signing import verify
from tests.app.tasks import add, fail
from tests.surfaces.site import WORKER, fetch, on_each_database, result, settings_for, tasks_in, work


@pytest.fixture(autouse=True)
def _place(request):
    """Keep tasks in the database that the test is about, if it is about one."""
    if "alias" not in request.fixturenames:
        yield
        return
    with tasks_in(request.getfixturevalue("alias")):
        yield


def codes(report: actions.Report) -> dict[str, str]:
    return {answer.id: answer.code for answer in report.answers}


def row(alias: str, task_id: str) -> TaskResult:
    return TaskResult.objects.using(alias).get(pk=task_id)


def queued(alias: str) -> list[str]:
    return list(QueuedMessage.objects.using(alias).order_by("id").values_list("task_id", flat=True))


class TestRetry:
    @on_each_database()
    def test_a_failed_task_runs_again_and_its_history_goes_on(self, alias):
        sent = fail.delay("no paper")
        work()
        first = row(alias, sent.id)
        report = actions.retry([sent.id])
        assert codes(report) == {sent.id: "queued"}
        assert report.done == [sent.id]
        waiting = row(alias, sent.id)
        assert (waiting.state, waiting.ended_at, waiting.message, waiting.error_type) == ("PENDING", None, None, "")
        assert (waiting.attempts, waiting.args_repr) == (1, first.args_repr)
        assert work() == 1
        again = row(alias, sent.id)
        assert (again.state, again.attempts, again.worker) == ("FAILURE", 2, WORKER)
        (line,) = again.history.splitlines()
        assert '"attempt": 1' in line
        assert "ValueError: no paper" in line
        assert again.message is not None
        assert codes(actions.retry([sent.id])) == {sent.id: "queued"}

    @on_each_database()
    def test_a_body_of_bytes_runs_again_as_it_was_sent(self, alias):
        with tasks_in(alias, ACCEPT=["json", "msgpack"]):
            sent = fail.apply_async(("no paper" * 50,), serializer="msgpack", compression="zlib")
            work()
            assert "no paper" in row(alias, sent.id).error_message
            assert codes(actions.retry([sent.id])) == {sent.id: "queued"}
            assert bytes(QueuedMessage.objects.using(alias).get(task_id=sent.id).body[:1]) == b"x"
            assert work() == 1
            again = row(alias, sent.id)
            assert (again.error_type, again.attempts) == ("ValueError", 2)

    @on_each_database()
    def test_a_task_is_signed_again_if_it_was_signed_and_else_refused(self, alias):
        with tasks_in(alias, REQUIRE_SIGNATURE=True):
            sent, forged = fail.delay("no paper"), fail.delay("none")
            QueuedMessage.objects.using(alias).filter(task_id=forged.id).update(rank=-7)
            work()
            report = actions.retry([sent.id, forged.id])
            assert codes(report) == {sent.id: "queued", forged.id: "not_signed"}
            (delivery,) = fetch()
            verify(delivery.message)
            assert delivery.message.attempts == 1

    @on_each_database()
    def test_what_is_made_ready_is_signed_again_if_it_was_signed(self, alias):
        with tasks_in(alias, SIGN=True):
            sent, forged = (add.apply_async((1, 2), countdown=3600) for _ in range(2))
            QueuedMessage.objects.using(alias).filter(task_id=forged.id).update(rank=-7)
            assert set(actions.run_now([sent.id, forged.id]).done) == {sent.id, forged.id}
            found = {delivery.message.id: delivery.message for delivery in fetch()}
            verify(found[sent.id])
            with pytest.raises(SignatureError):
                verify(found[forged.id])

    @on_each_database()
    def test_what_cannot_be_sent_again_is_told_and_stays(self, alias):
        good = add.delay(1, 2)
        work()
        result(alias, "lost", state=states.FAILURE)
        result(alias, "running", state=states.STARTED, ended_at=None)
        result(alias, "broken", state=states.FAILURE, message="{}")
        report = actions.retry([good.id, "lost", "running", "broken", "nobody", good.id])
        assert codes(report) == {
            good.id: "not_failed",
            "lost": "not_kept",
            "running": "not_ended",
            "broken": "unreadable",
            "nobody": "not_found",
        }
        assert len(report.answers) == 5
        assert report.done == []
        assert queued(alias) == []
        assert row(alias, good.id).state == "SUCCESS"
        assert all(answer.text for answer in report.answers)

    @on_each_database()
    def test_nothing_stands_in_its_way(self, alias):
        sent = add.apply_async((1, 2), expires=60, countdown=3600)
        actions.revoke([sent.id])
        kept = row(alias, sent.id)
        assert kept.state == "REVOKED"
        assert kept.message is not None
        long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        kept.message = kept.message.replace('"expires":"', f'"expires":"{long_ago}","was":"')
        kept.save(using=alias)
        Crash.objects.using(home()).create(task_id=sent.id, reason="killed by signal 9")
        assert codes(actions.retry([sent.id])) == {sent.id: "queued"}
        assert RevocationLedger(home()).among([sent.id]) == {}
        assert not Crash.objects.using(home()).exists()
        assert work() == 1
        assert AsyncResult(sent.id).get(timeout=0) == 3

    @on_each_database(transaction=True)
    def test_a_full_queue_rolls_all_back(self, alias):
        sent = fail.apply_async(("no",), queue="mail")
        work()
        before = TaskResult.objects.using(alias).values().get(pk=sent.id)
        Revocation.objects.using(home()).create(task_id=sent.id)
        with override_settings(DJANGO_TASKS=with_full_broker(alias)), pytest.raises(BrokerFull):
            actions.retry([sent.id])
        assert TaskResult.objects.using(alias).values().get(pk=sent.id) == before
        assert Revocation.objects.using(alias).filter(pk=sent.id).exists()

    @on_each_database(transaction=True)
    def test_two_operators_at_once_send_it_once(self, alias):
        ids = [fail.delay(str(number)).id for number in range(20)]
        work()
        reports: list[actions.Report] = []
        both = threading.Barrier(2)

        def operate():
            both.wait()
            reports.append(actions.retry(ids))
            connections.close_all()

        threads = [threading.Thread(target=operate) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(reports[0].done + reports[1].done) == sorted(ids)
        assert sorted(queued(alias)) == sorted(ids)
        assert work() == 20
        assert set(TaskResult.objects.using(alias).values_list("attempts", flat=True)) == {2}

    @pytest.mark.django_db
    def test_results_that_are_not_in_a_database(self):
        with override_settings(DJANGO_TASKS=MEMORY):
            results["default"].save([failed("a"), failed("b", kept=False)])
            assert codes(actions.retry(["a", "b", "c"])) == {"a": "queued", "b": "not_kept", "c": "not_found"}
            assert [delivery.attempt for delivery in fetch()] == [4]
            assert results["default"].get(["a"]) == {}

    @pytest.mark.django_db
    def test_a_full_queue_beside_results_that_are_not_in_a_database(self):
        with override_settings(DJANGO_TASKS=MEMORY | {"BROKERS": {"default": {"BACKEND": f"{__name__}.FullBroker"}}}):
            results["default"].save([failed("a")])
            with pytest.raises(BrokerFull):
                actions.retry(["a"])
            assert results["default"].get(["a"])["a"].state == "FAILURE"


class TestRevoke:
    @on_each_database()
    def test_what_waits_ends_now_and_what_runs_is_told(self, alias):
        running, waiting, ended = add.delay(1, 1), add.delay(2, 2), add.delay(3, 3)
        (delivery,) = fetch(1)
        assert delivery.message.id == running.id
        result(alias, ended.id)
        report = actions.revoke([running.id, waiting.id, ended.id, "nobody"], terminate=True, reason="a mistake")
        assert codes(report) == {running.id: "told", waiting.id: "revoked", ended.id: "ended", "nobody": "not_found"}
        assert report.done == [running.id, waiting.id]
        assert [answer.verdict for answer in report.refused] == [Verdict.NOT_POSSIBLE, Verdict.NOT_FOUND]
        assert row(alias, waiting.id).state == "REVOKED"
        assert "a mistake" in row(alias, waiting.id).error_message
        assert RevocationLedger(home()).among([running.id, waiting.id, ended.id, "nobody"]) == {
            running.id: True,
            waiting.id: True,
        }
        assert running.id in queued(alias)

    @on_each_database()
    def test_a_task_between_two_attempts(self, alias):
        sent = add.apply_async((1, 1), countdown=60)
        result(alias, sent.id, state=states.RETRY, ended_at=None)
        assert codes(actions.revoke([sent.id])) == {sent.id: "revoked"}
        assert row(alias, sent.id).state == "REVOKED"
        assert queued(alias) == []

    @pytest.mark.django_db
    def test_where_messages_cannot_be_found_by_id(self):
        with override_settings(DJANGO_TASKS=MEMORY):
            sent = add.delay(1, 1)
            assert codes(actions.revoke([sent.id, "perhaps"])) == {sent.id: "revoked", "perhaps": "told"}


class TestDelete:
    @on_each_database()
    def test_what_has_ended_goes_and_what_waits_stays(self, alias):
        waiting = add.apply_async((1, 1), countdown=60)
        result(alias, "done")
        result(alias, "abandoned", state=states.STARTED, ended_at=None)
        result(alias, waiting.id, state=states.RETRY, ended_at=None)
        report = actions.delete(["done", "abandoned", waiting.id, "nobody"])
        assert codes(report) == {
            "done": "deleted",
            "abandoned": "deleted",
            waiting.id: "not_ended",
            "nobody": "not_found",
        }
        assert list(TaskResult.objects.using(alias).values_list("pk", flat=True)) == [waiting.id]

    @pytest.mark.django_db
    def test_results_that_are_not_in_a_database(self):
        with override_settings(DJANGO_TASKS=MEMORY):
            results["default"].save([failed("a")])
            assert codes(actions.delete(["a", "b"])) == {"a": "deleted", "b": "not_found"}
            assert results["default"].get(["a"]) == {}


class TestWaitingMessages:
    @on_each_database()
    def test_discard(self, alias):
        leased = add.delay(1, 1)
        fetch(1)
        ready, delayed = add.delay(2, 2), add.apply_async((3, 3), countdown=60)
        report = actions.discard([leased.id, ready.id, delayed.id, "nobody"])
        assert codes(report) == {
            leased.id: "leased",
            ready.id: "deleted",
            delayed.id: "deleted",
            "nobody": "not_found",
        }
        assert WORKER in report.answers[0].text
        assert queued(alias) == [leased.id]
        assert not TaskResult.objects.using(alias).exists()

    @on_each_database()
    def test_run_now(self, alias):
        leased = add.delay(1, 1)
        fetch(1)
        delayed = add.apply_async((3, 4), countdown=3600, priority=7)
        QueuedMessage.objects.using(alias).filter(task_id=delayed.id).update(deliveries=2)
        ready = add.delay(2, 2)
        report = actions.run_now([leased.id, delayed.id, ready.id, "nobody"])
        assert codes(report) == {leased.id: "leased", delayed.id: "ready", ready.id: "ready", "nobody": "not_found"}
        assert report.done == [delayed.id]
        first, second = fetch()
        assert (first.message.id, first.message.priority, first.attempt) == (delayed.id, 7, 3)
        assert second.message.id == ready.id

    @on_each_database()
    def test_purge_leaves_what_is_leased_and_other_queues(self, alias):
        leased = add.delay(0, 0)
        fetch(1)
        for number in range(5):
            add.apply_async((number, 0), countdown=number or None)
        other = add.apply_async((9, 9), queue="mail")
        assert actions.purge("default") == 5
        assert actions.purge("default", "default") == 0
        assert queued(alias) == [leased.id, other.id]

    @on_each_database()
    def test_a_revocation_is_taken_back(self, alias):
        Revocation.objects.using(home()).create(task_id="a")
        assert codes(actions.take_back(["a", "b"])) == {"a": "taken_back", "b": "not_found"}
        assert not Revocation.objects.using(home()).exists()


MEMORY = {"BROKERS": {"default": {"BACKEND": "memory"}}, "RESULTS": {"default": {"BACKEND": "memory"}}}


class FullBroker(MemoryBroker):
    """A broker that takes nothing."""

    def publish(self, messages):
        raise BrokerFull("no room")


def with_full_broker(alias):
    settings = settings_for(alias)
    settings["BROKERS"] = settings["BROKERS"] | {"full": {"BACKEND": f"{__name__}.FullBroker"}}
    return settings | {"QUEUES": {"mail": {"BROKER": "full"}}}


def failed(task_id, *, kept=True):
    message = Message(id=task_id, task="shop.tasks.order", body=b"[[],{},{}]") if kept else None
    return Result(id=task_id, state=states.FAILURE, task="shop.tasks.order", attempts=3, message=message)
