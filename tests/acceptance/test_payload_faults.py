"""What happens to a worker when a task gives it something odd?"""

from __future__ import annotations

import pytest

from django_tasks import states
from tests.acceptance import tasks
from tests.acceptance.conftest import Site
from tests.vendors import each_vendor

pytestmark = each_vendor(transaction=True)


def test_what_a_task_returns_is_kept_or_fails_visibly_and_the_task_is_not_run_again(site: Site):
    site.worker()
    kept = {kind: tasks.give.delay(kind) for kind in ("nul", "surrogate", "nan", "int", "emoji")}
    refused = {kind: tasks.give.delay(kind) for kind in ("lambda", "huge", "generator", "queryset", "model")}
    assert set(site.ended(*kept.values())) == {states.SUCCESS}
    assert kept["nul"].get() == "a\x00b"
    assert kept["surrogate"].get() == "\ud800"
    assert kept["nan"].get() != kept["nan"].get()
    assert kept["int"].get() == 10**5000
    assert kept["emoji"].get() == "\N{PILE OF POO}"
    assert set(site.ended(*refused.values())) == {states.FAILURE}
    for result in refused.values():
        failure = result.fetch().failure
        assert failure is not None
        assert failure.type == "ResultNotSerializable"
        assert result.fetch().attempts == 1


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\N{PILE OF POO}", "x" * 5_000_000, "\x1b[31m\nfake log line"])
def test_any_text_in_an_error_is_kept(site: Site, text: str):
    worker = site.worker()
    result = tasks.raise_text.delay(text[:100_000])
    assert site.ended(result) == [states.FAILURE]
    failure = result.fetch().failure
    assert failure is not None
    assert failure.type == "ValueError"
    assert len(failure.message) <= 10_000
    assert "\x1b" not in worker.output


def test_a_retry_gets_the_original_arguments(site: Site):
    site.worker()
    assert tasks.mutate.delay([1, 2]).get(30) == [1, 2]


def test_argument_names_that_are_ours_are_the_tasks_own(site: Site):
    site.worker()
    odd = {"self": 1, "task_id": 2, "args": 3, "kwargs": 4, "options": 5, "name": 6}
    assert tasks.odd_names.apply_async(kwargs=odd).get(30) == odd
    assert tasks.odd_names.delay(**odd).get(30) == odd


def test_a_task_may_print_without_end_and_close_its_output(site: Site):
    site.worker("-c", "1")
    assert tasks.shout.delay(20_000).get(30) == "done"
    assert tasks.note.delay(str(site.ledger)).get(30) == 1


def test_the_next_task_finds_a_clean_process(site: Site, tmp_path):
    site.worker("-c", "1")
    before = tasks.look.delay().get(30)
    tasks.soil.delay(str(tmp_path)).get(30)
    assert tasks.look.delay().get(30) == before


def test_a_transaction_left_open_is_rolled_back_and_the_next_task_has_a_sound_connection(site: Site):
    site.worker("-c", "1")
    tasks.break_connection.delay().get(30)
    assert tasks.query.delay().get(30) == 0


def test_a_hard_time_limit_ends_the_task_and_nothing_else(site: Site):
    site.worker("-c", "1")
    overlong = tasks.overlong.delay(60)
    after = tasks.note.delay(str(site.ledger))
    assert site.ended(overlong) == [states.FAILURE]
    failure = overlong.fetch().failure
    assert failure is not None
    assert failure.type == "TimeLimitExceeded"
    assert after.get(30) == 1
