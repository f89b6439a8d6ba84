"""Do batches shrink on a slow link, and grow again?"""

from __future__ import annotations

from django_tasks.worker.stride import Stride


def test_what_was_given_up_after_a_while_is_tried_with_half_until_it_goes_through() -> None:
    stride = Stride(500)
    tried = []
    while (number := stride.size) > 60:
        tried.append(number)
        stride.failed(number, 5.0)
    assert [*tried, stride.size] == [500, 250, 125, 62, 31]
    for _ in range(5):
        stride.went(stride.size)
    assert stride.size == 500


def test_a_batch_that_took_too_long_is_cut_to_what_there_is_time_for() -> None:
    stride = Stride(500)
    stride.went(400, 65.0, within=5.0)
    assert stride.size == 30
    stride.went(30, 4.9, within=5.0)
    assert stride.size == 60


def test_there_is_always_something_to_try() -> None:
    stride = Stride(500)
    stride.went(1, 100.0, within=5.0)
    stride.failed(1, 5.0)
    assert stride.size == 1


def test_a_server_that_is_not_there_says_nothing_of_the_size() -> None:
    stride = Stride(500)
    stride.failed(500, 0.01)
    assert stride.size == 500
    # Nor does one that had nothing, however long it took to say so.
    stride.went(0, 10.0, within=5.0)
    assert stride.size == 500
