"""Which states are there, which end a task, and which counts for more?"""

from __future__ import annotations

from itertools import pairwise

import pytest

from django_tasks import states

CELERYS_ORDER = ["SUCCESS", "FAILURE", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"]


def test_states_are_celerys_names() -> None:
    assert {
        "PENDING",
        "RECEIVED",
        "STARTED",
        "RETRY",
        "SUCCESS",
        "FAILURE",
        "REVOKED",
        "REJECTED",
        "IGNORED",
    } == states.ALL
    assert all(getattr(states, name) == name for name in states.ALL)


def test_a_final_state_is_one_after_which_nothing_comes() -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED", "REJECTED", "IGNORED"} == states.FINAL
    assert states.FINAL < states.ALL


def test_waiting_for_a_failed_task_raises_and_for_a_successful_one_does_not() -> None:
    assert {"FAILURE", "REVOKED", "REJECTED"} == states.FAILED
    assert states.FAILED < states.FINAL
    assert states.FAILED | {states.RETRY} == states.EXCEPTION


def test_precedence_is_celerys() -> None:
    assert all(states.precedence(better) < states.precedence(worse) for better, worse in pairwise(CELERYS_ORDER))


@pytest.mark.parametrize("custom", ["PROGRESS", "success", "", "上传"])
def test_a_custom_state_stands_between_the_outcomes_of_a_run_and_the_rest(custom: str) -> None:
    place = states.precedence(custom)
    assert all(states.precedence(state) < place for state in ("SUCCESS", "FAILURE", "IGNORED"))
    assert all(states.precedence(state) > place for state in ("REVOKED", "STARTED", "RECEIVED", "REJECTED", "PENDING"))
    assert states.is_custom(custom)


@pytest.mark.parametrize("state", sorted(states.ALL))
def test_every_state_of_ours_has_its_own_place(state: str) -> None:
    assert not states.is_custom(state)
    assert [states.precedence(other) for other in states.ALL].count(states.precedence(state)) == 1
