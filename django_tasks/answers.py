"""What have servers answered to one run of Django's checks, so that none is asked the same again?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class Answers:
    """What was answered, by question; also that there was no answer."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}
        self._failed: dict[Hashable, Exception] = {}

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Have `once` look here first, for the block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def get(self, question: Hashable, ask: Callable[[], T]) -> T:
        """Return what was answered before, or ask; raises the error that was raised before."""
        if question in self._failed:
            raise self._failed[question]
        if question not in self._known:
            try:
                self._known[question] = ask()
            except Exception as error:
                self._failed[question] = error
                raise
        answer: T = self._known[question]
        return answer


_current: ContextVar[Answers | None] = ContextVar("django_tasks_answers", default=None)


def once(question: Hashable, ask: Callable[[], T]) -> T:
    """Ask, unless that has been asked in this run of the checks; outside of one always."""
    answers = _current.get()
    return ask() if answers is None else answers.get(question, ask)
