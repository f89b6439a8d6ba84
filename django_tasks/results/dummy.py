"""Where do results go when nobody will ask for them?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django_tasks.exceptions import ConfigurationError
from django_tasks.plan import Result
from django_tasks.results.base import ResultStore


class DummyStore(ResultStore):
    """Keeps nothing: every task stays PENDING for whoever asks."""

    def save(self, results: Sequence[Result]) -> None:
        pass

    def get(self, ids: Sequence[str]) -> dict[str, Result]:
        return {}

    def wait(self, ids: Sequence[str], timeout: float | None) -> dict[str, Result]:
        """Raise ConfigurationError at once: a result that is never kept would be waited for in vain."""
        if not ids:
            return {}
        raise ConfigurationError(
            f"The result store {self.alias!r} keeps no results, so nobody can wait for one. Set DJANGO_TASKS['RESULTS']"
            f"[{self.alias!r}]['BACKEND'] to a store that does, such as 'database', or do not wait."
        )

    def forget(self, ids: Sequence[str]) -> int:
        return 0

    def expire(self, before: datetime, limit: int = 1000) -> int:
        return 0
