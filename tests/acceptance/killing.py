"""After which statement does a worker die, with all its processes, that a test has told to?"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

VARIABLE = "DJANGO_TASKS_TEST_DIE_AFTER"
"""Names words of the statement; it has been executed then, and not been committed."""


def arm() -> None:
    """Have this process die as it is told to, if it is."""
    words = os.environ.get(VARIABLE, "").split()
    if words:
        connection_created.connect(_Killing(words).attach, weak=False)


class _Killing:
    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def attach(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        connection.execute_wrappers.append(self)

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        done = execute(sql, params, many, context)
        if all(word in sql for word in self.words):
            os.killpg(os.getpgid(0), signal.SIGKILL)
        return done
