"""Is each question asked once in a run of the checks, and each time outside of one?"""

from __future__ import annotations

import pytest

from django_tasks.answers import Answers, once


class Server:
    """Counts how often it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error

    def ask(self) -> int:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.asked


def test_outside_of_a_run_every_question_is_asked() -> None:
    server = Server()
    assert [once("how", server.ask), once("how", server.ask)] == [1, 2]


def test_in_a_run_each_question_is_asked_once_however_long_it_was_interrupted() -> None:
    server, answers = Server(), Answers()
    with answers.remembered():
        assert [once("how", server.ask), once("how", server.ask), once("who", server.ask)] == [1, 1, 2]
    assert once("how", server.ask) == 3
    with answers.remembered():
        assert once("how", server.ask) == 1
    with Answers().remembered():
        assert once("how", server.ask) == 4


def test_who_did_not_answer_is_not_asked_again() -> None:
    server = Server(ValueError("nobody is there"))
    with Answers().remembered():
        for _ in range(2):
            with pytest.raises(ValueError, match="nobody is there"):
                once("how", server.ask)
    assert server.asked == 1
