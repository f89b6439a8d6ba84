"""What do the rows of the queue know of themselves?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from django_tasks.periodic_models import PeriodicTask  # noqa: F401  # named in the text below

PLANNING = frozenset({"schedule", "timezone", "start_at", "end_at", "enabled"})
"""What decides when a periodic task is due."""


class PeriodicTaskQuerySet(models.QuerySet["PeriodicTask"]):
    """Periodic tasks; a change of what decides when they are due counts at the next tick, however it is made."""

    def update(self, **values: Any) -> int:
        """Change rows; those whose schedule changes are planned anew."""
        return super().update(**values, **(anew() if PLANNING & values.keys() else {}))

    update.alters_data = True  # type: ignore[attr-defined]


def anew() -> dict[str, Any]:
    """Return what has a row planned by the next tick, which finds it due and sees that it is not worked out."""
    now = timezone.now()
    return {"planned": False, "next_run_at": now, "changed_at": now}
