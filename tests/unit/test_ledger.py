"""Does the ledger of revocations remember each, as long as it is to?"""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from django_tasks.control.ledger import RevocationLedger
from django_tasks.models import Revocation
from tests.vendors import each_vendor

pytestmark = each_vendor()

MANY = [f"task-{number}" for number in range(1_201)]


@pytest.fixture
def ledger(alias: str) -> RevocationLedger:
    return RevocationLedger(alias)


def test_an_empty_ledger_knows_nothing(ledger: RevocationLedger) -> None:
    assert (ledger.any(), ledger.among(["7"]), ledger.among([])) == (False, {}, {})


def test_what_is_written_is_found_with_whether_to_end_a_run(ledger: RevocationLedger) -> None:
    ledger.add(["7"])
    ledger.add(["8"], terminate=True)
    assert ledger.any()
    assert ledger.among(["7", "8", "9"]) == {"7": False, "8": True}


def test_a_revocation_may_become_a_terminating_one_and_never_the_other_way_round(ledger: RevocationLedger) -> None:
    ledger.add(["7", "8"])
    ledger.add(["7", "7"], terminate=True)
    ledger.add(["7", "8"])
    assert ledger.among(["7", "8"]) == {"7": True, "8": False}


def test_thousands_are_written_and_found(ledger: RevocationLedger) -> None:
    ledger.add(MANY, terminate=True)
    assert ledger.among(MANY) == dict.fromkeys(MANY, True)
    ledger.forget(MANY[1:])
    assert ledger.among(MANY) == {MANY[0]: True}


def test_a_task_that_may_be_sent_again_is_forgotten(ledger: RevocationLedger) -> None:
    ledger.add(["7", "8"])
    ledger.forget(["7", "nobody"])
    assert ledger.among(["7", "8"]) == {"8": False}


def test_what_is_older_than_a_time_is_removed(ledger: RevocationLedger, alias: str) -> None:
    ledger.add(["old", "new"])
    now = timezone.now()
    Revocation.objects.using(alias).filter(task_id="old").update(created_at=now - timedelta(days=91))
    assert ledger.expire(now - timedelta(days=90)) == 1
    assert ledger.among(["old", "new"]) == {"new": False}
    assert ledger.expire(now - timedelta(days=90)) == 0


def test_ids_that_differ_in_capitals_alone_are_two(ledger: RevocationLedger) -> None:
    ledger.add(["order-a"])
    assert ledger.among(["ORDER-A", "order-a"]) == {"order-a": False}
